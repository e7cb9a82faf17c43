package box

import (
	"math/rand/v2"
	"time"

	"govah/packet"
)

// Line is an honest link with honest troubles.
type Line struct {
	// Loss is the share of packets lost, in parts per thousand, each
	// direction; Burst, if above 1, is the mean length of a run of losses
	// (Gilbert's model).
	Loss, Burst int
	Jitter      time.Duration // added at random; packets of a direction stay in order
	// RateKbps limits the direction towards the client, with a queue of
	// Queue bytes (0: 64 KiB): a large queue is a bufferbloated line.
	RateKbps, Queue int
	// MTU, if not 0, silently swallows larger packets: a black hole for path
	// MTU discovery.
	MTU int
	// Sleep: every Every, the line is dead for Sleep.
	Every, Sleep time.Duration
	// MaxFlows, if not 0, is the size of a NAT's table: packets of further
	// flows are dropped while it is full.
	MaxFlows int
	// NoIPv6 swallows IPv6.
	NoIPv6 bool

	rng     *rand.Rand
	last    [2]time.Time // when the last packet of a direction leaves
	losing  [2]bool
	busy    time.Time
	began   time.Time
	flows   packet.Table[struct{}]
	started bool
}

// Seed fixes what is random.
func (l *Line) Seed(seed uint64) { l.rng = rand.New(rand.NewPCG(seed, 0x6c696e65)) }

// Handle implements Box.
func (l *Line) Handle(d Direction, pkt []byte, now time.Time, emit Emit) {
	if l.rng == nil {
		l.Seed(1)
	}
	if !l.started {
		l.started, l.began = true, now
	}
	if l.MTU > 0 && len(pkt) > l.MTU || l.NoIPv6 && len(pkt) > 0 && pkt[0]>>4 == 6 {
		return
	}
	if l.Every > 0 && now.Sub(l.began)%l.Every < l.Sleep && now.Sub(l.began) > l.Every {
		return
	}
	if l.MaxFlows > 0 {
		if p, err := packet.Parse(pkt); err == nil && (p.Proto == packet.TCP || p.Proto == packet.UDP) {
			l.flows.Idle = 30 * time.Second
			l.flows.Expire(now)
			if key, _, _, found := l.flows.Get(&p, now); !found {
				if l.flows.Len() >= l.MaxFlows {
					return
				}
				l.flows.Put(key, struct{}{}, now)
			} else if p.Flags&packet.RST != 0 {
				l.flows.Delete(key)
			}
		}
	}
	if l.Loss > 0 && l.lose(d) {
		return
	}
	delay := time.Duration(0)
	if l.Jitter > 0 {
		delay = time.Duration(l.rng.Int64N(int64(l.Jitter)))
	}
	if l.RateKbps > 0 && d == In {
		queue := l.Queue
		if queue == 0 {
			queue = 64 << 10
		}
		if l.busy.Before(now) {
			l.busy = now
		}
		perByte := time.Duration(8_000_000 / l.RateKbps) // ns
		if l.busy.Sub(now) > time.Duration(queue)*perByte {
			return
		}
		l.busy = l.busy.Add(time.Duration(len(pkt)) * perByte)
		delay += l.busy.Sub(now)
	}
	leaves := now.Add(delay)
	if leaves.Before(l.last[d]) {
		leaves = l.last[d]
	}
	l.last[d] = leaves
	emit(d, pkt, leaves.Sub(now))
}

func (l *Line) lose(d Direction) bool {
	if l.Burst <= 1 {
		return l.rng.IntN(1000) < l.Loss
	}
	if l.losing[d] {
		l.losing[d] = l.rng.IntN(l.Burst) != 0
	} else {
		// Enter a run so often that the share over time is Loss.
		l.losing[d] = l.rng.IntN(1000*l.Burst) < l.Loss*1000/max(1, 1000-l.Loss)
	}
	return l.losing[d]
}
