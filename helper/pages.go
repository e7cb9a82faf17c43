package helper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"govah/evidence/receipt"
	"govah/measure"
)

var errBadRequest = errors.New("helper: not a request of this protocol")

// maxRequest bounds what is asked, in bytes.
const maxRequest = 16 << 10

// rawKey finds a plain connection in a request's context.
type rawKey struct{}

// handler is the helper as a web server. What it does not know is "404 page
// not found", as with any other server, for wrong methods too.
func (s *Server) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		get := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch {
		case get && r.URL.Path == "/":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, frontPage)
		case get && r.URL.Path == "/plain":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.Header().Set("Cache-Control", "no-store, no-transform")
			io.WriteString(w, plainPage)
		case get && r.URL.Path == "/fresh":
			// It may be kept, so that whoever keeps it gives itself away.
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.Header().Set("Cache-Control", "public, max-age=300")
			fmt.Fprintf(w, "<!DOCTYPE html>\n<html lang=\"en\"><head><title>A page</title></head><body><p>%016x</p></body></html>\n", rand.Uint64())
		case get && r.URL.Path == "/bulk":
			s.bulk(w, r)
		case get && r.URL.Path == "/echo":
			s.echo(w, r)
		case r.Method == http.MethodPost && r.TLS != nil && r.URL.Path == "/v1/look":
			s.serveLook(w, r)
		case r.Method == http.MethodPost && r.TLS != nil && r.URL.Path == "/v1/received":
			reply(w, r, s.log.received)
		case r.Method == http.MethodPost && r.TLS != nil && r.URL.Path == "/v1/arrived":
			reply(w, r, func(req measure.HelperArrivedRequest) (*measure.HelperArrived, error) {
				return s.log.arrived(req, s.limiter.id(clientOf(r)))
			})
		case r.Method == http.MethodPost && r.TLS != nil && r.URL.Path == "/v1/back":
			s.serveBack(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

// frontPage is what anybody sees who comes by.
const frontPage = `<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Welcome</title></head>
<body>
<h1>Welcome</h1>
<p>This server is up. There is nothing to see here yet.</p>
</body>
</html>
`

// plainPage has the hash measure.HelperPlainSHA256, so that a client can tell
// whether it came unchanged. It has what filters like to change: a head, a
// script, a link, an image.
var plainPage = "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>A plain page</title>" +
	"<script>var unchanged = true;</script></head>\n<body>\n<h1>A plain page</h1>\n" +
	"<p><a href=\"http://example.com/\">A link</a> and <img src=\"http://example.com/none.png\" alt=\"no image\">.</p>\n" +
	strings.Repeat("<p>The quick brown fox jumps over the lazy dog.</p>\n", 40) + "</body>\n</html>\n"

// decode reads a question, and returns it also as it came.
func decode(r *http.Request, into any) (body []byte, ok bool) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	return body, err == nil && len(body) <= maxRequest && json.Unmarshal(body, into) == nil
}

// reply answers a question about what came.
func reply[Q, A any](w http.ResponseWriter, r *http.Request, answer func(Q) (A, error)) {
	var question Q
	if _, ok := decode(r, &question); ok {
		if a, err := answer(question); err == nil {
			encode(w, a)
			return
		}
	}
	http.Error(w, "bad request", http.StatusBadRequest)
}

func encode(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil { // strings and integers always encode
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

// clientOf is the address that a request came from.
func clientOf(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// localOf is the address that a request came to.
func localOf(r *http.Request) netip.Addr {
	a, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return addrOf(a)
}

// bulkTime is how long a stream may take.
const bulkTime = 2 * time.Minute

// bulk streams bytes that do not compress, the same ones each time.
func (s *Server) bulk(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64)
	if err != nil || n < 0 {
		http.NotFound(w, r)
		return
	}
	n = min(n, s.limits.BulkBytes)
	done := s.limiter.stream(clientOf(r), n)
	if done == nil {
		tooMany(w)
		return
	}
	var sent int64
	defer func() { done(sent) }()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	w.Header().Set("Cache-Control", "no-store, no-transform")
	if r.Method == http.MethodHead {
		return
	}
	end := time.Now().Add(bulkTime)
	http.NewResponseController(w).SetWriteDeadline(end) // HTTP/3 may not know it
	random := rand.NewChaCha8([32]byte([]byte("govah bulk bytes, version 1 ....")))
	buf := make([]byte, 16<<10)
	for sent < n && r.Context().Err() == nil && time.Now().Before(end) {
		part := buf[:min(int64(len(buf)), n-sent)]
		random.Read(part)
		m, err := w.Write(part)
		sent += int64(m)
		if err != nil {
			return
		}
	}
}

// echo answers with the head of the request as it came. On plain HTTP/1.1 it
// is the very bytes; where the transport has no such thing (HTTP/2, HTTP/3)
// or it is encrypted, a rendering with sorted fields.
func (s *Server) echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store, no-transform")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if p, ok := r.Context().Value(rawKey{}).(*peeked); ok && r.TLS == nil {
		w.Header().Set("Connection", "close") // only the first head is kept
		if head := p.takeHead(); len(head) > 0 {
			w.Write(head)
			return
		}
	}
	var b bytes.Buffer
	b.WriteString(r.Method + " " + r.RequestURI + " " + r.Proto + "\r\nHost: " + r.Host + "\r\n")
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range r.Header[name] {
			b.WriteString(name + ": " + v + "\r\n")
		}
	}
	b.WriteString("\r\n")
	w.Write(b.Bytes())
}

func tooMany(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "5")
	http.Error(w, "too many requests", http.StatusTooManyRequests)
}

// serveLook answers one HelperRequest.
func (s *Server) serveLook(w http.ResponseWriter, r *http.Request) {
	var req measure.HelperRequest
	body, ok := decode(r, &req)
	if !ok || req.Schema < 1 || len(req.Nonce) > 64 || len(req.URL) > 2048 || len(req.Addresses) > maxAddresses {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	from := clientOf(r)
	done := s.limiter.look(r.Context(), from)
	if done == nil {
		tooMany(w)
		return
	}
	defer done()
	seen := s.look(r.Context(), req, from, localOf(r))
	if slices.Contains(req.Wants, "receipt") && len(req.Nonce) >= receipt.MinNonce {
		// Without one it is worth as much as an older helper's.
		if text, err := s.sign.Sign(time.UnixMilli(seen.TimeMS), seen.ASN, body, req.Nonce, seen.Observations); err == nil {
			seen.Receipt, seen.ReceiptKey = text, s.sign.Public()
		}
	}
	encode(w, seen)
}
