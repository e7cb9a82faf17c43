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
// answers at all and the server is three routers farther, on its link, and
// never on another; and nobody where the other port is up to two routers behind
// a load balancer.
func TestInterceptors(t *testing.T) {
	kinds := []struct {
		name    string
		payload locate.Payload
		table   string
	}{
		{"re-signs TLS", locate.TLS, "[client-network.intercept]\nat = %d\n"},
		{"the same, once connected", locate.TLS, "[client-network.intercept]\nat = %d\nlate = true\n"},
		{"re-signs TLS, asked who ends", locate.Connect, "[client-network.intercept]\nat = %d\n"},
		{"web proxy", locate.HTTP, "[client-network.web-proxy]\nat = %d\n"},
		{"both", locate.Connect, "[client-network.intercept]\nat = %d\n[client-network.web-proxy]\nat = %[1]d\n"},
		{"speaks mail itself", locate.Mail, "[client-network.mail]\nat = %d\nterminates = true\ndoes = [\"mask\"]\n"},
		{"load balancer, web", locate.HTTP, ""},
		{"load balancer, mail", locate.Mail, ""},
		{"mail, once connected", locate.Mail, "[client-network.mail]\nat = %d\nlate = true\ndoes = [\"remove\"]\n"},
	}
	counts := make([]score, len(kinds))
	var mu sync.Mutex
	draws(t, *interceptors, func(i int, r *rand.Rand) {
		k := i % len(kinds)
		kind := kinds[k]
		hops, loss, v6 := 3+r.IntN(14), r.IntN(21), r.IntN(3) == 0
		link := 1 + r.IntN(hops+1)
		silent := some(r, hops, 20)
		tables := fmt.Sprintf("hops = %d\nsilent = %s\ndelay = \"2ms\"\n", hops, array(silent))
		if kind.table != "" {
			tables += fmt.Sprintf(kind.table, link-1)
		}
		tables += "[[network]]\nname = \"hosting\"\nhops = 1\ndelay = \"3ms\"\n" +
			fmt.Sprintf("[[site]]\nname = \"deep.example\"\nhttp = \"same\"\ndeeper = %d\n[[site.mail]]\nscheme = \"smtp\"\ncapabilities = [\"STARTTLS\"]\n", 1+r.IntN(2))
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
		if kind.table == "" {
			spec.Remote = e.at("deep.example", spec.Remote.Port(), v6)
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
		if c.n++; len(l.Set) > 0 {
			c.claimed++
		}
		if kind.table == "" && (l.Outcome != measure.NoDifference || !slices.Contains(silent, hops) && !slices.Contains(l.Unknown, measure.WhyBalancer)) {
			t.Errorf("%d, %s: %s %v %s", i, kind.name, l.Outcome, l.Unknown, tables)
		}
		if kind.table != "" && !slices.Contains(silent, link) && link < hops {
			c.told(t, exact, fmt.Sprintf("%d, %s: loss %d: %s %v", i, kind.name, loss, l.Outcome, silent))
		}
	})
	tell(t, func(k int) string { return kinds[k].name }, counts, 85, 1)
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

// TestContainer: where the server's own host says that what went to another
// port died at it, the host passes that on, as to a container, and nobody ends
// connections before it.
func TestContainer(t *testing.T) {
	m := &measure.Measurement{}
	syn := func(exp measure.Experiment, port uint16, ttl int, outcome, from string) {
		o := measure.Observation{Step: measure.StepPath, Stage: measure.StageLocate, Role: measure.RoleControl, Experiment: exp, Family: measure.IPv4, TTL: ttl,
			Remote: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.5"), port).String(), Path: &measure.Path{Probe: "syn", Outcome: outcome, LocalPort: 20000}}
		if from != "" {
			o.Path.ICMP = &measure.ICMP{From: from, Type: 11}
		}
		if exp == measure.ExpProxyTTL {
			o.Payload, o.ControlKind = string(locate.Connect), measure.ControlKnown
		}
		m.Observations = append(m.Observations, o)
	}
	syn(measure.ExpPath, 443, 1, "expired", "192.168.1.1")
	syn(measure.ExpPath, 443, 2, "connected", "")
	for _, from := range []string{"192.0.2.5", "198.51.100.1"} {
		before := len(m.Observations)
		syn(measure.ExpProxyTTL, 80, 2, "expired", from)
		syn(measure.ExpProxyTTL, 80, 2, "expired", from)
		l := locate.Infer(m, nil)[0]
		if ended := l.Kind == measure.Terminates; ended == (from == "192.0.2.5") {
			t.Errorf("%s: %s %v", from, l.Outcome, l.Set)
		}
		m.Observations = m.Observations[:before]
	}
}
