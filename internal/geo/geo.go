// Package geo finds the autonomous system and the country of an address in a
// table that is part of the program, so that nobody has to be asked.
//
// The table comes from DB-IP's free databases (see Credit) and is written by
// ./gen. Nothing is unpacked at the start, and a program that never asks pays
// no memory for it; a look-up unpacks the pages that it needs, of which the
// last 1 MB is kept.
package geo

//go:generate go run ./gen -o dbip.bin

import (
	_ "embed"
	"encoding/binary"
	"net/netip"
	"strings"
)

// Credit names the source of the table, as its licence asks wherever the
// results are shown.
const Credit = "IP Geolocation by DB-IP (https://db-ip.com), CC BY 4.0"

// Version names the table and its month: "dbip-2026-02".
var Version = table.version

// Info is what the table has on an address. It describes who announces the
// address, not where its user is: a country is the registration's or DB-IP's
// estimate.
type Info struct {
	ASN     int    // 0 unknown
	Country string // ISO 3166-1 alpha-2; "" unknown
	Org     string // the AS's name; text of others, to be escaped where shown
}

// Lookup finds an address. It is false for addresses that are not of the
// public internet and for those that the table does not have. IPv4-mapped
// addresses are looked up as IPv4. It takes microseconds, or a quarter of a
// millisecond where pages must be unpacked, and is safe for concurrent use.
func Lookup(a netip.Addr) (Info, bool) {
	a = a.Unmap().WithZone("")
	if !a.IsValid() || reserved(a) {
		return Info{}, false
	}
	var f *family
	var key u128
	if a.Is4() {
		b := a.As4()
		f, key = &table.v4, u128{lo: uint64(binary.BigEndian.Uint32(b[:]))}
	} else {
		b := a.As16()
		f, key = &table.v6, u128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
	}
	place := f.find(key)
	if place == 0 {
		return Info{}, false
	}
	v := table.place(int(place - 1))
	info := Info{Country: strings.TrimRight(table.countries[int(v&0xff)*2:][:2], " ")}
	if as := int(v >> 8); as != 0 {
		info.ASN, info.Org = table.system(as - 1)
	}
	return info, true
}

// nowhere are the special-purpose blocks (RFC 6890 and IANA's registries)
// that netip has no method for and whose addresses belong to no AS, or say
// nothing about one by themselves (transition prefixes).
var nowhere = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/8"),
	netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"),
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("3fff::/20"),
	netip.MustParsePrefix("5f00::/16"),
	netip.MustParsePrefix("fec0::/10"),
}

func reserved(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return true
	}
	for _, p := range nowhere {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
