package serve

import (
	"crypto/ed25519"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	merkle "golang.org/x/mod/sumdb/tlog"

	"govah/evidence/tlog"
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
			bytes := make([]byte, recordFrame+size*tlog.EntrySize)
			for b.Loop() {
				b.StopTimer()
				batch := make([]tlog.Entry, size)
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
			batch := make([]tlog.Entry, maxBatch)
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
			if t.level > 0 || t.level == 0 && t.n == index/tlog.TileWidth {
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
	// A log and three witnesses sign, and the floor is their four signatures.
	var keys []ed25519.PublicKey
	var messages, signatures [][]byte
	signedBy := func(vkey, message string, line []byte) {
		raw, err := base64.StdEncoding.DecodeString(strings.SplitN(vkey, "+", 3)[2])
		if err != nil {
			b.Fatal(err)
		}
		words := strings.Fields(string(line))
		sig, err := base64.StdEncoding.DecodeString(words[len(words)-1])
		if err != nil {
			b.Fatal(err)
		}
		keys, messages, signatures = append(keys, raw[1:]), append(messages, []byte(message)), append(signatures, sig[len(sig)-ed25519.SignatureSize:])
	}
	const origin = "log.example/evidence"
	log := mustKey(b, origin, false)
	text := tlog.Tree{Origin: origin, Size: e.size, Root: root}.Text()
	signed := signText(b, log, text)
	signedBy(vkeyOfKey(b, log), text, signed)
	policy := "log " + vkeyOfKey(b, log) + "\n"
	for i := range 3 {
		c, err := tlog.NewCosigner(mustKey(b, fmt.Sprintf("w%d.example", i), true))
		if err != nil {
			b.Fatal(err)
		}
		seconds := int64(1_700_000_000 + i)
		line, err := c.Cosign([]byte(text), seconds)
		if err != nil {
			b.Fatal(err)
		}
		signed = append(signed, line...)
		signedBy(c.VKey(), fmt.Sprintf("cosignature/v1\ntime %d\n%s", seconds, text), line)
		policy += fmt.Sprintf("witness W%d %s\n", i, c.VKey())
	}
	proof := tlog.RawProof{Index: index, Path: path, Checkpoint: signed}.Text()
	p := policyFor(b, policy+"group g 2 W0 W1 W2\nquorum g\n")
	entry := entryOf(int(index))
	var ours, floor []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := tlog.VerifyProof(proof, entry[:], p); err != nil {
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
