package lab

import (
	"net/netip"
	"slices"
	"time"

	"govah/lab/box"
	"govah/packet"
)

// DNSRedirect leads all questions on port 53 to a resolver of the operator's
// own, as a router does that rewrites addresses (DNAT).
type DNSRedirect struct {
	At     int   `toml:"at"`
	Hops   int   `toml:"hops"`   // routers of its own from there to that resolver
	Silent []int `toml:"silent"` // which of them answer no probe, from 1
	// Errors says how it translates errors from beyond it: "all", what they
	// quote and whom they are from, as Linux does (default); "quoted" alone
	// (RFC 5508, 4.2); "none", so that the other resolver's address shows.
	Errors string `toml:"errors"`
}

// redirector is the device, the resolver it leads to and the way there.
type redirector struct {
	w      *World
	d      *DNSRedirect
	v4, v6 netip.Addr // of the resolver
	at     int        // index among the client's elements
	way    []element  // the routers from there on
	asked  map[netip.AddrPort]netip.Addr
}

// newRedirector makes the device that stands at an index of the client's
// elements.
func newRedirector(w *World, d *DNSRedirect, at int) (*redirector, error) {
	b4, b6 := w.Client.v4.As4(), w.Client.v6.As16()
	own := func(third, last byte) (netip.Addr, netip.Addr) {
		b6[14], b6[15] = third, last
		return netip.AddrFrom4([4]byte{b4[0], b4[1], third, last}), netip.AddrFrom16(b6)
	}
	r := &redirector{w: w, d: d, at: at, asked: map[netip.AddrPort]netip.Addr{}}
	r.v4, r.v6 = own(252, 53)
	for h := 1; h <= d.Hops; h++ {
		a4, a6 := own(251, byte(h))
		r.way = append(r.way, element{v4: []netip.Addr{a4}, v6: []netip.Addr{a6}, silent: slices.Contains(d.Silent, h)})
	}
	for _, a := range []netip.Addr{r.v4, r.v6} {
		if err := addAddress(w.servers, a); err != nil {
			return nil, err
		}
		if err := w.serveDNS(a, w.operators()); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// path is the way to the device's resolver.
func (r *redirector) path() []element {
	return append(slices.Clone(r.w.elements[:r.at+1]), r.way...)
}

// Handle implements box.Box.
func (r *redirector) Handle(d box.Direction, pkt []byte, _ time.Time, emit box.Emit) {
	if p, err := packet.Parse(pkt); err == nil {
		switch to := r.to(p.V6()); {
		case d == box.Out && (p.Proto == packet.UDP || p.Proto == packet.TCP) && p.DstPort == 53 && !r.w.inside[p.Dst]:
			r.asked[p.Source()] = p.Dst
			packet.RewriteInPlace(p.Raw, netip.AddrPort{}, netip.AddrPortFrom(to, 53))
		case d == box.In && p.Src == to && r.asked[p.Destination()].IsValid():
			packet.RewriteInPlace(p.Raw, netip.AddrPortFrom(r.asked[p.Destination()], p.SrcPort), netip.AddrPort{})
		case d == box.In && p.IsICMPError() && r.d.Errors != "none":
			r.unquote(&p, to)
		}
	}
	emit(d, pkt, 0)
}

func (r *redirector) to(v6 bool) netip.Addr {
	if v6 {
		return r.v6
	}
	return r.v4
}

// unquote gives a quoted packet the address that the client had asked.
func (r *redirector) unquote(p *packet.Packet, to netip.Addr) {
	q, err := packet.ParseQuote(p.Quoted)
	if err != nil || q.Dst.Addr() != to || !r.asked[q.Src].IsValid() {
		return
	}
	at := 16
	if p.V6() {
		at = 24
	}
	copy(p.Quoted[at:], r.asked[q.Src].AsSlice())
	if !p.V6() {
		sumIPv4(p.Quoted)
	}
	if r.d.Errors != "quoted" {
		packet.RewriteInPlace(p.Raw, netip.AddrPortFrom(r.asked[q.Src], 0), netip.AddrPort{})
	}
	packet.FixChecksums(p.Raw)
}
