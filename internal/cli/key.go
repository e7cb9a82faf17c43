package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"govah/evidence"
	"govah/evidence/keyring"
	"govah/internal/i18n"
	"govah/report"
)

// keyOptions are what the commands about keys share.
type keyOptions struct {
	scope  string
	pass   passphrases
	output string
	to     recipientOptions
}

func (o *keyOptions) scopeFlags(f *pflag.FlagSet) {
	f.StringVar(&o.scope, "scope", keyring.DefaultScope, "whose key: a name of your choice, which no sealed file holds")
	f.StringVar(&o.pass.file, "passphrase-file", "", "read the key's passphrase from a file (or "+passphraseVariable+"; default: ask)")
}

// recipientOptions are whom a file is encrypted to.
type recipientOptions struct {
	list, files []string
}

func (o *recipientOptions) flags(f *pflag.FlagSet, what string) {
	f.StringArrayVar(&o.list, "recipient", nil, what+" to this age recipient (age1…), may be repeated")
	f.StringArrayVar(&o.files, "recipients-file", nil, "and to those in this file, one a line")
}

// given says that there are any.
func (o *recipientOptions) given() bool { return len(o.list)+len(o.files) > 0 }

// recipients reads them; nil if none is named.
func (o *recipientOptions) recipients() (*keyring.Recipients, error) {
	if !o.given() {
		return nil, nil
	}
	const what = "a recipient is a public key of age, as `age-keygen` prints it: age1…"
	all := slices.Clone(o.list)
	for _, path := range o.files {
		f, err := os.Open(path)
		if err != nil {
			return nil, hint(fmt.Errorf("--recipients-file: %w", err), what)
		}
		list, err := keyring.ReadRecipients(f)
		f.Close()
		if err != nil {
			return nil, hint(fmt.Errorf("--recipients-file: %s: %w", path, err), what)
		}
		all = append(all, list...)
	}
	to, err := keyring.ParseRecipients(all...)
	if err != nil {
		return nil, usage(what, "--recipient: %v", err)
	}
	return to, nil
}

// keys is this person's store.
func keys() (*keyring.Store, error) {
	dir, err := keyring.Dir()
	if err != nil {
		return nil, hint(err, "set XDG_DATA_HOME")
	}
	return keyring.Open(dir, nil), nil
}

// keyError says what to do about a key that cannot be used.
func keyError(scope string, err error) error {
	var (
		open *keyring.OpenError
		h    *hinted
	)
	what := "the keys"
	if scope != "" {
		what = fmt.Sprintf("the key of the scope %q", scope)
	}
	err = fmt.Errorf("%s: %w", what, err)
	switch {
	case errors.As(err, &h):
		return h
	case errors.As(err, &open):
		return hint(err, "%s", open.Hint())
	case errors.Is(err, keyring.ErrNoKey):
		return hint(err, "`govah key list` names the scopes that have keys; `govah key next --scope NAME` makes one")
	case errors.Is(err, keyring.ErrBusy):
		return hint(err, "wait until it is done, and try again")
	case errors.Is(err, keyring.ErrPassphrase):
		return hint(err, "nothing was changed; try again. Nobody can open it without the passphrase")
	case errors.Is(err, keyring.ErrDamaged):
		return hint(err, "`govah forget --scope NAME` clears the way for a new key, or for `govah key restore` of a backup of this epoch")
	case errors.Is(err, keyring.ErrOlder):
		return hint(err, "the key that is here stays as it is")
	case errors.Is(err, os.ErrPermission):
		return hint(err, "the files of keys must be yours to read and write")
	}
	return hint(err, "is the disk full? The key is as it was, or the next one has begun: `govah key list`")
}

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Look after the keys that seal evidence",
		Long: `Evidence is sealed with a key of this device, made at first use. There is one
for each scope: a name that you choose, so that what you do as one cannot be
linked with what you do as another. No name is in a sealed file, only the key.

A key serves for an epoch: 100 seals or 30 days, unless you say otherwise. Then
the next key takes its place and the old one is erased: whoever takes the device
later can neither sign what it would have signed, nor show that what it signed
is yours. Nothing links the two, unless you want that (--link).

The keys are in the folder govah/keys below $XDG_DATA_HOME (~/.local/share),
readable by you alone. ` + "`govah forget`" + ` erases them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.keyListCommand(), a.keyNextCommand(), a.keyExportCommand(), a.keyBackupCommand(), a.keyRestoreCommand(), a.keyRevokeCommand(), a.keyNoteCommand())
	return cmd
}

func (a *app) keyListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the keys, without their secrets", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			s, err := keys()
			if err != nil {
				return err
			}
			list, err := s.List()
			if err != nil {
				return keyError("", err)
			}
			if len(list) == 0 && !a.json && !a.quiet {
				a.note(lang.Text("cli.key.none", i18n.Command("command", "govah key next")))
			}
			bad := false
			for _, i := range list {
				bad = bad || i.Err != nil
				if err := a.showKey(lang, i); err != nil {
					return err
				}
			}
			if bad {
				return exitCode(exitFailed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&a.json, "json", false, "print them as JSON lines (docs/formats/keys-v1.md)")
	return cmd
}

// showKey prints what is known of a scope.
func (a *app) showKey(lang i18n.Lang, i keyring.Info) error {
	if a.json {
		line := map[string]any{"type": "key", "schema": 1, "scope": i.Scope, "file": i.File, "epoch": i.Epoch, "protected": i.Protected, "uses": i.Uses}
		if i.Key != "" {
			line["key"], line["began"], line["max_uses"], line["max_days"], line["linked"] = i.Key, i.Began.UTC().Format(time.RFC3339), i.MaxUses, i.MaxDays, i.Linked
		}
		if i.Err != nil {
			line["error"] = i.Err.Error()
		}
		return a.line(line)
	}
	say := func(indent int, key string, args ...i18n.Arg) {
		fmt.Fprintln(a.out, report.Wrap(lang.Text("cli.key."+key, args...), indent, 2))
	}
	switch {
	case i.Err != nil:
		say(0, "unusable", i18n.LTR("file", i.File), i18n.Foreign("why", i.Err.Error()))
	case i.Protected:
		say(0, "protected", i18n.LTR("file", i.File), i18n.Num("epoch", i.Epoch), i18n.Num("n", max(i.Uses, 0)))
	default:
		say(0, "line", i18n.Foreign("scope", i.Scope), i18n.Num("epoch", i.Epoch), i18n.Word("began", lang.Date(i.Began)),
			i18n.Num("n", max(i.Uses, 0)), i18n.Num("max", i.MaxUses), i18n.Word("until", lang.Date(i.Began.AddDate(0, 0, i.MaxDays))))
		fmt.Fprintln(a.out, "  "+i.Key)
		if i.Linked {
			say(2, "linked")
		}
	}
	return nil
}

// tellEpoch says that an epoch has just begun, and why.
func (a *app) tellEpoch(lang i18n.Lang, scope, began string) {
	if began != "" && !a.quiet {
		a.note(lang.Text("cli.key."+began, i18n.Foreign("scope", scope)))
	}
}

func (a *app) keyNextCommand() *cobra.Command {
	var o keyOptions
	var r keyring.Rotation
	var revocation string
	cmd := &cobra.Command{
		Use:   "next",
		Short: "End the epoch: the next key takes over, and the old one is erased",
		Long: `Ends the epoch of a scope now. The next key takes over and the old one is
erased; where there is none yet, the first is made. Prints the new key, with
which others verify what it seals.

With --link both keys sign that they belong together, and ` + "`govah key export --link`" + `
prints that. It cannot be taken back: whoever knows whose the one is, then knows
whose the other is.

A passphrase (--protect) guards the key on the disk, not in memory, and is
needed for every seal. It can be lost; nobody can open the key then.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			if r.Protect && r.Unprotect {
				return usage("give one of them, or neither to leave it as it is", "--protect and --unprotect exclude each other")
			}
			for flag, n := range map[string]int{"uses": r.Uses, "days": r.Days} {
				if n <= 0 && given(cmd, flag) {
					return usage("leave it out to leave it as it is", "--%s must be more than 0", flag)
				}
			}
			to, err := o.to.recipients()
			if err != nil {
				return err
			}
			if err := o.unused(revocation); err != nil {
				return err
			}
			s, err := keys()
			if err != nil {
				return err
			}
			ask := a.ask(&o.pass)
			r.AskNew = ask
			k, err := s.Next(o.scope, ask, r)
			if err != nil {
				return keyError(o.scope, err)
			}
			defer k.Close()
			a.tellEpoch(lang, o.scope, k.Began)
			fmt.Fprintln(a.out, k.Verifier())
			if revocation != "" {
				return a.writeRevocation(lang, k, revocation, to)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	o.scopeFlags(f)
	f.BoolVar(&r.Link, "link", false, "let both keys sign that they belong together")
	f.IntVar(&r.Uses, "uses", 0, "end epochs after this many seals from now on")
	f.IntVar(&r.Days, "days", 0, "end epochs after this many days from now on")
	f.BoolVar(&r.Protect, "protect", false, "guard the next keys with a new passphrase")
	f.BoolVar(&r.Unprotect, "unprotect", false, "guard them with none")
	f.StringVar(&o.pass.newFile, "new-passphrase-file", "", "read the new passphrase from a file (default: ask)")
	f.StringVar(&revocation, "revocation", "", "write the new key's revocation note, for somebody to keep")
	o.to.flags(f, "encrypt the note")
	return cmd
}

// unused says early that a file to be written is there already.
func (o *keyOptions) unused(path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Lstat(path); err == nil {
		return hint(fmt.Errorf("%s exists already and is not overwritten", path), "choose another name")
	}
	return nil
}

// writeRevocation writes the revocation note of a key.
func (a *app) writeRevocation(lang i18n.Lang, k *keyring.Key, path string, to *keyring.Recipients) error {
	text, err := k.Revocation()
	if err != nil {
		return err
	}
	if err := writeFor(path, text, to); err != nil {
		return hint(fmt.Errorf("writing the revocation note: %w", err), "is the disk full? `govah key export --revocation FILE` makes it again")
	}
	if !a.quiet {
		a.note(lang.Text("cli.key.revocation", i18n.LTR("file", path)))
	}
	return nil
}

func (a *app) keyExportCommand() *cobra.Command {
	var o keyOptions
	var link bool
	var revocation string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the key that others verify with",
		Long: `Prints the public key of a scope's epoch, in the form of signed notes (C2SP).
Who has it from you knows which sealed files are yours.

--revocation FILE writes a note with which the key can be declared lost later,
by whoever holds the note: give it to an organisation you trust, best encrypted
to it (--recipient), since anybody who has it can use it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			to, err := o.to.recipients()
			if err != nil {
				return err
			}
			if err := errors.Join(o.unused(revocation), o.unused(o.output)); err != nil {
				return err
			}
			s, err := keys()
			if err != nil {
				return err
			}
			k, err := s.Get(o.scope, a.ask(&o.pass))
			if err != nil {
				return keyError(o.scope, err)
			}
			defer k.Close()
			text := k.Verifier() + "\n"
			if link {
				if text = k.Link(); text == "" {
					return hint(fmt.Errorf("the key of the scope %q is linked to none before it", o.scope), "`govah key next --link` links the next one")
				}
			}
			if revocation != "" {
				if err := a.writeRevocation(lang, k, revocation, to); err != nil {
					return err
				}
			}
			if o.output == "" {
				_, err = io.WriteString(a.out, text)
				return err
			}
			if err := writeFor(o.output, []byte(text), nil); err != nil {
				return hint(fmt.Errorf("writing the key: %w", err), "choose a folder that you can write to")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	o.scopeFlags(f)
	f.StringVarP(&o.output, "output", "o", "", "write it to a file")
	f.BoolVar(&link, "link", false, "the note that links it to the key before it, instead")
	f.StringVar(&revocation, "revocation", "", "also write the key's revocation note")
	o.to.flags(f, "encrypt that note")
	return cmd
}

func (a *app) keyBackupCommand() *cobra.Command {
	var o keyOptions
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Write the key of the present epoch, encrypted",
		Long: `Writes the secret key of a scope's present epoch to a file, encrypted to age
recipients, or with a passphrase of its own. It is of this epoch alone: the next
key does not follow from it, and needs a backup of its own.

A backup is one more place where the key can be found. What it is for: to revoke
a key, or to link it with the next one, after the device is lost.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.output == "" {
				return usage("add -o FILE", "a backup needs a file")
			}
			to, err := o.to.recipients()
			if err != nil {
				return err
			}
			if err := o.unused(o.output); err != nil {
				return err
			}
			s, err := keys()
			if err != nil {
				return err
			}
			ask := a.ask(&o.pass)
			data, err := s.Backup(o.scope, ask, ask, to)
			if err != nil {
				return keyError(o.scope, err)
			}
			if err := writeFor(o.output, data, nil); err != nil {
				return hint(fmt.Errorf("writing the backup: %w", err), "is the disk full?")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	o.scopeFlags(f)
	f.StringVarP(&o.output, "output", "o", "", "the file to write")
	f.StringVar(&o.pass.newFile, "new-passphrase-file", "", "read the backup's passphrase from a file (default: ask)")
	o.to.flags(f, "encrypt it, instead of with a passphrase,")
	return cmd
}

func (a *app) keyRestoreCommand() *cobra.Command {
	var o keyOptions
	var identity string
	var protect bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put the key of a backup where there is none",
		Long: `Reads a backup and puts its key in its scope, which must have no key here, or
none of that epoch or a later one: epochs do not go back. Prints the key.

A key that was in two places is better ended: ` + "`govah key next`" + `.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			const what = "give a file that `govah key backup` wrote"
			in, err := a.open(a.ctx, args[0])
			if err != nil {
				return hint(err, what)
			}
			defer in.Close()
			var by io.Reader
			if identity != "" {
				f, err := os.Open(identity)
				if err != nil {
					return hint(fmt.Errorf("--identity: %w", err), "it is a file of secret keys of age, as `age-keygen` makes it")
				}
				defer f.Close()
				by = f
			}
			s, err := keys()
			if err != nil {
				return err
			}
			ask := a.ask(&o.pass)
			var askNew keyring.Ask
			if protect {
				askNew = ask
			}
			i, err := s.Restore(in, by, ask, askNew)
			var h *hinted
			switch {
			case errors.As(err, &h):
				return h
			case errors.Is(err, keyring.ErrOlder), errors.Is(err, keyring.ErrBusy):
				return keyError(i.Scope, err)
			case errors.Is(err, keyring.ErrPassphrase):
				return hint(err, "if it was encrypted to a recipient, give --identity FILE")
			case err != nil:
				return hint(fmt.Errorf("restoring %s: %w", args[0], err), what)
			}
			fmt.Fprintln(a.out, i.Key)
			return nil
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&identity, "identity", "", "secret keys of age that the backup was encrypted to")
	f.StringVar(&o.pass.file, "passphrase-file", "", "read the backup's passphrase from a file (or "+passphraseVariable+"; default: ask)")
	f.BoolVar(&protect, "protect", false, "guard the key here with a passphrase")
	f.StringVar(&o.pass.newFile, "new-passphrase-file", "", "read that from a file (default: ask)")
	return cmd
}

func (a *app) keyRevokeCommand() *cobra.Command {
	var o keyOptions
	cmd := &cobra.Command{
		Use:   "revoke",
		Short: "Declare the key lost, and begin the next one",
		Long: `Writes a note, signed by the key, that says that what is signed with it from
now on is not yours; then the key is erased and the next one begins, which is
printed. Publish the note where others look for it: best in a log, which says
since when it has been there.

What was sealed before stays what it was.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			if o.output == "" {
				return usage("add -o FILE", "the revocation note needs a file")
			}
			if err := o.unused(o.output); err != nil {
				return err
			}
			s, err := keys()
			if err != nil {
				return err
			}
			k, err := s.Next(o.scope, a.ask(&o.pass), keyring.Rotation{Revocation: func(note []byte) error {
				if err := writeFor(o.output, note, nil); err != nil {
					return hint(fmt.Errorf("writing the revocation note: %w", err), "is the disk full? The key was not ended")
				}
				return nil
			}})
			if err != nil {
				return keyError(o.scope, err)
			}
			defer k.Close()
			a.tellEpoch(lang, o.scope, k.Began)
			fmt.Fprintln(a.out, k.Verifier())
			return nil
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	o.scopeFlags(f)
	f.StringVarP(&o.output, "output", "o", "", "the file to write the note to")
	return cmd
}

// keyNoteCommand reads the notes that others publish about their keys.
func (a *app) keyNoteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "note FILE",
		Short: "Say what a rotation or revocation note says, once it verifies",
		Long: `Checks a note about keys, from ` + "`govah key revoke`, or `govah key export`" + ` with
--link or --revocation, and prints the keys that it is about, to compare with
the key that ` + "`govah verify`" + ` prints. When the note was published it does not say: a
log does. Exits with 5 if it does not verify.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			in, err := a.open(a.ctx, args[0])
			if err != nil {
				return hint(err, "give a note about keys, or - for standard input")
			}
			defer in.Close()
			text, err := io.ReadAll(io.LimitReader(in, keyring.MaxNote+1))
			if err != nil {
				return hint(fmt.Errorf("reading %s: %w", args[0], err), "give a note about keys, or - for standard input")
			}
			say := func(key string, list ...string) error {
				fmt.Fprintln(a.out, report.Wrap(lang.Text("cli.key."+key), 0, 2))
				for _, k := range list {
					fmt.Fprintln(a.out, "  "+k)
				}
				return nil
			}
			if key, err := keyring.ParseRevocation(text); err == nil {
				return say("note-revocation", key)
			}
			old, next, err := keyring.ParseRotation(text)
			if err != nil {
				return &hinted{err: fmt.Errorf("%s is no rotation or revocation note that verifies: %w", args[0], err), code: exitUnverified,
					hint: "use nothing of it; if it is encrypted, `age -d` with the key opens it"}
			}
			return say("note-rotation", old, next)
		},
	}
}

// writeFor writes a new file, encrypted if to is not nil.
func writeFor(path string, data []byte, to *keyring.Recipients) error {
	if to != nil {
		var err error
		if data, err = keyring.Encrypt(data, to); err != nil {
			return err
		}
	}
	return evidence.WriteFile(path, data)
}

// aboutEncrypting says what --recipient cannot go with: what would lie beside
// the encrypted file in the clear, and what would have to be read back.
func (o *checkOptions) aboutEncrypting() error {
	if !o.to.given() {
		return nil
	}
	switch {
	case o.output == "" && !o.seal:
		return usage("add -o FILE or --seal", "--recipient says for whom a file is, and there is none")
	case o.resume:
		return usage("leave one of them out", "--resume and --recipient exclude each other: this device cannot read what it wrote")
	case o.html != "":
		return usage("leave --report out; with --seal the report is in the evidence", "--report and --recipient exclude each other: the report would be in the clear")
	case o.ooni != "":
		return usage("leave one of them out", "--ooni and --recipient exclude each other: that file would be in the clear")
	}
	_, err := o.to.recipients()
	return err
}
