package box

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"govah/packet"
)

func blockedHTTP(action string, change func(*Rule)) Rule {
	r := Rule{Layer: "http", Names: []string{"blocked.example"}, Action: action}
	if change != nil {
		change(&r)
	}
	return r
}

// text puts the payloads of the packets in a direction together and checks
// that their sequence numbers are contiguous from first.
func text(t *testing.T, out []sent, d Direction, first uint32) string {
	t.Helper()
	var b strings.Builder
	for _, s := range to(out, d) {
		if len(s.Payload) > 0 && s.Seq != first+uint32(b.Len()) {
			t.Errorf("a segment at %d, expected at %d", s.Seq-first, b.Len())
		}
		b.Write(s.Payload)
	}
	return b.String()
}

func readResponse(t *testing.T, raw string) (*http.Response, string) {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), nil)
	if err != nil {
		t.Fatalf("no HTTP response: %v in %q", err, raw)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("body: %v", err)
	}
	return r, string(body)
}

func TestBlockPage(t *testing.T) {
	// IR-08: status, headers and body; IR-06: the server is reset.
	rule := blockedHTTP("page", func(r *Rule) {
		r.Body = `<iframe src="http://10.10.34.36/?type=Invalid Keyword&policy=MainPolicy "></iframe>`
		r.Ends = "server"
	})
	for _, ends := range [][2]netip.AddrPort{{client4, web4}, {client6, netip.AddrPortFrom(server6.Addr(), 80)}} {
		l := newLink(t, rule)
		c := l.open(ends[0], ends[1])
		out := c.up(request("Blocked.example", "/"))
		r, body := readResponse(t, text(t, out, In, c.sseq))
		if r.StatusCode != 403 || body != rule.Body || !r.Close {
			t.Errorf("%d %v %q", r.StatusCode, r.Header, body)
		}
		last := to(out, In)[len(to(out, In))-1]
		if last.Flags&packet.FIN == 0 || last.Ack != c.cseq {
			t.Errorf("the page is not closed: flags %x, ack %d", last.Flags, last.Ack)
		}
		if up := to(out, Out); len(up) != 1 || up[0].Flags&packet.RST == 0 || up[0].Seq != c.cseq-uint32(len(request("Blocked.example", "/"))) {
			t.Errorf("the server gets %+v", up)
		}
		if len(c.down("HTTP/1.1 200 OK\r\n\r\n")) != 0 {
			t.Error("the true answer came through")
		}
		o := l.open(netip.AddrPortFrom(ends[0].Addr(), 40001), ends[1])
		if !only(o.up(request("other.example", "/")), Out) {
			t.Error("another host's request did not pass")
		}
	}
	// A long page takes several segments.
	l := newLink(t, blockedHTTP("page", func(r *Rule) { r.Body = strings.Repeat("blocked ", 700) }))
	c := l.open(client4, web4)
	out := c.up(request("blocked.example", "/"))
	if _, body := readResponse(t, text(t, out, In, c.sseq)); len(body) != 5600 || len(out) < 4 {
		t.Errorf("%d bytes in %d segments", len(body), len(out))
	}
	// IN-01: on the path, with an IP ID of its own; the request passes.
	l = newLink(t, blockedHTTP("page", func(r *Rule) { r.OnPath, r.IPID, r.Status = true, 242, "200 OK" }))
	c = l.open(client4, web4)
	out = c.up(request("blocked.example", "/"))
	if len(to(out, Out)) != 1 || to(out, In)[0].ID != 242 || !only(c.down("HTTP/1.1 200 OK\r\n\r\n"), In) {
		t.Errorf("%+v", out)
	}
}

func TestHTTPRedirect(t *testing.T) {
	// ID-01
	l := newLink(t, blockedHTTP("redirect", func(r *Rule) {
		r.Status, r.To = "HTTP/1.0 302 Moved", "http://lamanlabuh.aduankonten.id/"
		r.Header = []string{"Pragma: no-cache", "Cache-Control: no-cache"}
	}))
	c := l.open(client4, web4)
	raw := text(t, c.up(request("blocked.example", "/a")), In, c.sseq)
	r, _ := readResponse(t, raw)
	if !strings.HasPrefix(raw, "HTTP/1.0 302 Moved\r\n") || r.Header.Get("Location") != "http://lamanlabuh.aduankonten.id/" || r.ContentLength != 0 || r.Header.Get("Pragma") == "" {
		t.Errorf("%q", raw)
	}
}

func TestHTTPTriggers(t *testing.T) {
	for name, c := range map[string]struct {
		rule Rule
		up   []string
		hit  bool // the last is dropped
	}{
		"path":              {Rule{Paths: []string{"proxy"}}, []string{request("any.example", "/free-proxy-list")}, true}, // SY-01
		"other path":        {Rule{Paths: []string{"proxy"}}, []string{request("any.example", "/")}, false},
		"host and port":     {Rule{Names: []string{"blocked.example"}}, []string{"GET / HTTP/1.1\r\nHost: blocked.example:80\r\n\r\n"}, true},
		"case of method":    {Rule{Names: []string{"blocked.example"}, Blind: []string{"method-case"}}, []string{"gET / HTTP/1.1\r\nHost: blocked.example\r\n\r\n"}, false}, // IR-12
		"split, put back":   {Rule{Names: []string{"blocked.example"}}, []string{"GET / HT", "TP/1.1\r\nHost: block", "ed.example\r\n\r\n"}, true},
		"split, not":        {Rule{Names: []string{"blocked.example"}, Split: true}, []string{"GET / HT", "TP/1.1\r\nHost: block", "ed.example\r\n\r\n"}, false},
		"second request":    {Rule{Names: []string{"blocked.example"}}, []string{request("ok.example", "/"), request("blocked.example", "/")}, true}, // IR-13
		"suffix":            {Rule{Names: []string{".blocked.example"}}, []string{request("a.blocked.example", "/")}, true},
		"not quite suffix":  {Rule{Names: []string{".blocked.example"}}, []string{request("ablocked.example", "/")}, false},
		"exact, subdomain":  {Rule{Names: []string{"blocked.example"}}, []string{request("a.blocked.example", "/")}, false},
		"in the body alone": {Rule{Names: []string{"blocked.example"}}, []string{request("ok.example", "/"), "Host: blocked.example\r\n\r\n"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.rule.Layer, c.rule.Action = "http", "drop"
			conn := newLink(t, c.rule).open(client4, web4)
			for i, s := range c.up {
				got := len(conn.up(s)) == 0
				if want := c.hit && i == len(c.up)-1; got != want {
					t.Errorf("segment %d: dropped %v, want %v", i, got, want)
				}
			}
		})
	}
}

// A response is altered, and both ends go on as if nothing had happened:
// whatever the segments are, whatever is lost and sent again.
func TestTamper(t *testing.T) {
	const script = "<script>alert('injected')</script>"
	page := "<!DOCTYPE html><html>" + strings.Repeat("<p>text</p>", 400) + "</html>"
	plain := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s", len(page), page)
	chunked := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n", len(page), page) + "0\r\n\r\n"
	image := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n%s", len(page), page)
	second := "HTTP/1.1 204 No Content\r\n\r\n"
	inject := blockedHTTP("inject-script", func(r *Rule) { r.Body = script })
	header := blockedHTTP("inject-header", func(r *Rule) { r.Header = []string{"X-Injected: 1", "Via: 1.1 box"} })
	for name, c := range map[string]struct {
		rule     Rule
		response string
		check    func(t *testing.T, r *http.Response, body string)
	}{
		"script": {inject, plain, func(t *testing.T, r *http.Response, body string) {
			// Behind the doctype if it came with the head, else before it.
			if strings.Index(body, script) > len("<!DOCTYPE html>") || strings.Replace(body, script, "", 1) != page || len(body) == len(page) {
				t.Errorf("body of %d bytes: %.80q", len(body), body)
			}
		}},
		"script, chunked": {inject, chunked, func(t *testing.T, r *http.Response, body string) {
			if body != script+page {
				t.Errorf("body of %d bytes: %.80q", len(body), body)
			}
		}},
		"script, into an image": {inject, image, func(t *testing.T, r *http.Response, body string) {
			if body != page {
				t.Errorf("an image was altered: %.80q", body)
			}
		}},
		"header": {header, plain, func(t *testing.T, r *http.Response, body string) {
			if r.Header.Get("X-Injected") != "1" || r.Header.Get("Via") != "1.1 box" || body != page {
				t.Errorf("%v, %d bytes", r.Header, len(body))
			}
		}},
	} {
		for _, size := range []int{17, 100, 1400, 100_000} {
			for seed := range uint64(4) {
				t.Run(fmt.Sprintf("%s/%d/%d", name, size, seed), func(t *testing.T) {
					l := newLink(t, c.rule)
					conn := l.open(client4, web4)
					out := conn.up(request("blocked.example", "/"))
					if len(out) != 1 {
						t.Fatalf("the request did not pass")
					}
					if name != "header" && strings.Contains(string(out[0].Payload), "gzip") {
						t.Error("a compressed page was asked for")
					}
					got := deliver(t, conn, c.response+second, size, rand.New(rand.NewPCG(seed, 1)))
					b := bufio.NewReader(strings.NewReader(got))
					r, err := http.ReadResponse(b, nil)
					if err != nil {
						t.Fatal(err)
					}
					body, err := io.ReadAll(r.Body)
					if err != nil {
						t.Fatal(err)
					}
					c.check(t, r, string(body))
					if r, err := http.ReadResponse(b, nil); err != nil || r.StatusCode != 204 {
						t.Errorf("the response after it: %v", err)
					}
				})
			}
		}
	}
	// An answer to HEAD has a length and no page.
	head := newLink(t, inject).open(client4, web4)
	head.up(strings.Replace(request("blocked.example", "/"), "GET", "HEAD", 1))
	if only := "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\n"; deliver(t, head, only, 500, rand.New(rand.NewPCG(1, 1))) != only {
		t.Error("the answer to HEAD was altered")
	}
	// Acknowledgements pass while the head is awaited, and a server that
	// closes early is not held back.
	early := newLink(t, header).open(client4, web4)
	early.up(request("blocked.example", "/"))
	if !only(early.send(In, early.segment(false, packet.ACK, nil)), In) || len(early.down("HTTP/1.1 200 OK\r\nA: b\r\n")) != 0 {
		t.Error("before the head is whole")
	}
	out := early.send(In, early.segment(false, packet.FIN|packet.ACK, nil))
	if got := text(t, out, In, early.sseq-uint32(len("HTTP/1.1 200 OK\r\nA: b\r\n"))); got != "HTTP/1.1 200 OK\r\nA: b\r\n" || out[len(out)-1].Flags&packet.FIN == 0 {
		t.Errorf("a response cut short arrives as %q", got)
	}
	// Another host's response is left alone.
	l := newLink(t, inject)
	conn := l.open(client4, web4)
	conn.up(request("other.example", "/"))
	if got := deliver(t, conn, plain, 500, rand.New(rand.NewPCG(1, 1))); got != plain {
		t.Error("another host's response was altered")
	}
}

// deliver plays a server that sends data in segments of a size over a line
// that loses some of them, and a client that acknowledges what it has. It
// returns what the client reads.
func deliver(t *testing.T, c *tcp, data string, size int, r *rand.Rand) string {
	t.Helper()
	base := c.sseq
	var reader packet.Stream
	reader.Start(base)
	acked := 0
	for round := 0; acked < len(data); round++ {
		if round > 20_000 {
			t.Fatalf("the server's data are never acknowledged: %d of %d bytes", acked, len(data))
		}
		// A window of four segments from what is not acknowledged.
		for at := acked; at < min(len(data), acked+4*size); at += size {
			if r.IntN(5) == 0 {
				continue // lost before the box
			}
			c.sseq = base + uint32(at)
			for _, s := range c.send(In, c.segment(false, packet.ACK|packet.PSH, []byte(data[at:min(len(data), at+size)]))) {
				if s.d != In {
					t.Fatal("something went back to the server")
				}
				if s.Ack != c.cseq {
					t.Fatalf("the client's data are acknowledged up to %d, not %d", s.Ack, c.cseq)
				}
				if r.IntN(5) > 0 { // or lost behind it
					reader.Add(s.Seq, s.Payload)
				}
			}
		}
		c.sseq = reader.Next()
		for _, s := range c.send(Out, c.segment(true, packet.ACK, nil)) {
			n := int(int32(s.Ack - base))
			if n < 0 || n > len(data) {
				t.Fatalf("the client seems to acknowledge %d of %d bytes", n, len(data))
			}
			acked = max(acked, n)
		}
	}
	c.sseq = base + uint32(len(data))
	return string(reader.Data)
}
