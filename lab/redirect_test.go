package lab_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"govah/lab"
)

// TestDNSRedirect: a redirected question is answered by the operator's resolver
// in the name of the one asked; a router beyond the device speaks of it in the
// name of that one, in its own, or shows where it was led, as is set.
func TestDNSRedirect(t *testing.T) {
	for _, errors := range []string{"all", "quoted", "none"} {
		s, err := lab.Parse([]byte("schema = 1\ntitle = \"t\"\nabout = \"t\"\n[[client-network]]\nname = \"home\"\nabout = \"a line\"\nhops = 4\n" +
			"[client-network.dns-redirect]\nat = 2\nhops = 3\nerrors = \"" + errors + "\"\n[[client-network.lie]]\nnames = [\"open.example\"]\nanswers = [\"10.9.8.7\"]\n" +
			"[[network]]\nname = \"hosting\"\nhops = 1\n[[site]]\nname = \"open.example\"\n[[site]]\nname = \"resolver.example\"\nrole = \"resolver\"\n"))
		if err != nil {
			t.Fatal(err)
		}
		w, err := lab.New(s, lab.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		asked := netip.AddrPortFrom(w.Sites("resolver")[0].AllAddresses()[0], 53)
		pc, err := w.Network().ListenPacket(t.Context(), netip.MustParseAddrPort("0.0.0.0:0"))
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		q := new(dns.Msg)
		q.SetQuestion("open.example.", dns.TypeA)
		b, _ := q.Pack()
		if _, err := pc.WriteTo(b, net.UDPAddrFromAddrPort(asked)); err != nil {
			t.Fatal(err)
		}
		pc.SetReadDeadline(time.Now().Add(5 * time.Second))
		buf := make([]byte, 1500)
		n, _, from, err := pc.ReadTTL(buf)
		if m := new(dns.Msg); err != nil || from != asked || m.Unpack(buf[:n]) != nil || len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "10.9.8.7" {
			t.Errorf("%s: from %s, %v", errors, from, err)
		}
		pc.SetTTL(4) // the second router of the other way
		if _, err := pc.WriteTo(b, net.UDPAddrFromAddrPort(asked)); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			list := pc.PathErrors()
			if len(list) == 0 && time.Now().Before(end) {
				continue
			}
			if len(list) != 1 || (list[0].From == asked.Addr()) != (errors == "all") || (list[0].To == asked) != (errors != "none") {
				t.Errorf("%s: %+v", errors, list)
			}
			break
		}
	}
}
