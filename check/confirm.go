package check

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"govah/known"
	"govah/measure"
	"govah/wire"
)

const (
	// maxPairs ends an experiment that does not become significant.
	maxPairs = 20
	// hopeless ends one in which nothing was hit so far.
	hopeless = 5
	// apart is the least time from one pair of an experiment to the next, and
	// rest the least between the end of one and the start of the next.
	apart = 2 * time.Second
	rest  = 500 * time.Millisecond
	// maxSuspicions bounds what is confirmed for one target.
	maxSuspicions = 5
)

var layerOrder = []measure.Step{measure.StepDNS, measure.StepTCP, measure.StepTLS, measure.StepHTTP, measure.StepQUIC, measure.StepMail, measure.StepSSH, measure.StepStream}

// confirm turns suspicions into experiments: one after the other within a
// family, the families and the names side by side, since they share no key.
func (j *job) confirm(ctx context.Context) {
	key := canaryKey{step: measure.StepTCP, family: j.r.anyFamily()}
	if !j.bracket(ctx, key, time.Now()).good && !j.r.canaries.any() {
		return // nothing works here: no experiment could mean anything
	}
	j.askHelpers(ctx)
	j.mu.Lock()
	list := slices.Clone(j.suspects)
	j.mu.Unlock()
	slices.SortStableFunc(list, func(a, b suspect) int {
		return slices.Index(layerOrder, a.layer) - slices.Index(layerOrder, b.layer)
	})
	groups := map[measure.Family][]suspect{}
	streams := 0
	for _, s := range list {
		// An address that only the suspected resolver gave is the DNS
		// experiments' business: blocking at it proves nothing more.
		if res := j.names[s.host]; s.layer != measure.StepDNS && res != nil && s.addr.IsValid() &&
			len(res.fromEncrypted) > 0 && !slices.Contains(res.fromEncrypted, s.addr) && j.suspected(measure.StepDNS, s.host) && !j.identified(s.host, s.addr) {
			continue
		}
		if s.layer == measure.StepStream {
			// Throttling is tested alone, and once: the family is not what a
			// limit of rate depends on.
			if streams++; streams > 1 {
				continue
			}
		}
		if len(groups[s.family]) < maxSuspicions {
			groups[s.family] = append(groups[s.family], s)
		}
	}
	j.stage = measure.StageIsolate // of what is visited again
	var wg sync.WaitGroup
	for _, group := range groups {
		wg.Go(func() {
			for _, s := range group {
				if ctx.Err() != nil {
					return
				}
				j.examine(ctx, s)
			}
		})
	}
	wg.Wait()
}

// examine makes the experiments about one suspicion.
func (j *job) examine(ctx context.Context, s suspect) {
	if s.addr.IsValid() && s.layer == measure.StepTCP {
		if ago, ok := j.r.keys.since(s.addr); ok && ago < 5*time.Minute && j.isolate(ctx, s) {
			return
		}
	}
	hits := 0
	switch {
	case s.layer == measure.StepDNS:
		j.confirmNames(ctx, s)
		return
	case s.layer == measure.StepTCP:
		hits = j.confirmAddress(ctx, s)
	case s.layer == measure.StepTLS && s.certificate:
		j.confirmCertificate(ctx, s)
		return
	case s.layer == measure.StepTLS:
		hits = j.confirmTLS(ctx, s)
	case s.layer == measure.StepHTTP && s.body:
		hits = j.confirmBody(ctx, s)
	case s.layer == measure.StepHTTP:
		hits = j.confirmHTTP(ctx, s)
	case s.layer == measure.StepQUIC:
		hits = j.confirmQUIC(ctx, s)
	case s.layer == measure.StepStream:
		j.confirmStream(ctx, s)
		return
	case s.layer == measure.StepMail:
		j.confirmMail(ctx, s)
		return
	case s.layer == measure.StepSSH:
		j.confirmHostKey(ctx, s)
		return
	}
	if hits == 0 && ctx.Err() == nil {
		j.revisit(ctx, s)
	}
}

func (j *job) suspected(layer measure.Step, host string) bool {
	for _, s := range j.suspects {
		if s.layer == layer && s.host == host {
			return true
		}
	}
	return false
}

// identified says whether a certificate proved addr to be host's.
func (j *job) identified(host string, addr netip.Addr) bool {
	for _, o := range j.log.Observations() {
		if o.Step != measure.StepTLS || o.SNI != host || o.TLS == nil {
			continue
		}
		if ap, err := netip.ParseAddrPort(o.Remote); err == nil && ap.Addr().Unmap() == addr &&
			(o.TLS.Public == measure.VerifiedOK || o.TLS.PublicEstimated == measure.VerifiedOK) {
			return true
		}
	}
	return false
}

// revisit goes through the front door once more, after an experiment in which
// nothing was hit or an earlier trigger whose residue is over.
func (j *job) revisit(ctx context.Context, s suspect) bool {
	if s.layer == measure.StepQUIC {
		meta := wire.Meta{Role: measure.RoleTest, Stage: measure.StageIsolate, Experiment: measure.ExpQUIC, Differs: []string{"transport"}}
		return j.quic(ctx, meta, s.addr, s.port, s.host, s.url).Failure == measure.NoFailure
	}
	if j.target.Scheme == "ssh" && s.addr.IsValid() {
		meta := wire.Meta{Role: measure.RoleTest, Stage: measure.StageIsolate, Experiment: measure.ExpHostKey, Differs: []string{"address"}}
		return j.r.beginSSH(ctx, j.log, meta, netip.AddrPortFrom(s.addr, uint16(s.port)), s.host).Failure == measure.NoFailure
	}
	if s.url == "" || !s.addr.IsValid() {
		return false
	}
	return j.visit(ctx, s.url, candidate{addr: s.addr}, true, maxRedirects)
}

// isolate waits until the residue of an earlier trigger at the same address is
// over and visits again, alone. True if the visit then went well.
func (j *job) isolate(ctx context.Context, s suspect) bool {
	ok := j.waitResidual(ctx, s.addr, func(ctx context.Context, meta wire.Meta) bool {
		conn, _ := j.connect(ctx, meta, s.addr, s.port, 0, 0)
		if conn == nil {
			return false
		}
		conn.Abort()
		return true
	})
	if !ok {
		return false
	}
	return j.revisit(ctx, s)
}

// residualLimit is how long a run waits for the residue of a trigger to pass.
// The longest documented one is 180 s.
func (r *runner) residualLimit() time.Duration {
	if r.cfg.Pace == PaceFast {
		return 40 * time.Second
	}
	return 200 * time.Second
}

// waitResidual repeats a harmless request at an address that was triggered
// until it works again, waiting longer each time, because a request can
// restart the timer.
func (j *job) waitResidual(ctx context.Context, addr netip.Addr, harmless func(context.Context, wire.Meta) bool) bool {
	deadline := time.Now().Add(j.r.residualLimit())
	meta := wire.Meta{Role: measure.RoleTest, Stage: measure.StageIsolate, Experiment: measure.ExpResidual, Differs: []string{"history"}}
	for wait := apart; ; wait += wait / 2 {
		if time.Now().Add(wait).After(deadline) {
			return false
		}
		if wire.Sleep(ctx, wait) != nil {
			return false
		}
		if harmless(ctx, meta) {
			return true
		}
	}
}

// outcome is one round of an experiment.
type outcome struct {
	hit     bool // the test failed where its control passed
	control bool // the control passed
}

// pairs runs rounds of an experiment, bracketed by canaries and at least
// apart, until package judge calls it confirmed, until nothing was hit in a
// few, until limit says that more would not help, or until maxPairs. It
// returns how often the test was hit.
func (j *job) pairs(ctx context.Context, s suspect, key canaryKey, limit func(k int) bool, round func(ctx context.Context, k int) outcome) int {
	hits, lost, died := 0, 0, 0
	var last time.Time
	k := 1
	for ; k <= maxPairs; k++ {
		if k > 1 && wire.Sleep(ctx, max(apart-time.Since(last), rest)) != nil {
			break
		}
		last = time.Now()
		if !j.r.spend(1) {
			break
		}
		before := j.bracket(ctx, key, time.Now().Add(-3*time.Second))
		o := round(ctx, k)
		if ctx.Err() != nil {
			break
		}
		after := j.bracket(ctx, key, time.Now())
		if o.hit {
			if before.good && after.good {
				hits++
			}
			if s.addr.IsValid() {
				j.r.keys.trigger(s.addr)
			}
			// Whatever silences everything after a trigger is not provoked
			// again and again: it tells no more, and others suffer from it.
			if after.silent {
				if died++; died == 2 {
					break
				}
			}
		}
		if !o.control {
			if lost++; lost == 3 {
				break
			}
			continue
		}
		if k >= hopeless && hits == 0 || limit != nil && limit(k) {
			break
		}
		if o.hit && j.enough(s) {
			break
		}
	}
	if hits == 1 && k >= hopeless {
		return 0 // chance: worth one more visit
	}
	return hits
}

// enough asks the judge whether what was measured so far confirms a finding
// of the suspicion's layer and family.
func (j *job) enough(s suspect) bool {
	for _, f := range j.verdict().Findings {
		if f.Interference == measure.InterferenceConfirmed && !f.Method.Benign() && answers(f.Layer, s) &&
			(f.Family == s.family || f.Family == "" || s.family == "") {
			return true
		}
	}
	return false
}

// answers says whether a finding of a layer settles a suspicion: what stops
// inside a session may turn out to be a matter of the stream.
func answers(layer measure.Step, s suspect) bool {
	return layer == s.layer || layer == measure.StepStream && s.layer == measure.StepHTTP && s.body
}

// knownName is a name that worked in this run.
func (j *job) knownName() string {
	if len(j.r.cfg.Controls.Canaries) == 0 {
		return ""
	}
	return j.r.cfg.Controls.Canaries[0].Name
}

// confirmNames makes the experiments about a suspicious answer.
func (j *job) confirmNames(ctx context.Context, s suspect) {
	r, res := j.r, j.names[s.host]
	if res == nil {
		return
	}
	given := slices.Clone(res.fromSystem)
	for _, a := range addresses(res.direct) {
		if !slices.Contains(given, a) {
			given = append(given, a)
		}
	}
	if j.identify(ctx, s.host, given, firstOf(res.system, res.direct)) && (res.direct == nil || res.direct.DNS == nil || len(res.direct.DNS.Replies) < 2) {
		return // the names turned out to be in order
	}
	var enc *measure.Observation
	if len(res.encrypted) > 0 {
		enc = res.encrypted[0]
	}
	identified := make(chan struct{})
	go func() {
		defer close(identified)
		j.identify(ctx, s.host, res.fromEncrypted, enc)
	}()
	defer func() { <-identified }()

	control := j.knownName()
	hits, forged := 0, 0
	for k := 1; k <= maxPairs; k++ {
		if k > 1 && wire.Sleep(ctx, apart) != nil || !r.spend(1) {
			break
		}
		hit := false
		ask := func(name string, server netip.AddrPort, meta wire.Meta, nowhere bool) *measure.Observation {
			if r.pacer.waitAsk(ctx) != nil {
				return j.interrupted(measure.StepDNS, meta)
			}
			q := wire.Question{Name: name, Type: "A", Server: server, Transport: "udp", Timeout: lookupTimeout, Linger: lingerDNS, NoResolver: nowhere}
			if nowhere {
				q.Tries, q.Timeout = 2, 2500*time.Millisecond
			}
			return wire.Ask(ctx, r.cfg.Network, j.log, meta, q, r.trust)
		}
		pair := func(exp measure.Experiment, server netip.AddrPort, nowhere bool) (t, c *measure.Observation) {
			cm := wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: exp, Pair: k, ControlKind: measure.ControlKnown}
			c = ask(control, server, cm, nowhere)
			tm := wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: exp, Pair: k, Differs: []string{"qname"}}
			t = ask(s.host, server, tm, nowhere)
			j.log.Link(t, c.ID)
			return t, c
		}
		j.bracket(ctx, canaryKey{step: measure.StepTCP, family: r.anyFamily()}, time.Now().Add(-3*time.Second))
		done := make(chan bool, 1)
		go func() {
			answered := false
			if at, ok := r.nowhere(); ok {
				t, _ := pair(measure.ExpNowhere, at, true)
				answered = t.DNS != nil && len(t.DNS.Replies) > 0
			}
			done <- answered
		}()
		switch {
		case len(r.cfg.Surroundings.Resolvers) > 0:
			t, _ := pair(measure.ExpQName, r.cfg.Surroundings.Resolvers[0], false)
			hit = t.Failure != measure.NoFailure || len(addresses(t)) > 0
		case r.view.Lookup:
			cm := wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: measure.ExpQName, Pair: k, ControlKind: measure.ControlKnown}
			c := wire.LookupSystem(ctx, r.cfg.Network, j.log, cm, control, lookupTimeout)
			tm := wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpQName, Pair: k, Differs: []string{"qname"}}
			t := wire.LookupSystem(ctx, r.cfg.Network, j.log, tm, s.host, lookupTimeout)
			j.log.Link(t, c.ID)
			hit = true
		}
		if k <= 2 {
			for i, server := range r.cfg.Controls.Resolvers {
				if i == 2 {
					break
				}
				meta := wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpResolver, Pair: k, Differs: []string{"resolver"}}
				o := ask(s.host, server, meta, false)
				if enc != nil {
					j.log.Link(o, enc.ID)
				}
			}
		}
		if <-done {
			forged++
			hit = true
		}
		j.bracket(ctx, canaryKey{step: measure.StepTCP, family: r.anyFamily()}, time.Now())
		if hit {
			hits++
		}
		if j.enough(s) || k >= 3 && hits == 0 {
			break
		}
		// Answers prove themselves at once or not at all; silence needs the
		// statistics of several rounds.
		if forged >= 2 || k >= 3 && firstOf(res.system, res.direct).Failure == measure.NoFailure || k >= 8 {
			break
		}
	}
}

// identify does a handshake with a name at up to two addresses a family, all
// at once: a certificate that verifies for the name proves whose address it is.
func (j *job) identify(ctx context.Context, name string, list []netip.Addr, after *measure.Observation) (proved bool) {
	var (
		wg sync.WaitGroup
		mu sync.Mutex
	)
	tried := map[measure.Family]int{}
	for _, a := range list {
		if kind, bogus := known.Bogon(a); bogus && kind != "" {
			continue // nothing is sent to somebody's own network
		}
		if tried[wire.FamilyOf(a)]++; tried[wire.FamilyOf(a)] > 2 || wire.FamilyOf(a) == measure.IPv6 && !j.r.v6 || wire.FamilyOf(a) == measure.IPv4 && !j.r.v4 {
			continue
		}
		wg.Go(func() {
			meta := wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpIdentity}
			if after != nil {
				meta.After = after.ID
			}
			conn, o := j.connect(ctx, meta, a, 443, 0, 0)
			if conn == nil {
				return
			}
			defer conn.Abort()
			meta.After = o.ID
			if tc, _ := j.handshake(ctx, meta, conn, name, j.hello, 0); tc != nil {
				mu.Lock()
				proved = proved || tc.Verified()
				mu.Unlock()
				tc.Close()
			}
		})
	}
	wg.Wait()
	return proved
}

func (r *runner) anyFamily() measure.Family {
	if r.v4 {
		return measure.IPv4
	}
	return measure.IPv6
}

// confirmAddress repeats a connect that failed, next to another port of the
// same address.
func (j *job) confirmAddress(ctx context.Context, s suspect) int {
	other := 443
	if s.port == 443 {
		other = 80
	}
	// Silence each time needs a helper to be told from a site that is down;
	// what came and went needs more tries.
	passed := false
	limit := func(k int) bool { return k >= 2 && !j.helperReached(s.addr, s.port) && (!passed || k >= hopeless) }
	return j.pairs(ctx, s, canaryKey{step: measure.StepTCP, family: s.family}, limit, func(ctx context.Context, k int) outcome {
		control := make(chan *measure.Observation, 1)
		go func() {
			cm := wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: measure.ExpAddress, Pair: k, ControlKind: measure.ControlPort}
			conn, c := j.connect(ctx, cm, s.addr, other, 0, 0)
			if conn != nil {
				conn.Abort()
			}
			control <- c
		}()
		tm := wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpAddress, Pair: k, Differs: []string{"port"}}
		conn, t := j.connect(ctx, tm, s.addr, s.port, 0, 0)
		if conn != nil {
			conn.Abort()
		}
		j.log.Link(t, (<-control).ID)
		passed = passed || t.Failure == measure.NoFailure
		return outcome{hit: t.Failure != measure.NoFailure, control: true}
	})
}
