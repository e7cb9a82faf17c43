package report

import (
	"fmt"
	"strconv"
	"strings"

	"govah/measure"
)

// The samples are measurements as measure/observation.go documents them, made
// by hand after what real networks did (IR-02, IR-15, RU throttling, …).

const sampleRunID = "r7f3a9c21"

func sampleRun() *measure.Run {
	return &measure.Run{Type: "run", Schema: 1, Run: sampleRunID, Tool: "govah", Version: "0.1.0", Started: "2026-11-23T08:00:01.204113Z",
		Targets: 12, Pace: "gentle", Helpers: []string{"https://helper.example.net/", "https://203.0.113.80:8443/"}}
}

// recorder strings observations together on one clock.
type recorder struct {
	m    *measure.Measurement
	now  int64
	next int
}

func record(id, target string) *recorder {
	return &recorder{m: &measure.Measurement{
		Type: "measurement", Schema: 1, Run: sampleRunID, ID: id, Target: target, Started: "2026-11-23T08:00:01.204113Z",
		Vantage:  measure.Vantage{ASN: 197207, Country: "IR", ASNSource: "helper", Network: "Mobile Communication Company of Iran", Link: "wifi", ClockOffsetMS: 12, ResolverASN: 197207, Geo: "dbip-2026-02"},
		View:     measure.View{SYNHop: true, DataError: true, SetTTL: true, TCPInfo: true, Lookup: true, SystemRoots: true, IPv4: true},
		Screened: 12, Complete: true,
		Canaries: []measure.Canary{{Step: measure.StepTLS, Family: measure.IPv4, Networks: 3, Runs: 18}},
	}}
}

// add records o after pause and gives its id.
func (r *recorder) add(pauseUS int64, o measure.Observation) string {
	r.next++
	o.ID = "o" + strconv.Itoa(r.next)
	r.now += pauseUS
	o.StartUS = r.now
	r.now += o.TookUS
	if o.Family == "" {
		o.Family = measure.IPv4
	}
	r.m.Observations = append(r.m.Observations, o)
	r.m.ElapsedMS = r.now / 1000
	r.m.BytesSent += o.Sent
	r.m.BytesReceived += o.Received
	return o.ID
}

func (r *recorder) entry(v measure.Verdict) Entry {
	v.Type, v.Schema, v.Run, v.Measurement, v.Rules, v.Target = "verdict", 1, sampleRunID, r.m.ID, "2026.1", r.m.Target
	v.ElapsedMS, v.BytesSent, v.BytesReceived = r.m.ElapsedMS, r.m.BytesSent, r.m.BytesReceived
	return Entry{Measurement: r.m, Verdict: &v}
}

func dns(name, transport, resolver string, tookUS int64, answers ...string) measure.Observation {
	o := measure.Observation{Step: measure.StepDNS, Role: measure.RoleTest, Stage: measure.StageScreen, Remote: resolver, TookUS: tookUS, Sent: 45,
		DNS: &measure.DNS{Name: name, Type: "A", Transport: transport, Resolver: resolver}}
	if len(answers) == 0 {
		o.Failure = measure.GenericTimeout
		return o
	}
	reply := measure.DNSReply{Rcode: "NOERROR"}
	for _, a := range answers {
		reply.Answers = append(reply.Answers, measure.DNSAnswer{Type: "A", Value: a, TTLS: 60})
	}
	o.DNS.Replies = []measure.DNSReply{reply}
	o.Received = 61
	return o
}

func tcp(remote string, tookUS int64, failure measure.Failure) measure.Observation {
	return measure.Observation{Step: measure.StepTCP, Role: measure.RoleTest, Stage: measure.StageScreen, Remote: remote, TookUS: tookUS, Failure: failure, TCP: &measure.TCP{RTTUS: tookUS}}
}

func tls(remote, sni string, tookUS int64, failure measure.Failure) measure.Observation {
	o := measure.Observation{Step: measure.StepTLS, Role: measure.RoleTest, Stage: measure.StageScreen, Remote: remote, SNI: sni, Hello: "chrome", TookUS: tookUS, Sent: 1790, Failure: failure, TLS: &measure.TLS{Alert: -1}}
	if failure == measure.NoFailure {
		o.Received = 4211
		o.TLS = &measure.TLS{Version: "TLSv1.3", Alert: -1, ServerBytes: true, Chain: []string{strings.Repeat("ab", 32)}, Public: measure.VerifiedOK, Subject: "CN=" + sni, Issuer: "CN=R11,O=Let's Encrypt,C=US", Names: []string{sni}}
	}
	return o
}

func page(url string, status int, tookUS int64) measure.Observation {
	return measure.Observation{Step: measure.StepHTTP, Role: measure.RoleTest, Stage: measure.StageScreen, URL: url, TookUS: tookUS, Sent: 420, Received: 68_400,
		HTTP: &measure.HTTP{Method: "GET", Proto: "HTTP/2.0", Status: status, Authenticated: strings.HasPrefix(url, "https"), BodyBytes: 67_002, FirstByteUS: tookUS / 2}}
}

func with(o measure.Observation, change func(*measure.Observation)) measure.Observation {
	change(&o)
	return o
}

func (r *recorder) canary() {
	for i, host := range []string{"192.0.2.10:443", "198.51.100.20:443", "203.0.113.30:443"} {
		r.add(5_000, with(tls(host, fmt.Sprintf("known%d.example", i+1), 62_000, ""), func(o *measure.Observation) {
			o.Role, o.Stage = measure.RoleCanary, measure.StageBracket
		}))
	}
}

// pairs records n test and control handshakes; the ids of both come back.
func (r *recorder) pairs(n int, exp measure.Experiment, remote, sni, control string, kind measure.ControlKind, fail measure.Failure, failUS int64) []string {
	var because []string
	for i := 1; i <= n; i++ {
		c := r.add(2_000_000, with(tcp(remote, 41_000, ""), func(o *measure.Observation) {
			o.Role, o.Stage, o.Experiment, o.Pair = measure.RoleControl, measure.StageConfirm, exp, i
		}))
		ct := r.add(300, with(tls(remote, control, 82_000, measure.TLSInvalidHostname), func(o *measure.Observation) {
			o.Role, o.Stage, o.Experiment, o.Pair, o.ControlKind, o.After = measure.RoleControl, measure.StageConfirm, exp, i, kind, c
			o.Received = 3902
			o.TLS = &measure.TLS{Alert: -1, ServerBytes: true, Chain: []string{strings.Repeat("cd", 32)}, Public: measure.VerifyWrongName, Issuer: "CN=R11,O=Let's Encrypt,C=US"}
		}))
		t := r.add(2_000_000, with(tcp(remote, 40_500, ""), func(o *measure.Observation) {
			o.Stage, o.Experiment, o.Pair = measure.StageConfirm, exp, i
		}))
		tt := r.add(300, with(tls(remote, sni, failUS, fail), func(o *measure.Observation) {
			o.Stage, o.Experiment, o.Pair, o.Control, o.Differs, o.After = measure.StageConfirm, exp, i, ct, []string{"sni"}, t
		}))
		because = append(because, tt, ct)
	}
	return because
}

func sampleTLSReset() Entry {
	r := record("m1", "https://telegram.org/")
	d := r.add(0, dns("telegram.org", "https", "", 95_000, "149.154.167.99"))
	c := r.add(500, with(tcp("149.154.167.99:443", 41_210, ""), func(o *measure.Observation) { o.After = d; o.ASN = 62041 }))
	r.add(300, with(tls("149.154.167.99:443", "telegram.org", 40_122, measure.ConnectionReset), func(o *measure.Observation) { o.After = c }))
	r.canary()
	because := r.pairs(5, measure.ExpSNI, "149.154.167.99:443", "telegram.org", "kqzvwyhm.org", measure.ControlRandom, measure.ConnectionReset, 24_800)
	r.canary()
	elsewhere := r.pairs(2, measure.ExpSNIElsewhere, "203.0.113.80:8443", "telegram.org", "kqzvwyhm.org", measure.ControlRandom, measure.ConnectionReset, 25_900)
	r.add(10_000, with(tls("149.154.167.99:443", "telegram.org", 51_000, ""), func(o *measure.Observation) {
		o.Role, o.Helper = measure.RoleHelper, "https://helper.example.net/"
	}))
	r.canary()
	return r.entry(measure.Verdict{Reachable: measure.ReachableNo, Interference: measure.InterferenceConfirmed, Findings: []measure.Finding{{
		ID: "f1", Method: measure.TLSReset, Interference: measure.InterferenceConfirmed, Layer: measure.StepTLS, Family: measure.IPv4, Scope: measure.ScopeUnknown,
		Trigger: measure.Trigger{Kind: "sni", Value: "telegram.org", Control: "kqzvwyhm.org"}, Runs: 7, Hits: 7, Controls: measure.Count{Runs: 7},
		Because: append(because, elsewhere...), Proof: "pairs+elsewhere",
	}}})
}

func sampleDNSInjection() Entry {
	r := record("m2", "https://www.instagram.com/")
	forged := dns("www.instagram.com", "system", "10.202.10.10:53", 9_200, "10.10.34.36")
	s := r.add(0, forged)
	doh := r.add(200, with(dns("www.instagram.com", "https", "", 120_000, "157.240.0.174"), func(o *measure.Observation) {
		o.Role, o.Experiment = measure.RoleControl, measure.ExpResolver
	}))
	r.m.Observations[0].Experiment, r.m.Observations[0].Control, r.m.Observations[0].Differs = measure.ExpResolver, doh, []string{"resolver"}
	because := []string{s, doh}
	for i := 1; i <= 3; i++ {
		c := r.add(1_000_000, with(dns("known1.example", "udp", "192.0.2.53:53", 3_000_000), func(o *measure.Observation) {
			o.Role, o.Stage, o.Experiment, o.Pair, o.ControlKind, o.DNS.NoResolver = measure.RoleControl, measure.StageConfirm, measure.ExpNowhere, i, measure.ControlKnown, true
		}))
		because = append(because, r.add(1_000_000, with(dns("www.instagram.com", "udp", "192.0.2.53:53", 1_000_000, "10.10.34.36"), func(o *measure.Observation) {
			o.Stage, o.Experiment, o.Pair, o.Control, o.Differs, o.DNS.NoResolver = measure.StageConfirm, measure.ExpNowhere, i, c, []string{"qname"}, true
			o.DNS.Replies[0].AtUS = r.now + 1_000_000 + 8_900
			second := o.DNS.Replies[0]
			second.AtUS += 40_000
			o.DNS.Replies = append(o.DNS.Replies, second)
		})), c)
	}
	c := r.add(100_000, tcp("157.240.0.174:443", 44_000, ""))
	id := r.add(200, with(tls("157.240.0.174:443", "www.instagram.com", 90_000, ""), func(o *measure.Observation) {
		o.Experiment, o.Stage, o.After = measure.ExpIdentity, measure.StageConfirm, c
	}))
	return r.entry(measure.Verdict{Reachable: measure.ReachablePartly, Interference: measure.InterferenceConfirmed, Findings: []measure.Finding{{
		ID: "f1", Method: measure.DNSInjection, Interference: measure.InterferenceConfirmed, Layer: measure.StepDNS, Scope: measure.ScopeBeyond,
		Trigger: measure.Trigger{Kind: "qname", Value: "www.instagram.com", Control: "known1.example"}, Runs: 3, Hits: 3, Controls: measure.Count{Runs: 3},
		Because: append(because, id), Proof: "nowhere+identity",
		Match: &measure.Match{Row: "ir-10.10.34.36", Kind: "forged-address", Where: "dns", Country: "IR"},
	}}})
}

func sampleBlockPage() Entry {
	r := record("m3", "http://bbc.example/persian")
	c := r.add(0, tcp("192.0.2.44:80", 38_000, ""))
	t := r.add(300, with(page("http://bbc.example/persian", 403, 12_000), func(o *measure.Observation) {
		o.After, o.Host, o.Remote, o.Experiment, o.Control, o.Differs = c, "bbc.example", "192.0.2.44:80", measure.ExpHTTPS, "o4", []string{"tls"}
		o.Received = 402
		o.HTTP = &measure.HTTP{Method: "GET", Proto: "HTTP/1.1", Status: 403, Title: "پیوندها\u202e <M6-7>", BodyBytes: 337, FirstByteUS: 11_800,
			Matches: []measure.Match{{Row: "ir-iframe-10.10", Kind: "blockpage", Where: "body"}}}
	}))
	c2 := r.add(1000, tcp("192.0.2.44:443", 38_400, ""))
	_ = c2
	h := r.add(300, with(page("https://bbc.example/persian", 200, 140_000), func(o *measure.Observation) {
		o.Role, o.Host, o.Remote, o.Experiment = measure.RoleControl, "bbc.example", "192.0.2.44:443", measure.ExpHTTPS
		o.HTTP.Title = "بی\u200cبی\u200cسی"
	}))
	return r.entry(measure.Verdict{Reachable: measure.ReachablePartly, Interference: measure.InterferenceConfirmed, Findings: []measure.Finding{{
		ID: "f1", Method: measure.HTTPBlockPage, Interference: measure.InterferenceConfirmed, Layer: measure.StepHTTP, Family: measure.IPv4, Scope: measure.ScopeOperator,
		Trigger: measure.Trigger{Kind: "host", Value: "bbc.example"}, Runs: 1, Hits: 1, Because: []string{t, h}, Proof: "artefact",
		Match: &measure.Match{Row: "ir-iframe-10.10", Kind: "blockpage", Where: "body", Product: "Iranian national filter"},
	}}})
}

func sampleThrottle() Entry {
	r := record("m4", "https://video.example/")
	var because []string
	for i := 1; i <= 3; i++ {
		stream := func(bits int64, samples ...int64) *measure.Stream {
			var n int64
			for _, s := range samples {
				n += s
			}
			return &measure.Stream{Bytes: n, BitsPerSecond: bits, IntervalUS: 250_000, Samples: samples}
		}
		c := r.add(2_000_000, measure.Observation{Step: measure.StepStream, Role: measure.RoleControl, ControlKind: measure.ControlRandom, Stage: measure.StageConfirm, Experiment: measure.ExpBulk, Pair: i,
			Remote: "203.0.113.80:8443", SNI: "qwhzmkpd.example", TookUS: 900_000, Sent: 500, Received: 1_048_576, Stream: stream(9_300_000, 190_000, 330_000, 380_000, 148_576)})
		because = append(because, r.add(2_000_000, measure.Observation{Step: measure.StepStream, Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpBulk, Pair: i, Control: c, Differs: []string{"sni"},
			Remote: "203.0.113.80:8443", SNI: "video.example", TookUS: 4_000_000, Sent: 500, Received: 64_000,
			Stream: stream(128_000, 12_000, 4_000, 4_000, 4_000, 3_800, 4_100, 4_000, 4_000, 0, 8_000, 4_100, 4_000, 0, 0, 4_000, 4_000)}), c)
	}
	return r.entry(measure.Verdict{Reachable: measure.ReachableYes, Interference: measure.InterferenceConfirmed, Findings: []measure.Finding{{
		ID: "f1", Method: measure.Throttle, Interference: measure.InterferenceConfirmed, Layer: measure.StepStream, Family: measure.IPv4, Scope: measure.ScopeOperator,
		Trigger: measure.Trigger{Kind: "sni", Value: "video.example", Control: "qwhzmkpd.example"}, Runs: 3, Hits: 3, Controls: measure.Count{Runs: 3},
		Because: because, Proof: "rate", NotExcluded: []measure.Why{measure.WhyIntermittent},
	}}})
}

func sampleSuspectedDrop() Entry {
	r := record("m5", "https://voa.example/")
	d := r.add(0, dns("voa.example", "https", "", 88_000, "198.51.100.7"))
	t := r.add(500, with(tcp("198.51.100.7:443", 3_300_000, measure.GenericTimeout), func(o *measure.Observation) {
		o.After, o.Experiment, o.Control, o.Differs = d, measure.ExpAddress, "o3", []string{"address"}
		o.TCP.Retransmits = 2
	}))
	r.add(0, with(tcp("192.0.2.10:443", 42_000, ""), func(o *measure.Observation) {
		o.Role, o.ControlKind, o.Experiment = measure.RoleControl, measure.ControlCanary, measure.ExpAddress
		o.StartUS = 88_500
	}))
	r.m.Observations[2].StartUS = r.m.Observations[1].StartUS
	return r.entry(measure.Verdict{Reachable: measure.ReachableNo, Interference: measure.InterferenceSuspected, Findings: []measure.Finding{{
		ID: "f1", Method: measure.IPDrop, Interference: measure.InterferenceSuspected, Layer: measure.StepTCP, Family: measure.IPv4, Scope: measure.ScopeUnknown,
		Trigger: measure.Trigger{Kind: "address", Value: "198.51.100.7", Control: "192.0.2.10"}, Runs: 1, Hits: 1, Controls: measure.Count{Runs: 1},
		Because: []string{t, "o3"}, NotExcluded: []measure.Why{measure.WhySiteDown, measure.WhyServerRefuses},
	}}, Unknown: []measure.Why{measure.WhyNoHelper, measure.WhySingleSample}})
}

func sampleUnknown() Entry {
	r := record("m6", "https://radio.example/live?stream=1&quality=high#a-rather-long-address-that-does-not-fit-into-one-line-of-a-terminal")
	d := r.add(0, dns("radio.example", "system", "10.202.10.10:53", 12_000, "192.0.2.90"))
	c := r.add(500, with(tcp("192.0.2.90:443", 46_000, ""), func(o *measure.Observation) { o.After = d }))
	r.add(300, with(tls("192.0.2.90:443", "radio.example", 6_000_000, measure.GenericTimeout), func(o *measure.Observation) { o.After = c }))
	r.add(300, with(tls("192.0.2.10:443", "known1.example", 6_000_000, measure.GenericTimeout), func(o *measure.Observation) {
		o.Role, o.Stage = measure.RoleCanary, measure.StageBracket
	}))
	return r.entry(measure.Verdict{Reachable: measure.ReachableNo, Interference: measure.InterferenceUnknown, Unknown: []measure.Why{measure.WhyNoCanary, measure.WhyLoss}})
}

func sampleSiteDown() Entry {
	r := record("m7", "https://closed.example/")
	d := r.add(0, dns("closed.example", "https", "", 91_000, "198.51.100.99"))
	t := r.add(500, with(tcp("198.51.100.99:443", 43_000, measure.ConnectionRefused), func(o *measure.Observation) { o.After = d }))
	because := []string{t}
	for _, helper := range []string{"https://helper.example.net/", "https://203.0.113.80:8443/"} {
		because = append(because, r.add(1000, with(tcp("198.51.100.99:443", 30_000, measure.ConnectionRefused), func(o *measure.Observation) {
			o.Role, o.Helper = measure.RoleHelper, helper
		})))
	}
	return r.entry(measure.Verdict{Reachable: measure.ReachableNo, Interference: measure.InterferenceNone, Findings: []measure.Finding{{
		ID: "f1", Method: measure.SiteDown, Interference: measure.InterferenceConfirmed, Layer: measure.StepTCP, Family: measure.IPv4, Scope: measure.ScopeUnknown,
		Runs: 2, Hits: 2, Because: because, Proof: "helpers",
	}}})
}

func sampleRefusal() Entry {
	r := record("m8", "https://shop.example/")
	d := r.add(0, dns("shop.example", "https", "", 70_000, "203.0.113.200"))
	c := r.add(500, with(tcp("203.0.113.200:443", 44_000, ""), func(o *measure.Observation) { o.After = d }))
	s := r.add(300, with(tls("203.0.113.200:443", "shop.example", 88_000, ""), func(o *measure.Observation) { o.After = c }))
	h := r.add(300, with(page("https://shop.example/", 403, 60_000), func(o *measure.Observation) {
		o.After, o.Host = s, "shop.example"
		o.HTTP.Title = "Access denied in your country"
		o.HTTP.Matches = []measure.Match{{Row: "geoblock-1009", Kind: "geoblock", Where: "body"}}
	}))
	return r.entry(measure.Verdict{Reachable: measure.ReachableNo, Interference: measure.InterferenceNone, Findings: []measure.Finding{{
		ID: "f1", Method: measure.ServerRefusal, Interference: measure.InterferenceConfirmed, Layer: measure.StepHTTP, Family: measure.IPv4, Scope: measure.ScopeBeyond,
		Runs: 1, Hits: 1, Because: []string{h}, Proof: "authenticated", Match: &measure.Match{Row: "geoblock-1009", Kind: "geoblock", Where: "body"},
	}}})
}

func sampleCaptive() Entry {
	r := record("m9", "https://mail.example/")
	c := r.add(0, tcp("198.51.100.60:80", 4_000, ""))
	h := r.add(300, with(page("http://mail.example/", 302, 6_000), func(o *measure.Observation) {
		o.After, o.Host, o.Received = c, "mail.example", 300
		o.HTTP.Location, o.HTTP.BodyBytes = "http://login.hotel.example/?next=\x1b[31mhttp://mail.example/", 0
	}))
	return r.entry(measure.Verdict{Reachable: measure.ReachableUnknown, Interference: measure.InterferenceUnknown, Findings: []measure.Finding{{
		ID: "f1", Method: measure.CaptivePortal, Interference: measure.InterferenceConfirmed, Layer: measure.StepHTTP, Family: measure.IPv4, Scope: measure.ScopeLAN,
		Runs: 3, Hits: 3, Because: []string{h}, Proof: "portal",
	}}, Unknown: []measure.Why{measure.WhyCaptive}})
}

func sampleClean(id, host string) Entry {
	r := record(id, "https://"+host+"/")
	d := r.add(0, dns(host, "https", "", 80_000, "192.0.2.1", "192.0.2.2", "192.0.2.3"))
	c := r.add(500, with(tcp("192.0.2.1:443", 40_800, ""), func(o *measure.Observation) { o.After = d }))
	s := r.add(300, with(tls("192.0.2.1:443", host, 84_000, ""), func(o *measure.Observation) { o.After = c }))
	r.add(300, with(page("https://"+host+"/", 200, 160_000), func(o *measure.Observation) {
		o.After, o.Host, o.HTTP.Title = s, host, "A page"
	}))
	return r.entry(measure.Verdict{Reachable: measure.ReachableYes, Interference: measure.InterferenceNone, Findings: []measure.Finding{}})
}

func sampleInterception() Entry {
	r := record("m10", "https://bank.example/")
	c := r.add(0, tcp("192.0.2.150:443", 5_000, ""))
	t := r.add(300, with(tls("192.0.2.150:443", "bank.example", 9_000, measure.TLSUnknownAuthority), func(o *measure.Observation) {
		o.After = c
		o.Received = 1800
		o.TLS = &measure.TLS{Alert: -1, ServerBytes: true, Chain: []string{strings.Repeat("ef", 32)}, Public: measure.VerifyUnknownCA, Issuer: "CN=\u202eFortiGate CA <script>alert(1)</script>"}
	}))
	return r.entry(measure.Verdict{Reachable: measure.ReachableNo, Interference: measure.InterferenceConfirmed, Findings: []measure.Finding{{
		ID: "f1", Method: measure.TLSInterception, Interference: measure.InterferenceConfirmed, Layer: measure.StepTLS, Family: measure.IPv4, Scope: measure.ScopeLAN,
		Trigger: measure.Trigger{Kind: "port", Value: "443"}, Runs: 2, Hits: 2, Because: []string{t}, Proof: "certificate+artefact",
		Match: &measure.Match{Row: "fortigate-ca", Kind: "interception-root", Where: "certificate", Product: "FortiGate", Vendor: "Fortinet"},
	}}})
}

func samples() []Entry {
	return []Entry{
		sampleClean("m0", "www.wikipedia.org"), sampleTLSReset(), sampleDNSInjection(), sampleClean("m11", "example.com"), sampleBlockPage(), sampleThrottle(),
		sampleSuspectedDrop(), sampleUnknown(), sampleSiteDown(), sampleRefusal(), sampleCaptive(), sampleInterception(),
	}
}
