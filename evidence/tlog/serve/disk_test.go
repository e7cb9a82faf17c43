package serve

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"syscall"
)

var errPower = errors.New("the power is off")

// disk is a filesystem that forgets. Content is durable when the file was
// synced, names when their folder was. When the power goes, each write since
// then is kept, lost, or torn at any byte, each name stands for any of what it
// stood for since then, all independently of one another: more than real
// disks do.
type disk struct {
	root   *simDir
	ops    int // that change something
	cut    int // the operation at which the power goes; 0: never
	full   int // the operation from which on writes find no space; 0: never
	locked map[string]bool
	// What a disk that lies does not do.
	lieFile, lieDir bool
}

type simDir struct {
	names map[string]any   // *simFile or *simDir
	past  map[string][]any // of each name changed since the last sync: what it stood for; first what is durable, nil for nothing
}

type simFile struct {
	data    []byte
	durable []byte
	writes  []simWrite // since the last sync
}

type simWrite struct {
	off  int64
	data []byte // nil: the file is cut at off
}

func newSimDir() *simDir { return &simDir{names: map[string]any{}, past: map[string][]any{}} }

func newDisk() *disk { return &disk{root: newSimDir(), locked: map[string]bool{}} }

// step counts an operation; after the last one nothing happens any more.
func (d *disk) step() (last bool, err error) {
	if d.cut > 0 && d.ops >= d.cut {
		return false, errPower
	}
	d.ops++
	return d.cut > 0 && d.ops == d.cut, nil
}

// after is the error of an operation that was the last.
func after(last bool) error {
	if last {
		return errPower
	}
	return nil
}

func (d *disk) dir(name string) (*simDir, error) {
	at := d.root
	if name == "." {
		return at, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		next, ok := at.names[part].(*simDir)
		if !ok {
			return nil, fs.ErrNotExist
		}
		at = next
	}
	return at, nil
}

func (s *simDir) set(name string, to any) {
	if _, ok := s.past[name]; !ok {
		s.past[name] = []any{s.names[name]}
	}
	s.past[name] = append(s.past[name], to)
	if to == nil {
		delete(s.names, name)
	} else {
		s.names[name] = to
	}
}

type simHandle struct {
	d *disk
	f *simFile
}

func (d *disk) file(name string) (*simDir, *simFile, error) {
	dir, err := d.dir(path.Dir(name))
	if err != nil {
		return nil, nil, err
	}
	f, _ := dir.names[path.Base(name)].(*simFile)
	return dir, f, nil
}

func (d *disk) Open(name string) (file, error) {
	_, f, err := d.file(name)
	if err == nil && f == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	return &simHandle{d, f}, nil
}

func (d *disk) Modify(name string) (file, error) { return d.Open(name) }

func (d *disk) Create(name string) (file, error) {
	dir, f, err := d.file(name)
	if err != nil {
		return nil, err
	}
	last, err := d.step()
	if err != nil {
		return nil, err
	}
	if f == nil {
		f = &simFile{}
		dir.set(path.Base(name), f)
	} else {
		f.data, f.writes = nil, append(f.writes, simWrite{})
	}
	return &simHandle{d, f}, after(last)
}

func (d *disk) Rename(from, to string) error {
	dir, f, err := d.file(from)
	if err == nil && f == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return err
	}
	into, err := d.dir(path.Dir(to))
	if err != nil {
		return err
	}
	last, err := d.step()
	if err != nil {
		return err
	}
	into.set(path.Base(to), f)
	dir.set(path.Base(from), nil)
	return after(last)
}

func (d *disk) Remove(name string) error {
	dir, err := d.dir(path.Dir(name))
	if err != nil {
		return err
	}
	switch x := dir.names[path.Base(name)].(type) {
	case nil:
		return fs.ErrNotExist
	case *simDir:
		if len(x.names) > 0 {
			return errors.New("folder not empty")
		}
	}
	last, err := d.step()
	if err != nil {
		return err
	}
	dir.set(path.Base(name), nil)
	return after(last)
}

func (d *disk) Mkdir(name string) error {
	dir, err := d.dir(path.Dir(name))
	if err != nil {
		return err
	}
	if dir.names[path.Base(name)] != nil {
		return nil
	}
	last, err := d.step()
	if err != nil {
		return err
	}
	dir.set(path.Base(name), newSimDir())
	return after(last)
}

func (d *disk) List(name string) ([]string, error) {
	dir, err := d.dir(name)
	if err != nil {
		return nil, err
	}
	var names []string
	for n := range dir.names {
		names = append(names, n)
	}
	slices.Sort(names)
	return names, nil
}

func (d *disk) SyncDir(name string) error {
	dir, err := d.dir(name)
	if err != nil {
		return err
	}
	last, err := d.step()
	if err != nil || last {
		return errPower // it may have been in time for some of it, which is what chance decides
	}
	if !d.lieDir {
		dir.past = map[string][]any{}
	}
	return nil
}

type simLock struct {
	d    *disk
	name string
}

func (l simLock) Close() error { delete(l.d.locked, l.name); return nil }

func (d *disk) Lock(name string) (io.Closer, error) {
	if d.locked[name] {
		return nil, ErrLocked
	}
	d.locked[name] = true
	return simLock{d, name}, nil
}

func (d *disk) Close() error { return nil }

func (h *simHandle) ReadAt(b []byte, off int64) (int, error) {
	if off >= int64(len(h.f.data)) {
		return 0, io.EOF
	}
	n := copy(b, h.f.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *simFile) write(w simWrite) {
	if w.data == nil {
		f.data = slices.Clone(f.data[:min(int64(len(f.data)), w.off)])
		return
	}
	if n := w.off + int64(len(w.data)); n > int64(len(f.data)) {
		f.data = append(f.data, make([]byte, n-int64(len(f.data)))...)
	}
	copy(f.data[w.off:], w.data)
}

func (h *simHandle) WriteAt(b []byte, off int64) (int, error) {
	last, err := h.d.step()
	if err != nil {
		return 0, err
	}
	n := len(b)
	if h.d.full > 0 && h.d.ops >= h.d.full {
		n, err = n/2, syscall.ENOSPC
	}
	w := simWrite{off, append([]byte{}, b[:n]...)}
	h.f.write(w)
	h.f.writes = append(h.f.writes, w)
	return n, errors.Join(err, after(last))
}

func (h *simHandle) Truncate(size int64) error {
	last, err := h.d.step()
	if err != nil {
		return err
	}
	w := simWrite{off: size}
	h.f.write(w)
	h.f.writes = append(h.f.writes, w)
	return after(last)
}

func (h *simHandle) Sync() error {
	last, err := h.d.step()
	if err != nil || last {
		return errPower
	}
	if !h.d.lieFile {
		h.f.durable, h.f.writes = slices.Clone(h.f.data), nil
	}
	return nil
}

func (h *simHandle) Size() (int64, error) { return int64(len(h.f.data)), nil }
func (h *simHandle) Close() error         { return nil }

// afterCut is the disk as it is found when the power is back.
func (d *disk) afterCut(r *rand.Rand) *disk {
	files := map[*simFile]*simFile{}
	var dirOf func(*simDir) *simDir
	dirOf = func(s *simDir) *simDir {
		now := newSimDir()
		names := map[string]any{}
		for name, x := range s.names {
			names[name] = x
		}
		var changed []string
		for name := range s.past {
			changed = append(changed, name)
		}
		slices.Sort(changed)
		for _, name := range changed {
			names[name] = s.past[name][r.IntN(len(s.past[name]))]
		}
		var all []string
		for name := range names {
			all = append(all, name)
		}
		slices.Sort(all)
		for _, name := range all {
			switch x := names[name].(type) {
			case *simFile:
				if files[x] == nil {
					files[x] = x.afterCut(r)
				}
				now.names[name] = files[x]
			case *simDir:
				now.names[name] = dirOf(x)
			}
		}
		return now
	}
	after := newDisk()
	after.root, after.lieFile, after.lieDir = dirOf(d.root), d.lieFile, d.lieDir
	return after
}

func (f *simFile) afterCut(r *rand.Rand) *simFile {
	now := &simFile{data: slices.Clone(f.durable)}
	for _, w := range f.writes {
		switch r.IntN(4) {
		case 0: // lost
		case 1: // torn
			if w.data == nil {
				continue
			}
			n := r.IntN(len(w.data) + 1)
			if r.IntN(2) == 0 {
				w.data = w.data[:n]
			} else { // the end came first; what was before it was never written
				w.off, w.data = w.off+int64(n), w.data[n:]
			}
			now.write(w)
		default:
			now.write(w)
		}
	}
	now.durable = slices.Clone(now.data)
	return now
}

// copied is the same disk once more, for looking at.
func (d *disk) copied() *disk {
	files := map[*simFile]*simFile{}
	var dirOf func(*simDir) *simDir
	dirOf = func(s *simDir) *simDir {
		now := newSimDir()
		for name, x := range s.names {
			switch x := x.(type) {
			case *simFile:
				if files[x] == nil {
					files[x] = &simFile{data: slices.Clone(x.data)}
				}
				now.names[name] = files[x]
			case *simDir:
				now.names[name] = dirOf(x)
			}
		}
		return now
	}
	c := newDisk()
	c.root = dirOf(d.root)
	return c
}
