package main

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/oschwald/maxminddb-golang/v2"

	"govah/internal/geo"
)

// sourceForTest is the pinned source if the module is at hand or can be had.
func sourceForTest(t *testing.T) string {
	t.Helper()
	path, err := source()
	if err != nil {
		t.Skipf("the source of the table is not at hand: %v", err)
	}
	return path
}

// TestTableIsOfTheSource packs the source again: the committed table is the
// same to the byte.
func TestTableIsOfTheSource(t *testing.T) {
	path := sourceForTest(t)
	out := filepath.Join(t.TempDir(), "dbip.bin")
	if err := run(path, out); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile("../dbip.bin")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(committed) {
		t.Error("dbip.bin is not what gen makes of its source; run go generate ./internal/geo")
	}
}

// TestAgrees asks both for random addresses, for the first and last of random
// networks, and for the addresses next to those.
func TestAgrees(t *testing.T) {
	db, err := maxminddb.Open(sourceForTest(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rnd := rand.New(rand.NewPCG(1, 2))
	found := 0
	compare := func(a netip.Addr) netip.Prefix {
		r := db.Lookup(a)
		var rec record
		if err := r.Decode(&rec); err != nil {
			t.Fatal(err)
		}
		got, ok := geo.Lookup(a)
		if !ok {
			// Reserved, or unknown to the database as well.
			if rec.ASN != 0 && rec.Country.ISOCode != "" && a.IsGlobalUnicast() && !a.IsPrivate() && !special(a) {
				t.Errorf("%v: not found; the database has %+v", a, rec)
			}
			return r.Prefix()
		}
		found++
		want := geo.Info{ASN: int(rec.ASN), Country: rec.Country.ISOCode, Org: clean(rec.Org)}
		if want.Country == "ZZ" {
			want.Country = ""
		}
		if want.ASN == 0 {
			want.Org = ""
		}
		if got != want {
			t.Errorf("%v: %+v; the database has %+v", a, got, want)
		}
		return r.Prefix()
	}
	list := make([]netip.Addr, 0, 200_000)
	for range cap(list) {
		var a netip.Addr
		if rnd.IntN(2) == 0 {
			x := rnd.Uint32()
			a = netip.AddrFrom4([4]byte{byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)})
		} else {
			var b [16]byte
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
			b[0] = 0x20 | b[0]&0xf
			if rnd.IntN(4) > 0 { // where most networks are
				first := []byte{0x20, 0x24, 0x26, 0x28, 0x2a}[rnd.IntN(5)]
				b[0], b[1] = first, b[1]&0x1f
			}
			if rnd.IntN(2) == 0 {
				clear(b[4+rnd.IntN(12):])
			}
			a = netip.AddrFrom16(b)
		}
		list = append(list, a)
	}
	slices.SortFunc(list, netip.Addr.Compare) // neighbours share a page
	for _, a := range list {
		if t.Failed() {
			return
		}
		p := compare(a)
		if !p.IsValid() || p.Bits() == 0 {
			continue
		}
		compare(p.Masked().Addr())
		if before := p.Masked().Addr().Prev(); before.IsValid() {
			compare(before)
		}
		last := p.Masked().Addr().AsSlice()
		bits := p.Bits()
		for i := bits; i < len(last)*8; i++ {
			last[i/8] |= 1 << (7 - i%8)
		}
		if a, ok := netip.AddrFromSlice(last); ok {
			compare(a)
			if next := a.Next(); next.IsValid() {
				compare(next)
			}
		}
	}
	if found < 300_000 {
		t.Errorf("only %d addresses were found", found)
	}
}

// special are blocks in which the database has entries and package geo, on
// purpose, none.
func special(a netip.Addr) bool {
	for _, s := range []string{"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", "::/8", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"} {
		if netip.MustParsePrefix(s).Contains(a) {
			return true
		}
	}
	return false
}
