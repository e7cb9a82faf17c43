package cli

import (
	"bytes"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"govah/check"
	"govah/evidence/keyring"
	"govah/internal/i18n"
	"govah/measure"
	"govah/packet"
)

// TestSealingSendsNothing: whoever watches the line sees the same run, sealed
// or not: the same servers, and nobody else.
func TestSealingSendsNothing(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	observed := func(seal bool) []string {
		a := &app{ctx: t.Context(), in: strings.NewReader(""), out: &bytes.Buffer{}, err: &bytes.Buffer{}}
		o := &checkOptions{lab: "clean", seal: seal, output: filepath.Join(t.TempDir(), "m.jsonl"), pace: "fast"}
		p, err := a.labPlace(o)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		p.cfg.Pace, p.cfg.Run = check.PaceFast, "r1"
		var mu sync.Mutex
		seen := map[string]bool{}
		tap := p.tap
		watch := func(also func(bool, []byte)) {
			tap(func(sent bool, pkt []byte) {
				if q, err := packet.Parse(pkt); err == nil && sent && (q.Proto == packet.TCP || q.Proto == packet.UDP) {
					mu.Lock()
					seen[q.Destination().String()] = true
					mu.Unlock()
				}
				if also != nil {
					also(sent, pkt)
				}
			})
		}
		watch(nil)
		p.tap = watch
		target, err := check.ParseTarget("https://plain.example/")
		if err != nil {
			t.Fatal(err)
		}
		var s *sealing
		if seal {
			if s, err = a.beginSealing(o, p, ""); err != nil {
				t.Fatal(err)
			}
			defer s.discard()
		}
		if err := a.runCheck(t.Context(), i18n.English, o, p, []measure.Target{target}, 0, check.Estimate{}, "", s); err != nil {
			t.Fatal(err)
		}
		if seal {
			if err := a.sealRun(i18n.English, s); err != nil {
				t.Fatal(err)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		return slices.Sorted(maps.Keys(seen))
	}
	plain, sealed := observed(false), observed(true)
	if len(plain) < 5 || !slices.Equal(plain, sealed) {
		t.Errorf("without --seal these were contacted:\n%v\nand with it:\n%v", plain, sealed)
	}
}

// TestCheckpoint: a log is asked only at its own address, what it says is
// bounded, and the newest checkpoint is kept and used when nobody is asked.
func TestCheckpoint(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	const text = "log.example\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— log.example AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
	if got, err := checkpoint(""); got != nil || err != nil {
		t.Errorf("%q, %v; nothing was seen of any log", got, err)
	}
	elsewhere := false
	answer := text
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/log/checkpoint":
			w.Write([]byte(answer))
		case "/moved/checkpoint":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/elsewhere":
			elsewhere = true
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	ask := func(path string) ([]byte, error) {
		u, err := logURL(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		return fetchCheckpoint(t.Context(), u)
	}
	for _, path := range []string{"/none", "/moved"} {
		if got, err := ask(path); err == nil {
			t.Errorf("%s: %q", path, got)
		}
	}
	if elsewhere {
		t.Error("a host that nobody agreed to was contacted")
	}
	for _, answer = range []string{"", "log.example\n7\n", strings.Repeat("x\n", 40_000) + "\n— x y\n",
		strings.Replace(text, "\n7\n", "\n9223372036854775807\n", 1), strings.Replace(text, "\n7\n", "\n07\n", 1), strings.Replace(text, "— log", "log", 1)} {
		if got, err := ask("/log"); err == nil {
			t.Errorf("taken for a checkpoint: %.60q", got)
		}
	}
	if got, _ := checkpoint(""); got != nil {
		t.Errorf("kept: %q", got)
	}
	answer = text
	if got, err := ask("/log/"); err != nil || string(got) != text {
		t.Errorf("%q, %v", got, err)
	}
	srv.Close()
	if got, err := checkpoint(""); got != nil || err != nil {
		t.Errorf("kept, and nobody had verified it: %q, %v", got, err)
	}
	older := strings.Replace(text, "\n7\n", "\n6\n", 1)
	for _, verified := range []string{text, older} {
		if err := keepCheckpoint([]byte(verified)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := checkpoint(""); err != nil || string(got) != text {
		t.Errorf("kept is %q, %v", got, err)
	}
	if got, err := checkpoint(noCheckpoint); err != nil || got != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := checkpoint(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	path, err := checkpointCache()
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	// What a broken or a hostile one left there is not sealed in, and gives way.
	junk := strings.Replace(text, "\n7\n", "\n9223372036854775807\n", 1)
	if err := os.WriteFile(path, []byte(junk), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := checkpoint(""); got != nil || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := keepCheckpoint([]byte(older)); err != nil {
		t.Fatal(err)
	}
	if got, err := checkpoint(""); err != nil || string(got) != older {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", "log.example", "ftp://log.example/", "https://user@log.example/", "https://log.example/?q"} {
		if _, err := logURL(bad); err == nil {
			t.Errorf("%q was taken for the address of a log", bad)
		}
	}
}

// TestMeasurementsStay: where no evidence could be made, the measurements are
// not lost; those that were to be encrypted are not left in the clear.
func TestMeasurementsStay(t *testing.T) {
	failed := errors.New("the disk is full")
	begin := func(to *keyring.Recipients) *sealing {
		dir := t.TempDir()
		s := &sealing{path: filepath.Join(dir, "case.govah"), scratch: filepath.Join(dir, ".govah-seal-1"), recipients: to}
		s.measurements = filepath.Join(s.scratch, "measurements.jsonl")
		if err := errors.Join(os.Mkdir(s.scratch, 0o700), os.WriteFile(s.measurements, []byte("{}\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	files := func(s *sealing, err error) (names []string) {
		if s.discard(); !errors.Is(err, failed) {
			t.Errorf("%v", err)
		}
		list, err := os.ReadDir(filepath.Dir(s.path))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			names = append(names, e.Name())
		}
		return names
	}
	s := begin(nil)
	if got := files(s, s.rescue(failed)); !slices.Equal(got, []string{"case.jsonl"}) {
		t.Errorf("left: %v", got)
	}
	to, err := keyring.ParseRecipients("age1cy0su9fwf3gf9mw868g5yut09p6nytfmmnktexz2ya5uqg9vl9sss4euqm")
	if err != nil {
		t.Fatal(err)
	}
	s = begin(to)
	if got := files(s, s.rescue(failed)); len(got) != 0 {
		t.Errorf("in the clear: %v", got)
	}
}
