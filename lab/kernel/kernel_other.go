//go:build !linux

package kernel

import (
	"context"
	"os/exec"
)

// Main has nothing to do outside Linux.
func Main() {}

// Supported says that only Linux has such namespaces.
func Supported() error { return ErrUnavailable }

// Run needs Linux.
func Run(context.Context, Link, *exec.Cmd) error { return ErrUnavailable }
