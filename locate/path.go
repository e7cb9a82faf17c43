package locate

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"govah/measure"
	"govah/wire"
)

// silences is how many TTLs in a row may stay silent before a path is given up.
const silences = 6

// synAt sends one SYN with a TTL in the followed flow, or in another one.
func (r *run) synAt(ctx context.Context, remote netip.AddrPort, port uint16, ttl int, timeout time.Duration) *measure.Observation {
	return wire.SYN(ctx, r.n, r.log, wire.Meta{Role: measure.RoleControl, Stage: measure.StageLocate, Experiment: measure.ExpPath},
		wire.ConnectSpec{Remote: remote, Local: r.local(port), TTL: ttl, Timeout: timeout})
}

// ladder follows the path of one flow by SYNs that die on the way (Jacobson's
// traceroute with a constant flow, as in Paris traceroute, Augustin 2006). It
// ends where the server answers, or where nothing answers any more.
func (r *run) ladder(ctx context.Context, port uint16) error {
	silent := 0
	var again []int
	step := func(ttl int) (measure.Path, bool) {
		timeout := time.Second
		if r.rtt > 0 {
			timeout = max(300*time.Millisecond, 3*r.rtt)
		}
		o := r.synAt(ctx, r.spec.Remote, port, ttl, min(timeout, 900*time.Millisecond))
		p := *o.Path
		rtt := time.Duration(p.RTTUS) * time.Microsecond
		switch p.Outcome {
		case "expired":
			r.heard(ttl, true, rtt)
			r.farther(rtt)
		case "silent":
			r.heard(ttl, false, 0)
		}
		return p, p.Outcome == "connected" || p.Outcome == "reset" ||
			p.Outcome == "unreachable" && p.ICMP != nil && p.ICMP.From == r.spec.Remote.Addr().String()
	}
	for ttl := 1; ttl <= maxTTL && silent < silences; ttl++ {
		if err := r.pace(ctx); err != nil {
			return err
		}
		p, end := step(ttl)
		switch {
		case end:
			r.server = ttl
			r.farther(time.Duration(p.RTTUS) * time.Microsecond)
			// A SYN that was lost at a lower TTL may hide the true one.
			for ttl > 1 {
				last := r.hop(ttl - 1)
				if last.answers() || last.sent > 2 || r.pace(ctx) != nil {
					break
				}
				if _, end := step(ttl - 1); !end {
					break
				}
				ttl--
				r.server = ttl
			}
			ttl = maxTTL
		case p.Outcome == "silent":
			again = append(again, ttl)
			if silent++; silent == silences {
				// A server that answers is waited for behind any number of
				// routers that do not.
				if o := r.synAt(ctx, r.spec.Remote, r.newPort(), 0, connectTime); o.Path.Outcome == "connected" {
					silent = -maxTTL
				}
			}
		default:
			silent = 0
		}
	}
	for _, ttl := range again {
		if r.server > 0 && ttl >= r.server || r.hop(ttl).sent > 1 {
			continue
		}
		if r.server == 0 && ttl > r.farthest()+1 {
			break
		}
		if err := r.pace(ctx); err != nil {
			return err
		}
		step(ttl)
	}
	return ctx.Err()
}

// farthest is the highest TTL at which a router answered.
func (r *run) farthest() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	far := 0
	for ttl, h := range r.hops {
		if h.answers() {
			far = max(far, ttl)
		}
	}
	return far
}

// siblings looks at the hops around a link in further flows: routers that
// differ there are equal-cost siblings.
func (r *run) siblings(ctx context.Context, low, high int) {
	for range r.spec.Flows - 1 {
		port := r.newPort()
		for ttl := max(1, low); ttl <= high; ttl++ {
			if r.server > 0 && ttl >= r.server || r.pace(ctx) != nil {
				break
			}
			o := r.synAt(ctx, r.spec.Remote, port, ttl, max(300*time.Millisecond, r.patience(ttl)))
			if o.Path.Outcome == "connected" {
				break
			}
		}
	}
}

// terminated asks whether what answered at the lowest TTL is the server. A
// lost answer makes that TTL look one higher than it is: so where it is not the
// server, the one below is tried once more, in flows of their own.
func (r *run) terminated(ctx context.Context) (nearer bool) {
	if r.spec.OtherPort == 0 || r.server == 0 {
		return false
	}
	for r.passedBy(ctx) {
		if nearer = true; r.server == 1 {
			break
		}
		below := false
		for range 2 {
			if r.pace(ctx) != nil {
				return nearer
			}
			o := r.synAt(ctx, r.spec.Remote, r.newPort(), r.server-1, max(300*time.Millisecond, r.patience(r.server)))
			if below = o.Path.Outcome == "connected"; below || o.Path.Outcome == "expired" {
				break
			}
		}
		if !below {
			return nearer
		}
		r.server--
	}
	return nearer
}

// passedBy says whether a packet to another port of the same address, with the
// TTL at which the first port answers, dies at a router: then something nearer
// ends connections to the first port by itself (Clayton 2006). Twice, because
// routes change. Who takes one port often takes the other of the web too, so
// that a port of no service is tried after it. Where questions are asked it is
// tried first: a resolver may have its web server behind a load balancer.
func (r *run) passedBy(ctx context.Context) bool {
	ports := []uint16{r.spec.OtherPort, unusedPort}
	if r.asks() {
		slices.Reverse(ports)
	}
	for _, port := range ports {
		expired, silent := 0, 0
		for expired < 2 && silent < 2 {
			if r.pace(ctx) != nil {
				return false
			}
			o := wire.SYN(ctx, r.n, r.log, wire.Meta{Role: measure.RoleControl, Stage: measure.StageLocate, Experiment: measure.ExpProxyTTL, Differs: []string{"port"}},
				wire.ConnectSpec{Remote: netip.AddrPortFrom(r.spec.Remote.Addr(), port), Local: r.local(r.newPort()), TTL: r.server, Timeout: max(300*time.Millisecond, r.patience(r.server))})
			r.log.Amend(func() { o.Payload = string(r.spec.Payload) })
			switch o.Path.Outcome {
			case "expired":
				expired++
			case "silent":
				silent++ // it may have been lost
			default:
				if r.asks() {
					return false // the resolver's address is no farther
				}
				silent = 2
			}
		}
		if expired == 2 {
			return true
		}
	}
	return false
}

// unusedPort is one of those that traceroute sends to: nobody serves there.
const unusedPort = 33434
