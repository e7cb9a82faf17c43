package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"govah/measure"
)

// MaxLine bounds one line, in bytes, after decompression.
const MaxLine = 64 << 20

// Entry is one line of a file; one of its pointers is set.
type Entry struct {
	Line        int
	Run         *measure.Run
	Measurement *measure.Measurement
	Verdict     *measure.Verdict
	Body        *measure.Body
	End         *measure.End
	// Other is a line of another kind, such as an OONI measurement. It is
	// valid until the next entry.
	Other []byte
}

// LineError is a line that cannot be used. Reading goes on after it.
type LineError struct {
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// ErrTruncated says that the input ended in the middle of a line or of its
// compression.
var ErrTruncated = errors.New("the file ends in the middle: it was cut off, or is still being written")

// Reader reads lines in constant memory, whatever the size of the file.
type Reader struct {
	in   *bufio.Reader
	line int
	buf  []byte
}

// NewReader recognises gzip and zstd by their first bytes.
func NewReader(r io.Reader) (*Reader, error) {
	in := bufio.NewReaderSize(r, 1<<18)
	head, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading: %w", err)
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("it begins like gzip and is none: %w", err)
		}
		in = bufio.NewReaderSize(z, 1<<18)
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, fmt.Errorf("it begins like zstd and is none: %w", err)
		}
		in = bufio.NewReaderSize(z.IOReadCloser(), 1<<18)
	}
	return &Reader{in: in}, nil
}

// Next reads the next line that is not empty, without its newline. The slice
// is valid until the next call. At the end the error is io.EOF; a *LineError
// can be passed over, anything else ends the file.
func (r *Reader) Next() (line []byte, number int, err error) {
	for {
		r.line++
		r.buf = r.buf[:0]
		long := false
		for {
			part, err := r.in.ReadSlice('\n')
			if len(r.buf)+len(part) > MaxLine {
				long = true
				r.buf = r.buf[:0]
			}
			if !long {
				if err == nil && len(r.buf) == 0 {
					// The usual case: no copy.
					part = bytes.TrimRight(part, "\r\n")
					if len(part) == 0 {
						break
					}
					return part, r.line, nil
				}
				r.buf = append(r.buf, part...)
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if err != nil {
				if errors.Is(err, io.EOF) {
					if len(r.buf) == 0 && !long {
						return nil, r.line, io.EOF
					}
					if long {
						return nil, r.line, &LineError{r.line, fmt.Errorf("longer than %d MiB", MaxLine>>20)}
					}
					return bytes.TrimRight(r.buf, "\r\n"), r.line, nil
				}
				if errors.Is(err, io.ErrUnexpectedEOF) {
					return nil, r.line, fmt.Errorf("line %d: %w", r.line, ErrTruncated)
				}
				return nil, r.line, fmt.Errorf("line %d: %w", r.line, err)
			}
			if long {
				return nil, r.line, &LineError{r.line, fmt.Errorf("longer than %d MiB", MaxLine>>20)}
			}
			if out := bytes.TrimRight(r.buf, "\r\n"); len(out) > 0 {
				return out, r.line, nil
			}
			break
		}
	}
}

// Decode reads one line of ours. What is of a type that this version does not
// know gives an Entry with only Other set.
func Decode(line []byte) (Entry, error) {
	var e Entry
	into := func(v any) error {
		if err := json.Unmarshal(line, v); err != nil {
			return fmt.Errorf("no valid record: %w", err)
		}
		return nil
	}
	switch Sniff(line) {
	case "run":
		e.Run = new(measure.Run)
		return e, into(e.Run)
	case "measurement":
		e.Measurement = new(measure.Measurement)
		return e, into(e.Measurement)
	case "verdict":
		e.Verdict = new(measure.Verdict)
		return e, into(e.Verdict)
	case "body":
		e.Body = new(measure.Body)
		return e, into(e.Body)
	case "end":
		e.End = new(measure.End)
		return e, into(e.End)
	}
	if len(line) == 0 || line[0] != '{' || !bytes.HasSuffix(bytes.TrimRight(line, " \t"), []byte("}")) {
		return e, errors.New("no JSON object")
	}
	e.Other = line
	return e, nil
}

// Sniff tells the type of a line of ours, "" for any other, without decoding
// it: our writer puts the type first.
func Sniff(line []byte) string {
	rest, ok := bytes.CutPrefix(bytes.TrimLeft(line, " \t"), []byte(`{"type":"`))
	if !ok {
		return ""
	}
	i := bytes.IndexByte(rest, '"')
	if i < 0 || i > 32 {
		return ""
	}
	return string(rest[:i])
}

// All reads every line. Errors of single lines are *LineError; after any other
// error the sequence ends.
func (r *Reader) All() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for {
			line, n, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			var bad *LineError
			if err != nil && !errors.As(err, &bad) {
				yield(Entry{Line: n}, err)
				return
			}
			e := Entry{Line: n}
			if err == nil {
				if e, err = Decode(line); err != nil {
					err = &LineError{n, err}
				}
				e.Line = n
			}
			if !yield(e, err) {
				return
			}
		}
	}
}
