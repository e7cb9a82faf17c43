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
	step := func(ttl int, port uint16) (measure.Path, bool) {
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
		p, end := step(ttl, port)
		switch {
		case end:
			r.server = ttl
			r.farther(time.Duration(p.RTTUS) * time.Microsecond)
			// A SYN that was lost at a lower TTL may hide the true one. If it was
			// its answer, what answers has that port half open.
			for ttl > 1 {
				last := r.hop(ttl - 1)
				if last.answers() || last.sent > 2 || r.pace(ctx) != nil {
					break
				}
				if _, end := step(ttl-1, r.newPort()); !end {
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
		step(ttl, port)
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
			o := r.synAt(ctx, r.spec.Remote, port, ttl, r.synTime(ttl))
			if o.Path.Outcome == "connected" {
				break
			}
		}
	}
}

// hops is the table of the path.
func hops(list []*measure.Observation, e *evidence) []measure.Hop {
	table := map[int]*measure.Hop{}
	last := e.far
	for _, o := range list {
		// SYNs may go beyond what answers once a connection is made.
		beyond := e.server > 0 && o.TTL > e.server && !(o.Experiment == measure.ExpPath && o.TTL < e.connected)
		if o.TTL == 0 || o.Experiment == measure.ExpResidual || o.Experiment == measure.ExpProxyTTL || o.Experiment == measure.ExpWays && side(o) != 0 || beyond {
			continue
		}
		h := table[o.TTL]
		if h == nil {
			h = &measure.Hop{TTL: o.TTL}
			table[o.TTL] = h
		}
		if o.Role != measure.RoleTest {
			h.Sent += max(1, o.Path.Sends)
			if o.Path.Outcome != "silent" && o.Path.Outcome != "unconnected" {
				h.Answered++
			}
		}
		h.Server = h.Server || o.TTL == e.server
		i := o.Path.ICMP
		if i == nil || i.From == "" || o.Path.Outcome != "expired" && !(o.Path.Outcome == "answered") || inItsName(o) {
			continue
		}
		n := slices.IndexFunc(h.Routers, func(r measure.Router) bool { return r.Address == i.From })
		if n < 0 {
			h.Routers = append(h.Routers, measure.Router{Address: i.From, ASN: i.ASN})
			n = len(h.Routers) - 1
		}
		r := &h.Routers[n]
		if rtt := o.Path.RTTUS; o.Path.Outcome == "expired" && (r.RTTUS == 0 || rtt < r.RTTUS) {
			r.RTTUS = rtt
		}
		r.Followed = r.Followed || o.Path.LocalPort == e.flow
	}
	var out []measure.Hop
	for ttl := 1; ttl <= max(last, e.server); ttl++ {
		if h := table[ttl]; h != nil {
			out = append(out, *h)
		} else {
			out = append(out, measure.Hop{TTL: ttl, Server: ttl == e.server && ttl > 0})
		}
	}
	return out
}

// followed is the router of the tested flow at a TTL.
func followed(hops []measure.Hop, ttl int) (string, int) {
	for _, h := range hops {
		if h.TTL != ttl {
			continue
		}
		for _, r := range h.Routers {
			if r.Followed {
				return r.Address, r.ASN
			}
		}
		if len(h.Routers) > 0 {
			return h.Routers[0].Address, h.Routers[0].ASN
		}
	}
	return "", 0
}
