package evidence

import (
	"encoding/base64"
	"strings"
)

// publicKey is the 32 bytes of the bundle's key.
func (b *Bundle) publicKey() []byte {
	raw, _ := base64.StdEncoding.DecodeString(strings.SplitN(b.Key, "+", 3)[2])
	return raw[1:]
}

// signed is what is signed, and the signature.
func (b *Bundle) signed() (text, sig []byte) {
	t, s, _ := strings.Cut(string(b.note), "\n\n")
	raw, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(s[strings.LastIndex(s, " ")+1:]))
	return []byte(t + "\n"), raw[4:]
}
