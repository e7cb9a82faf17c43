package host

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/bpf"

	"govah/packet"
	"govah/wire"
)

// The filter alone decides what a capture may see, so it is run by itself on
// packets of all kinds.
func TestFlowFilter(t *testing.T) {
	for _, f := range []struct{ ours, remote, stranger, hop netip.Addr }{
		{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.9"), netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("192.0.2.254")},
		{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:1::9"), netip.MustParseAddr("2001:db8:2::7"), netip.MustParseAddr("2001:db8::fe")},
	} {
		vm, err := bpf.NewVM(flowFilter(wire.Flow{Remote: netip.AddrPortFrom(f.remote, 443)}))
		if err != nil {
			t.Fatal(err)
		}
		ap := netip.AddrPortFrom
		quoting := func(src, dst netip.AddrPort) []byte {
			b, err := packet.BuildICMPError(packet.HostUnreachable, f.hop, packet.BuildUDP(src, dst, 3, 1, []byte("payload!")), 0)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		for i, tt := range []struct {
			pkt  []byte
			want bool
		}{
			{packet.BuildUDP(ap(f.ours, 5000), ap(f.remote, 443), 64, 1, nil), true},
			{packet.BuildUDP(ap(f.remote, 443), ap(f.ours, 5000), 64, 1, nil), true},
			{packet.BuildTCP(packet.Segment{Src: ap(f.ours, 5000), Dst: ap(f.remote, 443), TTL: 64}), true},
			{packet.BuildTCP(packet.Segment{Src: ap(f.remote, 443), Dst: ap(f.ours, 5000), TTL: 64}), true},
			{quoting(ap(f.ours, 5000), ap(f.remote, 443)), true},
			{packet.BuildUDP(ap(f.ours, 5000), ap(f.remote, 80), 64, 1, nil), false},
			{packet.BuildUDP(ap(f.ours, 443), ap(f.remote, 80), 64, 1, nil), false},
			{packet.BuildUDP(ap(f.ours, 5000), ap(f.stranger, 443), 64, 1, nil), false},
			{packet.BuildTCP(packet.Segment{Src: ap(f.stranger, 443), Dst: ap(f.ours, 5000), TTL: 64}), false},
			{quoting(ap(f.ours, 5000), ap(f.stranger, 443)), false},
			{quoting(ap(f.ours, 5000), ap(f.remote, 80)), false},
		} {
			n, err := vm.Run(tt.pkt)
			if err != nil || (n > 0) != tt.want {
				t.Errorf("%v, packet %d: %d, %v", f.remote, i, n, err)
			}
		}
	}
}

func TestCapture(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	at := netip.MustParseAddrPort(ln.Addr().String())
	n := New()
	c, err := n.Capture(t.Context(), wire.Flow{Remote: at})
	if errors.Is(err, errors.ErrUnsupported) {
		if n.View().Capture {
			t.Error("the view promises what cannot be had")
		}
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn, err := n.Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: at}})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "hello")
	conn.Abort()
	var syn, reset, sent bool
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline) && !reset; time.Sleep(10 * time.Millisecond) {
		for _, p := range c.Packets() {
			q, err := packet.Parse(p.Data)
			if err != nil {
				t.Fatal(err)
			}
			if q.DstPort != at.Port() && q.SrcPort != at.Port() {
				t.Fatalf("somebody else's packet: %+v", q)
			}
			syn = syn || q.Flags&packet.SYN != 0
			reset = reset || q.Flags&packet.RST != 0
			sent = sent || p.Sent
		}
	}
	if !syn || !reset || !sent {
		t.Errorf("SYN %v, RST %v, sent %v among %d packets", syn, reset, sent, len(c.Packets()))
	}
}
