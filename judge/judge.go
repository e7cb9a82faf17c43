// Package judge draws conclusions from observations. It is a pure function:
// it has no clock, no randomness and does no I/O, so the same measurement
// under the same rules gives the same bytes, whoever runs it and whenever.
//
// Its rules are those of docs/design/judging.md. In short: a finding is the
// result of an experiment, a pair in which the test failed and a control that
// differs in one thing passed, while canaries before and after showed that
// the network worked; or it is an artefact that nothing innocent leaves. What
// was seen once is a suspicion. Where neither holds, the verdict is unknown
// and says why.
package judge

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"

	"govah/measure"
)

// Rules is the version of the rules; it is part of every verdict.
const Rules = "2026.1"

// maxBecause bounds the observations that a finding names.
const maxBecause = 48

// Input is one measurement and the bodies and certificates kept with it.
type Input struct {
	Measurement *measure.Measurement
	// Bodies finds a body or certificate by its SHA-256 in hex; may be nil.
	Bodies func(sha256 string) ([]byte, bool)
}

// Judge says what follows from a measurement. It never fails: what cannot be
// read makes the verdict unknown.
func Judge(in Input) measure.Verdict {
	m := in.Measurement
	if m == nil {
		m = &measure.Measurement{}
	}
	j := newJudging(m, in.Bodies)
	v := measure.Verdict{
		Type: "verdict", Schema: 1, Run: m.Run, Measurement: m.ID, Rules: Rules, Target: m.Target,
		ElapsedMS: m.ElapsedMS, BytesSent: m.BytesSent, BytesReceived: m.BytesReceived,
	}
	switch {
	case m.Imported != "":
		j.single()
	case m.Target == measure.LineTarget:
		j.line()
	default:
		j.names()
		j.addresses()
		j.handshakes()
		j.certificates()
		j.requests()
		j.datagrams()
		j.hostKeys()
		j.transfers()
		j.mail()
		j.screening()
	}
	j.surroundings()
	if m.Target == measure.LineTarget {
		v.Reachable = j.reachesAnything()
	} else {
		v.Reachable = j.reach()
		j.absence(v.Reachable)
	}
	v.Findings = j.sorted()
	v.Interference = j.interference(v.Reachable)
	v.Unknown = j.reasons(v.Interference)
	return v
}

// judging is one measurement being judged.
type judging struct {
	m      *measure.Measurement
	bodies func(string) ([]byte, bool)
	obs    []*measure.Observation // in the order of time
	byID   map[string]*measure.Observation
	scheme string
	host   string
	port   int

	targets  map[string]bool                // the target's name and those it redirected to
	owner    map[netip.Addr]map[string]bool // which of those an address was given for
	canaries []*measure.Observation
	findings []measure.Finding
	why      map[measure.Why]bool
	// forged are the addresses that a lie about a name gave.
	forged map[string]map[netip.Addr]bool
	// innocent are failed observations that something harmless explains.
	innocent map[string]bool
	// matched are the signatures found so far: reading bodies costs most.
	matched map[*measure.Observation][]measure.Match
}

func newJudging(m *measure.Measurement, bodies func(string) ([]byte, bool)) *judging {
	j := &judging{
		m: m, bodies: bodies,
		byID:    map[string]*measure.Observation{},
		targets: map[string]bool{}, owner: map[netip.Addr]map[string]bool{},
		why: map[measure.Why]bool{}, forged: map[string]map[netip.Addr]bool{}, innocent: map[string]bool{},
		matched: map[*measure.Observation][]measure.Match{},
	}
	j.scheme, j.host, j.port = splitTarget(m.Target)
	j.obs = make([]*measure.Observation, len(m.Observations))
	for i := range m.Observations {
		j.obs[i] = &m.Observations[i]
	}
	sort.SliceStable(j.obs, func(a, b int) bool { return earlier(j.obs[a], j.obs[b]) })
	for _, o := range j.obs {
		if _, twice := j.byID[o.ID]; !twice {
			j.byID[o.ID] = o
		}
		if o.Role == measure.RoleCanary {
			j.canaries = append(j.canaries, o)
		}
	}
	j.targets[j.host] = true
	for _, o := range j.obs {
		if o.Step == measure.StepDNS && o.DNS != nil && o.Role == measure.RoleTest && o.Experiment == measure.ExpResolver && screened(o) {
			j.targets[canonical(o.DNS.Name)] = true
		}
	}
	if a, err := netip.ParseAddr(j.host); err == nil {
		j.owns(a, j.host)
	}
	for _, o := range j.obs {
		if o.DNS == nil || o.Role == measure.RoleCanary || o.Role == measure.RoleControl && o.Experiment != measure.ExpResolver {
			continue
		}
		if name := canonical(o.DNS.Name); j.targets[name] {
			for _, a := range answers(o) {
				j.owns(a, name)
			}
		}
	}
	return j
}

func (j *judging) owns(a netip.Addr, name string) {
	a = a.Unmap()
	if j.owner[a] == nil {
		j.owner[a] = map[string]bool{}
	}
	j.owner[a][name] = true
}

// earlier is a total order of observations, so that the order in the file
// changes nothing.
func earlier(a, b *measure.Observation) bool {
	if a.StartUS != b.StartUS {
		return a.StartUS < b.StartUS
	}
	if c := compareIDs(a.ID, b.ID); c != 0 {
		return c < 0
	}
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Compare(x, y) < 0
}

// compareIDs orders o2 before o12.
func compareIDs(a, b string) int {
	if len(a) != len(b) {
		if len(a) < len(b) {
			return -1
		}
		return 1
	}
	return strings.Compare(a, b)
}

func splitTarget(target string) (scheme, host string, port int) {
	u, err := url.Parse(target)
	if err != nil {
		return "", "", 0
	}
	port, _ = strconv.Atoi(u.Port())
	if port == 0 {
		switch u.Scheme {
		case "http":
			port = 80
		case "https", "tls":
			port = 443
		case "ssh":
			port = 22
		}
	}
	return u.Scheme, canonical(u.Hostname()), port
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// screened says whether o belongs to the cheap pass or to its repetition in
// isolation.
func screened(o *measure.Observation) bool {
	return (o.Stage == measure.StageScreen || o.Stage == measure.StageIsolate || o.Stage == "") && o.Experiment != measure.ExpResidual
}

// remote is the address and port that o went to.
func remote(o *measure.Observation) (netip.AddrPort, bool) {
	ap, err := netip.ParseAddrPort(o.Remote)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}

func address(o *measure.Observation) netip.Addr {
	ap, _ := remote(o)
	return ap.Addr()
}

// family is o's own or that of its remote address.
func family(o *measure.Observation) measure.Family {
	if o.Family != "" {
		return o.Family
	}
	a := address(o)
	switch {
	case !a.IsValid():
		return ""
	case a.Is4():
		return measure.IPv4
	}
	return measure.IPv6
}

// nameOf is the name that a step was about: the question's, the SNI's or the
// request's. A connect has none.
func nameOf(o *measure.Observation) string {
	switch o.Step {
	case measure.StepDNS:
		if o.DNS != nil {
			return canonical(o.DNS.Name)
		}
	case measure.StepTLS:
		return canonical(o.SNI)
	case measure.StepMail:
		return canonical(o.Host)
	case measure.StepHTTP, measure.StepQUIC, measure.StepStream:
		if o.URL != "" {
			if u, err := url.Parse(o.URL); err == nil && u.Hostname() != "" {
				return canonical(u.Hostname())
			}
		}
		if o.SNI != "" {
			return canonical(o.SNI)
		}
		return canonical(hostOnly(o.Host))
	}
	return ""
}

func hostOnly(hostport string) string {
	if u, err := url.Parse("//" + hostport); err == nil {
		return u.Hostname()
	}
	return hostport
}

// sni is the name in the ClientHello below a request: o's own, or that of the
// handshake that it followed.
func (j *judging) sni(o *measure.Observation) string {
	for range 4 {
		if o == nil {
			return ""
		}
		if o.SNI != "" {
			return canonical(o.SNI)
		}
		o = j.byID[o.After]
	}
	return ""
}

func ended(o *measure.Observation) int64 { return o.StartUS + max(o.TookUS, 0) }

func ids(list ...*measure.Observation) []string {
	var out []string
	for _, o := range list {
		if o != nil && o.ID != "" && !slices.Contains(out, o.ID) {
			out = append(out, o.ID)
		}
	}
	return out
}

// add puts a finding on the list, completed with what every finding has.
func (j *judging) add(f measure.Finding) {
	f.Because = grounds(f.Because)
	if f.Scope == "" {
		f.Scope = measure.ScopeUnknown
	}
	open := []measure.Why{}
	for _, w := range f.NotExcluded {
		weak := w == measure.WhySingleSample || w == measure.WhyFewPairs
		known := w == measure.WhyLocalNetwork && local(&f) // it is the finding itself
		if !slices.Contains(open, w) && !known && !(weak && f.Interference == measure.InterferenceConfirmed) {
			open = append(open, w)
		}
	}
	f.NotExcluded = open
	if f.Interference != measure.InterferenceConfirmed {
		f.Proof = ""
	}
	j.findings = append(j.findings, f)
}

// grounds are the ids that a finding names: each once, no more than maxBecause.
func grounds(lists ...[]string) []string {
	out := []string{}
	for _, list := range lists {
		for _, id := range list {
			if len(out) < maxBecause && !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	return out
}

// merge adds a finding, or what it rests on to one of the same method, family
// and value, which it may confirm and show to be of the local network.
func (j *judging) merge(f measure.Finding) {
	at := slices.IndexFunc(j.findings, func(x measure.Finding) bool {
		return x.Method == f.Method && x.Family == f.Family && x.Trigger.Value == f.Trigger.Value
	})
	if at < 0 {
		j.add(f)
		return
	}
	x := j.findings[at]
	if x.Because = grounds(x.Because, f.Because); x.Match == nil || f.Match != nil && f.Match.Kind == "product" {
		x.Match = f.Match
	}
	// No house knows the subscriber's number.
	if !local(&x) && local(&f) && !slices.Contains(strings.Split(x.Proof, "+"), "tracked") {
		x.Scope = f.Scope
	}
	if f.Interference == measure.InterferenceConfirmed {
		x.Interference = f.Interference
		proofs := []string{}
		for p := range strings.SplitSeq(strings.Trim(x.Proof+"+"+f.Proof, "+"), "+") {
			if !slices.Contains(proofs, p) {
				proofs = append(proofs, p)
			}
		}
		x.Proof = strings.Join(proofs, "+")
	}
	j.findings = slices.Delete(j.findings, at, at+1)
	j.add(x) // completed anew: a confirmed one has no weak reasons
}

// found says whether there is a finding about the layer, of the family (or of
// any) and the value (or of none).
func (j *judging) found(layer measure.Step, f measure.Family, value string) bool {
	for i := range j.findings {
		x := &j.findings[i]
		if x.Layer == layer && (x.Family == f || x.Family == "" || f == "") &&
			(x.Trigger.Value == value || x.Trigger.Value == "" || value == "") {
			return true
		}
	}
	return false
}

// sorted puts the findings into their order and numbers them.
func (j *judging) sorted() []measure.Finding {
	layers := []measure.Step{measure.StepDNS, measure.StepTCP, measure.StepTLS, measure.StepHTTP, measure.StepQUIC, measure.StepMail, measure.StepSSH, measure.StepStream, measure.StepPath}
	slices.SortStableFunc(j.findings, func(a, b measure.Finding) int {
		if x, y := degree(a), degree(b); x != y {
			return x - y
		}
		if x, y := slices.Index(layers, a.Layer), slices.Index(layers, b.Layer); x != y {
			return x - y
		}
		for _, c := range []int{
			strings.Compare(string(a.Family), string(b.Family)), strings.Compare(string(a.Method), string(b.Method)),
			strings.Compare(a.Trigger.Kind, b.Trigger.Kind), strings.Compare(a.Trigger.Value, b.Trigger.Value),
		} {
			if c != 0 {
				return c
			}
		}
		return 0
	})
	for i := range j.findings {
		j.findings[i].ID = "f" + strconv.Itoa(i+1)
	}
	if j.findings == nil {
		return []measure.Finding{}
	}
	return j.findings
}

// degree orders findings by weight: confirmed interference first.
func degree(f measure.Finding) int {
	switch confirmed := f.Interference == measure.InterferenceConfirmed; {
	case confirmed && !f.Method.Benign():
		return 0
	case confirmed:
		return 1
	case !f.Method.Benign():
		return 2
	}
	return 3
}

// interference is the verdict's, by the worst finding that is no innocent
// explanation. None needs more than the absence of findings.
func (j *judging) interference(r measure.Reachable) measure.Interference {
	suspected, excused := false, false
	for i := range j.findings {
		f := &j.findings[i]
		if j.m.Target == measure.LineTarget && local(f) && !f.Method.Benign() {
			continue // of this house, and no accusation of the line
		}
		switch confirmed := f.Interference == measure.InterferenceConfirmed; {
		case confirmed && !f.Method.Benign():
			return measure.InterferenceConfirmed
		case !f.Method.Benign():
			suspected = true
		case confirmed && (f.Method == measure.SiteDown || f.Method == measure.ServerRefusal):
			excused = true
		}
	}
	switch {
	case suspected:
		return measure.InterferenceSuspected
	case j.why[undecided]:
		return measure.InterferenceUnknown
	case r == measure.ReachableYes, excused, j.why[serverSeenBroken]:
		return measure.InterferenceNone
	case r == measure.ReachablePartly && len(j.why) == 0:
		return measure.InterferenceNone
	}
	return measure.InterferenceUnknown
}

// undecided is a private mark: something failed again and again that only a
// second vantage point could explain.
const undecided measure.Why = "undecided"

// serverSeenBroken is a private mark: a helper saw the very certificate that
// does not verify. It becomes WhyServerBroken in the verdict.
const serverSeenBroken measure.Why = "server-seen-broken"

// reasons are the keys that say why the verdict is not firmer.
func (j *judging) reasons(i measure.Interference) []measure.Why {
	set := map[measure.Why]bool{}
	for w := range j.why {
		switch w {
		case undecided:
			continue
		case serverSeenBroken:
			w = measure.WhyServerBroken
		}
		if i == measure.InterferenceConfirmed && w != measure.WhyTunnel && w != measure.WhyInterrupted && w != measure.WhyCaptive {
			continue
		}
		set[w] = true
	}
	if i == measure.InterferenceSuspected {
		for _, f := range j.findings {
			if f.Interference == measure.InterferenceSuspected && !f.Method.Benign() {
				for _, w := range f.NotExcluded {
					set[w] = true
				}
			}
		}
	}
	var out []measure.Why
	for w := range set {
		out = append(out, w)
	}
	slices.Sort(out)
	return out
}
