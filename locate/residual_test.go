package locate_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"govah/locate"
	"govah/measure"
)

// TestResidual finds out what stays blocked after a trigger, and for how long,
// within a tenth.
func TestResidual(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	const lasts = 30 * time.Second // longer than a search after which all is blocked
	for _, c := range []struct {
		key, action, then string
		want              measure.ResidualKey
	}{
		{"4-tuple", "reset", "drop", measure.Residual4Tuple},
		{"3-tuple", "reset", "reset", measure.Residual3Tuple},
		{"destination", "drop", "drop", measure.ResidualDestination},
		{"client", "drop", "drop", measure.ResidualClient},
	} {
		t.Run(c.key, func(t *testing.T) {
			t.Parallel()
			l := located(t, fmt.Sprintf("hops = 5\ndelay = \"5ms\"\n[[client-network.box]]\nat = 3\n[[client-network.box.rule]]\nlayer = \"tls\"\nnames = [\"blocked.example\"]\naction = %q\nresidual = %q\nfor = %q\nthen = %q\n[[network]]\nname = \"hosting\"\nhops = 1\n",
				c.action, c.key, lasts, c.then), func(_ *emulated, s *locate.Spec) { s.Residual = 2 * lasts })
			if l.Residual != c.want {
				t.Errorf("%s stays blocked, not %s", l.Residual, c.want)
			}
			took := time.Duration(l.ResidualMS) * time.Millisecond
			if off := math.Abs(float64(took-lasts)) / float64(lasts); off > 0.1 {
				t.Errorf("for %s, not %s: %.0f %% off", took, lasts, 100*off)
			}
			if len(l.Set) == 0 || l.Set[0].Low+1 != 4 {
				t.Errorf("found at %v", l.Set)
			}
		})
	}
}

// TestTiredServer: a server that turns a client away after many broken
// connections is no device on the path, whatever was sent just then.
func TestTiredServer(t *testing.T) {
	for _, action := range []string{"drop", "reset"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			// The hoster's router, before which the rule stands, is silent: all
			// others speak on.
			l := located(t, fmt.Sprintf("hops = 9\ndelay = \"5ms\"\n[[client-network.box]]\nat = 9\n[[client-network.box.rule]]\nlayer = \"tcp\"\nsegment = \"syn\"\nports = [443]\ntimes = 9\naction = %q\n"+
				"residual = \"destination\"\nfor = \"60s\"\n[[network]]\nname = \"hosting\"\nhops = 1\nsilent = [1]\n", action), func(*emulated, *locate.Spec) {})
			if len(l.Set) > 0 || l.Outcome != measure.NotLocated {
				t.Errorf("%s %s %v", l.Outcome, l.Kind, l.Set)
			}
		})
	}
}

// TestLimitedRouters: a router that sends two errors a second is silent just
// after it spoke. Its silence is no device, and what lies behind it is found.
func TestLimitedRouters(t *testing.T) {
	for _, action := range []string{"action = \"dns-answer\"\nanswers = [\"10.10.34.35\"]\nany-type = true", "action = \"drop\""} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprint(action[:13], seed), func(t *testing.T) {
				t.Parallel()
				l := located(t, "hops = 5\ndelay = \"2ms\"\nicmp-per-second = 2\n[[client-network.box]]\nat = 3\n[[client-network.box.rule]]\nlayer = \"dns\"\nnames = [\"blocked.example\"]\n"+action+
					"\n[[network]]\nname = \"hosting\"\nhops = 1\ndelay = \"3ms\"\n", func(e *emulated, s *locate.Spec) { *s = e.spec(locate.DNS, false, seed) })
				if len(l.Set) == 0 || l.Set[0].Low != 3 || l.Outcome != measure.Located {
					t.Errorf("%s %s %v", l.Outcome, l.Kind, l.Set)
				}
			})
		}
	}
}
