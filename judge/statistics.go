package judge

import (
	"math"
	"slices"
	"sort"
	"strconv"

	"govah/measure"
)

const (
	// bracketUS is how far from a test the canaries may be that bracket it.
	bracketUS = 30_000_000
	// lingerUS is how long a trigger may make harmless requests fail too: the
	// longest documented residual blocking is 180 s.
	lingerUS = 200_000_000
	// clusterUS is how far apart the canaries of one set may start.
	clusterUS = 5_000_000
	// againUS is after how long a SYN is sent again (RFC 6298, section 2).
	againUS = 1_000_000
	// evidenceRatio is the likelihood ratio that confirms for one target;
	// with n targets screened it is n times as much.
	evidenceRatio = 1000
	// leastRatio is the likelihood ratio from which failures that come and go
	// are a suspicion: "positive" evidence of Kass and Raftery (1995).
	leastRatio = 3
	// leastNetworks is in how many networks canaries must have worked.
	leastNetworks = 3
	// boundLevel is the confidence of the bound on the false-failure rate.
	boundLevel = 0.95
	// maxTrials bounds what is computed exactly; larger counts are scaled.
	maxTrials = 20_000
)

func logChoose(n, k int) float64 {
	a, _ := math.Lgamma(float64(n) + 1)
	b, _ := math.Lgamma(float64(k) + 1)
	c, _ := math.Lgamma(float64(n-k) + 1)
	return a - b - c
}

// upperBound is the one-sided 95 % upper bound of Clopper and Pearson (1934)
// on the rate of failures, after k failures in n trials. Without trials it
// is 1.
func upperBound(k, n int) float64 {
	if n <= 0 || k >= n {
		return 1
	}
	k = max(k, 0)
	if n > maxTrials {
		k = int(math.Ceil(float64(k) / float64(n) * maxTrials))
		n = maxTrials
		if k >= n {
			return 1
		}
	}
	low, high := float64(k)/float64(n), 1.0
	for range 60 {
		p := (low + high) / 2
		if atMost(k, n, p) > 1-boundLevel {
			low = p
		} else {
			high = p
		}
	}
	return high
}

// atMost is the chance of at most k failures in n trials at rate p.
func atMost(k, n int, p float64) float64 {
	if p <= 0 {
		return 1
	}
	sum := 0.0
	for i := 0; i <= k; i++ {
		sum += math.Exp(logChoose(n, i) + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
	}
	return math.Min(sum, 1)
}

// logRatio is the logarithm of the Bayes factor of "something makes the test
// fail, at a rate of which nothing is known" against "the network fails by
// itself at rate p": B(h+1, n-h+1) / (p^h (1-p)^(n-h)), the Beta function by
// Lgamma. Fewer failures than p explains are no evidence of anything.
func logRatio(h, n int, p float64) float64 {
	if n <= 0 || h <= 0 || h > n || p <= 0 || p >= 1 || float64(h)/float64(n) <= p {
		return math.Inf(-1)
	}
	a, _ := math.Lgamma(float64(h) + 1)
	b, _ := math.Lgamma(float64(n-h) + 1)
	c, _ := math.Lgamma(float64(n) + 2)
	return a + b - c - float64(h)*math.Log(p) - float64(n-h)*math.Log1p(-p)
}

// significant says whether h failures in n tests are more than the network's
// own at rate p, given how many targets were screened to find this one.
func significant(h, n int, p float64, screened int) bool {
	return logRatio(h, n, p) > math.Log(evidenceRatio)+math.Log(float64(max(1, screened)))
}

// poolSteps are the canaries whose failures bound those of a step.
func poolSteps(s measure.Step) []measure.Step {
	switch s {
	case measure.StepQUIC:
		return []measure.Step{measure.StepQUIC}
	case measure.StepDNS:
		return []measure.Step{measure.StepDNS, measure.StepTCP, measure.StepTLS, measure.StepHTTP}
	}
	return []measure.Step{measure.StepTCP, measure.StepTLS, measure.StepHTTP}
}

// bracketSteps are the canaries that can bracket a step.
func bracketSteps(s measure.Step) []measure.Step {
	switch s {
	case measure.StepQUIC:
		return []measure.Step{measure.StepQUIC}
	case measure.StepTLS:
		return []measure.Step{measure.StepTLS}
	case measure.StepTCP:
		return []measure.Step{measure.StepTCP, measure.StepTLS}
	}
	return []measure.Step{measure.StepTCP, measure.StepTLS, measure.StepHTTP}
}

// canaryCounts are the runs and failures of the canaries of a family ("" all)
// for a step.
func (j *judging) canaryCounts(step measure.Step, f measure.Family) (failures, runs int) {
	steps := poolSteps(step)
	if len(j.m.Canaries) > 0 {
		for _, c := range j.m.Canaries {
			if slices.Contains(steps, c.Step) && (f == "" || c.Family == "" || c.Family == f) && c.Runs > 0 {
				r := min(c.Runs, 1<<30)
				runs += r
				failures += min(max(c.Failures, 0), r)
			}
		}
		return failures, runs
	}
	for _, o := range j.canaries {
		if slices.Contains(steps, o.Step) && (f == "" || family(o) == "" || family(o) == f) {
			runs++
			if o.Failure != measure.NoFailure {
				failures++
			}
		}
	}
	return failures, runs
}

// bracketed says whether the network worked just before and just after t: the
// nearest set of canaries on either side is near enough and without failure.
// Time spent waiting for the residue of an earlier trigger does not count.
func (j *judging) bracketed(t *measure.Observation) bool {
	steps := bracketSteps(t.Step)
	f := family(t)
	fits := func(o *measure.Observation) bool {
		return slices.Contains(steps, o.Step) && (f == "" || family(o) == "" || family(o) == f) && !j.dead(o)
	}
	window := int64(bracketUS)
	for _, o := range j.obs {
		if o.Experiment == measure.ExpResidual && o.StartUS < t.StartUS && t.StartUS-o.StartUS < lingerUS && address(o) == address(t) {
			window = max(window, t.StartUS-o.StartUS+bracketUS)
		}
	}
	var before, after []*measure.Observation
	for _, o := range slices.Backward(j.canaries) {
		if !fits(o) || o.StartUS >= t.StartUS {
			continue
		}
		if len(before) > 0 && before[0].StartUS-o.StartUS > clusterUS {
			break
		}
		before = append(before, o)
	}
	for _, o := range j.canaries {
		if !fits(o) || o.StartUS < ended(t) {
			continue
		}
		if len(after) > 0 && o.StartUS-after[0].StartUS > clusterUS {
			break
		}
		after = append(after, o)
	}
	if len(before) == 0 || len(after) == 0 || t.StartUS-ended(before[0]) > window || after[0].StartUS-ended(t) > bracketUS {
		return false
	}
	for _, o := range append(before, after...) {
		if o.Failure != measure.NoFailure {
			return false
		}
	}
	return !Laboured(nearest(before), j.m.View.TCPInfo) && !Laboured(nearest(after), j.m.View.TCPInfo)
}

// nearest are the canaries that began with the first: those of a set that was
// slow ended after that.
func nearest(set []*measure.Observation) []*measure.Observation {
	for i, o := range set {
		if d := o.StartUS - set[0].StartUS; d >= againUS || d <= -againUS {
			return set[:i]
		}
	}
	return set
}

// Laboured says whether all canaries of a set failed or had to send something
// again before they were answered: then the network was silent when they began, and
// they tell nothing of the moment before. One of several may have met a loss.
// Where the stack does not tell (info), the time it took does.
func Laboured(set []*measure.Observation, info bool) bool {
	for _, o := range set {
		if o.Failure == measure.NoFailure && !again(o, info) {
			return false
		}
	}
	return len(set) > 1
}

func again(o *measure.Observation, info bool) bool {
	if info && o.TCP != nil {
		return o.TCP.Retransmits > 0
	}
	return o.TookUS >= againUS
}

// disturbed says that while o was under way several canaries failed, or had to
// send something again: the network itself was at fault, or whatever silences
// this client as a whole.
func (j *judging) disturbed(o *measure.Observation) bool {
	n := 0
	for _, c := range j.canaries {
		if c.StartUS <= ended(o)+againUS && ended(c) >= o.StartUS-againUS && family(c) == family(o) && !j.dead(c) &&
			(c.Failure != measure.NoFailure || again(c, j.m.View.TCPInfo)) {
			n++
		}
	}
	return n > 1
}

// dead says whether a canary never worked here, in three tries or more: it is
// no canary in this network, perhaps blocked itself.
func (j *judging) dead(c *measure.Observation) bool {
	failed := 0
	for _, o := range j.canaries {
		if o.Step != c.Step || o.Remote != c.Remote {
			continue
		}
		if o.Failure == measure.NoFailure {
			return false
		}
		failed++
	}
	return failed >= 3 && c.Remote != ""
}

// networks counts the networks in which canaries that can bracket a step
// worked, by AS, else by address.
func (j *judging) networks(step measure.Step, f measure.Family) int {
	n := 0
	for _, c := range j.m.Canaries {
		if slices.Contains(bracketSteps(step), c.Step) && (f == "" || c.Family == "" || c.Family == f) {
			n = max(n, c.Networks)
		}
	}
	seen := map[string]bool{}
	for _, o := range j.canaries {
		if o.Failure != measure.NoFailure || !slices.Contains(bracketSteps(step), o.Step) || f != "" && family(o) != "" && family(o) != f {
			continue
		}
		if o.ASN != 0 {
			seen["as"+strconv.Itoa(o.ASN)] = true
		} else {
			seen[address(o).String()] = true
		}
	}
	return max(n, len(seen))
}

// question says how the pairs of an experiment are read.
type question struct {
	exp  measure.Experiment
	step measure.Step
	// passed says whether a control passed; nil: the canaries are the control.
	passed func(c *measure.Observation) bool
	// hit says whether the test shows what is asked for.
	hit func(t, c *measure.Observation) bool
	// key groups pairs; family is always part of it.
	key func(t *measure.Observation) string
}

type pair struct {
	t, c *measure.Observation
	hit  bool
}

// series are the pairs of one experiment that count, under one key.
type series struct {
	family measure.Family
	key    string
	pairs  []pair
	runs   int
	hits   int
	// controls that ran at the same places, and how many of them failed.
	controls measure.Count
	// sound: the hits are more than chance.
	sound bool
	// allowList: random controls failed where a known name passed.
	allowList bool
}

// because names what shows it: the hits and their controls.
func (s *series) because() []string {
	var out []*measure.Observation
	for _, p := range s.pairs {
		if p.hit {
			out = append(out, p.t, p.c)
		}
	}
	return ids(out...)
}

// first is the first pair that hit.
func (s *series) first() (pair, bool) {
	for _, p := range s.pairs {
		if p.hit {
			return p, true
		}
	}
	return pair{}, false
}

// failures counts the hits by what became of the test.
func (s *series) failures() (silence, reset, alert, other int) {
	for _, p := range s.pairs {
		if !p.hit {
			continue
		}
		switch how(p.t) {
		case "silence":
			silence++
		case "reset":
			reset++
		case "alert":
			alert++
		default:
			other++
		}
	}
	return
}

// how names a failure's kind: silence, reset, alert, refused, unreachable,
// none or other.
func how(o *measure.Observation) string {
	switch o.Failure {
	case measure.NoFailure:
		return "none"
	case measure.GenericTimeout:
		return "silence"
	case measure.ConnectionRefused:
		return "refused"
	case measure.HostUnreachable, measure.NetworkUnreachable:
		return "unreachable"
	}
	if o.TLS != nil && o.TLS.Alert > 0 {
		return "alert"
	}
	switch o.Failure {
	case measure.ConnectionReset, measure.ConnectionAborted, measure.EOF:
		return "reset"
	}
	return "other"
}

// ours says whether o failed for a reason of this device or of the run and
// not of the network.
func ours(o *measure.Observation) bool {
	switch o.Failure {
	case measure.Interrupted, measure.Unsupported, measure.TooLarge, measure.PermissionDenied, measure.AddressInUse, measure.AddressNotAvailable, measure.NetworkDown:
		return true
	}
	return false
}

// ask collects the pairs of an experiment, discards what no canaries bracket,
// and tests each series against chance.
func (j *judging) ask(q question) []*series {
	byKey := map[string]*series{}
	var keys []string
	for _, t := range j.obs {
		if t.Experiment != q.exp || t.Role != measure.RoleTest || t.Stage != measure.StageConfirm || t.Step != q.step || ours(t) {
			continue
		}
		c := j.byID[t.Control]
		if q.passed != nil && (c == nil || c == t || c.Role != measure.RoleControl || c.Experiment != q.exp || family(c) != family(t) || !q.passed(c)) {
			continue
		}
		if !j.bracketed(t) {
			continue
		}
		k := string(family(t)) + "\x00" + q.key(t)
		s := byKey[k]
		if s == nil {
			s = &series{family: family(t), key: q.key(t)}
			byKey[k] = s
			keys = append(keys, k)
		}
		p := pair{t: t, c: c, hit: q.hit(t, c)}
		s.pairs = append(s.pairs, p)
		s.runs++
		if p.hit {
			s.hits++
		}
		if q.passed != nil && c.ControlKind == measure.ControlKnown && j.randomFailed(c, q) {
			s.allowList = true
		}
	}
	sort.Strings(keys)
	out := make([]*series, 0, len(keys))
	for _, k := range keys {
		j.weigh(byKey[k], q)
		out = append(out, byKey[k])
	}
	return out
}

// weigh bounds the network's own rate of failure by the canaries and by this
// experiment's controls, and compares. A control that failed right after a
// trigger may have met its residue and does not count.
func (j *judging) weigh(s *series, q question) {
	failures, runs := j.canaryCounts(q.step, s.family)
	own := measure.Count{}
	if q.passed != nil {
		where := map[string]bool{}
		kinds := map[measure.ControlKind]bool{}
		for _, p := range s.pairs {
			where[p.t.Remote] = true
			kinds[p.c.ControlKind] = true
		}
		for _, c := range j.obs {
			if c.Role != measure.RoleControl || c.Experiment != q.exp || c.Stage != measure.StageConfirm || c.Step != q.step ||
				!where[c.Remote] || !kinds[c.ControlKind] || ours(c) {
				continue
			}
			passed := q.passed(c)
			s.controls.Runs++
			if !passed {
				s.controls.Hits++
			}
			if j.lingering(c) {
				continue
			}
			own.Runs++
			if !passed {
				own.Hits++
			}
		}
	} else {
		for _, p := range s.pairs {
			if p.c != nil {
				s.controls.Runs++
				if p.c.Failure != measure.NoFailure {
					s.controls.Hits++
				}
			}
		}
	}
	if s.hits < s.runs && runs > 0 && logRatio(s.hits, s.runs, upperBound(failures, runs)) < math.Log(leastRatio) {
		// It came and went, and chance explains it about as well.
		s.hits = 0
		for i := range s.pairs {
			s.pairs[i].hit = false
		}
	}
	p := upperBound(failures+own.Hits, runs+own.Runs)
	if own.Hits > 0 {
		// This place fails by itself, whatever the canaries do.
		p = math.Max(p, upperBound(own.Hits, own.Runs))
	}
	s.sound = j.networks(q.step, s.family) >= leastNetworks && significant(s.hits, s.runs, p, j.m.Screened)
}

// lingering says whether the last test at c's address before c had failed.
func (j *judging) lingering(c *measure.Observation) bool {
	at := address(c)
	if !at.IsValid() || c.Step == measure.StepDNS {
		return false
	}
	failed := false
	for _, o := range j.obs {
		if o.StartUS >= c.StartUS {
			break
		}
		if o.Role != measure.RoleTest || o.Experiment == measure.ExpResidual || address(o) != at || c.StartUS-ended(o) >= lingerUS ||
			o.Step == measure.StepTCP && o.Failure == measure.NoFailure { // the connect that carries the test
			continue
		}
		failed = o.Failure != measure.NoFailure
	}
	return failed
}

// randomFailed says whether random names failed at the address of a known one
// that passed, and none got through: names unheard of are what is refused.
func (j *judging) randomFailed(known *measure.Observation, q question) bool {
	n := 0
	for _, o := range j.obs {
		if o.Role == measure.RoleControl && o.Experiment == q.exp && o.ControlKind == measure.ControlRandom && o.Remote == known.Remote && o.Step == q.step && !ours(o) {
			if q.passed(o) {
				return false
			}
			n++
		}
	}
	return n > 0
}
