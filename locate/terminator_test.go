package locate_test

import (
	"net/netip"
	"testing"

	"govah/locate"
	"govah/measure"
)

// TestTerminator finds a transparent proxy: connections to port 80 end nearer
// than those to port 443 of the same address.
func TestTerminator(t *testing.T) {
	for _, c := range []struct {
		payload locate.Payload
		port    uint16
		kind    measure.Kind
	}{{locate.HTTP, 80, measure.Terminates}, {locate.TLS, 443, ""}, {locate.Connect, 80, measure.Terminates}, {locate.Connect, 443, ""}} {
		l := located(t, "hops = 6\ndelay = \"5ms\"\n[client-network.web-proxy]\nat = 3\nvia = \"1.1 proxy\"\n[[network]]\nname = \"hosting\"\nhops = 2\n", func(e *emulated, s *locate.Spec) {
			if *s = e.spec(c.payload, false, 1); c.payload == locate.Connect {
				s.Remote, s.OtherPort = e.at("open.example", c.port, false), 80+443-c.port
				return
			}
			s.Controls[0].Name = "open.example"
		})
		if c.kind == "" && l.Outcome != measure.NoDifference {
			t.Errorf("%s: %s", c.payload, l.Outcome)
		}
		if l.Kind != c.kind {
			t.Errorf("%s: %q, not %q: %s %v", c.payload, l.Kind, c.kind, l.Outcome, l.Set)
		}
		if c.kind != "" && (len(l.Set) != 1 || l.Set[0].Low+1 != 4 || l.Position != measure.InPath) {
			t.Errorf("%s: at %v, %s", c.payload, l.Set, l.Position)
		}
	}
}

// TestResettingNetwork: an address whose neighbours are reset as well is
// compared with one elsewhere, not with them.
func TestResettingNetwork(t *testing.T) {
	l := located(t, "hops = 6\ndelay = \"5ms\"\n[[client-network.box]]\nat = 3\n[[client-network.box.rule]]\nlayer = \"tcp\"\nsegment = \"syn\"\naddresses = [\"45.10.0.0/28\"]\naction = \"reset\"\n[[network]]\nname = \"hosting\"\nhops = 2\n[[network]]\nname = \"other\"\nhops = 2\n[[site]]\nname = \"elsewhere.example\"\nnetwork = \"other\"\n", func(e *emulated, s *locate.Spec) {
		*s = e.spec(locate.TCP, false, 1)
		next := e.at("open.example", 443, false)
		s.Controls = append([]locate.Control{{Kind: measure.ControlRandom, At: netip.AddrPortFrom(next.Addr().Next(), 443)}},
			locate.Control{Kind: measure.ControlCanary, At: e.at("elsewhere.example", 443, false)})
	})
	if len(l.Set) == 0 || l.Set[0].Low+1 != 4 || l.Kind != measure.Injects {
		t.Errorf("%s %s %v", l.Outcome, l.Kind, l.Set)
	}
}
