package judge

import (
	"math"
	"testing"
)

// The bounds are those of the tables of Clopper and Pearson; without failures
// it is 1 - 0.05^(1/n).
func TestUpperBound(t *testing.T) {
	for _, c := range []struct {
		k, n int
		want float64
	}{
		{0, 1, 0.95}, {0, 10, 0.25887}, {0, 60, 0.04870}, {1, 10, 0.39416}, {5, 10, 0.77756}, {2, 100, 0.06162}, {10, 10, 1}, {0, 0, 1}, {3, 2, 1},
	} {
		if got := upperBound(c.k, c.n); math.Abs(got-c.want) > 1e-4 {
			t.Errorf("upperBound(%d, %d) = %.5f, want %.5f", c.k, c.n, got, c.want)
		}
	}
	if p := upperBound(1<<28, 1<<30); p < 0.25 || p > 0.27 {
		t.Errorf("a quarter of many: %v", p)
	}
}

// With five failures in five and a bound of 5 %: B(6,1)/0.05^5 = 533,333.
func TestLogRatio(t *testing.T) {
	if got := math.Exp(logRatio(5, 5, 0.05)); math.Abs(got-533333.33) > 1 {
		t.Errorf("5 of 5: %.2f", got)
	}
	// B(11,11)/(0.05^10 0.95^10) by hand: 1/(21*C(20,10)) = 2.5775e-7.
	want := 1 / (21 * 184756.0) / (math.Pow(0.05, 10) * math.Pow(0.95, 10))
	if got := math.Exp(logRatio(10, 20, 0.05)); math.Abs(got/want-1) > 1e-9 {
		t.Errorf("10 of 20: %.3g, want %.3g", got, want)
	}
	for _, c := range []struct {
		h, n int
		p    float64
	}{{0, 20, 0.05}, {1, 1000, 0.5}, {5, 5, 1}, {5, 0, 0.05}, {1, 20, 0.05}} {
		if significant(c.h, c.n, c.p, 1) {
			t.Errorf("%d of %d at %v is significant", c.h, c.n, c.p)
		}
	}
	if !significant(3, 3, 0.0487, 1) || significant(2, 2, 0.0487, 1) || significant(3, 3, 0.0487, 10) || !significant(4, 4, 0.0487, 10) {
		t.Error("how many pairs a quiet network needs has changed")
	}
}
