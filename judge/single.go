package judge

import (
	"net/netip"
	"slices"
	"strings"

	"govah/measure"
)

// single judges what was seen once from here and once from a test helper, as
// an imported measurement holds it: no pairs and no canaries, so everything
// but an artefact stays a suspicion.
func (j *judging) single() {
	j.singleNames()
	seen := map[string]bool{}
	for _, o := range j.obs {
		if o.Role != measure.RoleTest || ours(o) {
			continue
		}
		switch o.Step {
		case measure.StepTCP, measure.StepTLS, measure.StepQUIC, measure.StepHTTP:
		default:
			continue
		}
		if j.disputed(address(o)) || j.healed(o) {
			continue
		}
		if o.Step == measure.StepTCP && j.absent(family(o)) {
			continue
		}
		if before := j.byID[o.After]; o.Step == measure.StepHTTP && o.Failure != measure.NoFailure {
			// The connection's failure told once more, or a word that says
			// nothing about the network.
			if before != nil && (before.Failure != measure.NoFailure || j.disputed(address(before))) || strings.HasPrefix(string(o.Failure), measure.UnknownFailurePrefix) {
				continue
			}
		}
		key := string(o.Step) + string(family(o)) + string(methodOf(o)) + nameOf(o)
		if seen[key] {
			continue
		}
		if o.Step == measure.StepHTTP && o.Failure == measure.NoFailure {
			if j.singlePage(o) {
				seen[key] = true
			}
			continue
		}
		if o.Failure == measure.NoFailure && !(o.Step == measure.StepTLS && o.TLS != nil && o.TLS.Public != "" && !verified(o.TLS) && len(o.TLS.Chain) > 0) {
			continue
		}
		if j.singleFailure(o) {
			seen[key] = true
		}
	}
	j.refusals()
}

// absent says that this device has no network of a family: every connect was
// refused by the system itself, while the other family works.
func (j *judging) absent(f measure.Family) bool {
	failed, other := false, false
	for _, o := range j.obs {
		if o.Role != measure.RoleTest || o.Step != measure.StepTCP {
			continue
		}
		switch {
		case family(o) != f:
			other = other || o.Failure == measure.NoFailure
		case o.Failure == measure.NetworkUnreachable || o.Failure == measure.HostUnreachable || o.Failure == measure.AddressNotAvailable:
			failed = true
		default:
			return false
		}
	}
	return failed && other
}

// singleFailure compares one failed step with the helper's.
func (j *judging) singleFailure(o *measure.Observation) bool {
	name := nameOf(o)
	if name == "" {
		name = j.host
	}
	good, bad := j.helperAt(o, name)
	f := measure.Finding{Method: methodOf(o), Interference: measure.InterferenceSuspected, Layer: o.Step, Family: family(o),
		Trigger: measure.Trigger{Kind: "address", Value: name}, Runs: 1, Hits: 1, NotExcluded: []measure.Why{measure.WhySingleSample, measure.WhyServerRefuses}}
	if o.Step == measure.StepTCP {
		f.Trigger.Value = address(o).String()
	}
	if o.Step == measure.StepTLS && completed(o) {
		f.Method = measure.TLSInterception
		f.NotExcluded = []measure.Why{measure.WhySingleSample, measure.WhyServerBroken}
		if o.TLS != nil {
			if r, ok := j.sign(&f, o, name); ok && r.Owns(name) {
				return false
			}
		}
	}
	f.Because = append(ids(o), ids(good...)...)
	f.Controls = measure.Count{Runs: len(good) + len(bad), Hits: len(bad)}
	switch {
	case f.Interference == measure.InterferenceConfirmed:
	case len(good) > 0:
	case len(bad) > 0:
		j.why[measure.WhySiteDown] = true
		if slices.ContainsFunc(j.findings, func(x measure.Finding) bool { return x.Method == measure.SiteDown }) {
			return true
		}
		f.Method, f.Because = measure.SiteDown, append(ids(o), ids(bad...)...)
		f.Trigger = measure.Trigger{Kind: "address", Value: name}
		f.NotExcluded = []measure.Why{measure.WhySingleSample}
	default:
		j.why[measure.WhyNoHelper] = true
		j.why[measure.WhySingleSample] = true
		return false
	}
	j.add(f)
	return true
}

// helperAt are the helper's steps that stand next to o: of the same kind at
// the same address or for the same name.
func (j *judging) helperAt(o *measure.Observation, name string) (good, bad []*measure.Observation) {
	for _, h := range j.obs {
		if h.Role != measure.RoleHelper {
			continue
		}
		ok := h.Failure == measure.NoFailure
		switch {
		case h.Step == o.Step && (h.Remote == o.Remote && h.Remote != "" || o.Step == measure.StepHTTP && (nameOf(h) == name || nameOf(h) == j.host)):
			if h.Step == measure.StepHTTP && ok && h.HTTP != nil && h.HTTP.Status >= 500 {
				ok = false
			}
			if ok {
				good = append(good, h)
			} else if !ours(h) {
				bad = append(bad, h)
			}
		case h.Step == measure.StepHTTP && ok && (o.Step == measure.StepTLS || o.Step == measure.StepTCP) && nameOf(h) == name && inTLS(h):
			// A page over TLS needs a connection and a handshake.
			good = append(good, h)
		case o.Step == measure.StepTLS && name != j.host && j.targets[name] && j.fetched(h):
			// The helper came to the end of the redirects.
			good = append(good, h)
		}
	}
	if len(good) > 0 && o.Step == measure.StepTCP {
		// What counts for a connect is that very address, if it was tried.
		exact := slices.DeleteFunc(slices.Clone(good), func(h *measure.Observation) bool { return h.Step != o.Step })
		if len(exact) == 0 && len(bad) > 0 {
			return nil, bad
		}
	}
	return good, bad
}

// singlePage judges one plain answer: a block page that the helper did not
// get confirms, anything else that differs may be a dynamic page.
func (j *judging) singlePage(o *measure.Observation) bool {
	if o.HTTP == nil || o.HTTP.Authenticated {
		return false
	}
	m := blockpage(j.matchesOf(o))
	if m == nil {
		return false
	}
	name := nameOf(o)
	f := measure.Finding{Method: measure.HTTPBlockPage, Interference: measure.InterferenceSuspected, Layer: measure.StepHTTP, Family: family(o), Scope: m.Scope,
		Trigger: measure.Trigger{Kind: "host", Value: name}, Runs: 1, Hits: 1, Match: m, NotExcluded: []measure.Why{measure.WhySingleSample}, Because: ids(o)}
	if o.HTTP.Status >= 300 && o.HTTP.Status < 400 {
		f.Method = measure.HTTPRedirect
	}
	for _, h := range j.obs {
		if h.Role != measure.RoleHelper || h.Step != measure.StepHTTP || h.HTTP == nil {
			continue
		}
		f.Because = append(f.Because, ids(h)...)
		f.Controls.Runs++
		if blockpage(j.matchesOf(h)) != nil {
			f.Controls.Hits++
		}
	}
	if f.Controls.Runs > 0 && f.Controls.Hits == 0 && sure(m) {
		f.Interference, f.Proof = measure.InterferenceConfirmed, "artefact+helper"
	}
	j.add(f)
	return true
}

// fetched says whether h is the helper's page, which it got at the end of the
// target's redirects if there are any.
func (j *judging) fetched(h *measure.Observation) bool {
	return h.Role == measure.RoleHelper && h.Step == measure.StepHTTP && h.Failure == measure.NoFailure && h.HTTP != nil &&
		h.HTTP.Status > 0 && h.HTTP.Status < 400 && nameOf(h) == j.host
}

// singleNames judges the answers of resolvers next to the helper's.
func (j *judging) singleNames() {
	names := []string{}
	for n := range j.targets {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, name := range names {
		if _, err := netip.ParseAddr(name); err != nil && name != "" {
			j.singleName(name)
		}
	}
}

func (j *judging) singleName(name string) {
	l := j.lookupsOf(name)
	l.system = append(append(l.system, l.again...), l.open...)
	truth := l.truth()
	if name != j.host {
		// Nobody asked the helper for the name of a redirect, but its page
		// came from there.
		for _, o := range j.obs {
			if j.fetched(o) {
				truth = append(truth, o)
			}
		}
		if len(truth) > 0 {
			j.singleLies(l, truth)
		}
		return
	}
	denied := 0
	for _, o := range truth {
		if o.Failure == measure.NoFailure && len(answers(o)) > 0 {
			j.singleLies(l, truth)
			return
		}
		if o.Failure == measure.DNSNXDomain {
			denied++
		}
	}
	if denied > 0 && denied == len(truth) && j.singleGhost(l) {
		return
	}
	for _, o := range l.system {
		if o.Failure != measure.NoFailure && len(l.helper) > 0 {
			j.why[measure.WhySiteDown] = true
			f := j.nameFinding(measure.SiteDown, l, append([]*measure.Observation{o}, l.helper...))
			f.Interference, f.Runs, f.Hits = measure.InterferenceSuspected, 1, 1
			f.Controls = measure.Count{Runs: len(l.helper), Hits: len(l.helper)}
			f.NotExcluded = []measure.Why{measure.WhySingleSample}
			j.add(f)
			return
		}
	}
}

// singleGhost judges addresses given for a name that does not exist, to
// anybody else: what stood for the site outlives it.
func (j *judging) singleGhost(l *lookups) bool {
	var liars []*measure.Observation
	var lies []lie
	for _, o := range l.system {
		for _, a := range answers(o) {
			if !j.proven(a, l.name) {
				lies = append(lies, lie{addr: a})
				if !slices.Contains(liars, o) {
					liars = append(liars, o)
				}
			}
		}
	}
	if len(liars) == 0 {
		return false
	}
	j.markForged(l.name, lies, nil, nil)
	f := j.nameFinding(measure.DNSResolverLie, l, append(slices.Clone(liars), l.truth()...))
	f.Interference, f.Runs, f.Hits = measure.InterferenceSuspected, len(l.system), len(liars)
	f.NotExcluded = []measure.Why{measure.WhySingleSample, measure.WhyLocalNetwork}
	j.add(f)
	return true
}

// twice says whether a question over UDP was answered more than once.
func twice(o *measure.Observation) bool { return o.DNS.Transport == "udp" && len(o.DNS.Replies) > 1 }

// singleLies judges the answers of one name's resolvers next to those that
// nobody on the path can have made.
func (j *judging) singleLies(l *lookups, helper []*measure.Observation) {
	genuine := answersOf(helper)
	proven := slices.ContainsFunc(genuine, func(a netip.Addr) bool { return j.proven(a, l.name) })
	var liars, denied []*measure.Observation
	var lies []lie
	clean, ownClean := false, false // by anybody asked in the clear; by the system's resolver
	deniedOwn := false
	for _, o := range l.system {
		addrs := answers(o)
		if o.Failure != measure.NoFailure && len(addrs) == 0 {
			if own := o.DNS.Transport == "system"; own && !deniedOwn {
				denied, deniedOwn = append([]*measure.Observation{o}, denied...), true
			} else {
				denied = append(denied, o)
			}
		}
		for _, a := range addrs {
			x, ok := j.weighAddr(a, l, genuine, false)
			if !ok && proven {
				// Seen once, another's certificate is a suspicion.
				x, ok = j.weighAddr(a, l, genuine, true)
				x.sure = false
			}
			if ok {
				lies = append(lies, x)
				if !slices.Contains(liars, o) {
					liars = append(liars, o)
				}
			} else {
				clean = true
				ownClean = ownClean || o.DNS.Transport == "system"
			}
		}
	}
	switch {
	case len(lies) > 0:
		j.markForged(l.name, lies, nil, nil)
		f := j.nameFinding(measure.DNSResolverLie, l, append(slices.Clone(liars), helper...))
		f.Interference, f.Runs, f.Hits = measure.InterferenceSuspected, len(l.system), len(liars)
		f.NotExcluded = []measure.Why{measure.WhySingleSample}
		if slices.ContainsFunc(liars, twice) {
			f.Method = measure.DNSInjection
		}
		for _, x := range lies {
			if x.match != nil && f.Match == nil {
				f.Match = x.match
			}
			if x.sure {
				f.Interference, f.Proof = measure.InterferenceConfirmed, "artefact+helper"
			}
		}
		f.Scope, f.NotExcluded = resolverScope(lies, liars, f.NotExcluded)
		j.add(f)
	case len(denied) > 0 && (!clean || deniedOwn && !ownClean):
		method := measure.DNSError
		switch denied[0].Failure {
		case measure.DNSNXDomain, measure.DNSNoAnswer:
			method = measure.DNSNXDomainLie
		case measure.GenericTimeout:
			method = measure.DNSDrop
		case measure.AndroidDNSCacheNoData:
			// What getaddrinfo says there for "no such name" and for "no
			// answer" alike.
			method = measure.DNSNXDomainLie
		}
		if slices.ContainsFunc(denied, twice) {
			method = measure.DNSInjection
		}
		f := j.nameFinding(method, l, append(slices.Clone(denied), helper...))
		f.Interference, f.Runs, f.Hits = measure.InterferenceSuspected, len(l.system), len(denied)
		f.NotExcluded = []measure.Why{measure.WhySingleSample, measure.WhyLocalNetwork}
		j.add(f)
	}
}
