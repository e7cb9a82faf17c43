package locate_test

import (
	"errors"
	"io"
	"testing"

	"govah/lab"
	"govah/locate"
	"govah/packet"
	"govah/wire"
)

// TestCaptured: with the right to, the packets of a search are handed over,
// over TCP and UDP, and those of others who talk to the same server are not.
func TestCaptured(t *testing.T) {
	for _, c := range []struct {
		payload locate.Payload
		rule    string
	}{{locate.TLS, "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"reset\""}, {locate.DNS, "layer = \"dns\"\nnames = [\"blocked.example\"]\naction = \"dns-answer\"\nanswers = [\"192.0.2.9\"]"},
		{locate.TCP, "layer = \"ip\"\naddresses = [\"45.10.0.10\"]\naction = \"drop\""}} {
		for _, privileged := range []bool{true, false} {
			e, err := emulate("hops = 4\ndelay = \"2ms\"\n[[client-network.box]]\nat = 3\n[[client-network.box.rule]]\n"+c.rule+"\n[[network]]\nname = \"hosting\"\nhops = 1\n", lab.Options{Privileged: privileged})
			if err != nil {
				t.Fatal(err)
			}
			spec := e.spec(c.payload, false, 1)
			if c.payload == locate.TLS {
				other, err := e.Network().Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: spec.Remote}})
				if err != nil {
					t.Fatal(err)
				}
				io.WriteString(other, "somebody else's words")
				defer other.Abort()
			}
			var got []wire.Packet
			calls := 0
			spec.Captured = func(list []wire.Packet) {
				got = list
				calls++
			}
			_, l, _, err := e.find(t.Context(), spec)
			e.Close()
			if err != nil || len(l.Set) == 0 {
				t.Fatalf("%s: %s, %v", c.payload, l.Outcome, err)
			}
			if want := map[bool]int{true: 1, false: 0}[privileged]; calls != want {
				t.Errorf("%s, privileged %v: handed over %d times", c.payload, privileged, calls)
			}
			sent, icmp := 0, 0
			for _, p := range got {
				q, err := packet.Parse(p.Data)
				if err != nil && !errors.Is(err, packet.ErrFragment) {
					t.Fatal(err)
				}
				switch {
				case q.IsICMPError():
					icmp++
				case p.Sent && q.Destination() == spec.Remote && q.SrcPort >= 20000 && q.SrcPort < 32000:
					sent++
				case !p.Sent && q.Source() == spec.Remote && q.DstPort >= 20000 && q.DstPort < 32000:
				default:
					t.Errorf("%s: a packet of somebody else: %v to %v", c.payload, q.Source(), q.Destination())
				}
			}
			if privileged && (sent < 8 || icmp < 4) {
				t.Errorf("%s: %d sent, %d ICMP", c.payload, sent, icmp)
			}
		}
	}
}
