package evidence

import (
	"slices"
	"time"
)

var begun = time.Now()

func nanos() float64 { return float64(time.Since(begun)) }

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}
