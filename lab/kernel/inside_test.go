package kernel_test

import (
	"net"
	"os"
	"testing"
	"time"
)

// TestInside runs in the client's namespace.
func TestInside(t *testing.T) {
	if os.Getenv("LAB_KERNEL_INSIDE") == "" {
		return // only inside a client's namespace
	}
	for _, to := range []string{"203.0.113.9:7", "[2001:db8:9::9]:7"} {
		c, err := net.Dial("udp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := c.Write([]byte("are you there")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		if err != nil || string(buf[:n]) != "are you there" {
			t.Fatalf("%s: %q, %v", to, buf[:n], err)
		}
	}
}
