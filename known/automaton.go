package known

import (
	"slices"
	"sort"
)

// automaton finds all of a set of strings in one pass over a text (Aho and
// Corasick 1975), with the failure links resolved into one transition table,
// so that each byte costs one look-up whatever the patterns are. S numbers its
// states: two bytes keep a table of 65,536 states half as large in the cache.
type automaton[S uint16 | uint32] struct {
	// class maps a byte to a column; bytes of no pattern share column 0.
	class [256]uint8
	// next holds the rows of the table, 1<<shift columns each.
	next  []S
	shift uint
	// accepting is the first state at which a pattern ends: states are
	// numbered so that one comparison tells. none says that there is none.
	accepting S
	none      bool
	// rows of the patterns that end at a state, from accepting on.
	rows [][]int
	// overlap is how far before a place a pattern can begin that ends there.
	overlap int
}

// searcher is an automaton of either width.
type searcher interface {
	// search calls found with the row of each pattern that occurs and where it
	// ends, in no order, each time.
	search(text []byte, found func(row, end int))
	// size is that of the transition table in bytes.
	size() int
}

// states counts those of an automaton over patterns, and columns.
func dimensions(patterns []string) (states, columns int) {
	var used [256]bool
	sorted := slices.Clone(patterns)
	sort.Strings(sorted)
	states, columns = 1, 1
	before := ""
	for _, p := range sorted {
		common := 0
		for common < len(p) && common < len(before) && p[common] == before[common] {
			common++
		}
		states += len(p) - common
		before = p
		for i := 0; i < len(p); i++ {
			if !used[p[i]] {
				used[p[i]] = true
				columns++
			}
		}
	}
	return states, min(columns, 256)
}

// tableBytes is the size of the table that newSearcher would make.
func tableBytes(patterns []string) int {
	states, columns := dimensions(patterns)
	width := 1
	for width < columns {
		width *= 2
	}
	if states <= 1<<16 {
		return states * width * 2
	}
	return states * width * 4
}

// newSearcher makes the narrowest automaton that holds patterns, none of them
// empty. rows[i] is what is reported for patterns[i].
func newSearcher(patterns []string, rows []int) searcher {
	if states, _ := dimensions(patterns); states <= 1<<16 {
		return newAutomaton[uint16](patterns, rows)
	}
	return newAutomaton[uint32](patterns, rows)
}

// newAutomaton needs that S can number the states of patterns.
func newAutomaton[S uint16 | uint32](patterns []string, rows []int) *automaton[S] {
	a := &automaton[S]{}
	var used [256]bool
	for _, p := range patterns {
		a.overlap = max(a.overlap, len(p)-1)
		for i := 0; i < len(p); i++ {
			used[p[i]] = true
		}
	}
	states, columns := dimensions(patterns)
	column := 1
	if !slices.Contains(used[:], false) {
		column = 0 // no byte is of no pattern
	}
	for b, is := range used {
		if is {
			a.class[b] = uint8(column)
			column++
		}
	}
	for 1<<a.shift < columns {
		a.shift++
	}
	// The trie, one row of the table a node. 0 is the root, which nothing
	// leads to, so that it also says "no edge".
	width := 1 << a.shift
	full := make([]S, width, states*width)
	ends := [][]int{nil} // rows of the patterns that end at a node
	for i, p := range patterns {
		at := 0
		for j := 0; j < len(p); j++ {
			edge := at*width + int(a.class[p[j]])
			if full[edge] == 0 {
				if int(S(len(ends))) != len(ends) {
					panic("known: too many states")
				}
				full[edge] = S(len(ends))
				full = full[:len(full)+width]
				ends = append(ends, nil)
			}
			at = int(full[edge])
		}
		ends[at] = append(ends[at], rows[i])
	}
	// Breadth first: the failure state of a node is complete before it. What
	// ends at that state ends at the node too: shared, not copied, where the
	// node has nothing of its own.
	fail := make([]S, len(ends))
	queue := make([]S, 1, len(ends))
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
				if more := ends[fail[to]]; len(ends[to]) == 0 {
					ends[to] = more
				} else if len(more) > 0 {
					ends[to] = append(ends[to], more...)
				}
				queue = append(queue, to)
			}
		}
	}
	// Renumber: plain states first.
	number := make([]S, len(ends))
	n := 0
	for s, of := range ends {
		if len(of) == 0 {
			number[s] = S(n)
			n++
		}
	}
	a.accepting, a.none = S(n), n == len(ends)
	for s, of := range ends {
		if len(of) > 0 {
			number[s] = S(n)
			a.rows = append(a.rows, of)
			n++
		}
	}
	a.next = make([]S, len(full))
	for s := range ends {
		for c := 0; c < width; c++ {
			a.next[int(number[s])*width+c] = number[full[s*width+c]]
		}
	}
	return a
}

func (a *automaton[S]) size() int {
	return cap(a.next) * int(sizeOf[S]())
}

func sizeOf[S uint16 | uint32]() int {
	if ^S(0) > 1<<15<<1-1 {
		return 4
	}
	return 2
}

// search calls found with the row of each pattern that occurs and where it
// ends. Each look-up waits for the one before it, so that a long text is read as
// four parts side by side, which a processor does at once.
func (a *automaton[S]) search(text []byte, found func(row, end int)) {
	if a.none {
		return
	}
	part := len(text) / 4
	if part < 4*a.overlap || part < 256 {
		a.scan(0, text, 0, found)
		return
	}
	next, shift, accepting := a.next, a.shift&15, a.accepting
	one, two, three, four := text[:part], text[part:2*part], text[2*part:3*part], text[3*part:4*part]
	var s, t, u, v S
	for i := range one {
		s = next[int(s)<<shift|int(a.class[one[i]])]
		t = next[int(t)<<shift|int(a.class[two[i]])]
		u = next[int(u)<<shift|int(a.class[three[i]])]
		v = next[int(v)<<shift|int(a.class[four[i]])]
		if s >= accepting || t >= accepting || u >= accepting || v >= accepting {
			for n, state := range [...]S{s, t, u, v} {
				if state >= accepting {
					for _, row := range a.rows[state-accepting] {
						found(row, n*part+i+1)
					}
				}
			}
		}
	}
	// What begins in one part and ends in the next.
	a.scan(s, two[:a.overlap], part, found)
	a.scan(t, three[:a.overlap], 2*part, found)
	a.scan(u, four[:a.overlap], 3*part, found)
	a.scan(v, text[4*part:], 4*part, found)
}

// scan reads text from a state on; before is how much came before it.
func (a *automaton[S]) scan(s S, text []byte, before int, found func(row, end int)) {
	next, shift, accepting := a.next, a.shift&15, a.accepting
	for i, b := range text {
		s = next[int(s)<<shift|int(a.class[b])]
		if s >= accepting {
			for _, row := range a.rows[s-accepting] {
				found(row, before+i+1)
			}
		}
	}
}
