package cli

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"govah/check"
	"govah/lab"
	"govah/measure"
	"govah/wire"
)

// counted notes when a connection is opened, and when a question is asked over
// UDP for the first time.
type counted struct {
	wire.Network
	mu            sync.Mutex
	opened, asked []time.Time
}

func (c *counted) note(list *[]time.Time) {
	c.mu.Lock()
	*list = append(*list, time.Now())
	c.mu.Unlock()
}

func (c *counted) Dial(ctx context.Context, spec wire.DialSpec) (wire.Conn, error) {
	c.note(&c.opened)
	return c.Network.Dial(ctx, spec)
}

func (c *counted) ListenPacket(ctx context.Context, local netip.AddrPort) (wire.PacketConn, error) {
	pc, err := c.Network.ListenPacket(ctx, local)
	if err != nil {
		return nil, err
	}
	return &countedPackets{PacketConn: pc, c: c}, nil
}

type countedPackets struct {
	wire.PacketConn
	c    *counted
	once sync.Once
}

func (p *countedPackets) WriteTo(b []byte, to net.Addr) (int, error) {
	p.once.Do(func() {
		if u, ok := to.(*net.UDPAddr); ok && u.Port == 53 {
			p.c.note(&p.c.asked)
		} else {
			p.c.note(&p.c.opened) // QUIC
		}
	})
	return p.PacketConn.WriteTo(b, to)
}

// TestGentle: with --pace gentle the verdicts are the same, and in no stretch
// of time are more connections opened or questions asked than it promises, the
// line's own measurement and a helper included.
func TestGentle(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	t.Parallel()
	s, err := lab.Load("gauntlet")
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.New(s, lab.Options{Client: "main"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cfg, err := labConfig(w, 1)
	if err != nil {
		t.Fatal(err)
	}
	n := &counted{Network: cfg.Network}
	cfg.Network, cfg.Pace, cfg.Line = n, check.PaceGentle, true
	var running sync.WaitGroup
	defer running.Wait()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for _, site := range w.Sites("helper") {
		url, err := mountHelper(ctx, &running, w, site.Name)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Helpers = append(cfg.Helpers, url)
	}
	var targets []measure.Target
	for _, u := range []string{"https://both.example/", "https://h3.example/", "http://plain-http.example/", "https://slow.example/",
		"https://before.dns.example/", "https://reset.tls.example/", "http://iframe.http.example/"} {
		target, err := check.ParseTarget(u)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, target)
	}
	truth := w.Truth()
	began, seen := time.Now(), 0
	_, err = check.Run(ctx, cfg, targets, func(r check.Result) error {
		if seen++; r.Measurement.Target == measure.LineTarget {
			t.Logf("the line in %d ms", r.Measurement.ElapsedMS)
			return nil
		}
		if p := truth[r.Measurement.Target].Compare(r.Verdict, len(cfg.Helpers) > 0); p != "" {
			t.Errorf("%s: %s", r.Measurement.Target, p)
		}
		return nil
	})
	if err != nil || seen != len(targets)+1 {
		t.Errorf("%d verdicts of %d targets and the line, %v", seen, len(targets), err)
	}
	took := time.Since(began).Seconds()
	for _, x := range []struct {
		what          string
		list          []time.Time
		burst, second float64
	}{{"connections", n.opened, check.GentleBurst, check.GentleRate}, {"questions", n.asked, check.GentleAsksAtOnce, check.GentleAsks}} {
		// A token bucket: in any stretch at most the burst and what the rate
		// gives. A turn that was taken may be used a moment later.
		const late = 0.25
		for i := range x.list {
			for k := i; k < len(x.list); k++ {
				stretch := x.list[k].Sub(x.list[i]).Seconds() + late
				if n := k - i + 1; float64(n) > x.burst+x.second*stretch+1 {
					t.Fatalf("%d %s in %.2f s from %.2f s on", n, x.what, stretch-late, x.list[i].Sub(began).Seconds())
				}
			}
		}
		t.Logf("%d %s in %.0f s: %.1f a second of at most %.0f", len(x.list), x.what, took, float64(len(x.list))/took, x.second)
	}
}
