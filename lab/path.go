package lab

import (
	"container/heap"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"govah/lab/box"
	"govah/packet"
)

// element is a router or a box of a path, and the one-way delay of the link
// before it, on the client's side.
type element struct {
	delay  time.Duration
	v4, v6 []netip.Addr // of a router; more than one: equal-cost siblings
	silent bool
	brief  bool // it quotes 8 bytes behind the header of IP (RFC 792)
	errors *allowance
	box    box.Box
	term   *terminator
	own    *ownStack // of a router that can be talked to
	dns    *resolver // of a router that answers all questions itself
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

// lay lays the client's own routers and boxes, and those of each network.
func (w *World) lay() error {
	c := w.Client
	total := c.delay
	if w.opts.RTT > 0 {
		total = w.opts.RTT / 4
	}
	line := &box.Line{Loss: w.opts.Loss}
	if l := c.Line; l != nil {
		line.Loss += l.Loss
		line.Burst, line.RateKbps, line.Queue, line.MTU, line.MaxFlows = l.Burst, l.Rate, l.Queue, l.MTU, l.MaxFlows
		line.Jitter, line.Every, line.Sleep = l.jitter, l.every, l.sleep
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
		if c.Mail != nil && c.Mail.At == hop && c.Mail.InPath {
			w.elements = append(w.elements, element{box: c.Mail.inPath(w)})
		}
		if c.Redirect != nil && c.Redirect.At == hop {
			r, err := newRedirector(w, c.Redirect, len(w.elements))
			if err != nil {
				return err
			}
			w.redirect = r
			w.elements = append(w.elements, element{box: r})
		}
		if c.Intercept != nil && c.Intercept.At == hop || c.WebProxy != nil && c.WebProxy.At == hop || c.TCPProxy != nil && c.TCPProxy.At == hop ||
			c.Mail != nil && c.Mail.At == hop && !c.Mail.InPath || c.SSH != nil && c.SSH.At == hop || c.Captive && hop == 0 {
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
		e := element{silent: slices.Contains(c.Silent, h), brief: slices.Contains(c.Brief, h), errors: newAllowance(c.ICMPRate)}
		if h == 1 {
			e.v4 = []netip.Addr{netip.AddrFrom4([4]byte{192, 168, 1, 1})}
		} else {
			e.v4 = []netip.Addr{netip.AddrFrom4([4]byte{b4[0], b4[1], 254, byte(h)})}
		}
		r6 := b6
		r6[14], r6[15] = 0xfe, byte(h)
		e.v6 = []netip.Addr{netip.AddrFrom16(r6)}
		if slices.Contains(c.Equal, h) {
			for i := 1; i < max(2, c.Ways); i++ {
				e.v4 = append(e.v4, netip.AddrFrom4([4]byte{b4[0], b4[1], byte(254 - i), byte(h)}))
				r6[14] = byte(0xfe - i)
				e.v6 = append(e.v6, netip.AddrFrom16(r6))
			}
		}
		if h == 1 && c.RouterDNS {
			e.dns = w.operators()
		}
		if h == 2 || c.Hops == 1 {
			e.delay = total
		}
		if i := slices.IndexFunc(c.Routers, func(r *Router) bool { return r.At == h }); i >= 0 {
			var err error
			if e.own, err = w.newOwnStack(c.Routers[i], slices.Concat(e.v4, e.v6), len(w.elements)); err != nil {
				return err
			}
		}
		w.elements = append(w.elements, e)
		if h == 1 && c.NAT {
			w.elements = append(w.elements, element{box: &nat44{inner: behindNAT, outer: c.v4}})
		}
		if err := attach(h); err != nil {
			return err
		}
	}
	if c.NAT64 {
		w.elements = append(w.elements, element{box: &nat64{v6: c.v6, v4: c.v4}})
	}
	for _, n := range w.Scenario.Networks {
		list := slices.Clone(w.elements)
		v4, v6 := n.routers()
		for h := range v4 {
			e := element{v4: v4[h], v6: v6[h], silent: slices.Contains(n.Silent, h+1), errors: newAllowance(n.ICMPRate)}
			if h == 0 {
				e.delay = n.delay
				if w.opts.RTT > 0 {
					e.delay = w.opts.RTT / 4
				}
			}
			list = append(list, e)
		}
		w.beyond[n] = list
	}
	return nil
}

// brief cuts what an error quotes to 8 bytes behind the header of IP, as a
// router does that goes by RFC 792 and not by RFC 1812, 4.3.2.3.
func brief(b []byte) []byte {
	if b[0]>>4 == 4 {
		b = b[:min(len(b), 20+8+20+8)]
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	} else {
		b = b[:min(len(b), 40+8+40+8)]
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	}
	packet.FixChecksums(b)
	return b
}

// allowance is how many ICMP errors a router may send (RFC 1812, 4.3.2.8).
type allowance struct {
	every time.Duration
	next  time.Time
}

func newAllowance(perSecond int) *allowance {
	if perSecond == 0 {
		return nil
	}
	return &allowance{every: time.Second / time.Duration(perSecond)}
}

func (a *allowance) take(now time.Time) bool {
	if a == nil {
		return true
	}
	if now.Before(a.next) {
		return false
	}
	a.next = now.Add(a.every)
	return true
}

// pathTo is the path between the client and a server's address.
func (w *World) pathTo(server netip.Addr) []element {
	server = nat64Inner(server)
	if r := w.redirect; r != nil && (server == r.v4 || server == r.v6) {
		return r.path()
	}
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
	w.schedule(pkt, w.behind(w.pathTo(p.Dst), &p), 0, box.Out, 0)
}

// behind is the path to a server that stands behind a load balancer.
func (w *World) behind(path []element, p *packet.Packet) []element {
	owners := w.owners[p.Dst]
	if p.Proto != packet.TCP || p.DstPort != 443 || len(owners) == 0 || owners[0].Deeper == 0 || len(path) == 0 {
		return path
	}
	path = slices.Clone(path)
	last := path[len(path)-1]
	last.delay = 0
	for range owners[0].Deeper {
		path = append(path, last)
	}
	return path
}

// fromServer is a packet that a server sends.
func (w *World) fromServer(pkt []byte) {
	p, err := packet.Parse(pkt)
	if err != nil {
		return
	}
	w.watched(true, pkt)
	if p.Dst == w.Client.v4 || p.Dst == w.Client.v6 {
		if n := w.where[p.Src]; n != nil && !n.passes(pkt) {
			return
		}
		path := w.pathTo(p.Src)
		w.schedule(pkt, path, len(path)-1, box.In, 0)
		return
	}
	// Between hosts of the world there is a plain path over the border.
	w.schedule(pkt, nil, 0, box.Out, w.fromBorder(p.Src)+w.fromBorder(p.Dst))
}

// passes takes a packet of a network's host through the routers that are on the
// way back alone, and says whether it survives them.
func (n *Network) passes(pkt []byte) bool {
	switch {
	case n.TTL > 0 && pkt[0]>>4 == 6:
		pkt[7] = byte(n.TTL)
	case n.TTL > 0:
		pkt[8] = byte(n.TTL)
		packet.FixChecksums(pkt)
	}
	for range n.Back {
		if ttl, err := packet.DecrementTTL(pkt); err != nil || ttl == 0 {
			return false
		}
	}
	return true
}

// fromBorder is how far a host of the world is from the client's border.
func (w *World) fromBorder(a netip.Addr) time.Duration {
	n := w.where[a]
	switch {
	case n == nil:
		return 0 // the operator's own
	case w.opts.RTT > 0:
		return w.opts.RTT / 4
	}
	return n.delay
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
			w.watched(false, e.pkt)
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
				} else if el.box == w.redirect {
					// From here it goes where it is addressed to now.
					if q, err := packet.Parse(p); err == nil && (q.Dst == w.redirect.v4 || q.Dst == w.redirect.v6) {
						path = w.redirect.path()
					}
				}
				w.schedule(p, path, next, d, delay)
			})
			return
		case el.term != nil:
			if el.term.take(e.dir, e.pkt) {
				return
			}
		case el.own != nil && el.own.take(e.dir, e.pkt):
			return
		case el.dns != nil && w.answerHere(el.dns, e):
			return
		default:
			ttl, err := packet.DecrementTTL(e.pkt)
			if err != nil {
				return
			}
			if ttl == 0 {
				if el.silent || !el.errors.take(time.Now()) {
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
				if el.brief {
					back = brief(back)
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

// answerHere has a router answer a question whoever it was sent to.
func (w *World) answerHere(r *resolver, e event) bool {
	p, err := packet.Parse(e.pkt)
	if err != nil || e.dir != box.Out || p.Proto != packet.UDP || p.DstPort != 53 {
		return false
	}
	q := new(dns.Msg)
	if q.Unpack(p.Payload) != nil {
		return true
	}
	if m := r.answer(q); m != nil {
		if b, err := m.Pack(); err == nil {
			back := packet.BuildUDP(netip.AddrPortFrom(p.Dst, p.DstPort), netip.AddrPortFrom(p.Src, p.SrcPort), 64, 0, b)
			w.schedule(back, e.path, e.at-1, box.In, 0)
		}
	}
	return true
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
