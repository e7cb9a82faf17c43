package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"govah/evidence/keyring"
	"govah/internal/consent"
	"govah/internal/i18n"
	"govah/report"
)

func (a *app) forgetCommand() *cobra.Command {
	var scope string
	var yes bool
	cmd := &cobra.Command{
		Use:   "forget",
		Short: "Erase all that govah keeps on this device",
		Long: `Erases what govah keeps on this device: the keys of all scopes, the consent,
and what it keeps of logs. It lists all of that first, and asks.

Files that you named, as with -o, are yours: it leaves them, and those in
folders of lab runs. It cannot erase what others have, what a shell remembers of
commands, what the system keeps of programs that ran, and copies that a flash
disk, a file system or a backup made by itself: files are overwritten, and such
disks write elsewhere. Only a disk that was encrypted from the start forgets for
certain.

--scope NAME erases the keys of that scope and nothing else.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			if given(cmd, "scope") {
				if err := keyring.CheckScope(scope); err != nil {
					return usage("for example --scope work", "--scope: %v", err)
				}
			}
			dir, err := keyring.Dir()
			if err != nil {
				return hint(err, "set XDG_DATA_HOME")
			}
			f := &forgetting{store: keyring.Open(dir, nil), keys: dir, scope: scope}
			if err := f.find(); err != nil {
				return err
			}
			if len(f.files) == 0 {
				a.note(lang.Text("cli.forget.nothing"))
				return nil
			}
			return a.forget(lang, f, yes)
		},
	}
	cmd.Flags().StringVar(&scope, "scope", "", "erase the keys of this scope alone")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// forgetting is what there is to erase.
type forgetting struct {
	store *keyring.Store
	keys  string // the folder of keys
	scope string // "": everything

	files   []string // the keys first
	folders []string // that are empty then, the deepest first
}

// find lists it. A folder that is not there is empty.
func (f *forgetting) find() error {
	failed := func(err error) error {
		return hint(fmt.Errorf("finding what there is to forget: %w", err), "the folders must be yours to read")
	}
	names, err := f.store.Files(f.scope)
	switch {
	case errors.Is(err, keyring.ErrNoKey):
		return keyError(f.scope, err)
	case err != nil:
		return failed(err)
	}
	for _, name := range names {
		f.files = append(f.files, filepath.Join(f.keys, name))
	}
	if f.scope != "" {
		return nil
	}
	settings, err := consent.Path()
	if err != nil {
		return failed(err)
	}
	dirs := []string{filepath.Dir(f.keys), filepath.Dir(settings)}
	if cache, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(cache, "govah"))
	}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case d.IsDir():
				f.folders = append(f.folders, path)
			case !slices.Contains(f.files, path):
				f.files = append(f.files, path)
			}
			return nil
		})
		if err != nil {
			return failed(err)
		}
	}
	slices.Reverse(f.folders)
	return nil
}

// forget lists, asks and erases.
func (a *app) forget(lang i18n.Lang, f *forgetting, yes bool) error {
	a.note(lang.Text("cli.forget.list"))
	for _, path := range f.files {
		fmt.Fprintln(a.err, "  "+lang.IsolateLTR(clean(path))) // whole, to be copied
	}
	if f.scope != "" {
		a.note(lang.Text("cli.forget.scope", i18n.Foreign("scope", f.scope)))
	} else {
		a.note(lang.Text("cli.forget.not"))
	}
	if !yes {
		if !isTerminal(a.in) {
			return hint(errors.New("nothing was erased: there is no terminal to ask on"), "add --yes")
		}
		err := consent.Confirm(a.stdin(), a.err, "\n"+report.Wrap(lang.Text("cli.forget.ask"), 0, 0)+" ", yesWords...)
		if a.ctx.Err() != nil {
			fmt.Fprintln(a.err) // the question has no newline
			return a.ctx.Err()
		}
		if err != nil {
			return hint(errors.New("nothing was erased"), "the answer was not yes")
		}
	}
	// The keys under their lock, and before all else.
	if _, err := f.store.Forget(f.scope); err != nil {
		return keyError(f.scope, err)
	}
	for _, path := range f.files {
		if err := keyring.Erase(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return hint(fmt.Errorf("erasing %s: %w", path, err), "what stands before it in the list is erased; try again")
		}
	}
	for _, dir := range f.folders {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return hint(fmt.Errorf("removing %s: %w", dir, err), "is another govah running?")
		}
	}
	a.note(lang.Text("cli.forget.done", i18n.Num("n", len(f.files))))
	return nil
}
