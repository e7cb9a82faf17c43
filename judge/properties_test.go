package judge

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"govah/measure"
)

var (
	allSteps    = []measure.Step{measure.StepDNS, measure.StepTCP, measure.StepTLS, measure.StepHTTP, measure.StepQUIC, measure.StepPath, measure.StepHelper, measure.StepStream, measure.StepMail, measure.StepSSH}
	allRoles    = []measure.Role{measure.RoleTest, measure.RoleControl, measure.RoleCanary, measure.RoleHelper}
	allStages   = []measure.Stage{"", measure.StageScreen, measure.StageConfirm, measure.StageBracket, measure.StageIsolate}
	allKinds    = []measure.ControlKind{"", measure.ControlRandom, measure.ControlKnown, measure.ControlNone, measure.ControlPort}
	allFailures = []measure.Failure{"", "", measure.GenericTimeout, measure.ConnectionReset, measure.ConnectionRefused, measure.EOF, measure.DNSNXDomain, measure.DNSServfail,
		measure.TLSUnknownAuthority, measure.TLSInvalidHostname, measure.TLSFailedHandshake, measure.HostUnreachable, measure.Interrupted, "unknown_failure: what"}
	allExperiments = []measure.Experiment{"", measure.ExpQName, measure.ExpNowhere, measure.ExpResolver, measure.ExpIdentity, measure.ExpAddress, measure.ExpSNI, measure.ExpSNIElsewhere,
		measure.ExpSNITTL, measure.ExpHello, measure.ExpHost, measure.ExpHostElsewhere, measure.ExpURL, measure.ExpHTTPS, measure.ExpQUIC, measure.ExpQUICSNI, measure.ExpQUICElsewhere,
		measure.ExpBulk, measure.ExpFirstBytes, measure.ExpProxyTTL, measure.ExpFirstHop, measure.ExpPlain, measure.ExpResidual, measure.ExpMail, measure.ExpMailGreeter, measure.ExpHostKey}
	someNames     = []string{site, randomName, knownName, ""}
	someAddrs     = []string{"198.18.7.7", "185.199.108.153", "93.184.216.34", "10.10.34.35", "2001:db8::7"}
	someRemotes   = []string{siteAt, sitePort, otherAt, other2At, truthAt, fakeAt, "[2001:db8::7]:443", "", "x"}
	verifications = []measure.Verification{"", measure.VerifiedOK, measure.VerifyExpired, measure.VerifyWrongName, measure.VerifyUnknownCA}
)

func pick[T any](t *rapid.T, list []T) T { return list[rapid.IntRange(0, len(list)-1).Draw(t, "i")] }

// anyObservation draws one from a small world, so that ids, names and
// addresses meet.
func anyObservation(t *rapid.T, n int) measure.Observation {
	o := measure.Observation{
		ID: fmt.Sprintf("o%d", rapid.IntRange(1, n+2).Draw(t, "id")), Step: pick(t, allSteps), Role: pick(t, allRoles), Stage: pick(t, allStages), Experiment: pick(t, allExperiments),
		Pair: rapid.IntRange(0, 3).Draw(t, "pair"), Control: fmt.Sprintf("o%d", rapid.IntRange(1, n+2).Draw(t, "control")), ControlKind: pick(t, allKinds),
		Remote: pick(t, someRemotes), SNI: pick(t, someNames), Host: pick(t, someNames), Failure: pick(t, allFailures),
		StartUS: rapid.Int64Range(0, 60).Draw(t, "start") * 1_000_000, TookUS: rapid.Int64Range(-1, 3_000_000).Draw(t, "took"),
	}
	if o.Role == measure.RoleHelper {
		o.Helper = pick(t, []string{helper1, helper2})
	}
	switch o.Step {
	case measure.StepDNS:
		o.DNS = &measure.DNS{Name: pick(t, someNames), Type: "A", Transport: pick(t, []string{"system", "udp", "https"}), NoResolver: rapid.Bool().Draw(t, "nowhere")}
		for range rapid.IntRange(0, 2).Draw(t, "replies") {
			o.DNS.Replies = append(o.DNS.Replies, replies(pick(t, []string{"NOERROR", "NXDOMAIN"}), pick(t, someAddrs))...)
		}
	case measure.StepTLS, measure.StepQUIC:
		o.TLS = &measure.TLS{Alert: rapid.IntRange(-1, 120).Draw(t, "alert"), ServerBytes: rapid.Bool().Draw(t, "bytes"), Public: pick(t, verifications), PublicEstimated: pick(t, verifications),
			System: pick(t, verifications), Issuer: pick(t, []string{"", "CN=Box CA", "CN=Public CA"}), Chain: pick(t, [][]string{nil, {"aa"}, {"bb", "cc"}})}
	case measure.StepHTTP:
		h := pick(t, []measure.HTTP{page, notFound, sorry, {Status: 302, Location: "http://blocked.example/"}})
		h.Authenticated = rapid.Bool().Draw(t, "authenticated")
		o.HTTP, o.URL = &h, pick(t, []string{"", "http://" + site + "/", "https://" + site + "/"})
	case measure.StepMail:
		words := [][]string{nil, {"SIZE"}, {"SIZE", "STARTTLS"}, {"STLS", "XXXXXXXA"}, {"STARTTLS", "LOGINDISABLED"}}
		o.Mail = &measure.Mail{Protocol: pick(t, []string{"smtp", "imap", "pop3", ""}), Implicit: rapid.Bool().Draw(t, "implicit"), Away: rapid.Bool().Draw(t, "away"),
			Greeting: pick(t, []string{"", "220 mail.example", "220 ****", "* PREAUTH"}), Before: pick(t, words), After: pick(t, words),
			StartTLS: pick(t, []string{"", "ready", "later", "refused"}), EarlyBytes: rapid.Int64Range(0, 1).Draw(t, "early"),
			Injected: pick(t, []string{"", "dropped", "executed"}), Key: pick(t, []string{"", "own", "other"})}
		if rapid.Bool().Draw(t, "known") {
			o.Mail.Known = &measure.MailGreeter{Protocol: o.Mail.Protocol, Greeting: "220 mail.example", Before: pick(t, words)}
		}
		if rapid.Bool().Draw(t, "tls") {
			o.TLS = &measure.TLS{Alert: -1, Version: pick(t, []string{"", "TLS 1.3"}), Public: pick(t, verifications), System: pick(t, verifications),
				Issuer: pick(t, []string{"", "CN=Box CA"}), Chain: pick(t, [][]string{nil, {"aa"}, {"bb", "cc"}})}
		}
	case measure.StepSSH:
		fingerprints := []string{"SHA256:a", "SHA256:b", "SHA256:c"}
		s := &measure.SSH{KeyType: "ssh-ed25519", Fingerprint: pick(t, append(fingerprints, "")), Operator: pick(t, []string{"", "one", "two"}), KnownAsOf: pick(t, []string{"", "2026-01-01", "x"})}
		for range rapid.IntRange(0, 2).Draw(t, "known") {
			s.Known = append(s.Known, measure.HostKey{Source: measure.SourcePublished, KeyType: "ssh-ed25519", Fingerprint: pick(t, fingerprints), Retired: rapid.Bool().Draw(t, "retired")})
		}
		o.SSH, o.ASN, o.Experiment = s, rapid.IntRange(0, 3).Draw(t, "asn"), measure.ExpHostKey
	case measure.StepStream:
		o.Stream = &measure.Stream{Bytes: 1000, BitsPerSecond: rapid.Int64Range(-1, 9_000_000).Draw(t, "rate")}
	case measure.StepPath:
		o.Path = &measure.Path{Outcome: pick(t, []string{"silent", "reset", "connected"}), ServerTTL: rapid.IntRange(0, 9).Draw(t, "ttl")}
		o.TTL = rapid.IntRange(0, 9).Draw(t, "sent")
	}
	return o
}

func anyMeasurement(t *rapid.T) *measure.Measurement {
	s := newScene(pick(t, []string{"https://" + site + "/", "http://" + site + "/", "tls://" + site + ":443", "tcp://" + site + ":22", "smtp://" + site + ":443", "imap://" + site + ":443", "ssh://" + site, "ssh://198.18.7.7", "https://198.18.7.7/", "", "%"}))
	s.m.Imported = pick(t, []string{"", "", "", "ooni"})
	s.m.Vantage.Captive = rapid.IntRange(0, 9).Draw(t, "captive") == 0
	n := rapid.IntRange(0, 40).Draw(t, "n")
	for range n {
		s.m.Observations = append(s.m.Observations, anyObservation(t, n))
	}
	return &s.m
}

func text(v measure.Verdict) string {
	b, _ := json.MarshalIndent(v, "", " ")
	return string(b)
}

// The order of the observations in the file changes nothing, and neither does
// judging twice; what is judged stays as it is.
func TestOrderChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := anyMeasurement(t)
		before, _ := json.Marshal(m)
		a := text(Judge(Input{Measurement: m}))
		if after, _ := json.Marshal(m); string(after) != string(before) {
			t.Fatal("judging changed the measurement")
		}
		shuffled := *m
		shuffled.Observations = append([]measure.Observation(nil), m.Observations...)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		r.Shuffle(len(shuffled.Observations), func(i, k int) {
			shuffled.Observations[i], shuffled.Observations[k] = shuffled.Observations[k], shuffled.Observations[i]
		})
		if b := text(Judge(Input{Measurement: &shuffled})); a != b {
			t.Fatalf("in another order:\n%s\n%s", a, b)
		}
	})
}

// What every verdict keeps to.
func TestVerdictsAreWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := anyMeasurement(t)
		v := Judge(Input{Measurement: m})
		ids := map[string]bool{}
		for _, o := range m.Observations {
			ids[o.ID] = true
		}
		worst := measure.InterferenceNone
		for _, f := range v.Findings {
			if f.Interference == measure.InterferenceConfirmed && f.Proof == "" || f.Interference != measure.InterferenceConfirmed && f.Proof != "" ||
				f.Interference != measure.InterferenceConfirmed && f.Interference != measure.InterferenceSuspected {
				t.Fatalf("degree and proof do not agree: %+v", f)
			}
			if f.NotExcluded == nil || f.Because == nil || f.Hits > f.Runs || f.Layer == "" || f.Trigger.Kind == "" || f.Scope == "" {
				t.Fatalf("a finding is not whole: %+v", f)
			}
			for _, id := range f.Because {
				if !ids[id] {
					t.Fatalf("%s is no observation: %+v", id, f)
				}
			}
			if !f.Method.Benign() && worst != measure.InterferenceConfirmed {
				worst = f.Interference
			}
		}
		switch {
		case worst == measure.InterferenceNone:
			if v.Interference != measure.InterferenceNone && v.Interference != measure.InterferenceUnknown {
				t.Fatalf("%s without a finding\n%s", v.Interference, text(v))
			}
		case v.Interference != worst:
			t.Fatalf("%s, and the worst finding is %s", v.Interference, worst)
		}
		if v.Interference == measure.InterferenceUnknown && len(v.Unknown) == 0 && len(v.Findings) == 0 {
			t.Fatalf("unknown without a reason\n%s", text(v))
		}
	})
}

// Nothing is confirmed by a measurement in which no test of a pair failed and
// nothing odd came: whatever else failed in it, and however often.
func TestNothingIsConfirmedWithoutAHit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newScene("https://" + site + "/")
		s.resolved(truth, truth)
		s.m.Screened = rapid.IntRange(1, 3).Draw(t, "screened")
		helped := rapid.Bool().Draw(t, "helped")
		for range rapid.IntRange(0, 3).Draw(t, "visits") {
			s.visit(truthAt, pick(t, []measure.Failure{"", measure.ConnectionReset, measure.GenericTimeout}))
		}
		if helped {
			s.helped(helper1, truthAt, 64600, "", pick(t, []measure.Failure{"", measure.ConnectionReset}))
		}
		for k := range rapid.IntRange(0, 12).Draw(t, "rounds") {
			exp := pick(t, []measure.Experiment{measure.ExpSNI, measure.ExpSNIElsewhere})
			at := truthAt
			if exp == measure.ExpSNIElsewhere {
				at = otherAt
			}
			c := hello("", exp, k, at, randomName, pick(t, []measure.Failure{"", measure.ConnectionReset, measure.GenericTimeout}))
			x := hello("", exp, k, at, site, "")
			if c.Failure != "" {
				// The test may fail where its control does.
				x = hello("", exp, k, at, site, pick(t, []measure.Failure{"", measure.ConnectionReset, measure.GenericTimeout}))
			} else {
				c = strange(c)
			}
			if rapid.Bool().Draw(t, "bracketed") {
				s.round(measure.StepTLS, c, x)
			} else {
				s.pair(c, x)
			}
		}
		for _, f := range s.judge().Findings {
			if f.Interference == measure.InterferenceConfirmed && !f.Method.Benign() {
				t.Fatalf("confirmed: %+v", f)
			}
		}
	})
}

// A pair that no canaries bracket is worth nothing.
func TestNothingIsConfirmedWithoutCanaries(t *testing.T) {
	s := screenedSNI(measure.ConnectionReset)
	s.sniRounds(20, measure.ConnectionReset, measure.ConnectionReset, true)
	if v := s.judge(); v.Interference != measure.InterferenceConfirmed {
		t.Fatalf("the accusing case: %s", text(v))
	}
	kept := s.m.Observations[:0]
	for _, o := range s.m.Observations {
		if o.Role != measure.RoleCanary {
			kept = append(kept, o)
		}
	}
	s.m.Observations = kept
	if v := s.judge(); v.Interference != measure.InterferenceSuspected {
		t.Errorf("without canaries: %s", text(v))
	}
}

func FuzzJudge(f *testing.F) {
	add := func(s *scene) {
		b, err := json.Marshal(s.m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	s := screenedSNI(measure.ConnectionReset)
	s.pair(strange(hello("", measure.ExpSNI, 1, siteAt, randomName, "")), hello("", measure.ExpSNI, 1, siteAt, site, measure.ConnectionReset))
	add(s)
	s = newScene("http://" + site + "/")
	s.resolved("10.10.34.35", truth)
	s.nowhere(1, replies("NOERROR", "10.10.34.35"), nil)
	s.m.Imported = "ooni"
	add(s)
	f.Add([]byte(`{"target":"https://a/","observations":[{"id":"o1","step":"tls","role":"test","control":"o1","experiment":"sni","stage":"confirm"}],"canaries":[{"runs":-9223372036854775808,"failures":9223372036854775807}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m measure.Measurement
		if json.Unmarshal(b, &m) != nil || len(m.Observations) > 200 {
			return
		}
		a := Judge(Input{Measurement: &m})
		if !reflect.DeepEqual(a, Judge(Input{Measurement: &m})) {
			t.Error("judged twice, it is not the same")
		}
	})
}
