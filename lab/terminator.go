package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"govah/lab/box"
	"govah/packet"
)

// terminator is a device on the client's path that ends TCP connections
// itself: an interceptor of TLS or SSH, a transparent proxy or a captive portal.
type terminator struct {
	w     *World
	stack *stack.Stack
	link  *link
	at    int // index among the client's elements
	out   *host
	tls   *Intercept
	web   *WebProxy
	mail  *MailDevice
	tcp   *TCPProxy
	ssh   *SSHIntercept
	login bool

	cacheMu sync.Mutex
	cache   map[string][]byte // answers by host and target
}

// kept is the answer that is kept for a page, nil if none is.
func (t *terminator) kept(page string) []byte {
	t.cacheMu.Lock()
	defer t.cacheMu.Unlock()
	return t.cache[page]
}

func (t *terminator) keep(page string, answer []byte) {
	t.cacheMu.Lock()
	defer t.cacheMu.Unlock()
	if t.cache == nil {
		t.cache = map[string][]byte{}
	}
	t.cache[page] = answer
}

func newTerminator(w *World, at, hop int) (*terminator, error) {
	t := &terminator{w: w, at: at, login: w.Client.Captive && hop == 0}
	if i := w.Client.Intercept; i != nil && i.At == hop {
		t.tls = i
	}
	if p := w.Client.WebProxy; p != nil && p.At == hop {
		t.web = p
	}
	if m := w.Client.Mail; m != nil && m.At == hop {
		t.mail = m
	}
	if p := w.Client.TCPProxy; p != nil && p.At == hop {
		t.tcp = p
	}
	if i := w.Client.SSH; i != nil && i.At == hop {
		t.ssh = i
	}
	s, l, err := newStack(func(b []byte) {
		p, err := packet.Parse(b)
		if err != nil {
			return
		}
		w.schedule(b, w.pathTo(p.Src), t.at-1, box.In, 0)
	}, true)
	if err != nil {
		return nil, err
	}
	t.stack, t.link = s, l
	f := tcp.NewForwarder(s, 0, 1024, t.accept)
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, f.HandlePacket)
	// It connects onward from an address of the operator's own.
	b4 := w.Client.v4.As4()
	b6 := w.Client.v6.As16()
	b6[14], b6[15] = 0xfd, byte(hop+1)
	own := []netip.Addr{netip.AddrFrom4([4]byte{b4[0], b4[1], 253, byte(hop + 1)}), netip.AddrFrom16(b6)}
	for _, a := range own {
		if err := addAddress(w.servers, a); err != nil {
			return nil, err
		}
	}
	t.out = newHost(w, w.servers, own)
	return t, nil
}

// take decides about a packet from the client's side.
func (t *terminator) take(d box.Direction, pkt []byte) bool {
	if d != box.Out {
		return false
	}
	p, err := packet.Parse(pkt)
	if err != nil || p.Proto != packet.TCP {
		// A portal lets names through and nothing else.
		return t.login && err == nil && !(p.Proto == packet.UDP && p.DstPort == 53)
	}
	if t.w.inside[p.Dst] {
		return false
	}
	if t.login || t.web != nil && p.DstPort == 80 || t.wantsTLS(&p) || t.wantsMail(&p) || p.DstPort == 22 && t.wantsSSH(p.Dst) || t.relays(int(p.DstPort)) {
		t.link.deliver(pkt)
		return true
	}
	return false
}

func (t *terminator) wantsTLS(p *packet.Packet) bool {
	return t.tls != nil && p.DstPort == 443 && (!t.tls.Late || p.Flags&packet.SYN == 0 || t.outlives(p))
}

// outlives says whether a packet has a TTL that reaches the server.
func (t *terminator) outlives(p *packet.Packet) bool {
	routers := 0
	for _, e := range t.w.pathTo(p.Dst)[t.at+1:] {
		if e.v4 != nil {
			routers++
		}
	}
	return int(p.TTL) > routers
}

func (t *terminator) accept(r *tcp.ForwarderRequest) {
	id := r.ID()
	server := netip.AddrPortFrom(addrOf(id.LocalAddress), id.LocalPort)
	if t.login && server.Port() != 80 {
		r.Complete(true)
		return
	}
	web, tls := t.web != nil && server.Port() == 80, t.tls != nil && server.Port() == 443
	eager := web && t.web.Eager || tls && t.tls.Eager || !web && !tls && t.relays(int(server.Port()))
	if !t.login && !eager && !t.w.mounted(server) {
		// A proxy that could not connect would not accept either.
		if _, verdict := t.w.service(server, netip.AddrPort{}); verdict != "" {
			r.Complete(verdict == "refused")
			return
		}
	}
	c := admit(r, server)
	switch {
	case c == nil:
	case t.login:
		go t.portal(c)
	case tls:
		go t.intercept(c, server)
	case t.mail != nil && slices.Contains(t.mail.Ports, int(server.Port())):
		go t.meddle(c, server)
	case server.Port() == 22 && t.wantsSSH(server.Addr()):
		go t.interceptSSH(c, server)
	case web:
		go t.proxy(c, server)
	default:
		go t.relay(c, server)
	}
}

// relays says whether the device ends connections to a port without looking
// into them.
func (t *terminator) relays(port int) bool {
	return t.tcp != nil && (len(t.tcp.Ports) == 0 || slices.Contains(t.tcp.Ports, port))
}

// relay passes bytes on, unread.
func (t *terminator) relay(c *serverConn, server netip.AddrPort) {
	defer c.Close()
	up, err := t.dial(server)
	if err != nil {
		c.reset()
		return
	}
	defer up.Close()
	splice(c, up)
}

func (t *terminator) portal(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
		return
	}
	io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: http://login.hotel.example/?continue=1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

func (t *terminator) dial(server netip.AddrPort) (net.Conn, error) {
	patience := 10 * time.Second
	if t.web != nil && t.web.Eager {
		patience = 2 * time.Second // its client waits for an answer
	}
	ctx, cancel := context.WithTimeout(t.w.ctx, patience)
	defer cancel()
	return t.out.Dial(ctx, dialSpec(server))
}

// intercept reads the ClientHello, and either re-signs or splices.
func (t *terminator) intercept(c *serverConn, server netip.AddrPort) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	var head []byte
	buf := make([]byte, 4096)
	var hello *packet.ClientHello
	for len(head) < 32<<10 {
		n, err := c.Read(buf)
		head = append(head, buf[:n]...)
		// What has come of a longer one is no whole: the name may be in the rest.
		h, perr := packet.ParseClientHelloStream(head)
		if perr == nil {
			hello = h
		}
		if !errors.Is(perr, packet.ErrMore) || err != nil {
			break
		}
	}
	up, err := t.dial(server)
	if err != nil {
		c.reset()
		return
	}
	defer up.Close()
	up.SetDeadline(time.Now().Add(60 * time.Second))
	if hello == nil || !wants(t.tls.Names, hello.SNI) {
		up.Write(head)
		splice(c, up)
		return
	}
	name := hello.SNI
	if name == "" {
		name = server.Addr().String()
	}
	// A good imitation speaks what the client offered and the server takes.
	protos := []string{"http/1.1"}
	if t.tls.Signs == "well" && len(hello.ALPN) > 0 {
		protos = hello.ALPN
	}
	// Unless it is told to, it verifies nothing: it takes what the server shows.
	upTLS := tls.Client(up, &tls.Config{ServerName: hello.SNI, InsecureSkipVerify: true, NextProtos: protos})
	if err := upTLS.HandshakeContext(t.w.ctx); err != nil {
		c.reset()
		return
	}
	state := upTLS.ConnectionState()
	if t.tls.Verifies && !t.w.proves(state.PeerCertificates, name) {
		up.Close()
		again, err := t.dial(server)
		if err != nil {
			c.reset()
			return
		}
		defer again.Close()
		again.SetDeadline(time.Now().Add(60 * time.Second))
		again.Write(head)
		splice(c, again)
		return
	}
	cert, err := t.w.evil.resign(name, state.PeerCertificates[0], t.tls)
	if err != nil {
		return
	}
	config := &tls.Config{Certificates: []tls.Certificate{*cert}}
	if state.NegotiatedProtocol != "" {
		config.NextProtos = []string{state.NegotiatedProtocol}
	}
	down := tls.Server(&replay{Conn: c, r: io.MultiReader(bytes.NewReader(head), c)}, config)
	if err := down.HandshakeContext(t.w.ctx); err != nil {
		return
	}
	splice(down, upTLS)
}

// proves says whether a chain proves a name against the world's public roots.
func (w *World) proves(chain []*x509.Certificate, name string) bool {
	o := x509.VerifyOptions{Roots: w.ca.pool(), Intermediates: x509.NewCertPool(), CurrentTime: w.at, DNSName: name}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(o)
	return err == nil
}

func wants(names []string, name string) bool {
	if len(names) == 0 {
		return true
	}
	for _, n := range names {
		if n == name || strings.HasPrefix(n, ".") && strings.HasSuffix("."+name, n) {
			return true
		}
	}
	return false
}

type replay struct {
	net.Conn
	r io.Reader
}

func (r *replay) Read(b []byte) (int, error) { return r.r.Read(b) }

func splice(a, b net.Conn) {
	done := make(chan struct{}, 2)
	go func() { io.Copy(a, b); a.Close(); done <- struct{}{} }()
	go func() { io.Copy(b, a); b.Close(); done <- struct{}{} }()
	<-done
	<-done
}

// home is where a name is at home, by the family and port that were meant.
func (t *terminator) home(name string, meant netip.AddrPort) netip.AddrPort {
	if a, err := netip.ParseAddr(name); err == nil {
		return netip.AddrPortFrom(a, meant.Port())
	}
	if s := find(t.w.Scenario.Sites, name); s != nil {
		for _, a := range s.AllAddresses() {
			if a.Is4() == meant.Addr().Is4() {
				return netip.AddrPortFrom(a, meant.Port())
			}
		}
	}
	return netip.AddrPort{}
}

// fail is a proxy's page that says so.
func fail(w io.Writer, status string) {
	page := "<html><head><title>" + status + "</title></head><body>The requested URL could not be retrieved.</body></html>"
	fmt.Fprintf(w, "HTTP/1.1 %s\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", status, len(page), page)
}

// proxy answers for a web server, changing what it is set to change.
func (t *terminator) proxy(c *serverConn, server netip.AddrPort) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	var raw bytes.Buffer
	from := io.Reader(c)
	if t.web.Verbatim {
		from = io.TeeReader(c, &raw)
	}
	in := bufio.NewReader(from)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
				io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nServer: cache\r\nContent-Type: text/html\r\nContent-Length: 19\r\nConnection: close\r\n\r\n<h1>Bad Request</h1")
			}
			return
		}
		if t.web.Verbatim {
			up, err := t.dial(server)
			if err != nil {
				io.Copy(io.Discard, c)
				return
			}
			defer up.Close()
			up.Write(raw.Bytes())
			splice(c, up)
			return
		}
		host := strings.ToLower(req.Host)
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		mine, last := wants(t.web.Names, host), req.Close
		if mine && t.web.Page != "" {
			io.Copy(io.Discard, io.LimitReader(req.Body, 1<<20))
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nServer: nginx\r\nContent-Length: %d\r\n\r\n%s", len(t.web.Page), t.web.Page)
			if last {
				return
			}
			continue
		}
		page := host + req.URL.RequestURI()
		if kept := t.kept(page); kept != nil && req.Method == http.MethodGet {
			if _, err := c.Write(kept); err != nil || last {
				return
			}
			continue
		}
		for _, line := range t.web.Adds {
			name, value, _ := strings.Cut(line, ": ")
			req.Header.Set(name, value)
		}
		to := server
		if t.web.ByHost {
			if to = t.home(host, server); !to.IsValid() {
				fail(c, "502 Bad Gateway")
				return
			}
		}
		up, err := t.dial(to)
		if err != nil && t.web.Eager {
			fail(c, "504 Gateway Timeout")
			return
		}
		if err != nil {
			c.reset()
			return
		}
		up.SetDeadline(time.Now().Add(60 * time.Second))
		if t.web.Via != "" {
			req.Header.Add("Via", t.web.Via)
		}
		req.Header.Set("Connection", "close")
		req.Close = true
		if err := req.Write(up); err != nil {
			up.Close()
			return
		}
		res, err := http.ReadResponse(bufio.NewReader(up), req)
		if err != nil {
			up.Close()
			return
		}
		body, _ := io.ReadAll(io.LimitReader(res.Body, 8<<20))
		up.Close()
		if t.web.Via != "" {
			res.Header.Add("Via", t.web.Via)
		}
		if mine && t.web.Tamper == "script" {
			body = bytes.Replace(body, []byte("</body>"), []byte(`<script src="http://ads.operator.example/inject.js"></script></body>`), 1)
		}
		if mine && t.web.Tamper == "header" {
			res.Header.Set("X-Operator-Id", "0123456789")
		}
		res.Header.Del("Connection")
		res.TransferEncoding, res.ContentLength = nil, int64(len(body))
		res.Header.Set("Content-Length", strconv.Itoa(len(body)))
		res.Body = io.NopCloser(bytes.NewReader(body))
		res.Close = last
		if req.Method == http.MethodHead {
			res.Body = http.NoBody
		}
		var whole bytes.Buffer
		if err := res.Write(&whole); err != nil {
			return
		}
		if t.web.Caches && req.Method == http.MethodGet && res.StatusCode == http.StatusOK {
			t.keep(page, whole.Bytes())
		}
		if _, err := c.Write(whole.Bytes()); err != nil || last {
			return
		}
	}
}
