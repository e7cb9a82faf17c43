package serve

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	merkle "golang.org/x/mod/sumdb/tlog"

	"govah/evidence/tlog"
)

const (
	maxRequest   = tlog.MaxCheckpoint + (tlog.MaxHashes+2)*45 // bytes of an add-checkpoint request
	witnessName  = "govah witness 1"
	witnessPath  = "witness" // marks a witness's folder, and says whose
	witnessState = "log-"    // and the SHA-256 of the origin in hex
)

// addRequest is the body of an add-checkpoint request (c2sp.org/tlog-witness):
// a checkpoint, and the proof that it continues the tree of size old.
type addRequest struct {
	old        int64
	proof      merkle.TreeProof
	checkpoint []byte
}

func (r addRequest) text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", r.old)
	for _, h := range r.proof {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	b.WriteByte('\n')
	b.Write(r.checkpoint)
	return b.Bytes()
}

func parseAddRequest(data []byte) (r addRequest, err error) {
	if len(data) > maxRequest {
		return r, errors.New("a request that is too long")
	}
	head, checkpoint, ok := strings.Cut(string(data), "\n\n")
	if !ok {
		return r, errors.New("no empty line before the checkpoint")
	}
	lines := strings.Split(head, "\n")
	size, ok := strings.CutPrefix(lines[0], "old ")
	if !ok {
		return r, errors.New("no line with the old size")
	}
	if r.old, err = tlog.ParseDecimal(size); err != nil {
		return r, fmt.Errorf("the old size: %w", err)
	}
	if lines = lines[1:]; len(lines) > tlog.MaxHashes {
		return r, fmt.Errorf("more than %d hashes", tlog.MaxHashes)
	}
	for _, line := range lines {
		h, err := tlog.ParseHash(line)
		if err != nil {
			return r, fmt.Errorf("the consistency proof: %w", err)
		}
		r.proof = append(r.proof, h)
	}
	r.checkpoint = []byte(checkpoint)
	return r, nil
}

// Refusal is why a witness does not cosign, with the status code that
// c2sp.org/tlog-witness gives it.
type Refusal struct {
	Status int   // an HTTP status code
	Size   int64 // that the witness has cosigned; of a 409 for another old size, else -1
	Why    string
}

func (r *Refusal) Error() string { return r.Why }

func refuse(status int, format string, args ...any) *Refusal {
	return &Refusal{Status: status, Size: -1, Why: fmt.Sprintf(format, args...)}
}

// Witness cosigns checkpoints of the logs that it knows, if they continue what
// it has cosigned before. What that is it keeps in a folder, one file a log,
// and has it on disk before a cosignature leaves.
type Witness struct {
	fs     filesystem
	lock   io.Closer
	cosign *tlog.Cosigner
	now    func() time.Time

	mu   sync.Mutex
	logs map[string]*watched // by origin
}

// watched is a log that a witness watches.
type watched struct {
	keys    []note.Verifier
	tree    tlog.Tree // cosigned last; of size 0 if none was
	seconds int64     // time of that cosignature, since 1970
}

// OpenWitness opens a witness's folder. skey is its key, logs the public keys
// of the logs that it watches. A new folder is made if the key is fresh: a key
// that has cosigned before, with an empty folder, might cosign a second
// history.
func OpenWitness(dir, skey string, logs []string, fresh bool) (*Witness, error) {
	c, err := tlog.NewCosigner(strings.TrimSpace(skey))
	if err != nil {
		return nil, fmt.Errorf("opening the witness: %w", err)
	}
	d, err := openFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the witness: %w", err)
	}
	w, err := openWitness(d, c, logs, fresh)
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("opening the witness in %s: %w", dir, err)
	}
	return w, nil
}

func openWitness(d filesystem, c *tlog.Cosigner, logs []string, fresh bool) (*Witness, error) {
	w := &Witness{fs: d, cosign: c, now: time.Now, logs: map[string]*watched{}}
	owner, err := readFile(d, witnessPath, 4096)
	want := witnessName + "\n" + c.VKey() + "\n"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		names, err := d.List(".")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if !strings.HasPrefix(name, ".") && name != witnessPath+".new" && name != ownLog {
				return nil, fmt.Errorf("the folder holds %q and no witness; a new witness wants an empty folder", name)
			}
		}
		if !fresh {
			return nil, ErrUsedKey
		}
		if err := replaceFile(d, witnessPath, []byte(want)); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case string(owner) != want:
		return nil, errors.New("the folder is of a witness with another key")
	}
	if err := d.SyncDir("."); err != nil { // a process that was killed may not have
		return nil, err
	}
	if w.lock, err = d.Lock(".lock"); err != nil {
		return nil, err
	}
	for _, vkey := range logs {
		if err := w.watch(vkey); err != nil {
			w.lock.Close()
			return nil, err
		}
	}
	return w, nil
}

// watch adds a log's key.
func (w *Witness) watch(vkey string) error {
	key, err := tlog.NewLogVerifier(vkey)
	if err != nil {
		return err
	}
	l := w.logs[key.Name()]
	if l == nil {
		empty, _ := merkle.TreeHash(0, nil)
		l = &watched{tree: tlog.Tree{Origin: key.Name(), Root: empty}}
		data, err := readFile(w.fs, statePath(key.Name()), tlog.MaxCheckpoint)
		if err == nil {
			l.tree, l.seconds, err = parseWitnessState(string(data))
		}
		if err == nil && l.tree.Origin != key.Name() {
			err = errors.New("it is of another log")
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("what was cosigned of %s, in %s: %w", key.Name(), statePath(key.Name()), err)
		}
		w.logs[key.Name()] = l
	}
	l.keys = append(l.keys, key)
	return nil
}

func statePath(origin string) string {
	h := sha256.Sum256([]byte(origin))
	return witnessState + hex.EncodeToString(h[:])
}

// witnessStateText is a state file: a name, the time of the last cosignature,
// and the three lines of the tree.
func witnessStateText(t tlog.Tree, seconds int64) []byte {
	t.Extra = nil
	return fmt.Appendf(nil, "%s\n%d\n%s", witnessName, seconds, t.Text())
}

func parseWitnessState(text string) (t tlog.Tree, seconds int64, err error) {
	lines := strings.SplitN(text, "\n", 3)
	if len(lines) < 3 || lines[0] != witnessName {
		return t, 0, errors.New("it is no state of a witness of this version")
	}
	if seconds, err = tlog.ParseDecimal(lines[1]); err != nil {
		return t, 0, fmt.Errorf("its time: %w", err)
	}
	t, err = tlog.ParseTree(lines[2])
	return t, seconds, err
}

// VKey is the witness's public key, for policies.
func (w *Witness) VKey() string { return w.cosign.VKey() }

// Close lets go of the folder.
func (w *Witness) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.lock.Close(), w.fs.Close())
}

// AddCheckpoint answers an add-checkpoint request: with the line of the
// cosignature, or a *Refusal.
func (w *Witness) AddCheckpoint(body []byte) ([]byte, error) {
	r, err := parseAddRequest(body)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "reading the request: %v", err)
	}
	return w.add(r)
}

func (w *Witness) add(r addRequest) ([]byte, error) {
	text, _, err := tlog.SplitNote(r.checkpoint)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "reading the checkpoint: %v", err)
	}
	origin, _, _ := strings.Cut(text, "\n")
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.logs[origin]
	if l == nil {
		return nil, refuse(http.StatusNotFound, "this witness does not watch that log")
	}
	if _, err := note.Open(r.checkpoint, note.VerifierList(l.keys...)); err != nil {
		return nil, refuse(http.StatusForbidden, "the checkpoint's signature: %v", err)
	}
	tree, err := tlog.ParseTree(text)
	switch {
	case errors.Is(err, tlog.ErrEmptyRoot):
		return nil, refuse(http.StatusUnprocessableEntity, "reading the checkpoint: %v", err)
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "reading the checkpoint: %v", err)
	case r.old > tree.Size:
		return nil, refuse(http.StatusBadRequest, "the old size is above that of the checkpoint")
	case r.old != l.tree.Size:
		return nil, &Refusal{Status: http.StatusConflict, Size: l.tree.Size, Why: fmt.Sprintf("this witness has cosigned %d entries of that log, not %d", l.tree.Size, r.old)}
	case r.old == tree.Size && tree.Root != l.tree.Root:
		return nil, refuse(http.StatusConflict, "the log shows two histories: its tree of %d entries has another root than the one that this witness has cosigned", tree.Size)
	}
	switch {
	case r.old == 0 || r.old == tree.Size:
		if len(r.proof) != 0 {
			return nil, refuse(http.StatusUnprocessableEntity, "a consistency proof where none is due")
		}
	default:
		if err := merkle.CheckTree(r.proof, tree.Size, tree.Root, l.tree.Size, l.tree.Root); err != nil {
			return nil, refuse(http.StatusUnprocessableEntity, "the checkpoint does not continue the tree that this witness has cosigned")
		}
	}
	return w.keep(l, tree, []byte(text))
}

// keep makes durable what is about to be cosigned, and cosigns it.
func (w *Witness) keep(l *watched, tree tlog.Tree, text []byte) ([]byte, error) {
	now := w.now().Unix()
	if now < l.seconds {
		return nil, refuse(http.StatusInternalServerError, "the witness's clock is %v behind its last cosignature", time.Duration(l.seconds-now)*time.Second)
	}
	if now == l.seconds && tree.Size == l.tree.Size && tree.Root == l.tree.Root {
		return w.line(text, now) // it is on disk already: asking a hundred times a second costs nothing
	}
	if err := replaceFile(w.fs, statePath(tree.Origin), witnessStateText(tree, now)); err != nil {
		// The disk may hold the new state or the old. Both are right to go on
		// from: the new one continues the old, and was not cosigned.
		return nil, refuse(http.StatusInternalServerError, "writing what is cosigned: %v", err)
	}
	l.tree, l.seconds = tree, now
	return w.line(text, now)
}

// line cosigns what is durable.
func (w *Witness) line(text []byte, now int64) ([]byte, error) {
	line, err := w.cosign.Cosign(text, now)
	if err != nil {
		return nil, refuse(http.StatusInternalServerError, "cosigning: %v", err)
	}
	return line, nil
}

// Handler serves add-checkpoint.
func (w *Witness) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxRequest))
		if err != nil {
			http.Error(rw, "reading the request failed, or it is too long", http.StatusBadRequest)
			return
		}
		lines, err := w.AddCheckpoint(body)
		var no *Refusal
		switch {
		case errors.As(err, &no) && no.Size >= 0:
			rw.Header().Set("Content-Type", "text/x.tlog.size")
			rw.WriteHeader(no.Status)
			fmt.Fprintf(rw, "%d\n", no.Size)
		case errors.As(err, &no):
			http.Error(rw, no.Why, no.Status)
		default:
			rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
			rw.Write(lines)
		}
	})
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(rw, "A witness (c2sp.org/tlog-witness).\n%s\n", w.VKey())
	})
	return mux
}

// addCheckpoint implements cosigner.
func (w *Witness) addCheckpoint(_ context.Context, r addRequest) ([]byte, error) { return w.add(r) }

// key implements cosigner.
func (w *Witness) key() note.Verifier {
	k, _ := tlog.NewCosignatureVerifier(w.VKey()) // which it made
	return k
}
