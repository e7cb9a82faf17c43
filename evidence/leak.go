package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
	"sort"
	"strings"
)

// Document is something of a bundle as whoever gets it can read it.
type Document struct {
	Name string
	Data []byte
	// Withheld are the bytes of Data that only stand for something: they are
	// not searched. In order.
	Withheld []Range
	// Client: the client is withheld. Then headers in which content of others
	// names it count, and what a device can be known by.
	Client bool
	// Time: when it happened is withheld. Then what others wrote down of it
	// counts: headers with a date, the time of a helper's receipt.
	Time bool
}

// Range is the bytes [From, To) of a document.
type Range struct{ From, To int }

// Leak is a place where something that identifies survives, or where that
// cannot be excluded.
type Leak struct {
	Document   string
	From, To   int    // bytes of it
	Identifier int    // index of what was found, -1 where nothing was: see Encoding
	Encoding   string // how it is written there
}

const (
	// maxDepth is how many encodings one inside the other are read.
	maxDepth = 5
	// What is inflated, and all that is decoded of a document, is bounded by a
	// multiple of it. Usual are one and seven.
	inflated = 16
	decoded  = 160
	spare    = 1 << 20
	// maxContents bounds how many contents are known by their digest.
	maxContents = 1 << 16
	// maxLeaks bounds the list of one search.
	maxLeaks = 1 << 20
)

// encodingUnsearched is of content that could hold anything.
const encodingUnsearched = "cannot be searched: compressed beyond the bound, or in an encoding that is not read"

// Scanner searches for identifiers.
type Scanner struct {
	ids          []Identifier
	text, binary *matcher
	exact4       map[uint32]int
	exact6       map[[16]byte]int
	iids         map[[8]byte]int
	nets         []network
	likely4      [1 << 10]uint64 // bits: first halves of the IPv4 addresses searched for

	// known are addresses that are not the client's, whatever a page says.
	known map[netip.Addr]bool
	// Learnt are the addresses that content of others gives as the client's
	// and that were not searched for.
	Learnt []Identifier
	// sums are the digests of content that was put together or decoded and
	// holds an identifier.
	sums []Hash
	// anyDigest: there may be more of these than sums has.
	anyDigest bool

	doc    *Document
	leaks  []Leak
	seen   map[Leak]bool
	budget int64
	hashed int64 // bytes that may still be hashed
	zip    inflater
	free   []*layer
}

// network is a prefix that is searched for.
type network struct {
	bits, mask [2]uint64 // of the 16 bytes that netip.Addr.As16 gives
	who        int
}

// NewScanner prepares a search. It takes the time of a search of some
// kilobytes, whatever there is to be found.
func NewScanner(ids []Identifier) *Scanner {
	s := &Scanner{ids: ids, exact4: map[uint32]int{}, exact6: map[[16]byte]int{}, iids: map[[8]byte]int{}}
	text, raw := spell(ids)
	s.text, s.binary = newMatcher(text, folded), newMatcher(raw, nil)
	for i, id := range ids {
		switch id.Kind {
		case KindAddress:
			bits := narrow6
			b := id.Addr.As16()
			if id.Addr.Is4() {
				bits = narrow4
				s.exact4[v4(b)] = i
			} else {
				s.exact6[b] = i
				if identifies(b[8:]) && !id.Exact {
					s.iids[[8]byte(b[8:])] = i
				}
			}
			if id.Exact {
				bits = id.Addr.BitLen()
			}
			s.net(netip.PrefixFrom(id.Addr, bits).Masked(), i)
		case KindSubnet:
			s.net(id.Subnet, i)
		case KindHardware:
			m := id.MAC
			s.iids[[8]byte{m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]}] = i
		}
	}
	return s
}

func (s *Scanner) net(p netip.Prefix, i int) {
	if p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
		return // fe80::/64 is everybody's
	}
	n := p.Bits()
	if p.Addr().Is4() {
		first := v4(p.Addr().As16()) >> 16
		for half := first; half < first+1<<max(0, 16-n); half++ {
			s.likely4[half>>6] |= 1 << (half & 63)
		}
		n += 96
	}
	w := network{bits: words(p.Addr().As16()), mask: [2]uint64{^uint64(0), 0}, who: i}
	if n < 64 {
		w.mask[0] <<= 64 - n
	} else {
		w.mask[1] = ^(^uint64(0) >> (n - 64))
	}
	s.nets = append(s.nets, w)
}

func words(b [16]byte) [2]uint64 {
	return [2]uint64{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])}
}

// v4 is the IPv4 address that is the end of b.
func v4(b [16]byte) uint32 { return binary.BigEndian.Uint32(b[12:]) }

// names says which identifier an address is, or is near, and how.
func (s *Scanner) names(a netip.Addr, exact bool) (who int, how string, ok bool) {
	b := a.As16()
	w := words(b)
	is4 := w[0] == 0 && w[1]>>32 == 0xffff
	if is4 {
		if half := v4(b) >> 16; s.likely4[half>>6]&(1<<(half&63)) == 0 {
			return 0, "", false
		}
		if i, ok := s.exact4[v4(b)]; ok {
			return i, "", true
		}
	} else if i, ok := s.exact6[b]; ok {
		return i, "", true
	}
	if exact {
		return 0, "", false
	}
	for _, n := range s.nets {
		if w[0]&n.mask[0] == n.bits[0] && w[1]&n.mask[1] == n.bits[1] {
			return n.who, ", of the same network", true
		}
	}
	if is4 {
		return 0, "", false
	}
	if i, ok := s.iids[[8]byte(b[8:])]; ok {
		return i, ", its interface identifier", true
	}
	// 6to4, NAT64, Teredo and the like (RFC 3056, RFC 6052, RFC 4380).
	for at := 2; at <= 12; at++ {
		v := binary.BigEndian.Uint32(b[at:])
		for range 2 {
			if half := v >> 16; s.likely4[half>>6]&(1<<(half&63)) != 0 {
				if i, ok := s.exact4[v]; ok {
					return i, ", IPv4 inside IPv6", true
				}
			}
			v = ^v
		}
	}
	return 0, "", false
}

// Scan searches one document and gives what survives there, in order.
func (s *Scanner) Scan(d *Document) []Leak {
	s.doc, s.leaks, s.seen = d, nil, map[Leak]bool{}
	s.budget = decoded*int64(len(d.Data)) + 8*spare
	s.hashed = inflated*int64(len(d.Data)) + spare
	s.zip.left = inflated*int64(len(d.Data)) + spare
	if len(d.Data) > maxLayer {
		s.leak(0, len(d.Data), -1, encodingUnsearched)
		return s.leaks
	}
	s.walk(&layer{data: d.Data}, 0, nil)
	if f, ok := framesOf(d.Data); ok {
		s.capture(f)
	}
	sort.SliceStable(s.leaks, func(i, j int) bool { return s.leaks[i].From < s.leaks[j].From })
	return s.leaks
}

// leak notes one, unless only what is withheld stands there.
func (s *Scanner) leak(from, to, who int, how string) {
	if to <= from || len(s.leaks) >= maxLeaks || !s.readable(from, to) {
		return
	}
	if who < 0 && strings.HasPrefix(how, encodingUnsearched) {
		s.anyDigest = true
	}
	l := Leak{s.doc.Name, from, to, who, how}
	if !s.seen[l] {
		s.seen[l] = true
		s.leaks = append(s.leaks, l)
	}
}

// readable says whether any byte of the range is not withheld.
func (s *Scanner) readable(from, to int) bool {
	w := s.doc.Withheld
	for i := sort.Search(len(w), func(i int) bool { return w[i].To > from }); i < len(w) && from < to; i++ {
		if w[i].From > from {
			return true
		}
		from = w[i].To
	}
	return from < to
}

// layer gives an empty one.
func (s *Scanner) layer(up *layer, how string) *layer {
	l := new(layer)
	if n := len(s.free); n > 0 {
		l, s.free = s.free[n-1], s.free[:n-1]
	}
	l.data, l.spans, l.runs, l.how, l.up = l.data[:0], l.spans[:0], l.runs[:0], how, up
	l.heads, l.split = l.heads[:0], false
	return l
}

// found searches a decoded layer, and gives its memory back.
func (s *Scanner) found(l *layer, depth int, deflated []int) {
	if len(l.data) >= minText {
		s.walk(l, depth, deflated)
	}
	s.free = append(s.free, l)
}

// digest notes that of content which holds an identifier.
func (s *Scanner) digest(content []byte) {
	if s.hashed -= int64(len(content)); s.hashed < 0 || len(s.sums) >= maxContents {
		s.anyDigest = true
		return
	}
	s.sums = append(s.sums, sha256.Sum256(content))
}

// walk searches a layer and everything that is encoded in it.
func (s *Scanner) walk(l *layer, depth int, deflated []int) {
	b := l.data
	if s.budget -= int64(len(b)); s.budget < 0 {
		for _, r := range l.origin(0, len(b)) {
			s.leak(r.From, r.To, -1, encodingUnsearched)
		}
		return
	}
	in := ""
	if p := l.path(); p != "" {
		in = ", in " + p
	}
	known := map[Range]bool{} // contents by their digest
	hit := func(at, n, who int, how string) {
		if who >= 0 && l.up != nil {
			for _, c := range l.content(at) {
				if !known[c] {
					known[c] = true
					s.digest(b[c.From:c.To])
				}
			}
		}
		for _, r := range l.origin(at, n) {
			s.leak(r.From, r.To, who, how+in)
		}
	}
	s.text.scan(b, func(at int, p *pattern) { hit(at, len(p.bytes), p.who, p.how) })
	s.binary.scan(b, func(at int, p *pattern) { hit(at, len(p.bytes), p.who, p.how) })
	if s.doc.Client {
		scanClaims(b, claimed, func(name string, from, to int) {
			hit(from, to-from, -1, "a header that names the client ("+name+")")
			scanAddresses(b[from:to], func(a spelled) {
				if !a.exact {
					s.learn(a.addr, "the header "+name)
				}
			})
		})
	}
	if s.doc.Time {
		scanClaims(b, dated, func(name string, from, to int) {
			if bytes.ContainsAny(b[from:to], "0123456789") {
				hit(from, to-from, -1, "a header that tells the time ("+name+")")
			}
		})
		for at := 0; ; at++ {
			k := bytes.Index(b[at:], receiptTime)
			if k < 0 {
				break
			}
			at += k
			hit(at, min(len(receiptTime)+len("2006-01-02T15:04:05Z"), len(b)-at), -1, "the time of a helper's receipt")
		}
	}
	var ends []int // of words that say whose address comes next
	if s.doc.Client {
		ends = labelled(b)
	}
	if len(ends) > 0 || len(s.nets)+len(s.exact6)+len(s.iids) > 0 {
		scanAddresses(b, func(a spelled) {
			if who, how, ok := s.names(a.addr, a.exact); ok {
				hit(a.at, a.end-a.at, who, a.how+how)
			} else if len(ends) > 0 && !a.exact && a.how != "dotted octal" && label(b, &ends, a.at) {
				s.learn(a.addr, "content that says it is the reader's address")
			}
		})
	}
	if depth == maxDepth {
		return
	}
	depth++

	raw := s.layer(l, "chunks")
	starts, chunked, opaque := raw.dechunk(b)
	for _, at := range opaque {
		hit(at, len(b)-at, -1, encodingUnsearched)
	}
	s.found(raw, depth, chunked)
	deflated = append(deflated, starts...)
	slices.Sort(deflated)

	open := s.layer(l, "compressed data")
	open.inflate(b, deflated, &s.zip, func(at int) { hit(at, len(b)-at, -1, encodingUnsearched) })
	s.found(open, depth, nil)

	plain := s.layer(l, "escapes")
	plain.unescape(b, false)
	s.found(plain, depth, nil)
	if bytes.ContainsAny(b, `=\`) {
		mail := s.layer(l, "escapes of mail or DNS")
		if !mail.unescape(b, true) {
			mail.data = mail.data[:0]
		}
		s.found(mail, depth, nil)
	}
	if bytes.IndexByte(b, 0) >= 0 {
		wide := s.layer(l, "UTF-16 or UTF-32")
		wide.narrow(b)
		s.found(wide, depth, nil)
	}

	hex := s.layer(l, "")
	hex.nibbles(b)
	if len(hex.data) > 0 {
		for skip := range 2 {
			p := s.layer(hex, "hex")
			p.pairs(hex, skip)
			s.found(p, depth, nil)
		}
		p := s.layer(hex, "hex")
		p.elements(hex)
		s.found(p, depth, nil)
	}
	s.free = append(s.free, hex)

	base := s.layer(l, "")
	base.sextets(b)
	if len(base.data) > 0 {
		for skip := range 4 {
			p := s.layer(base, "base64")
			p.unbase(base, skip)
			s.found(p, depth, nil)
		}
	}
	s.free = append(s.free, base)
}
