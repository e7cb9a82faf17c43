package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"govah/internal/i18n"
	"govah/measure"
)

// The locations are what package locate makes of paths as they are seen from
// Iran, Russia and China, with addresses of documentation in them.

func location(change func(*measure.Location)) *measure.Location {
	l := &measure.Location{
		Type: "location", Schema: 1, Run: sampleRunID, Measurement: "m1", Rules: "2026.1", Target: "https://telegram.org/", Remote: "149.154.167.99:443",
		Family: measure.IPv4, Payload: "tls", Trigger: measure.Trigger{Kind: "sni", Value: "telegram.org", Control: "kqzvwyhm.org"},
		Position: measure.PositionUnknown, Triggers: 3, Probes: 64, Because: []string{"o31"},
	}
	change(l)
	return l
}

func router(address string, asn int, country string, us int64) measure.Router {
	return measure.Router{Address: address, ASN: asn, Country: country, RTTUS: us, Followed: true}
}

// hopsOf are hops of ten probes each; a router without an address is silent.
func hopsOf(routers ...measure.Router) []measure.Hop {
	var out []measure.Hop
	for i, r := range routers {
		h := measure.Hop{TTL: i + 1, Sent: 10}
		if r.Address != "" {
			h.Routers, h.Answered = []measure.Router{r}, 10-i%3
		}
		out = append(out, h)
	}
	return out
}

// eighteen is a long path through five networks, with silent routers and two
// hops of equal-cost siblings; the server is hop 18.
func eighteen() []measure.Hop {
	hops := hopsOf(
		router("192.168.1.1", 0, "", 900), router("10.202.6.11", 197207, "IR", 9_400), measure.Router{}, router("10.202.9.130", 197207, "IR", 11_800),
		router("78.38.240.21", 58224, "IR", 13_040), measure.Router{}, router("78.38.240.93", 58224, "IR", 14_100), router("185.100.209.109", 49666, "IR", 14_800),
		router("85.132.90.5", 29049, "AZ", 41_000), router("85.132.90.161", 29049, "AZ", 43_700), measure.Router{}, router("62.115.172.130", 1299, "DE", 71_300),
		router("62.115.123.12", 1299, "DE", 70_800), router("62.115.136.194", 1299, "NL", 82_900), router("62.115.45.3", 1299, "NL", 83_100), measure.Router{},
		router("149.154.164.1", 62041, "NL", 84_000), measure.Router{})
	hops[4].Routers = append([]measure.Router{{Address: "78.38.240.25", ASN: 58224, Country: "IR", RTTUS: 13_900}}, hops[4].Routers...)
	hops[13].Routers = append(hops[13].Routers, measure.Router{Address: "62.115.136.198", ASN: 1299, Country: "NL", RTTUS: 83_400}, measure.Router{Address: "62.115.140.2", ASN: 1299, Country: "NL", RTTUS: 85_000})
	hops[17].Server, hops[17].Answered = true, 9
	return hops
}

func locatedInjector() *measure.Location {
	return location(func(l *measure.Location) {
		l.Outcome, l.Kind, l.Position, l.Residual, l.ResidualMS = measure.Located, measure.Injects, measure.OnPath, measure.Residual3Tuple, 92_000
		l.ServerTTL, l.Hops = 18, eighteen()
		l.Set = []measure.Place{{Low: 7, From: "78.38.240.93", To: "185.100.209.109", FromASN: 58224, ToASN: 49666, FromCountry: "IR", ToCountry: "IR", PerMille: 993}}
	})
}

func locatedDropper() *measure.Location {
	return location(func(l *measure.Location) {
		l.Measurement, l.Target, l.Remote, l.Family = "m21", "https://voa.example/", "[2001:db8:40::7]:443", measure.IPv6
		l.Trigger = measure.Trigger{Kind: "sni", Value: "voa.example", Control: "kqzvwyh.example"}
		l.Outcome, l.Kind, l.Position, l.Residual = measure.Located, measure.Drops, measure.InPath, measure.ResidualNone
		l.Unknown = []measure.Why{measure.WhyFewPairs}
		l.Hops = hopsOf(router("2001:db8:1::1", 64496, "RU", 1_210), measure.Router{}, router("2001:db8:ffff:1234:5678:9abc:def0:1234", 64497, "RU", 8_800),
			measure.Router{}, router("2001:db8:9::2", 64498, "SE", 33_000))
		l.Set = []measure.Place{
			{Low: 3, From: "2001:db8:ffff:1234:5678:9abc:def0:1234", FromASN: 64497, FromCountry: "RU", PerMille: 618},
			{Low: 4, To: "2001:db8:9::2", ToASN: 64498, ToCountry: "SE", PerMille: 350},
			{Low: 2, To: "2001:db8:ffff:1234:5678:9abc:def0:1234", ToASN: 64497, ToCountry: "RU", PerMille: 27},
		}
	})
}

func atEnd() *measure.Location {
	return location(func(l *measure.Location) {
		l.Measurement, l.Target, l.Remote, l.Payload = "m22", "http://news.example/", "198.51.100.7:80", "http"
		l.Trigger = measure.Trigger{Kind: "host", Value: "news.example"}
		l.Outcome, l.Kind, l.Position, l.Residual, l.ServerTTL = measure.AtEnd, measure.Drops, measure.InPath, measure.ResidualUnknown, 4
		l.Hops = hopsOf(router("10.0.0.1", 0, "", 700), router("192.0.2.1", 64500, "TR", 5_300), router("198.51.100.1", 64501, "TR", 12_060), measure.Router{})
		l.Hops[3].Server = true
		l.Set = []measure.Place{{Low: 3, From: "198.51.100.1", FromASN: 64501, FromCountry: "TR", PerMille: 871}, {Low: 2, From: "192.0.2.1", To: "198.51.100.1", FromASN: 64500, ToASN: 64501, FromCountry: "TR", ToCountry: "TR", PerMille: 121}}
	})
}

func copiesTTL() *measure.Location {
	return location(func(l *measure.Location) {
		l.Measurement, l.Target, l.Remote, l.Payload = "m23", "dns:www.instagram.com", "192.0.2.53:53", "dns"
		l.Trigger = measure.Trigger{Kind: "qname", Value: "www.instagram.com", Control: "known1.example"}
		l.Outcome, l.Kind, l.CopiesTTL, l.Residual, l.Triggers = measure.Located, measure.Injects, true, measure.ResidualDestination, 1
		l.Hops = hopsOf(router("10.0.0.1", 0, "", 700), router("10.202.6.11", 197207, "IR", 9_400), router("10.202.9.130", 197207, "IR", 11_800), router("78.38.240.21", 58224, "IR", 13_040))
		l.Set = []measure.Place{{Low: 0, To: "10.0.0.1", PerMille: 470}, {Low: 2, From: "10.202.6.11", To: "10.202.9.130", FromASN: 197207, ToASN: 197207, FromCountry: "IR", ToCountry: "IR", PerMille: 290}, {Low: 3, From: "10.202.9.130", To: "78.38.240.21", FromASN: 197207, ToASN: 58224, FromCountry: "IR", ToCountry: "IR", PerMille: 233}}
	})
}

func noDifference() *measure.Location {
	return location(func(l *measure.Location) {
		l.Measurement, l.Outcome, l.Position, l.ServerTTL, l.Triggers = "m24", measure.NoDifference, measure.PositionUnknown, 4, 0
		l.Hops = hopsOf(router("10.0.0.1", 0, "", 700), router("192.0.2.1", 64500, "TR", 5_300), measure.Router{}, measure.Router{})
		l.Hops[1].Routers = append(l.Hops[1].Routers, measure.Router{Address: "192.0.2.5", ASN: 64500, Country: "TR", RTTUS: 5_900})
		l.Hops[1].Routers[0].Followed = false
	})
}

func notLocated() *measure.Location {
	return location(func(l *measure.Location) {
		l.Measurement, l.Outcome, l.Residual, l.Unknown = "m25", measure.NotLocated, measure.ResidualClient, []measure.Why{measure.WhyFewPairs, measure.WhyLoss}
		l.Hops = hopsOf(router("10.0.0.1", 0, "", 700), measure.Router{}, measure.Router{}, measure.Router{}, router("198.51.100.1", 64501, "TR", 12_060))
		for i := range 5 {
			l.Set = append(l.Set, measure.Place{Low: i, PerMille: 200})
		}
	})
}

func noPath() *measure.Location {
	return location(func(l *measure.Location) {
		l.Measurement, l.Outcome, l.Position, l.Triggers, l.Probes, l.Unknown = "m26", measure.NoPath, "", 0, 30, []measure.Why{measure.WhyUnsupported}
		l.Hops = hopsOf(measure.Router{}, measure.Router{}, measure.Router{})
	})
}

func locations() []*measure.Location {
	return []*measure.Location{locatedInjector(), locatedDropper(), atEnd(), copiesTTL(), noDifference(), notLocated(), noPath(), redirected(), answersItself(), altered(), commandsAlike(), wordsAltered(), wordsSomewhere(), byAnswers()}
}

// redirected is a resolver whose questions are led to another one, here or
// nearer.
func redirected() *measure.Location {
	return &measure.Location{Type: "location", Schema: 1, Run: "r1", Measurement: "l1", Rules: "2026.1", Target: "https://example.org/", Remote: "192.0.2.53:53",
		RemoteASN: 64500, RemoteCountry: "DE", Family: measure.IPv4, Payload: "resolver", Trigger: measure.Trigger{Kind: "port", Value: "53"}, Outcome: measure.Located,
		Kind: measure.Redirects, Nearer: true, Position: measure.InPath, ServerTTL: 4, Probes: 60,
		Set: []measure.Place{{Low: 2, From: "198.51.100.2", To: "198.51.100.77", FromASN: 64496, ToASN: 64496, PerMille: 999}},
		Hops: []measure.Hop{{TTL: 1, Sent: 1, Answered: 1, Routers: []measure.Router{{Address: "192.168.1.1", RTTUS: 900}}},
			{TTL: 2, Sent: 1, Answered: 1, Routers: []measure.Router{{Address: "198.51.100.2", ASN: 64496, Country: "IR", RTTUS: 8_000}}},
			{TTL: 3, Sent: 1, Answered: 1, Routers: []measure.Router{{Address: "198.51.100.77", ASN: 64496, Country: "IR", RTTUS: 9_000}}},
			{TTL: 4, Sent: 1, Answered: 1, Server: true}}}
}

// altered is a command of mail that is changed in passing.
func altered() *measure.Location {
	l := redirected()
	l.Measurement, l.Target, l.Remote, l.Payload = "l3", "smtp://mail.example.org:587", "192.0.2.25:587", "mail"
	l.Trigger = measure.Trigger{Kind: "command", Value: "STARTTLS", Control: "NOOP"}
	l.Kind, l.Nearer, l.Triggers, l.Residual = measure.Alters, false, 2, ""
	return l
}

// commandsAlike is a dialogue of mail in which nothing was seen from here.
func commandsAlike() *measure.Location {
	l := altered()
	l.Measurement, l.Outcome, l.Kind, l.Set, l.Triggers, l.Position = "l4", measure.NoDifference, "", nil, 0, measure.PositionUnknown
	l.Unknown = []measure.Why{measure.WhyWayBack, measure.WhyNoQuotes}
	return l
}

// wordsAltered are a helper's, changed on the way from it.
func wordsAltered() *measure.Location {
	l := altered()
	l.Measurement, l.FromHelper, l.ServerTTL, l.Residual = "l5", true, 0, ""
	l.Trigger = measure.Trigger{Kind: "words", Control: "NOOP"}
	l.Hops = l.Hops[:3]
	return l
}

// byAnswers ends mail connections, and shows only in what it sends.
func byAnswers() *measure.Location {
	l := altered()
	l.Measurement, l.Kind, l.ByAnswers, l.Triggers = "l7", measure.Terminates, true, 0
	l.Trigger = measure.Trigger{Kind: "port", Value: "587"}
	return l
}

// wordsSomewhere are changed nobody knows where; the first router may do it.
func wordsSomewhere() *measure.Location {
	l := wordsAltered()
	l.Measurement, l.Outcome, l.Kind, l.Set, l.Triggers, l.Position = "l6", measure.NotLocated, "", nil, 0, measure.PositionUnknown
	l.Hops = append(l.Hops, measure.Hop{TTL: 4, Sent: 1, Answered: 1, Server: true})
	l.ServerTTL, l.Unknown = 4, []measure.Why{measure.WhyBackQuotes}
	return l
}

// answersItself is a resolver in whose place nobody answers.
func answersItself() *measure.Location {
	l := redirected()
	l.Measurement, l.Outcome, l.Kind, l.Nearer, l.Position, l.Set = "l2", measure.Itself, "", false, measure.PositionUnknown, nil
	return l
}

func placed(t testing.TB, o Options, list ...*measure.Location) string {
	t.Helper()
	var b bytes.Buffer
	text := NewText(&b, o)
	for _, l := range list {
		if err := text.AddLocation(l); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestLocationGolden(t *testing.T) {
	for _, l := range i18n.Langs {
		got := placed(t, Options{Lang: l, Width: 80}, locations()...)
		golden(t, "location."+string(l)+".txt", []byte(got))
		checkLines(t, got, 80)
	}
}

// The lines hold at every width, and every address is whole at 80 columns.
func TestLocationLines(t *testing.T) {
	for _, l := range i18n.Langs {
		for _, width := range []int{40, 50, 60, 70, 80, 132} {
			checkLines(t, placed(t, Options{Lang: l, Width: width}, locations()...), width)
		}
		long := locatedDropper()
		for i := range 18 {
			long.Hops = append(long.Hops, measure.Hop{TTL: 6 + i, Sent: 30, Answered: 1, Routers: []measure.Router{{Address: "2001:db8:ffff:1234:5678:9abc:def0:1234", ASN: 4200000000, Country: "RU", RTTUS: 1_234_000}}})
		}
		got := placed(t, Options{Lang: l}, long)
		checkLines(t, got, 80)
		if n := strings.Count(got, "2001:db8:ffff:1234:5678:9abc:def0:1234"); n < 19 {
			t.Errorf("%s: only %d of the addresses are whole:\n%s", l, n, got)
		}
	}
}

func TestLocationColourIsOnlyPaint(t *testing.T) {
	plain, coloured := placed(t, Options{}, locations()...), placed(t, Options{Colour: true}, locations()...)
	if strings.Contains(plain, "\x1b") || !strings.Contains(coloured, "\x1b[1;31m───  ✗ it sits here") {
		t.Error("the mark is not coloured, or colour is where none was asked for")
	}
	for _, style := range []string{bold, faint, reset, "\x1b[1;31m"} {
		coloured = strings.ReplaceAll(coloured, style, "")
	}
	if plain != coloured {
		t.Error("colour changes the text")
	}
}

func TestTextSummaryCountsLocations(t *testing.T) {
	end := func(verdicts []Entry, list []*measure.Location) string {
		var b bytes.Buffer
		text := NewText(&b, Options{})
		for _, e := range verdicts {
			if err := text.Add(e.Measurement, e.Verdict); err != nil {
				t.Fatal(err)
			}
		}
		for _, l := range list {
			if err := text.AddLocation(l); err != nil {
				t.Fatal(err)
			}
		}
		b.Reset()
		if err := text.End(Summary{ElapsedMS: 9_000}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	alone := end(nil, locations())
	if !strings.HasPrefix(alone, "The place of what interferes was found on 7 of 13 paths followed.\n6 targets tested in 9 s") || strings.Contains(alone, "Nothing was measured") {
		t.Errorf("without verdicts the summary is\n%s", alone)
	}
	both := end([]Entry{sampleTLSReset()}, locations()[:1])
	if !strings.HasPrefix(both, "Interference was confirmed for 1 of 1 target.\nThe place of what interferes was found on 1 of 1 path followed.\n") {
		t.Errorf("with a verdict the summary is\n%s", both)
	}
	// A line of what works stands apart from the block that follows.
	var b bytes.Buffer
	text := NewText(&b, Options{})
	e := sampleClean("m0", "a.example")
	if err := errors.Join(text.Add(e.Measurement, e.Verdict), text.AddLocation(noDifference())); err != nil || !strings.Contains(b.String(), "\n\n» https://telegram.org/") {
		t.Errorf("%v, %q", err, b.String())
	}
	if err := NewText(failingWriter{}, Options{}).AddLocation(noPath()); err == nil {
		t.Error("a full disk went unnoticed")
	}
}

// The mark stands between the two hops of the link, in text as in HTML.
func TestLocationMarkIsBetweenItsHops(t *testing.T) {
	text := placed(t, Options{}, locatedInjector())
	before, after, ok := strings.Cut(text, "✗ it sits here: 99 %")
	if !ok || !strings.HasPrefix(lastLine(before, 1), "  7 ") || !strings.HasPrefix(strings.TrimLeft(after, "\n"), "  8 ") {
		t.Errorf("the mark is elsewhere:\n%s", text)
	}
	for _, l := range i18n.Langs {
		page := checkedAlone(t, l, locatedInjector())
		drawing := page[strings.Index(page, `class="route"`):strings.Index(page, `class="legend"`)]
		seven, mark, eight := strings.Index(drawing, "78.38.240.93"), strings.Index(drawing, "✗"), strings.LastIndex(drawing, "185.100.209.109")
		if seven < 0 || mark < seven || eight < mark || strings.Count(drawing, "✗") != 1 {
			t.Errorf("%s: the mark is elsewhere: %d, %d, %d", l, seven, mark, eight)
		}
	}
}

func lastLine(s string, back int) string {
	lines := strings.Split(s, "\n")
	return lines[len(lines)-1-back]
}

// What the result says is what the words claim, and no more.
func TestLocationClaimsNoMoreThanItsFields(t *testing.T) {
	words := func(l *measure.Location) string {
		text, _, _ := strings.Cut(placed(t, Options{}, l), "  Hop ")
		return strings.Join(strings.Fields(text), " ")
	}
	for _, c := range []struct {
		name      string
		l         *measure.Location
		want, not []string
	}{
		{"one link", locatedInjector(), []string{"sits between hop 7 (78.38.240.93, AS58224, IR) and hop 8 (185.100.209.109, AS49666, IR) (probability 99 %)", "beside the path (on-path)", "same address and port stay blocked", "about 92 s"}, []string{"most likely", "somewhere"}},
		{"three links", locatedDropper(), []string{"most likely sits between hop 3 (2001:db8:ffff:1234:5678:9abc:def0:1234, AS64497, RU) and hop 4 (no answer) (probability 62 %)", "somewhere between hop 2 and hop 5 (probability over 99 %)", "It stands in the path", "Nothing stays blocked"}, nil},
		{"set with a gap", copiesTTL(), []string{"sits somewhere between this device and hop 4 (probability 99 %)", "likeliest single link is the one between this device and hop 1 (10.0.0.1) (47 %)", "take over the TTL", "is not known", "the same address stays blocked"}, []string{"most likely"}},
		{"at the end", atEnd(), []string{"the last link or is the server itself", "acts only on what reaches the server", "in the path or beside it (on-path) is not known", "between hop 2 and the server", "govah locate --helper URL http://news.example/"}, []string{"It stands in the path"}},
		{"no difference", noDifference(), []string{"fared alike", "That nothing reacts"}, []string{"stands", "stay blocked", "sits"}},
		{"not located", notLocated(), []string{"cannot be said", "somewhere between this device and hop 5"}, []string{"most likely", "here:"}},
		{"no path", noPath(), []string{"could not be followed", "Whether anything reacts"}, []string{"stands", "sits", "compared"}},
		{"from the future", location(func(l *measure.Location) {
			l.Outcome, l.Kind, l.Position, l.Residual, l.Trigger.Kind = "likely", "other", "x", "y", "z"
		}), []string{"no words for (likely)"}, []string{"sits"}},
		{"located nowhere", location(func(l *measure.Location) { l.Outcome = measure.Located }), []string{"cannot be said"}, []string{"sits"}},
	} {
		got := words(c.l)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: there is no %q in %q", c.name, want, got)
			}
		}
		for _, not := range c.not {
			if strings.Contains(strings.SplitN(got, "Not shown", 2)[0], not) {
				t.Errorf("%s: there is %q in %q", c.name, not, got)
			}
		}
	}
}

func TestShareNeverReadsCertain(t *testing.T) {
	for perMille, want := range map[int]string{-5: "under 1 %", 0: "under 1 %", 9: "under 1 %", 10: "1 %", 614: "61 %", 615: "62 %", 994: "99 %", 995: "over 99 %", 1000: "over 99 %"} {
		if got := strings.ReplaceAll(share(i18n.English, perMille), "\u00a0", " "); got != want {
			t.Errorf("%d per mille is %q, want %q", perMille, got, want)
		}
	}
}

func TestMilliseconds(t *testing.T) {
	for us, want := range map[int64]string{-1: "–", 0: "–", 40: "0.0", 700: "0.7", 9_940: "9.9", 9_960: "10", 41_000: "41", 41_600: "42", 1_234_000: "1,234"} {
		if got := milliseconds(i18n.English, us); got != want {
			t.Errorf("%d µs are %q, want %q", us, got, want)
		}
	}
	if got := milliseconds(i18n.Persian, 1_210); got != "۱٫۲" {
		t.Errorf("got %q", got)
	}
}

// sourceWith reads locations between the verdicts, as a reader of a file does:
// anew in each pass.
func sourceWith(entries []Entry, list []*measure.Location) *Source {
	src := source(entries)
	src.Entries = func(yield func(Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
			for _, l := range list {
				if l.Measurement == e.Verdict.Measurement {
					src.Location(l)
				}
			}
		}
		for _, l := range list {
			src.Location(l)
		}
	}
	return src
}

func checkedAlone(t testing.TB, l i18n.Lang, list ...*measure.Location) string {
	t.Helper()
	page := htmlOf(t, l, sourceWith(nil, list))
	checkPage(t, page)
	return page
}

func TestHTMLLocationsStandWithTheirVerdict(t *testing.T) {
	for _, l := range i18n.Langs {
		page := htmlOf(t, l, sourceWith(samples(), locations()))
		s := checkPage(t, page)
		if s.elements["article"] != 10+13 || s.elements["figure"] != 12+13 || strings.Count(page, `class="route"`) != 13 {
			t.Errorf("%s: %d articles, %d figures, %d paths for 10 cards, one location with a verdict, thirteen without, and one without a path",
				l, s.elements["article"], s.elements["figure"], strings.Count(page, `class="route"`))
		}
		start := strings.Index(page, `id="t1" class="card confirmed"`)
		card := page[start : start+strings.Index(page[start:], "</article>")]
		if !strings.Contains(card, `class="route"`) || !strings.Contains(card, "185.100.209.109") {
			t.Errorf("%s: the location is not in the card of its verdict", l)
		}
		if strings.Contains(card, string(l.HTML("scope.unknown"))) {
			t.Errorf("%s: the card says that the place is not known, and where it is", l)
		}
		if strings.Index(page, `<section id="where">`) < strings.Index(page, `id="g-fine"`) {
			t.Errorf("%s: there is no part for what has no verdict", l)
		}
	}
	page := checkedAlone(t, i18n.English, locations()...)
	if !strings.Contains(page, "<h1>The place of what interferes was found on 7 of 13 paths followed.</h1>") {
		t.Error("a file without verdicts has no heading of its own")
	}
	same := locatedInjector()
	same.Outcome = measure.NotLocated // judged again: the newer one counts
	if page := checkedAlone(t, i18n.English, locatedInjector(), same); strings.Count(page, `class="route"`) != 1 || !strings.Contains(page, "cannot be said") {
		t.Error("a location that was judged again is there twice, or as it was")
	}
	fine := sampleClean("m24", "a.example")
	if page := htmlOf(t, i18n.English, sourceWith([]Entry{{Verdict: fine.Verdict}}, []*measure.Location{noDifference()})); !strings.Contains(page, "fared alike") {
		t.Error("the location of a target that works is missing")
	}
}

// A VPN changes what a location means, with or without a verdict.
func TestLocationsWithoutVerdictNameTheirNetwork(t *testing.T) {
	m := sampleTLSReset().Measurement
	m.Vantage.Tunnel = true
	src := sourceWith(nil, locations())
	src.Measured(m)
	src.Measured(m)
	page := htmlOf(t, i18n.English, src)
	checkPage(t, page)
	if strings.Count(page, "A VPN was in use") != 1 || !strings.Contains(page, "Mobile Communication Company of Iran") {
		t.Error("the report does not say that a VPN was in use, or in which network")
	}
	var b bytes.Buffer
	text := NewText(&b, Options{})
	if err := errors.Join(text.Measured(m), text.Measured(m), text.AddLocation(noPath())); err != nil || strings.Count(b.String(), "! A VPN was in use") != 1 {
		t.Errorf("%v, %q", err, b.String())
	}
}

// hostileLocation puts s wherever a location can carry text.
func hostileLocation(s string) *measure.Location {
	l := locatedInjector()
	l.Run, l.Measurement, l.Rules, l.Target, l.Remote, l.Payload, l.Because, l.Unknown = s, s, s, s, s, s, []string{s}, []measure.Why{measure.Why(s)}
	l.Family = measure.Family(s)
	l.Trigger.Value, l.Trigger.Control = s, s
	for i := range l.Set {
		p := &l.Set[i]
		p.From, p.To, p.FromCountry, p.ToCountry = s, s, s, s
	}
	for i := range l.Hops {
		for j := range l.Hops[i].Routers {
			r := &l.Hops[i].Routers[j]
			r.Address, r.Country = s, s
		}
	}
	return l
}

func TestLocationHostile(t *testing.T) {
	for _, lang := range i18n.Langs {
		want := look(t, checkedAlone(t, lang, hostileLocation("plain")))
		for _, s := range hostileStrings {
			l := hostileLocation(s)
			future := hostileLocation(s)
			future.Outcome, future.Kind, future.Position, future.Residual, future.Trigger.Kind = measure.Whereat(s), measure.Kind(s), measure.Position(s), measure.ResidualKey(s), s
			for _, width := range []int{40, 80} {
				checkLines(t, placed(t, Options{Lang: lang, Width: width}, l, future), width)
			}
			got := look(t, checkedAlone(t, lang, l))
			for _, name := range []string{"article", "script", "style", "figure", "svg", "table", "tr", "td"} {
				if got.elements[name] != want.elements[name] {
					t.Errorf("%q: %d <%s> instead of %d", s, got.elements[name], name, want.elements[name])
				}
			}
			checkedAlone(t, lang, future)
		}
	}
}

// A file can hold any numbers.
func TestLocationOutOfBounds(t *testing.T) {
	const most = int(^uint(0) >> 1)
	l := location(func(l *measure.Location) {
		l.Outcome, l.ServerTTL, l.ResidualMS, l.Residual, l.Triggers, l.Probes = measure.Located, -most, int64(most), measure.ResidualClient, -1, most
		for _, n := range []int{-most, -1, 0, 1, 1, 3, maxHops, maxHops + 1, most} {
			l.Hops = append(l.Hops, measure.Hop{TTL: n, Sent: most, Answered: -most, Routers: make([]measure.Router, 40)})
			l.Set = append(l.Set, measure.Place{Low: n, PerMille: n, FromASN: n})
		}
		l.Hops[3].Routers[0] = measure.Router{Address: "10.0.0.1", ASN: most, RTTUS: int64(most)}
	})
	for _, lang := range i18n.Langs {
		got := placed(t, Options{Lang: lang}, l)
		checkLines(t, got, 80)
		if n := strings.Count(got, "\n"); n > 200 {
			t.Errorf("%d lines", n)
		}
		checkedAlone(t, lang, l)
	}
}

// FuzzLocation renders whatever can be read from a file.
func FuzzLocation(f *testing.F) {
	for _, l := range append(locations(), hostileLocation("\x1b[31m\u202e<b>")) {
		data, err := json.Marshal(l)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l := new(measure.Location)
		if json.Unmarshal(data, l) != nil {
			return
		}
		for _, lang := range i18n.Langs {
			checkLines(t, placed(t, Options{Lang: lang}, l), 80)
			checkedAlone(t, lang, l)
		}
	})
}

// TestWriteLocationSamples writes pages with the sample locations where
// GOVAH_REPORT_SAMPLES says, for a look at them in a browser.
func TestWriteLocationSamples(t *testing.T) {
	dir := os.Getenv("GOVAH_REPORT_SAMPLES")
	if dir == "" {
		t.Skip("set GOVAH_REPORT_SAMPLES to a folder to get the sample reports")
	}
	for _, l := range i18n.Langs {
		for name, src := range map[string]*Source{"alone": sourceWith(nil, locations()), "card": sourceWith([]Entry{sampleTLSReset()}, locations()[:1])} {
			if err := os.WriteFile(filepath.Join(dir, "location."+name+"."+string(l)+".html"), []byte(htmlOf(t, l, src)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The words on the shaded links are readable as well (WCAG 2.2, 1.4.3).
func TestContrastOfShadedLinks(t *testing.T) {
	shades := regexp.MustCompile(`::before\{(?:content:"";position:absolute;inset:0;background:var\(--confirmed\);)?opacity:\.([0-9]+)\}`).FindAllStringSubmatch(styleSheet, -1)
	if len(shades) != 2 {
		t.Fatalf("%d shades, want that of the set and that of the likeliest link", len(shades))
	}
	for _, root := range regexp.MustCompile(`:root\{([^}]*)\}`).FindAllStringSubmatch(styleSheet, 2) {
		colours := map[string]string{}
		for _, m := range regexp.MustCompile(`--([a-z]+):(#[0-9a-f]{3,6})`).FindAllStringSubmatch(root[1], -1) {
			colours[m[1]] = m[2]
		}
		for _, shade := range shades {
			opacity, err := strconv.ParseFloat("0."+shade[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			var over, ground uint32
			if _, err := fmt.Sscanf(colours["confirmed"]+" "+colours["soft"], "#%x #%x", &over, &ground); err != nil {
				t.Fatal(err)
			}
			mixed := uint32(0)
			for shift := 0; shift < 24; shift += 8 {
				a, b := float64(over>>shift&0xff), float64(ground>>shift&0xff)
				mixed |= uint32(a*opacity+b*(1-opacity)) << shift
			}
			for _, ink := range []string{"ink", "confirmed", "muted"} {
				if c := contrast(t, colours[ink], fmt.Sprintf("#%06x", mixed)); c < 4.5 {
					t.Errorf("%s on the shade .%s of %s has %.2f", ink, shade[1], colours["soft"], c)
				}
			}
		}
	}
}

// Each value of the closed vocabularies of a location has words.
func TestEveryLocationConstantHasWords(t *testing.T) {
	all := constants(t)
	for typ, prefix := range map[string]string{"Whereat": "location.outcome.", "Kind": "location.what.", "Position": "location.position.", "ResidualKey": "location.residual."} {
		if len(all[typ]) < 2 {
			t.Errorf("found %d constants of measure.%s: the test does not see them", len(all[typ]), typ)
		}
		for _, value := range all[typ] {
			if !slices.Contains(i18n.Keys(), prefix+value) {
				t.Errorf("no words for measure.%s %q", typ, value)
			}
		}
	}
	for _, kind := range []string{"sni", "host", "path", "qname", "address", "port", "command"} { // what package locate varies
		if !i18n.English.Has("location.trigger." + kind) {
			t.Errorf("no words for the trigger %q of a search", kind)
		}
	}
}

// TestFarEnd: what the helper saw is told in a sentence, and asks for no other
// vantage point; what this version does not know is not told.
func TestFarEnd(t *testing.T) {
	told := map[measure.FarEnd]string{measure.FarArrived: "reached the helper all the same", measure.FarArrivedCut: "and then somebody reset",
		measure.FarNothing: "did not reach the helper.", measure.FarCut: "did not reach the helper, and somebody reset", "from the future": ""}
	for far, want := range told {
		l := atEnd()
		l.FarEnd, l.OnlyServer, l.ToHelper = far, far == measure.FarCut, true
		got := strings.Join(strings.Fields(placed(t, Options{}, l)), " ")
		for _, text := range told {
			if text != "" && strings.Contains(got, text) != (text == want) {
				t.Errorf("%q: %q is told: %v", far, text, strings.Contains(got, text))
			}
		}
		if !strings.Contains(got, "this one leads to the helper") {
			t.Errorf("%q: it is not told whereto the path leads", far)
		}
		if strings.Contains(got, "leaves ours alone") != l.OnlyServer {
			t.Errorf("%q: only the server: %v", far, l.OnlyServer)
		}
		if strings.Contains(got, "second vantage point can tell") {
			t.Errorf("%q: sends to a helper that was the target", far)
		}
		if fa := placed(t, Options{Lang: i18n.Persian}, l); !strings.Contains(fa, "سرور کمکی") {
			t.Errorf("%q: %s", far, fa)
		}
	}
}

// Where a position is not known, the way to a helper is named, unless that was
// the way.
func TestWayToHelper(t *testing.T) {
	const want = "govah locate --helper URL https://telegram.org/"
	for _, known := range []measure.Position{measure.OnPath, measure.PositionUnknown} {
		for _, there := range []bool{false, true} {
			l := locatedInjector()
			l.Position, l.ToHelper = known, there
			got := strings.Join(strings.Fields(placed(t, Options{}, l)), " ")
			if strings.Contains(got, want) != (known == measure.PositionUnknown && !there) {
				t.Errorf("%s, to a helper %v: %s", known, there, got)
			}
		}
	}
}
