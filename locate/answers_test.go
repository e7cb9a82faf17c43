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

// TestAnswers locates, by the TTL of its answers, what ends mail connections
// and lets packets die that would not reach the server, at a random place of
// random paths that lose up to 2 % and whose way back may be longer, from
// servers of every common TTL. Where nothing does nobody is accused.
func TestAnswers(t *testing.T) {
	kinds := []struct {
		name, does string
		greeter    bool
	}{
		{"a helper's, offer removed", "remove", true},
		{"another's, offer removed", "remove", false},
		{"a helper's, nothing", "", true},
		{"another's, nothing", "", false},
	}
	counts := make([]score, len(kinds))
	var mu sync.Mutex
	var longest time.Duration
	draws(t, *interceptors, func(i int, r *rand.Rand) {
		kind := kinds[i%len(kinds)]
		scheme := mailSchemes[r.IntN(3)]
		hops, loss, v6 := 3+r.IntN(14), r.IntN(21), r.IntN(3) == 0
		link := 1 + r.IntN(hops+1)
		silent, equal := some(r, hops, 20), []int{}
		back, ttl, nat := 0, []int{64, 128, 255}[r.IntN(3)], !v6 && r.IntN(3) == 0
		if r.IntN(2) == 0 {
			back = r.IntN(7)
		}
		for h := 2; h <= hops; h++ {
			if r.IntN(4) == 0 {
				equal = append(equal, h)
			}
		}
		tables := fmt.Sprintf("hops = %d\nsilent = %s\nequal = %s\nways = 3\nnat = %v\ndelay = \"2ms\"\n", hops, array(silent), array(equal), nat)
		if kind.does != "" {
			tables += fmt.Sprintf("[client-network.mail]\nat = %d\ndoes = [%q]\n", link-1, kind.does)
		}
		tables += fmt.Sprintf("[[network]]\nname = \"hosting\"\nhops = 1\ndelay = \"3ms\"\nback = %d\nttl = %d\n", back, ttl) +
			fmt.Sprintf("[[site]]\nname = \"mail.example\"\n[[site.mail]]\nscheme = %q\ncapabilities = [%q]\n", scheme.protocol, scheme.offer)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		e, err := emulate(tables, lab.Options{Seed: uint64(i + 1), Loss: loss})
		if err != nil {
			t.Error(err)
			return
		}
		defer e.Close()
		spec := locate.Spec{Payload: locate.Mail, Protocol: scheme.protocol, Name: "mail.example", Remote: e.at("mail.example", scheme.port, v6), OtherPort: 443,
			Controls: []locate.Control{{Kind: measure.ControlKnown}}, Seed: uint64(i + 1)}
		if kind.greeter {
			greeter, stop, err := e.greet(scheme.protocol, scheme.port, v6, false)
			if err != nil {
				t.Error(err)
				return
			}
			defer stop()
			spec.Name, spec.Remote, spec.Greeter = "helper.example", greeter.Remote, true
		}
		m, l, took, err := e.find(ctx, spec)
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		longest = max(longest, took)
		c := &counts[i%len(kinds)]
		c.n++
		told := fmt.Sprintf("%d, %s %s, link %d: %+v; loss %d v6 %v %s", i, scheme.protocol, kind.name, link, l, loss, v6, tables)
		if kind.does == "" {
			if len(l.Set) > 0 || l.Outcome != measure.NoDifference {
				t.Errorf("accused: %s", told)
			}
			return
		}
		exact := len(l.Set) == 1 && l.Set[0].Low+1 == link && l.Outcome == measure.Located && l.Kind == measure.Terminates &&
			l.Position == measure.InPath && l.ByAnswers && len(l.Because) > 2
		if len(l.Set) > 0 {
			c.claimed++
			if !exact {
				t.Errorf("wrong: %s", told)
			}
		}
		// Somebody else's server must be three routers farther, both ways.
		if kind.greeter && link <= hops+back || !kind.greeter && link+2 <= hops {
			c.told(t, exact, told)
		}
		// Answers of the other port that came after all, or did not because it
		// answered no more, accuse nobody.
		for _, change := range []func(*measure.Observation){
			func(o *measure.Observation) {
				if o.Path.Outcome == "silent" {
					p := *o.Path
					p.Outcome, o.Path = "connected", &p
				}
			},
			func(o *measure.Observation) {
				if o.Path.Outcome == "connected" && slices.ContainsFunc(m.Observations, func(a measure.Observation) bool {
					return a.Experiment == measure.ExpAnswerTTL && a.Role == measure.RoleControl && a.Path.Outcome == "silent" && a.StartUS < o.StartUS
				}) {
					p := *o.Path
					p.Outcome, o.Path = "silent", &p
				}
			},
		} {
			other := *m
			other.Observations = slices.Clone(m.Observations)
			for k := range other.Observations {
				if o := &other.Observations[k]; o.Experiment == measure.ExpAnswerTTL && o.Role == measure.RoleControl {
					change(o)
				}
			}
			if l := locate.Infer(&other, nil)[0]; len(l.Set) > 0 {
				t.Errorf("not by the control: %s", told)
			}
		}
	})
	t.Logf("at most %s", longest.Round(time.Millisecond))
	tell(t, func(k int) string { return kinds[k].name }, counts, 90, 1)
}
