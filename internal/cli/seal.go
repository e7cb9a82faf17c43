package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"govah/evidence"
	"govah/internal/i18n"
	"govah/judge"
)

// sealOptions are the flags of `govah seal`.
type sealOptions struct {
	sealingOptions
	output    string
	addresses []string
	custody   evidence.Event
}

func (a *app) sealCommand() *cobra.Command {
	o := &sealOptions{}
	cmd := &cobra.Command{
		Use:   "seal FILE…",
		Short: "Make evidence of measurements: one signed file that others can verify",
		Long: `Makes one signed file of measurement files (from govah check -o) and, if one is
given, a capture (pcapng) of the same time, with a report that opens in any
browser. Anybody can check the file without a network (govah verify), and parts
of it can be taken out later without breaking the signature (govah redact).

It proves that the holder of a key stated all this, unchanged since. It does not
prove that it is true, nor who holds the key. With a log's checkpoint it was not
made before that checkpoint; a proof that a log holds it says by when it was.

govah check --seal does the same at the end of a run, with the run's own packets.
The formats: docs/formats/bundle-v1.md.`,
		Example: `  govah seal today.jsonl
  govah seal --recipient age1… -o case.govah.age today.jsonl packets.pcapng`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			return a.runSeal(lang, args, o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "the file to write (default: after the first FILE)")
	f.StringVar(&o.scope, "scope", "", "sign with the key of this scope (see govah key -h)")
	f.StringVar(&o.pass.file, "passphrase-file", "", "read the key's passphrase from a file (or "+passphraseVariable+"; default: ask)")
	o.to.flags(f, "encrypt the evidence")
	f.StringVar(&o.checkpoint, "checkpoint", "", "a file with a log's signed checkpoint, before which this was not; none leaves it out (default: the newest that tlog add verified)")
	f.StringVar(&o.log, "log", "", "ask this log (URL) for its newest checkpoint first")
	f.StringArrayVar(&o.addresses, "address", nil, "an address that this device had when packets were captured, may be repeated (default: those that it has now)")
	f.StringVar(&o.custody.Event, "event", evidence.Collected, "with --by or --note: collected, received or copied")
	f.StringVar(&o.custody.By, "by", "", "who had the files; can be withheld later")
	f.StringVar(&o.custody.Note, "note", "", "a note of yours; can be withheld later")
	f.BoolVar(&a.json, "json", false, "print what was made as one line of JSON")
	return cmd
}

func (o *sealOptions) check() error {
	if err := o.aboutLog(); err != nil {
		return err
	}
	if events := []string{evidence.Collected, evidence.Received, evidence.Copied}; !slices.Contains(events, o.custody.Event) {
		return usage("it is collected, received or copied", "--event %q is not known", o.custody.Event)
	}
	return nil
}

func (a *app) runSeal(lang i18n.Lang, paths []string, o *sealOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	now := time.Now().UTC().Format(time.RFC3339)
	in := evidence.Sealing{About: evidence.About{Version: Version(), Rules: judge.Rules, Sealed: now}}
	if o.custody.By != "" || o.custody.Note != "" {
		o.custody.At = now
		in.Custody = []evidence.Event{o.custody}
	}
	first := "" // of the measurement files
	for _, path := range paths {
		isCapture, err := a.collect(&in, path)
		if err != nil {
			return err
		}
		if !isCapture && first == "" {
			first = path
		}
	}
	if first == "" {
		return usage("give a file that `govah check -o` wrote too", "there are no measurements to seal")
	}
	if in.Packets != nil {
		var err error
		if in.Own, err = ownAddresses(o.addresses); err != nil && len(o.addresses) > 0 {
			return err
		}
	}
	if o.output == "" {
		o.output = withoutEnding(first) + ".govah"
		if o.to.given() {
			o.output += ".age"
		}
	}
	s, err := a.prepareSealing(o.output, &o.sealingOptions)
	if err != nil {
		return err
	}
	defer s.discard()
	in.Checkpoint = s.checkpoint
	var broken account
	if in.Report, broken, err = reportOf(a.ctx, in.Measurements, first, lang); err != nil {
		return err
	}
	b, size, err := s.seal(in)
	if err != nil {
		return err
	}
	if err := a.tellEvidence(lang, s, b, nil, size); err != nil {
		return err
	}
	if broken.broken > 0 {
		a.tellBroken(lang, first, &broken)
		return exitCode(exitFailed)
	}
	return nil
}

// collect adds a file to what is to be sealed, and says whether it is a capture.
func (a *app) collect(in *evidence.Sealing, path string) (capture bool, err error) {
	if path == stdinName {
		return false, usage("give the file's name", "standard input is not sealed")
	}
	if isSealed(path) {
		return false, hint(fmt.Errorf("%s is sealed already", path), "`govah verify %s` says what it proves", path)
	}
	if err := readable(path, "give a file that `govah check -o` wrote, or a pcapng file"); err != nil {
		return false, err
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, 4)
	n, _ := io.ReadFull(f, head)
	switch {
	case bytes.Equal(head[:n], []byte{0x0a, 0x0d, 0x0d, 0x0a}):
		if in.Packets != nil {
			return false, usage("`mergecap -w all.pcapng A B` makes one of them", "more than one capture is given")
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return false, err
		}
		in.Packets, err = io.ReadAll(io.LimitReader(f, sealedBytes))
		if err != nil {
			return false, hint(fmt.Errorf("reading %s: %w", path, err), "copy it again")
		}
		return true, nil
	case slices.ContainsFunc([]string{"\xd4\xc3\xb2\xa1", "\xa1\xb2\xc3\xd4", "\x4d\x3c\xb2\xa1", "\xa1\xb2\x3c\x4d"}, func(m string) bool { return string(head[:n]) == m }):
		return false, hint(fmt.Errorf("%s is a pcap file, and only pcapng can be sealed", path), "convert it: `editcap -F pcapng %s packets.pcapng`", path)
	}
	lines, err := plainLines(path)
	if err != nil {
		return false, hint(fmt.Errorf("reading %s: %w", path, err), "give a file that `govah check -o` wrote")
	}
	if len(in.Measurements)+len(lines) > sealedBytes {
		return false, hint(errors.New("there is more than fits into one file of evidence"), "seal fewer measurements at once")
	}
	in.Measurements = append(in.Measurements, lines...)
	return false, nil
}

// verifierKey reads what --key says: a verifier key, or a file that holds one.
func verifierKey(s string) (string, error) {
	if s == "" || strings.Contains(s, "+") {
		return s, nil
	}
	data, err := os.ReadFile(s)
	if err != nil {
		return "", usage("it is NAME+HASH+BASE64, or a file that holds that", "--key: %v", err)
	}
	key := strings.TrimSpace(string(data))
	if len(key) > 1<<10 || strings.Count(key, "+") < 2 || strings.ContainsAny(key, " \n\t") {
		return "", usage("it is NAME+HASH+BASE64, or a file that holds that", "--key: %s holds no verifier key", s)
	}
	return key, nil
}
