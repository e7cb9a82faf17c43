package keyring

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// KeyName is the name of every key in signed notes (C2SP signed-note): it tells
// nobody from anybody.
const KeyName = "govah.invalid/key"

// What ends an epoch, unless the owner says otherwise.
const (
	DefaultUses = 100
	DefaultDays = 30

	maxUses = 1_000_000
	maxDays = 3650

	// clockSlack is how far the clock may go back without being set back.
	clockSlack = time.Hour
)

// state is the file of an epoch: written once, never changed, erased with it.
type state struct {
	Type   string `json:"type"` // "govah-key"
	Schema int    `json:"schema"`
	Scope  string `json:"scope"`
	Epoch  int    `json:"epoch"`
	Seed   []byte `json:"seed"`
	// Key is the verifier key, which the seed must lead to: else the file is
	// damaged in a way that still can be read.
	Key    string `json:"key"`
	BeganS int64  `json:"began_s"`
	Uses   int    `json:"uses"` // and Days: what ends the epoch
	Days   int    `json:"days"`
	// Link is the rotation note that links this key to the one before, if
	// the owner wanted one.
	Link string `json:"link,omitempty"`
}

// use is what happened in an epoch. It holds no secret, and is there without a
// passphrase.
type use struct {
	Type   string `json:"type"` // "govah-key-use"
	Schema int    `json:"schema"`
	Epoch  int    `json:"epoch"`
	Count  int    `json:"count"`  // of seals begun
	SeenS  int64  `json:"seen_s"` // the latest the clock has been
	// Last is the entry of the last bundle, to which the next one's chain
	// leads. It goes when the epoch ends: it shows who sealed that bundle.
	Last []byte `json:"last,omitempty"`
}

const (
	labelSign = "govah key v1 sign"
	labelNext = "govah key v1 next"
)

// derive is HKDF-SHA256 (RFC 5869) without a salt, 32 bytes.
func derive(secret []byte, label string) []byte {
	out, err := hkdf.Key(sha256.New, secret, nil, label, 32)
	if err != nil { // only for lengths that this is not
		panic(err)
	}
	return out
}

func signingKey(seed []byte) ed25519.PrivateKey {
	s := derive(seed, labelSign)
	defer clear(s)
	return ed25519.NewKeyFromSeed(s)
}

func verifierKey(key ed25519.PrivateKey) string {
	text, err := note.NewEd25519VerifierKey(KeyName, key.Public().(ed25519.PublicKey))
	if err != nil {
		panic(err)
	}
	return text
}

// Question is what a passphrase is asked for.
type Question struct {
	Scope string
	New   bool // one is chosen, and not checked
}

// Ask gets a passphrase.
type Ask func(Question) ([]byte, error)

func (a Ask) ask(q Question) ([]byte, error) {
	if a == nil {
		return nil, errors.New("a passphrase is needed, and nobody is asked")
	}
	return a(q)
}

// Why an epoch began.
const (
	BeganFirst   = "first"   // the scope had no key
	BeganUses    = "uses"    // the one before had sealed as often as it may
	BeganDays    = "days"    // or for as long
	BeganClock   = "clock"   // the clock was set back, so that its age is not known
	BeganDamaged = "damaged" // its count cannot be read
	BeganAsked   = "asked"   // the owner wanted it
)

// Key is the key of a scope's current epoch, and holds the store until it is
// closed.
type Key struct {
	// Began says why the epoch has just begun, "" if it has not.
	Began string

	h          *held
	id         string
	state      state
	use        use
	key        ed25519.PrivateKey
	passphrase []byte // nil: not protected
}

// Close lets others use the store, and wipes the key from memory as far as
// this program can.
func (k *Key) Close() error {
	clear(k.key)
	clear(k.state.Seed)
	clear(k.passphrase)
	return k.h.lock.Close()
}

// Signer signs notes with the key until it is closed.
func (k *Key) Signer() note.Signer { return signer{k.key, k.state.Key} }

// Verifier is the verifier key: KeyName, hash, and the public key.
func (k *Key) Verifier() string { return k.state.Key }

// Epoch counts from 1.
func (k *Key) Epoch() int { return k.state.Epoch }

// Previous is the root of the last bundle that this key sealed, nil if none.
func (k *Key) Previous() []byte { return bytes.Clone(k.use.Last) }

// Done notes the root of a bundle that has been sealed and is on the disk.
func (k *Key) Done(root []byte) error {
	k.use.Last = bytes.Clone(root)
	return k.write()
}

// Link is the rotation note that links this key to the one before; "" if they
// are not linked.
func (k *Key) Link() string { return k.state.Link }

// signer is a note.Signer.
type signer struct {
	key  ed25519.PrivateKey
	text string
}

func (s signer) Name() string { return KeyName }

func (s signer) KeyHash() uint32 {
	v, err := note.NewVerifier(s.text)
	if err != nil {
		panic(err)
	}
	return v.KeyHash()
}

func (s signer) Sign(message []byte) ([]byte, error) {
	if bytes.Equal(s.key, make([]byte, len(s.key))) {
		return nil, errors.New("the key has been closed")
	}
	return ed25519.Sign(s.key, message), nil
}

// Use gives the key of a scope to seal once with. It makes the scope's first
// key, ends an epoch that is over, and counts the use before anything can be
// signed. The key is to be closed.
func (s *Store) Use(scope string, ask Ask) (*Key, error) {
	k, err := s.open(scope, ask, &Rotation{})
	if err != nil {
		return nil, err
	}
	if k.Began == "" {
		if why := k.over(); why != "" {
			if err := k.ratchet(why, Rotation{}); err != nil {
				k.Close()
				return nil, err
			}
		}
	}
	k.use.Count++
	if err := k.write(); err != nil {
		k.Close()
		return nil, fmt.Errorf("counting the use of the key: %w", err)
	}
	return k, nil
}

// Get gives the key of a scope as it is, to export it. The key is to be closed.
func (s *Store) Get(scope string, ask Ask) (*Key, error) { return s.open(scope, ask, nil) }

// open gives the key of a scope; first says how to make one where there is
// none, nil that none is made.
func (s *Store) open(scope string, ask Ask, first *Rotation) (*Key, error) {
	if err := CheckScope(scope); err != nil {
		return nil, err
	}
	h, err := s.hold(first != nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoKey
	}
	if err != nil {
		return nil, err
	}
	k := &Key{h: h, id: fileOf(scope)}
	epoch := h.keys[k.id]
	if epoch == 0 {
		if first == nil {
			h.close()
			return nil, ErrNoKey
		}
		seed := make([]byte, 32)
		rand.Read(seed)
		st := state{Scope: scope, Epoch: 1, Seed: seed, Uses: DefaultUses, Days: DefaultDays}
		if err = k.settle(&st, *first); err == nil {
			err = k.begin(BeganFirst, st)
		}
	} else {
		err = k.load(scope, epoch, ask)
	}
	if err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

// load reads the file of an epoch.
func (k *Key) load(scope string, epoch int, ask Ask) error {
	name := keyFile(k.id, epoch)
	data, err := k.h.d.read(name)
	if err != nil {
		return err
	}
	if isEncrypted(data) {
		if k.passphrase, err = ask.ask(Question{Scope: scope}); err != nil {
			return err
		}
		if data, err = openWithPassphrase(data, k.passphrase); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	defer clear(data)
	if k.state, err = parseState(data); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if k.state.Scope != scope || k.state.Epoch != epoch {
		return fmt.Errorf("%s is of another scope or epoch: %w", name, ErrDamaged)
	}
	k.key = signingKey(k.state.Seed)
	k.use, err = k.readUse()
	return err
}

// readUse reads what happened in the epoch; Count is -1 if that is damaged.
func (k *Key) readUse() (use, error) {
	fresh := use{Type: "govah-key-use", Schema: 1, Epoch: k.state.Epoch}
	data, err := k.h.d.read(k.id + useEnding)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return fresh, err
	}
	var u use
	if json.Unmarshal(data, &u) != nil || u.Type != fresh.Type || u.Schema < 1 || u.Count < 0 || len(u.Last) > 64 {
		fresh.Count = -1
		return fresh, nil
	}
	if u.Epoch != k.state.Epoch { // the epoch had just begun when the power went
		return fresh, nil
	}
	return u, nil
}

// write brings what happened to the disk.
func (k *Key) write() error {
	k.use.SeenS = max(k.use.SeenS, k.h.now().Unix())
	data, err := json.Marshal(k.use)
	if err != nil {
		return err
	}
	return write(k.h.d, k.id+useEnding, append(data, '\n'))
}

// over says why the epoch has ended, "" if it has not.
func (k *Key) over() string {
	now := k.h.now().Unix()
	seen := max(k.use.SeenS, k.state.BeganS)
	switch {
	case k.use.Count < 0:
		return BeganDamaged
	case now < seen-int64(clockSlack/time.Second):
		return BeganClock
	case k.use.Count >= k.state.Uses:
		return BeganUses
	case max(now, seen)-k.state.BeganS >= int64(k.state.Days)*86400:
		return BeganDays
	}
	return ""
}

// Rotation is how an epoch is ended by hand.
type Rotation struct {
	// Link makes a note, signed by both keys, that says that the new key is
	// of who had the old one. It cannot be taken back.
	Link bool
	// Uses and Days end the epochs from now on; 0 leaves them as they are.
	Uses, Days int
	// Protect asks for a new passphrase, Unprotect does without one.
	Protect, Unprotect bool
	// AskNew gets the new passphrase.
	AskNew Ask
	// Revocation, if not nil, is given the old key's revocation note, on
	// whose return without an error the old key is erased.
	Revocation func(note []byte) error
}

// Next ends the epoch of a scope now and gives the key of the next; the first
// where there is none. The key is to be closed.
func (s *Store) Next(scope string, ask Ask, r Rotation) (*Key, error) {
	if r.Uses < 0 || r.Uses > maxUses || r.Days < 0 || r.Days > maxDays {
		return nil, fmt.Errorf("an epoch lasts for 1 to %d seals and 1 to %d days", maxUses, maxDays)
	}
	first := &r
	if r.Revocation != nil || r.Link {
		first = nil // there must be an old key
	}
	k, err := s.open(scope, ask, first)
	if err != nil || k.Began == BeganFirst {
		return k, err
	}
	if r.Revocation != nil {
		text, err := k.Revocation()
		if err == nil {
			err = r.Revocation(text)
		}
		if err != nil {
			k.Close()
			return nil, err
		}
	}
	if err := k.ratchet(BeganAsked, r); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

// ratchet ends the epoch. The next seed comes from this one and from chance
// alike: who had a copy of this one does not know the next.
func (k *Key) ratchet(why string, r Rotation) error {
	old := k.state
	fresh := make([]byte, 32)
	rand.Read(fresh)
	both := append(bytes.Clone(old.Seed), fresh...)
	defer clear(both)
	next := old
	next.Epoch, next.Link, next.Seed = old.Epoch+1, "", derive(both, labelNext)
	if err := k.settle(&next, r); err != nil {
		return err
	}
	if r.Link {
		text, err := rotationNote(signer{k.key, old.Key}, signingKey(next.Seed))
		if err != nil {
			return err
		}
		next.Link = string(text)
	}
	if err := k.begin(why, next); err != nil {
		return err
	}
	clear(old.Seed)
	if err := erase(k.h.d, keyFile(k.id, old.Epoch)); err != nil {
		return fmt.Errorf("erasing the key of the epoch that has ended: %w", err)
	}
	// Its last bundle would be known by it for the owner's.
	if err := erase(k.h.d, k.id+useEnding); err != nil {
		return fmt.Errorf("erasing what happened in the epoch that has ended: %w", err)
	}
	return nil
}

// settle takes over what the owner wants of the next epochs.
func (k *Key) settle(s *state, r Rotation) error {
	if r.Uses > 0 {
		s.Uses = r.Uses
	}
	if r.Days > 0 {
		s.Days = r.Days
	}
	switch {
	case r.Protect:
		chosen, err := chosen(r.AskNew, s.Scope)
		if err != nil {
			return err
		}
		k.passphrase = chosen
	case r.Unprotect:
		k.passphrase = nil
	}
	return nil
}

// chosen asks for a new passphrase.
func chosen(ask Ask, scope string) ([]byte, error) {
	p, err := ask.ask(Question{Scope: scope, New: true})
	if err != nil {
		return nil, err
	}
	if len(p) == 0 || len(p) > maxPassphrase {
		return nil, fmt.Errorf("a passphrase has 1 to %d bytes", maxPassphrase)
	}
	return p, nil
}

// begin writes the file of a new epoch, from which moment on it is the current
// one.
func (k *Key) begin(why string, s state) error {
	key := signingKey(s.Seed)
	s.Type, s.Schema, s.Key, s.BeganS = "govah-key", 1, verifierKey(key), k.h.now().Unix()
	if err := k.put(s); err != nil {
		return err
	}
	k.Began, k.state, k.key = why, s, key
	k.use = use{Type: "govah-key-use", Schema: 1, Epoch: s.Epoch}
	return nil
}

// put writes the file of an epoch.
func (k *Key) put(s state) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	defer clear(data)
	if k.passphrase != nil {
		if data, err = protect(data, k.passphrase, k.h.cost); err != nil {
			return err
		}
	}
	if err := write(k.h.d, keyFile(k.id, s.Epoch), data); err != nil {
		return fmt.Errorf("writing the key: %w", err)
	}
	return nil
}

// parseState reads the file of an epoch, decrypted.
func parseState(data []byte) (state, error) {
	var s state
	if len(data) > maxFile || json.Unmarshal(data, &s) != nil {
		return state{}, ErrDamaged
	}
	switch {
	case s.Type != "govah-key":
		return state{}, fmt.Errorf("it is no key of govah: %w", ErrDamaged)
	case s.Schema != 1:
		return state{}, errors.New("it was written by a newer govah")
	case len(s.Seed) != 32 || s.Epoch < 1 || s.Uses < 1 || s.Uses > maxUses || s.Days < 1 || s.Days > maxDays || CheckScope(s.Scope) != nil:
		return state{}, ErrDamaged
	}
	key := signingKey(s.Seed)
	defer clear(key)
	if verifierKey(key) != s.Key {
		return state{}, ErrDamaged
	}
	return s, nil
}

// looksWhole says that a file is an epoch's, as far as can be told without a
// passphrase.
func looksWhole(data []byte) bool {
	if isEncrypted(data) {
		return true
	}
	s, err := parseState(data)
	clear(s.Seed)
	return err == nil
}

// Info is what is known of a scope without its passphrase.
type Info struct {
	Scope     string // "" if that is under the passphrase
	File      string // of the current epoch
	Epoch     int
	Key       string // verifier key; "" as Scope
	Began     time.Time
	Uses      int // so far; -1 unknown
	MaxUses   int
	MaxDays   int
	Linked    bool
	Protected bool
	Err       error // the file cannot be used, and why
}

// List tells of every scope, in the order of their files.
func (s *Store) List() ([]Info, error) {
	h, err := s.hold(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer h.close()
	var list []Info
	names, err := h.d.list()
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		id, epoch, ok := parseKeyFile(name)
		if !ok {
			continue
		}
		i := Info{File: name, Epoch: epoch}
		data, err := h.d.read(name)
		var st state
		switch {
		case err != nil:
			i.Err = err
		case isEncrypted(data):
			i.Protected = true
		default:
			st, i.Err = parseState(data)
			clear(data)
			clear(st.Seed)
		}
		if st.Scope != "" {
			i.Scope, i.Key, i.Began, i.MaxUses, i.MaxDays, i.Linked = st.Scope, st.Key, time.Unix(st.BeganS, 0), st.Uses, st.Days, st.Link != ""
			if fileOf(st.Scope) != id {
				i.Err = fmt.Errorf("it is of another scope: %w", ErrDamaged)
			}
		}
		k := &Key{h: h, id: id, state: state{Epoch: epoch}}
		if u, err := k.readUse(); err == nil {
			i.Uses = u.Count
		}
		list = append(list, i)
	}
	return list, nil
}
