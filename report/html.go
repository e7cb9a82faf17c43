package report

import (
	"bufio"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"govah/internal/i18n"
	"govah/measure"
)

//go:embed style.css
var styleSheet string

//go:embed filter.js
var filterScript string

// Source is what a report is made from.
type Source struct {
	// Run and End may be nil. They are looked at after the first pass over
	// Entries, so that a reader may fill them in while it reads the file.
	Run *measure.Run
	End *measure.End
	// Entries is ranged over once to count, and once for each state that
	// occurs, so that no more than one entry is in memory; it must yield the
	// same entries each time. An error ends the report.
	Entries iter.Seq2[Entry, error]
	// Skipped counts the lines of the input that could not be read; it is
	// looked at after the first pass.
	Skipped int

	locations map[string][]*measure.Location // by measurementKey
	located   []string                       // its keys in the order in which they came
	where     surroundings                   // of measurements without a verdict

	identifications map[string][]*measure.Identification // by measurementKey
	identified      []string                             // its keys in the order in which they came
}

const (
	maxSteps      = 300 // rows of one table of steps
	manyCards     = 100 // cards above which a table has
	fewSteps      = 12  // this many rows, so that the file stays small
	maxPictures   = 4   // of one target
	maxFineDetail = 40  // targets that work, up to which each shows its steps
)

// HTML writes one self-contained file: no external resource, a content
// security policy that forbids any, readable without the script that filters.
// Memory grows by one short row a target, and by what was found beyond its
// verdict.
func HTML(w io.Writer, o Options, src *Source) error {
	d := &document{w: bufio.NewWriterSize(w, 64<<10), l: o.lang(), judged: map[string]bool{}}
	if err := d.count(src); err != nil {
		return err
	}
	d.head(src)
	for _, s := range States {
		if d.tally.count[s] == 0 {
			continue
		}
		if err := d.group(src, s); err != nil {
			return err
		}
	}
	d.alone(src)
	d.tail(src)
	return d.w.Flush()
}

// surroundings are the networks that measurements were made from, and what
// holds for all that was measured there. Each is listed once.
type surroundings struct {
	places  []place
	notices []sentence
}

const mostListed = 8 // of what is listed at the top

func (s *surroundings) add(places []place, notices []sentence) {
	for _, p := range places {
		if !slices.Contains(s.places, p) && len(s.places) < mostListed {
			s.places = append(s.places, p)
		}
	}
	for _, n := range notices {
		if len(s.notices) < mostListed && !slices.ContainsFunc(s.notices, func(o sentence) bool { return o.key == n.key }) {
			s.notices = append(s.notices, n)
		}
	}
}

// document writes markup; errors of the writer stay in it until Flush.
type document struct {
	w     *bufio.Writer
	l     i18n.Lang
	tally tally
	rows  []row
	rules []string
	surroundings
	judged map[string]bool // the measurementKeys of all verdicts
}

// measurementKey tells measurements of different runs in one file apart.
func measurementKey(run, id string) string { return run + "\x00" + id }

// row is one line of the index.
type row struct {
	target  string
	state   State
	methods string
}

// place is a vantage with its view, as far as it is shown.
type place struct {
	vantage measure.Vantage
	view    measure.View
}

// raw writes markup: a constant, or what i18n made safe.
func (d *document) raw(parts ...i18n.Markup) {
	for _, p := range parts {
		d.w.WriteString(string(p))
	}
}

// words writes a message of the catalogue.
func (d *document) words(key string, args ...i18n.Arg) { d.raw(d.l.HTML(key, args...)) }

func (d *document) sentences(list []sentence, open, end i18n.Markup) {
	for _, s := range list {
		d.raw(open, s.markup(d.l), end)
	}
}

// attr is s as the value of a quoted attribute.
func attr(s string) i18n.Markup { return i18n.EscapeHTML(i18n.Escape(s)) }

func number[N int | int64](n N) i18n.Markup { return i18n.Markup(strconv.FormatInt(int64(n), 10)) }

// plainText takes the isolating characters out, for attributes.
func plainText(s string) i18n.Markup {
	return i18n.EscapeHTML(strings.Map(func(r rune) rune {
		if r == i18n.LRI || r == i18n.FSI || r == i18n.PDI {
			return -1
		}
		return r
	}, s))
}

func (d *document) count(src *Source) error {
	for e, err := range src.Entries {
		if err != nil {
			return err
		}
		d.tally.add(d.l, e.Verdict)
		d.judged[measurementKey(e.Verdict.Run, e.Verdict.Measurement)] = true
		d.rows = append(d.rows, row{clip(e.Verdict.Target, 300), StateOf(e.Verdict), methodNames(d.l, e.Verdict)})
		if r := clip(e.Verdict.Rules, 60); !slices.Contains(d.rules, r) && len(d.rules) < mostListed {
			d.rules = append(d.rules, r)
		}
		if m := e.Measurement; m != nil {
			d.surroundings.add([]place{{m.Vantage, m.View}}, notices(m))
		}
	}
	d.surroundings.add(src.where.places, src.where.notices)
	return nil
}

func sourceHash(s string) i18n.Markup {
	sum := sha256.Sum256([]byte(s))
	return i18n.Markup("'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'")
}

func (d *document) head(src *Source) {
	l := d.l
	dir := i18n.Markup("ltr")
	if l.RTL() {
		dir = "rtl"
	}
	d.raw(`<!DOCTYPE html>`+"\n"+`<html lang="`, attr(string(l)), `" dir="`, dir, `"><head><meta charset="utf-8">`,
		`<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src `, sourceHash(styleSheet), `; script-src `, sourceHash(filterScript), `; base-uri 'none'; form-action 'none'">`,
		`<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark"><title>`)
	d.words("run.title")
	var started time.Time
	if src.Run != nil {
		if t, err := time.Parse(time.RFC3339, src.Run.Started); err == nil {
			started = t
			d.raw(" · ", i18n.EscapeHTML(l.Date(t.UTC())))
		}
	}
	d.raw(`</title><style>`, i18n.Markup(styleSheet), `</style></head><body>`+"\n"+`<a class="skip" href="#results">`)
	d.words("html.skip")
	d.raw(`</a><header><p class="eyebrow">`)
	d.words("run.title")
	if !started.IsZero() {
		d.raw(" · ", i18n.EscapeHTML(l.DateTime(started)))
	}
	d.raw(`</p>`)
	summary := d.tally.words()
	if found := src.searched(); len(found) > 0 {
		if d.tally.total == 0 {
			summary = nil
		}
		summary = append(summary, found...)
	}
	d.raw(`<h1>`, summary[0].markup(l), `</h1>`)
	if len(summary) > 1 {
		d.raw(`<p class="sum">`)
		d.sentences(summary[1:], ``, ` `)
		d.raw(`</p>`)
	}
	if list := d.tally.methodList(l); list != "" {
		d.raw(`<p class="sum">`)
		d.words("summary.methods", i18n.Word("list", list))
		d.raw(`</p>`)
	}
	if len(d.places) > 0 {
		d.raw(`<p class="where">`)
		d.words("run.vantage")
		d.raw(": ")
		for i, text := range d.placeNames() {
			if i > 0 {
				d.words("list.semicolon")
			}
			d.raw(text)
		}
		d.raw(`</p>`)
	}
	d.raw(`<ul class="chips">`)
	for _, s := range States {
		if n := d.tally.count[s]; n > 0 {
			d.raw(`<li class="`, attr(string(s)), `"><span class="sym" aria-hidden="true">`, attr(s.Symbol()), `</span><b>`, i18n.EscapeHTML(l.Number(int64(n))), `</b> <a href="#g-`, attr(string(s)), `">`)
			d.words("state." + string(s))
			d.raw(`</a></li>`)
		}
	}
	d.raw(`</ul>`)
	note := func(key string, args ...i18n.Arg) {
		d.raw(`<p class="note" role="note">`)
		d.words(key, args...)
		d.raw(`</p>`)
	}
	if src.Run != nil && src.Run.Lab != "" {
		note("notice.lab", i18n.LTR("lab", src.Run.Lab))
	}
	for _, n := range d.notices {
		note(n.key, n.args...)
	}
	if src.Run != nil && (src.End == nil || src.End.Interrupted) {
		note("notice.interrupted")
	}
	if src.Skipped > 0 {
		note("summary.skipped", i18n.Num("n", src.Skipped))
	}
	d.raw(`<p class="limit" role="note">`)
	d.words("limits.passive")
	d.raw(`</p></header>` + "\n" + `<main id="results">`)
	d.index()
	d.filter()
}

// index lists what is not fine, with links to the cards.
func (d *document) index() {
	if d.tally.total-d.tally.count[StateFine] < 2 {
		return
	}
	d.raw(`<div class="index" data-g><table><thead><tr><th scope="col">`)
	d.words("html.col-verdict")
	d.raw(`</th><th scope="col">`)
	d.words("html.col-target")
	d.raw(`</th><th scope="col" class="how">`)
	d.words("html.col-how")
	d.raw(`</th></tr></thead><tbody>`)
	for _, s := range States[:len(States)-1] {
		for i, r := range d.rows {
			if r.state != s {
				continue
			}
			d.raw(`<tr class="`, attr(string(s)), `" data-s="`, attr(string(s)), `" data-t="`, attr(r.target), `"><td><span class="sym">`, attr(s.Symbol()), ` `)
			d.words("interference." + map[State]string{StateConfirmed: "confirmed", StateSuspected: "suspected", StateUnknown: "unknown", StateFault: "fault"}[s])
			d.raw(`</span></td><td><a href="#t`, number(i), `">`, d.target(r.target), `</a></td><td class="how">`, i18n.EscapeHTML(r.methods), `</td></tr>`)
		}
	}
	d.raw(`</tbody></table></div>`)
}

func (d *document) filter() {
	if d.tally.total < 6 {
		return
	}
	d.raw(`<div id="filter" role="search" hidden><label>`)
	d.words("html.filter-text")
	d.raw(` <input type="search" dir="auto" autocomplete="off"></label> <span>`)
	d.words("html.filter")
	d.raw(`:</span> <button type="button" value="">`)
	d.words("html.filter-all")
	d.raw(`</button>`)
	for _, s := range States {
		if d.tally.count[s] > 0 {
			d.raw(`<button type="button" value="`, attr(string(s)), `"><span aria-hidden="true">`, attr(s.Symbol()), `</span> `)
			d.words("state." + string(s))
			d.raw(`</button>`)
		}
	}
	d.raw(`</div>`)
}

// group writes all targets of one state.
func (d *document) group(src *Source, s State) error {
	n := d.tally.count[s]
	d.raw("\n"+`<section data-g id="g-`, attr(string(s)), `" class="`, attr(string(s)), `"><h2><span class="sym" aria-hidden="true">`, attr(s.Symbol()), `</span> `)
	d.words("group." + string(s))
	d.raw(` <span class="small">`)
	d.words("summary.tested-title", i18n.Num("n", n))
	d.raw(`</span></h2>`)
	if s == StateFine {
		d.raw(`<p class="small">`)
		d.words("limits.none")
		d.raw(`</p><ul class="ok">`)
	}
	i := -1
	for e, err := range src.Entries {
		if err != nil {
			return err
		}
		i++
		if StateOf(e.Verdict) != s {
			continue
		}
		found := src.findings(e.Verdict)
		if s == StateFine {
			d.fine(i, e, found, n <= maxFineDetail)
		} else {
			d.card(i, e, found, src.placed(e.Verdict))
		}
	}
	if s == StateFine {
		d.raw(`</ul>`)
	}
	d.raw(`</section>`)
	return nil
}

func (d *document) open(tag, class i18n.Markup, i int, v *measure.Verdict) {
	state := attr(string(StateOf(v)))
	d.raw("\n<", tag, ` id="t`, number(i), `" class="`, class, state, `" data-s="`, state, `" data-t="`, attr(clip(v.Target, 300)), `">`)
}

// findings are what was found out beyond a verdict.
type findings struct {
	locations       []*measure.Location
	identifications []*measure.Identification
}

func (s *Source) findings(v *measure.Verdict) findings {
	key := measurementKey(v.Run, v.Measurement)
	return findings{s.locations[key], s.identifications[key]}
}

func (d *document) findings(f findings, verdict account) {
	for _, l := range f.locations {
		d.location(l, verdict)
	}
	for _, id := range f.identifications {
		d.identification(id, verdict)
	}
}

// target names a target for the reader.
func (d *document) target(t string) i18n.Markup {
	if t == measure.LineTarget {
		return i18n.EscapeHTML(d.l.Text("line.title"))
	}
	return i18n.BDI(t)
}

func (d *document) fine(i int, e Entry, found findings, detail bool) {
	d.open("li", "", i, e.Verdict)
	title := func() {
		d.raw(`<span class="sym" aria-hidden="true">✓</span> `, d.target(clip(e.Verdict.Target, 300)))
		if names := methodNames(d.l, e.Verdict); names != "" {
			d.raw(` <span class="small">`, i18n.EscapeHTML(names), `</span>`)
		}
	}
	if detail && e.Measurement != nil || len(found.locations)+len(found.identifications) > 0 {
		d.raw(`<details><summary>`)
		title()
		d.raw(`</summary>`)
		a := tell(d.l, e.Verdict)
		d.account(a)
		d.findings(found, a)
		if detail && e.Measurement != nil {
			d.pictures(e)
			d.steps(e)
		}
		d.raw(`</details>`)
	} else {
		title()
	}
	d.raw(`</li>`)
}

func (d *document) card(i int, e Entry, found findings, placed bool) {
	v := e.Verdict
	a := tell(d.l, v)
	if placed {
		// What the verdict alone does not show is shown below.
		a.not = slices.DeleteFunc(a.not, func(s sentence) bool { return s.key == "scope.unknown" })
	}
	d.open("article", "card ", i, v)
	title := i18n.Markup(`<bdi class="url" dir="ltr">`) + attr(clip(v.Target, 2048)) + `</bdi>`
	if v.Target == measure.LineTarget {
		title = d.target(v.Target)
	}
	d.raw(`<h3>`, title, ` <span class="badge"><span aria-hidden="true">`, attr(a.state.Symbol()), `</span> `)
	d.words(stateWords(v))
	d.raw(`</span></h3>`)
	for i, s := range a.headline {
		class := i18n.Markup("head")
		if i > 0 && strings.HasPrefix(s.key, "reachable.") {
			class = "sum"
		}
		d.raw(`<p class="`, class, `">`, s.markup(d.l), `</p>`)
	}
	d.account(a)
	d.findings(found, a)
	if e.Measurement != nil {
		d.pictures(e)
		d.steps(e)
		if t, err := time.Parse(time.RFC3339, e.Measurement.Started); err == nil {
			d.raw(`<p class="small">`)
			d.words("html.measured", i18n.Word("time", d.l.DateTime(t)), i18n.Took("took", clampMS(v.ElapsedMS)),
				i18n.Size("sent", v.BytesSent), i18n.Size("received", v.BytesReceived))
			d.raw(`</p>`)
		}
	}
	d.raw(`</article>`)
}

func clampMS(ms int64) int64 { return min(max(ms, 0), 1<<48) * 1000 }

func (d *document) account(a account) {
	d.raw(`<dl>`)
	for _, part := range []struct {
		key  string
		list []sentence
	}{{"label.because", a.because}, {"label.open", a.open}, {"label.not", a.not}, {"label.next", a.next}} {
		if len(part.list) == 0 {
			continue
		}
		d.raw(`<dt>`)
		d.words(part.key)
		d.raw(`</dt><dd>`)
		d.sentences(part.list, `<p>`, `</p>`)
		d.raw(`</dd>`)
	}
	d.raw(`</dl>`)
}

// steps is the table of everything recorded about a target.
func (d *document) steps(e Entry) {
	m := e.Measurement
	if len(m.Observations) == 0 {
		return
	}
	evidence := map[string]bool{}
	for _, f := range e.Verdict.Findings {
		for _, id := range f.Because {
			evidence[id] = true
		}
	}
	shown := min(len(m.Observations), maxSteps)
	if d.tally.total-d.tally.count[StateFine] > manyCards {
		shown = min(shown, fewSteps)
	}
	d.raw(`<details><summary>`)
	if shown < len(m.Observations) {
		d.words("html.details-cut", i18n.Num("shown", shown), i18n.Num("n", len(m.Observations)))
	} else {
		d.words("html.details", i18n.Num("n", shown))
	}
	d.raw(`</summary><div class="scroll" tabindex="0" role="region" aria-label="`, plainText(d.l.Text("html.details", i18n.Num("n", len(m.Observations)))), `"><table><thead><tr>`)
	for _, key := range []string{"id", "step", "role", "what", "result", "to", "start", "took", "traffic"} {
		d.raw(`<th scope="col">`)
		d.words("html.col-" + key)
		d.raw(`</th>`)
	}
	d.raw(`</tr></thead><tbody>`)
	for i := range shown {
		o := &m.Observations[i]
		class := i18n.Markup(``)
		if evidence[o.ID] {
			class = ` class="ev"`
		}
		d.raw(`<tr`, class, `><td class="n">`, i18n.BDI(clip(o.ID, 20)))
		if evidence[o.ID] {
			d.raw(` <span class="small">`)
			d.words("html.evidence")
			d.raw(`</span>`)
		}
		d.raw(`</td><td class="n">`, word(d.l, "step", clip(string(o.Step), 40)).markup(d.l), `</td><td>`, word(d.l, "role", clip(string(o.Role), 40)).markup(d.l))
		if o.Pair > 0 {
			d.raw(` `, i18n.EscapeHTML(d.l.Number(int64(o.Pair))))
		}
		if key := "stage." + string(o.Stage); d.l.Has(key) {
			d.raw(`<br><span class="small">`)
			d.words(key)
			d.raw(`</span>`)
		}
		if o.Form != "" {
			d.raw(`<br><span class="small">`, term(d.l, "identification.form.", o.Form).markup(d.l), `</span>`)
		}
		if o.Helper != "" {
			d.raw(`<br><span class="small">`, i18n.BDI(clip(o.Helper, 80)), `</span>`)
		}
		d.raw(`</td><td>`)
		what := subject(d.l, o, varied(o))
		if what != o.Remote {
			d.raw(i18n.BDI(clip(what, 120)))
		}
		k := markOf(o, evidence[o.ID])
		d.raw(`</td><td><span class="t-`, k.class(), `" aria-hidden="true">`, attr(k.symbol()), `</span> `)
		d.outcome(outcome(d.l, o))
		if o.Detail != "" && o.Failure != measure.NoFailure && !d.l.Has("failure."+string(o.Failure)) {
			d.raw(` `, i18n.ForeignBDI(clip(o.Detail, 160)))
		}
		if evidence[o.ID] {
			d.dialogue(o.Mail)
		}
		d.raw(`</td><td>`, i18n.BDI(clip(o.Remote, 80)))
		if o.ASN > 0 {
			d.raw(` <span class="small">`, i18n.BDI("AS"+strconv.Itoa(o.ASN)), `</span>`)
		}
		d.raw(`</td><td class="n">`, i18n.EscapeHTML(d.l.Duration(o.StartUS)), `</td><td class="n">`, i18n.EscapeHTML(d.l.Duration(o.TookUS)), `</td><td class="n">`)
		if o.Sent > 0 || o.Received > 0 {
			d.raw(i18n.EscapeHTML(d.l.Size(o.Sent)), ` / `, i18n.EscapeHTML(d.l.Size(o.Received)))
		}
		d.raw(`</td></tr>`)
	}
	d.raw(`</tbody></table></div></details>`)
}

func (d *document) outcome(list []sentence) {
	for i, s := range list {
		if i > 0 {
			d.words("list.comma")
		}
		d.raw(s.markup(d.l))
	}
}

// placeNames are the distinct networks measured from, each once.
func (d *document) placeNames() []i18n.Markup {
	var out []i18n.Markup
	for _, p := range d.places {
		if name := d.placeName(&p.vantage); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func (d *document) placeName(v *measure.Vantage) i18n.Markup {
	l := d.l
	var parts []i18n.Markup
	if v.Network != "" {
		parts = append(parts, i18n.ForeignBDI(clip(v.Network, 80)))
	}
	if v.ASN > 0 {
		parts = append(parts, l.HTML("run.asn", i18n.LTR("asn", "AS"+strconv.Itoa(v.ASN))))
	}
	if v.Country != "" {
		parts = append(parts, l.HTML("run.country", i18n.LTR("country", clip(v.Country, 40))))
	}
	if v.Link != "" {
		link := i18n.LTR("link", clip(v.Link, 40))
		if key := "run.link-" + v.Link; l.Has(key) {
			link = i18n.Word("link", l.Text(key))
		}
		parts = append(parts, l.HTML("run.link", link))
	}
	if len(parts) == 0 {
		return l.HTML("run.unknown-place")
	}
	if key := "run.source-" + v.ASNSource; v.ASNSource != "" && l.Has(key) {
		parts = append(parts, l.HTML(key))
	}
	return join(parts, l.HTML("list.comma"))
}

func join(parts []i18n.Markup, between i18n.Markup) i18n.Markup {
	var b strings.Builder
	for i, p := range parts {
		if i > 0 {
			b.WriteString(string(between))
		}
		b.WriteString(string(p))
	}
	return i18n.Markup(b.String())
}

// unseen are the keys of what at least one of the views could not see.
func (d *document) unseen() []string {
	var out []string
	for _, p := range d.places {
		for _, c := range []struct {
			seen bool
			key  string
		}{
			{p.view.IPv4, "ipv4"}, {p.view.IPv6, "ipv6"}, {p.view.Lookup, "lookup"}, {p.view.SystemRoots, "system_roots"},
			{p.view.SYNHop, "syn_hop"}, {p.view.DataHop, "data_hop"}, {p.view.DataError, "data_error"}, {p.view.UDPHop, "udp_hop"},
			{p.view.UDPTTL, "udp_ttl"}, {p.view.SetTTL, "set_ttl"}, {p.view.MinTTL, "min_ttl"}, {p.view.TCPInfo, "tcp_info"}, {p.view.Capture, "capture"},
		} {
			if !c.seen && !slices.Contains(out, c.key) {
				out = append(out, c.key)
			}
		}
	}
	return out
}

func (d *document) tail(src *Source) {
	l := d.l
	d.raw("\n" + `<section><h2>`)
	d.words("html.limits")
	d.raw(`</h2><ul class="plain">`)
	for _, key := range []string{"passive", "none", "cause", "moment"} {
		d.raw(`<li>`)
		d.words("limits." + key)
		d.raw(`</li>`)
	}
	d.raw(`</ul>`)
	if len(d.places) > 0 {
		d.raw(`<h4>`)
		d.words("run.unseen")
		d.raw(`</h4>`)
		if unseen := d.unseen(); len(unseen) > 0 {
			d.raw(`<ul class="plain">`)
			for _, key := range unseen {
				d.raw(`<li>`)
				d.words("view." + key)
				d.raw(`</li>`)
			}
			d.raw(`</ul>`)
		} else {
			d.raw(`<p>`)
			d.words("run.all-seen")
			d.raw(`</p>`)
		}
	}
	d.raw(`</section>` + "\n" + `<section><h2>`)
	d.words("html.facts")
	d.raw(`</h2><dl>`)
	fact := func(key string, value i18n.Markup) {
		if value != "" {
			d.raw(`<dt>`)
			d.words(key)
			d.raw(`</dt><dd>`, value, `</dd>`)
		}
	}
	tool := "govah"
	run := src.Run
	if run != nil {
		if t, err := time.Parse(time.RFC3339, run.Started); err == nil {
			fact("run.started", i18n.EscapeHTML(l.DateTime(t)))
		}
	}
	fact("run.vantage", join(d.placeNames(), l.HTML("list.semicolon")))
	for _, p := range d.places[:min(1, len(d.places))] {
		if p.vantage.ResolverASN > 0 {
			fact("run.network", l.HTML("run.resolver", i18n.LTR("asn", "AS"+strconv.Itoa(p.vantage.ResolverASN))))
		}
		if p.vantage.Geo != "" {
			fact("run.geo", i18n.BDI(clip(p.vantage.Geo, 80)))
		}
	}
	if run != nil {
		if run.Lab != "" {
			lab := i18n.BDI(clip(run.Lab, 80))
			if run.Client != "" {
				lab = l.HTML("run.lab-client", i18n.LTR("lab", clip(run.Lab, 80)), i18n.LTR("client", clip(run.Client, 80)))
			}
			fact("run.lab", lab)
			if t, err := time.Parse(time.RFC3339, run.LabTime); err == nil {
				fact("run.lab-time", i18n.EscapeHTML(l.DateTime(t)))
			}
		}
		if run.Pace != "" {
			pace := i18n.BDI(clip(run.Pace, 40))
			if key := "run.pace-" + run.Pace; l.Has(key) {
				pace = l.HTML(key)
			}
			fact("run.pace", pace)
		}
		helpers := []i18n.Markup{l.HTML("run.no-helpers")}
		if len(run.Helpers) > 0 {
			helpers = helpers[:0]
			for _, h := range run.Helpers[:min(len(run.Helpers), 16)] {
				helpers = append(helpers, i18n.BDI(clip(h, 120)))
			}
		}
		fact("run.helpers", join(helpers, l.HTML("list.comma")))
		if run.Settings != "" {
			fact("run.settings", i18n.BDI(clip(run.Settings, 400)))
		}
		tool = clip(run.Tool, 40) + " " + clip(run.Version, 40)
		fact("run.tool", i18n.BDI(tool))
	}
	if len(d.rules) > 0 {
		fact("run.rules", i18n.BDI(strings.Join(d.rules, ", ")))
	}
	if run != nil {
		fact("run.run", i18n.BDI(clip(run.Run, 80)))
		if end := src.End; end != nil {
			fact("run.traffic", l.HTML("run.traffic-value", i18n.Size("sent", end.BytesSent), i18n.Size("received", end.BytesReceived)))
			start, err1 := time.Parse(time.RFC3339, run.Started)
			stop, err2 := time.Parse(time.RFC3339, end.Ended)
			if err1 == nil && err2 == nil && stop.After(start) {
				fact("run.duration", i18n.EscapeHTML(l.Duration(stop.Sub(start).Microseconds())))
			}
		}
	}
	d.raw(`</dl></section></main>` + "\n" + `<footer><p>`)
	d.words("html.credit", i18n.LTR("tool", tool))
	d.raw(`</p></footer>`)
	if d.tally.total >= 6 {
		d.raw(`<script>`, i18n.Markup(filterScript), `</script>`)
	}
	d.raw("</body></html>\n")
}
