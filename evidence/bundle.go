package evidence

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"
)

// The members of a bundle.
const (
	noteName    = "bundle.note"
	tableName   = "leaves.bin"
	viewFolder  = "view/"
	proofFolder = "proof/"
	// LogProof proves that the note's entry is in a log (c2sp.org/tlog-proof).
	LogProof = "log.tlog-proof"
	// tokenSuffix is of time stamp tokens over the note (RFC 3161).
	tokenSuffix = ".tsr"
)

const maxProofBytes = 1 << 20 // of one member below proof/

// Bundle is a bundle whose signature and tree were verified.
type Bundle struct {
	Statement
	// Entry is what a log holds of the bundle: SHA-256 of bundle.note.
	Entry Hash
	// Proofs are the members below proof/, by name. They are no part of what
	// is signed, and not verified by Open.
	Proofs map[string][]byte

	note     []byte
	verifier note.Verifier
	entries  []Entry
	values   [][]byte
}

// Open reads a bundle and verifies everything in it that follows from its
// note; whatever does not is refused. The result points into data.
func Open(data []byte) (*Bundle, error) { return open(data, new(room)) }

// open is Open, of which the result ends with the room.
func open(data []byte, r *room) (*Bundle, error) {
	members, err := parseContainer(data)
	if err != nil {
		return nil, err
	}
	b := &Bundle{}
	if len(members) < 2 || members[0].name != noteName || members[1].name != tableName {
		return nil, fmt.Errorf("it is no evidence bundle: it does not begin with %s and %s", noteName, tableName)
	}
	b.note = members[0].data
	s, v, signed, signature, err := parseNote(b.note)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", noteName, err)
	}
	b.Statement, b.verifier, b.Entry = *s, v, sha256.Sum256(b.note)
	// The signature is verified beside what it signs, if another processor is
	// free meanwhile, else after it. Where it is wrong nothing else is said.
	genuine := sync.OnceValue(func() bool { return v.Verify(signed, signature) })
	go genuine()
	err = b.follow(members[1:], r)
	if !genuine() {
		return nil, fmt.Errorf("%s: its signature is wrong", noteName)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// follow reads the members after the note, all of which must follow from it.
func (b *Bundle) follow(members []member, r *room) (err error) {
	if b.entries, err = r.parseTable(members[0].data, b.Counts); err != nil {
		return fmt.Errorf("%s: %w", tableName, err)
	}
	members = members[1:]
	for len(members) > 0 && strings.HasPrefix(members[0].name, proofFolder) {
		name := members[0].name[len(proofFolder):]
		if err := validProof(name, members[0].data); err != nil {
			return err
		}
		if b.Proofs == nil {
			b.Proofs = map[string][]byte{}
		}
		b.Proofs[name] = members[0].data
		members = members[1:]
	}
	for i := range b.Files {
		f := &b.Files[i]
		if i >= len(members) || members[i].name != viewFolder+f.Name {
			return fmt.Errorf("%s%s is signed and is not there", viewFolder, f.Name)
		}
		f.Data = members[i].data
	}
	if len(members) > len(b.Files) {
		return fmt.Errorf("%s is there and is not signed", members[len(b.Files)].name)
	}
	if b.values, err = r.place(b.Files, b.entries); err != nil {
		return err
	}
	root, err := rootOf(b.entries, b.values)
	if err != nil {
		return err
	}
	if root != b.Root {
		return errors.New("the leaves do not lead to the root that is signed: something was changed")
	}
	return nil
}

func validProof(name string, data []byte) error {
	if name != LogProof && (!strings.HasSuffix(name, tokenSuffix) || strings.Contains(name, "/") || !validName(name)) {
		return fmt.Errorf("%s%s is no proof that a bundle can have: it has %s and files in %s", proofFolder, name, LogProof, tokenSuffix)
	}
	if len(data) < 1 || len(data) > maxProofBytes {
		return fmt.Errorf("%s%s has %d bytes; 1 to %d", proofFolder, name, len(data), maxProofBytes)
	}
	return nil
}

// Bytes is the bundle as a file.
func (b *Bundle) Bytes() ([]byte, error) {
	members := []member{{noteName, b.note}, {tableName, encodeTable(b.entries)}}
	for name, data := range b.Proofs {
		members = append(members, member{proofFolder + name, data})
	}
	for _, f := range b.Files {
		members = append(members, member{viewFolder + f.Name, f.Data})
	}
	return encodeContainer(members)
}

// File is a file of the bundle as it shows now, nil if there is none.
func (b *Bundle) File(name string) *File {
	for i := range b.Files {
		if b.Files[i].Name == name {
			return &b.Files[i]
		}
	}
	return nil
}

// Attach gives the bundle with a proof that came later, in the place of one
// of the same name: LogProof, or a time stamp token NAME.tsr.
func (b *Bundle) Attach(name string, proof []byte) (*Bundle, error) {
	if err := validProof(name, proof); err != nil {
		return nil, err
	}
	c := *b
	c.Proofs = map[string][]byte{name: proof}
	for n, p := range b.Proofs {
		if n != name {
			c.Proofs[n] = p
		}
	}
	return &c, nil
}

// Withhold gives the bundle without the leaves of some classes. If there are
// any, Rendering goes too: it shows them. Class None stays.
func (b *Bundle) Withhold(away ...Class) *Bundle {
	var set [classes]bool
	for _, c := range away {
		set[c] = true
	}
	set[None] = false
	for i := range b.entries {
		if !b.entries[i].Open || set[b.entries[i].Class] {
			set[Rendering] = true
			break
		}
	}
	return b.without(func(e *Entry) bool { return set[e.Class] })
}

// Withheld is how many leaves of each class are withheld.
func (b *Bundle) Withheld() (n Counts) {
	at := int64(0)
	for i := range b.entries {
		e := &b.entries[i]
		if !e.Open {
			b.Counts.within(at, at+e.leaves(), &n)
		}
		at += e.leaves()
	}
	return n
}
