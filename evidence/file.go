package evidence

import "fmt"

// FileKind says how a file is made up of leaves, and what stands where one is
// withheld. It is signed.
type FileKind string

// The kinds.
const (
	// Text is JSON, whole or in lines. A leaf's position is its place in the
	// sequence of segments, from 0. A withheld one shows as withheldText behind
	// a quotation mark, as withheldNumber elsewhere.
	Text FileKind = "text"
	// Binary keeps its length. A leaf's position is its offset; withheld bytes
	// are zeroes.
	Binary FileKind = "binary"
	// Whole is one leaf, at position 0; withheld it is an empty file.
	Whole FileKind = "whole"
)

// What stands in a Text file for a withheld segment: JSON stays JSON, base64
// stays base64, and no length is told.
const (
	withheldText   = "withheld"
	withheldNumber = "0"
)

const (
	maxFiles = 1 << 12
	maxBytes = 256 << 20 // of a bundle, and of a file in it
	maxName  = 100
)

// Segment is one leaf of a file before it is sealed.
type Segment struct {
	Class  Class
	Length int // bytes, at least 1
}

// File is a file that is to be sealed, or that was.
type File struct {
	Name string // below view/, as measurement.jsonl
	Kind FileKind
	Data []byte
	// Segments make up Data, in its order. Nil in a file that was read.
	Segments []Segment
	// Size is what is signed about the file: how many segments a Text file
	// has, how many bytes a Binary one; 1 for a Whole one.
	Size uint32
}

// checkSegments says whether the segments make up the file.
func (f *File) checkSegments() error {
	n := 0
	for _, s := range f.Segments {
		if s.Length < 1 || s.Length > len(f.Data)-n || s.Class >= classes {
			return fmt.Errorf("%s: a segment of %d bytes of %v at byte %d of %d", f.Name, s.Length, s.Class, n, len(f.Data))
		}
		n += s.Length
	}
	if n != len(f.Data) {
		return fmt.Errorf("%s: its segments are %d bytes of %d", f.Name, n, len(f.Data))
	}
	return nil
}

// validName says whether a file may have the name in a bundle: letters of
// ASCII, digits, and . - _ / between them, no part of which begins with a dot.
func validName(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	start := true // of a part
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			start = false
		case (c == '.' || c == '-' || c == '_') && !start:
		case c == '/' && !start:
			start = true
		default:
			return false
		}
	}
	return !start
}

// setSize sets what is signed about the file from its segments.
func (f *File) setSize() {
	switch f.Kind {
	case Text:
		f.Size = uint32(len(f.Segments))
	case Binary:
		f.Size = uint32(len(f.Data))
	case Whole:
		f.Size = 1
	}
}
