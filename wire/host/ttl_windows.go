package host

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/windows"

	"govah/wire"
)

// Options of ws2ipdef.h.
const (
	ipTTL           = 4
	ipv6UnicastHops = 4
)

// controlTTL sets the TTL of the SYN.
func controlTTL(spec wire.DialSpec) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var err error
		ctlErr := raw.Control(func(fd uintptr) {
			if spec.TTL == 0 {
				return
			}
			if spec.Remote.Addr().Unmap().Is4() {
				err = windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IP, ipTTL, spec.TTL)
			} else {
				err = windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IPV6, ipv6UnicastHops, spec.TTL)
			}
		})
		return errors.Join(ctlErr, os.NewSyscallError("preparing the socket", err))
	}
}
