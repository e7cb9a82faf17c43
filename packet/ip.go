// Package packet turns bytes into headers and headers into bytes: IPv4, IPv6,
// TCP, UDP, ICMP, TLS ClientHellos, QUIC Initials and HTTP request heads, and
// reads and writes pcapng. What arrives is never trusted: every length is
// checked, and a parser that fails says so and does not panic.
package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// The IP protocol numbers that are understood.
const (
	ICMP   = 1
	TCP    = 6
	UDP    = 17
	ICMPv6 = 58
)

// TCP flags.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

var (
	errShort   = errors.New("packet: truncated")
	errVersion = errors.New("packet: neither IPv4 nor IPv6")
)

// ErrFragment says that a packet is a later fragment, so that only the fields
// of its IP header are set.
var ErrFragment = errors.New("packet: a later fragment has no transport header")

// Packet is a parsed view of one raw IP packet (no link layer). Its slices
// point into the bytes it was parsed from.
type Packet struct {
	Raw      []byte // exactly the IP packet
	Src, Dst netip.Addr
	Proto    uint8 // of the transport, after IPv6 extension headers
	TTL      uint8
	ID       uint16 // IPv4 only
	DF       bool
	Fragment bool // a part of a larger packet; of all but the first, Parse says ErrFragment
	v6       bool
	l4       int // offset of the transport header

	SrcPort, DstPort uint16 // TCP and UDP
	Seq, Ack         uint32
	Flags            uint8
	Window           uint16
	Options          []byte // TCP's
	Payload          []byte // of TCP or UDP
	Type, Code       uint8  // ICMP
	Quoted           []byte // the packet that an ICMP error quotes
}

// V6 says whether it is IPv6.
func (p *Packet) V6() bool { return p.v6 }

// Source and Destination are address and port.
func (p *Packet) Source() netip.AddrPort      { return netip.AddrPortFrom(p.Src, p.SrcPort) }
func (p *Packet) Destination() netip.AddrPort { return netip.AddrPortFrom(p.Dst, p.DstPort) }

// Parse reads one IP packet. Bytes after its own length are ignored.
func Parse(b []byte) (Packet, error) {
	var p Packet
	if len(b) < 20 {
		return p, errShort
	}
	switch b[0] >> 4 {
	case 4:
		ihl := int(b[0]&15) * 4
		total := int(binary.BigEndian.Uint16(b[2:]))
		if ihl < 20 || total < ihl || total > len(b) {
			return p, errShort
		}
		p.Raw = b[:total]
		p.ID = binary.BigEndian.Uint16(b[4:])
		frag := binary.BigEndian.Uint16(b[6:])
		p.DF = frag&0x4000 != 0
		p.TTL, p.Proto = b[8], b[9]
		p.Src, p.Dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		p.l4 = ihl
		p.Fragment = frag&0x3fff != 0
		if frag&0x1fff != 0 {
			return p, ErrFragment
		}
	case 6:
		if len(b) < 40 {
			return p, errShort
		}
		total := 40 + int(binary.BigEndian.Uint16(b[4:]))
		if total > len(b) {
			return p, errShort
		}
		p.Raw, p.v6 = b[:total], true
		p.TTL, p.Proto = b[7], b[6]
		p.Src, p.Dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		p.l4 = 40
		for p.Proto == 0 || p.Proto == 43 || p.Proto == 60 || p.Proto == 44 {
			if p.l4+8 > total {
				return p, errShort
			}
			h := p.Raw[p.l4:]
			if p.Proto == 44 {
				p.Fragment = binary.BigEndian.Uint16(h[2:])&0xfff9 != 0
				if binary.BigEndian.Uint16(h[2:])&0xfff8 != 0 {
					return p, ErrFragment
				}
				p.Proto, p.l4 = h[0], p.l4+8
				continue
			}
			p.Proto, p.l4 = h[0], p.l4+(int(h[1])+1)*8
			if p.l4 > total {
				return p, errShort
			}
		}
	default:
		return p, errVersion
	}
	return p, p.transport()
}

func (p *Packet) transport() error {
	t := p.Raw[p.l4:]
	switch p.Proto {
	case TCP:
		if len(t) < 20 {
			return errShort
		}
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
		p.Seq, p.Ack = binary.BigEndian.Uint32(t[4:]), binary.BigEndian.Uint32(t[8:])
		off := int(t[12]>>4) * 4
		if off < 20 || off > len(t) {
			return errShort
		}
		p.Flags, p.Window = t[13], binary.BigEndian.Uint16(t[14:])
		p.Options, p.Payload = t[20:off], t[off:]
	case UDP:
		if len(t) < 8 {
			return errShort
		}
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
		n := int(binary.BigEndian.Uint16(t[4:]))
		if n < 8 || n > len(t) {
			return errShort
		}
		p.Payload = t[8:n]
	case ICMP, ICMPv6:
		if len(t) < 8 {
			return errShort
		}
		p.Type, p.Code = t[0], t[1]
		if p.IsICMPError() {
			p.Quoted = t[8:]
		}
	}
	return nil
}

// TCPOptions are the options that devices on a path look at (RFC 9293 3.1,
// RFC 7323, RFC 2018).
type TCPOptions struct {
	MSS           uint16 // 0: not given
	SACKPermitted bool
	Scaled        bool // WindowScale was given
	WindowScale   uint8
	Timestamps    bool
	TSVal, TSEcr  uint32
}

// ParseTCPOptions reads the option bytes of a TCP header. It stops at the
// first one that is malformed.
func ParseTCPOptions(b []byte) TCPOptions {
	var o TCPOptions
	for len(b) > 0 {
		switch b[0] {
		case 0:
			return o
		case 1:
			b = b[1:]
			continue
		}
		if len(b) < 2 || int(b[1]) < 2 || int(b[1]) > len(b) {
			return o
		}
		v := b[2:b[1]]
		switch {
		case b[0] == 2 && len(v) == 2:
			o.MSS = binary.BigEndian.Uint16(v)
		case b[0] == 3 && len(v) == 1:
			o.Scaled, o.WindowScale = true, v[0]
		case b[0] == 4 && len(v) == 0:
			o.SACKPermitted = true
		case b[0] == 8 && len(v) == 8:
			o.Timestamps, o.TSVal, o.TSEcr = true, binary.BigEndian.Uint32(v), binary.BigEndian.Uint32(v[4:])
		}
		b = b[b[1]:]
	}
	return o
}

// Marshal gives the option bytes, padded to a multiple of four.
func (o TCPOptions) Marshal() []byte {
	var b []byte
	if o.MSS != 0 {
		b = append(b, 2, 4, byte(o.MSS>>8), byte(o.MSS))
	}
	if o.SACKPermitted {
		b = append(b, 4, 2)
	}
	if o.Timestamps {
		b = append(b, 8, 10)
		b = binary.BigEndian.AppendUint32(b, o.TSVal)
		b = binary.BigEndian.AppendUint32(b, o.TSEcr)
	}
	if o.Scaled {
		b = append(b, 3, 3, o.WindowScale)
	}
	for len(b)%4 != 0 {
		b = append(b, 1)
	}
	return b
}

// ICMP types.
const (
	Unreachable4    = 3
	Redirect4       = 5
	TimeExceeded4   = 11
	Unreachable6    = 1
	PacketTooBig6   = 2
	TimeExceeded6   = 3
	ParamProblem6   = 4
	FragNeededCode4 = 4
)

// IsICMPError says whether it is an ICMP error, which quotes a packet.
func (p *Packet) IsICMPError() bool {
	switch p.Proto {
	case ICMP:
		return p.Type == Unreachable4 || p.Type == TimeExceeded4 || p.Type == Redirect4 || p.Type == 12
	case ICMPv6:
		return p.Type >= 1 && p.Type <= 4
	}
	return false
}

// Quote is the flow of a packet that an ICMP error quotes. A quote may be cut
// off after eight bytes of the transport header (RFC 792).
type Quote struct {
	Src, Dst netip.AddrPort
	Proto    uint8
	Seq      uint32
}

// ParseQuote reads the quoted packet of an ICMP error.
func ParseQuote(b []byte) (Quote, error) {
	var q Quote
	if len(b) < 20 {
		return q, errShort
	}
	off := 0
	var src, dst netip.Addr
	switch b[0] >> 4 {
	case 4:
		off = int(b[0]&15) * 4
		q.Proto = b[9]
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	case 6:
		if len(b) < 40 {
			return q, errShort
		}
		off, q.Proto = 40, b[6]
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	default:
		return q, errVersion
	}
	if off < 20 || len(b) < off+8 {
		return q, errShort
	}
	q.Src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b[off:]))
	q.Dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[off+2:]))
	q.Seq = binary.BigEndian.Uint32(b[off+4:])
	return q, nil
}

// sum is the ones' complement sum of RFC 1071, not folded: eight bytes at a
// time, because a byte order and a word size do not matter to it.
func sum(b []byte, s uint32) uint32 {
	acc := uint64(s)
	for len(b) >= 8 {
		v := binary.BigEndian.Uint64(b)
		acc += v>>32 + v&0xffffffff
		b = b[8:]
	}
	for len(b) >= 2 {
		acc += uint64(b[0])<<8 | uint64(b[1])
		b = b[2:]
	}
	if len(b) == 1 {
		acc += uint64(b[0]) << 8
	}
	for acc > 0xffffffff {
		acc = acc&0xffffffff + acc>>32
	}
	return uint32(acc)
}

func fold(s uint32) uint16 {
	s = s&0xffff + s>>16
	s = s&0xffff + s>>16
	return ^uint16(s)
}

func pseudo(src, dst netip.Addr, proto uint8, n int) uint32 {
	s := uint32(proto) + uint32(n)
	if src.Is4() {
		a, b := src.As4(), dst.As4()
		return sum(b[:], sum(a[:], s))
	}
	a, b := src.As16(), dst.As16()
	return sum(b[:], sum(a[:], s))
}

// FixChecksums recomputes the header and transport checksums of a packet in
// place, after its fields were changed.
func FixChecksums(b []byte) error {
	p, err := Parse(b)
	if err != nil {
		return err
	}
	if !p.v6 {
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], fold(sum(b[:p.l4], 0)))
	}
	if p.Fragment {
		return nil // the transport's checksum covers bytes that are not here
	}
	t := p.Raw[p.l4:]
	at := 0
	switch p.Proto {
	case TCP:
		at = 16
	case UDP:
		t, at = t[:8+len(p.Payload)], 6
	case ICMP:
		t[2], t[3] = 0, 0
		binary.BigEndian.PutUint16(t[2:], fold(sum(t, 0)))
		return nil
	case ICMPv6:
		at = 2
	default:
		return nil
	}
	t[at], t[at+1] = 0, 0
	c := fold(sum(t, pseudo(p.Src, p.Dst, p.Proto, len(t))))
	if p.Proto == UDP && c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(t[at:], c)
	return nil
}

// DecrementTTL lowers the TTL or hop limit in place, with the incremental
// checksum of RFC 1624. It returns the new value; the packet must not be sent
// on when it is 0.
func DecrementTTL(b []byte) (uint8, error) {
	if len(b) < 20 {
		return 0, errShort
	}
	switch b[0] >> 4 {
	case 4:
		if b[8] == 0 {
			return 0, nil
		}
		old := uint32(b[8])<<8 | uint32(b[9])
		b[8]--
		upd := uint32(b[8])<<8 | uint32(b[9])
		s := uint32(^binary.BigEndian.Uint16(b[10:])) + (^old & 0xffff) + upd
		binary.BigEndian.PutUint16(b[10:], fold(s))
		return b[8], nil
	case 6:
		if len(b) < 40 {
			return 0, errShort
		}
		if b[7] == 0 {
			return 0, nil
		}
		b[7]--
		return b[7], nil
	}
	return 0, errVersion
}

// SetID gives an IPv4 packet an identification in place, with the incremental
// checksum of RFC 1624.
func SetID(b []byte, id uint16) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return
	}
	old := binary.BigEndian.Uint16(b[4:])
	s := uint32(^binary.BigEndian.Uint16(b[10:])) + uint32(^old) + uint32(id)
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[10:], fold(s))
}
