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

// A passphrase is asked for on the terminal, twice where it is new, and is not
// shown; Ctrl-C ends the asking, and the terminal shows what is typed again.
func TestPassphrasePrompt(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	t.Setenv("LANG", "C")
	t.Setenv(passphraseVariable, "")
	person, tty := terminalFor(t)
	shown := make(chan string, 1)
	go func() { // all that appears on the terminal
		var b strings.Builder
		buf := make([]byte, 4096)
		for !strings.Contains(b.String(), "end of the test") {
			n, err := person.Read(buf)
			if err != nil {
				break
			}
			b.Write(buf[:n])
		}
		shown <- b.String()
	}()
	run := func(typed string, args ...string) (int, string, string) {
		var out, e strings.Builder
		go func() {
			for ; t.Context().Err() == nil; time.Sleep(5 * time.Millisecond) {
				if mode, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS); err == nil && mode.Lflag&unix.ECHO == 0 {
					person.WriteString(typed)
					return
				}
			}
		}()
		code := Main(t.Context(), args, tty, &out, &e)
		return code, out.String(), strings.Join(strings.Fields(e.String()), " ")
	}
	const secret = "correct-horse"
	if code, out, e := run(secret+"\nother\n", "key", "next", "--protect"); code != exitFailed || out != "" || !strings.Contains(e, "the two passphrases differ") {
		t.Errorf("two that differ: exit %d, %s %s", code, out, e)
	}
	code, made, e := run(secret+"\n"+secret+"\n", "key", "next", "--protect")
	if code != exitDone || !strings.Contains(e, "The same again:") {
		t.Fatalf("exit %d, %s %s", code, made, e)
	}
	if code, out, e := run(secret+"\n", "key", "export"); code != exitDone || out != made || !strings.Contains(e, "Passphrase of the key of the scope default:") {
		t.Errorf("exit %d, %s %s", code, out, e)
	}
	if code, errOut := mainUntil(t, 500*time.Millisecond, tty, "key", "export"); code != exitInterrupted || strings.Contains(errOut, "error") {
		t.Errorf("interrupted at the prompt: exit %d, %s", code, errOut)
	}
	if mode, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS); err != nil || mode.Lflag&unix.ECHO == 0 {
		t.Errorf("the terminal stays silent: %v", err)
	}
	fmt.Fprintln(tty, "end of the test")
	if text := <-shown; strings.Contains(text, secret) {
		t.Errorf("the passphrase was shown: %q", text)
	}
}
