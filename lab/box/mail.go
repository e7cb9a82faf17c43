package box

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"govah/packet"
)

// Mail meddles with segments of mail dialogues as they pass: it ends no
// connection and keeps no copy of one, as inspecting firewalls do.
type Mail struct {
	Ports []int
	// Does is of: mask, X's in the place of the command that begins encryption
	// and of its offer; mask-offer, of the offer alone; mask-banner, asterisks in
	// the greeting; refuse, it answers the command itself; swallow, the command
	// does not get through; cut, it ends the connection on both sides.
	Does []string
	// Reply is what refuse answers, by the command's own line.
	Reply func(line string) string
	// Names, if not nil, says whether it meddles with a server.
	Names func(netip.Addr) bool

	flows  map[mailFlow]*shift
	begins map[mailFlow]uint32 // the number of a server's first byte, for mask-banner
}

type mailFlow struct{ client, server netip.AddrPort }

// shift is how far the numbers of a flow are apart once a command was answered
// that the server never got.
type shift struct{ client, server, sent, said uint32 }

// maxMailFlows bounds what is remembered.
const maxMailFlows = 4096

// Handle implements Box.
func (m *Mail) Handle(d Direction, pkt []byte, _ time.Time, emit Emit) {
	p, err := packet.Parse(pkt)
	if err != nil || p.Proto != packet.TCP {
		emit(d, pkt, 0)
		return
	}
	f := mailFlow{p.Source(), p.Destination()}
	if d == In {
		f = mailFlow{f.server, f.client}
	}
	if !slices.Contains(m.Ports, int(f.server.Port())) || m.Names != nil && !m.Names(f.server.Addr()) {
		emit(d, pkt, 0)
		return
	}
	if d == In {
		m.down(f, &p)
	} else if m.up(f, &p, emit) {
		return
	}
	emit(d, pkt, 0)
}

// starts finds the command for encryption, or its offer, in a payload.
func starts(payload []byte) (at, n int) {
	upper := bytes.ToUpper(payload)
	for _, word := range []string{"STARTTLS", "STLS"} {
		if i := bytes.Index(upper, []byte(word)); i >= 0 {
			return i, len(word)
		}
	}
	return 0, 0
}

// up handles what goes to a server. It says whether that ends there.
func (m *Mail) up(f mailFlow, p *packet.Packet, emit Emit) bool {
	at, n := starts(p.Payload)
	switch {
	case n > 0 && slices.Contains(m.Does, "swallow"):
		return true
	case n > 0 && slices.Contains(m.Does, "cut"):
		s := p.Reply()
		s.Flags, s.TTL = packet.RST|packet.ACK, 64
		emit(In, packet.BuildTCP(s), 0)
		s = packet.Segment{Src: p.Source(), Dst: p.Destination(), Seq: p.Seq, Ack: p.Ack, Flags: packet.RST | packet.ACK, TTL: 64}
		emit(Out, packet.BuildTCP(s), 0)
		return true
	case n > 0 && slices.Contains(m.Does, "refuse"):
		reply := []byte(m.Reply(string(p.Payload)))
		if s := m.flows[f]; s == nil {
			if m.flows == nil || len(m.flows) >= maxMailFlows {
				m.flows = map[mailFlow]*shift{}
			}
			m.flows[f] = &shift{p.Seq, p.Ack, uint32(len(p.Payload)), uint32(len(reply))}
		} else if p.Seq != s.client {
			break // one command is answered
		}
		s := p.Reply()
		s.Seq, s.Flags, s.Window, s.TTL, s.Payload = m.flows[f].server, packet.PSH|packet.ACK, 65535, 64, reply
		emit(In, packet.BuildTCP(s), 0)
		return true
	case n > 0 && slices.Contains(m.Does, "mask"):
		copy(p.Payload[at:], bytes.Repeat([]byte("X"), n))
		packet.FixChecksums(p.Raw)
	}
	if s := m.flows[f]; s != nil {
		seq, ack := p.Seq, p.Ack
		if int32(seq-s.client) >= int32(s.sent) {
			seq -= s.sent
		}
		if int32(ack-s.server) >= int32(s.said) {
			ack -= s.said
		}
		packet.Renumber(p.Raw, seq, ack, nil)
	}
	if p.Flags&(packet.SYN|packet.RST) != 0 {
		delete(m.flows, f)
	}
	return false
}

// down changes what a server says.
func (m *Mail) down(f mailFlow, p *packet.Packet) {
	if slices.Contains(m.Does, "mask-banner") {
		m.banner(f, p)
	}
	if at, n := starts(p.Payload); n > 0 && (slices.Contains(m.Does, "mask") || slices.Contains(m.Does, "mask-offer")) {
		// The last letter is kept (Cisco's inspect esmtp).
		copy(p.Payload[at:], append(bytes.Repeat([]byte("X"), n-1), 'A'))
		packet.FixChecksums(p.Raw)
	}
	if s := m.flows[f]; s != nil {
		seq, ack := p.Seq, p.Ack
		if int32(seq-s.server) >= 0 {
			seq += s.said
		}
		if int32(ack-s.client) >= 0 {
			ack += s.sent
		}
		packet.Renumber(p.Raw, seq, ack, nil)
	}
}

// banner puts asterisks in the place of a greeting, behind its first word.
func (m *Mail) banner(f mailFlow, p *packet.Packet) {
	if p.Flags&packet.SYN != 0 {
		if m.begins == nil || len(m.begins) >= maxMailFlows {
			m.begins = map[mailFlow]uint32{}
		}
		m.begins[f] = p.Seq + 1
		return
	}
	if at, known := m.begins[f]; !known || p.Seq != at {
		return
	}
	behind := false
	for i, c := range p.Payload {
		if behind = behind || c == ' '; behind && c > ' ' {
			p.Payload[i] = '*'
		}
	}
	packet.FixChecksums(p.Raw)
}
