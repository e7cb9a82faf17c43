package judge

import (
	"testing"

	"govah/measure"
)

func replies(rcode string, addrs ...string) []measure.DNSReply {
	r := measure.DNSReply{Rcode: rcode}
	for _, a := range addrs {
		r.Answers = append(r.Answers, measure.DNSAnswer{Type: "A", Value: a, TTLS: 60})
	}
	return []measure.DNSReply{r}
}

// question is a question over UDP to some resolver.
func dnsQuestion(role measure.Role, exp measure.Experiment, k int, resolver, name string, r []measure.DNSReply) measure.Observation {
	o := measure.Observation{Step: measure.StepDNS, Role: role, Stage: measure.StageConfirm, Experiment: exp, Pair: k, Remote: resolver,
		DNS: &measure.DNS{Name: name, Type: "A", Transport: "udp", Resolver: resolver, Replies: r}}
	switch {
	case len(r) == 0:
		o.Failure = measure.GenericTimeout
	case r[0].Rcode == "NXDOMAIN":
		o.Failure = measure.DNSNXDomain
	case r[0].Rcode == "SERVFAIL":
		o.Failure = measure.DNSServfail
	}
	return o
}

const (
	ispResolver = "198.18.53.53:53"
	noResolver  = "192.0.2.53:53"
	knownName   = "canary.example"
)

// identity is a handshake that asks an address for its certificate.
func (s *scene) identity(at string, f measure.Failure) *measure.Observation {
	o := hello(measure.RoleTest, measure.ExpIdentity, 0, at, site, f)
	return s.add(o)
}

func (s *scene) nowhere(n int, t, c []measure.DNSReply) {
	for k := 1; k <= n; k++ {
		x, y := dnsQuestion("", measure.ExpNowhere, k, noResolver, site, t), dnsQuestion("", measure.ExpNowhere, k, noResolver, knownName, c)
		x.DNS.NoResolver, y.DNS.NoResolver = true, true
		y.ControlKind = measure.ControlKnown
		s.pair(y, x)
	}
}

func (s *scene) again(n int, t []measure.DNSReply) {
	for k := 1; k <= n; k++ {
		c := dnsQuestion("", measure.ExpQName, k, ispResolver, knownName, replies("NOERROR", "198.19.0.1"))
		c.ControlKind = measure.ControlKnown
		s.bracket(measure.StepTCP)
		s.pair(c, dnsQuestion("", measure.ExpQName, k, ispResolver, site, t))
		s.bracket(measure.StepTCP)
	}
}

// Public addresses that belong to no special block.
const (
	truth   = "185.199.108.153"
	truthAt = truth + ":443"
	fake    = "93.184.216.34"
	fakeAt  = fake + ":443"
)

func TestNames(t *testing.T) {
	start := func(system string) *scene {
		s := newScene("https://" + site + "/")
		s.resolved(system, truth)
		return s
	}
	denied := func(f measure.Failure) *scene {
		s := newScene("https://" + site + "/")
		c := s.add(measure.Observation{Step: measure.StepDNS, Role: measure.RoleControl, Stage: measure.StageScreen, Experiment: measure.ExpResolver,
			DNS: &measure.DNS{Name: site, Type: "A", Transport: "https", Replies: replies("NOERROR", truth)}}).ID
		s.add(measure.Observation{Step: measure.StepDNS, Role: measure.RoleTest, Stage: measure.StageScreen, Experiment: measure.ExpResolver, Control: c, Failure: f,
			DNS: &measure.DNS{Name: site, Type: "A+AAAA", Transport: "system"}})
		return s
	}
	for _, c := range []struct {
		name  string
		build func() *scene
		want  want
	}{
		{"an answer from where no resolver is", func() *scene {
			s := start("10.10.34.35")
			s.nowhere(2, replies("NOERROR", "10.10.34.35"), nil)
			return s
		}, want{"", measure.InterferenceConfirmed, measure.DNSInjection, "qname", "nowhere", ""}},
		{"everything to port 53 is answered", func() *scene {
			s := start(fake)
			s.nowhere(2, replies("NOERROR", fake), replies("NOERROR", "198.19.0.1"))
			return s
		}, want{"", measure.InterferenceConfirmed, measure.DNSInterception, "port", "nowhere", measure.WhyLocalNetwork}},
		{"a private address where another is proven", func() *scene {
			s := start("10.10.34.35")
			s.identity(truthAt, "")
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.DNSResolverLie, "qname", "artefact+identity", ""}},
		{"twin: a private address that every resolver gives", func() *scene {
			s := newScene("https://" + site + "/")
			s.resolved("10.1.2.3", "10.1.2.3")
			s.visit("10.1.2.3:443", "")
			return s
		}, want{reach: measure.ReachableYes, interference: measure.InterferenceNone}},
		{"another name's certificate there, the true one at the other address", func() *scene {
			s := start(fake)
			s.add(strange(*s.identity(fakeAt, "")))
			s.m.Observations = append(s.m.Observations[:len(s.m.Observations)-2], s.m.Observations[len(s.m.Observations)-1])
			s.identity(truthAt, "")
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.DNSResolverLie, "qname", "identity", ""}},
		{"twin: other addresses by place, and this one verifies", func() *scene {
			s := start(fake)
			s.visit(fakeAt, "")
			s.identity(truthAt, "")
			return s
		}, want{reach: measure.ReachableYes, interference: measure.InterferenceNone}},
		{"twin: other addresses and silence at the system's", func() *scene {
			s := start(fake)
			s.visit(fakeAt, measure.GenericTimeout)
			s.identity(truthAt, "")
			return s
		}, want{interference: measure.InterferenceSuspected, method: measure.TLSDrop}},
		{"sets that differ prove nothing", func() *scene { return start(fake) },
			want{interference: measure.InterferenceUnknown}},
		{"denied while the site is proven", func() *scene {
			s := denied(measure.DNSNXDomain)
			s.identity(truthAt, "")
			s.again(2, replies("NXDOMAIN"))
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.DNSNXDomainLie, "qname", "pairs+identity", ""}},
		{"twin: denied once and not again", func() *scene {
			s := denied(measure.DNSNXDomain)
			s.visit(truthAt, "")
			s.again(3, replies("NOERROR", truth))
			return s
		}, want{interference: measure.InterferenceNone}},
		{"twin: nobody knows the name", func() *scene {
			s := newScene("https://" + site + "/")
			for _, transport := range []string{"https", "system"} {
				o := measure.Observation{Step: measure.StepDNS, Role: measure.RoleTest, Stage: measure.StageScreen, Experiment: measure.ExpResolver, Failure: measure.DNSNXDomain,
					DNS: &measure.DNS{Name: site, Type: "A", Transport: transport}}
				if transport == "https" {
					o.Role = measure.RoleControl
				}
				s.add(o)
			}
			return s
		}, want{reach: measure.ReachableNo, interference: measure.InterferenceUnknown, why: measure.WhySiteDown}},
		{"silence to this name only", func() *scene {
			s := denied(measure.GenericTimeout)
			s.identity(truthAt, "")
			s.again(6, nil)
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.DNSDrop, "qname", "pairs+identity", ""}},
		{"twin: silence once", func() *scene {
			s := denied(measure.GenericTimeout)
			s.identity(truthAt, "")
			return s
		}, want{measure.ReachableNo, measure.InterferenceSuspected, measure.DNSDrop, "qname", "", measure.WhyNoControl}},
		{"two answers to one question, one of them proven", func() *scene {
			s := start(truth)
			o := dnsQuestion(measure.RoleTest, measure.ExpResolver, 0, ispResolver, site, append(replies("NOERROR", "10.10.34.35"), replies("NOERROR", truth)...))
			o.Stage = measure.StageScreen
			s.add(o)
			s.visit(truthAt, "")
			return s
		}, want{"", measure.InterferenceConfirmed, measure.DNSInjection, "qname", "identity", ""}},
		{"twin: two answers of one set, both proven", func() *scene {
			s := start(truth)
			o := dnsQuestion(measure.RoleTest, measure.ExpResolver, 0, ispResolver, site, append(replies("NOERROR", fake), replies("NOERROR", truth)...))
			o.Stage = measure.StageScreen
			s.add(o)
			s.visit(truthAt, "")
			s.identity(fakeAt, "")
			return s
		}, want{reach: measure.ReachableYes, interference: measure.InterferenceNone}},
		{"open resolvers give the lie too", func() *scene {
			s := start("10.10.34.35")
			s.add(dnsQuestion(measure.RoleTest, measure.ExpResolver, 1, "8.8.8.8:53", site, replies("NOERROR", "10.10.34.35")))
			s.identity(truthAt, "")
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.DNSInjection, "qname", "artefact+identity", ""}},
		{"a filter that somebody here chose", func() *scene {
			s := start("146.112.61.106")
			s.identity(truthAt, "")
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.DNSResolverLie, "qname", "artefact+identity", ""}},
	} {
		t.Run(c.name, func(t *testing.T) { check(t, c.build().judge(), c.want) })
	}
}

func TestAddresses(t *testing.T) {
	rounds := func(s *scene, n int, f, c measure.Failure) {
		for k := 1; k <= n; k++ {
			x := measure.Observation{Step: measure.StepTCP, Stage: measure.StageConfirm, Experiment: measure.ExpAddress, Pair: k, Remote: siteAt, Failure: f}
			y := measure.Observation{Step: measure.StepTCP, Stage: measure.StageConfirm, Experiment: measure.ExpAddress, Pair: k, Remote: sitePort, Failure: c, ControlKind: measure.ControlPort}
			s.round(measure.StepTCP, y, x)
		}
	}
	start := func(f measure.Failure) *scene {
		s := newScene("https://" + site + "/")
		s.resolved("198.18.7.7", "198.18.7.7")
		s.add(measure.Observation{Step: measure.StepTCP, Role: measure.RoleTest, Stage: measure.StageScreen, Remote: siteAt, Failure: f})
		return s
	}
	for _, c := range []struct {
		name  string
		build func() *scene
		want  want
	}{
		{"no helper", func() *scene {
			s := start(measure.GenericTimeout)
			rounds(s, 6, measure.GenericTimeout, measure.GenericTimeout)
			return s
		}, want{measure.ReachableNo, measure.InterferenceSuspected, measure.IPDrop, "address", "", measure.WhyNoHelper}},
		{"a helper connects to that very address", func() *scene {
			s := start(measure.GenericTimeout)
			s.helped(helper1, siteAt, 64600, "", "")
			rounds(s, 6, measure.GenericTimeout, measure.GenericTimeout)
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.IPDrop, "address", "pairs+helper", ""}},
		{"twin: another helper cannot connect: the server may turn networks away, or a helper lies", func() *scene {
			s := start(measure.GenericTimeout)
			s.helped(helper1, siteAt, 64600, "", "")
			s.helped(helper2, siteAt, 64601, measure.GenericTimeout, "")
			rounds(s, 6, measure.GenericTimeout, measure.GenericTimeout)
			return s
		}, want{measure.ReachableNo, measure.InterferenceSuspected, measure.IPDrop, "address", "", measure.WhyHelperDisagrees}},
		{"twin: the canaries after it had to ask again", func() *scene {
			s := start(measure.GenericTimeout)
			s.helped(helper1, siteAt, 64600, "", "")
			rounds(s, 6, measure.GenericTimeout, measure.GenericTimeout)
			s.m.View.TCPInfo = true
			for i := range s.m.Observations {
				if o := &s.m.Observations[i]; o.Role == measure.RoleCanary {
					o.TCP = &measure.TCP{Retransmits: 1}
				}
			}
			return s
		}, want{reach: measure.ReachableNo, interference: measure.InterferenceUnknown, why: measure.WhyNoCanary}},
		{"one canary that had to ask again met a loss", func() *scene {
			s := start(measure.GenericTimeout)
			s.helped(helper1, siteAt, 64600, "", "")
			rounds(s, 6, measure.GenericTimeout, measure.GenericTimeout)
			s.m.View.TCPInfo = true
			for i := range s.m.Observations {
				if o := &s.m.Observations[i]; o.Role == measure.RoleCanary && o.ASN == 64500 {
					o.TCP = &measure.TCP{Retransmits: 1}
				}
			}
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.IPDrop, "address", "pairs+helper", ""}},
		{"twin: once in five, and then it is reached", func() *scene {
			s := start(measure.GenericTimeout)
			rounds(s, 1, measure.GenericTimeout, measure.GenericTimeout)
			rounds(s, 4, "", "")
			s.visit(siteAt, "")
			return s
		}, want{reach: measure.ReachableYes, interference: measure.InterferenceNone}},
		{"only the port", func() *scene {
			s := start(measure.ConnectionReset)
			s.helped(helper1, siteAt, 64600, "", "")
			rounds(s, 6, measure.ConnectionReset, "")
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.IPReset, "port", "pairs+helper", ""}},
		{"twin: one helper fails too", func() *scene {
			s := start(measure.GenericTimeout)
			s.helped(helper1, siteAt, 64600, measure.GenericTimeout, "")
			rounds(s, 3, measure.GenericTimeout, measure.GenericTimeout)
			return s
		}, want{reach: measure.ReachableNo, interference: measure.InterferenceUnknown, method: measure.SiteDown, why: measure.WhySiteDown}},
		{"twin: helpers of two networks fail too", func() *scene {
			s := start(measure.ConnectionRefused)
			s.helped(helper1, siteAt, 64600, measure.ConnectionRefused, "")
			s.helped(helper2, siteAt, 64601, measure.ConnectionRefused, "")
			return s
		}, want{measure.ReachableNo, measure.InterferenceNone, measure.SiteDown, "address", "helpers", ""}},
		{"twin: two helpers in one network are one", func() *scene {
			s := start(measure.ConnectionRefused)
			s.helped(helper1, siteAt, 64600, measure.ConnectionRefused, "")
			s.helped(helper2, siteAt, 64600, measure.ConnectionRefused, "")
			return s
		}, want{reach: measure.ReachableNo, interference: measure.InterferenceUnknown, method: measure.SiteDown}},
		{"twin: the second try connects", func() *scene {
			s := start(measure.GenericTimeout)
			s.visit(siteAt, "")
			return s
		}, want{reach: measure.ReachableYes, interference: measure.InterferenceNone}},
	} {
		t.Run(c.name, func(t *testing.T) { check(t, c.build().judge(), c.want) })
	}
}
