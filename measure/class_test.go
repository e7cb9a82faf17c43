package measure_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// field is one field of an exported struct of this package.
type field struct {
	owner, name, json, typ, class string
	optional                      bool
	// identifies: it can hold text, an address or bytes.
	identifies bool
}

var classes = map[string]bool{"none": true, "target": true, "client": true, "network": true, "time": true, "foreign": true}

// fieldsOf type-checks the Go source in dir and returns the fields of each
// exported struct, by its name.
func fieldsOf(t *testing.T, dir string) map[string][]field {
	t.Helper()
	set := token.NewFileSet()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	pkg, err := (&types.Config{}).Check("measure", set, files, nil)
	if err != nil {
		t.Fatalf("this package imports nothing, and its types are checked without importing: %v", err)
	}
	out := map[string][]field{}
	for _, name := range pkg.Scope().Names() {
		s, ok := pkg.Scope().Lookup(name).Type().Underlying().(*types.Struct)
		if !ok || !token.IsExported(name) {
			continue
		}
		for i := range s.NumFields() {
			v, tag := s.Field(i), reflect.StructTag(s.Tag(i))
			key, options, _ := strings.Cut(tag.Get("json"), ",")
			out[name] = append(out[name], field{name, v.Name(), key, typeName(v.Type()), tag.Get("class"),
				strings.Contains(options, "omitempty"), identifies(v.Type())})
		}
	}
	return out
}

// identifies says whether a value of t itself holds text, an address or
// bytes; structs are looked at where they are declared.
func identifies(t types.Type) bool {
	switch u := t.Underlying().(type) {
	case *types.Basic:
		return u.Info()&types.IsString != 0
	case *types.Slice:
		b, ok := u.Elem().Underlying().(*types.Basic)
		return ok && b.Kind() == types.Byte || identifies(u.Elem())
	case *types.Array:
		b, ok := u.Elem().Underlying().(*types.Basic)
		return ok && b.Kind() == types.Byte || identifies(u.Elem())
	case *types.Map:
		return identifies(u.Key()) || identifies(u.Elem())
	case *types.Pointer:
		return identifies(u.Elem())
	case *types.Interface:
		return true
	}
	return false
}

// typeName is how the format document calls t.
func typeName(t types.Type) string {
	switch u := t.(type) {
	case *types.Pointer:
		return typeName(u.Elem())
	case *types.Slice:
		if b, ok := u.Elem().(*types.Basic); ok && b.Kind() == types.Byte {
			return "base64"
		}
		return typeName(u.Elem()) + "[]"
	case *types.Named:
		if _, ok := u.Underlying().(*types.Struct); ok {
			return u.Obj().Name()
		}
	}
	switch b := t.Underlying().(type) {
	case *types.Basic:
		switch {
		case b.Info()&types.IsString != 0:
			return "string"
		case b.Info()&types.IsInteger != 0:
			return "integer"
		case b.Kind() == types.Bool:
			return "boolean"
		}
	}
	return fmt.Sprintf("unsuitable for a record: %v", t)
}

func unclassified(all map[string][]field) (bad []string) {
	for _, fields := range all {
		for _, f := range fields {
			switch {
			case f.identifies && !classes[f.class]:
				bad = append(bad, f.owner+"."+f.name)
			case !f.identifies && f.class != "":
				bad = append(bad, f.owner+"."+f.name+" (no text, yet a class)")
			}
		}
	}
	return bad
}

func TestEveryIdentifyingFieldHasAClass(t *testing.T) {
	all := fieldsOf(t, ".")
	if len(all) < 20 {
		t.Fatalf("only %d structs found", len(all))
	}
	for _, bad := range unclassified(all) {
		t.Errorf("%s needs one of the classes of doc.go", bad)
	}
}

// The test above can fail.
func TestUnclassifiedFieldsAreFound(t *testing.T) {
	dir := t.TempDir()
	source := "package x\ntype S string\ntype T struct {\n\tA string `class:\"none\"`\n\tB S `json:\"b\"`\n\tC []byte\n\tD []S `class:\"secret\"`\n\tE int\n\tF [4]byte\n\tG *string\n\tH any\n\tI int `class:\"none\"`\n}\n"
	if err := os.WriteFile(dir+"/x.go", []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(unclassified(fieldsOf(t, dir)), " ")
	if want := "T.B T.C T.D T.F T.G T.H T.I (no text, yet a class)"; got != want {
		t.Errorf("found %s, want %s", got, want)
	}
}

// TestFormatDocument compares the tables of docs/formats/measurement-v1.md
// with the types.
func TestFormatDocument(t *testing.T) {
	text, err := os.ReadFile("../docs/formats/measurement-v1.md")
	if err != nil {
		t.Fatal(err)
	}
	all := fieldsOf(t, ".")
	documented := map[string]bool{}
	section, rows := "", map[string][]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "### "); ok {
			section = strings.Trim(name, "`")
			documented[section] = true
			if all[section] == nil {
				t.Errorf("the document describes %s, which is no type of measure", section)
			}
			continue
		}
		if section == "" || !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 4 {
			t.Errorf("%s: %d cells in %q", section, len(cells), line)
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if cells[3] == "" {
			t.Errorf("%s: %s has no meaning", section, cells[0])
		}
		rows[section] = append(rows[section], strings.Join([]string{strings.Trim(cells[0], "`"), cells[1], cells[2]}, " | "))
	}
	// What the lines of a file are made of.
	var walk func(name string)
	seen := map[string]bool{}
	walk = func(name string) {
		if seen[name] || all[name] == nil {
			return
		}
		seen[name] = true
		var want []string
		for _, f := range all[name] {
			typ := f.typ
			if f.optional {
				typ += "?"
			}
			want = append(want, strings.Join([]string{f.json, typ, f.class}, " | "))
		}
		if !documented[name] {
			t.Errorf("%s is not in the document", name)
		} else if got, want := strings.Join(rows[name], "\n"), strings.Join(want, "\n"); got != want {
			t.Errorf("%s differs. The document:\n%s\nThe type:\n%s", name, got, want)
		}
		for _, f := range all[name] {
			walk(strings.TrimSuffix(f.typ, "[]"))
		}
	}
	for _, name := range []string{"Run", "Measurement", "Verdict", "Location", "Identification", "Body", "End", "Connection"} {
		walk(name)
	}
	for name := range documented {
		if !seen[name] {
			t.Errorf("%s is in the document and in no line of a file", name)
		}
	}
}
