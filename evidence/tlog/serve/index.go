package serve

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"govah/evidence/tlog"
)

// The index finds an entry that the log has already. The newest entries are in
// memory; the others in runs: files of sorted records of 16 bytes, ten of a
// hash of the entry and six of its index in the log. Runs that follow one
// another and are of like size are merged, so that there are some
// log2(n/65536) of them. They are made of the log and can be made again.
//
// The hash has a secret seed, the same in all runs: who submits entries cannot
// choose them so that many stand at one place.
const (
	indexDir   = stateDir + "/index"
	runEntries = 1 << 16 // entries kept in memory before they become a run
	runRecord  = 16
	runPrefix  = 10
	runMagic   = "govah tlog run 1"
	runHead    = int64(len(runMagic) + len(runSeed{}))
)

type runSeed [16]byte

// hash is where an entry stands in a run.
func (s runSeed) hash(e tlog.Entry) (h [runPrefix]byte) {
	sum := sha256.Sum256(append(s[:], e[:]...))
	return [runPrefix]byte(sum[:])
}

// run is the file of the entries from to to-1, by their hashes.
type run struct {
	from, to int64
	f        file
}

func (r *run) path() string { return fmt.Sprintf("%s/%d-%d", indexDir, r.from, r.to) }

type runItem [runRecord]byte

func newRunItem(h [runPrefix]byte, index int64) (it runItem) {
	copy(it[:runPrefix], h[:])
	binary.BigEndian.PutUint16(it[runPrefix:], uint16(index>>32))
	binary.BigEndian.PutUint32(it[runPrefix+2:], uint32(index))
	return it
}

func (it runItem) index() int64 {
	return int64(binary.BigEndian.Uint16(it[runPrefix:]))<<32 | int64(binary.BigEndian.Uint32(it[runPrefix+2:]))
}

// find calls yes with the index of each entry of a hash, until it says so.
func (r *run) find(h [runPrefix]byte, yes func(index int64) (bool, error)) error {
	// Of hashes it is known where one stands, to about the square root of
	// their number: two reads of a page nearly always do.
	const page = 256
	var buf [page * runRecord]byte
	at := func(i int64, n int) ([]byte, error) {
		b := buf[:n*runRecord]
		_, err := r.f.ReadAt(b, runHead+i*runRecord)
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%s is too short", r.path())
		}
		return b, err
	}
	key := h[:]
	lo, hi := int64(0), r.to-r.from // the first record not below key is in [lo, hi]
	low, high := uint64(0), ^uint64(0)
	want := binary.BigEndian.Uint64(key)
	for hi-lo > page {
		mid := lo + int64(float64(hi-lo)*(float64(want-low)/(float64(high-low)+1))) - page/2
		mid = max(lo, min(mid, hi-page))
		b, err := at(mid, page)
		if err != nil {
			return err
		}
		first, last := b[:runPrefix], b[(page-1)*runRecord:][:runPrefix]
		switch {
		case bytes.Compare(first, key) >= 0:
			if mid == lo {
				hi = lo
			} else {
				hi, high = mid, binary.BigEndian.Uint64(first)
			}
		case bytes.Compare(last, key) < 0:
			lo, low = mid+page, binary.BigEndian.Uint64(last)
		default:
			lo, hi = mid, mid+page
		}
	}
	for lo < r.to-r.from {
		n := int(min(page, r.to-r.from-lo))
		b, err := at(lo, n)
		if err != nil {
			return err
		}
		b = bytes.Clone(b) // yes may look further
		for ; len(b) > 0; b = b[runRecord:] {
			switch c := bytes.Compare(b[:runPrefix], key); {
			case c > 0:
				return nil
			case c == 0:
				if done, err := yes(runItem(b).index()); done || err != nil {
					return err
				}
			}
		}
		lo += int64(n)
	}
	return nil
}

// openRuns opens the runs that together cover the entries from 0 on, with one
// seed, and removes what other files are there.
func openRuns(d filesystem, size int64) (runs []*run, seed runSeed, err error) {
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, seed, err
	}
	names, err := d.List(indexDir)
	if err != nil {
		return nil, seed, err
	}
	longest := map[int64]int64{}
	for _, name := range names {
		a, b, _ := strings.Cut(name, "-")
		from, err1 := tlog.ParseDecimal(a)
		to, err2 := tlog.ParseDecimal(b)
		if err1 == nil && err2 == nil && from < to && to <= size {
			longest[from] = max(longest[from], to)
		}
	}
	used := map[string]bool{}
	for from := int64(0); longest[from] > 0; {
		r := &run{from: from, to: longest[from]}
		f, err := d.Open(r.path())
		if err != nil {
			closeRuns(runs)
			return nil, seed, err
		}
		var head [runHead]byte
		n, err := f.Size()
		_, err2 := f.ReadAt(head[:], 0)
		its := runSeed(head[len(runMagic):])
		if err != nil || err2 != nil || string(head[:len(runMagic)]) != runMagic || n != runHead+(r.to-r.from)*runRecord || from > 0 && its != seed {
			f.Close() // made again from the log
			break
		}
		seed = its
		r.f = f
		runs, used[path.Base(r.path())] = append(runs, r), true
		from = r.to
	}
	for _, name := range names {
		if !used[name] {
			if err := d.Remove(indexDir + "/" + name); err != nil {
				closeRuns(runs)
				return nil, seed, err
			}
		}
	}
	return runs, seed, nil
}

func closeRuns(runs []*run) {
	for _, r := range runs {
		r.f.Close()
	}
}

// newRun writes the run of sorted items.
func newRun(d filesystem, seed runSeed, from, to int64, items func(w io.Writer) error) (*run, error) {
	r := &run{from: from, to: to}
	name := indexDir + "/new-" + strconv.FormatInt(from, 10)
	f, err := d.Create(name)
	if err != nil {
		return nil, err
	}
	w := bufio.NewWriterSize(&offsetWriter{f: f}, 1<<20)
	w.WriteString(runMagic)
	w.Write(seed[:])
	err = items(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		d.Remove(name)
		return nil, err
	}
	if err := d.Rename(name, r.path()); err != nil {
		return nil, err
	}
	if err := d.SyncDir(indexDir); err != nil {
		return nil, err
	}
	if r.f, err = d.Open(r.path()); err != nil {
		return nil, err
	}
	return r, nil
}

type offsetWriter struct {
	f   file
	off int64
}

func (w *offsetWriter) Write(b []byte) (int, error) {
	n, err := w.f.WriteAt(b, w.off)
	w.off += int64(n)
	return n, err
}

// sortedRun writes the run of entries that are given by their index.
func sortedRun(d filesystem, seed runSeed, from int64, entries []tlog.Entry) (*run, error) {
	items := make([]runItem, len(entries))
	for i, e := range entries {
		items[i] = newRunItem(seed.hash(e), from+int64(i))
	}
	slices.SortFunc(items, func(a, b runItem) int { return bytes.Compare(a[:], b[:]) })
	return newRun(d, seed, from, from+int64(len(entries)), func(w io.Writer) error {
		for i := range items {
			if _, err := w.Write(items[i][:]); err != nil {
				return err
			}
		}
		return nil
	})
}

// mergeRuns merges two runs that follow one another. The caller removes them.
func mergeRuns(d filesystem, seed runSeed, a, b *run) (*run, error) {
	return newRun(d, seed, a.from, b.to, func(w io.Writer) error {
		type source struct {
			r    *bufio.Reader
			item runItem
			left int64
		}
		var list []*source
		for _, r := range []*run{a, b} {
			n := r.to - r.from
			list = append(list, &source{r: bufio.NewReaderSize(io.NewSectionReader(r.f, runHead, n*runRecord), 256<<10), left: n})
		}
		next := func(s *source) error {
			if s.left == 0 {
				list = slices.DeleteFunc(list, func(o *source) bool { return o == s })
				return nil
			}
			s.left--
			_, err := io.ReadFull(s.r, s.item[:])
			return err
		}
		for _, s := range slices.Clone(list) {
			if err := next(s); err != nil {
				return err
			}
		}
		for len(list) > 0 {
			s := slices.MinFunc(list, func(a, b *source) int { return bytes.Compare(a.item[:], b.item[:]) })
			if _, err := w.Write(s.item[:]); err != nil {
				return err
			}
			if err := next(s); err != nil {
				return err
			}
		}
		return nil
	})
}
