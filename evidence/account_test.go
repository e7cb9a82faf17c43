package evidence

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"govah/evidence/receipt"
	"govah/measure"
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
	} {
		if a, err := c.b.Account(c.c); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, %v; want %q", a, err, c.says)
		}
	}
	// A checkpoint that is not believed bounds nothing, and takes nothing from
	// the log's proof: anybody on the way to a log could have sent it.
	a, err = with.Account(Check{
		LogProof:   func([]byte, Hash) (Moment, error) { return Moment{Time: "2026-11-28T05:00:00Z", Log: "l"}, nil },
		Checkpoint: func([]byte) (Moment, error) { return Moment{Log: "forged"}, errors.New("forged") },
	})
	if err != nil || a.Checkpoint != Refused || a.NotBefore != nil || !slices.Contains(a.NotProved, NotEarliest) || a.LogProof != Verified || a.NotAfter == nil {
		t.Errorf("%+v, %v", a, err)
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
	// One that cannot be: made after it was there, or logged before it was made.
	at := func(time, log string, size int64, index *int64) Moment {
		return Moment{Time: time, Log: log, Size: size, Index: index}
	}
	seven, eight := int64(7), int64(8)
	const three, five = "2026-11-28T03:00:00Z", "2026-11-28T05:00:00Z"
	for name, c := range map[string]struct {
		before, after Moment
		contradicted  bool
	}{
		"in order":                  {at(three, "l", 8, nil), at(five, "l", 20, &eight), false},
		"in the same second":        {at(five, "l", 8, nil), at(five, "l", 20, &eight), false},
		"times the wrong way":       {at(five, "m", 8, nil), at(three, "l", 20, &eight), true},
		"in the tree before it":     {at(three, "l", 8, nil), at(five, "l", 20, &seven), true},
		"the same without times":    {at("", "l", 8, nil), at("", "l", 20, &seven), true},
		"a lower index elsewhere":   {at(three, "m", 8, nil), at(five, "l", 20, &seven), false},
		"a time on one side only":   {at("", "m", 8, nil), at(three, "l", 20, &seven), false},
		"and on the other one only": {at(five, "m", 8, nil), at("", "l", 20, &seven), false},
	} {
		a, err := with.Account(Check{
			LogProof:   func([]byte, Hash) (Moment, error) { return c.after, nil },
			Checkpoint: func([]byte) (Moment, error) { return c.before, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		if c.contradicted {
			if a.Checkpoint != Contradicted || a.LogProof != Contradicted || a.NotBefore != nil || a.NotAfter != nil ||
				!slices.Contains(a.NotProved, NotWitnesses) || !slices.Contains(a.NotProved, NotEarliest) || !slices.Contains(a.NotProved, NotLatest) {
				t.Errorf("%s: %+v", name, a)
			}
		} else if a.Checkpoint != Verified || a.LogProof != Verified || a.NotBefore == nil || a.NotAfter == nil || slices.Contains(a.NotProved, NotWitnesses) {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if f := Fingerprint(s.Key); len(f) != 39 || f == Fingerprint(other) {
		t.Errorf("%q", f)
	}
}

// TestAccountOfReceipts: what a helper signed is told from what is only said
// of it, and a receipt that was taken out in part from one that holds.
func TestAccountOfReceipts(t *testing.T) {
	key, _, err := receipt.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	const helper = "https://192.0.2.9:8443/"
	request := `{"schema":1,"nonce":"0123456789abcdef0123","url":"https://example.org/"}`
	saw := measure.Observation{ID: "h1", Step: measure.StepTCP, Role: measure.RoleHelper, Remote: "198.51.100.7:443", TookUS: 5}
	text, err := key.Sign(time.Unix(1_790_000_000, 0), 64496, []byte(request), "0123456789abcdef0123", []measure.Observation{saw})
	if err != nil {
		t.Fatal(err)
	}
	file := func(change func(*measure.Measurement), spell func(string) string) []byte {
		own := saw
		own.ID, own.Helper = "o2", helper
		m := measure.Measurement{Type: "measurement", Schema: 1, Run: "r", ID: "m", Observations: []measure.Observation{
			{ID: "o1", Step: measure.StepHelper, Helper: helper, Receipt: &measure.Receipt{Note: text, Key: key.Public(), Request: request, Covers: []measure.Covered{{ID: "o2", As: "h1"}}}},
			own,
		}}
		change(&m)
		var b bytes.Buffer
		if err := line(&b, m); err != nil {
			t.Fatal(err)
		}
		if spell != nil {
			return []byte(spell(b.String()))
		}
		return b.Bytes()
	}
	forged := saw
	forged.ID, forged.Helper, forged.Failure = "o2", helper, measure.ConnectionReset
	invented := func(m *measure.Measurement) { m.Observations = m.Observations[1:] }
	put := func(old, new string) func(string) string {
		return func(text string) string {
			if !strings.Contains(text, old) {
				t.Fatalf("no %s in %s", old, text)
			}
			return strings.ReplaceAll(text, old, new)
		}
	}
	for _, c := range []struct {
		name                       string
		change                     func(*measure.Measurement)
		away                       []Class
		receipts, refused, without int
		spell                      func(string) string
		unread                     int
	}{
		{"signed", func(*measure.Measurement) {}, nil, 1, 0, 0, nil, 0},
		{"changed", func(m *measure.Measurement) { m.Observations[1].TookUS++ }, nil, 1, 1, 1, nil, 0},
		{"invented", func(m *measure.Measurement) { m.Observations[0].Receipt = nil }, nil, 0, 0, 1, nil, 0},
		{"another's key", func(m *measure.Measurement) { m.Observations[0].Receipt.Key = strings.Repeat("ab", 32) }, nil, 0, 1, 1, nil, 0},
		{"the address withheld", func(*measure.Measurement) {}, []Class{Target}, 0, 0, 1, nil, 0},
		{"the client withheld", func(*measure.Measurement) {}, []Class{Client}, 1, 0, 0, nil, 0},
		{"all withheld", func(*measure.Measurement) {}, Classes()[1:], 0, 0, 1, nil, 0},
		{"another of its id before it", func(m *measure.Measurement) { m.Observations = slices.Insert(m.Observations, 1, forged) }, nil, 1, 1, 2, nil, 0},
		{"another of its id after it", func(m *measure.Measurement) { m.Observations = append(m.Observations, forged) }, nil, 1, 1, 2, nil, 0},
		{"a space before the role", invented, nil, 0, 0, 1, put(`"role":"helper"`, `"role": "helper"`), 0},
		{"a capital", invented, nil, 0, 0, 1, put(`"role":"helper"`, `"Role":"helper"`), 0},
		{"an escape", invented, nil, 0, 0, 1, put(`"role":"helper"`, `"role":"\u0068elper"`), 0},
		{"of another type", invented, nil, 0, 0, 0, put(`"took_us":5`, `"took_us":"5"`), 1},
		{"more than are checked", func(m *measure.Measurement) {
			bad := measure.Observation{ID: "o1", Step: measure.StepHelper, Receipt: &measure.Receipt{Note: "n", Key: "k", Request: "r"}}
			m.Observations = append(slices.Repeat([]measure.Observation{bad}, maxReceipts), m.Observations...)
		}, nil, 0, maxReceipts, 1, nil, 0},
	} {
		s := sealing(t)
		s.Measurements = file(c.change, c.spell)
		data, err := Seal(s)
		if err != nil {
			t.Fatal(err)
		}
		a, err := opens(t, data).Withhold(c.away...).Account(Check{})
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Receipts) != c.receipts || a.Refused != c.refused || a.Unsigned != c.without || a.Unread != c.unread {
			t.Errorf("%s: %+v, %d refused, %d unsigned, %d unread", c.name, a.Receipts, a.Refused, a.Unsigned, a.Unread)
		}
		if slices.Contains(a.NotProved, NotReceipts) != (c.refused > 0) || slices.Contains(a.NotProved, NotHelpers) != (c.without > 0) || slices.Contains(a.NotProved, NotUnread) != (c.unread > 0) {
			t.Errorf("%s: not proved: %v", c.name, a.NotProved)
		}
		if c.name == "signed" {
			if r := a.Receipts[0]; r.Key != key.Public() || r.Pinned || r.Receipts != 1 || r.Covers != 1 || r.From != "2026-09-21T14:13:20Z" || r.To != r.From {
				t.Errorf("%+v", r)
			}
		}
	}
}
