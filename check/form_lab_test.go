package check_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"govah/check"
	"govah/identify"
	"govah/lab"
	"govah/measure"
	"govah/wire"
)

// reading is a lab with one device, and a search for what it is.
type reading struct {
	rule       string // of the box, its layer and names left out
	payload    string
	names      string // blocked, default "blocked.example"
	nowhere    bool
	loss       int  // per thousand
	privileged bool // to capture packets
	own        bool // the servers are one's own
}

// identified runs the search.
func identified(t *testing.T, r reading) *measure.Identification {
	t.Helper()
	id, err := r.search(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (r reading) search(ctx context.Context) (*measure.Identification, error) {
	if r.names == "" {
		r.names = `["blocked.example"]`
	}
	text := fmt.Sprintf("schema = 1\ntitle = \"a path\"\nabout = \"for a test\"\n[[client-network]]\nname = \"home\"\nabout = \"a line\"\nhops = 4\ndelay = \"2ms\"\n"+
		"[[client-network.box]]\nat = 2\n[[client-network.box.rule]]\nlayer = %q\nnames = %s\n%s\n[[network]]\nname = \"hosting\"\nhops = 1\n"+
		"[[site]]\nname = \"open.example\"\nhttp = \"same\"\nh3 = true\n[[site]]\nname = \"blocked.example\"\nshares = \"open.example\"\nhttp = \"same\"\n"+
		"[[site]]\nname = \"other.example\"\nhttp = \"same\"\nh3 = true\n[[site]]\nname = \"third.example\"\nhttp = \"same\"\nh3 = true\n[[site]]\nname = \"resolver.example\"\nrole = \"resolver\"\n", r.payload, r.names, r.rule)
	s, err := lab.Parse([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, text)
	}
	w, err := lab.New(s, lab.Options{Loss: r.loss, Privileged: r.privileged})
	if err != nil {
		return nil, err
	}
	defer w.Close()
	spec := check.FormSpec{Payload: r.payload, Name: "blocked.example", Known: "open.example"}
	port := map[string]uint16{"tls": 443, "http": 80, "dns": 53, "quic": 443}[r.payload]
	for _, site := range s.Sites {
		if (site.Role == "resolver") != (r.payload == "dns") || site.Name == "blocked.example" || r.payload == identify.Web && site.Name == "open.example" {
			continue
		}
		a := site.AllAddresses()[0]
		if r.nowhere {
			a, spec.NoResolver = a.Next().Next().Next(), true
		}
		spec.At = append(spec.At, netip.AddrPortFrom(a, port))
	}
	if r.own {
		spec.Own = spec.At
	}
	log := wire.NewLog(time.Now(), nil)
	if err := check.ReadForms(ctx, check.Config{Network: w.Network(), Seed: 1, Pace: check.PaceFast}, log, identify.Documented(nil), spec); err != nil {
		return nil, err
	}
	m := &measure.Measurement{ID: "m1", Observations: log.Observations()}
	for _, o := range m.Observations {
		if identify.Odd(o.Form) && !r.own {
			return nil, fmt.Errorf("the form %s went to a server of others", o.Form)
		}
	}
	id := identify.Documented(nil).Infer(m)
	if id == nil {
		return nil, errors.New("nothing was tried")
	}
	return id, nil
}

func TestReadForms(t *testing.T) {
	for _, c := range []struct {
		name string
		reading
		outcome measure.Likeness
		want    map[string]string
	}{
		{"nothing", reading{rule: `action = "reset"`, payload: "tls", names: `["nobody.example"]`}, measure.NothingReacts, nil},
		{"tls reset, reassembles, suffix", reading{rule: `action = "reset"`, payload: "tls", names: `[".blocked.example"]`}, measure.UnknownDevice,
			map[string]string{"action": "reset", "split": "reads", "records": "reads", "under": "reads", "glued": "blind", "upper": "reads"}},
		{"tls drop, exact, one packet", reading{rule: "action = \"drop\"\nsplit-defeats = true", payload: "tls"}, measure.UnknownDevice,
			map[string]string{"action": "drop", "split": "blind", "under": "blind", "glued": "blind"}},
		{"tls reset, residual", reading{rule: "action = \"reset\"\nresidual = \"3-tuple\"\nfor = \"60s\"", payload: "tls"}, measure.UnknownDevice,
			map[string]string{"action": "reset"}},
		{"http page", reading{rule: "action = \"page\"\nstatus = \"403 Forbidden\"\nbody = \"no\"", payload: "http"}, measure.UnknownDevice,
			map[string]string{"action": "page", "status": "403", "second": "reads", "name-case": "reads"}},
		{"http page that names its product", reading{rule: "action = \"page\"\nbody = \"<title>NetentSec Content Filter - Access Denied</title>\"", payload: "http"}, measure.ProductNamed, nil},
		{"dns answer", reading{rule: "action = \"dns-answer\"\nanswers = [\"10.10.34.35\"]", payload: "dns", nowhere: true}, measure.BehaviourKnown,
			map[string]string{"action": "answer", "answer": "10.10.34.35", "under": "blind"}},
		{"quic drop, the first datagram alone", reading{rule: "action = \"drop\"\nsplit-defeats = true", payload: "quic"}, measure.UnknownDevice,
			map[string]string{"action": "drop", "large": "blind", "behind": "blind", "under": "blind", "upper": "reads"}},
		{"quic drop, reassembles, one version", reading{rule: "action = \"drop\"\nversions = [1]\nblind-to = [\"upper\"]", payload: "quic", names: `[".blocked.example"]`}, measure.UnknownDevice,
			map[string]string{"action": "drop", "large": "reads", "behind": "reads", "under": "reads", "upper": "blind"}},
		{"dns drop", reading{rule: "action = \"drop\"", payload: "dns"}, measure.UnknownDevice, map[string]string{"action": "drop"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			id := identified(t, c.reading)
			if id.Outcome != c.outcome {
				t.Errorf("%s, want %s: %+v", id.Outcome, c.outcome, id)
			}
			got := map[string]string{}
			for _, p := range id.Properties {
				got[p.Name] = p.Value
			}
			for name, value := range c.want {
				if got[name] != value {
					t.Errorf("%s is %q, want %q; all: %v", name, got[name], value, got)
				}
			}
			if id.Probes > identify.MaxForm {
				t.Errorf("%d probes", id.Probes)
			}
			t.Logf("%s %s probes %d triggers %d next %s %v %v", id.Outcome, id.Cluster, id.Probes, id.Triggers, id.Next, got, id.Behaviours)
		})
	}
}

var devices = flag.Int("devices", 40, "draw so many devices in the lab and find out how each writes and reads")

// drawnDevice is one device and the truth about it.
type drawnDevice struct {
	reading
	truth map[string]string
}

func drawDevice(rng *rand.Rand) drawnDevice {
	d := drawnDevice{truth: map[string]string{}}
	d.loss, d.own = rng.IntN(21), rng.IntN(2) == 0
	d.payload = []string{identify.TLS, identify.Web, identify.Naming, identify.QUIC}[rng.IntN(4)]
	reads := func(form string, yes bool) {
		d.truth[form] = map[bool]string{true: measure.Reads, false: measure.Blind}[yes]
	}
	reads(identify.Plain, true)
	actions := map[string][]string{identify.TLS: {"reset", "drop", "alert"}, identify.Web: {"reset", "drop", "page", "redirect"}, identify.Naming: {"dns-answer", "dns-nxdomain", "drop"}, identify.QUIC: {"drop"}}[d.payload]
	action := actions[rng.IntN(len(actions))]
	d.truth["action"] = strings.TrimPrefix(action, "dns-")
	d.nowhere = strings.HasPrefix(action, "dns-")
	rule := []string{fmt.Sprintf("action = %q", action)}
	switch action {
	case "dns-answer":
		rule = append(rule, `answers = ["192.0.2.9", "2001:db8::9"]`, "any-type = true")
	case "redirect":
		rule = append(rule, `to = "http://blocked.invalid/"`)
	case "page":
		rule = append(rule, `body = "no"`)
	}
	// By name: itself, what is under it, or whatever contains it.
	switch rng.IntN(3) {
	case 0:
		reads(identify.Under, false)
		reads(identify.Glued, false)
	case 1:
		d.names = `[".blocked.example"]`
		reads(identify.Under, true)
		reads(identify.Glued, false)
	case 2:
		d.names = "[]\ncontains = [\"blocked.example\"]"
		reads(identify.Under, true)
		reads(identify.Glued, true)
	}
	if d.payload == identify.TLS || d.payload == identify.Web {
		alone := rng.IntN(2) == 0
		reads(identify.Split, !alone)
		if alone {
			rule = append(rule, "split-defeats = true")
		}
	}
	var blind []string
	for _, form := range map[string][]string{
		identify.TLS:    {identify.Records, identify.Upper, identify.GoHello, identify.MSS},
		identify.Web:    {identify.Upper, identify.NameCase, identify.NoSpace, identify.Tab, identify.Late, identify.Long, identify.Absolute, identify.HTTP10, identify.Head, identify.MethodCase, identify.Port, identify.Dot, identify.Second, identify.MSS, identify.Twice, identify.BareLF, identify.Wide},
		identify.Naming: {identify.Upper, identify.TCP, identify.NoEDNS},
		identify.QUIC:   {identify.Upper, identify.Large, identify.Behind},
	}[d.payload] {
		yes := rng.IntN(2) == 0
		reads(form, yes)
		if !yes {
			blind = append(blind, fmt.Sprintf("%q", form))
		}
	}
	if blind != nil {
		rule = append(rule, "blind-to = ["+strings.Join(blind, ", ")+"]")
	}
	d.rule = strings.Join(rule, "\n")
	return d
}

// TestReadDevices: how a device writes and reads is found out, whatever it
// does, on paths that lose up to 2 % of the packets.
func TestReadDevices(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 5))
	var (
		mu                        sync.Mutex
		all                       sync.WaitGroup
		right, properties, probes int
	)
	atOnce := make(chan struct{}, 8)
	for i := range *devices {
		d := drawDevice(rng)
		all.Go(func() {
			atOnce <- struct{}{}
			defer func() { <-atOnce }()
			id, err := d.search(t.Context())
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			probes += id.Probes
			wrong := []string{}
			for _, p := range id.Properties {
				if want, ok := d.truth[p.Name]; ok && want != p.Value {
					wrong = append(wrong, fmt.Sprintf("%s is said to be %s", p.Name, p.Value))
				}
				properties++
			}
			for _, form := range identify.Core(d.payload) {
				if !slices.ContainsFunc(id.Properties, func(p measure.Property) bool { return p.Name == form }) && d.truth[form] != "" && !(d.nowhere && form == identify.TCP) {
					wrong = append(wrong, form+" was not found out")
				}
			}
			if id.Outcome == measure.ProductNamed || id.Probes > identify.MaxForm {
				wrong = append(wrong, fmt.Sprint(id.Outcome, " with ", id.Probes, " probes"))
			}
			if len(wrong) == 0 {
				right++
			} else {
				t.Logf("device %d, %s, loss %d: %v: %s", i, d.payload, d.loss, wrong, strings.ReplaceAll(d.rule, "\n", "; "))
			}
		})
	}
	all.Wait()
	t.Logf("seed %d: %d of %d devices found out in all of %d properties, %.1f probes on average", seed, right, *devices, properties, float64(probes)/float64(*devices))
	if right*100 < 95**devices-400 { // four more for chance
		t.Error("want 95 %")
	}
}
