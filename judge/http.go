package judge

import (
	"math/bits"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"govah/known"
	"govah/measure"
)

// near is how many of the 64 bits of a simhash two versions of one page may
// differ in; unlikeBits from how many on two pages are not the same one.
const (
	near       = 10
	unlikeBits = 20
)

// matchesOf are the signatures that an answer carries: those recorded, or
// those that today's rows find in the body that was kept.
func (j *judging) matchesOf(o *measure.Observation) []measure.Match {
	if o == nil || o.HTTP == nil {
		return nil
	}
	if list, ok := j.matched[o]; ok {
		return list
	}
	var body []byte
	if j.bodies != nil && o.HTTP.BodySHA256 != "" {
		body, _ = j.bodies(o.HTTP.BodySHA256)
	}
	list := slices.Clone(o.HTTP.Matches)
	for _, m := range known.MatchHTTP(o.HTTP, body) {
		if !slices.ContainsFunc(list, func(x measure.Match) bool { return x.Row == m.Row }) {
			list = append(list, m)
		}
	}
	j.matched[o] = list
	return list
}

// product is what the answers say that wrote them; nil if they do not.
func (j *judging) product(answers ...*measure.Observation) *measure.Match {
	for _, o := range answers {
		list := j.matchesOf(o)
		if i := slices.IndexFunc(list, func(m measure.Match) bool { return m.Kind == "product" }); i >= 0 {
			return &list[i]
		}
	}
	return nil
}

// blockpage is the surest match that occurs in a filter's answer only.
func blockpage(list []measure.Match) *measure.Match {
	var best *measure.Match
	top := 0
	for i := range list {
		if list[i].Kind != "blockpage" {
			continue
		}
		confidence := 5
		if row, ok := known.SignatureOf(list[i].Row); ok {
			confidence = row.Confidence
		}
		if best == nil || confidence > top {
			best, top = &list[i], confidence
		}
	}
	return best
}

// sure says whether a match is good enough to be an artefact.
func sure(m *measure.Match) bool {
	row, ok := known.SignatureOf(m.Row)
	return ok && row.Confidence >= 7
}

func authority(location string) string {
	u, err := url.Parse(location)
	if err != nil {
		return ""
	}
	return canonical(u.Hostname())
}

func distance(a, b *measure.HTTP) (int, bool) {
	x, ex := strconv.ParseUint(a.Simhash, 16, 64)
	y, ey := strconv.ParseUint(b.Simhash, 16, 64)
	if ex != nil || ey != nil {
		return 0, false
	}
	return bits.OnesCount64(x ^ y), true
}

// unlike says whether two answers are too different for one page.
func unlike(a, b *measure.HTTP) bool {
	if a.Status/100 != b.Status/100 {
		return true
	}
	if a.BodySHA256 == b.BodySHA256 {
		return false
	}
	d, ok := distance(a, b)
	return ok && d > unlikeBits
}

// twin says whether an authenticated answer for the same name, or the one that
// a helper got, is the same page: then the site itself says so, whatever it
// resembles.
func (j *judging) twin(t *measure.Observation) bool {
	if t.HTTP == nil || t.HTTP.Authenticated || t.HTTP.Status >= 300 && t.HTTP.Status < 400 {
		return false
	}
	for _, o := range j.obs {
		if o.Step == measure.StepHTTP && o.HTTP != nil && o.HTTP.Authenticated && o.Failure == measure.NoFailure && nameOf(o) == nameOf(t) && onePage(t.HTTP, o.HTTP) {
			return true
		}
	}
	for _, o := range j.helperFetched(t) {
		if onePage(t.HTTP, o.HTTP) {
			return true
		}
	}
	return false
}

// onePage says whether two answers are one page, the same or nearly.
func onePage(a, b *measure.HTTP) bool {
	if a.Status != b.Status {
		return false
	}
	d, ok := distance(a, b)
	return a.BodySHA256 != "" && a.BodySHA256 == b.BodySHA256 || ok && d <= near
}

// destination is where a redirect leads: "self" is the Host asked for.
func destination(o *measure.Observation) string {
	if a := authority(o.HTTP.Location); a != nameOf(o) || a == "" {
		return a
	}
	return "self"
}

// reacted says whether two plain answers at an unrelated server differ in a
// way that a name strange to it should not cause.
func (j *judging) reacted(t, c *measure.Observation) bool {
	if (t.Failure == measure.NoFailure) != (c.Failure == measure.NoFailure) {
		return true
	}
	if t.HTTP == nil || c.HTTP == nil || t.Failure != measure.NoFailure {
		return false
	}
	if j.twin(t) {
		return false // the site has a second home there
	}
	return j.artefact(t, c) != nil || !j.byHost(c) && differ(t, c)
}

// byHost says that a proxy answers in the place of an unrelated server c, and
// goes by the Host whatever the address: another name that is not at home
// there, and is blocked nowhere, was answered otherwise than one that does not
// exist.
func (j *judging) byHost(c *measure.Observation) bool {
	return slices.ContainsFunc(j.obs, func(k *measure.Observation) bool {
		if k.Experiment != measure.ExpHostElsewhere || k.Role != measure.RoleControl || k.ControlKind != measure.ControlKnown || family(k) != family(c) || !plainAnswer(k) {
			return false
		}
		for _, random := range j.obs {
			if random.Experiment == measure.ExpHostElsewhere && random.ControlKind == measure.ControlRandom && random.Remote == k.Remote && random.Pair == k.Pair && plainAnswer(random) {
				return differ(k, random)
			}
		}
		return false
	})
}

// differ says that two plain answers are of another status or destination, or
// too unlike for one page.
func differ(t, c *measure.Observation) bool {
	return t.HTTP.Status != c.HTTP.Status || destination(t) != destination(c) || unlike(t.HTTP, c.HTTP)
}

// artefact is the block page that t carries and c does not.
func (j *judging) artefact(t, c *measure.Observation) *measure.Match {
	m := blockpage(j.matchesOf(t))
	if m == nil || c == nil || c.HTTP == nil || blockpage(j.matchesOf(c)) != nil || j.twin(t) {
		return nil
	}
	return m
}

func plainAnswer(c *measure.Observation) bool {
	return c.Step == measure.StepHTTP && c.Failure == measure.NoFailure && c.HTTP != nil
}

// requests judges plain HTTP: what becomes of a request because of its Host
// or its path.
func (j *judging) requests() {
	step := measure.StepHTTP
	byName := func(t *measure.Observation) string { return nameOf(t) }
	own := j.ask(question{exp: measure.ExpHost, step: step, passed: plainAnswer, key: byName,
		hit: func(t, c *measure.Observation) bool { return t.Failure != measure.NoFailure || j.artefact(t, c) != nil }})
	far := j.ask(question{exp: measure.ExpHostElsewhere, step: step, passed: plainAnswer, hit: j.reacted, key: byName})
	url := j.ask(question{exp: measure.ExpURL, step: step, passed: plainAnswer, key: func(t *measure.Observation) string { return t.URL },
		hit: func(t, c *measure.Observation) bool { return t.Failure != measure.NoFailure || j.artefact(t, c) != nil }})

	type key struct {
		f    measure.Family
		name string
	}
	reported := map[key]bool{}
	for _, s := range far {
		if s.hits == 0 {
			continue
		}
		f, ok := j.hostFinding(s, "host", s.key)
		if !ok {
			continue
		}
		if p, ok := j.byPath(s); ok {
			f.Trigger = measure.Trigger{Kind: "url", Value: p.t.URL, Control: p.c.URL}
			f.Because = append(f.Because, ids(p.t, p.c)...)
		}
		if o := seriesOf(own, s.family, s.key); o != nil {
			f.Because = append(f.Because, o.because()...)
		}
		reported[key{s.family, s.key}] = true
		j.add(f)
	}
	for _, s := range own {
		if s.hits == 0 || reported[key{s.family, s.key}] {
			continue
		}
		if f, ok := j.hostFinding(s, "host", s.key); ok {
			reported[key{s.family, s.key}] = true
			j.add(f)
		}
	}
	for _, s := range url {
		p, hit := s.first()
		if !hit || reported[key{s.family, nameOf(p.t)}] {
			continue
		}
		if f, ok := j.hostFinding(s, "url", s.key); ok {
			f.Trigger.Control = p.c.URL
			reported[key{s.family, nameOf(p.t)}] = true
			j.add(f)
		}
	}
	j.pages(func(f measure.Family, name string) bool { return reported[key{f, name}] })
	j.fixedBodies()
	j.proxies()
	j.refusals()
}

// byPath finds out whether what happens to a name happens to one path alone:
// in at least two pairs another path of the same name was answered, and not
// with what the tested one drew at an unrelated server.
func (j *judging) byPath(far *series) (pair, bool) {
	first, ok := far.first()
	if !ok {
		return pair{}, false
	}
	spared := 0
	var found pair
	for _, t := range j.obs {
		if t.Experiment != measure.ExpURL || t.Role != measure.RoleTest || t.Step != measure.StepHTTP || nameOf(t) != far.key || family(t) != far.family {
			continue
		}
		c := j.byID[t.Control]
		if c == nil || !plainAnswer(c) {
			continue
		}
		if first.t.Failure == measure.NoFailure && samePage(first.t, c) {
			continue
		}
		spared++
		found = pair{t: t, c: c, hit: true}
	}
	return found, spared >= 2
}

// samePage says whether two plain answers are one forged page.
func samePage(a, b *measure.Observation) bool {
	return a.HTTP != nil && b.HTTP != nil && a.HTTP.Status == b.HTTP.Status && authority(a.HTTP.Location) == authority(b.HTTP.Location) &&
		(a.HTTP.BodySHA256 == b.HTTP.BodySHA256 || a.HTTP.Method == "HEAD" || b.HTTP.Method == "HEAD")
}

// hostFinding makes a finding of the pairs about a Host or a path.
func (j *judging) hostFinding(s *series, trigger, value string) (measure.Finding, bool) {
	p, ok := s.first()
	if !ok || j.disputedEverywhere(s) {
		return measure.Finding{}, false
	}
	elsewhere := p.t.Experiment == measure.ExpHostElsewhere
	f := measure.Finding{Interference: measure.InterferenceSuspected, Layer: measure.StepHTTP, Family: s.family,
		Trigger: measure.Trigger{Kind: trigger, Value: value, Control: nameOf(p.c)}, Runs: s.runs, Hits: s.hits, Controls: s.controls, Because: s.because()}
	silence, reset, content, alike := 0, 0, 0, 0
	prints := map[string]map[string]bool{}
	for _, x := range s.pairs {
		if !x.hit {
			continue
		}
		if m := j.artefact(x.t, x.c); m != nil && f.Match == nil {
			f.Match = m
			p = x
		}
		switch {
		case x.t.Failure == measure.NoFailure:
			content++
			print := authority(x.t.HTTP.Location) + " " + strconv.Itoa(x.t.HTTP.Status) + " " + x.t.HTTP.Title
			if prints[print] == nil {
				prints[print] = map[string]bool{}
			}
			prints[print][x.t.Remote] = true
			alike = max(alike, len(prints[print]))
		case how(x.t) == "silence":
			silence++
		default:
			reset++
		}
	}
	switch most := max(silence, reset, content); {
	case f.Match != nil || content == most:
		f.Method = measure.HTTPBlockPage
		if h := p.t.HTTP; h != nil && h.Status >= 300 && h.Status < 400 && h.Location != "" && authority(h.Location) != nameOf(p.t) {
			f.Method = measure.HTTPRedirect
		}
	case silence == most:
		f.Method = measure.HTTPDrop
	default:
		f.Method = measure.HTTPReset
	}
	if f.Match != nil {
		f.Scope = f.Match.Scope
	}
	helped := j.helperFetched(p.t)
	switch {
	case f.Match != nil && sure(f.Match):
		f.Interference, f.Proof = measure.InterferenceConfirmed, "artefact"
		if elsewhere {
			f.Proof = "artefact+elsewhere"
		}
	case elsewhere && content == 0 && s.sound && s.hits >= 3,
		// One and the same page at servers that have nothing in common.
		elsewhere && content > 0 && s.sound && s.hits >= 3 && alike >= 2:
		f.Interference, f.Proof = measure.InterferenceConfirmed, "pairs+elsewhere"
	case !elsewhere && content == 0 && s.sound && len(helped) > 0:
		f.Interference, f.Proof = measure.InterferenceConfirmed, "pairs+helper"
		f.Because = append(f.Because, ids(helped...)...)
	default:
		f.NotExcluded = append(f.NotExcluded, measure.WhyServerRefuses)
		if !s.sound {
			f.NotExcluded = append(f.NotExcluded, measure.WhyFewPairs)
		}
		if len(helped) == 0 && !elsewhere {
			f.NotExcluded = append(f.NotExcluded, measure.WhyNoHelper)
		}
	}
	if s.hits < s.runs {
		f.NotExcluded = append(f.NotExcluded, measure.WhyIntermittent)
	}
	return f, true
}

// disputedEverywhere says that all hits were at addresses that a lie gave.
func (j *judging) disputedEverywhere(s *series) bool {
	for _, p := range s.pairs {
		if p.hit && !j.disputed(address(p.t)) {
			return false
		}
	}
	return true
}

// helperFetched are a helper's genuine answers for the URL of o.
func (j *judging) helperFetched(o *measure.Observation) []*measure.Observation {
	var out []*measure.Observation
	for _, h := range j.obs {
		if h.Role == measure.RoleHelper && h.Step == measure.StepHTTP && h.Failure == measure.NoFailure && h.HTTP != nil && h.HTTP.Status > 0 &&
			nameOf(h) == nameOf(o) && blockpage(j.matchesOf(h)) == nil {
			out = append(out, h)
		}
	}
	return out
}

// pages judges plain answers of the screening: a block page outside
// authenticated TLS confirms by itself if its control carries none.
func (j *judging) pages(reported func(measure.Family, string) bool) {
	done := map[string]bool{}
	for _, t := range j.obs {
		if t.Step != measure.StepHTTP || t.Role != measure.RoleTest || t.Failure != measure.NoFailure || t.HTTP == nil || t.HTTP.Authenticated ||
			!screened(t) || t.Experiment == measure.ExpPlain {
			continue
		}
		name := nameOf(t)
		if !j.targets[name] || done[string(family(t))+name] || reported(family(t), name) {
			continue
		}
		if strings.HasPrefix(t.URL, "https:") || j.disputed(address(t)) && j.liedAbout(name) {
			continue
		}
		if j.twin(t) {
			continue
		}
		m := blockpage(j.matchesOf(t))
		c := j.byID[t.Control]
		if c != nil && (c.Role != measure.RoleControl || c.HTTP == nil || c.Failure != measure.NoFailure) {
			c = nil
		}
		if m == nil && t.Experiment != measure.ExpHostElsewhere {
			continue
		}
		f := measure.Finding{Method: measure.HTTPBlockPage, Interference: measure.InterferenceSuspected, Layer: measure.StepHTTP, Family: family(t),
			Trigger: measure.Trigger{Kind: "host", Value: name}, Runs: 1, Hits: 1, Match: m, Because: ids(t, c)}
		if t.HTTP.Status >= 300 && t.HTTP.Status < 400 && authority(t.HTTP.Location) != name && t.HTTP.Location != "" {
			f.Method = measure.HTTPRedirect
		}
		if c != nil {
			f.Controls.Runs = 1
		}
		switch {
		case m == nil && (c == nil || !j.reacted(t, c) || j.steady(name, family(t))):
			continue
		case m == nil:
			f.Trigger.Control = nameOf(c)
			f.NotExcluded = []measure.Why{measure.WhySingleSample}
		case c == nil || !sure(m):
			f.NotExcluded = []measure.Why{measure.WhyNoControl}
		case blockpage(j.matchesOf(c)) != nil:
			f.NotExcluded = []measure.Why{measure.WhyServerRefuses}
		case t.Experiment == measure.ExpHostElsewhere || t.Experiment == measure.ExpHost:
			f.Interference, f.Proof, f.Trigger.Control = measure.InterferenceConfirmed, "artefact+elsewhere", nameOf(c)
		case t.Experiment == measure.ExpHTTPS && c.HTTP.Authenticated && unlike(t.HTTP, c.HTTP):
			f.Interference, f.Proof = measure.InterferenceConfirmed, "artefact+https"
		default:
			f.NotExcluded = []measure.Why{measure.WhyNoControl}
		}
		if m != nil {
			f.Scope = m.Scope
			if m.Scope == measure.ScopeUnknown || m.Scope == "" {
				f.NotExcluded = append(f.NotExcluded, measure.WhyLocalNetwork)
			}
		}
		if f.Interference != measure.InterferenceConfirmed && t.Experiment != measure.ExpHostElsewhere && j.pageElsewhere(name, family(t)) {
			continue // the same page came where it can be told for sure
		}
		done[string(family(t))+name] = true
		j.add(f)
	}
}

// steady says that pairs about the name at unrelated servers showed nothing.
func (j *judging) steady(name string, f measure.Family) bool {
	n := 0
	for _, t := range j.obs {
		if t.Experiment != measure.ExpHostElsewhere || t.Role != measure.RoleTest || t.Stage != measure.StageConfirm || nameOf(t) != name || family(t) != f {
			continue
		}
		if c := j.byID[t.Control]; c != nil && plainAnswer(c) {
			if j.reacted(t, c) {
				return false
			}
			n++
		}
	}
	return n > 0
}

func (j *judging) pageElsewhere(name string, f measure.Family) bool {
	for _, t := range j.obs {
		if t.Experiment == measure.ExpHostElsewhere && t.Role == measure.RoleTest && nameOf(t) == name && family(t) == f && j.artefact(t, j.byID[t.Control]) != nil {
			return true
		}
	}
	return false
}

func (j *judging) liedAbout(name string) bool { return len(j.forged[name]) > 0 }

// plainHeaders are those that a helper's fixed page has of its own, or that a
// server in front of it may add.
var plainHeaders = []string{"Accept-Ranges", "Age", "Alt-Svc", "Cache-Control", "Connection", "Content-Length", "Content-Type", "Date", "ETag",
	"Keep-Alive", "Last-Modified", "Server", "Strict-Transport-Security", "Transfer-Encoding", "Vary", "X-Content-Type-Options"}

// addedOnTheWay says whether a header of a helper's fixed page t was added on
// the way to here: the site's own page came with the very same one, and not
// when the helper fetched it. It gives both pages.
func (j *judging) addedOnTheWay(t *measure.Observation, h measure.Header) (page, seen *measure.Observation) {
	if slices.ContainsFunc(plainHeaders, func(name string) bool { return strings.EqualFold(h.Name, name) }) {
		return nil, nil
	}
	has := func(o *measure.Observation, value bool) bool {
		return slices.ContainsFunc(o.HTTP.Headers, func(x measure.Header) bool {
			return strings.EqualFold(x.Name, h.Name) && (!value || x.Value == h.Value)
		})
	}
	for _, o := range j.obs {
		if o.Step != measure.StepHTTP || o.HTTP == nil || o.HTTP.Status == 0 || nameOf(o) != nameOf(t) || inTLS(o) || o.Experiment == measure.ExpPlain {
			continue
		}
		switch {
		case o.Role == measure.RoleHelper && has(o, false):
			return nil, nil
		case o.Role == measure.RoleHelper && len(o.HTTP.Headers) > 0:
			seen = o
		case o.Role == measure.RoleTest && o.Helper == "" && has(o, true):
			page = o
		}
	}
	if page == nil || seen == nil {
		return nil, nil
	}
	return page, seen
}

// fixedBodies judges a helper's known body that came back changed.
func (j *judging) fixedBodies() {
	var changed []*measure.Observation
	var added []string // what shows that a header was
	runs := 0
	for _, t := range j.obs {
		var proxied []string // what shows a proxy
		proof := "plain"
		if t.Experiment != measure.ExpPlain || t.Role != measure.RoleTest || t.Step != measure.StepHTTP || t.Failure != measure.NoFailure || t.HTTP == nil {
			continue
		}
		runs++
		switch {
		case t.HTTP.BodySHA256 == measure.HelperPlainSHA256:
			for _, h := range t.HTTP.Headers {
				if strings.EqualFold(h.Name, "Via") && len(proxied) == 0 {
					proxied = ids(t) // the helper adds no such header
				}
				page, seen := j.addedOnTheWay(t, h)
				row, ok := known.HeaderOf(h.Name)
				switch {
				case page == nil:
				case ok && row.Kind == "proxy": // by which it says that it is one
					proxied, proof = grounds(proxied, ids(t, page, seen)), "plain+helper"
				case len(added) == 0:
					added = ids(t, page, seen)
				}
			}
		case t.HTTP.Status == 200 && !t.HTTP.BodyTruncated && t.HTTP.BodySHA256 != "", blockpage(j.matchesOf(t)) != nil,
			t.HTTP.Status >= 300 && t.HTTP.Status < 400:
			changed = append(changed, t)
			continue
		default:
			continue
		}
		if len(proxied) > 0 {
			j.add(measure.Finding{Method: measure.HTTPProxy, Interference: measure.InterferenceConfirmed, Layer: measure.StepHTTP, Family: family(t),
				Trigger: measure.Trigger{Kind: "port", Value: "80"}, Runs: 1, Hits: 1, Because: proxied, Proof: proof, Match: j.product(t), NotExcluded: []measure.Why{measure.WhyLocalNetwork}})
		}
	}
	if len(changed) == 0 {
		if len(added) > 0 {
			t := j.byID[added[0]]
			j.add(measure.Finding{Method: measure.HTTPTamper, Interference: measure.InterferenceConfirmed, Layer: measure.StepHTTP, Family: family(t),
				Trigger: measure.Trigger{Kind: "host", Value: nameOf(t)}, Runs: runs, Hits: 1, Because: added, Proof: "plain+helper",
				NotExcluded: []measure.Why{measure.WhyLocalNetwork}})
		}
		return
	}
	t := changed[0]
	if j.found(measure.StepHTTP, family(t), nameOf(t)) {
		return
	}
	f := measure.Finding{Method: measure.HTTPTamper, Interference: measure.InterferenceConfirmed, Layer: measure.StepHTTP, Family: family(t),
		Trigger: measure.Trigger{Kind: "host", Value: nameOf(t)}, Runs: runs, Hits: len(changed), Because: ids(changed...), Proof: "plain",
		NotExcluded: []measure.Why{measure.WhyLocalNetwork}}
	if m := blockpage(j.matchesOf(t)); m != nil {
		f.Method, f.Match, f.Proof, f.Scope = measure.HTTPBlockPage, m, "artefact+plain", m.Scope
	} else if t.HTTP.Status >= 300 && t.HTTP.Status < 400 {
		f.Method = measure.HTTPRedirect
	}
	j.add(f)
}

// proxies judges how near a port's connection ends: lower than another port
// of the same address means that something else answers for it.
func (j *judging) proxies() {
	if j.scheme == "ssh" || isMail(j.scheme) {
		return // it is part of what hostKeys and mail weigh
	}
	type side struct {
		ttl int
		obs *measure.Observation
	}
	lowest := map[netip.Addr]map[measure.Role]side{}
	for _, o := range j.obs {
		if o.Experiment != measure.ExpProxyTTL || o.Path == nil || o.Path.Outcome != "connected" && o.Path.Outcome != "reset" || o.TTL <= 0 {
			continue
		}
		a := address(o)
		if lowest[a] == nil {
			lowest[a] = map[measure.Role]side{}
		}
		if s, ok := lowest[a][o.Role]; !ok || o.TTL < s.ttl {
			lowest[a][o.Role] = side{o.TTL, o}
		}
	}
	var list []netip.Addr
	for a := range lowest {
		list = append(list, a)
	}
	slices.SortFunc(list, netip.Addr.Compare)
	for _, a := range list {
		t, okT := lowest[a][measure.RoleTest]
		c, okC := lowest[a][measure.RoleControl]
		if !okT || !okC || c.ttl-t.ttl < 2 {
			continue
		}
		f := measure.Finding{Method: measure.TCPProxy, Interference: measure.InterferenceSuspected, Layer: measure.StepTCP, Family: family(t.obs),
			Trigger: measure.Trigger{Kind: "port", Value: t.obs.Remote, Control: c.obs.Remote}, Runs: 1, Hits: 1, Controls: measure.Count{Runs: 1},
			Because: ids(t.obs, c.obs), NotExcluded: []measure.Why{measure.WhyServerBroken}}
		if ap, _ := remote(t.obs); ap.Port() == 80 {
			f.Method, f.Layer = measure.HTTPProxy, measure.StepHTTP
		}
		if at := slices.IndexFunc(j.findings, func(x measure.Finding) bool {
			return x.Method == f.Method && x.Family == f.Family && x.Interference == measure.InterferenceConfirmed && x.Trigger.Kind == "port"
		}); at >= 0 {
			f.Trigger.Value = j.findings[at].Trigger.Value
			j.merge(f) // a sign more of the same
			continue
		}
		j.add(f)
	}
}

// refusals finds authenticated answers in which the server itself refuses.
func (j *judging) refusals() {
	done := map[measure.Family]bool{}
	for _, o := range j.obs {
		if o.Step != measure.StepHTTP || o.Role != measure.RoleTest || o.Failure != measure.NoFailure || o.HTTP == nil || !o.HTTP.Authenticated ||
			!screened(o) || !j.targets[nameOf(o)] || done[family(o)] || !j.refuses(o) {
			continue
		}
		done[family(o)] = true
		f := measure.Finding{Method: measure.ServerRefusal, Interference: measure.InterferenceConfirmed, Layer: measure.StepHTTP, Family: family(o),
			Scope: measure.ScopeBeyond, Trigger: measure.Trigger{Kind: "client", Value: ""}, Runs: 1, Hits: 1, Because: ids(o), Proof: "authenticated"}
		for _, m := range j.matchesOf(o) {
			if m.Kind == "captcha" || m.Kind == "geoblock" {
				f.Match = &m
				break
			}
		}
		j.add(f)
	}
}

// refuses says whether an answer is a refusal: forbidden (403), for legal
// reasons (451, RFC 7725), a wall against robots or against countries.
func (j *judging) refuses(o *measure.Observation) bool {
	if o.HTTP.Status == 403 || o.HTTP.Status == 451 {
		return true
	}
	for _, m := range j.matchesOf(o) {
		if m.Kind == "captcha" && o.HTTP.Status >= 400 || m.Kind == "geoblock" {
			return true
		}
	}
	return false
}
