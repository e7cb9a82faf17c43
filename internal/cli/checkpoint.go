package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"govah/evidence"
	"govah/evidence/tlog"
)

// A checkpoint in a sealed file says that the file was not made before it
// (c2sp.org/tlog-checkpoint). The newest one that this device has verified, by
// the policy of `govah tlog add`, is kept; nothing is contacted for it unasked.

const (
	checkpointTime = 20 * time.Second
	// noCheckpoint is the --checkpoint that leaves it out.
	noCheckpoint = "none"
)

// checkpointCache is where the newest checkpoint is kept.
func checkpointCache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the folder for what is kept of a log: %w", err)
	}
	return filepath.Join(dir, "govah", "checkpoint"), nil
}

// checkpoint is the one to seal: that of the file, or the one kept; nil if
// there is none, or none is wanted.
func checkpoint(path string) ([]byte, error) {
	const instead = "--checkpoint takes a file with a log's signed checkpoint, or none"
	kept := path == ""
	switch {
	case path == noCheckpoint:
		return nil, nil
	case kept:
		var err error
		if path, err = checkpointCache(); err != nil {
			return nil, nil // a system without such a folder keeps none
		}
	}
	f, err := os.Open(path)
	if kept && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, hint(err, instead)
	}
	defer f.Close()
	text, err := readCheckpoint(f)
	if kept && err != nil {
		return nil, nil // the next one that is verified takes its place
	}
	if err != nil {
		return nil, hint(fmt.Errorf("%s: %w", path, err), instead)
	}
	return text, nil
}

// readCheckpoint reads what has the form of a signed checkpoint. Whether it is
// genuine, and whose, is for who verifies, by a policy of theirs.
func readCheckpoint(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, tlog.MaxCheckpoint+1))
	if err != nil {
		return nil, err
	}
	if _, err := tlog.ParseCheckpoint(text); err != nil {
		return nil, fmt.Errorf("it is no signed checkpoint: %w", err)
	}
	return text, nil
}

// keepCheckpoint keeps the newest checkpoint of a log that was verified. One of
// the same log that is older, by its size, does not take its place.
func keepCheckpoint(text []byte) error {
	path, err := checkpointCache()
	if err != nil {
		return err
	}
	if kept, err := os.ReadFile(path); err == nil {
		was, wasErr := tlog.ParseCheckpoint(kept)
		is, err := tlog.ParseCheckpoint(text)
		if wasErr == nil && err == nil && was.Origin == is.Origin && is.Size < was.Size {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return evidence.ReplaceFile(path, text)
}

// logURL reads the address of a log (c2sp.org/tlog-tiles).
func logURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, usage("for example --log https://log.example/", "--log %q is no address of a log", text)
	}
	return u, nil
}

// fetchCheckpoint asks a log for its newest checkpoint. It is for one sealing
// and is not kept: here is no key to verify it by, and whoever sits on the way
// could have sent it.
func fetchCheckpoint(ctx context.Context, log *url.URL) ([]byte, error) {
	client, err := tlog.NewClient(log.String(), plainClient(checkpointTime))
	var text []byte
	if err == nil {
		text, err = client.Checkpoint(ctx)
	}
	if err == nil {
		text, err = readCheckpoint(bytes.NewReader(text))
	}
	if err != nil {
		return nil, hint(fmt.Errorf("asking the log for its checkpoint: %w", err), "leave --log out: the last checkpoint that `govah tlog add` verified is used then, if there is one")
	}
	return text, nil
}
