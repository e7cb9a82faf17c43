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
	"path/filepath"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"govah/measure"
)

// Writer appends whole lines to a measurement file. It is safe for concurrent
// use. After a failure nothing more is written, so that the lines before it
// stay whole.
type Writer struct {
	mu     sync.Mutex
	path   string
	file   *os.File
	comp   io.WriteCloser // nil: plain
	size   int64          // of the whole lines in a plain file
	buf    bytes.Buffer
	bodies map[string]bool
	err    error
}

// Create begins a new file, readable by its owner only. It compresses if the
// name ends in .gz or .zst. An existing file is not touched, unless it is
// empty.
func Create(path string) (*Writer, error) {
	f, err := createFile(path)
	if err != nil {
		return nil, err
	}
	return open(path, f, 0, map[string]bool{})
}

// CreateThrough begins a new file as Create does, of what through makes of its
// bytes: encryption, for one. It compresses first, by what the name is without
// a final ".age".
func CreateThrough(path string, through func(io.Writer) (io.WriteCloser, error)) (*Writer, error) {
	f, err := createFile(path)
	if err != nil {
		return nil, err
	}
	outer, err := through(f)
	if err != nil {
		f.Close()
		os.Remove(path)
		return nil, err
	}
	w := &Writer{path: path, file: f, comp: outer, bodies: map[string]bool{}}
	inner, err := compressor(strings.TrimSuffix(path, ".age"), outer)
	if err != nil {
		f.Close()
		os.Remove(path)
		return nil, err
	}
	if inner != nil {
		w.comp = &both{inner, outer}
	}
	return w, nil
}

// both compresses into what is written through.
type both struct {
	io.WriteCloser
	outer io.WriteCloser
}

// Close ends the two, the inner one first.
func (b *both) Close() error { return errors.Join(b.WriteCloser.Close(), b.outer.Close()) }

// NewWriter writes lines to w, uncompressed, for who keeps them in no file.
func NewWriter(w io.Writer) *Writer {
	return &Writer{path: "the measurements", comp: unclosed{w}, bodies: map[string]bool{}}
}

type unclosed struct{ io.Writer }

// Close leaves what is written to open.
func (unclosed) Close() error { return nil }

// createFile makes a new file, or takes an empty one.
func createFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		st, serr := os.Stat(path)
		if serr != nil || !st.Mode().IsRegular() || st.Size() > 0 {
			return nil, fmt.Errorf("%s exists already and is not overwritten", path)
		}
		if f, err = os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			err = f.Chmod(0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("creating the measurement file: %w", err)
	}
	return f, nil
}

// Append goes on with an interrupted file: what was cut off at its end is
// removed first. A compressed file gets a further member; if its last one was
// cut off, the lines that can be read are compressed anew, into a file next to
// it that then takes its place. Bodies that the file holds are not repeated.
func Append(path string) (*Writer, error) {
	fail := func(err error) (*Writer, error) {
		return nil, fmt.Errorf("going on with %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the measurement file: %w", err)
	}
	bodies, end, err := survey(f)
	compressed := strings.HasSuffix(path, ".gz") || strings.HasSuffix(path, ".zst")
	switch {
	case err != nil && !(compressed && errors.Is(err, ErrTruncated)):
		f.Close()
		return fail(err)
	case compressed && err != nil:
		f.Close()
		if err := salvage(path); err != nil {
			return fail(err)
		}
		if f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			return fail(err)
		}
	case !compressed:
		if err := f.Truncate(end); err != nil {
			f.Close()
			return fail(err)
		}
	}
	if end, err = f.Seek(0, io.SeekEnd); err != nil {
		f.Close()
		return fail(err)
	}
	return open(path, f, end, bodies)
}

// survey reads f from its start: which bodies it holds, and where its last
// whole line ends.
func survey(f *os.File) (bodies map[string]bool, end int64, err error) {
	bodies = map[string]bool{}
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return bodies, 0, err
	}
	r, err := NewReader(f)
	if err != nil {
		return bodies, 0, err
	}
	defer r.Close()
	for {
		line, whole, err := r.next()
		var bad *LineError
		switch {
		case errors.Is(err, io.EOF):
			if r.offset > end {
				end = r.offset // empty lines
			}
			return bodies, end, nil
		case err != nil && !errors.As(err, &bad):
			return bodies, end, err
		case !whole:
			if r.ahead != nil {
				return bodies, end, ErrTruncated
			}
			return bodies, end, nil
		}
		end = r.offset
		if Sniff(line.Data) == KindBody {
			var b struct{ SHA256 string }
			if json.Unmarshal(line.Data, &b) == nil {
				bodies[b.SHA256] = true
			}
		}
	}
}

// salvage rewrites the whole lines of a compressed file that was cut off.
func salvage(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp, err := os.CreateTemp(filepath.Dir(path), ".govah-salvage-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // nothing is left to remove once it was renamed
	w, err := open(path, tmp, 0, nil)
	if err != nil {
		return err
	}
	r, err := NewReader(in)
	if err == nil {
		defer r.Close()
		for {
			line, whole, err := r.next()
			var bad *LineError
			if errors.As(err, &bad) {
				continue
			}
			if err != nil || !whole {
				break
			}
			w.buf.Reset()
			w.buf.Write(line.Data)
			w.buf.WriteByte('\n')
			if w.write() != nil {
				break
			}
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func open(path string, f *os.File, size int64, bodies map[string]bool) (*Writer, error) {
	w := &Writer{path: path, file: f, size: size, bodies: bodies}
	var err error
	if w.comp, err = compressor(path, f); err != nil {
		f.Close()
		return nil, err
	}
	return w, nil
}

// compressor is what the ending of a name asks for, nil for none.
func compressor(path string, w io.Writer) (io.WriteCloser, error) {
	switch {
	case strings.HasSuffix(path, ".gz"):
		return gzip.NewWriter(w), nil
	case strings.HasSuffix(path, ".zst"):
		z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return nil, fmt.Errorf("compressing %s: %w", path, err)
		}
		return z, nil
	}
	return nil, nil
}

// line writes one record.
func (w *Writer) line(v any) error {
	if w.err != nil {
		return w.err
	}
	w.buf.Reset()
	enc := json.NewEncoder(&w.buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing %s: %w", w.path, err)
	}
	return w.write()
}

// write brings w.buf, a whole line, to the file.
func (w *Writer) write() error {
	if w.comp != nil {
		if _, err := w.comp.Write(w.buf.Bytes()); err != nil {
			w.err = fmt.Errorf("writing %s: %w", w.path, err)
		}
		return w.err
	}
	if _, err := w.file.Write(w.buf.Bytes()); err != nil {
		w.err = fmt.Errorf("writing %s: %w", w.path, err)
		// A disk that is full may have taken part of the line. Best effort:
		// a reader copes with what stays.
		w.file.Truncate(w.size)
		return w.err
	}
	w.size += int64(w.buf.Len())
	return nil
}

func (w *Writer) locked(v any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.line(v)
}

// Run writes the line that opens a run.
func (w *Writer) Run(r *measure.Run) error { return w.locked(r) }

// Measurement writes one measurement.
func (w *Writer) Measurement(m *measure.Measurement) error { return w.locked(m) }

// Verdict writes one verdict.
func (w *Writer) Verdict(v *measure.Verdict) error { return w.locked(v) }

// Location writes where a device sits.
func (w *Writer) Location(l *measure.Location) error { return w.locked(l) }

// Identification writes what kind of device reacts.
func (w *Writer) Identification(i *measure.Identification) error { return w.locked(i) }

// End writes the line that closes a run.
func (w *Writer) End(e *measure.End) error { return w.locked(e) }

// Body writes a body, the first time its hash is seen in this file.
func (w *Writer) Body(b *measure.Body) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bodies[b.SHA256] {
		return w.err
	}
	if err := w.line(b); err != nil {
		return err
	}
	w.bodies[b.SHA256] = true
	return nil
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
	if w.file == nil {
		return w.err
	}
	if err := w.file.Close(); err != nil && w.err == nil {
		w.err = fmt.Errorf("writing %s: %w", w.path, err)
	}
	return w.err
}
