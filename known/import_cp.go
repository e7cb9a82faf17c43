package known

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// censoredPlanet reads a list of github.com/censoredplanet/
// censoredplanet-analysis: a JSON object {"fingerprint": NAME, "pattern":
// EXPRESSION} a line, as published (pipeline/metadata/blockpage.py reads it);
// or one object that maps names to expressions.
func (im *importer) censoredPlanet(data []byte, prefix, scope string) error {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if len(bytes.TrimSpace(data)) == 0 {
		return errors.New("no list of Censored Planet: the file is empty")
	}
	if oneObject(data) {
		return im.cpObject(data, prefix, scope)
	}
	line, used := 0, false
	for len(data) > 0 {
		var text []byte
		text, data, _ = bytes.Cut(data, []byte("\n"))
		line++
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		if err := im.another(); err != nil {
			return err
		}
		var row struct {
			Fingerprint string  `json:"fingerprint"`
			Pattern     *string `json:"pattern"`
		}
		if err := json.Unmarshal(text, &row); err != nil {
			im.refuse(line, "", "not JSON, or no fingerprint: %s", clean(err.Error(), 200))
			continue
		}
		used = true
		if row.Fingerprint == "" || row.Pattern == nil {
			im.refuse(line, row.Fingerprint, "no fingerprint or no pattern")
			continue
		}
		im.cpRow(line, prefix, scope, row.Fingerprint, *row.Pattern)
	}
	if !used {
		return fmt.Errorf("no list of Censored Planet: none of its %d lines is a JSON object", im.rows)
	}
	return nil
}

// oneObject says whether data begins with an object that is not that of a
// line.
func oneObject(data []byte) bool {
	first, _, _ := bytes.Cut(bytes.TrimSpace(data), []byte("\n"))
	var row map[string]any
	if json.Unmarshal(first, &row) == nil && row["fingerprint"] != nil && row["pattern"] != nil {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return false
	}
	t, err := d.Token()
	name, isName := t.(string)
	return err == nil && isName && !strings.EqualFold(name, "fingerprint") && !strings.EqualFold(name, "pattern")
}

func (im *importer) cpObject(data []byte, prefix, scope string) error {
	d := json.NewDecoder(bytes.NewReader(data))
	line, counted := 1, int64(0)
	lineAt := func(offset int64) int {
		line += bytes.Count(data[counted:offset], []byte("\n"))
		counted = offset
		return line
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		if err := im.another(); err != nil {
			return err
		}
		t, err := d.Token()
		name, isName := t.(string)
		if err != nil || !isName {
			im.refuse(lineAt(d.InputOffset()), "", "not JSON from here on, and not read: %v", cleanError(err))
			return nil
		}
		at := lineAt(d.InputOffset())
		var value any
		if err := d.Decode(&value); err != nil {
			im.refuse(at, name, "not JSON from here on, and not read: %v", cleanError(err))
			return nil
		}
		pattern, isText := value.(string)
		if !isText {
			im.refuse(at, name, "the pattern is no text")
			continue
		}
		im.cpRow(at, prefix, scope, name, pattern)
	}
	if _, err := d.Token(); err != nil {
		im.refuse(lineAt(d.InputOffset()), "", "the object is not closed: %v", cleanError(err))
	} else if _, err := d.Token(); err != io.EOF {
		im.refuse(lineAt(d.InputOffset()), "", "there is more after the object, which was not read")
	}
	return nil
}

func cleanError(err error) string {
	if err == nil {
		return "a name is missing"
	}
	return clean(err.Error(), 200)
}

// cpScope is what the names of the list begin with, as a_prod_barracuda_1 or
// nat_ir_national_1.
var cpScope = regexp.MustCompile(`^(?:[a-z]_)?(prod|nat|isp)_`)

func (im *importer) cpRow(line int, prefix, scope, name, pattern string) {
	e := entry{line: line, name: prefix + name, scope: scope, confidence: 5, source: "Censored Planet, blockpage_signatures.json"}
	if scope != "" {
		e.source = "Censored Planet, false_positive_signatures.json"
	} else if m := cpScope.FindStringSubmatch(name); m != nil {
		e.scope = m[1]
	}
	for _, header := range []string{"server", "location"} {
		// Their expressions ran over the answer as it was sent.
		if rest, ok := cutFold(pattern, header+": "); ok {
			im.signature(e, "header:"+header, "regexp", anchored(rest), true)
			return
		}
	}
	if strings.HasPrefix(pattern, "http://") || strings.HasPrefix(pattern, "https://") {
		body, location := e, e
		body.name += "_body"
		location.name += "_location"
		im.signature(body, "body", "regexp", pattern, true)
		im.signature(location, "header:location", "regexp", anchored(pattern), true)
		return
	}
	im.signature(e, "body", "regexp", pattern, true)
}

// anchored is an expression that matches at the beginning only.
func anchored(expr string) string {
	if strings.ContainsAny(expr, "|") {
		return "^(?:" + expr + ")"
	}
	return "^" + expr
}

func cutFold(text, prefix string) (string, bool) {
	if len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix) {
		return text[len(prefix):], true
	}
	return "", false
}
