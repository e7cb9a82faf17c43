package cli

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"govah/evidence"
	"govah/internal/i18n"
	"govah/report"
)

// noteSuffix is what the name of a note about a redaction adds to the file's.
const noteSuffix = ".note"

// handover states with the key that findKey found what was made of what.
func (s *sealing) handover(before, after []byte) ([]byte, error) {
	key, err := s.keys.Use(s.scope, s.ask)
	if err != nil {
		return nil, keyError(s.scope, err)
	}
	defer key.Close()
	s.began = key.Began
	return evidence.SignHandover(key.Signer(), key.Verifier(), before, after, time.Now())
}

// handoverLine is a note about a redaction in the JSON of verify.
type handoverLine struct {
	Key    string `json:"key"`
	At     string `json:"at"`
	Before string `json:"before"` // SHA-256 of the file that was redacted, hex
}

// handover is such a note that was checked, nil for none.
type handover struct{ *evidence.Handover }

func (h *handover) line() *handoverLine {
	if h == nil {
		return nil
	}
	return &handoverLine{h.Key, h.At, hex.EncodeToString(h.Before[:])}
}

// readHandover reads a note about the redaction of a file, and holds it to the
// file; nil if there is to be none.
func (a *app) readHandover(path, about string, file []byte) (*handover, error) {
	if path == "" {
		return nil, nil
	}
	const what = "give the note that `govah redact --sign` wrote beside the file"
	if err := readable(path, what); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, hint(err, what)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 2<<20))
	if err != nil {
		return nil, hint(fmt.Errorf("reading %s: %w", path, err), "copy it again")
	}
	h, err := evidence.OpenHandover(data)
	if err == nil && !h.Of(file) {
		err = errors.New("it is about another file")
	}
	if err != nil {
		return nil, &hinted{err: fmt.Errorf("%s does not verify as a note about %s: %w", path, about, err), code: exitUnverified,
			hint: what + "; without --redaction the file is verified alone"}
	}
	return &handover{h}, nil
}

// tellHandover puts such a note into words.
func (a *app) tellHandover(lang i18n.Lang, h *handover) {
	if h == nil {
		return
	}
	say := func(key string, args ...i18n.Arg) string { return lang.Text("cli.redact."+key, args...) }
	fmt.Fprintln(a.out, report.Wrap(say("label-note"), 0, 2))
	fmt.Fprintln(a.out, report.Wrap(say("note-key", i18n.LTR("key", h.Key)), 2, 4))
	fmt.Fprintln(a.out, report.Wrap(say("note-before", i18n.LTR("hash", "SHA-256"), i18n.LTR("sum", hex.EncodeToString(h.Before[:])), i18n.LTR("time", h.At)), 2, 4))
}
