package wire_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"

	"govah/measure"
	"govah/wire"
	"govah/wire/host"
)

// readRequest reads the head of a request.
func readRequest(c net.Conn) string {
	c.SetReadDeadline(time.Now().Add(2 * time.Second))
	var head []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(head, []byte("\r\n\r\n")) {
		n, err := c.Read(buf)
		head = append(head, buf[:n]...)
		if err != nil {
			break
		}
	}
	return string(head)
}

// endless writes b until the other side is gone.
func endless(c net.Conn, b []byte) {
	c.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

var bomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	zero := make([]byte, 1<<20)
	for range 512 { // half a gigabyte
		w.Write(zero)
	}
	w.Close()
	return b.Bytes()
})

func reset(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

func TestHostileHTTP(t *testing.T) {
	packed := bomb()
	for _, tt := range []struct {
		name      string
		serve     func(net.Conn)
		failure   measure.Failure
		status    int
		bytes     int64
		truncated bool
	}{
		{"endless header", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nX-A: ")
			endless(c, bytes.Repeat([]byte("a"), 1<<16))
		}, measure.TooLarge, 0, 0, false},
		{"endless headers", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			endless(c, bytes.Repeat([]byte("a: b\r\n"), 1<<10))
		}, measure.TooLarge, 0, 0, false},
		{"endless 100 continue", func(c net.Conn) {
			endless(c, bytes.Repeat([]byte("HTTP/1.1 100 Continue\r\n\r\n"), 100))
		}, measure.TooLarge, 0, 0, false},
		{"10 GB body", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n")
			endless(c, make([]byte, 1<<16))
		}, "", 200, 10000, true},
		{"endless chunks", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			endless(c, []byte("400\r\n"+strings.Repeat("x", 1024)+"\r\n"))
		}, "", 200, 10000, true},
		{"gzip bomb", func(c net.Conn) {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", len(packed))
			c.Write(packed)
		}, "", 200, 10000, true},
		{"empty gzip members", func(c net.Conn) {
			var b bytes.Buffer
			gzip.NewWriter(&b).Close()
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n")
			endless(c, bytes.Repeat(b.Bytes(), 1000))
		}, "", 200, 0, true},
		{"no HTTP", func(c net.Conn) { io.WriteString(c, "SSH-2.0-OpenSSH_9.6\r\n") }, "unknown_failure", 0, 0, false},
		{"bad length", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx") }, "unknown_failure", 200, 0, false},
		{"nothing", func(c net.Conn) {}, measure.EOF, 0, 0, false},
		{"half a header", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nA: b\r\n") }, measure.EOF, 0, 0, false},
		{"reset", reset, measure.ConnectionReset, 0, 0, false},
		{"reset in the body", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"+strings.Repeat("x", 1000))
			time.Sleep(50 * time.Millisecond)
			reset(c)
		}, measure.ConnectionReset, 200, 1000, false},
		{"end in the body", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"+strings.Repeat("x", 1000))
		}, measure.EOF, 200, 1000, false},
		{"stall in the body", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"+strings.Repeat("x", 1000))
			c.SetReadDeadline(time.Now().Add(3 * time.Second))
			io.Copy(io.Discard, c)
		}, measure.GenericTimeout, 200, 1000, false},
		{"slow drip", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
			for range 100 {
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(30 * time.Millisecond)
			}
		}, measure.GenericTimeout, 200, -1, false},
		{"until the end, half-closed", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\n"+strings.Repeat("x", 1000))
			c.(*net.TCPConn).CloseWrite()
			c.SetReadDeadline(time.Now().Add(time.Second))
			io.Copy(io.Discard, c)
		}, "", 200, 1000, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := listen(t, func(c net.Conn) {
				readRequest(c)
				tt.serve(c)
			})
			ctx, l := context.Background(), newLog()
			conn, o := wire.Connect(ctx, host.New(), l, wire.Meta{}, wire.ConnectSpec{Remote: at})
			if conn == nil {
				t.Fatalf("connect: %+v", o)
			}
			defer conn.Abort()
			started := time.Now()
			o, body := wire.Fetch(ctx, l, wire.Meta{}, conn, wire.Request{URL: "http://site.example/", MaxBody: 10000, Timeout: 1500 * time.Millisecond, Stall: 300 * time.Millisecond})
			if took := time.Since(started); took > 3*time.Second {
				t.Errorf("took %v", took)
			}
			if tt.failure == "unknown_failure" {
				if !strings.HasPrefix(string(o.Failure), measure.UnknownFailurePrefix) {
					t.Errorf("failure %q", o.Failure)
				}
			} else if o.Failure != tt.failure {
				t.Errorf("failure %q (%s), want %q", o.Failure, o.Detail, tt.failure)
			}
			h := o.HTTP
			if h.Status != tt.status && tt.name != "bad length" || h.BodyTruncated != tt.truncated || tt.bytes >= 0 && h.BodyBytes != tt.bytes || h.BodyBytes != int64(len(body)) {
				t.Errorf("%+v", h)
			}
			if tt.bytes == -1 && h.BodyBytes < 10 {
				t.Errorf("only %d bytes of the drip are recorded", h.BodyBytes)
			}
		})
	}
}

func TestBlockPageBeforeReset(t *testing.T) {
	// A page and at once a reset, while our request is still being written.
	at := listen(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nblocked")
		time.Sleep(100 * time.Millisecond)
		reset(c)
	})
	ctx, l := context.Background(), newLog()
	conn, _ := wire.Connect(ctx, host.New(), l, wire.Meta{}, wire.ConnectSpec{Remote: at})
	if conn == nil {
		t.Fatal("no connection")
	}
	defer conn.Abort()
	time.Sleep(20 * time.Millisecond)
	o, body := wire.Fetch(ctx, l, wire.Meta{}, conn, wire.Request{URL: "http://site.example/"})
	if o.HTTP.Status != 403 || string(body) != "blocked" || o.Failure != "" {
		t.Errorf("%+v %q", o, body)
	}
}

func TestHostileTLS(t *testing.T) {
	for _, tt := range []struct {
		name    string
		serve   func(net.Conn)
		failure measure.Failure
		alert   int
		bytes   bool
	}{
		{"alert", func(c net.Conn) { c.Write([]byte{21, 3, 3, 0, 2, 2, 112}) }, measure.TLSFailedHandshake, 112, true},
		{"alert and reset", func(c net.Conn) {
			c.Write([]byte{21, 3, 3, 0, 2, 2, 40})
			time.Sleep(50 * time.Millisecond)
			reset(c)
		}, measure.TLSFailedHandshake, 40, true},
		{"alert in pieces", func(c net.Conn) {
			for _, b := range []byte{21, 3, 1, 0, 2, 2, 80} {
				c.Write([]byte{b})
				time.Sleep(time.Millisecond)
			}
		}, measure.TLSFailedHandshake, 80, true},
		{"garbage", func(c net.Conn) { c.Write(bytes.Repeat([]byte{0x41}, 600)) }, measure.TLSFailedHandshake, -1, false},
		{"HTTP", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, measure.TLSFailedHandshake, -1, false},
		{"end", func(c net.Conn) {}, measure.EOF, -1, false},
		{"reset", reset, measure.ConnectionReset, -1, false},
		{"half a record", func(c net.Conn) { c.Write([]byte{22, 3, 3, 0, 100, 2}) }, measure.EOF, -1, true},
		{"silence", func(c net.Conn) {
			c.SetReadDeadline(time.Now().Add(2 * time.Second))
			io.Copy(io.Discard, c)
		}, measure.GenericTimeout, -1, false},
		{"own ClientHello back", func(c net.Conn) {
			buf := make([]byte, 4096)
			n, _ := c.Read(buf)
			c.Write(buf[:n])
		}, measure.TLSFailedHandshake, -1, true},
	} {
		for _, kind := range []string{"chrome", "go"} {
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				at := listen(t, func(c net.Conn) {
					if !strings.HasPrefix(tt.name, "own") {
						c.SetReadDeadline(time.Now().Add(time.Second))
						var head [5]byte
						io.ReadFull(c, head[:])
						io.CopyN(io.Discard, c, int64(head[3])<<8|int64(head[4]))
					}
					tt.serve(c)
				})
				ctx, l := context.Background(), newLog()
				conn, _ := wire.Connect(ctx, host.New(), l, wire.Meta{}, wire.ConnectSpec{Remote: at})
				if conn == nil {
					t.Fatal("no connection")
				}
				defer conn.Abort()
				tc, o := wire.Handshake(ctx, l, wire.Meta{}, conn, wire.HandshakeSpec{SNI: "site.example", Hello: hello(t, kind), Timeout: 300 * time.Millisecond}, &wire.Trust{})
				if tc != nil || o.Failure != tt.failure || o.TLS.Alert != tt.alert || o.TLS.ServerBytes != tt.bytes {
					t.Errorf("failure %q (%s), alert %d, server bytes %v", o.Failure, o.Detail, o.TLS.Alert, o.TLS.ServerBytes)
				}
			})
		}
	}
}

func TestSilenceIsLong(t *testing.T) {
	t.Parallel()
	at := listen(t, func(c net.Conn) {
		c.SetReadDeadline(time.Now().Add(9 * time.Second))
		io.Copy(io.Discard, c)
	})
	ctx, l := context.Background(), newLog()
	conn, _ := wire.Connect(ctx, host.New(), l, wire.Meta{}, wire.ConnectSpec{Remote: at})
	if conn == nil {
		t.Fatal("no connection")
	}
	defer conn.Abort()
	_, o := wire.Handshake(ctx, l, wire.Meta{}, conn, wire.HandshakeSpec{SNI: "site.example"}, &wire.Trust{})
	// The ClientHello was acknowledged: this is a slow server, not a drop.
	if o.Failure != measure.GenericTimeout || o.TookUS < 5_500_000 || o.TookUS > 8_000_000 {
		t.Errorf("%+v", o)
	}
}

func TestInterrupted(t *testing.T) {
	at := listen(t, func(c net.Conn) {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		io.Copy(io.Discard, c)
	})
	for _, step := range []string{"tls", "http", "bulk"} {
		t.Run(step, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			l := newLog()
			conn, _ := wire.Connect(ctx, host.New(), l, wire.Meta{}, wire.ConnectSpec{Remote: at})
			if conn == nil {
				t.Fatal("no connection")
			}
			defer conn.Abort()
			time.AfterFunc(100*time.Millisecond, cancel)
			started := time.Now()
			var o *measure.Observation
			switch step {
			case "tls":
				_, o = wire.Handshake(ctx, l, wire.Meta{}, conn, wire.HandshakeSpec{SNI: "site.example"}, &wire.Trust{})
			case "http":
				o, _ = wire.Fetch(ctx, l, wire.Meta{}, conn, wire.Request{URL: "http://site.example/"})
			case "bulk":
				o = wire.Bulk(ctx, l, wire.Meta{}, conn, wire.Request{URL: "http://site.example/"}, 1000, 10*time.Second, 5*time.Second)
			}
			if o.Failure != measure.Interrupted || time.Since(started) > time.Second {
				t.Errorf("%+v after %v", o, time.Since(started))
			}
		})
	}
}

func TestMemoryIsBounded(t *testing.T) {
	packed := bomb()
	at := listen(t, func(c net.Conn) {
		readRequest(c)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", len(packed))
		c.Write(packed)
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ctx, l := context.Background(), newLog()
	conn, _ := wire.Connect(ctx, host.New(), l, wire.Meta{}, wire.ConnectSpec{Remote: at})
	if conn == nil {
		t.Fatal("no connection")
	}
	wire.Fetch(ctx, l, wire.Meta{}, conn, wire.Request{URL: "http://site.example/"})
	conn.Abort()
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("reading a bomb allocated %d bytes", grown)
	}
}

func TestBulk(t *testing.T) {
	at := listen(t, func(c net.Conn) {
		head := readRequest(c)
		if !strings.Contains(head, "Accept-Encoding: identity\r\n") {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
		for range 20 {
			c.Write(make([]byte, 2000))
			time.Sleep(20 * time.Millisecond)
		}
		if strings.Contains(head, "/freeze") {
			c.SetReadDeadline(time.Now().Add(time.Second))
			io.Copy(io.Discard, c)
		}
		c.Write(make([]byte, 60000))
	})
	for _, tt := range []struct {
		path    string
		limit   int64
		time    time.Duration
		failure measure.Failure
		least   int64
		most    int64
	}{
		{"/", 1 << 20, 5 * time.Second, "", 100000, 100000},
		{"/", 20000, 5 * time.Second, "", 20000, 30000},
		{"/", 1 << 20, 200 * time.Millisecond, "", 10000, 30000},
		{"/freeze", 1 << 20, 5 * time.Second, measure.GenericTimeout, 40000, 40000},
	} {
		ctx, l := context.Background(), newLog()
		conn, _ := wire.Connect(ctx, host.New(), l, wire.Meta{}, wire.ConnectSpec{Remote: at})
		if conn == nil {
			t.Fatal("no connection")
		}
		o := wire.Bulk(ctx, l, wire.Meta{}, conn, wire.Request{URL: "http://site.example" + tt.path}, tt.limit, tt.time, 300*time.Millisecond)
		conn.Abort()
		s := o.Stream
		var sum int64
		for _, n := range s.Samples {
			sum += n
		}
		if o.Failure != tt.failure || s.Bytes < tt.least || s.Bytes > tt.most || sum != s.Bytes || s.IntervalUS != 100_000 {
			t.Errorf("%+v: %+v %+v", tt, o, s)
		}
		if (s.StalledUS > 250_000) != (tt.failure != "") {
			t.Errorf("%+v: stalled for %d us", tt, s.StalledUS)
		}
		// 2,000 bytes each 20 ms are 800 kbit/s.
		if tt.path == "/freeze" && (s.BitsPerSecond < 400_000 || s.BitsPerSecond > 1_200_000) {
			t.Errorf("%d bit/s", s.BitsPerSecond)
		}
	}
}

func TestClassify(t *testing.T) {
	op := func(e syscall.Errno) error {
		return &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", e)}
	}
	for _, tt := range []struct {
		err  error
		want measure.Failure
	}{
		{nil, ""},
		{op(syscall.ECONNREFUSED), measure.ConnectionRefused},
		{op(10061), measure.ConnectionRefused},
		{op(syscall.ECONNRESET), measure.ConnectionReset},
		{op(10054), measure.ConnectionReset},
		{op(syscall.EPIPE), measure.ConnectionReset},
		{op(10053), measure.ConnectionAborted},
		{op(syscall.EHOSTUNREACH), measure.HostUnreachable},
		{op(10065), measure.HostUnreachable},
		{op(syscall.EHOSTDOWN), measure.HostUnreachable},
		{errors.Join(op(syscall.ECONNREFUSED), &wire.PathError{Type: 3, Code: 3}), measure.ConnectionRefused},
		{fmt.Errorf("connect: %w", &wire.PathError{Type: 3, Code: 2}), measure.HostUnreachable},
		{op(syscall.ENETUNREACH), measure.NetworkUnreachable},
		{op(10051), measure.NetworkUnreachable},
		{op(syscall.ENETDOWN), measure.NetworkDown},
		{op(syscall.EADDRNOTAVAIL), measure.AddressNotAvailable},
		{op(syscall.EADDRINUSE), measure.AddressInUse},
		{op(syscall.EACCES), measure.PermissionDenied},
		{errors.Join(op(syscall.EACCES), &wire.PathError{Type: 1, Code: 1}), measure.HostUnreachable},
		{op(syscall.ETIMEDOUT), measure.GenericTimeout},
		{op(10060), measure.GenericTimeout},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, measure.ConnectionRefused},
		{fmt.Errorf("x: %w", errors.ErrUnsupported), measure.Unsupported},
		{op(syscall.EOPNOTSUPP), measure.Unsupported},
		{os.ErrDeadlineExceeded, measure.GenericTimeout},
		{context.DeadlineExceeded, measure.GenericTimeout},
		{context.Canceled, measure.Interrupted},
		{io.EOF, measure.EOF},
		{io.ErrUnexpectedEOF, measure.EOF},
		{tls.RecordHeaderError{Msg: "x"}, measure.TLSFailedHandshake},
		{&quic.VersionNegotiationError{}, measure.QUICIncompatible},
		{&quic.IdleTimeoutError{}, measure.GenericTimeout},
		{&quic.TransportError{Remote: true, ErrorCode: 0x100 + 112}, measure.TLSFailedHandshake},
		{&net.DNSError{IsNotFound: true}, measure.DNSNXDomain},
		{&net.DNSError{Err: "server misbehaving", IsTemporary: true}, measure.DNSServfail},
		{&net.DNSError{Err: "server misbehaving"}, measure.DNSRefused},
		{&net.DNSError{IsTimeout: true, IsTemporary: true}, measure.GenericTimeout},
		{errors.New("something else"), "unknown_failure: something else"},
	} {
		if got, _ := wire.Classify(tt.err); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
	if _, detail := wire.Classify(errors.New(strings.Repeat("é", 1000))); len(detail) > 300 || !strings.HasSuffix(detail, "é") {
		t.Errorf("the detail is not cut cleanly: %d bytes", len(detail))
	}
}

// dnsServer answers UDP questions with what f makes of each, as raw messages.
func dnsServer(t testing.TB, f func(q *dns.Msg, send func([]byte))) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := c.ReadFromUDP(buf)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if q.Unpack(buf[:n]) == nil {
				f(q, func(b []byte) { c.WriteToUDP(b, from) })
			}
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return c
}

func pack(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

func answerA(q *dns.Msg, addr string) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(addr)}}
	return m
}

func TestAskUDP(t *testing.T) {
	for _, tt := range []struct {
		name    string
		serve   func(q *dns.Msg, send func([]byte))
		failure measure.Failure
		replies []string // the first answer of each
	}{
		{"answer", func(q *dns.Msg, send func([]byte)) { send(pack(answerA(q, "192.0.2.1"))) }, "", []string{"192.0.2.1"}},
		{"two answers", func(q *dns.Msg, send func([]byte)) {
			send(pack(answerA(q, "10.10.34.34")))
			time.Sleep(30 * time.Millisecond)
			send(pack(answerA(q, "192.0.2.1")))
		}, "", []string{"10.10.34.34", "192.0.2.1"}},
		{"nxdomain then answer", func(q *dns.Msg, send func([]byte)) {
			m := new(dns.Msg)
			send(pack(m.SetRcode(q, dns.RcodeNameError)))
			send(pack(answerA(q, "192.0.2.1")))
		}, measure.DNSNXDomain, []string{"", "192.0.2.1"}},
		{"servfail", func(q *dns.Msg, send func([]byte)) { send(pack(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))) }, measure.DNSServfail, []string{""}},
		{"refused", func(q *dns.Msg, send func([]byte)) { send(pack(new(dns.Msg).SetRcode(q, dns.RcodeRefused))) }, measure.DNSRefused, []string{""}},
		{"empty", func(q *dns.Msg, send func([]byte)) { send(pack(new(dns.Msg).SetReply(q))) }, measure.DNSNoAnswer, []string{""}},
		{"alias to itself", func(q *dns.Msg, send func([]byte)) {
			m := new(dns.Msg).SetReply(q)
			m.Answer = []dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: q.Question[0].Name}}
			send(pack(m))
		}, measure.DNSNoAnswer, []string{"site.example"}},
		{"pointer to itself", func(q *dns.Msg, send func([]byte)) {
			b := pack(answerA(q, "192.0.2.1"))
			// The owner name of the answer, just behind the question, becomes
			// a compression pointer to itself.
			at := 12 + len("site.example") + 2 + 4
			send(append(append(b[:at:at], 0xc0, byte(at)), b[at+14:]...))
		}, measure.GenericTimeout, nil},
		{"wrong id", func(q *dns.Msg, send func([]byte)) {
			m := answerA(q, "192.0.2.1")
			m.Id += 20000
			send(pack(m))
		}, measure.DNSReplyWrongID, nil},
		{"another question", func(q *dns.Msg, send func([]byte)) {
			m := answerA(q, "192.0.2.1")
			m.Question[0].Name = "other.example."
			send(pack(m))
		}, measure.GenericTimeout, nil},
		{"garbage", func(q *dns.Msg, send func([]byte)) { send([]byte{1}); send(bytes.Repeat([]byte{0xff}, 600)) }, measure.GenericTimeout, nil},
		{"flood", func(q *dns.Msg, send func([]byte)) {
			for range 100 {
				send(pack(answerA(q, "192.0.2.1")))
			}
		}, "", strings.Split(strings.Repeat("192.0.2.1 ", 15)+"192.0.2.1", " ")},
		{"silence", func(*dns.Msg, func([]byte)) {}, measure.GenericTimeout, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tries atomic.Int64
			c := dnsServer(t, func(q *dns.Msg, send func([]byte)) {
				tries.Add(1)
				tt.serve(q, send)
			})
			l := newLog()
			o := wire.Ask(context.Background(), host.New(), l, wire.Meta{}, wire.Question{Name: "site.example", Type: "A",
				Server: c.LocalAddr().(*net.UDPAddr).AddrPort(), Transport: "udp", Timeout: 300 * time.Millisecond, Linger: 100 * time.Millisecond}, nil)
			if o.Failure != tt.failure {
				t.Errorf("failure %q (%s), want %q", o.Failure, o.Detail, tt.failure)
			}
			var got []string
			for _, r := range o.DNS.Replies {
				if r.TTL != 64 {
					t.Errorf("TTL of the datagram: %d", r.TTL)
				}
				if len(r.Answers) > 0 {
					got = append(got, r.Answers[0].Value)
				} else {
					got = append(got, "")
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.replies) {
				t.Errorf("replies %q, want %q", got, tt.replies)
			}
			want := int64(3)
			if len(tt.replies) > 0 {
				want = 1
			}
			if tries.Load() != want {
				t.Errorf("asked %d times, want %d", tries.Load(), want)
			}
		})
	}
}

func TestAskLateAnswerToFirstTry(t *testing.T) {
	// The resolver is slow: answers to several tries come, with different
	// (rotating) addresses. They are not one question answered twice.
	n := 0
	c := dnsServer(t, func(q *dns.Msg, send func([]byte)) {
		n++
		m := pack(answerA(q, fmt.Sprintf("192.0.2.%d", n)))
		time.AfterFunc(450*time.Millisecond, func() { send(m) })
	})
	o := wire.Ask(context.Background(), host.New(), newLog(), wire.Meta{}, wire.Question{Name: "site.example", Type: "A",
		Server: c.LocalAddr().(*net.UDPAddr).AddrPort(), Transport: "udp", Timeout: 900 * time.Millisecond, Linger: 700 * time.Millisecond}, nil)
	if o.Failure != "" || len(o.DNS.Replies) != 1 || o.DNS.Replies[0].Answers[0].Value != "192.0.2.1" {
		t.Errorf("%+v", o.DNS)
	}
	if o.TookUS < 440_000 || o.TookUS > 1_100_000 {
		t.Errorf("the answer took %d us", o.TookUS)
	}
}

func TestAskRefusedPort(t *testing.T) {
	c := dnsServer(t, func(*dns.Msg, func([]byte)) {})
	at := c.LocalAddr().(*net.UDPAddr).AddrPort()
	c.Close()
	o := wire.Ask(context.Background(), host.New(), newLog(), wire.Meta{}, wire.Question{Name: "site.example", Type: "A",
		Server: at, Transport: "udp", Timeout: 600 * time.Millisecond}, nil)
	if o.Failure != measure.ConnectionRefused || len(o.DNS.Replies) != 0 {
		t.Errorf("%+v", o)
	}
}

func TestAskStream(t *testing.T) {
	ca := newAuthority(t)
	serve := func(c net.Conn) {
		s := &dns.Conn{Conn: c}
		c.SetDeadline(time.Now().Add(2 * time.Second))
		q, err := s.ReadMsg()
		if err != nil {
			return
		}
		s.WriteMsg(answerA(q, "192.0.2.1"))
	}
	plain := listen(t, serve)
	cert := ca.issue(t, nil, "dns.example")
	secure := listen(t, func(c net.Conn) {
		tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"dot"}})
		serve(tc)
		tc.Close()
	})
	q := wire.Question{Name: "site.example", Type: "A", Server: plain, Transport: "tcp", Timeout: 2 * time.Second}
	o := wire.Ask(context.Background(), host.New(), newLog(), wire.Meta{}, q, nil)
	if o.Failure != "" || len(o.DNS.Replies) != 1 || o.Sent == 0 || o.Received == 0 {
		t.Errorf("tcp: %+v %+v", o, o.DNS)
	}
	q.Server, q.Transport, q.ServerName = secure, "tls", "dns.example"
	o = wire.Ask(context.Background(), host.New(), newLog(), wire.Meta{}, q, &wire.Trust{Public: ca.pool()})
	if o.Failure != "" || len(o.DNS.Replies) != 1 || o.TLS == nil || o.TLS.ALPN != "dot" {
		t.Errorf("tls: %+v %+v", o, o.DNS)
	}
	o = wire.Ask(context.Background(), host.New(), newLog(), wire.Meta{}, q, &wire.Trust{Public: newAuthority(t).pool()})
	if o.Failure != measure.TLSUnknownAuthority || len(o.DNS.Replies) != 0 {
		t.Errorf("an interceptor was asked: %+v %+v", o, o.DNS)
	}
	q.Server = listen(t, reset)
	q.Transport = "tcp"
	if o = wire.Ask(context.Background(), host.New(), newLog(), wire.Meta{}, q, nil); o.Failure != measure.ConnectionReset {
		t.Errorf("reset: %+v", o)
	}
}

func TestDoH(t *testing.T) {
	ca := newAuthority(t)
	var hits atomic.Int64
	asked := make(chan bool, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		q := new(dns.Msg)
		if r.URL.Path != "/dns-query" || r.Header.Get("Content-Type") != "application/dns-message" || q.Unpack(body) != nil {
			w.WriteHeader(400)
			return
		}
		if q.Question[0].Name == "kill.example." {
			panic(http.ErrAbortHandler)
		}
		if q.Question[0].Name == "slow.example." {
			asked <- true
			<-r.Context().Done()
			return
		}
		hits.Add(1)
		w.Write(pack(answerA(q, "192.0.2.1")))
	})
	at := server(t, handler, ca.issue(t, nil, "dns.example"), true)
	url := fmt.Sprintf("https://dns.example:%d/dns-query", at.Port())
	if _, err := wire.NewDoH(host.New(), url, nil, &wire.Trust{Public: ca.pool()}); err == nil {
		t.Error("a resolver without an address is accepted")
	}
	d, err := wire.NewDoH(host.New(), url, []netip.Addr{at.Addr()}, &wire.Trust{Public: ca.pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l := newLog()
	results := make(chan *measure.Observation)
	for i := range 20 {
		go func() {
			results <- d.Ask(context.Background(), l, wire.Meta{}, fmt.Sprintf("s%d.example", i), "A", 3*time.Second)
		}()
	}
	handshakes := 0
	for range 20 {
		o := <-results
		if o.Failure != "" || len(o.DNS.Replies) != 1 || o.DNS.Replies[0].Answers[0].Value != "192.0.2.1" || o.Remote != at.String() {
			t.Fatalf("%+v %+v", o, o.DNS)
		}
		if o.TLS != nil {
			handshakes++
		} else if o.Sent < 10 || o.Sent > 2000 || o.Received < 10 || o.Received > 2000 {
			t.Errorf("a share of %d bytes sent, %d received", o.Sent, o.Received)
		}
	}
	if handshakes != 1 {
		t.Errorf("%d connections were opened", handshakes)
	}
	if o := d.Ask(context.Background(), l, wire.Meta{}, "kill.example", "A", 3*time.Second); o.Failure == "" {
		t.Errorf("%+v", o)
	}
	if o := d.Ask(context.Background(), l, wire.Meta{}, "again.example", "A", 3*time.Second); o.Failure != "" {
		t.Errorf("not reconnected: %+v", o)
	}
	for range 2 {
		if o := d.Ask(context.Background(), l, wire.Meta{}, "alone.example", "A", 3*time.Second); o.Sent < 60 || o.Sent > 600 || o.Received < 60 || o.Received > 600 {
			t.Errorf("a question by itself: sent %d, received %d", o.Sent, o.Received)
		}
	}
	sent, received := l.Bytes()
	if sent < 2000 || received < 2000 {
		t.Errorf("sent %d, received %d", sent, received)
	}
	// Who no longer wants an answer says nothing about the connection.
	ctx, cancel := context.WithCancel(context.Background())
	slow := make(chan *measure.Observation)
	go func() { slow <- d.Ask(ctx, l, wire.Meta{}, "slow.example", "A", 3*time.Second) }()
	<-asked
	cancel()
	if o := <-slow; o.Failure != measure.Interrupted {
		t.Errorf("%+v", o)
	}
	if o := d.Ask(context.Background(), l, wire.Meta{}, "after.example", "A", 3*time.Second); o.Failure != "" || o.TLS != nil {
		t.Errorf("a connection of its own: %+v", o)
	}
	// Silence does.
	go func() { slow <- d.Ask(context.Background(), l, wire.Meta{}, "slow.example", "A", 200*time.Millisecond) }()
	<-asked
	<-slow
	if o := d.Ask(context.Background(), l, wire.Meta{}, "after.example", "A", 3*time.Second); o.Failure != "" || o.TLS == nil {
		t.Errorf("a connection that was silent is used again: %+v", o)
	}
	bad, err := wire.NewDoH(host.New(), url, []netip.Addr{at.Addr()}, &wire.Trust{Public: newAuthority(t).pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	before := hits.Load()
	if o := bad.Ask(context.Background(), l, wire.Meta{}, "site.example", "A", 3*time.Second); o.Failure != measure.TLSUnknownAuthority || hits.Load() != before {
		t.Errorf("an interceptor was asked: %+v", o)
	}
}
