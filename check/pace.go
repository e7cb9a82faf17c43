package check

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"govah/measure"
	"govah/wire"
)

// Pace is how loudly a run measures.
type Pace string

// The paces. PaceGentle is the default on a real network; PaceFast is for the
// lab, for one's own network, and for networks where haste is no risk.
const (
	PaceGentle Pace = "gentle"
	PaceFast   Pace = "fast"
)

// ParsePace reads a pace as typed.
func ParsePace(s string) (Pace, error) {
	switch p := Pace(s); p {
	case PaceGentle, PaceFast:
		return p, nil
	}
	return "", fmt.Errorf("%q is no pace; it is gentle or fast", s)
}

// GentleRate is how many new connections a second a gentle run opens at most,
// and GentleBurst how many at once after a rest. Questions over UDP open
// nothing at the other end and are counted by themselves: GentleAsks a second
// and GentleAsksAtOnce, less than one page of a browser asks for.
const (
	GentleRate       = 4.0
	GentleBurst      = 8
	GentleAsks       = 8.0
	GentleAsksAtOnce = 8
)

type limits struct {
	screens, confirms int
	flows, asks       rate
	shuffle           bool
}

// rate is how many a second, 0 without limit, and how many at once.
type rate struct{ perSecond, burst float64 }

func (p Pace) limits() limits {
	if p == PaceFast {
		return limits{screens: 48, confirms: 400, shuffle: true}
	}
	return limits{screens: 4, confirms: 8, flows: rate{GentleRate, GentleBurst}, asks: rate{GentleAsks, GentleAsksAtOnce}, shuffle: true}
}

// bucket is a token bucket.
type bucket struct {
	rate

	mu     sync.Mutex
	tokens float64
	filled time.Time
}

// take takes a token and says how long to wait for it.
func (b *bucket) take() time.Duration {
	if b.perSecond == 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.filled.IsZero() {
		b.tokens = b.burst
	} else {
		b.tokens = min(b.burst, b.tokens+now.Sub(b.filled).Seconds()*b.perSecond)
	}
	b.filled = now
	b.tokens--
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens / b.perSecond * float64(time.Second))
}

// pacer keeps a run within its pace. It is asked before a step begins, so
// that waiting for one's turn is never part of what is timed.
type pacer struct{ flows, asks bucket }

func newPacer(p Pace) *pacer {
	l := p.limits()
	return &pacer{flows: bucket{rate: l.flows}, asks: bucket{rate: l.asks}}
}

// wait blocks until one more connection is within the pace.
func (p *pacer) wait(ctx context.Context) error { return wire.Sleep(ctx, p.flows.take()) }

// waitAsk blocks until one more question over UDP is within the pace.
func (p *pacer) waitAsk(ctx context.Context) error { return wire.Sleep(ctx, p.asks.take()) }

// Turns wait for the turn of a new connection, and of a question over UDP, that
// is made beside or after a run, as its pace has it; nil where there is none.
// Whoever shares them is within the pace together.
func (p Pace) Turns() (connection, question func(context.Context) error) {
	if p == PaceFast {
		return nil, nil
	}
	own := newPacer(p)
	return own.wait, own.waitAsk
}

// synWait is how long the answer to a SYN with a TTL may take.
const synWait = 1500 * time.Millisecond

// syn sends one SYN with a TTL, at its turn; nil if the run ended before.
func (r *runner) syn(ctx context.Context, log *wire.Log, meta wire.Meta, at netip.AddrPort, ttl int) *measure.Observation {
	if r.pacer.wait(ctx) != nil {
		return nil
	}
	return wire.SYN(ctx, r.cfg.Network, log, meta, wire.ConnectSpec{Remote: at, TTL: ttl, Timeout: synWait})
}

// came says whether a SYN had one of these outcomes.
func came(o *measure.Observation, outcomes ...string) bool {
	return o != nil && o.Path != nil && slices.Contains(outcomes, o.Path.Outcome)
}

// keyring remembers which addresses have been triggered and when, so that a
// failure there is not taken for a new one while an old one may linger.
type keyring struct {
	mu   sync.Mutex
	last map[netip.Addr]time.Time
}

func (k *keyring) trigger(a netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.last == nil {
		k.last = map[netip.Addr]time.Time{}
	}
	k.last[a] = time.Now()
}

// since is how long ago a was triggered; ok is false if never.
func (k *keyring) since(a netip.Addr) (d time.Duration, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t, ok := k.last[a]
	return time.Since(t), ok
}
