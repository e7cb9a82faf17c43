package wire

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"govah/measure"
)

// connectTimeout lets a SYN be retransmitted twice (after 1 s and 3 s, RFC
// 6298) and the answer to the last one arrive.
const connectTimeout = 3400 * time.Millisecond

// ConnectSpec says how to connect. Zero values are the system's defaults.
type ConnectSpec struct {
	Remote, Local    netip.AddrPort
	TTL, MinTTL, MSS int
	// Timeout 0 means 3.4 s, in which two retransmissions of the SYN fit.
	Timeout time.Duration
}

// Connect takes one TCP connect. The Conn is nil on failure.
func Connect(ctx context.Context, n Network, l *Log, m Meta, spec ConnectSpec) (Conn, *measure.Observation) {
	o := l.Begin(measure.StepTCP, m)
	defer l.End(o)
	setRemote(l, o, spec.Remote)
	o.TTL, o.MSS = spec.TTL, spec.MSS
	conn, err := dial(l.About(ctx, o), n, spec)
	o.TookUS = l.Since(time.Now()) - o.StartUS
	if err != nil {
		fail(ctx, o, err)
		var pe *PathError
		if errors.As(err, &pe) {
			o.TCP = &measure.TCP{ICMP: []measure.ICMP{*ICMPOf(l, pe)}}
		}
		return nil, o
	}
	stack(l, o, conn)
	if o.TCP == nil {
		o.TCP = &measure.TCP{}
	}
	if o.TCP.RTTUS == 0 {
		o.TCP.RTTUS = o.TookUS
	}
	return conn, o
}

func dial(ctx context.Context, n Network, spec ConnectSpec) (Conn, error) {
	if spec.Timeout == 0 {
		spec.Timeout = connectTimeout
	}
	limited, cancel := context.WithTimeout(ctx, spec.Timeout)
	defer cancel()
	conn, err := n.Dial(limited, DialSpec{
		Flow: Flow{Local: spec.Local, Remote: spec.Remote},
		TTL:  spec.TTL, MinTTL: spec.MinTTL, MSS: spec.MSS,
	})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// SYN sends one TTL-limited SYN (retransmitted by the stack as any other
// until timeout) and records what answered it: expired, connected, reset,
// unreachable or silent. Only silence, and what kept the probe from leaving,
// is a failure. Probes with one Local port are one flow.
func SYN(ctx context.Context, n Network, l *Log, m Meta, spec ConnectSpec) *measure.Observation {
	o := l.Begin(measure.StepPath, m)
	defer l.End(o)
	setRemote(l, o, spec.Remote)
	o.TTL = spec.TTL
	o.Path, o.Failure, o.Detail = SendSYN(l.About(ctx, o), n, l, spec)
	return o
}

// SendSYN is SYN without an observation of its own: for a probe that is sent
// more than once.
func SendSYN(ctx context.Context, n Network, l *Log, spec ConnectSpec) (p *measure.Path, failure measure.Failure, detail string) {
	p = &measure.Path{Probe: "syn", Outcome: "silent", LocalPort: int(spec.Local.Port()), MinTTL: spec.MinTTL}
	started := time.Now()
	conn, err := dial(ctx, n, spec)
	p.RTTUS = time.Since(started).Microseconds()
	if err == nil {
		p.Outcome = "connected"
		conn.Abort()
		return p, measure.NoFailure, ""
	}
	var pe *PathError
	failure, detail = Classify(err)
	switch {
	case errors.As(err, &pe):
		p.ICMP = ICMPOf(l, pe)
		p.Outcome = "unreachable"
		if pe.Expired(spec.Remote.Addr()) {
			p.Outcome = "expired"
		}
	case failure == measure.ConnectionRefused || failure == measure.ConnectionReset:
		p.Outcome = "reset"
	case failure == measure.HostUnreachable:
		// Linux says so for each ICMP error; which one it was is not known.
		p.Outcome = "unreachable"
	default:
		p.RTTUS = 0
		if ctx.Err() != nil && (failure == measure.GenericTimeout || errors.Is(err, net.ErrClosed)) {
			failure = measure.Interrupted
		}
		return p, failure, detail
	}
	return p, measure.NoFailure, ""
}

// Expired says that the error is a time exceeded in transit (RFC 792, RFC
// 4443) for a flow to that address.
func (e *PathError) Expired(remote netip.Addr) bool {
	if remote.Unmap().Is4() {
		return e.Type == 11
	}
	return e.Type == 3
}
