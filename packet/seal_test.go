package packet

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"testing"
)

// sealInitial protects a client Initial with packet number 2 in four bytes.
func sealInitial(t *testing.T, header, payload []byte) []byte {
	t.Helper()
	h, err := ParseLongHeader(header)
	if err != nil {
		t.Fatal(err)
	}
	initial, _ := hkdf.Extract(sha256.New, h.DCID, saltV1)
	secret := expandLabel(initial, "client in", 32)
	block, _ := aes.NewCipher(expandLabel(secret, "quic key", 16))
	aead, _ := cipher.NewGCM(block)
	nonce := expandLabel(secret, "quic iv", 12)
	nonce[11] ^= 2
	out := append([]byte(nil), header...)
	out = aead.Seal(out, nonce, payload, header)
	mask, _ := aes.NewCipher(expandLabel(secret, "quic hp", 16))
	var m [16]byte
	pn := len(header) - 4
	mask.Encrypt(m[:], out[pn+4:pn+20])
	out[0] ^= m[0] & 0x0f
	for i := range 4 {
		out[pn+i] ^= m[1+i]
	}
	return out
}
