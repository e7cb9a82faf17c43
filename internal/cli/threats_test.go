package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"govah/evidence"
	"govah/evidence/keyring"
)

// What docs/design/threats.md says of evidence as a whole; its parts have
// tests of their own.

const smallRun = `{"type":"run","schema":1,"run":"r1","tool":"govah","version":"0.1","started":"2026-11-28T04:00:00Z","targets":0}
{"type":"end","schema":1,"run":"r1","ended":"2026-11-28T04:00:09Z","measurements":0,"bytes_sent":0,"bytes_received":0}
`

// sealedOnce makes evidence as a run does.
func sealedOnce(t *testing.T, keys *keyring.Store, name, lines string) *evidence.Bundle {
	t.Helper()
	s := &sealing{path: filepath.Join(t.TempDir(), name), keys: keys, scope: keyring.DefaultScope}
	b, _, err := s.seal(evidence.Sealing{Measurements: []byte(lines), Report: []byte("<!doctype html>"), About: evidence.About{Version: Version()}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSeizedDevice: whoever has the device has the key of this epoch, and not
// those with which earlier evidence was signed: nothing on it leads to them,
// and nothing signed with this one is taken for theirs.
func TestSeizedDevice(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	keys := keyring.Open(dir, nil)
	old := sealedOnce(t, keys, "old.govah", smallRun)
	entry := base64.StdEncoding.EncodeToString(old.Entry[:])
	seed, linked := "", false
	for _, data := range filesOf(t, dir) {
		var k struct{ Seed string }
		if json.Unmarshal(data, &k) == nil && k.Seed != "" {
			seed = k.Seed
		}
		linked = linked || bytes.Contains(data, []byte(entry))
	}
	if len(seed) < 40 || !linked {
		t.Fatalf("the seed of the epoch is not found: %q, or not what it sealed: %v", seed, linked)
	}
	next, err := keys.Next(keyring.DefaultScope, nil, keyring.Rotation{})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	for name, data := range filesOf(t, dir) {
		if bytes.Contains(data, []byte(seed)) {
			t.Errorf("the seed of the epoch that ended is still in %s", name)
		}
		if bytes.Contains(data, []byte(entry)) {
			t.Errorf("%s shows that its owner sealed what the epoch that ended did", name)
		}
	}
	if next.Verifier() == old.Key {
		t.Fatal("the key is the same")
	}
	forged := evidence.Sealing{Measurements: []byte(strings.ReplaceAll(smallRun, "04:00", "05:00")), Signer: next.Signer(), Key: old.Key}
	if _, err := evidence.Seal(forged); err == nil {
		t.Error("the key of this epoch signed for an earlier one")
	}
	if len(next.Previous()) != 0 {
		t.Error("the new epoch knows the evidence of the one before")
	}
}

var killings = flag.Int("killings", 20, "how often TestSealKilled ends the program")

// TestSealKilled: whenever the program is ended while it seals, there is a
// whole bundle or none, the measurements are as they were, and the next one
// seals. (TestSealCrash of evidence cuts the power.)
func TestSealKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lines := []byte(strings.Repeat(smallRun, 500))
	measurements := filepath.Join(dir, "m.jsonl")
	if err := os.WriteFile(measurements, lines, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	seal := func(name string) *exec.Cmd {
		cmd := exec.Command(self, "seal", "-o", filepath.Join(dir, name), measurements)
		cmd.Env = append(os.Environ(), asGovah+"=1", "LANG=C", "HOME="+dir, "XDG_DATA_HOME="+filepath.Join(dir, "data"), "XDG_CACHE_HOME="+dir, "LocalAppData="+filepath.Join(dir, "data"))
		return cmd
	}
	if out, err := seal("whole.govah").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	takes := time.Since(began)
	there := 0
	for i := range *killings {
		name := fmt.Sprintf("k%d.govah", i)
		cmd := seal(name)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.Int64N(int64(takes))))
		cmd.Process.Kill()
		cmd.Wait()
		if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			there++
			if _, err := evidence.Open(data); err != nil {
				t.Errorf("killed at %d: half a bundle: %v", i, err)
			}
		}
		if now, err := os.ReadFile(measurements); err != nil || !bytes.Equal(now, lines) {
			t.Fatalf("killed at %d: the measurements are not what they were (%v)", i, err)
		}
	}
	out, err := seal("last.govah").CombinedOutput()
	if err != nil {
		t.Errorf("after %d killings: %v: %s", *killings, err, out)
	}
	t.Logf("%d killings, %d bundles were whole by then", *killings, there)
}

func filesOf(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if out[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestCoercedKey: with a revocation note, made in time and kept elsewhere, a
// key that others hold is known for that; what it signed before stays valid.
func TestCoercedKey(t *testing.T) {
	keys := keyring.Open(filepath.Join(t.TempDir(), "keys"), nil)
	b := sealedOnce(t, keys, "before.govah", smallRun)
	var revocation []byte
	next, err := keys.Next(keyring.DefaultScope, nil, keyring.Rotation{Revocation: func(note []byte) error {
		revocation = bytes.Clone(note)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	next.Close()
	if key, err := keyring.ParseRevocation(revocation); err != nil || key != b.Key {
		t.Errorf("%q, %v; the evidence is signed by %s", key, err, b.Key)
	}
	data, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.Open(data); err != nil {
		t.Errorf("evidence from before: %v", err)
	}
	// Nobody else revokes it.
	if _, err := keyring.ParseRevocation(bytes.Replace(revocation, []byte(b.Key), []byte(next.Verifier()), 1)); err == nil {
		t.Error("a key was revoked by another")
	}
}

// TestOmission: evidence of one key leads to the one sealed before, so that a
// collector who leaves one out leaves a gap.
func TestOmission(t *testing.T) {
	keys := keyring.Open(filepath.Join(t.TempDir(), "keys"), nil)
	var before *evidence.Bundle
	for i := range 3 {
		b := sealedOnce(t, keys, "b.govah", smallRun)
		switch {
		case i == 0 && b.Previous != nil:
			t.Error("the first leads to another")
		case i > 0 && (b.Previous == nil || *b.Previous != before.Entry):
			t.Errorf("the %d. does not lead to the one before", i+1)
		}
		before = b
	}
	if n, err := keys.Forget(keyring.DefaultScope); err != nil || n == 0 {
		t.Fatalf("%d, %v", n, err)
	}
	if b := sealedOnce(t, keys, "b.govah", smallRun); b.Previous != nil || b.Key == before.Key {
		t.Error("what was forgotten is still known")
	}
}
