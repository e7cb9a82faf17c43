//go:build unix && !linux

package host

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"govah/wire"
)

// controlTTL sets the TTL of the SYN.
func controlTTL(spec wire.DialSpec) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var err error
		ctlErr := raw.Control(func(fd uintptr) {
			if spec.Local.IsValid() {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			}
			if err == nil && spec.TTL != 0 {
				if spec.Remote.Addr().Unmap().Is4() {
					err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, spec.TTL)
				} else {
					err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, spec.TTL)
				}
			}
		})
		return errors.Join(ctlErr, os.NewSyscallError("preparing the socket", err))
	}
}
