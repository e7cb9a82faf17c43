package evidence

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

const vectorFolder = "testdata/vectors"

// vector is one row of vectors.json.
type vector struct {
	File  string `json:"file"`
	Valid bool   `json:"valid"`
	// Of a valid one: what every verifier must come to.
	Entry    string         `json:"entry,omitempty"` // hex
	Root     string         `json:"root,omitempty"`
	Withheld map[string]int `json:"withheld,omitempty"`
	// Why a bad one is refused, in the words of this implementation.
	Why string `json:"why,omitempty"`
}

// vectors makes all of them, each time the same.
func vectors(t *testing.T) (list []vector, files map[string][]byte) {
	files = map[string][]byte{}
	add := func(v vector, data []byte) {
		if files[v.File] != nil {
			t.Fatalf("%s twice", v.File)
		}
		files[v.File] = data
		list = append(list, v)
	}
	good := func(name string, b *Bundle) {
		v := vector{File: "good-" + name + ".govah", Valid: true, Entry: hex.EncodeToString(b.Entry[:]), Root: hex.EncodeToString(b.Root[:]), Withheld: map[string]int{}}
		for c, n := range b.Withheld() {
			if n > 0 {
				v.Withheld[Class(c).String()] = int(n)
			}
		}
		add(v, bytesOf(t, b))
	}
	full := opens(t, sealed(t))
	good("full", full)
	good("client", full.Withhold(Client))
	good("all", full.Withhold(Classes()...))
	few := opens(t, small(t, 9))
	good("small", few)
	good("small-location-time", few.Withhold(Location, Time))
	good("small-all", few.Withhold(Classes()...))
	with, err := few.Attach("tsa.tsr", []byte("no token, and not checked"))
	if err != nil {
		t.Fatal(err)
	}
	good("small-token", with)
	for _, b := range badBundles(t) {
		_, err := Open(b.data)
		if err == nil {
			t.Fatalf("%s is accepted", b.name)
		}
		add(vector{File: "bad-" + b.name + ".govah", Why: err.Error()}, b.data)
	}
	return list, files
}

// TestVectors: testdata/vectors is what this test makes of it, so that others
// can rely on it; -update writes it.
func TestVectors(t *testing.T) {
	list, files := vectors(t)
	text, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	files["vectors.json"] = append(text, '\n')
	if *update {
		os.RemoveAll(vectorFolder)
		if err := os.MkdirAll(vectorFolder, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(vectorFolder, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	there, err := os.ReadDir(vectorFolder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range there {
		if files[e.Name()] == nil && e.Name() != "bad-empty.govah" {
			t.Errorf("%s is no vector", e.Name())
		}
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(vectorFolder, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the generator makes (%v); -update writes it, and changes the format for everybody", name, err)
		}
	}
}

// TestSecondVerifier: contrib/verify/verify.py comes to the same conclusion
// about every vector, in a language and a library of its own.
func TestSecondVerifier(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here")
	}
	data, err := os.ReadFile(filepath.Join(vectorFolder, "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list []vector
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	for _, v := range list {
		t.Run(v.File, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(python, "-B", "../contrib/verify/verify.py", filepath.Join(vectorFolder, v.File))
			out, err := cmd.CombinedOutput()
			code := cmd.ProcessState.ExitCode()
			switch {
			case !v.Valid && code != 5, v.Valid && code != 0:
				t.Fatalf("it ends with %d (%v): %s", code, err, out)
			case v.Valid:
				want := []string{v.Entry, v.Root}
				for class, n := range v.Withheld {
					want = append(want, fmt.Sprintf(" %d withheld", n), class)
				}
				for _, w := range want {
					if !strings.Contains(string(out), w) {
						t.Errorf("it does not say %q: %s", w, out)
					}
				}
			}
		})
	}
	// The key that is asked for.
	good := filepath.Join(vectorFolder, "good-small.govah")
	_, key := signer(t, 1)
	_, other := signer(t, 2)
	for k, want := range map[string]int{key: 0, other: 5} {
		cmd := exec.Command(python, "-B", "../contrib/verify/verify.py", "--key", k, good)
		cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != want {
			t.Errorf("with --key it ends with %d, not %d", code, want)
		}
	}
}

// verdicts is what the second verifier says of many files, one after the other.
const verdicts = `
import struct, sys
sys.path.insert(0, "../contrib/verify")
import verify
while len(head := sys.stdin.buffer.read(4)) == 4:
    data = sys.stdin.buffer.read(struct.unpack(">I", head)[0])
    try:
        verify.verify(data)
        print("1")
    except verify.Refused:
        print("0")
`

// TestSecondVerifierMutations: the two agree on mutated files too, on which
// neither was held to the other by hand, and on every set of classes withheld.
func TestSecondVerifierMutations(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here")
	}
	few := opens(t, small(t, 9))
	other := small(t, 8)
	r := rand.New(rand.NewPCG(5, 6))
	var files [][]byte
	for set := range 1 << (classes - 1) {
		var away []Class
		for c := 1; c < classes; c++ {
			if set>>(c-1)&1 != 0 {
				away = append(away, Class(c))
			}
		}
		if set%8 == 1 {
			files = append(files, bytesOf(t, few.Withhold(away...)))
		}
	}
	for range *mutations / 50 {
		b := few
		if r.IntN(2) == 0 {
			b = few.Withhold(Class(1 + r.IntN(classes-1)))
		}
		files = append(files, mutate(r, bytesOf(t, b), other))
	}
	var in bytes.Buffer
	for _, f := range files {
		in.Write(binary.BigEndian.AppendUint32(nil, uint32(len(f))))
		in.Write(f)
	}
	cmd := exec.Command(python, "-B", "-c", verdicts)
	cmd.Stdin = &in
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	said := strings.Fields(string(out))
	if len(said) != len(files) {
		t.Fatalf("%d answers to %d files: %s", len(said), len(files), &stderr)
	}
	accepted := 0
	for i, f := range files {
		_, err := Open(f)
		if (err == nil) != (said[i] == "1") {
			t.Errorf("file %d: we say %v, they %s: %x", i, err, said[i], f)
		}
		if err == nil {
			accepted++
		}
	}
	t.Logf("%d files, of which both accept %d", len(files), accepted)
	if accepted < 64 || accepted == len(files) {
		t.Errorf("%d of %d are accepted", accepted, len(files))
	}
}
