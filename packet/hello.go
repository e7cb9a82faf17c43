package packet

import (
	"encoding/binary"
	"errors"
	"strings"
)

// ErrMore says that the bytes so far are the beginning of something valid.
var ErrMore = errors.New("packet: more bytes needed")

// ErrNotTLS says that the bytes are no TLS ClientHello.
var ErrNotTLS = errors.New("packet: not a TLS ClientHello")

// ClientHello is what a device on the path can read of one.
type ClientHello struct {
	SNI        string // lower case; "" none
	SNIAsSent  string
	ALPN       []string
	Versions   []uint16
	Suites     []uint16
	Groups     []uint16
	KeyShares  []uint16 // groups that a share was sent for
	Extensions []uint16 // in their order
	ECH        bool     // encrypted_client_hello, 0xfe0d; GREASE looks the same
	ESNI       bool     // draft ESNI, 0xffce
	Length     int      // of the handshake message, bytes
	Complete   bool     // all of it was there to read
	Spread     bool     // over more than one TLS record, by the first one's length
}

// GREASE says whether a cipher suite, group or extension is one of those that
// are reserved so that servers learn to ignore what they do not know (RFC 8701
// 2). Browsers made of Chromium or WebKit send some.
func GREASE(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

const maxHello = 64 << 10

// ParseClientHelloStream reads the ClientHello at the start of a TCP stream:
// TLS records, over which the handshake message may be split. ErrMore means
// that what there is fits so far; the ClientHello returned with it, which may
// be nil, holds what could be read of it.
func ParseClientHelloStream(b []byte) (*ClientHello, error) {
	var msg []byte
	first := 0 // length of the first record
	parse := func() (*ClientHello, error) {
		h, err := ParseClientHello(msg)
		if h != nil {
			h.Spread = first < h.Length
		}
		return h, err
	}
	for {
		if len(b) > 0 && b[0] != 22 || len(b) > 1 && b[1] != 3 {
			return nil, ErrNotTLS
		}
		if len(b) < 5 {
			return parse()
		}
		n := int(binary.BigEndian.Uint16(b[3:]))
		if n == 0 || n > 16384+256 {
			return nil, ErrNotTLS
		}
		have := min(n, len(b)-5)
		if msg == nil {
			first = n
			msg = b[5 : 5+have : 5+have] // as a rule there is one record
		} else {
			msg = append(msg, b[5:5+have]...)
		}
		whole := len(msg) >= 4 && len(msg)-4 >= int(msg[1])<<16|int(msg[2])<<8|int(msg[3])
		if whole || have < n || len(msg) > maxHello || len(msg) > 0 && msg[0] != 1 {
			return parse()
		}
		b = b[5+n:]
	}
}

// ParseClientHello reads a handshake message (RFC 8446 4.1.2). ErrMore means
// that it is not whole; the ClientHello returned with it, which may be nil,
// holds what could be read of it.
func ParseClientHello(msg []byte) (*ClientHello, error) {
	if len(msg) > 0 && msg[0] != 1 {
		return nil, ErrNotTLS
	}
	if len(msg) < 4 {
		return nil, ErrMore
	}
	n := int(msg[1])<<16 | int(msg[2])<<8 | int(msg[3])
	if n > maxHello {
		return nil, ErrNotTLS
	}
	short := len(msg)-4 < n
	h := &ClientHello{Length: 4 + n, Complete: !short}
	b := reader{msg[4:min(len(msg), 4+n)], false}
	failed := func() (*ClientHello, error) {
		if short {
			return h, ErrMore
		}
		return nil, ErrNotTLS
	}
	b.take(2 + 32)
	b.take(int(b.u8()))
	suites := reader{b.take(int(b.u16())), false}
	for len(suites.b) >= 2 {
		h.Suites = append(h.Suites, suites.u16())
	}
	b.take(int(b.u8()))
	if b.bad {
		return failed()
	}
	if len(b.b) == 0 && !short {
		return h, nil
	}
	size := int(b.u16())
	if b.bad || size > len(b.b) && !short {
		return failed()
	}
	exts := reader{b.b[:min(size, len(b.b))], false}
	for len(exts.b) > 0 {
		typ := exts.u16()
		e := reader{exts.take(int(exts.u16())), false}
		if exts.bad {
			return failed()
		}
		h.extension(typ, e)
	}
	if short {
		return h, ErrMore
	}
	return h, nil
}

// extension reads the contents of one. What is malformed inside it is left
// out, as middleboxes do.
func (h *ClientHello) extension(typ uint16, e reader) {
	h.Extensions = append(h.Extensions, typ)
	switch typ {
	case 0:
		list := reader{e.take(int(e.u16())), false}
		for len(list.b) >= 3 {
			kind := list.u8()
			name := list.take(int(list.u16()))
			if kind == 0 && h.SNI == "" {
				h.SNIAsSent = string(name)
				h.SNI = strings.ToLower(h.SNIAsSent)
			}
		}
	case 10:
		list := reader{e.take(int(e.u16())), false}
		for len(list.b) >= 2 {
			h.Groups = append(h.Groups, list.u16())
		}
	case 16:
		list := reader{e.take(int(e.u16())), false}
		for len(list.b) > 0 && !list.bad {
			h.ALPN = append(h.ALPN, string(list.take(int(list.u8()))))
		}
	case 43:
		list := reader{e.take(int(e.u8())), false}
		for len(list.b) >= 2 {
			h.Versions = append(h.Versions, list.u16())
		}
	case 51:
		list := reader{e.take(int(e.u16())), false}
		for len(list.b) >= 4 {
			h.KeyShares = append(h.KeyShares, list.u16())
			list.take(int(list.u16()))
		}
	case 0xfe0d:
		h.ECH = true
	case 0xffce:
		h.ESNI = true
	}
}

// reader takes from the front and remembers when there was too little.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad = true
		r.b = nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() uint8 {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if v := r.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

// varint reads QUIC's variable-length integer (RFC 9000 16).
func (r *reader) varint() uint64 {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	n := 1 << (r.b[0] >> 6)
	v := r.take(n)
	if v == nil {
		return 0
	}
	x := uint64(v[0] & 0x3f)
	for _, c := range v[1:] {
		x = x<<8 | uint64(c)
	}
	return x
}
