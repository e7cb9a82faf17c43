package report

import (
	"slices"
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
			[]string{"authority.device", "authority.look", "scope.device", "next.device", "authority.openly"}, []string{"authority.trusted", "next.decrypt", "authority.caution", "limit.decrypt"}},
		{"a company's proxy", finding(func(f *measure.Finding) { f.Trusted, f.Scope = true, measure.ScopeLAN }),
			[]string{"authority.lan", "authority.look", "scope.lan", "next.lan", "authority.openly"}, []string{"authority.trusted", "next.decrypt", "authority.caution", "limit.decrypt"}},
		{"the state's root, installed, near by", finding(func(f *measure.Finding) {
			f.Trusted, f.Scope, f.Match = true, measure.ScopeLAN, match(measure.HowFamily)
		}),
			[]string{"authority.trusted", "limit.decrypt"}, []string{"authority.lan", "authority.openly"}},
		{"done to all", finding(func(f *measure.Finding) { f.Trigger, f.Proof = measure.Trigger{Kind: "tls"}, "canary+certificate" }), []string{"because.plain", "authority.proof.canary"}, []string{"because.trigger", "because.control", "proof.canary"}},
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
	// A product without a known maker has no empty brackets.
	v := finding(func(f *measure.Finding) {
		f.Match = &measure.Match{Row: "dev.mitmproxy", How: measure.HowName, Product: "mitmproxy"}
	})
	for _, s := range tell(i18n.English, &v).because {
		if strings.Contains(s.text(i18n.English), "()") {
			t.Errorf("%q", s.text(i18n.English))
		}
	}
	if got := commonName(`O=Some,CN=Box\, of somebody,C=XX`); got != `Box\, of somebody` {
		t.Errorf("common name %q", got)
	}
	if got := commonName("O=Only"); got != "O=Only" {
		t.Errorf("a name without one: %q", got)
	}
}

// TestNextToEach: what nobody can see is told beside each result about somebody
// who may read along, and beside each of mail, SSH and the line.
func TestNextToEach(t *testing.T) {
	says := func(v *measure.Verdict) bool {
		return slices.ContainsFunc(tell(i18n.Persian, v).not, func(s sentence) bool { return s.key == "limits.passive" })
	}
	for m := range group {
		v := measure.Verdict{Target: "https://bank.example/", Interference: measure.InterferenceConfirmed, Findings: []measure.Finding{{Method: m, Interference: measure.InterferenceConfirmed}}}
		want := strings.HasSuffix(string(m), "-interception") || strings.HasSuffix(string(m), "-proxy") || m == measure.HTTPTamper || m == measure.StartTLSStrip
		if says(&v) != want {
			t.Errorf("%s: %v", m, !want)
		}
	}
	for target, want := range map[string]bool{"https://bank.example/": false, "imaps://mail.example": true, "ssh://git.example": true, measure.LineTarget: true} {
		if v := (measure.Verdict{Target: target, Interference: measure.InterferenceNone, Reachable: measure.ReachableYes}); says(&v) != want {
			t.Errorf("%s, where nothing was found: %v", target, !want)
		}
	}
}

// TestKinds: what was taken off, added or done in the house is told as that.
func TestKinds(t *testing.T) {
	for _, c := range []struct {
		name          string
		target        string
		f             measure.Finding
		says, saysNot []string
	}{
		{"encryption taken off", "smtps://mail.example", measure.Finding{Method: measure.StartTLSStrip, Trigger: measure.Trigger{Kind: "mail-plain"}, Runs: 3, Hits: 3},
			[]string{"line.undressed", "mail.plain", "limit.undressed", "next.undressed"}, []string{"method.starttls-strip.what", "next.strip"}},
		{"the offer of it taken away", "smtp://mail.example", measure.Finding{Method: measure.StartTLSStrip, Trigger: measure.Trigger{Kind: "mail-missing"}, Runs: 3, Hits: 3},
			[]string{"method.starttls-strip.what", "mail.missing", "limit.strip", "next.strip"}, []string{"line.undressed"}},
		{"a header added", measure.LineTarget, measure.Finding{Method: measure.HTTPTamper, Match: &measure.Match{Kind: "added-header", Where: "header:x-qz"}},
			[]string{"line.marked", "limit.marked", "next.marked"}, []string{"limit.altered", "method.http-tamper.what"}},
		{"a page altered", measure.LineTarget, measure.Finding{Method: measure.HTTPTamper}, []string{"method.http-tamper.what", "limit.altered", "next.altered"}, []string{"limit.marked"}},
		{"names redirected", measure.LineTarget, measure.Finding{Method: measure.DNSInterception}, []string{"limit.name", "next.dns"}, []string{"limit.dns", "limit.house"}},
		{"certificates on the line", measure.LineTarget, measure.Finding{Method: measure.TLSInterception, Trigger: measure.Trigger{Kind: "tls"}}, []string{"line.certificates", "next.decrypt"}, []string{"method.tls-interception.what", "because.trigger"}},
		{"names redirected in the house", measure.LineTarget, measure.Finding{Method: measure.DNSInterception, Scope: measure.ScopeLAN}, []string{"line.house", "limit.house", "next.lan", "line.next-house"}, []string{"line.next-none", "limit.name"}},
		{"certificates in the house", measure.LineTarget, measure.Finding{Method: measure.TLSInterception, Scope: measure.ScopeLAN, Trusted: true, Issuer: "CN=x"}, []string{"authority.lan", "authority.look", "next.lan"}, []string{"line.next-none", "line.next-house"}},
	} {
		c.f.Interference = measure.InterferenceConfirmed
		v := measure.Verdict{Target: c.target, Reachable: measure.ReachableYes, Interference: measure.InterferenceConfirmed, Findings: []measure.Finding{c.f}}
		if c.f.Scope == measure.ScopeLAN {
			v.Interference = measure.InterferenceNone
		}
		a := tell(i18n.English, &v)
		var keys []string
		for _, s := range slices.Concat(a.headline, a.because, a.not, a.next) {
			keys = append(keys, s.key)
		}
		for _, k := range c.says {
			if !slices.Contains(keys, k) {
				t.Errorf("%s: does not say %s: %v", c.name, k, keys)
			}
		}
		for _, k := range c.saysNot {
			if slices.Contains(keys, k) {
				t.Errorf("%s: says %s", c.name, k)
			}
		}
	}
}

// TestOwnDoing: what is done on this device or in its own network, under a root
// that was put here, is called that; what is known for interception is not, nor
// what is done elsewhere as well.
func TestOwnDoing(t *testing.T) {
	own := measure.Finding{Method: measure.TLSInterception, Interference: measure.InterferenceConfirmed, Trusted: true, Scope: measure.ScopeDevice}
	company, far, state, untrusted := own, own, own, own
	company.Scope = measure.ScopeLAN
	far.Scope = measure.ScopeUnknown
	state.Match = &measure.Match{Row: "kz.qaznet", Kind: "interception-root", How: measure.HowFamily}
	untrusted.Trusted = false
	blocked := measure.Finding{Method: measure.TLSReset, Interference: measure.InterferenceConfirmed}
	for i, c := range []struct {
		findings []measure.Finding
		own      bool
	}{
		{[]measure.Finding{own}, true}, {[]measure.Finding{company}, true}, {[]measure.Finding{own, company}, true},
		{[]measure.Finding{far}, false}, {[]measure.Finding{state}, false}, {[]measure.Finding{untrusted}, false}, {[]measure.Finding{own, blocked}, false}, {nil, false},
	} {
		v := measure.Verdict{Target: "https://bank.example/", Interference: measure.InterferenceConfirmed, Findings: c.findings}
		if got := stateWords(&v); (got == "state.own") != c.own {
			t.Errorf("%d: %s", i, got)
		}
	}
}
