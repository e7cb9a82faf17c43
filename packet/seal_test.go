package packet

import (
	"testing"
)

// sealInitial protects a client Initial with packet number 2 in four bytes.
func sealInitial(t *testing.T, header, payload []byte) []byte {
	t.Helper()
	return sealWith(t, header, header, payload)
}

// sealWith takes the keys from another header's connection id.
func sealWith(t *testing.T, keys, header, payload []byte) []byte {
	t.Helper()
	h, err := ParseLongHeader(keys)
	if err != nil {
		t.Fatal(err)
	}
	k, err := deriveInitialKeys(h.Version, h.DCID)
	if err != nil {
		t.Fatal(err)
	}
	nonce := append([]byte(nil), k.iv...)
	nonce[11] ^= 2
	out := append([]byte(nil), header...)
	out = k.aead.Seal(out, nonce, payload, header)
	var m [16]byte
	pn := len(header) - 4
	k.hp.Encrypt(m[:], out[pn+4:pn+20])
	out[0] ^= m[0] & 0x0f
	for i := range 4 {
		out[pn+i] ^= m[1+i]
	}
	return out
}
