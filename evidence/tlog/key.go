package tlog

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// MakeKey makes a new private key of a log or a witness. Whoever has it can
// sign in its name. The name of a log is its origin.
func MakeKey(name string, witness bool) (string, error) {
	if !validName(name) {
		return "", fmt.Errorf("%q cannot be the name of a key: it is one word without +, such as example.org/log", name)
	}
	algorithm := byte(algorithmEd25519)
	if witness {
		algorithm = algorithmCosignature
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, keyID(name, algorithm, key.Public().(ed25519.PublicKey)),
		base64.StdEncoding.EncodeToString(append([]byte{algorithm}, key.Seed()...))), nil
}

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
		if skey, err = MakeKey(name, witness); err != nil {
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
	owner, algorithm, _, err := privateKey(skey)
	if err == nil && (algorithm == algorithmCosignature) != witness {
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
