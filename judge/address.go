package judge

import (
	"net/netip"
	"net/url"
	"sort"
	"strconv"
	"strings"

	"govah/known"
	"govah/measure"
)

// disputed says whether a is an address that a lie gave for a target's name
// and that belongs to none of the others.
func (j *judging) disputed(a netip.Addr) bool {
	lied := false
	for name, set := range j.forged {
		if set[a] && !j.proven(a, name) {
			lied = true
		}
	}
	return lied
}

// nameAt is the target's name that an address belongs to.
func (j *judging) nameAt(a netip.Addr) string {
	if j.owner[a][j.host] {
		return j.host
	}
	var list []string
	for n := range j.owner[a] {
		list = append(list, n)
	}
	sort.Strings(list)
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// look is what one helper saw of a name.
type look struct {
	helper  string
	network string
	seen    bool
	// resolved, connected, shook and answered say how far it came with any
	// address; tried says what it tried at all.
	resolved, connected, shook, answered bool
	triedTCP, triedTLS, triedHTTP        bool
	refused                              bool // by every address
	ids                                  []string
}

// helpers sums up each helper's look at a name, in the order of their URLs.
func (j *judging) helpers(name string) []look {
	byURL := map[string]*look{}
	var urls []string
	for _, o := range j.obs {
		if o.Role != measure.RoleHelper || o.Helper == "" || o.Step == measure.StepHelper {
			continue
		}
		if n := nameOf(o); n != "" && n != name {
			continue
		} else if n == "" && !j.owner[address(o)][name] {
			continue
		}
		l := byURL[o.Helper]
		if l == nil {
			l = &look{helper: o.Helper, network: j.helperNetwork(o.Helper), refused: true}
			byURL[o.Helper] = l
			urls = append(urls, o.Helper)
		}
		l.seen = true
		l.ids = append(l.ids, o.ID)
		ok := o.Failure == measure.NoFailure
		switch o.Step {
		case measure.StepDNS:
			l.resolved = l.resolved || len(answers(o)) > 0
		case measure.StepTCP:
			// An address that is a lie is nobody's evidence.
			if j.disputed(address(o)) {
				continue
			}
			l.triedTCP = true
			l.connected = l.connected || ok
			l.refused = l.refused && o.Failure == measure.ConnectionRefused
		case measure.StepTLS:
			if j.disputed(address(o)) {
				continue
			}
			l.triedTLS = true
			l.shook = l.shook || completed(o)
		case measure.StepHTTP:
			l.triedHTTP = true
			l.answered = l.answered || ok && o.HTTP != nil && o.HTTP.Status > 0 && o.HTTP.Status < 500
		}
	}
	sort.Strings(urls)
	out := make([]look, 0, len(urls))
	for _, u := range urls {
		out = append(out, *byURL[u])
	}
	return out
}

// helperNetwork tells helpers apart by the AS that they stand in, else by
// their host.
func (j *judging) helperNetwork(helper string) string {
	host := helper
	if u, err := url.Parse(helper); err == nil && u.Hostname() != "" {
		host = u.Hostname()
	}
	for _, o := range j.obs {
		if o.Step == measure.StepHelper && o.Helper == helper && o.ASN != 0 {
			return "as" + strconv.Itoa(o.ASN)
		}
	}
	return host
}

// down says whether a helper failed at a layer or before it.
func (l look) down(layer measure.Step) bool {
	if !l.seen {
		return false
	}
	switch {
	case l.answered:
		return false
	case !l.triedTCP:
		return !l.resolved
	case !l.connected:
		return true
	case layer == measure.StepTCP:
		return false
	case l.triedTLS && !l.shook:
		return true
	case layer == measure.StepTLS:
		return false
	}
	return l.triedHTTP && !l.answered
}

// siteDown says how many helpers found the name's site down at a layer, in
// how many networks, and how many found it up.
func (j *judging) siteDown(name string, layer measure.Step) (down, networks, up int, because []string) {
	seen := map[string]bool{}
	for _, l := range j.helpers(name) {
		switch {
		case l.down(layer):
			down++
			seen[l.network] = true
			because = append(because, l.ids...)
		case l.connected || l.answered:
			up++
		}
	}
	return down, len(seen), up, because
}

// reportDown adds a site-down finding for a name if helpers found it so and
// none found it up. It says whether it did.
func (j *judging) reportDown(name string, layer measure.Step, failed []*measure.Observation) bool {
	down, networks, up, because := j.siteDown(name, layer)
	if down > 0 && up > 0 {
		j.why[measure.WhyHelperDisagrees] = true
	}
	if down == 0 || up > 0 {
		return false
	}
	for i := range j.findings {
		if j.findings[i].Method == measure.SiteDown && j.findings[i].Trigger.Value == name {
			return true
		}
	}
	f := measure.Finding{Method: measure.SiteDown, Interference: measure.InterferenceSuspected, Layer: layer,
		Trigger: measure.Trigger{Kind: "address", Value: name}, Runs: len(failed), Hits: len(failed),
		Controls: measure.Count{Runs: down, Hits: down}, Because: append(ids(failed...), because...)}
	if networks >= 2 {
		f.Interference, f.Proof = measure.InterferenceConfirmed, "helpers"
	} else {
		f.NotExcluded = []measure.Why{measure.WhySingleSample}
		j.why[measure.WhySiteDown] = true
	}
	j.add(f)
	return true
}

// reachedBy are the helper's observations that got through to this very
// address and port at a step.
func (j *judging) reachedBy(step measure.Step, at string, name string) []*measure.Observation {
	want, err := netip.ParseAddrPort(at)
	if err != nil {
		return nil
	}
	var out []*measure.Observation
	for _, o := range j.obs {
		if o.Role != measure.RoleHelper || o.Step != step {
			continue
		}
		got, ok := remote(o)
		if !ok || got != netip.AddrPortFrom(want.Addr().Unmap(), want.Port()) {
			continue
		}
		if name != "" && nameOf(o) != name {
			continue
		}
		if o.Failure == measure.NoFailure || step == measure.StepTLS && completed(o) && verified(o.TLS) {
			out = append(out, o)
		}
	}
	return out
}

// deniedTo says whether some helper could not connect to this very address and
// port, though its own network carries it.
func (j *judging) deniedTo(at string) bool {
	for _, o := range j.obs {
		if o.Role == measure.RoleHelper && o.Step == measure.StepTCP && o.Remote == at &&
			(o.Failure == measure.GenericTimeout || o.Failure == measure.ConnectionRefused || o.Failure == measure.ConnectionReset) {
			return true
		}
	}
	return false
}

// private says that the target is an address of nobody's public network: no
// helper can look there, and that nothing answers says nothing of the line.
func (j *judging) private() bool {
	a, err := netip.ParseAddr(strings.Trim(j.host, "[]"))
	if err != nil {
		return false
	}
	_, bogus := known.Bogon(a.Unmap())
	return bogus
}

// addresses judges connects that fail: to one address or port while the
// canaries connect.
func (j *judging) addresses() {
	list := j.ask(question{
		exp: measure.ExpAddress, step: measure.StepTCP,
		hit: func(t, _ *measure.Observation) bool { return t.Failure != measure.NoFailure },
		key: func(t *measure.Observation) string { return t.Remote },
	})
	for _, s := range list {
		at, err := netip.ParseAddrPort(s.key)
		if err != nil || j.disputed(at.Addr().Unmap()) || s.hits == 0 {
			continue
		}
		if j.private() {
			j.why[measure.WhyLocalNetwork] = true
			continue
		}
		p, _ := s.first()
		name := j.nameAt(at.Addr().Unmap())
		var failed []*measure.Observation
		for _, x := range s.pairs {
			if x.hit {
				failed = append(failed, x.t)
			}
		}
		if len(j.reachedBy(measure.StepTCP, s.key, "")) == 0 && j.reportDown(name, measure.StepTCP, failed) {
			continue
		}
		f := measure.Finding{Method: addressMethod(p.t), Interference: measure.InterferenceSuspected, Layer: measure.StepTCP, Family: s.family,
			Trigger: measure.Trigger{Kind: "address", Value: at.Addr().String()}, Runs: s.runs, Hits: s.hits, Controls: s.controls, Because: s.because()}
		if p.c != nil && p.c.ControlKind == measure.ControlPort && s.controls.Hits == 0 && s.controls.Runs > 0 {
			f.Trigger = measure.Trigger{Kind: "port", Value: s.key, Control: p.c.Remote}
		} else if failures, runs := j.canaryCounts(measure.StepTCP, s.family); runs > 0 {
			// The whole address is silent: its control are the other
			// addresses that were connected to all the while.
			f.Controls = measure.Count{Runs: runs, Hits: failures}
		}
		helped := j.reachedBy(measure.StepTCP, s.key, "")
		switch {
		case len(helped) > 0 && j.deniedTo(s.key):
			// A server that turns whole networks away looks like this too, and
			// so does a helper that does not tell the truth.
			f.NotExcluded = []measure.Why{measure.WhyServerRefuses, measure.WhyHelperDisagrees}
		case len(helped) > 0 && s.sound:
			f.Interference, f.Proof = measure.InterferenceConfirmed, "pairs+helper"
			f.Because = append(f.Because, ids(helped...)...)
		case len(helped) > 0:
			f.NotExcluded = []measure.Why{measure.WhyFewPairs}
		default:
			f.NotExcluded = []measure.Why{measure.WhySiteDown, measure.WhyServerRefuses}
			if len(j.helpers(name)) == 0 {
				f.NotExcluded = append(f.NotExcluded, measure.WhyNoHelper)
			}
		}
		if s.hits < s.runs {
			f.NotExcluded = append(f.NotExcluded, measure.WhyIntermittent)
		}
		j.add(f)
	}
}

// addressMethod names how a connect failed. Unreachable is what a router says.
func addressMethod(o *measure.Observation) measure.Method {
	switch how(o) {
	case "reset", "refused":
		return measure.IPReset
	case "unreachable":
		return measure.IPUnreachable
	}
	return measure.IPDrop
}
