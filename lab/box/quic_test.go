package box

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"govah/packet"
)

func TestQUIC(t *testing.T) {
	const v1, v2 = "1", "6b3343cf"
	for name, c := range map[string]struct {
		rule    Rule
		version string
		order   []int
		passed  [2]bool
		later   bool // further datagrams pass
	}{
		// RU-05: the name is spread over two datagrams, the later part first.
		"by name":               {Rule{Names: []string{"blocked.example"}}, v1, []int{0, 1}, [2]bool{true, false}, false},
		"by name, out of order": {Rule{Names: []string{"blocked.example"}}, v1, []int{1, 0}, [2]bool{true, false}, false},
		"by name, version 2":    {Rule{Names: []string{".example"}}, v2, []int{0, 1}, [2]bool{true, false}, false},
		"another name":          {Rule{Names: []string{"other.example"}}, v1, []int{0, 1}, [2]bool{true, true}, true},
		"not on the list":       {Rule{Allow: []string{"other.example"}}, v1, []int{0, 1}, [2]bool{true, false}, false},
		// CN-07: no reassembly; splitting defeats it.
		"first datagram alone": {Rule{Names: []string{"blocked.example"}, Split: true}, v1, []int{0, 1}, [2]bool{true, true}, true},
		// RU-04: version 1 and a long payload, before any name is known.
		"by version":         {Rule{Versions: []uint32{1}, PayloadOver: 1000, Ports: []int{443}}, v1, []int{0, 1}, [2]bool{false, false}, false},
		"by another version": {Rule{Versions: []uint32{1}}, v2, []int{0, 1}, [2]bool{true, true}, true},
		"port order":         {Rule{Names: []string{"blocked.example"}, PortOrder: true}, v1, []int{0, 1}, [2]bool{true, false}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.rule.Layer, c.rule.Action = "quic", "drop"
			l := newLink(t, c.rule)
			datagrams := quicInitials(t, c.version)
			for i, n := range c.order {
				if got := len(l.send(Out, packet.BuildUDP(client4, server4, 60, 0, []byte(datagrams[n])))) == 1; got != c.passed[i] {
					t.Errorf("datagram %d passed %v, want %v", i, got, c.passed[i])
				}
			}
			if got := len(l.send(Out, packet.BuildUDP(client4, server4, 60, 0, []byte("\x40short header")))) == 1; got != c.later {
				t.Errorf("a later datagram passed %v", got)
			}
			if got := len(l.send(In, packet.BuildUDP(server4, client4, 60, 0, []byte("\x40from the server")))) == 1; got != c.later {
				t.Errorf("a datagram from the server passed %v", got)
			}
			o := packet.BuildUDP(netip.AddrPortFrom(client4.Addr(), 50000), server4, 60, 0, []byte("something else"))
			if !only(l.send(Out, o), Out) {
				t.Error("what is no QUIC was dropped")
			}
		})
	}
	// A port that is used again after a minute is another flow.
	l := newLink(t, Rule{Layer: "quic", Names: []string{"blocked.example"}, Action: "drop"})
	for _, d := range quicInitials(t, v1) {
		l.send(Out, packet.BuildUDP(client4, server4, 60, 0, []byte(d)))
	}
	l.wait(59 * time.Second)
	if len(l.send(Out, packet.BuildUDP(client4, server4, 60, 0, []byte("x")))) != 0 {
		t.Error("the flow came back to life within a minute")
	}
	l.wait(61 * time.Second)
	if !only(l.send(Out, packet.BuildUDP(client4, server4, 60, 0, []byte("x"))), Out) {
		t.Error("another flow shares the fate of one that is over")
	}
	// CN-07: only if the client's port is above the server's.
	l = newLink(t, Rule{Layer: "quic", Names: []string{"blocked.example"}, PortOrder: true, Action: "drop"})
	for _, d := range quicInitials(t, v1) {
		if !only(l.send(Out, packet.BuildUDP(netip.AddrPortFrom(client4.Addr(), 400), server4, 60, 0, []byte(d))), Out) {
			t.Error("dropped although the client's port is below the server's")
		}
	}
	// IR-21, IR-24: all UDP but names.
	l = newLink(t, Rule{Layer: "udp", NotPorts: []int{53}, Action: "drop"})
	if len(l.send(Out, packet.BuildUDP(client4, server4, 60, 0, []byte(quicInitials(t, v1)[0])))) != 0 || !only(l.send(Out, question(t, "any.example", dns.TypeA, 5000, 60)), Out) {
		t.Error("not all UDP but port 53 was dropped")
	}
}
