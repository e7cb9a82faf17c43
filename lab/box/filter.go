package box

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"govah/packet"
)

// Filter is a box that follows rules.
type Filter struct {
	rules []*rule
	seed  uint64
	clock func(time.Time) time.Time
	flows packet.Table[flow]
	nat   packet.Table[netip.AddrPort] // dns-redirect: whom the client asked
}

// flow is what a filter keeps of one flow.
type flow struct {
	opener      Direction // in which its client's packets go
	seen        time.Time // last
	syn, synAck bool
	isn         uint32 // of the client, with syn
	mss         uint16 // that its SYN announced
	established bool
	stream      packet.Stream // from the client, until the flow is known
	crypto      packet.CryptoStream
	data        int // client packets with payload
	initials    int // of those, QUIC's long headers
	place       int // which was the first of these
	label       label
	known       bool   // the label will not change any more
	end         uint32 // sequence number after the bytes that made it known
	version     uint32 // QUIC
	fromServer  int    // bytes of payload
	marks       []mark
	share       uint8 // 0 to 99, fixed per flow
	tls         *handshake
	tamper      *tamper
	pending     []pending // answers to inject after the true ones
}

// label is what a flow, or a packet by itself, is about.
type label struct {
	layer, name, path string
	ech, esni         bool
	extensions        []uint16
	forms             []string // of Forms, those that the trigger is written in
}

// event is a packet on its way through a filter.
type event struct {
	d     Direction
	p     packet.Packet
	fl    *flow // nil where the protocol has none
	now   time.Time
	emit  Emit
	fresh bool // this packet told what the flow is about, or tells it again
	// answer is the question of a DNS answer.
	answer *packet.Question
	done   *rule // has acted on the packet already
}

// up says whether the packet goes from the flow's client to its server.
func (e *event) up() bool {
	if e.fl == nil {
		return e.d == Out
	}
	return e.d == e.fl.opener
}

// toClient is the direction that leads to the flow's client.
func (e *event) toClient() Direction {
	if e.fl == nil {
		return In
	}
	return e.fl.opener.Reverse()
}

func (e *event) server() netip.AddrPort {
	if e.up() {
		return e.p.Destination()
	}
	return e.p.Source()
}

func (e *event) client() netip.AddrPort {
	if e.up() {
		return e.p.Source()
	}
	return e.p.Destination()
}

// NewFilter checks rules and makes a box of them. The first rule that matches
// a packet and decides about it is the last that is looked at; throttle,
// freeze, drop-after and what begins later let further rules look. seed fixes
// what is random; clock turns the link's time into the time of day that rules
// speak of (nil: the same).
func NewFilter(rules []Rule, seed uint64, clock func(time.Time) time.Time) (*Filter, error) {
	f := &Filter{seed: seed, clock: clock}
	if f.clock == nil {
		f.clock = func(t time.Time) time.Time { return t }
	}
	for i, r := range rules {
		c, err := r.check()
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		c.rng = rand.New(rand.NewPCG(seed, uint64(i)))
		f.rules = append(f.rules, c)
	}
	return f, nil
}

// Handle implements Box.
func (f *Filter) Handle(d Direction, pkt []byte, now time.Time, emit Emit) {
	p, err := packet.Parse(pkt)
	if err != nil && !errors.Is(err, packet.ErrFragment) {
		emit(d, pkt, 0)
		return
	}
	e := &event{d: d, p: p, now: now, emit: emit}
	if err == nil && (p.Proto == packet.TCP || p.Proto == packet.UDP) {
		f.follow(e)
		f.learn(e)
		if f.returned(e) || f.answered(e) {
			return
		}
	}
	if f.remembered(e) {
		return
	}
	wall := f.clock(now)
	for _, r := range f.rules {
		if r == e.done || !r.inForce(wall) || !f.matches(r, e) {
			continue
		}
		if r.Times > 1 && !r.again(e) {
			continue
		}
		if !e.revisited(r) {
			r.remember(e)
		}
		if f.act(r, e) {
			return
		}
	}
	f.pass(e)
}

// udpIdle is how long a device remembers a UDP flow: 60 s for CN-07, 30 s and
// more elsewhere.
const udpIdle = time.Minute

// another says whether a packet that fits a known flow opens another one.
func (fl *flow) another(e *event) bool {
	if e.p.Proto == packet.UDP {
		return e.now.Sub(fl.seen) >= udpIdle
	}
	opens := e.p.Flags&(packet.SYN|packet.ACK) == packet.SYN
	return opens && (fl.opener != e.d || fl.data > 0 || fl.syn && fl.isn != e.p.Seq)
}

// follow finds or opens the packet's flow.
func (f *Filter) follow(e *event) {
	p := &e.p
	key, fl, _, found := f.flows.Get(p, e.now)
	if !found || fl.another(e) {
		// A flow that was not seen from its beginning is taken to be the
		// client's, unless the packet itself opens it.
		opener := Out
		if e.d == In {
			opens := p.Proto == packet.TCP && p.Flags&(packet.SYN|packet.ACK) == packet.SYN ||
				p.Proto == packet.UDP && p.SrcPort != 53 && p.SrcPort != 443
			if opens {
				opener = In
			}
		}
		key = packet.FlowKey{Client: p.Source(), Server: p.Destination(), Proto: p.Proto}
		if opener != e.d {
			key.Client, key.Server = key.Server, key.Client
		}
		f.flows.Delete(packet.FlowKey{Client: key.Server, Server: key.Client, Proto: p.Proto})
		fl = f.flows.Put(key, flow{opener: opener, share: f.draw(key)}, e.now)
	}
	e.fl = fl
	fl.seen = e.now
	if p.Proto != packet.TCP {
		return
	}
	switch p.Flags & (packet.SYN | packet.ACK) {
	case packet.SYN:
		fl.syn, fl.isn, fl.mss = true, p.Seq, packet.ParseTCPOptions(p.Options).MSS
		if !fl.known {
			fl.stream = packet.Stream{}
			fl.stream.Start(p.Seq + 1)
		}
	case packet.SYN | packet.ACK:
		fl.synAck = true
	case packet.ACK:
		if e.up() && fl.syn && fl.synAck {
			fl.established = true
		}
	}
}

// draw gives a flow its fixed place among all flows, 0 to 99 (FNV-1a with a
// final mix, so that neighbouring ports are spread).
func (f *Filter) draw(k packet.FlowKey) uint8 {
	h := f.seed ^ 0xcbf29ce484222325
	mix := func(b ...byte) {
		for _, c := range b {
			h = (h ^ uint64(c)) * 0x100000001b3
		}
	}
	for _, ap := range []netip.AddrPort{k.Client, k.Server} {
		a := ap.Addr().As16()
		mix(a[:]...)
		mix(byte(ap.Port()>>8), byte(ap.Port()))
	}
	mix(k.Proto)
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	return uint8(h % 100)
}

// learn reads what a packet tells about its flow, and whether it is fresh.
func (f *Filter) learn(e *event) {
	p, fl := &e.p, e.fl
	if !e.up() {
		fl.fromServer += len(p.Payload)
		if p.Proto == packet.UDP && p.SrcPort == 53 {
			if q, err := packet.ParseQuestion(p.Payload); err == nil && q.Response {
				e.answer = &q
			}
		}
		if fl.tls != nil {
			fl.tls.server.add(p.Seq, p.Payload)
		}
		return
	}
	if len(p.Payload) == 0 {
		return
	}
	fl.data++
	if fl.tls != nil {
		fl.tls.client.add(p.Seq, p.Payload)
	}
	if p.Proto == packet.UDP {
		fl.learnUDP(e)
		return
	}
	switch {
	case !fl.known:
		if fl.stream.Add(p.Seq, p.Payload) {
			fl.read(e)
		}
		if fl.stream.Full {
			fl.settle(label{layer: "tcp"})
		}
	case int32(p.Seq-fl.end) < 0:
		e.fresh = true // the trigger is sent again
	case fl.label.layer == "http":
		// A further request of the same connection.
		if r, err := packet.ParseRequest(p.Payload); err == nil {
			fl.label = requestLabel(r, true)
			fl.end = p.Seq + uint32(len(p.Payload))
			e.fresh = true
		}
	}
}

func (fl *flow) learnUDP(e *event) {
	p := &e.p
	if p.DstPort == 53 {
		if q, err := packet.ParseQuestion(p.Payload); err == nil && !q.Response {
			fl.label = questionLabel(&q, packet.UDP)
			e.fresh = true
		}
		return
	}
	if fl.known || fl.data > 16 {
		return
	}
	h, err := packet.ParseLongHeader(p.Payload)
	if err != nil {
		return
	}
	fl.label.layer, fl.version = "quic", h.Version
	e.fresh = fl.data == 1
	if fl.initials++; fl.initials == 1 {
		fl.place = fl.data
	}
	if hello, err := fl.crypto.Add(p.Payload); err == nil {
		fl.label, fl.known, e.fresh = quicLabel(hello, fl.initials, fl.place), true, true
		fl.crypto = packet.CryptoStream{}
	}
}

func (fl *flow) settle(l label) {
	fl.label, fl.known, fl.end = l, true, fl.stream.Next()
	fl.stream = packet.Stream{}
}

// read recognises the protocol at the start of a client's stream.
func (fl *flow) read(e *event) {
	b := fl.stream.Data
	hello, tlsErr := packet.ParseClientHelloStream(b)
	if tlsErr == nil {
		fl.settle(helloLabel(hello))
		e.fresh = true
		return
	}
	req, httpErr := packet.ParseRequest(b)
	if httpErr == nil {
		fl.settle(requestLabel(req, false))
		e.fresh = true
		return
	}
	if e.p.DstPort == 53 && len(b) > 2 {
		n := int(binary.BigEndian.Uint16(b))
		if len(b)-2 < n {
			return
		}
		if q, err := packet.ParseQuestion(b[2:]); err == nil && !q.Response {
			fl.settle(questionLabel(&q, packet.TCP))
			e.fresh = true
			return
		}
	}
	if !errors.Is(tlsErr, packet.ErrMore) && !errors.Is(httpErr, packet.ErrMore) {
		fl.settle(label{layer: "tcp"})
	}
}

// alone reads one packet as a device does that does not reassemble. Of a
// ClientHello that goes on in the next packet it sees what is in this one. Of
// the flow it knows only whether this is a further request.
func alone(p *packet.Packet, fl *flow) label {
	h, err := packet.ParseClientHelloStream(p.Payload)
	if err == nil || h != nil && h.SNI != "" {
		return helloLabel(h)
	}
	if r, err := packet.ParseRequest(p.Payload); err == nil {
		return requestLabel(r, slices.Contains(fl.label.forms, "second"))
	}
	return label{}
}

// matches says whether all conditions of a rule hold for a packet.
func (f *Filter) matches(r *rule, e *event) bool {
	p := &e.p
	server := e.server()
	if !inPrefixes(server.Addr(), r.addresses) || !inPrefixes(e.client().Addr(), r.clients) {
		return false
	}
	if port := int(server.Port()); len(r.Ports) > 0 && !slices.Contains(r.Ports, port) || slices.Contains(r.NotPorts, port) {
		return false
	}
	if r.Family == "ipv4" && p.V6() || r.Family == "ipv6" && !p.V6() {
		return false
	}
	if r.Larger > 0 && len(p.Raw) <= r.Larger || r.PayloadOver > 0 && len(p.Payload) <= r.PayloadOver || r.NoOptions && len(p.Options) > 0 {
		return false
	}
	if strings.HasPrefix(r.Action, "reset") && p.Proto != packet.TCP {
		return false
	}
	if r.Share > 0 && (e.fl == nil || int(e.fl.share) >= r.Share) {
		return false
	}
	if r.Handshake != "" && (e.fl == nil || !e.fl.syn || r.Handshake == "full" && !e.fl.established) {
		return false
	}
	if named(r.Layer) {
		return f.matchesName(r, e)
	}
	if r.Direction == "out" && e.d == In || r.Direction == "in" && e.d == Out {
		return false
	}
	switch r.Layer {
	case "icmp":
		return p.Proto == packet.ICMP || p.Proto == packet.ICMPv6
	case "udp":
		return p.Proto == packet.UDP
	case "tcp":
		if p.Proto != packet.TCP || e.fl == nil {
			return false
		}
		if r.Shape != "" {
			return e.up() && len(p.Payload) > 0 && odd(r.Shape, e.fl, p.Payload)
		}
		switch flags := p.Flags & (packet.SYN | packet.ACK | packet.RST); r.Segment {
		case "syn":
			return flags == packet.SYN
		case "syn-ack":
			return flags == packet.SYN|packet.ACK
		case "data":
			return len(p.Payload) > 0
		}
	}
	return true
}

// matchesName is matches for the layers whose trigger has a name.
func (f *Filter) matchesName(r *rule, e *event) bool {
	fl, p := e.fl, &e.p
	if fl == nil {
		return false
	}
	if want := r.Direction; want != "both" && (want == "in") != (fl.opener == In) {
		return false
	}
	if r.Action == "dns-redirect" && !hasNames(&r.Rule) {
		forms := fl.label.forms
		if p.Proto == packet.TCP { // from its first segment on, when no more is known
			forms = []string{"tcp"}
		}
		return e.up() && p.DstPort == 53 && !r.blind(forms, nil)
	}
	if !e.up() {
		// The answer is what is acted on only where it alone is dropped.
		return r.Layer == "dns" && r.Action == "drop" && r.Side == "in" && e.answer != nil &&
			(r.QType == "" || r.QType == packet.TypeName(e.answer.Type)) && r.named(e.answer.Name) &&
			!r.blind(questionLabel(e.answer, p.Proto).forms, nil)
	}
	if r.Layer == "dns" && r.Side == "in" {
		return false
	}
	l, fresh := fl.label, e.fresh
	if r.Split {
		switch {
		case p.Proto == packet.TCP:
			l = alone(p, fl)
			fresh = l.layer != ""
		case r.Layer == "quic" && fl.data > 1:
			return false
		}
	}
	if !fresh || l.layer != r.Layer || r.blind(l.forms, fl) {
		return false
	}
	if r.QType != "" && r.QType != l.path {
		return false
	}
	if len(r.Paths) > 0 && !slices.ContainsFunc(r.Paths, func(s string) bool { return strings.Contains(l.path, s) }) {
		return false
	}
	if r.ECH && !l.ech || r.ESNI && !l.esni || slices.ContainsFunc(r.Extensions, func(x uint16) bool { return !slices.Contains(l.extensions, x) }) {
		return false
	}
	if r.Layer == "quic" {
		if len(r.Versions) > 0 && !slices.Contains(r.Versions, fl.version) || r.PortOrder && p.SrcPort <= p.DstPort {
			return false
		}
		if hasNames(&r.Rule) && !fl.known {
			return false
		}
	}
	return r.named(l.name)
}

func hasNames(r *Rule) bool {
	return len(r.Names)+len(r.Contains)+len(r.Matches)+len(r.Allow)+len(r.Extensions) > 0 || r.ECH
}

var httpMethods = []string{"GET ", "POST ", "HEAD ", "PUT ", "CONNECT ", "OPTIONS ", "DELETE "}

// odd says whether first bytes fit no protocol that is let through. "unknown"
// looks at the first two packets (IR-18: HTTP by its methods, TLS by three
// bytes, DNS over TCP by its length; a flow that has begun as TLS or HTTP is
// left alone, because what follows may be the rest of a large first message).
// "random" looks at the first alone (CN-08: the five exemptions of Wu et al.,
// USENIX Security 2023, algorithm 1).
func odd(shape string, fl *flow, b []byte) bool {
	if fl.data > 2 || fl.data > 1 && (shape == "random" || fl.label.layer != "" && fl.label.layer != "tcp") {
		return false
	}
	for _, m := range httpMethods {
		if n := min(len(m), len(b)); string(b[:n]) == m[:n] {
			return false
		}
	}
	if shape == "unknown" {
		if len(b) >= 3 && b[0] == 22 && b[1] == 3 && b[2] >= 1 && b[2] <= 3 {
			return false
		}
		started := fl.stream.Data // set while a ClientHello is incomplete
		if fl.data > 1 && len(started) > 2 && started[0] == 22 && started[1] == 3 {
			return false
		}
		return !(len(b) > 14 && int(binary.BigEndian.Uint16(b)) == len(b)-2)
	}
	if len(b) >= 3 && (b[0] == 22 || b[0] == 23) && b[1] == 3 && b[2] <= 9 {
		return false
	}
	ones, printable, run, longest := 0, 0, 0, 0
	for i, c := range b {
		ones += bits.OnesCount8(c)
		if c < 0x20 || c > 0x7e {
			run = 0
			continue
		}
		printable++
		run++
		longest = max(longest, run)
		if i == 5 && run == 6 {
			return false
		}
	}
	return ones*10 > 34*len(b) && ones*10 < 46*len(b) && printable*2 <= len(b) && longest <= 20
}

// again counts matching packets of a client to a server's port and says
// whether they are enough (TM-02, TJ-01).
func (r *rule) again(e *event) bool {
	key := packet.FlowKey{Client: netip.AddrPortFrom(e.client().Addr(), 0), Server: e.server(), Proto: e.p.Proto}
	n := r.hits.Lookup(key, e.now)
	if n == nil {
		n = r.hits.Put(key, 0, e.now)
	}
	*n++
	return *n >= r.Times
}
