package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"govah/measure"
)

// MaxLine bounds one line, in bytes, after decompression.
const MaxLine = 64 << 20

// Line is one line that is not empty, without its newline.
type Line struct {
	Number int   // from 1; empty lines count
	Offset int64 // of its first byte, from 0, after decompression
	Data   []byte
}

// Entry is one line, decoded; one of its pointers is set.
type Entry struct {
	Line           int
	Run            *measure.Run
	Measurement    *measure.Measurement
	Verdict        *measure.Verdict
	Location       *measure.Location
	Identification *measure.Identification
	Body           *measure.Body
	End            *measure.End
	// Other is a line of another kind, such as an OONI measurement. It is
	// valid until the next entry.
	Other []byte
}

// LineError is a line that cannot be used. Reading goes on after it.
type LineError struct {
	Line   int
	Offset int64 // of the line's first byte, after decompression
	Err    error
}

func (e *LineError) Error() string {
	return fmt.Sprintf("line %d (at byte %d): %v", e.Line, e.Offset, e.Err)
}
func (e *LineError) Unwrap() error { return e.Err }

// ErrTruncated says that the input ended in the middle of a line or of its
// compression.
var ErrTruncated = errors.New("the file ends in the middle: it was cut off, or is still being written")

var errLong = fmt.Errorf("longer than %d MiB", MaxLine>>20)

// Reader reads lines in constant memory, whatever the size of the file. It
// is for one goroutine; what is compressed is decompressed in another.
type Reader struct {
	in     *bufio.Reader
	ahead  *ahead // nil: plain
	line   int
	offset int64
	buf    []byte
}

// NewReader recognises gzip and zstd by their first bytes. A Reader that was
// not read to its end by Lines or All needs a Close.
func NewReader(r io.Reader) (*Reader, error) {
	in := bufio.NewReaderSize(r, blockBytes)
	head, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading: %w", err)
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(in)
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return nil, ErrTruncated
		}
		if err != nil {
			return nil, fmt.Errorf("it begins like gzip and is none: %w", err)
		}
		a := newAhead(z)
		return &Reader{in: bufio.NewReaderSize(a, blockBytes), ahead: a}, nil
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, fmt.Errorf("it begins like zstd and is none: %w", err)
		}
		a := newAhead(z.IOReadCloser())
		return &Reader{in: bufio.NewReaderSize(a, blockBytes), ahead: a}, nil
	}
	return &Reader{in: in}, nil
}

// Close ends the decompression; it does not close what is read from.
func (r *Reader) Close() error {
	if r.ahead != nil {
		r.ahead.close()
	}
	return nil
}

// next reads the next line that is not empty. Its Data is valid until the
// next call. At the end the error is io.EOF; a *LineError can be passed over,
// anything else ends the file. whole is false for a last line without newline.
func (r *Reader) next() (line Line, whole bool, err error) {
	for {
		r.line++
		line = Line{Number: r.line, Offset: r.offset}
		r.buf = r.buf[:0]
		length, long := 0, false
		for {
			part, err := r.in.ReadSlice('\n')
			r.offset += int64(len(part))
			length += len(part)
			if length > MaxLine+1 {
				long = true
			}
			if err == nil && length == len(part) {
				line.Data = part // the usual case: no copy
				break
			}
			if !long {
				r.buf = append(roomFor(r.buf, len(part)), part...)
				line.Data = r.buf
			}
			if err == nil {
				break
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if errors.Is(err, io.EOF) && length > 0 {
				if long {
					return line, false, &LineError{line.Number, line.Offset, errLong}
				}
				return line, false, nil
			}
			if errors.Is(err, io.EOF) {
				return line, false, io.EOF
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = ErrTruncated
			}
			return line, false, fmt.Errorf("line %d (at byte %d): %w", line.Number, r.offset, err)
		}
		if long {
			return line, true, &LineError{line.Number, line.Offset, errLong}
		}
		if line.Data = bytes.TrimRight(line.Data, "\r\n"); len(line.Data) > 0 {
			return line, true, nil
		}
	}
}

// keep gives a copy of the line just read that outlives the next one, in buf
// or in another buffer that is then the caller's.
func (r *Reader) keep(line Line, buf []byte) []byte {
	if len(r.buf) > 0 { // put together from parts: a copy already
		r.buf = buf[:0]
		return line.Data
	}
	return append(roomFor(buf[:0], len(line.Data)), line.Data...)
}

// roomFor makes room for n more bytes, in powers of two, so that a buffer used
// for one line after another soon fits them all.
func roomFor(buf []byte, n int) []byte {
	if n += len(buf); n <= cap(buf) {
		return buf
	}
	return append(make([]byte, 0, 1<<bits.Len(uint(n))), buf...)
}

// Lines reads every line undecoded. Data is valid until the next one. Errors
// of single lines are *LineError; after any other error the sequence ends.
func (r *Reader) Lines() iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		defer r.Close()
		for {
			line, _, err := r.next()
			if errors.Is(err, io.EOF) {
				return
			}
			var bad *LineError
			if !yield(line, err) || err != nil && !errors.As(err, &bad) {
				return
			}
		}
	}
}

// All reads and decodes every line. Errors of single lines are *LineError;
// after any other error the sequence ends.
func (r *Reader) All() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		defer r.Close()
		for {
			line, whole, err := r.next()
			if errors.Is(err, io.EOF) {
				return
			}
			var bad *LineError
			e := Entry{}
			if err == nil {
				if e, err = Decode(line.Data); err != nil {
					if !whole {
						err = ErrTruncated
					}
					err = &LineError{line.Number, line.Offset, err}
				}
			}
			e.Line = line.Number
			if !yield(e, err) || err != nil && !errors.As(err, &bad) {
				return
			}
		}
	}
}

// Decode reads one line of ours. What is of a type that this version does not
// know gives an Entry with only Other set.
func Decode(line []byte) (Entry, error) {
	var e Entry
	var v any
	switch Sniff(line) {
	case KindRun:
		e.Run = new(measure.Run)
		v = e.Run
	case KindMeasurement:
		e.Measurement = new(measure.Measurement)
		v = e.Measurement
	case KindVerdict:
		e.Verdict = new(measure.Verdict)
		v = e.Verdict
	case KindLocation:
		e.Location = new(measure.Location)
		v = e.Location
	case KindIdentification:
		e.Identification = new(measure.Identification)
		v = e.Identification
	case KindBody:
		e.Body = new(measure.Body)
		v = e.Body
	case KindEnd:
		e.End = new(measure.End)
		v = e.End
	default:
		if trimmed := bytes.TrimSpace(line); len(trimmed) < 2 || trimmed[0] != '{' || trimmed[len(trimmed)-1] != '}' {
			return e, errors.New("no JSON object")
		}
		e.Other = line
		return e, nil
	}
	if err := json.Unmarshal(line, v); err != nil {
		return Entry{}, fmt.Errorf("no valid record: %w", err)
	}
	return e, nil
}

// Kind is what a line holds: the type of a line of ours, or KindOONI.
type Kind string

// The kinds. A line of ours of a later version has a Kind of its own.
const (
	KindUnknown        Kind = ""
	KindRun            Kind = "run"
	KindMeasurement    Kind = "measurement"
	KindVerdict        Kind = "verdict"
	KindLocation       Kind = "location"
	KindIdentification Kind = "identification"
	KindBody           Kind = "body"
	KindEnd            Kind = "end"
	KindConnection     Kind = "connection" // in a file of its own
	KindOONI           Kind = "ooni"       // a measurement in OONI's format (its data format 0.2.0 and earlier)
)

// Sniff tells what a line holds without decoding it: a line of ours has its
// type first, one of OONI's has a "test_name".
func Sniff(line []byte) Kind {
	rest, ok := bytes.CutPrefix(bytes.TrimLeft(line, " \t"), []byte("{"))
	if !ok {
		return KindUnknown
	}
	if own, ok := bytes.CutPrefix(bytes.TrimLeft(rest, " "), []byte(`"type"`)); ok {
		own, ok = bytes.CutPrefix(bytes.TrimLeft(own, " "), []byte(":"))
		own, quoted := bytes.CutPrefix(bytes.TrimLeft(own, " "), []byte(`"`))
		if i := bytes.IndexByte(own[:min(len(own), 33)], '"'); ok && quoted && i > 0 {
			if k := Kind(own[:i]); k != KindOONI {
				return k
			}
		}
		return KindUnknown
	}
	if bytes.Contains(line, []byte(`"test_name"`)) {
		return KindOONI
	}
	return KindUnknown
}
