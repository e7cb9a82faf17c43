package exposure

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"govah/packet"
)

// The addresses of the tests (RFC 5737, RFC 3849).
var (
	own4, own6     = netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")
	other4, other6 = netip.MustParseAddr("198.51.100.77"), netip.MustParseAddr("2001:db8:77::77")
	server4        = netip.MustParseAddr("203.0.113.5")
	server6        = netip.MustParseAddr("2001:db8:5::5")
	own            = []netip.Addr{own4, own6}
)

// tape is a capture that is being made.
type tape struct {
	packets [][]byte
	port    uint16 // the last client's
	rand    *rand.Rand
	segment int // bytes of one segment, 0: 1200
}

func newTape(seed uint64) *tape {
	return &tape{port: 20000, rand: rand.New(rand.NewPCG(seed, 1))}
}

func (t *tape) add(raw []byte) { t.packets = append(t.packets, raw) }

// file writes the packets as pcapng.
func (t *tape) file(tb testing.TB) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := packet.NewCaptureWriter(&b)
	if err != nil {
		tb.Fatal(err)
	}
	at := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	for i, raw := range t.packets {
		if err := w.Write(at.Add(time.Duration(i)*time.Millisecond), raw, packet.NoDirection, ""); err != nil {
			tb.Fatal(err)
		}
	}
	return b.Bytes()
}

// tcp is one TCP connection on a tape.
type tcp struct {
	t              *tape
	client, server netip.AddrPort
	cseq, sseq     uint32
}

// open makes a connection from a client's address to a server's port.
func (t *tape) open(client netip.Addr, port uint16) *tcp {
	c := t.midway(client, port)
	c.t.add(packet.BuildTCP(packet.Segment{Src: c.client, Dst: c.server, Seq: c.cseq, Flags: packet.SYN, Window: 65535}))
	c.cseq++
	c.t.add(packet.BuildTCP(packet.Segment{Src: c.server, Dst: c.client, Seq: c.sseq, Ack: c.cseq, Flags: packet.SYN | packet.ACK, Window: 65535}))
	c.sseq++
	c.t.add(packet.BuildTCP(packet.Segment{Src: c.client, Dst: c.server, Seq: c.cseq, Ack: c.sseq, Flags: packet.ACK, Window: 65535}))
	return c
}

// midway makes one whose beginning was not captured.
func (t *tape) midway(client netip.Addr, port uint16) *tcp {
	t.port++
	server := server4
	if client.Is6() {
		server = server6
	}
	return &tcp{t, netip.AddrPortFrom(client, t.port), netip.AddrPortFrom(server, port), t.rand.Uint32(), t.rand.Uint32()}
}

// says puts what one side writes on the tape, and returns its segments.
func (c *tcp) says(data string) *tcp {
	for _, raw := range c.segments(data) {
		c.t.add(raw)
	}
	c.t.add(packet.BuildTCP(packet.Segment{Src: c.server, Dst: c.client, Seq: c.sseq, Ack: c.cseq, Flags: packet.ACK, Window: 65535}))
	return c
}

func (c *tcp) segments(data string) (list [][]byte) {
	size := c.t.segment
	if size == 0 {
		size = 1200
	}
	for len(data) > 0 {
		n := min(size, len(data))
		list = append(list, packet.BuildTCP(packet.Segment{Src: c.client, Dst: c.server, Seq: c.cseq, Ack: c.sseq, Flags: packet.ACK | packet.PSH, Window: 65535, Payload: []byte(data[:n])}))
		c.cseq += uint32(n)
		data = data[n:]
	}
	return list
}

func (c *tcp) hears(data string) *tcp {
	for len(data) > 0 {
		n := min(1200, len(data))
		c.t.add(packet.BuildTCP(packet.Segment{Src: c.server, Dst: c.client, Seq: c.sseq, Ack: c.cseq, Flags: packet.ACK | packet.PSH, Window: 65535, Payload: []byte(data[:n])}))
		c.sseq += uint32(n)
		data = data[n:]
	}
	c.t.add(packet.BuildTCP(packet.Segment{Src: c.client, Dst: c.server, Seq: c.cseq, Ack: c.sseq, Flags: packet.ACK, Window: 65535}))
	return c
}

// talk is a dialogue: what the client writes begins with >, the rest is
// the server's.
func (c *tcp) talk(lines ...string) *tcp {
	for _, line := range lines {
		if line != "" && line[0] == '>' {
			c.says(line[1:] + "\r\n")
		} else {
			c.hears(line + "\r\n")
		}
	}
	return c
}

func u16(b []byte, v int) []byte { return append(b, byte(v>>8), byte(v)) }

// message is a ClientHello's handshake message. pad makes it longer.
func message(name string, ech bool, pad int) []byte {
	var exts []byte
	ext := func(typ int, body []byte) {
		exts = u16(u16(exts, typ), len(body))
		exts = append(exts, body...)
	}
	ext(10, []byte{0, 2, 0, 29})
	ext(13, []byte{0, 2, 4, 3})
	if pad > 0 {
		ext(21, make([]byte, pad))
	}
	if name != "" {
		body := append(u16([]byte{0}, len(name)), name...)
		ext(0, append(u16(nil, len(body)), body...))
	}
	ext(43, []byte{2, 3, 4})
	ext(51, append([]byte{0, 36, 0, 29, 0, 32}, make([]byte, 32)...))
	if ech {
		body := append([]byte{0, 0, 1, 0, 1, 7, 0, 32}, make([]byte, 32)...)
		ext(0xfe0d, append(u16(body, 144), make([]byte, 144)...))
	}
	b := append([]byte{3, 3}, make([]byte, 32)...)
	b = append(b, 0)
	b = append(b, 0, 2, 0x13, 1, 1, 0)
	b = append(u16(b, len(exts)), exts...)
	return append([]byte{1, 0, byte(len(b) >> 8), byte(len(b))}, b...)
}

// hello is a ClientHello in one TLS record.
func hello(name string, ech bool, pad int) string {
	m := message(name, ech, pad)
	return string(append(u16([]byte{22, 3, 1}, len(m)), m...))
}

func query(id int, name string) []byte {
	b := u16(nil, id)
	b = append(b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	for label := range bytes.SplitSeq([]byte(name), []byte(".")) {
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0, 0, 1, 0, 1)
}

func (t *tape) udp(src netip.AddrPort, port uint16, payload []byte) {
	server := server4
	if src.Addr().Is6() {
		server = server6
	}
	t.add(packet.BuildUDP(src, netip.AddrPortFrom(server, port), 64, 0, payload))
}

// asks puts a DNS question and its answer on the tape.
func (t *tape) asks(client netip.Addr, name string) {
	t.port++
	q := query(int(t.port), name)
	from := netip.AddrPortFrom(client, t.port)
	t.udp(from, 53, q)
	server := server4
	if client.Is6() {
		server = server6
	}
	answer, err := packet.BuildAnswer(q, packet.Answer{Addresses: []netip.Addr{server4}, TTL: 60})
	if err != nil {
		panic(err)
	}
	t.add(packet.BuildUDP(netip.AddrPortFrom(server, 53), from, 64, 0, answer))
}

func label(secret []byte, name string, n int) []byte {
	info := append([]byte{byte(n >> 8), byte(n), byte(len("tls13 " + name))}, "tls13 "+name...)
	out, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
	if err != nil {
		panic(err)
	}
	return out
}

// initial is a client's datagram of QUIC v1 (RFC 9001 5) with a piece of the
// handshake stream.
func initial(dcid []byte, number byte, offset int, crypto []byte) []byte {
	salt := []byte{0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a}
	first, err := hkdf.Extract(sha256.New, dcid, salt)
	if err != nil {
		panic(err)
	}
	keys := label(first, "client in", 32)
	block, _ := aes.NewCipher(label(keys, "quic key", 16))
	hp, _ := aes.NewCipher(label(keys, "quic hp", 16))
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	plain := u16([]byte{6}, 0x4000|offset)
	plain = append(u16(plain, 0x4000|len(crypto)), crypto...)
	plain = append(plain, make([]byte, max(0, 1162-len(plain)))...)
	head := append([]byte{0xc3, 0, 0, 0, 1, byte(len(dcid))}, dcid...)
	head = append(head, 0, 0)
	head = u16(head, 0x4000|(4+len(plain)+16))
	head = append(head, 0, 0, 0, number)
	nonce := label(keys, "quic iv", 12)
	nonce[11] ^= number
	out := aead.Seal(append([]byte(nil), head...), nonce, plain, head)
	var m [16]byte
	pn := len(head) - 4
	hp.Encrypt(m[:], out[pn+4:pn+20])
	out[0] ^= m[0] & 0x0f
	for i := range 4 {
		out[pn+i] ^= m[1+i]
	}
	return out
}

// quic puts a client's handshake on the tape, in two datagrams where it has a
// long padding, the second piece first if swapped.
func (t *tape) quic(client netip.Addr, name string, ech, swapped bool, pad int) {
	t.port++
	m := message(name, ech, pad)
	dcid := binary.BigEndian.AppendUint64(nil, t.rand.Uint64())
	from := netip.AddrPortFrom(client, t.port)
	if len(m) < 1100 {
		t.udp(from, 443, initial(dcid, 0, 0, m))
		return
	}
	one, two := initial(dcid, 0, 0, m[:600]), initial(dcid, 1, 600, m[600:])
	if swapped {
		one, two = two, one
	}
	t.udp(from, 443, one)
	t.udp(from, 443, two)
}
