package locate

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"govah/measure"
	"govah/packet"
	"govah/wire"
)

// With the privilege to capture packets more is known of a reaction over TCP:
// the TTL with which it arrived, and whether a router beyond the device saw
// the trigger all the same.

// overhearing captures the packets of a run, where that is allowed, until end
// hands them over.
func (r *run) overhearing(ctx context.Context) (end func()) {
	if !r.view.Capture {
		return func() {}
	}
	c, err := r.n.Capture(ctx, wire.Flow{Remote: r.spec.Remote})
	if err != nil {
		r.view.Capture = false
		return func() {}
	}
	r.capture = c
	return func() {
		if r.spec.Captured != nil {
			r.spec.Captured(slices.DeleteFunc(c.Packets(), func(p wire.Packet) bool { return !r.own(p) }))
		}
		c.Close()
	}
}

// own says whether a packet is of a flow of the run, or quotes one: somebody
// else on this device may be talking to the same server.
func (r *run) own(c wire.Packet) bool {
	p, err := packet.Parse(c.Data)
	if err != nil {
		return false
	}
	port := p.DstPort
	if c.Sent {
		port = p.SrcPort
	}
	if p.IsICMPError() {
		q, err := packet.ParseQuote(p.Quoted)
		if err != nil || q.Dst != r.spec.Remote {
			return false
		}
		port = q.Src.Port()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ports[port]
}

// overheard is what a capture shows after a sending of n bytes from a port:
// the TTL of the first answer, and the ICMP error that quotes that sending.
func (r *run) overheard(port uint16, since time.Time, sent []byte) (ttl int, icmp *measure.ICMP) {
	for _, c := range r.capture.Packets() {
		if c.Sent || c.At.Before(since) {
			continue
		}
		p, err := packet.Parse(c.Data)
		if err != nil {
			continue
		}
		switch {
		case p.IsICMPError():
			// A device may send packets in our name, and they may die on the
			// way as well: what is quoted must be as long as what we sent.
			q, err := packet.ParseQuote(p.Quoted)
			if err != nil || q.Src.Port() != port || q.Dst != r.spec.Remote || quotedLength(p.Quoted) < len(sent) || icmp != nil {
				continue
			}
			icmp = &measure.ICMP{From: p.Src.String(), Type: int(p.Type), Code: int(p.Code), AtUS: r.log.Since(c.At), ASN: r.log.ASN(p.Src.String()), Quoted: compare(p.Quoted, sent)}
		case p.Proto == packet.TCP && p.DstPort == port && (len(p.Payload) > 0 || p.Flags&(packet.RST|packet.FIN) != 0):
			if ttl == 0 && netip.AddrPortFrom(p.Src, p.SrcPort) == r.spec.Remote {
				ttl = int(p.TTL)
			}
		}
	}
	return ttl, icmp
}

// quotedLength is the length of a quoted packet as its own header has it.
func quotedLength(b []byte) int {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return int(binary.BigEndian.Uint16(b[2:]))
	case len(b) >= 40 && b[0]>>4 == 6:
		return 40 + int(binary.BigEndian.Uint16(b[4:]))
	}
	return 0
}

// listen adds what was overheard of the present probe. After a reaction the
// router's word is waited for.
func (s *sweeping) listen(ctx context.Context, reacted bool) {
	r := s.r
	if r.capture == nil {
		return
	}
	for {
		ttl, icmp := r.overheard(s.port, s.sent.Add(-3*tick), s.bytes)
		p := s.now.Path
		p.Captured, p.ArrivedTTL = true, ttl
		if icmp != nil {
			s.icmp = icmp
		}
		if !reacted || icmp != nil || ctx.Err() != nil || s.now.TTL == 0 || s.now.TTL >= r.server || time.Since(s.sent) > r.reactionBy(s.now.TTL) {
			return
		}
		wire.Sleep(ctx, tick)
	}
}
