package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestManual(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "manual")
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	for page, text := range map[string]string{"govah.1": "govah", "govah-check.1": "--locate", "govah-tlog-serve.1": "transparency log"} {
		b, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil || !strings.Contains(string(b), text) {
			t.Errorf("%s does not speak of %q: %v", page, text, err)
		}
	}
	if err := write(filepath.Join(dir, "govah.1")); err == nil {
		t.Error("a file was taken for a folder")
	}
}
