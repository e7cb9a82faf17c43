package known

import (
	_ "embed"
	"net/netip"
	"regexp"
	"strings"
	"sync"
)

//go:embed controls.csv
var controlsCSV []byte

// Control is a third party that a run contacts by default. Kinds: canary (a
// host that is known to work), doh (an encrypted resolver, Name is its URL),
// resolver (an open resolver on port 53), nowhere (an address at which no
// resolver runs), nobody (one at which nobody lives), whoami (a name that is
// answered with the address of who asks), signed (a name with DNSSEC), ech (a
// name with ECH keys), captive (a plain URL that answers 204).
type Control struct {
	ID   string
	Kind string
	Name string
	// Addrs are fixed addresses, for doh to bootstrap with, for nowhere the
	// addresses themselves; Ports those of resolvers.
	Addrs []netip.Addr
	Ports []netip.AddrPort
	H3    bool // answers HTTP/3
	Why   string
	// Source says where the operator states that use.
	Source string
}

var controlTable = sync.OnceValue(func() []Control {
	var out []Control
	for _, r := range readCSV("controls.csv", controlsCSV, 7) {
		c := Control{ID: r[0], Kind: r[1], Name: r[2], H3: r[4] == "yes", Why: r[5], Source: r[6]}
		for _, a := range strings.Fields(r[3]) {
			if c.Kind == "resolver" {
				c.Ports = append(c.Ports, netip.MustParseAddrPort(a))
			} else {
				c.Addrs = append(c.Addrs, netip.MustParseAddr(a))
			}
		}
		out = append(out, c)
	}
	return out
})

// Controls lists the third parties of a run, in the order of the file.
func Controls() []Control { return append([]Control(nil), controlTable()...) }

//go:embed resolvers.csv
var resolversCSV []byte

// PublicResolver is a resolver whose operator is known.
type PublicResolver struct {
	ID, Operator string
	Addrs        []netip.Addr
	Name         string // in its certificate
	DoH          string // URL
	// Identity is the shape (RE2) of its answers to id.server and
	// hostname.bind in class CH, nil where none is known.
	Identity *regexp.Regexp
	Source   string
}

var publicTable = sync.OnceValue(func() []PublicResolver {
	var out []PublicResolver
	for _, r := range readCSV("resolvers.csv", resolversCSV, 7) {
		p := PublicResolver{ID: r[0], Operator: r[1], Name: r[3], DoH: r[4], Source: r[6]}
		for _, a := range strings.Fields(r[2]) {
			p.Addrs = append(p.Addrs, netip.MustParseAddr(a))
		}
		if r[5] != "" {
			p.Identity = regexp.MustCompile(r[5])
		}
		out = append(out, p)
	}
	return out
})

// PublicResolvers are the resolvers whose answers are compared, in the order
// of the file.
func PublicResolvers() []PublicResolver { return append([]PublicResolver(nil), publicTable()...) }
