package serve

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"govah/evidence/tlog"
)

// A witness can log by itself what is carried to it, where no log is in reach:
// in a log of its own in its folder, that nobody else adds to.
const (
	ownLog = "own"
	ownKey = ownLog + "/.key"
)

// LogAlone logs an entry in the log of its own of a witness that was opened in
// dir, and cosigns it. It returns the proof, and a policy that it satisfies.
func (w *Witness) LogAlone(ctx context.Context, dir string, e tlog.Entry) (proof []byte, policy string, err error) {
	skey, _, err := KeyFile(filepath.Join(dir, ownKey), w.cosign.Name()+"/"+ownLog, false)
	if err != nil {
		return nil, "", err
	}
	l, err := Open(filepath.Join(dir, ownLog), skey, true) // the key is in the folder, and is lost with it
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	w.mu.Lock()
	if w.logs[l.Origin()] == nil {
		err = w.watch(l.VKey())
	}
	w.mu.Unlock()
	if err != nil {
		return nil, "", err
	}
	if _, err := l.Add(ctx, e); err != nil {
		return nil, "", err
	}
	asked := []*Asked{{cosigner: w}}
	if err := l.Publish(ctx, asked, 1, time.Hour); err != nil {
		return nil, "", err
	}
	if err := asked[0].Failed(); err != nil {
		return nil, "", err
	}
	if proof, _, err = l.Proof(e); err != nil {
		return nil, "", err
	}
	return proof, fmt.Sprintf("log %s\nwitness W %s\nquorum W\n", l.VKey(), w.VKey()), nil
}

// CosignProof adds the witness's cosignature to the checkpoint of a proof that
// was carried to it. The witness must watch the log, and have cosigned nothing
// of it yet or this very tree: a proof does not say how a tree continues
// another.
func (w *Witness) CosignProof(proof []byte) ([]byte, error) {
	raw, err := tlog.ParseProof(proof)
	if err != nil {
		return nil, fmt.Errorf("reading the proof: %w", err)
	}
	old := int64(0)
	if text, _, err := tlog.SplitNote(raw.Checkpoint); err == nil {
		if tree, err := tlog.ParseTree(text); err == nil {
			w.mu.Lock()
			if l := w.logs[tree.Origin]; l != nil && l.tree.Size == tree.Size {
				old = tree.Size
			}
			w.mu.Unlock()
		}
	}
	line, err := w.add(addRequest{old: old, checkpoint: raw.Checkpoint})
	if err != nil {
		return nil, err
	}
	raw.Checkpoint = append(raw.Checkpoint, line...)
	return raw.Text(), nil
}
