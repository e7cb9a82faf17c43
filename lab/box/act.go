package box

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"govah/packet"
)

// segmentSize is the payload of injected segments, small enough for any link.
const segmentSize = 1200

// act does what a rule says. It reports whether the packet has been dealt
// with; otherwise the next rule may match.
func (f *Filter) act(r *rule, e *event) bool {
	switch r.Action {
	case "drop":
		return f.drop(r, e)
	case "reset":
		return f.inject(r, e, f.reset, false)
	case "unreachable":
		return f.unreachable(r, e)
	case "alert":
		return f.inject(r, e, f.alert, true)
	case "page", "redirect":
		return f.inject(r, e, f.page, true)
	case "inject-header", "inject-script":
		f.tamper(r, e)
		return false
	case "reset-replies", "throttle", "freeze", "drop-after":
		e.mark(r)
		return false
	case "dns-redirect":
		return f.redirectDNS(r, e)
	}
	return f.answerDNS(r, e)
}

// inject sends what a device injects. Beside the path it acts on a copy: the
// packet itself is ahead. In the path it keeps the packet, and, once it
// answers in the server's place, what follows.
func (f *Filter) inject(r *rule, e *event, forge func(*rule, *event), answers bool) bool {
	if r.OnPath {
		f.pass(e)
		forge(r, e)
		return true
	}
	forge(r, e)
	if answers {
		e.mark(r)
	}
	return true
}

// drop swallows packets. What is known by a name dies as a flow.
func (f *Filter) drop(r *rule, e *event) bool {
	lives := !named(r.Layer) && r.Shape == "" || r.Layer == "dns" && e.p.Proto == packet.UDP
	if lives {
		return r.side(e.d)
	}
	for i := range r.Push {
		s := e.p.Reply()
		s.Flags = packet.PSH | packet.ACK
		e.emit(e.d.Reverse(), r.build(e, i, s), r.after+time.Duration(i)*r.interval)
	}
	e.mark(r)
	if r.Handshaken || r.engage > 0 {
		return false
	}
	if r.OnPath {
		e.emit(e.d, e.p.Raw, 0)
		return true
	}
	return r.side(e.d)
}

// dress gives an injected packet the marks of the device that sends it. i
// counts the packets of one injection.
func (r *rule) dress(e *event, i int) (ttl uint8, id, window uint16) {
	t, w := r.TTL, r.Window
	if t == 0 {
		t = 64
	}
	if r.CopyTTL {
		t = int(e.p.TTL)
	}
	if r.RandomTTL {
		t = 1 + r.rng.IntN(255)
	}
	if r.Growing {
		t, w = min(255, t+i), w+100+i*17
	}
	if r.CopyWindow {
		w = int(e.p.Window)
	}
	if r.RandomWin {
		w = 1 + r.rng.IntN(65535)
	}
	id = uint16(r.IPID)
	switch {
	case r.CopyIPID:
		id = e.p.ID
	case r.RandomIPID:
		id = uint16(r.rng.Uint32())
	case r.CountIPID:
		id = r.next
		r.next++
	}
	if i < len(r.IPIDSteps) {
		id += uint16(r.IPIDSteps[i])
	}
	return uint8(t), id, uint16(w)
}

func (r *rule) build(e *event, i int, s packet.Segment) []byte {
	var window uint16
	s.TTL, s.ID, window = r.dress(e, i)
	s.DF = r.DF
	if s.Window == 0 {
		s.Window = window
	}
	return packet.BuildTCP(s)
}

// onward gives the skeleton of a segment that pretends to come from the
// sender of the packet at hand and follows what its receiver has.
func (e *event) onward() packet.Segment {
	return packet.Segment{Src: e.p.Source(), Dst: e.p.Destination(), Seq: e.p.Seq, Ack: e.p.Ack}
}

// reset forges resets in the sequence that each end expects.
func (f *Filter) reset(r *rule, e *event) {
	p := &e.p
	if p.Proto != packet.TCP || p.Flags&packet.RST != 0 {
		return
	}
	back, forth := p.Reply(), e.onward()
	if r.OnPath { // the packet itself is ahead
		forth.Seq = back.Ack
	}
	syn := p.Flags&packet.ACK == 0
	if syn { // RFC 9293 3.5.2: a SYN is refused by acknowledging it
		back.Seq = 0
	}
	toClient, toServer := back, forth
	if !e.up() {
		toClient, toServer = forth, back
	}
	for i := range r.Count {
		flags := r.flags[min(i, len(r.flags)-1)]
		offset := uint32(0)
		if i < len(r.Offsets) {
			offset = uint32(r.Offsets[i])
		}
		delay := r.after + time.Duration(i)*r.interval
		send := func(s packet.Segment, d Direction) {
			s.Flags, s.Payload = flags, []byte(r.Data)
			s.Seq += offset
			if d == e.d.Reverse() && !syn {
				switch {
				case r.ackZero:
					s.Ack = 0
				case r.ackOf >= 0:
					s.Ack = p.Seq + uint32(r.ackOf)
				}
			}
			switch {
			case syn && d == e.d.Reverse():
				s.Flags |= packet.ACK
			case syn:
				s.Flags &^= packet.ACK
			}
			if s.Flags&packet.ACK == 0 {
				s.Ack = 0
			}
			e.emit(d, r.build(e, i, s), delay)
		}
		if r.Ends != "server" {
			send(toClient, e.toClient())
		}
		if r.Ends != "client" {
			send(toServer, e.toClient().Reverse())
		}
	}
}

func (f *Filter) unreachable(r *rule, e *event) bool {
	kind := map[string]packet.ICMPKind{"net": packet.NetUnreachable, "": packet.HostUnreachable, "host": packet.HostUnreachable,
		"port": packet.PortUnreachable, "admin": packet.AdminProhibited}[r.Code]
	from := e.p.Dst
	if r.source.IsValid() && r.source.Is4() == from.Is4() {
		from = r.source
	}
	if b, err := packet.BuildICMPError(kind, from, e.p.Raw, 0); err == nil {
		e.emit(e.d.Reverse(), b, r.after)
	}
	return !r.OnPath || f.pass(e)
}

// say injects a payload in the server's place, closed with FIN.
func (f *Filter) say(r *rule, e *event, payload []byte) {
	s := e.p.Reply()
	for i := 0; len(payload) > 0; i++ {
		n := min(len(payload), segmentSize)
		s.Flags, s.Window, s.Payload = packet.ACK, 65535, payload[:n]
		if payload = payload[n:]; len(payload) == 0 {
			s.Flags |= packet.PSH | packet.FIN
		}
		e.emit(e.toClient(), r.build(e, i, s), r.after)
		s.Seq += uint32(n)
	}
	if r.Ends == "server" || r.Ends == "both" {
		end := e.onward()
		if r.OnPath {
			end.Seq = e.p.Reply().Ack
		}
		end.Flags = packet.RST | packet.ACK
		e.emit(e.d, r.build(e, 0, end), r.after)
	}
}

// alert injects a fatal TLS alert (RFC 8446 6).
func (f *Filter) alert(r *rule, e *event) {
	code := r.Alert
	if code == 0 {
		code = 40 // handshake_failure
	}
	f.say(r, e, []byte{21, 3, 3, 0, 2, 2, byte(code)})
}

// page injects an HTTP response.
func (f *Filter) page(r *rule, e *event) { f.say(r, e, r.response()) }

func (r *rule) response() []byte {
	status := r.Status
	switch {
	case status == "" && r.Action == "redirect":
		status = "302 Found"
	case status == "":
		status = "403 Forbidden"
	}
	if !strings.HasPrefix(status, "HTTP/") {
		status = "HTTP/1.1 " + status
	}
	lines := []string{status}
	if r.Action == "redirect" {
		lines = append(lines, "Location: "+r.To)
	}
	lines = append(lines, r.Header...)
	has := func(name string) bool {
		return slices.ContainsFunc(r.Header, func(h string) bool {
			n, _, _ := strings.Cut(h, ":")
			return strings.EqualFold(n, name)
		})
	}
	if r.Action == "page" && !has("content-type") {
		lines = append(lines, "Content-Type: text/html; charset=utf-8")
	}
	if !has("connection") {
		lines = append(lines, "Connection: close")
	}
	if !has("content-length") {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(r.Body)))
	}
	return []byte(strings.Join(lines, "\r\n") + "\r\n\r\n" + r.Body)
}

// pending is an answer that is injected when the true one has passed.
type pending struct {
	id   uint16
	pkts [][]byte
	rule *rule
}

// answerDNS does what the dns-* actions say.
func (f *Filter) answerDNS(r *rule, e *event) bool {
	query := e.p.Payload
	tcp := e.p.Proto == packet.TCP
	if tcp {
		if len(query) < 2 || int(binary.BigEndian.Uint16(query)) != len(query)-2 {
			return false // split over segments: only a resolver puts it together
		}
		query = query[2:]
	}
	a := packet.Answer{Addresses: r.answers, CNAME: r.CNAME, TTL: uint32(r.DNSTTL), Authoritative: r.Authority, Any: r.AnyType, Plain: r.Plain}
	if a.TTL == 0 {
		a.TTL = 300
	}
	switch r.Action {
	case "dns-nxdomain":
		a = packet.Answer{RCode: packet.NXDomain, Plain: r.Plain}
	case "dns-servfail":
		a = packet.Answer{RCode: packet.ServFail, Plain: r.Plain}
	case "dns-refused":
		a = packet.Answer{RCode: packet.Refused, Plain: r.Plain}
	case "dns-empty":
		a = packet.Answer{Plain: r.Plain}
	}
	answer, err := packet.BuildAnswer(query, a)
	if err != nil {
		return false
	}
	if tcp {
		return f.inject(r, e, func(r *rule, e *event) {
			f.say(r, e, append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
		}, true)
	}
	var pkts [][]byte
	for i := range r.Count {
		ttl, id, _ := r.dress(e, i)
		b := packet.BuildUDP(e.p.Destination(), e.p.Source(), ttl, id, answer)
		if r.DF && !e.p.V6() {
			b[6] |= 0x40
			packet.FixChecksums(b)
		}
		pkts = append(pkts, b)
	}
	if r.When == "after" {
		if len(e.fl.pending) < 16 {
			e.fl.pending = append(e.fl.pending, pending{binary.BigEndian.Uint16(query), pkts, r})
		}
		return f.pass(e)
	}
	for i, b := range pkts {
		e.emit(e.toClient(), b, r.after+time.Duration(i)*r.interval)
	}
	if r.When == "before" || r.OnPath {
		return f.pass(e)
	}
	return true
}

// answered lets a true DNS answer pass and sends what was to follow it.
func (f *Filter) answered(e *event) bool {
	if e.answer == nil {
		return false
	}
	i := slices.IndexFunc(e.fl.pending, func(p pending) bool { return p.id == e.answer.ID })
	if i < 0 {
		return false
	}
	late := e.fl.pending[i]
	e.fl.pending = slices.Delete(e.fl.pending, i, i+1)
	e.emit(e.d, e.p.Raw, 0)
	for n, b := range late.pkts {
		e.emit(e.d, b, max(late.rule.after, time.Millisecond)+time.Duration(n)*late.rule.interval)
	}
	return true
}

// redirectDNS sends a question to another resolver, and remembers whom the
// client had asked.
func (f *Filter) redirectDNS(r *rule, e *event) bool {
	asked := e.p.Destination()
	to := netip.AddrPortFrom(r.resolver, asked.Port())
	if asked == to || asked.Addr().Is4() != r.resolver.Is4() {
		return false
	}
	moved, err := packet.Rewrite(e.p.Raw, netip.AddrPort{}, to)
	if err != nil {
		return false
	}
	f.nat.Put(packet.FlowKey{Client: e.p.Source(), Server: to, Proto: e.p.Proto}, asked, e.now)
	e.emit(e.d, moved, 0)
	return true
}

// returned gives an answer of the other resolver the address of the one that
// was asked.
func (f *Filter) returned(e *event) bool {
	if f.nat.Len() == 0 {
		return false
	}
	asked := f.nat.Lookup(packet.FlowKey{Client: e.p.Destination(), Server: e.p.Source(), Proto: e.p.Proto}, e.now)
	if asked == nil {
		return false
	}
	back, err := packet.Rewrite(e.p.Raw, *asked, netip.AddrPort{})
	if err != nil {
		return false
	}
	e.emit(e.d, back, 0)
	return true
}
