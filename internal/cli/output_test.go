package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hostile acts on a terminal: C0, DEL, C1, directions, ends of lines.
const hostile = "a\x1b[31m\x7f\u009b2J\u0085\u061c\u200e\u200f\u202e\u2066\n\r\u2028z"

func TestClean(t *testing.T) {
	got := clean("گواه می\u200cشود " + hostile)
	if want := "گواه می\u200cشود a\uFFFD[31m\uFFFD\uFFFD2J" + strings.Repeat("\uFFFD", 9) + "z"; got != want {
		t.Errorf("clean gives %+q, want %+q", got, want)
	}
}

func TestJSONIsSafeToPrint(t *testing.T) {
	line, err := jsonLine(map[string]string{"x<": hostile})
	if err != nil {
		t.Fatal(err)
	}
	if clean(strings.TrimSuffix(string(line), "\n")) != strings.TrimSuffix(string(line), "\n") || strings.Count(string(line), "\n") != 1 {
		t.Errorf("printed as %+q", line)
	}
	var back map[string]string
	if err := json.Unmarshal(line, &back); err != nil || back["x<"] != hostile {
		t.Errorf("read back as %+q, %v", back, err)
	}
	if !strings.Contains(string(line), `x<`) {
		t.Errorf("escaped for HTML: %s", line)
	}
	// The command prints with it, results and errors.
	for _, args := range [][]string{{"judge", "--json", "-"}, {"check", "--json", "--lab", "x\u202e\u0085"}} {
		_, out, errOut := runMain(t, `{"type":"measurement","id":"m1","target":"https://x\u202e\u0085/","observations":[]}`, args...)
		if text := out + errOut; strings.ContainsAny(text, "\u202e\u0085") || !strings.Contains(text, `\u202e\u0085`) {
			t.Errorf("%v prints %+q", args, text)
		}
	}
}

// A path is printed so that it cannot pass for another line, or turn one.
func TestPathsArePrintedClean(t *testing.T) {
	dir := t.TempDir()
	name := "a\u202eb\ngovah: hint"
	path := filepath.Join(dir, name+".jsonl")
	if err := os.WriteFile(path, []byte(`{"type":"run","run":"r1"}`+"\n"), 0o600); err != nil {
		t.Skip("this system has no such names: ", err)
	}
	code, out, _ := runMain(t, "", "report", path)
	if code != exitDone || strings.Contains(out, "\u202e") || strings.Count(out, "\n") != 1 {
		t.Errorf("exit %d, %q", code, out)
	}
	_, _, errOut := runMain(t, "", "report", path)
	if strings.Contains(errOut, "\u202e") || strings.Count(errOut, "\ngovah: hint") != 1 {
		t.Errorf("an error prints %q", errOut)
	}
}

func TestDevNullIsNoTerminal(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if isTerminal(f) || isTerminal(&output{Writer: f}) {
		t.Error("it counts as a terminal")
	}
}
