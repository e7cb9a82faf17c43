package known

import (
	_ "embed"
	"fmt"
	"net/netip"
	"strconv"
	"sync"

	"govah/measure"
)

//go:embed addresses.csv
var addressesCSV []byte

// special are the blocks of RFC 6890's registries (and RFC 4291's limit of
// global unicast) that no public name has an honest address in. The first
// that contains an address names it.
var special = []struct {
	prefix netip.Prefix
	kind   string
}{
	{netip.MustParsePrefix("0.0.0.0/32"), "unspecified"},
	{netip.MustParsePrefix("0.0.0.0/8"), "this-network"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "protocol"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("100::/64"), "discard"},
	{netip.MustParsePrefix("2001:2::/48"), "benchmarking"},
	{netip.MustParsePrefix("2001:10::/28"), "orchid"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
	{netip.MustParsePrefix("3fff::/20"), "documentation"},
	{netip.MustParsePrefix("fc00::/7"), "unique-local"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

var (
	globalUnicast = netip.MustParsePrefix("2000::/3")
	translated    = []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48")}
)

// Bogon says whether addr cannot be the address of a public server (RFC 6890,
// RFC 4291), and which kind of block it lies in: private, loopback,
// unspecified, documentation, reserved, …, or unallocated. IPv4-mapped
// addresses are unmapped first; the NAT64 prefixes of RFC 6052 and RFC 8215
// are no bogons, whatever they carry.
func Bogon(addr netip.Addr) (kind string, ok bool) {
	if !addr.IsValid() {
		return "", false
	}
	addr = addr.Unmap().WithZone("")
	for _, s := range special {
		if s.prefix.Contains(addr) {
			return s.kind, true
		}
	}
	if addr.Is6() && !globalUnicast.Contains(addr) {
		for _, p := range translated {
			if p.Contains(addr) {
				return "", false
			}
		}
		return "unallocated", true
	}
	return "", false
}

// Address is one row about an address in DNS answers.
type Address struct {
	ID         string
	Kind       string // forged-address, filter-address or safesearch
	Addr       netip.Addr
	TTLS       int64 // of the record where the row insists on one, else -1
	Product    string
	Vendor     string
	Country    string
	Scope      measure.Scope
	Confidence int // 1 to 10
	Source     string
}

func (a *Address) match() measure.Match {
	return measure.Match{Row: a.ID, Kind: a.Kind, Where: "dns", Product: a.Product, Vendor: a.Vendor, Country: a.Country, Scope: a.Scope}
}

var addressTable = sync.OnceValue(func() map[netip.Addr]*Address {
	m := map[netip.Addr]*Address{}
	for _, r := range readCSV("addresses.csv", addressesCSV, 13) {
		a := &Address{ID: r[0], Kind: r[1], Addr: netip.MustParseAddr(r[4]), TTLS: -1, Product: r[6], Vendor: r[7], Country: r[8], Scope: measure.Scope(r[9]), Source: r[11]}
		var err error
		if a.Confidence, err = strconv.Atoi(r[10]); err != nil || a.Confidence < 1 || a.Confidence > 10 {
			panic(fmt.Sprintf("known: addresses.csv: row %s: confidence %q is not 1 to 10", r[0], r[10]))
		}
		if r[5] != "" {
			if a.TTLS, err = strconv.ParseInt(r[5], 10, 64); err != nil {
				panic("known: addresses.csv: row " + r[0] + ": " + err.Error())
			}
		}
		if m[a.Addr] != nil {
			panic("known: addresses.csv: " + r[4] + " is there twice")
		}
		m[a.Addr] = a
	}
	return m
})

// AddressOf finds the shipped row about addr, whatever the record's TTL was.
func AddressOf(addr netip.Addr) (Address, bool) { return shipped().AddressOf(addr) }

// ForgedAddress is Table.ForgedAddress with the shipped rows.
func ForgedAddress(addr netip.Addr, ttlS int64) (measure.Match, bool) {
	return shipped().ForgedAddress(addr, ttlS)
}
