package locate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"govah/measure"
	"govah/packet"
	"govah/wire"
)

// CapturedPacket is one packet of a saved capture.
type CapturedPacket struct {
	At   time.Time // of the capture; zero if the file does not say
	Data []byte    // raw IP without a link layer, perhaps cut off; never changed
}

// Bounds of what is taken from a capture.
const (
	maxPackets = 1 << 20
	maxFirst   = 16 << 10 // of a connection's first bytes
	maxAnswer  = 4 << 10  // of an answer
	maxForeign = 8        // ICMP errors about packets that are not the probe
	// cutOff is how near to a capture's end a probe's silence says nothing.
	cutOff = time.Second
)

// FromCaptures turns two saved traceroutes towards one server, one with a
// harmless token and one with the trigger, into the observations that Run
// makes, so that Infer concludes from them. The captures were made on the
// machine that sent them: a probe's TTL is read from the packet itself, and an
// answer belongs to the last sending before it in its connection. Each TTL of
// each connection becomes one observation, whether the traceroute opens a
// connection for each TTL (CenTrace) or sends again in one (Run).
//
// An ICMP error belongs to a probe only if what it quotes is the probe: same
// ports, a sequence number within it, and its IP ID or its length. A device
// that cuts a connection also towards the server, in the client's name, makes
// packets that expire too; what routers say of those is in Observation.TCP and
// proves nothing about the probe.
//
// What a capture cannot give: TTL 0 is left out, because no router can be
// named by it; whether the far end saw anything is unknown; addresses have no
// ASN. The control is put before the test, as in Run, whichever was captured
// first. The error names the capture, the packet or address, and the reason.
func FromCaptures(control, test []CapturedPacket) ([]measure.Observation, error) {
	c, t, err := readPair(control, test)
	if err != nil {
		return nil, err
	}
	var out []measure.Observation
	base, server := c.began, c.first()
	add := func(tr *trace, shift time.Duration) {
		for _, p := range tr.probes {
			if p.ttl == 0 {
				continue
			}
			o := tr.observation(p, func(at time.Time) int64 { return (at.Sub(base) + shift).Microseconds() })
			o.ID = "o" + strconv.Itoa(len(out)+1)
			o.Path.ServerTTL = server
			if tr == c {
				o.Role, o.ControlKind = measure.RoleControl, controlKind(c, server)
			} else {
				o.Role, o.Differs = measure.RoleTest, []string{differing(c, t)}
				if n := slices.IndexFunc(out, func(h measure.Observation) bool { return h.Role == measure.RoleControl && h.TTL == o.TTL }); n >= 0 {
					o.Control = out[n].ID
				}
			}
			out = append(out, o)
		}
	}
	add(c, 0)
	shift := time.Duration(0)
	if !t.began.After(c.ended) { // the test was first, or neither has times
		shift = c.ended.Sub(t.began) + time.Millisecond
	}
	add(t, shift)
	return out, nil
}

func controlKind(c *trace, server int) measure.ControlKind {
	switch {
	case c.what.payload != Raw && c.what.name == "":
		return measure.ControlNone
	case server > 0:
		return measure.ControlKnown
	}
	return ""
}

// differing is what the test differs in.
func differing(c, t *trace) string {
	switch {
	case t.what.payload == Raw:
		return "payload"
	case t.what.payload == HTTP && t.what.name == c.what.name:
		return "path"
	case t.what.payload == HTTP:
		return "host"
	}
	return "sni"
}

// what is a connection's first bytes, as a device reads them.
type what struct {
	payload Payload
	name    string
	path    string // of an HTTP request
	raw     string // of Raw, all
}

// trace is one capture's traceroute.
type trace struct {
	label        string // control, test
	began, ended time.Time
	remote       netip.AddrPort
	what         what
	probes       []*captured
}

// captured is one probe: a connection's first bytes with one TTL.
type captured struct {
	c           *connection
	ttl         int
	sends       int
	size        int // bytes of payload, all sendings
	marks       []mark
	first, last time.Time

	outcome  string // "" until something decides
	at       time.Time
	arrived  int // the answer's TTL
	flags    uint8
	answer   []byte
	received int
	icmp     *measure.ICMP
	icmpAt   time.Time
	foreign  []foreign
}

// mark is how a quote of a sending is known (RFC 792, RFC 1812 4.3.2.3).
type mark struct {
	id    uint16
	total int
}

// foreign is an ICMP error about a packet of the flow that is not the probe.
type foreign struct {
	icmp measure.ICMP
	at   time.Time
}

// connection is one TCP connection of a capture, from its opener's side.
type connection struct {
	local, remote netip.AddrPort
	syn           bool
	isn           uint32
	stream        packet.Stream
	start, next   uint32 // sequence numbers of the first bytes and of what follows
	cut           bool   // the capture holds only a part of them
	what          what
	probes        []*captured
	over          bool // ended by the opener: what comes now answers that
}

// first is the lowest TTL that drew an answer of the server, 0 none.
func (t *trace) first() int {
	low := 0
	for _, p := range t.probes {
		if p.ttl > 0 && (p.outcome == "answered" || p.outcome == "reset" || p.outcome == "closed") && (low == 0 || p.ttl < low) {
			low = p.ttl
		}
	}
	return low
}

// readPair reads both captures and makes sure that they are a pair.
func readPair(control, test []CapturedPacket) (c, t *trace, err error) {
	if c, err = readTrace("control", control); err != nil {
		return nil, nil, err
	}
	if t, err = readTrace("test", test); err != nil {
		return nil, nil, err
	}
	if err := c.fits(t); err != nil {
		return nil, nil, err
	}
	for _, x := range []*trace{c, t} {
		if err := x.limited(); err != nil {
			return nil, nil, err
		}
	}
	return c, t, nil
}

// fits chooses the server that both captures are about and checks that one
// variable differs.
func (c *trace) fits(t *trace) error {
	count := func(tr *trace) map[netip.AddrPort]int {
		n := map[netip.AddrPort]int{}
		for _, p := range tr.probes {
			n[p.c.remote]++
		}
		return n
	}
	cs, ts := count(c), count(t)
	best := 0
	for _, p := range c.probes {
		if n := min(cs[p.c.remote], ts[p.c.remote]); n > best {
			best, c.remote = n, p.c.remote
		}
	}
	if best == 0 {
		return fmt.Errorf("locate: the captures are no pair: the control goes to %v, the test to %v; give two traceroutes to one address and port", c.probes[0].c.remote, t.probes[0].c.remote)
	}
	t.remote = c.remote
	c.keep()
	t.keep()
	switch {
	case c.what.payload != t.what.payload:
		return fmt.Errorf("locate: the captures are no pair: towards %v the control carries %s, the test %s", c.remote, c.what.payload, t.what.payload)
	case c.what == t.what && c.what.payload == Raw:
		return fmt.Errorf("locate: the captures are no pair: both carry the same first bytes to %v, so nothing can differ", c.remote)
	case c.what == t.what:
		return fmt.Errorf("locate: the captures are no pair: both carry the name %q to %v, so nothing can differ", c.what.name, c.remote)
	}
	return nil
}

// keep leaves the probes to the chosen server with the commonest first bytes.
func (t *trace) keep() {
	t.probes = slices.DeleteFunc(t.probes, func(p *captured) bool { return p.c.remote != t.remote })
	n := map[what]int{}
	for _, p := range t.probes {
		n[p.c.what]++
	}
	for _, p := range t.probes { // in order: the same for the same file
		if n[p.c.what] > n[t.what] {
			t.what = p.c.what
		}
	}
	t.probes = slices.DeleteFunc(t.probes, func(p *captured) bool { return p.c.what != t.what })
}

// limited says what is wrong with a capture that is no traceroute.
func (t *trace) limited() error {
	for _, p := range t.probes {
		if p.ttl != t.probes[0].ttl {
			return nil
		}
	}
	return fmt.Errorf("locate: %s capture: all %d probes to %v left with TTL %d, so this is no traceroute; captures must be made on the sending machine", t.label, len(t.probes), t.remote, t.probes[0].ttl)
}

// readTrace finds the connections of a capture and what became of their first
// bytes.
func readTrace(label string, list []CapturedPacket) (*trace, error) {
	t := &trace{label: label}
	if len(list) == 0 {
		return nil, fmt.Errorf("locate: %s capture: no IP packet in it", label)
	}
	if len(list) > maxPackets {
		return nil, fmt.Errorf("locate: %s capture: %d packets, more than the %d that are read; cut it down to one server with tcpdump -r", label, len(list), maxPackets)
	}
	// Several interfaces' packets may be out of order.
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b CapturedPacket) int { return a.At.Compare(b.At) })
	t.began, t.ended = list[0].At, list[len(list)-1].At

	conns := map[packet.FlowKey]*connection{}
	bad, firstBad := 0, 0
	var why error
	tcp := 0
	for i, cp := range list {
		p, missing, err := parseCaptured(cp.Data)
		if errors.Is(err, packet.ErrFragment) {
			continue
		}
		if err != nil {
			if bad++; bad == 1 {
				firstBad, why = i+1, err
			}
			continue
		}
		switch {
		case p.Proto == packet.TCP:
			tcp++
			t.segment(conns, &p, missing, cp.At)
		case p.IsICMPError():
			quoted(conns, &p, cp.At)
		}
	}
	if len(t.probes) == 0 {
		switch {
		case bad > 0 && bad == len(list):
			return nil, fmt.Errorf("locate: %s capture: none of its %d packets can be read, the first because of: %w", label, bad, why)
		case bad > 0:
			return nil, fmt.Errorf("locate: %s capture: no connection with first bytes among %d packets, of which %d cannot be read, the first of those number %d: %w", label, len(list), bad, firstBad, why)
		case tcp == 0:
			return nil, fmt.Errorf("locate: %s capture: no TCP among its %d packets; only traceroutes with a connection's first bytes are read", label, len(list))
		}
		return nil, fmt.Errorf("locate: %s capture: no connection with first bytes among its %d TCP segments; does it hold the outgoing direction?", label, tcp)
	}
	for _, p := range t.probes {
		w := readFirst(p.c.stream.Data)
		if p.c.cut && w.name == "" {
			return nil, fmt.Errorf("locate: %s capture: it holds only a part of the first bytes to %v, and no name in it; capture whole packets with tcpdump -s 0", label, p.c.remote)
		}
		p.c.what = w
	}
	return t, nil
}

// parseCaptured parses a packet of which the capture may hold only the
// beginning (tcpdump -s). What is missing is taken as zeros, so that lengths
// are right and headers can be read; missing says how many bytes that are. A
// packet whose headers are not whole fails.
func parseCaptured(b []byte) (p packet.Packet, missing int, err error) {
	if len(b) < 20 {
		p, err = packet.Parse(b)
		return p, 0, err
	}
	total, heads := 0, 20
	switch b[0] >> 4 {
	case 4:
		total, heads = int(binary.BigEndian.Uint16(b[2:])), int(b[0]&15)*4+20
		if total == 0 { // segmentation is left to the network card: no length yet
			b = slices.Clone(b[:min(len(b), 0xffff)])
			total = len(b)
			binary.BigEndian.PutUint16(b[2:], uint16(total))
		}
	case 6:
		if heads = 60; len(b) >= heads {
			total = 40 + int(binary.BigEndian.Uint16(b[4:]))
		}
	}
	if total > len(b) && len(b) >= heads {
		missing = total - len(b)
		b = append(b[:len(b):len(b)], make([]byte, missing)...)
	}
	p, err = packet.Parse(b)
	return p, missing, err
}

// segment takes one TCP segment, of whose end some bytes are missing.
func (t *trace) segment(conns map[packet.FlowKey]*connection, p *packet.Packet, missing int, at time.Time) {
	key := packet.FlowKey{Client: p.Source(), Server: p.Destination(), Proto: packet.TCP}
	back := packet.FlowKey{Client: key.Server, Server: key.Client, Proto: packet.TCP}
	if p.Flags&(packet.SYN|packet.ACK) == packet.SYN {
		if c := conns[key]; c == nil || c.isn != p.Seq || !c.syn {
			conns[key] = &connection{local: key.Client, remote: key.Server, syn: true, isn: p.Seq}
		}
		// TCP Fast Open's data is not a probe: it came before the handshake.
		return
	}
	if c := conns[key]; c != nil {
		t.outgoing(c, p, missing, at)
		return
	}
	if c := conns[back]; c != nil {
		c.incoming(p, missing, at)
		return
	}
	// A connection whose SYN the capture does not hold is known by what only a
	// client says.
	if len(p.Payload) > 0 && readFirst(p.Payload).payload != Raw {
		c := &connection{local: key.Client, remote: key.Server}
		conns[key] = c
		t.outgoing(c, p, missing, at)
	}
}

// outgoing takes what the opener sent.
func (t *trace) outgoing(c *connection, p *packet.Packet, missing int, at time.Time) {
	if c.over {
		return
	}
	if n := len(p.Payload); n > 0 {
		m := mark{p.ID, len(p.Raw)}
		var cur *captured
		if len(c.probes) > 0 {
			cur = c.probes[len(c.probes)-1]
		}
		switch {
		case cur == nil:
			c.stream.Limit = maxFirst
			c.stream.Start(p.Seq)
			c.start, c.next = p.Seq, p.Seq
			t.probe(c, p, m, at)
		case cur.outcome != "":
			// an answer to the answer
		case p.Seq == c.start && cur.ttl == int(p.TTL):
			cur.sends++
			cur.size += n
			cur.last = at
			cur.marks = append(cur.marks, m)
		case p.Seq == c.start:
			t.probe(c, p, m, at)
		default: // the rest of first bytes that need several segments
			cur.size += n
			cur.marks = append(cur.marks, m)
		}
		if cur == nil || cur.outcome == "" {
			c.stream.Add(p.Seq, p.Payload[:max(0, n-missing)])
			c.cut = c.cut || missing > 0
			if end := p.Seq + uint32(n); int32(end-c.next) > 0 {
				c.next = end
			}
		}
	}
	if p.Flags&(packet.FIN|packet.RST) != 0 && len(c.probes) > 0 {
		c.over = true
	}
}

func (t *trace) probe(c *connection, p *packet.Packet, m mark, at time.Time) {
	x := &captured{c: c, ttl: int(p.TTL), sends: 1, size: len(p.Payload), marks: []mark{m}, first: at, last: at}
	c.probes = append(c.probes, x)
	t.probes = append(t.probes, x)
}

// incoming takes what came from the server's address, whoever sent it.
func (c *connection) incoming(p *packet.Packet, missing int, at time.Time) {
	if c.over || len(c.probes) == 0 || p.Flags&packet.SYN != 0 {
		return
	}
	x := c.probes[len(c.probes)-1]
	outcome := ""
	switch {
	case len(p.Payload) > 0:
		outcome = "answered"
		x.received += len(p.Payload)
	case p.Flags&packet.RST != 0:
		outcome = "reset"
	case p.Flags&packet.FIN != 0:
		outcome = "closed"
	}
	// An acknowledgement alone is no answer, as it is none to Run. What comes
	// after the first answer changes nothing: a program has read it by then.
	if outcome == "" || x.outcome != "" && x.outcome != "unreachable" {
		return
	}
	x.outcome, x.at, x.arrived, x.flags = outcome, at, int(p.TTL), p.Flags
	x.answer = bytes.Clone(p.Payload[:min(max(0, len(p.Payload)-missing), maxAnswer)])
}

// quoted takes an ICMP error.
func quoted(conns map[packet.FlowKey]*connection, p *packet.Packet, at time.Time) {
	q, err := packet.ParseQuote(p.Quoted)
	if err != nil || q.Proto != packet.TCP {
		return
	}
	c := conns[packet.FlowKey{Client: q.Src, Server: q.Dst, Proto: packet.TCP}]
	if c == nil || len(c.probes) == 0 {
		return // of another server, or of a handshake
	}
	expired, unreachable := p.Type == packet.TimeExceeded4 && p.Code == 0, p.Type == packet.Unreachable4 && p.Code != packet.FragNeededCode4
	m := mark{binary.BigEndian.Uint16(p.Quoted[4:]), int(binary.BigEndian.Uint16(p.Quoted[2:]))}
	if p.V6() {
		expired, unreachable = p.Type == packet.TimeExceeded6 && p.Code == 0, p.Type == packet.Unreachable6
		m = mark{0, 40 + int(binary.BigEndian.Uint16(p.Quoted[4:]))}
	}
	if !expired && !unreachable {
		return
	}
	i := measure.ICMP{From: p.Src.String(), Type: int(p.Type), Code: int(p.Code)}
	x := c.quotedProbe(q.Seq, m)
	if x == nil {
		if x = c.probes[len(c.probes)-1]; len(x.foreign) < maxForeign {
			x.foreign = append(x.foreign, foreign{i, at})
		}
		return
	}
	if x.icmp == nil {
		x.icmp, x.icmpAt = &i, at
	}
	if unreachable && x.outcome == "" && !c.over {
		x.outcome, x.at = "unreachable", at
	}
}

// quotedProbe is the probe that a quote is of, nil if none. The IP ID decides:
// it alone tells apart two sendings of the same bytes. Where a NAT has changed
// it, or the system sends none, the length says that it is no other packet of
// the flow, and the last sending is taken.
func (c *connection) quotedProbe(seq uint32, m mark) *captured {
	if int32(seq-c.start) < 0 || int32(seq-c.next) >= 0 {
		return nil
	}
	for _, byID := range []bool{true, false} {
		for _, x := range slices.Backward(c.probes) {
			for _, k := range x.marks {
				if byID && k.id != 0 && k.id == m.id || !byID && k.total == m.total {
					return x
				}
			}
		}
	}
	return nil
}

// readFirst says what first bytes are.
func readFirst(b []byte) what {
	if h, err := packet.ParseClientHelloStream(b); err == nil || errors.Is(err, packet.ErrMore) && len(b) > 5 {
		w := what{payload: TLS}
		if h != nil {
			w.name = h.SNI
		}
		return w
	}
	// What a server takes for no request is none: methods are capitals.
	if r, err := packet.ParseRequest(b); err == nil && r.Method == strings.ToUpper(r.Method) {
		return what{payload: HTTP, name: r.Host, path: r.Target}
	}
	return what{payload: Raw, raw: string(b)}
}

// observation puts a probe into the form that Run gives it.
func (t *trace) observation(p *captured, us func(time.Time) int64) measure.Observation {
	o := measure.Observation{
		Step: measure.StepPath, Stage: measure.StageLocate, Experiment: measure.ExpLocate,
		Family: wire.FamilyOf(t.remote.Addr()), Remote: t.remote.String(), TTL: p.ttl, Payload: string(t.what.payload),
		StartUS: us(p.first), Sent: int64(p.size), Received: int64(p.received),
	}
	switch t.what.payload {
	case TLS:
		o.SNI = t.what.name
	case HTTP:
		o.Host = t.what.name
	}
	end := p.last
	o.Path = &measure.Path{Probe: "data", Outcome: p.outcome, Sends: p.sends, LocalPort: int(p.c.local.Port()), ArrivedTTL: p.arrived}
	if p.icmp != nil {
		i := *p.icmp
		i.AtUS = us(p.icmpAt)
		o.Path.ICMP = &i
	}
	switch {
	case p.outcome != "":
		end = p.at
	case p.icmp != nil:
		o.Path.Outcome, end = "expired", p.icmpAt
	default:
		o.Path.Outcome, o.Failure = "silent", measure.GenericTimeout
		if !p.c.over && t.ended.After(t.began) && t.ended.Sub(p.last) < cutOff {
			o.Failure = measure.Interrupted // the capture ends before an answer could come
		}
	}
	if o.Path.Outcome != "silent" {
		o.Path.RTTUS = max(0, end.Sub(p.last).Microseconds())
	}
	o.TookUS = max(0, end.Sub(p.first).Microseconds())
	for _, f := range p.foreign {
		if o.TCP == nil {
			o.TCP = &measure.TCP{}
		}
		f.icmp.AtUS = us(f.at)
		o.TCP.ICMP = append(o.TCP.ICMP, f.icmp)
	}
	return o
}

// The classes of outcome that CenTrace publishes (Raman 2022).
const (
	ClassIdentified = "CAN_IDENTIFY_SERVER"          // the control names the router where the test ends
	ClassNeighbours = "CAN_IDENTIFY_POSSIBLE_SERVER" // it names only routers beside it
	ClassEndpoint   = "ENDPOINT_FIREWALL"            // test and control end at the same TTL, otherwise
	ClassNAT        = "NAT_FIREWALL"                 // that router has the server's address
	ClassPast       = "TERMINATING_TTL_PAST_CONTROL" // the test ends farther than the server: a device copies TTLs
	ClassNone       = "NO_OBSERVED_CENSORSHIP"
	ClassEarly      = "PROBE_TERMINATED_EARLY" // a traceroute was broken off before anything ended it
)

// Published is what CenTrace's analysis says of a pair of captures, for
// comparison with results that others have published. It names a router, not a
// link, and has no probability: Infer's answer is the better one.
type Published struct {
	Class string
	// Kind is what ended the test: RST, FIN, HTTP, TLS, ICMP, TIMEOUT or
	// UNKNOWN.
	Kind string
	// FirstTest and FirstControl are the lowest TTLs at which each ended.
	FirstTest, FirstControl int
	// Device answered the control with the test's TTL, HopBefore and HopAfter
	// with the one below and above. Invalid: nobody did.
	Device, HopBefore, HopAfter netip.Addr
	// OnPath: a router beyond the device saw the probe to which it reacted.
	OnPath bool
}

// PublishedOutcome follows CenTrace's analysis (its pcap_parse, after the
// description of 2023) with two changes. What an ICMP error quotes must be the
// probe. And a test that is answered as the control is, but farther away,
// counts as not censored: the path grew.
func PublishedOutcome(control, test []CapturedPacket) (Published, error) {
	c, t, err := readPair(control, test)
	if err != nil {
		return Published{}, err
	}
	ct, tt := c.ending(), t.ending()
	out := Published{Class: ClassEarly, Kind: "UNKNOWN"}
	last := func(tr *trace) (far, answered int) {
		for _, p := range tr.probes {
			far = max(far, p.ttl)
			if p.icmp != nil {
				answered = max(answered, p.ttl)
			}
		}
		return far, answered
	}
	far, answered := last(c)
	switch {
	case ct != nil:
		out.FirstControl = ct.ttl
	case far < lastTTL:
		return Published{Class: ClassEarly, Kind: "UNKNOWN"}, nil
	default:
		out.FirstControl = answered + 1
	}
	far, answered = last(t)
	switch {
	case tt != nil:
		out.FirstTest, out.Kind = tt.ttl, tt.kind()
	case far < out.FirstControl:
		return Published{Class: ClassEarly, Kind: "UNKNOWN"}, nil
	default:
		out.FirstTest, out.Kind = answered+1, "TIMEOUT"
	}
	k := out.FirstTest
	same := ct == nil && tt == nil || ct != nil && tt != nil && alike(ct, tt)
	switch {
	case k >= out.FirstControl && same:
		out.Class = ClassNone
		return out, nil
	case k > out.FirstControl+1:
		out.Class = ClassPast
		return out, nil
	case k == out.FirstControl:
		out.Class = ClassEndpoint
		return out, nil
	}
	out.HopBefore, out.HopAfter = c.responder(k-1), c.responder(k+1)
	out.Device = c.responder(k)
	if out.Kind == "TIMEOUT" {
		// A router that never answers cannot be told from one behind which
		// the probe was swallowed.
		for ttl := k + 1; !out.Device.IsValid() && ttl < out.FirstControl; ttl++ {
			out.Device, out.HopAfter = c.responder(ttl), c.responder(ttl+1)
		}
	}
	switch out.Device {
	case netip.Addr{}:
		out.Class = ClassNeighbours
	case c.remote.Addr():
		out.Class = ClassNAT
	default:
		out.Class = ClassIdentified
	}
	for _, p := range t.probes {
		out.OnPath = out.OnPath || p.ends() && p.outcome != "unreachable" && p.ttl < out.FirstControl && p.icmp != nil
	}
	return out, nil
}

// lastTTL is the highest TTL that CenTrace sends.
const lastTTL = 63

// ends says that something other than a router's word came.
func (p *captured) ends() bool { return p.ttl > 0 && p.outcome != "" }

// ending is the probe with the lowest TTL that drew more than a router's word.
func (t *trace) ending() (low *captured) {
	for _, p := range t.probes {
		if p.ends() && (low == nil || p.ttl < low.ttl) {
			low = p
		}
	}
	return low
}

// responder is who answered a probe with a TTL, first a router's word.
func (t *trace) responder(ttl int) netip.Addr {
	if ttl < 1 {
		return netip.Addr{}
	}
	var server netip.Addr
	for _, p := range t.probes {
		switch {
		case p.ttl != ttl:
		case p.icmp != nil:
			a, _ := netip.ParseAddr(p.icmp.From)
			return a
		case p.outcome != "":
			server = t.remote.Addr()
		}
	}
	return server
}

func (p *captured) kind() string {
	switch {
	case p.outcome == "unreachable":
		return "ICMP"
	case p.flags&packet.FIN != 0:
		return "FIN"
	case p.flags&packet.RST != 0:
		return "RST"
	case bytes.HasPrefix(p.answer, []byte("HTTP/")):
		return "HTTP"
	case isTLS(p.answer):
		return "TLS"
	}
	return "UNKNOWN"
}

func isTLS(b []byte) bool { return len(b) > 2 && b[0] >= 20 && b[0] <= 23 && b[1] == 3 }

// alike says that two answers are the same but for what differs by nature: an
// HTTP answer's date, all of TLS but its first record's kind and an alert.
func alike(a, b *captured) bool {
	x, y := a.answer, b.answer
	if a.outcome != b.outcome || a.kind() != b.kind() {
		return false
	}
	switch a.kind() {
	case "TLS":
		return x[0] == y[0] && (x[0] != 21 || bytes.Equal(x, y))
	case "HTTP":
		return bytes.Equal(undated(x), undated(y))
	}
	return bytes.Equal(x, y)
}

// undated leaves out the Date lines of an HTTP head.
func undated(b []byte) []byte {
	head, body, _ := bytes.Cut(b, []byte("\r\n\r\n"))
	var out []byte
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		if len(line) < 5 || !bytes.EqualFold(line[:5], []byte("date:")) {
			out = append(append(out, line...), '\n')
		}
	}
	return append(out, body...)
}
