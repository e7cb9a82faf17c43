package report

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

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
