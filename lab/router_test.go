package lab

import (
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"govah/measure"
	"govah/wire"
)

// asked is what comes of a connection to an address of a world: what is said
// unasked, or the failure.
func asked(t *testing.T, w *World, to string) string {
	t.Helper()
	log := wire.NewLog(time.Now(), nil)
	conn, o := wire.Connect(t.Context(), w.Network(), log, wire.Meta{}, wire.ConnectSpec{Remote: netip.MustParseAddrPort(to), Timeout: time.Second})
	if conn == nil {
		return string(o.Failure)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	b, _ := io.ReadAll(conn)
	return string(b)
}

// Routers can be talked to where a scenario says so, and forward all the same.
func TestRouters(t *testing.T) {
	s, err := Parse([]byte(small("equal = [3]\nnat = true", `
[[client-network.router]]
at = 1
[[client-network.router.service]]
ports = [23]
greeting = "home\r\n"
[[client-network.router]]
at = 3
drop = true
[[client-network.router.service]]
ports = [22, 2222]
greeting = "three\r\n"`)))
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	base4, base6 := s.Clients[0].v4.As4(), s.Clients[0].v6.As16()
	router := func(low, hop byte) (v4, v6 string) {
		a, b := base4, base6
		a[2], a[3], b[14], b[15] = low, hop, low, hop
		return netip.AddrFrom4(a).String(), "[" + netip.AddrFrom16(b).String() + "]"
	}
	three4, three6 := router(254, 3)
	sibling, _ := router(253, 3)
	two, _ := router(254, 2)
	refused, silent := string(measure.ConnectionRefused), string(measure.GenericTimeout)
	for to, want := range map[string]string{
		"192.168.1.1:23": "home\r\n", "192.168.1.1:22": refused,
		three4 + ":22": "three\r\n", three4 + ":2222": "three\r\n", three6 + ":22": "three\r\n", sibling + ":22": "three\r\n",
		three4 + ":80": silent, two + ":22": silent,
	} {
		if got := asked(t, w, to); got != want {
			t.Errorf("%s: %q, want %q", to, got, want)
		}
	}
	for _, a := range []string{"192.168.1.1", three4, sibling, two} {
		if !slices.Contains(w.Routers(), netip.MustParseAddr(a)) {
			t.Errorf("%s is not among the routers", a)
		}
	}
	// What is not for them passes, and dies there if its TTL says so.
	to := netip.AddrPortFrom(s.Sites[0].AllAddresses()[0], 443)
	log := wire.NewLog(time.Now(), nil)
	for ttl := 1; ttl <= 4; ttl++ {
		p, _, _ := wire.SendSYN(t.Context(), w.Network(), log, wire.ConnectSpec{Remote: to, TTL: ttl, Timeout: time.Second})
		if p.Outcome != "expired" {
			t.Errorf("TTL %d: %s", ttl, p.Outcome)
		}
	}
}

func TestRoutersAreChecked(t *testing.T) {
	for text, want := range map[string]string{
		"at = 9": "between 1 and",
		"at = 0": "between 1 and",
		"at = 2\n[[client-network.router]]\nat = 2":                                                       "there twice",
		"at = 2\n[[client-network.router.service]]\ngreeting = \"x\"":                                     "needs ports",
		"at = 2\n[[client-network.router.service]]\nports = [22, 22]":                                     "port 22 is there twice",
		"at = 2\n[[client-network.router.service]]\nports = [70000]":                                      "between 1 and 65535",
		"at = 2\n[[client-network.router.service]]\nports = [80]\ngreeting = \"x\"\npage = \"y\"":         "a greeting, or a page",
		"at = 2\n[[client-network.router.service]]\nports = [80]\nheader = [\"Server\"]":                  "Name: value",
		"at = 2\n[[client-network.router.service]]\nports = [443]\nsubject = \"DC=x\"\npage = \"<html>\"": "none of CN, OU and O",
	} {
		_, err := Parse([]byte(small("", "\n[[client-network.router]]\n"+text)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
