package receipt

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"govah/measure"
)

var at = time.Date(2026, 11, 28, 4, 30, 0, 0, time.UTC)

const nonce = "BEVC2ZXQNRPYJ7PNXRZGBUJLYE"

// seen is an observation with every field set that has a value of its kind.
func seen() measure.Observation {
	var o measure.Observation
	fill(reflect.ValueOf(&o).Elem(), 0)
	o.ID, o.After, o.Step, o.Role, o.Receipt = "h2", "h1", measure.StepTLS, measure.RoleHelper, nil
	return o
}

func fill(v reflect.Value, depth int) {
	if depth > 6 {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), depth+1)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), depth+1)
		}
	case reflect.String:
		v.SetString("a <\u2028é\n\\u2028\"")
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Bool:
		v.SetBool(true)
	}
}

// made is a measurement with one receipt, as a client keeps it.
func made(t *testing.T) (list []measure.Observation, key *Key) {
	t.Helper()
	key, _, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := json.Marshal(measure.HelperRequest{Schema: 1, Nonce: nonce, URL: "https://example.org/", Wants: []string{"receipt"}})
	if err != nil {
		t.Fatal(err)
	}
	first := measure.Observation{ID: "h1", Step: measure.StepDNS, Role: measure.RoleHelper, DNS: &measure.DNS{Name: "example.org", Type: "A"}}
	note, err := key.Sign(at, 64500, request, nonce, []measure.Observation{first, seen()})
	if err != nil {
		t.Fatal(err)
	}
	url := "https://192.0.2.1:8443/#sha256=00&receipt=" + key.Public()
	first.ID, first.Helper, first.StartUS = "o4", url, 1234
	second := seen()
	second.ID, second.After, second.Helper, second.Stage, second.StartUS, second.ASN = "o5", "o4", url, measure.StageConfirm, 99, 5
	second.Role = measure.RoleHelper
	for i := range second.DNS.Replies {
		second.DNS.Replies[i].AtUS += 1234
	}
	return []measure.Observation{
		{ID: "o3", Step: measure.StepHelper, Role: measure.RoleHelper, Helper: url, Receipt: &measure.Receipt{Note: note, Key: key.Public(), Request: string(request),
			Covers: []measure.Covered{{ID: "o4", As: "h1"}, {ID: "o5", As: "h2"}}}},
		first, second,
	}, key
}

func TestCheck(t *testing.T) {
	t.Parallel()
	list, key := made(t)
	got := Check(list, 100)
	if len(got) != 1 || got[0].Err != nil || !got[0].Pinned || got[0].ASN != 64500 || !got[0].Time.Equal(at) || !slices.Equal(got[0].Covers, []string{"o4", "o5"}) || got[0].Missing != nil {
		t.Fatalf("%+v", got)
	}
	if strings.Contains(list[0].Receipt.Note, "example.org") || strings.Contains(list[0].Receipt.Note, nonce) {
		t.Errorf("the note tells what was asked: %s", list[0].Receipt.Note)
	}
	other, _, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	again, _ := made(t)
	for name, c := range map[string]struct {
		change func(o *measure.Observation)
		want   string
	}{
		"forged: another key":     {func(o *measure.Observation) { o.Receipt.Key = other.Public() }, "not the one in the helper's URL"},
		"forged: and another URL": {func(o *measure.Observation) { o.Receipt.Key = other.Public(); o.Helper = "https://192.0.2.1/" }, "not signed"},
		"altered note": {func(o *measure.Observation) {
			o.Receipt.Note = strings.Replace(o.Receipt.Note, "AS64500", "AS64501", 1)
		}, "not signed"},
		"of another helper": {func(o *measure.Observation) { o.Receipt.Note = again[0].Receipt.Note }, "not signed"},
		"replayed: another nonce": {func(o *measure.Observation) {
			o.Receipt.Request = strings.Replace(o.Receipt.Request, nonce, nonce+"A", 1)
		}, "another request"},
		"another target": {func(o *measure.Observation) {
			o.Receipt.Request = strings.Replace(o.Receipt.Request, ".org", ".com", 1)
		}, "another request"},
		"a key that is none":           {func(o *measure.Observation) { o.Helper, o.Receipt.Key = "", "zz" }, "hexadecimal"},
		"a URL with a key that is not": {func(o *measure.Observation) { o.Helper = "https://192.0.2.1/#receipt=00" }, "hexadecimal"},
	} {
		o := list[0]
		r := *o.Receipt
		o.Receipt = &r
		c.change(&o)
		if got := Check([]measure.Observation{o, list[1], list[2]}, 100); len(got) != 1 || got[0].Err == nil || !strings.Contains(got[0].Err.Error(), c.want) || got[0].Covers != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	// An observation under another name, or of another helper, or somebody else's.
	for name, change := range map[string]func(list []measure.Observation){
		"swapped":        func(l []measure.Observation) { l[1].ID, l[2].ID = "o5", "o4" },
		"not there":      func(l []measure.Observation) { l[2].ID = "o9" },
		"other helper":   func(l []measure.Observation) { l[2].Helper = "https://192.0.2.2/" },
		"own":            func(l []measure.Observation) { l[2].Role = measure.RoleTest },
		"after another":  func(l []measure.Observation) { l[2].After = "o3" },
		"after nothing":  func(l []measure.Observation) { l[2].After = "" },
		"another answer": func(l []measure.Observation) { l[2].Failure = measure.ConnectionReset },
	} {
		l := slices.Clone(list)
		change(l)
		if got := Check(l, 100); got[0].Err != nil || len(got[0].Missing) == 0 || slices.Contains(got[0].Covers, "o5") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	// What was taken out is not called forged, and is not covered either.
	l := slices.Clone(list)
	l[2].SNI = withheld
	if got := Check(l, 100); got[0].Err != nil || !slices.Equal(got[0].Covers, []string{"o4"}) || !slices.Equal(got[0].Withheld, []string{"o5"}) || got[0].Missing != nil {
		t.Errorf("a value withheld: %+v", got)
	}
	for _, take := range []func(*measure.Receipt){func(r *measure.Receipt) { r.Note = withheld }, func(r *measure.Receipt) { r.Request = withheld }, func(r *measure.Receipt) { r.Key = withheld }} {
		o := list[0]
		r := *o.Receipt
		take(&r)
		o.Receipt = &r
		if got := Check([]measure.Observation{o, list[1], list[2]}, 100); !errors.Is(got[0].Err, ErrWithheld) || got[0].Covers != nil {
			t.Errorf("a receipt withheld: %+v", got)
		}
	}
	// Two of one id: readers may take either, in whichever order they come.
	forged := list[2]
	forged.Failure = measure.ConnectionReset
	for i := range 4 {
		if got := Check(slices.Insert(slices.Clone(list), i, forged), 100); len(got) != 1 || !slices.Equal(got[0].Covers, []string{"o4"}) || !slices.Equal(got[0].Missing, []string{"o5"}) {
			t.Errorf("a second one before %d: %+v", i, got)
		}
	}
	if got := Check(slices.Concat(list[:1], list[:1], list), 2); len(got) != 2 {
		t.Errorf("%d are checked, and 2 were to be", len(got))
	}
	if got := Check(list[1:], 100); got != nil {
		t.Errorf("no receipt: %+v", got)
	}
	if _, err := key.Sign(at, 0, nil, "short", nil); err == nil {
		t.Error("a nonce that can be guessed is signed")
	}
	unknown, err := key.Sign(at, 0, nil, nonce, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Open(unknown, key.Public()); err != nil || r.ASN != 0 || r.Seen() != 0 {
		t.Errorf("%+v %v", r, err)
	}
}

// Whatever of an observation a receipt is about: changed, it is another.
func TestEveryFieldCounts(t *testing.T) {
	t.Parallel()
	list, _ := made(t)
	var walk func(path []string, tr tree)
	n := 0
	walk = func(path []string, tr tree) {
		for name, sub := range tr {
			path := append(slices.Clone(path), name)
			if sub != nil {
				walk(path, sub)
				continue
			}
			l := slices.Clone(list)
			if name == "id" || name == "after" && len(path) == 1 {
				continue // of TestCheck
			}
			l[2] = changed(t, list[2], path)
			if got := Check(l, 100); got[0].Err != nil || !slices.Equal(got[0].Missing, []string{"o5"}) {
				t.Errorf("%v changed: %+v", path, got[0])
			}
			n++
		}
	}
	walk(nil, fields)
	if n < 60 {
		t.Errorf("only %d fields", n)
	}
}

// changed is a copy of an observation in which one value, found by its names
// in JSON, is another.
func changed(t *testing.T, o measure.Observation, path []string) measure.Observation {
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	var v any = m
	for i, name := range path {
		if list, ok := v.([]any); ok {
			v = list[len(list)-1]
		}
		in, ok := v.(map[string]any)
		if !ok || in[name] == nil {
			t.Fatalf("no %v in an observation", path)
		}
		if i < len(path)-1 {
			v = in[name]
			continue
		}
		switch x := in[name].(type) {
		case string:
			in[name] = x + "x"
		case float64:
			in[name] = x + 1
		case bool:
			in[name] = !x
		case []any:
			in[name] = x[:1]
		}
	}
	if text, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	var out measure.Observation
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestCanonical: a hash that another implementation makes from the document.
func TestCanonical(t *testing.T) {
	o := measure.Observation{ID: "h2", After: "h1", Step: measure.StepHTTP, Role: measure.RoleHelper, Family: measure.IPv4, ASN: 7, StartUS: 5, TookUS: 12,
		URL: "https://example.org/?a=1&b=<é>", HTTP: &measure.HTTP{Status: 200, Title: "a\u2028\t\"", Headers: []measure.Header{{Name: "A"}, {Name: "B", Value: "c"}}}}
	want := "{\"after\":\"h1\",\"http\":{\"headers\":[{\"name\":\"A\"},{\"name\":\"B\",\"value\":\"c\"}],\"status\":200,\"title\":\"a\u2028\\t\\\"\"},\"id\":\"h2\",\"step\":\"http\",\"took_us\":12,\"url\":\"https://example.org/?a=1&b=<é>\"}"
	if got := string(canonical(o)); got != want {
		t.Errorf("\n%s\n%s", got, want)
	}
	if got, want := digest(nonce, o), "3940733ac709290ae4c7ac96cb81d83cff818d2310d05feb0e57fa0599e88b8d"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestDocument: the fields are those of the document.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/formats/helper-v1.md")
	if err != nil {
		t.Fatal(err)
	}
	var walk func(prefix string, tr tree) []string
	walk = func(prefix string, tr tree) (out []string) {
		for name, sub := range tr {
			if sub == nil {
				out = append(out, prefix+name)
			} else {
				out = append(out, walk(prefix+name+".", sub)...)
			}
		}
		return out
	}
	want := walk("", fields)
	slices.Sort(want)
	if !strings.Contains(string(text), "`"+strings.Join(want, "` `")+"`") {
		t.Errorf("docs/formats/helper-v1.md does not list:\n`%s`", strings.Join(want, "` `"))
	}
}

func TestKey(t *testing.T) {
	k, text, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ReadKey(text + "\n")
	if err != nil || again.Public() != k.Public() {
		t.Errorf("%v", err)
	}
	if raw, err := hex.DecodeString(k.Public()); err != nil || len(raw) != 32 {
		t.Error(k.Public())
	}
	for _, bad := range []string{"", "x", strings.Replace(text, "helper", "other", 1), text[:len(text)-3], "PRIVATE+KEY+a+b+c"} {
		if _, err := ReadKey(bad); err == nil {
			t.Errorf("read %q", bad)
		}
	}
}

// FuzzOpen: a receipt has one form, and what is not signed is refused.
func FuzzOpen(f *testing.F) {
	key, err := ReadKey("PRIVATE+KEY+" + KeyName + "+5ed10691+AQcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH")
	if err != nil {
		f.Fatal(err)
	}
	good, err := key.Sign(at, 64500, []byte("{}"), nonce, []measure.Observation{{ID: "h1", Step: measure.StepTCP}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	body, _, _ := strings.Cut(good, "\n\n")
	f.Add(body + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := Open(text, key.Public()); err == nil && text != good {
			t.Errorf("accepted %q", text)
		}
		r, err := parse(text)
		if err != nil {
			return
		}
		out := origin + "\ntime " + r.Time.UTC().Format(time.RFC3339) + "\n"
		if r.ASN > 0 {
			out += fmt.Sprintf("client AS%d\n", r.ASN)
		} else {
			out += "client unknown\n"
		}
		out += "request " + r.request + "\n"
		for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
			if id, sum, ok := strings.Cut(line, " "); ok && r.seen[id] == sum {
				out += line + "\n"
			}
		}
		if strings.TrimSuffix(out, "\n") != strings.TrimSuffix(text, "\n") {
			t.Errorf("%q is read as %q", text, out)
		}
	})
}
