package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"govah/evidence/receipt"
	"govah/measure"
	"govah/record"
)

// Check is what a bundle is to be held to besides itself.
type Check struct {
	Key string // the verifier key that must have signed, "" any
	// LogProof verifies that a log that is believed holds an entry, and tells
	// by when it did; nil: nobody says which logs and witnesses to believe.
	LogProof func(proof []byte, entry Hash) (Moment, error)
	// Checkpoint verifies a checkpoint of such a log, and tells since when it
	// can have been known.
	Checkpoint func(text []byte) (Moment, error)
}

// Moment is a time that others vouch for.
type Moment struct {
	Time      string   `json:"time"` // RFC 3339; "" if none of them says one
	Log       string   `json:"log"`
	Size      int64    `json:"size"` // of the log's tree
	Index     *int64   `json:"index,omitempty"`
	Witnesses []string `json:"witnesses,omitempty"`
}

// State says what became of a proof that a bundle can have.
type State string

// The states.
const (
	Absent    State = "none"
	Gone      State = "withheld"
	Unchecked State = "unchecked" // nobody said whom to believe
	Verified  State = "verified"
	Refused   State = "refused" // not signed by whom is to be believed; of a checkpoint
	// Contradicted are a checkpoint and a log's proof that are both signed by
	// whom is to be believed, and cannot both be true.
	Contradicted State = "contradicted"
)

// Account is what a bundle that verifies proves, and what it does not.
type Account struct {
	Type   string `json:"type"` // "account"
	Schema int    `json:"schema"`
	Key    string `json:"key"`
	// Expected: it is the key that was asked for.
	Expected bool           `json:"expected"`
	Entry    string         `json:"entry"` // hex, as are the next two
	Root     string         `json:"root"`
	Previous string         `json:"previous,omitempty"`
	Classes  []ClassAccount `json:"classes"`
	Files    []FileAccount  `json:"files"`
	// Checkpoint and LogProof bound the time; NotBefore and NotAfter are set
	// where they are Verified and say one.
	Checkpoint State   `json:"checkpoint"`
	NotBefore  *Moment `json:"not_before,omitempty"`
	LogProof   State   `json:"log_proof"`
	NotAfter   *Moment `json:"not_after,omitempty"`
	// Tokens are time stamp tokens (RFC 3161), which this version does not check.
	Tokens []string `json:"tokens,omitempty"`
	// Receipts are what helpers signed of the measurements. Signed with another
	// key or for other words, or not in full any more, are Refused; Unsigned are
	// observations that are said to be a helper's, and that none has signed.
	Receipts []ReceiptAccount `json:"receipts,omitempty"`
	Refused  int              `json:"receipts_refused,omitempty"`
	Unsigned int              `json:"unsigned,omitempty"`
	// Unread are measurements that this version cannot read, so that it cannot
	// say what of them is signed.
	Unread int `json:"unread,omitempty"`
	// Stated and Custody are what the key's holder says; what is withheld of
	// them is "withheld".
	Stated  *About  `json:"stated,omitempty"`
	Custody []Event `json:"custody,omitempty"`
	// NotProved are the things that this bundle does not prove.
	NotProved []Unproved `json:"not_proved"`
}

// ClassAccount counts the leaves of a class.
type ClassAccount struct {
	Class    string `json:"class"`
	Leaves   int    `json:"leaves"`
	Withheld int    `json:"withheld"`
}

// FileAccount is a file of the bundle.
type FileAccount struct {
	Name  string   `json:"name"`
	Kind  FileKind `json:"kind"`
	Bytes int      `json:"bytes"`
	Whole bool     `json:"whole"` // nothing in it is withheld
}

// ReceiptAccount sums up the receipts of one helper's key.
type ReceiptAccount struct {
	Key      string `json:"key"`    // the helper's public key, ed25519 in hex
	Pinned   bool   `json:"pinned"` // it stands in the helper's URL, each time
	Receipts int    `json:"receipts"`
	Covers   int    `json:"covers"` // observations
	From     string `json:"from"`   // RFC 3339, by the helper's clock
	To       string `json:"to"`
}

// Unproved is a thing that is not proved.
type Unproved string

// What is not proved.
const (
	NotTruth     Unproved = "truth"     // that what is stated happened: the key's holder could have made it up
	NotPerson    Unproved = "person"    // who held the key
	NotClock     Unproved = "clock"     // the times in it are the device's clock
	NotEarliest  Unproved = "earliest"  // no moment before which it was not made
	NotLatest    Unproved = "latest"    // no moment by which it existed
	NotWitnesses Unproved = "witnesses" // what witnesses say of when: they contradict each other
	NotAll       Unproved = "all"       // that nothing was measured besides
	NotWithheld  Unproved = "withheld"  // what the withheld leaves say
	NotTokens    Unproved = "tokens"    // attached time stamp tokens were not checked
	NotReceipts  Unproved = "receipts"  // what refused receipts say
	NotHelpers   Unproved = "helpers"   // what is said to be a helper's and is unsigned
	NotUnread    Unproved = "unread"    // what is in measurements that cannot be read
)

// UnmetError says that a bundle is as it was signed, and not what was asked
// for: another key, no proof, or one that does not satisfy.
type UnmetError struct{ Err error }

func (e *UnmetError) Error() string { return e.Err.Error() }
func (e *UnmetError) Unwrap() error { return e.Err }

var errNoProof = errors.New("it has no proof that a log holds it")

// Verify opens a bundle, holds it to what is asked for, and gives the account.
// Any error says that it does not verify.
func Verify(data []byte, c Check) (*Account, error) {
	r := rooms.Get().(*room)
	defer func() {
		if cap(r.entries) < 1<<16 { // what one large bundle needed is not kept
			clear(r.values) // which point into data
			rooms.Put(r)
		}
	}()
	b, err := open(data, r)
	if err != nil {
		return nil, err
	}
	return b.Account(c)
}

var rooms = sync.Pool{New: func() any { return new(room) }}

// Account holds an opened bundle to what is asked for.
func (b *Bundle) Account(c Check) (*Account, error) {
	a := &Account{Type: "account", Schema: 1, Key: b.Key, Entry: hex.EncodeToString(b.Entry[:]), Root: hex.EncodeToString(b.Root[:]),
		Checkpoint: Absent, LogProof: Absent, NotProved: []Unproved{NotTruth, NotPerson}}
	if c.Key != "" {
		if c.Key != b.Key {
			return nil, &UnmetError{fmt.Errorf("it is signed by another key than the one that was asked for: %s", b.Key)}
		}
		a.Expected = true
	}
	if b.Previous != nil {
		a.Previous = hex.EncodeToString(b.Previous[:])
	}
	withheld := b.Withheld()
	for _, k := range Classes() {
		if b.Counts[k] > 0 {
			a.Classes = append(a.Classes, ClassAccount{k.String(), int(b.Counts[k]), int(withheld[k])})
		}
	}
	open := make([]uint64, len(b.Files)) // leaves of a file, or bytes
	for i := range b.entries {
		if e := &b.entries[i]; e.Open && b.Files[e.File].Kind == Binary {
			open[e.File] += uint64(e.Length)
		} else if e.Open {
			open[e.File]++
		}
	}
	for i, f := range b.Files {
		a.Files = append(a.Files, FileAccount{f.Name, f.Kind, len(f.Data), open[i] == uint64(f.Size)})
	}
	if err := b.times(a, c); err != nil {
		return nil, err
	}
	b.stated(a)
	b.receipts(a)
	if withheld != (Counts{}) {
		a.NotProved = append(a.NotProved, NotWithheld)
	}
	a.NotProved = append(a.NotProved, NotAll)
	return a, nil
}

// times bounds the time of the bundle.
func (b *Bundle) times(a *Account, c Check) error {
	if f := b.File(CheckpointName); f != nil {
		switch {
		case len(f.Data) == 0:
			a.Checkpoint = Gone
		case c.Checkpoint == nil:
			a.Checkpoint = Unchecked
		default:
			// One that is not believed bounds nothing and refuses nothing: who
			// sealed may have had it from anybody, and it cannot be taken out.
			if m, err := c.Checkpoint(f.Data); err != nil {
				a.Checkpoint = Refused
			} else {
				a.Checkpoint, a.NotBefore = Verified, &m
			}
		}
	}
	proof := b.Proofs[LogProof]
	switch {
	case c.LogProof == nil && proof != nil:
		a.LogProof = Unchecked
	case c.LogProof != nil && proof == nil:
		return &UnmetError{errNoProof}
	case proof != nil:
		m, err := c.LogProof(proof, b.Entry)
		if err != nil {
			return &UnmetError{fmt.Errorf("the log's proof: %w", err)}
		}
		a.LogProof, a.NotAfter = Verified, &m
	}
	contradicted := a.NotBefore != nil && a.NotAfter != nil && contradict(a.NotBefore, a.NotAfter)
	if contradicted { // who is wrong does not show, so neither is relied on
		a.Checkpoint, a.NotBefore = Contradicted, nil
		a.LogProof, a.NotAfter = Contradicted, nil
	}
	for name := range b.Proofs {
		if strings.HasSuffix(name, tokenSuffix) {
			a.Tokens = append(a.Tokens, name)
		}
	}
	slices.Sort(a.Tokens)
	if a.NotBefore == nil || a.NotBefore.Time == "" {
		a.NotProved = append(a.NotProved, NotEarliest)
	}
	if a.NotAfter == nil || a.NotAfter.Time == "" {
		a.NotProved = append(a.NotProved, NotLatest)
	}
	if contradicted {
		a.NotProved = append(a.NotProved, NotWitnesses)
	}
	a.NotProved = append(a.NotProved, NotClock)
	if len(a.Tokens) > 0 {
		a.NotProved = append(a.NotProved, NotTokens)
	}
	return nil
}

// contradict says whether nothing can have been made after one moment and been
// there by the other: the times are in the wrong order (or one is no time that
// can be written), or the same log had it in the tree of the checkpoint in it.
func contradict(before, after *Moment) bool {
	if before.Log == after.Log && after.Index != nil && *after.Index < before.Size {
		return true
	}
	if before.Time == "" || after.Time == "" {
		return false
	}
	from, err := time.Parse(time.RFC3339, before.Time)
	to, err2 := time.Parse(time.RFC3339, after.Time)
	return err != nil || err2 != nil || from.After(to)
}

// stated reads what the key's holder says of the bundle, as far as this
// version understands it.
func (b *Bundle) stated(a *Account) {
	if f := b.File(AboutName); f != nil {
		var about About
		if json.Unmarshal(f.Data, &about) == nil && about.Type == "about" {
			a.Stated = &about
		}
	}
	if f := b.File(CustodyName); f != nil {
		for l := range bytes.Lines(f.Data) {
			var e Event
			if json.Unmarshal(l, &e) == nil && e.Type == "custody" && len(a.Custody) < 1000 {
				a.Custody = append(a.Custody, e)
			}
		}
	}
}

// maxReceipts is how many are checked, so that a file cannot keep a reader
// busy. What the others are about counts as unsigned.
const maxReceipts = 10_000

// receipts checks what helpers signed of the measurements.
func (b *Bundle) receipts(a *Account) {
	f := b.File(MeasurementsName)
	if f == nil {
		return
	}
	byKey := map[string]*ReceiptAccount{}
	left := maxReceipts
	for l := range bytes.Lines(f.Data) {
		if record.Sniff(l) != record.KindMeasurement {
			continue
		}
		e, err := record.Decode(bytes.TrimSpace(l))
		if err != nil || e.Measurement == nil {
			a.Unread++
			continue
		}
		signed := map[string]bool{}
		for _, r := range receipt.Check(e.Measurement.Observations, left) {
			left--
			switch {
			case errors.Is(r.Err, receipt.ErrWithheld):
				continue // what it covers counts as unsigned
			case r.Err != nil || len(r.Missing) > 0:
				a.Refused++
			}
			if r.Err != nil {
				continue
			}
			k := byKey[r.Key]
			if k == nil {
				k = &ReceiptAccount{Key: r.Key, Pinned: true}
				byKey[r.Key] = k
			}
			k.Receipts++
			k.Pinned = k.Pinned && r.Pinned
			k.Covers += len(r.Covers)
			at := r.Time.UTC().Format(time.RFC3339)
			if k.From == "" || at < k.From {
				k.From = at
			}
			k.To = max(k.To, at)
			for _, id := range r.Covers {
				signed[id] = true
			}
		}
		for _, o := range e.Measurement.Observations {
			if o.Role == measure.RoleHelper && o.Step != measure.StepHelper && !signed[o.ID] {
				a.Unsigned++
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		a.Receipts = append(a.Receipts, *byKey[key])
	}
	if a.Refused > 0 {
		a.NotProved = append(a.NotProved, NotReceipts)
	}
	if a.Unsigned > 0 {
		a.NotProved = append(a.NotProved, NotHelpers)
	}
	if a.Unread > 0 {
		a.NotProved = append(a.NotProved, NotUnread)
	}
}

// Fingerprint is what people compare of a verifier key: the first half of SHA-256 of the public
// key with its algorithm, in groups of four.
func Fingerprint(key string) string {
	parts := strings.SplitN(key, "+", 3)
	raw, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil {
		return ""
	}
	h := sha256.Sum256(raw)
	var b strings.Builder
	for i, c := range h[:16] {
		if i > 0 && i%2 == 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%02x", c)
	}
	return b.String()
}
