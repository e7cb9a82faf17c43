package packet

import (
	"errors"
	"testing"
)

func TestParseResponse(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/HTML; charset=utf-8\r\ncontent-length: 12\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
	for cut := range head {
		if _, err := ParseResponse([]byte(head[:cut])); !errors.Is(err, ErrMore) {
			t.Fatalf("at %d: %v", cut, err)
		}
	}
	r, err := ParseResponse([]byte(head + "body"))
	want := Response{Status: 200, HeadLength: len(head), ContentLength: 12, ContentType: "text/html", Chunked: true, Encoded: true}
	if err != nil || *r != want {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, bad := range []string{"SSH-2.0-x\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.1 abc OK\r\n\r\n", "HTTP/1.1 99\r\n\r\n"} {
		if _, err := ParseResponse([]byte(bad)); !errors.Is(err, ErrNotHTTP) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if r, _ := ParseResponse([]byte("HTTP/1.0 302 Moved\r\nContent-Length: -5\r\n\r\n")); r == nil || r.ContentLength != -1 {
		t.Errorf("a negative length: %+v", r)
	}
}

// An endless head must end the waiting.
func TestHeadsAreBounded(t *testing.T) {
	long := make([]byte, maxHead)
	for i := range long {
		long[i] = 'a'
	}
	if _, err := ParseRequest(append([]byte("GET /"), long...)); errors.Is(err, ErrMore) {
		t.Error("a request line without end is still waited for")
	}
	if _, err := ParseRequest(append([]byte("GET / HTTP/1.1\r\nX: "), long...)); errors.Is(err, ErrMore) {
		t.Error("a request head without end is still waited for")
	}
	if _, err := ParseResponse(append([]byte("HTTP/1.1 200 OK\r\nX: "), long...)); errors.Is(err, ErrMore) {
		t.Error("a response head without end is still waited for")
	}
}

func FuzzHTTP(f *testing.F) {
	f.Add([]byte("GET /a HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("head http://u@[::1]:80?x HTTP/1.0\nA: b\nhost:\tx.:1\n\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRequest(b); err == nil {
			r.Name()
		}
		if r, err := ParseResponse(b); err == nil && r.HeadLength > len(b) {
			t.Fatal("the head is longer than what there is")
		}
	})
}
