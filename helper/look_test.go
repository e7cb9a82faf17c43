package helper_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"govah/helper"
	"govah/measure"
	"govah/wire"
	"govah/wire/host"
)

// TestOwnResolver: the helper asks the resolver it was given, and connects to
// a bounded number of its answers in each family.
func TestOwnResolver(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	server := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		m := new(dns.Msg).SetReply(q)
		for i := range 6 {
			text := fmt.Sprintf("%s 60 IN A 93.184.215.%d", q.Question[0].Name, i+1)
			if q.Question[0].Qtype == dns.TypeAAAA {
				text = fmt.Sprintf("%s 60 IN AAAA 2606:2800::%d", q.Question[0].Name, i+1)
			}
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Error(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		w.WriteMsg(m)
	})}
	go server.ActivateAndServe()
	t.Cleanup(func() { server.Shutdown() })
	site := origin(t, nil, http.NotFoundHandler())
	n := &network{Network: host.New(), moved: map[netip.Addr]netip.AddrPort{}}
	for i := range 6 {
		n.moved[netip.MustParseAddr(fmt.Sprintf("93.184.215.%d", i+1))] = site
		n.moved[netip.MustParseAddr(fmt.Sprintf("2606:2800::%d", i+1))] = site
	}
	url, _ := start(t, helper.Config{Network: n, Resolver: netip.MustParseAddrPort(pc.LocalAddr().String())}, false)
	reply, o := ask(t, url, measure.HelperRequest{URL: "http://example.org/"})
	if reply == nil {
		t.Fatal(o.Detail)
	}
	four, six := 0, 0
	for _, a := range n.contacted() {
		if a.Is4() {
			four++
		} else {
			six++
		}
	}
	if four != 4 || six != 4 || asked.Load() != 2 {
		t.Errorf("contacted %d IPv4 and %d IPv6 addresses after %d questions; want 4, 4 and 2", four, six, asked.Load())
	}
	pages := 0
	for _, o := range reply.Observations {
		if o.Step == measure.StepDNS && (o.DNS.Transport != "udp" || o.DNS.Resolver != pc.LocalAddr().String()) {
			t.Errorf("dns: %+v", o.DNS)
		}
		if o.Step == measure.StepHTTP {
			pages++
		}
	}
	if pages != 1 {
		t.Errorf("the page was fetched %d times", pages)
	}
}

// TestLookOverQUIC has one helper look at another.
func TestLookOverQUIC(t *testing.T) {
	roots, cert := authority(t)
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skipf("this system has no 127.0.0.2: %v", err)
	}
	pc, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	site, err := helper.New(helper.Config{Network: host.New(), Certificate: &cert})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- site.Serve(ctx, helper.Listeners{TCP: []net.Listener{l}, UDP: []net.PacketConn{pc}})
	}()
	defer func() {
		cancel()
		<-ended
	}()
	at := netip.MustParseAddrPort(l.Addr().String())
	url, _ := start(t, helper.Config{Roots: roots, AllowReserved: true, Ports: []uint16{at.Port()},
		Network: &network{Network: host.New(), names: map[string][]string{"example.org": {"127.0.0.2"}}}}, false)
	for _, quic := range []bool{false, true} {
		reply, o := ask(t, url, measure.HelperRequest{URL: fmt.Sprintf("https://example.org:%d/plain", at.Port()), QUIC: quic})
		if reply == nil {
			t.Fatal(o.Detail)
		}
		shaken, page := 0, ""
		for _, o := range reply.Observations {
			if o.Step == measure.StepQUIC && o.Failure == measure.NoFailure && o.TLS.Public == measure.VerifiedOK && o.SNI == "example.org" {
				shaken++
			}
			if o.HTTP != nil {
				page = o.HTTP.BodySHA256
			}
		}
		if (shaken == 1) != quic || page != measure.HelperPlainSHA256 {
			t.Errorf("QUIC %v: %d handshakes, page %q: %+v", quic, shaken, page, reply)
		}
	}
}

// TestLookAtAnEndpoint: "tls://" and "tcp://" are connected to, not fetched.
func TestLookAtAnEndpoint(t *testing.T) {
	roots, cert := authority(t)
	var fetched atomic.Bool
	site := origin(t, &cert, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched.Store(true) }))
	public := netip.MustParseAddr("93.184.215.14")
	url, _ := start(t, helper.Config{Roots: roots, Network: &network{Network: host.New(),
		names: map[string][]string{"example.org": {public.String()}}, moved: map[netip.Addr]netip.AddrPort{public: site}}}, false)
	for scheme, want := range map[string]measure.Step{"tls": measure.StepTLS, "tcp": measure.StepTCP} {
		reply, o := ask(t, url, measure.HelperRequest{URL: scheme + "://example.org:993"})
		if reply == nil {
			t.Fatal(o.Detail)
		}
		if last := reply.Observations[len(reply.Observations)-1]; last.Step != want || last.Failure != measure.NoFailure {
			t.Errorf("%s: the last step is %+v", scheme, last)
		}
	}
	if fetched.Load() {
		t.Error("something was fetched")
	}
}

// TestCertificateThatProvesNothing: the page is fetched all the same, and the
// observation says that it proves nothing.
func TestCertificateThatProvesNothing(t *testing.T) {
	_, cert := authority(t)
	site := origin(t, &cert, http.NotFoundHandler())
	public := netip.MustParseAddr("93.184.215.14")
	roots, _ := authority(t) // another one
	url, _ := start(t, helper.Config{Roots: roots, Network: &network{Network: host.New(),
		names: map[string][]string{"example.org": {public.String()}}, moved: map[netip.Addr]netip.AddrPort{public: site}}}, false)
	reply, o := ask(t, url, measure.HelperRequest{URL: "https://example.org/"})
	if reply == nil {
		t.Fatal(o.Detail)
	}
	var shake, page *measure.Observation
	for i := range reply.Observations {
		switch o := &reply.Observations[i]; o.Step {
		case measure.StepTLS:
			shake = o
		case measure.StepHTTP:
			page = o
		}
	}
	if shake == nil || shake.Failure != measure.TLSUnknownAuthority || shake.TLS.Public != measure.VerifyUnknownCA {
		t.Errorf("tls: %+v", shake)
	}
	if page == nil || page.HTTP.Status != 404 || page.HTTP.Authenticated {
		t.Errorf("http: %+v", page)
	}
}

// BenchmarkLook is a whole exchange on loopback: two handshakes, a page.
func BenchmarkLook(b *testing.B) {
	roots, cert := authority(b)
	site := origin(b, &cert, http.NotFoundHandler())
	public := netip.MustParseAddr("93.184.215.14")
	url, _ := start(b, helper.Config{Roots: roots, Limits: helper.Limits{LooksPerMinute: 1 << 20}, Network: &network{Network: host.New(),
		names: map[string][]string{"example.org": {public.String()}}, moved: map[netip.Addr]netip.AddrPort{public: site}}}, false)
	var sent, received int64
	for b.Loop() {
		l := wire.NewLog(time.Now(), nil)
		reply, o := wire.AskHelper(b.Context(), host.New(), l, wire.Meta{}, url, measure.HelperRequest{URL: "https://example.org/"}, &wire.Trust{})
		if reply == nil {
			b.Fatal(o.Detail)
		}
		sent, received = o.Sent, o.Received
	}
	b.ReportMetric(float64(sent), "B-sent")
	b.ReportMetric(float64(received), "B-received")
}
