package evidence

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
)

var crashes = flag.Int("crashes", 1000, "how often TestSealCrash loses power, and how often the disk is full")

var errPower = errors.New("the power is gone")

// simulated is a folder whose power fails, or whose disk is full, at a call of
// the test's choice. What was not brought to the disk is then there in part.
type simulated struct {
	rng     *rand.Rand
	left    int   // calls until it fails
	failure error // errPower, or what the system would say once

	files map[string]*simulatedFile // as programs see them
	disk  map[string]*simulatedFile // by the names on the medium
	names []func(map[string]*simulatedFile)
	n     int
}

type simulatedFile struct {
	d         *simulated
	name      string
	now, kept []byte
}

// fails says whether this call does, and before that whether it still acts.
func (d *simulated) fails() (acts bool, err error) {
	if errors.Is(d.failure, errPower) && d.left <= 0 {
		return false, errPower
	}
	if d.left--; d.left == 0 {
		return d.rng.IntN(2) == 0 && errors.Is(d.failure, errPower), d.failure
	}
	return true, nil
}

func (d *simulated) name(f func(map[string]*simulatedFile)) {
	f(d.files)
	d.names = append(d.names, f)
}

func (d *simulated) create() (file, error) {
	acts, err := d.fails()
	d.n++
	f := &simulatedFile{d: d, name: fmt.Sprintf("tmp%d", d.n)}
	if acts {
		d.name(func(m map[string]*simulatedFile) { m[f.name] = f })
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d *simulated) rename(from, to string) error {
	acts, err := d.fails()
	if acts {
		d.name(func(m map[string]*simulatedFile) {
			if f := m[from]; f != nil {
				m[to] = f
				delete(m, from)
			}
		})
	}
	return err
}

func (d *simulated) remove(name string) error {
	acts, err := d.fails()
	if acts {
		d.name(func(m map[string]*simulatedFile) { delete(m, name) })
	}
	return err
}

func (d *simulated) sync() error {
	acts, err := d.fails()
	if acts {
		for _, f := range d.names {
			f(d.disk)
		}
		d.names = nil
	}
	return err
}

func (f *simulatedFile) Name() string { return f.name }
func (f *simulatedFile) Close() error { _, err := f.d.fails(); return err }

func (f *simulatedFile) Write(p []byte) (int, error) {
	acts, err := f.d.fails()
	n := len(p)
	if err != nil {
		n = f.d.rng.IntN(len(p) + 1)
	}
	if acts || err != nil {
		f.now = append(f.now, p[:n]...)
	}
	return n, err
}

func (f *simulatedFile) Sync() error {
	acts, err := f.d.fails()
	if acts {
		f.kept = bytes.Clone(f.now)
	}
	return err
}

// after is the medium when the power is back: names up to some change, of
// each file what was synced and, of the rest, blocks at random.
func (d *simulated) after() map[string][]byte {
	for _, f := range d.names[:d.rng.IntN(len(d.names)+1)] {
		f(d.disk)
	}
	out := map[string][]byte{}
	for name, f := range d.disk {
		if bytes.Equal(f.kept, f.now) {
			out[name] = f.kept
			continue
		}
		torn := make([]byte, d.rng.IntN(len(f.now)+1))
		copy(torn, f.kept)
		for at := 0; at < len(torn); at += 512 {
			if d.rng.IntN(2) == 0 {
				copy(torn[at:min(at+512, len(torn))], f.now[at:])
			}
		}
		out[name] = torn
	}
	return out
}

// TestSealCrash: whenever the power fails while a bundle is written, it is
// there whole afterwards or not at all, and there if that was said; what was
// there before stays. When the disk is full, nothing is left.
func TestSealCrash(t *testing.T) {
	bundle := sealed(t)
	const path, measurements = "case.govah", "case.jsonl"
	lines := []byte("{\"type\":\"run\",\"schema\":1,\"run\":\"r1\"}\n")
	var whole, absent, acknowledged, refused int
	for i := range *crashes {
		rng := rand.New(rand.NewPCG(uint64(i), 0x7365616c))
		start := func(failure error) *simulated {
			kept := &simulatedFile{name: measurements, now: lines, kept: lines}
			d := &simulated{rng: rng, left: 1 + rng.IntN(7), failure: failure, files: map[string]*simulatedFile{measurements: kept}, disk: map[string]*simulatedFile{measurements: kept}}
			kept.d = d
			return d
		}
		d := start(errPower)
		err := write(d, path, bundle)
		medium := d.after()
		if !bytes.Equal(medium[measurements], lines) {
			t.Fatalf("crash %d: the measurements are gone", i)
		}
		data, there := medium[path]
		if there {
			if b, oerr := Open(data); oerr != nil || !bytes.Equal(data, bundle) {
				t.Fatalf("crash %d: half a bundle: %v, %v", i, b, oerr)
			}
			whole++
		} else {
			absent++
		}
		if err == nil {
			acknowledged++
			if !there {
				t.Fatalf("crash %d: it was said to be there, and is not", i)
			}
		}

		full := start(syscall.ENOSPC)
		if err := write(full, path, bundle); errors.Is(err, syscall.ENOSPC) {
			refused++
			for name, f := range full.files {
				if name == path && !bytes.Equal(f.now, bundle) || name != path && name != measurements {
					t.Fatalf("full disk %d: %s of %d bytes is left behind", i, name, len(f.now))
				}
			}
		} else if err != nil || !bytes.Equal(full.files[path].now, bundle) {
			t.Fatalf("full disk %d: %v", i, err)
		}
	}
	t.Logf("%d crashes: %d whole, %d absent, %d acknowledged; %d full disks refused", *crashes, whole, absent, acknowledged, refused)
	if whole == 0 || absent == 0 || refused == 0 {
		t.Errorf("the crashes were not at every step: %d whole, %d absent, %d refused", whole, absent, refused)
	}
}
