package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"govah/wire"
)

// Bounds on one capture.
const (
	maxPackets  = 4096
	maxCaptured = 16 << 20 // bytes
	snapLength  = 65535
)

// Capture records the packets of one flow of ours, which needs CAP_NET_RAW. A
// filter in the kernel lets nothing else through: only packets to and from
// f.Remote's address and port, from and to f.Local's port if it has one, and
// ICMP errors that quote such a packet.
func (n *Network) Capture(_ context.Context, f wire.Flow) (wire.Capture, error) {
	if !f.Remote.IsValid() || f.Remote.Port() == 0 {
		return nil, errors.New("host: capture: a flow needs a remote address and port")
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, unsupported("capturing packets without the right to")
		}
		return nil, os.NewSyscallError("capture: socket", err)
	}
	filter, err := bpf.Assemble(flowFilter(f))
	if err == nil {
		raw := make([]unix.SockFilter, len(filter))
		for i, in := range filter {
			raw[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
		}
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(raw)), Filter: &raw[0]})
	}
	if err == nil {
		// All protocols: with one alone the kernel shows only what arrives.
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL)})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("host: capture of %v: %w", f.Remote, err)
	}
	c := &capture{file: os.NewFile(uintptr(fd), "capture"), done: make(chan struct{})}
	go c.run()
	return c, nil
}

// flowFilter selects packets, which begin with their IP header, of a flow.
func flowFilter(f wire.Flow) []bpf.Instruction {
	remote := f.Remote.Addr().Unmap()
	port, own := uint32(f.Remote.Port()), uint32(f.Local.Port())
	var p program
	// ours holds for the local port, offset bytes behind an IPv4 header; v6: at
	// offset of the packet.
	ours := func(offset uint32) {
		if own != 0 && remote.Is4() {
			p.indirect(offset, 2, own, "no")
		} else if own != 0 {
			p.field(offset, 2, 0, own, "no")
		}
	}
	if remote.Is4() {
		a := binary.BigEndian.Uint32(remote.AsSlice())
		p.field(0, 1, 0xf0, 0x40, "no")
		p.field(9, 1, 0, 1, "flow") // ICMP?
		// An error that quotes a packet of ours: to remote, port after the
		// quoted header, which without options is 20 bytes long.
		p.indirect(8+16, 4, a, "no")
		p.indirect(8+20+2, 2, port, "no")
		ours(8 + 20)
		p.accept()
		p.label("flow")
		p.field(9, 1, 0, unix.IPPROTO_TCP, "udp")
		p.jump("ports")
		p.label("udp")
		p.field(9, 1, 0, unix.IPPROTO_UDP, "no")
		p.label("ports")
		p.field(16, 4, 0, a, "in")
		p.indirect(2, 2, port, "no")
		ours(0)
		p.accept()
		p.label("in")
		p.field(12, 4, 0, a, "no")
		p.indirect(0, 2, port, "no")
		ours(2)
		p.accept()
	} else {
		raw := remote.As16()
		p.field(0, 1, 0xf0, 0x60, "no")
		p.field(6, 1, 0, unix.IPPROTO_ICMPV6, "flow")
		p.address(40+8+24, raw, "no")
		p.field(40+8+40+2, 2, 0, port, "no")
		ours(40 + 8 + 40)
		p.accept()
		p.label("flow")
		p.field(6, 1, 0, unix.IPPROTO_TCP, "udp")
		p.jump("ports")
		p.label("udp")
		p.field(6, 1, 0, unix.IPPROTO_UDP, "no")
		p.label("ports")
		p.address(24, raw, "in")
		p.field(40+2, 2, 0, port, "no")
		ours(40)
		p.accept()
		p.label("in")
		p.address(8, raw, "no")
		p.field(40, 2, 0, port, "no")
		ours(40 + 2)
		p.accept()
	}
	p.label("no")
	p.in = append(p.in, bpf.RetConstant{Val: 0})
	return p.link()
}

// program is a filter under construction: jumps name labels.
type program struct {
	in     []bpf.Instruction
	labels map[string]int
	jumps  map[int]string
}

func (p *program) label(name string) {
	if p.labels == nil {
		p.labels = map[string]int{}
	}
	p.labels[name] = len(p.in)
}

func (p *program) jump(to string) {
	if p.jumps == nil {
		p.jumps = map[int]string{}
	}
	p.jumps[len(p.in)] = to
	p.in = append(p.in, bpf.Jump{})
}

// unless goes on if the accumulator equals v and jumps otherwise.
func (p *program) unless(v uint32, otherwise string) {
	p.in = append(p.in, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: 1})
	p.jump(otherwise)
}

func (p *program) field(offset uint32, size int, mask, v uint32, otherwise string) {
	p.in = append(p.in, bpf.LoadAbsolute{Off: offset, Size: size})
	if mask != 0 {
		p.in = append(p.in, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask})
	}
	p.unless(v, otherwise)
}

// indirect is field behind an IPv4 header of any length.
func (p *program) indirect(offset uint32, size int, v uint32, otherwise string) {
	p.in = append(p.in, bpf.LoadMemShift{Off: 0}, bpf.LoadIndirect{Off: offset, Size: size})
	p.unless(v, otherwise)
}

func (p *program) address(offset uint32, a [16]byte, otherwise string) {
	for i := uint32(0); i < 16; i += 4 {
		p.field(offset+i, 4, 0, binary.BigEndian.Uint32(a[i:]), otherwise)
	}
}

func (p *program) accept() { p.in = append(p.in, bpf.RetConstant{Val: snapLength}) }

func (p *program) link() []bpf.Instruction {
	for at, name := range p.jumps {
		p.in[at] = bpf.Jump{Skip: uint32(p.labels[name] - at - 1)}
	}
	return p.in
}

type capture struct {
	file *os.File
	done chan struct{}

	mu      sync.Mutex
	packets []wire.Packet
	size    int
	lost    int
}

func (c *capture) run() {
	defer close(c.done)
	raw, err := c.file.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, snapLength)
	for {
		var (
			n    int
			from unix.Sockaddr
			rerr error
		)
		err := raw.Read(func(fd uintptr) bool {
			n, from, rerr = unix.Recvfrom(int(fd), buf, 0)
			return rerr != unix.EAGAIN
		})
		if err != nil || rerr != nil && rerr != unix.EINTR && rerr != unix.ENETDOWN {
			return
		}
		if rerr != nil || n <= 0 {
			continue
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		sent := ok && ll.Pkttype == unix.PACKET_OUTGOING
		c.mu.Lock()
		if len(c.packets) < maxPackets && c.size+n <= maxCaptured {
			c.packets = append(c.packets, wire.Packet{At: time.Now(), Sent: sent, Data: append([]byte(nil), buf[:n]...)})
			c.size += n
		} else {
			c.lost++
		}
		c.mu.Unlock()
	}
}

// Packets are what was captured so far. What we sent may lack its checksum,
// which the network card adds.
func (c *capture) Packets() []wire.Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]wire.Packet(nil), c.packets...)
}

// Take implements wire.Capture.
func (c *capture) Take() (list []wire.Packet, lost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list, lost = c.packets, c.lost
	c.packets, c.size, c.lost = nil, 0, 0
	return list, lost
}

func (c *capture) Close() error {
	c.file.SetReadDeadline(past)
	err := c.file.Close()
	<-c.done
	return err
}

func htons(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
