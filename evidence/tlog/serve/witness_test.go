package serve

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	merkle "golang.org/x/mod/sumdb/tlog"

	"govah/evidence/tlog"
)

// signTree signs a tree as a log that may lie.
func signTree(t testing.TB, key string, tree tlog.Tree) []byte {
	t.Helper()
	s, err := note.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: tree.Text()}, s)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func (h *history) tree(origin string, n int64) tlog.Tree {
	return tlog.Tree{Origin: origin, Size: n, Root: h.root(n)}
}

// proof is the consistency proof from a size to another.
func (h *history) proof(from, to int64) merkle.TreeProof {
	if from == 0 || from == to {
		return nil
	}
	p, err := merkle.ProveTree(to, from, h)
	if err != nil {
		panic(err)
	}
	return p
}

func grown(name string, n int) *history {
	h := &history{}
	for i := range n {
		h.add(tlog.Entry(merkle.RecordHash(fmt.Append(nil, name, i))))
	}
	return h
}

// TestWitnessStatus: the status codes of c2sp.org/tlog-witness, one case each.
func TestWitnessStatus(t *testing.T) {
	t.Parallel()
	const origin = "example.org/log"
	key, wkey := mustKey(t, origin, false), mustKey(t, "example.org/witness", true)
	w, err := OpenWitness(t.TempDir(), wkey, []string{vkeyOfKey(t, key)}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	server := httptest.NewServer(w.Handler())
	defer server.Close()
	a, b := grown("a", 20), grown("b", 20)
	ask := func(old int64, proof merkle.TreeProof, signed []byte) string {
		return string(addRequest{old, proof, signed}.text())
	}
	at := func(h *history, n int64) []byte { return signTree(t, key, h.tree(origin, n)) }
	stranger := mustKey(t, origin, false)
	wrong := tlog.Tree{Origin: origin, Size: 0, Root: a.root(3)}
	for i, c := range []struct {
		name, body string
		status     int
		answer     string // of the body
	}{
		{"nothing", "", 400, ""},
		{"no proof section", "old 0\n", 400, ""},
		{"leading zero", strings.Replace(ask(0, nil, at(a, 5)), "old 0", "old 00", 1), 400, ""},
		{"sign", strings.Replace(ask(0, nil, at(a, 5)), "old 0", "old +0", 1), 400, ""},
		{"64 hashes", ask(0, make(merkle.TreeProof, 64), at(a, 5)), 400, ""},
		{"short hash", strings.Replace(ask(0, nil, at(a, 5)), "old 0\n", "old 0\nAAAA\n", 1), 400, ""},
		{"unknown log", ask(0, nil, signTree(t, mustKey(t, "example.org/other", false), a.tree("example.org/other", 5))), 404, ""},
		{"stranger's signature", ask(0, nil, signTree(t, stranger, a.tree(origin, 5))), 403, ""},
		{"altered text", strings.Replace(ask(0, nil, at(a, 5)), origin+"\n5\n", origin+"\n6\n", 1), 403, ""},
		{"no size", ask(0, nil, signText(t, key, origin+"\nhello\nworld\n")), 400, ""},
		{"empty tree, wrong root", ask(0, nil, signTree(t, key, wrong)), 422, ""},
		{"proof from nothing", ask(0, make(merkle.TreeProof, 1), at(a, 5)), 422, ""},
		{"first", ask(0, nil, at(a, 5)), 200, "— example.org/witness "},
		{"old above new", ask(6, nil, at(a, 5)), 400, ""},
		{"behind", ask(0, nil, at(a, 9)), 409, "5\n"},
		{"ahead", ask(7, a.proof(7, 9), at(a, 9)), 409, "5\n"},
		{"same size, other root", ask(5, nil, at(b, 5)), 409, "two histories"},
		{"same", ask(5, nil, at(a, 5)), 200, "— example.org/witness "},
		{"same with a proof", ask(5, make(merkle.TreeProof, 1), at(a, 5)), 422, ""},
		{"no proof", ask(5, nil, at(a, 9)), 422, ""},
		{"another's proof", ask(5, b.proof(5, 9), at(b, 9)), 422, ""},
		{"proof of another size", ask(5, a.proof(6, 9), at(a, 9)), 422, ""},
		{"continued", ask(5, a.proof(5, 9), at(a, 9)), 200, "— example.org/witness "},
		{"rolled back", ask(5, a.proof(5, 7), at(a, 7)), 409, "9\n"},
		{"with other signatures", ask(9, a.proof(9, 10), append(at(a, 10), "— somebody AAAAAAAAAAAA\n"...)), 200, "— example.org/witness "},
		{"too long", "old 0\n" + strings.Repeat("A", maxRequest), 400, ""},
	} {
		resp, err := http.Post(server.URL+"/add-checkpoint", "text/plain", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		resp.Write(&b)
		if resp.StatusCode != c.status || !strings.Contains(b.String(), c.answer) {
			t.Errorf("%d, %s: %s; %d and %q were expected", i, c.name, b.String(), c.status, c.answer)
		}
		if kind := resp.Header.Get("Content-Type"); c.status == 409 && (kind == "text/x.tlog.size") != strings.HasSuffix(c.answer, "\n") {
			t.Errorf("%s: the content is %s", c.name, kind)
		}
	}
	if resp, err := http.Get(server.URL + "/add-checkpoint"); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %v, %v", resp, err)
	}
}

func signText(t testing.TB, key, text string) []byte {
	t.Helper()
	s, err := note.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: text}, s)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// forking is a log that has two histories with a common beginning, and signs
// heads of both.
type forking struct {
	common   int64
	branches [2]*history
}

func newForking(r *rand.Rand) *forking {
	f := &forking{common: r.Int64N(40)}
	for b := range f.branches {
		f.branches[b] = &history{}
		for i := range f.common {
			f.branches[b].add(entryOf(int(i)))
		}
		for i := range 1 + r.IntN(60) {
			f.branches[b].add(tlog.Entry(merkle.RecordHash(fmt.Append(nil, "branch", b, i))))
		}
	}
	return f
}

// offer is a request that would be right if the witness had seen what it
// claims, of either branch: now and then with the other's proof or root.
func (f *forking) offer(t testing.TB, r *rand.Rand, key, origin string, old int64) addRequest {
	h := f.branches[r.IntN(2)]
	n := int64(len(h.entries))
	if r.IntN(4) == 0 || old > n {
		old = r.Int64N(n + 1)
	}
	size := old + r.Int64N(n-old+1)
	req := addRequest{old: old, proof: h.proof(old, size), checkpoint: signTree(t, key, h.tree(origin, size))}
	switch other := f.branches[r.IntN(2)]; {
	case r.IntN(6) == 0 && size <= int64(len(other.entries)):
		req.proof = other.proof(old, size)
	case r.IntN(10) == 0 && len(req.proof) > 0:
		req.proof = slices.Clone(req.proof)
		req.proof[r.IntN(len(req.proof))][r.IntN(32)] ^= 1 << r.IntN(8)
	}
	return req
}

// TestForks offers a witness random heads of logs with two histories, with
// every sort of proof, over power cuts and full disks: what it cosigns is
// always of one history, and each head of the other one is refused.
func TestForks(t *testing.T) {
	t.Parallel()
	const origin = "example.org/log"
	r := rand.New(rand.NewPCG(11, uint64(*crashes)))
	key := mustKey(t, origin, false)
	c, err := tlog.NewCosigner(mustKey(t, "example.org/witness", true))
	if err != nil {
		t.Fatal(err)
	}
	forks, cosignatures, cuts := 0, 0, 0
	for range max(12, *crashes/20) {
		log := newForking(r)
		d := newDisk()
		now := int64(1e9)
		var cosigned []tlog.Tree
		opened := false
		for range 6 {
			d.cut = d.ops + 1 + r.IntN(40)
			if r.IntN(4) == 0 {
				d.full = d.ops + r.IntN(20)
			}
			w, err := openWitness(d, c, []string{vkeyOfKey(t, key)}, !opened)
			if err == nil {
				w.now = func() time.Time { now++; return time.Unix(now, 0) }
			}
			for ; err == nil; opened = true {
				req := log.offer(t, r, key, origin, w.logs[origin].tree.Size)
				var line []byte
				line, err = w.add(req)
				text, _, _ := tlog.SplitNote(req.checkpoint)
				tree, perr := tlog.ParseTree(text)
				if perr != nil {
					t.Fatal(perr)
				}
				var no *Refusal
				if err == nil {
					if _, err := cosignatureOf(req.checkpoint, line, w.key()); err != nil {
						t.Fatal(err)
					}
					cosigned = append(cosigned, tree)
				} else if errors.As(err, &no) && !strings.Contains(no.Why, errPower.Error()) {
					err = nil
				}
			}
			if !strings.Contains(err.Error(), errPower.Error()) && !strings.Contains(err.Error(), "no space") {
				t.Fatal(err)
			}
			cuts++
			d = d.afterCut(r)
		}
		cosignatures += len(cosigned)
		branch := -1
		last := int64(0)
		for _, tree := range cosigned {
			if tree.Size < last {
				t.Fatalf("cosigned %d entries after %d", tree.Size, last)
			}
			last = tree.Size
			for b, h := range log.branches {
				if tree.Size > log.common && tree.Size <= int64(len(h.entries)) && h.root(tree.Size) == tree.Root {
					if branch >= 0 && branch != b {
						t.Fatalf("cosigned both histories, which part after %d entries", log.common)
					}
					branch = b
				}
			}
		}
		if branch < 0 {
			continue
		}
		// Every head of the other history is refused now, with every old size.
		w, err := openWitness(d, c, []string{vkeyOfKey(t, key)}, !opened)
		if err != nil {
			t.Fatal(err)
		}
		other := log.branches[1-branch]
		for size := log.common + 1; size <= int64(len(other.entries)); size++ {
			signed := signTree(t, key, other.tree(origin, size))
			for old := size; old >= 0; old -= 1 + r.Int64N(4) {
				forks++
				if _, err := w.add(addRequest{old, other.proof(old, size), signed}); err == nil {
					t.Fatalf("cosigned %d entries of the other history, from %d", size, old)
				}
			}
		}
		w.Close()
	}
	t.Logf("%d heads of forked histories refused, %d cosignatures of one history each, %d power cuts", forks, cosignatures, cuts)
	if forks < 500 || cosignatures < 30 {
		t.Error("too little was tried to show anything")
	}
}

// TestWitnessFolders: what is wrong with a witness's folder is said.
func TestWitnessFolders(t *testing.T) {
	t.Parallel()
	key, log := mustKey(t, "example.org/witness", true), mustKey(t, "example.org/log", false)
	logs := []string{vkeyOfKey(t, log)}
	dir := t.TempDir()
	if _, err := OpenWitness(dir, key, logs, false); !errors.Is(err, ErrUsedKey) {
		t.Errorf("a key that is not new, with an empty folder: %v", err)
	}
	w, err := OpenWitness(dir, key, logs, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWitness(dir, key, logs, false); !errors.Is(err, ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	a := grown("a", 9)
	if _, err := w.add(addRequest{0, nil, signTree(t, log, a.tree("example.org/log", 5))}); err != nil {
		t.Fatal(err)
	}
	// The clock is set back: it does not cosign a time before its last one.
	w.now = func() time.Time { return time.Now().Add(-time.Hour) }
	if _, err := w.add(addRequest{5, a.proof(5, 6), signTree(t, log, a.tree("example.org/log", 6))}); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("with the clock set back: %v", err)
	}
	w.Close()
	if _, err := OpenWitness(dir, mustKey(t, "example.org/witness", true), logs, false); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("another key: %v", err)
	}
	d, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFile(d, statePath("example.org/log"), []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWitness(dir, key, logs, false); err == nil || !strings.Contains(err.Error(), "what was cosigned of example.org/log") {
		t.Errorf("a state that cannot be read: %v", err)
	}
	if _, err := OpenWitness(dir, key, []string{witnessVKey(t, "x")}, false); err == nil {
		t.Error("a witness's key was taken for a log's")
	}
}

// TestPublish: a log with witnesses over HTTP, of which one is down, one lies
// and one is slow to see: checkpoints appear with the quorum, and the log
// stops when a witness has seen more than it has.
func TestPublish(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	key := mustKey(t, "example.org/log", false)
	l, err := Open(t.TempDir(), key, true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var remote []*RemoteWitness
	policy := "log " + l.VKey() + "\n"
	var first *Witness
	for i := range 2 {
		w, err := OpenWitness(t.TempDir(), mustKey(t, fmt.Sprint("example.org/w", i), true), []string{l.VKey()}, true)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if i == 0 {
			first = w
		}
		s := httptest.NewServer(w.Handler())
		defer s.Close()
		rw, err := NewRemoteWitness(s.URL, w.VKey(), s.Client())
		if err != nil {
			t.Fatal(err)
		}
		remote = append(remote, rw)
		policy += fmt.Sprintf("witness w%d %s %s\n", i, w.VKey(), s.URL)
	}
	liar := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(rw, "— example.org/liar AAAAAAAAAAAAAAAAAAAAAAAA")
	}))
	defer liar.Close()
	lw, err := NewRemoteWitness(liar.URL, witnessVKey(t, "example.org/liar"), liar.Client())
	if err != nil {
		t.Fatal(err)
	}
	p := policyFor(t, policy+"group both all w0 w1\nquorum both\n")
	asked := Ask(append(remote, lw)...)
	for i := range 5 {
		e := entryOf(i)
		if _, err := l.Add(ctx, e); err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.Proof(e); !errors.Is(err, ErrNotYet) {
			t.Errorf("a proof before the checkpoint: %v", err)
		}
		if i == 3 { // as if the log had forgotten what the witnesses know
			asked = Ask(append(remote, lw)...)
		}
		if err := l.Publish(ctx, asked, 3, time.Hour); err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.Proof(e); !errors.Is(err, ErrNotYet) {
			t.Errorf("a checkpoint without its quorum was published: %v", err)
		}
		if asked[0].Failed() != nil || asked[1].Failed() != nil || asked[2].Failed() == nil {
			t.Errorf("the witnesses: %v, %v, %v", asked[0].Failed(), asked[1].Failed(), asked[2].Failed())
		}
		if err := l.Publish(ctx, asked, 2, time.Hour); err != nil {
			t.Fatal(err)
		}
		proof, _, err := l.Proof(e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tlog.VerifyProof(proof, e[:], p)
		if err != nil || len(got.Checkpoint.Cosignatures) != 2 || got.Checkpoint.By.IsZero() {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	// The witness has seen more of this log than the log has.
	ahead := grown("ahead", 50)
	ahead.follow([]tlog.Entry{entryOf(0), entryOf(1), entryOf(2), entryOf(3), entryOf(4), entryOf(9)})
	if _, err := first.add(addRequest{5, ahead.proof(5, 6), signTree(t, key, ahead.tree("example.org/log", 6))}); err != nil {
		t.Fatal(err)
	}
	if err := l.Publish(ctx, asked, 2, 0); !errors.Is(err, ErrAhead) {
		t.Errorf("an old copy of a log: %v", err)
	}
	if _, err := l.Add(context.Background(), entryOf(77)); !errors.Is(err, ErrAhead) {
		t.Errorf("an old copy of a log takes entries: %v", err)
	}
}
