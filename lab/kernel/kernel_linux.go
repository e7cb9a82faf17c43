package kernel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// plan is what the process in the namespaces is told.
type plan struct {
	Addresses  []netip.Addr
	Routers    int
	Files      map[string]string
	Privileged bool
	Programs   []Program
	Path       string
	Args       []string
	Env        []string
	Dir        string
}

const (
	stageVariable = "GOVAH_LAB_KERNEL_STAGE"
	planVariable  = "GOVAH_LAB_KERNEL_PLAN"
	stageHold     = "hold"
	stageEnter    = "enter"
	linkFD        = 3 // of the socket to the process that started us
	maxFrame      = 65536
	denied        = "denied: " // begins what the kernel does not permit
)

// Supported tries out whether namespaces can be made.
var Supported = sync.OnceValue(func() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return Run(ctx, Link{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, exec.Command("/proc/self/exe", "true"))
})

// Run runs cmd in a client namespace until it ends, as cmd.Run would: with
// its path, arguments, environment, folder, standard streams and errors. Its
// error tells if the namespaces could not be made. cmd itself is not started.
func Run(ctx context.Context, link Link, cmd *exec.Cmd) error {
	if cmd.Err != nil {
		return cmd.Err
	}
	if link.Routers < 0 || link.Routers > 8 || len(link.Addresses) == 0 {
		return fmt.Errorf("kernel: %d routers and %d addresses; there must be 0 to 8 and at least one", link.Routers, len(link.Addresses))
	}
	for _, program := range link.Programs {
		if program.Router < 1 || program.Router > link.Routers || len(program.Args) == 0 {
			return fmt.Errorf("kernel: a program on router %d of %d, with %d arguments", program.Router, link.Routers, len(program.Args))
		}
	}
	p := plan{Addresses: link.Addresses, Routers: link.Routers, Files: map[string]string{}, Privileged: link.Privileged, Programs: link.Programs,
		Path: cmd.Path, Args: cmd.Args, Env: cmd.Environ(), Dir: cmd.Dir}
	for name, content := range link.Files {
		p.Files[name] = content
	}
	p.Files["/etc/resolv.conf"] = "options timeout:2 attempts:2\n"
	if link.Resolver.IsValid() {
		p.Files["/etc/resolv.conf"] += "nameserver " + link.Resolver.String() + "\n"
	}
	encoded, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("kernel: socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "link"), os.NewFile(uintptr(pair[1]), "link")
	defer ours.Close()
	hold := exec.CommandContext(ctx, "/proc/self/exe")
	hold.Args[0] = os.Args[0]
	hold.Env = append(os.Environ(), stageVariable+"="+stageHold, planVariable+"="+string(encoded))
	hold.Stdin, hold.Stdout = cmd.Stdin, cmd.Stdout
	var complaint bytes.Buffer // of a failed start; the command's own otherwise
	hold.Stderr = cmd.Stderr
	if cmd.Stderr == nil {
		hold.Stderr = &complaint
	}
	hold.ExtraFiles = []*os.File{theirs}
	hold.WaitDelay = 2 * time.Second
	hold.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	err = hold.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("kernel: %w: %w", ErrUnavailable, err)
	}
	file, err := receivePort(pair[0])
	if err != nil {
		hold.Cancel()
		waitErr := hold.Wait()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if strings.HasPrefix(err.Error(), denied) {
			return fmt.Errorf("kernel: %w: %w", ErrUnavailable, err)
		}
		return fmt.Errorf("kernel: setting the namespaces up: %w (%v) %s", err, waitErr, strings.TrimSpace(complaint.String()))
	}
	l := newPort(file, link)
	if _, err := unix.Write(pair[0], []byte{1}); err != nil {
		err = os.NewSyscallError("kernel: start", err)
		hold.Cancel()
		hold.Wait()
		l.close()
		return err
	}
	err = hold.Wait()
	l.close()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// receivePort gets the packet socket that the other process opened.
func receivePort(fd int) (*os.File, error) {
	buf, oob := make([]byte, 1024), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) == 0 {
		if n > 0 {
			return nil, errors.New(string(buf[:n]))
		}
		return nil, io.ErrUnexpectedEOF
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("no socket was passed")
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "port"), nil
}

// port moves packets between the client's line and the lab.
type port struct {
	file *os.File
	link Link
	done chan struct{}
}

func newPort(file *os.File, link Link) *port {
	l := &port{file: file, link: link, done: make(chan struct{})}
	if link.Attach != nil {
		link.Attach(l.deliver)
	}
	go l.run()
	return l
}

func (l *port) close() {
	if l.link.Attach != nil {
		l.link.Attach(nil)
	}
	l.file.Close()
	<-l.done
}

func (l *port) run() {
	defer close(l.done)
	buf := make([]byte, maxFrame)
	for {
		n, err := l.file.Read(buf)
		if err != nil {
			if errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		if n <= 14 || l.link.Send == nil {
			continue
		}
		pkt := buf[14:n]
		// An interface says more than its addresses do (multicast reports).
		var src netip.Addr
		switch {
		case pkt[0]>>4 == 4 && len(pkt) >= 20:
			src, _ = netip.AddrFromSlice(pkt[12:16])
			// Ethernet pads short frames.
			if total := int(pkt[2])<<8 | int(pkt[3]); total >= 20 && total < len(pkt) {
				pkt = pkt[:total]
			}
		case pkt[0]>>4 == 6 && len(pkt) >= 40:
			src, _ = netip.AddrFromSlice(pkt[8:24])
			if total := 40 + int(pkt[4])<<8 + int(pkt[5]); total < len(pkt) {
				pkt = pkt[:total]
			}
		}
		if slices.Contains(l.link.Addresses, src) {
			l.link.Send(bytes.Clone(pkt))
		}
	}
}

// deliver puts a packet on the client's line. A full queue loses it, as any line.
func (l *port) deliver(pkt []byte) {
	if len(pkt) == 0 {
		return
	}
	frame := make([]byte, 14, 14+len(pkt))
	copy(frame, hardware[:])
	copy(frame[6:], hardware[:])
	frame[12], frame[13] = 0x08, 0x00
	if pkt[0]>>4 == 6 {
		frame[12], frame[13] = 0x86, 0xdd
	}
	l.file.Write(append(frame, pkt...))
}
