package evidence

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestAccount: what is proved depends on what is attached, on what was asked
// for and on what is withheld, and the account says so.
func TestAccount(t *testing.T) {
	b := opens(t, sealed(t))
	s := sealing(t)
	a, err := b.Account(Check{})
	if err != nil {
		t.Fatal(err)
	}
	if a.Key != s.Key || a.Expected || a.Previous != hex.EncodeToString(s.Previous[:]) || a.Checkpoint != Unchecked || a.LogProof != Absent || a.NotBefore != nil {
		t.Errorf("%+v", a)
	}
	if want := []Unproved{NotTruth, NotPerson, NotEarliest, NotLatest, NotClock, NotAll}; !slices.Equal(a.NotProved, want) {
		t.Errorf("not proved: %v", a.NotProved)
	}
	if a.Stated.Lab != "iran-2017" || a.Stated.Started != "2026-11-28T04:00:00Z" || len(a.Custody) != 1 || a.Custody[0].By != "A" {
		t.Errorf("%+v %+v", a.Stated, a.Custody)
	}
	for _, f := range a.Files {
		if !f.Whole {
			t.Errorf("%s is whole", f.Name)
		}
	}
	// Redacted: the same key and entry, and what is gone is counted.
	r, err := b.Withhold(Client, Time).Account(Check{Key: s.Key})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Expected || r.Entry != a.Entry || r.Stated.Started != "withheld" || r.Custody[0].By != "withheld" || !slices.Contains(r.NotProved, NotWithheld) {
		t.Errorf("%+v %+v", r, r.Stated)
	}
	gone := map[string]bool{}
	for i, c := range r.Classes {
		if c.Leaves != a.Classes[i].Leaves {
			t.Errorf("%s: %d leaves of %d", c.Class, c.Leaves, a.Classes[i].Leaves)
		}
		if c.Withheld != 0 {
			gone[c.Class] = c.Withheld == c.Leaves
		}
	}
	if len(gone) != 3 || !gone["client"] || !gone["time"] || !gone["rendering"] {
		t.Errorf("%v", r.Classes)
	}
	whole := map[string]bool{}
	for _, f := range r.Files {
		whole[f.Name] = f.Whole
	}
	for name, want := range map[string]bool{ReadmeName: true, CheckpointName: true, ReportName: false, PacketsName: false, MeasurementsName: false, AboutName: false} {
		if whole[name] != want {
			t.Errorf("%s: whole %v", name, whole[name])
		}
	}
	// Another key; a log that is asked for and is not there; one that lies.
	_, other := signer(t, 2)
	refuse := func([]byte, Hash) (Moment, error) { return Moment{}, errors.New("no quorum") }
	with, err := b.Attach(LogProof, []byte("proof"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		b    *Bundle
		c    Check
		says string
	}{
		{b, Check{Key: other}, "another key"},
		{b, Check{LogProof: refuse}, "no proof"},
		{with, Check{LogProof: refuse}, "no quorum"},
		{b, Check{Checkpoint: func([]byte) (Moment, error) { return Moment{}, errors.New("forged") }}, "forged"},
	} {
		if a, err := c.b.Account(c.c); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, %v; want %q", a, err, c.says)
		}
	}
	// The interval.
	a, err = with.Account(Check{
		LogProof: func(p []byte, e Hash) (Moment, error) {
			if string(p) != "proof" || e != b.Entry {
				t.Errorf("%s %x", p, e)
			}
			return Moment{Time: "2026-11-28T05:00:00Z", Log: "l"}, nil
		},
		Checkpoint: func(text []byte) (Moment, error) {
			if string(text) != string(s.Checkpoint) {
				t.Errorf("%s", text)
			}
			return Moment{Time: "2026-11-28T03:00:00Z", Log: "l"}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if a.Checkpoint != Verified || a.LogProof != Verified || a.NotBefore.Time != "2026-11-28T03:00:00Z" || a.NotAfter.Time != "2026-11-28T05:00:00Z" || slices.Contains(a.NotProved, NotEarliest) || slices.Contains(a.NotProved, NotLatest) {
		t.Errorf("%+v", a)
	}
	if f := Fingerprint(s.Key); len(f) != 39 || f == Fingerprint(other) {
		t.Errorf("%q", f)
	}
}
