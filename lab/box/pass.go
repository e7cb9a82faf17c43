package box

import (
	"encoding/binary"
	"time"

	"govah/packet"
)

// mark is a rule that goes on acting on a flow.
type mark struct {
	rule    *rule
	from    time.Time // not before
	base    int       // bytes from the server when it was made
	packets int       // since
	bucket  bucket
}

// mark makes a rule go on acting on the packet's flow. Where it does already,
// nothing changes.
func (e *event) mark(r *rule) {
	if e.fl == nil || e.revisited(r) {
		return
	}
	if r.Handshaken || r.Records > 0 {
		e.fl.tls = newHandshake(e)
	}
	e.fl.marks = append(e.fl.marks, mark{rule: r, from: e.now.Add(r.engage), base: e.fl.fromServer, packets: -1})
}

// pass lets a packet through, unless a rule goes on acting on its flow. It
// reports true: the packet has been dealt with.
func (f *Filter) pass(e *event) bool {
	delay := time.Duration(0)
	raw := e.p.Raw
	if fl := e.fl; fl != nil {
		for i := range fl.marks {
			m := &fl.marks[i]
			if e.now.Before(m.from) {
				continue
			}
			wait, stop := f.hold(m, e)
			if stop {
				return true
			}
			delay += wait
		}
		if fl.tamper != nil {
			fl.tamper.handle(e, delay)
			return true
		}
	}
	e.emit(e.d, raw, delay)
	return true
}

// hold says how a mark delays a packet, or that it stops it.
func (f *Filter) hold(m *mark, e *event) (delay time.Duration, stop bool) {
	r, fl := m.rule, e.fl
	m.packets++
	// What slows or freezes does so towards the client unless told otherwise.
	download := r.Side == "" && !e.up() || r.Side != "" && r.side(e.d)
	switch r.Action {
	case "drop":
		if r.Handshaken {
			if !fl.tls.done() {
				return 0, false
			}
			r.engaged(e)
		}
		return 0, r.side(e.d)
	case "alert", "page", "redirect", "dns-answer", "dns-nxdomain", "dns-servfail", "dns-refused", "dns-empty":
		return 0, true
	case "reset-replies":
		if e.up() || e.p.Proto != packet.TCP {
			return 0, false
		}
		s := e.onward()
		s.Flags, s.Window, s.TTL, s.ID = packet.RST|packet.ACK, e.p.Window, e.p.TTL, e.p.ID
		e.emit(e.d, packet.BuildTCP(s), 0)
		return 0, true
	case "freeze":
		return 0, download && fl.fromServer-m.base > r.Bytes
	case "drop-after":
		if r.Handshaken && !fl.tls.done() {
			m.packets, m.base = 0, fl.fromServer
			return 0, false
		}
		over := r.Packets > 0 && m.packets > r.Packets || r.Bytes > 0 && fl.fromServer-m.base > r.Bytes ||
			r.Records > 0 && fl.tls.data() > r.Records
		if over {
			r.engaged(e)
		}
		return 0, over && r.side(e.d)
	case "throttle":
		if !download {
			return 0, false
		}
		return m.bucket.limit(r, len(e.p.Raw), e.now)
	}
	return 0, false
}

// engaged begins the residual blocking of a rule that acts later than its
// trigger came.
func (r *rule) engaged(e *event) {
	if r.Residual == "" {
		return
	}
	if k := r.keyOf(e); r.memory.Lookup(k, e.now) == nil {
		r.memory.Put(k, memory{e.now, e.now.Add(r.keep)}, e.now)
	}
}

// bucket is a token bucket that drops (policing), or a queue that delays
// (shaping).
type bucket struct {
	tokens int64 // bytes times nanoseconds a byte, so that nothing is lost in rounding
	filled time.Time
	busy   time.Time
}

func (b *bucket) limit(r *rule, n int, now time.Time) (delay time.Duration, drop bool) {
	perByte := int64(8_000_000 / r.Rate) // ns
	perByte = max(1, perByte)
	if r.Shaping {
		queue := int64(r.Queue)
		if queue == 0 {
			queue = 64 << 10
		}
		if b.busy.Before(now) {
			b.busy = now
		}
		if int64(b.busy.Sub(now)) > queue*perByte {
			return 0, true
		}
		b.busy = b.busy.Add(time.Duration(int64(n) * perByte))
		return b.busy.Sub(now), false
	}
	burst := int64(r.Burst)
	if burst == 0 {
		burst = 8000
	}
	burst *= perByte
	if b.filled.IsZero() {
		b.tokens = burst
	} else {
		b.tokens = min(burst, b.tokens+max(0, int64(now.Sub(b.filled))))
	}
	b.filled = now
	if b.tokens < int64(n)*perByte {
		return 0, true
	}
	b.tokens -= int64(n) * perByte
	return 0, false
}

// handshake watches a TLS connection from its ClientHello on, by the types of
// its records alone.
type handshake struct {
	client, server records
	finished       bool
	before         int // records of data from the server when it was finished
}

func newHandshake(e *event) *handshake {
	h := &handshake{}
	h.client.stream.Start(e.p.Seq + uint32(len(e.p.Payload)))
	h.server.stream.Start(e.p.Ack)
	return h
}

// done says whether the client has completed the handshake. In TLS 1.3 that
// is when it answers the server's encrypted flight; in TLS 1.2, when it sends
// data.
func (h *handshake) done() bool {
	if !h.finished && (h.client.data > 0 || h.client.cipher && h.server.data > 0) {
		h.finished, h.before = true, h.server.data
	}
	return h.finished
}

// data counts the records of data from the server after the handshake.
func (h *handshake) data() int {
	if !h.done() {
		return 0
	}
	return h.server.data - h.before
}

// records follows the TLS records of one direction (RFC 8446 5.1).
type records struct {
	stream packet.Stream
	head   []byte
	skip   int
	data   int  // records of type application_data
	cipher bool // a change_cipher_spec was seen
}

func (r *records) add(seq uint32, b []byte) {
	if !r.stream.Add(seq, b) {
		return
	}
	b = r.stream.Take()
	for len(b) > 0 {
		if r.skip > 0 {
			n := min(r.skip, len(b))
			r.skip -= n
			b = b[n:]
			continue
		}
		n := min(5-len(r.head), len(b))
		r.head = append(r.head, b[:n]...)
		b = b[n:]
		if len(r.head) == 5 {
			switch r.head[0] {
			case 20:
				r.cipher = true
			case 23:
				r.data++
			}
			r.skip = int(binary.BigEndian.Uint16(r.head[3:]))
			r.head = r.head[:0]
		}
	}
}
