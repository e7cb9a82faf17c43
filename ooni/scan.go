package ooni

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// scanner walks over one JSON text and decodes only what is asked for. What is
// skipped is only followed to its end (strings and brackets), not validated.
// The first error sticks: every method is then a no-op, and containers end.
type scanner struct {
	b   []byte
	i   int
	err error
	// section and key say where an error is.
	section string
	key     []byte
	scratch []byte // of unescaping, reused
}

// SyntaxError is a line that is no such JSON as its format says.
type SyntaxError struct {
	Where  string // the section of the format and the last key read
	Offset int    // in the line, bytes
	What   string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s at byte %d: %s", e.Where, e.Offset, e.What)
}

func (s *scanner) fail(what string) {
	if s.err != nil {
		return
	}
	where := s.section
	if key := string(s.key[:min(len(s.key), 40)]); key != "" {
		where += " near " + strconv.QuoteToASCII(key)
	}
	s.err = &SyntaxError{Where: where, Offset: s.i, What: what}
	s.i = len(s.b)
}

// peek passes over white space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return c
		}
	}
	return 0
}

// found describes what stands here.
func (s *scanner) found() string {
	c := s.peek()
	switch {
	case c == 0 && s.i >= len(s.b):
		return "the end of the line"
	case c == '"':
		return "a string"
	case c == '{':
		return "an object"
	case c == '[':
		return "a list"
	case c == '-' || c >= '0' && c <= '9':
		return "a number"
	case c == 't' || c == 'f' || c == 'n':
		return "a literal"
	}
	return strconv.QuoteRuneToASCII(rune(c))
}

// null passes over a null.
func (s *scanner) null() bool {
	if s.peek() == 'n' && bytes.HasPrefix(s.b[s.i:], []byte("null")) {
		s.i += 4
		return true
	}
	return false
}

// open enters a container; false, and passed over, if it is null.
func (s *scanner) open(bracket byte) bool {
	if s.err != nil || s.null() {
		return false
	}
	if s.peek() != bracket {
		want := "an object"
		if bracket == '[' {
			want = "a list"
		}
		s.fail("expected " + want + ", found " + s.found())
		return false
	}
	s.i++
	return true
}

// more says whether the container that ends with bracket has another element,
// and passes over the comma or the end. n counts the elements.
func (s *scanner) more(bracket byte, n *int) bool {
	if s.err != nil {
		return false
	}
	c := s.peek()
	if c == bracket {
		s.i++
		return false
	}
	if *n > 0 {
		if c != ',' {
			s.fail("expected a comma or " + strconv.QuoteRuneToASCII(rune(bracket)) + ", found " + s.found())
			return false
		}
		s.i++
	}
	*n++
	return true
}

// name reads a member's name and the colon. It is valid until the next name.
func (s *scanner) name() []byte {
	s.key = s.raw()
	if s.err == nil && bytes.IndexByte(s.key, '\\') >= 0 {
		s.key = s.unescape(nil, s.key)
	}
	if s.err == nil && s.peek() != ':' {
		s.fail("expected a colon, found " + s.found())
		return nil
	}
	s.i++
	return s.key
}

// raw reads a string and returns what stands between its quotes.
func (s *scanner) raw() []byte {
	if s.err != nil {
		return nil
	}
	if s.peek() != '"' {
		s.fail("expected a string, found " + s.found())
		return nil
	}
	start := s.i + 1
	if !s.endString() {
		return nil
	}
	return s.b[start : s.i-1]
}

// endString moves behind the string that begins here.
func (s *scanner) endString() bool {
	start := s.i + 1
	// Most strings are short and have no escape.
	for at := start; at < min(start+24, len(s.b)); at++ {
		if c := s.b[at]; c == '"' {
			s.i = at + 1
			return true
		} else if c == '\\' {
			break
		}
	}
	for at := start; ; {
		k := bytes.IndexByte(s.b[at:], '"')
		if k < 0 {
			s.fail("a string that does not end")
			return false
		}
		at += k
		back := at
		for back > start && s.b[back-1] == '\\' {
			back--
		}
		if at++; (at-1-back)%2 == 0 {
			s.i = at
			return true
		}
	}
}

// text reads a string, or null as "". Invalid UTF-8 becomes U+FFFD.
func (s *scanner) text() string {
	if s.err != nil || s.null() {
		return ""
	}
	raw := s.raw()
	if len(raw) == 0 {
		return ""
	}
	if bytes.IndexByte(raw, '\\') >= 0 {
		s.scratch = s.unescape(s.scratch[:0], raw)
		raw = s.scratch
	}
	if !utf8.Valid(raw) {
		raw = bytes.ToValidUTF8(raw, []byte("\uFFFD"))
	}
	return string(raw)
}

// looseText is text, but what is no string gives "".
func (s *scanner) looseText() string {
	if s.peek() == '"' {
		return s.text()
	}
	s.skip()
	return ""
}

// integer reads a number, or null as 0; a fraction is cut off. Numbers of old
// reports that are strings are read too.
func (s *scanner) integer() int64 {
	f := s.number()
	if f != f || f > 1<<53 || f < -(1<<53) {
		return 0
	}
	return int64(f)
}

// number reads a number, or null as 0.
func (s *scanner) number() float64 {
	if s.err != nil || s.null() {
		return 0
	}
	if s.peek() == '"' {
		f, _ := strconv.ParseFloat(string(s.raw()), 64)
		return f
	}
	start := s.i
	for s.i < len(s.b) {
		if c := s.b[s.i]; c >= '0' && c <= '9' || c == '.' || c == '-' || c == '+' || c == 'e' || c == 'E' {
			s.i++
			continue
		}
		break
	}
	num := s.b[start:s.i]
	if len(num) == 0 {
		s.fail("expected a number, found " + s.found())
		return 0
	}
	f, err := strconv.ParseFloat(unsafe.String(&num[0], len(num)), 64)
	if err != nil && f == 0 {
		s.i = start
		s.fail("not a number")
	}
	return f
}

// truth reads true; anything else is false.
func (s *scanner) truth() bool {
	if s.peek() == 't' && bytes.HasPrefix(s.b[s.i:], []byte("true")) {
		s.i += 4
		return true
	}
	s.skip()
	return false
}

// structural marks the bytes at which skipping has to look.
var structural = [256]bool{'"': true, '{': true, '}': true, '[': true, ']': true}

// skip passes over one value.
func (s *scanner) skip() {
	if s.err != nil {
		return
	}
	switch c := s.peek(); {
	case c == '"':
		s.endString()
	case c == '{' || c == '[':
		depth := 0
		for s.i < len(s.b) {
			c := s.b[s.i]
			if !structural[c] {
				s.i++
				continue
			}
			switch c {
			case '"':
				if !s.endString() {
					return
				}
				continue
			case '{', '[':
				depth++
			default:
				depth--
			}
			s.i++
			if depth == 0 {
				return
			}
		}
		s.fail("a container that does not end")
	case c == 't' || c == 'f' || c == 'n' || c == '-' || c >= '0' && c <= '9':
		for s.i < len(s.b) {
			switch s.b[s.i] {
			case ',', '}', ']', ' ', '\t', '\n', '\r':
				return
			}
			s.i++
		}
	default:
		s.fail("expected a value, found " + s.found())
	}
}

// end demands that nothing follows.
func (s *scanner) end() {
	if s.err == nil && s.peek() != 0 {
		s.fail("something follows the measurement")
	}
}

// unescape appends the meaning of raw, what stands between the quotes of a
// string.
func (s *scanner) unescape(out, raw []byte) []byte {
	for {
		k := bytes.IndexByte(raw, '\\')
		if k < 0 {
			return append(out, raw...)
		}
		out = append(out, raw[:k]...)
		if k+1 >= len(raw) {
			s.fail("an escape that does not end")
			return out
		}
		c := raw[k+1]
		raw = raw[k+2:]
		switch c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := hex4(raw)
			if !ok {
				s.fail("a broken \\u escape")
				return out
			}
			raw = raw[4:]
			if utf16.IsSurrogate(r) {
				second := rune(-1)
				if len(raw) >= 6 && raw[0] == '\\' && raw[1] == 'u' {
					if low, ok := hex4(raw[2:]); ok {
						second = utf16.DecodeRune(r, low)
					}
				}
				if r = utf8.RuneError; second >= 0 && second != utf8.RuneError {
					r, raw = second, raw[6:]
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			s.fail("an unknown escape")
			return out
		}
	}
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
