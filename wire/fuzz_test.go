package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"govah/measure"
)

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.0 200\n\nx", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b", "", "\r\n\r\n", "HTTP/",
		"HTTP/1.1 200 OK\r\nAlt-Svc: h3=\":443\"; ma=1, h3-29=\":1\"\r\n folded\r\n\r\n",
	} {
		f.Add([]byte(s), "GET")
	}
	f.Fuzz(func(t *testing.T, b []byte, method string) {
		a, err := readAnswer(bytes.NewReader(b), method, func() {})
		if err != nil {
			if a != nil && a.status == 0 {
				t.Error("an answer without a status")
			}
			return
		}
		if a.status < 100 || a.status > 999 || a.body == nil {
			t.Errorf("%+v", a)
		}
		h := &measure.HTTP{}
		describe(h, a)
		body, _ := readPage(h, a, Request{MaxBody: 1000})
		if len(body) > 1000 || h.BodyBytes != int64(len(body)) || len(h.Headers) > maxHeaders {
			t.Errorf("%+v", h)
		}
	})
}

// canned is a connection on which everything the peer says is known.
type canned struct {
	io.Reader
	net.Conn
}

func (c canned) Read(b []byte) (int, error)       { return c.Reader.Read(b) }
func (c canned) Write(b []byte) (int, error)      { return len(b), nil }
func (c canned) SetReadDeadline(time.Time) error  { return nil }
func (c canned) SetWriteDeadline(time.Time) error { return nil }
func (c canned) SetDeadline(time.Time) error      { return nil }

func FuzzHTTP2(f *testing.F) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	enc.WriteField(hpack.HeaderField{Name: "alt-svc", Value: `h3=":443"`})
	var b bytes.Buffer
	w := http2.NewFramer(&b, nil)
	w.WriteSettings()
	w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	w.WriteData(1, false, []byte("hello"))
	w.WritePing(false, [8]byte{})
	w.WriteDataPadded(1, true, []byte(" world"), make([]byte, 10))
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		mt := &meter{Conn: canned{Reader: bytes.NewReader(b)}}
		x, err := (Request{URL: "https://site.example/", MaxBody: 1000}).prepare()
		if err != nil {
			t.Fatal(err)
		}
		a, err := roundTrip2(mt, mt, x)
		if err != nil {
			return
		}
		if a.status < 100 || a.status > 999 {
			t.Errorf("%+v", a)
		}
		if body, _ := readPage(&measure.HTTP{}, a, x.Request); len(body) > 1000 {
			t.Errorf("%d bytes", len(body))
		}
	})
}

func TestHTTP2Frames(t *testing.T) {
	frames := func(f func(w *http2.Framer)) []byte {
		var b bytes.Buffer
		f(http2.NewFramer(&b, nil))
		return b.Bytes()
	}
	head := func(fields ...string) []byte {
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		for i := 0; i < len(fields); i += 2 {
			enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return block.Bytes()
	}
	long := string(bytes.Repeat([]byte("a"), 9000))
	for _, tt := range []struct {
		name string
		b    []byte
		want measure.Failure
	}{
		{"refused stream", frames(func(w *http2.Framer) { w.WriteRSTStream(1, http2.ErrCodeRefusedStream) }), measure.ConnectionAborted},
		{"going away", frames(func(w *http2.Framer) { w.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, nil) }), measure.ConnectionAborted},
		{"end", nil, measure.EOF},
		{"endless pings", bytes.Repeat(frames(func(w *http2.Framer) { w.WritePing(false, [8]byte{}) }), 5000), measure.TooLarge},
		{"endless settings", bytes.Repeat(frames(func(w *http2.Framer) { w.WriteSettings() }), 5000), measure.TooLarge},
		{"endless continuation", frames(func(w *http2.Framer) {
			w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head(":status", "200")})
			for range 100 {
				w.WriteContinuation(1, false, head("x-a", long))
			}
		}), "malformed"},
		{"large head", frames(func(w *http2.Framer) {
			w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head(":status", "200")})
			for i := range 8 {
				w.WriteContinuation(1, i == 7, head("x-a", long))
			}
		}), measure.TooLarge},
	} {
		mt := &meter{Conn: canned{Reader: bytes.NewReader(tt.b)}}
		x, err := (Request{URL: "https://site.example/"}).prepare()
		if err != nil {
			t.Fatal(err)
		}
		_, err = roundTrip2(mt, mt, x)
		var bad *malformed
		if errors.As(err, &bad) && tt.want == "malformed" {
			continue
		}
		if got, detail := Classify(err); got != tt.want {
			t.Errorf("%s: %q (%s), want %q", tt.name, got, detail, tt.want)
		}
	}
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte{21, 3, 3, 0, 2, 2, 112})
	f.Add([]byte{22, 3, 3, 0, 1, 2, 21, 3, 3, 0, 2, 1, 0})
	f.Add([]byte("HTTP/1.1 400"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var whole, pieces records
		whole.add(b)
		for i := range b {
			pieces.add(b[i : i+1])
		}
		if len(b) < maxScanned && whole != pieces {
			t.Errorf("at once %+v, in pieces %+v", whole, pieces)
		}
		if whole.alert > 256 {
			t.Errorf("alert %d", whole.alert)
		}
	})
}

func FuzzPage(f *testing.F) {
	f.Add([]byte("<html><TITLE a=b>x &lt; y</title><script>var a='<b>'</script>words, words"))
	f.Add([]byte("<title>"))
	f.Add([]byte("<style></stylE"))
	f.Add([]byte("\u0130<title>\u0130</title>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s := pageTitle(b); len(s) > maxTitle {
			t.Errorf("title of %d bytes", len(s))
		}
		if s := simhash(b); s != "" && len(s) != 16 {
			t.Errorf("hash %q", s)
		}
	})
}

func FuzzReply(f *testing.F) {
	q, err := newQuestion("site.example", "HTTPS")
	if err != nil {
		f.Fatal(err)
	}
	m := new(dns.Msg).SetReply(q)
	rr, err := dns.NewRR(`site.example. 60 IN HTTPS 1 . alpn="h3,h2" ipv4hint="192.0.2.1"`)
	if err != nil {
		f.Fatal(err)
	}
	m.Answer = append(m.Answer, rr)
	b, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:20])
	l := NewLog(time.Now(), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil || !answers(q, m) {
			return
		}
		r := recordReply(l, m, time.Now(), 0)
		for _, a := range r.Answers {
			if len(a.Value) > maxAnswerText {
				t.Errorf("%d bytes of an answer", len(a.Value))
			}
		}
		firstFailure(&measure.DNS{Type: "HTTPS", Replies: []measure.DNSReply{r}})
	})
}

func TestSimhash(t *testing.T) {
	page := func(insert string) []byte {
		return []byte("<html><body>" + string(bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog while "+
			"the sun sets behind the hills and the river carries leaves away. "), 3)) + insert + " And so the story ends with many different words in it.</body>")
	}
	distance := func(a, b string) int {
		var x, y uint64
		for i := range 16 {
			x = x<<4 | uint64(bytes.IndexByte([]byte("0123456789abcdef"), a[i]))
			y = y<<4 | uint64(bytes.IndexByte([]byte("0123456789abcdef"), b[i]))
		}
		n := 0
		for d := x ^ y; d != 0; d &= d - 1 {
			n++
		}
		return n
	}
	same := simhash(page("x1"))
	if d := distance(same, simhash(page("x2"))); d > 12 {
		t.Errorf("one word changes %d bits", d)
	}
	if d := distance(same, simhash([]byte("<script>The quick brown fox</script><style>a</style>Access to this site is denied by order of the authority."))); d < 16 {
		t.Errorf("another page is only %d bits away", d)
	}
	if simhash([]byte("<p></p>")) != "" {
		t.Error("a page without words has a hash")
	}
}

func TestPageTitle(t *testing.T) {
	for in, want := range map[string]string{
		"<TITLE lang=en>\n A &amp;\n B </TITLE>": "A & B",
		"<title>open":                            "",
		"none":                                   "",
		"\u0130<title>x</title>":                 "x",
	} {
		if got := pageTitle([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzHead(f *testing.F) {
	for _, s := range []string{
		"GET /echo HTTP/1.1\r\nHost: example.com\r\nx-MSISDN: 1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "", "\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n",
		"GET / HTTP/1.1\r\n: \r\n\r\nrest", "a b c\r\n\x1b[31m: \xff\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := ParseHead(b)
		if !ok {
			return
		}
		if len(h.Headers) > maxHeaders || len(h.Line) > 4*maxHeaderValue {
			t.Errorf("%d headers, a line of %d bytes", len(h.Headers), len(h.Line))
		}
		for _, x := range h.Headers {
			if len(x.Name) > 4*128 || len(x.Value) > 4*maxHeaderValue {
				t.Errorf("a header of %d and %d bytes", len(x.Name), len(x.Value))
			}
		}
	})
}
