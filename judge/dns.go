package judge

import (
	"net/netip"
	"slices"
	"sort"
	"strings"

	"govah/known"
	"govah/measure"
)

// answers are the addresses in all replies of o, in order, each once.
func answers(o *measure.Observation) []netip.Addr {
	if o == nil || o.DNS == nil {
		return nil
	}
	var out []netip.Addr
	for i := range o.DNS.Replies {
		for _, a := range replyAddrs(&o.DNS.Replies[i]) {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

func replyAddrs(r *measure.DNSReply) []netip.Addr {
	var out []netip.Addr
	for _, a := range r.Answers {
		if a.Type != "A" && a.Type != "AAAA" {
			continue
		}
		if addr, err := netip.ParseAddr(a.Value); err == nil {
			out = append(out, addr.Unmap().WithZone(""))
		}
	}
	return out
}

// answersOf are the addresses in all answers of several observations.
func answersOf(list []*measure.Observation) (out []netip.Addr) {
	for _, o := range list {
		for _, a := range answers(o) {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// lookups are the DNS observations about one name, by who was asked.
type lookups struct {
	name string
	// system: the system's resolver, by way of the system or directly.
	system []*measure.Observation
	// again: the same in pairs (ExpQName).
	again             []*measure.Observation
	encrypted, helper []*measure.Observation
	// open resolvers over UDP.
	open []*measure.Observation
	// nowhere: questions to addresses without a resolver.
	nowhere []*measure.Observation
}

// asked are all questions to the system's resolver, truth all answers that a
// forger on the path cannot have made.
func (l *lookups) asked() []*measure.Observation { return slices.Concat(l.system, l.again) }
func (l *lookups) truth() []*measure.Observation { return slices.Concat(l.encrypted, l.helper) }

func (j *judging) lookupsOf(name string) *lookups {
	l := &lookups{name: name}
	for _, o := range j.obs {
		if o.Step != measure.StepDNS || o.DNS == nil || canonical(o.DNS.Name) != name || ours(o) {
			continue
		}
		encrypted := o.DNS.Transport == "https" || o.DNS.Transport == "tls" || o.DNS.Transport == "quic"
		switch {
		case o.Role == measure.RoleHelper:
			l.helper = append(l.helper, o)
		case encrypted && (o.Role == measure.RoleControl || o.Role == measure.RoleTest):
			if o.DNS.Type != "HTTPS" {
				l.encrypted = append(l.encrypted, o)
			}
		case o.Role != measure.RoleTest:
		case o.DNS.NoResolver:
			l.nowhere = append(l.nowhere, o)
		case o.Experiment == measure.ExpQName:
			l.again = append(l.again, o)
		case o.Experiment == measure.ExpResolver && o.Stage == measure.StageConfirm:
			l.open = append(l.open, o)
		case screened(o):
			l.system = append(l.system, o)
		}
	}
	return l
}

func (j *judging) names() {
	var list []string
	for n := range j.targets {
		list = append(list, n)
	}
	sort.Strings(list)
	for _, n := range list {
		if _, err := netip.ParseAddr(n); err != nil && n != "" {
			j.name(j.lookupsOf(n))
		}
	}
}

// proven says whether a certificate that verifies against the public roots
// proved a to be name's, to this device or to a helper.
func (j *judging) proven(a netip.Addr, name string) bool {
	for _, o := range j.obs {
		if (o.Step == measure.StepTLS || o.Step == measure.StepQUIC) && o.Role != measure.RoleCanary && o.TLS != nil &&
			address(o) == a && canonical(o.SNI) == name && verified(o.TLS) {
			return true
		}
	}
	return false
}

// refuted says how a proved not to be name's: the server there showed another
// name's certificate, answered without speaking TLS, or sent a block page. A
// time-out or a reset refutes nothing, because blocking looks the same, unless
// it is a helper that meets it.
func (j *judging) refuted(a netip.Addr, name string) (*measure.Observation, bool) {
	for _, o := range j.obs {
		if address(o) != a || ours(o) || o.Role != measure.RoleTest && o.Role != measure.RoleHelper {
			continue
		}
		switch {
		case o.Step == measure.StepTLS && canonical(o.SNI) == name:
			t := o.TLS
			if t != nil && (t.Public == measure.VerifyWrongName || t.Public == measure.VerifyUnknownCA && !covers(t.Names, name)) ||
				o.Failure == measure.TLSFailedHandshake && (t == nil || !t.ServerBytes) ||
				o.Role == measure.RoleHelper && o.Failure != measure.NoFailure && j.failedHere(a) {
				return o, true
			}
		case o.Step == measure.StepTCP:
			// To one device a refusal may be a dead server of the site's own;
			// it takes a helper that is refused as well.
			if o.Role == measure.RoleHelper && o.Failure == measure.ConnectionRefused && strings.HasSuffix(o.Remote, ":443") && j.scheme != "http" && j.failedHere(a) {
				return o, true
			}
		case o.Step == measure.StepHTTP && o.HTTP != nil && !o.HTTP.Authenticated && nameOf(o) == name:
			if blockpage(j.matchesOf(o)) != nil {
				return o, true
			}
		}
	}
	return nil, false
}

// failedHere says whether this device failed at an address too: one that
// serves only the customers of one network (an operator's own cache) fails for
// every helper.
func (j *judging) failedHere(a netip.Addr) bool {
	return slices.ContainsFunc(j.obs, func(o *measure.Observation) bool {
		return o.Role == measure.RoleTest && address(o) == a && o.Failure != measure.NoFailure && !ours(o) &&
			(o.Step == measure.StepTCP || o.Step == measure.StepTLS || o.Step == measure.StepHTTP)
	})
}

// covers says whether one of a certificate's names fits host.
func covers(names []string, host string) bool {
	for _, n := range names {
		n = canonical(n)
		if n == host {
			return true
		}
		if rest, ok := strings.CutPrefix(n, "*."); ok {
			if _, parent, found := strings.Cut(host, "."); found && parent == rest {
				return true
			}
		}
	}
	return false
}

// records calls f with every answer of a list.
func records(list []*measure.Observation, f func(o *measure.Observation, a *measure.DNSAnswer)) {
	for _, o := range list {
		for i := range o.DNS.Replies {
			for k := range o.DNS.Replies[i].Answers {
				f(o, &o.DNS.Replies[i].Answers[k])
			}
		}
	}
}

// otherNetwork says whether a lies in another AS than all of the truth, or
// cannot be told to lie in one of theirs.
func otherNetwork(a netip.Addr, asked, truth []*measure.Observation) bool {
	own := 0
	records(asked, func(_ *measure.Observation, r *measure.DNSAnswer) {
		if r.Value == a.String() && r.ASN != 0 {
			own = r.ASN
		}
	})
	other := true
	records(truth, func(_ *measure.Observation, r *measure.DNSAnswer) {
		if own != 0 && r.ASN == own {
			other = false
		}
	})
	return other
}

// recordTTL is the TTL of a's record in seconds, -1 if no resolver told.
func recordTTL(a netip.Addr, list []*measure.Observation) int64 {
	ttl := int64(-1)
	records(list, func(o *measure.Observation, r *measure.DNSAnswer) {
		if r.Value == a.String() && o.DNS.Transport != "system" && ttl < 0 {
			ttl = r.TTLS
		}
	})
	return ttl
}

// lie is an address that a resolver gave and that is not the name's.
type lie struct {
	addr     netip.Addr
	evidence *measure.Observation
	match    *measure.Match
	sure     bool
	proof    string
}

// weighAddr says whether a is a lie about l's name. proven: another address
// of the name is proven.
func (j *judging) weighAddr(a netip.Addr, l *lookups, truth []netip.Addr, proven bool) (lie, bool) {
	if slices.Contains(truth, a) || j.proven(a, l.name) {
		return lie{}, false
	}
	x := lie{addr: a}
	if m, ok := known.ForgedAddress(a, recordTTL(a, l.asked())); ok {
		row, _ := known.AddressOf(a)
		x.match, x.proof = &m, "artefact"
		x.sure = proven || m.Kind == "forged-address" && row.Confidence >= 8 && public(truth)
		return x, true
	}
	if kind, ok := known.Bogon(a); ok {
		x.sure, x.proof = proven && !(inside(kind) && j.fromInside(a, l)), "artefact"
		return x, true
	}
	evidence, ok := j.refuted(a, l.name)
	if !ok || !proven {
		return lie{}, false
	}
	// A site may serve one name from several of its own addresses, and some
	// of them badly; in another network that explanation is far-fetched.
	x.evidence, x.proof, x.sure = evidence, "identity", otherNetwork(a, l.asked(), l.truth())
	return x, true
}

// inside says whether an organisation may number its own servers from a block
// of special use.
func inside(kind string) bool {
	return kind == "private" || kind == "shared" || kind == "unique-local"
}

// fromInside says whether only resolvers inside this network, or ones that
// are not known, gave a: an organisation answers its own people so about its
// own site (split horizon).
func (j *judging) fromInside(a netip.Addr, l *lookups) bool {
	for _, o := range slices.Concat(l.asked(), l.open) {
		if ap, err := netip.ParseAddrPort(o.DNS.Resolver); err == nil && slices.Contains(answers(o), a) &&
			!ap.Addr().IsPrivate() && !ap.Addr().IsLoopback() && !ap.Addr().IsLinkLocalUnicast() {
			return false
		}
	}
	return true
}

// public says whether any of the addresses can be a public server's.
func public(list []netip.Addr) bool {
	return slices.ContainsFunc(list, func(a netip.Addr) bool {
		_, bogus := known.Bogon(a)
		_, forged := known.ForgedAddress(a, -1)
		return !bogus && !forged
	})
}

// impossible says whether some lie is one by its address alone.
func impossible(lies []lie) bool {
	return slices.ContainsFunc(lies, func(x lie) bool { return x.sure && x.proof == "artefact" })
}

// liesOf finds the lies in a list of answers, and who told them. clean says
// that the only answer to some question was proven.
func (j *judging) liesOf(l *lookups, list []*measure.Observation, truth []netip.Addr, proven bool) (lies []lie, liars []*measure.Observation, clean bool) {
	for _, o := range list {
		for _, a := range answers(o) {
			if j.proven(a, l.name) {
				clean = clean || len(o.DNS.Replies) == 1
				continue
			}
			x, ok := j.weighAddr(a, l, truth, proven)
			if !ok {
				continue
			}
			if !slices.Contains(liars, o) {
				liars = append(liars, o)
			}
			if !slices.ContainsFunc(lies, func(y lie) bool { return y.addr == a }) {
				lies = append(lies, x)
			}
		}
	}
	return lies, liars, clean
}

// name judges what the resolvers said about one name.
func (j *judging) name(l *lookups) {
	asked, truth := l.asked(), answersOf(l.truth())
	proven := slices.ContainsFunc(truth, func(a netip.Addr) bool { return j.proven(a, l.name) })
	nowhere := j.nowhere(l)
	lies, liars, clean := j.liesOf(l, asked, truth, proven)
	several := j.differing(l)
	switch {
	case nowhere == measure.DNSInjection:
		j.markForged(l.name, lies, asked, truth)
	case len(several) > 0:
		j.markForged(l.name, lies, nil, nil)
		f := j.nameFinding(measure.DNSInjection, l, several)
		f.Interference, f.Proof = measure.InterferenceConfirmed, "identity"
		f.Runs, f.Hits = len(asked), len(several)
		j.add(f)
	case len(lies) > 0 && (!clean || impossible(lies)):
		j.markForged(l.name, lies, nil, nil)
		j.reportLies(l, lies, liars, proven, nowhere)
	case !clean && len(asked) > 0:
		j.denied(l, asked, proven)
	}
}

func (j *judging) reportLies(l *lookups, lies []lie, liars []*measure.Observation, proven bool, nowhere measure.Method) {
	// Open resolvers do not give such an answer: it was made on the way.
	var open []*measure.Observation
	for _, o := range l.open {
		if slices.ContainsFunc(answers(o), func(a netip.Addr) bool {
			return slices.ContainsFunc(lies, func(x lie) bool { return x.addr == a })
		}) {
			open = append(open, o)
		}
	}
	method := measure.DNSResolverLie
	if len(open) > 0 && nowhere == "" {
		method = measure.DNSInjection
	}
	f := j.nameFinding(method, l, slices.Concat(liars, open))
	f.Interference, f.Runs, f.Hits = measure.InterferenceSuspected, len(l.asked()), len(liars)
	for _, x := range lies {
		if x.match != nil && f.Match == nil {
			f.Match = x.match
		}
		if x.sure && f.Proof == "" {
			f.Interference, f.Proof = measure.InterferenceConfirmed, x.proof
		}
		f.Because = append(f.Because, ids(x.evidence)...)
	}
	if proven && f.Proof == "artefact" {
		f.Proof = "artefact+identity"
	}
	if f.Interference == measure.InterferenceSuspected {
		f.NotExcluded = append(f.NotExcluded, measure.WhyGeoDNS)
	}
	f.Scope, f.NotExcluded = resolverScope(lies, l.asked(), f.NotExcluded)
	j.add(f)
}

// nameFinding is a finding of the DNS layer about a name.
func (j *judging) nameFinding(m measure.Method, l *lookups, because []*measure.Observation) measure.Finding {
	f := measure.Finding{Method: m, Layer: measure.StepDNS, Trigger: measure.Trigger{Kind: "qname", Value: l.name}, Because: ids(because...)}
	for _, o := range because {
		c := j.byID[o.Control]
		if c == nil {
			continue
		}
		f.Because = append(f.Because, c.ID)
		if c.DNS == nil || o.Experiment != measure.ExpQName && o.Experiment != measure.ExpNowhere {
			continue
		}
		f.Trigger.Control = canonical(c.DNS.Name)
		f.Controls.Runs++
		if o.Experiment == measure.ExpQName && c.Failure != measure.NoFailure || o.Experiment == measure.ExpNowhere && len(c.DNS.Replies) > 0 {
			f.Controls.Hits++
		}
	}
	return f
}

// resolverScope says how far away a lying resolver may be. One in a private
// network is this network's own, and forwards what others say.
func resolverScope(lies []lie, asked []*measure.Observation, open []measure.Why) (measure.Scope, []measure.Why) {
	for _, x := range lies {
		if row, ok := known.AddressOf(x.addr); ok && row.Kind == "filter-address" && row.Confidence >= 8 && row.Scope != "" {
			return row.Scope, open
		}
	}
	for _, o := range asked {
		ap, err := netip.ParseAddrPort(o.DNS.Resolver)
		if err != nil || ap.Addr().IsPrivate() || ap.Addr().IsLoopback() || ap.Addr().IsLinkLocalUnicast() {
			return measure.ScopeUnknown, append(open, measure.WhyLocalNetwork)
		}
	}
	return measure.ScopeUnknown, open
}

// markForged remembers the addresses of a lie, so that what happens there is
// not counted once more: those proven to be one, and with asked everything
// that was said there and nowhere else.
func (j *judging) markForged(name string, lies []lie, asked []*measure.Observation, truth []netip.Addr) {
	set := map[netip.Addr]bool{}
	for _, x := range lies {
		set[x.addr] = true
	}
	for _, a := range answersOf(asked) {
		if !slices.Contains(truth, a) && !j.proven(a, name) {
			set[a] = true
		}
	}
	j.forged[name] = set
}

// nowhere judges answers that came from where no resolver is: forged by
// definition. Where the control's question is answered too, port 53 as such
// is taken over.
func (j *judging) nowhere(l *lookups) measure.Method {
	var hit []*measure.Observation
	runs, both, controls := 0, 0, measure.Count{}
	for _, t := range l.nowhere {
		if t.Experiment != measure.ExpNowhere {
			continue
		}
		runs++
		c := j.byID[t.Control]
		answered := c != nil && c.DNS != nil && len(c.DNS.Replies) > 0
		if c != nil {
			controls.Runs++
		}
		if answered {
			controls.Hits++
		}
		if len(t.DNS.Replies) > 0 {
			hit = append(hit, t)
			if answered {
				both++
			}
		}
	}
	if len(hit) == 0 {
		return ""
	}
	f := j.nameFinding(measure.DNSInjection, l, hit)
	f.Interference, f.Proof, f.Runs, f.Hits, f.Controls = measure.InterferenceConfirmed, "nowhere", runs, len(hit), controls
	f.Family = family(hit[0])
	if both > 0 || controls.Runs == 0 {
		f.Method, f.Trigger = measure.DNSInterception, measure.Trigger{Kind: "port", Value: "53"}
		f.NotExcluded = append(f.NotExcluded, measure.WhyLocalNetwork)
	}
	for _, a := range answersOf(hit) {
		if m, ok := known.ForgedAddress(a, recordTTL(a, hit)); ok && f.Match == nil && f.Method == measure.DNSInjection {
			f.Match = &m
		}
	}
	j.add(f)
	return f.Method
}

// differing finds questions over UDP that got several answers of which one is
// proven true and another cannot be: that one was injected.
func (j *judging) differing(l *lookups) []*measure.Observation {
	var out []*measure.Observation
	for _, o := range slices.Concat(l.system, l.again, l.open) {
		if o.DNS.Transport != "udp" || len(o.DNS.Replies) < 2 {
			continue
		}
		genuine, other := false, false
		for i := range o.DNS.Replies {
			r := &o.DNS.Replies[i]
			addrs := replyAddrs(r)
			for _, a := range addrs {
				if j.proven(a, l.name) {
					genuine = true
					continue
				}
				_, bogus := known.Bogon(a)
				_, forged := known.ForgedAddress(a, -1)
				_, wrong := j.refuted(a, l.name)
				other = other || bogus || forged || wrong && otherNetwork(a, l.asked(), l.truth())
			}
			other = other || len(addrs) == 0 && (r.Rcode == "NXDOMAIN" || r.Rcode == "REFUSED")
		}
		if genuine && other {
			out = append(out, o)
		}
	}
	return out
}

// denied judges a name that the system's resolver does not answer while
// others do.
func (j *judging) denied(l *lookups, asked []*measure.Observation, proven bool) {
	var failed []*measure.Observation
	kinds := map[measure.Failure]int{}
	for _, o := range asked {
		if len(answers(o)) > 0 {
			return // answers that nothing refutes
		}
		if o.Failure != measure.NoFailure {
			failed = append(failed, o)
			kinds[o.Failure]++
		}
	}
	if len(failed) == 0 {
		return
	}
	if len(answersOf(l.truth())) == 0 {
		j.nobodyKnows(l, failed)
		return
	}
	var kind measure.Failure
	for k, n := range kinds {
		if n > kinds[kind] || n == kinds[kind] && k < kind {
			kind = k
		}
	}
	method := measure.DNSError
	switch kind {
	case measure.DNSNXDomain, measure.DNSNoAnswer:
		method = measure.DNSNXDomainLie
	case measure.GenericTimeout:
		method = measure.DNSDrop
	}
	f := j.nameFinding(method, l, failed)
	f.Interference, f.Runs, f.Hits = measure.InterferenceSuspected, len(asked), len(failed)
	f.Scope, f.NotExcluded = resolverScope(nil, asked, nil)
	f.Because = append(f.Because, ids(l.truth()...)...)
	hits, pairs, silent := j.qnamePairs(l.name, kind)
	definite := kind == measure.DNSNXDomain || kind == measure.DNSNoAnswer || kind == measure.DNSRefused
	switch {
	case !proven:
		f.NotExcluded = append(f.NotExcluded, measure.WhyServerBroken)
	case method == measure.DNSDrop && silent, method != measure.DNSDrop && pairs > 0 && hits == pairs && (definite || pairs >= 3):
		f.Interference, f.Proof = measure.InterferenceConfirmed, "pairs+identity"
	case pairs == 0:
		f.NotExcluded = append(f.NotExcluded, measure.WhyNoControl)
	case hits < pairs:
		f.NotExcluded = append(f.NotExcluded, measure.WhyIntermittent)
	default:
		f.NotExcluded = append(f.NotExcluded, measure.WhyLoss, measure.WhyFewPairs)
	}
	if len(failed) == 1 {
		f.NotExcluded = append(f.NotExcluded, measure.WhySingleSample)
	}
	j.add(f)
}

// nobodyKnows notes a name that no resolver answers. Two helpers that say so
// in different networks mean that the site is gone.
func (j *judging) nobodyKnows(l *lookups, failed []*measure.Observation) {
	for _, o := range failed {
		j.innocent[o.ID] = true
	}
	if j.reportDown(l.name, measure.StepDNS, failed) {
		return
	}
	j.why[measure.WhySiteDown] = true
	if len(l.helper) == 0 {
		j.why[measure.WhyNoHelper] = true
	}
}

// qnamePairs counts the pairs of ExpQName about a name whose control was
// answered, and how many of their tests failed as kind says; silent says
// whether the silence is more than chance.
func (j *judging) qnamePairs(name string, kind measure.Failure) (hits, runs int, silent bool) {
	answered := func(c *measure.Observation) bool { return c.Failure == measure.NoFailure && len(answers(c)) > 0 }
	for _, t := range j.obs {
		if t.Experiment != measure.ExpQName || t.Role != measure.RoleTest || t.DNS == nil || canonical(t.DNS.Name) != name || ours(t) {
			continue
		}
		if c := j.byID[t.Control]; c != nil && c.Role == measure.RoleControl && answered(c) {
			runs++
			if t.Failure == kind {
				hits++
			}
		}
	}
	for _, s := range j.ask(question{
		exp: measure.ExpQName, step: measure.StepDNS, passed: answered, key: nameOf,
		hit: func(t, _ *measure.Observation) bool { return t.Failure == measure.GenericTimeout },
	}) {
		silent = silent || s.key == name && s.sound
	}
	return hits, runs, silent
}
