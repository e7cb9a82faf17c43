package host

import (
	"net"
	"net/netip"
	"os"
	"strings"
)

// Facts are what this host can tell of the network it is in, without sending
// anything. What it cannot tell is empty, which is not "no".
type Facts struct {
	// Tunnel is the interface that carries the default route, if it is a
	// VPN's: tun, tap, WireGuard, PPP, IPsec.
	Tunnel string
	// Proxy is the name of the first environment variable or file that sets a
	// system proxy; never its value, which may hold a password.
	Proxy string
	// Link is wifi, ethernet, mobile or "" unknown, of the default route.
	Link string
	// Interface carries the default route.
	Interface string
	// Resolvers are those of the system's stub resolver.
	Resolvers []netip.Addr
}

// Surroundings asks the host for Facts.
func Surroundings() Facts {
	f := Facts{Proxy: proxySetting(os.Environ()), Resolvers: resolvers(), Interface: defaultInterface()}
	if f.Interface != "" {
		if tunnelName(f.Interface) || isTunnel(f.Interface) {
			f.Tunnel = f.Interface
		} else {
			f.Link = linkKind(f.Interface)
		}
	}
	return f
}

// proxySetting finds a proxy in an environment. NO_PROXY alone sets none.
func proxySetting(environ []string) string {
	for _, name := range []string{"https_proxy", "http_proxy", "all_proxy"} {
		for _, kv := range environ {
			k, v, _ := strings.Cut(kv, "=")
			if strings.EqualFold(k, name) && v != "" {
				return k
			}
		}
	}
	return ""
}

// tunnelName says whether an interface has the name of a VPN's.
func tunnelName(name string) bool {
	for _, prefix := range []string{"tun", "tap", "wg", "ppp", "utun", "ipsec", "nordlynx", "proton", "tailscale", "zt", "warp", "CloudflareWARP"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// defaultInterface is the interface that the kernel would use for an address
// on the internet, found by its source address: connecting a UDP socket sends
// nothing.
func defaultInterface() string {
	for _, target := range []struct{ network, address string }{{"udp4", "192.0.2.1:443"}, {"udp6", "[2001:db8::1]:443"}} {
		c, err := net.Dial(target.network, target.address)
		if err != nil {
			continue
		}
		local, ok := c.LocalAddr().(*net.UDPAddr)
		c.Close()
		if !ok {
			continue
		}
		interfaces, err := net.Interfaces()
		if err != nil {
			return ""
		}
		for _, i := range interfaces {
			addrs, err := i.Addrs()
			if err != nil {
				continue
			}
			for _, a := range addrs {
				if n, ok := a.(*net.IPNet); ok && n.IP.Equal(local.IP) {
					return i.Name
				}
			}
		}
	}
	return ""
}

// parseResolvConf reads the name servers of a resolv.conf(5).
func parseResolvConf(text string) []netip.Addr {
	var list []netip.Addr
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" || len(list) == 8 {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			list = append(list, a.Unmap())
		}
	}
	return list
}
