package locate

import (
	"bytes"
	"context"
	"slices"

	"govah/measure"
)

// A device may change a segment in passing and let it go on: then nothing
// differs in who answers and from where, but routers beyond it quote, of what
// dies at them, other bytes than were sent (tracebox, Detal 2013). On an
// established connection Linux shows that only to those who may capture
// packets.

// minQuoted is how many bytes of data a quote must have to be compared.
const minQuoted = 4

// compare says how the data in a quoted segment differ from what was sent:
// whole, altered, or "" where it has too few of them.
func compare(quote, sent []byte) string {
	data := quotedData(quote)
	n := min(len(data), len(sent))
	switch {
	case n < min(minQuoted, len(sent)):
		return ""
	case !bytes.Equal(data[:n], sent[:n]):
		return "altered"
	case n < len(sent):
		return ""
	}
	return "whole"
}

// quotedData are the data of a quoted TCP segment, as far as they are there.
func quotedData(b []byte) []byte {
	at := 0
	switch {
	case len(b) >= 20 && b[0]>>4 == 4 && b[9] == 6:
		at = int(b[0]&15) * 4
	case len(b) >= 40 && b[0]>>4 == 6 && b[6] == 6:
		at = 40
	default:
		return nil
	}
	if at < 20 || len(b) < at+13 {
		return nil
	}
	at += int(b[at+12]>>4) * 4
	if end := quotedLength(b); end < len(b) {
		b = b[:max(end, 0)]
	}
	if at >= len(b) {
		return nil
	}
	return b[at:]
}

func seen(o *measure.Observation, how string) bool {
	return o.Path.Outcome == "expired" && o.Path.ICMP != nil && o.Path.ICMP.Quoted == how
}

// alteredAt is the lowest TTL at which a router quoted other bytes than were
// sent, 0 if none did.
func (r *run) alteredAt(t []*measure.Observation) int {
	if r.spec.Payload != Mail { // other things are reacted to otherwise
		return 0
	}
	for _, o := range t {
		if seen(o, "altered") {
			return o.TTL
		}
	}
	return 0
}

// confirmAltered repeats, at the TTL where a router quoted other bytes, the
// trigger and the harmless bytes.
func (r *run) confirmAltered(ctx context.Context, test, control *flow, k int) {
	r.triggered++
	for range 2 {
		if list := r.sweep(ctx, test, measure.RoleTest, 0, k); r.alteredAt(list) > 0 {
			r.triggered++
			break
		}
	}
	for range 2 {
		if list := r.sweep(ctx, control, measure.RoleControl, 0, k); len(list) > 0 && seen(list[len(list)-1], "whole") {
			break
		}
	}
	if below := r.answering(k - 1); below > 0 {
		r.quiet(ctx, test, below)
	}
	r.siblings(ctx, k-1, k)
}

// alters concludes that the trigger is changed in passing: twice, behind every
// router that quotes it whole, and the harmless bytes are quoted whole there.
func (e *evidence) alters(l *measure.Location) bool {
	low, high, times, spared := 0, 0, 0, false
	for _, t := range e.tests {
		switch {
		case seen(t, "whole"):
			low = max(low, t.TTL)
		case seen(t, "altered"):
			times++
			if high == 0 || t.TTL < high {
				high = t.TTL
			}
		}
	}
	if times < 2 || low >= high {
		return false
	}
	for _, c := range e.quotes {
		if seen(c, "altered") {
			return false // everything is changed: it is not about the trigger
		}
		spared = spared || c.TTL >= high && seen(c, "whole")
	}
	if !spared {
		return false
	}
	l.Outcome, l.Kind, l.Position = measure.Located, measure.Alters, measure.InPath
	for _, t := range e.tests {
		if seen(t, "altered") {
			l.Because = append(l.Because, t.ID)
			l.Triggers++
		}
	}
	l.Set = evenly(l, low, high, stray)
	return true
}

// evenly are the links between two TTLs, one as likely as the other, if it is
// not by chance that a device is claimed there.
func evenly(l *measure.Location, low, high int, chance float64) (set []measure.Place) {
	for k := high - 1; k >= low; k-- {
		p := measure.Place{Low: k, PerMille: int(1000 * (1 - chance) / float64(high-low))}
		p.From, p.FromASN = followed(l.Hops, k)
		p.To, p.ToASN = followed(l.Hops, k+1)
		set = append(set, p)
	}
	return set
}

// unseen says what a search in a mail dialogue cannot see.
func (e *evidence) unseen() []measure.Why {
	why := []measure.Why{measure.WhyWayBack}
	if !slices.ContainsFunc(e.tests, func(t *measure.Observation) bool { return seen(t, "whole") }) {
		why = append(why, measure.WhyNoQuotes)
	}
	return why
}
