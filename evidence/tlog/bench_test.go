package tlog

import (
	"crypto/ed25519"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	merkle "golang.org/x/mod/sumdb/tlog"
)

var leaves = flag.Int("leaves", 10_000_000, "leaves of the tree of BenchmarkProof")

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// BenchmarkAppend adds batches until they are durable, and between them writes
// and syncs the same number of bytes to a bare file: entries a second, and the
// ratio of the medians.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{256, maxBatch} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			dir := b.TempDir()
			l, err := Open(filepath.Join(dir, "log"), mustKey(b, "example.org/log", false), true)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			raw, err := os.Create(filepath.Join(dir, "raw"))
			if err != nil {
				b.Fatal(err)
			}
			defer raw.Close()
			var ours, bare []time.Duration
			n, off := 0, int64(0)
			bytes := make([]byte, recordFrame+size*EntrySize)
			for b.Loop() {
				b.StopTimer()
				batch := make([]Entry, size)
				for i := range batch {
					batch[i] = entryOf(n)
					n++
				}
				start := time.Now()
				if _, err := raw.WriteAt(bytes, off); err != nil {
					b.Fatal(err)
				}
				if err := raw.Sync(); err != nil {
					b.Fatal(err)
				}
				bare, off = append(bare, time.Since(start)), off+int64(len(bytes))
				b.StartTimer()
				start = time.Now()
				if _, err := l.Add(b.Context(), batch...); err != nil {
					b.Fatal(err)
				}
				ours = append(ours, time.Since(start))
				b.StopTimer()
				if l.Size()-l.base > maxPending/2 {
					if err := l.Integrate(); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
			}
			m := median(ours)
			b.ReportMetric(float64(size)/m.Seconds(), "entries/s")
			b.ReportMetric(median(bare).Seconds()/m.Seconds(), "of-raw")
		})
	}
}

// BenchmarkServe adds batches with all that a log does for them: durable,
// integrated, signed and published once a second's worth is there.
func BenchmarkServe(b *testing.B) {
	l, err := Open(filepath.Join(b.TempDir(), "log"), mustKey(b, "example.org/log", false), true)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	n := 0
	start := time.Now()
	for b.Loop() {
		for range 4 {
			batch := make([]Entry, maxBatch)
			for i := range batch {
				batch[i] = entryOf(n)
				n++
			}
			if _, err := l.Add(b.Context(), batch...); err != nil {
				b.Fatal(err)
			}
		}
		if err := l.Publish(b.Context(), nil, 0, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/time.Since(start).Seconds(), "entries/s")
}

// BenchmarkProof verifies a proof at ten million leaves with the signatures of
// a log and three witnesses, and between that the four signatures alone: the
// proof's size, the time of a verification, and the ratio of the medians.
func BenchmarkProof(b *testing.B) {
	index := int64(*leaves) * 2 / 3
	kept := map[tile][]byte{}
	e := &edge{}
	for i := range *leaves {
		if err := e.add(entryOf(i), func(t tile, data []byte) error {
			if t.level > 0 || t.level == 0 && t.n == index/tileWidth {
				kept[t] = slices.Clone(data)
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	root, err := e.root()
	if err != nil {
		b.Fatal(err)
	}
	path, err := merkle.ProveRecord(e.size, index, e.reader(func(t tile) ([]byte, error) {
		if data, ok := kept[t]; ok {
			return data, nil
		}
		return nil, fmt.Errorf("%s was not kept", t.path())
	}))
	if err != nil {
		b.Fatal(err)
	}
	tree := Tree{Origin: vectorOrigin, Size: e.size, Root: root}
	signed := witnessed(b, vectorLog, tree, map[int]int64{0: 1_700_000_000, 1: 1_700_000_001, 2: 1_700_000_002})
	proof := rawProof{index: index, path: path, checkpoint: signed}.text()
	p := policyFor(b, "log "+vkeyOfKey(b, vectorLog)+"\n"+witnessLine(0)+witnessLine(1)+witnessLine(2)+"group g 2 W0 W1 W2\nquorum g\n")
	entry := entryOf(int(index))

	// The floor: the four signatures.
	var keys []ed25519.PublicKey
	var messages, signatures [][]byte
	n, err := note.Open(signed, p.verifiers())
	if err != nil {
		b.Fatal(err)
	}
	for i, s := range n.Sigs {
		raw := rawSignature(b, s)
		if i == 0 {
			keys, messages, signatures = append(keys, p.logs[0].key.key), append(messages, []byte(n.Text)), append(signatures, raw)
			continue
		}
		keys = append(keys, p.witnesses[i-1].key.key)
		messages, signatures = append(messages, cosigned([]byte(n.Text), uint64(cosignedAt(s).Unix()))), append(signatures, raw[8:])
	}
	var ours, floor []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := VerifyProof(proof, entry[:], p); err != nil {
			b.Fatal(err)
		}
		ours = append(ours, time.Since(start))
		start = time.Now()
		for i := range keys {
			if !ed25519.Verify(keys[i], messages[i], signatures[i]) {
				b.Fatal("a signature does not verify")
			}
		}
		floor = append(floor, time.Since(start))
	}
	m := median(ours)
	if len(proof) > 2048 {
		b.Errorf("a proof of %d bytes", len(proof))
	}
	b.ReportMetric(float64(len(proof)), "proof-B")
	b.ReportMetric(float64(m.Nanoseconds())/1000, "µs/verify")
	b.ReportMetric(median(floor).Seconds()/m.Seconds(), "of-ed25519")
}

// rawSignature is a signature without the key's ID.
func rawSignature(t testing.TB, s note.Signature) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s.Base64)
	if err != nil {
		t.Fatal(err)
	}
	return b[4:]
}
