package wire_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"govah/measure"
	"govah/packet"
	"govah/wire"
	"govah/wire/host"
)

// noting is a socket that keeps what arrives.
type noting struct {
	net.PacketConn
	mu   sync.Mutex
	came [][]byte
}

func (n *noting) ReadFrom(b []byte) (int, net.Addr, error) {
	k, from, err := n.PacketConn.ReadFrom(b)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.came = append(n.came, bytes.Clone(b[:k]))
	return k, from, err
}

func h3Server(t *testing.T, cert tls.Certificate, h http.Handler) netip.AddrPort {
	t.Helper()
	_, at := h3Noting(t, cert, h)
	return at
}

func h3Noting(t *testing.T, cert tls.Certificate, h http.Handler) (*noting, netip.AddrPort) {
	t.Helper()
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	pc := &noting{PacketConn: udp}
	s := &http3.Server{Handler: h, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{cert}})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(pc)
	}()
	t.Cleanup(func() {
		s.Close()
		pc.Close()
		<-done
	})
	return pc, pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestQUICForms: the forms of a handshake are on the wire what they are said to
// be, and a server answers each.
func TestQUICForms(t *testing.T) {
	ca := newAuthority(t)
	for name, c := range map[string]struct {
		spec    wire.QUICSpec
		before  int // datagrams before the first Initial
		hello   int // Initials that hold the ClientHello
		version uint32
	}{
		"plain":  {wire.QUICSpec{}, 0, 2, 1},
		"small":  {wire.QUICSpec{Small: true}, 0, 1, 1},
		"behind": {wire.QUICSpec{Small: true, Behind: true}, 1, 1, 1},
		"v2":     {wire.QUICSpec{Small: true, Version2: true}, 0, 1, 0x6b3343cf},
	} {
		t.Run(name, func(t *testing.T) {
			server, at := h3Noting(t, ca.issue(t, nil, "site.example"), http.NotFoundHandler())
			c.spec.Remote, c.spec.SNI = at, "site.example"
			o := wire.QUIC(t.Context(), host.New(), newLog(), wire.Meta{}, c.spec, &wire.Trust{Public: ca.pool()})
			if o.Failure != "" || !o.TLS.ServerBytes {
				t.Fatalf("%+v %+v", o, o.TLS)
			}
			server.mu.Lock()
			defer server.mu.Unlock()
			var stream packet.CryptoStream
			before, hello := 0, 0
			for _, b := range server.came {
				h, err := packet.ParseLongHeader(b)
				if err != nil {
					before++
					continue
				}
				if hello++; h.Version != c.version {
					t.Errorf("version %x", h.Version)
				}
				if got, err := stream.Add(b); err == nil {
					if got.SNI != "site.example" {
						t.Errorf("SNI %q", got.SNI)
					}
					break
				}
			}
			if before != c.before || hello != c.hello {
				t.Errorf("%d datagrams before the Initials, %d with the ClientHello; want %d, %d", before, hello, c.before, c.hello)
			}
		})
	}
}

func TestQUIC(t *testing.T) {
	ca := newAuthority(t)
	at := h3Server(t, ca.issue(t, nil, "site.example"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			w.(http.Flusher).Flush()
			time.Sleep(700 * time.Millisecond)
		}
		io.WriteString(w, "<title>three</title>")
	}))
	trust := &wire.Trust{Public: ca.pool()}
	l := newLog()
	o := wire.QUIC(context.Background(), host.New(), l, wire.Meta{}, wire.QUICSpec{Remote: at, SNI: "site.example",
		Request: &wire.Request{URL: "https://site.example/"}}, trust)
	if o.Failure != "" || o.TLS.Public != measure.VerifiedOK || !o.TLS.ServerBytes || o.TLS.ALPN != "h3" || o.TLS.Version != "TLS 1.3" {
		t.Fatalf("%+v %+v", o, o.TLS)
	}
	if h := o.HTTP; h == nil || h.Status != 200 || h.Title != "three" || h.Proto != "HTTP/3.0" || !h.Authenticated || h.BodyBytes != 20 {
		t.Errorf("%+v", h)
	}
	if o.Sent < 2000 || o.Received < 1500 {
		t.Errorf("sent %d, received %d", o.Sent, o.Received)
	}
	o = wire.QUIC(context.Background(), host.New(), l, wire.Meta{}, wire.QUICSpec{Remote: at, SNI: "other.example"}, trust)
	if o.Failure != measure.TLSInvalidHostname || o.TLS.Public != measure.VerifyWrongName || !o.TLS.ServerBytes {
		t.Errorf("%+v %+v", o, o.TLS)
	}
	o = wire.QUIC(context.Background(), host.New(), l, wire.Meta{}, wire.QUICSpec{Remote: at, SNI: "site.example",
		Request: &wire.Request{URL: "https://site.example/slow", Stall: 200 * time.Millisecond}}, trust)
	if o.Failure != measure.GenericTimeout || o.HTTP == nil || o.HTTP.Status != 200 {
		t.Errorf("stall: %+v %+v", o, o.HTTP)
	}
}

func TestQUICFailures(t *testing.T) {
	ca := newAuthority(t)
	trust := &wire.Trust{Public: ca.pool()}
	refusing := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, io.ErrUnexpectedEOF }}
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := &http3.Server{TLSConfig: http3.ConfigureTLSConfig(refusing)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(pc)
	}()
	t.Cleanup(func() {
		s.Close()
		pc.Close()
		<-done
	})
	silent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, tt := range []struct {
		name    string
		at      net.Addr
		failure measure.Failure
		bytes   bool
		icmp    bool
	}{
		{"alert", pc.LocalAddr(), measure.TLSFailedHandshake, true, false},
		{"silence", silent.LocalAddr(), measure.GenericTimeout, false, false},
		// The port is closed and the kernel says so; QUIC goes on as if it had not.
		{"ICMP", closed.LocalAddr(), measure.GenericTimeout, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			started := time.Now()
			o := wire.QUIC(context.Background(), host.New(), newLog(), wire.Meta{}, wire.QUICSpec{
				Remote: tt.at.(*net.UDPAddr).AddrPort(), SNI: "site.example", Timeout: 700 * time.Millisecond}, trust)
			if o.Failure != tt.failure || o.TLS.ServerBytes != tt.bytes {
				t.Errorf("%+v %+v", o, o.TLS)
			}
			if (o.TLS.Alert >= 0) != (tt.name == "alert") {
				t.Errorf("alert %d", o.TLS.Alert)
			}
			if (o.TCP != nil && len(o.TCP.ICMP) > 0) != tt.icmp {
				t.Errorf("ICMP: %+v", o.TCP)
			}
			if tt.icmp && time.Since(started) < 600*time.Millisecond {
				t.Error("an ICMP error ended the handshake")
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	o := wire.QUIC(ctx, host.New(), newLog(), wire.Meta{}, wire.QUICSpec{Remote: silent.LocalAddr().(*net.UDPAddr).AddrPort(), SNI: "site.example"}, trust)
	if o.Failure != measure.Interrupted {
		t.Errorf("interrupted: %+v", o)
	}
}
