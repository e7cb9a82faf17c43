package tlog

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	merkle "golang.org/x/mod/sumdb/tlog"
)

const (
	proofHeader = "c2sp.org/tlog-proof@v1"
	maxExtra    = 16 << 10                                      // bytes of base64: 12 KiB of extra data
	maxProof    = MaxCheckpoint + maxExtra + MaxHashes*45 + 128 // bytes
)

// Cosignature is a witness's that was verified.
type Cosignature struct {
	Name string // of the witness's key
	Time time.Time
}

// Checkpoint is a checkpoint that satisfies a policy.
//
// Since and By are the times that the policy's quorum vouches for, on the
// assumption that in any set of witnesses that makes a quorum at least one is
// honest and has a right clock. With a quorum of k witnesses, the k-th oldest
// cosignature is By: whatever the checkpoint holds existed no later. The k-th
// newest is Since: whoever shows this checkpoint, with these cosignatures, has
// got them no earlier. Both are zero under quorum none.
type Checkpoint struct {
	Tree
	Log          string        // name of the key that signed as the log
	Cosignatures []Cosignature // of the policy's witnesses
	Since, By    time.Time
}

// canonical refuses signatures in base64 with bits to spare, which
// golang.org/x/mod reads: two files that differ would be the same proof.
func canonical(signatures string) error {
	for line := range strings.Lines(signatures) {
		b64 := line[strings.LastIndexByte(line, ' ')+1:]
		if _, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(b64, "\n")); err != nil {
			return errors.New("a signature that is not base64")
		}
	}
	return nil
}

// Proof is a proof of inclusion that satisfies a policy.
type Proof struct {
	Index      int64 // of the entry in the log, from 0
	Checkpoint Checkpoint
	Extra      []byte // not authenticated by anything
}

// ParseCheckpoint reads what has the form of a signed checkpoint, whoever
// signed it. Nothing that it says is to be believed.
func ParseCheckpoint(text []byte) (Tree, error) {
	body, signatures, err := SplitNote(text)
	if err != nil {
		return Tree{}, err
	}
	if err := canonical(signatures); err != nil {
		return Tree{}, err
	}
	tree, err := ParseTree(body)
	if err != nil {
		return Tree{}, err
	}
	var unverified *note.UnverifiedNoteError
	if _, err := note.Open(text, note.VerifierList()); !errors.As(err, &unverified) {
		return Tree{}, fmt.Errorf("the signatures of the checkpoint: %w", err)
	}
	return tree, nil
}

// VerifyCheckpoint verifies a signed checkpoint: the signature of one of the
// policy's logs, whose name the origin must be, and cosignatures of a quorum.
func VerifyCheckpoint(text []byte, p *Policy) (Checkpoint, error) {
	tree, err := ParseCheckpoint(text)
	if err != nil {
		return Checkpoint{}, err
	}
	if len(p.logs) == 0 {
		return Checkpoint{}, errors.New("the policy names no log")
	}
	n, err := note.Open(text, p.verifiers())
	var unverified *note.UnverifiedNoteError
	if errors.As(err, &unverified) {
		return Checkpoint{}, fmt.Errorf("the checkpoint of %s is signed by none of the policy's logs and witnesses", tree.Origin)
	}
	if err != nil {
		return Checkpoint{}, fmt.Errorf("the signatures of the checkpoint: %w", err)
	}
	c := Checkpoint{Tree: tree}
	times := map[int]time.Time{}
	for _, s := range n.Sigs {
		for _, l := range p.logs {
			if s.Name == l.name && s.Hash == l.id && s.Name == tree.Origin {
				c.Log = s.Name
			}
		}
		for i, w := range p.witnesses {
			if s.Name == w.name && s.Hash == w.id {
				times[i] = cosignedAt(s)
				c.Cosignatures = append(c.Cosignatures, Cosignature{Name: s.Name, Time: times[i]})
			}
		}
	}
	if c.Log == "" {
		return Checkpoint{}, fmt.Errorf("the checkpoint of %s is not signed by a log of that name in the policy", tree.Origin)
	}
	if p.quorum == nil {
		return c, nil
	}
	var ok bool
	if c.By, ok = p.quorum.at(times, true); !ok {
		return Checkpoint{}, fmt.Errorf("the checkpoint of %s has cosignatures of %d of the policy's witnesses, which is no quorum (%s)", tree.Origin, len(times), p.quorum)
	}
	c.Since, _ = p.quorum.at(times, false)
	return c, nil
}

// VerifyProof verifies that entry is in a log that the policy believes: the
// checkpoint as [VerifyCheckpoint] does, and the path from the entry's hash to
// its root. entry is the SHA-256 of a bundle's note.
func VerifyProof(proof, entry []byte, p *Policy) (Proof, error) {
	if len(entry) != EntrySize {
		return Proof{}, fmt.Errorf("an entry has %d bytes, not %d", EntrySize, len(entry))
	}
	raw, err := ParseProof(proof)
	if err != nil {
		return Proof{}, fmt.Errorf("reading the proof: %w", err)
	}
	c, err := VerifyCheckpoint(raw.Checkpoint, p)
	if err != nil {
		return Proof{}, err
	}
	if raw.Index >= c.Size {
		return Proof{}, fmt.Errorf("the proof is of entry %d of a tree of %d", raw.Index, c.Size)
	}
	if err := merkle.CheckRecord(raw.Path, c.Size, c.Root, raw.Index, merkle.RecordHash(entry)); err != nil {
		return Proof{}, errors.New("the proof does not lead from this entry to the checkpoint's root")
	}
	return Proof{Index: raw.Index, Checkpoint: c, Extra: raw.Extra}, nil
}

// RawProof is a tlog-proof, unverified.
type RawProof struct {
	Index      int64
	Path       merkle.RecordProof
	Extra      []byte // nil: no such line
	Checkpoint []byte // signed
}

// Text is the proof as a file (c2sp.org/tlog-proof).
func (p RawProof) Text() []byte {
	var b bytes.Buffer
	b.WriteString(proofHeader + "\n")
	if p.Extra != nil {
		fmt.Fprintf(&b, "extra %s\n", base64.StdEncoding.EncodeToString(p.Extra))
	}
	fmt.Fprintf(&b, "index %d\n", p.Index)
	for _, h := range p.Path {
		fmt.Fprintf(&b, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
	}
	b.WriteByte('\n')
	b.Write(p.Checkpoint)
	return b.Bytes()
}

// ParseProof reads a proof in its one canonical form: Text of what it returns
// is the input.
func ParseProof(data []byte) (RawProof, error) {
	var p RawProof
	if len(data) > maxProof {
		return p, fmt.Errorf("more than %d bytes", maxProof)
	}
	head, checkpoint, ok := strings.Cut(string(data), "\n\n")
	if !ok {
		return p, errors.New("no empty line before the checkpoint")
	}
	lines := strings.Split(head, "\n")
	if lines[0] != proofHeader {
		return p, errors.New("it does not begin with " + proofHeader)
	}
	lines = lines[1:]
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		b64 := strings.TrimPrefix(lines[0], "extra ")
		if len(b64) > maxExtra {
			return p, errors.New("too much extra data")
		}
		extra, err := base64.StdEncoding.Strict().DecodeString(b64)
		if err != nil || base64.StdEncoding.EncodeToString(extra) != b64 {
			return p, errors.New("the extra data is not base64")
		}
		p.Extra, lines = append([]byte{}, extra...), lines[1:]
	}
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "index ") {
		return p, errors.New("no line with the index")
	}
	var err error
	if p.Index, err = ParseDecimal(strings.TrimPrefix(lines[0], "index ")); err != nil {
		return p, fmt.Errorf("the index: %w", err)
	}
	if lines = lines[1:]; len(lines) > MaxHashes {
		return p, fmt.Errorf("more than %d hashes", MaxHashes)
	}
	for _, line := range lines {
		h, err := ParseHash(line)
		if err != nil {
			return p, fmt.Errorf("the path: %w", err)
		}
		p.Path = append(p.Path, h)
	}
	p.Checkpoint = []byte(checkpoint)
	return p, nil
}
