package packet

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sort"
)

// QUIC versions.
const (
	QUICv1 = 0x00000001 // RFC 9000
	QUICv2 = 0x6b3343cf // RFC 9369
)

// ErrNotQUIC says that a datagram holds no client Initial of a known version.
var ErrNotQUIC = errors.New("packet: not a QUIC Initial")

// LongHeader is the unprotected part of a QUIC long-header packet (RFC 8999).
type LongHeader struct {
	Version  uint32
	DCID     []byte
	SCID     []byte
	Initial  bool // of a version whose types are known
	rest     []byte
	fixedBit bool
}

// ParseLongHeader reads what any device on the path can read.
func ParseLongHeader(b []byte) (LongHeader, error) {
	var h LongHeader
	if len(b) < 7 || b[0]&0x80 == 0 {
		return h, ErrNotQUIC
	}
	h.fixedBit = b[0]&0x40 != 0
	h.Version = binary.BigEndian.Uint32(b[1:])
	r := reader{b[5:], false}
	n := int(r.u8())
	if n > 20 {
		return h, ErrNotQUIC
	}
	h.DCID = r.take(n)
	if n = int(r.u8()); n > 20 {
		return h, ErrNotQUIC
	}
	h.SCID = r.take(n)
	if r.bad {
		return h, ErrNotQUIC
	}
	h.rest = r.b
	typ := b[0] >> 4 & 3
	h.Initial = h.fixedBit && (h.Version == QUICv1 && typ == 0 || h.Version == QUICv2 && typ == 1)
	return h, nil
}

var (
	saltV1 = []byte{0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a}
	saltV2 = []byte{0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9}
)

func expandLabel(secret []byte, label string, n int) []byte {
	full := "tls13 " + label
	info := append([]byte{byte(n >> 8), byte(n), byte(len(full))}, full...)
	out, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
	if err != nil {
		panic(err) // lengths are constants of ours
	}
	return out
}

// CryptoFrame is a piece of the handshake stream.
type CryptoFrame struct {
	Offset uint64
	Data   []byte
}

// initialKeys protect a client's Initial packets (RFC 9001 5.2).
type initialKeys struct {
	hp   cipher.Block
	aead cipher.AEAD
	iv   []byte
}

func deriveInitialKeys(version uint32, dcid []byte) (*initialKeys, error) {
	salt, key, iv, hp := saltV1, "quic key", "quic iv", "quic hp"
	if version == QUICv2 {
		salt, key, iv, hp = saltV2, "quicv2 key", "quicv2 iv", "quicv2 hp"
	}
	initial, err := hkdf.Extract(sha256.New, dcid, salt)
	if err != nil {
		return nil, err
	}
	secret := expandLabel(initial, "client in", 32)
	k := &initialKeys{iv: expandLabel(secret, iv, 12)}
	if k.hp, err = aes.NewCipher(expandLabel(secret, hp, 16)); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(expandLabel(secret, key, 16))
	if err != nil {
		return nil, err
	}
	k.aead, err = cipher.NewGCM(block)
	return k, err
}

// DecryptInitial removes the protection of a client's first Initial packet,
// whose keys follow from the connection id alone, and returns its CRYPTO
// frames and what follows the packet in the datagram.
func DecryptInitial(b []byte) (frames []CryptoFrame, rest []byte, err error) {
	return decryptInitial(b, nil)
}

// decryptInitial uses k, or, where k is nil, the keys of the packet's own
// connection id.
func decryptInitial(b []byte, k *initialKeys) (frames []CryptoFrame, rest []byte, err error) {
	h, err := ParseLongHeader(b)
	if err != nil {
		return nil, nil, err
	}
	if !h.Initial {
		return nil, nil, ErrNotQUIC
	}
	r := reader{h.rest, false}
	token := r.varint()
	if token > uint64(len(r.b)) {
		return nil, nil, ErrNotQUIC
	}
	r.take(int(token))
	length := r.varint()
	if r.bad || length > uint64(len(r.b)) || length < 20 {
		return nil, nil, ErrNotQUIC
	}
	pnAt := len(b) - len(r.b)
	end := pnAt + int(length)
	rest = b[end:]
	if k == nil {
		if k, err = deriveInitialKeys(h.Version, h.DCID); err != nil {
			return nil, rest, err
		}
	}
	var m [16]byte
	k.hp.Encrypt(m[:], b[pnAt+4:pnAt+20])
	first := b[0] ^ m[0]&0x0f
	pnLen := int(first&3) + 1
	head := append([]byte(nil), b[:pnAt+pnLen]...)
	head[0] = first
	var pn uint64
	for i := range pnLen {
		head[pnAt+i] ^= m[1+i]
		pn = pn<<8 | uint64(head[pnAt+i])
	}
	nonce := append([]byte(nil), k.iv...)
	for i := range 8 {
		nonce[4+i] ^= byte(pn >> (8 * (7 - i)))
	}
	plain, err := k.aead.Open(nil, nonce, b[pnAt+pnLen:end], head)
	if err != nil {
		return nil, rest, ErrNotQUIC
	}
	f := reader{plain, false}
	for len(f.b) > 0 && !f.bad {
		switch typ := f.varint(); typ {
		case 0, 1: // PADDING, PING
		case 2, 3: // ACK
			f.varint()
			f.varint()
			n := f.varint()
			f.varint()
			for i := uint64(0); i < n && !f.bad; i++ {
				f.varint()
				f.varint()
			}
			if typ == 3 {
				f.varint()
				f.varint()
				f.varint()
			}
		case 6:
			off, n := f.varint(), f.varint()
			if n > uint64(len(f.b)) || off > maxHello {
				return frames, rest, nil
			}
			frames = append(frames, CryptoFrame{off, f.take(int(n))})
		default:
			return frames, rest, nil
		}
	}
	return frames, rest, nil
}

// CryptoStream puts CRYPTO frames of one connection in order. The zero value
// is ready; it holds at most a ClientHello of 64 KiB.
type CryptoStream struct {
	frames []CryptoFrame
	size   int
	// keys are those of the first Initial: the connection id changes when
	// the server has answered, the keys do not.
	keys *initialKeys
}

// Add takes the Initials of one datagram. ErrMore means that the ClientHello
// is not complete yet.
func (s *CryptoStream) Add(datagram []byte) (*ClientHello, error) {
	found := false
	for len(datagram) > 0 {
		h, err := ParseLongHeader(datagram)
		if err != nil || !h.Initial {
			break
		}
		var frames []CryptoFrame
		var rest []byte
		if s.keys != nil {
			frames, rest, err = decryptInitial(datagram, s.keys)
		}
		if s.keys == nil || err != nil {
			// The first one, or one after a Retry, which changes the keys.
			k, kerr := deriveInitialKeys(h.Version, h.DCID)
			if kerr != nil {
				break
			}
			if frames, rest, err = decryptInitial(datagram, k); err == nil {
				s.keys = k
			}
		}
		if err != nil {
			break
		}
		found = true
		for _, f := range frames {
			if len(s.frames) >= 256 || s.size+len(f.Data) > 2*maxHello {
				return nil, ErrNotQUIC
			}
			s.frames = append(s.frames, f)
			s.size += len(f.Data)
		}
		datagram = rest
	}
	if !found {
		return nil, ErrNotQUIC
	}
	return s.Hello()
}

// Hello is the ClientHello so far.
func (s *CryptoStream) Hello() (*ClientHello, error) {
	sort.SliceStable(s.frames, func(i, j int) bool { return s.frames[i].Offset < s.frames[j].Offset })
	var msg []byte
	for _, f := range s.frames {
		at := uint64(len(msg))
		if f.Offset > at {
			break
		}
		if end := f.Offset + uint64(len(f.Data)); end > at {
			msg = append(msg, f.Data[at-f.Offset:]...)
		}
	}
	if len(msg) == 0 {
		return nil, ErrMore
	}
	return ParseClientHello(msg)
}
