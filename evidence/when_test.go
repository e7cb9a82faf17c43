package evidence

import (
	"bytes"
	"strings"
	"testing"

	"govah/evidence/receipt"
	"govah/measure"
)

// TestRedactTime: with the time withheld, nothing that others wrote down of it
// is left: the time of a helper's receipt, the headers of pages, in the
// measurement and in packets, in the clear and compressed. With it open they
// stay.
func TestRedactTime(t *testing.T) {
	key, _, err := receipt.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	const when = "Mon, 21 Sep 2026 14:13:"
	s := quietScene()
	s.carry = func(place string) []byte {
		switch place {
		case "page":
			return []byte("HTTP/1.1 200 OK\r\nServer: x\r\nDate: " + when + "20 GMT\r\n\r\nok")
		case "split":
			return []byte("HTTP/1.1 200 OK\r\nexpires: " + when + "21 GMT\r\n\r\nok")
		case "compressed":
			return []byte("\nDate: " + when + "22 GMT\r\n\r\n")
		}
		return []byte("nothing that is of anybody")
	}
	lines := s.lines(t)
	m := measure.Measurement{Type: "measurement", Schema: 1, Run: "r1", ID: "m2", Started: "2026-09-21T14:13:20.000001Z",
		Observations: append(looked(t, key, "o1", "o2", "an answer"), measure.Observation{ID: "o5", Step: measure.StepHTTP, Role: measure.RoleTest,
			HTTP: &measure.HTTP{Status: 200, Headers: []measure.Header{{Name: "Server", Value: "keeps"}, {Name: "Date", Value: when + "23 GMT"}, {Name: "last-modified", Value: when + "24 GMT"}, {Name: "Age", Value: "4711"}}}})}
	var b bytes.Buffer
	if err := line(&b, m); err != nil {
		t.Fatal(err)
	}
	sig, vkey := signer(t, 1)
	data, err := Seal(Sealing{Measurements: append(b.Bytes(), lines...), Packets: s.capture(t), Signer: sig, Key: vkey, secret: bytes.Repeat([]byte{9}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	sealed := opens(t, data)
	written := []string{"14:13:20 GMT", "14:13:23 GMT", "14:13:24 GMT", `"4711"`, "time 2026-09-21T14:13:20Z", "T14:13:20"}
	for _, c := range []struct {
		classes []Class
		left    bool
	}{{[]Class{Client, Time}, false}, {[]Class{Time}, false}, {[]Class{Client}, true}} {
		_, redacted := released(t, sealed, Redaction{Classes: c.classes})
		var all []byte
		for _, f := range redacted.Files {
			all = append(all, f.Data...)
		}
		for _, w := range written {
			if strings.Contains(string(all), w) != c.left {
				t.Errorf("%v withheld: %q is left: %v", c.classes, w, !c.left)
			}
		}
		if !strings.Contains(string(all), `"value":"keeps"`) {
			t.Errorf("%v withheld: a header that says no time is gone", c.classes)
		}
		// In the packets every stream that holds such a header: the three pages.
		d := &Document{Name: "c", Data: redacted.File(PacketsName).Data, Time: true}
		docs, _ := redacted.documents(false, true)
		for _, x := range docs {
			if x.Name == viewFolder+PacketsName {
				d.Withheld = x.Withheld
			}
		}
		if leaks := NewScanner(nil).Scan(d); (len(leaks) > 0) != c.left {
			t.Errorf("%v withheld: in the packets is left: %v", c.classes, leaks)
		}
	}
}
