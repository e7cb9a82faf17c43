package locate_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"govah/lab"
	"govah/locate"
	"govah/measure"
)

// BenchmarkLocate looks for a device on a path of 12 hops with 80 ms RTT, on
// each link in turn, and reports what it took: CenTrace takes 65 s for one of
// its default five iterations over four hops, OONI's tlsmiddlebox 20.6 s for
// eight, without an answer.
func BenchmarkLocate(b *testing.B) {
	for _, c := range []struct {
		name    string
		payload locate.Payload
		rule    string
	}{
		{"tls/injecting", locate.TLS, "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"reset\"\non-path = true\nends = \"client\""},
		{"tls/dropping", locate.TLS, "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"drop\""},
		{"http/injecting", locate.HTTP, "layer = \"http\"\nnames = [\"blocked.example\"]\naction = \"page\"\nbody = \"no\""},
		{"dns/injecting", locate.DNS, "layer = \"dns\"\nnames = [\"blocked.example\"]\naction = \"dns-answer\"\nanswers = [\"10.10.34.35\"]\nany-type = true"},
		{"dns/dropping", locate.DNS, "layer = \"dns\"\nnames = [\"blocked.example\"]\naction = \"drop\""},
		{"quic/dropping", locate.QUIC, "layer = \"quic\"\nnames = [\"blocked.example\"]\naction = \"drop\""},
	} {
		b.Run(c.name, func(b *testing.B) {
			var took []time.Duration
			var triggers, probes, kB []int
			exact, n := 0, 0
			for b.Loop() {
				// Every iteration is all eleven links, side by side.
				type result struct {
					l    measure.Location
					took time.Duration
					sent int64
					link int
					err  error
				}
				results := make(chan result)
				for link := 1; link <= 11; link++ {
					go func() {
						l, d, sent, err := twelve(b, c.payload, c.rule, link)
						results <- result{l, d, sent, link, err}
					}()
				}
				for range 11 {
					r := <-results
					if r.err != nil {
						b.Fatal(r.err)
					}
					n++
					if len(r.l.Set) > 0 && r.l.Set[0].Low+1 == r.link {
						exact++
					}
					took, triggers, probes, kB = append(took, r.took), append(triggers, r.l.Triggers), append(probes, r.l.Probes), append(kB, int(r.sent/1000))
				}
			}
			slices.Sort(took)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(took[len(took)/2].Seconds(), "s-median")
			b.ReportMetric(took[len(took)-1].Seconds(), "s-most")
			b.ReportMetric(float64(median(triggers)), "triggers-median")
			b.ReportMetric(float64(most(triggers)), "triggers-most")
			b.ReportMetric(float64(most(probes)), "probes-most")
			b.ReportMetric(float64(most(kB)), "kB-most")
			b.ReportMetric(100*float64(exact)/float64(n), "%exact")
		})
	}
}

// twelve runs one search on the benchmark's path.
func twelve(b *testing.B, payload locate.Payload, rule string, link int) (measure.Location, time.Duration, int64, error) {
	e, err := emulate(fmt.Sprintf("hops = 10\n[[client-network.box]]\nat = %d\n[[client-network.box.rule]]\n%s\n[[network]]\nname = \"hosting\"\nhops = 1\n", link-1, rule),
		lab.Options{Seed: uint64(link), RTT: 80 * time.Millisecond})
	if err != nil {
		return measure.Location{}, 0, 0, err
	}
	defer e.Close()
	m, l, took, err := e.find(b.Context(), e.spec(payload, false, uint64(link)))
	if err != nil {
		return l, took, 0, err
	}
	return l, took, m.BytesSent, nil
}
