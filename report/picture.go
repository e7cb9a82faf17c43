package report

import (
	"slices"
	"strconv"

	"govah/internal/i18n"
	"govah/measure"
)

// A picture is made of rows of HTML with one small drawing each, so that text
// keeps its size on a phone. Drawings have no view box: positions along the
// time axis are percentages, sizes are pixels. In a right-to-left language
// time runs from right to left, as the text does.

// experimentOrder is the order in which the experiments of a finding are
// drawn: what decides most comes first.
var experimentOrder = []measure.Experiment{
	measure.ExpSNI, measure.ExpHost, measure.ExpURL, measure.ExpQUICSNI, measure.ExpNowhere, measure.ExpQName, measure.ExpBulk, measure.ExpHTTPS,
	measure.ExpAddress, measure.ExpQUIC, measure.ExpFirstBytes, measure.ExpSNITTL, measure.ExpSNIElsewhere, measure.ExpHostElsewhere,
	measure.ExpQUICElsewhere, measure.ExpResolver, measure.ExpIdentity, measure.ExpHello, measure.ExpPlain, measure.ExpProxyTTL, measure.ExpFirstHop,
	measure.ExpMailGreeter, measure.ExpMail,
	measure.ExpFamily, measure.ExpResidual, measure.ExpEcho, measure.ExpFresh, measure.ExpOdd, measure.ExpRedirect, measure.ExpNobody, measure.ExpOperator,
	measure.ExpExit, measure.ExpNearAnswer, measure.ExpNearConnect, measure.ExpEncrypted, measure.ExpSigned, measure.ExpECHKeys,
}

// trial is one experiment as a finding rests on it.
type trial struct {
	experiment measure.Experiment
	tests      []*measure.Observation
}

const (
	maxTrials   = 32
	maxLengthUS = 1 << 50 // of a time axis: beyond it a time is no time
)

// trials sorts the evidence of f by experiment.
func trials(f *measure.Finding, byID map[string]*measure.Observation) []trial {
	var out []trial
	for _, id := range f.Because {
		o := byID[id]
		if o == nil || o.Experiment == "" || o.Role != measure.RoleTest {
			continue
		}
		i := slices.IndexFunc(out, func(t trial) bool { return t.experiment == o.Experiment })
		if i < 0 {
			if i = len(out); i == maxTrials {
				continue
			}
			out = append(out, trial{experiment: o.Experiment})
		}
		out[i].tests = append(out[i].tests, o)
	}
	rank := func(t trial) int {
		if i := slices.Index(experimentOrder, t.experiment); i >= 0 {
			return i
		}
		return len(experimentOrder)
	}
	slices.SortStableFunc(out, func(a, b trial) int { return rank(a) - rank(b) })
	return out
}

// pictures draws what a verdict rests on: for each experiment one test against
// its control; without experiments, the steps one after the other; and the
// whole measurement as thin lanes.
func (d *document) pictures(e Entry) {
	m := e.Measurement
	if len(m.Observations) == 0 {
		return
	}
	byID := make(map[string]*measure.Observation, len(m.Observations))
	for i := range m.Observations {
		byID[m.Observations[i].ID] = &m.Observations[i]
	}
	evidence := map[string]bool{}
	drawn := map[measure.Experiment]bool{}
	findings := ordered(e.Verdict)
	for i := range findings {
		for _, id := range findings[i].Because {
			evidence[id] = true
		}
	}
	d.raw(`<figure><figcaption><h4>`)
	d.words("html.picture")
	d.raw(`</h4></figcaption>`)
	count := 0
	for i := range findings {
		for _, t := range trials(&findings[i], byID) {
			if count == maxPictures || drawn[t.experiment] {
				continue
			}
			drawn[t.experiment] = true
			count++
			d.trial(t, byID, evidence)
		}
	}
	if count == 0 {
		d.sequence(m, evidence)
	}
	if len(m.Observations) > 6 {
		d.overview(m, evidence)
	}
	d.raw(`<p class="legend" aria-hidden="true">`)
	d.words("html.legend")
	d.raw(`</p></figure>`)
}

// chain is o with the steps it stands on, first step first. Steps that ended
// long before are left out: their time would hide what matters.
func chain(o *measure.Observation, byID map[string]*measure.Observation) []*measure.Observation {
	const longAgoUS = 2_000_000
	out := []*measure.Observation{o}
	for len(out) < 6 {
		before := byID[out[0].After]
		if before == nil || slices.Contains(out, before) || out[0].StartUS-(before.StartUS+before.TookUS) > longAgoUS || before.StartUS > out[0].StartUS {
			break
		}
		out = slices.Insert(out, 0, before)
	}
	return out
}

// span is a part of the time axis: from zero, length microseconds long.
type span struct{ zero, length int64 }

// at is the place of t in thousandths of the axis.
func (s span) at(t int64) int64 {
	t -= s.zero
	switch {
	case t <= 0 || s.length <= 0:
		return 0
	case t >= s.length:
		return 1000
	}
	return t * 1000 / s.length
}

func end(o *measure.Observation) int64 {
	if o.TookUS < 0 || o.StartUS > maxLengthUS || o.TookUS > maxLengthUS {
		return o.StartUS
	}
	return o.StartUS + o.TookUS
}

func stretch(list []*measure.Observation) int64 {
	longest := int64(0)
	for _, o := range list {
		longest = max(longest, end(o)-list[0].StartUS)
	}
	return min(longest, maxLengthUS)
}

// lane is one kind of step in test and control.
type lane struct {
	step          measure.Step
	test, control []*measure.Observation
}

func lanes(test, control []*measure.Observation) []lane {
	var out []lane
	put := func(o *measure.Observation, into func(*lane) *[]*measure.Observation) {
		i := slices.IndexFunc(out, func(l lane) bool { return l.step == o.Step })
		if i < 0 {
			i = len(out)
			out = append(out, lane{step: o.Step})
		}
		list := into(&out[i])
		*list = append(*list, o)
	}
	for _, o := range test {
		put(o, func(l *lane) *[]*measure.Observation { return &l.test })
	}
	for _, o := range control {
		put(o, func(l *lane) *[]*measure.Observation { return &l.control })
	}
	return out
}

// trial draws the first test that has a control, or else the first test.
func (d *document) trial(t trial, byID map[string]*measure.Observation, evidence map[string]bool) {
	test := t.tests[0]
	for _, o := range t.tests {
		if byID[o.Control] != nil {
			test = o
			break
		}
	}
	control := byID[test.Control]
	testChain := chain(test, byID)
	var controlChain []*measure.Observation
	if control != nil {
		controlChain = chain(control, byID)
	}
	// A step that both stand on (one DNS answer) is drawn once.
	controlChain = slices.DeleteFunc(controlChain, func(o *measure.Observation) bool { return slices.Contains(testChain, o) })

	d.raw(`<div class="over"><h4>`, word(d.l, "experiment", clip(string(t.experiment), 40)).markup(d.l), `</h4><div class="key small">`)
	d.side("html.test", test, varied(test), "")
	d.tallyMarks(t.tests, evidence)
	d.raw(`</span>`)
	if control != nil {
		kind := ""
		if key := "control." + string(control.ControlKind); d.l.Has(key) {
			kind = d.l.Text(key)
		}
		d.side("html.control", control, varied(test), kind)
		var controls []*measure.Observation
		for _, o := range t.tests {
			if c := byID[o.Control]; c != nil && !slices.Contains(controls, c) {
				controls = append(controls, c)
			}
		}
		d.tallyMarks(controls, evidence)
		d.raw(`</span>`)
	}
	d.raw(`</div>`)

	length := stretch(testChain)
	if len(controlChain) > 0 {
		length = max(length, stretch(controlChain))
	}
	length = max(length, 1000)
	peak := max(peakRate(testChain), peakRate(controlChain))
	for _, l := range lanes(testChain, controlChain) {
		d.raw(`<div class="lane"><b>`, word(d.l, "step", clip(string(l.step), 40)).markup(d.l), `</b><div>`)
		for _, o := range l.test {
			d.bar(o, "t", d.l.HTML("html.test"), span{testChain[0].StartUS, length}, peak, evidence[o.ID])
		}
		for _, o := range l.control {
			d.bar(o, "c", d.l.HTML("html.control"), span{controlChain[0].StartUS, length}, peak, evidence[o.ID])
		}
		d.raw(`</div></div>`)
	}
	d.axis(length)
	d.raw(`</div>`)
}

// side opens a span that names one side of an experiment.
func (d *document) side(key string, o *measure.Observation, varied, kind string) {
	d.raw(`<span>`)
	d.words(key)
	d.raw(`: <b>`)
	if s := subject(d.l, o, varied); s != "" && o.ControlKind != measure.ControlNone {
		d.raw(i18n.BDI(clip(s, 120)))
	} else {
		d.raw(i18n.EscapeHTML(kind))
		kind = ""
	}
	d.raw(`</b> `)
	if kind != "" {
		d.raw(`(`, i18n.EscapeHTML(kind), `) `)
	}
}

// tallyMarks writes one sign for each repetition.
func (d *document) tallyMarks(list []*measure.Observation, evidence map[string]bool) {
	const most = 24
	d.raw(`<span class="tally" dir="ltr">`)
	for i, o := range list {
		if i == most {
			d.raw(`…`)
			break
		}
		k := markOf(o, evidence[o.ID])
		d.raw(`<span class="t-`, k.class(), `">`, attr(k.symbol()), `</span>`)
	}
	d.raw(`</span>`)
}

// sequence draws the steps of a measurement without an experiment.
func (d *document) sequence(m *measure.Measurement, evidence map[string]bool) {
	const most = 14
	var list []*measure.Observation
	for i := range m.Observations {
		if o := &m.Observations[i]; len(list) < most && o.Stage != measure.StagePreflight {
			list = append(list, o)
		}
	}
	if len(list) == 0 {
		return
	}
	zero := list[0].StartUS
	for _, o := range list {
		zero = min(zero, o.StartUS)
	}
	length := int64(1000)
	for _, o := range list {
		length = min(max(length, end(o)-zero), maxLengthUS)
	}
	for _, o := range list {
		class := i18n.Markup("c")
		if o.Role == measure.RoleTest {
			class = "t"
		}
		d.raw(`<div class="lane"><b>`, word(d.l, "step", clip(string(o.Step), 40)).markup(d.l), `</b><div>`)
		d.bar(o, class, word(d.l, "role", clip(string(o.Role), 40)).markup(d.l), span{zero, length}, peakRate(list), evidence[o.ID])
		d.raw(`</div></div>`)
	}
	d.axis(length)
}

// thousandths is n/1000 as a percentage, mirrored where the text runs from
// right to left.
func percent(n int64) i18n.Markup {
	return i18n.Markup(strconv.FormatInt(n/10, 10) + "." + strconv.FormatInt(n%10, 10) + "%")
}

func (d *document) x(n int64) i18n.Markup {
	if d.l.RTL() {
		n = 1000 - n
	}
	return percent(n)
}

// point draws a shape around a place on the axis.
func (d *document) point(n int64, y, class, path i18n.Markup) {
	d.raw(`<svg x="`, d.x(n), `" y="`, y, `" width="1" height="1" overflow="visible"><path class="`, class, `" d="`, path, `"/></svg>`)
}

const (
	shapeDot     i18n.Markup = "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0"
	shapeCross   i18n.Markup = "M-4.5,-4.5L4.5,4.5M-4.5,4.5L4.5,-4.5"
	shapeDiamond i18n.Markup = "M0,-5L5,0L0,5L-5,0Z"
	shapeUp      i18n.Markup = "M0,-5L4.5,4L-4.5,4Z"
)

// bar draws one step: when it began and ended, what came, and how it broke.
func (d *document) bar(o *measure.Observation, side, who i18n.Markup, s span, peak int64, evidence bool) {
	k := markOf(o, evidence)
	from, to := s.at(o.StartUS), s.at(end(o))
	height := i18n.Markup("")
	if o.Stream != nil && len(o.Stream.Samples) > 1 {
		height = " spark"
	}
	d.raw(`<div class="row `, side, ` `, k.class(), height, `"><span class="who">`, who, `</span><svg aria-hidden="true">`)
	d.grid(s.length, "100%")
	if height != "" {
		d.samples(o.Stream, from, to, peak)
	} else {
		d.span(from, to, "6", "6", "b-"+k.class())
		if o.HTTP != nil && o.HTTP.FirstByteUS > 0 {
			d.point(s.at(o.StartUS+min(o.HTTP.FirstByteUS, o.TookUS)), "9", "m m-"+k.class(), shapeDot)
		}
		if o.DNS != nil {
			for i, r := range o.DNS.Replies[:min(len(o.DNS.Replies), 8)] {
				if i > 0 && r.AtUS > 0 {
					d.point(s.at(r.AtUS), "9", "m m-odd", shapeDiamond)
				}
			}
		}
		if o.TCP != nil {
			for i := range o.TCP.ICMP[:min(len(o.TCP.ICMP), 8)] {
				d.point(s.at(o.TCP.ICMP[i].AtUS), "9", "m m-icmp", shapeUp)
			}
		}
		shape := shapeDot
		switch k {
		case markFail, markSilent:
			shape = shapeCross
		case markOdd:
			shape = shapeDiamond
		}
		d.point(to, "9", "m m-"+k.class(), shape)
	}
	d.raw(`</svg><span class="res"><span class="t-`, k.class(), `" aria-hidden="true">`, attr(k.symbol()), `</span> `)
	d.outcome(brief(d.l, o, k))
	d.words("list.semicolon")
	d.raw(i18n.EscapeHTML(d.l.Duration(o.TookUS)))
	if o.Sent > 0 || o.Received > 0 {
		d.raw(`<br><span class="who">`)
		d.words("detail.traffic", i18n.Size("sent", o.Sent), i18n.Size("received", o.Received))
		d.raw(`</span>`)
	}
	d.raw(`</span></div>`)
}

func (d *document) span(from, to int64, y, height, class i18n.Markup) {
	width := max(to-from, 6)
	x := from
	if d.l.RTL() {
		x = 1000 - from - width
	}
	d.raw(`<rect x="`, percent(max(x, 0)), `" y="`, y, `" width="`, percent(width), `" height="`, height, `" rx="2" class="`, class, `"/>`)
}

const maxSamples = 200 // drawn of one transfer

// rateOf is the bits per second of n bytes in one interval of st.
func rateOf(st *measure.Stream, n int64) int64 {
	return min(max(n, 0), 1<<40) * 8_000 / max(st.IntervalUS/1000, 1)
}

// peakRate is the highest rate in any interval, so that transfers that are
// compared are drawn to one scale.
func peakRate(list []*measure.Observation) int64 {
	peak := int64(1)
	for _, o := range list {
		if o.Stream != nil {
			for _, n := range o.Stream.Samples[:min(len(o.Stream.Samples), maxSamples)] {
				peak = max(peak, rateOf(o.Stream, n))
			}
		}
	}
	return peak
}

// samples draws the rate in each interval of a transfer.
func (d *document) samples(st *measure.Stream, from, to, peak int64) {
	list := st.Samples[:min(len(st.Samples), maxSamples)]
	line := "M"
	for i, n := range list {
		x := i
		if d.l.RTL() {
			x = len(list) - 1 - i
		}
		if i > 0 {
			line += "L"
		}
		line += strconv.Itoa(x) + "," + strconv.FormatInt(98-96*rateOf(st, n)/peak, 10)
	}
	first, last := "0", strconv.Itoa(len(list)-1)
	if d.l.RTL() {
		first, last = last, first
	}
	width := max(to-from, 20)
	x := from
	if d.l.RTL() {
		x = 1000 - from - width
	}
	d.raw(`<svg x="`, percent(max(x, 0)), `" y="2" width="`, percent(width), `" height="36" viewBox="0 0 `, number(len(list)-1), ` 100" preserveAspectRatio="none"><path class="rate" d="`,
		i18n.Markup(line), `L`, i18n.Markup(last), `,100L`, i18n.Markup(first), `,100Z"/><path class="rate-l" d="`, i18n.Markup(line), `"/></svg>`)
}

// step is the distance of marks on an axis of the given length: 1, 2 or 5
// times a power of ten, at most five marks.
func step(length int64) int64 {
	for unit := int64(1); ; unit *= 10 {
		for _, n := range []int64{1, 2, 5} {
			if length/(n*unit) < 5 || unit > 1<<55 {
				return n * unit
			}
		}
	}
}

func (d *document) grid(length int64, height i18n.Markup) {
	s := span{0, length}
	for t, by := int64(0), step(length); t <= length; t += by {
		x := d.x(s.at(t))
		d.raw(`<line class="g" x1="`, x, `" x2="`, x, `" y1="0" y2="`, height, `"/>`)
	}
}

// axis writes the times under a picture.
func (d *document) axis(length int64) {
	d.raw(`<div class="lane axis"><b></b><div><div class="row"><span class="who"></span><svg role="img" aria-label="`, plainText(d.l.Text("html.seconds")), `">`)
	s, by := span{0, length}, step(length)
	if d.l == i18n.Persian && length/by > 2 {
		by *= 2 // its words for units are long: five times would overlap
	}
	for t := int64(0); t <= length; t += by {
		at := s.at(t)
		anchor := i18n.Markup("middle")
		switch {
		case at < 30:
			anchor = "start"
		case at > 930:
			anchor = "end"
		}
		d.raw(`<text x="`, d.x(at), `" y="12" text-anchor="`, anchor, `">`, i18n.EscapeHTML(d.l.Duration(t)), `</text>`)
	}
	d.raw(`</svg><span class="res"></span></div></div></div>`)
}

// overview draws all steps of a measurement as thin lanes, one a role.
func (d *document) overview(m *measure.Measurement, evidence map[string]bool) {
	const most = 400
	length := int64(1000)
	list := m.Observations[:min(len(m.Observations), most)]
	for i := range list {
		length = min(max(length, end(&list[i])), maxLengthUS)
	}
	d.raw(`<div class="over"><h4>`)
	d.words("html.overview")
	d.raw(`</h4>`)
	for _, role := range []measure.Role{measure.RoleTest, measure.RoleControl, measure.RoleCanary, measure.RoleHelper} {
		count, all := [4]int{}, 0
		for i := range list {
			if list[i].Role == role {
				all++
				count[markOf(&list[i], evidence[list[i].ID])]++
			}
		}
		if all == 0 {
			continue
		}
		d.raw(`<div class="lane"><b></b><div><div class="row"><span class="who">`, word(d.l, "role", string(role)).markup(d.l), `</span><svg aria-hidden="true">`)
		d.grid(length, "100%")
		for i := range list {
			o := &list[i]
			if o.Role != role {
				continue
			}
			s := span{0, length}
			k := markOf(o, evidence[o.ID])
			if k == markOK {
				d.raw(`<line class="o o-ok" x1="`, d.x(s.at(o.StartUS)), `" x2="`, d.x(s.at(end(o))), `" y1="9" y2="9"/>`)
				continue
			}
			if k != markOdd {
				d.point(s.at(end(o)), "9", "m m-bad", shapeCross)
				continue
			}
			d.point(s.at(end(o)), "9", "m m-odd", shapeDiamond)
		}
		d.raw(`</svg><span class="res">`)
		count[markFail] += count[markSilent]
		for k, n := range count[:markSilent] {
			if n > 0 {
				d.raw(`<span class="t-`, mark(k).class(), `">`, attr(mark(k).symbol()), ` `, i18n.EscapeHTML(d.l.Number(int64(n))), `</span> `)
			}
		}
		d.raw(`</span></div></div></div>`)
	}
	d.axis(length)
	d.raw(`</div>`)
}
