package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"govah/measure"
	"govah/record"
)

func runMain(t *testing.T, in string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main(context.Background(), args, strings.NewReader(in), &o, &e)
	return code, o.String(), e.String()
}

const ooniLine = `{"probe_cc":"IR","probe_asn":"AS64500","input":"http://example.org/","measurement_start_time":"2024-01-02 03:04:05","report_id":"r1","software_name":"ooniprobe","software_version":"3.1.0","test_keys":{` +
	`"queries":[{"answers":[{"answer_type":"A","ipv4":"10.10.34.36"}],"engine":"getaddrinfo","failure":null,"hostname":"example.org","query_type":"ANY"}],` +
	`"control":{"dns":{"failure":null,"addrs":["93.184.216.34"]},"tcp_connect":{"93.184.216.34:80":{"status":true,"failure":null}},"http_request":{"failure":null,"status_code":200,"headers":{},"title":"x","body_length":3}}},"test_name":"web_connectivity"}`

func TestJudgeCountsEveryLine(t *testing.T) {
	in := strings.Join([]string{
		ooniLine,
		`{"test_keys":{},"test_name":"telegram"}`,
		`{"test_keys":{},"test_name":"telegram"}`,
		`{"type":"verdict","target":"old"}`,
		`{"type":"from-the-future"}`,
		`{"test_keys":{},"test_name":"web_connectivity","input":7}`,
		`nonsense` + "\x1b[31m",
		`{"type":"run","lab":"","run":"r2"}`,
		`{"type":"measurement","id":"m1","target":"https://example.net/","observations":[]}`,
	}, "\n") + "\n"
	code, out, errOut := runMain(t, in, "judge", "--json", "--lang", "en", "-")
	if code != exitFailed {
		t.Errorf("exit %d although lines are broken", code)
	}
	var targets []string
	for line := range strings.Lines(out) {
		var v measure.Verdict
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		targets = append(targets, v.Target+" "+string(v.Interference))
	}
	if got := strings.Join(targets, ", "); got != "http://example.org/ confirmed, https://example.net/ unknown" {
		t.Errorf("judged %s", got)
	}
	for _, want := range []string{"2 measurements", "3 lines", "telegram 2", "from-the-future 1", "2 broken", "line 6 ", "line 7 "} {
		if !strings.Contains(errOut, want) {
			t.Errorf("%q is not in:\n%s", want, errOut)
		}
	}
	if strings.Contains(errOut, "\x1b") {
		t.Error("a control character came through")
	}
}

func TestJudgeExitCodes(t *testing.T) {
	if code, _, _ := runMain(t, ooniLine, "judge", "-q", "-"); code != exitDone {
		t.Errorf("without --exit-code: %d", code)
	}
	if code, _, _ := runMain(t, ooniLine, "judge", "-q", "--exit-code", "-"); code != exitConfirmed {
		t.Errorf("with --exit-code: %d", code)
	}
	if code, _, e := runMain(t, "", "judge", filepath.Join(t.TempDir(), "none.jsonl")); code != exitFailed || !strings.Contains(e, "hint") {
		t.Errorf("a file that is not there: %d, %s", code, e)
	}
}

// What judge writes can be judged again and gives the same verdicts.
func TestJudgeOutputCanBeJudgedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "again.jsonl.gz")
	_, first, _ := runMain(t, ooniLine+"\n"+ooniLine, "judge", "-q", "--json", "-o", path, "-")
	_, second, errOut := runMain(t, "", "judge", "-q", "--json", path)
	if first == "" || first != second {
		t.Errorf("first\n%s\nagain\n%s\n%s", first, second, errOut)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := record.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	kinds := ""
	for e, err := range r.All() {
		switch {
		case err != nil:
			t.Fatal(err)
		case e.Run != nil:
			kinds += "r"
		case e.Measurement != nil:
			kinds += "m"
		case e.Verdict != nil:
			kinds += "v"
		case e.End != nil:
			if kinds += "e"; e.End.Measurements != 2 {
				t.Errorf("end counts %d", e.End.Measurements)
			}
		}
	}
	if kinds != "rmvmve" {
		t.Errorf("lines %s", kinds)
	}
}
