package box

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The page that describes rules names every key and every action, and no
// others.
func TestFormatPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/formats/rule-v1.md")
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	for f := range reflect.TypeFor[Rule]().Fields() {
		known = append(known, f.Tag.Get("toml"))
	}
	known = append(append(known, Actions...), Layers...)
	for _, word := range known {
		if !strings.Contains(string(page), "`"+word+"`") {
			t.Errorf("docs/formats/rule-v1.md does not name %q", word)
		}
	}
	for _, line := range strings.Split(string(page), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
			if !slices.Contains(known, m[1]) && m[1] != "action" {
				t.Errorf("docs/formats/rule-v1.md names %q, which no rule knows", m[1])
			}
		}
	}
}
