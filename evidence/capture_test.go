package evidence

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"govah/packet"
)

// traffic is a capture of one client's: a question to a resolver, a connection
// with its answer, an ICMP error that quotes it, the quote cut short.
func traffic(t testing.TB, client, server, resolver, router string, port uint16, directions bool) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := packet.NewCaptureWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_790_000_000, 0)
	write := func(raw []byte, d packet.Direction) {
		at = at.Add(time.Millisecond)
		if !directions {
			d = packet.NoDirection
		}
		if err := w.Write(at, raw, d, "of o1"); err != nil {
			t.Fatal(err)
		}
	}
	own := netip.AddrPortFrom(netip.MustParseAddr(client), port)
	far := netip.AddrPortFrom(netip.MustParseAddr(server), 443)
	res := netip.AddrPortFrom(netip.MustParseAddr(resolver), 53)
	write(packet.BuildUDP(own, res, 64, port^0x1111, []byte("a question, odd")), packet.Outbound)
	write(packet.BuildUDP(res, own, 57, 7, []byte("an answer")), packet.Inbound)
	options := packet.TCPOptions{MSS: 1460, SACKPermitted: true, Timestamps: true, TSVal: 1000 + uint32(port), TSEcr: uint32(port) << 3, Scaled: true, WindowScale: 7}.Marshal()
	seq := uint32(port) * 77777
	syn := packet.BuildTCP(packet.Segment{Src: own, Dst: far, Seq: seq, Flags: packet.SYN, TTL: 64, Window: 64240, DF: true, ID: port, Options: options})
	write(syn, packet.Outbound)
	write(packet.BuildTCP(packet.Segment{Src: far, Dst: own, Seq: 1, Ack: seq + 1, Flags: packet.SYN | packet.ACK, TTL: 50, Window: 65535, Options: options}), packet.Inbound)
	data := packet.BuildTCP(packet.Segment{Src: own, Dst: far, Seq: seq + 1, Ack: 2, Flags: packet.PSH | packet.ACK, TTL: 3, Window: 502, ID: port + 1, Payload: []byte("hello, example.org")})
	write(data, packet.Outbound)
	for _, cut := range []int{0, 10} {
		e, err := packet.BuildICMPError(packet.TimeExceeded, netip.MustParseAddr(router), data, 0)
		if err != nil {
			t.Fatal(err)
		}
		e = e[:len(e)-cut]
		if own.Addr().Is4() {
			binary.BigEndian.PutUint16(e[2:], uint16(len(e)))
		} else {
			binary.BigEndian.PutUint16(e[4:], uint16(len(e)-40))
		}
		if err := packet.FixChecksums(e); err != nil {
			t.Fatal(err)
		}
		write(e, packet.Inbound)
	}
	write(packet.BuildTCP(packet.Segment{Src: far, Dst: own, Seq: 2, Ack: seq + 19, Flags: packet.RST | packet.ACK, TTL: 55}), packet.Inbound)
	return b.Bytes()
}

// without gives a capture with classes withheld, and those that are checked.
func without(t testing.TB, capture []byte, own []netip.Addr, away ...Class) []byte {
	t.Helper()
	f, err := Captured("packets.pcapng", capture, own)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.checkSegments(); err != nil {
		t.Fatal(err)
	}
	files := []File{f}
	entries, _ := plant(t, files)
	values, err := place(files, entries)
	if err != nil {
		t.Fatal(err)
	}
	of := func(i int) []byte { return values[i] }
	gone := withhold(entries, of, func(e *Entry) bool { return slices.Contains(away, e.Class) })
	return render(files, gone, opened(entries, gone, of))[0].Data
}

// TestClientLeavesNoTrace: captures of two clients that did the same are the
// same bytes once the class is withheld: nothing is left to narrow it with.
func TestClientLeavesNoTrace(t *testing.T) {
	for _, c := range [][2][2]string{{{"192.0.2.7", "10.255.3.9"}, {"198.51.100.7", "203.0.113.53"}}, {{"2001:db8:1:2::3", "2001:db8:ffff:e::9"}, {"2001:db8:9::1", "2001:db8:8::53"}}} {
		router := "100.64.0.1"
		if strings.Contains(c[0][0], ":") {
			router = "2001:db8:5::1"
		}
		for _, directions := range []bool{true, false} {
			var out [2][]byte
			for i, client := range c[0] {
				raw := traffic(t, client, c[1][0], c[1][1], router, 40000+uint16(i)*12345, directions)
				out[i] = without(t, raw, []netip.Addr{netip.MustParseAddr(client)}, Client, Rendering)
			}
			if !bytes.Equal(out[0], out[1]) {
				t.Errorf("%v: the two differ", c[0])
			}
			for _, left := range []string{c[1][0], c[1][1], router} {
				a := netip.MustParseAddr(left)
				if !bytes.Contains(out[0], a.AsSlice()) {
					t.Errorf("%s was not to be withheld", left)
				}
			}
			for _, left := range []string{"hello, example.org", "a question"} {
				if !bytes.Contains(out[0], []byte(left)) {
					t.Errorf("%q was not to be withheld", left)
				}
			}
		}
	}
}

// TestOtherClassesLeaveNoTrace: the same for the server, the network, the time
// and what packets carry.
func TestOtherClassesLeaveNoTrace(t *testing.T) {
	a := traffic(t, "192.0.2.7", "198.51.100.7", "203.0.113.53", "100.64.0.1", 40000, true)
	b := traffic(t, "192.0.2.7", "198.51.100.99", "203.0.113.53", "100.64.0.1", 40000, true)
	if !bytes.Equal(without(t, a, nil, Target, Rendering), without(t, b, nil, Target, Rendering)) {
		t.Error("the servers can be told")
	}
	b = traffic(t, "192.0.2.7", "198.51.100.7", "203.0.113.54", "100.64.0.77", 40000, true)
	if !bytes.Equal(without(t, a, nil, Network, Rendering), without(t, b, nil, Network, Rendering)) {
		t.Error("router or resolver can be told")
	}
	b = bytes.ReplaceAll(a, []byte("hello, example.org"), []byte("hello, example.net"))
	if !bytes.Equal(without(t, a, nil, Payload, Rendering), without(t, b, nil, Payload, Rendering)) {
		t.Error("the payload can be told")
	}
	if bytes.Contains(without(t, a, nil, Foreign), []byte("of o1")) {
		t.Error("a comment is left")
	}
	// Of an unknown direction both ends count as the client.
	a = traffic(t, "192.0.2.7", "198.51.100.7", "203.0.113.53", "100.64.0.1", 40000, false)
	if out := without(t, a, nil, Client); bytes.Contains(out, []byte{192, 0, 2, 7}) || bytes.Contains(out, []byte{198, 51, 100, 7}) {
		t.Error("an address is left")
	}
}

// TestChecksumsAreOfEverything: whatever is withheld, checksums are known by
// class Rendering, so that they go with it.
func TestChecksumsAreOfEverything(t *testing.T) {
	raw := packet.BuildTCP(packet.Segment{Src: netip.MustParseAddrPort("192.0.2.7:4000"), Dst: netip.MustParseAddrPort("198.51.100.7:443"), TTL: 64, Payload: []byte("x")})
	s := strip{raw, make([]Class, len(raw))}
	s.paint(Rendering)
	s.ip(sender, nil)
	for _, at := range []int{10, 11, 36, 37} {
		if s.c[at] != Rendering {
			t.Errorf("byte %d is of class %v", at, s.c[at])
		}
	}
	for at, c := range s.c {
		if c == Rendering && at != 10 && at != 11 && at != 36 && at != 37 {
			t.Errorf("byte %d is not understood", at)
		}
	}
}

func FuzzCaptured(f *testing.F) {
	f.Add(traffic(f, "192.0.2.7", "198.51.100.7", "203.0.113.53", "100.64.0.1", 40000, true))
	f.Add(traffic(f, "2001:db8::7", "2001:db8:1::7", "2001:db8::53", "2001:db8:2::1", 40000, false))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Captured("p", b, nil)
		if err == nil {
			if err := file.checkSegments(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
