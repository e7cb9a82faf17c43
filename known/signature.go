package known

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"govah/measure"
)

//go:embed blockpages.csv
var blockpagesCSV []byte

//go:embed lookalikes.csv
var lookalikesCSV []byte

// What devices say of themselves to whoever connects.
//
//go:embed banners.csv
var bannersCSV []byte

// Signature is one row about the content of an answer, or about the packets
// that carry it.
type Signature struct {
	ID   string
	Kind string // see the package comment
	// Where is body, header:NAME (lower case) banner (a greeting) or
	// packet:MARK.
	Where string
	// Match is contains, prefix, full or regexp.
	Match   string
	Pattern string
	Product string
	Vendor  string
	// Country holds ISO 3166-1 codes separated by blanks, "" anywhere.
	Country string
	// Scope is how far from the user the thing usually stands, "" unknown.
	Scope measure.Scope
	// Confidence, 1 to 10, that the pattern occurs nowhere else.
	Confidence int
	Source     string
	Example    string

	regexp *regexp.Regexp
}

func (s *Signature) match() measure.Match {
	country, _, _ := strings.Cut(s.Country, " ")
	if strings.Contains(s.Country, " ") {
		country = "" // of several countries: not told which
	}
	return measure.Match{Row: s.ID, Kind: s.Kind, Where: s.Where, Product: s.Product, Vendor: s.Vendor, Country: country, Scope: s.Scope}
}

func shippedSignatures() []Signature {
	var list []Signature
	for _, file := range []struct {
		name string
		data []byte
	}{{"blockpages.csv", blockpagesCSV}, {"lookalikes.csv", lookalikesCSV}, {"packets.csv", packetsCSV}, {"banners.csv", bannersCSV}} {
		for _, r := range readCSV(file.name, file.data, 12) {
			confidence, err := strconv.Atoi(r[9])
			if err != nil || confidence < 1 || confidence > 10 {
				panic(fmt.Sprintf("known: %s: row %s: confidence %q is not 1 to 10", file.name, r[0], r[9]))
			}
			list = append(list, Signature{
				ID: r[0], Kind: r[1], Where: r[2], Match: r[3], Pattern: r[4], Product: r[5], Vendor: r[6],
				Country: r[7], Scope: measure.Scope(r[8]), Confidence: confidence, Source: r[10], Example: r[11],
			})
		}
	}
	return list
}

func readCSV(name string, data []byte, fields int) [][]string {
	r := csv.NewReader(bytes.NewReader(data))
	r.FieldsPerRecord = fields
	all, err := r.ReadAll()
	if err != nil {
		panic("known: " + name + ": " + err.Error())
	}
	return all[1:]
}

// Signatures lists all shipped rows about the content of answers, for
// generated documentation and for package identify.
func Signatures() []Signature { return shipped().Signatures() }

// SignatureOf finds the shipped row that a Match came from.
func SignatureOf(row string) (Signature, bool) { return shipped().SignatureOf(row) }
