package wire_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"govah/lab/kernel"
	"govah/measure"
	"govah/wire"
	"govah/wire/host"
)

// TestMain fails if goroutines of a step outlive the tests.
func TestMain(m *testing.M) {
	kernel.Main()
	code := m.Run()
	if code == 0 {
		var n int
		for range 100 {
			if n = runtime.NumGoroutine(); n <= 2 {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if n > 2 {
			buf := make([]byte, 1<<20)
			fmt.Fprintf(os.Stderr, "%d goroutines are left:\n%s\n", n, buf[:runtime.Stack(buf, true)])
			code = 1
		}
	}
	os.Exit(code)
}

// authority is a CA of one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(240 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) issue(t testing.TB, change func(*x509.Certificate), names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if change != nil {
		change(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func server(t testing.TB, h http.Handler, cert tls.Certificate, h2 bool) netip.AddrPort {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = h2
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

func hello(t testing.TB, kind string) *wire.Hello {
	t.Helper()
	h, err := wire.NewHello(kind, 7)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newLog() *wire.Log { return wire.NewLog(time.Now(), nil) }

func TestExchange(t *testing.T) {
	ca := newAuthority(t)
	page := "<html><title>A  page &amp; more</title><body>" + strings.Repeat("some words here ", 4000) + "</body></html>"
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Alt-Svc", `h3=":443"; ma=86400`)
		w.Header().Set("X-Host", r.Host)
		io.WriteString(w, page)
	})
	for _, h2 := range []bool{false, true} {
		at := server(t, handler, ca.issue(t, nil, "site.example"), h2)
		for _, kind := range []string{"chrome", "chrome-small", "go"} {
			t.Run(fmt.Sprint(kind, h2), func(t *testing.T) {
				ctx, l, n := context.Background(), newLog(), host.New()
				conn, o := wire.Connect(ctx, n, l, wire.Meta{}, wire.ConnectSpec{Remote: at})
				if conn == nil || o.Failure != "" || o.TCP == nil || o.Family != measure.IPv4 || o.Remote != at.String() {
					t.Fatalf("connect: %+v", o)
				}
				defer conn.Abort()
				trust := &wire.Trust{Public: ca.pool()}
				tc, o := wire.Handshake(ctx, l, wire.Meta{}, conn, wire.HandshakeSpec{SNI: "site.example", Hello: hello(t, kind)}, trust)
				if tc == nil || o.Failure != "" || !tc.Verified() || o.TLS.Public != measure.VerifiedOK || !o.TLS.ServerBytes || o.TLS.Alert != -1 {
					t.Fatalf("handshake: %+v %+v", o, o.TLS)
				}
				if o.TLS.Version != "TLS 1.3" || o.TLS.Group == "" || o.TLS.Cipher == "" || len(o.TLS.Chain) != 1 || o.Sent < 200 || o.Received < 500 {
					t.Errorf("handshake: %+v %+v", o, o.TLS)
				}
				if x := o.TLS; len(x.SPKI) != 64 || x.Key != "ecdsa-256" || x.Serial != "2" || x.Signers != nil {
					t.Errorf("leaf: %+v", o.TLS)
				}
				ho, body := wire.Fetch(ctx, l, wire.Meta{}, tc, wire.Request{URL: "https://site.example/x?y=1", MaxBody: 1 << 20})
				if ho.Failure != "" || ho.HTTP.Status != 200 || string(body) != page {
					t.Fatalf("fetch: %+v %+v, %d bytes", ho, ho.HTTP, len(body))
				}
				want := "HTTP/1.1"
				if h2 {
					want = "HTTP/2.0"
				}
				if h := ho.HTTP; h.Proto != want || h.Title != "A page & more" || h.H3 != ":443" || !h.Authenticated || h.FirstByteUS == 0 ||
					h.BodyTruncated || h.BodyBytes != int64(len(page)) || len(h.Simhash) != 16 || len(h.BodySHA256) != 64 {
					t.Errorf("fetch: %+v", h)
				}
				if ho.Received < 1000 || ho.Sent < 100 {
					t.Errorf("sent %d, received %d", ho.Sent, ho.Received)
				}
				tc.Close()
			})
		}
	}
}

// TestServersOfAllKinds: what the layouts promise in their ClientHello they
// must be able to do.
func TestServersOfAllKinds(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue(t, nil, "site.example")
	for name, conf := range map[string]*tls.Config{
		"retry with P-256":   {CurvePreferences: []tls.CurveID{tls.CurveP256}},
		"P-384":              {CurvePreferences: []tls.CurveID{tls.CurveP384}},
		"X25519":             {CurvePreferences: []tls.CurveID{tls.X25519}},
		"TLS 1.2":            {MaxVersion: tls.VersionTLS12},
		"TLS 1.2, ChaCha20":  {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}},
		"client certificate": {ClientAuth: tls.RequestClientCert},
		"TLS 1.1":            {MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10},
	} {
		conf.Certificates = []tls.Certificate{cert}
		at := listen(t, func(c net.Conn) {
			s := tls.Server(c, conf)
			s.SetDeadline(time.Now().Add(2 * time.Second))
			if s.Handshake() == nil {
				readRequest(s)
				io.WriteString(s, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				s.Close()
			}
		})
		for _, kind := range []string{"chrome", "chrome-small", "go"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				ctx, l := context.Background(), newLog()
				conn, _ := wire.Connect(ctx, host.New(), l, wire.Meta{}, wire.ConnectSpec{Remote: at})
				if conn == nil {
					t.Fatal("no connection")
				}
				defer conn.Abort()
				tc, o := wire.Handshake(ctx, l, wire.Meta{}, conn, wire.HandshakeSpec{SNI: "site.example", Hello: hello(t, kind)}, &wire.Trust{Public: ca.pool()})
				if name == "TLS 1.1" {
					// A refusal, by one side or the other, on a wire that is fine.
					if tc != nil || o.Failure != measure.TLSFailedHandshake || !o.TLS.ServerBytes {
						t.Errorf("%+v %+v", o, o.TLS)
					}
					return
				}
				if tc == nil || !tc.Verified() {
					t.Fatalf("%+v %+v", o, o.TLS)
				}
				ho, body := wire.Fetch(ctx, l, wire.Meta{}, tc, wire.Request{URL: "https://site.example/"})
				if ho.Failure != "" || string(body) != "ok" {
					t.Errorf("%+v %q", ho, body)
				}
				if strings.HasPrefix(name, "TLS 1.2") != (o.TLS.Version == "TLS 1.2") {
					t.Errorf("%+v", o.TLS)
				}
			})
		}
	}
}

func nulName(c *x509.Certificate) {
	// A subjectAltName by hand: the library would refuse to make it.
	san, err := asn1.Marshal([]asn1.RawValue{{Tag: 2, Class: 2, Bytes: []byte("site.example\x00.evil.example")}})
	if err != nil {
		panic(err)
	}
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san})
}

func TestCertificates(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	old := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-20*time.Hour), time.Now().Add(-10*time.Hour)
	}
	for _, tt := range []struct {
		name    string
		cert    tls.Certificate
		offset  time.Duration
		failure measure.Failure
		public  measure.Verification
		proven  bool
	}{
		{"good", ca.issue(t, nil, "site.example"), 0, "", measure.VerifiedOK, true},
		{"wrong name", ca.issue(t, nil, "other.example"), 0, measure.TLSInvalidHostname, measure.VerifyWrongName, false},
		{"unknown", other.issue(t, nil, "site.example"), 0, measure.TLSUnknownAuthority, measure.VerifyUnknownCA, false},
		{"expired", ca.issue(t, old, "site.example"), 0, measure.TLSInvalidCert, measure.VerifyExpired, false},
		{"clock fast", ca.issue(t, old, "site.example"), -15 * time.Hour, measure.TLSInvalidCert, measure.VerifyExpired, true},
		{"expired and unknown", other.issue(t, old, "site.example"), 0, measure.TLSUnknownAuthority, measure.VerifyUnknownCA, false},
		{"NUL in the name", ca.issue(t, nulName), 0, measure.TLSInvalidHostname, measure.VerifyWrongName, false},
	} {
		for _, kind := range []string{"chrome", "go"} {
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				at := server(t, http.NotFoundHandler(), tt.cert, false)
				ctx, l := context.Background(), newLog()
				conn, _ := wire.Connect(ctx, host.New(), l, wire.Meta{}, wire.ConnectSpec{Remote: at})
				if conn == nil {
					t.Fatal("no connection")
				}
				defer conn.Abort()
				trust := &wire.Trust{Public: ca.pool(), System: other.pool(), Offset: tt.offset}
				tc, o := wire.Handshake(ctx, l, wire.Meta{}, conn, wire.HandshakeSpec{SNI: "site.example", Hello: hello(t, kind)}, trust)
				if tc == nil && !strings.HasPrefix(tt.name, "NUL") {
					t.Fatalf("no connection in spite of the wire being fine: %+v", o)
				}
				if tc == nil {
					// Go may refuse to parse it; then it is malformed, never ok.
					if o.TLS.Public != measure.VerifyMalformed || o.Failure != measure.TLSInvalidCert {
						t.Errorf("%+v %+v", o, o.TLS)
					}
					return
				}
				defer tc.Close()
				if o.Failure != tt.failure || o.TLS.Public != tt.public || tc.Verified() != tt.proven || !o.TLS.ServerBytes {
					t.Errorf("failure %q, public %q, verified %v: %+v", o.Failure, o.TLS.Public, tc.Verified(), o.TLS)
				}
				if (len(l.Bodies()) > 0) != (tt.public != measure.VerifiedOK) {
					t.Errorf("%d certificates kept for %q", len(l.Bodies()), tt.public)
				}
				if tt.name == "unknown" && o.TLS.System != measure.VerifiedOK {
					t.Errorf("system trust says %q", o.TLS.System)
				}
			})
		}
	}
}

// listen serves each TCP connection with f.
func listen(t testing.TB, f func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var serving sync.WaitGroup
	go func() {
		defer close(done)
		defer serving.Wait()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				f(c)
				c.Close()
			})
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return netip.MustParseAddrPort(ln.Addr().String())
}
