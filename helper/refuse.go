package helper

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// reserved are the blocks that a helper does not connect to: RFC 6890 with
// IANA's special-purpose registries, and the prefixes that carry an IPv4
// address inside (NAT64, 6to4, Teredo, IPv4-compatible), behind which a
// private one could hide.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("224.0.0.0/3"), // multicast, reserved, broadcast
	netip.MustParsePrefix("::/8"),        // unspecified, loopback, IPv4-compatible, 64:ff9b::/96, 64:ff9b:1::/48
	netip.MustParsePrefix("100::/16"),
	netip.MustParsePrefix("2001::/23"), // Teredo and other protocols' own
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"), // 6to4
	netip.MustParsePrefix("3fff::/20"),
	netip.MustParsePrefix("5f00::/16"),
	netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fe80::/9"), // link-local and the former site-local
	netip.MustParsePrefix("ff00::/8"),
}

// defaultPorts are those of the web and of mail clients. Port 25 is not among
// them: what looks like mail delivery from a stranger's server is a nuisance.
var defaultPorts = []uint16{80, 110, 143, 443, 465, 587, 853, 993, 995, 8000, 8080, 8443, 8888}

// policy says whom the helper may contact on a client's behalf.
type policy struct {
	allowReserved bool
	own           []netip.Addr
	refuse        []netip.Prefix
	ports         []uint16
}

// addr says why an address may not be contacted, nil if it may. local is the
// address at which the client reached the helper.
func (p *policy) addr(a, local netip.Addr) error {
	a = a.Unmap()
	if !a.IsValid() || a.Zone() != "" {
		return fmt.Errorf("not an address of the internet")
	}
	if a == local || slices.Contains(p.own, a) {
		return fmt.Errorf("the helper's own address")
	}
	for _, r := range p.refuse {
		if r.Contains(a) {
			return fmt.Errorf("an address that this helper refuses")
		}
	}
	if !p.allowReserved && isReserved(a) {
		return fmt.Errorf("a private or reserved address")
	}
	return nil
}

func isReserved(a netip.Addr) bool {
	for _, r := range reserved {
		if r.Contains(a) {
			return true
		}
	}
	// ISATAP (RFC 5214) carries an IPv4 address behind any prefix.
	b := a.As16()
	return a.Is6() && b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// inside are the ends of names that mean something only in a network of one's
// own. What a host's resolver says of those is nobody else's business.
var inside = []string{"localhost", "local", "internal", "intranet", "private", "corp", "home", "lan", "localdomain", "home.arpa"}

// name says why a name may not be resolved, nil if it may.
func (p *policy) name(name string) error {
	if p.allowReserved {
		return nil
	}
	if !strings.Contains(name, ".") {
		return fmt.Errorf("a name without a dot is of somebody's own network")
	}
	for _, end := range inside {
		if strings.HasSuffix(name, "."+end) {
			return fmt.Errorf("names below .%s are of somebody's own network", end)
		}
	}
	return nil
}

func (p *policy) port(n uint16) error {
	if slices.Contains(p.ports, n) {
		return nil
	}
	return fmt.Errorf("port %d is not one that this helper connects to", n)
}

// addrOf is the numeric address of one end of a connection.
func addrOf(a net.Addr) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}
