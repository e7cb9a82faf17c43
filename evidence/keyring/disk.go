package keyring

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"govah/evidence/lock"
)

// disk is one folder, as the store needs it: this system's, and in tests one
// that fails or loses power between any two calls.
type disk interface {
	list() ([]string, error)
	read(name string) ([]byte, error)
	create(name string) (file, error)         // anew; fails if there is one
	open(name string) (file, int64, error)    // to write over; its size
	rename(from, to string) error             // in place of to
	remove(name string) error                 //
	sync() error                              // of the names, as file.Sync is of the bytes
	lock(wait func() bool) (io.Closer, error) // against other processes
}

type file interface {
	io.Writer
	Sync() error
	Close() error
}

// maxFile bounds a file of the store, in bytes.
const maxFile = 64 << 10

// folder is a disk: a folder of this system, which os.Root does not leave.
type folder struct {
	path string
	root *os.Root
}

// openFolder opens the folder at path, and makes it if it is told to.
func openFolder(path string, make bool) (*folder, error) {
	if make {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, fmt.Errorf("making the folder for keys: %w", err)
		}
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("opening the folder of keys: %w", err)
	}
	return &folder{path, root}, nil
}

// private says that others can read the folder, or what is in it: that may be
// known already, and is not used.
func (f *folder) private() error {
	st, err := f.root.Stat(".")
	if err != nil {
		return err
	}
	return private(f.path, st)
}

// private does it for what st describes. Windows has no such bits: there a
// person's own folder is theirs.
func private(path string, st fs.FileInfo) error {
	if runtime.GOOS == "windows" || st.Mode().Perm()&0o077 == 0 {
		return nil
	}
	want := "600"
	if st.IsDir() {
		want = "700"
	}
	return &OpenError{Path: path, Mode: st.Mode().Perm(), want: want}
}

func (f *folder) list() (names []string, err error) {
	dir, err := f.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

func (f *folder) read(name string) ([]byte, error) {
	if err := f.private(); err != nil {
		return nil, err
	}
	st, err := f.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return nil, fmt.Errorf("%s is no file of a key: %w", name, errForeign)
	}
	if err := private(filepath.Join(f.path, name), st); err != nil {
		return nil, err
	}
	in, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return io.ReadAll(io.LimitReader(in, maxFile+1))
}

func (f *folder) create(name string) (file, error) {
	if err := f.private(); err != nil {
		return nil, err
	}
	return f.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

func (f *folder) open(name string) (file, int64, error) {
	st, err := f.root.Lstat(name)
	if err != nil {
		return nil, 0, err
	}
	if !st.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is no file: %w", name, errForeign)
	}
	out, err := f.root.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return nil, 0, err
	}
	return out, st.Size(), nil
}

func (f *folder) lock(wait func() bool) (io.Closer, error) {
	held, err := lock.Take(f.root, lockName, wait)
	if errors.Is(err, lock.ErrHeld) {
		return nil, ErrBusy
	}
	return held, err
}

func (f *folder) rename(from, to string) error { return f.root.Rename(from, to) }
func (f *folder) remove(name string) error     { return f.root.Remove(name) }

func (f *folder) sync() error {
	if runtime.GOOS == "windows" { // which has no such call, and journals names by itself
		return nil
	}
	dir, err := f.root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// erase overwrites a file, brings that to the disk, and removes it. What that
// is worth on flash and on copy-on-write file systems: docs/design/keys.md.
func erase(d disk, name string) error {
	out, size, err := d.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		// It cannot be written over, and is removed all the same.
		if rerr := d.remove(name); rerr != nil {
			return err
		}
		return d.sync()
	}
	if err := scrub(out, size); err != nil {
		return err
	}
	if err := d.remove(name); err != nil {
		return err
	}
	return d.sync()
}

// scrub writes over an open file and closes it.
func scrub(out file, size int64) error {
	zero := make([]byte, 4096)
	for left := size; left > 0; left -= int64(len(zero)) {
		if _, err := out.Write(zero[:min(left, int64(len(zero)))]); err != nil {
			out.Close()
			return err
		}
	}
	err := out.Sync()
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}

const halfWritten = ".new" // ends the name of a file that is being written

// write puts a file in its place, whole and on the disk, or not at all. One
// that it takes the place of is overwritten afterwards.
func write(d disk, name string, data []byte) error {
	tmp := name + halfWritten
	if err := erase(d, tmp); err != nil {
		return err
	}
	out, err := d.create(tmp)
	if err != nil {
		return err
	}
	fail := func(err error) error {
		out.Close()
		erase(d, tmp) // else the next to open the store does
		return err
	}
	if _, err := out.Write(data); err != nil {
		return fail(err)
	}
	if err := out.Sync(); err != nil {
		return fail(err)
	}
	if err := out.Close(); err != nil {
		erase(d, tmp)
		return err
	}
	var old file
	var size int64
	if runtime.GOOS != "windows" { // which may not put a file in the place of an open one
		if old, size, err = d.open(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			erase(d, tmp)
			return err
		}
	}
	if err := d.rename(tmp, name); err != nil {
		if old != nil {
			old.Close()
		}
		erase(d, tmp)
		return err
	}
	if err := d.sync(); err != nil {
		if old != nil {
			old.Close()
		}
		return err
	}
	if old != nil {
		return scrub(old, size)
	}
	return nil
}
