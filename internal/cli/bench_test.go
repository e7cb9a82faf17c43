package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"govah/check"
	"govah/lab"
	"govah/measure"
)

// benchScenario is n sites of 67 kB, of which dead are black-holed by a box.
func benchScenario(n, dead int) string {
	var b strings.Builder
	b.WriteString(`schema = 1
title = "a list"
about = "Sites of 67 kB."
[[client-network]]
name = "home"
asn = 64496
country = "NL"
hops = 2
`)
	if dead > 0 {
		b.WriteString("[[client-network.box]]\nat = 1\n[[client-network.box.rule]]\nlayer = \"ip\"\naction = \"drop\"\naddresses = [\"46.1.0.0/16\"]\n")
	}
	for i, name := range []string{"one", "two", "three"} {
		fmt.Fprintf(&b, "[[network]]\nname = \"%s\"\nhops = 1\nasn = %d\n", name, 64500+i)
	}
	b.WriteString("[[network]]\nname = \"live\"\nhops = 1\nasn = 64510\nprefix4 = \"46.0.0.0/16\"\n[[network]]\nname = \"dead\"\nhops = 1\nasn = 64511\nprefix4 = \"46.1.0.0/16\"\n")
	for _, name := range []string{"one", "two", "three"} {
		fmt.Fprintf(&b, "[[site]]\nname = \"canary-%s.example\"\nnetwork = \"%s\"\nrole = \"canary\"\nno-ipv6 = true\nsize = 3000\n", name, name)
	}
	b.WriteString("[[site]]\nname = \"doh.example\"\nnetwork = \"one\"\nrole = \"doh\"\nno-ipv6 = true\n")
	b.WriteString("[[site]]\nname = \"nowhere.example\"\nnetwork = \"two\"\nrole = \"nowhere\"\nno-ipv6 = true\n")
	for i := range n {
		network := "live"
		if i < dead {
			network = "dead"
		}
		fmt.Fprintf(&b, "[[site]]\nname = \"site-%d.example\"\nnetwork = \"%s\"\nsize = 67000\nno-ipv6 = true\n[[site.truth]]\n", i, network)
		if i < dead {
			b.WriteString("interference = \"confirmed\"\nmethods = [\"ip-drop\"]\ndecidable = \"helper\"\n")
		}
	}
	return b.String()
}

// peakMB is the process's largest resident set so far, lab included.
func peakMB() float64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kb); n == 1 {
			return kb / 1024
		}
	}
	return 0
}

func benchCheck(b *testing.B, n, dead int) {
	s, err := lab.Parse([]byte(benchScenario(n, dead)))
	if err != nil {
		b.Fatal(err)
	}
	defer lean()()
	for b.Loop() {
		w, err := lab.New(s, lab.Options{RTT: 40 * time.Millisecond})
		if err != nil {
			b.Fatal(err)
		}
		cfg, err := labConfig(w, 1)
		if err != nil {
			b.Fatal(err)
		}
		cfg.Pace = check.PaceFast
		var targets []measure.Target
		truth := w.Truth()
		for _, u := range w.Targets() {
			t, err := check.ParseTarget(u)
			if err != nil {
				b.Fatal(err)
			}
			targets = append(targets, t)
		}
		began := time.Now()
		var bytes int64
		clean := 0
		sum, err := check.Run(b.Context(), cfg, targets, func(r check.Result) error {
			if p := truth[r.Measurement.Target].Compare(r.Verdict, false); p != "" {
				b.Errorf("%s: %s", r.Measurement.Target, p)
			}
			if r.Verdict.Reachable == measure.ReachableYes {
				clean++
				bytes += r.Measurement.BytesSent + r.Measurement.BytesReceived
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s/run")
		b.ReportMetric(float64(bytes)/float64(max(1, clean))/1000, "kB/clean-URL")
		b.ReportMetric(float64(sum.Sent+sum.Received)/float64(n)/1000, "kB/URL")
		b.ReportMetric(peakMB(), "MB-peak-with-lab")
		w.Close()
	}
}

// The peer's figures on a like path (OONI Probe 3.31-alpha): 32 s, 301 s,
// 183 kB a URL, 57 MB.
func BenchmarkCheck50Clean(b *testing.B)          { benchCheck(b, 50, 0) }
func BenchmarkCheck50HalfBlackholed(b *testing.B) { benchCheck(b, 50, 25) }
func BenchmarkCheck1500(b *testing.B)             { benchCheck(b, 1500, 0) }
