package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"govah/measure"
	"govah/record"
)

// plant makes the table and counts of files that are cut.
func plant(t interface{ Fatal(...any) }, files []File) ([]Entry, Counts) {
	entries, counts, err := tabulate(files, bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return entries, counts
}

// cutFile is a file of random segments.
func cutFile(t *rapid.T, name string) File {
	f := File{Name: name, Kind: rapid.SampledFrom([]FileKind{Text, Binary, Whole}).Draw(t, "kind")}
	n := rapid.IntRange(0, 40).Draw(t, "segments")
	if f.Kind == Whole {
		n = 1
	}
	for range n {
		s := Segment{Class(rapid.IntRange(0, classes-1).Draw(t, "class")), rapid.IntRange(1, 30).Draw(t, "length")}
		f.Segments = append(f.Segments, s)
		f.Data = append(f.Data, rapid.SliceOfN(rapid.SampledFrom([]byte{0, '"', '0', 'w', 1}), s.Length, s.Length).Draw(t, "data")...)
	}
	f.setSize()
	return f
}

// TestWithholding: whatever is withheld, in whatever order, the root stays,
// the table can be read and is the only one, and no file grows.
func TestWithholding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		files := []File{cutFile(t, "a"), cutFile(t, "b"), {Name: "c", Kind: Whole, Data: []byte("c"), Segments: []Segment{{None, 1}}, Size: 1}}
		entries, counts := plant(t, files)
		values, err := place(files, entries)
		if err != nil {
			t.Fatal(err)
		}
		of := func(i int) []byte { return values[i] }
		root, err := rootOf(entries, values)
		if err != nil {
			t.Fatal(err)
		}
		full := len(encodeTable(entries))
		for range 3 {
			var away [classes]bool
			for c := range away {
				away[c] = rapid.Bool().Draw(t, "away")
			}
			old := values
			gone := withhold(entries, of, func(e *Entry) bool { return away[e.Class] })
			files = render(files, gone, opened(entries, gone, func(i int) []byte { return old[i] }))
			encoded := encodeTable(gone)
			if entries, err = parseTable(encoded, counts); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(entries, gone) || len(encoded) > full {
				t.Fatalf("%d bytes of table, %d before; equal %v", len(encoded), full, slices.Equal(entries, gone))
			}
			if values, err = place(files, entries); err != nil {
				t.Fatal(err)
			}
			of = func(i int) []byte { return values[i] }
			again, err := rootOf(entries, values)
			if err != nil {
				t.Fatal(err)
			}
			if again != root {
				t.Fatal("another root")
			}
		}
	})
}

// TestTableHasOneForm: a table whose withheld siblings are not one hash is
// refused although its root is right.
func TestTableHasOneForm(t *testing.T) {
	f := File{Name: "a", Kind: Text, Data: []byte("abcd"), Segments: []Segment{{Target, 1}, {Target, 1}, {Target, 1}, {Target, 1}}}
	f.setSize()
	entries, _ := plant(t, []File{f})
	loose := slices.Clone(entries)
	for i := range loose {
		loose[i] = Entry{Class: Target, Hash: newInnerHasher().hash(&loose[i], f.Data[i:i+1])}
	}
	if _, err := rootOf(loose, nil); err != errNotCollapsed {
		t.Errorf("loose: %v", err)
	}
	one := withhold(entries, func(i int) []byte { return f.Data[i : i+1] }, func(*Entry) bool { return true })
	if len(one) != 1 || one[0].Level != 2 {
		t.Fatalf("%+v", one)
	}
	if _, err := rootOf(one, nil); err != nil {
		t.Error(err)
	}
}

// fill gives every field of v a value that says its class.
func fill(v reflect.Value, class string, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), class, n)
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if f.Name == "Type" && f.Tag.Get("json") == "type" && v.Field(i).String() != "" {
				continue
			}
			class := f.Tag.Get("class")
			if v.Field(i).Kind() == reflect.Int || v.Field(i).Kind() == reflect.Int64 {
				class = numbers[v.Type().Name()+"."+f.Name].String()
			}
			fill(v.Field(i), class, n)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(fmt.Appendf(nil, "planted-%s-%d", class, *n))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), class, n)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("planted-%s-%d \"\\é", class, *n))
	case reflect.Int, reflect.Int64:
		if class == "none" || class == "" {
			v.SetInt(1)
		} else {
			v.SetInt(777_000_000 + int64(*n))
		}
	case reflect.Bool:
		v.SetBool(true)
	}
}

// whole is a file with every field of every line set.
func whole(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	n := 0
	for kind, typ := range lineTypes {
		v := reflect.New(typ).Elem()
		v.FieldByName("Type").SetString(string(kind))
		fill(v, "none", &n)
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v.Interface()); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// TestEveryFieldIsWithheld: with all classes withheld nothing that can
// identify is left of any field of any line, and the file can still be read.
func TestEveryFieldIsWithheld(t *testing.T) {
	f := Measurements("m", whole(t))
	if err := f.checkSegments(); err != nil {
		t.Fatal(err)
	}
	files := []File{f}
	entries, _ := plant(t, files)
	values, err := place(files, entries)
	if err != nil {
		t.Fatal(err)
	}
	of := func(i int) []byte { return values[i] }
	gone := withhold(entries, of, func(e *Entry) bool { return e.Class != None })
	out := string(render(files, gone, opened(entries, gone, of))[0].Data)
	for _, tag := range []string{"planted-target", "planted-client", "planted-network", "planted-time", "planted-foreign", "777000"} {
		if i := strings.Index(out, tag); i >= 0 {
			t.Errorf("%s is left: %s", tag, out[max(0, i-100):i+40])
		}
		if !strings.Contains(string(f.Data), tag) && tag != "planted-client" {
			t.Errorf("%s was not planted", tag)
		}
	}
	for line := range strings.Lines(out) {
		if _, err := record.Decode([]byte(strings.TrimSpace(line))); err != nil {
			t.Errorf("%v: %.300s", err, line)
		}
	}
}

// TestWhatIsNotKnown: a line that is not wholly known is withheld wholly.
func TestWhatIsNotKnown(t *testing.T) {
	for _, line := range []string{
		`{"test_name":"web_connectivity","input":"secret"}`,
		`{"type":"end","schema":1,"run":"r","extra":"secret"}`,
		`{"type":"end","schema":1,"run":{"a":"secret"}}`,
		`{"type":"later","note":"secret"}`,
		`{"type":"end","run":"secret`,
		`secret`,
	} {
		f := Measurements("m", []byte("\n"+line+"\n"))
		if want := []Segment{{None, 1}, {Foreign, len(line)}, {None, 1}}; !slices.Equal(f.Segments, want) {
			t.Errorf("%s: %v", line, f.Segments)
		}
	}
}

// TestNumbersExist: every integer that is said to identify is there, and every
// one that is named as AS or port is said to or known not to.
func TestNumbersExist(t *testing.T) {
	harmless := []string{"Mail.Port", "MailGreeter.Port", "Statement.Port", "Volunteer.Port"}
	seen := map[string]bool{}
	var walk func(t reflect.Type)
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ.Name()] {
			return
		}
		seen[typ.Name()] = true
		for i := range typ.NumField() {
			f := typ.Field(i)
			name := typ.Name() + "." + f.Name
			seen[name] = true
			if f.Type.Kind() == reflect.Int && (strings.HasSuffix(f.Name, "ASN") || strings.HasSuffix(f.Name, "Port")) && numbers[name] == None && !slices.Contains(harmless, name) {
				t.Errorf("%s is an AS or a port: whose?", name)
			}
			walk(f.Type)
		}
	}
	for _, typ := range lineTypes {
		walk(typ)
	}
	for name := range numbers {
		if !seen[name] {
			t.Errorf("%s is no field of a line", name)
		}
	}
	_ = measure.Run{}
}

func FuzzTable(f *testing.F) {
	files := []File{{Name: "a", Kind: Text, Data: []byte("abcdefgh"), Segments: []Segment{{None, 1}, {Target, 2}, {None, 1}, {Target, 2}, {Client, 2}}}}
	files[0].setSize()
	entries, counts := plant(f, files)
	f.Add(encodeTable(entries), uint32(2), uint32(2), uint32(1))
	at := []int{0, 3, 1, 4, 6}
	_ = counts
	f.Add(encodeTable(withhold(entries, func(i int) []byte { return files[0].Data[at[i] : at[i]+int(entries[i].Length)] }, func(e *Entry) bool { return e.Class == Target })), uint32(2), uint32(2), uint32(1))
	f.Add([]byte{25}, uint32(1<<24), uint32(1<<31), uint32(1<<31))
	f.Fuzz(func(t *testing.T, b []byte, none, target, client uint32) {
		c := Counts{none, target, client}
		entries, err := parseTable(b, c)
		if err != nil {
			return
		}
		if !bytes.Equal(encodeTable(entries), b) {
			t.Fatalf("another table says the same: %x", b)
		}
	})
}

func FuzzMeasurements(f *testing.F) {
	f.Add([]byte(`{"type":"run","schema":1,"run":"r","helpers":["https://a","b"],"started":"x"}` + "\n" + `{"type":"end"` + "\n"))
	f.Add([]byte(`{"type":"measurement","vantage":{"asn":1,"country":"IR"},"observations":[{"dns":{"name":"a\"b","replies":[{"answers":[{"value":"c","asn":-1.5e3}]}]}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		file := Measurements("m", b)
		if err := file.checkSegments(); err != nil {
			t.Fatal(err)
		}
	})
}
