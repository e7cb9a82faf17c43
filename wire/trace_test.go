package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"

	"govah/lab"
	"govah/measure"
	"govah/packet"
	"govah/wire"
)

// tracedPacket is one packet of a trace, read by another implementation.
type tracedPacket struct {
	packet.Packet
	at     time.Time
	sent   bool
	label  string
	length int
}

func tracedPackets(t *testing.T, file []byte) (list []tracedPacket) {
	t.Helper()
	r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, info, o, err := r.ReadPacketDataWithOptions()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		p, err := packet.Parse(bytes.Clone(data))
		if p.Raw = data; err != nil && len(data) == info.Length {
			t.Fatal(err)
		}
		x := tracedPacket{Packet: p, at: info.Timestamp, sent: o.Flags != nil && o.Flags.Direction == 2, label: strings.Join(o.Comments, "|"), length: info.Length}
		if n := len(list); n > 0 && x.at.Before(list[n-1].at) {
			t.Errorf("packet %d is older than the one before it", n)
		}
		list = append(list, x)
	}
}

// traces: a trace holds the packets of its own sockets, those of attempts that
// failed too, each with the observation that it is for, and nobody else's.
func traces(t *testing.T, n wire.Network, e environment, kind wire.TraceKind, tap func(func(bool, []byte))) {
	const ahead = 1000 * time.Hour // of the run's clock
	var file bytes.Buffer
	began := time.Now()
	tr, err := wire.NewTrace(&file, kind, "r1", func() time.Time { return time.Now().Add(ahead) })
	if err != nil {
		t.Fatal(err)
	}
	if tap != nil {
		tap(tr.Tap)
		defer tap(nil)
	}
	traced := tr.Network(n)
	l := newLog()
	l.Label = wire.LabelOf("m7")
	want := map[string][]string{} // what is sent, by label
	for _, a := range e.Sites {
		at := netip.AddrPortFrom(a, 443)
		if kind == wire.TraceCapture {
			// Somebody else on this device, at the same server.
			other := mustDial(t, n, wire.DialSpec{Flow: wire.Flow{Remote: at}})
			defer other.Abort()
			if _, err := other.Write([]byte("somebody else's words")); err != nil {
				t.Fatal(err)
			}
		}
		conn, o := wire.Connect(t.Context(), traced, l, wire.Meta{}, wire.ConnectSpec{Remote: at})
		if conn == nil {
			t.Fatalf("%+v", o)
		}
		if _, err := conn.Write([]byte("own words")); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		want["m7/"+o.ID] = []string{"SYN", "SYN/ACK", "own words"}
		o = wire.SYN(t.Context(), traced, l, wire.Meta{}, wire.ConnectSpec{Remote: netip.AddrPortFrom(a, 81), Timeout: 3 * time.Second})
		if o.Path.Outcome != "unreachable" {
			t.Errorf("%+v", o.Path)
		}
		want["m7/"+o.ID] = []string{"SYN", "ICMP"}
	}
	o := wire.Ask(t.Context(), traced, l, wire.Meta{}, wire.Question{Name: "site.example", Type: "A", Server: netip.AddrPortFrom(e.Resolver, 53), Transport: "udp"}, nil)
	want["m7/"+o.ID] = []string{"query", "answer"}
	time.Sleep(100 * time.Millisecond)
	sum, err := tr.Close()
	if err != nil || sum.Lost != 0 || sum.Cut != 0 || sum.Kind != kind {
		t.Fatalf("%+v, %v", sum, err)
	}
	list := tracedPackets(t, file.Bytes())
	if len(list) != sum.Packets {
		t.Errorf("%d packets, and the sum says %d", len(list), sum.Packets)
	}
	got := map[string]map[string]bool{}
	for _, p := range list {
		if d := p.at.Sub(began) - ahead; d < -time.Millisecond || d > time.Minute {
			t.Errorf("captured %v after the run began, by its own clock", d)
		}
		if got[p.label] == nil {
			got[p.label] = map[string]bool{}
		}
		what := ""
		switch {
		case p.IsICMPError():
			what = "ICMP"
		case p.Proto == packet.UDP && p.sent:
			what = "query"
		case p.Proto == packet.UDP:
			what = "answer"
		case p.Flags == packet.SYN && p.sent:
			what = "SYN"
		case p.Flags == packet.SYN|packet.ACK && !p.sent:
			what = "SYN/ACK"
		case len(p.Payload) > 0:
			what = string(p.Payload)
		}
		got[p.label][what] = true
	}
	for label, words := range want {
		for _, what := range words {
			if !got[label][what] {
				t.Errorf("%s: no %s, but %v", label, what, got[label])
			}
		}
		delete(got, label)
	}
	if len(got) != 0 {
		t.Errorf("packets of nobody, or of others: %v", got)
	}
	if !bytes.Contains(file.Bytes(), []byte("govah run r1, its own packets ("+string(kind)+")")) {
		t.Error("the file does not say what it holds")
	}
	// What is traced after the end is not an error, and leaves no trace.
	was := file.Len()
	if _, err := wire.Connect(t.Context(), traced, l, wire.Meta{}, wire.ConnectSpec{Remote: netip.AddrPortFrom(e.Sites[0], 443)}); err.Failure != measure.NoFailure {
		t.Errorf("%+v", err)
	}
	if file.Len() != was {
		t.Error("written after the end")
	}
}

func TestTraceLab(t *testing.T) {
	t.Parallel()
	w, e := conformanceWorld(t, lab.Options{})
	traces(t, w.Network(), e, wire.TraceTap, w.Tap)
	w, e = conformanceWorld(t, lab.Options{Privileged: true})
	traces(t, w.Network(), e, wire.TraceCapture, nil)
}

// TestTraceChangesNothing: whatever is asked of a Network is answered the same
// where it is traced.
func TestTraceChangesNothing(t *testing.T) {
	for _, kind := range []wire.TraceKind{wire.TraceTap, wire.TraceKernel} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w, e := conformanceWorld(t, lab.Options{})
			var file bytes.Buffer
			tr, err := wire.NewTrace(&file, kind, "r1", time.Now)
			if err != nil {
				t.Fatal(err)
			}
			if kind == wire.TraceTap {
				w.Tap(tr.Tap)
			}
			conform(t, tr.Network(w.Network()), e)
			if sum, err := tr.Close(); err != nil || sum.Packets == 0 || sum.Lost > 0 {
				t.Errorf("%+v, %v", sum, err)
			}
		})
	}
}

// reports: where packets cannot be captured there is what the kernel tells of
// each socket, labelled as that.
func reports(t *testing.T, n wire.Network, e environment) {
	var file bytes.Buffer
	tr, err := wire.NewTrace(&file, wire.TraceKernel, "r1", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	traced := tr.Network(n)
	l := newLog()
	l.Label = wire.LabelOf("m7")
	at := netip.AddrPortFrom(e.Sites[0], 443)
	conn, o := wire.Connect(t.Context(), traced, l, wire.Meta{}, wire.ConnectSpec{Remote: at})
	if conn == nil {
		t.Fatalf("%+v", o)
	}
	if _, err := conn.Write([]byte("own words")); err != nil {
		t.Fatal(err)
	}
	local := conn.LocalAddr().String()
	conn.Close()
	wire.SYN(t.Context(), traced, l, wire.Meta{}, wire.ConnectSpec{Remote: at, TTL: e.Kernel + 1, Timeout: 3 * time.Second})
	wire.Ask(t.Context(), traced, l, wire.Meta{}, wire.Question{Name: "site.example", Type: "A", Server: netip.AddrPortFrom(e.Resolver, 53), Transport: "udp"}, nil)
	open, _ := wire.Connect(t.Context(), traced, l, wire.Meta{}, wire.ConnectSpec{Remote: at}) // when the trace ends
	defer open.Close()
	sum, err := tr.Close()
	if err != nil || sum.Packets != 4 || sum.Lost != 0 {
		t.Fatalf("%+v, %v", sum, err)
	}
	var list []measure.Connection
	for line := range strings.Lines(file.String()) {
		var c measure.Connection
		dec := json.NewDecoder(strings.NewReader(line))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&c); err != nil {
			t.Fatal(err)
		}
		if c.Type != "connection" || c.Source != "kernel" || c.Run != "r1" || c.Opened == "" {
			t.Errorf("%+v", c)
		}
		list = append(list, c)
	}
	if c := list[0]; c.About != "m7/o1" || c.Local != local || c.Remote != at.String() || c.Sent != 9 || c.RTTUS == 0 || c.MSS == 0 || c.Failure != "" {
		t.Errorf("%+v", c)
	}
	if c := list[1]; c.About != "m7/o2" || c.TTL != e.Kernel+1 || len(c.ICMP) != 1 || c.ICMP[0].Type != 11 || c.ICMP[0].From == "" || c.Failure == "" {
		t.Errorf("%+v", c)
	}
	if c := list[2]; c.Transport != "udp" || c.Remote != netip.AddrPortFrom(e.Resolver, 53).String() || c.Received == 0 || len(c.TTLs) == 0 {
		t.Errorf("%+v", c)
	}
	if c := list[3]; c.About != "m7/o4" {
		t.Errorf("%+v", c)
	}
}

func TestTraceReportsLab(t *testing.T) {
	w, e := conformanceWorld(t, lab.Options{})
	reports(t, w.Network(), e)
}

// TestTraceBounds: what is large is cut, what is too much is counted, and the
// file stays within its bounds.
func TestTraceBounds(t *testing.T) {
	var file bytes.Buffer
	tr, err := wire.NewTrace(&file, wire.TraceTap, "r1", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	big := func(port uint16, n int) []byte {
		return packet.BuildTCP(packet.Segment{Src: netip.AddrPortFrom(a, 443), Dst: netip.AddrPortFrom(b, port), Flags: packet.ACK, Payload: make([]byte, n)})
	}
	for range 100 {
		tr.Tap(false, big(1, 1400))
	}
	for port := range 60_000 {
		tr.Tap(false, big(uint16(port+2), 1400))
	}
	sum, err := tr.Close()
	if err != nil {
		t.Fatal(err)
	}
	if sum.Cut == 0 || sum.Packets != 60_100-sum.Lost || file.Len() > 96<<20 {
		t.Errorf("%+v, %d bytes", sum, file.Len())
	}
	list := tracedPackets(t, file.Bytes())
	if len(list) != sum.Packets {
		t.Errorf("%d packets of %d", len(list), sum.Packets)
	}
	if tr, err = wire.NewTrace(io.Discard, wire.TraceTap, "r1", time.Now); err != nil {
		t.Fatal(err)
	}
	const n = 530_000 // of 128 bytes: more than there is room for
	one := big(1, 1400)
	for range n {
		tr.Tap(false, one)
	}
	if sum, err := tr.Close(); err != nil || sum.Lost == 0 || sum.Packets+sum.Lost != n {
		t.Errorf("%+v, %v", sum, err)
	}
	if first, later := list[0], list[99]; first.length != len(first.Raw) || later.length != first.length || len(later.Raw) > 128 {
		t.Errorf("%d of %d bytes of the first packet, %d of %d of a later one", len(first.Raw), first.length, len(later.Raw), later.length)
	}
}

type fullDisk struct{ left int }

func (d *fullDisk) Write(p []byte) (int, error) {
	if d.left -= len(p); d.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

// TestTraceFullDisk: a run does not fail for its trace; the trace does.
func TestTraceFullDisk(t *testing.T) {
	w, e := conformanceWorld(t, lab.Options{})
	tr, err := wire.NewTrace(&fullDisk{left: 200}, wire.TraceTap, "r1", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	w.Tap(tr.Tap)
	conn, o := wire.Connect(t.Context(), tr.Network(w.Network()), newLog(), wire.Meta{}, wire.ConnectSpec{Remote: netip.AddrPortFrom(e.Sites[0], 443)})
	if conn == nil {
		t.Fatalf("%+v", o)
	}
	conn.Close()
	if _, err := tr.Close(); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("%v", err)
	}
}

// TestBound: an address is told before the first packet, and the TCP port is
// the one that the connection has.
func TestBound(t *testing.T) {
	w, e := conformanceWorld(t, lab.Options{})
	bound(t, w.Network(), e)
}

func bound(t *testing.T, n wire.Network, e environment) {
	for _, a := range e.Sites {
		var told []uint16
		ctx := wire.OnBound(t.Context(), func(local netip.AddrPort) { told = append(told, local.Port()) })
		conn, err := n.Dial(ctx, wire.DialSpec{Flow: wire.Flow{Remote: netip.AddrPortFrom(a, 443)}})
		if err != nil {
			t.Fatal(err)
		}
		pc, err := n.ListenPacket(ctx, netip.AddrPort{})
		if err != nil {
			t.Fatal(err)
		}
		if want := []uint16{conn.LocalAddr().(*net.TCPAddr).AddrPort().Port(), pc.LocalAddr().(*net.UDPAddr).AddrPort().Port()}; !slices.Equal(told, want) {
			t.Errorf("told %v, and they are %v", told, want)
		}
		conn.Abort()
		pc.Close()
	}
}
