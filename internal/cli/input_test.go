package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mainUntil runs the command and interrupts it after a while.
func mainUntil(t *testing.T, after time.Duration, in io.Reader, args ...string) (code int, errOut string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var e bytes.Buffer
	ended := make(chan int, 1)
	go func() { ended <- Main(ctx, args, in, io.Discard, &e) }()
	select {
	case code := <-ended:
		t.Fatalf("%v ended by itself with %d: %s", args, code, e.String())
	case <-time.After(after):
	}
	cancel()
	select {
	case code = <-ended:
		return code, e.String()
	case <-time.After(3 * time.Second):
		t.Fatalf("%v does not end", args)
		return 0, ""
	}
}

// Ctrl-C ends what waits for an endless pipe, and leaves nothing behind.
func TestInterruptedWhileReading(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "m.jsonl")
	if err := os.WriteFile(file, []byte(`{"type":"verdict","target":"https://example.org/"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"judge", "-"},
		{"judge", "--json", "-"},
		{"report", "-o", filepath.Join(dir, "r.html"), "-"},
		{"diff", "-", file},
		{"diff", file, "-"},
		{"check", "--lab", "clean", "-i", "-", "-o", filepath.Join(dir, "o.jsonl"), "--ooni", filepath.Join(dir, "o.ooni")},
	} {
		// Silent after a line, and never silent.
		silent, w := io.Pipe()
		go io.WriteString(w, "{\"type\":\"from-the-future\"}\n")
		for name, in := range map[string]io.Reader{"silent": silent, "endless": endless{}} {
			if name == "endless" && args[0] == "report" {
				continue // it would fill the disk until then
			}
			code, errOut := mainUntil(t, 300*time.Millisecond, in, args...)
			if code != exitInterrupted || strings.Contains(errOut, "error") || strings.Contains(errOut, "cancel") {
				t.Errorf("%v from a %s pipe: exit %d, %s", args, name, code, errOut)
			}
		}
		silent.Close()
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// endless never ends, and holds nothing.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '\n'
	}
	return len(p), nil
}
