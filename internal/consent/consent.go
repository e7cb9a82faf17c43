// Package consent keeps the record that a person has read what a measurement
// does on a real network, and with which version of the text.
package consent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Version is the version of the text. Consent to an older one does not count.
const Version = "1"

// ErrNeeded says that no consent is stored; who returns it adds why nobody is
// asked.
var ErrNeeded = errors.New("measuring on a real network needs consent")

// ErrRefused says that the person said no.
var ErrRefused = errors.New("consent was not given; nothing was sent")

// Path is where the record is kept: the XDG configuration folder.
func Path() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("finding the folder for settings: %w", err)
	}
	return filepath.Join(dir, "govah", "consent"), nil
}

// Given says whether consent to this version is stored.
func Given() bool {
	path, err := Path()
	if err != nil {
		return false
	}
	data, err := os.ReadFile(path)
	return err == nil && strings.TrimSpace(string(data)) == Version
}

// Store records consent.
func Store() error {
	path, err := Path()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("storing consent: %w", err)
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(Version+"\n"), 0o600); err != nil {
		return fmt.Errorf("storing consent: %w", err)
	}
	return os.Rename(tmp, path)
}

// Ask shows text and reads one line; yes must be among its words. Consent is
// stored.
func Ask(in io.Reader, out io.Writer, text string, yes ...string) error {
	if err := Confirm(in, out, text, yes...); err != nil {
		return err
	}
	return Store()
}

// Confirm is Ask for this once.
func Confirm(in io.Reader, out io.Writer, text string, yes ...string) error {
	fmt.Fprint(out, text)
	line, err := bufio.NewReader(io.LimitReader(in, 1024)).ReadString('\n')
	if err != nil && (line == "" || !errors.Is(err, io.EOF)) {
		return ErrRefused
	}
	line = strings.ToLower(strings.TrimSpace(line))
	for _, y := range yes {
		if line == y {
			return nil
		}
	}
	return ErrRefused
}
