package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"govah/internal/i18n"
	"govah/measure"
)

func identification(change func(*measure.Identification)) *measure.Identification {
	id := &measure.Identification{
		Type: "identification", Schema: 1, Run: sampleRunID, Measurement: "m1", Rules: "2026.1", Target: "https://telegram.org/", Family: measure.IPv4, Payload: "tls",
		Trigger: measure.Trigger{Kind: "sni", Value: "telegram.org", Control: "kqzvwyhm.org"}, Cluster: "tls-9f31c07a", Probes: 14, Triggers: 9,
	}
	change(id)
	return id
}

// conductOf are properties from "name value" pairs, with an observation each.
func conductOf(pairs ...string) []measure.Property {
	var out []measure.Property
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, measure.Property{Name: pairs[i], Value: pairs[i+1], Because: []string{"o41", "o43"}})
	}
	return out
}

func productNamed() *measure.Identification {
	return identification(func(id *measure.Identification) {
		id.Measurement, id.Target, id.Payload, id.Cluster = "m21", "http://news.example/", "http", "http-1b5d20ee"
		id.Trigger = measure.Trigger{Kind: "host", Value: "news.example", Control: "kqzv.example"}
		id.Outcome, id.Probes, id.Triggers, id.Next = measure.ProductNamed, 21, 15, "tab"
		id.Products = []measure.Candidate{
			{Row: "product-a", Name: "WebGuard", Vendor: "Example Networks", Country: "NL", PerMille: 900, Source: "https://example.org/signatures", Because: []string{"o41"}},
			{Row: "product-b", Name: "GateKeeper", Vendor: "Example Systems", PerMille: 60},
		}
		id.Behaviours = []measure.Candidate{{Row: "behaviour-a", Name: "block pages in Example", Country: "NL", PerMille: 810, Source: "https://example.org/paper"}}
		id.Properties = conductOf("action", "page", "status", "403", "plain", "reads", "split", "blind", "name-case", "reads", "under", "reads", "glued", "blind", "second", "reads",
			"upper", "reads", "no-space", "reads", "tab", "blind", "absolute", "blind", "http10", "reads", "method-case", "blind", "dot", "blind")
	})
}

func behaviourKnown() *measure.Identification {
	return identification(func(id *measure.Identification) {
		id.Outcome, id.Next, id.Unknown = measure.BehaviourKnown, "go", []measure.Why{measure.WhyFewPairs}
		id.Behaviours = []measure.Candidate{
			{Row: "behaviour-b", Name: "resets in Example", Country: "IR", PerMille: 961, Source: "https://example.org/resets.pdf"},
			{Row: "behaviour-c", Name: "resets elsewhere", PerMille: 12},
		}
		id.Properties = conductOf("action", "reset", "replies", "3",
			"ip-ttl", "rising", "ip-id", "0x0001", "df", "no", "flags", "R,RA,RA", "packets", "3", "window", "zero", "seq", "expected,+1460", "ack", "none,expected,expected", "payload", "none", "spacing", "<10ms",
			"plain", "reads", "split", "blind", "records", "blind", "under", "reads", "upper", "reads", "large", "reads")
	})
}

func unknownDevice() *measure.Identification {
	return identification(func(id *measure.Identification) {
		id.Measurement, id.Target, id.Payload, id.Cluster = "m23", "dns:www.instagram.com", "dns", "dns-77aa01c2"
		id.Trigger = measure.Trigger{Kind: "qname", Value: "www.instagram.com", Control: "kqz.hmtrweuio.com"}
		id.Outcome, id.Family = measure.UnknownDevice, measure.IPv6
		id.Behaviours = []measure.Candidate{{Row: "behaviour-d", Name: "injector of Example", PerMille: 240}}
		id.Properties = conductOf("action", "answer", "rcode", "noerror", "answer", "10.10.34.34", "dns-ttl", "60", "aa", "yes", "replies", "2", "plain", "reads", "tcp", "blind", "aaaa", "reads")
	})
}

func nothingReacts() *measure.Identification {
	return identification(func(id *measure.Identification) {
		id.Measurement, id.Outcome, id.Cluster, id.Triggers, id.Probes = "m24", measure.NothingReacts, "", 0, 6
	})
}

func notComparable() *measure.Identification {
	return identification(func(id *measure.Identification) {
		id.Measurement, id.Outcome, id.Cluster, id.Trigger, id.Triggers, id.Probes = "m25", measure.NotComparable, "", measure.Trigger{}, 0, 0
		id.Unknown = []measure.Why{measure.WhyNoControl}
	})
}

func identifications() []*measure.Identification {
	return []*measure.Identification{productNamed(), behaviourKnown(), unknownDevice(), nothingReacts(), notComparable()}
}

func recognisedIn(t testing.TB, o Options, list ...*measure.Identification) string {
	t.Helper()
	var b bytes.Buffer
	text := NewText(&b, o)
	for _, id := range list {
		if err := text.AddIdentification(id); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestIdentificationGolden(t *testing.T) {
	for _, l := range i18n.Langs {
		got := recognisedIn(t, Options{Lang: l, Width: 80}, identifications()...)
		golden(t, "identification."+string(l)+".txt", []byte(got))
		checkLines(t, got, 80)
		verbose := recognisedIn(t, Options{Lang: l, Width: 80, Verbose: true}, identifications()[:3]...)
		golden(t, "identification.verbose."+string(l)+".txt", []byte(verbose))
		checkLines(t, verbose, 80)
	}
}

// The lines hold at every width, and without -v there are few.
func TestIdentificationLines(t *testing.T) {
	for _, l := range i18n.Langs {
		for _, width := range []int{40, 50, 60, 70, 80, 132} {
			for _, verbose := range []bool{false, true} {
				checkLines(t, recognisedIn(t, Options{Lang: l, Width: width, Verbose: verbose}, identifications()...), width)
			}
		}
		for _, id := range identifications() {
			if n := strings.Count(recognisedIn(t, Options{Lang: l}, id), "\n"); n > 18 {
				t.Errorf("%s, %s: %d lines", l, id.Outcome, n)
			}
		}
	}
	plain, coloured := recognisedIn(t, Options{Verbose: true}, identifications()...), recognisedIn(t, Options{Verbose: true, Colour: true}, identifications()...)
	for _, style := range []string{bold, faint, reset} {
		coloured = strings.ReplaceAll(coloured, style, "")
	}
	if plain != coloured {
		t.Error("colour changes the text")
	}
}

// What the result says is what the words claim, and no more.
func TestIdentificationClaimsNoMoreThanItsFields(t *testing.T) {
	for _, c := range []struct {
		name      string
		id        *measure.Identification
		want, not []string
	}{
		{"product", productNamed(), []string{"carries a signature of WebGuard (Example Networks) (probability 90 %)", "Less likely: GateKeeper: 6 %", "what a device sends can be imitated", "a page of its own (status 403)",
			"also behaves like: block pages in Example: 81 %", "It also reads the name in a field spelled hOsT, with a random label in front, in the second request of a connection, and in 3 more forms.",
			"blind to the name split over two TCP segments,", "15 of 21 tries with news.example", "tell most next: the name with a tab before it", "15 of 21 tries"}, []string{"as usually", "cluster"}},
		{"behaviour", behaviourKnown(), []string{"It behaves like: resets in Example (https://example.org/resets.pdf) (probability 96 %).", "several devices may behave alike, and behaviour names no company", "It resets the connection.", "too few repetitions", "no browser's"}, []string{"signature", "Unknown product"}},
		{"unknown", unknownDevice(), []string{"Unknown product, behaviour cluster dns-77aa01c2.", "lets two people compare", "It answers the question itself (10.10.34.34).", "too little to say so: injector of Example: 24 %"}, []string{"behaves like", "signature"}},
		{"nothing", nothingReacts(), []string{"nothing was seen that reacts when the handshake names telegram.org", "That nothing reacts", "0 of 6 tries"}, []string{"It resets", "cluster"}},
		{"no control", notComparable(), []string{"Nothing can be said", "Whether anything reacts"}, []string{"tries", "nothing was seen"}},
		{"from the future", identification(func(id *measure.Identification) {
			id.Outcome, id.Next, id.Properties = "family", "emoji", conductOf("action", "tarpit", "mood", "calm", "emoji", "reads")
		}), []string{"no words for (family)", "no words for (tarpit)", "It also reads the name emoji.", "next: the name emoji."}, []string{"behaves like"}},
		{"other", identification(func(id *measure.Identification) {
			id.Outcome, id.Properties = "other", conductOf("action", "other", "other", "other")
		}), []string{"no words for (other)"}, nil},
		{"product without a name", identification(func(id *measure.Identification) { id.Outcome = measure.ProductNamed }), []string{"Unknown product, behaviour cluster tls-9f31c07a"}, []string{"signature"}},
		{"behaviour without a name", identification(func(id *measure.Identification) { id.Outcome, id.Cluster = measure.BehaviourKnown, "" }), []string{"Unknown product."}, []string{"behaves like"}},
	} {
		got := strings.Join(strings.Fields(recognisedIn(t, Options{}, c.id)), " ")
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: there is no %q in %q", c.name, want, got)
			}
		}
		for _, not := range c.not {
			if strings.Contains(got, not) {
				t.Errorf("%s: there is %q in %q", c.name, not, got)
			}
		}
	}
}

// -v shows every property, and what a newer version wrote as it is.
func TestIdentificationTableIsWhole(t *testing.T) {
	id := productNamed()
	id.Properties = append(id.Properties, conductOf("mood", "calm", "emoji", "blind")...)
	got := recognisedIn(t, Options{Verbose: true}, id)
	for _, want := range []string{"Behaviour cluster  ", "http-1b5d20ee\n", "Reaction · It answers with a page of its own · o41, o43\n", "HTTP status  ", "403", "The name with a final dot  ", "mood  ", "calm", "The name emoji  ", "o41, o43", "WebGuard (NL): row product-a, documented in https", "GateKeeper: row product-b."} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %q in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "o41, o43"); n != len(id.Properties) {
		t.Errorf("%d of %d properties are there:\n%s", n, len(id.Properties), got)
	}
	if page := checkedRecognised(t, i18n.English, id); strings.Count(page, "<tr><td>") != len(id.Properties)+1 {
		t.Error("the table of the page is not whole")
	}
}

func TestTextSummaryCountsIdentifications(t *testing.T) {
	end := func(add func(*Text) error) string {
		var b bytes.Buffer
		text := NewText(&b, Options{})
		if err := add(text); err != nil {
			t.Fatal(err)
		}
		b.Reset()
		if err := text.End(Summary{ElapsedMS: 9_000}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	all := func(text *Text) error {
		var errs []error
		for _, id := range identifications() {
			errs = append(errs, text.AddIdentification(id))
		}
		return errors.Join(errs...)
	}
	const recognised = "The kind of device was recognised in 2 of 5 cases tried.\n"
	if got := end(all); !strings.HasPrefix(got, recognised+"3 targets tested in 9 s") || strings.Contains(got, "Nothing was measured") {
		t.Errorf("alone the summary is\n%s", got)
	}
	got := end(func(text *Text) error {
		e := sampleTLSReset()
		return errors.Join(text.Add(e.Measurement, e.Verdict), text.AddLocation(locatedInjector()), all(text))
	})
	if !strings.HasPrefix(got, "Interference was confirmed for 1 of 1 target.\nThe place of what interferes was found on 1 of 1 path followed.\n"+recognised) {
		t.Errorf("with a verdict the summary is\n%s", got)
	}
	var b bytes.Buffer
	text := NewText(&b, Options{})
	e := sampleClean("m0", "a.example")
	if err := errors.Join(text.Add(e.Measurement, e.Verdict), text.AddIdentification(nothingReacts())); err != nil || !strings.Contains(b.String(), "\n\n» https://telegram.org/") {
		t.Errorf("%v, %q", err, b.String())
	}
	if err := NewText(failingWriter{}, Options{}).AddIdentification(notComparable()); err == nil {
		t.Error("a full disk went unnoticed")
	}
}

func sourceRecognising(entries []Entry, list []*measure.Identification) *Source {
	src := source(entries)
	inner := src.Entries
	src.Entries = func(yield func(Entry, error) bool) {
		for e, err := range inner {
			if !yield(e, err) {
				return
			}
		}
		for _, id := range list {
			src.Identification(id)
		}
	}
	return src
}

func checkedRecognised(t testing.TB, l i18n.Lang, list ...*measure.Identification) string {
	t.Helper()
	page := htmlOf(t, l, sourceRecognising(nil, list))
	checkPage(t, page)
	return page
}

func TestHTMLIdentificationsStandWithTheirVerdict(t *testing.T) {
	for _, l := range i18n.Langs {
		src := sourceRecognising(samples(), identifications())
		src.Location(locatedInjector())
		page := htmlOf(t, l, src)
		s := checkPage(t, page)
		if s.elements["article"] != 10+4 || strings.Count(page, string(l.HTML("identification.title"))) != 5+1 {
			t.Errorf("%s: %d articles for 10 cards, one identification with a verdict and four without", l, s.elements["article"])
		}
		start := strings.Index(page, `id="t1" class="card confirmed"`)
		card := page[start : start+strings.Index(page[start:], "</article>")]
		place, kind := strings.Index(card, `class="route"`), strings.Index(card, string(l.HTML("identification.action.reset")))
		if place < 0 || kind < place {
			t.Errorf("%s: the identification does not stand in the card of its verdict, behind the place: %d, %d", l, place, kind)
		}
		if strings.Index(page, `<section id="kind">`) < strings.Index(page, `id="g-fine"`) {
			t.Errorf("%s: there is no part for what has no verdict", l)
		}
	}
	page := checkedRecognised(t, i18n.English, identifications()...)
	if !strings.Contains(page, "<h1>The kind of device was recognised in 2 of 5 cases tried.</h1>") {
		t.Error("a file without verdicts has no heading of its own")
	}
	same := productNamed()
	same.Outcome = measure.UnknownDevice // concluded again: the newer one counts
	if page := checkedRecognised(t, i18n.English, productNamed(), same); strings.Count(page, "<article") != 1 || strings.Contains(page, "carries a signature") {
		t.Error("an identification that was concluded again is there twice, or as it was")
	}
	fine := sampleClean("m24", "a.example")
	if page := htmlOf(t, i18n.English, sourceRecognising([]Entry{{Verdict: fine.Verdict}}, []*measure.Identification{nothingReacts()})); !strings.Contains(page, "fared like its control") {
		t.Error("the identification of a target that works is missing")
	}
}

// Each step of the search says which form it tried.
func TestStepsNameTheirForm(t *testing.T) {
	e := sampleTLSReset()
	for i, form := range []string{"records", "emoji"} {
		o := &e.Measurement.Observations[i]
		o.Stage, o.Experiment, o.Form = measure.StageIdentify, measure.ExpForm, form
	}
	text, page := printed(t, Options{Verbose: true}, []Entry{e}), htmlOf(t, i18n.English, source([]Entry{e}))
	checkPage(t, page)
	for _, want := range []string{"split over two TLS records", "emoji"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) || !strings.Contains(page, want) {
			t.Errorf("the form %q is not told", want)
		}
	}
}

// hostileIdentification puts s wherever an identification can carry text.
func hostileIdentification(s string) *measure.Identification {
	c := func() measure.Candidate {
		return measure.Candidate{Row: s, Name: s, Vendor: s, Country: s, PerMille: 500, Source: s, Because: []string{s}}
	}
	return &measure.Identification{
		Type: "identification", Run: s, Measurement: s, Rules: s, Target: s, Family: measure.Family(s), Payload: s, Trigger: measure.Trigger{Kind: "sni", Value: s, Control: s},
		Products: []measure.Candidate{c(), c(), c()}, Behaviours: []measure.Candidate{c(), c()}, Cluster: s, Probes: 3, Triggers: 1, Next: s, Unknown: []measure.Why{measure.Why(s)},
		Properties: []measure.Property{{Name: "action", Value: s, Because: []string{s, s}}, {Name: "status", Value: s}, {Name: "alert", Value: s}, {Name: "answer", Value: s},
			{Name: s, Value: s}, {Name: s, Value: measure.Reads}, {Name: s, Value: measure.Blind}},
	}
}

func TestIdentificationHostile(t *testing.T) {
	for _, lang := range i18n.Langs {
		for _, outcome := range []measure.Likeness{measure.ProductNamed, measure.BehaviourKnown, measure.UnknownDevice, measure.NothingReacts, measure.NotComparable, ""} {
			hostile := func(s string) *measure.Identification {
				id := hostileIdentification(s)
				if id.Outcome = outcome; outcome == "" {
					id.Outcome, id.Trigger.Kind = measure.Likeness(s), s
				}
				return id
			}
			want := look(t, checkedRecognised(t, lang, hostile("plain text")))
			for _, s := range hostileStrings {
				for _, width := range []int{40, 80} {
					checkLines(t, recognisedIn(t, Options{Lang: lang, Width: width, Verbose: true}, hostile(s)), width)
				}
				got := look(t, checkedRecognised(t, lang, hostile(s)))
				for _, name := range []string{"article", "script", "style", "img", "details", "table", "tr", "td"} {
					if got.elements[name] != want.elements[name] {
						t.Errorf("%q: %d <%s> instead of %d", s, got.elements[name], name, want.elements[name])
					}
				}
			}
		}
	}
}

// A file can hold any numbers, and any number of things.
func TestIdentificationOutOfBounds(t *testing.T) {
	const most = int(^uint(0) >> 1)
	id := productNamed()
	id.Probes, id.Triggers = most, -most
	for range 10 {
		id.Properties = append(id.Properties, id.Properties...)
		id.Products = append(id.Products, id.Products...)
		id.Behaviours = append(id.Behaviours, id.Behaviours...)
	}
	for i := range id.Products {
		id.Products[i].PerMille = most * (1 - 2*(i%2))
	}
	id.Properties[0].Because = make([]string, 1000)
	for _, lang := range i18n.Langs {
		got := recognisedIn(t, Options{Lang: lang, Verbose: true}, id)
		checkLines(t, got, 80)
		if n := strings.Count(got, "\n"); n > 200 {
			t.Errorf("%d lines", n)
		}
		if n := len(checkedRecognised(t, lang, id)); n > 100_000 {
			t.Errorf("%d bytes", n)
		}
		checkLines(t, recognisedIn(t, Options{Lang: lang, Verbose: true}, &measure.Identification{}), 80)
	}
}

// FuzzIdentification renders whatever can be read from a file.
func FuzzIdentification(f *testing.F) {
	for _, id := range append(identifications(), hostileIdentification("\x1b[31m\u202e<b>")) {
		data, err := json.Marshal(id)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		id := new(measure.Identification)
		if json.Unmarshal(data, id) != nil {
			return
		}
		for _, lang := range i18n.Langs {
			checkLines(t, recognisedIn(t, Options{Lang: lang, Verbose: true}, id), 80)
			checkedRecognised(t, lang, id)
		}
	})
}

// TestWriteIdentificationSamples writes pages with the sample identifications
// where GOVAH_REPORT_SAMPLES says, for a look at them in a browser.
func TestWriteIdentificationSamples(t *testing.T) {
	dir := os.Getenv("GOVAH_REPORT_SAMPLES")
	if dir == "" {
		t.Skip("set GOVAH_REPORT_SAMPLES to a folder to get the sample reports")
	}
	for _, l := range i18n.Langs {
		for name, src := range map[string]*Source{"alone": sourceRecognising(nil, identifications()), "card": sourceRecognising([]Entry{sampleTLSReset()}, []*measure.Identification{behaviourKnown()})} {
			if err := os.WriteFile(filepath.Join(dir, "identification."+name+"."+string(l)+".html"), []byte(htmlOf(t, l, src)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Each value of the closed vocabularies of an identification has words, and so
// has each form that the format document lists.
func TestEveryIdentificationConstantHasWords(t *testing.T) {
	all := constants(t)["Likeness"]
	if len(all) < 5 {
		t.Errorf("found %d constants of measure.Likeness: the test does not see them", len(all))
	}
	has := func(key string) {
		if !slices.Contains(i18n.Keys(), key) {
			t.Errorf("no words for %q", key)
		}
	}
	for _, value := range all {
		has("identification.outcome." + value)
	}
	for _, conduct := range []string{measure.Reads, measure.Blind} {
		has("identification.value." + conduct)
	}
	document, err := os.ReadFile("../docs/formats/measurement-v1.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(document), "### `Property`")
	_, table, _ := strings.Cut(section, "|---|---|---|\n")
	table, _, ok := strings.Cut(table, "\n\n")
	if forms := strings.Split(table, "\n"); !ok || len(forms) < 20 {
		t.Errorf("found %d forms in the document", len(forms))
	} else {
		for _, line := range forms {
			form, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
			has("identification.form." + form)
		}
	}
}
