package i18n

import (
	"html"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The characters that isolate a run of text from the direction around it
// (Unicode Standard Annex #9, 2.4).
const (
	LRI = '\u2066' // left-to-right isolate
	FSI = '\u2068' // first-strong isolate
	PDI = '\u2069' // pop directional isolate
	RLM = '\u200f' // right-to-left mark
)

type argKind int

const (
	kindWord argKind = iota
	kindNumber
	kindSize
	kindDuration
	kindLTR
	kindForeign
	kindCommand
	kindSaid
)

// NoBreak stands in a command for a space at which a line must not be broken;
// whoever lays out lines replaces it with a space.
const NoBreak = '\u00a0'

// Arg is one named argument of a message.
type Arg struct {
	name   string
	kind   argKind
	text   string
	number int64
	args   []Arg // of kindSaid, whose key is text
}

// Num is a count in prose.
func Num[N int | int64](name string, n N) Arg {
	return Arg{name: name, kind: kindNumber, number: int64(n)}
}

// Size is a number of bytes, written with a decimal unit (kB, MB).
func Size(name string, bytes int64) Arg { return Arg{name: name, kind: kindSize, number: bytes} }

// Took is a duration in microseconds, written with a fitting unit.
func Took(name string, us int64) Arg { return Arg{name: name, kind: kindDuration, number: us} }

// Word is text of the same language, from this catalogue.
func Word(name, text string) Arg { return Arg{name: name, kind: kindWord, text: text} }

// Said is another message of the catalogue, with arguments of its own.
func Said(name, key string, args ...Arg) Arg {
	return Arg{name: name, kind: kindSaid, text: key, args: args}
}

// LTR is a host, an address, a command, a path or a code: left to right in
// any language, escaped.
func LTR(name, text string) Arg { return Arg{name: name, kind: kindLTR, text: text} }

// Command is what a person can type, kept on one line where it fits: left to
// right, escaped, and <code> in HTML.
func Command(name, text string) Arg { return Arg{name: name, kind: kindCommand, text: text} }

// Foreign is text from the network in a language of its own, escaped.
func Foreign(name, text string) Arg { return Arg{name: name, kind: kindForeign, text: text} }

func (a Arg) plain(l Lang) string {
	switch a.kind {
	case kindNumber:
		return l.Number(a.number)
	case kindSize:
		return l.Size(a.number)
	case kindDuration:
		return l.Duration(a.number)
	case kindLTR:
		return l.IsolateLTR(a.text)
	case kindForeign:
		return l.IsolateForeign(a.text)
	case kindCommand:
		return strings.ReplaceAll(l.IsolateLTR(a.text), " ", string(NoBreak))
	case kindSaid:
		return l.Text(a.text, a.args...)
	}
	return a.text
}

func (a Arg) markup(l Lang) Markup {
	switch a.kind {
	case kindLTR:
		return BDI(a.text)
	case kindForeign:
		return ForeignBDI(a.text)
	case kindCommand:
		return Markup(`<code dir="ltr">` + html.EscapeString(Escape(a.text)) + `</code>`)
	case kindSaid:
		return l.HTML(a.text, a.args...)
	}
	return Markup(html.EscapeString(a.plain(l)))
}

// IsolateLTR is s escaped and, in a right-to-left language, wrapped so that it
// reads left to right. In English nothing is added: what is copied from the
// terminal stays what it was.
func (l Lang) IsolateLTR(s string) string {
	s = Escape(s)
	if l.RTL() || hasRTL(s) {
		return string(LRI) + s + string(PDI)
	}
	return s
}

// IsolateForeign is s escaped and wrapped so that its own first strong letter
// sets its direction and nothing around it moves.
func (l Lang) IsolateForeign(s string) string {
	s = Escape(s)
	if l.RTL() || hasRTL(s) {
		return string(FSI) + s + string(PDI)
	}
	return s
}

// BDI is s escaped as left-to-right isolated HTML.
func BDI(s string) Markup {
	return Markup(`<bdi dir="ltr">` + html.EscapeString(Escape(s)) + `</bdi>`)
}

// ForeignBDI is s escaped as isolated HTML with a direction of its own.
func ForeignBDI(s string) Markup {
	return Markup(`<bdi dir="auto">` + html.EscapeString(Escape(s)) + `</bdi>`)
}

// EscapeHTML is text of this program's own words as HTML.
func EscapeHTML(s string) Markup { return Markup(html.EscapeString(s)) }

func hasRTL(s string) bool {
	for _, r := range s {
		if r >= 0x0590 && (r <= 0x08ff || r >= 0xfb1d && r <= 0xfdff || r >= 0xfe70 && r <= 0xfeff || r >= 0x10800 && r <= 0x10fff || r >= 0x1e800 && r <= 0x1efff) {
			return true
		}
	}
	return false
}

// Escape makes text from anywhere safe to print: whatever is not a printable
// character (control, bidi control, format, invalid UTF-8, private use,
// unassigned, spaces other than U+0020) is written as \n, \t, \xNN or
// \u{NNNN}, and a backslash as \\, so that the result is unambiguous.
// The zero-width (non-)joiner stays between letters of the Arabic script,
// where spelling needs it. Marks that would attach to what precedes the text,
// and the fourth and further marks on one letter, are escaped.
func Escape(s string) string {
	clean := true
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e || s[i] == '\\' {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	marks := 3 // at the start there is no letter to carry a mark
	runes := []rune(s)
	// Invalid bytes need their value, which a []rune has lost.
	at := 0
	for i, r := range runes {
		size := len(string(r))
		if r == unicode.ReplacementChar && !strings.HasPrefix(s[at:], "\ufffd") {
			b.WriteString(`\x`)
			b.WriteString(hex(uint32(s[at]), 2))
			at++
			marks = 3
			continue
		}
		at += size
		mark := unicode.Is(unicode.M, r)
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == 0x200c || r == 0x200d:
			if i == 0 || i+1 == len(runes) || !unicode.Is(unicode.Arabic, runes[i-1]) || !unicode.Is(unicode.Arabic, runes[i+1]) {
				writeEscaped(&b, r)
				break
			}
			b.WriteRune(r)
		case !unicode.IsPrint(r), invisible(r), mark && marks >= 3:
			writeEscaped(&b, r)
			marks = 3
			continue
		default:
			b.WriteRune(r)
		}
		if mark {
			marks++
		} else {
			marks = 0
		}
	}
	return b.String()
}

// invisible reports letters and symbols that Unicode counts as printable and
// that show nothing.
func invisible(r rune) bool {
	switch r {
	case 0x115f, 0x1160, 0x17b4, 0x17b5, 0x2800, 0x3164, 0xffa0, 0x034f:
		return true
	}
	return r >= 0xfe00 && r <= 0xfe0f || r >= 0xe0100 && r <= 0xe01ef || r >= 0x180b && r <= 0x180f
}

func writeEscaped(b *strings.Builder, r rune) {
	b.WriteString(`\u{`)
	b.WriteString(hex(uint32(r), 4))
	b.WriteString(`}`)
}

func hex(n uint32, digits int) string {
	s := strings.ToUpper(strconv.FormatUint(uint64(n), 16))
	for len(s) < digits {
		s = "0" + s
	}
	return s
}

// digits writes ASCII digits, the decimal point and the grouping comma as l
// writes them.
func (l Lang) digits(s string) string {
	if l != Persian {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9':
			return '۰' + r - '0'
		case r == '.':
			return '٫'
		case r == ',':
			return '٬'
		}
		return r
	}, s)
}

// Number is n in prose: grouped by thousands, in the digits of l.
func (l Lang) Number(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if sign != "" && l == Persian {
		return string(LRI) + "−" + l.digits(s) + string(PDI)
	}
	return sign + l.digits(s)
}

// tenths is n/per with one decimal if that is below 10, rounded half up.
func (l Lang) tenths(n, per int64) string {
	if t := (n*10 + per/2) / per; t < 100 {
		if t%10 == 0 {
			return l.Number(t / 10)
		}
		return l.digits(strconv.FormatInt(t/10, 10) + "." + strconv.FormatInt(t%10, 10))
	}
	return l.Number((n + per/2) / per)
}

// Size is a number of bytes with a decimal unit.
func (l Lang) Size(bytes int64) string {
	bytes = max(0, bytes)
	switch {
	case bytes < 1000:
		return l.Text("unit.b", Num("n", bytes))
	case bytes < 999_500:
		return l.Text("unit.kb", Word("n", l.tenths(bytes, 1000)))
	case bytes < 999_500_000:
		return l.Text("unit.mb", Word("n", l.tenths(bytes, 1_000_000)))
	}
	return l.Text("unit.gb", Word("n", l.tenths(min(bytes, 1<<59), 1_000_000_000)))
}

// Rate is a number of bits per second with a decimal unit.
func (l Lang) Rate(bits int64) string {
	bits = max(0, bits)
	if bits < 999_500 {
		return l.Text("unit.kbps", Word("n", l.tenths(bits, 1000)))
	}
	return l.Text("unit.mbps", Word("n", l.tenths(min(bits, 1<<59), 1_000_000)))
}

// Duration is a time span given in microseconds.
func (l Lang) Duration(us int64) string {
	us = max(0, us)
	switch {
	case us < 1000 && us > 0:
		return l.Text("unit.ms-below")
	case us < 999_500:
		return l.Text("unit.ms", Word("n", l.Number((us+500)/1000)))
	case us < 120_000_000:
		return l.Text("unit.s", Word("n", l.tenths(us, 1_000_000)))
	case us < 7_200_000_000:
		return l.Text("unit.min", Word("n", l.Number((us+30_000_000)/60_000_000)))
	}
	return l.Text("unit.h", Word("n", l.tenths(min(us, 1<<59), 3_600_000_000)))
}

// Date is the day of t in its own location; in Persian the Solar Hijri date
// with the Gregorian one behind it.
func (l Lang) Date(t time.Time) string {
	year, month, day := t.Date()
	gregorian := l.Text("date.day",
		Word("day", l.digits(strconv.Itoa(day))),
		Word("month", l.Text("date.month."+strconv.Itoa(int(month)))),
		Word("year", l.digits(strconv.Itoa(year))))
	if l != Persian {
		return gregorian
	}
	y, m, d, ok := SolarHijri(t)
	if !ok {
		return gregorian
	}
	return l.Text("date.both",
		Word("solar", l.Text("date.day",
			Word("day", l.digits(strconv.Itoa(d))),
			Word("month", l.Text("date.solar."+strconv.Itoa(m))),
			Word("year", l.digits(strconv.Itoa(y))))),
		Word("gregorian", gregorian))
}

// DateTime is the day and the minute of t in UTC, saying so.
func (l Lang) DateTime(t time.Time) string {
	t = t.UTC()
	return l.Text("date.time", Word("date", l.Date(t)), Word("time", l.digits(t.Format("15:04"))))
}

// Clock is hours, minutes and seconds of t in UTC.
func (l Lang) Clock(t time.Time) string { return l.digits(t.UTC().Format("15:04:05")) }
