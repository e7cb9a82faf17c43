package locate_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"govah/lab"
	"govah/locate"
	"govah/measure"
)

// TestResolvers asks who answers as a resolver, in random paths with
// equal-cost ways that lose up to 2 %: where questions are led elsewhere at a
// random place, to a resolver at a random distance, it is found on that link
// wherever the routers on both sides answer, and never beyond it; where they
// are not, nobody on the way is accused.
func TestResolvers(t *testing.T) {
	kinds := []string{"redirected, quotes translated", "redirected, errors as they are", "redirected, all translated", "answered on the link", "nothing", "nothing, but port 443 is farther"}
	counts := make([]score, len(kinds))
	var mu sync.Mutex
	draws(t, *interceptors, func(i int, r *rand.Rand) {
		k := i % len(kinds)
		hops, loss, v6 := 3+r.IntN(14), r.IntN(21), r.IntN(3) == 0
		link := 1 + r.IntN(hops+1)
		silent, equal := some(r, hops, 20), some(r, hops, 25)
		equal = slices.DeleteFunc(equal, func(h int) bool { return h == 1 })
		tables := fmt.Sprintf("hops = %d\nsilent = %s\nequal = %s\nways = %d\ndelay = \"2ms\"\n", hops, array(silent), array(equal), 2+r.IntN(3))
		if r.IntN(4) == 0 {
			tables += fmt.Sprintf("icmp-per-second = %d\n", 2+r.IntN(10))
		}
		own := 1 + r.IntN(6)
		ownSilent := some(r, own, 20)
		answers := func(h int) bool { return h == 0 || h == hops+1 || !slices.Contains(silent, h) }
		possible := false
		switch k {
		case 0:
			tables += fmt.Sprintf("[client-network.dns-redirect]\nat = %d\nhops = %d\nsilent = %s\nerrors = \"quoted\"\n", link-1, own, array(ownSilent))
			possible = answers(link-1) && answers(link) && !slices.Contains(ownSilent, 1)
		case 1:
			tables += fmt.Sprintf("[client-network.dns-redirect]\nat = %d\nhops = %d\nsilent = %s\nerrors = \"none\"\n", link-1, own, array(ownSilent))
			possible = answers(link-1) && answers(link) && !slices.Contains(ownSilent, 1)
		case 2:
			tables += fmt.Sprintf("[client-network.dns-redirect]\nat = %d\nhops = %d\nsilent = %s\n", link-1, own, array(ownSilent))
			possible = answers(link-1) && answers(link) && !slices.Contains(ownSilent, 1)
		case 3:
			tables += fmt.Sprintf("[client-network.dns-redirect]\nat = %d\n", link-1)
			possible = answers(link)
		}
		tables += "[[network]]\nname = \"hosting\"\nhops = 1\ndelay = \"3ms\"\n"
		asked := "resolver.example"
		if k == 5 {
			asked = "deep.example"
			tables += "[[site]]\nname = \"deep.example\"\nrole = \"resolver\"\ndeeper = 2\n"
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		e, err := emulate(tables, lab.Options{Seed: uint64(i + 1), Loss: loss})
		if err != nil {
			t.Error(err)
			return
		}
		defer e.Close()
		spec := e.spec(locate.Resolver, v6, uint64(i+1))
		spec.Remote, spec.OtherPort = e.at(asked, 53, v6), 443
		spec.Controls[0].Name = "open.example"
		_, l, _, err := e.find(ctx, spec)
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		c := &counts[k]
		c.n++
		told := func() string {
			return fmt.Sprintf("%d, %s, link %d: %s %s %v, answered at %d; loss %d v6 %v %s", i, kinds[k], link, l.Outcome, l.Kind, l.Set, l.ServerTTL, loss, v6, tables)
		}
		if k >= 4 {
			if l.Outcome != measure.Itself {
				t.Errorf("accused: %s", told())
			}
			if l.ServerTTL == hops+2 {
				c.exact++
			}
			c.possible++
			return
		}
		in := slices.ContainsFunc(l.Set, func(p measure.Place) bool { return p.Low+1 == link })
		exact := in && len(l.Set) == 1
		if len(l.Set) > 0 {
			c.claimed++
			highest := 0
			for _, p := range l.Set {
				highest = max(highest, p.Low+1)
			}
			// Where ways part later than they could be seen to, it is said
			// that the device stands there or nearer.
			if !in && !(l.Nearer && highest > link) {
				t.Errorf("wrong: %s", told())
			}
		}
		if possible {
			c.told(t, exact, told())
		}
	})
	tell(t, func(k int) string { return kinds[k] }, counts, 85, 1)
}
