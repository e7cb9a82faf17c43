package lock

import (
	"errors"
	"os"
	"runtime"
	"testing"
)

// TestTake: one has it at a time, and who removes the file takes it from
// nobody who comes after.
func TestTake(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	no := func() bool { return false }
	held, err := Take(root, "lock", no)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Take(root, "lock", no); !errors.Is(err, ErrHeld) {
		t.Errorf("taken twice: %v", err)
	}
	asked := 0
	again, err := Take(root, "lock", func() bool {
		if asked++; asked == 3 {
			held.Close()
		}
		return true
	})
	if err != nil || asked != 3 {
		t.Fatalf("after %d tries: %v", asked, err)
	}
	if runtime.GOOS == "windows" { // where a file that is open is not removed
		again.Close()
		return
	}
	// A process that waits on a file that is removed meanwhile gets the new one.
	third, err := Take(root, "lock", func() bool {
		if err := root.Remove("lock"); err != nil {
			t.Error(err)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Take(root, "lock", no); !errors.Is(err, ErrHeld) {
		t.Errorf("taken beside the one who waited: %v", err)
	}
	if err := errors.Join(again.Close(), third.Close()); err != nil {
		t.Error(err)
	}
}
