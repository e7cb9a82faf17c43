//go:build !linux

package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"govah/measure"
	"govah/wire"
)

// look: outside Linux only the sending TTL can be set without privilege. What
// comes back (routers' addresses, received TTLs, ICMP on a connection) is not
// told to a program.
func look() measure.View {
	return measure.View{SetTTL: true}
}

// Dial opens a TCP connection. The TTL of a SYN cannot be set before it
// leaves in a way that is the same on these systems, so it is refused.
func (n *Network) Dial(ctx context.Context, spec wire.DialSpec) (wire.Conn, error) {
	if err := checkDial(spec); err != nil {
		return nil, err
	}
	switch {
	case spec.MinTTL != 0:
		return nil, unsupported("dropping segments by TTL")
	case spec.MSS != 0:
		return nil, unsupported("lowering the segment size")
	}
	d := net.Dialer{LocalAddr: tcpAddr(spec.Local), KeepAlive: -1, Control: controlTTL(spec)}
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, network("tcp", spec.Remote.Addr()), spec.Remote.String())
	if err != nil {
		return nil, err
	}
	return &conn{TCPConn: c.(*net.TCPConn), v4: spec.Remote.Addr().Unmap().Is4()}, nil
}

type conn struct {
	*net.TCPConn
	v4 bool
}

func (c *conn) SetTTL(ttl int) error {
	if c.v4 {
		return ipv4.NewConn(c.TCPConn).SetTTL(ttl)
	}
	return ipv6.NewConn(c.TCPConn).SetHopLimit(ttl)
}

func (c *conn) SetMinTTL(int) error          { return unsupported("dropping segments by TTL") }
func (c *conn) PathErrors() []wire.PathError { return nil }
func (c *conn) Info() (wire.Info, error) {
	return wire.Info{}, unsupported("asking about a connection")
}
func (c *conn) Abort() error { return abort(c.TCPConn) }

// ListenPacket opens a UDP socket.
func (n *Network) ListenPacket(ctx context.Context, local netip.AddrPort) (wire.PacketConn, error) {
	if !local.IsValid() {
		local = netip.AddrPortFrom(netip.IPv4Unspecified(), local.Port())
	}
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(ctx, network("udp", local.Addr()), local.String())
	if err != nil {
		return nil, err
	}
	return &packetConn{udp: pc.(*net.UDPConn), v4: local.Addr().Unmap().Is4()}, nil
}

type packetConn struct {
	udp *net.UDPConn
	v4  bool
}

func (c *packetConn) Close() error                       { return c.udp.Close() }
func (c *packetConn) LocalAddr() net.Addr                { return c.udp.LocalAddr() }
func (c *packetConn) SetDeadline(t time.Time) error      { return c.udp.SetDeadline(t) }
func (c *packetConn) SetReadDeadline(t time.Time) error  { return c.udp.SetReadDeadline(t) }
func (c *packetConn) SetWriteDeadline(t time.Time) error { return c.udp.SetWriteDeadline(t) }
func (c *packetConn) SetReadBuffer(n int) error          { return c.udp.SetReadBuffer(n) }
func (c *packetConn) SetWriteBuffer(n int) error         { return c.udp.SetWriteBuffer(n) }

func (c *packetConn) SetTTL(ttl int) error {
	if c.v4 {
		return ipv4.NewConn(c.udp).SetTTL(ttl)
	}
	return ipv6.NewConn(c.udp).SetHopLimit(ttl)
}

func (c *packetConn) PathErrors() []wire.PathError { return nil }

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, _, from, err := c.ReadTTL(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

func (c *packetConn) ReadTTL(b []byte) (int, int, netip.AddrPort, error) {
	for i := 0; ; i++ {
		n, from, err := c.udp.ReadFromUDPAddrPort(b)
		if err != nil && fromICMP(err) && i < 1000 {
			continue // Windows tells of port unreachable here, as a reset
		}
		return n, 0, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
	}
}

func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	ua, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("host: write to %v: no UDP address", to)
	}
	return c.udp.WriteToUDP(b, ua)
}

// Capture needs privilege and an interface of its own on each of these systems.
func (n *Network) Capture(context.Context, wire.Flow) (wire.Capture, error) {
	return nil, unsupported("capturing packets")
}

// fromICMP says that reading failed for an ICMP error about an earlier datagram.
func fromICMP(err error) bool {
	f, _ := wire.Classify(err)
	switch f {
	case measure.ConnectionReset, measure.ConnectionRefused, measure.HostUnreachable, measure.NetworkUnreachable:
		return !errors.Is(err, net.ErrClosed)
	}
	return false
}
