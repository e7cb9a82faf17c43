package packet

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

func query(t testing.TB, name string, qtype uint16, edns bool) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	m.Id = 0xbeef
	if edns {
		m.SetEdns0(1232, true)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestQuestionAndAnswer(t *testing.T) {
	q := query(t, "WWW.Example.org", dns.TypeA, true)
	got, err := ParseQuestion(q)
	if err != nil || got != (Question{ID: 0xbeef, Name: "www.example.org", NameAsSent: "WWW.Example.org", Type: dns.TypeA, EDNS: true}) {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := ParseQuestion(query(t, "example.org", dns.TypeA, false)); err != nil || got.EDNS {
		t.Errorf("without EDNS: %+v, %v", got, err)
	}
	// What follows the question may be cut off: the OPT record is 11 bytes.
	for cut := len(q) - 11; cut < len(q); cut++ {
		if got, err := ParseQuestion(q[:cut]); err != nil || got.EDNS {
			t.Errorf("cut at %d of %d: %+v, %v", cut, len(q), got, err)
		}
	}
	raw, err := BuildAnswer(q, Answer{Addresses: []netip.Addr{netip.MustParseAddr("10.10.34.34"), netip.MustParseAddr("d0::11")}, CNAME: "edge.example.net", TTL: 60, Authoritative: true, AD: true})
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(raw); err != nil {
		t.Fatal(err)
	}
	if m.Id != 0xbeef || !m.Response || m.Question[0].Name != "WWW.Example.org." || !m.Authoritative || !m.AuthenticatedData || m.IsEdns0() == nil {
		t.Errorf("header or question not echoed: %v", m)
	}
	if len(m.Answer) != 2 || m.Answer[0].(*dns.CNAME).Target != "edge.example.net." || m.Answer[1].(*dns.A).A.String() != "10.10.34.34" || m.Answer[1].Header().Name != "edge.example.net." {
		t.Errorf("answers %v", m.Answer)
	}
	if r, err := ParseQuestion(raw); err != nil || !r.Response || !r.EDNS { // behind its answers
		t.Errorf("the answer's own question: %+v, %v", r, err)
	}
	if _, err := BuildAnswer(raw, Answer{}); !errors.Is(err, ErrNotDNS) {
		t.Errorf("an answer was answered: %v", err)
	}
	plain, _ := BuildAnswer(q, Answer{RCode: dns.RcodeNameError, Plain: true})
	if m.Unpack(plain); m.Rcode != dns.RcodeNameError || m.IsEdns0() != nil || len(m.Answer) != 0 {
		t.Errorf("NXDOMAIN without EDNS: %v", m)
	}
	// A name that points at itself.
	loop := append([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 0xc0, 12, 0, 1, 0, 1)
	if _, err := ParseQuestion(loop); !errors.Is(err, ErrNotDNS) {
		t.Errorf("a name that points at itself: %v", err)
	}
}

func FuzzDNS(f *testing.F) {
	f.Add(query(f, "example.org", dns.TypeAAAA, true))
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		ParseQuestion(b)
		BuildAnswer(b, Answer{Addresses: []netip.Addr{netip.IPv6Loopback()}, Any: true})
	})
}
