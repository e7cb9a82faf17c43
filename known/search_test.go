package known

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A pattern is found wherever it stands in a long text, also across the places
// at which the text is split.
func TestAutomatonFindsAcrossTheParts(t *testing.T) {
	patterns := []string{"needle", "a much longer needle than the others", "ee", "dle"}
	a := newAutomaton[uint16](patterns, []int{0, 1, 2, 3})
	find := func(text []byte) (got [4]bool) {
		a.search(text, func(row, _ int) { got[row] = true })
		return got
	}
	for _, size := range []int{1023, 1024, 1025, 1026, 1027, 1500} {
		for _, p := range patterns {
			for at := 0; at+len(p) <= size; at++ {
				text := bytes.Repeat([]byte("."), size)
				copy(text[at:], p)
				got := find(text)
				for i, q := range patterns {
					if got[i] != strings.Contains(p, q) {
						t.Fatalf("%q at %d of %d: row %d is %v", p, at, size, i, got[i])
					}
				}
			}
		}
	}
}

func TestAutomatonOnLongRandomText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		patterns := rapid.SliceOfNDistinct(rapid.StringMatching(`[ab]{2,12}`), 1, 6, rapid.ID[string]).Draw(t, "patterns")
		rows := make([]int, len(patterns))
		for i := range rows {
			rows[i] = i
		}
		text := strings.Repeat(rapid.StringMatching(`[abc]{1,90}`).Draw(t, "text"), 40)
		got := map[int]bool{}
		newAutomaton[uint16](patterns, rows).search([]byte(text), func(row, _ int) { got[row] = true })
		for i, p := range patterns {
			if got[i] != strings.Contains(text, p) {
				t.Fatalf("pattern %q: %v", p, got[i])
			}
		}
	})
}

// A page that repeats what an expression must contain costs one run of it, not
// one for each time.
func TestExpressionRunsOnceABody(t *testing.T) {
	body := []byte(strings.Repeat("er Gate /webadmin/deny/ &dpruleid= ", 20_000))
	start := time.Now()
	if m := Match(Evidence{Body: body}); len(m) != 0 {
		t.Errorf("%v", m)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("%v for %d bytes", took, len(body))
	}
}
