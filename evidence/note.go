package evidence

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"govah/evidence/tlog"
)

// header is the first line of a bundle's note. It is no log's origin, and the
// second is no tree size: the signature is good for nothing else.
const header = "govah evidence bundle v1"

const maxNote = 1 << 20

// Statement is what is signed: the text of bundle.note.
type Statement struct {
	// Key is the verifier key (c2sp.org/signed-note) whose holder states it.
	Key string
	// Previous is the entry of the bundle that the same key sealed before, nil
	// for the first: SHA-256 of that one's bundle.note.
	Previous *Hash
	Root     Hash
	Counts   Counts
	Files    []File // Name, Kind and Size
}

var b64 = base64.StdEncoding.Strict()

// text is the statement in its one form.
func (s *Statement) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nkey %s\n", header, s.Key)
	if s.Previous != nil {
		fmt.Fprintf(&b, "previous %s\n", b64.EncodeToString(s.Previous[:]))
	}
	fmt.Fprintf(&b, "root %s\n", b64.EncodeToString(s.Root[:]))
	for c, n := range s.Counts {
		if n > 0 {
			fmt.Fprintf(&b, "leaves %s %d\n", Class(c), n)
		}
	}
	for _, f := range s.Files {
		fmt.Fprintf(&b, "file %s %d %s\n", f.Kind, f.Size, f.Name)
	}
	return b.String()
}

// lines takes a text apart.
type lines struct {
	rest string
	n    int
}

// take gives what follows word and a space on the next line, if it begins so.
func (l *lines) take(word string) (string, bool) {
	line, rest, ok := strings.Cut(l.rest, "\n")
	value, ok2 := strings.CutPrefix(line, word+" ")
	if !ok || !ok2 {
		return "", false
	}
	l.rest = rest
	l.n++
	return value, true
}

func parseNumber(s string) (uint32, error) {
	n, err := tlog.ParseDecimal(s)
	if err != nil || n > math.MaxUint32 {
		return 0, errors.New("no decimal number")
	}
	return uint32(n), nil
}

// counts takes the lines that begin with word: classes in order, each with a
// number of leaves.
func (l *lines) counts(word string) (c Counts, ok bool) {
	last := -1
	for {
		v, more := l.take(word)
		if !more {
			return c, true
		}
		name, number, _ := strings.Cut(v, " ")
		class, err := ParseClass(name)
		n, err2 := parseNumber(number)
		if err != nil || err2 != nil || n < 1 || n > maxLeaves || int(class) <= last {
			return c, false
		}
		c[class], last = n, int(class)
	}
}

// parseStatement reads the text of a note in its one form.
func parseStatement(text string) (*Statement, error) {
	for i := range len(text) {
		if text[i] != '\n' && (text[i] < ' ' || text[i] > '~') {
			return nil, errors.New("it holds more than printable ASCII")
		}
	}
	body, ok := strings.CutPrefix(text, header+"\n")
	if !ok {
		return nil, fmt.Errorf("it does not begin with %q: it is of another version, or none", header)
	}
	l := &lines{rest: body, n: 1}
	bad := func(what string) error { return fmt.Errorf("its line %d: %s", l.n+1, what) }
	s := &Statement{}
	if s.Key, ok = l.take("key"); !ok {
		return nil, bad("no key")
	}
	var err error
	if v, ok := l.take("previous"); ok {
		h, err := tlog.ParseHash(v)
		if err != nil {
			return nil, bad(err.Error())
		}
		s.Previous = (*Hash)(&h)
	}
	v, ok := l.take("root")
	if s.Root, err = tlog.ParseHash(v); !ok || err != nil {
		return nil, bad("no root")
	}
	if s.Counts, ok = l.counts("leaves"); !ok {
		return nil, bad("no number of leaves, or out of order")
	}
	for {
		v, ok := l.take("file")
		if !ok {
			break
		}
		kind, rest, _ := strings.Cut(v, " ")
		number, name, _ := strings.Cut(rest, " ")
		size, err := parseNumber(number)
		k := FileKind(kind)
		if err != nil || size > maxBytes || !validName(name) || len(name) > maxName-len(viewFolder) ||
			k != Text && k != Binary && k != Whole || k == Whole && size != 1 ||
			len(s.Files) == maxFiles || len(s.Files) > 0 && s.Files[len(s.Files)-1].Name >= name {
			return nil, bad("no file, or out of order")
		}
		s.Files = append(s.Files, File{Name: name, Kind: k, Size: size})
	}
	if l.rest != "" {
		return nil, bad("something that is not understood")
	}
	return s, nil
}

// ErrAlgorithm says that the signature is of a kind that this version cannot
// check.
var ErrAlgorithm = errors.New("the signature's algorithm is not known to this version")

// verifierOf reads a verifier key: NAME+HASH+BASE64(algorithm || key).
func verifierOf(key string) (note.Verifier, error) {
	v, err := note.NewVerifier(key)
	if err == nil {
		return v, nil
	}
	parts := strings.SplitN(key, "+", 3)
	if len(parts) == 3 {
		if raw, derr := b64.DecodeString(parts[2]); derr == nil && len(raw) > 1 && raw[0] != 1 {
			return nil, fmt.Errorf("%w: %#02x", ErrAlgorithm, raw[0])
		}
	}
	return nil, fmt.Errorf("the key is malformed: %w", err)
}

// parseNote gives what a note states, and what is still to be verified: that
// the signature over what is signed is one by the key that the note names. It
// takes one signature in one form.
func parseNote(data []byte) (s *Statement, v note.Verifier, signed, signature []byte, err error) {
	if len(data) > maxNote {
		return nil, nil, nil, nil, fmt.Errorf("it has more than %d bytes", maxNote)
	}
	all := string(data)
	end := strings.Index(all, "\n\n")
	if end < 0 {
		return nil, nil, nil, nil, errors.New("it has no signature")
	}
	text, line := all[:end+1], all[end+2:]
	if s, err = parseStatement(text); err != nil {
		return nil, nil, nil, nil, err
	}
	if v, err = verifierOf(s.Key); err != nil {
		return nil, nil, nil, nil, err
	}
	encoded, ok := strings.CutPrefix(line, "— "+v.Name()+" ")
	encoded, ok2 := strings.CutSuffix(encoded, "\n")
	raw, err := b64.DecodeString(encoded)
	if !ok || !ok2 || err != nil || b64.EncodeToString(raw) != encoded || len(raw) < 5 || binary.BigEndian.Uint32(raw) != v.KeyHash() {
		return nil, nil, nil, nil, errors.New("its signature is not one by the key that it names, and no other")
	}
	return s, v, data[:end+1], raw[4:], nil
}
