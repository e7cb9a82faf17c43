package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// maxCost bounds the work that a file may ask of who opens it: 2^18 is 256 MiB
// and about a second.
const maxCost = 18

const maxPassphrase = 1024 // bytes

func isEncrypted(data []byte) bool {
	return bytes.HasPrefix(data, []byte("age-encryption.org/v1\n"))
}

// protect encrypts with a passphrase, as age does (scrypt).
func protect(data, passphrase []byte, cost int) ([]byte, error) {
	to, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return nil, fmt.Errorf("protecting the key: %w", err)
	}
	to.SetWorkFactor(cost)
	return encryptFor(data, to)
}

// Encrypt is data that only the recipients can read.
func Encrypt(data []byte, to *Recipients) ([]byte, error) { return encryptFor(data, to.list...) }

func encryptFor(data []byte, to ...age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("encrypting: %w", err)
	}
	return out.Bytes(), nil
}

// openWithPassphrase is the reverse of protect.
func openWithPassphrase(data, passphrase []byte) ([]byte, error) {
	by, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		return nil, ErrPassphrase
	}
	by.SetMaxWorkFactor(maxCost)
	return decrypt(data, by)
}

func decrypt(data []byte, by ...age.Identity) ([]byte, error) {
	var none *age.NoIdentityMatchError
	in, err := age.Decrypt(bytes.NewReader(data), by...)
	switch {
	case errors.As(err, &none):
		return nil, ErrPassphrase
	case err != nil:
		return nil, ErrDamaged
	}
	plain, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil || len(plain) > maxFile {
		return nil, ErrDamaged
	}
	return plain, nil
}
