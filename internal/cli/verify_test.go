package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"govah/evidence"
	"govah/evidence/keyring"
	"govah/evidence/tlog"
	"govah/evidence/tlog/serve"
)

// TestVerifyInterval: with a checkpoint of a witnessed log sealed in, and the
// log's proof attached afterwards, the account names the two moments between
// which the file was made; by a policy alone, and never by another.
func TestVerifyInterval(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx := t.Context()
	skey := func(name string, witness bool) string {
		k, err := tlog.MakeKey(name, witness)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	l, err := serve.Open(filepath.Join(dir, "log"), skey("log.example/evidence", false), true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w, err := serve.OpenWitness(filepath.Join(dir, "witness"), skey("witness.example", true), []string{l.VKey()}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	server := httptest.NewServer(w.Handler())
	defer server.Close()
	remote, err := serve.NewRemoteWitness(server.URL+"/", w.VKey(), server.Client())
	if err != nil {
		t.Fatal(err)
	}
	asked := serve.Ask(remote)
	logged := func(e tlog.Entry) []byte {
		if _, err := l.Add(ctx, e); err != nil {
			t.Fatal(err)
		}
		if err := l.Publish(ctx, asked, 1, time.Hour); err != nil {
			t.Fatal(err)
		}
		proof, _, err := l.Proof(e)
		if err != nil {
			t.Fatal(err)
		}
		return proof
	}
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	policy := "log " + l.VKey() + "\nwitness W " + w.VKey() + "\nquorum W\n"
	good := file("policy", policy)
	strange, err := serve.OpenWitness(filepath.Join(dir, "stranger"), skey("stranger.example", true), []string{l.VKey()}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer strange.Close()
	other := file("other", strings.ReplaceAll(policy, w.VKey(), strange.VKey()))
	broken := file("broken", "quorum\n")

	begun := time.Now().Add(-time.Second)
	logged(tlog.Entry{1})
	key, err := keyring.Open(filepath.Join(dir, "keys"), nil).Use(keyring.DefaultScope, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Close()
	data, err := evidence.Seal(evidence.Sealing{Measurements: []byte("{}\n"), Checkpoint: l.Checkpoint(), Signer: key.Signer(), Key: key.Verifier()})
	if err != nil {
		t.Fatal(err)
	}
	b, err := evidence.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	bare := file("bare.govah", string(data))
	b, err = b.Attach(evidence.LogProof, logged(tlog.Entry(b.Entry)))
	if err != nil {
		t.Fatal(err)
	}
	if data, err = b.Withhold(evidence.Foreign).Bytes(); err != nil { // the proof is of the note, which stays
		t.Fatal(err)
	}
	proven := file("proven.govah", string(data))
	wrong, err := b.Attach(evidence.LogProof, logged(tlog.Entry{2}))
	if err != nil {
		t.Fatal(err)
	}
	if data, err = wrong.Bytes(); err != nil {
		t.Fatal(err)
	}
	lying := file("lying.govah", string(data))
	// A checkpoint of a log that the policy does not name, such as somebody on
	// the way to a log can send, and a proof that is good.
	const junk = "elsewhere.example\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— elsewhere.example AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
	if data, err = evidence.Seal(evidence.Sealing{Measurements: []byte("{}\n"), Checkpoint: []byte(junk), Signer: key.Signer(), Key: key.Verifier()}); err != nil {
		t.Fatal(err)
	}
	if b, err = evidence.Open(data); err != nil {
		t.Fatal(err)
	}
	if b, err = b.Attach(evidence.LogProof, logged(tlog.Entry(b.Entry))); err != nil {
		t.Fatal(err)
	}
	if data, err = b.Bytes(); err != nil {
		t.Fatal(err)
	}
	doubted := file("doubted.govah", string(data))

	run := func(args ...string) (int, string) {
		var out, errOut bytes.Buffer
		code := Main(context.Background(), append([]string{"verify", "--lang", "en"}, args...), strings.NewReader(""), &out, &errOut)
		return code, strings.Join(strings.Fields(out.String()+errOut.String()), " ")
	}
	code, out := run(proven, "--policy", good, "--json")
	var a evidence.Account
	if err := json.Unmarshal([]byte(out), &a); err != nil || code != 0 {
		t.Fatalf("%d, %v: %s", code, err, out)
	}
	for _, m := range []*evidence.Moment{a.NotBefore, a.NotAfter} {
		at, err := time.Parse(time.RFC3339, m.Time)
		if err != nil || at.Before(begun.Truncate(time.Second)) || at.After(time.Now()) || m.Log != "log.example/evidence" || !slices.Equal(m.Witnesses, []string{"witness.example"}) {
			t.Errorf("%+v: %v", m, err)
		}
	}
	if a.Checkpoint != evidence.Verified || a.LogProof != evidence.Verified || a.NotAfter.Index == nil || *a.NotAfter.Index != 1 || slices.Contains(a.NotProved, evidence.NotEarliest) || slices.Contains(a.NotProved, evidence.NotLatest) {
		t.Errorf("%s", out)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{proven, "--policy", good}, 0, "It was not made before 20"},
		{[]string{proven, "--policy", good}, 0, "the log log.example/evidence holds it, and by then enough of the policy's witnesses had signed the log (1 signed it in all)"},
		{[]string{proven}, 0, "a proof that a log has it, which was not checked"},
		{[]string{proven, "--policy", other}, exitUnverified, "no quorum"},
		{[]string{doubted, "--policy", good}, 0, "the log log.example/evidence holds it"},
		{[]string{doubted, "--policy", good}, 0, "a log's checkpoint that the policy does not believe"},
		{[]string{doubted, "--policy", good}, 0, "A moment before which it was not made."},
		{[]string{bare, "--policy", good}, exitUnverified, "no proof that a log holds it"},
		{[]string{lying, "--policy", good}, exitUnverified, "does not lead from this entry"},
		{[]string{proven, "--policy", broken}, exitFailed, "tlog-policy"},
		{[]string{proven, "--policy", filepath.Join(dir, "none")}, exitFailed, "--policy"},
		{[]string{proven, "--key", key.Verifier()}, 0, "The holder of the key that you asked for"},
	} {
		if code, out := run(c.args...); code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("%v: %d, %s; want %d, %q", c.args, code, out, c.code, c.says)
		}
	}
}

// TestVerifyQuorum: under 2 of 3, the time is that of the second of the
// witnesses, and nothing says that all three had signed by then.
func TestVerifyQuorum(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	made := func(name string, witness bool) string {
		k, err := tlog.MakeKey(name, witness)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	log, logKey, err := tlog.NewLogSigner(made("log.example/evidence", false))
	if err != nil {
		t.Fatal(err)
	}
	policy := "log " + logKey + "\n"
	var witnesses []*tlog.Cosigner
	for _, name := range []string{"a", "b", "c"} {
		w, err := tlog.NewCosigner(made(name+".example", true))
		if err != nil {
			t.Fatal(err)
		}
		witnesses = append(witnesses, w)
		policy += "witness " + name + " " + w.VKey() + "\n"
	}
	policy += "group g 2 a b c\nquorum g\n"
	path := filepath.Join(dir, "policy")
	if err := os.WriteFile(path, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	// signed is a checkpoint of no entry, or of one, that the witnesses sign at
	// the hour, and one and two hours later.
	signed := func(entry []byte, hour int) []byte {
		tree := tlog.Tree{Origin: "log.example/evidence", Root: sha256.Sum256(nil)}
		if entry != nil {
			tree.Size, tree.Root = 1, sha256.Sum256(append([]byte{0}, entry...))
		}
		text := []byte(tree.Text())
		sig, err := log.Sign(text)
		if err != nil {
			t.Fatal(err)
		}
		sig = append(binary.BigEndian.AppendUint32(nil, log.KeyHash()), sig...)
		note := fmt.Appendf(text, "\n— %s %s\n", log.Name(), base64.StdEncoding.EncodeToString(sig))
		for i, w := range witnesses {
			line, err := w.Cosign(text, time.Date(2026, 11, 27, hour+i, 0, 0, 0, time.UTC).Unix())
			if err != nil {
				t.Fatal(err)
			}
			note = append(note, line...)
		}
		return note
	}
	key, err := keyring.Open(filepath.Join(dir, "keys"), nil).Use(keyring.DefaultScope, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Close()
	// verified is what is told of a file with a checkpoint of that hour, and a
	// proof of ten o'clock.
	verified := func(hour int, more ...string) string {
		data, err := evidence.Seal(evidence.Sealing{Measurements: []byte("{}\n"), Checkpoint: signed(nil, hour), Signer: key.Signer(), Key: key.Verifier()})
		if err != nil {
			t.Fatal(err)
		}
		b, err := evidence.Open(data)
		if err != nil {
			t.Fatal(err)
		}
		if b, err = b.Attach(evidence.LogProof, tlog.RawProof{Checkpoint: signed(b.Entry[:], 10)}.Text()); err != nil {
			t.Fatal(err)
		}
		if data, err = b.Bytes(); err != nil {
			t.Fatal(err)
		}
		var out, errOut bytes.Buffer
		if code := Main(t.Context(), append([]string{"verify", "-", "--policy", path, "--lang", "en"}, more...), bytes.NewReader(data), &out, &errOut); code != 0 {
			t.Fatalf("%d: %s", code, errOut.String())
		}
		return strings.Join(strings.Fields(out.String()), " ")
	}
	for _, form := range [][]string{nil, {"--certificate"}} {
		out := verified(7, form...)
		for _, says := range []string{
			"It was not made before 2026-11-27T08:00:00Z: it holds a checkpoint of the log log.example/evidence that enough of the policy's witnesses signed then or later (3 signed it in all).",
			"It was there by 2026-11-27T11:00:00Z: the log log.example/evidence holds it, and by then enough of the policy's witnesses had signed the log (3 signed it in all).",
		} {
			if !strings.Contains(out, says) {
				t.Errorf("%v: %s\nwant %s", form, out, says)
			}
		}
		// A checkpoint of one o'clock, and a proof of eleven: no bound is claimed.
		out = verified(12, form...)
		if !strings.Contains(out, "contradict each other") || strings.Contains(out, "2026-11-27T") || strings.Contains(out, "holds it") {
			t.Errorf("%v: %s", form, out)
		}
	}
}
