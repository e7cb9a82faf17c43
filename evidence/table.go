package evidence

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// Entry is one row of the leaf table: a leaf that is open, whose value stands
// in a file of the bundle, or the hash of leaves that are withheld.
type Entry struct {
	Open  bool
	Class Class
	Level uint8 // of what is withheld: 2^Level leaves

	// Of an open leaf: Length bytes of a file, at a position that depends on
	// the file's kind.
	File     uint16
	Position uint32
	Length   uint32

	// Hash of what is withheld is that of its leaves in the tree; of a single
	// one (Level 0) the inner hash, which does not have the class in it. Of an
	// open leaf it begins with the salt, and the rest is zero: a table of many
	// leaves is to stay in the processor's cache.
	Hash Hash
}

// salt is of an open leaf.
func (e *Entry) salt() *[SaltBytes]byte { return (*[SaltBytes]byte)(e.Hash[:]) }

// leaves is how many an entry stands for.
func (e *Entry) leaves() int64 {
	if e.Open {
		return 1
	}
	return 1 << e.Level
}

const (
	maxLeaves = 1 << 24
	maxLevel  = 24
	// slack is how many zero bytes end the table of a bundle that withholds
	// nothing. Few short values can take less room than the hashes that stand
	// for them: at most 54 bytes of each class, which the slack makes up for.
	slack = 512
)

// encodeTable is the inverse of parseTable.
func encodeTable(entries []Entry) []byte {
	b := make([]byte, 0, len(entries)*(SaltBytes+8)+slack)
	withheld := false
	for i := range entries {
		e := &entries[i]
		if !e.Open {
			withheld = true
			b = append(b, 1+e.Level)
			b = append(b, e.Hash[:]...)
			continue
		}
		b = append(b, 0)
		b = append(b, e.salt()[:]...)
		b = binary.AppendUvarint(b, uint64(e.File))
		b = binary.AppendUvarint(b, uint64(e.Position))
		b = binary.AppendUvarint(b, uint64(e.Length))
	}
	if !withheld {
		b = append(b, make([]byte, slack)...)
	}
	return b
}

// room is what verifying needs beside the bundle: memory that is fresh each
// time costs a tenth of the whole.
type room struct {
	entries []Entry
	values  [][]byte
	order   []int32
}

// sized gives s with n elements, of which nothing is known.
func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// parseTable reads leaves.bin. It takes one form of a table only: numbers in
// their shortest form, leaves in their order, subtrees where the tree has
// them.
func parseTable(b []byte, counts Counts) ([]Entry, error) { return new(room).parseTable(b, counts) }

func (r *room) parseTable(b []byte, counts Counts) ([]Entry, error) {
	total := counts.Total()
	if total < 1 || total > maxLeaves {
		return nil, fmt.Errorf("the leaf table is said to have %d leaves; there are 1 to %d", total, maxLeaves)
	}
	r.entries = sized(r.entries, int(min(total, int64(len(b)/(SaltBytes+4))+1)))
	entries := r.entries[:0]
	withheld := false
	class, end := Class(0), int64(counts[0]) // of the leaf at, and where its class ends
	var lastFile, lastPosition int64
	fresh := true // the first open leaf of its class
	for at := int64(0); at < total; {
		for at >= end {
			class++
			end += int64(counts[class])
			fresh = true
		}
		if len(b) == 0 {
			return nil, fmt.Errorf("the leaf table ends after %d of %d leaves", at, total)
		}
		tag := b[0]
		b = b[1:]
		if tag != 0 {
			level := tag - 1
			if level > maxLevel || at&(1<<level-1) != 0 || at+1<<level > total || len(b) < sha256.Size {
				return nil, fmt.Errorf("the leaf table is malformed at leaf %d: no subtree of 2^%d leaves", at, level)
			}
			entries = append(entries, Entry{Class: class, Level: level, Hash: Hash(b)})
			b = b[sha256.Size:]
			at += 1 << level
			withheld = true
			continue
		}
		if len(b) < SaltBytes {
			return nil, fmt.Errorf("the leaf table is cut off at leaf %d", at)
		}
		e := Entry{Open: true, Class: class}
		copy(e.Hash[:], b[:SaltBytes])
		b = b[SaltBytes:]
		var v [3]uint64
		for i := range v {
			n := 1
			if len(b) > 0 && b[0] < 0x80 { // the usual case
				v[i] = uint64(b[0])
			} else if v[i], n = binary.Uvarint(b); n <= 0 || b[n-1] == 0 {
				return nil, fmt.Errorf("the leaf table is malformed at leaf %d: no number in its shortest form", at)
			}
			b = b[n:]
		}
		if v[0] >= maxFiles || v[1] >= maxBytes || v[2] < 1 || v[2] > maxBytes {
			return nil, fmt.Errorf("the leaf table is malformed at leaf %d: file %d, position %d, length %d", at, v[0], v[1], v[2])
		}
		e.File, e.Position, e.Length = uint16(v[0]), uint32(v[1]), uint32(v[2])
		file, position := int64(v[0]), int64(v[1])
		if !fresh && (file < lastFile || file == lastFile && position <= lastPosition) {
			return nil, fmt.Errorf("the leaf table is out of order at leaf %d", at)
		}
		fresh, lastFile, lastPosition = false, file, position
		entries = append(entries, e)
		at++
	}
	want := slack
	if withheld {
		want = 0
	}
	if len(b) != want {
		return nil, fmt.Errorf("%d bytes follow the last leaf; there must be %d", len(b), want)
	}
	for _, x := range b {
		if x != 0 {
			return nil, errors.New("the leaf table does not end in zeroes")
		}
	}
	return entries, nil
}

// tree grows from left to right, as RFC 6962 has it: of n leaves there is one
// finished subtree of 2^l leaves for each bit l of n.
type tree struct {
	n        int64
	subtrees [maxLevel + 1]Hash
	withheld uint32 // bit l: nothing in that subtree is open
	buf      [1 + 2*sha256.Size]byte
}

var errNotCollapsed = errors.New("withheld leaves stand beside one another that one hash must stand for")

// add appends a subtree of 2^level leaves, of which n is a multiple.
func (t *tree) add(subtree *Hash, level uint8, withheld bool) error {
	t.n += 1 << level
	l := level
	for ; t.n>>l&1 == 0; l++ {
		if withheld && t.withheld>>l&1 != 0 {
			return errNotCollapsed
		}
		withheld = false
		*subtree = t.node(&t.subtrees[l], subtree)
	}
	t.subtrees[l] = *subtree
	t.withheld &^= 1 << l
	if withheld {
		t.withheld |= 1 << l
	}
	return nil
}

// node is RFC 6962's: SHA-256(0x01 || left || right).
func (t *tree) node(left, right *Hash) Hash {
	t.buf[0] = 1
	copy(t.buf[1:], left[:])
	copy(t.buf[1+sha256.Size:], right[:])
	return sha256.Sum256(t.buf[:])
}

// root is that of all leaves, of which there is at least one.
func (t *tree) root() Hash {
	l := bits.TrailingZeros64(uint64(t.n))
	h := t.subtrees[l]
	for l++; t.n>>l != 0; l++ {
		if t.n>>l&1 != 0 {
			h = t.node(&t.subtrees[l], &h)
		}
	}
	return h
}

// valuesOf gives the value of each open leaf, by its index in a table.
type valuesOf func(entry int) []byte

// rootOf is the root that a table leads to; values are those of open leaves.
func rootOf(entries []Entry, values [][]byte) (Hash, error) {
	var t tree
	inner := newInnerHasher()
	var outer [2 + sha256.Size]byte
	for i := range entries {
		e := &entries[i]
		h, level := e.Hash, e.Level
		if e.Open {
			h, level = inner.hash(e, values[i]), 0
		}
		if level == 0 {
			outer[1] = byte(e.Class)
			copy(outer[2:], h[:])
			h = sha256.Sum256(outer[:])
		}
		if err := t.add(&h, level, !e.Open); err != nil {
			return Hash{}, err
		}
	}
	return t.root(), nil
}

// withhold gives the table in which the leaves that away names are withheld
// too, as few hashes as can stand for them. value gives the value of each open
// leaf.
func withhold(entries []Entry, value valuesOf, away func(*Entry) bool) []Entry {
	out := make([]Entry, 0, len(entries))
	inner := newInnerHasher()
	var t tree // for its node
	at := int64(0)
	for i := range entries {
		e := entries[i]
		if e.Open && away(&e) {
			e = Entry{Class: e.Class, Hash: inner.hash(&e, value(i))}
		}
		at += e.leaves()
		// Two siblings that are both withheld become one.
		for !e.Open && len(out) > 0 {
			last := &out[len(out)-1]
			if last.Open || last.Level != e.Level || bits.TrailingZeros64(uint64(at)) <= int(e.Level) {
				break
			}
			left, right := last.Hash, e.Hash
			if e.Level == 0 {
				left, right = leafHash(last.Class, &left), leafHash(e.Class, &right)
			}
			e = Entry{Class: last.Class, Level: e.Level + 1, Hash: t.node(&left, &right)}
			out = out[:len(out)-1]
		}
		out = append(out, e)
	}
	return out
}

// tabulate cuts files into leaves: the table in its order, with salts from a
// secret, and how many of each class there are.
func tabulate(files []File, secret []byte) ([]Entry, Counts, error) {
	var counts Counts
	if len(files) > maxFiles {
		return nil, counts, fmt.Errorf("%d files; a bundle holds at most %d", len(files), maxFiles)
	}
	var lists [classes][]Entry
	for n := range files {
		f := &files[n]
		if err := f.checkSegments(); err != nil {
			return nil, counts, err
		}
		if f.Kind == Whole && len(f.Segments) != 1 {
			return nil, counts, fmt.Errorf("%s: it is to be one leaf and is cut into %d", f.Name, len(f.Segments))
		}
		at := uint32(0)
		for _, s := range f.Segments {
			lists[s.Class] = append(lists[s.Class], Entry{Open: true, Class: s.Class, File: uint16(n), Position: at, Length: uint32(s.Length)})
			if at++; f.Kind == Binary {
				at += uint32(s.Length) - 1
			}
		}
	}
	var entries []Entry
	for c, l := range lists {
		counts[c] = uint32(len(l))
		entries = append(entries, l...)
	}
	if len(entries) < 1 || len(entries) > maxLeaves {
		return nil, counts, fmt.Errorf("%d leaves; a bundle has 1 to %d", len(entries), maxLeaves)
	}
	for i := range entries {
		salt := saltOf(secret, int64(i))
		copy(entries[i].Hash[:], salt[:])
	}
	return entries, counts, nil
}
