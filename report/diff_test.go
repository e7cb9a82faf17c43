package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"govah/internal/i18n"
	"govah/measure"
)

func verdicts(list ...*measure.Verdict) iter.Seq2[*measure.Verdict, error] {
	return func(yield func(*measure.Verdict, error) bool) {
		for _, v := range list {
			if !yield(v, nil) {
				return
			}
		}
	}
}

func verdict(run, rules, target string, i measure.Interference, r measure.Reachable, methods ...measure.Method) *measure.Verdict {
	v := &measure.Verdict{Run: run, Rules: rules, Target: target, Interference: i, Reachable: r}
	for _, m := range methods {
		v.Findings = append(v.Findings, measure.Finding{Method: m, Interference: i})
	}
	return v
}

func sampleChanges(t *testing.T) *Changes {
	t.Helper()
	const none, confirmed, suspected = measure.InterferenceNone, measure.InterferenceConfirmed, measure.InterferenceSuspected
	before := []*measure.Verdict{
		verdict("r1", "2026.1", "https://a.example/", none, measure.ReachableYes),
		verdict("r1", "2026.1", "https://b.example/", confirmed, measure.ReachableNo, measure.TLSReset),
		verdict("r1", "2026.1", "https://c.example/", suspected, measure.ReachableNo, measure.IPDrop),
		verdict("r1", "2026.1", "https://gone.example/", none, measure.ReachableNo, measure.SiteDown),
		// A resumed run: the last verdict counts.
		verdict("r1", "2026.1", "https://d.example/", measure.InterferenceUnknown, measure.ReachableUnknown),
		verdict("r1", "2026.1", "https://d.example/", none, measure.ReachableYes),
		verdict("r1", "2026.1", "https://same.example/", confirmed, measure.ReachableNo, measure.TLSReset, measure.DNSInjection),
	}
	after := []*measure.Verdict{
		verdict("r2", "2026.2", "https://a.example/", confirmed, measure.ReachableNo, measure.DNSInjection, measure.TLSReset),
		verdict("r2", "2026.2", "https://b.example/", none, measure.ReachableYes),
		verdict("r2", "2026.1", "https://c.example/", suspected, measure.ReachablePartly, measure.IPDrop),
		verdict("r2", "2026.1", "https://d.example/", none, measure.ReachableYes),
		// The order of findings is no change.
		verdict("r2", "2026.1", "https://same.example/", confirmed, measure.ReachableNo, measure.DNSInjection, measure.TLSReset),
		verdict("r2", "2026.1", "https://new.example/", none, measure.ReachableYes),
	}
	c, err := Diff(verdicts(before...), verdicts(after...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDiff(t *testing.T) {
	got := sampleChanges(t)
	want := &Changes{Type: "diff", Schema: 1, OldRun: "r1", NewRun: "r2", OldRules: []string{"2026.1"}, NewRules: []string{"2026.1", "2026.2"}, RulesDiffer: true, Unchanged: 2,
		Changed: []Change{
			{Target: "https://a.example/", RulesDiffer: true, Appeared: []measure.Method{measure.DNSInjection, measure.TLSReset},
				Old: Status{"https://a.example/", "none", "yes", nil, "2026.1"}, New: Status{"https://a.example/", "confirmed", "no", []measure.Method{measure.DNSInjection, measure.TLSReset}, "2026.2"}},
			{Target: "https://b.example/", RulesDiffer: true, Disappeared: []measure.Method{measure.TLSReset},
				Old: Status{"https://b.example/", "confirmed", "no", []measure.Method{measure.TLSReset}, "2026.1"}, New: Status{"https://b.example/", "none", "yes", nil, "2026.2"}},
			{Target: "https://c.example/",
				Old: Status{"https://c.example/", "suspected", "no", []measure.Method{measure.IPDrop}, "2026.1"}, New: Status{"https://c.example/", "suspected", "partly", []measure.Method{measure.IPDrop}, "2026.1"}},
		},
		New:  []Status{{"https://new.example/", "none", "yes", nil, "2026.1"}},
		Gone: []Status{{"https://gone.example/", "none", "no", []measure.Method{measure.SiteDown}, "2026.1"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, l := range i18n.Langs {
		var b bytes.Buffer
		if err := got.Text(&b, Options{Lang: l}); err != nil {
			t.Fatal(err)
		}
		golden(t, "diff."+string(l)+".txt", b.Bytes())
		checkLines(t, b.String(), 80)
	}
}

func TestDiffOfTheSameRun(t *testing.T) {
	v := verdict("r1", "2026.1", "https://a.example/", measure.InterferenceConfirmed, measure.ReachableNo, measure.TLSReset)
	c, err := Diff(verdicts(v), verdicts(v))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"type":"diff","schema":1,"old_run":"r1","new_run":"r1","old_rules":["2026.1"],"new_rules":["2026.1"],"rules_differ":false,"changed":[],"new":[],"gone":[],"unchanged":1}`
	if string(data) != want {
		t.Errorf("got  %s\nwant %s", data, want)
	}
	var b bytes.Buffer
	if err := c.Text(&b, Options{}); err != nil || !strings.Contains(b.String(), "Nothing changed.\n1 target unchanged.") {
		t.Errorf("got %q, %v", b.String(), err)
	}
}

func TestDiffGivesTheReadersError(t *testing.T) {
	broken := func(yield func(*measure.Verdict, error) bool) { yield(nil, errors.New("line 3 is damaged")) }
	if _, err := Diff(verdicts(), broken); err == nil {
		t.Error("a damaged new file went unnoticed")
	}
	if _, err := Diff(broken, verdicts()); err == nil {
		t.Error("a damaged old file went unnoticed")
	}
}
