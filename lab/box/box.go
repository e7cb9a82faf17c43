// Package box emulates the devices that sit on a link of a network: censors,
// throttles, faulty middleboxes and the honest troubles of a line. A box sees
// each raw IP packet in each direction and emits what it lets pass, so that
// pass, drop, inject, change, delay and limit are one verb.
//
// It is for laboratories: an emulated internet inside one process, or
// namespaces that a test made for itself. It opens no socket and is of no use
// on a real network.
package box

import (
	"time"
)

// Direction of a packet over a link, seen from the client's side.
type Direction int

// The directions.
const (
	Out Direction = iota // from the client's side
	In                   // towards the client's side
)

// Reverse is the other direction.
func (d Direction) Reverse() Direction { return 1 - d }

// Emit sends a packet on. Out leaves on the far side, In on the client's side.
// The caller keeps the order of packets of equal delay. The box gives up the
// slice.
type Emit func(d Direction, pkt []byte, delay time.Duration)

// Box handles the packets of one link. It is called under the link's own lock
// and needs none.
type Box interface {
	Handle(d Direction, pkt []byte, now time.Time, emit Emit)
}

// Chain is several boxes one behind the other, the first nearest the client.
type Chain []Box

// Handle passes a packet through all boxes in the order of its direction.
// Delays add up.
func (c Chain) Handle(d Direction, pkt []byte, now time.Time, emit Emit) {
	if len(c) == 0 {
		emit(d, pkt, 0)
		return
	}
	at := 0
	if d == In {
		at = len(c) - 1
	}
	c.from(at, d, pkt, now, 0, emit, 0)
}

func (c Chain) from(at int, d Direction, pkt []byte, now time.Time, delay time.Duration, emit Emit, depth int) {
	if at < 0 || at >= len(c) || depth > 64 {
		emit(d, pkt, delay)
		return
	}
	c[at].Handle(d, pkt, now, func(out Direction, p []byte, more time.Duration) {
		next := at + 1
		if out == In {
			next = at - 1
		}
		c.from(next, out, p, now, delay+more, emit, depth+1)
	})
}
