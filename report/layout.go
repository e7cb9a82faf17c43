package report

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"

	"govah/internal/i18n"
)

// Escape makes text from the network safe to print and at most max cells wide
// (0: any width); what was cut off is marked with an ellipsis.
func Escape(s string, max int) string {
	if max > 0 && len(s) > 16*max {
		s = s[:16*max] // a bound on the work; the cut is invisible below
	}
	s = i18n.Escape(s)
	if max <= 0 || cells(s) <= max {
		return s
	}
	n := 0
	for i, r := range s {
		w := runeCells(r)
		if n+w > max-1 {
			return s[:i] + "…"
		}
		n += w
	}
	return s
}

// runeCells is how many terminal cells r takes: none for marks and format
// characters, two for East Asian wide ones (Unicode Standard Annex #11).
func runeCells(r rune) int {
	if r < 0x300 {
		return 1
	}
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

func cells(s string) int {
	n := 0
	for _, r := range s {
		n += runeCells(r)
	}
	return n
}

// Wrap lays s out for a terminal of 80 columns: its first line is indented by
// first cells, what follows by rest.
func Wrap(s string, first, rest int) string {
	return strings.Repeat(" ", first) + strings.Join(wrap(s, 80, first, rest), "\n"+strings.Repeat(" ", rest))
}

// wrap breaks s into lines of at most limit cells, at spaces where possible,
// else inside a word. A directional isolate that spans a break is closed at
// the end of the line and opened again on the next, because each line of a
// terminal is a paragraph of its own to the bidirectional algorithm. first
// and rest are the cells that the caller puts before the lines.
func wrap(s string, limit, first, rest int) []string {
	var lines []string
	var line strings.Builder
	var open []rune
	used, room := 0, max(limit-first, 8)
	flush := func() {
		text := strings.TrimRight(strings.ReplaceAll(line.String(), string(i18n.NoBreak), " "), " ")
		lines = append(lines, text+strings.Repeat(string(i18n.PDI), len(open)))
		line.Reset()
		for _, r := range open {
			line.WriteRune(r)
		}
		used, room = 0, max(limit-rest, 8)
	}
	for word := range strings.SplitSeq(s, " ") {
		if word == "" {
			continue
		}
		w := cells(word)
		if used > 0 {
			// What is too wide for any line begins where there is room.
			if used+1+w <= room || w > limit-rest && used < room/2 {
				line.WriteByte(' ')
				used++
			} else {
				flush()
			}
		}
		for _, r := range word {
			n := runeCells(r)
			if used+n > room {
				flush()
			}
			line.WriteRune(r)
			used += n
			switch r {
			case i18n.LRI, i18n.FSI, '\u2067':
				open = append(open, r)
			case i18n.PDI:
				if len(open) > 0 {
					open = open[:len(open)-1]
				}
			}
		}
	}
	if used > 0 || len(lines) == 0 {
		flush()
	}
	return lines
}
