package lab

import (
	"encoding/binary"
	"net/netip"
	"time"

	"govah/lab/box"
	"govah/packet"
)

// behindNAT is the client's address in a home network.
var behindNAT = netip.AddrFrom4([4]byte{192, 168, 1, 77})

// nat44 is the translator of a home router. There is one device behind it, so
// ports stay as they are (RFC 4787, 4.2.1: port preservation).
type nat44 struct{ inner, outer netip.Addr }

// Handle implements box.Box.
func (n *nat44) Handle(d box.Direction, pkt []byte, _ time.Time, emit box.Emit) {
	p, err := packet.Parse(pkt)
	if err != nil || p.V6() {
		if err == nil {
			emit(d, pkt, 0)
		}
		return
	}
	from, to := n.inner, n.outer
	if d == box.In {
		from, to = n.outer, n.inner
	}
	if p.IsICMPError() && len(p.Quoted) >= 20 && p.Quoted[0]>>4 == 4 {
		// The quoted packet went the other way (RFC 5508, 4.2).
		side := 12
		if d == box.Out {
			side = 16
		}
		if q := p.Quoted; netip.AddrFrom4([4]byte(q[side:side+4])) == from {
			a := to.As4()
			copy(q[side:], a[:])
			sumIPv4(q)
		}
	}
	var ends [2]netip.AddrPort
	switch {
	case d == box.Out && p.Src == from:
		ends[0] = netip.AddrPortFrom(to, p.SrcPort)
	case d == box.In && p.Dst == from:
		ends[1] = netip.AddrPortFrom(to, p.DstPort)
	}
	if packet.RewriteInPlace(p.Raw, ends[0], ends[1]) != nil {
		return
	}
	if p.IsICMPError() && packet.FixChecksums(p.Raw) != nil {
		return
	}
	emit(d, p.Raw, 0)
}

// sumIPv4 renews the checksum of an IPv4 header, also of a quoted packet that
// is cut off.
func sumIPv4(b []byte) {
	n := min(int(b[0]&15)*4, len(b))
	b[10], b[11] = 0, 0
	s := uint32(0)
	for i := 0; i+1 < n; i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(s))
}

var nat64Prefix = netip.MustParsePrefix("64:ff9b::/96")

// nat64Of is the translated form of an IPv4 address (RFC 6052).
func nat64Of(a netip.Addr) netip.Addr {
	b, v4 := nat64Prefix.Addr().As16(), a.As4()
	copy(b[12:], v4[:])
	return netip.AddrFrom16(b)
}

// nat64Inner is the IPv4 address that a translated one stands for.
func nat64Inner(a netip.Addr) netip.Addr {
	if !nat64Prefix.Contains(a) {
		return a
	}
	b := a.As16()
	return netip.AddrFrom4([4]byte(b[12:]))
}

// nat64 translates between an IPv6-only line and IPv4 servers (RFC 6146, with
// the header translation of RFC 7915). There is one client, so ports stay.
type nat64 struct{ v6, v4 netip.Addr }

// Handle implements box.Box.
func (n *nat64) Handle(d box.Direction, pkt []byte, _ time.Time, emit box.Emit) {
	p, err := packet.Parse(pkt)
	switch {
	case err != nil:
	case d == box.Out && nat64Prefix.Contains(p.Dst):
		if b := n.to4(&p); b != nil {
			emit(d, b, 0)
		}
	case d == box.In && p.Dst == n.v4:
		if b := n.to6(&p); b != nil {
			emit(d, b, 0)
		}
	case p.V6():
		emit(d, p.Raw, 0)
	}
}

const headers6 = 40

// to4 translates TCP and UDP from the client.
func (n *nat64) to4(p *packet.Packet) []byte {
	if p.Proto != packet.TCP && p.Proto != packet.UDP || p.Raw[6] != p.Proto || p.Fragment {
		return nil
	}
	body := p.Raw[headers6:]
	b := make([]byte, 20+len(body))
	b[0], b[8], b[9] = 0x45, p.TTL, p.Proto
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	if len(b) > 1260 {
		b[6] = 0x40 // DF (RFC 7915, 5.1)
	}
	src, dst := n.v4.As4(), nat64Inner(p.Dst).As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	copy(b[20:], body)
	if packet.FixChecksums(b) != nil {
		return nil
	}
	return b
}

// to6 translates TCP, UDP and ICMP errors towards the client.
func (n *nat64) to6(p *packet.Packet) []byte {
	ihl := int(p.Raw[0]&15) * 4
	var b []byte
	switch {
	case p.Fragment:
		return nil
	case p.Proto == packet.TCP || p.Proto == packet.UDP:
		b = header6(nat64Of(p.Src), n.v6, p.Proto, p.TTL, p.Raw[ihl:])
	case p.IsICMPError():
		typ, code, ok := icmp6(p.Type, p.Code)
		q := p.Quoted
		if !ok || len(q) < 28 || q[0]>>4 != 4 {
			return nil
		}
		qhl := int(q[0]&15) * 4
		if qhl < 20 || len(q) < qhl+8 {
			return nil
		}
		quoted := header6(n.v6, nat64Of(netip.AddrFrom4([4]byte(q[16:20]))), q[9], q[8], q[qhl:])
		binary.BigEndian.PutUint16(quoted[4:], uint16(max(0, int(binary.BigEndian.Uint16(q[2:]))-qhl)))
		body := make([]byte, 8, 8+len(quoted))
		body[0], body[1] = typ, code
		if typ == packet.PacketTooBig6 {
			binary.BigEndian.PutUint32(body[4:], uint32(binary.BigEndian.Uint16(p.Raw[ihl+6:]))+headers6-20)
		}
		b = header6(nat64Of(p.Src), n.v6, packet.ICMPv6, p.TTL, append(body, quoted...))
	default:
		return nil
	}
	if packet.FixChecksums(b) != nil {
		return nil
	}
	return b
}

func header6(src, dst netip.Addr, proto, ttl uint8, body []byte) []byte {
	b := make([]byte, headers6+len(body))
	b[0], b[6], b[7] = 0x60, proto, ttl
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	s, d := src.As16(), dst.As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	copy(b[headers6:], body)
	return b
}

// icmp6 is the ICMPv6 error for one of ICMPv4 (RFC 7915, 4.2).
func icmp6(typ, code uint8) (uint8, uint8, bool) {
	switch {
	case typ == packet.TimeExceeded4:
		return packet.TimeExceeded6, code, true
	case typ != packet.Unreachable4:
		return 0, 0, false
	case code == 3:
		return packet.Unreachable6, 4, true
	case code == packet.FragNeededCode4:
		return packet.PacketTooBig6, 0, true
	case code == 9 || code == 10 || code == 13 || code == 15:
		return packet.Unreachable6, 1, true
	case code == 2 || code == 14:
		return 0, 0, false
	}
	return packet.Unreachable6, 0, true
}
