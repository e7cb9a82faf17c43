package wire_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"govah/lab"
	"govah/lab/kernel"
	"govah/measure"
	"govah/packet"
	"govah/wire"
	"govah/wire/host"
)

// The same tests over both implementations of wire.Network, in the same
// internet: a client with three routers of its operator, a box behind the
// second one, and a hoster two routers further on.
const conformanceScenario = `
schema = 1
title = "conformance"
about = "A network for the tests of the seam."
date = "2026-06-01T12:00:00Z"
client = "home"

[[client-network]]
name = "home"
about = "A line."
asn = 64496
country = "NL"
hops = 3
delay = "3ms"
link = "ethernet"
[[client-network.box]]
at = 2
[[client-network.box.rule]]
layer = "tls"
names = ["reset.example"]
action = "reset"
on-path = true
ends = "client"
ttl = 40
[[client-network.box.rule]]
layer = "udp"
ports = [444]
action = "unreachable"
code = "port"
[[client-network.box.rule]]
layer = "tcp"
ports = [81]
action = "unreachable"
code = "host"

[[network]]
name = "hosting"
asn = 64500
country = "DE"
hops = 2
delay = "2ms"

[[site]]
name = "site.example"
network = "hosting"
h3 = true
[[site]]
name = "reset.example"
shares = "site.example"
`

// environment is what a test knows of the network it runs in.
type environment struct {
	Sites    []netip.Addr // of site.example and reset.example, both families
	Resolver netip.Addr   // of the lab's client
	// Kernel is how many routers stand before the lab's own.
	Kernel int
	Roots  []byte
	// Unix time there minus that of this process.
	ClockS int64
	// Noisy: each QUIC packet draws an ICMP error besides its answer.
	Noisy bool
}

func conformanceWorld(t *testing.T, o lab.Options) (*lab.World, environment) {
	t.Helper()
	s, err := lab.Parse([]byte(conformanceScenario))
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.New(s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	e := environment{Roots: w.PublicPEM(), ClockS: int64(time.Until(w.Now()) / time.Second)}
	e.Resolver, err = netip.ParseAddr(w.Client.Resolver)
	if err != nil {
		t.Fatal(err)
	}
	for _, site := range s.Sites {
		if site.Name == "site.example" {
			e.Sites = site.AllAddresses()
		}
	}
	if len(e.Sites) != 2 || !e.Sites[0].Is4() || !e.Sites[1].Is6() {
		t.Fatalf("the site's addresses: %v", e.Sites)
	}
	return w, e
}

func TestConformanceLab(t *testing.T) {
	t.Parallel()
	w, e := conformanceWorld(t, lab.Options{})
	conform(t, w.Network(), e)
}

func needKernel(t *testing.T) {
	t.Helper()
	if err := kernel.Supported(); errors.Is(err, kernel.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// TestCaptureLab and TestCaptureKernel: with the right to, a client sees its
// own flow in both directions, and the ICMP errors about it.
func TestCaptureLab(t *testing.T) {
	w, e := conformanceWorld(t, lab.Options{Privileged: true})
	captures(t, w.Network(), e)
	overhears(t, w.Network(), e)
}

func TestCaptureKernel(t *testing.T) {
	needKernel(t)
	w, e := conformanceWorld(t, lab.Options{Raw: true})
	encoded, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestCaptureInside$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), "GOVAH_CONFORMANCE="+string(encoded))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = kernel.Run(t.Context(), kernel.Link{Addresses: w.ClientAddresses(), Privileged: true, Send: w.Inject, Attach: w.Port}, cmd)
	if err != nil || !bytes.Contains(out.Bytes(), []byte("--- PASS: TestCaptureInside")) {
		t.Errorf("%v\n%s", err, &out)
	}
}

// TestCaptureInside is the part of TestCaptureKernel that runs in the
// client's namespace.
func TestCaptureInside(t *testing.T) {
	encoded := os.Getenv("GOVAH_CONFORMANCE")
	if encoded == "" {
		return // runs as a part of TestCaptureKernel
	}
	var e environment
	if err := json.Unmarshal([]byte(encoded), &e); err != nil {
		t.Fatal(err)
	}
	captures(t, host.New(), e)
	overhears(t, host.New(), e)
	traces(t, host.New(), e, wire.TraceCapture, nil)
	bound(t, host.New(), e)
	reports(t, host.New(), e)
}

func captures(t *testing.T, n wire.Network, e environment) {
	if !n.View().Capture {
		t.Error("the view does not say that packets can be captured")
	}
	for _, a := range e.Sites {
		at := netip.AddrPortFrom(a, 443)
		c, err := n.Capture(t.Context(), wire.Flow{Remote: at})
		if err != nil {
			t.Fatal(err)
		}
		if o := wire.SYN(t.Context(), n, newLog(), wire.Meta{}, wire.ConnectSpec{Remote: at, TTL: 2, Timeout: 2 * time.Second}); o.Path.Outcome != "expired" {
			t.Errorf("%+v", o.Path)
		}
		// Another flow, which must not be seen.
		wire.Connect(t.Context(), n, newLog(), wire.Meta{}, wire.ConnectSpec{Remote: netip.AddrPortFrom(a, 80)})
		conn := mustDial(t, n, wire.DialSpec{Flow: wire.Flow{Remote: at}})
		conn.Abort()
		var out, in, icmp, reset int
		for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline) && reset == 0; time.Sleep(10 * time.Millisecond) {
			out, in, icmp, reset = 0, 0, 0, 0
			for _, p := range c.Packets() {
				q, err := packet.Parse(p.Data)
				switch {
				case err != nil:
					t.Fatal(err)
				case len(q.Quoted) > 0:
					icmp++
				case q.SrcPort == 443 && q.Src == a && !p.Sent:
					in++
				case q.DstPort == 443 && q.Dst == a && p.Sent:
					out++
					if q.Flags&packet.RST != 0 {
						reset++
					}
				default:
					t.Errorf("a packet of another flow: %+v", q)
				}
			}
		}
		if out < 4 || in < 1 || icmp != 1 || reset != 1 {
			t.Errorf("%v: %d sent, %d received, %d ICMP, %d resets", a, out, in, icmp, reset)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestConformanceKernel(t *testing.T) {
	needKernel(t)
	for _, routers := range []int{0, 2} {
		t.Run(fmt.Sprint(routers, " routers of the kernel"), func(t *testing.T) {
			t.Parallel()
			onKernel(t, routers)
		})
	}
}

func onKernel(t *testing.T, routers int) {
	w, e := conformanceWorld(t, lab.Options{Raw: true})
	e.Kernel, e.Noisy = routers, true
	encoded, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var receive atomic.Pointer[func([]byte)]
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(self, "-test.run=^TestConformanceInside$", "-test.v", "-test.timeout=100s")
	cmd.Env = append(os.Environ(), "GOVAH_CONFORMANCE="+string(encoded))
	cmd.Stdout, cmd.Stderr = &out, &out
	ctx, cancel := context.WithTimeout(t.Context(), 110*time.Second)
	defer cancel()
	err = kernel.Run(ctx, kernel.Link{
		Addresses: w.ClientAddresses(), Resolver: e.Resolver, Routers: routers,
		Send: func(pkt []byte) {
			if p, err := packet.Parse(pkt); err == nil && p.Proto == packet.UDP && p.DstPort == 443 {
				if b, err := packet.BuildICMPError(packet.PortUnreachable, p.Dst, pkt, 0); err == nil {
					if f := receive.Load(); f != nil {
						(*f)(b)
					}
				}
			}
			w.Inject(pkt)
		},
		Attach: func(f func([]byte)) {
			w.Port(f)
			receive.Store(nil)
			if f != nil {
				receive.Store(&f)
			}
		},
	}, cmd)
	if err != nil || !bytes.Contains(out.Bytes(), []byte("--- PASS: TestConformanceInside")) {
		t.Errorf("%v\n%s", err, &out)
	}
}

// TestConformanceInside is the part of TestConformanceKernel that runs in the
// client's namespace, without any privilege.
func TestConformanceInside(t *testing.T) {
	encoded := os.Getenv("GOVAH_CONFORMANCE")
	if encoded == "" {
		return // runs as a part of TestConformanceKernel
	}
	var e environment
	if err := json.Unmarshal([]byte(encoded), &e); err != nil {
		t.Fatal(err)
	}
	conform(t, host.New(), e)
}

// The number of the lab's routers to the site, and to the box.
const (
	toSite = 5
	toBox  = 2
)

func conform(t *testing.T, n wire.Network, e environment) {
	v := n.View()
	if !v.SYNHop || !v.DataError || !v.UDPTTL || !v.MinTTL || !v.SetTTL || !v.TCPInfo || !v.IPv4 || !v.IPv6 || v.Capture {
		t.Errorf("view: %+v", v)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(e.Roots) {
		t.Fatal("no roots")
	}
	trust := &wire.Trust{Public: roots, Now: func() time.Time { return time.Now().Add(time.Duration(e.ClockS) * time.Second) }}
	t.Run("lookup", func(t *testing.T) {
		o := wire.LookupSystem(t.Context(), n, newLog(), wire.Meta{}, "site.example", 5*time.Second)
		if o.Failure != "" || len(o.DNS.Replies) != 1 || len(o.DNS.Replies[0].Answers) != 2 {
			t.Errorf("%+v %+v", o, o.DNS)
		}
		if o = wire.LookupSystem(t.Context(), n, newLog(), wire.Meta{}, "no-such.example", 5*time.Second); o.Failure != measure.DNSNXDomain {
			t.Errorf("%+v", o)
		}
	})
	t.Run("capture", func(t *testing.T) {
		if _, err := n.Capture(t.Context(), wire.Flow{Remote: netip.AddrPortFrom(e.Sites[0], 443)}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("without the right to: %v", err)
		}
	})
	t.Run("UDP TTL", func(t *testing.T) {
		q := wire.Question{Name: "site.example", Type: "A", Server: netip.AddrPortFrom(e.Resolver, 53), Transport: "udp", Timeout: 3 * time.Second, Linger: 50 * time.Millisecond}
		o := wire.Ask(t.Context(), n, newLog(), wire.Meta{}, q, nil)
		// The resolver is behind the third router.
		if o.Failure != "" || len(o.DNS.Replies) != 1 || o.DNS.Replies[0].TTL != 64-3-e.Kernel {
			t.Errorf("%+v %+v", o, o.DNS)
		}
		q.TTL, q.Timeout, q.Tries = 2+e.Kernel, 300*time.Millisecond, 1
		if o = wire.Ask(t.Context(), n, newLog(), wire.Meta{}, q, nil); o.Failure != measure.GenericTimeout && o.Failure != measure.HostUnreachable {
			t.Errorf("with a low TTL: %+v %+v", o, o.DNS)
		}
	})
	t.Run("ICMP on UDP", func(t *testing.T) {
		for _, a := range e.Sites {
			udp(t, n, netip.AddrPortFrom(a, 444))
		}
	})
	for _, a := range e.Sites {
		family := "IPv4/"
		if a.Is6() {
			family = "IPv6/"
		}
		at := netip.AddrPortFrom(a, 443)
		t.Run(family+"SYN", func(t *testing.T) { routers(t, n, at, e) })
		t.Run(family+"exchange", func(t *testing.T) {
			conn := mustDial(t, n, wire.DialSpec{Flow: wire.Flow{Remote: at}})
			l := newLog()
			tc, o := wire.Handshake(t.Context(), l, wire.Meta{}, conn, wire.HandshakeSpec{SNI: "site.example"}, trust)
			if tc == nil || !tc.Verified() {
				t.Fatalf("%+v %+v", o, o.TLS)
			}
			if info, err := conn.Info(); err != nil || info.RTT < 8*time.Millisecond || info.RTT > time.Second {
				t.Errorf("info: %+v, %v", info, err)
			}
			o, body := wire.Fetch(t.Context(), l, wire.Meta{}, tc, wire.Request{URL: "https://site.example/"})
			if o.Failure != "" || len(body) < 10000 {
				t.Errorf("%+v, %d bytes", o, len(body))
			}
			if list := conn.PathErrors(); len(list) != 0 {
				t.Errorf("ICMP on a healthy connection: %v", list)
			}
			tc.Close()
		})
		t.Run(family+"refused", func(t *testing.T) {
			_, o := wire.Connect(t.Context(), n, newLog(), wire.Meta{}, wire.ConnectSpec{Remote: netip.AddrPortFrom(a, 9)})
			if o.Failure != measure.ConnectionRefused {
				t.Errorf("%+v", o)
			}
		})
		t.Run(family+"unreachable", func(t *testing.T) {
			_, o := wire.Connect(t.Context(), n, newLog(), wire.Meta{}, wire.ConnectSpec{Remote: netip.AddrPortFrom(a, 81)})
			if o.Failure != measure.HostUnreachable || o.TCP == nil || len(o.TCP.ICMP) != 1 || o.TCP.ICMP[0].From != a.String() {
				t.Errorf("%+v %+v", o, o.TCP)
			}
		})
		t.Run(family+"reset", func(t *testing.T) {
			conn := mustDial(t, n, wire.DialSpec{Flow: wire.Flow{Remote: at}})
			_, o := wire.Handshake(t.Context(), newLog(), wire.Meta{}, conn, wire.HandshakeSpec{SNI: "reset.example"}, trust)
			if o.Failure != measure.ConnectionReset || o.TLS.ServerBytes {
				t.Errorf("%+v %+v", o, o.TLS)
			}
		})
		t.Run(family+"MinTTL ignores the reset", func(t *testing.T) {
			// The reset arrives with 40 minus at most 4, the server's segments
			// with 64 minus at most 7.
			conn := mustDial(t, n, wire.DialSpec{Flow: wire.Flow{Remote: at}, MinTTL: 45})
			tc, o := wire.Handshake(t.Context(), newLog(), wire.Meta{}, conn, wire.HandshakeSpec{SNI: "reset.example"}, trust)
			if tc == nil || !tc.Verified() {
				t.Fatalf("%+v %+v", o, o.TLS)
			}
			tc.Close()
			// And from the next segment on.
			conn = mustDial(t, n, wire.DialSpec{Flow: wire.Flow{Remote: at}})
			if err := conn.SetMinTTL(45); err != nil {
				t.Fatal(err)
			}
			if tc, o = wire.Handshake(t.Context(), newLog(), wire.Meta{}, conn, wire.HandshakeSpec{SNI: "reset.example"}, trust); tc == nil {
				t.Fatalf("%+v %+v", o, o.TLS)
			}
			tc.Close()
			// Above the server's own nothing comes at all.
			limited, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if c, err := n.Dial(limited, wire.DialSpec{Flow: wire.Flow{Remote: at}, MinTTL: 62}); err == nil {
				c.Abort()
				t.Error("connected although every segment comes below the least TTL")
			}
		})
		t.Run(family+"data with a low TTL", func(t *testing.T) {
			for _, tt := range []struct {
				ttl     int
				failure measure.Failure
				icmp    bool
			}{
				{toBox + e.Kernel, measure.GenericTimeout, true},       // expires before the box
				{toBox + 1 + e.Kernel, measure.ConnectionReset, false}, // reaches the box, not the server
			} {
				conn := mustDial(t, n, wire.DialSpec{Flow: wire.Flow{Remote: at}})
				_, o := wire.Handshake(t.Context(), newLog(), wire.Meta{}, conn, wire.HandshakeSpec{SNI: "reset.example", TTL: tt.ttl, Timeout: time.Second}, trust)
				if o.Failure != tt.failure || o.TTL != tt.ttl || o.TLS.ServerBytes {
					t.Errorf("TTL %d: %+v", tt.ttl, o)
				}
				if tt.icmp && (o.TCP == nil || len(o.TCP.ICMP) == 0 || o.TCP.ICMP[0].Type != expiredType(a) || o.TCP.Retransmits < 2) {
					t.Errorf("TTL %d: %+v", tt.ttl, o.TCP)
				}
				conn.Abort()
			}
		})
		t.Run(family+"what is not acknowledged is told", func(t *testing.T) {
			conn := mustDial(t, n, wire.DialSpec{Flow: wire.Flow{Remote: at}})
			time.Sleep(50 * time.Millisecond)
			if info, err := conn.Info(); err != nil || info.Unacked != 0 {
				t.Errorf("at rest: %+v, %v", info, err)
			}
			if err := conn.SetTTL(1); err != nil {
				t.Fatal(err)
			}
			conn.Write(make([]byte, 3000))
			time.Sleep(100 * time.Millisecond)
			if info, err := conn.Info(); err != nil || info.Unacked < 2 || info.Unacked > 4 {
				t.Errorf("3,000 bytes on their way: %+v, %v", info, err)
			}
			// Dropped on the way, a ClientHello is given up after 2 s, and not
			// waited for as for a slow server.
			conn = mustDial(t, n, wire.DialSpec{Flow: wire.Flow{Remote: at}})
			_, o := wire.Handshake(t.Context(), newLog(), wire.Meta{}, conn, wire.HandshakeSpec{SNI: "site.example", TTL: 1}, trust)
			if o.Failure != measure.GenericTimeout || o.TookUS < 1_990_000 || o.TookUS > 3_500_000 || o.TCP == nil || o.TCP.Retransmits < 2 {
				t.Errorf("%+v %+v", o, o.TCP)
			}
		})
		t.Run(family+"path errors disturb nothing", func(t *testing.T) {
			conn := mustDial(t, n, wire.DialSpec{Flow: wire.Flow{Remote: at}})
			if err := conn.SetTTL(1); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
			if list := conn.PathErrors(); len(list) == 0 || int(list[0].Type) != expiredType(a) {
				t.Errorf("%v", list)
			}
			conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if _, err := conn.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read: %v", err)
			}
			if err := conn.SetTTL(64); err != nil {
				t.Fatal(err)
			}
			conn.SetReadDeadline(time.Time{})
			if _, err := conn.Write([]byte("x")); err != nil {
				t.Errorf("write: %v", err)
			}
		})
		t.Run(family+"abort frees the port", func(t *testing.T) {
			conn := mustDial(t, n, wire.DialSpec{Flow: wire.Flow{Remote: at}})
			local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
			local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
			if conn.RemoteAddr() == nil {
				t.Error("no remote address")
			}
			if err := conn.Abort(); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("x")); err == nil {
				t.Error("an aborted connection takes data")
			}
			time.Sleep(50 * time.Millisecond) // the reset is on its way
			again := mustDial(t, n, wire.DialSpec{Flow: wire.Flow{Local: local, Remote: at}})
			if got := again.LocalAddr().(*net.TCPAddr).AddrPort(); got.Port() != local.Port() {
				t.Errorf("port %d, want %d", got.Port(), local.Port())
			}
		})
		t.Run(family+"segment size", func(t *testing.T) {
			conn := mustDial(t, n, wire.DialSpec{Flow: wire.Flow{Remote: at}, MSS: 600})
			if info, err := conn.Info(); err != nil || info.MSS > 600 || info.MSS < 500 {
				t.Errorf("%+v, %v", info, err)
			}
		})
		t.Run(family+"QUIC", func(t *testing.T) {
			o := wire.QUIC(t.Context(), n, newLog(), wire.Meta{}, wire.QUICSpec{Remote: at, SNI: "site.example",
				Request: &wire.Request{URL: "https://site.example/"}}, trust)
			if o.Failure != "" || o.HTTP == nil || o.HTTP.Status != 200 {
				t.Errorf("%+v %+v", o, o.HTTP)
			}
			if got := o.TCP != nil && len(o.TCP.ICMP) > 0; got != e.Noisy {
				t.Errorf("ICMP during the exchange: %+v", o.TCP)
			}
			o = wire.QUIC(t.Context(), n, newLog(), wire.Meta{}, wire.QUICSpec{Remote: netip.AddrPortFrom(a, 444), SNI: "site.example", Timeout: 500 * time.Millisecond}, trust)
			if o.Failure != measure.GenericTimeout || o.TookUS < 450_000 || o.TCP == nil || o.TCP.ICMP[0].From != a.String() {
				t.Errorf("where ICMP is all that comes: %+v %+v", o, o.TCP)
			}
		})
		t.Run(family+"cancel", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
			_, o := wire.Connect(ctx, n, newLog(), wire.Meta{}, wire.ConnectSpec{Remote: netip.AddrPortFrom(nobody(a), 443)})
			if o.Failure != measure.Interrupted {
				t.Errorf("%+v", o)
			}
			_, o = wire.Connect(t.Context(), n, newLog(), wire.Meta{}, wire.ConnectSpec{Remote: netip.AddrPortFrom(nobody(a), 443), Timeout: 200 * time.Millisecond})
			if o.Failure != measure.GenericTimeout {
				t.Errorf("%+v", o)
			}
		})
	}
}

// nobody is an address in the site's network that nobody has.
func nobody(a netip.Addr) netip.Addr {
	b := a.AsSlice()
	b[len(b)-1] = 250
	out, _ := netip.AddrFromSlice(b)
	return out
}

func expiredType(a netip.Addr) int {
	if a.Is4() {
		return 11
	}
	return 3
}

func mustDial(t *testing.T, n wire.Network, spec wire.DialSpec) wire.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := n.Dial(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Abort() })
	return conn
}

// routers: each router on the way names itself, and the last TTL connects.
func routers(t *testing.T, n wire.Network, at netip.AddrPort, e environment) {
	seen := map[string]bool{}
	for ttl := 1; ttl <= toSite+e.Kernel+1; ttl++ {
		o := wire.SYN(t.Context(), n, newLog(), wire.Meta{}, wire.ConnectSpec{Remote: at, TTL: ttl, Timeout: 2 * time.Second})
		if o.Step != measure.StepPath || o.TTL != ttl || o.Failure != "" {
			t.Fatalf("TTL %d: %+v", ttl, o)
		}
		if ttl == toSite+e.Kernel+1 {
			if o.Path.Outcome != "connected" {
				t.Errorf("TTL %d: %+v", ttl, o.Path)
			}
			continue
		}
		if o.Path.Outcome != "expired" || o.Path.ICMP == nil || o.Path.ICMP.From == "" || o.Path.RTTUS <= 0 {
			t.Errorf("TTL %d: %+v", ttl, o.Path)
			continue
		}
		if seen[o.Path.ICMP.From] {
			t.Errorf("TTL %d: %s again", ttl, o.Path.ICMP.From)
		}
		seen[o.Path.ICMP.From] = true
		if ttl <= e.Kernel {
			v4, v6 := kernel.RouterAddresses(ttl)
			if from := netip.MustParseAddr(o.Path.ICMP.From); from != v4 && from != v6 {
				t.Errorf("TTL %d: %s is no router of the kernel's", ttl, from)
			}
		}
	}
}

// udp: an ICMP error is told by PathErrors and never by ReadFrom.
func udp(t *testing.T, n wire.Network, to netip.AddrPort) {
	local := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if to.Addr().Is6() {
		local = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	pc, err := n.ListenPacket(t.Context(), local)
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	for range 3 {
		if _, err := pc.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(to)); err != nil {
			t.Errorf("write: %v", err)
		}
		pc.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, _, err := pc.ReadFrom(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
	}
	list := pc.PathErrors()
	if len(list) != 3 {
		t.Fatalf("%d ICMP errors, want 3: %v", len(list), list)
	}
	if e := list[0]; e.From != to.Addr() || e.At.IsZero() || len(e.Quoted) == 0 {
		t.Errorf("%+v", e)
	}
	if again := pc.PathErrors(); len(again) != 0 {
		t.Errorf("told twice: %v", again)
	}
}
