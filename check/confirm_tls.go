package check

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"govah/measure"
	"govah/wire"
)

// sniControl is what stands for the tested name in a pair.
type sniControl struct {
	kind measure.ControlKind
	name string
}

// helloSent is the outcome of one ClientHello.
type helloSent struct {
	obs *measure.Observation // of the handshake, or of the connect that failed
	// drew: TLS came back. connected: the TCP connection was made.
	drew, connected, completed bool
	conn                       *wire.TLSConn
	close                      func()
}

func (h helloSent) failed() bool { return h.connected && !h.completed }

// sendHello connects and sends one ClientHello. The connect carries no
// experiment of its own: a pair is a pair of handshakes.
func (j *job) sendHello(ctx context.Context, meta wire.Meta, addr netip.Addr, port int, name string, hello *wire.Hello, ttl, mss int) helloSent {
	conn, o := j.connect(ctx, wire.Meta{Role: meta.Role, Stage: meta.Stage}, addr, port, 0, mss)
	if conn == nil {
		return helloSent{obs: o, close: func() {}}
	}
	meta.After = o.ID
	tc, ho := j.handshake(ctx, meta, conn, name, hello, ttl)
	h := helloSent{obs: ho, connected: true, completed: tc != nil, conn: tc}
	h.drew = ho.TLS != nil && ho.TLS.ServerBytes
	h.close = func() { conn.Abort() }
	return h
}

// chooseControl finds a control name that draws TLS from the address: a random
// one of the same length, else one that worked in this run, else none. Only
// the first that works is used, so that an allow-list shows as what it is.
func (j *job) chooseControl(ctx context.Context, exp measure.Experiment, addr netip.Addr, port int, host string, pair int) (sniControl, *measure.Observation, bool) {
	for _, c := range []sniControl{
		{measure.ControlRandom, j.r.randomName(host)},
		{measure.ControlKnown, j.knownName()},
		{measure.ControlNone, ""},
	} {
		if c.kind == measure.ControlKnown && c.name == "" {
			continue
		}
		meta := wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: exp, Pair: pair, ControlKind: c.kind}
		h := j.sendHello(ctx, meta, addr, port, c.name, j.hello, 0, 0)
		h.close()
		if h.drew {
			return c, h.obs, true
		}
		if ctx.Err() != nil {
			break
		}
	}
	return sniControl{}, nil, false
}

// namePair runs one control and one test of an experiment about the name, the
// control first: nothing is triggered while the last trigger still lingers.
// fail says whether a ClientHello was reacted to.
func (j *job) namePair(ctx context.Context, exp measure.Experiment, addr netip.Addr, port int, s suspect, k int, control *sniControl, test func(meta wire.Meta) *measure.Observation) (o outcome) {
	var c *measure.Observation
	if control.kind == "" {
		found, obs, ok := j.chooseControl(ctx, exp, addr, port, s.host, k)
		if !ok {
			return outcome{}
		}
		*control, c = found, obs
	} else {
		name := control.name
		if control.kind == measure.ControlRandom {
			name = j.r.randomName(s.host)
		}
		once := func(ctx context.Context, meta wire.Meta) (*measure.Observation, bool) {
			h := j.sendHello(ctx, meta, addr, port, name, j.hello, 0, 0)
			h.close()
			return h.obs, h.drew
		}
		meta := wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: exp, Pair: k, ControlKind: control.kind}
		obs, ok := once(ctx, meta)
		if !ok {
			// Either the path lost it or the last trigger still lingers.
			ok = j.waitResidual(ctx, addr, func(ctx context.Context, m wire.Meta) bool {
				_, ok := once(ctx, m)
				return ok
			})
			if !ok {
				return outcome{}
			}
			if obs, ok = once(ctx, meta); !ok {
				return outcome{}
			}
		}
		c = obs
	}
	meta := wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: exp, Pair: k, Differs: []string{"sni"}}
	t := test(meta)
	j.log.Link(t, c.ID)
	return outcome{control: true, hit: t.Failure != measure.NoFailure}
}

// elsewhere is where a name is tried that has nothing to do with it: a helper,
// which answers every name, or a canary in another AS.
func (j *job) elsewhere(addr netip.Addr, k int, quic bool) (netip.AddrPort, bool) {
	if !quic {
		for i := range j.r.helpers {
			h := &j.r.helpers[(i+k)%len(j.r.helpers)]
			for _, a := range h.addrs {
				if wire.FamilyOf(a) == wire.FamilyOf(addr) {
					return netip.AddrPortFrom(a, h.port), true
				}
			}
		}
	}
	a, _, ok := j.r.canaries.elsewhere(addr, k, quic)
	return netip.AddrPortFrom(a, 443), ok
}

// confirmTLS finds out whether a handshake fails because of the name: against
// other names at the same address, against the same name elsewhere, and, where
// something answers, with a TTL that cannot reach the server.
func (j *job) confirmTLS(ctx context.Context, s suspect) int {
	timeout := s.seen.Failure == measure.GenericTimeout
	if timeout {
		j.smallHello(ctx, s)
	}
	var here, there sniControl
	elsewhereHits, ttlHits := 0, 0
	serverTTL := 0
	if !timeout && j.r.view.SetTTL && j.r.view.SYNHop {
		serverTTL = j.serverTTL(ctx, s.addr, s.port)
	}
	limit := func(k int) bool {
		return k >= hopeless && elsewhereHits == 0 && ttlHits == 0 && !j.helperCompleted(s.addr, s.host)
	}
	hello := func(addr netip.Addr, port, ttl int, failed *bool) func(wire.Meta) *measure.Observation {
		return func(meta wire.Meta) *measure.Observation {
			h := j.sendHello(ctx, meta, addr, port, s.host, j.hello, ttl, 0)
			h.close()
			*failed = h.failed() && !h.completed
			return h.obs
		}
	}
	return j.pairs(ctx, s, canaryKey{step: measure.StepTLS, family: s.family}, limit, func(ctx context.Context, k int) outcome {
		far := make(chan bool, 1)
		go func() {
			at, ok := j.elsewhere(s.addr, k, false)
			if !ok {
				far <- false
				return
			}
			// Each place has its own control: what one server does with an
			// unknown name says nothing about another.
			if len(j.r.helpers) == 0 {
				there = sniControl{}
			}
			var failed bool
			o := j.namePair(ctx, measure.ExpSNIElsewhere, at.Addr(), int(at.Port()), s, k, &there, hello(at.Addr(), int(at.Port()), 0, &failed))
			far <- o.hit && failed
		}()
		var failed bool
		o := j.namePair(ctx, measure.ExpSNI, s.addr, s.port, s, k, &here, hello(s.addr, s.port, 0, &failed))
		o.hit = o.hit && failed
		if <-far {
			elsewhereHits++
			o.hit, o.control = true, true
		}
		if serverTTL > 1 && k <= 3 && o.hit {
			if j.ttlPair(ctx, s, k, serverTTL) {
				ttlHits++
			}
		}
		return o
	})
}

// smallHello repeats a handshake that met silence with a small segment size
// and without the post-quantum key share: what that cures is a path that
// cannot carry large packets.
func (j *job) smallHello(ctx context.Context, s suspect) {
	small, err := wire.NewHello("chrome-small", int64(j.r.cfg.Seed))
	if err != nil || !j.r.spend(1) {
		return
	}
	c := j.sendHello(ctx, wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: measure.ExpHello, Pair: 1}, s.addr, s.port, s.host, small, 0, 536)
	c.close()
	t := j.sendHello(ctx, wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpHello, Pair: 1, Differs: []string{"hello"}}, s.addr, s.port, s.host, j.hello, 0, 0)
	t.close()
	j.log.Link(t.obs, c.obs.ID)
}

// ttlPair sends both ClientHellos with a TTL that ends one router before the
// server. It says whether the test, and not the control, was answered.
func (j *job) ttlPair(ctx context.Context, s suspect, k, serverTTL int) bool {
	if !j.r.spend(1) {
		return false
	}
	mark := func(o *measure.Observation) {
		path := &measure.Path{Probe: "data", ServerTTL: serverTTL}
		switch {
		case o.Failure == measure.GenericTimeout:
			path.Outcome = "silent"
		case o.Failure == measure.ConnectionReset:
			path.Outcome = "reset"
		default:
			path.Outcome = "answered"
		}
		j.log.Amend(func() { o.TTL, o.Path = serverTTL-1, path })
	}
	meta := wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: measure.ExpSNITTL, Pair: k, ControlKind: measure.ControlRandom}
	c := j.sendHello(ctx, meta, s.addr, s.port, j.r.randomName(s.host), j.hello, serverTTL-1, 0)
	c.close()
	if !c.connected {
		return false
	}
	mark(c.obs)
	meta = wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpSNITTL, Pair: k, Differs: []string{"sni"}}
	t := j.sendHello(ctx, meta, s.addr, s.port, s.host, j.hello, serverTTL-1, 0)
	t.close()
	if !t.connected {
		return false
	}
	mark(t.obs)
	j.log.Link(t.obs, c.obs.ID)
	return t.obs.Path.Outcome != "silent" && c.obs.Path.Outcome == "silent"
}

// serverTTL searches the lowest TTL at which a connection completes; 0 if it
// cannot be found.
func (j *job) serverTTL(ctx context.Context, addr netip.Addr, port int) int {
	return j.r.lowestTTL(ctx, j.log, wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm}, addr, port)
}

func (r *runner) lowestTTL(ctx context.Context, log *wire.Log, meta wire.Meta, addr netip.Addr, port int) int {
	reaches := func(ttl int) bool {
		return came(r.syn(ctx, log, meta, netip.AddrPortFrom(addr, uint16(port)), ttl), "connected", "reset")
	}
	low, high := 0, 40
	if !reaches(high) {
		return 0
	}
	// Paths are short: double first, then halve.
	for step := 4; step < high; step *= 2 {
		if reaches(step) {
			high = step
			break
		}
		low = step
	}
	for high-low > 1 && ctx.Err() == nil {
		mid := (low + high) / 2
		if reaches(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}

// terminator says whether something nearer than the server accepts connections
// to one port: its lowest TTL is smaller than that of another port.
func (r *runner) terminator(ctx context.Context, log *wire.Log, addr netip.Addr, port, other int) bool {
	meta := wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpProxyTTL, Differs: []string{"port"}}
	test := r.lowestTTL(ctx, log, meta, addr, port)
	meta = wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: measure.ExpProxyTTL, ControlKind: measure.ControlPort}
	control := r.lowestTTL(ctx, log, meta, addr, other)
	return test > 0 && control > 0 && control-test >= 2
}

// helperAt is the helper at an address and port, nil if there is none.
func (j *job) helperAt(addr netip.Addr, port int) *vantage {
	for i := range j.r.helpers {
		if h := &j.r.helpers[i]; int(h.port) == port && slices.Contains(h.addrs, addr) {
			return h
		}
	}
	return nil
}

// firstHop tries whether what answers at an address is this device or its
// neighbour: again if nothing came back, for silence tells nothing.
func (j *job) firstHop(ctx context.Context, addr netip.Addr, port int) {
	if !j.r.view.SetTTL || !j.r.view.SYNHop {
		return
	}
	for range 2 {
		meta := wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpFirstHop}
		if !came(j.r.syn(ctx, j.log, meta, netip.AddrPortFrom(addr, uint16(port)), 1), "silent") {
			return
		}
	}
}

// confirmCertificate looks at a chain that does not verify: which chain other
// names get at the same address, and which the same name gets elsewhere; where
// that is a helper, also what came of the ClientHello there.
func (j *job) confirmCertificate(ctx context.Context, s suspect) {
	j.firstHop(ctx, s.addr, s.port)
	for k := 1; k <= 3; k++ {
		if k > 1 && wire.Sleep(ctx, apart) != nil || !j.r.spend(1) {
			return
		}
		j.bracket(ctx, canaryKey{step: measure.StepTLS, family: s.family}, time.Now().Add(-3*time.Second))
		pair := func(exp measure.Experiment, addr netip.Addr, port int) {
			c := j.sendHello(ctx, wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: exp, Pair: k, ControlKind: measure.ControlRandom}, addr, port, j.r.randomName(s.host), j.hello, 0, 0)
			c.close()
			t := j.sendHello(ctx, wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: exp, Pair: k, Differs: []string{"sni"}}, addr, port, s.host, j.hello, 0, 0)
			t.close()
			j.log.Link(t.obs, c.obs.ID)
			if h := j.helperAt(addr, port); h != nil && c.completed && t.completed && ctx.Err() == nil {
				for _, s := range []helloSent{c, t} {
					wire.AskHello(ctx, j.r.cfg.Network, j.log, wire.Meta{Role: measure.RoleHelper, Stage: measure.StageConfirm}, h.url, addr, j.r.trust, s.obs, s.conn.ClientHello())
				}
			}
		}
		pair(measure.ExpSNI, s.addr, s.port)
		if at, ok := j.elsewhere(s.addr, k, false); ok {
			pair(measure.ExpSNIElsewhere, at.Addr(), int(at.Port()))
		}
		j.bracket(ctx, canaryKey{step: measure.StepTLS, family: s.family}, time.Now())
		if j.enough(s) {
			return
		}
	}
}
