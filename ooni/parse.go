// Package ooni reads and writes OONI's measurement format (data formats df-000
// to df-009, https://github.com/ooni/spec). Web connectivity is read in all
// versions from 0.0.1 to 0.5; other tests are named as not judged.
package ooni

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"govah/measure"
)

// HelperName stands for OONI's test helper in Observation.Helper.
const HelperName = "ooni-th"

// NotJudged is returned for a valid measurement of a test that has no rules
// here.
type NotJudged struct{ Test, Version string }

func (e *NotJudged) Error() string {
	return fmt.Sprintf("OONI test %s %s is not judged", e.Test, e.Version)
}

// Parser reads measurements one after the other, reusing its memory. The zero
// value is ready; it is not safe for concurrent use.
type Parser struct {
	json fastjson.Parser
	next int
	m    *measure.Measurement
	// bodies of the last measurement, by SHA-256 in hex.
	bodies map[string][]byte
}

// Body gives a response body of the last measurement.
func (p *Parser) Body(sha string) ([]byte, bool) {
	b, ok := p.bodies[sha]
	return b, ok
}

// Parse reads one line. The error is a *NotJudged for other tests; else it
// says what is wrong with the line.
func (p *Parser) Parse(line []byte) (*measure.Measurement, error) {
	v, err := p.json.ParseBytes(line)
	if err != nil {
		text := err.Error()
		if len(text) > 120 {
			text = text[:120] + "…"
		}
		return nil, fmt.Errorf("no valid JSON: %s", text)
	}
	test := str(v, "test_name")
	if test == "" {
		return nil, errors.New("no OONI measurement: it has no test_name")
	}
	if test != "web_connectivity" {
		return nil, &NotJudged{test, str(v, "test_version")}
	}
	keys := v.Get("test_keys")
	if keys == nil || keys.Type() != fastjson.TypeObject {
		return nil, errors.New("test_keys is missing or no object")
	}
	input := str(v, "input")
	u, err := url.Parse(input)
	if err != nil || u.Host == "" || len(input) > 4096 {
		return nil, errors.New("input is no URL")
	}
	if u.Path == "" {
		u.Path = "/"
	}
	p.next, p.bodies = 0, map[string][]byte{}
	asn, _ := strconv.Atoi(strings.TrimPrefix(str(v, "probe_asn"), "AS"))
	resolverASN, _ := strconv.Atoi(strings.TrimPrefix(str(v, "resolver_asn"), "AS"))
	m := &measure.Measurement{Type: "measurement", Schema: 1, Run: str(v, "report_id"), ID: "m1", Target: u.String(),
		Vantage:  measure.Vantage{ASN: asn, Country: str(v, "probe_cc"), ASNSource: "ooni", Network: str(v, "probe_network_name"), ResolverASN: resolverASN},
		Screened: 1, Imported: "ooni", Complete: true}
	if t, err := time.Parse(time.DateTime, str(v, "measurement_start_time")); err == nil {
		m.Started = t.UTC().Format(time.RFC3339)
	}
	m.ElapsedMS = int64(v.GetFloat64("test_runtime") * 1000)
	p.m = m
	p.queries(keys)
	p.tcp(keys)
	p.tls(keys)
	p.requests(keys, u)
	p.control(keys.Get("control"), u)
	if len(m.Observations) == 0 {
		return nil, errors.New("test_keys holds no observation that could be judged")
	}
	return m, nil
}

func str(v *fastjson.Value, keys ...string) string { return string(v.GetStringBytes(keys...)) }

func (p *Parser) add(step measure.Step, v *fastjson.Value) *measure.Observation {
	p.next++
	o := measure.Observation{ID: "o" + strconv.Itoa(p.next), Step: step, Role: measure.RoleTest, Stage: measure.StageScreen}
	if v != nil {
		t0, t := v.GetFloat64("t0"), v.GetFloat64("t")
		if t >= t0 && t < 1e6 && t0 >= 0 {
			o.StartUS, o.TookUS = int64(t0*1e6), int64((t-t0)*1e6)
		} else if t > 0 && t < 1e6 {
			o.StartUS = int64(t * 1e6)
		}
	}
	p.m.Observations = append(p.m.Observations, o)
	return &p.m.Observations[len(p.m.Observations)-1]
}

func remote(o *measure.Observation, ip string, port int) {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return
	}
	a = a.Unmap()
	o.Remote = netip.AddrPortFrom(a, uint16(port)).String()
	o.Family = measure.IPv6
	if a.Is4() {
		o.Family = measure.IPv4
	}
}

func failure(v *fastjson.Value, keys ...string) measure.Failure {
	f := str(v, keys...)
	if len(f) > 300 {
		f = f[:300]
	}
	return measure.Failure(f)
}

func (p *Parser) queries(keys *fastjson.Value) {
	for _, q := range keys.GetArray("queries") {
		engine := str(q, "engine")
		o := p.add(measure.StepDNS, q)
		d := &measure.DNS{Name: strings.ToLower(strings.TrimSuffix(str(q, "hostname"), ".")), Type: str(q, "query_type")}
		o.DNS = d
		switch engine {
		case "doh":
			o.Role, d.Transport, d.Resolver = measure.RoleControl, "https", str(q, "resolver_address")
		case "udp", "tcp", "dot":
			d.Transport, d.Resolver = map[string]string{"udp": "udp", "tcp": "tcp", "dot": "tls"}[engine], str(q, "resolver_address")
			if ap, err := netip.ParseAddrPort(d.Resolver); err == nil {
				remote(o, ap.Addr().String(), int(ap.Port()))
			}
		default:
			d.Transport = "system"
		}
		if d.Type == "ANY" {
			d.Type = "A+AAAA"
		}
		o.Experiment = measure.ExpResolver
		o.Failure = failure(q, "failure")
		if f := str(q, "failure"); strings.Contains(f, "no such host") || f == "dns_lookup_error" && strings.Contains(str(q, "failure"), "nxdomain") {
			o.Failure = measure.DNSNXDomain
		}
		rep := measure.DNSReply{AtUS: o.StartUS + o.TookUS, Rcode: "NOERROR"}
		for _, a := range q.GetArray("answers") {
			typ := str(a, "answer_type")
			value := str(a, "ipv4")
			if value == "" {
				value = str(a, "ipv6")
			}
			if value == "" {
				value = str(a, "hostname")
			}
			if value == "" {
				continue
			}
			if len(value) > 300 {
				value = value[:300]
			}
			ans := measure.DNSAnswer{Type: typ, Value: value, ASN: a.GetInt("asn"), TTLS: int64(a.GetInt("ttl"))}
			rep.Answers = append(rep.Answers, ans)
		}
		switch o.Failure {
		case measure.NoFailure:
			d.Replies = []measure.DNSReply{rep}
		case measure.DNSNXDomain, measure.AndroidDNSCacheNoData:
			rep.Rcode = "NXDOMAIN"
			d.Replies = []measure.DNSReply{rep}
		case measure.DNSServfail, measure.DNSTemporary:
			rep.Rcode = "SERVFAIL"
			d.Replies = []measure.DNSReply{rep}
		case measure.DNSRefused:
			rep.Rcode = "REFUSED"
			d.Replies = []measure.DNSReply{rep}
		case measure.DNSNoAnswer, measure.DNSBogon:
			d.Replies = []measure.DNSReply{rep}
		}
	}
}

func (p *Parser) tcp(keys *fastjson.Value) {
	for _, c := range keys.GetArray("tcp_connect") {
		o := p.add(measure.StepTCP, c)
		remote(o, str(c, "ip"), c.GetInt("port"))
		o.Failure = failure(c, "status", "failure")
		if o.Failure == "" && c.Get("status", "success") != nil && !c.GetBool("status", "success") {
			o.Failure = measure.UnknownFailurePrefix + "connect_error"
		}
	}
}

func (p *Parser) tls(keys *fastjson.Value) {
	for _, h := range keys.GetArray("tls_handshakes") {
		o := p.add(measure.StepTLS, h)
		if ap, err := netip.ParseAddrPort(str(h, "address")); err == nil {
			remote(o, ap.Addr().String(), int(ap.Port()))
		}
		o.SNI = str(h, "server_name")
		o.Failure = failure(h, "failure")
		t := &measure.TLS{Version: str(h, "tls_version"), Cipher: str(h, "cipher_suite"), ALPN: str(h, "negotiated_protocol"), Alert: -1}
		o.TLS = t
		certs := h.GetArray("peer_certificates")
		t.ServerBytes = len(certs) > 0 || o.Failure == ""
		for i, c := range certs {
			if i == 8 {
				break
			}
			data := c.GetStringBytes("data")
			if data == nil {
				data = c.GetStringBytes()
			}
			der, err := base64.StdEncoding.AppendDecode(nil, data)
			if err != nil {
				continue
			}
			sum := sha256.Sum256(der)
			t.Chain = append(t.Chain, hex.EncodeToString(sum[:]))
			if i > 0 || o.Failure == "" {
				continue // a chain that verified needs no closer look
			}
			if cert, err := x509.ParseCertificate(der); err == nil {
				t.Subject, t.Issuer, t.Names = clip(cert.Subject.String()), clip(cert.Issuer.String()), cert.DNSNames
				t.NotBeforeS, t.NotAfterS = cert.NotBefore.Unix(), cert.NotAfter.Unix()
			}
		}
		switch o.Failure {
		case measure.NoFailure:
			if !h.GetBool("no_tls_verify") {
				t.Public = measure.VerifiedOK
			}
		case measure.TLSUnknownAuthority:
			t.Public = measure.VerifyUnknownCA
		case measure.TLSInvalidHostname:
			t.Public = measure.VerifyWrongName
		case measure.TLSInvalidCert:
			t.Public = measure.VerifyExpired
		}
	}
}

func clip(s string) string {
	if len(s) > 300 {
		return s[:300]
	}
	return s
}

// requests come latest first; they are recorded in the order they were made.
func (p *Parser) requests(keys *fastjson.Value, target *url.URL) {
	list := keys.GetArray("requests")
	for i := len(list) - 1; i >= 0; i-- {
		r := list[i]
		o := p.add(measure.StepHTTP, r)
		o.URL = str(r, "request", "url")
		if o.URL == "" {
			o.URL = target.String()
		}
		o.Failure = failure(r, "failure")
		u, err := url.Parse(o.URL)
		if err == nil {
			o.Host = u.Hostname()
		}
		if ap, err := netip.ParseAddrPort(str(r, "address")); err == nil {
			remote(o, ap.Addr().String(), int(ap.Port()))
		}
		h := &measure.HTTP{Method: str(r, "request", "method"), Status: r.GetInt("response", "code")}
		o.HTTP = h
		h.Headers = headers(r.Get("response"))
		for _, hd := range h.Headers {
			if strings.EqualFold(hd.Name, "location") {
				h.Location = hd.Value
			}
		}
		var body []byte
		if b := r.Get("response", "body"); b != nil {
			if b.Type() == fastjson.TypeObject {
				body, _ = base64.StdEncoding.AppendDecode(nil, b.GetStringBytes("data"))
			} else {
				body = b.GetStringBytes()
			}
		}
		h.BodyBytes, h.BodyTruncated = int64(len(body)), r.GetBool("response", "body_is_truncated")
		h.Title = title(body)
		h.Authenticated = err == nil && u.Scheme == "https" && o.Failure == "" && h.Status > 0
		if len(body) > 0 && !h.Authenticated {
			sum := sha256.Sum256(body)
			h.BodySHA256 = hex.EncodeToString(sum[:])
			p.bodies[h.BodySHA256] = body
		}
	}
}

func headers(r *fastjson.Value) (out []measure.Header) {
	if r == nil {
		return nil
	}
	for _, h := range r.GetArray("headers_list") {
		pair := h.GetArray()
		if len(pair) == 2 && len(out) < 64 {
			out = append(out, measure.Header{Name: clip(string(pair[0].GetStringBytes())), Value: text(pair[1])})
		}
	}
	if len(out) > 0 {
		return out
	}
	if o := r.GetObject("headers"); o != nil {
		o.Visit(func(k []byte, v *fastjson.Value) {
			if len(out) < 64 {
				out = append(out, measure.Header{Name: clip(string(k)), Value: text(v)})
			}
		})
		sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	}
	return out
}

func text(v *fastjson.Value) string {
	b := v.GetStringBytes()
	if len(b) > 1024 {
		b = b[:1024]
	}
	return string(b)
}

// title is the first title element of a page.
func title(body []byte) string {
	const limit = 64 << 10
	if len(body) > limit {
		body = body[:limit]
	}
	for i := 0; i+7 < len(body); i++ {
		if body[i] != '<' || !strings.EqualFold(string(body[i+1:i+6]), "title") {
			continue
		}
		rest := string(body[i:])
		if gt := strings.IndexByte(rest, '>'); gt >= 0 {
			rest = rest[gt+1:]
			if end := strings.IndexByte(rest, '<'); end >= 0 {
				return clip(strings.TrimSpace(rest[:end]))
			}
		}
		return ""
	}
	return ""
}

// control is what OONI's helper saw.
func (p *Parser) control(c *fastjson.Value, target *url.URL) {
	if c == nil || c.Type() != fastjson.TypeObject {
		return
	}
	helper := func(step measure.Step) *measure.Observation {
		o := p.add(step, nil)
		o.Role, o.Helper = measure.RoleHelper, HelperName
		return o
	}
	if d := c.Get("dns"); d != nil && d.Type() == fastjson.TypeObject && net.ParseIP(target.Hostname()) == nil {
		o := helper(measure.StepDNS)
		o.DNS = &measure.DNS{Name: strings.ToLower(target.Hostname()), Type: "A+AAAA", Transport: "system"}
		o.Failure = failure(d, "failure")
		rep := measure.DNSReply{Rcode: "NOERROR"}
		for _, a := range d.GetArray("addrs") {
			value := string(a.GetStringBytes())
			addr, err := netip.ParseAddr(value)
			if err != nil {
				continue
			}
			typ := "AAAA"
			if addr.Unmap().Is4() {
				typ = "A"
			}
			rep.Answers = append(rep.Answers, measure.DNSAnswer{Type: typ, Value: value, ASN: c.GetInt("ip_info", value, "asn")})
		}
		switch {
		case o.Failure == "" && len(rep.Answers) > 0:
			o.DNS.Replies = []measure.DNSReply{rep}
		case strings.Contains(string(o.Failure), "nxdomain") || o.Failure == "dns_name_error":
			o.Failure, rep.Rcode = measure.DNSNXDomain, "NXDOMAIN"
			o.DNS.Replies = []measure.DNSReply{rep}
		case o.Failure == "":
			o.Failure = measure.DNSNoAnswer
		}
	}
	each := func(key string, f func(address string, v *fastjson.Value)) {
		obj := c.GetObject(key)
		if obj == nil {
			return
		}
		type item struct {
			k string
			v *fastjson.Value
		}
		var list []item
		obj.Visit(func(k []byte, v *fastjson.Value) {
			if len(list) < 64 {
				list = append(list, item{string(k), v})
			}
		})
		sort.Slice(list, func(i, j int) bool { return list[i].k < list[j].k })
		for _, it := range list {
			f(it.k, it.v)
		}
	}
	each("tcp_connect", func(address string, v *fastjson.Value) {
		o := helper(measure.StepTCP)
		if ap, err := netip.ParseAddrPort(address); err == nil {
			remote(o, ap.Addr().String(), int(ap.Port()))
		}
		o.Failure = failure(v, "failure")
		if o.Failure == "" && !v.GetBool("status") {
			o.Failure = measure.UnknownFailurePrefix + "connect_error"
		}
	})
	each("tls_handshake", func(address string, v *fastjson.Value) {
		o := helper(measure.StepTLS)
		if ap, err := netip.ParseAddrPort(address); err == nil {
			remote(o, ap.Addr().String(), int(ap.Port()))
		}
		o.SNI = str(v, "server_name")
		o.Failure = failure(v, "failure")
		o.TLS = &measure.TLS{Alert: -1, ServerBytes: o.Failure == ""}
		switch o.Failure {
		case measure.NoFailure:
			o.TLS.Public = measure.VerifiedOK
		case measure.TLSUnknownAuthority:
			o.TLS.Public, o.TLS.ServerBytes = measure.VerifyUnknownCA, true
		case measure.TLSInvalidHostname:
			o.TLS.Public, o.TLS.ServerBytes = measure.VerifyWrongName, true
		case measure.TLSInvalidCert:
			o.TLS.Public, o.TLS.ServerBytes = measure.VerifyExpired, true
		}
	})
	if r := c.Get("http_request"); r != nil && r.Type() == fastjson.TypeObject {
		o := helper(measure.StepHTTP)
		o.URL, o.Host = target.String(), target.Hostname()
		o.Failure = failure(r, "failure")
		o.HTTP = &measure.HTTP{Method: "GET", Status: r.GetInt("status_code"), BodyBytes: int64(r.GetInt("body_length")), Title: clip(str(r, "title"))}
		if o.HTTP.Status < 0 {
			o.HTTP.Status = 0
		}
		if o.HTTP.BodyBytes < 0 {
			o.HTTP.BodyBytes = 0
		}
		o.HTTP.Headers = headers(r)
		if o.Failure == "" && o.HTTP.Status == 0 {
			o.Failure = measure.UnknownFailurePrefix + "no answer"
		}
	}
}
