package check

import (
	"context"
	"net/netip"
	"net/url"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"govah/measure"
	"govah/wire"
)

// preflight finds out what this place is before anything is judged: which
// families work, what time it is, whether a portal, a tunnel, a proxy or a
// NAT64 stands in between, and where the canaries are.
func (r *runner) preflight(ctx context.Context) {
	s := r.cfg.Surroundings
	r.vantage = measure.Vantage{
		ASN: s.ASN, Country: s.Country, ASNSource: s.Source, Link: s.Link,
		Tunnel: s.Tunnel, Proxy: s.Proxy, Geo: r.cfg.Geo,
	}
	c, err := newCanaries(r)
	if err != nil {
		panic(err) // the layout is a constant of ours
	}
	r.canaries = c
	for _, d := range r.cfg.Controls.DoH {
		if doh, err := wire.NewDoH(r.cfg.Network, d.URL, d.Addrs, r.trust); err == nil {
			r.doh = append(r.doh, doh)
		}
	}
	var wg sync.WaitGroup
	for _, h := range c.hosts {
		if len(h.Addrs) == 0 {
			wg.Go(func() { h.Addrs = r.resolveCanary(ctx, h.Name) })
		}
	}
	if r.cfg.Controls.Captive != "" {
		wg.Go(func() { r.vantage.Captive = r.captive(ctx) })
	}
	wg.Go(func() { r.nat64(ctx) })
	wg.Go(func() { r.findHelpers(ctx) })
	wg.Wait()

	// The clock comes from the canaries' answers, and their certificates are
	// only good if the clock is: so ask without insisting first.
	r.clock(ctx)
	if r.vantage.ClockOffsetMS/1000 > 60 || r.vantage.ClockOffsetMS/1000 < -60 {
		r.trust.Offset = time.Duration(r.vantage.ClockOffsetMS) * time.Millisecond
	}
	r.v4, r.v6 = !r.cfg.Only6 && r.view.IPv4, !r.cfg.Only4 && r.view.IPv6
	probe := func(f measure.Family, on *bool) {
		if !*on {
			return
		}
		set := r.canaries.run(ctx, canaryKey{step: measure.StepTCP, family: f})
		if len(set.obs) == 0 {
			*on = f == measure.IPv4 // no canary of this family: nothing known
			return
		}
		any := false
		for _, o := range set.obs {
			any = any || o.Failure == measure.NoFailure
		}
		if f == measure.IPv6 {
			*on = any // a broken IPv6 is a fact about this place, not about a target
		}
	}
	wg.Go(func() { probe(measure.IPv4, &r.v4) })
	wg.Go(func() { probe(measure.IPv6, &r.v6) })
	wg.Wait()
	if !r.v4 && !r.v6 {
		r.v4 = !r.cfg.Only6
		r.v6 = r.cfg.Only6
	}
	families := []measure.Family{}
	if r.v4 {
		families = append(families, measure.IPv4)
	}
	if r.v6 {
		families = append(families, measure.IPv6)
	}
	r.canaries.dropDead()
	if f := r.anyFamily(); r.view.SYNHop && r.view.SetTTL && len(r.canaries.hosts) > 0 && r.canaries.hosts[0].worked {
		if a, ok := r.canaries.hosts[0].addr(f); ok {
			wg.Go(func() { r.webProxy = r.terminator(ctx, r.canaries.log, a, 80, 443) })
		}
	}
	wg.Go(func() { r.redirected = r.answeredNowhere(ctx) })
	for _, f := range families {
		wg.Go(func() { r.canaries.run(ctx, canaryKey{step: measure.StepTLS, family: f}) })
		wg.Go(func() { r.canaries.run(ctx, canaryKey{step: measure.StepQUIC, family: f}) })
		wg.Go(func() { r.canaries.run(ctx, canaryKey{step: measure.StepHTTP, family: f, plain: true}) })
	}
	wg.Wait()
}

func (r *runner) resolveCanary(ctx context.Context, name string) []netip.Addr {
	out := encrypted(ctx, r.doh, r.canaries.log, wire.Meta{Role: measure.RoleCanary, Stage: measure.StagePreflight}, name)
	if len(out) == 0 {
		out, _ = r.cfg.Network.Lookup(ctx, name)
	}
	return out
}

func (r *runner) captive(ctx context.Context) bool {
	u, err := url.Parse(r.cfg.Controls.Captive)
	if err != nil {
		return false
	}
	meta := wire.Meta{Role: measure.RoleCanary, Stage: measure.StagePreflight}
	var addrs []netip.Addr
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		addrs = []netip.Addr{a}
	} else {
		addrs = addresses(wire.LookupSystem(ctx, r.cfg.Network, r.canaries.log, meta, u.Hostname(), lookupTimeout))
	}
	for _, a := range addrs {
		conn, _ := wire.Connect(ctx, r.cfg.Network, r.canaries.log, meta, wire.ConnectSpec{Remote: netip.AddrPortFrom(a, 80)})
		if conn == nil {
			continue
		}
		o, _ := wire.Fetch(ctx, r.canaries.log, meta, conn, wire.Request{URL: r.cfg.Controls.Captive, Method: "GET", Host: u.Hostname(), MaxBody: 4 << 10})
		conn.Abort()
		if o.Failure != measure.NoFailure || o.HTTP == nil {
			return false
		}
		return o.HTTP.Status != 204
	}
	return false
}

// nat64 finds the prefix by RFC 7050.
func (r *runner) nat64(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := r.cfg.Network.Lookup(ctx, "ipv4only.arpa")
	if err != nil {
		return
	}
	wellKnown := [][4]byte{{192, 0, 0, 170}, {192, 0, 0, 171}}
	for _, a := range addrs {
		if !a.Is6() || a.Is4In6() {
			continue
		}
		b := a.As16()
		for _, w := range wellKnown {
			if slices.Equal(b[12:], w[:]) {
				var p [16]byte
				copy(p[:12], b[:12])
				r.vantage.NAT64 = true
				r.vantage.NAT64Prefix = netip.PrefixFrom(netip.AddrFrom16(p), 96).String()
				return
			}
		}
	}
}

// untranslate gives the IPv4 address that a NAT64 address stands for.
func (r *runner) untranslate(a netip.Addr) netip.Addr {
	if !r.vantage.NAT64 || !a.Is6() {
		return a
	}
	p, err := netip.ParsePrefix(r.vantage.NAT64Prefix)
	if err != nil || !p.Contains(a) {
		return a
	}
	b := a.As16()
	return netip.AddrFrom4([4]byte(b[12:]))
}

// clock estimates the true time as the median of the Date headers of several
// canaries over TLS.
func (r *runner) clock(ctx context.Context) {
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		offsets []time.Duration
	)
	for i, h := range r.canaries.hosts {
		if i == 3 {
			break
		}
		wg.Go(func() {
			f := measure.IPv4
			if !r.view.IPv4 || r.cfg.Only6 {
				f = measure.IPv6
			}
			addr, ok := h.addr(f)
			if !ok {
				return
			}
			meta := wire.Meta{Role: measure.RoleCanary, Stage: measure.StagePreflight}
			if r.pacer.wait(ctx) != nil {
				return
			}
			conn, o := wire.Connect(ctx, r.cfg.Network, r.canaries.log, meta, wire.ConnectSpec{Remote: netip.AddrPortFrom(addr, 443)})
			if conn == nil {
				return
			}
			defer conn.Abort()
			meta.After = o.ID
			tc, _ := wire.Handshake(ctx, r.canaries.log, meta, conn, wire.HandshakeSpec{SNI: h.Name, Verify: h.Name, Hello: r.canaries.hello}, r.trust)
			if tc == nil {
				return
			}
			ho, _ := wire.Fetch(ctx, r.canaries.log, meta, tc, wire.Request{URL: "https://" + h.Name + "/", Method: "HEAD", Host: h.Name})
			if ho.HTTP == nil {
				return
			}
			if ho.HTTP.H3 != "" {
				h.H3 = true // nobody else touches this host now
			}
			for _, hd := range ho.HTTP.Headers {
				if strings.EqualFold(hd.Name, "Date") {
					if t, err := time.Parse(time.RFC1123, hd.Value); err == nil {
						mu.Lock()
						offsets = append(offsets, t.Sub(r.trust.Now()))
						mu.Unlock()
					}
				}
			}
		})
	}
	wg.Wait()
	if len(offsets) == 0 {
		return
	}
	sort.Slice(offsets, func(i, j int) bool { return offsets[i] < offsets[j] })
	median := offsets[len(offsets)/2]
	r.vantage.ClockSource = "https-date"
	// The header has whole seconds: what is below two is no offset.
	if median > 2*time.Second || median < -2*time.Second {
		r.vantage.ClockOffsetMS = median.Milliseconds()
	}
}

// nowhere is an address without a resolver, of a family that works here.
func (r *runner) nowhere() (netip.AddrPort, bool) {
	for _, a := range r.cfg.Controls.Nowhere {
		if wire.FamilyOf(a) == measure.IPv4 && r.v4 || wire.FamilyOf(a) == measure.IPv6 && r.v6 {
			return netip.AddrPortFrom(a, 53), true
		}
	}
	return netip.AddrPort{}, false
}

// answeredNowhere asks an address without a resolver for a canary's name: who
// answers redirects all of port 53.
func (r *runner) answeredNowhere(ctx context.Context) bool {
	at, ok := r.nowhere()
	if !ok || len(r.cfg.Controls.Canaries) == 0 || r.pacer.wait(ctx) != nil {
		return false
	}
	o := wire.Ask(ctx, r.cfg.Network, r.canaries.log, wire.Meta{Role: measure.RoleCanary, Stage: measure.StagePreflight}, wire.Question{
		Name: r.cfg.Controls.Canaries[0].Name, Type: "A", Server: at, Transport: "udp", NoResolver: true, Tries: 2, Timeout: 1500 * time.Millisecond}, r.trust)
	return o.DNS != nil && len(o.DNS.Replies) > 0
}
