package lab

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"govah/packet"
	"govah/wire"
)

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// serverConn is an accepted connection with the errors of the kernel.
type serverConn struct {
	*gonet.TCPConn
	ep            tcpip.Endpoint
	local, remote net.Addr
	reset         func()
}

func (c *serverConn) LocalAddr() net.Addr  { return c.local }
func (c *serverConn) RemoteAddr() net.Addr { return c.remote }
func (c *serverConn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	return n, convert(err)
}
func (c *serverConn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	return n, convert(err)
}

// serve starts what listens.
func (w *World) serve() error {
	f := tcp.NewForwarder(w.servers, 0, backlog, w.accept)
	w.servers.SetTransportProtocolHandler(tcp.ProtocolNumber, f.HandlePacket)
	for _, t := range w.Scenario.Sites {
		if t.Role == "nowhere" || t.Dead != "" {
			continue
		}
		if t.H3 {
			for _, a := range t.AllAddresses() {
				if err := w.serveQUIC(t, a); err != nil {
					return err
				}
			}
		}
		if t.Role == "resolver" || t.Role == "doh" {
			for _, a := range t.AllAddresses() {
				if err := w.serveDNS(a, w.resolverOf(t, a)); err != nil {
					return err
				}
			}
		}
	}
	return w.serveDNS(w.Client.resolver, w.operators())
}

// accept decides about a SYN to any server address.
func (w *World) accept(r *tcp.ForwarderRequest) {
	id := r.ID()
	local := netip.AddrPortFrom(addrOf(id.LocalAddress), id.LocalPort)
	remote := netip.AddrPortFrom(addrOf(id.RemoteAddress), id.RemotePort)
	handle, verdict := w.service(local, remote)
	switch {
	case verdict == "silent":
		r.Complete(false)
		return
	case handle == nil:
		r.Complete(true)
		return
	}
	if c := admit(r, local); c != nil {
		go handle(c)
	}
}

// service finds what listens at an address and port.
func (w *World) service(local, remote netip.AddrPort) (handle func(*serverConn), verdict string) {
	sites := w.owners[local.Addr()]
	if r := w.redirect; local == netip.AddrPortFrom(w.Client.resolver, 53) || r != nil && local.Port() == 53 && (local.Addr() == r.v4 || local.Addr() == r.v6) {
		return func(c *serverConn) { w.operators().serveTCP(c) }, ""
	}
	if len(sites) == 0 {
		return nil, "refused"
	}
	t := sites[0]
	switch {
	case t.Role == "nowhere", t.Dead == "silent":
		return nil, "silent"
	case t.Dead == "refused":
		return nil, "refused"
	case t.Broken6 && local.Addr().Is6():
		return nil, "silent"
	}
	if r := w.resolverOf(t, local.Addr()); t.Role == "resolver" || t.Role == "doh" {
		switch local.Port() {
		case 53:
			return func(c *serverConn) { r.serveTCP(c) }, ""
		case 853:
			return func(c *serverConn) { r.serveTCP(tls.Server(c, w.tlsConfig(t, []string{"dot"}))) }, ""
		}
	}
	for _, m := range t.Mail {
		if m.Port == int(local.Port()) {
			return func(c *serverConn) { w.serveMail(c, t, m) }, ""
		}
	}
	if t.SSH != nil && int(local.Port()) == t.SSH.Port {
		return func(c *serverConn) { w.serveSSH(c, t) }, ""
	}
	if slices.Contains(t.Ports, int(local.Port())) {
		return func(c *serverConn) { banner(c, t) }, ""
	}
	switch local.Port() {
	case 80:
		if t.HTTP == "closed" {
			return nil, "refused"
		}
		if t.HTTP == "none" {
			return nil, "silent"
		}
		return func(c *serverConn) { w.serveHTTP(c, sites, false) }, ""
	case 443:
		if t.HTTPS == "closed" {
			return nil, "refused"
		}
		if t.HTTPS == "none" {
			return nil, "silent"
		}
		return func(c *serverConn) { w.serveTLS(c, sites) }, ""
	}
	return nil, "refused"
}

func banner(c *serverConn, t *Site) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if t.Banner != "" {
		io.WriteString(c, t.Banner+"\r\n")
	}
	io.Copy(io.Discard, io.LimitReader(c, 1<<20))
}

// find picks the site that a name means among those, nil if it is none of them.
func find(sites []*Site, name string) *Site {
	for _, t := range sites {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// unrecognizedName is the alert for a name that a server does not have (RFC
// 6066, 3); crypto/tls has no way to send it.
var unrecognizedName = []byte{21, 3, 3, 0, 2, 2, 112}

var errUnknownName = errors.New("unrecognized name")

func (w *World) tlsConfig(t *Site, protos []string) *tls.Config {
	c := &tls.Config{
		NextProtos: protos,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			number := 0
			if t.Certs > 1 {
				w.turnMu.Lock()
				number = w.shown[t] % t.Certs
				w.shown[t]++
				w.turnMu.Unlock()
			}
			if t.Cert == "private" {
				return w.company.issue("ok", t.Name, number)
			}
			kind := t.Cert
			if t.Key == "rsa" {
				kind += " rsa"
			}
			return w.ca.issue(kind, t.Name, number)
		},
	}
	if t.TLS12 {
		c.MaxVersion = tls.VersionTLS12
	}
	return c
}

func (w *World) serveTLS(c *serverConn, sites []*Site) {
	var chosen *Site
	first := sites[0]
	reset := false
	config := &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		chosen = find(sites, strings.ToLower(h.ServerName))
		if chosen == nil {
			switch first.Unknown {
			case "alert":
				c.Write(unrecognizedName)
				c.Close()
				return nil, errUnknownName
			case "reset":
				reset = true
				c.reset()
				return nil, errUnknownName
			case "close":
				c.Close()
				return nil, errUnknownName
			}
			return w.tlsConfig(first, []string{"h2", "http/1.1"}), nil
		}
		if w.refuses(chosen, c.remote) && chosen.Refuses == "reset" {
			reset = true
			c.reset()
			return nil, errUnknownName
		}
		return w.tlsConfig(chosen, []string{"h2", "http/1.1"}), nil
	}}
	tc := tls.Server(c, config)
	ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		if !reset {
			c.Close()
		}
		return
	}
	w.serveHTTP(tc, sites, true)
}

// oneConn hands one connection to http.Server.
type oneConn struct {
	conn net.Conn
	done chan struct{}
	once sync.Once
	got  bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	if !l.got {
		l.got = true
		return l.conn, nil
	}
	<-l.done
	return nil, net.ErrClosed
}
func (l *oneConn) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

var quiet = log.New(io.Discard, "", 0)

func (w *World) serveHTTP(c net.Conn, sites []*Site, secure bool) {
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.answer(rw, r, sites, secure) })
	l := &oneConn{conn: c, done: make(chan struct{})}
	srv := &http.Server{Handler: handler, ErrorLog: quiet, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 60 * time.Second,
		// A connection that is a *tls.Conn with h2 negotiated is served as HTTP/2.
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
				l.Close()
			}
		}}
	stop := context.AfterFunc(w.ctx, func() { srv.Close() })
	defer stop()
	srv.Serve(l)
}

func (w *World) serveQUIC(t *Site, a netip.Addr) error {
	h := newHost(w, w.servers, []netip.Addr{a})
	pc, err := h.listenPacket(netip.AddrPortFrom(a, 443))
	if err != nil {
		return fmt.Errorf("lab: listening for QUIC at %s: %w", a, err)
	}
	sites := w.owners[a]
	config := http3.ConfigureTLSConfig(&tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		s := find(sites, strings.ToLower(h.ServerName))
		if s == nil {
			if t.Unknown != "" && t.Unknown != "default" {
				return nil, errUnknownName
			}
			s = t
		}
		return w.tlsConfig(s, []string{"h3"}), nil
	}})
	tr := &quic.Transport{Conn: pc}
	ln, err := tr.ListenEarly(config, &quic.Config{DisablePathMTUDiscovery: true, MaxIdleTimeout: 30 * time.Second})
	if err != nil {
		return fmt.Errorf("lab: listening for QUIC at %s: %w", a, err)
	}
	srv := &http3.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.answer(rw, r, sites, true) })}
	go srv.ServeListener(ln)
	w.close = append(w.close, func() { srv.Close(); ln.Close(); tr.Close(); pc.Close() })
	return nil
}

func (w *World) refuses(t *Site, remote net.Addr) bool {
	var a netip.Addr
	switch r := remote.(type) {
	case *net.TCPAddr:
		a = r.AddrPort().Addr()
	case *net.UDPAddr:
		a = r.AddrPort().Addr()
	}
	asn, country := w.ASN(a)
	return slices.Contains(t.Blocks, country) || slices.Contains(t.BlockASNs, asn)
}

// answer is a site's own behaviour.
func (w *World) answer(rw http.ResponseWriter, r *http.Request, sites []*Site, secure bool) {
	host := strings.ToLower(r.Host)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	rw.Header().Set("Server", "lab")
	rw.Header().Set("Date", w.at.Add(time.Since(w.began)).UTC().Format(http.TimeFormat))
	t := find(sites, host)
	if t == nil {
		// An ordinary server's answer to a name it does not know.
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		rw.WriteHeader(http.StatusNotFound)
		io.WriteString(rw, "<html><head><title>Not found</title></head><body><h1>404</h1><p>No such site here.</p></body></html>")
		return
	}
	var remote net.Addr
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		remote = net.TCPAddrFromAddrPort(ap)
	}
	if t.slow > 0 {
		select {
		case <-time.After(t.slow):
		case <-r.Context().Done():
			return
		}
	}
	if t.Role == "captive-check" {
		rw.WriteHeader(http.StatusNoContent)
		return
	}
	if t.Role == "doh" && r.URL.Path == "/dns-query" {
		w.doh(rw, r, t)
		return
	}
	if w.refuses(t, remote) {
		status := 403
		if t.Refuses == "451" {
			status = 451
		}
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		rw.WriteHeader(status)
		io.WriteString(rw, "<html><head><title>Not available</title></head><body><p>This service is not available in your region.</p></body></html>")
		return
	}
	if !secure && t.HTTP != "same" && t.HTTPS == "" {
		rw.Header().Set("Location", "https://"+t.Name+r.URL.RequestURI())
		rw.WriteHeader(http.StatusMovedPermanently)
		return
	}
	if t.Redirect != "" && r.URL.Path == "/" {
		rw.Header().Set("Location", t.Redirect)
		rw.WriteHeader(http.StatusFound)
		return
	}
	if t.H3 {
		rw.Header().Set("Alt-Svc", `h3=":443"; ma=86400`)
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	body := t.body(r, w)
	rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if t.Status != 0 {
		rw.WriteHeader(t.Status)
	}
	if r.Method != http.MethodHead {
		io.WriteString(rw, body)
	}
}

var words = strings.Fields("river stone market letter window garden bread winter signal harbour copper village paper music bridge morning forest engine salt river mountain lamp history school train doctor island summer orange field")

// body is a page of the site's size, the same each time unless it varies.
func (t *Site) body(r *http.Request, w *World) string {
	if t.Page == "captcha" {
		return `<html><head><title>Just a moment...</title></head><body><form id="challenge-form" action="/cdn-cgi/challenge"><div class="cf-turnstile"></div>Checking if the site connection is secure. Please complete the CAPTCHA.</form></body></html>`
	}
	if t.Page != "" {
		return t.Page
	}
	size := t.Size
	if size == 0 {
		size = 20000
	}
	seed := uint64(len(t.Name))
	for _, c := range []byte(t.Name) {
		seed = seed*131 + uint64(c)
	}
	extra := ""
	switch t.Varies {
	case "language":
		if _, country := w.ASN(remoteOf(r)); country != "" {
			extra = country
			for _, c := range []byte(country) {
				seed = seed*131 + uint64(c)
			}
		}
	case "time":
		extra = time.Now().Format(time.RFC3339Nano)
	case "random":
		extra = strconv.FormatUint(rand.Uint64(), 36)
	}
	g := rand.New(rand.NewPCG(seed, 7))
	var b strings.Builder
	fmt.Fprintf(&b, "<html><head><title>%s</title></head><body><h1>Welcome to %s</h1><p>%s</p>\n", t.Name, t.Name, extra)
	for b.Len() < size-20 {
		b.WriteString(words[g.IntN(len(words))])
		b.WriteByte(' ')
	}
	b.WriteString("</body></html>")
	return b.String()
}

func remoteOf(r *http.Request) netip.Addr {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return ap.Addr()
}

// Mount is a host of the lab on which something else can be run, such as a
// test helper.
type Mount struct {
	w    *World
	site *Site
	host *host
}

// Host finds a site to mount something on.
func (w *World) Host(name string) (*Mount, error) {
	t := w.sites[name]
	if t == nil {
		return nil, fmt.Errorf("scenario %s has no site %q", w.Scenario.Name, name)
	}
	h := newHost(w, w.servers, t.AllAddresses())
	h.roots = w.ca.pool()
	h.view.Lookup = true
	country := t.net.Country
	h.lookup = func(ctx context.Context, name string) ([]netip.Addr, error) { return w.resolveFor(name, country) }
	return &Mount{w: w, site: t, host: h}, nil
}

// Privilege lets the host capture packets. It is given before anything is said.
func (m *Mount) Privilege() {
	m.host.view.Capture = true
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	list := []*host{m.host}
	if had := m.w.watching.Load(); had != nil {
		list = append(list, *had...)
	}
	m.w.watching.Store(&list)
}

// SetTTL gives what is sent on a connection that Listen accepted a TTL from now
// on, retransmissions included; 0 is the default.
func (m *Mount) SetTTL(c net.Conn, ttl int) error {
	s, ok := c.(*serverConn)
	if !ok {
		return fmt.Errorf("lab: %T was not accepted here: %w", c, errors.ErrUnsupported)
	}
	return setTTL(s.ep, s.remote.(*net.TCPAddr).AddrPort().Addr().Is6(), ttl)
}

// watched gives privileged hosts the packets that they send or get.
func (w *World) watched(sent bool, pkt []byte) {
	list := w.watching.Load()
	if list == nil || !slices.ContainsFunc(*list, (*host).capturing) {
		return
	}
	p, err := packet.Parse(pkt)
	if err != nil {
		return
	}
	at := p.Dst
	if sent {
		at = p.Src
	}
	for _, h := range *list {
		if slices.Contains(h.addrs, at) {
			h.record(sent, &p)
		}
	}
}

// Addresses are the host's own.
func (m *Mount) Addresses() []netip.Addr { return m.site.AllAddresses() }

// Network is the host as a place to measure from.
func (m *Mount) Network() wire.Network { return m.host }

// Issue gives a certificate of the lab's public CA.
func (m *Mount) Issue(name string) (*tls.Certificate, error) { return m.w.ca.issue("ok", name, 0) }

// Listen takes TCP connections to a port of one of the host's addresses.
func (m *Mount) Listen(ap netip.AddrPort) (net.Listener, error) {
	if !slices.Contains(m.site.AllAddresses(), ap.Addr()) {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: syscall.EADDRNOTAVAIL}
	}
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if m.w.listeners[ap] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: syscall.EADDRINUSE}
	}
	l, err := m.w.listen(ap, func() {
		m.w.mu.Lock()
		delete(m.w.listeners, ap)
		m.w.mu.Unlock()
	})
	if err != nil {
		return nil, err
	}
	m.w.listeners[ap] = l
	return l, nil
}

// mounted says whether something was mounted at an address and port.
func (w *World) mounted(at netip.AddrPort) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.listeners[at] != nil
}

// ListenPacket takes UDP datagrams to a port of one of the host's addresses.
func (m *Mount) ListenPacket(ap netip.AddrPort) (wire.PacketConn, error) {
	return m.host.listenPacket(ap)
}
