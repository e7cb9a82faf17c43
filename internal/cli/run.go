package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"govah/check"
	"govah/evidence/keyring"
	"govah/internal/consent"
	"govah/internal/i18n"
	"govah/measure"
	"govah/ooni"
	"govah/record"
	"govah/report"
)

// yesWords are what is taken for consent.
var yesWords = []string{"yes", "y", "بله", "بلی", "آری"}

// askConsent shows what a run will do and asks, once per version of the text.
func (a *app) askConsent(lang i18n.Lang, o *checkOptions, plan check.Estimate, p *place, n int) error {
	pace := lang.Text("cli.pace." + string(p.cfg.Pace))
	if !a.quiet {
		if n == 0 {
			a.note(lang.Text("cli.plan-line", i18n.Size("bytes", plan.Bytes), i18n.Took("time", plan.Duration.Microseconds()), i18n.Word("pace", pace)))
		} else {
			a.note(lang.Text("cli.plan", i18n.Num("targets", n), i18n.Size("bytes", plan.Bytes),
				i18n.Took("time", plan.Duration.Microseconds()), i18n.Num("triggers", plan.Triggers), i18n.Word("pace", pace)))
		}
		a.note(lang.Text("cli.plan-contacts"))
		for _, c := range append(append([]string(nil), plan.Contacts...), p.cfg.Helpers...) {
			a.item(lang.IsolateLTR(c))
		}
		if o.banner {
			a.item(lang.Text("cli.banner-later", i18n.Num("n", check.MaxBeside)))
		}
	}
	if o.consent || consent.Given() {
		return nil
	}
	const read = "read what `govah check -h` says, then add --consent; --lab needs none"
	if a.json {
		return hint(fmt.Errorf("%w, and with --json nobody is asked", consent.ErrNeeded), read)
	}
	if !isTerminal(a.in) {
		return hint(fmt.Errorf("%w, and there is no terminal to ask on", consent.ErrNeeded), read)
	}
	err := consent.Ask(a.stdin(), a.err, "\n"+report.Wrap(lang.Text("cli.consent"), 0, 0)+" ", yesWords...)
	if a.ctx.Err() != nil {
		fmt.Fprintln(a.err) // the question has no newline
		return a.ctx.Err()
	}
	if errors.Is(err, consent.ErrRefused) {
		return hint(err, "`govah check --lab iran-2017` shows what it does without sending anything")
	}
	return err
}

// runCheck measures, writes as results come, and sums up.
func (a *app) runCheck(ctx context.Context, lang i18n.Lang, o *checkOptions, p *place, targets []measure.Target, skipped int, plan check.Estimate, dir string, s *sealing) (err error) {
	began := time.Now()
	table, err := a.identifyTable(o.signatures)
	if err != nil {
		return err
	}
	defer lean()()
	if o.deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.deadline)
		defer cancel()
	}
	run := &measure.Run{
		Type: "run", Schema: 1, Run: p.cfg.Run, Tool: "govah", Version: Version(),
		Started: p.cfg.Trust.Now().UTC().Format(time.RFC3339), Lab: p.labName, Client: p.client, LabTime: p.labTime,
		Seed: int64(p.cfg.Seed), Targets: len(targets), Pace: string(p.cfg.Pace), Helpers: p.cfg.Helpers,
		Settings: settings(o),
	}
	var (
		out      *record.Writer
		previous []measure.Verdict
	)
	output := o.output
	begun := false // something may have been written
	var ooniFile *os.File
	if o.ooni != "" {
		if p.cfg.Surroundings.Tunnel || p.cfg.Surroundings.Proxy {
			return usage("turn the VPN or proxy off, or leave --ooni out", "--ooni is refused through a VPN or a proxy: it would describe that exit as this network")
		}
		if ooniFile, err = os.OpenFile(o.ooni, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600); err != nil {
			return hint(err, "--ooni writes a new file")
		}
		defer func() {
			ooniFile.Close()
			if !begun {
				os.Remove(o.ooni)
			}
		}()
	}
	to, err := o.to.recipients()
	if err != nil {
		return err
	}
	inMemory := s != nil && s.memory != nil
	if s != nil && !inMemory {
		if output == "" {
			output = filepath.Join(s.scratch, "measurements.jsonl")
		}
		s.measurements = output
	}
	if o.html != "" {
		if _, err := os.Stat(o.html); err == nil && !o.resume {
			return hint(fmt.Errorf("%s exists already and is not overwritten", o.html), "choose another file with --report")
		}
		// Found out before anything is measured: whether the report can be
		// written. It is made from the measurements, kept or not.
		scratch, err := os.MkdirTemp(filepath.Dir(o.html), ".govah-*")
		if err != nil {
			return hint(fmt.Errorf("writing the report: %w", err), "choose a folder that you can write to")
		}
		defer os.RemoveAll(scratch)
		if output == "" {
			output = filepath.Join(scratch, "measurements.jsonl")
		}
	}
	if output != "" || inMemory {
		if o.resume {
			var done map[string]bool
			if done, previous, err = finished(output, run); err != nil {
				return err
			}
			kept := targets[:0:0]
			for _, t := range targets {
				if !done[t.URL] {
					kept = append(kept, t)
				}
			}
			if !a.quiet && len(done) > 0 {
				a.note(lang.Text("cli.resume", i18n.Num("done", len(targets)-len(kept)), i18n.Num("left", len(kept))))
			}
			targets = kept
			p.cfg.Line = p.cfg.Line && !done[measure.LineTarget]
		}
		switch st, serr := os.Stat(output); {
		case inMemory:
			out = record.NewWriter(s.memory)
			if output != "" && serr == nil {
				err = fmt.Errorf("%s exists already and is not overwritten", output)
			}
		case to != nil:
			out, err = record.CreateThrough(output, func(w io.Writer) (io.WriteCloser, error) { return keyring.EncryptTo(w, to) })
		case o.resume && serr == nil && st.Size() > 0:
			out, err = record.Append(output)
		default:
			out, err = record.Create(output)
		}
		if err != nil {
			return hint(err, "choose another file, or --resume to go on with this one")
		}
		defer func() {
			if cerr := out.Close(); err == nil && cerr != nil {
				err = hint(cerr, "the lines before it are whole and can be judged")
			}
		}()
		if err := out.Run(run); err != nil {
			return hint(err, "is the disk full?")
		}
	}
	begun = true
	opts := report.Options{Lang: lang, Colour: a.colour(), Verbose: a.verbose, Quiet: a.quiet, Locates: o.locate}
	text := report.NewText(a.out, opts)
	progress := report.NewProgress(a.err, opts, isTerminal(a.err) && !a.quiet && !a.json)
	if !a.json {
		if err := text.Begin(run); err != nil {
			return err
		}
	} else if err := a.line(run); err != nil {
		return err
	}
	var progressMu sync.Mutex
	p.cfg.Progress = func(done, suspects, total int) {
		progressMu.Lock()
		defer progressMu.Unlock()
		progress.Update(done, total, suspects, time.Since(began), "")
	}
	var (
		worst      = measure.InterferenceNone
		problems   []string
		compared   int
		measured   int
		notForOONI int
		sum        check.Summary
	)
	var (
		devices   locatable
		strangers strangers
	)
	// What came of a target and of a search for a device may come at one time.
	var writing sync.Mutex
	var searchedSent, searchedReceived int64
	beside := o.output
	if to != nil { // they would lie there in the clear
		beside = ""
	}
	search := &search{cfg: &p.cfg, run: run.Run, packets: keepPackets(beside)}
	defer search.packets.discard()
	places := newLocator(search, &devices, func(m *measure.Measurement, list []measure.Location) error {
		writing.Lock()
		defer writing.Unlock()
		searchedSent += m.BytesSent
		searchedReceived += m.BytesReceived
		if out != nil {
			if err := writeLocated(out, m, list); err != nil {
				return hint(err, "is the disk full?")
			}
		}
		if a.json {
			if err := a.line(m); err != nil {
				return err
			}
		}
		progressMu.Lock()
		defer progressMu.Unlock()
		progress.Clear()
		return a.showLocated(text, list)
	})
	searching, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		places.running.Wait()
	}()
	asked := map[string]int{} // helpers, and how often each answered
	emit := func(r check.Result) error {
		writing.Lock()
		defer writing.Unlock()
		measured++
		for i := range r.Measurement.Observations {
			if ob := &r.Measurement.Observations[i]; ob.Step == measure.StepHelper && ob.Failure != measure.Interrupted {
				asked[ob.Helper] += 0
				if ob.Failure == measure.NoFailure {
					asked[ob.Helper]++
				}
			}
		}
		if o.locate || o.identify {
			devices.add(r)
		}
		if o.identify {
			strangers.add(r, table.Interceptors(r.Measurement, &r.Verdict))
		}
		if o.locate && p.cfg.Pace == check.PaceFast {
			defer places.early(searching) // what it shows comes after the verdict
		}
		if out != nil {
			for _, b := range r.Bodies {
				if err := out.Body(&b); err != nil {
					return hint(err, "is the disk full?")
				}
			}
			if err := out.Measurement(r.Measurement); err != nil {
				return hint(err, "is the disk full?")
			}
			if err := out.Verdict(&r.Verdict); err != nil {
				return hint(err, "is the disk full?")
			}
		}
		if ooniFile != nil && r.Measurement.Complete && r.Measurement.Target != measure.LineTarget {
			line, err := ooni.Export(r.Measurement, &r.Verdict, run)
			if err != nil {
				notForOONI++
			} else if _, err := ooniFile.Write(append(line, '\n')); err != nil {
				return hint(err, "is the disk full?")
			}
		}
		worst = worse(worst, r.Verdict.Interference)
		if p.compare != nil && r.Measurement.Complete {
			if problem, ok := p.compare(r.Verdict); ok {
				compared++
				if problem != "" {
					problems = append(problems, r.Verdict.Target+": "+problem)
				}
			}
		}
		if a.json {
			if err := a.line(r.Measurement); err != nil {
				return err
			}
			return a.line(&r.Verdict)
		}
		progressMu.Lock()
		defer progressMu.Unlock()
		progress.Clear()
		return text.Add(r.Measurement, &r.Verdict)
	}
	if len(targets) > 0 || p.cfg.Line {
		if sum, err = check.Run(ctx, p.cfg, targets, emit); err != nil {
			return err
		}
	}
	if o.locate {
		if err := places.rest(searching); err != nil {
			return err
		}
		sum.Sent, sum.Received = sum.Sent+searchedSent, sum.Received+searchedReceived
	}
	for _, id := range strangers.sorted() {
		if out != nil {
			if err := out.Identification(id); err != nil {
				return hint(err, "is the disk full?")
			}
		}
		if err := a.showIdentified(text, id); err != nil {
			return err
		}
	}
	if o.identify && ctx.Err() == nil {
		identified := func(m *measure.Measurement, id *measure.Identification) error {
			sum.Sent, sum.Received = sum.Sent+m.BytesSent, sum.Received+m.BytesReceived
			if out != nil {
				if err := writeIdentified(out, m, id); err != nil {
					return hint(err, "is the disk full?")
				}
			}
			if a.json {
				if err := a.line(m); err != nil {
					return err
				}
			}
			return a.showIdentified(text, id)
		}
		if err := a.identifyFound(ctx, search, table, &devices, identified); err != nil {
			return err
		}
		// Last of all: whoever owns the routers may act on it.
		if o.banner && ctx.Err() == nil {
			if err := a.askRouters(ctx, lang, o, search, table, &devices, identified); err != nil {
				return err
			}
		}
	}
	packets, packetsErr := search.packets.close()
	for _, v := range previous {
		worst = worse(worst, v.Interference)
	}
	if measured+len(previous) == 0 || sum.Interrupted {
		worst = worse(worst, measure.InterferenceUnknown)
	}
	progress.Clear()
	interrupted := a.ctx.Err() != nil
	end := &measure.End{Type: "end", Schema: 1, Run: run.Run, Ended: p.cfg.Trust.Now().UTC().Format(time.RFC3339),
		Measurements: measured, BytesSent: sum.Sent, BytesReceived: sum.Received, Interrupted: sum.Interrupted}
	if out != nil && !sum.Interrupted {
		if err := out.End(end); err != nil {
			return hint(err, "is the disk full?")
		}
	}
	files := []report.File{}
	if dir != "" {
		files = append(files, report.File{Kind: "lab", Path: dir})
	}
	if o.output != "" {
		if inMemory {
			if err := writeFor(o.output, s.memory.Bytes(), to); err != nil {
				return hint(fmt.Errorf("writing the measurements: %w", err), "is the disk full?")
			}
		}
		files = append(files, report.File{Kind: "measurements", Path: o.output})
	}
	if packets != "" {
		files = append(files, report.File{Kind: "packets", Path: packets})
	}
	if o.ooni != "" {
		files = append(files, report.File{Kind: "ooni", Path: o.ooni})
	}
	if o.html != "" {
		if err := out.Flush(); err != nil {
			return hint(err, "is the disk full?")
		}
		// Also of an interrupted run.
		if _, err := a.writeHTMLFromFile(context.WithoutCancel(ctx), o.html, output, lang); err != nil {
			return err
		}
		files = append(files, report.File{Kind: "report", Path: o.html})
	}
	if a.json {
		a.tellPackets(lang, packets)
		if err := a.line(end); err != nil {
			return err
		}
	} else {
		if err := text.End(report.Summary{ElapsedMS: time.Since(began).Milliseconds(), BytesSent: sum.Sent, BytesReceived: sum.Received,
			Files: files, Skipped: skipped, Interrupted: sum.Interrupted}); err != nil {
			return err
		}
		if p.compare != nil && compared > 0 {
			fmt.Fprintln(a.out)
			if len(problems) == 0 {
				fmt.Fprintln(a.out, lang.Text("cli.truth-all", i18n.Num("n", compared)))
			} else {
				fmt.Fprintln(a.out, lang.Text("cli.truth-some", i18n.Num("right", compared-len(problems)), i18n.Num("n", compared)))
				for _, q := range problems {
					fmt.Fprintln(a.out, "  "+clean(q))
				}
			}
		}
	}
	for _, h := range p.cfg.Helpers {
		if n, was := asked[h]; was && n == 0 && !a.quiet {
			a.note(lang.Text("cli.helper-silent", i18n.LTR("helper", h)))
		}
	}
	if notForOONI > 0 && !a.quiet {
		a.note(lang.Text("cli.ooni-skipped", i18n.Num("n", notForOONI)))
	}
	switch {
	case packetsErr != nil:
		return packetsErr
	case interrupted:
		return exitCode(exitInterrupted)
	case skipped > 0:
		return exitCode(exitFailed)
	case o.exitCode && worst == measure.InterferenceConfirmed:
		return exitCode(exitConfirmed)
	case o.exitCode && worst != measure.InterferenceNone:
		return exitCode(exitSuspected)
	}
	return nil
}

// lean has memory collected earlier until the returned function is called: a
// run waits more than it computes, and a cheap phone has little memory.
func lean() func() {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(50)
	return func() { debug.SetGCPercent(before) }
}

func worse(a, b measure.Interference) measure.Interference {
	rank := map[measure.Interference]int{measure.InterferenceNone: 0, measure.InterferenceUnknown: 1, measure.InterferenceSuspected: 2, measure.InterferenceConfirmed: 3}
	if rank[b] > rank[a] {
		return b
	}
	return a
}

// settings are the options that change what is measured.
func settings(o *checkOptions) string {
	var s []string
	add := func(on bool, text string) {
		if on {
			s = append(s, text)
		}
	}
	add(o.only4, "-4")
	add(o.only6, "-6")
	add(o.resolver != "", "--resolver")
	add(len(o.doh) > 0, "--doh")
	add(len(o.controls) > 0, "--control")
	add(o.caFile != "", "--ca-file")
	add(slices.ContainsFunc(sets, func(s string) bool { return !slices.Contains(o.sets, s) }), "--set")
	add(o.ctLogs != "", "--ct-logs")
	add(o.knownHosts != "", "--known-hosts")
	return strings.Join(s, " ")
}

// another says in which option a run that is to be gone on with differs; what
// was measured in one way and what in another must not stand in one file. The
// pace and what chance decides may differ.
func another(was, is *measure.Run) string {
	named := func(s string) string {
		if s == "" {
			return "none"
		}
		return s
	}
	for _, x := range []struct{ what, was, is string }{
		{"--lab", was.Lab, is.Lab}, {"--client", was.Client, is.Client}, {"other options", was.Settings, is.Settings},
		{"--helper", strings.Join(was.Helpers, " "), strings.Join(is.Helpers, " ")},
	} {
		if x.was != x.is {
			return fmt.Sprintf("%s: %s there, %s here", x.what, named(x.was), named(x.is))
		}
	}
	return ""
}

// finished reads which targets of an interrupted file are complete. A file
// that is not of such a run is refused.
func finished(path string, run *measure.Run) (map[string]bool, []measure.Verdict, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, hint(err, "--resume goes on with the file of -o")
	}
	defer f.Close()
	r, err := record.NewReader(f)
	if err != nil {
		return nil, nil, hint(fmt.Errorf("%s: %w", path, err), "it is no measurement file")
	}
	done := map[string]bool{}
	complete := map[string]string{}
	var verdicts []measure.Verdict
	own, foreign := false, false
	for entry, err := range r.All() {
		if err != nil {
			foreign = foreign || !errors.Is(err, record.ErrTruncated)
			continue
		}
		switch {
		case entry.Run != nil:
			own = true
			if differs := another(entry.Run, run); differs != "" {
				return nil, nil, usage("give the options that it was begun with, or choose a new file", "%s is of another run (%s)", path, differs)
			}
		case entry.Measurement != nil && entry.Measurement.Complete:
			complete[entry.Measurement.ID] = entry.Measurement.Target
		case entry.Verdict != nil:
			if t, ok := complete[entry.Verdict.Measurement]; ok {
				done[t] = true
				verdicts = append(verdicts, *entry.Verdict)
			}
		case entry.End != nil:
			return nil, nil, usage("leave --resume out and choose a new file", "%s is complete; there is nothing to resume", path)
		}
	}
	if foreign && !own {
		return nil, nil, usage("leave --resume out and choose a new file", "%s is no measurement file", path)
	}
	return done, verdicts, nil
}
