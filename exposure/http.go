package exposure

import (
	"bytes"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"govah/packet"
)

// webState is where the reading of an HTTP/1 connection stands.
type webState struct {
	resync  bool // bytes are missing: a segment that begins a request is waited for
	head    bool // the request line was read, the head has not ended
	chunk   bool // a chunk's size is next (RFC 9112 7.1)
	trailer bool // what follows the last chunk
	connect bool // a tunnel is asked for
	cookie  bool // was counted
	named   bool // by the target
	chunked bool
	length  int64
	form    formKind
	seen    int // bytes of a body in which a field was looked for

	answering bool   // a response's head has begun
	answer    []byte // of it, what came so far
	answered  bool   // next is set
	next      uint32 // sequence number behind the last head
}

type formKind uint8

const (
	noForm formKind = iota
	urlEncoded
	multipart
	jsonForm
)

const maxAnswer = 16 << 10 // a response's head

// httpLine reads one line of what a client writes.
func (c *counter) httpLine(f *flow, line []byte) {
	w := &f.web
	switch {
	case w.chunk:
		w.chunk = false
		size, _, _ := strings.Cut(string(line[:min(len(line), 64)]), ";")
		if size = strings.TrimSpace(size); size == "" { // the end of the chunk before
			w.chunk = true
			return
		}
		n, err := strconv.ParseUint(size, 16, 62)
		switch {
		case err != nil:
			f.end()
		case n == 0:
			w.trailer = true
		default:
			w.chunk, f.skip = true, int64(n)
		}
	case w.trailer:
		w.trailer = len(line) > 0
	case w.head && len(line) == 0:
		c.headEnded(f)
	case w.head:
		c.header(f, line)
	case len(line) > 0:
		r, err := packet.ParseRequest(append(line[:len(line):len(line)], "\n\n"...))
		if err != nil {
			f.end()
			return
		}
		c.HTTP.Requests++
		*w = webState{head: true, connect: strings.EqualFold(r.Method, "CONNECT"), next: w.next, answered: w.answered}
		if r.Authority != "" {
			w.named = true
			c.host(r.Authority)
		}
		if _, rest, ok := strings.Cut(r.Target, "://"); ok {
			end := strings.IndexAny(rest, "/?#")
			if end < 0 {
				end = len(rest)
			}
			if at := strings.LastIndexByte(rest[:end], '@'); at > 0 && strings.Contains(rest[:at], ":") {
				c.Credentials.HTTPURL = true
			}
		}
		if _, query, ok := strings.Cut(r.Target, "?"); ok {
			c.form(urlEncoded, []byte(query))
		}
	}
}

func (c *counter) header(f *flow, line []byte) {
	w := &f.web
	field, rest, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(field) > 64 {
		return
	}
	value := string(bytes.TrimSpace(rest))
	if value == "" {
		return
	}
	switch strings.ToLower(string(field)) {
	case "host":
		if !w.named {
			w.named = true
			c.host(value)
		}
	case "cookie":
		if !w.cookie {
			w.cookie = true
			c.HTTP.CookiesSent++
		}
	case "authorization", "proxy-authorization":
		switch scheme, _, _ := strings.Cut(value, " "); strings.ToLower(scheme) {
		case "basic":
			c.Credentials.HTTPBasic = true
		case "digest":
			c.Credentials.HTTPDigest = true
		default:
			c.Credentials.HTTPOther = true
		}
	case "content-length":
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && n > 0 {
			w.length = n
		}
	case "transfer-encoding":
		w.chunked = strings.Contains(strings.ToLower(value), "chunked")
	case "content-type":
		kind, _, _ := strings.Cut(strings.ToLower(value), ";")
		switch strings.TrimSpace(kind) {
		case "application/x-www-form-urlencoded":
			w.form = urlEncoded
		case "multipart/form-data":
			w.form = multipart
		case "application/json":
			w.form = jsonForm
		}
	}
}

func (c *counter) headEnded(f *flow) {
	w := &f.web
	w.head = false
	switch {
	case w.connect:
		// What follows is another connection's beginning.
		f.is, f.web, f.greet = undecided, webState{}, nil
		f.port = 0
	case w.chunked:
		w.chunk = true
	case w.length > 0:
		f.skip = w.length
	default:
		w.form = noForm
	}
}

// host counts the name that a request is for. An address is no name.
func (c *counter) host(s string) {
	if h, port, ok := strings.Cut(s, ":"); ok && !strings.Contains(port, ":") {
		s = h
	}
	if _, err := netip.ParseAddr(s); err == nil || strings.HasPrefix(s, "[") {
		return
	}
	c.name(nameHTTP, s)
}

var (
	partName = regexp.MustCompile(`(?i)[;\s]name=(?:"([^"\r\n]{1,64})"|([^"\r\n;]{1,64})[\r\n;])`)
	jsonName = regexp.MustCompile(`"([^"\\]{1,64})"\s*:`)
)

// form looks for a field whose name says that it holds a password.
func (c *counter) form(kind formKind, b []byte) {
	if c.Credentials.HTTPForm {
		return
	}
	switch kind {
	case urlEncoded:
		for field := range bytes.SplitSeq(b, []byte("&")) {
			name, value, _ := bytes.Cut(field, []byte("="))
			if len(name) > 256 || len(value) == 0 {
				continue
			}
			if s, err := url.QueryUnescape(string(name)); err == nil && secret(s) {
				c.Credentials.HTTPForm = true
			}
		}
	case multipart, jsonForm:
		re := partName
		if kind == jsonForm {
			re = jsonName
		}
		for _, m := range re.FindAllSubmatch(b, -1) {
			for _, name := range m[1:] {
				if secret(string(name)) {
					c.Credentials.HTTPForm = true
				}
			}
		}
	}
}

// secret says whether a field of this name is likely to hold a password, as
// browsers' password managers guess it too.
func secret(name string) bool {
	name = strings.ToLower(name)
	for _, part := range []string{"passw", "passphrase", "passcode", "pwd"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	for _, word := range strings.FieldsFunc(name, func(r rune) bool { return r < 'a' || r > 'z' }) {
		switch word {
		case "pass", "pin", "otp", "pw", "secret", "userpass":
			return true
		}
	}
	return false
}

// response looks for cookies in the head of a response, which begins a
// segment: servers write it in one go.
func (c *counter) response(f *flow, seq uint32, data []byte) {
	w := &f.web
	switch {
	case w.answered && int32(seq-w.next) < 0:
		return // sent again
	case bytes.HasPrefix(data, []byte("HTTP/1.")):
		w.answering, w.answer = true, w.answer[:0]
	case !w.answering || seq != w.next:
		w.answering = false
		return
	}
	w.answer = append(w.answer, data[:min(len(data), maxAnswer-len(w.answer))]...)
	w.answered, w.next = true, seq+uint32(len(data))
	end := bytes.Index(w.answer, []byte("\r\n\r\n"))
	if end < 0 && len(w.answer) < maxAnswer {
		return
	}
	head := w.answer
	if end >= 0 {
		head = head[:end]
	}
	for line := range bytes.SplitSeq(head, []byte("\n")) {
		field, value, ok := bytes.Cut(line, []byte(":"))
		if ok && len(bytes.TrimSpace(value)) > 0 && strings.EqualFold(string(field), "set-cookie") {
			c.HTTP.CookiesSet++
			break
		}
	}
	w.answering, w.answer = false, nil
}
