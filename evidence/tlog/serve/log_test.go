package serve

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	merkle "golang.org/x/mod/sumdb/tlog"

	"govah/evidence/tlog"
)

// entryOf is the i-th entry of tests.
func entryOf(i int) tlog.Entry { return sha256.Sum256(fmt.Append(nil, "entry ", i)) }

func mustKey(t testing.TB, name string, witness bool) string {
	t.Helper()
	key, err := tlog.MakeKey(name, witness)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rootOf is the root over entries, by golang.org/x/mod.
func rootOf(t testing.TB, entries []tlog.Entry) merkle.Hash {
	t.Helper()
	var stored []merkle.Hash
	r := merkle.HashReaderFunc(func(indexes []int64) ([]merkle.Hash, error) {
		var list []merkle.Hash
		for _, i := range indexes {
			list = append(list, stored[i])
		}
		return list, nil
	})
	for i, e := range entries {
		h, err := merkle.StoredHashes(int64(i), e[:], r)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, h...)
	}
	root, err := merkle.TreeHash(int64(len(entries)), r)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func policyFor(t testing.TB, text string) *tlog.Policy {
	t.Helper()
	p, err := tlog.ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestLog adds entries in batches of all sizes, over the ends of tiles and
// over restarts, and compares roots with those of golang.org/x/mod; each
// entry's proof verifies, twice added it keeps its index, and a proof of
// another entry does not.
func TestLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := mustKey(t, "example.org/log", false)
	var all []tlog.Entry
	r := rand.New(rand.NewPCG(1, 2))
	var l *Log
	for round := range 40 {
		var err error
		if l == nil {
			if l, err = Open(dir, key, round == 0); err != nil {
				t.Fatal(err)
			}
		}
		n := []int{0, 1, 2, 255, 256, 257, r.IntN(3000)}[r.IntN(7)]
		var batch []tlog.Entry
		for range n {
			batch = append(batch, entryOf(len(all)+len(batch)))
		}
		indexes, err := l.Add(t.Context(), batch...)
		if err != nil {
			t.Fatal(err)
		}
		for i, index := range indexes {
			if index != int64(len(all)+i) {
				t.Fatalf("entry %d has index %d", len(all)+i, index)
			}
		}
		all = append(all, batch...)
		if r.IntN(3) > 0 {
			if err := l.Publish(t.Context(), nil, 0, time.Hour); err != nil {
				t.Fatal(err)
			}
			c, err := tlog.VerifyCheckpoint(l.Checkpoint(), policyFor(t, "log "+l.VKey()+"\nquorum none\n"))
			if err != nil {
				t.Fatal(err)
			}
			if c.Size != int64(len(all)) || c.Root != rootOf(t, all) {
				t.Fatalf("round %d: the checkpoint is of %d entries, and %d were added, or it has another root", round, c.Size, len(all))
			}
		}
		if r.IntN(4) == 0 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = nil
		}
	}
	if l == nil {
		var err error
		if l, err = Open(dir, key, false); err != nil {
			t.Fatal(err)
		}
	}
	defer l.Close()
	if err := l.Publish(t.Context(), nil, 0, time.Hour); err != nil {
		t.Fatal(err)
	}
	p := policyFor(t, "log "+l.VKey()+"\nquorum none\n")
	for range 300 {
		i := r.IntN(len(all))
		if indexes, err := l.Add(t.Context(), all[i]); err != nil || indexes[0] != int64(i) {
			t.Fatalf("entry %d, added again, has index %v, %v", i, indexes, err)
		}
		proof, index, err := l.Proof(all[i])
		if err != nil || index != int64(i) {
			t.Fatalf("proof of entry %d: of %d, %v", i, index, err)
		}
		got, err := tlog.VerifyProof(proof, all[i][:], p)
		if err != nil || got.Index != int64(i) {
			t.Fatalf("proof of entry %d: %v", i, err)
		}
		if other := all[(i+1)%len(all)]; len(all) > 1 {
			if _, err := tlog.VerifyProof(proof, other[:], p); err == nil {
				t.Fatalf("the proof of entry %d proves another", i)
			}
		}
	}
	if l.Size() != int64(len(all)) {
		t.Errorf("the log has %d entries; %d were added", l.Size(), len(all))
	}
	if _, _, err := l.Proof(entryOf(-1)); !errors.Is(err, ErrNotFound) {
		t.Errorf("an entry that was never added: %v", err)
	}
}

// TestIndex finds every entry of a log that is large enough for runs to be
// made and merged, none that is not there, also after the runs were lost, and
// entries that were made up to stand close together.
func TestIndex(t *testing.T) {
	t.Parallel()
	f := newFate(t, nil)
	l, err := openLog(f.log, f.signer, f.vkey, true)
	if err != nil {
		t.Fatal(err)
	}
	const n = 5*runEntries + 1234
	entry := func(i int) tlog.Entry {
		if i%3 == 0 { // alike in the first ten bytes, or nearly
			e := tlog.Entry{30: byte(i >> 8), 31: byte(i), 29: byte(i >> 16)}
			e[9] = byte(i % 5)
			return e
		}
		return entryOf(i)
	}
	for i := 0; i < n; {
		var batch []tlog.Entry
		for ; i < n && len(batch) < maxBatch; i++ {
			batch = append(batch, entry(i))
		}
		if _, err := l.Add(t.Context(), batch...); err != nil {
			t.Fatal(err)
		}
		if err := l.Integrate(); err != nil {
			t.Fatal(err)
		}
	}
	check := func() {
		t.Helper()
		if len(l.runs) == 0 || len(l.runs) > 5 || len(l.recent) > 2*runEntries {
			t.Errorf("%d runs, and %d entries in memory", len(l.runs), len(l.recent))
		}
		r := rand.New(rand.NewPCG(3, 4))
		for range 500 {
			i := r.IntN(n/3)*3 + 1
			if r.IntN(20) == 0 {
				i--
			}
			if got, err := l.Add(t.Context(), entry(i)); err != nil || got[0] != int64(i) {
				t.Fatalf("entry %d, added again: %v, %v", i, got, err)
			}
		}
	}
	check()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := f.log.List(indexDir)
	if err != nil || len(files) == 0 {
		t.Fatal("no runs on disk")
	}
	for _, name := range files {
		if err := writeFile(f.log, indexDir+"/"+name, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	if l, err = openLog(f.log, f.signer, f.vkey, false); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	check()
	if l.Size() != n {
		t.Errorf("the log has %d entries; %d were added", l.Size(), n)
	}
}

// TestAddTogether adds from many goroutines at once, some of it twice.
func TestAddTogether(t *testing.T) {
	t.Parallel()
	l, err := Open(t.TempDir(), mustKey(t, "example.org/log", false), true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var mu sync.Mutex
	at := map[tlog.Entry]int64{}
	var wg sync.WaitGroup
	for g := range 50 {
		wg.Go(func() {
			for i := range 100 {
				e := entryOf(i*25 + g/2)
				index, err := l.Add(t.Context(), e)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if had, ok := at[e]; ok && had != index[0] {
					t.Errorf("an entry has the indexes %d and %d", had, index[0])
				}
				at[e] = index[0]
				mu.Unlock()
				if i%10 == 0 {
					if err := l.Integrate(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	seen := map[int64]bool{}
	for _, i := range at {
		seen[i] = true
	}
	if len(at) != 2500 || len(seen) != 2500 || l.Size() != 2500 {
		t.Errorf("%d entries, %d indexes, %d in the log; 2500 each were expected", len(at), len(seen), l.Size())
	}
}

// TestFolders: what is wrong with a folder is said, and nothing is written
// into it.
func TestFolders(t *testing.T) {
	t.Parallel()
	key, other := mustKey(t, "example.org/log", false), mustKey(t, "example.org/log", false)
	made := func(t *testing.T, n int) string {
		dir := t.TempDir()
		l, err := Open(dir, key, true)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if _, err := l.Add(t.Context(), entryOf(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Publish(t.Context(), nil, 0, time.Hour); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, c := range map[string]struct {
		prepare func(t *testing.T) string
		key     string
		fresh   bool
		want    string
	}{
		"foreign files":  {func(t *testing.T) string { dir := t.TempDir(); os.WriteFile(dir+"/thesis.doc", nil, 0o600); return dir }, key, true, "thesis.doc"},
		"used key":       {func(t *testing.T) string { return t.TempDir() }, key, false, "the key is not new"},
		"another key":    {func(t *testing.T) string { return made(t, 3) }, other, false, "holds the log of the key"},
		"no journal":     {func(t *testing.T) string { dir := made(t, 3); os.Remove(dir + "/" + journalPath); return dir }, key, false, "journal is gone"},
		"no signed tree": {func(t *testing.T) string { dir := made(t, 3); os.Remove(dir + "/" + treePath); return dir }, key, false, "do not go on with it"},
		"no tile":        {func(t *testing.T) string { dir := made(t, 3); os.Remove(dir + "/tile/0/000.p/3"); return dir }, key, false, "tile/0/000.p/3"},
		"altered tile": {func(t *testing.T) string {
			dir := made(t, 3)
			os.WriteFile(dir+"/tile/0/000.p/3", make([]byte, 96), 0o600)
			return dir
		}, key, false, "do not give the root"},
		"old journal": {func(t *testing.T) string {
			dir := made(t, 3)
			os.WriteFile(dir+"/"+journalPath, journalHead(vkeyOfKey(t, key), 0), 0o600)
			return dir
		}, key, false, "entries are lost"},
		"journal damaged in the middle": {func(t *testing.T) string {
			dir := made(t, 3)
			data, _ := os.ReadFile(dir + "/" + journalPath)
			data[len(journalHead(vkeyOfKey(t, key), 0))+20] ^= 1
			os.WriteFile(dir+"/"+journalPath, data, 0o600)
			return dir
		}, key, false, "damaged at byte"},
		"a file for a folder": {func(t *testing.T) string { f := t.TempDir() + "/x"; os.WriteFile(f, nil, 0o600); return f }, key, true, "not a directory"},
		"no key":              {func(t *testing.T) string { return t.TempDir() }, "hello", true, "no private key"},
		"a witness's key":     {func(t *testing.T) string { return t.TempDir() }, mustKey(t, "w", true), true, "no private key of a log"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := c.prepare(t)
			before := listing(dir)
			l, err := Open(dir, c.key, c.fresh)
			if err == nil {
				l.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v; %q was expected", err, c.want)
			}
			if after := listing(dir); after != before {
				t.Errorf("written into it: %s\nbefore: %s", after, before)
			}
		})
	}
	t.Run("in use", func(t *testing.T) {
		dir := t.TempDir()
		l, err := Open(dir, key, true)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := Open(dir, key, false); !errors.Is(err, ErrLocked) {
			t.Errorf("opened twice: %v", err)
		}
	})
}

func vkeyOfKey(t testing.TB, key string) string {
	_, vkey, err := tlog.NewLogSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return vkey
}

// witnessVKey is the public key of a witness that nobody is.
func witnessVKey(t testing.TB, name string) string {
	c, err := tlog.NewCosigner(mustKey(t, name, true))
	if err != nil {
		t.Fatal(err)
	}
	return c.VKey()
}

func listing(dir string) string {
	var b strings.Builder
	filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			fmt.Fprintln(&b, path)
		}
		return nil
	})
	return b.String()
}

// TestPermissions: nobody else reads what is in the folder.
func TestPermissions(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "log")
	l, err := Open(dir, mustKey(t, "example.org/log", false), true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Add(context.Background(), entryOf(1)); err != nil {
		t.Fatal(err)
	}
	if err := l.Publish(t.Context(), nil, 0, time.Hour); err != nil {
		t.Fatal(err)
	}
	filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
		return nil
	})
}

// TestTiles compares the tiles that are served with those of golang.org/x/mod.
func TestTiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := Open(dir, mustKey(t, "example.org/log", false), true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var stored []merkle.Hash
	reader := merkle.HashReaderFunc(func(indexes []int64) ([]merkle.Hash, error) {
		var list []merkle.Hash
		for _, i := range indexes {
			list = append(list, stored[i])
		}
		return list, nil
	})
	last := int64(0)
	for _, size := range []int64{1, 5, 255, 256, 257, 600, 65535, 65536, 65537, 70000} {
		for i := last; i < size; {
			var batch []tlog.Entry
			for ; i < size && len(batch) < maxBatch; i++ {
				e := entryOf(int(i))
				h, err := merkle.StoredHashes(i, e[:], reader)
				if err != nil {
					t.Fatal(err)
				}
				stored, batch = append(stored, h...), append(batch, e)
			}
			if _, err := l.Add(t.Context(), batch...); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Publish(t.Context(), nil, 0, time.Hour); err != nil {
			t.Fatal(err)
		}
		for _, m := range merkle.NewTiles(tlog.TileHeight, last, size) {
			want, err := merkle.ReadTileData(m, reader)
			if err != nil {
				t.Fatal(err)
			}
			name := tile{m.L, m.N, m.W}.path()
			got, err := l.Tile(name)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("size %d: %s is not that of golang.org/x/mod: %v", size, name, err)
			}
			if m.W == tlog.TileWidth || m.N == size>>(tlog.TileHeight*(m.L+1)) { // for other web servers
				if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("size %d: %s on disk: %v", size, name, err)
				}
			}
			if strings.Replace(m.Path(), "tile/8/", "tile/", 1) != name {
				t.Errorf("the path is %s; golang.org/x/mod has %s", name, m.Path())
			}
		}
		last = size
	}
	// The example of c2sp.org/tlog-tiles: a tree of 70,000.
	full := 0
	for n := range int64(273) {
		if _, err := l.Tile(tile{0, n, tlog.TileWidth}.path()); err == nil {
			full++
		}
	}
	if full != 273 {
		t.Errorf("%d full tiles of level 0", full)
	}
	for path, ok := range map[string]bool{
		"tile/0/273.p/112": true, "tile/0/273": false, "tile/0/273.p/113": false, "tile/1/000": true, "tile/1/001.p/17": true,
		"tile/1/001.p/18": false, "tile/2/000.p/1": true, "tile/2/000.p/2": false, "tile/3/000.p/1": false, "tile/entries/273.p/112": true,
		"tile/entries/272": true, "tile/entries/273.p/113": false, "tile/63/000": false, "tile/entries/x001/000": false,
	} {
		if _, err := l.Tile(path); (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
	}
}
