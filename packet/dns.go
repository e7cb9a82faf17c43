package packet

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// ErrNotDNS says that the bytes are no DNS message with one question.
var ErrNotDNS = errors.New("packet: not a DNS message with one question")

// Response codes of DNS (RFC 1035 4.1.1).
const (
	ServFail = dns.RcodeServerFailure
	NXDomain = dns.RcodeNameError
	Refused  = dns.RcodeRefused
)

// Question is the question of a DNS message.
type Question struct {
	ID         uint16
	Name       string // lower case, without the final dot
	NameAsSent string // without the final dot
	Type       uint16
	Response   bool
	EDNS       bool // an OPT record was found
}

// ParseQuestion reads the header and the question of a DNS message over UDP.
// What follows is searched for an OPT record, as far as it can be read: it may
// be garbage.
func ParseQuestion(b []byte) (Question, error) {
	var q Question
	if len(b) < 12 || b[4] != 0 || b[5] != 1 {
		return q, ErrNotDNS
	}
	name, at, err := dns.UnpackDomainName(b, 12)
	if err != nil || at+4 > len(b) {
		return q, ErrNotDNS
	}
	q.ID = uint16(b[0])<<8 | uint16(b[1])
	q.Response = b[2]&0x80 != 0
	q.NameAsSent = strings.TrimSuffix(name, ".")
	q.Name = strings.ToLower(q.NameAsSent)
	q.Type = uint16(b[at])<<8 | uint16(b[at+1])
	q.EDNS = hasOPT(b, at+4)
	return q, nil
}

// hasOPT searches the additional records of a message (RFC 6891 6.1.2), whose
// records begin at.
func hasOPT(b []byte, at int) bool {
	count := func(i int) int { return int(b[i])<<8 | int(b[i+1]) }
	before := count(6) + count(8)
	for i := range before + count(10) {
		name, next, err := dns.UnpackDomainName(b, at)
		if err != nil || next+10 > len(b) {
			return false
		}
		if i >= before && name == "." && uint16(count(next)) == dns.TypeOPT {
			return true
		}
		at = next + 10 + count(next+8)
	}
	return false
}

// TypeName is the name of a DNS record type, as AAAA.
func TypeName(t uint16) string {
	if s, ok := dns.TypeToString[t]; ok {
		return s
	}
	return fmt.Sprintf("TYPE%d", t)
}

// Answer is what to reply to a DNS query. Addresses of the family that was not
// asked for are left out, which makes an empty answer.
type Answer struct {
	RCode         int
	Addresses     []netip.Addr
	CNAME         string // before the addresses, which belong to it
	TTL           uint32 // seconds
	Authoritative bool
	AD            bool // authentic data (RFC 4035 3.2.3)
	// Any gives the addresses whatever the query's type was, as some
	// injectors do.
	Any bool
	// Plain leaves out the EDNS record that the query asks for, as injectors
	// do that know nothing of it.
	Plain bool
}

// BuildAnswer replies to a query: its id, its question as it was spelled, RD.
func BuildAnswer(query []byte, a Answer) ([]byte, error) {
	q := new(dns.Msg)
	if err := q.Unpack(query); err != nil || len(q.Question) != 1 || q.Response {
		return nil, ErrNotDNS
	}
	m := new(dns.Msg)
	m.SetRcode(q, a.RCode)
	m.RecursionAvailable = true
	m.Authoritative, m.AuthenticatedData = a.Authoritative, a.AD
	if e := q.IsEdns0(); e != nil && !a.Plain {
		m.SetEdns0(e.UDPSize(), e.Do())
	}
	asked := q.Question[0]
	h := dns.RR_Header{Name: asked.Name, Class: dns.ClassINET, Ttl: a.TTL}
	if a.CNAME != "" {
		h.Rrtype = dns.TypeCNAME
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: h, Target: dns.Fqdn(a.CNAME)})
		h.Name = dns.Fqdn(a.CNAME)
	}
	for _, addr := range a.Addresses {
		switch {
		case addr.Is4() && (asked.Qtype == dns.TypeA || a.Any):
			h.Rrtype = dns.TypeA
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: addr.AsSlice()})
		case addr.Is6() && (asked.Qtype == dns.TypeAAAA || a.Any):
			h.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: addr.AsSlice()})
		}
	}
	out, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("packet: making a DNS answer for %q: %w", asked.Name, err)
	}
	return out, nil
}
