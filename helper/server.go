// Package helper is the second vantage point that anyone can host: it looks at
// a URL from where it is and answers what it saw, and it is a server that
// answers every name, so that a name can be tested against an address that has
// nothing to do with it. The protocol is docs/formats/helper-v1.md.
//
// A helper keeps nothing: no log of requests, no client addresses, no bodies.
package helper

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"govah/evidence/receipt"
	"govah/wire"
)

// Config is how a helper is run. The zero values are those of a public one.
type Config struct {
	// Network is where the helper measures from. It must be set.
	Network wire.Network
	// Roots verify the certificates of what it looks at; nil verifies nothing.
	Roots *x509.CertPool
	// Resolver is asked over UDP instead of the system's, DoH instead of both.
	Resolver netip.AddrPort
	DoH      *wire.DoH
	// Certificate is presented under every name; nil makes a self-signed one,
	// which clients know by the pin in the helper's URL.
	Certificate *tls.Certificate
	// Receipts signs what clients ask to have signed; nil makes a key that lasts
	// as long as the helper.
	Receipts *receipt.Key
	// Locate finds AS and country of an address; nil: unknown.
	Locate func(netip.Addr) (asn int, country string)
	// Version is put into replies.
	Version string
	// Own addresses are never looked at, besides those it listens on.
	Own []netip.Addr
	// Refuse are further blocks not to look at.
	Refuse []netip.Prefix
	// AllowReserved lets it look at private and reserved addresses. For
	// emulated networks only: on a real one it opens the host's own network.
	AllowReserved bool
	// Ports to connect to; nil: those of the web and of mail clients.
	Ports  []uint16
	Limits Limits
	// SYNTTL is the TTL with which the SYN of an accepted connection arrived,
	// 0 unknown; nil never knows.
	SYNTTL func(net.Conn) int
	// SetTTL sets the TTL of what is sent on an accepted connection from now on,
	// retransmissions included; 0 is the system's. nil cannot.
	SetTTL func(c net.Conn, ttl int) error
	// Now is the clock that is told to clients; nil means time.Now.
	Now func() time.Time
}

// Server is one helper.
type Server struct {
	cfg     Config
	limits  Limits
	limiter *limiter
	policy  policy
	tls     *tls.Config
	pin     string
	name    string // of its certificate
	self    bool   // the certificate is its own
	sign    *receipt.Key
	log     *arrivals
	back    *orders
	mail    []MailListener
}

// New prepares a helper. It opens nothing.
func New(cfg Config) (*Server, error) {
	if cfg.Network == nil {
		return nil, errors.New("helper: no network to measure from")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{cfg: cfg, limits: cfg.Limits.withDefaults(), log: newArrivals(), back: newOrders()}
	s.limiter = newLimiter(s.limits)
	s.policy = policy{allowReserved: cfg.AllowReserved, refuse: cfg.Refuse, ports: cfg.Ports}
	if s.policy.ports == nil {
		s.policy.ports = defaultPorts
	}
	for _, a := range cfg.Own {
		s.policy.own = append(s.policy.own, a.Unmap().WithZone(""))
	}
	if s.sign = cfg.Receipts; s.sign == nil {
		made, _, err := receipt.NewKey()
		if err != nil {
			return nil, fmt.Errorf("helper: %w", err)
		}
		s.sign = made
	}
	cert := cfg.Certificate
	if cert == nil {
		made, err := selfSigned(cfg.Now())
		if err != nil {
			return nil, fmt.Errorf("helper: making a certificate: %w", err)
		}
		cert, s.self = made, true
	}
	if len(cert.Certificate) == 0 {
		return nil, errors.New("helper: the certificate is empty")
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("helper: reading the certificate: %w", err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	s.pin = hex.EncodeToString(sum[:])
	s.name = "localhost"
	if len(leaf.DNSNames) > 0 {
		s.name = strings.TrimPrefix(leaf.DNSNames[0], "*.")
	}
	s.tls = &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return cert, nil // whatever the name
		},
	}
	return s, nil
}

// Pin is the SHA-256 of the public key (SPKI) that the helper presents, in hex.
func (s *Server) Pin() string { return s.pin }

// URL is what to give to clients: with the pin if the certificate is
// self-signed, and with the public key of its receipts, except where the one
// is kept and the other is not: the URL of such a helper stays the same.
func (s *Server) URL(authority string) string {
	u := "https://" + authority + "/"
	key := "receipt=" + s.sign.Public()
	switch {
	case s.self:
		return u + "#sha256=" + s.pin + "&" + key
	case s.cfg.Receipts != nil:
		return u + "#" + key
	}
	return u
}

// selfSigned makes a certificate of no name.
func selfSigned(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(5, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// Listeners are where a helper is reached. On each TCP listener it answers
// TLS, plain HTTP and, silently, any other first bytes; on UDP HTTP/3; on those
// for mail it greets. They are closed by Serve.
type Listeners struct {
	TCP  []net.Listener
	UDP  []net.PacketConn
	Mail []MailListener
}

// Close closes all of them.
func (l Listeners) Close() {
	for _, tcp := range l.TCP {
		tcp.Close()
	}
	for _, udp := range l.UDP {
		udp.Close()
	}
	for _, m := range l.Mail {
		m.Close()
	}
}

// Serve answers until ctx is done, when it closes everything and returns nil
// after the last request has ended; or until a listener fails.
func (s *Server) Serve(ctx context.Context, l Listeners) error {
	if len(l.TCP) == 0 {
		return errors.New("helper: no TCP listener")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, listener := range l.TCP {
		s.addOwn(listener.Addr())
	}
	for _, pc := range l.UDP {
		s.addOwn(pc.LocalAddr())
	}
	for _, m := range l.Mail {
		s.addOwn(m.Addr())
	}
	s.mail = l.Mail
	quiet := log.New(io.Discard, "", 0) // net/http's would hold client addresses
	secure := newQueue(l.TCP[0].Addr())
	plain := newQueue(l.TCP[0].Addr())
	server := &http.Server{
		Handler: s.handler(), ErrorLog: quiet, TLSConfig: s.tls.Clone(), MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 60 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if p, ok := c.(*peeked); ok {
				return context.WithValue(ctx, rawKey{}, p)
			}
			return ctx
		},
	}
	server.TLSConfig.NextProtos = []string{"h2", "http/1.1"}
	var h3 *http3.Server
	if len(l.UDP) > 0 {
		h3 = &http3.Server{
			Handler: s.handler(), TLSConfig: http3.ConfigureTLSConfig(s.tls.Clone()), MaxHeaderBytes: 16 << 10,
			IdleTimeout: 60 * time.Second, Logger: slog.New(slog.DiscardHandler),
			QUICConfig: &quic.Config{MaxIdleTimeout: 30 * time.Second, HandshakeIdleTimeout: 10 * time.Second, MaxIncomingStreams: 16,
				DisablePathMTUDiscovery: true},
		}
		if p := portOf(l.UDP[0].LocalAddr()); p != 0 {
			h3.Port = p
			inner := server.Handler
			server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Alt-Svc", `h3=":`+strconv.Itoa(p)+`"; ma=86400`)
				inner.ServeHTTP(w, r)
			})
		}
	}
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	end := func(err error) {
		once.Do(func() {
			if ctx.Err() == nil {
				first = err
			}
			cancel()
		})
	}
	wg.Go(func() { s.forget(ctx) })
	wg.Go(func() { end(server.ServeTLS(secure, "", "")) })
	wg.Go(func() { end(server.Serve(plain)) })
	for _, pc := range l.UDP {
		wg.Go(func() { end(h3.Serve(pc)) })
	}
	for _, listener := range l.TCP {
		wg.Go(func() {
			end(accept(ctx, listener, func(c net.Conn) { s.sort(ctx, c, secure, plain, &wg) }))
		})
	}
	for _, m := range l.Mail {
		wg.Go(func() { end(accept(ctx, m, func(c net.Conn) { wg.Go(func() { s.greet(ctx, m, c) }) })) })
	}
	<-ctx.Done()
	server.Close()
	secure.Close()
	plain.Close()
	if h3 != nil {
		h3.Close()
	}
	l.Close()
	wg.Wait()
	return first
}

// addOwn makes an address that it listens on one not to look at.
func (s *Server) addOwn(a net.Addr) {
	if a := addrOf(a); a.IsValid() && !a.IsUnspecified() && !slices.Contains(s.policy.own, a) {
		s.policy.own = append(s.policy.own, a)
	}
}

func portOf(a net.Addr) int {
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(port)
	return n
}

// accept hands out connections until the listener is closed.
func accept(ctx context.Context, l net.Listener, take func(net.Conn)) error {
	var pause time.Duration
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			// Out of file descriptors, for example: that passes.
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() {
				pause = min(max(2*pause, 5*time.Millisecond), time.Second)
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
				continue
			}
			return fmt.Errorf("helper: accepting on %v: %w", l.Addr(), err)
		}
		pause = 0
		take(c)
	}
}

// sort sorts a connection by its first bytes.
func (s *Server) sort(ctx context.Context, c net.Conn, secure, plain *queue, wg *sync.WaitGroup) {
	// An emulated stack forgets them with the connection.
	p := &peeked{Conn: c, local: c.LocalAddr(), remote: c.RemoteAddr(), log: s.log}
	if p.remote == nil || p.local == nil {
		c.Close()
		return
	}
	if p.done = s.limiter.connection(addrOf(p.remote)); p.done == nil {
		c.Close()
		return
	}
	ttl := 0
	if s.cfg.SYNTTL != nil {
		ttl = s.cfg.SYNTTL(c)
	}
	p.entry = s.log.open(s.limiter.id(addrOf(p.remote)), portOf(p.remote), ttl)
	wg.Go(func() {
		stop := context.AfterFunc(ctx, func() { p.Close() })
		defer stop()
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		switch p.kind() {
		case kindTLS:
			c.SetReadDeadline(time.Time{})
			secure.put(ctx, p)
		case kindHTTP:
			c.SetReadDeadline(time.Time{})
			if !bytes.HasPrefix(p.first, []byte("GET ")) && !bytes.HasPrefix(p.first, []byte("HEAD ")) {
				s.log.count(p.entry, p.first)
			}
			plain.put(ctx, p)
		default:
			p.swallow()
			p.Close()
		}
	})
}

// forget drops every quarter of a minute what has had its time, also when
// nobody comes.
func (s *Server) forget(ctx context.Context) {
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.limiter.mu.Lock()
			s.limiter.sweep(now)
			s.limiter.mu.Unlock()
			s.log.mu.Lock()
			s.log.forget(now)
			s.log.mu.Unlock()
			s.back.mu.Lock()
			s.back.forget(now)
			s.back.mu.Unlock()
		}
	}
}

// queue is a listener that hands out connections accepted elsewhere.
type queue struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newQueue(addr net.Addr) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (q *queue) put(ctx context.Context, c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.closed:
		c.Close()
	case <-ctx.Done():
		c.Close()
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

func (q *queue) Addr() net.Addr { return q.addr }
