package lab

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"govah/wire"
)

// fiftySites is a scenario with sites of every kind.
func fiftySites(hops int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "schema = 1\ntitle = 'many sites'\nabout = 'For benchmarks.'\n")
	fmt.Fprintf(&b, "[[client-network]]\nname = 'home'\nhops = %d\n[[network]]\nname = 'hosting'\nhops = %d\n[[network]]\nname = 'cdn'\n", (hops+1)/2, max(1, hops/2))
	for i := range 50 {
		fmt.Fprintf(&b, "[[site]]\nname = 'site-%d.example'\nnetwork = '%s'\nh3 = %v\n", i, []string{"hosting", "cdn"}[i%2], i%5 == 0)
		if i < 4 {
			fmt.Fprintf(&b, "role = '%s'\n", []string{"doh", "resolver", "canary", "helper"}[i])
		}
		fmt.Fprintf(&b, "[[site.truth]]\nreachable = 'yes'\n")
	}
	return b.String()
}

func world(t testing.TB, text string, o Options) *World {
	t.Helper()
	s, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// BenchmarkWorld50Sites is the time until a world with 50 sites can be
// measured in, its scenario read first, and until it is gone again.
func BenchmarkWorld50Sites(b *testing.B) {
	text := []byte(fiftySites(8))
	var ready, closed time.Duration
	for b.Loop() {
		began := time.Now()
		s, err := Parse(text)
		if err != nil {
			b.Fatal(err)
		}
		w, err := New(s, Options{})
		if err != nil {
			b.Fatal(err)
		}
		ready += time.Since(began)
		began = time.Now()
		w.Close()
		closed += time.Since(began)
	}
	b.ReportMetric(float64(ready.Microseconds())/float64(b.N)/1000, "ms-ready")
	b.ReportMetric(float64(closed.Microseconds())/float64(b.N)/1000, "ms-close")
}

// echo serves on a site and gives its address.
func echo(t testing.TB, w *World, name string, each func(c io.ReadWriteCloser)) netip.AddrPort {
	t.Helper()
	m, err := w.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	ap := netip.AddrPortFrom(m.Addresses()[0], 7007)
	l, err := m.Listen(ap)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go each(c)
		}
	}()
	return ap
}

// BenchmarkConnections opens 2,000 connections at once, exchanges a byte on
// each while all are open, and closes them.
func BenchmarkConnections(b *testing.B) {
	const n = 2000
	w := world(b, fiftySites(8), Options{})
	at := echo(b, w, "site-9.example", func(c io.ReadWriteCloser) { io.Copy(c, c); c.Close() })
	for b.Loop() {
		conns := make([]wire.Conn, n)
		var wg sync.WaitGroup
		for i := range conns {
			wg.Go(func() {
				c, err := w.Network().Dial(b.Context(), wire.DialSpec{Flow: wire.Flow{Remote: at}})
				if err != nil {
					b.Errorf("connection %d: %v", i, err)
					return
				}
				conns[i] = c
			})
		}
		wg.Wait()
		for i, c := range conns {
			if c == nil {
				continue
			}
			wg.Go(func() {
				one := []byte{byte(i)}
				c.SetDeadline(time.Now().Add(20 * time.Second))
				if _, err := c.Write(one); err != nil {
					b.Errorf("connection %d: %v", i, err)
				} else if _, err := io.ReadFull(c, one); err != nil || one[0] != byte(i) {
					b.Errorf("connection %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		for _, c := range conns {
			if c != nil {
				c.Abort()
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "µs/connection")
}

// download is the rate of n bytes from a server, in Mbit/s.
func download(b *testing.B, w *World, at netip.AddrPort, n int64) float64 {
	b.Helper()
	c, err := w.Network().Dial(b.Context(), wire.DialSpec{Flow: wire.Flow{Remote: at}})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Abort()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	began := time.Now()
	if got, err := io.CopyN(io.Discard, c, n); err != nil {
		b.Fatalf("after %d bytes: %v", got, err)
	}
	return float64(n) * 8 / float64(time.Since(began).Microseconds())
}

// BenchmarkTenHops is the rate of a download through ten routers, and its
// ratio to the same without any.
func BenchmarkTenHops(b *testing.B) {
	const n = 32 << 20
	bulk := func(c io.ReadWriteCloser) {
		chunk := make([]byte, 256<<10)
		for {
			if _, err := c.Write(chunk); err != nil {
				c.Close()
				return
			}
		}
	}
	ten, none := world(b, fiftySites(10), Options{}), world(b, fiftySites(10), Options{})
	for network := range none.beyond {
		none.beyond[network] = nil
	}
	none.elements = nil
	to, direct := echo(b, ten, "site-8.example", bulk), echo(b, none, "site-8.example", bulk)
	if hops := len(ten.pathTo(to.Addr())); hops != 10 {
		b.Fatalf("%d hops", hops)
	}
	var with, without []float64
	for b.Loop() {
		with = append(with, download(b, ten, to, n))
		without = append(without, download(b, none, direct, n))
	}
	slices.Sort(with)
	slices.Sort(without)
	b.ReportMetric(with[len(with)/2], "Mbit/s")
	b.ReportMetric(with[len(with)/2]/without[len(without)/2], "of-0-hops")
	b.ReportMetric(0, "ns/op")
}
