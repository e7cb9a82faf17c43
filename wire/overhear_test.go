package wire_test

import (
	"net/netip"
	"testing"

	"govah/lab"
	"govah/measure"
	"govah/wire"
)

// overhears: what is recorded of a step are its own packets in both
// directions, not those of another connection to the same server, and with
// their numbers as they are on the wire.
func overhears(t *testing.T, n wire.Network, e environment) {
	for _, a := range e.Sites {
		at := netip.AddrPortFrom(a, 443)
		h := wire.Overhear(t.Context(), n, at)
		if h == nil {
			t.Fatal("nothing can be overheard")
		}
		other := mustDial(t, n, wire.DialSpec{Flow: wire.Flow{Remote: at}})
		if _, err := other.Write([]byte("somebody else's words")); err != nil {
			t.Fatal(err)
		}
		l := newLog()
		conn, o := wire.Connect(t.Context(), h, l, wire.Meta{}, wire.ConnectSpec{Remote: at})
		if conn == nil {
			t.Fatalf("%+v", o)
		}
		hello, err := wire.NewHello("chrome-small", 1)
		if err != nil {
			t.Fatal(err)
		}
		_, o = wire.Handshake(t.Context(), l, wire.Meta{Role: measure.RoleTest}, conn, wire.HandshakeSpec{SNI: "reset.example", Hello: hello}, &wire.Trust{})
		conn.Abort()
		h.Late(t.Context())
		other.Abort()
		list := h.Packets(l)
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if o.Failure != measure.ConnectionReset {
			t.Fatalf("%+v", o)
		}
		var syn, synAck, hellos, resets int
		var trigger, answer measure.Packet
		for _, p := range list {
			switch {
			case p.Sent && p.Flags == "S":
				syn++
			case !p.Sent && p.Flags == "SA":
				synAck++
			case p.Sent && p.Bytes > 100:
				hellos++
				trigger = p
			case !p.Sent && p.Flags == "RA":
				resets++
				answer = p
			case p.Sent:
				t.Errorf("a packet of ours that says nothing, or another's: %+v", p)
			}
		}
		if syn != 1 || synAck != 1 || hellos != 1 || resets != 1 {
			t.Fatalf("%v: %d SYN, %d SYN/ACK, %d ClientHellos, %d resets: %+v", a, syn, synAck, hellos, resets, list)
		}
		if answer.Seq != trigger.Ack || answer.Ack != (trigger.Seq+int64(trigger.Bytes))&0xffffffff || answer.TTL > 40 || answer.TTL < 36 || answer.AtUS < trigger.AtUS {
			t.Errorf("%v: %+v drew %+v", a, trigger, answer)
		}
	}
}

// TestOverhearNeedsRight: without the right nothing is overheard.
func TestOverhearNeedsRight(t *testing.T) {
	w, e := conformanceWorld(t, lab.Options{})
	if h := wire.Overhear(t.Context(), w.Network(), netip.AddrPortFrom(e.Sites[0], 443)); h != nil {
		t.Error("packets were captured without the right to")
	}
}
