package ooni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"govah/measure"
)

// ErrNotExported says that a measurement would mislead in OONI's format.
var ErrNotExported = errors.New("not written in OONI's format")

type object map[string]any

// Export writes a web measurement as OONI's web connectivity 0.5 does (data
// format 0.2.0), with our verdict under x_govah_ keys. Through a tunnel, a
// proxy or a captive portal it is refused: the line would describe another
// network than the one it names.
func Export(m *measure.Measurement, v *measure.Verdict, run *measure.Run) ([]byte, error) {
	switch {
	case m.Vantage.Tunnel || m.Vantage.Proxy:
		return nil, fmt.Errorf("%w: it was measured through a VPN or proxy and describes that exit", ErrNotExported)
	case m.Vantage.Captive:
		return nil, fmt.Errorf("%w: a captive portal was in the way", ErrNotExported)
	case !strings.HasPrefix(m.Target, "http://") && !strings.HasPrefix(m.Target, "https://"):
		return nil, fmt.Errorf("%w: %s is no web page", ErrNotExported, m.Target)
	}
	started, err := time.Parse(time.RFC3339, m.Started)
	if err != nil {
		return nil, fmt.Errorf("%w: its start %q is no time", ErrNotExported, m.Started)
	}
	asn := func(n int) string { return fmt.Sprintf("AS%d", n) }
	country := m.Vantage.Country
	if country == "" {
		country = "ZZ"
	}
	queries, tcp, tls, quic, requests := []object{}, []object{}, []object{}, []object{}, []object{}
	control := object{"tcp_connect": object{}, "tls_handshake": object{}, "quic_handshake": object{}, "dns": object{"failure": nil, "addrs": []string{}}, "http_request": nil, "ip_info": object{}}
	helped := false
	for i := range m.Observations {
		o := &m.Observations[i]
		if o.Role == measure.RoleHelper {
			helped = true
			addControl(control, o)
			continue
		}
		if o.Role == measure.RoleCanary || o.Stage != measure.StageScreen {
			continue
		}
		base := object{"t0": float64(o.StartUS) / 1e6, "t": float64(o.StartUS+o.TookUS) / 1e6, "failure": fail(o.Failure), "tags": []string{}, "transaction_id": i + 1}
		switch {
		case o.Step == measure.StepDNS && o.DNS != nil && o.DNS.Type != "HTTPS":
			queries = append(queries, query(base, o))
		case o.Step == measure.StepTCP:
			ap, err := netip.ParseAddrPort(o.Remote)
			if err != nil {
				continue
			}
			base["ip"], base["port"] = ap.Addr().String(), ap.Port()
			base["status"] = object{"success": o.Failure == "", "failure": fail(o.Failure)}
			delete(base, "failure")
			tcp = append(tcp, base)
		case o.Step == measure.StepTLS && o.TLS != nil:
			tls = append(tls, handshake(base, o, "tcp"))
		case o.Step == measure.StepQUIC && o.TLS != nil:
			quic = append(quic, handshake(base, o, "udp"))
		case o.Step == measure.StepHTTP && o.HTTP != nil && o.Role == measure.RoleTest && o.Experiment != measure.ExpHostElsewhere && o.Experiment != measure.ExpPlain:
			requests = append([]object{request(base, o)}, requests...)
		}
	}
	keys := object{
		"agent": "redirect", "client_resolver": "", "retries": nil, "socksproxy": nil, "network_events": []object{},
		"queries": queries, "tcp_connect": tcp, "tls_handshakes": tls, "quic_handshakes": quic, "requests": requests,
		"control": nil, "control_failure": nil, "blocking": blocking(v), "accessible": accessible(v),
		"x_govah_verdict": v, "x_govah_version": run.Version, "x_govah_rules": v.Rules,
	}
	if helped {
		keys["control"] = control
	} else {
		keys["control_failure"] = "unknown_failure: no helper was used"
	}
	clock := started.UTC().Format(time.DateTime)
	return json.Marshal(object{
		"annotations":         object{"engine_name": "govah", "engine_version": run.Version, "platform": runtime.GOOS, "architecture": runtime.GOARCH},
		"data_format_version": "0.2.0", "extensions": object{"dnst": 0, "httpt": 0, "netevents": 0, "tcpconnect": 0, "tlshandshake": 0, "tunnel": 0},
		"input": m.Target, "measurement_start_time": clock, "test_start_time": clock,
		"probe_asn": asn(m.Vantage.ASN), "probe_cc": country, "probe_ip": "127.0.0.1", "probe_network_name": m.Vantage.Network,
		"resolver_asn": asn(m.Vantage.ResolverASN), "resolver_ip": "127.0.0.2", "resolver_network_name": "",
		"report_id": "", "software_name": "govah", "software_version": run.Version, "test_helpers": object{},
		"test_keys": keys, "test_name": "web_connectivity", "test_runtime": float64(m.ElapsedMS) / 1000, "test_version": "0.5.28",
	})
}

func fail(f measure.Failure) any {
	if f == "" {
		return nil
	}
	return string(f)
}

func query(base object, o *measure.Observation) object {
	base["hostname"] = o.DNS.Name
	base["query_type"] = o.DNS.Type
	base["resolver_hostname"], base["resolver_port"] = nil, nil
	base["resolver_address"] = ""
	switch o.DNS.Transport {
	case "system":
		base["engine"], base["query_type"] = "getaddrinfo", "ANY"
	case "https":
		base["engine"], base["resolver_address"] = "doh", o.DNS.Resolver
	case "tls":
		base["engine"], base["resolver_address"] = "dot", o.DNS.Resolver
	default:
		// Whose resolver it is would tell where the device is.
		base["engine"] = o.DNS.Transport
	}
	answers := []object{}
	for _, r := range o.DNS.Replies {
		for _, a := range r.Answers {
			out := object{"answer_type": a.Type, "asn": a.ASN, "ttl": a.TTLS}
			switch a.Type {
			case "A":
				out["ipv4"] = a.Value
			case "AAAA":
				out["ipv6"] = a.Value
			case "CNAME":
				out["hostname"] = a.Value
			default:
				continue
			}
			answers = append(answers, out)
		}
		break // further answers have no place in df-002
	}
	base["answers"] = answers
	return base
}

func handshake(base object, o *measure.Observation, network string) object {
	base["network"], base["address"], base["server_name"] = network, o.Remote, o.SNI
	base["tls_version"], base["cipher_suite"], base["negotiated_protocol"] = o.TLS.Version, o.TLS.Cipher, o.TLS.ALPN
	base["no_tls_verify"], base["peer_certificates"] = false, []object{}
	return base
}

func request(base object, o *measure.Observation) object {
	list, m := [][]string{}, object{}
	for _, h := range o.HTTP.Headers {
		list = append(list, []string{h.Name, h.Value})
		m[h.Name] = h.Value
	}
	base["network"], base["address"], base["alpn"] = "tcp", o.Remote, o.HTTP.Proto
	base["request"] = object{"method": o.HTTP.Method, "url": o.URL, "headers": object{}, "headers_list": [][]string{}, "body": "", "body_is_truncated": false, "x_transport": "tcp"}
	base["response"] = object{"code": o.HTTP.Status, "headers": m, "headers_list": list, "body": "", "body_is_truncated": true}
	return base
}

func addControl(c object, o *measure.Observation) {
	switch o.Step {
	case measure.StepTCP:
		c["tcp_connect"].(object)[o.Remote] = object{"status": o.Failure == "", "failure": fail(o.Failure)}
	case measure.StepTLS:
		c["tls_handshake"].(object)[o.Remote] = object{"server_name": o.SNI, "status": o.Failure == "", "failure": fail(o.Failure)}
	case measure.StepDNS:
		if o.DNS == nil || o.DNS.Type == "HTTPS" {
			return
		}
		d := c["dns"].(object)
		addrs := d["addrs"].([]string)
		for _, r := range o.DNS.Replies {
			for _, a := range r.Answers {
				if a.Type == "A" || a.Type == "AAAA" {
					addrs = append(addrs, a.Value)
				}
			}
		}
		d["addrs"], d["failure"] = addrs, fail(o.Failure)
	case measure.StepHTTP:
		if o.HTTP == nil {
			return
		}
		m := object{}
		for _, h := range o.HTTP.Headers {
			m[h.Name] = h.Value
		}
		c["http_request"] = object{"body_length": o.HTTP.BodyBytes, "failure": fail(o.Failure), "title": o.HTTP.Title, "status_code": o.HTTP.Status, "headers": m, "discovered_h3_endpoint": ""}
	}
}

// blocking is the nearest of OONI's own words.
func blocking(v *measure.Verdict) any {
	if v.Interference == measure.InterferenceUnknown {
		return nil
	}
	for _, f := range v.Findings {
		if f.Method.Benign() {
			continue
		}
		switch f.Layer {
		case measure.StepDNS:
			return "dns"
		case measure.StepTCP:
			return "tcp_ip"
		case measure.StepHTTP:
			if f.Method == measure.HTTPBlockPage || f.Method == measure.HTTPTamper || f.Method == measure.HTTPRedirect {
				return "http-diff"
			}
		}
		return "http-failure"
	}
	return false
}

func accessible(v *measure.Verdict) any {
	switch v.Reachable {
	case measure.ReachableYes, measure.ReachablePartly:
		return true
	case measure.ReachableNo:
		return false
	}
	return nil
}
