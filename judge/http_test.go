package judge

import (
	"testing"

	"govah/known"
	"govah/measure"
)

func plain(exp measure.Experiment, k int, at, host string, f measure.Failure, h measure.HTTP) measure.Observation {
	o := measure.Observation{Step: measure.StepHTTP, Stage: measure.StageConfirm, Experiment: exp, Pair: k, Remote: at, Host: host, URL: "http://" + host + "/", Failure: f}
	h.Method = "GET"
	o.HTTP = &h
	return o
}

var (
	page     = measure.HTTP{Status: 200, BodySHA256: "11", Simhash: "0000000000000000", Title: "The site"}
	notFound = measure.HTTP{Status: 404, BodySHA256: "22", Simhash: "ffffffffffffffff"}
	sorry    = measure.HTTP{Status: 403, BodySHA256: "33", Simhash: "ff00ff00ff00ff00", Title: "Sorry"}
)

// blocked is an answer that carries a sure signature of a block page.
func blocked(t *testing.T) measure.HTTP {
	for _, s := range known.Signatures() {
		if s.Kind == "blockpage" && s.Confidence >= 9 && s.Where == "body" {
			return measure.HTTP{Status: 200, BodySHA256: "44", Simhash: "f0f0f0f0f0f0f0f0", Matches: []measure.Match{{Row: s.ID, Kind: s.Kind, Where: s.Where, Country: s.Country, Scope: s.Scope}}}
		}
	}
	t.Fatal("no row to test with")
	return measure.HTTP{}
}

func TestPlainRequests(t *testing.T) {
	const far2 = "198.19.5.2:80"
	const far1 = "198.19.5.1:80"
	start := func(h measure.HTTP, f measure.Failure) *scene {
		s := newScene("http://" + site + "/")
		s.resolved("198.18.7.7", "198.18.7.7")
		o := plain("", 0, sitePort, site, f, h)
		o.Role, o.Stage = measure.RoleTest, measure.StageScreen
		s.add(o)
		return s
	}
	rounds := func(s *scene, n int, exp measure.Experiment, ats []string, f measure.Failure, h measure.HTTP) {
		for k := 1; k <= n; k++ {
			at := ats[k%len(ats)]
			s.round(measure.StepHTTP, plain(exp, k, at, randomName, "", notFound), plain(exp, k, at, site, f, h))
		}
	}
	// headers: of the page as it came here and to a helper, and of the helper's
	// own page.
	headers := func(here, there, fixed []measure.Header) *scene {
		p := page
		p.Headers = here
		s := start(p, "")
		o := plain("", 0, sitePort, site, "", page)
		o.HTTP.Headers = append([]measure.Header{{Name: "Server", Value: "x"}}, there...)
		o.Role, o.Helper = measure.RoleHelper, helper1
		s.add(o)
		o = plain(measure.ExpPlain, 0, "198.19.77.1:80", site, "", measure.HTTP{Status: 200, BodySHA256: measure.HelperPlainSHA256, Headers: fixed})
		o.Role, o.Stage = measure.RoleTest, measure.StageScreen
		s.add(o)
		return s
	}
	// known is another name that is not at home at an unrelated server, as
	// answered there.
	known := func(s *scene, k int, at string, h measure.HTTP) *scene {
		o := plain(measure.ExpHostElsewhere, k, at, knownName, "", h)
		o.Role, o.ControlKind = measure.RoleControl, measure.ControlKnown
		s.add(o)
		return s
	}
	cached := []measure.Header{{Name: "X-Cache-Lookup", Value: "MISS from proxy:3128"}}
	tracking := []measure.Header{{Name: "X-Subscriber", Value: "0123"}}
	date := []measure.Header{{Name: "Date", Value: "Mon, 01 Jun 2026 12:00:00 GMT"}}
	block := blocked(t)
	for _, c := range []struct {
		name  string
		build func() *scene
		want  want
	}{
		{"an answer that nothing contradicts", func() *scene { return start(page, "") },
			want{reach: measure.ReachableYes, interference: measure.InterferenceNone}},
		{"reset by Host, here and elsewhere", func() *scene {
			s := start(measure.HTTP{}, measure.ConnectionReset)
			rounds(s, 5, measure.ExpHost, []string{sitePort}, measure.ConnectionReset, measure.HTTP{})
			rounds(s, 5, measure.ExpHostElsewhere, []string{far1}, measure.ConnectionReset, measure.HTTP{})
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.HTTPReset, "host", "pairs+elsewhere", ""}},
		{"twin: the server resets its own Host", func() *scene {
			s := start(measure.HTTP{}, measure.ConnectionReset)
			rounds(s, 5, measure.ExpHost, []string{sitePort}, measure.ConnectionReset, measure.HTTP{})
			rounds(s, 5, measure.ExpHostElsewhere, []string{far1}, "", notFound)
			return s
		}, want{measure.ReachableNo, measure.InterferenceSuspected, measure.HTTPReset, "host", "", measure.WhyServerRefuses}},
		{"swallowed by Host elsewhere", func() *scene {
			s := start(measure.HTTP{}, measure.GenericTimeout)
			rounds(s, 5, measure.ExpHostElsewhere, []string{far1, far2}, measure.GenericTimeout, measure.HTTP{})
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.HTTPDrop, "host", "pairs+elsewhere", ""}},
		{"an unknown page, the same at two unrelated servers", func() *scene {
			s := start(sorry, "")
			rounds(s, 6, measure.ExpHostElsewhere, []string{far1, far2}, "", sorry)
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.HTTPBlockPage, "host", "pairs+elsewhere", ""}},
		{"twin: another name, too, is answered there by a page of its own", func() *scene {
			s := start(sorry, "")
			rounds(s, 6, measure.ExpHostElsewhere, []string{far1, far2}, "", sorry)
			return known(s, 1, far2, page)
		}, want{reach: measure.ReachableYes, interference: measure.InterferenceNone}},
		{"another name is answered there as any", func() *scene {
			s := start(sorry, "")
			rounds(s, 6, measure.ExpHostElsewhere, []string{far1, far2}, "", sorry)
			return known(s, 1, far2, notFound)
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.HTTPBlockPage, "host", "pairs+elsewhere", ""}},
		{"a known block page stays one where a proxy goes by the Host", func() *scene {
			s := start(block, "")
			rounds(s, 6, measure.ExpHostElsewhere, []string{far1, far2}, "", block)
			return known(s, 1, far2, page)
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.HTTPBlockPage, "host", "artefact+elsewhere", ""}},
		{"twin: a helper got the same page", func() *scene {
			s := start(sorry, "")
			rounds(s, 6, measure.ExpHostElsewhere, []string{far1, far2}, "", sorry)
			o := plain("", 0, sitePort, site, "", sorry)
			o.Role, o.Helper = measure.RoleHelper, helper1
			s.add(o)
			return s
		}, want{interference: measure.InterferenceNone}},
		{"twin: one unrelated server knows the name", func() *scene {
			s := start(page, "")
			rounds(s, 6, measure.ExpHostElsewhere, []string{far1}, "", page)
			return s
		}, want{interference: measure.InterferenceSuspected, method: measure.HTTPBlockPage}},
		{"redirected to another name, by two unrelated servers", func() *scene {
			away := measure.HTTP{Status: 302, Location: "http://blocked.example/?why"}
			s := start(away, "")
			rounds(s, 6, measure.ExpHostElsewhere, []string{far1, far2}, "", away)
			return s
		}, want{"", measure.InterferenceConfirmed, measure.HTTPRedirect, "host", "pairs+elsewhere", ""}},
		{"a known block page, not for the control", func() *scene {
			s := start(block, "")
			c, x := plain(measure.ExpHostElsewhere, 0, far1, randomName, "", notFound), plain(measure.ExpHostElsewhere, 0, far1, site, "", block)
			c.Stage, x.Stage = measure.StageScreen, measure.StageScreen
			s.pair(c, x)
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.HTTPBlockPage, "host", "artefact+elsewhere", ""}},
		{"a known block page where the encrypted twin shows the site", func() *scene {
			s := start(block, "")
			y := page
			y.Authenticated = true
			c := plain(measure.ExpHTTPS, 0, siteAt, site, "", y)
			c.Role, c.Stage, c.URL = measure.RoleControl, measure.StageScreen, "https://"+site+"/"
			id := s.add(c).ID
			o := &s.m.Observations[2]
			o.Experiment, o.Control = measure.ExpHTTPS, id
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.HTTPBlockPage, "host", "artefact+https", ""}},
		{"twin: the site itself, encrypted, carries that text", func() *scene {
			s := start(block, "")
			y := block
			y.Authenticated = true
			c := plain(measure.ExpHTTPS, 0, siteAt, site, "", y)
			c.Role, c.Stage, c.URL = measure.RoleControl, measure.StageScreen, "https://"+site+"/"
			id := s.add(c).ID
			o := &s.m.Observations[2]
			o.Experiment, o.Control = measure.ExpHTTPS, id
			return s
		}, want{reach: measure.ReachableYes, interference: measure.InterferenceNone}},
		{"twin: a block page to every Host", func() *scene {
			s := start(block, "")
			c, x := plain(measure.ExpHostElsewhere, 0, far1, randomName, "", block), plain(measure.ExpHostElsewhere, 0, far1, site, "", block)
			c.Stage, x.Stage = measure.StageScreen, measure.StageScreen
			s.pair(c, x)
			return s
		}, want{interference: measure.InterferenceSuspected, method: measure.HTTPBlockPage}},
		{"a path is reset that a helper fetches", func() *scene {
			s := start(measure.HTTP{}, measure.ConnectionReset)
			h := plain("", 0, sitePort, site, "", page)
			h.Role, h.Helper, h.Stage = measure.RoleHelper, helper1, ""
			s.add(h)
			for k := 1; k <= 5; k++ {
				c, x := plain(measure.ExpURL, k, sitePort, site, "", notFound), plain(measure.ExpURL, k, sitePort, site, measure.ConnectionReset, measure.HTTP{})
				c.URL, x.URL = "http://"+site+"/qqqqqq", "http://"+site+"/banned"
				s.round(measure.StepHTTP, c, x)
			}
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.HTTPReset, "url", "pairs+helper", ""}},
		{"a helper's fixed body came changed", func() *scene {
			s := start(page, "")
			o := plain(measure.ExpPlain, 0, "198.19.77.1:80", site, "", measure.HTTP{Status: 200, BodySHA256: "99", BodyBytes: measure.HelperPlainBytes + 80})
			o.Role, o.Stage = measure.RoleTest, measure.StageScreen
			s.add(o)
			return s
		}, want{"", measure.InterferenceConfirmed, measure.HTTPTamper, "host", "plain", measure.WhyLocalNetwork}},
		{"a header was added to two pages on the way", func() *scene { return headers(tracking, nil, tracking) },
			want{"", measure.InterferenceConfirmed, measure.HTTPTamper, "host", "plain+helper", measure.WhyLocalNetwork}},
		{"a proxy's own header was added to two pages on the way", func() *scene { return headers(cached, nil, cached) },
			want{"", measure.InterferenceConfirmed, measure.HTTPProxy, "port", "plain+helper", measure.WhyLocalNetwork}},
		{"twin: the site sends it to everybody", func() *scene { return headers(tracking, tracking, tracking) },
			want{reach: measure.ReachableYes, interference: measure.InterferenceNone}},
		{"twin: only the helper's page has it", func() *scene { return headers(nil, nil, tracking) },
			want{reach: measure.ReachableYes, interference: measure.InterferenceNone}},
		{"twin: two clocks agree", func() *scene { return headers(date, nil, date) },
			want{reach: measure.ReachableYes, interference: measure.InterferenceNone}},
		{"twin: it came as it is", func() *scene {
			s := start(page, "")
			o := plain(measure.ExpPlain, 0, "198.19.77.1:80", site, "", measure.HTTP{Status: 200, BodySHA256: measure.HelperPlainSHA256, BodyBytes: measure.HelperPlainBytes})
			o.Role, o.Stage = measure.RoleTest, measure.StageScreen
			s.add(o)
			return s
		}, want{reach: measure.ReachableYes, interference: measure.InterferenceNone}},
	} {
		t.Run(c.name, func(t *testing.T) { check(t, c.build().judge(), c.want) })
	}
}

func TestServerRefuses(t *testing.T) {
	s := newScene("https://" + site + "/")
	s.resolved("198.18.7.7", "198.18.7.7")
	s.visit(siteAt, "")
	h := s.m.Observations[len(s.m.Observations)-1].HTTP
	for _, status := range []int{403, 451} {
		h.Status = status
		check(t, s.judge(), want{measure.ReachableNo, measure.InterferenceNone, measure.ServerRefusal, "client", "authenticated", ""})
	}
	h.Status = 200
	check(t, s.judge(), want{reach: measure.ReachableYes, interference: measure.InterferenceNone})
	h.Status, h.Authenticated = 403, false
	if v := s.judge(); v.Interference != measure.InterferenceUnknown {
		t.Errorf("a refusal that nobody signed: %s", v.Interference)
	}
}

func TestAfterTheHandshake(t *testing.T) {
	start := func() *scene {
		s := newScene("https://" + site + "/")
		s.resolved("198.18.7.7", "198.18.7.7")
		s.visit(siteAt, "")
		o := &s.m.Observations[len(s.m.Observations)-1]
		o.Failure, o.HTTP = measure.GenericTimeout, &measure.HTTP{Method: "GET", Status: 200, BodyBytes: 14000}
		return s
	}
	// request is a request inside TLS at an address, under a name.
	request := func(s *scene, role measure.Role, exp measure.Experiment, k int, at, sni string, f measure.Failure, bytes int64) measure.Observation {
		h := strange(hello(role, exp, k, at, sni, ""))
		h.Experiment = ""
		h.Role = role
		id := s.add(h).ID
		o := measure.Observation{Step: measure.StepHTTP, Stage: measure.StageConfirm, Experiment: exp, Pair: k, Remote: at, After: id, Host: site, URL: "https://" + site + "/", Failure: f,
			HTTP: &measure.HTTP{Method: "GET", BodyBytes: bytes}}
		if bytes > 0 {
			o.HTTP.Status = 200
		}
		return o
	}
	bulk := func(s *scene, role measure.Role, k int, sni string, f measure.Failure, rate int64) measure.Observation {
		h := strange(hello(role, "", k, otherAt, sni, ""))
		h.Role = role
		id := s.add(h).ID
		return measure.Observation{Step: measure.StepStream, Stage: measure.StageConfirm, Experiment: measure.ExpBulk, Pair: k, Remote: otherAt, After: id, Failure: f, Differs: []string{"sni"},
			HTTP: &measure.HTTP{}, Stream: &measure.Stream{Bytes: 20000, BitsPerSecond: rate}}
	}
	for _, c := range []struct {
		name  string
		build func() *scene
		want  want
	}{
		{"frozen by name, here and elsewhere", func() *scene {
			s := start()
			for k := 1; k <= 5; k++ {
				s.bracket(measure.StepTLS)
				s.pair(request(s, measure.RoleControl, measure.ExpSNI, k, siteAt, randomName, "", 60000), request(s, measure.RoleTest, measure.ExpSNI, k, siteAt, site, measure.GenericTimeout, 14000))
				s.pair(request(s, measure.RoleControl, measure.ExpSNIElsewhere, k, otherAt, randomName, "", 900), request(s, measure.RoleTest, measure.ExpSNIElsewhere, k, otherAt, site, measure.GenericTimeout, 0))
				s.bracket(measure.StepTLS)
			}
			return s
		}, want{measure.ReachableNo, measure.InterferenceConfirmed, measure.Freeze, "sni", "pairs+elsewhere", ""}},
		{"twin: a slow server under any name", func() *scene {
			s := start()
			for k := 1; k <= 5; k++ {
				s.bracket(measure.StepTLS)
				s.pair(request(s, measure.RoleControl, measure.ExpSNI, k, siteAt, randomName, measure.GenericTimeout, 0), request(s, measure.RoleTest, measure.ExpSNI, k, siteAt, site, measure.GenericTimeout, 14000))
				s.bracket(measure.StepTLS)
			}
			return s
		}, want{reach: measure.ReachableNo, interference: measure.InterferenceUnknown}},
		{"throttled by name", func() *scene {
			s := start()
			s.m.Observations[len(s.m.Observations)-1].Failure = ""
			s.m.Observations[len(s.m.Observations)-1].HTTP.Authenticated = true
			for k := 1; k <= 6; k++ {
				s.bracket(measure.StepTLS)
				s.pair(bulk(s, measure.RoleControl, k, randomName, "", 8_000_000), bulk(s, measure.RoleTest, k, site, "", 128_000))
				s.bracket(measure.StepTLS)
			}
			return s
		}, want{measure.ReachableYes, measure.InterferenceConfirmed, measure.Throttle, "sni", "pairs+rate", ""}},
		{"twin: slow for all names", func() *scene {
			s := start()
			s.m.Observations[len(s.m.Observations)-1].Failure = ""
			s.m.Observations[len(s.m.Observations)-1].HTTP.Authenticated = true
			for k := 1; k <= 5; k++ {
				s.bracket(measure.StepTLS)
				s.pair(bulk(s, measure.RoleControl, k, randomName, "", 130_000), bulk(s, measure.RoleTest, k, site, "", 128_000))
				s.bracket(measure.StepTLS)
			}
			return s
		}, want{reach: measure.ReachableYes, interference: measure.InterferenceNone}},
	} {
		t.Run(c.name, func(t *testing.T) { check(t, c.build().judge(), c.want) })
	}
}

func TestQUIC(t *testing.T) {
	dgram := func(exp measure.Experiment, k int, at, sni string, ok bool) measure.Observation {
		o := measure.Observation{Step: measure.StepQUIC, Stage: measure.StageConfirm, Experiment: exp, Pair: k, Remote: at, SNI: sni, TLS: &measure.TLS{Alert: -1, ServerBytes: ok}}
		if !ok {
			o.Failure = measure.GenericTimeout
		}
		return o
	}
	start := func() *scene {
		s := newScene("https://" + site + "/")
		s.resolved("198.18.7.7", "198.18.7.7")
		s.visit(siteAt, "")
		o := dgram(measure.ExpQUIC, 0, siteAt, site, false)
		o.Role, o.Stage = measure.RoleTest, measure.StageScreen
		s.add(o)
		return s
	}
	s := start()
	for k := 1; k <= 5; k++ {
		s.bracket(measure.StepQUIC)
		s.pair(dgram(measure.ExpQUICSNI, k, siteAt, randomName, true), dgram(measure.ExpQUICSNI, k, siteAt, site, false))
		s.pair(dgram(measure.ExpQUICElsewhere, k, otherAt, randomName, true), dgram(measure.ExpQUICElsewhere, k, otherAt, site, false))
		s.bracket(measure.StepQUIC)
	}
	check(t, s.judge(), want{measure.ReachablePartly, measure.InterferenceConfirmed, measure.QUICDrop, "sni", "pairs+elsewhere", ""})

	s = start() // or the server only says that it speaks HTTP/3
	for k := 1; k <= 5; k++ {
		s.round(measure.StepQUIC, dgram(measure.ExpQUICSNI, k, siteAt, randomName, false), dgram(measure.ExpQUICSNI, k, siteAt, site, false))
	}
	check(t, s.judge(), want{reach: measure.ReachableYes, interference: measure.InterferenceUnknown})

	s = start()
	for i := range s.m.Canaries {
		if c := &s.m.Canaries[i]; c.Step == measure.StepQUIC {
			c.Failures = c.Runs
		}
	}
	check(t, s.judge(), want{measure.ReachablePartly, measure.InterferenceSuspected, measure.QUICDrop, "protocol", "", measure.WhyLocalNetwork})
}

func TestSurroundings(t *testing.T) {
	s := screenedSNI(measure.ConnectionReset)
	s.m.Vantage.Captive = true
	check(t, s.judge(), want{measure.ReachableUnknown, measure.InterferenceUnknown, measure.CaptivePortal, "", "portal", measure.WhyCaptive})

	s = screenedSNI(measure.ConnectionReset)
	s.m.Vantage.Tunnel = true
	check(t, s.judge(), want{interference: measure.InterferenceSuspected, method: measure.TLSReset, why: measure.WhyTunnel})

	s = screenedSNI(measure.GenericTimeout)
	for i := range s.m.Canaries {
		s.m.Canaries[i].Failures = s.m.Canaries[i].Runs
	}
	check(t, s.judge(), want{measure.ReachableNo, measure.InterferenceSuspected, measure.Shutdown, "protocol", "", measure.WhyNoCanary})
}
