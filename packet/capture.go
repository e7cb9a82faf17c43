package packet

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

const (
	maxCaptured   = 256 << 10 // of one frame, as in tcpdump
	maxInterfaces = 4096      // of one pcapng section
)

// ErrNotCapture says that a file is neither pcap nor pcapng.
var ErrNotCapture = errors.New("packet: neither a pcap nor a pcapng file")

// CaptureReader reads the IP packets of a pcap or pcapng file, one at a time
// and in constant memory. It does not trust the file: a frame above 256 KiB
// ends the reading with an error.
type CaptureReader struct {
	// Skipped counts the frames that held no IP packet, or that were of a
	// link type that is not read.
	Skipped int
	// Truncated counts the packets of which the file holds only a part.
	// They are returned nevertheless: their headers may be whole.
	Truncated int

	r     *bufio.Reader
	order binary.ByteOrder
	ng    bool
	nanos bool // pcap: the fraction counts nanoseconds
	link  uint32
	ifs   []captureInterface
	buf   []byte
}

type captureInterface struct {
	link   uint32
	perSec uint64 // ticks of the time stamps in a second
	offset int64  // seconds
}

// NewCaptureReader recognises the format from the first bytes.
func NewCaptureReader(r io.Reader) (*CaptureReader, error) {
	c := &CaptureReader{r: bufio.NewReaderSize(r, 64<<10)}
	magic, err := c.r.Peek(4)
	if err != nil {
		if err == io.EOF {
			return nil, ErrNotCapture
		}
		return nil, fmt.Errorf("packet: reading a capture: %w", err)
	}
	switch binary.LittleEndian.Uint32(magic) {
	case 0x0a0d0d0a:
		c.ng = true
		return c, nil
	case 0xa1b2c3d4:
		c.order = binary.LittleEndian
	case 0xd4c3b2a1:
		c.order = binary.BigEndian
	case 0xa1b23c4d:
		c.order, c.nanos = binary.LittleEndian, true
	case 0x4d3cb2a1:
		c.order, c.nanos = binary.BigEndian, true
	default:
		return nil, ErrNotCapture
	}
	head, err := c.read(24)
	if err != nil {
		return nil, fmt.Errorf("packet: a pcap file's header: %w", err)
	}
	c.link = c.order.Uint32(head[20:]) & 0x0fffffff
	return c, nil
}

// read gives the next n bytes, valid until the next call.
func (c *CaptureReader) read(n int) ([]byte, error) {
	if cap(c.buf) < n {
		c.buf = make([]byte, n)
	}
	c.buf = c.buf[:n]
	_, err := io.ReadFull(c.r, c.buf)
	return c.buf, err
}

// Next gives the next IP packet and the time it was captured at. The bytes
// are valid until the next call. The end is io.EOF; a file that was cut off in
// the middle of a frame ends with io.ErrUnexpectedEOF.
func (c *CaptureReader) Next() (at time.Time, raw []byte, err error) {
	for {
		var frame []byte
		var link uint32
		whole := true
		if c.ng {
			at, link, frame, whole, err = c.nextBlock()
		} else {
			at, link, frame, whole, err = c.nextRecord()
		}
		if err != nil {
			return time.Time{}, nil, err
		}
		if raw = ipOf(link, frame); raw == nil {
			c.Skipped++
			continue
		}
		if !whole {
			c.Truncated++
		}
		return at, raw, nil
	}
}

func (c *CaptureReader) nextRecord() (at time.Time, link uint32, frame []byte, whole bool, err error) {
	head, err := c.read(16)
	if err != nil {
		return at, 0, nil, false, err // io.EOF between two records is the end
	}
	sec, frac := int64(c.order.Uint32(head)), int64(c.order.Uint32(head[4:]))
	n, orig := c.order.Uint32(head[8:]), c.order.Uint32(head[12:])
	if n > maxCaptured {
		return at, 0, nil, false, fmt.Errorf("packet: a frame of %d bytes in a capture, more than the %d that are read: the file is damaged", n, maxCaptured)
	}
	if !c.nanos {
		frac *= 1000
	}
	if frame, err = c.read(int(n)); err != nil {
		return at, 0, nil, false, io.ErrUnexpectedEOF
	}
	return time.Unix(sec, frac).UTC(), c.link, frame, n >= orig, nil
}

// nextBlock reads pcapng blocks up to the next packet
// (draft-ietf-opsawg-pcapng).
func (c *CaptureReader) nextBlock() (at time.Time, link uint32, frame []byte, whole bool, err error) {
	fail := func(err error) (time.Time, uint32, []byte, bool, error) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return time.Time{}, 0, nil, false, err
	}
	for {
		head, err := c.read(8)
		if err != nil {
			return at, 0, nil, false, err
		}
		if binary.LittleEndian.Uint32(head) == 0x0a0d0d0a { // a section; the same in both orders
			length := [4]byte(head[4:8])
			magic, err := c.read(4)
			if err != nil {
				return fail(err)
			}
			switch binary.LittleEndian.Uint32(magic) {
			case 0x1a2b3c4d:
				c.order = binary.LittleEndian
			case 0x4d3c2b1a:
				c.order = binary.BigEndian
			default:
				return fail(ErrNotCapture)
			}
			n := c.order.Uint32(length[:])
			if n < 28 || n%4 != 0 {
				return fail(errBlock(n))
			}
			c.ifs = c.ifs[:0]
			if _, err := io.CopyN(io.Discard, c.r, int64(n)-12); err != nil {
				return fail(err)
			}
			continue
		}
		if c.order == nil {
			return fail(ErrNotCapture)
		}
		typ, n := c.order.Uint32(head), c.order.Uint32(head[4:])
		if n < 12 || n%4 != 0 {
			return fail(errBlock(n))
		}
		if typ != 1 && typ != 2 && typ != 3 && typ != 6 {
			if _, err := io.CopyN(io.Discard, c.r, int64(n)-8); err != nil {
				return fail(err)
			}
			continue
		}
		if n > maxCaptured+4096 {
			return fail(errBlock(n))
		}
		body, err := c.read(int(n) - 8)
		if err != nil {
			return fail(err)
		}
		body = body[:len(body)-4] // the length again
		switch typ {
		case 1:
			if err := c.describe(body); err != nil {
				return fail(err)
			}
			continue
		case 3: // simple: no time, first interface
			if len(body) < 4 || len(c.ifs) == 0 {
				return fail(errBlock(n))
			}
			orig := c.order.Uint32(body)
			frame = body[4:]
			if int64(orig) < int64(len(frame)) {
				frame = frame[:orig]
			}
			return time.Time{}, c.ifs[0].link, frame, int64(len(frame)) >= int64(orig), nil
		}
		if len(body) < 20 {
			return fail(errBlock(n))
		}
		id := c.order.Uint32(body)
		if typ == 2 {
			id = uint32(c.order.Uint16(body))
		}
		if int64(id) >= int64(len(c.ifs)) {
			return fail(fmt.Errorf("packet: a capture's frame names interface %d, but %d are described", id, len(c.ifs)))
		}
		ticks := uint64(c.order.Uint32(body[4:]))<<32 | uint64(c.order.Uint32(body[8:]))
		have, orig := c.order.Uint32(body[12:]), c.order.Uint32(body[16:])
		if int64(have) > int64(len(body)-20) {
			return fail(errBlock(n))
		}
		i := c.ifs[id]
		return i.time(ticks), i.link, body[20 : 20+have], have >= orig, nil
	}
}

func errBlock(n uint32) error {
	return fmt.Errorf("packet: a pcapng block of %d bytes is malformed: the file is damaged", n)
}

// describe reads an interface description block.
func (c *CaptureReader) describe(b []byte) error {
	if len(b) < 8 {
		return errBlock(uint32(len(b)))
	}
	if len(c.ifs) >= maxInterfaces {
		return fmt.Errorf("packet: a capture describes more than %d interfaces", maxInterfaces)
	}
	i := captureInterface{link: uint32(c.order.Uint16(b)), perSec: 1_000_000}
	for o := b[8:]; len(o) >= 4; {
		code, n := c.order.Uint16(o), int(c.order.Uint16(o[2:]))
		if code == 0 || 4+n > len(o) {
			break
		}
		v := o[4 : 4+n]
		switch {
		case code == 9 && n == 1: // if_tsresol
			base, exp := uint64(10), int(v[0]&0x7f)
			if v[0]&0x80 != 0 {
				base = 2
			}
			i.perSec = 1
			for ; exp > 0; exp-- {
				if i.perSec > math.MaxUint64/base {
					return errors.New("packet: a capture's time stamps are of a resolution that is not read")
				}
				i.perSec *= base
			}
		case code == 14 && n == 8: // if_tsoffset
			i.offset = int64(c.order.Uint64(v))
		}
		o = o[min(len(o), 4+(n+3)/4*4):]
	}
	c.ifs = append(c.ifs, i)
	return nil
}

func (i captureInterface) time(ticks uint64) time.Time {
	sec, rest := ticks/i.perSec, ticks%i.perSec
	var ns int64
	switch {
	case i.perSec <= 1_000_000_000 && 1_000_000_000%i.perSec == 0:
		ns = int64(rest * (1_000_000_000 / i.perSec))
	default: // resolutions of two's powers, or finer than a nanosecond
		ns = int64(float64(rest) / float64(i.perSec) * 1e9)
	}
	return time.Unix(int64(sec)+i.offset, ns).UTC()
}

// ipOf finds the IP packet in a frame of a link type
// (tcpdump.org/linktypes.html); nil if there is none.
func ipOf(link uint32, b []byte) []byte {
	at, kind := 0, -1
	switch link {
	case 101, 12, 14, 228, 229: // RAW, its BSD numbers, IPV4, IPV6
	case 0, 108: // NULL, LOOP: the address family in four bytes
		at = 4
	case 1: // Ethernet
		at, kind = 14, 12
	case 113: // LINUX_SLL
		at, kind = 16, 14
	case 276: // LINUX_SLL2
		at, kind = 20, 0
	default:
		return nil
	}
	if len(b) < at {
		return nil
	}
	if kind >= 0 {
		typ := binary.BigEndian.Uint16(b[kind:])
		for (typ == 0x8100 || typ == 0x88a8) && len(b) >= at+4 { // VLAN tags
			typ = binary.BigEndian.Uint16(b[at+2:])
			at += 4
		}
		if typ != 0x0800 && typ != 0x86dd {
			return nil
		}
	}
	b = b[at:]
	if len(b) < 20 || b[0]>>4 != 4 && b[0]>>4 != 6 {
		return nil
	}
	return b
}
