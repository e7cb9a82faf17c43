package tlog

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
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
