package box

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"govah/packet"
)

// Rule is one behaviour: what it reacts to, what it does, and what it
// remembers. It is a table of a scenario file (docs/formats/scenario-v1.md).
//
// A flow's client is the side that opened it. Injected packets go out from the
// box's place on the path, so that TTLs and times are those of that place.
type Rule struct {
	Fact string `toml:"fact"` // id of the real behaviour it follows, if any

	// What it reacts to. All that are given must hold.
	Layer       string   `toml:"layer"`         // dns, tls, http, quic, tcp, udp, icmp, ip
	Names       []string `toml:"names"`         // exact; a leading dot: and everything under it
	Contains    []string `toml:"contains"`      // part of the name
	Matches     []string `toml:"matches"`       // regular expressions (RE2) for the name
	Allow       []string `toml:"allow"`         // every name but these (dot as above), and none
	Paths       []string `toml:"paths"`         // http: the target contains one of these
	Addresses   []string `toml:"addresses"`     // of the server: addresses or prefixes
	Clients     []string `toml:"clients"`       // of the client: addresses or prefixes
	Ports       []int    `toml:"ports"`         // of the server
	NotPorts    []int    `toml:"not-ports"`     // every port but these
	Family      string   `toml:"family"`        // ipv4, ipv6
	Direction   string   `toml:"direction"`     // of the flow (dns, tls, http, quic; default out) or of the packet (default both): out, in, both
	QType       string   `toml:"qtype"`         // dns: A, AAAA, HTTPS, …
	Versions    []uint32 `toml:"versions"`      // quic
	ECH         bool     `toml:"ech"`           // tls, quic: carries ECH
	ESNI        bool     `toml:"esni"`          // tls: carries draft ESNI
	Extensions  []uint16 `toml:"extensions"`    // tls, quic: carries all of these
	Shape       string   `toml:"shape"`         // tcp: unknown (neither DNS, HTTP nor TLS), random (fully encrypted)
	Segment     string   `toml:"segment"`       // tcp: syn, syn-ack, data
	Larger      int      `toml:"larger"`        // packets larger than this, bytes
	PayloadOver int      `toml:"payload-above"` // payload larger than this, bytes
	NoOptions   bool     `toml:"no-tcp-options"`
	PortOrder   bool     `toml:"source-port-above"` // quic: only where the client's port is above the server's
	Handshake   string   `toml:"handshake"`         // tcp: needs to have seen the syn, or the full handshake
	Times       int      `toml:"times"`             // so many matching packets from a client to a server's port, within For or 30 s
	Share       int      `toml:"share"`             // percent of flows, 0 is all
	From        string   `toml:"from"`              // RFC 3339 or a date
	Until       string   `toml:"until"`
	Hours       string   `toml:"hours"`         // "18-23", UTC
	Blind       []string `toml:"blind-to"`      // forms of a trigger that it does not understand (Forms)
	Split       bool     `toml:"split-defeats"` // looks at each packet alone: no reassembly; quic: first datagram of a flow only

	// What it does.
	Action     string   `toml:"action"`
	OnPath     bool     `toml:"on-path"`    // the packet passes as well; what is injected races
	Handshaken bool     `toml:"handshaken"` // tls drop, reset, drop-after: only once the TLS handshake is done
	Engage     string   `toml:"engage"`     // drop: begins so long after the trigger
	Push       int      `toml:"push"`       // drop: first sends so many empty PSH/ACK segments back
	Ends       string   `toml:"ends"`       // reset: client, server, both (default); page: server, both: it is reset
	Count      int      `toml:"count"`      // of injected packets, 0 is 1
	Interval   string   `toml:"interval"`   // between them, as 200us
	Flags      string   `toml:"flags"`      // reset: R, RA (default) or RPA, or one for each: "R RA RA"
	Offsets    []int    `toml:"offsets"`    // reset: added to the sequence number, one for each
	Growing    bool     `toml:"growing"`    // injected TTL and window grow from one to the next
	TTL        int      `toml:"ttl"`        // of injected packets, 0 is 64
	CopyTTL    bool     `toml:"copy-ttl"`   // injected packets carry the trigger's own TTL
	RandomTTL  bool     `toml:"random-ttl"` // a TTL drawn for each
	Window     int      `toml:"window"`
	CopyWindow bool     `toml:"copy-window"`   // injected segments carry the trigger's
	RandomWin  bool     `toml:"random-window"` // a window drawn for each
	Ack        string   `toml:"ack"`           // reset: what it acknowledges: zero, or +N: N bytes of the trigger; default: all of it
	IPID       int      `toml:"ipid"`
	CopyIPID   bool     `toml:"copy-ipid"`
	IPIDSteps  []int    `toml:"ipid-steps"`  // added to the IP ID, one for each
	CountIPID  bool     `toml:"count-ipid"`  // one more with each packet injected, whatever the trigger
	RandomIPID bool     `toml:"random-ipid"` // an IP ID drawn for each
	DF         bool     `toml:"df"`
	Data       string   `toml:"data"`    // reset: payload
	After      string   `toml:"after"`   // a delay before injecting, as 30ms
	Source     string   `toml:"source"`  // unreachable: who says so; default: the address itself
	Code       string   `toml:"code"`    // unreachable: net, host, port, admin
	Answers    []string `toml:"answers"` // dns-answer: addresses
	CNAME      string   `toml:"cname"`   // dns-answer
	DNSTTL     int      `toml:"dns-ttl"`
	Authority  bool     `toml:"authoritative"` // dns-answer: AA
	AnyType    bool     `toml:"any-type"`      // dns-answer: whatever was asked
	Plain      bool     `toml:"no-edns"`       // dns: the answer has no EDNS record
	When       string   `toml:"when"`          // dns: instead (default), before, after the true answer
	Alert      int      `toml:"alert"`         // tls alert: description, 0 is 40
	Status     string   `toml:"status"`        // page: 403 Forbidden; may begin with HTTP/1.0
	Header     []string `toml:"header"`        // page, inject-header: header lines
	Body       string   `toml:"body"`          // page; inject-script: what is put in front of the page
	To         string   `toml:"to"`            // redirect: Location; dns-redirect: resolver address
	Side       string   `toml:"side"`          // drop: out, in, both (default); throttle, freeze: default in
	Bytes      int      `toml:"bytes"`         // freeze, drop-after: after so many from the server
	Packets    int      `toml:"packets"`       // drop-after: after so many more packets
	Records    int      `toml:"records"`       // drop-after: after so many TLS records of data from the server
	Rate       int      `toml:"rate"`          // throttle: kbit/s
	Burst      int      `toml:"burst"`         // throttle: bytes, 0 is 8000
	Shaping    bool     `toml:"shaping"`       // throttle: delay instead of drop
	Queue      int      `toml:"queue"`         // throttle with shaping: bytes, 0 is 64 KiB

	// What it remembers.
	Residual       string `toml:"residual"`           // 4-tuple, 3-tuple, destination, client
	For            string `toml:"for"`                // how long, as 60s
	Then           string `toml:"then"`               // to what it remembers: drop, reset; default: the same for reset, throttle, freeze and reset-replies, else drop
	Restart        bool   `toml:"restart"`            // every further packet starts the time anew
	RestartTrigger bool   `toml:"restart-by-trigger"` // a further trigger does
}

// Actions are all values of Rule.Action.
var Actions = []string{"drop", "reset", "reset-replies", "unreachable", "dns-answer", "dns-nxdomain", "dns-servfail", "dns-refused", "dns-empty",
	"dns-redirect", "alert", "page", "redirect", "inject-header", "inject-script", "throttle", "freeze", "drop-after"}

// Layers are all values of Rule.Layer.
var Layers = []string{"dns", "tls", "http", "quic", "tcp", "udp", "icmp", "ip"}

// rule is a Rule, checked and ready.
type rule struct {
	Rule
	addresses, clients []netip.Prefix
	matches            []*regexp.Regexp
	answers            []netip.Addr
	source             netip.Addr
	resolver           netip.Addr
	flags              []uint8
	after, keep        time.Duration
	interval, engage   time.Duration
	from, until        time.Time
	hourFrom, hourTo   int

	ackZero bool
	ackOf   int    // bytes of the trigger, -1: all
	next    uint16 // IP ID, with CountIPID

	rng    *rand.Rand
	memory packet.Table[memory]
	hits   packet.Table[int]
}

func oneOf(what, value string, list ...string) error {
	if value == "" || slices.Contains(list, value) {
		return nil
	}
	return fmt.Errorf("%s %q is not known; it is one of: %s", what, value, strings.Join(list, ", "))
}

func within(what string, value, low, high int) error {
	if value < low || value > high {
		return fmt.Errorf("%s is %d; it lies between %d and %d", what, value, low, high)
	}
	return nil
}

func prefixes(what string, list []string) (out []netip.Prefix, err error) {
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p.Masked())
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is neither an address nor a prefix", what, s)
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

func parseHours(s string) (from, to int, err error) {
	if s == "" {
		return 0, 24, nil
	}
	a, b, ok := strings.Cut(s, "-")
	from, err1 := strconv.Atoi(a)
	to, err2 := strconv.Atoi(b)
	if !ok || err1 != nil || err2 != nil || from < 0 || from > 23 || to < 1 || to > 24 {
		return 0, 0, fmt.Errorf("hours %q is not like 18-23", s)
	}
	return from, to, nil
}

// named are the layers whose matches carry a name.
func named(layer string) bool {
	return layer == "dns" || layer == "tls" || layer == "http" || layer == "quic"
}

// check says what is wrong with a rule, or makes it ready.
func (r Rule) check() (*rule, error) {
	if r.Action == "" {
		return nil, fmt.Errorf("a rule needs an action; it is one of: %s", strings.Join(Actions, ", "))
	}
	if r.Layer == "" {
		return nil, fmt.Errorf("a rule needs a layer; it is one of: %s", strings.Join(Layers, ", "))
	}
	for _, e := range []error{
		oneOf("action", r.Action, Actions...), oneOf("layer", r.Layer, Layers...), oneOf("ends", r.Ends, "client", "server", "both"),
		oneOf("when", r.When, "instead", "before", "after"), oneOf("code", r.Code, "net", "host", "port", "admin"),
		oneOf("side", r.Side, "out", "in", "both"), oneOf("direction", r.Direction, "out", "in", "both"),
		oneOf("residual", r.Residual, "4-tuple", "3-tuple", "destination", "client"), oneOf("then", r.Then, "drop", "reset"),
		oneOf("family", r.Family, "ipv4", "ipv6"), oneOf("shape", r.Shape, "unknown", "random"),
		oneOf("segment", r.Segment, "syn", "syn-ack", "data"), oneOf("handshake", r.Handshake, "syn", "full"),
		within("share", r.Share, 0, 100), within("count", r.Count, 0, 100), within("push", r.Push, 0, 100), within("times", r.Times, 0, 1000), within("ttl", r.TTL, 0, 255),
		within("ipid", r.IPID, 0, 65535), within("window", r.Window, 0, 65535), within("alert", r.Alert, 0, 255),
		within("dns-ttl", r.DNSTTL, 0, 1<<31-1), within("rate", r.Rate, 0, 100_000_000), within("bytes", r.Bytes, 0, 1<<30),
		within("packets", r.Packets, 0, 1<<30), within("records", r.Records, 0, 1<<30), within("burst", r.Burst, 0, 1<<30),
		within("queue", r.Queue, 0, 1<<30), within("larger", r.Larger, 0, 65535), within("payload-above", r.PayloadOver, 0, 65535),
		within("body (its length)", len(r.Body), 0, 256<<10), r.fits(), r.sees(),
	} {
		if e != nil {
			return nil, e
		}
	}
	return r.ready()
}

// fits says whether the keys of a rule belong together.
func (r Rule) fits() error {
	needs := func(layers ...string) error {
		if !slices.Contains(layers, r.Layer) {
			return fmt.Errorf("action %s needs layer %s, not %s", r.Action, strings.Join(layers, " or "), r.Layer)
		}
		return nil
	}
	switch {
	case strings.HasPrefix(r.Action, "dns-"):
		if err := needs("dns"); err != nil {
			return err
		}
	case slices.Contains([]string{"page", "redirect", "inject-header", "inject-script"}, r.Action):
		if err := needs("http"); err != nil {
			return err
		}
	case r.Action == "alert":
		if err := needs("tls"); err != nil {
			return err
		}
	case r.Action == "reset" || r.Action == "reset-replies":
		if err := needs("tcp", "tls", "http", "ip", "dns"); err != nil {
			return err
		}
	}
	names := len(r.Names)+len(r.Contains)+len(r.Matches)+len(r.Allow) > 0
	switch {
	case names && !named(r.Layer):
		return fmt.Errorf("names, contains, matches and allow need layer dns, tls, http or quic, not %s", r.Layer)
	case len(r.Paths) > 0 && r.Layer != "http":
		return fmt.Errorf("paths need layer http, not %s", r.Layer)
	case (r.ECH || len(r.Extensions) > 0) && r.Layer != "tls" && r.Layer != "quic", r.ESNI && r.Layer != "tls":
		return fmt.Errorf("ech and extensions need layer tls or quic and esni needs tls, not %s", r.Layer)
	case (len(r.Versions) > 0 || r.PortOrder) && r.Layer != "quic":
		return fmt.Errorf("versions and source-port-above need layer quic, not %s", r.Layer)
	case r.QType != "" && r.Layer != "dns":
		return fmt.Errorf("qtype needs layer dns, not %s", r.Layer)
	case (r.Shape != "" || r.Segment != "") && r.Layer != "tcp":
		return fmt.Errorf("shape and segment need layer tcp, not %s", r.Layer)
	case r.Action == "throttle" && r.Rate == 0:
		return fmt.Errorf("action throttle needs a rate in kbit/s")
	case r.Action == "freeze" && r.Bytes == 0:
		return fmt.Errorf("action freeze needs bytes")
	case r.Action == "drop-after" && r.Bytes+r.Packets+r.Records == 0:
		return fmt.Errorf("action drop-after needs bytes, packets or records")
	case r.Action == "dns-answer" && len(r.Answers) == 0 && r.CNAME == "":
		return fmt.Errorf("action dns-answer needs answers or a cname")
	case r.Action == "redirect" && r.To == "":
		return fmt.Errorf("action redirect needs to, the location")
	case r.Action == "inject-header" && len(r.Header) == 0:
		return fmt.Errorf("action inject-header needs header, the lines to add")
	case r.Action == "inject-script" && r.Body == "":
		return fmt.Errorf("action inject-script needs body, what to add")
	case (r.Handshaken || r.Records > 0) && r.Layer != "tls":
		return fmt.Errorf("handshaken and records need layer tls, not %s", r.Layer)
	case r.Handshaken && r.Action != "drop" && r.Action != "drop-after":
		return fmt.Errorf("handshaken needs action drop or drop-after, not %s", r.Action)
	case r.Records > 0 && r.Action != "drop-after":
		return fmt.Errorf("records need action drop-after, not %s", r.Action)
	case r.Push > 0 && (r.Action != "drop" || r.Layer != "tls" && r.Layer != "http" && r.Shape == ""):
		return fmt.Errorf("push needs action drop and layer tls or http, or a shape")
	case r.Ack != "" && r.Action != "reset":
		return fmt.Errorf("ack needs action reset, not %s", r.Action)
	case r.Engage != "" && r.Action != "drop":
		return fmt.Errorf("engage needs action drop, not %s", r.Action)
	case (r.Residual == "") != (r.For == ""):
		return fmt.Errorf("residual and for belong together")
	case r.Residual == "" && (r.Then != "" || r.Restart || r.RestartTrigger):
		return fmt.Errorf("then, restart and restart-by-trigger need residual")
	}
	return nil
}

// ready makes what text describes into what a packet is compared with.
func (r Rule) ready() (*rule, error) {
	c := &rule{Rule: r}
	for _, d := range []struct {
		what, text string
		into       *time.Duration
	}{{"after", r.After, &c.after}, {"for", r.For, &c.keep}, {"interval", r.Interval, &c.interval}, {"engage", r.Engage, &c.engage}} {
		if d.text == "" {
			continue
		}
		var err error
		if *d.into, err = time.ParseDuration(d.text); err != nil || *d.into < 0 {
			return nil, fmt.Errorf("%s %q is no duration such as 30ms or 60s", d.what, d.text)
		}
	}
	if r.Interval == "" {
		c.interval = 200 * time.Microsecond
	}
	c.memory.Idle, c.hits.Idle = c.engage+c.keep+time.Second, 30*time.Second
	if c.keep > 0 {
		c.hits.Idle = c.keep
	}
	var err error
	if c.addresses, err = prefixes("addresses", r.Addresses); err != nil {
		return nil, err
	}
	if c.clients, err = prefixes("clients", r.Clients); err != nil {
		return nil, err
	}
	for _, s := range r.Matches {
		re, err := regexp.Compile(s)
		if err != nil {
			return nil, fmt.Errorf("matches: %q is no regular expression: %w", s, err)
		}
		c.matches = append(c.matches, re)
	}
	for _, s := range r.Answers {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("answers: %q is no address", s)
		}
		c.answers = append(c.answers, a)
	}
	if r.Action == "dns-redirect" {
		if c.resolver, err = netip.ParseAddr(r.To); err != nil {
			return nil, fmt.Errorf("dns-redirect: to %q is no address of a resolver", r.To)
		}
	}
	if r.Source != "" {
		if c.source, err = netip.ParseAddr(r.Source); err != nil {
			return nil, fmt.Errorf("source %q is no address", r.Source)
		}
	}
	for _, s := range strings.Fields(r.Flags) {
		switch s {
		case "R":
			c.flags = append(c.flags, packet.RST)
		case "RA":
			c.flags = append(c.flags, packet.RST|packet.ACK)
		case "RPA":
			c.flags = append(c.flags, packet.RST|packet.PSH|packet.ACK)
		default:
			return nil, fmt.Errorf("flags %q is not known; they are R, RA or RPA, or one for each reset as in \"R RA RA\"", s)
		}
	}
	c.ackOf = -1
	switch n, err := strconv.ParseUint(strings.TrimPrefix(r.Ack, "+"), 10, 16); {
	case r.Ack == "zero":
		c.ackZero = true
	case r.Ack != "" && (err != nil || r.Ack[0] != '+'):
		return nil, fmt.Errorf("ack %q is neither zero nor a number of bytes such as +3", r.Ack)
	case r.Ack != "":
		c.ackOf = int(n)
	}
	c.next = uint16(r.IPID)
	if len(c.flags) == 0 {
		c.flags = []uint8{packet.RST | packet.ACK}
	}
	c.Count = max(1, r.Count, len(c.flags), len(r.Offsets), len(r.IPIDSteps))
	if c.from, err = parseTime("from", r.From); err != nil {
		return nil, err
	}
	if c.until, err = parseTime("until", r.Until); err != nil {
		return nil, err
	}
	c.hourFrom, c.hourTo, err = parseHours(r.Hours)
	return c, err
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
	return len(list) == 0 || slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// named says whether the rule's conditions about a name hold.
func (r *rule) named(name string) bool {
	if len(r.Names) > 0 && !listed(name, r.Names) {
		return false
	}
	if len(r.Contains) > 0 && !slices.ContainsFunc(r.Contains, func(s string) bool { return strings.Contains(name, s) }) {
		return false
	}
	if len(r.matches) > 0 && !slices.ContainsFunc(r.matches, func(re *regexp.Regexp) bool { return re.MatchString(name) }) {
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
