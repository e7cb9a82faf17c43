//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd || windows)

package cli

// terminal is not known here: nothing is coloured and nobody asked.
func terminal(fd uintptr) bool { return false }
