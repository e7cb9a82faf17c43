// Package host is the wire.Network of this machine: the kernel's sockets,
// without privilege. Linux shows most; what the others cannot see is said in
// View.
package host

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"govah/measure"
	"govah/wire"
)

// Network is this machine. The zero value is ready to use.
type Network struct {
	once sync.Once
	view measure.View

	rootsOnce sync.Once
	roots     *x509.CertPool
	rootsErr  error
}

var _ wire.Network = (*Network)(nil)

// New is this machine's network.
func New() *Network { return &Network{} }

// unsupported says that this system cannot do a thing.
func unsupported(what string) error {
	return fmt.Errorf("%s on %s: %w", what, runtime.GOOS, errors.ErrUnsupported)
}

// Lookup asks the system's resolver as far as it can be asked without cgo: on
// Unix Go's own stub resolver reads /etc/hosts and /etc/resolv.conf, on
// Windows the system's API is called, on Android there is neither.
func (n *Network) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	if runtime.GOOS == "android" {
		return nil, unsupported("asking the system's resolver")
	}
	return (&net.Resolver{}).LookupNetIP(ctx, "ip", name)
}

// Roots is what this system trusts.
func (n *Network) Roots() (*x509.CertPool, error) {
	n.rootsOnce.Do(func() {
		n.roots, n.rootsErr = x509.SystemCertPool()
		if n.rootsErr != nil {
			n.rootsErr = fmt.Errorf("reading what this system trusts: %w", n.rootsErr)
		}
	})
	return n.roots, n.rootsErr
}

// View is what can be observed here, found by asking the kernel once.
func (n *Network) View() measure.View {
	n.once.Do(func() {
		n.view = look()
		n.view.Lookup = runtime.GOOS != "android"
		_, err := n.Roots()
		n.view.SystemRoots = err == nil
		n.view.IPv4 = routed("udp4", "192.0.2.1:443")
		n.view.IPv6 = routed("udp6", "[2001:db8::1]:443")
	})
	return n.view
}

// routed says whether the kernel has a source address and a route for an
// address; connecting a UDP socket sends nothing.
func routed(network, address string) bool {
	c, err := net.Dial(network, address)
	if err != nil {
		return false
	}
	defer c.Close()
	a, ok := c.LocalAddr().(*net.UDPAddr)
	return ok && !a.IP.IsLinkLocalUnicast() && !a.IP.IsLoopback()
}

// network is "tcp4" or "tcp6" for an address, so that no dual-stack socket
// blurs the family.
func network(kind string, a netip.Addr) string {
	if a.Unmap().Is4() {
		return kind + "4"
	}
	return kind + "6"
}

func tcpAddr(ap netip.AddrPort) net.Addr {
	if !ap.IsValid() {
		return nil
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
}

// checkDial says what is wrong with a spec.
func checkDial(spec wire.DialSpec) error {
	if !spec.Remote.IsValid() || spec.Remote.Port() == 0 {
		return fmt.Errorf("host: dial: no valid remote address and port (%v)", spec.Remote)
	}
	if spec.TTL < 0 || spec.TTL > 255 || spec.MinTTL < 0 || spec.MinTTL > 255 {
		return fmt.Errorf("host: dial %v: a TTL is 1 to 255, not %d and %d", spec.Remote, spec.TTL, spec.MinTTL)
	}
	if spec.MSS < 0 || spec.MSS > 65535 {
		return fmt.Errorf("host: dial %v: the segment size %d is out of range", spec.Remote, spec.MSS)
	}
	return nil
}

// abort closes a TCP connection with a reset (RFC 9293, 3.10.5).
func abort(c *net.TCPConn) error {
	if err := c.SetLinger(0); err != nil {
		return err
	}
	return c.Close()
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)
