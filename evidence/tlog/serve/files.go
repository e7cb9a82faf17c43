package serve

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"

	"govah/evidence/lock"
)

// filesystem is what a log and a witness need of a folder; names are relative
// to it, with slashes. There are two: the system's, and one in the tests that
// loses what was not synced when the power goes.
type filesystem interface {
	Open(name string) (file, error)   // to read
	Create(name string) (file, error) // to write, emptied if it is there
	Modify(name string) (file, error) // to read and write what is there
	Rename(from, to string) error     // replaces what is there, at once
	Remove(name string) error
	Mkdir(name string) error             // nil if it is there
	List(name string) ([]string, error)  // names in a folder, in order
	SyncDir(name string) error           // makes what Create, Rename, Remove and Mkdir did in it durable
	Lock(name string) (io.Closer, error) // until it is closed or the process ends
	Close() error
}

type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Sync() error
	Truncate(size int64) error
}

// ErrLocked says that another process holds the lock.
var ErrLocked = errors.New("another process is using this folder")

// folder is the system's: everything happens below one folder, 0700 and 0600.
type folder struct{ root *os.Root }

func openFolder(dir string) (*folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if parent, err := os.Open(filepath.Dir(dir)); err == nil { // so that the folder's own name is durable; where that is possible
		parent.Sync()
		parent.Close()
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &folder{root}, nil
}

type hostFile struct{ *os.File }

func (f hostFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (d *folder) open(name string, flag int) (file, error) {
	f, err := d.root.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return hostFile{f}, nil
}

func (d *folder) Open(name string) (file, error) { return d.open(name, os.O_RDONLY) }
func (d *folder) Create(name string) (file, error) {
	return d.open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}
func (d *folder) Modify(name string) (file, error) { return d.open(name, os.O_RDWR) }
func (d *folder) Rename(from, to string) error     { return d.root.Rename(from, to) }
func (d *folder) Remove(name string) error         { return d.root.Remove(name) }

func (d *folder) Mkdir(name string) error {
	if err := d.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (d *folder) List(name string) ([]string, error) {
	list, err := fs.ReadDir(d.root.FS(), name)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names, nil
}

func (d *folder) SyncDir(name string) error {
	if runtime.GOOS == "windows" { // folders cannot be flushed there; NTFS journals names
		return nil
	}
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d *folder) Close() error { return d.root.Close() }

func (d *folder) Lock(name string) (io.Closer, error) {
	held, err := lock.Take(d.root, name, func() bool { return false })
	if errors.Is(err, lock.ErrHeld) {
		return nil, ErrLocked
	}
	return held, err
}

// readFile reads a whole file of at most limit bytes.
func readFile(d filesystem, name string, limit int64) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%s has %d bytes; at most %d were expected", name, size, limit)
	}
	data := make([]byte, size)
	if _, err := f.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data, nil
}

// writeFile writes a file and syncs its content; its name is durable when the
// folder is synced.
func writeFile(d filesystem, name string, data []byte) error {
	f, err := d.Create(name)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(data, 0); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// replaceFile gives name new content, durably: after a power cut it has the
// old or the new.
func replaceFile(d filesystem, name string, data []byte) error {
	if err := prepareFile(d, name, data); err != nil {
		return err
	}
	if err := d.Rename(name+".new", name); err != nil {
		return err
	}
	return d.SyncDir(path.Dir(name))
}

// prepareFile writes NAME.new. One that is there is removed and not written
// over: after a power cut in a rename it may be name itself under both names.
func prepareFile(d filesystem, name string, data []byte) error {
	if err := d.Remove(name + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := writeFile(d, name+".new", data)
	if err != nil {
		d.Remove(name + ".new")
	}
	return err
}

// makeDirs makes a folder and those above it, durably.
func makeDirs(d filesystem, name string) error {
	if name == "." {
		return nil
	}
	if err := makeDirs(d, path.Dir(name)); err != nil {
		return err
	}
	if err := d.Mkdir(name); err != nil {
		return err
	}
	return d.SyncDir(path.Dir(name))
}
