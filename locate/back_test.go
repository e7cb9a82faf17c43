package locate_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"govah/helper"
	"govah/lab"
	"govah/locate"
	"govah/measure"
	"govah/wire"
)

// greet runs a helper with greeters on helper.example, with or without the
// right to capture packets, and says how to follow the way back from one.
func (e *emulated) greet(protocol string, port uint16, v6, privileged bool) (spec locate.BackSpec, stop func(), err error) {
	m, err := e.Host("helper.example")
	if err != nil {
		return spec, nil, err
	}
	if privileged {
		m.Privilege()
	}
	cert, err := m.Issue("helper.example")
	if err != nil {
		return spec, nil, err
	}
	s, err := helper.New(helper.Config{Network: m.Network(), Certificate: cert, Now: e.Now, SetTTL: m.SetTTL})
	if err != nil {
		return spec, nil, err
	}
	var l helper.Listeners
	for _, a := range m.Addresses() {
		tcp, err := m.Listen(netip.AddrPortFrom(a, 443))
		if err != nil {
			return spec, nil, err
		}
		mail, err := m.Listen(netip.AddrPortFrom(a, port))
		if err != nil {
			return spec, nil, err
		}
		l.TCP, l.Mail = append(l.TCP, tcp), append(l.Mail, helper.MailListener{Listener: mail, Protocol: protocol})
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Serve(ctx, l) })
	spec = locate.BackSpec{Remote: e.at("helper.example", port, v6), Protocol: protocol, Name: "helper.example",
		Helper: "https://helper.example/", Trust: &wire.Trust{Public: e.Public(), Now: e.Now}}
	return spec, func() { cancel(); running.Wait() }, nil
}

// TestWayBack locates what alters only a mail server's words, at a random place
// of random paths that lose up to 2 % and have routers that quote little, by
// what routers quote of them to a helper that may capture packets.
func TestWayBack(t *testing.T) {
	kinds := []struct {
		name, does string
		able       bool
	}{
		{"offer masked", "mask-offer", true},
		{"banner masked", "mask-banner", true},
		{"offer masked, no right", "mask-offer", false},
		{"nothing", "", true},
	}
	counts := make([]score, len(kinds))
	var mu sync.Mutex
	var longest time.Duration
	draws(t, *interceptors, func(i int, r *rand.Rand) {
		kind := kinds[i%len(kinds)]
		scheme := mailSchemes[r.IntN(3)]
		hops, loss, v6 := 3+r.IntN(14), r.IntN(21), r.IntN(3) == 0
		link := 1 + r.IntN(hops+1) // counted from the client
		silent, brief := some(r, hops, 20), some(r, hops, 20)
		nat, rate, equal := !v6 && r.IntN(3) == 0, 0, []int{}
		if r.IntN(5) == 0 {
			rate = 2 + r.IntN(19)
		}
		for h := 2; h <= hops; h++ {
			if r.IntN(4) == 0 {
				equal = append(equal, h)
			}
		}
		tables := fmt.Sprintf("hops = %d\nsilent = %s\nbrief = %s\nequal = %s\nways = 3\nnat = %v\nicmp-per-second = %d\ndelay = \"2ms\"\n", hops, array(silent), array(brief), array(equal), nat, rate)
		if kind.does != "" {
			tables += fmt.Sprintf("[client-network.mail]\nat = %d\nin-path = true\ndoes = [%q]\n", link-1, kind.does)
		}
		tables += "[[network]]\nname = \"hosting\"\nhops = 1\ndelay = \"3ms\"\n"
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		e, err := emulate(tables, lab.Options{Seed: uint64(i + 1), Loss: loss})
		if err != nil {
			t.Error(err)
			return
		}
		defer e.Close()
		spec, stop, err := e.greet(scheme.protocol, scheme.port, v6, kind.able)
		if err != nil {
			t.Error(err)
			return
		}
		defer stop()
		spec.Seed = uint64(i + 1)
		began := time.Now()
		log := wire.NewLog(began, nil)
		if err := locate.Back(ctx, e.Network(), log, spec); err != nil {
			t.Error(err)
			return
		}
		took := time.Since(began)
		m := &measure.Measurement{Run: "r1", ID: "m1", Observations: log.Observations()}
		found := locate.Infer(m, nil)
		mu.Lock()
		defer mu.Unlock()
		longest = max(longest, took)
		c := &counts[i%len(kinds)]
		c.n++
		told := fmt.Sprintf("%d, %s %s, link %d: %+v; loss %d v6 %v %s", i, scheme.protocol, kind.name, link, found, loss, v6, tables)
		if kind.does == "" || !kind.able {
			if len(found) > 0 {
				t.Errorf("claimed: %s", told)
			}
			return
		}
		if len(found) != 1 {
			t.Errorf("%d locations: %s", len(found), told)
			return
		}
		l := found[0]
		// Beyond the helper's router come the line's, the farthest first.
		low := hops + 2 - link
		in := slices.ContainsFunc(l.Set, func(p measure.Place) bool { return p.Low == low })
		exact := in && len(l.Set) == 1
		quotes := func(h int) bool {
			return h > 0 && !slices.Contains(silent, h) && !slices.Contains(brief, h)
		}
		if len(l.Set) > 0 {
			c.claimed++
			if !in || l.Outcome != measure.Located || l.Kind != measure.Alters || l.Position != measure.InPath || !l.FromHelper {
				t.Errorf("wrong: %s", told)
			}
		}
		if quotes(link-1) && (link > hops || quotes(link)) {
			c.told(t, exact, told)
		}
		if exact && (l.Set[0].From == "" || l.Set[0].To == "" || len(l.Because) < 2) {
			t.Errorf("no routers, or no evidence: %s", told)
		}
		// Where the harmless words are altered too, or nothing is quoted
		// whole before it, nobody is accused.
		for k := range m.Observations {
			if o := &m.Observations[k]; o.Experiment == measure.ExpWayBack && o.ControlKind != "" && o.Path != nil && o.Path.ICMP != nil {
				icmp := *o.Path.ICMP
				icmp.Quoted = "altered"
				p := *o.Path
				p.ICMP = &icmp
				o.Path = &p
			}
		}
		if l := locate.Infer(m, nil)[0]; len(l.Set) > 0 {
			t.Errorf("everything is altered: %s", told)
		}
	})
	t.Logf("at most %s", longest.Round(time.Millisecond))
	tell(t, func(k int) string { return kinds[k].name }, counts, 90, 0)
}
