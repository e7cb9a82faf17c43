package packet

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"time"
	"unicode/utf8"
)

// maxComment is of one packet, in bytes; a reader takes a block that is so
// much larger than its frame.
const maxComment = 1 << 10

// Direction of a captured packet, as pcapng's epb_flags have it.
type Direction uint8

// The directions.
const (
	NoDirection Direction = iota // not known
	Inbound
	Outbound
)

// CaptureWriter writes IP packets as a pcapng file (draft-ietf-opsawg-pcapng):
// one section in little-endian order, one interface of link type RAW, times in
// nanoseconds. It holds one block at a time and writes each at once.
type CaptureWriter struct {
	w   io.Writer
	buf []byte
}

// NewCaptureWriter begins a file.
func NewCaptureWriter(w io.Writer) (*CaptureWriter, error) {
	c := &CaptureWriter{w: w}
	c.begin(0x0a0d0d0a)
	c.u32(0x1a2b3c4d) // the byte order
	c.u16(1)          // version 1.0
	c.u16(0)
	c.u32(math.MaxUint32) // the section's length: not known
	c.u32(math.MaxUint32)
	c.end()
	if err := c.flush(); err != nil {
		return nil, err
	}
	c.begin(1)
	c.u16(101) // RAW: IPv4 or IPv6 by the first four bits
	c.u16(0)
	c.u32(maxCaptured)
	c.option(9, []byte{9}) // if_tsresol: 10^-9 s
	c.option(0, nil)
	c.end()
	return c, c.flush()
}

// Write appends one IP packet. A comment, "" for none, is text of at most 1 KiB.
func (c *CaptureWriter) Write(at time.Time, raw []byte, d Direction, comment string) error {
	return c.WriteCut(at, raw, len(raw), d, comment)
}

// WriteCut is Write for a packet of length bytes of which raw is only the
// beginning.
func (c *CaptureWriter) WriteCut(at time.Time, raw []byte, length int, d Direction, comment string) error {
	switch {
	case len(raw) > maxCaptured:
		return fmt.Errorf("packet: writing a capture: a packet of %d bytes, more than %d", len(raw), maxCaptured)
	case length < len(raw) || length > math.MaxInt32:
		return fmt.Errorf("packet: writing a capture: %d bytes of a packet of %d", len(raw), length)
	case len(comment) > maxComment || !utf8.ValidString(comment):
		return fmt.Errorf("packet: writing a capture: a comment is UTF-8 of at most %d bytes", maxComment)
	case at.Unix() < 0 || at.Unix() >= math.MaxInt64/1_000_000_000:
		return fmt.Errorf("packet: writing a capture: a packet of %v", at)
	}
	ns := uint64(at.UnixNano())
	c.begin(6)
	c.u32(0) // the interface
	c.u32(uint32(ns >> 32))
	c.u32(uint32(ns))
	c.u32(uint32(len(raw)))
	c.u32(uint32(length))
	c.padded(raw)
	if comment != "" {
		c.option(1, []byte(comment))
	}
	if d != NoDirection {
		c.option(2, []byte{byte(d), 0, 0, 0})
	}
	if comment != "" || d != NoDirection {
		c.option(0, nil)
	}
	c.end()
	return c.flush()
}

// Statistics appends how many packets there were of the interface, how many of
// them the file does not hold, and a comment as in Write; it is the last block.
func (c *CaptureWriter) Statistics(at time.Time, seen, missing uint64, comment string) error {
	if len(comment) > maxComment || !utf8.ValidString(comment) {
		return fmt.Errorf("packet: writing a capture: a comment is UTF-8 of at most %d bytes", maxComment)
	}
	ns := uint64(max(0, at.UnixNano()))
	c.begin(5)
	c.u32(0) // the interface
	c.u32(uint32(ns >> 32))
	c.u32(uint32(ns))
	if comment != "" {
		c.option(1, []byte(comment))
	}
	c.option(4, binary.LittleEndian.AppendUint64(nil, seen))    // isb_ifrecv
	c.option(5, binary.LittleEndian.AppendUint64(nil, missing)) // isb_ifdrop
	c.option(0, nil)
	c.end()
	return c.flush()
}

func (c *CaptureWriter) u16(v uint16) { c.buf = binary.LittleEndian.AppendUint16(c.buf, v) }
func (c *CaptureWriter) u32(v uint32) { c.buf = binary.LittleEndian.AppendUint32(c.buf, v) }

func (c *CaptureWriter) padded(b []byte) {
	c.buf = append(c.buf, b...)
	for len(c.buf)%4 != 0 {
		c.buf = append(c.buf, 0)
	}
}

func (c *CaptureWriter) option(code uint16, v []byte) {
	c.u16(code)
	c.u16(uint16(len(v)))
	c.padded(v)
}

// begin opens a block; end puts its length before and behind it.
func (c *CaptureWriter) begin(typ uint32) {
	c.buf = c.buf[:0]
	c.u32(typ)
	c.u32(0)
}

func (c *CaptureWriter) end() {
	c.u32(uint32(len(c.buf) + 4))
	binary.LittleEndian.PutUint32(c.buf[4:], uint32(len(c.buf)))
}

func (c *CaptureWriter) flush() error {
	if _, err := c.w.Write(c.buf); err != nil {
		return fmt.Errorf("packet: writing a capture: %w", err)
	}
	return nil
}
