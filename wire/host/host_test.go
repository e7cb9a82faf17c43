package host

import (
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
)

func TestParseResolvConf(t *testing.T) {
	got := parseResolvConf("# a comment\nnameserver 192.0.2.53\nsearch example\nnameserver 2001:db8::53%eth0\nnameserver ::ffff:192.0.2.54\nnameserver nonsense\nnameserver\n")
	want := []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53%eth0"), netip.MustParseAddr("192.0.2.54")}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.53\n")
	f.Fuzz(func(t *testing.T, s string) {
		if list := parseResolvConf(s); len(list) > 8 {
			t.Errorf("%d resolvers", len(list))
		}
	})
}

func TestProxySetting(t *testing.T) {
	for _, tt := range []struct {
		environ []string
		want    string
	}{
		{nil, ""},
		{[]string{"NO_PROXY=*", "http_proxy="}, ""},
		{[]string{"A=b", "HTTPS_PROXY=http://user:secret@proxy:8080"}, "HTTPS_PROXY"},
		{[]string{"all_proxy=socks5://localhost"}, "all_proxy"},
	} {
		if got := proxySetting(tt.environ); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.environ, got, tt.want)
		}
	}
}

func TestTunnelName(t *testing.T) {
	for name, want := range map[string]bool{"tun0": true, "wg0": true, "ppp0": true, "utun3": true, "eth0": false, "wlan0": false, "en0": false, "rmnet0": false} {
		if got := tunnelName(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestView(t *testing.T) {
	v := New().View()
	if runtime.GOOS == "linux" && (!v.SetTTL || !v.MinTTL || !v.SYNHop || !v.DataError || v.DataHop || !v.UDPTTL || !v.TCPInfo || !v.Lookup) {
		t.Errorf("%+v", v)
	}
	if _, err := os.Stat("/etc/ssl/certs"); err == nil && !v.SystemRoots {
		t.Errorf("%+v", v)
	}
	if again := New().View(); again != v {
		t.Errorf("asked twice: %+v and %+v", v, again)
	}
}
