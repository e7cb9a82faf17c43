package evidence

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// SaltBytes is the length of a leaf's salt: what is withheld cannot be found by
// trying values.
const SaltBytes = 16

// Hash is a SHA-256 digest.
type Hash = [sha256.Size]byte

// innerHash binds a value to its place: SHA-256(salt || file || position || value),
// file and position big-endian.
func innerHash(buf []byte, salt *[SaltBytes]byte, file uint16, position uint32, value []byte) (Hash, []byte) {
	buf = append(buf[:0], salt[:]...)
	buf = binary.BigEndian.AppendUint16(buf, file)
	buf = binary.BigEndian.AppendUint32(buf, position)
	if len(value) <= 4<<10 { // one call over one copy is faster than two calls
		buf = append(buf, value...)
		return sha256.Sum256(buf), buf
	}
	h := sha256.New()
	h.Write(buf)
	h.Write(value)
	var out Hash
	h.Sum(out[:0])
	return out, buf
}

// leafHash is the hash of a leaf in the tree: SHA-256(0x00 || class || inner).
func leafHash(c Class, inner *Hash) Hash {
	var b [2 + sha256.Size]byte
	b[1] = byte(c)
	copy(b[2:], inner[:])
	return sha256.Sum256(b[:])
}

// nodeHash is RFC 6962's: SHA-256(0x01 || left || right).
func nodeHash(left, right *Hash) Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// saltOf derives the salt of leaf i from a secret that is in no bundle.
func saltOf(secret []byte, i int64) (salt [SaltBytes]byte) {
	h := hmac.New(sha256.New, secret)
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(i))
	h.Write(b[:])
	copy(salt[:], h.Sum(nil))
	return salt
}
