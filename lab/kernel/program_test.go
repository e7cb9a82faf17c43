package kernel_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"govah/lab/kernel"
)

// TestProgramInside is the program on the router and the command of the client.
func TestProgramInside(t *testing.T) {
	_, at := kernel.RouterAddresses(1)
	there := net.JoinHostPort(at.String(), "8080")
	switch os.Getenv("LAB_KERNEL_PROGRAM") {
	case "router":
		ln, err := net.Listen("tcp", there)
		if err != nil {
			t.Fatal(err)
		}
		for {
			c, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, "on the router")
			c.Close()
		}
	case "client":
		c, err := net.DialTimeout("tcp", there, 2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if said, err := io.ReadAll(c); string(said) != "on the router" {
			t.Fatalf("%q, %v", said, err)
		}
	}
}

// TestProgram: a program on a router runs before the client's command does,
// and is gone with it; one that cannot start ends the whole.
func TestProgram(t *testing.T) {
	need(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{self, "-test.run=^TestProgramInside$", "-test.v"}
	run := func(p kernel.Program) (string, error) {
		var out bytes.Buffer
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "LAB_KERNEL_PROGRAM=client")
		cmd.Stdout, cmd.Stderr = &out, &out
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err := kernel.Run(ctx, kernel.Link{Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::1")}, Routers: 1, Programs: []kernel.Program{p}}, cmd)
		return out.String(), err
	}
	good := kernel.Program{Router: 1, Args: args, Env: append(os.Environ(), "LAB_KERNEL_PROGRAM=router"), Listens: []string{"tcp:8080"}}
	if out, err := run(good); err != nil || !strings.Contains(out, "--- PASS: TestProgramInside") {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range []struct {
		change func(*kernel.Program)
		says   string
	}{
		{func(p *kernel.Program) { p.Router = 2 }, ""},
		{func(p *kernel.Program) { p.Args = nil }, ""},
		{func(p *kernel.Program) { p.Args = []string{"true"} }, "ended before it listened"},
		{func(p *kernel.Program) { p.Args = []string{"no-such-program"} }, "not found"},
		{func(p *kernel.Program) { p.Before = [][]string{{"false"}} }, "false: exit status 1"},
		{func(p *kernel.Program) { p.Listens = []string{"8080"} }, "is no socket"},
	} {
		bad := good
		c.change(&bad)
		out, err := run(bad)
		var exit *exec.ExitError
		if err == nil || errors.As(err, &exit) == (c.says == "") || !strings.Contains(out, c.says) {
			t.Errorf("%+v: %v\n%s", bad.Args, err, out)
		}
	}
}
