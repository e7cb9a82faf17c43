package ooni

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"

	"govah/measure"
)

// vocabulary is df-007 as package measure has it.
var vocabulary = map[measure.Failure]bool{}

func init() {
	for _, f := range []measure.Failure{
		measure.GenericTimeout, measure.ConnectionRefused, measure.ConnectionReset, measure.ConnectionAborted, measure.EOF,
		measure.HostUnreachable, measure.NetworkUnreachable, measure.NetworkDown, measure.AddressNotAvailable, measure.AddressInUse,
		measure.PermissionDenied, measure.DNSNXDomain, measure.DNSNoAnswer, measure.DNSBogon, measure.DNSRefused, measure.DNSServfail,
		measure.DNSTemporary, measure.DNSNonRecoverable, measure.DNSReplyWrongID, measure.AndroidDNSCacheNoData,
		measure.TLSInvalidHostname, measure.TLSUnknownAuthority, measure.TLSInvalidCert, measure.TLSFailedHandshake,
		measure.QUICIncompatible, measure.Interrupted,
	} {
		vocabulary[f] = true
	}
}

// older are words of earlier probes (Measurement Kit, the Python probe) and of
// test helpers that mean the same as one of df-007.
var older = map[string]measure.Failure{
	"connection_refused_error":  measure.ConnectionRefused,
	"connection_reset_error":    measure.ConnectionReset,
	"response_never_received":   measure.EOF,
	"connection_lost_error":     measure.EOF,
	"task_timed_out":            measure.GenericTimeout,
	"deferred_timeout_error":    measure.GenericTimeout,
	"tcp_timed_out_error":       measure.GenericTimeout,
	"connect_timeout":           measure.GenericTimeout,
	"timed_out":                 measure.GenericTimeout,
	"host_unreachable_error":    measure.HostUnreachable,
	"network_unreachable_error": measure.NetworkUnreachable,
	"no_route_to_host":          measure.HostUnreachable,
	"dns_server_failure":        measure.DNSServfail,
	"dns_name_error":            measure.DNSNXDomain,
	"dns_timeout":               measure.GenericTimeout,
	"ssl_error":                 measure.TLSFailedHandshake,
	"context_canceled":          measure.Interrupted,
	"operation_canceled":        measure.Interrupted,
}

// probes are the beginnings of words for what probes could not do with an
// answer that came: that says nothing about the network.
var probes = []string{
	"http_invalid_redirect", "http_too_many_redirects", "http_parser", "http_unexpected", "http_cannot_parse",
	"unknown_failure 'ascii' codec", "unknown_failure: http: ", "unknown_failure: Get ", "json_parse_error", "json_processing_error",
}

// failureOf puts a failure into the vocabulary; what is not in it keeps its
// words as detail.
func failureOf(text string) (measure.Failure, string) {
	switch {
	case text == "":
		return "", ""
	case vocabulary[measure.Failure(text)]:
		return measure.Failure(text), ""
	case older[text] != "":
		return older[text], text
	case slices.ContainsFunc(probes, func(prefix string) bool { return strings.HasPrefix(text, prefix) }):
		return measure.Unsupported, text
	case strings.HasPrefix(text, measure.UnknownFailurePrefix):
		return measure.Failure(text), ""
	}
	return measure.Failure(measure.UnknownFailurePrefix + text), text
}

// target reads the input: a URL, whose path may be missing.
func target(input string) (measure.Target, error) {
	if input == "" {
		return measure.Target{}, errors.New("there is none")
	}
	u, err := url.Parse(strings.TrimSpace(input))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return measure.Target{}, fmt.Errorf("%s is no http or https URL", strconv.QuoteToASCII(input[:min(len(input), 80)]))
	}
	t := measure.Target{Scheme: u.Scheme, Host: strings.ToLower(u.Hostname()), Port: 443}
	if u.Scheme == "http" {
		t.Port = 80
	}
	if a, err := netip.ParseAddr(t.Host); err == nil {
		t.Host = a.String()
	} else if ascii, err := idna.Lookup.ToASCII(t.Host); err == nil {
		t.Host = ascii
	}
	host := t.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if text := u.Port(); text != "" {
		port, err := strconv.Atoi(text)
		if err != nil || port < 1 || port > 65535 {
			return measure.Target{}, fmt.Errorf("%s is no port", strconv.QuoteToASCII(text))
		}
		if port != t.Port {
			host += ":" + strconv.Itoa(port)
		}
		t.Port = port
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	t.URL = u.Scheme + "://" + host + path
	if u.RawQuery != "" {
		t.URL += "?" + u.RawQuery
	}
	return t, nil
}

// hostOf is the host of a URL as names are written in records.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return ascii(u.Hostname())
}

func ascii(host string) string {
	for i := range len(host) {
		if host[i] >= 0x80 {
			if out, err := idna.Lookup.ToASCII(host); err == nil {
				return out
			}
			break
		}
	}
	return strings.ToLower(host)
}

// portOf is the port of a URL with its colon.
func portOf(text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return ""
	case u.Port() != "":
		return ":" + u.Port()
	case u.Scheme == "http":
		return ":80"
	}
	return ":443"
}
