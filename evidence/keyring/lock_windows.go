package keyring

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

const sharingViolation = syscall.Errno(32) // ERROR_SHARING_VIOLATION

// lock is a file opened so that nobody else can; the system closes it with the
// process, whatever becomes of that.
func (f *folder) lock(wait func() bool) (io.Closer, error) {
	name, err := syscall.UTF16PtrFromString(filepath.Join(f.path, lockName))
	if err != nil {
		return nil, err
	}
	for {
		h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
		if err == nil {
			return os.NewFile(uintptr(h), lockName), nil
		}
		if !errors.Is(err, sharingViolation) {
			return nil, err
		}
		if !wait() {
			return nil, ErrBusy
		}
	}
}
