package helper

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"govah/measure"
	"govah/wire"
)

const (
	maxAddresses = 8 // of a client
	maxAnswers   = 4 // of its own that are connected to, per name and family
	maxRedirects = 5
	atOnce       = 6 // connections of one look
)

// look does what one request asks. Its times count from now.
func (s *Server) look(ctx context.Context, req measure.HelperRequest, from, local netip.Addr) *measure.HelperReply {
	reply := &measure.HelperReply{Schema: 1, Nonce: req.Nonce, Version: s.cfg.Version,
		TimeMS: s.cfg.Now().UnixMilli(), Observations: []measure.Observation{}}
	if s.cfg.Locate != nil && from.IsValid() {
		reply.ASN, reply.Country = s.cfg.Locate(from)
	}
	if slices.Contains(req.Wants, "mail") {
		reply.Mail = s.greeters(local)
	}
	if req.URL == "" { // only the time, or the client's own network
		return reply
	}
	ctx, cancel := context.WithTimeout(ctx, s.limits.LookTime)
	defer cancel()
	k := &looking{s: s, local: local, log: wire.NewLog(time.Now(), s.asn), limit: make(chan struct{}, atOnce),
		trust: &wire.Trust{Public: s.cfg.Roots, Now: s.cfg.Now}}
	if err := k.run(ctx, req); err != nil {
		reply.Failure, reply.Detail = measure.Unsupported, err.Error()
	} else if k.refused > 0 {
		reply.Detail = fmt.Sprintf("%d addresses not contacted: %s", k.refused, k.why)
	}
	for _, o := range k.log.Observations() {
		if ownFault(o.Failure) {
			reply.Detail = "a step failed at the helper itself: " + string(o.Failure)
			continue
		}
		own := o
		own.ID, own.After, own.Control = ownID(o.ID), ownID(o.After), ""
		if own.DNS != nil && !s.policy.allowReserved {
			withoutReserved(&own)
		}
		if own, ok := wire.HelperObservation(own); ok {
			reply.Observations = append(reply.Observations, own)
		}
	}
	slices.SortFunc(reply.Observations, func(a, b measure.Observation) int { return number(a.ID) - number(b.ID) })
	return reply
}

// withoutReserved leaves private addresses out of the answers: they would tell
// what the helper's own network looks like. If there were no others, the step
// ends in OONI's failure for that.
func withoutReserved(o *measure.Observation) {
	d := *o.DNS
	o.DNS, d.Replies = &d, slices.Clone(d.Replies)
	left, dropped := 0, 0
	for i := range d.Replies {
		r := &d.Replies[i]
		r.Answers = slices.DeleteFunc(slices.Clone(r.Answers), func(a measure.DNSAnswer) bool {
			addr, err := netip.ParseAddr(a.Value)
			if err != nil {
				return false
			}
			if isReserved(addr.Unmap()) {
				dropped++
				return true
			}
			left++
			return false
		})
	}
	if dropped > 0 && left == 0 {
		o.Failure, o.Detail = measure.DNSBogon, "only private or reserved addresses"
	}
}

// ownFault says that a step failed because of the helper's own host, or was
// cut short by its own limit of time: that says nothing about the place, and
// would pass for "unreachable from elsewhere as well".
func ownFault(f measure.Failure) bool {
	switch f {
	case measure.Interrupted, measure.Unsupported, measure.NetworkUnreachable, measure.NetworkDown,
		measure.AddressNotAvailable, measure.AddressInUse, measure.PermissionDenied:
		return true
	}
	return false
}

// ownID is the id of a log as an id of a helper.
func ownID(id string) string {
	if id == "" {
		return ""
	}
	return "h" + strings.TrimPrefix(id, "o")
}

func number(id string) int {
	n, _ := strconv.Atoi(id[1:])
	return n
}

func (s *Server) asn(addr string) int {
	if s.cfg.Locate == nil {
		return 0
	}
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return 0
	}
	asn, _ := s.cfg.Locate(a)
	return asn
}

// looking is one look under way.
type looking struct {
	s     *Server
	local netip.Addr
	log   *wire.Log
	trust *wire.Trust
	limit chan struct{}

	mu       sync.Mutex
	refused  int
	why      string
	fetching bool
	fetches  int
	fetched  bool
	spare    net.Conn // proved nothing, and may serve if nothing better comes
	spareID  string
}

var meta = wire.Meta{Role: measure.RoleHelper}

func after(id string) wire.Meta { return wire.Meta{Role: measure.RoleHelper, After: id} }

// place is where a URL leads.
type place struct {
	url  *url.URL
	tls  bool
	page bool // to be fetched
	mail bool // to be spoken with as a mail client does
	host string
	name string // for TLS; "" if host is an address
	port uint16
}

func (s *Server) place(raw string) (*place, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("the URL cannot be read")
	}
	p := &place{url: u, host: strings.ToLower(u.Hostname())}
	switch u.Scheme {
	case "http":
		p.port, p.page = 80, true
	case "https":
		p.port, p.page, p.tls = 443, true, true
	case "tls":
		p.tls = true
	case "tcp":
	default:
		if port := wire.MailPorts[u.Scheme]; port != 0 {
			p.port, p.mail = uint16(port), true
			break
		}
		return nil, fmt.Errorf("the URL's scheme is none of the web, of mail, tls or tcp")
	}
	if u.User != nil || p.host == "" || len(p.host) > 253 || u.Opaque != "" {
		return nil, fmt.Errorf("the URL's host cannot be used")
	}
	if t := u.Port(); t != "" {
		n, err := strconv.ParseUint(t, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("the URL's port cannot be used")
		}
		p.port = uint16(n)
	}
	if err := s.policy.port(p.port); err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(p.host); err == nil {
		return p, nil
	}
	for _, c := range p.host {
		if !(c == '.' || c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z') {
			return nil, fmt.Errorf("the URL's host is not a name of the DNS in ASCII")
		}
	}
	p.name = strings.TrimSuffix(p.host, ".")
	return p, s.policy.name(p.name)
}

// candidate is an address to connect to and the observation that gave it.
type candidate struct {
	addr  netip.Addr
	after string
}

// run resolves, connects to every address, and fetches over the first that
// proves itself.
func (k *looking) run(ctx context.Context, req measure.HelperRequest) error {
	p, err := k.s.place(req.URL)
	if err != nil {
		return err
	}
	list := k.resolve(ctx, p)
	for _, text := range req.Addresses {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("one of the addresses cannot be read")
		}
		list = append(list, candidate{addr: a.Unmap()})
	}
	list = k.allowed(list)
	var wg sync.WaitGroup
	for _, c := range list {
		k.limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-k.limit }()
			k.visit(ctx, p, c)
		})
		if req.QUIC && p.tls && p.page {
			k.limit <- struct{}{}
			wg.Go(func() {
				defer func() { <-k.limit }()
				wire.QUIC(ctx, k.s.cfg.Network, k.log, after(c.after), wire.QUICSpec{
					Remote: netip.AddrPortFrom(c.addr, p.port), SNI: p.name, Verify: p.host}, k.trust)
			})
		}
	}
	wg.Wait()
	if spare := k.spare; spare != nil {
		if !k.fetched && k.fetches < 2 {
			k.fetch(ctx, p, spare, k.spareID)
		} else {
			spare.Close()
		}
	}
	if len(list) == 0 && k.refused > 0 {
		return fmt.Errorf("no address to contact: %s", k.why)
	}
	return nil
}

// resolve asks the helper's own resolver. A host that is an address is its own answer.
func (k *looking) resolve(ctx context.Context, p *place) []candidate {
	if a, err := netip.ParseAddr(p.host); err == nil {
		return []candidate{{addr: a.Unmap()}}
	}
	cfg := &k.s.cfg
	var answers []*measure.Observation
	if cfg.DoH == nil && !cfg.Resolver.IsValid() {
		answers = []*measure.Observation{wire.LookupSystem(ctx, cfg.Network, k.log, meta, p.name, 0)}
	} else {
		answers = make([]*measure.Observation, 2)
		var wg sync.WaitGroup
		for i, qtype := range []string{"A", "AAAA"} {
			wg.Go(func() {
				if cfg.DoH != nil {
					answers[i] = cfg.DoH.Ask(ctx, k.log, meta, p.name, qtype, 0)
					return
				}
				answers[i] = wire.Ask(ctx, cfg.Network, k.log, meta, wire.Question{
					Name: p.name, Type: qtype, Server: cfg.Resolver, Transport: "udp"}, k.trust)
			})
		}
		wg.Wait()
	}
	var list []candidate
	for _, o := range answers {
		if o.DNS == nil || len(o.DNS.Replies) == 0 {
			continue
		}
		taken := map[string]int{}
		for _, answer := range o.DNS.Replies[0].Answers {
			a, err := netip.ParseAddr(answer.Value)
			if answer.Type != "A" && answer.Type != "AAAA" || err != nil || taken[answer.Type] == maxAnswers {
				continue
			}
			list = append(list, candidate{a.Unmap(), o.ID})
			taken[answer.Type]++
		}
	}
	return list
}

// allowed is what of a list may and can be contacted, each address once. No
// observation is made of the others: that this helper does not go somewhere
// says nothing about the place.
func (k *looking) allowed(list []candidate) []candidate {
	view := k.s.cfg.Network.View()
	var out []candidate
	for _, c := range list {
		err := k.s.policy.addr(c.addr, k.local)
		if err == nil && (c.addr.Is6() && !view.IPv6 || c.addr.Is4() && !view.IPv4) {
			err = fmt.Errorf("this helper has no %s", familyName(c.addr))
		}
		if err != nil {
			k.mu.Lock()
			k.refused++
			k.why = err.Error()
			k.mu.Unlock()
			continue
		}
		if !slices.ContainsFunc(out, func(o candidate) bool { return o.addr == c.addr }) {
			out = append(out, c)
		}
	}
	return out
}

func familyName(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// visit connects to one address and, if it is the first to be good for it,
// fetches the page.
func (k *looking) visit(ctx context.Context, p *place, c candidate) {
	if p.mail {
		k.converse(ctx, p, c)
		return
	}
	conn, id, good := k.connect(ctx, p, c)
	if conn == nil {
		return
	}
	if !p.page {
		conn.Close()
		return
	}
	k.mu.Lock()
	switch {
	case !good && k.spare == nil:
		k.spare, k.spareID = conn, id
		conn = nil
	case !good || k.fetching || k.fetched || k.fetches == 2:
	default:
		k.fetching = true
		k.fetches++
		k.mu.Unlock()
		ok := k.fetch(ctx, p, conn, id)
		k.mu.Lock()
		k.fetching, k.fetched = false, k.fetched || ok
		conn = nil
	}
	k.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
}

// connect opens a connection for p at an address; good says that it is plain,
// or that the certificate proves the name.
func (k *looking) connect(ctx context.Context, p *place, c candidate) (conn net.Conn, id string, good bool) {
	raw, o := wire.Connect(ctx, k.s.cfg.Network, k.log, after(c.after), wire.ConnectSpec{Remote: netip.AddrPortFrom(c.addr, p.port)})
	if raw == nil {
		return nil, "", false
	}
	if !p.tls {
		return raw, o.ID, true
	}
	tc, o := wire.Handshake(ctx, k.log, after(o.ID), raw, wire.HandshakeSpec{SNI: p.name, Verify: p.host}, k.trust)
	if tc == nil {
		raw.Abort()
		return nil, "", false
	}
	return tc, o.ID, tc.Verified()
}

// fetch gets the page over a connection, which it closes, and follows
// redirects. Each new place is resolved, and judged by the policy, anew.
func (k *looking) fetch(ctx context.Context, p *place, conn net.Conn, id string) (ok bool) {
	for hop := 0; ; hop++ {
		o, _ := wire.Fetch(ctx, k.log, after(id), conn, wire.Request{URL: p.url.String(), MaxBody: k.s.limits.BodyBytes})
		conn.Close()
		if o.Failure != measure.NoFailure {
			return hop > 0
		}
		if o.HTTP.Status/100 != 3 || o.HTTP.Location == "" || hop == maxRedirects {
			return true
		}
		next, err := p.url.Parse(o.HTTP.Location)
		if err != nil {
			return true
		}
		next.Fragment = ""
		to, err := k.s.place(next.String())
		if err != nil || !to.page {
			return true
		}
		list := k.allowed(k.resolve(ctx, to))
		conn = nil
		for _, c := range list[:min(len(list), 2)] {
			if conn, id, _ = k.connect(ctx, to, c); conn != nil {
				break
			}
		}
		if conn == nil {
			return true
		}
		p = to
	}
}
