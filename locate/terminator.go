package locate

import (
	"context"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"

	"govah/measure"
	"govah/wire"
)

// Who ends connections in the server's place shows in one of three ways: a
// connection is made with a TTL with which packets to other ports die; what is
// said on it is answered with a TTL with which its own SYN dies; answers come
// from nearer than those of other ports.

// terminated asks whether what answered at the lowest TTL is the server. A
// lost answer makes that TTL look one higher than it is: so where it is not the
// server, the one below is tried once more, in flows of their own.
func (r *run) terminated(ctx context.Context) bool {
	if r.spec.OtherPort == 0 || r.server == 0 {
		return false
	}
	passed := r.passedBy(ctx)
	for other := passed; other != 0 && r.server > 1; other = r.passedBy(ctx) {
		passed = other
		below := false
		for range 2 {
			if r.pace(ctx) != nil {
				return true
			}
			o := r.synAt(ctx, r.spec.Remote, r.newPort(), r.server-1, r.synTime(r.server))
			if below = o.Path.Outcome == "connected"; below || o.Path.Outcome == "expired" {
				break
			}
		}
		if !below {
			break
		}
		r.server--
	}
	return passed != 0 && (r.ours() || r.asks() || r.beyondReach(ctx, passed))
}

// ours says that both ports are of one process.
func (r *run) ours() bool { return r.spec.Greeter || r.spec.Helper != "" }

// passedBy gives the port of the same address to which a packet, with the TTL
// at which the first port answers, dies at a router, 0 if there is none: then
// something nearer ends connections to the first port by itself (Clayton 2006).
// Twice, because routes change. Who takes one port often takes the other of the
// web too, so that a port of no service is tried after it. Where questions are
// asked it is tried first: a resolver may have its web server behind a load
// balancer.
func (r *run) passedBy(ctx context.Context) uint16 {
	ports := []uint16{r.spec.OtherPort, unusedPort}
	if r.asks() {
		slices.Reverse(ports)
	}
	for _, port := range ports {
		expired, silent := 0, 0
		for expired < 2 && silent < 2 {
			switch r.beside(ctx, port, r.server) {
			case "expired":
				expired++
			case "silent":
				silent++ // it may have been lost
			case "":
				return 0
			default:
				if r.asks() {
					return 0 // the resolver's address is no farther
				}
				silent = 2
			}
		}
		if expired == 2 {
			return port
		}
	}
	return 0
}

// beside says what becomes of a SYN to another port of the same address, ""
// where there is no time for it.
func (r *run) beside(ctx context.Context, port uint16, ttl int) string {
	if r.pace(ctx) != nil {
		return ""
	}
	o := r.synTo(ctx, measure.ExpProxyTTL, measure.RoleControl, port, wire.ConnectSpec{TTL: ttl, Timeout: r.synTime(ttl)})
	if inItsName(o) {
		return "reset" // its own host passes it on, as to a container
	}
	return o.Path.Outcome
}

// synTo sends a SYN to a port of the address in a flow of its own. The control
// is another port than the tested one.
func (r *run) synTo(ctx context.Context, exp measure.Experiment, role measure.Role, port uint16, spec wire.ConnectSpec) *measure.Observation {
	meta := wire.Meta{Role: role, Stage: measure.StageLocate, Experiment: exp}
	switch {
	case role == measure.RoleTest:
		meta.Differs = []string{"port"}
	case r.ours():
		meta.ControlKind = measure.ControlKnown
	default:
		meta.ControlKind = measure.ControlPort
	}
	spec.Remote, spec.Local = netip.AddrPortFrom(r.spec.Remote.Addr(), port), r.local(r.newPort())
	o := wire.SYN(ctx, r.n, r.log, meta, spec)
	r.log.Amend(func() { o.Payload = string(r.spec.Payload) })
	return o
}

// beyondReach says whether the other port is farther than a load balancer or a
// firewall of the server's own would have it, which answer at some ports and
// pass on others.
func (r *run) beyondReach(ctx context.Context, port uint16) bool {
	for ttl := r.server + apartBy - 1; ttl <= r.server+2*apartBy; ttl++ {
		for range 2 { // it may be lost
			switch r.beside(ctx, port, ttl) {
			case "expired":
				return true
			case "connected", "reset":
				return ttl >= r.server+apartBy // the routers before were silent
			case "":
				return false
			}
		}
	}
	return false
}

// unusedPort is one of those that traceroute sends to: nobody serves there.
const unusedPort = 33434

// endsNearer says that what answers at the tested port is passed by what goes to
// others, and farther than whoever runs the server would have it.
func (e *evidence) endsNearer() bool {
	if len(e.nearer) < 2 {
		return false
	}
	far := false
	for _, o := range e.nearer {
		known := o.ControlKind == measure.ControlKnown || o.Payload == string(DNS) || o.Payload == string(Resolver)
		far = far || known || o.TTL >= e.server+apartBy-1
	}
	for _, o := range e.beside {
		if o.TTL > e.server {
			if o.TTL < e.server+apartBy {
				return false
			}
			far = true
		}
	}
	return far
}

// balanced says that others are passed, if it is not far enough for a claim.
func (e *evidence) balanced() []measure.Why {
	if len(e.nearer) < 2 || e.endsNearer() {
		return nil
	}
	return []measure.Why{measure.WhyBalancer}
}

// terminator concludes that what answers is nearer than the server, and in its
// place for every name.
func (e *evidence) terminator(l *measure.Location) {
	e.ends(l, e.server-1, len(e.nearer))
	for _, o := range e.nearer {
		if i := o.Path.ICMP; i != nil && o.TTL == e.server { // the router beyond it
			l.Set[0].To, l.Set[0].ToASN = i.From, i.ASN
		}
		l.Because = append(l.Because, o.ID)
	}
}

// early makes sure of it where harmless bytes were answered with a lower TTL
// than the SYN of their connection needs to be: what ends connections may let
// SYNs through to see whether the server accepts them, and take them over then.
// border is the lowest TTL with which a connection was made. A firewall may
// remember a SYN that it let through, so that no port serves for both.
func (r *run) early(ctx context.Context, border int) {
	far := r.answering(border - 1)
	dies := func() bool {
		return r.synAt(ctx, r.spec.Remote, r.newPort(), far, r.synTime(far)).Path.Outcome == "expired"
	}
	answered := func() bool {
		list := r.sweep(ctx, &flow{port: r.newPort()}, measure.RoleControl, 0, r.server)
		return len(list) > 0 && list[len(list)-1].Path.Outcome == "answered"
	}
	for r.server <= far && ctx.Err() == nil {
		for times, tries := 0, 0; times < 2 && tries < 4; tries++ { // one may be lost
			if dies() && answered() {
				times++
			}
		}
		// A lost answer makes that TTL look one higher than it is.
		r.server--
		lower := false
		for range 2 {
			lower = lower || r.server > 0 && answered()
		}
		if !lower {
			r.server++
			return
		}
	}
}

// takesOver concludes that something takes connections over once they are made.
// That shows in whole answers of a server, which nothing beside the path gives
// to what dies on the way.
func (e *evidence) takesOver(l *measure.Location) bool {
	said, ttls := map[int]string{}, []int{} // each of our ports is a flow of its own
	for _, c := range e.quotes {
		port := c.Path.LocalPort
		if c.Path.Outcome != "answered" || c.TTL == 0 || c.TTL >= e.connected || e.died[port] != nil || said[port] != "" ||
			c.Payload != string(Mail) && c.Path.Answer != "handshake" {
			continue
		}
		said[port], ttls = c.ID, append(ttls, c.TTL)
	}
	if len(said) < 2 {
		return false
	}
	slices.Sort(ttls)
	answered := ttls[1] // twice
	because, n := slices.Sorted(maps.Values(said)), 0
	for _, port := range slices.Sorted(maps.Keys(e.died)) {
		if syn := e.died[port]; syn.TTL >= answered {
			because = append(because, syn.ID)
			n++
		}
	}
	if n < 2 {
		return false
	}
	l.Because = because
	e.ends(l, answered-1, min(n, len(said)))
	return true
}

// ends names the link behind the router at a TTL as the place of what ends
// connections, but for the chance that so many probes went a longer way each.
func (e *evidence) ends(l *measure.Location, low, n int) {
	l.Outcome, l.Kind, l.Position = measure.Located, measure.Terminates, measure.InPath
	if ap, err := netip.ParseAddrPort(l.Remote); err == nil && l.Payload == string(Mail) { // not the command
		l.Trigger = measure.Trigger{Kind: "port", Value: strconv.Itoa(int(ap.Port()))}
	}
	p := measure.Place{Low: low, PerMille: int(math.Round(1000 / (1 + math.Pow(longer, float64(n)))))}
	p.From, p.FromASN = followed(l.Hops, low)
	p.To, p.ToASN = followed(l.Hops, low+1)
	l.Set = []measure.Place{p}
}

// What ends connections in the server's place may all the same let packets die
// whose TTL would not reach the server, so that the way there shows nothing.
// What it sends itself does: every router on the way back takes one off its TTL
// (RFC 791, 3.2), and a socket can be told to drop unseen what arrives with less
// than a given one, as for RFC 5082. So it is measured from how far the answers
// of the tested port come and, as the control, those of another port of the
// same address.

const (
	// refusals is how often the control's answer must not have come with the
	// TTL that it would have from as near as the test's.
	refusals = 3
	// apartBy is how many routers must lie between what answers at the two
	// ports of somebody else's address, behind which may be several machines.
	apartBy = 3
)

// initial are the TTLs that systems send with: most, Windows, and much network
// equipment.
var initial = []int{64, 128, 255}

// began is the TTL with which an answer was sent that arrived with another.
func began(ttl int) int {
	for _, from := range initial {
		if ttl <= from {
			return from
		}
	}
	return ttl
}

// away is how many routers an answer passed that arrived with a TTL.
func away(ttl int) int { return began(ttl) - ttl }

// tooNear is the least TTL with which the control's answer arrives if it comes
// from fewer than so many routers farther than the test's.
func tooNear(test, control, least int) int { return began(control) - away(test) - least + 1 }

// answers measures from how far the answers of the tested port and of another
// one come, and makes sure of it where the former's come from nearer.
func (r *run) answers(ctx context.Context) {
	if !r.view.MinTTL || r.server < 2 {
		return
	}
	control, other := 0, uint16(0)
	// That nobody serves a port is answered as well.
	for _, other = range []uint16{r.spec.OtherPort, unusedPort} {
		if other != 0 {
			control = r.arrival(ctx, measure.RoleControl, other, 64-(r.server-1))
		}
		if control > 0 {
			break
		}
	}
	if control == 0 {
		return
	}
	least := apartBy
	if r.ours() {
		least = 1
	}
	tested := r.spec.Remote.Port()
	test := r.arrival(ctx, measure.RoleTest, tested, control)
	bound := tooNear(test, control, least)
	if test == 0 || bound <= control {
		return
	}
	for range refusals {
		if r.comes(ctx, measure.RoleControl, other, bound, 1) || !r.comes(ctx, measure.RoleControl, other, control, sendings) ||
			!r.comes(ctx, measure.RoleTest, tested, test, sendings) {
			return
		}
	}
}

// arrival is the TTL with which answers from a port arrive, 0 if none do.
func (r *run) arrival(ctx context.Context, role measure.Role, port uint16, guess int) int {
	low, high := 0, 256 // it is at least low, and less than high
	try := func(ttl int) {
		if ttl <= low || ttl >= high {
			return
		}
		if r.comes(ctx, role, port, ttl, 2) {
			low = ttl
		} else {
			high = ttl
		}
	}
	try(max(1, guess))
	try(guess + 1)
	if try(1); low == 0 {
		return 0
	}
	for high-low > 1 && ctx.Err() == nil {
		next := (low + high) / 2
		if i := slices.IndexFunc(initial, func(from int) bool { return from >= low && from+1 < high }); i >= 0 {
			next = initial[i] + 1 // nothing arrives with just that from any distance
		}
		try(next)
	}
	if ctx.Err() != nil {
		return 0
	}
	return low
}

// comes says whether a port's answer to a SYN arrives with at least that TTL.
// That it does is certain, that it does not may be loss.
func (r *run) comes(ctx context.Context, role measure.Role, port uint16, ttl, tries int) bool {
	for range tries {
		if r.pace(ctx) != nil {
			return false
		}
		if came(r.synTo(ctx, measure.ExpAnswerTTL, role, port, wire.ConnectSpec{MinTTL: ttl, Timeout: r.synTime(r.server)})) {
			return true
		}
	}
	return false
}

// came says that a port answered, if only that nobody serves it.
func came(o *measure.Observation) bool {
	return o.Path.Outcome == "connected" || o.Path.Outcome == "reset"
}

// nearby concludes that what answers at the tested port is nearer than the
// server, though packets to it die on the way as if it were not.
func (e *evidence) nearby(l *measure.Location) bool {
	test, control, least := 0, 0, apartBy // the highest TTLs with which answers came
	for _, o := range e.ttls {
		if o.ControlKind == measure.ControlKnown {
			least = 1
		}
		switch {
		case !came(o):
		case o.Role == measure.RoleTest:
			test = max(test, o.Path.MinTTL)
		default:
			control = max(control, o.Path.MinTTL)
		}
	}
	if test == 0 || control == 0 || e.connected == 0 {
		return false
	}
	// Ways back are often others than ways there: nearer than these as well.
	if least > 1 && away(test)+least > e.connected-1 {
		return false
	}
	bound := tooNear(test, control, least)
	// An answer that did not come counts if the port still answered afterwards.
	missed, pending := 0, []string{}
	for _, o := range e.ttls {
		switch {
		case o.Role == measure.RoleTest && came(o) && o.Path.MinTTL == test:
			l.Because = append(l.Because, o.ID)
		case o.Role == measure.RoleControl && o.Path.Outcome == "silent" && o.Path.MinTTL > control && o.Path.MinTTL <= bound:
			pending = append(pending, o.ID)
		case o.Role == measure.RoleControl && came(o):
			missed += len(pending)
			l.Because, pending = append(append(l.Because, pending...), o.ID), nil
		}
	}
	if missed < refusals {
		l.Because = nil
		return false
	}
	l.ByAnswers, l.ToHelper = true, least == 1
	e.ends(l, away(test), missed)
	return true
}
