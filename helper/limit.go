package helper

import (
	"context"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Limits bound what clients may use. A zero field is the default.
type Limits struct {
	LooksPerMinute  int           // of one client; 600
	LooksAtOnce     int           // of all clients; 64
	ClientAtOnce    int           // looks and streams of one client; 16
	Connections     int           // of all clients, open; 1,024
	BulkBytes       int64         // of one stream; 8 MiB
	ClientBytes     int64         // of streams to one client within ten minutes; 256 MiB
	BodyBytes       int64         // read of a fetched page; 64 KiB, what a client reads
	LookTime        time.Duration // of one look; 25 s
	ConnectionsEach int           // of one client, open; 128
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set64 := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.LooksPerMinute, 600)
	set(&l.LooksAtOnce, 64)
	set(&l.ClientAtOnce, 16)
	set(&l.Connections, 1024)
	set(&l.ConnectionsEach, 128)
	set64(&l.BulkBytes, 8<<20)
	set64(&l.ClientBytes, 256<<20)
	set64(&l.BodyBytes, 64<<10)
	if l.LookTime <= 0 {
		l.LookTime = 25 * time.Second
	}
	return l
}

const (
	// patience is how long a look waits for its turn before it is sent away.
	patience = 3 * time.Second
	// forgetAfter is how long an idle client's counters are kept.
	forgetAfter = 10 * time.Minute
	// maxClients bounds the counters. When there are more clients at once,
	// new ones share one counter.
	maxClients = 1 << 14
)

// limiter counts by client. It knows no addresses, only a hash of each under
// a key that is made at the start and kept nowhere.
type limiter struct {
	limits Limits
	key    maphash.Seed
	looks  chan struct{}
	conns  chan struct{}

	mu      sync.Mutex
	clients map[uint64]*client
	swept   time.Time
}

type client struct {
	credit   time.Duration // a look costs a minute / LooksPerMinute
	seen     time.Time
	active   int
	conns    int
	bytes    int64
	bytesTil time.Time
}

func newLimiter(l Limits) *limiter {
	return &limiter{limits: l, key: maphash.MakeSeed(), clients: map[uint64]*client{},
		looks: make(chan struct{}, l.LooksAtOnce), conns: make(chan struct{}, l.Connections)}
}

// id stands for an address, IPv6 by /64: whoever has one address of those has
// them all.
func (l *limiter) id(a netip.Addr) uint64 {
	if a.Is6() {
		p, err := a.WithZone("").Prefix(64)
		if err == nil {
			a = p.Addr()
		}
	}
	return maphash.Comparable(l.key, a)
}

// client is the counter of an address. The caller holds mu.
func (l *limiter) client(a netip.Addr, now time.Time) *client {
	id := l.id(a)
	c := l.clients[id]
	if c == nil {
		if now.Sub(l.swept) > time.Minute || len(l.clients) >= maxClients && now.Sub(l.swept) > time.Second {
			l.sweep(now)
		}
		if len(l.clients) >= maxClients {
			if id = 0; l.clients[0] != nil {
				return l.clients[0]
			}
		}
		c = &client{credit: l.burst(), seen: now}
		l.clients[id] = c
	}
	return c
}

// sweep forgets idle clients. The caller holds mu.
func (l *limiter) sweep(now time.Time) {
	l.swept = now
	for k, c := range l.clients {
		if c.active == 0 && c.conns == 0 && now.Sub(c.seen) > forgetAfter {
			delete(l.clients, k)
		}
	}
}

func (l *limiter) cost() time.Duration { return time.Minute / time.Duration(l.limits.LooksPerMinute) }

// burst is ten seconds' worth of looks, at least eight.
func (l *limiter) burst() time.Duration { return max(10*time.Second, 8*l.cost()) }

// look waits for a turn. It returns nil if none comes soon.
func (l *limiter) look(ctx context.Context, a netip.Addr) (done func()) {
	until := time.Now().Add(patience)
	for {
		now := time.Now()
		l.mu.Lock()
		c := l.client(a, now)
		c.credit = min(c.credit+now.Sub(c.seen), l.burst())
		c.seen = now
		wait := 20 * time.Millisecond // for one of its own looks to end
		if c.active < l.limits.ClientAtOnce {
			if c.credit >= l.cost() {
				c.credit -= l.cost()
				c.active++
				l.mu.Unlock()
				if !l.take(ctx, l.looks, time.Until(until)) {
					l.leave(c)
					return nil
				}
				return func() {
					<-l.looks
					l.leave(c)
				}
			}
			wait = max(l.cost()-c.credit, time.Millisecond)
		}
		l.mu.Unlock()
		if now.Add(wait).After(until) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (l *limiter) take(ctx context.Context, from chan struct{}, wait time.Duration) bool {
	select {
	case from <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case from <- struct{}{}:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

func (l *limiter) leave(c *client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.active--
}

// stream starts a stream of n bytes, if the client may have one.
func (l *limiter) stream(a netip.Addr, n int64) (done func(sent int64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	c := l.client(a, now)
	c.seen = now
	if now.After(c.bytesTil) {
		c.bytes, c.bytesTil = 0, now.Add(forgetAfter)
	}
	if c.active >= l.limits.ClientAtOnce || c.bytes+n > l.limits.ClientBytes {
		return nil
	}
	c.active++
	c.bytes += n
	return func(sent int64) {
		l.mu.Lock()
		defer l.mu.Unlock()
		c.active--
		c.bytes = max(0, c.bytes-n+sent)
	}
}

// connection takes one of the open connections, false if there are too many.
func (l *limiter) connection(a netip.Addr) (done func()) {
	select {
	case l.conns <- struct{}{}:
	default:
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	c := l.client(a, now)
	c.seen = now
	if c.conns >= l.limits.ConnectionsEach {
		<-l.conns
		return nil
	}
	c.conns++
	var once sync.Once
	return func() {
		once.Do(func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			c.conns--
			<-l.conns
		})
	}
}
