package known

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// ooni reads a list of github.com/ooni/blocking-fingerprints (its Readme.md
// and scripts/validate_csv.py): CSV with the names of the columns in the first
// row, whose order has changed over time.
func (im *importer) ooni(data []byte) error {
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\ufeff"))))
	r.FieldsPerRecord = -1
	r.ReuseRecord = true
	head, err := r.Read()
	if err != nil {
		return fmt.Errorf("no list of OONI: %w", plainCSVError(err))
	}
	head = slices.Clone(head)
	column := map[string]int{}
	for i, name := range head {
		column[name] = i
	}
	for _, name := range []string{"name", "location_found", "pattern_type", "pattern"} {
		if _, ok := column[name]; !ok {
			return fmt.Errorf("no list of OONI: the first row names no column %s", name)
		}
	}
	for {
		row, err := r.Read()
		if err == io.EOF {
			return nil
		}
		if more := im.another(); more != nil {
			return more
		}
		if err != nil {
			var at *csv.ParseError
			if !errors.As(err, &at) {
				return err
			}
			im.refuse(at.StartLine, "", "not CSV in line %d: %v%s", at.Line, at.Err, lost(at))
			continue
		}
		line, _ := r.FieldPos(0)
		get := func(name string) string {
			if i, ok := column[name]; ok {
				return row[i]
			}
			return ""
		}
		if len(row) != len(head) {
			name := ""
			if i := column["name"]; i < len(row) {
				name = row[i]
			}
			im.refuse(line, name, "%d columns, not %d", len(row), len(head))
			continue
		}
		im.ooniRow(line, get)
	}
}

// lost says how much a quotation mark that is not closed cost.
func lost(at *csv.ParseError) string {
	if at.Line > at.StartLine {
		return fmt.Sprintf("; lines %d to %d were not read", at.StartLine, at.Line)
	}
	return ""
}

func plainCSVError(err error) error {
	if err == io.EOF {
		return errors.New("the file is empty")
	}
	return err
}

func (im *importer) ooniRow(line int, get func(string) string) {
	e := entry{line: line, name: strings.Clone(get("name")), scope: get("scope")}
	var err error
	if e.confidence, err = confidenceOf(strings.TrimSpace(get("confidence_no_fp"))); err != nil {
		im.refuse(line, e.name, "%v", err)
		return
	}
	switch e.scope {
	case "nat", "isp", "prod", "inst", "vbw", "fp", "injb", "prov", "":
	default:
		im.refuse(line, e.name, "scope %q", clean(e.scope, 20))
		return
	}
	var countries []string
	for _, c := range strings.Split(get("expected_countries"), ",") {
		// ZZ is their "not known".
		if c = strings.ToUpper(strings.TrimSpace(c)); c != "" && c != "ZZ" && !slices.Contains(countries, c) {
			countries = append(countries, c)
		}
	}
	e.country = strings.Join(countries, " ")
	e.source = "OONI blocking-fingerprints"
	if from := get("source"); from != "" {
		e.source += " (" + from + ")"
	}
	if url := get("exp_url"); url != "" {
		e.source += ": " + url
	}
	e.source = clean(e.source, maxText)

	where, pattern := get("location_found"), strings.Clone(get("pattern"))
	match := get("pattern_type")
	switch {
	case where == "dns" && match == "full":
		im.address(e, strings.TrimSpace(pattern))
		return
	case where == "dns":
		im.refuse(line, e.name, "in DNS answers only whole addresses are looked for, not %s", clean(match, 20))
		return
	case where == "body":
	case strings.HasPrefix(where, "header."):
		where = "header:" + strings.ToLower(strings.TrimPrefix(where, "header."))
	default:
		im.refuse(line, e.name, "location_found %q is none of body, dns and header.NAME", clean(where, 80))
		return
	}
	// A regular expression there is one of Censored Planet's, or like one.
	im.signature(e, strings.Clone(where), strings.Clone(match), pattern, true)
}
