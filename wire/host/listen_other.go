//go:build !linux

package host

import (
	"context"
	"net"
)

// Listen is net.Listen for TCP, of whose connections SYNTTL is known.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var c net.ListenConfig
	return c.Listen(ctx, "tcp", address)
}

// SYNTTL is the TTL with which the SYN of a connection that Listen accepted
// arrived, 0 unknown, as here.
func SYNTTL(net.Conn) int { return 0 }

// SetTTL is not possible here, where nothing that needs it is.
func SetTTL(net.Conn, int) error { return unsupported("setting the TTL of an accepted connection") }
