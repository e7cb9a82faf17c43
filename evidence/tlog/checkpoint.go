// Package tlog is what a transparency log of evidence says, and whether to
// believe it: checkpoints, cosignatures, policies, and proofs of inclusion
// that verify without a network. An entry is the SHA-256 of a bundle's note
// and nothing else, so that a log holds no personal data. The
// log and the witness themselves are in evidence/tlog/serve.
//
// The formats are those of C2SP: signed-note, tlog-checkpoint, tlog-tiles,
// tlog-cosignature (Ed25519), tlog-witness, tlog-proof and tlog-policy. What
// they leave open is in docs/formats/tlog-v1.md.
package tlog

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	merkle "golang.org/x/mod/sumdb/tlog"
)

// EntrySize is the size in bytes of what is logged.
const EntrySize = 32

// Entry is one entry of a log: the SHA-256 of a bundle's note.
type Entry [EntrySize]byte

// Limits of what is read.
const (
	MaxTree       = int64(1) << 62 // leaves; beyond, the arithmetic of golang.org/x/mod does not end
	MaxCheckpoint = 64 << 10       // bytes of a signed checkpoint: a hundred signatures
	MaxHashes     = 63             // of a proof in a tree of at most 2^62 leaves
)

// Tree is a tree head: what a checkpoint says of a log, without signatures.
type Tree struct {
	Origin string // the log's name
	Size   int64  // leaves
	Root   merkle.Hash
	Extra  []string // extension lines, opaque
}

// Text is the text of a checkpoint, which is what a log and its witnesses
// sign (c2sp.org/tlog-checkpoint).
func (t Tree) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%d\n%s\n", t.Origin, t.Size, base64.StdEncoding.EncodeToString(t.Root[:]))
	for _, line := range t.Extra {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// ParseTree reads the text of a checkpoint: at least three lines, none empty,
// numbers and base64 in their one canonical form.
func ParseTree(text string) (Tree, error) {
	if len(text) > MaxCheckpoint {
		return Tree{}, errors.New("a checkpoint that is too long")
	}
	body, ok := strings.CutSuffix(text, "\n")
	lines := strings.Split(body, "\n")
	if !ok || len(lines) < 3 {
		return Tree{}, errors.New("a checkpoint has an origin, a size and a root hash, a line each")
	}
	for _, line := range lines {
		if line == "" {
			return Tree{}, errors.New("a checkpoint has no empty lines")
		}
	}
	t := Tree{Origin: lines[0]}
	var err error
	if t.Size, err = ParseDecimal(lines[1]); err != nil {
		return Tree{}, fmt.Errorf("size of the tree: %w", err)
	}
	if t.Size > MaxTree {
		return Tree{}, errors.New("size of the tree: more than 2^62 leaves")
	}
	if t.Root, err = ParseHash(lines[2]); err != nil {
		return Tree{}, fmt.Errorf("root hash: %w", err)
	}
	if t.Size == 0 && t.Root != emptyRoot {
		return Tree{}, ErrEmptyRoot
	}
	if len(lines) > 3 {
		t.Extra = lines[3:]
	}
	return t, nil
}

// ErrEmptyRoot says that a tree of no leaves has another root than it can have.
var ErrEmptyRoot = errors.New("root hash: not that of an empty tree")

// emptyRoot is SHA-256 of nothing (RFC 6962, 2.1).
var emptyRoot, _ = merkle.TreeHash(0, nil)

// SplitNote cuts a signed note into the text and the lines of signatures.
func SplitNote(note []byte) (text, signatures string, err error) {
	if len(note) > MaxCheckpoint {
		return "", "", errors.New("a signed note that is too long")
	}
	i := bytes.LastIndex(note, []byte("\n\n"))
	if i < 0 {
		return "", "", errors.New("no signed note: no empty line before signatures")
	}
	return string(note[:i+1]), string(note[i+2:]), nil
}

// ParseDecimal reads an ASCII decimal without a sign or leading zeroes.
func ParseDecimal(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, errors.New("no decimal number without leading zeroes")
	}
	return int64(n), nil
}

// ParseHash reads a SHA-256 in base64, in the one form that has no bits to spare.
func ParseHash(s string) (h merkle.Hash, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(h) || len(s) != base64.StdEncoding.EncodedLen(len(h)) {
		return h, errors.New("no SHA-256 in base64")
	}
	return merkle.Hash(b), nil
}
