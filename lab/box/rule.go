package box

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Rule is one behaviour: what it reacts to, what it does, and what it
// remembers. It is a table of a scenario file (docs/formats/scenario-v1.md).
type Rule struct {
	Fact string `toml:"fact"` // id of the real behaviour it follows, if any

	// What it reacts to. All that are given must hold.
	Layer     string   `toml:"layer"`    // dns, tls, http, quic, tcp, udp, icmp, ip
	Names     []string `toml:"names"`    // exact; a leading dot: and everything under it
	Contains  []string `toml:"contains"` // part of the name
	Allow     []string `toml:"allow"`    // every name but these (dot as above)
	Paths     []string `toml:"paths"`    // http: the target contains one of these
	Addresses []string `toml:"addresses"`
	Clients   []string `toml:"clients"`
	Ports     []int    `toml:"ports"`             // of the server
	NotPorts  []int    `toml:"not-ports"`         // every port but these
	Family    string   `toml:"family"`            // ipv4, ipv6
	QType     string   `toml:"qtype"`             // dns: A, AAAA, HTTPS, …
	Versions  []uint32 `toml:"versions"`          // quic
	ECH       bool     `toml:"ech"`               // tls: carries ECH
	ESNI      bool     `toml:"esni"`              // tls: carries draft ESNI
	Shape     string   `toml:"shape"`             // tcp: unknown (neither DNS, HTTP nor TLS), random (fully encrypted)
	Larger    int      `toml:"larger"`            // ip: packets larger than this, bytes
	PortOrder bool     `toml:"source-port-above"` // quic: only where the client's port is above the server's
	Share     int      `toml:"share"`             // percent of flows, 0 is all
	From      string   `toml:"from"`              // RFC 3339 or a date
	Until     string   `toml:"until"`
	Hours     string   `toml:"hours"`         // "18-23", UTC
	Split     bool     `toml:"split-defeats"` // looks at each packet alone: no reassembly

	// What it does.
	Action  string   `toml:"action"`
	OnPath  bool     `toml:"on-path"`  // the packet passes as well; what is injected races
	Ends    string   `toml:"ends"`     // reset: client, server, both (default)
	Count   int      `toml:"count"`    // of injected packets, 0 is 1
	Flags   string   `toml:"flags"`    // reset: R or RA (default)
	Growing bool     `toml:"growing"`  // reset: TTL and window grow from one to the next
	TTL     int      `toml:"ttl"`      // of injected packets, 0 is 64
	CopyTTL bool     `toml:"copy-ttl"` // injected packets carry the trigger's own TTL
	IPID    int      `toml:"ipid"`
	Data    string   `toml:"data"`    // reset: payload
	After   string   `toml:"after"`   // a delay before injecting, as 30ms
	Answers []string `toml:"answers"` // dns inject: addresses
	DNSTTL  int      `toml:"dns-ttl"`
	When    string   `toml:"when"`    // dns inject: instead (default), before, after
	Alert   int      `toml:"alert"`   // tls alert: description, 0 is 40
	Status  string   `toml:"status"`  // http page: 403 Forbidden
	Header  []string `toml:"header"`  // http page: header lines
	Body    string   `toml:"body"`    // http page
	To      string   `toml:"to"`      // http redirect: Location; dns redirect: resolver address
	Code    string   `toml:"code"`    // unreachable: net, host, port, admin
	Side    string   `toml:"side"`    // drop: out, in, both (default both)
	Bytes   int      `toml:"bytes"`   // freeze, drop-after: after so many from the server
	Packets int      `toml:"packets"` // drop-after: after so many more packets
	Rate    int      `toml:"rate"`    // throttle: kbit/s
	Burst   int      `toml:"burst"`   // throttle: bytes, 0 is 8000
	Shaping bool     `toml:"shaping"` // throttle: delay instead of drop

	// What it remembers.
	Residual string `toml:"residual"` // 4-tuple, 3-tuple, destination, client
	For      string `toml:"for"`      // how long, as 60s
	Restart  bool   `toml:"restart"`  // every further packet starts the time anew
}

// Actions are all values of Rule.Action.
var Actions = []string{"drop", "reset", "unreachable", "dns-answer", "dns-nxdomain", "dns-servfail", "dns-refused", "dns-empty",
	"dns-redirect", "alert", "page", "redirect", "throttle", "freeze", "drop-after"}

// Layers are all values of Rule.Layer.
var Layers = []string{"dns", "tls", "http", "quic", "tcp", "udp", "icmp", "ip"}

// rule is a Rule, checked and ready.
type rule struct {
	Rule
	addresses, clients []netip.Prefix
	answers            []netip.Addr
	resolver           netip.AddrPort
	after, keep        time.Duration
	from, until        time.Time
	hourFrom, hourTo   int
}

func oneOf(what, value string, list ...string) error {
	if value == "" || slices.Contains(list, value) {
		return nil
	}
	return fmt.Errorf("%s %q is not known; it is one of: %s", what, value, strings.Join(list, ", "))
}

func prefixes(list []string) (out []netip.Prefix, err error) {
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p.Masked())
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a prefix", s)
		}
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out, nil
}

func parseTime(what, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s %q is neither a date (2018-01-03) nor a time (2018-01-03T12:00:00Z)", what, s)
}

func (r Rule) check() (*rule, error) {
	c := &rule{Rule: r}
	var err error
	duration := func(what, s string, into *time.Duration) {
		if s != "" && err == nil {
			if *into, err = time.ParseDuration(s); err != nil {
				err = fmt.Errorf("%s %q is no duration such as 30ms or 60s", what, s)
			}
		}
	}
	for _, e := range []error{
		oneOf("action", r.Action, Actions...), oneOf("layer", r.Layer, Layers...), oneOf("ends", r.Ends, "client", "server", "both"),
		oneOf("flags", r.Flags, "R", "RA"), oneOf("when", r.When, "instead", "before", "after"), oneOf("code", r.Code, "net", "host", "port", "admin"),
		oneOf("side", r.Side, "out", "in", "both"), oneOf("residual", r.Residual, "4-tuple", "3-tuple", "destination", "client"),
		oneOf("family", r.Family, "ipv4", "ipv6"), oneOf("shape", r.Shape, "unknown", "random"),
	} {
		if e != nil {
			return nil, e
		}
	}
	switch {
	case r.Action == "":
		return nil, fmt.Errorf("a rule needs an action; it is one of: %s", strings.Join(Actions, ", "))
	case r.Layer == "":
		return nil, fmt.Errorf("a rule needs a layer; it is one of: %s", strings.Join(Layers, ", "))
	case strings.HasPrefix(r.Action, "dns-") && r.Layer != "dns":
		return nil, fmt.Errorf("action %s needs layer dns, not %s", r.Action, r.Layer)
	case (r.Action == "page" || r.Action == "redirect") && r.Layer != "http":
		return nil, fmt.Errorf("action %s needs layer http, not %s", r.Action, r.Layer)
	case r.Action == "alert" && r.Layer != "tls":
		return nil, fmt.Errorf("action alert needs layer tls, not %s", r.Layer)
	case r.Action == "throttle" && r.Rate <= 0:
		return nil, fmt.Errorf("action throttle needs a rate in kbit/s")
	case r.Action == "freeze" && r.Bytes <= 0:
		return nil, fmt.Errorf("action freeze needs bytes")
	case r.Action == "dns-answer" && len(r.Answers) == 0:
		return nil, fmt.Errorf("action dns-answer needs answers")
	case r.Share < 0 || r.Share > 100:
		return nil, fmt.Errorf("share %d is not a percentage", r.Share)
	case (r.Residual == "") != (r.For == ""):
		return nil, fmt.Errorf("residual and for belong together")
	}
	if c.addresses, err = prefixes(r.Addresses); err != nil {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	if c.clients, err = prefixes(r.Clients); err != nil {
		return nil, fmt.Errorf("clients: %w", err)
	}
	for _, s := range r.Answers {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("answers: %q is no address", s)
		}
		c.answers = append(c.answers, a)
	}
	if r.Action == "dns-redirect" {
		a, err := netip.ParseAddr(r.To)
		if err != nil {
			return nil, fmt.Errorf("dns-redirect: to %q is no address of a resolver", r.To)
		}
		c.resolver = netip.AddrPortFrom(a, 53)
	}
	duration("after", r.After, &c.after)
	duration("for", r.For, &c.keep)
	if err != nil {
		return nil, err
	}
	if c.from, err = parseTime("from", r.From); err != nil {
		return nil, err
	}
	if c.until, err = parseTime("until", r.Until); err != nil {
		return nil, err
	}
	c.hourTo = 24
	if r.Hours != "" {
		if n, _ := fmt.Sscanf(r.Hours, "%d-%d", &c.hourFrom, &c.hourTo); n != 2 || c.hourFrom < 0 || c.hourTo > 24 {
			return nil, fmt.Errorf("hours %q is not like 18-23", r.Hours)
		}
	}
	return c, nil
}

// listed says whether name is in a list where a leading dot stands for the
// name and everything under it.
func listed(name string, list []string) bool {
	for _, want := range list {
		if suffix, ok := strings.CutPrefix(want, "."); ok {
			if name == suffix || strings.HasSuffix(name, want) {
				return true
			}
		} else if name == want {
			return true
		}
	}
	return false
}

func inPrefixes(a netip.Addr, list []netip.Prefix) bool {
	if len(list) == 0 {
		return true
	}
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// named says whether the rule's conditions about a name hold.
func (r *rule) named(name string) bool {
	if len(r.Names) > 0 && !listed(name, r.Names) {
		return false
	}
	if len(r.Contains) > 0 && !slices.ContainsFunc(r.Contains, func(s string) bool { return strings.Contains(name, s) }) {
		return false
	}
	return len(r.Allow) == 0 || !listed(name, r.Allow)
}

// inForce says whether the rule applies at a time.
func (r *rule) inForce(now time.Time) bool {
	if !r.from.IsZero() && now.Before(r.from) || !r.until.IsZero() && !now.Before(r.until) {
		return false
	}
	h := now.UTC().Hour()
	if r.hourFrom <= r.hourTo {
		return h >= r.hourFrom && h < r.hourTo
	}
	return h >= r.hourFrom || h < r.hourTo
}
