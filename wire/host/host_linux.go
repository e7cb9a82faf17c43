package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"govah/measure"
	"govah/wire"
)

// look asks the kernel what works. Android is Linux here: an app may do all of
// this through ordinary system calls.
func look() measure.View {
	v := measure.View{SYNHop: true, DataError: true, UDPHop: true, TCPInfo: true}
	try := func(kind int, level, option, value int) bool {
		fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return false
		}
		defer unix.Close(fd)
		return unix.SetsockoptInt(fd, level, option, value) == nil
	}
	v.SetTTL = try(unix.SOCK_STREAM, unix.SOL_IP, unix.IP_TTL, 7)
	v.MinTTL = try(unix.SOCK_STREAM, unix.SOL_IP, unix.IP_MINTTL, 7)
	v.UDPTTL = try(unix.SOCK_DGRAM, unix.SOL_IP, unix.IP_RECVTTL, 1)
	errors := try(unix.SOCK_DGRAM, unix.SOL_IP, unix.IP_RECVERR, 1)
	v.UDPHop, v.SYNHop = errors, errors && v.SetTTL
	if fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
		unix.Close(fd)
		v.Capture = true
	}
	return v
}

// options are the socket options that differ between the families.
type options struct{ level, ttl, minTTL, recvErr, recvTTL, ttlMessage int }

var (
	options4 = options{unix.SOL_IP, unix.IP_TTL, unix.IP_MINTTL, unix.IP_RECVERR, unix.IP_RECVTTL, unix.IP_TTL}
	options6 = options{unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_MINHOPCOUNT, unix.IPV6_RECVERR, unix.IPV6_RECVHOPLIMIT, unix.IPV6_HOPLIMIT}
)

func optionsFor(a netip.Addr) options {
	if a.Unmap().Is4() {
		return options4
	}
	return options6
}

// Dial opens a TCP connection, without MPTCP, whose options would differ from
// what a browser's kernel sends.
func (n *Network) Dial(ctx context.Context, spec wire.DialSpec) (wire.Conn, error) {
	if err := checkDial(spec); err != nil {
		return nil, err
	}
	opt := optionsFor(spec.Remote.Addr())
	dup := -1
	bound := wire.Bound(ctx)
	local := tcpAddr(spec.Local)
	if bound != nil {
		local = nil // bound here, so that it is known before the SYN leaves
	}
	d := net.Dialer{
		LocalAddr: local,
		KeepAlive: -1, // a probe among our packets would be one that we did not send
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			ctlErr := raw.Control(func(fd uintptr) {
				if err = prepare(int(fd), opt, spec); err == nil && bound != nil {
					err = bind(int(fd), opt, spec.Local, bound)
				}
				// The dialer closes its descriptor on failure, and the error
				// queue with it: this one keeps both until it was read. The
				// dialer may try twice (a connection to itself).
				if dup >= 0 {
					unix.Close(dup)
					dup = -1
				}
				if err == nil {
					dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
				}
			})
			return errors.Join(ctlErr, err)
		},
	}
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, network("tcp", spec.Remote.Addr()), spec.Remote.String())
	if dup >= 0 {
		defer unix.Close(dup)
	}
	if err != nil {
		if dup >= 0 {
			if list := readErrors(dup, nil); len(list) > 0 {
				return nil, errors.Join(err, &list[0])
			}
		}
		return nil, err
	}
	out := &conn{TCPConn: c.(*net.TCPConn), opt: opt}
	if opt == options6 {
		// From here on ICMP must not disturb Read and Write.
		if err := out.control(func(fd int) error {
			return os.NewSyscallError("declining ICMP errors", unix.SetsockoptInt(fd, opt.level, opt.recvErr, 0))
		}); err != nil {
			c.Close()
			return nil, err
		}
	}
	return out, nil
}

func prepare(fd int, opt options, spec wire.DialSpec) error {
	if spec.Local.IsValid() {
		// A port that was aborted just now is free, one in TIME_WAIT is not.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return os.NewSyscallError("SO_REUSEADDR", err)
		}
	}
	if opt == options6 {
		// IPv4 queues the ICMP error that ends an attempt in any case, IPv6
		// only if asked to.
		if err := unix.SetsockoptInt(fd, opt.level, opt.recvErr, 1); err != nil {
			return os.NewSyscallError("asking for ICMP errors", err)
		}
	}
	if spec.TTL != 0 {
		if err := unix.SetsockoptInt(fd, opt.level, opt.ttl, spec.TTL); err != nil {
			return os.NewSyscallError("setting the TTL", err)
		}
	}
	if spec.MinTTL != 0 {
		if err := unix.SetsockoptInt(fd, opt.level, opt.minTTL, spec.MinTTL); err != nil {
			return os.NewSyscallError("setting the least TTL", err)
		}
	}
	if spec.MSS != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_MAXSEG, spec.MSS); err != nil {
			return os.NewSyscallError("setting the segment size", err)
		}
	}
	return nil
}

// bind gives a socket its local address, a port of the kernel's choice if it
// has none, and tells it.
func bind(fd int, opt options, local netip.AddrPort, tell func(netip.AddrPort)) error {
	var sa unix.Sockaddr
	if opt == options4 {
		a := &unix.SockaddrInet4{Port: int(local.Port())}
		if local.IsValid() {
			a.Addr = local.Addr().Unmap().As4()
		}
		sa = a
	} else {
		a := &unix.SockaddrInet6{Port: int(local.Port())}
		if local.IsValid() {
			a.Addr = local.Addr().As16()
		}
		sa = a
	}
	if err := unix.Bind(fd, sa); err != nil {
		return os.NewSyscallError("bind", err)
	}
	got, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	switch a := got.(type) {
	case *unix.SockaddrInet4:
		tell(netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)))
	case *unix.SockaddrInet6:
		tell(netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)))
	}
	return nil
}

// conn is a TCP connection of the kernel.
type conn struct {
	*net.TCPConn
	opt options

	mu      sync.Mutex
	pending error // a fatal SO_ERROR that PathErrors had to take
}

func (c *conn) control(f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

func (c *conn) SetTTL(ttl int) error {
	return c.control(func(fd int) error {
		return os.NewSyscallError("setting the TTL", unix.SetsockoptInt(fd, c.opt.level, c.opt.ttl, ttl))
	})
}

func (c *conn) SetMinTTL(ttl int) error {
	return c.control(func(fd int) error {
		return os.NewSyscallError("setting the least TTL", unix.SetsockoptInt(fd, c.opt.level, c.opt.minTTL, ttl))
	})
}

// PathErrors: on an established connection the kernel keeps ICMP as a soft
// error, which reading SO_ERROR returns once; the router's address is not
// told. Without IP_RECVERR this never disturbs Read or Write. A fatal error
// that stands there instead (a reset) is taken out by the same call, so it is
// kept and given to the next Read or Write.
func (c *conn) PathErrors() []wire.PathError {
	var list []wire.PathError
	c.control(func(fd int) error {
		list = readErrors(fd, nil)
		if len(list) > 0 {
			unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			return nil
		}
		// Only an established connection has soft errors to read; on any
		// other SO_ERROR is the reason of its end and belongs to Read.
		info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
		if err != nil || info.State == tcpClose {
			return nil
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil || code == 0 {
			return nil
		}
		e, soft := softError(syscall.Errno(code), c.opt == options6)
		if soft {
			list = append(list, e)
			return nil
		}
		c.mu.Lock()
		c.pending = &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(),
			Err: os.NewSyscallError("read", syscall.Errno(code))}
		c.mu.Unlock()
		return nil
	})
	return list
}

const tcpClose = 7 // TCP_CLOSE of linux/tcp_states.h

// softError is the ICMP error that the kernel has turned into an errno. Type
// and code are the commonest that give it (net/ipv4/icmp.c, net/ipv6/icmp.c):
// time exceeded and host unreachable are both EHOSTUNREACH.
func softError(e syscall.Errno, v6 bool) (wire.PathError, bool) {
	pe := wire.PathError{At: time.Now()}
	switch e {
	case syscall.EHOSTUNREACH:
		pe.Type = 11
		if v6 {
			pe.Type = 3
		}
	case syscall.ENETUNREACH:
		pe.Type = 3
		if v6 {
			pe.Type = 1
		}
	case syscall.ECONNREFUSED:
		pe.Type, pe.Code = 3, 3
		if v6 {
			pe.Type, pe.Code = 1, 4
		}
	case syscall.EACCES:
		if !v6 {
			return pe, false
		}
		pe.Type, pe.Code = 1, 1
	case syscall.EPROTO:
		pe.Type = 12
		if v6 {
			pe.Type = 4
		}
	case syscall.EMSGSIZE:
		pe.Type, pe.Code = 3, 4
		if v6 {
			pe.Type, pe.Code = 2, 0
		}
	default:
		return pe, false
	}
	return pe, true
}

// taken gives an error that PathErrors had to take from the kernel.
func (c *conn) taken(n int, err error) (int, error) {
	if n > 0 || err == nil {
		return n, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending != nil {
		return n, c.pending
	}
	return n, err
}

func (c *conn) Read(b []byte) (int, error)  { return c.taken(c.TCPConn.Read(b)) }
func (c *conn) Write(b []byte) (int, error) { return c.taken(c.TCPConn.Write(b)) }

func (c *conn) Info() (wire.Info, error) {
	var out wire.Info
	err := c.control(func(fd int) error {
		i, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
		if err != nil {
			return os.NewSyscallError("TCP_INFO", err)
		}
		out = wire.Info{
			RTT: time.Duration(i.Rtt) * time.Microsecond, RTO: time.Duration(i.Rto) * time.Microsecond,
			Unacked: int(i.Unacked), Retransmits: int(i.Total_retrans), MSS: int(i.Snd_mss),
		}
		return nil
	})
	return out, err
}

func (c *conn) Abort() error { return abort(c.TCPConn) }

// extendedError is struct sock_extended_err of linux/errqueue.h.
type extendedError struct {
	errno              uint32
	origin, kind, code uint8
	_                  uint8
	info, data         uint32
}

// readErrors empties a socket's error queue of ICMP errors.
func readErrors(fd int, list []wire.PathError) []wire.PathError {
	data, oob := make([]byte, 256), make([]byte, 512)
	for range 64 {
		n, oobn, _, to, err := unix.Recvmsg(fd, data, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return list
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			continue
		}
		for _, m := range messages {
			isError := m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR ||
				m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR
			if !isError || len(m.Data) < int(unsafe.Sizeof(extendedError{})) {
				continue
			}
			ee := (*extendedError)(unsafe.Pointer(&m.Data[0]))
			if ee.origin != unix.SO_EE_ORIGIN_ICMP && ee.origin != unix.SO_EE_ORIGIN_ICMP6 {
				continue
			}
			list = append(list, wire.PathError{
				From: offender(m.Data[unsafe.Sizeof(extendedError{}):]),
				Type: ee.kind, Code: ee.code, Quoted: append([]byte(nil), data[:n]...), At: time.Now(), To: addressed(to),
			})
		}
	}
	return list
}

// addressed is the destination of a quoted packet, which the error queue gives
// in the place of a sender.
func addressed(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// offender is the address in the sockaddr that follows an extended error.
func offender(sa []byte) netip.Addr {
	if len(sa) < 8 {
		return netip.Addr{}
	}
	switch family := *(*uint16)(unsafe.Pointer(&sa[0])); family {
	case unix.AF_INET:
		return netip.AddrFrom4([4]byte(sa[4:8]))
	case unix.AF_INET6:
		if len(sa) >= 24 {
			return netip.AddrFrom16([16]byte(sa[8:24])).Unmap()
		}
	}
	return netip.Addr{}
}

// ListenPacket opens a UDP socket that receives TTLs and queues ICMP errors.
func (n *Network) ListenPacket(ctx context.Context, local netip.AddrPort) (wire.PacketConn, error) {
	if !local.IsValid() {
		local = netip.AddrPortFrom(netip.IPv4Unspecified(), local.Port())
	}
	opt := optionsFor(local.Addr())
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		ctlErr := raw.Control(func(fd uintptr) {
			if err = unix.SetsockoptInt(int(fd), opt.level, opt.recvErr, 1); err != nil {
				err = os.NewSyscallError("asking for ICMP errors", err)
				return
			}
			err = os.NewSyscallError("asking for TTLs", unix.SetsockoptInt(int(fd), opt.level, opt.recvTTL, 1))
		})
		return errors.Join(ctlErr, err)
	}}
	pc, err := lc.ListenPacket(ctx, network("udp", local.Addr()), local.String())
	if err != nil {
		return nil, err
	}
	if bound := wire.Bound(ctx); bound != nil {
		bound(pc.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	return &packetConn{udp: pc.(*net.UDPConn), opt: opt}, nil
}

// packetConn is a UDP socket of the kernel. It does not embed *net.UDPConn:
// quic-go would find the system calls behind it and read past ReadFrom.
type packetConn struct {
	udp *net.UDPConn
	opt options
}

func (c *packetConn) Close() error                       { return c.udp.Close() }
func (c *packetConn) LocalAddr() net.Addr                { return c.udp.LocalAddr() }
func (c *packetConn) SetDeadline(t time.Time) error      { return c.udp.SetDeadline(t) }
func (c *packetConn) SetReadDeadline(t time.Time) error  { return c.udp.SetReadDeadline(t) }
func (c *packetConn) SetWriteDeadline(t time.Time) error { return c.udp.SetWriteDeadline(t) }
func (c *packetConn) SetReadBuffer(n int) error          { return c.udp.SetReadBuffer(n) }
func (c *packetConn) SetWriteBuffer(n int) error         { return c.udp.SetWriteBuffer(n) }

// maxSwallowed bounds ICMP errors that come instead of one datagram.
const maxSwallowed = 1000

// fromICMP says that a call failed for an ICMP error about an earlier
// datagram, which says nothing about this call. Read from the kernel's error
// queue it does not come again.
func fromICMP(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EMSGSIZE,
		syscall.EACCES, syscall.EPERM, syscall.EPROTO, syscall.ENOPROTOOPT, syscall.EHOSTDOWN, syscall.ENONET, syscall.EOPNOTSUPP:
		return true
	}
	return false
}

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, _, from, err := c.ReadTTL(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

func (c *packetConn) ReadTTL(b []byte) (int, int, netip.AddrPort, error) {
	var oob [128]byte
	for i := 0; ; i++ {
		n, oobn, _, from, err := c.udp.ReadMsgUDPAddrPort(b, oob[:])
		if err != nil {
			if fromICMP(err) && i < maxSwallowed {
				continue
			}
			return n, 0, from, err
		}
		return n, c.ttlOf(oob[:oobn]), netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), nil
	}
}

func (c *packetConn) ttlOf(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if int(m.Header.Level) == c.opt.level && int(m.Header.Type) == c.opt.ttlMessage && len(m.Data) >= 4 {
			return int(*(*int32)(unsafe.Pointer(&m.Data[0])))
		}
	}
	return 0
}

// maxResent bounds the attempts at a datagram whose sending reports errors of
// earlier ones. Each attempt takes one; as many can arrive meanwhile as there
// are datagrams under way. An error of its own (no route) stays, and costs so
// many calls.
const maxResent = 64

// WriteTo sends a datagram. The errors of earlier ones are not this one's: it
// is tried again.
func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	ua, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("host: write to %v: no UDP address", to)
	}
	for i := 0; ; i++ {
		n, err := c.udp.WriteToUDP(b, ua)
		if err == nil || i == maxResent || !fromICMP(err) {
			return n, err
		}
	}
}

func (c *packetConn) SetTTL(ttl int) error {
	raw, err := c.udp.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) {
		inner = os.NewSyscallError("setting the TTL", unix.SetsockoptInt(int(fd), c.opt.level, c.opt.ttl, ttl))
	}); err != nil {
		return err
	}
	return inner
}

func (c *packetConn) PathErrors() []wire.PathError {
	raw, err := c.udp.SyscallConn()
	if err != nil {
		return nil
	}
	var list []wire.PathError
	raw.Control(func(fd uintptr) { list = readErrors(int(fd), nil) })
	return list
}
