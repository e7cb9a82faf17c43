package host

import (
	"net"
	"net/netip"
	"sync"
	"testing"
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
