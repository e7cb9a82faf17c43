package cli

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"govah/check"
	"govah/internal/consent"
	"govah/internal/i18n"
	"govah/lab"
	"govah/measure"
)

// TestKernelBanner: what the routers beside a device say is the same in the lab
// and on the kernel's own stack; and there too nothing is sent to a router
// unless --banner is given.
func TestKernelBanner(t *testing.T) {
	t.Parallel()
	needsKernel(t)
	raw := lab.Options{Raw: true, At: time.Now()}
	w := besideWorld(t, raw)
	count := toRouters(w)
	out := onKernel(t, w, "identify", []string{"-4", "--locate", "https://blocked.example/"})
	if sent := count(); len(sent) > 0 || len(ofType[measure.Identification](t, out, "identification")) != 1 {
		t.Errorf("packets to routers: %v", sent)
	}

	w = besideWorld(t, raw)
	count = toRouters(w)
	kernels := heard(t, onKernel(t, w, "identify", []string{"-4", "--banner", "https://blocked.example/"}))
	for a := range count() {
		if a.String() != "5.100.254.2" && a.String() != "5.100.254.3" {
			t.Errorf("packets to %s", a)
		}
	}
	out, _ = identifyIn(t, besideWorld(t, lab.Options{}), &checkOptions{locate: true, identify: true, banner: true})
	labs := heard(t, out)
	if !slices.Equal(kernels, labs) || len(labs) < 5 {
		t.Errorf("on the kernel\n%s\nin the lab\n%s", strings.Join(kernels, "\n"), strings.Join(labs, "\n"))
	}
	t.Logf("%q", kernels)
}

// heard is what a run's routers say. Those of the lab are one hop nearer than
// seen from namespaces, which have a router of their own.
func heard(t *testing.T, out string) (list []string) {
	t.Helper()
	for _, id := range ofType[measure.Identification](t, out, "identification") {
		for _, v := range id.Routers {
			list = append(list, fmt.Sprintf("%s %s asked %v open %v", id.Outcome, v.Address, v.Asked, v.Open))
			for _, p := range v.Products {
				list = append(list, fmt.Sprintf("%s is %s (%d)", v.Address, p.Name, p.PerMille))
			}
			for _, s := range v.Says {
				list = append(list, fmt.Sprintf("%s:%d %s %q", v.Address, s.Port, s.Kind, s.Text))
			}
		}
	}
	return list
}

// On a terminal the person is asked about the routers, each time, and "no"
// keeps all that was found before.
func TestBannerPrompt(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	if err := consent.Store(); err != nil { // for the measurement, which is another matter
		t.Fatal(err)
	}
	list := []struct {
		answer string
		agreed bool
	}{{"no\n", false}, {"\n", false}, {"yes\n", true}, {"بله\n", true}}
	for _, c := range list {
		person, tty := terminalFor(t)
		var errs strings.Builder
		a := &app{ctx: t.Context(), in: tty, out: &strings.Builder{}, err: &errs}
		if err := a.mayAsk(&checkOptions{identify: true, banner: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := person.WriteString(c.answer); err != nil {
			t.Fatal(err)
		}
		agreed, err := a.agreeToAsk(i18n.English, &checkOptions{}, &search{cfg: &check.Config{}}, []check.Neighbour{{Addr: netip.MustParseAddr("5.100.254.2"), Beside: measure.Beside{TTL: 2, PerMille: 990}}})
		plain := strings.Join(strings.Fields(errs.String()), " ")
		if agreed != c.agreed || err != nil || !strings.Contains(plain, "Their owners can see your address") || !strings.Contains(plain, "5.100.254.2 (hop 2, -)") {
			t.Errorf("%q: agreed %v, %v; %s", c.answer, agreed, err, plain)
		}
		if !c.agreed && !strings.Contains(plain, "nothing was sent to a router") {
			t.Errorf("%q: %s", c.answer, plain)
		}
		for line := range strings.Lines(errs.String()) {
			if len([]rune(line)) > 81 {
				t.Errorf("wider than 80 columns: %q", line)
			}
		}
	}
}
