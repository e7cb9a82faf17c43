package check

import (
	"context"
	"math/rand/v2"
	"net/netip"

	"govah/measure"
	"govah/wire"
)

// Resolve finds addresses of a name that a lying resolver has no part in: of
// the first encrypted resolver that answers, else the system's. What was asked
// is in the log.
func Resolve(ctx context.Context, cfg Config, log *wire.Log, name string) []netip.Addr {
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a.Unmap()}
	}
	meta := wire.Meta{Role: measure.RoleControl, Stage: measure.StagePreflight}
	view := cfg.Network.View()
	for _, d := range cfg.Controls.DoH {
		server, err := wire.NewDoH(cfg.Network, d.URL, d.Addrs, &cfg.Trust)
		if err != nil {
			continue
		}
		var out []netip.Addr
		for _, kind := range []string{"A", "AAAA"} {
			if kind == "A" && (!view.IPv4 || cfg.Only6) || kind == "AAAA" && (!view.IPv6 || cfg.Only4) {
				continue
			}
			out = append(out, addresses(server.Ask(ctx, log, meta, name, kind, dohTimeout))...)
		}
		server.Close()
		if len(out) > 0 {
			return out
		}
	}
	var out []netip.Addr
	for _, a := range addresses(wire.LookupSystem(ctx, cfg.Network, log, meta, name, lookupTimeout)) {
		if a.Is4() && !cfg.Only6 || a.Is6() && !cfg.Only4 {
			out = append(out, a)
		}
	}
	return out
}

// RandomName has the length and the dots of a name, and means nothing.
func RandomName(r *rand.Rand, name string) string {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	b := []byte(name)
	for i, c := range b {
		if c != '.' && c != '-' {
			b[i] = letters[r.IntN(len(letters))]
		}
	}
	return string(b)
}
