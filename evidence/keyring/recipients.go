package keyring

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// Recipients are whom a file is encrypted to: holders of age keys, each of
// which opens it alone. The device that writes it is none of them.
type Recipients struct {
	list []age.Recipient
}

const (
	maxRecipients    = 64
	maxRecipientFile = 1 << 20 // bytes; a post-quantum recipient is a line of 1,960
)

// ParseRecipients reads recipients of age (https://age-encryption.org/v1):
// "age1…" (X25519) and "age1pq1…" (ML-KEM-768 with X25519). The two kinds do
// not go into one file: it would be as weak against a quantum computer as the
// weaker of them, and age refuses that.
func ParseRecipients(texts ...string) (*Recipients, error) {
	r := &Recipients{}
	pq := 0
	for _, text := range texts {
		one, err := parseRecipient(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		if _, ok := one.(*age.HybridRecipient); ok {
			pq++
		}
		r.list = append(r.list, one)
	}
	switch {
	case len(r.list) == 0:
		return nil, errors.New("no recipient is named")
	case len(r.list) > maxRecipients:
		return nil, fmt.Errorf("%d recipients are too many; at most %d", len(r.list), maxRecipients)
	case pq != 0 && pq != len(r.list):
		return nil, errors.New("recipients with and without post-quantum keys (age1pq1… and age1…) cannot open one file")
	}
	return r, nil
}

// ReadRecipients reads a file of recipients, one a line; empty lines and those
// that begin with # are passed over.
func ReadRecipients(in io.Reader) ([]string, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxRecipientFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxRecipientFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxRecipientFile)
	}
	var list []string
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if _, err := parseRecipient(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		list = append(list, line)
	}
	if len(list) == 0 {
		return nil, errors.New("it holds no recipient")
	}
	return list, nil
}

// parseRecipient never repeats what it was given: it may be a secret key by
// mistake.
func parseRecipient(text string) (age.Recipient, error) {
	var (
		r   age.Recipient
		err error
	)
	switch {
	case strings.HasPrefix(strings.ToUpper(text), "AGE-SECRET-KEY-"):
		return nil, errors.New("this is a secret key of age, which must not leave whoever it belongs to; its public key begins with age1")
	case strings.HasPrefix(text, "age1pq1"):
		r, err = age.ParseHybridRecipient(text)
	case strings.HasPrefix(text, "age1"):
		r, err = age.ParseX25519Recipient(text)
	default:
		return nil, errors.New("a recipient is a public key of age and begins with age1")
	}
	if err != nil {
		return nil, errors.New("a recipient that begins with age1 is not whole")
	}
	return r, nil
}

// EncryptTo gives a writer whose bytes arrive at w encrypted to the recipients,
// in age's format, chunk by chunk of 64 KiB. Nothing of it can be read back
// here. It must be closed, which does not close w; what is cut off before that
// is refused at its end by whoever decrypts it.
func EncryptTo(w io.Writer, to *Recipients) (io.WriteCloser, error) {
	if to == nil || len(to.list) == 0 {
		return nil, errors.New("no recipient is named")
	}
	out, err := age.Encrypt(w, to.list...)
	if err != nil {
		return nil, fmt.Errorf("encrypting: %w", err)
	}
	return out, nil
}
