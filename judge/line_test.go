package judge

import (
	"fmt"
	"slices"
	"testing"

	"govah/measure"
)

// newLine is the measurement of a line that carries traffic.
func newLine() *scene {
	s := newScene(measure.LineTarget)
	s.bracket(measure.StepTCP)
	return s
}

// resolvers are two public ones, each at an address of either family.
var resolvers = []struct{ operator, at4, at6 string }{
	{"one", "198.18.20.1", "[2001:db8:20::1]"},
	{"two", "198.18.21.1", "[2001:db8:21::1]"},
}

// shown are questions over HTTPS and over TLS to both resolvers, which all show
// a certificate of one issuer.
func (s *scene) shown(issuer string, system measure.Verification, scts *measure.SCTs) {
	for _, r := range resolvers {
		for _, port := range []int{443, 853} {
			s.add(measure.Observation{Step: measure.StepDNS, Role: measure.RoleTest, Experiment: measure.ExpEncrypted, Remote: fmt.Sprintf("%s:%d", r.at4, port), SNI: r.operator + ".example", Family: measure.IPv4,
				Failure: measure.TLSUnknownAuthority, DNS: &measure.DNS{Name: "canary.example", Type: "A", Transport: "tls", Operator: r.operator},
				TLS: &measure.TLS{Alert: -1, ServerBytes: true, Version: "TLS 1.3", Public: measure.VerifyUnknownCA, System: system, Chain: []string{"a1"}, Issuer: issuer, SCTs: scts,
					Signers: []measure.Signer{{Issuer: issuer, AKI: "01"}}}})
		}
	}
}

// TestResolversOfOneIssuer: that the certificates of two operators' resolvers
// are of one unknown authority is interception only if no public authority can
// have signed them.
func TestResolversOfOneIssuer(t *testing.T) {
	none := &measure.SCTs{}
	near := func(s *scene, outcome string) {
		for _, r := range resolvers {
			s.add(measure.Observation{Step: measure.StepPath, Role: measure.RoleTest, Experiment: measure.ExpFirstHop, Remote: r.at4 + ":443", TTL: 1, Path: &measure.Path{Probe: "syn", Outcome: outcome}})
		}
	}
	const nameless = "CN=Secure Access"
	for _, c := range []struct {
		name  string
		build func(*scene)
		want  want
		scope measure.Scope
	}{
		{"re-signed", func(s *scene) { s.shown(nameless, measure.VerifyUnknownCA, none) },
			want{interference: measure.InterferenceConfirmed, method: measure.TLSInterception, proof: "one-issuer"}, measure.ScopeUnknown},
		{"timestamps that were copied", func(s *scene) { s.shown(nameless, measure.VerifyUnknownCA, &measure.SCTs{Embedded: 2, False: 2}) },
			want{interference: measure.InterferenceConfirmed, method: measure.TLSInterception, proof: "one-issuer"}, measure.ScopeUnknown},
		{"a root that was installed here, far away: not this device", func(s *scene) { s.shown(nameless, measure.VerifiedOK, none); near(s, "expired") },
			want{interference: measure.InterferenceConfirmed, method: measure.TLSInterception, proof: "one-issuer"}, measure.ScopeUnknown},
		{"an installed root of which nothing says where it is used", func(s *scene) { s.shown(nameless, measure.VerifiedOK, none) },
			want{interference: measure.InterferenceConfirmed, method: measure.TLSInterception, proof: "one-issuer"}, measure.ScopeUnknown},
		{"in the house", func(s *scene) { s.shown(nameless, measure.VerifiedOK, none); near(s, "connected") },
			want{interference: measure.InterferenceNone, method: measure.TLSInterception, proof: "one-issuer"}, measure.ScopeLAN},
		{"antivirus", func(s *scene) { s.shown("CN=ESET SSL Filter CA", measure.VerifiedOK, none); near(s, "connected") },
			want{interference: measure.InterferenceNone, method: measure.TLSInterception, proof: "one-issuer"}, measure.ScopeDevice},
		{"twin: the logs signed it, so a public authority did", func(s *scene) {
			s.shown("CN=New Public CA", measure.VerifyUnknownCA, &measure.SCTs{Embedded: 2, Verified: 2})
		},
			want{interference: measure.InterferenceUnknown, why: measure.WhyOldRoots}, ""},
		{"twin: in logs that this version does not know", func(s *scene) { s.shown("CN=New Public CA", measure.VerifiedOK, &measure.SCTs{Embedded: 2}) },
			want{interference: measure.InterferenceSuspected, method: measure.TLSInterception, why: measure.WhyOldRoots}, measure.ScopeUnknown},
		{"twin: an old file, which says nothing of logs", func(s *scene) { s.shown("CN=New Public CA", measure.VerifyUnknownCA, nil) },
			want{interference: measure.InterferenceSuspected, method: measure.TLSInterception, why: measure.WhyOldRoots}, measure.ScopeUnknown},
		{"twin: an authority that verifies at a canary", func(s *scene) {
			s.shown("CN=Public CA", measure.VerifyUnknownCA, none)
			o := hello("", "", 0, "198.19.0.1:443", "canary.example", "")
			o.Role, o.Experiment, o.TLS.Issuer = measure.RoleCanary, "", "CN=Public CA"
			s.add(o)
		}, want{interference: measure.InterferenceSuspected, method: measure.TLSInterception, why: measure.WhyServerBroken}, measure.ScopeUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newLine()
			c.build(s)
			v := s.judge()
			check(t, v, c.want)
			if len(v.Findings) > 0 && v.Findings[0].Scope != c.scope {
				t.Errorf("%+v", v.Findings[0])
			}
		})
	}
}

// chaos is what a resolver says of itself under a name of class CH.
func chaos(operator, at, name, text string) measure.Observation {
	return measure.Observation{Step: measure.StepDNS, Role: measure.RoleTest, Experiment: measure.ExpOperator, Remote: at + ":53",
		DNS: &measure.DNS{Name: name, Type: "TXT", Transport: "udp", Class: "CH", Operator: operator, Resolver: at + ":53", Unlike: name != "version.bind",
			Replies: []measure.DNSReply{{Rcode: "NOERROR", Answers: []measure.DNSAnswer{{Type: "TXT", Value: `"` + text + `"`}}}}}}
}

// TestOneMachine: evidence counts together over one family only, and a
// redirection that shows in several ways is one finding.
func TestOneMachine(t *testing.T) {
	nowhere := func(k int) measure.Observation {
		at := fmt.Sprintf("198.18.30.%d:53", k)
		return measure.Observation{Step: measure.StepDNS, Role: measure.RoleTest, Experiment: measure.ExpRedirect, Remote: at,
			DNS: &measure.DNS{Name: "canary.example", Type: "A", Transport: "udp", Resolver: at, NoResolver: true, Replies: []measure.DNSReply{{Rcode: "NOERROR"}}}}
	}
	build := func(second string, redirected int) measure.Verdict {
		s := newLine()
		for k := range redirected {
			s.add(nowhere(k + 1))
		}
		for _, name := range []string{"id.server", "hostname.bind", "version.bind"} {
			text := "box"
			if name == "version.bind" {
				text = "dnsmasq-2.90"
			}
			s.add(chaos("one", resolvers[0].at4, name, text))
			s.add(chaos("two", second, name, text))
		}
		for i := range s.m.Observations {
			s.m.Observations[i].Family = "" // told by the address
		}
		return s.judge()
	}
	v := build(resolvers[1].at4, 0)
	check(t, v, want{interference: measure.InterferenceConfirmed, method: measure.DNSInterception, proof: "one-machine"})
	if f := v.Findings[0]; f.Match == nil || f.Match.Product != "dnsmasq" {
		t.Errorf("%+v", f)
	}
	if v := build(resolvers[1].at6, 0); len(v.Findings) > 0 {
		t.Errorf("one answer over each family makes no pair: %+v", v.Findings)
	}
	// One answer from where nobody is was a suspicion; with the rest it is sure.
	for n, proof := range map[int]string{1: "one-machine", 2: "nowhere+one-machine"} {
		v := build(resolvers[1].at4, n)
		check(t, v, want{interference: measure.InterferenceConfirmed, method: measure.DNSInterception, proof: proof})
		if len(v.Findings) != 1 || slices.Contains(v.Findings[0].NotExcluded, measure.WhySingleSample) || len(v.Findings[0].Because) < 4 {
			t.Errorf("%+v", v.Findings)
		}
	}
}

// TestProxyInTheHouse: what a proxy says to odd lines, and that it keeps pages,
// is of the place where connections to its port end.
func TestProxyInTheHouse(t *testing.T) {
	const at, canary = "198.18.40.1:80", "198.18.40.1:443"
	line := measure.Head{Line: "GET /echo HTTP/1.1", Headers: []measure.Header{{Name: "Host", Value: "helper.example"}}}
	odd := func(s *scene) {
		c := s.add(measure.Observation{Step: measure.StepHTTP, Role: measure.RoleControl, Experiment: measure.ExpEcho, Remote: canary, HTTP: &measure.HTTP{Status: 200, Sent: &line, Seen: &line}})
		s.add(measure.Observation{Step: measure.StepHTTP, Role: measure.RoleTest, Experiment: measure.ExpEcho, Remote: at, Control: c.ID, HTTP: &measure.HTTP{Status: 200, Sent: &line, Seen: &line}})
		for _, payload := range []string{"odd-method", "odd-version"} {
			s.add(measure.Observation{Step: measure.StepHTTP, Role: measure.RoleTest, Experiment: measure.ExpOdd, Remote: at, Payload: payload, Received: 90,
				HTTP: &measure.HTTP{Status: 400, Headers: []measure.Header{{Name: "Server", Value: "cache"}}}})
		}
	}
	stale := func(s *scene) {
		for pair := 1; pair <= 2; pair++ {
			c := s.add(measure.Observation{Step: measure.StepHTTP, Role: measure.RoleControl, Experiment: measure.ExpFresh, Remote: canary, Pair: pair, HTTP: &measure.HTTP{Status: 200, BodySHA256: fmt.Sprint("fresh", pair)}})
			s.add(measure.Observation{Step: measure.StepHTTP, Role: measure.RoleTest, Experiment: measure.ExpFresh, Remote: at, Pair: pair, Control: c.ID, HTTP: &measure.HTTP{Status: 200, BodySHA256: "kept"}})
		}
	}
	for _, c := range []struct {
		name, outcome string
		signs         []func(*scene)
		scope         measure.Scope
		interference  measure.Interference
	}{
		{"odd lines, in the house", "connected", []func(*scene){odd}, measure.ScopeLAN, measure.InterferenceNone},
		{"kept pages, in the house", "connected", []func(*scene){stale}, measure.ScopeLAN, measure.InterferenceNone},
		{"both, in the house", "connected", []func(*scene){odd, stale}, measure.ScopeLAN, measure.InterferenceNone},
		{"twin: farther away", "expired", []func(*scene){odd, stale}, measure.ScopeUnknown, measure.InterferenceConfirmed},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newLine()
			s.add(measure.Observation{Step: measure.StepPath, Role: measure.RoleTest, Experiment: measure.ExpFirstHop, Remote: at, TTL: 1, Path: &measure.Path{Probe: "syn", Outcome: c.outcome}})
			for _, sign := range c.signs {
				sign(s)
			}
			v := s.judge()
			if len(v.Findings) != 1 || v.Findings[0].Method != measure.HTTPProxy || v.Findings[0].Scope != c.scope || v.Interference != c.interference {
				t.Errorf("%s %+v", v.Interference, v.Findings)
			}
		})
	}
}

// TestMergeScope: a proof of nearness is one of all that was merged, unless it
// names the subscriber.
func TestMergeScope(t *testing.T) {
	for proof, scope := range map[string]measure.Scope{"odd": measure.ScopeLAN, "header-added": measure.ScopeLAN, "tracked": measure.ScopeUnknown} {
		j := newJudging(&measure.Measurement{}, nil)
		f := measure.Finding{Method: measure.HTTPTamper, Interference: measure.InterferenceConfirmed, Proof: proof, NotExcluded: []measure.Why{measure.WhyLocalNetwork}}
		j.merge(f)
		f.Proof, f.Scope, f.NotExcluded = "plain", measure.ScopeLAN, nil
		j.merge(f)
		f.Proof, f.Scope = "stale", measure.ScopeUnknown
		j.merge(f)
		if len(j.findings) != 1 || j.findings[0].Scope != scope {
			t.Errorf("%s: %+v", proof, j.findings)
		}
	}
}

// TestMerge: what is said twice is proved once, and named once.
func TestMerge(t *testing.T) {
	j := newJudging(&measure.Measurement{}, nil)
	f := measure.Finding{Method: measure.HTTPProxy, Interference: measure.InterferenceConfirmed, Proof: "odd", Because: []string{"o1", "o2"}}
	j.merge(f)
	j.merge(f)
	f.Proof, f.Because = "stale", []string{"o2", "o3"}
	j.merge(f)
	if len(j.findings) != 1 || j.findings[0].Proof != "odd+stale" || !slices.Equal(j.findings[0].Because, []string{"o1", "o2", "o3"}) {
		t.Errorf("%+v", j.findings)
	}
}
