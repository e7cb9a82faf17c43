package report

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"govah/internal/i18n"
	"govah/measure"
)

// Bounds on what a file of others can make a report draw of one path.
const (
	maxHops    = 64 // no path on the internet is that long
	maxRouters = 8  // of one hop
)

// stop is one row of a route: this device, a hop, or the server.
type stop struct {
	ttl     int              // 0 is this device, unreached a server that no probe reached
	routers []measure.Router // the one that the tested flow went through first
	more    int              // routers left out
	server  bool
	loss    int // per cent of the probes that drew no answer, -1 if none was sent
}

const unreached = maxHops + 1

// route is the path of a location as it is shown: every hop once, in order,
// the links of the credible set among them.
type route struct {
	stops     []stop
	set       []measure.Place // the likeliest first
	low, high int             // the hops between which the whole set lies
	share     int             // per mille that the set holds
	server    int             // the TTL of the server, 0 unknown
	remote    string          // the server's address
	outcome   measure.Whereat
	back      bool // from the helper at remote to this device
	followed  bool // some hop has several routers, and which one is known
	siblings  bool
	answered  bool // by any router or the server
}

// routeOf makes l fit to be shown: what a damaged or hostile file gives out of
// order, twice or out of bounds is left out.
func routeOf(l *measure.Location) *route {
	r := &route{outcome: l.Outcome, remote: clip(l.Remote, 80), low: maxHops, back: l.FromHelper}
	if a, err := netip.ParseAddrPort(l.Remote); err == nil {
		r.remote = a.Addr().String()
	}
	// What answers in the server's place is not the server, which no probe
	// reached, unless the way there showed nothing.
	instead := (l.Kind == measure.Terminates && !l.ByAnswers || l.Kind == measure.Redirects) && l.Outcome == measure.Located
	if l.ServerTTL > 0 && l.ServerTTL <= maxHops && !instead {
		r.server = l.ServerTTL
	}
	hops := map[int]*measure.Hop{}
	last := 0
	for i := range l.Hops {
		h := &l.Hops[i]
		if h.TTL < 1 || h.TTL > maxHops || hops[h.TTL] != nil {
			continue
		}
		hops[h.TTL] = h
		last = max(last, h.TTL)
		if h.Server && r.server == 0 && !instead {
			r.server = h.TTL
		}
	}
	for _, p := range l.Set {
		if p.Low < 0 || p.Low >= maxHops || slices.ContainsFunc(r.set, func(o measure.Place) bool { return o.Low == p.Low }) {
			continue
		}
		p.PerMille = min(max(p.PerMille, 0), 1000)
		r.set = append(r.set, p)
		r.low, r.high = min(r.low, p.Low), max(r.high, p.Low+1)
		r.share = min(r.share+p.PerMille, 1000)
		last = max(last, p.Low+1)
		if beyond := hops[p.Low+1]; instead && p.To != "" && beyond != nil && len(beyond.Routers) == 0 {
			// It sent other ports' packets back.
			hops[p.Low+1] = &measure.Hop{TTL: p.Low + 1, Routers: []measure.Router{{Address: p.To, ASN: p.ToASN, Country: p.ToCountry}}}
		}
	}
	r.stops = append(r.stops, stop{loss: -1})
	for ttl := 1; ttl <= max(last, r.server); ttl++ {
		s := stop{ttl: ttl, loss: -1, server: ttl == r.server}
		if h := hops[ttl]; h != nil {
			s.routers = slices.Clone(h.Routers[:min(len(h.Routers), maxRouters)])
			s.more = len(h.Routers) - len(s.routers)
			slices.SortStableFunc(s.routers, func(a, b measure.Router) int {
				switch {
				case a.Followed == b.Followed:
					return 0
				case a.Followed:
					return -1
				}
				return 1
			})
			if h.Sent > 0 {
				sent := min(h.Sent, 1<<40)
				s.loss = 100 - (min(max(h.Answered, 0), sent)*100+sent/2)/sent
			}
			if len(s.routers) > 1 {
				r.siblings = true
				r.followed = r.followed || s.routers[0].Followed
			}
		}
		r.answered = r.answered || len(s.routers) > 0 || s.server
		r.stops = append(r.stops, s)
	}
	if r.server == 0 {
		r.stops = append(r.stops, stop{ttl: unreached, server: true, loss: -1})
	}
	return r
}

// likely is the probability in thousandths from which on a link is named as
// the place: it is likelier than all others together.
const likely = 500

// at is the link behind a stop, if it belongs to the credible set (ok); here
// says that it is the one to be named.
func (r *route) at(s stop) (place measure.Place, here, ok bool) {
	for i, p := range r.set {
		if p.Low == s.ttl {
			return p, i == 0 && p.PerMille >= likely && r.outcome != measure.NotLocated, true
		}
	}
	return measure.Place{}, false, false
}

// within says that a stop lies between links of the credible set.
func (r *route) within(s stop) bool { return s.ttl > r.low && s.ttl < r.high }

// share is a probability in thousandths. It never reads 0 or 100 per cent:
// that would claim more than a measurement can.
func share(l i18n.Lang, perMille int) string {
	switch {
	case perMille >= 995:
		return l.Text("unit.percent-above", i18n.Num("n", 99))
	case perMille < 10:
		return l.Text("unit.percent-below", i18n.Num("n", 1))
	}
	return l.Text("unit.percent", i18n.Num("n", (perMille+5)/10))
}

// end names the router at one end of a link. address, asn and country are
// what the place says of it.
func (r *route) end(ttl int, address string, asn int, country string) sentence {
	var facts sentence
	add := func(text string) {
		fact := say("detail.value", i18n.LTR("value", text))
		if facts.key != "" {
			fact = say("list.pair", facts.as("a"), fact.as("b"))
		}
		facts = fact
	}
	if !r.back && ttl > 0 && ttl == r.server && address == "" || r.back && ttl == 0 {
		address = r.remote
	}
	if address != "" {
		add(clip(address, 60))
	}
	if asn > 0 {
		add(asName(asn))
	}
	if country != "" {
		add(clip(country, 20))
	}
	switch {
	case ttl == 0 && r.back:
		return say("location.helper-at", facts.as("facts"))
	case ttl == 0, ttl == r.server && r.back:
		return say("location.device")
	case r.back && facts.key == "":
		return say("location.silent-back", i18n.Num("n", ttl))
	case r.back:
		return say("location.router-back", i18n.Num("n", ttl), facts.as("facts"))
	case ttl == r.server && facts.key == "":
		return say("location.server")
	case ttl == r.server:
		return say("location.server-at", facts.as("facts"))
	case facts.key == "":
		return say("location.silent", i18n.Num("n", ttl))
	}
	return say("location.router", i18n.Num("n", ttl), facts.as("facts"))
}

// asName is an autonomous system as people write it, "" if it is unknown.
func asName(asn int) string {
	if asn <= 0 {
		return ""
	}
	return "AS" + strconv.Itoa(asn)
}

// short names a hop by its number alone.
func (r *route) short(ttl int) sentence {
	switch {
	case r.back && ttl == 0:
		return say("location.helper")
	case r.back && ttl != r.server:
		return say("location.hop-back", i18n.Num("n", ttl))
	case r.back, ttl == 0:
		return say("location.device")
	case ttl == r.server:
		return say("location.server")
	}
	return say("location.hop", i18n.Num("n", ttl))
}

// whereabouts puts a location into words.
func whereabouts(l i18n.Lang, loc *measure.Location, r *route) account {
	var a account
	trigger := say("location.trigger.other")
	if key := "location.trigger." + loc.Trigger.Kind; l.Has(key) && loc.Trigger.Value != "" {
		trigger = say(key, i18n.LTR("value", clip(loc.Trigger.Value, 300)))
	}
	what := say("location.what.other", trigger.as("trigger"))
	switch loc.Kind {
	case measure.Injects, measure.Drops, measure.Terminates, measure.Redirects, measure.Alters:
		what = say("location.what."+string(loc.Kind), trigger.as("trigger"))
	}
	if loc.Payload == "resolver" && loc.Kind == measure.Terminates {
		what = say("location.what.answers")
	}
	way := say("location.limit.way")
	if r.back {
		what, way = say("location.what.words"), say("location.limit.way-back")
	}
	if loc.ByAnswers {
		way = say("location.limit.way-there")
	}
	head := func(key string, args ...i18n.Arg) {
		a.headline = append(a.headline, say(key, append(args, what.as("what"), trigger.as("trigger"))...))
	}
	percent := func(perMille int) i18n.Arg { return i18n.Word("share", share(l, perMille)) }
	link := func(p measure.Place) []i18n.Arg {
		return []i18n.Arg{r.end(p.Low, p.From, p.FromASN, p.FromCountry).as("from"), r.end(p.Low+1, p.To, p.ToASN, p.ToCountry).as("to"), percent(p.PerMille)}
	}
	span := []i18n.Arg{r.short(r.low).as("from"), r.short(r.high).as("to"), percent(r.share), i18n.Num("n", len(r.set))}
	spread := func() {
		key := "location.span"
		if len(r.set) < r.high-r.low {
			key = "location.span-gaps"
		}
		head(key, span...)
	}

	found, commands := false, commandsFor("locate", loc.Target)
	if r.back {
		commands = append([]i18n.Arg{i18n.Command("again", "govah locate --helper URL "+quoted(loc.Target))}, commands...)
	}
	if loc.Payload == "tls" || loc.Payload == "http" {
		payload := "" // as the URL has it
		if (loc.Payload == "http") != strings.HasPrefix(loc.Target, "http:") {
			payload = "--payload " + loc.Payload + " "
		}
		commands = append([]i18n.Arg{i18n.Command("helper", "govah locate --helper URL "+payload+quoted(loc.Target))}, commands...)
	}
	outcome := loc.Outcome
	if outcome == measure.Located && len(r.set) == 0 {
		outcome = measure.NotLocated
	}
	switch outcome {
	case measure.Located:
		found = true
		switch first := r.set[0]; {
		case len(r.set) == 1:
			head("location.outcome.located", link(first)...)
		case first.PerMille >= likely:
			head("location.outcome.likely", link(first)...)
			spread()
		default:
			head("location.outcome.somewhere", span...)
			head("location.likeliest", link(first)...)
		}
		a.not = []sentence{say("location.limit.owner"), way}
		a.next = []sentence{say("next.name", commands...)}
		if loc.Position == measure.PositionUnknown && loc.Kind == measure.Injects && !loc.ToHelper && (loc.Payload == "tls" || loc.Payload == "http") {
			a.next = append(a.next, say("location.next.helper", commands...))
		}
	case measure.AtEnd:
		found = true
		head("location.outcome.at-end")
		if len(r.set) > 1 {
			head("location.span-end", span...)
		}
		a.not = []sentence{say("location.limit.owner"), way}
		a.next = []sentence{say("location.next.at-end", commands...)}
		if loc.FarEnd != "" { // the helper was asked
			a.next = []sentence{say("location.next.again", commands...)}
		}
	case measure.Itself:
		facts := say("detail.value", i18n.LTR("value", r.remote))
		for _, fact := range []string{asName(loc.RemoteASN), clip(loc.RemoteCountry, 20)} {
			if fact != "" {
				facts = say("list.pair", facts.as("a"), say("detail.value", i18n.LTR("value", fact)).as("b"))
			}
		}
		head("location.outcome.itself", facts.as("facts"), i18n.Num("n", max(loc.ServerTTL, 0)))
		a.not = []sentence{say("location.limit.itself"), way}
		a.next = []sentence{say("location.next.resolver")}
	case measure.NoDifference:
		switch {
		case loc.Payload == "connect":
			head("location.outcome.ends-there")
		case loc.Payload == "mail" && loc.Trigger.Value != "":
			head("location.outcome.commands-alike", i18n.LTR("value", clip(loc.Trigger.Value, 40)))
		default:
			head("location.outcome.no-difference")
		}
		a.not = []sentence{say("location.limit.no-difference"), way}
		a.next = []sentence{say("location.next.again", commands...)}
		for _, w := range []measure.Why{measure.WhyWayBack, measure.WhyNoQuotes, measure.WhyBalancer} {
			if slices.Contains(loc.Unknown, w) {
				a.next = append(a.next, say("why."+string(w)+".next"))
			}
		}
	case measure.NotLocated:
		found = true
		if r.back {
			head("location.outcome.words-not-located")
		} else {
			head("location.outcome.not-located")
		}
		if len(r.set) > 0 {
			spread()
		}
		a.not = []sentence{say("location.limit.not-located"), way}
		a.next = []sentence{say("location.next.again", commands...)}
	case measure.NoPath:
		head("location.outcome.no-path")
		a.not = []sentence{say("location.limit.no-path")}
		a.next = []sentence{say("location.next.again", commands...)}
	default:
		head("location.outcome.other", i18n.LTR("outcome", clip(string(loc.Outcome), 60)))
		a.not = []sentence{say("limit.unknown")}
		a.next = []sentence{say("next.unnamed")}
	}
	if loc.ToHelper {
		a.not = append(a.not, say("location.limit.helper"))
	}
	if found {
		a.headline = append(a.headline, conduct(loc)...)
	}

	payload, family := word(l, "step", loc.Payload), word(l, "family", string(loc.Family))
	if loc.Probes > 0 && loc.Payload != "" && loc.Family != "" {
		key := "location.because"
		if r.back {
			key = "location.because-back"
		}
		a.because = append(a.because, say(key, i18n.Num("probes", loc.Probes), i18n.LTR("remote", clip(loc.Remote, 80)),
			payload.as("payload"), family.as("family"), i18n.Num("triggers", max(loc.Triggers, 0))))
	}
	if loc.Trigger.Control != "" && loc.Outcome != measure.NoPath && (!r.back || loc.Outcome == measure.Located) {
		key := "location.control"
		if r.back {
			key = "location.control-back"
		} else if len(loc.Trigger.Control) != len(loc.Trigger.Value) {
			key = "location.control-other" // somebody else's traceroutes
		}
		a.because = append(a.because, say(key, i18n.LTR("control", clip(loc.Trigger.Control, 300))))
	}
	for _, w := range loc.Unknown[:min(len(loc.Unknown), maxWhys)] {
		a.open = append(a.open, why(l, w))
	}
	return a
}

// conduct says what else is known of what reacts: where it stands, what its
// packets look like, and what it remembers.
func conduct(loc *measure.Location) []sentence {
	var out []sentence
	switch {
	case loc.FromHelper && loc.Position != measure.InPath: // nothing more is known
	case loc.Position == measure.OnPath,
		// What the server itself swallows stands in no path.
		loc.Position == measure.InPath && loc.Outcome != measure.AtEnd:
		out = append(out, say("location.position."+string(loc.Position)))
	default:
		out = append(out, say("location.position.unknown"))
	}
	switch loc.FarEnd {
	case measure.FarArrived, measure.FarArrivedCut, measure.FarNothing, measure.FarCut:
		out = append(out, say("location.far."+string(loc.FarEnd)))
	}
	if loc.OnlyServer {
		out = append(out, say("location.only-server"))
	}
	if loc.Nearer {
		out = append(out, say("location.nearer"))
	}
	if loc.ByAnswers && len(loc.Set) > 0 {
		out = append(out, say("location.by-answers", i18n.Num("n", max(loc.Set[0].Low, 0))))
	}
	if loc.CopiesTTL {
		out = append(out, say("location.copies-ttl"))
	}
	if loc.Payload == "resolver" || loc.FromHelper || loc.Kind == measure.Terminates && loc.Triggers <= 0 {
		return out // nothing was provoked
	}
	switch loc.Residual {
	case measure.ResidualNone, measure.Residual4Tuple, measure.Residual3Tuple, measure.ResidualDestination, measure.ResidualClient:
		out = append(out, say("location.residual."+string(loc.Residual)))
		if loc.ResidualMS > 0 && loc.Residual != measure.ResidualNone {
			out = append(out, say("location.residual-time", i18n.Took("time", clampMS(loc.ResidualMS))))
		}
	default:
		out = append(out, say("location.residual.unknown"))
	}
	return out
}

// mark is what stands between two hops where the device may sit.
func (r *route) mark(l i18n.Lang, p measure.Place, here bool) (symbol string, words sentence) {
	arg := i18n.Word("share", share(l, p.PerMille))
	switch {
	case here && r.outcome == measure.AtEnd:
		return "✗", say("location.here-end", arg)
	case here:
		return "✗", say("location.here", arg)
	}
	return "?", say("location.maybe", arg)
}

// hopRow is one line of the table that people know from mtr and traceroute.
type hopRow struct {
	hop     string
	address string   // of the network, not yet escaped
	word    sentence // in the place of, or after, an address
	asn     string
	country string // of the network, not yet escaped
	loss    string
	best    string
}

// columns are the table's heads, by key.
var columns = []string{"hop", "address", "as", "country", "loss", "best"}

// rows are the lines of one stop.
func (r *route) rows(l i18n.Lang, s stop) []hopRow {
	first := hopRow{loss: "–", best: "–"}
	switch s.ttl {
	case 0:
		if r.back {
			return []hopRow{{hop: l.Number(0), address: r.remote, word: say("location.is-helper")}}
		}
		return []hopRow{{hop: l.Number(0), word: say("location.device")}}
	case unreached:
		if r.back {
			return []hopRow{{hop: "…", word: say("location.device")}}
		}
		return []hopRow{{hop: "…", address: r.remote, word: say("location.not-reached")}}
	}
	first.hop = l.Number(int64(s.ttl))
	if s.loss >= 0 {
		first.loss = l.Number(int64(s.loss))
	}
	var out []hopRow
	if s.server {
		first.address, first.word = r.remote, say("location.is-server")
		if r.back {
			first.address, first.word = "", say("location.device")
		}
		out = append(out, first)
		first = hopRow{best: "–"}
	}
	for _, router := range s.routers {
		first.address, first.country = clip(router.Address, 45), clip(router.Country, 8)
		if router.ASN > 0 {
			first.asn = "AS" + strconv.Itoa(router.ASN)
		}
		first.best = milliseconds(l, router.RTTUS)
		out = append(out, first)
		first = hopRow{}
	}
	if len(out) == 0 {
		first.word = say("location.no-answer")
		out = append(out, first)
	}
	if s.more > 0 {
		out = append(out, hopRow{word: say("location.more", i18n.Num("n", s.more))})
	}
	return out
}

// milliseconds is a round-trip time as a column shows it: with one decimal
// below ten.
func milliseconds(l i18n.Lang, us int64) string {
	switch tenths := (min(us, 1<<50) + 50) / 100; {
	case us <= 0:
		return "–"
	case tenths < 100:
		return l.Text("location.decimal", i18n.Num("n", tenths/10), i18n.Num("tenth", tenths%10))
	default:
		return l.Number((tenths + 5) / 10)
	}
}

// cells are a row's fields as a terminal shows them.
func (h hopRow) cells(l i18n.Lang) []string {
	address := ""
	if h.address != "" {
		address = l.IsolateLTR(h.address)
	}
	if h.word.key != "" {
		address = strings.TrimSpace(address + " " + h.word.text(l))
	}
	asn, country := "", ""
	if h.asn != "" {
		asn = l.IsolateLTR(h.asn)
	}
	if h.country != "" {
		country = l.IsolateLTR(h.country)
	}
	return []string{h.hop, address, asn, country, h.loss, h.best}
}

// notes explain the table.
func (r *route) notes() []sentence {
	list := []sentence{say("location.note")}
	if r.back {
		list = []sentence{say("location.counted-back"), list[0]}
	}
	switch {
	case r.followed:
		list = append(list, say("location.followed"))
	case r.siblings:
		list = append(list, say("location.siblings"))
	}
	return list
}

// AddLocation prints where on the path something sits that reacts: in words,
// and as a table of the hops with a line where it sits. It belongs after the
// block of its verdict (Add), and stands alone as well.
func (t *Text) AddLocation(l *measure.Location) error {
	if l.Outcome != measure.Itself { // there was nothing to find the place of
		t.searches++
	}
	if l.Outcome == measure.Located {
		t.places++
	}
	r := routeOf(l)
	t.beyond("location.title", l.Target, l.Payload, l.Family, whereabouts(t.l, l, r))
	if r.answered {
		t.write("\n")
		t.hops(r)
		for _, s := range r.notes() {
			t.line(faint, s.text(t.l), 2, 0)
		}
	}
	t.write("\n")
	return t.err
}

// hops prints the table of a route. Where a column does not fit the width of
// the terminal, each hop becomes a line of words.
func (t *Text) hops(r *route) {
	const indent, numeric = 2, 4 // columns from numeric on are aligned at their end
	head := make([]string, len(columns))
	width := make([]int, len(columns))
	for i, key := range columns {
		head[i] = t.l.Text("location.col." + key)
		width[i] = cells(head[i])
	}
	for _, s := range r.stops {
		for _, row := range r.rows(t.l, s) {
			for i, c := range row.cells(t.l) {
				width[i] = max(width[i], cells(c))
			}
		}
	}
	gap, total := 2, indent
	for _, w := range width {
		total += w
	}
	if total+gap*(len(width)-1) > t.o.width() {
		gap = 1
	}
	narrow := total+gap*(len(width)-1) > t.o.width()
	put := func(style string, row []string) {
		var b strings.Builder
		for i, c := range row {
			if narrow {
				if c != "" && i >= numeric {
					c = head[i] + " " + c
				}
				if c != "" && b.Len() > 0 {
					c = " · " + c
				}
				b.WriteString(c)
				continue
			}
			pad := strings.Repeat(" ", width[i]-cells(c))
			if i > 0 {
				b.WriteString(strings.Repeat(" ", gap))
			}
			if i >= numeric {
				b.WriteString(pad + c)
			} else {
				b.WriteString(c + pad)
			}
		}
		if narrow {
			t.line(style, b.String(), indent, 4)
			return
		}
		mark := ""
		if t.l.RTL() {
			mark = string(i18n.RLM)
		}
		t.write(mark + strings.Repeat(" ", indent) + t.paint(style, strings.TrimRight(b.String(), " ")) + "\n")
	}
	if !narrow {
		put(faint, head)
	}
	for _, s := range r.stops {
		for _, row := range r.rows(t.l, s) {
			put("", row.cells(t.l))
		}
		if p, here, ok := r.at(s); ok {
			symbol, words := r.mark(t.l, p, here)
			style := ""
			if here {
				style = StateConfirmed.ansi()
			}
			line := strings.Repeat("─", width[0]) + strings.Repeat(" ", gap) + symbol + " "
			// A wrapped line would lose the spaces of the column.
			t.line(style, strings.ReplaceAll(line, " ", string(i18n.NoBreak))+words.text(t.l), indent, width[0]+gap+2)
		}
	}
}
