package evidence

import (
	"bytes"
	"fmt"
)

// inFiles gives the open entries of a table in the order of files and
// positions: a merge of its classes, each of which is in that order.
func inFiles(entries []Entry) []int32 { return new(room).inFiles(entries) }

func (room *room) inFiles(entries []Entry) []int32 {
	// What the least is taken of: file and position, then which run it is of.
	const done = ^uint64(0)
	key := func(e *Entry, run int) uint64 {
		return uint64(e.File)<<36 | uint64(e.Position)<<4 | uint64(run)
	}
	var at, end [classes]int
	var keys [classes]uint64
	open, n, last := 0, 0, -1
	for i := range entries {
		e := &entries[i]
		if !e.Open {
			continue
		}
		if int(e.Class) != last {
			last = int(e.Class)
			at[n], keys[n] = i, key(e, n)
			n++
		}
		end[n-1] = i + 1
		open++
	}
	room.order = sized(room.order, open)
	least, run, guess := done, 0, 0
	for o := range room.order {
		// Values alternate with what is between them: the next leaf is often
		// of the class before the last.
		run, guess = guess, run
		if next := keys[run]; n > 0 && next>>4 == least>>4+1 {
			least = next
		} else {
			least = done
			for _, k := range keys[:n] {
				least = min(least, k)
			}
			run = int(least & 15)
		}
		i := at[run]
		room.order[o] = int32(i)
		for i++; i < end[run] && !entries[i].Open; {
			i++
		}
		at[run], keys[run] = i, done
		if i < end[run] {
			keys[run] = key(&entries[i], run)
		}
	}
	return room.order
}

// place finds the value of each open entry in its file, and refuses files in
// which a byte is not accounted for, or in which more is missing than leaves are
// withheld: values[i] is that of entry i.
func place(files []File, entries []Entry) (values [][]byte, err error) {
	return new(room).place(files, entries)
}

func (room *room) place(files []File, entries []Entry) ([][]byte, error) {
	room.values = sized(room.values, len(entries))
	values := room.values
	clear(values)
	order := room.inFiles(entries)
	missing := int64(0) // leaves that are not open, at the least
	for n := range files {
		f := &files[n]
		rest, want := f.Data, uint64(0) // what is left, and the position it has
		quoted := false                 // the last byte before rest is a quotation mark
		gap := func(to uint64) bool {
			if want == to {
				return true
			}
			switch f.Kind {
			case Whole:
				missing++
			case Binary:
				missing++ // or more: where one ended is not known
				k := to - want
				if uint64(len(rest)) < k || !zero(rest[:k]) {
					return false
				}
				rest = rest[k:]
			case Text:
				missing += int64(to - want)
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
	withheld := int64(0)
	for i := range entries {
		if e := &entries[i]; !e.Open {
			withheld += e.leaves()
		}
	}
	if missing > withheld {
		return nil, fmt.Errorf("%d leaves or more are missing in the files, and %d are withheld", missing, withheld)
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
