package host

import (
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// maxFile bounds what is read of a system file, in bytes.
const maxFile = 64 << 10

func readFile(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxFile))
	return string(b)
}

func resolvers() []netip.Addr { return parseResolvConf(readFile("/etc/resolv.conf")) }

// isTunnel says whether an interface is a tunnel by what the kernel tells.
func isTunnel(name string) bool {
	dir := filepath.Join("/sys/class/net", filepath.Base(name))
	if _, err := os.Stat(filepath.Join(dir, "tun_flags")); err == nil {
		return true
	}
	for line := range strings.Lines(readFile(filepath.Join(dir, "uevent"))) {
		if kind, ok := strings.CutPrefix(strings.TrimSpace(line), "DEVTYPE="); ok && kind == "wireguard" {
			return true
		}
	}
	// ARPHRD_PPP, ARPHRD_TUNNEL, ARPHRD_TUNNEL6, ARPHRD_NONE of if_arp.h; the
	// last is also that of modems in raw IP mode, which have a device below.
	switch strings.TrimSpace(readFile(filepath.Join(dir, "type"))) {
	case "512", "768", "769":
		return true
	case "65534":
		_, err := os.Stat(filepath.Join(dir, "device"))
		return err != nil
	}
	return false
}

// linkKind is wifi, ethernet, mobile or "" unknown.
func linkKind(name string) string {
	dir := filepath.Join("/sys/class/net", filepath.Base(name))
	for _, sub := range []string{"wireless", "phy80211"} {
		if _, err := os.Stat(filepath.Join(dir, sub)); err == nil {
			return "wifi"
		}
	}
	for _, prefix := range []string{"wwan", "rmnet", "ccmni", "wwp"} {
		if strings.HasPrefix(name, prefix) {
			return "mobile"
		}
	}
	if strings.Contains(readFile(filepath.Join(dir, "uevent")), "DEVTYPE=wwan") {
		return "mobile"
	}
	if _, err := os.Stat(filepath.Join(dir, "device")); err == nil && strings.TrimSpace(readFile(filepath.Join(dir, "type"))) == "1" {
		return "ethernet"
	}
	return ""
}
