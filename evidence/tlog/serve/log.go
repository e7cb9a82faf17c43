// Package serve is what an organisation runs so that others can log evidence:
// a transparency log, on disk and over HTTP, and a witness that cosigns logs.
// What they say is read and verified with package tlog.
package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/mod/sumdb/note"
	merkle "golang.org/x/mod/sumdb/tlog"

	"govah/evidence/tlog"
)

const (
	stateDir   = ".state"
	lockPath   = stateDir + "/lock"
	treePath   = stateDir + "/tree"
	maxPending = 1 << 18 // entries that are durable and not in the tree; more are refused
	maxQueue   = 1 << 10 // calls of Add that wait for their batch; more are refused
)

// ErrBusy says that too many entries are waiting; try again later.
var ErrBusy = errors.New("too many entries are waiting to be written")

// ErrUsedKey says that a key has signed before and that what it signed is not
// in the folder.
var ErrUsedKey = errors.New("the key is not new, and the folder does not hold what it has signed")

// errStopped is wrapped by what made the log stop taking entries.
var errStopped = errors.New("the log takes no more entries until it is started again")

// Log is a log on disk. One process writes it; its files, apart from the
// folder .state, are what c2sp.org/tlog-tiles says, so that any web server can
// serve them too.
//
// An entry is durable when Add returns: it is in the journal. Publish brings
// the tree up to date and signs its head. Nothing is signed that the journal
// did not hold durably before, so that no two heads contradict each other,
// whenever the power goes.
type Log struct {
	fs     filesystem
	lock   io.Closer
	signer note.Signer
	key    note.Verifier
	vkey   string

	queue chan *request
	done  chan struct{} // closed when the writer has ended

	mu      sync.Mutex // of what an append changes
	journal *journal
	base    int64                // entries in the tree; those of pending come next
	pending []tlog.Entry         // durable, not in the tree
	recent  map[tlog.Entry]int64 // entries that are in no run
	runs    []*run
	seed    runSeed // of the runs
	stopped error

	publishing sync.Mutex // of what Publish changes; taken before mu
	edge       *edge
	dirs       map[string]bool // made durable in this process
	full       map[string]bool // folders of partial tiles that full ones replaced

	tree atomic.Pointer[head]      // what is durable as tiles
	head atomic.Pointer[published] // what is shown to the world
}

// head is a tree that is durable as tiles, and the log's signature.
type head struct {
	edge   *edge // not changed any more
	tree   tlog.Tree
	signed []byte // with the log's signature alone
}

// published is the checkpoint that is served: of the tree or an earlier one,
// with cosignatures.
type published struct {
	tree tlog.Tree
	text []byte
}

type request struct {
	entries []tlog.Entry
	indexes []int64
	err     error
	done    chan struct{}
}

// Open opens the log of a folder. skey is the log's private key; the log's
// origin is the key's name. A new log is made if the folder is empty and the
// key is fresh: a key that has signed before, with an empty folder, would sign
// a second history.
func Open(dir, skey string, fresh bool) (*Log, error) {
	d, err := openFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	signer, vkey, err := tlog.NewLogSigner(strings.TrimSpace(skey))
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	l, err := openLog(d, signer, vkey, fresh)
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("opening the log in %s: %w", dir, err)
	}
	return l, nil
}

// openLog opens the log below d.
func openLog(d filesystem, signer note.Signer, vkey string, fresh bool) (l *Log, err error) {
	key, err := tlog.NewLogVerifier(vkey)
	if err != nil {
		return nil, err
	}
	if _, err := d.List(stateDir); errors.Is(err, fs.ErrNotExist) {
		if err := onlyOurs(d); err != nil {
			return nil, err
		}
		if !fresh {
			return nil, ErrUsedKey
		}
	}
	if err := makeDirs(d, indexDir); err != nil {
		return nil, err
	}
	lock, err := d.Lock(lockPath)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	l = &Log{
		fs: d, lock: lock, signer: signer, key: key, vkey: vkey,
		queue: make(chan *request, maxQueue), done: make(chan struct{}),
		recent: map[tlog.Entry]int64{}, dirs: map[string]bool{}, full: map[string]bool{},
	}
	if err := l.recover(fresh); err != nil {
		return nil, err
	}
	go l.write()
	return l, nil
}

// onlyOurs refuses a folder that holds something, but no log.
func onlyOurs(d filesystem) error {
	names, err := d.List(".")
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, ".") {
			return fmt.Errorf("the folder holds %q and no log; a new log wants an empty folder", name)
		}
	}
	return nil
}

// recover brings the log to what was durable: the tree that was signed last,
// and the entries of the journal after it.
func (l *Log) recover(fresh bool) (err error) {
	_, err = readFile(l.fs, treePath, tlog.MaxCheckpoint)
	unsigned := errors.Is(err, fs.ErrNotExist)
	if err != nil && !unsigned {
		return err
	}
	j, base, entries, err := openJournal(l.fs, l.vkey)
	if errors.Is(err, fs.ErrNotExist) {
		if !unsigned {
			return fmt.Errorf("%s is gone, and entries that were acknowledged may be with it; put it back, or begin a log with a new key in a new folder", journalPath)
		}
		if err := onlyOurs(l.fs); err != nil {
			return err
		}
		if !fresh {
			return ErrUsedKey
		}
		if err := replaceFile(l.fs, journalPath, journalHead(l.vkey, 0)); err != nil {
			return err
		}
		j, base, entries, err = openJournal(l.fs, l.vkey)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			j.close()
			closeRuns(l.runs)
		}
	}()
	l.journal = j
	if unsigned {
		if base != 0 {
			return fmt.Errorf("%s is gone, which said what the log has signed", treePath)
		}
		l.edge = &edge{}
	} else if err := l.loadTree(); err != nil {
		return err
	}
	l.base = l.edge.size
	if l.base < base || l.base > j.next {
		return fmt.Errorf("the log has signed a tree of %d entries, and its journal holds those from %d to %d: entries are lost; do not go on with this copy", l.base, base, j.next)
	}
	l.pending = slices.Clone(entries[l.base-base:])
	if err := l.loadPublished(); err != nil {
		return err
	}
	if unsigned { // not before: a folder that is refused is left as it is
		if err := l.sign(l.edge); err != nil {
			return err
		}
	}
	return l.loadIndex()
}

// loadTree reads the head that was signed last, and the tree's edge.
func (l *Log) loadTree() error {
	text, err := readFile(l.fs, treePath, tlog.MaxCheckpoint)
	if err != nil {
		return err
	}
	tree, err := l.own(text)
	if err != nil {
		return fmt.Errorf("%s: %w", treePath, err)
	}
	e := &edge{size: tree.Size}
	for level := tlog.EntryLevel; level <= maxLevel; level++ {
		t := tile{level: level, n: tree.Size / tlog.TileWidth}
		if level > 0 {
			t.n = tree.Size >> (tlog.TileHeight * (level + 1))
		}
		var data []byte
		if t.w = t.widthAt(tree.Size); t.w > 0 {
			if data, err = l.readTile(t); err != nil {
				return fmt.Errorf("the tree that was signed: %w", err)
			}
		}
		if level == tlog.EntryLevel {
			e.entries = data
		} else {
			e.levels = append(e.levels, data)
		}
	}
	if root, err := e.root(); err != nil || root != tree.Root {
		return fmt.Errorf("the tiles do not give the root that %s has: the disk is damaged, or files are of another log", treePath)
	}
	l.edge = e
	l.tree.Store(&head{edge: e.clone(), tree: tree, signed: text})
	return nil
}

// own reads a checkpoint that the log has signed itself.
func (l *Log) own(text []byte) (tlog.Tree, error) {
	n, err := note.Open(text, note.VerifierList(l.key))
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("it is not signed by this log's key: %w", err)
	}
	tree, err := tlog.ParseTree(n.Text)
	if err == nil && tree.Origin != l.key.Name() {
		err = fmt.Errorf("it is of the log %q", tree.Origin)
	}
	return tree, err
}

// loadPublished reads the checkpoint that was served last.
func (l *Log) loadPublished() error {
	text, err := readFile(l.fs, "checkpoint", tlog.MaxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	tree, err := l.own(text)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if tree.Size > l.edge.size {
		return fmt.Errorf("the checkpoint is of %d entries, and the tree has %d: this is an old copy of the log; do not go on with it", tree.Size, l.edge.size)
	}
	l.head.Store(&published{tree, text})
	return nil
}

// loadIndex opens the runs, and makes what is missing from the entries.
func (l *Log) loadIndex() error {
	runs, seed, err := openRuns(l.fs, l.base)
	if err != nil {
		return err
	}
	l.runs, l.seed = runs, seed
	from := int64(0)
	if len(runs) > 0 {
		from = runs[len(runs)-1].to
	}
	var batch []tlog.Entry
	for i := from; i < l.base; {
		entries, err := l.bundle(i / tlog.TileWidth)
		if err != nil {
			return err
		}
		entries = entries[i%tlog.TileWidth:]
		batch, i = append(batch, entries...), i+int64(len(entries))
		if len(batch) >= runEntries {
			if err := l.addRun(from, batch); err != nil {
				return err
			}
			from, batch = i, nil
		}
	}
	for i, e := range append(batch, l.pending...) {
		if _, ok := l.recent[e]; !ok {
			l.recent[e] = from + int64(i)
		}
	}
	return nil
}

// bundle reads the entries of a bundle that the tree holds.
func (l *Log) bundle(n int64) ([]tlog.Entry, error) {
	t := tile{level: tlog.EntryLevel, n: n, w: tlog.TileWidth}
	data, ok := l.tree.Load().edge.tileData(t)
	if !ok {
		var err error
		if data, err = l.readTile(t); err != nil {
			return nil, err
		}
	}
	list := make([]tlog.Entry, len(data)/bundleItem)
	for i := range list {
		item := data[i*bundleItem:][:bundleItem]
		if item[0] != 0 || item[1] != tlog.EntrySize {
			return nil, fmt.Errorf("%s holds what is no entry of this log", t.path())
		}
		list[i] = tlog.Entry(item[2:])
	}
	return list, nil
}

// readTile reads a tile of exactly its width from disk.
func (l *Log) readTile(t tile) ([]byte, error) {
	data, err := readFile(l.fs, t.path(), int64(t.w*t.itemSize()))
	if err != nil {
		return nil, err
	}
	if len(data) != t.w*t.itemSize() {
		return nil, fmt.Errorf("%s has %d bytes, not %d", t.path(), len(data), t.w*t.itemSize())
	}
	return data, nil
}

// addRun makes a run of entries and merges it with those before it.
func (l *Log) addRun(from int64, entries []tlog.Entry) error {
	r, err := sortedRun(l.fs, l.seed, from, entries)
	if err != nil {
		return err
	}
	runs := append(slices.Clone(l.runs), r)
	var old []*run
	for n := len(runs); n >= 2 && runs[n-2].to-runs[n-2].from <= 2*(runs[n-1].to-runs[n-1].from); n = len(runs) {
		m, err := mergeRuns(l.fs, l.seed, runs[n-2], runs[n-1])
		if err != nil {
			return err
		}
		old = append(old, runs[n-2:]...)
		runs = append(runs[:n-2], m)
	}
	l.mu.Lock()
	l.runs = runs
	maps.DeleteFunc(l.recent, func(_ tlog.Entry, i int64) bool { return i < r.to })
	l.mu.Unlock()
	for _, r := range old {
		r.f.Close()
		if err := l.fs.Remove(r.path()); err != nil {
			return err
		}
	}
	return nil
}

// Add logs entries, at most 4096, and returns their indexes once they are
// durable. An entry that is there already keeps the index that it has.
func (l *Log) Add(ctx context.Context, entries ...tlog.Entry) ([]int64, error) {
	if len(entries) > maxBatch {
		return nil, fmt.Errorf("%d entries at once; at most %d", len(entries), maxBatch)
	}
	r := &request{entries: entries, done: make(chan struct{})}
	select {
	case <-l.done:
		return nil, errClosed
	default:
	}
	select {
	case l.queue <- r:
	default:
		return nil, ErrBusy
	}
	select {
	case <-r.done:
		return r.indexes, r.err
	case <-l.done:
		return nil, errClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var errClosed = errors.New("the log is closed")

// write commits what waits, as one batch: while one is synced the next fills.
func (l *Log) write() {
	defer close(l.done)
	var next *request
	for {
		r := next
		if next = nil; r == nil {
			if r = <-l.queue; r == nil {
				return
			}
		}
		batch, n := []*request{r}, len(r.entries)
	collect:
		for {
			select {
			case r := <-l.queue:
				if r == nil {
					l.commit(batch)
					return
				}
				if n += len(r.entries); n > maxBatch {
					next = r
					break collect
				}
				batch = append(batch, r)
			default:
				break collect
			}
		}
		l.commit(batch)
	}
}

// commit makes the entries of a batch durable and answers the calls.
func (l *Log) commit(batch []*request) {
	err := l.commitEntries(batch)
	for _, r := range batch {
		if r.err = err; err != nil {
			r.indexes = nil
		}
		close(r.done)
	}
}

func (l *Log) commitEntries(batch []*request) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped != nil {
		return l.stopped
	}
	var fresh []tlog.Entry
	at := map[tlog.Entry]int64{}
	for _, r := range batch {
		r.indexes = make([]int64, len(r.entries))
		for i, e := range r.entries {
			index, ok := at[e]
			if !ok {
				var err error
				if index, ok, err = l.find(e); err != nil {
					return fmt.Errorf("looking whether an entry is there already: %w", err)
				}
			}
			if !ok {
				index = l.journal.next + int64(len(fresh))
				at[e], fresh = index, append(fresh, e)
			}
			r.indexes[i] = index
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if len(l.pending)+len(fresh) > maxPending {
		return ErrBusy
	}
	if err := l.journal.append(fresh); err != nil {
		err = fmt.Errorf("writing the journal: %w", err)
		if errors.Is(err, errTorn) {
			l.stopped = fmt.Errorf("%w: %w", errStopped, err)
			return l.stopped
		}
		return err
	}
	l.pending = append(l.pending, fresh...)
	maps.Copy(l.recent, at)
	return nil
}

// find looks for an entry's index. The caller holds mu.
func (l *Log) find(e tlog.Entry) (index int64, ok bool, err error) {
	if index, ok := l.recent[e]; ok {
		return index, true, nil
	}
	h := l.seed.hash(e)
	for _, r := range slices.Backward(l.runs) {
		if err := r.find(h, func(i int64) (bool, error) {
			entries, err := l.bundle(i / tlog.TileWidth)
			if err != nil || i%tlog.TileWidth >= int64(len(entries)) {
				return false, err
			}
			if ok = entries[i%tlog.TileWidth] == e; ok {
				index = i
			}
			return ok, nil
		}); ok || err != nil {
			return index, ok, err
		}
	}
	return 0, false, nil
}

// stop refuses entries from now on.
func (l *Log) stop(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped == nil {
		l.stopped = fmt.Errorf("%w: %w", errStopped, why)
	}
}

// Size is the number of entries that are durable.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.journal.next
}

// VKey is the log's public key, for policies and witnesses.
func (l *Log) VKey() string { return l.vkey }

// Origin is the log's name.
func (l *Log) Origin() string { return l.key.Name() }

// Close commits what waits, and lets go of the folder.
func (l *Log) Close() error {
	select {
	case <-l.done:
		return errClosed
	case l.queue <- nil:
	}
	<-l.done
	l.publishing.Lock()
	defer l.publishing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.journal.close()
	closeRuns(l.runs)
	return errors.Join(err, l.lock.Close(), l.fs.Close())
}

// Integrate brings the tree up to date with the entries that are durable:
// writes their tiles, and signs the head.
func (l *Log) Integrate() error {
	l.publishing.Lock()
	defer l.publishing.Unlock()
	l.mu.Lock()
	fresh := slices.Clip(l.pending)
	l.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	e := l.edge.clone()
	dirs := map[string]bool{}
	put := func(t tile, data []byte) error { return l.writeTile(t, data, dirs) }
	for _, entry := range fresh {
		if err := e.add(entry, put); err != nil {
			return err
		}
	}
	tiles, data := e.partial()
	for i, t := range tiles {
		if t.w == t.widthAt(l.edge.size) {
			continue // as it was
		}
		if err := put(t, data[i]); err != nil {
			return err
		}
	}
	for dir := range dirs {
		if err := l.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	if err := l.sign(e); err != nil {
		return err
	}
	return l.settle(fresh)
}

// writeTile writes a tile's file. Its content follows from the journal, so a
// file that is there from before a power cut is written over.
func (l *Log) writeTile(t tile, data []byte, dirs map[string]bool) error {
	name := t.path()
	dir := name[:strings.LastIndexByte(name, '/')]
	if !l.dirs[dir] {
		if err := makeDirs(l.fs, dir); err != nil {
			return err
		}
		l.dirs[dir] = true
	}
	if dirs[dir] = true; t.w == tlog.TileWidth {
		l.full[name+".p"] = true
	}
	return writeFile(l.fs, name, data)
}

// sign signs the tree of an edge, whose tiles are durable, keeps the signed
// head, and goes on from there.
func (l *Log) sign(e *edge) error {
	root, err := e.root()
	if err != nil {
		return err
	}
	tree := tlog.Tree{Origin: l.key.Name(), Size: e.size, Root: root}
	signed, err := note.Sign(&note.Note{Text: tree.Text()}, l.signer)
	if err != nil {
		return fmt.Errorf("signing the tree: %w", err)
	}
	if err := replaceFile(l.fs, treePath, signed); err != nil {
		return fmt.Errorf("writing the signed tree: %w", err)
	}
	l.edge = e
	l.tree.Store(&head{edge: e.clone(), tree: tree, signed: signed})
	return nil
}

// settle forgets what the tree holds now: in memory, in the journal, and
// partial tiles that full ones replaced.
func (l *Log) settle(fresh []tlog.Entry) error {
	l.mu.Lock()
	l.base += int64(len(fresh))
	l.pending = slices.Clone(l.pending[len(fresh):])
	var err error
	if l.journal.size > journalRotate && l.stopped == nil {
		if err = l.journal.rotate(l.vkey, l.base, l.pending); errors.Is(err, errTorn) {
			l.stopped = fmt.Errorf("%w: %w", errStopped, err)
		}
	}
	from := int64(0)
	if len(l.runs) > 0 {
		from = l.runs[len(l.runs)-1].to
	}
	var batch []tlog.Entry
	if l.base-from >= runEntries {
		batch = make([]tlog.Entry, l.base-from)
		for e, i := range l.recent {
			if i < l.base {
				batch[i-from] = e
			}
		}
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	for name := range l.full {
		if err := l.removePartial(name); err != nil {
			return err
		}
		delete(l.full, name)
	}
	if batch == nil {
		return nil
	}
	return l.addRun(from, batch)
}

// removePartial removes the partial tiles in a folder, and it.
func (l *Log) removePartial(dir string) error {
	names, err := l.fs.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := l.fs.Remove(dir + "/" + name); err != nil {
			return err
		}
	}
	delete(l.dirs, dir)
	return l.fs.Remove(dir)
}

// reader reads the hashes of a tree that is durable as tiles.
func (l *Log) reader(h *head) merkle.HashReader {
	return h.edge.reader(l.readTile)
}
