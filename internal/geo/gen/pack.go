package main

import (
	"bytes"
	"cmp"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"

	"govah/internal/geo"
)

// record is what a network of the database has.
type record struct {
	ASN     uint32 `maxminddb:"autonomous_system_number"`
	Org     string `maxminddb:"autonomous_system_organization"`
	Country struct {
		ISOCode string `maxminddb:"iso_code"`
	} `maxminddb:"country"`
}

// place is what a range of addresses has in common.
type place struct {
	asn     uint32
	country string
}

// span begins where the one before ended.
type span struct {
	start *big.Int
	place place
}

type database struct {
	version string
	v4, v6  []span
	places  map[place]int // how often
	names   map[uint32]string
}

// read takes the networks of a database in order and joins neighbours.
func read(path string) (*database, error) {
	r, err := maxminddb.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	d := &database{
		version: "dbip-" + time.Unix(int64(r.Metadata.BuildEpoch), 0).UTC().Format("2006-01"),
		places:  map[place]int{}, names: map[uint32]string{},
	}
	var end4, end6 *big.Int // where the last network of the family ended
	add := func(list *[]span, end **big.Int, p netip.Prefix, what place) {
		start := new(big.Int).SetBytes(p.Addr().AsSlice())
		if *end == nil {
			*end = new(big.Int)
		}
		put := func(at *big.Int, what place) {
			if n := len(*list); n == 0 || (*list)[n-1].place != what {
				*list = append(*list, span{at, what})
				d.places[what]++
			}
		}
		if start.Cmp(*end) > 0 || len(*list) == 0 && start.Sign() > 0 {
			put(*end, place{})
		}
		put(start, what)
		size := new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits()))
		*end = size.Add(size, start)
	}
	for n := range r.Networks() {
		var rec record
		if err := n.Decode(&rec); err != nil {
			return nil, err
		}
		what := place{rec.ASN, rec.Country.ISOCode}
		if what.country == "ZZ" {
			what.country = ""
		}
		if len(what.country) != 2 && what.country != "" {
			return nil, fmt.Errorf("%v: %q is no country code", n.Prefix(), what.country)
		}
		if rec.ASN != 0 {
			d.names[rec.ASN] = clean(rec.Org)
		}
		if p := n.Prefix(); p.Addr().Is4() {
			add(&d.v4, &end4, p, what)
		} else {
			add(&d.v6, &end6, p, what)
		}
	}
	for _, f := range []struct {
		list *[]span
		end  *big.Int
		bits uint
	}{{&d.v4, end4, 32}, {&d.v6, end6, 128}} {
		if len(*f.list) == 0 {
			return nil, errors.New("the database lacks an address family")
		}
		if whole := new(big.Int).Lsh(big.NewInt(1), f.bits); f.end.Cmp(whole) < 0 {
			*f.list = append(*f.list, span{f.end, place{}})
			d.places[place{}]++
		}
	}
	return d, nil
}

// clean makes a name valid text without the bytes that the packing uses.
func clean(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < 32 || r == 127 {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "")))
}

// pack writes the layout that package geo describes.
func (d *database) pack() (_ []byte, err error) {
	// Frequent places get short numbers; 0 is the empty one.
	delete(d.places, place{})
	order := make([]place, 0, len(d.places))
	for p := range d.places {
		order = append(order, p)
	}
	slices.SortFunc(order, func(a, b place) int {
		return cmp.Or(d.places[b]-d.places[a], cmp.Compare(a.asn, b.asn), strings.Compare(a.country, b.country))
	})
	systems := make([]uint32, 0, len(d.names))
	for asn := range d.names {
		systems = append(systems, asn)
	}
	slices.Sort(systems)
	systemAt := map[uint32]uint32{}
	for i, asn := range systems {
		systemAt[asn] = uint32(i) + 1
	}
	var countries []string
	countryAt := map[string]uint32{}
	for _, p := range order {
		if _, ok := countryAt[p.country]; !ok {
			countryAt[p.country] = uint32(len(countries))
			countries = append(countries, fmt.Sprintf("%-2s", p.country))
		}
	}
	if len(countries) > 256 || len(systems) >= 1<<24 {
		return nil, errors.New("more countries or systems than the layout holds")
	}
	number := map[place]uint64{{}: 0}
	var places []uint32
	for i, p := range order {
		number[p] = uint64(i) + 1
		places = append(places, systemAt[p.asn]<<8|countryAt[p.country])
	}

	starts4, ranges4 := packRanges(d.v4, number, 4)
	starts6, ranges6 := packRanges(d.v6, number, 16)
	codes, wordIndex, words := d.dictionary()
	systemStarts, list := packSystems(systems, d.names, codes)

	var cut [4][]byte
	for i, p := range []*paged{ranges4, ranges6, inColumns(places), list} {
		if cut[i], err = p.section(); err != nil {
			return nil, err
		}
	}
	out := append([]byte(geo.Magic), geo.Layout, byte(len(d.version)))
	out = append(out, d.version...)
	for _, section := range [][]byte{starts4, cut[0], starts6, cut[1], cut[2],
		[]byte(strings.Join(countries, "")), systemStarts, cut[3], wordIndex, words} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(section)))
		out = append(out, section...)
	}
	return out, nil
}

// paged is a section in pages.
type paged struct{ pages [][]byte }

// fits says whether the page that is being filled takes more bytes.
func (p *paged) fits(more int) bool {
	n := len(p.pages)
	return n > 0 && len(p.pages[n-1])+more <= geo.PageSize
}

func (p *paged) begin() { p.pages = append(p.pages, nil) }

func (p *paged) add(b []byte) { p.pages[len(p.pages)-1] = append(p.pages[len(p.pages)-1], b...) }

// inColumns puts the first bytes of all numbers of a page first, and so on.
func inColumns(list []uint32) *paged {
	p := &paged{}
	for chunk := range slices.Chunk(list, geo.PageSize/4) {
		p.begin()
		for shift := 24; shift >= 0; shift -= 8 {
			for _, v := range chunk {
				p.add([]byte{byte(v >> shift)})
			}
		}
	}
	return p
}

// section writes the pages as package geo describes.
func (p *paged) section() ([]byte, error) {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(p.pages)))
	var data bytes.Buffer
	preset := slices.Concat(p.pages[:min(len(p.pages), geo.Preset)]...)
	for i, page := range p.pages {
		var dict []byte
		if i >= geo.Preset {
			dict = preset
		}
		w, err := flate.NewWriterDict(&data, flate.BestCompression, dict)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(page); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		out = binary.BigEndian.AppendUint32(out, uint32(data.Len()))
	}
	return append(out, data.Bytes()...), nil
}

func packRanges(list []span, number map[place]uint64, size int) (starts []byte, out *paged) {
	out = &paged{}
	var before, last uint64
	for i, s := range list {
		n := number[s.place]
		var head byte
		var body []byte
		if i > 0 {
			step := new(big.Int).Sub(s.start, list[i-1].start)
			zeros := int(step.TrailingZeroBits())
			code := zeros
			if size == 16 {
				code = geo.Top6 - zeros
			}
			if code < 0 || code >= geo.Escape {
				head = geo.Escape
				body = append(body, byte(zeros))
			} else {
				head = byte(code)
			}
			if step.Rsh(step, uint(zeros)); step.BitLen() > 1 {
				head |= geo.FlagStep
				body = appendUvarint(body, step.Rsh(step, 1))
			}
		}
		if n == before && i >= 2 {
			head |= geo.FlagBack
		} else {
			body = binary.AppendUvarint(body, n)
		}
		if !out.fits(1 + len(body)) {
			out.begin()
			starts = append(starts, s.start.FillBytes(make([]byte, size))...)
			head, body = 0, binary.AppendUvarint(nil, n)
			last = 0
		}
		before, last = last, n
		out.add(append([]byte{head}, body...))
	}
	return starts, out
}

func appendUvarint(b []byte, v *big.Int) []byte {
	low := big.NewInt(0x7f)
	for v.BitLen() > 7 {
		b = append(b, byte(new(big.Int).And(v, low).Uint64())|0x80)
		v = new(big.Int).Rsh(v, 7)
	}
	return append(b, byte(v.Uint64()))
}

func packSystems(systems []uint32, names map[uint32]string, codes map[string][]byte) (starts []byte, out *paged) {
	out = &paged{}
	var last uint32
	for i, asn := range systems {
		var name []byte
		for _, w := range split(names[asn]) {
			if code, ok := codes[w]; ok {
				name = append(name, code...)
			} else {
				name = append(name, w...)
			}
		}
		one := binary.AppendUvarint(nil, uint64(asn-last))
		one = binary.AppendUvarint(one, uint64(len(name)))
		one = append(one, name...)
		if !out.fits(len(one)) {
			out.begin()
			starts = binary.BigEndian.AppendUint32(starts, uint32(i))
			starts = binary.BigEndian.AppendUint32(starts, last)
		}
		out.add(one)
		last = asn
	}
	return starts, out
}

// split cuts a name before each space, dash and full stop.
func split(s string) (words []string) {
	from := 0
	for i := 1; i < len(s); i++ {
		if s[i] == ' ' || s[i] == '-' || s[i] == '.' || s[i] == ',' {
			words = append(words, s[from:i])
			from = i
		}
	}
	return append(words, s[from:])
}

// dictionary gives two-byte codes to the words that save most.
func (d *database) dictionary() (codes map[string][]byte, index, words []byte) {
	count := map[string]int{}
	for _, name := range d.names {
		for _, w := range split(name) {
			count[w]++
		}
	}
	saves := func(w string) int { return count[w]*(len(w)-2) - len(w) - 4 }
	var list []string
	for w := range count {
		if saves(w) > 0 {
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(a, b string) int { return cmp.Or(saves(b)-saves(a), strings.Compare(a, b)) })
	list = list[:min(len(list), 31*256)]
	codes = map[string][]byte{}
	var all bytes.Buffer
	for i, w := range list {
		codes[w] = []byte{byte(i/256) + 1, byte(i % 256)}
		index = binary.BigEndian.AppendUint32(index, uint32(all.Len()))
		all.WriteString(w)
	}
	index = binary.BigEndian.AppendUint32(index, uint32(all.Len()))
	return codes, index, all.Bytes()
}
