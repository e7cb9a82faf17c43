package cli

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"govah/lab"
	"govah/lab/kernel"
	"govah/measure"
)

// waysScenario has seven routers before the resolver that is asked, and a
// table that may lead questions elsewhere. The resolver beyond the border is
// where a real device in front of the lab leads them.
const waysScenario = `schema = 1
title = "two ways"
about = "Questions on a path of seven routers."
date = "2026-06-01T12:00:00Z"
[[client-network]]
name = "home"
about = "A line."
asn = 64496
country = "NL"
hops = 6
silent = [2]
delay = "3ms"
%s
[[network]]
name = "hosting"
asn = 64500
country = "DE"
hops = 1
delay = "2ms"
[[network]]
name = "other"
asn = 64501
country = "FR"
hops = 2
delay = "2ms"
[[site]]
name = "open.example"
addresses = ["45.10.0.10"]
http = "same"
[[site]]
name = "resolver.example"
role = "resolver"
addresses = ["45.10.0.20"]
[[site]]
name = "canary.example"
role = "canary"
[[site]]
name = "elsewhere.example"
role = "resolver"
network = "other"
`

// TestKernelWays: what leads questions to another resolver is found on its link
// in the lab and on the kernel's own stack, however the errors of
// routers beyond it are translated; a resolver that answers itself is said
// to.
func TestKernelWays(t *testing.T) {
	t.Parallel()
	needsKernel(t)
	for _, k := range []struct {
		name, table string
		kind        measure.Kind
		nearer      bool
	}{
		{"translated", "[client-network.dns-redirect]\nat = 4\nhops = 3\n", measure.Redirects, false},
		{"farther than asked", "[client-network.dns-redirect]\nat = 4\nhops = 6\n", measure.Redirects, false},
		{"quotes alone", "[client-network.dns-redirect]\nat = 4\nhops = 3\nerrors = \"quoted\"\n", measure.Redirects, true},
		{"not translated", "[client-network.dns-redirect]\nat = 4\nhops = 3\nerrors = \"none\"\n", measure.Redirects, false},
		{"answered there", "[client-network.dns-redirect]\nat = 4\n", measure.Terminates, true},
		{"itself", "", "", false},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			args := []string{"locate", "--payload", "resolver", "--json", "--seed", "7", "-4", "--resolver", "45.10.0.20", "https://open.example/"}
			inLab, onKernel, _ := locatedTwice(ctx, t, fmt.Sprintf(waysScenario, k.table), args, nil, func(*lab.World) []string { return nil })
			if k.kind == "" {
				for more, l := range []measure.Location{inLab, onKernel} {
					if l.Outcome != measure.Itself || l.ServerTTL != 8+more || l.RemoteASN != 64500 && more == 0 {
						t.Errorf("%d: %s at %d, AS%d", more, l.Outcome, l.ServerTTL, l.RemoteASN)
					}
				}
				return
			}
			atBox(t, inLab, onKernel, func(where string, l measure.Location) {
				if l.Kind != k.kind || l.Nearer != k.nearer || len(l.Set) != 1 || l.Position != measure.InPath {
					t.Errorf("%s: %s, nearer %v, %v", where, l.Kind, l.Nearer, l.Set)
				}
			})
		})
	}
}

// TestProductRedirect: Linux itself leads questions to another resolver, on the
// second router, to one farther away. The ways part only beyond the border; what
// it does to errors about them tells that router.
func TestProductRedirect(t *testing.T) {
	t.Parallel()
	needsPrograms(t, "iptables", "sleep")
	file := t.TempDir() + "/ways.toml"
	if err := os.WriteFile(file, fmt.Appendf(nil, waysScenario, ""), 0o600); err != nil {
		t.Fatal(err)
	}
	w := rawWorld(t, file)
	var to netip.Addr
	for _, s := range w.Sites("resolver") {
		if s.Name == "elsewhere.example" {
			to = s.AllAddresses()[0]
		}
	}
	link := kernel.Of(w)
	link.Routers = 2
	link.Programs = []kernel.Program{{Router: 2, Args: []string{"sleep", "300"},
		Before: [][]string{{"iptables", "-t", "nat", "-A", "PREROUTING", "-i", "in0", "-p", "udp", "--dport", "53", "-j", "DNAT", "--to-destination", to.String()}}}}
	began := time.Now()
	l := locationIn(t, commandOnKernel(t, link, "locate", "--payload", "resolver", "--json", "-4", "--resolver", "45.10.0.20", "--consent", "--control", "open.example", "https://open.example/"))
	t.Logf("in %v, %d probes", time.Since(began), l.Probes)
	if l.Kind != measure.Redirects || l.Nearer || len(l.Set) != 1 || l.Set[0].Low != 1 || l.Set[0].To != "100.64.2.1" {
		t.Errorf("%s %s, nearer %v, %v", l.Outcome, l.Kind, l.Nearer, l.Set)
	}
}
