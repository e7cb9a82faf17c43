package known

import (
	"sort"
	"strings"

	"govah/measure"
)

// Evidence is what an answer carried.
type Evidence struct {
	Headers []measure.Header
	// Location is the redirect's target where Headers lacks it.
	Location string
	// Body as decoded; searched as a whole.
	Body []byte
}

// Match names every row that the evidence carries, in the order of the rows,
// each once. The body is read once, whatever the number of rows.
func Match(e Evidence) []measure.Match {
	t := compiled()
	hits := map[int]bool{}
	location := false
	for _, h := range e.Headers {
		name := strings.ToLower(h.Name)
		location = location || name == "location"
		t.matchHeader(name, h.Value, hits)
	}
	if !location && e.Location != "" {
		t.matchHeader("location", e.Location, hits)
	}
	t.body.search(e.Body, func(row int) {
		if s := &t.signatures[row]; !hits[row] && (s.regexp == nil || s.regexp.Match(e.Body)) {
			hits[row] = true
		}
	})
	if len(hits) == 0 {
		return nil
	}
	rows := make([]int, 0, len(hits))
	for i := range hits {
		rows = append(rows, i)
	}
	sort.Ints(rows)
	out := make([]measure.Match, len(rows))
	for i, row := range rows {
		out[i] = t.signatures[row].match()
	}
	return out
}

// MatchHTTP is Match for a recorded answer and its body.
func MatchHTTP(h *measure.HTTP, body []byte) []measure.Match {
	if h == nil {
		return nil
	}
	return Match(Evidence{Headers: h.Headers, Location: h.Location, Body: body})
}

func (t *table) matchHeader(name, value string, hits map[int]bool) {
	for _, i := range t.headers[name] {
		s := &t.signatures[i]
		var hit bool
		switch s.Match {
		case "contains":
			hit = strings.Contains(value, s.Pattern)
		case "prefix":
			hit = strings.HasPrefix(value, s.Pattern)
		case "full":
			hit = value == s.Pattern
		case "regexp":
			hit = s.regexp.MatchString(value)
		}
		if hit {
			hits[i] = true
		}
	}
}

// automaton finds all of a set of strings in one pass over a text (Aho and
// Corasick 1975), with the failure links resolved into one transition table,
// so that each byte costs one look-up whatever the patterns are.
type automaton struct {
	// class maps a byte to a column; bytes of no pattern share column 0.
	class [256]uint8
	// next holds the rows of the table, 1<<shift columns each.
	next  []uint16
	shift uint
	// accepting is the first state at which a pattern ends: states are
	// numbered so that one comparison tells.
	accepting uint16
	// rows of the patterns that end at a state, from accepting on.
	rows [][]int
	// overlap is how far before a place a pattern can begin that ends there.
	overlap int
}

func newAutomaton(patterns []string, rows []int) *automaton {
	a := &automaton{}
	columns := 1
	for _, p := range patterns {
		a.overlap = max(a.overlap, len(p)-1)
		for i := 0; i < len(p); i++ {
			if a.class[p[i]] == 0 {
				if columns == 256 {
					panic("known: the patterns use every byte")
				}
				a.class[p[i]] = uint8(columns)
				columns++
			}
		}
	}
	for 1<<a.shift < columns {
		a.shift++
	}
	// The trie, one row of the table a node. 0 is the root, which nothing
	// leads to, so that it also says "no edge".
	width := 1 << a.shift
	bound := 1
	for _, p := range patterns {
		bound += len(p)
	}
	full := make([]uint16, width, bound*width)
	ends := [][]int{nil} // rows of the patterns that end at a node
	for i, p := range patterns {
		at := 0
		for j := 0; j < len(p); j++ {
			edge := at*width + int(a.class[p[j]])
			if full[edge] == 0 {
				if len(ends) == 1<<16 {
					panic("known: too many states for 16 bits")
				}
				full[edge] = uint16(len(ends))
				full = full[:len(full)+width]
				ends = append(ends, nil)
			}
			at = int(full[edge])
		}
		ends[at] = append(ends[at], rows[i])
	}
	// Breadth first: the failure state of a node is complete before it.
	fail := make([]uint16, len(ends))
	queue := make([]uint16, 1, len(ends))
	for ; len(queue) > 0; queue = queue[1:] {
		s := queue[0]
		row, back := full[int(s)*width:][:width], full[int(fail[s])*width:][:width]
		for c, to := range row[:columns] {
			switch {
			case to == 0:
				row[c] = back[c] // at the root: 0
			default:
				if s != 0 {
					fail[to] = back[c]
				}
				ends[to] = append(ends[to], ends[fail[to]]...)
				queue = append(queue, to)
			}
		}
	}
	// Renumber: plain states first.
	number := make([]uint16, len(ends))
	n := uint16(0)
	for s, of := range ends {
		if len(of) == 0 {
			number[s] = n
			n++
		}
	}
	a.accepting = n
	for s, of := range ends {
		if len(of) > 0 {
			number[s] = n
			a.rows = append(a.rows, of)
			n++
		}
	}
	a.next = make([]uint16, len(full))
	for s := range ends {
		for c := 0; c < width; c++ {
			a.next[int(number[s])*width+c] = number[full[s*width+c]]
		}
	}
	return a
}

// search calls found with the row of each pattern that occurs, possibly
// several times. Each look-up waits for the one before it, so that a long text
// is read as four parts side by side, which a processor does at once.
func (a *automaton) search(text []byte, found func(row int)) {
	part := len(text) / 4
	if part < 4*a.overlap || part < 256 {
		a.scan(0, text, found)
		return
	}
	next, shift, accepting := a.next, a.shift&15, a.accepting
	one, two, three, four := text[:part], text[part:2*part], text[2*part:3*part], text[3*part:4*part]
	var s, t, u, v uint16
	for i := range one {
		s = next[int(s)<<shift|int(a.class[one[i]])]
		t = next[int(t)<<shift|int(a.class[two[i]])]
		u = next[int(u)<<shift|int(a.class[three[i]])]
		v = next[int(v)<<shift|int(a.class[four[i]])]
		if s >= accepting || t >= accepting || u >= accepting || v >= accepting {
			for _, state := range [...]uint16{s, t, u, v} {
				if state >= accepting {
					for _, row := range a.rows[state-accepting] {
						found(row)
					}
				}
			}
		}
	}
	// What begins in one part and ends in the next.
	a.scan(s, two[:a.overlap], found)
	a.scan(t, three[:a.overlap], found)
	a.scan(u, four[:a.overlap], found)
	a.scan(v, text[4*part:], found)
}

// scan reads text from a state on.
func (a *automaton) scan(s uint16, text []byte, found func(row int)) {
	next, shift, accepting := a.next, a.shift&15, a.accepting
	for _, b := range text {
		s = next[int(s)<<shift|int(a.class[b])]
		if s >= accepting {
			for _, row := range a.rows[s-accepting] {
				found(row)
			}
		}
	}
}
