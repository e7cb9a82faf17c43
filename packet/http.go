package packet

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// ErrNotHTTP says that the bytes are no HTTP/1 request, or no response.
var ErrNotHTTP = errors.New("packet: not HTTP/1")

const maxHead = 16 << 10

// Request is what a device on the path reads of an HTTP/1 request.
type Request struct {
	Method, Target, Version string // as they are written: GET, /, HTTP/1.1
	// Authority is that of a target in absolute form (RFC 9112 3.2.2) whose
	// scheme is http or https, as it is written but without user information;
	// "" where the target has another form.
	Authority string
	// Host is the name in the first Host header that has one: lower case,
	// without port; "" none. The next three are of that header.
	Host      string
	HostName  string // the header's own name as it is written, as HOST
	HostValue string // all between the colon and the end of the line
	HostLine  int    // which header it is, from 1
	Hosts     int    // how many Host headers were seen
	BareLF    bool   // the request line ends in LF alone
	Wide      bool   // more than one blank stands between its parts
	Complete  bool   // the head has ended
}

// Name is the name that a request is for, in lower case and without port: that
// of the target's authority, which wins over Host (RFC 9112 3.2.2).
func (r *Request) Name() string {
	if r.Authority != "" {
		return withoutPort(strings.ToLower(r.Authority))
	}
	return r.Host
}

func withoutPort(host string) string {
	if h, _, ok := strings.Cut(host, ":"); ok && !strings.HasPrefix(host, "[") {
		return h
	}
	return host
}

func authority(target string) string {
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return ""
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	return rest[strings.LastIndex(rest, "@")+1:]
}

var methods = []string{"GET ", "POST ", "HEAD ", "PUT ", "DELETE ", "OPTIONS ", "CONNECT ", "PATCH ", "TRACE "}

// ParseRequest reads the head of an HTTP/1 request. ErrMore means that no Host
// has been seen yet and the head has not ended. A method is known by its
// letters in either case: servers want capitals, some devices do not.
func ParseRequest(b []byte) (*Request, error) {
	fits := false
	for _, m := range methods {
		n := min(len(m), len(b))
		if strings.EqualFold(string(b[:n]), m[:n]) {
			fits = true
			break
		}
	}
	if !fits {
		return nil, ErrNotHTTP
	}
	whole := len(b) < maxHead
	if !whole {
		b = b[:maxHead]
	}
	line, rest, ok := strings.Cut(string(b), "\n")
	if !ok {
		if !whole {
			return nil, ErrNotHTTP
		}
		return nil, ErrMore
	}
	bare := !strings.HasSuffix(line, "\r")
	line = strings.TrimRight(line, "\r")
	parts := strings.SplitN(line, " ", 3)
	wide := strings.Contains(line, "  ")
	if wide {
		parts = strings.Fields(line)
	}
	if len(parts) != 3 || !strings.HasPrefix(parts[2], "HTTP/") {
		return nil, ErrNotHTTP
	}
	r := &Request{Method: parts[0], Target: parts[1], Version: parts[2], Authority: authority(parts[1]), BareLF: bare, Wide: wide}
	for n := 1; ; n++ {
		line, next, ok := strings.Cut(rest, "\n")
		if !ok {
			break
		}
		rest = next
		line = strings.TrimRight(line, "\r")
		if line == "" {
			r.Complete = true
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !strings.EqualFold(name, "host") {
			continue
		}
		if r.Hosts++; r.Host == "" {
			r.Host = withoutPort(strings.ToLower(strings.TrimSpace(value)))
			r.HostName, r.HostValue, r.HostLine = name, value, n
		}
	}
	if r.Host == "" && !r.Complete && whole {
		return nil, ErrMore
	}
	return r, nil
}

// Response is what a device on the path reads of the head of an HTTP/1
// response.
type Response struct {
	Status        int
	HeadLength    int    // bytes up to and including the empty line
	ContentLength int    // -1: not given
	ContentType   string // lower case, without parameters
	Chunked       bool
	Encoded       bool // Content-Encoding says other than identity
}

// ParseResponse reads the head of an HTTP/1 response (RFC 9112 4). ErrMore
// means that it fits so far and has not ended.
func ParseResponse(b []byte) (*Response, error) {
	const start = "HTTP/1."
	if n := min(len(start), len(b)); string(b[:n]) != start[:n] {
		return nil, ErrNotHTTP
	}
	end := bytes.Index(b[:min(len(b), maxHead)], []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) >= maxHead {
			return nil, ErrNotHTTP
		}
		return nil, ErrMore
	}
	lines := strings.Split(string(b[:end]), "\r\n")
	r := &Response{HeadLength: end + 4, ContentLength: -1}
	parts := strings.SplitN(lines[0], " ", 3)
	if len(parts) < 2 || len(parts[1]) != 3 {
		return nil, ErrNotHTTP
	}
	var err error
	if r.Status, err = strconv.Atoi(parts[1]); err != nil || r.Status < 100 {
		return nil, ErrNotHTTP
	}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		value = strings.ToLower(strings.TrimSpace(value))
		switch strings.ToLower(name) {
		case "content-length":
			if n, err := strconv.Atoi(value); err == nil && n >= 0 {
				r.ContentLength = n
			}
		case "content-type":
			kind, _, _ := strings.Cut(value, ";")
			r.ContentType = strings.TrimSpace(kind)
		case "transfer-encoding":
			r.Chunked = strings.Contains(value, "chunked")
		case "content-encoding":
			r.Encoded = value != "" && value != "identity"
		}
	}
	return r, nil
}
