package kernel

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// startsWithin is how long a program may take until it listens.
const startsWithin = 30 * time.Second

// launch starts a program in a router's namespace, which the calling thread
// is in afterwards, and waits until it listens. stop kills it.
func launch(p Program, space int, client []netip.Addr) (stop func(), err error) {
	if err := unix.Setns(space, unix.CLONE_NEWNET); err != nil {
		return nil, os.NewSyscallError("setns", err)
	}
	command := func(args []string) *exec.Cmd {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = p.Env
		if cmd.Env == nil {
			cmd.Env = os.Environ()
		}
		cmd.Env = slices.DeleteFunc(slices.Clone(cmd.Env), func(kv string) bool {
			return strings.HasPrefix(kv, stageVariable+"=") || strings.HasPrefix(kv, planVariable+"=")
		})
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		return cmd
	}
	before := p.Before
	for _, a := range client {
		if a.Is4() {
			before = append([][]string{{"iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "out0", "-j", "SNAT", "--to-source", a.String()}}, before...)
		}
	}
	for _, args := range before {
		if err := command(args).Run(); err != nil {
			return nil, fmt.Errorf("%s: %w", strings.Join(args, " "), err)
		}
	}
	cmd := command(p.Args)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // and those it has started
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline := time.Now().Add(startsWithin)
	for {
		ready := true
		for _, socket := range p.Listens {
			open, err := listens(socket)
			if err != nil {
				stop()
				return nil, err
			}
			ready = ready && open
		}
		if ready {
			return stop, nil
		}
		select {
		case err := <-ended:
			return nil, fmt.Errorf("it ended before it listened: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			stop()
			return nil, fmt.Errorf("it does not listen on %s after %s", strings.Join(p.Listens, ", "), startsWithin)
		}
	}
}

// listens says whether a socket, as tcp:8080 or udp:53, is open in the
// thread's namespace, over either family (proc(5), /proc/net/tcp).
func listens(socket string) (bool, error) {
	protocol, text, _ := strings.Cut(socket, ":")
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || protocol != "tcp" && protocol != "udp" {
		return false, fmt.Errorf("%q is no socket; write tcp:8080 or udp:53", socket)
	}
	for _, table := range []string{protocol, protocol + "6"} {
		f, err := os.Open("/proc/thread-self/net/" + table)
		if err != nil {
			continue // no IPv6 here
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) > 3 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) && (protocol == "udp" || fields[3] == "0A") {
				f.Close()
				return true, nil
			}
		}
		f.Close()
	}
	return false, nil
}
