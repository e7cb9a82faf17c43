package known

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"govah/measure"
)

// Bounds of what Import and ReadList take.
const (
	MaxListBytes = 64 << 20 // of a file
	MaxListRows  = 100_000  // of a file, whether usable or not
	MaxPattern   = 4096     // bytes of one pattern
)

const (
	shortest   = 3       // bytes of a pattern, and of the literal in an expression
	maxStepsOf = 4096    // of one expression, see steps
	maxSteps   = 1 << 20 // of all expressions of a list
	maxID      = 120     // bytes
	maxText    = 400     // bytes of a source
	maxLine    = 64 << 10
)

// ImportPrefix begins the id of every imported row, and of no shipped one.
const ImportPrefix = "import."

// Imported says whether a row is not a shipped one.
func Imported(row string) bool { return strings.HasPrefix(row, ImportPrefix) }

// List is rows that are not shipped: what Import made of somebody's list. Its
// saved form is docs/formats/signatures-v1.md.
type List struct {
	Signatures []Signature
	Addresses  []Address
}

// Merge is all rows of lists, each once; the first of equal ones stays.
func Merge(lists ...*List) *List {
	out, have, addrs, ids := &List{}, map[place]bool{}, map[netip.Addr]bool{}, map[string]bool{}
	for _, l := range lists {
		for _, s := range l.Signatures {
			if p := placeOf(&s); !have[p] {
				have[p] = true
				s.ID = unusedID(ids, s.ID)
				out.Signatures = append(out.Signatures, s)
			}
		}
		for _, a := range l.Addresses {
			if !addrs[a.Addr] {
				addrs[a.Addr] = true
				a.ID = unusedID(ids, a.ID)
				out.Addresses = append(out.Addresses, a)
			}
		}
	}
	return out
}

// listHead is the first line of a saved list, listRow each other one.
type listHead struct {
	Type   string `json:"type"`
	Schema int    `json:"schema"`
	Rows   int    `json:"rows"`
}

type listRow struct {
	ID         string        `json:"id"`
	Kind       string        `json:"kind"`
	Where      string        `json:"where"`
	Match      string        `json:"match"`
	Pattern    string        `json:"pattern"`
	Country    string        `json:"country,omitempty"`
	Scope      measure.Scope `json:"scope,omitempty"`
	Confidence int           `json:"confidence"`
	Source     string        `json:"source,omitempty"`
}

const (
	listType   = "signatures"
	listSchema = 1
)

// Write saves the list as JSON Lines, for ReadList.
func (l *List) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	err := e.Encode(listHead{listType, listSchema, len(l.Signatures) + len(l.Addresses)})
	for _, s := range l.Signatures {
		err = errors.Join(err, e.Encode(listRow{s.ID, s.Kind, s.Where, s.Match, s.Pattern, s.Country, s.Scope, s.Confidence, s.Source}))
	}
	for _, a := range l.Addresses {
		err = errors.Join(err, e.Encode(listRow{a.ID, a.Kind, "dns", "full", a.Addr.String(), a.Country, a.Scope, a.Confidence, a.Source}))
	}
	return errors.Join(err, b.Flush())
}

// ReadList reads what Write wrote. An error says in which line it is: the file
// is not such a list, is of a newer schema, was cut off, is too large (64 MB,
// 100,000 rows), or holds a row that Import would not make.
func ReadList(r io.Reader) (*List, error) {
	counted := &io.LimitedReader{R: r, N: MaxListBytes + 1}
	in := bufio.NewScanner(counted)
	in.Buffer(make([]byte, 4096), maxLine)
	var head listHead
	if !in.Scan() || json.Unmarshal(in.Bytes(), &head) != nil || head.Type != listType {
		if err := in.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
			return nil, err
		}
		return nil, errors.New("line 1: not a list that govah saved")
	}
	if head.Schema != listSchema {
		return nil, fmt.Errorf("line 1: schema %d; this version reads schema %d: import the list again", head.Schema, listSchema)
	}
	if head.Rows < 0 || head.Rows > MaxListRows {
		return nil, fmt.Errorf("line 1: %d rows; at most %d are read", head.Rows, MaxListRows)
	}
	l, ids, line, total := &List{}, map[string]bool{}, 1, 0
	for in.Scan() {
		line++
		if len(bytes.TrimSpace(in.Bytes())) == 0 {
			continue
		}
		var row listRow
		if err := json.Unmarshal(in.Bytes(), &row); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if ids[row.ID] {
			return nil, fmt.Errorf("line %d: row %s is there twice", line, clean(row.ID, maxID))
		}
		ids[row.ID] = true
		err := l.take(row, &total)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if len(ids) > head.Rows {
			break
		}
	}
	switch err := in.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("line %d: longer than %d bytes", line+1, maxLine)
	case err != nil:
		return nil, err
	case counted.N <= 0:
		return nil, fmt.Errorf("larger than %d MB", MaxListBytes>>20)
	case len(ids) != head.Rows:
		return nil, fmt.Errorf("line %d: the first line says %d rows, the file has %d or more: cut off or changed", line, head.Rows, len(ids))
	}
	return l, nil
}

func (l *List) take(row listRow, total *int) error {
	if row.Where == "dns" {
		addr, err := netip.ParseAddr(row.Pattern)
		if err != nil || row.Match != "full" {
			return errors.New("no address")
		}
		a := Address{ID: row.ID, Product: productOf(row.ID), Kind: row.Kind, Addr: addr, TTLS: -1, Country: row.Country, Scope: row.Scope, Confidence: row.Confidence, Source: row.Source}
		l.Addresses = append(l.Addresses, a)
		return a.check()
	}
	s := Signature{ID: row.ID, Product: productOf(row.ID), Kind: row.Kind, Where: row.Where, Match: row.Match, Pattern: row.Pattern, Country: row.Country, Scope: row.Scope, Confidence: row.Confidence, Source: row.Source}
	n, err := s.check()
	if *total += n; err == nil && *total > maxSteps {
		err = errTooManySteps
	}
	l.Signatures = append(l.Signatures, s)
	return err
}

var (
	packetWhere = regexp.MustCompile("^" + packetPrefix + "[a-z-]{1,32}$")
	headerWhere = regexp.MustCompile("^header:[a-z0-9!#$%&'*+.^_`|~-]{1,64}$")
	countryList = regexp.MustCompile(`^([A-Z]{2}( [A-Z]{2}){0,249})?$`)
	idLike      = regexp.MustCompile(`^[A-Za-z0-9._~@-]+$`)
)

// check says whether s may stand in a table as an imported row, compiles its
// expression and returns how large that is.
func (s *Signature) check() (steps int, err error) {
	if err := checkRow(s.ID, s.Country, s.Source, s.Scope, s.Confidence); err != nil {
		return 0, err
	}
	switch s.Kind {
	case "blockpage", "product", "innocent":
	default:
		return 0, fmt.Errorf("kind %q", clean(s.Kind, 20))
	}
	switch {
	case packetWhere.MatchString(s.Where):
		// Marks are names of few values, which mean nothing in part.
		if s.Kind != "product" || s.Match != "full" {
			return 0, fmt.Errorf("where %q needs kind product and match full", s.Where)
		}
	case s.Where != "body" && !headerWhere.MatchString(s.Where):
		return 0, fmt.Errorf("where %q is none of body, header:NAME and packet:MARK", clean(s.Where, 80))
	}
	if len(s.Pattern) > MaxPattern {
		return 0, fmt.Errorf("the pattern has %d bytes, more than %d", len(s.Pattern), MaxPattern)
	}
	if !utf8.ValidString(s.Pattern) {
		return 0, errors.New("the pattern is no UTF-8")
	}
	switch s.Match {
	case "contains", "prefix", "full":
		if len(s.Pattern) < shortest {
			return 0, fmt.Errorf("the pattern has fewer than %d bytes: it would stand in most pages", shortest)
		}
		return 0, nil
	case "regexp":
	default:
		return 0, fmt.Errorf("match %q is none of contains, prefix, full and regexp", clean(s.Match, 20))
	}
	tree, err := syntax.Parse(s.Pattern, syntax.Perl)
	if err != nil {
		return 0, fmt.Errorf("not a regular expression of RE2: %s", clean(err.Error(), 200))
	}
	if steps = stepsOf(tree); steps > maxStepsOf {
		return 0, fmt.Errorf("the regular expression is too large: more than %d steps when its repetitions are written out", maxStepsOf)
	}
	if len(requiredLiteral(tree)) < shortest {
		return 0, fmt.Errorf("the regular expression has no text of %d bytes that each match must contain", shortest)
	}
	if s.regexp == nil {
		if s.regexp, err = regexp.Compile(s.Pattern); err != nil {
			return 0, fmt.Errorf("not a regular expression of RE2: %s", clean(err.Error(), 200))
		}
	}
	return steps, nil
}

func (a *Address) check() error {
	if err := checkRow(a.ID, a.Country, a.Source, a.Scope, a.Confidence); err != nil {
		return err
	}
	switch a.Kind {
	case "forged-address", "filter-address", "innocent":
	default:
		return fmt.Errorf("kind %q", clean(a.Kind, 20))
	}
	if !a.Addr.IsValid() || a.Addr.Zone() != "" || a.Addr.Is4In6() {
		return errors.New("no plain address")
	}
	return nil
}

func checkRow(id, country, source string, scope measure.Scope, confidence int) error {
	switch {
	case !Imported(id) || len(id) > maxID+len(ImportPrefix)+8 || !idLike.MatchString(id):
		return fmt.Errorf("id %q does not begin with %s, or is no plain name", clean(id, maxID), ImportPrefix)
	case !countryList.MatchString(country):
		return fmt.Errorf("countries %q", clean(country, 80))
	case clean(source, maxText) != source:
		return errors.New("the source is too long or cannot be printed")
	case confidence < 1 || confidence > 10:
		return fmt.Errorf("confidence %d is not 1 to 10", confidence)
	}
	switch scope {
	case "", measure.ScopeDevice, measure.ScopeLAN, measure.ScopeOperator, measure.ScopeBeyond, measure.ScopeUnknown:
		return nil
	}
	return fmt.Errorf("scope %q", clean(string(scope), 20))
}

// stepsOf bounds the size of the program of an expression, without making it:
// repetitions are written out there.
func stepsOf(re *syntax.Regexp) int {
	n := 1
	switch re.Op {
	case syntax.OpLiteral:
		n = len(re.Rune)
	case syntax.OpCharClass:
		n = 1 + len(re.Rune)/8
	}
	for _, sub := range re.Sub {
		n = min(n+stepsOf(sub), 1<<24)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max) + 1
	}
	return min(n, 1<<24)
}

// clean makes text of a list fit to be printed and at most n bytes long:
// control and format characters, which can hide or turn what stands there,
// become a question mark.
func clean(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	if len(text) <= n {
		return text
	}
	cut := n - len("…")
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

// sortRemarks puts them in the order of the lines.
func sortRemarks(list []Remark) {
	slices.SortStableFunc(list, func(a, b Remark) int { return a.Line - b.Line })
}
