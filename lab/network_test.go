package lab

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"govah/packet"
	"govah/wire"
)

// small is a world with one operator and one hoster; extra is put behind it.
func small(client, extra string) string {
	return `schema = 1
title = "small"
about = "For a test."
[[client-network]]
name = "home"
country = "NL"
hops = 3
` + client + `
[[network]]
name = "hosting"
country = "DE"
hops = 2
[[site]]
name = "site.example"
http = "same"
h3 = true
[[site]]
name = "resolver.example"
role = "resolver"
` + extra
}

func (w *World) both(name string, port uint16) (v4, v6 netip.AddrPort) {
	t := w.sites[name]
	return netip.AddrPortFrom(t.v4[0], port), netip.AddrPortFrom(t.v6[0], port)
}

// ask sends one question over UDP to a server and reads an answer.
func ask(t *testing.T, n wire.Network, server netip.AddrPort, name string, qtype uint16, wait time.Duration) (*dns.Msg, int) {
	t.Helper()
	local := netip.AddrPort{}
	if server.Addr().Is6() {
		local = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	pc, err := n.ListenPacket(t.Context(), local)
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	b, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pc.WriteTo(b, net.UDPAddrFromAddrPort(server)); err != nil {
		t.Fatal(err)
	}
	pc.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 4096)
	k, ttl, _, err := pc.ReadTTL(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, 0
	}
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(buf[:k]); err != nil {
		t.Fatal(err)
	}
	return m, ttl
}

func TestNAT64(t *testing.T) {
	w := world(t, small("no-ipv4 = true\nnat64 = true", "[[site]]\nname = 'old.example'\nno-ipv6 = true\nhttp = 'same'\nports = [22]\nbanner = 'SSH-2.0-lab'"), Options{})
	n := w.Network()
	if v := n.View(); v.IPv4 || !v.IPv6 {
		t.Errorf("view: %+v", v)
	}
	v4 := w.sites["old.example"].v4[0]
	if _, err := n.Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: netip.AddrPortFrom(v4, 80)}}); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("IPv4: %v", err)
	}
	list, err := n.Lookup(t.Context(), "old.example")
	want := nat64Of(v4)
	if err != nil || len(list) != 1 || list[0] != want {
		t.Fatalf("the resolver says %v, %v; want %s", list, err, want)
	}
	if list, err := n.Lookup(t.Context(), "ipv4only.arpa"); err != nil || !slices.Contains(list, nat64Of(netip.AddrFrom4([4]byte{192, 0, 0, 170}))) {
		t.Errorf("RFC 7050: %v, %v", list, err)
	}
	at := netip.AddrPortFrom(want, 80)
	if body := get(t, n, at, "old.example"); len(body) < 19_000 {
		t.Errorf("a page of %d bytes", len(body))
	}
	// Routers behind the translator answer with translated addresses.
	for ttl := 1; ttl <= 5; ttl++ {
		_, err := n.Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: at}, TTL: ttl})
		var pe *wire.PathError
		if !errors.As(err, &pe) || pe.Type != packet.TimeExceeded6 {
			t.Fatalf("TTL %d: %v", ttl, err)
		}
		if translated := nat64Prefix.Contains(pe.From); translated != (ttl > 3) {
			t.Errorf("TTL %d expired at %s", ttl, pe.From)
		}
	}
	// An error from the far side, and a refusal.
	if _, err := n.Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: netip.AddrPortFrom(want, 81)}}); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("closed port: %v", err)
	}
	pc, err := n.ListenPacket(t.Context(), netip.AddrPortFrom(netip.IPv6Unspecified(), 0))
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	pc.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(want, 9)))
	if list := pathErrors(pc); len(list) != 1 || list[0].Type != packet.Unreachable6 || list[0].Code != 4 || list[0].From != want {
		t.Errorf("closed UDP port: %v", list)
	}
}

// pathErrors waits for the first of them.
func pathErrors(c interface{ PathErrors() []wire.PathError }) (list []wire.PathError) {
	for deadline := time.Now().Add(2 * time.Second); len(list) == 0 && time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		list = c.PathErrors()
	}
	return list
}

// get fetches a page over plain HTTP.
func get(t *testing.T, n wire.Network, at netip.AddrPort, host string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := n.Dial(ctx, wire.DialSpec{Flow: wire.Flow{Remote: at}})
	if err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	defer c.Abort()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%s: %v after %d bytes", host, err, len(b))
	}
	return string(b)
}

func TestNAT(t *testing.T) {
	w := world(t, small("nat = true", ""), Options{})
	v4, v6 := w.both("site.example", 80)
	seen := make(chan netip.Addr, 4)
	m, err := w.Host("site.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []netip.AddrPort{v4, v6} {
		l, err := m.Listen(netip.AddrPortFrom(a.Addr(), 7))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				seen <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
				c.Close()
			}
		}()
		defer l.Close()
		c, err := w.Network().Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: netip.AddrPortFrom(a.Addr(), 7)}})
		if err != nil {
			t.Fatal(err)
		}
		inside := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		outside := <-seen
		if a.Addr().Is4() && (inside != behindNAT || outside != w.Client.v4) || a.Addr().Is6() && inside != outside {
			t.Errorf("%s: we are %s, the server sees %s", a, inside, outside)
		}
		c.Close()
	}
	if len(get(t, w.Network(), v4, "site.example")) < 19_000 {
		t.Error("a short page")
	}
	// What expires beyond the home router quotes our own address again.
	for ttl := 1; ttl <= 4; ttl++ {
		_, err := w.Network().Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: v4}, TTL: ttl})
		var pe *wire.PathError
		if !errors.As(err, &pe) {
			t.Fatalf("TTL %d: %v", ttl, err)
		}
		q, err := packet.ParseQuote(pe.Quoted)
		if err != nil || q.Src.Addr() != behindNAT || q.Dst != v4 {
			t.Errorf("TTL %d quotes %v, %v", ttl, q, err)
		}
	}
}

func TestResolvers(t *testing.T) {
	w := world(t, small(`
[[client-network.lie]]
names = [".site.example"]
answers = ["10.10.34.36", "d0::11"]
until = "2026-06-02"
[[client-network.lie]]
names = ["gone.example"]
kind = "nxdomain"
[[client-network.lie]]
names = ["silent.example"]
kind = "silent"
`, "[[site]]\nname = 'gone.example'\n[[site]]\nname = 'silent.example'\n[[site]]\nname = 'wide.example'\ncount = 32\nno-ipv6 = true"), Options{})
	n := w.Network()
	own := netip.AddrPortFrom(w.Client.resolver, 53)
	public, public6 := w.both("resolver.example", 53)
	for _, tt := range []struct {
		server netip.AddrPort
		name   string
		want   string // first address, or the code
	}{
		{own, "site.example", "10.10.34.36"}, {own, "www.site.example", "10.10.34.36"}, {own, "gone.example", "NXDOMAIN"}, {own, "silent.example", ""},
		{own, "resolver.example", public.Addr().String()},
		{public, "site.example", w.sites["site.example"].v4[0].String()}, {public6, "gone.example", w.sites["gone.example"].v4[0].String()},
		{public, "no-such.example", "NXDOMAIN"},
	} {
		m, _ := ask(t, n, tt.server, tt.name, dns.TypeA, 400*time.Millisecond)
		got := ""
		switch {
		case m == nil:
		case m.Rcode != dns.RcodeSuccess:
			got = dns.RcodeToString[m.Rcode]
		case len(m.Answer) > 0:
			got = m.Answer[0].(*dns.A).A.String()
		}
		if got != tt.want {
			t.Errorf("%s says of %s: %q, want %q", tt.server, tt.name, got, tt.want)
		}
	}
	// A day later the first lie is over.
	later, err := New(w.Scenario, Options{At: time.Date(2026, 6, 3, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	if m, _ := ask(t, later.Network(), own, "site.example", dns.TypeA, time.Second); m == nil || m.Answer[0].(*dns.A).A.String() != w.sites["site.example"].v4[0].String() {
		t.Errorf("after its end: %v", m)
	}
	// What does not fit into a datagram is cut off, and whole over TCP and TLS.
	if m, _ := ask(t, n, public, "wide.example", dns.TypeA, time.Second); m == nil || !m.Truncated {
		t.Errorf("32 addresses in 512 bytes: %v", m)
	}
	for _, port := range []uint16{53, 853} {
		c, err := n.Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: netip.AddrPortFrom(public.Addr(), port)}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		var stream io.ReadWriter = c
		if port == 853 {
			stream = tls.Client(c, &tls.Config{ServerName: "resolver.example", RootCAs: w.Public(), Time: w.Now})
		}
		q := new(dns.Msg)
		q.SetQuestion("wide.example.", dns.TypeA)
		b, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
			t.Fatal(err)
		}
		var size [2]byte
		if _, err := io.ReadFull(stream, size[:]); err != nil {
			t.Fatal(err)
		}
		b = make([]byte, binary.BigEndian.Uint16(size[:]))
		io.ReadFull(stream, b)
		m := new(dns.Msg)
		if err := m.Unpack(b); err != nil || len(m.Answer) != 32 {
			t.Errorf("port %d: %d answers, %v", port, len(m.Answer), err)
		}
	}
}

func TestSilentAndSlowRouters(t *testing.T) {
	w := world(t, small("silent = [2]\nicmp-per-second = 1", ""), Options{})
	v4, _ := w.both("site.example", 80)
	expires := func(ttl int) bool {
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		_, err := w.Network().Dial(ctx, wire.DialSpec{Flow: wire.Flow{Remote: v4}, TTL: ttl})
		var pe *wire.PathError
		return errors.As(err, &pe)
	}
	if !expires(1) || expires(1) {
		t.Error("a router that sends one error a second sent none, or two at once")
	}
	if expires(2) {
		t.Error("a silent router answered")
	}
	if !expires(3) || !expires(4) {
		t.Error("another router did not answer")
	}
}

// TestICMPAsLinux: which ICMP errors a TCP socket takes.
func TestICMPAsLinux(t *testing.T) {
	w := world(t, small("", ""), Options{})
	h := w.client
	v4, _ := w.both("site.example", 80)
	c, err := h.Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: v4}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Abort()
	local := c.LocalAddr().(*net.TCPAddr).AddrPort()
	router := netip.MustParseAddr("203.0.113.9")
	f := h.flows[flowID{packet.TCP, local.Port(), v4}]
	h.mu.Lock()
	next := f.next
	h.mu.Unlock()
	deliver := func(seq uint32, ttl uint8) int {
		b := packet.BuildTCP(packet.Segment{Src: local, Dst: v4, TTL: ttl, Seq: seq, Flags: packet.ACK, Payload: []byte("x")})
		e, err := packet.BuildICMPError(packet.TimeExceeded, router, b, 0)
		if err != nil {
			t.Fatal(err)
		}
		h.arriving(e)
		return len(c.PathErrors())
	}
	if deliver(next, 1) != 0 {
		t.Error("an error about a segment that was never sent was taken")
	}
	if err := c.SetTTL(1); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "x")
	if list := pathErrors(c); len(list) == 0 || list[0].From.IsValid() || list[0].Quoted != nil {
		t.Errorf("%v; an ordinary user is not told who sent it", list)
	}
	if deliver(next, 1) != 1 {
		t.Error("an error about a segment in flight was not taken")
	}
	if i, err := c.Info(); err != nil || i.Unacked != 1 {
		t.Errorf("%+v, %v: one segment is not acknowledged", i, err)
	}
	if deliver(next+100, 1) != 0 {
		t.Error("an error about something else was taken")
	}
	c.SetMinTTL(40)
	if deliver(next, 1) != 0 {
		t.Error("the least TTL does not hold for the packet that an error quotes")
	}
}

// TestForgedAddresses: what forged answers lead to, as on Linux.
func TestForgedAddresses(t *testing.T) {
	w := world(t, small("", ""), Options{})
	w.Tap(func(sent bool, pkt []byte) { t.Errorf("a packet on the network: %x", pkt) })
	for a, want := range map[string]error{"127.0.0.1": syscall.ECONNREFUSED, "0.0.0.0": syscall.ECONNREFUSED, "::": syscall.ECONNREFUSED, "::1": syscall.ECONNREFUSED,
		"255.255.255.255": syscall.ENETUNREACH, "224.0.0.1": syscall.ENETUNREACH} {
		if _, err := w.Network().Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: netip.AddrPortFrom(netip.MustParseAddr(a), 443)}}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", a, err, want)
		}
	}
	pc, err := w.Network().ListenPacket(t.Context(), netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if _, err := pc.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:443"))); err != nil {
		t.Error(err)
	}
	if list := pc.PathErrors(); len(list) != 1 || list[0].Code != 3 {
		t.Errorf("%v", list)
	}
}

func TestPortsAreTakenInTurn(t *testing.T) {
	w := world(t, small("", ""), Options{})
	v4, _ := w.both("site.example", 80)
	last := 0
	for i := range 5 {
		c, err := w.Network().Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: v4}})
		if err != nil {
			t.Fatal(err)
		}
		port := c.LocalAddr().(*net.TCPAddr).Port
		if i > 0 && port != last+1 && port != firstPort {
			t.Errorf("port %d after %d", port, last)
		}
		last = port
		c.Abort()
	}
}

// TestWorldsAreSeparate: one scenario can run many times at once, and a world
// that is closed leaves nothing behind.
func TestWorldsAreSeparate(t *testing.T) {
	s, err := Parse([]byte(small("", "[[site]]\nname = 'many.example'\ncount = 3\nrotate = true")))
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			w, err := New(s, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer w.Close()
			trust := w.trust()
			var seen []netip.Addr
			for range 3 {
				list, err := w.Network().Lookup(t.Context(), "many.example")
				if err != nil || len(list) != 2 {
					t.Errorf("%v, %v", list, err)
					return
				}
				for _, a := range list {
					if a.Is4() && !slices.Contains(seen, a) {
						seen = append(seen, a)
					}
				}
			}
			if len(seen) < 2 {
				t.Errorf("rotation gave %v", seen)
			}
			_, v6 := w.both("site.example", 443)
			l := wire.NewLog(time.Now(), nil)
			conn, o := wire.Connect(t.Context(), w.Network(), l, wire.Meta{}, wire.ConnectSpec{Remote: v6})
			if conn == nil {
				t.Errorf("%+v", o)
				return
			}
			tc, o := wire.Handshake(t.Context(), l, wire.Meta{}, conn, wire.HandshakeSpec{SNI: "site.example"}, trust)
			if tc == nil {
				t.Errorf("%+v", o)
				return
			}
			wire.QUIC(t.Context(), w.Network(), l, wire.Meta{}, wire.QUICSpec{Remote: v6, SNI: "site.example", Timeout: 3 * time.Second}, trust)
			// Left open on purpose: closing the world ends it.
		})
	}
	wg.Wait()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines before, %d after\n%s", before, n, buf[:runtime.Stack(buf, true)])
	}
}

func TestUnknownKeys(t *testing.T) {
	for text, want := range map[string][]string{
		strings.Replace(small("", ""), "h3 = true", "http3 = true", 1):                         {"line 16", `"http3"`, "[site]", "no-ipv6"},
		small("[[client-network.box]]\nat = 1\n[[client-network.box.rule]]\nlayr = 'tls'", ""): {"line 11", `"layr"`, "rule", "residual"},
		small("hops-count = 2", ""):                                                                                {`"hops-count"`, "[client-network]", "trusts-interceptor"},
		small("[client-network.line]\nlos = 3", ""):                                                                {`"los"`, "max-flows"},
		small("address4 = '5.1.2'", ""):                                                                            {"home", "address4"},
		small("nat64 = true", ""):                                                                                  {"no-ipv4"},
		small("", "[[site]]\nname = 'x.example'\ncert = 'forged'"):                                                 {"x.example", "wrong-name"},
		small("", "[[site]]\nname = 'x.example'\naddresses = ['45.10.0.11']"):                                      {"45.10.0.11"},
		small("", "[[site]]\nname = 'x.example'\naddresses = ['9.9.9.9']"):                                         {"9.9.9.9", "hosting"},
		small("", "[[site]]\nname = 'X example'"):                                                                  {"host name"},
		small("", "[[site]]\nname = 'x.example'\n[[site.truth]]\ninterference = 'confirmed'"):                      {"methods"},
		small("", "[[site]]\nname = 'x.example'\n[[site.truth]]\ninterference = 'confirmed'\nmethods = ['magic']"): {"magic", "tls-reset"},
		small("[[client-network.lie]]\nnames = ['a']\nkind = 'nxdomain'\nanswers = ['1.2.3.4']", ""):               {"kind answer"},
	} {
		if text == small("", "[[site]]\nname = 'x.example'\naddresses = ['45.10.0.11']") {
			// Not an error: the address is taken first, others go elsewhere.
			s, err := Parse([]byte(text))
			if err != nil || s.Sites[0].v4[0].String() == "45.10.0.11" {
				t.Errorf("an address that a site asks for: %v", err)
			}
			continue
		}
		_, err := Parse([]byte(text))
		if err == nil {
			t.Errorf("accepted:\n%s", text)
			continue
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%v\ndoes not say %q", err, part)
			}
		}
	}
}
