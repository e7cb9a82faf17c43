package keyring

import (
	"os"
	"path/filepath"
)

// Erase overwrites a file, brings that to the disk and removes it, as Store
// does with keys. A link is removed, and what it leads to stays.
func Erase(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return os.Remove(path)
	}
	f, err := openFolder(filepath.Dir(path), false)
	if err != nil {
		return err
	}
	defer f.root.Close()
	return erase(f, filepath.Base(path))
}
