//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package lock

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// Take takes the lock that is a file of a folder, until it is closed. While
// another process has it, wait is asked whether to try again; ErrHeld if not.
func Take(root *os.Root, name string, wait func() bool) (io.Closer, error) {
	for {
		held, err := root.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(held.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			// Whoever erases the folder removes the lock too.
			st, err := held.Stat()
			now, nerr := root.Stat(name)
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
		switch {
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, err
		case !wait():
			return nil, ErrHeld
		}
	}
}
