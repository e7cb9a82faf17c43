package serve

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"govah/evidence/tlog"
)

// The journal is what makes an entry durable, with one sync a batch, before
// the tree holds it. It fixes the order of the entries, so that whatever the
// log signs after a power cut is of the history that it acknowledged.
//
// It begins with three lines, a name, the log's key and the index of the first
// entry, and goes on with a record a batch: index of its first entry (64 bits,
// big endian), count (32 bits), the entries, and SHA-256 of all that.
const (
	journalName   = "govah tlog journal 1"
	journalPath   = stateDir + "/journal"
	maxBatch      = 4096     // entries of a record
	maxJournal    = 64 << 20 // bytes
	journalRotate = 4 << 20  // bytes after which entries that the tree holds are dropped
	recordFrame   = 12 + sha256.Size
)

type journal struct {
	fs   filesystem
	f    file
	size int64 // bytes that are good
	next int64 // index of the entry that comes next
}

func journalHead(vkey string, base int64) []byte {
	return fmt.Appendf(nil, "%s\n%s\n%d\n", journalName, vkey, base)
}

func journalRecord(first int64, entries []tlog.Entry) []byte {
	b := make([]byte, 0, recordFrame+len(entries)*tlog.EntrySize)
	b = binary.BigEndian.AppendUint64(b, uint64(first))
	b = binary.BigEndian.AppendUint32(b, uint32(len(entries)))
	for i := range entries {
		b = append(b, entries[i][:]...)
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// parseRecord reads one record at the start of b: its entries and its length.
func parseRecord(b []byte, first int64) ([]tlog.Entry, int, bool) {
	if len(b) < recordFrame || binary.BigEndian.Uint64(b) != uint64(first) {
		return nil, 0, false
	}
	count := binary.BigEndian.Uint32(b[8:])
	n := 12 + int(count)*tlog.EntrySize
	if count == 0 || count > maxBatch || len(b) < n+sha256.Size || sha256.Sum256(b[:n]) != [32]byte(b[n:n+sha256.Size]) {
		return nil, 0, false
	}
	entries := make([]tlog.Entry, count)
	for i := range entries {
		entries[i] = tlog.Entry(b[12+i*tlog.EntrySize:])
	}
	return entries, n + sha256.Size, true
}

// parseJournal reads a journal: the key, the index of its first entry, the
// entries, and the length of what is whole. What a power cut tore is at most
// the last record; more than that is damage, and an error.
func parseJournal(data []byte) (vkey string, base int64, entries []tlog.Entry, good int, err error) {
	lines := strings.SplitN(string(data[:min(len(data), 4096)]), "\n", 4)
	if len(lines) < 4 || lines[0] != journalName {
		return "", 0, nil, 0, errors.New("it is no journal of this version")
	}
	vkey = lines[1]
	if base, err = tlog.ParseDecimal(lines[2]); err != nil {
		return "", 0, nil, 0, fmt.Errorf("the index of its first entry: %w", err)
	}
	good = len(journalHead(vkey, base))
	for good < len(data) {
		batch, n, ok := parseRecord(data[good:], base+int64(len(entries)))
		if !ok {
			break
		}
		entries, good = append(entries, batch...), good+n
	}
	if rest := data[good:]; len(rest) > 0 {
		damaged := len(rest) > recordFrame+maxBatch*tlog.EntrySize
		if len(rest) >= 12 { // is there a record behind the one that cannot be read?
			count := int64(binary.BigEndian.Uint32(rest[8:]))
			if at := recordFrame + count*tlog.EntrySize; count <= maxBatch && at < int64(len(rest)) {
				_, _, ok := parseRecord(rest[at:], base+int64(len(entries))+count)
				damaged = damaged || ok
			}
		}
		if damaged {
			return "", 0, nil, 0, fmt.Errorf("it is damaged at byte %d, and entries that were acknowledged come after that", good)
		}
	}
	return vkey, base, entries, good, nil
}

// openJournal reads the journal and cuts off what a power cut tore.
func openJournal(d filesystem, vkey string) (j *journal, base int64, entries []tlog.Entry, err error) {
	data, err := readFile(d, journalPath, maxJournal)
	if err != nil {
		return nil, 0, nil, err
	}
	owner, base, entries, good, err := parseJournal(data)
	if err != nil {
		return nil, 0, nil, fmt.Errorf("reading %s: %w", journalPath, err)
	}
	if owner != vkey {
		return nil, 0, nil, fmt.Errorf("the folder holds the log of the key %s, and the key given is %s", owner, vkey)
	}
	f, err := d.Modify(journalPath)
	if err != nil {
		return nil, 0, nil, err
	}
	j = &journal{fs: d, f: f, size: int64(good), next: base + int64(len(entries))}
	if good < len(data) {
		err = f.Truncate(j.size)
	}
	// What is read here counts as durable from now on, and a process that was
	// killed may not have synced it.
	if err := errors.Join(err, f.Sync(), d.SyncDir(stateDir)); err != nil {
		f.Close()
		return nil, 0, nil, fmt.Errorf("making %s durable: %w", journalPath, err)
	}
	return j, base, entries, nil
}

// append makes entries durable, at most maxBatch: one record a sync, so that a
// power cut tears no more than one. After errTorn nothing can be appended:
// what the disk holds is not known until it is read again.
func (j *journal) append(entries []tlog.Entry) error {
	b := journalRecord(j.next, entries)
	if _, err := j.f.WriteAt(b, j.size); err != nil {
		if undo := j.f.Truncate(j.size); undo != nil {
			return fmt.Errorf("%w: %w", errTorn, err)
		}
		return err
	}
	if err := j.f.Sync(); err != nil {
		return fmt.Errorf("%w: %w", errTorn, err)
	}
	j.size, j.next = j.size+int64(len(b)), j.next+int64(len(entries))
	return nil
}

var errTorn = errors.New("the journal could not be written to the end")

// rotate begins a new journal with the entries that the tree does not hold
// yet, from index base.
func (j *journal) rotate(vkey string, base int64, pending []tlog.Entry) error {
	b := journalHead(vkey, base)
	next := base
	for batch := range slices.Chunk(pending, maxBatch) {
		b = append(b, journalRecord(next, batch)...)
		next += int64(len(batch))
	}
	if err := prepareFile(j.fs, journalPath, b); err != nil {
		return err
	}
	// From here on it is not known which of the two a power cut leaves; both
	// are right, but only one can be gone on with. Windows renames over no file
	// that is open.
	j.f.Close()
	if err := errors.Join(j.fs.Rename(journalPath+".new", journalPath), j.fs.SyncDir(stateDir)); err != nil {
		return fmt.Errorf("%w: %w", errTorn, err)
	}
	f, err := j.fs.Modify(journalPath)
	if err != nil {
		return fmt.Errorf("%w: %w", errTorn, err)
	}
	j.f, j.size = f, int64(len(b))
	return nil
}

func (j *journal) close() error { return j.f.Close() }
