package evidence

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// SaltBytes is the length of a leaf's salt: what is withheld cannot be found by
// trying values.
const SaltBytes = 16

// Hash is a SHA-256 digest.
type Hash = [sha256.Size]byte

// innerHasher computes inner hashes without copying values.
type innerHasher struct {
	digest hash.Hash
	head   [SaltBytes + 2 + 4]byte
	out    [sha256.Size]byte
}

func newInnerHasher() *innerHasher { return &innerHasher{digest: sha256.New()} }

// hash binds a value to its place: SHA-256(salt || file || position || value),
// file and position big-endian.
func (h *innerHasher) hash(e *Entry, value []byte) Hash {
	copy(h.head[:], e.salt()[:])
	binary.BigEndian.PutUint16(h.head[SaltBytes:], e.File)
	binary.BigEndian.PutUint32(h.head[SaltBytes+2:], e.Position)
	h.digest.Reset()
	h.digest.Write(h.head[:])
	h.digest.Write(value)
	h.digest.Sum(h.out[:0])
	return h.out
}

// leafHash is the hash of a leaf in the tree: SHA-256(0x00 || class || inner).
func leafHash(c Class, inner *Hash) Hash {
	var b [2 + sha256.Size]byte
	b[1] = byte(c)
	copy(b[2:], inner[:])
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
