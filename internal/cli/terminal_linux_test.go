package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"govah/internal/consent"
)

// terminalFor gives both ends of a new terminal.
func terminalFor(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminal to be had: ", err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

// Consent is asked for on a terminal and nowhere else; Ctrl-C ends the asking.
func TestConsentPrompt(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("LANG", "C")
	_, tty := terminalFor(t)
	if !isTerminal(tty) {
		t.Fatal("a terminal counts as none")
	}
	output := filepath.Join(t.TempDir(), "o.jsonl")
	args := []string{"check", "-o", output, "example.org"}
	code, errOut := mainUntil(t, 500*time.Millisecond, tty, args...)
	if code != exitInterrupted || !strings.Contains(strings.Join(strings.Fields(errOut), " "), "Type yes to go on") || strings.Contains(errOut, "error") {
		t.Errorf("interrupted at the prompt: exit %d, %s", code, errOut)
	}
	for line := range strings.Lines(errOut) {
		if len(line) > 81 {
			t.Errorf("wider than 80 columns: %q", line)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		in   *os.File
		args []string
		want string
	}{{null, args, "no terminal to ask on"}, {tty, append(args, "--json"), "nobody is asked"}} {
		var e strings.Builder
		if code := Main(t.Context(), c.args, c.in, &strings.Builder{}, &e); code != exitFailed || !strings.Contains(strings.Join(strings.Fields(e.String()), " "), c.want) {
			t.Errorf("%v: exit %d, %s", c.args, code, e.String())
		}
	}
	if _, err := os.Stat(output); err == nil || consent.Given() {
		t.Error("something was written")
	}
}

// Opening a named pipe waits for its writer, and ends as well.
func TestInterruptedWhileOpening(t *testing.T) {
	t.Parallel()
	pipe := func(name string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	path := pipe("nobody")
	if code, errOut := mainUntil(t, 200*time.Millisecond, strings.NewReader(""), "judge", path); code != exitInterrupted {
		t.Errorf("exit %d, %s", code, errOut)
	}
	// Another pipe: on the first one a reader is still waiting.
	path = pipe("written")
	go func() {
		if w, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			fmt.Fprintln(w, `{"type":"run","run":"r1"}`)
			w.Close()
		}
	}()
	html := path + ".page"
	if code, out, errOut := runMain(t, "", "report", "-o", html, path); code != exitDone {
		t.Errorf("report of a named pipe: exit %d, %s %s", code, out, errOut)
	}
}

func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	for _, args := range [][]string{{"lab", "list"}, {"lab", "show", "clean"}, {"--version"}, {"check", "-h"}} {
		var e strings.Builder
		if code := Main(t.Context(), args, strings.NewReader(""), full, &e); code != exitFailed || !strings.Contains(e.String(), "is the disk full?") {
			t.Errorf("%v: exit %d, %s", args, code, e.String())
		}
	}
}

// A report that finds the disk full says that, and not that the file which it
// reads is broken.
func TestReportOnAFullDisk(t *testing.T) {
	if out, err := exec.Command("unshare", "-rm", "true").CombinedOutput(); err != nil {
		t.Skipf("no mount namespace here: %v %s", err, out)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "m.jsonl")
	if err := os.WriteFile(file, []byte(`{"type":"run","run":"r1"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "-rm", "sh", "-c", `mount -t tmpfs -o size=4k none "$1" && "$0" report "$2" -o "$1/r.html"; code=$?; ls -A "$1"; exit $code`, self, disk, file)
	cmd.Env = append(os.Environ(), asGovah+"=1", "LANG=C")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "hint: is the disk full?") || !strings.HasSuffix(string(out), "full?\n") {
		t.Errorf("%v: %s", err, out)
	}
}
