package box

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"govah/packet"
)

// chromeHello is the flight of Chrome 133 for www.blocked.example.
func chromeHello(t testing.TB) string {
	text, err := os.ReadFile("../../packet/testdata/utls-v1.8.2-chrome-133.txt")
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// intoRecords spreads a ClientHello over records of a size.
func intoRecords(flight string, size int) string {
	var b strings.Builder
	for msg := flight[5:]; msg != ""; {
		n := min(size, len(msg))
		b.WriteString("\x16\x03\x01" + string([]byte{byte(n >> 8), byte(n)}) + msg[:n])
		msg = msg[n:]
	}
	return b.String()
}

func ask(t testing.TB, name string, edns bool) string {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.TypeA)
	if edns {
		m.SetEdns0(1232, false)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// trigger is what a client sends, the last of which names what is blocked.
type trigger struct {
	layer, form string // form "": plain
	over        uint8  // packet.TCP or UDP
	up          []string
	mss         uint16 // that the client announces
}

func triggers(t testing.TB) []trigger {
	chrome := chromeHello(t)
	http := func(form string, up ...string) trigger { return trigger{"http", form, packet.TCP, up, 1460} }
	tls := func(form, up string) trigger { return trigger{"tls", form, packet.TCP, []string{up}, 1460} }
	const plain = "GET / HTTP/1.1\r\nHost: www.blocked.example\r\nAccept: */*\r\n\r\n"
	but := func(old, new string) string {
		if !strings.Contains(plain, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(plain, old, new, 1)
	}
	overTCP := ask(t, "www.blocked.example", true)
	return []trigger{
		tls("", chrome),
		tls("records", intoRecords(chrome, 1000)),
		tls("upper", strings.Replace(chrome, "www.blocked", "www.Blocked", 1)),
		tls("small", strings.ReplaceAll(chrome, "\x11\xec", "\x00\x19")),
		tls("go", hello(t, "www.blocked.example")),
		http("", plain),
		http("", but("GET / ", "GET /"+strings.Repeat("a", 1023)+" ")),
		http("", but("GET / ", "GET /?u=http://other.example/ ")),
		http("upper", but("www.blocked", "www.Blocked")),
		http("name-case", but("Host:", "hoSt:")),
		http("no-space", but("Host: ", "Host:")),
		http("tab", but("Host: ", "Host:\t")),
		http("late", but("Host:", "A: b\r\nHost:")),
		http("long", but("GET / ", "GET /"+strings.Repeat("a", 1024)+" ")),
		http("absolute", "GET http://www.blocked.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n"),
		http("absolute", "GET HTTPS://user@www.blocked.example?x HTTP/1.1\r\nA: b\r\nhost:Other.example:80\r\n\r\n"),
		http("http10", but("1.1", "1.0")),
		http("head", but("GET", "HEAD")),
		http("method-case", but("GET", "gET")),
		http("port", but("example", "example:80")),
		http("dot", but("example", "example.")),
		http("second", request("other.example", "/"), plain),
		http("twice", but("Host:", "Host: www.blocked.example\r\nHost:")),
		http("lf", strings.ReplaceAll(plain, "\r\n", "\n")),
		http("wide", but("GET /", "GET  /")),
		{"http", "mss", packet.TCP, []string{plain}, 700},
		{"tls", "mss", packet.TCP, []string{chrome}, 700},
		{"dns", "", packet.UDP, []string{ask(t, "www.blocked.example", true)}, 0},
		{"dns", "upper", packet.UDP, []string{ask(t, "www.Blocked.example", true)}, 0},
		{"dns", "tcp", packet.TCP, []string{string([]byte{0, byte(len(overTCP))}) + overTCP}, 0},
		{"dns", "no-edns", packet.UDP, []string{ask(t, "www.blocked.example", false)}, 0},
		{"quic", "", packet.UDP, quicSingle(t, "plain"), 0},
		{"quic", "upper", packet.UDP, quicSingle(t, "upper"), 0},
		{"quic", "large", packet.UDP, quicInitials(t, "1"), 0},
		{"quic", "behind", packet.UDP, append([]string{"a datagram that is no QUIC"}, quicSingle(t, "plain")...), 0},
	}
}

// acts sends a trigger past a rule and says whether its last packet is dropped.
func (tr trigger) acts(t *testing.T, split bool, blind ...string) bool {
	t.Helper()
	l := newLink(t, Rule{Layer: tr.layer, Names: []string{".blocked.example"}, Action: "drop", Split: split, Blind: blind})
	to := ask4
	if tr.layer == "quic" {
		to = server4
	}
	send := func(s string) []sent { return l.send(Out, packet.BuildUDP(client4, to, 60, 0, []byte(s))) }
	if tr.over == packet.TCP {
		server := map[string]netip.AddrPort{"tls": server4, "http": web4, "dns": ask4}[tr.layer]
		c := l.unopened(client4, server)
		if tr.mss > 0 {
			c.options = packet.TCPOptions{MSS: tr.mss}.Marshal()
		}
		c.handshake()
		c.options = nil
		send = c.up
	}
	var dropped bool
	for i, s := range tr.up {
		dropped = len(send(s)) == 0
		if dropped && i < len(tr.up)-1 {
			t.Fatalf("packet %d was dropped", i)
		}
	}
	return dropped
}

// TestBlind: a rule that is blind to a form lets it pass, and nothing else; one
// that is blind to every other form, or to none, does not.
func TestBlind(t *testing.T) {
	tried := map[string][]string{}
	for i, tr := range triggers(t) {
		for _, split := range []bool{false, true} {
			if split && tr.layer == "dns" && tr.over == packet.TCP {
				continue // a device that does not reassemble reads no DNS over TCP
			}
			if split && (tr.form == "large" || tr.form == "behind") {
				continue // nor a second datagram of a flow
			}
			t.Run(fmt.Sprintf("%d %s %s split-defeats %v", i, tr.layer, tr.form, split), func(t *testing.T) {
				others := slices.DeleteFunc(slices.Clone(Forms[tr.layer]), func(s string) bool { return s == tr.form })
				if !tr.acts(t, split) {
					t.Error("a rule that is blind to nothing let it pass")
				}
				if !tr.acts(t, split, others...) {
					t.Errorf("a rule that is blind to other forms let it pass")
				}
				if tr.form != "" && tr.acts(t, split, tr.form) {
					t.Error("a rule that is blind to it acted")
				}
			})
		}
		tried[tr.layer] = append(tried[tr.layer], tr.form)
	}
	for layer, list := range Forms {
		for _, form := range append([]string{""}, list...) {
			if !slices.Contains(tried[layer], form) {
				t.Errorf("%s %q was not tried", layer, form)
			}
		}
	}
}

// Of a target with a host, that one is read, and how it is written.
func TestAbsoluteTarget(t *testing.T) {
	for _, c := range []struct {
		request string
		blind   []string
		want    bool
	}{
		{"GET http://other.example/ HTTP/1.1\r\nHost: www.blocked.example\r\n\r\n", nil, false},
		{"GET http://WWW.blocked.example.:80/ HTTP/1.1\r\nHost: other.example\r\n\r\n", nil, true},
		{"GET http://WWW.blocked.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n", []string{"upper"}, false},
		{"GET http://www.blocked.example:80/ HTTP/1.1\r\nHost: other.example\r\n\r\n", []string{"port"}, false},
		{"GET http://www.blocked.example./ HTTP/1.1\r\nHost: other.example\r\n\r\n", []string{"dot"}, false},
		{"GET http://www.blocked.example/ HTTP/1.1\r\nA: b\r\nhOST:OTHER.example.:80\r\n\r\n", []string{"upper", "port", "dot", "late", "name-case", "no-space"}, true},
	} {
		tr := trigger{"http", "", packet.TCP, []string{c.request}, 0}
		if got := tr.acts(t, false, c.blind...); got != c.want {
			t.Errorf("%q, blind to %q: acted %v", c.request, c.blind, got)
		}
	}
}

// What a packet does not show of a ClientHello is not missing, but what its
// beginning says is known.
func TestBlindToPartOfHello(t *testing.T) {
	for name, c := range map[string]struct {
		flight string
		blind  string
		want   bool
	}{
		"its group is behind":  {hello(t, "www.blocked.example"), "small", true},
		"it is a browser's":    {chromeHello(t), "go", true},
		"it is not":            {hello(t, "www.blocked.example"), "go", false},
		"it is in one record":  {chromeHello(t), "records", true},
		"it is in two records": {intoRecords(chromeHello(t), 1700), "records", false},
	} {
		end := strings.Index(c.flight, "blocked.example") + len("blocked.example")
		tr := trigger{"tls", "", packet.TCP, []string{c.flight[:end]}, 0}
		if got := tr.acts(t, true, c.blind); got != c.want {
			t.Errorf("%s: acted %v on %d of %d bytes", name, got, end, len(c.flight))
		}
	}
}

func TestHelloForms(t *testing.T) {
	const grease, aes, x25519 = 0x1a1a, 0x1301, 0x1d
	browser, program := []uint16{grease, aes}, []uint16{aes}
	for _, c := range []struct {
		hello packet.ClientHello
		want  []string
	}{
		{packet.ClientHello{Complete: true, Suites: browser, Groups: []uint16{mlkem768}}, nil},
		{packet.ClientHello{Complete: true, Suites: browser, KeyShares: []uint16{mlkem768}}, nil},
		{packet.ClientHello{Complete: true, Suites: program, Extensions: []uint16{grease}, Groups: []uint16{mlkem768}}, nil},
		{packet.ClientHello{Complete: true, Suites: program, Groups: []uint16{x25519, mlkem768}}, []string{"go"}},
		{packet.ClientHello{Complete: true, Suites: browser}, []string{"small"}},
		{packet.ClientHello{Suites: browser}, nil},
		{packet.ClientHello{Suites: browser, Extensions: []uint16{10}, Groups: []uint16{x25519}}, []string{"small"}},
		{packet.ClientHello{Spread: true, Suites: program, SNIAsSent: "A"}, []string{"records", "upper", "go"}},
	} {
		if got := helloLabel(&c.hello).forms; !slices.Equal(got, c.want) {
			t.Errorf("%+v has forms %q, want %q", c.hello, got, c.want)
		}
	}
}

// A redirection of every question can be blind as well, and so can a device
// that drops answers.
func TestBlindDNS(t *testing.T) {
	l := newLink(t, Rule{Layer: "dns", Action: "dns-redirect", To: "192.0.2.253", Blind: []string{"tcp", "upper"}})
	for name, moved := range map[string]bool{"any.example": true, "Any.example": false} {
		if out := l.send(Out, question(t, name, dns.TypeA, 5000, 60)); !only(out, Out) || (out[0].Destination() != ask4) != moved {
			t.Errorf("a question for %s goes to %v", name, out[0].Destination())
		}
	}
	if out := l.send(Out, l.unopened(client4, ask4).segment(true, packet.SYN, nil)); !only(out, Out) || out[0].Destination() != ask4 {
		t.Errorf("a SYN goes to %v", out[0].Destination())
	}
	l = newLink(t, blockedDNS("drop", func(r *Rule) { r.Side, r.Blind = "in", []string{"upper"} }))
	for name, dropped := range map[string]bool{"blocked.example": true, "Blocked.example": false} {
		q := question(t, name, dns.TypeA, 5000, 60)
		l.send(Out, q)
		if got := len(l.send(In, truth(t, q, "192.0.2.1"))) == 0; got != dropped {
			t.Errorf("the answer for %s was dropped: %v", name, got)
		}
	}
}

func TestBlindToIsChecked(t *testing.T) {
	for layer, list := range map[string][]string{"tls": {"tab", ""}, "http": {"records", "tcp"}, "dns": {"dot"}, "quic": {"records"}, "ip": {"upper"}} {
		for _, form := range list {
			_, err := NewFilter([]Rule{{Layer: layer, Action: "drop", Blind: []string{form}}}, 1, nil)
			if err == nil || !strings.Contains(err.Error(), "blind-to") {
				t.Errorf("layer %s, blind to %q: %v", layer, form, err)
			}
		}
	}
}
