package serve

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// lockFile opens the file for nobody else, until it is closed or the process
// ends.
func lockFile(root *os.Root, name string) (io.Closer, error) {
	path, err := syscall.UTF16PtrFromString(filepath.Join(root.Name(), name))
	if err != nil {
		return nil, err
	}
	h, err := syscall.CreateFile(path, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	const sharingViolation = syscall.Errno(32)
	if errors.Is(err, sharingViolation) {
		return nil, ErrLocked
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(h), name), nil
}
