package locate_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"govah/helper"
	"govah/lab"
	"govah/locate"
	"govah/measure"
	"govah/wire"
)

// emulated is a lab that a test looks for a device in.
type emulated struct {
	*lab.World
	s *lab.Scenario
}

// hosted are the sites of all tests: one that is open and has mail, one that shares its
// addresses and is blocked, and a resolver.
const hosted = `
[[site]]
name = "open.example"
addresses = ["45.10.0.10", "2a0e:1000::a"]
http = "same"
h3 = true
[[site.mail]]
scheme = "smtp"
capabilities = ["STARTTLS"]
[[site]]
name = "blocked.example"
shares = "open.example"
http = "same"
[[site]]
name = "resolver.example"
role = "resolver"
[[site]]
name = "helper.example"
role = "helper"
`

// emulate makes a lab of one client network and hosting, given as the tables
// of a scenario without its head.
func emulate(tables string, o lab.Options) (*emulated, error) {
	text := "schema = 1\ntitle = \"a path\"\nabout = \"for a test\"\n[[client-network]]\nname = \"home\"\nabout = \"a line\"\n" + tables + hosted
	s, err := lab.Parse([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, text)
	}
	w, err := lab.New(s, o)
	return &emulated{w, s}, err
}

// at is a port of the first address, of a family, of a site.
func (e *emulated) at(site string, port uint16, v6 bool) netip.AddrPort {
	for _, s := range e.s.Sites {
		for _, a := range s.AllAddresses() {
			if s.Name == site && a.Is6() == v6 {
				return netip.AddrPortFrom(a, port)
			}
		}
	}
	return netip.AddrPort{}
}

// spec looks for what blocks blocked.example.
func (e *emulated) spec(payload locate.Payload, v6 bool, seed uint64) locate.Spec {
	spec := locate.Spec{Payload: payload, Name: "blocked.example", Seed: seed, Elsewhere: e.at("resolver.example", 443, v6),
		Controls: []locate.Control{{Kind: measure.ControlKnown, Name: "opened1.example"}}}
	switch payload {
	case locate.TLS, locate.Raw:
		spec.Remote, spec.OtherPort = e.at("open.example", 443, v6), 80
	case locate.HTTP:
		spec.Remote, spec.OtherPort = e.at("open.example", 80, v6), 443
	case locate.DNS:
		spec.Remote = e.at("resolver.example", 53, v6)
	case locate.QUIC:
		spec.Remote = e.at("open.example", 443, v6)
	case locate.TCP:
		spec.Remote = e.at("open.example", 443, v6)
		spec.Controls = []locate.Control{{Kind: measure.ControlKnown, At: e.at("resolver.example", 443, v6)}}
	}
	return spec
}

// help starts the helper and makes it the target of a search over TCP.
func (e *emulated) help(spec *locate.Spec) (stop func(), err error) {
	m, err := e.Host("helper.example")
	if err != nil {
		return nil, err
	}
	cert, err := m.Issue("helper.example")
	if err != nil {
		return nil, err
	}
	s, err := helper.New(helper.Config{Network: m.Network(), Certificate: cert, Now: e.Now})
	if err != nil {
		return nil, err
	}
	var l helper.Listeners
	for _, a := range m.Addresses() {
		for _, port := range []uint16{80, 443} {
			tcp, err := m.Listen(netip.AddrPortFrom(a, port))
			if err != nil {
				return nil, err
			}
			l.TCP = append(l.TCP, tcp)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Serve(ctx, l) })
	spec.Remote = e.at("helper.example", spec.Remote.Port(), spec.Remote.Addr().Is6())
	spec.Helper, spec.Trust = "https://helper.example/", &wire.Trust{Public: e.Public(), Now: e.Now}
	return func() { cancel(); running.Wait() }, nil
}

// find runs a search and concludes.
func (e *emulated) find(ctx context.Context, spec locate.Spec) (*measure.Measurement, measure.Location, time.Duration, error) {
	began := time.Now()
	log := wire.NewLog(began, nil)
	if err := locate.Run(ctx, e.Network(), log, spec); err != nil {
		return nil, measure.Location{}, 0, err
	}
	took := time.Since(began)
	m := &measure.Measurement{Run: "r1", ID: "m1", Target: spec.Name, Observations: log.Observations()}
	m.BytesSent, m.BytesReceived = log.Bytes()
	list := locate.Infer(m, nil)
	if len(list) != 1 {
		return m, measure.Location{}, took, fmt.Errorf("%d locations", len(list))
	}
	return m, list[0], took, nil
}

// located is find in a lab that ends with the test.
func located(t *testing.T, tables string, change func(*emulated, *locate.Spec)) measure.Location {
	t.Helper()
	e, err := emulate(tables, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	spec := e.spec(locate.TLS, false, 1)
	change(e, &spec)
	_, l, _, err := e.find(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// draws does each of n draws beside others, with random numbers of its own.
func draws(t *testing.T, n int, each func(i int, r *rand.Rand)) {
	t.Helper()
	seed := *drawn
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("drawn with -drawn %d", seed)
	var wg sync.WaitGroup
	limit := make(chan struct{}, 24)
	for i := range n {
		if *one >= 0 && i != *one {
			continue
		}
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			each(i, rand.New(rand.NewPCG(seed, uint64(i))))
		})
	}
	wg.Wait()
}

// some are of the hops 1 to n, each with a chance of so many in a hundred.
func some(r *rand.Rand, n, share int) (out []int) {
	for h := 1; h <= n; h++ {
		if r.IntN(100) < share {
			out = append(out, h)
		}
	}
	return out
}

// array writes hops as a scenario has them.
func array(l []int) string { return strings.ReplaceAll(fmt.Sprint(l), " ", ", ") }

// score counts the draws of one kind of device: those that were claimed, those
// whose link can be told from its neighbours, and of these those found there.
type score struct{ n, claimed, possible, exact int }

// told counts a draw that can be told, and says what was missed.
func (c *score) told(t *testing.T, exact bool, about string) {
	t.Helper()
	if c.possible++; exact {
		c.exact++
	} else {
		t.Logf("missed: %s", about)
	}
}

// tell prints the scores, and fails where less than a share, in per cent, of
// what can be told was found; so many more may be chance.
func tell(t *testing.T, name func(kind int) string, counts []score, share, chance int) {
	t.Helper()
	exact, possible := 0, 0
	for k, c := range counts {
		t.Logf("%-34s %4d, claimed %4d, can be told %4d, exact %4d", name(k), c.n, c.claimed, c.possible, c.exact)
		exact, possible = exact+c.exact, possible+c.possible
	}
	if (exact+chance)*100 < possible*share {
		t.Errorf("%d of %d", exact, possible)
	}
}
