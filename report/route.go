package report

import (
	"slices"

	"govah/internal/i18n"
	"govah/measure"
)

// A path is drawn from top to bottom, one row of HTML a hop with a small
// drawing in it: so it has room for addresses on a phone, text keeps its size
// and wraps, and a right-to-left language needs no other picture.

// Location adds where on the path something sits to the report: to the card of
// the verdict with the same Run and Measurement, or, if there is none, to a
// part of its own. Like Run and End it may be called while Entries is ranged
// over, as long as all are there after the first pass. What is added again (in
// a later pass, or by newer rules) takes the place of what was there. Locations
// stay in memory, some kilobytes each: only what is suspected is located.
func (s *Source) Location(l *measure.Location) {
	if s.locations == nil {
		s.locations = map[string][]*measure.Location{}
	}
	key := measurementKey(l.Run, l.Measurement)
	list := s.locations[key]
	for i, old := range list {
		if old.Target == l.Target && old.Remote == l.Remote && old.Family == l.Family && old.Payload == l.Payload && old.Trigger == l.Trigger {
			list[i] = l
			return
		}
	}
	if list == nil {
		s.located = append(s.located, key)
	}
	s.locations[key] = append(list, l)
}

// Measured says of a measurement that has a location and no verdict what it was
// made from: the network, and what of it (a VPN, a login page) holds for all
// that is shown. It may be called as Location may.
func (s *Source) Measured(m *measure.Measurement) {
	s.where.add([]place{{m.Vantage, m.View}}, notices(m))
}

// placed says whether something was located for the target of a verdict, in
// its own measurement or in one that followed it.
func (s *Source) placed(v *measure.Verdict) bool {
	for _, list := range s.locations {
		if slices.ContainsFunc(list, func(l *measure.Location) bool {
			return l.Outcome == measure.Located && l.Run == v.Run && l.Target == v.Target
		}) {
			return true
		}
	}
	return false
}

// found counts the paths on which something was located, and all that were
// searched.
func (s *Source) found() (places, searches int) {
	for _, list := range s.locations {
		for _, l := range list {
			if l.Outcome != measure.Itself { // there was nothing to find the place of
				searches++
			}
			if l.Outcome == measure.Located {
				places++
			}
		}
	}
	return places, searches
}

// searched sums up what was found beyond the verdicts.
func (s *Source) searched() []sentence {
	places, searches := s.found()
	known, tried := s.recognised()
	return searched(places, searches, known, tried)
}

func searched(places, searches, known, tried int) []sentence {
	var out []sentence
	if searches > 0 {
		out = append(out, say("location.summary", i18n.Num("n", places), i18n.Num("total", searches)))
	}
	if tried > 0 {
		out = append(out, say("identification.summary", i18n.Num("n", known), i18n.Num("total", tried)))
	}
	return out
}

// alone writes what belongs to no verdict of the report.
func (d *document) alone(src *Source) {
	apart(d, "where", "location.title", src.located, src.locations,
		func(l *measure.Location) string { return l.Target }, func(l *measure.Location) { d.location(l, account{}) })
	apart(d, "kind", "identification.title", src.identified, src.identifications,
		func(id *measure.Identification) string { return id.Target }, func(id *measure.Identification) { d.identification(id, account{}) })
}

// location writes one location: in words, as a drawing, and as a table. The
// next steps that its verdict names already are not repeated.
func (d *document) location(l *measure.Location, verdict account) {
	r := routeOf(l)
	a := whereabouts(d.l, l, r)
	d.beyond("location.title", l.Payload, l.Family, a, verdict, func() {
		if r.answered {
			d.raw(`<figure>`)
			d.route(r, a.headline[0])
			d.raw(`<p class="legend" aria-hidden="true">`)
			d.words("location.legend")
			d.raw(`</p>`)
			d.hopTable(r)
			d.raw(`</figure>`)
		}
	})
	d.raw(`</div>`)
}

// network is the AS of a stop as it is drawn.
type network struct {
	asn     int
	country string
	label   i18n.Markup // at the first stop of a run
	odd     bool        // runs take turns, so that two neighbours differ
	between bool        // no answer, but the same AS before and after
}

// networks finds the runs of stops in one AS and country. A silent router
// between two of the same is marked as such, not counted to it.
func (r *route) networks() []network {
	out := make([]network, len(r.stops))
	last, odd := -1, false
	for i, s := range r.stops {
		if s.server || len(s.routers) == 0 || s.routers[0].ASN <= 0 {
			if s.server {
				last = -1
			}
			continue
		}
		router := s.routers[0]
		n := network{asn: router.ASN, country: router.Country}
		if last >= 0 && out[last].asn == n.asn && out[last].country == n.country {
			for j := last + 1; j < i; j++ {
				out[j].between, out[j].odd = true, odd
			}
		} else {
			odd = !odd
			n.label = i18n.BDI("AS" + string(number(router.ASN)))
			if router.Country != "" {
				n.label += " " + i18n.BDI(clip(router.Country, 8))
			}
		}
		n.odd = odd
		out[i], last = n, i
	}
	return out
}

const (
	shapeRouter  i18n.Markup = "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0"
	shapeEnd     i18n.Markup = "M-6,-6H6V6H-6Z"
	shapeBig     i18n.Markup = "M-6,-6L6,6M-6,6L6,-6"
	shapeSibling i18n.Markup = "M9,0a3.5,3.5 0 1,0 7,0a3.5,3.5 0 1,0 -7,0"
	shapeBranch  i18n.Markup = "M0,-14C12,-10 12.5,-8 12.5,-4M0,14C12,10 12.5,8 12.5,4"
	mirrorBranch i18n.Markup = "M0,-14C-12,-10 -12.5,-8 -12.5,-4M0,14C-12,10 -12.5,8 -12.5,4"
	mirrorShape  i18n.Markup = "M-16,0a3.5,3.5 0 1,0 7,0a3.5,3.5 0 1,0 -7,0"
)

// route draws the path, this device at the top and the server at the bottom.
func (d *document) route(r *route, verdict sentence) {
	d.raw(`<div class="route" role="img" aria-label="`, plainText(verdict.text(d.l)), `">`)
	nets := r.networks()
	for i, s := range r.stops {
		d.stop(r, s, nets[i], i == 0, i == len(r.stops)-1)
		if p, here, ok := r.at(s); ok && i < len(r.stops)-1 {
			d.link(r, p, here, nets[i], nets[i+1])
		}
	}
	d.raw(`</div>`)
}

func (n network) class() i18n.Markup {
	switch {
	case n.asn == 0 && !n.between:
		return ""
	case n.between && n.odd:
		return " as odd gap"
	case n.between:
		return " as gap"
	case n.odd:
		return " as odd"
	}
	return " as"
}

// stop draws one row: the network, the node on the line, and who it is.
func (d *document) stop(r *route, s stop, n network, first, last bool) {
	in := i18n.Markup("")
	if r.within(s) {
		in = " in"
	}
	d.raw(`<div class="stop`, in, `"><span class="net`, n.class(), `">`, n.label, `</span><svg>`)
	above, below := i18n.Markup("0"), i18n.Markup("100%")
	if first {
		above = "50%"
	}
	if last {
		below = "50%"
	}
	line := i18n.Markup("w")
	if s.ttl == unreached {
		line = "w w-gap"
	}
	d.raw(`<line class="`, line, `" x1="50%" x2="50%" y1="`, above, `" y2="`, below, `"/>`)
	switch {
	case first, s.server && s.ttl != unreached:
		d.point(500, "50%", "n", shapeEnd)
	case s.server:
		d.point(500, "50%", "n n-no", shapeEnd)
	case len(s.routers) == 0:
		d.point(500, "50%", "n n-no", shapeRouter)
	default:
		if len(s.routers) > 1 {
			branch, sibling := shapeBranch, shapeSibling
			if d.l.RTL() {
				branch, sibling = mirrorBranch, mirrorShape
			}
			d.point(500, "50%", "n-br", branch)
			d.point(500, "50%", "n n-sib", sibling)
		}
		d.point(500, "50%", "n", shapeRouter)
	}
	d.raw(`</svg><span class="hop">`)
	if s.ttl > 0 && s.ttl != unreached {
		d.raw(i18n.EscapeHTML(d.l.Number(int64(s.ttl))))
	}
	d.raw(`</span><span>`)
	for i, row := range r.rows(d.l, s) {
		if i > 0 {
			d.raw(`<br>`)
		}
		d.address(row)
		if row.best != "" && row.best != "–" {
			d.raw(` <span class="small rtt">`)
			d.words("unit.ms", i18n.Word("n", row.best))
			d.raw(`</span>`)
		}
	}
	d.raw(`</span></div>`)
}

// address writes who answered, or that nobody did.
func (d *document) address(row hopRow) {
	if row.address != "" {
		d.raw(i18n.BDI(row.address))
	}
	if row.word.key != "" {
		if row.address != "" {
			d.raw(` `)
		}
		d.raw(`<span class="who">`, row.word.markup(d.l), `</span>`)
	}
}

// link draws a link of the credible set, between its two hops.
func (d *document) link(r *route, p measure.Place, here bool, above, below network) {
	class, line := i18n.Markup(""), i18n.Markup("w w-in")
	if here {
		class, line = " here", "w w-here"
	}
	n := network{}
	if (above.asn > 0 || above.between) && (below.asn > 0 || below.between) && above.odd == below.odd {
		n = network{between: above.between || below.between, odd: above.odd, asn: above.asn} // the link lies in a run
	}
	symbol, words := r.mark(d.l, p, here)
	d.raw(`<div class="stop in link`, class, `"><span class="net`, n.class(), `"></span><svg><line class="`, line, `" x1="50%" x2="50%" y1="0" y2="100%"/>`)
	if here {
		d.point(500, "50%", "x-back", shapeBig)
		d.point(500, "50%", "x", shapeBig)
	}
	d.raw(`</svg><span class="hop">`, attr(symbol), `</span><span>`, words.markup(d.l), `</span></div>`)
}

// hopTable is the drawing as text, which screen readers get in its place.
func (d *document) hopTable(r *route) {
	d.raw(`<details><summary>`)
	d.words("location.table")
	d.raw(`</summary><div class="hops" tabindex="0" role="region" aria-label="`, plainText(d.l.Text("location.table")), `"><table><thead><tr>`)
	for _, key := range columns {
		d.raw(`<th scope="col">`)
		d.words("location.col." + key)
		d.raw(`</th>`)
	}
	d.raw(`</tr></thead><tbody>`)
	cell := func(value string) { d.raw(`<td class="n">`, i18n.EscapeHTML(value), `</td>`) }
	for _, s := range r.stops {
		for _, row := range r.rows(d.l, s) {
			d.raw(`<tr>`)
			cell(row.hop)
			d.raw(`<td>`)
			d.address(row)
			d.raw(`</td><td class="n">`)
			if row.asn != "" {
				d.raw(i18n.BDI(row.asn))
			}
			d.raw(`</td><td>`)
			if row.country != "" {
				d.raw(i18n.BDI(row.country))
			}
			d.raw(`</td>`)
			cell(row.loss)
			cell(row.best)
			d.raw(`</tr>`)
		}
		if p, here, ok := r.at(s); ok {
			symbol, words := r.mark(d.l, p, here)
			d.raw(`<tr class="ev"><td>`, attr(symbol), `</td><td colspan="5"><b>`, words.markup(d.l), `</b></td></tr>`)
		}
	}
	d.raw(`</tbody></table></div>`)
	for _, s := range r.notes() {
		d.raw(`<p class="small">`, s.markup(d.l), `</p>`)
	}
	d.raw(`</details>`)
}
