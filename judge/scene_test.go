package judge

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"govah/measure"
)

// scene builds a measurement as package check would emit it.
type scene struct {
	m     measure.Measurement
	clock int64 // microseconds
	n     int
}

const (
	site     = "site.example"
	siteAt   = "198.18.7.7:443"
	sitePort = "198.18.7.7:80"
	otherAt  = "198.18.9.9:443"
	other2At = "198.18.9.10:443"
	helper1  = "https://helper1.example"
	helper2  = "https://helper2.example"
)

// newScene is a quiet network: 60 canary runs without a failure.
func newScene(target string) *scene {
	s := &scene{clock: 60_000_000}
	s.m = measure.Measurement{Type: "measurement", Schema: 1, Run: "r1", ID: "m1", Target: target, Screened: 1, Complete: true,
		View: measure.View{SetTTL: true, Lookup: true}}
	for _, step := range []measure.Step{measure.StepTCP, measure.StepTLS, measure.StepHTTP, measure.StepQUIC} {
		s.m.Canaries = append(s.m.Canaries, measure.Canary{Step: step, Family: measure.IPv4, Networks: 3, Runs: 30})
	}
	return s
}

// add appends an observation and returns its place; time passes by 100 ms.
func (s *scene) add(o measure.Observation) *measure.Observation {
	s.n++
	if o.ID == "" {
		o.ID = fmt.Sprintf("o%d", s.n)
	}
	if o.Family == "" && o.Step != measure.StepDNS {
		o.Family = measure.IPv4
	}
	o.StartUS, o.TookUS = s.clock, 50_000
	if o.Failure == measure.GenericTimeout {
		o.TookUS = 2_000_000
	}
	s.clock += o.TookUS + 50_000
	s.m.Observations = append(s.m.Observations, o)
	return &s.m.Observations[len(s.m.Observations)-1]
}

func (s *scene) bracket(step measure.Step, failed ...measure.Failure) {
	for i := range 3 {
		o := measure.Observation{Step: step, Role: measure.RoleCanary, Stage: measure.StageBracket, Remote: fmt.Sprintf("198.19.%d.1:443", i), ASN: 64500 + i}
		if i < len(failed) {
			o.Failure = failed[i]
		}
		s.add(o)
	}
}

// hello is a handshake that failed as f says, or ended well.
func hello(role measure.Role, exp measure.Experiment, k int, at, name string, f measure.Failure) measure.Observation {
	o := measure.Observation{Step: measure.StepTLS, Role: role, Stage: measure.StageConfirm, Experiment: exp, Pair: k, Remote: at, SNI: name, Hello: "chrome",
		Failure: f, TLS: &measure.TLS{Alert: -1}}
	if f == measure.NoFailure {
		o.TLS.ServerBytes, o.TLS.Version, o.TLS.Public = true, "TLS 1.3", measure.VerifiedOK
		o.TLS.Chain = []string{fmt.Sprintf("%064x", len(name))}
	}
	return o
}

// alerted is a handshake that an alert ended.
func alerted(o measure.Observation) measure.Observation {
	o.TLS = &measure.TLS{Alert: 40, ServerBytes: true}
	o.Failure = measure.TLSFailedHandshake
	return o
}

// strange is a server that does not know the name and shows its own
// certificate, as canaries do with random names.
func strange(o measure.Observation) measure.Observation {
	o.Failure = measure.TLSInvalidHostname
	o.TLS = &measure.TLS{Alert: -1, ServerBytes: true, Version: "TLS 1.3", Public: measure.VerifyWrongName, Chain: []string{fmt.Sprintf("%064d", 77)}, Issuer: "CN=Public CA"}
	return o
}

// round is one bracketed pair.
func (s *scene) round(step measure.Step, c, t measure.Observation) {
	s.bracket(step)
	s.pair(c, t)
	s.bracket(step)
	s.clock += 2_000_000
}

func (s *scene) pair(c, t measure.Observation) {
	c.Role, t.Role = measure.RoleControl, measure.RoleTest
	if c.ControlKind == "" {
		c.ControlKind = measure.ControlRandom
	}
	t.Control = s.add(c).ID
	s.add(t)
}

// resolved says what the system and the encrypted resolver answer.
func (s *scene) resolved(system, encrypted string) {
	reply := func(a string) []measure.DNSReply {
		return []measure.DNSReply{{Rcode: "NOERROR", Answers: []measure.DNSAnswer{{Type: "A", Value: a, TTLS: 60}}}}
	}
	c := s.add(measure.Observation{Step: measure.StepDNS, Role: measure.RoleControl, Stage: measure.StageScreen, Experiment: measure.ExpResolver,
		DNS: &measure.DNS{Name: site, Type: "A", Transport: "https", Replies: reply(encrypted)}}).ID
	s.add(measure.Observation{Step: measure.StepDNS, Role: measure.RoleTest, Stage: measure.StageScreen, Experiment: measure.ExpResolver, Control: c,
		DNS: &measure.DNS{Name: site, Type: "A+AAAA", Transport: "system", Replies: reply(system)}})
}

// visit screens the site over TLS at an address; f is how the handshake ends.
func (s *scene) visit(at string, f measure.Failure) {
	c := s.add(measure.Observation{Step: measure.StepTCP, Role: measure.RoleTest, Stage: measure.StageScreen, Remote: at})
	h := hello(measure.RoleTest, "", 0, at, site, f)
	h.Stage, h.After = measure.StageScreen, c.ID
	id := s.add(h).ID
	if f == measure.NoFailure {
		s.add(measure.Observation{Step: measure.StepHTTP, Role: measure.RoleTest, Stage: measure.StageScreen, Remote: at, After: id, Host: site, URL: "https://" + site + "/",
			HTTP: &measure.HTTP{Method: "GET", Status: 200, Authenticated: true, BodySHA256: "aa", Simhash: "00000000000000ff"}})
	}
}

// helped is a helper's whole look at the site.
func (s *scene) helped(helper, at string, asn int, tcp, tls measure.Failure) {
	s.add(measure.Observation{Step: measure.StepHelper, Role: measure.RoleHelper, Stage: measure.StageConfirm, Helper: helper, ASN: asn, Remote: fmt.Sprintf("198.19.77.%d:443", asn%250)})
	s.add(measure.Observation{Step: measure.StepDNS, Role: measure.RoleHelper, Helper: helper, DNS: &measure.DNS{Name: site, Type: "A", Transport: "system",
		Replies: []measure.DNSReply{{Rcode: "NOERROR", Answers: []measure.DNSAnswer{{Type: "A", Value: address(&measure.Observation{Remote: at}).String()}}}}}})
	s.add(measure.Observation{Step: measure.StepTCP, Role: measure.RoleHelper, Helper: helper, Remote: at, Failure: tcp})
	if tcp != measure.NoFailure {
		return
	}
	o := hello(measure.RoleHelper, "", 0, at, site, tls)
	o.Helper, o.Stage = helper, ""
	s.add(o)
	if tls == measure.NoFailure {
		s.add(measure.Observation{Step: measure.StepHTTP, Role: measure.RoleHelper, Helper: helper, Remote: at, Host: site, URL: "https://" + site + "/",
			HTTP: &measure.HTTP{Method: "GET", Status: 200, Authenticated: true, BodySHA256: "aa", Simhash: "00000000000000ff"}})
	}
}

func (s *scene) judge() measure.Verdict { return Judge(Input{Measurement: &s.m}) }

// want is what a verdict must say.
type want struct {
	reach        measure.Reachable
	interference measure.Interference
	method       measure.Method // of the first finding; "" no finding
	trigger      string
	proof        string
	why          measure.Why // must be among the reasons or what is not excluded
}

func check(t *testing.T, v measure.Verdict, w want) {
	t.Helper()
	text, _ := json.MarshalIndent(v, "", " ")
	if v.Interference != w.interference || w.reach != "" && v.Reachable != w.reach {
		t.Errorf("interference %s, reachable %s; want %s, %s\n%s", v.Interference, v.Reachable, w.interference, w.reach, text)
		return
	}
	if w.method == "" {
		if len(v.Findings) > 0 && w.interference != measure.InterferenceUnknown {
			t.Errorf("a finding where none is expected\n%s", text)
		}
	} else {
		if len(v.Findings) == 0 {
			t.Errorf("no finding, want %s\n%s", w.method, text)
			return
		}
		f := v.Findings[0]
		if f.Method != w.method || w.trigger != "" && f.Trigger.Kind != w.trigger || w.proof != "" && f.Proof != w.proof {
			t.Errorf("finding %s trigger %s proof %q; want %s %s %q\n%s", f.Method, f.Trigger.Kind, f.Proof, w.method, w.trigger, w.proof, text)
		}
		if f.Interference == measure.InterferenceConfirmed && f.Proof == "" {
			t.Errorf("confirmed without a proof\n%s", text)
		}
	}
	if w.why != "" {
		all := slices.Clone(v.Unknown)
		for _, f := range v.Findings {
			all = append(all, f.NotExcluded...)
		}
		if !slices.Contains(all, w.why) {
			t.Errorf("%s is not among the reasons %v\n%s", w.why, all, text)
		}
	}
}
