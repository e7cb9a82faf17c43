package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"govah/evidence"
)

// serving runs a command that serves until the test ends, and returns the
// first two lines that it prints: its URL and its line for policies.
func serving(t *testing.T, args ...string) (url, line string, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	var errOut bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- Main(ctx, args, strings.NewReader(""), w, &errOut)
		w.Close()
	}()
	lines := bufio.NewReader(r)
	url, err := lines.ReadString('\n')
	if err == nil {
		line, err = lines.ReadString('\n')
	}
	if err != nil {
		cancel()
		t.Fatalf("govah %s: %d: %s", strings.Join(args, " "), <-code, errOut.String())
	}
	stopped := false
	stop = func() int {
		if stopped {
			return 0
		}
		stopped = true
		cancel()
		return <-code
	}
	t.Cleanup(func() { stop() })
	return strings.TrimSpace(url), strings.TrimSpace(line), stop
}

// ended runs a command to its end.
func ended(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main(t.Context(), args, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

// TestTlog: two organisations host a log and a witness; a person logs evidence
// in it and anybody verifies the proof; a friend's device vouches for a file
// without a network; Ctrl-C and a second start lose nothing.
func TestTlog(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"} {
		t.Setenv(name, home)
	}
	t.Setenv("LANG", "C.UTF-8")
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(in("m.jsonl"), []byte(tlogMeasurement), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"case.govah", "second.govah"} {
		if code, out, errOut := ended(t, "seal", "-o", in(name), in("m.jsonl")); code != 0 {
			t.Fatalf("%d: %s%s", code, out, errOut)
		}
	}
	// The witness needs the log's key, and the log the witness's address.
	logArgs := []string{"tlog", "serve", in("log"), "--key", in("log.key"), "--listen", "127.0.0.1:0", "-q"}
	_, logLine, stop := serving(t, append(logArgs, "--origin", "log.example/evidence")...)
	if code := stop(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	witness, witnessLine, _ := serving(t, "witness", "serve", in("witness"), "--key", in("witness.key"), "--name", "witness.example",
		"--log", strings.Fields(logLine)[1], "--listen", "127.0.0.1:0", "-q")
	logArgs = append(logArgs, "--witness", witness+"="+strings.Fields(witnessLine)[2])
	url, again, stop := serving(t, logArgs...)
	if again != logLine {
		t.Errorf("the log's key was %s and is %s", logLine, again)
	}
	policy := in("policy.txt")
	if err := os.WriteFile(policy, []byte(logLine+"\n"+witnessLine+"\nquorum NAME\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	begin := time.Now().Add(-time.Second)
	code, out, errOut := ended(t, "tlog", "add", in("case.govah"), "--log", url, "--policy", policy, "--lang", "en")
	if flat := strings.Join(strings.Fields(out), " "); code != 0 || !strings.Contains(flat, "entry 0 of the log log.example/evidence") || !strings.Contains(flat, "no later than") {
		t.Fatalf("%d: %s%s", code, out, errOut)
	}
	data, err := os.ReadFile(in("case.govah"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := evidence.Open(data)
	if err != nil || b.Proofs[evidence.LogProof] == nil {
		t.Fatalf("the proof is not in the file: %v", err)
	}
	code, out, _ = ended(t, "tlog", "add", in("case.govah"), "--log", url, "--policy", policy, "--json", "-o", in("proof"))
	var said struct {
		Index    int64
		NotAfter time.Time `json:"not_after"`
	}
	if err := json.Unmarshal([]byte(out), &said); code != 0 || err != nil || said.Index != 0 || said.NotAfter.Before(begin) || said.NotAfter.After(time.Now()) {
		t.Errorf("added again: %d, %v: %s", code, err, out)
	}
	if proof, err := os.ReadFile(in("proof")); err != nil || !strings.HasPrefix(string(proof), "c2sp.org/tlog-proof@v1\nindex 0\n") {
		t.Errorf("%q, %v", proof, err)
	}
	if code, out, errOut := ended(t, "tlog", "add", in("case.govah"), "--log", url, "--policy", policy, "--index", "0", "-o", in("proof")); code != 0 {
		t.Errorf("from the files alone: %d: %s%s", code, out, errOut)
	}
	code, _, errOut = ended(t, "tlog", "attach", in("second.govah"), in("proof"), "--policy", policy)
	if code != exitUnverified || !strings.Contains(errOut, "does not prove it") {
		t.Errorf("another file's proof: %d: %s", code, errOut)
	}
	if code, out, errOut := ended(t, "tlog", "attach", in("case.govah"), in("proof"), "--policy", policy); code != 0 {
		t.Errorf("%d: %s%s", code, out, errOut)
	}
	if code := stop(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	code, _, errOut = ended(t, "tlog", "add", in("second.govah"), "--log", url, "--policy", policy)
	if code != exitFailed || !strings.Contains(errOut, "hint:") {
		t.Errorf("the log is down: %d: %s", code, errOut)
	}

	// Without a network: a friend's device.
	code, out, errOut = ended(t, "witness", "sign", in("friend"), in("second.govah"), "--key", in("friend.key"), "--name", "friend.example", "--lang", "en")
	rest := regexp.MustCompile(`(?s)\n\n(log .*quorum W\n)$`).FindStringSubmatch(out)
	if code != 0 || rest == nil {
		t.Fatalf("%d: %s%s", code, out, errOut)
	}
	if err := os.WriteFile(in("friend.txt"), []byte(rest[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(in("second.govah")); err != nil {
		t.Fatal(err)
	}
	if b, err = evidence.Open(data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in("proof"), b.Proofs[evidence.LogProof], 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut := ended(t, "tlog", "attach", in("second.govah"), in("proof"), "--policy", in("friend.txt")); code != 0 {
		t.Errorf("%d: %s%s", code, out, errOut)
	}

	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"tlog serve LOG", exitUsage, "needs --key"},
		{"tlog serve NEW --key NOKEY", exitFailed, "--origin log.example.org/evidence"},
		{"tlog serve NEW --key LOG.key", exitFailed, "begin with a new key"},
		{"tlog serve LOG --key LOG.key --origin other", exitFailed, "not of \"other\""},
		{"tlog serve LOG --key LOG.key --witness https://x", exitUsage, "URL=KEY"},
		{"tlog serve LOG --key LOG.key --quorum 1", exitUsage, "--quorum 1 with 0 witnesses"},
		{"witness serve W --key W.key", exitUsage, "nothing to watch"},
		{"witness serve W --key LOG.key --log x", exitFailed, "witness's is wanted"},
		{"tlog add CASE --log nowhere --policy POLICY", exitUsage, "no address of a log"},
		{"tlog add CASE --log http://x/", exitUsage, "--policy FILE"},
		{"tlog add M --log http://x/ --policy POLICY", exitUnverified, "does not verify"},
		{"tlog add CASE --log http://x/ --policy M", exitFailed, "line 1 of the policy"},
		{"witness sign FRIEND PROOF --key FRIEND.key", exitUsage, "-o FILE"},
		{"witness sign FRIEND PROOF --key FRIEND.key -o OUT --log " + strings.Fields(logLine)[1], exitFailed, "does not watch that log"},
	} {
		args := strings.Fields(strings.NewReplacer("LOG", in("log"), "NEW", in("new"), "NOKEY", in("nokey"), "W.key", in("witness.key"), "W ", in("witness")+" ",
			"CASE", in("case.govah"), "POLICY", policy, "M ", in("m.jsonl")+" ", "policy M", "policy "+in("m.jsonl"), "FRIEND", in("friend"), "PROOF", in("proof"), "OUT", in("out")).Replace(c.args))
		code, _, errOut := ended(t, append(args, "-q")...)
		if flat := strings.Join(strings.Fields(errOut), " "); code != c.code || !strings.Contains(flat, c.says) {
			t.Errorf("govah %s: %d: %s; %d and %q were expected", c.args, code, flat, c.code, c.says)
		}
	}
}

const tlogMeasurement = `{"type":"run","schema":1,"run":"r1","tool":"govah","version":"0.1","started":"2026-11-28T04:00:00Z","lab":"iran-2017","targets":1}
{"type":"measurement","schema":1,"run":"r1","id":"m1","target":"https://example.org/","started":"2026-11-28T04:00:01.204113Z","vantage":{"asn":64496,"country":"IR"},"view":{},"observations":[],"complete":true}
{"type":"verdict","schema":1,"run":"r1","measurement":"m1","rules":"2026.1","target":"https://example.org/","reachable":"unknown","interference":"unknown","findings":[],"elapsed_ms":1,"bytes_sent":0,"bytes_received":0}
{"type":"end","schema":1,"run":"r1","ended":"2026-11-28T04:00:09Z","measurements":1,"bytes_sent":0,"bytes_received":0}
`
