package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"govah/evidence"
)

// The first bytes of what is no measurement file but may hold one.
const (
	zipMagic = "PK\x03\x04"
	ageMagic = "age-encryption.org/v1"
	// sealedBytes bounds a sealed file that is read whole.
	sealedBytes = 256 << 20
)

// unverified is a sealed file that is not what was sealed, or of which that
// cannot be said.
func unverified(path string, err error) error {
	if errors.Is(err, evidence.ErrAlgorithm) {
		return &hinted{err: fmt.Errorf("%s cannot be verified: %w", path, err), hint: "a newer version of govah may know it", code: exitUnverified}
	}
	return &hinted{err: fmt.Errorf("%s does not verify: %w", path, err), code: exitUnverified,
		hint: "it was changed, or is not whole; ask for it again, and use nothing of this one"}
}

// openMeasurements opens a measurement file, or the measurements in a sealed
// file, which is verified first: what does not verify is not read. bundle is
// nil for a file that is not sealed.
func (a *app) openMeasurements(ctx context.Context, path string) (in io.ReadCloser, bundle *evidence.Bundle, err error) {
	f, err := a.open(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	r := bufio.NewReaderSize(f, 64<<10)
	head, err := r.Peek(len(ageMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte(ageMagic)):
		f.Close()
		return nil, nil, hint(fmt.Errorf("%s is encrypted", path), "who has the key decrypts it with age: `age -d -i KEY -o case.govah %s`", path)
	case !bytes.HasPrefix(head, []byte(zipMagic)):
		return struct {
			io.Reader
			io.Closer
		}{r, f}, nil, nil
	}
	data, err := io.ReadAll(io.LimitReader(r, sealedBytes+1))
	f.Close()
	switch {
	case err != nil:
		return nil, nil, err
	case len(data) > sealedBytes:
		return nil, nil, unverified(path, fmt.Errorf("it has more than %d bytes", sealedBytes))
	}
	if bundle, err = evidence.Open(data); err != nil {
		return nil, nil, unverified(path, err)
	}
	m := bundle.File(evidence.MeasurementsName)
	if m == nil {
		return nil, nil, hint(fmt.Errorf("%s verifies, and holds no measurements", path), "`govah verify %s` says what is in it", path)
	}
	return io.NopCloser(bytes.NewReader(m.Data)), bundle, nil
}

// isSealed says whether a regular file begins as a sealed one does, encrypted
// or not.
func isSealed(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(ageMagic))
	n, _ := io.ReadFull(f, head)
	return bytes.HasPrefix(head[:n], []byte(zipMagic)) || string(head[:n]) == ageMagic
}
