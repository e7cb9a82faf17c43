package judge

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"govah/known"
	"govah/measure"
)

// clear judges what became of plain requests to a helper and of its pages.
func (j *judging) clear() {
	for _, t := range j.obs {
		if t.Experiment != measure.ExpEcho || t.Role != measure.RoleTest || t.HTTP == nil || t.HTTP.Sent == nil || t.HTTP.Seen == nil || ours(t) {
			continue
		}
		c := j.byID[t.Control]
		if c == nil || c.HTTP == nil || c.HTTP.Seen == nil || c.HTTP.Sent == nil || c.Experiment != measure.ExpEcho {
			j.why[measure.WhyNoControl] = true
			continue
		}
		// What is added over TLS too is added where TLS ends: in front of the
		// helper, by its own owner.
		front := added(c.HTTP.Sent, c.HTTP.Seen)
		j.headers(t, c, front)
		if len(front) == 0 {
			j.oddLines(t)
		}
	}
	j.fixedPage()
	j.stale()
}

// added are the names, in lower case, of headers that were seen and not sent.
func added(sent, seen *measure.Head) (out []string) {
	for _, h := range seen.Headers {
		if find(sent, h.Name) < 0 {
			out = append(out, strings.ToLower(h.Name))
		}
	}
	return out
}

// find is the index of a header, -1 if it is not there.
func find(h *measure.Head, name string) int {
	return slices.IndexFunc(h.Headers, func(x measure.Header) bool { return strings.EqualFold(x.Name, name) })
}

// headers judges the head of a request as the helper saw it.
func (j *judging) headers(t, c *measure.Observation, front []string) {
	finding := func(m measure.Method, proof string) measure.Finding {
		f := measure.Finding{Method: m, Interference: measure.InterferenceConfirmed, Layer: measure.StepHTTP, Family: family(t), Proof: proof,
			Trigger: measure.Trigger{Kind: "port", Value: portText(t)}, Runs: 1, Hits: 1, Controls: measure.Count{Runs: 1}, Because: ids(t, c),
			NotExcluded: []measure.Why{measure.WhyLocalNetwork}}
		if proof != "tracked" { // no house knows the subscriber's number
			f.Scope = j.endsAt(t)
		}
		return f
	}
	sent, seen := t.HTTP.Sent, t.HTTP.Seen
	var person, proxy, other *measure.Match
	for _, name := range added(sent, seen) {
		if slices.Contains(front, name) {
			continue
		}
		row, ok := known.HeaderOf(name)
		m := &measure.Match{Kind: "added-header", Where: "header:" + name}
		if ok {
			x := row.Match()
			m = &x
		}
		switch {
		case ok && row.Kind == "proxy":
			proxy = cmp.Or(proxy, m)
		case ok:
			person = cmp.Or(person, m)
		default:
			other = cmp.Or(other, m)
		}
	}
	switch {
	case person != nil:
		f := finding(measure.HTTPTamper, "tracked")
		f.Match = person
		j.add(f)
	case other != nil:
		f := finding(measure.HTTPTamper, "header-added")
		f.Match = other
		j.add(f)
	}
	if proxy != nil {
		f := finding(measure.HTTPProxy, "proxy-header")
		f.Match = proxy
		j.merge(f)
	} else if len(front) == 0 && rewritten(sent, seen) {
		j.merge(finding(measure.HTTPProxy, "rewritten"))
	}
}

// endsAt is the scope of what ends connections to the port of o, if that was
// found: what is done to plain pages is then its doing.
func (j *judging) endsAt(o *measure.Observation) measure.Scope {
	if near, _ := j.firstHop(o.Remote); near {
		return measure.ScopeLAN
	}
	for i := range j.findings {
		if f := &j.findings[i]; f.Trigger.Kind == "port" && f.Trigger.Value == portText(o) && local(f) {
			return f.Scope
		}
	}
	return measure.ScopeUnknown
}

// portText is the port that o went to, as triggers name it.
func portText(o *measure.Observation) string { return strconv.Itoa(int(portAt(o))) }

// rewritten says whether what was sent arrived otherwise: the line, the names
// to the letter, their order, the values. What was added does not count.
func rewritten(sent, seen *measure.Head) bool {
	if sent.Line != seen.Line {
		return true
	}
	at := -1
	for _, h := range sent.Headers {
		i := find(seen, h.Name)
		if i <= at || seen.Headers[i].Name != h.Name || seen.Headers[i].Value != h.Value {
			return true
		}
		at = i
	}
	return false
}

// oddLines judges answers to what no server understands: the helper says
// nothing to the first three kinds, and refuses the others without a word
// about itself.
func (j *judging) oddLines(t *measure.Observation) {
	runs := 0
	var hits []*measure.Observation
	for _, o := range j.obs {
		if o.Experiment != measure.ExpOdd || o.HTTP == nil || o.Remote != t.Remote || ours(o) {
			continue
		}
		runs++
		silent := o.Payload != "odd-version" && o.Payload != "cache-manager"
		refused := o.HTTP.Status == 400 && !slices.ContainsFunc(o.HTTP.Headers, func(h measure.Header) bool {
			return !strings.EqualFold(h.Name, "Content-Type") && !strings.EqualFold(h.Name, "Connection")
		})
		if o.Received > 0 && (silent || o.HTTP.Status != 0 && !refused) {
			hits = append(hits, o)
		}
	}
	if len(hits) < 2 {
		return
	}
	f := measure.Finding{Method: measure.HTTPProxy, Interference: measure.InterferenceConfirmed, Layer: measure.StepHTTP, Family: family(t), Proof: "odd",
		Trigger: measure.Trigger{Kind: "port", Value: portText(t)}, Runs: runs, Hits: len(hits), Because: ids(hits...),
		Match: j.product(hits...), Scope: j.endsAt(t), NotExcluded: []measure.Why{measure.WhyLocalNetwork}}
	j.merge(f)
}

// fixedPage judges a helper's page of known content that came changed, while
// it came whole over TLS.
func (j *judging) fixedPage() {
	for _, t := range j.obs {
		c := j.byID[t.Control]
		if t.Experiment != measure.ExpPlain || t.Role != measure.RoleTest || t.HTTP == nil || t.Failure != measure.NoFailure || c == nil || c.HTTP == nil ||
			c.HTTP.BodySHA256 != measure.HelperPlainSHA256 {
			continue
		}
		if h := t.HTTP; h.BodySHA256 == measure.HelperPlainSHA256 || h.BodyTruncated || h.Status != 200 {
			continue
		}
		j.merge(measure.Finding{Method: measure.HTTPTamper, Interference: measure.InterferenceConfirmed, Layer: measure.StepHTTP, Family: family(t), Proof: "plain",
			Trigger: measure.Trigger{Kind: "port", Value: portText(t)}, Runs: 1, Hits: 1, Controls: measure.Count{Runs: 1}, Because: ids(t, c),
			Scope: j.endsAt(t), NotExcluded: []measure.Why{measure.WhyLocalNetwork}})
	}
}

// stale judges a page that is different each time and came twice the same.
func (j *judging) stale() {
	type pair struct{ t, c [2]*measure.Observation }
	all := map[string]*pair{}
	for _, o := range j.obs {
		if o.Experiment != measure.ExpFresh || o.Role != measure.RoleTest || o.HTTP == nil || o.Pair < 1 || o.Pair > 2 {
			continue
		}
		if all[o.Remote] == nil {
			all[o.Remote] = &pair{}
		}
		p := all[o.Remote]
		p.t[o.Pair-1], p.c[o.Pair-1] = o, j.byID[o.Control]
	}
	same := func(x [2]*measure.Observation) (same, known bool) {
		for _, o := range x {
			if o == nil || o.HTTP == nil || o.Failure != measure.NoFailure || o.HTTP.Status != 200 || o.HTTP.BodySHA256 == "" {
				return false, false
			}
		}
		return x[0].HTTP.BodySHA256 == x[1].HTTP.BodySHA256, true
	}
	for _, t := range j.obs {
		p := all[t.Remote]
		if p == nil || p.t[0] != t {
			continue
		}
		here, ok := same(p.t)
		there, known := same(p.c)
		if !ok || !known || !here || there {
			continue
		}
		j.merge(measure.Finding{Method: measure.HTTPProxy, Interference: measure.InterferenceConfirmed, Layer: measure.StepHTTP, Family: family(t), Proof: "stale",
			Trigger: measure.Trigger{Kind: "port", Value: portText(t)}, Runs: 1, Hits: 1, Controls: measure.Count{Runs: 1},
			Because: ids(p.t[0], p.t[1], p.c[0], p.c[1]), Scope: j.endsAt(t), NotExcluded: []measure.Why{measure.WhyLocalNetwork}})
	}
}
