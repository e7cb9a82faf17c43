package check

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"govah/measure"
	"govah/wire"
)

// SensitiveCategories are Citizen Lab's category codes whose sites are left
// out of a list until they are asked for by name: being seen to open them can
// endanger the person who runs the test.
var SensitiveCategories = []string{"PORN", "XED", "LGBT", "DATE", "ALDR", "GMB", "MILX", "HATE", "PROV"}

const maxTargetLength = 2048

// ParseTarget reads what a person types: a URL (http, https, tcp, tls, ssh; or,
// for a mail server, smtp, smtps, imap, imaps, pop3, pop3s), a host name, a
// numeric address, or host:port. A bare name means its https page; a bare port
// means that page's protocol for 80 and 443 and a plain TCP endpoint for any
// other. Names are converted to their ASCII form (IDNA 2008,
// UTS 46).
func ParseTarget(text string) (measure.Target, error) {
	fail := func(why string) (measure.Target, error) {
		shown := text
		if len(shown) > 80 {
			shown = strings.ToValidUTF8(shown[:80], "") + "…"
		}
		return measure.Target{}, fmt.Errorf("%q is no target: %s", shown, why)
	}
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return fail("it is empty; give a URL, a host name or host:port")
	case len(text) > maxTargetLength:
		return fail(fmt.Sprintf("it is longer than %d bytes", maxTargetLength))
	case !utf8.ValidString(text):
		return fail("it is not UTF-8 text")
	}
	for _, r := range text {
		if unicode.IsControl(r) || unicode.IsSpace(r) || r == '\uFFFD' || unicode.Is(unicode.Bidi_Control, r) {
			return fail("it holds a space or a control character")
		}
	}
	raw := text
	if !strings.Contains(raw, "://") {
		switch host, port, ok := splitPort(raw); {
		case ok && port == "80":
			raw = "http://" + bracket(host) + "/"
		case ok && port == "443":
			raw = "https://" + bracket(host) + "/"
		case ok:
			raw = "tcp://" + bracket(host) + ":" + port
		default:
			if a, err := netip.ParseAddr(raw); err == nil && a.Is6() {
				raw = "[" + raw + "]"
			}
			raw = "https://" + raw
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return fail("it does not parse as a URL")
	}
	t := measure.Target{Scheme: strings.ToLower(u.Scheme)}
	switch t.Scheme {
	case "http":
		t.Port = 80
	case "https", "tls":
		t.Port = 443
	case "ssh":
		t.Port = 22
	case "tcp":
	default:
		if t.Port = wire.MailPorts[t.Scheme]; t.Port == 0 {
			return fail("its scheme must be http, https, tcp, tls or ssh, or for mail smtp, smtps, imap, imaps, pop3 or pop3s")
		}
	}
	if u.User != nil {
		return fail("it carries a user name or password; leave them out")
	}
	if p := u.Port(); p != "" {
		n, err := strconv.Atoi(p)
		if err != nil || n < 1 || n > 65535 {
			return fail("its port must be 1 to 65535")
		}
		t.Port = n
	}
	if t.Port == 0 {
		return fail("a tcp target needs a port, as in tcp://host:22")
	}
	host := strings.TrimSuffix(u.Hostname(), ".")
	if host == "" {
		return fail("it has no host")
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return fail("an address with a zone cannot be tested")
		}
		t.Host = a.Unmap().String()
	} else {
		ascii, ok := asciiName(host)
		if !ok {
			return fail("its host is not a valid name")
		}
		if !strings.Contains(ascii, ".") {
			return fail("its host has no dot; write the full name")
		}
		last := ascii[strings.LastIndexByte(ascii, '.')+1:]
		if strings.Trim(last, "0123456789") == "" {
			return fail("its host is neither a name nor a valid address")
		}
		t.Host = ascii
	}
	authority := bracket(t.Host)
	if def := map[string]int{"http": 80, "https": 443}[t.Scheme]; def != t.Port {
		authority += ":" + strconv.Itoa(t.Port)
	}
	t.URL = t.Scheme + "://" + authority
	if t.Scheme == "http" || t.Scheme == "https" {
		path := u.EscapedPath()
		if path == "" {
			path = "/"
		}
		t.URL += path
		if u.RawQuery != "" {
			t.URL += "?" + u.RawQuery
		}
	}
	return t, nil
}

// asciiName gives the form of a host name that is asked of DNS. What it gives
// for a name it also gives for that form: idna alone lets empty labels pass,
// and encodes what it then refuses to decode.
func asciiName(host string) (string, bool) {
	ascii, err := idna.Lookup.ToASCII(host)
	if err != nil {
		// IDNA forbids underscores, which real host names have.
		ascii = strings.ToLower(host)
	} else if again, err := idna.Lookup.ToASCII(ascii); err != nil || again != ascii {
		return "", false
	}
	return ascii, plainName(ascii)
}

func plainName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// splitPort splits host:port; an IPv6 address without brackets is a host.
func splitPort(s string) (host, port string, ok bool) {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return "", "", false
	}
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 || end+1 >= len(s) || s[end+1] != ':' {
			return "", "", false
		}
		return s[1:end], s[end+2:], true
	}
	if strings.Count(s, ":") != 1 {
		return "", "", false
	}
	host, port, _ = strings.Cut(s, ":")
	return host, port, true
}

func bracket(host string) string {
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		return "[" + host + "]"
	}
	return host
}

// ListProblem is a line of a list that is no target.
type ListProblem struct {
	Line int
	Err  error
}

func (p ListProblem) Error() string { return fmt.Sprintf("line %d: %v", p.Line, p.Err) }

// List is what a target list holds.
type List struct {
	Targets []measure.Target
	// Problems are the first of the bad lines, of which Skipped is the number.
	Problems []ListProblem
	Skipped  int
	Double   int // targets that were there already, and left out
	// Sensitive is how many targets were left out for their category.
	Sensitive int
}

const (
	maxListLine = 64 << 10 // longer is a bad line
	maxNoLine   = 1 << 20  // longer is no list
	// maxProblems bounds the bad lines that are kept. After as many, a list
	// that holds more bad lines than good ones is none.
	maxProblems = 1000
)

// ParseList reads targets one a line ("#" starts a comment), or Citizen Lab's
// CSV (a header with a "url" column and optionally "category_code").
// categories chooses among the categories of a CSV; nil means all but the
// sensitive ones. Bad lines are reported and skipped, double ones dropped. The
// error also says of what cannot be a list that it is none, without reading it
// to its end, if it has one.
func ParseList(r io.Reader, categories []string) (List, error) {
	var list List
	in := bufio.NewReaderSize(r, maxListLine)
	if bom, _ := in.Peek(3); bytes.Equal(bom, []byte("\xEF\xBB\xBF")) {
		in.Discard(3)
	}
	seen := map[string]bool{}
	bad := func(line int, err error) {
		if list.Skipped++; len(list.Problems) < maxProblems {
			list.Problems = append(list.Problems, ListProblem{line, err})
		}
	}
	add := func(line int, text, category string) {
		t, err := ParseTarget(text)
		if err != nil {
			bad(line, err)
			return
		}
		t.Category = category
		if !wanted(category, categories) {
			list.Sensitive++
			return
		}
		if seen[t.URL] {
			list.Double++
			return
		}
		seen[t.URL] = true
		list.Targets = append(list.Targets, t)
	}
	urlColumn, categoryColumn := -1, -1
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			for length := len(line); errors.Is(err, bufio.ErrBufferFull); length += len(line) {
				if length > maxNoLine {
					return list, fmt.Errorf("line %d is longer than %d bytes: this is no list of targets", n, maxNoLine)
				}
				line, err = in.ReadSlice('\n')
			}
			bad(n, fmt.Errorf("it is longer than %d bytes", maxListLine))
			line = nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return list, fmt.Errorf("reading line %d: %w", n, err)
		}
		text := strings.TrimSpace(string(line))
		switch {
		case text == "" || strings.HasPrefix(text, "#"):
		case urlColumn < 0 && n == 1 && strings.Contains(","+strings.ToLower(text)+",", ",url,"):
			for i, name := range strings.Split(strings.ToLower(text), ",") {
				switch strings.TrimSpace(name) {
				case "url":
					urlColumn = i
				case "category_code":
					categoryColumn = i
				}
			}
		case urlColumn >= 0:
			c := csv.NewReader(strings.NewReader(text))
			c.LazyQuotes, c.FieldsPerRecord = true, -1
			fields, cerr := c.Read()
			if cerr != nil || len(fields) <= urlColumn {
				bad(n, errors.New("it has no url column"))
				break
			}
			category := ""
			if categoryColumn >= 0 && categoryColumn < len(fields) {
				category = strings.ToUpper(strings.TrimSpace(fields[categoryColumn]))
				if !plainName(category) || len(category) > 16 {
					category = ""
				}
			}
			add(n, fields[urlColumn], category)
		default:
			if i := strings.IndexAny(text, " \t"); i > 0 && strings.HasPrefix(strings.TrimSpace(text[i:]), "#") {
				text = text[:i]
			}
			add(n, text, "")
		}
		if err != nil {
			return list, nil
		}
		if list.Skipped > maxProblems && list.Skipped > len(list.Targets)+list.Sensitive+list.Double {
			return list, fmt.Errorf("%d of the first %d lines are no targets: this is no list of targets", list.Skipped, n)
		}
	}
}

func wanted(category string, chosen []string) bool {
	if category == "" {
		return true
	}
	if chosen == nil {
		for _, c := range SensitiveCategories {
			if c == category {
				return false
			}
		}
		return true
	}
	for _, c := range chosen {
		if strings.EqualFold(c, category) || c == "all" {
			return true
		}
	}
	return false
}
