package identify

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"slices"
	"sort"
	"strings"

	"govah/known"
	"govah/measure"
)

// Rules is the version of the conclusions drawn here.
const Rules = "2026.1"

// Table holds the behaviours that a device is compared with, and the
// signatures that name products.
type Table struct {
	rows       []known.Behaviour
	signatures *known.Table
}

// Documented is the behaviours of package known, with its signatures or, if
// given, those and a user's own.
func Documented(own *known.Table) *Table {
	if own == nil {
		own = known.Shipped()
	}
	return &Table{known.Behaviours(), own}
}

// Match names every signature that an answer carries.
func (t *Table) Match(h *measure.HTTP, body []byte) []measure.Match {
	return t.signatures.MatchHTTP(h, body)
}

// The model: each pair of one form is an independent draw, given what the
// device's parser does. The rates are guesses on the side of caution; what
// they are worth is measured in docs/design/identify.md.
const (
	// missed is how often a device overlooks what it reads, before anything
	// is known of this one: one pair is worth missedWeight of those.
	missed       = 0.03
	missedWeight = 10
	// chance is how often a pair differs although the device is blind: TCP
	// mends loss, so that only what breaks by itself just then is left.
	chance = 0.003
	// unlike is how often a documented behaviour is not as documented.
	unlike = 1e-4
	// unknownPrior is the share of devices that nobody has described.
	unknownPrior = 0.5
	// readsShare is how often devices that nobody has described read a form.
	readsShare = 0.5
	// sure is from what probability on a likeness is claimed, and settled
	// from what probability on a form needs no further pair.
	sure    = 0.95
	settled = 0.99
	// worthwhile is the information, in bits, below which a pair is not made
	// to tell rows apart.
	worthwhile = 0.02
	// floor is the least probability at which a likeness is listed.
	floor = 0.01
)

// values is how many values a written property can have, for devices that
// nobody has described: one of them is as likely as another.
var values = map[string]float64{"action": 8, "status": 8, "alert": 4, "rcode": 4, "answer": 1000, "dns-ttl": 6, "aa": 2, "replies": 3, "genuine": 2}

// miss is the rate at which this device overlooks what it reads, as far as
// the plain form tells.
func (e *Evidence) miss() float64 {
	p := e.Reads[Plain]
	if p == nil {
		return missed
	}
	return (missed*missedWeight + float64(p.Passed)) / (missedWeight + float64(p.pairs()))
}

// fits is the probability of a form's pairs for a device that reads it, or is
// blind to it.
func (e *Evidence) fits(t *Tally, reads bool) float64 {
	hit := chance
	if reads {
		hit = 1 - e.miss()
	}
	return math.Pow(hit, float64(t.Reacted)) * math.Pow(1-hit, float64(t.Passed))
}

// reads is the probability that the device reads a form, from its pairs alone.
func (e *Evidence) reads(form string) float64 {
	t := e.Reads[form]
	if t == nil {
		return readsShare
	}
	yes, no := readsShare*e.fits(t, true), (1-readsShare)*e.fits(t, false)
	return yes / (yes + no)
}

// value is what the pairs of a form say: reads, blind, or "" for nothing. A
// form that passed once and was not tried again may have been overlooked.
func (e *Evidence) value(form string) string {
	switch r := e.reads(form); {
	case r > sure:
		return measure.Reads
	case r < 1-sure:
		return measure.Blind
	}
	return ""
}

// likelihood is how probable the evidence is for a row; nil is a device that
// nobody has described. Properties that a row does not state are like
// anybody's.
func (e *Evidence) likelihood(row *known.Behaviour) float64 {
	sum := 0.0
	for name, value := range e.Writes {
		n := values[name]
		if n == 0 {
			continue
		}
		p := 1 / n
		if row != nil && row.Properties[name] != nil {
			stated := row.Properties[name]
			if slices.Contains(stated, value) {
				p = (1 - unlike) / float64(len(stated))
			} else {
				p = unlike / n
			}
		}
		sum += math.Log(p)
	}
	for form, t := range e.Reads {
		if form == Plain || t.pairs() == 0 {
			continue
		}
		share := readsShare
		if row != nil {
			share = stated(row, form)
		}
		sum += math.Log(share*e.fits(t, true) + (1-share)*e.fits(t, false))
	}
	return sum
}

// stated is the probability that a row's device reads a form.
func stated(row *known.Behaviour, form string) float64 {
	switch s := row.Properties[form]; {
	case len(s) != 1:
		return readsShare
	case s[0] == measure.Reads:
		return 1 - unlike
	default:
		return unlike
	}
}

// posterior is the probability of each row, and of a device that nobody has
// described as the last.
func (t *Table) posterior(e *Evidence) []float64 {
	var fitting []int
	for i := range t.rows {
		if t.rows[i].Payload == e.Payload {
			fitting = append(fitting, i)
		}
	}
	logs := make([]float64, len(t.rows)+1)
	for i := range logs {
		logs[i] = math.Inf(-1)
	}
	best := math.Log(unknownPrior) + e.likelihood(nil)
	logs[len(t.rows)] = best
	for _, i := range fitting {
		logs[i] = math.Log((1-unknownPrior)/float64(len(fitting))) + e.likelihood(&t.rows[i])
		best = max(best, logs[i])
	}
	sum := 0.0
	for i := range logs {
		logs[i] = math.Exp(logs[i] - best)
		sum += logs[i]
	}
	for i := range logs {
		logs[i] /= sum
	}
	return logs
}

// Next is the form whose next pair would tell most, with the information it
// is expected to give in bits (Lindley 1956) about which row it is. The forms
// of the core come first, so that the id of the behaviour is complete; at the
// end they are settled, and those tried by which the likeliest row could still
// be contradicted. "" means that nothing would tell more.
func (t *Table) Next(e *Evidence) (form string, bits float64) {
	usable := func(f string) bool {
		tally := e.Reads[f]
		return tally == nil || tally.Spoiled < 2 && tally.pairs() < 3
	}
	open := func(f string) bool {
		r := e.reads(f)
		return usable(f) && r < settled && r > 1-settled
	}
	p := t.posterior(e)
	for _, f := range Core(e.Payload) {
		if usable(f) && e.value(f) == "" {
			return f, t.gain(e, p, f)
		}
	}
	for _, f := range Forms(e.Payload) {
		if usable(f) {
			if gain := t.gain(e, p, f); gain > bits {
				form, bits = f, gain
			}
		}
	}
	if bits >= worthwhile {
		return form, bits
	}
	for _, f := range Core(e.Payload) {
		if open(f) {
			return f, t.gain(e, p, f)
		}
	}
	likeliest := 0
	for i := range p {
		if p[i] > p[likeliest] {
			likeliest = i
		}
	}
	if likeliest < len(t.rows) {
		for _, f := range Forms(e.Payload) {
			if t.rows[likeliest].Properties[f] != nil && open(f) {
				return f, t.gain(e, p, f)
			}
		}
	}
	return "", 0
}

// gain is the expected information of one more pair of a form.
func (t *Table) gain(e *Evidence, p []float64, form string) float64 {
	tally := e.Reads[form]
	if tally == nil {
		tally = &Tally{}
	}
	// What each hypothesis says of the next pair, given the pairs before.
	hits := make([]float64, len(p))
	all := 0.0
	for i := range p {
		share := readsShare
		if i < len(t.rows) {
			share = stated(&t.rows[i], form)
		}
		yes, no := share*e.fits(tally, true), (1-share)*e.fits(tally, false)
		r := yes / (yes + no)
		hits[i] = r*(1-e.miss()) + (1-r)*chance
		all += p[i] * hits[i]
	}
	conditional := 0.0
	for i := range p {
		conditional += p[i] * entropy(hits[i])
	}
	return entropy(all) - conditional
}

// entropy of a coin, in bits.
func entropy(p float64) float64 {
	if p <= 0 || p >= 1 {
		return 0
	}
	return -p*math.Log2(p) - (1-p)*math.Log2(1-p)
}

// contradicted says whether a property of a row is settled otherwise.
func (e *Evidence) contradicted(row *known.Behaviour) bool {
	for name, want := range row.Properties {
		if got, ok := e.Writes[name]; ok && !slices.Contains(want, got) {
			return true
		}
		if e.Reads[name] == nil || len(want) != 1 {
			continue
		}
		if r := e.reads(name); want[0] == measure.Reads && r < 1-sure || want[0] == measure.Blind && r > sure {
			return true
		}
	}
	return false
}

// Infer says what reacts, from the observations of one search; nil if there
// was none.
func (t *Table) Infer(m *measure.Measurement) *measure.Identification {
	e := Gather(m.Observations)
	if e.Payload == "" {
		return nil
	}
	id := t.conclude(e)
	id.Run, id.Measurement, id.Target = m.Run, m.ID, m.Target
	return id
}

func (t *Table) conclude(e *Evidence) *measure.Identification {
	id := &measure.Identification{
		Type: "identification", Schema: 1, Rules: Rules, Family: e.Family, Payload: e.Payload, Trigger: e.Trigger, Probes: e.pairs,
	}
	plain := e.Reads[Plain]
	for _, tally := range e.Reads {
		id.Triggers += tally.Reacted
	}
	switch {
	case plain == nil || plain.pairs() == 0:
		id.Outcome = measure.NotComparable
		id.Unknown = []measure.Why{measure.WhyNoControl}
		return id
	case plain.Reacted == 0:
		id.Outcome = measure.NothingReacts
		return id
	}
	id.Properties = e.properties()
	id.Cluster = e.cluster()
	id.Products = e.products(t.signatures)
	p := t.posterior(e)
	likeness := 0.0
	for i := range t.rows {
		row := &t.rows[i]
		if p[i] < floor || e.contradicted(row) {
			continue
		}
		likeness += p[i]
		id.Behaviours = append(id.Behaviours, measure.Candidate{Row: row.ID, Name: row.Name, Country: row.Country,
			PerMille: int(math.Round(p[i] * 1000)), Source: row.Source, Because: e.Wrote})
	}
	sort.SliceStable(id.Behaviours, func(a, b int) bool { return id.Behaviours[a].PerMille > id.Behaviours[b].PerMille })
	switch {
	case len(id.Products) > 0:
		id.Outcome = measure.ProductNamed
	case likeness >= sure:
		id.Outcome = measure.BehaviourKnown
	default:
		id.Outcome = measure.UnknownDevice
	}
	id.Next, _ = t.Next(e)
	return id
}

// properties lists what was found out, in a fixed order.
func (e *Evidence) properties() (out []measure.Property) {
	for _, name := range written {
		if v, ok := e.Writes[name]; ok {
			out = append(out, measure.Property{Name: name, Value: v, Because: e.Wrote})
		}
	}
	for _, form := range append([]string{Plain}, Forms(e.Payload)...) {
		if v := e.value(form); v != "" {
			out = append(out, measure.Property{Name: form, Value: v, Because: e.Reads[form].Because})
		}
	}
	return out
}

// cluster is the id of a behaviour: of what it does and how it reads the core
// forms. Details that depend on the place (addresses, times) are left out.
func (e *Evidence) cluster() string {
	parts := []string{e.Payload}
	for _, name := range []string{"action", "status", "alert"} {
		parts = append(parts, name+"="+e.Writes[name])
	}
	for _, form := range Core(e.Payload) {
		parts = append(parts, form+"="+e.value(form))
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return e.Payload + "-" + hex.EncodeToString(sum[:4])
}

// products are those that signatures name. Several signatures of one product
// count together; the confidence of a row is that nothing else carries it.
func (e *Evidence) products(signatures *known.Table) []measure.Candidate {
	type product struct {
		measure.Candidate
		doubt float64
	}
	var list []*product
	type claim struct {
		signed
		confidence int
		source     string
	}
	var claims []claim
	for _, s := range e.signed {
		// A list that is not at hand any more names nothing.
		if row, ok := signatures.SignatureOf(s.match.Row); ok {
			claims = append(claims, claim{s, row.Confidence, row.Source})
		}
	}
	for _, g := range e.gave {
		if m, ok := signatures.ForgedAddress(g.addr, g.ttlS); ok {
			row, _ := signatures.AddressOf(g.addr)
			claims = append(claims, claim{signed{m, g.id}, row.Confidence, row.Source})
		}
	}
	rows := map[string]bool{}
	for _, s := range claims {
		if s.match.Product == "" {
			continue
		}
		i := slices.IndexFunc(list, func(p *product) bool { return p.Name == s.match.Product && p.Vendor == s.match.Vendor })
		if i < 0 {
			i = len(list)
			list = append(list, &product{Candidate: measure.Candidate{Row: s.match.Row, Name: s.match.Product, Vendor: s.match.Vendor,
				Country: s.match.Country, Source: s.source}, doubt: 1})
		}
		p := list[i]
		if !slices.Contains(p.Because, s.id) {
			p.Because = append(p.Because, s.id)
		}
		if !rows[s.match.Row] {
			rows[s.match.Row] = true
			p.doubt *= 1 - min(0.99, float64(s.confidence)/10)
		}
	}
	// Two products in one answer share what is certain.
	total := 0.0
	for _, p := range list {
		total += 1 - p.doubt
	}
	var out []measure.Candidate
	for _, p := range list {
		p.PerMille = int(math.Round(1000 * (1 - p.doubt) / max(1, total)))
		out = append(out, p.Candidate)
	}
	sort.SliceStable(out, func(a, b int) bool { return out[a].PerMille > out[b].PerMille })
	return out
}
