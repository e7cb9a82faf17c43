package packet

import (
	"net/netip"
	"sort"
	"time"
)

// FlowKey identifies a flow from the side that opened it.
type FlowKey struct {
	Client, Server netip.AddrPort
	Proto          uint8
}

// Stream reassembles one direction of a TCP connection up to a limit. Where
// segments overlap, the bytes that came first win unless LastWins is set: that
// concerns bytes behind a gap alone, as what is in Data has been read already.
type Stream struct {
	LastWins bool
	Limit    int // bytes held in all, 0 is 64 KiB

	started bool
	next    uint32 // sequence number of the first byte not in Data
	held    []held
	size    int
	Data    []byte
	// Full is set when something was dropped because the limit was reached.
	Full bool
}

type held struct {
	seq  uint32
	data []byte
}

const (
	maxStream = 64 << 10
	maxHeld   = 128 // segments behind a gap
)

// Start sets the sequence number of the first byte: that of the SYN plus one.
func (s *Stream) Start(seq uint32) {
	if !s.started {
		s.started, s.next = true, seq
	}
}

// Next is the sequence number that follows Data.
func (s *Stream) Next() uint32 { return s.next }

// Take removes what is in Data, which makes room for more.
func (s *Stream) Take() []byte {
	b := s.Data
	s.size -= len(b)
	s.Data = nil
	return b
}

// Add takes a segment's payload. It reports whether Data grew.
func (s *Stream) Add(seq uint32, data []byte) bool {
	if len(data) == 0 {
		return false
	}
	s.Start(seq)
	limit := s.Limit
	if limit == 0 {
		limit = maxStream
	}
	if s.size+len(data) > limit {
		s.Full = true
		return false
	}
	before := len(s.Data)
	if d := int32(seq - s.next); d > 0 {
		if int(d) < limit && len(s.held) < maxHeld {
			s.hold(held{seq, append([]byte(nil), data...)})
			s.size += len(data)
		} else {
			s.Full = true
		}
		return false
	}
	if len(s.held) > 0 && !s.LastWins {
		data = append([]byte(nil), data...)
		s.yield(seq, data)
	}
	s.take(seq, data)
	for len(s.held) > 0 && int32(s.held[0].seq-s.next) <= 0 {
		h := s.held[0]
		s.held = s.held[1:]
		s.size -= len(h.data)
		s.take(h.seq, h.data)
	}
	return len(s.Data) > before
}

// hold keeps a segment behind a gap, in the order of the sequence numbers.
// Overlaps with those already there are settled at once.
func (s *Stream) hold(h held) {
	if s.LastWins {
		for i, o := range s.held {
			// The newer bytes are written over the older ones.
			if d := int(int32(h.seq - o.seq)); d >= 0 && d < len(o.data) {
				copy(s.held[i].data[d:], h.data)
			} else if d < 0 && -d < len(h.data) {
				copy(s.held[i].data, h.data[-d:])
			}
		}
	} else {
		s.yield(h.seq, h.data)
	}
	at := sort.Search(len(s.held), func(i int) bool { return int32(s.held[i].seq-h.seq) > 0 })
	s.held = append(s.held, held{})
	copy(s.held[at+1:], s.held[at:])
	s.held[at] = h
}

// yield writes what is held already over new bytes.
func (s *Stream) yield(seq uint32, data []byte) {
	for _, o := range s.held {
		if d := int(int32(o.seq - seq)); d >= 0 && d < len(data) {
			copy(data[d:], o.data)
		} else if d < 0 && -d < len(o.data) {
			copy(data, o.data[-d:])
		}
	}
}

func (s *Stream) take(seq uint32, data []byte) {
	skip := int(int32(s.next - seq))
	if skip < 0 || skip >= len(data) {
		return
	}
	s.Data = append(s.Data, data[skip:]...)
	s.size += len(data) - skip
	s.next += uint32(len(data) - skip)
}

// Table holds per-flow state of any kind, bounded in number and age. The zero
// value is ready. It has no clock of its own.
type Table[T any] struct {
	Max  int           // 0: 65,536
	Idle time.Duration // 0: five minutes
	m    map[FlowKey]*entry[T]
	// A ring, the most recently used after root, so that what is forgotten
	// first is found at once.
	root *entry[T]
}

type entry[T any] struct {
	key        FlowKey
	value      T
	used       time.Time
	prev, next *entry[T]
}

// Get finds the state of a flow in either direction. forward says that the
// packet goes from the flow's client to its server; found is false when there
// is no state.
func (t *Table[T]) Get(p *Packet, now time.Time) (key FlowKey, value *T, forward, found bool) {
	key = FlowKey{p.Source(), p.Destination(), p.Proto}
	if v := t.Lookup(key, now); v != nil {
		return key, v, true, true
	}
	back := FlowKey{p.Destination(), p.Source(), p.Proto}
	if v := t.Lookup(back, now); v != nil {
		return back, v, false, true
	}
	return key, nil, true, false
}

// Lookup gives the state under exactly this key, nil if there is none.
func (t *Table[T]) Lookup(key FlowKey, now time.Time) *T {
	e := t.m[key]
	if e == nil {
		return nil
	}
	if now.Sub(e.used) >= t.idle() {
		t.remove(e)
		return nil
	}
	e.used = now
	e.unlink()
	t.front(e)
	return &e.value
}

// Put opens state for a flow. Where there is no room, the flow that was used
// least recently is forgotten.
func (t *Table[T]) Put(key FlowKey, value T, now time.Time) *T {
	if t.m == nil {
		t.m = map[FlowKey]*entry[T]{}
		t.root = &entry[T]{}
		t.root.prev, t.root.next = t.root, t.root
	}
	if e := t.m[key]; e != nil {
		t.remove(e)
	}
	t.Expire(now)
	limit := t.Max
	if limit <= 0 {
		limit = 65536
	}
	for len(t.m) >= limit {
		t.remove(t.root.prev)
	}
	e := &entry[T]{key: key, value: value, used: now}
	t.m[key] = e
	t.front(e)
	return &e.value
}

// Expire forgets the flows that have been idle for too long.
func (t *Table[T]) Expire(now time.Time) {
	if t.root == nil {
		return
	}
	for e := t.root.prev; e != t.root && now.Sub(e.used) >= t.idle(); e = t.root.prev {
		t.remove(e)
	}
}

// Len is how many flows are held.
func (t *Table[T]) Len() int { return len(t.m) }

// Delete forgets a flow.
func (t *Table[T]) Delete(key FlowKey) {
	if e := t.m[key]; e != nil {
		t.remove(e)
	}
}

func (t *Table[T]) remove(e *entry[T]) {
	delete(t.m, e.key)
	e.unlink()
}

func (e *entry[T]) unlink() { e.prev.next, e.next.prev = e.next, e.prev }

func (t *Table[T]) front(e *entry[T]) {
	e.prev, e.next = t.root, t.root.next
	e.prev.next, e.next.prev = e, e
}

func (t *Table[T]) idle() time.Duration {
	if t.Idle == 0 {
		return 5 * time.Minute
	}
	return t.Idle
}
