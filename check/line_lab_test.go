package check_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"govah/check"
	"govah/helper"
	"govah/judge"
	"govah/known"
	"govah/lab"
	"govah/measure"
	"govah/wire"
)

// lineWorld is a lab whose client and networks a test describes.
const lineWorld = `schema = 1
title = "a line"
about = "for a test"
[[client-network]]
name = "home"
asn = 64900
country = "NL"
%s
[[network]]
name = "one"
asn = 64501
hops = 3
delay = "4ms"
[[network]]
name = "two"
asn = 64502
hops = 2
delay = "6ms"
[[network]]
name = "three"
asn = 64503
hops = 4
delay = "9ms"
[[site]]
name = "canary-one.example"
network = "one"
role = "canary"
deeper = 2
http = "same"
size = 2000
[[site]]
name = "canary-two.example"
network = "two"
role = "canary"
deeper = 3
http = "same"
size = 2000
[[site]]
name = "canary-three.example"
network = "three"
role = "canary"
http = "same"
size = 2000
[[site]]
name = "doh.example"
network = "one"
role = "doh"
identity = "m1.doh.example"
[[site]]
name = "doh-two.example"
network = "two"
role = "doh"
identity = "m7.doh-two.example"
[[site]]
name = "whoami.example"
network = "three"
role = "whoami"
[[site]]
name = "signed-one.example"
network = "one"
signed = true
[[site]]
name = "signed-two.example"
network = "three"
signed = true
[[site]]
name = "hidden-one.example"
network = "one"
ech = true
[[site]]
name = "hidden-two.example"
network = "two"
ech = true
[[site]]
name = "resolver.example"
network = "three"
role = "resolver"
[[site]]
name = "resolver-two.example"
network = "two"
role = "resolver"
[[site]]
name = "nowhere.example"
network = "two"
role = "nowhere"
count = 2
[[site]]
name = "check.example"
network = "one"
role = "captive-check"
http = "same"
[[site]]
name = "helper.example"
network = "three"
role = "helper"
[[site]]
name = "front.example"
network = "two"
role = "helper"
%s`

// newLine is a client's line without anything else.
func newLine(t *testing.T, client string) *lab.World {
	t.Helper()
	s, err := lab.Parse([]byte(fmt.Sprintf(lineWorld, client, "")))
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.New(s, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// lineConfig is what a run knows there.
func lineConfig(t testing.TB, w *lab.World) check.Config {
	t.Helper()
	roots, err := w.Network().Roots()
	if err != nil {
		t.Error(err)
	}
	cfg := check.Config{Network: w.Network(), Trust: wire.Trust{Public: w.Public(), System: roots, Now: w.Now}, ASN: w.ASN, Seed: 1, Pace: check.PaceFast, Line: true,
		Surroundings: check.Surroundings{ASN: w.Client.ASN, Country: w.Client.Country, Source: "lab",
			Resolvers: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(w.Client.Resolver), 53)}}}
	for _, c := range w.Sites("canary") {
		cfg.Controls.Canaries = append(cfg.Controls.Canaries, check.CanaryHost{Name: c.Name, Addrs: c.AllAddresses()})
	}
	for _, d := range w.Sites("doh") {
		cfg.Controls.DoH = append(cfg.Controls.DoH, check.DoHServer{URL: "https://" + d.Name + "/dns-query", Addrs: d.AllAddresses()})
	}
	for _, r := range w.Sites("resolver") {
		for _, a := range r.AllAddresses() {
			cfg.Controls.Resolvers = append(cfg.Controls.Resolvers, netip.AddrPortFrom(a, 53))
		}
	}
	for _, n := range w.Sites("nowhere") {
		cfg.Controls.Nowhere = append(cfg.Controls.Nowhere, n.AllAddresses()...)
		cfg.Controls.Nobody = append(cfg.Controls.Nobody, n.AllAddresses()...)
	}
	for _, r := range slices.Concat(w.Sites("resolver"), w.Sites("doh")) {
		if r.Identity != "" {
			cfg.Controls.Public = append(cfg.Controls.Public, known.PublicResolver{Operator: r.Name, Addrs: r.AllAddresses(), Name: r.Name,
				DoH: "https://" + r.Name + "/dns-query", Identity: regexp.MustCompile(`^m\d\.` + regexp.QuoteMeta(r.Name) + "$")})
		}
	}
	for _, s := range w.Scenario.Sites {
		if s.Role == "whoami" {
			cfg.Controls.Whoami = append(cfg.Controls.Whoami, s.Name)
		}
		if s.Signed {
			cfg.Controls.Signed = append(cfg.Controls.Signed, s.Name)
		}
		if s.ECH {
			cfg.Controls.ECH = append(cfg.Controls.ECH, s.Name)
		}
	}
	cfg.Controls.Captive = "http://check.example/"
	return cfg
}

// lineCase is a line, and what is to be said of it.
type lineCase struct {
	name   string
	client string // further keys and tables of the client
	more   string // of the rest
	loss   int
	// want are "method scope" of all accusing findings; none: innocent.
	want []string
	// helper: "own", one with its own certificate; "front", one behind a CDN.
	helper string
	// interference is the verdict's; "" none if nothing is wanted, else
	// confirmed.
	interference measure.Interference
	why          measure.Why // must be given
}

func (c lineCase) run(t testing.TB, seed uint64) (m measure.Measurement, v measure.Verdict) {
	t.Helper()
	client := c.client
	if !strings.Contains("\n"+client, "\nhops =") {
		client = "hops = 4\ndelay = \"5ms\"\n" + client
	}
	s, err := lab.Parse([]byte(fmt.Sprintf(lineWorld, client, c.more)))
	if err != nil {
		t.Error(err)
		return m, v
	}
	w, err := lab.New(s, lab.Options{Loss: c.loss, Seed: seed})
	if err != nil {
		t.Error(err)
		return m, v
	}
	defer w.Close()
	cfg := lineConfig(t, w)
	cfg.Seed = seed
	if c.helper != "" {
		stop, err := mountLineHelper(w, c.helper == "front", &cfg)
		if err != nil {
			t.Error(err)
			return m, v
		}
		defer stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out check.Result
	n := 0
	if _, err := check.Run(ctx, cfg, nil, func(r check.Result) error { out = r; n++; return nil }); err != nil || n != 1 {
		t.Errorf("%d results, %v", n, err)
		return m, v
	}
	return *out.Measurement, out.Verdict
}

// problem holds a verdict against the case. Where packets are lost, one of the
// signs of a device that leaves several may be missed, but nothing else found.
func (c lineCase) problem(v measure.Verdict) string {
	var got []string
	for _, f := range v.Findings {
		if !f.Method.Benign() && f.Interference == measure.InterferenceConfirmed {
			if s := string(f.Method) + " " + string(f.Scope); !slices.Contains(got, s) {
				got = append(got, s)
			}
		} else if !f.Method.Benign() {
			got = append(got, "suspected "+string(f.Method))
		}
	}
	slices.Sort(got)
	want := slices.Clone(c.want)
	slices.Sort(want)
	interference := c.interference
	if interference == "" {
		interference = measure.InterferenceNone
		if len(want) > 0 {
			interference = measure.InterferenceConfirmed
		}
	}
	if c.loss > 0 && len(got) > 0 && len(got) < len(want) {
		want = slices.DeleteFunc(want, func(w string) bool { return !slices.Contains(got, w) })
	}
	if !slices.Equal(got, want) || v.Interference != interference {
		return fmt.Sprintf("%s %v, not %s %v", v.Interference, got, interference, want)
	}
	if c.helper != "" && c.why == "" && slices.Contains(v.Unknown, measure.WhyNoControl) {
		return "the helper did not answer over TLS"
	}
	if c.why != "" && !slices.Contains(v.Unknown, c.why) {
		return fmt.Sprintf("%v without %s", v.Unknown, c.why)
	}
	return ""
}

// mountLineHelper runs a helper in the lab, and in front of it a CDN, which
// adds header lines, writes heads its own way and keeps pages.
func mountLineHelper(w *lab.World, front bool, cfg *check.Config) (stop func(), err error) {
	m, err := w.Host("helper.example")
	if err != nil {
		return nil, err
	}
	s, err := helper.New(helper.Config{Network: m.Network(), Roots: w.Public(), Now: w.Now})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	stop = func() { cancel(); wg.Wait() }
	listeners := func(name string) (out []net.Listener, err error) {
		m, err := w.Host(name)
		if err != nil {
			return nil, err
		}
		for _, port := range []uint16{80, 443} {
			l, err := m.Listen(netip.AddrPortFrom(m.Addresses()[0], port))
			if err != nil {
				return nil, err
			}
			out = append(out, l)
		}
		return out, nil
	}
	own, err := listeners("helper.example")
	if err != nil {
		return nil, err
	}
	wg.Go(func() { s.Serve(ctx, helper.Listeners{TCP: own}) })
	cfg.Helpers = []string{s.URL("helper.example")}
	if !front {
		return stop, nil
	}
	f, err := w.Host("front.example")
	if err != nil {
		return nil, err
	}
	cert, err := f.Issue("front.example")
	if err != nil {
		return nil, err
	}
	ls, err := listeners("front.example")
	if err != nil {
		return nil, err
	}
	at := netip.AddrPortFrom(m.Addresses()[0], 80)
	var mu sync.Mutex
	cache := map[string][]byte{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "helper.example"})
			r.SetXForwarded()
			r.Out.Header.Set("Via", "1.1 front")
		},
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return f.Network().Dial(ctx, wire.DialSpec{Flow: wire.Flow{Remote: at}})
		}},
		ModifyResponse: func(r *http.Response) error {
			if r.Request.URL.Path != "/fresh" {
				return nil
			}
			body, err := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			if cache[r.Request.URL.RawQuery] == nil {
				cache[r.Request.URL.RawQuery] = body
			}
			r.Body = io.NopCloser(bytes.NewReader(cache[r.Request.URL.RawQuery]))
			return err
		},
	}
	quiet := log.New(io.Discard, "", 0)
	plain := &http.Server{Handler: proxy, ErrorLog: quiet}
	secure := &http.Server{Handler: proxy, ErrorLog: quiet, TLSConfig: &tls.Config{Certificates: []tls.Certificate{*cert}}}
	wg.Go(func() { plain.Serve(ls[0]) })
	wg.Go(func() { secure.ServeTLS(ls[1], "", "") })
	cfg.Helpers = []string{"https://front.example/"}
	end := stop
	return func() { plain.Close(); secure.Close(); end() }, nil
}

const redirectAll = "[[client-network.box]]\nat = %d\n[[client-network.box.rule]]\nlayer = \"dns\"\naction = \"dns-redirect\"\nto = \"45.12.0.14\"\n"

const webProxy = "[client-network.web-proxy]\nat = 2\n"

// redirectSome takes the questions to two operators, and no others.
const redirectSome = "[[client-network.box]]\nat = 2\n[[client-network.box.rule]]\nlayer = \"dns\"\naddresses = [\"45.10.0.12\", \"45.11.0.12\"]\naction = \"dns-redirect\"\nto = \"45.12.0.14\"\n"

const (
	redirectHome    = "hops = 4\ndelay = \"5ms\"\naddress4 = \"5.100.7.7\"\nresolver = \"5.100.255.53\"\n"
	redirectHomeBox = "[[client-network.box]]\nat = 3\n[[client-network.box.rule]]\nlayer = \"dns\"\naction = \"dns-redirect\"\nto = \"5.100.255.53\"\n"
)

// lineCases are interceptors, and lines that look like one.
var lineCases = []lineCase{
	// Interceptors.
	{name: "port 53 redirected", client: fmt.Sprintf(redirectAll, 3), want: []string{"dns-interception unknown"}},
	{name: "port 53 redirected nearby", client: fmt.Sprintf(redirectAll, 1), want: []string{"dns-interception unknown"}},
	{name: "port 53 of two public resolvers redirected", client: redirectSome, want: []string{"dns-interception unknown"}},
	{name: "all questions redirected to a resolver that leaves out signatures", client: redirectHome + "resolver-strips = [\"rrsig\"]\n" + redirectHomeBox, want: []string{"dns-interception unknown", "dnssec-strip unknown"}},
	{name: "a resolver that leaves out signatures", client: "resolver-strips = [\"rrsig\"]\n", want: []string{"dnssec-strip unknown"}},
	{name: "a resolver that leaves out the keys of ECH", client: "resolver-strips = [\"ech\"]\n", want: []string{"ech-strip unknown"}},
	{name: "encrypted DNS blocked", client: "[[client-network.box]]\nat = 2\n[[client-network.box.rule]]\nlayer = \"tls\"\nnames = [\"doh.example\", \"doh-two.example\"]\naction = \"drop\"\n", want: []string{"dns-downgrade unknown"}},
	{name: "all of TLS re-signed", client: "[client-network.intercept]\nat = 2\n", want: []string{"tcp-proxy unknown", "tls-interception unknown"}},
	{name: "a header enricher", helper: "own", client: webProxy + "adds = [\"X-MSISDN: 491700000000\"]\n", want: []string{"http-proxy unknown", "http-tamper unknown"}},
	{name: "a header that nobody knows", helper: "own", client: webProxy + "adds = [\"X-Qz-Line: 17\"]\n", want: []string{"http-proxy unknown", "http-tamper unknown"}},
	{name: "a caching proxy", helper: "own", client: webProxy + "caches = true\nvia = \"1.1 cache\"\n", want: []string{"http-proxy unknown"}},
	{name: "a proxy that alters pages", helper: "own", client: webProxy + "tamper = \"script\"\n", want: []string{"http-proxy unknown", "http-tamper unknown"}},
	{name: "a proxy in the house", helper: "own", client: "[client-network.web-proxy]\nat = 0\nvia = \"1.1 office\"\n", want: []string{"http-proxy lan"}, interference: measure.InterferenceNone},
	{name: "a proxy in the house that leaves requests as they are", helper: "own", client: "[client-network.web-proxy]\nat = 0\neager = true\nverbatim = true\n", want: []string{"http-proxy lan"}, interference: measure.InterferenceNone},
	{name: "TCP proxy for the web", client: "[client-network.tcp-proxy]\nat = 2\nports = [80, 443]\n", want: []string{"tcp-proxy unknown"}},
	{name: "TCP proxy for HTTPS", client: "[client-network.tcp-proxy]\nat = 3\nports = [443]\n", want: []string{"tcp-proxy unknown"}},
	{name: "web proxy that accepts for nobody", client: "[client-network.web-proxy]\nat = 2\neager = true\n", want: []string{"http-proxy unknown"}},
	{name: "re-signing device that accepts for nobody", client: "[client-network.intercept]\nat = 2\neager = true\n", want: []string{"tcp-proxy unknown", "tls-interception unknown"}},
	{name: "a web proxy that keeps quiet", client: "[client-network.web-proxy]\nat = 2\n", want: []string{"http-proxy unknown"}},

	// Look-alikes.
	{name: "an ordinary line"},
	{name: "a resolver that knows neither DNSSEC nor HTTPS records", client: "simple-resolver = true\n"},
	{name: "a firewall that knows no DNS over TLS", client: "[[client-network.box]]\nat = 1\n[[client-network.box.rule]]\nlayer = \"tcp\"\nports = [853]\naction = \"drop\"\n"},
	{name: "one encrypted resolver blocked", client: "[[client-network.box]]\nat = 2\n[[client-network.box.rule]]\nlayer = \"tls\"\nnames = [\"doh.example\"]\naction = \"drop\"\n"},
	{name: "antivirus on the device", client: "trusts-interceptor = true\n[client-network.intercept]\nat = 0\nissuer = \"Antivirus Web Shield\"\n", want: []string{"tcp-proxy lan", "tls-interception lan"}, interference: measure.InterferenceNone},
	{name: "an ordinary line with a helper", helper: "own"},
	{name: "a helper behind a CDN", helper: "front"},
	{name: "a helper and a translating router", helper: "own", client: "nat = true\n"},
	{name: "a captive portal, with a helper", helper: "own", client: "captive = true\n", interference: measure.InterferenceUnknown, why: measure.WhyCaptive},
	{name: "a satellite link with a helper", helper: "own", client: "hops = 3\ndelay = \"280ms\"\n[client-network.tcp-proxy]\nat = 1\n", why: measure.WhyAccelerator},
	{name: "a line without IPv6", client: "no-ipv6 = true\n"},
	{name: "a home router that translates", client: "nat = true\n"},
	{name: "a home router that answers DNS itself", client: "router-dns = true\n", want: []string{"dns-interception lan"}, interference: measure.InterferenceNone},
	{name: "the same behind a translator", client: "router-dns = true\nnat = true\n", want: []string{"dns-interception lan"}, interference: measure.InterferenceNone},
	{name: "a satellite link with an accelerator", client: "hops = 3\ndelay = \"280ms\"\n[client-network.tcp-proxy]\nat = 1\n", why: measure.WhyAccelerator},
	{name: "an accelerator of a mobile operator", client: "[client-network.tcp-proxy]\nat = 3\n", why: measure.WhyAccelerator},
	{name: "a captive portal", client: "captive = true\n", interference: measure.InterferenceUnknown, why: measure.WhyCaptive},
	{name: "silent routers", client: "silent = [1, 2, 3, 4]\n"},
	{name: "routers with equal siblings", client: "equal = [2, 3]\nways = 4\n"},
	{name: "a far line", client: "hops = 8\ndelay = \"60ms\"\n"},
	{name: "a line with jitter", client: "[client-network.line]\njitter = \"40ms\"\n"},
	{name: "a filter of names", client: "[[client-network.box]]\nat = 2\n[[client-network.box.rule]]\nlayer = \"dns\"\nnames = [\"blocked.example\"]\naction = \"dns-answer\"\nanswers = [\"10.10.34.35\"]\n"},
	{name: "a filter of TLS names", client: "[[client-network.box]]\nat = 2\n[[client-network.box.rule]]\nlayer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"reset\"\n"},
	{name: "a firewall that refuses what it does not know", client: "[[client-network.box]]\nat = 1\n[[client-network.box.rule]]\nlayer = \"tcp\"\nsegment = \"syn\"\nnot-ports = [53, 80, 443]\naction = \"reset\"\n"},
}

var lineSeeds = flag.Int("line-seeds", 1, "measure each line of TestLine with so many seeds")

// BenchmarkLine measures all that the person waits for with --set interception,
// from the first packet of the preflight to the verdict, on a clean line of
// 40 ms with both families and a helper, against what it may take: 15 s and
// 400 kB.
func BenchmarkLine(b *testing.B) {
	for _, pace := range []check.Pace{check.PaceFast, check.PaceGentle} {
		b.Run(string(pace), func(b *testing.B) {
			world := strings.ReplaceAll(strings.ReplaceAll(lineWorld, "deeper = 2\n", ""), "deeper = 3\n", "")
			s, err := lab.Parse([]byte(fmt.Sprintf(world, "hops = 4\n", "")))
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				w, err := lab.New(s, lab.Options{RTT: 40 * time.Millisecond})
				if err != nil {
					b.Fatal(err)
				}
				cfg := lineConfig(b, w)
				cfg.Pace = pace
				stop, err := mountLineHelper(w, false, &cfg)
				if err != nil {
					b.Fatal(err)
				}
				began := time.Now()
				sum, err := check.Run(b.Context(), cfg, nil, func(r check.Result) error {
					if r.Verdict.Interference != measure.InterferenceNone {
						b.Errorf("%+v", r.Verdict)
					}
					return nil
				})
				took, bytes := time.Since(began), sum.Sent+sum.Received
				if err != nil || sum.Measured != 1 {
					b.Fatalf("%d measured, %v", sum.Measured, err)
				}
				if took > 15*time.Second || bytes > 400_000 {
					b.Errorf("%s and %d bytes", took, bytes)
				}
				b.ReportMetric(took.Seconds()/15, "of-15s")
				b.ReportMetric(float64(bytes)/400_000, "of-400kB")
				stop()
				w.Close()
			}
		})
	}
}

// TestLine: the lines wait more than they compute, so many are measured at
// a time, whatever the number of processors. Where packets are lost a device
// may be missed now and then, but not twice running, and seldom; nobody is
// taken for one, and none for another.
func TestLine(t *testing.T) {
	t.Parallel()
	var (
		wg              sync.WaitGroup
		lossy, missed   atomic.Int32
		limit           = make(chan struct{}, 6)
		measureAndJudge = func(t *testing.T, c lineCase, seed uint64) (measure.Verdict, string) {
			limit <- struct{}{}
			defer func() { <-limit }()
			m, v := c.run(t, seed)
			// The file judged again gives the same.
			b, err := json.Marshal(m)
			if err != nil {
				t.Error(err)
			}
			var back measure.Measurement
			if err := json.Unmarshal(b, &back); err != nil {
				t.Error(err)
			}
			x, _ := json.Marshal(v)
			y, _ := json.Marshal(judge.Judge(judge.Input{Measurement: &back}))
			if string(x) != string(y) {
				t.Errorf("judged again:\n%s\n%s", x, y)
			}
			return v, c.problem(v)
		}
	)
	for _, c := range lineCases {
		for i := range 2 * *lineSeeds {
			c, seed := c, uint64(1+i/2)
			c.loss = i % 2 * 20
			wg.Go(func() {
				t.Run(fmt.Sprintf("%s, %d per thousand lost, seed %d", c.name, c.loss, seed), func(t *testing.T) {
					v, p := measureAndJudge(t, c, seed)
					if c.loss > 0 {
						lossy.Add(1)
						if p != "" && len(c.want) > 0 && len(v.Findings) == 0 {
							t.Logf("missed: %s", p)
							missed.Add(1)
							v, p = measureAndJudge(t, c, seed+1000)
						}
					}
					if p != "" {
						t.Errorf("%s\n%+v", p, v.Findings)
					}
				})
			})
		}
	}
	wg.Wait()
	t.Logf("missed at first: %d of %d lines that lose packets", missed.Load(), lossy.Load())
	if missed.Load() > 1+lossy.Load()/50 {
		t.Errorf("missed at first: %d of %d", missed.Load(), lossy.Load())
	}
}

// TestRedirectedOverOneFamily: an answer from nobody over one family does not end
// the search for how near the other's resolvers are.
func TestRedirectedOverOneFamily(t *testing.T) {
	t.Parallel()
	plain := newLine(t, "hops = 4\n")
	at := func(role string, n int, f measure.Family) netip.Addr {
		for _, a := range plain.Sites(role)[n].AllAddresses() {
			if wire.FamilyOf(a) == f {
				return a
			}
		}
		t.Fatalf("%s has no %s", role, f)
		return netip.Addr{}
	}
	redirect := "[[client-network.box.rule]]\nlayer = \"dns\"\naddresses = [%q]\naction = \"dns-redirect\"\nto = %q\n"
	some := ""
	for i := range plain.Sites("doh") {
		some += fmt.Sprintf(redirect, at("doh", i, measure.IPv4), at("resolver", 0, measure.IPv4))
	}
	some += fmt.Sprintf(redirect, at("nowhere", 0, measure.IPv6), at("resolver", 0, measure.IPv6))
	w := newLine(t, "hops = 4\n[[client-network.box]]\nat = 2\n"+some)
	var m *measure.Measurement
	if _, err := check.Run(t.Context(), lineConfig(t, w), nil, func(r check.Result) error { m = r.Measurement; return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(m.Observations, func(o measure.Observation) bool {
		return o.Experiment == measure.ExpRedirect && o.Family == measure.IPv6 && o.DNS != nil && o.DNS.NoResolver && len(o.DNS.Replies) > 0
	}) {
		t.Fatal("nobody answered over IPv6")
	}
	asked := map[string]bool{}
	for _, o := range m.Observations {
		if o.Experiment == measure.ExpNearAnswer && o.Role == measure.RoleControl && o.Family == measure.IPv4 {
			asked[o.Remote] = true
		}
	}
	if len(asked) != 2 {
		t.Errorf("the distance of %d resolvers was compared, not of 2", len(asked))
	}
}

// TestNoUnlimitedSYN: where nothing takes connections to one of the ports, how
// near the other ends is not compared with it by a SYN that goes all the way.
func TestNoUnlimitedSYN(t *testing.T) {
	t.Parallel()
	w := newLine(t, "hops = 4\n[[client-network.box]]\nat = 2\n[[client-network.box.rule]]\nlayer = \"tcp\"\nports = [80]\naction = \"drop\"\n")
	cfg := lineConfig(t, w)
	cfg.Controls.Canaries = cfg.Controls.Canaries[:1]
	var m *measure.Measurement
	if _, err := check.Run(t.Context(), cfg, nil, func(r check.Result) error { m = r.Measurement; return nil }); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, o := range m.Observations {
		if o.Experiment != measure.ExpNearConnect {
			continue
		}
		if n++; o.TTL == 0 {
			t.Errorf("%s to %s without a limit", o.Role, o.Remote)
		}
	}
	if n == 0 {
		t.Error("no distance was measured")
	}
}

// TestSpareCanaries: those that were not needed are not taken for dead, and one
// takes the place of one that is.
func TestSpareCanaries(t *testing.T) {
	t.Parallel()
	spare := ""
	for i, network := range []string{"one", "two"} {
		spare += fmt.Sprintf("[[site]]\nname = \"canary-spare-%d.example\"\nnetwork = %q\nrole = \"canary\"\nhttp = \"same\"\nsize = 2000\n", i, network)
	}
	for _, dead := range []int{0, 1, 2} {
		t.Run(fmt.Sprint(dead, " dead"), func(t *testing.T) {
			t.Parallel()
			s, err := lab.Parse([]byte(fmt.Sprintf(lineWorld, "hops = 4\n", spare)))
			if err != nil {
				t.Fatal(err)
			}
			w, err := lab.New(s, lab.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			cfg := lineConfig(t, w)
			cfg.Only4 = true
			for i := range dead {
				cfg.Controls.Canaries[i].Addrs = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)})}
			}
			var m *measure.Measurement
			if _, err := check.Run(t.Context(), cfg, nil, func(r check.Result) error { m = r.Measurement; return nil }); err != nil {
				t.Fatal(err)
			}
			const want = 3
			for _, step := range []measure.Step{measure.StepTCP, measure.StepTLS} {
				i := slices.IndexFunc(m.Canaries, func(c measure.Canary) bool { return c.Step == step && c.Family == measure.IPv4 })
				if i < 0 || m.Canaries[i].Runs < want || m.Canaries[i].Failures != 0 || m.Canaries[i].Networks != want {
					t.Errorf("%s: %+v", step, m.Canaries)
				}
			}
		})
	}
}

// TestPlanOfLine: all that the line's measurement sends to is told before, and
// once.
func TestPlanOfLine(t *testing.T) {
	t.Parallel()
	c := lineCase{helper: "own"}
	m, _ := c.run(t, 1)
	w := newLine(t, "hops = 4\n")
	cfg := lineConfig(t, w)
	plan := check.Plan(cfg, nil)
	told := map[string]bool{}
	for _, text := range plan.Contacts {
		if told[text] {
			t.Errorf("%s is told twice", text)
		}
		told[text] = true
	}
	known := map[netip.Addr]bool{}
	for _, text := range plan.Contacts {
		if a, err := netip.ParseAddr(text); err == nil {
			known[a] = true
		} else if ap, err := netip.ParseAddrPort(text); err == nil {
			known[ap.Addr()] = true
		}
	}
	for _, site := range w.Scenario.Sites {
		if told[site.Name] || told["https://"+site.Name+"/dns-query"] || site.Name == "helper.example" {
			for _, a := range site.AllAddresses() {
				known[a] = true
			}
		}
	}
	known[cfg.Surroundings.Resolvers[0].Addr()] = true // the system's own
	for _, o := range m.Observations {
		if o.Failure == measure.Interrupted && o.Sent == 0 {
			continue // another resolver answered before it went anywhere
		}
		if ap, err := netip.ParseAddrPort(o.Remote); err != nil || !known[ap.Addr()] {
			t.Errorf("%s %s went to %s, of which nothing was told", o.ID, o.Experiment, o.Remote)
		}
	}
	if sent := m.BytesSent + m.BytesReceived; sent == 0 || sent > plan.Bytes {
		t.Errorf("%d bytes, and %d were told", sent, plan.Bytes)
	}
}

// TestAskExpired: a question whose TTL is used up on the way ends soon after
// a router has said so, and waits its whole time where none says so.
func TestAskExpired(t *testing.T) {
	t.Parallel()
	ask := func(client string, ttl int) *measure.Observation {
		w := newLine(t, client)
		cfg := lineConfig(t, w)
		return wire.Ask(t.Context(), w.Network(), wire.NewLog(time.Now(), nil), wire.Meta{}, wire.Question{Name: "canary-one.example", Type: "A",
			Server: cfg.Controls.Resolvers[0], Transport: "udp", TTL: ttl, Tries: 2, Timeout: 3 * time.Second, Expired: 200 * time.Millisecond}, &cfg.Trust)
	}
	if o := ask("hops = 4\n", 3); o.Failure != measure.GenericTimeout || !strings.Contains(o.Detail, "router said") || o.TookUS < 200_000 || o.TookUS > 2_500_000 {
		t.Errorf("%+v", o)
	}
	if o := ask("hops = 4\nsilent = [1, 2, 3, 4]\n", 3); o.Failure != measure.GenericTimeout || strings.Contains(o.Detail, "router said") || o.TookUS < 3_000_000 {
		t.Errorf("%+v", o)
	}
	if o := ask("hops = 4\n", 30); o.Failure != measure.NoFailure || len(o.DNS.Replies) != 1 {
		t.Errorf("%+v", o)
	}
}
