package ooni

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"html"
	"net"
	"strings"

	"govah/measure"
)

// request reads one element of requests (df-001).
func (p *Parser) request() {
	s := &p.s
	if !s.open('{') {
		return
	}
	st := p.begin(measure.StepHTTP)
	h := &measure.HTTP{Method: "GET"}
	st.o.HTTP = h
	var failure string
	var t0, t float64
	var hasT0 bool
	for n := 0; s.more('}', &n); {
		switch string(s.name()) {
		case "address":
			st.o.Remote = endpoint(s.looseText())
		case "failure":
			failure = s.failure()
		case "request":
			p.asked(&st.o)
		case "response":
			p.response(h)
		case "t0":
			t0, hasT0 = s.number(), true
		case "t":
			t = s.number()
		case "transaction_id":
			st.tx = s.integer()
		default:
			s.skip()
		}
	}
	st.o.Failure, st.o.Detail = failureOf(failure)
	st.times(t0, t, hasT0)
	// Any other answer over TLS would have failed: the probe verifies, except
	// for the Python one.
	h.Authenticated = p.verifies && failure == "" && h.Status > 0 && strings.HasPrefix(st.o.URL, "https:")
}

func (p *Parser) asked(o *measure.Observation) {
	s := &p.s
	if !s.open('{') {
		return
	}
	for n := 0; s.more('}', &n); {
		switch string(s.name()) {
		case "url":
			o.URL = s.text()
		case "method":
			if m := s.looseText(); m != "" {
				o.HTTP.Method = m
			}
		case "x_transport":
			if s.looseText() == "udp" {
				o.HTTP.Proto = "HTTP/3.0"
			}
		default:
			s.skip()
		}
	}
}

func (p *Parser) response(h *measure.HTTP) {
	s := &p.s
	if !s.open('{') {
		return
	}
	for n := 0; s.more('}', &n); {
		switch string(s.name()) {
		case "code":
			if h.Status = int(s.integer()); h.Status < 0 || h.Status > 999 {
				h.Status = 0
			}
		case "headers_list":
			p.headerList(h)
		case "headers":
			if h.Headers != nil {
				s.skip()
			} else {
				p.headerMap(h)
			}
		case "body":
			p.body(h)
		case "body_is_truncated":
			h.BodyTruncated = s.truth()
		default:
			s.skip()
		}
	}
	described(h)
}

// headerList reads [["name", "value"], …]; a value may be binary.
func (p *Parser) headerList(h *measure.HTTP) {
	s := &p.s
	if !s.open('[') {
		return
	}
	h.Headers = h.Headers[:0]
	for n := 0; s.more(']', &n); {
		if !s.open('[') {
			continue
		}
		var x measure.Header
		for n := 0; s.more(']', &n); {
			switch {
			case n == 1:
				x.Name = s.looseText()
			case n == 2:
				x.Value = p.value()
			default:
				s.skip()
			}
		}
		if len(h.Headers) < maxHeaders && x.Name != "" {
			h.Headers = append(h.Headers, x)
		}
	}
}

func (p *Parser) headerMap(h *measure.HTTP) {
	s := &p.s
	if s.peek() != '{' {
		s.skip()
		return
	}
	s.open('{')
	for n := 0; s.more('}', &n); {
		x := measure.Header{Name: strings.ToValidUTF8(string(s.name()), "\uFFFD")}
		x.Value = p.value()
		if len(h.Headers) < maxHeaders {
			h.Headers = append(h.Headers, x)
		}
	}
}

// value is text or binary data, here as text.
func (p *Parser) value() string {
	s := &p.s
	switch s.peek() {
	case '"':
		return s.text()
	case '{':
		data, err := base64.StdEncoding.DecodeString(string(s.blob()))
		if err != nil {
			return ""
		}
		return strings.ToValidUTF8(string(data), "\uFFFD")
	case '[':
		// The Python probe: a list of values.
		out := ""
		s.open('[')
		for n := 0; s.more(']', &n); {
			if v := s.looseText(); n == 1 {
				out = v
			}
		}
		return out
	}
	s.skip()
	return ""
}

// described fills in what follows from the headers.
func described(h *measure.HTTP) {
	for _, x := range h.Headers {
		switch {
		case strings.EqualFold(x.Name, "Location") && h.Location == "":
			h.Location = x.Value
		case strings.EqualFold(x.Name, "Alt-Svc") && h.H3 == "":
			if _, rest, ok := strings.Cut(x.Value, `h3="`); ok {
				h.H3, _, _ = strings.Cut(rest, `"`)
			}
		}
	}
}

// body keeps the body for who judges, with its hash and title.
func (p *Parser) body(h *measure.HTTP) {
	s := &p.s
	at := len(p.arena)
	switch s.peek() {
	case '"':
		p.arena = s.unescape(p.arena, s.raw())
	case '{':
		raw := s.blob()
		p.arena = append(p.arena, make([]byte, base64.StdEncoding.DecodedLen(len(raw)))...)
		k, err := base64.StdEncoding.Decode(p.arena[at:], raw)
		if err != nil {
			s.fail("a body that is no base64")
			return
		}
		p.arena = p.arena[:at+k]
	default:
		s.skip()
		return
	}
	b := p.arena[at:]
	if len(b) == 0 {
		return
	}
	sum := sha256.Sum256(b)
	h.BodyBytes, h.BodySHA256, h.Title = int64(len(b)), hex.EncodeToString(sum[:]), title(b)
	p.bodies[h.BodySHA256] = b
}

// title finds the title of an HTML page in its first 64 KiB; at most 256
// bytes of it.
func title(b []byte) string {
	b = b[:min(len(b), 64<<10)]
	for {
		k := bytes.IndexByte(b, '<')
		if k < 0 || len(b)-k < 7 {
			return ""
		}
		b = b[k+1:]
		if !bytes.EqualFold(b[:5], []byte("title")) {
			continue
		}
		open := bytes.IndexByte(b, '>')
		if open < 0 {
			return ""
		}
		b = b[open+1:]
		end := bytes.IndexByte(b, '<')
		if end < 0 {
			return ""
		}
		text := strings.ToValidUTF8(string(b[:min(end, 256)]), "\uFFFD")
		return strings.Join(strings.Fields(html.UnescapeString(text)), " ")
	}
}

// controls reads what the test helper saw.
func (p *Parser) controls() {
	s := &p.s
	if s.peek() != '{' {
		s.skip()
		return
	}
	s.open('{')
	for n := 0; s.more('}', &n); {
		name := s.name()
		switch string(name) {
		case "dns":
			p.controlDNS()
		case "tcp_connect":
			p.controlEndpoints(measure.StepTCP)
		case "tls_handshake":
			p.controlEndpoints(measure.StepTLS)
		case "quic_handshake":
			p.controlEndpoints(measure.StepQUIC)
		case "http_request":
			p.controlPage("")
		case "http3_request":
			p.controlPage("HTTP/3.0")
		case "ip_info":
			p.controlAddresses()
		default:
			s.skip()
		}
	}
}

func (p *Parser) controlDNS() {
	s := &p.s
	if !s.open('{') {
		return
	}
	var failure string
	r := measure.DNSReply{Rcode: "NOERROR"}
	for n := 0; s.more('}', &n); {
		switch string(s.name()) {
		case "failure":
			failure = s.failure()
		case "addrs":
			if !s.open('[') {
				continue
			}
			for n := 0; s.more(']', &n); {
				a := address(s.looseText())
				if a == "" || len(r.Answers) >= maxAnswers {
					continue
				}
				kind := "CNAME" // old helpers list the names on the way too
				switch {
				case isAddress(a) && strings.Contains(a, ":"):
					kind = "AAAA"
				case isAddress(a):
					kind = "A"
				}
				r.Answers = append(r.Answers, measure.DNSAnswer{Type: kind, Value: a})
			}
		default:
			s.skip()
		}
	}
	if failure == "" && len(r.Answers) == 0 || isAddress(p.target.Host) {
		return // there was no answer of the helper, or nothing to ask
	}
	o := p.beginHelper(measure.StepDNS, failure)
	o.DNS = &measure.DNS{Name: p.target.Host, Type: "A+AAAA", Transport: "system"}
	if len(r.Answers) > 0 {
		o.DNS.Replies = []measure.DNSReply{r}
	}
}

func isAddress(text string) bool { return net.ParseIP(text) != nil }

// controlEndpoints reads {"address:port": {"status": …, "failure": …}}.
func (p *Parser) controlEndpoints(kind measure.Step) {
	s := &p.s
	if !s.open('{') {
		return
	}
	for n := 0; s.more('}', &n); {
		remote := endpoint(strings.ToValidUTF8(string(s.name()), "\uFFFD"))
		if s.peek() != '{' {
			s.skip()
			continue
		}
		s.open('{')
		var failure, name string
		ok := false
		for n := 0; s.more('}', &n); {
			switch string(s.name()) {
			case "failure":
				failure = s.failure()
			case "status":
				ok = s.truth()
			case "server_name":
				name = ascii(s.looseText())
			default:
				s.skip()
			}
		}
		if !ok && failure == "" {
			failure = "connect_error"
		}
		o := p.beginHelper(kind, failure)
		o.Remote = remote
		if kind == measure.StepTCP {
			o.TCP = &measure.TCP{}
			continue
		}
		if o.SNI = name; name == "" {
			o.SNI = p.target.Host
		}
		o.TLS = &measure.TLS{Alert: -1}
		verification(o, false)
	}
}

func (p *Parser) controlPage(proto string) {
	s := &p.s
	if s.peek() != '{' {
		s.skip()
		return
	}
	s.open('{')
	h := &measure.HTTP{Method: "GET", Proto: proto}
	var failure string
	for n := 0; s.more('}', &n); {
		switch string(s.name()) {
		case "failure":
			failure = s.failure()
		case "status_code":
			if h.Status = int(s.integer()); h.Status < 0 || h.Status > 999 {
				h.Status = 0
			}
		case "title":
			h.Title = s.looseText()
		case "body_length":
			h.BodyBytes = max(0, s.integer())
		case "headers":
			p.headerMap(h)
		case "discovered_h3_endpoint":
			h.H3 = s.looseText()
		default:
			s.skip()
		}
	}
	if failure == "" && h.Status == 0 {
		return // there was no answer of the helper
	}
	endpoint := h.H3
	described(h)
	if endpoint != "" {
		h.H3 = endpoint
	}
	o := p.beginHelper(measure.StepHTTP, failure)
	o.URL, o.HTTP = p.target.URL, h
	h.Authenticated = failure == "" && p.target.Scheme == "https"
}

// controlAddresses reads ip_info: {"address": {"asn": …, "flags": …}}.
func (p *Parser) controlAddresses() {
	s := &p.s
	if s.peek() != '{' {
		s.skip()
		return
	}
	s.open('{')
	for n := 0; s.more('}', &n); {
		a := address(string(s.name()))
		if s.peek() != '{' {
			s.skip()
			continue
		}
		s.open('{')
		for n := 0; s.more('}', &n); {
			if string(s.name()) != "asn" {
				s.skip()
			} else if as := s.integer(); as > 0 {
				p.asns[a] = int(as)
			}
		}
	}
}
