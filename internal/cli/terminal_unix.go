//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package cli

import "golang.org/x/sys/unix"

func silenceTermios(fd int, get, set uint) (restore func(), err error) {
	was, err := unix.IoctlGetTermios(fd, get)
	if err != nil {
		return nil, err
	}
	quiet := *was
	quiet.Lflag &^= unix.ECHO
	quiet.Lflag |= unix.ECHONL | unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(fd, set, &quiet); err != nil {
		return nil, err
	}
	return func() { unix.IoctlSetTermios(fd, set, was) }, nil
}
