// Package wire takes the recorded steps of a measurement - dns, tcp, tls,
// http, quic - on a Network, which is the kernel's (package wire/host) or one
// client of an emulated internet (package lab).
package wire

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"govah/measure"
)

// Network is a place to measure from: this host or one client of a lab.
// Nothing else opens a client socket. Addresses are numeric: resolving is a
// step of its own. What a Network cannot do wraps errors.ErrUnsupported.
type Network interface {
	// Dial opens a TCP connection. If ICMP ended the attempt, the error wraps
	// *PathError.
	Dial(ctx context.Context, spec DialSpec) (Conn, error)
	// ListenPacket opens a UDP socket. The zero port means any.
	ListenPacket(ctx context.Context, local netip.AddrPort) (PacketConn, error)
	// Capture records both directions of f and ICMP quoting it; it is started
	// before Dial. Without a local port it sees what others on this device say
	// to f.Remote: who asks sorts that out.
	Capture(ctx context.Context, f Flow) (Capture, error)
	// Lookup asks the operating system's resolver for A and AAAA.
	Lookup(ctx context.Context, name string) ([]netip.Addr, error)
	// Roots is what this system trusts; only to verify with.
	Roots() (*x509.CertPool, error)
	// View is what can honestly be observed here; stored in each measurement.
	View() measure.View
}

// Flow is a 4-tuple; the zero Local means that the system chooses.
type Flow struct{ Local, Remote netip.AddrPort }

// DialSpec says how to connect. TTL and MinTTL hold from the SYN on; 0 is the
// system's default. MSS, if not 0, lowers the maximum segment size, in bytes.
type DialSpec struct {
	Flow
	TTL, MinTTL int
	MSS         int
}

// Conn is a TCP connection whose path can be observed.
type Conn interface {
	net.Conn
	SetTTL(int) error        // from the next segment on, retransmissions included
	SetMinTTL(int) error     // arriving segments below it are dropped unseen
	PathErrors() []PathError // ICMP since the last call; never disturbs Read or Write
	Info() (Info, error)
	Abort() error // RST at the current TTL; frees the source port
}

// PacketConn is a UDP socket. ReadFrom never returns an ICMP error: a QUIC
// connection would close on it.
type PacketConn interface {
	net.PacketConn
	SetTTL(int) error
	// ReadTTL is ReadFrom with the TTL of the datagram as it arrived, 0 where
	// the system does not tell.
	ReadTTL(b []byte) (n, ttl int, from netip.AddrPort, err error)
	PathErrors() []PathError
}

// Capture holds packets of one flow.
type Capture interface {
	// Packets are the raw IP packets so far, in order.
	Packets() []Packet
	// Take gives those packets and forgets them; lost is how many did not find
	// room since the last call.
	Take() (list []Packet, lost int)
	Close() error
}

// Packet is one captured IP packet.
type Packet struct {
	At   time.Time
	Sent bool // by us
	Data []byte
}

// PathError is an ICMP error that quoted a packet of this socket.
type PathError struct {
	From   netip.Addr // invalid: the system hides it, which is not "no router"
	Type   uint8      // ICMPv4's or, for IPv6 flows, ICMPv6's
	Code   uint8
	Quoted []byte // of the offending packet, if the system tells
	// To is where the quoted packet was addressed to when the router ended it:
	// not where it was sent to if it was redirected and the error was not
	// translated back. Invalid: the system does not tell.
	To netip.AddrPort
	At time.Time
}

func (e *PathError) Error() string {
	from := "an address this system hides"
	if e.From.IsValid() {
		from = e.From.String()
	}
	return fmt.Sprintf("icmp type %d code %d from %s", e.Type, e.Code, from)
}

// Info is what the stack knows of a connection.
type Info struct {
	RTT, RTO    time.Duration
	Unacked     int // segments
	Retransmits int // in total
	MSS         int // bytes, for sending
}

// errno is the error that Linux reports to a socket connected to remote for
// the ICMP error (icmp_err_convert, tab_unreach), 0 where it reports none.
func (e *PathError) errno(remote netip.Addr) syscall.Errno {
	if remote.Unmap().Is4() {
		if e.Type != 3 {
			return 0
		}
		switch e.Code {
		case 3:
			return syscall.ECONNREFUSED
		case 4: // fragmentation needed
			return 0
		case 0, 6, 9, 11:
			return syscall.ENETUNREACH
		}
		return syscall.EHOSTUNREACH
	}
	if e.Type != 1 {
		return 0
	}
	switch e.Code {
	case 0:
		return syscall.ENETUNREACH
	case 1, 5, 6:
		return syscall.EACCES
	case 4:
		return syscall.ECONNREFUSED
	}
	return syscall.EHOSTUNREACH
}

// Sleep waits for d, or until ctx ends.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
