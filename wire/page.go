package wire

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/hex"
	"html"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// decoder undoes a content coding (RFC 9110, 8.4.1). One that is not known
// passes as it is.
func decoder(coding string, r io.Reader) io.Reader {
	switch strings.ToLower(strings.TrimSpace(coding)) {
	case "gzip", "x-gzip":
		return &lazy{open: func() (io.Reader, error) { return gzip.NewReader(r) }}
	case "deflate":
		// Meant is zlib; some servers send it bare.
		return &lazy{open: func() (io.Reader, error) {
			br := bufio.NewReader(r)
			head, err := br.Peek(2)
			if err != nil {
				return nil, err
			}
			if head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
				return zlib.NewReader(br)
			}
			return flate.NewReader(br), nil
		}}
	}
	return r
}

// lazy opens a decoder at the first read: an empty body is no error.
type lazy struct {
	open func() (io.Reader, error)
	r    io.Reader
}

func (l *lazy) Read(p []byte) (int, error) {
	if l.r == nil {
		r, err := l.open()
		if err != nil {
			return 0, err
		}
		l.r = r
	}
	return l.r.Read(p)
}

const (
	maxTitle = 200
	// maxHashed bounds the text that a similarity hash is made of, in bytes.
	maxHashed = 512 << 10
)

// pageTitle is the text of the first title element, on one line.
func pageTitle(body []byte) string {
	body = body[:min(len(body), 64<<10)]
	at := indexTag(body, "<title")
	if at < 0 {
		return ""
	}
	body = body[at:]
	start := bytes.IndexByte(body, '>') + 1
	if start == 0 {
		return ""
	}
	stop := indexTag(body[start:], "</title")
	if stop < 0 {
		return ""
	}
	raw := strings.ToValidUTF8(string(body[start:start+stop]), "\uFFFD")
	return clip(strings.Join(strings.Fields(html.UnescapeString(raw)), " "), maxTitle)
}

// simhash is Charikar's similarity hash (STOC 2002) over the words of a page,
// tags, scripts and styles left out, in pairs so that their order counts.
func simhash(body []byte) string {
	// How often each value of each byte of the hashes occurs: eight steps a
	// word instead of sixty-four.
	var count [8][256]uint32
	var previous uint64
	total := 0
	words(body[:min(len(body), maxHashed)], func(word []byte) {
		h := hashWord(word)
		pair := mix(previous ^ h*0x9e3779b97f4a7c15)
		previous = h
		total++
		for i := range count {
			count[i][byte(pair>>(8*i))]++
		}
	})
	if total == 0 {
		return ""
	}
	var sum uint64
	for i := range count {
		for bit := range 8 {
			ones := 0
			for v, n := range count[i] {
				if v>>bit&1 == 1 {
					ones += int(n)
				}
			}
			if 2*ones > total {
				sum |= 1 << (8*i + bit)
			}
		}
	}
	var b [8]byte
	for i := range b {
		b[i] = byte(sum >> (56 - 8*i))
	}
	return hex.EncodeToString(b[:])
}

// words calls f with each word of the visible text, in lower case.
func words(body []byte, f func([]byte)) {
	var word []byte
	flush := func() {
		if len(word) > 0 {
			f(word)
			word = word[:0]
		}
	}
	for i := 0; i < len(body); {
		if body[i] == '<' {
			flush()
			i += skipTag(body[i:])
			continue
		}
		r, n := utf8.DecodeRune(body[i:])
		i += n
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			if len(word) < 64 {
				word = utf8.AppendRune(word, unicode.ToLower(r))
			}
		} else {
			flush()
		}
	}
	flush()
}

// skipTag is the length of the tag that b begins with, with the whole element
// where its content is no text.
func skipTag(b []byte) int {
	for _, hidden := range []string{"script", "style"} {
		if len(b) > len(hidden)+1 && bytes.EqualFold(b[1:1+len(hidden)], []byte(hidden)) {
			at := indexTag(b[1:], "</"+hidden)
			if at < 0 {
				return len(b)
			}
			return 1 + at + endOfTag(b[1+at:])
		}
	}
	return endOfTag(b)
}

// indexTag finds a tag, which begins with <, in letters of either case.
func indexTag(b []byte, tag string) int {
	for i := 0; ; i++ {
		j := bytes.IndexByte(b[i:], '<')
		if j < 0 || i+j+len(tag) > len(b) {
			return -1
		}
		i += j
		if bytes.EqualFold(b[i:i+len(tag)], []byte(tag)) {
			return i
		}
	}
}

func endOfTag(b []byte) int {
	if i := bytes.IndexByte(b, '>'); i >= 0 {
		return i + 1
	}
	return len(b)
}

// hashWord is FNV-1a, which is the same on every machine and in every version.
func hashWord(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return mix(h)
}

// mix spreads the bits of a hash (the finaliser of MurmurHash3).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
