package helper

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"testing"
	"time"

	"govah/measure"
	"govah/packet"
	"govah/wire"
)

// taken is a capture that gives its packets once.
type taken struct{ list []wire.Packet }

func (t *taken) Packets() []wire.Packet { return t.list }
func (t *taken) Close() error           { return nil }
func (t *taken) Take() ([]wire.Packet, int) {
	list := t.list
	t.list = nil
	return list, 0
}

// TestWordsHeard: only an error about these words, or their acknowledgement,
// ends the waiting: not one about what was said before, about an
// acknowledgement, about somebody else's packets, or of another kind.
func TestWordsHeard(t *testing.T) {
	for _, a := range [][3]string{{"192.0.2.1", "198.51.100.7", "203.0.113.9"}, {"2001:db8::1", "2001:db8:1::7", "2001:db8:2::9"}} {
		near, far, router := netip.AddrPortFrom(netip.MustParseAddr(a[0]), 587), netip.AddrPortFrom(netip.MustParseAddr(a[1]), 20000), netip.MustParseAddr(a[2])
		words := []byte("250 2.0.0 OK\r\n")
		segment := func(from, to netip.AddrPort, seq, ack uint32, payload []byte) []byte {
			return packet.BuildTCP(packet.Segment{Src: from, Dst: to, Seq: seq, Ack: ack, Flags: packet.ACK, TTL: 1, Window: 1000, Payload: payload})
		}
		quoting := func(kind packet.ICMPKind, quoted []byte) []byte {
			b, err := packet.BuildICMPError(kind, router, quoted, 0)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		elsewhere := netip.AddrPortFrom(far.Addr(), 20001)
		sent := wire.Packet{Sent: true, At: time.Now(), Data: segment(near, far, 2000, 50, words)}
		after := func(data ...[]byte) []wire.Packet {
			list := []wire.Packet{sent}
			for _, d := range data {
				list = append(list, wire.Packet{At: time.Now(), Data: d})
			}
			return list
		}
		for name, c := range map[string]struct {
			list    []wire.Packet
			outcome string
		}{
			"nothing":           {after(), ""},
			"said before":       {after(quoting(packet.TimeExceeded, segment(near, far, 1000, 50, words))), ""},
			"an acknowledgment": {after(quoting(packet.TimeExceeded, segment(near, far, 2014, 50, nil))), ""},
			"somebody else's":   {after(quoting(packet.TimeExceeded, segment(near, elsewhere, 2000, 50, words))), ""},
			"another kind":      {after(quoting(packet.HostUnreachable, segment(near, far, 2000, 50, words))), ""},
			"a part arrived":    {after(segment(far, near, 50, 2013, nil)), ""},
			"before it was":     {after(segment(far, near, 50, 2000, nil)), ""},
			"arrived":           {after(segment(far, near, 50, 2014, nil)), "arrived"},
			"expired":           {after(quoting(packet.TimeExceeded, segment(near, far, 2000, 50, words))), "expired"},
			"other numbers":     {after(quoting(packet.TimeExceeded, segment(near, far, 770000, 50, words))), "expired"},
			"not yet sent":      {after(segment(far, near, 50, 2014, nil))[1:], ""},
		} {
			said := measure.Said{}
			w := &underWay{d: &dying{flow: wire.Flow{Local: near, Remote: far}, stale: map[uint32]bool{1000: true}}, capture: &taken{c.list}, said: &said}
			if ended := w.heard(); ended != (c.outcome != "") || said.Outcome != c.outcome {
				t.Errorf("%s, %s: %v %+v", a[0], name, ended, said)
			}
			if c.outcome != "expired" {
				continue
			}
			quote, _ := base64.StdEncoding.DecodeString(said.Quoted)
			if said.Router != router.String() || said.Sends != 1 || !slices.Equal(quote[len(quote)-len(words):], words) {
				t.Errorf("%s, %s: %+v", a[0], name, said)
			}
		}
	}
}
