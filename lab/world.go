// Package lab is an internet in one process: clients of several operators,
// routers that decrement TTLs and answer with ICMP, censors and faulty boxes
// on the links, resolvers, web sites, a CA, in IPv4 and IPv6. It needs no
// rights and touches no network. A Scenario describes one, and the truth about
// it.
package lab

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"govah/wire"
)

// Options choose among what a scenario offers.
type Options struct {
	Client string    // "" the scenario's own
	At     time.Time // zero: the scenario's own
	Seed   uint64
	Loss   int // per thousand, added to the client's own line
	// RTT, if not 0, replaces all delays so that every site is this far away.
	RTT time.Duration
	// Privileged lets the client capture packets.
	Privileged bool
	// Raw leaves the client's network stack out: Port gives its raw packets.
	Raw bool
}

// World is a running scenario, seen by one client.
type World struct {
	Scenario *Scenario
	Client   *Client
	opts     Options
	ctx      context.Context
	cancel   context.CancelFunc
	began    time.Time
	at       time.Time

	elements []element // the client's own, nearest first
	beyond   map[*Network][]element

	client     *host
	clientLink *link
	raw        func([]byte)
	servers    *stack.Stack
	serverLink *link
	ca, evil   *authority
	company    *authority
	sites      map[string]*Site
	where      map[netip.Addr]*Network // of every server address
	owners     map[netip.Addr][]*Site
	networks   map[string]*Network
	inside     map[netip.Addr]bool // addresses inside the client's operator
	redirect   *redirector         // of questions, nil: none
	listeners  map[netip.AddrPort]*listener
	watching   atomic.Pointer[[]*host] // servers that may capture packets; read for each packet
	tapMu      sync.Mutex
	tap        func(sent bool, pkt []byte)

	mu     sync.Mutex
	queue  eventQueue
	seq    uint64
	wake   chan struct{}
	wg     sync.WaitGroup
	asns   []asnPrefix
	turnMu sync.Mutex
	turns  map[*Site]int // of sites whose answers rotate
	shown  map[*Site]int // certificates of sites with several
	// sshTurns are those of SSH servers with several members.
	sshTurns map[*Site]int
	close    []func()

	closing sync.Once
}

type asnPrefix struct {
	prefix  netip.Prefix
	asn     int
	country string
}

// New starts a world.
func New(s *Scenario, o Options) (*World, error) {
	if o.Client == "" {
		o.Client = s.Client
	}
	c := s.FindClient(o.Client)
	if c == nil {
		var names []string
		for _, c := range s.Clients {
			names = append(names, c.Name)
		}
		return nil, fmt.Errorf("scenario %s has no client %q; it has: %s", s.Name, o.Client, strings.Join(names, ", "))
	}
	if o.At.IsZero() {
		o.At = s.begins
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
	w := &World{Scenario: s, Client: c, opts: o, began: time.Now(), at: o.At, sites: map[string]*Site{}, networks: map[string]*Network{}, turns: map[*Site]int{}, shown: map[*Site]int{}, sshTurns: map[*Site]int{}, where: map[netip.Addr]*Network{},
		owners: map[netip.Addr][]*Site{}, inside: map[netip.Addr]bool{}, listeners: map[netip.AddrPort]*listener{},
		beyond: map[*Network][]element{}, wake: make(chan struct{}, 1)}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	if err := w.build(); err != nil {
		w.Close()
		return nil, err
	}
	w.wg.Add(1)
	go w.run()
	return w, nil
}

func (w *World) build() error {
	var err error
	if w.ca, err = newAuthority("Lab Trust Services", w.at, forPublic); err != nil {
		return err
	}
	issuer := "Interception"
	if w.Client.Intercept != nil && w.Client.Intercept.Issuer != "" {
		issuer = w.Client.Intercept.Issuer
	}
	if w.evil, err = newAuthority(issuer, w.at, forInterceptor); err != nil {
		return err
	}
	if w.company, err = newAuthority("Example Company", w.at, forCompany); err != nil {
		return err
	}
	if w.servers, w.serverLink, err = newStack(func(b []byte) { w.fromServer(b) }, false); err != nil {
		return err
	}
	if err := w.populate(); err != nil {
		return err
	}
	if err := w.connectClient(); err != nil {
		return err
	}
	if err := w.lay(); err != nil {
		return err
	}
	return w.serve()
}

// populate gives the server stack the addresses of all sites.
func (w *World) populate() error {
	for _, n := range w.Scenario.Networks {
		w.asns = append(w.asns, asnPrefix{n.p4, n.ASN, n.Country}, asnPrefix{n.p6, n.ASN, n.Country})
		w.networks[n.Name] = n
	}
	for _, t := range w.Scenario.Sites {
		w.sites[t.Name] = t
		for _, a := range t.AllAddresses() {
			w.owners[a] = append(w.owners[a], t)
			if t.Shares == "" {
				w.where[a] = w.Scenario.networkOf(a)
				if err := addAddress(w.servers, a); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// networkOf is the network whose prefix holds an address.
func (s *Scenario) networkOf(a netip.Addr) *Network {
	for _, n := range s.Networks {
		if n.p4.Contains(a) || n.p6.Contains(a) {
			return n
		}
	}
	return nil
}

func (w *World) connectClient() error {
	c := w.Client
	resolver := c.resolver
	if w.where[resolver] == nil {
		w.inside[resolver] = true
		if err := addAddress(w.servers, resolver); err != nil {
			return err
		}
	}
	w.asns = append(w.asns, asnPrefix{netip.PrefixFrom(c.v4, 16).Masked(), c.ASN, c.Country}, asnPrefix{netip.PrefixFrom(c.v6, 32).Masked(), c.ASN, c.Country})
	var addrs []netip.Addr
	switch {
	case c.NoIPv4:
	case c.NAT:
		addrs = append(addrs, behindNAT)
	default:
		addrs = append(addrs, c.v4)
	}
	if !c.NoIPv6 {
		addrs = append(addrs, c.v6)
	}
	roots := w.ca.pool()
	if c.Trusts {
		roots.AddCert(w.evil.root)
	}
	if c.Company {
		roots.AddCert(w.company.root)
	}
	if w.opts.Raw {
		w.client = newHost(w, nil, addrs)
		w.client.roots = roots
		return nil
	}
	s, l, err := newStack(func(b []byte) { w.Inject(b) }, false)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := addAddress(s, a); err != nil {
			return err
		}
	}
	w.clientLink = l
	w.client = newHost(w, s, addrs)
	w.client.roots = roots
	w.client.view.Capture = w.opts.Privileged
	w.client.lookup = func(ctx context.Context, name string) ([]netip.Addr, error) {
		return stubLookup(ctx, w.client, netip.AddrPortFrom(resolver, 53), name)
	}
	return nil
}

func (w *World) tapped(sent bool, pkt []byte) {
	w.tapMu.Lock()
	tap := w.tap
	w.tapMu.Unlock()
	if tap != nil {
		tap(sent, pkt)
	}
}

// Tap is told every packet at the client's end, nil ends it.
func (w *World) Tap(f func(sent bool, pkt []byte)) {
	w.tapMu.Lock()
	w.tap = f
	w.tapMu.Unlock()
}

// arrive gives the client a packet.
func (w *World) arrive(pkt []byte) {
	w.tapped(false, pkt)
	if w.opts.Raw {
		w.tapMu.Lock()
		raw := w.raw
		w.tapMu.Unlock()
		if raw != nil {
			raw(pkt)
		}
		return
	}
	if w.client.arriving(pkt) {
		w.clientLink.deliver(pkt)
	}
}

// Port replaces the client's network stack in a world made with Options.Raw:
// receive is given each packet for the client; what the client sends goes to
// Inject.
func (w *World) Port(receive func(pkt []byte)) {
	w.tapMu.Lock()
	w.raw = receive
	w.tapMu.Unlock()
}

// ClientAddresses are the client's own.
func (w *World) ClientAddresses() []netip.Addr { return w.client.addrs }

// Network is the client, to measure from.
func (w *World) Network() wire.Network { return w.client }

// Public are the certificate authorities that a browser would trust there.
func (w *World) Public() *x509.CertPool { return w.ca.pool() }

// PublicPEM is Public as a file holds it.
func (w *World) PublicPEM() []byte { return pemOf(w.ca.rootDER) }

// Now is what the client's clock shows, its error included.
func (w *World) Now() time.Time { return w.at.Add(time.Since(w.began)).Add(w.Client.clock) }

// ASN finds the AS and country of an address there, 0 if nobody's.
func (w *World) ASN(a netip.Addr) (asn int, country string) {
	for _, p := range w.asns {
		if p.prefix.Contains(a.Unmap()) {
			return p.asn, p.country
		}
	}
	return 0, ""
}

// Truth are the rows that hold for this client and time, by target; that of
// the line is under measure.LineTarget.
func (w *World) Truth() map[string]*Truth {
	out := map[string]*Truth{}
	add := func(rows []Truth) {
		for i := range rows {
			if r := &rows[i]; r.Applies(w.Client.Name, w.at) && out[r.URL] == nil {
				out[r.URL] = r
			}
		}
	}
	for _, t := range w.Scenario.Sites {
		add(t.Truth)
	}
	add(w.Client.Truth)
	return out
}

// Targets are the sites' targets that the scenario has a truth for, in its
// order.
func (w *World) Targets() []string {
	var out []string
	truth := w.Truth()
	for _, t := range w.Scenario.Sites {
		for i := range t.Truth {
			if u := t.Truth[i].URL; truth[u] != nil && !slices.Contains(out, u) {
				out = append(out, u)
			}
		}
	}
	return out
}

// Sites finds the sites of a role.
func (w *World) Sites(role string) []*Site {
	var out []*Site
	for _, t := range w.Scenario.Sites {
		if t.Role == role {
			out = append(out, t)
		}
	}
	return out
}

// Close stops everything: what still listens or reads fails.
func (w *World) Close() error {
	w.closing.Do(func() {
		w.cancel()
		w.mu.Lock()
		listeners := slices.Collect(maps.Values(w.listeners))
		w.mu.Unlock()
		for _, l := range listeners {
			l.Close()
		}
		for _, f := range w.close {
			f()
		}
		if w.client != nil && w.client.stack != nil {
			w.client.stack.Close()
		}
		for _, e := range w.elements {
			if e.term != nil {
				e.term.stack.Close()
			}
			if e.own != nil {
				e.own.stack.Close()
			}
		}
		if w.servers != nil {
			w.servers.Close()
		}
		w.wg.Wait()
	})
	return nil
}

// ClockError is how much the client's clock is ahead of the truth.
func (w *World) ClockError() time.Duration { return w.Client.clock }
