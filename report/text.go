package report

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"govah/internal/i18n"
	"govah/measure"
)

// Options are how a report is written.
type Options struct {
	Lang i18n.Lang
	// Width of the terminal in cells; 0 is 80, and the least is 40.
	Width int
	// Colour allows ANSI colours. Nothing is told by colour alone.
	Colour bool
	// Verbose prints every recorded step, and the reasons of what works.
	Verbose bool
	// Quiet leaves out the targets that work.
	Quiet bool
	// Locates says that where on the path it happens follows below.
	Locates bool
}

func (o Options) width() int {
	switch {
	case o.Width == 0:
		return 80
	case o.Width < 40:
		return 40
	}
	return o.Width
}

func (o Options) lang() i18n.Lang {
	if o.Lang == "" {
		return i18n.English
	}
	return o.Lang
}

// IsTerminal reports whether f is a character device, which is what decides
// about colour and progress.
func IsTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// WantColour reports whether text to f may be coloured: only on a terminal
// that knows colours, and never where NO_COLOR is set (https://no-color.org).
func WantColour(f *os.File, getenv func(string) string) bool {
	return getenv("NO_COLOR") == "" && getenv("TERM") != "dumb" && getenv("TERM")+getenv("WT_SESSION") != "" && IsTerminal(f)
}

// Text prints verdicts as they come, one block a target, and a summary at the
// end. Its memory grows by one short line a target that does not work.
type Text struct {
	w       io.Writer
	o       Options
	l       i18n.Lang
	err     error
	tally   tally
	list    map[State][]string
	notices map[string]bool
	open    bool // the last line printed belongs to a list of lines
	// Locations printed, the ones among them that name a place, and the
	// targets that they and the identifications are of.
	searches, places int
	searched         map[string]bool
	// Identifications printed, and the ones among them that name a product or
	// a documented behaviour.
	tried, known int
}

// NewText prints to w.
func NewText(w io.Writer, o Options) *Text {
	return &Text{w: w, o: o, l: o.lang(), list: map[State][]string{}, notices: map[string]bool{}, searched: map[string]bool{}}
}

// File is a file that a run wrote.
type File struct {
	Kind string // measurements, packets, report, ooni, evidence, lab
	Path string
}

// Summary is what the caller knows of a whole run.
type Summary struct {
	// ElapsedMS is 0 where saved measurements were judged.
	ElapsedMS                int64
	BytesSent, BytesReceived int64
	Files                    []File
	// Skipped counts input lines that could not be read.
	Skipped     int
	Interrupted bool
}

const (
	bold  = "\x1b[1m"
	faint = "\x1b[2m"
	reset = "\x1b[0m"
)

func (s State) ansi() string {
	switch s {
	case StateConfirmed:
		return "\x1b[1;31m"
	case StateSuspected:
		return "\x1b[1;33m"
	case StateUnknown:
		return "\x1b[1;36m"
	case StateFault:
		return "\x1b[1;35m"
	}
	return "\x1b[32m"
}

// paint colours a whole line, so that no escape sequence stands inside text
// that is measured and wrapped.
func (t *Text) paint(style, line string) string {
	if !t.o.Colour || style == "" {
		return line
	}
	return style + line + reset
}

// line writes s wrapped, indent cells from the edge and further lines hang
// cells from there.
func (t *Text) line(style, s string, indent, hang int) {
	for i, part := range wrap(s, t.o.width(), indent, indent+hang) {
		pad := strings.Repeat(" ", indent)
		if i > 0 {
			pad += strings.Repeat(" ", hang)
		}
		mark := ""
		if t.l.RTL() {
			// A terminal takes the direction of a line from its first letter.
			mark = string(i18n.RLM)
		}
		t.write(mark + pad + t.paint(style, part) + "\n")
	}
}

func (t *Text) write(s string) {
	if t.err == nil {
		_, t.err = io.WriteString(t.w, s)
	}
}

func (t *Text) notice(key string, args ...i18n.Arg) {
	if t.notices[key] {
		return
	}
	t.notices[key] = true
	t.line(bold, "! "+t.l.Text(key, args...), 0, 2)
	t.write("\n")
}

// Begin prints what has to be said before the first verdict. run may be nil.
func (t *Text) Begin(run *measure.Run) error {
	if run != nil && run.Lab != "" {
		t.notice("notice.lab", i18n.LTR("lab", run.Lab))
	}
	return t.err
}

// Measured prints, once for all, what of the network that m was made in (a VPN,
// a login page) holds for everything measured there. Add does so by itself;
// AddLocation and AddIdentification, which know no measurement, need it before.
func (t *Text) Measured(m *measure.Measurement) error {
	for _, n := range notices(m) {
		t.notice(n.key, n.args...)
	}
	return t.err
}

// Add prints the block of one target. m may be nil, where only the verdict is
// known.
func (t *Text) Add(m *measure.Measurement, v *measure.Verdict) error {
	state := StateOf(v)
	t.tally.add(t.l, v)
	if m != nil {
		t.Measured(m)
	}
	if state != StateFine {
		entry := t.l.IsolateLTR(clip(v.Target, 200))
		if names := methodNames(t.l, v); names != "" {
			entry += " · " + names
		}
		t.list[state] = append(t.list[state], entry)
	}
	if state == StateFine && t.o.Quiet {
		return t.err
	}
	names := methodNames(t.l, v)
	about := v.Target == measure.LineTarget
	_, inTheClear := mailInTheClear(v)
	short := !about && state == StateFine && !t.o.Verbose && names == "" && v.Reachable == measure.ReachableYes && !inTheClear
	if t.open && !short {
		t.write("\n")
	}
	title := state.Symbol() + " " + t.l.IsolateLTR(clip(v.Target, 2048)) + " · " + t.l.Text(stateWords(v))
	if about {
		title = state.Symbol() + " " + t.l.Text("list.with", i18n.Word("a", t.l.Text("line.title")), i18n.LTR("b", v.Target)) + " · " + t.l.Text(stateWords(v))
	}
	if names != "" {
		title += " · " + names
	}
	t.line(state.ansi(), title, 0, 2)
	t.open = short
	if short {
		return t.err
	}
	a := tell(t.l, v)
	if t.o.Locates {
		a.not = slices.DeleteFunc(a.not, func(s sentence) bool { return s.key == "scope.unknown" })
	}
	for _, s := range a.headline {
		t.line("", s.text(t.l), 2, 0)
	}
	t.labelled("label.because", a.because)
	t.labelled("label.open", a.open)
	t.labelled("label.not", a.not)
	t.labelled("label.next", a.next)
	if t.o.Verbose && m != nil {
		for i := range m.Observations {
			t.line(faint, t.observation(&m.Observations[i]), 4, 4)
		}
	}
	t.write("\n")
	return t.err
}

func (t *Text) labelled(key string, list []sentence) {
	if len(list) == 0 {
		return
	}
	parts := make([]string, 0, len(list)+1)
	parts = append(parts, t.l.Text(key)+":")
	for i, s := range list {
		if key == "label.next" && i > 0 {
			t.line("", s.text(t.l), 4, 0) // one step a line: a command may stand at its end
			continue
		}
		if parts = append(parts, s.text(t.l)); key == "label.next" {
			t.line("", strings.Join(parts, " "), 2, 2)
			parts = nil
		}
	}
	if parts != nil {
		t.line("", strings.Join(parts, " "), 2, 2)
	}
}

func (t *Text) observation(o *measure.Observation) string {
	l := t.l
	parts := []string{l.IsolateLTR(clip(o.ID, 20)), word(l, "step", string(o.Step)).text(l), "(" + word(l, "role", string(o.Role)).text(l) + ")"}
	what := subject(l, o, "")
	if what != "" {
		parts = append(parts, l.IsolateLTR(clip(what, 120)))
	}
	if o.Form != "" {
		parts = append(parts, "· "+term(l, "identification.form.", o.Form).text(l))
	}
	if o.Remote != "" && o.Remote != what {
		parts = append(parts, "· "+l.IsolateLTR(clip(o.Remote, 80)))
	}
	parts = append(parts, "·", l.Duration(o.TookUS)+":")
	var words []string
	for _, s := range outcome(l, o) {
		words = append(words, s.text(l))
	}
	return strings.Join(parts, " ") + " " + strings.Join(words, l.Text("list.comma"))
}

// listAbove is the number of targets from which on the summary repeats which
// ones were not fine; below that they are still on the screen.
const listAbove, listAtMost = 8, 30

// End prints the summary and what no report can show.
func (t *Text) End(s Summary) error {
	l := t.l
	if t.open {
		t.write("\n")
	}
	found := searched(t.places, t.searches, t.known, t.tried)
	if t.tally.total == 0 && len(found) == 0 {
		t.line(bold, l.Text("summary.empty"), 0, 2)
	} else if t.tally.total == 0 {
		for _, s := range found {
			t.line(bold, s.text(l), 0, 2)
		}
		if s.ElapsedMS > 0 {
			t.line("", l.Text("summary.tested", i18n.Num("n", len(t.searched)), i18n.Took("time", s.ElapsedMS*1000),
				i18n.Size("sent", s.BytesSent), i18n.Size("received", s.BytesReceived)), 0, 2)
		}
	} else {
		for i, sentence := range t.tally.words() {
			style := ""
			if i == 0 {
				style = bold
			}
			t.line(style, sentence.text(l), 0, 2)
		}
		for _, s := range found {
			t.line("", s.text(l), 0, 2)
		}
		for _, state := range States {
			n := t.tally.count[state]
			if n == 0 {
				continue
			}
			t.line(state.ansi(), state.Symbol()+" "+l.Text("summary.count", i18n.Num("n", n), i18n.Word("state", l.Text("state."+string(state)))), 2, 2)
			if t.tally.total <= listAbove {
				continue
			}
			for i, entry := range t.list[state] {
				if i == listAtMost {
					t.line("", l.Text("summary.more", i18n.Num("n", len(t.list[state])-i)), 6, 2)
					break
				}
				t.line("", entry, 6, 2)
			}
		}
		if s.ElapsedMS > 0 {
			t.line("", l.Text("summary.tested", i18n.Num("n", t.tally.total), i18n.Took("time", s.ElapsedMS*1000),
				i18n.Size("sent", s.BytesSent), i18n.Size("received", s.BytesReceived)), 0, 2)
		} else {
			t.line("", l.Text("summary.read", i18n.Num("n", t.tally.total)), 0, 2)
		}
	}
	if s.Interrupted {
		t.line(bold, l.Text("summary.interrupted"), 0, 2)
	}
	if s.Skipped > 0 {
		t.line(bold, l.Text("summary.skipped", i18n.Num("n", s.Skipped)), 0, 2)
	}
	t.line(faint, l.Text("limits.passive"), 0, 0)
	if len(s.Files) > 0 {
		t.line("", l.Text("summary.files"), 0, 2)
		for _, f := range s.Files {
			// A path is not wrapped: it is there to be copied.
			mark := ""
			if l.RTL() {
				mark = string(i18n.RLM)
			}
			t.write(mark + "  " + l.IsolateLTR(f.Path) + "  " + word(l, "summary", "file-"+f.Kind).text(l) + "\n")
		}
	}
	return t.err
}

// notices are what holds for all verdicts of a vantage.
func notices(m *measure.Measurement) []sentence {
	var out []sentence
	add := func(when bool, key string, args ...i18n.Arg) {
		if when {
			out = append(out, say(key, args...))
		}
	}
	v := &m.Vantage
	add(m.Imported != "", "notice.imported", i18n.LTR("tool", m.Imported))
	add(v.Tunnel, "notice.tunnel")
	add(v.Proxy, "notice.proxy")
	add(v.Captive, "notice.captive")
	add(v.NAT64, "notice.nat64")
	offset := v.ClockOffsetMS
	if offset < 0 {
		offset = -offset
	}
	// One minute is what certificates are judged twice for.
	add(offset > 60_000, "notice.clock", i18n.Took("time", min(offset, 1<<48)*1000))
	return out
}

// tally counts verdicts and the methods in them.
type tally struct {
	total   int
	count   map[State]int
	methods map[measure.Method]*[2]int // confirmed, suspected
}

func (t *tally) add(l i18n.Lang, v *measure.Verdict) {
	if t.count == nil {
		t.count, t.methods = map[State]int{}, map[measure.Method]*[2]int{}
	}
	t.total++
	t.count[StateOf(v)]++
	seen := map[measure.Method]bool{}
	for _, f := range ordered(v) {
		if seen[f.Method] {
			continue
		}
		seen[f.Method] = true
		m := f.Method
		if !l.Has("method." + string(m) + ".name") {
			m = "unnamed" // a hostile file could name a million methods
		}
		if t.methods[m] == nil {
			t.methods[m] = new([2]int)
		}
		if f.Interference == measure.InterferenceConfirmed {
			t.methods[m][0]++
		} else {
			t.methods[m][1]++
		}
	}
}

// words sum the tally up, the weightiest first.
func (t *tally) words() []sentence {
	n := func(s State) int { return t.count[s] }
	total := i18n.Num("total", t.total)
	num := func(s State) i18n.Arg { return i18n.Num("n", n(s)) }
	var out []sentence
	switch {
	case t.total == 0:
		return []sentence{say("summary.empty")}
	case n(StateConfirmed) > 0:
		out = append(out, say("summary.confirmed", num(StateConfirmed), total))
		if n(StateSuspected) > 0 {
			out = append(out, say("summary.also-suspected", num(StateSuspected)))
		}
	case n(StateSuspected) > 0:
		out = append(out, say("summary.suspected", num(StateSuspected), total))
	case n(StateUnknown) > 0:
		return append([]sentence{say("summary.unknown", num(StateUnknown), total)}, t.rest(false)...)
	case n(StateFault) > 0:
		out = append(out, say("summary.fault", num(StateFault), total))
		if n(StateFine) > 0 {
			out = append(out, say("summary.also-fine", num(StateFine)))
		}
		return out
	default:
		return []sentence{say("summary.fine", total)}
	}
	return append(out, t.rest(true)...)
}

func (t *tally) rest(unknown bool) []sentence {
	var out []sentence
	for _, c := range []struct {
		state State
		key   string
	}{{StateUnknown, "summary.also-unknown"}, {StateFault, "summary.also-fault"}, {StateFine, "summary.also-fine"}} {
		if n := t.count[c.state]; n > 0 && (unknown || c.state != StateUnknown) {
			out = append(out, say(c.key, i18n.Num("n", n)))
		}
	}
	return out
}

// methodList names the methods seen with their counts.
func (t *tally) methodList(l i18n.Lang) string {
	type row struct {
		m measure.Method
		n [2]int
	}
	var rows []row
	for m, n := range t.methods {
		rows = append(rows, row{m, *n})
	}
	slices.SortFunc(rows, func(a, b row) int {
		if a.m.Benign() != b.m.Benign() {
			if a.m.Benign() {
				return 1
			}
			return -1
		}
		if d := b.n[0] - a.n[0]; d != 0 {
			return d
		}
		if d := b.n[1] - a.n[1]; d != 0 {
			return d
		}
		return strings.Compare(string(a.m), string(b.m))
	})
	var parts []string
	for _, r := range rows {
		name := i18n.Word("method", MethodName(l, r.m))
		if r.n[0] > 0 {
			parts = append(parts, l.Text("summary.method", name, i18n.Num("n", r.n[0])))
		}
		if r.n[1] > 0 {
			parts = append(parts, l.Text("summary.method-suspected", name, i18n.Num("n", r.n[1])))
		}
	}
	return strings.Join(parts, l.Text("list.semicolon"))
}

// methodNames are the short names of v's methods, each once.
func methodNames(l i18n.Lang, v *measure.Verdict) string {
	var names []string
	for _, f := range ordered(v) {
		if name := MethodName(l, f.Method); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, l.Text("list.comma"))
}

// Progress is a line on a terminal that is overwritten as a run goes on. It
// writes at most ten times a second.
type Progress struct {
	w    io.Writer
	o    Options
	last time.Time
	on   bool
	now  func() time.Time
}

// NewProgress writes to w (standard error) if terminal is true, else nothing.
func NewProgress(w io.Writer, o Options, terminal bool) *Progress {
	return &Progress{w: w, o: o, on: terminal, now: time.Now}
}

// Update shows how many of total targets are done, how many need a closer
// look, the time since the start, and what is being done now ("" nothing).
func (p *Progress) Update(done, total, suspects int, elapsed time.Duration, doing string) {
	if !p.on || p.now().Sub(p.last) < 100*time.Millisecond {
		return
	}
	p.last = p.now()
	l := p.o.lang()
	s := l.Text("progress.line", i18n.Num("done", done), i18n.Num("total", total), i18n.Num("suspects", suspects), i18n.Took("time", elapsed.Microseconds()))
	if doing != "" {
		room := p.o.width() - 1 - cells(s) - 3
		if room > 8 {
			s += " · " + l.IsolateLTR(clip(doing, room))
		}
	}
	lines := wrap(s, p.o.width()-1, 0, 0)
	mark := ""
	if l.RTL() {
		mark = string(i18n.RLM)
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s%s", mark, lines[0])
}

// Clear removes the line, before something else is printed.
func (p *Progress) Clear() {
	if p.on && !p.last.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.last = time.Time{}
	}
}
