package locate_test

import (
	"net/netip"
	"testing"
	"time"

	"govah/lab"
	"govah/locate"
	"govah/measure"
	"govah/wire"
)

// TestTerminator finds a transparent proxy: connections to port 80 end nearer
// than those to port 443 of the same address.
func TestTerminator(t *testing.T) {
	s, err := lab.Parse([]byte(`schema = 1
title = "a proxy"
about = "A transparent proxy for port 80 behind the third router."
[[client-network]]
name = "home"
about = "a line"
hops = 6
delay = "5ms"
[client-network.web-proxy]
at = 3
via = "1.1 proxy"
[[network]]
name = "hosting"
hops = 2
[[site]]
name = "open.example"
http = "same"
[[site]]
name = "other.example"
shares = "open.example"
http = "same"
`))
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.New(s, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	addr := s.Sites[0].AllAddresses()[0]
	for _, c := range []struct {
		payload     locate.Payload
		port, other uint16
		kind        measure.Kind
	}{{locate.HTTP, 80, 443, measure.Terminates}, {locate.TLS, 443, 80, ""}} {
		log := wire.NewLog(time.Now(), nil)
		if err := locate.Run(t.Context(), w.Network(), log, locate.Spec{Payload: c.payload, Remote: netip.AddrPortFrom(addr, c.port), OtherPort: c.other, Name: "other.example", Seed: 1,
			Controls: []locate.Control{{Kind: measure.ControlKnown, Name: "open.example"}}}); err != nil {
			t.Fatal(err)
		}
		list := locate.Infer(&measure.Measurement{Observations: log.Observations()}, nil)
		if len(list) != 1 {
			t.Fatalf("%s: %d locations", c.payload, len(list))
		}
		l := list[0]
		if l.Kind != c.kind {
			t.Errorf("%s: %q, not %q: %s %v", c.payload, l.Kind, c.kind, l.Outcome, l.Set)
		}
		if c.kind != "" && (len(l.Set) != 1 || l.Set[0].Low+1 != 4 || l.Position != measure.InPath) {
			t.Errorf("%s: at %v, %s", c.payload, l.Set, l.Position)
		}
	}
}
