// Package interop holds the log, the witness and the proofs of govah against
// an independent implementation of the same formats: Tessera, and the formats
// package of transparency.dev.
package interop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	fnote "github.com/transparency-dev/formats/note"
	fproof "github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"

	"govah/evidence/tlog"
	"govah/evidence/tlog/serve"
)

const (
	origin  = "log.example/evidence"
	entries = 700
)

func entryOf(i int) tlog.Entry { return sha256.Sum256(fmt.Append(nil, "interop ", i)) }

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// witnessed serves a new witness of a log.
func witnessed(t *testing.T, logKey string) (w *serve.Witness, at *httptest.Server) {
	w = must(serve.OpenWitness(t.TempDir(), must(tlog.MakeKey("w.example", true))(t), []string{logKey}, true))(t)
	t.Cleanup(func() { w.Close() })
	at = httptest.NewServer(w.Handler())
	t.Cleanup(at.Close)
	return w, at
}

func bundleHashes(bundle []byte) ([][]byte, error) {
	var b api.EntryBundle
	if err := b.UnmarshalText(bundle); err != nil {
		return nil, err
	}
	var list [][]byte
	for _, e := range b.Entries {
		list = append(list, rfc6962.DefaultHasher.HashLeaf(e))
	}
	return list, nil
}

// TestOursReadByTessera: Tessera's client verifies checkpoint, tiles, entries
// and proofs of our log, over HTTP and from its files; its fsck finds nothing;
// formats reads and verifies our cosignature and our proof.
func TestOursReadByTessera(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := t.TempDir()
	l := must(serve.Open(dir, must(tlog.MakeKey(origin, false))(t), true))(t)
	defer l.Close()
	w, wat := witnessed(t, l.VKey())
	remote := must(serve.NewRemoteWitness(wat.URL, w.VKey(), wat.Client()))(t)
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	s := &serve.Server{Log: l, Witnesses: []*serve.RemoteWitness{remote}, Quorum: 1, Report: func(text string) { t.Log(text) }}
	go func() { ended <- s.Serve(serving, listener) }()
	defer func() { stop(); <-ended }()

	verifier := must(note.NewVerifier(l.VKey()))(t)
	prefix := must(url.Parse("http://" + listener.Addr().String() + "/"))(t)
	fetcher := must(client.NewHTTPFetcher(prefix, http.DefaultClient))(t)
	var tracker *client.LogStateTracker
	done := 0
	for _, size := range []int{1, 2, 255, 256, 257, 512, entries} {
		var batch []tlog.Entry
		for ; done < size; done++ {
			batch = append(batch, entryOf(done))
		}
		if _, err := l.Add(ctx, batch...); err != nil {
			t.Fatal(err)
		}
		if err := l.Publish(ctx, serve.Ask(remote), 1, time.Hour); err != nil {
			t.Fatal(err)
		}
		if tracker == nil {
			raw := must(fetcher.ReadCheckpoint(ctx))(t)
			tracker = must(client.NewLogStateTracker(ctx, fetcher.ReadTile, raw, verifier, origin, client.UnilateralConsensus(fetcher.ReadCheckpoint)))(t)
		} else if _, _, _, err := tracker.Update(ctx); err != nil { // verifies consistency
			t.Fatalf("size %d: %v", size, err)
		}
		if got := tracker.Latest().Size; got != uint64(size) {
			t.Fatalf("Tessera sees %d entries of %d", got, size)
		}
	}
	cp, raw, _, err := client.FetchCheckpoint(ctx, fetcher.ReadCheckpoint, verifier, origin)
	if err != nil {
		t.Fatal(err)
	}
	builder := must(client.NewProofBuilder(ctx, cp.Size, fetcher.ReadTile))(t)
	for _, i := range []int{0, 1, 255, 256, 511, 512, entries - 1} {
		e := entryOf(i)
		path := must(builder.InclusionProof(ctx, uint64(i)))(t)
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(i), cp.Size, rfc6962.DefaultHasher.HashLeaf(e[:]), path, cp.Hash); err != nil {
			t.Errorf("entry %d: %v", i, err)
		}
		bundle := must(client.GetEntryBundle(ctx, fetcher.ReadEntryBundle, uint64(i/256), cp.Size))(t)
		if !bytes.Equal(bundle.Entries[i%256], e[:]) {
			t.Errorf("entry %d is another in its bundle", i)
		}
		ours, index, err := l.Proof(e)
		if err != nil || index != int64(i) {
			t.Fatal(index, err)
		}
		var theirs fproof.TLogProof
		if err := theirs.Unmarshal(ours); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(theirs.Marshal(), ours) || theirs.Index != uint64(i) || len(theirs.Hashes) != len(path) {
			t.Errorf("the proof of entry %d is read as another", i)
		}
		for n, h := range theirs.Hashes {
			if !bytes.Equal(h[:], path[n]) {
				t.Errorf("the proof of entry %d differs from Tessera's at %d", i, n)
			}
		}
	}
	// The cosignature, by another's verifier.
	cosigner := must(fnote.NewVerifierForCosignatureV1(w.VKey()))(t)
	n := must(note.Open(raw, note.VerifierList(verifier, cosigner)))(t)
	if len(n.Sigs) != 2 {
		t.Fatalf("%d of 2 signatures verify", len(n.Sigs))
	}
	at := must(fnote.CoSigV1Timestamp(n.Sigs[1]))(t)
	if d := time.Since(at); d < 0 || d > time.Minute {
		t.Errorf("cosigned at %v", at)
	}
	for name, f := range map[string]fsck.Fetcher{"HTTP": fetcher, "files": client.FileFetcher{Root: dir}} {
		if err := fsck.New(origin, verifier, f, bundleHashes, fsck.Opts{N: 2}).Check(ctx); err != nil {
			t.Errorf("Tessera's fsck, by %s: %v", name, err)
		}
	}
}

// TestTesseraReadByOurs: a log written by Tessera, cosigned by our witness for
// it under one of our policies: our client makes proofs from its files, and
// they verify.
func TestTesseraReadByOurs(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := filepath.Join(t.TempDir(), "log")
	skey := must(tlog.MakeKey(origin, false))(t)
	signer := must(note.NewSigner(skey))(t)
	logKey := vkeyOf(t, skey)
	w, wat := witnessed(t, logKey)
	policy := fmt.Sprintf("log %s\nwitness W %s %s\nquorum W\n", logKey, w.VKey(), wat.URL)
	group := must(tessera.NewWitnessGroupFromPolicy([]byte(policy)))(t)
	driver := must(posix.New(ctx, posix.Config{Path: dir}))(t)
	appender, shutdown, reader, err := tessera.NewAppender(ctx, driver, tessera.NewAppendOptions().
		WithCheckpointSigner(signer).WithBatching(300, 50*time.Millisecond).WithCheckpointInterval(100*time.Millisecond).
		WithWitnesses(group, &tessera.WitnessOptions{Timeout: 20 * time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	await := tessera.NewPublicationAwaiter(ctx, reader.ReadCheckpoint, 50*time.Millisecond)
	var futures []tessera.IndexFuture
	for i := range entries {
		e := entryOf(i)
		futures = append(futures, appender.Add(ctx, tessera.NewEntry(e[:])))
		if i == 100 { // two checkpoints at least, so that the witness sees a consistency proof
			if _, _, err := await.Await(ctx, futures[0]); err != nil {
				t.Fatal(err)
			}
		}
	}
	indexes := make([]int64, entries)
	for i, f := range futures {
		index, _, err := await.Await(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		indexes[i] = int64(index.Index)
	}
	if err := shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	files := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer files.Close()
	c := must(tlog.NewClient(files.URL, files.Client()))(t)
	p := must(tlog.ParsePolicy([]byte(policy)))(t)
	for _, i := range []int{0, 1, 99, 100, 255, 256, 400, entries - 1} {
		e := entryOf(i)
		ours, got, err := c.Prove(ctx, indexes[i], e, p)
		if err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		if got.Checkpoint.Size != entries || len(got.Checkpoint.Cosignatures) != 1 || time.Since(got.Checkpoint.By) > time.Minute {
			t.Errorf("entry %d: %+v", i, got)
		}
		if _, err := tlog.VerifyProof(ours, e[:], p); err != nil {
			t.Error(err)
		}
	}
	if e := entryOf(-1); true {
		if _, _, err := c.Prove(ctx, 3, e, p); err == nil {
			t.Error("an entry is proved that is not there")
		}
	}
}

// TestTheirCosignature: a cosignature that formats makes verifies here.
func TestTheirCosignature(t *testing.T) {
	skey := must(tlog.MakeKey("w.example", true))(t)
	cosigner := must(fnote.NewSignerForCosignatureV1(skey))(t)
	logSkey := must(tlog.MakeKey(origin, false))(t)
	root := sha256.Sum256([]byte("root"))
	signed := must(note.Sign(&note.Note{Text: fmt.Sprintf("%s\n12\n%s\n", origin, base64.StdEncoding.EncodeToString(root[:]))}, must(note.NewSigner(logSkey))(t), cosigner))(t)
	ours := must(tlog.NewCosigner(skey))(t)
	p := must(tlog.ParsePolicy(fmt.Appendf(nil, "log %s\nwitness W %s\nquorum W\n", vkeyOf(t, logSkey), ours.VKey())))(t)
	got := must(tlog.VerifyCheckpoint(signed, p))(t)
	if len(got.Cosignatures) != 1 || time.Since(got.By) > time.Minute || got.Size != 12 || got.Root != root {
		t.Errorf("%+v", got)
	}
}

// vkeyOf is the public key of a log's private key.
func vkeyOf(t testing.TB, skey string) string {
	l := must(serve.Open(t.TempDir(), skey, true))(t)
	defer l.Close()
	return l.VKey()
}
