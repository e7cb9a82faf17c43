package cli

import (
	"slices"
	"sync"
	"testing"

	"govah/check"
	"govah/lab"
	"govah/measure"
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
func searched(t *testing.T, text string) (*locator, func() []measure.Location) {
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
	cfg.Pace = check.PaceFast
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
	return o, func() []measure.Location {
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
	o, found := searched(t, redirectedScenario)
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
	o, found := searched(t, redirectedScenario)
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
