package locate

import (
	"bytes"
	"net/netip"
	"testing"

	"govah/packet"
)

// TestCompare: a quote says whether the data are as sent only where it has
// them; routers that go by RFC 792 quote the ports and the sequence alone.
func TestCompare(t *testing.T) {
	sent := []byte("STARTTLS\r\n")
	for _, ends := range [][2]string{{"192.0.2.1:40000", "198.51.100.25:587"}, {"[2001:db8::1]:40000", "[2001:db8::25]:587"}} {
		quote := func(data string) []byte {
			return packet.BuildTCP(packet.Segment{Src: netip.MustParseAddrPort(ends[0]), Dst: netip.MustParseAddrPort(ends[1]), Flags: packet.ACK, TTL: 1,
				Options: []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}, Payload: []byte(data)})
		}
		whole := quote("STARTTLS\r\n")
		for _, c := range []struct {
			quote []byte
			want  string
		}{
			{whole, "whole"}, {append(bytes.Clone(whole), 0, 0, 0), "whole"}, // padding behind the packet
			{quote("XXXXXXXX\r\n"), "altered"}, {quote("XXXXXXXX\r\n")[:len(whole)-4], "altered"},
			{whole[:len(whole)-1], ""}, {whole[:len(whole)-8], ""}, {whole[:len(whole)-len(sent)], ""}, {whole[:28], ""}, {nil, ""},
		} {
			if got := compare(c.quote, sent); got != c.want {
				t.Errorf("%q: %q, not %q", c.quote, got, c.want)
			}
		}
	}
}

// FuzzCompare: whatever a router quotes, it is read within its bounds, and
// bytes that were not all there are never called whole.
func FuzzCompare(f *testing.F) {
	sent := []byte("STARTTLS\r\n")
	for _, dst := range []string{"198.51.100.25:587", "[2001:db8::25]:587"} {
		to := netip.MustParseAddrPort(dst)
		f.Add(packet.BuildTCP(packet.Segment{Src: to, Dst: to, Flags: packet.ACK, TTL: 1, Payload: sent}))
	}
	f.Fuzz(func(t *testing.T, quote []byte) {
		if compare(quote, sent) == "whole" && !bytes.Contains(quote, sent) {
			t.Errorf("%q", quote)
		}
	})
}
