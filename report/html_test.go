package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"

	"govah/internal/i18n"
	"govah/measure"
)

func source(entries []Entry) *Source {
	return &Source{Run: sampleRun(), End: &measure.End{Type: "end", Ended: "2026-11-23T08:01:02Z", Measurements: len(entries), BytesSent: 120_400, BytesReceived: 1_312_000},
		Entries: func(yield func(Entry, error) bool) {
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
			}
		}}
}

func htmlOf(t testing.TB, l i18n.Lang, src *Source) string {
	t.Helper()
	var b bytes.Buffer
	if err := HTML(&b, Options{Lang: l}, src); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestWriteSamples writes the sample reports where GOVAH_REPORT_SAMPLES says,
// for a look at them in a browser.
func TestWriteSamples(t *testing.T) {
	dir := os.Getenv("GOVAH_REPORT_SAMPLES")
	if dir == "" {
		t.Skip("set GOVAH_REPORT_SAMPLES to a folder to get the sample reports")
	}
	for _, l := range i18n.Langs {
		if err := os.WriteFile(filepath.Join(dir, "report."+string(l)+".html"), []byte(htmlOf(t, l, source(samples()))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// shape lists what an HTML file is made of, as a browser would read it.
type shape struct {
	elements map[string]int
	ids      map[string]bool
	links    []string
	scripts  []string
	styles   []string
	policy   string
	problems []string
}

func look(t testing.TB, page string) shape {
	t.Helper()
	s := shape{elements: map[string]int{}, ids: map[string]bool{}}
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for n := range root.Descendants() {
		if n.Type == html.CommentNode {
			s.problems = append(s.problems, "a comment: "+n.Data)
		}
		if n.Type != html.ElementNode {
			continue
		}
		s.elements[n.Data]++
		equiv := ""
		for _, a := range n.Attr {
			switch {
			case strings.HasPrefix(a.Key, "on"), a.Key == "style", a.Key == "src", a.Key == "srcset", a.Key == "action":
				s.problems = append(s.problems, n.Data+" has "+a.Key+"="+a.Val)
			case a.Key == "href":
				s.links = append(s.links, a.Val)
			case a.Key == "id":
				if s.ids[a.Val] {
					s.problems = append(s.problems, "the id "+a.Val+" is there twice")
				}
				s.ids[a.Val] = true
			case a.Key == "http-equiv":
				equiv = a.Val
			case a.Key == "content" && equiv == "Content-Security-Policy":
				s.policy = a.Val
			}
		}
		if (n.Data == "script" || n.Data == "style") && n.FirstChild != nil {
			if n.Data == "script" {
				s.scripts = append(s.scripts, n.FirstChild.Data)
			} else {
				s.styles = append(s.styles, n.FirstChild.Data)
			}
		}
	}
	return s
}

var allowedElements = strings.Fields("html head meta title style body a header p h1 h2 h3 h4 ul li span b bdi main div table thead tbody tr th td label input button " +
	"section article dl dt dd figure figcaption svg rect line path text br details summary footer script code")

// checkPage holds what every report must hold, whatever it was made from.
func checkPage(t testing.TB, page string) shape {
	t.Helper()
	s := look(t, page)
	for _, p := range s.problems {
		t.Error(p)
	}
	for name := range s.elements {
		if !slices.Contains(allowedElements, name) {
			t.Errorf("there is an element <%s>", name)
		}
	}
	for _, link := range s.links {
		if id, inside := strings.CutPrefix(link, "#"); !inside || !s.ids[id] && id != "" {
			t.Errorf("a link goes to %q, which is not in this file", link)
		}
	}
	if len(s.scripts) > 1 || len(s.styles) != 1 {
		t.Fatalf("%d scripts and %d styles", len(s.scripts), len(s.styles))
	}
	for _, content := range append(s.scripts, s.styles...) {
		if hash := string(sourceHash(content)); !strings.Contains(s.policy, hash) {
			t.Errorf("the policy %q does not allow %s", s.policy, hash)
		}
	}
	if !strings.Contains(s.policy, "default-src 'none'") || strings.Contains(s.policy, "unsafe") {
		t.Errorf("the policy is %q", s.policy)
	}
	if !utf8.ValidString(page) {
		t.Error("the file is not UTF-8")
	}
	for _, r := range page {
		if unicode.IsControl(r) && r != '\n' || unicode.Is(unicode.Bidi_Control, r) {
			t.Fatalf("there is a %U in the file", r)
		}
	}
	for _, m := range regexp.MustCompile(`(?:x|x1|x2|width)="(-?[0-9.]+)%"`).FindAllStringSubmatch(page, -1) {
		if n, err := strconv.ParseFloat(m[1], 64); err != nil || n < 0 || n > 100 {
			t.Errorf("a drawing leaves its frame: %s", m[0])
		}
	}
	return s
}

func TestHTMLIsSelfContained(t *testing.T) {
	for _, l := range i18n.Langs {
		page := htmlOf(t, l, source(samples()))
		s := checkPage(t, page)
		if s.elements["article"] != 10 || s.elements["figure"] != 12 {
			t.Errorf("%d cards and %d pictures for 12 targets of which 2 are fine", s.elements["article"], s.elements["figure"])
		}
		if s.elements["table"] != 13 || s.elements["details"] != 14 {
			t.Errorf("%d tables, %d details", s.elements["table"], s.elements["details"])
		}
		want := `<html lang="en" dir="ltr">`
		if l == i18n.Persian {
			want = `<html lang="fa" dir="rtl">`
		}
		if !strings.Contains(page, want) || strings.Count(page, "<h1>") != 1 {
			t.Errorf("%s: not %s with one heading", l, want)
		}
		if !strings.Contains(page, string(l.HTML("limits.passive"))) {
			t.Errorf("%s: the sentence on limits is missing", l)
		}
		if len(page) > 15_000*len(samples()) {
			t.Errorf("%s: %d bytes for %d targets", l, len(page), len(samples()))
		}
	}
}

func TestHTMLHostile(t *testing.T) {
	for _, l := range i18n.Langs {
		plain := hostile("plain")
		want := checkPage(t, htmlOf(t, l, source([]Entry{plain, plain, plain, plain, plain, plain})))
		for _, text := range hostileStrings {
			e := hostile(text)
			src := source([]Entry{e, e, e, e, e, e})
			run := src.Run
			run.Run, run.Tool, run.Version, run.Started, run.Lab, run.Client, run.Pace, run.Settings, run.Helpers = text, text, text, text, text, text, text, text, []string{text}
			got := checkPage(t, htmlOf(t, l, src))
			for _, name := range []string{"article", "script", "style", "figure", "input", "table"} {
				if got.elements[name] != want.elements[name] {
					t.Errorf("%q: %d <%s> instead of %d", text, got.elements[name], name, want.elements[name])
				}
			}
		}
	}
}

// The pictures say what broke and where.
func TestPictureShowsTestAgainstControl(t *testing.T) {
	page := htmlOf(t, i18n.English, source([]Entry{sampleTLSReset()}))
	for _, want := range []string{
		`The same server, another name in the handshake`, `The same names at an unrelated server that answers any name`, `The whole measurement`,
		`test: <b><bdi dir="ltr">telegram.org</bdi></b>`, `control: <b><bdi dir="ltr">kqzvwyhm.org</bdi></b> (random name)`,
		strings.Repeat(`<span class="t-bad">✗</span>`, 5) + `</span>`, strings.Repeat(`<span class="t-ok">✓</span>`, 5) + `</span>`,
		`reset; 25 ms`, `the server answered; 82 ms`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the picture lacks %s", want)
		}
	}
	// The longest of the two chains fills the axis, and the control's answer
	// comes later than the reset: 41.3 + 82 ms against 40.8 + 24.8 ms.
	if !strings.Contains(page, `<rect x="33.0%" y="6" width="20.2%"`) || !strings.Contains(page, `<rect x="33.4%" y="6" width="66.6%"`) {
		t.Errorf("the bars are elsewhere: %q", regexp.MustCompile(`<rect [^>]*>`).FindAllString(page, 6))
	}
	mirrored := htmlOf(t, i18n.Persian, source([]Entry{sampleTLSReset()}))
	if !strings.Contains(mirrored, `<rect x="46.8%" y="6" width="20.2%"`) {
		t.Errorf("the bars are not mirrored: %q", regexp.MustCompile(`<rect [^>]*>`).FindAllString(mirrored, 6))
	}
}

func TestHTMLSilenceWhereThereIsNoResolverIsNoFailure(t *testing.T) {
	page := htmlOf(t, i18n.English, source([]Entry{sampleDNSInjection()}))
	if !strings.Contains(page, "no answer, as it should be") || strings.Contains(page, `class="row c silent"`) {
		t.Error("the silent control is drawn as a failure")
	}
}

func TestHTMLNotes(t *testing.T) {
	src := source(samples())
	src.Run.Lab, src.End, src.Skipped = "iran-2017", nil, 3
	page := htmlOf(t, i18n.English, src)
	for _, want := range []string{"This is an emulated internet (scenario <bdi dir=\"ltr\">iran-2017</bdi>)", "The run was interrupted", "3 lines of the input could not be read"} {
		if !strings.Contains(page, want) {
			t.Errorf("there is no %q", want)
		}
	}
	empty := htmlOf(t, i18n.English, &Source{Entries: source(nil).Entries})
	checkPage(t, empty)
	if !strings.Contains(empty, "<h1>Nothing was measured.</h1>") {
		t.Error("an empty report does not say so")
	}
	checkPage(t, htmlOf(t, i18n.Persian, source([]Entry{{Verdict: sampleTLSReset().Verdict}})))
}

func TestHTMLErrors(t *testing.T) {
	if err := HTML(failingWriter{}, Options{}, source(samples())); err == nil {
		t.Error("a full disk went unnoticed")
	}
	src := source(nil)
	src.Entries = func(yield func(Entry, error) bool) { yield(Entry{}, errors.New("line 7 is damaged")) }
	if err := HTML(io.Discard, Options{}, src); err == nil || !strings.Contains(err.Error(), "line 7") {
		t.Errorf("a damaged file gives %v", err)
	}
}

// 1,500 targets, each with its picture, pass through without staying.
func TestHTMLMemoryIsBounded(t *testing.T) {
	const targets = 1500
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var atStart, atEnd uint64
	pass := 0
	src := source(nil)
	src.Entries = func(yield func(Entry, error) bool) {
		pass++
		for i := range targets {
			e := sampleTLSReset()
			e.Verdict.Target = "https://site" + strconv.Itoa(i) + ".example/"
			if !yield(e, nil) {
				return
			}
			switch {
			case i == 10 && pass == 1:
				atStart = heap()
			case i == targets-1:
				atEnd = heap()
			}
		}
	}
	var size counter
	if err := HTML(&size, Options{}, src); err != nil {
		t.Fatal(err)
	}
	if pass != 2 {
		t.Errorf("%d passes over targets of one state", pass)
	}
	grown := int64(atEnd) - int64(atStart)
	t.Logf("%d bytes of HTML, %d bytes of heap more at the end", size, grown)
	if grown > 2<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	if size < 1_000_000 {
		t.Errorf("only %d bytes were written", size)
	}
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

// FuzzReport renders whatever can be read from a file.
func FuzzReport(f *testing.F) {
	for _, e := range append(samples(), hostile("\x1b[31m\u202e<b>"), hostile("x")) {
		m, err1 := json.Marshal(e.Measurement)
		v, err2 := json.Marshal(e.Verdict)
		if err1 != nil || err2 != nil {
			f.Fatal(err1, err2)
		}
		f.Add(m, v)
	}
	f.Add([]byte(`{"observations":[{"start_us":-9223372036854775808,"took_us":9223372036854775807,"after":"","stream":{"samples":[9223372036854775807,-1],"interval_us":-5}},{"start_us":9223372036854775807,"took_us":1,"role":"test"}]}`), []byte(`{"elapsed_ms":9223372036854775807,"bytes_sent":-1}`))
	f.Fuzz(func(t *testing.T, measurement, verdict []byte) {
		e := Entry{Measurement: new(measure.Measurement), Verdict: new(measure.Verdict)}
		if json.Unmarshal(measurement, e.Measurement) != nil || json.Unmarshal(verdict, e.Verdict) != nil {
			return
		}
		for _, l := range i18n.Langs {
			checkPage(t, htmlOf(t, l, source([]Entry{e})))
			checkLines(t, printed(t, Options{Lang: l, Verbose: true}, []Entry{e}), 80)
		}
	})
}

// Text is readable for people with weak eyes: at least 4.5 to 1 against its
// ground, and drawings 3 to 1 (WCAG 2.2, 1.4.3 and 1.4.11), light and dark.
func TestContrast(t *testing.T) {
	roots := regexp.MustCompile(`:root\{([^}]*)\}`).FindAllStringSubmatch(styleSheet, -1)
	if len(roots) != 3 {
		t.Fatalf("%d colour schemes, want light, dark and print", len(roots))
	}
	light := map[string]string{}
	for i, root := range roots {
		colours := map[string]string{}
		for k, v := range light {
			colours[k] = v
		}
		for _, m := range regexp.MustCompile(`--([a-z]+):(#[0-9a-f]{3,6})`).FindAllStringSubmatch(root[1], -1) {
			colours[m[1]] = m[2]
		}
		if i == 0 {
			light = colours
		}
		for _, ground := range []string{"bg", "card", "soft"} {
			for _, ink := range []string{"ink", "muted", "confirmed", "suspected", "unknown", "fault", "fine"} {
				if c := contrast(t, colours[ink], colours[ground]); c < 4.5 {
					t.Errorf("scheme %d: %s on %s has %.2f", i, ink, ground, c)
				}
			}
			if c := contrast(t, colours["ctl"], colours[ground]); c < 3 {
				t.Errorf("scheme %d: the control's bar on %s has %.2f", i, ground, c)
			}
		}
	}
}

func contrast(t *testing.T, a, b string) float64 {
	luminance := func(s string) float64 {
		s = strings.TrimPrefix(s, "#")
		if len(s) == 3 {
			s = string([]byte{s[0], s[0], s[1], s[1], s[2], s[2]})
		}
		n, err := strconv.ParseUint(s, 16, 32)
		if err != nil {
			t.Fatalf("%q is no colour", s)
		}
		part := func(shift uint) float64 {
			c := float64(n>>shift&0xff) / 255
			if c <= 0.04045 {
				return c / 12.92
			}
			return math.Pow((c+0.055)/1.055, 2.4)
		}
		return 0.2126*part(16) + 0.7152*part(8) + 0.0722*part(0)
	}
	x, y := luminance(a), luminance(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}
