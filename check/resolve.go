package check

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"

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
	var servers []*wire.DoH
	for _, d := range cfg.Controls.DoH {
		if server, err := wire.NewDoH(cfg.Network, d.URL, d.Addrs, &cfg.Trust); err == nil {
			defer server.Close()
			servers = append(servers, server)
		}
	}
	meta := wire.Meta{Role: measure.RoleControl, Stage: measure.StagePreflight}
	out := encrypted(ctx, servers, log, meta, name)
	if len(out) == 0 {
		out = addresses(wire.LookupSystem(ctx, cfg.Network, log, meta, name, lookupTimeout))
	}
	return slices.DeleteFunc(out, func(a netip.Addr) bool { return a.Is4() && cfg.Only6 || a.Is6() && cfg.Only4 })
}

// encrypted asks resolvers for both kinds of address until one answers.
func encrypted(ctx context.Context, servers []*wire.DoH, log *wire.Log, meta wire.Meta, name string) (out []netip.Addr) {
	for _, d := range servers {
		var v4, v6 *measure.Observation
		var wg sync.WaitGroup
		wg.Go(func() { v4 = d.Ask(ctx, log, meta, name, "A", dohTimeout) })
		wg.Go(func() { v6 = d.Ask(ctx, log, meta, name, "AAAA", dohTimeout) })
		wg.Wait()
		out = append(addresses(v4), addresses(v6)...)
		if len(out) > 0 {
			break
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
