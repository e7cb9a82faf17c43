package host

import (
	"context"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Listen is net.Listen for TCP, of whose connections SYNTTL is known.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_SAVE_SYN, 1) // without it the TTL is not known
		})
	}}
	c.SetMultipathTCP(false)
	return c.Listen(ctx, "tcp", address)
}

// SetTTL gives what is sent on an accepted connection a TTL, or hop limit, from
// now on, retransmissions included; 0 is the system's own.
func SetTTL(c net.Conn, ttl int) error {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return unsupported("setting the TTL of such a connection")
	}
	if ttl == 0 {
		ttl = -1
	}
	at, _ := t.RemoteAddr().(*net.TCPAddr)
	if at == nil {
		return net.ErrClosed
	}
	out := &conn{TCPConn: t, opt: optionsFor(at.AddrPort().Addr())}
	return out.SetTTL(ttl)
}

// SYNTTL is the TTL, or hop limit, with which the SYN of a connection that
// Listen accepted arrived, 0 unknown. It can be asked once.
func SYNTTL(c net.Conn) (ttl int) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return 0
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return 0
	}
	raw.Control(func(fd uintptr) {
		var b [128]byte
		n := uint32(len(b))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_TCP, unix.TCP_SAVED_SYN, uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
		switch {
		case errno != 0:
		case n >= 20 && b[0]>>4 == 4:
			ttl = int(b[8])
		case n >= 40 && b[0]>>4 == 6:
			ttl = int(b[7])
		}
	})
	return ttl
}
