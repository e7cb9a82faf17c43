package cli

import (
	"testing"
	"time"

	"govah/known"
	"govah/wire"
)

// TestBuiltInCTLogs: the list is read as a user's own would be, which compares
// each id with its key.
func TestBuiltInCTLogs(t *testing.T) {
	l, err := wire.ParseCTLogs(known.CTLogs())
	if err != nil {
		t.Fatal(err)
	}
	if l.Len() < 50 || l.Date.Before(time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%d logs of %s", l.Len(), l.Date)
	}
}
