//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package keyring

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// lock is of the file, and ends with the process whatever becomes of it.
func (f *folder) lock(wait func() bool) (io.Closer, error) {
	for {
		held, err := f.root.OpenFile(lockName, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(held.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			// Whoever forgets everything removes the lock too.
			st, err := held.Stat()
			now, nerr := f.root.Stat(lockName)
			if err == nil && nerr == nil && os.SameFile(st, now) {
				return held, nil
			}
			held.Close()
			if nerr != nil && !errors.Is(nerr, os.ErrNotExist) {
				return nil, nerr
			}
			continue
		}
		held.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, err
		}
		if !wait() {
			return nil, ErrBusy
		}
	}
}
