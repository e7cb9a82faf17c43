package geo

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTable(t *testing.T) {
	if !regexp.MustCompile(`^dbip-20\d\d-\d\d$`).MatchString(Version) {
		t.Errorf("Version = %q: dbip.bin is missing or of another layout; run go generate", Version)
	}
	if len(packed) > 4<<20 {
		t.Errorf("the table has %d bytes, more than 4 MB", len(packed))
	}
	if n := len(table.v4.starts) / 4; n < 100 {
		t.Errorf("%d pages of IPv4 ranges, too few for the whole internet", n)
	}
}

// TestKnown uses addresses of services that have had them for years.
func TestKnown(t *testing.T) {
	for _, c := range []struct {
		addr string
		want Info
	}{
		{"1.1.1.1", Info{13335, "", "Cloudflare"}},
		{"8.8.8.8", Info{15169, "US", "Google"}},
		{"2001:4860:4860::8888", Info{15169, "", "Google"}},
		{"2606:4700:4700::1111", Info{13335, "", "Cloudflare"}},
		{"9.9.9.9", Info{19281, "", "Quad9"}},
		{"193.0.6.139", Info{3333, "NL", "R"}},
		{"::ffff:8.8.8.8", Info{15169, "US", "Google"}},
		{"78.39.35.66", Info{58224, "IR", ""}},
		{"91.108.4.1", Info{62041, "", "Telegram"}},
	} {
		got, ok := Lookup(netip.MustParseAddr(c.addr))
		if !ok || got.ASN != c.want.ASN || c.want.Country != "" && got.Country != c.want.Country ||
			!strings.Contains(strings.ToLower(got.Org), strings.ToLower(c.want.Org)) {
			t.Errorf("Lookup(%s) = %+v, %v; want %+v", c.addr, got, ok, c.want)
		}
	}
}

func TestReserved(t *testing.T) {
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.1.1", "172.16.0.1", "192.0.0.8",
		"192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::ffff:10.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:808:808::1",
		"3fff::1", "fc00::1", "fd00::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
	} {
		if got, ok := Lookup(netip.MustParseAddr(s)); ok {
			t.Errorf("Lookup(%s) = %+v; want nothing", s, got)
		}
	}
	if got, ok := Lookup(netip.Addr{}); ok {
		t.Errorf("Lookup of no address = %+v", got)
	}
}

// TestEveryPage reads each page of the table: no entry leads outside of it,
// and the starts go up.
func TestEveryPage(t *testing.T) {
	pages := len(table.places.ends) / 4
	places := (pages-1)*PageSize/4 + len(table.places.page(pages-1))/4
	for _, f := range []*family{&table.v4, &table.v6} {
		n := len(f.starts) / f.bytes
		for i := range n {
			start := f.start(i)
			if i > 0 {
				if !f.start(i - 1).less(start) {
					t.Fatalf("page %d of %d-byte addresses does not begin after the one before", i, f.bytes)
				}
				if p := f.find(u128{start.hi, start.lo - 1}); start.lo > 0 && p > uint64(places) { // reads the page before to its end
					t.Fatalf("page %d: place %d of %d", i-1, p, places)
				}
			}
			if p := f.find(start); p > uint64(places) {
				t.Fatalf("page %d: place %d of %d", i, p, places)
			}
		}
		if f.find(u128{^uint64(0), ^uint64(0)}) > uint64(places) {
			t.Error("the last address leads outside of the table")
		}
	}
	for i := range places {
		v := table.place(i)
		if int(v&0xff)*2+2 > len(table.countries) {
			t.Fatalf("place %d: country %d of %d", i, v&0xff, len(table.countries)/2)
		}
	}
	last := 0
	// As many as before the last page, each of them found from its page's start.
	for i := range int(be32(table.systemStarts, len(table.systemStarts)-8)) {
		asn, name := table.system(i)
		if asn <= last || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < 32 }) {
			t.Fatalf("system %d: AS%d %q after AS%d", i, asn, name, last)
		}
		last = asn
	}
}

func TestLookupAllocatesOnlyTheName(t *testing.T) {
	a := netip.MustParseAddr("8.8.8.8")
	if n := testing.AllocsPerRun(100, func() { Lookup(a) }); n > 1 {
		t.Errorf("%v allocations a look-up, want at most 1", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, f := range []struct {
		name string
		bits byte
	}{{"ipv4", 4}, {"ipv6", 6}} {
		b.Run(f.name, func(b *testing.B) {
			b.ReportAllocs()
			var x uint64 = 1
			for b.Loop() {
				x = x*6364136223846793005 + 1442695040888963407
				if f.bits == 4 {
					Lookup(netip.AddrFrom4([4]byte{byte(x >> 56), byte(x >> 48), byte(x >> 40), byte(x >> 32)}))
				} else {
					Lookup(netip.AddrFrom16([16]byte{0x20 | byte(x>>63), byte(x >> 56), byte(x >> 48), byte(x >> 40), byte(x >> 32), byte(x >> 30)}))
				}
			}
		})
	}
}
