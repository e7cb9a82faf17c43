package cli

import (
	"os"
	"path/filepath"
	"testing"

	"govah/evidence/receipt"
	"govah/measure"
	"govah/record"
)

// All that a helper is said to have seen in a run is what it signed.
func TestReceiptsOfARun(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "m.jsonl")
	if code, out, e := runMain(t, "", "check", "--lab", "clean", "--set", "sites", "-q", "-o", path, "https://plain.example/", "https://video.example/"); code != exitDone {
		t.Fatalf("exit %d, %s %s", code, out, e)
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
	covered := 0
	for e, err := range r.All() {
		if err != nil {
			t.Fatal(err)
		}
		if e.Measurement == nil {
			continue
		}
		seen := map[string]bool{}
		for _, res := range receipt.Check(e.Measurement.Observations, 100) {
			if res.Err != nil || len(res.Missing) > 0 || res.ASN == 0 {
				t.Errorf("%s: %+v", e.Measurement.Target, res)
			}
			for _, id := range res.Covers {
				seen[id] = true
				covered++
			}
		}
		for _, o := range e.Measurement.Observations {
			if o.Role == measure.RoleHelper && o.Step != measure.StepHelper && !seen[o.ID] {
				t.Errorf("%s: %s of %s is in no receipt", e.Measurement.Target, o.ID, o.Helper)
			}
		}
	}
	if covered < 3 {
		t.Errorf("only %d observations are signed", covered)
	}
}
