package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"govah/record"
)

// What is encrypted to somebody is what would have been there in the clear, and
// nothing else of a run is on the disk; post-quantum keys and files of
// recipients too.
func TestEncryptedMeasurements(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	identity, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	list := filepath.Join(dir, "recipients")
	if err := os.WriteFile(list, []byte("# ours\n"+identity.Recipient().String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Whatever is there for a moment is looked at too.
	seen, looked := make(chan string, 1), make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		defer close(looked)
		for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte("plain.example")) {
					select {
					case seen <- path:
					default:
					}
				}
				return nil
			})
		}
	}()
	for _, name := range []string{"m.jsonl.age", "m.jsonl.zst.age", "m.jsonl.gz", "s.jsonl.age"} {
		path := filepath.Join(dir, name)
		args := []string{"check", "--lab", "clean", "--set", "sites", "-q", "-o", path, "--recipients-file", list, "https://plain.example/"}
		if name == "s.jsonl.age" {
			args = append(args, "--seal")
		}
		if code, out, e := runMain(t, "", args...); code != exitDone {
			t.Fatalf("exit %d, %s %s", code, out, e)
		}
		data, err := os.ReadFile(path)
		if err != nil || bytes.Contains(data, []byte("plain.example")) || !bytes.HasPrefix(data, []byte("age-encryption.org/v1\n")) {
			t.Fatalf("%s: %.60q %v", name, data, err)
		}
		plain, err := age.Decrypt(bytes.NewReader(data), identity)
		if err != nil {
			t.Fatal(err)
		}
		r, err := record.NewReader(plain)
		if err != nil {
			t.Fatal(err)
		}
		kinds := ""
		for e, err := range r.All() {
			switch {
			case err != nil:
				t.Errorf("%s: %v", name, err)
			case e.Run != nil:
				kinds += "run "
			case e.Measurement != nil:
				kinds += e.Measurement.Target + " "
			case e.Verdict != nil:
				kinds += "verdict "
			case e.End != nil:
				kinds += "end"
			}
		}
		r.Close()
		if kinds != "run https://plain.example/ verdict end" {
			t.Errorf("%s holds %s", name, kinds)
		}
	}
	stop()
	<-looked
	select {
	case path := <-seen:
		t.Errorf("%s was there in the clear", path)
	default:
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 6 { // the list, four runs, and the evidence of one
		t.Errorf("%v %v", left, err)
	}
	path := filepath.Join(dir, "x")
	for what, args := range map[string][]string{
		"exclude each other: the report":        {"-o", path, "--report", path + ".html"},
		"exclude each other: that file":         {"-o", path, "--ooni", path + ".ooni"},
		"exclude each other: this device":       {"-o", path, "--resume"},
		"there is none":                         {"--json"},
		"exists already and is not overwritten": {"-o", list},
	} {
		args := append([]string{"check", "--lab", "clean", "--set", "sites", "--recipients-file", list}, append(args, "https://plain.example/")...)
		if code, _, e := runMain(t, "", args...); code == exitDone || !strings.Contains(strings.Join(strings.Fields(e), " "), what) {
			t.Errorf("%s: exit %d, %s", what, code, e)
		}
	}
}
