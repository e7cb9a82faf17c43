package cli

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"govah/check"
	"govah/lab"
	"govah/measure"
	"govah/packet"
)

// redirectedScenario leads the questions of the families whose rules it is
// given to the operator's own resolver, behind the third router.
const redirectedScenario = `schema = 1
title = "two families"
about = "Questions of some families are led elsewhere."
[[client-network]]
name = "home"
about = "A line."
asn = 64728
country = "XX"
hops = 5
delay = "3ms"
resolver = "2a0f:10ab::53:53"
address6 = "2a0f:10ab::77"
[[client-network.box]]
at = 3
[[client-network.box.rule]]
layer = "dns"
action = "dns-redirect"
to = "2a0f:10ab::53:53"
[[network]]
name = "hosting"
asn = 64500
country = "DE"
hops = 1
[[site]]
name = "open.example"
addresses = ["45.10.0.10", "2a0e:1000::a"]
[[site]]
name = "resolver.example"
role = "resolver"
addresses = ["45.10.0.20", "2a0e:1000::14"]
[[site]]
name = "canary.example"
role = "canary"
`

// searched makes a locator in a lab, and keeps what its searches find.
func searched(t *testing.T, text string, pace check.Pace) (*lab.World, *locator, func() []measure.Location) {
	t.Helper()
	s, err := lab.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.New(s, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	cfg, err := labConfig(w, 1)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Pace = pace
	var (
		mu  sync.Mutex
		all []measure.Location
	)
	o := newLocator(&search{cfg: &cfg, run: "r1"}, &locatable{}, func(_ *measure.Measurement, list []measure.Location) error {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, list...)
		return nil
	})
	return w, o, func() []measure.Location {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// redirected is a verdict that says that questions of a family are answered
// elsewhere.
func redirected(target string, f measure.Family) check.Result {
	return check.Result{Measurement: &measure.Measurement{}, Verdict: measure.Verdict{Target: target, Findings: []measure.Finding{{
		Method: measure.DNSInterception, Interference: measure.InterferenceConfirmed, Family: f, Trigger: measure.Trigger{Kind: "port", Value: "53"}}}}}
}

// TestLocateFamily: what is done to questions over IPv6 is looked for over
// IPv6, though IPv4, which is left alone, works as well.
func TestLocateFamily(t *testing.T) {
	t.Parallel()
	_, o, found := searched(t, redirectedScenario, check.PaceFast)
	o.found.add(redirected(measure.LineTarget, measure.IPv6))
	if err := o.rest(t.Context()); err != nil {
		t.Fatal(err)
	}
	list := found()
	if len(list) != 1 || list[0].Family != measure.IPv6 || list[0].Kind != measure.Redirects {
		t.Errorf("%+v", list)
	}
}

// TestLocateEarly: the line's redirected questions are looked for while other
// targets are still measured, once: a target's finding that comes later and
// takes its place neither begins another search nor loses what was found.
func TestLocateEarly(t *testing.T) {
	t.Parallel()
	_, o, found := searched(t, redirectedScenario, check.PaceFast)
	o.found.add(redirected(measure.LineTarget, measure.IPv6))
	o.early(t.Context())
	o.running.Wait()
	if list := found(); len(list) != 1 || list[0].Target != measure.LineTarget {
		t.Fatalf("%+v", list)
	}
	later := redirected("https://open.example/", measure.IPv6)
	later.Measurement.Observations = []measure.Observation{{ID: "o1", Role: measure.RoleTest, Remote: "[2a0e:1000::14]:53"}}
	later.Verdict.Findings[0].Because = []string{"o1"}
	o.found.add(later)
	if err := o.rest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list := found(); len(list) != 1 {
		t.Errorf("%d searches", len(list))
	}
	if key := o.found.order[0]; o.found.list[key].line || len(o.found.places[key]) != 1 {
		t.Errorf("%+v, %v", o.found.list[key], o.found.places)
	}
	if places, target := o.found.located(); len(places) != 1 || target != measure.LineTarget {
		t.Errorf("%+v of %q", places, target)
	}
}

// TestLocateGentle: at the gentle pace, searches are made one after the other,
// and in no stretch of time are more questions sent, to whatever TTL and port,
// or connections begun than that pace promises.
func TestLocateGentle(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	t.Parallel()
	before, box, _ := strings.Cut(redirectedScenario, "[[client-network.box]]")
	_, after, _ := strings.Cut(box, "[[network]]")
	text := before + "[client-network.dns-redirect]\nat = 3\nhops = 2\n[[network]]" + after // of both families
	w, o, found := searched(t, text, check.PaceGentle)
	var (
		mu                sync.Mutex
		questions, begun  []time.Time
		v6                []bool
		began, seen, flow = time.Now(), map[string]bool{}, ""
	)
	w.Tap(func(sent bool, b []byte) {
		p, err := packet.Parse(b)
		if err != nil || !sent {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		switch flow = p.Source().String() + " " + p.Destination().String(); {
		case p.Proto == packet.UDP:
			questions, v6 = append(questions, time.Now()), append(v6, p.V6())
		case p.Proto == packet.TCP && !seen[flow]:
			seen[flow], begun = true, append(begun, time.Now())
		}
	})
	o.found.add(redirected(measure.LineTarget, measure.IPv6))
	o.found.add(redirected(measure.LineTarget, measure.IPv4))
	if err := o.rest(t.Context()); err != nil {
		t.Fatal(err)
	}
	list := found()
	if len(list) != 2 || list[0].Family == list[1].Family || list[0].Kind != measure.Redirects || list[1].Kind != measure.Redirects {
		t.Errorf("%+v", list)
	}
	mu.Lock()
	defer mu.Unlock()
	if turns := len(slices.Compact(v6)); turns != 2 {
		t.Errorf("two searches took %d turns", turns)
	}
	if len(questions) < 2*check.GentleAsksAtOnce {
		t.Errorf("%d questions test no pace", len(questions))
	}
	for _, x := range []struct {
		what          string
		list          []time.Time
		burst, second float64
	}{{"questions", questions, check.GentleAsksAtOnce, check.GentleAsks}, {"connections", begun, check.GentleBurst, check.GentleRate}} {
		const late = 0.25 // a turn may be used a moment after it was taken
		for i := range x.list {
			for k := i; k < len(x.list); k++ {
				stretch := x.list[k].Sub(x.list[i]).Seconds()
				if n := k - i + 1; float64(n) > x.burst+x.second*(stretch+late)+1 {
					t.Fatalf("%d %s in %.2f s from %.2f s on", n, x.what, stretch, x.list[i].Sub(began).Seconds())
				}
			}
		}
		t.Logf("%d %s in %.1f s", len(x.list), x.what, time.Since(began).Seconds())
	}
}
