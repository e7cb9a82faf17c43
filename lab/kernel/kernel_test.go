package kernel_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"govah/lab/kernel"
	"govah/packet"
)

func TestMain(m *testing.M) {
	kernel.Main()
	os.Exit(m.Run())
}

func need(t *testing.T) {
	t.Helper()
	if err := kernel.Supported(); errors.Is(err, kernel.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// echo stands for the whole internet: it answers each UDP datagram with its
// own payload.
type echo struct {
	mu      sync.Mutex
	receive func([]byte)
	ttls    []uint8
}

func (e *echo) attach(receive func([]byte)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.receive = receive
}

func (e *echo) send(pkt []byte) {
	p, err := packet.Parse(pkt)
	if err != nil || p.Proto != packet.UDP {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ttls = append(e.ttls, p.TTL)
	if e.receive != nil {
		e.receive(packet.BuildUDP(netip.AddrPortFrom(p.Dst, p.DstPort), netip.AddrPortFrom(p.Src, p.SrcPort), 50, 1, p.Payload))
	}
}

const program = `
exec 2>&1
cat /etc/resolv.conf
grep Cap /proc/self/status
`

func TestCommand(t *testing.T) {
	need(t)
	var out bytes.Buffer
	cmd := exec.Command("/bin/sh", "-c", program+"exit 7")
	cmd.Stdout = &out
	err := kernel.Run(context.Background(), kernel.Link{
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		Resolver:  netip.MustParseAddr("198.51.100.53"), Routers: 2,
	}, cmd)
	exit, ok := err.(*exec.ExitError)
	if !ok || exit.ExitCode() != 7 {
		t.Errorf("the command's exit is lost: %v\n%s", err, &out)
	}
	if !strings.Contains(out.String(), "nameserver 198.51.100.53\n") {
		t.Errorf("the resolver is not set:\n%s", &out)
	}
	for _, line := range strings.Split(out.String(), "\n") {
		if strings.HasPrefix(line, "Cap") && strings.Trim(strings.Fields(line)[1], "0") != "" {
			t.Errorf("the command has privileges: %s", line)
		}
	}
}

func TestPackets(t *testing.T) {
	need(t)
	for _, routers := range []int{0, 2} {
		e := &echo{}
		var out bytes.Buffer
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run=^TestInside$", "-test.v")
		cmd.Env = append(os.Environ(), "LAB_KERNEL_INSIDE=1")
		cmd.Stdout, cmd.Stderr = &out, &out
		err = kernel.Run(context.Background(), kernel.Link{
			Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
			Routers:   routers, Send: e.send, Attach: e.attach,
		}, cmd)
		if err != nil {
			t.Fatalf("%d routers: %v\n%s", routers, err, &out)
		}
		want := []uint8{uint8(64 - routers), uint8(64 - routers)}
		if !slices.Equal(e.ttls, want) {
			t.Errorf("%d routers: datagrams came with TTL %d, want %d\n%s", routers, e.ttls, want, &out)
		}
	}
}

func TestCancel(t *testing.T) {
	need(t)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	started := time.Now()
	err := kernel.Run(ctx, kernel.Link{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, exec.Command("/bin/sleep", "20"))
	if err != context.DeadlineExceeded || time.Since(started) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(started))
	}
}
