package locate

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"govah/measure"
	"govah/wire"
)

// Rules is the version of the rules by which Infer concludes.
const Rules = "2026.1"

// The rates that nobody can measure on one path, per sending. They are guesses
// on the side of caution; docs/design/locate.md says how conclusions fare.
const (
	// missed is how often a device lets a trigger pass that it should have
	// reacted to, beyond what the path loses.
	missed = 0.03
	// stray is how often something comes that nobody explains: a reset of
	// the server's own, a router's late word.
	stray = 0.001
	// early is how often something answers in the server's place from nearer
	// than the server, a harmless probe with the same TTL having met a router.
	early = 0.00001
	// tired is how often a server turns a client away after a dozen
	// connections that were broken off.
	tired = 0.02
	// longer is how often the way of another flow is longer than this one's.
	longer = 0.02
	// least and most bound the share of probes that a router answers.
	least, most = 0.02, 0.97
)

// credible is the probability that a credible set holds, claim the probability
// that there is a device at all from which on one is named.
const (
	credible = 0.99
	claim    = 0.99
)

// Infer concludes from the observations of one measurement: one Location for
// each trigger that Run looked for, in their order. country may be nil.
func Infer(m *measure.Measurement, country func(netip.Addr) string) []measure.Location {
	var order []string
	groups := map[string][]*measure.Observation{}
	addresses := map[string]string{} // that they are about
	for i := range m.Observations {
		o := &m.Observations[i]
		if o.Stage != measure.StageLocate || o.Path == nil {
			continue
		}
		key := string(o.Family) + " " + o.Payload
		if o.Experiment == measure.ExpWayBack {
			key += wayBackKey
		}
		if o.Payload == "" { // SYNs that name routers or ask for residual blocking serve all
			continue
		}
		if groups[key] == nil {
			order = append(order, key)
			addresses[key] = addressOf(o)
		}
		groups[key] = append(groups[key], o)
	}
	if len(order) == 0 {
		// Not even a control was sent: the routers are all there is.
		for i := range m.Observations {
			if o := &m.Observations[i]; o.Stage == measure.StageLocate && o.Path != nil {
				key := string(o.Family) + " "
				order = []string{key}
				break
			}
		}
	}
	var out []measure.Location
	for _, key := range order {
		list := groups[key]
		family, _, _ := strings.Cut(key, " ")
		back := strings.HasSuffix(key, wayBackKey)
		for i := range m.Observations {
			o := &m.Observations[i]
			if o.Stage == measure.StageLocate && o.Path != nil && o.Payload == "" && string(o.Family) == family && !back && !ofAnother(o, key, addresses) {
				list = append(list, o)
			}
		}
		slices.SortStableFunc(list, func(a, b *measure.Observation) int { return cmp.Compare(a.StartUS, b.StartUS) })
		var l measure.Location
		if back {
			l = backLocation(list)
		} else {
			l = infer(list)
			l.ToHelper = l.ToHelper || slices.ContainsFunc(m.Observations, func(o measure.Observation) bool {
				return o.Stage == measure.StageLocate && o.Step == measure.StepHelper && o.Experiment != measure.ExpWayBack
			})
			if toldBack(m, &l) {
				l.Unknown = slices.DeleteFunc(l.Unknown, func(w measure.Why) bool { return w == measure.WhyWayBack })
			}
		}
		l.Type, l.Schema, l.Run, l.Measurement, l.Rules, l.Target = "location", 1, m.Run, m.ID, Rules, m.Target
		if country != nil {
			abroad(&l, country)
		}
		if l.Payload == string(Connect) && len(order) > 1 && l.Outcome == measure.NoDifference {
			continue // it was asked for the others' sake
		}
		if l.ByAnswers { // so it is not out of sight
			for i := range out {
				if o := &out[i]; o.Family == l.Family {
					o.Unknown = slices.DeleteFunc(o.Unknown, func(w measure.Why) bool { return w == measure.WhyWayBack })
				}
			}
		}
		out = append(out, l)
	}
	return out
}

func addressOf(o *measure.Observation) string {
	ap, err := netip.ParseAddrPort(o.Remote)
	if err != nil {
		return ""
	}
	return ap.Addr().String()
}

// ofAnother says that a SYN is of the way to an address that another group than
// that of a key is about.
func ofAnother(o *measure.Observation, key string, addresses map[string]string) bool {
	at := addressOf(o)
	if at == addresses[key] {
		return false
	}
	for other, a := range addresses {
		if a == at && other != key {
			return true
		}
	}
	return false
}

// abroad adds the countries of the routers.
func abroad(l *measure.Location, country func(netip.Addr) string) {
	of := func(s string) string {
		if a, err := netip.ParseAddr(s); err == nil {
			return country(a)
		}
		return ""
	}
	if ap, err := netip.ParseAddrPort(l.Remote); err == nil {
		l.RemoteCountry = country(ap.Addr())
	}
	for i := range l.Set {
		l.Set[i].FromCountry, l.Set[i].ToCountry = of(l.Set[i].From), of(l.Set[i].To)
	}
	for i := range l.Hops {
		for j := range l.Hops[i].Routers {
			l.Hops[i].Routers[j].Country = of(l.Hops[i].Routers[j].Address)
		}
	}
}

// evidence is what one search saw, in numbers.
type evidence struct {
	tests   []*measure.Observation // of the trigger, TTL by TTL
	server  int                    // the lowest TTL that reached the server, 0 unknown
	far     int                    // the highest TTL at which anything answered
	answers map[int]hop            // how routers answer harmless probes
	loss    float64                // of a probe or its answer
	// cut is the highest TTL of the tests after which no connection could be
	// made any more, 0 if they could; refused says that they were reset.
	cut     int
	refused bool
	// passes says whether harmless SYNs still got past the device's place
	// after a trigger, asked that it was tried.
	passes, asked bool
	// mute says that the server does not answer the control either.
	mute bool
	// nearer are probes to another port of the server that routers ended where
	// the tested port was answered.
	nearer []*measure.Observation
	beside []*measure.Observation // those that were answered
	// ttls are SYNs whose answers had to arrive with a TTL, connected is the
	// lowest TTL with which a connection was made, 0 unknown.
	ttls      []*measure.Observation
	connected int
	// died are, by our port, SYNs that routers ended, each the farthest.
	died map[int]*measure.Observation
	// proof is the harmless probe of which a helper said that it arrived,
	// sightings are the triggers of which it told.
	proof     *measure.Observation
	sightings []*measure.Observation
	quotes    []*measure.Observation // harmless bytes
	ways      []*measure.Observation // of ExpWays
	foreign   bool                   // the control went to another network
	reacted   bool                   // a test was reacted to, or swallowed
	flow      int                    // the port of the tested flow
	arrived   int                    // the TTL with which the server's own answers arrive, 0 unknown
}

func infer(list []*measure.Observation) measure.Location {
	e := gather(list)
	l := measure.Location{Residual: residual(list), ServerTTL: e.server, Position: measure.PositionUnknown}
	l.ResidualMS = lasted(list)
	describe(&l, list)
	l.Hops = hops(list, e)
	if l.Payload == string(Connect) && e.server > 0 {
		l.Outcome = measure.NoDifference
		switch {
		case e.endsNearer():
			e.terminator(&l)
		case !e.nearby(&l):
			l.Unknown = e.balanced()
		}
		return l
	}
	if l.Payload == string(Mail) && e.endsNearer() {
		e.terminator(&l)
		return l
	}
	if l.Payload == string(Mail) && e.takesOver(&l) {
		return l
	}
	if l.Payload == string(Resolver) {
		e.whoAnswers(&l)
		return l
	}
	if len(e.tests) == 0 || e.far == 0 && e.server == 0 && !e.reacted {
		l.Outcome = measure.NoPath
		return l
	}
	p := posterior(e)
	if p.none > 1-claim && (e.redirects(&l) || e.alters(&l)) {
		return l
	}
	if p.none > 1-claim && e.endsNearer() {
		e.terminator(&l)
		return l
	}
	if p.none > 1-claim && (e.takesOver(&l) || e.nearby(&l)) {
		return l
	}
	if p.none > 1-claim {
		l.Outcome = measure.NoDifference
		switch {
		case e.cut > 0 && e.passes:
			l.Outcome, l.Unknown = measure.NotLocated, []measure.Why{measure.WhyServerRefuses}
		case p.none < 0.5:
			l.Outcome, l.Unknown = measure.NotLocated, []measure.Why{measure.WhyFewPairs}
		case e.server > 0 && !slices.ContainsFunc(e.tests, e.reaches):
			l.Outcome, l.Unknown = measure.NotLocated, []measure.Why{measure.WhyInterrupted}
		case l.Payload == string(Mail):
			l.Unknown = e.unseen()
		}
		if l.Outcome == measure.NoDifference {
			l.Unknown = append(l.Unknown, e.balanced()...)
		}
		return l
	}
	l.Kind, l.CopiesTTL = p.kind()
	l.Set = p.set(l.Hops)
	if ap, err := netip.ParseAddrPort(l.Remote); err == nil {
		for i := range l.Set {
			if s := &l.Set[i]; e.server > 0 && s.Low+1 == e.server && s.To == "" {
				s.To = ap.Addr().String()
			}
		}
	}
	l.Outcome = measure.Located
	if e.server > 0 && l.Set[0].Low+1 >= e.server {
		l.Outcome = measure.AtEnd
	}
	if l.Set[0].PerMille < 500 && len(l.Set) > 4 {
		l.Outcome = measure.NotLocated
	}
	w := e.witnessed()
	l.FarEnd, l.OnlyServer = w.word(), l.Kind == measure.Injects && e.onlyServer()
	l.Position = position(e, l, w)
	flows := map[int]bool{} // SYNs of one flow are one attempt
	for _, t := range e.tests {
		if r := t.Path.Outcome; cut(t) || otherHand(t, e.proof) || r != "expired" && r != "unconnected" && !(r == "answered" && e.server > 0 && (t.TTL == 0 || t.TTL >= e.server) && t.Path.MinTTL == 0) {
			if cut(t) || r != "silent" || t.Path.Sends >= sendings && !e.passed(t.TTL) {
				l.Because = append(l.Because, t.ID)
				if t.Path.Probe != "syn" || !flows[t.Path.LocalPort] {
					l.Triggers++
				}
				flows[t.Path.LocalPort] = true
			}
		}
	}
	for _, t := range e.sightings {
		if t.Experiment == measure.ExpFarEnd && e.actedOn(t) {
			l.Because = append(l.Because, t.ID)
			l.Triggers++
		}
	}
	return l
}

// passed says that a test was heard of from the router at a TTL.
func (e *evidence) passed(ttl int) bool {
	return slices.ContainsFunc(e.tests, func(t *measure.Observation) bool { return t.TTL == ttl && t.Path.Outcome == "expired" })
}

// describe copies what was looked for.
func describe(l *measure.Location, list []*measure.Observation) {
	for _, o := range list {
		if o.Experiment != measure.ExpResidual { // those have no limit
			l.Probes += max(1, o.Path.Sends)
		}
		if l.Remote == "" {
			l.Remote, l.Family = o.Remote, o.Family
		}
		// Who ends connections is asked before any command is sent.
		if o.Payload == string(Connect) || o.Payload == string(Mail) && o.Experiment == measure.ExpProxyTTL {
			l.Payload = o.Payload
			if ap, err := netip.ParseAddrPort(l.Remote); err == nil {
				l.Trigger = measure.Trigger{Kind: "port", Value: strconv.Itoa(int(ap.Port()))}
			}
		}
		if o.Payload == "" || o.Experiment != measure.ExpLocate {
			continue
		}
		l.RemoteASN = o.ASN
		if o.Payload == string(Resolver) {
			l.Payload, l.Trigger = o.Payload, measure.Trigger{Kind: "port", Value: "53"}
			continue
		}
		l.Payload, l.Family = o.Payload, o.Family
		if o.Mail != nil {
			starts, harmless := wire.MailCommands(o.Mail.Protocol)
			l.Remote, l.Trigger = o.Remote, measure.Trigger{Kind: "command", Value: starts, Control: harmless}
			continue
		}
		name := o.SNI + o.Host
		if o.DNS != nil {
			name = o.DNS.Name
		}
		switch {
		case o.Role == measure.RoleTest:
			l.Remote, l.Trigger.Value = o.Remote, name
			if len(o.Differs) > 0 {
				l.Trigger.Kind = o.Differs[0]
			}
			if o.Payload == string(TCP) {
				l.Trigger.Value = o.Remote
			}
		default:
			l.Trigger.Control = name
			if o.Payload == string(TCP) {
				l.Trigger.Control = o.Remote
			}
		}
	}
}

// gather sorts the observations and learns from the harmless ones how the path
// behaves by itself.
func gather(list []*measure.Observation) *evidence {
	e := &evidence{answers: map[int]hop{}, died: map[int]*measure.Observation{}}
	lost, sent := 0.0, 0.0
	// The routers of the tested flow are known by its own probes; those of
	// others stand in where there are none.
	var tested netip.AddrPort
	for _, o := range list {
		if o.Role == measure.RoleTest && o.Experiment == measure.ExpLocate && o.TTL > 0 {
			e.flow = o.Path.LocalPort
			tested, _ = netip.ParseAddrPort(o.Remote)
			break
		}
	}
	others := map[int]hop{}
	note := func(o *measure.Observation, answered, sent int) {
		into := others
		if o.Path.LocalPort == e.flow || o.Path.Probe != "data" {
			into = e.answers
		}
		h := into[o.TTL]
		h.answered, h.sent = h.answered+answered, h.sent+sent
		into[o.TTL] = h
	}
	triggered := false // from here on silence may be the device's
	failed, reached := 0, 0
	for _, o := range list {
		p := o.Path
		if o.Experiment == measure.ExpResidual {
			if len(o.Differs) > 1 && o.Differs[1] == "routed" {
				e.asked, e.passes = true, e.passes || p.Outcome == "expired"
			}
			continue
		}
		if p.FarEnd != nil {
			switch {
			case o.Role == measure.RoleTest:
				e.sightings = append(e.sightings, o)
			case p.FarEnd.Marked && e.proof == nil:
				e.proof = o
			}
		}
		if o.Experiment == measure.ExpFarEnd {
			continue
		}
		if isWay(o) {
			if e.ways = append(e.ways, o); o.Experiment == measure.ExpWays {
				continue
			}
		}
		if o.Experiment == measure.ExpAnswerTTL {
			e.ttls = append(e.ttls, o)
			continue
		}
		if p.Probe == "syn" && p.Outcome == "connected" && o.TTL > 0 && (e.connected == 0 || o.TTL < e.connected) {
			e.connected = o.TTL
		}
		if d := e.died[p.LocalPort]; p.Probe == "syn" && p.Outcome == "expired" && o.Experiment == measure.ExpPath && (d == nil || o.TTL > d.TTL) {
			e.died[p.LocalPort] = o
		}
		if o.Experiment == measure.ExpProxyTTL {
			// What a resolver has behind its own routers is its owner's affair.
			own := (o.Payload == string(DNS) || o.Payload == string(Resolver)) && o.ASN > 0 && p.ICMP != nil && p.ICMP.ASN == o.ASN
			switch {
			case p.Outcome == "expired" && !own && !inItsName(o):
				e.nearer = append(e.nearer, o)
			case came(o):
				e.beside = append(e.beside, o)
			}
			continue
		}
		if p.Probe == "data" {
			if failed++; p.Outcome != "unconnected" {
				failed = 0
				if o.Role == measure.RoleTest {
					reached = max(reached, orDefault(o.TTL)) // what was swallowed went all the way
				}
			} else if failed == connects && e.cut == 0 {
				e.cut, e.refused = reached, o.Failure != measure.GenericTimeout
			}
		}
		if o.Role == measure.RoleTest && o.Experiment == measure.ExpLocate {
			if o.Failure != measure.Interrupted && p.Outcome != "unconnected" && p.Sends > 0 {
				e.tests = append(e.tests, o)
			}
			e.reacted = e.reacted || reacted(o) || cut(o)
			triggered = triggered || reacted(o) || p.Outcome == "silent" && p.Sends >= sendings
			if p.Outcome == "expired" {
				note(o, 1, 1)
				e.far = max(e.far, o.TTL)
			}
			continue
		}
		if p.Probe == "data" && o.Role == measure.RoleControl {
			e.quotes = append(e.quotes, o)
		}
		if o.Experiment == measure.ExpLocate && (o.TTL == 0 || e.server > 0 && o.TTL >= e.server) && !triggered {
			e.mute = p.Outcome == "silent"
		}
		if o.TTL == 0 {
			if p.ArrivedTTL > 0 && !triggered {
				e.arrived = p.ArrivedTTL
			}
			continue
		}
		switch p.Outcome {
		case "expired":
			note(o, 1, max(1, p.Sends))
			e.far = max(e.far, o.TTL)
		case "silent":
			if triggered && o.Experiment == measure.ExpPath {
				break
			}
			note(o, 0, max(1, p.Sends))
		case "connected", "answered", "reset":
			if p.Outcome == "reset" && (triggered || o.Experiment == measure.ExpPath) {
				break // what remains of a trigger may do that
			}
			if e.server == 0 || o.TTL < e.server {
				e.server = o.TTL
			}
			e.far = max(e.far, o.TTL)
			if p.ArrivedTTL > 0 {
				e.arrived = p.ArrivedTTL
			}
		}
		if p.Probe == "syn" && o.Experiment == measure.ExpLocate {
			c, err := netip.ParseAddrPort(o.Remote)
			e.foreign = err == nil && tested.IsValid() && otherNetwork(c.Addr(), tested.Addr())
		}
	}
	// Only beyond where it answers is there anything farther.
	e.nearer = slices.DeleteFunc(e.nearer, func(o *measure.Observation) bool { return e.server == 0 || o.TTL < e.server })
	for ttl, h := range others {
		if e.answers[ttl].sent == 0 {
			e.answers[ttl] = h
		}
	}
	// The loss of the path: what routers that do answer left unanswered.
	for _, h := range e.answers {
		if h.answered > 0 {
			sent += float64(h.sent)
			lost += float64(h.sent - h.answered)
		}
	}
	// A Beta prior of one loss in forty.
	e.loss = (lost + 1) / (sent + 40)
	return e
}

// apart is how likely a router that the control met is on the test's path,
// where the two go to different networks.
const apart = 0.7

// answering is the share of probes that the router at a TTL answers.
func (e *evidence) answering(ttl int) float64 {
	h := e.answers[ttl]
	switch {
	case h.sent == 0:
		return 0.5
	case h.answered == 0:
		return least / float64(h.sent)
	}
	a := min(most, max(least, (float64(h.answered)+1)/(float64(h.sent)+1.2)))
	if e.foreign {
		a *= apart
	}
	return a
}

// The kinds of device that are weighed against each other.
const (
	injector = iota
	dropper
	copier     // beside the path: injects with the TTL of the trigger
	swallowing // the same in the path
	atServer   // acts on what reaches the server, wherever it stands
	severer    // resets the server's side alone, which only a helper sees
	kinds
)

// prior is the share of each kind among devices, spread over the links: most
// are known to inject with a TTL of their own or to swallow, few to copy TTLs
// (IR-05).
var prior = [kinds]float64{injector: 0.48, dropper: 0.36, copier: 0.06, swallowing: 0.06, atServer: 0.04, severer: 0.03}

// belief is the probability of no device, and of each kind at each link.
type belief struct {
	none float64
	at   [kinds][]float64 // by link: [k] is the link between TTL k and k+1
}

// posterior weighs all hypotheses by all tests (Bayes).
func posterior(e *evidence) *belief {
	links := e.server
	if links == 0 {
		links = e.far + 1
		near, far := false, false // where what reacted was sent
		for _, t := range e.tests {
			links = max(links, t.TTL)
			near = near || t.TTL > 0 && reacted(t)
			far = far || t.TTL == 0 && reacted(t)
		}
		if far && !near {
			links = maxTTL // whatever it was may sit anywhere
		}
	}
	log := func(h func(t *measure.Observation) float64) float64 {
		sum := 0.0
		for _, t := range e.tests {
			sum += math.Log(h(t))
		}
		return sum
	}
	b := &belief{}
	none := math.Log(0.5) + log(func(t *measure.Observation) float64 { return e.clean(t) }) + e.farEnd(-1, 0) + math.Log(e.severed(-1, 0))
	if e.cut == 0 && e.asked && !e.passes {
		none += math.Log(twice) // connections that worked, and now not even their SYNs get so far
	}
	best := none
	for kind := range kinds {
		b.at[kind] = make([]float64, links)
		if kind == severer && e.proof == nil {
			for link := range links {
				b.at[kind][link] = math.Inf(-1)
			}
			continue
		}
		for link := range links {
			v := math.Log(0.5*prior[kind]/float64(links)) + log(func(t *measure.Observation) float64 { return e.given(kind, link+1, t) }) + e.farEnd(kind, link+1) + math.Log(e.severed(kind, link+1))
			b.at[kind][link] = v
			best = max(best, v)
		}
	}
	total := math.Exp(none - best)
	for kind := range kinds {
		for link := range links {
			b.at[kind][link] = math.Exp(b.at[kind][link] - best)
			total += b.at[kind][link]
		}
	}
	b.none = math.Exp(none-best) / total
	for kind := range kinds {
		for link := range links {
			b.at[kind][link] /= total
		}
	}
	return b
}

// severed is the probability of what became of connections after the tests:
// that none could be made any more is a device's memory of a trigger, or the
// server's patience at its end, which lets routers speak.
func (e *evidence) severed(kind, link int) float64 {
	switch {
	case e.cut == 0 || e.passes:
		return 1
	case kind < 0 && !e.asked:
		return tired
	case kind < 0 || link > e.cut, kind == copier, kind == atServer:
		return twice
	case kind == dropper && e.refused, kind == injector && !e.refused:
		return 0.1
	}
	return 0.5
}

// reaches says that a probe goes as far as the server.
func (e *evidence) reaches(t *measure.Observation) bool {
	return t.TTL == 0 || e.server > 0 && t.TTL >= e.server
}

// clean is the probability of what a test met if nothing reacts to it.
func (e *evidence) clean(t *measure.Observation) float64 {
	sends := float64(max(1, t.Path.Sends))
	if t.Path.MinTTL > 0 && t.Path.Outcome == "silent" {
		return 0.9 // that hides routers' words as well (tcp_v4_err)
	}
	if e.reaches(t) {
		// SYN and its answer each may be lost.
		quiet := max(math.Pow(2*e.loss, sends), stray)
		switch t.Path.Outcome {
		case "answered", "connected":
			if forged(t, e.arrived) || otherHand(t, e.proof) {
				return twice
			}
			return 1 - quiet
		case "silent":
			if e.mute {
				return 1 - stray
			}
			return quiet
		case "expired": // the path grew longer
			return stray
		}
		return stray
	}
	a := e.answering(t.TTL)
	// A router that limits its errors is silent several times in a row.
	silent := max(math.Pow(1-a, sends), stray/4)
	if e.foreign {
		silent = max(silent, 1-apart) // it may not be on this path at all
	}
	switch t.Path.Outcome {
	case "expired":
		return 1 - silent
	case "silent":
		return silent
	}
	return early
}

// twice is how often two different answers come to one question, or one from
// elsewhere than where the server's come from, without a forger.
const twice = 0.000001

// forged says that an answer to a question that reached the resolver was not
// its own, whose answers arrive with that TTL (0: unknown).
func forged(t *measure.Observation, arrived int) bool {
	if t.DNS == nil || t.Path.Outcome != "answered" {
		return false
	}
	a := t.Path.ArrivedTTL
	return len(distinct(t.DNS.Replies)) > 1 || a > 0 && arrived > 0 && (a < arrived-1 || a > arrived+1)
}

// slip is how often a device that reacts is not seen to.
func (e *evidence) slip() float64 { return min(0.9, missed+e.loss) }

// given is the probability of what a test met if a device of a kind sits
// before the router at that TTL: packets reach it that leave with at least
// that TTL.
func (e *evidence) given(kind, link int, t *measure.Observation) float64 {
	touched := t.TTL == 0 || t.TTL >= link
	if !touched {
		return e.clean(t)
	}
	ttl := orDefault(t.TTL)
	// A device that swallows what it answered does not answer it again.
	slip := e.slip()
	mute := t.Path.Outcome == "silent"
	outcome := t.Path.Outcome
	acted := outcome == "reset" || outcome == "closed" || outcome == "unreachable" || outcome == "answered" && (!e.reaches(t) || forged(t, e.arrived) || otherHand(t, e.proof))
	switch kind {
	case injector:
		if acted {
			return (1 - slip) * arrival(t, link, false)
		}
		return slip * e.clean(t)
	case dropper:
		if mute {
			return 1 - stray
		}
		return early
	case copier, swallowing:
		back := ttl - 2*(link-1) // what is left of the TTL where it arrives
		heard := back >= 1 && back >= t.Path.MinTTL
		switch {
		case heard && acted:
			return (1 - slip) * arrival(t, link, true)
		case heard:
			return slip * e.clean(t)
		case kind == swallowing && mute:
			return 1 - stray
		case kind == swallowing:
			return early
		}
		return e.clean(t)
	case atServer:
		if !e.reaches(t) {
			return e.clean(t)
		}
		if acted || mute {
			return 1 - slip
		}
		return slip
	case severer:
		// Its server answers what comes later with a reset, or had answered.
		if !e.reaches(t) {
			return e.clean(t)
		}
		return 0.3
	}
	return stray
}

// arrival weighs the TTL with which an answer came, where it is visible: a
// copier's is what is left of ours, any other's is one of the systems' initial
// values less the way back, which need not be as long as the way out.
func arrival(t *measure.Observation, link int, copied bool) float64 {
	a := t.Path.ArrivedTTL
	if a == 0 {
		return 1
	}
	if copied {
		if left := orDefault(t.TTL) - 2*(link-1); a >= left-1 && a <= left+1 {
			return 1
		}
		return stray
	}
	if a <= 3 && t.TTL > 0 {
		return 0.01
	}
	for _, initial := range []int{64, 128, 255} {
		if way := initial - a; way >= 0 && way <= 40 {
			return 1 / (1 + 0.1*math.Abs(float64(way-(link-1))))
		}
	}
	return 0.2
}

// kind is the likeliest, and whether it copies TTLs.
func (b *belief) kind() (measure.Kind, bool) {
	var sums [kinds]float64
	for k := range kinds {
		for _, v := range b.at[k] {
			sums[k] += v
		}
	}
	injects := sums[injector] + sums[copier] + sums[swallowing] + sums[severer]
	copies := sums[copier]+sums[swallowing] > sums[injector]+sums[severer]
	if sums[dropper] > injects {
		return measure.Drops, false
	}
	return measure.Injects, copies && sums[copier]+sums[swallowing] > sums[dropper]
}

// set is the smallest set of links that holds the credible share.
func (b *belief) set(hops []measure.Hop) []measure.Place {
	links := make([]measure.Place, len(b.at[0]))
	share := make([]float64, len(links))
	total := 0.0
	for i := range links {
		for k := range kinds {
			share[i] += b.at[k][i]
		}
		total += share[i]
		links[i] = measure.Place{Low: i}
	}
	order := make([]int, len(links))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(share[b], share[a]) })
	var out []measure.Place
	held := 0.0
	for _, i := range order {
		p := links[i]
		p.PerMille = int(math.Round(1000 * share[i] / total))
		p.From, p.FromASN = followed(hops, p.Low)
		p.To, p.ToASN = followed(hops, p.Low+1)
		out = append(out, p)
		if held += share[i] / total; held >= credible {
			break
		}
	}
	return out
}

// position says where the device stands, from what shows it alone: what it
// swallows went through it; what drew a router's word beyond it, or the true
// answer as well, or arrived at the far end, did not.
func position(e *evidence, l measure.Location, w witnessed) measure.Position {
	switch {
	case l.Kind == measure.Drops:
		return measure.InPath
	case w.arrived > 0 && w.missing < witnesses:
		return measure.OnPath
	case w.arrived == 0 && w.missing >= witnesses:
		return measure.InPath
	}
	through, swallowed := 0, 0
	link := l.Set[0].Low + 1
	for _, t := range e.tests {
		if t.TTL > 0 && t.TTL < link {
			continue
		}
		passed := t.Path.ICMP != nil && (t.Path.Outcome == "answered" || t.Path.Outcome == "reset" || t.Path.Outcome == "closed") && icmpExpired(t)
		// A device that copies TTLs is not heard at first: a router is, if
		// the device only watches.
		silent := l.CopiesTTL && t.Path.Outcome == "silent" && t.Path.Sends >= sendings && t.Path.MinTTL == 0 && e.answering(t.TTL) > 0.8
		if l.CopiesTTL && t.Path.Outcome == "expired" {
			passed = true
		}
		if t.Path.Captured && reacted(t) && t.TTL > 0 && !e.reaches(t) && t.Path.ICMP == nil && e.answering(t.TTL) > 0.8 {
			silent = true
		}
		if t.DNS != nil && t.Path.Outcome == "answered" {
			switch n := len(distinct(t.DNS.Replies)); {
			case n > 1:
				passed = true
			case e.reaches(t):
				silent = forged(t, e.arrived)
			default:
				silent = t.Path.ICMP == nil && e.answering(t.TTL) > 0.8
			}
		}
		switch {
		case passed:
			through++
		case silent:
			swallowed++
		}
	}
	switch {
	case through > 0 && swallowed == 0:
		return measure.OnPath
	case swallowed > 1 && through == 0, swallowed > 0 && through == 0 && l.CopiesTTL:
		return measure.InPath // one router's word may be lost, two may not
	}
	return measure.PositionUnknown
}

func icmpExpired(t *measure.Observation) bool {
	i := t.Path.ICMP
	return t.Family == measure.IPv4 && i.Type == 11 || t.Family == measure.IPv6 && i.Type == 3
}

// distinct are replies that differ in what they say.
func distinct(list []measure.DNSReply) map[string]bool {
	out := map[string]bool{}
	for _, r := range list {
		key := r.Rcode
		for _, a := range r.Answers {
			key += " " + a.Type + " " + a.Value
		}
		out[key] = true
	}
	return out
}

// residual is what harmless requests after a trigger showed.
func residual(list []*measure.Observation) measure.ResidualKey {
	ok := map[string]bool{}
	asked := map[string]bool{}
	for _, o := range list {
		if o.Experiment != measure.ExpResidual || len(o.Differs) < 2 {
			continue
		}
		label := o.Differs[1]
		asked[label] = true
		ok[label] = ok[label] || o.Path.Outcome == "answered" || o.Path.Outcome == "connected"
	}
	switch {
	case len(asked) == 0:
		return ""
	case ok["same-flow"]:
		return measure.ResidualNone
	case ok["new-port"]:
		return measure.Residual4Tuple
	case ok["other-port"]:
		return measure.Residual3Tuple
	case ok["elsewhere"]:
		return measure.ResidualDestination
	case asked["elsewhere"]:
		return measure.ResidualClient
	}
	return measure.ResidualUnknown
}

// lasted is how long something stayed blocked after the trigger before it was
// asked for, in milliseconds, 0 if that was not found out: half-way between
// the last request that failed and the first that did not.
func lasted(list []*measure.Observation) int64 {
	trigger, failed := int64(-1), int64(-1)
	for _, o := range list {
		switch {
		case o.Experiment == measure.ExpResidual && len(o.Differs) > 1 && o.Differs[1] == "lasting":
			if o.Path.Outcome != "answered" && o.Path.Outcome != "connected" {
				failed = o.StartUS
			} else if trigger >= 0 && failed >= 0 {
				return max(1, ((failed+o.StartUS)/2-trigger)/1000)
			}
		case o.Role == measure.RoleTest && o.Experiment == measure.ExpLocate && failed < 0 && (reacted(o) || o.Path.Outcome == "silent" && o.Path.Sends >= sendings):
			trigger = o.StartUS
		}
	}
	return 0
}
