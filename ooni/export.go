package ooni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"govah/measure"
)

// testVersion is the Web Connectivity whose keys Export writes. Who wrote them
// is in software_name.
const testVersion = "0.5.28"

// What Export refuses.
var (
	ErrExit   = errors.New("made through a VPN, a proxy or a captive portal: it would describe that exit as this network")
	ErrNoPage = errors.New("not a web page, and OONI's Web Connectivity knows nothing else")
)

// keptHeaders are the response headers that are exported. Others may hold what
// a server was told or found out about the client: cookies, its address.
var keptHeaders = []string{"Alt-Svc", "Cache-Control", "Content-Language", "Content-Length", "Content-Type", "Date", "Location", "Server", "Strict-Transport-Security", "Via"}

// seconds is a time in microseconds, written as OONI does.
type seconds int64

// MarshalJSON implements json.Marshaler.
func (s seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(s)/1e6, 'f', -1, 64), nil
}

// failure is null where there is none.
type failure measure.Failure

// MarshalJSON implements json.Marshaler.
func (f failure) MarshalJSON() ([]byte, error) {
	if f == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(f))
}

type object = map[string]any

// Export writes m in the data format 0.2.0 of OONI, as one JSON object in one
// line, with the keys of Web Connectivity and the verdict under x_govah_ keys.
// Bodies, certificates, cookies and addresses of the client are not in it. The
// step that our finding names as oN has "id=oN" among its tags. A suspicion is
// written as "blocking": null.
//
// The error wraps ErrExit or ErrNoPage where m cannot honestly be written so.
func Export(m *measure.Measurement, v *measure.Verdict, run *measure.Run) ([]byte, error) {
	switch {
	case m.Vantage.Tunnel || m.Vantage.Proxy || m.Vantage.Captive:
		return nil, fmt.Errorf("%s: %w", m.Target, ErrExit)
	case !strings.HasPrefix(m.Target, "http://") && !strings.HasPrefix(m.Target, "https://"):
		return nil, fmt.Errorf("%s: %w", m.Target, ErrNoPage)
	case m.Imported != "":
		return nil, fmt.Errorf("%s: it was imported from %s", m.Target, m.Imported)
	}
	at, err := time.Parse(time.RFC3339, m.Started)
	if err != nil {
		return nil, fmt.Errorf("%s: its start: %w", m.Target, err)
	}
	country := m.Vantage.Country
	if country == "" {
		country = "ZZ"
	}
	started := at.UTC().Format("2006-01-02 15:04:05")
	annotations := object{"engine_name": "govah"}
	runStarted := started
	if run != nil {
		annotations["engine_version"] = run.Version
		if run.Lab != "" {
			annotations["x_govah_lab"] = run.Lab // an emulated network
		}
		if t, err := time.Parse(time.RFC3339, run.Started); err == nil {
			runStarted = t.UTC().Format("2006-01-02 15:04:05")
		}
	}
	switch m.Vantage.Link {
	case "wifi", "mobile":
		annotations["network_type"] = m.Vantage.Link
	case "ethernet":
		annotations["network_type"] = "wired_ethernet"
	}
	version := ""
	if run != nil {
		version = run.Version
	}
	return json.Marshal(object{
		"annotations":            annotations,
		"data_format_version":    "0.2.0",
		"extensions":             object{"dnst": 0, "httpt": 0, "netevents": 0, "tcpconnect": 0, "tlshandshake": 0, "tunnel": 0},
		"input":                  m.Target,
		"measurement_start_time": started,
		"probe_asn":              "AS" + strconv.Itoa(m.Vantage.ASN),
		"probe_cc":               country,
		"probe_ip":               "127.0.0.1",
		"probe_network_name":     m.Vantage.Network,
		"report_id":              "",
		"resolver_asn":           "AS" + strconv.Itoa(m.Vantage.ResolverASN),
		"resolver_ip":            "127.0.0.1",
		"resolver_network_name":  "",
		"software_name":          "govah",
		"software_version":       version,
		"test_helpers":           helpers(m),
		"test_keys":              testKeys(m, v),
		"test_name":              "web_connectivity",
		"test_runtime":           seconds(m.ElapsedMS * 1000),
		"test_start_time":        runStarted,
		"test_version":           testVersion,
	})
}

func helpers(m *measure.Measurement) object {
	for _, o := range m.Observations {
		if o.Role == measure.RoleHelper && o.Helper != "" {
			url, _, _ := strings.Cut(o.Helper, "#")
			return object{"backend": object{"address": url, "type": "https"}}
		}
	}
	return object{}
}

// own says whether o is what a Web Connectivity would have done: the first
// look from here, the encrypted resolver included.
func own(o *measure.Observation) bool {
	switch o.Role {
	case measure.RoleTest:
		return o.Stage == measure.StageScreen || o.Stage == ""
	case measure.RoleControl:
		return o.Stage == measure.StageScreen && (o.Experiment == measure.ExpResolver || o.Experiment == measure.ExpHTTPS)
	}
	return false
}

func testKeys(m *measure.Measurement, v *measure.Verdict) object {
	queries, late, connects, handshakes, quic, requests := []object{}, []object{}, []object{}, []object{}, []object{}, []object{}
	c := newControl()
	dnsFailure, httpFailure := failure(""), failure("")
	resolved := false
	for i := range m.Observations {
		o := &m.Observations[i]
		if o.Role == measure.RoleHelper {
			c.add(o)
			continue
		}
		if !own(o) {
			continue
		}
		entry := object{"t0": seconds(o.StartUS), "t": seconds(o.StartUS + o.TookUS), "tags": []string{"id=" + o.ID}, "failure": failure(o.Failure), "transaction_id": 0}
		switch {
		case o.Step == measure.StepDNS && o.DNS != nil:
			for k, q := range query(o, entry) {
				if k == 0 {
					queries = append(queries, q)
				} else {
					late = append(late, q)
				}
			}
			if o.DNS.Transport == "system" {
				resolved = resolved || o.Failure == ""
				dnsFailure = failure(o.Failure)
			}
		case o.Step == measure.StepTCP:
			ap, err := netip.ParseAddrPort(o.Remote)
			if err != nil {
				continue
			}
			delete(entry, "failure")
			entry["ip"], entry["port"] = ap.Addr().String(), ap.Port()
			entry["status"] = object{"failure": failure(o.Failure), "success": o.Failure == ""}
			connects = append(connects, entry)
		case (o.Step == measure.StepTLS || o.Step == measure.StepQUIC) && o.TLS != nil:
			entry["network"], entry["address"], entry["server_name"] = "tcp", o.Remote, o.SNI
			entry["tls_version"], entry["cipher_suite"], entry["negotiated_protocol"] = o.TLS.Version, o.TLS.Cipher, o.TLS.ALPN
			entry["no_tls_verify"], entry["peer_certificates"], entry["x_govah_chain_sha256"] = false, []object{}, o.TLS.Chain
			if f := chainFailure(o.TLS); o.Failure == "" && f != "" {
				entry["failure"] = failure(f) // OONI's engine ends the handshake there
			}
			if o.Step == measure.StepQUIC {
				entry["network"] = "udp"
				quic = append(quic, entry)
			} else {
				handshakes = append(handshakes, entry)
			}
		case o.Step == measure.StepHTTP && o.HTTP != nil:
			httpFailure = failure(o.Failure)
			requests = append(requests, request(o, entry))
		}
	}
	slices.Reverse(requests) // the latest first
	if resolved {
		dnsFailure = ""
	}
	keys := object{
		"agent": "redirect", "client_resolver": "", "retries": nil, "socksproxy": nil, "network_events": []object{},
		"queries": queries, "x_dns_duplicate_responses": late, "tcp_connect": connects, "tls_handshakes": handshakes, "quic_handshakes": quic, "requests": requests,
		"control": c.keys(), "control_failure": c.failure(), "dns_experiment_failure": dnsFailure, "http_experiment_failure": httpFailure,
		"dns_consistency": nil, "body_proportion": 0, "body_length_match": nil, "headers_match": nil, "status_code_match": nil, "title_match": nil,
		"accessible": nil, "blocking": nil,
	}
	if v != nil {
		keys["accessible"], keys["blocking"] = accessible(v), blocking(v)
		keys["x_govah_verdict"], keys["x_govah_rules"] = v, v.Rules
	}
	return keys
}

func chainFailure(t *measure.TLS) measure.Failure {
	switch t.Public {
	case measure.VerifyExpired, measure.VerifyMalformed:
		return measure.TLSInvalidCert
	case measure.VerifyWrongName:
		return measure.TLSInvalidHostname
	case measure.VerifyUnknownCA:
		return measure.TLSUnknownAuthority
	}
	return ""
}

// query gives one entry for each reply, or one without answers.
func query(o *measure.Observation, entry object) (out []object) {
	d := o.DNS
	engine := map[string]string{"system": "getaddrinfo", "https": "doh", "tls": "dot"}[d.Transport]
	if engine == "" {
		engine = d.Transport
	}
	kind := d.Type
	if kind == "A+AAAA" {
		kind = "ANY"
	}
	entry["engine"], entry["hostname"], entry["query_type"] = engine, d.Name, kind
	entry["resolver_hostname"], entry["resolver_port"] = nil, nil
	entry["resolver_address"] = ""
	if d.Transport != "system" {
		if entry["resolver_address"] = d.Resolver; o.Remote != "" && d.Transport != "https" {
			entry["resolver_address"] = o.Remote
		}
	}
	entry["answers"] = nil
	if len(d.Replies) == 0 {
		return []object{entry}
	}
	for _, r := range d.Replies {
		one := object{}
		for k, v := range entry {
			one[k] = v
		}
		answers := []object{}
		for _, a := range r.Answers {
			x := object{"answer_type": a.Type, "ttl": nil}
			if a.TTLS > 0 {
				x["ttl"] = a.TTLS
			}
			if a.ASN > 0 {
				x["asn"] = a.ASN
			}
			ip := net.ParseIP(a.Value)
			switch {
			case ip != nil && ip.To4() != nil:
				x["ipv4"] = a.Value
			case ip != nil:
				x["ipv6"] = a.Value
			default:
				x["hostname"] = a.Value
			}
			answers = append(answers, x)
		}
		one["answers"] = answers
		if d.Transport != "system" {
			if code := slices.Index(rcodes, r.Rcode); code >= 0 {
				one["rcode"] = code
			}
		}
		if r.AtUS > 0 {
			one["t"] = seconds(r.AtUS)
		}
		out = append(out, one)
	}
	return out
}

func request(o *measure.Observation, entry object) object {
	h := o.HTTP
	transport, network := "tcp", "tcp"
	if h.Proto == "HTTP/3.0" {
		transport, network = "udp", "udp"
	}
	list, byName := [][2]string{}, map[string]string{}
	for _, x := range h.Headers {
		if slices.ContainsFunc(keptHeaders, func(k string) bool { return strings.EqualFold(k, x.Name) }) {
			list = append(list, [2]string{x.Name, x.Value})
			byName[x.Name] = x.Value
		}
	}
	if h.Location != "" && !slices.ContainsFunc(list, func(x [2]string) bool { return strings.EqualFold(x[0], "Location") }) {
		list, byName["Location"] = append(list, [2]string{"Location", h.Location}), h.Location
	}
	entry["network"], entry["address"], entry["alpn"] = network, o.Remote, ""
	entry["request"] = object{"method": h.Method, "url": o.URL, "headers": object{}, "headers_list": []string{}, "body": "", "body_is_truncated": false,
		"tor": object{"exit_ip": nil, "exit_name": nil, "is_tor": false}, "x_transport": transport}
	entry["response"] = object{"code": h.Status, "headers": byName, "headers_list": list, "body": "", "body_is_truncated": h.BodyBytes > 0,
		"x_govah_title": h.Title, "x_govah_body_bytes": h.BodyBytes, "x_govah_body_sha256": h.BodySHA256, "x_govah_simhash": h.Simhash}
	return entry
}

func accessible(v *measure.Verdict) any {
	switch v.Reachable {
	case measure.ReachableYes:
		return true
	case measure.ReachableNo:
		return false
	}
	return nil
}

// blocking says what OONI's word for the verdict is: only what is confirmed is
// called blocking.
func blocking(v *measure.Verdict) any {
	if v.Interference == measure.InterferenceNone {
		return false
	}
	if v.Interference != measure.InterferenceConfirmed {
		return nil
	}
	for _, f := range v.Findings {
		if f.Interference != measure.InterferenceConfirmed || f.Method.Benign() {
			continue
		}
		switch {
		case f.Method == measure.HTTPBlockPage || f.Method == measure.HTTPRedirect || f.Method == measure.HTTPTamper:
			return "http-diff"
		case f.Layer == measure.StepDNS:
			return "dns"
		case f.Layer == measure.StepTCP:
			return "tcp_ip"
		}
		return "http-failure"
	}
	return nil
}

// control gathers what helpers saw. Where two disagree about an endpoint, that
// it works counts.
type control struct {
	any       bool
	failed    measure.Failure
	dns       object
	addrs     []string
	tcp       object
	tls, quic object
	http      object
	info      object
}

func newControl() *control {
	return &control{tcp: object{}, tls: object{}, quic: object{}, info: object{}}
}

func (c *control) add(o *measure.Observation) {
	if o.Step == measure.StepHelper {
		if c.failed = o.Failure; o.Failure == "" {
			c.any = true
		}
		return
	}
	c.any = true
	put := func(into object, x object) {
		if old, ok := into[o.Remote].(object); o.Remote != "" && !(ok && old["status"] == true) {
			into[o.Remote] = x
		}
	}
	switch {
	case o.Step == measure.StepDNS && o.DNS != nil:
		for _, r := range o.DNS.Replies {
			for _, a := range r.Answers {
				if net.ParseIP(a.Value) == nil {
					continue
				}
				if !slices.Contains(c.addrs, a.Value) {
					c.addrs = append(c.addrs, a.Value)
				}
				if a.ASN > 0 {
					c.info[a.Value] = object{"asn": a.ASN, "flags": 2}
				}
			}
		}
		if c.dns == nil || o.Failure == "" {
			c.dns = object{"failure": failure(o.Failure)}
		}
	case o.Step == measure.StepTCP:
		put(c.tcp, object{"status": o.Failure == "", "failure": failure(o.Failure)})
	case o.Step == measure.StepTLS || o.Step == measure.StepQUIC:
		f := o.Failure
		if f == "" && o.TLS != nil {
			f = chainFailure(o.TLS)
		}
		into := c.tls
		if o.Step == measure.StepQUIC {
			into = c.quic
		}
		put(into, object{"server_name": o.SNI, "status": f == "", "failure": failure(f)})
	case o.Step == measure.StepHTTP && o.HTTP != nil:
		// The last of a chain of redirects is the page.
		x := object{"body_length": o.HTTP.BodyBytes, "discovered_h3_endpoint": o.HTTP.H3, "failure": failure(o.Failure), "title": o.HTTP.Title,
			"headers": object{}, "status_code": o.HTTP.Status}
		if c.http == nil || o.Failure == "" {
			c.http = x
		}
	}
}

func (c *control) failure() failure {
	if c.any {
		return ""
	}
	return failure(c.failed)
}

func (c *control) keys() object {
	if !c.any {
		return object{}
	}
	if c.dns == nil {
		c.dns = object{"failure": nil}
	}
	c.dns["addrs"] = append([]string{}, c.addrs...)
	out := object{"dns": c.dns, "tcp_connect": c.tcp, "tls_handshake": c.tls, "quic_handshake": c.quic, "ip_info": c.info}
	if c.http != nil {
		out["http_request"] = c.http
	}
	return out
}
