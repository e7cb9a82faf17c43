package known

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"sync"

	"govah/measure"
)

//go:embed blockpages.csv
var blockpagesCSV []byte

//go:embed lookalikes.csv
var lookalikesCSV []byte

// Signature is one row about the content of an answer.
type Signature struct {
	ID   string
	Kind string // see the package comment
	// Where is body or header:NAME (lower case).
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

// table is everything that is compiled once.
type table struct {
	signatures []Signature
	byID       map[string]int
	body       *automaton
	// headers holds the rows of each header name.
	headers map[string][]int
}

var compiled = sync.OnceValue(func() *table {
	t := &table{byID: map[string]int{}, headers: map[string][]int{}}
	for _, file := range []struct {
		name string
		data []byte
	}{{"blockpages.csv", blockpagesCSV}, {"lookalikes.csv", lookalikesCSV}} {
		for _, r := range readCSV(file.name, file.data, 12) {
			confidence, err := strconv.Atoi(r[9])
			if err != nil || confidence < 1 || confidence > 10 {
				panic(fmt.Sprintf("known: %s: row %s: confidence %q is not 1 to 10", file.name, r[0], r[9]))
			}
			s := Signature{
				ID: r[0], Kind: r[1], Where: r[2], Match: r[3], Pattern: r[4], Product: r[5], Vendor: r[6],
				Country: r[7], Scope: measure.Scope(r[8]), Confidence: confidence, Source: r[10], Example: r[11],
			}
			if _, twice := t.byID[s.ID]; twice || s.Pattern == "" {
				panic("known: " + file.name + ": row " + s.ID + " is there twice or has no pattern")
			}
			t.byID[s.ID] = len(t.signatures)
			t.signatures = append(t.signatures, s)
		}
	}
	var patterns []string
	var rows []int
	for i := range t.signatures {
		s := &t.signatures[i]
		if s.Match == "regexp" {
			s.regexp = regexp.MustCompile(s.Pattern)
		}
		switch name, isHeader := strings.CutPrefix(s.Where, "header:"); {
		case isHeader:
			t.headers[name] = append(t.headers[name], i)
		case s.Where == "body" && s.Match == "regexp":
			patterns, rows = append(patterns, longestLiteral(s.Pattern)), append(rows, i)
		case s.Where == "body" && s.Match == "contains":
			patterns, rows = append(patterns, s.Pattern), append(rows, i)
		default:
			panic("known: row " + s.ID + ": a body is searched with contains or regexp")
		}
	}
	t.body = newAutomaton(patterns, rows)
	return t
})

func readCSV(name string, data []byte, fields int) [][]string {
	r := csv.NewReader(bytes.NewReader(data))
	r.FieldsPerRecord = fields
	all, err := r.ReadAll()
	if err != nil {
		panic("known: " + name + ": " + err.Error())
	}
	return all[1:]
}

// longestLiteral is a string that every match of expr contains: the automaton
// looks for it, and only then the expression runs.
func longestLiteral(expr string) string {
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		panic("known: " + err.Error())
	}
	best := ""
	parts := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		parts = re.Sub
	}
	for _, p := range parts {
		if p.Op == syntax.OpLiteral && p.Flags&syntax.FoldCase == 0 && len(string(p.Rune)) > len(best) {
			best = string(p.Rune)
		}
	}
	if best == "" {
		panic("known: no literal in " + expr)
	}
	return best
}

// Signatures lists all rows about the content of answers, for generated
// documentation and for package identify.
func Signatures() []Signature {
	return append([]Signature(nil), compiled().signatures...)
}

// SignatureOf finds the row that a Match came from.
func SignatureOf(row string) (Signature, bool) {
	t := compiled()
	i, ok := t.byID[row]
	if !ok {
		return Signature{}, false
	}
	return t.signatures[i], true
}
