package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"govah/evidence"
	"govah/internal/i18n"
	"govah/report"
)

// blank is to be filled in by hand.
const blank = "____________________"

// certified is what the file itself says for a custodian's certificate; what
// is "" is left blank.
type certified struct {
	name, size, hash    string // of the file; size in bytes, hash in hex
	noteHash, root, key string
	tool                string // program and version that made it
	verified            []string
	verifiedBy          string
}

// certificateRules are what the form is modelled on.
const certificateRules = "Federal Rules of Evidence 902(11), 902(13), 902(14)"

// certify is what an account says for the certificate.
func certify(a *app, lang i18n.Lang, path string, data []byte, c *evidence.Account) certified {
	hash := sha256.Sum256(data)
	k := certified{size: strconv.Itoa(len(data)), hash: hex.EncodeToString(hash[:]), noteHash: c.Entry, root: c.Root, key: c.Key,
		verifiedBy: "govah " + Version()}
	if path != stdinName {
		k.name = filepath.Base(path)
	}
	if s := c.Stated; s != nil {
		k.tool = short(s.Tool + " " + s.Version)
	}
	text := func(key string, args ...i18n.Arg) string { return lang.Text("cli.verify."+key, args...) }
	for _, part := range []struct {
		label string
		lines []string
	}{{"proved", a.proved(text, c)}, {"withheld", withheldIn(text, c)}, {"not", notProvedIn(text, c)}} {
		if len(part.lines) > 0 {
			k.verified = append(append(k.verified, text("label-"+part.label)), part.lines...)
		}
	}
	return k
}

// writeCertificate writes a custodian's certificate, to be printed and signed.
func writeCertificate(w io.Writer, lang i18n.Lang, c certified) error {
	fill := func(s string) string {
		if s == "" {
			return blank
		}
		return clean(s)
	}
	args := []i18n.Arg{i18n.LTR("blank", blank), i18n.LTR("sha", "SHA-256"), i18n.LTR("rules", certificateRules)}
	var b strings.Builder
	say := func(key string, indent int, more ...i18n.Arg) {
		b.WriteString(report.Wrap(lang.Text("cli.certificate."+key, append(more, args...)...), indent, indent) + "\n\n")
	}
	item := func(n int, key string, more ...i18n.Arg) {
		text := lang.Number(int64(n)) + ". " + lang.Text("cli.certificate."+key, append(more, args...)...)
		b.WriteString(report.Wrap(text, 0, 3) + "\n\n")
	}
	say("title", 0)
	say("about", 0)
	item(1, "who")
	item(2, "able")
	item(3, "got")
	item(4, "file", i18n.LTR("name", fill(c.name)), i18n.LTR("size", fill(c.size)), i18n.LTR("hash", fill(c.hash)))
	say("note", 3, i18n.LTR("hash", fill(c.noteHash)), i18n.LTR("root", fill(c.root)), i18n.LTR("key", fill(c.key)))
	item(5, "made", i18n.LTR("tool", fill(c.tool)), i18n.LTR("tree", "RFC 6962"), i18n.LTR("signature", "Ed25519"))
	item(6, "checked", i18n.LTR("verify", fill(c.verifiedBy)))
	if c.verified == nil {
		c.verified = []string{blank + blank}
	}
	for _, line := range c.verified {
		b.WriteString(report.Wrap(line, 3, 5) + "\n")
	}
	b.WriteString("\n")
	item(7, "copy")
	item(8, "not")
	say("oath", 0)
	say("sign", 0)
	_, err := io.WriteString(w, strings.TrimSuffix(b.String(), "\n"))
	return err
}
