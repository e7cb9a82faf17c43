package judge

import (
	"net/netip"
	"slices"
	"strings"

	"govah/measure"
)

// healed says whether the same step went well later: a failure that does not
// come back was the network's own.
func (j *judging) healed(o *measure.Observation) bool {
	name := nameOf(o)
	for _, t := range j.obs {
		if t.StartUS <= o.StartUS || t.Role != measure.RoleTest || t.Step != o.Step || t == o || t.TTL != 0 {
			continue
		}
		ok := t.Failure == measure.NoFailure
		switch o.Step {
		case measure.StepTCP:
			ok = ok && t.Remote == o.Remote
		case measure.StepTLS:
			ok = completed(t) && t.Remote == o.Remote && nameOf(t) == name && t.Experiment != measure.ExpHello
		default:
			ok = ok && nameOf(t) == name && family(t) == family(o) && (t.Remote == o.Remote || o.Remote == "") && inTLS(t) == inTLS(o) && t.Experiment != measure.ExpPlain
		}
		if ok {
			return true
		}
	}
	return false
}

func inTLS(o *measure.Observation) bool { return strings.HasPrefix(o.URL, "https:") }

// screening judges the failures that no experiment has explained: what was
// seen once is a suspicion at most.
func (j *judging) screening() {
	for _, o := range j.obs {
		if o.Role != measure.RoleTest || !screened(o) || o.Failure == measure.NoFailure || ours(o) || j.innocent[o.ID] ||
			o.Step == measure.StepDNS || o.Step == measure.StepPath || o.Step == measure.StepMail || o.Experiment == measure.ExpPlain || o.Experiment == measure.ExpHostElsewhere {
			continue
		}
		a := address(o)
		name := nameOf(o)
		if name == "" {
			name = j.nameAt(a)
		}
		if name == "" || !j.targets[name] || j.disputed(a) || j.healed(o) || j.aside(o, name) {
			continue
		}
		if j.reported(o, name, a) {
			continue
		}
		j.unexplained(o, name)
	}
}

// aside says that o was at an address that only other resolvers gave, while
// the system's own address of the family worked.
func (j *judging) aside(o *measure.Observation, name string) bool {
	a := address(o)
	if j.fromSystem(name, a) {
		return false
	}
	for _, t := range j.obs {
		if t.Role == measure.RoleTest && t.Step == o.Step && t.Failure == measure.NoFailure && family(t) == family(o) &&
			screened(t) && j.fromSystem(name, address(t)) {
			return true
		}
	}
	return false
}

// fromSystem says whether the system's resolver gave a for the name; a name
// that nobody was asked for counts.
func (j *judging) fromSystem(name string, a netip.Addr) bool {
	if n, err := netip.ParseAddr(name); err == nil {
		return n.Unmap() == a
	}
	asked := false
	for _, o := range j.obs {
		if o.DNS == nil || o.Role != measure.RoleTest || o.DNS.NoResolver || canonical(o.DNS.Name) != name || !screened(o) && o.Experiment != measure.ExpQName {
			continue
		}
		asked = true
		if slices.Contains(answers(o), a) {
			return true
		}
	}
	return !asked
}

// reported says whether some finding already covers a failed step.
func (j *judging) reported(o *measure.Observation, name string, a netip.Addr) bool {
	for i := range j.findings {
		f := &j.findings[i]
		if f.Family != "" && family(o) != "" && f.Family != family(o) {
			continue
		}
		if slices.Contains(f.Because, o.ID) {
			return true
		}
		same := f.Layer == o.Step || f.Layer == measure.StepStream && o.Step == measure.StepHTTP || f.Method == measure.SiteDown
		if !same {
			continue
		}
		switch f.Trigger.Value {
		case "", name, o.URL, o.Remote, a.String():
			return true
		}
	}
	return false
}

func (j *judging) unexplained(o *measure.Observation, name string) {
	helpers := j.helpers(name)
	if j.reportDown(name, o.Step, []*measure.Observation{o}) {
		return
	}
	if j.disturbed(o) {
		j.why[measure.WhyNoCanary] = true
		return
	}
	if j.private() {
		j.why[measure.WhyLocalNetwork] = true
		return
	}
	up := false
	for _, l := range helpers {
		up = up || l.answered || o.Step == measure.StepTCP && l.connected || o.Step == measure.StepTLS && l.shook
	}
	f := measure.Finding{Interference: measure.InterferenceSuspected, Layer: o.Step, Family: family(o),
		Trigger: measure.Trigger{Kind: "address", Value: name}, Runs: 1, Hits: 1, Because: ids(o), NotExcluded: []measure.Why{measure.WhySingleSample}}
	f.Method = methodOf(o)
	switch o.Step {
	case measure.StepTCP:
		f.Trigger.Value = address(o).String()
	case measure.StepSSH:
		f.Trigger = measure.Trigger{Kind: "protocol", Value: "ssh"}
	}
	runs, passed := j.controlsAt(o)
	switch o.Step {
	case measure.StepQUIC:
		// That a server says it speaks HTTP/3 does not make it so.
		return
	case measure.StepTLS, measure.StepHTTP:
		alone := runs > 0 && passed == 0
		if (alone || how(o) == "alert" || how(o) == "other") && !up {
			// Other names fare no better there, or the server said no: that
			// is what a server with a fault of its own looks like.
			j.why[measure.WhySiteDown] = true
			j.why[measure.WhyServerRefuses] = true
			if len(helpers) == 0 {
				j.why[measure.WhyNoHelper] = true
			}
			return
		}
	}
	if runs > 0 {
		f.NotExcluded = []measure.Why{measure.WhyIntermittent}
	}
	if !up {
		f.NotExcluded = append(f.NotExcluded, measure.WhySiteDown)
		if len(helpers) == 0 {
			f.NotExcluded = append(f.NotExcluded, measure.WhyNoHelper)
		}
	}
	f.NotExcluded = append(f.NotExcluded, measure.WhyServerRefuses)
	j.add(f)
}

// controlsAt counts the controls that ran at the place of a failed step.
func (j *judging) controlsAt(o *measure.Observation) (runs, passed int) {
	for _, c := range j.obs {
		if c.Role != measure.RoleControl || c.Step != o.Step || c.Remote != o.Remote || ours(c) || c.Stage != measure.StageConfirm {
			continue
		}
		switch c.Experiment {
		case measure.ExpSNI, measure.ExpHost:
			runs++
			if drew(c) || c.Failure == measure.NoFailure {
				passed++
			}
		}
	}
	return runs, passed
}

// methodOf names a failed step's mechanism, if it is one.
func methodOf(o *measure.Observation) measure.Method {
	k := how(o)
	switch o.Step {
	case measure.StepTCP:
		return addressMethod(o)
	case measure.StepTLS:
		switch k {
		case "silence":
			return measure.TLSDrop
		case "alert":
			return measure.TLSAlert
		}
		return measure.TLSReset
	case measure.StepHTTP:
		if inTLS(o) {
			return afterHandshake(&series{pairs: []pair{{t: o, hit: true}}})
		}
		if k == "silence" {
			return measure.HTTPDrop
		}
		return measure.HTTPReset
	case measure.StepQUIC:
		return measure.QUICDrop
	case measure.StepSSH:
		return measure.ProtocolFilter
	}
	return measure.DNSError
}

// surroundings weighs what the place of the measurement means for all of it.
func (j *judging) surroundings() {
	v := &j.m.Vantage
	if v.Captive {
		kept := j.findings[:0]
		for _, f := range j.findings {
			// Until somebody has logged in, everything is the portal's.
			if f.Method.Benign() {
				kept = append(kept, f)
			}
		}
		j.findings = kept
		j.why[measure.WhyCaptive] = true
		j.add(measure.Finding{Method: measure.CaptivePortal, Interference: measure.InterferenceConfirmed, Layer: measure.StepHTTP,
			Scope: measure.ScopeLAN, Trigger: measure.Trigger{Kind: "client"}, Runs: 1, Hits: 1, Proof: "portal"})
	}
	if v.Tunnel || v.Proxy {
		j.why[measure.WhyTunnel] = true
		for i := range j.findings {
			if !slices.Contains(j.findings[i].NotExcluded, measure.WhyTunnel) {
				j.findings[i].NotExcluded = append(j.findings[i].NotExcluded, measure.WhyTunnel)
			}
		}
	}
	if !j.m.Complete && j.m.Imported == "" {
		j.why[measure.WhyInterrupted] = true
	}
	if j.scheme == "tcp" && len(j.helpers(j.host)) == 0 && !slices.ContainsFunc(j.obs, func(o *measure.Observation) bool { return o.Experiment == measure.ExpFirstBytes }) {
		// That a connection opens does not show what becomes of its bytes.
		j.why[undecided], j.why[measure.WhyNoHelper] = true, true
	}
	for _, f := range []measure.Family{measure.IPv4, measure.IPv6} {
		failures, runs := j.canaryCounts(measure.StepTCP, f)
		if runs == 0 || failures < runs {
			continue
		}
		// Nothing of this family works here: no failure of it means a thing.
		n := len(j.findings)
		j.findings = slices.DeleteFunc(j.findings, func(x measure.Finding) bool {
			return x.Family == f && x.Interference != measure.InterferenceConfirmed && !x.Method.Benign()
		})
		if len(j.findings) < n {
			j.why[measure.WhyNoCanary] = true
		}
	}
}

// reach says whether genuine content came.
func (j *judging) reach() measure.Reachable {
	reached, failed := map[measure.Family]bool{}, map[measure.Family]bool{}
	trusted := map[string]bool{j.host: true}
	for range 16 {
		if !j.follow(trusted, reached) {
			break
		}
	}
	for _, o := range j.obs {
		if o.Role != measure.RoleTest || !screened(o) || o.Failure == measure.NoFailure || ours(o) || o.Step == measure.StepQUIC || o.Step == measure.StepPath ||
			o.Experiment == measure.ExpPlain || o.Experiment == measure.ExpHostElsewhere {
			continue
		}
		name := nameOf(o)
		if name == "" {
			name = j.nameAt(address(o))
		}
		if !trusted[name] || name == "" || o.Step != measure.StepDNS && (j.healed(o) || j.aside(o, name)) {
			continue
		}
		if completed(o) && o.Step == measure.StepTLS || o.Step == measure.StepMail && (shook(o) || o.Experiment != measure.ExpMail) {
			continue // the certificate's matter, or a greeter's
		}
		if j.m.Imported != "" && o.Step == measure.StepTCP && j.absent(family(o)) {
			continue
		}
		failed[family(o)] = true
	}
	if j.lied(j.host) {
		failed[""] = true
	}
	refused := false
	for i := range j.findings {
		f := &j.findings[i]
		switch {
		case f.Method == measure.ServerRefusal:
			refused = true
		case f.Method == measure.QUICDrop && len(reached) > 0:
			failed[f.Family+"/quic"] = true
		case f.Layer == measure.StepHTTP && !f.Method.Benign() && f.Method != measure.HTTPProxy && f.Interference == measure.InterferenceConfirmed && j.scheme == "http":
			failed[f.Family] = true
		}
	}
	if len(reached) > 0 {
		for f := range failed {
			if f != "" && !reached[f] {
				return measure.ReachablePartly
			}
		}
		return measure.ReachableYes
	}
	switch {
	case refused:
		return measure.ReachableNo
	case j.m.Vantage.Captive:
		return measure.ReachableUnknown
	case len(failed) > 0:
		return measure.ReachableNo
	}
	return measure.ReachableUnknown
}

// lied says whether the name's own resolver was proven not to tell the truth:
// then only the addresses that it gave count as what the user reaches.
func (j *judging) lied(name string) bool {
	for i := range j.findings {
		f := &j.findings[i]
		if f.Layer == measure.StepDNS && f.Interference == measure.InterferenceConfirmed && f.Method != measure.DNSInterception && f.Trigger.Value == name {
			return true
		}
	}
	return false
}

// follow marks what was reached from the names trusted so far and adds those
// that genuine redirects lead to. It says whether there were new ones.
func (j *judging) follow(trusted map[string]bool, reached map[measure.Family]bool) (more bool) {
	for _, o := range j.obs {
		if o.Role != measure.RoleTest || o.Stage == measure.StagePreflight || o.Failure != measure.NoFailure {
			continue
		}
		name := nameOf(o)
		switch j.scheme {
		case "tcp":
			ap, ok := remote(o)
			if o.Step == measure.StepTCP && ok && int(ap.Port()) == j.port && j.owner[ap.Addr()][j.host] && !j.disputed(ap.Addr()) && o.TTL == 0 && j.counts(j.host, ap.Addr()) {
				reached[family(o)] = true
			}
			continue
		case "smtp", "smtps", "imap", "imaps", "pop3", "pop3s":
			// Spoken with is reached; whether it is safe there is another matter.
			ap, ok := remote(o)
			if o.Step == measure.StepMail && o.Experiment == measure.ExpMail && o.Mail != nil && o.Mail.Greeting != "" && !o.Mail.Away && ok && int(ap.Port()) == j.port &&
				j.owner[ap.Addr()][j.host] && !j.disputed(ap.Addr()) && j.counts(j.host, ap.Addr()) {
				reached[family(o)] = true
			}
			continue
		case "ssh":
			if o.Step == measure.StepSSH && StateOfKey(o) == KeyGenuine && j.owner[address(o)][j.host] && !j.disputed(address(o)) && j.counts(j.host, address(o)) {
				reached[family(o)] = true
			}
			continue
		case "tls":
			if name == "" {
				name = j.nameAt(address(o))
			}
			if o.Step == measure.StepTLS && name == j.host && verified(o.TLS) && o.TTL == 0 && j.owner[address(o)][j.host] && j.counts(j.host, address(o)) {
				reached[family(o)] = true
			}
			continue
		}
		if o.Step != measure.StepHTTP || o.HTTP == nil || !trusted[name] || !screened(o) && o.Experiment != measure.ExpSNI ||
			o.Experiment == measure.ExpPlain || o.Experiment == measure.ExpHostElsewhere || !j.counts(name, address(o)) {
			continue
		}
		if !o.HTTP.Authenticated && (inTLS(o) || j.disputed(address(o)) || j.contradicted(name, family(o), o)) {
			continue
		}
		if o.HTTP.Authenticated && j.refuses(o) {
			continue
		}
		next := ""
		if o.HTTP.Status >= 300 && o.HTTP.Status < 400 && o.HTTP.Location != "" {
			if next = authority(o.HTTP.Location); next == "" {
				next = name // relative
			}
		}
		if next != "" && (next != name || inTLS(o) != strings.HasPrefix(o.HTTP.Location, "https:")) {
			if j.visited(next, o) {
				if !trusted[next] {
					trusted[next] = true
					more = true
				}
				continue
			}
		}
		reached[family(o)] = true
	}
	return more
}

// counts says whether what is at an address counts as reached by this user.
func (j *judging) counts(name string, a netip.Addr) bool {
	return !j.lied(name) || !a.IsValid() || j.fromSystem(name, a)
}

// visited says whether anything was tried about a name after o.
func (j *judging) visited(name string, o *measure.Observation) bool {
	for _, t := range j.obs {
		if t.Role != measure.RoleTest || t == o || t.StartUS < o.StartUS || !screened(t) || t.Experiment == measure.ExpHostElsewhere {
			continue
		}
		switch t.Step {
		case measure.StepDNS:
			// It got no further than its name.
			if t.Failure != measure.NoFailure && nameOf(t) == name && !j.resolved(name) {
				return true
			}
		case measure.StepTCP:
			if t.Failure != measure.NoFailure && name != nameOf(o) && j.owner[address(t)][name] {
				return true
			}
		default:
			if nameOf(t) == name {
				return true
			}
		}
	}
	return false
}

// resolved says whether any question of this device about the name succeeded.
func (j *judging) resolved(name string) bool {
	return slices.ContainsFunc(j.obs, func(o *measure.Observation) bool {
		return o.Role == measure.RoleTest && o.Step == measure.StepDNS && nameOf(o) == name && o.Failure == measure.NoFailure && len(answers(o)) > 0
	})
}

// contradicted says whether some evidence speaks against a plain answer.
func (j *judging) contradicted(name string, f measure.Family, o *measure.Observation) bool {
	for i := range j.findings {
		x := &j.findings[i]
		if x.Layer == measure.StepHTTP && !x.Method.Benign() && x.Method != measure.HTTPProxy && (x.Family == f || x.Family == "") && (x.Trigger.Value == name || x.Trigger.Value == o.URL) {
			return true
		}
		// The same forged page over the other family, seen in passing.
		if x.Layer == measure.StepHTTP && x.Interference == measure.InterferenceConfirmed && !x.Method.Benign() && (x.Trigger.Value == name || x.Trigger.Value == o.URL) {
			for _, id := range x.Because {
				if t := j.byID[id]; t != nil && t != o && t.Role == measure.RoleTest && t.Failure == measure.NoFailure && samePage(t, o) {
					return true
				}
			}
		}
	}
	if c := j.byID[o.Control]; o.Experiment == measure.ExpHTTPS && c != nil && c.HTTP != nil && c.Failure == measure.NoFailure && c.HTTP.Authenticated &&
		unlike(o.HTTP, c.HTTP) && !j.steady(name, f) {
		j.why[measure.WhyDynamicContent] = true
		return true
	}
	return false
}

// absence says what is missing where nothing was reached and nothing found.
func (j *judging) absence(r measure.Reachable) {
	if r == measure.ReachableYes {
		// What was noted on the way came to nothing.
		if !j.why[undecided] {
			for _, w := range []measure.Why{measure.WhySiteDown, measure.WhyNoHelper, measure.WhyServerRefuses, measure.WhyDynamicContent} {
				delete(j.why, w)
			}
		}
		return
	}
	runs, failures := 0, 0
	for _, c := range j.m.Canaries {
		if c.Step != measure.StepQUIC && c.Runs > 0 {
			runs += c.Runs
			failures += c.Failures
		}
	}
	if runs >= 3 && failures >= runs && r != measure.ReachablePartly {
		j.why[measure.WhyNoCanary] = true
		if !slices.ContainsFunc(j.findings, func(f measure.Finding) bool { return f.Interference == measure.InterferenceConfirmed }) {
			j.findings = slices.DeleteFunc(j.findings, func(f measure.Finding) bool { return !f.Method.Benign() })
			j.add(measure.Finding{Method: measure.Shutdown, Interference: measure.InterferenceSuspected, Layer: measure.StepTCP, Trigger: measure.Trigger{Kind: "protocol", Value: "ip"},
				Runs: runs, Hits: failures, NotExcluded: []measure.Why{measure.WhyNoCanary, measure.WhyLocalNetwork}})
		}
		return
	}
	if len(j.findings) > 0 || len(j.why) > 0 {
		return
	}
	if runs == 0 && j.m.Imported == "" {
		j.why[measure.WhyNoCanary] = true
	}
	j.why[measure.WhySingleSample] = true
}
