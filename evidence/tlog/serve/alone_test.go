package serve

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"govah/evidence/tlog"
)

// TestAlone: a witness without a log in reach logs what is carried to it, once
// each, and each proof verifies by the policy that comes with it; what it has
// cosigned of another log's proof completes that.
func TestAlone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "witness")
	log := newLog(t)
	key := mustKey(t, "phone.example", true)
	for i := range 3 {
		w, err := OpenWitness(dir, key, []string{log.VKey()}, i == 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			e := entryOf(i)
			proof, policy, err := w.LogAlone(t.Context(), dir, e)
			if err != nil {
				t.Fatal(err)
			}
			got, err := tlog.VerifyProof(proof, e[:], policyFor(t, policy))
			if err != nil || got.Index != int64(i) || time.Since(got.Checkpoint.By) > time.Minute {
				t.Errorf("%+v, %v", got, err)
			}
		}
		w.Close()
	}
	w, err := OpenWitness(dir, key, []string{log.VKey()}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	e := entryOf(7)
	if _, err := log.Add(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if err := log.Publish(t.Context(), nil, 0, time.Hour); err != nil {
		t.Fatal(err)
	}
	proof, _, err := log.Proof(e)
	if err != nil {
		t.Fatal(err)
	}
	p := policyFor(t, "log "+log.VKey()+"\nwitness W "+w.VKey()+"\nquorum W\n")
	if _, err := tlog.VerifyProof(proof, e[:], p); err == nil {
		t.Error("a proof is sufficient that nobody cosigned")
	}
	for range 2 { // the same tree once more is right
		done, err := w.CosignProof(proof)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tlog.VerifyProof(done, e[:], p); err != nil {
			t.Error(err)
		}
	}
	if _, err := log.Add(t.Context(), entryOf(8)); err != nil {
		t.Fatal(err)
	}
	if err := log.Publish(t.Context(), nil, 0, time.Hour); err != nil {
		t.Fatal(err)
	}
	if proof, _, err = log.Proof(e); err != nil {
		t.Fatal(err)
	}
	var no *Refusal
	if _, err := w.CosignProof(proof); !errors.As(err, &no) || no.Size != 1 {
		t.Errorf("a larger tree without a proof that it continues: %v", err)
	}
}

// TestKeyFile: a key is made once, with its name, for nobody else to read.
func TestKeyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "keys", "log.key")
	if _, _, err := KeyFile(path, "", false); !errors.Is(err, ErrNoKey) {
		t.Error(err)
	}
	key, fresh, err := KeyFile(path, "example.org/log", false)
	if err != nil || !fresh {
		t.Fatal(fresh, err)
	}
	if again, fresh, err := KeyFile(path, "", false); err != nil || fresh || again != key {
		t.Errorf("%q, %v, %v", again, fresh, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	for _, c := range []struct {
		name    string
		witness bool
		prepare func() string
		want    string
	}{
		{"example.org/log", true, func() string { return path }, "witness's is wanted"},
		{"other", false, func() string { return path }, "not of \"other\""},
		{"a b", false, func() string { return path + "x" }, "cannot be the name"},
		{"", false, func() string { return write(t, dir+"/text", "hello\n") }, "no private key"},
		{"", false, func() string { return write(t, dir+"/long", strings.Repeat("x", 5000)) }, "too long"},
		{"", false, func() string { return write(t, dir+"/bits", strings.Replace(key, "+log", "+lok", 1)[:len(key)-2]+"\n") }, "key"},
		{"", false, func() string { return dir }, "reading the key"},
	} {
		if _, _, err := KeyFile(c.prepare(), c.name, c.witness); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v; %q was expected", err, c.want)
		}
	}
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
