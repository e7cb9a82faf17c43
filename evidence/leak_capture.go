package evidence

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"govah/packet"
)

// capturedFrame is a packet in a capture: the bytes [at, end) from its IP
// header on, none if there is none.
type capturedFrame struct {
	at, end int
	from    int     // where the frame begins
	hashes  []Range // of it, that the file has
}

// framesOf finds the packets of a pcapng file
// (draft-ietf-opsawg-pcapng), as far as it is whole. ok is false of what is
// none.
func framesOf(b []byte) (frames []capturedFrame, ok bool) {
	const section = 0x0a0d0d0a
	if len(b) < 28 || binary.LittleEndian.Uint32(b) != section {
		return nil, false
	}
	var order binary.ByteOrder = binary.LittleEndian
	var links []uint32
	for at := 0; at+12 <= len(b); {
		typ := order.Uint32(b[at:])
		if typ == section {
			if order = binary.LittleEndian; binary.LittleEndian.Uint32(b[at+8:]) == 0x4d3c2b1a {
				order = binary.BigEndian
			}
			links = nil
		}
		n := int64(order.Uint32(b[at+4:]))
		if n < 12 || n > int64(len(b)-at) {
			break
		}
		body := b[at+8 : at+int(n)-4]
		switch {
		case typ == 1 && len(body) >= 8:
			links = append(links, uint32(order.Uint16(body)))
		case typ == 6 && len(body) >= 20:
			have, link := int64(order.Uint32(body[12:])), int64(order.Uint32(body))
			if have > int64(len(body)-20) {
				break
			}
			frame := body[20 : 20+have]
			f := capturedFrame{from: at + 28, at: at + 28 + len(frame), end: at + 28 + len(frame)}
			if link < int64(len(links)) {
				if skip := linkHead(links[link], frame); skip >= 0 {
					f.at = f.from + skip
				}
			}
			const hash = 3 // epb_hash
			for o := (20 + int(have) + 3) &^ 3; o+4 <= len(body); {
				code, n := order.Uint16(body[o:]), int(order.Uint16(body[o+2:]))
				if code == 0 || o+4+n > len(body) {
					break
				}
				if code == hash {
					f.hashes = append(f.hashes, Range{at + 8 + o + 4, at + 8 + o + 4 + n})
				}
				o += (4 + n + 3) &^ 3
			}
			frames = append(frames, f)
		}
		at += int(n)
	}
	return frames, true
}

// linkHead is how long the head of a link layer is (tcpdump.org/linktypes.html),
// -1 if no IP packet follows it.
func linkHead(link uint32, b []byte) int {
	at, kind := 0, -1
	switch link {
	case 101, 12, 14, 228, 229:
	case 0, 108:
		at = 4
	case 1:
		at, kind = 14, 12
	case 113:
		at, kind = 16, 14
	case 276:
		at, kind = 20, 0
	default:
		return -1
	}
	if len(b) < at {
		return -1
	}
	if kind >= 0 {
		typ := binary.BigEndian.Uint16(b[kind:])
		for (typ == 0x8100 || typ == 0x88a8) && len(b) >= at+4 {
			typ = binary.BigEndian.Uint16(b[at+2:])
			at += 4
		}
		if typ != 0x0800 && typ != 0x86dd {
			return -1
		}
	}
	return at
}

// headers are the places of what is of interest in a packet, or in the part
// of one that an ICMP error quotes.
type headers struct {
	at, end  int // of the packet in the document; end is where the bytes end
	v6       bool
	src, dst Range
	sum      Range // of IPv4's header, empty in IPv6
	l4       int   // where the transport begins, 0: none to be read
	total    int   // where the packet says that it ends; it may be cut off
	proto    uint8
	l4sum    Range
	icmp     bool // l4sum does not cover the addresses
	payload  int  // where it begins, 0: unknown
	stamps   Range
	seq      uint32
	flags    uint8
	from, to uint16 // ports
	quote    int    // where a quoted packet begins, 0: none
}

// headersOf reads the packet at b[at:end]. Everything is checked against end.
func headersOf(b []byte, at, end int) (h headers, ok bool) {
	h = headers{at: at, end: end}
	p := b[at:end]
	if len(p) < 20 {
		return h, false
	}
	fragment := false
	switch p[0] >> 4 {
	case 4:
		ihl := int(p[0]&15) * 4
		if ihl < 20 {
			return h, false
		}
		h.src, h.dst, h.sum = Range{at + 12, at + 16}, Range{at + 16, at + 20}, Range{at + 10, at + 12}
		h.proto, h.total = p[9], at+int(binary.BigEndian.Uint16(p[2:]))
		fragment = binary.BigEndian.Uint16(p[6:])&0x1fff != 0
		h.l4 = ihl
	case 6:
		if len(p) < 40 {
			return h, false
		}
		h.v6 = true
		h.src, h.dst = Range{at + 8, at + 24}, Range{at + 24, at + 40}
		h.proto, h.total = p[6], at+40+int(binary.BigEndian.Uint16(p[4:]))
		h.l4 = 40
		for h.proto == 0 || h.proto == 43 || h.proto == 60 || h.proto == 44 {
			if h.l4+8 > len(p) {
				h.l4 = 0
				return h, true
			}
			x := p[h.l4:]
			n := (int(x[1]) + 1) * 8
			if h.proto == 44 {
				n = 8
				fragment = binary.BigEndian.Uint16(x[2:])&0xfff8 != 0
			}
			h.proto, h.l4 = x[0], h.l4+n
		}
	default:
		return h, false
	}
	if h.total > at { // 0: left to the network card
		h.end = min(h.end, max(h.total, at+h.l4))
	}
	if fragment || h.l4+8 > h.end-at {
		h.l4 = 0
		return h, true
	}
	h.transport(b[at+h.l4:h.end], at+h.l4)
	h.l4 += at
	return h, true
}

func (h *headers) transport(t []byte, at int) {
	switch h.proto {
	case packet.TCP:
		h.from, h.to, h.seq = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:]), binary.BigEndian.Uint32(t[4:])
		if len(t) < 20 {
			if len(t) >= 18 {
				h.l4sum = Range{at + 16, at + 18}
			}
			return
		}
		h.l4sum, h.flags = Range{at + 16, at + 18}, t[13]
		off := int(t[12]>>4) * 4
		if off < 20 || off > len(t) {
			return
		}
		h.payload = at + off
		for o := 20; o+1 < off && t[o] != 0; {
			if t[o] == 1 {
				o++
				continue
			}
			n := int(t[o+1])
			if n < 2 || o+n > off {
				break
			}
			if t[o] == 8 && n == 10 {
				h.stamps = Range{at + o + 2, at + o + 10}
			}
			o += n
		}
	case packet.UDP:
		h.from, h.to = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
		h.l4sum, h.payload = Range{at + 6, at + 8}, at+8
	case packet.ICMP, packet.ICMPv6:
		h.l4sum, h.icmp = Range{at + 2, at + 4}, h.proto == packet.ICMP
		if e := (&packet.Packet{Proto: h.proto, Type: t[0]}); e.IsICMPError() {
			h.quote = at + 8
		} else {
			h.payload = at + 8
		}
	}
}

// hidden says whether a byte of the range is withheld.
func (s *Scanner) hidden(from, to int) bool {
	w := s.doc.Withheld
	i, _ := slices.BinarySearchFunc(w, from, func(r Range, at int) int {
		if r.To <= at {
			return -1
		}
		return 1
	})
	return i < len(w) && w[i].From < to
}

// chatty are the UDP ports on which a device tells its own names and address:
// DHCP, NetBIOS, SSDP, mDNS, LLMNR.
var chatty = []uint16{67, 68, 137, 138, 546, 547, 1900, 5353, 5355}

// capture searches the packets of a pcapng file for what does not spell an
// identifier and tells it nevertheless, and puts together what is spread over
// several.
func (s *Scanner) capture(frames []capturedFrame) {
	b := s.doc.Data
	flows := map[string][]headers{}
	var order []string
	for _, f := range frames {
		if s.hidden(f.from, f.end) {
			for _, r := range f.hashes {
				s.leak(r.From, r.To, -1, "a hash of the packet: narrows what is withheld")
			}
		}
		h, ok := headersOf(b, f.at, f.end)
		if !ok {
			continue
		}
		s.packet(&h, 0)
		if h.payload == 0 || h.payload >= h.end {
			continue
		}
		switch h.proto {
		case packet.TCP:
			// Addresses and ports may be withheld, and then all are one flow;
			// what is put together wrongly is searched once more, no harm.
			key := string(b[h.src.From:h.dst.To]) + string(b[h.l4:h.l4+4])
			if flows[key] == nil {
				order = append(order, key)
			}
			flows[key] = append(flows[key], h)
		case packet.UDP:
			s.datagram(&h)
		}
	}
	for _, key := range order {
		s.stream(flows[key])
	}
}

// packet looks at one, and at what it quotes.
func (s *Scanner) packet(h *headers, depth int) {
	b := s.doc.Data
	where := ""
	if depth > 0 {
		where = ", in what an ICMP error quotes"
	}
	addresses := s.hidden(h.src.From, h.dst.To)
	for _, r := range []Range{h.src, h.dst} {
		if a, ok := netip.AddrFromSlice(b[r.From:r.To]); ok && !s.hidden(r.From, r.To) {
			if who, how, ok := s.names(a, false); ok {
				s.leak(r.From, r.To, who, "in a packet's header"+how+where)
			}
		}
	}
	if !h.v6 {
		if s.hidden(h.at, min(h.at+int(b[h.at]&15)*4, h.end)) {
			s.leak(h.sum.From, h.sum.To, -1, "IPv4 header checksum: narrows what is withheld"+where)
		}
		if s.doc.Client && s.hidden(h.src.From, h.src.To) && !s.hidden(h.dst.From, h.dst.To) { // sent by the device
			s.leak(h.at+4, h.at+6, -1, "IPv4 identification: may count for the device"+where)
		}
	} else if addresses && s.doc.Client {
		s.leak(h.at+1, h.at+4, -1, "IPv6 flow label: may be a hash of the address"+where)
	}
	if h.l4 == 0 {
		return
	}
	if h.l4sum.To > 0 && h.l4sum.To <= h.end && (addresses && !h.icmp || s.hidden(h.l4, h.end)) {
		s.leak(h.l4sum.From, h.l4sum.To, -1, "transport checksum: narrows what is withheld"+where)
	}
	if addresses && s.doc.Client && h.stamps.To > 0 {
		s.leak(h.stamps.From, h.stamps.To, -1, "TCP timestamps: the device's clock"+where)
	}
	if s.doc.Client && h.proto == packet.UDP && h.payload < h.end && (slices.Contains(chatty, h.from) || slices.Contains(chatty, h.to)) {
		s.leak(h.payload, h.end, -1, "a device speaking of itself (DHCP, mDNS and the like)"+where)
	}
	if s.doc.Client && h.proto == packet.ICMP && h.quote > 0 && b[h.l4] == packet.Redirect4 {
		s.leak(h.l4+4, h.l4+8, -1, encodingRedirect+where)
	}
	if h.quote > 0 && depth < 2 {
		if q, ok := headersOf(b, h.quote, h.end); ok {
			s.packet(&q, depth+1)
		}
	}
}

// encodingRedirect is of the gateway that an ICMP redirect names: it is in the
// network of who got that (RFC 1122, 3.2.2.2).
const encodingRedirect = "ICMP redirect: a gateway of the client's network"

// datagram looks into the payload of UDP.
func (s *Scanner) datagram(h *headers) {
	payload := s.doc.Data[h.payload:h.end]
	if h.from == 53 || h.to == 53 {
		if r, ok := clientSubnet(payload); ok && s.doc.Client {
			s.leak(h.payload+r.From, h.payload+r.To, -1, encodingSubnet)
		}
		return
	}
	if len(payload) < 1200 || payload[0]&0x80 == 0 {
		return
	}
	// A QUIC Initial hides nothing from whoever has its first bytes (RFC 9001, 5.2).
	crypto, _, err := packet.DecryptInitial(payload)
	if err != nil {
		return
	}
	l := s.layer(&layer{data: s.doc.Data}, "a QUIC Initial")
	for _, f := range crypto {
		l.spans = append(l.spans, span{int32(len(l.data)), int32(h.payload), uint32(len(payload)), 0})
		l.data = append(l.data, f.Data...)
	}
	s.found(l, 1, nil)
}

// stream puts the segments of one direction of a flow in order and searches
// what they carried together.
func (s *Scanner) stream(segments []headers) {
	one := segments[0]
	dns := one.from == 53 || one.to == 53
	if len(segments) < 2 && !dns && !bytes.Contains(s.doc.Data[one.payload:one.end], []byte("\r\n\r\n")) {
		return // searched where it stands
	}
	first := segments[0].seq
	slices.SortStableFunc(segments, func(a, b headers) int { return int(int32(a.seq-first)) - int(int32(b.seq-first)) })
	l := s.layer(&layer{data: s.doc.Data}, "a TCP stream")
	next := segments[0].seq
	whole := []int{0} // where what is whole begins
	for _, h := range segments {
		data, from := s.doc.Data[h.payload:h.end], h.payload
		// Where the numbers are withheld the order of the file has to do.
		if !s.hidden(h.l4+4, h.l4+8) {
			if ahead := int32(h.seq - next); ahead > 0 { // something is missing
				l.data = append(l.data, 0)
				whole = append(whole, len(l.data))
			} else if int(-ahead) >= len(data) { // sent again
				continue
			} else {
				data, from = data[-ahead:], from-int(ahead)
			}
		}
		l.mark(from, 1, 1)
		l.data = append(l.data, data...)
		next = h.seq + uint32(h.end-h.payload)
	}
	if dns && s.doc.Client {
		for i, at := range whole {
			end := len(l.data)
			if i+1 < len(whole) {
				end = whole[i+1]
			}
			s.messages(l, at, end)
		}
		for _, h := range segments { // by itself, should one before it be cut or missing
			if r, ok := clientSubnet(s.doc.Data[min(h.payload+2, h.end):h.end]); ok {
				s.leak(h.payload+2+r.From, h.payload+2+r.To, -1, encodingSubnet)
			}
		}
	}
	s.found(l, 1, nil)
}

// messages looks into those of DNS in a stream, which are preceded by their
// length (RFC 1035, 4.2.2).
func (s *Scanner) messages(l *layer, at, end int) {
	for at+2 <= end {
		from := at + 2
		at = from + int(binary.BigEndian.Uint16(l.data[at:]))
		if r, ok := clientSubnet(l.data[from:min(at, end)]); ok {
			for _, o := range l.origin(from+r.From, r.To-r.From) {
				s.leak(o.From, o.To, -1, encodingSubnet)
			}
		}
	}
}

const encodingSubnet = "EDNS client subnet"

// clientSubnet finds the option of a DNS message that tells the client's
// network to a server (RFC 7871): its address bytes.
func clientSubnet(m []byte) (Range, bool) {
	if len(m) < 12 {
		return Range{}, false
	}
	count := func(i int) int { return int(binary.BigEndian.Uint16(m[i:])) }
	at := 12
	name := func() bool {
		for at < len(m) {
			switch n := int(m[at]); {
			case n == 0:
				at++
				return true
			case n >= 0xc0:
				at += 2
				return at <= len(m)
			default:
				at += n + 1
			}
		}
		return false
	}
	for range count(4) {
		if !name() {
			return Range{}, false
		}
		at += 4
	}
	for range count(6) + count(8) + count(10) {
		if !name() || at+10 > len(m) {
			return Range{}, false
		}
		typ, n := count(at), count(at+8)
		at += 10
		if at+n > len(m) {
			return Range{}, false
		}
		if typ == 41 {
			for o := at; o+4 <= at+n; o += 4 + count(o+2) {
				if size := count(o + 2); count(o) == 8 && size >= 4 && o+4+size <= at+n {
					return Range{o + 4, o + 4 + size}, true
				}
			}
		}
		at += n
	}
	return Range{}, false
}
