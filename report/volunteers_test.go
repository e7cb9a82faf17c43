package report

import (
	"fmt"
	"strings"
	"testing"

	"govah/internal/i18n"
	"govah/measure"
)

// askedRouters are three outcomes of asking routers what they are.
func askedRouters() []*measure.Identification {
	ports := []int{21, 22, 23, 80, 443, 8080, 8443}
	id := func(outcome measure.Likeness, list ...measure.Volunteer) *measure.Identification {
		for i := range list {
			list[i].Asked = ports
		}
		return &measure.Identification{Type: "identification", Schema: 1, Run: sampleRunID, Measurement: "b1", Rules: "2026.1", Target: "https://telegram.org/",
			Payload: "banner", Outcome: outcome, Probes: len(ports) * len(list), Routers: list}
	}
	return []*measure.Identification{
		id(measure.RouterNamed,
			measure.Volunteer{Address: "5.100.254.2", TTL: 2, PerMille: 973, Open: []int{22, 443},
				Products: []measure.Candidate{{Row: "banner.mikrotik_ssh", Name: "RouterOS", Vendor: "MikroTik", PerMille: 900, Source: "its own ssh server", Because: []string{"o4"}},
					{Row: "lan.fortinet", Name: "FortiGate", Vendor: "Fortinet", PerMille: 510, Because: []string{"o9"}}},
				Says: []measure.Statement{{Port: 22, Kind: "greeting", Text: "SSH-2.0-ROSSSH", Because: "o4"}, {Port: 443, Kind: "certificate", Text: "CN=core,O=Example", Because: "o9"},
					{Port: 443, Kind: "title", Text: "ورود به مسیریاب", Because: "o10"}, {Port: 443, Kind: "realm", Text: `Basic realm="x"`, Because: "o10"}}},
			measure.Volunteer{Address: "2a0f:1000::fe03", TTL: 3, PerMille: 973}),
		id(measure.RouterUnknown, measure.Volunteer{Address: "5.100.254.2", TTL: 2, PerMille: 410, Open: []int{22}, Says: []measure.Statement{{Port: 22, Kind: "greeting", Text: "SSH-2.0-OpenSSH_9.6", Because: "o4"}}}),
		id(measure.RouterSilent, measure.Volunteer{Address: "5.100.254.2", TTL: 2, PerMille: 995}),
	}
}

func TestRoutersGolden(t *testing.T) {
	for _, l := range i18n.Langs {
		for _, verbose := range []bool{false, true} {
			got := recognisedIn(t, Options{Lang: l, Width: 80, Verbose: verbose}, askedRouters()...)
			checkLines(t, got, 80)
			golden(t, fmt.Sprintf("identification.routers.%s%s.txt", map[bool]string{true: "verbose."}[verbose], l), []byte(got))
		}
		for _, width := range []int{40, 60, 132} {
			checkLines(t, recognisedIn(t, Options{Lang: l, Width: width, Verbose: true}, askedRouters()...), width)
		}
	}
}

// What a router says is told of the router; the device has no product by it,
// and is not counted as recognised.
func TestRoutersAreNotTheDevice(t *testing.T) {
	list := askedRouters()
	for _, c := range []struct {
		id        *measure.Identification
		want, not []string
	}{
		{list[0], []string{"The router at 5.100.254.2 (hop 2), beside the link, says that it is RouterOS (MikroTik) (probability that the signature is right: 90 %).", "That this router is what reacts",
			"5.100.254.2 (hop 2): 2 of 7 ports accepted a connection; the device sits on a link of this router with probability 97 %.", "port 22, greeting: \"SSH-2.0-ROSSSH\"", "Less likely: FortiGate: 51 %", "may stand between two routers"},
			[]string{"carries a signature", "behaves like", "cluster", "Unknown product", "govah identify"}},
		{list[1], []string{"answer, but nothing that they say names a product.", "1 of 7 ports accepted"}, []string{"says that it is", "That this router is what reacts"}},
		{list[2], []string{"say nothing of themselves", "0 of 7 ports accepted"}, []string{"says that it is", "names a product"}},
	} {
		got := strings.Join(strings.Fields(recognisedIn(t, Options{}, c.id)), " ")
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: there is no %q in %q", c.id.Outcome, want, got)
			}
		}
		for _, not := range c.not {
			if strings.Contains(got, not) {
				t.Errorf("%s: there is %q in %q", c.id.Outcome, not, got)
			}
		}
	}
	src := sourceRecognising(nil, list)
	page := htmlOf(t, i18n.English, src)
	checkPage(t, page)
	if known, tried := src.recognised(); known != 0 || tried != 0 {
		t.Errorf("%d of %d counted as recognised", known, tried)
	}
	// A file that claims a product of the device because of routers is not
	// believed.
	list[0].Outcome, list[0].Products = measure.ProductNamed, list[0].Routers[0].Products
	if recognised(list[0]) || strings.Contains(recognisedIn(t, Options{}, list[0]), "carries a signature") {
		t.Error("the router's product is taken for the device's")
	}
}

func TestRoutersHTML(t *testing.T) {
	for _, l := range i18n.Langs {
		page := checkedRecognised(t, l, askedRouters()[0])
		for _, want := range []string{string(l.HTML("identification.routers")), `<bdi dir="ltr">5.100.254.2</bdi>`, "SSH-2.0-ROSSSH", `<bdi dir="auto">ورود به مسیریاب</bdi>`, "its own ssh server"} {
			if !strings.Contains(page, want) {
				t.Errorf("%s: there is no %q", l, want)
			}
		}
	}
}

func TestRoutersHostile(t *testing.T) {
	hostile := func(s string) *measure.Identification {
		id := hostileIdentification(s)
		v := measure.Volunteer{Address: s, TTL: -1, PerMille: 1 << 40, Asked: []int{-1}, Open: make([]int, 99), Products: id.Products}
		for range 200 {
			v.Says = append(v.Says, measure.Statement{Port: -5, Kind: s, Text: strings.Repeat(s, 20), Because: s})
		}
		for range 100 {
			id.Routers = append(id.Routers, v)
		}
		return id
	}
	for _, lang := range i18n.Langs {
		want := look(t, checkedRecognised(t, lang, hostile("plain text")))
		for _, s := range hostileStrings {
			text := recognisedIn(t, Options{Lang: lang, Verbose: true}, hostile(s))
			checkLines(t, text, 80)
			page := checkedRecognised(t, lang, hostile(s))
			if got := look(t, page); got.elements["tr"] != want.elements["tr"] || got.elements["script"] != want.elements["script"] {
				t.Errorf("%q changes the page: %v, want %v", s, got.elements, want.elements)
			}
			if len(text) > 1_000_000 || len(page) > 2_000_000 {
				t.Errorf("%q: %d bytes of text, %d of a page", s, len(text), len(page))
			}
		}
	}
}
