package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"govah/check"
	"govah/identify"
	"govah/internal/consent"
	"govah/internal/i18n"
	"govah/measure"
	"govah/report"
)

// What asking the routers takes at most: a connection to each port of each,
// with a page of a few kB.
const (
	bannerBytes = 200_000
	bannerTime  = 30 * time.Second
)

// mayAsk says before anything is sent whether the person can be asked for the
// consent that --banner needs, once the routers are known.
func (a *app) mayAsk(o *checkOptions) error {
	switch {
	case !o.banner:
		return nil
	case !o.identify:
		return usage("add --identify", "--banner needs --identify")
	case o.lab != "" || o.consent:
		return nil
	case a.json || !isTerminal(a.in):
		return usage("add --consent if you know what --banner risks (govah identify -h)", "--banner asks before it connects to routers, and there is nobody to ask")
	}
	return nil
}

// askRouters connects to the routers beside the links on which a run has found
// devices, if the person agrees.
func (a *app) askRouters(ctx context.Context, lang i18n.Lang, o *checkOptions, s *search, table *identify.Table, l *locatable, took func(*measure.Measurement, *measure.Identification) error) error {
	places, target := l.located()
	list := check.Neighbours(places)
	if len(list) == 0 {
		if !a.quiet {
			a.note(lang.Text("cli.banner-nobody"))
		}
		return nil
	}
	agreed, err := a.agreeToAsk(lang, o, s, list)
	if err != nil || !agreed {
		return err
	}
	log := s.log("b1")
	check.AskNeighbours(ctx, *s.cfg, log, table, list)
	m := s.measurement(log, "b1", target, ctx.Err() == nil)
	if id := table.Infer(m); id != nil {
		return took(m, id)
	}
	return nil
}

// agreeToAsk says to whom connections will be made, and asks. What was agreed
// to before, in another run, does not count: these are other people's devices.
func (a *app) agreeToAsk(lang i18n.Lang, o *checkOptions, s *search, list []check.Neighbour) (bool, error) {
	ask := o.lab == "" && !o.consent
	if ask || !a.quiet {
		var ports []string
		for _, p := range check.BannerPorts {
			ports = append(ports, strconv.Itoa(int(p)))
		}
		a.note(lang.Text("cli.banner-plan", i18n.LTR("ports", strings.Join(ports, ", "))))
		for _, n := range list {
			a.item(lang.Text("cli.banner-router", i18n.LTR("address", n.Addr.String()), i18n.Num("ttl", n.Beside.TTL), i18n.LTR("network", s.ownerOf(n.Addr))))
		}
	}
	if !ask {
		return true, nil
	}
	err := consent.Confirm(a.stdin(), a.err, "\n"+report.Wrap(lang.Text("cli.banner-consent"), 0, 0)+" ", yesWords...)
	if a.ctx.Err() != nil {
		fmt.Fprintln(a.err)
		return false, nil // what the run has found is written all the same
	}
	if errors.Is(err, consent.ErrRefused) {
		a.note(lang.Text("cli.banner-left"))
		return false, nil
	}
	return err == nil, err
}

// ownerOf is the network of an address, as AS and country.
func (s *search) ownerOf(a netip.Addr) string {
	asn, country := 0, ""
	if s.cfg.ASN != nil {
		asn, country = s.cfg.ASN(a)
	}
	if asn == 0 {
		return "-"
	}
	return strings.TrimSpace(fmt.Sprintf("AS%d %s", asn, country))
}
