package check

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"govah/judge"
	"govah/measure"
	"govah/wire"
)

// freshFor is how long a bracket is shared between suspects: a failure is
// bracketed when canaries worked no longer than this before and after it.
const freshFor = 1500 * time.Millisecond

// canaryHost is a canary with addresses that proved to be its own.
type canaryHost struct {
	CanaryHost
	tried, worked bool // at least once in this run
}

func (c *canaryHost) addr(f measure.Family) (netip.Addr, bool) {
	for _, a := range c.Addrs {
		if wire.FamilyOf(a) == f {
			return a, true
		}
	}
	return netip.Addr{}, false
}

type canaryKey struct {
	step   measure.Step
	family measure.Family
	plain  bool
}

type bracketSet struct {
	began, at time.Time // when the first began and the last ended
	obs       []measure.Observation
	good      bool
	silent    bool // none answered at once: the network itself was silent
}

// canaries brackets failures with known hosts of several networks, and
// remembers how often those failed by themselves.
type canaries struct {
	r     *runner
	log   *wire.Log
	hello *wire.Hello
	hosts []*canaryHost

	mu      sync.Mutex
	running map[canaryKey]chan struct{}
	last    map[canaryKey]bracketSet
	tally   map[canaryKey]*measure.Canary
	rotate  int
}

func newCanaries(r *runner) (*canaries, error) {
	h, err := wire.NewHello("chrome", int64(r.cfg.Seed))
	if err != nil {
		return nil, err
	}
	log := wire.NewLog(time.Now(), r.asnText)
	log.Label = canaryID
	c := &canaries{
		r: r, log: log, hello: h,
		running: map[canaryKey]chan struct{}{}, last: map[canaryKey]bracketSet{}, tally: map[canaryKey]*measure.Canary{},
	}
	for _, h := range r.cfg.Controls.Canaries {
		c.hosts = append(c.hosts, &canaryHost{CanaryHost: h})
	}
	return c, nil
}

func (c *canaries) bytes() (int64, int64) {
	if c == nil {
		return 0, 0
	}
	return c.log.Bytes()
}

// run makes one step to each of up to three canaries at once, to those that
// have worked before others.
func (c *canaries) run(ctx context.Context, k canaryKey) bracketSet { return c.visit(ctx, k, nil) }

// visit is run over TLS that begins a run: inside may go on in each
// connection after the observation of its handshake, and what became of the
// connects counts by itself.
func (c *canaries) visit(ctx context.Context, k canaryKey, inside func(h *canaryHost, tc *wire.TLSConn, after string)) bracketSet {
	var hosts []*canaryHost
	c.mu.Lock()
	for i := range c.hosts {
		h := c.hosts[(i+c.rotate)%len(c.hosts)]
		if _, ok := h.addr(k.family); ok && (k.step != measure.StepQUIC || h.H3) {
			hosts = append(hosts, h)
		}
	}
	slices.SortStableFunc(hosts, func(a, b *canaryHost) int {
		switch a.worked {
		case b.worked:
			return 0
		case true:
			return -1
		}
		return 1
	})
	hosts = hosts[:min(len(hosts), 3)]
	c.rotate++
	c.mu.Unlock()
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		set = bracketSet{began: time.Now()}
	)
	networks, reached := map[int]bool{}, map[int]bool{}
	good, connected := 0, 0
	for _, h := range hosts {
		wg.Go(func() {
			o := c.one(ctx, h, k, inside)
			if o == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			set.obs = append(set.obs, *o)
			c.mu.Lock()
			h.tried = h.tried || ctx.Err() == nil
			h.worked = h.worked || o.Failure == measure.NoFailure || inside != nil && o.After != ""
			c.mu.Unlock()
			if o.Failure == measure.NoFailure {
				good++
				networks[o.ASN] = true
			}
			if o.After != "" {
				connected++
				reached[o.ASN] = true
			}
		})
	}
	wg.Wait()
	set.at = time.Now()
	obs := make([]*measure.Observation, len(set.obs))
	for i := range set.obs {
		obs[i] = &set.obs[i]
	}
	set.silent = judge.Laboured(obs, c.r.view.TCPInfo)
	set.good = len(set.obs) > 0 && good == len(set.obs) && !set.silent
	if ctx.Err() != nil {
		set.good = false
		return set
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count(k, len(set.obs), good, len(networks))
	if inside != nil {
		c.count(canaryKey{step: measure.StepTCP, family: k.family}, len(set.obs), connected, len(reached))
	}
	c.last[k] = set
	return set
}

// count adds to the tally of a step; its caller holds the lock.
func (c *canaries) count(k canaryKey, runs, good, networks int) {
	t := c.tally[k]
	if t == nil {
		t = &measure.Canary{Step: k.step, Family: k.family}
		c.tally[k] = t
	}
	t.Runs += runs
	t.Failures += runs - good
	t.Networks = max(t.Networks, networks)
}

func (c *canaries) one(ctx context.Context, h *canaryHost, k canaryKey, inside func(*canaryHost, *wire.TLSConn, string)) *measure.Observation {
	addr, _ := h.addr(k.family)
	meta := wire.Meta{Role: measure.RoleCanary, Stage: measure.StageBracket}
	if c.r.pacer.wait(ctx) != nil {
		return nil
	}
	if k.step == measure.StepQUIC {
		return wire.QUIC(ctx, c.r.cfg.Network, c.log, meta, wire.QUICSpec{
			Remote: netip.AddrPortFrom(addr, 443), SNI: h.Name, Verify: h.Name, Timeout: quicTimeout}, c.r.trust)
	}
	port := uint16(443)
	if k.plain {
		port = 80
	}
	conn, o := wire.Connect(ctx, c.r.cfg.Network, c.log, meta, wire.ConnectSpec{Remote: netip.AddrPortFrom(addr, port)})
	if conn == nil {
		if k.step != measure.StepTCP {
			c.log.Amend(func() { o.Step = k.step }) // what it was to be
		}
		return o
	}
	defer conn.Abort()
	meta.After = o.ID
	switch k.step {
	case measure.StepTLS:
		tc, ho := wire.Handshake(ctx, c.log, meta, conn, wire.HandshakeSpec{SNI: h.Name, Verify: h.Name, Hello: c.hello}, c.r.trust)
		if tc != nil {
			if inside != nil {
				inside(h, tc, ho.ID)
			}
			tc.Close()
		}
		return ho
	case measure.StepHTTP:
		ho, _ := wire.Fetch(ctx, c.log, meta, conn, wire.Request{URL: "http://" + h.Name + "/", Method: "HEAD", Host: h.Name})
		return ho
	}
	return o
}

// bracket gives a fresh set of canary steps that began after since. Suspects that
// ask at the same time share one.
func (c *canaries) bracket(ctx context.Context, k canaryKey, since time.Time) bracketSet {
	for {
		c.mu.Lock()
		if set, ok := c.last[k]; ok && set.began.After(since) && time.Since(set.at) < freshFor {
			c.mu.Unlock()
			return set
		}
		if wait, ok := c.running[k]; ok {
			c.mu.Unlock()
			select {
			case <-wait:
			case <-ctx.Done():
				return bracketSet{}
			}
			continue
		}
		done := make(chan struct{})
		c.running[k] = done
		c.mu.Unlock()
		set := c.run(ctx, k)
		c.mu.Lock()
		delete(c.running, k)
		c.mu.Unlock()
		close(done)
		return set
	}
}

// dropDead leaves out canaries that were tried and never worked here while
// others did, and says whether there were any: one that is blocked or down says
// nothing about the network, and what was counted with it is forgotten.
func (c *canaries) dropDead() bool {
	if !c.any() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.hosts)
	c.hosts = slices.DeleteFunc(c.hosts, func(h *canaryHost) bool { return h.tried && !h.worked })
	if len(c.hosts) == n {
		return false
	}
	clear(c.tally)
	clear(c.last)
	return true
}

// settle leaves out canaries that were not needed, where others worked: a
// failure of one that was never seen to work would tell nothing.
func (c *canaries) settle() {
	if alive := c.working(); len(alive) > 0 {
		c.mu.Lock()
		c.hosts = alive
		c.mu.Unlock()
	}
}

// forget leaves out what was counted of a step.
func (c *canaries) forget(step measure.Step) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.tally {
		if k.step == step {
			delete(c.tally, k)
			delete(c.last, k)
		}
	}
}

// speaksH3 notes that a canary answers HTTP/3.
func (c *canaries) speaksH3(h *canaryHost) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.H3 = true
}

// any says whether a canary has worked in this run.
func (c *canaries) any() bool { return len(c.working()) > 0 }

// working are the canaries that have worked in this run.
func (c *canaries) working() (out []*canaryHost) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.hosts {
		if h.worked {
			out = append(out, h)
		}
	}
	return out
}

// tallies are the canaries' own figures so far.
func (c *canaries) tallies() []measure.Canary {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	byKey := map[canaryKey]measure.Canary{}
	for k, t := range c.tally {
		k.plain = false
		sum := byKey[k]
		sum.Step, sum.Family = t.Step, t.Family
		sum.Runs += t.Runs
		sum.Failures += t.Failures
		sum.Networks = max(sum.Networks, t.Networks)
		byKey[k] = sum
	}
	var out []measure.Canary
	for _, f := range []measure.Family{measure.IPv4, measure.IPv6} {
		for _, s := range []measure.Step{measure.StepDNS, measure.StepTCP, measure.StepTLS, measure.StepHTTP, measure.StepQUIC} {
			if t, ok := byKey[canaryKey{step: s, family: f}]; ok {
				out = append(out, t)
			}
		}
	}
	return out
}

// elsewhere picks a canary in another AS than addr's for experiments that need
// an unrelated server; n rotates among them.
func (c *canaries) elsewhere(addr netip.Addr, n int, quic bool) (netip.Addr, *canaryHost, bool) {
	f, asn := wire.FamilyOf(addr), c.r.asn(addr)
	var fit []*canaryHost
	for _, h := range c.hosts {
		if a, ok := h.addr(f); ok && a != addr && (asn == 0 || c.r.asn(a) != asn) && (!quic || h.H3) {
			fit = append(fit, h)
		}
	}
	if len(fit) == 0 {
		return netip.Addr{}, nil, false
	}
	h := fit[n%len(fit)]
	a, _ := h.addr(f)
	return a, h, true
}

// canaryID is what a canary's observation is called in every measurement.
func canaryID(id string) string { return "c" + strings.TrimPrefix(id, "o") }

// include copies a bracket into the job's measurement, with times counted
// from the job's start.
func (j *job) include(set bracketSet) {
	shift := j.r.canaries.log.Started().Sub(j.log.Started()).Microseconds()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, o := range set.obs {
		id := canaryID(o.ID)
		o.ID, o.After = id, ""
		o.StartUS += shift
		j.brackets[id] = o
	}
}

// bracket runs canaries of a protocol and keeps them with the measurement.
func (j *job) bracket(ctx context.Context, k canaryKey, since time.Time) bracketSet {
	if j.r.canaries == nil || len(j.r.canaries.hosts) == 0 {
		return bracketSet{}
	}
	set := j.r.canaries.bracket(ctx, k, since)
	j.include(set)
	return set
}
