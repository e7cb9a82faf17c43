package evidence

import (
	"bytes"
	"testing"
	"time"
)

func handover(t testing.TB) (before, after, signed []byte) {
	t.Helper()
	before = sealed(t)
	out, err := opens(t, before).Redact(Redaction{Classes: DefaultWithheld})
	if err != nil || out.Bundle == nil {
		t.Fatalf("%v %+v", err, out)
	}
	after = bytesOf(t, out.Bundle)
	s, key := signer(t, 3)
	signed, err = SignHandover(s, key, before, after, time.Unix(1_790_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	return before, after, signed
}

// TestHandover: it says what was made of what; it is of no other file, and no
// bit of it can be changed.
func TestHandover(t *testing.T) {
	before, after, signed := handover(t)
	h, err := OpenHandover(signed)
	if err != nil {
		t.Fatal(err)
	}
	b := opens(t, after)
	if !h.Of(after) || h.Of(before) || h.Entry != b.Entry || h.Withheld != b.Withheld() || h.At != "2026-09-21T14:13:20Z" {
		t.Errorf("%+v", h)
	}
	for i := range signed {
		for bit := range 8 {
			bad := bytes.Clone(signed)
			bad[i] ^= 1 << bit
			if _, err := OpenHandover(bad); err == nil {
				t.Errorf("bit %d of byte %d changed: taken", bit, i)
			}
		}
	}
	// A bundle's own note is none, nor the reverse.
	if _, err := OpenHandover(b.note); err == nil {
		t.Error("a bundle's note is taken")
	}
	if _, _, _, _, err := parseNote(signed); err == nil {
		t.Error("it is taken for a bundle's note")
	}
	// Of two bundles.
	s, key := signer(t, 3)
	if _, err := SignHandover(s, key, before, bytesOf(t, quietScene().seal(t)), time.Now()); err == nil {
		t.Error("of two bundles")
	}
}

// FuzzOpenHandover: whatever is taken is in its one form, and signed.
func FuzzOpenHandover(f *testing.F) {
	_, _, signed := handover(f)
	f.Add(signed)
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := OpenHandover(data)
		if err == nil && !bytes.HasPrefix(data, []byte(h.text()+"\n")) {
			t.Fatalf("%q is taken, of which the form is %q", data, h.text())
		}
	})
}
