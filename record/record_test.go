package record

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"

	"govah/measure"
)

func write(t *testing.T, path string) {
	t.Helper()
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w.Run(&measure.Run{Type: "run", Schema: 1, Run: "r1"})
	for range 2 {
		w.Body(&measure.Body{Type: "body", Schema: 1, SHA256: "aa", Data: []byte("x\n<y>")})
	}
	w.Measurement(&measure.Measurement{Type: "measurement", Schema: 1, ID: "m1", Target: "https://a.example/?b&c"})
	w.Verdict(&measure.Verdict{Type: "verdict", Schema: 1, Measurement: "m1"})
	w.Location(&measure.Location{Type: "location", Schema: 1, Measurement: "m1"})
	w.Identification(&measure.Identification{Type: "identification", Schema: 1, Measurement: "m1"})
	w.End(&measure.End{Type: "end", Schema: 1})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) (kinds string, errs []error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range r.All() {
		switch {
		case err != nil:
			errs = append(errs, err)
		case e.Run != nil:
			kinds += "r"
		case e.Body != nil:
			kinds += "b"
		case e.Measurement != nil:
			kinds += "m"
		case e.Verdict != nil:
			kinds += "v"
		case e.Location != nil:
			kinds += "l"
		case e.Identification != nil:
			kinds += "i"
		case e.End != nil:
			kinds += "e"
		case e.Other != nil:
			kinds += "o"
		}
	}
	return kinds, errs
}

func TestRoundTrip(t *testing.T) {
	for _, ext := range []string{"", ".gz", ".zst"} {
		path := filepath.Join(t.TempDir(), "m.jsonl"+ext)
		write(t, path)
		if kinds, errs := read(t, path); kinds != "rbmvlie" || errs != nil {
			t.Errorf("%q: %s, %v", ext, kinds, errs)
		}
		if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
			t.Errorf("%q: mode %v", ext, st.Mode())
		}
		if _, err := Create(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: overwriting: %v", ext, err)
		}
		w, err := Append(path)
		if err != nil {
			t.Fatal(err)
		}
		w.Run(&measure.Run{Type: "run"})
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if kinds, errs := read(t, path); kinds != "rbmvlier" || errs != nil {
			t.Errorf("%q after appending: %s, %v", ext, kinds, errs)
		}
	}
}

func TestCutOff(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.jsonl")
	write(t, path)
	data, _ := os.ReadFile(path)
	os.WriteFile(path, data[:len(data)-9], 0o600)
	kinds, errs := read(t, path)
	var le *LineError
	if kinds != "rbmvli" || len(errs) != 1 || !errors.As(errs[0], &le) || le.Line != 7 {
		t.Fatalf("%s, %v", kinds, errs)
	}
	w, err := Append(path)
	if err != nil {
		t.Fatal(err)
	}
	w.End(&measure.End{Type: "end"})
	w.Close()
	if kinds, errs := read(t, path); kinds != "rbmvlie" || errs != nil {
		t.Fatalf("after repair: %s, %v", kinds, errs)
	}
	// Going on after an interruption repeats no body.
	w, _ = Append(path)
	w.Body(&measure.Body{Type: "body", Schema: 1, SHA256: "aa"})
	w.Close()
	if kinds, errs := read(t, path); kinds != "rbmvlie" || errs != nil {
		t.Fatalf("after the same body: %s, %v", kinds, errs)
	}
	var z bytes.Buffer
	g := gzip.NewWriter(&z)
	g.Write(bytes.Repeat(data, 100))
	g.Close()
	cut := filepath.Join(dir, "cut.gz")
	os.WriteFile(cut, z.Bytes()[:z.Len()/2], 0o600)
	if _, errs := read(t, cut); len(errs) != 1 || !errors.Is(errs[0], ErrTruncated) {
		t.Fatalf("cut gzip: %v", errs)
	}
}

func TestAppendSalvagesCompressed(t *testing.T) {
	for _, ext := range []string{".gz", ".zst"} {
		path := filepath.Join(t.TempDir(), "m.jsonl"+ext)
		w, err := Create(path)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			w.Run(&measure.Run{Type: "run"})
		}
		w.Flush()
		for range 20 {
			w.Measurement(&measure.Measurement{Type: "measurement"})
		}
		w.Flush()
		w.Close()
		data, _ := os.ReadFile(path)
		os.WriteFile(path, data[:len(data)-30], 0o600)
		before, errs := read(t, path)
		if len(before) < 20 || len(errs) != 1 || !errors.Is(errs[0], ErrTruncated) {
			t.Fatalf("%s: %s, %v", ext, before, errs)
		}
		if w, err = Append(path); err != nil {
			t.Fatal(err)
		}
		w.End(&measure.End{Type: "end"})
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if kinds, errs := read(t, path); kinds != before+"e" || errs != nil {
			t.Errorf("%s: had %s, now %s, %v", ext, before, kinds, errs)
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
			t.Errorf("%s: left behind: %v", ext, left)
		}
	}
}

func TestDiskFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("this system has no /dev/full")
	}
	for _, name := range []string{"m.jsonl", "m.jsonl.gz"} {
		path := filepath.Join(t.TempDir(), name)
		w, err := open(path, full, 0, map[string]bool{})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			w.Run(&measure.Run{Type: "run"})
			err = w.Flush()
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := w.Body(&measure.Body{}); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: writing went on after a failure: %v", name, err)
		}
	}
}

func TestCreateTakesEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.jsonl")
	os.WriteFile(path, nil, 0o644)
	write(t, path)
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
}

func TestReadingIsStreamedInConstantMemory(t *testing.T) {
	pr, pw := io.Pipe()
	const lines = 200
	go func() {
		g := gzip.NewWriter(pw)
		text := []byte(`{"type":"newer","x":"` + strings.Repeat("abcdefgh", 1<<16) + "\"}\n")
		for range lines {
			g.Write(text)
		}
		pw.CloseWithError(g.Close())
	}()
	r, err := NewReader(pr)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	n, at := 0, int64(0)
	for line, err := range r.Lines() {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 20 {
			runtime.ReadMemStats(&before)
		}
		at = line.Offset
	}
	runtime.ReadMemStats(&after)
	if n != lines || at != int64(lines-1)*(1<<19+24) {
		t.Fatalf("%d lines, the last at %d", n, at)
	}
	// 180 lines of 512 KiB went by; only the compressor may have allocated.
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d bytes allocated for %d lines", grown, lines-20)
	}
}

func TestAbandonedReaderEnds(t *testing.T) {
	var z bytes.Buffer
	g := gzip.NewWriter(&z)
	for range 1 << 16 {
		g.Write([]byte(`{"type":"newer","padding":"padding padding padding"}` + "\n"))
	}
	g.Close()
	was := runtime.NumGoroutine()
	for range 20 {
		r, err := NewReader(bytes.NewReader(z.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		for range r.All() {
			break
		}
	}
	for range 100 {
		if runtime.NumGoroutine() <= was {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, before %d", runtime.NumGoroutine(), was)
}

func TestSniff(t *testing.T) {
	for line, want := range map[string]Kind{
		`{"type":"run"}`:                       KindRun,
		` { "type" : "body"}`:                  KindBody,
		`{"type":"location"}`:                  KindLocation,
		`{"type":"identification"}`:            KindIdentification,
		`{"type":"later"}`:                     "later",
		`{"annotations":{},"test_name":"web"}`: KindOONI,
		`{"type":"ooni"}`:                      KindUnknown,
		`{"type":3,"test_name":"x"}`:           KindUnknown,
		`{"type":"` + strings.Repeat("x", 40):  KindUnknown,
		`{"a":1}`:                              KindUnknown,
		`"test_name"`:                          KindUnknown,
		``:                                     KindUnknown,
	} {
		if got := Sniff([]byte(line)); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestHostileLines(t *testing.T) {
	in := "garbage\n{\"type\":\"measurement\",\"target\":7}\n{\"type\":\"newer\",\"x\":1}\n\n[1]\n" + `{"type":"verdict","newfield":{"a":[1]}}` + "\n" + strings.Repeat("x", MaxLine+10) + "\n" + `{"type":"end"}`
	r, err := NewReader(strings.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	var lines []int
	var kinds []string
	for e, err := range r.All() {
		var le *LineError
		switch {
		case errors.As(err, &le):
			lines = append(lines, le.Line)
		case err != nil:
			t.Fatal(err)
		case e.Verdict != nil:
			kinds = append(kinds, "verdict")
		case e.End != nil:
			kinds = append(kinds, "end")
		case e.Other != nil:
			kinds = append(kinds, "other")
		}
	}
	if got := strings.Join(kinds, " "); got != "other verdict end" || len(lines) != 4 || lines[0] != 1 || lines[1] != 2 || lines[2] != 5 || lines[3] != 7 {
		t.Fatalf("%s, bad lines %v", got, lines)
	}
}

// What a line says of a device comes back as it was written.
func TestIdentificationRoundTrip(t *testing.T) {
	want := &measure.Identification{Type: "identification", Schema: 1, Run: "r1", Measurement: "m1", Rules: "2026.1", Target: "https://a.example/", Family: measure.IPv6, Payload: "http",
		Trigger: measure.Trigger{Kind: "host", Value: "a.example", Control: "b.example"}, Outcome: measure.ProductNamed,
		Products:   []measure.Candidate{{Row: "p1", Name: "Box", Vendor: "Maker", Country: "NL", PerMille: 970, Source: "https://s.example/", Because: []string{"o1"}}},
		Behaviours: []measure.Candidate{{Row: "b1", Name: "seen somewhere", PerMille: 20}},
		Cluster:    "http-1a2b3c4d", Properties: []measure.Property{{Name: "answer", Value: "<\x1b\u202e>\n", Because: []string{"o1", "o2"}}, {Name: "upper", Value: measure.Blind}},
		Probes: 12, Triggers: 7, Next: "tab", Unknown: []measure.Why{measure.WhyFewPairs}}
	path := filepath.Join(t.TempDir(), "m.jsonl")
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Identification(want), w.Close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Decode(bytes.TrimSpace(data))
	if err != nil || bytes.Count(data, []byte("\n")) != 1 {
		t.Fatalf("%v, %q", err, data)
	}
	if diff := cmp.Diff(Entry{Identification: want}, e); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
	if _, err := Decode([]byte(`{"type":"identification","probes":"many"}`)); err == nil {
		t.Error("a number that is none was accepted")
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(`{"type":"run"}` + "\n" + `{"type":"measurement","observations":[{"id":"o1"}]}`))
	f.Add([]byte(`{"type":"location","outcome":"located"}` + "\n" + `{"type":"identification","products":[{"name":"x"}],"properties":[{"name":"split","value":"blind"}]}`))
	f.Add([]byte{0x1f, 0x8b, 8, 0})
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		for range r.All() {
		}
	})
}

// TestCreateThrough: the file is what through made of the lines, compressed
// first where the name says so.
func TestCreateThrough(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"m.jsonl.age", "m.jsonl.gz.age", "m.jsonl.zst"} {
		path := filepath.Join(t.TempDir(), name)
		w, err := CreateThrough(path, func(w io.Writer) (io.WriteCloser, error) { return flipped{w}, nil })
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Run(&measure.Run{Type: "run", Run: "r1"}), w.End(&measure.End{Type: "end", Run: "r1"}), w.Close()); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range data {
			data[i] ^= 0x55
		}
		if data[len(data)-1] != '.' {
			t.Errorf("%s: what is written through was not closed", name)
		}
		r, err := NewReader(bytes.NewReader(data[:len(data)-1]))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for e, err := range r.All() {
			if err != nil || e.Run == nil && e.End == nil {
				t.Errorf("%s: %+v %v", name, e, err)
			}
			n++
		}
		if n != 2 {
			t.Errorf("%s: %d lines", name, n)
		}
		if _, err := CreateThrough(path, nil); err == nil {
			t.Errorf("%s is overwritten", name)
		}
	}
	path := filepath.Join(t.TempDir(), "m")
	if _, err := CreateThrough(path, func(io.Writer) (io.WriteCloser, error) { return nil, io.ErrUnexpectedEOF }); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("an empty file is left")
	}
	var b bytes.Buffer
	w := NewWriter(&b)
	if err := errors.Join(w.Run(&measure.Run{Type: "run", Run: "r1"}), w.Flush()); err != nil || !strings.HasPrefix(b.String(), `{"type":"run"`) {
		t.Errorf("%q %v", b.String(), err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// flipped writes every byte changed, and a full stop at its end.
type flipped struct{ w io.Writer }

func (f flipped) Write(p []byte) (int, error) {
	out := bytes.Clone(p)
	for i := range out {
		out[i] ^= 0x55
	}
	return f.w.Write(out)
}

func (f flipped) Close() error {
	_, err := f.Write([]byte("."))
	return err
}
