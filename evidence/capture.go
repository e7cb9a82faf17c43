package evidence

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"govah/packet"
)

// side says which end of a packet this device is.
type side int

const (
	eitherSide side = iota // not known: both are treated as this device's
	sender
	receiver
)

// strip is a part of a capture and the class of each of its bytes.
type strip struct {
	b []byte
	c []Class
}

func (s strip) from(n int) strip { return s.part(n, len(s.b)) }

// part is [from, to) as far as it is there.
func (s strip) part(from, to int) strip {
	to = min(max(to, 0), len(s.b))
	from = min(max(from, 0), to)
	return strip{s.b[from:to], s.c[from:to]}
}

func (s strip) paint(c Class) {
	for i := range s.c {
		s.c[i] = c
	}
}

// Captured cuts a pcapng file into segments: addresses and ports, whatever is
// computed from them (checksums), what a device can be known by (sequence
// numbers, TCP timestamps, flow labels), times, what packets carry, the same
// in what ICMP errors quote. own are the addresses of this device, for packets
// of which the file does not say the direction. Bytes that are not understood
// are of class Rendering, which is withheld whenever anything is.
func Captured(name string, file []byte, own []netip.Addr) (File, error) {
	f := File{Name: name, Kind: Binary, Data: file, Size: uint32(len(file))}
	s := strip{file, make([]Class, len(file))}
	s.paint(Rendering)
	if err := s.blocks(own); err != nil {
		return f, err
	}
	for at := 0; at < len(file); {
		to := at + 1
		for to < len(file) && s.c[to] == s.c[at] {
			to++
		}
		f.Segments = append(f.Segments, Segment{s.c[at], to - at})
		at = to
	}
	return f, nil
}

// blocks paints a pcapng file (draft-ietf-opsawg-pcapng) up to where it is
// damaged.
func (s strip) blocks(own []netip.Addr) error {
	const section = 0x0a0d0d0a
	if len(s.b) < 12 || binary.LittleEndian.Uint32(s.b) != section {
		return fmt.Errorf("it is no pcapng file")
	}
	var order binary.ByteOrder = binary.LittleEndian
	var links []uint32
	for len(s.b) >= 12 {
		typ := order.Uint32(s.b)
		if typ == section {
			switch binary.LittleEndian.Uint32(s.b[8:]) {
			case 0x1a2b3c4d:
				order = binary.LittleEndian
			case 0x4d3c2b1a:
				order = binary.BigEndian
			default:
				return nil
			}
			links = nil
		}
		n := order.Uint32(s.b[4:])
		if n < 12 || n%4 != 0 || int64(n) > int64(len(s.b)) || order.Uint32(s.b[n-4:]) != n {
			return nil
		}
		s.part(0, 8).paint(None)
		s.part(int(n)-4, int(n)).paint(None)
		body := s.part(8, int(n)-4)
		switch typ {
		case section:
			body.part(0, 16).paint(None)
			body.from(16).options(order, Client)
		case 1: // an interface
			if len(body.b) >= 8 {
				links = append(links, uint32(order.Uint16(body.b)))
			}
			body.part(0, 8).paint(None)
			body.from(8).options(order, NetworkName)
		case 5: // statistics
			body.part(0, 4).paint(None)
			body.part(4, 12).paint(Time)
			body.from(12).options(order, Time)
		case 6: // a packet
			if len(body.b) < 20 {
				break
			}
			have := int64(order.Uint32(body.b[12:]))
			if have > int64(len(body.b)-20) {
				break
			}
			body.part(0, 4).paint(None)
			body.part(4, 12).paint(Time)
			body.part(12, 20).paint(None)
			end := 20 + int(have)
			pad := (end + 3) &^ 3
			if zero(body.part(end, pad).b) {
				body.part(end, pad).paint(None)
			}
			way := body.from(pad).options(order, Rendering) // some are hashes of the packet
			if id := order.Uint32(body.b); int64(id) < int64(len(links)) {
				body.part(20, end).frame(links[id], way, own)
			}
		}
		s = s.from(int(n))
	}
	return nil
}

// options paints the options of a block: their values in a class, except what
// is about the file itself. It tells the direction that epb_flags give.
func (s strip) options(order binary.ByteOrder, c Class) side {
	way := eitherSide
	for len(s.b) >= 4 {
		code, n := order.Uint16(s.b), int(order.Uint16(s.b[2:]))
		if 4+n > len(s.b) {
			return way
		}
		pad := min((4+n+3)&^3, len(s.b))
		s.part(0, 4).paint(None)
		if zero(s.part(4+n, pad).b) {
			s.part(4+n, pad).paint(None)
		}
		value := s.part(4, 4+n)
		value.paint(c)
		switch {
		case code == 0:
			return way
		case code == 1: // a comment may say anything
			value.paint(Foreign)
		case c == Rendering && code == 2 && n == 4: // epb_flags
			way = []side{eitherSide, receiver, sender, eitherSide}[order.Uint32(value.b)&3]
			value.paint(None)
		case c == NetworkName && (code == 9 || code == 14): // how times are counted
			value.paint(None)
		case c == Time && code >= 4: // counts of packets
			value.paint(None)
		}
		s = s.from(pad)
	}
	return way
}

// frame paints a captured frame (tcpdump.org/linktypes.html).
func (s strip) frame(link uint32, way side, own []netip.Addr) {
	at, kind, macs := 0, -1, 0
	switch link {
	case 101, 12, 14, 228, 229:
	case 0, 108:
		at = 4
	case 1:
		at, kind, macs = 14, 12, 12
	case 113:
		at, kind, macs = 16, 14, 14
	case 276:
		at, kind, macs = 20, 0, 20
	default:
		return
	}
	if len(s.b) < at {
		return
	}
	s.part(0, at).paint(None)
	s.part(0, macs).paint(NetworkName)
	if kind >= 0 {
		s.part(kind, kind+2).paint(None)
		for typ := binary.BigEndian.Uint16(s.b[kind:]); (typ == 0x8100 || typ == 0x88a8) && len(s.b) >= at+4; at += 4 {
			s.part(at, at+4).paint(None)
			typ = binary.BigEndian.Uint16(s.b[at+2:])
		}
	}
	s.from(at).ip(way, own)
}

// ends paints the two addresses of a packet, and gives the side of this
// device. Beyond it stands what was measured, or a router or resolver.
func (s strip) ends(from, size int, way side, own []netip.Addr, beyond Class) side {
	if len(s.b) < from+2*size {
		s.from(from).paint(Client) // what there is of them
		return eitherSide
	}
	src, dst := s.part(from, from+size), s.part(from+size, from+2*size)
	if way == eitherSide {
		a, _ := netip.AddrFromSlice(src.b)
		b, _ := netip.AddrFromSlice(dst.b)
		switch mine, theirs := slices.Contains(own, a), slices.Contains(own, b); {
		case mine && !theirs:
			way = sender
		case theirs && !mine:
			way = receiver
		}
	}
	src.paint(Client)
	dst.paint(Client)
	same := bytes.Equal(src.b, dst.b)
	if way == sender && !same {
		dst.paint(beyond)
	} else if way == receiver && !same {
		src.paint(beyond)
	}
	return way
}

// ip paints an IP packet, of which the end may be missing, as in the quote of
// an ICMP error.
func (s strip) ip(way side, own []netip.Addr) {
	if len(s.b) < 20 {
		return
	}
	switch s.b[0] >> 4 {
	case 4:
		head, total := int(s.b[0]&15)*4, int(binary.BigEndian.Uint16(s.b[2:]))
		if head < 20 || total < head {
			return
		}
		s.part(0, 10).paint(None)
		proto := s.b[9]
		t := s.part(head, total)
		way = s.ends(12, 4, way, own, t.beyond(proto))
		if way != receiver {
			s.part(4, 6).paint(Client) // the identification counts in some systems
		}
		// The checksum and options stay as they are: of everything.
		if binary.BigEndian.Uint16(s.b[6:])&0x1fff != 0 {
			return // a later fragment may begin anywhere
		}
		t.transport(proto, way)
	case 6:
		if len(s.b) < 40 {
			return
		}
		s.part(0, 8).paint(None)
		s.part(1, 4).paint(Client) // the flow label, random for each flow
		total := 40 + int(binary.BigEndian.Uint16(s.b[4:]))
		proto, t := s.b[6], s.part(40, total)
		for proto == 0 || proto == 43 || proto == 60 || proto == 44 {
			if len(t.b) < 8 {
				break
			}
			n := (int(t.b[1]) + 1) * 8
			if proto == 44 {
				if binary.BigEndian.Uint16(t.b[2:])&0xfff8 != 0 {
					s.ends(8, 16, way, own, Target)
					return
				}
				n = 8
			}
			if n > len(t.b) {
				break
			}
			t.part(0, 2).paint(None)
			proto, t = t.b[0], t.from(n)
		}
		way = s.ends(8, 16, way, own, t.beyond(proto))
		t.transport(proto, way)
	}
}

// beyond is the class of the other end's address.
func (s strip) beyond(proto uint8) Class {
	switch proto {
	case packet.ICMP, packet.ICMPv6:
		return Network
	case packet.TCP, packet.UDP:
		if len(s.b) >= 4 {
			for _, port := range []uint16{binary.BigEndian.Uint16(s.b), binary.BigEndian.Uint16(s.b[2:])} {
				if port == 53 || port == 853 {
					return Network
				}
			}
		}
	}
	return Target
}

// ports paints the two ports of TCP or UDP.
func (s strip) ports(way side) {
	s.part(0, 4).paint(Client)
	switch way {
	case sender:
		s.part(2, 4).paint(None)
	case receiver:
		s.part(0, 2).paint(None)
	}
}

// transport paints a transport header and what follows it. Checksums stay of
// class Rendering: they are of everything.
func (s strip) transport(proto uint8, way side) {
	switch proto {
	case packet.TCP:
		s.ports(way)
		s.part(4, 12).paint(Client) // sequence numbers: random for each connection
		s.part(12, 16).paint(None)
		s.part(18, 20).paint(None)
		if len(s.b) < 20 {
			return
		}
		head := int(s.b[12]>>4) * 4
		if head < 20 {
			return
		}
		s.part(20, head).tcpOptions()
		s.from(head).paint(Payload)
	case packet.UDP:
		s.ports(way)
		s.part(4, 6).paint(None)
		s.from(8).paint(Payload)
	case packet.ICMP, packet.ICMPv6:
		if len(s.b) < 8 {
			return
		}
		s.part(0, 2).paint(None)
		p := packet.Packet{Proto: proto, Type: s.b[0]}
		if !p.IsICMPError() {
			s.from(4).paint(Payload)
			return
		}
		if proto != packet.ICMP || s.b[0] != packet.Redirect4 { // there a gateway of the device's own network
			s.part(4, 8).paint(None)
		}
		// What is quoted went the other way.
		switch way {
		case sender:
			way = receiver
		case receiver:
			way = sender
		}
		s.from(8).quote(way)
	}
}

// quote paints what an ICMP error quotes.
func (s strip) quote(way side) {
	if len(s.b) < 20 {
		return
	}
	// A quote in a quote is not understood: it stays of everything.
	if v := s.b[0] >> 4; v == 4 && (s.b[9] == packet.ICMP) || v == 6 && s.b[6] == packet.ICMPv6 {
		return
	}
	s.ip(way, nil)
}

// tcpOptions paints the options of a TCP header. Those that are the same in
// every connection of a system stay open; timestamps, selective
// acknowledgements and cookies do not.
func (s strip) tcpOptions() {
	for len(s.b) > 0 {
		switch s.b[0] {
		case 0:
			if zero(s.b) {
				s.paint(None)
			}
			return
		case 1:
			s.part(0, 1).paint(None)
			s = s.from(1)
			continue
		}
		if len(s.b) < 2 || int(s.b[1]) < 2 || int(s.b[1]) > len(s.b) {
			return
		}
		n := int(s.b[1])
		s.part(0, 2).paint(None)
		switch s.b[0] {
		case 2, 3, 4: // segment size, window scale, that SACK is permitted
			s.part(2, n).paint(None)
		default:
			s.part(2, n).paint(Client)
		}
		s = s.from(n)
	}
}
