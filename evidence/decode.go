package evidence

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"io"
	"slices"
	"sort"
	"strconv"
	"unicode/utf16"
)

// layer is bytes that were decoded from others, with the way back to where
// they stood.
type layer struct {
	data  []byte
	spans []span // ordered by at
	runs  []int  // where each of several contents begins; a zero byte ends it
	heads []head // of messages, in order, once they are looked for
	split bool   // they were
	how   string // the decoding; "" of a file itself
	up    *layer // nil: a file itself
}

// span says that data[at:] comes from up.data[from:], num bytes of it for each
// den; den 0: from any of num bytes there (compressed data).
type span struct {
	at, from int32
	num, den uint32
}

// maxLayer bounds what one layer holds: positions are of 32 bits.
const maxLayer = 1 << 30

// origin is the bytes of the file that data[at:at+n] was made of: one range, or
// several where something else stands between them.
func (l *layer) origin(at, n int) []Range {
	ranges := []Range{{at, at + n}}
	for ; l.up != nil; l = l.up {
		var up []Range
		for _, r := range ranges {
			for i := l.one(r.From); i < len(l.spans) && int(l.spans[i].at) < r.To; i++ {
				up = l.above(up, i, r)
			}
		}
		ranges = up
	}
	return ranges
}

// gap is how many bytes may stand between two parts of one encoded text:
// separators, line breaks, the head of a chunk.
const gap = 16

// above adds the part of r that is in span i, in the layer above.
func (l *layer) above(ranges []Range, i int, r Range) []Range {
	s := l.spans[i]
	end := len(l.data)
	if i+1 < len(l.spans) {
		end = int(l.spans[i+1].at)
	}
	from, to := max(r.From, int(s.at)), min(r.To, end)
	if from >= to {
		return ranges
	}
	up := Range{int(s.from), int(s.from) + int(s.num)}
	if s.den > 0 {
		num, den := int(s.num), int(s.den)
		up = Range{int(s.from) + (from-int(s.at))*num/den, int(s.from) + ((to-int(s.at))*num+den-1)/den}
	}
	up.From = min(up.From, len(l.up.data))
	up.To = min(up.To, len(l.up.data))
	if k := len(ranges) - 1; k >= 0 && up.From >= ranges[k].From && up.From <= ranges[k].To+gap {
		ranges[k].To = max(ranges[k].To, up.To)
		return ranges
	}
	if up.From < up.To {
		ranges = append(ranges, up)
	}
	return ranges
}

// one is the span that data[i] is in.
func (l *layer) one(i int) int {
	return max(0, sort.Search(len(l.spans), func(k int) bool { return int(l.spans[k].at) > i })-1)
}

// path names the decodings, the last first.
func (l *layer) path() (s string) {
	for ; l.up != nil; l = l.up {
		if l.how == "" {
			continue
		}
		if s != "" {
			s += " in "
		}
		s += l.how
	}
	return s
}

// mark begins a run that comes from the given place of the layer above.
func (l *layer) mark(from int, num, den uint32) {
	l.spans = append(l.spans, span{int32(len(l.data)), int32(from), num, den})
}

// near is how much is taken along on both sides of an escape: whatever is
// searched for and holds one fits, and long encodings with escapes here and
// there stay in one piece.
const near = 256

// unescape writes b with all escapes read, as far as it has any: those of
// URLs, JSON, C, HTML, digits of other scripts, and dots in brackets. What is
// far from any escape is left out. As mail reads them "=" begins an escape of
// quoted-printable and "\046" is decimal (RFC 1035, 5.1), which both have
// another meaning elsewhere; then it says whether there is one of those.
func (l *layer) unescape(b []byte, mail bool) (differs bool) {
	done := 0 // of b
	last := -1
	for i := 0; i < len(b); {
		if !escapes[b[i]] {
			i++
			continue
		}
		out, n := escape(b[i:], mail)
		if n > 0 && mail && (b[i] == '=' || b[i] == '\\') {
			differs = true
		}
		if n == 0 {
			i++
			continue
		}
		if last < 0 || i-done > 2*near {
			if last >= 0 {
				l.data = append(append(l.data, b[done:done+near]...), 0)
			}
			done = max(done, i-near)
			l.mark(done, 1, 1)
		}
		l.data = append(l.data, b[done:i]...)
		l.mark(i, uint32(n), uint32(len(out)))
		l.data = append(l.data, out...)
		i += n
		done, last = i, i
		l.mark(i, 1, 1)
	}
	if last >= 0 {
		l.data = append(l.data, b[done:min(len(b), done+near)]...)
	}
	return differs
}

// escapes are the bytes that one can begin with.
var escapes = func() (t [256]bool) {
	for _, c := range "%=\\&[\xdb\xd9\xef\xc2\xe2" {
		if c < 128 {
			t[c] = true
		}
	}
	for _, c := range []byte{0xdb, 0xd9, 0xef, 0xc2, 0xe2} {
		t[c] = true
	}
	return t
}()

// escape reads the escape that b begins with: what it stands for and how long
// it is, 0 if there is none. What it stands for may be nothing only where n
// counts characters that are not seen.
func escape(b []byte, mail bool) (out []byte, n int) {
	hex := func(b []byte, digits int) (v, n int) {
		for n < digits && n < len(b) && hexValue[b[n]] >= 0 {
			v, n = v<<4|int(hexValue[b[n]]), n+1
		}
		return v, n
	}
	char := func(v, n int) ([]byte, int) { return []byte(string(rune(v))), n }
	if len(b) < 2 {
		return nil, 0
	}
	switch b[0] {
	case '%', '=':
		if b[0] == '=' && !mail {
			return nil, 0
		}
		if b[0] == '=' && b[1] == '\n' {
			return []byte{}, 2
		}
		if b[0] == '=' && len(b) > 2 && b[1] == '\r' && b[2] == '\n' {
			return []byte{}, 3
		}
		if v, k := hex(b[1:], 2); k == 2 {
			return []byte{byte(v)}, 3
		}
		if len(b) > 5 && b[0] == '%' && b[1] == 'u' {
			if v, k := hex(b[2:], 4); k == 4 {
				return char(v, 6)
			}
		}
	case '\\':
		switch c := b[1]; c {
		case 'n':
			return []byte{'\n'}, 2
		case 'r':
			return []byte{'\r'}, 2
		case 't':
			return []byte{'\t'}, 2
		case 'b', 'f':
			return []byte{' '}, 2
		case 'x':
			if v, k := hex(b[2:], 2); k == 2 {
				return []byte{byte(v)}, 4
			}
		case 'u', 'U':
			if v, k := hex(b[2:], map[byte]int{'u': 4, 'U': 8}[c]); k >= 4 {
				if low, k := surrogate(b[2+k:], hex); k > 0 && utf16.IsSurrogate(rune(v)) {
					return char(int(utf16.DecodeRune(rune(v), rune(low))), 12)
				}
				return char(v, 2+k)
			}
			if len(b) > 3 && b[2] == '{' {
				if v, k := hex(b[3:], 6); k > 0 && 3+k < len(b) && b[3+k] == '}' {
					return char(v, 4+k)
				}
			}
		case '0', '1', '2', '3', '4', '5', '6', '7':
			if len(b) < 4 || !digit(b[2]) || !digit(b[3]) {
				break
			}
			base := 8
			if mail {
				base = 10
			}
			if v := (int(c-'0')*base+int(b[2]-'0'))*base + int(b[3]-'0'); v < 256 && (mail || b[2] < '8' && b[3] < '8') {
				return []byte{byte(v)}, 4
			}
		default:
			if !letter(c) && c > ' ' && c < 127 {
				return b[1:2], 2
			}
		}
	case '&':
		if b[1] == '#' && len(b) > 3 {
			v, k, at := 0, 0, 2
			if b[2]|0x20 == 'x' {
				at = 3
				v, k = hex(b[3:], 8)
			} else {
				for k < 8 && at+k < len(b) && digit(b[at+k]) {
					v, k = v*10+int(b[at+k]-'0'), k+1
				}
			}
			if k == 0 || v > 0x10ffff {
				return nil, 0
			}
			if at += k; at < len(b) && b[at] == ';' {
				at++
			}
			return char(v, at)
		}
		if !letter(b[1]) {
			break
		}
		for name, c := range entities {
			if bytes.HasPrefix(b[1:], []byte(name)) {
				return []byte(c), 1 + len(name)
			}
		}
	case '[':
		if len(b) > 2 && b[2] == ']' && (b[1] == '.' || b[1] == ':') {
			return b[1:2], 3
		}
	case 0xdb: // Persian digits
		if b[1]-0xb0 < 10 {
			return []byte{'0' + b[1] - 0xb0}, 2
		}
	case 0xd9: // Arabic digits
		if b[1]-0xa0 < 10 {
			return []byte{'0' + b[1] - 0xa0}, 2
		}
	case 0xef: // full width, U+FF01 to U+FF5E
		if len(b) > 2 {
			switch v := int(b[1]&0x3f)<<6 | int(b[2]&0x3f); {
			case b[1] == 0xbb && b[2] == 0xbf: // byte order mark
				return []byte{}, 3
			case (b[1] == 0xbc || b[1] == 0xbd) && v >= 0xf01 && v <= 0xf5e:
				return []byte{byte(v - 0xf01 + '!')}, 3
			}
		}
	case 0xc2:
		if b[1] == 0xad { // soft hyphen
			return []byte{}, 2
		}
		if b[1] == 0xa0 {
			return []byte{' '}, 2
		}
	case 0xe2:
		if len(b) > 2 && b[1] == 0x80 && (b[2] >= 0x8b && b[2] <= 0x8f || b[2] >= 0xaa && b[2] <= 0xae) { // zero width and direction marks
			return []byte{}, 3
		}
		if len(b) > 2 && b[1] == 0x81 && b[2] >= 0xa0 && b[2] <= 0xaf {
			return []byte{}, 3
		}
	}
	return nil, 0
}

// surrogate reads the second half of a character that JSON writes as two.
func surrogate(b []byte, hex func([]byte, int) (int, int)) (v, n int) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, 0
	}
	if v, n = hex(b[2:], 4); n < 4 || v < 0xdc00 || v > 0xdfff {
		return 0, 0
	}
	return v, n
}

// entities of HTML that can stand in an address or a name.
var entities = map[string]string{
	"period;": ".", "colon;": ":", "nbsp;": " ", "amp;": "&", "lt;": "<", "gt;": ">", "quot;": `"`, "apos;": "'",
	"comma;": ",", "lowbar;": "_", "sol;": "/", "percnt;": "%", "num;": "#", "equals;": "=", "plus;": "+", "hyphen;": "-",
	"shy;": "", "zwnj;": "", "zwj;": "", "lrm;": "", "rlm;": "", "lsqb;": "[", "rsqb;": "]",
}

// nibbles collects the runs of at least six hexadecimal digits: together, or
// in groups with something between them, "0x" or "\x" included. Each byte is
// a digit; more is what it is where a group begins, 0xff where a run does.
func (l *layer) nibbles(b []byte) {
	for i := 0; i < len(b); {
		if hexValue[b[i]] < 0 {
			i++
			continue
		}
		start, spans := len(l.data), len(l.spans)
		for first := true; ; first = false {
			from := i
			if from+1 < len(b) && b[from] == '0' && b[from+1]|0x20 == 'x' && from+2 < len(b) && hexValue[b[from+2]] >= 0 {
				from += 2
			}
			i = from
			if !first {
				l.data = append(l.data, groupEnd)
			}
			l.mark(from, 1, 1)
			for i < len(b) && hexValue[b[i]] >= 0 {
				l.data = append(l.data, byte(hexValue[b[i]]))
				i++
			}
			next := i
			for next < len(b) && next < i+3 && hexSeparators[b[next]] {
				next++
			}
			if next < len(b) && b[next] == '\\' && next+1 < len(b) && b[next+1]|0x20 == 'x' {
				next += 2
			}
			if next == i || next >= len(b) || hexValue[b[next]] < 0 {
				break
			}
			i = next
		}
		if len(l.data)-start < 6 {
			l.data, l.spans = l.data[:start], l.spans[:spans]
			continue
		}
		l.data = append(l.data, runEnd)
	}
}

const (
	groupEnd = 0xfe // between two groups of digits
	runEnd   = 0xff
)

var hexSeparators = func() (t [256]bool) {
	for _, c := range " ,.:-_;\t\n|/" {
		t[c] = true
	}
	return t
}()

// pairs reads the digits of c two by two, from the first or from the second
// of each run on, whatever groups they stand in.
func (l *layer) pairs(c *layer, skip int) {
	high, left := -1, skip
	for i, v := range c.data {
		switch {
		case v == groupEnd:
		case v == runEnd:
			l.mark(i, 1, 1)
			l.data = append(l.data, 0)
			high, left = -1, skip
		case left > 0:
			left--
		case high < 0:
			high = i
		default:
			// A span only where the distance changes: in hex without groups
			// there is one a run.
			if n := len(l.spans); n == 0 || l.spans[n-1].num != 2 || int(l.spans[n-1].from)+2*(len(l.data)-int(l.spans[n-1].at)) != high || i != high+1 {
				l.mark(high, uint32(i-high+1), 1)
			}
			l.data = append(l.data, c.data[high]<<4|v)
			high = -1
		}
	}
}

// elements reads each group of one or two digits as a byte; longer groups end
// a run.
func (l *layer) elements(c *layer) {
	v, n, from := byte(0), 0, 0
	for i, d := range c.data {
		if d < 16 {
			if n == 0 {
				from = i
			}
			v, n = v<<4|d, n+1
			continue
		}
		if n == 1 || n == 2 {
			l.mark(from, uint32(n), 1)
			l.data = append(l.data, v)
		}
		if d == runEnd || n > 2 {
			l.mark(i, 1, 1)
			l.data = append(l.data, 0)
		}
		v, n = 0, 0
	}
}

// sextets collects the runs of at least four characters of base64, standard or
// for URLs, line breaks inside left out. Each byte is what a character stands
// for, runEnd where a run ends.
func (l *layer) sextets(b []byte) {
	for i := 0; i < len(b); {
		if base64Value[b[i]] < 0 {
			i++
			continue
		}
		start, spans := len(l.data), len(l.spans)
		for {
			l.mark(i, 1, 1)
			for i < len(b) && base64Value[b[i]] >= 0 {
				l.data = append(l.data, byte(base64Value[b[i]]))
				i++
			}
			next := i
			for next < len(b) && next < i+2 && (b[next] == '\r' || b[next] == '\n') {
				next++
			}
			if next == i || next >= len(b) || base64Value[b[next]] < 0 {
				break
			}
			i = next
		}
		if len(l.data)-start < 4 {
			l.data, l.spans = l.data[:start], l.spans[:spans]
			continue
		}
		l.data = append(l.data, runEnd)
	}
}

var base64Value = func() (t [256]int8) {
	for i := range t {
		t[i] = -1
	}
	for i, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		t[c] = int8(i)
	}
	t['-'], t['_'] = 62, 63
	return t
}()

// unbase reads the runs of c from their character skip on: encoded text can
// begin at any of four.
func (l *layer) unbase(c *layer, skip int) {
	d := c.data
	for i := 0; i < len(d); {
		end := i + bytes.IndexByte(d[i:], runEnd)
		if end < i {
			return
		}
		at := i + skip
		if end-at >= 2 {
			l.mark(at, 4, 3)
		}
		for ; end-at >= 4; at += 4 {
			v := uint32(d[at])<<18 | uint32(d[at+1])<<12 | uint32(d[at+2])<<6 | uint32(d[at+3])
			l.data = append(l.data, byte(v>>16), byte(v>>8), byte(v))
		}
		switch end - at {
		case 3:
			v := uint32(d[at])<<12 | uint32(d[at+1])<<6 | uint32(d[at+2])
			l.data = append(l.data, byte(v>>10), byte(v>>2))
		case 2:
			l.data = append(l.data, d[at]<<2|d[at+1]>>4)
		}
		l.mark(end, 1, 1)
		l.data = append(l.data, 0)
		i = end + 1
	}
}

// narrow collects text in which one or three zero bytes stand between the
// characters: UTF-16 and UTF-32 in both orders.
func (l *layer) narrow(b []byte) {
	for i := 0; i < len(b); {
		if b[i] < ' ' || b[i] > '~' || i+1 >= len(b) || b[i+1] != 0 {
			i++
			continue
		}
		step := 2
		if i+3 < len(b) && b[i+2] == 0 && b[i+3] == 0 {
			step = 4
		}
		start, spans, from := len(l.data), len(l.spans), i
		l.mark(from, uint32(step), 1)
	run:
		for i < len(b) && b[i] >= ' ' && b[i] <= '~' {
			l.data = append(l.data, b[i])
			for k := 1; k < step; k++ {
				if i+k >= len(b) || b[i+k] != 0 {
					i++
					break run
				}
			}
			i += step
		}
		if len(l.data)-start < 3 {
			l.data, l.spans = l.data[:start], l.spans[:spans]
			continue
		}
		l.data = append(l.data, 0)
	}
}

// inflater reads compressed streams, one after the other.
type inflater struct {
	gzip  *gzip.Reader
	flate io.ReadCloser
	src   bytes.Reader
	left  int64 // bytes that may still be inflated
}

// open begins to read the stream at b, if there is one.
func (z *inflater) open(b []byte, raw bool) io.Reader {
	z.src.Reset(b)
	if b[0] == 0x1f {
		if z.gzip == nil {
			z.gzip = new(gzip.Reader)
		}
		if z.gzip.Reset(&z.src) != nil {
			return nil
		}
		z.gzip.Multistream(false)
		return z.gzip
	}
	if !raw {
		z.src.Seek(2, io.SeekStart) // past zlib's own header
	}
	if z.flate == nil {
		z.flate = flate.NewReader(&z.src)
	} else {
		z.flate.(flate.Resetter).Reset(&z.src, nil)
	}
	return z.flate
}

// inflate adds what the gzip and zlib streams that begin in b hold, and the
// raw deflate ones at the places given. What is cut off because too much has
// been inflated already is reported.
func (l *layer) inflate(b []byte, raw []int, z *inflater, cut func(at int)) {
	for i := 0; i+2 < len(b); i++ {
		deflated := len(raw) > 0 && raw[0] == i
		for len(raw) > 0 && raw[0] <= i {
			raw = raw[1:]
		}
		isGzip := b[i] == 0x1f && b[i+1] == 0x8b && b[i+2] == 8
		isZlib := b[i]&0x8f == 8 && b[i+1]&0x20 == 0 && (uint(b[i])<<8|uint(b[i+1]))%31 == 0
		if !deflated && !isGzip && !isZlib {
			continue
		}
		if z.left <= 0 {
			cut(i)
			return
		}
		r := z.open(b[i:], !isGzip && !isZlib)
		if r == nil {
			continue
		}
		start := len(l.data)
		out := bytes.NewBuffer(l.data)
		n, err := io.Copy(out, io.LimitReader(r, min(z.left, maxLayer-int64(start))))
		z.left -= n + 512 // reading costs, whatever comes of it
		if n < 4 {
			continue
		}
		used := len(b) - i - z.src.Len()
		l.data = out.Bytes()
		l.spans = append(l.spans, span{int32(start), int32(i), uint32(used), 0})
		l.runs = append(l.runs, start)
		l.data = append(l.data, 0)
		if z.left <= 0 {
			cut(i)
			return
		}
		if err == nil { // a whole stream: nothing else begins in it
			i += used - 1
		}
	}
}

// dechunk adds the bodies of HTTP/1.1 messages in b that are sent in chunks
// (RFC 9112, 7.1), and returns where those begin that are said to be
// deflated, in b and in what was added, and in b those that are encoded as
// nothing here reads.
func (l *layer) dechunk(b []byte) (deflated, chunked, opaque []int) {
	for at := 0; ; {
		k := bytes.Index(b[at:], []byte("\r\n\r\n"))
		if k < 0 {
			return deflated, chunked, opaque
		}
		end := at + k + 4
		head := b[max(at, end-maxHead):end]
		at = end
		h := bytes.LastIndex(head, []byte("HTTP/1."))
		if h < 0 {
			continue
		}
		head = bytes.ToLower(head[h:])
		encoding := headerValue(head, "content-encoding")
		switch {
		case bytes.Contains(encoding, []byte("deflate")):
			deflated = append(deflated, end)
		case len(encoding) > 0 && !bytes.Contains(encoding, []byte("gzip")) && !bytes.Equal(encoding, []byte("identity")) && end < len(b):
			opaque = append(opaque, end)
		}
		if !bytes.Contains(headerValue(head, "transfer-encoding"), []byte("chunked")) {
			continue
		}
		l.runs = append(l.runs, len(l.data))
		if n := len(deflated); n > 0 && deflated[n-1] == end {
			deflated, chunked = deflated[:n-1], append(chunked, len(l.data))
		}
		for p := end; p < len(b); {
			size, n := 0, 0
			for n < 7 && p+n < len(b) && hexValue[b[p+n]] >= 0 {
				size, n = size<<4|int(hexValue[b[p+n]]), n+1
			}
			nl := bytes.IndexByte(b[p+n:min(len(b), p+n+256)], '\n')
			if n == 0 || nl < 0 || size == 0 {
				break
			}
			from := p + n + nl + 1
			to := min(len(b), from+size)
			l.mark(from, 1, 1)
			l.data = append(l.data, b[from:to]...)
			p = to + 2
			at = max(at, min(to, len(b)))
		}
		l.data = append(l.data, 0)
	}
}

// head is of a message: it ends at an empty line, before data[end].
type head struct {
	end    int
	length int // of what follows, if it is given; -1
	http   int // index of the last one that is of HTTP, itself included; -1
}

// divide finds the heads in a layer.
func (l *layer) divide() {
	http := -1
	for from := 0; ; {
		k := bytes.Index(l.data[from:], []byte("\r\n\r\n"))
		if k < 0 {
			return
		}
		end := from + k + 4
		text := bytes.ToLower(l.data[max(from, end-maxHead) : end-2])
		if bytes.Contains(text, []byte("http/1.")) {
			http = len(l.heads)
		}
		n, err := strconv.Atoi(string(headerValue(text, "content-length")))
		if err != nil || n < 0 {
			n = -1
		}
		l.heads = append(l.heads, head{end, n, http})
		from = end
	}
}

// content gives what is a whole of its own around data[at]: the run that it is
// in, and what follows the last empty line and the last head of HTTP there, as
// far as its length is given or as the run goes on.
func (l *layer) content(at int) (whole []Range) {
	run := Range{0, len(l.data)}
	if i, found := slices.BinarySearch(l.runs, at); len(l.runs) > 0 && (found || i > 0) {
		if !found {
			i--
		}
		if run.From = l.runs[i]; i+1 < len(l.runs) {
			run.To = l.runs[i+1]
		}
		if run.To > run.From && l.data[run.To-1] == 0 {
			run.To--
		}
		whole = append(whole, run)
	}
	if !l.split {
		l.split = true
		l.divide()
	}
	body := func(i int) {
		if i < 0 || l.heads[i].end < run.From {
			return
		}
		r := Range{l.heads[i].end, run.To}
		if n := l.heads[i].length; n >= 0 && n < r.To-r.From {
			r.To = r.From + n
		}
		if r.From < r.To {
			whole = append(whole, r)
		}
	}
	if i := sort.Search(len(l.heads), func(k int) bool { return l.heads[k].end > at }) - 1; i >= 0 {
		body(i)
		if h := l.heads[i].http; h != i { // an empty line in the body itself
			body(h)
		}
	}
	return whole
}

// maxHead bounds the head of an HTTP message.
const maxHead = 64 << 10

// headerValue is the value of the header name in a head in lower case.
func headerValue(head []byte, name string) []byte {
	i := bytes.LastIndex(head, []byte("\n"+name+":"))
	if i < 0 {
		return nil
	}
	v := head[i+len(name)+2:]
	if e := bytes.IndexByte(v, '\n'); e >= 0 {
		v = v[:e]
	}
	return bytes.TrimSpace(v)
}
