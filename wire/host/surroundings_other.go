//go:build !linux

package host

import (
	"net/netip"
	"os"
)

// resolvers: macOS keeps a resolv.conf for old programs, Windows none.
func resolvers() []netip.Addr {
	b, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	return parseResolvConf(string(b))
}

func isTunnel(string) bool   { return false }
func linkKind(string) string { return "" }
