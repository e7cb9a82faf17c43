package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// Incremental checksums must be those that a full computation gives
// (RFC 1624 section 4 shows how easily they are not).
func TestRewriteInPlace(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	addr := func(v6 bool) netip.AddrPort {
		var a [16]byte
		for i := range a {
			a[i] = byte(r.UintN(256) & r.UintN(2) * 255) // zeros and ones meet the corner cases
		}
		a[0] = 0x20
		port := uint16(r.UintN(65536))
		if v6 {
			return netip.AddrPortFrom(netip.AddrFrom16(a), port)
		}
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(a[:4])), port)
	}
	for i := range 4000 {
		v6 := i%2 == 0
		payload := make([]byte, r.IntN(64))
		var raw []byte
		switch i % 3 {
		case 0:
			raw = BuildTCP(Segment{Src: addr(v6), Dst: addr(v6), Seq: r.Uint32(), Payload: payload})
		default:
			raw = BuildUDP(addr(v6), addr(v6), 9, 0, payload)
		}
		src, dst := addr(v6), addr(v6)
		if i%5 == 0 {
			src = netip.AddrPort{}
		}
		if err := RewriteInPlace(raw, src, dst); err != nil {
			t.Fatal(err)
		}
		full := append([]byte(nil), raw...)
		FixChecksums(full)
		if !bytes.Equal(raw, full) && !equalModulo(raw, full) {
			t.Fatalf("packet %d: % x, want % x", i, raw, full)
		}
		p, _ := Parse(raw)
		if src.IsValid() && p.Source() != src || p.Destination() != dst {
			t.Fatalf("packet %d: endpoints %v %v", i, p.Source(), p.Destination())
		}
	}
	raw := BuildTCP(Segment{Src: a4, Dst: b4})
	if err := RewriteInPlace(raw, a6, netip.AddrPort{}); err == nil {
		t.Error("an IPv6 address went into an IPv4 packet")
	}
	// A wrong checksum stays wrong.
	raw[len(raw)-4] ^= 0x55
	if err := RewriteInPlace(raw, netip.AddrPort{}, a4); err != nil {
		t.Fatal(err)
	}
	full := append([]byte(nil), raw...)
	if FixChecksums(full); bytes.Equal(raw, full) {
		t.Error("rewriting repaired a damaged segment")
	}
}

// equalModulo says whether two packets differ in nothing but the two forms of
// a checksum of zero.
func equalModulo(a, b []byte) bool {
	for i := 0; i+1 < len(a); i += 2 {
		x, y := binary.BigEndian.Uint16(a[i:]), binary.BigEndian.Uint16(b[i:])
		if x != y && !(x == 0 && y == 0xffff || x == 0xffff && y == 0) {
			return false
		}
	}
	return len(a) == len(b)
}

func TestRenumber(t *testing.T) {
	sack := []byte{1, 1, 5, 10, 0, 0, 0, 100, 0, 0, 0, 200}
	raw := BuildTCP(Segment{Src: a6, Dst: b6, Seq: 1, Ack: 90, Flags: ACK, Options: sack})
	if err := Renumber(raw, 2, 80, func(n uint32) uint32 { return n - 10 }); err != nil {
		t.Fatal(err)
	}
	p, err := Parse(raw)
	if err != nil || p.Seq != 2 || p.Ack != 80 || !bytes.Equal(p.Options[4:], []byte{0, 0, 0, 90, 0, 0, 0, 190}) {
		t.Fatalf("%+v, %v", p, err)
	}
	if err := Renumber(BuildUDP(a4, b4, 1, 1, nil), 1, 1, nil); err == nil {
		t.Error("a datagram was renumbered")
	}
}

func TestTCPOptions(t *testing.T) {
	want := TCPOptions{MSS: 1460, SACKPermitted: true, Scaled: true, WindowScale: 7, Timestamps: true, TSVal: 5, TSEcr: 6}
	b := want.Marshal()
	if len(b)%4 != 0 {
		t.Errorf("%d bytes of options", len(b))
	}
	if got := ParseTCPOptions(b); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, bad := range [][]byte{{2}, {2, 0}, {2, 40, 1}, {8, 1}} {
		if got := ParseTCPOptions(bad); got != (TCPOptions{}) {
			t.Errorf("% x: %+v", bad, got)
		}
	}
}

func TestFragments(t *testing.T) {
	raw := BuildUDP(a4, b4, 9, 7, make([]byte, 64))
	raw[6], raw[7] = 0, 4 // offset 32
	p, err := Parse(raw)
	if !errors.Is(err, ErrFragment) || p.Dst != b4.Addr() || !p.Fragment || p.DstPort != 0 {
		t.Errorf("a later fragment: %+v, %v", p, err)
	}
	if _, err := BuildICMPError(TimeExceeded, b4.Addr(), raw, 0); err == nil {
		t.Error("an ICMP error about a later fragment (RFC 1122 3.2.2)")
	}
	raw[6], raw[7] = 0x20, 0
	if p, err := Parse(raw); err != nil || !p.Fragment || p.DstPort != 443 {
		t.Errorf("a first fragment: %+v, %v", p, err)
	}
}

// RFC 1071's own example.
func TestSum(t *testing.T) {
	if got := ^fold(sum([]byte{0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7}, 0)); got != 0xddf2 {
		t.Errorf("%04x, want ddf2", got)
	}
}

func TestICMPErrorKinds(t *testing.T) {
	for kind, want := range map[ICMPKind][4]uint8{ // IPv4 type and code, IPv6 type and code
		TimeExceeded: {11, 0, 3, 0}, NetUnreachable: {3, 0, 1, 0}, HostUnreachable: {3, 1, 1, 3},
		PortUnreachable: {3, 3, 1, 4}, AdminProhibited: {3, 13, 1, 1}, TooBig: {3, 4, 2, 0},
	} {
		for i, ends := range [][2]netip.AddrPort{{a4, b4}, {a6, b6}} {
			raw, err := BuildICMPError(kind, ends[1].Addr(), BuildUDP(ends[0], ends[1], 1, 0, make([]byte, 2000)), 1400)
			if err != nil {
				t.Fatal(err)
			}
			p, err := Parse(raw)
			if err != nil || p.Type != want[2*i] || p.Code != want[2*i+1] {
				t.Errorf("kind %d: type %d code %d, %v; want %v", kind, p.Type, p.Code, err, want)
			}
			if limit := []int{576, 1280}[i]; len(raw) > limit {
				t.Errorf("kind %d: %d bytes, above %d", kind, len(raw), limit)
			}
			if kind == TooBig && binary.BigEndian.Uint32(p.Raw[len(p.Raw)-len(p.Quoted)-4:]) != 1400 {
				t.Errorf("the MTU is not told")
			}
			again := append([]byte(nil), raw...)
			if FixChecksums(again); !bytes.Equal(again, raw) {
				t.Errorf("kind %d: checksum", kind)
			}
		}
	}
}

func TestSetID(t *testing.T) {
	for _, id := range []uint16{0, 1, 0x3412, 0xffff} {
		b := BuildTCP(Segment{Src: a4, Dst: b4, ID: 7, Flags: SYN})
		SetID(b, id)
		if want := BuildTCP(Segment{Src: a4, Dst: b4, ID: id, Flags: SYN}); !bytes.Equal(b, want) {
			t.Errorf("%x: %x, want %x", id, b, want)
		}
	}
	six := BuildTCP(Segment{Src: a6, Dst: b6, Flags: SYN})
	SetID(six, 7)
	if !bytes.Equal(six, BuildTCP(Segment{Src: a6, Dst: b6, Flags: SYN})) {
		t.Error("IPv6 has no identification")
	}
}
