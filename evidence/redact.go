package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// DefaultWithheld are the classes that are withheld unless others are named.
var DefaultWithheld = []Class{Client, Location, NetworkName}

// Redaction is what is to be withheld from whoever gets the bundle.
type Redaction struct {
	Classes []Class
	// Also is what must not survive besides what the classes tell.
	Also []Identifier
}

// Redacted is a bundle that was redacted, and what that took.
type Redacted struct {
	Bundle *Bundle // nil if something is left: it must not be given away
	// Searched is what was searched for. Hold it as what it is: the
	// identifiers themselves.
	Searched []Identifier
	// Unsearched are withheld values that are too short, or too common, to be
	// searched for.
	Unsearched []string
	// Widened are leaves that were withheld in addition, because something
	// identifying was in them; by file, class and reason.
	Widened []Widening
	// Whole are classes of which all leaves were withheld in addition, because
	// single ones would have made the file larger.
	Whole []Class
	// Left is what survives of the person and cannot be withheld.
	Left []Leak
	// Stays are words of this program that say the same as something withheld
	// of a server or a network: who runs a known resolver, a known forged
	// address. They tell of the person nothing that the rest does not.
	Stays []Leak
	// Counts is how many leaves of each class are withheld in Bundle.
	Counts Counts
}

// Widening is a number of leaves that were withheld in addition.
type Widening struct {
	File       string
	Class      Class
	Leaves     int
	Identifier int    // in Searched; -1: see Encoding
	Encoding   string // of the first
	From       int    // and where it was, in the bundle that was redacted
}

// piece is a part of a file as it shows: the value of an entry of the table,
// or what stands for withheld leaves (-1).
type piece struct {
	from, to int
	entry    int32
}

// pieces takes the files apart, as place does.
func (b *Bundle) pieces() [][]piece {
	out := make([][]piece, len(b.Files))
	order := inFiles(b.entries)
	for n := range b.Files {
		f := &b.Files[n]
		at, want := 0, uint64(0)
		gap := func(to uint64) {
			from := at
			switch f.Kind {
			case Binary:
				at += int(to - want)
			case Text:
				for ; want < to; want++ {
					if at > 0 && f.Data[at-1] == '"' {
						at += len(withheldText)
					} else {
						at += len(withheldNumber)
					}
				}
			}
			if want = to; at > from {
				out[n] = append(out[n], piece{from, at, -1})
			}
		}
		for ; len(order) > 0 && int(b.entries[order[0]].File) == n; order = order[1:] {
			e := &b.entries[order[0]]
			gap(uint64(e.Position))
			out[n] = append(out[n], piece{at, at + int(e.Length), order[0]})
			at += int(e.Length)
			if want++; f.Kind == Binary {
				want = uint64(e.Position) + uint64(e.Length)
			}
		}
		gap(uint64(f.Size))
	}
	return out
}

// pieceAt is the first piece that ends behind a byte.
func pieceAt(pieces []piece, at int) int {
	i, _ := slices.BinarySearchFunc(pieces, at, func(p piece, at int) int {
		if p.to <= at {
			return -1
		}
		return 1
	})
	return i
}

// covering gives the open entries that [from, to) is in or touches.
func covering(pieces []piece, from, to int) (entries []int32) {
	for i := pieceAt(pieces, from); i < len(pieces) && pieces[i].from < to; i++ {
		if pieces[i].entry >= 0 {
			entries = append(entries, pieces[i].entry)
		}
	}
	return entries
}

// documents are what a reader of the bundle has before him, and of each file
// what it is made of; what is not a file has none.
func (b *Bundle) documents(client, time bool) (docs []*Document, pieces [][]piece) {
	pieces = b.pieces()
	for n := range b.Files {
		f := &b.Files[n]
		d := &Document{Name: viewFolder + f.Name, Data: f.Data, Client: client, Time: time}
		for _, p := range pieces[n] {
			if p.entry < 0 {
				d.Withheld = append(d.Withheld, Range{p.from, p.to})
			}
		}
		docs = append(docs, d)
	}
	docs = append(docs, &Document{Name: noteName, Data: b.note})
	for name, data := range b.Proofs {
		docs = append(docs, &Document{Name: proofFolder + name, Data: data})
	}
	slices.SortFunc(docs[len(b.Files):], func(a, b *Document) int { return strings.Compare(a.Name, b.Name) })
	return docs, pieces
}

// without gives the bundle in which the leaves that away names are withheld.
func (b *Bundle) without(away func(*Entry) bool) *Bundle {
	of := func(i int) []byte { return b.values[i] }
	c := *b
	c.entries = withhold(b.entries, of, away)
	c.Files = render(b.Files, c.entries, opened(b.entries, c.entries, of))
	var err error
	if c.values, err = place(c.Files, c.entries); err != nil {
		panic("evidence: what was withheld cannot be read: " + err.Error())
	}
	return &c
}

// leafKey is a leaf's place, the same in every redaction of a bundle.
type leafKey struct {
	file     uint16
	position uint32
}

func (e *Entry) key() leafKey { return leafKey{e.File, e.Position} }

// maxRounds bounds how often what was learnt is searched for anew.
const maxRounds = 12

// Redact withholds classes of leaves, learns from them what identifies,
// searches all that would stay readable for it and for what narrows it, and
// withholds the leaves that hold it as well. The root, the signature and every
// proof stay good. The file is never larger. What survives where nothing can
// be withheld is in Left, and then there is no Bundle.
func (b *Bundle) Redact(r Redaction) (*Redacted, error) {
	away := redacting{Bundle: b, out: &Redacted{}, leaves: map[leafKey]bool{}, ids: map[string]bool{}, sums: map[Hash]bool{}, why: map[reason]int{}}
	for _, c := range r.Classes {
		if c == None || c >= classes {
			return nil, fmt.Errorf("evidence: leaves of class %v cannot be withheld", c)
		}
		away.classes[c] = true
	}
	for _, id := range r.Also {
		away.search(id)
	}
	if err := away.learn(); err != nil {
		return nil, err
	}
	// The bundle as it is tells where identifiers stand, the leaves that go
	// anyway included, and so which digests are of them.
	if err := away.round(b, true); err != nil {
		return nil, err
	}
	for range maxRounds {
		before := len(away.leaves) + len(away.ids) + len(away.sums)
		c := b.without(away.away)
		if err := away.round(c, false); err != nil {
			return nil, err
		}
		away.receipts(c)
		if len(away.leaves)+len(away.ids)+len(away.sums) > before {
			continue
		}
		if len(away.out.Left) > 0 {
			return away.out, nil
		}
		c, err := away.fit(c)
		if err != nil {
			return nil, err
		}
		away.out.Bundle, away.out.Counts = c, c.Withheld()
		return away.out, nil
	}
	return nil, errors.New("evidence: redacting: what is withheld leads to ever more that must be; withhold whole classes")
}

// redacting is the work on one bundle.
type redacting struct {
	*Bundle
	out     *Redacted
	classes [classes]bool
	leaves  map[leafKey]bool
	ids     map[string]bool
	sums    map[Hash]bool   // that are in out.Searched
	from    map[leafKey]int // where each open leaf begins in its file
	why     map[reason]int  // index in out.Widened
	known   map[netip.Addr]bool
}

// away says whether a leaf is to be withheld. Nothing is, without the
// renderings that show it.
func (r *redacting) away(e *Entry) bool {
	return r.classes[e.Class] || r.leaves[e.key()] || e.Class == Rendering && r.any()
}

func (r *redacting) any() bool {
	return len(r.leaves) > 0 || r.classes != [classes]bool{} || slices.ContainsFunc(r.entries, func(e Entry) bool { return !e.Open })
}

func (r *redacting) search(id Identifier) {
	if k := id.key(); !r.ids[k] {
		r.ids[k] = true
		r.out.Searched = append(r.out.Searched, id)
	}
}

// learn takes the identifiers out of the leaves that are withheld, and the
// addresses that are not the client's out of the others.
func (r *redacting) learn() error {
	r.known = map[netip.Addr]bool{}
	for i := range r.entries {
		if e := &r.entries[i]; e.Open && (e.Class == Target || e.Class == Network) && r.Files[e.File].Kind == Text {
			if a, ok := addressIn(unquote(r.values[i])); ok {
				r.known[a] = true
			}
		}
	}
	pieces := r.pieces()
	r.from = map[leafKey]int{}
	for n := range r.Files {
		for _, p := range pieces[n] {
			if p.entry >= 0 {
				r.from[r.entries[p.entry].key()] = p.from
			}
		}
		f := &r.Files[n]
		if frames, ok := framesOf(f.Data); ok && f.Kind == Binary {
			r.learnFrames(f, frames, pieces[n])
		}
	}
	short := map[string]bool{}
	for i := range r.entries {
		e := &r.entries[i]
		if !e.Open || !r.classes[e.Class] || e.Class >= Foreign {
			continue
		}
		if len(r.out.Searched) > maxIdentifiers {
			return fmt.Errorf("evidence: redacting: what is withheld holds more than %d identifiers; withhold fewer classes", maxIdentifiers)
		}
		from := "what is withheld of class " + e.Class.String()
		if r.Files[e.File].Kind == Binary {
			if e.Class == NetworkName {
				r.learnHardware(r.values[i], from)
			}
			continue
		}
		if text := unquote(r.values[i]); !r.learnText(text, e.Class, from) && !short[text] {
			short[text] = true
			r.out.Unsearched = append(r.out.Unsearched, text)
		}
	}
	return nil
}

const maxIdentifiers = 1 << 16

// learnFrames takes the client's addresses out of a capture: those of class
// Client in the headers of its packets. Of a packet whose direction is not
// known both ends are; then what is in more than half of them is the client,
// and of the rest only the addresses themselves are searched for.
func (r *redacting) learnFrames(f *File, frames []capturedFrame, pieces []piece) {
	if !r.classes[Client] {
		return
	}
	client := func(a Range) bool {
		on := covering(pieces, a.From, a.To)
		return len(on) == 1 && r.entries[on[0]].Class == Client
	}
	const from = "the packets' own addresses"
	either, n := map[netip.Addr]int{}, 0
	for _, frame := range frames {
		h, ok := headersOf(f.Data, frame.at, frame.end)
		if !ok {
			continue
		}
		src, _ := netip.AddrFromSlice(f.Data[h.src.From:h.src.To])
		dst, _ := netip.AddrFromSlice(f.Data[h.dst.From:h.dst.To])
		switch mine, theirs := client(h.src), client(h.dst); {
		case mine && theirs:
			n++
			either[src]++
			either[dst]++
		case mine || theirs:
			if theirs {
				src, dst = dst, src
			}
			r.known[dst] = true
			if id, ok := AddressIdentifier(src, from); ok {
				r.search(id)
			}
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(either), netip.Addr.Compare) {
		if id, ok := AddressIdentifier(a, from); ok && (2*either[a] > n || !r.known[a]) {
			id.Exact = 2*either[a] <= n
			r.search(id)
		}
	}
}

// learnHardware takes hardware addresses out of the heads of frames, and names
// out of what describes an interface.
func (r *redacting) learnHardware(b []byte, from string) {
	macs := map[int][]int{6: {0}, 12: {0, 6}, 14: {6}, 18: {10}}[len(b)] // Ethernet, Linux' cooked captures
	for _, at := range macs {
		m := b[at : at+6]
		if m[0]&1 == 0 && !zero(m) { // not a group's
			r.search(Identifier{Kind: KindHardware, MAC: slices.Clone(m), From: from})
		}
	}
	if macs == nil && len(b) >= 6 && !slices.ContainsFunc(b, func(c byte) bool { return c < ' ' || c == 0x7f }) {
		if id, err := TextIdentifier(string(b), from); err == nil {
			r.search(id)
		}
	}
}

// vocabulary are values of identifying fields that identify nobody.
var vocabulary = []string{"wifi", "ethernet", "mobile", "cellular", "wired", "unknown", "other", "none"}

// learnText takes what a value identifies with; false if it is too short or
// too common to search for.
func (r *redacting) learnText(text string, c Class, from string) bool {
	if a, ok := addressIn(text); ok {
		id, ok := AddressIdentifier(a, from)
		if id.Exact = c != Client; ok {
			r.search(id)
		}
		return true
	}
	if b, err := hex.DecodeString(text); err == nil && len(b) == sha256.Size {
		r.search(Identifier{Kind: KindDigest, Sum: b, From: from})
		return true
	}
	if u, err := url.Parse(text); err == nil && u.Host != "" {
		text = u.Hostname()
	}
	if strings.Trim(text, "+-.:0123456789") == "" || slices.Contains(vocabulary, strings.ToLower(text)) {
		return len(text) == 0
	}
	id, err := TextIdentifier(text, from)
	if id.Exact = c == Target || c == Network; err != nil || id.Exact && len(text) < 5 {
		return false
	}
	r.search(id)
	return true
}

// unquote reads what stands between the quotation marks of JSON.
func unquote(b []byte) string {
	var s string
	if json.Unmarshal(slices.Concat([]byte(`"`), b, []byte(`"`)), &s) != nil {
		return string(b)
	}
	return s
}

// addressIn reads an address, with or without a port, or the host of a URL.
func addressIn(s string) (netip.Addr, bool) {
	if u, err := url.Parse(s); err == nil && u.Host != "" {
		s = u.Host
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return a.Unmap().WithZone(""), err == nil
}

// round searches what c shows, and notes the leaves of the bundle that is
// redacted which must go besides. first: c is that bundle itself.
func (r *redacting) round(c *Bundle, first bool) error {
	s := NewScanner(r.out.Searched)
	s.known = r.known
	docs, pieces := c.documents(r.classes[Client], r.classes[Time])
	r.out.Left, r.out.Stays = nil, nil
	for n, d := range docs {
		leaks := s.Scan(d)
		if len(leaks) >= maxLeaks {
			return fmt.Errorf("evidence: redacting: %s holds more than %d traces of what is withheld; withhold the whole class", d.Name, maxLeaks)
		}
		for _, l := range leaks {
			found := l // where it stands in c
			var on []int32
			if n < len(c.Files) {
				on = covering(pieces[n], l.From, l.To)
				r.digests(c, on, l)
			}
			// Structure is not withheld where a value can be.
			if values := slices.DeleteFunc(slices.Clone(on), func(i int32) bool { return c.entries[i].Class == None }); len(values) > 0 {
				on = values
			} else {
				// Our own words and numbers, read as an encoding, can spell
				// anything by chance, and so can lengths and flags of packets;
				// nothing was ever encoded in them. The gateway of a redirect
				// was of this class once.
				if len(on) > 0 && (c.Files[n].Kind == Binary && !strings.HasPrefix(l.Encoding, encodingRedirect) || c.Files[n].Kind == Text && strings.Contains(l.Encoding, ", in ")) || first {
					continue
				}
				if len(on) > 0 {
					l = r.before(c, pieces[n], l)
				}
				if len(on) > 0 && l.Identifier >= 0 && r.out.Searched[l.Identifier].Exact {
					r.out.Stays = append(r.out.Stays, l)
				} else {
					r.out.Left = append(r.out.Left, l)
				}
				continue
			}
			if n < len(c.Files) {
				l = r.before(c, pieces[n], l)
			}
			for _, i := range on {
				if e := &c.entries[i]; !r.away(e) {
					r.leaves[e.key()] = true
					r.widen(c, e, l)
				}
			}
			if n < len(c.Files) && l.Identifier >= 0 && r.out.Searched[l.Identifier].Kind == KindDigest {
				r.beside(c, d, pieces[n], found)
			}
		}
	}
	for _, id := range s.Learnt {
		r.search(id)
	}
	for _, sum := range s.sums {
		r.sum(sum)
	}
	if s.anyDigest {
		r.allDigests(c, docs, pieces)
	}
	return nil
}

// allDigests withholds whatever may be the digest of content.
func (r *redacting) allDigests(c *Bundle, docs []*Document, pieces [][]piece) {
	for n := range c.Files {
		if c.Files[n].Kind != Text {
			continue
		}
		for _, p := range pieces[n] {
			if p.entry < 0 || p.to-p.from != hex.EncodedLen(sha256.Size) {
				continue
			}
			e := &c.entries[p.entry]
			if _, err := hex.DecodeString(string(c.values[p.entry])); err != nil || e.Class == None {
				continue
			}
			l := Leak{docs[n].Name, p.from, p.to, -1, "a digest: of what content, is not known, for not all could be searched"}
			if !r.away(e) {
				r.leaves[e.key()] = true
				r.widen(c, e, r.before(c, pieces[n], l))
			}
			r.beside(c, docs[n], pieces[n], l)
		}
	}
}

// before gives a leak with its place in the bundle that is redacted.
func (r *redacting) before(c *Bundle, pieces []piece, l Leak) Leak {
	for _, p := range pieces[pieceAt(pieces, l.From):] {
		if p.entry >= 0 {
			move := r.from[c.entries[p.entry].key()] - p.from
			l.From, l.To = max(l.From, p.from)+move, l.To+move
			return l
		}
	}
	return l
}

// reason is why a leaf went: Widenings are told apart by it.
type reason struct {
	file       uint16
	class      Class
	identifier int
	encoding   string // where there is no identifier
}

// widen counts a leaf that goes because of a leak.
func (r *redacting) widen(c *Bundle, e *Entry, l Leak) {
	k := reason{e.File, e.Class, l.Identifier, ""}
	if l.Identifier < 0 {
		k.encoding = l.Encoding
	}
	i, ok := r.why[k]
	if !ok {
		i = len(r.out.Widened)
		r.why[k] = i
		r.out.Widened = append(r.out.Widened, Widening{c.Files[e.File].Name, e.Class, 0, l.Identifier, l.Encoding, l.From})
	}
	r.out.Widened[i].Leaves++
}

// digests notes what content that holds an identifier hashes to: who knows
// the rest of the content could try all addresses.
func (r *redacting) digests(c *Bundle, on []int32, l Leak) {
	if l.Identifier < 0 || r.out.Searched[l.Identifier].Kind == KindDigest {
		return
	}
	for _, i := range on {
		if e := &c.entries[i]; e.Class != Foreign && e.Class != Payload {
			continue
		}
		v := c.values[i]
		r.sum(sha256.Sum256(v))
		if raw, err := base64.StdEncoding.DecodeString(string(v)); err == nil {
			r.sum(sha256.Sum256(raw))
		}
		if raw, err := hex.DecodeString(string(v)); err == nil {
			r.sum(sha256.Sum256(raw))
		}
	}
}

func (r *redacting) sum(h Hash) {
	if !r.sums[h] {
		r.sums[h] = true
		r.search(Identifier{Kind: KindDigest, Sum: h[:], From: "the digest of content that holds another identifier"})
	}
}

// beside withholds the similarity hash next to a digest of a page that holds
// an identifier: most of its bits follow from the rest of the page.
func (r *redacting) beside(c *Bundle, d *Document, pieces []piece, l Leak) {
	next := []byte(`","simhash":"`)
	if l.To > len(d.Data) || !bytes.HasPrefix(d.Data[l.To:], next) {
		return
	}
	for _, i := range covering(pieces, l.To+len(next), l.To+len(next)+1) {
		if e := &c.entries[i]; e.Class != None && !r.away(e) {
			r.leaves[e.key()] = true
			r.widen(c, e, l)
		}
	}
}

// least is a size that the bundle had at least before anything was withheld:
// its own if nothing is.
func (b *Bundle) least() (int, error) {
	data, err := b.Bytes()
	n, withheld := len(data), int(b.Withheld().Total())
	if err != nil || withheld == 0 {
		return n, err
	}
	const row = 1 + SaltBytes + 3 // of a leaf, its numbers in one byte each
	table, hashes := slack, 0
	for i := range b.entries {
		if !b.entries[i].Open {
			hashes++
		}
	}
	table += len(encodeTable(b.entries)) - hashes*(1+sha256.Size)
	table += withheld * (row + 1 - len(withheldText))
	return max(n, n-len(encodeTable(b.entries))+table), nil
}

// fit makes sure that the file is not larger than the one it was made from: a
// single short value takes less room than the hash that stands for it, a class
// of them does not (see slack).
func (r *redacting) fit(c *Bundle) (*Bundle, error) {
	limit, err := r.least()
	if err != nil {
		return nil, err
	}
	for {
		data, err := c.Bytes()
		if err != nil || len(data) <= limit {
			return c, err
		}
		// The class with the most leaves that went one by one.
		var single [classes]int
		for i := range r.entries {
			if e := &r.entries[i]; e.Open && !r.classes[e.Class] && r.leaves[e.key()] {
				single[e.Class]++
			}
		}
		most := None
		for k, n := range single {
			if n > single[most] {
				most = Class(k)
			}
		}
		if most == None {
			return c, nil
		}
		r.classes[most] = true
		r.out.Whole = append(r.out.Whole, most)
		c = r.without(r.away)
		if r.receipts(c) { // the class had parts of what they are about
			c = r.without(r.away)
		}
	}
}
