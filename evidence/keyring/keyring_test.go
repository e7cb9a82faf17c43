package keyring

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/mod/sumdb/note"
)

// testStore is a store in a folder of the test's, with a clock of its own and
// passphrases that cost little.
func testStore(t *testing.T) (*Store, string, *time.Time) {
	now := time.Unix(1_800_000_000, 0)
	dir := filepath.Join(t.TempDir(), "keys")
	s := Open(dir, func() time.Time { return now })
	s.cost = 4
	return s, dir, &now
}

func asking(text string) Ask { return func(Question) ([]byte, error) { return []byte(text), nil } }

// seal uses the key once, and returns what it signed and with what.
func seal(t *testing.T, s *Store, scope string, ask Ask) (signed []byte, verifier, began string) {
	t.Helper()
	k, err := s.Use(scope, ask)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	signed, err = note.Sign(&note.Note{Text: "a root\n"}, k.Signer())
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Done([]byte("root")); err != nil {
		t.Fatal(err)
	}
	return signed, k.Verifier(), k.Began
}

func verifies(signed []byte, verifier string) bool {
	v, err := note.NewVerifier(verifier)
	if err != nil {
		return false
	}
	n, err := note.Open(signed, note.VerifierList(v))
	return err == nil && len(n.Sigs) == 1
}

func TestEpochs(t *testing.T) {
	t.Parallel()
	s, dir, now := testStore(t)
	signed, first, began := seal(t, s, "a", nil)
	if began != BeganFirst || !verifies(signed, first) {
		t.Fatalf("the first key: %q", began)
	}
	if _, other, _ := seal(t, s, "b", nil); other == first {
		t.Fatal("two scopes have one key")
	}
	k, err := s.Next("a", nil, Rotation{Uses: 3, Days: 10})
	if err != nil {
		t.Fatal(err)
	}
	if k.Began != BeganAsked || k.Epoch() != 2 || k.Verifier() == first || k.Previous() != nil || k.Link() != "" {
		t.Errorf("after next: %q, epoch %d, previous %x, link %q", k.Began, k.Epoch(), k.Previous(), k.Link())
	}
	sign := k.Signer()
	k.Close()
	if _, err := sign.Sign([]byte("x")); err == nil {
		t.Error("a closed key signs")
	}
	for i, want := range []string{"", "", "", BeganUses, "", "", BeganUses} {
		if _, _, began := seal(t, s, "a", nil); began != want {
			t.Errorf("seal %d began an epoch: %q, want %q", i+1, began, want)
		}
	}
	*now = now.Add(10 * 24 * time.Hour)
	if _, _, began := seal(t, s, "a", nil); began != BeganDays {
		t.Errorf("ten days later: %q", began)
	}
	// A clock that is a little slow is none that was set back.
	*now = now.Add(-30 * time.Minute)
	if _, _, began := seal(t, s, "a", nil); began != "" {
		t.Errorf("half an hour back: %q", began)
	}
	// Set back, the age of an epoch is not known: it ends, and none goes back.
	*now = now.Add(-365 * 24 * time.Hour)
	before := epochOf(t, s, "a")
	if _, _, began := seal(t, s, "a", nil); began != BeganClock || epochOf(t, s, "a") != before+1 {
		t.Errorf("a year back: %q, epoch %d after %d", began, epochOf(t, s, "a"), before)
	}
	if _, _, began := seal(t, s, "a", nil); began != "" {
		t.Errorf("and once more: %q", began)
	}
	k, err = s.Get("a", nil)
	if err != nil {
		t.Fatal(err)
	}
	if string(k.Previous()) != "root" {
		t.Errorf("previous %q", k.Previous())
	}
	k.Close()
	names, err := s.Files("")
	if err != nil || len(names) != 4 {
		t.Errorf("%v %v: a key and its use for each of two scopes", names, err)
	}
	for _, name := range names {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, st, err)
		}
	}
	if st, err := os.Stat(dir); err != nil || runtime.GOOS != "windows" && st.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v %v", st, err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileOf("a")+useEnding), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, began := seal(t, s, "a", nil); began != BeganDamaged {
		t.Errorf("with a damaged count: %q", began)
	}
}

func epochOf(t *testing.T, s *Store, scope string) int {
	t.Helper()
	k, err := s.Get(scope, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	return k.Epoch()
}

func TestNotes(t *testing.T) {
	t.Parallel()
	s, _, _ := testStore(t)
	_, first, _ := seal(t, s, "a", nil)
	var revocation []byte
	k, err := s.Next("a", nil, Rotation{Link: true, Revocation: func(n []byte) error { revocation = n; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	second, link := k.Verifier(), k.Link()
	k.Close()
	if old, next, err := ParseRotation([]byte(link)); err != nil || old != first || next != second {
		t.Errorf("%s to %s, %v", old, next, err)
	}
	if key, err := ParseRevocation(revocation); err != nil || key != first {
		t.Errorf("revoked %s, %v", key, err)
	}
	if _, err := ParseRevocation([]byte(link)); err == nil {
		t.Error("a rotation is taken for a revocation")
	}
	lines := strings.SplitAfter(link, "\n")
	for _, bad := range []string{
		strings.Join(lines[:len(lines)-2], ""),                         // the new key did not sign
		strings.Join(append(lines[:4:4], lines[5:]...), ""),            // nor the old
		strings.Replace(link, "rotation", "revocation", 1),             // another kind
		strings.Replace(link, lines[1]+lines[2], lines[2]+lines[1], 1), // the other way round
		link + strings.Repeat("x", MaxNote),
		"", "\n\n",
	} {
		if _, _, err := ParseRotation([]byte(bad)); err == nil {
			t.Errorf("accepted:\n%s", bad)
		}
	}
	// A revocation that could not be kept ends nothing.
	if _, err := s.Next("a", nil, Rotation{Revocation: func([]byte) error { return io.ErrShortWrite }}); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
	if _, now, _ := seal(t, s, "a", nil); now != second {
		t.Error("the epoch has ended")
	}
	if _, err := s.Next("none", nil, Rotation{Link: true}); !errors.Is(err, ErrNoKey) {
		t.Errorf("a link to a key that is not there: %v", err)
	}
}

func TestPassphrase(t *testing.T) {
	t.Parallel()
	s, dir, _ := testStore(t)
	k, err := s.Next("a", nil, Rotation{Protect: true, AskNew: asking("correct horse")})
	if err != nil {
		t.Fatal(err)
	}
	if k.Began != BeganFirst || k.Epoch() != 1 {
		t.Errorf("%q %d", k.Began, k.Epoch())
	}
	k.Close()
	for name, c := range map[string]struct {
		ask  Ask
		want error
	}{"right": {asking("correct horse"), nil}, "wrong": {asking("correct house"), ErrPassphrase}, "empty": {asking(""), ErrPassphrase}} {
		k, err := s.Use("a", c.ask)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			k.Close()
		}
	}
	if _, err := s.Use("a", nil); err == nil {
		t.Error("no passphrase, and it opens")
	}
	list, err := s.List()
	if err != nil || len(list) != 1 || !list[0].Protected || list[0].Scope != "" || list[0].Key != "" || list[0].Uses != 1 {
		t.Errorf("%+v %v", list, err)
	}
	data, err := os.ReadFile(filepath.Join(dir, keyFile(fileOf("a"), 1)))
	if err != nil || bytes.Contains(data, []byte("seed")) {
		t.Errorf("%q %v", data, err)
	}
	// It stays protected when an epoch ends by itself, and until it is not wanted.
	if k, err = s.Next("a", asking("correct horse"), Rotation{}); err != nil {
		t.Fatal(err)
	}
	k.Close()
	if _, err := s.Get("a", asking("x")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("the next epoch: %v", err)
	}
	if k, err = s.Next("a", asking("correct horse"), Rotation{Unprotect: true}); err != nil {
		t.Fatal(err)
	}
	k.Close()
	if _, _, began := seal(t, s, "a", nil); began != "" {
		t.Errorf("%q", began)
	}
}

func TestBackup(t *testing.T) {
	t.Parallel()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	to, err := ParseRecipients(identity.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		to *Recipients
		by string
	}{"passphrase": {nil, ""}, "recipient": {to, identity.String()}} {
		s, _, _ := testStore(t)
		_, key, _ := seal(t, s, "a", nil)
		backup, err := s.Backup("a", nil, asking("p"), c.to)
		if err != nil {
			t.Fatal(err)
		}
		restore := func(s *Store, data []byte, ask, askNew Ask) (Info, error) {
			if c.by != "" {
				return s.Restore(bytes.NewReader(data), strings.NewReader("# a key\n"+c.by+"\n"), nil, askNew)
			}
			return s.Restore(bytes.NewReader(data), nil, ask, askNew)
		}
		other, _, _ := testStore(t)
		if i, err := restore(other, backup, asking("p"), asking("q")); err != nil || i.Key != key || i.Scope != "a" || !i.Protected {
			t.Fatalf("%s: %+v %v", name, i, err)
		}
		if _, again, _ := seal(t, other, "a", asking("q")); again != key {
			t.Errorf("%s: another key came back", name)
		}
		if _, err := restore(s, backup, asking("p"), nil); !errors.Is(err, ErrOlder) {
			t.Errorf("%s: over the key itself: %v", name, err)
		}
		k, err := s.Next("a", nil, Rotation{})
		if err != nil {
			t.Fatal(err)
		}
		k.Close()
		if _, err := restore(s, backup, asking("p"), nil); !errors.Is(err, ErrOlder) {
			t.Errorf("%s: an epoch that has ended came back: %v", name, err)
		}
		if c.by == "" {
			if _, err := restore(other, backup, asking("wrong"), nil); !errors.Is(err, ErrPassphrase) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for i := range backup {
			bad := bytes.Clone(backup)
			bad[i] ^= 1
			third, dir, _ := testStore(t)
			if _, err := restore(third, bad, asking("p"), nil); err == nil {
				t.Fatalf("%s: byte %d changed, and it is restored", name, i)
			}
			if names, _ := os.ReadDir(dir); len(names) > 1 {
				t.Fatalf("%s: %v was left", name, names)
			}
		}
		for _, bad := range [][]byte{nil, backup[:len(backup)-1], []byte("govah-key"), make([]byte, maxFile+1)} {
			if _, err := restore(other, bad, asking("p"), nil); err == nil {
				t.Errorf("%s: %d bytes are restored", name, len(bad))
			}
		}
	}
}

// Whatever is wrong with a file is said, and no other key is made.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	damage := map[string]struct {
		do   func(t *testing.T, path string)
		want string
	}{
		"flipped": {func(t *testing.T, p string) {
			edit(t, p, func(b []byte) []byte { b[bytes.Index(b, []byte(`"seed":"`))+12] ^= 1; return b })
		}, "damaged"},
		"cut":     {func(t *testing.T, p string) { edit(t, p, func(b []byte) []byte { return b[:len(b)/2] }) }, "damaged"},
		"empty":   {func(t *testing.T, p string) { edit(t, p, func([]byte) []byte { return nil }) }, "damaged"},
		"foreign": {func(t *testing.T, p string) { edit(t, p, func([]byte) []byte { return []byte(`{"type":"x"}`) }) }, "no key of govah"},
		"newer": {func(t *testing.T, p string) {
			edit(t, p, func(b []byte) []byte { return bytes.Replace(b, []byte(`"schema":1`), []byte(`"schema":2`), 1) })
		}, "newer govah"},
		"large": {func(t *testing.T, p string) { edit(t, p, func([]byte) []byte { return make([]byte, maxFile+1) }) }, "no file of a key"},
		"other": {func(t *testing.T, p string) {
			edit(t, p, func(b []byte) []byte { return bytes.Replace(b, []byte(`"scope":"a"`), []byte(`"scope":"b"`), 1) })
		}, "another scope"},
		"folder":    {func(t *testing.T, p string) { os.Remove(p); check(t, os.Mkdir(p, 0o700)) }, "no file of a key"},
		"link":      {func(t *testing.T, p string) { check(t, os.Rename(p, p+"x")); check(t, os.Symlink(p+"x", p)) }, "no file of a key"},
		"too open":  {func(t *testing.T, p string) { check(t, os.Chmod(p, 0o644)) }, "can be read or changed by others (mode 644)"},
		"open dir":  {func(t *testing.T, p string) { check(t, os.Chmod(filepath.Dir(p), 0o755)) }, "can be read or changed by others (mode 755)"},
		"no rights": {func(t *testing.T, p string) { check(t, os.Chmod(p, 0)) }, "permission denied"},
	}
	for name, c := range damage {
		if runtime.GOOS == "windows" && (strings.Contains(name, "open") || name == "no rights") || name == "no rights" && os.Geteuid() == 0 {
			continue
		}
		s, dir, _ := testStore(t)
		seal(t, s, "a", nil)
		c.do(t, filepath.Join(dir, keyFile(fileOf("a"), 1)))
		for range 2 {
			if _, err := s.Use("a", nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if name == "folder" {
			continue
		}
		if _, err := s.Forget("a"); err != nil {
			t.Errorf("%s: cannot be forgotten: %v", name, err)
		}
		if name != "open dir" {
			if _, _, began := seal(t, s, "a", nil); began != BeganFirst {
				t.Errorf("%s: %q", name, began)
			}
		}
	}
	// What is damaged costs no older key.
	s, dir, _ := testStore(t)
	seal(t, s, "a", nil)
	check(t, os.WriteFile(filepath.Join(dir, keyFile(fileOf("a"), 9)), []byte("{"), 0o600))
	if _, err := s.Use("a", nil); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, keyFile(fileOf("a"), 1))); err != nil {
		t.Error(err)
	}
}

func edit(t *testing.T, path string, f func([]byte) []byte) {
	data, err := os.ReadFile(path)
	check(t, err)
	check(t, os.WriteFile(path, f(data), 0o600))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Two at once wait for one another: every use is counted.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	_, dir, _ := testStore(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s := Open(dir, nil)
			for range 5 {
				k, err := s.Use("a", nil)
				if err != nil {
					t.Error(err)
					return
				}
				k.Close()
			}
		})
	}
	wg.Wait()
	s := Open(dir, nil)
	if list, err := s.List(); err != nil || len(list) != 1 || list[0].Uses != 20 || list[0].Epoch != 1 {
		t.Errorf("%+v %v", list, err)
	}
	k, err := s.Use("a", nil)
	check(t, err)
	defer k.Close()
	s.wait = 50 * time.Millisecond
	if _, err := s.Use("a", nil); !errors.Is(err, ErrBusy) {
		t.Errorf("while another holds it: %v", err)
	}
}

func TestForget(t *testing.T) {
	t.Parallel()
	s, dir, _ := testStore(t)
	if n, err := s.Forget(""); n != 0 || err != nil {
		t.Errorf("no folder: %d, %v", n, err)
	}
	seal(t, s, "a", nil)
	_, kept, _ := seal(t, s, "b", nil)
	check(t, os.WriteFile(filepath.Join(dir, fileOf("a")+".00000002.key.new"), []byte("half"), 0o600))
	if _, err := s.Forget("c"); !errors.Is(err, ErrNoKey) {
		t.Error(err)
	}
	if n, err := s.Forget("a"); err != nil || n != 3 {
		t.Errorf("%d files, %v", n, err)
	}
	if _, now, began := seal(t, s, "b", nil); now != kept || began != "" {
		t.Error("another scope was forgotten too")
	}
	if n, err := s.Forget(""); err != nil || n != 2 {
		t.Errorf("%d files, %v", n, err)
	}
	if names, _ := s.Files(""); len(names) != 0 {
		t.Errorf("%v is left", names)
	}
}

func TestDir(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere the system has folders of its own")
	}
	t.Setenv("HOME", "/home/a")
	for set, want := range map[string]string{"": "/home/a/.local/share/govah/keys", "/d": "/d/govah/keys", "relative": "/home/a/.local/share/govah/keys"} {
		t.Setenv("XDG_DATA_HOME", set)
		if got, err := Dir(); err != nil || got != want {
			t.Errorf("XDG_DATA_HOME=%q: %s %v", set, got, err)
		}
	}
}
