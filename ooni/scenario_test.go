package ooni_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"govah/judge"
	"govah/measure"
	"govah/ooni"
)

// truth is what a scenario of OONI's quality assurance did, by its name.
type truth struct {
	reachable measure.Reachable
	// interference that one look may claim: without pairs or an artefact
	// nothing is confirmed.
	interference measure.Interference
	methods      []measure.Method // one of them is found; nil: no finding that accuses
	reason       string           // where the name could be read otherwise
}

var scenarios = map[string]truth{
	"badSSLWithUnknownAuthorityWithInconsistentDNS":             {"yes", "suspected", dns, "the encrypted resolver's address was reached"},
	"badSSLWithWrongServerName":                                 {"no", "unknown", nil, "the site's own certificate is wrong, for the helper too"},
	"controlFailureWithSuccessfulHTTPSWebsite":                  {"yes", "none", nil, ""},
	"controlFailureWithSuccessfulHTTPWebsite":                   {"yes", "none", nil, ""},
	"dnsBlockingAndroidDNSCacheNoData":                          {"yes", "suspected", []measure.Method{measure.DNSNXDomainLie}, "the encrypted resolver's address was reached"},
	"dnsBlockingNXDOMAIN":                                       {"yes", "suspected", []measure.Method{measure.DNSNXDomainLie}, "the encrypted resolver's address was reached"},
	"dnsHijackingToLocalhostWithHTTP":                           {"yes", "suspected", dns, "the encrypted resolver's address was reached"},
	"dnsHijackingToLocalhostWithHTTPS":                          {"yes", "suspected", dns, "the encrypted resolver's address was reached"},
	"dnsHijackingToProxyWithHTTPSURL":                           {"yes", "none", nil, "a proxy that passes TLS on: the certificate proves the site, and nothing else differs"},
	"dnsHijackingToProxyWithHTTPURL":                            {"yes", "none", nil, "a proxy that passes everything on: the same page came from both addresses"},
	"ghostDNSBlockingWithHTTP":                                  {"no", "suspected", []measure.Method{measure.DNSResolverLie, measure.DNSInjection}, ""},
	"ghostDNSBlockingWithHTTPS":                                 {"no", "suspected", []measure.Method{measure.DNSResolverLie, measure.DNSInjection}, ""},
	"httpBlockingConnectionReset":                               {"no", "suspected", []measure.Method{measure.HTTPReset}, ""},
	"idnaWithoutCensorshipLowercase":                            {"yes", "none", nil, ""},
	"largeFileWithHTTP":                                         {"yes", "none", nil, ""},
	"largeFileWithHTTPS":                                        {"yes", "none", nil, ""},
	"localhostWithHTTP":                                         {"no", "unknown", nil, "the site's own name points to localhost, for the helper too"},
	"redirectWithBrokenLocationForHTTP":                         {"no", "unknown", nil, "the site's redirect is broken; nothing of the network failed"},
	"redirectWithBrokenLocationForHTTPS":                        {"no", "unknown", nil, "the site's redirect is broken; nothing of the network failed"},
	"redirectWithConsistentDNSAndThenConnectionRefusedForHTTPS": {"no", "suspected", []measure.Method{measure.IPReset}, ""},
	"redirectWithConsistentDNSAndThenConnectionResetForHTTP":    {"no", "suspected", []measure.Method{measure.HTTPReset}, ""},
	"redirectWithConsistentDNSAndThenEOFForHTTP":                {"no", "suspected", []measure.Method{measure.HTTPReset}, ""},
	"redirectWithConsistentDNSAndThenEOFForHTTPS":               {"no", "suspected", []measure.Method{measure.TLSReset}, ""},
	"redirectWithConsistentDNSAndThenNXDOMAIN":                  {"no", "suspected", []measure.Method{measure.DNSNXDomainLie, measure.DNSInjection}, "the genuine answer came late"},
	"redirectWithConsistentDNSAndThenTimeoutForHTTP":            {"no", "suspected", []measure.Method{measure.HTTPDrop}, ""},
	"redirectWithConsistentDNSAndThenTimeoutForHTTPS":           {"no", "suspected", []measure.Method{measure.TLSDrop}, ""},
	"successWithHTTP":                                           {"yes", "none", nil, ""},
	"successWithHTTPS":                                          {"yes", "none", nil, ""},
	"tcpBlockingConnectTimeout":                                 {"no", "suspected", []measure.Method{measure.IPDrop}, ""},
	"throttlingWithHTTP":                                        {"no", "suspected", []measure.Method{measure.HTTPDrop, measure.Throttle}, "one transfer that ran into its time limit cannot be told from a drop"},
	"tlsBlockingConnectionResetWithConsistentDNS":               {"no", "suspected", []measure.Method{measure.TLSReset}, ""},
}

var dns = []measure.Method{measure.DNSInjection, measure.DNSResolverLie}

func TestScenariosAreJudgedAsTheyWere(t *testing.T) {
	lines := lineOf("scenarios")
	if lines == nil {
		t.Skip("../shared/data/ooni/scenarios.jsonl.gz is not here")
	}
	var p ooni.Parser
	right := 0
	for _, line := range lines {
		var head struct{ Annotations struct{ Scenario string } }
		if err := json.Unmarshal(line, &head); err != nil {
			t.Fatal(err)
		}
		name := head.Annotations.Scenario
		want, ok := scenarios[name]
		if !ok {
			t.Errorf("no truth is written down for %s", name)
			continue
		}
		m, err := p.Parse(line)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		v := judge.Judge(judge.Input{Measurement: m, Bodies: p.Body})
		var accused []measure.Method
		for _, f := range v.Findings {
			if !f.Method.Benign() {
				accused = append(accused, f.Method)
			}
		}
		found := len(accused) == 0
		if want.methods != nil {
			found = slices.ContainsFunc(want.methods, func(m measure.Method) bool { return slices.Contains(accused, m) })
		}
		if v.Reachable != want.reachable || v.Interference != want.interference || !found {
			t.Logf("%s: reachable %s, interference %s, %v; want %s, %s, one of %v", name, v.Reachable, v.Interference, accused, want.reachable, want.interference, want.methods)
			continue
		}
		right++
	}
	if right < len(scenarios)-2 || len(lines) != len(scenarios) {
		t.Errorf("%d of %d right", right, len(lines))
	}
	t.Logf("%d of %d right", right, len(lines))
}

func TestRealLines(t *testing.T) {
	lines := lineOf("real")
	if lines == nil {
		t.Skip("../shared/data/ooni/real.jsonl.gz is not here")
	}
	var p ooni.Parser
	judged, skipped := 0, map[string]int{}
	for i, line := range lines {
		m, err := p.Parse(line)
		var not *ooni.NotJudged
		if errors.As(err, &not) {
			if not.Test == "web_connectivity" || !bytes.Contains(line, []byte(`"`+not.Test+`"`)) {
				t.Errorf("line %d: %v", i+1, err)
			}
			skipped[not.Test]++
			continue
		}
		if err != nil {
			t.Errorf("line %d: %v", i+1, err)
			continue
		}
		judged++
		v := judge.Judge(judge.Input{Measurement: m, Bodies: p.Body})
		for _, f := range v.Findings {
			if f.Interference == measure.InterferenceConfirmed && !f.Method.Benign() && f.Match == nil {
				t.Errorf("line %d, %s: %s is confirmed without an artefact", i+1, m.Target, f.Method)
			}
		}
		// OONI's own word of a success is not contradicted.
		if bytes.Contains(line, []byte(`"blocking": false, `)) || bytes.Contains(line, []byte(`"blocking":false,"accessible":true`)) {
			if v.Interference == measure.InterferenceConfirmed {
				t.Errorf("line %d, %s: confirmed, where OONI saw a success", i+1, m.Target)
			}
		}
	}
	if len(lines) != 75 || judged != 21 || len(skipped) == 0 {
		t.Errorf("%d lines, %d judged, %d tests not judged", len(lines), judged, len(skipped))
	}
}
