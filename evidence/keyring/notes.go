package keyring

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// The first lines of the notes that keys sign about keys
// (docs/formats/keys-v1.md).
const (
	rotationOrigin   = "govah.invalid/rotation/v1"
	revocationOrigin = "govah.invalid/revocation/v1"
)

// MaxNote bounds a note about keys, in bytes.
const MaxNote = 4096

// rotationNote says that the holder of one key has the other too; both sign.
func rotationNote(old signer, next ed25519.PrivateKey) ([]byte, error) {
	to := signer{next, verifierKey(next)}
	return note.Sign(&note.Note{Text: rotationOrigin + "\n" + old.text + "\n" + to.text + "\n"}, old, to)
}

// Revocation is the note with which the key says that what is signed with it
// from some moment on is not its owner's. Whoever holds it can publish it.
func (k *Key) Revocation() ([]byte, error) {
	return note.Sign(&note.Note{Text: revocationOrigin + "\n" + k.state.Key + "\n"}, k.Signer())
}

// ParseRotation reads a rotation note and checks both signatures.
func ParseRotation(text []byte) (old, next string, err error) {
	keys, err := openKeyNote(text, rotationOrigin, 2)
	if err != nil {
		return "", "", err
	}
	if keys[0] == keys[1] {
		return "", "", errors.New("the note rotates a key to itself")
	}
	return keys[0], keys[1], nil
}

// ParseRevocation reads a revocation note, checks its signature, and returns
// the verifier key of the key that is revoked.
func ParseRevocation(text []byte) (string, error) {
	keys, err := openKeyNote(text, revocationOrigin, 1)
	if err != nil {
		return "", err
	}
	return keys[0], nil
}

// openKeyNote reads a note of a kind, with so many verifier keys, all of which
// signed it.
func openKeyNote(text []byte, origin string, n int) ([]string, error) {
	if len(text) > MaxNote {
		return nil, errors.New("the note is too long")
	}
	body, _, ok := strings.Cut(string(text), "\n\n")
	lines := strings.Split(body, "\n")
	if !ok || len(lines) != n+1 || lines[0] != origin {
		return nil, errors.New("it is no such note")
	}
	keys := lines[1:]
	var known []note.Verifier
	for _, key := range keys {
		v, err := note.NewVerifier(key)
		if err != nil || v.Name() != KeyName {
			return nil, errors.New("the note names no key of govah")
		}
		known = append(known, v)
	}
	// Each alone: of two keys with one hash, one signature would count for both.
	for _, v := range known {
		if _, err := note.Open(text, note.VerifierList(v)); err != nil {
			return nil, fmt.Errorf("the note is not signed by the key that it names: %w", err)
		}
	}
	return keys, nil
}
