package evidence

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// maxPattern bounds what is searched for, bytes.
const maxPattern = 512

// pattern is one spelling of an identifier.
type pattern struct {
	bytes []byte
	who   int    // index of the identifier
	how   string // the spelling, in words
	// alone says what may not stand before or after it.
	alone func(byte) bool
}

// matcher finds many patterns in one pass: a filter over the next q bytes, in
// which at most one bit of sixteen is set, tells where to look closer, so that
// the cost hardly depends on how many patterns there are.
type matcher struct {
	fold   *[256]byte // nil: bytes are compared as they are
	q      int        // length of the key, at most 4
	mask   uint32
	filter []uint64
	shift  int // of a key's hash to its bit
	table  map[uint32][]pattern
}

// folded is what text is compared in: ASCII without case, and one character
// for those that stand in for a space in URLs and host names.
var folded = func() *[256]byte {
	var f [256]byte
	for i := range f {
		f[i] = byte(i)
		switch {
		case i >= 'A' && i <= 'Z':
			f[i] += 'a' - 'A'
		case i == '+' || i == '_' || i == '-' || i == '\t':
			f[i] = ' '
		}
	}
	return &f
}()

// unfolded leaves bytes as they are.
var unfolded = func() *[256]byte {
	var f [256]byte
	for i := range f {
		f[i] = byte(i)
	}
	return &f
}()

func newMatcher(patterns []pattern, fold *[256]byte) *matcher {
	m := &matcher{fold: fold, q: 4, table: map[uint32][]pattern{}}
	for _, p := range patterns {
		m.q = min(m.q, len(p.bytes))
	}
	m.mask = uint32(1<<(8*m.q) - 1)
	size := min(max(16, bits.Len(uint(len(patterns)*16))), 26)
	m.filter, m.shift = make([]uint64, 1<<(size-6)), 32-size
	for _, p := range patterns {
		if fold != nil {
			b := make([]byte, len(p.bytes))
			for i, c := range p.bytes {
				b[i] = fold[c]
			}
			p.bytes = b
		}
		key := uint32(0)
		for _, c := range p.bytes[:m.q] {
			key = key<<8 | uint32(c)
		}
		h := key * 0x9e3779b1 >> m.shift
		m.filter[h>>6] |= 1 << (h & 63)
		m.table[key] = append(m.table[key], p)
	}
	return m
}

// scan calls hit for each place where a pattern stands.
func (m *matcher) scan(b []byte, hit func(at int, p *pattern)) {
	if len(m.table) == 0 || len(b) < m.q {
		return
	}
	w, last := uint32(0), m.q-1
	filter, mask, shift := m.filter, m.mask, m.shift&31
	fold := m.fold
	if fold == nil {
		fold = unfolded
	}
	for i, c := range b {
		w = w<<8 | uint32(fold[c])
		key := w & mask
		h := key * 0x9e3779b1 >> shift
		if filter[h>>6]&(1<<(h&63)) == 0 || i < last {
			continue
		}
		list := m.table[key]
		for j := range list {
			if m.at(b, i-last, &list[j]) {
				hit(i-last, &list[j])
			}
		}
	}
}

// at says whether p stands at b[i:].
func (m *matcher) at(b []byte, i int, p *pattern) bool {
	end := i + len(p.bytes)
	if end > len(b) {
		return false
	}
	for j, c := range b[i:end] {
		if m.fold != nil {
			c = m.fold[c]
		}
		if c != p.bytes[j] {
			return false
		}
	}
	return p.alone == nil || (i == 0 || !p.alone(b[i-1])) && (end == len(b) || !p.alone(b[end]))
}

// letter says whether c is an ASCII letter or digit.
func letter(c byte) bool {
	return c-'0' < 10 || c|0x20 >= 'a' && c|0x20 <= 'z'
}

func digit(c byte) bool { return c-'0' < 10 }

// spelled is an address that stands in a text.
type spelled struct {
	at, end int
	addr    netip.Addr
	how     string
	// exact: written so that the address itself may be meant, but not another
	// one of its network (four numbers with commas, or backwards).
	exact bool
}

// scanAddresses calls visit for everything in b that reads as an address: four
// decimal numbers, in either order, with dots, hyphens, commas, underscores or
// spaces, padded or octal; and IPv6 in all forms of RFC 4291, 2.2, which
// bracketed and IPv4-mapped ones are. It is linear in len(b).
func scanAddresses(b []byte, visit func(spelled)) {
	for i := 0; i < len(b); i++ {
		c := b[i]
		if digit(c) && (i == 0 || !digit(b[i-1])) {
			scanQuad(b, i, visit)
		}
		if (hexValue[c] >= 0 || c == ':' && i+1 < len(b) && b[i+1] == ':') && (i == 0 || hexValue[b[i-1]] < 0) {
			if a, end, ok := parse6(b, i); ok {
				visit(spelled{at: i, end: end, addr: a, how: "text"})
			}
		}
	}
}

// scanQuad reads four decimal numbers at b[i:].
func scanQuad(b []byte, i int, visit func(spelled)) {
	var v, o [4]byte
	octal, decimal, fits := false, true, true // what is read as decimal and as octal fits into bytes
	sep := byte(0)
	at := i
	for n := range 4 {
		if n > 0 {
			if at >= len(b) {
				return
			}
			switch c := b[at]; {
			case n == 1 && (c == '.' || c == ',' || c == '-' || c == '_' || c == ' '):
				sep = c
			case n > 1 && c == sep:
			default:
				return
			}
			at++
			if sep == ',' && at < len(b) && b[at] == ' ' {
				at++
			}
		}
		start, value, eight := at, 0, 0
		for at < len(b) && at-start < 4 && digit(b[at]) {
			d := int(b[at] - '0')
			value = value*10 + d
			if eight = eight*8 + d; d > 7 {
				eight = 256
			}
			at++
		}
		zero := at > start+1 && b[start] == '0'
		if at == start || at-start == 4 && !zero || at < len(b) && digit(b[at]) {
			return
		}
		octal = octal || zero
		if !zero {
			eight = value
		}
		decimal, fits = decimal && value < 256, fits && eight < 256
		if !decimal && !fits {
			return
		}
		v[n], o[n] = byte(value), byte(eight)
	}
	exact := sep != '.' && sep != '-'
	if decimal {
		visit(spelled{i, at, netip.AddrFrom4(v), "decimal", exact})
		arpa := at+8 <= len(b) && (string(b[at:at+8]) == ".in-addr" || string(b[at:at+8]) == ".IN-ADDR")
		visit(spelled{i, at, netip.AddrFrom4([4]byte{v[3], v[2], v[1], v[0]}), "decimal, reversed", !arpa})
	}
	if octal && fits {
		visit(spelled{i, at, netip.AddrFrom4(o), "dotted octal", exact})
	}
}

// hexValue is of each hexadecimal digit, -1 of all other bytes.
var hexValue = func() (t [256]int8) {
	for i := range t {
		switch c := byte(i); {
		case digit(c):
			t[i] = int8(c - '0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			t[i] = int8(c | 0x20 - 'a' + 10)
		default:
			t[i] = -1
		}
	}
	return t
}()

// parse6 reads the longest IPv6 address at b[i:].
func parse6(b []byte, i int) (addr netip.Addr, end int, ok bool) {
	var groups [8]uint16
	n, gap, at := 0, -1, i
	if b[at] == ':' {
		gap, at = 0, at+2
		end = at
	}
	for n < 8 && at < len(b) {
		start, v := at, 0
		for at < len(b) && at-start < 4 && hexValue[b[at]] >= 0 {
			v = v<<4 | int(hexValue[b[at]])
			at++
		}
		if at == start || at < len(b) && hexValue[b[at]] >= 0 {
			break
		}
		if at < len(b) && b[at] == '.' && n <= 6 && (n == 6 || gap >= 0) {
			var quad netip.Addr
			var to int
			scanQuad(b, start, func(s spelled) {
				if s.how == "decimal" && s.end > start && b[s.end-1] != ' ' {
					quad, to = s.addr, s.end
				}
			})
			if quad.IsValid() {
				q := quad.As4()
				groups[n], groups[n+1] = binary.BigEndian.Uint16(q[:]), binary.BigEndian.Uint16(q[2:])
				n, end = n+2, to
				break
			}
		}
		groups[n] = uint16(v)
		n, end = n+1, at
		if n == 8 || at+1 >= len(b) || b[at] != ':' {
			break
		}
		if b[at+1] == ':' {
			if gap >= 0 {
				break
			}
			gap, at = n, at+2
			end = at
			continue
		}
		at++
	}
	if gap < 0 && n != 8 || gap >= 0 && n > 7 || n < 2 {
		return addr, 0, false
	}
	var out [16]byte
	for g := range n {
		k := g
		if gap >= 0 && g >= gap {
			k = 8 - n + g
		}
		binary.BigEndian.PutUint16(out[2*k:], groups[g])
	}
	return netip.AddrFrom16(out), end, true
}
