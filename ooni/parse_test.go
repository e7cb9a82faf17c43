package ooni

import (
	"errors"
	"os"
	"testing"

	"govah/record"
)

// lines reads a file of real measurements, or skips.
func lines(t testing.TB, name string) (out [][]byte) {
	f, err := os.Open("../../shared/data/ooni/" + name)
	if err != nil {
		t.Skipf("real measurements are not here: %v", err)
	}
	defer f.Close()
	r, err := record.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for line, err := range r.Lines() {
		if err == nil {
			out = append(out, append([]byte(nil), line.Data...))
		}
	}
	return out
}

func TestRealMeasurements(t *testing.T) {
	var p Parser
	judged, named := 0, map[string]int{}
	for i, line := range lines(t, "real.jsonl.gz") {
		m, err := p.Parse(line)
		var nj *NotJudged
		switch {
		case errors.As(err, &nj):
			named[nj.Test]++
		case err != nil:
			t.Errorf("line %d: %v", i+1, err)
		default:
			judged++
			if m.Target == "" || len(m.Observations) == 0 || m.Started == "" {
				t.Errorf("line %d: %+v", i+1, m)
			}
		}
	}
	if total := judged + sum(named); total != 75 {
		t.Errorf("%d of 75 lines read", total)
	}
	t.Logf("%d judged, not judged: %v", judged, named)
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

func TestHostile(t *testing.T) {
	var p Parser
	for _, s := range []string{"", "{", "[]", "null", `{"test_name":7}`, `{"test_name":"web_connectivity"}`, `{"test_name":"web_connectivity","test_keys":[],"input":"http://a.example/"}`,
		`{"test_name":"web_connectivity","test_keys":{},"input":"\u0000"}`, `{"test_name":"web_connectivity","input":"http://a.example/","test_keys":{"queries":[null,{"answers":[7]}],"tcp_connect":{},"requests":[[]]}}`} {
		m, err := p.Parse([]byte(s))
		if err == nil && m == nil {
			t.Errorf("%q: neither a measurement nor an error", s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"test_name":"web_connectivity","input":"http://a.example/","test_keys":{"queries":[{"answers":[{"answer_type":"A","ipv4":"1.2.3.4"}]}],"control":{"tcp_connect":{"1.2.3.4:80":{"status":true}}}}}`))
	var p Parser
	f.Fuzz(func(t *testing.T, b []byte) { p.Parse(b) })
}
