package locate_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"govah/lab"
	"govah/locate"
	"govah/measure"
)

var interceptors = flag.Int("interceptors", 24, "locate so many devices that end connections in random topologies")

// TestInterceptors locates what ends connections in the server's place, at a
// random place of random paths that lose up to 2 %: where the router behind it
// answers at all, on its link, and never on another.
func TestInterceptors(t *testing.T) {
	kinds := []struct {
		name    string
		payload locate.Payload
		table   string
	}{
		{"re-signs TLS", locate.TLS, "[client-network.intercept]\nat = %d\n"},
		{"re-signs TLS, asked who ends", locate.Connect, "[client-network.intercept]\nat = %d\n"},
		{"web proxy", locate.HTTP, "[client-network.web-proxy]\nat = %d\n"},
		{"both", locate.Connect, "[client-network.intercept]\nat = %d\n[client-network.web-proxy]\nat = %[1]d\n"},
		{"speaks mail itself", locate.Mail, "[client-network.mail]\nat = %d\nterminates = true\ndoes = [\"mask\"]\n"},
	}
	type count struct{ n, possible, exact int }
	counts := make([]count, len(kinds))
	var mu sync.Mutex
	draws(t, *interceptors, func(i int, r *rand.Rand) {
		k := i % len(kinds)
		kind := kinds[k]
		hops, loss, v6 := 3+r.IntN(14), r.IntN(21), r.IntN(3) == 0
		link := 1 + r.IntN(hops+1)
		silent := some(r, hops, 20)
		tables := fmt.Sprintf("hops = %d\nsilent = %s\ndelay = \"2ms\"\n", hops, array(silent)) +
			fmt.Sprintf(kind.table, link-1) + "[[network]]\nname = \"hosting\"\nhops = 1\ndelay = \"3ms\"\n"
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		e, err := emulate(tables, lab.Options{Seed: uint64(i + 1), Loss: loss})
		if err != nil {
			t.Error(err)
			return
		}
		defer e.Close()
		spec := e.spec(kind.payload, v6, uint64(i+1))
		switch kind.payload {
		case locate.Connect:
			spec.Remote, spec.OtherPort = e.at("open.example", 443, v6), 80
		case locate.Mail:
			spec.Remote, spec.OtherPort, spec.Protocol = e.at("open.example", 587, v6), 443, "smtp"
		default:
			spec.Controls[0].Name = "open.example"
		}
		_, l, _, err := e.find(ctx, spec)
		if err != nil {
			t.Error(err)
			return
		}
		exact := l.Outcome == measure.Located && l.Kind == measure.Terminates && len(l.Set) == 1 && l.Set[0].Low+1 == link
		if len(l.Set) > 0 && !exact {
			t.Errorf("%d, %s: at %d, not %d: %s %s", i, kind.name, l.Set[0].Low+1, link, l.Outcome, tables)
		}
		mu.Lock()
		defer mu.Unlock()
		c := &counts[k]
		c.n++
		if !slices.Contains(silent, link) {
			if c.possible++; exact {
				c.exact++
			} else {
				t.Logf("%d, %s: missed, loss %d: %s %v", i, kind.name, loss, l.Outcome, silent)
			}
		}
	})
	exact, possible := 0, 0
	for k, c := range counts {
		t.Logf("%-29s %4d, router behind it answers %4d, on its link %4d", kinds[k].name, c.n, c.possible, c.exact)
		exact, possible = exact+c.exact, possible+c.possible
	}
	if (exact+1)*100 < possible*85 { // one of a few is chance
		t.Errorf("%d of %d", exact, possible)
	}
}

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
