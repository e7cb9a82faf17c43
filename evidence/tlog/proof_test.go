package tlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
	merkle "golang.org/x/mod/sumdb/tlog"
)

var update = flag.Bool("update", false, "write testdata/proofs.json anew")

// entryOf is the i-th entry of tests.
func entryOf(i int) Entry { return sha256.Sum256(fmt.Append(nil, "entry ", i)) }

// hashes are those of a tree of the first entries, in the order of
// golang.org/x/mod.
type hashes []merkle.Hash

func grown(t testing.TB, n int) (h hashes) {
	for i := range n {
		e := entryOf(i)
		more, err := merkle.StoredHashes(int64(i), e[:], h)
		if err != nil {
			t.Fatal(err)
		}
		h = append(h, more...)
	}
	return h
}

// ReadHashes implements merkle.HashReader.
func (h hashes) ReadHashes(indexes []int64) (list []merkle.Hash, err error) {
	for _, i := range indexes {
		list = append(list, h[i])
	}
	return list, nil
}

// tree is the head of the first n entries.
func (h hashes) tree(t testing.TB, n int64) Tree {
	root, err := merkle.TreeHash(n, h)
	if err != nil {
		t.Fatal(err)
	}
	return Tree{Origin: vectorOrigin, Size: n, Root: root}
}

func policyFor(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func vkeyOfKey(t testing.TB, key string) string {
	t.Helper()
	_, vkey, err := NewLogSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return vkey
}

// keyFrom is a key that is the same each time.
func keyFrom(name string, algorithm, n byte) string {
	seed := bytes.Repeat([]byte{n}, 32)
	vkey := vkeyOf(name, algorithm, seed)
	return fmt.Sprintf("PRIVATE+KEY+%s+%s+%s", name, strings.Split(vkey, "+")[1], b64(append([]byte{algorithm}, seed...)))
}

func b64(b []byte) string {
	text, _ := json.Marshal(b)
	return strings.Trim(string(text), `"`)
}

// witnessed signs a tree as a log, and cosigns it at the times of witnesses.
func witnessed(t testing.TB, log string, tree Tree, times map[int]int64) []byte {
	t.Helper()
	t.Helper()
	signer, _, err := NewLogSigner(log)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: tree.Text()}, signer)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		seconds, ok := times[i]
		if !ok {
			continue
		}
		c, err := NewCosigner(keyFrom(fmt.Sprintf("w%d.example", i), algorithmCosignature, byte(100+i)))
		if err != nil {
			t.Fatal(err)
		}
		line, err := c.Cosign([]byte(tree.Text()), seconds)
		if err != nil {
			t.Fatal(err)
		}
		signed = append(signed, line...)
	}
	return signed
}

func witnessLine(i int) string {
	return fmt.Sprintf("witness W%d %s\n", i, vkeyOf(fmt.Sprintf("w%d.example", i), algorithmCosignature, bytes.Repeat([]byte{byte(100 + i)}, 32)))
}

const vectorOrigin = "log.example/evidence"

var vectorLog = keyFrom(vectorOrigin, algorithmEd25519, 7)

// vector is one proof with what every verifier must make of it.
type vector struct {
	Name   string `json:"name"`
	Policy string `json:"policy"`
	// PolicyBytes is a policy that is not UTF-8, which JSON cannot hold.
	PolicyBytes []byte `json:"policy_base64,omitempty"`
	Entry       string `json:"entry"` // hex
	Proof       string `json:"proof"`
	Valid       bool   `json:"valid"`
	Index       int64  `json:"index,omitempty"`
	Size        int64  `json:"size,omitempty"`
	Since       int64  `json:"since,omitempty"` // seconds since 1970; 0: unknown
	By          int64  `json:"by,omitempty"`
	Why         string `json:"why,omitempty"` // of what is refused, in the words of this implementation
}

// vectors makes them, the same each time.
func vectors(t *testing.T) (list []vector) {
	h := grown(t, 700)
	logLine := "log " + vkeyOfKey(t, vectorLog) + "\n"
	two := logLine + witnessLine(0) + witnessLine(1) + witnessLine(2) + "group two 2 W0 W1 W2\nquorum two\n"
	proof := func(i, size int64, times map[int]int64) string {
		path, err := merkle.ProveRecord(size, i, h)
		if err != nil {
			t.Fatal(err)
		}
		return string(RawProof{Index: i, Path: path, Checkpoint: witnessed(t, vectorLog, h.tree(t, size), times)}.Text())
	}
	add := func(name, policy string, i int64, proof string) {
		v := vector{Name: name, Policy: policy, Entry: fmt.Sprintf("%x", entryOf(int(i))), Proof: proof}
		p, err := ParsePolicy([]byte(policy))
		if err == nil {
			var got Proof
			e := entryOf(int(i))
			if got, err = VerifyProof([]byte(proof), e[:], p); err == nil {
				v.Valid, v.Index, v.Size = true, got.Index, got.Checkpoint.Size
				if !got.Checkpoint.By.IsZero() {
					v.Since, v.By = got.Checkpoint.Since.Unix(), got.Checkpoint.By.Unix()
				}
			}
		}
		if err != nil {
			v.Why = err.Error()
		}
		if !utf8.ValidString(policy) {
			v.Policy, v.PolicyBytes = "", []byte(policy)
		}
		list = append(list, v)
	}
	all := map[int]int64{0: 1_700_000_000, 1: 1_700_000_300, 2: 1_700_000_100}
	good := proof(321, 700, all)
	add("good", two, 321, good)
	for _, c := range [][2]int64{{0, 1}, {0, 2}, {1, 2}, {255, 256}, {256, 257}, {0, 700}, {699, 700}, {6, 7}} {
		add(fmt.Sprintf("good %d of %d", c[0], c[1]), two, c[0], proof(c[0], c[1], all))
	}
	add("good, quorum none", logLine+"quorum none\n", 321, proof(321, 700, nil))
	add("good, two of three", two, 321, proof(321, 700, map[int]int64{1: 1_700_000_300, 2: 1_700_000_100}))
	add("good, one named", logLine+witnessLine(1)+"quorum W1\n", 321, good)
	add("good, nested", "# a policy\n\n"+logLine+witnessLine(0)+witnessLine(1)+witnessLine(2)+"\tgroup  X all W0 W1 \ngroup Y any X W2\nquorum Y\n", 321, good)
	add("good, unknown witnesses beside", two, 321, proof(321, 700, map[int]int64{0: 1_700_000_000, 1: 1_700_000_300, 5: 1_700_000_001}))
	add("good, extra data", two, 321, strings.Replace(good, "\nindex", "\nextra aGVsbG8=\nindex", 1))
	add("another entry", two, 322, good)
	add("one of three", two, 321, proof(321, 700, map[int]int64{0: 1_700_000_000}))
	add("no log's signature", two, 321, cutLine(good, "— log.example"))
	add("another log", strings.Replace(two, logLine, "log "+vkeyOf("other.example", algorithmEd25519, make([]byte, 32))+"\n", 1), 321, good)
	add("a log of this name with another key", strings.Replace(two, logLine, "log "+vkeyOf(vectorOrigin, algorithmEd25519, make([]byte, 32))+"\n", 1), 321, good)
	add("index beyond", two, 321, strings.Replace(good, "index 321", "index 700", 1))
	add("another index", two, 321, strings.Replace(good, "index 321", "index 320", 1))
	add("leading zero", two, 321, strings.Replace(good, "index 321", "index 0321", 1))
	add("larger size", two, 321, strings.Replace(good, "\n700\n", "\n701\n", 1))
	lines := strings.Split(good, "\n")
	add("a hash too few", two, 321, strings.Join(slices.Delete(slices.Clone(lines), 3, 4), "\n"))
	add("a hash too many", two, 321, strings.Join(slices.Insert(slices.Clone(lines), 3, lines[2]), "\n"))
	add("hashes in another order", two, 321, strings.Join(append(append(slices.Clone(lines[:2]), lines[3], lines[2]), lines[4:]...), "\n"))
	add("no header", two, 321, strings.Replace(good, "@v1", "@v2", 1))
	add("carriage returns", two, 321, strings.ReplaceAll(good, "\n", "\r\n"))
	add("cut", two, 321, good[:len(good)-2])
	add("base64 with bits to spare", two, 321, spare(good))
	add("a time altered", two, 321, alteredTime(t, good))
	add("a log as its own witness", logLine+"witness L "+vkeyOf(vectorOrigin, algorithmCosignature, bytes.Repeat([]byte{7}, 32))+"\nquorum L\n", 321, good)
	add("nothing", two, 321, "")
	extra := func(n int) string {
		return strings.Replace(good, "\nindex", "\nextra "+strings.Repeat("A", n)+"\nindex", 1)
	}
	add("good, as much extra data as may be", two, 321, extra(maxExtra))
	add("too much extra data", two, 321, extra(maxExtra+4))
	none := logLine + "quorum none\n"
	many := func(n int, line func(int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i))
		}
		return b.String() + none
	}
	key := func(i int, algorithm byte) string {
		return vkeyOf("k.example", algorithm, binary.BigEndian.AppendUint32(make([]byte, 28), uint32(i)))
	}
	log := func(i int) string { return "log " + key(i, algorithmEd25519) + "\n" }
	witness := func(i int) string { return fmt.Sprintf("witness K%d %s\n", i, key(i, algorithmCosignature)) }
	group := func(i int) string {
		if i == 0 {
			return witnessLine(0) + "group G0 any W0\n"
		}
		return fmt.Sprintf("group G%d any G%d\n", i, i-1)
	}
	add("good, 128 logs", many(maxPolicyLines-1, log), 321, good)
	add("129 logs", many(maxPolicyLines, log), 321, good)
	add("good, 128 witnesses", many(maxPolicyLines, witness), 321, good)
	add("129 witnesses", many(maxPolicyLines+1, witness), 321, good)
	add("good, 128 groups", many(maxPolicyLines, group), 321, good)
	add("129 groups", many(maxPolicyLines+1, group), 321, good)
	at := func(url string) string { return strings.Replace(none, "\n", " "+url+"\n", 1) }
	for _, url := range []string{"https://log.example/evidence", "http://192.0.2.1:8080", "http://[2001:db8::1]:80/", "https://log.example/a%20b/"} {
		add("good, URL "+url, at(url), 321, good)
	}
	for _, url := range []string{"ftp://log.example/", "log.example", "https://", "https:///x", "http://[2001:db8::g]/", "http://[1.2.3.4]/", "http://log.example:x/", "https://log.example/%zz", "https://user@log.example/", "https://log.example/?q"} {
		add("URL "+url, at(url), 321, good)
	}
	add("URL of a witness", none+strings.Replace(witnessLine(0), "\n", " ftp://w.example\n", 1), 321, good)
	add("good, a name and a comment that are not UTF-8", "# \xff\n"+logLine+witnessLine(0)+"group \xff all W0\nquorum \xff\n", 321, good)
	add("the name of a key that is not UTF-8", none+strings.Replace(log(0), "k.example", "\xff", 1), 321, good)
	return list
}

func cutLine(text, prefix string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, prefix) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// spare sets a bit of the last signature's base64 that decodes to nothing.
func spare(text string) string {
	i := strings.LastIndex(text, "==\n")
	return text[:i-1] + string(text[i-1]+1) + text[i:]
}

func alteredTime(t *testing.T, text string) string {
	i := strings.Index(text, "— w0.example ") + len("— w0.example ")
	b := []byte(text)
	for j := i + 12; j < i+16; j++ {
		if b[j] != 'A' && b[j] != 'B' {
			b[j] = 'A'
			return string(b)
		}
	}
	t.Fatal("no time to alter")
	return ""
}

// TestVectors: the committed vectors are what the generator makes, good ones
// are accepted and bad ones refused.
func TestVectors(t *testing.T) {
	t.Parallel()
	list := vectors(t)
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(list); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "proofs.json")
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, b.Bytes()) {
		t.Errorf("%s is not what the generator makes; look, and run with -update", file)
	}
	for _, v := range list {
		if v.Valid != strings.HasPrefix(v.Name, "good") {
			t.Errorf("%s: valid %v: %s", v.Name, v.Valid, v.Why)
		}
	}
	if v := list[0]; v.By != 1_700_000_100 || v.Since != 1_700_000_100 {
		t.Errorf("two of three at 0, 300 and 100 seconds: since %d, by %d", v.Since, v.By)
	}
}

// TestSecondVerifier: contrib/verify/tlogproof.py, in another language, comes
// to the same.
func TestSecondVerifier(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here")
	}
	script := filepath.Join("..", "..", "contrib", "verify", "tlogproof.py")
	out, err := exec.Command(python, script, "--vectors", filepath.Join("testdata", "proofs.json")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := fmt.Sprintf("%d vectors", len(vectors(t))); !strings.Contains(string(out), want) {
		t.Errorf("it says %s; %q was expected", out, want)
	}
}

// TestSpecExample reads the example of c2sp.org/tlog-cosignature, whose keys
// are not published: its text, key IDs and time.
func TestSpecExample(t *testing.T) {
	t.Parallel()
	const example = `example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
`
	text, _, err := SplitNote([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := ParseTree(text)
	if err != nil || tree.Origin != "example.com/behind-the-sofa" || tree.Size != 20852163 || tree.Text() != text {
		t.Errorf("%+v, %v", tree, err)
	}
	_, err = note.Open([]byte(example), note.VerifierList())
	var u *note.UnverifiedNoteError
	if !asError(err, &u) || len(u.Note.UnverifiedSigs) != 2 {
		t.Fatal(err)
	}
	if at := cosignedAt(u.Note.UnverifiedSigs[1]); at.Unix() != 1679315147 {
		t.Errorf("the time is %v", at)
	}
	if got := string(cosigned([]byte(text), 1679315147)); got != "cosignature/v1\ntime 1679315147\n"+text {
		t.Errorf("the message is %q", got)
	}
	// The note of golang.org/x/mod's documentation, whose key is published.
	const doc = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n" +
		"— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
	key, err := newLogKey("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := note.Open([]byte(doc), note.VerifierList(key)); err != nil {
		t.Error(err)
	}
	if got := vkeyOfKey(t, "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"); got != "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW" {
		t.Errorf("the public key is %s", got)
	}
}

func asError(err error, u **note.UnverifiedNoteError) bool {
	e, ok := err.(*note.UnverifiedNoteError)
	*u = e
	return ok
}

// TestPolicies: what c2sp.org/tlog-policy says of each line.
func TestPolicies(t *testing.T) {
	t.Parallel()
	log, w := "log "+vkeyOfKey(t, vectorLog)+"\n", witnessLine(0)+witnessLine(1)
	for _, good := range []string{
		"quorum none\n", log + "quorum none\n", w + "quorum W1\n", w + "group g any W0 W1\nquorum g\n", w + "group g 2 W0 W1\nquorum g\n",
		"# \xd7\x90 comment\n \t\n" + w + "group \xff all W0\nquorum \xff\n",
		strings.Replace(log, "\n", " https://log.example/x\n", 1) + "quorum none\n",
		w + "quorum W0\ngroup later any W0\n",
	} {
		if _, err := ParsePolicy([]byte(good)); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, why := range map[string]string{
		"":                                   "no quorum line",
		log:                                  "no quorum line",
		"quorum none":                        "no end",
		"quorum none\r\n":                    "control character",
		"quorum none\x00\n":                  "control character",
		"quorum none extra\n":                "quorum NAME",
		"quorum none\nquorum none\n":         "already",
		"quorum W0\n" + w:                    "defined above",
		log + log + "quorum none\n":          "already",
		w + witnessLine(0) + "quorum none\n": "already",
		w + strings.Replace(witnessLine(2), "W2", "W1", 1) + "quorum none\n": "already",
		strings.Replace(w, "W0", "none", 1) + "quorum none\n":                "taken",
		w + "group g 0 W0 W1\nquorum g\n":                                    "1 to 2",
		w + "group g 3 W0 W1\nquorum g\n":                                    "1 to 2",
		w + "group g 01 W0 W1\nquorum g\n":                                   "1 to 2",
		w + "group g any W0 W0\nquorum g\n":                                  "member already",
		w + "group g any W0\ngroup h any W0\nquorum h\n":                     "member already",
		w + "group g any g\nquorum g\n":                                      "defined above",
		w + "group g any\nquorum g\n":                                        "group NAME",
		w + "group g any none\nquorum g\n":                                   "defined above",
		"log " + strings.Fields(w)[2] + "\nquorum none\n":                    "type 4",
		"witness W " + strings.Fields(log)[1] + "\nquorum W\n":               "type 1",
		"log hello\nquorum none\n":                                           "NAME+ID+KEY",
		strings.Replace(log, "+0", "+1", 1) + strings.Replace(log, vectorOrigin, "x", 1) + "quorum none\n": "altered",
		"log x+00000000+" + b64(append([]byte{6}, make([]byte, 1312)...)) + "\nquorum none\n":              "ML-DSA",
		"log " + vkeyOfKey(t, vectorLog) + " ftp://x\nquorum none\n":                                       "no URL",
		"hello\n": "none of log",
		strings.Repeat("#", maxPolicy) + "\nquorum none\n": "more than",
	} {
		if _, err := ParsePolicy([]byte(bad)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%.60q: %v; %q was expected", bad, err, why)
		}
	}
}

// TestQuorumTimes compares the times of random policies with what they mean,
// tried out over all sets of witnesses: By is the earliest moment at which the
// witnesses that had cosigned by then were a quorum; Since the latest from
// which on the witnesses that cosigned were one.
func TestQuorumTimes(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(21, 22))
	h := grown(t, 3)
	satisfied := 0
	for range 150 {
		n := 1 + r.IntN(5)
		text := "log " + vkeyOfKey(t, vectorLog) + "\n"
		var free []string
		for i := range n {
			text += witnessLine(i)
			free = append(free, fmt.Sprint("W", i))
		}
		for g := 0; len(free) > 1; g++ {
			r.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
			k := 2 + r.IntN(len(free)-1)
			text += fmt.Sprintf("group g%d %d %s\n", g, 1+r.IntN(k), strings.Join(free[:k], " "))
			free = append(free[k:], fmt.Sprint("g", g))
		}
		p := policyFor(t, text+"quorum "+free[0]+"\n")
		times := map[int]int64{}
		for i := range n {
			if r.IntN(4) > 0 {
				times[i] = 1000 + r.Int64N(6)
			}
		}
		reached := func(keep func(int64) bool) bool {
			set := map[int]time.Time{}
			for i, s := range times {
				if keep(s) {
					set[i] = time.Unix(s, 0)
				}
			}
			_, ok := p.quorum.at(set, true)
			return ok
		}
		c, err := VerifyCheckpoint(witnessed(t, vectorLog, h.tree(t, 3), times), p)
		if ok := reached(func(int64) bool { return true }); ok != (err == nil) {
			t.Fatalf("%s with %v: %v", text, times, err)
		}
		if err != nil {
			continue
		}
		satisfied++
		by, since := int64(1000), int64(1010)
		for !reached(func(s int64) bool { return s <= by }) {
			by++
		}
		for !reached(func(s int64) bool { return s >= since }) {
			since--
		}
		if c.By.Unix() != by || c.Since.Unix() != since || len(c.Cosignatures) != len(times) {
			t.Errorf("%s with %v: since %d, by %d; %d and %d were expected", text, times, c.Since.Unix(), c.By.Unix(), since, by)
		}
	}
	if satisfied < 40 {
		t.Errorf("only %d policies were satisfied", satisfied)
	}
}

// TestProofBits: no proof with one bit turned over is accepted, where all of
// what it holds counts.
func TestProofBits(t *testing.T) {
	t.Parallel()
	v := vectors(t)[0]
	p := policyFor(t, strings.Replace(v.Policy, "two 2", "two 3", 1))
	e := entryOf(321)
	if _, err := VerifyProof([]byte(v.Proof), e[:], p); err != nil {
		t.Fatal(err)
	}
	for i := range v.Proof {
		for bit := range 8 {
			b := []byte(v.Proof)
			b[i] ^= 1 << bit
			if got, err := VerifyProof(b, e[:], p); err == nil {
				t.Fatalf("byte %d, bit %d: accepted, %+v", i, bit, got)
			}
		}
	}
}

func FuzzProof(f *testing.F) {
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra aGVsbG8=\nindex 0\n\nx\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— x AAAAAAAA\n"))
	p := &Policy{}
	if policy, err := ParsePolicy([]byte("log " + vkeyOf(vectorOrigin, algorithmEd25519, bytes.Repeat([]byte{7}, 32)) + "\nquorum none\n")); err == nil {
		p = policy
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		raw, err := ParseProof(data)
		if err != nil {
			return
		}
		if !bytes.Equal(raw.Text(), data) {
			t.Errorf("%q is read as %q", data, raw.Text())
		}
		VerifyProof(data, make([]byte, 32), p)
	})
}

func FuzzCheckpoint(f *testing.F) {
	f.Add("example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\nmore\n")
	f.Fuzz(func(t *testing.T, text string) {
		tree, err := ParseTree(text)
		if err == nil && tree.Text() != text {
			t.Errorf("%q is read as %q", text, tree.Text())
		}
	})
}

func FuzzKey(f *testing.F) {
	f.Add(vkeyOf("w", algorithmCosignature, make([]byte, 32)))
	f.Add(keyFrom("x", algorithmEd25519, 1))
	f.Fuzz(func(t *testing.T, text string) {
		if w, err := newWitnessKey(text); err == nil {
			if again, err := newWitnessKey(vkey(w.name, algorithmCosignature, w.key)); err != nil || again.id != w.id {
				t.Errorf("%q: %v", text, err)
			}
		}
		if l, err := newLogKey(text); err == nil {
			if again, err := newLogKey(vkey(l.name, algorithmEd25519, l.key)); err != nil || again.id != l.id {
				t.Errorf("%q: %v", text, err)
			}
		}
		privateKey(text)
	})
}

func FuzzPolicy(f *testing.F) {
	f.Add([]byte("log " + vkeyOf("x", algorithmEd25519, make([]byte, 32)) + " https://x/\n" + witnessLine(0) + witnessLine(1) + "group g 1 W0 W1\nquorum g\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePolicy(text)
		if err == nil && p.quorum != nil {
			if _, ok := p.quorum.at(nil, true); ok {
				t.Errorf("%q is satisfied by nobody", text)
			}
		}
	})
}
