package check

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"govah/measure"
	"govah/wire"
)

const (
	// mailRounds is how often a dialogue is held when the first was odd: text
	// that was changed is no matter of chance, so few are enough.
	mailRounds = 3
	// maxMailHelpers bounds whose greeters are spoken to.
	maxMailHelpers = 2
	mailPause      = 500 * time.Millisecond
)

// MailAllowed says why a target may not be spoken to as a mail server, nil if
// it may: port 25 belongs to one's own helpers.
func MailAllowed(t measure.Target, helpers []string) error {
	if wire.MailPorts[t.Scheme] == 0 || t.Port != 25 {
		return nil
	}
	for _, raw := range helpers {
		if host, _, err := HelperHost(raw); err == nil && strings.EqualFold(strings.TrimSuffix(host, "."), t.Host) {
			return nil
		}
	}
	return fmt.Errorf("%s: port 25 is for mail between servers, and is tested only at a helper of your own (--helper)", t.URL)
}

// greeter is a mail server of a helper.
type greeter struct {
	helper vantage
	knows  measure.MailGreeter
}

// mail holds the first dialogue with a mail server and with its other port,
// and with the greeters of the helpers, if there are any.
func (j *job) mail(ctx context.Context, host string, c candidate) {
	protocol, implicit, _ := wire.MailScheme(j.target.Scheme)
	f := wire.FamilyOf(c.addr)
	if j.target.Port == 25 && j.greeterAt(c.addr, 25, wire.MailSpec{Protocol: protocol, Implicit: implicit}) == nil {
		return // that a host was called a helper does not make it one
	}
	var wg sync.WaitGroup
	strange := false
	wg.Go(func() { strange = j.greeted(ctx, f, measure.StageScreen, 1) })
	t, control := j.mailPair(ctx, host, c, measure.StageScreen, 1, true)
	wg.Wait()
	s := suspect{layer: measure.StepMail, family: f, host: host, addr: c.addr, port: j.target.Port, seen: t}
	switch {
	case t.Step == measure.StepTCP && t.Failure != measure.NoFailure:
		s.layer = measure.StepTCP
		j.suspect(s)
	case odd(t, protocol, implicit), strange:
		s.alone = control == nil
		j.suspect(s)
	}
}

// mailPair holds a dialogue with the target and, if it is to be, one at the
// port of its other way to TLS; nil if nobody is there.
func (j *job) mailPair(ctx context.Context, host string, c candidate, stage measure.Stage, k int, both bool) (t, control *measure.Observation) {
	protocol, implicit, _ := wire.MailScheme(j.target.Scheme)
	var wg sync.WaitGroup
	if both {
		wg.Go(func() {
			scheme := protocol
			if !implicit {
				scheme += "s"
			}
			meta := wire.Meta{Role: measure.RoleControl, Stage: stage, Experiment: measure.ExpMail, Pair: k, ControlKind: measure.ControlPort, After: c.after}
			if o := j.dialogue(ctx, meta, c.addr, wire.MailPorts[scheme], wire.MailSpec{Protocol: protocol, Implicit: !implicit, Name: host}); o.Step == measure.StepMail {
				control = o
			}
		})
	}
	meta := wire.Meta{Role: measure.RoleTest, Stage: stage, Experiment: measure.ExpMail, Pair: k, Differs: []string{"port"}, After: c.after}
	t = j.dialogue(ctx, meta, c.addr, j.target.Port, wire.MailSpec{Protocol: protocol, Implicit: implicit, Name: host})
	wg.Wait()
	if control != nil && t.Step == measure.StepMail {
		j.log.Link(t, control.ID)
	}
	if stage == measure.StageConfirm {
		j.instead(ctx, t, meta, c.addr, j.target.Port, wire.MailSpec{Protocol: protocol, Name: host})
	}
	return t, control
}

// instead holds, after a dialogue in which STARTTLS was not answered, one with a
// harmless command in its place.
func (j *job) instead(ctx context.Context, t *measure.Observation, meta wire.Meta, addr netip.Addr, port int, spec wire.MailSpec) {
	if t.Step != measure.StepMail || !t.Mail.Unanswered() || !j.r.spend(1) {
		return
	}
	meta.Role, meta.ControlKind, meta.Differs, meta.After = measure.RoleControl, measure.ControlHarmless, nil, ""
	spec.Harmless = true
	j.dialogue(ctx, meta, addr, port, spec)
}

// dialogue connects and holds one dialogue; what it gives is the connect if
// that failed.
func (j *job) dialogue(ctx context.Context, meta wire.Meta, addr netip.Addr, port int, spec wire.MailSpec) *measure.Observation {
	connect := meta
	if meta.Role == measure.RoleControl || meta.Experiment == measure.ExpMailGreeter {
		// That nobody listens at another port says nothing about the target.
		connect.Role, connect.Stage = measure.RoleControl, measure.StageConfirm
	}
	connect.Experiment, connect.Pair, connect.ControlKind, connect.Differs = "", 0, "", nil
	conn, o := j.connect(ctx, connect, addr, port, 0, 0)
	if conn == nil {
		return o
	}
	defer conn.Abort()
	meta.After = o.ID
	if spec.Known == nil {
		spec.Known = j.greeterAt(addr, port, spec)
	}
	return wire.Mail(ctx, j.log, meta, conn, spec, j.r.trust)
}

// greeterAt is what the server at an address and port is known to say, if the
// target is itself a greeter of a helper.
func (j *job) greeterAt(addr netip.Addr, port int, spec wire.MailSpec) *measure.MailGreeter {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, g := range j.greeters {
		if g.knows.Port == port && g.knows.Protocol == spec.Protocol && g.knows.Implicit == spec.Implicit && slices.Contains(g.helper.addrs, addr) {
			return &g.knows
		}
	}
	return nil
}

// greeted holds a dialogue with the greeters of the target's protocol, and says
// whether something was not as they say it.
func (j *job) greeted(ctx context.Context, f measure.Family, stage measure.Stage, k int) (strange bool) {
	protocol, implicit, _ := wire.MailScheme(j.target.Scheme)
	var (
		wg sync.WaitGroup
		mu sync.Mutex
	)
	for _, g := range j.greetersFor(protocol, implicit) {
		for _, a := range g.helper.addrs {
			if wire.FamilyOf(a) != f {
				continue
			}
			wg.Go(func() {
				meta := wire.Meta{Role: measure.RoleTest, Stage: stage, Experiment: measure.ExpMailGreeter, Pair: k}
				host, _, _ := HelperHost(g.helper.url)
				o := j.dialogue(ctx, meta, a, g.knows.Port, wire.MailSpec{Protocol: protocol, Implicit: implicit, Name: host, Known: &g.knows, Inject: true})
				if stage == measure.StageConfirm {
					j.instead(ctx, o, meta, a, g.knows.Port, wire.MailSpec{Protocol: protocol, Name: host, Known: &g.knows})
				}
				if o.Step == measure.StepMail && (odd(o, protocol, implicit) || o.Mail.Greeting != g.knows.Greeting || !implicit && !slices.Equal(o.Mail.Before, g.knows.Before)) {
					mu.Lock()
					strange = true
					mu.Unlock()
				}
			})
			break
		}
	}
	wg.Wait()
	return strange
}

// greetersFor picks one greeter a helper: at the target's own port if there is
// one, since devices on the way look at ports.
func (j *job) greetersFor(protocol string, implicit bool) (out []greeter) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, g := range j.greeters {
		if g.knows.Protocol != protocol || g.knows.Implicit != implicit {
			continue
		}
		at := slices.IndexFunc(out, func(o greeter) bool { return o.helper.url == g.helper.url })
		switch {
		case at >= 0 && g.knows.Port == j.target.Port:
			out[at] = g
		case at < 0 && len(out) < maxMailHelpers:
			out = append(out, g)
		}
	}
	return out
}

// odd says that a dialogue is worth another look: it did not end inside TLS
// with a certificate that proves the name, or something in it looks changed.
func odd(o *measure.Observation, protocol string, implicit bool) bool {
	m := o.Mail
	if m == nil || o.Failure != measure.NoFailure || m.Away || m.EarlyBytes > 0 || m.Injected == "executed" || m.Key == "other" {
		return true
	}
	if implicit {
		return false
	}
	offer, _ := wire.MailCommands(protocol)
	return m.StartTLS != "ready" || !slices.Contains(m.Before, offer) || strings.Contains(m.Greeting, "****")
}

// confirmMail repeats an odd dialogue, and looks whether something nearer than
// the server answers in its place.
func (j *job) confirmMail(ctx context.Context, s suspect) {
	c := candidate{addr: s.addr}
	key := canaryKey{step: measure.StepTCP, family: s.family}
	var wg sync.WaitGroup
	if j.r.view.SYNHop && j.r.view.SetTTL && s.seen.Step == measure.StepMail {
		wg.Go(func() { j.nearer(ctx, s) })
		if s.seen.TLS != nil && len(s.seen.TLS.Chain) > 0 && s.seen.TLS.Public != measure.VerifiedOK {
			wg.Go(func() { j.firstHop(ctx, s.addr, s.port) })
		}
	}
	for k := 2; k <= mailRounds; k++ {
		if k > 2 && wire.Sleep(ctx, mailPause) != nil || !j.r.spend(1) {
			break
		}
		j.bracket(ctx, key, time.Now().Add(-3*time.Second))
		var pair sync.WaitGroup
		pair.Go(func() { j.greeted(ctx, s.family, measure.StageConfirm, k) })
		j.mailPair(ctx, s.host, c, measure.StageConfirm, k, !s.alone)
		pair.Wait()
		j.bracket(ctx, key, time.Now())
	}
	wg.Wait()
}

// nearer looks for something that accepts connections to the mail port nearer
// than the server. A loss makes the other port look farther than it is, so
// that it is tried again with the TTL that was enough for the mail port.
func (j *job) nearer(ctx context.Context, s suspect) {
	const other = 443
	test := wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpProxyTTL, Differs: []string{"port"}}
	control := wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: measure.ExpProxyTTL, ControlKind: measure.ControlPort}
	low := j.r.lowestTTL(ctx, j.log, test, s.addr, s.port)
	if high := j.r.lowestTTL(ctx, j.log, control, s.addr, other); low == 0 || high-low < 2 {
		return
	}
	for range measure.NearerProbes {
		if o := j.r.syn(ctx, j.log, control, netip.AddrPortFrom(s.addr, other), low); o == nil || came(o, "connected", "reset") {
			return
		}
	}
}
