package cli

import (
	"context"
	"fmt"
	"io"
	"os"
)

// stdinName stands for standard input where a file is asked for.
const stdinName = "-"

// interruptible reads from r until ctx ends. A read from a pipe or a terminal
// cannot be called off: it is left behind in a goroutine, with its buffer.
type interruptible struct {
	ctx  context.Context
	r    io.Reader
	buf  []byte
	rest []byte
	err  error // that came with rest
}

// Read implements io.Reader.
func (i *interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	if len(i.rest) == 0 && i.err == nil {
		if i.buf == nil {
			i.buf = make([]byte, 64<<10)
		}
		type result struct {
			n   int
			err error
		}
		done := make(chan result, 1)
		go func() {
			n, err := i.r.Read(i.buf)
			done <- result{n, err}
		}()
		select {
		case <-i.ctx.Done():
			return 0, i.ctx.Err()
		case x := <-done:
			i.rest, i.err = i.buf[:x.n], x.err
		}
	}
	n := copy(p, i.rest)
	i.rest = i.rest[n:]
	if len(i.rest) > 0 {
		return n, nil
	}
	err := i.err
	i.err = nil // a terminal can be read on after its end of file
	return n, err
}

// stdin is standard input; every reader of it shares what was read ahead.
func (a *app) stdin() io.Reader {
	if a.input == nil {
		a.input = &interruptible{ctx: a.ctx, r: a.in}
	}
	return a.input
}

// open opens a file to read, or standard input for "-". Opening and reading
// what is no regular file, a pipe for one, end with ctx.
func (a *app) open(ctx context.Context, path string) (io.ReadCloser, error) {
	if path == stdinName {
		return io.NopCloser(a.stdin()), nil
	}
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case st.IsDir():
		return nil, fmt.Errorf("%s is a folder", path)
	case st.Mode().IsRegular():
		return os.Open(path)
	}
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result, 1)
	go func() { // a named pipe waits for who writes to it
		f, err := os.Open(path)
		done <- result{f, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case x := <-done:
		if x.err != nil {
			return nil, x.err
		}
		return struct {
			io.Reader
			io.Closer
		}{&interruptible{ctx: ctx, r: x.f}, x.f}, nil
	}
}

// readable says early whether there is a file to read at path; what to give
// instead is the hint.
func readable(path, instead string) error {
	if path == stdinName {
		return nil
	}
	st, err := os.Stat(path)
	if err == nil && st.IsDir() {
		err = fmt.Errorf("%s is a folder", path)
	}
	if err != nil {
		return hint(err, "%s", instead)
	}
	return nil
}
