package identify

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"

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
	// sure is from what probability on a likeness is claimed, and settled
	// from what probability on a form needs no further pair.
	sure    = 0.95
	settled = 0.99
	// worthwhile is the information, in bits, below which a pair is not made
	// to tell rows apart.
	worthwhile = 0.02
	// credible is from what probability on, per mille, a signature names a
	// product.
	credible = 500
	// floor is the least probability at which a likeness is listed.
	floor = 0.01
)

// usual is how often devices that nobody has described read a form: most are
// indifferent to blanks and to the case of a name, few to what is no method.
var usual = map[string]float64{
	Plain: 0.5, Split: 0.5, Records: 0.4, Upper: 0.9, Under: 0.6, Glued: 0.15, Large: 0.6, GoHello: 0.95,
	NameCase: 0.85, NoSpace: 0.9, Tab: 0.7, Late: 0.95, Long: 0.85, Absolute: 0.7, HTTP10: 0.9, Head: 0.8, MethodCase: 0.15, Port: 0.8, Dot: 0.7, Second: 0.7,
	TCP: 0.4, AAAA: 0.9, HTTPS: 0.7, NoEDNS: 0.97,
	Behind: 0.6, Version2: 0.5, MSS: 0.95, Twice: 0.85, BareLF: 0.6, Wide: 0.5,
}

// common is how often they write a value; others of the property are as
// likely as rare says.
var common = map[string]map[string]float64{
	"action":  {"reset": 0.3, "drop": 0.25, "page": 0.3, "redirect": 0.2, "answer": 0.4, "nxdomain": 0.15},
	"status":  {"403": 0.4, "200": 0.25, "302": 0.25, "301": 0.05, "307": 0.05, "404": 0.05, "451": 0.05},
	"alert":   {"40": 0.3, "112": 0.2, "80": 0.1},
	"rcode":   {"noerror": 0.7, "nxdomain": 0.2, "refused": 0.05, "servfail": 0.05},
	"answer":  {"127.0.0.1": 0.15, "0.0.0.0": 0.15, "::": 0.1, "::1": 0.1},
	"dns-ttl": {"300": 0.3, "60": 0.3, "0": 0.1, "1": 0.1, "3600": 0.1, "30": 0.05},
	"aa":      {"yes": 0.3, "no": 0.7},
	"replies": {"1": 0.8, "2": 0.1, "3": 0.05},

	"ip-ttl":  {"64": 0.5, "128": 0.2, "255": 0.15, isVaried: 0.05, isRising: 0.03, "32": 0.02},
	"ip-id":   {isZero: 0.4, isVaried: 0.3, isCounting: 0.1, "+1": 0.1, isCopied: 0.05},
	"df":      {"yes": 0.5, "no": 0.5},
	"flags":   {"RA": 0.4, "R": 0.25, "FPA": 0.1, "PA": 0.05, "RA,RA": 0.03, "RA,RA,RA": 0.03},
	"window":  {isZero: 0.4, isVaried: 0.1, isCopied: 0.1, isRising: 0.03},
	"seq":     {asExpected: 0.9},
	"ack":     {asExpected: 0.9, isZero: 0.02},
	"payload": {isNothing: 0.95},
}

// rare is the probability of a value that common does not name.
var rare = map[string]float64{"action": 0.05, "status": 0.02, "alert": 0.05, "rcode": 0.02, "answer": 0.001, "dns-ttl": 0.03, "aa": 0.3, "replies": 0.02,
	"ip-ttl": 0.02, "ip-id": 0.001, "df": 0.02, "flags": 0.01, "window": 0.01, "seq": 0.01, "ack": 0.01, "payload": 0.002}

// share is the probability of a written value for devices nobody has described.
func share(name, value string) float64 {
	if p := common[name][value]; p > 0 {
		return p
	}
	return rare[name]
}

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
		return usual[form]
	}
	yes, no := usual[form]*e.fits(t, true), (1-usual[form])*e.fits(t, false)
	return yes / (yes + no)
}

// value is what the pairs of a form say: reads, blind, or "" for too little.
func (e *Evidence) value(form string) string {
	if e.Reads[form] == nil || e.Reads[form].pairs() == 0 {
		return ""
	}
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
		p := share(name, value)
		if p == 0 {
			continue
		}
		if row != nil && row.Properties[name] != nil {
			stated := row.Properties[name]
			if slices.Contains(stated, value) {
				p = (1 - unlike) / float64(len(stated))
			} else {
				p *= unlike
			}
		}
		sum += math.Log(p)
	}
	for form, t := range e.Reads {
		if form == Plain || t.pairs() == 0 {
			continue
		}
		p := usual[form]
		if row != nil {
			p = stated(row, form)
		}
		sum += math.Log(p*e.fits(t, true) + (1-p)*e.fits(t, false))
	}
	return sum
}

// stated is the probability that a row's device reads a form.
func stated(row *known.Behaviour, form string) float64 {
	switch s := row.Properties[form]; {
	case len(s) != 1:
		return usual[form]
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
	captured := e.captured()
	for i := range t.rows {
		if t.rows[i].Payload == e.Payload && (captured || !t.rows[i].Captured) {
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
		if f == TCP && e.nowhere || Odd(f) && !e.Own {
			return false // nobody there makes a connection, or is to be sent that
		}
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
		reads := usual[form]
		if i < len(t.rows) {
			reads = stated(&t.rows[i], form)
		}
		yes, no := reads*e.fits(tally, true), (1-reads)*e.fits(tally, false)
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
	id := t.volunteered(m.Observations)
	if e.Payload != "" {
		id = t.conclude(e)
	}
	if id == nil {
		return nil
	}
	id.Run, id.Measurement, id.Target = m.Run, m.ID, m.Target
	if !m.Complete {
		id.Unknown = append(id.Unknown, measure.WhyInterrupted)
	}
	return id
}

func (t *Table) conclude(e *Evidence) *measure.Identification {
	id := &measure.Identification{
		Type: "identification", Schema: 1, Rules: Rules, Family: e.Family, Payload: e.Payload, Trigger: e.Trigger, Probes: e.sent,
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
	for _, name := range marks {
		if v, ok := e.Writes[name]; ok {
			out = append(out, measure.Property{Name: name, Value: v, Because: e.sentBy()})
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
// forms. Details that depend on the place (addresses, times) are left out. If
// forms could not be told, the id ends in ~ and their number: such ids are not
// to be compared.
func (e *Evidence) cluster() string {
	parts := []string{e.Payload}
	for _, name := range []string{"action", "status", "alert"} {
		parts = append(parts, name+"="+e.Writes[name])
	}
	open := 0
	for _, form := range Core(e.Payload) {
		if form == TCP && e.nowhere {
			continue
		}
		v := e.value(form)
		if v == "" {
			open++
		}
		parts = append(parts, form+"="+v)
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	id := e.Payload + "-" + hex.EncodeToString(sum[:4])
	if open > 0 {
		id += "~" + strconv.Itoa(open)
	}
	return id
}

// Of a row's confidence (1 to 10): from certain on nothing else carries it,
// whatever its words are; with common words that name neither product nor
// maker ("Application Blocked") it is at most vague.
const (
	certain = 7
	vague   = 2
)

// names says whether a pattern holds a word of a name.
func names(pattern, name string) bool {
	pattern = strings.ToLower(pattern)
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return !unicode.IsLetter(r) })
	return slices.ContainsFunc(words, func(word string) bool {
		return len(word) > 3 && strings.Contains(pattern, word)
	})
}

// claim is what one row makes of one observation.
type claim struct {
	id, row, product, vendor, country, source string
	confidence                                int
}

// claimOf is that of a signature; ok is false if the list that it was of is
// not at hand any more.
func claimOf(signatures *known.Table, row, id string) (c claim, ok bool) {
	s, ok := signatures.SignatureOf(row)
	c = claim{id, s.ID, s.Product, s.Vendor, s.Country, s.Source, s.Confidence}
	if c.confidence < certain && !names(s.Pattern, s.Product+" "+s.Vendor) {
		c.confidence = min(c.confidence, vague)
	}
	return c, ok
}

// products are those that signatures name.
func (e *Evidence) products(signatures *known.Table) []measure.Candidate {
	var claims []claim
	for _, s := range e.signed {
		if c, ok := claimOf(signatures, s.match.Row, s.id); ok {
			claims = append(claims, c)
		}
	}
	for _, g := range e.gave {
		if m, ok := signatures.ForgedAddress(g.addr, g.ttlS); ok {
			row, _ := signatures.AddressOf(g.addr)
			claims = append(claims, claim{g.id, m.Row, row.Product, row.Vendor, row.Country, row.Source, row.Confidence})
		}
	}
	for _, m := range signatures.MatchPackets(e.Writes) {
		row, _ := signatures.SignatureOf(m.Row)
		for _, id := range e.sentBy() {
			claims = append(claims, claim{id, row.ID, row.Product, row.Vendor, row.Country, row.Source, row.Confidence})
		}
	}
	return ranked(claims)
}

// ranked are the products that claims name. Several rows about one product
// count together; the confidence of a row is that nothing else carries it.
func ranked(claims []claim) []measure.Candidate {
	type product struct {
		measure.Candidate
		doubt float64
	}
	var list []*product
	rows := map[string]bool{}
	for _, s := range claims {
		if s.product == "" {
			continue
		}
		i := slices.IndexFunc(list, func(p *product) bool { return p.Name == s.product && p.Vendor == s.vendor })
		if i < 0 {
			i = len(list)
			list = append(list, &product{Candidate: measure.Candidate{Row: s.row, Name: s.product, Vendor: s.vendor,
				Country: s.country, Source: s.source}, doubt: 1})
		}
		p := list[i]
		if !slices.Contains(p.Because, s.id) {
			p.Because = append(p.Because, s.id)
		}
		if !rows[s.row] {
			rows[s.row] = true
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
		if p.PerMille = int(math.Round(1000 * (1 - p.doubt) / max(1, total))); p.PerMille >= credible {
			out = append(out, p.Candidate)
		}
	}
	sort.SliceStable(out, func(a, b int) bool { return out[a].PerMille > out[b].PerMille })
	return out
}
