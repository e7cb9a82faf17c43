package tlog

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// The algorithm bytes of keys (c2sp.org/signed-note, signature types).
const (
	algorithmEd25519     = 0x01 // of logs
	algorithmCosignature = 0x04 // timestamped Ed25519, of witnesses
	algorithmMLDSA       = 0x06 // known by name, not implemented
)

// Cosigner signs checkpoints as a witness does: Ed25519 cosignature/v1, with
// the time (c2sp.org/tlog-cosignature). It implements note.Signer; Sign takes
// the time from the clock.
type Cosigner struct {
	name string
	id   uint32
	key  ed25519.PrivateKey
}

// NewCosigner reads a witness's private key, as [MakeKey] makes it.
func NewCosigner(skey string) (*Cosigner, error) {
	name, algorithm, seed, err := privateKey(skey)
	if err != nil {
		return nil, err
	}
	if algorithm != algorithmCosignature {
		return nil, fmt.Errorf("the key is of type %d; a witness's is of type %d", algorithm, algorithmCosignature)
	}
	key := ed25519.NewKeyFromSeed(seed)
	return &Cosigner{name: name, id: keyID(name, algorithmCosignature, key.Public().(ed25519.PublicKey)), key: key}, nil
}

// Name implements note.Signer.
func (c *Cosigner) Name() string { return c.name }

// KeyHash implements note.Signer.
func (c *Cosigner) KeyHash() uint32 { return c.id }

// Sign implements note.Signer.
func (c *Cosigner) Sign(text []byte) ([]byte, error) { return c.signAt(text, time.Now().Unix()) }

// VKey is the witness's public key, for policies.
func (c *Cosigner) VKey() string {
	return vkey(c.name, algorithmCosignature, c.key.Public().(ed25519.PublicKey))
}

// Cosign cosigns text as of a time in seconds since 1970: the line of the
// signature.
func (c *Cosigner) Cosign(text []byte, seconds int64) ([]byte, error) {
	sig, err := c.signAt(text, seconds)
	if err != nil {
		return nil, err
	}
	raw := append(binary.BigEndian.AppendUint32(nil, c.id), sig...)
	return fmt.Appendf(nil, "— %s %s\n", c.name, base64.StdEncoding.EncodeToString(raw)), nil
}

// signAt signs text as of a time in seconds since 1970.
func (c *Cosigner) signAt(text []byte, seconds int64) ([]byte, error) {
	if _, err := ParseTree(string(text)); err != nil {
		return nil, err
	}
	if seconds <= 0 {
		return nil, errors.New("the clock is before 1970")
	}
	sig := binary.BigEndian.AppendUint64(make([]byte, 0, 8+ed25519.SignatureSize), uint64(seconds))
	return append(sig, ed25519.Sign(c.key, cosigned(text, uint64(seconds)))...), nil
}

// cosigned is the message of an Ed25519 cosignature.
func cosigned(text []byte, seconds uint64) []byte {
	m := append(make([]byte, 0, len(text)+48), "cosignature/v1\ntime "...)
	m = strconv.AppendUint(m, seconds, 10)
	return append(append(m, '\n'), text...)
}

// witnessKey verifies a witness's cosignatures. It implements note.Verifier.
type witnessKey struct {
	name string
	id   uint32
	key  ed25519.PublicKey
}

func (w *witnessKey) Name() string    { return w.name }
func (w *witnessKey) KeyHash() uint32 { return w.id }
func (w *witnessKey) Verify(text, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	seconds := binary.BigEndian.Uint64(sig)
	return seconds > 0 && seconds <= math.MaxInt64 && ed25519.Verify(w.key, cosigned(text, seconds), sig[8:])
}

// cosignedAt is the time of a cosignature that was verified.
func cosignedAt(s note.Signature) time.Time {
	raw, err := base64.StdEncoding.DecodeString(s.Base64)
	if err != nil || len(raw) < 12 {
		return time.Time{}
	}
	return time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0).UTC()
}

// NewCosignatureVerifier reads a witness's public key: a vkey of type 0x04.
func NewCosignatureVerifier(text string) (note.Verifier, error) {
	w, err := newWitnessKey(text)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func newWitnessKey(text string) (*witnessKey, error) {
	name, algorithm, key, err := publicKey(text)
	if err != nil {
		return nil, err
	}
	if algorithm != algorithmCosignature {
		return nil, fmt.Errorf("the key is of type %d; a witness's is of type %d", algorithm, algorithmCosignature)
	}
	return &witnessKey{name: name, id: keyID(name, algorithm, key), key: key}, nil
}

// logKey verifies a log's own signatures. It implements note.Verifier.
type logKey struct {
	name string
	id   uint32
	key  ed25519.PublicKey
}

func (l *logKey) Name() string                 { return l.name }
func (l *logKey) KeyHash() uint32              { return l.id }
func (l *logKey) Verify(text, sig []byte) bool { return ed25519.Verify(l.key, text, sig) }

// NewLogVerifier reads a log's public key: a vkey of type 0x01.
func NewLogVerifier(text string) (note.Verifier, error) {
	l, err := newLogKey(text)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func newLogKey(text string) (*logKey, error) {
	name, algorithm, key, err := publicKey(text)
	if err != nil {
		return nil, err
	}
	if algorithm != algorithmEd25519 {
		return nil, fmt.Errorf("the key is of type %d; a log's is of type %d", algorithm, algorithmEd25519)
	}
	return &logKey{name: name, id: keyID(name, algorithm, key), key: key}, nil
}

// keyID is the first four bytes of the hash that identifies a key.
func keyID(name string, algorithm byte, key []byte) uint32 {
	h := sha256.Sum256(append(append([]byte(name+"\n"), algorithm), key...))
	return binary.BigEndian.Uint32(h[:])
}

func vkey(name string, algorithm byte, key []byte) string {
	return fmt.Sprintf("%s+%08x+%s", name, keyID(name, algorithm, key), base64.StdEncoding.EncodeToString(append([]byte{algorithm}, key...)))
}

// publicKey reads a vkey: name, key ID, and an Ed25519 key of some type.
func publicKey(text string) (name string, algorithm byte, key ed25519.PublicKey, err error) {
	name, rest, _ := strings.Cut(text, "+")
	id, b64, ok := strings.Cut(rest, "+")
	if !ok || !validName(name) {
		return "", 0, nil, errors.New("no public key: it is NAME+ID+KEY")
	}
	algorithm, key, err = keyBytes(name, b64, func(algorithm byte, key []byte) string {
		return fmt.Sprintf("%08x", keyID(name, algorithm, key))
	}, id)
	return name, algorithm, key, err
}

// privateKey reads what [MakeKey] makes.
func privateKey(text string) (name string, algorithm byte, seed []byte, err error) {
	rest, ok := strings.CutPrefix(text, "PRIVATE+KEY+")
	name, rest, _ = strings.Cut(rest, "+")
	id, b64, ok2 := strings.Cut(rest, "+")
	if !ok || !ok2 || !validName(name) {
		return "", 0, nil, errors.New("no private key: it is PRIVATE+KEY+NAME+ID+KEY")
	}
	algorithm, seed, err = keyBytes(name, b64, func(algorithm byte, seed []byte) string {
		return fmt.Sprintf("%08x", keyID(name, algorithm, ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)))
	}, id)
	return name, algorithm, seed, err
}

// keyBytes reads the algorithm and the 32 bytes of a key whose ID must be id.
func keyBytes(name, b64 string, idOf func(byte, []byte) string, id string) (byte, []byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(b64)
	if err != nil || len(b) == 0 {
		return 0, nil, fmt.Errorf("the key of %s is not base64", name)
	}
	switch b[0] {
	case algorithmEd25519, algorithmCosignature:
	case algorithmMLDSA:
		return 0, nil, fmt.Errorf("the key of %s is for ML-DSA-44, which this version does not verify", name)
	default:
		return 0, nil, fmt.Errorf("the key of %s is of the unknown type %d", name, b[0])
	}
	if len(b) != 33 {
		return 0, nil, fmt.Errorf("the key of %s is not of 32 bytes", name)
	}
	if idOf(b[0], b[1:]) != id {
		return 0, nil, fmt.Errorf("the key of %s does not have the ID that is written with it: it was altered", name)
	}
	return b[0], b[1:], nil
}

// validName says whether a key may be so called (c2sp.org/signed-note).
func validName(name string) bool {
	return name != "" && utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool {
		return unicode.IsSpace(r) || r == '+' || r < 0x20 || r == 0x7f
	})
}

// vkeyOf is the public key of a private one.
func vkeyOf(name string, algorithm byte, seed []byte) string {
	return vkey(name, algorithm, ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
}
