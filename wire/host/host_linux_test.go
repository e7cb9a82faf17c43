package host

import (
	"net"
	"net/netip"
	"sync"
	"testing"

	"govah/wire"
)

// TestWriteAmongErrors sends to a port that nobody has, from several
// goroutines: on loopback each datagram is answered by an ICMP error before
// the next call, often by several.
func TestWriteAmongErrors(t *testing.T) {
	for _, at := range []string{"127.0.0.1", "::1"} {
		nobody, err := net.ListenPacket("udp", net.JoinHostPort(at, "0"))
		if err != nil {
			t.Skip("no ", at, ": ", err)
		}
		to := nobody.LocalAddr()
		nobody.Close()
		c, err := new(Network).ListenPacket(t.Context(), netip.AddrPortFrom(netip.MustParseAddr(at), 0))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for i := range 2000 {
					if _, err := c.WriteTo([]byte("x"), to); err != nil {
						t.Errorf("%s, datagram %d: %v", at, i, err)
						return
					}
				}
			})
		}
		all.Wait()
	}
}

// TestSYNTTL: the kernel tells with which TTL a SYN came.
func TestSYNTTL(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := Listen(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		remote := netip.MustParseAddrPort(l.Addr().String())
		for _, want := range []int{64, 23} {
			c, err := New().Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: remote}, TTL: want})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if got := SYNTTL(s); got != want {
				t.Errorf("%s: a SYN with TTL %d came with %d", at, want, got)
			}
		}
	}
}
