// Package record reads and writes measurement files: JSON Lines, plain or
// compressed (docs/formats/measurement-v1.md).
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"govah/measure"
)

// Writer appends whole lines to a measurement file. It is safe for concurrent
// use.
type Writer struct {
	mu     sync.Mutex
	path   string
	file   *os.File
	comp   io.WriteCloser // nil: plain
	buf    bytes.Buffer
	bodies map[string]bool
	err    error
}

// Create begins a new file, readable by its owner only. It compresses if the
// name ends in .gz or .zst. An existing file is not touched.
func Create(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("%s exists already and is not overwritten", path)
		}
		return nil, fmt.Errorf("creating the measurement file: %w", err)
	}
	return open(path, f)
}

// Append goes on with an interrupted file. A last line that was cut off is
// removed first. A compressed file gets a further member.
func Append(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the measurement file: %w", err)
	}
	if !strings.HasSuffix(path, ".gz") && !strings.HasSuffix(path, ".zst") {
		if err := trimTail(f); err != nil {
			f.Close()
			return nil, fmt.Errorf("repairing the end of %s: %w", path, err)
		}
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		f.Close()
		return nil, fmt.Errorf("opening the measurement file: %w", err)
	}
	return open(path, f)
}

// trimTail removes what follows the last newline.
func trimTail(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	end := st.Size()
	for end > 0 {
		n := min(end, int64(len(buf)))
		if _, err := f.ReadAt(buf[:n], end-n); err != nil {
			return err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return f.Truncate(end - n + int64(i) + 1)
		}
		end -= n
	}
	return f.Truncate(0)
}

func open(path string, f *os.File) (*Writer, error) {
	w := &Writer{path: path, file: f, bodies: map[string]bool{}}
	switch {
	case strings.HasSuffix(path, ".gz"):
		w.comp = gzip.NewWriter(f)
	case strings.HasSuffix(path, ".zst"):
		z, err := zstd.NewWriter(f, zstd.WithEncoderConcurrency(1))
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("compressing %s: %w", path, err)
		}
		w.comp = z
	}
	return w, nil
}

// line writes one record. After a failure nothing more is written, so that
// what is there stays whole up to its last line.
func (w *Writer) line(v any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.buf.Reset()
	enc := json.NewEncoder(&w.buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing %s: %w", w.path, err)
	}
	var err error
	if w.comp != nil {
		_, err = w.comp.Write(w.buf.Bytes())
	} else {
		_, err = w.file.Write(w.buf.Bytes())
	}
	if err != nil {
		w.err = fmt.Errorf("writing %s: %w", w.path, err)
	}
	return w.err
}

// Run writes the line that opens a run.
func (w *Writer) Run(r *measure.Run) error { return w.line(r) }

// Measurement writes one measurement.
func (w *Writer) Measurement(m *measure.Measurement) error { return w.line(m) }

// Verdict writes one verdict.
func (w *Writer) Verdict(v *measure.Verdict) error { return w.line(v) }

// End writes the line that closes a run.
func (w *Writer) End(e *measure.End) error { return w.line(e) }

// Body writes a body, the first time its hash is seen.
func (w *Writer) Body(b *measure.Body) error {
	w.mu.Lock()
	seen := w.bodies[b.SHA256]
	w.bodies[b.SHA256] = true
	w.mu.Unlock()
	if seen {
		return nil
	}
	return w.line(b)
}

// Flush brings everything to the file, so that it can be read.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f, ok := w.comp.(interface{ Flush() error }); ok && w.err == nil {
		if err := f.Flush(); err != nil {
			w.err = fmt.Errorf("writing %s: %w", w.path, err)
		}
	}
	return w.err
}

// Close ends the file. It returns the first failure of all writing.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.comp != nil {
		if err := w.comp.Close(); err != nil && w.err == nil {
			w.err = fmt.Errorf("writing %s: %w", w.path, err)
		}
	}
	if err := w.file.Close(); err != nil && w.err == nil {
		w.err = fmt.Errorf("writing %s: %w", w.path, err)
	}
	return w.err
}
