// Package receipt is what a test helper signs of its reply, so that a
// measurement cannot be said to hold what a helper saw without that helper
// (docs/formats/helper-v1.md, "Receipts"): made by package helper, checked by
// package wire as the reply comes, and by whoever reads the measurement later.
package receipt

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"govah/measure"
)

// KeyName is the name of every helper's key in signed notes: which helper it
// is, the key says.
const KeyName = "govah.invalid/helper"

const (
	origin = "govah.invalid/receipt/v1"

	// MinNonce is the least length of a nonce, in bytes: it keeps what is
	// hashed from being guessed.
	MinNonce = 16

	maxNote = 32 << 10 // bytes
	maxSeen = 256      // observations
)

// Key signs receipts.
type Key struct {
	signer note.Signer
	public ed25519.PublicKey
}

// NewKey makes a key. text is to be kept secret; ReadKey reads it.
func NewKey() (k *Key, text string, err error) {
	text, _, err = note.GenerateKey(rand.Reader, KeyName)
	if err != nil {
		return nil, "", fmt.Errorf("making a key for receipts: %w", err)
	}
	k, err = ReadKey(text)
	return k, text, err
}

// ReadKey reads a key in the form of golang.org/x/mod/sumdb/note.
func ReadKey(text string) (*Key, error) {
	text = strings.TrimSpace(text)
	signer, err := note.NewSigner(text)
	if err != nil || signer.Name() != KeyName {
		return nil, errors.New("it is no key for receipts")
	}
	seed, err := seedOf(text)
	if err != nil {
		return nil, err
	}
	return &Key{signer, ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)}, nil
}

// seedOf takes the ed25519 seed out of a key of note's form:
// PRIVATE+KEY+name+hash+base64(algorithm, seed).
func seedOf(text string) ([]byte, error) {
	parts := strings.SplitN(text, "+", 5) // base64 may hold a plus
	if len(parts) != 5 {
		return nil, errors.New("it is no key for receipts")
	}
	raw, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(raw) != 33 || raw[0] != 1 {
		return nil, errors.New("it is no key for receipts")
	}
	return raw[1:], nil
}

// Public is the public key in 64 hexadecimal digits, as it stands in a helper's
// URL after "receipt=".
func (k *Key) Public() string { return hex.EncodeToString(k.public) }

// Sign makes the receipt of a reply: at what time, to a client in which AS (0
// unknown), to which request as it came, with which nonce in it, and what was
// observed. Nothing else of the client is in it.
func (k *Key) Sign(at time.Time, asn int, request []byte, nonce string, seen []measure.Observation) (string, error) {
	if len(nonce) < MinNonce {
		return "", errors.New("the nonce is too short for a receipt")
	}
	if len(seen) > maxSeen {
		return "", errors.New("too many observations for a receipt")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\ntime %s\n", origin, at.UTC().Format(time.RFC3339))
	if asn > 0 {
		fmt.Fprintf(&b, "client AS%d\n", asn)
	} else {
		b.WriteString("client unknown\n")
	}
	sum := sha256.Sum256(request)
	fmt.Fprintf(&b, "request %x\n", sum)
	for _, o := range seen {
		fmt.Fprintf(&b, "%s %s\n", o.ID, digest(nonce, o))
	}
	text, err := note.Sign(&note.Note{Text: b.String()}, k.signer)
	return string(text), err
}

// Receipt is one that is signed as it should be.
type Receipt struct {
	Time    time.Time
	ASN     int // of the client, as the helper saw it; 0 unknown
	request string
	seen    map[string]string
}

// Open reads a receipt and checks its signature by a public key in hex.
func Open(text, public string) (*Receipt, error) {
	if len(text) > maxNote {
		return nil, errors.New("the receipt is too long")
	}
	raw, err := hex.DecodeString(public)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, errors.New("the key of the receipt is not 64 hexadecimal digits")
	}
	vkey, err := note.NewEd25519VerifierKey(KeyName, raw)
	if err != nil {
		return nil, err
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	n, err := note.Open([]byte(text), note.VerifierList(v))
	if err != nil {
		return nil, errors.New("the receipt is not signed by the helper's key")
	}
	return parse(n.Text)
}

var errNoReceipt = errors.New("it is no receipt")

// parse reads the text of a receipt, which has one form only.
func parse(text string) (*Receipt, error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 4 || len(lines) > 4+maxSeen || lines[0] != origin {
		return nil, errNoReceipt
	}
	r := &Receipt{seen: map[string]string{}}
	at, ok := strings.CutPrefix(lines[1], "time ")
	t, err := time.Parse(time.RFC3339, at)
	if !ok || err != nil || t.UTC().Format(time.RFC3339) != at {
		return nil, errNoReceipt
	}
	r.Time = t
	if as, ok := strings.CutPrefix(lines[2], "client AS"); ok {
		n, err := strconv.ParseUint(as, 10, 32)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != as {
			return nil, errNoReceipt
		}
		r.ASN = int(n)
	} else if lines[2] != "client unknown" {
		return nil, errNoReceipt
	}
	if r.request, ok = strings.CutPrefix(lines[3], "request "); !ok || !isSum(r.request) {
		return nil, errNoReceipt
	}
	for _, line := range lines[4:] {
		id, sum, ok := strings.Cut(line, " ")
		number, h := strings.CutPrefix(id, "h")
		if _, twice := r.seen[id]; !ok || !h || twice || number == "" || len(number) > 6 || strings.Trim(number, "0123456789") != "" || !isSum(sum) {
			return nil, errNoReceipt
		}
		r.seen[id] = sum
	}
	return r, nil
}

func isSum(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// Answers says whether the receipt is for a request, byte for byte.
func (r *Receipt) Answers(request []byte) bool {
	sum := sha256.Sum256(request)
	return r.request == hex.EncodeToString(sum[:])
}

// Saw says whether the helper saw an observation, which has the helper's own
// ids. What depends on the reader is not looked at: times that count from the
// start of something, networks, roles.
func (r *Receipt) Saw(nonce string, o measure.Observation) bool {
	sum, ok := r.seen[o.ID]
	return ok && hmac.Equal([]byte(sum), []byte(digest(nonce, o)))
}

// Seen is of how many observations it is.
func (r *Receipt) Seen() int { return len(r.seen) }

// digest is the keyed hash of what of an observation a receipt is about.
func digest(nonce string, o measure.Observation) string {
	mac := hmac.New(sha256.New, []byte(nonce))
	mac.Write(canonical(o))
	return hex.EncodeToString(mac.Sum(nil))
}

// Result is what became of one receipt in a measurement.
type Result struct {
	Key    string // public, in hex
	Pinned bool   // that URL holds the key
	// Time and ASN are as the helper signed them, where Err is nil.
	Time time.Time
	ASN  int
	// Covers are the ids of the observations of this helper that it signed as
	// they stand here; Withheld those of which something was taken out, so that
	// nobody can say; Missing the others that it is said to have signed.
	Covers, Withheld, Missing []string
	// Err is ErrWithheld where what is needed to check the receipt was taken out.
	Err error
}

// ErrWithheld says that a receipt cannot be checked, and not that it is bad.
var ErrWithheld = errors.New("what the receipt is about was withheld")

// withheld is what stands in a redacted file for a text that was taken out
// (docs/formats/bundle-v1.md).
const withheld = "withheld"

// gone says whether a text of an observation was taken out.
func gone(o measure.Observation) bool {
	return bytes.Contains(canonical(o), []byte(`"`+withheld+`"`))
}

// Check checks the receipts of a measurement, up to a number of them. An
// observation of a helper that is in no Result's Covers rests on the word of
// whoever made the file; so does one whose id another one has as well, for
// readers may take either.
func Check(list []measure.Observation, most int) (out []Result) {
	byID, twice := map[string]measure.Observation{}, map[string]bool{}
	for _, o := range list {
		if _, ok := byID[o.ID]; ok {
			twice[o.ID] = true
		}
		byID[o.ID] = o
	}
	for _, o := range list {
		if o.Receipt != nil && len(out) < most {
			out = append(out, check(o, byID, twice))
		}
	}
	return out
}

func check(o measure.Observation, byID map[string]measure.Observation, twice map[string]bool) Result {
	got := o.Receipt
	res := Result{Key: got.Key}
	if got.Note == withheld || got.Key == withheld || got.Request == withheld {
		res.Err = ErrWithheld
		return res
	}
	pin, err := Pin(o.Helper)
	if err == nil && pin != "" {
		res.Pinned = strings.EqualFold(pin, got.Key)
		if !res.Pinned {
			err = errors.New("the receipt's key is not the one in the helper's URL")
		}
	}
	if err != nil {
		res.Err = err
		return res
	}
	r, err := Open(got.Note, got.Key)
	if err != nil {
		res.Err = err
		return res
	}
	var request measure.HelperRequest
	if !r.Answers([]byte(got.Request)) || json.Unmarshal([]byte(got.Request), &request) != nil {
		res.Err = errors.New("the receipt is for another request")
		return res
	}
	res.Time, res.ASN = r.Time, r.ASN
	own := map[string]string{} // ids of the measurement to those of the helper
	for _, c := range got.Covers {
		own[c.ID] = c.As
	}
	for _, c := range got.Covers {
		seen, ok := byID[c.ID]
		if ok && !twice[c.ID] {
			after := seen.After
			seen.ID, seen.After = c.As, own[after]
			ok = seen.Role == measure.RoleHelper && byID[c.ID].Helper == o.Helper && (after == "") == (seen.After == "") && r.Saw(request.Nonce, seen)
		}
		switch {
		case twice[c.ID]:
			res.Missing = append(res.Missing, c.ID)
		case ok:
			res.Covers = append(res.Covers, c.ID)
		case gone(seen):
			res.Withheld = append(res.Withheld, c.ID)
		default:
			res.Missing = append(res.Missing, c.ID)
		}
	}
	slices.Sort(res.Covers)
	res.Covers = slices.Compact(res.Covers)
	return res
}

// Pin is the key for receipts in a helper's URL, in hex; "" if it has none.
func Pin(helper string) (string, error) {
	u, err := url.Parse(helper)
	if err != nil {
		return "", errors.New("the helper's URL cannot be read")
	}
	for part := range strings.SplitSeq(u.Fragment, "&") {
		if key, ok := strings.CutPrefix(part, "receipt="); ok {
			raw, err := hex.DecodeString(key)
			if err != nil || len(raw) != ed25519.PublicKeySize {
				return "", errors.New("the key for receipts in the helper's URL is not receipt= and 64 hexadecimal digits")
			}
			return strings.ToLower(key), nil
		}
	}
	return "", nil
}
