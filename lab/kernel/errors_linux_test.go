package kernel_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"govah/lab"
	"govah/lab/kernel"
)

// TestInsideErrors runs in the client's namespace. It asks for the errors of
// an established connection in every way that the kernel has.
func TestInsideErrors(t *testing.T) {
	at := os.Getenv("LAB_KERNEL_ERRORS")
	if at == "" {
		return // only inside a client's namespace
	}
	c, err := net.DialTimeout("tcp4", at, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if err := errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR, 1), unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TTL, 2)); err != nil {
			t.Error(err)
		}
	})
	if _, err := c.Write([]byte("NOOP\r\n")); err != nil {
		t.Fatal(err)
	}
	queued, told := 0, 0
	for end := time.Now().Add(700 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		raw.Control(func(fd uintptr) {
			if _, _, _, _, err := unix.Recvmsg(int(fd), make([]byte, 256), make([]byte, 512), unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); err == nil {
				queued++
			}
			if code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && unix.Errno(code) == unix.EHOSTUNREACH {
				told++
			}
		})
	}
	t.Logf("told %d times, %d in the queue", told, queued)
	if told == 0 || queued != 0 {
		t.Errorf("told %d times, %d in the queue", told, queued)
	}
}

// TestErrors: of an error about an established connection Linux tells who has
// no privilege that there was one, not from whom nor what it quotes. Were that
// to change, package locate could see what is altered on the way without one.
func TestErrors(t *testing.T) {
	need(t)
	s, err := lab.Parse([]byte("schema = 1\ntitle = \"t\"\nabout = \"t\"\n[[client-network]]\nname = \"home\"\nabout = \"a line\"\nhops = 4\n[[network]]\nname = \"hosting\"\nhops = 1\n[[site]]\nname = \"open.example\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.New(s, lab.Options{Raw: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var out bytes.Buffer
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestInsideErrors$", "-test.v")
	cmd.Env = append(os.Environ(), "LAB_KERNEL_ERRORS="+w.Scenario.Sites[0].AllAddresses()[0].String()+":443")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := kernel.Run(t.Context(), kernel.Of(w), cmd); err != nil || !strings.Contains(out.String(), "PASS: TestInsideErrors") {
		t.Errorf("%v\n%s", err, &out)
	}
}
