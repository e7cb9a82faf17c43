package ooni_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"govah/measure"
	"govah/ooni"
)

// ours is a measurement of ours with everything that is exported, and some
// that must not be.
func ours() (*measure.Measurement, *measure.Verdict, *measure.Run) {
	tls := func() *measure.TLS {
		return &measure.TLS{Version: "TLSv1.3", Cipher: "TLS_AES_128_GCM_SHA256", ALPN: "h2", Alert: -1, ServerBytes: true, Public: measure.VerifiedOK}
	}
	m := &measure.Measurement{
		Type: "measurement", Schema: 1, ID: "m1", Run: "r1", Target: "https://www.example.org/", Started: "2026-11-23T08:00:01.204113Z", Complete: true, ElapsedMS: 812,
		Vantage: measure.Vantage{ASN: 64500, Country: "IR", Network: "Documentation", Link: "wifi", ResolverASN: 64501},
		Observations: []measure.Observation{
			{ID: "o1", Step: measure.StepDNS, Role: measure.RoleTest, Stage: measure.StageScreen, Experiment: measure.ExpResolver, Failure: measure.DNSNXDomain, StartUS: 10, TookUS: 20,
				DNS: &measure.DNS{Name: "www.example.org", Type: "A+AAAA", Transport: "system", Resolver: "10.0.0.77"}},
			{ID: "o2", Step: measure.StepDNS, Role: measure.RoleControl, Stage: measure.StageScreen, Experiment: measure.ExpResolver, StartUS: 11, TookUS: 30,
				DNS: &measure.DNS{Name: "www.example.org", Type: "A", Transport: "https", Resolver: "https://dns.example.net/dns-query",
					Replies: []measure.DNSReply{{Rcode: "NOERROR", AtUS: 41, Answers: []measure.DNSAnswer{{Type: "CNAME", Value: "edge.example.net"}, {Type: "A", Value: "192.0.2.7", ASN: 64496, TTLS: 60}}}}}},
			{ID: "o3", Step: measure.StepDNS, Role: measure.RoleTest, Stage: measure.StageScreen, Remote: "198.51.100.53:53", Family: measure.IPv4, StartUS: 12, TookUS: 90,
				DNS: &measure.DNS{Name: "www.example.org", Type: "A", Transport: "udp", Resolver: "198.51.100.53:53",
					Replies: []measure.DNSReply{{Rcode: "NOERROR", AtUS: 50, Answers: []measure.DNSAnswer{{Type: "A", Value: "10.10.34.36"}}}, {Rcode: "NOERROR", AtUS: 80, Answers: []measure.DNSAnswer{{Type: "A", Value: "192.0.2.7", ASN: 64496}}}}}},
			{ID: "o4", Step: measure.StepTCP, Role: measure.RoleTest, Stage: measure.StageScreen, Remote: "192.0.2.7:443", StartUS: 100, TookUS: 30, TCP: &measure.TCP{}},
			{ID: "o5", Step: measure.StepTLS, Role: measure.RoleTest, Stage: measure.StageScreen, After: "o4", Remote: "192.0.2.7:443", SNI: "www.example.org", StartUS: 130, TookUS: 30, TLS: tls()},
			{ID: "o6", Step: measure.StepHTTP, Role: measure.RoleTest, Stage: measure.StageScreen, After: "o5", Remote: "192.0.2.7:443", URL: "https://www.example.org/", StartUS: 160, TookUS: 30,
				HTTP: &measure.HTTP{Method: "GET", Status: 302, Location: "https://www.example.org/a", Authenticated: true, Headers: []measure.Header{{Name: "location", Value: "https://www.example.org/a"}, {Name: "Set-Cookie", Value: "secret=1"}, {Name: "X-Client-IP", Value: "203.0.113.99"}}}},
			{ID: "o7", Step: measure.StepHTTP, Role: measure.RoleTest, Stage: measure.StageScreen, After: "o5", Remote: "192.0.2.7:443", URL: "https://www.example.org/a", StartUS: 190, TookUS: 30, Detail: "read tcp 203.0.113.99:5555: reset", Failure: measure.ConnectionReset,
				HTTP: &measure.HTTP{Method: "GET"}},
			{ID: "o8", Step: measure.StepTLS, Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpSNI, Pair: 1, Remote: "192.0.2.7:443", SNI: "pair.example.org", TLS: tls()},
			{ID: "o9", Step: measure.StepDNS, Role: measure.RoleHelper, Helper: "https://helper.example/#sha256=ff", DNS: &measure.DNS{Name: "www.example.org", Type: "A", Transport: "system",
				Replies: []measure.DNSReply{{Rcode: "NOERROR", Answers: []measure.DNSAnswer{{Type: "A", Value: "192.0.2.7", ASN: 64496}}}}}},
			{ID: "o10", Step: measure.StepTCP, Role: measure.RoleHelper, Helper: "https://helper.example/#sha256=ff", Remote: "192.0.2.7:443", TCP: &measure.TCP{}},
			{ID: "o11", Step: measure.StepTLS, Role: measure.RoleHelper, Helper: "https://helper.example/#sha256=ff", Remote: "192.0.2.7:443", SNI: "www.example.org", TLS: tls()},
			{ID: "o12", Step: measure.StepHTTP, Role: measure.RoleHelper, Helper: "https://helper.example/#sha256=ff", URL: "https://www.example.org/a", HTTP: &measure.HTTP{Method: "GET", Status: 200, Title: "Example", BodyBytes: 100, Authenticated: true}},
		},
	}
	v := &measure.Verdict{Type: "verdict", Schema: 1, Measurement: "m1", Rules: "2026.1", Target: m.Target, Reachable: measure.ReachableNo, Interference: measure.InterferenceConfirmed,
		Findings: []measure.Finding{{ID: "f1", Method: measure.DNSNXDomainLie, Interference: measure.InterferenceConfirmed, Layer: measure.StepDNS, Because: []string{"o1"}, NotExcluded: []measure.Why{}}}}
	return m, v, &measure.Run{Version: "1.2.3", Started: "2026-11-23T08:00:00Z"}
}

func TestExportIsReadBackAsItWas(t *testing.T) {
	m, v, run := ours()
	line, err := ooni.Export(m, v, run)
	if err != nil {
		t.Fatal(err)
	}
	back := parse(t, string(line))
	var got []string
	for i := range back.Observations {
		got = append(got, told(&back.Observations[i]))
	}
	want := []string{
		"o1 test dns/ after=  www.example.org A+AAAA system  ! dns_nxdomain_error",
		"o2 test dns/ after=  www.example.org A https https://dns.example.net/dns-query [NOERROR aa=false CNAME=edge.example.net A=192.0.2.7]",
		"o3 test dns/ipv4 after= 198.51.100.53:53 www.example.org A udp 198.51.100.53:53 [NOERROR aa=false A=10.10.34.36] [NOERROR aa=false A=192.0.2.7]",
		"o4 test tcp/ipv4 after=o2 192.0.2.7:443 AS64496",
		"o5 test tls/ipv4 after=o4 192.0.2.7:443 AS64496 sni=www.example.org TLSv1.3 ok bytes=true chain=0",
		`o6 test http/ipv4 after=o5 192.0.2.7:443 AS64496 GET https://www.example.org/ 302 1 headers loc="https://www.example.org/a" h3="" title="" auth=true 0 bytes`,
		`o7 test http/ipv4 after=o5 192.0.2.7:443 AS64496 GET https://www.example.org/a 0 0 headers loc="" h3="" title="" auth=false 0 bytes ! connection_reset`,
		"o8 helper dns/ after=  www.example.org A+AAAA system  [NOERROR aa=false A=192.0.2.7]",
		"o9 helper tcp/ipv4 after= 192.0.2.7:443 AS64496",
		"o10 helper tls/ipv4 after= 192.0.2.7:443 AS64496 sni=www.example.org  ok bytes=true chain=0",
		`o11 helper http/ after=  GET https://www.example.org/ 200 0 headers loc="" h3="" title="Example" auth=true 100 bytes`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if back.Vantage.ASN != 64500 || back.Vantage.Country != "IR" || back.Vantage.Link != "wifi" || back.Vantage.ResolverASN != 64501 || back.ElapsedMS != 812 || back.Started != "2026-11-23T08:00:01.000000Z" {
		t.Errorf("%+v", back)
	}
	for i, o := range back.Observations[:7] {
		// The format counts in seconds with microseconds.
		if o.StartUS != m.Observations[i].StartUS {
			t.Errorf("%s starts at %d, not %d", o.ID, o.StartUS, m.Observations[i].StartUS)
		}
	}
}

func TestExportTellsNothingOfTheClient(t *testing.T) {
	m, v, run := ours()
	line, err := ooni.Export(m, v, run)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"secret=1", "203.0.113.99", "X-Client-IP", "10.0.0.77", "sha256=ff", "pair.example.org"} {
		if strings.Contains(string(line), secret) {
			t.Errorf("%q is in it", secret)
		}
	}
	if strings.ContainsRune(string(line), '\n') {
		t.Error("more than one line")
	}
	var out struct {
		ProbeIP  string `json:"probe_ip"`
		Version  string `json:"data_format_version"`
		TestKeys struct {
			Blocking   any
			Accessible any
			Verdict    measure.Verdict `json:"x_govah_verdict"`
		} `json:"test_keys"`
	}
	if err := json.Unmarshal(line, &out); err != nil {
		t.Fatal(err)
	}
	if out.ProbeIP != "127.0.0.1" || out.Version != "0.2.0" || out.TestKeys.Blocking != "dns" || out.TestKeys.Accessible != false {
		t.Errorf("%+v", out)
	}
	if diff := cmp.Diff(*v, out.TestKeys.Verdict); diff != "" {
		t.Error(diff)
	}
}

func TestExportCallsOnlyWhatIsConfirmedBlocking(t *testing.T) {
	m, v, run := ours()
	for _, c := range []struct {
		reachable    measure.Reachable
		interference measure.Interference
		method       measure.Method
		layer        measure.Step
		want         string
	}{
		{"yes", "none", "", "", "false true"},
		{"no", "suspected", measure.TLSReset, measure.StepTLS, "<nil> false"},
		{"unknown", "unknown", "", "", "<nil> <nil>"},
		{"no", "confirmed", measure.IPDrop, measure.StepTCP, "tcp_ip false"},
		{"no", "confirmed", measure.TLSReset, measure.StepTLS, "http-failure false"},
		{"no", "confirmed", measure.HTTPBlockPage, measure.StepHTTP, "http-diff false"},
		{"no", "none", measure.SiteDown, measure.StepTCP, "false false"},
	} {
		v.Reachable, v.Interference, v.Findings = c.reachable, c.interference, nil
		if c.method != "" {
			v.Findings = []measure.Finding{{Method: c.method, Layer: c.layer, Interference: c.interference}}
		}
		line, err := ooni.Export(m, v, run)
		if err != nil {
			t.Fatal(err)
		}
		var out struct {
			TestKeys struct{ Blocking, Accessible any } `json:"test_keys"`
		}
		if err := json.Unmarshal(line, &out); err != nil {
			t.Fatal(err)
		}
		got := strings.TrimSpace(strings.Join([]string{text(out.TestKeys.Blocking), text(out.TestKeys.Accessible)}, " "))
		if got != c.want {
			t.Errorf("%s %s %s: %s, want %s", c.reachable, c.interference, c.method, got, c.want)
		}
	}
}

func text(v any) string {
	if v == nil {
		return "<nil>"
	}
	if s, ok := v.(string); ok {
		return s
	}
	b, _ := json.Marshal(v)
	return string(b)
}

func TestExportRefuses(t *testing.T) {
	for name, change := range map[string]func(*measure.Measurement) error{
		"tunnel":   func(m *measure.Measurement) error { m.Vantage.Tunnel = true; return ooni.ErrExit },
		"proxy":    func(m *measure.Measurement) error { m.Vantage.Proxy = true; return ooni.ErrExit },
		"captive":  func(m *measure.Measurement) error { m.Vantage.Captive = true; return ooni.ErrExit },
		"endpoint": func(m *measure.Measurement) error { m.Target = "tcp://example.org:25"; return ooni.ErrNoPage },
		"imported": func(m *measure.Measurement) error { m.Imported = "ooni"; return nil },
		"no time":  func(m *measure.Measurement) error { m.Started = ""; return nil },
	} {
		m, v, run := ours()
		want := change(m)
		if _, err := ooni.Export(m, v, run); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m, _, _ := ours()
	if _, err := ooni.Export(m, nil, nil); err != nil {
		t.Errorf("without verdict and run: %v", err)
	}
}
