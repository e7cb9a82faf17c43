package judge_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"govah/judge"
	"govah/measure"
)

// These tests hold the rules of how to measure against the judge from
// outside, each with a measurement that must not be accused and differs in
// one thing. They build what package check would write.

const (
	lawName   = "news.example"
	lawRandom = "qzxv.example"
	lawAt     = "45.33.7.7:443"
	lawPlain  = "45.33.7.7:80"
)

// strangers are unrelated servers in other networks.
var strangers = []struct {
	tls, plain string
	asn        int
}{{"151.101.1.1:443", "151.101.1.1:80", 64601}, {"104.16.2.2:443", "104.16.2.2:80", 64602}, {"142.250.3.3:443", "142.250.3.3:80", 64603}}

type trial struct {
	m   measure.Measurement
	now int64
	// networks of the canaries that run.
	canaries int
}

func newTrial(target string) *trial {
	return &trial{now: 1_000_000, canaries: 3, m: measure.Measurement{Type: "measurement", Schema: 1, Run: "r", ID: "m", Target: target, Screened: 1, Complete: true,
		View: measure.View{SetTTL: true, SYNHop: true, Lookup: true, IPv4: true}}}
}

func (s *trial) add(o measure.Observation) string {
	o.ID = fmt.Sprintf("o%d", len(s.m.Observations)+1)
	if o.Family == "" && o.Step != measure.StepDNS {
		o.Family = measure.IPv4
	}
	o.StartUS, o.TookUS = s.now, 40_000
	if o.Failure == measure.GenericTimeout {
		o.TookUS = 4_000_000
	}
	s.now += o.TookUS + 10_000
	s.m.Observations = append(s.m.Observations, o)
	return o.ID
}

func (s *trial) bracket(step measure.Step) {
	for i := range s.canaries {
		at := strangers[i].tls
		if step == measure.StepHTTP {
			at = strangers[i].plain
		}
		s.add(measure.Observation{Step: step, Role: measure.RoleCanary, Stage: measure.StageBracket, Remote: at, ASN: strangers[i].asn})
	}
}

// preflight gives the canaries a history: n runs each without a failure.
func (s *trial) preflight(n int) {
	for _, step := range []measure.Step{measure.StepTCP, measure.StepTLS, measure.StepHTTP, measure.StepQUIC} {
		s.m.Canaries = append(s.m.Canaries, measure.Canary{Step: step, Family: measure.IPv4, Networks: s.canaries, Runs: n})
	}
}

func (s *trial) dns(role measure.Role, transport, addr string) string {
	return s.add(measure.Observation{Step: measure.StepDNS, Role: role, Stage: measure.StageScreen, Experiment: measure.ExpResolver,
		DNS: &measure.DNS{Name: lawName, Type: "A", Transport: transport, Replies: []measure.DNSReply{{Rcode: "NOERROR", Answers: []measure.DNSAnswer{{Type: "A", Value: addr, TTLS: 60}}}}}})
}

// open is a screening whose names are in order.
func (s *trial) open() {
	s.preflight(40)
	s.dns(measure.RoleControl, "https", "45.33.7.7")
	s.dns(measure.RoleTest, "system", "45.33.7.7")
}

func hello(role measure.Role, exp measure.Experiment, k int, at, sni string, f measure.Failure) measure.Observation {
	o := measure.Observation{Step: measure.StepTLS, Role: role, Stage: measure.StageConfirm, Experiment: exp, Pair: k, Remote: at, SNI: sni, Hello: "chrome", Failure: f, TLS: &measure.TLS{Alert: -1}}
	if role == measure.RoleControl {
		o.ControlKind = measure.ControlRandom
	}
	if f == measure.NoFailure {
		o.TLS.ServerBytes, o.TLS.Version, o.TLS.Public = true, "TLS 1.3", measure.VerifiedOK
		o.TLS.Chain, o.TLS.Issuer = []string{fmt.Sprintf("%064x", len(sni)+len(at))}, "CN=Public CA"
	}
	if f == measure.TLSInvalidHostname {
		o.TLS.ServerBytes, o.TLS.Version, o.TLS.Public = true, "TLS 1.3", measure.VerifyWrongName
		o.TLS.Chain, o.TLS.Issuer = []string{fmt.Sprintf("%064d", 7)}, "CN=Public CA"
	}
	return o
}

func (s *trial) screenTLS(f measure.Failure) {
	c := s.add(measure.Observation{Step: measure.StepTCP, Role: measure.RoleTest, Stage: measure.StageScreen, Remote: lawAt, ASN: 64500})
	o := hello(measure.RoleTest, "", 0, lawAt, lawName, f)
	o.Stage, o.After, o.ASN = measure.StageScreen, c, 64500
	t := s.add(o)
	if f == measure.NoFailure {
		s.add(measure.Observation{Step: measure.StepHTTP, Role: measure.RoleTest, Stage: measure.StageScreen, Remote: lawAt, ASN: 64500, After: t, Host: lawName,
			URL: "https://" + lawName + "/", HTTP: &measure.HTTP{Method: "GET", Status: 200, Authenticated: true, BodyBytes: 6000, BodySHA256: "aa", Simhash: "00000000000000ff"}})
	}
}

func (s *trial) pair(step measure.Step, c, t measure.Observation) {
	s.bracket(step)
	s.bare(c, t)
	s.bracket(step)
	s.now += 2_000_000
}

func (s *trial) bare(c, t measure.Observation) {
	t.Control = s.add(c)
	s.add(t)
}

func (s *trial) here(n int, t, c measure.Failure) {
	for k := 1; k <= n; k++ {
		s.pair(measure.StepTLS, hello(measure.RoleControl, measure.ExpSNI, k, lawAt, lawRandom, c), hello(measure.RoleTest, measure.ExpSNI, k, lawAt, lawName, t))
	}
}

func (s *trial) away(n int, t measure.Failure) {
	for k := 1; k <= n; k++ {
		x := strangers[k%3]
		a, b := hello(measure.RoleControl, measure.ExpSNIElsewhere, k, x.tls, lawRandom, measure.TLSInvalidHostname), hello(measure.RoleTest, measure.ExpSNIElsewhere, k, x.tls, lawName, t)
		a.ASN, b.ASN = x.asn, x.asn
		s.pair(measure.StepTLS, a, b)
	}
}

func (s *trial) ttl(n int, control, test measure.Failure) {
	outcome := map[measure.Failure]string{measure.GenericTimeout: "silent", measure.ConnectionReset: "reset"}
	for k := 1; k <= n; k++ {
		a, b := hello(measure.RoleControl, measure.ExpSNITTL, k, lawAt, lawRandom, control), hello(measure.RoleTest, measure.ExpSNITTL, k, lawAt, lawName, test)
		a.TTL, b.TTL = 5, 5
		a.Path, b.Path = &measure.Path{Probe: "data", ServerTTL: 6, Outcome: outcome[control]}, &measure.Path{Probe: "data", ServerTTL: 6, Outcome: outcome[test]}
		s.bare(a, b)
	}
}

func plain(role measure.Role, exp measure.Experiment, k int, at, host string, f measure.Failure, h measure.HTTP) measure.Observation {
	h.Method = "GET"
	o := measure.Observation{Step: measure.StepHTTP, Role: role, Stage: measure.StageConfirm, Experiment: exp, Pair: k, Remote: at, Host: host, URL: "http://" + host + "/", Failure: f, HTTP: &h}
	if role == measure.RoleControl {
		o.ControlKind = measure.ControlRandom
	}
	return o
}

func (s *trial) screenPlain(h measure.HTTP) {
	c := s.add(measure.Observation{Step: measure.StepTCP, Role: measure.RoleTest, Stage: measure.StageScreen, Remote: lawPlain})
	o := plain(measure.RoleTest, "", 0, lawPlain, lawName, "", h)
	o.Stage, o.After = measure.StageScreen, c
	s.add(o)
}

func (s *trial) awayPlain(n int, t, c measure.HTTP) {
	for k := 1; k <= n; k++ {
		x := strangers[k%3]
		a, b := plain(measure.RoleControl, measure.ExpHostElsewhere, k, x.plain, lawRandom, "", c), plain(measure.RoleTest, measure.ExpHostElsewhere, k, x.plain, lawName, "", t)
		a.ASN, b.ASN = x.asn, x.asn
		s.pair(measure.StepHTTP, a, b)
	}
}

var blocked = measure.HTTP{Status: 403, BodyBytes: 337, BodySHA256: "bb", Simhash: "ffffffff00000000", Matches: []measure.Match{{Row: "ir.iframe", Kind: "blockpage", Where: "body", Country: "IR"}}}
var welcome = measure.HTTP{Status: 404, BodyBytes: 500, BodySHA256: "cc", Simhash: "0000000000000000"}

func TestLaw(t *testing.T) {
	https, http := "https://"+lawName+"/", "http://"+lawName+"/"
	const reset, silence = measure.ConnectionReset, measure.GenericTimeout
	for _, c := range []struct {
		name  string
		build func() *trial
		want  measure.Interference // "" means anything but confirmed
		not   []measure.Interference
		find  measure.Method
	}{
		{"name reset at its own address and elsewhere", func() *trial {
			s := newTrial(https)
			s.open()
			s.screenTLS(reset)
			s.here(5, reset, measure.TLSInvalidHostname)
			s.away(5, reset)
			return s
		}, measure.InterferenceConfirmed, nil, measure.TLSReset},
		{"canaries in two networks only", func() *trial {
			s := newTrial(https)
			s.canaries = 2
			s.open()
			s.screenTLS(reset)
			s.here(5, reset, measure.TLSInvalidHostname)
			s.away(5, reset)
			return s
		}, "", nil, measure.TLSReset},
		{"name reset elsewhere, and the site is reached", func() *trial {
			s := newTrial(https)
			s.open()
			s.screenTLS("")
			s.here(5, "", measure.TLSInvalidHostname)
			s.away(10, reset)
			return s
		}, "", nil, ""},
		{"name reset elsewhere, no name draws TLS at its own address", func() *trial {
			s := newTrial(https)
			s.open()
			s.screenTLS(reset)
			s.here(5, reset, reset)
			s.away(10, reset)
			return s
		}, "", nil, measure.TLSReset},
		{"the reaction is nearer than the server", func() *trial {
			s := newTrial(https)
			s.open()
			s.screenTLS(reset)
			s.here(5, reset, measure.TLSInvalidHostname)
			s.ttl(3, silence, reset)
			return s
		}, measure.InterferenceConfirmed, nil, measure.TLSReset},
		{"one odd path in three", func() *trial {
			s := newTrial(https)
			s.open()
			s.screenTLS(reset)
			s.here(5, reset, measure.TLSInvalidHostname)
			s.ttl(1, silence, reset)
			s.ttl(2, reset, reset)
			return s
		}, "", nil, measure.TLSReset},
		{"self-signed, nobody else looked", func() *trial {
			s := newTrial(https)
			s.open()
			o := hello(measure.RoleTest, "", 0, lawAt, lawName, measure.TLSUnknownAuthority)
			o.Stage = measure.StageScreen
			o.TLS = &measure.TLS{Alert: -1, ServerBytes: true, Version: "TLS 1.3", Public: measure.VerifyUnknownCA, System: measure.VerifyUnknownCA,
				Chain: []string{"dd"}, Issuer: "CN=news", Subject: "CN=news"}
			s.add(o)
			return s
		}, measure.InterferenceUnknown, nil, ""},
		{"a block page where the same Host has no home", func() *trial {
			s := newTrial(http)
			s.open()
			s.screenPlain(blocked)
			s.awayPlain(3, blocked, welcome)
			return s
		}, measure.InterferenceConfirmed, nil, measure.HTTPBlockPage},
		{"a page about block pages, the same over authenticated TLS", func() *trial {
			s := newTrial(http)
			s.open()
			page := measure.HTTP{Status: 200, BodyBytes: 20_000, BodySHA256: "ee", Simhash: "0f0f0f0f0f0f0f0f", Matches: blocked.Matches}
			s.screenPlain(page)
			twin := page
			twin.Authenticated, twin.Method = true, "GET"
			s.add(measure.Observation{Step: measure.StepHTTP, Role: measure.RoleControl, Stage: measure.StageScreen, Experiment: measure.ExpHTTPS, Remote: lawAt, Host: lawName, URL: https, HTTP: &twin})
			for k := 1; k <= 5; k++ {
				s.pair(measure.StepHTTP, plain(measure.RoleControl, measure.ExpHost, k, lawPlain, lawRandom, "", welcome), plain(measure.RoleTest, measure.ExpHost, k, lawPlain, lawName, "", page))
			}
			return s
		}, "", []measure.Interference{measure.InterferenceSuspected}, ""},
		{"unrelated servers redirect every Host to itself", func() *trial {
			s := newTrial(http)
			s.open()
			s.screenPlain(measure.HTTP{Status: 200, BodyBytes: 6000, BodySHA256: "aa", Simhash: "00000000000000ff"})
			s.awayPlain(6, measure.HTTP{Status: 301, Location: "https://" + lawName + "/"}, measure.HTTP{Status: 301, Location: "https://" + lawRandom + "/"})
			return s
		}, measure.InterferenceNone, nil, ""},
		{"unrelated servers redirect this Host to one place", func() *trial {
			s := newTrial(http)
			s.open()
			s.screenPlain(measure.HTTP{Status: 302, Location: "http://stop.example/"})
			s.awayPlain(6, measure.HTTP{Status: 302, Location: "http://stop.example/"}, measure.HTTP{Status: 301, Location: "https://" + lawRandom + "/"})
			return s
		}, measure.InterferenceConfirmed, nil, measure.HTTPRedirect},
		{"a site with a second home at two of them", func() *trial {
			s := newTrial(http)
			s.open()
			page := measure.HTTP{Status: 200, BodyBytes: 6000, BodySHA256: "aa", Simhash: "00000000000000ff", Title: "News"}
			s.screenPlain(page)
			twin := page
			twin.Authenticated, twin.Method = true, "GET"
			s.add(measure.Observation{Step: measure.StepHTTP, Role: measure.RoleControl, Stage: measure.StageScreen, Experiment: measure.ExpHTTPS, Remote: lawAt, Host: lawName, URL: https, HTTP: &twin})
			s.awayPlain(6, page, welcome)
			return s
		}, "", nil, ""},
		{"a canary that never worked here", func() *trial {
			s := newTrial(https)
			s.open()
			s.screenTLS(reset)
			for k := 1; k <= 6; k++ {
				dead := measure.Observation{Step: measure.StepTLS, Role: measure.RoleCanary, Stage: measure.StageBracket, Remote: "31.13.4.4:443", ASN: 64999, Failure: reset}
				s.add(dead)
				s.here(1, reset, measure.TLSInvalidHostname)
				s.add(dead)
				s.away(1, reset)
			}
			return s
		}, measure.InterferenceConfirmed, nil, measure.TLSReset},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := judge.Judge(judge.Input{Measurement: &c.build().m})
			text, _ := json.MarshalIndent(v, "", " ")
			if c.want != "" && v.Interference != c.want || c.want == "" && v.Interference == measure.InterferenceConfirmed || slices.Contains(c.not, v.Interference) {
				t.Errorf("interference %s, want %q\n%s", v.Interference, c.want, text)
			}
			if c.find != "" && !slices.ContainsFunc(v.Findings, func(f measure.Finding) bool { return f.Method == c.find }) {
				t.Errorf("no finding %s\n%s", c.find, text)
			}
		})
	}
}

var lawSteps = []measure.Step{measure.StepDNS, measure.StepTCP, measure.StepTLS, measure.StepHTTP, measure.StepQUIC, measure.StepPath, measure.StepStream, measure.StepHelper}
var lawExperiments = []measure.Experiment{"", measure.ExpQName, measure.ExpResolver, measure.ExpIdentity, measure.ExpAddress, measure.ExpSNI, measure.ExpSNIElsewhere, measure.ExpSNITTL,
	measure.ExpHello, measure.ExpHost, measure.ExpHostElsewhere, measure.ExpURL, measure.ExpHTTPS, measure.ExpQUIC, measure.ExpQUICSNI, measure.ExpQUICElsewhere, measure.ExpBulk,
	measure.ExpFirstBytes, measure.ExpProxyTTL, measure.ExpFirstHop, measure.ExpFamily, measure.ExpResidual}
var lawFailures = []measure.Failure{"", "", "", measure.GenericTimeout, measure.ConnectionReset, measure.ConnectionRefused, measure.EOF, measure.TLSFailedHandshake, measure.TLSInvalidHostname,
	measure.TLSUnknownAuthority, measure.DNSNXDomain, measure.DNSServfail, measure.HostUnreachable, measure.Interrupted}

// anyMeasurement draws observations of every kind, related at random.
func anyMeasurement(t *rapid.T) *measure.Measurement {
	remotes := []string{lawAt, lawPlain, strangers[0].tls, strangers[1].tls, strangers[0].plain, "[2606:4700::7]:443", "", "x"}
	names := []string{lawName, lawRandom, "canary.example", ""}
	m := &measure.Measurement{Target: rapid.SampledFrom([]string{"https://" + lawName + "/", "http://" + lawName + "/", "tls://" + lawName + ":443", "tcp://45.33.7.7:443", "%"}).Draw(t, "target"),
		Screened: 1, Complete: rapid.Bool().Draw(t, "complete")}
	m.Vantage.Captive = rapid.IntRange(0, 9).Draw(t, "captive") == 0
	for _, step := range lawSteps[1:5] {
		m.Canaries = append(m.Canaries, measure.Canary{Step: step, Family: measure.IPv4, Networks: 3, Runs: rapid.IntRange(-1, 200).Draw(t, "runs")})
	}
	n := rapid.IntRange(0, 60).Draw(t, "n")
	for i := range n {
		o := measure.Observation{ID: fmt.Sprintf("o%d", i+1),
			Step:       rapid.SampledFrom(lawSteps).Draw(t, "step"),
			Role:       rapid.SampledFrom([]measure.Role{measure.RoleTest, measure.RoleTest, measure.RoleControl, measure.RoleCanary, measure.RoleHelper}).Draw(t, "role"),
			Stage:      rapid.SampledFrom([]measure.Stage{measure.StageScreen, measure.StageConfirm, measure.StageConfirm, measure.StageIsolate}).Draw(t, "stage"),
			Experiment: rapid.SampledFrom(lawExperiments).Draw(t, "experiment"),
			Pair:       rapid.IntRange(0, 3).Draw(t, "pair"),
			Remote:     rapid.SampledFrom(remotes).Draw(t, "remote"),
			SNI:        rapid.SampledFrom(names).Draw(t, "sni"), Host: rapid.SampledFrom(names).Draw(t, "host"),
			StartUS: int64(i) * 1_000_000, TookUS: 10_000, TTL: rapid.IntRange(0, 3).Draw(t, "ttl"),
			Failure: rapid.SampledFrom(lawFailures).Draw(t, "failure")}
		if i > 0 {
			o.Control = fmt.Sprintf("o%d", rapid.IntRange(1, i).Draw(t, "control"))
			o.After = fmt.Sprintf("o%d", rapid.IntRange(1, i).Draw(t, "after"))
		}
		if o.Role == measure.RoleHelper {
			o.Helper = rapid.SampledFrom([]string{"https://a.example", "https://b.example"}).Draw(t, "helper")
		}
		switch o.Step {
		case measure.StepDNS:
			d := &measure.DNS{Name: lawName, Type: "A", Transport: rapid.SampledFrom([]string{"system", "udp", "https"}).Draw(t, "transport"), NoResolver: o.Experiment == measure.ExpNowhere}
			if o.Failure == measure.NoFailure {
				d.Replies = []measure.DNSReply{{Rcode: "NOERROR", Answers: []measure.DNSAnswer{{Type: "A", Value: rapid.SampledFrom([]string{"45.33.7.7", "151.101.1.1"}).Draw(t, "answer")}}}}
			}
			o.DNS = d
		case measure.StepTLS, measure.StepQUIC:
			o.TLS = &measure.TLS{Alert: -1, ServerBytes: rapid.Bool().Draw(t, "bytes")}
			if o.Failure == measure.NoFailure {
				o.TLS.Public, o.TLS.Version, o.TLS.Chain = measure.VerifiedOK, "TLS 1.3", []string{"ab"}
			}
		case measure.StepHTTP:
			o.URL = rapid.SampledFrom([]string{"http://", "https://"}).Draw(t, "scheme") + lawName + "/"
			o.HTTP = &measure.HTTP{Method: "GET", Status: rapid.SampledFrom([]int{0, 200, 301, 403}).Draw(t, "status"), Simhash: "00ff00ff00ff00ff", BodyBytes: 100}
		case measure.StepPath:
			o.Path = &measure.Path{Probe: "syn", Outcome: rapid.SampledFrom([]string{"connected", "reset", "silent", "expired"}).Draw(t, "outcome"), ServerTTL: 3}
		case measure.StepStream:
			o.Stream = &measure.Stream{Bytes: 1000, BitsPerSecond: rapid.Int64Range(-1, 1_000_000).Draw(t, "rate")}
		}
		m.Observations = append(m.Observations, o)
	}
	return m
}

func verdictOf(m *measure.Measurement) []byte {
	b, err := json.Marshal(judge.Judge(judge.Input{Measurement: m}))
	if err != nil {
		panic(err)
	}
	return b
}

func TestOrderOfObservationsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := anyMeasurement(t)
		want := verdictOf(m)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		r.Shuffle(len(m.Observations), func(i, j int) {
			m.Observations[i], m.Observations[j] = m.Observations[j], m.Observations[i]
		})
		if got := verdictOf(m); !bytes.Equal(got, want) {
			t.Fatalf("order changes the verdict:\n%s\n%s", want, got)
		}
	})
}

// Without a test that failed, and without anything that is false by itself,
// nothing is ever confirmed but what is harmless.
func TestNothingIsConfirmedWithoutAFailure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := anyMeasurement(t)
		for i := range m.Observations {
			o := &m.Observations[i]
			if o.Role == measure.RoleTest {
				o.Failure = measure.NoFailure
				if o.TLS != nil {
					o.TLS.Public, o.TLS.Version, o.TLS.ServerBytes = measure.VerifiedOK, "TLS 1.3", true
				}
				if o.Path != nil {
					o.Path.Outcome = "silent"
				}
				if o.Stream != nil {
					o.Stream.BitsPerSecond = 1 << 40
				}
				if o.HTTP != nil {
					*o.HTTP = measure.HTTP{Method: "GET", Status: 200, Simhash: "00ff00ff00ff00ff", BodyBytes: 100}
				}
				if o.DNS != nil && o.Experiment != measure.ExpNowhere {
					o.DNS.Replies = []measure.DNSReply{{Rcode: "NOERROR", Answers: []measure.DNSAnswer{{Type: "A", Value: "45.33.7.7"}}}}
				}
			} else if o.HTTP != nil {
				*o.HTTP = measure.HTTP{Method: "GET", Status: 200, Simhash: "00ff00ff00ff00ff", BodyBytes: 100}
			}
		}
		v := judge.Judge(judge.Input{Measurement: m})
		for _, f := range v.Findings {
			if f.Interference == measure.InterferenceConfirmed && !f.Method.Benign() {
				t.Fatalf("confirmed %s from nothing: %+v", f.Method, f)
			}
		}
	})
}

// A verdict keeps to its own words.
func TestVerdictIsConsistent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := anyMeasurement(t)
		v := judge.Judge(judge.Input{Measurement: m})
		known := map[string]bool{}
		for _, o := range m.Observations {
			known[o.ID] = true
		}
		worst := measure.Interference("")
		for i, f := range v.Findings {
			if f.ID != fmt.Sprintf("f%d", i+1) || f.Method == "" || f.Layer == "" || f.Scope == "" || f.Because == nil || f.NotExcluded == nil {
				t.Fatalf("finding lacks something: %+v", f)
			}
			if f.Hits > f.Runs && f.Runs > 0 || f.Controls.Hits > f.Controls.Runs {
				t.Fatalf("more hits than runs: %+v", f)
			}
			if (f.Interference == measure.InterferenceConfirmed) != (f.Proof != "") {
				t.Fatalf("proof %q of a %s finding: %+v", f.Proof, f.Interference, f)
			}
			for _, id := range f.Because {
				if !known[id] {
					t.Fatalf("because of %q, which does not exist", id)
				}
			}
			if !f.Method.Benign() && worst != measure.InterferenceConfirmed {
				worst = f.Interference
			}
		}
		if worst != "" && v.Interference != worst {
			t.Fatalf("interference %s, worst finding %s", v.Interference, worst)
		}
		if v.Interference == measure.InterferenceUnknown && len(v.Unknown) == 0 && len(v.Findings) == 0 {
			t.Fatalf("unknown without a reason: %+v", v)
		}
		if !slices.IsSorted(v.Unknown) {
			t.Fatalf("reasons out of order: %v", v.Unknown)
		}
	})
}

// A canary's success or a helper's never turns innocence into guilt by itself:
// with every failure taken away from a helper, what was reached stays so.
func TestHelperSuccessDoesNotUndoWhatWasReached(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newTrial("https://" + lawName + "/")
		s.open()
		s.screenTLS("")
		before := judge.Judge(judge.Input{Measurement: &s.m})
		n := rapid.IntRange(1, 8).Draw(t, "n")
		for range n {
			o := hello(measure.RoleHelper, "", 0, rapid.SampledFrom([]string{lawAt, strangers[0].tls}).Draw(t, "at"), lawName, "")
			o.Helper, o.Stage = "https://a.example", ""
			s.add(o)
		}
		after := judge.Judge(judge.Input{Measurement: &s.m})
		if before.Interference != measure.InterferenceNone || after.Interference != measure.InterferenceNone || after.Reachable != measure.ReachableYes {
			t.Fatalf("before %s, after %s, %s", before.Interference, after.Interference, after.Reachable)
		}
	})
}

func FuzzVerdictIsAFunction(f *testing.F) {
	s := newTrial("https://" + lawName + "/")
	s.open()
	s.screenTLS(measure.ConnectionReset)
	s.here(3, measure.ConnectionReset, measure.TLSInvalidHostname)
	seed, _ := json.Marshal(s.m)
	f.Add(seed)
	f.Add([]byte(`{"target":"http://a/","observations":[{"id":"o1","step":"dns","role":"test"},{"id":"o1","control":"o1","after":"o1","step":"tls","role":"test","experiment":"sni","stage":"confirm"}]}`))
	f.Add([]byte(`{"imported":"ooni","target":"http://a/","observations":[{"step":"http","role":"test","http":{"status":-1,"simhash":"zz"}}],"canaries":[{"step":"tcp","runs":2147483647,"failures":-5}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var m measure.Measurement
		if json.Unmarshal(data, &m) != nil {
			return
		}
		if a, b := verdictOf(&m), verdictOf(&m); !bytes.Equal(a, b) {
			t.Fatalf("two verdicts:\n%s\n%s", a, b)
		}
	})
}
