package known

import (
	_ "embed"
	"strings"
	"sync"

	"govah/measure"
)

//go:embed headers.csv
var headersCSV []byte

// AddedHeader is a header that is known to be added to requests on the way.
// Kinds: subscriber (names the line or its owner), tracking (an identifier of
// them), proxy (a proxy says that it is one).
type AddedHeader struct {
	ID, Name, Kind, Source string
}

var headerTable = sync.OnceValue(func() map[string]AddedHeader {
	out := map[string]AddedHeader{}
	for _, r := range readCSV("headers.csv", headersCSV, 4) {
		out[r[1]] = AddedHeader{ID: r[0], Name: r[1], Kind: r[2], Source: r[3]}
	}
	return out
})

// HeaderOf finds the row of a header's name, in any case.
func HeaderOf(name string) (AddedHeader, bool) {
	h, ok := headerTable()[strings.ToLower(name)]
	return h, ok
}

// Match is the row as evidence carries it.
func (h AddedHeader) Match() measure.Match {
	return measure.Match{Row: h.ID, Kind: h.Kind + "-header", Where: "header:" + h.Name}
}
