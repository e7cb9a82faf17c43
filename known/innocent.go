package known

import (
	_ "embed"
	"strings"
	"sync"

	"govah/measure"
)

//go:embed innocent.csv
var innocentCSV []byte

// Innocent is a short excerpt of an answer that is no interference and that
// lists of block pages are known to take for some: a report that quotes one, a
// manual, the vendor's own site, a server's own error. The texts are written
// after their source, not copied from it.
//
// Such texts come first. No shipped row of kind blockpage occurs in one (a
// test), and of the rows of a list that a user imports, one that does is
// lowered to kind product.
type Innocent struct {
	ID string
	// Where is body, header:NAME (lower case) or banner.
	Where  string
	Text   string
	Why    string // it is innocent
	Source string
	// Rows are the ids of the shipped rows of kind product that occur in it,
	// in their order.
	Rows []string
}

// Evidence puts the text where it would stand.
func (i *Innocent) Evidence() Evidence {
	if name, ok := strings.CutPrefix(i.Where, "header:"); ok {
		return Evidence{Headers: []measure.Header{{Name: name, Value: i.Text}}}
	}
	if i.Where == "banner" {
		return Evidence{Greeting: i.Text}
	}
	return Evidence{Body: []byte(i.Text)}
}

var innocents = sync.OnceValue(func() []Innocent {
	var list []Innocent
	for _, r := range readCSV("innocent.csv", innocentCSV, 6) {
		list = append(list, Innocent{ID: r[0], Where: r[1], Text: r[2], Why: r[3], Source: r[4], Rows: strings.Fields(r[5])})
	}
	return list
})

// Innocents lists the innocent texts.
func Innocents() []Innocent {
	return append([]Innocent(nil), innocents()...)
}

// quotedBy is the id of an innocent text that s occurs in, "" none.
func quotedBy(s *Signature) string {
	for i := range innocents() {
		if n := &innocents()[i]; n.Where == s.Where && s.occursIn(n.Text) {
			return n.ID
		}
	}
	return ""
}

// lower makes a block page's row one of kind product if an innocent text
// carries it, and returns that text's id.
func (s *Signature) lower() (quoted string) {
	if s.Kind != "blockpage" {
		return ""
	}
	if quoted = quotedBy(s); quoted != "" {
		s.Kind, s.Confidence = "product", min(s.Confidence, 5)
	}
	return quoted
}
