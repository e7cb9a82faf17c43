package judge

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"govah/known"
	"govah/measure"
)

// taken is what shows that port 53 is taken over.
type taken struct {
	because   []*measure.Observation
	proofs    []string
	nearest   int
	operators map[string]bool
}

func (t *taken) add(proof string, list ...*measure.Observation) {
	if !slices.Contains(t.proofs, proof) {
		t.proofs = append(t.proofs, proof)
	}
	t.because = append(t.because, list...)
}

// impostors judges what resolvers of different operators answer on port 53
// over one family: two of them have neither a machine nor a way out in common,
// and neither is nearer on one port than on another. Each takes two operators,
// because one may change how it answers.
func (j *judging) impostors(f measure.Family) {
	t := &taken{operators: map[string]bool{}}
	j.oneMachine(t, f)
	j.oneExit(t, f)
	j.nearAnswers(t, f)
	if len(t.proofs) == 0 {
		return
	}
	fi := measure.Finding{Method: measure.DNSInterception, Interference: measure.InterferenceConfirmed, Layer: measure.StepDNS, Family: f, Scope: within(t.nearest),
		Trigger: measure.Trigger{Kind: "port", Value: "53"}, Runs: len(t.operators), Hits: len(t.operators), Because: ids(t.because...), Proof: strings.Join(t.proofs, "+")}
	if t.nearest != 1 {
		fi.NotExcluded = []measure.Why{measure.WhyLocalNetwork}
	}
	j.merge(fi) // a redirection that shows at addresses without a resolver too is one
}

// program names the software that answers in the resolvers' place, by what it
// says of itself (version.bind, class CH) where those of two operators say
// the same over one family.
func (j *judging) program(f measure.Family) {
	said := map[string][]*measure.Observation{}
	for _, o := range j.obs {
		if o.Experiment != measure.ExpOperator || o.DNS == nil || canonical(o.DNS.Name) != "version.bind" || family(o) != f || ours(o) {
			continue
		}
		if text := strings.Trim(firstAnswer(o, "TXT"), `"`); text != "" {
			said[text] = append(said[text], o)
		}
	}
	for _, text := range slices.Sorted(maps.Keys(said)) {
		list := said[text]
		if !slices.ContainsFunc(list, func(o *measure.Observation) bool { return o.DNS.Operator != list[0].DNS.Operator }) {
			continue
		}
		for _, m := range known.Match(known.Evidence{Greeting: text}) {
			if m.Kind != "product" {
				continue
			}
			for i := range j.findings {
				if x := &j.findings[i]; x.Method == measure.DNSInterception && x.Family == f && x.Match == nil {
					x.Match, x.Because = &m, grounds(x.Because, ids(list...))
				}
			}
			return
		}
	}
}

// firstAnswer is the first record of a type in the first reply.
func firstAnswer(o *measure.Observation, kind string) string {
	if o.DNS == nil || len(o.DNS.Replies) == 0 || o.DNS.Replies[0].Rcode != "NOERROR" {
		return ""
	}
	for _, a := range o.DNS.Replies[0].Answers {
		if a.Type == kind {
			return a.Value
		}
	}
	return ""
}

// oneMachine finds a machine that answers for several operators: it gives one
// identity, which at least one of them is known never to give.
func (j *judging) oneMachine(t *taken, f measure.Family) {
	type group struct {
		list   []*measure.Observation
		who    map[string]bool
		unlike bool
	}
	groups := map[string]*group{}
	var order []string
	for _, o := range j.obs {
		if o.Experiment != measure.ExpOperator || o.DNS == nil || o.DNS.Operator == "" || canonical(o.DNS.Name) == "version.bind" || family(o) != f || ours(o) {
			continue
		}
		text := firstAnswer(o, "TXT")
		if text == "" || text == `""` {
			continue
		}
		key := canonical(o.DNS.Name) + " " + text
		g := groups[key]
		if g == nil {
			g = &group{who: map[string]bool{}}
			groups[key] = g
			order = append(order, key)
		}
		g.list = append(g.list, o)
		g.who[o.DNS.Operator] = true
		g.unlike = g.unlike || o.DNS.Unlike
	}
	for _, key := range order {
		if g := groups[key]; len(g.who) >= 2 && g.unlike {
			t.add("one-machine", g.list...)
			for who := range g.who {
				t.operators[who] = true
			}
		}
	}
}

// networks are the known ASes of the addresses in an answer.
func networks(o *measure.Observation) (out []int) {
	if o == nil || o.DNS == nil || len(o.DNS.Replies) == 0 {
		return nil
	}
	for _, a := range o.DNS.Replies[0].Answers {
		if a.ASN != 0 && !slices.Contains(out, a.ASN) {
			out = append(out, a.ASN)
		}
	}
	return out
}

// oneExit finds questions to several operators that leave from one network,
// which is none from which their encrypted resolvers ask.
func (j *judging) oneExit(t *taken, f measure.Family) {
	byAS := map[int][]*measure.Observation{}
	for _, o := range j.obs {
		if o.Experiment != measure.ExpExit || o.Role != measure.RoleTest || o.DNS == nil || o.DNS.Operator == "" || family(o) != f {
			continue
		}
		here, there := networks(o), networks(j.byID[o.Control])
		if len(here) != 1 || len(there) == 0 || slices.Contains(there, here[0]) {
			continue
		}
		byAS[here[0]] = append(byAS[here[0]], o)
	}
	for _, n := range slices.Sorted(maps.Keys(byAS)) {
		who := map[string]bool{}
		for _, o := range byAS[n] {
			who[o.DNS.Operator] = true
		}
		if len(who) < 2 {
			continue
		}
		for _, o := range byAS[n] {
			t.add("one-exit", o)
			if c := j.byID[o.Control]; c != nil {
				t.because = append(t.because, c)
			}
			t.operators[o.DNS.Operator] = true
		}
	}
}

// nearAnswers finds answers from nearer than the resolver's own address: at
// two operators, at the same distance, at least two routers short of both, and
// where the paths to both are still one.
func (j *judging) nearAnswers(t *taken, f measure.Family) {
	type side struct {
		ttl int
		obs *measure.Observation
	}
	type resolver struct {
		who     string
		dns, ip side
	}
	all := map[netip.Addr]*resolver{}
	for _, o := range j.obs {
		if o.Experiment != measure.ExpNearAnswer || o.TTL <= 0 || family(o) != f || ours(o) {
			continue
		}
		a := address(o)
		r := all[a]
		if r == nil {
			r = &resolver{}
			all[a] = r
		}
		into := &r.dns
		switch {
		case o.Role == measure.RoleTest && answered(o):
			r.who = o.DNS.Operator
		case o.Role == measure.RoleControl && o.Path != nil && (o.Path.Outcome == "connected" || o.Path.Outcome == "reset"):
			into = &r.ip
		default:
			continue
		}
		if into.obs == nil || o.TTL < into.ttl {
			*into = side{o.TTL, o}
		}
	}
	byTTL := map[int][]*resolver{}
	for _, a := range slices.SortedFunc(maps.Keys(all), netip.Addr.Compare) {
		r := all[a]
		if r.dns.obs != nil && r.ip.obs != nil && r.ip.ttl-r.dns.ttl >= 2 {
			byTTL[r.dns.ttl] = append(byTTL[r.dns.ttl], r)
		}
	}
	for _, ttl := range slices.Sorted(maps.Keys(byTTL)) {
		list := byTTL[ttl]
		slices.SortStableFunc(list, func(a, b *resolver) int { return strings.Compare(a.who, b.who) })
		if len(list) < 2 || list[0].who == list[len(list)-1].who {
			continue
		}
		// There, one and the same router passes on what goes to both.
		router, same := "", true
		for i, r := range list {
			there := j.expiredAt(measure.ExpNearAnswer, r.ip.obs.Remote, ttl)
			same = same && there != "" && (i == 0 || there == router)
			router = there
		}
		if !same {
			continue
		}
		for _, r := range list {
			t.add("ttl", r.dns.obs, r.ip.obs)
			t.operators[r.who] = true
		}
		if t.nearest == 0 {
			t.nearest = ttl
		}
	}
}

// leftOut judges signatures and ECH keys that an encrypted resolver gives and
// a plain one, which would know them, does not.
func (j *judging) leftOut(e measure.Experiment, method measure.Method, has func(*measure.Observation) bool, whole func(*measure.Observation) bool, proof string) {
	type tally struct {
		hits, passes int
		because      []*measure.Observation
	}
	by := map[string]*tally{}
	var order []string
	for _, o := range j.obs {
		c := j.byID[o.Control]
		if o.Experiment != e || o.Role != measure.RoleTest || o.DNS == nil || c == nil || c.Experiment != e || !has(c) || !answered(o) || ours(o) {
			continue
		}
		if o.DNS.Operator == "" {
			ap, err := netip.ParseAddrPort(o.DNS.Resolver)
			if err != nil || ap.Addr().IsPrivate() || ap.Addr().IsLoopback() || ap.Addr().IsLinkLocalUnicast() {
				continue // a home router that knows less is no thief
			}
		}
		if by[o.DNS.Resolver] == nil {
			by[o.DNS.Resolver] = &tally{}
			order = append(order, o.DNS.Resolver)
		}
		t := by[o.DNS.Resolver]
		switch {
		case has(o):
			t.passes++
		case whole(o):
			t.hits++
			t.because = append(t.because, o, c)
		}
	}
	var f measure.Finding
	for _, r := range order {
		// Two names of different operators: one could be an old answer that a
		// resolver still has.
		if t := by[r]; t.hits >= 2 && t.passes == 0 {
			f.Runs, f.Hits = f.Runs+t.hits, f.Hits+t.hits
			f.Controls.Runs += t.hits
			f.Because = append(f.Because, ids(t.because...)...)
			f.Family = family(t.because[0])
		}
	}
	if f.Hits == 0 {
		return
	}
	f.Method, f.Interference, f.Layer, f.Proof = method, measure.InterferenceConfirmed, measure.StepDNS, proof
	f.Trigger = measure.Trigger{Kind: "port", Value: "53"}
	j.add(f)
}

// hasRecord says whether the first reply has a record of a type whose text
// contains part.
func hasRecord(o *measure.Observation, kind, part string) bool {
	return answered(o) && slices.ContainsFunc(o.DNS.Replies[0].Answers, func(a measure.DNSAnswer) bool {
		return a.Type == kind && strings.Contains(a.Value, part)
	})
}

// stripped judges what is left out of plain answers.
func (j *judging) stripped() {
	j.leftOut(measure.ExpSigned, measure.DNSSECStrip, func(o *measure.Observation) bool { return hasRecord(o, "RRSIG", "") },
		func(o *measure.Observation) bool {
			r := &o.DNS.Replies[0]
			// One that does not say it knows of signatures simply does not.
			return r.Rcode == "NOERROR" && !r.TC && hasRecord(o, "A", "") && (r.DO || o.DNS.Operator != "")
		}, "unsigned")
	j.leftOut(measure.ExpECHKeys, measure.ECHStrip, func(o *measure.Observation) bool { return hasRecord(o, "HTTPS", "ech=") },
		// One that does not know the type has no record at all.
		func(o *measure.Observation) bool { return !o.DNS.Replies[0].TC && hasRecord(o, "HTTPS", "") }, "keyless")
}

// resigned judges certificates that encrypted resolvers of two operators show,
// both of one issuer that no public root verifies. So it would look too if both
// had moved to an authority that this version's roots do not have: what is in
// the logs, or might be, accuses nobody.
func (j *judging) resigned() {
	type issuer struct {
		who    map[string]bool
		forged []*measure.Observation
	}
	all := map[string]*issuer{}
	public := map[string]bool{} // issuers of what did verify in this run
	for _, o := range j.obs {
		if t := o.TLS; t != nil && verified(t) {
			public[t.Issuer] = true
		}
		if !encrypted(o) || answered(o) || !unknownIssuer(o) {
			continue
		}
		x := all[o.TLS.Issuer]
		if x == nil {
			x = &issuer{who: map[string]bool{}}
			all[o.TLS.Issuer] = x
		}
		x.who[o.DNS.Operator] = true
		x.forged = append(x.forged, o)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		x := all[name]
		if len(x.who) < 2 {
			continue
		}
		fi := measure.Finding{Method: measure.TLSInterception, Interference: measure.InterferenceConfirmed, Layer: measure.StepTLS,
			Trigger: measure.Trigger{Kind: "tls"}, Runs: len(x.forged), Hits: len(x.forged), Because: ids(x.forged...), Proof: "one-issuer"}
		o := x.forged[0]
		every := func(is func(*measure.Observation) bool) bool { return count(x.forged, is) == len(x.forged) }
		if f := family(o); every(func(o *measure.Observation) bool { return family(o) == f }) {
			fi.Family = f
		}
		_, isKnown := j.sign(&fi, o, canonical(o.SNI))
		fi.Traces = j.traces(o, canonical(o.SNI))
		switch {
		case fi.Proof == "signature":
		case every(func(o *measure.Observation) bool { return logged(o.TLS) && o.TLS.SCTs.Verified > 0 }):
			// Only what a public authority signed gets into the logs.
			j.why[measure.WhyOldRoots], j.why[undecided] = true, true
			continue
		case isKnown:
		case public[name]:
			// A public authority that has this name did sign in this run: either
			// an imitation, or servers that forgot to send what leads to a root.
			fi.Interference, fi.NotExcluded = measure.InterferenceSuspected, []measure.Why{measure.WhyServerBroken}
		case !every(func(o *measure.Observation) bool { return o.TLS.SCTs != nil && !logged(o.TLS) }):
			fi.Interference, fi.NotExcluded = measure.InterferenceSuspected, []measure.Why{measure.WhyOldRoots}
		}
		if !local(&fi) {
			fi.NotExcluded = append(fi.NotExcluded, measure.WhyLocalNetwork)
		}
		j.add(fi)
	}
}

// encrypted says whether o is a question to a public resolver over TLS or HTTPS.
func encrypted(o *measure.Observation) bool {
	return o.Experiment == measure.ExpEncrypted && o.Role != measure.RoleControl && o.DNS != nil && o.DNS.Operator != "" && !ours(o)
}

// unknownIssuer says that a chain came that leads to no public root.
func unknownIssuer(o *measure.Observation) bool {
	return o.TLS != nil && len(o.TLS.Chain) > 0 && o.TLS.Public == measure.VerifyUnknownCA && !verified(o.TLS) && o.TLS.Issuer != ""
}

// encryptedDNS judges whether encrypted questions get through where plain ones
// do.
func (j *judging) encryptedDNS() {
	type operator struct {
		plain, passed, shown bool
		failed               []*measure.Observation
	}
	all := map[string]*operator{}
	for _, o := range j.obs {
		if o.Experiment != measure.ExpEncrypted || o.DNS == nil || o.DNS.Operator == "" || ours(o) {
			continue
		}
		p := all[o.DNS.Operator]
		if p == nil {
			p = &operator{}
			all[o.DNS.Operator] = p
		}
		switch {
		case o.Role == measure.RoleControl:
			p.plain = p.plain || answered(o)
		case answered(o):
			p.passed = true
		case o.TLS != nil && len(o.TLS.Chain) > 0:
			p.shown = p.shown || unknownIssuer(o)
		default:
			p.failed = append(p.failed, o)
		}
	}
	var blocked []*measure.Observation
	none, nBlocked := true, 0
	for _, who := range slices.Sorted(maps.Keys(all)) {
		p := all[who]
		none = none && !p.passed
		// Each of the two ways failed twice.
		if p.plain && !p.passed && len(p.failed) >= 4 && !p.shown {
			nBlocked++
			blocked = append(blocked, p.failed...)
		}
	}
	failures, runs := 0, 0
	for _, c := range j.m.Canaries {
		if c.Step == measure.StepTLS {
			failures, runs = failures+c.Failures, runs+c.Runs
		}
	}
	if nBlocked >= 2 && none && runs > failures {
		j.add(measure.Finding{Method: measure.DNSDowngrade, Interference: measure.InterferenceConfirmed, Layer: measure.StepDNS, Family: family(blocked[0]),
			Trigger: measure.Trigger{Kind: "transport"}, Runs: len(blocked), Hits: len(blocked), Controls: measure.Count{Runs: nBlocked},
			Because: ids(blocked...), Proof: "plain-passes", NotExcluded: []measure.Why{measure.WhyLocalNetwork}})
	}
}
