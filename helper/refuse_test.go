package helper

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"govah/measure"
)

func TestPolicy(t *testing.T) {
	p := policy{own: []netip.Addr{netip.MustParseAddr("198.41.0.4")}, refuse: []netip.Prefix{netip.MustParsePrefix("9.9.9.0/24")}, ports: defaultPorts}
	local := netip.MustParseAddr("2600::1")
	for _, s := range []string{"0.0.0.0", "10.1.2.3", "100.64.1.1", "127.0.0.1", "169.254.169.254", "172.31.0.1", "192.0.0.1", "192.0.2.1", "192.168.0.1",
		"198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.41.0.4", "::ffff:198.41.0.4", "9.9.9.9", "2600::1",
		"::", "::1", "::10.0.0.1", "::ffff:10.0.0.1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:a00:1::1", "3fff::1",
		"fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1", "2600:1::5efe:10.0.0.1", "2600:1::200:5efe:10.0.0.1", "2600::2%eth0"} {
		if p.addr(netip.MustParseAddr(s), local) == nil {
			t.Errorf("%s is allowed", s)
		}
	}
	if p.addr(netip.Addr{}, local) == nil {
		t.Error("no address is allowed")
	}
	for _, s := range []string{"1.1.1.1", "8.8.8.8", "172.32.0.1", "193.0.6.139", "223.255.255.1", "2606:4700::1111", "2a00:1450::1", "2001:4860::8888"} {
		if err := p.addr(netip.MustParseAddr(s), local); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	lab := policy{allowReserved: true, own: p.own}
	if lab.addr(netip.MustParseAddr("10.0.0.1"), local) != nil || lab.addr(netip.MustParseAddr("198.41.0.4"), local) == nil {
		t.Error("allowing reserved addresses must allow them, and its own must stay refused")
	}
	for _, n := range []uint16{80, 443, 993} {
		if err := p.port(n); err != nil {
			t.Error(err)
		}
	}
	for _, n := range []uint16{0, 22, 25, 3306, 6379} {
		if p.port(n) == nil {
			t.Errorf("port %d is allowed", n)
		}
	}
}

func TestNamesOfOnesOwnNetwork(t *testing.T) {
	var p policy
	for _, s := range []string{"intranet", "localhost", "printer.local", "db.corp", "metadata.google.internal", "router.home.arpa", "a.localhost"} {
		if p.name(s) == nil {
			t.Errorf("%s is resolved", s)
		}
	}
	for _, s := range []string{"example.org", "local.example", "internal.example.com"} {
		if err := p.name(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}

// FuzzPlace: whatever URL is asked for, only names, addresses and ports that
// the policy knows of are looked for.
func FuzzPlace(f *testing.F) {
	for _, s := range []string{"https://example.org/", "http://[::1]:80/", "tls://a.example:993", "http://a.example:22/", "https://EXAMPLE.org.:443/x?y#z",
		"http://u:p@example.org/", "http://0x7f.1/", "http://127.1/", "http://[fe80::1%25eth0]/", "http://a\x00.example/", "tcp://example.org", "//example.org", "http:example.org"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		s := &Server{policy: policy{ports: defaultPorts}}
		p, err := s.place(raw)
		if err != nil {
			return
		}
		if s.policy.port(p.port) != nil || p.url.User != nil {
			t.Fatalf("%q leads to %+v", raw, p)
		}
		if _, err := netip.ParseAddr(p.host); err == nil {
			if p.name != "" {
				t.Fatalf("%q: the address is sent as a name", raw)
			}
			return
		}
		if p.name == "" || len(p.name) > 253 || s.policy.name(p.name) != nil || strings.ContainsAny(p.name, "/\\@:% \r\n\x00") {
			t.Fatalf("%q leads to the name %q", raw, p.name)
		}
	})
}

// TestLimiterForgets: idle clients go, busy ones stay, and there is a bound.
func TestLimiterForgets(t *testing.T) {
	l := newLimiter(Limits{}.withDefaults())
	busy := l.stream(netip.MustParseAddr("192.0.2.1"), 10)
	l.stream(netip.MustParseAddr("192.0.2.2"), 10)(10)
	l.mu.Lock()
	for _, c := range l.clients {
		c.seen = c.seen.Add(-time.Hour)
	}
	l.swept = time.Time{}
	l.mu.Unlock()
	l.stream(netip.MustParseAddr("192.0.2.3"), 10)(10)
	if len(l.clients) != 2 {
		t.Errorf("%d clients kept, want the busy one and the last", len(l.clients))
	}
	busy(10)
	a := netip.MustParseAddr("2600::1")
	for range maxClients + 50 {
		l.stream(a, 0)(0)
		b := a.As16()
		b[7]++
		if b[7] == 0 {
			b[6]++
			if b[6] == 0 {
				b[5]++
			}
		}
		a = netip.AddrFrom16(b)
	}
	if len(l.clients) > maxClients+1 {
		t.Errorf("%d clients kept, the bound is %d", len(l.clients), maxClients)
	}
	one, two := netip.MustParseAddr("2600::1"), netip.MustParseAddr("2600::2")
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client(one, time.Now()) != l.client(two, time.Now()) {
		t.Error("two addresses of one /64 count as two clients")
	}
}

// TestLimiterForgetsWhenNobodyComes: counters do not wait for a next client.
func TestLimiterForgetsWhenNobodyComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(Limits{}.withDefaults())
		s := &Server{limiter: l, log: newArrivals(), back: newOrders()}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go s.forget(ctx)
		s.log.count(s.log.open(1, 2, 3), []byte("first bytes"))
		s.back.answer(ctx, 1, measure.HelperBackRequest{TTLs: []int{3}})
		l.stream(netip.MustParseAddr("192.0.2.1"), 10)(10)
		time.Sleep(forgetAfter + 2*time.Minute)
		synctest.Wait()
		if len(l.clients) != 0 {
			t.Errorf("%d clients kept after %v", len(l.clients), forgetAfter+2*time.Minute)
		}
		if len(s.back.list) != 0 {
			t.Errorf("an order kept after %v", forgetAfter+2*time.Minute)
		}
		if len(s.log.list) != 0 {
			t.Errorf("first bytes kept after %v", forgetAfter+2*time.Minute)
		}
	})
}

// pipe is one end of a connection that gives data in pieces of size n.
type pipe struct {
	net.Conn
	r io.Reader
	n int
}

func (p *pipe) Read(b []byte) (int, error)      { return p.r.Read(b[:min(len(b), p.n)]) }
func (p *pipe) SetReadDeadline(time.Time) error { return nil }
func (p *pipe) Close() error                    { return nil }

// FuzzFirstBytes: whatever comes and however it is cut, the kind is told
// without loss, and the sink counts all of it.
func FuzzFirstBytes(f *testing.F) {
	for _, s := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\x05hello", "\x16\xfe\xfd", "SSH-2.0-x\r\n", "OPTION", "", "PO", "GET / HTTP/1.1\r\nCookie: id=00112233445566778899aabbccddeeff\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03sixteen letters!and sixteen more"} {
		f.Add([]byte(s), 1)
		f.Add([]byte(s), 100)
	}
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		if n < 1 || len(data) > 1<<16 {
			return
		}
		log := newArrivals()
		whole := &peeked{Conn: &pipe{r: bytes.NewReader(data), n: len(data) + 1}, done: func() {}, log: log, entry: log.open(1, 2, 3)}
		cut := &peeked{Conn: &pipe{r: bytes.NewReader(data), n: n}, done: func() {}, log: log, entry: log.open(1, 2, 3)}
		if a, b := whole.kind(), cut.kind(); a != b {
			t.Fatalf("%q is kind %d, cut into %d bytes %d", data, a, n, b)
		}
		got, err := io.ReadAll(cut)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%q was read as %q, %v", data, got, err)
		}
		if !bytes.HasPrefix(data, cut.head) {
			t.Fatalf("the head of %q was kept as %q", data, cut.head)
		}
		whole.swallow()
		want := data[:min(len(data), sinkBytes)]
		sum := sha256.Sum256(want)
		if e := whole.entry; e.bytes != int64(len(want)) || !bytes.Equal(e.hash.Sum(nil), sum[:]) || !bytes.HasPrefix(data, e.prefix) {
			t.Fatalf("%d of %d bytes were counted", e.bytes, len(data))
		}
		if !bytes.Equal(whole.entry.marker, cut.entry.marker) {
			t.Fatalf("the marker of %q is %x, cut %x", data, whole.entry.marker, cut.entry.marker)
		}
	})
}
