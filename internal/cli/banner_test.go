package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"govah/check"
	"govah/internal/i18n"
	"govah/lab"
	"govah/measure"
	"govah/packet"
)

// besideScenario has a device between the second and the third router, both of
// which can be talked to.
const besideScenario = `schema = 1
title = "routers that say who they are"
about = "for a test"
[[client-network]]
name = "home"
asn = 64600
country = "XX"
hops = 4
delay = "3ms"
no-ipv6 = true
[[client-network.box]]
at = 2
[[client-network.box.rule]]
layer = "tls"
names = ["blocked.example"]
action = "reset"
[[client-network.router]]
at = 2
[[client-network.router.service]]
ports = [22]
greeting = "SSH-2.0-ROSSSH\r\n"
[[client-network.router.service]]
ports = [80]
header = ["Server: \u202enginx"]
page = "<title>\u202eedoc\u001b[31m</title>"
[[client-network.router]]
at = 3
[[network]]
name = "hosting"
hops = 2
[[network]]
name = "elsewhere"
hops = 2
[[network]]
name = "helpers"
hops = 2
[[site]]
name = "open.example"
role = "canary"
[[site]]
name = "other.example"
role = "canary"
network = "elsewhere"
[[site]]
name = "third.example"
role = "canary"
network = "helpers"
[[site]]
name = "doh.example"
role = "doh"
network = "elsewhere"
[[site]]
name = "resolver.example"
role = "resolver"
network = "elsewhere"
[[site]]
name = "helper.example"
network = "helpers"
role = "helper"
[[site]]
name = "blocked.example"
shares = "open.example"
`

func besideWorld(t *testing.T, opts lab.Options) *lab.World {
	t.Helper()
	s, err := lab.Parse([]byte(besideScenario))
	if err != nil {
		t.Fatal(err)
	}
	s.Name = "beside"
	w, err := lab.New(s, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// toRouters counts what is sent to each router of a world from now on.
func toRouters(w *lab.World) (stop func() map[netip.Addr]int) {
	var mu sync.Mutex
	n, routers := map[netip.Addr]int{}, w.Routers()
	w.Tap(func(sent bool, pkt []byte) {
		if p, err := packet.Parse(pkt); err == nil && sent && slices.Contains(routers, p.Dst) {
			mu.Lock()
			n[p.Dst]++
			mu.Unlock()
		}
	})
	return func() map[netip.Addr]int {
		w.Tap(nil)
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// identifyIn runs what check runs, in a world that can be watched.
func identifyIn(t *testing.T, w *lab.World, o *checkOptions) (out, notes string) {
	t.Helper()
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer running.Wait()
	defer cancel()
	cfg, err := labConfig(w, 1)
	if err != nil {
		t.Fatal(err)
	}
	helper, err := mountHelper(ctx, &running, w, "helper.example")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Helpers, cfg.Pace, cfg.Run, cfg.Only4 = []string{helper}, check.PaceFast, newRunID(), true
	target, err := check.ParseTarget("https://blocked.example/")
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	a := &app{ctx: t.Context(), in: strings.NewReader(""), out: &stdout, err: &stderr, json: true}
	o.lab = "beside"
	if err := a.runCheck(t.Context(), i18n.English, o, &place{cfg: cfg, labName: "beside", client: "home"}, []measure.Target{target}, 0, check.Estimate{}, "", nil); err != nil {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String()
}

// ofType are the lines of a run of one type.
func ofType[T any](t *testing.T, out, kind string) (list []T) {
	t.Helper()
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, `{"type":"`+kind+`"`) {
			var v T
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Fatal(err)
			}
			list = append(list, v)
		}
	}
	return list
}

// Nothing is addressed to a router unless --banner is given, whatever else is
// looked for; then only to those beside the device.
func TestNothingIsAddressedToRouters(t *testing.T) {
	for _, banner := range []bool{false, true} {
		t.Run(fmt.Sprintf("banner=%v", banner), func(t *testing.T) {
			t.Parallel()
			w := besideWorld(t, lab.Options{})
			count := toRouters(w)
			file := filepath.Join(t.TempDir(), "m.jsonl")
			out, notes := identifyIn(t, w, &checkOptions{locate: true, identify: true, banner: banner, output: file})
			sent := count()
			located := ofType[measure.Location](t, out, "location")
			if len(located) != 1 || located[0].Outcome != measure.Located || len(located[0].Hops) < 6 {
				t.Fatalf("the path was not followed: %+v", located)
			}
			ids := ofType[measure.Identification](t, out, "identification")
			if !banner {
				if len(sent) != 0 || len(ids) != 1 || strings.Contains(notes, "router") {
					t.Errorf("packets to routers: %v; %d identifications; %s", sent, len(ids), notes)
				}
				return
			}
			beside := []netip.Addr{netip.MustParseAddr("5.100.254.2"), netip.MustParseAddr("5.100.254.3")}
			for a := range sent {
				if !slices.Contains(beside, a) {
					t.Errorf("%d packets to %s, which is not beside the device", sent[a], a)
				}
			}
			if sent[beside[0]] == 0 || sent[beside[1]] == 0 || len(ids) != 2 {
				t.Fatalf("packets to routers: %v; %d identifications", sent, len(ids))
			}
			// Said before it is done, and to whom.
			if plain := strings.Join(strings.Fields(notes), " "); !strings.Contains(plain, "ports 22, 23, 21, 80, 443, 8080, 8443") || !strings.Contains(plain, "5.100.254.2 (hop 2, AS64600 XX)") || !strings.Contains(plain, "5.100.254.3 (hop 3") {
				t.Errorf("what is said before: %s", notes)
			}
			// The behaviour has no product, and the router's is the router's.
			device, routers := ids[0], ids[1]
			if device.Payload != "tls" || device.Outcome != measure.UnknownDevice || len(device.Products)+len(device.Routers) > 0 {
				t.Errorf("the device: %+v", device)
			}
			if routers.Outcome != measure.RouterNamed || len(routers.Products) > 0 || len(routers.Routers) != 2 || len(routers.Routers[0].Products) != 1 || routers.Routers[0].Products[0].Name != "RouterOS" || len(routers.Routers[1].Says) > 0 {
				t.Errorf("the routers: %+v", routers)
			}
			// Judged again, the saved run says the same.
			var again, errs bytes.Buffer
			if code := Main(t.Context(), []string{"judge", "--json", file}, strings.NewReader(""), &again, &errs); code != 0 {
				t.Fatalf("judge: exit %d: %s", code, errs.String())
			}
			if want, got := linesOf(out, "identification"), linesOf(again.String(), "identification"); got != want {
				t.Errorf("judged again:\n%s\nwas:\n%s", got, want)
			}
			for _, lang := range []string{"en", "fa"} {
				for _, args := range [][]string{{"judge", "-v", file}, {"report", "-o", file + lang + ".html", file}} {
					var text bytes.Buffer
					if code := Main(t.Context(), append([]string{"--lang", lang}, args...), strings.NewReader(""), &text, &errs); code != 0 {
						t.Fatalf("%v: exit %d: %s", args, code, errs.String())
					}
					shown := text.String()
					if args[0] == "report" {
						page, err := os.ReadFile(file + lang + ".html")
						if err != nil {
							t.Fatal(err)
						}
						shown = string(page)
					}
					for _, want := range []string{"5.100.254.2", "RouterOS", "SSH-2.0-ROSSSH"} {
						if !strings.Contains(shown, want) {
							t.Errorf("%s, %v: there is no %s", lang, args, want)
						}
					}
					if strings.ContainsAny(shown, "\u202e\x1b") {
						t.Errorf("%s, %v: what a router sent acts on the screen", lang, args)
					}
				}
			}
		})
	}
}

// linesOf are those of a type, as they stand.
func linesOf(out, kind string) (text string) {
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, `{"type":"`+kind+`"`) {
			text += line
		}
	}
	return text
}

// Who cannot be asked is told at once, and nothing is sent.
func TestBannerNeedsConsent(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"identify", "--banner", "example.org"}, "there is nobody to ask"},
		{[]string{"check", "--identify", "--banner", "--json", "example.org"}, "there is nobody to ask"},
		{[]string{"check", "--banner", "--consent", "example.org"}, "--banner needs --identify"},
	} {
		var out, errs bytes.Buffer
		if code := Main(t.Context(), c.args, strings.NewReader("yes\nyes\n"), &out, &errs); code != exitUsage || !strings.Contains(strings.Join(strings.Fields(errs.String()), " "), c.want) {
			t.Errorf("%v: exit %d, %s", c.args, code, errs.String())
		}
	}
}
