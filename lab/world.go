// Package lab is an internet in one process: clients of several operators,
// routers that decrement TTLs and answer with ICMP, censors and faulty boxes
// on the links, resolvers, web sites, a CA, in IPv4 and IPv6. It needs no
// rights and touches no network. A Scenario describes one, and the truth about
// it.
package lab

import (
	"container/heap"
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"govah/lab/box"
	"govah/packet"
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
	sites      map[string]*Site
	where      map[netip.Addr]*Network // of every server address
	owners     map[netip.Addr][]*Site
	inside     map[netip.Addr]bool // addresses inside the client's operator
	listeners  map[netip.AddrPort]*listener
	mounts     []*Mount
	tapMu      sync.Mutex
	tap        func(sent bool, pkt []byte)

	mu     sync.Mutex
	queue  eventQueue
	seq    uint64
	wake   chan struct{}
	wg     sync.WaitGroup
	asns   []asnPrefix
	turnMu sync.Mutex
	close  []func()
}

type asnPrefix struct {
	prefix  netip.Prefix
	asn     int
	country string
}

// element is a router or a box of a path, and the one-way delay of the link
// before it, on the client's side.
type element struct {
	delay  time.Duration
	v4, v6 []netip.Addr // of a router; more than one: equal-cost siblings
	silent bool
	box    box.Box
	term   *terminator
}

// event is a packet that reaches a point of a path at a time. at is the index
// of the element it reaches next; len(path) is the server, -1 the client.
type event struct {
	when time.Time
	seq  uint64
	pkt  []byte
	path []element
	at   int
	dir  box.Direction
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	if q[i].when.Equal(q[j].when) {
		return q[i].seq < q[j].seq
	}
	return q[i].when.Before(q[j].when)
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return e
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
		o.At = s.Date_
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
	w := &World{Scenario: s, Client: c, opts: o, began: time.Now(), at: o.At, sites: map[string]*Site{}, where: map[netip.Addr]*Network{},
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
	if w.ca, err = newAuthority("Lab Trust Services", w.at, 0); err != nil {
		return err
	}
	issuer := "Interception"
	if w.Client.Intercept != nil && w.Client.Intercept.Issuer != "" {
		issuer = w.Client.Intercept.Issuer
	}
	if w.evil, err = newAuthority(issuer, w.at, 2); err != nil {
		return err
	}
	if w.servers, w.serverLink, err = newStack(func(b []byte) { w.fromServer(b) }, false); err != nil {
		return err
	}
	if err := w.place(); err != nil {
		return err
	}
	if err := w.client_(); err != nil {
		return err
	}
	if err := w.path(); err != nil {
		return err
	}
	return w.serve()
}

// place gives every site its addresses.
func (w *World) place() error {
	for _, t := range w.Scenario.Sites {
		t.v4, t.v6, t.turn = nil, nil, 0
		w.sites[t.Name] = t
	}
	for _, n := range w.Scenario.Networks {
		n.next = 10
		w.asns = append(w.asns, asnPrefix{n.p4, n.ASN, n.Country}, asnPrefix{n.p6, n.ASN, n.Country})
	}
	for _, t := range w.Scenario.Sites {
		if t.Shares != "" {
			continue
		}
		networks := []*Network{t.net}
		for _, name := range t.GeoDNS {
			for _, n := range w.Scenario.Networks {
				if n.Name == name && !slices.Contains(networks, n) {
					networks = append(networks, n)
				}
			}
		}
		if len(t.Addresses) > 0 {
			for _, text := range t.Addresses {
				a, err := netip.ParseAddr(text)
				if err != nil {
					return fmt.Errorf("site %q: %q is no address", t.Name, text)
				}
				w.give(t, t.net, a)
			}
			continue
		}
		for _, n := range networks {
			for range max(1, t.Count) {
				n.next++
				w.give(t, n, nth(n.p4, n.next))
				if !t.NoIPv6 {
					w.give(t, n, nth(n.p6, n.next))
				}
			}
		}
	}
	for _, t := range w.Scenario.Sites {
		if t.Shares != "" {
			of := w.sites[t.Shares]
			t.v4, t.v6, t.net = of.v4, of.v6, of.net
			if t.NoIPv6 {
				t.v6 = nil
			}
			for _, a := range append(append([]netip.Addr{}, t.v4...), t.v6...) {
				w.owners[a] = append(w.owners[a], t)
			}
		}
	}
	for a := range w.where {
		if err := addAddress(w.servers, a); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) give(t *Site, n *Network, a netip.Addr) {
	if a.Is4() {
		t.v4 = append(t.v4, a)
	} else {
		t.v6 = append(t.v6, a)
	}
	w.where[a] = n
	w.owners[a] = append(w.owners[a], t)
}

// nth is the n-th address of a prefix.
func nth(p netip.Prefix, n int) netip.Addr {
	b := p.Addr().AsSlice()
	for i := len(b) - 1; n > 0 && i >= 0; i-- {
		n += int(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (w *World) client_() error {
	c := w.Client
	resolver := netip.MustParseAddr(c.Resolver)
	if w.where[resolver] == nil {
		w.inside[resolver] = true
		w.where[resolver] = nil
		if err := addAddress(w.servers, resolver); err != nil {
			return err
		}
	}
	w.asns = append(w.asns, asnPrefix{netip.PrefixFrom(c.v4, 16).Masked(), c.ASN, c.Country}, asnPrefix{netip.PrefixFrom(c.v6, 32).Masked(), c.ASN, c.Country})
	var addrs []netip.Addr
	if !c.NoIPv4 {
		addrs = append(addrs, c.v4)
	}
	if !c.NoIPv6 {
		addrs = append(addrs, c.v6)
	}
	roots := w.ca.pool()
	if c.Trusts {
		roots.AddCert(w.evil.root)
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

// path lays the client's own routers and boxes, and those of each network.
func (w *World) path() error {
	c := w.Client
	total := c.delay
	if w.opts.RTT > 0 {
		total = w.opts.RTT / 4
	}
	line := &box.Line{Loss: w.opts.Loss}
	if l := c.Line; l != nil {
		line.Loss += l.Loss
		line.Burst, line.RateKbps, line.Queue, line.MTU, line.MaxFlows = l.Burst, l.Rate, l.Queue, l.MTU, l.MaxFlows
		for text, into := range map[string]*time.Duration{"j" + l.Jitter: &line.Jitter, "e" + l.Every: &line.Every, "s" + l.Sleep: &line.Sleep} {
			if text = text[1:]; text != "" {
				*into, _ = time.ParseDuration(text)
			}
		}
	}
	line.Seed(w.opts.Seed)
	if c.Line != nil || w.opts.Loss > 0 {
		w.elements = append(w.elements, element{box: line})
	}
	wall := func(t time.Time) time.Time { return w.at.Add(t.Sub(w.began)) }
	attach := func(hop int) error {
		for _, b := range c.Boxes {
			if b.At != hop {
				continue
			}
			f, err := box.NewFilter(b.Rules, w.opts.Seed+uint64(hop), wall)
			if err != nil {
				return err
			}
			w.elements = append(w.elements, element{box: f})
		}
		if c.Intercept != nil && c.Intercept.At == hop || c.WebProxy != nil && c.WebProxy.At == hop || c.Captive && hop == 0 {
			t, err := newTerminator(w, len(w.elements), hop)
			if err != nil {
				return err
			}
			w.elements = append(w.elements, element{term: t})
		}
		return nil
	}
	if err := attach(0); err != nil {
		return err
	}
	b4, b6 := c.v4.As4(), c.v6.As16()
	for h := 1; h <= c.Hops; h++ {
		e := element{silent: slices.Contains(c.Silent, h)}
		if h == 1 {
			e.v4 = []netip.Addr{netip.AddrFrom4([4]byte{192, 168, 1, 1})}
		} else {
			e.v4 = []netip.Addr{netip.AddrFrom4([4]byte{b4[0], b4[1], 254, byte(h)})}
		}
		r6 := b6
		r6[14], r6[15] = 0xfe, byte(h)
		e.v6 = []netip.Addr{netip.AddrFrom16(r6)}
		if h == 2 {
			e.delay = total
		}
		w.elements = append(w.elements, e)
		if err := attach(h); err != nil {
			return err
		}
	}
	for i, n := range w.Scenario.Networks {
		var list []element
		p4, p6 := n.p4.Addr().As4(), n.p6.Addr().As16()
		for h := 1; h <= n.Hops; h++ {
			e := element{silent: slices.Contains(n.Silent, h)}
			siblings := 1
			if h == 2 {
				siblings = max(1, n.Equal)
			}
			for s := range siblings {
				a4, a6 := p4, p6
				a4[3], a6[15] = byte(h), byte(h)
				if s > 0 {
					a4[3], a6[15] = byte(200+s), byte(200+s)
				}
				a6[14] = 0xfe
				e.v4 = append(e.v4, netip.AddrFrom4(a4))
				e.v6 = append(e.v6, netip.AddrFrom16(a6))
			}
			if h == 1 {
				e.delay = n.delay
				if w.opts.RTT > 0 {
					e.delay = w.opts.RTT / 4
				}
			}
			list = append(list, e)
		}
		w.beyond[n] = append(append([]element{}, w.elements...), list...)
		_ = i
	}
	return nil
}

// pathTo is the path between the client and a server's address.
func (w *World) pathTo(server netip.Addr) []element {
	if w.inside[server] {
		// A resolver inside the operator sits behind its third router.
		n, hops := 0, 0
		for i, e := range w.elements {
			if e.v4 != nil {
				if hops++; hops == min(3, w.Client.Hops) {
					n = i + 1
					// boxes that follow directly stand on its link as well
					for n < len(w.elements) && w.elements[n].v4 == nil {
						n++
					}
					break
				}
			}
		}
		return w.elements[:n]
	}
	n, ok := w.where[server]
	if !ok || n == nil {
		return w.elements // nobody lives there: beyond the border
	}
	return w.beyond[n]
}

// schedule puts a packet at a point of a path.
func (w *World) schedule(pkt []byte, path []element, at int, dir box.Direction, delay time.Duration) {
	// The link between at-1 and at has path[at].delay; outward it is crossed
	// before reaching at, inward after leaving at+1.
	if dir == box.Out && at < len(path) {
		delay += path[at].delay
	}
	if dir == box.In && at+1 < len(path) {
		delay += path[at+1].delay
	}
	w.mu.Lock()
	w.seq++
	heap.Push(&w.queue, event{time.Now().Add(delay), w.seq, pkt, path, at, dir})
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Inject is a packet that the client sends.
func (w *World) Inject(pkt []byte) {
	p, err := packet.Parse(pkt)
	if err != nil {
		return
	}
	w.tapped(true, pkt)
	if w.client.stack != nil {
		w.client.record(true, &p)
	}
	w.schedule(pkt, w.pathTo(p.Dst), 0, box.Out, 0)
}

// fromServer is a packet that a server sends.
func (w *World) fromServer(pkt []byte) {
	p, err := packet.Parse(pkt)
	if err != nil {
		return
	}
	if p.Dst == w.Client.v4 || p.Dst == w.Client.v6 {
		path := w.pathTo(p.Src)
		w.schedule(pkt, path, len(path)-1, box.In, 0)
		return
	}
	// Between servers there is a plain path.
	w.schedule(pkt, nil, 0, box.Out, 0)
}

// run moves packets. It is the only goroutine that touches boxes and that
// gives packets to stacks.
func (w *World) run() {
	defer w.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		w.mu.Lock()
		var e event
		wait := time.Hour
		ready := false
		if len(w.queue) > 0 {
			if wait = time.Until(w.queue[0].when); wait <= 0 {
				e, ready = heap.Pop(&w.queue).(event), true
			}
		}
		w.mu.Unlock()
		if ready {
			w.step(e)
			continue
		}
		timer.Reset(wait)
		select {
		case <-w.wake:
		case <-timer.C:
		case <-w.ctx.Done():
			return
		}
	}
}

// step takes a packet through elements until the next delay or its end.
func (w *World) step(e event) {
	for {
		if e.dir == box.In && e.at < 0 {
			w.arrive(e.pkt)
			return
		}
		if e.at >= len(e.path) {
			w.serverLink.deliver(e.pkt)
			return
		}
		el := &e.path[e.at]
		switch {
		case el.box != nil:
			path, at := e.path, e.at
			el.box.Handle(e.dir, e.pkt, time.Now(), func(d box.Direction, p []byte, delay time.Duration) {
				next := at + 1
				if d == box.In {
					next = at - 1
				}
				w.schedule(p, path, next, d, delay)
			})
			return
		case el.term != nil:
			if el.term.take(e.dir, e.pkt) {
				return
			}
		default:
			ttl, err := packet.DecrementTTL(e.pkt)
			if err != nil {
				return
			}
			if ttl == 0 {
				if el.silent {
					return
				}
				list := el.v4
				if e.pkt[0]>>4 == 6 {
					list = el.v6
				}
				back, err := packet.BuildICMPError(packet.TimeExceeded, list[flowHash(e.pkt)%uint32(len(list))], e.pkt, 0)
				if err != nil {
					return
				}
				next := e.at - 1
				if e.dir == box.In {
					next = e.at + 1
				}
				w.schedule(back, e.path, next, e.dir.Reverse(), 0)
				return
			}
		}
		next := e.at + 1
		if e.dir == box.In {
			next = e.at - 1
		}
		if e.dir == box.Out && next < len(e.path) && e.path[next].delay > 0 || e.dir == box.In && e.path[e.at].delay > 0 {
			w.schedule(e.pkt, e.path, next, e.dir, 0)
			return
		}
		e.at = next
	}
}

// flowHash spreads flows over equal-cost siblings as routers do: by 5-tuple.
func flowHash(pkt []byte) uint32 {
	p, err := packet.Parse(pkt)
	if err != nil {
		return 0
	}
	h := uint32(2166136261)
	mix := func(b ...byte) {
		for _, c := range b {
			h = (h ^ uint32(c)) * 16777619
		}
	}
	mix(p.Src.AsSlice()...)
	mix(p.Dst.AsSlice()...)
	mix(p.Proto, byte(p.SrcPort>>8), byte(p.SrcPort), byte(p.DstPort>>8), byte(p.DstPort))
	return h ^ h>>15
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

// Truth are the rows that hold for this client and time, by target.
func (w *World) Truth() map[string]*Truth {
	out := map[string]*Truth{}
	for _, t := range w.Scenario.Sites {
		for i := range t.Truth {
			if r := &t.Truth[i]; r.Applies(w.Client.Name, w.at) && out[r.URL] == nil {
				out[r.URL] = r
			}
		}
	}
	return out
}

// Targets are the targets that the scenario has a truth for, in its order.
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

// Addresses are a site's own, IPv4 first.
func (t *Site) AllAddresses() []netip.Addr {
	return append(append([]netip.Addr{}, t.v4...), t.v6...)
}

// Close stops everything.
func (w *World) Close() error {
	w.cancel()
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
	}
	if w.servers != nil {
		w.servers.Close()
	}
	w.wg.Wait()
	return nil
}

// ClockError is how much the client's clock is ahead of the truth.
func (w *World) ClockError() time.Duration { return w.Client.clock }
