package evidence

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// folder is where a bundle is written: one of this system's, and in tests one
// that fails, or loses power between any two calls.
type folder interface {
	create() (file, error) // of a new name, readable by its owner only
	rename(from, to string) error
	remove(name string) error
	sync() error // of the names, as file.Sync is of the bytes
}

type file interface {
	io.Writer
	Name() string
	Sync() error
	Close() error
}

// WriteFile writes a bundle so that it is there whole or not at all, even if
// the power fails, readable by its owner only. It overwrites nothing.
func WriteFile(path string, data []byte) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s exists already and is not overwritten", path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return ReplaceFile(path, data)
}

// ReplaceFile is WriteFile in the place of a file that exists.
func ReplaceFile(path string, data []byte) error {
	if err := write(systemFolder(filepath.Dir(path)), path, data); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// write puts a file in its place under another name first, and brings each
// step to the disk before the next.
func write(f folder, path string, data []byte) (err error) {
	tmp, err := f.create()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err = f.rename(tmp.Name(), path); err != nil {
		return err
	}
	return f.sync()
}

// systemFolder is a folder of this system, by its path.
type systemFolder string

func (f systemFolder) create() (file, error) {
	t, err := os.CreateTemp(string(f), ".govah-*.tmp") // 0600
	if err != nil {                                    // not a nil *os.File in a file
		return nil, err
	}
	return t, nil
}

func (f systemFolder) rename(from, to string) error { return os.Rename(from, to) }
func (f systemFolder) remove(name string) error     { return os.Remove(name) }

// sync is best effort: some systems cannot open or sync a folder.
func (f systemFolder) sync() error {
	if d, err := os.Open(string(f)); err == nil {
		d.Sync()
		d.Close()
	}
	return nil
}
