//go:build unix

package serve

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// lockFile takes the lock that the kernel releases when the process ends.
func lockFile(root *os.Root, name string) (io.Closer, error) {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, err
	}
	return f, nil
}
