package serve

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	merkle "golang.org/x/mod/sumdb/tlog"

	"govah/evidence/tlog"
)

var crashes = flag.Int("crashes", 400, "power cuts of TestCrash, of the log and of the witness each")

// recorder keeps what a log signs, at the moment it does.
type recorder struct {
	note.Signer
	signed []tlog.Tree
}

func (r *recorder) Sign(text []byte) ([]byte, error) {
	t, err := tlog.ParseTree(string(text))
	if err != nil {
		return nil, err
	}
	r.signed = append(r.signed, t)
	return r.Signer.Sign(text)
}

// history is a sequence of entries with the hashes of its tree.
type history struct {
	entries []tlog.Entry
	stored  []merkle.Hash
}

func (h *history) ReadHashes(indexes []int64) ([]merkle.Hash, error) {
	list := make([]merkle.Hash, len(indexes))
	for i, index := range indexes {
		list[i] = h.stored[index]
	}
	return list, nil
}

func (h *history) add(e tlog.Entry) {
	hashes, err := merkle.StoredHashes(int64(len(h.entries)), e[:], h)
	if err != nil {
		panic(err)
	}
	h.entries, h.stored = append(h.entries, e), append(h.stored, hashes...)
}

// follow makes h the history of entries, and says how many are as they were.
func (h *history) follow(entries []tlog.Entry) (same int64) {
	for same < int64(min(len(entries), len(h.entries))) && entries[same] == h.entries[same] {
		same++
	}
	h.entries, h.stored = h.entries[:same], h.stored[:merkle.StoredHashCount(same)]
	for _, e := range entries[same:] {
		h.add(e)
	}
	return same
}

func (h *history) root(n int64) merkle.Hash {
	root, err := merkle.TreeHash(n, h)
	if err != nil {
		panic(err)
	}
	return root
}

// fate is a log and its witness through one power cut after the other.
type fate struct {
	r       *rand.Rand
	signer  *recorder
	vkey    string
	cosign  *tlog.Cosigner
	log     *disk
	witness *disk
	opened  bool // once: from then on the keys are not new
	watched bool
	acked   []tlog.Entry // by index; none is missing
	next    int          // number of the entry that comes next
	now     int64
	seen    history
	checked int // heads that were signed and are of the history
	cuts    int
}

func newFate(t testing.TB, r *rand.Rand) *fate {
	key, wkey := mustKey(t, "example.org/log", false), mustKey(t, "example.org/witness", true)
	s, err := note.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tlog.NewCosigner(wkey)
	if err != nil {
		t.Fatal(err)
	}
	f := &fate{r: r, signer: &recorder{Signer: s}, vkey: vkeyOfKey(t, key), cosign: c, log: newDisk(), witness: newDisk(), now: 1e9}
	return f
}

// live runs log and witness until the power of one goes.
func (f *fate) live() error {
	if f.r.IntN(4) == 0 {
		f.witness.cut = f.witness.ops + 1 + f.r.IntN(30)
	} else {
		f.log.cut = f.log.ops + 1 + f.r.IntN(90)
	}
	defer func() { f.log.cut, f.witness.cut = 0, 0 }()
	l, err := openLog(f.log, f.signer, f.vkey, !f.opened)
	if err != nil {
		return err
	}
	defer l.Close()
	f.opened = true
	w, err := openWitness(f.witness, f.cosign, []string{f.vkey}, !f.watched)
	if err != nil {
		return err
	}
	defer w.Close()
	w.now = func() time.Time { f.now += int64(f.r.IntN(2)); return time.Unix(f.now, 0) }
	f.watched = true
	asked := []*Asked{{cosigner: w}}
	for {
		switch f.r.IntN(5) {
		case 0, 1, 2:
			var batch []tlog.Entry
			for range 1 + f.r.IntN([]int{2, 20, 300}[f.r.IntN(3)]) {
				if len(f.acked) > 0 && f.r.IntN(10) == 0 {
					batch = append(batch, f.acked[f.r.IntN(len(f.acked))])
					continue
				}
				batch = append(batch, entryOf(f.next))
				f.next++
			}
			indexes, err := l.Add(context.Background(), batch...)
			if err != nil {
				return err
			}
			for i, index := range indexes {
				switch {
				case index < int64(len(f.acked)):
					if f.acked[index] != batch[i] {
						return fmt.Errorf("index %d was acknowledged for two entries", index)
					}
				case index == int64(len(f.acked)):
					f.acked = append(f.acked, batch[i])
				default:
					// Entries that were written and not acknowledged before
					// the power went may lie between.
					for int64(len(f.acked)) < index {
						e, err := entryAt(l, int64(len(f.acked)))
						if err != nil {
							return err
						}
						f.acked = append(f.acked, e)
					}
					f.acked = append(f.acked, batch[i])
				}
			}
		default:
			if err := l.Publish(context.Background(), asked, f.r.IntN(2), time.Hour); err != nil {
				return err
			}
			if err := asked[0].err; err != nil {
				var no *Refusal
				if errors.As(err, &no) && no.Status == 500 {
					return err
				}
				return fmt.Errorf("violation: the witness refuses the log: %w", err)
			}
		}
	}
}

// entryAt is the entry of an index, wherever it is.
func entryAt(l *Log, index int64) (tlog.Entry, error) {
	if index >= l.base {
		return l.pending[index-l.base], nil
	}
	list, err := l.bundle(index / tlog.TileWidth)
	if err != nil {
		return tlog.Entry{}, err
	}
	return list[index%tlog.TileWidth], nil
}

// crash runs until the power goes, brings it back, and checks.
func (f *fate) crash() error {
	err := f.live()
	if !errors.Is(err, errPower) && !strings.Contains(err.Error(), errPower.Error()) {
		return err
	}
	f.cuts++
	if f.r.IntN(4) > 0 { // else only the process was killed
		f.log, f.witness = f.log.afterCut(f.r), f.witness.afterCut(f.r)
	}
	f.log.locked, f.witness.locked = map[string]bool{}, map[string]bool{}
	if err := f.check(); err != nil {
		return fmt.Errorf("violation: %w", err)
	}
	return nil
}

// check looks at what the disks hold now.
func (f *fate) check() error {
	d := f.log.copied()
	fresh := &recorder{Signer: f.signer.Signer}
	l, err := openLog(d, fresh, f.vkey, !f.opened)
	if err != nil {
		return fmt.Errorf("the log does not open: %w", err)
	}
	defer l.Close()
	var entries []tlog.Entry
	for i := int64(0); i < l.Size(); {
		if i >= l.base {
			entries = append(entries, l.pending[i-l.base:]...)
			break
		}
		list, err := l.bundle(i / tlog.TileWidth)
		if err != nil {
			return err
		}
		list = list[:min(int64(len(list)), l.base-i)]
		entries, i = append(entries, list...), i+int64(len(list))
	}
	if len(entries) < len(f.acked) {
		return fmt.Errorf("%d entries were acknowledged, and %d are there", len(f.acked), len(entries))
	}
	if !slices.Equal(entries[:len(f.acked)], f.acked) {
		return errors.New("an acknowledged entry is not at its index")
	}
	same := f.seen.follow(entries)
	for i, t := range f.signer.signed {
		if i < f.checked && t.Size <= same {
			continue // as the last time
		}
		if t.Size > int64(len(entries)) || f.seen.root(t.Size) != t.Root {
			return fmt.Errorf("a head of %d entries was signed that is not of the history, which has %d", t.Size, len(entries))
		}
	}
	for range min(3, len(f.acked)) {
		i := f.r.IntN(len(f.acked))
		if index, err := l.Add(context.Background(), f.acked[i]); err != nil || index[0] != int64(i) {
			return fmt.Errorf("entry %d, added again: %v, %v", i, index, err)
		}
	}
	if err := f.checkStatic(d); err != nil {
		return fmt.Errorf("the files as another web server sees them: %w", err)
	}
	f.checked = len(f.signer.signed)
	w, err := openWitness(f.witness.copied(), f.cosign, []string{f.vkey}, !f.watched)
	if err != nil {
		return fmt.Errorf("the witness does not open: %w", err)
	}
	defer w.Close()
	if t := w.logs["example.org/log"].tree; t.Size > int64(len(entries)) || f.seen.root(t.Size) != t.Root {
		return fmt.Errorf("the witness remembers a tree of %d that is not of the history", t.Size)
	}
	return nil
}

// checkStatic reads the published checkpoint and what it needs from files
// alone.
func (f *fate) checkStatic(d *disk) error {
	text, err := readFile(d, "checkpoint", tlog.MaxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	p, err := tlog.ParsePolicy([]byte("log " + f.vkey + "\nquorum none\n"))
	if err != nil {
		return err
	}
	c, err := tlog.VerifyCheckpoint(text, p)
	if err != nil || c.Size == 0 {
		return err
	}
	if c.Size > int64(len(f.seen.entries)) || c.Root != f.seen.root(c.Size) {
		return errors.New("the checkpoint is not of the history")
	}
	read := func(t tile) ([]byte, error) {
		data, err := readFile(d, t.path(), 1<<16)
		if errors.Is(err, fs.ErrNotExist) { // a full one may have taken its place
			whole := t
			whole.w = tlog.TileWidth
			data, err = readFile(d, whole.path(), 1<<16)
		}
		if err != nil || len(data) < t.w*t.itemSize() {
			return nil, fmt.Errorf("%s: %d bytes, %w", t.path(), len(data), err)
		}
		return data[:t.w*t.itemSize()], nil
	}
	hashes := merkle.TileHashReader(merkle.Tree{N: c.Size, Hash: c.Root}, tileFiles{read})
	for _, i := range []int64{0, c.Size - 1, f.r.Int64N(c.Size)} {
		if _, err := merkle.ProveRecord(c.Size, i, hashes); err != nil {
			return err
		}
		t := tile{level: tlog.EntryLevel, n: i / tlog.TileWidth}
		t.w = t.widthAt(c.Size)
		data, err := read(t)
		if err != nil {
			return err
		}
		if e := tlog.Entry(data[i%tlog.TileWidth*bundleItem+2:]); e != f.seen.entries[i] {
			return fmt.Errorf("%s has another entry", t.path())
		}
	}
	return nil
}

type tileFiles struct {
	read func(tile) ([]byte, error)
}

func (tileFiles) Height() int { return tlog.TileHeight }
func (t tileFiles) ReadTiles(tiles []merkle.Tile) ([][]byte, error) {
	var list [][]byte
	for _, m := range tiles {
		data, err := t.read(tile{m.L, m.N, m.W})
		if err != nil {
			return nil, err
		}
		list = append(list, data)
	}
	return list, nil
}
func (tileFiles) SaveTiles([]merkle.Tile, [][]byte) {}

// TestCrash cuts the power of a log and of its witness between any two
// operations, also while they recover: no acknowledged entry is lost or moves,
// and nothing that was ever signed contradicts what is there.
func TestCrash(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(uint64(*crashes), 1))
	var f *fate
	logs, most, signed := 0, 0, 0
	for range *crashes {
		if f == nil || len(f.acked) > 1500 && r.IntN(2) == 0 {
			f = newFate(t, r)
			logs++
		}
		if err := f.crash(); err != nil {
			t.Fatalf("log %d, power cut %d: %v", logs, f.cuts, err)
		}
		most, signed = max(most, len(f.acked)), signed+len(f.signer.signed)
	}
	t.Logf("%d power cuts of %d logs and their witnesses, with up to %d entries: no acknowledged entry lost, no head signed that contradicts another", *crashes, logs, most)
	if most < tlog.TileWidth && *crashes >= 100 || signed == 0 {
		t.Error("no log got beyond one tile, or nothing was signed: this shows nothing")
	}
}

// TestCrashIsSeen: on disks that only say that they sync, the same test finds
// that entries are lost or heads contradict each other.
func TestCrashIsSeen(t *testing.T) {
	t.Parallel()
	for name, lie := range map[string]func(*disk){
		"files":   func(d *disk) { d.lieFile = true },
		"folders": func(d *disk) { d.lieDir = true },
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(5, 6))
			for range 200 {
				f := newFate(t, r)
				lie(f.log)
				for range 10 {
					if err := f.crash(); err != nil {
						t.Log(err)
						return
					}
				}
			}
			t.Error("a disk that does not sync was not noticed")
		})
	}
}

// TestDiskFull: without space an entry is refused and nothing else happens;
// with space again the log goes on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 8))
	refused := 0
	for range 60 {
		f := newFate(t, r)
		l, err := openLog(f.log, f.signer, f.vkey, true)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if r.IntN(3) == 0 {
				f.log.full = f.log.ops + r.IntN(12)
			} else {
				f.log.full = 0
			}
			if r.IntN(2) == 0 {
				if err := l.Publish(context.Background(), nil, 0, time.Hour); err != nil && !errors.Is(err, syscall.ENOSPC) {
					t.Fatal(err)
				}
				continue
			}
			var batch []tlog.Entry
			for range 1 + r.IntN(400) {
				batch = append(batch, entryOf(f.next))
				f.next++
			}
			_, err := l.Add(context.Background(), batch...)
			switch {
			case err == nil:
				f.acked = append(f.acked, batch...)
			case !errors.Is(err, syscall.ENOSPC):
				t.Fatal(err)
			default:
				refused++
			}
		}
		f.log.full = 0
		if err := l.Publish(context.Background(), nil, 0, time.Hour); err != nil {
			t.Fatal(err)
		}
		l.Close()
		f.opened = true
		if err := f.check(); err != nil {
			t.Fatal(err)
		}
		if int64(len(f.acked)) != int64(len(f.seen.entries)) {
			t.Fatalf("%d entries were acknowledged, and %d are there", len(f.acked), len(f.seen.entries))
		}
	}
	if refused < 20 {
		t.Errorf("only %d batches found no space", refused)
	}
}
