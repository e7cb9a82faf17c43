package report

import (
	"strings"
	"testing"

	"govah/internal/i18n"
	"govah/measure"
)

// TestAuthorities: a root that this device trusts is told as such, calmly where
// it is near, with how to look at it and whom to ask; a name is not told as
// proof, and another key under a known name not as the known root.
func TestAuthorities(t *testing.T) {
	finding := func(change func(*measure.Finding)) measure.Verdict {
		f := measure.Finding{ID: "f1", Method: measure.TLSInterception, Interference: measure.InterferenceConfirmed, Layer: measure.StepTLS, Scope: measure.ScopeUnknown,
			Trigger: measure.Trigger{Kind: "sni", Value: "mail.example"}, Runs: 2, Hits: 2, Proof: "elsewhere+certificate", Because: []string{"o1"},
			Issuer: `CN=Box\, of somebody,O=Some\1b[31m Company,C=XX`}
		change(&f)
		return measure.Verdict{Target: "https://mail.example/", Reachable: measure.ReachableUnknown, Interference: f.Interference, Findings: []measure.Finding{f}}
	}
	match := func(how measure.How) *measure.Match {
		return &measure.Match{Row: "kz.qaznet", Kind: "interception-root", Where: "certificate", How: how}
	}
	private := finding(func(f *measure.Finding) {
		f.Method, f.Interference, f.Trusted, f.Proof = measure.PrivateAuthority, measure.InterferenceSuspected, true, ""
	})
	private.Interference = measure.InterferenceUnknown
	for _, c := range []struct {
		name          string
		v             measure.Verdict
		says, saysNot []string
	}{
		{"trusted by nobody", finding(func(f *measure.Finding) { f.Match = match(measure.HowFamily) }),
			[]string{"authority.issuer", "authority.family", "next.decrypt", "limit.decrypt"}, []string{"authority.trusted", "authority.look", "authority.key", "authority.signature"}},
		{"its signature", finding(func(f *measure.Finding) { f.Match = match(measure.HowSignature) }), []string{"authority.signature"}, []string{"authority.family", "authority.name"}},
		{"its key", finding(func(f *measure.Finding) { f.Match = match(measure.HowAKI) }), []string{"authority.key"}, []string{"authority.signature"}},
		{"its name", finding(func(f *measure.Finding) { f.Match = match(measure.HowName) }), []string{"authority.name"}, []string{"authority.signature", "authority.key"}},
		{"trusted, somewhere", finding(func(f *measure.Finding) { f.Trusted = true }),
			[]string{"authority.trusted", "authority.look", "authority.caution", "authority.openly", "scope.unknown"}, []string{"next.decrypt", "scope.device"}},
		{"the state's root, installed", finding(func(f *measure.Finding) { f.Trusted, f.Match = true, match(measure.HowFamily) }),
			[]string{"authority.trusted", "authority.look", "authority.caution", "limit.decrypt"}, []string{"authority.openly", "next.decrypt"}},
		{"signs of an imitation", finding(func(f *measure.Finding) { f.Traces = []measure.Trace{measure.TraceFalseSCT, "newer"} }), []string{"trace.false-sct"}, []string{"trace.newer"}},
		{"antivirus", finding(func(f *measure.Finding) { f.Trusted, f.Scope = true, measure.ScopeDevice }),
			[]string{"authority.trusted", "authority.look", "scope.device", "next.device", "authority.openly"}, []string{"next.decrypt", "authority.caution", "limit.decrypt"}},
		{"a company's own site", private, []string{"method.private-authority.what", "authority.look", "next.private", "limit.private"}, []string{"authority.trusted", "authority.caution", "next.decrypt"}},
	} {
		for _, l := range i18n.Langs {
			a := tell(l, &c.v)
			keys := map[string]bool{}
			for _, list := range [][]sentence{a.headline, a.because, a.not, a.next} {
				for _, s := range list {
					keys[s.key] = true
					if s.key == "authority.look" && (strings.Contains(s.text(l), "CN=") || !strings.Contains(s.text(l), "of somebody")) {
						t.Errorf("%s: what to look for: %q", c.name, s.text(l))
					}
					if strings.ContainsAny(s.text(l), "\x1b") {
						t.Errorf("%s: %q is not escaped", c.name, s.text(l))
					}
				}
			}
			said := string(a.state)
			for k := range keys {
				said += " " + k
			}
			text := ""
			for _, s := range a.headline {
				text += s.text(l)
			}
			for _, k := range c.says {
				if !keys[k] && !strings.Contains(text, l.Text(k)) {
					t.Errorf("%s, %s: does not say %s: %s", c.name, l, k, said)
				}
			}
			for _, k := range c.saysNot {
				if keys[k] {
					t.Errorf("%s, %s: says %s", c.name, l, k)
				}
			}
		}
	}
	if got := commonName(`O=Some,CN=Box\, of somebody,C=XX`); got != `Box\, of somebody` {
		t.Errorf("common name %q", got)
	}
	if got := commonName("O=Only"); got != "O=Only" {
		t.Errorf("a name without one: %q", got)
	}
}
