package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"govah/wire"
)

// trouble is a world with each kind of site once.
const trouble = `
[[site]]
name = "default.example"
[[site]]
name = "also.example"
shares = "default.example"
[[site]]
name = "alerts.example"
unknown = "alert"
[[site]]
name = "resets.example"
unknown = "reset"
[[site]]
name = "closes.example"
unknown = "close"
[[site]]
name = "expired.example"
cert = "expired"
[[site]]
name = "self-signed.example"
cert = "self-signed"
[[site]]
name = "wrong-name.example"
cert = "wrong-name"
[[site]]
name = "incomplete.example"
cert = "missing-intermediate"
[[site]]
name = "old.example"
tls12 = true
[[site]]
name = "blocks.example"
blocks = ["NL"]
[[site]]
name = "blocks-451.example"
blocks = ["NL"]
refuses = "451"
[[site]]
name = "blocks-hard.example"
blocks = ["NL"]
refuses = "reset"
[[site]]
name = "refuses-us.example"
blocks-asns = [64999]
[[site]]
name = "refused.example"
dead = "refused"
[[site]]
name = "silent.example"
dead = "silent"
[[site]]
name = "broken6.example"
broken-ipv6 = true
[[site]]
name = "no6.example"
no-ipv6 = true
[[site]]
name = "language.example"
varies = "language"
[[site]]
name = "random.example"
varies = "random"
[[site]]
name = "moved.example"
redirect = "https://www.moved.example/"
[[site]]
name = "captcha.example"
page = "captcha"
status = 403
[[site]]
name = "large.example"
size = 300000
[[site]]
name = "slow.example"
slow = "300ms"
[[site]]
name = "ssh.example"
ports = [22]
banner = "SSH-2.0-lab"
https = "none"
http = "closed"
[[site]]
name = "check.example"
role = "captive-check"
http = "same"
`

// visit fetches https://name/ as a browser would that trusts roots.
func visit(t *testing.T, n wire.Network, at netip.AddrPort, sni, host string, config *tls.Config) (status int, body string, header http.Header, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	c, err := n.Dial(ctx, wire.DialSpec{Flow: wire.Flow{Remote: at}})
	if err != nil {
		return 0, "", nil, err
	}
	defer c.Abort()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	config = config.Clone()
	config.ServerName = sni
	tc := tls.Client(c, config)
	if err := tc.HandshakeContext(ctx); err != nil {
		return 0, "", nil, err
	}
	return request(tc, host)
}

func request(c net.Conn, host string) (int, string, http.Header, error) {
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n"); err != nil {
		return 0, "", nil, err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, "", nil, err
	}
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), res.Header, err
}

func TestSites(t *testing.T) {
	w := world(t, small("", trouble), Options{})
	n := w.Network()
	trusting := &tls.Config{RootCAs: w.Public(), Time: w.Now}
	v4 := func(name string) netip.AddrPort { a := w.sites[name].v4[0]; return netip.AddrPortFrom(a, 443) }
	at := func(name string) (int, string, http.Header, error) {
		return visit(t, n, v4(name), name, name, trusting)
	}
	for name, want := range map[string]int{"default.example": 200, "also.example": 200, "alerts.example": 200, "resets.example": 200, "closes.example": 200,
		"old.example": 200, "blocks.example": 403, "blocks-451.example": 451, "refuses-us.example": 200, "moved.example": 302, "captcha.example": 403,
		"large.example": 200, "slow.example": 200, "no6.example": 200, "broken6.example": 200} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			status, body, header, err := at(name)
			if err != nil || status != want {
				t.Fatalf("status %d, %v; want %d", status, err, want)
			}
			switch name {
			case "large.example":
				if len(body) < 299_000 {
					t.Errorf("%d bytes", len(body))
				}
			case "moved.example":
				if header.Get("Location") != "https://www.moved.example/" {
					t.Errorf("%v", header)
				}
			case "slow.example":
				if time.Since(began) < 300*time.Millisecond {
					t.Errorf("after %s", time.Since(began))
				}
			case "captcha.example":
				if !strings.Contains(body, "CAPTCHA") {
					t.Errorf("%q", body)
				}
			}
		})
	}
	t.Run("unknown names", func(t *testing.T) {
		blind := &tls.Config{InsecureSkipVerify: true}
		for name, check := range map[string]func(error) bool{
			"default.example": func(err error) bool { return err == nil },
			"alerts.example":  func(err error) bool { return err != nil && strings.Contains(err.Error(), "unrecognized name") },
			"resets.example":  func(err error) bool { return errors.Is(err, syscall.ECONNRESET) },
			"closes.example":  func(err error) bool { return errors.Is(err, io.EOF) },
		} {
			if _, _, _, err := visit(t, n, v4(name), "no-such.example", name, blind); !check(err) {
				t.Errorf("%s, asked for another name: %v", name, err)
			}
		}
	})
	t.Run("certificates", func(t *testing.T) {
		for name, want := range map[string]func(error) bool{
			"expired.example": func(err error) bool {
				var e x509.CertificateInvalidError
				return errors.As(err, &e) && e.Reason == x509.Expired
			},
			"self-signed.example": func(err error) bool { var e x509.UnknownAuthorityError; return errors.As(err, &e) },
			"wrong-name.example":  func(err error) bool { var e x509.HostnameError; return errors.As(err, &e) },
			"incomplete.example":  func(err error) bool { var e x509.UnknownAuthorityError; return errors.As(err, &e) },
		} {
			if _, _, _, err := at(name); !want(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		modern := trusting.Clone()
		modern.MinVersion = tls.VersionTLS13
		if _, _, _, err := visit(t, n, v4("old.example"), "old.example", "old.example", modern); err == nil {
			t.Error("old.example speaks TLS 1.3")
		}
	})
	t.Run("dead", func(t *testing.T) {
		if _, _, _, err := at("refused.example"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("refused.example: %v", err)
		}
		if _, _, _, err := at("blocks-hard.example"); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("blocks-hard.example: %v", err)
		}
		six := netip.AddrPortFrom(w.sites["broken6.example"].v6[0], 443)
		for _, remote := range []netip.AddrPort{v4("silent.example"), six, v4("ssh.example")} {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			if c, err := n.Dial(ctx, wire.DialSpec{Flow: wire.Flow{Remote: remote}}); err == nil {
				c.Abort()
				t.Errorf("%s connects", remote)
			}
			cancel()
		}
	})
	t.Run("who asks", func(t *testing.T) {
		// The same site from a host in the hoster's network, in Germany.
		m, err := w.Host("default.example")
		if err != nil {
			t.Fatal(err)
		}
		if status, _, _, err := visit(t, m.Network(), v4("blocks.example"), "blocks.example", "blocks.example", trusting); err != nil || status != 200 {
			t.Errorf("blocks.example from elsewhere: %d, %v", status, err)
		}
		_, here, _, _ := at("language.example")
		_, again, _, _ := at("language.example")
		_, there, _, _ := visit(t, m.Network(), v4("language.example"), "language.example", "language.example", trusting)
		if here == there || here != again || here == "" {
			t.Error("language.example does not depend on the visitor's country alone")
		}
		if _, a, _, _ := at("random.example"); a == "" {
			t.Error("no page")
		} else if _, b, _, _ := at("random.example"); a == b {
			t.Error("random.example is the same twice")
		}
	})
	t.Run("plain", func(t *testing.T) {
		if body := get(t, n, netip.AddrPortFrom(v4("default.example").Addr(), 80), "default.example"); !strings.Contains(body, "Location: https://default.example/") {
			t.Errorf("%.200q", body)
		}
		if body := get(t, n, netip.AddrPortFrom(v4("check.example").Addr(), 80), "check.example"); !strings.HasPrefix(body, "HTTP/1.1 204") {
			t.Errorf("%.200q", body)
		}
		c, err := n.Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: netip.AddrPortFrom(v4("ssh.example").Addr(), 22)}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Abort()
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		if line, _, err := bufio.NewReader(c).ReadLine(); string(line) != "SSH-2.0-lab" {
			t.Errorf("%q, %v", line, err)
		}
	})
}

func TestInterceptor(t *testing.T) {
	text := `
[client-network.intercept]
at = 2
names = [".victim.example"]
issuer = "Evil"
`
	sites := "[[site]]\nname = 'mail.victim.example'\n[[site]]\nname = 'other.example'"
	for _, trusted := range []bool{false, true} {
		client := text
		if trusted {
			client = "trusts-interceptor = true\n" + text
		}
		w := world(t, small(client, sites), Options{})
		roots, err := w.Network().Roots()
		if err != nil {
			t.Fatal(err)
		}
		for _, v6 := range []bool{false, true} {
			address := func(name string) netip.AddrPort {
				a, b := w.both(name, 443)
				if v6 {
					return b
				}
				return a
			}
			name := "mail.victim.example"
			var unknown x509.UnknownAuthorityError
			if _, _, _, err := visit(t, w.Network(), address(name), name, name, &tls.Config{RootCAs: w.Public(), Time: w.Now}); !errors.As(err, &unknown) {
				t.Errorf("against the public roots: %v", err)
			} else if issuer := unknown.Cert.Issuer.CommonName; !strings.HasPrefix(issuer, "Evil") {
				t.Errorf("issued by %s", issuer)
			}
			status, body, _, err := visit(t, w.Network(), address(name), name, name, &tls.Config{RootCAs: roots, Time: w.Now})
			if trusted && (err != nil || status != 200 || !strings.Contains(body, "Welcome to "+name)) {
				t.Errorf("with its root trusted: %d, %v", status, err)
			}
			if !trusted && err == nil {
				t.Error("a root that the system does not trust was trusted")
			}
			name = "other.example"
			if status, _, _, err := visit(t, w.Network(), address(name), name, name, &tls.Config{RootCAs: w.Public(), Time: w.Now}); err != nil || status != 200 {
				t.Errorf("a name that is not on its list: %d, %v", status, err)
			}
		}
	}
}

// TestInterceptorKinds: what each kind of imitation takes from the genuine
// certificate, whose key it shows, and what it leaves alone.
func TestInterceptorKinds(t *testing.T) {
	sites := "[[site]]\nname = 'one.example'\ncerts = 2\n[[site]]\nname = 'two.example'\n[[site]]\nname = 'rsa.example'\nkey = 'rsa'\n[[site]]\nname = 'broken.example'\ncert = 'wrong-name'\n[[site]]\nname = 'inside.example'\ncert = 'private'"
	show := func(w *World, name string) tls.ConnectionState {
		a, _ := w.both(name, 443)
		c, err := w.Network().Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: a}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Abort()
		tc := tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		if err := tc.HandshakeContext(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return tc.ConnectionState()
	}
	genuine := world(t, small("trusts-company = true\n", sites), Options{})
	first, second := show(genuine, "one.example"), show(genuine, "one.example")
	if first.NegotiatedProtocol != "h2" || first.PeerCertificates[0].Equal(second.PeerCertificates[0]) || show(genuine, "one.example").PeerCertificates[0].Equal(first.PeerCertificates[0]) != true {
		t.Error("two certificates are not shown in turn")
	}
	roots, err := genuine.Network().Roots()
	if err != nil {
		t.Fatal(err)
	}
	inside := show(genuine, "inside.example").PeerCertificates
	verify := func(chain []*x509.Certificate, roots *x509.CertPool, at time.Time) error {
		o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: at}
		for _, c := range chain[1:] {
			o.Intermediates.AddCert(c)
		}
		_, err := chain[0].Verify(o)
		return err
	}
	if verify(inside, roots, genuine.Now()) != nil || verify(inside, genuine.Public(), genuine.Now()) == nil {
		t.Error("a private certificate must verify for this system and not for the public")
	}
	for _, c := range []struct {
		keys              string
		well, one, passes bool
	}{
		{keys: "", one: true},
		{keys: "signs = 'well'\n", well: true, one: true},
		{keys: "signs = 'well'\nkeys = 'each'\nverifies = true\n", well: true, passes: true},
	} {
		w := world(t, small("[client-network.intercept]\nat = 2\nissuer = 'Evil'\n"+c.keys, sites), Options{})
		one, two, broken := show(w, "one.example"), show(w, "two.example"), show(w, "broken.example")
		a, b := one.PeerCertificates[0], two.PeerCertificates[0]
		if a.Issuer.CommonName != "Evil" || len(one.PeerCertificates) != 1 || len(a.AuthorityKeyId) == 0 {
			t.Errorf("%q: issued by %s, %d sent", c.keys, a.Issuer, len(one.PeerCertificates))
		}
		if same := bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo); same != c.one {
			t.Errorf("%q: one key: %v", c.keys, same)
		}
		rsaOf := func(s tls.ConnectionState) bool { return s.PeerCertificates[0].PublicKeyAlgorithm == x509.RSA }
		if old := show(w, "rsa.example"); !rsaOf(old) && c.keys != "keys = 'each'\n" || rsaOf(one) == c.well {
			t.Errorf("%q: RSA in place of RSA %v, in place of ECDSA %v", c.keys, rsaOf(old), rsaOf(one))
		}
		if h2 := one.NegotiatedProtocol == "h2"; h2 != c.well {
			t.Errorf("%q: ALPN %q", c.keys, one.NegotiatedProtocol)
		}
		if own := broken.PeerCertificates[0].Issuer.CommonName != "Evil"; own != c.passes {
			t.Errorf("%q: what the server could not prove came from %s", c.keys, broken.PeerCertificates[0].Issuer)
		}
		if c.passes && broken.PeerCertificates[0].Subject.CommonName != "other.invalid" {
			t.Errorf("%q: it did not pass untouched: %s", c.keys, broken.PeerCertificates[0].Subject)
		}
	}
}

func TestWebProxy(t *testing.T) {
	w := world(t, small("[client-network.web-proxy]\nat = 1\nvia = '1.1 cache'\nnames = ['site.example']\ntamper = 'script'",
		"[[site]]\nname = 'other.example'\nhttp = 'same'"), Options{})
	v4, v6 := w.both("site.example", 80)
	for _, at := range []netip.AddrPort{v4, v6} {
		body := get(t, w.Network(), at, "site.example")
		if !strings.Contains(body, "Via: 1.1 cache") || !strings.Contains(body, "inject.js") || !strings.Contains(body, "Welcome to site.example") {
			t.Errorf("%s: %.300q", at, body)
		}
	}
	o4, _ := w.both("other.example", 80)
	if body := get(t, w.Network(), o4, "other.example"); !strings.Contains(body, "Via:") || strings.Contains(body, "inject.js") {
		t.Errorf("a site that it leaves alone: %.300q", body)
	}
	// It stands in front of the server: the page comes from nearer.
	c, err := w.Network().Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: v4}, TTL: 2})
	if err != nil {
		t.Fatalf("a transparent proxy accepts by itself: %v", err)
	}
	c.Abort()
}

func TestCaptivePortal(t *testing.T) {
	w := world(t, small("captive = true", trouble), Options{})
	v4, v6 := w.both("check.example", 80)
	for _, at := range []netip.AddrPort{v4, v6} {
		if body := get(t, w.Network(), at, "check.example"); !strings.HasPrefix(body, "HTTP/1.1 302") || strings.Contains(body, "204") {
			t.Errorf("%s: %.200q", at, body)
		}
	}
	if list, err := w.Network().Lookup(t.Context(), "check.example"); err != nil || len(list) != 2 {
		t.Errorf("names must resolve: %v, %v", list, err)
	}
	if _, err := w.Network().Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: netip.AddrPortFrom(v4.Addr(), 443)}}); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("port 443: %v", err)
	}
}

func TestClockAndLine(t *testing.T) {
	w := world(t, small("clock = '-9600h'\n[client-network.line]\nloss = 50\njitter = '2ms'", ""), Options{Loss: 20, RTT: 20 * time.Millisecond})
	if d := w.ClockError(); d != -9600*time.Hour {
		t.Errorf("the clock is wrong by %s", d)
	}
	v4, _ := w.both("site.example", 443)
	_, _, _, err := visit(t, w.Network(), v4, "site.example", "site.example", &tls.Config{RootCAs: w.Public(), Time: w.Now})
	var e x509.CertificateInvalidError
	if !errors.As(err, &e) || e.Reason != x509.Expired {
		t.Errorf("by a clock in the past: %v", err)
	}
	status, body, _, err := visit(t, w.Network(), v4, "site.example", "site.example",
		&tls.Config{RootCAs: w.Public(), Time: func() time.Time { return w.Now().Add(-w.ClockError()) }})
	if err != nil || status != 200 || len(body) < 19_000 {
		t.Errorf("by the true time, over a line that loses 7 %%: %d, %d bytes, %v", status, len(body), err)
	}
	began := time.Now()
	if _, err := w.Network().Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: v4}}); err != nil || time.Since(began) < 20*time.Millisecond {
		t.Errorf("%s for a round trip of 20 ms, %v", time.Since(began), err)
	}
}

// TestTap: everything at the client's end can be recorded.
func TestTap(t *testing.T) {
	w := world(t, small("", ""), Options{})
	var sent, received int
	done := make(chan struct{})
	w.Tap(func(out bool, pkt []byte) {
		if out {
			sent++
		} else if received++; received == 1 {
			close(done)
		}
	})
	v4, _ := w.both("site.example", 80)
	c, err := w.Network().Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: v4}})
	if err != nil {
		t.Fatal(err)
	}
	<-done
	w.Tap(nil)
	c.Abort()
	if sent < 1 || received < 1 {
		t.Errorf("%d sent, %d received", sent, received)
	}
}
