package box

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"govah/packet"
)

func TestIPAndTCPActions(t *testing.T) {
	at := []string{"198.51.100.0/24", "2001:db8:1::/48"}
	for name, c := range map[string]struct {
		rule          Rule
		syn, synAck   bool // pass
		data, answers bool
	}{
		"drop":             {Rule{Layer: "ip", Addresses: at, Action: "drop"}, false, false, false, false},
		"drop out":         {Rule{Layer: "ip", Addresses: at, Action: "drop", Side: "out"}, false, true, false, true},
		"drop in":          {Rule{Layer: "ip", Addresses: at, Action: "drop", Side: "in"}, true, false, true, false},
		"SYN alone":        {Rule{Layer: "tcp", Addresses: at, Action: "drop", Segment: "syn"}, false, true, true, true},
		"SYN/ACK (CN-13)":  {Rule{Layer: "tcp", Addresses: at, Action: "drop", Segment: "syn-ack"}, true, false, true, true},
		"data":             {Rule{Layer: "tcp", Addresses: at, Action: "drop", Segment: "data"}, true, true, false, false},
		"other address":    {Rule{Layer: "ip", Addresses: []string{"203.0.113.1"}, Action: "drop"}, true, true, true, true},
		"UDP":              {Rule{Layer: "udp", Action: "drop"}, true, true, true, true},
		"IPv4 and IPv6":    {Rule{Layer: "ip", Action: "drop", Family: "ipv4"}, false, false, false, false},
		"all but 53 (443)": {Rule{Layer: "ip", NotPorts: []int{53, 443}, Action: "drop"}, true, true, true, true}, // IR-20
	} {
		t.Run(name, func(t *testing.T) {
			for _, ends := range [][2]netip.AddrPort{{client4, server4}, {client6, server6}} {
				if name == "IPv4 and IPv6" && ends[0] == client6 {
					c.syn, c.synAck, c.data, c.answers = true, true, true, true
				}
				l := newLink(t, c.rule)
				conn := l.unopened(ends[0], ends[1])
				got := [4]bool{}
				got[0] = len(conn.send(Out, conn.segment(true, packet.SYN, nil))) == 1
				conn.cseq++
				got[1] = len(conn.send(In, conn.segment(false, packet.SYN|packet.ACK, nil))) == 1
				conn.sseq++
				conn.send(Out, conn.segment(true, packet.ACK, nil))
				got[2] = len(conn.up("data")) == 1
				got[3] = len(conn.down("data")) == 1
				if want := [4]bool{c.syn, c.synAck, c.data, c.answers}; got != want {
					t.Errorf("%v: SYN, SYN/ACK, data, answer pass %v, want %v", ends[0], got, want)
				}
			}
		})
	}
}

// CN-11: a SYN draws resets that a stack accepts for a connection not yet
// open, and so does a SYN/ACK.
func TestResetOfSYN(t *testing.T) {
	l := newLink(t, Rule{Layer: "tcp", Ports: []int{443}, Segment: "syn", Action: "reset", Count: 3, Growing: true, OnPath: true, Ends: "client"})
	c := l.unopened(client4, server4)
	out := c.send(Out, c.segment(true, packet.SYN, nil))
	back := to(out, In)
	if len(back) != 3 || len(to(out, Out)) != 1 {
		t.Fatalf("%d packets", len(out))
	}
	for i, s := range back {
		if s.Flags != packet.RST|packet.ACK || s.Ack != c.cseq+1 || i > 0 && s.TTL != back[i-1].TTL+1 {
			t.Errorf("reset %d: flags %x, ack %d, TTL %d", i, s.Flags, s.Ack, s.TTL)
		}
	}
	// A bare RST would not be accepted in answer to a SYN.
	l = newLink(t, Rule{Layer: "tcp", Segment: "syn", Action: "reset", Flags: "R", Ends: "client"})
	if out := l.send(Out, c.segment(true, packet.SYN, nil)); !only2(out) || out[0].Flags != packet.RST|packet.ACK {
		t.Errorf("%+v", out)
	}
	l = newLink(t, Rule{Layer: "tcp", Segment: "syn-ack", Action: "reset", Ends: "client"})
	c = l.unopened(client4, server4)
	c.send(Out, c.segment(true, packet.SYN, nil))
	c.cseq++
	out = c.send(In, c.segment(false, packet.SYN|packet.ACK, nil))
	if !only2(out) || out[0].d != In || out[0].Seq != c.sseq || out[0].Ack != c.cseq {
		t.Errorf("after a SYN/ACK: %+v", out)
	}
}

func only2(out []sent) bool { return len(out) == 1 && out[0].Flags&packet.RST != 0 }

func TestUnreachable(t *testing.T) {
	for code, want := range map[string][2]uint8{"net": {0, 0}, "": {1, 3}, "host": {1, 3}, "port": {3, 4}, "admin": {13, 1}} {
		for i, ends := range [][2]netip.AddrPort{{client4, server4}, {client6, server6}} {
			l := newLink(t, Rule{Layer: "ip", Addresses: []string{"198.51.100.20", "2001:db8:1::20"}, Action: "unreachable", Code: code, Source: "192.0.2.254"})
			c := l.unopened(ends[0], ends[1])
			out := c.send(Out, c.segment(true, packet.SYN, nil))
			if !only(out, In) || !out[0].IsICMPError() || out[0].Code != want[i] || out[0].Dst != ends[0].Addr() {
				t.Fatalf("code %q: %+v", code, out)
			}
			if q, err := packet.ParseQuote(out[0].Quoted); err != nil || q.Src != ends[0] || q.Dst != ends[1] || q.Seq != c.cseq {
				t.Errorf("code %q: quotes %+v, %v", code, q, err)
			}
			if i == 0 && out[0].Src != netip.MustParseAddr("192.0.2.254") {
				t.Errorf("it comes from %v", out[0].Src)
			}
		}
	}
}

// IR-18 and CN-08: protocols by their first bytes.
func TestShapes(t *testing.T) {
	var random, sparse strings.Builder
	x := uint32(1)
	for range 200 {
		x = x*1664525 + 1013904223
		random.WriteByte(byte(x>>24) | 0x80) // never printable
		sparse.WriteByte(byte(1 << (x >> 29)))
	}
	// Bytes of four ones on average, none printable.
	var full strings.Builder
	for i := range 200 {
		full.WriteByte([]byte{0x87, 0x99, 0xf0, 0x0f}[i%4])
	}
	printable := strings.Repeat("abcdefghijklmnopqrstuvwxy", 1) + full.String()
	for name, c := range map[string]struct {
		shape string
		first string
		hit   bool
	}{
		"SSH":                      {"unknown", "SSH-2.0-OpenSSH_9.9\r\n", true},
		"HTTP":                     {"unknown", "GET / HTTP/1.1\r\n", false},
		"HTTP, lower case":         {"unknown", "get / HTTP/1.1\r\n", true},
		"TLS":                      {"unknown", "\x16\x03\x01\x02\x00rest", false},
		"TLS of another version":   {"unknown", "\x16\x03\x04\x02\x00rest", true},
		"DNS over TCP":             {"unknown", "\x00\x10" + strings.Repeat("d", 16), false},
		"random":                   {"unknown", random.String(), true},
		"fully encrypted":          {"random", full.String(), true},
		"few ones":                 {"random", sparse.String(), false},
		"printable prefix":         {"random", "abcdef" + full.String(), false},
		"a printable run":          {"random", full.String() + printable[:25] + full.String(), false},
		"mostly printable":         {"random", "\x01\x87" + strings.Repeat("abcdefghij\xf0", 20), false},
		"TLS is no random":         {"random", "\x17\x03\x03" + full.String(), false},
		"HTTP is no random":        {"random", "GET /" + full.String(), false},
		"an SSH banner is no such": {"random", "SSH-2.0-OpenSSH_9.9\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLink(t, Rule{Layer: "tcp", Shape: c.shape, Action: "drop", Side: "out", Residual: "3-tuple", For: "60s", RestartTrigger: true})
			conn := l.open(client4, server4)
			if got := len(conn.up(c.first)) == 0; got != c.hit {
				t.Fatalf("dropped %v, want %v", got, c.hit)
			}
			if got := len(conn.up("GET / HTTP/1.1\r\n")) == 0; got != c.hit {
				t.Errorf("the packet after it: dropped %v, want %v", got, c.hit)
			}
			if !only(conn.down("server"), In) {
				t.Error("the server's direction was touched")
			}
		})
	}
	// A large ClientHello of two segments is TLS, also its second half.
	l := newLink(t, Rule{Layer: "tcp", Shape: "unknown", Action: "drop"})
	c := l.open(client4, server4)
	flight := hello(t, "any.example")
	if !only(c.up(flight[:1000]), Out) || !only(c.up(flight[1000:]), Out) {
		t.Error("a ClientHello of two segments was taken for an unknown protocol")
	}
	c = l.open(netip.AddrPortFrom(client4.Addr(), 40001), server4)
	if !only(c.up(flight[:500]), Out) || !only(c.up(flight[500:1000]), Out) || !only(c.up(flight[1000:]), Out) {
		t.Error("a ClientHello of three segments was taken for an unknown protocol")
	}
	// Not the first packet, but the second is odd.
	c = l.open(netip.AddrPortFrom(client4.Addr(), 40002), server4)
	if !only(c.up("\x00\x10"+strings.Repeat("d", 16)), Out) || len(c.up("odd")) != 0 {
		t.Error("the second packet was not looked at")
	}
	if c = l.open(netip.AddrPortFrom(client4.Addr(), 40003), server4); !only(c.up("\x00\x10"+strings.Repeat("d", 16)), Out) ||
		!only(c.up("\x00\x10"+strings.Repeat("e", 16)), Out) || !only(c.up("odd"), Out) {
		t.Error("the third packet was looked at")
	}
}

func TestResidual(t *testing.T) {
	other := netip.AddrPortFrom(client4.Addr(), 40001)
	neighbour := netip.MustParseAddrPort("192.0.2.11:40002")
	elsewhere := netip.MustParseAddrPort("203.0.113.9:443")
	for key, dead := range map[string][5]bool{
		// the same 4-tuple, another port of the client, another port of the
		// server, another client, another server
		"4-tuple":     {true, false, false, false, false}, // IR-14, KZ-02
		"3-tuple":     {true, true, false, false, false},  // CN-04, CN-06
		"destination": {true, true, true, true, false},    // IR-36
		"client":      {true, true, true, false, true},    // IR-21
	} {
		t.Run(key, func(t *testing.T) {
			l := newLink(t, blockedTLS("drop", func(r *Rule) { r.Residual, r.For = key, "60s" }))
			l.open(client4, server4).up(hello(t, "blocked.example"))
			try := func() (got [5]bool) {
				for i, ends := range [][2]netip.AddrPort{{client4, server4}, {other, server4}, {other, web4}, {neighbour, server4}, {other, elsewhere}} {
					c := l.unopened(ends[0], ends[1])
					got[i] = len(c.send(Out, c.segment(true, packet.SYN, nil))) == 0
				}
				return got
			}
			l.wait(59 * time.Second)
			if got := try(); got != dead {
				t.Errorf("after 59 s: dead %v, want %v", got, dead)
			}
			l.wait(2 * time.Second)
			if got := try(); got != [5]bool{} {
				t.Errorf("after 61 s: dead %v", got)
			}
		})
	}
}

func TestResidualRestart(t *testing.T) {
	rule := func(restart, byTrigger bool) Rule {
		return blockedTLS("drop", func(r *Rule) {
			r.Residual, r.For, r.Restart, r.RestartTrigger = "3-tuple", "60s", restart, byTrigger
		})
	}
	probe := func(l *link, port uint16) bool {
		c := l.unopened(netip.AddrPortFrom(client4.Addr(), port), server4)
		return len(c.send(Out, c.segment(true, packet.SYN, nil))) == 0
	}
	// IR-14, KZ-02: every packet starts the time anew.
	l := newLink(t, rule(true, false))
	l.open(client4, server4).up(hello(t, "blocked.example"))
	for range 4 {
		l.wait(40 * time.Second)
		if !probe(l, 40001) {
			t.Fatal("it ended although packets kept coming")
		}
	}
	l.wait(61 * time.Second)
	if probe(l, 40002) {
		t.Error("it did not end although nothing came")
	}
	// CN-06: not extended.
	l = newLink(t, rule(false, false))
	l.open(client4, server4).up(hello(t, "blocked.example"))
	l.wait(40 * time.Second)
	if !probe(l, 40001) {
		t.Fatal("it ended early")
	}
	l.unopened(netip.AddrPortFrom(client4.Addr(), 40003), server4).up(hello(t, "blocked.example"))
	l.wait(21 * time.Second)
	if probe(l, 40002) {
		t.Error("packets extended it")
	}
	// IR-18: extended by a further trigger, not by any packet.
	l = newLink(t, rule(false, true))
	l.open(client4, server4).up(hello(t, "blocked.example"))
	l.wait(30 * time.Second)
	if !probe(l, 40001) {
		t.Fatal("it ended early")
	}
	l.wait(10 * time.Second)
	l.unopened(netip.AddrPortFrom(client4.Addr(), 40003), server4).up(hello(t, "blocked.example"))
	l.wait(50 * time.Second) // 90 s after the first, 50 s after the second trigger
	if !probe(l, 40004) {
		t.Error("a further trigger did not extend it")
	}
	l.wait(11 * time.Second)
	if probe(l, 40005) {
		t.Error("a packet extended it")
	}
}

// CN-04: on the path; for 90 s any segment to the same server and port draws
// resets, while it passes.
func TestResidualReset(t *testing.T) {
	l := newLink(t, blockedTLS("reset", func(r *Rule) { r.OnPath, r.Residual, r.For = true, "3-tuple", "90s" }))
	l.open(client4, server4).up(hello(t, "blocked.example"))
	l.wait(80 * time.Second)
	c := l.unopened(netip.AddrPortFrom(client4.Addr(), 40001), server4)
	out := c.send(Out, c.segment(true, packet.SYN, nil))
	passed := 0
	for _, s := range to(out, Out) {
		if s.Flags == packet.SYN {
			passed++
		}
	}
	if back := to(out, In); len(back) != 1 || back[0].Ack != c.cseq+1 || passed != 1 {
		t.Errorf("%d to the client, the SYN passed %d times", len(to(out, In)), passed)
	}
	l.wait(11 * time.Second)
	if out := c.send(Out, c.segment(true, packet.SYN, nil)); !only(out, Out) {
		t.Error("it lasted longer than 90 s")
	}
}

// IR-21: ICMP is dropped after some packets, and then everything of the
// client.
func TestICMPThenClient(t *testing.T) {
	l := newLink(t, Rule{Layer: "icmp", Direction: "out", Times: 3, Action: "drop", Residual: "client", For: "60s"})
	echo := func() []byte {
		b := make([]byte, 28)
		copy(b, []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, packet.ICMP})
		copy(b[12:], client4.Addr().AsSlice())
		copy(b[16:], server4.Addr().AsSlice())
		b[20] = 8
		packet.FixChecksums(b)
		return b
	}
	for i, want := range []int{1, 1, 0, 0} {
		if got := len(l.send(Out, echo())); got != want {
			t.Errorf("echo %d: %d passed, want %d", i, got, want)
		}
	}
	c := l.unopened(client4, server4)
	if len(c.send(Out, c.segment(true, packet.SYN, nil))) != 0 {
		t.Error("the client's other traffic passes")
	}
}

// A port that is used again is another connection, with a fate of its own.
func TestPortsAreUsedAgain(t *testing.T) {
	l := newLink(t, blockedTLS("drop", nil))
	l.open(client4, server4).up(hello(t, "blocked.example"))
	c := l.unopened(client4, server4)
	c.cseq += 77_777
	if !only(c.send(Out, c.segment(true, packet.SYN, nil)), Out) {
		t.Fatal("the new connection's SYN was dropped")
	}
	c.cseq++
	if !only(c.up(hello(t, "other.example")), Out) || !c.passes() {
		t.Error("it shares the fate of the one before it")
	}
}

// What has no name passes rules about names, and ICMP passes rules about
// ports.
func TestOthersPass(t *testing.T) {
	l := newLink(t, blockedTLS("drop", nil), blockedHTTP("drop", nil), Rule{Layer: "quic", Allow: []string{"ok.example"}, Action: "drop"},
		Rule{Layer: "dns", Action: "dns-redirect", To: "192.0.2.253"}, Rule{Layer: "tcp", Action: "drop", Ports: []int{53}})
	icmp, err := packet.BuildICMPError(packet.PortUnreachable, client4.Addr(), packet.BuildUDP(server4, client4, 1, 0, []byte("x")), 0)
	if err != nil {
		t.Fatal(err)
	}
	if !only(l.send(Out, icmp), Out) {
		t.Error("an ICMP error did not pass")
	}
	if out := l.send(Out, packet.BuildUDP(client4, server4, 9, 0, []byte("not a question"))); !only(out, Out) || out[0].Destination() != server4 {
		t.Error("a datagram to another port was redirected")
	}
	if out := l.send(In, packet.BuildUDP(ask4, client4, 9, 0, []byte{1, 2})); !only(out, In) {
		t.Error("a broken answer did not pass")
	}
	c := l.open(client4, server4)
	if !c.passes() || !only(c.up("SSH-2.0-x\r\n"), Out) {
		t.Error("a flow without a name did not pass")
	}
}

func TestLaterFragments(t *testing.T) {
	b := packet.BuildUDP(client4, server4, 9, 7, make([]byte, 64))
	b[6], b[7] = 0, 4
	packet.FixChecksums(b)
	feed := func(r Rule) (n int) {
		f, err := NewFilter([]Rule{r}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		f.Handle(Out, b, time.Time{}, func(Direction, []byte, time.Duration) { n++ })
		return n
	}
	if feed(Rule{Layer: "ip", Addresses: []string{"198.51.100.20"}, Action: "drop"}) != 0 {
		t.Error("a fragment to a blocked address passed")
	}
	if feed(Rule{Layer: "udp", Ports: []int{443}, Action: "drop"}) != 1 {
		t.Error("a fragment without ports was dropped by its port")
	}
}
