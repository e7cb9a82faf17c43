package box

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"govah/packet"
)

func blockedTLS(action string, change func(*Rule)) Rule {
	r := Rule{Layer: "tls", Names: []string{"blocked.example"}, Action: action}
	if change != nil {
		change(&r)
	}
	return r
}

// resets checks that each of the resets is one that its receiver accepts:
// in sequence, and acknowledging nothing that was not sent.
func (c *tcp) resets(out []sent) (client, server []sent) {
	c.t.Helper()
	for _, s := range out {
		if s.Flags&packet.RST == 0 {
			continue
		}
		switch s.d {
		case In:
			if s.Source() != c.server || s.Destination() != c.client || s.Seq != c.sseq {
				c.t.Errorf("the client gets a reset %d beside its sequence", int32(s.Seq-c.sseq))
			}
			client = append(client, s)
		case Out:
			if s.Source() != c.client || s.Destination() != c.server {
				c.t.Errorf("the server gets a reset from %v", s.Source())
			}
			server = append(server, s)
		}
	}
	return client, server
}

func TestTLSReset(t *testing.T) {
	for name, change := range map[string]func(*Rule){
		"both ends":   nil,
		"client":      func(r *Rule) { r.Ends = "client" }, // IR-15, CN-09
		"server":      func(r *Rule) { r.Ends = "server" },
		"three":       func(r *Rule) { r.Count, r.Growing, r.Flags = 3, true, "RA" }, // CN-04
		"R RA RA RA":  func(r *Rule) { r.Flags, r.Growing = "R RA RA RA", true },     // CN-04
		"on the path": func(r *Rule) { r.OnPath = true },
		"late":        func(r *Rule) { r.OnPath, r.After = true, "80ms" },
		"marks":       func(r *Rule) { r.Ends, r.IPID, r.TTL, r.Data = "client", 1, 58, "\x01\x02\x03" }, // CN-09
		"copied":      func(r *Rule) { r.CopyIPID, r.CopyTTL = true, true },                              // BN-01
	} {
		for _, ends := range [][2]netip.AddrPort{{client4, server4}, {client6, server6}} {
			t.Run(name, func(t *testing.T) {
				l := newLink(t, blockedTLS("reset", change))
				c := l.open(ends[0], ends[1])
				if _, err := packet.ParseClientHelloStream([]byte(hello(t, "other.example"))); err != nil {
					t.Fatal(err)
				}
				before := c.cseq
				out := c.up(hello(t, "blocked.example"))
				client, server := c.resets(out)
				r := l.box.(*Filter).rules[0]
				wantClient, wantServer := r.Count, r.Count
				if r.Ends == "client" {
					wantServer = 0
				} else if r.Ends == "server" {
					wantClient = 0
				}
				if len(client) != wantClient || len(server) != wantServer {
					t.Fatalf("%d resets to the client, %d to the server; want %d, %d", len(client), len(server), wantClient, wantServer)
				}
				if passed := len(out) - len(client) - len(server); (passed == 1) != r.OnPath || passed > 1 {
					t.Errorf("the trigger passed %d times, on the path is %v", passed, r.OnPath)
				}
				if r.OnPath && out[0].d != Out {
					t.Error("a box beside the path is ahead of the packet")
				}
				for i, s := range client {
					if s.Flags&packet.ACK != 0 && s.Ack != c.cseq {
						t.Errorf("reset %d acknowledges %d, the client sent up to %d", i, s.Ack, c.cseq)
					}
					if want := r.flags[min(i, len(r.flags)-1)]; s.Flags != want {
						t.Errorf("reset %d has flags %x, want %x", i, s.Flags, want)
					}
					if r.Growing && i > 0 && (s.TTL <= client[i-1].TTL || s.Window <= client[i-1].Window) {
						t.Errorf("TTL and window do not grow: %d, %d", s.TTL, s.Window)
					}
					if s.delay < r.after || i > 0 && s.delay <= client[i-1].delay {
						t.Errorf("reset %d comes after %v", i, s.delay)
					}
					if string(s.Payload) != r.Data {
						t.Errorf("payload %q", s.Payload)
					}
					if r.TTL != 0 && !r.Growing && s.TTL != uint8(r.TTL) || r.CopyTTL && s.TTL != 60 {
						t.Errorf("TTL %d", s.TTL)
					}
					if !s.V6() && (r.IPID != 0 && s.ID != uint16(r.IPID) || r.CopyIPID && s.ID != 4321) {
						t.Errorf("IP ID %d", s.ID)
					}
				}
				for _, s := range server {
					want := before
					if r.OnPath { // the hello is ahead
						want = c.cseq
					}
					if s.Seq != want {
						t.Errorf("the server gets a reset at %d, it expects %d", s.Seq, want)
					}
				}
				// Another name at the same address is left alone.
				l.wait(time.Second)
				o := l.open(netip.AddrPortFrom(ends[0].Addr(), 40001), ends[1])
				if !only(o.up(hello(t, "other.example")), Out) || !o.passes() {
					t.Error("another name was touched")
				}
			})
		}
	}
}

func TestResetOffsets(t *testing.T) {
	// US-01: two back to back, the second 12503 further on.
	l := newLink(t, blockedTLS("reset", func(r *Rule) { r.Offsets, r.Ends = []int{0, 12503}, "client" }))
	c := l.open(client4, server4)
	out := c.up(hello(t, "blocked.example"))
	if len(out) != 2 || out[0].Seq != c.sseq || out[1].Seq-out[0].Seq != 12503 {
		t.Errorf("%d resets", len(out))
	}
}

// A ClientHello in three segments, in any order, and in TLS records of its
// own, is put together by a device that reassembles, and only by one.
func TestSplitClientHello(t *testing.T) {
	flight := hello(t, "blocked.example")
	at := strings.Index(flight, "blocked.example") + 5
	cuts := [3][2]int{{0, 200}, {200, at}, {at, len(flight)}}
	if at < 200 {
		cuts = [3][2]int{{0, at}, {at, at + 300}, {at + 300, len(flight)}}
	}
	for _, order := range [][3]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {2, 0, 1}} {
		for _, defeats := range []bool{false, true} {
			l := newLink(t, blockedTLS("drop", func(r *Rule) { r.Split = defeats }))
			c := l.open(client4, server4)
			start := c.cseq
			passed := 0
			for _, i := range order {
				c.cseq = start + uint32(cuts[i][0])
				passed += len(c.up(flight[cuts[i][0]:cuts[i][1]]))
			}
			if want := map[bool]int{false: 2, true: 3}[defeats]; passed != want {
				t.Errorf("order %v, splitting defeats %v: %d segments passed, want %d", order, defeats, passed, want)
			}
		}
	}
	// Split over TLS records.
	var records strings.Builder
	for msg := flight[5:]; msg != ""; {
		n := min(100, len(msg))
		records.WriteString("\x16\x03\x01\x00" + string(rune(n)) + msg[:n])
		msg = msg[n:]
	}
	l := newLink(t, blockedTLS("drop", nil))
	if c := l.open(client4, server4); len(c.up(records.String())) != 0 {
		t.Error("a hello over several TLS records passed")
	}
	// The name in the first of two segments is enough for a device without
	// reassembly: post-quantum hellos do not fit into one.
	if at < 1000 {
		l = newLink(t, blockedTLS("drop", func(r *Rule) { r.Split = true }))
		c := l.open(client4, server4)
		if len(c.up(flight[:1400])) != 0 {
			t.Error("the name was whole in the first segment, which passed")
		}
	}
}

// IR-14: nothing is injected, the segments are swallowed; the 4-tuple stays
// dead, retransmissions included.
func TestTLSDrop(t *testing.T) {
	l := newLink(t, blockedTLS("drop", nil))
	c := l.open(client4, server4)
	start := c.cseq
	if out := c.up(hello(t, "blocked.example")); len(out) != 0 {
		t.Fatalf("%d packets left", len(out))
	}
	for range 3 {
		l.wait(time.Second)
		c.cseq = start
		if len(c.up(hello(t, "blocked.example"))) != 0 || len(c.down("late")) != 0 {
			t.Error("the flow came back to life")
		}
	}
	// IR-21: the hello reaches the server, its answer does not come back.
	l = newLink(t, blockedTLS("drop", func(r *Rule) { r.Side = "in" }))
	c = l.open(client4, server4)
	if !only(c.up(hello(t, "blocked.example")), Out) || len(c.down("server hello")) != 0 || !only(c.up("more"), Out) {
		t.Error("not the server's direction alone was dropped")
	}
	// CN-06: it takes a second to engage.
	l = newLink(t, blockedTLS("drop", func(r *Rule) { r.Side, r.Engage = "out", "1s" }))
	c = l.open(client4, server4)
	if !only(c.up(hello(t, "blocked.example")), Out) || !c.passes() {
		t.Error("it engaged at once")
	}
	l.wait(time.Second)
	if len(c.up("x")) != 0 || !only(c.down("x"), In) {
		t.Error("it did not engage after a second, or in both directions")
	}
}

// IR-16: an empty PSH/ACK with the IP ID of the ClientHello, then nothing.
func TestPushThenDrop(t *testing.T) {
	l := newLink(t, Rule{Layer: "tls", Names: []string{"blocked.example"}, Action: "drop", Push: 1, CopyIPID: true, TTL: 90})
	c := l.open(client4, server4)
	out := c.up(hello(t, "blocked.example"))
	if !only(out, In) || out[0].Flags != packet.PSH|packet.ACK || len(out[0].Payload) != 0 || out[0].ID != 4321 || out[0].TTL != 90 || out[0].Seq != c.sseq || out[0].Ack != c.cseq {
		t.Fatalf("%+v", out)
	}
	if len(c.down("server hello")) != 0 {
		t.Error("the flow goes on")
	}
}

func TestTLSAlert(t *testing.T) {
	l := newLink(t, blockedTLS("alert", func(r *Rule) { r.Alert = 112 }))
	c := l.open(client4, server4)
	out := c.up(hello(t, "blocked.example"))
	if !only(out, In) || !bytes.Equal(out[0].Payload, []byte{21, 3, 3, 0, 2, 2, 112}) || out[0].Seq != c.sseq || out[0].Ack != c.cseq || out[0].Flags&packet.FIN == 0 {
		t.Fatalf("%+v", out)
	}
	if len(c.down("late answer")) != 0 {
		t.Error("the server's answer came through as well")
	}
}

// IR-36: names that are not on the list complete their handshake and then get
// nothing; new connections to the address are refused for a minute.
func TestAllowListAfterHandshake(t *testing.T) {
	l := newLink(t, Rule{Layer: "tls", Allow: []string{".allowed.example"}, Action: "drop", Handshaken: true, Residual: "destination", For: "60s", Then: "reset"})
	record := func(kind byte, n int) string {
		return string([]byte{kind, 3, 3, byte(n >> 8), byte(n)}) + strings.Repeat("x", n)
	}
	// A connection to an allowed name, opened before, to the same address.
	c := l.open(client4, server4)
	steps := []struct {
		up   bool
		data string
		want bool
	}{
		{true, hello(t, "other.example"), true},
		{false, record(22, 90) + record(20, 1) + record(23, 1000)[:300], true},
		{false, record(23, 1000)[300:], true},
		{true, record(20, 1) + record(23, 60), false}, // Finished: the handshake is done
		{false, record(23, 500), false},
		{true, record(23, 100), false},
	}
	for i, s := range steps {
		out := c.down
		if s.up {
			out = c.up
		}
		if got := len(out(s.data)) == 1; got != s.want {
			t.Errorf("step %d: passed %v, want %v", i, got, s.want)
		}
	}
	l.wait(30 * time.Second)
	n := l.unopened(netip.AddrPortFrom(client4.Addr(), 40009), server4)
	out := n.send(Out, n.segment(true, packet.SYN, nil))
	refused := to(out, In)
	if len(refused) != 1 || refused[0].Flags != packet.RST|packet.ACK || refused[0].Ack != n.cseq+1 {
		t.Errorf("a new connection to the address is not refused: %+v", out)
	}
	l.wait(31 * time.Second)
	if !only(n.send(Out, n.segment(true, packet.SYN, nil)), Out) {
		t.Error("it is still refused after a minute")
	}
	ok := l.open(netip.AddrPortFrom(client4.Addr(), 40010), netip.MustParseAddrPort("198.51.100.21:443"))
	ok.up(hello(t, "www.allowed.example"))
	ok.down(record(22, 90) + record(23, 100))
	if ok.up(record(23, 60)); !ok.passes() {
		t.Error("an allowed name was cut off")
	}
	none := l.open(netip.AddrPortFrom(client4.Addr(), 40011), netip.MustParseAddrPort("198.51.100.22:443"))
	none.up(hello(t, ""))
	none.down(record(22, 90) + record(23, 100))
	if len(none.up(record(23, 60))) != 0 {
		t.Error("a hello without a name is on the list")
	}
}

func TestDropAfter(t *testing.T) {
	// RU-02: some further packets pass, then nothing does.
	l := newLink(t, blockedTLS("drop-after", func(r *Rule) { r.Packets = 5 }))
	c := l.open(client4, server4)
	if !only(c.up(hello(t, "blocked.example")), Out) {
		t.Fatal("the trigger did not pass")
	}
	passed := 0
	for i := range 12 {
		if i%2 == 0 {
			passed += len(c.down("x"))
		} else {
			passed += len(c.up("x"))
		}
	}
	if passed != 5 {
		t.Errorf("%d further packets passed, want 5", passed)
	}
	// Records of data from the server, counted after the handshake.
	record := func(kind byte) string { return string([]byte{kind, 3, 3, 0, 4}) + "data" }
	l = newLink(t, blockedTLS("drop-after", func(r *Rule) { r.Records, r.Handshaken = 2, true }))
	c = l.open(client4, server4)
	c.up(hello(t, "blocked.example"))
	c.down(record(22) + record(23) + record(23))
	c.up(record(20) + record(23))
	for i, want := range []int{1, 1, 0} {
		if got := len(c.down(record(23))); got != want {
			t.Errorf("record %d of data: %d packets came through, want %d", i+1, got, want)
		}
	}
}

// RU-08, and the same by bytes.
func TestFreeze(t *testing.T) {
	l := newLink(t, Rule{Layer: "tcp", Addresses: []string{"198.51.100.0/24"}, Action: "freeze", Bytes: 16000})
	for _, port := range []uint16{40000, 40001} { // each flow has its own count
		c := l.open(netip.AddrPortFrom(client4.Addr(), port), server4)
		c.up(hello(t, "any.example"))
		got := 0
		for range 30 {
			for _, s := range c.down(strings.Repeat("x", 1000)) {
				got += len(s.Payload)
			}
		}
		if got != 16000 {
			t.Errorf("%d bytes came through", got)
		}
		if !only(c.up("still here"), Out) {
			t.Error("the client's direction froze as well")
		}
	}
	c := l.open(client4, netip.MustParseAddrPort("203.0.113.1:443"))
	for range 30 {
		if !only(c.down(strings.Repeat("x", 1000)), In) {
			t.Fatal("another network froze")
		}
	}
}

// RU-01: what the server sends arrives as a bare reset.
func TestResetReplies(t *testing.T) {
	l := newLink(t, blockedTLS("reset-replies", nil))
	c := l.open(client4, server4)
	if !only(c.up(hello(t, "blocked.example")), Out) {
		t.Fatal("the trigger did not pass")
	}
	seq := c.sseq
	out := c.down("server hello")
	if len(out) != 1 || out[0].d != In || out[0].Flags != packet.RST|packet.ACK || len(out[0].Payload) != 0 || out[0].Seq != seq || out[0].TTL != 55 {
		t.Errorf("%+v", out)
	}
}

func TestECHAndExtensions(t *testing.T) {
	withExtension := func(name string, id uint16) string {
		h := []byte(hello(t, name))
		extra := []byte{byte(id >> 8), byte(id), 0, 2, 1, 1}
		h = append(h, extra...)
		// record, handshake and extension lengths grow
		grow := func(at, width int) {
			n := 0
			for i := range width {
				n = n<<8 | int(h[at+i])
			}
			n += len(extra)
			for i := width - 1; i >= 0; i-- {
				h[at+i] = byte(n)
				n >>= 8
			}
		}
		grow(3, 2)
		grow(6, 3)
		at := 5 + 4 + 2 + 32
		at += 1 + int(h[at])
		at += 2 + int(h[at])<<8 + int(h[at+1])
		at += 1 + int(h[at])
		grow(at, 2)
		return string(h)
	}
	for i, c := range []struct {
		rule  Rule
		hello string
		hit   bool
	}{
		{Rule{ESNI: true}, withExtension("any.example", 0xffce), true}, // CN-06, IR-16
		{Rule{ESNI: true}, hello(t, "any.example"), false},
		{Rule{ECH: true, Names: []string{"cloudflare-ech.com"}}, withExtension("cloudflare-ech.com", 0xfe0d), true}, // RU-06
		{Rule{ECH: true, Names: []string{"cloudflare-ech.com"}}, withExtension("other.example", 0xfe0d), false},
		{Rule{ECH: true, Names: []string{"cloudflare-ech.com"}}, hello(t, "cloudflare-ech.com"), false},
		{Rule{Extensions: []uint16{17513}}, withExtension("any.example", 17513), true},
		{Rule{Extensions: []uint16{17513}}, hello(t, "any.example"), false},
	} {
		c.rule.Layer, c.rule.Action = "tls", "drop"
		l := newLink(t, c.rule)
		if got := len(l.open(client4, server4).up(c.hello)) == 0; got != c.hit {
			t.Errorf("case %d: hit %v", i, got)
		}
	}
}

func TestTriggerConditions(t *testing.T) {
	syn := packet.TCPOptions{Timestamps: true}.Marshal()
	drop := func(change func(*Rule)) Rule { return blockedTLS("drop", change) }
	for name, c := range map[string]struct {
		rule Rule
		play func(l *link) []sent // the trigger's fate
		hit  bool
	}{
		"no handshake needed": {drop(nil), func(l *link) []sent { return l.unopened(client4, server4).up(hello(t, "blocked.example")) }, true}, // IR-10, CN-09
		"handshake needed":    {drop(func(r *Rule) { r.Handshake = "full" }), func(l *link) []sent { return l.unopened(client4, server4).up(hello(t, "blocked.example")) }, false},
		"handshake given":     {drop(func(r *Rule) { r.Handshake = "full" }), func(l *link) []sent { return l.open(client4, server4).up(hello(t, "blocked.example")) }, true},
		"syn is enough": {drop(func(r *Rule) { r.Handshake = "syn" }), func(l *link) []sent { // IR-11
			c := l.unopened(client4, server4)
			c.send(Out, c.segment(true, packet.SYN, nil))
			c.cseq++
			return c.up(hello(t, "blocked.example"))
		}, true},
		"TCP header with options": {drop(func(r *Rule) { r.NoOptions = true }), func(l *link) []sent { // CN-09
			c := l.open(client4, server4)
			c.options = syn
			return c.up(hello(t, "blocked.example"))
		}, false},
		"TCP header of 20 bytes": {drop(func(r *Rule) { r.NoOptions = true }), func(l *link) []sent { return l.open(client4, server4).up(hello(t, "blocked.example")) }, true},
		"other port":             {drop(func(r *Rule) { r.Ports = []int{443} }), func(l *link) []sent { return l.open(client4, web4).up(hello(t, "blocked.example")) }, false},
		"all but the port":       {drop(func(r *Rule) { r.NotPorts = []int{443} }), func(l *link) []sent { return l.open(client4, web4).up(hello(t, "blocked.example")) }, true},
		"other address":          {drop(func(r *Rule) { r.Addresses = []string{"203.0.113.0/24"} }), func(l *link) []sent { return l.open(client4, server4).up(hello(t, "blocked.example")) }, false},
		"other client":           {drop(func(r *Rule) { r.Clients = []string{"203.0.113.0/24"} }), func(l *link) []sent { return l.open(client4, server4).up(hello(t, "blocked.example")) }, false},
		"other family":           {drop(func(r *Rule) { r.Family = "ipv6" }), func(l *link) []sent { return l.open(client4, server4).up(hello(t, "blocked.example")) }, false},
		"before its time":        {drop(func(r *Rule) { r.From = "2026-03-02" }), func(l *link) []sent { return l.open(client4, server4).up(hello(t, "blocked.example")) }, false},
		"after its time":         {drop(func(r *Rule) { r.Until = "2026-03-01T12:00:00Z" }), func(l *link) []sent { return l.open(client4, server4).up(hello(t, "blocked.example")) }, false},
		"in its hours":           {drop(func(r *Rule) { r.Hours = "11-13" }), func(l *link) []sent { return l.open(client4, server4).up(hello(t, "blocked.example")) }, true},
		"outside its hours":      {drop(func(r *Rule) { r.Hours = "22-6" }), func(l *link) []sent { return l.open(client4, server4).up(hello(t, "blocked.example")) }, false},
		"second of two": {drop(func(r *Rule) { r.Times = 2 }), func(l *link) []sent { // TM-02
			l.open(client4, server4).up(hello(t, "blocked.example"))
			l.wait(10 * time.Second)
			return l.open(netip.AddrPortFrom(client4.Addr(), 40001), server4).up(hello(t, "blocked.example"))
		}, true},
		"first of two": {drop(func(r *Rule) { r.Times = 2 }), func(l *link) []sent { return l.open(client4, server4).up(hello(t, "blocked.example")) }, false},
		"second too late": {drop(func(r *Rule) { r.Times = 2 }), func(l *link) []sent {
			l.open(client4, server4).up(hello(t, "blocked.example"))
			l.wait(40 * time.Second)
			return l.open(netip.AddrPortFrom(client4.Addr(), 40001), server4).up(hello(t, "blocked.example"))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if out := c.play(newLink(t, c.rule)); (len(out) == 0) != c.hit {
				t.Errorf("hit %v, want %v", len(out) == 0, c.hit)
			}
		})
	}
}

// A flow keeps the fate that its first packet was given, and the share of
// flows is close to what the rule says.
func TestShareOfFlows(t *testing.T) {
	for _, share := range []int{2, 50, 90} {
		l := newLink(t, Rule{Layer: "tcp", Segment: "data", Action: "drop", Share: share})
		const flows = 4000
		dropped := 0
		for i := range flows {
			c := l.open(netip.AddrPortFrom(client4.Addr(), uint16(20000+i)), server4)
			first := len(c.up("x")) == 0
			for range 3 {
				if (len(c.up("x")) == 0) != first || (len(c.down("x")) == 0) != first {
					t.Fatal("a flow changed its fate")
				}
			}
			if first {
				dropped++
			}
		}
		// Four standard deviations of a binomial distribution.
		want, p := flows*share/100, float64(share)/100
		if d := float64(dropped - want); d*d > 16*flows*p*(1-p) {
			t.Errorf("share %d: %d of %d flows", share, dropped, flows)
		}
	}
}

func TestRandomnessIsTheSeeds(t *testing.T) {
	fates := func(seed uint64) (out []bool) {
		f, err := NewFilter([]Rule{{Layer: "tcp", Action: "drop", Share: 50}}, seed, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 64 {
			passed := false
			f.Handle(Out, packet.BuildTCP(packet.Segment{Src: netip.AddrPortFrom(client4.Addr(), uint16(i)), Dst: server4, Flags: packet.SYN}),
				time.Time{}, func(Direction, []byte, time.Duration) { passed = true })
			out = append(out, passed)
		}
		return out
	}
	if !slices.Equal(fates(1), fates(1)) {
		t.Error("the same seed gives other fates")
	}
	if slices.Equal(fates(1), fates(2)) {
		t.Error(fmt.Sprint("two seeds give the same fates: ", fates(1)))
	}
}
