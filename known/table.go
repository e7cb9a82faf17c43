package known

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"

	"govah/measure"
)

// Table is a set of rows that answers are compared with: those shipped
// (Shipped) and perhaps lists of the user's own (With). The package's
// functions use the shipped one. A Table does not change and may be used by
// many at once.
type Table struct {
	signatures []Signature
	byID       map[string]int
	body       searcher
	// tail says of a row what finding what the automaton holds of it means:
	// everything, that the row must be looked for (lookOnce), or that it may
	// begin this many bytes before the place.
	tail []int
	// headers holds the rows of each header name, packets those of each mark,
	// banners those of greetings.
	headers   map[string][]int
	packets   map[string][]int
	banners   []int
	addresses map[netip.Addr]*Address
}

const (
	// The automaton's table stays within tidy if it can, for the cache. With
	// very many rows it holds shorter pieces of their patterns.
	tidy      = 16 << 20
	tableMost = 128 << 20
)

// pieces are the lengths that patterns are cut to, one after another, until the
// table is small enough; 0 cuts nothing.
var pieces = []struct{ bytes, table int }{{0, tidy}, {32, tidy}, {16, tidy}, {8, tableMost}, {4, tableMost}, {shortest, tableMost}}

const (
	everything = 0
	lookOnce   = -1
)

var shipped = sync.OnceValue(func() *Table {
	t, err := newTable(shippedSignatures(), addressTable())
	if err != nil {
		panic("known: " + err.Error())
	}
	return t
})

// Shipped is the table of the rows that are part of this version.
func Shipped() *Table { return shipped() }

// With is t and the rows of lists, which come after those of t; they are found
// in the same pass. Where a row of t has the same place and pattern, or
// describes the same address, that of t holds. A row's id is changed (~2, ~3,
// …) if t has another of that name. The innocent texts of this version come
// first, also for a list that an older one saved: see Innocent.
//
// It fails if a row is none that Import would make, or if there are too many:
// 100,000, or a search table of more than 128 MB, which takes that many rows of
// text with nothing in common.
func (t *Table) With(lists ...*List) (*Table, error) {
	signatures, addresses := slices.Clone(t.signatures), map[netip.Addr]*Address{}
	maps.Copy(addresses, t.addresses)
	have, ids := map[place]bool{}, map[string]bool{}
	for i := range signatures {
		have[placeOf(&signatures[i])], ids[signatures[i].ID] = true, true
	}
	for _, a := range addresses {
		ids[a.ID] = true
	}
	rows, steps := 0, 0
	for _, l := range lists {
		if rows += len(l.Signatures) + len(l.Addresses); rows > MaxListRows {
			return nil, fmt.Errorf("more than %d rows", MaxListRows)
		}
		for _, s := range l.Signatures {
			n, err := s.check()
			if steps += n; err == nil && steps > maxSteps {
				err = errTooManySteps
			}
			if err != nil {
				return nil, fmt.Errorf("row %s: %w", s.ID, err)
			}
			if p := placeOf(&s); !have[p] {
				have[p] = true
				s.ID = unusedID(ids, s.ID)
				s.lower()
				signatures = append(signatures, s)
			}
		}
		for _, a := range l.Addresses {
			if err := a.check(); err != nil {
				return nil, fmt.Errorf("row %s: %w", a.ID, err)
			}
			if addresses[a.Addr] == nil {
				a.ID = unusedID(ids, a.ID)
				addresses[a.Addr] = &a
			}
		}
	}
	return newTable(signatures, addresses)
}

// place is what makes two rows the same.
type place struct{ where, pattern string }

func placeOf(s *Signature) place { return place{s.Where, s.Pattern} }

// unusedID is id or the next of its kind that ids lacks, and puts it there.
func unusedID(ids map[string]bool, id string) string {
	free := id
	for n := 2; ids[free]; n++ {
		free = fmt.Sprintf("%s~%d", id, n)
	}
	ids[free] = true
	return free
}

func newTable(signatures []Signature, addresses map[netip.Addr]*Address) (*Table, error) {
	t := &Table{signatures: signatures, byID: map[string]int{}, tail: make([]int, len(signatures)), headers: map[string][]int{}, packets: map[string][]int{}, addresses: addresses}
	var patterns []string
	var rows []int
	for i := range t.signatures {
		s := &t.signatures[i]
		if _, twice := t.byID[s.ID]; twice || s.Pattern == "" {
			return nil, fmt.Errorf("row %s is there twice or has no pattern", s.ID)
		}
		t.byID[s.ID] = i
		literal := s.Pattern
		if s.Match == "regexp" {
			tree, err := syntax.Parse(s.Pattern, syntax.Perl)
			if err == nil && s.regexp == nil {
				s.regexp, err = regexp.Compile(s.Pattern)
			}
			if err != nil {
				return nil, fmt.Errorf("row %s: %w", s.ID, err)
			}
			literal = requiredLiteral(tree)
		}
		if name, isHeader := strings.CutPrefix(s.Where, "header:"); isHeader {
			t.headers[name] = append(t.headers[name], i)
			continue
		}
		if name := s.mark(); name != "" {
			t.packets[name] = append(t.packets[name], i)
			continue
		}
		if s.Where == "banner" {
			t.banners = append(t.banners, i)
			continue
		}
		if s.Where != "body" || literal == "" {
			return nil, fmt.Errorf("row %s: looks nowhere, or for nothing certain", s.ID)
		}
		if s.Match != "contains" {
			t.tail[i] = lookOnce
		}
		patterns, rows = append(patterns, literal), append(rows, i)
	}
	var cut []string
	var tails []int
	for _, p := range pieces {
		if cut, tails = cutAll(patterns, p.bytes); tableBytes(cut) <= p.table {
			break
		}
	}
	if n := tableBytes(cut); n > tableMost {
		return nil, fmt.Errorf("the patterns of %d rows need a search table of %d MB, more than %d", len(signatures), n>>20, tableMost>>20)
	}
	for j, i := range rows {
		if t.tail[i] != lookOnce && len(cut[j]) < len(patterns[j]) {
			t.tail[i] = tails[j]
		}
	}
	t.body = newSearcher(cut, rows)
	return t, nil
}

// cutAll takes from each pattern the k bytes in a row that are rarest in all
// of them: <title> and http://www. begin many patterns and stand in most
// pages. tails says how many bytes of the pattern there are to their end.
func cutAll(patterns []string, k int) (out []string, tails []int) {
	if k == 0 {
		return patterns, make([]int, len(patterns))
	}
	count := make([]int, 1<<16)
	for _, p := range patterns {
		for i := 1; i < len(p); i++ {
			count[int(p[i-1])<<8|int(p[i])]++
		}
	}
	out, tails = make([]string, len(patterns)), make([]int, len(patterns))
	for j, p := range patterns {
		if len(p) <= k {
			out[j], tails[j] = p, len(p)
			continue
		}
		sum, best, at := 0, 0, 0
		for i := 1; i < len(p); i++ {
			sum += count[int(p[i-1])<<8|int(p[i])]
			if i < k-1 {
				continue
			}
			if i == k-1 {
				best = sum
			} else if sum -= count[int(p[i-k])<<8|int(p[i-k+1])]; sum < best {
				best, at = sum, i-k+1
			}
		}
		out[j], tails[j] = p[at:][:k], at+k
	}
	return out, tails
}

// requiredLiteral is the longest string found that every match of re contains,
// "" if it finds none: the automaton looks for it, and only then the
// expression runs.
func requiredLiteral(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 {
			return string(re.Rune)
		}
	case syntax.OpCapture, syntax.OpPlus:
		return requiredLiteral(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return requiredLiteral(re.Sub[0])
		}
	case syntax.OpConcat:
		best := ""
		for _, sub := range re.Sub {
			if l := requiredLiteral(sub); len(l) > len(best) {
				best = l
			}
		}
		return best
	}
	return ""
}

// Signatures lists all rows about the content of answers, in their order.
func (t *Table) Signatures() []Signature {
	return append([]Signature(nil), t.signatures...)
}

// SignatureOf finds the row that a Match came from.
func (t *Table) SignatureOf(row string) (Signature, bool) {
	i, ok := t.byID[row]
	if !ok {
		return Signature{}, false
	}
	return t.signatures[i], true
}

// AddressOf finds the row about addr, whatever the record's TTL was.
func (t *Table) AddressOf(addr netip.Addr) (Address, bool) {
	if a := t.addresses[addr.Unmap().WithZone("")]; a != nil {
		return *a, true
	}
	return Address{}, false
}

// ForgedAddress says whether a record with this address (and TTL in seconds,
// -1 if not known) is one that forgers or filters give out and nobody else.
// Rows that hold for a genuine server too (safesearch, innocent) do not count.
func (t *Table) ForgedAddress(addr netip.Addr, ttlS int64) (measure.Match, bool) {
	a, ok := t.AddressOf(addr)
	if !ok || a.Kind == "safesearch" || a.Kind == "innocent" || a.TTLS >= 0 && a.TTLS != ttlS {
		return measure.Match{}, false
	}
	return a.match(), true
}

// Match names every row that the evidence carries, in the order of the rows,
// each once. The body is read once, whatever the number of rows; what needs a
// second look there (an expression, a very long pattern) gets one.
//
// Of imported rows it names none if the evidence carries an imported row of
// kind innocent (the lists' authors apply those first) or a shipped one of what
// servers send by themselves, a lookalike or parked page. Rows of kind innocent
// are named by Innocent.
func (t *Table) Match(e Evidence) []measure.Match {
	rows, innocent := t.hits(e)
	return t.matches(rows, func(s *Signature) bool {
		return s.Kind != "innocent" && !(innocent && Imported(s.ID))
	})
}

// MatchHTTP is Match for a recorded answer and its body.
func (t *Table) MatchHTTP(h *measure.HTTP, body []byte) []measure.Match {
	if h == nil {
		return nil
	}
	return t.Match(Evidence{Headers: h.Headers, Location: h.Location, Body: body})
}

func (t *Table) matches(rows []int, wanted func(*Signature) bool) (out []measure.Match) {
	for _, row := range rows {
		if s := &t.signatures[row]; wanted(s) {
			out = append(out, s.match())
		}
	}
	return out
}

// hits are the rows that the evidence carries, in order, and whether one of
// them says that imported ones are to be left out.
func (t *Table) hits(e Evidence) (rows []int, innocent bool) {
	seen := make([]uint8, len(t.signatures))
	location := false
	for _, h := range e.Headers {
		name := strings.ToLower(h.Name)
		location = location || name == "location"
		t.matchHeader(name, h.Value, seen)
	}
	if !location && e.Location != "" {
		t.matchHeader("location", e.Location, seen)
	}
	for _, i := range t.banners {
		if e.Greeting != "" && t.signatures[i].occursIn(e.Greeting) {
			seen[i] = found
		}
	}
	t.body.search(e.Body, func(row, end int) {
		switch s, tail := &t.signatures[row], t.tail[row]; {
		case seen[row] >= missing:
		case tail == everything:
			seen[row] = found
		case tail == lookOnce || seen[row] == placesTried:
			seen[row] = missing
			if s.occursInBody(e.Body) {
				seen[row] = found
			}
		case end >= tail && len(e.Body)-end >= len(s.Pattern)-tail && string(e.Body[end-tail:][:len(s.Pattern)]) == s.Pattern:
			seen[row] = found
		default:
			seen[row]++
		}
	})
	for row, is := range seen {
		if is == found {
			rows = append(rows, row)
			switch t.signatures[row].Kind {
			case "innocent", "lookalike", "parked":
				innocent = true
			}
		}
	}
	return rows, innocent
}

// What is known of a row while a body is read: that it is there, that it is
// not, or at how many places that carry a piece of it it was not.
const (
	found       = 255
	missing     = 254
	placesTried = 250 // then the whole body is searched for it, once
)

func (t *Table) matchHeader(name, value string, seen []uint8) {
	for _, i := range t.headers[name] {
		if t.signatures[i].occursIn(value) {
			seen[i] = found
		}
	}
}

func (s *Signature) occursIn(text string) bool {
	switch s.Match {
	case "contains":
		return strings.Contains(text, s.Pattern)
	case "prefix":
		return strings.HasPrefix(text, s.Pattern)
	case "full":
		return text == s.Pattern
	case "regexp":
		return s.regexp.MatchString(text)
	}
	return false
}

func (s *Signature) occursInBody(body []byte) bool {
	switch s.Match {
	case "contains":
		return bytes.Contains(body, []byte(s.Pattern))
	case "prefix":
		return bytes.HasPrefix(body, []byte(s.Pattern))
	case "full":
		return string(body) == s.Pattern
	case "regexp":
		return s.regexp.Match(body)
	}
	return false
}

var errTooManySteps = errors.New("the regular expressions of the list are too large together")
