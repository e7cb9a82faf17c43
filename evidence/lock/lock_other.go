//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd || windows)

package lock

import (
	"errors"
	"io"
	"os"
)

// Take is not known here, and without it two processes could both write.
func Take(*os.Root, string, func() bool) (io.Closer, error) { return nil, errors.ErrUnsupported }
