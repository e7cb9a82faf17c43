package judge

import (
	"testing"

	"govah/measure"
)

const randomName = "xqzv.example"

// screenedSNI is a site whose handshake failed in the screening.
func screenedSNI(f measure.Failure) *scene {
	s := newScene("https://" + site + "/")
	s.resolved("198.18.7.7", "198.18.7.7")
	s.visit(siteAt, f)
	return s
}

// sniRounds makes n rounds at the site and, if far is not "", elsewhere.
func (s *scene) sniRounds(n int, own, far measure.Failure, elsewhere bool) {
	for k := 1; k <= n; k++ {
		s.bracket(measure.StepTLS)
		s.pair(strange(hello("", measure.ExpSNI, k, siteAt, randomName, "")), hello("", measure.ExpSNI, k, siteAt, site, own))
		if elsewhere {
			at := otherAt
			if k%2 == 0 {
				at = other2At
			}
			t := hello("", measure.ExpSNIElsewhere, k, at, site, far)
			if far == measure.NoFailure {
				t = strange(t)
			}
			s.pair(strange(hello("", measure.ExpSNIElsewhere, k, at, randomName, "")), t)
		}
		s.bracket(measure.StepTLS)
		s.clock += 2_000_000
	}
}

func TestNameInTheClientHello(t *testing.T) {
	for _, c := range []struct {
		name  string
		build func() *scene
		want  want
	}{
		{"reached", func() *scene { return screenedSNI("") }, want{reach: measure.ReachableYes, interference: measure.InterferenceNone}},
		{"reset here and elsewhere", func() *scene {
			s := screenedSNI(measure.ConnectionReset)
			s.sniRounds(5, measure.ConnectionReset, measure.ConnectionReset, true)
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.TLSReset, "sni", "pairs+elsewhere", ""}},
		{"silence here and elsewhere", func() *scene {
			s := screenedSNI(measure.GenericTimeout)
			s.sniRounds(5, measure.GenericTimeout, measure.GenericTimeout, true)
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.TLSDrop, "sni", "pairs+elsewhere", ""}},
		{"twin: the server itself resets its name, elsewhere it passes", func() *scene {
			s := screenedSNI(measure.ConnectionReset)
			s.sniRounds(8, measure.ConnectionReset, "", true)
			return s
		}, want{measure.ReachableNo, measure.InterferenceSuspected, measure.TLSReset, "sni", "", measure.WhyServerRefuses}},
		{"a helper completes the name at the same address", func() *scene {
			s := screenedSNI(measure.ConnectionReset)
			s.helped(helper1, siteAt, 64600, "", "")
			s.sniRounds(5, measure.ConnectionReset, "", false)
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.TLSReset, "sni", "pairs+helper", ""}},
		{"twin: the helper is reset too", func() *scene {
			s := screenedSNI(measure.ConnectionReset)
			s.helped(helper1, siteAt, 64600, "", measure.ConnectionReset)
			s.sniRounds(5, measure.ConnectionReset, "", false)
			return s
		}, want{reach: measure.ReachableNo, interference: measure.InterferenceSuspected, method: measure.TLSReset, why: measure.WhySiteDown}},
		{"two pairs are too few", func() *scene {
			s := screenedSNI(measure.ConnectionReset)
			s.sniRounds(2, measure.ConnectionReset, measure.ConnectionReset, true)
			return s
		}, want{measure.ReachableNo, measure.InterferenceSuspected, measure.TLSReset, "sni", "", measure.WhyFewPairs}},
		{"alerts at the address alone are never confirmed", func() *scene {
			s := screenedSNI(measure.ConnectionReset)
			s.helped(helper1, siteAt, 64600, "", "")
			for k := 1; k <= 8; k++ {
				s.round(measure.StepTLS, strange(hello("", measure.ExpSNI, k, siteAt, randomName, "")), alerted(hello("", measure.ExpSNI, k, siteAt, site, "")))
			}
			return s
		}, want{measure.ReachableNo, measure.InterferenceSuspected, measure.TLSAlert, "sni", "", measure.WhyServerRefuses}},
		{"twin: unknown names are alerted and this one too", func() *scene {
			s := screenedSNI("")
			s.m.Observations = s.m.Observations[:2]
			h := alerted(hello(measure.RoleTest, "", 0, siteAt, site, ""))
			h.Stage = measure.StageScreen
			s.add(h)
			for k := 1; k <= 4; k++ {
				s.round(measure.StepTLS, hello("", measure.ExpSNI, k, siteAt, randomName, measure.ConnectionReset), alerted(hello("", measure.ExpSNI, k, siteAt, site, "")))
			}
			return s
		}, want{reach: measure.ReachableNo, interference: measure.InterferenceUnknown, why: measure.WhyServerRefuses}},
		{"random names fail and a known one passes", func() *scene {
			s := screenedSNI(measure.GenericTimeout)
			for k := 1; k <= 6; k++ {
				s.bracket(measure.StepTLS)
				for _, at := range []string{siteAt, otherAt} {
					exp := measure.ExpSNI
					if at == otherAt {
						exp = measure.ExpSNIElsewhere
					}
					if k == 1 {
						bad := hello(measure.RoleControl, exp, k, at, randomName, measure.GenericTimeout)
						bad.ControlKind = measure.ControlRandom
						s.add(bad)
					}
					c := strange(hello("", exp, k, at, "canary.example", ""))
					c.ControlKind = measure.ControlKnown
					s.pair(c, hello("", exp, k, at, site, measure.GenericTimeout))
				}
				s.bracket(measure.StepTLS)
			}
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.TLSDrop, "allow-list", "pairs+elsewhere", ""}},
		{"the reaction comes from nearer than the server", func() *scene {
			s := screenedSNI(measure.ConnectionReset)
			s.sniRounds(5, measure.ConnectionReset, "", false)
			for k := 1; k <= 2; k++ {
				c, x := hello("", measure.ExpSNITTL, k, siteAt, randomName, measure.GenericTimeout), hello("", measure.ExpSNITTL, k, siteAt, site, measure.ConnectionReset)
				c.TTL, x.TTL = 5, 5
				c.Path, x.Path = &measure.Path{Probe: "data", Outcome: "silent", ServerTTL: 6}, &measure.Path{Probe: "data", Outcome: "reset", ServerTTL: 6}
				s.pair(c, x)
			}
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.TLSReset, "sni", "pairs+ttl", ""}},
		{"twin: the control is answered from there too", func() *scene {
			s := screenedSNI(measure.ConnectionReset)
			s.sniRounds(5, measure.ConnectionReset, "", false)
			c, x := hello("", measure.ExpSNITTL, 1, siteAt, randomName, measure.ConnectionReset), hello("", measure.ExpSNITTL, 1, siteAt, site, measure.ConnectionReset)
			c.TTL, x.TTL = 5, 5
			c.Path, x.Path = &measure.Path{Probe: "data", Outcome: "reset", ServerTTL: 6}, &measure.Path{Probe: "data", Outcome: "reset", ServerTTL: 6}
			s.pair(c, x)
			return s
		}, want{reach: measure.ReachableNo, interference: measure.InterferenceSuspected, method: measure.TLSReset}},
		{"every second handshake dropped", func() *scene {
			s := screenedSNI(measure.GenericTimeout)
			for k := 1; k <= 20; k++ {
				f := measure.NoFailure
				if k%2 == 0 {
					f = measure.GenericTimeout
				}
				s.bracket(measure.StepTLS)
				s.pair(strange(hello("", measure.ExpSNI, k, siteAt, randomName, "")), hello("", measure.ExpSNI, k, siteAt, site, f))
				far := hello("", measure.ExpSNIElsewhere, k, otherAt, site, f)
				if f == measure.NoFailure {
					far = strange(far)
				}
				s.pair(strange(hello("", measure.ExpSNIElsewhere, k, otherAt, randomName, "")), far)
				s.bracket(measure.StepTLS)
			}
			return s
		}, want{"", measure.InterferenceConfirmed, measure.TLSDrop, "sni", "pairs+elsewhere", measure.WhyIntermittent}},
		{"twin: a lossy site drops its controls as often", func() *scene {
			s := screenedSNI(measure.GenericTimeout)
			s.helped(helper1, siteAt, 64600, "", "")
			for k := 1; k <= 20; k++ {
				f, g := measure.NoFailure, measure.NoFailure
				if k%2 == 0 {
					f = measure.GenericTimeout
				}
				if k%4 >= 2 {
					g = measure.GenericTimeout
				}
				s.round(measure.StepTLS, hello("", measure.ExpSNI, k, siteAt, randomName, g), hello("", measure.ExpSNI, k, siteAt, site, f))
			}
			return s
		}, want{interference: measure.InterferenceSuspected, method: measure.TLSDrop}},
		{"a small hello cures it and large ones of any name fail", func() *scene {
			s := screenedSNI(measure.GenericTimeout)
			c := strange(hello("", measure.ExpHello, 1, siteAt, site, ""))
			c.Hello = "chrome-small"
			s.pair(c, hello("", measure.ExpHello, 1, siteAt, site, measure.GenericTimeout))
			s.round(measure.StepTLS, hello("", measure.ExpSNI, 1, siteAt, randomName, measure.GenericTimeout), hello("", measure.ExpSNI, 1, siteAt, site, measure.GenericTimeout))
			return s
		}, want{reach: measure.ReachableNo, interference: measure.InterferenceUnknown, method: measure.PathFault, proof: "hello"}},
		{"twin: a small hello cures it and other names pass at full size", func() *scene {
			s := screenedSNI(measure.GenericTimeout)
			s.pair(strange(hello("", measure.ExpHello, 1, siteAt, site, "")), hello("", measure.ExpHello, 1, siteAt, site, measure.GenericTimeout))
			s.sniRounds(6, measure.GenericTimeout, measure.GenericTimeout, true)
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.TLSDrop, "sni", "pairs+elsewhere", ""}},
		{"seen once", func() *scene { return screenedSNI(measure.ConnectionReset) },
			want{reach: measure.ReachableNo, interference: measure.InterferenceSuspected, method: measure.TLSReset, why: measure.WhySingleSample}},
		{"healed by a second visit", func() *scene {
			s := screenedSNI(measure.ConnectionReset)
			s.sniRounds(5, "", "", false)
			n := len(s.m.Observations)
			s.visit(siteAt, "")
			for i := n; i < len(s.m.Observations); i++ {
				s.m.Observations[i].Stage = measure.StageIsolate
			}
			return s
		}, want{reach: measure.ReachableYes, interference: measure.InterferenceNone}},
		{"a failing canary discards the pairs", func() *scene {
			s := screenedSNI(measure.ConnectionReset)
			for k := 1; k <= 6; k++ {
				s.bracket(measure.StepTLS)
				s.pair(strange(hello("", measure.ExpSNI, k, siteAt, randomName, "")), hello("", measure.ExpSNI, k, siteAt, site, measure.ConnectionReset))
				s.pair(strange(hello("", measure.ExpSNIElsewhere, k, otherAt, randomName, "")), hello("", measure.ExpSNIElsewhere, k, otherAt, site, measure.ConnectionReset))
				s.bracket(measure.StepTLS, measure.ConnectionReset)
				s.clock += 6_000_000
			}
			return s
		}, want{reach: measure.ReachableNo, interference: measure.InterferenceSuspected, method: measure.TLSReset}},
	} {
		t.Run(c.name, func(t *testing.T) { check(t, c.build().judge(), c.want) })
	}
}

// More targets ask for more pairs.
func TestManyTargetsNeedMorePairs(t *testing.T) {
	build := func(screened int) measure.Verdict {
		s := screenedSNI(measure.ConnectionReset)
		s.m.Screened = screened
		s.sniRounds(3, measure.ConnectionReset, measure.ConnectionReset, true)
		return s.judge()
	}
	if v := build(1); v.Interference != measure.InterferenceConfirmed {
		t.Errorf("one target: %s", v.Interference)
	}
	if v := build(1_000_000); v.Interference != measure.InterferenceSuspected {
		t.Errorf("a million targets: %s", v.Interference)
	}
}

func TestCertificates(t *testing.T) {
	untrusted := func(o measure.Observation, leaf, issuer string) measure.Observation {
		o.Failure = measure.TLSUnknownAuthority
		o.TLS = &measure.TLS{Alert: -1, ServerBytes: true, Version: "TLS 1.2", Public: measure.VerifyUnknownCA, Chain: []string{leaf}, Issuer: issuer, Names: []string{site}}
		return o
	}
	start := func() *scene {
		s := newScene("https://" + site + "/")
		s.resolved("198.18.7.7", "198.18.7.7")
		o := untrusted(hello(measure.RoleTest, "", 0, siteAt, site, ""), "a1", "CN=Box CA")
		o.Stage = measure.StageScreen
		s.add(o)
		return s
	}
	for _, c := range []struct {
		name  string
		build func() *scene
		want  want
	}{
		{"the same issuer appears for the name elsewhere", func() *scene {
			s := start()
			s.pair(strange(hello("", measure.ExpSNIElsewhere, 1, otherAt, randomName, "")), untrusted(hello("", measure.ExpSNIElsewhere, 1, otherAt, site, ""), "a2", "CN=Box CA"))
			return s
		}, want{measure.ReachableUnknown, measure.InterferenceConfirmed, measure.TLSInterception, "sni", "elsewhere+certificate", ""}},
		{"twin: self-signed, and elsewhere nothing of the kind", func() *scene {
			s := start()
			s.pair(untrusted(hello("", measure.ExpSNI, 1, siteAt, randomName, ""), "a1", "CN=Box CA"), untrusted(hello("", measure.ExpSNI, 1, siteAt, site, ""), "a1", "CN=Box CA"))
			s.pair(strange(hello("", measure.ExpSNIElsewhere, 1, otherAt, randomName, "")), strange(hello("", measure.ExpSNIElsewhere, 1, otherAt, site, "")))
			return s
		}, want{reach: measure.ReachableUnknown, interference: measure.InterferenceUnknown, why: measure.WhyServerBroken}},
		{"twin: a helper sees the same certificate", func() *scene {
			s := start()
			h := untrusted(hello(measure.RoleHelper, "", 0, siteAt, site, ""), "a1", "CN=Box CA")
			h.Helper = helper1
			s.add(h)
			return s
		}, want{reach: measure.ReachableUnknown, interference: measure.InterferenceNone, why: measure.WhyServerBroken}},
		{"twin: the control at the other server gets that certificate too", func() *scene {
			s := start()
			s.pair(untrusted(hello("", measure.ExpSNIElsewhere, 1, otherAt, randomName, ""), "a2", "CN=Box CA"), untrusted(hello("", measure.ExpSNIElsewhere, 1, otherAt, site, ""), "a2", "CN=Box CA"))
			return s
		}, want{interference: measure.InterferenceSuspected, method: measure.TLSInterception}},
		{"this system trusts it", func() *scene {
			s := start()
			s.m.Observations[len(s.m.Observations)-1].TLS.System = measure.VerifiedOK
			return s
		}, want{interference: measure.InterferenceSuspected, method: measure.TLSInterception, why: measure.WhyLocalNetwork}},
		{"expired", func() *scene {
			s := start()
			s.m.Observations[len(s.m.Observations)-1].TLS.Public = measure.VerifyExpired
			return s
		}, want{interference: measure.InterferenceUnknown, why: measure.WhyServerBroken}},
		{"expired by this device's clock only", func() *scene {
			s := start()
			x := s.m.Observations[len(s.m.Observations)-1].TLS
			x.Public, x.PublicEstimated = measure.VerifyExpired, measure.VerifiedOK
			return s
		}, want{interference: measure.InterferenceUnknown, method: measure.ClockFault, proof: "clock"}},
	} {
		t.Run(c.name, func(t *testing.T) { check(t, c.build().judge(), c.want) })
	}
}
