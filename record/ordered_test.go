package record

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestOrderedKeepsTheOrder(t *testing.T) {
	var in strings.Builder
	for i := range 500 {
		fmt.Fprintf(&in, "line %d\n", i)
	}
	was := runtime.NumGoroutine()
	for _, workers := range []int{0, 1, 3, 8} {
		for _, stop := range []int{500, 7} {
			r, err := NewReader(strings.NewReader(in.String()))
			if err != nil {
				t.Fatal(err)
			}
			scratch := make([][]byte, max(1, workers)) // reused by each worker, as a parser is
			n := 0
			for x := range Ordered(r, workers, func(worker int, line Line) *[]byte {
				if line.Number%50 == 1 {
					time.Sleep(time.Millisecond)
				}
				scratch[worker] = append(scratch[worker][:0], line.Data...)
				return &scratch[worker]
			}) {
				if want := fmt.Sprintf("line %d", n); x.Err != nil || string(*x.Value) != want || string(x.Line.Data) != want || x.Line.Number != n+1 {
					t.Fatalf("%d workers: %q, %v; want %q", workers, *x.Value, x.Err, want)
				}
				if n++; n == stop {
					break
				}
			}
			if n != stop {
				t.Errorf("%d workers: %d lines", workers, n)
			}
		}
	}
	if now := runtime.NumGoroutine(); now > was {
		t.Errorf("%d goroutines, before %d", now, was)
	}
}

func TestOrderedPassesErrorsOn(t *testing.T) {
	r, err := NewReader(strings.NewReader("a\n" + strings.Repeat("x", MaxLine+2) + "\nb\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for x := range Ordered(r, 2, func(_ int, line Line) string { return string(line.Data) }) {
		if x.Err != nil {
			got += "!"
		} else {
			got += x.Value
		}
	}
	if got != "a!b" {
		t.Errorf("got %s", got)
	}
}
