package box

import (
	"slices"
	"testing"

	"govah/packet"
)

// TestMarksOfPackets: the numbers of injected packets follow the rules that
// are set for them, each of which some device is known to follow.
func TestMarksOfPackets(t *testing.T) {
	const triggers = 3
	for name, c := range map[string]struct {
		set  func(*Rule)
		want func(got []sent, at uint32) bool // at: where the trigger begins
	}{
		"plain": {func(*Rule) {}, func(got []sent, at uint32) bool {
			return got[0].ID == 0 && got[0].Window == 0 && got[0].Ack == at+uint32(len(request("blocked.example", "/")))
		}},
		"copied window": {func(r *Rule) { r.CopyWindow = true }, func(got []sent, _ uint32) bool { return got[0].Window == 500 }},
		"random window": {func(r *Rule) { r.RandomWin, r.Count = true, 4 }, func(got []sent, _ uint32) bool {
			return got[0].Window != got[1].Window && got[1].Window != got[2].Window
		}},
		"random IP ID": {func(r *Rule) { r.RandomIPID, r.Count = true, 4 }, func(got []sent, _ uint32) bool {
			return got[0].ID != got[1].ID && got[1].ID != got[2].ID
		}},
		// US-01: ours and 4, then one more.
		"steps from ours": {func(r *Rule) { r.CopyIPID, r.IPIDSteps, r.Count = true, []int{4, 5}, 2 }, func(got []sent, _ uint32) bool {
			return got[0].ID == 4325 && got[1].ID == 4326
		}},
		// CN-05.
		"less than ours": {func(r *Rule) { r.CopyIPID, r.IPIDSteps = true, []int{-26} }, func(got []sent, _ uint32) bool { return got[0].ID == 4295 }},
		"ack of 3 bytes": {func(r *Rule) { r.Ack = "+3" }, func(got []sent, at uint32) bool { return got[0].Ack == at+3 }},
		"ack of nothing": {func(r *Rule) { r.Ack = "zero" }, func(got []sent, _ uint32) bool { return got[0].Ack == 0 && got[0].Flags&packet.ACK != 0 }},
		"pushed":         {func(r *Rule) { r.Flags = "RPA" }, func(got []sent, _ uint32) bool { return got[0].Flags == packet.RST|packet.PSH|packet.ACK }},
	} {
		t.Run(name, func(t *testing.T) {
			rule := Rule{Layer: "http", Names: []string{"blocked.example"}, Action: "reset", Ends: "client"}
			c.set(&rule)
			l := newLink(t, rule)
			for range triggers {
				conn := l.open(client4, web4)
				at := conn.cseq
				got := to(conn.up(request("blocked.example", "/")), In)
				if len(got) != max(1, rule.Count) || !c.want(got, at) {
					t.Fatalf("%+v", got)
				}
			}
		})
	}
	// A counter goes on from one trigger to the next.
	l := newLink(t, Rule{Layer: "http", Names: []string{"blocked.example"}, Action: "reset", Ends: "client", Count: 2, IPID: 65534, CountIPID: true})
	var ids []uint16
	for range triggers {
		for _, s := range to(l.open(client4, web4).up(request("blocked.example", "/")), In) {
			ids = append(ids, s.ID)
		}
	}
	if !slices.Equal(ids, []uint16{65534, 65535, 0, 1, 2, 3}) {
		t.Errorf("IP IDs %v", ids)
	}
	// What the server is told acknowledges what the client did.
	l = newLink(t, Rule{Layer: "http", Names: []string{"blocked.example"}, Action: "reset", Ack: "+3"})
	conn := l.open(client4, web4)
	if out := to(conn.up(request("blocked.example", "/")), Out); len(out) != 1 || out[0].Ack != conn.sseq {
		t.Errorf("to the server: %+v", out)
	}
	for _, r := range []Rule{
		{Layer: "tls", Action: "reset", Ack: "three"}, {Layer: "tls", Action: "reset", Ack: "3"}, {Layer: "tls", Action: "reset", Ack: "+70000"},
		{Layer: "tls", Action: "drop", Ack: "zero"}, {Layer: "tls", Action: "reset", Flags: "PA"},
	} {
		if _, err := NewFilter([]Rule{r}, 1, nil); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
}
