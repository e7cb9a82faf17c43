package record

import (
	"io"
	"sync"
)

// blockBytes is the unit in which decompression runs ahead.
const blockBytes = 256 << 10

// ahead reads from r in a goroutine of its own, a few blocks ahead of who
// reads from it, so that decompression and decoding run side by side.
type ahead struct {
	r      io.ReadCloser
	full   chan block
	free   chan []byte
	stop   chan struct{}
	start  sync.Once
	closed sync.Once
	now    block
	rest   []byte
}

type block struct {
	data []byte
	err  error
}

func newAhead(r io.ReadCloser) *ahead {
	a := &ahead{r: r, full: make(chan block, 3), free: make(chan []byte, 4), stop: make(chan struct{})}
	return a
}

func (a *ahead) run() {
	defer close(a.full)
	defer a.r.Close()
	for range cap(a.free) {
		a.free <- nil
	}
	for {
		var buf []byte
		select {
		case buf = <-a.free:
		case <-a.stop:
			return
		}
		if buf == nil {
			buf = make([]byte, blockBytes)
		}
		buf = buf[:cap(buf)]
		n := 0
		var err error
		// A full block each time, but what there is once it ends or fails.
		for n < len(buf) && err == nil {
			var k int
			k, err = a.r.Read(buf[n:])
			n += k
		}
		select {
		case a.full <- block{buf[:n], err}:
		case <-a.stop:
			return
		}
		if err != nil {
			return
		}
	}
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	a.start.Do(func() { go a.run() })
	for len(a.rest) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.data != nil {
			a.free <- a.now.data
			a.now.data = nil
		}
		select {
		case b, ok := <-a.full:
			if !ok {
				b.err = io.EOF
			}
			a.now, a.rest = b, b.data
		case <-a.stop:
			return 0, io.ErrClosedPipe
		}
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

func (a *ahead) close() {
	a.closed.Do(func() {
		close(a.stop)
		// Not started: nobody else will close it.
		a.start.Do(func() { a.r.Close() })
	})
}
