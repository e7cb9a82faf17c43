package helper

import (
	"context"
	"encoding/base64"
	"hash/maphash"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"govah/measure"
	"govah/packet"
	"govah/wire"
)

// What changes a greeter's words on their way to a client shows in what routers
// quote of them where they die: whole before it, changed behind it. So a client
// may ask for them with a TTL that ends them on the way. Only a process that may
// capture packets hears the routers; it looks at that one connection, which the
// client has made, and at no other.

const (
	// sayTime is how long a router is waited for; then the system's own TTL
	// lets a retransmission through, and the dialogue goes on.
	sayTime    = time.Second
	sayTick    = 4 * time.Millisecond
	maxTTLs    = 16
	maxBackTTL = 64
	maxSaid    = 512  // bytes of what is said
	maxQuoted  = 1280 // bytes of a quote: all of the least MTU of IPv6
	maxOrders  = 256  // of all clients
	maxDying   = 32   // connections at once
)

// orders are what clients asked for within the last minute.
type orders struct {
	mu    sync.Mutex
	key   maphash.Seed
	list  []*order
	dying chan struct{}
}

// order is what one client asked for.
type order struct {
	from   uint64 // its address, under a key that is made at the start
	marker string
	port   int
	ttls   []int
	at     time.Time
	taken  bool // a connection of it is the one
	busy   bool // words are under way
	list   []measure.Said
}

func newOrders() *orders {
	return &orders{key: maphash.MakeSeed(), dying: make(chan struct{}, maxDying)}
}

// forget drops what is older than a minute. The caller holds mu.
func (o *orders) forget(now time.Time) {
	o.list = slices.DeleteFunc(o.list, func(x *order) bool { return now.Sub(x.at) > arrivalMemory })
}

// able says whether this process may capture packets.
func (s *Server) able() bool { return s.cfg.SetTTL != nil && s.cfg.Network.View().Capture }

// serveBack answers one HelperBackRequest.
func (s *Server) serveBack(w http.ResponseWriter, r *http.Request) {
	from := clientOf(r)
	done := s.limiter.look(r.Context(), from)
	if done == nil {
		tooMany(w)
		return
	}
	defer done()
	reply(w, r, func(req measure.HelperBackRequest) (*measure.HelperBack, error) {
		_, err := parseMarker(req.Marker)
		if err != nil || req.Schema < 1 || len(req.TTLs) > maxTTLs || slices.ContainsFunc(req.TTLs, func(k int) bool { return k < 0 || k > maxBackTTL }) ||
			!slices.ContainsFunc(s.mail, func(l MailListener) bool { return !l.Implicit && portOf(l.Addr()) == req.Port }) {
			return nil, errBadRequest
		}
		if !s.able() {
			return &measure.HelperBack{Schema: 1, Marker: req.Marker}, nil
		}
		out := s.back.answer(r.Context(), maphash.Comparable(s.back.key, from), req)
		for _, g := range s.greeters(localOf(r)) {
			if g.Port == req.Port {
				out.Greeter = &g
			}
		}
		return out, nil
	})
}

// answer tells what came of a client's order, and takes its next.
func (o *orders) answer(ctx context.Context, from uint64, req measure.HelperBackRequest) *measure.HelperBack {
	out := &measure.HelperBack{Schema: 1, Marker: req.Marker, Able: true}
	for until := time.Now().Add(sayTime + sayTime/2); ; {
		o.mu.Lock()
		o.forget(time.Now())
		i := slices.IndexFunc(o.list, func(x *order) bool { return x.from == from && x.marker == req.Marker })
		if i >= 0 && o.list[i].busy && time.Now().Before(until) {
			// What was said last may have arrived before its acknowledgement.
			o.mu.Unlock()
			if wire.Sleep(ctx, 2*sayTick) != nil {
				return out
			}
			continue
		}
		defer o.mu.Unlock()
		if i >= 0 {
			out.List = o.list[i].list
			o.list[i].list = nil
		}
		break
	}
	// One of each client: its last.
	o.list = slices.DeleteFunc(o.list, func(x *order) bool { return x.from == from && (len(req.TTLs) > 0 || !x.taken) })
	if len(req.TTLs) == 0 {
		return out
	}
	if len(o.list) == maxOrders {
		o.list = o.list[1:]
	}
	o.list = append(o.list, &order{from: from, marker: req.Marker, port: req.Port, ttls: slices.Clone(req.TTLs), at: time.Now()})
	return out
}

// take finds the order that a connection is for.
func (o *orders) take(from netip.Addr, port int) *order {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forget(time.Now())
	id := maphash.Comparable(o.key, from)
	for _, x := range o.list {
		if x.from == id && x.port == port && !x.taken {
			x.taken = true
			return x
		}
	}
	return nil
}

// dying is a connection on which some of the words die on the way.
type dying struct {
	net.Conn
	ctx   context.Context
	s     *Server
	order *order
	flow  wire.Flow
	said  int             // how much of the order
	stale map[uint32]bool // sequence numbers of what was said before
}

// dying is the connection c to the greeter at a port, if the client has asked
// for such a one; else nil.
func (s *Server) dying(ctx context.Context, port int, c net.Conn) *dying {
	remote, err := netip.ParseAddrPort(c.RemoteAddr().String())
	local, lerr := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil || lerr != nil || !s.able() {
		return nil
	}
	plain := func(a netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
	}
	remote, local = plain(remote), plain(local)
	x := s.back.take(remote.Addr(), port)
	if x == nil {
		return nil
	}
	select {
	case s.back.dying <- struct{}{}:
	default:
		return nil
	}
	return &dying{Conn: c, ctx: ctx, s: s, order: x, flow: wire.Flow{Local: local, Remote: remote}, stale: map[uint32]bool{}}
}

func (d *dying) end() { <-d.s.back.dying }

// Write says the greeting or one answer, with the TTL that was asked for.
func (d *dying) Write(b []byte) (int, error) {
	ttl := 0
	if d.said < len(d.order.ttls) {
		ttl = d.order.ttls[d.said]
		d.said++
	}
	if ttl == 0 || len(b) > maxSaid {
		return d.Conn.Write(b)
	}
	capture, err := d.s.cfg.Network.Capture(d.ctx, d.flow)
	if err != nil {
		return d.Conn.Write(b)
	}
	defer capture.Close()
	if d.s.cfg.SetTTL(d.Conn, ttl) != nil {
		return d.Conn.Write(b)
	}
	d.under(true)
	said := measure.Said{TTL: ttl, Port: int(d.flow.Remote.Port()), Text: base64.StdEncoding.EncodeToString(b)}
	w := underWay{d: d, capture: capture, said: &said}
	n, err := d.Conn.Write(b)
	for began := time.Now(); err == nil && !w.heard() && time.Since(began) < sayTime; {
		if wire.Sleep(d.ctx, sayTick) != nil {
			break
		}
	}
	if said.Outcome == "" {
		said.Outcome = "silent"
	}
	d.stale[w.seq], d.stale[w.quoted] = true, true
	d.s.back.mu.Lock()
	d.order.list = append(d.order.list, said)
	d.s.back.mu.Unlock()
	if e := d.s.cfg.SetTTL(d.Conn, 0); err == nil {
		err = e
	}
	d.under(false)
	return n, err
}

func (d *dying) under(way bool) {
	d.s.back.mu.Lock()
	d.order.busy = way
	d.s.back.mu.Unlock()
}

// underWay are words that were said and have not arrived.
type underWay struct {
	d           *dying
	capture     wire.Capture
	said        *measure.Said
	seq, quoted uint32
	next        uint32 // the sequence number behind them
	sent        time.Time
}

// heard looks at what has been captured, and says whether it ends the waiting.
func (w *underWay) heard() bool {
	list, _ := w.capture.Take()
	for _, c := range list {
		p, err := packet.Parse(c.Data)
		switch {
		case err != nil:
		case p.IsICMPError():
			q, err := packet.ParseQuote(p.Quoted)
			// Numbers may be others behind a firewall that gives out its own;
			// what was said before has been acknowledged, and may be quoted late.
			if c.Sent || err != nil || q.Dst != w.d.flow.Remote || !expired(&p) || !carries(p.Quoted) || w.d.stale[q.Seq] {
				continue
			}
			w.quoted = q.Seq
			w.said.Outcome, w.said.Router, w.said.Type, w.said.Code = "expired", p.Src.String(), int(p.Type), int(p.Code)
			w.said.Quoted = base64.StdEncoding.EncodeToString(p.Quoted[:min(len(p.Quoted), maxQuoted)])
			w.said.RTTUS = max(0, c.At.Sub(w.sent).Microseconds())
			return true
		case p.Proto != packet.TCP:
		case c.Sent && len(p.Payload) > 0 && !w.d.stale[p.Seq]:
			w.said.Sends++
			w.seq, w.next, w.sent = p.Seq, p.Seq+uint32(len(p.Payload)), c.At
		case !c.Sent && w.said.Sends > 0 && p.Flags&packet.ACK != 0 && int32(p.Ack-w.next) >= 0:
			w.said.Outcome = "arrived"
			w.said.RTTUS = max(0, c.At.Sub(w.sent).Microseconds())
			return true
		}
	}
	return false
}

// expired says that an ICMP error is a router's at which a TTL ended (RFC 792,
// RFC 4443, 3.3).
func expired(p *packet.Packet) bool {
	if p.V6() {
		return p.Type == 3 && p.Code == 0
	}
	return p.Type == 11 && p.Code == 0
}

// carries says that a quoted segment had data, as far as its headers tell: an
// acknowledgement, which has 32 bytes with a timestamp, may die on the way too.
func carries(b []byte) bool {
	at, total := 0, 0
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		at, total = int(b[0]&15)*4, int(b[2])<<8|int(b[3])
	case len(b) >= 40 && b[0]>>4 == 6:
		at, total = 40, 40+(int(b[4])<<8|int(b[5]))
	}
	header := 32
	if len(b) > at+12 {
		header = int(b[at+12]>>4) * 4
	}
	return at > 0 && total > at+header
}
