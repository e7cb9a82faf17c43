package check

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"govah/identify"
	"govah/known"
	"govah/measure"
	"govah/wire"
)

// BannerPorts are those at which a router is asked, in this order, and no
// other. The first three greet by themselves, and a maker's name is in many a
// greeting; the others are where the pages and certificates are by which
// package known tells products. Port 25 is not among them: mail goes only to
// one's own helper.
var BannerPorts = []uint16{22, 23, 21, 80, 443, 8080, 8443}

// Bounds of asking one router beside a link.
const (
	MaxBeside       = 4   // routers of one run
	leastBeside     = 100 // per mille: whom a device is less likely beside is left alone
	maxBannerBytes  = 4 << 10
	maxBannerHeads  = 32 // headers kept
	maxBannerHeader = 256
	bannerConnect   = 2 * time.Second // a retransmission of the SYN fits
	bannerPatience  = 4 * time.Second
)

// Neighbour is a router beside the link on which a device was located.
type Neighbour struct {
	Addr   netip.Addr
	Beside measure.Beside
}

// Neighbours are the routers beside the links of located devices, those of the
// likeliest links first, at most MaxBeside. Only what answered on the path of
// this very run is among them, and neither a server nor this device. Addresses
// that are not public are left out, for a connection might end at somebody
// else who has the same one; but the first router is one's own.
func Neighbours(list []measure.Location) (out []Neighbour) {
	for depth := range maxSet {
		for i := range list {
			l := &list[i]
			if l.Outcome != measure.Located || l.FromHelper || depth >= len(l.Set) {
				continue
			}
			p := &l.Set[depth]
			for _, end := range []struct {
				ttl  int
				text string
			}{{p.Low, p.From}, {p.Low + 1, p.To}} {
				a, err := netip.ParseAddr(end.text)
				if err != nil || !answered(l, end.ttl, end.text) || !addressable(a, end.ttl) ||
					slices.ContainsFunc(out, func(n Neighbour) bool { return n.Addr == a }) {
					continue
				}
				beside := measure.Beside{TTL: end.ttl, PerMille: adjacent(l, end.text)}
				if beside.PerMille < leastBeside {
					continue
				}
				out = append(out, Neighbour{a, beside})
				if len(out) == MaxBeside {
					return out
				}
			}
		}
	}
	return out
}

// maxSet bounds the links of one location that are looked at.
const maxSet = 32

// answered says whether a router answered at a TTL, where the server did not.
func answered(l *measure.Location, ttl int, address string) bool {
	if ap, err := netip.ParseAddrPort(l.Remote); err != nil || ap.Addr().Unmap().String() == address {
		return false
	}
	return slices.ContainsFunc(l.Hops, func(h measure.Hop) bool {
		return h.TTL == ttl && ttl > 0 && !h.Server && slices.ContainsFunc(h.Routers, func(r measure.Router) bool { return r.Address == address })
	})
}

// addressable says whether a connection to a router's address ends there.
func addressable(a netip.Addr, ttl int) bool {
	kind, bogon := known.Bogon(a)
	return !bogon || ttl == 1 && (kind == "private" || kind == "unique-local")
}

// adjacent is the probability, per mille, of the links that a router ends.
func adjacent(l *measure.Location, address string) (sum int) {
	for _, p := range l.Set {
		if p.From == address || p.To == address {
			sum += p.PerMille
		}
	}
	return min(sum, 1000)
}

// AskNeighbours makes one ordinary connection to each of BannerPorts of each
// router, and notes what comes: a greeting, to which nothing is said; or the
// answer to one GET of /, over TLS where that is usual. Nothing is tried twice,
// nobody logs in. What was seen is in the log, for identify.Infer.
func AskNeighbours(ctx context.Context, cfg Config, log *wire.Log, table *identify.Table, list []Neighbour) {
	pacer := newPacer(cfg.Pace)
	var all sync.WaitGroup
	for _, n := range list[:min(len(list), MaxBeside)] {
		all.Go(func() {
			for _, port := range BannerPorts {
				if pacer.wait(ctx) != nil {
					return
				}
				askNeighbour(ctx, cfg, log, table, n, port)
			}
		})
	}
	all.Wait()
}

func askNeighbour(ctx context.Context, cfg Config, log *wire.Log, table *identify.Table, n Neighbour, port uint16) {
	meta := wire.Meta{Role: measure.RoleTest, Stage: measure.StageBanner, Experiment: measure.ExpBanner, Beside: &n.Beside}
	conn, o := wire.Connect(ctx, cfg.Network, log, meta, wire.ConnectSpec{Remote: netip.AddrPortFrom(n.Addr, port), Timeout: bannerConnect})
	if conn == nil {
		return
	}
	defer conn.Close()
	meta.After = o.ID
	var secure *wire.TLSConn
	switch port {
	case 21, 22, 23:
		wire.Greet(ctx, log, meta, conn, maxBannerBytes, bannerPatience)
		return
	case 443, 8443:
		// As a browser that is given an address: without a name.
		if secure, o = wire.Handshake(ctx, log, meta, conn, wire.HandshakeSpec{}, &cfg.Trust); secure == nil {
			return
		}
		meta.After = o.ID
	}
	host := n.Addr.String()
	if n.Addr.Is6() {
		host = "[" + host + "]"
	}
	if usual := map[uint16]bool{80: true, 443: true}; !usual[port] {
		host = netip.AddrPortFrom(n.Addr, port).String()
	}
	request := wire.Request{URL: "http://" + host + "/", MaxBody: maxBannerBytes, Timeout: bannerPatience, Stall: bannerConnect}
	var body []byte
	if secure != nil {
		request.URL = "https://" + host + "/"
		o, body = wire.Fetch(ctx, log, meta, secure, request)
	} else {
		o, body = wire.Fetch(ctx, log, meta, conn, request)
	}
	if o.HTTP == nil || o.HTTP.Status == 0 {
		return
	}
	kept := *o.HTTP
	kept.Matches = table.Match(o.HTTP, body)
	kept.Headers = slices.Clone(kept.Headers[:min(len(kept.Headers), maxBannerHeads)])
	for i := range kept.Headers {
		h := &kept.Headers[i]
		h.Name, h.Value = clip(h.Name), clip(h.Value)
	}
	log.Amend(func() { o.HTTP = &kept })
}

// clip cuts a header to what is kept of it.
func clip(s string) string {
	if len(s) <= maxBannerHeader {
		return s
	}
	return strings.ToValidUTF8(s[:maxBannerHeader], "")
}
