package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"

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
page, in the language of --lang, next to it or where -o says.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return usage("it is en or fa", "%v", err)
			}
			if output == "" {
				output = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(args[0], ".gz"), ".zst"), ".jsonl") + ".html"
			}
			if _, err := os.Stat(output); err == nil {
				return usage("choose another with -o", "%s exists already", output)
			}
			if err := writeHTMLFromFile(output, args[0], lang); err != nil {
				return err
			}
			fmt.Fprintln(a.out, output)
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "the file to write")
	return cmd
}

// entries reads measurements with their verdicts, one at a time, each time it
// is ranged over. What was interrupted and is in whole, the targets measured
// wholly, was measured again.
func entries(path string, src *report.Source, whole map[string]bool) iter.Seq2[report.Entry, error] {
	return func(yield func(report.Entry, error) bool) {
		f, err := os.Open(path)
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
		skipped := 0
		pending := map[string]*measure.Measurement{}
		for e, err := range r.All() {
			switch {
			case err != nil:
				skipped++
			case e.Run != nil:
				// One run in a lab makes the whole file speak of none real.
				if src.Run == nil || src.Run.Lab == "" || e.Run.Lab != "" {
					src.Run = e.Run
				}
			case e.End != nil:
				src.End = e.End
			case e.Measurement != nil:
				pending[e.Measurement.ID] = e.Measurement
			case e.Verdict != nil:
				m := pending[e.Verdict.Measurement]
				delete(pending, e.Verdict.Measurement)
				if m != nil && !m.Complete && whole[m.Target] {
					continue
				}
				if !yield(report.Entry{Measurement: m, Verdict: e.Verdict}, nil) {
					return
				}
			}
		}
		src.Skipped = skipped
	}
}

// writeHTMLFromFile writes a report so that nothing half-written stays behind.
func writeHTMLFromFile(output, path string, lang i18n.Lang) (err error) {
	if _, err := os.Stat(path); err != nil {
		return hint(err, "give a file that `govah check -o` wrote")
	}
	src := &report.Source{}
	whole, any := map[string]bool{}, false
	for e, err := range entries(path, src, nil) {
		if err != nil {
			return hint(fmt.Errorf("reading %s: %w", path, err), "give a file that `govah check -o` wrote")
		}
		any = true
		if e.Measurement != nil && e.Measurement.Complete {
			whole[e.Measurement.Target] = true
		}
	}
	if !any && src.Run == nil {
		return hint(fmt.Errorf("%s holds no measurement of govah's", path), "give a file that `govah check -o` wrote; OONI's files go through `govah judge -o` first")
	}
	src.Entries = entries(path, src, whole)
	tmp, err := os.CreateTemp(filepath.Dir(output), ".govah-report-*")
	if err != nil {
		return hint(fmt.Errorf("writing the report: %w", err), "choose a folder that you can write to")
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	w := bufio.NewWriterSize(tmp, 1<<16)
	if err = report.HTML(w, report.Options{Lang: lang}, src); err != nil {
		return hint(fmt.Errorf("writing the report from %s: %w", path, err), "`govah judge %s` says which lines are broken", path)
	}
	if err = w.Flush(); err == nil {
		err = tmp.Close()
	}
	if err != nil {
		return hint(fmt.Errorf("writing the report: %w", err), "is the disk full?")
	}
	return os.Rename(tmp.Name(), output)
}

func (a *app) diffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say what changed between two runs",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return usage("it is en or fa", "%v", err)
			}
			for _, path := range args {
				if _, err := os.Stat(path); err != nil {
					return hint(err, "give two files that `govah check -o` wrote")
				}
			}
			changes, err := report.Diff(verdicts(args[0]), verdicts(args[1]))
			if err != nil {
				return hint(err, "both must be measurement files")
			}
			if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
				enc := json.NewEncoder(a.out)
				enc.SetEscapeHTML(false)
				return enc.Encode(changes)
			}
			return changes.Text(a.out, report.Options{Lang: lang, Colour: a.colour()})
		},
	}
}

func verdicts(path string) iter.Seq2[*measure.Verdict, error] {
	return func(yield func(*measure.Verdict, error) bool) {
		f, err := os.Open(path)
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
			if err == nil && e.Verdict != nil {
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
