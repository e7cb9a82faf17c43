package judge

import (
	"testing"

	"govah/measure"
)

// One measurement of a suspect with 20 pairs.
func BenchmarkJudge(b *testing.B) {
	s := screenedSNI(measure.ConnectionReset)
	s.helped(helper1, siteAt, 64600, "", "")
	s.sniRounds(20, measure.ConnectionReset, measure.ConnectionReset, true)
	b.ReportMetric(float64(len(s.m.Observations)), "observations")
	for b.Loop() {
		s.judge()
	}
}
