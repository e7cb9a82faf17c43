package known

import (
	_ "embed"
	"slices"
	"strings"

	"govah/measure"
)

//go:embed packets.csv
var packetsCSV []byte

// packetPrefix begins Where of rows about the marks of injected packets;
// package identify has the marks' names and values.
const packetPrefix = "packet:"

// MatchPackets names every row that the marks of a device's packets carry, by
// name of the mark, in the order of the rows. What marks are is concluded from
// many packets, so that they are no part of Evidence.
func (t *Table) MatchPackets(marks map[string]string) []measure.Match {
	var rows []int
	for name, value := range marks {
		for _, i := range t.packets[name] {
			if t.signatures[i].occursIn(value) {
				rows = append(rows, i)
			}
		}
	}
	slices.Sort(rows)
	return t.matches(rows, func(*Signature) bool { return true })
}

// mark is the name of the mark that a row is about, "" if it is about content.
func (s *Signature) mark() string {
	name, ok := strings.CutPrefix(s.Where, packetPrefix)
	if !ok {
		return ""
	}
	return name
}
