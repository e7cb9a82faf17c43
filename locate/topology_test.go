package locate_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"govah/lab"
	"govah/locate"
	"govah/measure"
)

var (
	topologies = flag.Int("topologies", 0, "locate devices in so many random topologies, look for some in as many clean ones, and print a table")
	privileged = flag.Bool("privileged", false, "let the client capture packets")
	helped     = flag.Bool("helped", false, "make a helper the target, of the kinds that act on TLS and HTTP")
	only       = flag.String("kind", "", "only this kind of box")
	drawn      = flag.Uint64("drawn", 6, "draw with this seed, with which each kind of device is also where it can be told; 0: with a random one, which is told")
	one        = flag.Int("one", -1, "only the topology of this number; the clean ones begin at 1000000")
	keep       = flag.String("keep", "", "write the observations of each wrong answer into this folder")
)

// boxKind is a kind of box that a topology may have.
type boxKind struct {
	name     string
	payload  locate.Payload
	rule     string
	drops    bool // only routers that answer tell where
	residual measure.ResidualKey
	far      bool // acts on what reaches the server: only the far end could tell where
}

var boxKinds = []boxKind{
	{name: "tls reset, in-path", payload: locate.TLS, rule: "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"reset\""},
	{name: "tls reset, on-path", payload: locate.TLS, rule: "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"reset\"\non-path = true\nends = \"client\""},
	{name: "tls reset x3, late", payload: locate.TLS, rule: "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"reset\"\non-path = true\nflags = \"R RA RA\"\nafter = \"30ms\"\ngrowing = true\nttl = 90"},
	{name: "tls alert", payload: locate.TLS, rule: "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"alert\""},
	{name: "tls drop", payload: locate.TLS, drops: true, rule: "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"drop\""},
	{name: "tls drop, out only", payload: locate.TLS, drops: true, rule: "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"drop\"\nside = \"out\""},
	{name: "tls reset, ttl copied, on-path", payload: locate.TLS, rule: "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"reset\"\non-path = true\nends = \"client\"\ncopy-ttl = true"},
	{name: "tls reset, ttl copied, in-path", payload: locate.TLS, drops: true, rule: "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"reset\"\nends = \"client\"\ncopy-ttl = true"},
	{name: "tls reset, then 3-tuple", payload: locate.TLS, residual: measure.Residual3Tuple, rule: "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"reset\"\nresidual = \"3-tuple\"\nfor = \"60s\""},
	{name: "tls reset, then 4-tuple", payload: locate.TLS, residual: measure.Residual4Tuple, rule: "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"reset\"\nresidual = \"4-tuple\"\nfor = \"60s\"\nthen = \"drop\""},
	{name: "tls drop, then destination", payload: locate.TLS, drops: true, residual: measure.ResidualDestination, rule: "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"drop\"\nresidual = \"destination\"\nfor = \"60s\""},
	{name: "tls reset, server only", payload: locate.TLS, far: true, rule: "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"reset\"\non-path = true\nends = \"server\""},
	{name: "tls drop, in only", payload: locate.TLS, far: true, rule: "layer = \"tls\"\nnames = [\"blocked.example\"]\naction = \"drop\"\nside = \"in\""},
	{name: "http page, in-path", payload: locate.HTTP, rule: "layer = \"http\"\nnames = [\"blocked.example\"]\naction = \"page\"\nbody = \"no\""},
	{name: "http page, on-path", payload: locate.HTTP, rule: "layer = \"http\"\nnames = [\"blocked.example\"]\naction = \"page\"\nbody = \"no\"\non-path = true"},
	{name: "http redirect", payload: locate.HTTP, rule: "layer = \"http\"\nnames = [\"blocked.example\"]\naction = \"redirect\"\nto = \"http://10.10.34.34/\""},
	{name: "http drop", payload: locate.HTTP, drops: true, rule: "layer = \"http\"\nnames = [\"blocked.example\"]\naction = \"drop\""},
	{name: "dns answer, in-path", payload: locate.DNS, rule: "layer = \"dns\"\nnames = [\"blocked.example\"]\naction = \"dns-answer\"\nanswers = [\"10.10.34.35\"]\nany-type = true"},
	{name: "dns answer, on-path", payload: locate.DNS, rule: "layer = \"dns\"\nnames = [\"blocked.example\"]\naction = \"dns-answer\"\nanswers = [\"10.10.34.35\"]\nany-type = true\nwhen = \"before\""},
	{name: "dns answer, ttl copied", payload: locate.DNS, rule: "layer = \"dns\"\nnames = [\"blocked.example\"]\naction = \"dns-answer\"\nanswers = [\"10.10.34.35\"]\nany-type = true\nwhen = \"before\"\ncopy-ttl = true"},
	{name: "dns nxdomain", payload: locate.DNS, rule: "layer = \"dns\"\nnames = [\"blocked.example\"]\naction = \"dns-nxdomain\""},
	{name: "dns drop", payload: locate.DNS, drops: true, rule: "layer = \"dns\"\nnames = [\"blocked.example\"]\naction = \"drop\""},
	{name: "quic drop", payload: locate.QUIC, drops: true, rule: "layer = \"quic\"\nnames = [\"blocked.example\"]\naction = \"drop\""},
	{name: "address drop", payload: locate.TCP, drops: true, rule: "layer = \"ip\"\naddresses = [\"45.10.0.10\", \"2a0e:1000::a\"]\naction = \"drop\""},
	{name: "address reset", payload: locate.TCP, rule: "layer = \"tcp\"\naddresses = [\"45.10.0.10\", \"2a0e:1000::a\"]\nsegment = \"syn\"\naction = \"reset\""},
	{name: "address unreachable", payload: locate.TCP, rule: "layer = \"ip\"\naddresses = [\"45.10.0.10\", \"2a0e:1000::a\"]\naction = \"unreachable\"\ncode = \"admin\""},
}

// topology is one drawn world and its truth.
type topology struct {
	kind    *boxKind // nil: clean
	tables  string
	hops    int // TTL that reaches the server
	link    int // the device is before the router at this TTL
	silent  []int
	loss    int
	v6      bool
	payload locate.Payload
}

// draw makes a topology of 5 to 20 hops.
func draw(r *rand.Rand, kind *boxKind) topology {
	t := topology{kind: kind, hops: 5 + r.IntN(16), loss: r.IntN(31), v6: r.IntN(3) == 0}
	client := t.hops - 2 // one router of the hoster's
	t.link = 1 + r.IntN(client+1)
	share := r.IntN(31)
	for h := 1; h <= client; h++ {
		if r.IntN(100) < share {
			t.silent = append(t.silent, h)
		}
	}
	var equal []int
	if ways := r.IntN(5); ways > 1 {
		for h := 2; h <= client; h++ {
			if r.IntN(4) == 0 {
				equal = append(equal, h)
			}
		}
	}
	list := func(l []int) string { return strings.ReplaceAll(fmt.Sprint(l), " ", ", ") }
	t.tables = fmt.Sprintf("hops = %d\nsilent = %s\nequal = %s\nways = %d\ndelay = \"2ms\"\n", client, list(t.silent), list(equal), 2+r.IntN(3))
	if r.IntN(5) == 0 { // routers that say little are no devices
		t.tables += fmt.Sprintf("icmp-per-second = %d\n", 2+r.IntN(19))
	}
	t.payload = locate.TLS
	if kind != nil {
		t.payload = kind.payload
		t.tables += fmt.Sprintf("[[client-network.box]]\nat = %d\n[[client-network.box.rule]]\n%s\n", t.link-1, kind.rule)
	} else {
		t.payload = []locate.Payload{locate.TLS, locate.HTTP, locate.DNS, locate.QUIC, locate.TCP}[r.IntN(5)]
		if *helped {
			t.payload = []locate.Payload{locate.TLS, locate.HTTP}[r.IntN(2)]
		}
	}
	t.tables += "[[network]]\nname = \"hosting\"\nhops = 1\ndelay = \"3ms\"\n"
	return t
}

// identifiable are the links that a device of this kind cannot be told from:
// what swallows packets is seen by the routers that answer alone.
func (t topology) identifiable() (low, high int) {
	low, high = t.link, t.link
	if t.kind != nil && t.kind.far && !(*helped && strings.Contains(t.kind.rule, `ends = "server"`)) {
		return 1, t.hops
	}
	if t.kind == nil || !t.kind.drops {
		return low, high
	}
	for low > 1 && slices.Contains(t.silent, low-1) {
		low--
	}
	for high < t.hops && slices.Contains(t.silent, high) {
		high++
	}
	return low, high
}

// find runs the search in a topology.
func (t topology) find(ctx context.Context, seed uint64, privileged bool) (*measure.Measurement, measure.Location, time.Duration, error) {
	e, err := emulate(t.tables, lab.Options{Seed: seed, Loss: t.loss, Privileged: privileged})
	if err != nil {
		return nil, measure.Location{}, 0, err
	}
	defer e.Close()
	spec := e.spec(t.payload, t.v6, seed)
	if *helped {
		stop, err := e.help(&spec)
		if err != nil {
			return nil, measure.Location{}, 0, err
		}
		defer stop()
	}
	return e.find(ctx, spec)
}

// tally counts how one kind fared.
type tally struct {
	n, exact, possible, segment, held, claimed, residual, wrongResidual, known, wrongPosition int
	triggers, probes                                                                          []int
	took                                                                                      []time.Duration
	bytes                                                                                     []int64
}

// TestTopologies locates devices in random topologies. With -topologies it is
// the command behind the table of docs/design/locate.md.
func TestTopologies(t *testing.T) {
	n := *topologies
	if n == 0 {
		n = len(boxKinds)
	}
	seed := *drawn
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("drawn with -drawn %d", seed)
	kinds := boxKinds
	if *only != "" {
		kinds = slices.DeleteFunc(slices.Clone(kinds), func(k boxKind) bool { return !strings.Contains(k.name, *only) })
	}
	if *helped {
		kinds = slices.DeleteFunc(slices.Clone(kinds), func(k boxKind) bool { return k.payload != locate.TLS && k.payload != locate.HTTP })
	}
	var mu sync.Mutex
	tallies := map[string]*tally{}
	var wg sync.WaitGroup
	limit := make(chan struct{}, 24)
	run := func(i int, kind *boxKind) {
		if *one >= 0 && i != *one {
			return
		}
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			top := draw(r, kind)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			m, l, took, err := top.find(ctx, uint64(i+1), *privileged)
			if err != nil {
				t.Errorf("topology %d: %v", i, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			name := "clean"
			if kind != nil {
				name = kind.name
			}
			y := tallies[name]
			if y == nil {
				y = &tally{}
				tallies[name] = y
			}
			if wrong := y.count(top, m, l, took); wrong != "" {
				t.Logf("topology %d, %s: hops %d link %d silent %v loss %d v6 %v: %s; %s %s %v", i, name, top.hops, top.link, top.silent, top.loss, top.v6, wrong, l.Outcome, l.Kind, l.Set)
				if *keep != "" {
					b, _ := json.MarshalIndent(struct {
						Topology string
						Location measure.Location
						List     []measure.Observation
					}{top.tables, l, m.Observations}, "", " ")
					os.WriteFile(filepath.Join(*keep, fmt.Sprintf("%03d-%s.json", i, strings.ReplaceAll(name, " ", "_"))), b, 0o600)
				}
			}
		})
	}
	for i := range n {
		if len(kinds) > 0 {
			run(i, &kinds[i%len(kinds)])
		}
	}
	for i := range n {
		if *only == "" || *only == "clean" {
			run(1_000_000+i, nil)
		}
	}
	wg.Wait()
	report(t, tallies)
}

func (y *tally) count(top topology, m *measure.Measurement, l measure.Location, took time.Duration) (wrong string) {
	y.n++
	y.took = append(y.took, took)
	y.bytes = append(y.bytes, m.BytesSent)
	y.probes = append(y.probes, l.Probes)
	claimed := len(l.Set) > 0
	if claimed {
		y.claimed++
	}
	if top.kind == nil {
		if claimed {
			return "claimed on a clean path"
		}
		return ""
	}
	y.triggers = append(y.triggers, l.Triggers)
	low, high := top.identifiable()
	if low == high {
		y.possible++
	}
	if !claimed {
		return "missed"
	}
	got := l.Set[0].Low + 1
	if low == high && got == top.link {
		y.exact++
	}
	if got >= low && got <= high {
		y.segment++
	} else {
		wrong = fmt.Sprintf("link %d", got)
	}
	if slices.ContainsFunc(l.Set, func(p measure.Place) bool { return p.Low+1 == top.link }) {
		y.held++
	} else {
		wrong += " not in the set"
	}
	if onPath := strings.Contains(top.kind.rule, "on-path = true") || strings.Contains(top.kind.rule, `when = "before"`); l.Position == measure.OnPath || l.Position == measure.InPath {
		y.known++
		if (l.Position == measure.OnPath) != onPath {
			y.wrongPosition++
			wrong += " said to be " + string(l.Position)
		}
	}
	if want := top.kind.residual; want != "" {
		y.residual++
		if l.Residual != want {
			y.wrongResidual++
		}
	}
	if want := top.kind.residual; want != "" && l.Residual != want {
		wrong += " residual " + string(l.Residual)
	}
	return wrong
}

func median[T int | int64 | time.Duration](l []T) T {
	if len(l) == 0 {
		return 0
	}
	slices.Sort(l)
	return l[len(l)/2]
}

func most[T int | int64 | time.Duration](l []T) T {
	if len(l) == 0 {
		return 0
	}
	return slices.Max(l)
}

func report(t *testing.T, tallies map[string]*tally) {
	var names []string
	for name := range tallies {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Printf("%-31s %5s %8s %8s %8s %7s %9s %9s %7s %7s %8s\n", "kind", "n", "claimed", "exact", "segment", "in set", "in/on", "residual", "probes", "trigger", "seconds")
	var all tally
	for _, name := range names {
		y := tallies[name]
		residual := "-"
		if y.residual > 0 {
			residual = fmt.Sprintf("%d/%d", y.residual-y.wrongResidual, y.residual)
		}
		fmt.Printf("%-31s %5d %8d %8s %8d %7d %9s %9s %7d %7d %8.1f\n", name, y.n, y.claimed, fmt.Sprintf("%d/%d", y.exact, y.possible), y.segment, y.held,
			fmt.Sprintf("%d/%d", y.known-y.wrongPosition, y.known), residual, median(y.probes), median(y.triggers), median(y.took).Seconds())
		if name != "clean" {
			for _, p := range []struct{ into, from *int }{{&all.n, &y.n}, {&all.claimed, &y.claimed}, {&all.exact, &y.exact}, {&all.possible, &y.possible}, {&all.segment, &y.segment},
				{&all.held, &y.held}, {&all.known, &y.known}, {&all.wrongPosition, &y.wrongPosition}, {&all.residual, &y.residual}, {&all.wrongResidual, &y.wrongResidual}} {
				*p.into += *p.from
			}
			all.triggers = append(all.triggers, y.triggers...)
		}
	}
	if all.n > 0 {
		fmt.Printf("%-31s %5d %8d %8s %8d %7d %9s %9s %7s %7d\n", "all devices", all.n, all.claimed, fmt.Sprintf("%d/%d", all.exact, all.possible), all.segment, all.held,
			fmt.Sprintf("%d/%d", all.known-all.wrongPosition, all.known), fmt.Sprintf("%d/%d", all.residual-all.wrongResidual, all.residual), "", median(all.triggers))
	}
	// The bounds of a small draw leave room for chance; a large one has the
	// bounds of the table's text.
	slack := func(n int, share float64) int {
		return int(share*float64(n) + 3*math.Sqrt(share*(1-share)*float64(n)) + 1)
	}
	if wrong := all.possible - all.exact; wrong > slack(all.possible, 0.05) {
		t.Errorf("%d of %d links wrong", wrong, all.possible)
	}
	if missing := all.n - all.held; missing > slack(all.n, 0.015) {
		t.Errorf("%d of %d credible sets without the truth", missing, all.n)
	}
	if c := tallies["clean"]; c != nil && c.claimed > slack(c.n, 0.005) {
		t.Errorf("%d of %d clean paths accused", c.claimed, c.n)
	}
	if wrong := all.n - all.segment; wrong > slack(all.n, 0.07) {
		t.Errorf("%d of %d segments wrong", wrong, all.n)
	}
	if all.wrongResidual > slack(all.residual, 0.05) {
		t.Errorf("%d of %d residual keys wrong", all.wrongResidual, all.residual)
	}
	if all.wrongPosition > slack(all.known, 0.01) {
		t.Errorf("in-path and on-path: %d of %d wrong", all.wrongPosition, all.known)
	}
}
