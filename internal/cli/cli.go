// Package cli is the command line: it composes the other packages and
// concludes nothing.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"govah/internal/geo"
	"govah/internal/i18n"
	"govah/judge"
)

// The exit codes.
const (
	exitDone        = 0
	exitFailed      = 1 // also: lines of the input were skipped
	exitUsage       = 2
	exitConfirmed   = 3 // with --exit-code: interference confirmed
	exitSuspected   = 4 // with --exit-code: suspected or inconclusive
	exitUnverified  = 5 // evidence does not verify
	exitInterrupted = 130
)

// hinted is an error with a hint of what to do.
type hinted struct {
	err  error
	hint string
	code int
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// hint wraps err with what to do about it.
func hint(err error, format string, args ...any) error {
	return &hinted{err: err, hint: fmt.Sprintf(format, args...), code: exitFailed}
}

// usage is a mistake in the command itself.
func usage(hintText, format string, args ...any) error {
	return &hinted{err: fmt.Errorf(format, args...), hint: hintText, code: exitUsage}
}

// exitCode ends the command with a code and no message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// app is one invocation.
type app struct {
	ctx      context.Context
	in       io.Reader
	input    *interruptible // of in, once it is read
	out, err io.Writer
	quiet    bool
	verbose  bool
	lang     string
	json     bool
}

// Main runs the command and returns its exit code.
func Main(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	stdout := &output{Writer: out}
	a := &app{ctx: ctx, in: in, out: stdout, err: errOut}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(stdout)
	root.SetErr(errOut)
	cmd, err := root.ExecuteContextC(ctx)
	var code exitCode
	if stdout.err != nil && (err == nil || errors.As(err, &code) || errors.Is(err, stdout.err)) {
		err = hint(fmt.Errorf("printing the results: %w", stdout.err), "is the disk full?")
	}
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &code):
		return int(code)
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	var h *hinted
	if !errors.As(err, &h) {
		h = &hinted{err: err, code: exitFailed}
		if s := err.Error(); strings.HasPrefix(s, "unknown command") || strings.HasPrefix(s, "unknown flag") ||
			strings.HasPrefix(s, "unknown shorthand") || strings.Contains(s, "invalid argument") || strings.Contains(s, "flag needs an argument") ||
			strings.Contains(s, "arg(s)") {
			h.code, h.hint = exitUsage, "see `"+cmd.CommandPath()+" -h`"
		}
	}
	if a.json {
		line, _ := jsonLine(map[string]any{"type": "error", "schema": 1, "error": h.err.Error(), "hint": h.hint, "exit": h.code})
		errOut.Write(line)
		return h.code
	}
	// Some errors of other packages are of several lines.
	flat := func(s string) string { return unbroken(clean(strings.NewReplacer("\n", " ", "\t", " ").Replace(s))) }
	a.note("govah: error: " + flat(h.err.Error()))
	if h.hint != "" {
		a.note("govah: hint: " + flat(h.hint))
	}
	return h.code
}

// Version is the program's version as built.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "0.1-dev"
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "govah",
		Short: "Shows whether your connection is blocked, altered, throttled or intercepted, and why it says so",
		Long: `govah (گواه, a witness) runs on your own device and tells you whether your
connection is blocked, altered, throttled or intercepted, and why it says so.

Start with:  govah check --lab iran-2017     an emulated internet; sends nothing
             govah check example.org         your own connection; asks first
             govah check -h                  lists, and a helper of your own`,
		SilenceErrors: true, SilenceUsage: true,
		Version:           fmt.Sprintf("%s\nrules %s\n%s", Version(), judge.Rules, geo.Credit),
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE: func(cmd *cobra.Command, args []string) error {
			return cmd.Help()
		},
	}
	p := root.PersistentFlags()
	p.BoolVarP(&a.quiet, "quiet", "q", false, "print results only")
	p.BoolVarP(&a.verbose, "verbose", "v", false, "print every observation as well")
	p.StringVar(&a.lang, "lang", "", "language of reports: en or fa (default: the locale's)")
	root.PersistentPreRunE = func(cmd *cobra.Command, args []string) error {
		if a.lang != "" && a.lang != "en" && a.lang != "fa" {
			return usage("it is en or fa", "--lang %q is not known", a.lang)
		}
		return nil
	}
	root.SetUsageFunc(usageText)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("see `"+cmd.CommandPath()+" -h`", "%v", err)
	})
	root.AddCommand(a.checkCommand(), a.locateCommand(), a.identifyCommand(), a.judgeCommand(), a.reportCommand(), a.diffCommand(), a.exposureCommand(), a.sealCommand(), a.verifyCommand(), a.redactCommand(), a.tlogCommand(), a.witnessCommand(), a.helperCommand(), a.keyCommand(), a.forgetCommand(), a.labCommand())
	return root
}

// Command is the whole command, for its manual.
func Command() *cobra.Command { return (&app{ctx: context.Background()}).root() }

// usageText is cobra's usage, with the flags wrapped for a terminal of 80
// columns. A template would do, and cost 4 MB: with text/template the linker
// must keep every exported method.
func usageText(c *cobra.Command) error {
	var b strings.Builder
	b.WriteString("Usage:\n")
	if c.Runnable() {
		fmt.Fprintf(&b, "  %s\n", c.UseLine())
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s [command]\n", c.CommandPath())
	}
	if c.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", c.Example)
	}
	if c.HasAvailableSubCommands() {
		b.WriteString("\nAvailable Commands:\n")
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(&b, "  %-*s %s\n", sub.NamePadding(), sub.Name(), sub.Short)
			}
		}
	}
	for _, flags := range []struct {
		title string
		set   *pflag.FlagSet
	}{{"Flags", c.LocalFlags()}, {"Global Flags", c.InheritedFlags()}} {
		if flags.set.HasAvailableFlags() {
			fmt.Fprintf(&b, "\n%s:\n%s\n", flags.title, strings.TrimRight(flags.set.FlagUsagesWrapped(80), " \n"))
		}
	}
	_, err := io.WriteString(c.OutOrStdout(), b.String())
	return err
}

// language is the language of what is printed.
func (a *app) language() (i18n.Lang, error) {
	lang, err := i18n.Choose(a.lang, os.Getenv)
	if err != nil {
		return "", usage("it is en or fa", "%v", err)
	}
	return lang, nil
}

func (a *app) colour() bool {
	return isTerminal(a.out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
