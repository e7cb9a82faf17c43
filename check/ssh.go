package check

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"govah/judge"
	"govah/known"
	"govah/measure"
	"govah/wire"
)

const (
	// sshBytes is what one exchange of keys costs, both ways, with TCP.
	sshBytes = 6_000
	// sshRepeats is how often a host whose key differs is asked again: servers
	// that share an address take turns.
	sshRepeats = 4
)

// sshHost is what is known of a host: the user's keys first, of a host that the
// user named, then the published ones.
func (r *runner) sshHost(name string, port int, named bool) (keys []measure.HostKey, operator string) {
	if r.cfg.KnownHosts != nil && named {
		keys = append(keys, r.cfg.KnownHosts(name, port)...)
	}
	for _, h := range r.cfg.Controls.SSH {
		if h.Name == name && h.Port == port {
			keys, operator = append(keys, h.Keys...), h.Operator
		}
	}
	return keys, operator
}

// beginSSH takes the host key at an address, of a type that the host is known
// by. A server that has no such type is asked once more, for any. The
// observation is that of the connect where that failed.
func (r *runner) beginSSH(ctx context.Context, log *wire.Log, meta wire.Meta, at netip.AddrPort, name string) *measure.Observation {
	keys, operator := r.sshHost(name, int(at.Port()), meta.Role == measure.RoleTest)
	var types []string
	for _, k := range keys {
		if !k.Retired && !slices.Contains(types, k.KeyType) {
			types = append(types, k.KeyType)
		}
	}
	for {
		if r.pacer.wait(ctx) != nil {
			o := log.Begin(measure.StepSSH, meta)
			o.Failure = measure.Interrupted
			log.End(o)
			return o
		}
		conn, o := wire.Connect(ctx, r.cfg.Network, log, meta, wire.ConnectSpec{Remote: at})
		if conn == nil {
			return o
		}
		m := meta
		m.After = o.ID
		o = wire.SSH(ctx, log, m, conn, wire.SSHSpec{KeyTypes: types})
		s := *o.SSH
		s.Known, s.Operator = keys, operator
		if operator != "" {
			s.KnownAsOf = r.cfg.Controls.SSHAsOf
		}
		log.Amend(func() { o.SSH = &s })
		if len(types) > 0 && judge.OtherKeyType(o) {
			types = nil
			continue
		}
		return o
	}
}

// sshControls are what the controls of this run showed, per family: they are
// asked once, and again only where they gave no answer.
type sshControls struct {
	mu  sync.Mutex
	obs map[measure.Family][]measure.Observation
}

// askSSHControls begins SSH with each control that publishes its host keys.
func (r *runner) askSSHControls(ctx context.Context, f measure.Family, again bool) []measure.Observation {
	r.ssh.mu.Lock()
	defer r.ssh.mu.Unlock()
	have := r.ssh.obs[f]
	silent := func(o measure.Observation) bool { return o.SSH == nil || o.SSH.Fingerprint == "" }
	if have != nil && !(again && slices.ContainsFunc(have, silent)) {
		return have
	}
	kept := slices.DeleteFunc(slices.Clone(have), silent)
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		list = slices.Clone(kept)
	)
	for _, h := range r.cfg.Controls.SSH {
		if !h.Control || slices.ContainsFunc(kept, func(o measure.Observation) bool { return o.Host == h.Name }) {
			continue
		}
		wg.Go(func() {
			if o := r.askSSHControl(ctx, f, h); o != nil {
				mu.Lock()
				list = append(list, *o)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if ctx.Err() == nil {
		if r.ssh.obs == nil {
			r.ssh.obs = map[measure.Family][]measure.Observation{}
		}
		r.ssh.obs[f] = list
	}
	return list
}

// askSSHControl asks at an address that an encrypted resolver gave: a name that
// is answered falsely leads to a server that rightly shows another key.
func (r *runner) askSSHControl(ctx context.Context, f measure.Family, h known.SSHHost) *measure.Observation {
	for _, a := range encrypted(ctx, r.doh, r.canaries.log, wire.Meta{Role: measure.RoleControl, Stage: measure.StagePreflight}, h.Name) {
		if wire.FamilyOf(a) != f {
			continue
		}
		meta := wire.Meta{Role: measure.RoleControl, Stage: measure.StageScreen, Experiment: measure.ExpHostKey, ControlKind: measure.ControlCanary}
		o := r.beginSSH(ctx, r.canaries.log, meta, netip.AddrPortFrom(a, uint16(h.Port)), h.Name)
		r.canaries.log.Amend(func() { o.Host = h.Name })
		return o
	}
	return nil
}

// hostKey screens an SSH server: the key that it proves, beside those of
// public hosts.
func (j *job) hostKey(ctx context.Context, host string, c candidate) {
	f := wire.FamilyOf(c.addr)
	controls := make(chan []measure.Observation, 1)
	go func() { controls <- j.r.askSSHControls(ctx, f, false) }()
	meta := wire.Meta{Role: measure.RoleTest, Stage: j.stage, Experiment: measure.ExpHostKey, Differs: []string{"address"}, After: c.after}
	o := j.r.beginSSH(ctx, j.log, meta, netip.AddrPortFrom(c.addr, uint16(j.target.Port)), host)
	j.besideControls(o, <-controls)
	s := suspect{layer: o.Step, family: f, host: host, addr: c.addr, port: j.target.Port, seen: o}
	if o.Failure != measure.NoFailure {
		j.suspect(s)
		return
	}
	switch judge.StateOfKey(o) {
	case judge.KeyDiffers, judge.KeyRetired:
		j.suspect(s)
	}
}

// besideControls keeps what the controls showed with the measurement, as
// controls of o.
func (j *job) besideControls(o *measure.Observation, controls []measure.Observation) {
	if len(controls) == 0 {
		return
	}
	j.include(bracketSet{obs: controls})
	j.log.Link(o, "c"+strings.TrimPrefix(controls[0].ID, "o"))
}

// confirmHostKey asks a host whose key differs again, and finds out whether
// something nearer than the server answers on its port.
func (j *job) confirmHostKey(ctx context.Context, s suspect) {
	at := netip.AddrPortFrom(s.addr, uint16(s.port))
	for k := 1; k <= sshRepeats; k++ {
		if k > 1 && wire.Sleep(ctx, apart) != nil || !j.r.spend(1) {
			return
		}
		j.bracket(ctx, canaryKey{step: measure.StepTCP, family: s.family}, time.Now().Add(-3*time.Second))
		meta := wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpHostKey, Pair: k, Differs: []string{"address"}}
		o := j.r.beginSSH(ctx, j.log, meta, at, s.host)
		j.besideControls(o, j.r.askSSHControls(ctx, s.family, k == 1))
		switch judge.StateOfKey(o) {
		case judge.KeyGenuine:
			return // several servers, one of which is known
		case judge.KeyDiffers, judge.KeyRetired:
			// Twice: a probe that is lost looks as if it had not gone far enough.
			if k <= 2 && j.r.view.SetTTL && j.r.view.SYNHop {
				j.sshTerminator(ctx, s)
			}
		default:
			if k >= 2 {
				return // it has no key to show
			}
		}
	}
}

// sshTerminator finds the least TTL at which the server's port answers, and
// another port of the same address.
func (j *job) sshTerminator(ctx context.Context, s suspect) {
	for _, other := range []int{443, 80} {
		meta := wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: measure.ExpProxyTTL, ControlKind: measure.ControlPort}
		if other == s.port || j.r.lowestTTL(ctx, j.log, meta, s.addr, other) == 0 {
			continue // swallowed: it tells nothing
		}
		meta = wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpProxyTTL, Differs: []string{"port"}}
		j.r.lowestTTL(ctx, j.log, meta, s.addr, s.port)
		return
	}
}
