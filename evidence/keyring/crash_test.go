package keyring

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

var crashes = flag.Int("crashes", 1000, "how often TestCrashes loses power")

// model is what has been acknowledged, and what must not be found again.
type model struct {
	epoch    int
	count    int
	last     []byte
	seed     []byte
	dead     [][]byte // seeds
	inFlight string
	root     []byte
	roots    [][]byte // of this epoch
	gone     [][]byte // of those that have ended
}

func simulatedStore(d *simulated, now *time.Time) *Store {
	return &Store{disk: func(bool) (disk, error) { return d, nil }, now: func() time.Time { return *now }, cost: 1}
}

// step uses the store once, at random. inFlight is what was begun and not
// acknowledged.
func (m *model) step(s *Store, r *rand.Rand, now *time.Time) error {
	*now = now.Add(time.Duration(r.IntN(200)) * time.Hour)
	m.root = nil
	acknowledged := func(k *Key) {
		if m.seed != nil && k.Epoch() != m.epoch {
			m.dead = append(m.dead, m.seed)
			m.count, m.last = 0, nil
			m.gone, m.roots = append(m.gone, m.roots...), nil
		}
		m.epoch, m.seed, m.count = k.Epoch(), bytes.Clone(k.state.Seed), k.use.Count
	}
	if r.IntN(3) == 0 {
		m.inFlight = "next"
		k, err := s.Next("a", nil, Rotation{Link: m.epoch > 0 && r.IntN(2) == 0})
		if err != nil {
			return err
		}
		defer k.Close()
		acknowledged(k)
		m.inFlight = ""
		return nil
	}
	m.inFlight = "use"
	k, err := s.Use("a", nil)
	if err != nil {
		return err
	}
	defer k.Close()
	acknowledged(k)
	m.inFlight, m.root = "done", binary.BigEndian.AppendUint64([]byte("root"), r.Uint64())
	m.roots = append(m.roots, m.root)
	if err := k.Done(m.root); err != nil {
		return err
	}
	m.last, m.inFlight = m.root, ""
	return nil
}

// check opens the store again and compares it with what was acknowledged.
func (m *model) check(t *testing.T, d *simulated, now *time.Time) {
	t.Helper()
	k, err := simulatedStore(d, now).Get("a", nil)
	if errors.Is(err, ErrNoKey) && m.epoch == 0 {
		return
	}
	if err != nil {
		t.Fatalf("in flight %q: after epoch %d was acknowledged: %v", m.inFlight, m.epoch, err)
	}
	defer k.Close()
	switch k.Epoch() {
	case m.epoch:
		if !bytes.Equal(k.state.Seed, m.seed) {
			t.Fatal("another key under the same epoch")
		}
		if k.use.Count < m.count {
			t.Fatalf("counted %d uses, and finds %d", m.count, k.use.Count)
		}
		if !bytes.Equal(k.use.Last, m.last) && !(m.inFlight == "done" && bytes.Equal(k.use.Last, m.root)) {
			t.Fatalf("root %x, %x was acknowledged (in flight %q)", k.use.Last, m.last, m.inFlight)
		}
		m.count, m.last = k.use.Count, k.use.Last
	case m.epoch + 1:
		if m.inFlight == "done" || m.inFlight == "" {
			t.Fatalf("epoch %d began by itself", k.Epoch())
		}
		if m.seed != nil {
			m.dead = append(m.dead, m.seed)
		}
		m.gone, m.roots = append(m.gone, m.roots...), nil
		m.epoch, m.seed, m.count, m.last = k.Epoch(), bytes.Clone(k.state.Seed), k.use.Count, k.use.Last
	default:
		t.Fatalf("epoch %d is current, %d was acknowledged", k.Epoch(), m.epoch)
	}
	for _, seed := range m.dead {
		if d.holds([]byte(base64.StdEncoding.EncodeToString(seed))) {
			t.Fatal("the seed of an epoch that has ended is still on the medium")
		}
	}
	m.unlinked(t, d)
	for name := range d.names {
		if _, _, ok := parseKeyFile(name); !ok && name != k.id+useEnding {
			t.Fatalf("%s was left behind", name)
		}
	}
}

// unlinked says that no file tells what was sealed in an epoch that has ended.
func (m *model) unlinked(t *testing.T, d *simulated) {
	t.Helper()
	for name, i := range d.names {
		for _, root := range m.gone {
			if bytes.Contains(i.now, []byte(base64.StdEncoding.EncodeToString(root))) {
				t.Fatalf("%s holds what was sealed in an epoch that has ended", name)
			}
		}
	}
}

// At no cut of power does an old seed come back, or is the current one lost.
func TestCrashes(t *testing.T) {
	t.Parallel()
	cuts := 0
	for seed := uint64(0); cuts < *crashes; seed++ {
		r := rand.New(rand.NewPCG(seed, 5))
		now := time.Unix(1_800_000_000, 0)
		d, m := newSimulated(), &model{}
		for range 6 {
			d.calls, d.cut = 0, 1+r.IntN(40)
			if r.IntN(2) == 0 { // and before that something fails once
				d.fail = 1 + r.IntN(d.cut)
				d.upTo = d.fail
			}
			func() {
				defer func() {
					if p := recover(); p != nil {
						if _, ok := p.(powerCut); !ok {
							panic(p)
						}
						cuts++
					}
				}()
				s := simulatedStore(d, &now)
				for {
					err := m.step(s, r, &now)
					if err != nil && !errors.Is(err, errFull) {
						t.Fatalf("seed %d: %v", seed, err)
					}
					if err != nil {
						m.check(t, d, &now)
					}
					m.unlinked(t, d)
				}
			}()
			d = d.crash(r)
			m.check(t, d, &now)
		}
	}
	t.Logf("%d cuts of power", cuts)
}

// A write, sync, rename or removal that fails, once or from then on, costs no
// key and leaves nothing behind; the disk works again afterwards.
func TestFaults(t *testing.T) {
	t.Parallel()
	failed := 0
	for _, lasts := range []int{1, 1000} {
		for call := 1; call < 40; call++ {
			for seed := range uint64(8) {
				r := rand.New(rand.NewPCG(seed, 6))
				now := time.Unix(1_800_000_000, 0)
				d, m := newSimulated(), &model{}
				s := simulatedStore(d, &now)
				if seed > 0 { // else the first key of all
					for range 3 {
						if err := m.step(s, r, &now); err != nil {
							t.Fatal(err)
						}
					}
				}
				d.calls, d.fail, d.upTo = 0, call, call+lasts-1
				err := m.step(s, r, &now)
				if err == nil && d.calls >= call && lasts > 1 {
					t.Fatalf("call %d failed and nobody said so", call)
				}
				if err != nil {
					failed++
					if !errors.Is(err, errFull) {
						t.Fatalf("call %d: %v does not say that the disk is full", call, err)
					}
				}
				d.fail = 0
				m.check(t, d, &now)
				if err := m.step(s, r, &now); err != nil {
					t.Fatalf("call %d: the disk works again: %v", call, err)
				}
				m.inFlight = ""
				m.check(t, d, &now)
			}
		}
	}
	if failed < 200 {
		t.Errorf("only %d steps failed", failed)
	}
}
