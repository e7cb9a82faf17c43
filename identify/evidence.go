package identify

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"govah/measure"
)

// Tally is how a form of the trigger fared.
type Tally struct {
	Reacted, Passed int // pairs whose control passed
	Spoiled         int // pairs whose control did not
	Because         []string
}

func (t Tally) pairs() int { return t.Reacted + t.Passed }

// Evidence is what the observations of one search say.
type Evidence struct {
	Payload string
	Family  measure.Family
	Trigger measure.Trigger
	// Writes are the values of what the device wrote, by property.
	Writes map[string]string
	// Wrote are the observations they come from.
	Wrote []string
	// Reads are the tallies of the forms, Plain among them.
	Reads map[string]*Tally
	// Own says that the next form goes to a server of one's own. It is for
	// whoever asks for the next, and no observation tells it.
	Own bool
	// signed are what signatures say of the test's answer and not the control's.
	signed []signed
	gave   []given
	// injected are the packets that the device sent, where they were captured.
	injected []injection
	plain    *measure.Observation // the first reaction to the plain form
	nowhere  bool                 // no resolver runs where the questions go
	sent     int                  // triggers
}

// given is an address that a forged answer gave.
type given struct {
	addr netip.Addr
	ttlS int64
	id   string
}

type signed struct {
	match measure.Match
	id    string
}

// Gather reads the observations of a search (StageIdentify).
func Gather(list []measure.Observation) *Evidence {
	e := &Evidence{Writes: map[string]string{}, Reads: map[string]*Tally{}}
	byID := map[string]*measure.Observation{}
	for i := range list {
		byID[list[i].ID] = &list[i]
	}
	// Where the plain form never draws a reaction the device does not stand:
	// that it passed there says nothing.
	passes, reactions := map[string]int{}, map[string]int{}
	for i := range list {
		t := &list[i]
		if t.Stage != measure.StageIdentify || t.Form == "" {
			continue
		}
		if t.Role == measure.RoleTest {
			e.sent++
		}
		if t.Experiment != measure.ExpForm || t.Failure == measure.Interrupted || !whole(t) {
			continue
		}
		if e.Payload == "" {
			e.Payload, e.Family, e.nowhere = payloadOf(t), t.Family, nowhere(t)
		}
		if payloadOf(t) != e.Payload || t.Form != Plain && !slices.Contains(Forms(e.Payload), t.Form) {
			continue
		}
		if t.Role == measure.RoleControl && !Passed(t) {
			e.tally(t.Form).Spoiled++
		}
		c := byID[t.Control]
		if t.Role != measure.RoleTest || c == nil || c.Step != t.Step || !whole(c) || nowhere(c) != nowhere(t) || !Passed(c) {
			continue
		}
		before := e.tally(Plain).Reacted
		e.add(t, c)
		if t.Form == Plain && e.tally(Plain).Reacted > before {
			reactions[t.Remote]++
		} else if t.Form == Plain {
			passes[t.Remote]++
		}
	}
	for at, n := range passes {
		if len(reactions) > 0 && reactions[at] == 0 {
			e.tally(Plain).Passed -= n
		}
	}
	e.mark()
	return e
}

// whole says whether an observation has what its step leaves behind; one from
// a file may lack anything.
func whole(o *measure.Observation) bool {
	switch o.Step {
	case measure.StepDNS:
		return o.DNS != nil
	case measure.StepHTTP:
		return o.HTTP != nil
	case measure.StepTLS, measure.StepQUIC:
		return o.TLS != nil
	}
	return false
}

// add takes one pair.
func (e *Evidence) add(t, c *measure.Observation) {
	if t.Form == Plain && e.Trigger.Kind == "" {
		e.Trigger = trigger(t, c)
	}
	tally := e.tally(t.Form)
	tally.Because = append(tally.Because, t.ID)
	if !Differ(t, c) || e.plain != nil && !Alike(t, e.plain) {
		tally.Passed++
		return
	}
	tally.Reacted++
	w := writes(t)
	if e.plain == nil && t.Form == Plain {
		e.plain, e.Writes = t, w
	}
	if w["action"] == e.Writes["action"] {
		e.Wrote = append(e.Wrote, t.ID)
		e.injected = append(e.injected, injections(t, c)...)
	}
	e.signed = append(e.signed, signatures(t, c)...)
	if t.DNS != nil && len(t.DNS.Replies) > 0 {
		for _, a := range t.DNS.Replies[0].Answers {
			if addr, err := netip.ParseAddr(a.Value); err == nil {
				e.gave = append(e.gave, given{addr, a.TTLS, t.ID})
			}
		}
	}
}

func (e *Evidence) tally(form string) *Tally {
	if e.Reads[form] == nil {
		e.Reads[form] = &Tally{}
	}
	return e.Reads[form]
}

func payloadOf(o *measure.Observation) string {
	switch o.Step {
	case measure.StepDNS:
		return Naming
	case measure.StepHTTP:
		return Web
	case measure.StepQUIC:
		return QUIC
	}
	return TLS
}

func trigger(t, c *measure.Observation) measure.Trigger {
	switch payloadOf(t) {
	case Naming:
		return measure.Trigger{Kind: "qname", Value: t.DNS.Name, Control: c.DNS.Name}
	case Web:
		return measure.Trigger{Kind: "host", Value: t.Host, Control: c.Host}
	}
	return measure.Trigger{Kind: "sni", Value: t.SNI, Control: c.SNI}
}

// nowhere says whether a question went where no resolver runs.
func nowhere(o *measure.Observation) bool { return o.DNS != nil && o.DNS.NoResolver }

// Passed says whether a control was let through. Where no resolver runs that
// is silence.
func Passed(c *measure.Observation) bool {
	switch {
	case nowhere(c):
		return len(c.DNS.Replies) == 0 && c.DNS.Transport == "udp" && c.Sent > 0
	case c.DNS != nil:
		return len(c.DNS.Replies) > 0
	case c.Step == measure.StepTLS || c.Step == measure.StepQUIC:
		return c.TLS != nil && c.TLS.ServerBytes
	}
	return c.HTTP != nil && c.HTTP.Status != 0
}

// Differ says whether a test fared otherwise than a control that passed, in a
// way that the name alone should not cause.
func Differ(t, c *measure.Observation) bool {
	switch {
	case nowhere(c):
		return len(t.DNS.Replies) > 0
	case c.DNS != nil:
		return len(t.DNS.Replies) == 0
	case c.Step == measure.StepTLS || c.Step == measure.StepQUIC:
		if t.TLS == nil || !t.TLS.ServerBytes || broken(t) && !broken(c) {
			return true
		}
		// A server's alert for a name that it does not know is no reaction.
		return t.TLS.Alert >= 0 && t.TLS.Chain == nil && t.TLS.Alert != c.TLS.Alert
	}
	if t.HTTP == nil || t.HTTP.Status == 0 || broken(t) && !broken(c) {
		return true
	}
	if slices.ContainsFunc(signatures(t, c), func(s signed) bool { return s.match.Kind == "blockpage" }) {
		return true
	}
	// Who sends a name to itself knows it: no device is needed for that.
	return leads(t) != "self" && (t.HTTP.Status != c.HTTP.Status || leads(t) != leads(c))
}

// Alike says whether two answers come from one hand. A server may answer its
// own name in an odd form otherwise than a name that it does not know; that is
// no reaction.
func Alike(t, plain *measure.Observation) bool {
	if nowhere(t) {
		return true // whatever answers there is the device
	}
	a, b := t.HTTP, plain.HTTP
	switch {
	case a == nil || b == nil || a.Status == 0 && b.Status == 0:
		return writes(t)["action"] == writes(plain)["action"]
	case a.Status == 0 || b.Status == 0:
		// A reset that follows a page may overtake it.
		return broken(t) && broken(plain)
	}
	return a.Status == b.Status && leads(t) == leads(plain) && slices.Equal(fields(a), fields(b)) &&
		(a.Method == "HEAD" || b.Method == "HEAD" || title(t) == title(plain))
}

// title is that of a page, less the name that was asked for.
func title(o *measure.Observation) string {
	host, _, _ := strings.Cut(strings.ToLower(o.Host), ":")
	t := strings.ToLower(o.HTTP.Title)
	if host = strings.TrimSuffix(host, "."); host == "" {
		return t
	}
	return strings.ReplaceAll(t, host, "")
}

// fields are the names of an answer's headers, but those that depend on the
// request.
func fields(h *measure.HTTP) (out []string) {
	for _, f := range h.Headers {
		switch name := strings.ToLower(f.Name); name {
		case "content-length", "transfer-encoding", "connection", "keep-alive":
		default:
			out = append(out, name)
		}
	}
	return out
}

// broken says whether the connection ended otherwise than by agreement.
func broken(o *measure.Observation) bool {
	switch o.Failure {
	case measure.ConnectionReset, measure.ConnectionAborted, measure.EOF, measure.GenericTimeout:
		return true
	}
	return false
}

// leads is the host that a redirect leads to, "self" if it is the one that was
// asked for: many servers send whatever name they are asked for to https.
func leads(o *measure.Observation) string {
	u, err := url.Parse(o.HTTP.Location)
	if err != nil || u.Host == "" {
		return ""
	}
	asked, _, _ := strings.Cut(o.Host, ":")
	if to := strings.TrimSuffix(strings.ToLower(u.Hostname()), "."); to != strings.TrimSuffix(strings.ToLower(asked), ".") {
		return to
	}
	return "self"
}

// signatures are the matches of a test that its control lacks.
func signatures(t, c *measure.Observation) (out []signed) {
	if t.HTTP == nil {
		return nil
	}
	for _, m := range t.HTTP.Matches {
		if m.Kind != "blockpage" && m.Kind != "product" {
			continue // what servers send by themselves
		}
		if c.HTTP != nil && slices.ContainsFunc(c.HTTP.Matches, func(o measure.Match) bool { return o.Row == m.Row }) {
			continue
		}
		out = append(out, signed{m, t.ID})
	}
	return out
}

// writes names what came in place of the true answer.
func writes(t *measure.Observation) map[string]string {
	w := map[string]string{}
	switch f := t.Failure; {
	case t.DNS != nil:
		answered(w, t.DNS)
	case t.HTTP != nil && t.HTTP.Status != 0:
		w["action"] = "page"
		if t.HTTP.Location != "" && t.HTTP.Status/100 == 3 {
			w["action"] = "redirect"
		}
		w["status"] = strconv.Itoa(t.HTTP.Status)
	case t.TLS != nil && t.TLS.Alert >= 0:
		w["action"], w["alert"] = "alert", strconv.Itoa(t.TLS.Alert)
	case f == measure.ConnectionReset || f == measure.ConnectionAborted:
		w["action"] = "reset"
	case f == measure.EOF:
		w["action"] = "closed"
	case f == measure.GenericTimeout:
		w["action"] = "drop"
	default:
		w["action"] = "other"
	}
	return w
}

func answered(w map[string]string, d *measure.DNS) {
	if len(d.Replies) == 0 {
		w["action"] = "drop"
		return
	}
	r := d.Replies[0]
	w["rcode"] = strings.ToLower(r.Rcode)
	switch {
	case r.Rcode == "NOERROR" && len(r.Answers) > 0:
		w["action"] = "answer"
	case r.Rcode == "NOERROR":
		w["action"] = "empty"
	default:
		w["action"] = strings.ToLower(r.Rcode)
	}
	w["aa"] = "no"
	if r.AA {
		w["aa"] = "yes"
	}
	w["replies"] = strconv.Itoa(len(d.Replies))
	for _, a := range r.Answers {
		if _, err := netip.ParseAddr(a.Value); err == nil {
			w["answer"] = a.Value
			w["dns-ttl"] = strconv.FormatInt(a.TTLS, 10)
			break
		}
	}
}
