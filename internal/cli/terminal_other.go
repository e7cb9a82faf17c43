//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd || windows)

package cli

import "errors"

// terminal is not known here: nothing is coloured and nobody asked.
func terminal(fd uintptr) bool { return false }

func silence(fd uintptr) (restore func(), err error) { return nil, errors.ErrUnsupported }
