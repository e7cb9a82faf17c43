package box

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"govah/packet"
)

// mailLine sends one segment through a device and gives what left it.
func mailLine(t *testing.T, m *Mail, d Direction, seq, ack uint32, payload string) (out []packet.Packet, to []Direction) {
	t.Helper()
	client, server := netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort("198.51.100.25:587")
	s := packet.Segment{Src: client, Dst: server, Seq: seq, Ack: ack, Flags: packet.ACK | packet.PSH, TTL: 64, Window: 500, Payload: []byte(payload)}
	if d == In {
		s.Src, s.Dst = server, client
	}
	m.Handle(d, packet.BuildTCP(s), time.Now(), func(d Direction, b []byte, _ time.Duration) {
		p, err := packet.Parse(b)
		if err != nil || !bytes.Equal(p.Raw, b) {
			t.Fatalf("%v", err)
		}
		whole := append([]byte(nil), b...)
		if packet.FixChecksums(whole); !bytes.Equal(whole, b) {
			t.Errorf("wrong checksums behind %q", payload)
		}
		out, to = append(out, p), append(to, d)
	})
	return out, to
}

func TestMailInPath(t *testing.T) {
	mask := &Mail{Ports: []int{587}, Does: []string{"mask"}}
	if out, to := mailLine(t, mask, Out, 100, 500, "starttls\r\n"); len(out) != 1 || to[0] != Out || string(out[0].Payload) != "XXXXXXXX\r\n" {
		t.Errorf("mask: %v %v", out, to)
	}
	if out, _ := mailLine(t, mask, In, 500, 110, "250-STARTTLS\r\n250 SIZE\r\n"); len(out) != 1 || string(out[0].Payload) != "250-XXXXXXXA\r\n250 SIZE\r\n" {
		t.Errorf("mask of the offer: %v", out)
	}
	offer := &Mail{Ports: []int{587}, Does: []string{"mask-offer"}}
	if out, _ := mailLine(t, offer, Out, 100, 500, "STARTTLS\r\n"); len(out) != 1 || string(out[0].Payload) != "STARTTLS\r\n" {
		t.Errorf("mask-offer touches the command: %v", out)
	}
	swallow := &Mail{Ports: []int{587}, Does: []string{"swallow"}}
	if out, _ := mailLine(t, swallow, Out, 100, 500, "STARTTLS\r\n"); len(out) != 0 {
		t.Errorf("swallow: %v", out)
	}
	cut := &Mail{Ports: []int{587}, Does: []string{"cut"}}
	if out, to := mailLine(t, cut, Out, 100, 500, "STARTTLS\r\n"); len(out) != 2 || to[0] != In || to[1] != Out || out[0].Flags&packet.RST == 0 || out[1].Flags&packet.RST == 0 || out[0].Seq != 500 || out[1].Seq != 100 {
		t.Errorf("cut: %v %v", out, to)
	}
	refuse := &Mail{Ports: []int{587}, Does: []string{"refuse"}, Reply: func(string) string { return "502 no\r\n" }}
	for range 2 { // the second is a retransmission
		out, to := mailLine(t, refuse, Out, 100, 500, "STARTTLS\r\n")
		if len(out) != 1 || to[0] != In || string(out[0].Payload) != "502 no\r\n" || out[0].Seq != 500 || out[0].Ack != 110 {
			t.Fatalf("refuse: %v %v", out, to)
		}
	}
	// Neither end notices: what was said in between is taken out of the numbers.
	if out, to := mailLine(t, refuse, Out, 110, 508, "QUIT\r\n"); len(out) != 1 || to[0] != Out || out[0].Seq != 100 || out[0].Ack != 500 {
		t.Errorf("after it: %v %v", out, to)
	}
	if out, to := mailLine(t, refuse, In, 500, 106, "221 bye\r\n"); len(out) != 1 || to[0] != In || out[0].Seq != 508 || out[0].Ack != 116 {
		t.Errorf("its answer: %v %v", out, to)
	}
}
