package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"govah/evidence/keyring"
	"govah/internal/i18n"
	"govah/report"
)

// passphraseVariable holds a passphrase where neither a file nor a terminal is
// at hand. Other programs of the same user can read it.
const passphraseVariable = "GOVAH_PASSPHRASE"

const maxPassphraseFile = 4096 // bytes

// passphrases are where passphrases come from; nothing given asks on the
// terminal.
type passphrases struct {
	file, newFile string
	used          bool // the first has served as the present one
	typed         []byte
}

// ask gets a passphrase: from a file, else from the environment, else from the
// terminal, where it is not shown.
func (a *app) ask(p *passphrases) keyring.Ask {
	return func(q keyring.Question) ([]byte, error) {
		file := p.file
		if q.New && p.newFile != "" {
			file = p.newFile
		} else if q.New && p.used {
			file = ""
		}
		fromEnv := os.Getenv(passphraseVariable)
		switch {
		case file != "":
			p.used = p.used || !q.New
			return readPassphrase(file)
		case fromEnv != "" && !(q.New && (p.used || p.newFile != "")):
			p.used = p.used || !q.New
			return []byte(fromEnv), nil
		}
		// Asked for before a run and needed after it.
		if !q.New && p.typed != nil {
			return bytes.Clone(p.typed), nil
		}
		text, err := a.typed(q)
		if err == nil && !q.New {
			p.typed = bytes.Clone(text)
		}
		return text, err
	}
}

// readPassphrase reads the first line of a file.
func readPassphrase(path string) ([]byte, error) {
	const what = "a file of a passphrase holds it in its first line"
	f, err := os.Open(path)
	if err != nil {
		return nil, hint(fmt.Errorf("reading the passphrase: %w", err), what)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPassphraseFile))
	if err != nil {
		return nil, hint(fmt.Errorf("reading the passphrase: %w", err), what)
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, hint(fmt.Errorf("%s holds no passphrase", path), what)
	}
	return line, nil
}

var errPassphrasesDiffer = errors.New("the two passphrases differ")

// typed asks for a passphrase on the terminal, and twice for a new one.
func (a *app) typed(q keyring.Question) ([]byte, error) {
	instead := "give it with --passphrase-file FILE, or in " + passphraseVariable
	if q.New {
		instead = "give it with --new-passphrase-file FILE"
	}
	f, ok := a.in.(*os.File)
	if !ok || a.json || !isTerminal(a.in) {
		return nil, hint(errors.New("a passphrase is needed, and there is no terminal to ask on"), "%s", instead)
	}
	lang, err := a.language()
	if err != nil {
		return nil, usage("it is en or fa", "%v", err)
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var restore func()
	if cerr := conn.Control(func(fd uintptr) { restore, err = silence(fd) }); cerr != nil || err != nil {
		return nil, hint(errors.New("this terminal cannot be kept from showing what is typed"), "%s", instead)
	}
	defer conn.Control(func(uintptr) { restore() })
	line := func(key string, args ...i18n.Arg) ([]byte, error) {
		fmt.Fprint(a.err, report.Wrap(lang.Text(key, args...), 0, 0)+" ")
		text, err := bufio.NewReader(io.LimitReader(a.stdin(), maxPassphraseFile)).ReadBytes('\n')
		if err != nil {
			fmt.Fprintln(a.err) // the question has no newline
			if a.ctx.Err() != nil {
				return nil, a.ctx.Err()
			}
			return nil, hint(errors.New("no passphrase was typed"), "%s", instead)
		}
		return bytes.TrimRight(text, "\r\n"), nil
	}
	switch {
	case q.New:
		first, err := line("cli.key.passphrase-new")
		if err != nil {
			return nil, err
		}
		again, err := line("cli.key.passphrase-again")
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(first, again) {
			return nil, hint(errPassphrasesDiffer, "nothing was changed; try again")
		}
		return first, nil
	case q.Scope == "":
		return line("cli.key.passphrase-backup")
	}
	return line("cli.key.passphrase", i18n.Foreign("scope", q.Scope))
}
