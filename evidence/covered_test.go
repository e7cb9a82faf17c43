package evidence

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"govah/evidence/receipt"
	"govah/measure"
	"govah/record"
)

const helperURL = "https://192.0.2.9:8443/"

// looked is a look of a helper at which it saw a DNS answer: the exchange and
// the observation, with a receipt.
func looked(t *testing.T, key *receipt.Key, exchange, id, answer string) []measure.Observation {
	t.Helper()
	nonce := "0123456789abcdef" + exchange
	request, err := json.Marshal(measure.HelperRequest{Schema: 1, Nonce: nonce, URL: "https://example.org/"})
	if err != nil {
		t.Fatal(err)
	}
	saw := measure.Observation{ID: "h1", Step: measure.StepDNS, Role: measure.RoleHelper, TookUS: 5,
		DNS: &measure.DNS{Name: "example.org", Type: "TXT", Replies: []measure.DNSReply{{Rcode: "NOERROR", Answers: []measure.DNSAnswer{{Type: "TXT", Value: answer}}}}}}
	text, err := key.Sign(time.Unix(1_790_000_000, 0), 64496, request, nonce, []measure.Observation{saw})
	if err != nil {
		t.Fatal(err)
	}
	own := saw
	own.ID, own.Helper = id, helperURL
	return []measure.Observation{
		{ID: exchange, Step: measure.StepHelper, Helper: helperURL, Receipt: &measure.Receipt{Note: text, Key: key.Public(), Request: string(request), Covers: []measure.Covered{{ID: id, As: "h1"}}}},
		own,
	}
}

// observed is what a bundle shows of its one measurement.
func observed(t *testing.T, b *Bundle) []measure.Observation {
	t.Helper()
	e, err := record.Decode(bytes.TrimSpace(b.File(MeasurementsName).Data))
	if err != nil {
		t.Fatal(err)
	}
	return e.Measurement.Observations
}

// TestRedactReceipts: a receipt does not confirm a guess at what was withheld
// of the observation that it is about, whether the class went or one leaf; and
// the receipt of an observation of which nothing was withheld stays good.
func TestRedactReceipts(t *testing.T) {
	key, _, err := receipt.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	const answer, clean = "seen by Cafe Naderi", "seen by nobody"
	s := sealing(t)
	s.Packets, s.Report = nil, nil
	var lines bytes.Buffer
	if err := line(&lines, measure.Measurement{Type: "measurement", Schema: 1, Run: "r", ID: "m",
		Observations: append(looked(t, key, "o1", "o2", answer), looked(t, key, "o3", "o4", clean)...)}); err != nil {
		t.Fatal(err)
	}
	s.Measurements = lines.Bytes()
	data, err := Seal(s)
	if err != nil {
		t.Fatal(err)
	}
	b := opens(t, data)
	// What whoever gets the file can do: put a guess where the answer was.
	confirms := func(list []measure.Observation, at int, guess string) bool {
		list[at].DNS.Replies[0].Answers[0].Value = guess
		for _, r := range receipt.Check(list, 100) {
			for _, id := range r.Covers {
				if id == list[at].ID {
					return true
				}
			}
		}
		return false
	}
	if !confirms(observed(t, b), 1, answer) || confirms(observed(t, b), 1, clean) {
		t.Fatal("the receipt of the bundle as it is confirms nothing")
	}
	named, err := TextIdentifier("Cafe Naderi", "test")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		r     Redaction
		stays bool // the other receipt
	}{
		{"the class", Redaction{Classes: []Class{Foreign}}, false},
		{"one leaf", Redaction{Classes: []Class{Location}, Also: []Identifier{named}}, true},
		{"nothing of it", Redaction{Classes: []Class{Client, Location, NetworkName}}, true},
	} {
		out, redacted := released(t, b, c.r)
		list := observed(t, redacted)
		gone := list[1].DNS.Replies[0].Answers[0].Value == withheldText
		if gone != (c.name != "nothing of it") {
			t.Errorf("%s: the answer is withheld: %v", c.name, gone)
		}
		if confirms(list, 1, answer) == gone {
			t.Errorf("%s: a guess at what was withheld is confirmed: %v", c.name, gone)
		}
		if got := confirms(observed(t, redacted), 3, clean); got != c.stays {
			t.Errorf("%s: the other receipt is good: %v", c.name, got)
		}
		said := false
		for _, w := range out.Widened {
			said = said || strings.Contains(w.Encoding, "receipt")
		}
		if said != gone {
			t.Errorf("%s: said: %v", c.name, said)
		}
	}
}
