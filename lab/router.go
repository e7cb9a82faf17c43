package lab

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"govah/lab/box"
	"govah/packet"
)

// Router is what one of the operator's routers has for who connects to it. A
// router without one takes no notice of what is addressed to it.
type Router struct {
	At       int        `toml:"at"`   // which, from 1
	Drop     bool       `toml:"drop"` // ports without a service are silent, not refused
	Services []*Service `toml:"service"`
}

// Service is what a router says on some of its ports.
type Service struct {
	Ports    []int    `toml:"ports"`
	Greeting string   `toml:"greeting"` // said before it is spoken to
	Page     string   `toml:"page"`     // the answer to any HTTP request
	Status   string   `toml:"status"`   // of it, "" is 200 OK
	Headers  []string `toml:"header"`
	Subject  string   `toml:"subject"` // TLS, with a certificate for CN=…,OU=…,O=… that it signs itself
	Endless  bool     `toml:"endless"` // greeting or page again and again, without end
}

func (r *Router) check(where string, hops int, c *checker) {
	where = fmt.Sprintf("%s: the router at hop %d", where, r.At)
	c.within(where, "at", r.At, 1, hops)
	taken := map[int]bool{}
	for _, s := range r.Services {
		if len(s.Ports) == 0 {
			c.failf("%s: a service needs ports", where)
		}
		for _, p := range s.Ports {
			c.within(where, "ports", p, 1, 65535)
			if taken[p] {
				c.failf("%s: port %d is there twice", where, p)
			}
			taken[p] = true
		}
		if s.Greeting != "" && s.web() {
			c.failf("%s: a service has a greeting, or a page with its status and header", where)
		}
		if _, err := subject(s.Subject); err != nil {
			c.failf("%s: subject: %w", where, err)
		}
		for _, h := range s.Headers {
			if !strings.Contains(h, ": ") || strings.ContainsAny(h, "\r\n") {
				c.failf("%s: header %q is not written as Name: value", where, h)
			}
		}
	}
}

// web says whether it speaks HTTP.
func (s *Service) web() bool { return s.Page != "" || s.Status != "" || len(s.Headers) > 0 }

// subject reads CN=…,OU=…,O=….
func subject(text string) (n pkix.Name, err error) {
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(part, "=")
		switch strings.TrimSpace(key) {
		case "CN":
			n.CommonName = value
		case "OU":
			n.OrganizationalUnit = []string{value}
		case "O":
			n.Organization = []string{value}
		case "":
		default:
			return n, fmt.Errorf("%q is none of CN, OU and O", key)
		}
	}
	return n, nil
}

// ownStack is that of a router: what is addressed to the router ends there.
type ownStack struct {
	router *Router
	stack  *stack.Stack
	link   *link
	own    []netip.Addr
	certs  map[*Service]*tls.Certificate
}

// newOwnStack makes the stack of the router that stands at index at of the
// client's elements.
func (w *World) newOwnStack(r *Router, own []netip.Addr, at int) (*ownStack, error) {
	k := &ownStack{router: r, own: own, certs: map[*Service]*tls.Certificate{}}
	var err error
	if k.stack, k.link, err = newStack(func(b []byte) { w.schedule(b, w.elements, at-1, box.In, 0) }, false); err != nil {
		return nil, err
	}
	for _, a := range own {
		if err := addAddress(k.stack, a); err != nil {
			return nil, err
		}
	}
	for _, s := range r.Services {
		if s.Subject == "" {
			continue
		}
		name, err := subject(s.Subject)
		if err != nil {
			return nil, err
		}
		if k.certs[s], err = ownCertificate(name, w.at); err != nil {
			return nil, err
		}
	}
	k.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(k.stack, 0, 64, k.accept).HandlePacket)
	return k, nil
}

// ownCertificate is one that a device signs itself.
func ownCertificate(name pkix.Name, now time.Time) (*tls.Certificate, error) {
	key := keys()[4]
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: name, NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(9, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("lab: making a router's certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// take keeps a packet that is addressed to the router.
func (k *ownStack) take(d box.Direction, pkt []byte) bool {
	p, err := packet.Parse(pkt)
	if err != nil || d != box.Out || !slices.Contains(k.own, p.Dst) {
		return false
	}
	if p.Proto == packet.TCP || !k.router.Drop {
		k.link.deliver(pkt)
	}
	return true
}

func (k *ownStack) accept(r *tcp.ForwarderRequest) {
	id := r.ID()
	i := slices.IndexFunc(k.router.Services, func(s *Service) bool { return slices.Contains(s.Ports, int(id.LocalPort)) })
	if i < 0 {
		r.Complete(!k.router.Drop)
		return
	}
	s := k.router.Services[i]
	if c := admit(r, netip.AddrPortFrom(addrOf(id.LocalAddress), id.LocalPort)); c != nil {
		go s.serve(c, k.certs[s])
	}
}

func (s *Service) serve(c net.Conn, cert *tls.Certificate) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if cert != nil {
		c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}})
	}
	text := s.Greeting
	if s.web() {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		status := s.Status
		if status == "" {
			status = "200 OK"
		}
		length := fmt.Sprintf("Content-Length: %d\r\n", len(s.Page))
		if s.Endless {
			length = ""
		}
		head := "HTTP/1.1 " + status + "\r\n"
		for _, h := range s.Headers {
			head += h + "\r\n"
		}
		if _, err := io.WriteString(c, head+length+"Connection: close\r\n\r\n"); err != nil {
			return
		}
		text = s.Page
	}
	for {
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
		if !s.Endless || text == "" {
			break
		}
	}
	if !s.web() {
		io.Copy(io.Discard, io.LimitReader(c, 1<<20))
	}
}

// Routers are the addresses of all routers of the world.
func (w *World) Routers() (out []netip.Addr) {
	add := func(list []element) {
		for _, e := range list {
			out = append(append(out, e.v4...), e.v6...)
		}
	}
	add(w.elements)
	for _, list := range w.beyond {
		add(list[len(w.elements):])
	}
	return out
}
