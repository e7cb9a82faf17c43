package locate_test

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	"govah/lab"
	"govah/locate"
	"govah/measure"
	"govah/wire"
)

// TestResidual finds out what stays blocked after a trigger, and for how long,
// within a tenth.
func TestResidual(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	const lasts = 20 * time.Second
	for _, c := range []struct {
		key, action, then string
		want              measure.ResidualKey
	}{
		{"4-tuple", "reset", "drop", measure.Residual4Tuple},
		{"3-tuple", "reset", "reset", measure.Residual3Tuple},
		{"destination", "drop", "drop", measure.ResidualDestination},
		{"client", "drop", "drop", measure.ResidualClient},
	} {
		t.Run(c.key, func(t *testing.T) {
			t.Parallel()
			s, err := lab.Parse(fmt.Appendf(nil, "schema = 1\ntitle = \"residual\"\nabout = \"a memory\"\n[[client-network]]\nname = \"home\"\nabout = \"a line\"\nhops = 5\ndelay = \"5ms\"\n[[client-network.box]]\nat = 3\n[[client-network.box.rule]]\nlayer = \"tls\"\nnames = [\"blocked.example\"]\naction = %q\nresidual = %q\nfor = %q\nthen = %q\n"+
				"[[network]]\nname = \"hosting\"\nhops = 1\n[[site]]\nname = \"open.example\"\nhttp = \"same\"\n[[site]]\nname = \"blocked.example\"\nshares = \"open.example\"\n[[site]]\nname = \"other.example\"\n", c.action, c.key, lasts, c.then))
			if err != nil {
				t.Fatal(err)
			}
			w, err := lab.New(s, lab.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			at := func(i int, port uint16) netip.AddrPort { return netip.AddrPortFrom(s.Sites[i].AllAddresses()[0], port) }
			log := wire.NewLog(time.Now(), nil)
			if err := locate.Run(t.Context(), w.Network(), log, locate.Spec{Payload: locate.TLS, Remote: at(0, 443), OtherPort: 80, Elsewhere: at(2, 443), Name: "blocked.example", Seed: 1,
				Controls: []locate.Control{{Kind: measure.ControlKnown, Name: "opened1.example"}}, Residual: 2 * lasts}); err != nil {
				t.Fatal(err)
			}
			list := locate.Infer(&measure.Measurement{Observations: log.Observations()}, nil)
			if len(list) != 1 {
				t.Fatalf("%d locations", len(list))
			}
			l := list[0]
			if l.Residual != c.want {
				t.Errorf("%s stays blocked, not %s", l.Residual, c.want)
			}
			took := time.Duration(l.ResidualMS) * time.Millisecond
			if off := math.Abs(float64(took-lasts)) / float64(lasts); off > 0.1 {
				t.Errorf("for %s, not %s: %.0f %% off", took, lasts, 100*off)
			}
			if len(l.Set) == 0 || l.Set[0].Low+1 != 4 {
				t.Errorf("found at %v", l.Set)
			}
		})
	}
}
