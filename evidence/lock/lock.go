// Package lock keeps two processes from one folder: that of the keys, of a
// log, or of a witness. What it takes ends with the process, whatever becomes
// of that.
package lock

import "errors"

// ErrHeld says that another process has the lock.
var ErrHeld = errors.New("another process has the lock")
