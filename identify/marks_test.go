package identify

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"govah/known"
	"govah/measure"
)

// sender is a device as its packets show it.
type sender struct {
	ttl, id, window int
	df              bool
	flags           []string
	rising, copies  bool
	counts, random  bool
	seq             []int64
	ack             string // "", zero, seq+3
	data            string
	gap             int64 // us
	rng             *rand.Rand
	next            int
}

// pair is one pair that a device resets, as it would be captured; lost is the
// share of its packets that do not arrive, in percent.
func (d *sender) pair(n, lost int) []measure.Observation {
	base, isn := int64(d.rng.Uint32()), int64(d.rng.Uint32())
	wrap := func(v int64) int64 { return int64(uint32(v)) }
	open := []measure.Packet{
		{AtUS: 1000, Sent: true, TTL: 64, Flags: "S", Window: 64240, Seq: wrap(base - 1), DF: true},
		{AtUS: 9000, TTL: 53, Flags: "SA", Window: 65160, Seq: wrap(isn - 1), Ack: base, DF: true},
		{AtUS: 9100, Sent: true, TTL: 64, IPID: 1 + d.rng.IntN(60000), Flags: "PA", Window: 502, Seq: base, Ack: isn, Bytes: 500 + n, DF: true},
	}
	meta := measure.Observation{Step: measure.StepTLS, Stage: measure.StageIdentify, Experiment: measure.ExpForm, Form: Plain, Pair: n, Family: measure.IPv4}
	c, t := meta, meta
	c.ID, c.Role, c.SNI, c.TLS = fmt.Sprintf("o%d", 2*n-1), measure.RoleControl, "random.example", &measure.TLS{ServerBytes: true, Alert: -1}
	c.Packets = append(slices.Clone(open), measure.Packet{AtUS: 17000, TTL: 53, IPID: 4711, Flags: "PA", Seq: isn, Ack: wrap(base + 500 + int64(n)), Bytes: 1200, DF: true})
	t.ID, t.Role, t.SNI, t.Control = fmt.Sprintf("o%d", 2*n), measure.RoleTest, "blocked.example", c.ID
	t.TLS, t.Failure = &measure.TLS{Alert: -1}, measure.ConnectionReset
	trigger := open[2]
	t.Packets = slices.Clone(open)
	for i, flags := range d.flags {
		p := measure.Packet{AtUS: 10_000 + int64(i)*d.gap, TTL: d.ttl - 3, IPID: d.id, Window: d.window, DF: d.df, Flags: flags, Seq: isn,
			Bytes: len(d.data) / 2, Data: d.data}
		if d.rising {
			p.TTL, p.Window = p.TTL+i, p.Window+100+17*i
		}
		switch {
		case d.copies:
			p.IPID = trigger.IPID
		case d.counts:
			p.IPID = (d.id + d.next) & 0xffff
			d.next++
		case d.random:
			p.IPID = d.rng.IntN(1 << 16)
		}
		if i < len(d.seq) {
			p.Seq = wrap(isn + d.seq[i])
		}
		if strings.Contains(flags, "A") {
			switch p.Ack = wrap(base + int64(trigger.Bytes)); d.ack {
			case "zero":
				p.Ack = 0
			case "seq+3":
				p.Ack = wrap(base + 3)
			}
		}
		if d.rng.IntN(100) >= lost {
			t.Packets = append(t.Packets, p)
		}
	}
	return []measure.Observation{c, t}
}

func (d *sender) marks(pairs, lost int) map[string]string {
	var list []measure.Observation
	for n := range pairs {
		list = append(list, d.pair(n+1, lost)...)
	}
	return Gather(list).Writes
}

// TestMarkRules: each rule is told from the packets, and one packet alone does
// not make a rule.
func TestMarkRules(t *testing.T) {
	plain := sender{ttl: 64, flags: []string{"RA"}}
	with := func(change func(*sender)) sender { s := plain; change(&s); return s }
	ordinary := map[string]string{"ip-ttl": "64", "ip-id": "zero", "df": "no", "flags": "RA", "packets": "1", "window": "zero", "seq": "expected", "ack": "expected", "payload": "none"}
	for _, c := range []struct {
		sender
		pairs int
		want  map[string]string // beside ordinary; "-": none
	}{
		{plain, 3, nil},
		{plain, 1, nil},
		{with(func(s *sender) { s.ttl = 255 }), 3, map[string]string{"ip-ttl": "255"}},
		{with(func(s *sender) { s.ttl = 32 }), 3, map[string]string{"ip-ttl": "32"}},
		{with(func(s *sender) { s.id = 30000 }), 3, map[string]string{"ip-id": "0x7530"}},
		{with(func(s *sender) { s.id = 30000 }), 1, map[string]string{"ip-id": "-"}},
		{with(func(s *sender) { s.copies = true }), 3, map[string]string{"ip-id": "copied"}},
		{with(func(s *sender) { s.counts, s.id = true, 65534 }), 4, map[string]string{"ip-id": "+1"}},
		{with(func(s *sender) { s.random = true }), 6, map[string]string{"ip-id": "varied"}},
		{with(func(s *sender) { s.df = true }), 3, map[string]string{"df": "yes"}},
		{with(func(s *sender) { s.window = 1234 }), 3, map[string]string{"window": "1234"}},
		{with(func(s *sender) { s.window = 1234 }), 1, map[string]string{"window": "-"}},
		{with(func(s *sender) { s.window = 502 }), 3, map[string]string{"window": "copied"}},
		{with(func(s *sender) { s.flags = []string{"R"} }), 3, map[string]string{"flags": "R", "ack": "-"}},
		{with(func(s *sender) { s.flags, s.rising, s.gap = []string{"R", "RA", "RA"}, true, 300 }), 3,
			map[string]string{"flags": "R,RA,RA", "packets": "3", "ip-ttl": "rising", "window": "rising", "ack": "none,expected,expected", "spacing": "<10ms"}},
		{with(func(s *sender) { s.flags, s.seq, s.gap = []string{"RA", "RA"}, []int64{0, 12503}, 20_000 }), 2,
			map[string]string{"flags": "RA,RA", "packets": "2", "seq": "expected,+12503", "spacing": "10-100ms"}},
		{with(func(s *sender) { s.seq = []int64{-1} }), 2, map[string]string{"seq": "-1"}},
		{with(func(s *sender) { s.ack = "seq+3" }), 3, map[string]string{"ack": "seq+3"}},
		{with(func(s *sender) { s.ack = "zero" }), 3, map[string]string{"ack": "zero"}},
		{with(func(s *sender) { s.data = "01020304050607080900" }), 3, map[string]string{"payload": "01020304050607080900"}},
		{with(func(s *sender) { s.flags, s.seq, s.rising = []string{"R", "RA", "RA"}, []int64{0, 1460, 4380}, true }), 40,
			map[string]string{"flags": "R,RA,RA", "packets": "3", "ip-ttl": "rising", "window": "rising", "seq": "expected,+1460,+4380", "ack": "none,expected,expected", "spacing": "<10ms"}},
	} {
		c.rng = rand.New(rand.NewPCG(rand.Uint64(), 6))
		lost := 0
		if c.pairs == 40 {
			lost = 10
		}
		got := c.marks(c.pairs, lost)
		for _, name := range marks {
			want := ordinary[name]
			if v, ok := c.want[name]; ok {
				want = strings.TrimPrefix(v, "-")
				if strings.HasPrefix(v, "-") && len(v) > 1 {
					want = v
				}
			}
			if got[name] != want {
				t.Errorf("%+v, %d pairs: %s is %q, want %q", c.sender, c.pairs, name, got[name], want)
			}
		}
	}
}

// TestOwnPackets: what is as the server sends is the server's, whatever became
// of the test.
func TestOwnPackets(t *testing.T) {
	d := &sender{ttl: 64, flags: []string{"R"}, rng: rand.New(rand.NewPCG(7, 7))}
	isn := func(list []measure.Observation) int64 { return list[1].Packets[2].Ack }
	for name, c := range map[string]struct {
		change func(list []measure.Observation)
		flags  string // of what is the device's
	}{
		"the device's alone": {func([]measure.Observation) {}, "R"},
		"the server answers all the same": {func(l []measure.Observation) {
			l[1].Packets = append(l[1].Packets, measure.Packet{AtUS: 20_000, TTL: 53, IPID: 99, Flags: "PA", Seq: isn(l), Bytes: 1200})
		}, "R"},
		"a reset of the server's own": {func(l []measure.Observation) { l[1].Packets[3].TTL = 53 }, ""},
		"one with another IP ID than any of the server's": {func(l []measure.Observation) {
			l[0].Packets[3].IPID, l[1].Packets[3].TTL, l[1].Packets[3].IPID = 0, 53, 0x3412
		}, "R"},
		"the control was reset as well": {func(l []measure.Observation) { l[0].TLS.ServerBytes = false }, ""},
		"the test passed":               {func(l []measure.Observation) { l[1].TLS.ServerBytes, l[1].Failure = true, "" }, ""},
		"the server was not seen": {func(l []measure.Observation) {
			l[0].Packets = nil
			l[1].Packets = slices.DeleteFunc(l[1].Packets, func(p measure.Packet) bool { return p.Flags == "SA" })
		}, ""},
		"before the trigger": {func(l []measure.Observation) {
			p := l[1].Packets
			p[2], p[3] = p[3], p[2]
		}, ""},
		"nothing that is a packet": {func(l []measure.Observation) { l[1].Packets[3].Flags = "\x1b[31m" }, ""},
	} {
		list := d.pair(1, 0)
		c.change(list)
		if got := Gather(list).Writes["flags"]; got != c.flags {
			t.Errorf("%s: flags %q, want %q", name, got, c.flags)
		}
	}
}

// TestMarksOfPages: of a page in several segments the sequence follows, and
// what the server says after it is not the device's.
func TestMarksOfPages(t *testing.T) {
	for _, c := range []struct {
		seq  []int64
		want string
	}{{[]int64{0, 1200}, "expected"}, {[]int64{0, 1460}, "expected,+260"}} {
		d := &sender{ttl: 128, flags: []string{"A", "FPA"}, seq: c.seq, rng: rand.New(rand.NewPCG(8, 8))}
		list := d.pair(1, 0)
		list[1].Packets[3].Bytes, list[1].Packets[4].Bytes = 1200, 300
		list[1].Packets = append(list[1].Packets, measure.Packet{AtUS: 20_000, TTL: 53, IPID: 99, Flags: "PA", Seq: list[1].Packets[2].Ack, Bytes: 900})
		for i, host := range []string{"random.example", "blocked.example"} {
			list[i].Step, list[i].TLS, list[i].Host, list[i].Failure = measure.StepHTTP, nil, host, ""
			list[i].HTTP = &measure.HTTP{Status: []int{200, 403}[i]}
		}
		if w := Gather(list).Writes; w["action"] != "page" || w["flags"] != "A,FPA" || w["seq"] != c.want || w["ip-ttl"] != "128" || w["payload"] != "" {
			t.Errorf("%v: %v", c.seq, w)
		}
	}
}

// TestMarksName: a documented behaviour is told by its packets from others
// that do the same, and only a signature names a product.
func TestMarksName(t *testing.T) {
	table := Documented(nil)
	for _, c := range []struct {
		name, row string
		outcome   measure.Likeness
		pairs     int
		sender
	}{
		{"China's three", "cn.tls_rising", measure.BehaviourKnown, 4, sender{ttl: 64, flags: []string{"RA", "RA", "RA"}, rising: true, random: true}},
		{"Henan's", "henan.tls_reset", measure.BehaviourKnown, 4, sender{ttl: 64, flags: []string{"RA"}, id: 1, data: "01020304050607080900"}},
		{"the constant as Egypt's reports have it", "eg.tls_1234", measure.BehaviourKnown, 4, sender{ttl: 64, flags: []string{"R"}, id: 0x1234}},
		{"PacketLogic's", "eg.tls_1234", measure.ProductNamed, 4, sender{ttl: 64, flags: []string{"RA"}, id: 0x3412}},
		{"the number once", "", measure.UnknownDevice, 1, sender{ttl: 64, flags: []string{"RA"}, id: 0x3412}},
		{"an ordinary filter's", "", measure.UnknownDevice, 4, sender{ttl: 64, flags: []string{"RA"}, df: true}},
		{"another ordinary filter's", "", measure.UnknownDevice, 4, sender{ttl: 255, flags: []string{"R"}, random: true}},
		{"one that copies", "", measure.UnknownDevice, 4, sender{ttl: 128, flags: []string{"RA"}, copies: true}},
	} {
		c.rng = rand.New(rand.NewPCG(9, 9))
		m := &measure.Measurement{Complete: true}
		for n := range c.pairs {
			m.Observations = append(m.Observations, c.pair(n+1, 0)...)
		}
		id := table.Infer(m)
		if id.Outcome != c.outcome || c.row != "" && (len(id.Behaviours) == 0 || id.Behaviours[0].Row != c.row) {
			t.Errorf("%s: %s, %v", c.name, id.Outcome, id.Behaviours)
		}
		for _, p := range id.Products {
			if row, ok := known.SignatureOf(p.Row); !ok || row.Where != "packet:ip-id" || p.Name != "PacketLogic" || len(p.Because) < 2 {
				t.Errorf("%s: %+v", c.name, p)
			}
		}
		// The same search without the right to capture: the same id.
		for i := range m.Observations {
			m.Observations[i].Packets = nil
		}
		plain := table.Infer(m)
		if plain.Cluster != id.Cluster || plain.Outcome != measure.UnknownDevice {
			t.Errorf("%s: %s without a capture, %s with one; %s", c.name, plain.Cluster, id.Cluster, plain.Outcome)
		}
		for _, b := range plain.Behaviours {
			if slices.ContainsFunc(known.Behaviours(), func(r known.Behaviour) bool { return r.ID == b.Row && r.Captured }) {
				t.Errorf("%s: %s is told by nothing but packets", c.name, b.Row)
			}
		}
	}
}

// TestMarksToldApart: of two devices that differ in one mark, and of which
// both are documented, the right one is named although a part of their packets
// is lost.
func TestMarksToldApart(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 10))
	pick := func(list ...string) []string { return strings.Split(list[rng.IntN(len(list))], ",") }
	right, claimed := 0, 0
	trials := min(*trials, 1000)
	for range trials {
		a := sender{ttl: []int{64, 128, 255}[rng.IntN(3)], flags: pick("R", "RA", "RA,RA,RA"), window: rng.IntN(2) * 1234, df: rng.IntN(2) == 0, id: rng.IntN(2) * 4321, rng: rng, gap: 300}
		b := a
		switch rng.IntN(7) {
		case 0:
			b.ttl = map[int]int{64: 128, 128: 255, 255: 64}[a.ttl]
		case 1:
			b.id = 777
		case 2:
			b.copies = true
		case 3:
			b.df = !a.df
		case 4:
			b.window = 555
		case 5:
			b.flags = map[string][]string{"R": {"RA"}, "RA": {"R"}}[a.flags[0]]
		case 6:
			b.seq = []int64{1460}
		}
		var rows []known.Behaviour
		for i, d := range []*sender{&a, &b} {
			d.rng = rng
			row := known.Behaviour{ID: fmt.Sprint(i), Payload: TLS, Captured: true, Properties: map[string][]string{"action": {"reset"}}}
			for name, v := range d.marks(3, 0) {
				if name != "spacing" {
					row.Properties[name] = []string{v}
				}
			}
			rows = append(rows, row)
		}
		truth := rng.IntN(2)
		m := &measure.Measurement{Complete: true}
		for n := range 6 {
			m.Observations = append(m.Observations, []*sender{&a, &b}[truth].pair(n+1, 3)...)
		}
		id := own(rows).Infer(m)
		if len(id.Behaviours) > 0 && id.Behaviours[0].Row == rows[truth].ID {
			right++
			if id.Outcome == measure.BehaviourKnown {
				claimed++
			}
		}
	}
	t.Logf("seed %d: %d of %d right, %d of them claimed", seed, right, trials, claimed)
	if !atLeast(95, right, trials) {
		t.Error("want 95 %")
	}
}

// TestNoVendorByMarks: whatever packets a device sends, only a signature names
// a product, and of other numbers there is none.
func TestNoVendorByMarks(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 11))
	table := Documented(nil)
	for n := range 5000 {
		d := sender{ttl: []int{64, 128, 255}[rng.IntN(3)], id: rng.IntN(1 << 16), window: rng.IntN(1 << 16), df: rng.IntN(2) == 0, rng: rng,
			flags: [][]string{{"R"}, {"RA"}, {"R", "RA"}, {"RA", "RA", "RA"}}[rng.IntN(4)], copies: rng.IntN(4) == 0, random: rng.IntN(4) == 0, rising: rng.IntN(8) == 0,
			seq: [][]int64{nil, {0, 1460}, {0, int64(rng.IntN(100_000))}}[rng.IntN(3)]}
		if d.id == 0x3412 || len(d.seq) > 1 && d.seq[1] == 12503 {
			continue
		}
		m := &measure.Measurement{Complete: true}
		for k := range 3 {
			m.Observations = append(m.Observations, d.pair(k+1, 0)...)
		}
		if id := table.Infer(m); len(id.Products) > 0 || id.Outcome == measure.ProductNamed {
			t.Fatalf("seed %d, trial %d: %v for %+v", seed, n, id.Products, d)
		}
	}
}
