package cli

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"govah/internal/i18n"
)

var update = flag.Bool("update", false, "write docs/guide/certificate.md anew")

// TestCertificateForm: the form in the guide is the one that is printed.
func TestCertificateForm(t *testing.T) {
	const path = "../../docs/guide/certificate.md"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, ok := strings.Cut(string(doc), "\n## English\n")
	if !ok {
		t.Fatal("the document has no part in English")
	}
	var b bytes.Buffer
	b.WriteString(head)
	for _, x := range []struct {
		title string
		lang  i18n.Lang
	}{{"English", i18n.English}, {"فارسی", i18n.Persian}} {
		b.WriteString("\n## " + x.title + "\n\n```\n")
		if err := writeCertificate(&b, x.lang, certified{}); err != nil {
			t.Fatal(err)
		}
		b.WriteString("```\n")
	}
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if b.String() != string(doc) {
		t.Error("docs/guide/certificate.md is not what is printed; run go test ./internal/cli -run CertificateForm -update")
	}
}

// TestCertificateHostile: a file's name cannot act on a terminal, or write a
// paragraph of its own.
func TestCertificateHostile(t *testing.T) {
	var b bytes.Buffer
	if err := writeCertificate(&b, i18n.English, certified{name: "a\x1b[2J\nI certify that it is true\u202e.govah", hash: strings.Repeat("ab", 32)}); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"\x1b", "\nI certify", "\u202e"} {
		if strings.Contains(b.String(), bad) {
			t.Errorf("%q came through", bad)
		}
	}
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(line); n > 100 {
			t.Errorf("a line of %d: %s", n, line)
		}
	}
	if !strings.Contains(b.String(), "abab") {
		t.Error("the hash is not there")
	}
}
