package i18n

import (
	"html"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func placeholders(t *testing.T, key, message string) []string {
	t.Helper()
	parts, err := split(message)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	var names []string
	for _, p := range parts {
		// Languages differ in where they need a form for "one".
		if p.name != "" && !p.choice && !slices.Contains(names, p.name) {
			names = append(names, p.name)
		}
	}
	slices.Sort(names)
	return names
}

func TestBothLanguagesHaveTheSameKeysAndPlaceholders(t *testing.T) {
	english, persian := catalogue()[English], catalogue()[Persian]
	for key, message := range english {
		other, ok := persian[key]
		if !ok {
			t.Errorf("fa.json lacks %q", key)
			continue
		}
		if diff := cmp.Diff(placeholders(t, key, message), placeholders(t, key, other)); diff != "" {
			t.Errorf("%q has other placeholders in fa.json (-en +fa):\n%s", key, diff)
		}
	}
	for key := range persian {
		if _, ok := english[key]; !ok {
			t.Errorf("en.json lacks %q", key)
		}
	}
	if len(english) < 300 {
		t.Errorf("only %d keys; the files were not read", len(english))
	}
}

// Spelling that a Persian editor would not let pass.
func TestPersianSpelling(t *testing.T) {
	wrong := map[string]*regexp.Regexp{
		"Arabic yeh or kaf":                        regexp.MustCompile(`[يكىة]`),
		"Western digits in prose":                  regexp.MustCompile(`[0-9]`),
		"Western comma, semicolon or question":     regexp.MustCompile(`[,;?]`),
		"a space after می or نمی for a half-space": regexp.MustCompile(`(^|[\s«(])ن?می [\p{Arabic}]`),
		"a space before ها or های":                 regexp.MustCompile(` های? `),
		"double space":                             regexp.MustCompile(`[^ ]  [^ ]`),
		"a space before punctuation":               regexp.MustCompile(` [،؛؟.»]`),
		"straight quotes":                          regexp.MustCompile(`["']`),
	}
	terms := regexp.MustCompile(`HTTP/3|HTTP/1\.0|IPv[46]|NAT64|\{[^}]*\}`)
	for key, message := range catalogue()[Persian] {
		if key == "html.legend" {
			continue
		}
		for what, re := range wrong {
			if found := re.FindString(terms.ReplaceAllString(message, "X")); found != "" {
				t.Errorf("%s: %s (%q) in %q", key, what, found, message)
			}
		}
		latinOnly := strings.HasPrefix(key, "step.") || strings.HasPrefix(key, "transport.") || strings.HasPrefix(key, "family.") || strings.HasPrefix(key, "detail.value") || strings.HasPrefix(key, "progress.stage") || strings.HasPrefix(key, "list.") || key == "summary.count" || key == "date.day" || key == "date.both" || strings.HasPrefix(key, "summary.method")
		if !latinOnly && !strings.ContainsFunc(message, func(r rune) bool { return unicode.Is(unicode.Arabic, r) }) {
			t.Errorf("%s has no Persian: %q", key, message)
		}
	}
}

func TestCatalogueNeverPromisesSafety(t *testing.T) {
	for _, l := range Langs {
		for key, message := range catalogue()[l] {
			for _, promise := range []string{"you are safe", "is safe to", "شما در امان", "امن هستید"} {
				if strings.Contains(strings.ToLower(message), promise) {
					t.Errorf("%s in %s says %q", key, l, promise)
				}
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, data := range map[string]string{
		"duplicate":       `{"a":"x","a":"y"}`,
		"duplicate path":  `{"a":{"b":"x"},"a.b":"y"}`,
		"number":          `{"a":1}`,
		"array":           `{"a":["x"]}`,
		"trailing":        `{"a":"x"} {}`,
		"open brace":      `{"a":"x {b"}`,
		"close brace":     `{"a":"x b}"}`,
		"one-form choice": `{"a":"{n?x}"}`,
		"no object":       `"a"`,
		"truncated":       `{"a":{"b":"x"}`,
	} {
		if got, err := parse([]byte(data)); err == nil {
			t.Errorf("%s: %s was accepted as %v", name, data, got)
		}
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		flag string
		env  map[string]string
		want Lang
		err  bool
	}{
		{want: English},
		{flag: "fa", env: map[string]string{"LC_ALL": "en_GB.UTF-8"}, want: Persian},
		{flag: "EN", env: map[string]string{"LANG": "fa_IR"}, want: English},
		{flag: "de", want: English, err: true},
		{env: map[string]string{"LANG": "fa_IR.UTF-8"}, want: Persian},
		{env: map[string]string{"LANG": "fa_IR.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, want: English},
		{env: map[string]string{"LANG": "en_US.UTF-8", "LC_MESSAGES": "fa"}, want: Persian},
		{env: map[string]string{"LC_ALL": "C", "LANG": "fa_IR"}, want: English},
		{env: map[string]string{"LC_ALL": "fa-AF@x"}, want: Persian},
		{env: map[string]string{"LANG": "fax"}, want: English},
	} {
		got, err := Choose(c.flag, func(k string) string { return c.env[k] })
		if got != c.want || (err != nil) != c.err {
			t.Errorf("Choose(%q, %v) = %q, %v; want %q", c.flag, c.env, got, err, c.want)
		}
	}
}

func TestNumbersAndUnits(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{English.Number(0), "0"}, {English.Number(1234567), "1,234,567"}, {English.Number(-1500), "-1,500"},
		{Persian.Number(1404), "۱٬۴۰۴"}, {Persian.Number(12), "۱۲"},
		{English.Size(999), "999 B"}, {English.Size(1000), "1 kB"}, {English.Size(4149), "4.1 kB"}, {English.Size(4150), "4.2 kB"},
		{English.Size(999_499), "999 kB"}, {English.Size(999_500), "1 MB"}, {English.Size(12_345_678), "12 MB"}, {English.Size(2_500_000_000), "2.5 GB"},
		{English.Size(-5), "0 B"},
		{Persian.Size(4100), "۴٫۱ کیلوبایت"},
		{English.Duration(0), "0 ms"}, {English.Duration(400), "under 1 ms"}, {English.Duration(40_122), "40 ms"},
		{English.Duration(999_499), "999 ms"}, {English.Duration(999_500), "1 s"}, {English.Duration(3_250_000), "3.3 s"},
		{English.Duration(12_400_000), "12 s"}, {English.Duration(180_000_000), "3 min"}, {English.Duration(9_000_000_000), "2.5 h"},
		{Persian.Duration(812_000), "۸۱۲ میلی\u200cثانیه"},
		{English.Rate(128_000), "128 kbit/s"}, {English.Rate(9_540_000), "9.5 Mbit/s"},
		{English.Size(1<<63 - 1), English.Size(1 << 59)},
		{English.Duration(1<<63 - 1), English.Duration(1 << 59)},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

// Nowruz of each year as Iran's calendar centre (University of Tehran) set it,
// with the leap years 1399, 1403 and 1408.
func TestSolarHijri(t *testing.T) {
	for _, c := range []struct {
		date    string
		y, m, d int
	}{
		{"1979-02-11", 1357, 11, 22}, {"2009-06-12", 1388, 3, 22},
		{"2017-12-31", 1396, 10, 10}, {"2018-01-13", 1396, 10, 23},
		{"2019-11-15", 1398, 8, 24}, {"2020-03-19", 1398, 12, 29}, {"2020-03-20", 1399, 1, 1},
		{"2021-03-20", 1399, 12, 30}, {"2021-03-21", 1400, 1, 1}, {"2022-03-21", 1401, 1, 1}, {"2022-09-16", 1401, 6, 25},
		{"2023-03-21", 1402, 1, 1}, {"2024-03-20", 1403, 1, 1}, {"2025-03-20", 1403, 12, 30}, {"2025-03-21", 1404, 1, 1},
		{"2025-06-18", 1404, 3, 28}, {"2025-09-22", 1404, 6, 31}, {"2025-09-23", 1404, 7, 1}, {"2026-03-21", 1405, 1, 1},
		{"2029-03-20", 1408, 1, 1}, {"2030-03-20", 1408, 12, 30}, {"2030-03-21", 1409, 1, 1},
	} {
		date, err := time.Parse(time.DateOnly, c.date)
		if err != nil {
			t.Fatal(err)
		}
		y, m, d, ok := SolarHijri(date)
		if !ok || y != c.y || m != c.m || d != c.d {
			t.Errorf("%s is %d-%d-%d (%v), want %d-%d-%d", c.date, y, m, d, ok, c.y, c.m, c.d)
		}
	}
	// Each day follows the one before: no day is missing or there twice.
	var last [3]int
	for day := time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC); day.Year() < 2200; day = day.AddDate(0, 0, 1) {
		y, m, d, ok := SolarHijri(day)
		if !ok {
			t.Fatalf("%s is outside", day.Format(time.DateOnly))
		}
		now := [3]int{y, m, d}
		if last[0] != 0 {
			follows := now == [3]int{last[0], last[1], last[2] + 1} && d <= 31 ||
				now == [3]int{last[0], last[1] + 1, 1} && last[2] >= 30 ||
				now == [3]int{last[0] + 1, 1, 1} && last[1] == 12 && last[2] >= 29
			if !follows {
				t.Fatalf("%v does not follow %v", now, last)
			}
		}
		last = now
	}
	if _, _, _, ok := SolarHijri(time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC)); ok {
		t.Error("the year 3000 is claimed to be known")
	}
}

func TestDates(t *testing.T) {
	at := time.Date(2026, 11, 23, 8, 5, 1, 0, time.UTC)
	if got, want := English.DateTime(at), "23 November 2026, 08:05 UTC"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := Persian.DateTime(at), "۲ آذر ۱۴۰۵ (۲۳ نوامبر ۲۰۲۶)، ساعت ۰۸:۰۵ به وقت جهانی"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMessagesIsolateAndEscape(t *testing.T) {
	hostile := "a\x1b[31m\u202eb<b>"
	got := Persian.Text("detail.location", LTR("location", hostile))
	if want := "به \u2066a\\u{001B}[31m\\u{202E}b<b>\u2069"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := English.Text("detail.location", LTR("location", "https://x/")), "to https://x/"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := English.HTML("detail.title", Foreign("title", hostile)), Markup(`title &#34;<bdi dir="auto">a\u{001B}[31m\u{202E}b&lt;b&gt;</bdi>&#34;`); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	nested := Said("state", "detail.location", LTR("location", "x<"))
	if got, want := Persian.Text("detail.certificate", nested), "گواهی به \u2066x<\u2069"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := Persian.HTML("detail.certificate", nested), Markup(`گواهی به <bdi dir="ltr">x&lt;</bdi>`); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := English.Text("detail.replies", Num("n", 1)), "1 reply"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := English.Text("detail.replies", Num("n", 2)), "2 replies"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMissingArgumentPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a message without its argument did not panic")
		}
	}()
	English.Text("detail.location")
}

func TestEscape(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"plain text", "plain text"},
		{"", ""},
		{"a\nb\rc\td", `a\nb\rc\td`},
		{`a\nb`, `a\\nb`},
		{"\x1b]0;title\x07", `\u{001B}]0;title\u{0007}`},
		{"\xc2\x9b31m", `\u{009B}31m`},
		{"\xff\xfe", `\xFF\xFE`},
		{"ok\ufffd", "ok\ufffd"},
		{"\xed\xa0\x80", `\xED\xA0\x80`},
		{"x\u2028y\u00a0z", `x\u{2028}y\u{00A0}z`},
		{"\u202egpj.exe", `\u{202E}gpj.exe`},
		{"\u2066a\u2069", `\u{2066}a\u{2069}`},
		{"zero\u200bwidth\ufeff", `zero\u{200B}width\u{FEFF}`},
		{"می\u200cشود", "می\u200cشود"},
		{"a\u200cb", `a\u{200C}b`},
		{"می\u200c", `می\u{200C}`},
		{"\u0301x", `\u{0301}x`},
		{"e\u0301", "e\u0301"},
		{"e\u0301\u0301\u0301\u0301\u0301", "e\u0301\u0301\u0301" + `\u{0301}\u{0301}`},
		{"\U000e0041", `\u{E0041}`},
		{"\ue000", `\u{E000}`},
		{"\u3164", `\u{3164}`},
		{"日本", "日本"},
	} {
		if got := Escape(c.in); got != c.want {
			t.Errorf("Escape(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

// hostileText draws text that is mostly trouble.
func hostileText() *rapid.Generator[string] {
	piece := rapid.OneOf(
		rapid.String(),
		rapid.SampledFrom([]string{"\x1b[2J", "\x1b]8;;http://x\x1b\\", "\u202e", "\u2066", "\u2069", "\x00", "\xff", "\u0301", "\u200c", "ب", "\\", "<script>", "\"'&", "\r\n", "\u0085", "\u2028", "\U000e0001"}),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 6), func(b []byte) string { return string(b) }),
	)
	return rapid.Map(rapid.SliceOfN(piece, 0, 8), func(s []string) string { return strings.Join(s, "") })
}

func TestEscapeProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := hostileText().Draw(t, "s")
		got := Escape(s)
		if !utf8.ValidString(got) {
			t.Fatalf("%q is not valid UTF-8", got)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) && r != 0x200c && r != 0x200d || unicode.Is(unicode.Bidi_Control, r) {
				t.Fatalf("Escape(%q) lets %U through", s, r)
			}
		}
		if other := hostileText().Draw(t, "other"); other != s && Escape(other) == got {
			t.Fatalf("%q and %q are both written %q", s, other, got)
		}
		markup := string(ForeignBDI(s))
		inner := strings.TrimSuffix(strings.TrimPrefix(markup, `<bdi dir="auto">`), "</bdi>")
		if strings.ContainsAny(inner, `<>"'`) || html.UnescapeString(inner) != got {
			t.Fatalf("HTML of %q is %q", s, markup)
		}
	})
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "a", "\xff", "\u202e", "می\u200cشود", `\x41`, "e\u0301\u0301\u0301\u0301"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range Escape(s) {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Fatalf("Escape(%q) lets %U through", s, r)
			}
		}
	})
}
