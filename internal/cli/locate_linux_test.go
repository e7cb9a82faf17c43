package cli

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"govah/helper"
	"govah/lab"
	"govah/lab/kernel"
	"govah/locate"
	"govah/measure"
)

// The kinds of box that are located both in the lab and on the kernel's own
// stack. All names, and the address for TCP, are blocked by one rule.
var locateKinds = []struct {
	name, payload, rule string
	position            measure.Position
}{
	{"tls-reset", "tls", `layer = "tls"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "reset"`, measure.PositionUnknown},
	{"tls-reset-on-path", "tls", `layer = "tls"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "reset"` + "\non-path = true\nends = \"client\"", measure.PositionUnknown},
	{"tls-reset-late", "tls", `layer = "tls"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "reset"` + "\non-path = true\nflags = \"R RA RA\"\nafter = \"20ms\"", measure.OnPath},
	{"tls-alert", "tls", `layer = "tls"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "alert"`, measure.PositionUnknown},
	{"tls-drop", "tls", `layer = "tls"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "drop"`, measure.InPath},
	{"tls-drop-out", "tls", `layer = "tls"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "drop"` + "\nside = \"out\"", measure.InPath},
	{"tls-reset-copied-ttl", "tls", `layer = "tls"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "reset"` + "\non-path = true\nends = \"client\"\ncopy-ttl = true", ""},
	{"tls-reset-then-3-tuple", "tls", `layer = "tls"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "reset"` + "\nresidual = \"3-tuple\"\nfor = \"60s\"", measure.PositionUnknown},
	{"http-page", "http", `layer = "http"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "page"` + "\nbody = \"no\"", measure.PositionUnknown},
	{"http-redirect", "http", `layer = "http"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "redirect"` + "\nto = \"http://10.10.34.34/\"", measure.PositionUnknown},
	{"http-drop", "http", `layer = "http"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "drop"`, measure.InPath},
	{"dns-answer", "dns", `layer = "dns"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "dns-answer"` + "\nanswers = [\"10.10.34.35\"]", measure.InPath},
	{"dns-answer-on-path", "dns", `layer = "dns"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "dns-answer"` + "\nanswers = [\"10.10.34.35\"]\nwhen = \"before\"", measure.OnPath},
	{"dns-nxdomain", "dns", `layer = "dns"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "dns-nxdomain"`, measure.InPath},
	{"dns-drop", "dns", `layer = "dns"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "drop"`, measure.InPath},
	{"quic-drop", "quic", `layer = "quic"` + "\n" + `names = ["blocked.example"]` + "\n" + `action = "drop"`, measure.InPath},
	{"address-drop", "tcp", "layer = \"ip\"\naddresses = [\"45.10.0.10\"]\naction = \"drop\"", measure.InPath},
	{"address-unreachable", "tcp", "layer = \"ip\"\naddresses = [\"45.10.0.10\"]\naction = \"unreachable\"\ncode = \"admin\"", measure.PositionUnknown},
}

// locateScenario has seven routers before the server, the third silent, and a
// box before the fifth.
const locateScenario = `schema = 1
title = "a path"
about = "One box on a path of seven routers."
date = "2026-06-01T12:00:00Z"
[[client-network]]
name = "home"
about = "A line."
asn = 64496
country = "NL"
hops = 6
silent = [2]
delay = "3ms"
[[client-network.box]]
at = 4
[[client-network.box.rule]]
%s
[[network]]
name = "hosting"
asn = 64500
country = "DE"
hops = 1
delay = "2ms"
[[site]]
name = "open.example"
addresses = ["45.10.0.10", "2a0e:1000::a"]
http = "same"
h3 = true
[[site]]
name = "blocked.example"
shares = "open.example"
http = "same"
[[site]]
name = "resolver.example"
role = "resolver"
addresses = ["45.10.0.20"]
[[site]]
name = "canary.example"
role = "canary"
`

const boxBefore = 5 // TTL of the router behind the box

// The kinds of box that a helper tells more of: what it says of triggers that
// went all the way.
var farKinds = []struct {
	name, payload, rule string
	position            measure.Position
	arrived             bool
	onlyServer          bool
}{
	{"tls-reset", "tls", "action = \"reset\"", measure.InPath, false, false},
	{"tls-reset-on-path", "tls", "action = \"reset\"\non-path = true\nends = \"client\"", measure.OnPath, true, false},
	{"tls-reset-both", "tls", "action = \"reset\"\non-path = true", measure.OnPath, true, false},
	{"tls-reset-server", "tls", "action = \"reset\"\nends = \"server\"", measure.InPath, false, false}, // what it swallows shows as well
	{"tls-reset-server-on-path", "tls", "action = \"reset\"\non-path = true\nends = \"server\"", measure.OnPath, true, true},
	{"tls-alert", "tls", "action = \"alert\"", measure.InPath, false, false},
	{"http-page", "http", "action = \"page\"\nbody = \"no\"", measure.InPath, false, false},
	{"http-page-on-path", "http", "action = \"page\"\nbody = \"no\"\non-path = true", measure.OnPath, true, false},
}

// TestKernelFarEnd runs `govah locate --helper` in the lab, whose helper it
// is, and with the client on the kernel's stack: what arrives at the helper
// tells a device in the path from one beside it, and finds one that resets the
// helper's side alone.
func TestKernelFarEnd(t *testing.T) {
	t.Parallel()
	needsKernel(t)
	turns := make(chan struct{}, 4)
	for _, k := range farKinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			turns <- struct{}{}
			defer func() { <-turns }()
			rule := fmt.Sprintf("layer = %q\nnames = [\"blocked.example\"]\n%s", k.payload, k.rule)
			text := fmt.Sprintf(locateScenario, rule) + "[[site]]\nname = \"helper.example\"\nrole = \"helper\"\naddresses = [\"45.10.0.30\"]\n"
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			args := []string{"locate", "--payload", k.payload, "--json", "--seed", "7", "-4", "https://blocked.example/"}
			inLab, onKernel, _ := locatedTwice(ctx, t, text, args, []string{"--helper", "lab"}, func(w *lab.World) []string {
				// One with a key of its own: the command trusts no lab's CA.
				m, err := w.Host("helper.example")
				if err != nil {
					t.Fatal(err)
				}
				far, err := helper.New(helper.Config{Network: m.Network()})
				if err != nil {
					t.Fatal(err)
				}
				var where helper.Listeners
				for _, port := range []uint16{80, 443} {
					l, err := m.Listen(netip.AddrPortFrom(netip.MustParseAddr("45.10.0.30"), port))
					if err != nil {
						t.Fatal(err)
					}
					where.TCP = append(where.TCP, l)
				}
				serving, stop := context.WithCancel(context.Background())
				var running sync.WaitGroup
				running.Go(func() { far.Serve(serving, where) })
				t.Cleanup(running.Wait)
				t.Cleanup(stop)
				return []string{"--helper", far.URL("45.10.0.30")}
			})
			atBox(t, inLab, onKernel, func(where string, l measure.Location) {
				arrived := l.FarEnd == measure.FarArrived || l.FarEnd == measure.FarArrivedCut
				if l.FarEnd == "" || l.Position != k.position || arrived != k.arrived || l.OnlyServer != k.onlyServer {
					t.Errorf("%s: %s, %s at the far end, only the server %v; want %+v", where, l.Position, l.FarEnd, l.OnlyServer, k)
				}
				if l.Triggers > locate.DefaultTriggers+locate.DefaultFarTriggers {
					t.Errorf("%s: %d triggers", where, l.Triggers)
				}
			})
		})
	}
}

// TestKernelLocate runs `govah locate` for each kind of box in the lab and on
// the kernel's own network stack, without rights, in namespaces made here: the
// answer must be the exact link, and the same.
func TestKernelLocate(t *testing.T) {
	t.Parallel()
	needsKernel(t)
	turns := make(chan struct{}, 4)
	for _, k := range locateKinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			turns <- struct{}{}
			defer func() { <-turns }()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			to := "45.10.0.10"
			if k.payload == "dns" {
				to = "45.10.0.20"
			}
			args := []string{"locate", "--payload", k.payload, "--json", "--seed", "7", "-4", "--address", to, "https://blocked.example/"}
			inLab, onKernel, out := locatedTwice(ctx, t, fmt.Sprintf(locateScenario, k.rule), args, nil, func(*lab.World) []string { return nil })
			atBox(t, inLab, onKernel, func(where string, l measure.Location) {
				if k.position != "" && l.Position != k.position {
					t.Errorf("%s: %s, not %s", where, l.Position, k.position)
				}
			})
			if inLab.Kind != onKernel.Kind || inLab.CopiesTTL != onKernel.CopiesTTL {
				t.Errorf("the lab says %s %v, the kernel %s %v", inLab.Kind, inLab.CopiesTTL, onKernel.Kind, onKernel.CopiesTTL)
			}
			if t.Failed() && *traces != "" {
				os.WriteFile(*traces+"/"+k.name+".jsonl", []byte(out), 0o600)
			}
		})
	}
}

// atBox checks that both answers are the link of the box, and what else each
// must be. On the kernel one router more stands in front.
func atBox(t *testing.T, inLab, onKernel measure.Location, also func(where string, l measure.Location)) {
	t.Helper()
	for more, l := range []measure.Location{inLab, onKernel} {
		where := []string{"lab", "kernel"}[more]
		if len(l.Set) == 0 {
			t.Errorf("%s: %s", where, l.Outcome)
			continue
		}
		if got := l.Set[0].Low + 1 - more; got != boxBefore {
			t.Errorf("%s: link %d, not %d: %v", where, got, boxBefore, l.Set)
		}
		also(where, l)
	}
}

// locatedTwice runs a command in the lab of a scenario, and on the kernel's own
// stack in front of the same world, each with what it needs besides; out is
// what the second printed.
func locatedTwice(ctx context.Context, t *testing.T, text string, args, there []string, here func(*lab.World) []string) (inLab, onKernel measure.Location, out string) {
	t.Helper()
	file := t.TempDir() + "/path.toml"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var printed, errs bytes.Buffer
	if code := Main(ctx, slices.Concat(args, []string{"--lab", file}, there), strings.NewReader(""), &printed, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	inLab = locationIn(t, printed.String())
	s, err := lab.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.New(s, lab.Options{Raw: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", slices.Concat(args, []string{"--consent", "--control", "open.example"}, here(w))...)
	cmd.Env = append(os.Environ(), asGovah+"=1", "HOME="+t.TempDir())
	printed.Reset()
	errs.Reset()
	cmd.Stdout, cmd.Stderr = &printed, &errs
	if err := kernel.Run(ctx, kernel.Link{Addresses: w.ClientAddresses(), Resolver: netip.MustParseAddr(w.Client.Resolver), Routers: 1, Send: w.Inject, Attach: w.Port}, cmd); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	return inLab, locationIn(t, printed.String()), printed.String()
}

// locationIn is the one location of a run's JSON lines.
func locationIn(t *testing.T, out string) measure.Location {
	t.Helper()
	list := ofType[measure.Location](t, out, "location")
	if len(list) != 1 {
		t.Fatalf("%d locations in %q", len(list), out)
	}
	return list[0]
}
