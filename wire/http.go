package wire

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"govah/measure"
)

// Bounds on what is read and kept of an answer.
const (
	defaultMaxBody = 64 << 10
	maxHeaderBytes = 64 << 10
	maxHeaders     = 128
	maxHeaderValue = 1024
	maxLocation    = 2048
	maxInformal    = 8 // 1xx answers before the real one
)

// Request is one HTTP request. The zero values are those of a browser that
// opens a page.
type Request struct {
	URL    string
	Method string // GET if empty
	// Host is sent instead of the URL's own authority; it may be nonsense.
	Host string
	// NoHost leaves the Host header out (HTTP/1.1 only).
	NoHost bool
	// Header are further headers, sent last, or instead of those of the same name.
	Header []measure.Header
	// Segments, if any, are sent instead of the head that Fetch would write,
	// each in a TCP segment of its own. They must be a request of Method
	// (HTTP/1 only).
	Segments [][]byte
	// Body is sent with its length.
	Body []byte
	// MaxBody is how many decoded bytes are read and kept, 64 KiB if 0.
	MaxBody int64
	// Timeout bounds the whole exchange, 20 s if 0. An answer that does not
	// begin ends it earlier, after max(2 s, 8 RTT), if the peer has not even
	// acknowledged the request.
	Timeout time.Duration
	// Stall is how long nothing may come once the answer has begun, 4 s if 0.
	Stall time.Duration
}

// exchange is a request ready to be written.
type exchange struct {
	Request
	url       *url.URL
	authority string
	path      string // with the query
	tls       bool
}

func (r Request) prepare() (*exchange, error) {
	u, err := url.Parse(r.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("wire: %q is not an http or https URL", clip(r.URL, 200))
	}
	x := &exchange{Request: r, url: u, authority: r.Host, path: u.RequestURI(), tls: u.Scheme == "https"}
	if x.Method == "" {
		x.Method = "GET"
	}
	if x.authority == "" {
		x.authority = u.Host
	}
	if strings.ContainsAny(x.Method+x.authority, "\r\n\x00 ") || strings.ContainsAny(x.path, "\r\n\x00 ") {
		return nil, fmt.Errorf("wire: a line break or blank in the request for %q", clip(r.URL, 200))
	}
	for _, h := range r.Header {
		if h.Name == "" || strings.ContainsAny(h.Name, "\r\n\x00: ") || strings.ContainsAny(h.Value, "\r\n\x00") {
			return nil, fmt.Errorf("wire: the header %q cannot be sent", h.Name)
		}
	}
	if x.MaxBody <= 0 {
		x.MaxBody = defaultMaxBody
	}
	if x.Timeout <= 0 {
		x.Timeout = 20 * time.Second
	}
	if x.Stall <= 0 {
		x.Stall = 4 * time.Second
	}
	return x, nil
}

// chromeAgent belongs to the same version as the ClientHello "chrome".
const chromeAgent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/133.0.0.0 Safari/537.36"

// headers are the request's headers, but Host and Connection, in Chrome's order.
func (x *exchange) headers() []measure.Header {
	var list []measure.Header
	if x.tls {
		list = append(list,
			measure.Header{Name: "sec-ch-ua", Value: `"Not(A:Brand";v="99", "Google Chrome";v="133", "Chromium";v="133"`},
			measure.Header{Name: "sec-ch-ua-mobile", Value: "?0"},
			measure.Header{Name: "sec-ch-ua-platform", Value: `"Windows"`})
	}
	list = append(list,
		measure.Header{Name: "Upgrade-Insecure-Requests", Value: "1"},
		measure.Header{Name: "User-Agent", Value: chromeAgent},
		measure.Header{Name: "Accept", Value: "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"})
	if x.tls {
		list = append(list,
			measure.Header{Name: "Sec-Fetch-Site", Value: "none"},
			measure.Header{Name: "Sec-Fetch-Mode", Value: "navigate"},
			measure.Header{Name: "Sec-Fetch-User", Value: "?1"},
			measure.Header{Name: "Sec-Fetch-Dest", Value: "document"})
	}
	list = append(list,
		measure.Header{Name: "Accept-Encoding", Value: "gzip, deflate"}, // what is decoded here
		measure.Header{Name: "Accept-Language", Value: "en-US,en;q=0.9"})
	if len(x.Body) > 0 {
		list = append(list, measure.Header{Name: "Content-Length", Value: strconv.Itoa(len(x.Body))})
	}
next:
	for _, h := range x.Header {
		for i := range list {
			if strings.EqualFold(list[i].Name, h.Name) {
				list[i].Value = h.Value
				continue next
			}
		}
		list = append(list, h)
	}
	return list
}

// answer is the head of an answer and a way to read its body, content coding
// still on. The body ends in io.EOF where the protocol says so, in
// io.ErrUnexpectedEOF where the connection ended before.
type answer struct {
	proto   string
	status  int
	headers []measure.Header
	body    io.Reader
}

func (a *answer) get(name string) string {
	for _, h := range a.headers {
		if strings.EqualFold(h.Name, name) {
			return h.Value
		}
	}
	return ""
}

// Fetch makes one request on conn, a Conn or a *TLSConn with which nothing
// else has been done, and reads the answer within bounds. It follows no
// redirect. The body is returned decoded, also if it broke off. The connection
// is the caller's to close and serves no second request.
func Fetch(ctx context.Context, l *Log, m Meta, conn net.Conn, r Request) (*measure.Observation, []byte) {
	o := l.Begin(measure.StepHTTP, m)
	defer l.End(o)
	h := &measure.HTTP{}
	o.HTTP = h
	var body []byte
	err := transfer(ctx, l, o, conn, r, func(a *answer) error {
		var err error
		body, err = readPage(h, a, r)
		return err
	})
	fail(ctx, o, err)
	return o, body
}

// transfer sends a request, hands the answer to read, and records both.
func transfer(ctx context.Context, l *Log, o *measure.Observation, conn net.Conn, r Request, read func(*answer) error) error {
	h := o.HTTP
	o.URL, o.Host = r.URL, r.Host
	x, err := r.prepare()
	if err != nil {
		return err
	}
	h.Method, o.Host = x.Method, x.authority
	mt, c, err := metered(conn)
	if err != nil {
		return err
	}
	setRemote(l, o, addrPort(conn.RemoteAddr()))
	sent, received := mt.sent.Load(), mt.received.Load()
	end := mt.begin(ctx, limits{total: x.Timeout, silence: silenceFor(mt.Conn), patience: x.Timeout})
	tc, isTLS := conn.(*TLSConn)
	var a *answer
	if isTLS && tc.alpn == "h2" {
		h.Proto = "HTTP/2.0"
		a, err = roundTrip2(c, mt, x)
	} else {
		a, err = roundTrip1(c, mt, x)
	}
	if a != nil {
		describe(h, a)
		h.Authenticated = isTLS && tc.verified
	}
	if err == nil {
		mt.awaiting(x.Stall, x.Stall)
		err = read(a)
	}
	end()
	h.FirstByteUS = mt.firstByte().Microseconds()
	o.Sent, o.Received = mt.sent.Load()-sent, mt.received.Load()-received
	o.TookUS = l.Since(time.Now()) - o.StartUS
	if err != nil {
		stack(l, o, mt.Conn)
	}
	return err
}

// describe records the head of an answer.
func describe(h *measure.HTTP, a *answer) {
	h.Proto, h.Status = a.proto, a.status
	for _, f := range a.headers {
		if len(h.Headers) == maxHeaders {
			break
		}
		h.Headers = append(h.Headers, measure.Header{Name: text(f.Name, maxHeaderValue), Value: text(f.Value, maxHeaderValue)})
	}
	h.Location = text(a.get("Location"), maxLocation)
	h.H3 = advertisedH3(a.headers)
}

// readPage reads the body of an answer and records what it is.
func readPage(h *measure.HTTP, a *answer, r Request) ([]byte, error) {
	limit := r.MaxBody
	if limit <= 0 {
		limit = defaultMaxBody
	}
	// Compressed bytes are bounded as well: an endless row of empty members
	// decodes to nothing.
	raw := &bounded{r: a.body, left: limit + limit/8 + 4096}
	body, err := readAll(decoder(a.get("Content-Encoding"), raw), limit+1)
	if int64(len(body)) > limit {
		body, h.BodyTruncated, err = body[:limit], true, nil
	}
	if raw.left < 0 {
		h.BodyTruncated, err = true, nil
	}
	h.BodyBytes = int64(len(body))
	if len(body) > 0 {
		sum := sha256.Sum256(body)
		h.BodySHA256 = hex.EncodeToString(sum[:])
		h.Title = pageTitle(body)
		h.Simhash = simhash(body)
	}
	return body, err
}

func readAll(r io.Reader, limit int64) ([]byte, error) {
	var out []byte
	for int64(len(out)) < limit {
		if len(out) == cap(out) {
			out = slices.Grow(out, int(min(int64(max(len(out), 16<<10)), limit-int64(len(out)))))
		}
		n, err := r.Read(out[len(out):min(int64(cap(out)), limit)])
		out = out[:len(out)+n]
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// bounded ends in errTooLarge, with left negative, when more comes than it
// may pass.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errTooLarge
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left+1)])
	b.left -= int64(n)
	if b.left < 0 {
		return n - 1, errTooLarge
	}
	return n, err
}

// advertisedH3 is the authority that Alt-Svc (RFC 7838) offers for h3.
func advertisedH3(headers []measure.Header) string {
	for _, h := range headers {
		if !strings.EqualFold(h.Name, "Alt-Svc") {
			continue
		}
		for _, alternative := range strings.Split(h.Value, ",") {
			first, _, _ := strings.Cut(alternative, ";")
			id, value, ok := strings.Cut(strings.TrimSpace(first), "=")
			if !ok || id != "h3" {
				continue
			}
			authority := strings.Trim(value, `"`)
			if host, port, err := net.SplitHostPort(authority); err == nil && !strings.ContainsAny(host, "/@\\ ") {
				if p, err := strconv.ParseUint(port, 10, 16); err == nil && p > 0 {
					return text(authority, 300)
				}
			}
		}
	}
	return ""
}

// noBody says that an answer has no body by definition (RFC 9110, 6.4.1).
func noBody(method string, status int) bool {
	return method == "HEAD" || status/100 == 1 || status == http.StatusNoContent || status == http.StatusNotModified
}
