package tlog

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"
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

// ParseKey says whose private key it is, and whether a witness's or a log's.
func ParseKey(skey string) (name string, witness bool, err error) {
	name, algorithm, _, err := privateKey(skey)
	return name, algorithm == algorithmCosignature, err
}

// NewLogSigner reads a log's private key: what signs with it, and the public
// key, for policies and witnesses.
func NewLogSigner(skey string) (signer note.Signer, vkey string, err error) {
	if signer, err = note.NewSigner(skey); err != nil {
		return nil, "", errors.New("its key is no private key of a log")
	}
	_, _, seed, err := privateKey(skey)
	if err != nil {
		return nil, "", err
	}
	return signer, vkeyOf(signer.Name(), algorithmEd25519, seed), nil
}
