package identify

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"govah/known"
	"govah/measure"
)

// Banner is the payload of what routers say of themselves.
const Banner = "banner"

// Bounds on what a file of others can make of one search.
const (
	maxRouters    = 16
	maxStatements = 32 // of one router
	maxStatement  = 200
)

// volunteered is what the routers beside a link say of themselves, from the
// observations of StageBanner; nil if none was asked. It is evidence about
// these routers: which of them is the device, or whether one is, does not
// follow, and so nothing of it is among an identification's Products.
func (t *Table) volunteered(list []measure.Observation) *measure.Identification {
	id := &measure.Identification{Type: "identification", Schema: 1, Rules: Rules, Payload: Banner}
	claims := map[string][]claim{}
	for i := range list {
		o := &list[i]
		if o.Stage != measure.StageBanner || o.Experiment != measure.ExpBanner || o.Beside == nil {
			continue
		}
		at, err := netip.ParseAddrPort(o.Remote)
		if err != nil {
			continue
		}
		v := router(id, at.Addr().Unmap().String(), o)
		if v == nil {
			continue
		}
		if port := int(at.Port()); o.Step == measure.StepTCP && !slices.Contains(v.Asked, port) && o.Failure != measure.Interrupted {
			id.Probes++
			v.Asked = append(v.Asked, port)
			if o.Failure == measure.NoFailure {
				v.Open = append(v.Open, port)
			}
		}
		for _, s := range statements(o) {
			if len(v.Says) < maxStatements {
				s.Port, s.Because = int(at.Port()), o.ID
				v.Says = append(v.Says, s)
			}
		}
		claims[v.Address] = append(claims[v.Address], t.claims(o)...)
	}
	if len(id.Routers) == 0 {
		return nil
	}
	id.Outcome = measure.RouterSilent
	for i := range id.Routers {
		v := &id.Routers[i]
		slices.Sort(v.Asked)
		slices.Sort(v.Open)
		slices.SortStableFunc(v.Says, func(a, b measure.Statement) int { return a.Port - b.Port })
		switch v.Products = ranked(claims[v.Address]); {
		case len(v.Products) > 0:
			id.Outcome = measure.RouterNamed
		case len(v.Says) > 0 && id.Outcome != measure.RouterNamed:
			id.Outcome = measure.RouterUnknown
		}
	}
	// Those nearest to the device first; the order in which they answered
	// tells nothing.
	slices.SortStableFunc(id.Routers, func(a, b measure.Volunteer) int {
		if a.PerMille != b.PerMille {
			return b.PerMille - a.PerMille
		}
		return cmp.Or(a.TTL-b.TTL, strings.Compare(a.Address, b.Address))
	})
	return id
}

// router finds the one that an observation is of; nil if there are too many.
func router(id *measure.Identification, address string, o *measure.Observation) *measure.Volunteer {
	i := slices.IndexFunc(id.Routers, func(v measure.Volunteer) bool { return v.Address == address })
	if i < 0 {
		if i = len(id.Routers); i == maxRouters {
			return nil
		}
		id.Routers = append(id.Routers, measure.Volunteer{Address: address, TTL: o.Beside.TTL, PerMille: min(max(o.Beside.PerMille, 0), 1000)})
	}
	return &id.Routers[i]
}

// statements are what an observation shows a router to say.
func statements(o *measure.Observation) (out []measure.Statement) {
	add := func(kind, text string) {
		if text != "" {
			out = append(out, measure.Statement{Kind: kind, Text: strings.ToValidUTF8(text[:min(len(text), maxStatement)], "")})
		}
	}
	if o.Greeting != nil {
		add("greeting", strings.TrimRight(strings.ReplaceAll(o.Greeting.Text, "%0D%0A", " "), " "))
	}
	if o.TLS != nil {
		add("certificate", o.TLS.Subject)
	}
	if h := o.HTTP; h != nil && h.Status != 0 {
		for _, f := range h.Headers {
			switch strings.ToLower(f.Name) {
			case "server":
				add("server", f.Value)
			case "www-authenticate":
				add("realm", f.Value)
			}
		}
		add("redirect", h.Location)
		add("title", h.Title)
	}
	return out
}

// claims are the products that an observation of a router names.
func (t *Table) claims(o *measure.Observation) (out []claim) {
	var matches []measure.Match
	if o.Greeting != nil {
		matches = t.signatures.Match(known.Evidence{Greeting: o.Greeting.Text})
	}
	if o.HTTP != nil {
		matches = append(matches, o.HTTP.Matches...)
	}
	for _, m := range matches {
		// What servers send by themselves names no router's product.
		if m.Kind == "blockpage" || m.Kind == "product" || m.Kind == "captive" {
			if c, ok := claimOf(t.signatures, m.Row, o.ID); ok {
				out = append(out, c)
			}
		}
	}
	if o.TLS != nil {
		if r, _, ok := known.InterceptionRoot(o.TLS); ok {
			out = append(out, claim{o.ID, r.ID, r.Product, r.Vendor, r.Country, r.Source, r.Confidence})
		}
	}
	return out
}
