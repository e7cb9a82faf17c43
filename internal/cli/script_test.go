package cli

import (
	"archive/zip"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the command as people do: each file of testdata/script is
// a session with its own folder.
func TestScripts(t *testing.T) {
	t.Parallel()
	captures, err := filepath.Abs("../../exposure/testdata")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("CAPTURES", captures)
			e.Setenv("XDG_CONFIG_HOME", e.WorkDir+"/config")
			e.Setenv("LANG", "C.UTF-8")
			e.Setenv("NO_COLOR", "1")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await": await, "mode": mode, "columns": columns, "garbage": garbage, "lines": lines, "cut": cut, "told": told,
			"member": member, "flip": flip, "clear": clearOf, "glob": glob, "nowhere": nowhere, "tail": tail,
		},
	})
}

// told REGEXP: a message on stderr matches, whatever the lines it is laid out in.
func told(ts *testscript.TestScript, neg bool, args []string) {
	text := strings.Join(strings.Fields(ts.ReadFile("stderr")), " ")
	if regexp.MustCompile(args[0]).MatchString(text) == neg {
		ts.Fatalf("%s is not told, or should not be, in %s", args[0], text)
	}
}

// member FILE NAME OUT takes one file out of a ZIP file, as anybody's tool does.
func member(ts *testscript.TestScript, neg bool, args []string) {
	z, err := zip.OpenReader(ts.MkAbs(args[0]))
	ts.Check(err)
	defer z.Close()
	data, err := fs.ReadFile(z, args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), data, 0o600))
}

// flip FILE OUT changes one bit in the middle of it.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	data, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	data[len(data)/2] ^= 4
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), data, 0o600))
}

// clear DIR: nothing that was needed on the way is left in it.
func clearOf(ts *testscript.TestScript, neg bool, args []string) {
	left, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), ".govah-*"))
	ts.Check(err)
	if len(left) > 0 {
		ts.Fatalf("left behind: %v", left)
	}
}

// glob PATTERN: there is one file of that name.
func glob(ts *testscript.TestScript, neg bool, args []string) {
	found, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(found) != 1 {
		ts.Fatalf("%s: %v", args[0], found)
	}
}

// tail FILE N drops the first N lines of it.
func tail(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	lines := strings.SplitAfter(ts.ReadFile(args[0]), "\n")
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Join(lines[n:], "")), 0o600))
}

// nowhere REGEXP DIR: no file in it, nor below it, has it.
func nowhere(ts *testscript.TestScript, neg bool, args []string) {
	re, files := regexp.MustCompile(args[0]), 0
	ts.Check(filepath.WalkDir(ts.MkAbs(args[1]), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		if re.Match(data) {
			ts.Fatalf("%s has it", path)
		}
		return err
	}))
	if files == 0 {
		ts.Fatalf("there is no file in %s", args[1])
	}
}

// await FILE REGEXP waits until the file has it, for 30 seconds at most.
func await(ts *testscript.TestScript, neg bool, args []string) {
	re := regexp.MustCompile(args[1])
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if data, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && re.Match(data) {
			return
		}
	}
	ts.Fatalf("%s never had %s", args[0], args[1])
}

// mode FILE PERMISSIONS
func mode(ts *testscript.TestScript, neg bool, args []string) {
	st, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := strconv.FormatUint(uint64(st.Mode().Perm()), 8); got != args[1] {
		ts.Fatalf("%s has mode %s", args[0], got)
	}
}

// columns FILE N: no line of it is wider; marks of direction, and those that
// stand on a letter, are not counted.
func columns(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		line = strings.NewReplacer("\u200e", "", "\u200f", "", "\u200c", "", "\u2066", "", "\u2067", "", "\u2068", "", "\u2069", "").Replace(strings.TrimRight(line, "\n"))
		line = strings.Map(func(r rune) rune {
			if unicode.Is(unicode.Mn, r) {
				return -1
			}
			return r
		}, line)
		if utf8.RuneCountInString(line) > n {
			ts.Fatalf("wider than %d columns: %q", n, line)
		}
	}
}

// garbage FILE writes bytes of every kind.
func garbage(ts *testscript.TestScript, neg bool, args []string) {
	var b bytes.Buffer
	for i := range 5000 {
		b.WriteByte(byte(i * i >> 3 * 31))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b.Bytes(), 0o600))
}

// cut FILE N keeps the first n bytes of it.
func cut(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}

// lines FILE N REGEXP: exactly n lines match.
func lines(ts *testscript.TestScript, neg bool, args []string) {
	re := regexp.MustCompile(args[2])
	n := 0
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		if re.MatchString(line) {
			n++
		}
	}
	if strconv.Itoa(n) != args[1] {
		ts.Fatalf("%d lines of %s match %s, not %s", n, args[0], args[2], args[1])
	}
}
