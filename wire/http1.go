package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"

	"govah/measure"
)

// head1 is a request's head in HTTP/1.1 (RFC 9112), as Chrome writes it.
func (x *exchange) head1() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", x.Method, x.path)
	if !x.NoHost {
		fmt.Fprintf(&b, "Host: %s\r\n", x.authority)
	}
	b.WriteString("Connection: keep-alive\r\n")
	for _, h := range x.headers() {
		fmt.Fprintf(&b, "%s: %s\r\n", h.Name, h.Value)
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// roundTrip1 speaks HTTP/1.1: it writes the request and reads the head of the
// answer.
func roundTrip1(c net.Conn, mt *meter, x *exchange) (*answer, error) {
	mt.request()
	segments := x.Segments
	if segments == nil {
		segments = [][]byte{append(x.head1(), x.Body...)}
	}
	if err := writeApart(c, segments); err != nil {
		// The answer may have come before the write failed: a reset that
		// follows a block page must not hide it.
		if a, readErr := readAnswer(c, x.Method, mt.answered); readErr == nil {
			return a, nil
		}
		return nil, err
	}
	return readAnswer(c, x.Method, mt.answered)
}

// gap is how long a segment is ahead of the next, so that the kernel does not
// send them as one.
const gap = 20 * time.Millisecond

// writeApart writes each part in a segment of its own.
func writeApart(c net.Conn, parts [][]byte) error {
	for i, b := range parts {
		if i > 0 {
			time.Sleep(gap)
		}
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// readAnswer reads the head of an answer, skipping informational ones. begun
// is called when its first byte is there.
func readAnswer(r io.Reader, method string, begun func()) (*answer, error) {
	br := bufio.NewReaderSize(r, 8<<10)
	if _, err := br.Peek(1); err != nil {
		return nil, err
	}
	begun()
	budget := maxHeaderBytes
	for range maxInformal {
		a, err := readHead(br, &budget)
		if err != nil {
			return nil, err
		}
		if a.status/100 == 1 && a.status != 101 {
			continue
		}
		a.body, err = bodyOf(a, br, method)
		return a, err
	}
	return nil, fmt.Errorf("more than %d informational answers: %w", maxInformal, errTooLarge)
}

// malformed is what is no HTTP.
type malformed struct{ what string }

func (e *malformed) Error() string { return "malformed HTTP answer: " + e.what }

func readHead(br *bufio.Reader, budget *int) (*answer, error) {
	line, err := readLine(br, budget)
	if err != nil {
		return nil, err
	}
	proto, rest, ok := strings.Cut(line, " ")
	if !ok || !strings.HasPrefix(proto, "HTTP/") || len(proto) > len("HTTP/1.1")+2 {
		return nil, &malformed{"no status line"}
	}
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || len(code) != 3 || status < 100 {
		return nil, &malformed{"no status code"}
	}
	a := &answer{proto: text(proto, 16), status: status}
	for {
		line, err := readLine(br, budget)
		if err != nil {
			return nil, err
		}
		if line == "" {
			return a, nil
		}
		if len(a.headers) == 4*maxHeaders {
			return nil, fmt.Errorf("more than %d headers: %w", 4*maxHeaders, errTooLarge)
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			// Obsolete folding and plain garbage: kept as it is, for the reader.
			a.headers = append(a.headers, measure.Header{Value: strings.TrimSpace(line)})
			continue
		}
		a.headers = append(a.headers, measure.Header{Name: name, Value: strings.Trim(value, " \t")})
	}
}

// readLine reads one line of the head without its end.
func readLine(br *bufio.Reader, budget *int) (string, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		*budget -= len(part)
		if *budget < 0 {
			return "", fmt.Errorf("a head of more than %d bytes: %w", maxHeaderBytes, errTooLarge)
		}
		line = append(line, part...)
		if err == nil {
			return strings.TrimRight(string(line), "\r\n"), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if err == io.EOF && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
	}
}

// bodyOf is the body of an answer by the rules of RFC 9112, 6.3.
func bodyOf(a *answer, br *bufio.Reader, method string) (io.Reader, error) {
	if noBody(method, a.status) {
		return bytes.NewReader(nil), nil
	}
	if te := a.get("Transfer-Encoding"); te != "" && strings.EqualFold(lastToken(te), "chunked") {
		return httputil.NewChunkedReader(br), nil
	}
	if cl := a.get("Content-Length"); cl != "" {
		n, err := strconv.ParseUint(strings.TrimSpace(cl), 10, 63)
		if err != nil {
			return nil, &malformed{"Content-Length " + strconv.Quote(clip(cl, 40))}
		}
		return &exactly{r: br, left: int64(n)}, nil
	}
	return br, nil // until the peer closes
}

func lastToken(list string) string {
	return strings.TrimSpace(list[strings.LastIndexByte(list, ',')+1:])
}

// exactly reads left bytes; fewer are an unexpected end.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if err == io.EOF && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
