package serve

import (
	"bytes"
	"testing"

	"govah/evidence/tlog"
)

func FuzzCosignature(f *testing.F) {
	f.Add([]byte("— w AAAAAAAA\n"))
	w, err := tlog.NewCosignatureVerifier(witnessVKey(f, "w"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, lines []byte) {
		if _, err := cosignatureOf([]byte("x\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n"), lines, w); err == nil {
			t.Errorf("%q is a cosignature", lines)
		}
	})
}

func FuzzWitnessState(f *testing.F) {
	f.Add(witnessStateText(grown("a", 3).tree("example.org/log", 3), 1_700_000_000))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, seconds, err := parseWitnessState(string(text)); err == nil && s.Extra == nil && !bytes.Equal(witnessStateText(s, seconds), text) {
			t.Errorf("%q is read as %q", text, witnessStateText(s, seconds))
		}
	})
}

func FuzzAddCheckpoint(f *testing.F) {
	f.Add([]byte("old 5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\nx\n6\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— x AAAAAAAA\n"))
	c, err := tlog.NewCosigner(mustKey(f, "w", true))
	if err != nil {
		f.Fatal(err)
	}
	w, err := openWitness(newDisk(), c, []string{vkeyOfKey(f, mustKey(f, "x", false))}, true)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := parseAddRequest(data); err == nil && !bytes.Equal(r.text(), data) {
			t.Errorf("%q is read as %q", data, r.text())
		}
		if _, err := w.AddCheckpoint(data); err == nil {
			t.Errorf("%q is cosigned", data)
		}
	})
}

func FuzzTilePath(f *testing.F) {
	for _, s := range []string{"tile/0/x001/x234/067", "tile/entries/000.p/255", "tile/63/999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := parseTilePath(s); err == nil && p.path() != s {
			t.Errorf("%q is read as %q", s, p.path())
		}
	})
}

func FuzzJournal(f *testing.F) {
	f.Add(append(journalHead("x+00000000+AA", 3), journalRecord(3, []tlog.Entry{entryOf(1), entryOf(2)})...))
	f.Fuzz(func(t *testing.T, data []byte) {
		vkey, base, entries, good, err := parseJournal(data)
		if err != nil {
			return
		}
		if good > len(data) || len(entries)*tlog.EntrySize > good || !bytes.HasPrefix(data, journalHead(vkey, base)) {
			t.Errorf("%d entries in %d of %d bytes", len(entries), good, len(data))
		}
	})
}
