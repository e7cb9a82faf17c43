package report

import (
	"slices"

	"govah/internal/i18n"
	"govah/measure"
)

// Bounds on what a file of others can make a report say of routers.
const (
	maxAsked      = 8
	maxStatements = 3  // of one router, in words
	maxSaid       = 32 // of one router, in the table
)

// saidBy says whether an identification is of what routers say of themselves.
func saidBy(id *measure.Identification) bool {
	return len(id.Routers) > 0 || id.Outcome == measure.RouterNamed || id.Outcome == measure.RouterUnknown || id.Outcome == measure.RouterSilent
}

// kindTitle is the title of an identification, with what carried the trigger.
func kindTitle(id *measure.Identification) (key, payload string, family measure.Family) {
	if saidBy(id) {
		return "identification.routers", "", ""
	}
	return "identification.title", id.Payload, id.Family
}

func routers(id *measure.Identification) []measure.Volunteer {
	return id.Routers[:min(len(id.Routers), maxAsked)]
}

// said quotes a router: what it says is its own, in whatever direction.
func said(s *measure.Statement, n int) sentence {
	return say("list.quote", i18n.Foreign("text", clip(s.Text, n)))
}

func routerName(v *measure.Volunteer) []i18n.Arg {
	return []i18n.Arg{i18n.LTR("address", clip(v.Address, 60)), i18n.Num("ttl", max(v.TTL, 0))}
}

// volunteered puts what routers say of themselves into words. However well a
// router is named, it is the router that is: nothing here says of the device
// what it is.
func volunteered(l i18n.Lang, id *measure.Identification) account {
	var a account
	for i := range routers(id) {
		v := &id.Routers[i]
		name := routerName(v)
		if len(v.Products) > 0 {
			first := v.Products[0]
			a.headline = append(a.headline, say("identification.outcome.router", append(name,
				candidate(first.Name, first.Vendor).as("product"), i18n.Word("share", share(l, first.PerMille)))...))
			if rest := v.Products[1:]; len(rest) > 0 {
				a.headline = append(a.headline, say("identification.also", shares(l, rest).as("list")))
			}
		}
		a.because = append(a.because, say("identification.router.asked", append(name, i18n.Num("open", len(v.Open)), i18n.Num("ports", len(v.Asked)),
			i18n.Word("share", share(l, v.PerMille)))...))
		for j := range v.Says[:min(len(v.Says), maxStatements)] {
			s := &v.Says[j]
			a.because = append(a.because, say("identification.router.says", i18n.LTR("address", clip(v.Address, 60)), i18n.Num("port", max(s.Port, 0)),
				term(l, "identification.statement.", s.Kind).as("kind"), said(s, 60).as("text")))
		}
	}
	switch {
	case len(a.headline) > 0:
		a.not = append(a.not, say("identification.limit.router"))
	case slices.ContainsFunc(routers(id), func(v measure.Volunteer) bool { return len(v.Says) > 0 }):
		a.headline = append(a.headline, say("identification.outcome.router-unknown"))
	default:
		a.headline = append(a.headline, say("identification.outcome.router-silent"))
	}
	a.not = append(a.not, say("identification.limit.beside"))
	for _, w := range id.Unknown[:min(len(id.Unknown), maxWhys)] {
		a.open = append(a.open, why(l, w))
	}
	return a
}

// statementRows are the lines of the table for what routers say.
func statementRows(l i18n.Lang, id *measure.Identification) []propertyRow {
	var out []propertyRow
	for i := range routers(id) {
		v := &id.Routers[i]
		for j := range v.Says[:min(len(v.Says), maxSaid)] {
			s := &v.Says[j]
			r := propertyRow{value: said(s, 200), name: say("identification.router.where", i18n.LTR("address", clip(v.Address, 60)),
				i18n.Num("port", max(s.Port, 0)), term(l, "identification.statement.", s.Kind).as("kind"))}
			if s.Because != "" {
				r.because = []string{s.Because}
			}
			out = append(out, r)
		}
	}
	return out
}
