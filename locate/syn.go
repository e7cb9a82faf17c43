package locate

import (
	"context"
	"net/netip"
	"time"

	"govah/measure"
	"govah/wire"
)

// bySYN looks for a device that reacts to an address or a port: the control
// goes to another address of the same network, to another port, or, where all
// of that network is blocked, to a server elsewhere, whose path is the same
// for the first routers. All SYNs of the test are of one flow, and so one
// attempt to whoever watches. Packets towards a neighbouring address meet the same
// routers whether or not anybody lives there.
func (r *run) bySYN(ctx context.Context) error {
	if len(r.spec.Controls) == 0 {
		return nil
	}
	r.control = r.spec.Controls[0]
	for _, c := range r.spec.Controls {
		// One that can be connected to meets no device of its own. A reset may
		// be the device's.
		if r.syn(ctx, measure.RoleControl, c.At, 0, 2).Path.Outcome == "connected" {
			r.control = c
			break
		}
	}
	at := r.control.At
	silent := 0
	for k := 1; k <= maxTTL && silent < silences && ctx.Err() == nil; k++ {
		c := r.syn(ctx, measure.RoleControl, at, k, 2)
		if c.Path.Outcome == "connected" || c.Path.Outcome == "reset" {
			r.server = k
		}
		if silent++; c.Path.Outcome != "silent" {
			silent = 0
		}
		t := r.syn(ctx, measure.RoleTest, r.spec.Remote, k, sendings)
		if r.strange(t) {
			r.confirmSYN(ctx, k, t)
			return nil
		}
		if t.Path.Outcome == "connected" || r.server > 0 {
			return nil
		}
	}
	return nil
}

// strange says that a SYN fared as none would that nobody reacts to.
func (r *run) strange(t *measure.Observation) bool {
	switch t.Path.Outcome {
	case "reset", "unreachable":
		return true
	case "silent":
		return t.Path.Sends >= sendings && r.hop(t.TTL).answers()
	}
	return false
}

func (r *run) confirmSYN(ctx context.Context, k int, t *measure.Observation) {
	r.syn(ctx, measure.RoleControl, r.control.At, k, 2)
	if below := r.answering(k - 1); below > 0 {
		r.syn(ctx, measure.RoleTest, r.spec.Remote, below, 2)
	}
	if k > 1 {
		r.syn(ctx, measure.RoleTest, r.spec.Remote, k-1, 2)
	}
	if t.Path.Outcome == "silent" && otherNetwork(r.control.At.Addr(), r.spec.Remote.Addr()) {
		// The two paths may part here: then the next routers answer.
		for ttl := k + 1; ttl <= k+3; ttl++ {
			r.syn(ctx, measure.RoleTest, r.spec.Remote, ttl, 2)
		}
	}
	if t.Path.Outcome == "silent" {
		r.syn(ctx, measure.RoleTest, r.spec.Remote, 0, 1)
		r.syn(ctx, measure.RoleTest, r.spec.Remote, k, sendings)
	}
	for range r.spec.Flows - 1 {
		saved := r.port
		r.port = r.newPort()
		for ttl := max(1, k-1); ttl <= k; ttl++ {
			r.syn(ctx, measure.RoleControl, r.control.At, ttl, 1)
		}
		r.port = saved
	}
}

// syn sends a SYN with a TTL, at most so often, until anybody answers, as one
// observation.
func (r *run) syn(ctx context.Context, role measure.Role, at netip.AddrPort, ttl, tries int) *measure.Observation {
	o := r.begin(measure.ExpLocate, role, ttl, "syn", r.port)
	o.Remote, o.ASN = at.String(), r.log.ASN(at.Addr().String())
	o.Path.Sends = 0
	defer func() {
		r.log.End(o)
		if o.Path.Outcome == "expired" || o.Path.Outcome == "silent" && role == measure.RoleControl {
			r.heard(ttl, o.Path.Outcome == "expired", time.Duration(o.Path.RTTUS)*time.Microsecond)
		}
	}()
	for range tries {
		if r.pace(ctx) != nil {
			o.Failure = measure.Interrupted
			return o
		}
		timeout := 900 * time.Millisecond
		if r.rtt > 0 {
			timeout = min(timeout, max(300*time.Millisecond, r.reactionBy(ttl)))
		}
		o.Path.Sends++
		p, failure, detail := wire.SendSYN(ctx, r.n, r.log, wire.ConnectSpec{Remote: at, Local: r.local(r.port), TTL: ttl, Timeout: timeout})
		if failure == measure.AddressInUse {
			r.port = r.newPort()
			continue
		}
		p.Sends, p.ServerTTL = o.Path.Sends, o.Path.ServerTTL
		o.Path, o.Failure, o.Detail = p, failure, detail
		if p.Outcome != "silent" {
			if p.Outcome == "expired" {
				r.farther(time.Duration(p.RTTUS) * time.Microsecond)
			}
			return o
		}
		if role == measure.RoleTest && ttl > 0 && !r.hop(ttl).answers() && !otherNetwork(r.control.At.Addr(), at.Addr()) {
			return o // silence says nothing here
		}
	}
	return o
}

// otherNetwork says that two addresses are of different networks, as far as their
// first bits tell: routes are announced for a /24 or a /48 at the longest.
func otherNetwork(a, b netip.Addr) bool {
	bits := 24
	if a.Is6() {
		bits = 48
	}
	return a.Is4() != b.Is4() || !netip.PrefixFrom(a, bits).Masked().Contains(b)
}
