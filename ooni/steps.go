package ooni

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"govah/measure"
)

// query reads one element of queries (df-002).
func (p *Parser) query() {
	s := &p.s
	if !s.open('{') {
		return
	}
	st := p.begin(measure.StepDNS)
	d := &measure.DNS{}
	st.o.DNS = d
	var (
		engine, failure, resolver string
		reply                     measure.DNSReply
		t0, t                     float64
		hasT0                     bool
		rcode                     = -1
	)
	for n := 0; s.more('}', &n); {
		switch string(s.name()) {
		case "engine":
			engine = s.looseText()
		case "failure":
			failure = s.failure()
		case "hostname":
			d.Name = ascii(s.text())
		case "query_type":
			d.Type = s.text()
		case "resolver_address":
			resolver = s.looseText()
		case "rcode":
			if s.peek() != 'n' {
				rcode = int(s.integer())
			} else {
				s.skip()
			}
		case "raw_response":
			p.header(&reply, &rcode)
		case "t0":
			t0, hasT0 = s.number(), true
		case "t":
			t = s.number()
		case "transaction_id":
			st.tx = s.integer()
		case "answers":
			p.answers(&reply)
		default:
			s.skip()
		}
	}
	switch engine {
	case "udp", "tcp":
		d.Transport = engine
	case "dot":
		d.Transport = "tls"
	case "doh", "doh3":
		d.Transport = "https"
	default: // getaddrinfo, system, golang_net_resolver; the Python probe names none
		d.Transport = "system"
		st.o.Experiment = measure.ExpResolver
	}
	if d.Type == "ANY" {
		d.Type = "A+AAAA" // getaddrinfo asks for both
	}
	d.Resolver = resolver
	if _, err := netip.ParseAddrPort(resolver); err == nil {
		st.o.Remote = resolver
	}
	st.o.Failure, st.o.Detail = failureOf(failure)
	st.times(t0, t, hasT0)
	reply.AtUS = micros(t)
	switch {
	case rcode >= 0:
		reply.Rcode = rcodeText(rcode)
	case st.o.Failure == "" || st.o.Failure == measure.DNSNoAnswer:
		reply.Rcode = "NOERROR"
	case st.o.Failure == measure.DNSNXDomain:
		reply.Rcode = "NXDOMAIN"
	case st.o.Failure == measure.DNSServfail:
		reply.Rcode = "SERVFAIL"
	case st.o.Failure == measure.DNSRefused:
		reply.Rcode = "REFUSED"
	}
	// The system's resolver tells no response code, and its failures are no replies.
	if len(reply.Answers) > 0 || reply.Rcode != "" && (d.Transport != "system" || st.o.Failure == "") {
		d.Replies = []measure.DNSReply{reply}
	}
}

// rcodes are the response codes of RFC 1035 by their number.
var rcodes = []string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"}

func rcodeText(rcode int) string {
	if rcode < len(rcodes) {
		return rcodes[rcode]
	}
	return "RCODE" + strconv.Itoa(rcode)
}

// header reads flags and response code of a DNS message, its first four bytes
// (RFC 1035, 4.1.1).
func (p *Parser) header(r *measure.DNSReply, rcode *int) {
	if p.s.peek() != '"' {
		p.s.skip()
		return
	}
	raw := p.s.raw()
	var head [6]byte
	if len(raw) < 8 {
		return
	}
	if _, err := base64.StdEncoding.Decode(head[:], raw[:8]); err != nil {
		return
	}
	r.AA, r.AD = head[2]&4 != 0, head[3]&0x20 != 0
	if *rcode < 0 {
		*rcode = int(head[3] & 15)
	}
}

func (p *Parser) answers(r *measure.DNSReply) {
	s := &p.s
	if !s.open('[') {
		return
	}
	for n := 0; s.more(']', &n); {
		if !s.open('{') {
			continue
		}
		var a measure.DNSAnswer
		for n := 0; s.more('}', &n); {
			switch string(s.name()) {
			case "answer_type":
				a.Type = s.text()
			case "ipv4", "ipv6":
				a.Value = address(s.looseText())
			case "hostname":
				if name := s.looseText(); a.Value == "" {
					a.Value = name
				}
			case "asn":
				a.ASN = int(s.integer())
			case "ttl":
				a.TTLS = s.integer()
			default:
				s.skip()
			}
		}
		if a.Value != "" && len(r.Answers) < maxAnswers {
			if a.ASN != 0 {
				p.asns[a.Value] = a.ASN
			}
			r.Answers = append(r.Answers, a)
		}
	}
}

// address writes a numeric address in its canonical form; other text stays.
func address(text string) string {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap().String()
	}
	return text
}

// endpoint writes address and port in their canonical form.
func endpoint(text string) string {
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
	}
	return text
}

// tcpConnect reads one element of tcp_connect (df-005).
func (p *Parser) tcpConnect() {
	s := &p.s
	if !s.open('{') {
		return
	}
	st := p.begin(measure.StepTCP)
	st.o.TCP = &measure.TCP{}
	var ip, failure string
	var port int64
	var t0, t float64
	var hasT0, status, success bool
	for n := 0; s.more('}', &n); {
		switch string(s.name()) {
		case "ip":
			ip = s.text()
		case "port":
			port = s.integer()
		case "status":
			if s.peek() != '{' {
				s.skip()
				continue
			}
			status = true
			s.open('{')
			for n := 0; s.more('}', &n); {
				switch string(s.name()) {
				case "failure":
					failure = s.failure()
				case "success":
					success = s.truth()
				default:
					s.skip()
				}
			}
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
	if status && !success && failure == "" {
		failure = "connect_error"
	}
	st.o.Remote = net.JoinHostPort(address(ip), strconv.FormatInt(port, 10))
	st.o.Failure, st.o.Detail = failureOf(failure)
	st.times(t0, t, hasT0)
	if hasT0 && failure == "" {
		st.o.TCP.RTTUS = st.o.TookUS
	}
}

// handshake reads one element of tls_handshakes or quic_handshakes (df-006).
func (p *Parser) handshake(kind measure.Step) {
	s := &p.s
	if !s.open('{') {
		return
	}
	st := p.begin(kind)
	t := &measure.TLS{Alert: -1}
	st.o.TLS = t
	var failure string
	var from, to float64
	var hasFrom, unverified bool
	for n := 0; s.more('}', &n); {
		switch string(s.name()) {
		case "address":
			st.o.Remote = endpoint(s.looseText())
		case "server_name", "sni":
			st.o.SNI = ascii(s.looseText())
		case "tls_version":
			t.Version = s.looseText()
		case "cipher_suite":
			t.Cipher = s.looseText()
		case "negotiated_protocol":
			t.ALPN = s.looseText()
		case "no_tls_verify":
			unverified = s.truth()
		case "failure":
			failure = s.failure()
		case "peer_certificates":
			p.certificates(t)
		case "t0":
			from, hasFrom = s.number(), true
		case "t":
			to = s.number()
		case "transaction_id":
			st.tx = s.integer()
		default:
			s.skip()
		}
	}
	st.o.Failure, st.o.Detail = failureOf(failure)
	st.times(from, to, hasFrom)
	verification(&st.o, unverified)
}

// verification says what the outcome of a handshake tells of the chain: OONI
// verifies against roots of its own, the public ones.
func verification(o *measure.Observation, unverified bool) {
	t := o.TLS
	switch o.Failure {
	case measure.NoFailure:
		t.ServerBytes = true
		if !unverified {
			t.Public = measure.VerifiedOK
		}
	case measure.TLSInvalidHostname:
		t.ServerBytes, t.Public = true, measure.VerifyWrongName
	case measure.TLSUnknownAuthority:
		t.ServerBytes, t.Public = true, measure.VerifyUnknownCA
	case measure.TLSInvalidCert:
		t.ServerBytes, t.Public = true, measure.VerifyExpired
	case measure.TLSFailedHandshake:
		t.ServerBytes = true
	}
	t.ServerBytes = t.ServerBytes || len(t.Chain) > 0
}

// certificate is a certificate that was seen, and what records say of it.
type certificate struct {
	der             []byte
	sha256          string
	subject, issuer string
	names           []string
	from, to        int64
	serial          string
	signer          measure.Signer
}

// maxCertificates bounds those kept between lines: the same few come again and
// again.
const maxCertificates = 512

func (p *Parser) certificates(t *measure.TLS) {
	s := &p.s
	if !s.open('[') {
		return
	}
	if len(p.certs) > maxCertificates {
		clear(p.certs)
	}
	for n := 0; s.more(']', &n); {
		raw := s.blob()
		if len(raw) == 0 || len(t.Chain) >= maxChain {
			continue
		}
		c := p.certs[string(raw)]
		if c == nil {
			if c = newCertificate(raw); c == nil {
				continue
			}
			p.certs[string(raw)] = c
		}
		if len(t.Chain) == 0 {
			t.Subject, t.Issuer, t.Names, t.NotBeforeS, t.NotAfterS = c.subject, c.issuer, c.names, c.from, c.to
			t.SPKI, t.Serial = c.signer.SPKI, c.serial
		}
		t.Chain, t.Signers = append(t.Chain, c.sha256), append(t.Signers, c.signer)
	}
}

func newCertificate(raw []byte) *certificate {
	der := make([]byte, base64.StdEncoding.DecodedLen(len(raw)))
	k, err := base64.StdEncoding.Decode(der, raw)
	if err != nil {
		return nil
	}
	c := &certificate{der: der[:k]}
	hash := func(b []byte) string {
		sum := sha256.Sum256(b)
		return hex.EncodeToString(sum[:])
	}
	c.sha256 = hash(c.der)
	if x, err := x509.ParseCertificate(c.der); err == nil {
		c.subject, c.issuer = x.Subject.String(), x.Issuer.String()
		c.from, c.to = x.NotBefore.Unix(), x.NotAfter.Unix()
		for _, name := range x.DNSNames[:min(len(x.DNSNames), 64)] {
			c.names = append(c.names, strings.ToValidUTF8(name, "\uFFFD"))
		}
		c.subject, c.issuer = strings.ToValidUTF8(c.subject, "\uFFFD"), strings.ToValidUTF8(c.issuer, "\uFFFD")
		c.serial = x.SerialNumber.Text(16)
		c.signer = measure.Signer{Issuer: c.issuer, AKI: hex.EncodeToString(x.AuthorityKeyId[:min(len(x.AuthorityKeyId), 64)]), SPKI: hash(x.RawSubjectPublicKeyInfo)}
	}
	return c
}

// blob reads binary data that stays undecoded: {"data": …, "format": "base64"}.
func (s *scanner) blob() (raw []byte) {
	if s.peek() != '{' {
		s.skip()
		return nil
	}
	s.open('{')
	for n := 0; s.more('}', &n); {
		if string(s.name()) == "data" && s.peek() == '"' {
			raw = s.raw()
		} else {
			s.skip()
		}
	}
	if bytes.IndexByte(raw, '\\') >= 0 {
		raw = s.unescape(nil, raw)
	}
	return raw
}
