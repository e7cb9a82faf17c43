package check

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"govah/measure"
	"govah/wire"
)

// What the measurement of the line costs at most, as BenchmarkLine measures it
// (docs/design/interception.md).
const (
	lineBytes = 400_000
	lineTime  = 15 * time.Second
)

// otherPort is one that no protocol has (RFC 6335, in the dynamic range): what
// takes it besides 80 and 443 takes all of TCP.
const otherPort = 49613

// deadTimeout is how long an address where nobody lives has to accept. One
// retransmission of the SYN fits; silence is what is expected.
const deadTimeout = 2200 * time.Millisecond

// runLine measures the line itself: whether something on it answers for
// others, whatever the target.
func (j *job) runLine(ctx context.Context) Result {
	var wg sync.WaitGroup
	for _, f := range []measure.Family{measure.IPv4, measure.IPv6} {
		if f == measure.IPv4 && !j.r.v4 || f == measure.IPv6 && !j.r.v6 {
			continue
		}
		wg.Go(func() { j.redirect(ctx, f) })
		wg.Go(func() { j.nobody(ctx, f) })
	}
	wg.Go(func() { j.lineDNS(ctx) })
	wg.Go(func() { j.nearConnect(ctx) })
	if !j.r.vantage.Captive { // a portal answers for everybody; that explains the rest
		for _, v := range j.r.helpers {
			wg.Go(func() { j.lineHTTP(ctx, v) })
		}
	}
	wg.Wait()
	m := j.snapshot()
	m.Complete = ctx.Err() == nil
	j.r.bytes.Add(m.BytesSent + m.BytesReceived)
	bodies := j.log.Bodies()
	return Result{Measurement: m, Bodies: bodies, Verdict: judgeWith(m, bodies)}
}

// of are the addresses of a family.
func of(list []netip.Addr, f measure.Family) (out []netip.Addr) {
	for _, a := range list {
		if wire.FamilyOf(a) == f {
			out = append(out, a)
		}
	}
	return out
}

func confirmMeta(role measure.Role, e measure.Experiment, pair int) wire.Meta {
	m := wire.Meta{Role: role, Stage: measure.StageConfirm, Experiment: e, Pair: pair}
	return m
}

// redirect asks addresses without a resolver, besides one with. What answers
// is asked again with a TTL that does not leave this house.
func (j *job) redirect(ctx context.Context, f measure.Family) {
	name := j.knownName()
	dead := of(j.r.cfg.Controls.Nowhere, f)
	if name == "" || len(dead) == 0 {
		return
	}
	dead = dead[:min(len(dead), maxDead)]
	var c *measure.Observation
	var open netip.AddrPort
	for _, r := range j.r.cfg.Controls.Resolvers {
		if wire.FamilyOf(r.Addr()) == f {
			open = r
			break
		}
	}
	ask := func(meta wire.Meta, q wire.Question) *measure.Observation {
		q.Name, q.Type = name, "A"
		return j.put(ctx, meta, q)
	}
	var wg sync.WaitGroup
	tests := make([]*measure.Observation, len(dead))
	if open.IsValid() {
		wg.Go(func() {
			meta := confirmMeta(measure.RoleControl, measure.ExpRedirect, 1)
			meta.ControlKind = measure.ControlKnown
			c = ask(meta, wire.Question{Server: open})
		})
	}
	for i, a := range dead {
		wg.Go(func() {
			meta := confirmMeta(measure.RoleTest, measure.ExpRedirect, i+1)
			meta.Differs = []string{"resolver"}
			tests[i] = ask(meta, wire.Question{Server: netip.AddrPortFrom(a, 53), NoResolver: true})
			if replied(tests[i]) {
				j.nowhere(f).Add(1)
			}
		})
	}
	wg.Wait()
	for _, t := range tests {
		if t == nil {
			continue
		}
		if c != nil {
			j.log.Link(t, c.ID)
		}
		if !replied(t) || !j.r.view.SetTTL {
			continue
		}
		server, err := netip.ParseAddrPort(t.Remote)
		if err != nil {
			continue
		}
		nearest(func(ttl int) bool {
			meta := confirmMeta(measure.RoleTest, measure.ExpRedirect, t.Pair)
			meta.Differs, meta.After = []string{"resolver"}, t.ID
			hit := replied(ask(meta, wire.Question{Server: server, NoResolver: true, Tries: 3, Timeout: 1500 * time.Millisecond, TTL: ttl}))
			if hit {
				j.nowhere(f).Add(1)
			}
			return hit
		})
		return
	}
}

func (j *job) nowhere(f measure.Family) *atomic.Int32 {
	if f == measure.IPv6 {
		return &j.nowhere6
	}
	return &j.nowhere4
}

func replied(o *measure.Observation) bool {
	return o != nil && o.DNS != nil && len(o.DNS.Replies) > 0
}

// maxDead bounds the addresses of a family at which nobody is looked for.
const maxDead = 2

// farthest is the TTL up to which it is asked how near something is: no
// operator's own devices are farther away.
const farthest = 16

// nearest finds the lowest TTL up to the farthest at which a step is answered,
// by powers of two and then what lies between, each side by side, for most wait
// in vain: that TTL tells how near the answering device is.
func nearest(step func(ttl int) bool) {
	var (
		mu  sync.Mutex
		low = farthest + 1
	)
	try := func(list ...int) {
		var wg sync.WaitGroup
		for _, ttl := range list {
			wg.Go(func() {
				if step(ttl) {
					mu.Lock()
					low = min(low, ttl)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	try(1, 2, 4, 8, farthest)
	var between []int
	for ttl := low/2 + 1; ttl < low && low <= farthest; ttl++ {
		between = append(between, ttl)
	}
	try(between...)
}

// nobody connects to where nobody lives, on the ports of the web and on one
// that has no use, beside the same ports of a canary.
func (j *job) nobody(ctx context.Context, f measure.Family) {
	dead := of(j.r.cfg.Controls.Nobody, f)
	if len(dead) == 0 {
		return
	}
	dead = dead[:min(len(dead), maxDead)]
	type visit struct {
		port int
		t, c *measure.Observation
	}
	var (
		wg   sync.WaitGroup
		list = make([]visit, 0, 3*len(dead))
		// The ports at which something accepted.
		followed sync.Map
	)
	canary, name := netip.Addr{}, ""
	for _, h := range j.r.canaries.working() {
		if a, ok := h.addr(f); ok {
			canary, name = a, h.Name
			break
		}
	}
	for i, a := range dead {
		for _, port := range []int{80, 443, otherPort} {
			list = append(list, visit{port: port})
			v := &list[len(list)-1]
			wg.Go(func() {
				if j.r.pacer.wait(ctx) != nil {
					return
				}
				meta := confirmMeta(measure.RoleTest, measure.ExpNobody, i+1)
				meta.Differs = []string{"address"}
				v.t = j.knock(ctx, meta, netip.AddrPortFrom(a, uint16(port)), name, func(o *measure.Observation) { j.acceptsNear(ctx, o, &followed) })
			})
			if i == 0 && canary.IsValid() && port != otherPort {
				wg.Go(func() {
					if j.r.pacer.wait(ctx) != nil {
						return
					}
					meta := confirmMeta(measure.RoleControl, measure.ExpNobody, 1)
					meta.ControlKind = measure.ControlCanary
					v.c = j.knock(ctx, meta, netip.AddrPortFrom(canary, uint16(port)), "", nil)
				})
			}
		}
	}
	wg.Wait()
	control := map[int]string{}
	for _, v := range list {
		if v.c != nil {
			control[v.port] = v.c.ID
		}
	}
	for _, v := range list {
		if id := control[v.port]; v.t != nil && id != "" {
			j.log.Link(v.t, id)
		}
	}
}

// acceptsNear finds how near what accepts for nobody at a port is, once.
func (j *job) acceptsNear(ctx context.Context, accepted *measure.Observation, followed *sync.Map) {
	at, err := netip.ParseAddrPort(accepted.Remote)
	if err != nil || !j.r.view.SetTTL {
		return
	}
	if _, was := followed.LoadOrStore(at.Port(), true); was {
		return
	}
	meta := confirmMeta(measure.RoleTest, measure.ExpNobody, accepted.Pair)
	meta.Differs, meta.After = []string{"address"}, accepted.ID
	nearest(connects(func(ttl int) string { return j.syn(ctx, meta, at, ttl) }))
}

// nearConnect finds how near connections to the web's ports end, at canaries
// of two networks.
func (j *job) nearConnect(ctx context.Context) {
	if !j.r.view.SetTTL {
		return
	}
	f := j.r.anyFamily()
	differs := false
	networks := map[int]bool{}
	for _, h := range j.r.canaries.working() {
		a, ok := h.addr(f)
		asn := j.r.asn(a)
		if !ok || len(networks) == 2 || networks[asn] {
			continue
		}
		if len(networks) == 1 && !differs {
			return // one where both ports end alike is enough to know
		}
		networks[asn] = true
		step := func(role measure.Role, port uint16) func(int) string {
			meta := confirmMeta(role, measure.ExpNearConnect, len(networks))
			if role == measure.RoleTest {
				meta.Differs = []string{"port"}
			} else {
				meta.ControlKind = measure.ControlPort
			}
			return func(ttl int) string { return j.syn(ctx, meta, netip.AddrPortFrom(a, port), ttl) }
		}
		web, tls := step(measure.RoleTest, 80), step(measure.RoleControl, 443)
		n := lowest(ctx, connects(tls))
		// Two steps tell whether the other port is as near.
		if differs = n > 2 && again(web)(n-2) == "connected" || n > 0 && again(web)(n) != "connected"; differs {
			// And the router that is there for who goes on.
			switch k := lowest(ctx, connects(again(web))); {
			case k == 0: // nothing takes connections there, or the run has ended
			case k < n:
				again(tls)(k)
			default:
				// A lost answer made the search end too far.
				for n > 1 && ctx.Err() == nil && again(tls)(n-1) == "connected" {
					n--
				}
				again(web)(n)
			}
		}
	}
}

// syn sends a SYN with a TTL and says what came of it, as measure.Path has it;
// "" if it was not sent.
func (j *job) syn(ctx context.Context, meta wire.Meta, at netip.AddrPort, ttl int) string {
	if o := j.r.syn(ctx, j.log, meta, at, ttl); o != nil && o.Path != nil {
		return o.Path.Outcome
	}
	return ""
}

func connects(syn func(ttl int) string) func(ttl int) bool {
	return func(ttl int) bool { return syn(ttl) == "connected" }
}

// again sends a second SYN where nothing came back, for much hangs on it and
// silence tells nothing.
func again(syn func(ttl int) string) func(ttl int) string {
	return func(ttl int) string {
		outcome := syn(ttl)
		if outcome == "silent" {
			outcome = syn(ttl)
		}
		return outcome
	}
}

// lowest finds the lowest TTL, up to twice the farthest, at which a step is
// answered, 0 if there is none or the run has ended; its steps are on record.
func lowest(ctx context.Context, step func(ttl int) bool) int {
	low, high := 0, farthest
	if !step(farthest) {
		if low, high = farthest, 2*farthest; ctx.Err() != nil || !step(high) {
			return 0
		}
	}
	for high-low > 1 {
		mid := (low + high) / 2
		if step(mid) {
			high = mid
		} else if low = mid; ctx.Err() != nil {
			return 0
		}
	}
	return high
}

// oddPair is of which pair of visits to nobody the web's test is no request.
const oddPair = 2

// knock connects and, with a name, speaks the port's protocol to what accepts:
// a device that only passes bytes on has nothing to say for an address where
// nobody lives, one that reads them does. accepted, if any, is done meanwhile.
func (j *job) knock(ctx context.Context, meta wire.Meta, at netip.AddrPort, name string, accepted func(*measure.Observation)) *measure.Observation {
	conn, o := wire.Connect(ctx, j.r.cfg.Network, j.log, meta, wire.ConnectSpec{Remote: at, Timeout: deadTimeout})
	if conn == nil {
		return o
	}
	defer conn.Abort()
	var wg sync.WaitGroup
	defer wg.Wait()
	if accepted != nil {
		wg.Go(func() { accepted(o) })
	}
	meta.After = o.ID
	switch {
	case name == "":
	case at.Port() == 80 && meta.Pair == oddPair:
		// A proxy may wait for long for the server that does not exist; what is
		// no request it answers by itself.
		wire.SayOdd(ctx, j.log, meta, conn, "odd-fields", oddFields(newToken()), oddWait)
	case at.Port() == 80:
		answer, body := wire.Fetch(ctx, j.log, meta, conn, wire.Request{URL: "http://" + name + "/", Method: "GET", Host: name, MaxBody: 16 << 10, Timeout: stallTimeout, Stall: stallTimeout})
		j.match(answer, body)
	case at.Port() == 443:
		if tc, _ := wire.Handshake(ctx, j.log, meta, conn, wire.HandshakeSpec{SNI: name, Verify: name, Hello: j.r.canaries.hello, Timeout: stallTimeout}, j.r.trust); tc != nil {
			tc.Close()
		}
	}
	return o
}
