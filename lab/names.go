package lab

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// reply begins an answer as a resolver does: recursive, and with EDNS where the
// question had it (RFC 6891, 6.1.1).
func reply(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	if q.IsEdns0() != nil {
		m.SetEdns0(1232, false)
	}
	return m
}

// resolver is one that answers at an address.
type resolver struct {
	w       *World
	country string // where it asks from
	lies    []*Lie
	addr    netip.Addr
	id      string   // what it says of itself, "" nothing
	strips  []string // rrsig, ech: what it leaves out of answers
	simple  bool     // it knows neither DNSSEC nor the type HTTPS
}

// resolverOf is a site's resolver at an address.
func (w *World) resolverOf(t *Site, a netip.Addr) *resolver {
	return &resolver{w: w, country: t.net.Country, addr: a, id: t.Identity}
}

func (w *World) operators() *resolver {
	c := w.Client
	return &resolver{w: w, country: c.Country, lies: c.Lies, addr: c.resolver, id: "resolver.operator.example", strips: c.Strips, simple: c.SimpleDNS}
}

// answer gives nil where the resolver stays silent.
func (r *resolver) answer(q *dns.Msg) *dns.Msg {
	if len(q.Question) == 1 {
		now := r.w.at.Add(time.Since(r.w.began))
		name := strings.ToLower(strings.TrimSuffix(q.Question[0].Name, "."))
		for _, l := range r.lies {
			if l.tellsOf(name, now) {
				return l.answer(q)
			}
		}
	}
	if len(q.Question) == 1 && q.Question[0].Qclass == dns.ClassCHAOS {
		return r.chaos(q)
	}
	m := r.w.zone(q, r.country, r.addr)
	if r.simple && len(q.Question) == 1 && q.Question[0].Qtype == dns.TypeHTTPS {
		m.Answer = nil
	}
	if r.simple || slices.Contains(r.strips, "rrsig") {
		m.Answer = slices.DeleteFunc(m.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeRRSIG })
	}
	if e := m.IsEdns0(); r.simple && e != nil {
		e.SetDo(false)
	}
	if slices.Contains(r.strips, "ech") {
		for _, rr := range m.Answer {
			if h, ok := rr.(*dns.HTTPS); ok {
				h.Value = slices.DeleteFunc(h.Value, func(v dns.SVCBKeyValue) bool { return v.Key() == dns.SVCB_ECHCONFIG })
			}
		}
	}
	return m
}

// chaos is what a resolver says of itself.
func (r *resolver) chaos(q *dns.Msg) *dns.Msg {
	m := reply(q)
	qu := q.Question[0]
	if r.id == "" || qu.Qtype != dns.TypeTXT {
		m.Rcode = dns.RcodeRefused
		return m
	}
	text := r.id
	if strings.EqualFold(qu.Name, "version.bind.") {
		text = "lab 1"
	}
	m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: qu.Name, Rrtype: dns.TypeTXT, Class: dns.ClassCHAOS}, Txt: []string{text}}}
	return m
}

// sign adds a signature of the shape of a real one, which nothing here checks.
func sign(m *dns.Msg, q *dns.Msg) {
	e := q.IsEdns0()
	if e == nil || !e.Do() || len(m.Answer) == 0 {
		return
	}
	m.IsEdns0().SetDo()
	h := *m.Answer[0].Header()
	covered := h.Rrtype
	h.Rrtype = dns.TypeRRSIG
	m.Answer = append(m.Answer, &dns.RRSIG{Hdr: h, TypeCovered: covered, Algorithm: dns.ECDSAP256SHA256, Labels: uint8(dns.CountLabel(h.Name)), OrigTtl: h.Ttl,
		Expiration: 1893456000, Inception: 1577836800, KeyTag: 4711, SignerName: "example.", Signature: strings.Repeat("bGFi", 22)})
}

func (l *Lie) tellsOf(name string, now time.Time) bool {
	if !l.from.IsZero() && now.Before(l.from) || !l.until.IsZero() && !now.Before(l.until) {
		return false
	}
	return slices.ContainsFunc(l.Names, func(n string) bool {
		return n == name || strings.HasPrefix(n, ".") && strings.HasSuffix("."+name, n)
	})
}

func (l *Lie) answer(q *dns.Msg) *dns.Msg {
	m := reply(q)
	qu := q.Question[0]
	h := dns.RR_Header{Name: qu.Name, Class: dns.ClassINET, Ttl: 300}
	if l.TTL > 0 {
		h.Ttl = uint32(l.TTL)
	}
	switch l.Kind {
	case "silent":
		return nil
	case "nxdomain":
		m.Rcode = dns.RcodeNameError
	case "servfail":
		m.Rcode = dns.RcodeServerFailure
	case "refused":
		m.Rcode = dns.RcodeRefused
	}
	if l.CNAME != "" && (qu.Qtype == dns.TypeA || qu.Qtype == dns.TypeAAAA) {
		c := h
		c.Rrtype = dns.TypeCNAME
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: c, Target: dns.Fqdn(l.CNAME)})
		h.Name = dns.Fqdn(l.CNAME)
	}
	for _, a := range l.answers {
		switch {
		case a.Is4() && qu.Qtype == dns.TypeA:
			h.Rrtype = dns.TypeA
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
		case a.Is6() && qu.Qtype == dns.TypeAAAA:
			h.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
		}
	}
	return m
}

// zone answers a question with the truth, as a resolver in a country gets it.
// from is the resolver's own address.
func (w *World) zone(q *dns.Msg, country string, from netip.Addr) *dns.Msg {
	m := reply(q)
	if len(q.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		return m
	}
	qu := q.Question[0]
	name := strings.ToLower(strings.TrimSuffix(qu.Name, "."))
	if name == "ipv4only.arpa" {
		h := dns.RR_Header{Name: qu.Name, Class: dns.ClassINET, Ttl: 300}
		if qu.Qtype == dns.TypeA {
			h.Rrtype = dns.TypeA
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: net.IPv4(192, 0, 0, 170)}, &dns.A{Hdr: h, A: net.IPv4(192, 0, 0, 171)})
		} else if qu.Qtype == dns.TypeAAAA && w.Client.NAT64 {
			h.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: nat64Of(netip.AddrFrom4([4]byte{192, 0, 0, 170})).AsSlice()})
		}
		return m
	}
	t := w.sites[name]
	if t == nil || t.Dead == "nxdomain" {
		m.Rcode = dns.RcodeNameError
		return m
	}
	if t.Dead == "servfail" {
		m.Rcode = dns.RcodeServerFailure
		return m
	}
	if t.Dead == "no-address" {
		return m
	}
	v4, v6 := w.addressesFor(t, country)
	if t.Role == "whoami" {
		v4, v6 = nil, nil
		if from.Is4() {
			v4 = []netip.Addr{from}
		} else if from.IsValid() {
			v6 = []netip.Addr{from}
		}
	}
	if t.Signed {
		defer sign(m, q)
	}
	h := dns.RR_Header{Name: qu.Name, Class: dns.ClassINET, Ttl: 300}
	switch qu.Qtype {
	case dns.TypeA:
		for _, a := range v4 {
			h.Rrtype = dns.TypeA
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
		}
	case dns.TypeAAAA:
		for _, a := range v6 {
			h.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
		}
		if len(v6) == 0 && w.Client.NAT64 && country == w.Client.Country {
			for _, a := range v4 {
				h.Rrtype = dns.TypeAAAA
				m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: nat64Of(a).AsSlice()})
			}
		}
	case dns.TypeHTTPS:
		alpn := []string{"h2"}
		if t.H3 {
			alpn = []string{"h3", "h2"}
		}
		value := []dns.SVCBKeyValue{&dns.SVCBAlpn{Alpn: alpn}}
		if t.ECH {
			value = append(value, &dns.SVCBECHConfig{ECH: []byte("a configuration of the lab, which nothing uses")})
		}
		if t.H3 || t.ECH {
			h.Rrtype = dns.TypeHTTPS
			m.Answer = append(m.Answer, &dns.HTTPS{SVCB: dns.SVCB{Hdr: h, Priority: 1, Target: ".", Value: value}})
		}
	}
	return m
}

// addressesFor applies geoDNS and rotation.
func (w *World) addressesFor(t *Site, country string) (v4, v6 []netip.Addr) {
	w.turnMu.Lock()
	defer w.turnMu.Unlock()
	pick := func(list []netip.Addr) []netip.Addr {
		if len(t.GeoDNS) > 0 {
			want := t.net
			if name := t.GeoDNS[country]; name != "" {
				want = w.networks[name]
			}
			var out []netip.Addr
			for _, a := range list {
				if w.where[a] == want {
					out = append(out, a)
				}
			}
			list = out
		}
		if t.Rotate && len(list) > 1 {
			w.turns[t]++
			i := w.turns[t] % len(list)
			return list[i : i+1]
		}
		return list
	}
	return pick(t.v4), pick(t.v6)
}

// resolveFor is the truth for a host of the lab.
func (w *World) resolveFor(name, country string) ([]netip.Addr, error) {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), dns.TypeA)
	m := w.zone(q, country, netip.Addr{})
	if m.Rcode == dns.RcodeServerFailure {
		return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	}
	t := w.sites[strings.ToLower(name)]
	if m.Rcode != dns.RcodeSuccess || t == nil || t.Dead == "no-address" {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	v4, v6 := w.addressesFor(t, country)
	return append(append([]netip.Addr{}, v4...), v6...), nil
}

// serveDNS answers UDP questions at an address.
func (w *World) serveDNS(a netip.Addr, r *resolver) error {
	h := newHost(w, w.servers, []netip.Addr{a})
	pc, err := h.listenPacket(netip.AddrPortFrom(a, 53))
	if err != nil {
		return err
	}
	w.close = append(w.close, func() { pc.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if q.Unpack(buf[:n]) != nil || q.Response {
				continue
			}
			m := r.answer(q)
			if m == nil {
				continue
			}
			size := dns.MinMsgSize
			if o := q.IsEdns0(); o != nil {
				size = max(size, min(int(o.UDPSize()), 1232))
			}
			m.Truncate(size)
			if out, err := m.Pack(); err == nil {
				pc.WriteTo(out, from)
			}
		}
	}()
	return nil
}

// serveTCP answers questions with a length before each (RFC 7766).
func (r *resolver) serveTCP(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	for {
		var n [2]byte
		if _, err := io.ReadFull(c, n[:]); err != nil {
			return
		}
		b := make([]byte, binary.BigEndian.Uint16(n[:]))
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		m := r.answer(q)
		if m == nil {
			continue
		}
		out, err := m.Pack()
		if err != nil {
			return
		}
		c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
	}
}

// doh answers RFC 8484 requests.
func (w *World) doh(rw http.ResponseWriter, r *http.Request, t *Site) {
	var b []byte
	var err error
	if r.Method == http.MethodPost {
		b, err = io.ReadAll(io.LimitReader(r.Body, 65535))
	} else {
		b, err = base64.RawURLEncoding.DecodeString(r.URL.Query().Get("dns"))
	}
	q := new(dns.Msg)
	if err != nil || q.Unpack(b) != nil {
		http.Error(rw, "bad question", http.StatusBadRequest)
		return
	}
	out, err := w.resolverOf(t, t.AllAddresses()[0]).answer(q).Pack()
	if err != nil {
		http.Error(rw, "cannot answer", http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "application/dns-message")
	rw.Write(out)
}

// stubLookup is an operating system's resolver: UDP to the configured server,
// three tries, A and AAAA.
func stubLookup(ctx context.Context, h *host, server netip.AddrPort, name string) ([]netip.Addr, error) {
	type result struct {
		addrs []netip.Addr
		err   error
	}
	ask := func(qtype uint16) result {
		if qtype == dns.TypeA && !h.view.IPv4 || qtype == dns.TypeAAAA && !h.view.IPv6 {
			return result{}
		}
		local := netip.AddrPort{}
		if server.Addr().Is6() {
			local = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
		}
		pc, err := h.ListenPacket(ctx, local)
		if err != nil {
			return result{err: err}
		}
		defer pc.Close()
		stop := context.AfterFunc(ctx, func() { pc.SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
		q := new(dns.Msg)
		q.SetQuestion(dns.Fqdn(name), qtype)
		b, err := q.Pack()
		if err != nil {
			return result{err: &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}}
		}
		buf := make([]byte, 4096)
		for try := range 3 {
			pc.WriteTo(b, net.UDPAddrFromAddrPort(server))
			pc.SetReadDeadline(time.Now().Add(time.Duration(1+try) * time.Second))
			for {
				n, from, err := pc.ReadFrom(buf)
				if err != nil {
					if ctx.Err() != nil {
						return result{err: &net.DNSError{Err: ctx.Err().Error(), Name: name, IsTimeout: true}}
					}
					if errors.Is(err, os.ErrDeadlineExceeded) {
						break
					}
					return result{err: err}
				}
				m := new(dns.Msg)
				if from.String() != net.UDPAddrFromAddrPort(server).String() || m.Unpack(buf[:n]) != nil || m.Id != q.Id || !m.Response {
					continue
				}
				switch m.Rcode {
				case dns.RcodeSuccess:
				case dns.RcodeNameError:
					return result{err: &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}}
				default:
					return result{err: &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}}
				}
				var r result
				for _, rr := range m.Answer {
					switch rr := rr.(type) {
					case *dns.A:
						if a, ok := netip.AddrFromSlice(rr.A.To4()); ok {
							r.addrs = append(r.addrs, a)
						}
					case *dns.AAAA:
						if a, ok := netip.AddrFromSlice(rr.AAAA); ok {
							r.addrs = append(r.addrs, a)
						}
					}
				}
				return r
			}
		}
		return result{err: &net.DNSError{Err: "i/o timeout", Name: name, IsTimeout: true}}
	}
	other := make(chan result, 1)
	go func() { other <- ask(dns.TypeAAAA) }()
	a := ask(dns.TypeA)
	b := <-other
	all := append(a.addrs, b.addrs...)
	switch {
	case len(all) > 0:
		return all, nil
	case a.err != nil:
		return nil, a.err
	case b.err != nil:
		return nil, b.err
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}
