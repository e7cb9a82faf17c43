package record

import (
	"iter"
	"sync"
)

// Result is what came of one line: what work made of it, or why there was
// none to work on.
type Result[T any] struct {
	Line  Line
	Value T
	Err   error // of reading the line; Value is then unset
}

// Ordered calls work for each line of r in as many goroutines as are named,
// each always with the same worker number from 0 on, and yields the results in
// the order of the lines. A result is valid until the next one: only then its
// worker goes on, so that it can reuse what it returned. Data of a line is its
// worker's own. Twice as many workers as processors keep those busy while
// results wait for their turn.
func Ordered[T any](r *Reader, workers int, work func(worker int, line Line) T) iter.Seq[Result[T]] {
	return func(yield func(Result[T]) bool) {
		type slot struct {
			in   chan Result[T] // the line
			out  chan Result[T]
			free chan []byte // the buffer of its line, once the result was used
		}
		slots := make([]slot, max(1, workers))
		stop := make(chan struct{})
		var running sync.WaitGroup
		for i := range slots {
			s := slot{make(chan Result[T], 1), make(chan Result[T], 1), make(chan []byte, 1)}
			s.free <- nil
			slots[i] = s
			running.Go(func() {
				for x := range s.in {
					if x.Err == nil {
						x.Value = work(i, x.Line)
					}
					s.out <- x
				}
				close(s.out)
			})
		}
		running.Go(func() {
			n := 0
			defer func() {
				for _, s := range slots {
					close(s.in)
				}
			}()
			for line, err := range r.Lines() {
				s := slots[n%len(slots)]
				n++
				var buf []byte
				select {
				case buf = <-s.free:
				case <-stop:
					return
				}
				line.Data = r.keep(line, buf)
				s.in <- Result[T]{Line: line, Err: err}
			}
		})
		defer running.Wait()
		defer close(stop)
		for n := 0; ; n++ {
			s := slots[n%len(slots)]
			x, ok := <-s.out
			if !ok || !yield(x) {
				return
			}
			s.free <- x.Line.Data
		}
	}
}
