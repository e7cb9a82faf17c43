package helper_test

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"govah/helper"
	"govah/measure"
	"govah/wire"
	"govah/wire/host"
)

// network is this host with names and addresses of the test's own: what is
// dialled to a key of moved goes to the loopback address it maps to.
type network struct {
	wire.Network
	names map[string][]string
	moved map[netip.Addr]netip.AddrPort

	mu     sync.Mutex
	dialed []netip.Addr
}

func (n *network) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, s := range n.names[name] {
		out = append(out, netip.MustParseAddr(s))
	}
	if out == nil {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return out, nil
}

func (n *network) View() measure.View {
	v := n.Network.View()
	v.IPv4, v.IPv6 = true, true
	return v
}

func (n *network) Dial(ctx context.Context, spec wire.DialSpec) (wire.Conn, error) {
	n.mu.Lock()
	n.dialed = append(n.dialed, spec.Remote.Addr())
	n.mu.Unlock()
	if to, ok := n.moved[spec.Remote.Addr()]; ok {
		spec.Remote = to
	}
	return n.Network.Dial(ctx, spec)
}

func (n *network) contacted() []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.dialed)
}

// authority is a CA and a certificate of example.org from it.
func authority(t testing.TB) (roots *x509.CertPool, cert tls.Certificate) {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	caKey, leafKey := key(), key()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"example.org", "helper.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	parsed, _ := x509.ParseCertificate(caDER)
	roots.AddCert(parsed)
	return roots, tls.Certificate{Certificate: [][]byte{der, caDER}, PrivateKey: leafKey}
}

// origin is a site; it returns its loopback address.
func origin(t testing.TB, cert *tls.Certificate, h http.Handler) netip.AddrPort {
	t.Helper()
	l := listen(t)
	addr := netip.MustParseAddrPort(l.Addr().String())
	s := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	if cert != nil {
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*cert}}
		go s.ServeTLS(l, "", "")
	} else {
		go s.Serve(l)
	}
	t.Cleanup(func() { s.Close() })
	return addr
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start runs a helper and returns the URL for its clients.
func start(t testing.TB, cfg helper.Config, udp bool) (url string, addr netip.AddrPort) {
	t.Helper()
	if cfg.Network == nil {
		cfg.Network = host.New()
	}
	s, err := helper.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	where := helper.Listeners{TCP: []net.Listener{l}}
	if udp {
		pc, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		where.UDP = append(where.UDP, pc)
	}
	serve(t, s, where)
	return s.URL(l.Addr().String()), netip.MustParseAddrPort(l.Addr().String())
}

// serve lets a helper serve until the test ends.
func serve(t testing.TB, s *helper.Server, where helper.Listeners) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, where) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Serve did not end")
		}
	})
}

func ask(t testing.TB, url string, req measure.HelperRequest) (*measure.HelperReply, *measure.Observation) {
	t.Helper()
	return wire.AskHelper(t.Context(), host.New(), wire.NewLog(time.Now(), nil), wire.Meta{Role: measure.RoleHelper}, url, req, &wire.Trust{})
}

const page = "<html><title>The true page</title><body>It has some words that a hash can be made of.</body></html>"

func TestLook(t *testing.T) {
	roots, cert := authority(t)
	site := origin(t, &cert, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, page) }))
	public, closed := netip.MustParseAddr("93.184.215.14"), netip.MustParseAddr("93.184.215.15")
	url, _ := start(t, helper.Config{
		Network: &network{Network: host.New(), names: map[string][]string{"example.org": {public.String()}},
			moved: map[netip.Addr]netip.AddrPort{public: site, closed: netip.MustParseAddrPort("127.0.0.2:1")}},
		Roots: roots, Version: "test",
		Locate: func(a netip.Addr) (int, string) { return 64500, "NL" },
	}, false)
	before := time.Now().UnixMilli()
	reply, o := ask(t, url, measure.HelperRequest{URL: "https://example.org/", Addresses: []string{closed.String(), public.String()}})
	if reply == nil {
		t.Fatalf("no reply: %s (%s)", o.Failure, o.Detail)
	}
	if o.Step != measure.StepHelper || o.Failure != measure.NoFailure || o.Sent == 0 || o.Received == 0 || o.Remote == "" {
		t.Errorf("the exchange was recorded as %+v", o)
	}
	if reply.ASN != 64500 || reply.Country != "NL" || reply.Version != "test" || reply.TimeMS < before || reply.TimeMS > time.Now().UnixMilli() {
		t.Errorf("reply = %+v", reply)
	}
	by := map[measure.Step][]measure.Observation{}
	for _, o := range reply.Observations {
		by[o.Step] = append(by[o.Step], o)
		if o.Role != measure.RoleHelper || !strings.HasPrefix(o.ID, "h") {
			t.Errorf("observation %+v is not a helper's", o)
		}
	}
	if d := by[measure.StepDNS]; len(d) != 1 || d[0].DNS.Name != "example.org" || d[0].DNS.Replies[0].Answers[0].Value != public.String() {
		t.Errorf("dns: %+v", d)
	}
	failures := map[string]measure.Failure{}
	for _, o := range by[measure.StepTCP] {
		failures[netip.MustParseAddrPort(o.Remote).Addr().String()] = o.Failure
	}
	if len(failures) != 2 || failures[public.String()] != measure.NoFailure || failures[closed.String()] != measure.ConnectionRefused {
		t.Errorf("tcp: %v", failures)
	}
	leaf := sha256.Sum256(cert.Certificate[0])
	if s := by[measure.StepTLS]; len(s) != 1 || s[0].TLS.Public != measure.VerifiedOK || s[0].SNI != "example.org" || s[0].TLS.Chain[0] != hex.EncodeToString(leaf[:]) {
		t.Errorf("tls: %+v", s)
	}
	body := sha256.Sum256([]byte(page))
	if h := by[measure.StepHTTP]; len(h) != 1 || h[0].HTTP.Status != 200 || h[0].HTTP.Title != "The true page" || !h[0].HTTP.Authenticated ||
		h[0].HTTP.BodySHA256 != hex.EncodeToString(body[:]) || h[0].HTTP.Simhash == "" || h[0].After != by[measure.StepTLS][0].ID {
		t.Errorf("http: %+v", h)
	}

	l := wire.NewLog(time.Now().Add(-time.Second), func(string) int { return 64501 })
	own := l.Begin(measure.StepTCP, wire.Meta{})
	l.End(own)
	l.Merge(url, o, reply)
	merged := l.Observations()
	ids := map[string]bool{}
	for _, o := range merged {
		if ids[o.ID] {
			t.Errorf("the id %s is not unique", o.ID)
		}
		ids[o.ID] = true
	}
	for _, o := range merged[1:] {
		if o.Helper != url || o.Role != measure.RoleHelper || o.After != "" && !ids[o.After] || o.Remote != "" && o.ASN != 64501 {
			t.Errorf("merged: %+v", o)
		}
	}
	if len(merged) != 1+len(reply.Observations) {
		t.Errorf("%d of %d observations merged", len(merged)-1, len(reply.Observations))
	}
	if sent, received := l.Bytes(); sent != 0 || received != 0 {
		t.Errorf("the helper's bytes were counted as this device's: %d, %d", sent, received)
	}
}

// TestRefusal: nothing reserved is contacted: not by URL, not from the
// client's list, not by an answer of the DNS (rebinding), not by a redirect.
func TestRefusal(t *testing.T) {
	var location atomic.Value
	location.Store("")
	site := origin(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to := location.Load().(string); to != "" && r.URL.Path == "/" {
			http.Redirect(w, r, to, http.StatusFound)
			return
		}
		io.WriteString(w, page)
	}))
	public := netip.MustParseAddr("93.184.215.14")
	n := &network{Network: host.New(), names: map[string][]string{
		"example.org": {public.String()}, "rebound.example": {"10.0.0.5", "::1"}, "half.example": {"192.168.1.1", public.String()},
		"metadata.example": {"169.254.169.254"}, "nat64.example": {"64:ff9b::a00:1"},
	}, moved: map[netip.Addr]netip.AddrPort{public: site}}
	url, _ := start(t, helper.Config{Network: n, Own: []netip.Addr{netip.MustParseAddr("198.41.0.4")}}, false)

	for _, c := range []struct {
		name, url, location string
		addresses           []string
		fetched             bool
	}{
		{name: "a public site", url: "http://example.org/", fetched: true},
		{name: "loopback", url: "http://127.0.0.1/"},
		{name: "mapped", url: "http://[::ffff:127.0.0.1]/"},
		{name: "its own", url: "http://198.41.0.4/"},
		{name: "rebinding", url: "http://rebound.example/"},
		{name: "half", url: "http://half.example/", fetched: true},
		{name: "metadata", url: "http://metadata.example/"},
		{name: "nat64", url: "http://nat64.example/"},
		{name: "client's list", url: "http://example.org/", addresses: []string{"10.1.2.3", "fd00::1", "2002:7f00:1::1", "64:ff9b::7f00:1", "100.64.0.1"}, fetched: true},
		{name: "redirect to an address", url: "http://example.org/", location: "http://127.0.0.1:80/", fetched: true},
		{name: "redirect to metadata", url: "http://example.org/", location: "http://169.254.169.254/latest/", fetched: true},
		{name: "redirect to a name", url: "http://example.org/", location: "http://rebound.example/", fetched: true},
		{name: "redirect to NAT64", url: "http://example.org/", location: "http://[64:ff9b::7f00:1]/", fetched: true},
		{name: "redirect to a port", url: "http://example.org/", location: "http://example.org:22/", fetched: true},
		{name: "redirect to a file", url: "http://example.org/", location: "file:///etc/passwd", fetched: true},
		{name: "redirect to itself", url: "http://example.org/", location: "/", fetched: true},
		{name: "port", url: "http://example.org:22/"},
		{name: "mail delivery", url: "tcp://example.org:25"},
	} {
		t.Run(c.name, func(t *testing.T) {
			location.Store(c.location)
			reply, o := ask(t, url, measure.HelperRequest{URL: c.url, Addresses: c.addresses})
			if reply == nil {
				t.Fatalf("no reply: %s (%s)", o.Failure, o.Detail)
			}
			for _, a := range n.contacted() {
				if a != public {
					t.Fatalf("contacted %v", a)
				}
			}
			pages := 0
			if text, _ := json.Marshal(reply.Observations); bytes.Contains(text, []byte("10.0.0.5")) || bytes.Contains(text, []byte("192.168.1.1")) {
				t.Errorf("the reply tells private addresses that the helper's resolver knows: %s", text)
			}
			for _, o := range reply.Observations {
				if o.Step == measure.StepHTTP && o.Failure == measure.NoFailure {
					pages++
				}
				if ap, err := netip.ParseAddrPort(o.Remote); o.Step == measure.StepTCP && (err != nil || ap.Addr() != public) {
					t.Errorf("a refused address has the observation %+v: it would pass for an unreachable one", o)
				}
			}
			if (pages > 0) != c.fetched || pages > 6 {
				t.Errorf("%d pages fetched, want any: %v", pages, c.fetched)
			}
			if !c.fetched && reply.Failure == measure.NoFailure {
				t.Errorf("nothing says that the helper refused: %+v", reply)
			}
		})
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	url, addr := start(t, helper.Config{}, false)
	c := client("127.0.0.1")
	post := func(path, body string) int {
		r, err := c.Post("https://"+addr.String()+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return r.StatusCode
	}
	for _, c := range []struct {
		name, body string
		want       int
	}{
		{"not JSON", "hello", 400},
		{"no schema", `{"url":"http://example.org/"}`, 400},
		{"too many addresses", `{"schema":1,"url":"http://example.org/","addresses":["` + strings.Repeat(`1.1.1.1","`, 8) + `1.1.1.1"]}`, 400},
		{"long URL", `{"schema":1,"url":"http://example.org/` + strings.Repeat("a", 3000) + `"}`, 400},
		{"long", `{"schema":1,"nonce":"` + strings.Repeat("a", 20<<10) + `"}`, 400},
		{"only the time", `{"schema":1,"nonce":"n","wants":["time"]}`, 200},
		{"a URL that is none", `{"schema":1,"url":"gopher://example.org/"}`, 200},
	} {
		if got := post("/v1/look", c.body); got != c.want {
			t.Errorf("%s: status %d, want %d", c.name, got, c.want)
		}
	}
	if got := post("/v1/received", `{"schema":1,"marker":"00"}`); got != 400 {
		t.Errorf("a short marker: status %d", got)
	}
	reply, o := ask(t, url, measure.HelperRequest{Wants: []string{"time"}})
	if reply == nil || reply.TimeMS == 0 || len(reply.Observations) != 0 {
		t.Errorf("asked for the time: %+v, %+v", reply, o)
	}
}

// client is an ordinary HTTPS client that trusts any certificate and sends sni.
func client(sni string) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: sni}, DisableCompression: true, ForceAttemptHTTP2: true}}
}

func TestPages(t *testing.T) {
	_, addr := start(t, helper.Config{Limits: helper.Limits{BulkBytes: 1 << 20}}, false)
	get := func(url, host string) (*http.Response, []byte) {
		t.Helper()
		req, err := http.NewRequest("GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		c := client("blocked.example")
		defer c.CloseIdleConnections()
		r, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r, body
	}
	for _, scheme := range []string{"http", "https"} {
		base := scheme + "://" + addr.String()
		r, body := get(base+"/", "whatever.example")
		if r.StatusCode != 200 || bytes.Contains(bytes.ToLower(body), []byte("govah")) || len(r.Header["Server"]) > 0 {
			t.Errorf("%s: the front page is %d %v %s", scheme, r.StatusCode, r.Header, body)
		}
		_, fresh := get(base+"/fresh?1", "blocked.example")
		if _, again := get(base+"/fresh?1", "blocked.example"); len(fresh) == 0 || string(fresh) == string(again) {
			t.Errorf("%s: /fresh is %q twice", scheme, fresh)
		}
		_, body = get(base+"/plain", "blocked.example")
		if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != measure.HelperPlainSHA256 || len(body) != measure.HelperPlainBytes {
			t.Errorf("%s: /plain has %d bytes with hash %x", scheme, len(body), sum)
		}
		_, body = get(base+"/bulk?bytes=300000", "blocked.example")
		var z bytes.Buffer
		w, _ := flate.NewWriter(&z, flate.BestCompression)
		w.Write(body)
		w.Close()
		if len(body) != 300000 || z.Len() < len(body) {
			t.Errorf("%s: /bulk gave %d bytes that compress to %d", scheme, len(body), z.Len())
		}
		if _, again := get(base+"/bulk?bytes=300000", "control.example"); !bytes.Equal(body, again) {
			t.Errorf("%s: /bulk gives other bytes each time", scheme)
		}
		if _, body = get(base+"/bulk?bytes=99999999999", "x.example"); len(body) != 1<<20 {
			t.Errorf("%s: /bulk gave %d bytes, the limit is %d", scheme, len(body), 1<<20)
		}
		for _, path := range []string{"/bulk", "/bulk?bytes=-1", "/bulk?bytes=x", "/v1/look", "/v1/received", "/none"} {
			if r, body := get(base+path, "x.example"); r.StatusCode != 404 || string(body) != "404 page not found\n" {
				t.Errorf("%s: GET %s is %d %q", scheme, path, r.StatusCode, body)
			}
		}
	}
	// Over plain HTTP nothing is looked at: the question would be readable.
	r, err := http.Post("http://"+addr.String()+"/v1/look", "application/json", strings.NewReader(`{"schema":1}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 404 {
		t.Errorf("POST over plain HTTP: status %d", r.StatusCode)
	}
}

func TestEchoGivesTheVeryBytes(t *testing.T) {
	_, addr := start(t, helper.Config{}, false)
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	head := "GET /echo HTTP/1.1\r\nhOsT: blocked.example\r\nx-oDd:  two  blanks\r\nX-Odd: again\r\n\r\n"
	for _, part := range []string{head[:3], head[3:30], head[30:]} {
		io.WriteString(c, part)
		time.Sleep(10 * time.Millisecond)
	}
	c.SetDeadline(time.Now().Add(5 * time.Second))
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(all), "\r\n\r\n")
	if body != head {
		t.Errorf("echo of %q is %q", head, body)
	}
}

func TestFirstBytes(t *testing.T) {
	url, addr := start(t, helper.Config{}, false)
	for _, begin := range []string{"SSH-2.0-OpenSSH_9.6\r\n", "\x13BitTorrent protocol", "\x00\x0e\x38", "\x16\xfe\xfd", "GEX", "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 9999\r\n\r\n"} {
		marker := make([]byte, 16)
		rand.Read(marker)
		sent := append([]byte(begin), marker...)
		sent = append(sent, bytes.Repeat([]byte{7}, 500)...)
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		c.Write(sent[:len(sent)-100])
		time.Sleep(100 * time.Millisecond)
		if got := received(t, url, marker); got.Bytes != int64(len(sent)-100) {
			t.Errorf("%q: received %+v while the connection is open", begin, got)
		}
		c.Write(sent[len(sent)-100:])
		c.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(c); err != nil || len(got) != 0 && !strings.HasPrefix(begin, "POST") {
			t.Errorf("%q was answered with %q, %v", begin, got, err)
		}
		c.Close()
		got := received(t, url, marker)
		sum := sha256.Sum256(sent)
		if got.Connections != 1 || got.Bytes != int64(len(sent)) || got.SHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("%q: received %+v, sent %d bytes", begin, got, len(sent))
		}
	}
	if got := received(t, url, make([]byte, 16)); got.Connections != 0 {
		t.Errorf("a marker that nobody sent: %+v", got)
	}
	// Who gets a page is not remembered.
	marker := []byte("sixteen letters!")
	r, err := http.Get("http://" + addr.String() + "/" + string(marker[:15]) + "%21?" + string(marker))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if got := received(t, url, marker); got.Connections != 0 {
		t.Errorf("a GET was remembered: %+v", got)
	}
}

// TestArrived: whoever was the target says what came of a connection, by its
// marker, or by the client's port if nothing came.
func TestArrived(t *testing.T) {
	url, addr := start(t, helper.Config{SYNTTL: func(net.Conn) int { return 57 }}, false)
	hello, err := wire.NewHello("chrome-small", 1)
	if err != nil {
		t.Fatal(err)
	}
	made := func(b []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	cookied := func(marker []byte) []byte { return made(wire.HTTPPayload("blocked.example", "/", marker)) }
	random := func(marker []byte) []byte { return made(wire.TLSPayload(hello, "blocked.example", marker)) }
	for _, c := range []struct {
		name  string
		bytes func(marker []byte) []byte
		end   string
	}{{"tls, reset", random, "reset"}, {"tls, open", random, ""}, {"http, closed", cookied, "closed"}, {"http, reset", cookied, "reset"},
		{"nothing, reset", nil, "reset"}, {"nothing, closed", nil, "closed"}, {"nothing, open", nil, ""}} {
		t.Run(c.name, func(t *testing.T) {
			marker := make([]byte, 16)
			rand.Read(marker)
			conn, err := net.Dial("tcp", addr.String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			port := conn.LocalAddr().(*net.TCPAddr).Port
			want := measure.Arrival{Port: port, SYNTTL: 57, Ended: c.end}
			if c.bytes != nil {
				b := c.bytes(marker)
				conn.Write(b)
				want.Marked, want.Bytes = true, int64(len(b))
				conn.SetReadDeadline(time.Now().Add(10 * time.Second))
				if _, err := conn.Read(make([]byte, 10)); err != nil { // so it was read
					t.Fatal(err)
				}
			}
			switch c.end {
			case "reset":
				conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			case "closed":
				conn.(*net.TCPConn).CloseWrite()
			}
			var got *measure.HelperArrived
			var o *measure.Observation
			for range 50 { // until the helper has seen the end
				got, o = wire.AskArrived(t.Context(), host.New(), wire.NewLog(time.Now(), nil), wire.Meta{}, url, addr.Addr(), marker, port, &wire.Trust{})
				if got == nil {
					t.Fatalf("%s: %s", o.Failure, o.Detail)
				}
				if len(got.List) == 1 && got.List[0].Ended == c.end {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			if len(got.List) != 1 {
				t.Fatalf("%d connections", len(got.List))
			}
			a := got.List[0]
			if (a.FirstUS > 0) != want.Marked || (a.EndedUS > 0) != (c.end != "") || a.AgeUS <= 0 || a.AgeUS < a.EndedUS {
				t.Errorf("times: %+v", a)
			}
			if a.FirstUS, a.EndedUS, a.AgeUS = 0, 0, 0; a != want {
				t.Errorf("got %+v, want %+v", a, want)
			}
			// Without the port nobody learns of connections without a marker.
			none, _ := wire.AskArrived(t.Context(), host.New(), wire.NewLog(time.Now(), nil), wire.Meta{}, url, addr.Addr(), make([]byte, 16), 0, &wire.Trust{})
			if none == nil || len(none.List) != 0 {
				t.Errorf("a stranger's connections: %+v", none)
			}
		})
	}
	for _, bad := range []string{`{"marker":"00"}`, `{`, `{"marker":"zz112233445566778899aabbccddeeff"}`} {
		r, err := http.DefaultTransport.(*http.Transport).Clone(), error(nil)
		r.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		answer, err := (&http.Client{Transport: r}).Post("https://"+addr.String()+"/v1/arrived", "application/json", strings.NewReader(bad))
		if err != nil {
			t.Fatal(err)
		}
		if answer.Body.Close(); answer.StatusCode != 400 {
			t.Errorf("%s: status %d", bad, answer.StatusCode)
		}
	}
}

func received(t *testing.T, url string, marker []byte) measure.HelperReceived {
	t.Helper()
	got, o := wire.AskReceived(t.Context(), host.New(), wire.NewLog(time.Now(), nil), wire.Meta{}, url, hex.EncodeToString(marker), &wire.Trust{})
	if got == nil {
		t.Fatalf("%s: %s", o.Failure, o.Detail)
	}
	return *got
}

func TestHTTP3UnderAnyName(t *testing.T) {
	_, addr := start(t, helper.Config{}, true)
	l := wire.NewLog(time.Now(), nil)
	o := wire.QUIC(t.Context(), host.New(), l, wire.Meta{}, wire.QUICSpec{Remote: addr, SNI: "blocked.example",
		Request: &wire.Request{URL: "https://blocked.example/plain"}}, &wire.Trust{})
	if o.HTTP == nil || o.HTTP.Status != 200 || o.HTTP.BodySHA256 != measure.HelperPlainSHA256 {
		t.Errorf("HTTP/3: %+v %+v", o, o.HTTP)
	}
	r, err := client("x.example").Get("https://" + addr.String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if want := fmt.Sprintf(`h3=":%d"`, addr.Port()); !strings.HasPrefix(r.Header.Get("Alt-Svc"), want) {
		t.Errorf("Alt-Svc %q does not advertise %s", r.Header.Get("Alt-Svc"), want)
	}
}

func TestWhoseCertificate(t *testing.T) {
	roots, cert := authority(t)
	pinned, addr := start(t, helper.Config{}, false)
	named, namedAddr := start(t, helper.Config{Certificate: &cert}, false)
	if strings.Contains(named, "#") {
		t.Errorf("the URL of a helper with a certificate of its own name has a pin: %s", named)
	}
	n := &network{Network: host.New(), names: map[string][]string{"helper.example": {"127.0.0.1"}, "other.example": {"127.0.0.1"}}}
	other := strings.Repeat("ab", 32)
	for _, c := range []struct {
		name, url string
		want      measure.Failure
	}{
		{"pin", pinned, ""},
		{"no pin", "https://" + addr.String() + "/", measure.TLSUnknownAuthority},
		{"another pin", "https://" + addr.String() + "/#sha256=" + other, measure.TLSUnknownAuthority},
		{"name", fmt.Sprintf("https://helper.example:%d/", namedAddr.Port()), ""},
		{"another name", fmt.Sprintf("https://other.example:%d/", namedAddr.Port()), measure.TLSInvalidHostname},
		{"name and another pin", fmt.Sprintf("https://helper.example:%d/#sha256=%s", namedAddr.Port(), other), measure.TLSUnknownAuthority},
	} {
		t.Run(c.name, func(t *testing.T) {
			reply, o := wire.AskHelper(t.Context(), n, wire.NewLog(time.Now(), nil), wire.Meta{}, c.url, measure.HelperRequest{}, &wire.Trust{Public: roots})
			if o.Failure != c.want || (reply != nil) != (c.want == "") {
				t.Errorf("failure %q (%s), want %q", o.Failure, o.Detail, c.want)
			}
			if c.want != "" && o.HTTP != nil {
				t.Error("something was asked of a server that is not proven to be the helper")
			}
		})
	}
	for _, bad := range []string{"", "http://127.0.0.1/", "https:///", "https://127.0.0.1:99999/", "https://127.0.0.1/#sha256=12", "https://127.0.0.1/#md5=12", "https://u:p@127.0.0.1/"} {
		if reply, o := ask(t, bad, measure.HelperRequest{}); reply != nil || o.Failure == measure.NoFailure {
			t.Errorf("%q was taken for a helper's URL", bad)
		}
	}
}

func TestLimits(t *testing.T) {
	hang := make(chan struct{})
	site := origin(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			<-hang
		}
		w.Header().Set("Content-Type", "text/html")
		for range 100 {
			w.Write(make([]byte, 10<<10))
		}
	}))
	defer close(hang)
	public := netip.MustParseAddr("93.184.215.14")
	n := &network{Network: host.New(), moved: map[netip.Addr]netip.AddrPort{public: site}}
	cfg := helper.Config{Network: n, Limits: helper.Limits{LooksPerMinute: 8, LookTime: time.Second, BodyBytes: 5000, ClientBytes: 1 << 20}}
	url, addr := start(t, cfg, false)
	t.Run("body", func(t *testing.T) {
		reply, o := ask(t, url, measure.HelperRequest{URL: "http://93.184.215.14/"})
		if reply == nil {
			t.Fatal(o.Detail)
		}
		h := reply.Observations[len(reply.Observations)-1].HTTP
		if h == nil || h.BodyBytes != 5000 || !h.BodyTruncated {
			t.Errorf("http: %+v", h)
		}
	})
	t.Run("time", func(t *testing.T) {
		started := time.Now()
		reply, o := ask(t, url, measure.HelperRequest{URL: "http://93.184.215.14/hang"})
		if reply == nil || time.Since(started) > 5*time.Second {
			t.Fatalf("a look at a site that hangs took %v: %+v", time.Since(started), o)
		}
		for _, o := range reply.Observations {
			if o.Failure == measure.Interrupted || o.Step == measure.StepHTTP {
				t.Errorf("a step that the helper itself cut short is in the reply: %+v", o)
			}
		}
		if reply.Detail == "" {
			t.Error("nothing says that the look was cut short")
		}
	})
	t.Run("bytes", func(t *testing.T) {
		status := 0
		for range 5 {
			r, err := client("x.example").Get("https://" + addr.String() + "/bulk?bytes=300000")
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
			status = r.StatusCode
		}
		if status != 429 {
			t.Errorf("the fifth stream of 300 kB has status %d; the client may have 1 MiB", status)
		}
	})
	t.Run("rate", func(t *testing.T) {
		refused, answered := 0, 0
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				reply, o := ask(t, url, measure.HelperRequest{})
				mu.Lock()
				defer mu.Unlock()
				if reply != nil {
					answered++
				} else if o.HTTP != nil && o.HTTP.Status == 429 {
					refused++
				}
			})
		}
		wg.Wait()
		// A burst of 8 less the two above, and at most one more in the meantime.
		if answered < 6 || answered > 7 || answered+refused != 16 {
			t.Errorf("%d answered and %d refused of 16 at 8 a minute", answered, refused)
		}
	})
}

func TestConcurrency(t *testing.T) {
	roots, cert := authority(t)
	site := origin(t, &cert, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, page+r.URL.Path) }))
	public := netip.MustParseAddr("93.184.215.14")
	url, _ := start(t, helper.Config{
		Network: &network{Network: host.New(), names: map[string][]string{"example.org": {public.String()}},
			moved: map[netip.Addr]netip.AddrPort{public: site}},
		Roots: roots,
	}, false)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			want := fmt.Sprintf("/%d", i)
			reply, o := ask(t, url, measure.HelperRequest{URL: "https://example.org" + want})
			if reply == nil {
				t.Errorf("%s: %s", o.Failure, o.Detail)
				return
			}
			sum := sha256.Sum256([]byte(page + want))
			for _, o := range reply.Observations {
				if o.HTTP != nil && o.HTTP.BodySHA256 == hex.EncodeToString(sum[:]) {
					return
				}
			}
			t.Errorf("%s: not its own page in %+v", want, reply.Observations)
		})
	}
	wg.Wait()
}

// TestNothingIsLeft: whatever connections were open, Serve ends with all its
// goroutines.
func TestNothingIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 2 {
		s, err := helper.New(helper.Config{Network: host.New()})
		if err != nil {
			t.Fatal(err)
		}
		l := listen(t)
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Serve(ctx, helper.Listeners{TCP: []net.Listener{l}, UDP: []net.PacketConn{pc}}) }()
		for _, first := range []string{"", "\x16", "\x16\x03\x01", "GET / HTTP/1.1\r\n", "junk"} {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, first)
		}
		if reply, o := ask(t, s.URL(l.Addr().String()), measure.HelperRequest{}); reply == nil {
			t.Errorf("%s: %s", o.Failure, o.Detail)
		}
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("Serve did not end")
		}
	}
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	buf := make([]byte, 64<<10)
	t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
}

// liar is a TLS server that answers every request with the same bytes.
func liar(t *testing.T, answer func(nonce string, w http.ResponseWriter)) string {
	t.Helper()
	_, cert := authority(t)
	addr := origin(t, &cert, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req measure.HelperRequest
		json.NewDecoder(r.Body).Decode(&req)
		answer(req.Nonce, w)
	}))
	leaf, _ := x509.ParseCertificate(cert.Certificate[0])
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return fmt.Sprintf("https://%s/#sha256=%x", addr, sum)
}

func TestLyingHelper(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(nonce string, w http.ResponseWriter)
	}{
		{"nothing", func(string, http.ResponseWriter) {}},
		{"not JSON", func(_ string, w http.ResponseWriter) { io.WriteString(w, "<html>") }},
		{"another nonce", func(_ string, w http.ResponseWriter) { io.WriteString(w, `{"schema":1,"nonce":"x","observations":[]}`) }},
		{"an error", func(_ string, w http.ResponseWriter) { http.Error(w, "no", 500) }},
		{"endless", func(nonce string, w http.ResponseWriter) {
			io.WriteString(w, `{"schema":1,"nonce":"`+nonce+`","detail":"`)
			for range 300 {
				if _, err := io.WriteString(w, strings.Repeat("a", 16<<10)); err != nil {
					return
				}
			}
		}},
		{"a bomb", func(nonce string, w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "deflate")
			z, _ := flate.NewWriter(w, 9)
			for range 1000 {
				z.Write(make([]byte, 64<<10))
			}
			z.Close()
		}},
		{"deep", func(nonce string, w http.ResponseWriter) {
			io.WriteString(w, `{"schema":1,"nonce":"`+nonce+`","observations":`+strings.Repeat("[", 200000))
		}},
		{"many", func(nonce string, w http.ResponseWriter) {
			io.WriteString(w, `{"schema":1,"nonce":"`+nonce+`","observations":[{}`+strings.Repeat(",{}", 5000)+`]}`)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			started := time.Now()
			reply, o := ask(t, liar(t, c.answer), measure.HelperRequest{URL: "https://example.org/"})
			if reply != nil || o.Failure == measure.NoFailure {
				t.Errorf("%+v was believed", reply)
			}
			if took := time.Since(started); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	t.Run("a redirect is not followed", func(t *testing.T) {
		reply, o := ask(t, liar(t, func(nonce string, w http.ResponseWriter) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(307)
			io.WriteString(w, `{"schema":1,"nonce":"`+nonce+`","observations":[]}`)
		}), measure.HelperRequest{})
		if reply != nil || o.HTTP.Status != 307 {
			t.Errorf("%+v, %+v", reply, o)
		}
	})
}
