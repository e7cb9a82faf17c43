package box

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"govah/packet"
)

var (
	client4 = netip.MustParseAddrPort("192.0.2.10:40000")
	server4 = netip.MustParseAddrPort("198.51.100.20:443")
	web4    = netip.MustParseAddrPort("198.51.100.20:80")
	client6 = netip.MustParseAddrPort("[2001:db8::10]:40000")
	server6 = netip.MustParseAddrPort("[2001:db8:1::20]:443")
	ask4    = netip.MustParseAddrPort("203.0.113.53:53")
)

// sent is a packet that a box emitted.
type sent struct {
	packet.Packet
	d     Direction
	delay time.Duration
}

// link is a link with a box on it and a clock that the test moves.
type link struct {
	t   *testing.T
	box Box
	now time.Time
}

func newLink(t *testing.T, rules ...Rule) *link {
	t.Helper()
	f, err := NewFilter(rules, 7, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &link{t: t, box: f, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
}

func (l *link) wait(d time.Duration) { l.now = l.now.Add(d) }

// send gives the box a packet and returns what it emits, in the order in which
// it leaves. Every emitted packet must have right checksums.
func (l *link) send(d Direction, raw []byte) []sent {
	l.t.Helper()
	var out []sent
	l.box.Handle(d, append([]byte(nil), raw...), l.now, func(d Direction, b []byte, delay time.Duration) {
		p, err := packet.Parse(b)
		if err != nil {
			l.t.Fatalf("the box emitted what is no packet: %v", err)
		}
		again := append([]byte(nil), b...)
		packet.FixChecksums(again)
		if string(again) != string(b) {
			l.t.Fatalf("the box emitted a packet with a wrong checksum: % x", b)
		}
		out = append(out, sent{p, d, delay})
	})
	return out
}

// tcp is a TCP connection whose ends see all of each other, for as long as the
// box lets it pass.
type tcp struct {
	*link
	client, server netip.AddrPort
	cseq, sseq     uint32 // what each sends next
	options        []byte
}

// open makes a connection over the link, with a handshake.
func (l *link) open(client, server netip.AddrPort) *tcp {
	c := l.unopened(client, server)
	c.handshake()
	return c
}

func (c *tcp) handshake() {
	c.send(Out, c.segment(true, packet.SYN, nil))
	c.cseq++
	c.send(In, c.segment(false, packet.SYN|packet.ACK, nil))
	c.sseq++
	c.send(Out, c.segment(true, packet.ACK, nil))
}

// unopened is a connection of which the box has seen nothing.
func (l *link) unopened(client, server netip.AddrPort) *tcp {
	return &tcp{link: l, client: client, server: server, cseq: 1000, sseq: 0xfffffff0}
}

// segment makes one of the connection's segments without sending it.
func (c *tcp) segment(fromClient bool, flags uint8, payload []byte) []byte {
	s := packet.Segment{Src: c.client, Dst: c.server, Seq: c.cseq, Ack: c.sseq, Flags: flags, Window: 500, TTL: 60, ID: 4321, Options: c.options, Payload: payload}
	if !fromClient {
		s.Src, s.Dst, s.Seq, s.Ack, s.TTL = c.server, c.client, c.sseq, c.cseq, 55
	}
	if flags == packet.SYN {
		s.Ack = 0
	}
	return packet.BuildTCP(s)
}

func (c *tcp) up(payload string) []sent {
	c.t.Helper()
	b := c.segment(true, packet.PSH|packet.ACK, []byte(payload))
	c.cseq += uint32(len(payload))
	return c.send(Out, b)
}

func (c *tcp) down(payload string) []sent {
	c.t.Helper()
	b := c.segment(false, packet.PSH|packet.ACK, []byte(payload))
	c.sseq += uint32(len(payload))
	return c.send(In, b)
}

// passes says whether both directions of a connection get through.
func (c *tcp) passes() bool {
	c.t.Helper()
	return only(c.up("data"), Out) && only(c.down("data"), In)
}

// only says whether exactly one packet, no reset, left in a direction.
func only(out []sent, d Direction) bool {
	return len(out) == 1 && out[0].d == d && out[0].Flags&packet.RST == 0
}

func to(out []sent, d Direction) (list []sent) {
	for _, s := range out {
		if s.d == d {
			list = append(list, s)
		}
	}
	return list
}

var hellos sync.Map

// hello is the first flight of a real TLS stack, with a post-quantum key
// share, so that it takes two segments.
func hello(t testing.TB, name string) string {
	if b, ok := hellos.Load(name); ok {
		return b.(string)
	}
	c, s := net.Pipe()
	defer c.Close()
	defer s.Close()
	go tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: name == ""}).HandshakeContext(context.Background())
	buf := make([]byte, 16<<10)
	s.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, err := s.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	hellos.Store(name, string(buf[:n]))
	return string(buf[:n])
}

func request(host, target string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nAccept-Encoding: gzip, deflate\r\n\r\n"
}

// quicInitials are two datagrams of quic-go for blocked.example.
func quicInitials(t testing.TB, version string) []string {
	return quicLines(t, "initials", version)
}

// quicSingle is a ClientHello in one datagram, its name written plain or upper.
func quicSingle(t testing.TB, form string) []string { return quicLines(t, "single", form) }

func quicLines(t testing.TB, file, key string) (out []string) {
	f, err := os.Open("../../packet/testdata/quic-go-v0.65.0-" + file + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if v, text, _ := strings.Cut(lines.Text(), " "); v == key {
			b, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, string(b))
		}
	}
	return out
}

// question is a DNS query as it arrives at the box with an IP TTL.
func question(t testing.TB, name string, qtype uint16, port uint16, ttl uint8) []byte {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	m.Id = port
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packet.BuildUDP(netip.AddrPortFrom(client4.Addr(), port), ask4, ttl, 99, b)
}

// truth is the resolver's own answer to a question.
func truth(t testing.TB, q []byte, addr string) []byte {
	p, err := packet.Parse(q)
	if err != nil {
		t.Fatal(err)
	}
	a, err := packet.BuildAnswer(p.Payload, packet.Answer{Addresses: []netip.Addr{netip.MustParseAddr(addr)}, TTL: 77})
	if err != nil {
		t.Fatal(err)
	}
	return packet.BuildUDP(p.Destination(), p.Source(), 58, 0, a)
}

// answer reads a DNS answer: rcode and the records' data.
func answer(t testing.TB, s sent) (rcode int, data []string, m *dns.Msg) {
	t.Helper()
	m = new(dns.Msg)
	if err := m.Unpack(s.Payload); err != nil {
		t.Fatalf("no DNS message: %v", err)
	}
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			data = append(data, rr.A.String())
		case *dns.AAAA:
			data = append(data, rr.AAAA.String())
		case *dns.CNAME:
			data = append(data, rr.Target)
		}
	}
	return m.Rcode, data, m
}
