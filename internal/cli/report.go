package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"govah/internal/i18n"
	"govah/measure"
	"govah/record"
	"govah/report"
)

func (a *app) reportCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "report FILE",
		Short: "Write a measurement file as one HTML page",
		Long: `Writes a measurement file (from govah check -o) as one self-contained HTML
page, in the language of --lang, next to it or where -o says; - is standard
input. Exits with 1 if lines were broken; the page says so too. Of a sealed
file (.govah) the measurements in it are shown, once it verifies.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			if args[0] == stdinName && output == "" {
				return usage("for example: govah report -o today.html -", "standard input has no name to call the page after")
			}
			if output == "" {
				output = withoutEnding(args[0]) + ".html"
			}
			if _, err := os.Stat(output); err == nil {
				return usage("choose another with -o", "%s exists already", output)
			}
			broken, err := a.writeHTMLFromFile(a.ctx, output, args[0], lang)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, clean(output))
			if broken.broken > 0 {
				a.tellBroken(lang, args[0], &broken)
				return exitCode(exitFailed)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "the file to write")
	return cmd
}

// entries reads measurements with their verdicts, one at a time, each time it
// is ranged over. What was interrupted and is in whole, the targets measured
// wholly, was measured again. broken is what could not be read, at the end.
func entries(ctx context.Context, open func() (io.ReadCloser, error), src *report.Source, whole map[string]bool, broken *account) iter.Seq2[report.Entry, error] {
	return func(yield func(report.Entry, error) bool) {
		*broken = account{}
		f, err := open()
		if err != nil {
			yield(report.Entry{}, err)
			return
		}
		defer f.Close()
		r, err := record.NewReader(f)
		if err != nil {
			yield(report.Entry{}, err)
			return
		}
		pending := map[string]*measure.Measurement{}
		again := map[string]bool{} // of what was measured again
		for e, err := range r.All() {
			switch {
			case ctx.Err() != nil:
				yield(report.Entry{}, ctx.Err())
				return
			case err != nil:
				broken.bad(err)
			case e.Run != nil:
				// One run in a lab makes the whole file speak of none real.
				if src.Run == nil || src.Run.Lab == "" || e.Run.Lab != "" {
					src.Run = e.Run
				}
			case e.End != nil:
				src.End = e.End
			case e.Measurement != nil:
				pending[e.Measurement.ID] = e.Measurement
			case e.Location != nil:
				if whole == nil || again[e.Location.Measurement] {
					continue
				}
				src.Location(e.Location)
				if m := pending[e.Location.Measurement]; m != nil {
					src.Measured(m) // and has no verdict
				}
			case e.Identification != nil:
				if whole == nil || again[e.Identification.Measurement] {
					continue
				}
				src.Identification(e.Identification)
				if m := pending[e.Identification.Measurement]; m != nil {
					src.Measured(m) // and has no verdict
				}
			case e.Verdict != nil:
				m := pending[e.Verdict.Measurement]
				delete(pending, e.Verdict.Measurement)
				if m != nil && !m.Complete && whole[m.Target] {
					again[m.ID] = true
					continue
				}
				if !yield(report.Entry{Measurement: m, Verdict: e.Verdict}, nil) {
					return
				}
			}
		}
		src.Skipped = broken.broken
	}
}

// fileAt opens a file as often as it is read.
func fileAt(path string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return os.Open(path) }
}

// reportSource reads measurements, called name, for a report, and says what of
// them was broken. They are opened once more as the report is made.
func reportSource(ctx context.Context, open func() (io.ReadCloser, error), name string, broken *account) (*report.Source, error) {
	const instead = "give a file that `govah check -o` wrote"
	src := &report.Source{}
	whole, any := map[string]bool{}, false
	for e, err := range entries(ctx, open, src, nil, broken) {
		if err != nil {
			return nil, hint(fmt.Errorf("reading %s: %w", name, err), instead)
		}
		any = true
		if e.Measurement != nil && e.Measurement.Complete {
			whole[e.Measurement.Target] = true
		}
	}
	if !any && src.Run == nil {
		return nil, hint(fmt.Errorf("%s holds no measurement of govah's", name), "give a file that `govah check -o` wrote; OONI's files go through `govah judge -o` first")
	}
	src.Entries = entries(ctx, open, src, whole, broken)
	return src, nil
}

// renderHTML writes a report to out.
func renderHTML(out io.Writer, src *report.Source, name string, lang i18n.Lang) error {
	w := bufio.NewWriterSize(out, 1<<16)
	err := report.HTML(w, report.Options{Lang: lang}, src)
	// Flush repeats a failure to write; any other is of the file that is read.
	if werr := w.Flush(); werr != nil {
		return hint(fmt.Errorf("writing the report: %w", werr), "is the disk full?")
	}
	if err != nil {
		return hint(fmt.Errorf("writing the report from %s: %w", name, err), "`govah judge %s` says which lines are broken", name)
	}
	return nil
}

// writeHTMLFromFile writes a report so that nothing half-written stays behind.
// It also says what of the file was broken.
func (a *app) writeHTMLFromFile(ctx context.Context, output, name string, lang i18n.Lang) (broken account, err error) {
	const instead = "give a file that `govah check -o` wrote"
	path := name
	if err := readable(path, instead); err != nil {
		return broken, err
	}
	if st, err := os.Stat(path); path == stdinName || err == nil && !st.Mode().IsRegular() || isSealed(path) {
		// It is read more than once, which a pipe cannot be, and a sealed one
		// is verified once.
		if path, err = a.spool(ctx, path, filepath.Dir(output)); err != nil {
			return broken, err
		}
		defer os.Remove(path)
	}
	src, err := reportSource(ctx, fileAt(path), name, &broken)
	if err != nil {
		return broken, err
	}
	tmp, err := os.CreateTemp(filepath.Dir(output), ".govah-report-*")
	if err != nil {
		return broken, hint(fmt.Errorf("writing the report: %w", err), "choose a folder that you can write to")
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	if err = renderHTML(tmp, src, name, lang); err != nil {
		return broken, err
	}
	if err = tmp.Close(); err != nil {
		return broken, hint(fmt.Errorf("writing the report: %w", err), "is the disk full?")
	}
	if err = os.Rename(tmp.Name(), output); err != nil {
		return broken, hint(fmt.Errorf("writing the report: %w", err), "choose another file with -o")
	}
	return broken, nil
}

// spool keeps what can be read only once in a file of dir, for the caller to
// remove.
func (a *app) spool(ctx context.Context, name, dir string) (path string, err error) {
	in, _, err := a.openMeasurements(ctx, name)
	if h := (*hinted)(nil); errors.As(err, &h) {
		return "", err
	}
	if err != nil {
		return "", hint(err, "give a file that `govah check -o` wrote")
	}
	defer in.Close()
	tmp, err := os.CreateTemp(dir, ".govah-report-*")
	if err != nil {
		return "", hint(fmt.Errorf("writing the report: %w", err), "choose a folder that you can write to")
	}
	_, err = io.Copy(tmp, in)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(tmp.Name())
		return "", hint(fmt.Errorf("keeping %s until the report is written: %w", name, err), "is the disk full?")
	}
	return tmp.Name(), nil
}

func (a *app) diffCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say what changed between two runs",
		Long: `Says what changed between two measurement files (from govah check -o); one of
them may be -, standard input. Exits with 1 if lines were broken.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			if args[0] == stdinName && args[1] == stdinName {
				return usage("give a file for one of them", "standard input can be read only once")
			}
			for _, path := range args {
				if err := readable(path, "give two files that `govah check -o` wrote"); err != nil {
					return err
				}
			}
			var broken [2]account
			changes, err := report.Diff(a.verdicts(args[0], &broken[0]), a.verdicts(args[1], &broken[1]))
			if a.ctx.Err() != nil {
				return a.ctx.Err()
			}
			for i := range broken {
				a.tellBroken(lang, args[i], &broken[i])
			}
			if err != nil {
				return hint(err, "both must be measurement files")
			}
			if a.json {
				err = a.line(changes)
			} else {
				err = changes.Text(a.out, report.Options{Lang: lang, Colour: a.colour()})
			}
			if err == nil && broken[0].broken+broken[1].broken > 0 {
				return exitCode(exitFailed)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&a.json, "json", false, "print the changes as one line of JSON")
	return cmd
}

// verdicts reads the verdicts of a file, and counts what is broken in it.
func (a *app) verdicts(path string, broken *account) iter.Seq2[*measure.Verdict, error] {
	return func(yield func(*measure.Verdict, error) bool) {
		f, _, err := a.openMeasurements(a.ctx, path)
		if err != nil {
			yield(nil, err)
			return
		}
		defer f.Close()
		r, err := record.NewReader(f)
		if err != nil {
			yield(nil, fmt.Errorf("%s: %w", path, err))
			return
		}
		any := false
		for e, err := range r.All() {
			switch {
			case a.ctx.Err() != nil:
				yield(nil, a.ctx.Err())
				return
			case err != nil:
				broken.bad(err)
			case e.Verdict != nil:
				any = true
				if !yield(e.Verdict, nil) {
					return
				}
			}
		}
		if !any {
			yield(nil, fmt.Errorf("%s holds no verdict", path))
		}
	}
}
