package lab

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"govah/measure"
	"govah/packet"
	"govah/wire"
)

// host is one end of the lab with sockets: a client, or a server that makes
// connections of its own. It implements wire.Network with the semantics of
// Linux.
type host struct {
	w      *World
	stack  *stack.Stack
	addrs  []netip.Addr
	lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	roots  *x509.CertPool
	view   measure.View

	mu       sync.Mutex
	port     int // the next to try
	flows    map[flowID]*flowState
	captures map[*capture]struct{}
}

type flowID struct {
	proto  uint8
	local  uint16
	remote netip.AddrPort // invalid for UDP sockets, which have many
}

// flowState is what Linux keeps in a socket and gVisor does not.
type flowState struct {
	minTTL     int
	errs       []wire.PathError
	connecting chan wire.PathError // while the SYN is unanswered

	sent     bool   // una and next hold
	una      uint32 // the first sequence number that is not acknowledged
	next     uint32 // the first that has not been sent
	segments int    // size of the largest segment sent, bytes
	syns     int    // times that the SYN was sent
}

// sends follows the sequence numbers of a segment that leaves.
func (f *flowState) sends(p *packet.Packet) {
	n := len(p.Payload)
	if p.Flags&(packet.SYN|packet.FIN) != 0 {
		n++
	}
	if p.Flags&packet.SYN != 0 {
		f.syns++
	}
	if !f.sent || p.Flags&packet.SYN != 0 {
		f.sent, f.una, f.next = true, p.Seq, p.Seq
	}
	if end := p.Seq + uint32(n); int32(end-f.next) > 0 {
		f.next = end
	}
	f.segments = max(f.segments, n)
}

// unacked is the number of segments that are not acknowledged.
func (f *flowState) unacked() int {
	if !f.sent || f.segments == 0 {
		return 0
	}
	return (int(f.next-f.una) + f.segments - 1) / f.segments
}

// hears says whether Linux would take an ICMP error about this flow
// (tcp_v4_err, tcp_v6_err): what it quotes must be in flight, and the least
// TTL holds for the quoted IPv4 packet, or the IPv6 error itself.
func (f *flowState) hears(p *packet.Packet, q packet.Quote) bool {
	if q.Proto != packet.TCP {
		return true
	}
	ttl := p.TTL
	if !p.V6() {
		ttl = p.Quoted[8]
	}
	return int(ttl) >= f.minTTL && f.sent && q.Seq-f.una < f.next-f.una
}

func newHost(w *World, s *stack.Stack, addrs []netip.Addr) *host {
	return &host{w: w, stack: s, addrs: addrs, port: rand.IntN(ports), flows: map[flowID]*flowState{}, captures: map[*capture]struct{}{},
		view: measure.View{SYNHop: true, DataError: true, UDPHop: true, UDPTTL: true, MinTTL: true, SetTTL: true, TCPInfo: true,
			Lookup: true, SystemRoots: true, IPv4: hasFamily(addrs, false), IPv6: hasFamily(addrs, true)}}
}

func hasFamily(list []netip.Addr, v6 bool) bool {
	for _, a := range list {
		if a.Is6() == v6 {
			return true
		}
	}
	return false
}

func (h *host) local(remote netip.Addr) (netip.Addr, error) {
	for _, a := range h.addrs {
		if a.Is6() == remote.Is6() {
			return a, nil
		}
	}
	return netip.Addr{}, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ENETUNREACH}
}

// arriving inspects a packet at the network card. It reports whether the stack
// may see it.
func (h *host) arriving(pkt []byte) bool {
	p, err := packet.Parse(pkt)
	if err != nil {
		return true
	}
	h.record(false, &p)
	if p.IsICMPError() {
		q, err := packet.ParseQuote(p.Quoted)
		if err != nil {
			return false
		}
		pe := wire.PathError{From: p.Src, Type: p.Type, Code: p.Code, Quoted: append([]byte(nil), p.Quoted...), At: time.Now(), To: q.Dst}
		h.mu.Lock()
		f := h.flows[flowID{q.Proto, q.Src.Port(), q.Dst}]
		if f == nil {
			f = h.flows[flowID{q.Proto, q.Src.Port(), netip.AddrPort{}}]
		}
		tooBig := p.Proto == packet.ICMPv6 && p.Type == packet.PacketTooBig6 || p.Proto == packet.ICMP && p.Type == packet.Unreachable4 && p.Code == packet.FragNeededCode4
		if f != nil && f.hears(&p, q) && len(f.errs) < 64 {
			f.errs = append(f.errs, pe)
			if f.connecting != nil && !tooBig {
				select {
				case f.connecting <- pe:
				default:
				}
			}
		}
		h.mu.Unlock()
		// Only path MTU discovery is the stack's business.
		return tooBig
	}
	if p.Proto == packet.TCP {
		h.mu.Lock()
		f := h.flows[flowID{packet.TCP, p.DstPort, p.Source()}]
		drop := f != nil && int(p.TTL) < f.minTTL
		if f != nil && !drop && p.Flags&packet.ACK != 0 && f.sent && p.Ack-f.una <= f.next-f.una {
			f.una = p.Ack
		}
		h.mu.Unlock()
		return !drop
	}
	return true
}

// open begins to look for packets of a flow. From then on f changes under mu:
// one that is late for a flow of the same ports may come at once.
func (h *host) open(id flowID, f *flowState) *flowState {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flows[id] = f
	return f
}

func (h *host) close(id flowID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.flows, id)
}

func setTTL(ep tcpip.Endpoint, v6 bool, ttl int) error {
	if ttl < 0 || ttl > 255 {
		return fmt.Errorf("TTL %d is not 0 to 255", ttl)
	}
	opt := tcpip.IPv4TTLOption
	if v6 {
		opt = tcpip.IPv6HopLimitOption
	}
	if ttl == 0 {
		ttl = 64
	}
	if err := ep.SetSockOptInt(opt, ttl); err != nil {
		return fmt.Errorf("setting the TTL: %s", err)
	}
	return nil
}

// Dial implements wire.Network.
func (h *host) Dial(ctx context.Context, spec wire.DialSpec) (wire.Conn, error) {
	fail := func(err error) (wire.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(spec.Remote), Err: err}
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	remote := netip.AddrPortFrom(spec.Remote.Addr().Unmap(), spec.Remote.Port())
	local, err := h.local(remote.Addr())
	if err != nil {
		return nil, err
	}
	switch a := remote.Addr(); {
	case onDevice(a):
		return fail(syscall.ECONNREFUSED) // nothing listens there
	case a.IsMulticast() || a == broadcast:
		return fail(syscall.ENETUNREACH)
	}
	var wq waiter.Queue
	ep, terr := h.stack.NewEndpoint(tcp.ProtocolNumber, netProto(remote.Addr()), &wq)
	if terr != nil {
		return fail(errnoOf(terr.String()))
	}
	ok := false
	defer func() {
		if !ok {
			ep.Abort()
		}
	}()
	if err := setTTL(ep, remote.Addr().Is6(), spec.TTL); err != nil {
		return fail(err)
	}
	if spec.MSS > 0 {
		ep.SetSockOptInt(tcpip.MaxSegOption, spec.MSS)
	}
	if err := h.bind(ep, netip.AddrPortFrom(local, spec.Local.Port())); err != nil {
		return fail(err)
	}
	at, terr := ep.GetLocalAddress()
	if terr != nil {
		return fail(errnoOf(terr.String()))
	}
	if bound := wire.Bound(ctx); bound != nil {
		bound(netip.AddrPortFrom(local, at.Port))
	}
	id := flowID{packet.TCP, at.Port, remote}
	f := h.open(id, &flowState{minTTL: spec.MinTTL, connecting: make(chan wire.PathError, 1)})
	defer func() {
		if !ok {
			h.close(id)
		}
	}()
	we, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&we)
	defer wq.EventUnregister(&we)
	terr = ep.Connect(fullAddress(remote))
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ready:
			terr = ep.LastError()
		case pe := <-f.connecting:
			return fail(&icmpError{errnoOfICMP(remote.Addr().Is6(), pe.Type, pe.Code), &pe})
		case <-ctx.Done():
			err := ctx.Err()
			if errors.Is(err, context.DeadlineExceeded) {
				err = os.ErrDeadlineExceeded
			}
			return fail(err)
		case <-h.w.ctx.Done():
			return fail(net.ErrClosed)
		}
	}
	if terr != nil {
		return fail(errnoOf(terr.String()))
	}
	h.mu.Lock()
	f.connecting = nil
	h.mu.Unlock()
	ok = true
	return &conn{TCPConn: gonet.NewTCPConn(&wq, ep), ep: ep, h: h, id: id, f: f,
		remote: net.TCPAddrFromAddrPort(remote), local: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, at.Port))}, nil
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// onDevice says whether Linux takes an address to mean the device itself: what
// goes there never reaches the network.
func onDevice(a netip.Addr) bool { return a.IsLoopback() || a.IsUnspecified() }

// The ports that Linux chooses from (ip_local_port_range).
const (
	firstPort = 32768
	ports     = 28232
)

// bind gives a TCP endpoint its local address. As on Linux free ports are taken
// in turn: one that was used a moment ago may still be known to the server.
func (h *host) bind(ep tcpip.Endpoint, local netip.AddrPort) error {
	if local.Port() != 0 {
		if terr := ep.Bind(fullAddress(local)); terr != nil {
			return errnoOf(terr.String())
		}
		return nil
	}
	for range ports {
		h.mu.Lock()
		port := firstPort + uint16(h.port%ports)
		h.port++
		h.mu.Unlock()
		terr := ep.Bind(fullAddress(netip.AddrPortFrom(local.Addr(), port)))
		if terr == nil {
			return nil
		}
		if _, used := terr.(*tcpip.ErrPortInUse); !used {
			return errnoOf(terr.String())
		}
	}
	return syscall.EADDRNOTAVAIL
}

// icmpError is an errno and the message that caused it.
type icmpError struct {
	errno syscall.Errno
	path  *wire.PathError
}

func (e *icmpError) Error() string   { return e.errno.Error() + " (" + e.path.Error() + ")" }
func (e *icmpError) Unwrap() []error { return []error{e.errno, e.path} }

// errnoOfICMP is what Linux makes of an ICMP error (icmp_err_convert,
// icmpv6_err_convert).
func errnoOfICMP(v6 bool, typ, code uint8) syscall.Errno {
	switch {
	case v6 && typ == packet.Unreachable6:
		switch code {
		case 0:
			return syscall.ENETUNREACH
		case 1, 5, 6:
			return syscall.EACCES
		case 4:
			return syscall.ECONNREFUSED
		}
	case v6 && typ == 4, !v6 && typ == 12:
		return syscall.EPROTO
	case !v6 && typ == packet.Unreachable4:
		switch code {
		case 0, 6, 9, 11:
			return syscall.ENETUNREACH
		case 2:
			return syscall.ENOPROTOOPT
		case 3:
			return syscall.ECONNREFUSED
		case 7:
			return syscall.EHOSTDOWN
		}
	}
	return syscall.EHOSTUNREACH
}

// errnoOf turns gVisor's words into the errors of the kernel.
func errnoOf(text string) error {
	for _, e := range []struct {
		text  string
		errno syscall.Errno
	}{
		{"connection reset by peer", syscall.ECONNRESET}, {"connection was refused", syscall.ECONNREFUSED}, {"connection refused", syscall.ECONNREFUSED},
		{"no route to host", syscall.EHOSTUNREACH}, {"host is unreachable", syscall.EHOSTUNREACH}, {"host is down", syscall.EHOSTUNREACH},
		{"network is unreachable", syscall.ENETUNREACH}, {"operation timed out", syscall.ETIMEDOUT}, {"connection timed out", syscall.ETIMEDOUT},
		{"connection aborted", syscall.ECONNABORTED}, {"broken pipe", syscall.EPIPE}, {"port is in use", syscall.EADDRINUSE},
		{"address already in use", syscall.EADDRINUSE}, {"endpoint is closed for send", syscall.EPIPE}, {"endpoint is closed for receive", syscall.ECONNRESET},
		{"endpoint not connected", syscall.ENOTCONN}, {"bad local address", syscall.EADDRNOTAVAIL},
	} {
		if strings.Contains(text, e.text) {
			return e.errno
		}
	}
	return errors.New(text)
}

func convert(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return err
	}
	var op *net.OpError
	if !errors.As(err, &op) {
		return err
	}
	inner := op.Err
	if op.Timeout() {
		inner = os.ErrDeadlineExceeded
	} else if !errors.Is(inner, io.EOF) {
		inner = errnoOf(inner.Error())
	}
	return &net.OpError{Op: op.Op, Net: op.Net, Source: op.Source, Addr: op.Addr, Err: inner}
}

// conn is a client's TCP connection.
type conn struct {
	*gonet.TCPConn
	ep            tcpip.Endpoint
	h             *host
	id            flowID
	f             *flowState
	local, remote net.Addr
	once          sync.Once
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	return n, convert(err)
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	return n, convert(err)
}

func (c *conn) Close() error {
	c.once.Do(func() { c.h.close(c.id) })
	return c.TCPConn.Close()
}

func (c *conn) SetTTL(ttl int) error { return setTTL(c.ep, c.id.remote.Addr().Is6(), ttl) }

func (c *conn) SetMinTTL(ttl int) error {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.f.minTTL = ttl
	return nil
}

// PathErrors implements wire.Conn: on an established connection Linux tells
// that there was an error, and not from whom.
func (c *conn) PathErrors() []wire.PathError {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	out := c.f.errs
	c.f.errs = nil
	if !c.h.view.DataHop {
		for i := range out {
			out[i].From, out[i].Quoted, out[i].To = netip.Addr{}, nil, netip.AddrPort{}
		}
	}
	return out
}

func (c *conn) Info() (wire.Info, error) {
	var i tcpip.TCPInfoOption
	if err := c.ep.GetSockOpt(&i); err != nil {
		return wire.Info{}, fmt.Errorf("asking for the connection's state: %s", err)
	}
	var stats *tcp.Stats
	if s, ok := c.ep.Stats().(*tcp.Stats); ok {
		stats = s
	}
	c.h.mu.Lock()
	// gVisor counts what was sent again after the handshake, Linux the SYN too.
	info := wire.Info{RTT: i.RTT, RTO: i.RTO, Unacked: c.f.unacked(), Retransmits: max(0, c.f.syns-1)}
	c.h.mu.Unlock()
	if stats != nil {
		info.Retransmits += int(stats.SendErrors.Retransmits.Value())
	}
	if mss, err := c.ep.GetSockOptInt(tcpip.MaxSegOption); err == nil {
		info.MSS = mss
	}
	return info, nil
}

func (c *conn) Abort() error {
	c.once.Do(func() { c.h.close(c.id) })
	c.ep.Abort()
	return nil
}

// udpConn is a client's UDP socket.
type udpConn struct {
	*gonet.UDPConn
	ep    tcpip.Endpoint
	wq    *waiter.Queue
	h     *host
	id    flowID
	f     *flowState
	local net.Addr
	v6    bool

	mu       sync.Mutex
	deadline time.Time
	changed  chan struct{}
	closed   chan struct{}
	once     sync.Once
}

// ListenPacket implements wire.Network.
func (h *host) ListenPacket(ctx context.Context, local netip.AddrPort) (wire.PacketConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	want := netip.AddrFrom4([4]byte{})
	if local.Addr().IsValid() && local.Addr().Is6() && !local.Addr().Is4In6() {
		want = netip.IPv6Unspecified()
	}
	at, err := h.local(want)
	if err != nil {
		return nil, err
	}
	c, err := h.listenPacket(netip.AddrPortFrom(at, local.Port()))
	if err != nil {
		return nil, err
	}
	if bound := wire.Bound(ctx); bound != nil {
		bound(netip.AddrPortFrom(at, c.id.local))
	}
	return c, nil
}

func (h *host) listenPacket(at netip.AddrPort) (*udpConn, error) {
	wq := new(waiter.Queue)
	ep, terr := h.stack.NewEndpoint(udp.ProtocolNumber, netProto(at.Addr()), wq)
	if terr != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: errnoOf(terr.String())}
	}
	if terr := ep.Bind(fullAddress(at)); terr != nil {
		ep.Close()
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: errnoOf(terr.String())}
	}
	ep.SocketOptions().SetReceiveTTL(true)
	ep.SocketOptions().SetReceiveHopLimit(true)
	bound, _ := ep.GetLocalAddress()
	id := flowID{proto: packet.UDP, local: bound.Port}
	c := &udpConn{UDPConn: gonet.NewUDPConn(wq, ep), ep: ep, wq: wq, h: h, id: id, f: h.open(id, &flowState{}), v6: at.Addr().Is6(),
		local:   net.UDPAddrFromAddrPort(netip.AddrPortFrom(at.Addr(), bound.Port)),
		changed: make(chan struct{}), closed: make(chan struct{})}
	return c, nil
}

func (c *udpConn) LocalAddr() net.Addr { return c.local }

func (c *udpConn) SetTTL(ttl int) error { return setTTL(c.ep, c.v6, ttl) }

func (c *udpConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	return nil
}

func (c *udpConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *udpConn) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer and SetWriteBuffer set how many bytes the stack keeps.
func (c *udpConn) SetReadBuffer(n int) error {
	c.ep.SocketOptions().SetReceiveBufferSize(int64(n), true)
	return nil
}

func (c *udpConn) SetWriteBuffer(n int) error {
	c.ep.SocketOptions().SetSendBufferSize(int64(n), true)
	return nil
}

func (c *udpConn) Close() error {
	c.once.Do(func() {
		c.h.close(c.id)
		close(c.closed)
		c.ep.Close()
	})
	return nil
}

func (c *udpConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, _, from, err := c.ReadTTL(b)
	if err != nil {
		return 0, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// ReadTTL implements wire.PacketConn.
func (c *udpConn) ReadTTL(b []byte) (int, int, netip.AddrPort, error) {
	fail := func(err error) (int, int, netip.AddrPort, error) {
		return 0, 0, netip.AddrPort{}, &net.OpError{Op: "read", Net: "udp", Source: c.local, Err: err}
	}
	we, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp)
	c.wq.EventRegister(&we)
	defer c.wq.EventUnregister(&we)
	for {
		select {
		case <-c.closed:
			return fail(net.ErrClosed)
		default:
		}
		var buf bytes.Buffer
		res, terr := c.ep.Read(&buf, tcpip.ReadOptions{NeedRemoteAddr: true})
		if terr == nil {
			n := copy(b, buf.Bytes())
			ttl := 0
			if res.ControlMessages.HasTTL {
				ttl = int(res.ControlMessages.TTL)
			} else if res.ControlMessages.HasHopLimit {
				ttl = int(res.ControlMessages.HopLimit)
			}
			return n, ttl, netip.AddrPortFrom(addrOf(res.RemoteAddr.Addr), res.RemoteAddr.Port), nil
		}
		if _, block := terr.(*tcpip.ErrWouldBlock); !block {
			if _, gone := terr.(*tcpip.ErrClosedForReceive); gone {
				return fail(net.ErrClosed)
			}
			continue // an ICMP error is no reason to disturb the reader
		}
		c.mu.Lock()
		deadline, changed := c.deadline, c.changed
		c.mu.Unlock()
		var expired <-chan time.Time
		var timer *time.Timer
		if !deadline.IsZero() {
			timer = time.NewTimer(time.Until(deadline))
			expired = timer.C
		}
		select {
		case <-ready:
		case <-changed:
		case <-c.closed:
			return fail(net.ErrClosed)
		case <-expired:
			return fail(os.ErrDeadlineExceeded)
		case <-c.h.w.ctx.Done():
			return fail(net.ErrClosed)
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

func (c *udpConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	ua, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, &net.OpError{Op: "write", Net: "udp", Err: syscall.EINVAL}
	}
	ap := ua.AddrPort()
	ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	if ap.Addr().Is6() != c.v6 {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: addr, Err: syscall.EAFNOSUPPORT}
	}
	if onDevice(ap.Addr()) {
		c.refuse(ap.Addr())
		return len(b), nil
	}
	to := fullAddress(ap)
	n, terr := c.ep.Write(bytes.NewReader(b), tcpip.WriteOptions{To: &to})
	if terr != nil {
		return int(n), &net.OpError{Op: "write", Net: "udp", Addr: addr, Err: errnoOf(terr.String())}
	}
	return int(n), nil
}

// refuse is the device's own answer: nothing listens there.
func (c *udpConn) refuse(by netip.Addr) {
	pe := wire.PathError{From: by, Type: packet.Unreachable4, Code: 3, At: time.Now()}
	if c.v6 {
		pe.Type, pe.Code = packet.Unreachable6, 4
	}
	c.h.mu.Lock()
	if len(c.f.errs) < 64 {
		c.f.errs = append(c.f.errs, pe)
	}
	c.h.mu.Unlock()
}

func (c *udpConn) PathErrors() []wire.PathError {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	out := c.f.errs
	c.f.errs = nil
	return out
}

// capture holds the packets of one flow.
type capture struct {
	h    *host
	flow wire.Flow
	mu   sync.Mutex
	list []wire.Packet
	lost int
}

// Capture implements wire.Network. A client of the lab has the rights of an
// ordinary user unless the world was made with Options.Privileged.
func (h *host) Capture(ctx context.Context, f wire.Flow) (wire.Capture, error) {
	if !h.view.Capture {
		return nil, fmt.Errorf("capturing packets needs a privilege: %w", errors.ErrUnsupported)
	}
	c := &capture{h: h, flow: f}
	h.mu.Lock()
	h.captures[c] = struct{}{}
	h.mu.Unlock()
	return c, nil
}

func (h *host) capturing() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.captures) > 0
}

func (h *host) record(sent bool, p *packet.Packet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if sent && p.Proto == packet.TCP {
		if f := h.flows[flowID{packet.TCP, p.SrcPort, p.Destination()}]; f != nil {
			f.sends(p)
		}
	}
	for c := range h.captures {
		local, remote := p.Source(), p.Destination()
		if !sent {
			local, remote = remote, local
		}
		if p.IsICMPError() {
			if q, err := packet.ParseQuote(p.Quoted); err == nil {
				local, remote = q.Src, q.Dst
			}
		}
		if remote == c.flow.Remote && (!c.flow.Local.IsValid() || c.flow.Local.Port() == 0 || local.Port() == c.flow.Local.Port()) {
			c.mu.Lock()
			if len(c.list) < 100_000 {
				c.list = append(c.list, wire.Packet{At: time.Now(), Sent: sent, Data: append([]byte(nil), p.Raw...)})
			} else {
				c.lost++
			}
			c.mu.Unlock()
		}
	}
}

func (c *capture) Packets() []wire.Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]wire.Packet(nil), c.list...)
}

// Take implements wire.Capture.
func (c *capture) Take() (list []wire.Packet, lost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list, lost = c.list, c.lost
	c.list, c.lost = nil, 0
	return list, lost
}

func (c *capture) Close() error {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	delete(c.h.captures, c)
	return nil
}

// Lookup implements wire.Network.
func (h *host) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	if h.lookup == nil {
		return nil, fmt.Errorf("this host has no resolver: %w", errors.ErrUnsupported)
	}
	return h.lookup(ctx, name)
}

// Roots implements wire.Network.
func (h *host) Roots() (*x509.CertPool, error) { return h.roots, nil }

// View implements wire.Network.
func (h *host) View() measure.View { return h.view }

func dialSpec(remote netip.AddrPort) wire.DialSpec {
	return wire.DialSpec{Flow: wire.Flow{Remote: remote}}
}
