package judge_test

import (
	"encoding/json"
	"slices"
	"testing"

	"govah/judge"
	"govah/measure"
)

// identity is a handshake with the target's name at a disputed address.
func (s *trial) identity(addr string, f measure.Failure, public measure.Verification) {
	o := hello(measure.RoleTest, measure.ExpIdentity, 0, addr, lawName, f)
	if f == measure.NoFailure {
		o.TLS.Public = public
	}
	if public == measure.VerifyWrongName || public == measure.VerifyUnknownCA {
		o.TLS = &measure.TLS{Alert: -1, ServerBytes: true, Version: "TLS 1.3", Public: public, Chain: []string{"ee" + addr}, Issuer: "CN=x", Names: []string{"other.example"}}
	}
	s.add(o)
}

// answer is one reply with one address.
func answer(addr string) []measure.DNSReply {
	if addr == "" {
		return nil
	}
	return []measure.DNSReply{{Rcode: "NOERROR", Answers: []measure.DNSAnswer{{Type: "A", Value: addr, TTLS: 60}}}}
}

// ask is one question to one resolver; f is how it failed.
func ask(role measure.Role, exp measure.Experiment, stage measure.Stage, k int, name, transport, resolver, addr string, f measure.Failure) measure.Observation {
	o := measure.Observation{Step: measure.StepDNS, Role: role, Stage: stage, Experiment: exp, Pair: k, Remote: resolver, Failure: f,
		DNS: &measure.DNS{Name: name, Type: "A", Transport: transport, Resolver: resolver, NoResolver: exp == measure.ExpNowhere, Replies: answer(addr)}}
	if f == measure.DNSNXDomain {
		o.DNS.Replies = []measure.DNSReply{{Rcode: "NXDOMAIN"}}
	}
	if f == measure.DNSServfail {
		o.DNS.Replies = []measure.DNSReply{{Rcode: "SERVFAIL"}}
	}
	return o
}

func (s *trial) qname(n int, resolver, addr string, f measure.Failure) {
	for k := 1; k <= n; k++ {
		s.pair(measure.StepTCP, ask(measure.RoleControl, measure.ExpQName, measure.StageConfirm, k, "canary.example", "udp", resolver, "151.101.1.1", ""),
			ask(measure.RoleTest, measure.ExpQName, measure.StageConfirm, k, lawName, "udp", resolver, addr, f))
	}
}

// names is a screening in which the system's resolver says something else
// than the encrypted one, whose address is proven.
func names(system string, f measure.Failure) *trial {
	s := newTrial("https://" + lawName + "/")
	s.preflight(40)
	s.add(ask(measure.RoleControl, measure.ExpResolver, measure.StageScreen, 0, lawName, "https", "1.1.1.1:443", "45.33.7.7", ""))
	s.add(ask(measure.RoleTest, measure.ExpResolver, measure.StageScreen, 0, lawName, "udp", "80.1.1.1:53", system, f))
	s.identity(lawAt, "", measure.VerifiedOK)
	return s
}

func (s *trial) looked(helper string, asn int, at string, tcp, tls measure.Failure) {
	s.add(measure.Observation{Step: measure.StepHelper, Role: measure.RoleHelper, Helper: helper, Remote: "5.9.0.1:443", ASN: asn})
	s.add(measure.Observation{Step: measure.StepTCP, Role: measure.RoleHelper, Helper: helper, Remote: at, Failure: tcp})
	if tcp == measure.NoFailure {
		o := hello(measure.RoleHelper, "", 0, at, lawName, tls)
		o.Helper, o.Stage = helper, ""
		s.add(o)
	}
}

func (s *trial) connects(n int, f, port measure.Failure) {
	for k := 1; k <= n; k++ {
		s.pair(measure.StepTCP, measure.Observation{Step: measure.StepTCP, Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: measure.ExpAddress, Pair: k, ControlKind: measure.ControlPort, Remote: lawPlain, Failure: port},
			measure.Observation{Step: measure.StepTCP, Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpAddress, Pair: k, Remote: lawAt, Failure: f})
	}
}

func TestLawOfNamesAndAddresses(t *testing.T) {
	const silence, reset, refused = measure.GenericTimeout, measure.ConnectionReset, measure.ConnectionRefused
	dead := func() *trial {
		s := newTrial("https://" + lawName + "/")
		s.open()
		s.add(measure.Observation{Step: measure.StepTCP, Role: measure.RoleTest, Stage: measure.StageScreen, Remote: lawAt, Failure: silence})
		s.connects(6, silence, silence)
		return s
	}
	for _, c := range []struct {
		name  string
		build func() *trial
		want  measure.Interference // "" means anything but confirmed
		find  measure.Method
	}{
		{"an address that only forgers give", func() *trial { return names("10.10.34.36", "") }, measure.InterferenceConfirmed, measure.DNSResolverLie},
		{"another certificate, the true one at the other address", func() *trial {
			s := names("77.1.1.1", "")
			s.identity("77.1.1.1:443", measure.TLSInvalidHostname, measure.VerifyWrongName)
			return s
		}, measure.InterferenceConfirmed, measure.DNSResolverLie},
		{"another address with the same proof", func() *trial {
			s := names("77.1.1.1", "")
			s.identity("77.1.1.1:443", "", measure.VerifiedOK)
			return s
		}, "", ""},
		{"another address that is silent", func() *trial {
			s := names("77.1.1.1", "")
			s.identity("77.1.1.1:443", silence, "")
			return s
		}, "", ""},
		{"another address that resets", func() *trial {
			s := names("77.1.1.1", "")
			s.identity("77.1.1.1:443", reset, "")
			return s
		}, "", ""},
		{"another address that refuses, as a dead server of its own does", func() *trial {
			s := names("77.1.1.1", "")
			s.m.Observations[1].DNS.Replies[0].Answers[0].ASN = 64777
			s.add(measure.Observation{Step: measure.StepTCP, Role: measure.RoleTest, Stage: measure.StageConfirm, Remote: "77.1.1.1:443", Failure: refused})
			return s
		}, "", ""},
		{"an operator's own cache, which serves no helper", func() *trial {
			s := names("77.1.1.1", "")
			s.m.Observations[1].DNS.Replies[0].Answers[0].ASN = 64777
			s.looked("https://a.example", 64701, "77.1.1.1:443", "", silence)
			return s
		}, "", ""},
		{"another certificate, and no address has the true one", func() *trial {
			s := names("77.1.1.1", "")
			s.m.Observations = s.m.Observations[:2]
			s.identity("77.1.1.1:443", measure.TLSInvalidHostname, measure.VerifyWrongName)
			s.identity(lawAt, measure.TLSInvalidHostname, measure.VerifyWrongName)
			return s
		}, "", ""},
		{"an organisation's own address for its own site", func() *trial {
			s := newTrial("https://" + lawName + "/")
			s.preflight(40)
			s.add(ask(measure.RoleControl, measure.ExpResolver, measure.StageScreen, 0, lawName, "https", "1.1.1.1:443", "45.33.7.7", ""))
			s.add(ask(measure.RoleTest, measure.ExpResolver, measure.StageScreen, 0, lawName, "udp", "10.0.0.53:53", "10.20.1.7", ""))
			s.identity(lawAt, "", measure.VerifiedOK)
			return s
		}, "", ""},
		{"a forced safe search", func() *trial {
			s := names("216.239.38.120", "")
			s.identity("216.239.38.120:443", "", measure.VerifiedOK)
			return s
		}, "", ""},
		{"denied again and again", func() *trial {
			s := names("", measure.DNSNXDomain)
			s.qname(6, "80.1.1.1:53", "", measure.DNSNXDomain)
			return s
		}, measure.InterferenceConfirmed, measure.DNSNXDomainLie},
		{"denied, and so is the control", func() *trial {
			s := names("", measure.DNSNXDomain)
			for k := 1; k <= 6; k++ {
				s.pair(measure.StepTCP, ask(measure.RoleControl, measure.ExpQName, measure.StageConfirm, k, "canary.example", "udp", "80.1.1.1:53", "", measure.DNSServfail),
					ask(measure.RoleTest, measure.ExpQName, measure.StageConfirm, k, lawName, "udp", "80.1.1.1:53", "", measure.DNSNXDomain))
			}
			return s
		}, "", ""},
		{"silence to this name only", func() *trial {
			s := names("", silence)
			s.qname(8, "80.1.1.1:53", "", silence)
			return s
		}, measure.InterferenceConfirmed, measure.DNSDrop},
		{"silence to this name in one of eight", func() *trial {
			s := names("", silence)
			s.qname(1, "80.1.1.1:53", "", silence)
			s.qname(7, "80.1.1.1:53", "45.33.7.7", "")
			return s
		}, "", ""},
		{"an answer from nowhere", func() *trial {
			s := names("77.1.1.1", "")
			s.pair(measure.StepTCP, ask(measure.RoleControl, measure.ExpNowhere, measure.StageConfirm, 1, "canary.example", "udp", "45.90.0.53:53", "", silence),
				ask(measure.RoleTest, measure.ExpNowhere, measure.StageConfirm, 1, lawName, "udp", "45.90.0.53:53", "77.1.1.1", ""))
			return s
		}, measure.InterferenceConfirmed, measure.DNSInjection},
		{"silence from nowhere", func() *trial {
			s := names("77.1.1.1", "")
			s.pair(measure.StepTCP, ask(measure.RoleControl, measure.ExpNowhere, measure.StageConfirm, 1, "canary.example", "udp", "45.90.0.53:53", "", silence),
				ask(measure.RoleTest, measure.ExpNowhere, measure.StageConfirm, 1, lawName, "udp", "45.90.0.53:53", "", silence))
			return s
		}, "", ""},
		{"both answered from nowhere", func() *trial {
			s := names("77.1.1.1", "")
			s.pair(measure.StepTCP, ask(measure.RoleControl, measure.ExpNowhere, measure.StageConfirm, 1, "canary.example", "udp", "45.90.0.53:53", "151.101.1.1", ""),
				ask(measure.RoleTest, measure.ExpNowhere, measure.StageConfirm, 1, lawName, "udp", "45.90.0.53:53", "77.1.1.1", ""))
			return s
		}, measure.InterferenceConfirmed, measure.DNSInterception},
		{"no helper, an address is silent", dead, measure.InterferenceSuspected, measure.IPDrop},
		{"a helper reaches the silent address", func() *trial {
			s := dead()
			s.looked("https://a.example", 64701, lawAt, "", "")
			return s
		}, measure.InterferenceConfirmed, measure.IPDrop},
		{"a helper reaches another port of it", func() *trial {
			s := dead()
			s.looked("https://a.example", 64701, lawPlain, "", "")
			return s
		}, "", measure.IPDrop},
		{"two helpers of two networks fail as well", func() *trial {
			s := dead()
			s.looked("https://a.example", 64701, lawAt, silence, "")
			s.looked("https://b.example", 64702, lawAt, silence, "")
			return s
		}, measure.InterferenceNone, measure.SiteDown},
		{"one helper fails as well", func() *trial {
			s := dead()
			s.looked("https://a.example", 64701, lawAt, silence, "")
			return s
		}, measure.InterferenceUnknown, measure.SiteDown},
		{"a helper reached it, and the pairs had no canary", func() *trial {
			s := newTrial("https://" + lawName + "/")
			s.open()
			s.add(measure.Observation{Step: measure.StepTCP, Role: measure.RoleTest, Stage: measure.StageScreen, Remote: lawAt, Failure: silence})
			s.canaries = 0
			s.connects(6, silence, silence)
			s.looked("https://a.example", 64701, lawAt, "", "")
			return s
		}, "", ""},
		{"in a captive network", func() *trial {
			s := dead()
			s.m.Vantage.Captive = true
			return s
		}, measure.InterferenceUnknown, measure.CaptivePortal},
		{"refused with a helper that is refused", func() *trial {
			s := newTrial("https://" + lawName + "/")
			s.open()
			s.add(measure.Observation{Step: measure.StepTCP, Role: measure.RoleTest, Stage: measure.StageScreen, Remote: lawAt, Failure: refused})
			s.connects(5, refused, "")
			s.looked("https://a.example", 64701, lawAt, refused, "")
			return s
		}, measure.InterferenceUnknown, measure.SiteDown},
		{"expired here, valid at the estimated time", func() *trial {
			s := newTrial("https://" + lawName + "/")
			s.open()
			o := hello(measure.RoleTest, "", 0, lawAt, lawName, measure.TLSInvalidCert)
			o.Stage = measure.StageScreen
			o.TLS = &measure.TLS{Alert: -1, ServerBytes: true, Version: "TLS 1.3", Chain: []string{"dd"}, Public: measure.VerifyExpired, PublicEstimated: measure.VerifiedOK}
			s.add(o)
			return s
		}, "", measure.ClockFault},
		{"refused by the server itself", func() *trial {
			s := newTrial("https://" + lawName + "/")
			s.open()
			s.screenTLS("")
			s.m.Observations[len(s.m.Observations)-1].HTTP.Status = 451
			return s
		}, measure.InterferenceNone, measure.ServerRefusal},
		{"imported: reset here, answered to the helper", func() *trial {
			s := newTrial("https://" + lawName + "/")
			s.m.Imported = "ooni"
			s.dns(measure.RoleTest, "system", "45.33.7.7")
			s.screenTLS(reset)
			s.looked("ooni-th", 0, lawAt, "", "")
			return s
		}, measure.InterferenceSuspected, measure.TLSReset},
		{"imported: reset here and there", func() *trial {
			s := newTrial("https://" + lawName + "/")
			s.m.Imported = "ooni"
			s.dns(measure.RoleTest, "system", "45.33.7.7")
			s.screenTLS(reset)
			s.looked("ooni-th", 0, lawAt, "", reset)
			return s
		}, measure.InterferenceUnknown, measure.SiteDown},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := judge.Judge(judge.Input{Measurement: &c.build().m})
			text, _ := json.MarshalIndent(v, "", " ")
			if c.want != "" && v.Interference != c.want || c.want == "" && v.Interference == measure.InterferenceConfirmed {
				t.Errorf("interference %s, want %q\n%s", v.Interference, c.want, text)
			}
			if c.find != "" && !slices.ContainsFunc(v.Findings, func(f measure.Finding) bool { return f.Method == c.find }) {
				t.Errorf("no finding %s\n%s", c.find, text)
			}
		})
	}
}

// Bulk transfers from a helper, under the target's name and under another.
func TestLawOfRates(t *testing.T) {
	bulk := func(n int, test, control func(k int) measure.Stream, f measure.Failure) measure.Verdict {
		s := newTrial("https://" + lawName + "/")
		s.open()
		s.screenTLS("")
		for k := 1; k <= n; k++ {
			a, b := control(k), test(k)
			s.pair(measure.StepTLS,
				measure.Observation{Step: measure.StepStream, Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: measure.ExpBulk, Pair: k, ControlKind: measure.ControlRandom,
					Remote: "5.9.0.1:443", SNI: lawRandom, Host: lawRandom, URL: "https://" + lawRandom + "/bulk", Stream: &a},
				measure.Observation{Step: measure.StepStream, Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpBulk, Pair: k, Differs: []string{"sni"},
					Remote: "5.9.0.1:443", SNI: lawName, Host: lawName, URL: "https://" + lawName + "/bulk", Stream: &b, Failure: f})
		}
		return judge.Judge(judge.Input{Measurement: &s.m})
	}
	at := func(rates ...int64) func(int) measure.Stream {
		return func(k int) measure.Stream { return measure.Stream{Bytes: 200_000, BitsPerSecond: rates[k%len(rates)]} }
	}
	for _, c := range []struct {
		name          string
		n             int
		test, control func(int) measure.Stream
		failure       measure.Failure
		confirmed     bool
		method        measure.Method
	}{
		{"a twentieth of the rate, each time", 8, at(130_000, 140_000), at(4_000_000, 5_000_000), "", true, measure.Throttle},
		{"half of the rate", 8, at(2_000_000), at(4_000_000), "", false, ""},
		{"three times slower", 8, at(1_000_000), at(3_000_000), "", false, ""},
		{"both vary by a factor of ten", 8, at(4_000_000, 400_000), at(400_000, 4_000_000), "", false, ""},
		{"slower in one of eight", 8, func(k int) measure.Stream {
			if k == 3 {
				return measure.Stream{Bytes: 200_000, BitsPerSecond: 100_000}
			}
			return measure.Stream{Bytes: 200_000, BitsPerSecond: 4_000_000}
		}, at(4_000_000), "", false, ""},
		{"slower once", 1, at(130_000), at(4_000_000), "", false, ""},
		{"stops at the same byte", 6, func(int) measure.Stream {
			return measure.Stream{Bytes: 16_384, BitsPerSecond: 1_000_000, StalledUS: 4_000_000}
		}, at(4_000_000), measure.GenericTimeout, true, measure.Freeze},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := bulk(c.n, c.test, c.control, c.failure)
			text, _ := json.MarshalIndent(v, "", " ")
			if (v.Interference == measure.InterferenceConfirmed) != c.confirmed {
				t.Errorf("interference %s\n%s", v.Interference, text)
			}
			if c.method != "" && !slices.ContainsFunc(v.Findings, func(f measure.Finding) bool { return f.Method == c.method }) {
				t.Errorf("no finding %s\n%s", c.method, text)
			}
		})
	}
}
