package cli

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"govah/check"
	"govah/lab"
	"govah/measure"
	"govah/wire"
)

// counted notes when a flow is opened.
type counted struct {
	wire.Network
	mu     sync.Mutex
	opened []time.Time
}

func (c *counted) note() {
	c.mu.Lock()
	c.opened = append(c.opened, time.Now())
	c.mu.Unlock()
}

func (c *counted) Dial(ctx context.Context, spec wire.DialSpec) (wire.Conn, error) {
	c.note()
	return c.Network.Dial(ctx, spec)
}

func (c *counted) ListenPacket(ctx context.Context, local netip.AddrPort) (wire.PacketConn, error) {
	c.note()
	return c.Network.ListenPacket(ctx, local)
}

// TestGentle: with --pace gentle the verdicts are the same, and in no stretch
// of time are more flows opened than it promises.
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
	cfg.Network, cfg.Pace = n, check.PaceGentle
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
	_, err = check.Run(t.Context(), cfg, targets, func(r check.Result) error {
		seen++
		if p := truth[r.Measurement.Target].Compare(r.Verdict, false); p != "" {
			t.Errorf("%s: %s", r.Measurement.Target, p)
		}
		return nil
	})
	if err != nil || seen != len(targets) {
		t.Errorf("%d of %d verdicts, %v", seen, len(targets), err)
	}
	took := time.Since(began).Seconds()
	// A token bucket: in any stretch at most the burst and what the rate gives.
	// A turn that was taken may be used a moment later.
	const late = 0.25
	for i := range n.opened {
		for k := i; k < len(n.opened); k++ {
			stretch := n.opened[k].Sub(n.opened[i]).Seconds() + late
			if flows := k - i + 1; float64(flows) > check.GentleBurst+check.GentleRate*stretch+1 {
				t.Fatalf("%d flows in %.2f s from %.2f s on", flows, stretch-late, n.opened[i].Sub(began).Seconds())
			}
		}
	}
	t.Logf("%d flows in %.0f s: %.1f a second of at most %.0f", len(n.opened), took, float64(len(n.opened))/took, check.GentleRate)
}
