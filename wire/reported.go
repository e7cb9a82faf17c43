package wire

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"govah/measure"
)

// What the kernel tells of a socket, kept while the steps use it. Everything
// that they ask for is passed on unchanged.

// maxReported bounds the ICMP errors, and the TTLs, of one socket.
const maxReported = 16

// reported is what is known of one socket so far.
type reported struct {
	t      *Trace
	opened time.Time

	mu   sync.Mutex
	m    measure.Connection
	left []PathError // taken from the kernel before the step asked
}

func (r *reported) saw(list []PathError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range list {
		if len(r.m.ICMP) == maxReported {
			return
		}
		i := measure.ICMP{Type: int(e.Type), Code: int(e.Code), AtUS: e.At.Sub(r.opened).Microseconds()}
		if e.From.IsValid() {
			i.From = e.From.String()
		}
		r.m.ICMP = append(r.m.ICMP, i)
	}
}

// hand gives the step its errors, with those that were held for it.
func (r *reported) hand(list []PathError) []PathError {
	r.saw(list)
	r.mu.Lock()
	defer r.mu.Unlock()
	list, r.left = append(r.left, list...), nil
	return list
}

func (r *reported) hold(list []PathError) {
	r.saw(list)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = append(r.left, list...)
}

func (r *reported) moved(sent, received int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.m.Sent += int64(max(0, sent))
	r.m.Received += int64(max(0, received))
}

// report is the whole, at the end.
func (r *reported) report() measure.Connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.m
	m.Opened = r.opened.Add(r.t.skew).UTC().Format("2006-01-02T15:04:05.000000Z")
	m.TookUS = time.Since(r.opened).Microseconds()
	return m
}

func connectionLine(m *measure.Connection) ([]byte, error) {
	line, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("a kernel's report: %w", err)
	}
	return append(line, '\n'), nil
}

// reportedConn is a TCP connection of which the kernel's reports are kept.
type reportedConn struct {
	Conn
	reported
}

func (c *reportedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.moved(0, n)
	return n, err
}

func (c *reportedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.moved(n, 0)
	return n, err
}

func (c *reportedConn) PathErrors() []PathError { return c.hand(c.Conn.PathErrors()) }

// last asks for what can be known until the socket is closed.
func (c *reportedConn) last() {
	c.hold(c.Conn.PathErrors())
	info, err := c.Conn.Info()
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m.RTTUS, c.m.RTOUS, c.m.MSS = info.RTT.Microseconds(), info.RTO.Microseconds(), info.MSS
	c.m.Retransmits, c.m.Unacked = info.Retransmits, info.Unacked
}

func (c *reportedConn) Close() error {
	c.last()
	err := c.Conn.Close()
	c.t.ended(c)
	return err
}

func (c *reportedConn) Abort() error {
	c.last()
	err := c.Conn.Abort()
	c.t.ended(c)
	return err
}

// reportedPacketConn is the same for UDP.
type reportedPacketConn struct {
	PacketConn
	reported
}

func (c *reportedPacketConn) SetTTL(ttl int) error {
	err := c.PacketConn.SetTTL(ttl)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && c.m.Remote == "" {
		c.m.TTL = ttl
	}
	return err
}

func (c *reportedPacketConn) WriteTo(b []byte, to net.Addr) (int, error) {
	n, err := c.PacketConn.WriteTo(b, to)
	c.moved(n, 0)
	c.mu.Lock()
	defer c.mu.Unlock()
	if remote := addrPort(to); c.m.Remote == "" && remote.IsValid() {
		c.m.Remote = remote.String()
	}
	return n, err
}

func (c *reportedPacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, _, from, err := c.ReadTTL(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

func (c *reportedPacketConn) ReadTTL(b []byte) (int, int, netip.AddrPort, error) {
	n, ttl, from, err := c.PacketConn.ReadTTL(b)
	c.moved(0, n)
	if err == nil && ttl > 0 {
		c.mu.Lock()
		if len(c.m.TTLs) < maxReported && !slices.Contains(c.m.TTLs, ttl) {
			c.m.TTLs = append(c.m.TTLs, ttl)
		}
		c.mu.Unlock()
	}
	return n, ttl, from, err
}

func (c *reportedPacketConn) PathErrors() []PathError { return c.hand(c.PacketConn.PathErrors()) }

func (c *reportedPacketConn) Close() error {
	c.hold(c.PacketConn.PathErrors())
	err := c.PacketConn.Close()
	c.t.ended(c)
	return err
}
