package identify

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"govah/known"
	"govah/measure"
)

var trials = flag.Int("trials", 2000, "devices to draw in each of the tests about telling them apart")

// A device is what a search meets: the properties of a behaviour, all of them
// settled, behind a path that loses and invents a little.
type device struct {
	known.Behaviour
	rng *rand.Rand
}

// complete gives a documented row every property that it leaves open.
func complete(row known.Behaviour, rng *rand.Rand) known.Behaviour {
	properties := map[string][]string{}
	for name, list := range row.Properties {
		properties[name] = []string{list[rng.IntN(len(list))]}
	}
	for _, form := range Forms(row.Payload) {
		if properties[form] == nil {
			properties[form] = []string{[]string{measure.Reads, measure.Blind}[rng.IntN(2)]}
		}
	}
	row.Properties = properties
	return row
}

// sibling differs from a behaviour in how it reads one form.
func sibling(b known.Behaviour, rng *rand.Rand) known.Behaviour {
	all := Forms(b.Payload)
	form := all[rng.IntN(len(all))]
	properties := maps.Clone(b.Properties)
	properties[form] = []string{map[string]string{measure.Reads: measure.Blind, measure.Blind: measure.Reads}[b.Properties[form][0]]}
	b.ID += "/" + form
	b.Properties = properties
	return b
}

// pair is one pair of a form: a device misses some of what it reads, and some
// pairs differ by chance.
func (d device) pair(e *Evidence, form string) {
	reads := form == Plain || d.Properties[form][0] == measure.Reads
	hit := d.rng.Float64() < 0.003
	if reads {
		hit = d.rng.Float64() >= 0.03
	}
	t := e.tally(form)
	e.pairs++
	if !hit {
		t.Passed++
		return
	}
	t.Reacted++
	for _, name := range written {
		if v := d.Properties[name]; v != nil {
			e.Writes[name] = v[0]
		}
	}
}

// search does with a device what package check does on the network.
func (d device) search(t *Table) *Evidence {
	e := &Evidence{Payload: d.Payload, Writes: map[string]string{}, Reads: map[string]*Tally{}}
	form := Plain
	for e.pairs < MaxForm && form != "" {
		d.pair(e, form)
		if form = Plain; e.tally(Plain).Reacted > 0 {
			form, _ = t.Next(e)
		}
	}
	return e
}

// drawn makes a table of documented rows, each complete, and a sibling of each.
func drawn(rng *rand.Rand) []known.Behaviour {
	var rows []known.Behaviour
	for _, row := range known.Behaviours() {
		b := complete(row, rng)
		rows = append(rows, b, sibling(b, rng))
	}
	return rows
}

// TestToldApart: of behaviours that differ from another one in one property,
// the right one is named, within the bound of probes.
func TestToldApart(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	right, probes, most := 0, 0, 0
	for range *trials {
		rows := drawn(rng)
		truth := rows[rng.IntN(len(rows))]
		table := own(rows)
		e := device{truth, rng}.search(table)
		if id := table.conclude(e); len(id.Behaviours) > 0 && id.Outcome == measure.BehaviourKnown && id.Behaviours[0].Row == truth.ID {
			right++
		}
		probes, most = probes+e.pairs, max(most, e.pairs)
	}
	t.Logf("seed %d: %d of %d right, %.1f probes on average, at most %d", seed, right, *trials, float64(probes)/float64(*trials), most)
	if right*100 < 95**trials || most > MaxForm {
		t.Error("want 95 % with at most 12 probes")
	}
}

// TestLeftOut: a behaviour that is not in the table is not taken for another
// one. Harder, and only reported: its sibling, which differs in one form of up
// to sixteen, is in the table.
func TestLeftOut(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 2))
	for _, apart := range []bool{true, false} {
		unknown := 0
		for range *trials {
			rows := drawn(rng)
			i := rng.IntN(len(rows))
			truth := rows[i]
			low, high := i, i+1
			if apart {
				low, high = i&^1, (i|1)+1
			}
			table := own(append(rows[:low:low], rows[high:]...))
			if id := table.conclude(device{truth, rng}.search(table)); id.Outcome == measure.UnknownDevice {
				unknown++
			}
		}
		t.Logf("seed %d: sibling left out %v: %d of %d called unknown", seed, apart, unknown, *trials)
		if apart && unknown*100 < 95**trials {
			t.Error("want 95 %")
		}
	}
}

// TestNoVendorByBehaviour: whatever a device does, only a signature names a
// product.
func TestNoVendorByBehaviour(t *testing.T) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), 3))
	documented := Documented(nil)
	for i := range 10_000 {
		rows := known.Behaviours()
		d := device{complete(rows[rng.IntN(len(rows))], rng), rng}
		if i%2 == 0 {
			d.Behaviour = sibling(d.Behaviour, rng)
		}
		id := documented.conclude(d.search(documented))
		if len(id.Products) > 0 || id.Outcome == measure.ProductNamed {
			t.Fatalf("%v named for %v", id.Products, d.Properties)
		}
		for _, b := range id.Behaviours {
			if b.Vendor != "" {
				t.Fatalf("vendor %s for a behaviour", b.Vendor)
			}
		}
	}
}

// TestCluster: the id of a behaviour does not depend on chance, on addresses
// or on what the table holds.
func TestCluster(t *testing.T) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), 4))
	for _, row := range known.Behaviours() {
		d := device{complete(row, rng), rng}
		ids := map[string]int{}
		for range 200 {
			table := own(nil)
			if rng.IntN(2) == 0 {
				table = Documented(nil)
			}
			ids[table.conclude(d.search(table)).Cluster]++
		}
		best := 0
		for _, n := range ids {
			best = max(best, n)
		}
		if best < 180 {
			t.Errorf("%s: %v", row.ID, ids)
		}
	}
}

// TestDocumentedRows: each row is valid, and a device that is as the row says
// is likened to it or to rows that say the same.
func TestDocumentedRows(t *testing.T) {
	for _, row := range known.Behaviours() {
		for name, list := range row.Properties {
			form := false
			for _, f := range Forms(row.Payload) {
				form = form || f == name
			}
			if _, ok := values[name]; !ok && !form {
				t.Errorf("%s: no property %q of %s", row.ID, name, row.Payload)
			}
			if form && (len(list) != 1 || list[0] != measure.Reads && list[0] != measure.Blind) {
				t.Errorf("%s: %s is %v", row.ID, name, list)
			}
		}
		e := &Evidence{Payload: row.Payload, Writes: map[string]string{}, Reads: map[string]*Tally{Plain: {Reacted: 1}}, pairs: 1}
		for name, list := range row.Properties {
			if values[name] > 0 {
				e.Writes[name] = list[0]
			} else if list[0] == measure.Reads {
				e.Reads[name] = &Tally{Reacted: 1}
			} else {
				e.Reads[name] = &Tally{Passed: 2}
			}
		}
		found := false
		for _, b := range Documented(nil).conclude(e).Behaviours {
			found = found || b.Row == row.ID
		}
		if !found {
			t.Errorf("%s is not like itself: %v", row.ID, fmt.Sprint(Documented(nil).conclude(e).Behaviours))
		}
	}
}

// own is a table of these behaviours alone.
func own(rows []known.Behaviour) *Table { return &Table{rows, known.Shipped()} }

// TestDiffer: what a server does with any name it is asked for is no reaction.
func TestDiffer(t *testing.T) {
	answer := func(host string, status int, location string) *measure.Observation {
		return &measure.Observation{Step: measure.StepHTTP, Host: host, HTTP: &measure.HTTP{Status: status, Location: location}}
	}
	for _, c := range []struct {
		test, control *measure.Observation
		differ        bool
	}{
		{answer("BLOCKED.example", 301, "https://blocked.example/"), answer("RANDOMX.example", 301, "https://randomx.example/"), false},
		{answer("blocked.example.", 301, "https://blocked.example/"), answer("randomx.example.", 301, "https://randomx.example./"), false},
		{answer("blocked.example:80", 302, "/login"), answer("randomx.example:80", 302, "/login"), false},
		{answer("blocked.example", 302, "http://10.10.34.36/"), answer("randomx.example", 301, "https://randomx.example/"), true},
		{answer("blocked.example", 301, "http://10.10.34.36/"), answer("randomx.example", 301, "https://randomx.example/"), true},
		{answer("blocked.example", 403, ""), answer("randomx.example", 404, ""), true},
	} {
		if got := Differ(c.test, c.control); got != c.differ {
			t.Errorf("%d to %q beside %d to %q: %v", c.test.HTTP.Status, c.test.HTTP.Location, c.control.HTTP.Status, c.control.HTTP.Location, got)
		}
	}
}
