package evidence

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"govah/evidence/tlog"
)

// handoverHeader is the first line of a note about a redaction. As that of a
// bundle's note it is no log's origin.
const handoverHeader = "govah redaction v1"

// Handover is what who redacted a bundle states of it, in a note of its own
// beside the file (docs/formats/bundle-v1.md, 11): the bundle is as it was
// sealed, by whom ever, and has no room for later words.
type Handover struct {
	Key    string // the verifier key of who states it
	Entry  Hash   // of the bundle
	Before Hash   // SHA-256 of the file that was redacted
	After  Hash   // and of the one that was made
	At     string // RFC 3339, by the clock of who states it
	// Withheld is how many leaves of each class are in the file that was made.
	Withheld Counts
}

func (h *Handover) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nkey %s\nentry %s\nbefore %s\nafter %s\nat %s\n", handoverHeader, h.Key,
		b64.EncodeToString(h.Entry[:]), b64.EncodeToString(h.Before[:]), b64.EncodeToString(h.After[:]), h.At)
	for c, n := range h.Withheld {
		if n > 0 {
			fmt.Fprintf(&b, "withheld %s %d\n", Class(c), n)
		}
	}
	return b.String()
}

// SignHandover states that after is what was made of before. Both are files
// of one bundle, which are verified first.
func SignHandover(signer note.Signer, key string, before, after []byte, at time.Time) ([]byte, error) {
	old, err := Open(before)
	if err != nil {
		return nil, err
	}
	b, err := Open(after)
	if err != nil {
		return nil, err
	}
	if old.Entry != b.Entry {
		return nil, errors.New("evidence: signing: the two files are not of one bundle")
	}
	h := Handover{Key: key, Entry: b.Entry, Before: sha256.Sum256(before), After: sha256.Sum256(after), At: at.UTC().Format(time.RFC3339), Withheld: b.Withheld()}
	n, err := note.Sign(&note.Note{Text: h.text()}, signer)
	if err != nil {
		return nil, fmt.Errorf("evidence: signing: %w", err)
	}
	if _, err := OpenHandover(n); err != nil {
		return nil, fmt.Errorf("evidence: signing: what was signed does not verify: %w", err)
	}
	return n, nil
}

// OpenHandover reads such a note and checks its signature by the key that it
// names.
func OpenHandover(data []byte) (*Handover, error) {
	if len(data) > maxNote {
		return nil, fmt.Errorf("it has more than %d bytes", maxNote)
	}
	text, _, ok := strings.Cut(string(data), "\n\n")
	body, ok2 := strings.CutPrefix(text+"\n", handoverHeader+"\n")
	if !ok || !ok2 {
		return nil, errors.New("it is no signed note about a redaction")
	}
	h := &Handover{}
	l := &lines{rest: body, n: 1}
	bad := func(what string) error { return fmt.Errorf("its line %d: no %s", l.n+1, what) }
	if h.Key, ok = l.take("key"); !ok {
		return nil, bad("key")
	}
	for _, f := range []struct {
		word string
		hash *Hash
	}{{"entry", &h.Entry}, {"before", &h.Before}, {"after", &h.After}} {
		v, ok := l.take(f.word)
		var err error
		if *f.hash, err = tlog.ParseHash(v); !ok || err != nil {
			return nil, bad(f.word)
		}
	}
	h.At, ok = l.take("at")
	if at, err := time.Parse(time.RFC3339, h.At); !ok || err != nil || at.UTC().Format(time.RFC3339) != h.At {
		return nil, bad("time")
	}
	if h.Withheld, ok = l.counts("withheld"); !ok {
		return nil, bad("number of leaves, or out of order")
	}
	if l.rest != "" {
		return nil, bad("such line is known")
	}
	v, err := verifierOf(h.Key)
	if err != nil {
		return nil, err
	}
	n, err := note.Open(data, note.VerifierList(v))
	if err != nil || len(n.Sigs) != 1 || len(n.UnverifiedSigs) > 0 || n.Text != h.text() {
		return nil, errors.New("its signature is wrong, or not by the key that it names")
	}
	return h, nil
}

// Of says whether the note is about a file: the one that was made.
func (h *Handover) Of(file []byte) bool { return h.After == sha256.Sum256(file) }
