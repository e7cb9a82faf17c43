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

	"github.com/miekg/dns"

	"govah/packet"
)

// Filter is a box that follows rules.
type Filter struct {
	rules   []*rule
	seed    uint64
	clock   func(time.Time) time.Time
	flows   packet.Table[flow]
	memory  map[memoryKey]memory
	nat     map[packet.FlowKey]netip.AddrPort // dns-redirect: whom the client asked
	buckets map[bucketKey]*bucket
}

// flow is what a filter keeps of one flow.
type flow struct {
	syn     bool
	stream  packet.Stream // from the client
	crypto  packet.CryptoStream
	data    int // client packets with payload
	known   bool
	label   label
	fromSrv int
	marks   []mark
	share   uint8 // 0 to 99, fixed per flow
}

// label is what a flow turned out to be about.
type label struct {
	layer, name, path string
	ech, esni         bool
	version           uint32
}

// mark is a rule that goes on acting on a flow.
type mark struct {
	rule    *rule
	packets int
	base    int
	shape   time.Time
}

type memoryKey struct {
	rule *rule
	key  [2]netip.AddrPort
}

type memory struct{ until time.Time }

type bucketKey struct {
	rule *rule
	flow packet.FlowKey
}

type bucket struct {
	tokens float64
	at     time.Time
	busy   time.Time
}

// NewFilter checks rules and makes a box of them. The first rule that matches
// a packet decides. seed fixes what is random; clock turns the link's time into the
// time of day that rules speak of (nil: the same).
func NewFilter(rules []Rule, seed uint64, clock func(time.Time) time.Time) (*Filter, error) {
	f := &Filter{seed: seed, clock: clock, memory: map[memoryKey]memory{}, nat: map[packet.FlowKey]netip.AddrPort{}, buckets: map[bucketKey]*bucket{}}
	if f.clock == nil {
		f.clock = func(t time.Time) time.Time { return t }
	}
	for i, r := range rules {
		c, err := r.check()
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		f.rules = append(f.rules, c)
	}
	return f, nil
}

// Handle implements Box.
func (f *Filter) Handle(d Direction, pkt []byte, now time.Time, emit Emit) {
	p, err := packet.Parse(pkt)
	if err != nil {
		emit(d, pkt, 0)
		return
	}
	wall := f.clock(now)
	if f.remembered(d, &p, now, emit) {
		return
	}
	if d == In && p.Proto == packet.UDP && p.SrcPort == 53 {
		if asked, ok := f.nat[packet.FlowKey{Client: p.Destination(), Server: p.Source(), Proto: p.Proto}]; ok {
			if back, err := packet.Rewrite(p.Raw, asked, netip.AddrPort{}); err == nil {
				emit(d, back, 0)
				return
			}
		}
	}
	key, fl, forward, found := f.flows.Get(&p, now)
	if !found {
		if d == In && p.Proto != packet.UDP && p.Proto != packet.TCP {
			fl = nil
		} else if p.Proto == packet.TCP || p.Proto == packet.UDP {
			if d == In {
				key = packet.FlowKey{Client: p.Destination(), Server: p.Source(), Proto: p.Proto}
				forward = false
			}
			fl = f.flows.Put(key, flow{share: f.draw(key)}, now)
		}
	}
	_ = forward
	fresh := f.learn(d, &p, fl)
	for _, r := range f.rules {
		if !r.inForce(wall) || !f.matches(r, d, &p, fl, fresh) {
			continue
		}
		if f.act(r, d, &p, key, fl, now, emit) {
			return
		}
	}
	f.pass(d, &p, key, fl, now, emit)
}

// draw gives a flow its fixed place among all flows, 0 to 99.
func (f *Filter) draw(k packet.FlowKey) uint8 {
	h := f.seed
	mix := func(b []byte) {
		for _, c := range b {
			h = (h ^ uint64(c)) * 0x100000001b3
		}
	}
	mix(k.Client.Addr().AsSlice())
	mix(binary.BigEndian.AppendUint16(nil, k.Client.Port()))
	mix(k.Server.Addr().AsSlice())
	mix(binary.BigEndian.AppendUint16(nil, k.Server.Port()))
	return uint8(rand.New(rand.NewPCG(h, f.seed)).UintN(100))
}

// learn reads what a packet tells about its flow. It reports whether the flow
// became known by this packet, or the packet stands for itself (DNS).
func (f *Filter) learn(d Direction, p *packet.Packet, fl *flow) bool {
	if fl == nil {
		return false
	}
	if d == In {
		fl.fromSrv += len(p.Payload)
		return false
	}
	switch p.Proto {
	case packet.UDP:
		if p.DstPort == 53 {
			m := new(dns.Msg)
			if m.Unpack(p.Payload) == nil && len(m.Question) == 1 && !m.Response {
				fl.label = label{layer: "dns", name: strings.ToLower(strings.TrimSuffix(m.Question[0].Name, ".")), path: dns.TypeToString[m.Question[0].Qtype]}
				fl.known = true
				return true
			}
			return false
		}
		if fl.known || fl.data > 8 {
			return false
		}
		fl.data++
		h, err := packet.ParseLongHeader(p.Payload)
		if err != nil {
			return false
		}
		fl.label.layer, fl.label.version = "quic", h.Version
		hello, err := fl.crypto.Add(p.Payload)
		if err != nil {
			return fl.data == 1
		}
		fl.label.name, fl.label.ech, fl.known = hello.SNI, hello.ECH, true
		return true
	case packet.TCP:
		if p.Flags&packet.SYN != 0 {
			share := fl.share
			*fl = flow{syn: true, share: share}
			fl.stream.Start(p.Seq + 1)
			return false
		}
		if len(p.Payload) == 0 {
			return false
		}
		fl.data++
		if fl.known {
			// A retransmission of what was triggered on triggers again.
			return false
		}
		grew := fl.stream.Add(p.Seq, p.Payload)
		if !grew {
			return false
		}
		return f.read(fl, fl.stream.Data)
	}
	return false
}

// read recognises the protocol at the start of a client's stream.
func (f *Filter) read(fl *flow, b []byte) bool {
	hello, err := packet.ParseClientHelloStream(b)
	if err == nil {
		fl.label = label{layer: "tls", name: hello.SNI, ech: hello.ECH, esni: hello.ESNI}
		fl.known = true
		return true
	}
	if errors.Is(err, packet.ErrMore) {
		return false
	}
	req, err := packet.ParseRequest(b)
	if err == nil {
		fl.label = label{layer: "http", name: req.Host, path: req.Target}
		fl.known = true
		return true
	}
	if errors.Is(err, packet.ErrMore) {
		return false
	}
	fl.label = label{layer: "tcp"}
	fl.known = true
	return true
}

// alone reads one packet as a device without reassembly does.
func alone(p *packet.Packet) label {
	if h, err := packet.ParseClientHelloStream(p.Payload); err == nil {
		return label{layer: "tls", name: h.SNI, ech: h.ECH, esni: h.ESNI}
	}
	if r, err := packet.ParseRequest(p.Payload); err == nil {
		return label{layer: "http", name: r.Host, path: r.Target}
	}
	return label{}
}

func (f *Filter) matches(r *rule, d Direction, p *packet.Packet, fl *flow, fresh bool) bool {
	server, client, port := p.Dst, p.Src, int(p.DstPort)
	if d == In {
		server, client, port = p.Src, p.Dst, int(p.SrcPort)
	}
	if !inPrefixes(server, r.addresses) || !inPrefixes(client, r.clients) {
		return false
	}
	if len(r.Ports) > 0 && !slices.Contains(r.Ports, port) || slices.Contains(r.NotPorts, port) {
		return false
	}
	if r.Family == "ipv4" && p.V6() || r.Family == "ipv6" && !p.V6() || r.Larger > 0 && len(p.Raw) <= r.Larger {
		return false
	}
	if r.Share > 0 && (fl == nil || int(fl.share) >= r.Share) {
		return false
	}
	switch r.Layer {
	case "ip":
		return true
	case "icmp":
		return p.Proto == packet.ICMP || p.Proto == packet.ICMPv6
	case "udp":
		return p.Proto == packet.UDP
	case "tcp":
		if p.Proto != packet.TCP {
			return false
		}
		if r.Shape != "" {
			return d == Out && fl != nil && len(p.Payload) > 0 && fl.data <= 2 && odd(r.Shape, p.Payload)
		}
		return true
	}
	if fl == nil || d == In {
		return false
	}
	l := fl.label
	if r.Split && p.Proto == packet.TCP {
		l = alone(p)
		fresh = l.layer != ""
	}
	// A retransmitted trigger triggers again, as it does on real devices.
	if !fresh && !(fl.known && p.Proto == packet.TCP && len(p.Payload) > 0 && !r.Split && fl.data <= 8) &&
		!(p.Proto == packet.UDP && r.Layer == "quic") {
		return false
	}
	if l.layer != r.Layer {
		return false
	}
	if r.Layer == "dns" && r.QType != "" && r.QType != l.path {
		return false
	}
	if r.Layer == "http" && len(r.Paths) > 0 && !slices.ContainsFunc(r.Paths, func(s string) bool { return strings.Contains(l.path, s) }) {
		return false
	}
	if r.ECH && !l.ech || r.ESNI && !l.esni {
		return false
	}
	if r.Layer == "quic" {
		if len(r.Versions) > 0 && !slices.Contains(r.Versions, l.version) || r.PortOrder && p.SrcPort <= p.DstPort {
			return false
		}
		if (len(r.Names) > 0 || len(r.Contains) > 0 || len(r.Allow) > 0) && !fl.known {
			return false
		}
	}
	return r.named(l.name)
}

// odd says whether first bytes fit no known protocol (IR-18), or look like
// nothing at all (CN-08).
func odd(shape string, b []byte) bool {
	if len(b) > 2 && b[0] == 22 && b[1] == 3 {
		return false
	}
	if _, err := packet.ParseRequest(b); !errors.Is(err, packet.ErrNotHTTP) {
		return false
	}
	if shape == "unknown" {
		return !(len(b) > 14 && int(binary.BigEndian.Uint16(b)) == len(b)-2) // DNS over TCP
	}
	ones, printable, run, longest := 0, 0, 0, 0
	for i, c := range b {
		ones += bits.OnesCount8(c)
		if c >= 0x20 && c <= 0x7e {
			printable++
			run++
			longest = max(longest, run)
			if i < 6 && run == 6 {
				return false
			}
		} else {
			run = 0
		}
	}
	per := float64(ones) / float64(len(b))
	return per > 3.4 && per < 4.6 && printable*2 <= len(b) && longest <= 20
}

// act does what a rule says. It reports whether the packet has been dealt
// with; otherwise the next rule may match.
func (f *Filter) act(r *rule, d Direction, p *packet.Packet, key packet.FlowKey, fl *flow, now time.Time, emit Emit) bool {
	f.remember(r, d, p, now)
	switch r.Action {
	case "drop":
		if r.Side == "in" && d == Out || r.Side == "out" && d == In {
			return false
		}
		if r.Layer == "tls" || r.Layer == "http" || r.Layer == "quic" || r.Shape != "" {
			// The flow is dead from here on, both ways unless said otherwise.
			f.mark(fl, r)
		}
		if r.Side == "in" && fl != nil {
			return false
		}
		return true
	case "reset":
		f.reset(r, d, p, emit)
		if r.OnPath || r.Ends == "client" && r.OnPath {
			f.pass(d, p, key, fl, now, emit)
		}
		return true
	case "unreachable":
		kind := map[string]packet.ICMPKind{"net": packet.NetUnreachable, "": packet.HostUnreachable, "host": packet.HostUnreachable, "port": packet.PortUnreachable, "admin": packet.AdminProhibited}[r.Code]
		from := p.Dst
		if b, err := packet.BuildICMPError(kind, from, p.Raw, 0); err == nil {
			emit(d.Reverse(), b, r.after)
		}
		return true
	case "alert":
		code := r.Alert
		if code == 0 {
			code = 40
		}
		s := p.Reply()
		s.Flags, s.Window, s.Payload = packet.PSH|packet.ACK, 65535, []byte{21, 3, 3, 0, 2, 2, byte(code)}
		emit(d.Reverse(), f.build(r, s, p), r.after)
		s.Seq += uint32(len(s.Payload))
		s.Payload, s.Flags = nil, packet.FIN|packet.ACK
		emit(d.Reverse(), f.build(r, s, p), r.after)
		f.mark(fl, &rule{Rule: Rule{Action: "drop", Side: "both"}})
		return true
	case "page", "redirect":
		s := p.Reply()
		s.Flags, s.Window, s.Payload = packet.FIN|packet.PSH|packet.ACK, 65535, r.response()
		emit(d.Reverse(), f.build(r, s, p), r.after)
		if r.OnPath {
			f.pass(d, p, key, fl, now, emit)
		} else {
			f.mark(fl, &rule{Rule: Rule{Action: "drop", Side: "both"}})
		}
		return true
	case "throttle", "freeze", "drop-after":
		f.mark(fl, r)
		return false
	}
	return f.dns(r, d, p, now, emit)
}

func (f *Filter) mark(fl *flow, r *rule) {
	if fl == nil {
		return
	}
	for _, m := range fl.marks {
		if m.rule == r {
			return
		}
	}
	fl.marks = append(fl.marks, mark{rule: r, base: fl.fromSrv})
}

func (r *rule) response() []byte {
	status := r.Status
	if status == "" {
		status = "403 Forbidden"
	}
	var b strings.Builder
	if r.Action == "redirect" {
		if r.Status == "" {
			status = "302 Found"
		}
		fmt.Fprintf(&b, "HTTP/1.1 %s\r\nLocation: %s\r\n", status, r.To)
	} else {
		fmt.Fprintf(&b, "HTTP/1.1 %s\r\nContent-Type: text/html; charset=utf-8\r\n", status)
	}
	for _, h := range r.Header {
		b.WriteString(h + "\r\n")
	}
	fmt.Fprintf(&b, "Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(r.Body), r.Body)
	return []byte(b.String())
}

// build makes an injected segment as the rule's own stack would.
func (f *Filter) build(r *rule, s packet.Segment, trigger *packet.Packet) []byte {
	s.TTL = uint8(r.TTL)
	if r.CopyTTL {
		s.TTL = trigger.TTL
	}
	s.ID = uint16(r.IPID)
	return packet.BuildTCP(s)
}

// reset forges resets in the sequence that each end expects.
func (f *Filter) reset(r *rule, d Direction, p *packet.Packet, emit Emit) {
	if p.Proto != packet.TCP || p.Flags&packet.RST != 0 {
		return
	}
	count := max(1, r.Count)
	for i := range count {
		flags := uint8(packet.RST | packet.ACK)
		if r.Flags == "R" {
			flags = packet.RST
		}
		back := p.Reply()
		back.Flags, back.Payload = flags, []byte(r.Data)
		forth := packet.Segment{Src: p.Source(), Dst: p.Destination(), Seq: p.Seq, Ack: p.Ack, Flags: flags}
		if p.Flags&packet.ACK == 0 { // a SYN: RFC 9293 3.5.2
			back.Flags, back.Seq = packet.RST|packet.ACK, 0
			forth.Flags = packet.RST
		}
		if r.Growing {
			back.Window, forth.Window = uint16(100+i*17), uint16(100+i*17)
		}
		rr := *r
		if r.Growing {
			base := r.TTL
			if base == 0 {
				base = 64
			}
			rr.TTL = base + i
		}
		delay := r.after + time.Duration(i)*200*time.Microsecond
		toClient, toServer := back, forth
		dirClient := d.Reverse()
		if d == In {
			toClient, toServer = forth, back
			dirClient = d
		}
		if r.Ends != "server" {
			emit(dirClient, f.build(&rr, toClient, p), delay)
		}
		if r.Ends != "client" {
			emit(dirClient.Reverse(), f.build(&rr, toServer, p), delay)
		}
	}
}

// dns does what the dns-* actions say.
func (f *Filter) dns(r *rule, d Direction, p *packet.Packet, now time.Time, emit Emit) bool {
	if r.Action == "dns-redirect" {
		k := packet.FlowKey{Client: p.Source(), Server: r.resolver, Proto: p.Proto}
		if len(f.nat) > 65536 {
			clear(f.nat)
		}
		f.nat[k] = p.Destination()
		if moved, err := packet.Rewrite(p.Raw, netip.AddrPort{}, r.resolver); err == nil {
			emit(d, moved, 0)
			return true
		}
		return false
	}
	q := new(dns.Msg)
	if q.Unpack(p.Payload) != nil || len(q.Question) != 1 {
		return false
	}
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	ttl := uint32(r.DNSTTL)
	if ttl == 0 {
		ttl = 300
	}
	switch r.Action {
	case "dns-nxdomain":
		m.Rcode = dns.RcodeNameError
	case "dns-servfail":
		m.Rcode = dns.RcodeServerFailure
	case "dns-refused":
		m.Rcode = dns.RcodeRefused
	case "dns-answer":
		h := dns.RR_Header{Name: q.Question[0].Name, Class: dns.ClassINET, Ttl: ttl}
		for _, a := range r.answers {
			switch {
			case a.Is4() && q.Question[0].Qtype == dns.TypeA:
				h.Rrtype = dns.TypeA
				m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
			case a.Is6() && q.Question[0].Qtype == dns.TypeAAAA:
				h.Rrtype = dns.TypeAAAA
				m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
			}
		}
	}
	wire, err := m.Pack()
	if err != nil {
		return false
	}
	ipTTL := uint8(r.TTL)
	if r.CopyTTL {
		ipTTL = p.TTL
	}
	delay := r.after
	if r.When == "after" && delay == 0 {
		delay = 150 * time.Millisecond
	}
	for i := range max(1, r.Count) {
		emit(d.Reverse(), packet.BuildUDP(p.Destination(), p.Source(), ipTTL, uint16(r.IPID), wire), delay+time.Duration(i)*time.Millisecond)
	}
	if r.When == "before" || r.When == "after" || r.OnPath {
		emit(d, p.Raw, 0)
	}
	return true
}

// pass lets a packet through, unless an earlier rule goes on acting on its flow.
func (f *Filter) pass(d Direction, p *packet.Packet, key packet.FlowKey, fl *flow, now time.Time, emit Emit) {
	delay := time.Duration(0)
	if fl != nil {
		for i := range fl.marks {
			m := &fl.marks[i]
			switch m.rule.Action {
			case "drop":
				if m.rule.Side == "in" && d == Out || m.rule.Side == "out" && d == In {
					continue
				}
				return
			case "freeze":
				if d == In && fl.fromSrv-m.base > m.rule.Bytes {
					return
				}
			case "drop-after":
				m.packets++
				if m.rule.Packets > 0 && m.packets > m.rule.Packets || m.rule.Bytes > 0 && fl.fromSrv-m.base > m.rule.Bytes {
					return
				}
			case "throttle":
				if d == Out {
					continue
				}
				wait, ok := f.limit(m.rule, key, len(p.Raw), now)
				if !ok {
					return
				}
				delay += wait
			}
		}
	}
	emit(d, p.Raw, delay)
}

// limit is a token bucket that drops (policing) or a queue that delays.
func (f *Filter) limit(r *rule, key packet.FlowKey, n int, now time.Time) (time.Duration, bool) {
	k := bucketKey{r, key}
	b := f.buckets[k]
	burst := float64(r.Burst)
	if burst == 0 {
		burst = 8000
	}
	if b == nil {
		if len(f.buckets) > 65536 {
			clear(f.buckets)
		}
		b = &bucket{tokens: burst, at: now}
		f.buckets[k] = b
	}
	perSecond := float64(r.Rate) * 1000 / 8
	if r.Shaping {
		if b.busy.Before(now) {
			b.busy = now
		}
		b.busy = b.busy.Add(time.Duration(float64(n) / perSecond * float64(time.Second)))
		wait := b.busy.Sub(now)
		return wait, wait < 2*time.Second
	}
	b.tokens = min(burst, b.tokens+now.Sub(b.at).Seconds()*perSecond)
	b.at = now
	if b.tokens < float64(n) {
		return 0, false
	}
	b.tokens -= float64(n)
	return 0, true
}

// keyOf is what a residual rule remembers of a packet.
func keyOf(r *rule, d Direction, p *packet.Packet) memoryKey {
	client, server := p.Source(), p.Destination()
	if d == In {
		client, server = server, client
	}
	switch r.Residual {
	case "3-tuple":
		client = netip.AddrPortFrom(client.Addr(), 0)
	case "destination":
		client, server = netip.AddrPort{}, netip.AddrPortFrom(server.Addr(), 0)
	case "client":
		client, server = netip.AddrPortFrom(client.Addr(), 0), netip.AddrPort{}
	}
	return memoryKey{r, [2]netip.AddrPort{client, server}}
}

func (f *Filter) remember(r *rule, d Direction, p *packet.Packet, now time.Time) {
	if r.Residual == "" {
		return
	}
	if len(f.memory) > 65536 {
		for k, m := range f.memory {
			if now.After(m.until) {
				delete(f.memory, k)
			}
		}
	}
	f.memory[keyOf(r, d, p)] = memory{now.Add(r.keep)}
}

// remembered applies residual blocking to a packet of a remembered key.
func (f *Filter) remembered(d Direction, p *packet.Packet, now time.Time, emit Emit) bool {
	if len(f.memory) == 0 || p.Proto != packet.TCP && p.Proto != packet.UDP {
		return false
	}
	for _, r := range f.rules {
		if r.Residual == "" {
			continue
		}
		k := keyOf(r, d, p)
		m, ok := f.memory[k]
		if !ok {
			continue
		}
		if !now.Before(m.until) {
			delete(f.memory, k)
			continue
		}
		if r.Restart && d == Out {
			f.memory[k] = memory{now.Add(r.keep)}
		}
		if r.Action == "reset" && p.Proto == packet.TCP {
			f.reset(r, d, p, emit)
			return !r.OnPath
		}
		return true
	}
	return false
}
