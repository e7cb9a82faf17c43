// Package ooni reads and writes OONI's measurements in its JSON data format
// (https://github.com/ooni/spec, data-formats df-000 to df-009; test
// ts-017-web-connectivity), so that one and the same code judges them and ours.
package ooni

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"govah/measure"
)

// Helper stands for OONI's test helper in Observation.Helper.
const Helper = "ooni-th"

// Bounds of what one line may hold; real ones are far below.
const (
	maxSteps   = 1024
	maxAnswers = 256
	maxHeaders = 256
	maxChain   = 16
	maxArena   = 8 << 20 // kept between lines
)

// NotJudged is a measurement of a test whose results are not judged.
type NotJudged struct{ Test string }

func (e *NotJudged) Error() string {
	return fmt.Sprintf("test %s is not judged, only web_connectivity is", strconv.QuoteToASCII(e.Test))
}

// Parser turns lines into measurements. It reuses its memory and is for one
// goroutine. Its zero value is ready.
//
// Web Connectivity 0.0.1 to 0.5 are read. Simhash is left out: OONI's test
// helper sends no text to compare a page with.
type Parser struct {
	s      scanner
	m      measure.Measurement
	bodies map[string][]byte
	arena  []byte
	certs  map[string]*certificate

	steps []step
	asns  map[string]int

	// Of the line.
	meta     meta
	target   measure.Target
	of       string // the input that target was read from
	read     bool   // the test keys were read where they stood
	verifies bool   // this engine verifies certificates
	dnsFail  string
	ctrlFail string
	// Late DNS replies, to be joined with their question.
	late []step
	// The steps in the order of the observations.
	order []*step
}

// step is one observation with what links it to others.
type step struct {
	o  measure.Observation
	tx int64
}

// Parse reads one line. The measurement is valid until the next call. The
// error is a *NotJudged for other tests and a *SyntaxError, or says what is
// missing, for a broken line.
func (p *Parser) Parse(line []byte) (*measure.Measurement, error) {
	p.reset(line)
	keys, test := p.envelope()
	if p.s.err != nil {
		return nil, p.s.err
	}
	switch {
	case test == "":
		return nil, fmt.Errorf("no measurement of OONI's: it has no test_name")
	case test != "web_connectivity":
		return nil, &NotJudged{test}
	case keys < 0:
		return nil, fmt.Errorf("the measurement has no test_keys")
	}
	if err := p.identity(); err != nil {
		return nil, err
	}
	if !p.read {
		p.s.i = keys
		p.testKeys()
	}
	p.assemble()
	if p.s.err != nil {
		return nil, p.s.err
	}
	return &p.m, nil
}

// early says whether the test keys can be read where they stand, which saves
// passing over them first: all that their meaning depends on is known, but for
// the name of the test, which probes write behind them.
func (p *Parser) early() bool {
	line := p.s.b
	return p.meta.input != "" && p.meta.software != "" && p.meta.version != "" && !p.read && p.identity() == nil &&
		bytes.Contains(line[max(0, len(line)-512):], []byte(`"test_name":"web_connectivity"`))
}

// identity sets what the top level says.
func (p *Parser) identity() error {
	if p.meta.input != p.of {
		t, err := target(p.meta.input)
		if err != nil {
			return fmt.Errorf("input: %w", err)
		}
		p.target, p.of = t, p.meta.input
	} else if p.of == "" {
		return errors.New("input: there is none")
	}
	m := &p.meta
	p.m.Target = p.target.URL
	p.verifies = !(m.software == "ooniprobe" && (strings.HasPrefix(m.version, "1.") || strings.HasPrefix(m.version, "2.")))
	started := m.started
	if started == "" {
		started = m.testStarted
	}
	at, err := time.Parse("2006-01-02 15:04:05", started)
	if err != nil {
		return fmt.Errorf("measurement_start_time: %s is not a time like \"2006-01-02 15:04:05\"", strconv.QuoteToASCII(started[:min(len(started), 40)]))
	}
	p.m.Started = at.Format("2006-01-02T15:04:05.000000Z")
	p.m.Run = m.report
	sum := sha256.Sum256([]byte(m.report + "\x00" + m.input + "\x00" + started + "\x00" + m.id))
	p.m.ID = "m" + hex.EncodeToString(sum[:6])
	return nil
}

// Body finds a body or certificate of the last line by its SHA-256 in hex. It
// is valid until the next Parse.
func (p *Parser) Body(sha256 string) ([]byte, bool) {
	if b, ok := p.bodies[sha256]; ok {
		return b, true
	}
	for _, c := range p.certs {
		if c.sha256 == sha256 {
			return c.der, true
		}
	}
	return nil, false
}

func (p *Parser) reset(line []byte) {
	p.s.b, p.s.i, p.s.err, p.s.section, p.s.key = line, 0, nil, "measurement", nil
	if p.bodies == nil {
		p.bodies, p.certs, p.asns = map[string][]byte{}, map[string]*certificate{}, map[string]int{}
	}
	clear(p.bodies)
	clear(p.asns)
	clear(p.steps)
	clear(p.late)
	p.steps, p.late = p.steps[:0], p.late[:0]
	// Bodies are shorter than the line that they are written in.
	if p.arena = p.arena[:0]; cap(p.arena) > maxArena || cap(p.arena) < len(line) {
		p.arena = make([]byte, 0, 1<<bits.Len(uint(len(line))))
	}
	p.dnsFail, p.ctrlFail, p.meta, p.read = "", "", meta{}, false
	obs := p.m.Observations
	clear(obs)
	p.m = measure.Measurement{Type: "measurement", Schema: 1, Imported: "ooni", Screened: 1, Complete: true, Observations: obs[:0]}
}

type meta struct {
	input, report, id, started, testStarted, software, version string
}

// envelope reads the top level and finds where the test keys are.
func (p *Parser) envelope() (keys int, test string) {
	s, v, m := &p.s, &p.m.Vantage, &p.meta
	keys = -1
	if !s.open('{') {
		s.fail("no measurement")
		return
	}
	for n := 0; s.more('}', &n); {
		switch string(s.name()) {
		case "test_keys":
			if s.peek() == '{' && keys < 0 {
				if keys = s.i; p.early() {
					p.read = true
					p.testKeys()
					s.section = "measurement"
					continue
				}
			}
			s.skip()
		case "test_name":
			test = s.text()
		case "input":
			m.input = s.looseText()
		case "report_id":
			m.report = s.text()
		case "measurement_uid", "id":
			m.id = s.looseText()
		case "measurement_start_time":
			m.started = s.text()
		case "test_start_time":
			m.testStarted = s.text()
		case "software_name":
			m.software = s.text()
		case "software_version":
			m.version = s.text()
		case "probe_asn":
			if v.ASN = asn(s.looseText()); v.ASN != 0 {
				v.ASNSource = "ooni"
			}
		case "probe_cc":
			if v.Country = s.looseText(); v.Country == "ZZ" {
				v.Country = ""
			}
		case "probe_network_name":
			v.Network = s.looseText()
		case "resolver_asn":
			v.ResolverASN = asn(s.looseText())
		case "test_runtime":
			if s.peek() == 'n' || s.peek() == '"' {
				s.skip()
			} else {
				p.m.ElapsedMS = micros(s.number()) / 1000
			}
		case "annotations":
			p.annotations()
		default:
			s.skip()
		}
	}
	s.end()
	return
}

func (p *Parser) annotations() {
	s, v := &p.s, &p.m.Vantage
	if s.peek() != '{' {
		s.skip()
		return
	}
	s.open('{')
	for n := 0; s.more('}', &n); {
		if string(s.name()) != "network_type" {
			s.skip()
			continue
		}
		switch kind := s.looseText(); kind {
		case "vpn":
			v.Tunnel = true
		case "wifi", "mobile":
			v.Link = kind
		case "wired_ethernet", "ethernet":
			v.Link = "ethernet"
		}
	}
}

func (p *Parser) testKeys() {
	s := &p.s
	s.open('{')
	for n := 0; s.more('}', &n); {
		name := s.name()
		s.section = "test_keys"
		switch string(name) {
		case "queries":
			s.section = "test_keys.queries"
			p.list(p.query)
		case "x_dns_duplicate_responses":
			s.section = "test_keys.x_dns_duplicate_responses"
			at := len(p.steps)
			p.list(p.query)
			p.late = append(p.late, p.steps[at:]...)
			p.steps = p.steps[:at]
		case "tcp_connect":
			s.section = "test_keys.tcp_connect"
			p.list(p.tcpConnect)
		case "tls_handshakes":
			s.section = "test_keys.tls_handshakes"
			p.list(func() { p.handshake(measure.StepTLS) })
		case "quic_handshakes":
			s.section = "test_keys.quic_handshakes"
			p.list(func() { p.handshake(measure.StepQUIC) })
		case "requests":
			s.section = "test_keys.requests"
			at := len(p.steps)
			p.list(p.request)
			// The latest comes first.
			for i, j := at, len(p.steps)-1; i < j; i, j = i+1, j-1 {
				p.steps[i], p.steps[j] = p.steps[j], p.steps[i]
			}
		case "control":
			s.section = "test_keys.control"
			p.controls()
		case "control_failure":
			p.ctrlFail = s.looseText()
		case "dns_experiment_failure":
			p.dnsFail = s.looseText()
		case "socksproxy":
			if s.looseText() != "" {
				p.m.Vantage.Proxy = true
			}
		default:
			s.skip()
		}
	}
}

// list calls element for each element of a list, or of none if it is null.
func (p *Parser) list(element func()) {
	s := &p.s
	if !s.open('[') {
		return
	}
	for n := 0; s.more(']', &n); {
		if len(p.steps) >= maxSteps {
			s.fail("more than " + strconv.Itoa(maxSteps) + " steps")
			return
		}
		element()
	}
}

// begin adds a step of this device.
func (p *Parser) begin(kind measure.Step) *step {
	p.steps = append(p.steps, step{o: measure.Observation{Step: kind, Role: measure.RoleTest, Stage: measure.StageScreen}})
	return &p.steps[len(p.steps)-1]
}

// beginHelper adds a step of the test helper.
func (p *Parser) beginHelper(kind measure.Step, failure string) *measure.Observation {
	if len(p.steps) >= maxSteps {
		p.s.fail("more than " + strconv.Itoa(maxSteps) + " steps")
	}
	p.steps = append(p.steps, step{o: measure.Observation{Step: kind, Role: measure.RoleHelper, Helper: Helper}})
	o := &p.steps[len(p.steps)-1].o
	o.Failure, o.Detail = failureOf(failure)
	return o
}

// times sets start and duration from t0 and t, in seconds; before 0.5 there is
// only t, the end.
func (st *step) times(t0, t float64, hasT0 bool) {
	if !hasT0 {
		t0 = t
	}
	st.o.StartUS = micros(t0)
	st.o.TookUS = max(0, micros(t)-micros(t0))
}

func micros(seconds float64) int64 {
	if !(seconds > 0) {
		return 0
	}
	return int64(min(seconds, 1e9)*1e6 + 0.5)
}

// failure reads a failure: a string, null, or in old reports false.
func (s *scanner) failure() string {
	switch s.peek() {
	case '"':
		return s.text()
	case 't':
		s.skip()
		return "true"
	}
	s.skip()
	return ""
}

func asn(text string) int {
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "AS"), 10, 32)
	if err != nil {
		return 0
	}
	return int(n)
}

// assemble puts the steps in order, numbers and links them.
func (p *Parser) assemble() {
	p.joinLate()
	if p.dnsFail != "" && !p.has(measure.StepDNS, measure.RoleTest) {
		// The oldest versions do not say which question failed.
		st := p.begin(measure.StepDNS)
		st.o.Experiment = measure.ExpResolver
		st.o.DNS = &measure.DNS{Name: p.target.Host, Type: "A", Transport: "system"}
		st.o.Failure, st.o.Detail = failureOf(p.dnsFail)
	}
	if p.ctrlFail != "" {
		p.beginHelper(measure.StepHelper, p.ctrlFail)
	}
	rank := map[measure.Step]int{measure.StepDNS: 0, measure.StepTCP: 1, measure.StepTLS: 2, measure.StepQUIC: 3, measure.StepHTTP: 4, measure.StepHelper: 5}
	out := p.m.Observations
	p.order = p.order[:0]
	for _, helper := range [...]bool{false, true} {
		for r := range 6 {
			for i := range p.steps {
				st := &p.steps[i]
				if (st.o.Role == measure.RoleHelper) != helper || rank[st.o.Step] != r {
					continue
				}
				st.o.ID = "o" + strconv.Itoa(len(out)+1)
				if ap, err := netip.ParseAddrPort(st.o.Remote); err == nil {
					a := ap.Addr().Unmap()
					if st.o.Family = measure.IPv6; a.Is4() {
						st.o.Family = measure.IPv4
					}
					st.o.ASN = p.asns[a.String()]
				}
				out = append(out, st.o)
				p.order = append(p.order, st)
			}
		}
	}
	p.m.Observations = out
	p.link()
}

func (p *Parser) has(kind measure.Step, role measure.Role) bool {
	for i := range p.steps {
		if p.steps[i].o.Step == kind && p.steps[i].o.Role == role {
			return true
		}
	}
	return false
}

// joinLate adds late replies to the questions that they answer too.
func (p *Parser) joinLate() {
next:
	for _, l := range p.late {
		for i := range p.steps {
			st := &p.steps[i]
			if st.o.Step == measure.StepDNS && st.o.Role == measure.RoleTest && st.tx == l.tx && st.o.Remote == l.o.Remote &&
				st.o.DNS.Name == l.o.DNS.Name && st.o.DNS.Type == l.o.DNS.Type && st.o.DNS.Transport == l.o.DNS.Transport {
				st.o.DNS.Replies = append(st.o.DNS.Replies, l.o.DNS.Replies...)
				continue next
			}
		}
		p.steps = append(p.steps, l)
	}
}

// link names for each step the one whose result it used: by transaction where
// there are any (0.5), else by address and name.
func (p *Parser) link() {
	obs := p.m.Observations
	byAddress := map[string]*measure.Observation{}
	asked := map[string]string{} // by the id of a connect: the name whose answer led to it
	for i := range obs {
		o := &obs[i]
		if o.Role != measure.RoleTest {
			continue
		}
		switch o.Step {
		case measure.StepDNS:
			for _, r := range o.DNS.Replies {
				for _, a := range r.Answers {
					if byAddress[a.Value] == nil {
						byAddress[a.Value] = o
					}
				}
			}
		case measure.StepTCP, measure.StepQUIC:
			if ap, err := netip.ParseAddrPort(o.Remote); err == nil {
				if d := byAddress[ap.Addr().String()]; d != nil {
					o.After, asked[o.ID] = d.ID, d.DNS.Name
				}
			}
		case measure.StepTLS, measure.StepHTTP:
			o.After = p.before(i, asked)
		}
	}
}

// before finds the connection that the step at index was made on.
func (p *Parser) before(index int, asked map[string]string) string {
	o, tx := &p.m.Observations[index], p.order[index].tx
	secure := o.Step == measure.StepHTTP && strings.HasPrefix(o.URL, "https:")
	host, port := "", ""
	if o.Step == measure.StepHTTP {
		host, port = hostOf(o.URL), portOf(o.URL)
	}
	best, score := "", 0
	for i := range index {
		e := &p.m.Observations[i]
		points := 0
		switch {
		case e.Role != measure.RoleTest:
			continue
		case o.Step == measure.StepTLS && e.Step == measure.StepTCP:
		case secure && (e.Step == measure.StepTLS || e.Step == measure.StepQUIC):
			points++
		case o.Step == measure.StepHTTP && e.Step == measure.StepTCP:
		default:
			continue
		}
		switch {
		case o.Remote != "" && e.Remote != "" && e.Remote != o.Remote:
			continue
		case tx != 0 && tx != p.order[i].tx:
			continue
		case tx != 0:
			points += 8
		case o.Remote != "" && e.Remote == o.Remote:
			points += 4
		case host != "" && e.SNI == host:
			points += 2
		case host != "" && e.Step == measure.StepTCP && asked[e.ID] == host && strings.HasSuffix(e.Remote, port):
			points++
		default:
			continue
		}
		if points > score {
			best, score = e.ID, points
		}
	}
	return best
}
