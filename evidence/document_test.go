package evidence

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestFormatDocument compares what docs/formats/bundle-v1.md says of files and
// of the account with the types.
func TestFormatDocument(t *testing.T) {
	data, err := os.ReadFile("../docs/formats/bundle-v1.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, c := range []struct {
		section string
		typ     reflect.Type
		classed bool
	}{
		{"### `about.json`", reflect.TypeFor[About](), true},
		{"### `custody.jsonl`", reflect.TypeFor[Event](), true},
		{"## 9 The account", reflect.TypeFor[Account](), false},
	} {
		_, rest, ok := strings.Cut(text, c.section)
		if !ok {
			t.Fatalf("there is no section %s", c.section)
		}
		rest, _, _ = strings.Cut(rest, "\n#")
		documented := map[string]string{} // name to class
		for l := range strings.Lines(rest) {
			cells := strings.Split(l, "|")
			if len(cells) < 4 || !strings.Contains(cells[1], "`") {
				continue
			}
			for name := range strings.SplitSeq(cells[1], ",") {
				documented[strings.Trim(name, " `")] = strings.TrimSpace(cells[3])
			}
		}
		for i := range c.typ.NumField() {
			f := c.typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			class, ok := documented[name]
			if !ok {
				t.Errorf("%s: %s is not in the document", c.section, name)
			} else if c.classed && class != f.Tag.Get("class") {
				t.Errorf("%s: %s is of class %q, in the document %q", c.section, name, f.Tag.Get("class"), class)
			}
			delete(documented, name)
		}
		for name := range documented {
			t.Errorf("%s: %s is in the document alone", c.section, name)
		}
	}
	for c, name := range classNames {
		if !strings.Contains(text, fmt.Sprintf("\n| %d | `%s` |", c, name)) {
			t.Errorf("the class %d %s is not in the document", c, name)
		}
	}
	for _, u := range []Unproved{NotTruth, NotPerson, NotClock, NotEarliest, NotLatest, NotAll, NotWithheld, NotTokens, NotWitnesses, NotReceipts, NotHelpers, NotUnread} {
		if !strings.Contains(text, "`"+string(u)+"`") {
			t.Errorf("%s is not in the document", u)
		}
	}
}
