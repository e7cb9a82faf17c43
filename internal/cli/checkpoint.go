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
	"strconv"
	"strings"
	"time"

	"govah/evidence/tlog"
)

// A checkpoint in a sealed file says that the file was not made before it
// (c2sp.org/tlog-checkpoint). The newest one that this device has seen is kept
// from the last contact with a log; nothing is contacted for it unasked.

const (
	checkpointBytes = 64 << 10
	checkpointTime  = 20 * time.Second
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
	if err != nil {
		return nil, hint(fmt.Errorf("%s: %w", path, err), instead)
	}
	return text, nil
}

// readCheckpoint reads what looks like a signed checkpoint. Whether it is one,
// and whose, is for who verifies, by a policy of theirs.
func readCheckpoint(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, checkpointBytes+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > checkpointBytes:
		return nil, fmt.Errorf("it is larger than a checkpoint can be (%d bytes)", checkpointBytes)
	case bytes.Count(text, []byte("\n")) < 5 || !bytes.Contains(text, []byte("\n\n— ")) || !bytes.HasSuffix(text, []byte("\n")):
		return nil, errors.New("it is no signed checkpoint")
	}
	return text, nil
}

// keepCheckpoint keeps the newest checkpoint that was seen of a log. One of the
// same log that is older, by its size, does not take its place.
func keepCheckpoint(text []byte) error {
	path, err := checkpointCache()
	if err != nil {
		return err
	}
	if kept, err := os.ReadFile(path); err == nil {
		was, wasSize := logAndSize(kept)
		is, isSize := logAndSize(text)
		if was == is && isSize < wasSize {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".checkpoint-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

// logAndSize are the name of the log and how many entries it has, as a
// checkpoint says.
func logAndSize(text []byte) (log string, size int64) {
	lines := strings.SplitN(string(text), "\n", 3)
	if len(lines) == 3 {
		size, _ = strconv.ParseInt(lines[1], 10, 64)
	}
	return lines[0], size
}

// logURL reads the address of a log (c2sp.org/tlog-tiles).
func logURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, usage("for example --log https://log.example/", "--log %q is no address of a log", text)
	}
	return u, nil
}

// fetchCheckpoint asks a log for its newest checkpoint and keeps it.
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
		return nil, hint(fmt.Errorf("asking the log for its checkpoint: %w", err), "leave --log out: the checkpoint of the last contact is used then, if there is one")
	}
	if err := keepCheckpoint(text); err != nil {
		return nil, hint(fmt.Errorf("keeping the log's checkpoint: %w", err), "is the disk full?")
	}
	return text, nil
}
