package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"govah/measure"
	"govah/packet"
)

// Bounds of a trace.
const (
	// traceWhole is how many bytes of packets each way of a flow are kept
	// whole: handshakes, certificates, block pages. Of what follows traceHead
	// bytes of each packet are: its headers.
	traceWhole = 32 << 10
	traceHead  = 128
	// traceMost bounds all that is kept, in bytes; beyond half of it only
	// headers are.
	traceMost = 64 << 20
	// traceFlows bounds the flows whose bytes are counted.
	traceFlows = 1 << 16
	// traceEvery is how often what the kernel captured is fetched, traceLate
	// for how long after a socket was closed: a reset may come late.
	traceEvery = 50 * time.Millisecond
	traceLate  = time.Second
)

// TraceKind is where the packets of a trace come from.
type TraceKind string

// The kinds.
const (
	// TraceTap: whoever emulates the network hands over every packet (Tap).
	TraceTap TraceKind = "tap"
	// TraceCapture: each socket's own flow is captured, with the privilege to.
	TraceCapture TraceKind = "capture"
	// TraceKernel: without it there are no packets, only what the kernel
	// reports of each socket.
	TraceKernel TraceKind = "kernel"
)

// Trace keeps what passes between a run and the network: the packets of the
// sockets opened through Network, and nobody else's, as pcapng; or what the
// kernel tells of them, one measure.Connection a line. Memory and size are
// bounded; what did not fit is counted. A failure to write does not disturb
// the run: Close returns it.
type Trace struct {
	kind TraceKind
	run  string
	skew time.Duration // of the run's clock

	mu      sync.Mutex
	w       io.Writer
	out     *packet.CaptureWriter
	err     error
	closed  bool
	sum     TraceSum
	bytes   int64
	labels  map[flowEnd]string
	spent   map[flowWay]int64
	flows   map[*tracedFlow]struct{}
	conns   map[reporter]struct{}
	pending []tracedPacket
	stop    chan struct{}
	done    chan struct{}
}

// TraceSum is what a trace holds.
type TraceSum struct {
	Kind    TraceKind
	Packets int // or connections
	Cut     int // packets of which only the first bytes are kept
	Lost    int // packets or connections that are missing
}

// flowEnd is a socket of ours; flowWay one direction of one flow.
type flowEnd struct {
	proto uint8
	v6    bool
	port  uint16
}

type flowWay struct {
	end    flowEnd
	remote netip.AddrPort
	sent   bool
}

type tracedPacket struct {
	Packet
	label string
}

type reporter interface{ report() measure.Connection }

// NewTrace begins a trace in w. now is the run's clock.
func NewTrace(w io.Writer, kind TraceKind, run string, now func() time.Time) (*Trace, error) {
	t := &Trace{kind: kind, run: run, w: w, skew: time.Until(now()), sum: TraceSum{Kind: kind},
		labels: map[flowEnd]string{}, spent: map[flowWay]int64{}, flows: map[*tracedFlow]struct{}{}, conns: map[reporter]struct{}{},
		stop: make(chan struct{}), done: make(chan struct{})}
	if kind != TraceKernel {
		var err error
		if t.out, err = packet.NewCaptureWriter(w); err != nil {
			return nil, err
		}
	}
	go t.fetch()
	return t, nil
}

// Network is n, traced.
func (t *Trace) Network(n Network) Network { return &traced{Network: n, t: t} }

// Tap takes a packet at the run's end, which is copied if it is kept.
func (t *Trace) Tap(sent bool, raw []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keep(Packet{At: time.Now(), Sent: sent, Data: raw}, "")
}

// keep writes a packet, or as much of it as there is room for. t is locked.
func (t *Trace) keep(c Packet, label string) {
	if t.closed || t.err != nil {
		return
	}
	n, way := len(c.Data), flowWay{sent: c.Sent}
	keep := n
	if p, err := packet.Parse(c.Data); err == nil {
		near, far := p.Destination(), p.Source()
		if c.Sent {
			near, far = far, near
		}
		proto, icmp := p.Proto, p.IsICMPError()
		if icmp {
			if q, err := packet.ParseQuote(p.Quoted); err == nil {
				near, far, proto = q.Src, q.Dst, q.Proto
			}
		}
		way.end, way.remote = flowEnd{proto, near.Addr().Is6(), near.Port()}, far
		if label == "" {
			label = t.labels[way.end]
		}
		if spent, known := t.spent[way]; !icmp && (spent > traceWhole || !known && len(t.spent) == traceFlows) {
			keep = min(n, traceHead)
		}
	}
	if t.bytes > traceMost/2 {
		keep = min(keep, traceHead)
	}
	if t.bytes+int64(keep) > traceMost {
		t.sum.Lost++
		return
	}
	if _, known := t.spent[way]; known || len(t.spent) < traceFlows {
		t.spent[way] += int64(n)
	}
	t.bytes += int64(keep)
	d := packet.Inbound
	if c.Sent {
		d = packet.Outbound
	}
	if t.err = t.out.WriteCut(c.At.Add(t.skew), c.Data[:keep], n, d, label); t.err != nil {
		return
	}
	t.sum.Packets++
	if keep < n {
		t.sum.Cut++
	}
}

// name remembers what a socket is for.
func (t *Trace) name(proto uint8, local netip.AddrPort, label string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.labels[flowEnd{proto, !local.Addr().Unmap().Is4(), local.Port()}] = label
}

// fetch moves packets from the captures to the file, until stop.
func (t *Trace) fetch() {
	defer close(t.done)
	if t.kind != TraceCapture {
		return
	}
	tick := time.NewTicker(traceEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			t.drain(false)
		case <-t.stop:
			return
		}
	}
}

// drain writes what was captured before now, in the order of time; last: all
// of it, and the captures end.
func (t *Trace) drain(last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for f := range t.flows {
		over := last || !f.ended.IsZero() && now.Sub(f.ended) > traceLate
		if over {
			f.capture.Close() // which waits for what is under way
		}
		list, lost := f.capture.Take()
		t.sum.Lost += lost
		for _, p := range list {
			t.pending = append(t.pending, tracedPacket{p, f.label})
		}
		if over {
			delete(t.flows, f)
		}
	}
	slices.SortStableFunc(t.pending, func(a, b tracedPacket) int { return a.At.Compare(b.At) })
	n := 0
	for ; n < len(t.pending) && (last || t.pending[n].At.Before(now)); n++ {
		t.keep(t.pending[n].Packet, t.pending[n].label)
	}
	t.pending = slices.Delete(t.pending, 0, n)
}

// Close ends the trace and says what it holds. Nothing is added after it.
func (t *Trace) Close() (TraceSum, error) {
	t.mu.Lock()
	if t.closed {
		defer t.mu.Unlock()
		return t.sum, t.err
	}
	t.mu.Unlock()
	close(t.stop)
	<-t.done
	t.drain(true)
	t.mu.Lock()
	open := make([]reporter, 0, len(t.conns))
	for c := range t.conns {
		open = append(open, c)
	}
	t.mu.Unlock()
	for _, c := range open {
		t.ended(c)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.err == nil && t.out != nil {
		comment := fmt.Sprintf("govah run %s, its own packets (%s): the first %d bytes each way of a flow are kept whole, then %d bytes of each packet (%d were cut)",
			t.run, t.kind, traceWhole, traceHead, t.sum.Cut)
		t.err = t.out.Statistics(time.Now().Add(t.skew), uint64(t.sum.Packets+t.sum.Lost), uint64(t.sum.Lost), comment)
	}
	if t.err != nil {
		return t.sum, fmt.Errorf("keeping the packets of the run: %w", t.err)
	}
	return t.sum, nil
}

// ended writes what the kernel told of a socket, once.
func (t *Trace) ended(c reporter) {
	t.mu.Lock()
	_, open := t.conns[c]
	delete(t.conns, c)
	t.mu.Unlock()
	if !open {
		return
	}
	t.write(c.report())
}

// write appends a report.
func (t *Trace) write(m measure.Connection) {
	m.Type, m.Schema, m.Run, m.Source = "connection", 1, t.run, "kernel"
	t.mu.Lock()
	defer t.mu.Unlock()
	line, err := connectionLine(&m)
	switch {
	case t.closed || t.err != nil:
		return
	case err != nil:
		t.err = err
		return
	case t.bytes+int64(len(line)) > traceMost:
		t.sum.Lost++
		return
	}
	if _, t.err = t.w.Write(line); t.err == nil {
		t.bytes += int64(len(line))
		t.sum.Packets++
	}
}

// tracedFlow is one socket's capture.
type tracedFlow struct {
	label   string
	capture Capture
	ended   time.Time
}

// capture begins to capture a flow; nil if it cannot be.
func (t *Trace) capture(ctx context.Context, n Network, f Flow, label string) *tracedFlow {
	c, err := n.Capture(ctx, f)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil || t.closed {
		t.sum.Lost++
		if err == nil {
			c.Close()
		}
		return nil
	}
	x := &tracedFlow{label: label, capture: c}
	t.flows[x] = struct{}{}
	return x
}

// over lets a flow's capture end a little later.
func (t *Trace) over(f *tracedFlow) {
	if f == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.ended.IsZero() {
		f.ended = time.Now()
	}
}

// traced is a Network whose sockets are traced.
type traced struct {
	Network
	t *Trace
}

// Dial implements Network.
func (n *traced) Dial(ctx context.Context, spec DialSpec) (Conn, error) {
	label, opened := labelIn(ctx), time.Now()
	switch n.t.kind {
	case TraceTap:
		return n.Network.Dial(OnBound(ctx, func(at netip.AddrPort) { n.t.name(packet.TCP, at, label) }), spec)
	case TraceCapture:
		var flow *tracedFlow
		conn, err := n.Network.Dial(OnBound(ctx, func(at netip.AddrPort) {
			n.t.over(flow) // an attempt that the system makes again
			flow = n.t.capture(ctx, n.Network, Flow{Local: at, Remote: spec.Remote}, label)
		}), spec)
		if err != nil {
			n.t.over(flow)
			return nil, err
		}
		return &capturedConn{Conn: conn, t: n.t, flow: flow}, nil
	}
	// The local address is not asked for in advance: an ordinary user's
	// connections are made as they are without a trace.
	c := &reportedConn{reported: reported{t: n.t, opened: opened,
		m: measure.Connection{About: label, Transport: "tcp", Remote: spec.Remote.String(), TTL: spec.TTL, MinTTL: spec.MinTTL}}}
	conn, err := n.Network.Dial(ctx, spec)
	if err != nil {
		c.m.Failure, _ = Classify(err)
		var pe *PathError
		if errors.As(err, &pe) {
			c.saw([]PathError{*pe})
		}
		n.t.write(c.report())
		return nil, err
	}
	c.Conn, c.m.Local = conn, addrPort(conn.LocalAddr()).String()
	n.t.opened(c)
	return c, nil
}

// ListenPacket implements Network.
func (n *traced) ListenPacket(ctx context.Context, local netip.AddrPort) (PacketConn, error) {
	label, opened := labelIn(ctx), time.Now()
	pc, err := n.Network.ListenPacket(ctx, local)
	if err != nil {
		return nil, err
	}
	at := addrPort(pc.LocalAddr())
	switch n.t.kind {
	case TraceTap:
		n.t.name(packet.UDP, at, label)
		return pc, nil
	case TraceCapture:
		return &capturedPacketConn{PacketConn: pc, n: n, label: label, local: at, flows: map[netip.AddrPort]*tracedFlow{}}, nil
	}
	c := &reportedPacketConn{PacketConn: pc, reported: reported{t: n.t, opened: opened, m: measure.Connection{About: label, Transport: "udp", Local: at.String()}}}
	n.t.opened(c)
	return c, nil
}

// Lookup implements Network: where the emulated system's resolver runs on the
// same sockets its packets are named too.
func (n *traced) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	if label := labelIn(ctx); n.t.kind == TraceTap && label != "" {
		ctx = OnBound(ctx, func(at netip.AddrPort) { n.t.name(packet.UDP, at, label) })
	}
	return n.Network.Lookup(ctx, name)
}

func (t *Trace) opened(c reporter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns[c] = struct{}{}
}

// capturedConn tells when it is closed.
type capturedConn struct {
	Conn
	t    *Trace
	flow *tracedFlow
}

func (c *capturedConn) Close() error {
	defer c.t.over(c.flow)
	return c.Conn.Close()
}

func (c *capturedConn) Abort() error {
	defer c.t.over(c.flow)
	return c.Conn.Abort()
}

// maxTracedPeers bounds the peers of one UDP socket that are captured; ours
// have one.
const maxTracedPeers = 64

// capturedPacketConn captures what is said with each peer that is written to.
type capturedPacketConn struct {
	PacketConn
	n     *traced
	label string
	local netip.AddrPort

	mu    sync.Mutex
	flows map[netip.AddrPort]*tracedFlow
}

func (c *capturedPacketConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if remote := addrPort(to); remote.IsValid() {
		c.mu.Lock()
		if _, known := c.flows[remote]; !known && len(c.flows) < maxTracedPeers {
			c.flows[remote] = c.n.t.capture(context.Background(), c.n.Network, Flow{Local: c.local, Remote: remote}, c.label)
		}
		c.mu.Unlock()
	}
	return c.PacketConn.WriteTo(b, to)
}

func (c *capturedPacketConn) Close() error {
	err := c.PacketConn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.flows {
		c.n.t.over(f)
	}
	return err
}
