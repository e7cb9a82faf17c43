package report

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"govah/internal/i18n"
	"govah/measure"
)

var update = flag.Bool("update", false, "write the golden files in testdata")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s changed (-want +got); run with -update if that is meant:\n%s", name, diff)
	}
}

func printed(t testing.TB, o Options, entries []Entry) string {
	t.Helper()
	var b bytes.Buffer
	text := NewText(&b, o)
	run := sampleRun()
	if err := text.Begin(run); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := text.Add(e.Measurement, e.Verdict); err != nil {
			t.Fatal(err)
		}
	}
	if err := text.End(Summary{ElapsedMS: 61_200, BytesSent: 120_400, BytesReceived: 1_312_000,
		Files: []File{{"measurements", "govah-2026-11-23/measurements.jsonl"}, {"report", "govah-2026-11-23/report.html"}}}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTextGolden(t *testing.T) {
	for _, l := range i18n.Langs {
		got := printed(t, Options{Lang: l, Width: 80}, samples())
		golden(t, "text."+string(l)+".txt", []byte(got))
		checkLines(t, got, 80)
		verbose := printed(t, Options{Lang: l, Width: 80, Verbose: true}, []Entry{sampleTLSReset(), sampleBlockPage(), sampleClean("m0", "www.wikipedia.org")})
		golden(t, "text.verbose."+string(l)+".txt", []byte(verbose))
		checkLines(t, verbose, 80)
	}
}

// checkLines holds what makes a line safe on any terminal.
func checkLines(t testing.TB, text string, width int) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if n := cells(line); n > width && !strings.Contains(line, "govah-2026-11-23/") {
			t.Errorf("a line of %d cells: %q", n, line)
		}
		depth := 0
		for _, r := range line {
			switch {
			case r == i18n.LRI || r == i18n.FSI:
				depth++
			case r == i18n.PDI:
				depth--
			case r == i18n.RLM, r == 0x200c, r == 0x200d:
			case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
				t.Errorf("%U in %q", r, line)
			}
			if depth < 0 {
				t.Errorf("an isolate ends before it began: %q", line)
			}
		}
		if depth != 0 {
			t.Errorf("an isolate is not closed: %q", line)
		}
		if strings.TrimRight(line, " ") != line {
			t.Errorf("spaces at the end: %q", line)
		}
	}
}

func TestTextColourIsOnlyPaint(t *testing.T) {
	plain := printed(t, Options{}, samples())
	coloured := printed(t, Options{Colour: true}, samples())
	if !strings.Contains(coloured, "\x1b[1;31m✗ https://telegram.org/") {
		t.Error("confirmed interference is not coloured")
	}
	if strings.Contains(plain, "\x1b") {
		t.Error("escape sequences without colour")
	}
	for _, style := range []string{bold, faint, reset, "\x1b[1;31m", "\x1b[1;33m", "\x1b[1;36m", "\x1b[1;35m", "\x1b[32m"} {
		coloured = strings.ReplaceAll(coloured, style, "")
	}
	if diff := cmp.Diff(plain, coloured); diff != "" {
		t.Errorf("colour changes the text:\n%s", diff)
	}
}

func TestTextSaysWhatCannotBeSeen(t *testing.T) {
	for _, entries := range [][]Entry{nil, {sampleClean("m0", "a.example")}, samples()} {
		got := strings.Join(strings.Fields(printed(t, Options{}, entries)), " ")
		if !strings.Contains(got, "Passive listening and interception inside the operator's network leave no trace on the device") {
			t.Errorf("%d targets: the sentence on limits is missing:\n%s", len(entries), got)
		}
	}
}

func TestTextNotices(t *testing.T) {
	e := sampleClean("m0", "a.example")
	e.Measurement.Vantage.Tunnel = true
	e.Measurement.Vantage.ClockOffsetMS = -7_200_000
	got := printed(t, Options{}, []Entry{e, e})
	if strings.Count(got, "! A VPN was in use") != 1 || strings.Count(got, "! The clock of this device is off by 2 h.") != 1 {
		t.Errorf("notices are not there exactly once:\n%s", got)
	}
	var b bytes.Buffer
	run := sampleRun()
	run.Lab = "iran-2017"
	if err := NewText(&b, Options{}).Begin(run); err != nil || !strings.Contains(b.String(), "emulated internet (scenario iran-2017)") {
		t.Errorf("the lab is not named: %q, %v", b.String(), err)
	}
}

func TestTextQuietLeavesOutWhatWorks(t *testing.T) {
	got := printed(t, Options{Quiet: true}, samples())
	if strings.Contains(got, "✓ https://") || !strings.Contains(got, "✗ https://telegram.org/") || !strings.Contains(got, "✓ 2 works") {
		t.Errorf("quiet prints:\n%s", got)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestTextReportsWriteErrors(t *testing.T) {
	text := NewText(failingWriter{}, Options{})
	e := sampleTLSReset()
	if err := text.Add(e.Measurement, e.Verdict); err == nil {
		t.Error("a full disk went unnoticed")
	}
	if err := text.End(Summary{}); err == nil {
		t.Error("a full disk went unnoticed at the end")
	}
}

func TestProgressOnlyOnATerminal(t *testing.T) {
	var b bytes.Buffer
	p := NewProgress(&b, Options{}, false)
	p.Update(1, 2, 0, time.Second, "x")
	p.Clear()
	if b.Len() > 0 {
		t.Errorf("wrote %q where there is no terminal", b.String())
	}
	p = NewProgress(&b, Options{Width: 60}, true)
	clock := time.Unix(0, 0).Add(time.Hour)
	p.now = func() time.Time { return clock }
	p.Update(3, 50, 1, 4200*time.Millisecond, "evil\x1b[2J"+strings.Repeat("x", 100))
	p.Update(4, 50, 1, 4200*time.Millisecond, "too soon")
	got := b.String()
	if !strings.HasPrefix(got, "\r\x1b[K3 of 50 targets, 1 to look at closer, 4.2 s") || strings.Contains(got, "too soon") || strings.Contains(got, "\x1b[2J") {
		t.Errorf("progress line %q", got)
	}
	if n := cells(strings.TrimPrefix(got, "\r\x1b[K")); n > 59 {
		t.Errorf("the line is %d cells wide", n)
	}
	b.Reset()
	p.Clear()
	if b.String() != "\r\x1b[K" {
		t.Errorf("Clear wrote %q", b.String())
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		in    string
		width int
		want  []string
	}{
		{"", 20, []string{""}},
		{"one two three", 8, []string{"one two", "three"}},
		{"abcdefghijkl", 8, []string{"abcdefgh", "ijkl"}},
		{"ab \u2066cd efghijk\u2069 l", 8, []string{"ab \u2066cd\u2069", "\u2066efghijk\u2069", "l"}},
		{"日本語日本語", 8, []string{"日本語日", "本語"}},
		{"e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301 x", 8, []string{"e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301", "x"}},
	} {
		if diff := cmp.Diff(c.want, wrap(c.in, c.width, 0, 0)); diff != "" {
			t.Errorf("wrap(%q, %d):\n%s", c.in, c.width, diff)
		}
	}
}

func TestWrapProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := rapid.SampledFrom(i18n.Langs).Draw(t, "lang")
		s := rapid.String().Draw(t, "a") + " " + l.IsolateForeign(rapid.String().Draw(t, "b")) + " " + l.IsolateLTR(rapid.String().Draw(t, "c"))
		s = i18n.Escape(rapid.String().Draw(t, "d")) + l.IsolateLTR(s)
		width := rapid.IntRange(10, 90).Draw(t, "width")
		lines := wrap(s, width, 0, 2)
		var joined strings.Builder
		for i, line := range lines {
			limit := width
			if i > 0 {
				limit -= 2
			}
			if cells(line) > limit {
				t.Fatalf("%q is wider than %d", line, limit)
			}
			joined.WriteString(line)
		}
		// Nothing but spaces and isolates may come or go.
		bare := func(s string) string {
			return strings.Map(func(r rune) rune {
				if r == 0x20 || r == 0xa0 || r == i18n.LRI || r == i18n.FSI || r == i18n.PDI {
					return -1
				}
				return r
			}, s)
		}
		if bare(joined.String()) != bare(s) {
			t.Fatalf("%q became %q", s, lines)
		}
	})
}

func TestEscapeToWidth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.Byte()).Draw(t, "s"))
		max := rapid.IntRange(1, 40).Draw(t, "max")
		if got := Escape(s, max); cells(got) > max {
			t.Fatalf("Escape(%q, %d) = %q", s, max, got)
		}
	})
	if got := Escape("abcdef", 4); got != "abc…" {
		t.Errorf("got %q", got)
	}
	if got := Escape("abcd", 4); got != "abcd" {
		t.Errorf("got %q", got)
	}
}

// hostile puts s wherever a measurement or verdict can carry text.
func hostile(s string) Entry {
	e := sampleTLSReset()
	m, v := e.Measurement, e.Verdict
	m.ID, m.Target, m.Started, m.Category, m.Imported = s, s, s, s, s
	m.Vantage.Country, m.Vantage.Network, m.Vantage.Link, m.Vantage.Geo, m.Vantage.ASNSource = s, s, s, s, s
	for i := range m.Observations {
		o := &m.Observations[i]
		o.Helper, o.SNI, o.Hello, o.Host, o.URL, o.Payload, o.Remote, o.Detail = s, s, s, s, s, s, s, s
		o.DNS = &measure.DNS{Name: s, Type: s, Transport: s, Resolver: s, Replies: []measure.DNSReply{{Rcode: s, Answers: []measure.DNSAnswer{{Type: s, Value: s}}}}}
		o.HTTP = &measure.HTTP{Method: s, Proto: s, Status: 200, Location: s, Title: s, Matches: []measure.Match{{Row: s, Product: s}}}
		o.TLS = &measure.TLS{Subject: s, Issuer: s, Public: measure.Verification(s)}
		o.TCP = &measure.TCP{ICMP: []measure.ICMP{{From: s, AtUS: o.StartUS}}}
		if i%7 == 0 {
			o.Step, o.Role, o.Stage, o.Experiment, o.Failure = measure.Step(s), measure.Role(s), measure.Stage(s), measure.Experiment(s), measure.Failure(s)
		}
		if i%5 == 0 {
			o.Path = &measure.Path{Outcome: s, ICMP: &measure.ICMP{From: s}}
		}
	}
	v.Run, v.Rules, v.Target, v.Unknown = s, s, s, []measure.Why{measure.Why(s)}
	f := &v.Findings[0]
	f.Trigger = measure.Trigger{Kind: "sni", Value: s, Control: s}
	f.Proof, f.Match, f.NotExcluded = s, &measure.Match{Row: s, Product: s}, []measure.Why{measure.Why(s)}
	v.Findings = append(v.Findings, measure.Finding{ID: s, Method: measure.Method(s), Interference: measure.InterferenceConfirmed, Scope: measure.Scope(s),
		Trigger: measure.Trigger{Kind: s, Value: s}, Runs: 1, Hits: 1, Family: measure.Family(s)})
	return e
}

var hostileStrings = []string{
	"\x1b[2J\x1b]0;owned\x07", "\u202egpj.exe\u2066\u2069\u2069\u2069", "\x00\xff\xfe", "a\r\nX: y", "\u0085\u2028", "<script>alert(1)</script>",
	`"><img src=x onerror=alert(1)>`, "'; DROP", "</style></script><!--", "{value}{n?a|b}", "\u0301\u0301\u0301\u0301", strings.Repeat("A", 5000), "unknown_failure: \x1b[31mred",
}

func TestTextHostile(t *testing.T) {
	for _, l := range i18n.Langs {
		for _, s := range hostileStrings {
			got := printed(t, Options{Lang: l, Verbose: true}, []Entry{hostile(s)})
			checkLines(t, got, 80)
		}
	}
}
