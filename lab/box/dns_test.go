package box

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"govah/packet"
)

// blockedDNS is a rule for names under blocked.example.
func blockedDNS(action string, change func(*Rule)) Rule {
	r := Rule{Layer: "dns", Names: []string{".blocked.example"}, Action: action}
	if change != nil {
		change(&r)
	}
	return r
}

func TestDNSAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		rule  Rule
		qtype uint16
		rcode int
		data  []string
	}{
		// IR-02, IR-04
		"instead":      {blockedDNS("dns-answer", func(r *Rule) { r.Answers = []string{"10.10.34.36", "d0::11"} }), dns.TypeA, 0, []string{"10.10.34.36"}},
		"for AAAA":     {blockedDNS("dns-answer", func(r *Rule) { r.Answers = []string{"10.10.34.36", "d0::11"} }), dns.TypeAAAA, 0, []string{"d0::11"}},
		"A for AAAA":   {blockedDNS("dns-answer", func(r *Rule) { r.Answers, r.AnyType = []string{"127.0.0.1"}, true }), dns.TypeAAAA, 0, []string{"127.0.0.1"}},
		"an alias":     {blockedDNS("dns-answer", func(r *Rule) { r.Answers, r.CNAME = []string{"216.239.38.120"}, "forced.example" }), dns.TypeA, 0, []string{"forced.example.", "216.239.38.120"}},
		"NXDOMAIN":     {blockedDNS("dns-nxdomain", nil), dns.TypeA, dns.RcodeNameError, nil}, // PK-01
		"SERVFAIL":     {blockedDNS("dns-servfail", nil), dns.TypeA, dns.RcodeServerFailure, nil},
		"REFUSED":      {blockedDNS("dns-refused", nil), dns.TypeA, dns.RcodeRefused, nil},
		"empty":        {blockedDNS("dns-empty", nil), dns.TypeA, 0, nil},
		"part of name": {Rule{Layer: "dns", Contains: []string{"ocked"}, Action: "dns-refused"}, dns.TypeA, dns.RcodeRefused, nil},
		"expression":   {Rule{Layer: "dns", Matches: []string{`^www\d*\.bl`}, Action: "dns-refused"}, dns.TypeA, dns.RcodeRefused, nil},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLink(t, c.rule)
			out := l.send(Out, question(t, "WWW.Blocked.example", c.qtype, 5000, 60))
			if !only(out, In) {
				t.Fatalf("%d packets left", len(out))
			}
			if out[0].Source() != ask4 || out[0].Destination() != netip.AddrPortFrom(client4.Addr(), 5000) {
				t.Errorf("the answer goes from %v to %v", out[0].Source(), out[0].Destination())
			}
			rcode, data, m := answer(t, out[0])
			if rcode != c.rcode || !slices.Equal(data, c.data) || m.Id != 5000 || m.Question[0].Name != "WWW.Blocked.example." {
				t.Errorf("rcode %d, data %v: %v", rcode, data, m)
			}
			if out := l.send(Out, question(t, "notblocked.example", c.qtype, 5001, 60)); name != "part of name" && !only(out, Out) {
				t.Errorf("a question for another name did not pass")
			}
		})
	}
}

func TestDNSInjectionRaces(t *testing.T) {
	inject := func(when string) Rule {
		return blockedDNS("dns-answer", func(r *Rule) {
			r.Answers, r.When, r.Count, r.Interval = []string{"10.10.34.34"}, when, 3, "2ms"
		})
	}
	q := question(t, "blocked.example", dns.TypeA, 5000, 60)
	// CN-01: on the path; the genuine answer arrives as well.
	l := newLink(t, inject("before"))
	out := l.send(Out, q)
	if len(to(out, In)) != 3 || len(to(out, Out)) != 1 || to(out, In)[2].delay != 4*time.Millisecond {
		t.Errorf("before: %d forged, %d passed", len(to(out, In)), len(to(out, Out)))
	}
	if !only(l.send(In, truth(t, q, "192.0.2.80")), In) {
		t.Error("before: the true answer did not pass")
	}
	l = newLink(t, inject("after"))
	if !only(l.send(Out, q), Out) {
		t.Error("after: something was injected before the true answer")
	}
	out = l.send(In, truth(t, q, "192.0.2.80"))
	if len(out) != 4 || out[0].delay != 0 || out[1].delay == 0 {
		t.Fatalf("after: %d packets", len(out))
	}
	if _, data, _ := answer(t, out[0]); data[0] != "192.0.2.80" {
		t.Errorf("after: the true answer is not the first: %v", data)
	}
	if _, data, _ := answer(t, out[3]); data[0] != "10.10.34.34" {
		t.Errorf("after: no forged answer follows: %v", data)
	}
}

func TestDNSMarksOfTheInjector(t *testing.T) {
	// TM-01: DNS TTL 300, IP ID 30000, initial TTL 128, no EDNS.
	l := newLink(t, blockedDNS("dns-answer", func(r *Rule) {
		r.Answers, r.TTL, r.IPID, r.Plain, r.Authority, r.DF = []string{"127.0.0.1"}, 128, 30000, true, true, true
	}))
	out := l.send(Out, question(t, "blocked.example", dns.TypeA, 5000, 60))
	_, _, m := answer(t, out[0])
	if out[0].TTL != 128 || out[0].ID != 30000 || !out[0].DF || m.Answer[0].Header().Ttl != 300 || !m.Authoritative {
		t.Errorf("TTL %d, ID %d, DF %v, %v", out[0].TTL, out[0].ID, out[0].DF, m)
	}
	// IR-03, IR-05, CN-03: the answer's TTL is what is left of the question's.
	l = newLink(t, blockedDNS("dns-answer", func(r *Rule) { r.Answers, r.CopyTTL = []string{"10.10.34.35"}, true }))
	for _, ttl := range []uint8{1, 9, 200} {
		if out := l.send(Out, question(t, "blocked.example", dns.TypeA, 5000, ttl)); out[0].TTL != ttl {
			t.Errorf("a question of TTL %d is answered with %d", ttl, out[0].TTL)
		}
	}
}

// CN-02: each answer has another TTL.
func TestRandomTTL(t *testing.T) {
	l := newLink(t, blockedDNS("dns-answer", func(r *Rule) { r.Answers, r.RandomTTL = []string{"192.0.2.66"}, true }))
	seen := map[uint8]bool{}
	for port := range uint16(100) {
		seen[l.send(Out, question(t, "blocked.example", dns.TypeA, 5000+port, 60))[0].TTL] = true
	}
	if len(seen) < 50 || seen[0] {
		t.Errorf("%d different TTLs in 100 answers", len(seen))
	}
}

func TestDNSDrop(t *testing.T) {
	// IR-01: the question is dropped on the path.
	l := newLink(t, blockedDNS("drop", nil))
	if out := l.send(Out, question(t, "blocked.example", dns.TypeA, 5000, 60)); len(out) != 0 {
		t.Errorf("%d packets left", len(out))
	}
	// The same port goes on working for other names.
	if out := l.send(Out, question(t, "other.example", dns.TypeA, 5000, 60)); !only(out, Out) {
		t.Error("another question from the same port was dropped")
	}
	// Only the answer is.
	l = newLink(t, blockedDNS("drop", func(r *Rule) { r.Side = "in" }))
	q := question(t, "blocked.example", dns.TypeA, 5000, 60)
	if !only(l.send(Out, q), Out) || len(l.send(In, truth(t, q, "192.0.2.1"))) != 0 {
		t.Error("not the answer alone was dropped")
	}
	q = question(t, "other.example", dns.TypeA, 5002, 60)
	if l.send(Out, q); !only(l.send(In, truth(t, q, "192.0.2.1")), In) {
		t.Error("another name's answer was dropped")
	}
	// One type only.
	l = newLink(t, blockedDNS("drop", func(r *Rule) { r.QType = "AAAA" }))
	if !only(l.send(Out, question(t, "blocked.example", dns.TypeA, 1, 60)), Out) || len(l.send(Out, question(t, "blocked.example", dns.TypeAAAA, 2, 60))) != 0 {
		t.Error("not the AAAA question alone was dropped")
	}
}

// TR-01: questions to public resolvers reach another one, and nobody notices
// from the addresses.
func TestDNSRedirect(t *testing.T) {
	l := newLink(t, Rule{Layer: "dns", Action: "dns-redirect", To: "192.0.2.253"})
	q := question(t, "any.example", dns.TypeA, 5000, 60)
	out := l.send(Out, q)
	if !only(out, Out) || out[0].Destination() != netip.MustParseAddrPort("192.0.2.253:53") || out[0].SrcPort != 5000 {
		t.Fatalf("the question goes to %v", out)
	}
	back := l.send(In, truth(t, append([]byte(nil), out[0].Raw...), "192.0.2.1"))
	if !only(back, In) || back[0].Source() != ask4 || back[0].Destination().Port() != 5000 {
		t.Fatalf("the answer comes from %v", back)
	}
	// Over TCP too, from the first segment on.
	c := l.open(client4, ask4)
	seg := l.send(Out, c.segment(true, packet.PSH|packet.ACK, []byte("\x00\x01x")))
	if !only(seg, Out) || seg[0].Dst != netip.MustParseAddr("192.0.2.253") {
		t.Errorf("a TCP segment goes to %v", seg[0].Destination())
	}
}

func TestDNSOverTCP(t *testing.T) {
	l := newLink(t, blockedDNS("dns-answer", func(r *Rule) { r.Answers = []string{"10.10.34.34"} }))
	c := l.open(client4, ask4)
	q := question(t, "blocked.example", dns.TypeA, 5000, 60)[28:]
	out := c.up(fmt.Sprintf("%c%c%s", len(q)>>8, len(q), q))
	if !only(out, In) || len(out[0].Payload) < 14 {
		t.Fatalf("%d packets", len(out))
	}
	m := new(dns.Msg)
	if err := m.Unpack(out[0].Payload[2:]); err != nil || len(m.Answer) != 1 || out[0].Seq != c.sseq || out[0].Ack != c.cseq {
		t.Errorf("%v, %v", m, err)
	}
}

// IR-03: from outside in as well.
func TestDNSFromOutside(t *testing.T) {
	outside := packet.BuildUDP(netip.MustParseAddrPort("203.0.113.99:7000"), netip.AddrPortFrom(client4.Addr(), 53), 40, 0, func() []byte {
		p, _ := packet.Parse(question(t, "blocked.example", dns.TypeA, 1, 1))
		return p.Payload
	}())
	l := newLink(t, blockedDNS("dns-answer", func(r *Rule) { r.Answers = []string{"10.10.34.34"} }))
	if !only(l.send(In, outside), In) {
		t.Error("a rule for questions going out answered one coming in")
	}
	l = newLink(t, blockedDNS("dns-answer", func(r *Rule) { r.Answers, r.Direction = []string{"10.10.34.34"}, "both" }))
	if out := l.send(In, outside); !only(out, Out) || out[0].Destination().Port() != 7000 {
		t.Errorf("a question from outside was not answered to the outside")
	}
}
