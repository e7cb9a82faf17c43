package check

import (
	"slices"
	"sync"
	"testing"
)

// TestLowest: wherever something answers, that TTL is found, in few steps.
func TestLowest(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 2*farthest+1; n++ {
		steps, want := 0, n
		if n > 2*farthest {
			want = 0
		}
		if got := lowest(t.Context(), func(ttl int) bool { steps++; return ttl >= n }); got != want || steps > 6 {
			t.Errorf("%d of %d after %d steps", got, want, steps)
		}
	}
}

// TestNearest: the TTL of what answers is tried, and the one before it, none
// twice; what is farther than an operator's devices is not followed.
func TestNearest(t *testing.T) {
	t.Parallel()
	for n := 1; n <= farthest+1; n++ {
		var (
			mu    sync.Mutex
			tried []int
		)
		nearest(func(ttl int) bool {
			mu.Lock()
			defer mu.Unlock()
			tried = append(tried, ttl)
			return ttl >= n
		})
		slices.Sort(tried)
		if len(slices.Compact(slices.Clone(tried))) != len(tried) {
			t.Errorf("twice: %v", tried)
		}
		near := []int{n - 1, n}
		switch n {
		case 1:
			near = []int{1}
		case farthest + 1:
			near = nil
			if len(tried) != 5 {
				t.Errorf("nobody answered %v", tried)
			}
		}
		for _, ttl := range near {
			if !slices.Contains(tried, ttl) {
				t.Errorf("%d answers, and %d was not tried: %v", n, ttl, tried)
			}
		}
	}
}
