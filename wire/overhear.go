package wire

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"sync"
	"time"

	"govah/measure"
	"govah/packet"
)

const (
	// lateQuiet is how long nothing may have come before what a device sends
	// one after the other is taken to be whole, lateMost how long that is
	// waited for.
	lateQuiet = 100 * time.Millisecond
	lateMost  = 400 * time.Millisecond
	// maxPayloadHex is up to how many bytes a payload is kept itself.
	maxPayloadHex = 32
)

// Overheard is a Network on which the packets of its own connections to one
// server are captured, and nobody else's.
type Overheard struct {
	Network
	capture Capture
	remote  netip.AddrPort

	mu    sync.Mutex
	ports map[uint16]bool // ours
}

// Overhear begins to capture what is said with a server over the Network that
// it returns; nil where that is not allowed.
func Overhear(ctx context.Context, n Network, remote netip.AddrPort) *Overheard {
	if !n.View().Capture {
		return nil
	}
	c, err := n.Capture(ctx, Flow{Remote: remote})
	if err != nil {
		return nil
	}
	return &Overheard{Network: n, capture: c, remote: remote, ports: map[uint16]bool{}}
}

// Dial implements Network.
func (h *Overheard) Dial(ctx context.Context, spec DialSpec) (Conn, error) {
	conn, err := h.Network.Dial(ctx, spec)
	if err == nil {
		h.own(addrPort(conn.LocalAddr()).Port())
	}
	return conn, err
}

// ListenPacket implements Network.
func (h *Overheard) ListenPacket(ctx context.Context, local netip.AddrPort) (PacketConn, error) {
	conn, err := h.Network.ListenPacket(ctx, local)
	if err == nil {
		h.own(addrPort(conn.LocalAddr()).Port())
	}
	return conn, err
}

func (h *Overheard) own(port uint16) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ports[port] = true
}

// Close ends the capture.
func (h *Overheard) Close() error { return h.capture.Close() }

// Late waits for what a device may still send after its first packet.
func (h *Overheard) Late(ctx context.Context) {
	for began := time.Now(); time.Since(began) < lateMost; {
		last := began
		if list := h.capture.Packets(); len(list) > 0 && list[len(list)-1].At.After(last) {
			last = list[len(list)-1].At
		}
		if time.Since(last) >= lateQuiet || Sleep(ctx, lateQuiet/10) != nil {
			return
		}
	}
}

// Packets are those of the connections that were made here, as they are
// recorded.
func (h *Overheard) Packets(l *Log) (out []measure.Packet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.capture.Packets() {
		if len(out) == measure.MaxPackets {
			break
		}
		p, err := packet.Parse(c.Data)
		if err != nil || p.Proto != packet.TCP && p.Proto != packet.UDP {
			continue
		}
		near, far := p.Destination(), p.Source()
		if c.Sent {
			near, far = far, near
			if len(p.Payload) == 0 && p.Flags&packet.SYN == 0 {
				continue // an acknowledgement, or how we ended it
			}
		}
		if !h.ports[near.Port()] || unmapPort(far) != unmapPort(h.remote) {
			continue
		}
		out = append(out, recordPacket(l, c, &p))
	}
	return out
}

func recordPacket(l *Log, c Packet, p *packet.Packet) measure.Packet {
	m := measure.Packet{AtUS: l.Since(c.At), Sent: c.Sent, TTL: int(p.TTL), IPID: int(p.ID), DF: p.DF, Bytes: len(p.Payload)}
	if p.Proto != packet.TCP {
		return m
	}
	for i, letter := range "FSRPAU" {
		if p.Flags&(1<<i) != 0 {
			m.Flags += string(letter)
		}
	}
	m.Window, m.Seq, m.Ack = int(p.Window), int64(p.Seq), int64(p.Ack)
	switch n := len(p.Payload); {
	case c.Sent || n == 0 || p.Flags&packet.RST == 0:
	case n <= maxPayloadHex:
		m.Data = hex.EncodeToString(p.Payload)
	default:
		sum := sha256.Sum256(p.Payload)
		m.SHA256 = hex.EncodeToString(sum[:])
	}
	return m
}
