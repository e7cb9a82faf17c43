package packet

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	a4, b4 = netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort("198.51.100.2:443")
	a6, b6 = netip.MustParseAddrPort("[2001:db8::1]:40000"), netip.MustParseAddrPort("[2001:db8:1::2]:443")
)

func TestBuildAndParse(t *testing.T) {
	for _, ends := range [][2]netip.AddrPort{{a4, b4}, {a6, b6}} {
		raw := BuildTCP(Segment{Src: ends[0], Dst: ends[1], Seq: 7, Ack: 9, Flags: PSH | ACK, Window: 100, TTL: 9, ID: 5, Options: []byte{2, 4, 5, 180}, Payload: []byte("hello")})
		p, err := Parse(append(raw, "trailing"...))
		if err != nil || p.Source() != ends[0] || p.Destination() != ends[1] || p.Seq != 7 || p.Ack != 9 || p.TTL != 9 || string(p.Payload) != "hello" || len(p.Options) != 4 {
			t.Fatalf("%v: %+v, %v", ends, p, err)
		}
		for want := uint8(8); ; want-- {
			ttl, err := DecrementTTL(raw)
			if err != nil || ttl != want {
				t.Fatalf("TTL %d, %v; want %d", ttl, err, want)
			}
			again := append([]byte(nil), raw...)
			FixChecksums(again)
			if !bytes.Equal(again, raw) {
				t.Fatal("the incremental checksum differs from the full one")
			}
			if want == 0 {
				break
			}
		}
		icmp, err := BuildICMPError(TimeExceeded, ends[1].Addr(), raw, 0)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Parse(icmp)
		if err != nil || !e.IsICMPError() || e.Dst != ends[0].Addr() {
			t.Fatalf("%+v, %v", e, err)
		}
		q, err := ParseQuote(e.Quoted)
		if err != nil || q.Src != ends[0] || q.Dst != ends[1] || q.Seq != 7 || q.Proto != TCP {
			t.Fatalf("quote %+v, %v", q, err)
		}
		if _, err := BuildICMPError(TimeExceeded, ends[1].Addr(), icmp, 0); err == nil {
			t.Error("an ICMP error was answered with an ICMP error")
		}
		udp := BuildUDP(ends[0], ends[1], 3, 0, []byte("x"))
		moved, err := Rewrite(udp, netip.AddrPort{}, ends[0])
		if err != nil {
			t.Fatal(err)
		}
		if m, err := Parse(moved); err != nil || m.Destination() != ends[0] || string(m.Payload) != "x" {
			t.Fatalf("%+v, %v", m, err)
		}
	}
}

// clientHello is the first flight of a real TLS stack.
func clientHello(t testing.TB, name string) []byte {
	c, s := net.Pipe()
	defer c.Close()
	defer s.Close()
	go tls.Client(c, &tls.Config{ServerName: name, NextProtos: []string{"h2", "http/1.1"}}).HandshakeContext(context.Background())
	buf := make([]byte, 16<<10)
	s.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, err := s.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func TestClientHelloStream(t *testing.T) {
	flight := clientHello(t, "www.Example.org")
	for cut := range flight {
		if _, err := ParseClientHelloStream(flight[:cut]); !errors.Is(err, ErrMore) {
			t.Fatalf("at %d of %d: %v", cut, len(flight), err)
		}
	}
	check := func(b []byte) {
		t.Helper()
		h, err := ParseClientHelloStream(b)
		if err != nil || h.SNI != "www.example.org" || h.SNIAsSent != "www.Example.org" || len(h.ALPN) != 2 || len(h.Groups) == 0 || !h.Complete || h.Spread != (len(b) > len(flight)) {
			t.Fatalf("%+v, %v", h, err)
		}
	}
	check(flight)
	// The handshake message split over records of ten bytes.
	var split []byte
	for msg := flight[5:]; len(msg) > 0; {
		n := min(10, len(msg))
		split = append(split, 22, 3, 1, 0, byte(n))
		split = append(split, msg[:n]...)
		msg = msg[n:]
	}
	check(split)
	// The first record's length and the message's tell it before the second comes.
	for cut := range split {
		if h, err := ParseClientHelloStream(split[:cut]); !errors.Is(err, ErrMore) || h != nil && (!h.Spread || h.Complete) || h == nil && cut > 9 {
			t.Fatalf("at %d: %+v, %v", cut, h, err)
		}
	}
	if _, err := ParseClientHelloStream([]byte("GET / HTTP/1.1\r\n")); !errors.Is(err, ErrNotTLS) {
		t.Fatal(err)
	}
}

// The client Initial of RFC 9001 appendix A.2, whose server name is example.com.
func TestQUICInitialRFC9001(t *testing.T) {
	header, _ := hex.DecodeString("c300000001088394c8f03e5157080000449e00000002")
	frame, _ := hex.DecodeString("060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e000500050100000000003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e0403050306030203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901100f088394c8f03e51570806048000ffff")
	raw := sealInitial(t, header, append(frame, make([]byte, 1162-len(frame))...))
	if got := hex.EncodeToString(raw[:18+4+16]); got[:36] != "c000000001088394c8f03e5157080000449e" {
		t.Fatalf("header %s", got)
	}
	if got := hex.EncodeToString(raw[18:22]); got != "7b9aec34" {
		t.Fatalf("the protected packet number is %s, the RFC says 7b9aec34", got)
	}
	var s CryptoStream
	h, err := s.Add(raw)
	if err != nil || h.SNI != "example.com" {
		t.Fatalf("%+v, %v", h, err)
	}
	// Split over two datagrams, the later part first, as browsers do.
	s = CryptoStream{}
	body := frame[4:]
	part := func(off, end int) []byte {
		f := []byte{6, 0x40 | byte(off>>8), byte(off), 0x40 | byte((end-off)>>8), byte(end - off)}
		f = append(f, body[off:end]...)
		return sealInitial(t, header, append(f, make([]byte, 1162-len(f))...))
	}
	if _, err := s.Add(part(100, len(body))); !errors.Is(err, ErrMore) {
		t.Fatal(err)
	}
	if h, err := s.Add(part(0, 100)); err != nil || h.SNI != "example.com" {
		t.Fatalf("%+v, %v", h, err)
	}
}

func TestStreamReassembly(t *testing.T) {
	flight := clientHello(t, "split.example")
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var s Stream
		start := r.Uint32()
		s.Start(start)
		type piece struct{ at, end int }
		var pieces []piece
		for at := 0; at < len(flight); {
			end := min(len(flight), at+1+r.IntN(300))
			pieces = append(pieces, piece{max(0, at-r.IntN(20)), end}) // overlaps
			at = end
		}
		r.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
		for _, p := range pieces {
			s.Add(start+uint32(p.at), flight[p.at:p.end])
		}
		if !bytes.Equal(s.Data, flight) {
			t.Fatalf("reassembled %d of %d bytes", len(s.Data), len(flight))
		}
	}
}

func TestParseRequest(t *testing.T) {
	for in, want := range map[string]Request{
		"GET /a?b HTTP/1.1\r\nHOST: Example.org:80\r\n\r\nrest": {Method: "GET", Target: "/a?b", Version: "HTTP/1.1",
			Host: "example.org", HostName: "HOST", HostValue: " Example.org:80", HostLine: 1, Hosts: 1, Complete: true},
		"head / HTTP/1.0\r\nA: b\r\nHost:\r\nhost:\tx. \r\nHost: y\r\n": {Method: "head", Target: "/", Version: "HTTP/1.0",
			Host: "x.", HostName: "host", HostValue: "\tx. ", HostLine: 3, Hosts: 3},
		"GET HTTP://u@A.example:80/?x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n": {Method: "GET", Target: "HTTP://u@A.example:80/?x", Version: "HTTP/1.1",
			Authority: "A.example:80", Host: "[::1]:80", HostName: "Host", HostValue: " [::1]:80", HostLine: 1, Hosts: 1, Complete: true},
		"PUT https://a?b@c HTTP/1.1\n\n":     {Method: "PUT", Target: "https://a?b@c", Version: "HTTP/1.1", Authority: "a", BareLF: true, Complete: true},
		"GET  /  HTTP/1.1\r\n\r\n":           {Method: "GET", Target: "/", Version: "HTTP/1.1", Wide: true, Complete: true},
		"GET /?u=http://a/ HTTP/1.1\r\n\r\n": {Method: "GET", Target: "/?u=http://a/", Version: "HTTP/1.1", Complete: true},
	} {
		if r, err := ParseRequest([]byte(in)); err != nil || *r != want {
			t.Errorf("%q: %+v, %v", in, r, err)
		}
	}
	for want, r := range map[string]Request{"a.example": {Authority: "A.example:80", Host: "b.example"}, "b.example": {Host: "b.example"}, "": {}} {
		if got := r.Name(); got != want {
			t.Errorf("%+v is for %q, want %q", r, got, want)
		}
	}
	for in, want := range map[string]error{"GE": ErrMore, "GET / HTTP/1.1\r\nA: b\r\n": ErrMore, "gET / HTTP/1.1\r\n": ErrMore, "GEX / HTTP/1.1\r\n": ErrNotHTTP, "SSH-2.0": ErrNotHTTP, "": ErrMore} {
		if _, err := ParseRequest([]byte(in)); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", in, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(BuildTCP(Segment{Src: a4, Dst: b4, Payload: []byte("x")}))
	f.Add(BuildUDP(a6, b6, 3, 0, []byte("x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			return
		}
		if p.IsICMPError() {
			ParseQuote(p.Quoted)
		}
		c := append([]byte(nil), p.Raw...)
		DecrementTTL(c)
		FixChecksums(c)
		RewriteInPlace(c, a4, b4)
		RewriteInPlace(c, a6, b6)
		Renumber(c, 1, 2, func(n uint32) uint32 { return n + 1 })
		ParseTCPOptions(p.Options)
		BuildICMPError(TimeExceeded, p.Dst, c, 0)
	})
}

func FuzzClientHello(f *testing.F) {
	f.Add(clientHello(f, "example.org"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ParseClientHelloStream(b)
		ParseRequest(b)
	})
}

func FuzzInitial(f *testing.F) {
	b, _ := hex.DecodeString("c300000001088394c8f03e5157080000449e00000002")
	f.Add(binary.BigEndian.AppendUint32(b, 7))
	for _, datagrams := range initials(f) {
		f.Add(datagrams[0])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s CryptoStream
		s.Add(b)
	})
}

// BenchmarkForward is what a router of a lab does with a packet. The ratio is
// to copying the same packet.
func BenchmarkForward(b *testing.B) {
	raw := BuildTCP(Segment{Src: a4, Dst: b4, TTL: 255, Payload: make([]byte, 1400)})
	to := make([]byte, len(raw))
	b.ReportAllocs()
	var forward, copied time.Duration
	for b.Loop() { // interleaved, a thousand at a time
		start := time.Now()
		for range 1000 {
			if _, err := Parse(raw); err != nil {
				b.Fatal(err)
			}
			raw[8] = 64
			DecrementTTL(raw)
		}
		mid := time.Now()
		for range 1000 {
			copy(to, raw)
		}
		forward += mid.Sub(start)
		copied += time.Since(mid)
	}
	b.ReportMetric(float64(forward.Nanoseconds())/float64(b.N)/1000, "ns/packet")
	b.ReportMetric(float64(forward)/float64(copied), "x-memcpy")
}

// The ClientHello of Chrome 133 as uTLS v1.8.2 makes it: GREASE, ECH GREASE,
// a post-quantum key share, two segments long.
func TestChromeHello(t *testing.T) {
	text, err := os.ReadFile("testdata/utls-v1.8.2-chrome-133.txt")
	if err != nil {
		t.Fatal(err)
	}
	flight, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	h, err := ParseClientHelloStream(flight)
	if err != nil {
		t.Fatal(err)
	}
	const pq = 0x11ec // X25519MLKEM768
	if h.SNI != "www.blocked.example" || !h.ECH || h.ESNI || !slices.Equal(h.ALPN, []string{"h2", "http/1.1"}) ||
		!slices.Contains(h.Groups, pq) || !slices.Contains(h.KeyShares, pq) || !slices.Contains(h.KeyShares, 0x1d) ||
		!slices.Contains(h.Versions, 0x304) || !slices.Contains(h.Suites, 0x1301) || h.Length != len(flight)-5 || len(h.Extensions) < 15 {
		t.Errorf("%+v", h)
	}
	if !h.Complete || !GREASE(h.Suites[0]) || !GREASE(h.Extensions[0]) || GREASE(0x1301) || GREASE(0x0a1a) || GREASE(10) {
		t.Errorf("GREASE: %+v", h)
	}
	if len(flight) < 1500 {
		t.Errorf("%d bytes, which fit into one segment", len(flight))
	}
	// What a device sees that looks at the first segment alone.
	at := bytes.Index(flight, []byte("www.blocked.example"))
	for cut := range flight {
		h, err := ParseClientHelloStream(flight[:cut])
		if !errors.Is(err, ErrMore) {
			t.Fatalf("at %d: %v", cut, err)
		}
		if h != nil && (h.Spread || h.Complete) {
			t.Fatalf("at %d: %+v", cut, h)
		}
		if got := h != nil && h.SNI != ""; got != (cut >= at+len("www.blocked.example")) {
			t.Fatalf("cut at %d, the name ends at %d: read %v", cut, at+len("www.blocked.example"), got)
		}
	}
}
