package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Segment describes a TCP segment to build. TTL 0 is 64.
type Segment struct {
	Src, Dst netip.AddrPort
	Seq, Ack uint32
	Flags    uint8
	Window   uint16
	TTL      uint8
	ID       uint16
	DF       bool
	Options  []byte // padded to a multiple of four by the caller
	Payload  []byte
}

// header makes the IP header for a transport of n bytes and returns the whole
// buffer and the transport's part of it.
func header(src, dst netip.Addr, proto, ttl uint8, id uint16, df bool, n int) (all, l4 []byte) {
	if ttl == 0 {
		ttl = 64
	}
	if src.Is4() {
		b := make([]byte, 20+n)
		b[0] = 0x45
		binary.BigEndian.PutUint16(b[2:], uint16(20+n))
		binary.BigEndian.PutUint16(b[4:], id)
		if df {
			b[6] = 0x40
		}
		b[8], b[9] = ttl, proto
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		return b, b[20:]
	}
	b := make([]byte, 40+n)
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(n))
	b[6], b[7] = proto, ttl
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return b, b[40:]
}

// BuildTCP makes a raw IP packet with valid checksums.
func BuildTCP(s Segment) []byte {
	n := 20 + len(s.Options) + len(s.Payload)
	b, t := header(s.Src.Addr(), s.Dst.Addr(), TCP, s.TTL, s.ID, s.DF, n)
	binary.BigEndian.PutUint16(t, s.Src.Port())
	binary.BigEndian.PutUint16(t[2:], s.Dst.Port())
	binary.BigEndian.PutUint32(t[4:], s.Seq)
	binary.BigEndian.PutUint32(t[8:], s.Ack)
	t[12] = uint8((20 + len(s.Options)) / 4 << 4)
	t[13] = s.Flags
	binary.BigEndian.PutUint16(t[14:], s.Window)
	copy(t[20:], s.Options)
	copy(t[20+len(s.Options):], s.Payload)
	FixChecksums(b)
	return b
}

// BuildUDP makes a raw IP packet with valid checksums.
func BuildUDP(src, dst netip.AddrPort, ttl uint8, id uint16, payload []byte) []byte {
	n := 8 + len(payload)
	b, t := header(src.Addr(), dst.Addr(), UDP, ttl, id, false, n)
	binary.BigEndian.PutUint16(t, src.Port())
	binary.BigEndian.PutUint16(t[2:], dst.Port())
	binary.BigEndian.PutUint16(t[4:], uint16(n))
	copy(t[8:], payload)
	FixChecksums(b)
	return b
}

// ICMPKind is an ICMP error in the terms of both families.
type ICMPKind int

// The kinds of ICMP error.
const (
	TimeExceeded ICMPKind = iota
	NetUnreachable
	HostUnreachable
	PortUnreachable
	AdminProhibited
	TooBig
)

// BuildICMPError makes the error that a router or host at from sends to the
// source of the offending packet, quoting as much of it as RFC 1812 and RFC
// 4443 allow. mtu is for TooBig alone.
func BuildICMPError(kind ICMPKind, from netip.Addr, offending []byte, mtu int) ([]byte, error) {
	p, err := Parse(offending)
	if err != nil && p.Raw == nil {
		return nil, err
	}
	// Never about an error, a later fragment, or towards no single host
	// (RFC 1122 3.2.2, RFC 4443 2.4).
	if p.IsICMPError() || errors.Is(err, ErrFragment) || p.Src.IsUnspecified() || p.Src.IsMulticast() || p.Src == broadcast {
		return nil, errNoError
	}
	var typ, code uint8
	proto, limit := uint8(ICMP), 576-20-8
	if p.v6 {
		proto, limit = ICMPv6, 1280-40-8
		switch kind {
		case TimeExceeded:
			typ = TimeExceeded6
		case TooBig:
			typ = PacketTooBig6
		case NetUnreachable:
			typ, code = Unreachable6, 0
		case AdminProhibited:
			typ, code = Unreachable6, 1
		case HostUnreachable:
			typ, code = Unreachable6, 3
		case PortUnreachable:
			typ, code = Unreachable6, 4
		}
	} else {
		switch kind {
		case TimeExceeded:
			typ = TimeExceeded4
		case NetUnreachable:
			typ, code = Unreachable4, 0
		case HostUnreachable:
			typ, code = Unreachable4, 1
		case PortUnreachable:
			typ, code = Unreachable4, 3
		case TooBig:
			typ, code = Unreachable4, FragNeededCode4
		case AdminProhibited:
			typ, code = Unreachable4, 13
		}
	}
	quote := p.Raw
	if len(quote) > limit {
		quote = quote[:limit]
	}
	b, t := header(from, p.Src, proto, 64, 0, false, 8+len(quote))
	t[0], t[1] = typ, code
	if kind == TooBig {
		if p.v6 {
			binary.BigEndian.PutUint32(t[4:], uint32(mtu))
		} else {
			binary.BigEndian.PutUint16(t[6:], uint16(mtu))
		}
	}
	copy(t[8:], quote)
	FixChecksums(b)
	return b, nil
}

var (
	errNoError = errors.New("packet: no ICMP error may be sent about this packet")
	errNotTCP  = errors.New("packet: not a TCP segment")
	errFamily  = errors.New("packet: the new address is of the other family")
	broadcast  = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// Rewrite gives a copy of a TCP or UDP packet with other endpoints; an invalid
// AddrPort leaves that side as it is. Both addresses must be of the packet's
// own family.
func Rewrite(b []byte, src, dst netip.AddrPort) ([]byte, error) {
	p, err := Parse(b)
	if err != nil {
		return nil, err
	}
	out := append([]byte(nil), p.Raw...)
	if err := RewriteInPlace(out, src, dst); err != nil {
		return nil, err
	}
	return out, nil
}

// RewriteInPlace is Rewrite without the copy. Checksums are updated from the
// difference alone (RFC 1624), so that a wrong one stays wrong.
func RewriteInPlace(b []byte, src, dst netip.AddrPort) error {
	p, err := Parse(b)
	if err != nil {
		return err
	}
	at, n := 12, 4
	if p.v6 {
		at, n = 8, 16
	}
	ports := p.Proto == TCP || p.Proto == UDP
	var addrs, all uint32 // changes of the sums over addresses, and ports too
	set := func(side int, ap netip.AddrPort) error {
		if !ap.IsValid() {
			return nil
		}
		if ap.Addr().Is4() == p.v6 {
			return errFamily
		}
		a := b[at+side*n : at+side*n+n]
		addrs += uint32(fold(sum(a, 0)))
		if p.v6 {
			v := ap.Addr().As16()
			copy(a, v[:])
		} else {
			v := ap.Addr().As4()
			copy(a, v[:])
		}
		addrs += uint32(^fold(sum(a, 0)))
		if ports {
			t := b[p.l4+2*side:]
			all += uint32(^binary.BigEndian.Uint16(t)) + uint32(ap.Port())
			binary.BigEndian.PutUint16(t, ap.Port())
		}
		return nil
	}
	if err := set(0, src); err != nil {
		return err
	}
	if err := set(1, dst); err != nil {
		return err
	}
	all += addrs
	update := func(c []byte, change uint32) {
		binary.BigEndian.PutUint16(c, fold(uint32(^binary.BigEndian.Uint16(c))+change))
	}
	if !p.v6 {
		update(b[10:], addrs)
	}
	switch c := b[p.l4:]; p.Proto {
	case TCP:
		update(c[16:], all)
	case UDP:
		if c[6] == 0 && c[7] == 0 { // the sender made none
			break
		}
		update(c[6:], all)
		if c[6] == 0 && c[7] == 0 {
			c[6], c[7] = 0xff, 0xff
		}
	case ICMPv6:
		update(c[2:], addrs)
	}
	return nil
}

// Reply gives a segment's answer skeleton: endpoints swapped, sequence numbers
// as the other side expects them.
func (p *Packet) Reply() Segment {
	n := uint32(len(p.Payload))
	if p.Flags&(SYN|FIN) != 0 {
		n++
	}
	return Segment{Src: p.Destination(), Dst: p.Source(), Seq: p.Ack, Ack: p.Seq + n}
}

// Renumber changes the sequence and acknowledgement numbers of a TCP segment
// in place. edge, if not nil, maps the edges of its SACK blocks (RFC 2018).
func Renumber(b []byte, seq, ack uint32, edge func(uint32) uint32) error {
	p, err := Parse(b)
	if err != nil {
		return err
	}
	if p.Proto != TCP {
		return errNotTCP
	}
	t := p.Raw[p.l4:]
	binary.BigEndian.PutUint32(t[4:], seq)
	binary.BigEndian.PutUint32(t[8:], ack)
	for o := p.Options; edge != nil && len(o) > 1 && o[0] != 0; {
		if o[0] == 1 {
			o = o[1:]
			continue
		}
		n := int(o[1])
		if n < 2 || n > len(o) {
			break
		}
		if o[0] == 5 {
			for at := 2; at+4 <= n; at += 4 {
				binary.BigEndian.PutUint32(o[at:], edge(binary.BigEndian.Uint32(o[at:])))
			}
		}
		o = o[n:]
	}
	return FixChecksums(b)
}
