package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"govah/evidence"
	"govah/identify"
	"govah/internal/i18n"
	"govah/judge"
	"govah/locate"
	"govah/measure"
	"govah/ooni"
	"govah/record"
	"govah/report"
)

const (
	// brokenShown is how many broken lines of a file are named.
	brokenShown = 10
	// bodyBytes bounds the bodies of one file that are kept at hand; a
	// measurement follows the bodies that it names, mostly closely.
	bodyBytes = 64 << 20
)

func (a *app) judgeCommand() *cobra.Command {
	var (
		output     string
		signatures string
		code       bool
	)
	cmd := &cobra.Command{
		Use:   "judge FILE…",
		Short: "Judge saved measurements again: ours or OONI's",
		Long: `Judges saved measurements by today's rules, without sending anything: files of
govah check -o, or OONI's Web Connectivity as JSON Lines; plain, .gz or .zst,
or - for standard input. Other tests of OONI are counted and passed over. Of a
sealed file (.govah) the measurements in it are judged, once it verifies.`,
		Example: `  govah judge run.jsonl
  zcat 2026*.jsonl.gz | govah judge --json - > verdicts.jsonl`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			return a.runJudge(lang, args, output, signatures, code)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&output, "output", "o", "", "write measurements and verdicts to this new file (.gz, .zst: compressed)")
	f.BoolVar(&a.json, "json", false, "print each verdict as one line of JSON")
	f.StringVar(&signatures, "signatures", "", "for identifications: signatures of your own (govah identify import)")
	f.BoolVar(&code, "exit-code", false, "exit 3 if interference is confirmed, 4 if suspected or inconclusive")
	return cmd
}

// rejudging is one invocation of judge.
type rejudging struct {
	a     *app
	table *identify.Table
	lang  i18n.Lang
	text  *report.Text
	out   *record.Writer
	worst measure.Interference

	bodies map[string][]byte
	order  []string // of bodies, oldest first
	kept   int
	// held are measurements that were interrupted: the same file may hold the
	// whole one that a resumed run made.
	held []*measure.Measurement
	// strangers are what answers in others' places, by measurement of the file.
	strangers map[string][]*measure.Identification
	// run is the last run line written for what was imported.
	run *measure.Run
	end measure.End
}

// account is what came of one file.
type account struct {
	judged  int
	skipped map[string]int // by name of the test or type of the line
	broken  int
	first   []string
}

func (a *app) runJudge(lang i18n.Lang, paths []string, output, signatures string, code bool) (err error) {
	for _, path := range paths {
		if err := readable(path, "give files of `govah check -o` or of OONI, or - for standard input"); err != nil {
			return err
		}
	}
	table, err := a.identifyTable(signatures)
	if err != nil {
		return err
	}
	opts := report.Options{Lang: lang, Colour: a.colour(), Verbose: a.verbose, Quiet: a.quiet}
	r := &rejudging{a: a, table: table, lang: lang, text: report.NewText(a.out, opts), worst: measure.InterferenceNone, bodies: map[string][]byte{}}
	if output != "" {
		if r.out, err = record.Create(output); err != nil {
			return hint(err, "choose another file with -o")
		}
		defer func() {
			if cerr := r.out.Close(); err == nil && cerr != nil {
				err = hint(cerr, "the lines before it are whole")
			}
		}()
	}
	broken := 0
	judged := 0
	for _, path := range paths {
		n, err := r.file(path)
		r.tell(path, n)
		broken += n.broken
		judged += n.judged
		if err != nil {
			return err
		}
	}
	if r.run != nil {
		if err := r.out.End(&r.end); err != nil {
			return hint(err, "is the disk full?")
		}
	}
	if !a.json {
		s := report.Summary{Skipped: broken}
		if output != "" {
			s.Files = []report.File{{Kind: "measurements", Path: output}}
		}
		if err := r.text.End(s); err != nil {
			return err
		}
	}
	if judged == 0 {
		r.worst = worse(r.worst, measure.InterferenceUnknown)
	}
	switch {
	case broken > 0:
		return exitCode(exitFailed)
	case code && r.worst == measure.InterferenceConfirmed:
		return exitCode(exitConfirmed)
	case code && r.worst != measure.InterferenceNone:
		return exitCode(exitSuspected)
	}
	return nil
}

// file judges one file. The error is one of writing; what is wrong with the
// file is in the account.
func (r *rejudging) file(path string) (n account, err error) {
	n.skipped = map[string]int{}
	in, bundle, err := r.a.openMeasurements(r.a.ctx, path)
	if err != nil {
		return n, n.unreadable(r.a.ctx, err)
	}
	if bundle != nil && bundle.Withheld() != (evidence.Counts{}) && !r.a.quiet {
		r.a.note(r.lang.Text("cli.judge.withheld", i18n.LTR("file", path)))
	}
	defer in.Close()
	reader, err := record.NewReader(in)
	if err != nil {
		return n, n.unreadable(r.a.ctx, err)
	}
	defer reader.Close()
	clear(r.bodies)
	r.strangers = map[string][]*measure.Identification{}
	r.order, r.kept = nil, 0
	// Lines are decoded, and OONI's judged, side by side; what comes of them
	// is taken in their order.
	parsers := make([]ooni.Parser, 2*runtime.GOMAXPROCS(0))
	for x := range record.Ordered(reader, len(parsers), func(worker int, line record.Line) decoded {
		return decode(&parsers[worker], line)
	}) {
		if err := r.a.ctx.Err(); err != nil {
			return n, err
		}
		if x.Err != nil {
			n.bad(x.Err)
			continue
		}
		d := &x.Value
		switch {
		case d.err != nil:
			n.bad(&record.LineError{Line: x.Line.Number, Offset: x.Line.Offset, Err: d.err})
		case d.skip != "":
			n.skip(d.skip)
		case d.imported != nil:
			n.judged++
			err = r.take(d.imported, &d.verdict, d.bodies)
		default:
			if d.entry.Measurement != nil {
				n.judged++
			}
			err = r.entry(&d.entry, &n)
		}
		if err != nil {
			return n, err
		}
	}
	for _, m := range r.held {
		if err := r.again(m); err != nil {
			return n, err
		}
	}
	r.held = nil
	return n, nil
}

// heldAtMost bounds the interrupted measurements held: a run interrupts fewer.
const heldAtMost = 1000

// hold keeps an interrupted measurement back, and drops what a whole one of
// the same target takes the place of. It says whether m is held.
func (r *rejudging) hold(m *measure.Measurement, n *account) bool {
	if !m.Complete {
		if len(r.held) == heldAtMost {
			return false
		}
		r.held = append(r.held, m)
		return true
	}
	before := len(r.held)
	r.held = slices.DeleteFunc(r.held, func(old *measure.Measurement) bool { return old.Target == m.Target })
	for range before - len(r.held) {
		n.judged--
		n.skip("interrupted")
	}
	return false
}

// again judges a measurement of ours.
func (r *rejudging) again(m *measure.Measurement) error {
	bodies := func(hash string) ([]byte, bool) {
		b, ok := r.bodies[hash]
		return b, ok
	}
	located := locate.Infer(m, r.country(m))
	if len(located) > 0 {
		return r.located(m, located)
	}
	if id := r.table.Infer(m); id != nil {
		if r.out != nil {
			if err := writeIdentified(r.out, m, id); err != nil {
				return hint(err, "is the disk full?")
			}
		}
		return r.a.showIdentified(r.text, id)
	}
	v := judge.Judge(judge.Input{Measurement: m, Bodies: bodies})
	if ids := r.table.Interceptors(m, &v); len(ids) > 0 && len(r.strangers) < heldAtMost {
		r.strangers[m.ID] = ids
	}
	return r.take(m, &v, bodies)
}

// identified concludes anew what an identification in the file says of an
// interceptor, from the measurement that it follows from; one of a trigger is
// concluded with its own measurement.
func (r *rejudging) identified(old *measure.Identification) error {
	if old.Method == "" {
		return nil
	}
	for _, id := range r.strangers[old.Measurement] {
		if id.Payload != old.Payload {
			continue
		}
		if r.out != nil {
			if err := r.out.Identification(id); err != nil {
				return hint(err, "is the disk full?")
			}
		}
		return r.a.showIdentified(r.text, id)
	}
	return nil
}

// country finds the country of a router, where the addresses are real ones.
func (r *rejudging) country(m *measure.Measurement) func(netip.Addr) string {
	if m.Vantage.Geo == "lab" {
		return nil
	}
	return func(a netip.Addr) string {
		_, c := networkOf(a)
		return c
	}
}

// located writes and prints where a saved search finds its device.
func (r *rejudging) located(m *measure.Measurement, list []measure.Location) error {
	if r.out != nil {
		if err := writeLocated(r.out, m, list); err != nil {
			return hint(err, "is the disk full?")
		}
	}
	return r.a.showLocated(r.text, list)
}

// decoded is what one line holds: one of its fields is set.
type decoded struct {
	entry    record.Entry
	imported *measure.Measurement
	verdict  measure.Verdict // of imported
	bodies   func(string) ([]byte, bool)
	skip     string
	err      error
}

func decode(p *ooni.Parser, line record.Line) (d decoded) {
	switch kind := record.Sniff(line.Data); kind {
	case record.KindOONI:
		m, err := p.Parse(line.Data)
		var not *ooni.NotJudged
		switch {
		case errors.As(err, &not):
			d.skip = not.Test
		case err != nil:
			d.err = err
		default:
			if m.Run == "" {
				m.Run = m.Imported
			}
			d.imported, d.bodies = m, p.Body
			d.verdict = judge.Judge(judge.Input{Measurement: m, Bodies: p.Body})
		}
	case record.KindVerdict, record.KindLocation:
		// A new one takes its place.
	case record.KindRun, record.KindMeasurement, record.KindIdentification, record.KindBody, record.KindEnd:
		d.entry, d.err = record.Decode(line.Data)
	case record.KindUnknown:
		if _, d.err = record.Decode(line.Data); d.err == nil {
			d.err = errors.New("no measurement of ours or of OONI's")
		}
	default:
		if _, d.err = record.Decode(line.Data); d.err == nil {
			d.skip = string(kind)
		}
	}
	return d
}

// entry takes a line of ours.
func (r *rejudging) entry(e *record.Entry, n *account) error {
	var err error
	switch {
	case e.Run != nil:
		if !r.a.json {
			if err := r.text.Begin(e.Run); err != nil {
				return err
			}
		}
		if r.out != nil {
			err = r.out.Run(e.Run)
		}
	case e.Body != nil:
		if _, twice := r.bodies[e.Body.SHA256]; !twice {
			r.bodies[e.Body.SHA256] = e.Body.Data
			r.order = append(r.order, e.Body.SHA256)
			r.kept += len(e.Body.Data)
		}
		for r.kept > bodyBytes && len(r.order) > 1 {
			r.kept -= len(r.bodies[r.order[0]])
			delete(r.bodies, r.order[0])
			r.order = r.order[1:]
		}
		if r.out != nil {
			err = r.out.Body(e.Body)
		}
	case e.End != nil:
		if r.out != nil {
			err = r.out.End(e.End)
		}
	case e.Identification != nil:
		return r.identified(e.Identification)
	case e.Measurement != nil:
		if r.hold(e.Measurement, n) {
			return nil
		}
		return r.again(e.Measurement)
	}
	if err != nil {
		return hint(err, "is the disk full?")
	}
	return nil
}

// take writes and prints a verdict.
func (r *rejudging) take(m *measure.Measurement, v *measure.Verdict, bodies func(string) ([]byte, bool)) error {
	r.worst = worse(r.worst, v.Interference)
	if r.out != nil {
		if m.Imported != "" {
			if err := r.imported(m, bodies); err != nil {
				return hint(err, "is the disk full?")
			}
		}
		if err := r.out.Measurement(m); err != nil {
			return hint(err, "is the disk full?")
		}
		if err := r.out.Verdict(v); err != nil {
			return hint(err, "is the disk full?")
		}
	}
	if r.a.json {
		return r.a.line(v)
	}
	return r.text.Add(m, v)
}

// imported writes what stands before an imported measurement: the run that it
// is of, and the bodies without which it could not be judged again.
func (r *rejudging) imported(m *measure.Measurement, bodies func(string) ([]byte, bool)) error {
	if r.run == nil || r.run.Run != m.Run {
		if r.run != nil {
			if err := r.out.End(&r.end); err != nil {
				return err
			}
		}
		r.run = &measure.Run{Type: "run", Schema: 1, Run: m.Run, Tool: m.Imported, Version: Version(), Started: m.Started, Settings: "judge"}
		r.end = measure.End{Type: "end", Schema: 1, Run: m.Run}
		if err := r.out.Run(r.run); err != nil {
			return err
		}
	}
	r.end.Measurements++
	r.end.Ended = m.Started
	keep := func(kind, hash string) error {
		data, ok := bodies(hash)
		if hash == "" || !ok {
			return nil
		}
		return r.out.Body(&measure.Body{Type: "body", Schema: 1, Run: m.Run, SHA256: hash, Kind: kind, Data: data})
	}
	for i := range m.Observations {
		o := &m.Observations[i]
		if o.HTTP != nil && !o.HTTP.Authenticated {
			if err := keep("body", o.HTTP.BodySHA256); err != nil {
				return err
			}
		}
		if o.TLS != nil && o.TLS.Public != measure.VerifiedOK {
			for _, hash := range o.TLS.Chain {
				if err := keep("certificate", hash); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (n *account) skip(name string) {
	// The names come from the file: no more of them than there are tests.
	if _, ok := n.skipped[name]; !ok && len(n.skipped) >= 100 {
		name = "…"
	}
	n.skipped[name]++
}

func (n *account) bad(err error) {
	if n.broken++; len(n.first) < brokenShown {
		n.first = append(n.first, err.Error())
	}
}

// unreadable counts a file that cannot be read at all, unless the person ended
// that, or it is evidence that does not verify: then it is what ends the
// command.
func (n *account) unreadable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if h := (*hinted)(nil); errors.As(err, &h) && h.code == exitUnverified {
		return err
	}
	n.bad(err)
	return nil
}

// tell says on stderr what came of a file.
func (r *rejudging) tell(path string, n account) {
	if r.a.quiet && n.broken == 0 {
		return
	}
	name := i18n.LTR("file", path)
	r.a.note(r.lang.Text("cli.judge.judged", name, i18n.Num("n", n.judged)))
	if len(n.skipped) > 0 {
		total := 0
		var names []string
		for test, k := range n.skipped {
			total += k
			names = append(names, fmt.Sprintf("%s %d", clean(test[:min(len(test), 64)]), k))
		}
		slices.Sort(names)
		r.a.note(r.lang.Text("cli.judge.skipped", name, i18n.Num("n", total), i18n.LTR("tests", strings.Join(names, ", "))))
	}
	r.a.tellBroken(r.lang, path, &n)
}

// tellBroken names the broken lines of a file on stderr, if it has any.
func (a *app) tellBroken(lang i18n.Lang, path string, n *account) {
	if n.broken == 0 {
		return
	}
	a.note(lang.Text("cli.judge.broken", i18n.LTR("file", path), i18n.Num("n", n.broken)))
	for _, line := range n.first {
		a.item(lang.IsolateLTR(clean(line)))
	}
	if more := n.broken - len(n.first); more > 0 {
		a.item(lang.Text("cli.judge.more", i18n.Num("n", more)))
	}
}
