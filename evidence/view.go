package evidence

import (
	"bytes"
	"fmt"
)

// inFiles gives the open entries of a table in the order of files and
// positions: a merge of its classes, each of which is in that order.
func inFiles(entries []Entry) []int32 {
	const done = ^uint64(0)
	type run struct {
		at, end int32
		key     uint64 // of the open entry at
	}
	var of [classes]run
	open := 0
	key := func(e *Entry) uint64 { return uint64(e.File)<<32 | uint64(e.Position) }
	for i := range entries {
		if e := &entries[i]; e.Open {
			r := &of[e.Class]
			if r.end == 0 {
				r.at, r.key = int32(i), key(e)
			}
			r.end = int32(i) + 1
			open++
		}
	}
	var room [classes]run
	runs := room[:0]
	for _, r := range of {
		if r.end > 0 {
			runs = append(runs, r)
		}
	}
	out := make([]int32, 0, open)
	for len(out) < open {
		// The run with the least key is copied up to where another is due.
		least, first, second := 0, done, done
		for i := range runs {
			if k := runs[i].key; k < first {
				least, first, second = i, k, first
			} else if k < second {
				second = k
			}
		}
		r := &runs[least]
		for again := true; again; again = r.key < second {
			out = append(out, r.at)
			for r.at++; r.at < r.end && !entries[r.at].Open; {
				r.at++
			}
			if r.key = done; r.at < r.end {
				r.key = key(&entries[r.at])
			}
		}
	}
	return out
}

// place finds the value of each open entry in its file, and refuses files in
// which a byte is not accounted for: values[i] is that of entry i.
func place(files []File, entries []Entry) (values [][]byte, err error) {
	values = make([][]byte, len(entries))
	order := inFiles(entries)
	for n := range files {
		f := &files[n]
		rest, want := f.Data, uint64(0) // what is left, and the position it has
		quoted := false                 // the last byte before rest is a quotation mark
		gap := func(to uint64) bool {
			switch f.Kind {
			case Binary:
				k := to - want
				if uint64(len(rest)) < k || !zero(rest[:k]) {
					return false
				}
				rest = rest[k:]
			case Text:
				for ; want < to; want++ {
					mark := withheldNumber
					if quoted {
						mark = withheldText
					}
					if len(rest) < len(mark) || string(rest[:len(mark)]) != mark {
						return false
					}
					rest, quoted = rest[len(mark):], false
				}
			}
			want = to
			return true
		}
		for len(order) > 0 && int(entries[order[0]].File) == n {
			i := order[0]
			order = order[1:]
			e := &entries[i]
			position := uint64(e.Position)
			if position < want || position >= uint64(f.Size) || !gap(position) || uint64(e.Length) > uint64(len(rest)) {
				return nil, fmt.Errorf("%s: what is at byte %d does not follow from the leaf table", f.Name, len(f.Data)-len(rest))
			}
			values[i] = rest[:e.Length:e.Length]
			rest = rest[e.Length:]
			quoted = values[i][e.Length-1] == '"'
			if want++; f.Kind == Binary {
				want = position + uint64(e.Length)
			}
		}
		if want > uint64(f.Size) || !gap(uint64(f.Size)) || len(rest) > 0 {
			return nil, fmt.Errorf("%s: what is at byte %d does not follow from the leaf table", f.Name, len(f.Data)-len(rest))
		}
	}
	if len(order) > 0 {
		return nil, fmt.Errorf("the leaf table has a leaf of file %d; there are %d", entries[order[0]].File, len(files))
	}
	return values, nil
}

func zero(b []byte) bool {
	for len(b) >= 64 {
		if [64]byte(b) != [64]byte{} {
			return false
		}
		b = b[64:]
	}
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// render makes the files that a table shows, value giving what is open: place
// accepts what it makes.
func render(files []File, entries []Entry, value valuesOf) []File {
	out := make([]File, len(files))
	order := inFiles(entries)
	for n, f := range files {
		var b bytes.Buffer
		want := uint64(0)
		gap := func(to uint64) {
			switch f.Kind {
			case Binary:
				b.Write(make([]byte, to-want))
			case Text:
				for ; want < to; want++ {
					if b.Len() > 0 && b.Bytes()[b.Len()-1] == '"' {
						b.WriteString(withheldText)
					} else {
						b.WriteString(withheldNumber)
					}
				}
			}
			want = to
		}
		for len(order) > 0 && int(entries[order[0]].File) == n {
			e := &entries[order[0]]
			gap(uint64(e.Position))
			b.Write(value(int(order[0])))
			if want++; f.Kind == Binary {
				want = uint64(e.Position) + uint64(e.Length)
			}
			order = order[1:]
		}
		gap(uint64(f.Size))
		out[n] = File{Name: f.Name, Kind: f.Kind, Data: b.Bytes(), Size: f.Size}
	}
	return out
}

// opened gives the values of a table that withholds more than another did:
// the n-th open entry of a file and position is the same in both.
func opened(before, after []Entry, value valuesOf) valuesOf {
	index := make([]int32, len(after))
	j := 0
	for i := range after {
		if e := &after[i]; e.Open {
			for !before[j].Open || before[j].Hash != e.Hash || before[j].File != e.File || before[j].Position != e.Position {
				j++
			}
			index[i] = int32(j)
			j++
		}
	}
	return func(i int) []byte { return value(int(index[i])) }
}
