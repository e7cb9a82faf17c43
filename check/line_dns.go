package check

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"

	"govah/known"
	"govah/measure"
	"govah/wire"
)

// chaosNames are what resolvers say of themselves under, in class CH (RFC
// 4892 for the first; the others by habit).
var chaosNames = []string{"id.server", "hostname.bind", "version.bind"}

// maxPublic bounds the operators that are compared.
const maxPublic = 3

// lineTries and lineWait are for questions that most answer at once.
const (
	lineTries = 3
	lineWait  = 2400 * time.Millisecond
)

// asked is one public resolver that is asked in every way.
type asked struct {
	known.PublicResolver
	at  netip.AddrPort
	doh *wire.DoH
}

// lineDNS compares what resolvers of known operators answer on port 53 with
// what they answer where nobody can change it.
func (j *job) lineDNS(ctx context.Context) {
	f := j.r.anyFamily()
	var list []asked
	for _, p := range j.r.cfg.Controls.Public {
		if addrs := of(p.Addrs, f); len(addrs) > 0 && len(list) < maxPublic {
			a := asked{PublicResolver: p, at: netip.AddrPortFrom(addrs[0], 53)}
			for _, d := range j.r.doh {
				if d.URL() == p.DoH {
					a.doh = d
				}
			}
			list = append(list, a)
		}
	}
	var wg sync.WaitGroup
	for i, a := range list {
		wg.Go(func() { j.operator(ctx, a) })
		wg.Go(func() { j.exit(ctx, a) })
		if i < 2 { // two operators decide
			wg.Go(func() { j.nearAnswer(ctx, a) })
		}
		wg.Go(func() { j.encrypted(ctx, a) })
	}
	wg.Go(func() { j.leftOut(ctx, list) })
	wg.Wait()
}

// put asks one question of the line, when its turn has come.
func (j *job) put(ctx context.Context, meta wire.Meta, q wire.Question) *measure.Observation {
	turn := j.r.pacer.waitAsk
	if q.Transport == "" {
		q.Transport = "udp"
	} else {
		turn = j.r.pacer.wait
	}
	if turn(ctx) != nil {
		return nil
	}
	if q.Tries == 0 {
		q.Tries, q.Timeout = lineTries, lineWait
	}
	return wire.Ask(ctx, j.r.cfg.Network, j.log, meta, q, j.r.trust)
}

// putTo is put to an encrypted resolver.
func (j *job) putTo(ctx context.Context, d *wire.DoH, meta wire.Meta, q wire.Question) *measure.Observation {
	if d == nil {
		return nil
	}
	q.Timeout = dohTimeout
	return d.Put(ctx, j.log, meta, q)
}

// nextDoH is how long an encrypted resolver is waited for alone.
const nextDoH = 1200 * time.Millisecond

// firstTo asks the encrypted resolvers until one answers, the next where one
// has failed or been silent for a while; nil: none has.
func (j *job) firstTo(ctx context.Context, meta wire.Meta, q wire.Question) (answer *measure.Observation) {
	var (
		wg  sync.WaitGroup
		got = make(chan *measure.Observation, len(j.r.doh))
		due = 0
	)
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for begun := 0; begun < len(j.r.doh) || due > 0; {
		var wait <-chan time.Time
		if begun < len(j.r.doh) {
			d := j.r.doh[begun]
			begun, due = begun+1, due+1
			wg.Go(func() { got <- j.putTo(ctx, d, meta, q) })
			wait = time.After(nextDoH)
		}
		select {
		case o := <-got:
			if due--; o.Failure == measure.NoFailure {
				return o
			}
		case <-wait:
		}
	}
	return nil
}

// pairUp makes c the control of t.
func (j *job) pairUp(t, c *measure.Observation) {
	if t != nil && c != nil {
		j.log.Link(t, c.ID)
	}
}

// operator asks a resolver what it is.
func (j *job) operator(ctx context.Context, a asked) {
	var wg sync.WaitGroup
	for i, name := range chaosNames {
		wg.Go(func() {
			o := j.put(ctx, confirmMeta(measure.RoleTest, measure.ExpOperator, i+1),
				wire.Question{Name: name, Type: "TXT", Server: a.at, Chaos: true, Operator: a.Operator})
			if a.Identity == nil || name == "version.bind" || !replied(o) || len(o.DNS.Replies[0].Answers) == 0 {
				return
			}
			fits := a.Identity.MatchString(strings.Trim(o.DNS.Replies[0].Answers[0].Value, `"`))
			j.log.Amend(func() {
				d := *o.DNS
				d.Expected, d.Unlike = fits, !fits
				o.DNS = &d
			})
		})
	}
	wg.Wait()
}

// exit asks in two ways for the address that a resolver asks from.
func (j *job) exit(ctx context.Context, a asked) {
	var wg sync.WaitGroup
	for i, name := range j.r.cfg.Controls.Whoami {
		wg.Go(func() {
			var c *measure.Observation
			var control sync.WaitGroup
			control.Go(func() {
				meta := confirmMeta(measure.RoleControl, measure.ExpExit, i+1)
				meta.ControlKind = measure.ControlKnown
				c = j.putTo(ctx, a.doh, meta, wire.Question{Name: name, Type: "A", Operator: a.Operator})
			})
			meta := confirmMeta(measure.RoleTest, measure.ExpExit, i+1)
			meta.Differs = []string{"transport"}
			t := j.put(ctx, meta, wire.Question{Name: name, Type: "A", Server: a.at, Operator: a.Operator})
			control.Wait()
			j.pairUp(t, c)
		})
	}
	wg.Wait()
}

// nearExpired is how long an answer may come after a router further on has
// said that the question expired there.
const nearExpired = 600 * time.Millisecond

// nearAnswer finds the lowest TTL at which port 53 answers, and whether the
// address itself is farther. Where two answers over its family came from
// addresses without a resolver, which confirm by themselves, this would tell
// nothing new.
func (j *job) nearAnswer(ctx context.Context, a asked) {
	name := j.knownName()
	if name == "" || !j.r.view.SetTTL {
		return
	}
	nowhere := j.nowhere(wire.FamilyOf(a.at.Addr()))
	answers := func(ttl int) bool {
		if nowhere.Load() >= 2 {
			return false
		}
		meta := confirmMeta(measure.RoleTest, measure.ExpNearAnswer, 1)
		meta.Differs = []string{"protocol"}
		return replied(j.put(ctx, meta, wire.Question{Name: name, Type: "A", Server: a.at, Tries: 2, Timeout: 1200 * time.Millisecond, TTL: ttl, Expired: nearExpired, Operator: a.Operator}))
	}
	meta := confirmMeta(measure.RoleControl, measure.ExpNearAnswer, 1)
	meta.ControlKind = measure.ControlPort
	syn := func(ttl int) string { return j.syn(ctx, meta, netip.AddrPortFrom(a.at.Addr(), 443), ttl) }
	reached := func(outcome string) bool { return outcome == "connected" || outcome == "reset" }
	// One connection tells whether the address is as near as what answers.
	n := lowest(ctx, answers)
	if n == 0 || nowhere.Load() >= 2 {
		return
	}
	switch outcome := syn(n + 1); {
	case reached(outcome):
		return
	case outcome == "silent" && !reached(syn(2*farthest)):
		return // nobody there takes connections
	}
	lowest(ctx, func(ttl int) bool { return reached(again(syn)(ttl)) })
	again(syn)(n) // and the router that is there for who goes on
}

// encrypted asks over TLS and over HTTPS, beside UDP. What fails once may be
// the line's own doing, and is tried again where both fail: one that gets
// through settles it, and so does a certificate that no public root verifies.
func (j *job) encrypted(ctx context.Context, a asked) {
	name := j.knownName()
	if name == "" {
		return
	}
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		c       *measure.Observation
		tests   []*measure.Observation
		settled bool
	)
	wg.Go(func() {
		meta := confirmMeta(measure.RoleControl, measure.ExpEncrypted, 1)
		meta.ControlKind = measure.ControlKnown
		c = j.put(ctx, meta, wire.Question{Name: name, Type: "A", Server: a.at, Operator: a.Operator})
	})
	meta := confirmMeta(measure.RoleTest, measure.ExpEncrypted, 1)
	meta.Differs = []string{"transport"}
	both := func() {
		var pair sync.WaitGroup
		ask := func(put func() *measure.Observation) {
			pair.Go(func() {
				o := put()
				if o == nil {
					return
				}
				// A certificate is no matter of loss.
				at, err := netip.ParseAddrPort(o.Remote)
				shown := err == nil && o.TLS != nil && o.TLS.Public == measure.VerifyUnknownCA
				if shown {
					j.firstHop(ctx, at.Addr(), int(at.Port()))
				}
				mu.Lock()
				defer mu.Unlock()
				tests = append(tests, o)
				settled = settled || shown || o.Failure == measure.NoFailure
			})
		}
		ask(func() *measure.Observation {
			return j.putTo(ctx, a.doh, meta, wire.Question{Name: name, Type: "A", Operator: a.Operator})
		})
		if a.Name != "" {
			ask(func() *measure.Observation {
				return j.put(ctx, meta, wire.Question{Name: name, Type: "A", Server: netip.AddrPortFrom(a.at.Addr(), 853), Transport: "tls", ServerName: a.Name,
					Tries: 1, Timeout: dohTimeout, Operator: a.Operator})
			})
		}
		pair.Wait()
	}
	both()
	// The wait is for the connection that the resolver over HTTPS opens anew.
	if a.doh != nil && a.Name != "" && !settled && j.r.pacer.wait(ctx) == nil {
		both()
	}
	wg.Wait()
	for _, o := range tests {
		j.pairUp(o, c)
	}
}

// kept is a question whose answer holds something that could be left out, and
// that answer where nobody can.
type kept struct {
	meta wire.Meta
	q    wire.Question
	c    *measure.Observation
}

// leftOut asks for what proves an answer, and for what hides a name, on port
// 53 and where nobody can leave it out.
func (j *job) leftOut(ctx context.Context, list []asked) {
	var (
		all []kept
		mu  sync.Mutex
		wg  sync.WaitGroup
	)
	encrypted := func(e measure.Experiment, pair int, q wire.Question) {
		wg.Go(func() {
			meta := confirmMeta(measure.RoleControl, e, pair)
			meta.ControlKind = measure.ControlKnown
			if c := j.firstTo(ctx, meta, q); c != nil {
				mu.Lock()
				all = append(all, kept{confirmMeta(measure.RoleTest, e, pair), q, c})
				mu.Unlock()
			}
		})
	}
	for i, name := range j.r.cfg.Controls.Signed {
		encrypted(measure.ExpSigned, i+1, wire.Question{Name: name, Type: "A", DNSSECOK: true})
	}
	for i, name := range j.r.cfg.Controls.ECH {
		encrypted(measure.ExpECHKeys, i+1, wire.Question{Name: name, Type: "HTTPS"})
	}
	wg.Wait()
	ask := func(at netip.AddrPort, operator, differs string) {
		for _, k := range all {
			wg.Go(func() {
				k.meta.Differs = []string{differs}
				k.q.Server, k.q.Operator = at, operator
				j.pairUp(j.put(ctx, k.meta, k.q), k.c)
			})
		}
	}
	if s := j.r.cfg.Surroundings.Resolvers; len(s) > 0 {
		ask(s[0], "", "resolver")
	}
	for _, a := range list {
		ask(a.at, a.Operator, "transport")
	}
	wg.Wait()
}
