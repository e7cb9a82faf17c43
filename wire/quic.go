package wire

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"

	"govah/measure"
)

// quicTimeout lets a lost Initial be sent again at least twice (RFC 9002, 6.2:
// after 1 s and 3 s without an RTT sample).
const quicTimeout = 4 * time.Second

// QUICSpec says how to shake hands over QUIC.
type QUICSpec struct {
	Remote netip.AddrPort
	SNI    string // "" sends none
	Verify string // the name to verify the chain for; "" means SNI
	// Request is an HTTP/3 request to make after the handshake, if any.
	Request *Request
	// Small leaves the post-quantum group out, so that the ClientHello takes
	// one datagram and not two.
	Small bool
	// Behind sends a datagram of random bytes first. A server ignores what is
	// no Initial (RFC 9000, 5.2.2).
	Behind bool
	// Version2 speaks QUIC version 2 (RFC 9369).
	Version2 bool
	// Timeout is for the handshake, 4 s if 0.
	Timeout time.Duration
}

// QUIC does one QUIC handshake (RFC 9000, RFC 9001) with Go's
// ClientHello on a socket of its own, and one HTTP/3 request if asked. All
// Initials have the same size, and ICMP errors do not end it: they are
// recorded.
func QUIC(ctx context.Context, n Network, l *Log, m Meta, spec QUICSpec, trust *Trust) *measure.Observation {
	o := l.Begin(measure.StepQUIC, m)
	defer l.End(o)
	setRemote(l, o, spec.Remote)
	o.SNI, o.Hello = spec.SNI, "go"
	o.TLS = &measure.TLS{Alert: -1}
	if spec.Verify == "" {
		spec.Verify = spec.SNI
	}
	if spec.Timeout <= 0 {
		spec.Timeout = quicTimeout
	}
	pc, err := n.ListenPacket(l.About(ctx, o), netip.AddrPortFrom(unspecified(spec.Remote.Addr()), 0))
	if err != nil {
		fail(ctx, o, err)
		return o
	}
	dm := &datagrams{PacketConn: pc}
	err = quicExchange(ctx, l, o, dm, spec, trust)
	o.TookUS = l.Since(time.Now()) - o.StartUS
	fail(ctx, o, err)
	list := pathErrors(l, pc.PathErrors())
	if list != nil {
		o.TCP = &measure.TCP{ICMP: list}
	}
	pc.Close()
	o.Sent, o.Received = dm.sent.Load(), dm.received.Load()
	return o
}

func quicExchange(ctx context.Context, l *Log, o *measure.Observation, dm *datagrams, spec QUICSpec, trust *Trust) error {
	t := o.TLS
	var (
		mu    sync.Mutex
		raw   [][]byte
		chain []*x509.Certificate
		seen  seenPackets
	)
	conf := &tls.Config{
		ServerName: spec.SNI, NextProtos: []string{http3.NextProtoH3}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, // Trust verifies and records
		VerifyConnection: func(s tls.ConnectionState) error {
			mu.Lock()
			defer mu.Unlock()
			raw, chain = rawChain(s.PeerCertificates), s.PeerCertificates
			return nil
		},
	}
	if spec.Small {
		conf.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
	}
	version := quic.Version1
	if spec.Version2 {
		version = quic.Version2
	}
	if spec.Behind {
		first := make([]byte, 64)
		rand.Read(first) // never fails
		first[0] &= 0x3f // neither a long nor a short header (RFC 9000, 17)
		if _, err := dm.WriteTo(first, net.UDPAddrFromAddrPort(spec.Remote)); err != nil {
			return err
		}
	}
	transport := &quic.Transport{Conn: dm}
	defer transport.Close()
	limited, cancel := context.WithTimeout(ctx, spec.Timeout)
	defer cancel()
	conn, err := transport.Dial(limited, net.UDPAddrFromAddrPort(spec.Remote), conf, &quic.Config{
		Versions:                []quic.Version{version},
		HandshakeIdleTimeout:    spec.Timeout,
		MaxIdleTimeout:          30 * time.Second,
		DisablePathMTUDiscovery: true,
		Tracer: func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace {
			return &seen
		},
	})
	mu.Lock()
	proven, certErr := trust.certificates(t, raw, chain, spec.Verify)
	if raw != nil && t.Public != measure.VerifiedOK && t.Public != "" {
		keepChain(l, raw)
	}
	mu.Unlock()
	t.ServerBytes = seen.authentic.Load()
	if a, ok := alertOf(err); ok {
		t.Alert = a
	}
	if err != nil {
		if classifyCertificate(err) != "" {
			t.Public = measure.VerifyMalformed
		}
		return err
	}
	defer conn.CloseWithError(0x100, "") // H3_NO_ERROR
	s := conn.ConnectionState().TLS
	t.Version, t.Cipher, t.ALPN = tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite), text(s.NegotiatedProtocol, 64)
	if s.CurveID != 0 {
		t.Group = s.CurveID.String()
	}
	if spec.Request == nil {
		return certErr
	}
	if err := http3Request(ctx, o, conn, *spec.Request, proven); err != nil {
		return err
	}
	return certErr
}

// http3Request makes the one request of a connection (RFC 9114).
func http3Request(ctx context.Context, o *measure.Observation, conn *quic.Conn, r Request, proven bool) error {
	h := &measure.HTTP{Proto: "HTTP/3.0"}
	o.HTTP = h
	o.URL = r.URL
	x, err := r.prepare()
	if err != nil {
		return err
	}
	h.Method, o.Host = x.Method, x.authority
	limited, cancel := context.WithTimeout(ctx, x.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(limited, x.Method, x.url.String(), nil)
	if err != nil {
		return err
	}
	req.Host = x.authority
	for _, f := range x.headers() {
		req.Header.Set(f.Name, f.Value)
	}
	tr := &http3.Transport{DisableCompression: true, MaxResponseHeaderBytes: maxHeaderBytes}
	asked := time.Now()
	resp, err := tr.NewClientConn(conn).RoundTrip(req)
	if err != nil {
		return err
	}
	h.FirstByteUS = time.Since(asked).Microseconds()
	defer resp.Body.Close()
	a := &answer{proto: "HTTP/3.0", status: resp.StatusCode}
	for name, values := range resp.Header {
		for _, v := range values {
			a.headers = append(a.headers, measure.Header{Name: strings.ToLower(name), Value: v})
		}
	}
	// The order sent is not visible here.
	slices.SortStableFunc(a.headers, func(a, b measure.Header) int { return strings.Compare(a.Name, b.Name) })
	describe(h, a)
	h.Authenticated = proven
	stalled := &stalling{r: resp.Body, after: x.Stall, cancel: cancel}
	a.body = stalled
	_, err = readPage(h, a, x.Request)
	if err != nil && stalled.fired.Load() {
		err = context.DeadlineExceeded
	}
	return err
}

// stalling cancels an exchange when a read takes too long.
type stalling struct {
	r      io.Reader
	after  time.Duration
	cancel func()
	fired  atomic.Bool
}

func (s *stalling) Read(b []byte) (int, error) {
	t := time.AfterFunc(s.after, func() {
		s.fired.Store(true)
		s.cancel()
	})
	defer t.Stop()
	return s.r.Read(b)
}

// datagrams counts what a QUIC connection sends and receives. Only ReadFrom
// and WriteTo of the socket are used, which no ICMP error disturbs.
type datagrams struct {
	PacketConn
	sent, received atomic.Int64
}

// Close leaves the socket open: the transport closes it before its ICMP
// errors were read.
func (d *datagrams) Close() error { return d.PacketConn.SetReadDeadline(time.Unix(1, 0)) }

// SetReadBuffer and SetWriteBuffer keep the system's sizes, which suffice for
// one request.
func (d *datagrams) SetReadBuffer(int) error  { return nil }
func (d *datagrams) SetWriteBuffer(int) error { return nil }

func (d *datagrams) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := d.PacketConn.ReadFrom(b)
	if n > 0 {
		d.received.Add(int64(n))
	}
	return n, from, err
}

func (d *datagrams) WriteTo(b []byte, to net.Addr) (int, error) {
	n, err := d.PacketConn.WriteTo(b, to)
	d.sent.Add(int64(max(n, 0)))
	return n, err
}

// seenPackets notes whether a packet came that authenticates.
type seenPackets struct{ authentic atomic.Bool }

func (s *seenPackets) AddProducer() qlogwriter.Recorder { return s }
func (s *seenPackets) SupportsSchemas(string) bool      { return false }
func (s *seenPackets) Close() error                     { return nil }

func (s *seenPackets) RecordEvent(e qlogwriter.Event) {
	switch e.(type) {
	case qlog.PacketReceived, *qlog.PacketReceived:
		s.authentic.Store(true)
	}
}
