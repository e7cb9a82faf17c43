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

var mailSchemes = []struct {
	protocol, offer string
	port            uint16
}{{"smtp", "STARTTLS", 587}, {"imap", "STARTTLS", 143}, {"pop3", "STLS", 110}}

// TestMailDevices locates what meddles with mail dialogues in passing, at a
// random place of random paths that lose up to 2 % and have routers that quote
// little: what refuses or swallows the command without a privilege, what alters
// it with that of capturing packets. What alters only the server's words is on
// none, nor is anybody where nothing meddles.
func TestMailDevices(t *testing.T) {
	kinds := []struct {
		name, does string
		privileged bool
		kind       measure.Kind
	}{
		{"refuses", "refuse", false, measure.Injects},
		{"swallows", "swallow", false, measure.Drops},
		{"alters, captured", "mask", true, measure.Alters},
		{"alters", "mask", false, ""},
		{"alters the server's words", "mask-offer", true, ""},
		{"nothing", "", true, ""},
	}
	counts := make([]score, len(kinds))
	var mu sync.Mutex
	draws(t, *interceptors, func(i int, r *rand.Rand) {
		kind := kinds[i%len(kinds)]
		scheme := mailSchemes[r.IntN(3)]
		hops, loss, v6 := 3+r.IntN(14), r.IntN(21), r.IntN(3) == 0
		link := 1 + r.IntN(hops+1)
		silent, brief := some(r, hops, 20), some(r, hops, 20)
		tables := fmt.Sprintf("hops = %d\nsilent = %s\nbrief = %s\ndelay = \"2ms\"\n", hops, array(silent), array(brief))
		if kind.does != "" {
			tables += fmt.Sprintf("[client-network.mail]\nat = %d\nin-path = true\ndoes = [%q]\n", link-1, kind.does)
		}
		tables += "[[network]]\nname = \"hosting\"\nhops = 1\ndelay = \"3ms\"\n" +
			fmt.Sprintf("[[site]]\nname = \"mail.example\"\n[[site.mail]]\nscheme = %q\ncapabilities = [%q]\n", scheme.protocol, scheme.offer)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		e, err := emulate(tables, lab.Options{Seed: uint64(i + 1), Loss: loss, Privileged: kind.privileged})
		if err != nil {
			t.Error(err)
			return
		}
		defer e.Close()
		spec := locate.Spec{Payload: locate.Mail, Protocol: scheme.protocol, Name: "mail.example", Remote: e.at("mail.example", scheme.port, v6), OtherPort: 443,
			Controls: []locate.Control{{Kind: measure.ControlKnown}}, Seed: uint64(i + 1)}
		_, l, _, err := e.find(ctx, spec)
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		c := &counts[i%len(kinds)]
		c.n++
		told := fmt.Sprintf("%d, %s %s, link %d: %s %s %v %v; loss %d v6 %v %s", i, scheme.protocol, kind.name, link, l.Outcome, l.Kind, l.Set, l.Unknown, loss, v6, tables)
		if kind.kind == "" {
			if len(l.Set) > 0 || l.Outcome != measure.NoDifference || !slices.Contains(l.Unknown, measure.WhyWayBack) ||
				slices.Contains(l.Unknown, measure.WhyNoQuotes) == (kind.privileged && (kind.does != "mask")) {
				t.Errorf("accused, or not told what cannot be seen: %s", told)
			}
			return
		}
		in := slices.ContainsFunc(l.Set, func(p measure.Place) bool { return p.Low+1 == link })
		exact := in && len(l.Set) == 1 && l.Kind == kind.kind
		if len(l.Set) > 0 {
			c.claimed++
			if !in || l.Outcome == measure.Located && l.Kind != kind.kind {
				t.Errorf("wrong: %s", told)
			}
		}
		answers := func(h int) bool { return h == 0 || !slices.Contains(silent, h) }
		quotes := func(h int) bool { return answers(h) && (h == 0 || !slices.Contains(brief, h)) }
		possible := true
		switch kind.kind {
		case measure.Drops:
			possible = answers(link-1) && answers(link)
		case measure.Alters:
			possible = quotes(link-1) && quotes(link)
		}
		if possible {
			c.told(t, exact, told)
		}
	})
	tell(t, func(k int) string { return kinds[k].name }, counts, 85, 1)
}
