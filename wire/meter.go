package wire

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"govah/measure"
)

// leastSilence is how long a peer must be silent, at least, before silence is
// recorded: two retransmissions fit into it on all but very slow paths.
const leastSilence = 2 * time.Second

// silenceFor is max(2 s, 8 RTT) of a connection.
func silenceFor(c net.Conn) time.Duration {
	info, _ := infoOf(c)
	return max(leastSilence, 8*info.RTT)
}

// meter is a connection as the steps use it: it counts bytes, knows when they
// came, and bounds every wait. Its limits are set by one step at a time.
type meter struct {
	net.Conn
	sent, received atomic.Int64

	mu       sync.Mutex
	records  records
	silence  time.Duration // the longest wait for the next byte, 0: none
	patience time.Duration // the same while waiting is worth it
	until    time.Time     // the end of the step
	ended    bool          // by the caller's context
	mark     time.Time     // of the last begin
	first    time.Time     // of the first byte of the answer
	resent   int           // segments retransmitted before the step
}

// limits bound the waits of one step.
type limits struct {
	total    time.Duration
	silence  time.Duration
	patience time.Duration
}

// begin starts a step with its limits. The returned function ends the step:
// it must be called before the next one begins.
func (m *meter) begin(ctx context.Context, l limits) (end func()) {
	now := time.Now()
	info, _ := infoOf(m.Conn)
	m.mu.Lock()
	m.resent = info.Retransmits
	m.until, m.silence, m.patience = now.Add(l.total), l.silence, l.patience
	m.mark, m.first, m.ended = now, time.Time{}, false
	m.mu.Unlock()
	m.Conn.SetWriteDeadline(now.Add(l.total))
	stop := context.AfterFunc(ctx, func() {
		m.mu.Lock()
		m.ended = true
		m.mu.Unlock()
		m.Conn.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			return // cut short: the connection stays unusable
		}
		m.mu.Lock()
		m.until, m.silence, m.patience = time.Time{}, 0, 0
		m.mu.Unlock()
		m.Conn.SetDeadline(time.Time{})
	}
}

// awaiting changes the limits on silence within a step.
func (m *meter) awaiting(silence, patience time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.silence, m.patience = silence, patience
}

// request marks the moment a request was sent.
func (m *meter) request() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mark, m.first = time.Now(), time.Time{}
}

// answered marks the moment the first byte of the answer was there. Bytes
// alone do not tell: session tickets and settings come by themselves.
func (m *meter) answered() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first.IsZero() {
		m.first = time.Now()
	}
}

// firstByte is the time from the request to its answer, 0 if none.
func (m *meter) firstByte() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first.IsZero() {
		return 0
	}
	return m.first.Sub(m.mark)
}

func (m *meter) arm(from time.Time, wait time.Duration) {
	m.mu.Lock()
	at := m.until
	if wait > 0 {
		if t := from.Add(wait); at.IsZero() || t.Before(at) {
			at = t
		}
	}
	m.mu.Unlock()
	m.Conn.SetReadDeadline(at)
	m.mu.Lock()
	ended := m.ended
	m.mu.Unlock()
	if ended {
		m.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// Read waits for the peer as long as the limits of the step allow.
func (m *meter) Read(b []byte) (int, error) {
	from := time.Now()
	m.mu.Lock()
	silence, patience, until := m.silence, m.patience, m.until
	m.mu.Unlock()
	m.arm(from, silence)
	n, err := m.Conn.Read(b)
	if n == 0 && patience > silence && errors.Is(err, os.ErrDeadlineExceeded) &&
		time.Now().Before(until) && m.worthWaiting() {
		m.arm(from, patience)
		n, err = m.Conn.Read(b)
	}
	if n > 0 {
		m.received.Add(int64(n))
		m.mu.Lock()
		m.records.add(b[:n])
		m.mu.Unlock()
	}
	return n, err
}

// worthWaiting says that silence proves nothing yet: the peer's stack has all
// that was sent, so it is only slow; or what it lacks was not sent three times
// in all. Where this is not known the peer gets the benefit of the doubt.
func (m *meter) worthWaiting() bool {
	m.mu.Lock()
	ended, resent := m.ended, m.resent
	m.mu.Unlock()
	if ended {
		return false
	}
	info, ok := infoOf(m.Conn)
	return !ok || info.Unacked == 0 || info.Retransmits-resent < 2
}

func infoOf(c net.Conn) (Info, bool) {
	i, ok := c.(interface{ Info() (Info, error) })
	if !ok {
		return Info{}, false
	}
	info, err := i.Info()
	return info, err == nil
}

// Write counts what the transport took.
func (m *meter) Write(b []byte) (int, error) {
	n, err := m.Conn.Write(b)
	m.sent.Add(int64(n))
	return n, err
}

// addrPort is the numeric form of an address of the net package, or zero.
func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		if a != nil {
			return unmapPort(a.AddrPort())
		}
	case *net.UDPAddr:
		if a != nil {
			return unmapPort(a.AddrPort())
		}
	}
	return netip.AddrPort{}
}

func unmapPort(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// setRemote fills in the fields that follow from the peer's address.
func setRemote(l *Log, o *measure.Observation, remote netip.AddrPort) {
	if !remote.IsValid() {
		return
	}
	o.Remote = remote.String()
	o.ASN = l.ASN(remote.Addr().String())
	o.Family = FamilyOf(remote.Addr())
}

// FamilyOf is the family of an address; an IPv4-mapped one is IPv4.
func FamilyOf(a netip.Addr) measure.Family {
	if a.Unmap().Is4() {
		return measure.IPv4
	}
	return measure.IPv6
}

// pathErrors records ICMP errors.
func pathErrors(l *Log, list []PathError) []measure.ICMP {
	var out []measure.ICMP
	for _, e := range list {
		if len(out) == 16 {
			break
		}
		out = append(out, *ICMPOf(l, &e))
	}
	return out
}

// ICMPOf records an ICMP error.
func ICMPOf(l *Log, e *PathError) *measure.ICMP {
	m := &measure.ICMP{Type: int(e.Type), Code: int(e.Code), AtUS: l.Since(e.At)}
	if e.From.IsValid() {
		m.From = e.From.String()
		m.ASN = l.ASN(m.From)
	}
	return m
}

// stack records what the stack and the path said of a connection.
func stack(l *Log, o *measure.Observation, c net.Conn) {
	conn, ok := c.(Conn)
	if !ok {
		return
	}
	t := o.TCP
	if t == nil {
		t = &measure.TCP{}
	}
	if info, err := conn.Info(); err == nil {
		t.RTTUS, t.Retransmits = info.RTT.Microseconds(), info.Retransmits
	}
	t.ICMP = append(t.ICMP, pathErrors(l, conn.PathErrors())...)
	if t.RTTUS != 0 || t.Retransmits != 0 || t.ICMP != nil {
		o.TCP = t
	}
}
