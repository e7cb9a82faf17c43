package report

import (
	"slices"
	"strings"

	"govah/internal/i18n"
	"govah/measure"
)

// Bounds on what a file of others can make a report say of one device.
const (
	maxForms      = 3  // told in words; the table has all
	maxCandidates = 3  // told in words
	maxRows       = 16 // of known/, told beneath the table
	maxProperties = 64
	maxEvidence   = 4 // observations of one property
)

// likeness is the outcome as it is told: a product or behaviour that a damaged
// file claims and does not name is an unknown one.
func likeness(id *measure.Identification) measure.Likeness {
	switch {
	case id.Outcome == measure.ProductNamed && len(id.Products) == 0, id.Outcome == measure.BehaviourKnown && len(id.Behaviours) == 0:
		return measure.UnknownDevice
	}
	return id.Outcome
}

func recognised(id *measure.Identification) bool {
	o := likeness(id)
	return !saidBy(id) && (o == measure.ProductNamed || o == measure.BehaviourKnown)
}

func value(text string, n int) sentence {
	return say("detail.value", i18n.LTR("value", clip(text, n)))
}

// listed joins sentences with the comma of the language.
func listed(list []sentence) sentence {
	out := list[0]
	for _, s := range list[1:] {
		out = say("list.pair", out.as("a"), s.as("b"))
	}
	return out
}

// candidate names a product or behaviour; of is its vendor, source or country.
func candidate(name, of string) sentence {
	if of == "" {
		return value(name, 80)
	}
	return say("list.with", value(name, 80).as("a"), value(of, 120).as("b"))
}

// shares lists candidates with their probabilities.
func shares(l i18n.Lang, list []measure.Candidate) sentence {
	var out []sentence
	for i := range list[:min(len(list), maxCandidates)] {
		out = append(out, say("list.of", value(list[i].Name, 80).as("a"), say("detail.value", i18n.Word("value", share(l, list[i].PerMille))).as("b")))
	}
	return listed(out)
}

// isForm says whether p is about how a device reads.
func isForm(p *measure.Property) bool { return p.Value == measure.Reads || p.Value == measure.Blind }

// properties are those of id that are shown.
func properties(id *measure.Identification) []measure.Property {
	return id.Properties[:min(len(id.Properties), maxProperties)]
}

// formList names the forms that a device reads or is blind to.
func formList(l i18n.Lang, id *measure.Identification, conduct string) (s sentence, ok bool) {
	var names []sentence
	more := 0
	for _, p := range properties(id) {
		switch {
		case p.Value != conduct, p.Name == "", p.Name == "plain" && conduct == measure.Reads:
		case len(names) == maxForms:
			more++
		default:
			names = append(names, term(l, "identification.form.", p.Name))
		}
	}
	if len(names) == 0 {
		return s, false
	}
	s = listed(names)
	if more > 0 {
		s = say("identification.more", s.as("list"), i18n.Num("n", more))
	}
	return s, true
}

func action(l i18n.Lang, name string) sentence {
	if key := "identification.action." + name; l.Has(key) && name != "other" {
		return say(key)
	}
	return say("identification.action.other", i18n.LTR("action", clip(name, 60)))
}

// deed says what the device does, with what its answer shows.
func deed(l i18n.Lang, id *measure.Identification) (s sentence, ok bool) {
	var details []sentence
	for _, p := range properties(id) {
		switch {
		case isForm(&p):
		case p.Name == "action" && !ok:
			s, ok = action(l, p.Value), true
		case p.Name == "status":
			details = append(details, say("detail.status", i18n.LTR("code", clip(p.Value, 20))))
		case p.Name == "alert":
			details = append(details, say("detail.alert", i18n.LTR("code", clip(p.Value, 20))))
		case p.Name == "answer":
			details = append(details, value(p.Value, 80))
		}
	}
	if len(details) > 0 {
		s = say("list.with", s.as("a"), listed(details[:min(len(details), 3)]).as("b"))
	}
	return say("list.end", s.as("a")), ok
}

// maxMarks is how many marks of packets are told in words.
const maxMarks = 4

// marks are the properties of packets that a device makes itself. The first of
// those with words are told, in this order, unless they are as any stack would
// have them; the table has all.
var marks = []struct {
	name  string
	words bool
	usual string
}{
	{"flags", true, ""}, {"ip-id", true, ""}, {"payload", true, "none"}, {"seq", true, "expected"},
	{"ip-ttl", true, ""}, {"window", true, ""}, {"ack", true, "expected"},
	{"df", false, ""}, {"packets", false, ""}, {"spacing", false, ""},
}

func isMark(name string) bool {
	for _, m := range marks {
		if m.name == name {
			return true
		}
	}
	return false
}

// markValue puts the value of a mark into words, where it is a rule.
func markValue(l i18n.Lang, v string) sentence {
	if key := "identification.mark-value." + v; l.Has(key) {
		return say(key)
	}
	return value(strings.ReplaceAll(v, ",", " "), 60) // of several packets
}

// packetLine says how the packets look that a device makes itself.
func packetLine(l i18n.Lang, id *measure.Identification) (s sentence, ok bool) {
	var list []sentence
	for _, m := range marks {
		for _, p := range properties(id) {
			if m.words && p.Name == m.name && p.Value != "" && p.Value != m.usual && len(list) < maxMarks {
				list = append(list, say("identification.mark", term(l, "identification.property.", p.Name).as("name"), markValue(l, p.Value).as("value")))
				break
			}
		}
	}
	if len(list) == 0 {
		return s, false
	}
	return say("identification.packets", listed(list).as("list")), true
}

// kindOf puts an identification into words.
func kindOf(l i18n.Lang, id *measure.Identification) account {
	switch {
	case saidBy(id):
		return volunteered(l, id)
	case id.Method != "":
		return stranger(l, id)
	}
	var a account
	head := func(key string, args ...i18n.Arg) { a.headline = append(a.headline, say(key, args...)) }
	percent := func(c measure.Candidate) i18n.Arg { return i18n.Word("share", share(l, c.PerMille)) }
	commands := commandsFor("identify", id.Target)
	again := say("location.next.again", commands...)

	outcome := likeness(id)
	switch outcome {
	case measure.ProductNamed:
		first := id.Products[0]
		head("identification.outcome.product", candidate(first.Name, first.Vendor).as("product"), percent(first))
		if rest := id.Products[1:]; len(rest) > 0 {
			head("identification.also", shares(l, rest).as("list"))
		}
		if len(id.Behaviours) > 0 {
			head("identification.also-like", shares(l, id.Behaviours).as("list"))
		}
		a.not = []sentence{say("identification.limit.product"), say("limit.name")}
		a.next = []sentence{say("next.content")}
	case measure.BehaviourKnown:
		first := id.Behaviours[0]
		head("identification.outcome.behaviour", candidate(first.Name, first.Source).as("behaviour"), percent(first))
		if rest := id.Behaviours[1:]; len(rest) > 0 {
			head("identification.also", shares(l, rest).as("list"))
		}
		a.not = []sentence{say("identification.limit.behaviour"), say("limit.name")}
		a.next = []sentence{say("identification.next.compare", commands...)}
	case measure.UnknownDevice:
		if id.Cluster != "" {
			head("identification.outcome.unknown", i18n.LTR("id", clip(id.Cluster, 60)))
			head("identification.compare")
		} else {
			head("identification.outcome.unknown-plain")
		}
		if len(id.Behaviours) > 0 {
			a.open = append(a.open, say("identification.like", shares(l, id.Behaviours).as("list")))
		}
		a.not = []sentence{say("identification.limit.unknown"), say("limit.name")}
		a.next = []sentence{say("identification.next.compare", commands...)}
	case measure.NothingReacts:
		trigger := say("location.trigger.other")
		if key := "location.trigger." + id.Trigger.Kind; l.Has(key) && id.Trigger.Value != "" {
			trigger = say(key, i18n.LTR("value", clip(id.Trigger.Value, 300)))
		}
		head("identification.outcome.nothing-reacts", trigger.as("trigger"))
		a.not = []sentence{say("location.limit.no-difference")}
		a.next = []sentence{again}
	case measure.NotComparable:
		head("identification.outcome.no-control")
		a.not = []sentence{say("location.limit.no-path")}
		a.next = []sentence{again}
	default:
		head("identification.outcome.other", i18n.LTR("outcome", clip(string(id.Outcome), 60)))
		a.not = []sentence{say("limit.unknown")}
		a.next = []sentence{say("next.unnamed")}
	}

	if s, ok := deed(l, id); ok {
		a.because = append(a.because, s)
	}
	if s, ok := packetLine(l, id); ok {
		a.because = append(a.because, s)
	}
	if s, ok := formList(l, id, measure.Reads); ok {
		a.because = append(a.because, say("identification.reads", s.as("list")))
	}
	if s, ok := formList(l, id, measure.Blind); ok {
		a.because = append(a.because, say("identification.blind", s.as("list")))
	}
	if id.Probes > 0 {
		key := "identification.tries"
		if id.Trigger.Value == "" || id.Trigger.Control == "" {
			key = "identification.tries-plain"
		}
		a.because = append(a.because, say(key, i18n.Num("probes", id.Probes), i18n.Num("triggers", max(id.Triggers, 0)),
			i18n.LTR("value", clip(id.Trigger.Value, 300)), i18n.LTR("control", clip(id.Trigger.Control, 300))))
	}
	for _, w := range id.Unknown[:min(len(id.Unknown), maxWhys)] {
		a.open = append(a.open, why(l, w))
	}
	if id.Next != "" {
		a.next = slices.Insert(a.next, 0, say("identification.next.form", term(l, "identification.form.", id.Next).as("form")))
	}
	return a
}

// told are the properties of what answers in another's place that are told in
// words, the first few of them.
var told = []string{"issuer", "version", "software", "via", "server", "mask", "page", "added", "name", "greeting", "exit"}

// stranger puts into words what something that answers in another's place is.
func stranger(l i18n.Lang, id *measure.Identification) account {
	var a account
	head := func(key string, args ...i18n.Arg) {
		a.headline = append(a.headline, say("identification."+key, args...))
	}
	switch likeness(id) {
	case measure.ProductNamed:
		first := id.Products[0]
		head("interceptor.product", candidate(first.Name, first.Vendor).as("product"), i18n.Word("share", share(l, first.PerMille)))
		if rest := id.Products[1:]; len(rest) > 0 {
			head("also", shares(l, rest).as("list"))
		}
		a.not = []sentence{say("identification.interceptor.limit.product")}
		a.next = []sentence{say("identification.interceptor.next")}
	case measure.BehaviourKnown:
		first := id.Behaviours[0]
		head("interceptor.behaviour", candidate(first.Name, first.Country).as("behaviour"), i18n.Word("share", share(l, first.PerMille)))
		a.not = []sentence{say("identification.interceptor.limit.authority")}
		a.next = []sentence{say("next.content")} // what is known for interception is not called harmless
	default:
		if id.Cluster != "" {
			head("interceptor.unknown", i18n.LTR("id", clip(id.Cluster, 60)))
			head("interceptor.compare")
		} else {
			head("interceptor.unknown-plain")
		}
		a.not = []sentence{say("identification.interceptor.limit.unknown")}
		a.next = []sentence{say("identification.next.compare", commandsFor("identify", id.Target)...)}
	}
	for _, name := range told {
		for _, p := range properties(id) {
			if p.Name == name && p.Value != "" && len(a.because) < maxMarks {
				a.because = append(a.because, say("list.shows", term(l, "identification.property.", name).as("name"),
					say("list.quote", i18n.Foreign("text", clip(p.Value, 120))).as("value")))
			}
		}
	}
	for _, w := range id.Unknown[:min(len(id.Unknown), maxWhys)] {
		a.open = append(a.open, why(l, w))
	}
	return a
}

// propertyRow is one line of the table of all that was found out.
type propertyRow struct {
	name, value sentence
	because     []string // ids, not yet escaped
}

func propertyRows(l i18n.Lang, id *measure.Identification) []propertyRow {
	var out []propertyRow
	if id.Cluster != "" {
		out = append(out, propertyRow{name: say("identification.property.cluster"), value: value(id.Cluster, 60)})
	}
	for _, p := range properties(id) {
		r := propertyRow{value: value(p.Value, 120), because: p.Because[:min(len(p.Because), maxEvidence)]}
		switch {
		case p.Name == "" || p.Value == "":
			continue
		case isForm(&p):
			r.name = say("identification.form-of", term(l, "identification.form.", p.Name).as("form"))
			r.value = say("identification.value." + p.Value)
		default:
			r.name = term(l, "identification.property.", p.Name)
			switch {
			case p.Name == "action":
				r.value = action(l, p.Value)
			case isMark(p.Name) && p.Name != "df":
				r.value = markValue(l, p.Value)
			case p.Value == "yes", p.Value == "no":
				r.value = say("identification.value." + p.Value)
			}
		}
		out = append(out, r)
	}
	return append(out, statementRows(l, id)...)
}

// sources say in which rows the candidates are documented.
func sources(id *measure.Identification) []sentence {
	var out []sentence
	list := slices.Concat(id.Products, id.Behaviours)
	for i := range routers(id) {
		list = append(list, id.Routers[i].Products...)
	}
	for _, c := range list {
		if c.Row == "" || len(out) == maxRows {
			continue
		}
		args := []i18n.Arg{candidate(c.Name, c.Country).as("name"), i18n.LTR("row", clip(c.Row, 60)), i18n.LTR("source", clip(c.Source, 200))}
		if c.Source == "" {
			out = append(out, say("identification.row", args...))
		} else {
			out = append(out, say("identification.row-source", args...))
		}
	}
	return out
}

// AddIdentification prints what kind of device reacts; with Options.Verbose
// also all that was found out about it. It belongs after the block of its
// verdict (Add), and stands alone as well.
func (t *Text) AddIdentification(id *measure.Identification) error {
	if !saidBy(id) {
		t.tried++
	}
	if recognised(id) {
		t.known++
	}
	title, payload, family := kindTitle(id)
	t.beyond(title, id.Target, payload, family, kindOf(t.l, id))
	if t.o.Verbose {
		t.properties(id)
	}
	t.write("\n")
	return t.err
}

// properties prints the table of all that was found out. A row that does not
// fit the width of the terminal becomes a line of words.
func (t *Text) properties(id *measure.Identification) {
	const indent, gap, column = 4, 2, 12 // a value wider than column stands out
	rows := propertyRows(t.l, id)
	lines := make([][3]string, len(rows))
	var width [2]int
	for i, r := range rows {
		ids := make([]string, len(r.because))
		for j, o := range r.because {
			ids[j] = t.l.IsolateLTR(clip(o, 20))
		}
		lines[i] = [3]string{r.name.text(t.l), r.value.text(t.l), strings.Join(ids, t.l.Text("list.comma"))}
		for j, most := range []int{t.o.width() * 2 / 3, column} {
			if n := cells(lines[i][j]); n <= most {
				width[j] = max(width[j], n)
			}
		}
	}
	mark := ""
	if t.l.RTL() {
		mark = string(i18n.RLM)
	}
	for _, row := range lines {
		var b strings.Builder
		for i, c := range row {
			b.WriteString(c)
			if i < len(width) {
				b.WriteString(strings.Repeat(" ", max(width[i]-cells(c), 0)+gap))
			}
		}
		if text := strings.TrimRight(b.String(), " "); cells(row[0]) <= width[0] && indent+cells(text) <= t.o.width() {
			t.write(mark + strings.Repeat(" ", indent) + t.paint(faint, text) + "\n")
			continue
		}
		text := row[0] + " · " + row[1]
		if row[2] != "" {
			text += " · " + row[2]
		}
		t.line(faint, text, indent, 4)
	}
	for _, s := range sources(id) {
		t.line(faint, s.text(t.l), indent, 4)
	}
}

// Identification adds what kind of device reacts to the report, where and when
// Location adds its place.
func (s *Source) Identification(id *measure.Identification) {
	if s.identifications == nil {
		s.identifications = map[string][]*measure.Identification{}
	}
	key := measurementKey(id.Run, id.Measurement)
	list := s.identifications[key]
	for i, old := range list {
		if old.Target == id.Target && old.Family == id.Family && old.Payload == id.Payload && old.Trigger == id.Trigger {
			list[i] = id
			return
		}
	}
	if list == nil {
		s.identified = append(s.identified, key)
	}
	s.identifications[key] = append(list, id)
}

// recognised counts the identifications that name something, and all.
func (s *Source) recognised() (known, tried int) {
	for _, list := range s.identifications {
		for _, id := range list {
			if !saidBy(id) {
				tried++
			}
			if recognised(id) {
				known++
			}
		}
	}
	return known, tried
}

// identification writes one identification: in words, and as a table. The next
// steps that its verdict names already are not repeated.
func (d *document) identification(id *measure.Identification, verdict account) {
	title, payload, family := kindTitle(id)
	d.beyond(title, payload, family, kindOf(d.l, id), verdict, func() {})
	d.propertyTable(id)
	d.raw(`</div>`)
}

func (d *document) propertyTable(id *measure.Identification) {
	rows := propertyRows(d.l, id)
	if len(rows) == 0 {
		return
	}
	d.raw(`<details><summary>`)
	d.words("identification.table")
	d.raw(`</summary><div class="scroll" tabindex="0" role="region" aria-label="`, plainText(d.l.Text("identification.table")), `"><table><thead><tr>`)
	for _, key := range []string{"property", "value", "steps"} {
		d.raw(`<th scope="col">`)
		d.words("identification.col." + key)
		d.raw(`</th>`)
	}
	d.raw(`</tr></thead><tbody>`)
	for _, r := range rows {
		d.raw(`<tr><td>`, r.name.markup(d.l), `</td><td>`, r.value.markup(d.l), `</td><td>`)
		for i, o := range r.because {
			if i > 0 {
				d.words("list.comma")
			}
			d.raw(i18n.BDI(clip(o, 20)))
		}
		d.raw(`</td></tr>`)
	}
	d.raw(`</tbody></table></div>`)
	for _, s := range sources(id) {
		d.raw(`<p class="small">`, s.markup(d.l), `</p>`)
	}
	d.raw(`</details>`)
}
