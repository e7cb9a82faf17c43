package known

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode/utf8"

	"govah/measure"
)

// ListKind is whose list Import reads.
type ListKind string

const (
	// ListOONI is fingerprints_http.csv or fingerprints_dns.csv of
	// github.com/ooni/blocking-fingerprints.
	ListOONI ListKind = "ooni"
	// ListCensoredPlanet is blockpage_signatures.json of
	// github.com/censoredplanet/censoredplanet-analysis.
	ListCensoredPlanet ListKind = "censoredplanet"
	// ListCensoredPlanetInnocent is false_positive_signatures.json of the same:
	// what is no block page.
	ListCensoredPlanetInnocent ListKind = "censoredplanet-innocent"
)

// ListKindOf tells the kind of list from the name under which it is published,
// "" if the name is none of those.
func ListKindOf(file string) ListKind {
	switch path.Base(strings.ReplaceAll(file, `\`, "/")) {
	case "fingerprints_http.csv", "fingerprints_dns.csv":
		return ListOONI
	case "blockpage_signatures.json":
		return ListCensoredPlanet
	case "false_positive_signatures.json":
		return ListCensoredPlanetInnocent
	}
	return ""
}

// Remark says what became of a row of a list that was not taken as it stands.
type Remark struct {
	Line int    // at which the row begins, from 1
	Name string // of the row, as far as it can be printed; "" if it has none
	// Taken: the row is used, but changed; otherwise it is not used.
	Taken  bool
	Reason string
}

// Confidences of imported rows end below that of a sure signature: nobody here
// has seen the page.
const importedMost = 6

// Import reads somebody's published list and makes rows of it.
//
// What it can use it brings into the form of the shipped rows:
//
//   - ids begin with import.; the list's own prefix (ooni., cl., cp.) follows,
//     cp. for Censored Planet's files; names that occur twice get ~2, ~3, …
//   - scopes nat and isp make a block page or forged address; inst the same, in
//     the local network (a filter's address); fp an innocent row; all others,
//     and none, a product: a list that does not say that only a filter sends
//     it is not taken to say so
//   - the product is what the list calls it in the row's name, after prod_
//   - confidence is at most 6
//   - what the lists have under Location although a server's name is sent as
//     Server is moved there
//   - Censored Planet's expressions are Python's, in which a dot matches a line
//     break; one without operators becomes a plain text; one that begins with
//     http:// or https:// is looked for in the body and at the beginning of
//     Location, one that begins with "Server: " or "Location: " in that header
//   - a block page's row that occurs in an innocent text (Innocents) is lowered
//     to a product
//
// It does not take what is shipped already or stood in the list before, names
// in DNS answers, patterns shorter than 3 or longer than 4,096 bytes,
// expressions that RE2 does not know, without 3 bytes of certain text, or too
// large (4,096 steps each, 1,048,576 a list). Every row that is not taken as it
// stands has a remark, in the order of the lines.
//
// An error means that nothing could be read: reading failed, the file is larger
// than 64 MB, has more than 100,000 rows, or is no list of that kind.
func Import(kind ListKind, r io.Reader) (*List, []Remark, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxListBytes+1))
	if err != nil {
		return nil, nil, err
	}
	if len(data) > MaxListBytes {
		return nil, nil, fmt.Errorf("larger than %d MB", MaxListBytes>>20)
	}
	im := newImporter()
	switch kind {
	case ListOONI:
		err = im.ooni(data)
	case ListCensoredPlanet:
		err = im.censoredPlanet(data, "cp.", "")
	case ListCensoredPlanetInnocent:
		err = im.censoredPlanet(data, "cp.fp_", "fp")
	default:
		err = fmt.Errorf("no list is called %q", clean(string(kind), 40))
	}
	if err != nil {
		return nil, nil, err
	}
	sortRemarks(im.remarks)
	return &im.list, im.remarks, nil
}

// importer collects the rows of one list.
type importer struct {
	list    List
	remarks []Remark
	places  map[place]string // id of the row that has it
	addrs   map[netip.Addr]string
	ids     map[string]bool
	rows    int
	steps   int
}

func newImporter() *importer {
	im := &importer{places: map[place]string{}, addrs: map[netip.Addr]string{}, ids: map[string]bool{}}
	for i := range shipped().signatures {
		s := &shipped().signatures[i]
		im.places[placeOf(s)] = s.ID
	}
	for _, a := range shipped().addresses {
		im.addrs[a.Addr] = a.ID
	}
	return im
}

// entry is a row of a list in the words that the lists share.
type entry struct {
	line       int
	name       string
	scope      string // of OONI's list
	confidence int
	country    string
	source     string
}

// another counts a row of the file.
func (im *importer) another() error {
	if im.rows++; im.rows > MaxListRows {
		return fmt.Errorf("more than %d rows", MaxListRows)
	}
	return nil
}

func (im *importer) refuse(line int, name, format string, values ...any) {
	im.remarks = append(im.remarks, Remark{line, clean(name, maxID), false, fmt.Sprintf(format, values...)})
}

func (im *importer) changed(line int, name, format string, values ...any) {
	im.remarks = append(im.remarks, Remark{line, clean(name, maxID), true, fmt.Sprintf(format, values...)})
}

// held says why a place is taken.
func held(id string) string {
	if Imported(id) {
		return "the same as " + id
	}
	return "shipped already, as " + id
}

// rowID is an unused id for a name.
func (im *importer) rowID(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && idLike.MatchString(string(r)) {
			return r
		}
		return '_'
	}, name)
	if len(name) > maxID {
		name = name[:maxID]
	}
	if name == "" {
		name = "_"
	}
	return unusedID(im.ids, ImportPrefix+name)
}

// listed is how both lists mark a product in a row's name, as
// cl.prod_netsweeper_inject_2 and a_prod_barracuda_1.
var listed = regexp.MustCompile(`(?:^|[._])prod_(.+?)(?:_[0-9]+)?(?:~[0-9]+)?$`)

// productOf is what a list calls the product of a row, by its id, "" if it
// means none.
func productOf(id string) string {
	if m := listed.FindStringSubmatch(id); m != nil {
		return m[1]
	}
	return ""
}

// signature adds a row about content. match is one of this package's;
// expressions are simplified to texts where they are nothing else, and their
// dots match line breaks if dotAll is set.
func (im *importer) signature(e entry, where, match, pattern string, dotAll bool) {
	s := Signature{Where: where, Match: match, Pattern: pattern, Country: e.country, Confidence: min(e.confidence, importedMost), Source: e.source}
	s.Kind, s.Scope = "product", ""
	switch e.scope {
	case "nat":
		s.Kind = "blockpage"
	case "isp":
		s.Kind, s.Scope = "blockpage", measure.ScopeOperator
	case "inst":
		s.Kind, s.Scope = "blockpage", measure.ScopeLAN
	case "vbw":
		s.Confidence = min(s.Confidence, 3)
	case "fp":
		s.Kind = "innocent"
	}
	// As it stands, before anything is made of it: a name whose dots are not
	// escaped is the same row as the one whose dots are.
	written := place{where, pattern}
	if match == "regexp" {
		written.pattern = strings.TrimPrefix(pattern, "^")
	}
	if id, ok := im.places[written]; ok {
		im.refuse(e.line, e.name, "%s", held(id))
		return
	}
	if match == "regexp" && len(pattern) <= MaxPattern {
		if tree, err := syntax.Parse(pattern, syntax.Perl); err == nil {
			if match, text := plainText(tree); match != "" {
				s.Match, s.Pattern = match, text
			} else if dotAll && hasDot(tree) {
				s.Pattern = "(?s)" + pattern
			}
		}
	}
	if s.Where == "header:location" && (s.Match == "prefix" || s.Match == "full") && serverName.MatchString(s.Pattern) {
		s.Where = "header:server"
		im.changed(e.line, e.name, "looked for in Server, not in Location: it is the name of a server")
	}
	if id, ok := im.places[placeOf(&s)]; ok {
		im.refuse(e.line, e.name, "%s", held(id))
		return
	}
	s.ID = ImportPrefix + "_"
	n, err := s.check()
	if err == nil && im.steps+n > maxSteps {
		err = errTooManySteps
	}
	if err != nil {
		im.refuse(e.line, e.name, "%s", err)
		return
	}
	im.steps += n
	if quoted := s.lower(); quoted != "" {
		im.changed(e.line, e.name, "lowered to kind product: it stands in the innocent text %s too", quoted)
	}
	s.ID = im.rowID(e.name)
	s.Product = productOf(s.ID)
	if s.Match != "regexp" {
		s.Example = s.Pattern
	}
	im.places[placeOf(&s)], im.places[written] = s.ID, s.ID
	im.list.Signatures = append(im.list.Signatures, s)
}

// address adds a row about a DNS answer.
func (im *importer) address(e entry, text string) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		im.refuse(e.line, e.name, "a name, or no address: only addresses are looked for in DNS answers")
		return
	}
	addr = addr.Unmap()
	if id, ok := im.addrs[addr]; ok {
		im.refuse(e.line, e.name, "%s", held(id))
		return
	}
	a := Address{ID: ImportPrefix + "_", Kind: "forged-address", Addr: addr, TTLS: -1, Country: e.country, Confidence: min(e.confidence, importedMost), Source: e.source}
	switch e.scope {
	case "isp":
		a.Scope = measure.ScopeOperator
	case "inst":
		a.Kind, a.Scope = "filter-address", measure.ScopeLAN
	case "fp":
		a.Kind = "innocent"
	}
	if err := a.check(); err != nil {
		im.refuse(e.line, e.name, "%s", err)
		return
	}
	a.ID = im.rowID(e.name)
	a.Product = productOf(a.ID)
	im.addrs[addr] = a.ID
	im.list.Addresses = append(im.list.Addresses, a)
}

// serverName is a product as RFC 9110 section 10.2.4 writes it, unlike the
// beginning of an address: no scheme, no host name before the first slash.
var serverName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]+(?:/[0-9A-Za-z._-]+)?(?: [^/:?]*)?$`)

// plainText is how else to look for what an expression matches, if it has no
// operators but an anchor at its beginning; match is "" if it has some.
func plainText(re *syntax.Regexp) (match, text string) {
	match = "contains"
	if re.Op == syntax.OpConcat && len(re.Sub) == 2 && re.Sub[0].Op == syntax.OpBeginText {
		match, re = "prefix", re.Sub[1]
	}
	if re.Op != syntax.OpLiteral || re.Flags&syntax.FoldCase != 0 {
		return "", ""
	}
	return match, string(re.Rune)
}

func hasDot(re *syntax.Regexp) bool {
	if re.Op == syntax.OpAnyCharNotNL {
		return true
	}
	for _, sub := range re.Sub {
		if hasDot(sub) {
			return true
		}
	}
	return false
}

// confidenceOf reads a number of 1 to 10; nothing is 5, what OONI gives a row
// that nobody has assessed.
func confidenceOf(text string) (int, error) {
	if text == "" {
		return 5, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 10 {
		return 0, errors.New("the confidence is not 1 to 10")
	}
	return n, nil
}
