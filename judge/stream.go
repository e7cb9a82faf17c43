package judge

import (
	"slices"
	"strings"

	"govah/measure"
)

const (
	// slower is the ratio of rates from which a transfer counts as throttled.
	slower = 4
	// steadyPairs is how many pairs must show it.
	steadyPairs = 3
	// orderOdds is how unlikely the order of two sets of rates must be, one in
	// so many, if they were alike: six pairs without an exception.
	orderOdds = 900
)

// transfers judges what happens after the handshake: requests inside TLS that
// fail by name, transfers that are slow or stall, and protocol filters.
func (j *judging) transfers() {
	j.inside()
	j.bulk()
	j.payloads()
	j.slow()
}

// A transfer of the target's own page is slow below slowRate, if it is long
// enough to tell.
const (
	slowRate  = 400_000 // bits per second
	slowBytes = 16_000
)

// slow says nothing about a page that was slow again and again and that no
// experiment explained: only a second vantage point could.
func (j *judging) slow() {
	n := 0
	for _, o := range j.obs {
		if o.Role != measure.RoleTest || o.Stage != measure.StageConfirm || o.HTTP == nil || o.HTTP.BodyBytes < slowBytes ||
			o.Experiment != measure.ExpSNI && o.Experiment != measure.ExpBulk {
			continue
		}
		bits := int64(0)
		if o.Stream != nil {
			bits = o.Stream.BitsPerSecond
		} else if us := o.TookUS - o.HTTP.FirstByteUS; us > 0 {
			bits = o.HTTP.BodyBytes * 8_000_000 / us
		}
		if bits > 0 && bits < slowRate {
			n++
		}
	}
	if n < 3 || len(j.helpers(j.host)) > 0 || slices.ContainsFunc(j.findings, func(f measure.Finding) bool { return f.Layer == measure.StepStream }) {
		return
	}
	j.why[undecided], j.why[measure.WhyNoHelper] = true, true
}

// insideAnswer says that a control's request inside TLS was answered.
func insideAnswer(c *measure.Observation) bool {
	return c.Step == measure.StepHTTP && c.HTTP != nil && (c.Failure == measure.NoFailure || c.HTTP.Status > 0)
}

// inside judges requests inside TLS: the same request under another name in
// the ClientHello gets through.
func (j *judging) inside() {
	step := measure.StepHTTP
	hit := func(t, _ *measure.Observation) bool { return t.Failure != measure.NoFailure }
	own := j.ask(question{exp: measure.ExpSNI, step: step, passed: insideAnswer, hit: hit,
		key: func(t *measure.Observation) string { return j.sni(t) + "\x00" + t.Remote }})
	far := j.ask(question{exp: measure.ExpSNIElsewhere, step: step, passed: insideAnswer, hit: hit, key: j.sni})
	report := func(name, at string, own, far *series) {
		main := own
		if main == nil {
			main = far
		}
		p, _ := main.first()
		f := measure.Finding{Method: afterHandshake(main), Interference: measure.InterferenceSuspected, Layer: measure.StepHTTP, Family: main.family,
			Trigger: measure.Trigger{Kind: "sni", Value: name, Control: j.sni(p.c)}, Runs: main.runs, Hits: main.hits, Controls: main.controls, Because: main.because()}
		var helped []*measure.Observation
		for _, h := range j.obs {
			if h.Role == measure.RoleHelper && h.Step == measure.StepHTTP && h.Remote == at && at != "" && nameOf(h) == name && h.Failure == measure.NoFailure {
				helped = append(helped, h)
			}
		}
		switch {
		case far != nil && far.sound && far.hits >= steadyPairs:
			f.Interference, f.Proof = measure.InterferenceConfirmed, "pairs+elsewhere"
			if far != main {
				f.Because = append(f.Because, far.because()...)
			}
		case own != nil && own.sound && len(helped) > 0:
			f.Interference, f.Proof = measure.InterferenceConfirmed, "pairs+helper"
			f.Because = append(f.Because, ids(helped...)...)
		default:
			f.NotExcluded = []measure.Why{measure.WhyServerRefuses}
			if !main.sound {
				f.NotExcluded = append(f.NotExcluded, measure.WhyFewPairs)
			}
			if len(helped) == 0 {
				f.NotExcluded = append(f.NotExcluded, measure.WhyNoHelper)
			}
		}
		j.add(f)
	}
	for _, s := range own {
		name, at, _ := strings.Cut(s.key, "\x00")
		if s.hits > 0 && !j.found(measure.StepHTTP, s.family, name) {
			report(name, at, s, seriesOf(far, s.family, name))
		}
	}
	for _, s := range far {
		if s.hits > 0 && !j.found(measure.StepHTTP, s.family, s.key) {
			report(s.key, "", nil, s)
		}
	}
}

// afterHandshake names how requests inside TLS fail: a stall after some bytes
// is a freeze.
func afterHandshake(s *series) measure.Method {
	freeze, drop, reset := 0, 0, 0
	for _, p := range s.pairs {
		if !p.hit {
			continue
		}
		switch {
		case how(p.t) != "silence":
			reset++
		case p.t.HTTP != nil && (p.t.HTTP.Status > 0 || p.t.HTTP.BodyBytes > 0) || p.t.Stream != nil && p.t.Stream.Bytes > 0:
			freeze++
		default:
			drop++
		}
	}
	switch most := max(freeze, drop, reset); {
	case freeze == most:
		return measure.Freeze
	case drop == most:
		return measure.TLSDrop
	}
	return measure.TLSReset
}

// rate is the goodput of a transfer; what stalled had none from there on.
func rate(o *measure.Observation) int64 {
	if o.Stream == nil {
		return 0
	}
	return max(o.Stream.BitsPerSecond, 0)
}

// bulk judges timed transfers next to their controls.
func (j *judging) bulk() {
	passed := func(c *measure.Observation) bool {
		return c.Step == measure.StepStream && c.Failure == measure.NoFailure && c.Stream != nil && c.Stream.Bytes > 0
	}
	stalled := func(t *measure.Observation) bool { return t.Failure != measure.NoFailure }
	list := j.ask(question{exp: measure.ExpBulk, step: measure.StepStream, passed: passed,
		key: func(t *measure.Observation) string {
			if slices.Contains(t.Differs, "sni") {
				return "sni\x00" + j.sni(t)
			}
			return "address\x00" + nameOf(t)
		},
		hit: func(t, c *measure.Observation) bool {
			return stalled(t) || rate(t) < rate(c)/slower
		}})
	for _, s := range list {
		if s.hits == 0 {
			continue
		}
		kind, name, _ := strings.Cut(s.key, "\x00")
		p, _ := s.first()
		failed := 0
		for _, x := range s.pairs {
			if x.hit && stalled(x.t) {
				failed++
			}
		}
		f := measure.Finding{Method: measure.Throttle, Interference: measure.InterferenceSuspected, Layer: measure.StepStream, Family: s.family,
			Trigger: measure.Trigger{Kind: kind, Value: name, Control: j.sni(p.c)}, Runs: s.runs, Hits: s.hits, Controls: s.controls, Because: s.because()}
		if failed*2 > s.hits {
			// The transfer ends, and so does the request it stands for.
			f.Method, f.Layer = afterHandshake(s), measure.StepHTTP
		}
		if j.found(f.Layer, s.family, name) && f.Layer == measure.StepHTTP && s.hits < steadyPairs {
			continue
		}
		switch {
		case kind == "sni" && s.hits >= steadyPairs && (f.Method == measure.Throttle && ordered(s) || f.Method != measure.Throttle && s.sound):
			f.Interference, f.Proof = measure.InterferenceConfirmed, "pairs+rate"
			j.drop(measure.StepHTTP, s.family, name)
		case kind == "sni":
			f.NotExcluded = []measure.Why{measure.WhyFewPairs}
		default:
			// The other end of the comparison is another server.
			f.NotExcluded = []measure.Why{measure.WhyServerRefuses, measure.WhyNoHelper}
			if s.hits < steadyPairs {
				f.NotExcluded = append(f.NotExcluded, measure.WhyFewPairs)
			}
		}
		if s.hits*2 < s.runs || f.Interference != measure.InterferenceConfirmed && j.found(f.Layer, s.family, name) {
			continue
		}
		j.add(f)
	}
}

// ordered says whether the tests' rates lie so much below their controls'
// that alike ones would hardly ever come in such an order (the rank sum test
// of Wilcoxon 1945 and Mann and Whitney 1947, exact by counting), with
// canaries in enough networks around them.
func ordered(s *series) bool {
	var t, c []int64
	for _, p := range s.pairs {
		t, c = append(t, rate(p.t)), append(c, rate(p.c))
	}
	return orderChance(t, c) >= orderOdds
}

// orderChance is how many orders of the rates there are for each that is at
// least as one-sided as theirs; 0 if that is less than two.
func orderChance(tests, controls []int64) int {
	const most = 20 // pairs of one experiment
	m, n := min(len(tests), most), min(len(controls), most)
	u := 0 // comparisons in which the test was no slower
	for _, t := range tests[:m] {
		for _, c := range controls[:n] {
			if t >= c {
				u++
			}
		}
	}
	// ways[i][j][v] counts the orders of i tests and j controls with v such
	// comparisons: the fastest of all is a control, or a test that beats all
	// j controls.
	ways := make([][][]float64, m+1)
	all := 1.0
	for i := range ways {
		ways[i] = make([][]float64, n+1)
		if i > 0 {
			all = all * float64(n+i) / float64(i)
		}
		for j := range ways[i] {
			ways[i][j] = make([]float64, u+1)
			if i == 0 || j == 0 {
				ways[i][j][0] = 1
				continue
			}
			for v := range ways[i][j] {
				ways[i][j][v] = ways[i][j-1][v]
				if v >= j {
					ways[i][j][v] += ways[i-1][j][v-j]
				}
			}
		}
	}
	as := 0.0
	for _, w := range ways[m][n] {
		as += w
	}
	if as <= 0 || as*2 > all {
		return 0
	}
	return int(all/as + 1e-9)
}

// drop removes what was only suspected about a layer, family and name, to
// make room for what is now confirmed.
func (j *judging) drop(layer measure.Step, f measure.Family, name string) {
	j.findings = slices.DeleteFunc(j.findings, func(x measure.Finding) bool {
		return x.Layer == layer && x.Family == f && x.Trigger.Value == name && x.Interference != measure.InterferenceConfirmed
	})
}

// payloads judges first bytes that do not arrive at a helper while others do.
func (j *judging) payloads() {
	list := j.ask(question{exp: measure.ExpFirstBytes, step: measure.StepStream,
		passed: func(c *measure.Observation) bool { return c.Failure == measure.NoFailure && c.Stream != nil },
		hit:    func(t, _ *measure.Observation) bool { return t.Failure != measure.NoFailure },
		key:    func(t *measure.Observation) string { return t.Payload }})
	for _, s := range list {
		p, ok := s.first()
		if !ok {
			continue
		}
		f := measure.Finding{Method: measure.ProtocolFilter, Interference: measure.InterferenceSuspected, Layer: measure.StepStream, Family: s.family,
			Trigger: measure.Trigger{Kind: "payload", Value: s.key, Control: p.c.Payload}, Runs: s.runs, Hits: s.hits, Controls: s.controls, Because: s.because()}
		if s.sound {
			f.Interference, f.Proof = measure.InterferenceConfirmed, "pairs+helper"
		} else {
			f.NotExcluded = []measure.Why{measure.WhyFewPairs}
		}
		j.add(f)
	}
}
