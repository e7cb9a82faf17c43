package check

import (
	"context"
	"net/netip"
	"net/url"
	"slices"
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
			r.pacer.flows.take() // for its connection, whenever that is opened
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

	r.v4, r.v6 = !r.cfg.Only6 && r.view.IPv4, !r.cfg.Only4 && r.view.IPv6
	// The clock comes from the canaries' answers, and their certificates are
	// only good if the clock is: where it is not, they are asked again.
	again := r.clock(r.families(ctx))
	if !r.v4 && !r.v6 {
		r.v4 = !r.cfg.Only6
		r.v6 = r.cfg.Only6
	}
	// So they are where some are dead, with untried ones in the place of those.
	for c.dropDead() || again {
		again = false
		c.forget(measure.StepTLS)
		r.each(func(f measure.Family) {
			c.visit(ctx, canaryKey{step: measure.StepTLS, family: f}, func(*canaryHost, *wire.TLSConn, string) {})
		})
	}
	c.settle()
}

// each does something for every family that works, side by side.
func (r *runner) each(do func(measure.Family)) {
	var wg sync.WaitGroup
	if r.v4 {
		wg.Go(func() { do(measure.IPv4) })
	}
	if r.v6 {
		wg.Go(func() { do(measure.IPv6) })
	}
	wg.Wait()
}

// families finds out which families work, by canaries over TLS, and returns
// how far their Date headers are from this device's time.
func (r *runner) families(ctx context.Context) (offsets []time.Duration) {
	var mu sync.Mutex
	broken6 := false
	r.each(func(f measure.Family) {
		set := r.canaries.visit(ctx, canaryKey{step: measure.StepTLS, family: f}, func(h *canaryHost, tc *wire.TLSConn, after string) {
			if d, ok := r.date(ctx, h, tc, after); ok {
				mu.Lock()
				offsets = append(offsets, d)
				mu.Unlock()
			}
		})
		if f == measure.IPv6 && !slices.ContainsFunc(set.obs, func(o measure.Observation) bool { return o.After != "" }) {
			broken6 = true // a fact about this place, not about a target
		}
	})
	if broken6 {
		r.v6 = false
	}
	return offsets
}

// rehearse makes with canaries the other steps that targets are screened with,
// and begins to find out what else a target's verdict depends on.
func (r *runner) rehearse(ctx context.Context) {
	later := func(find func() bool) func() bool {
		found := sync.OnceValue(find)
		r.background.Go(func() { found() })
		return found
	}
	r.webProxy = later(func() bool {
		if !r.view.SYNHop || !r.view.SetTTL {
			return false
		}
		for _, h := range r.canaries.working() {
			if a, ok := h.addr(r.anyFamily()); ok {
				return r.terminator(ctx, r.canaries.log, a, 80, 443)
			}
		}
		return false
	})
	r.redirected = later(func() bool { return r.answeredNowhere(ctx) })
	r.each(func(f measure.Family) {
		var wg sync.WaitGroup
		wg.Go(func() { r.canaries.run(ctx, canaryKey{step: measure.StepQUIC, family: f}) })
		wg.Go(func() { r.canaries.run(ctx, canaryKey{step: measure.StepHTTP, family: f, plain: true}) })
		wg.Wait()
	})
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
		if r.pacer.wait(ctx) != nil {
			return false
		}
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

// date reads the time from a canary's answer over TLS, as far as it is from
// this device's, and whether the canary speaks HTTP/3.
func (r *runner) date(ctx context.Context, h *canaryHost, tc *wire.TLSConn, after string) (offset time.Duration, ok bool) {
	meta := wire.Meta{Role: measure.RoleCanary, Stage: measure.StagePreflight, After: after}
	o, _ := wire.Fetch(ctx, r.canaries.log, meta, tc, wire.Request{URL: "https://" + h.Name + "/", Method: "HEAD", Host: h.Name})
	if o.HTTP == nil {
		return 0, false
	}
	if o.HTTP.H3 != "" {
		r.canaries.speaksH3(h)
	}
	for _, hd := range o.HTTP.Headers {
		if strings.EqualFold(hd.Name, "Date") {
			if t, err := time.Parse(time.RFC1123, hd.Value); err == nil {
				offset, ok = t.Sub(r.trust.Now()), true
			}
		}
	}
	return offset, ok
}

// clock estimates the true time as the median of what several canaries say,
// and says whether certificates are to be judged by it.
func (r *runner) clock(offsets []time.Duration) bool {
	if len(offsets) == 0 {
		return false
	}
	slices.Sort(offsets)
	median := offsets[len(offsets)/2]
	r.vantage.ClockSource = "https-date"
	// The header has whole seconds: what is below two is no offset.
	if median > 2*time.Second || median < -2*time.Second {
		r.vantage.ClockOffsetMS = median.Milliseconds()
	}
	if s := r.vantage.ClockOffsetMS / 1000; s > 60 || s < -60 {
		r.trust.Offset = time.Duration(r.vantage.ClockOffsetMS) * time.Millisecond
		return true
	}
	return false
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
	if !ok || len(r.cfg.Controls.Canaries) == 0 || r.pacer.waitAsk(ctx) != nil {
		return false
	}
	o := wire.Ask(ctx, r.cfg.Network, r.canaries.log, wire.Meta{Role: measure.RoleCanary, Stage: measure.StagePreflight}, wire.Question{
		Name: r.cfg.Controls.Canaries[0].Name, Type: "A", Server: at, Transport: "udp", NoResolver: true, Tries: 2, Timeout: 1500 * time.Millisecond}, r.trust)
	return replied(o)
}
