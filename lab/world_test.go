package lab

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"govah/measure"
	"govah/wire"
)

func newWorld(t testing.TB, name string, o Options) *World {
	t.Helper()
	s, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func (w *World) trust() *wire.Trust {
	roots, _ := w.Network().Roots()
	return &wire.Trust{Public: w.Public(), System: roots, Now: w.Now}
}

func TestVisit(t *testing.T) {
	w := newWorld(t, "clean", Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	l := wire.NewLog(time.Now(), nil)
	for _, f := range []bool{false, true} {
		n := w.Network()
		o := wire.LookupSystem(ctx, n, l, wire.Meta{}, "video.example", 5*time.Second)
		if o.Failure != "" || len(o.DNS.Replies) == 0 {
			t.Fatalf("lookup: %+v", o)
		}
		site := w.sites["video.example"]
		a := site.v4[0]
		if f {
			a = site.v6[0]
		}
		conn, o := wire.Connect(ctx, n, l, wire.Meta{}, wire.ConnectSpec{Remote: netip.AddrPortFrom(a, 443)})
		if conn == nil {
			t.Fatalf("connect to %s: %+v", a, o)
		}
		h, err := wire.NewHello("chrome", 1)
		if err != nil {
			t.Fatal(err)
		}
		tc, o := wire.Handshake(ctx, l, wire.Meta{}, conn, wire.HandshakeSpec{SNI: "video.example", Verify: "video.example", Hello: h}, w.trust())
		if tc == nil || !tc.Verified() {
			t.Fatalf("handshake: %+v %+v", o, o.TLS)
		}
		o, body := wire.Fetch(ctx, l, wire.Meta{}, tc, wire.Request{URL: "https://video.example/", Method: "GET", Host: "video.example", MaxBody: 1 << 20})
		if o.Failure != "" || o.HTTP.Status != 200 || len(body) < 60000 || o.HTTP.H3 == "" {
			t.Fatalf("fetch: %+v %+v, %d bytes", o, o.HTTP, len(body))
		}
		tc.Close()
		conn.Abort()
		q := wire.QUIC(ctx, n, l, wire.Meta{}, wire.QUICSpec{Remote: netip.AddrPortFrom(a, 443), SNI: "video.example", Verify: "video.example",
			Request: &wire.Request{URL: "https://video.example/", Method: "HEAD"}, Timeout: 5 * time.Second}, w.trust())
		if q.Failure != "" || q.HTTP == nil || q.HTTP.Status != 200 {
			t.Fatalf("quic: %+v %+v", q, q.HTTP)
		}
	}
}

func TestRoutersAnswer(t *testing.T) {
	w := newWorld(t, "clean", Options{})
	for _, a := range []netip.Addr{w.sites["news.example"].v4[0], w.sites["news.example"].v6[0]} {
		seen := 0
		for ttl := 1; ttl <= 12; ttl++ {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			c, err := w.Network().Dial(ctx, wire.DialSpec{Flow: wire.Flow{Remote: netip.AddrPortFrom(a, 443)}, TTL: ttl})
			cancel()
			if err == nil {
				c.Abort()
				if ttl != 8 { // four routers of the operator's, three of the hoster's
					t.Errorf("%s: connected at TTL %d, want 8", a, ttl)
				}
				break
			}
			var pe *wire.PathError
			if !errors.As(err, &pe) || !pe.From.IsValid() || !errors.Is(err, syscall.EHOSTUNREACH) {
				t.Fatalf("%s, TTL %d: %v", a, ttl, err)
			}
			seen++
		}
		if seen != 7 {
			t.Errorf("%s: %d routers answered, want 7", a, seen)
		}
	}
}

func TestRefusedAndSilent(t *testing.T) {
	w := newWorld(t, "clean", Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	a := w.sites["plain.example"].v4[0]
	if _, err := w.Network().Dial(ctx, wire.DialSpec{Flow: wire.Flow{Remote: netip.AddrPortFrom(a, 443)}}); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("closed port: %v", err)
	}
	dead := netip.MustParseAddrPort("45.10.0.250:443")
	began := time.Now()
	if _, err := w.Network().Dial(ctx, wire.DialSpec{Flow: wire.Flow{Remote: dead}}); err == nil || time.Since(began) < 800*time.Millisecond {
		t.Errorf("nobody's address: %v after %s", err, time.Since(began))
	}
}

func TestScenarios(t *testing.T) {
	for _, name := range Names() {
		s, err := Load(name)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		for _, line := range strings.Split(s.Describe(), "\n") {
			if len(line) > 80 {
				t.Errorf("%s: a line of %d columns: %s", name, len(line), line)
			}
		}
		if s.About == "" || s.Title == "" {
			t.Errorf("%s: no title or no about", name)
		}
	}
	for text, want := range map[string]string{
		"schema = 2": "schema",
		"schema = 1\nbogus = 1\n[[network]]\nname='n'\n[[client-network]]\nname='c'\n[[site]]\nname='s'":                                                                      "bogus",
		"schema = 1\n[[network]]\nname='n'\n[[site]]\nname='s'\n[[client-network]]\nname='c'\n[[client-network.box]]\n[[client-network.box.rule]]\nlayer='tls'\naction='eat'": "drop, reset",
		"schema = [": "line 1",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want something about %q", text, err, want)
		}
	}
}

func TestMount(t *testing.T) {
	w := newWorld(t, "clean", Options{})
	m, err := w.Host("helper-a.example")
	if err != nil {
		t.Fatal(err)
	}
	ap := netip.AddrPortFrom(m.Addresses()[0], 8443)
	l, err := m.Listen(ap)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.Copy(c, c)
		c.Close()
	}()
	c, err := w.Network().Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: ap}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "ping")
	b := make([]byte, 4)
	c.SetReadDeadline(time.Now().Add(3 * time.Second))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping" {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := m.Listen(ap); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("twice at one address: %v", err)
	}
	l.Close()
	if l, err = m.Listen(ap); err != nil {
		t.Errorf("after it was closed: %v", err)
	}
	ended := make(chan error, 1)
	go func() { _, err := l.Accept(); ended <- err }()
	defer func() {
		w.Close()
		select {
		case err := <-ended:
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("accept in a world that has ended: %v", err)
			}
		case <-time.After(3 * time.Second):
			t.Error("still accepting in a world that has ended")
		}
	}()
	// A host of the lab reaches the sites itself.
	out, err := m.Network().Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: netip.AddrPortFrom(w.sites["news.example"].v4[0], 443)}})
	if err != nil {
		t.Fatal(err)
	}
	out.Close()
}

func TestDescribe(t *testing.T) {
	s, err := Parse([]byte(small("nat = true\nclock = '-2h'\n[client-network.line]\nloss = 20\nburst = 3\n[[client-network.lie]]\nnames = ['a', 'b', 'c', 'd']\nkind = 'empty'\n[[client-network.box]]\nat = 2\n[[client-network.box.rule]]\nfact = 'XX-1'\nlayer = 'tls'\nnames = ['site.example']\naction = 'reset'",
		"[[site.truth]]\ninterference = 'confirmed'\nmethods = ['tls-reset']\ntrigger = 'sni'\ndecidable = 'helper'")))
	if err != nil {
		t.Fatal(err)
	}
	text := s.Describe()
	for _, want := range []string{"the home router translates", "wrong by -2h", "20 of 1,000 packets, in runs", "lies: empty for a, b, c, and 1 more",
		"you -- (1) -- (2) --[box: 1 rules] -- (3) -- the world", "behind router 2: tls reset for site.example [XX-1]", "hosting: AS64500 DE",
		"tls-reset by sni (needs a helper)"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
}

func TestCompare(t *testing.T) {
	found := func(method measure.Method, how measure.Interference, trigger string) measure.Finding {
		return measure.Finding{Method: method, Interference: how, Trigger: measure.Trigger{Kind: trigger}}
	}
	verdict := func(r measure.Reachable, i measure.Interference, f ...measure.Finding) measure.Verdict {
		return measure.Verdict{Reachable: r, Interference: i, Findings: f}
	}
	reset := found(measure.TLSReset, measure.InterferenceConfirmed, "sni")
	maybe := found(measure.TLSReset, measure.InterferenceSuspected, "sni")
	const yes, no, none, sure, unsure, unknown = measure.ReachableYes, measure.ReachableNo, measure.InterferenceNone, measure.InterferenceConfirmed,
		measure.InterferenceSuspected, measure.InterferenceUnknown
	clean := Truth{Interference: "none", Reachable: "yes", Decidable: "local"}
	dead := Truth{Interference: "none", Decidable: "helper"}
	blocked := Truth{Interference: "confirmed", Methods: []string{"tls-reset"}, Trigger: "sni", Reachable: "no", Decidable: "local"}
	hidden := Truth{Interference: "confirmed", Methods: []string{"throttle"}, Decidable: "never"}
	for _, tt := range []struct {
		name    string
		row     Truth
		verdict measure.Verdict
		helpers bool
		right   bool
	}{
		{"clean", clean, verdict(yes, none), false, true},
		{"clean, accused", clean, verdict(no, sure, reset), true, false},
		{"clean, suspected", clean, verdict(yes, unsure, maybe), false, false},
		{"clean, not known", clean, verdict(measure.ReachableUnknown, unknown), true, false},
		{"clean, said unreachable", clean, verdict(no, none), false, false},
		{"clean, a refusal mentioned", clean, verdict(yes, none, found(measure.ServerRefusal, sure, "")), false, true},
		{"dead, alone", dead, verdict(no, unknown), false, true},
		{"dead, alone, suspected", dead, verdict(no, unsure, maybe), false, true},
		{"dead, alone, accused", dead, verdict(no, sure, reset), false, false},
		{"dead, with helpers, suspected", dead, verdict(no, unsure, maybe), true, false},
		{"dead, with helpers", dead, verdict(no, none, found(measure.SiteDown, sure, "")), true, true},
		{"blocked", blocked, verdict(no, sure, reset), false, true},
		{"blocked, only suspected", blocked, verdict(no, unsure, maybe), false, false},
		{"blocked, otherwise", blocked, verdict(no, sure, found(measure.TLSDrop, sure, "sni")), false, false},
		{"blocked, by something else", blocked, verdict(no, sure, found(measure.TLSReset, sure, "address")), false, false},
		{"blocked, said reachable", blocked, verdict(yes, sure, reset), false, false},
		{"hidden", hidden, verdict(no, unknown), true, true},
		{"hidden, said free", hidden, verdict(yes, none), true, false},
		{"hidden, wrong method", hidden, verdict(no, sure, reset), true, false},
	} {
		if problem := tt.row.Compare(tt.verdict, tt.helpers); (problem == "") != tt.right {
			t.Errorf("%s: %q", tt.name, problem)
		}
	}
}
