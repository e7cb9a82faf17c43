// Package report puts verdicts into words and pictures for people: a streaming
// text for terminals, one self-contained HTML file, and the difference between
// two runs, in English and Persian.
//
// Each verdict is told in one pattern: the verdict, what it rests on, what it
// does not show, and the next step. Nothing is concluded here: every sentence
// follows from a field of the verdict or of the measurement. Text that came
// from the network is escaped before it is written (i18n.Escape) and isolated
// from the direction around it.
package report

import (
	"slices"
	"strconv"
	"strings"

	"govah/internal/i18n"
	"govah/measure"
)

// State is how a verdict is shown: one symbol, one word, one colour.
type State string

// The states, in the order in which a report shows them.
const (
	StateConfirmed State = "confirmed"
	StateSuspected State = "suspected"
	StateUnknown   State = "unknown"
	StateFault     State = "fault" // not working, for a reason that is no interference
	StateFine      State = "fine"
)

// States are all states in the order in which a report shows them.
var States = []State{StateConfirmed, StateSuspected, StateUnknown, StateFault, StateFine}

// StateOf is how v is shown. A value of a newer version is unknown.
func StateOf(v *measure.Verdict) State {
	switch v.Interference {
	case measure.InterferenceConfirmed:
		return StateConfirmed
	case measure.InterferenceSuspected:
		return StateSuspected
	case measure.InterferenceNone:
		switch {
		case v.Reachable == measure.ReachableYes || v.Reachable == measure.ReachablePartly:
			return StateFine
		case v.Reachable == measure.ReachableNo, slices.ContainsFunc(v.Findings, func(f measure.Finding) bool { return f.Method.Benign() }):
			return StateFault
		}
	}
	return StateUnknown
}

// stateWords say the state of v in a few words.
func stateWords(v *measure.Verdict) string {
	s := StateOf(v)
	switch {
	case s == StateConfirmed && ownDoing(v):
		return "state.own"
	case v.Target != measure.LineTarget || s != StateFine:
		return "state." + string(s)
	case len(v.Findings) > 0:
		return "line.near"
	}
	return "line.fine"
}

// Symbol is the state's sign, one cell wide, in any font.
func (s State) Symbol() string {
	switch s {
	case StateConfirmed:
		return "✗"
	case StateSuspected:
		return "!"
	case StateFault:
		return "○"
	case StateFine:
		return "✓"
	}
	return "?"
}

// sentence is a message of the catalogue with its arguments, so that the same
// words serve terminal and HTML.
type sentence struct {
	key  string
	args []i18n.Arg
}

func say(key string, args ...i18n.Arg) sentence { return sentence{key, args} }

func (s sentence) text(l i18n.Lang) string        { return l.Text(s.key, s.args...) }
func (s sentence) markup(l i18n.Lang) i18n.Markup { return l.HTML(s.key, s.args...) }

// as makes s the argument of another sentence.
func (s sentence) as(name string) i18n.Arg { return i18n.Said(name, s.key, s.args...) }

// group sorts the methods by what they leave open and what can be done: the
// keys limit.GROUP and next.GROUP.
var group = map[measure.Method]string{
	measure.DNSInjection: "dns", measure.DNSResolverLie: "dns", measure.DNSNXDomainLie: "dns", measure.DNSDrop: "dns",
	measure.DNSError: "dns", measure.DNSInterception: "dns", measure.DNSDowngrade: "name", measure.DNSSECStrip: "name", measure.ECHStrip: "name",
	measure.IPDrop: "ip", measure.IPReset: "ip", measure.IPUnreachable: "ip",
	measure.TLSDrop: "name", measure.TLSReset: "name", measure.TLSAlert: "name", measure.TLSInterception: "decrypt",
	measure.HTTPDrop: "name", measure.HTTPReset: "name", measure.HTTPBlockPage: "content", measure.HTTPRedirect: "content",
	measure.HTTPTamper: "altered", measure.HTTPProxy: "proxy", measure.TCPProxy: "proxy",
	measure.QUICDrop: "name", measure.Throttle: "speed", measure.Freeze: "speed",
	measure.StartTLSStrip: "strip", measure.MailInterception: "mail", measure.SSHInterception: "ssh",
	measure.ProtocolFilter: "filter", measure.Shutdown: "shutdown", measure.Residual: "residual",
	measure.ServerRefusal: "refusal", measure.SiteDown: "down", measure.CaptivePortal: "portal",
	measure.PathFault: "fault", measure.ClockFault: "clock", measure.PrivateAuthority: "private",
}

func groupOf(m measure.Method) string {
	if g, ok := group[m]; ok {
		return g
	}
	return "unnamed"
}

// groupFor is the group of a finding, where one method is of two kinds.
func groupFor(f measure.Finding) string {
	switch _, marked := addedHeader(f.Match); {
	case f.Method == measure.HTTPTamper && marked:
		return "marked"
	case f.Method == measure.StartTLSStrip && f.Trigger.Kind == "mail-plain":
		return "undressed"
	}
	return groupOf(f.Method)
}

// reads says whether a method is one of somebody who may read along, and so is
// told beside what nobody can see.
func reads(m measure.Method) bool {
	switch m {
	case measure.TLSInterception, measure.HTTPProxy, measure.HTTPTamper, measure.TCPProxy, measure.DNSInterception, measure.MailInterception, measure.StartTLSStrip, measure.SSHInterception:
		return true
	}
	return false
}

// near says whether a finding is about this device or its own network.
func near(f measure.Finding) bool {
	return !f.Method.Benign() && (f.Scope == measure.ScopeDevice || f.Scope == measure.ScopeLAN)
}

// ownDoing says that all that was confirmed is done on this device or in its
// own network, under a root that was put here: that is no accusation.
func ownDoing(v *measure.Verdict) bool {
	any := false
	for _, f := range v.Findings {
		if f.Interference == measure.InterferenceConfirmed && !f.Method.Benign() {
			if any = true; !near(f) || !openly(f) {
				return false
			}
		}
	}
	return any
}

// openly says whether a root that was put on this device may be somebody's open
// doing: what is known for interception is not called harmless.
func openly(f measure.Finding) bool {
	return f.Trusted && f.Method == measure.TLSInterception && (f.Match == nil || f.Match.Kind != "interception-root" && f.Match.Kind != "interception-dn")
}

// MethodName is the short name of a method, for lists.
func MethodName(l i18n.Lang, m measure.Method) string {
	if key := "method." + string(m) + ".name"; l.Has(key) {
		return l.Text(key)
	}
	return l.Text("method.unnamed.name")
}

// account is a verdict in words, for one target.
type account struct {
	state    State
	headline []sentence // what happens, one for each kind of finding
	because  []sentence
	open     []sentence // what keeps it from being firmer, other explanations
	not      []sentence // what it does not show
	next     []sentence
}

// Bounds on what a file of others can make a report say about one target.
const (
	maxFindings = 12
	maxWhys     = 12
	maxValues   = 50
)

// ordered are v's findings, the weightiest first, at most maxFindings.
func ordered(v *measure.Verdict) []measure.Finding {
	weight := func(f measure.Finding) int {
		w := 0
		if f.Method.Benign() {
			w += 2
		}
		if f.Interference != measure.InterferenceConfirmed {
			w++
		}
		return w
	}
	out := slices.Clone(v.Findings)
	slices.SortStableFunc(out, func(a, b measure.Finding) int { return weight(a) - weight(b) })
	return out[:min(len(out), maxFindings)]
}

// tell puts v into words.
func tell(l i18n.Lang, v *measure.Verdict) account {
	a := account{state: StateOf(v)}
	add := func(to *[]sentence, s sentence) {
		text := s.text(l)
		if !slices.ContainsFunc(*to, func(o sentence) bool { return o.text(l) == text }) {
			*to = append(*to, s)
		}
	}
	findings := ordered(v)
	var whys []measure.Why
	for _, f := range findings {
		// What is proven over one family need not be suspected over the other.
		if f.Interference == measure.InterferenceConfirmed || !slices.ContainsFunc(findings, func(o measure.Finding) bool {
			return o.Method == f.Method && o.Interference == measure.InterferenceConfirmed
		}) {
			add(&a.headline, headline(l, v, f, findings))
		}
		for _, s := range because(l, f) {
			add(&a.because, s)
		}
		for _, t := range f.Traces[:min(len(f.Traces), maxWhys)] {
			if key := "trace." + string(t); l.Has(key) {
				add(&a.because, say(key))
			}
		}
		switch f.Scope {
		case measure.ScopeDevice, measure.ScopeLAN, measure.ScopeOperator, measure.ScopeBeyond:
			if !f.Method.Benign() {
				add(&a.because, say("scope."+string(f.Scope)))
			}
		}
		switch {
		case openly(f):
			add(&a.not, say("authority.openly"))
		case near(f) && v.Target == measure.LineTarget:
			add(&a.not, say("limit.house"))
		case groupOf(f.Method) == "dns" && v.Target == measure.LineTarget:
			add(&a.not, say("limit.name")) // no site is meant
		default:
			add(&a.not, say("limit."+groupFor(f)))
		}
		whys = append(whys, f.NotExcluded[:min(len(f.NotExcluded), maxWhys)]...)
	}
	whys = append(whys, v.Unknown[:min(len(v.Unknown), maxWhys)]...)
	if len(findings) > 0 && !findings[0].Method.Benign() && !located(findings[0].Scope) {
		add(&a.not, say("scope.unknown"))
	}

	commands := commandsFor("check", v.Target)
	step := func(key string) sentence { return say(key, commands...) }
	var fromWhy []sentence
	for _, w := range whys {
		if key := "why." + string(w) + ".next"; l.Has(key) {
			fromWhy = append(fromWhy, step(key))
		}
	}
	switch a.state {
	case StateConfirmed, StateFault:
		if len(findings) > 0 {
			g, scope := groupFor(findings[0]), findings[0].Scope
			near := near(findings[0])
			trusted := findings[0].Trusted && (g == "decrypt" || g == "mail")
			// The warning comes first; but what this device itself does to its
			// mail is seldom anything but its antivirus.
			switch {
			case trusted && !near:
				add(&a.next, say("authority.caution"))
			case trusted:
				// What its root is comes below.
			case !near || g == "decrypt" || g == "ssh" || (g == "strip" || g == "undressed" || g == "mail") && scope == measure.ScopeLAN:
				if g == "proxy" && slices.ContainsFunc(findings, endsTLS) {
					g = "proxy-tls"
				}
				add(&a.next, step("next."+g))
			}
			if near {
				add(&a.next, step("next."+string(scope)))
			}
		} else {
			add(&a.headline, say("reachable."+reachable(v)))
			add(&a.next, step("next.unknown"))
		}
	case StateSuspected:
		a.not = slices.Insert(a.not, 0, say("limit.suspected"))
		if len(fromWhy) > 0 {
			add(&a.next, fromWhy[0])
		} else {
			add(&a.next, step("next.suspected"))
		}
	case StateUnknown:
		if len(findings) == 0 {
			add(&a.headline, say("verdict.unknown"))
			add(&a.not, say("limit.unknown"))
		}
		switch {
		case len(findings) > 0 && findings[0].Method.Benign() && findings[0].Interference == measure.InterferenceConfirmed:
			add(&a.next, step("next."+groupOf(findings[0].Method)))
		case len(fromWhy) > 0:
			add(&a.next, fromWhy[0])
		default:
			add(&a.next, step("next.unknown"))
		}
	case StateFine:
		if v.Target == measure.LineTarget {
			if len(findings) == 0 {
				add(&a.headline, say("line.none"))
			} else {
				add(&a.headline, say("line.house"))
				add(&a.next, step("next.lan"))
			}
			switch {
			case len(findings) == 0:
				add(&a.next, say("line.next-none"))
				add(&a.because, say("verdict.none"))
			case !slices.ContainsFunc(findings, func(f measure.Finding) bool { return f.Method == measure.TLSInterception }):
				add(&a.next, say("line.next-house"))
			}
			break
		}
		if v.Reachable == measure.ReachableYes {
			a.headline = slices.Insert(a.headline, 0, say("reachable.yes"))
		}
		add(&a.because, say("verdict.none"))
		add(&a.not, say("limit.none"))
		if w, ok := mailInTheClear(v); ok {
			add(&a.next, step("why."+string(w)+".next"))
		} else {
			add(&a.next, say("next.none"))
		}
	}
	for _, f := range findings {
		if f.Trusted && (a.state != StateFine || v.Target == measure.LineTarget) {
			if f.Method == measure.PrivateAuthority {
				a.next = nil
				add(&a.next, step("next.private"))
			}
			add(&a.next, say("authority.look", i18n.LTR("issuer", commonName(f.Issuer))))
			break
		}
	}
	if v.Reachable == measure.ReachablePartly {
		add(&a.headline, say("reachable.partly"))
	}
	// What leaves no trace is told beside all that was looked for along the way.
	switch scheme, _, _ := strings.Cut(v.Target, ":"); {
	case scheme == "line", scheme == "ssh", slices.Contains([]string{"smtp", "smtps", "imap", "imaps", "pop3", "pop3s"}, scheme),
		slices.ContainsFunc(findings, func(f measure.Finding) bool { return reads(f.Method) }):
		add(&a.not, say("limits.passive"))
	}
	to := &a.open
	if a.state == StateUnknown && len(a.because) == 0 {
		to = &a.because // there is nothing firmer to say
	}
	for _, w := range whys {
		add(to, why(l, w))
	}
	if len(a.because) == 0 {
		add(&a.because, say("because.none"))
	}
	return a
}

// mailInTheClear is why a mail server's encryption did not begin, if it did not.
func mailInTheClear(v *measure.Verdict) (measure.Why, bool) {
	for _, w := range v.Unknown {
		if w == measure.WhyMailUnencrypted || w == measure.WhyMailUnanswered {
			return w, true
		}
	}
	return "", false
}

func located(s measure.Scope) bool {
	return s == measure.ScopeDevice || s == measure.ScopeLAN || s == measure.ScopeOperator || s == measure.ScopeBeyond
}

func reachable(v *measure.Verdict) string {
	switch v.Reachable {
	case measure.ReachableYes, measure.ReachableNo, measure.ReachablePartly:
		return string(v.Reachable)
	}
	return string(measure.ReachableUnknown)
}

func why(l i18n.Lang, w measure.Why) sentence {
	if key := "why." + string(w) + ".text"; l.Has(key) && w != "other" {
		return say(key)
	}
	return say("why.other.text", i18n.LTR("why", clip(string(w), 60)))
}

func headline(l i18n.Lang, v *measure.Verdict, f measure.Finding, all []measure.Finding) sentence {
	s := say("verdict.unnamed", i18n.LTR("method", clip(string(f.Method), 60)))
	if key := "method." + string(f.Method) + ".what"; l.Has(key) {
		s = say(key)
	}
	switch _, marked := addedHeader(f.Match); {
	case openly(f) && near(f):
		s = say("authority." + string(f.Scope))
	case f.Trusted && f.Method == measure.TLSInterception:
		s = say("authority.trusted")
	case f.Method == measure.TLSInterception && v.Target == measure.LineTarget:
		s = say("line.certificates")
	case groupFor(f) == "undressed":
		s = say("line.undressed")
	case marked && f.Method == measure.HTTPTamper && f.Match.Kind == "added-header":
		s = say("line.marked")
	case marked && f.Method == measure.HTTPTamper:
		s = say("line.named")
	}
	// The family is told where it makes a difference: the finding holds for
	// one family and nothing alike was found in the other.
	if family := "family." + string(f.Family); l.Has(family) && v.Reachable == measure.ReachablePartly &&
		!slices.ContainsFunc(all, func(o measure.Finding) bool { return o.Method == f.Method && o.Family != f.Family }) {
		s = say("verdict.only-family", i18n.LTR("family", l.Text(family)), s.as("what"))
	}
	switch {
	case f.Interference == measure.InterferenceConfirmed:
		return s
	case f.Method.Benign():
		return say("verdict.suspected-fault", s.as("what"))
	}
	return say("verdict.suspected", s.as("what"))
}

// because says what a finding rests on: trigger and counts, the rule that
// confirmed it, and the signature that it carries.
func because(l i18n.Lang, f measure.Finding) []sentence {
	var out []sentence
	what := l.Text("trigger.other")
	if key := "trigger." + f.Trigger.Kind; l.Has(key) {
		what = l.Text(key)
	}
	args := []i18n.Arg{
		i18n.Word("what", what), i18n.LTR("value", clip(f.Trigger.Value, 300)), i18n.LTR("control", clip(f.Trigger.Control, 300)),
		i18n.Num("hits", f.Hits), i18n.Num("runs", f.Runs),
		i18n.Num("control-hits", f.Controls.Hits), i18n.Num("control-runs", f.Controls.Runs),
	}
	kind, value, control := f.Trigger.Kind, f.Trigger.Value, f.Trigger.Control
	if seen, ok := strings.CutPrefix(kind, "mail-"); ok {
		if key := "mail." + seen; l.Has(key) && seen != "other" {
			out = append(out, say(key))
		} else {
			out = append(out, say("mail.other", i18n.LTR("sign", clip(seen, 60))))
		}
		kind = ""
	}
	if f.Method == measure.TLSInterception && kind == "tls" {
		kind = "" // it is done to all
	}
	named := kind == "sni" || kind == "host"
	switch {
	case f.Runs == 0 && kind != "":
		out = append(out, say("because.trigger", args...))
	case f.Runs == 0:
	case kind == "host-key" && f.Controls.Runs > 0:
		out = append(out, say("because.host-key", args...))
	case kind == "host-key":
		out = append(out, say("because.host-key-alone", args...))
	case kind == "allow-list" && f.Controls.Runs > 0:
		out = append(out, say("because.allow-list", args...))
	case kind != "" && value != "" && f.Controls.Runs > 0 && (control != "" || named && !strings.HasPrefix(f.Proof, "helper")):
		if control == "" {
			args[2] = i18n.Word("control", l.Text("control.none"))
		}
		out = append(out, say("because.pair", args...))
	case kind != "" && value != "" && f.Controls.Runs > 0:
		out = append(out, say("because.value-control", args...))
	case kind != "" && f.Controls.Runs > 0:
		out = append(out, say("because.control", args...))
	case kind != "" && value != "":
		out = append(out, say("because.value", args...))
	case f.Controls.Runs > 0:
		out = append(out, say("because.plain-control", args...))
	case f.Runs > 1 || f.Proof == "":
		out = append(out, say("because.plain", args...))
	}
	if f.Proof != "" {
		for _, proof := range strings.SplitN(clip(f.Proof, 200), "+", maxWhys) {
			if key := "authority.proof." + proof; f.Method == measure.TLSInterception && l.Has(key) {
				out = append(out, say(key))
			} else if key := "proof." + proof; l.Has(key) && proof != "other" {
				out = append(out, say(key))
			} else {
				out = append(out, say("proof.other", i18n.LTR("proof", proof)))
			}
		}
	}
	if f.Issuer != "" {
		out = append(out, say("authority.issuer", i18n.LTR("issuer", clip(f.Issuer, 200))))
	}
	if name, ok := addedHeader(f.Match); ok {
		out = append(out, say("because.header", i18n.Foreign("name", clip(name, 60))))
	} else if f.Match != nil && f.Match.Row != "" {
		row := i18n.LTR("row", clip(f.Match.Row, 60))
		if how := string(f.Match.How); how != "" {
			key := "authority." + how
			if f.Match.How == measure.HowSHA256 || f.Match.How == measure.HowSPKI || f.Match.How == measure.HowAKI {
				key = "authority.key"
			}
			if l.Has(key) {
				out = append(out, say(key, row))
			}
			if f.Match.Product != "" {
				out = append(out, say("authority.product", candidate(f.Match.Product, f.Match.Vendor).as("product")))
			}
			return out
		}
		if f.Match.Product != "" {
			out = append(out, say("because.match-product", i18n.LTR("row", clip(f.Match.Row, 60)), i18n.LTR("product", clip(f.Match.Product, 80))))
		} else {
			out = append(out, say("because.match", i18n.LTR("row", clip(f.Match.Row, 60))))
		}
	}
	return out
}

// commonName is the CN of a name as RFC 2253 writes it, or the whole of it.
func commonName(dn string) string {
	_, cn, ok := strings.Cut(","+dn, ",CN=")
	for i := 0; ok && i < len(cn); i++ {
		if cn[i] == '\\' {
			i++
		} else if cn[i] == ',' || cn[i] == '+' {
			cn = cn[:i]
		}
	}
	if !ok || cn == "" {
		cn = dn
	}
	return clip(cn, 200)
}

// endsTLS says that a finding is about a proxy that takes the port of HTTPS.
func endsTLS(f measure.Finding) bool {
	return f.Method == measure.TCPProxy && f.Trigger.Kind == "port" && f.Trigger.Value == "443"
}

// addedHeader is the name of a header that was added on the way.
func addedHeader(m *measure.Match) (string, bool) {
	if m == nil || !strings.HasSuffix(m.Kind, "-header") {
		return "", false
	}
	return strings.CutPrefix(m.Where, "header:")
}

// commandsFor are the commands that a next step can name, ready to be copied;
// command is the one that measured.
func commandsFor(command, target string) []i18n.Arg {
	if target == measure.LineTarget {
		again := "govah check --set interception"
		if command == "identify" {
			again += " --identify"
		}
		return []i18n.Arg{
			i18n.Command("again", again),
			i18n.Command("diff", "govah diff OLD NEW"),
			i18n.Command("helper", "govah check --set interception --helper URL"),
		}
	}
	return []i18n.Arg{
		i18n.Command("again", "govah "+command+" "+quoted(target)),
		i18n.Command("diff", "govah diff OLD NEW"),
		i18n.Command("helper", "govah check --helper URL "+quoted(target)),
		i18n.Command("locate", "govah locate "+quoted(target)),
	}
}

// quoted is a target as a word of a command, or what stands for one.
func quoted(target string) string {
	if len(target) > 2048 || i18n.Escape(target) != target {
		return "TARGET"
	}
	return shellQuote(target)
}

// shellQuote makes s one word of a POSIX shell: a target comes from a list
// that somebody else may have written, and commands are copied and run.
func shellQuote(s string) string {
	safe := s != "" && s[0] != '-'
	for i := 0; i < len(s) && safe; i++ {
		c := s[i]
		safe = c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte(":/.-_%+,@=[]", c) >= 0
	}
	if safe && !strings.ContainsAny(s, "[]") {
		return s
	}
	quoted := "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	if strings.HasPrefix(s, "-") {
		return "-- " + quoted
	}
	return quoted
}

// word is the catalogue's word for a value of a closed vocabulary, or the value
// itself as foreign text where a newer version wrote one.
func word(l i18n.Lang, prefix, value string) sentence { return term(l, prefix+".", value) }

// term is word for a prefix that ends in its dot.
func term(l i18n.Lang, prefix, value string) sentence {
	if key := prefix + value; l.Has(key) {
		return say(key)
	}
	return say("detail.value", i18n.LTR("value", clip(value, 60)))
}

// failureWords put a failure into words; the unknown ones keep their text.
func failureWords(l i18n.Lang, f measure.Failure) sentence {
	if f == measure.NoFailure {
		return say("failure.success")
	}
	if key := "failure." + string(f); l.Has(key) && f != "success" && f != "other" && f != "server-answered" && f != "handshake-done" && f != "silent-rightly" {
		return say(key)
	}
	return say("failure.other")
}

// outcome says in a few words how a step ended.
func outcome(l i18n.Lang, o *measure.Observation) []sentence {
	var out []sentence
	add := func(key string, args ...i18n.Arg) { out = append(out, say(key, args...)) }
	plain := func(text string) { add("detail.value", i18n.LTR("value", text)) }
	if o.Path != nil {
		out = append(out, word(l, "path", o.Path.Outcome))
	} else if o.Failure != measure.NoFailure {
		out = append(out, failureWords(l, o.Failure))
	}
	if d := o.DNS; d != nil {
		var values []string
		for _, r := range d.Replies {
			if r.Rcode != "" && r.Rcode != "NOERROR" && len(values) < maxValues && !slices.Contains(values, r.Rcode) {
				values = append(values, r.Rcode)
			}
			for _, answer := range r.Answers {
				if len(values) < maxValues && !slices.Contains(values, answer.Value) {
					values = append(values, answer.Value)
				}
			}
		}
		if len(d.Replies) > 1 {
			add("detail.replies", i18n.Num("n", len(d.Replies)))
		}
		for i, value := range values {
			if i == 2 {
				add("detail.addresses", i18n.Num("n", len(values)-2))
				break
			}
			plain(clip(value, 60))
		}
	}
	if g := o.Greeting; g != nil && g.Text != "" {
		add("list.quote", i18n.Foreign("text", clip(g.Text, 80)))
	}
	if m := o.Mail; m != nil {
		if m.Greeting != "" {
			add("list.quote", i18n.Foreign("text", clip(m.Greeting, 80)))
		}
		if m.StartTLS != "" {
			add("detail.starttls", word(l, "starttls", m.StartTLS).as("answer"))
			if m.StartTLS != "ready" {
				if text := answerTo(m, "STARTTLS", "STLS"); text != "" {
					add("list.quote", i18n.Foreign("text", clip(text, 80)))
				}
			}
		}
		if m.Early != "" {
			add("list.quote", i18n.Foreign("text", clip(m.Early, 80)))
		}
	}
	if s := o.SSH; s != nil && s.Fingerprint != "" {
		plain(clip(s.KeyType, 40))
		plain(clip(s.Fingerprint, 60))
	}
	if t := o.TLS; t != nil {
		state := t.Public
		named := o.Failure == measure.TLSInvalidHostname || o.Failure == measure.TLSUnknownAuthority || o.Failure == measure.TLSInvalidCert
		if state != "" && !named {
			add("detail.certificate", word(l, "verification", string(state)).as("state"))
		}
		if state != measure.VerifiedOK && t.Issuer != "" {
			add("detail.issuer", i18n.Foreign("issuer", clip(t.Issuer, 60)))
		}
		if t.Alert > 0 && o.Failure != measure.NoFailure {
			add("detail.alert", i18n.LTR("code", strconv.Itoa(t.Alert)))
		}
	}
	if h := o.HTTP; h != nil {
		if h.Status != 0 {
			add("detail.status", i18n.LTR("code", strconv.Itoa(h.Status)))
		}
		if h.Location != "" {
			add("detail.location", i18n.LTR("location", clip(h.Location, 80)))
		}
		if h.Title != "" {
			add("detail.title", i18n.Foreign("title", clip(h.Title, 60)))
		}
		for _, m := range h.Matches[:min(len(h.Matches), 4)] {
			add("detail.match", i18n.LTR("row", clip(m.Row, 60)))
		}
	}
	if t := o.TCP; t != nil {
		if t.Retransmits > 0 {
			add("detail.retransmits", i18n.Num("n", t.Retransmits))
		}
		for i := range t.ICMP[:min(len(t.ICMP), 4)] {
			out = append(out, icmpWords(&t.ICMP[i]))
		}
	}
	if p := o.Path; p != nil && p.ICMP != nil {
		out = append(out, icmpWords(p.ICMP))
	}
	if s := o.Stream; s != nil {
		if s.BitsPerSecond > 0 {
			add("detail.value", i18n.Word("value", l.Rate(s.BitsPerSecond)))
		}
		if s.StalledUS > 0 {
			add("detail.stalled", i18n.Took("time", s.StalledUS))
		}
	}
	if o.TTL > 0 {
		add("detail.ttl", i18n.LTR("ttl", strconv.Itoa(o.TTL)))
	}
	if len(out) == 0 {
		out = append(out, say("failure.success"))
	}
	return out
}

// brief is an outcome in two or three words, for a picture.
func brief(l i18n.Lang, o *measure.Observation, k mark) []sentence {
	if k == markOK && o.DNS != nil && o.DNS.NoResolver {
		return []sentence{say("failure.silent-rightly")}
	}
	if k == markOK && o.Failure != measure.NoFailure {
		// A control that the server answered with an alert or with another
		// name's certificate: what counts is that it answered.
		return []sentence{say("failure.server-answered")}
	}
	if k == markOK && (o.Step == measure.StepTLS || o.Step == measure.StepQUIC) {
		return []sentence{say("failure.handshake-done")}
	}
	list := outcome(l, o)
	return list[:min(len(list), 3)]
}

func icmpWords(i *measure.ICMP) sentence {
	args := []i18n.Arg{i18n.LTR("type", strconv.Itoa(i.Type)), i18n.LTR("code", strconv.Itoa(i.Code)), i18n.LTR("from", clip(i.From, 60))}
	if i.From == "" {
		return say("detail.icmp", args...)
	}
	return say("detail.icmp-from", args...)
}

// clip shortens s to at most n runes.
func clip(s string, n int) string {
	count := 0
	for i := range s {
		if count == n {
			return s[:i] + "…"
		}
		count++
	}
	return s
}

// subject is what a step was made with: the one thing that an experiment
// varies ("" no experiment), or else the name.
func subject(l i18n.Lang, o *measure.Observation, varied string) string {
	switch {
	case varied == "address" || varied == "port":
		return o.Remote
	case varied == "resolver" && o.DNS != nil:
		return resolverName(l, o.DNS)
	case o.DNS != nil:
		return o.DNS.Name
	case o.Step == measure.StepHTTP && (varied == "path" || varied == "tls") && o.URL != "":
		return o.URL
	case o.SNI != "":
		return o.SNI
	case o.Host != "":
		return o.Host
	case o.URL != "":
		return o.URL
	case o.Payload != "":
		return o.Payload
	}
	return o.Remote
}

// varied is the one thing in which a test differs from its control.
func varied(test *measure.Observation) string {
	if len(test.Differs) == 0 {
		return ""
	}
	return test.Differs[0]
}

func resolverName(l i18n.Lang, d *measure.DNS) string {
	name := d.Transport
	if key := "transport." + d.Transport; l.Has(key) {
		name = l.Text(key)
	}
	switch {
	case d.Resolver == "":
		return name
	case d.Transport == "system" || d.Transport == "udp":
		return d.Resolver
	}
	return name + " " + d.Resolver
}

// mark is how a step is drawn.
type mark int

const (
	markOK   mark = iota
	markOdd       // something came, and it is the evidence
	markFail      // refused, reset, closed
	markSilent
)

func markOf(o *measure.Observation, evidence bool) mark {
	if o.Path != nil {
		switch o.Path.Outcome {
		case "silent":
			return markSilent
		case "reset", "unreachable":
			return markFail
		}
		return markOK
	}
	proven := o.TLS != nil && o.TLS.Public == measure.VerifiedOK
	switch {
	case o.DNS != nil && o.DNS.NoResolver:
		// Where there is no resolver, silence is as it should be.
		if len(o.DNS.Replies) == 0 {
			return markOK
		}
		return markOdd
	case o.SSH != nil && o.Failure == measure.NoFailure && evidence:
		return markOdd // a control, too, if it showed a key that is not its own
	case o.Failure == measure.NoFailure && evidence && o.Role == measure.RoleTest && !proven:
		return markOdd
	case o.Failure == measure.NoFailure:
		return markOK
	case o.TLS != nil && o.TLS.ServerBytes && o.Role != measure.RoleTest:
		return markOK // an alert from the server, too, means that the path let it through
	case o.TLS != nil && len(o.TLS.Chain) > 0:
		return markOdd
	case o.Failure == measure.GenericTimeout:
		return markSilent
	}
	return markFail
}

func (m mark) symbol() string { return [...]string{"✓", "!", "✗", "✗"}[m] }
func (m mark) class() i18n.Markup {
	return [...]i18n.Markup{"ok", "odd", "bad", "silent"}[m]
}
