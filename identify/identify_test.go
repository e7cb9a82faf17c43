package identify

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
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

// Every form has a prior: without one nothing that is seen of it counts.
func TestEveryFormHasAPrior(t *testing.T) {
	for payload, f := range forms {
		for _, form := range append(f.core, f.more...) {
			if p := usual[form]; p <= 0 || p >= 1 {
				t.Errorf("%s %s is read with probability %v", payload, form, p)
			}
		}
		if len(f.core)+len(f.more) > 32 || len(f.core) >= MaxForm {
			t.Errorf("%s has %d forms, %d of them asked of every device", payload, len(f.core)+len(f.more), len(f.core))
		}
	}
}

// sibling differs from a behaviour in how it reads one form, of those that may
// be sent.
func sibling(b known.Behaviour, rng *rand.Rand, own bool) known.Behaviour {
	all := slices.DeleteFunc(Forms(b.Payload), func(f string) bool { return Odd(f) && !own })
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
	e.sent++
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
func (d device) search(t *Table, own bool) *Evidence {
	e := &Evidence{Payload: d.Payload, Own: own, Writes: map[string]string{}, Reads: map[string]*Tally{}}
	form := Plain
	for e.sent < MaxForm && form != "" {
		d.pair(e, form)
		if form = Plain; e.tally(Plain).Reacted > 0 {
			form, _ = t.Next(e)
		}
	}
	return e
}

// drawn makes a table of documented rows, each complete, and a sibling of each.
func drawn(rng *rand.Rand, own bool) []known.Behaviour {
	var rows []known.Behaviour
	for _, row := range known.Behaviours() {
		if row.Captured {
			continue // told by marks alone, see marks_test.go
		}
		b := complete(row, rng)
		rows = append(rows, b, sibling(b, rng, own))
	}
	return rows
}

// TestToldApart: of behaviours that differ from another one in one property,
// the right one is named, within the bound of probes.
func TestToldApart(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, helper := range []bool{false, true} { // which takes odd forms as well
		right, claimed, probes, most := 0, 0, 0, 0
		for range *trials {
			rows := drawn(rng, helper)
			truth := rows[rng.IntN(len(rows))]
			table := own(rows)
			e := device{truth, rng}.search(table, helper)
			if id := table.conclude(e); len(id.Behaviours) > 0 && id.Behaviours[0].Row == truth.ID {
				right++
				if id.Outcome == measure.BehaviourKnown {
					claimed++
				}
			}
			probes, most = probes+e.sent, max(most, e.sent)
		}
		t.Logf("seed %d, odd forms %v: %d of %d right, %d of them claimed, %.1f probes on average, at most %d", seed, helper, right, *trials, claimed, float64(probes)/float64(*trials), most)
		if !atLeast(95, right, *trials) || most > MaxForm {
			t.Error("want 95 % with at most 12 probes")
		}
	}
}

// TestLeftOut: a behaviour that is not in the table is not taken for another
// one. Harder, and only reported: its sibling, which differs in one form of up
// to seventeen, is in the table.
func TestLeftOut(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 2))
	for _, apart := range []bool{true, false} {
		unknown := 0
		for range *trials {
			rows := drawn(rng, false)
			i := rng.IntN(len(rows))
			truth := rows[i]
			low, high := i, i+1
			if apart {
				low, high = i&^1, (i|1)+1
			}
			table := own(append(rows[:low:low], rows[high:]...))
			if id := table.conclude(device{truth, rng}.search(table, false)); id.Outcome == measure.UnknownDevice {
				unknown++
			}
		}
		t.Logf("seed %d: sibling left out %v: %d of %d called unknown", seed, apart, unknown, *trials)
		if apart && !atLeast(95, unknown, *trials) {
			t.Error("want 95 %")
		}
	}
}

// ordinaryWords are what pages of filters are made of, whoever makes them.
var ordinaryWords = strings.Fields("access denied blocked site page policy administrator network error 403 forbidden order law request web filter firewall url category contact this the is your has been by not available content security gateway system notice warning internet service provider court government ministry please website address requested restricted violation company rule application control")

// TestNoVendorByBehaviour: whatever a device does, only a signature names a
// product. Each device answers with a page or an address of its own.
func TestNoVendorByBehaviour(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 3))
	documented := Documented(nil)
	page := func() string {
		var w []string
		for range 20 + rng.IntN(80) {
			word := ordinaryWords[rng.IntN(len(ordinaryWords))]
			if rng.IntN(3) == 0 {
				word = strings.ToUpper(word[:1]) + word[1:]
			}
			w = append(w, word)
		}
		return "<html><head><title>" + strings.Join(w[:4], " ") + "</title></head><body><h1>" + strings.Join(w[4:10], " ") + "</h1><p>" + strings.Join(w[10:], " ") + "</p></body></html>"
	}
	for i := range 10_000 {
		meta := measure.Observation{Stage: measure.StageIdentify, Experiment: measure.ExpForm, Form: Plain, Pair: 1, Sent: 1}
		c, x := meta, meta
		c.ID, c.Role = "o1", measure.RoleControl
		x.ID, x.Role, x.Control = "o2", measure.RoleTest, "o1"
		if i%2 == 0 {
			c.Step, x.Step = measure.StepHTTP, measure.StepHTTP
			c.Host, x.Host = "randomx.example", "blocked.example"
			c.HTTP = &measure.HTTP{Status: 404}
			x.HTTP = &measure.HTTP{Status: []int{200, 302, 403, 451}[rng.IntN(4)], Headers: []measure.Header{{Name: "Server", Value: ordinaryWords[rng.IntN(len(ordinaryWords))]}}}
			x.HTTP.Matches = documented.Match(x.HTTP, []byte(page()))
		} else {
			addr := netip.AddrFrom4([4]byte{byte(1 + rng.IntN(223)), byte(rng.IntN(256)), byte(rng.IntN(256)), byte(rng.IntN(256))})
			c.Step, x.Step = measure.StepDNS, measure.StepDNS
			c.DNS = &measure.DNS{Name: "randomx.example", Transport: "udp", NoResolver: true}
			x.DNS = &measure.DNS{Name: "blocked.example", Transport: "udp", NoResolver: true, Replies: []measure.DNSReply{{Rcode: "NOERROR", Answers: []measure.DNSAnswer{{Type: "A", Value: addr.String(), TTLS: int64(rng.IntN(600))}}}}}
		}
		id := documented.Infer(&measure.Measurement{Complete: true, Observations: []measure.Observation{c, x}})
		if id == nil || id.Triggers != 1 {
			t.Fatalf("seed %d, trial %d: no reaction: %+v", seed, i, id)
		}
		if len(id.Products) > 0 || id.Outcome == measure.ProductNamed {
			t.Fatalf("seed %d, trial %d: %v named", seed, i, id.Products)
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
	least := 200
	for _, row := range known.Behaviours() {
		d := device{complete(row, rng), rng}
		ids := map[string]int{}
		for range 200 {
			table := own(nil)
			if rng.IntN(2) == 0 {
				table = Documented(nil)
			}
			ids[table.conclude(d.search(table, false)).Cluster]++
		}
		best := 0
		for _, n := range ids {
			best = max(best, n)
		}
		least = min(least, best)
		if !atLeast(90, best, 200) {
			t.Errorf("%s: %v", row.ID, ids)
		}
	}
	t.Logf("at least %d of 200 searches give one id", least)
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
			if rare[name] == 0 && !form {
				t.Errorf("%s: no property %q of %s", row.ID, name, row.Payload)
			}
			if form && (len(list) != 1 || list[0] != measure.Reads && list[0] != measure.Blind) {
				t.Errorf("%s: %s is %v", row.ID, name, list)
			}
		}
		e := &Evidence{Payload: row.Payload, Writes: map[string]string{}, Reads: map[string]*Tally{Plain: {Reacted: 1}}}
		for name, list := range row.Properties {
			if rare[name] > 0 {
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

// TestOrdinaryDevice: a filter as most are is nobody's in particular.
func TestOrdinaryDevice(t *testing.T) {
	reads := func(blind ...string) map[string]*Tally {
		m := map[string]*Tally{Plain: {Reacted: 2}}
		for _, f := range Forms(Web) {
			m[f] = &Tally{Reacted: 1}
		}
		for _, f := range blind {
			m[f] = &Tally{Passed: 2}
		}
		return m
	}
	for name, e := range map[string]*Evidence{
		"a 403 and methods in capitals": {Payload: Web, Writes: map[string]string{"action": "page", "status": "403"}, Reads: reads(MethodCase, Glued)},
		"a 302":                         {Payload: Web, Writes: map[string]string{"action": "redirect", "status": "302"}, Reads: reads(MethodCase, Glued)},
		"no reassembly":                 {Payload: Web, Writes: map[string]string{"action": "reset"}, Reads: reads(MethodCase, Split)},
		"127.0.0.1 for five minutes": {Payload: Naming, Writes: map[string]string{"action": "answer", "answer": "127.0.0.1", "dns-ttl": "300", "aa": "no", "rcode": "noerror", "replies": "1"},
			Reads: map[string]*Tally{Plain: {Reacted: 2}, AAAA: {Reacted: 1}, Upper: {Reacted: 1}}},
	} {
		if id := Documented(nil).conclude(e); id.Outcome != measure.UnknownDevice {
			t.Errorf("%s: %s %v", name, id.Outcome, id.Behaviours)
		}
	}
}

// TestLookalikes: what servers send by themselves names nobody.
func TestLookalikes(t *testing.T) {
	page := func(role measure.Role, id, control, host string, status int, kind string, pair int) measure.Observation {
		o := measure.Observation{ID: id, Step: measure.StepHTTP, Role: role, Stage: measure.StageIdentify, Experiment: measure.ExpForm, Form: Plain, Pair: pair, Control: control, Host: host, HTTP: &measure.HTTP{Status: status}}
		if kind != "" {
			for _, row := range known.Signatures() {
				if row.Kind == kind && row.Product != "" {
					o.HTTP.Matches = []measure.Match{{Row: row.ID, Kind: kind, Product: "not what the row says", Vendor: "nor this"}}
					break
				}
			}
		}
		return o
	}
	for _, c := range []struct {
		kind   string
		status int
		want   measure.Likeness
	}{{"captcha", 404, measure.NothingReacts}, {"lookalike", 403, measure.UnknownDevice}, {"blockpage", 404, measure.ProductNamed}} {
		m := &measure.Measurement{Complete: true, Observations: []measure.Observation{
			page(measure.RoleControl, "o1", "", "randomx.example", 404, "", 1), page(measure.RoleTest, "o2", "o1", "blocked.example", c.status, c.kind, 1)}}
		id := Documented(nil).Infer(m)
		if id.Outcome != c.want {
			t.Errorf("%s: %s", c.kind, id.Outcome)
		}
		for _, p := range id.Products {
			if row, _ := known.SignatureOf(p.Row); p.Name != row.Product || p.Vendor != row.Vendor {
				t.Errorf("%s: the file names %s of %s", c.kind, p.Name, p.Vendor)
			}
		}
	}
}

// FuzzInfer: a measurement file may hold anything.
func FuzzInfer(f *testing.F) {
	f.Add([]byte(`{"observations":[{"id":"o1","step":"dns","role":"control","stage":"identify","experiment":"form","form":"plain","dns":{"name":"a"}},{"id":"o2","step":"dns","role":"test","stage":"identify","experiment":"form","form":"plain","control":"o1"}]}`))
	f.Add([]byte(`{"observations":[{"id":"o1","step":"http","role":"control","stage":"identify","experiment":"form","form":"plain","http":{"status":404}},{"id":"o2","step":"dns","role":"test","stage":"identify","experiment":"form","form":"plain","control":"o1","http":{"status":200}}]}`))
	f.Add([]byte(`{"observations":[{"id":"o1","step":"tls","role":"control","stage":"identify","experiment":"form","form":"plain","tls":{"server_bytes":true}},{"id":"o2","step":"tls","role":"test","stage":"identify","experiment":"form","form":"plain","control":"o1"}]}`))
	f.Add([]byte(`{"observations":[{"id":"o1","step":"tls","role":"control","stage":"identify","experiment":"form","form":"plain","family":"ipv4","tls":{"alert":-1,"server_bytes":true},"packets":[{"at_us":1,"ttl":60,"flags":"SA"}]},{"id":"o2","step":"tls","role":"test","stage":"identify","experiment":"form","form":"plain","family":"ipv4","control":"o1","failure":"connection_reset","tls":{"alert":-1},"packets":[{"at_us":1,"ttl":60,"flags":"SA"},{"at_us":2,"sent":true,"ttl":64,"ip_id":9,"flags":"PA","seq":4294967295,"ack":7,"bytes":300},{"at_us":3,"ttl":62,"ip_id":13330,"flags":"RA","seq":7,"ack":299,"bytes":2,"data":"0001"},{"at_us":4,"ttl":63,"flags":"R"}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var m measure.Measurement
		if json.Unmarshal(data, &m) != nil {
			return
		}
		if id := Documented(nil).Infer(&m); id != nil {
			if _, err := json.Marshal(id); err != nil {
				t.Fatal(err)
			}
			if id.Outcome == measure.ProductNamed && len(id.Products) == 0 {
				t.Error("a product without a name")
			}
		}
	})
}

// atLeast says whether a count speaks against a share in percent: not if it is
// within four standard deviations, which chance does not leave in 10,000 runs.
func atLeast(percent, count, of int) bool {
	p := float64(percent) / 100
	return float64(count) >= float64(of)*p-4*math.Sqrt(float64(of)*p*(1-p))
}
