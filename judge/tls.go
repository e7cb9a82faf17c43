package judge

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"govah/measure"
)

// verified says that a chain proved its name against the public roots, now or
// at the estimated time.
func verified(t *measure.TLS) bool {
	return t != nil && (t.Public == measure.VerifiedOK || t.PublicEstimated == measure.VerifiedOK)
}

// completed says that a handshake ended well, whatever the certificate.
func completed(o *measure.Observation) bool {
	if o.Failure == measure.NoFailure {
		return true
	}
	switch o.Failure {
	case measure.TLSInvalidHostname, measure.TLSUnknownAuthority, measure.TLSInvalidCert:
		return true
	}
	return o.TLS != nil && o.TLS.Version != "" && o.Step == measure.StepTLS
}

// drew says that something of TLS came back: the path let the name through.
func drew(o *measure.Observation) bool {
	return o.Step == measure.StepTLS && (completed(o) || o.TLS != nil && o.TLS.ServerBytes)
}

func handshakeFailed(t, _ *measure.Observation) bool {
	return t.Failure != measure.NoFailure && !completed(t)
}

// handshakes judges ClientHellos that get no answer or the wrong one because
// of the name in them.
func (j *judging) handshakes() {
	faults := j.pathFaults()
	byName := func(t *measure.Observation) string { return canonical(t.SNI) }
	own := j.ask(question{exp: measure.ExpSNI, step: measure.StepTLS, passed: drew, hit: handshakeFailed,
		key: func(t *measure.Observation) string { return byName(t) + "\x00" + t.Remote }})
	far := j.ask(question{exp: measure.ExpSNIElsewhere, step: measure.StepTLS, passed: drew, hit: handshakeFailed, key: byName})
	type group struct {
		family measure.Family
		name   string
	}
	var groups []group
	seen := func(g group) {
		if !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	for _, s := range own {
		name, _, _ := strings.Cut(s.key, "\x00")
		seen(group{s.family, name})
	}
	for _, s := range far {
		seen(group{s.family, s.key})
	}
	for _, g := range groups {
		var best *measure.Finding
		for _, s := range own {
			name, at, _ := strings.Cut(s.key, "\x00")
			if s.family != g.family || name != g.name || s.hits == 0 || faults[at] {
				continue
			}
			if f := j.handshake(g.name, at, s, seriesOf(far, g.family, g.name)); best == nil || better(f, *best) {
				best = &f
			}
		}
		if best == nil || best.Interference != measure.InterferenceConfirmed {
			if s := seriesOf(far, g.family, g.name); s != nil && s.hits > 0 {
				if f := j.handshake(g.name, "", nil, s); best == nil || better(f, *best) {
					best = &f
				}
			}
		}
		if best != nil {
			j.add(*best)
		}
	}
}

func seriesOf(list []*series, f measure.Family, key string) *series {
	for _, s := range list {
		if s.family == f && s.key == key {
			return s
		}
	}
	return nil
}

// better says whether a says more than b.
func better(a, b measure.Finding) bool {
	x, y := a.Interference == measure.InterferenceConfirmed, b.Interference == measure.InterferenceConfirmed
	return x && !y || x == y && a.Hits > b.Hits
}

// handshake makes a finding of the pairs about a name at its own address and
// elsewhere; either may be nil.
func (j *judging) handshake(name, at string, own, far *series) measure.Finding {
	main := own
	if main == nil {
		main = far
	}
	p, _ := main.first()
	f := measure.Finding{Interference: measure.InterferenceSuspected, Layer: measure.StepTLS, Family: main.family,
		Trigger: measure.Trigger{Kind: "sni", Value: name, Control: canonical(p.c.SNI)},
		Runs:    main.runs, Hits: main.hits, Controls: main.controls, Because: main.because()}
	silence, reset, alert, other := main.failures()
	f.Method = measure.TLSReset
	switch most := max(silence, reset, alert, other); {
	case silence == most:
		f.Method = measure.TLSDrop
	case alert == most:
		f.Method = measure.TLSAlert
	}
	if main.allowList {
		f.Trigger.Kind = "allow-list"
	}
	// What happens elsewhere counts if the name fails at its own address too,
	// where other names draw TLS.
	elsewhere := far != nil && far.sound && own != nil && (own.sound || far.hits >= steadyPairs)
	if f.Method == measure.TLSAlert {
		// A server may send an alert for reasons of its own, and an unrelated
		// one may know the name: two of them must, or one that is known to
		// answer every name.
		elsewhere = elsewhere && j.unrelatedAlerts(far)
	}
	answered := j.ttl(name, at)
	var helped []*measure.Observation
	if at != "" {
		helped = j.reachedBy(measure.StepTLS, at, name)
	}
	switch {
	case elsewhere:
		f.Interference, f.Proof = measure.InterferenceConfirmed, "pairs+elsewhere"
		if far != main {
			f.Because = append(f.Because, far.because()...)
			if far.allowList {
				f.Trigger.Kind = "allow-list"
			}
		}
	case own != nil && own.sound && len(answered) > 0:
		f.Interference, f.Proof = measure.InterferenceConfirmed, "pairs+ttl"
		f.Because = append(f.Because, ids(answered...)...)
	case own != nil && own.sound && len(helped) > 0 && f.Method != measure.TLSAlert && !j.fromServer(name, at, far):
		f.Interference, f.Proof = measure.InterferenceConfirmed, "pairs+helper"
		f.Because = append(f.Because, ids(helped...)...)
	default:
		f.NotExcluded = append(f.NotExcluded, measure.WhyServerRefuses)
		if own != nil && !own.sound || own == nil && !far.sound {
			f.NotExcluded = append(f.NotExcluded, measure.WhyFewPairs)
		}
		if len(helped) == 0 {
			f.NotExcluded = append(f.NotExcluded, measure.WhySiteDown)
			if len(j.helpers(name)) == 0 {
				f.NotExcluded = append(f.NotExcluded, measure.WhyNoHelper)
			}
		}
	}
	if main.hits < main.runs {
		f.NotExcluded = append(f.NotExcluded, measure.WhyIntermittent)
	}
	return f
}

// fromServer says that the evidence points at the server itself, which may
// turn this client's country away: the name is let through elsewhere, and with
// a TTL that ends before the server nothing answers it.
func (j *judging) fromServer(name, at string, far *series) bool {
	if far == nil || far.runs < 3 || far.hits > 0 {
		return false
	}
	silent := 0
	for _, t := range j.obs {
		if t.Experiment != measure.ExpSNITTL || t.Role != measure.RoleTest || canonical(t.SNI) != name || t.Remote != at || t.Path == nil || t.TTL <= 0 || t.TTL >= t.Path.ServerTTL {
			continue
		}
		if t.Failure != measure.GenericTimeout {
			return false
		}
		silent++
	}
	return silent > 0
}

// unrelatedAlerts says whether alerts came for the name at two unrelated
// servers that answered other names, or at a helper, which answers any.
func (j *judging) unrelatedAlerts(far *series) bool {
	if far == nil {
		return false
	}
	remotes := map[netip.Addr]bool{}
	for _, p := range far.pairs {
		if !p.hit || !completed(p.c) {
			continue
		}
		a := address(p.t)
		remotes[a] = true
		for _, o := range j.obs {
			if o.Step == measure.StepHelper && o.Failure == measure.NoFailure && address(o) == a {
				return true
			}
		}
	}
	return len(remotes) >= 2
}

// ttl finds reactions to the name that came from nearer than the server, next
// to controls that met silence. One may be a path that changed; it takes two,
// and more than met an answer to the control.
func (j *judging) ttl(name, at string) (because []*measure.Observation) {
	hits, contrary := 0, 0
	for _, t := range j.obs {
		if t.Experiment != measure.ExpSNITTL || t.Role != measure.RoleTest || canonical(t.SNI) != name || at != "" && t.Remote != at || t.Path == nil {
			continue
		}
		c := j.byID[t.Control]
		if c == nil || c.Experiment != measure.ExpSNITTL || c.Path == nil || t.TTL <= 0 || t.TTL >= t.Path.ServerTTL || c.TTL != t.TTL {
			continue
		}
		if c.Failure != measure.GenericTimeout || drew(c) {
			contrary++
			continue
		}
		// A certificate from there would be the server's own, on a path that
		// became shorter.
		if k := how(t); k == "reset" || k == "alert" {
			hits++
			because = append(because, t, c)
		}
	}
	if hits < 2 || contrary >= hits {
		return nil
	}
	return because
}

// pathFaults finds addresses at which large ClientHellos do not get through,
// whatever their name, and small ones do. It reports them and returns them.
func (j *judging) pathFaults() map[string]bool {
	out := map[string]bool{}
	for _, t := range j.obs {
		if t.Experiment != measure.ExpHello || t.Role != measure.RoleTest || t.Step != measure.StepTLS || !handshakeFailed(t, nil) || ours(t) {
			continue
		}
		c := j.byID[t.Control]
		if c == nil || !drew(c) || c.Experiment != measure.ExpHello {
			continue
		}
		full, fullFailed := 0, 0
		for _, o := range j.obs {
			if o.Experiment == measure.ExpSNI && o.Role == measure.RoleControl && o.Step == measure.StepTLS && o.Remote == t.Remote && !ours(o) {
				full++
				if !drew(o) {
					fullFailed++
				}
			}
		}
		if full > 0 && fullFailed < full {
			continue // other names get through at full size: it is the name
		}
		f := measure.Finding{Method: measure.PathFault, Interference: measure.InterferenceSuspected, Layer: measure.StepTLS, Family: family(t),
			Trigger: measure.Trigger{Kind: "client", Value: t.Hello, Control: c.Hello}, Runs: 1, Hits: 1, Controls: measure.Count{Runs: 1},
			Because: ids(t, c), NotExcluded: []measure.Why{measure.WhySingleSample}}
		if full > 0 {
			f.Interference, f.Proof = measure.InterferenceConfirmed, "hello"
		} else {
			j.why[measure.WhyPathMTU] = true
		}
		out[t.Remote] = true
		j.innocent[t.ID] = true
		j.markInnocentAt(measure.StepTLS, t.Remote)
		j.add(f)
	}
	return out
}

func (j *judging) markInnocentAt(step measure.Step, at string) {
	for _, o := range j.obs {
		if o.Step == step && o.Remote == at && o.Role == measure.RoleTest {
			j.innocent[o.ID] = true
		}
	}
}

// certificates judges chains that do not verify: intercepted, the server's own
// fault, or this device's clock.
func (j *judging) certificates() {
	done := map[string]bool{}
	for _, o := range j.obs {
		if o.Step != measure.StepTLS || o.Role != measure.RoleTest || o.TLS == nil || len(o.TLS.Chain) == 0 || o.TLS.Public == measure.VerifiedOK || o.TLS.Public == "" {
			continue
		}
		if !screened(o) && o.Experiment != measure.ExpSNI {
			continue
		}
		name := canonical(o.SNI)
		if name == "" {
			name = j.nameAt(address(o))
		}
		if !j.targets[name] || j.disputed(address(o)) {
			continue
		}
		// A device that makes a certificate for each connection is one finding.
		key := fmt.Sprintf("%s %s %s %s", name, family(o), o.TLS.Public, o.TLS.Issuer)
		if o.TLS.Issuer == "" {
			key += o.TLS.Chain[0]
		}
		if done[key] {
			continue
		}
		done[key] = true
		j.certificate(o, name)
	}
}

func (j *judging) certificate(o *measure.Observation, name string) {
	f := measure.Finding{Method: measure.TLSInterception, Interference: measure.InterferenceSuspected, Layer: measure.StepTLS, Family: family(o),
		Trigger: measure.Trigger{Kind: "sni", Value: name}, Runs: 1, Hits: 1, Because: ids(o)}
	if o.TLS.PublicEstimated == measure.VerifiedOK {
		f.Method, f.Interference, f.Proof = measure.ClockFault, measure.InterferenceConfirmed, "clock"
		f.Trigger = measure.Trigger{Kind: "client"}
		f.Scope = measure.ScopeDevice
		j.innocent[o.ID] = true
		j.add(f)
		return
	}
	root, isKnown := j.sign(&f, o, name)
	f.Traces = j.traces(o, name)
	if f.Proof == "signature" {
		j.add(f)
		return
	}
	if isKnown && root.Kind == "national-root" && root.Owns(name) {
		// A site that chose a national authority is not intercepted.
		j.innocent[o.ID] = true
		j.why[measure.WhyServerBroken] = true
		return
	}
	if logged(o.TLS) && o.TLS.SCTs.Verified > 0 && o.TLS.Public == measure.VerifyUnknownCA {
		// Only what a public authority signed gets into the logs: this version's
		// roots are older than that authority.
		j.innocent[o.ID] = true
		j.markBroken(name, o.TLS)
		j.why[measure.WhyOldRoots], j.why[undecided] = true, true
		return
	}
	if proof, because, control := j.sameChainElsewhere(o, name); proof != "" {
		f.Interference, f.Proof = measure.InterferenceConfirmed, proof
		f.Because = append(f.Because, because...)
		f.Runs, f.Hits = 1+len(because)/2, 1+len(because)/2
		f.Trigger.Control = control
		j.add(f)
		return
	}
	if because, control := j.atHelper(name); len(because) > 0 {
		f.Interference, f.Proof = measure.InterferenceConfirmed, "terminator"
		f.Because = append(f.Because, because...)
		f.Runs, f.Hits = len(because)/2, len(because)/2
		f.Controls = measure.Count{Runs: len(because) / 2}
		f.Trigger.Control = control
		j.add(f)
		return
	}
	if because := j.sameIssuerAtCanaries(o); len(because) > 0 && f.Trusted && logged(o.TLS) && !isKnown {
		// So it would look too if half the web had moved to an authority that
		// this version's roots do not have.
		f.Because = append(f.Because, because...)
		f.Trigger = measure.Trigger{Kind: "tls"}
		f.NotExcluded = []measure.Why{measure.WhyOldRoots, measure.WhyLocalNetwork}
		j.add(f)
		return
	} else if len(because) > 0 {
		f.Interference, f.Proof = measure.InterferenceConfirmed, "canary+certificate"
		f.Because = append(f.Because, because...)
		f.Trigger = measure.Trigger{Kind: "tls"}
		j.add(f)
		return
	}
	// What did the helpers get?
	same, good := false, []*measure.Observation(nil)
	for _, h := range j.obs {
		if h.Role != measure.RoleHelper || h.Step != measure.StepTLS || canonical(h.SNI) != name || h.TLS == nil || len(h.TLS.Chain) == 0 {
			continue
		}
		if h.TLS.Chain[0] == o.TLS.Chain[0] {
			same = true
		} else if h.Remote == o.Remote && verified(h.TLS) {
			good = append(good, h)
		}
	}
	if same {
		j.innocent[o.ID] = true
		j.markBroken(name, o.TLS)
		j.why[serverSeenBroken] = true
		return
	}
	seen := 0
	for _, t := range j.obs {
		if t.Role == measure.RoleTest && t.Step == measure.StepTLS && t.Remote == o.Remote && canonical(t.SNI) == name && t.TLS != nil &&
			t.TLS.Public == measure.VerifyUnknownCA && t.TLS.Issuer == o.TLS.Issuer {
			seen++
		}
	}
	// Somebody got the name's own at that very address: a helper, or this device
	// over QUIC.
	proof := "helper+certificate"
	if len(good) == 0 {
		if q := j.overQUIC(o, name); q != nil {
			proof, good = "quic+certificate", []*measure.Observation{q}
			f.Trigger = measure.Trigger{Kind: "protocol", Value: "TLS", Control: "QUIC"}
		}
	}
	if len(good) > 0 {
		f.Because = append(f.Because, ids(good...)...)
		f.Controls = measure.Count{Runs: len(good)}
		if o.TLS.Public == measure.VerifyUnknownCA && seen >= 2 {
			f.Runs, f.Hits = seen, seen
			f.Interference, f.Proof = measure.InterferenceConfirmed, proof
		} else {
			f.NotExcluded = []measure.Why{measure.WhyServerBroken}
		}
		j.add(f)
		return
	}
	if f.Trusted {
		if because := j.onlyHere(o, name); len(because) > 0 && !isKnown {
			j.innocent[o.ID] = true
			j.markBroken(name, o.TLS)
			f.Traces = nil
			f.Method, f.Because = measure.PrivateAuthority, append(f.Because, because...)
			f.Controls = measure.Count{Runs: len(because)}
			f.NotExcluded = []measure.Why{}
			if logged(o.TLS) {
				f.NotExcluded = []measure.Why{measure.WhyOldRoots}
			}
			if len(j.helpers(name)) == 0 {
				j.why[measure.WhyNoHelper] = true
			}
			j.why[undecided] = true
			j.add(f)
			return
		}
		f.NotExcluded = []measure.Why{measure.WhyLocalNetwork}
		j.add(f)
		return
	}
	if o.TLS.Public != measure.VerifyUnknownCA || o.TLS.Issuer != "" && o.TLS.Issuer == o.TLS.Subject || j.ownDefault(o) {
		// Expired, for another name, self-signed, or shown to any name there:
		// as servers with a fault of their own do.
		j.innocent[o.ID] = true
		j.markBroken(name, o.TLS)
		j.why[measure.WhyServerBroken] = true
		if len(j.helpers(name)) == 0 {
			j.why[measure.WhyNoHelper] = true
		}
		return
	}
	f.NotExcluded = []measure.Why{measure.WhyServerBroken, measure.WhyLocalNetwork}
	if len(j.helpers(name)) == 0 {
		f.NotExcluded = append(f.NotExcluded, measure.WhyNoHelper)
	}
	if seen < 2 {
		f.NotExcluded = append(f.NotExcluded, measure.WhySingleSample)
	}
	j.add(f)
}

// markBroken says that the same certificate in other observations, or one of
// the same issuer with the same fault, is the server's own fault too.
func (j *judging) markBroken(name string, shown *measure.TLS) {
	for _, o := range j.obs {
		if o.Step != measure.StepTLS || canonical(o.SNI) != name || o.TLS == nil || len(o.TLS.Chain) == 0 {
			continue
		}
		if o.TLS.Chain[0] == shown.Chain[0] || shown.Issuer != "" && o.TLS.Issuer == shown.Issuer && o.TLS.Public == shown.Public {
			j.innocent[o.ID] = true
		}
	}
}

// ownDefault says whether the address shows the same chain to control names
// while an unrelated server shows the tested name nothing of the kind.
func (j *judging) ownDefault(o *measure.Observation) bool {
	same, elsewhere := false, false
	for _, c := range j.obs {
		if c.Step != measure.StepTLS || c.TLS == nil || len(c.TLS.Chain) == 0 {
			continue
		}
		if c.Experiment == measure.ExpSNI && c.Role == measure.RoleControl && c.Remote == o.Remote && c.TLS.Chain[0] == o.TLS.Chain[0] {
			same = true
		}
		if c.Experiment == measure.ExpSNIElsewhere && c.Role == measure.RoleTest && c.TLS.Issuer != o.TLS.Issuer {
			elsewhere = true
		}
	}
	return same && elsewhere
}

// sameChainElsewhere says whether an unrelated server shows the name the same
// leaf, or a leaf of the same untrusted issuer, and the control another.
func (j *judging) sameChainElsewhere(o *measure.Observation, name string) (proof string, because []string, control string) {
	for _, t := range j.obs {
		if t.Experiment != measure.ExpSNIElsewhere || t.Role != measure.RoleTest || t.Step != measure.StepTLS || canonical(t.SNI) != name ||
			t.TLS == nil || len(t.TLS.Chain) == 0 || verified(t.TLS) || address(t) == address(o) {
			continue
		}
		c := j.byID[t.Control]
		if c == nil || c.TLS == nil || len(c.TLS.Chain) == 0 || c.TLS.Chain[0] == t.TLS.Chain[0] || c.Remote != t.Remote {
			continue
		}
		leaf := t.TLS.Chain[0] == o.TLS.Chain[0]
		issuer := t.TLS.Public == measure.VerifyUnknownCA && o.TLS.Public == measure.VerifyUnknownCA &&
			t.TLS.Issuer == o.TLS.Issuer && o.TLS.Issuer != "" && c.TLS.Issuer != t.TLS.Issuer
		if leaf || issuer {
			proof, control = "elsewhere+certificate", canonical(c.SNI)
			because = append(because, t.ID, c.ID)
		}
	}
	return proof, because, control
}

// sameIssuerAtCanaries finds canaries of two networks that showed a leaf of
// the same untrusted issuer as the target's, or with its very key: whatever
// stands here signs all.
func (j *judging) sameIssuerAtCanaries(o *measure.Observation) []string {
	if o.TLS.Public != measure.VerifyUnknownCA {
		return nil
	}
	places := map[string]bool{}
	var because []string
	same := j.sameKey(o)
	for _, c := range j.canaries {
		if c.Step == measure.StepTLS && c.TLS != nil && c.TLS.Public == measure.VerifyUnknownCA && (o.TLS.Issuer != "" && c.TLS.Issuer == o.TLS.Issuer || slices.Contains(same, c)) {
			places[c.Remote] = true
			because = append(because, c.ID)
		}
	}
	if len(places) < 2 {
		return nil
	}
	return because
}
