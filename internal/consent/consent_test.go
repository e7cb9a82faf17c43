package consent

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

func TestConsent(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	if Given() {
		t.Fatal("consent before anybody was asked")
	}
	for _, answer := range []string{"", "\n", "no\n", "y e s\n"} {
		if err := Ask(strings.NewReader(answer), io.Discard, "?", "yes"); !errors.Is(err, ErrRefused) || Given() {
			t.Fatalf("answer %q: %v, given %v", answer, err, Given())
		}
	}
	if err := Ask(strings.NewReader(" YES\n"), io.Discard, "?", "yes"); err != nil || !Given() {
		t.Fatalf("yes: %v, given %v", err, Given())
	}
	path, _ := Path()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", st, err)
	}
	os.WriteFile(path, []byte("0\n"), 0o600)
	if Given() {
		t.Fatal("consent to another version counts")
	}
}
