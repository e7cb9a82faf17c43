package geo

import (
	"compress/flate"
	_ "embed"
	"io"
	"math/bits"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
)

// The table's layout; ./gen writes it. All integers are big-endian.
//
//	magic     "govahgeo", 1 byte layout version, 1 byte length of the name, name
//	sections  8 of uint32 length + bytes: v4 starts, v4 ranges, v6 starts,
//	          v6 ranges, places, countries, system starts, systems, and then
//	          words index and words
//
// Ranges, places and systems are in pages: uint32 count, that many uint32 ends,
// and then the pages, each of at most PageSize bytes and deflated (RFC 1951).
// All but the first Preset pages of a section are deflated with those as the
// preset dictionary.
//
// Ranges cover the whole space of their family; each begins where the one
// before ended. The first one of a page begins at that page's start (4 or 16
// bytes). A range is one byte - bit 7: the step is not a power of two; bit 6:
// the place is that of the range before the last; bits 0 to 5: the code of the
// step's trailing zeros - and then, as needed, the trailing zeros themselves (1
// byte if the code is 63), (step>>zeros-1)/2 and the place, as uvarints. The
// step is from the last range's start; in the first range of a page it is
// absent.
//
// A place is 0 (nothing known) or 1 + the index of a uint32 in places: 1 +
// index of the AS (0 none) in the upper 24 bits, index of the country in the
// lower 8; a page has the first bytes of all, then the second ones, and so on.
// Countries are two letters each. Systems are (ASN step, length, name); the
// start of a page is the index of its first system and the ASN before it, each
// a uint32. In a name the bytes 1 to 31 begin a two-byte code of a word.
const (
	Magic    = "govahgeo"
	Layout   = 2
	PageSize = 16 << 10
	Preset   = 2

	FlagStep = 0x80 // the step is not a power of two
	FlagBack = 0x40 // the place is that of the range before the last
	Escape   = 0x3f // the trailing zeros follow in a byte
	Top6     = 112  // an IPv6 step of so many zeros has code 0; in IPv4 zeros and code are the same
)

//go:embed dbip.bin
var packed string

var table = open(packed)

type tables struct {
	version          string
	v4, v6           family
	places           pages
	countries        string
	systemStarts     string
	systems          pages
	wordIndex, words string
}

// family is the ranges of one address family.
type family struct {
	starts string
	ranges pages
	bytes  int // of an address
	top    int // zeros = top-code; negative: zeros = code
}

// pages is a section that is inflated a page at a time, of which the last few
// are kept: at most 256 KB.
type pages struct {
	ends, data string
	kept       [16]atomic.Pointer[page]
	preset     func() []byte // the first pages
}

type page struct {
	number int
	text   string
}

var inflaters = sync.Pool{New: func() any { return flate.NewReader(strings.NewReader("")) }}

// cut finds the ends of a section's pages.
func (p *pages) cut(section string) {
	n := int(be32(section, 0))
	p.ends, p.data = section[4:4+4*n], section[4+4*n:]
	p.preset = sync.OnceValue(func() []byte {
		var b []byte
		for i := range min(n, Preset) {
			b = append(b, p.inflate(i, nil)...)
		}
		return b
	})
}

// page is one page. It panics where the table is damaged, as it would where an
// index leads outside.
func (p *pages) page(n int) string {
	slot := &p.kept[n%len(p.kept)]
	if k := slot.Load(); k != nil && k.number == n {
		return k.text
	}
	var preset []byte
	if n >= Preset {
		preset = p.preset()
	}
	text := p.inflate(n, preset)
	slot.Store(&page{n, text})
	return text
}

func (p *pages) inflate(n int, preset []byte) string {
	from := 0
	if n > 0 {
		from = int(be32(p.ends, 4*(n-1)))
	}
	r := inflaters.Get().(io.ReadCloser)
	defer inflaters.Put(r)
	var b strings.Builder
	b.Grow(PageSize)
	err := r.(flate.Resetter).Reset(strings.NewReader(p.data[from:be32(p.ends, 4*n)]), preset)
	if err == nil {
		_, err = io.Copy(&b, r)
	}
	if err != nil {
		panic("geo: the table is damaged: " + err.Error())
	}
	return b.String()
}

// open finds the sections. The table is part of the program, and a test says
// that it is whole; one of another layout is empty, so that ./gen, which
// imports this package, can replace it.
func open(s string) *tables {
	t := &tables{}
	if len(s) < len(Magic)+2 || s[:len(Magic)] != Magic || s[len(Magic)] != Layout {
		return t
	}
	n := int(s[len(Magic)+1])
	s = s[len(Magic)+2:]
	t.version, s = s[:n], s[n:]
	next := func() (section string) {
		n := be32(s, 0)
		section, s = s[4:4+n], s[4+n:]
		return section
	}
	t.v4.bytes, t.v4.top, t.v4.starts = 4, -1, next()
	t.v4.ranges.cut(next())
	t.v6.bytes, t.v6.top, t.v6.starts = 16, Top6, next()
	t.v6.ranges.cut(next())
	t.places.cut(next())
	t.countries, t.systemStarts = next(), next()
	t.systems.cut(next())
	t.wordIndex, t.words = next(), next()
	return t
}

// start is the first address of a page.
func (f *family) start(page int) u128 {
	at := page * f.bytes
	if f.bytes == 4 {
		return u128{lo: uint64(be32(f.starts, at))}
	}
	return u128{be64(f.starts, at), be64(f.starts, at+8)}
}

// find is the place of an address.
func (f *family) find(key u128) uint64 {
	n := sort.Search(len(f.starts)/f.bytes, func(i int) bool { return key.less(f.start(i)) })
	if n == 0 {
		return 0
	}
	start, ranges := f.start(n-1), f.ranges.page(n-1)
	var place, last, before uint64
	for at := 0; at < len(ranges); {
		first := at == 0
		head := ranges[at]
		at++
		if !first {
			zeros := int(head & Escape)
			if zeros == Escape {
				zeros = int(ranges[at])
				at++
			} else if f.top >= 0 {
				zeros = f.top - zeros
			}
			step := u128{lo: 1}
			if head&FlagStep != 0 {
				var n int
				step, n = uvarint(ranges[at:])
				at += n
				step = step.shift(1)
				step.lo |= 1
			}
			start = start.add(step.shift(zeros))
			if key.less(start) {
				return place
			}
		}
		if head&FlagBack != 0 {
			place = before
		} else {
			p, n := uvarint(ranges[at:])
			at += n
			place = p.lo
		}
		before, last = last, place
	}
	return place
}

// place is the AS and country that a place has, packed in a uint32.
func (t *tables) place(i int) uint32 {
	const perPage = PageSize / 4
	p := t.places.page(i / perPage)
	n := len(p) / 4
	i %= perPage
	return uint32(p[i])<<24 | uint32(p[n+i])<<16 | uint32(p[2*n+i])<<8 | uint32(p[3*n+i])
}

// system is the number and the name of an AS by its index.
func (t *tables) system(i int) (asn int, name string) {
	page := sort.Search(len(t.systemStarts)/8, func(k int) bool { return i < int(be32(t.systemStarts, k*8)) }) - 1
	k := int(be32(t.systemStarts, page*8))
	asn = int(be32(t.systemStarts, page*8+4))
	systems := t.systems.page(page)
	for at := 0; ; k++ {
		step, n := uvarint(systems[at:])
		at += n
		asn += int(step.lo)
		length, n := uvarint(systems[at:])
		at += n
		if k == i {
			return asn, t.expand(systems[at : at+int(length.lo)])
		}
		at += int(length.lo)
	}
}

// expand replaces the codes of words in a name.
func (t *tables) expand(s string) string {
	b := make([]byte, 0, 64)
	for i := 0; i < len(s); i++ {
		if c := s[i]; c > 31 {
			b = append(b, c)
			continue
		}
		w := (int(s[i])-1)*256 + int(s[i+1])
		i++
		b = append(b, t.words[be32(t.wordIndex, w*4):be32(t.wordIndex, w*4+4)]...)
	}
	return string(b)
}

// u128 is an address as a number.
type u128 struct{ hi, lo uint64 }

func (a u128) less(b u128) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

func (a u128) add(b u128) u128 {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, _ := bits.Add64(a.hi, b.hi, carry)
	return u128{hi, lo}
}

func (a u128) shift(n int) u128 {
	if n >= 64 {
		return u128{hi: a.lo << (n - 64)}
	}
	return u128{a.hi<<n | a.lo>>(64-n), a.lo << n}
}

// uvarint is binary.Uvarint for up to 128 bits.
func uvarint(s string) (v u128, n int) {
	for shift := 0; ; shift += 7 {
		c := s[n]
		n++
		part := u128{lo: uint64(c & 0x7f)}.shift(shift)
		v.hi, v.lo = v.hi|part.hi, v.lo|part.lo
		if c < 0x80 {
			return v, n
		}
	}
}

func be32(s string, at int) uint32 {
	_ = s[at+3]
	return uint32(s[at])<<24 | uint32(s[at+1])<<16 | uint32(s[at+2])<<8 | uint32(s[at+3])
}

func be64(s string, at int) uint64 { return uint64(be32(s, at))<<32 | uint64(be32(s, at+4)) }
