package locate

import (
	"context"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"govah/measure"
	"govah/wire"
)

// Questions that are led to another resolver take another way from there on
// than what goes to other ports of the same address. Both ways are followed,
// each in several flows, because routers spread flows over equal-cost ways:
// only what sets port 53 apart in all flows counts.

// asks says whether the payload is a question.
func (r *run) asks() bool { return r.spec.Payload == DNS || r.spec.Payload == Resolver }

// whoAnswers follows a harmless question to where it is answered, and asks
// whether that is where the resolver's address is.
func (r *run) whoAnswers(ctx context.Context) error {
	s, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer func() { s.conn.Close() }()
	answers := false
	for _, c := range r.spec.Controls {
		r.control = c
		if answers = s.probe(ctx, measure.RoleControl, 0, sendings).Path.Outcome == "answered"; answers {
			break
		}
	}
	if !answers {
		return nil // nobody does
	}
	// What answers is waited for behind any number of routers that do not.
	for k := 1; k <= maxTTL && r.server == 0 && ctx.Err() == nil; k++ {
		c := s.probe(ctx, measure.RoleControl, k, sendings)
		if c.Path.Outcome == "answered" {
			r.server, r.arrived = k, c.Path.ArrivedTTL
		}
	}
	if r.server > 0 {
		r.terminated(ctx)
		r.compareWays(ctx)
	}
	return nil
}

const (
	// startFlows look at all routers of both ways, enoughFlows at the first
	// that differ: two ways that each keep to one router, by chance, in so
	// many flows are two in the 3,432 ways to share them out.
	startFlows, enoughFlows = 2, 7
	// mostFlows bounds the tries for that, mostParts how often a router that
	// both have is found behind what looked like the parting of the ways.
	mostFlows, mostParts = 18, 4
	// lookBack is how often the routers before that are asked again.
	lookBack = 3
	// chances is the probability of chance up to which a parting is claimed.
	chances = 0.001
)

// beside are ports at which no resolver is, for the way of other datagrams.
var beside = []uint16{443, unusedPort, unusedPort + 1, unusedPort + 2}

// compareWays follows what goes to port 53 and what goes to other ports.
func (r *run) compareWays(ctx context.Context) {
	if r.server < 2 || !r.view.UDPHop {
		return
	}
	var wg sync.WaitGroup
	for i := range startFlows {
		wg.Go(func() {
			for ttl := 1; ttl < r.server && ctx.Err() == nil; ttl++ {
				r.way(ctx, i, ttl)
			}
		})
	}
	wg.Wait()
	n := startFlows
	for range mostParts {
		w := r.ways()
		if _, changed, _ := r.seen().betrayed(); w.part == 0 || changed > 0 {
			break
		}
		part := w.part
		for tries := 0; tries < mostFlows && w.part == part && min(w.flows[0], w.flows[1]) < enoughFlows && ctx.Err() == nil; tries++ {
			r.way(ctx, n, part)
			n++
			before := w.flows
			if w = r.ways(); (w.flows[0] == before[0] || w.flows[1] == before[1]) && wire.Sleep(ctx, rest/3) != nil { // one limits its errors
				return
			}
		}
		if w.part == part {
			break
		}
	}
	// The routers before it, as far as they did not show on both ways yet.
	for again := 0; again < lookBack && ctx.Err() == nil; again++ {
		low, high := r.seen().between()
		for ttl := high - 1; ttl > low; ttl-- {
			if !r.hop(ttl).answers() {
				continue
			}
			r.way(ctx, n, ttl)
			n++
			if low, _ = r.seen().between(); low >= ttl {
				break
			}
		}
	}
}

// between are the TTLs between which the device is, as far as is known: before
// the second questions go their own way, before the first they do not.
func (e *evidence) between() (low, high int) {
	if intact, changed, _ := e.betrayed(); changed > 0 {
		return intact, changed
	}
	p := e.parting()
	return p.common, p.part
}

// way sends a question to port 53 and the same to another port, each with a TTL
// and from a port of ours of its own, so that errors that come late are of one
// kind.
func (r *run) way(ctx context.Context, flow, ttl int) {
	for _, role := range []measure.Role{measure.RoleTest, measure.RoleControl} {
		to := r.spec.Remote
		if role == measure.RoleControl {
			to = netip.AddrPortFrom(to.Addr(), beside[flow%len(beside)])
		}
		port := r.newPort()
		pc, err := r.n.ListenPacket(ctx, r.local(port))
		if err != nil {
			return
		}
		if pc.SetTTL(ttl) == nil {
			for try := range 2 { // it may be lost, or its router late
				if r.paceDatagram(ctx) != nil || r.datagram(ctx, pc, role, to, port, ttl, time.Duration(1+2*try)*r.patience(ttl)) != "silent" {
					break
				}
			}
		}
		pc.Close()
	}
}

// datagram sends one and waits so long for what ends it.
func (r *run) datagram(ctx context.Context, pc wire.PacketConn, role measure.Role, to netip.AddrPort, port uint16, ttl int, patience time.Duration) string {
	o := r.begin(measure.ExpWays, role, ttl, "datagram", port)
	defer r.log.End(o)
	o.Remote = to.String()
	if o.DNS != nil {
		o.DNS.Name = r.control.Name
	}
	if role == measure.RoleTest {
		o.Differs = []string{"port"}
	}
	r.mu.Lock()
	id := uint16(r.rng.Uint32())
	r.mu.Unlock()
	b, err := r.payload(measure.RoleControl, id, nil)
	if err != nil {
		o.Failure, o.Detail = wire.Classify(err)
		return ""
	}
	pc.PathErrors()
	sent := time.Now()
	n, err := pc.WriteTo(b, net.UDPAddrFromAddrPort(to))
	o.Path.Sends, o.Sent = 1, int64(n)
	if err != nil {
		o.Failure, o.Detail = wire.Classify(err)
		return ""
	}
	for end := sent.Add(patience); time.Now().Before(end) && ctx.Err() == nil; {
		for _, e := range pc.PathErrors() {
			if o.Path.ICMP != nil {
				continue
			}
			o.Path.ICMP = icmpOf(r.log, &e, to)
			o.Path.RTTUS = max(1, e.At.Sub(sent).Microseconds())
			o.Path.Outcome = "expired"
			if !e.Expired(to.Addr()) {
				o.Path.Outcome = "unreachable"
			}
		}
		if o.Path.ICMP != nil {
			return o.Path.Outcome
		}
		wire.Sleep(ctx, tick)
	}
	o.Failure = measure.GenericTimeout // an answer is of no interest here
	return "silent"
}

// icmpOf notes an error about a datagram, and where that was addressed to by
// then, if it was elsewhere.
func icmpOf(log *wire.Log, e *wire.PathError, to netip.AddrPort) *measure.ICMP {
	i := wire.ICMPOf(log, e)
	if e.To.IsValid() && e.To.Addr() != to.Addr() {
		i.To = e.To.Addr().String()
	}
	return i
}

// ways is how the ways part as far as is known by now.
func (r *run) ways() parting { return r.seen().parting() }

// seen is what both ways have shown by now.
func (r *run) seen() *evidence {
	list := r.log.Observations()
	e := &evidence{server: r.server}
	for i := range list {
		if isWay(&list[i]) {
			e.ways = append(e.ways, &list[i])
		}
	}
	return e
}

// parting is where the way of questions and that of other datagrams part.
type parting struct {
	// common is the highest TTL at which both met one router, part the next at
	// which routers of both are known and none is the same, 0 if there is none.
	common, part int
	flows        [2]int  // at part: of questions, of the others
	chance       float64 // that equal-cost ways do so at part
	because      []string
	own          bool // the server's own network is reached before
}

// parting compares the routers of both ways, flow by flow.
func (e *evidence) parting() (p parting) {
	type at struct{ routers [2]map[string]map[int]bool } // by ports of ours: the flows
	hops := map[int]*at{}
	for _, o := range e.ways {
		if o.TTL < 1 || o.TTL >= e.server || o.Path.Outcome != "expired" || o.Path.ICMP == nil || o.Path.ICMP.From == "" || altered(o) {
			continue
		}
		h := hops[o.TTL]
		if h == nil {
			h = &at{[2]map[string]map[int]bool{{}, {}}}
			hops[o.TTL] = h
		}
		of, from := h.routers[side(o)], o.Path.ICMP.From
		if of[from] == nil {
			of[from] = map[int]bool{}
		}
		of[from][o.Path.LocalPort] = true
	}
	for ttl, h := range hops {
		for from := range h.routers[0] {
			if h.routers[1][from] != nil {
				p.common = max(p.common, ttl)
			}
		}
	}
	for ttl := p.common + 1; ttl < e.server; ttl++ {
		if h := hops[ttl]; h != nil && len(h.routers[0]) > 0 && len(h.routers[1]) > 0 {
			p.part = ttl
			break
		}
	}
	if p.part == 0 {
		return p
	}
	var counts []int
	for i := range 2 {
		for _, flows := range hops[p.part].routers[i] {
			counts = append(counts, len(flows))
			p.flows[i] += len(flows)
		}
	}
	p.chance = sharedOut(counts, p.flows[0]) / choose(p.flows[0]+p.flows[1], p.flows[0])
	for _, o := range e.ways {
		if o.Path.Outcome != "expired" || o.Path.ICMP == nil {
			continue
		}
		if o.TTL == p.part {
			p.because = append(p.because, o.ID)
		}
		// What happens in the server's own network is its owner's doing.
		if o.TTL >= p.common && o.TTL <= p.part && o.ASN > 0 && o.Path.ICMP.ASN == o.ASN && (side(o) == 0 || o.TTL == p.common) {
			p.own = true
		}
	}
	return p
}

// isWay says whether a probe shows one of the two ways: questions of the search
// itself do as well.
func isWay(o *measure.Observation) bool {
	return o.Experiment == measure.ExpWays || o.Experiment == measure.ExpLocate && o.Path != nil && o.Path.Probe == "datagram" && o.DNS != nil
}

// side is 0 for what goes to port 53, 1 for the rest.
func side(o *measure.Observation) int {
	if o.Role == measure.RoleTest || o.Experiment == measure.ExpLocate {
		return 0
	}
	return 1
}

// sharedOut is in how many ways routers that so many flows met can be shared
// out such that n flows are on one side.
func sharedOut(counts []int, n int) float64 {
	ways := make([]float64, n+1)
	ways[0] = 1
	for _, c := range counts {
		for i := n; i >= c; i-- {
			ways[i] += ways[i-c]
		}
	}
	return ways[n]
}

// choose is the number of ways to take k of n.
func choose(n, k int) float64 {
	out := 1.0
	for i := 1; i <= k; i++ {
		out = out * float64(n-k+i) / float64(i)
	}
	return math.Round(out)
}

// betrayed is where a device shows that rewrites addresses: from the TTL
// changed on, what routers say of questions quotes another destination, or
// comes in the resolver's own name, though it is not there yet: so Linux
// translates errors about what it redirected, their sender included. intact is
// the highest TTL below it at which it did not. Twice, and the way of other
// datagrams must have a router at such a TTL that is not the resolver's
// operator's.
func (e *evidence) betrayed() (intact, changed int, because []string) {
	type at struct{ altered, others int }
	hops := map[int]at{}
	for _, o := range e.ways {
		h := hops[o.TTL]
		switch {
		case o.Path.Outcome != "expired" || o.Path.ICMP == nil || o.Path.ICMP.From == "":
		case side(o) == 0 && altered(o):
			h.altered++
		case side(o) == 1 && !altered(o) && (o.ASN == 0 || o.Path.ICMP.ASN != o.ASN):
			h.others++
		}
		hops[o.TTL] = h
	}
	times, others := 0, 0
	for ttl, h := range hops {
		if h.altered == 0 {
			continue
		}
		times, others = times+h.altered, others+h.others
		if changed == 0 || ttl < changed {
			changed = ttl
		}
	}
	if times < 2 || others == 0 {
		return 0, 0, nil
	}
	for _, o := range e.ways {
		switch {
		case side(o) != 0 || o.Path.Outcome != "expired" || o.Path.ICMP == nil:
		case o.TTL >= changed && altered(o):
			because = append(because, o.ID)
		case o.TTL < changed && !altered(o):
			intact = max(intact, o.TTL)
		}
	}
	return intact, changed, because
}

// altered says that an error is not as the router sent it, or is about a packet
// that was no longer as we sent it.
func altered(o *measure.Observation) bool {
	return o.Path.ICMP.To != "" || inItsName(o)
}

// inItsName says that a router's word came in the name of whom the packet was
// for.
func inItsName(o *measure.Observation) bool {
	to, err := netip.ParseAddrPort(o.Remote)
	return err == nil && o.Path.ICMP != nil && o.Path.Outcome == "expired" && o.Path.ICMP.From == to.Addr().String()
}

// redirects concludes that questions are led to another resolver, and where: on
// the link at which errors begin to betray it, or at the latest where the ways
// part.
func (e *evidence) redirects(l *measure.Location) bool {
	low, high, because := e.betrayed()
	chance := stray
	if high == 0 {
		p := e.parting()
		if p.part == 0 || p.own || p.chance > chances {
			return false
		}
		low, high, because, chance = p.common, p.part, p.because, p.chance
		l.Nearer = true
	}
	l.Outcome, l.Kind, l.Position, l.Because = measure.Located, measure.Redirects, measure.InPath, because
	l.Set = evenly(l, low, high, chance)
	for i := range l.Set {
		for _, o := range e.ways { // where others go on, if that router has no name
			if p := &l.Set[i]; p.To == "" && side(o) == 1 && o.TTL == p.Low+1 && o.Path.Outcome == "expired" && o.Path.ICMP != nil {
				p.To, p.ToASN = o.Path.ICMP.From, o.Path.ICMP.ASN
			}
		}
	}
	return true
}

// whoAnswers concludes who answers as a resolver.
func (e *evidence) whoAnswers(l *measure.Location) {
	switch {
	case e.server == 0:
		l.Outcome = measure.NoPath
	case e.redirects(l):
	case e.endsNearer():
		e.terminator(l)
		l.Nearer = true
	default:
		l.Outcome = measure.Itself
		rewritten := slices.ContainsFunc(e.ways, func(o *measure.Observation) bool { return o.Path.ICMP != nil && side(o) == 0 && altered(o) })
		if p := e.parting(); p.part > 0 && !p.own || rewritten || p.common == 0 && e.server > 2 {
			// Equal-cost ways, or else too few errors came to tell.
			l.Unknown = []measure.Why{measure.WhyFewPairs}
		}
	}
}
