// Package keyring keeps the keys that seal evidence: one chain of ed25519 keys
// for each scope, a name that its owner chooses and that appears in no bundle.
// A key serves for an epoch; then its seed is ratcheted forward, one way, and
// the old one erased, so that whoever takes the device cannot sign for, or
// prove the authorship of, what earlier epochs sealed (docs/design/keys.md,
// docs/formats/keys-v1.md). It also encrypts files to age keys that are
// elsewhere.
package keyring

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What can be wrong with a store, besides what the system says.
var (
	// ErrNoKey says that a scope has no key yet.
	ErrNoKey = errors.New("there is no key of that scope")
	// ErrBusy says that another process did not let go of the store.
	ErrBusy = errors.New("another govah is using the keys")
	// ErrPassphrase says that a passphrase is not the one of the key.
	ErrPassphrase = errors.New("the passphrase is not the one that this was protected with")
	// ErrDamaged says that a key's file is there and not whole. No other key
	// is made in its place: it may be mended, and nobody would notice.
	ErrDamaged = errors.New("the file of the key is damaged")
	// ErrOlder says that a backup is of an epoch that has ended here.
	ErrOlder = errors.New("the backup is of an epoch that has ended here, and epochs do not go back")

	errForeign = errors.New("somebody else put it there")
)

// OpenError says that others than its owner can read a key.
type OpenError struct {
	Path string
	Mode fs.FileMode
	want string
}

// Error implements error.
func (e *OpenError) Error() string {
	return fmt.Sprintf("%s can be read or changed by others (mode %03o)", e.Path, e.Mode)
}

// Hint says what to do about it.
func (e *OpenError) Hint() string {
	return fmt.Sprintf("if only you use this device, `chmod %s %s`; if not, take the key for known: then also `govah key next`", e.want, e.Path)
}

// DefaultScope is the scope of who names none.
const DefaultScope = "default"

const (
	lockName  = "lock"
	keyEnding = ".key"
	useEnding = ".use"
	lockTime  = 10 * time.Second
)

// Dir is where the store is: below the folder for data of the XDG base
// directory specification, and not below that for settings, which people copy
// from one device to the next, and publish.
func Dir() (string, error) {
	base := os.Getenv("XDG_DATA_HOME")
	var err error
	switch {
	case filepath.IsAbs(base):
	case runtime.GOOS == "windows":
		base, err = os.UserCacheDir() // local: the other one roams
	case runtime.GOOS == "darwin" || runtime.GOOS == "ios":
		base, err = os.UserConfigDir()
	default:
		if base, err = os.UserHomeDir(); err == nil {
			base = filepath.Join(base, ".local", "share")
		}
	}
	if err != nil {
		return "", fmt.Errorf("finding the folder for keys: %w", err)
	}
	return filepath.Join(base, "govah", "keys"), nil
}

// Store is a folder of keys.
type Store struct {
	disk func(make bool) (disk, error)
	now  func() time.Time
	cost int // of a passphrase: scrypt's N is 2 to that
	wait time.Duration
}

// passphraseCost makes scrypt take 128 MiB and about half a second: as much as
// a cheap phone has to spare.
const passphraseCost = 17

// Open prepares to use the keys in a folder, which is made when the first key
// is. now is the clock; nil means time.Now.
func Open(dir string, now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	return &Store{
		disk: func(make bool) (disk, error) {
			f, err := openFolder(dir, make)
			if err != nil { // not a nil *folder in a disk
				return nil, err
			}
			return f, nil
		},
		now: now, cost: passphraseCost, wait: lockTime,
	}
}

// CheckScope says what is wrong with the name of a scope.
func CheckScope(name string) error {
	if name == "" || len(name) > 64 || !utf8.ValidString(name) || strings.TrimSpace(name) != name || strings.IndexFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
		return errors.New("the name of a scope is up to 64 bytes of visible text")
	}
	return nil
}

// fileOf is the beginning of the names of a scope's files: a hash, so that a
// list of the folder does not tell the scopes' names to who does not guess them.
func fileOf(scope string) string {
	sum := sha256.Sum256([]byte("govah scope\x00" + scope))
	return hex.EncodeToString(sum[:10])
}

// keyFile is the name of the file of an epoch. Digits are padded, so that a
// sorted list is in the order of epochs.
func keyFile(id string, epoch int) string { return fmt.Sprintf("%s.%08d%s", id, epoch, keyEnding) }

// parseKeyFile is the reverse of it.
func parseKeyFile(name string) (id string, epoch int, ok bool) {
	rest, ok := strings.CutSuffix(name, keyEnding)
	id, digits, found := strings.Cut(rest, ".")
	n, err := strconv.Atoi(digits)
	return id, n, ok && found && err == nil && n > 0 && keyFile(id, n) == name && isID(id)
}

func isID(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == 10 && strings.ToLower(s) == s
}

// held is the store while no other process uses it.
type held struct {
	*Store
	d    disk
	lock io.Closer
	keys map[string]int // the current epoch of each id
}

func (h *held) close() { h.lock.Close() }

// hold takes the lock, and ends what a crash interrupted: files that were
// being written, and those of epochs that have ended, are erased.
func (s *Store) hold(create bool) (*held, error) {
	d, err := s.disk(create)
	if err != nil {
		return nil, err
	}
	lock, err := s.lock(d)
	if err != nil {
		return nil, err
	}
	h := &held{Store: s, d: d, lock: lock, keys: map[string]int{}}
	if err := h.recover(); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// lock waits for other processes, for a while.
func (s *Store) lock(d disk) (io.Closer, error) {
	end := time.Now().Add(s.wait)
	lock, err := d.lock(func() bool {
		time.Sleep(20 * time.Millisecond)
		return time.Now().Before(end)
	})
	if err != nil {
		return nil, fmt.Errorf("locking the keys: %w", err)
	}
	return lock, nil
}

func (h *held) recover() error {
	names, err := h.d.list()
	if err != nil {
		return fmt.Errorf("reading the folder of keys: %w", err)
	}
	slices.Sort(names)
	var old []string
	for _, name := range names {
		if rest, ok := strings.CutSuffix(name, halfWritten); ok && isID(rest[:min(len(rest), 20)]) {
			if err := erase(h.d, name); err != nil {
				return fmt.Errorf("erasing what a crash left of a key: %w", err)
			}
			continue
		}
		if id, epoch, ok := parseKeyFile(name); ok {
			if last := h.keys[id]; last > 0 {
				old = append(old, keyFile(id, last))
			}
			h.keys[id] = epoch
		}
	}
	if len(h.keys) == 0 {
		return nil
	}
	// The names may not be on the disk yet, if what wrote them failed just
	// then; and what is read here is relied on.
	if err := h.d.sync(); err != nil {
		return fmt.Errorf("the folder of keys: %w", err)
	}
	for _, name := range old {
		id, _, _ := parseKeyFile(name)
		data, err := h.d.read(keyFile(id, h.keys[id]))
		if err != nil {
			return err
		}
		if !looksWhole(data) {
			return fmt.Errorf("%s: %w", keyFile(id, h.keys[id]), ErrDamaged)
		}
		if err := erase(h.d, name); err != nil {
			return fmt.Errorf("erasing the key of an epoch that has ended: %w", err)
		}
	}
	for id, epoch := range h.keys {
		if err := h.unlink(id, epoch); err != nil {
			return fmt.Errorf("erasing what happened in an epoch that has ended: %w", err)
		}
	}
	return nil
}

// unlink erases what happened in epochs before this one. What cannot be read
// may be of one of them, half erased: it stays as zeroes, which say as little.
func (h *held) unlink(id string, epoch int) error {
	name := id + useEnding
	data, err := h.d.read(name)
	if err != nil {
		return nil // who needs it says what is wrong
	}
	var u use
	switch {
	case json.Unmarshal(data, &u) != nil:
		if len(bytes.Trim(data, "\x00")) == 0 {
			return nil
		}
		out, size, err := h.d.open(name)
		if err != nil {
			return err
		}
		return scrub(out, size)
	case u.Epoch < epoch:
		return erase(h.d, name)
	}
	return nil
}

// Forget erases the keys of a scope, or of all if it is "", and returns how
// many files those were. A scope that is not there is ErrNoKey.
func (s *Store) Forget(scope string) (int, error) {
	names, err := s.Files(scope)
	if err != nil || len(names) == 0 {
		return 0, err
	}
	d, err := s.disk(false)
	if err != nil {
		return 0, err
	}
	lock, err := s.lock(d)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	for i, name := range names {
		if err := erase(d, name); err != nil {
			return i, fmt.Errorf("erasing %s: %w", name, err)
		}
	}
	return len(names), nil
}

// Files are the names of the files of a scope, or of all, without the lock's.
// They can be listed also if they cannot be read.
func (s *Store) Files(scope string) ([]string, error) {
	d, err := s.disk(false)
	if errors.Is(err, fs.ErrNotExist) {
		if scope != "" {
			return nil, ErrNoKey
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := d.list()
	if err != nil {
		return nil, fmt.Errorf("reading the folder of keys: %w", err)
	}
	var names []string
	for _, name := range all {
		ours := len(name) > 20 && isID(name[:20]) && name[20] == '.'
		if ours && (scope == "" || name[:20] == fileOf(scope)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if scope != "" && len(names) == 0 {
		return nil, ErrNoKey
	}
	return names, nil
}
