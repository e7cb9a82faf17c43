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

// put asks one question of the line. Its caller waits for its turn: a few
// questions to one resolver are as quiet as one.
func (j *job) put(ctx context.Context, meta wire.Meta, q wire.Question) *measure.Observation {
	if ctx.Err() != nil {
		return nil
	}
	if q.Transport == "" {
		q.Transport = "udp"
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

// pairUp makes c the control of t.
func (j *job) pairUp(t, c *measure.Observation) {
	if t != nil && c != nil {
		j.log.Link(t, c.ID)
	}
}

// operator asks a resolver what it is.
func (j *job) operator(ctx context.Context, a asked) {
	if j.r.pacer.wait(ctx) != nil {
		return
	}
	for i, name := range chaosNames {
		o := j.put(ctx, confirmMeta(measure.RoleTest, measure.ExpOperator, i+1),
			wire.Question{Name: name, Type: "TXT", Server: a.at, Chaos: true, Operator: a.Operator})
		if o == nil || a.Identity == nil || name == "version.bind" || o.DNS == nil || len(o.DNS.Replies) == 0 || len(o.DNS.Replies[0].Answers) == 0 {
			continue
		}
		fits := a.Identity.MatchString(strings.Trim(o.DNS.Replies[0].Answers[0].Value, `"`))
		j.log.Amend(func() {
			d := *o.DNS
			d.Expected, d.Unlike = fits, !fits
			o.DNS = &d
		})
	}
}

// exit asks in two ways for the address that a resolver asks from.
func (j *job) exit(ctx context.Context, a asked) {
	for i, name := range j.r.cfg.Controls.Whoami {
		meta := confirmMeta(measure.RoleControl, measure.ExpExit, i+1)
		meta.ControlKind = measure.ControlKnown
		c := j.putTo(ctx, a.doh, meta, wire.Question{Name: name, Type: "A", Operator: a.Operator})
		if j.r.pacer.wait(ctx) != nil {
			return
		}
		meta = confirmMeta(measure.RoleTest, measure.ExpExit, i+1)
		meta.Differs = []string{"transport"}
		j.pairUp(j.put(ctx, meta, wire.Question{Name: name, Type: "A", Server: a.at, Operator: a.Operator}), c)
	}
}

// nearAnswer finds the lowest TTL at which port 53 answers, and at which the
// address itself does.
func (j *job) nearAnswer(ctx context.Context, a asked) {
	if !j.r.view.SetTTL {
		return
	}
	name := j.knownName()
	if name == "" {
		return
	}
	reaches := func(ttl int) bool {
		meta := confirmMeta(measure.RoleControl, measure.ExpNearAnswer, 1)
		meta.ControlKind = measure.ControlPort
		return came(j.r.syn(ctx, j.log, meta, netip.AddrPortFrom(a.at.Addr(), 443), ttl), "connected", "reset")
	}
	n := lowest(ctx, reaches)
	answers := func(ttl int) bool {
		if j.r.pacer.wait(ctx) != nil {
			return false
		}
		meta := confirmMeta(measure.RoleTest, measure.ExpNearAnswer, 1)
		meta.Differs = []string{"protocol"}
		o := j.put(ctx, meta, wire.Question{Name: name, Type: "A", Server: a.at, Tries: 2, Timeout: 1200 * time.Millisecond, TTL: ttl, Operator: a.Operator})
		return o != nil && len(o.DNS.Replies) > 0
	}
	// One question tells whether anything nearer answers.
	if n > 2 && answers(n-2) {
		if k := lowest(ctx, answers); k > 0 {
			reaches(k) // and the router that is there for who goes on
		}
	}
}

// encrypted asks over TLS and over HTTPS, beside UDP.
func (j *job) encrypted(ctx context.Context, a asked) {
	name := j.knownName()
	if name == "" {
		return
	}
	if j.r.pacer.wait(ctx) != nil {
		return
	}
	meta := confirmMeta(measure.RoleControl, measure.ExpEncrypted, 1)
	meta.ControlKind = measure.ControlKnown
	c := j.put(ctx, meta, wire.Question{Name: name, Type: "A", Server: a.at, Operator: a.Operator})
	meta = confirmMeta(measure.RoleTest, measure.ExpEncrypted, 1)
	meta.Differs = []string{"transport"}
	// What fails once may be the line's own doing.
	twice := func(ask func() *measure.Observation) {
		for range 2 {
			o := ask()
			j.pairUp(o, c)
			if o == nil || o.Failure == measure.NoFailure || ctx.Err() != nil {
				return
			}
			if at, err := netip.ParseAddrPort(o.Remote); err == nil && o.TLS != nil && o.TLS.Public == measure.VerifyUnknownCA {
				j.firstHop(ctx, at.Addr(), int(at.Port()))
				return // a certificate is no matter of loss
			}
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		twice(func() *measure.Observation {
			return j.putTo(ctx, a.doh, meta, wire.Question{Name: name, Type: "A", Operator: a.Operator})
		})
	})
	if a.Name != "" && j.r.pacer.wait(ctx) == nil {
		wg.Go(func() {
			twice(func() *measure.Observation {
				return j.put(ctx, meta, wire.Question{Name: name, Type: "A", Server: netip.AddrPortFrom(a.at.Addr(), 853), Transport: "tls", ServerName: a.Name,
					Tries: 1, Timeout: dohTimeout, Operator: a.Operator})
			})
		})
	}
	wg.Wait()
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
			for _, d := range j.r.doh {
				c := j.putTo(ctx, d, meta, q)
				if c.Failure == measure.NoFailure {
					mu.Lock()
					all = append(all, kept{confirmMeta(measure.RoleTest, e, pair), q, c})
					mu.Unlock()
					return
				}
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
		wg.Go(func() {
			if j.r.pacer.wait(ctx) != nil {
				return
			}
			for _, k := range all {
				wg.Go(func() {
					k.meta.Differs = []string{differs}
					k.q.Server, k.q.Operator = at, operator
					j.pairUp(j.put(ctx, k.meta, k.q), k.c)
				})
			}
		})
	}
	if s := j.r.cfg.Surroundings.Resolvers; len(s) > 0 {
		ask(s[0], "", "resolver")
	}
	for _, a := range list {
		ask(a.at, a.Operator, "transport")
	}
	wg.Wait()
}
