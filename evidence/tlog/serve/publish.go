package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	merkle "golang.org/x/mod/sumdb/tlog"

	"govah/evidence/tlog"
)

// cosigner is a witness that a log asks: one behind HTTP, or one of this
// process.
type cosigner interface {
	addCheckpoint(context.Context, addRequest) ([]byte, error) // lines of signatures, or a *Refusal
	key() note.Verifier
}

// RemoteWitness is a witness behind HTTP.
type RemoteWitness struct {
	url  string
	pub  note.Verifier
	http *http.Client
}

// NewRemoteWitness is the witness with a public key, at a submission prefix.
func NewRemoteWitness(url, vkey string, client *http.Client) (*RemoteWitness, error) {
	key, err := tlog.NewCosignatureVerifier(vkey)
	if err != nil {
		return nil, err
	}
	url, err = tlog.ParseURL(url)
	if err != nil {
		return nil, err
	}
	return &RemoteWitness{url: strings.TrimSuffix(url, "/"), pub: key, http: client}, nil
}

func (w *RemoteWitness) key() note.Verifier { return w.pub }

// addCheckpoint implements cosigner.
func (w *RemoteWitness) addCheckpoint(ctx context.Context, r addRequest) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/add-checkpoint", bytes.NewReader(r.text()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "text/plain")
	resp, err := w.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, tlog.MaxCheckpoint))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return body, nil
	}
	no := refuse(resp.StatusCode, "%s", strings.TrimSpace(string(body[:min(len(body), 300)])))
	if resp.StatusCode == http.StatusConflict && resp.Header.Get("Content-Type") == "text/x.tlog.size" {
		line, ok := strings.CutSuffix(string(body), "\n")
		size, err := tlog.ParseDecimal(line)
		if !ok || err != nil {
			return nil, errors.New("the witness's answer says no size")
		}
		no.Size = size
	}
	return nil, no
}

// Asked is what a witness has said to a log.
type Asked struct {
	cosigner
	size int64  // of the log, that the witness has cosigned
	line []byte // its cosignature
	of   int64  // the tree's size that line is of
	at   time.Time
	err  error     // the last time that it did not cosign
	next time.Time // before which it is not asked again after that
	wait time.Duration
}

const (
	retryFirst = 5 * time.Second // after which a witness that fails is asked again; twice as long each time
	retryMost  = 5 * time.Minute
)

// ErrAhead says that a witness has seen a larger tree than there is: this is
// an old copy of the log, and would sign a second history.
var ErrAhead = errors.New("a witness has cosigned more entries than this log has: this is an old copy of the log; do not go on with it")

// ask gets the witness's cosignature of a head. A witness that has cosigned
// another size than is known here says so, and is asked again.
func (l *Log) ask(ctx context.Context, w *Asked, h *head) error {
	for range 3 {
		r := addRequest{old: w.size, checkpoint: h.signed}
		if r.old > h.tree.Size {
			return ErrAhead
		}
		if r.old > 0 && r.old < h.tree.Size {
			var err error
			if r.proof, err = merkle.ProveTree(h.tree.Size, r.old, l.reader(h)); err != nil {
				return fmt.Errorf("making the consistency proof: %w", err)
			}
		}
		lines, err := w.addCheckpoint(ctx, r)
		var no *Refusal
		if errors.As(err, &no) && no.Status == http.StatusConflict && no.Size >= 0 && no.Size != w.size {
			w.size = no.Size
			continue
		}
		if err != nil {
			return err
		}
		line, err := cosignatureOf(h.signed, lines, w.key())
		if err != nil {
			return err
		}
		w.size, w.line, w.of, w.at = h.tree.Size, line, h.tree.Size, time.Now()
		return nil
	}
	return errors.New("the witness names another size each time")
}

// cosignatureOf takes the line of a witness's key out of its answer, if it
// verifies.
func cosignatureOf(signed, lines []byte, key note.Verifier) ([]byte, error) {
	n, err := note.Open(append(bytes.Clone(signed), lines...), note.VerifierList(key))
	if err != nil {
		return nil, fmt.Errorf("the witness's answer: %w", err)
	}
	return fmt.Appendf(nil, "— %s %s\n", n.Sigs[0].Name, n.Sigs[0].Base64), nil
}

// Publish brings the tree up to date, asks the witnesses that have not
// cosigned it within refresh, and shows the checkpoint once quorum of them
// have. The errors of witnesses are in what was asked; Publish fails if the
// disk does, or if a witness is ahead, which stops the log.
func (l *Log) Publish(ctx context.Context, witnesses []*Asked, quorum int, refresh time.Duration) error {
	if err := l.Integrate(); err != nil {
		return err
	}
	h := l.tree.Load()
	var wg sync.WaitGroup
	for _, w := range witnesses {
		if w.line != nil && w.of == h.tree.Size && time.Since(w.at) < refresh {
			continue
		}
		if w.err != nil && time.Now().Before(w.next) {
			continue
		}
		wg.Go(func() {
			if w.err = l.ask(ctx, w, h); w.err == nil {
				w.wait = 0
				return
			}
			w.wait = min(max(2*w.wait, retryFirst), retryMost)
			w.next = time.Now().Add(w.wait)
		})
	}
	wg.Wait()
	text := bytes.Clone(h.signed)
	n := 0
	for _, w := range witnesses {
		if errors.Is(w.err, ErrAhead) {
			l.stop(w.err)
			return w.err
		}
		if w.line != nil && w.of == h.tree.Size {
			text, n = append(text, w.line...), n+1
		}
	}
	if n < quorum {
		return nil
	}
	l.publishing.Lock()
	defer l.publishing.Unlock()
	if old := l.head.Load(); old != nil && (bytes.Equal(old.text, text) || old.tree.Size > h.tree.Size) {
		return nil
	}
	if err := replaceFile(l.fs, "checkpoint", text); err != nil {
		return fmt.Errorf("writing the checkpoint: %w", err)
	}
	l.head.Store(&published{h.tree, text})
	return nil
}

// Ask makes what Publish asks.
func Ask(witnesses ...*RemoteWitness) []*Asked {
	var list []*Asked
	for _, w := range witnesses {
		list = append(list, &Asked{cosigner: w})
	}
	return list
}

// Failed says which witness did not cosign the last time and why; nil if it
// did.
func (w *Asked) Failed() error {
	if w.err == nil {
		return nil
	}
	return fmt.Errorf("the witness %s has not cosigned: %w", w.key().Name(), w.err)
}

// ErrNotYet says that an entry is durable, and in no published checkpoint.
var ErrNotYet = errors.New("the entry is not in the published checkpoint yet")

// ErrNotFound says that an entry is not in the log.
var ErrNotFound = errors.New("the entry is not in the log")

// Proof is the tlog-proof of an entry under the published checkpoint, and the
// entry's index.
func (l *Log) Proof(e tlog.Entry) (proof []byte, index int64, err error) {
	l.mu.Lock()
	index, ok, err := l.find(e)
	l.mu.Unlock()
	switch {
	case err != nil:
		return nil, 0, err
	case !ok:
		return nil, 0, ErrNotFound
	}
	p := l.head.Load()
	if p == nil || p.tree.Size <= index {
		return nil, index, ErrNotYet
	}
	path, err := merkle.ProveRecord(p.tree.Size, index, l.reader(l.tree.Load()))
	if err == nil {
		err = merkle.CheckRecord(path, p.tree.Size, p.tree.Root, index, merkle.RecordHash(e[:]))
	}
	if err != nil {
		return nil, index, fmt.Errorf("the tiles give no proof of entry %d: %w", index, err)
	}
	return tlog.RawProof{Index: index, Path: path, Checkpoint: p.text}.Text(), index, nil
}

// Checkpoint is the published checkpoint; nil before there is one.
func (l *Log) Checkpoint() []byte {
	if p := l.head.Load(); p != nil {
		return p.text
	}
	return nil
}

// Tile reads a tile, or part of one, by its path.
func (l *Log) Tile(path string) ([]byte, error) {
	t, err := parseTilePath(path)
	if err != nil {
		return nil, err
	}
	h := l.tree.Load()
	if t.w > t.widthAt(h.tree.Size) {
		return nil, ErrNotFound
	}
	data, ok := h.edge.tileData(t)
	if !ok {
		if data, err = l.readTile(tile{t.level, t.n, tlog.TileWidth}); err != nil {
			return nil, err
		}
	}
	return data[:t.w*t.itemSize()], nil
}
