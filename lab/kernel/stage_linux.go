package kernel

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Main does not return in a process that this package has started: it makes
// the namespaces, or enters them and becomes the command. In any other it
// does nothing. It must be called first thing in main or TestMain.
func Main() {
	stage := os.Getenv(stageVariable)
	if stage == "" {
		return
	}
	runtime.LockOSThread()
	var p plan
	if err := json.Unmarshal([]byte(os.Getenv(planVariable)), &p); err != nil {
		complain(err)
	}
	switch stage {
	case stageHold:
		os.Exit(hold(p))
	case stageEnter:
		complain(enter(p))
	}
	complain(fmt.Errorf("no stage %q", stage))
}

func complain(err error) {
	fmt.Fprintln(os.Stderr, "lab/kernel:", err)
	os.Exit(125)
}

// hold makes the namespaces, hands out the far end of the line, and runs the
// command at the near end.
func hold(p plan) int {
	spaces, port, err := lay(p)
	if err != nil {
		// The process that started us hears of it in words.
		word := "failed: "
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			word = denied
		}
		unix.Write(linkFD, []byte(word+err.Error()))
		return 125
	}
	if err := unix.Sendmsg(linkFD, []byte{0}, unix.UnixRights(port), nil, 0); err != nil {
		complain(err)
	}
	unix.Close(port)
	var start [1]byte
	if n, err := unix.Read(linkFD, start[:]); n != 1 || err != nil {
		return 125
	}
	unix.CloseOnExec(linkFD)
	for _, program := range p.Programs {
		stop, err := launch(program, spaces[program.Router], p.Addresses)
		if err != nil {
			complain(fmt.Errorf("%s: %w", program.Args[0], err))
		}
		defer stop()
	}
	if err := unix.Setns(spaces[0], unix.CLONE_NEWNET); err != nil {
		complain(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stageVariable+"="+stageEnter)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The child is forked from this locked thread, so it is in its namespace
	// and dies with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		complain(err)
	}
	go func() {
		// The other process is gone: nobody answers any packet any more.
		unix.Read(linkFD, start[:])
		cmd.Process.Kill()
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	}
	return 125
}

// enter becomes the command.
func enter(p plan) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("making mounts private", err)
	}
	dir, err := os.MkdirTemp("", "lab-kernel-")
	if err != nil {
		return err
	}
	if err := unix.Mount("lab-kernel", dir, "tmpfs", 0, "size=16m"); err != nil {
		return os.NewSyscallError("mounting a folder for files", err)
	}
	n := 0
	for name, content := range p.Files {
		n++
		source := filepath.Join(dir, fmt.Sprint(n))
		if err := os.WriteFile(source, []byte(content), 0o644); err != nil {
			return err
		}
		// A symbolic link (resolv.conf is often one) stays; what it points
		// at is covered.
		target, err := filepath.EvalSymlinks(name)
		if err != nil {
			return fmt.Errorf("%s cannot be covered: %w", name, err)
		}
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("covering %s: %w", target, err)
		}
	}
	// Out of sight: the files stay mounted where they cover others.
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount", err)
	}
	os.Remove(dir)
	if len(p.Args) > 1 && p.Path == "/proc/self/exe" && p.Args[1] == "true" {
		os.Exit(0) // Supported
	}
	if p.Dir != "" {
		if err := os.Chdir(p.Dir); err != nil {
			return err
		}
	}
	if !p.Privileged {
		for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
				return os.NewSyscallError("dropping capabilities", err)
			}
		}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("dropping capabilities", err)
		}
	}
	var env []string
	for _, kv := range p.Env {
		if !strings.HasPrefix(kv, stageVariable+"=") && !strings.HasPrefix(kv, planVariable+"=") {
			env = append(env, kv)
		}
	}
	return fmt.Errorf("%s: %w", p.Path, syscall.Exec(p.Path, p.Args, env))
}

// lay makes the client's namespace, the routers' and the cables between them,
// the last of which ends in the namespace that this process was started in.
func lay(p plan) (spaces []int, port int, err error) {
	outer, err := namespace()
	if err != nil {
		return nil, 0, err
	}
	spaces = make([]int, p.Routers+1) // the client's first
	for i := range spaces {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return nil, 0, os.NewSyscallError("a network namespace", err)
		}
		if spaces[i], err = namespace(); err != nil {
			return nil, 0, err
		}
	}
	// The cables first, from each namespace to the next one out.
	for i, s := range spaces {
		if err := unix.Setns(s, unix.CLONE_NEWNET); err != nil {
			return nil, 0, os.NewSyscallError("setns", err)
		}
		next, peer := outer, "port0"
		if i+1 < len(spaces) {
			next, peer = spaces[i+1], "in0"
		}
		name := "out0"
		if i == 0 {
			name = "eth0"
		}
		if err := cable(name, peer, next); err != nil {
			return nil, 0, err
		}
	}
	for i, s := range spaces {
		if err := unix.Setns(s, unix.CLONE_NEWNET); err != nil {
			return nil, 0, os.NewSyscallError("setns", err)
		}
		if i == 0 {
			err = setClient(p.Addresses)
		} else {
			err = setRouter(i, p.Addresses)
		}
		if err != nil {
			return nil, 0, err
		}
	}
	if err := unix.Setns(outer, unix.CLONE_NEWNET); err != nil {
		return nil, 0, os.NewSyscallError("setns", err)
	}
	if err := up("port0"); err != nil {
		return nil, 0, err
	}
	port, err = openPort("port0")
	return spaces, port, err
}

func namespace() (int, error) {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return fd, os.NewSyscallError("opening a namespace", err)
}

// set writes a setting of the thread's network namespace. One that this
// kernel does not have is none to worry about.
func set(name, value string) error {
	err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func defaults(addrs []netip.Addr) []netip.Prefix {
	var list []netip.Prefix
	for _, a := range addrs {
		zero := netip.IPv4Unspecified()
		if a.Is6() {
			zero = netip.IPv6Unspecified()
		}
		list = append(list, netip.PrefixFrom(zero, 0))
	}
	return list
}

func setClient(addrs []netip.Addr) error {
	for _, s := range [][2]string{{"ipv6/conf/all/accept_ra", "0"}, {"ipv6/conf/eth0/accept_ra", "0"}} {
		if err := set(s[0], s[1]); err != nil {
			return err
		}
	}
	if err := up("lo"); err != nil {
		return err
	}
	if err := up("eth0"); err != nil {
		return err
	}
	for _, a := range addrs {
		if err := address("eth0", a); err != nil {
			return err
		}
	}
	for _, p := range defaults(addrs) {
		if err := route(p, "eth0"); err != nil {
			return err
		}
	}
	return nil
}

func setRouter(n int, addrs []netip.Addr) error {
	for _, s := range [][2]string{
		{"ipv4/ip_forward", "1"}, {"ipv6/conf/all/forwarding", "1"},
		{"ipv4/conf/all/rp_filter", "0"}, {"ipv4/conf/default/rp_filter", "0"}, {"ipv4/conf/in0/rp_filter", "0"}, {"ipv4/conf/out0/rp_filter", "0"},
		// A probe that is not answered for a limit on answers looks like a
		// silent router; that is the lab's to emulate.
		{"ipv4/icmp_ratelimit", "0"}, {"ipv6/icmp/ratelimit", "0"},
	} {
		if err := set(s[0], s[1]); err != nil {
			return err
		}
	}
	for _, name := range []string{"lo", "in0", "out0"} {
		if err := up(name); err != nil {
			return err
		}
	}
	v4, v6 := RouterAddresses(n)
	for _, a := range []netip.Addr{v4, v6} {
		if err := address("in0", a); err != nil {
			return err
		}
	}
	for _, a := range addrs {
		if err := route(netip.PrefixFrom(a, a.BitLen()), "in0"); err != nil {
			return err
		}
	}
	for _, p := range defaults(addrs) {
		if err := route(p, "out0"); err != nil {
			return err
		}
	}
	return nil
}

// openPort opens a socket that sees the frames of one interface.
func openPort(name string) (int, error) {
	index, err := indexOf(name)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("a packet socket", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return 0, os.NewSyscallError("PACKET_IGNORE_OUTGOING", err)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // as much as we may have
	protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: index}); err != nil {
		return 0, os.NewSyscallError("binding to "+name, err)
	}
	return fd, nil
}
