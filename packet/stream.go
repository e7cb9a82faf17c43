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

// Stream reassembles one direction of a TCP connection up to a limit. Bytes
// that came first win where segments overlap.
type Stream struct {
	started bool
	next    uint32 // sequence number of the first byte not in Data
	held    []held
	size    int
	Data    []byte
	// Gap is set when something was dropped because the limit was reached.
	Full bool
}

type held struct {
	seq  uint32
	data []byte
}

const maxStream = 64 << 10

// Start sets the sequence number of the first byte: that of the SYN plus one.
func (s *Stream) Start(seq uint32) {
	if !s.started {
		s.started, s.next = true, seq
	}
}

// Add takes a segment's payload. It reports whether Data grew.
func (s *Stream) Add(seq uint32, data []byte) bool {
	if len(data) == 0 {
		return false
	}
	s.Start(seq)
	if s.size+len(data) > maxStream {
		s.Full = true
		return false
	}
	before := len(s.Data)
	if d := int32(seq - s.next); d > 0 {
		if d < maxStream {
			s.held = append(s.held, held{seq, append([]byte(nil), data...)})
			s.size += len(data)
		}
		return false
	}
	s.take(seq, data)
	sort.SliceStable(s.held, func(i, j int) bool { return int32(s.held[i].seq-s.held[j].seq) < 0 })
	for len(s.held) > 0 && int32(s.held[0].seq-s.next) <= 0 {
		h := s.held[0]
		s.held = s.held[1:]
		s.size -= len(h.data)
		s.take(h.seq, h.data)
	}
	return len(s.Data) > before
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

// Table holds per-flow state of any kind, bounded in number and age.
type Table[T any] struct {
	Max  int           // 0: 65,536
	Idle time.Duration // 0: five minutes
	m    map[FlowKey]*entry[T]
}

type entry[T any] struct {
	value T
	used  time.Time
}

// Get finds the state of a flow in either direction. found is false when
// there is none.
func (t *Table[T]) Get(p *Packet, now time.Time) (key FlowKey, value *T, forward, found bool) {
	key = FlowKey{p.Source(), p.Destination(), p.Proto}
	if e := t.m[key]; e != nil && now.Sub(e.used) < t.idle() {
		e.used = now
		return key, &e.value, true, true
	}
	back := FlowKey{p.Destination(), p.Source(), p.Proto}
	if e := t.m[back]; e != nil && now.Sub(e.used) < t.idle() {
		e.used = now
		return back, &e.value, false, true
	}
	return key, nil, true, false
}

// Put opens state for a flow, making room by forgetting the idle ones and, if
// that is not enough, any.
func (t *Table[T]) Put(key FlowKey, value T, now time.Time) *T {
	if t.m == nil {
		t.m = map[FlowKey]*entry[T]{}
	}
	limit := t.Max
	if limit == 0 {
		limit = 65536
	}
	if len(t.m) >= limit {
		for k, e := range t.m {
			if now.Sub(e.used) >= t.idle() {
				delete(t.m, k)
			}
		}
		for k := range t.m {
			if len(t.m) < limit {
				break
			}
			delete(t.m, k)
		}
	}
	e := &entry[T]{value, now}
	t.m[key] = e
	return &e.value
}

// Len is how many flows are held.
func (t *Table[T]) Len() int { return len(t.m) }

// Delete forgets a flow.
func (t *Table[T]) Delete(key FlowKey) { delete(t.m, key) }

func (t *Table[T]) idle() time.Duration {
	if t.Idle == 0 {
		return 5 * time.Minute
	}
	return t.Idle
}
