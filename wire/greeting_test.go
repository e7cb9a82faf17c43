package wire

import (
	"net/url"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		"SSH-2.0-ROSSSH\r\n":       "SSH-2.0-ROSSSH%0D%0A",
		"100 % \\ \"سلام\"":        "100 %25 \\ \"سلام\"",
		"\x1b]0;x\a\u202eedoc\x00": "%1B]0;x%07%E2%80%AEedoc%00",
		"\xff\xfd\x18":             "%FF%FD%18",
		"\xe2\x80":                 "%E2%80",
	} {
		if got := printable([]byte(in)); got != want {
			t.Errorf("%q is written as %q, want %q", in, got, want)
		}
	}
}

// Nothing unprintable is left, and nothing is lost.
func TestPrintableIsLossless(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		got := printable(in)
		if strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("%q holds what cannot be printed", got)
		}
		if back, err := url.PathUnescape(got); err != nil || back != string(in) {
			t.Fatalf("%q reads as %q, %v", got, back, err)
		}
	})
}
