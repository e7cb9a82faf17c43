package serve

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"govah/evidence/tlog"
)

// ErrNoKey says that a key file is not there, and no name was given for a new
// key.
var ErrNoKey = errors.New("the key file is not there")

// KeyFile reads the private key of a log or a witness, of at most one line. If
// the file is not there it makes a key of that name, readable by nobody else;
// fresh is true then. If name is not empty, an old key must have it.
func KeyFile(path, name string, witness bool) (skey string, fresh bool, err error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && name == "":
		return "", false, fmt.Errorf("%w: %s", ErrNoKey, path)
	case errors.Is(err, fs.ErrNotExist):
		if skey, err = tlog.MakeKey(name, witness); err != nil {
			return "", false, err
		}
		if err := writeKey(path, skey); err != nil {
			return "", false, fmt.Errorf("keeping the new key: %w", err)
		}
		return skey, true, nil
	case err != nil:
		return "", false, fmt.Errorf("reading the key: %w", err)
	case len(data) > 4096:
		return "", false, fmt.Errorf("%s is no key: it is too long", path)
	}
	skey = strings.TrimSpace(string(data))
	owner, ofWitness, err := tlog.ParseKey(skey)
	if err == nil && ofWitness != witness {
		err = errors.New("it is a log's key where a witness's is wanted, or the other way round")
	}
	if err == nil && name != "" && owner != name {
		err = fmt.Errorf("it is the key of %q, not of %q", owner, name)
	}
	if err != nil {
		return "", false, fmt.Errorf("%s: %w", path, err)
	}
	return skey, false, nil
}

// writeKey writes a key file, whole and durable, where there is none.
func writeKey(path, skey string) error {
	d, err := openFolder(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return replaceFile(d, filepath.Base(path), []byte(skey+"\n"))
}
