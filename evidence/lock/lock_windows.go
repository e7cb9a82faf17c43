package lock

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

const sharingViolation = syscall.Errno(32) // ERROR_SHARING_VIOLATION

// Take takes the lock that is a file of a folder, opened so that nobody else
// can, until it is closed. While another process has it, wait is asked whether
// to try again; ErrHeld if not.
func Take(root *os.Root, name string, wait func() bool) (io.Closer, error) {
	path, err := syscall.UTF16PtrFromString(filepath.Join(root.Name(), name))
	if err != nil {
		return nil, err
	}
	for {
		h, err := syscall.CreateFile(path, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
		if err == nil {
			return os.NewFile(uintptr(h), name), nil
		}
		if !errors.Is(err, sharingViolation) {
			return nil, err
		}
		if !wait() {
			return nil, ErrHeld
		}
	}
}
