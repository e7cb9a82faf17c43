package evidence

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// IdentifierKind is what an Identifier is.
type IdentifierKind string

// The kinds of identifier.
const (
	KindAddress  IdentifierKind = "address"  // IPv4 or IPv6
	KindSubnet   IdentifierKind = "subnet"   // a network that an address is in, learnt as such
	KindHardware IdentifierKind = "hardware" // MAC or BSSID
	KindText     IdentifierKind = "text"     // a name: of a network, host, user, operator, place
	KindDigest   IdentifierKind = "digest"   // of content that holds another identifier
)

// Identifier is one thing that points at the person who measured. Which field
// is set follows from Kind.
type Identifier struct {
	Kind   IdentifierKind
	Addr   netip.Addr
	Subnet netip.Prefix
	MAC    net.HardwareAddr
	Text   string
	Sum    []byte
	From   string // where it was learnt, in words that hold no identifier
	// Exact: the network it is in identifies nobody, and no digest is made of
	// it: a server's, or a router's.
	Exact bool
}

// A network of these lengths that is known leaves few enough subscribers to
// be a description of one of them: a line's own network in IPv6 (RFC 6177), a
// neighbourhood in IPv4. What is wider follows from the AS anyway.
const (
	narrow4 = 24
	narrow6 = 48
)

// minText is the least length of a text that is searched for, in bytes: two
// letters stand everywhere.
const minText = 3

// AddressIdentifier is of an address that can identify; ok is false of those
// that everybody has (loopback, unspecified, multicast, broadcast).
func AddressIdentifier(a netip.Addr, from string) (id Identifier, ok bool) {
	a = a.Unmap().WithZone("")
	if !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return id, false
	}
	return Identifier{Kind: KindAddress, Addr: a, From: from}, true
}

// TextIdentifier reads what somebody wrote of a person: an address, a subnet,
// a hardware address, or any other text of at least three bytes.
func TextIdentifier(s, from string) (Identifier, error) {
	s = strings.TrimSpace(s)
	if !utf8.ValidString(s) {
		return Identifier{}, fmt.Errorf("evidence: what is to be searched for is not UTF-8")
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		if id, ok := AddressIdentifier(a, from); ok {
			return id, nil
		}
		return Identifier{}, fmt.Errorf("evidence: the address %s is everybody's", a)
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		p = p.Masked()
		if least := map[bool]int{true: 8, false: 16}[p.Addr().Is4()]; p.Bits() < least {
			return Identifier{}, fmt.Errorf("evidence: the network %s is too wide to identify anybody; at least /%d", p, least)
		}
		return Identifier{Kind: KindSubnet, Subnet: p, From: from}, nil
	}
	if m, err := net.ParseMAC(s); err == nil && len(m) == 6 {
		return Identifier{Kind: KindHardware, MAC: m, From: from}, nil
	}
	if len(s) < minText {
		return Identifier{}, fmt.Errorf("evidence: a text of %d bytes is too short to search for; at least %d", len(s), minText)
	}
	if len(s) > maxPattern {
		return Identifier{}, fmt.Errorf("evidence: a text of %d bytes is too long to search for; at most %d", len(s), maxPattern)
	}
	return Identifier{Kind: KindText, Text: s, From: from}, nil
}

// key tells identifiers apart.
func (id Identifier) key() string {
	switch id.Kind {
	case KindAddress:
		return "a" + id.Addr.String()
	case KindSubnet:
		return "s" + id.Subnet.String()
	case KindHardware:
		return "m" + string(id.MAC)
	case KindDigest:
		return "d" + string(id.Sum)
	}
	return "t" + strings.ToLower(id.Text)
}

// spellings collects the patterns of one identifier.
type spellings struct {
	who          int
	exact        bool
	text, binary []pattern
}

// number adds what may not be part of a longer number.
func (s *spellings) number(how string, text ...string) {
	for _, t := range text {
		s.text = append(s.text, pattern{bytes: []byte(t), who: s.who, how: how, alone: digit})
	}
}

func (s *spellings) bytes(how string, b ...byte) {
	s.binary = append(s.binary, pattern{bytes: slices.Clone(b), who: s.who, how: how})
}

// spell gives the patterns of the identifiers. What a person would read is
// looked for without regard to case; what can be written in many ways (dotted
// and colon notation, hex, base64, escapes) is not spelled out here but read
// by scanAddresses and the decoders.
func spell(ids []Identifier) (text, binary []pattern) {
	for i, id := range ids {
		s := &spellings{who: i, exact: id.Exact}
		switch {
		case id.Kind == KindAddress && id.Addr.Is4():
			s.address4(id.Addr)
		case id.Kind == KindAddress:
			s.address6(id.Addr)
		case id.Kind == KindSubnet:
			s.subnet(id.Subnet)
		case id.Kind == KindHardware:
			s.hardware(id.MAC)
		case id.Kind == KindText:
			s.name(id.Text)
		case id.Kind == KindDigest:
			s.bytes("digest", id.Sum...)
		}
		text, binary = append(text, s.text...), append(binary, s.binary...)
	}
	return text, binary
}

func (s *spellings) address4(a netip.Addr) {
	b := a.As4()
	be, le := binary.BigEndian.Uint32(b[:]), binary.LittleEndian.Uint32(b[:])
	s.bytes("binary", b[:]...)
	s.bytes("binary, reversed", b[3], b[2], b[1], b[0])
	s.bytes("binary, complement", ^b[0], ^b[1], ^b[2], ^b[3])                     // Teredo (RFC 4380, 4)
	s.bytes("binary, masked by STUN", b[0]^0x21, b[1]^0x12, b[2]^0xa4, b[3]^0x42) // XOR-MAPPED-ADDRESS (RFC 8489, 14.2)
	for _, v := range []uint32{be, le} {
		if v < 1<<22 {
			continue // a number of bytes or microseconds like any other
		}
		s.number("integer", strconv.FormatUint(uint64(v), 10))
		s.number("integer, octal", "0"+strconv.FormatUint(uint64(v), 8), "0o"+strconv.FormatUint(uint64(v), 8))
		s.number("integer, hex", "0x"+strconv.FormatUint(uint64(v), 16))
		if int32(v) < 0 {
			s.number("integer, signed", strconv.FormatInt(int64(int32(v)), 10)[1:])
		}
	}
	// The forms of inet_aton, and those of one width.
	s.number("dotted hex", fmt.Sprintf("0x%x.0x%x.0x%x.0x%x", b[0], b[1], b[2], b[3]), fmt.Sprintf("0x%02x.0x%02x.0x%02x.0x%02x", b[0], b[1], b[2], b[3]))
	s.number("dotted octal", fmt.Sprintf("0%o.0%o.0%o.0%o", b[0], b[1], b[2], b[3]), fmt.Sprintf("%04o.%04o.%04o.%04o", b[0], b[1], b[2], b[3]))
	if b[1] != 0 { // else it is what versions look like
		s.number("two parts", fmt.Sprintf("%d.%d", b[0], be&0xffffff))
	}
	if b[2] != 0 {
		s.number("three parts", fmt.Sprintf("%d.%d.%d", b[0], b[1], be&0xffff))
	}
	s.number("padded", fmt.Sprintf("%03d%03d%03d%03d", b[0], b[1], b[2], b[3]))
	s.number("backwards", reversed(a.String()))
	s.net24(b)
	s.digests(a.String(), b[:])
}

// net24 adds the spellings of the /24 that scanAddresses does not read.
func (s *spellings) net24(b [4]byte) {
	if s.exact {
		return
	}
	net := fmt.Sprintf("%d.%d.%d", b[0], b[1], b[2])
	s.number("its network", net+".x", net+".xx", net+".xxx", net+".*", net+".**", net+".***", net+"/24", fmt.Sprintf("%d.%d.%d.in-addr", b[2], b[1], b[0]))
}

func (s *spellings) address6(a netip.Addr) {
	b := a.As16()
	s.bytes("binary", b[:]...)
	r := slices.Clone(b[:])
	slices.Reverse(r)
	s.bytes("binary, reversed", r...)
	for i := range r { // nibble by nibble, as in ip6.arpa (RFC 3596, 2.5)
		r[i] = r[i]<<4 | r[i]>>4
	}
	s.bytes("nibbles, reversed", r...)
	for _, w := range []int{2, 4, 8} { // in words of the other byte order, as /proc/net/tcp6
		c := slices.Clone(b[:])
		for i := 0; i < 16; i += w {
			slices.Reverse(c[i : i+w])
		}
		s.bytes("binary, words reversed", c...)
	}
	s.net6(b[:narrow6/8])
	iid := b[8:]
	if identifies(iid) && !s.exact {
		s.bytes("its interface identifier", iid...)
		if m, ok := macOf(a); ok {
			s.hardware(m)
		}
	}
	long := a.StringExpanded()
	s.number("with hyphens", strings.ReplaceAll(a.String(), ":", "-"), strings.ReplaceAll(long, ":", "-"))
	s.number("backwards", reversed(a.String()), reversed(long))
	s.digests(a.String(), b[:])
	s.digests(long, nil)
}

// net6 adds the binary spellings of an IPv6 network of whole bytes.
func (s *spellings) net6(b []byte) {
	if s.exact {
		return
	}
	r := slices.Clone(b)
	s.bytes("its network, binary", r...)
	slices.Reverse(r)
	s.bytes("its network, reversed", r...)
	for i := range r {
		r[i] = r[i]<<4 | r[i]>>4
	}
	s.bytes("its network, nibbles", r...)
}

func (s *spellings) subnet(p netip.Prefix) {
	switch {
	case p.Addr().Is4() && p.Bits() >= 24:
		s.net24(p.Addr().As4())
	case !p.Addr().Is4() && p.Bits() >= 32:
		b := p.Addr().As16()
		s.net6(b[:p.Bits()/8])
	}
}

// identifies says whether an interface identifier is one that few have: not
// ::1 and the like.
func identifies(iid []byte) bool {
	n := 0
	for _, b := range iid {
		if b != 0 {
			n++
		}
	}
	return n >= 4
}

// macOf is the hardware address that an interface identifier was made of
// (RFC 4291, appendix A).
func macOf(a netip.Addr) (net.HardwareAddr, bool) {
	b := a.As16()
	if !a.Is6() || b[11] != 0xff || b[12] != 0xfe {
		return nil, false
	}
	return net.HardwareAddr{b[8] ^ 2, b[9], b[10], b[13], b[14], b[15]}, true
}

func (s *spellings) hardware(m net.HardwareAddr) {
	s.bytes("hardware address", m...)
	s.bytes("hardware address, reversed", m[5], m[4], m[3], m[2], m[1], m[0])
	s.bytes("hardware address, EUI-64", m[0], m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5])
	s.bytes("hardware address, EUI-64", m[0]^2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5])
	s.bytes("hardware address, EUI-64, nibbles", swap(m[5]), swap(m[4]), swap(m[3]), 0xef, 0xff, swap(m[2]), swap(m[1]), swap(m[0]^2))
	n := uint64(0)
	for _, b := range m {
		n = n<<8 | uint64(b)
	}
	s.number("integer", strconv.FormatUint(n, 10))
	s.digests(m.String(), m)
	s.digests(strings.ToUpper(m.String()), nil)
}

func swap(b byte) byte { return b<<4 | b>>4 }

// name adds a text in its usual spellings: its own case, lower, upper, with
// the Arabic letters for the Persian ones and the reverse, backwards, and in
// the encodings that are not ASCII's.
func (s *spellings) name(t string) {
	persian := strings.NewReplacer("ي", "ی", "ك", "ک")
	arabic := strings.NewReplacer("ی", "ي", "ک", "ك")
	seen := map[string]bool{}
	for _, v := range []string{t, strings.ToLower(t), strings.ToUpper(t), persian.Replace(t), arabic.Replace(t)} {
		if seen[v] {
			continue
		}
		seen[v] = true
		var alone func(byte) bool
		if utf8.RuneCountInString(v) < 6 { // stands in other words
			alone = letter
		}
		add := func(how, v string) {
			s.text = append(s.text, pattern{bytes: []byte(v), who: s.who, how: how, alone: alone})
		}
		add("text", v)
		add("text, backwards", reversed(v))
		b := []byte(v)
		slices.Reverse(b)
		if string(b) != reversed(v) {
			add("bytes, reversed", string(b))
		}
		var le, be, latin []byte
		for _, u := range utf16.Encode([]rune(v)) {
			le, be = append(le, byte(u), byte(u>>8)), append(be, byte(u>>8), byte(u))
		}
		for _, r := range v {
			if r > 0xff {
				latin = nil
				break
			}
			latin = append(latin, byte(r))
		}
		s.bytes("UTF-16", le...)
		s.bytes("UTF-16", be...)
		if len(latin) > 4 && string(latin) != v { // shorter is found by chance in what is no text
			s.bytes("ISO 8859-1", latin...)
		}
		s.digests(v, nil)
	}
}

// digests adds what sites print in the belief that it hides an address: of
// IPv4 all can be tried in a minute.
func (s *spellings) digests(text string, raw []byte) {
	if s.exact {
		return
	}
	for _, b := range [][]byte{[]byte(text), raw} {
		if len(b) == 0 {
			continue
		}
		m, h, k := md5.Sum(b), sha1.Sum(b), sha256.Sum256(b)
		s.bytes("MD5", m[:]...)
		s.bytes("SHA-1", h[:]...)
		s.bytes("SHA-256", k[:]...)
	}
}

func reversed(s string) string {
	r := []rune(s)
	slices.Reverse(r)
	return string(r)
}
