package evidence

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

// member is one file of the container.
type member struct {
	name string
	data []byte
}

// The ZIP structures (PKWARE's APPNOTE 6.3.10, 4.3) with everything fixed that
// can be: stored, 1980-01-01 00:00, no flags, no attributes.
const (
	localBytes   = 30
	centralBytes = 46
	endBytes     = 22

	dosDate = 1<<5 | 1
	zipNeed = 10 // version 1.0
)

// encodeContainer writes members, sorted by name, as a ZIP file.
func encodeContainer(members []member) ([]byte, error) {
	slices.SortFunc(members, func(a, b member) int { return strings.Compare(a.name, b.name) })
	size := endBytes
	for _, m := range members {
		size += localBytes + centralBytes + 2*len(m.name) + len(m.data)
	}
	if size > maxBytes {
		return nil, fmt.Errorf("the bundle would have %d bytes; at most %d", size, maxBytes)
	}
	b := make([]byte, 0, size)
	var central []byte
	for i, m := range members {
		if !validName(m.name) || i > 0 && members[i-1].name == m.name {
			return nil, fmt.Errorf("no file of a bundle can have the name %q, or twice", m.name)
		}
		sum := crc32.ChecksumIEEE(m.data)
		central = appendCentral(central, m.name, sum, len(m.data), len(b))
		b = appendLocal(b, m.name, sum, len(m.data))
		b = append(b, m.data...)
	}
	at := len(b)
	b = append(b, central...)
	return appendEnd(b, len(members), len(central), at), nil
}

// common are the fields that a local and a central header share.
func common(b []byte, name string, sum uint32, size int) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(b, zipNeed)
	b = le.AppendUint16(b, 0) // flags
	b = le.AppendUint16(b, 0) // stored
	b = le.AppendUint16(b, 0) // 00:00
	b = le.AppendUint16(b, dosDate)
	b = le.AppendUint32(b, sum)
	b = le.AppendUint32(b, uint32(size))
	b = le.AppendUint32(b, uint32(size))
	b = le.AppendUint16(b, uint16(len(name)))
	return le.AppendUint16(b, 0) // no extra field
}

func appendLocal(b []byte, name string, sum uint32, size int) []byte {
	b = append(b, "PK\x03\x04"...)
	b = common(b, name, sum, size)
	return append(b, name...)
}

func appendCentral(b []byte, name string, sum uint32, size, at int) []byte {
	b = append(b, "PK\x01\x02"...)
	b = binary.LittleEndian.AppendUint16(b, zipNeed) // made by, on MS-DOS
	b = common(b, name, sum, size)
	b = append(b, make([]byte, 10)...) // no comment, disk 0, no attributes
	b = binary.LittleEndian.AppendUint32(b, uint32(at))
	return append(b, name...)
}

func appendEnd(b []byte, n, size, at int) []byte {
	le := binary.LittleEndian
	b = append(b, "PK\x05\x06\x00\x00\x00\x00"...)
	b = le.AppendUint16(b, uint16(n))
	b = le.AppendUint16(b, uint16(n))
	b = le.AppendUint32(b, uint32(size))
	b = le.AppendUint32(b, uint32(at))
	return le.AppendUint16(b, 0) // no comment
}

var errNotBundle = errors.New("it is no evidence bundle: it does not begin as one")

// parseContainer reads a ZIP file that encodeContainer could have written, and
// no other: what it returns points into data. Nothing is decompressed.
func parseContainer(data []byte) ([]member, error) {
	if len(data) > maxBytes {
		return nil, fmt.Errorf("it has %d bytes; a bundle has at most %d", len(data), maxBytes)
	}
	if !bytes.HasPrefix(data, []byte("PK\x03\x04")) {
		return nil, errNotBundle
	}
	le := binary.LittleEndian
	var members []member
	var head, central []byte
	at := 0
	for bytes.HasPrefix(data[at:], []byte("PK\x03\x04")) {
		if len(data)-at < localBytes {
			return nil, fmt.Errorf("it is cut off in the header at byte %d", at)
		}
		h := data[at:]
		sum, size, n := le.Uint32(h[14:]), int64(le.Uint32(h[18:])), int(le.Uint16(h[26:]))
		if n > maxName || int64(len(h)) < localBytes+int64(n)+size {
			return nil, fmt.Errorf("it is cut off in the file at byte %d, or the lengths there are wrong", at)
		}
		m := member{name: string(h[localBytes : localBytes+n])}
		if !validName(m.name) {
			return nil, fmt.Errorf("the file at byte %d has a name that none of a bundle can have", at)
		}
		if k := len(members); k > 0 && members[k-1].name >= m.name {
			return nil, fmt.Errorf("%s is there twice, or out of order", m.name)
		}
		if len(members) == maxFiles {
			return nil, fmt.Errorf("it has more than %d files", maxFiles)
		}
		if head = appendLocal(head[:0], m.name, sum, int(size)); !bytes.Equal(head, h[:len(head)]) {
			return nil, fmt.Errorf("the header of %s is not the one that a bundle has", m.name)
		}
		m.data = h[len(head) : len(head)+int(size) : len(head)+int(size)]
		if crc32.ChecksumIEEE(m.data) != sum {
			return nil, fmt.Errorf("%s is damaged: its CRC is wrong", m.name)
		}
		central = appendCentral(central, m.name, sum, int(size), at)
		members = append(members, m)
		at += len(head) + int(size)
	}
	if !bytes.Equal(data[at:], appendEnd(central, len(members), len(central), at)) {
		return nil, fmt.Errorf("what follows the last file, at byte %d, is not the directory of these files alone", at)
	}
	return members, nil
}
