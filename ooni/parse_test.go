package ooni_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"govah/judge"
	"govah/measure"
	"govah/ooni"
)

func parse(t *testing.T, line string) *measure.Measurement {
	t.Helper()
	var p ooni.Parser
	m, err := p.Parse([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// told is one observation in one line.
func told(o *measure.Observation) string {
	s := fmt.Sprintf("%s %s %s/%s after=%s %s", o.ID, o.Role, o.Step, o.Family, o.After, o.Remote)
	if o.ASN != 0 {
		s += fmt.Sprintf(" AS%d", o.ASN)
	}
	if d := o.DNS; d != nil {
		s += fmt.Sprintf(" %s %s %s %s", d.Name, d.Type, d.Transport, d.Resolver)
		for _, r := range d.Replies {
			s += fmt.Sprintf(" [%s aa=%v", r.Rcode, r.AA)
			for _, a := range r.Answers {
				s += fmt.Sprintf(" %s=%s", a.Type, a.Value)
			}
			s += "]"
		}
	}
	if x := o.TLS; x != nil {
		s += fmt.Sprintf(" sni=%s %s %s bytes=%v chain=%d", o.SNI, x.Version, x.Public, x.ServerBytes, len(x.Chain))
	}
	if h := o.HTTP; h != nil {
		s += fmt.Sprintf(" %s %s %d %d headers loc=%q h3=%q title=%q auth=%v %d bytes", h.Method, o.URL, h.Status, len(h.Headers), h.Location, h.H3, h.Title, h.Authenticated, h.BodyBytes)
	}
	if o.Failure != "" {
		s += " ! " + string(o.Failure)
	}
	return s
}

func TestSampleBecomesObservations(t *testing.T) {
	m := parse(t, sample)
	var got []string
	for i := range m.Observations {
		got = append(got, told(&m.Observations[i]))
	}
	want := []string{
		"o1 test dns/ipv4 after= 198.51.100.53:53 www.example.org A udp 198.51.100.53:53 [NOERROR aa=true A=192.0.2.1] [NOERROR aa=false A=192.0.2.7]",
		"o2 test dns/ after=  www.example.org A+AAAA system  ! dns_nxdomain_error",
		"o3 test dns/ after=  www.example.org AAAA https https://dns.example.net/dns-query [NOERROR aa=false CNAME=edge.example.net AAAA=2001:db8::7]",
		"o4 test tcp/ipv4 after=o1 192.0.2.1:443 AS64496",
		"o5 test tcp/ipv6 after=o3 [2001:db8::7]:443 AS64499 ! network_unreachable",
		"o6 test tls/ipv4 after=o4 192.0.2.1:443 AS64496 sni=www.example.org TLSv1.3 unknown_authority bytes=true chain=1 ! ssl_unknown_authority",
		`o7 test http/ipv4 after= 192.0.2.1:80 AS64496 GET http://www.example.org/ 302 2 headers loc="/blocked" h3=":443" title="Moved & gone" auth=false 27 bytes`,
		`o8 test http/ipv4 after= 192.0.2.1:80 AS64496 GET http://www.example.org/blocked 403 2 headers loc="" h3="" title="" auth=false 4 bytes`,
		"o9 helper dns/ after=  www.example.org A+AAAA system  [NOERROR aa=false AAAA=2001:db8::7 CNAME=alias.example.net]",
		"o10 helper tcp/ipv4 after= 192.0.2.1:443 AS64496 ! connection_refused",
		"o11 helper tcp/ipv6 after= [2001:db8::7]:443 AS64499",
		"o12 helper tls/ipv6 after= [2001:db8::7]:443 AS64499 sni=www.example.org  ok bytes=true chain=0",
		`o13 helper http/ after=  GET https://www.example.org/ 200 1 headers loc="" h3="www.example.org:443" title="Example" auth=true 1533 bytes`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if diff := cmp.Diff(measure.Vantage{ASN: 64500, Country: "IT", ASNSource: "ooni", Network: "Documentation", Link: "mobile", ResolverASN: 64501}, m.Vantage); diff != "" {
		t.Errorf("vantage: %s", diff)
	}
	if m.Target != "https://www.example.org/" || m.Started != "2024-02-12T20:04:29.000000Z" || m.Imported != "ooni" || m.ElapsedMS != 1500 || m.Run == "" || len(m.ID) != 13 {
		t.Errorf("%+v", m)
	}
	if o := m.Observations[3]; o.StartUS != 100_000 || o.TookUS != 50_000 || o.TCP.RTTUS != 50_000 {
		t.Errorf("times: %d, %d", o.StartUS, o.TookUS)
	}
	if h := m.Observations[7].HTTP.Headers[1]; h.Value != "hi" {
		t.Errorf("a binary header reads %q", h.Value)
	}
}

func TestBodiesAreFoundByTheirHash(t *testing.T) {
	var p ooni.Parser
	m, err := p.Parse([]byte(strings.Replace(sample, `"body":"BODY"`, `"body":"a\u00e9\ud83d\ude00\n\"\\\/z"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	const want = "aé😀\n\"\\/z"
	sum := sha256.Sum256([]byte(want))
	h := m.Observations[7].HTTP
	if h.BodySHA256 != hex.EncodeToString(sum[:]) || !h.BodyTruncated {
		t.Errorf("hash %s", h.BodySHA256)
	}
	if b, ok := p.Body(h.BodySHA256); !ok || string(b) != want {
		t.Errorf("body %q, %v", b, ok)
	}
	chain := m.Observations[5].TLS.Chain[0]
	if b, ok := p.Body(chain); !ok || string(b) != "\x00\x01\x02" {
		t.Errorf("certificate %x, %v", b, ok)
	}
	if _, ok := p.Body(""); ok {
		t.Error("a body without a hash")
	}
}

// Where fields stand must not matter: probes of different times order them
// differently.
func TestOrderOfFieldsDoesNotMatter(t *testing.T) {
	want := parse(t, sample)
	i := strings.Index(sample, `"test_keys":`)
	j := strings.Index(sample, `,"test_name"`)
	reordered := `{` + sample[i:j] + `,` + sample[1:i] + sample[j+1:]
	if diff := cmp.Diff(want, parse(t, reordered)); diff != "" {
		t.Errorf("-as written +test keys first\n%s", diff)
	}
	spaced := strings.NewReplacer(`":`, `" : `, `,"`, ` , "`).Replace(`{"a":[1,{"b":"\\\"]}"}],"test_name":"web_connectivity",` + sample[1:])
	if diff := cmp.Diff(len(want.Observations), len(parse(t, spaced).Observations)); diff != "" {
		t.Error(diff)
	}
}

// What earlier probes wrote otherwise.
func TestEarlierVersions(t *testing.T) {
	line := func(keys, rest string) string {
		return `{"input":"https://example.org","measurement_start_time":"2017-01-02 03:04:05","test_name":"web_connectivity","test_keys":{` + keys + `}` + rest + `}`
	}
	python := `,"software_name":"ooniprobe","software_version":"2.0.0"`
	ok := `"requests":[{"failure":null,"request":{"method":"GET","url":"https://example.org/"},"response":{"body":"x","headers":{"Server":["a","b"]},"code":200}}]`
	for _, c := range []struct{ name, line, want string }{
		{"the Python probe did not verify certificates", line(ok, python), `o1 test http/ after=  GET https://example.org/ 200 1 headers loc="" h3="" title="" auth=false 1 bytes`},
		{"others do", line(ok, `,"software_name":"ooniprobe-android","software_version":"2.1.0"`), `o1 test http/ after=  GET https://example.org/ 200 1 headers loc="" h3="" title="" auth=true 1 bytes`},
		{"no engine is the system's resolver", line(`"queries":[{"answers":[{"answer_type":"A","ipv4":"192.0.2.1"}],"failure":null,"hostname":"Example.org","query_type":"A"}]`, ""), "o1 test dns/ after=  example.org A system  [NOERROR aa=false A=192.0.2.1]"},
		{"a failure that is false", line(`"tcp_connect":[{"ip":"192.0.2.1","port":443,"status":{"blocked":false,"failure":false,"success":true}}]`, ""), "o1 test tcp/ipv4 after= 192.0.2.1:443"},
		{"no success and no failure", line(`"tcp_connect":[{"ip":"192.0.2.1","port":443,"status":{"failure":null,"success":false}}]`, ""), "o1 test tcp/ipv4 after= 192.0.2.1:443 ! unknown_failure: connect_error"},
		{"a word of Measurement Kit's", line(`"tcp_connect":[{"ip":"192.0.2.1","port":443,"status":{"failure":"connection_refused_error","success":false}}]`, ""), "o1 test tcp/ipv4 after= 192.0.2.1:443 ! connection_refused"},
		{"what the probe itself could not do", line(`"requests":[{"failure":"http_invalid_redirect_url","request":{"url":"https://example.org/"},"response":{"body":null,"headers":{}}}]`, ""), `o1 test http/ after=  GET https://example.org/ 0 0 headers loc="" h3="" title="" auth=false 0 bytes ! not_supported`},
		{"only that a question failed", line(`"queries":[],"dns_experiment_failure":"dns_nxdomain_error"`, ""), "o1 test dns/ after=  example.org A system  ! dns_nxdomain_error"},
		{"a helper that did not answer", line(`"control":{},"control_failure":"connection_refused"`, ""), "o1 helper helper/ after=  ! connection_refused"},
		{"lists that are null", line(`"queries":null,"requests":null,"tcp_connect":null,"tls_handshakes":null,"control":null`, ""), ""},
	} {
		m := parse(t, c.line)
		got := ""
		for i := range m.Observations {
			got += told(&m.Observations[i])
		}
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestHostileLinesAreRefusedWithWhatAndWhere(t *testing.T) {
	keys := func(keys string) string {
		return `{"input":"https://example.org","measurement_start_time":"2017-01-02 03:04:05","test_name":"web_connectivity","test_keys":{` + keys + `}}`
	}
	many := strings.TrimSuffix(strings.Repeat(`{"ip":"192.0.2.1","port":1},`, 5000), ",")
	for _, c := range []struct{ line, want string }{
		{``, "end of the line"}, {`null`, "no measurement"}, {`[]`, "expected an object, found a list"}, {`{`, "end of the line"}, {`{}`, "test_name"},
		{`{"test_name":"web_connectivity"}`, "test_keys"},
		{`{"test_name":"web_connectivity","test_keys":{}}`, "input"},
		{`{"test_name":"web_connectivity","input":"ftp://x/","test_keys":{}}`, "no http or https URL"},
		{`{"test_name":"web_connectivity","input":"http://x:99999/","test_keys":{}}`, "no port"},
		{`{"test_name":"web_connectivity","input":"http://x/","measurement_start_time":"now","test_keys":{}}`, "measurement_start_time"},
		{keys(`"queries":{}`), "test_keys.queries"},
		{keys(`"queries":[{"hostname":3}]`), `near "hostname"`},
		{keys(`"queries":[{"hostname":"x" "a":1}]`), "expected a comma"},
		{keys(`"queries":["x"]`), "expected an object, found a string"},
		{keys(`"queries":[{"hostname":"\q"}]`), "escape"},
		{keys(`"requests":[{"response":{"body":"\u12"}}]`), "escape"},
		{keys(`"requests":[{"response":{"body":{"data":"!!!","format":"base64"}}}]`), "base64"},
		{keys(`"tcp_connect":[` + many + `]`), "more than 1024 steps"},
		{keys(`"x":"`), "does not end"},
		{keys(`"x":{`), "end"},
		{keys(``) + "{}", "something follows"},
		{strings.Repeat(`{"a":`, 1<<20), "end"},
		{`{"x":` + strings.Repeat(`[`, 1<<20), "does not end"},
	} {
		var p ooni.Parser
		_, err := p.Parse([]byte(c.line))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.90s: %v; want %q in it", c.line, err, c.want)
		}
	}
	var p ooni.Parser
	_, err := p.Parse([]byte(`{"test_name":"tel\u0065gram","test_keys":{"queries":7}}`))
	var not *ooni.NotJudged
	if !errors.As(err, &not) || not.Test != "telegram" {
		t.Errorf("another test: %v", err)
	}
}

// A parser that met a broken line reads the next as a new one does.
func TestParserIsReusable(t *testing.T) {
	want := parse(t, sample)
	var p ooni.Parser
	for range 3 {
		for _, broken := range []string{sample[:len(sample)/2], `{"test_name":"x"}`, strings.Replace(sample, `"input":"https://www.example.org"`, `"input":"x"`, 1)} {
			if _, err := p.Parse([]byte(broken)); err == nil {
				t.Fatal("a broken line was read")
			}
		}
		got, err := p.Parse([]byte(sample))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	}
}

// Memory does not grow with the number of lines.
func TestParserKeepsLittle(t *testing.T) {
	var p ooni.Parser
	line := madeUp(20 << 10)
	read := func() {
		if _, err := p.Parse(line); err != nil {
			t.Fatal(err)
		}
	}
	read()
	if n := testing.AllocsPerRun(50, read); n > 300 {
		t.Errorf("%.0f allocations for a line of 13 steps", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add(madeUp(200))
	f.Add([]byte(`{"test_name":"web_connectivity","input":"http://[::1]:80/","measurement_start_time":"2017-01-02 03:04:05","test_keys":{"queries":[{"raw_response":"AAAAAAAA"}]}}`))
	f.Add([]byte(`{"test_keys":{"requests":[{"response":{"headers_list":[["a",{"data":"","format":"base64"}],[]]}}]}}`))
	for _, line := range lineOf("real") {
		if len(line) < 4096 {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var p ooni.Parser // a new one each time, so that the same input takes the same way
		m, err := p.Parse(line)
		if err != nil {
			return
		}
		ids := map[string]bool{}
		for i := range m.Observations {
			o := &m.Observations[i]
			if ids[o.ID] || o.ID == "" {
				t.Fatalf("id %q twice", o.ID)
			}
			if o.After != "" && !ids[o.After] {
				t.Fatalf("%s follows %s, which does not come before it", o.ID, o.After)
			}
			ids[o.ID] = true
		}
		judge.Judge(judge.Input{Measurement: m, Bodies: p.Body})
	})
}
