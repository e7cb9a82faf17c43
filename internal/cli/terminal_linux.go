package cli

import "golang.org/x/sys/unix"

func terminal(fd uintptr) bool {
	_, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
	return err == nil
}

// silence keeps a terminal from showing what is typed until restore is called.
func silence(fd uintptr) (restore func(), err error) {
	return silenceTermios(int(fd), unix.TCGETS, unix.TCSETS)
}
