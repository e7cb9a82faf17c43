package check_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"govah/identify"
	"govah/measure"
)

// found are the properties of an identification by name.
func found(id *measure.Identification) map[string]string {
	m := map[string]string{}
	for _, p := range id.Properties {
		m[p.Name] = p.Value
	}
	return m
}

// TestMarks: two devices that differ in one mark of the packets they send are
// told apart by that mark alone where packets may be captured, and are one
// behaviour with or without.
func TestMarks(t *testing.T) {
	const reset = "action = \"reset\"\nends = \"client\"\n"
	for _, c := range []struct {
		name, payload, rule, more string
		values                    [2]string // of the mark that differs
		implied                   []string  // other marks that cannot but differ too
	}{
		{"ip-ttl", "tls", reset + "ttl = 64", "ttl = 128", [2]string{"64", "128"}, nil},
		{"ip-ttl", "http", reset + "count = 3", "growing = true", [2]string{"64", "rising"}, []string{"window"}},
		{"ip-ttl", "dns", "action = \"dns-answer\"\nanswers = [\"192.0.2.9\"]", "random-ttl = true", [2]string{"64", "varied"}, nil},
		{"ip-id", "tls", reset + "ipid = 30000", "ipid = 13330", [2]string{"0x7530", "0x3412"}, nil},
		{"ip-id", "tls", reset, "copy-ipid = true", [2]string{"zero", "copied"}, nil},
		{"ip-id", "http", reset + "ipid = 700", "count-ipid = true", [2]string{"0x02bc", "+1"}, nil},
		{"ip-id", "tls", reset + "ipid = 7", "random-ipid = true", [2]string{"0x0007", "varied"}, nil},
		{"ip-id", "http", reset + "count = 2\ncopy-ipid = true", "ipid-steps = [4, 5]", [2]string{"copied", "ours+4,ours+5"}, nil},
		{"ip-id", "dns", "action = \"dns-answer\"\nanswers = [\"192.0.2.9\"]\nipid = 1", "ipid = 30000", [2]string{"0x0001", "0x7530"}, nil},
		// IR-16: silence, but for a push with our number.
		{"ip-id", "tls", "action = \"drop\"\npush = 1", "copy-ipid = true", [2]string{"zero", "copied"}, nil},
		{"df", "tls", reset, "df = true", [2]string{"no", "yes"}, nil},
		{"flags", "tls", reset, "flags = \"R\"", [2]string{"RA", "R"}, []string{"ack"}},
		{"flags", "tls", reset + "count = 3", "flags = \"R RA RA\"", [2]string{"RA,RA,RA", "R,RA,RA"}, []string{"ack"}},
		{"packets", "tls", reset, "count = 3", [2]string{"1", "3"}, []string{"flags", "spacing"}},
		{"window", "tls", reset, "window = 1234", [2]string{"zero", "1234"}, nil},
		{"window", "tls", reset + "window = 7", "random-window = true", [2]string{"7", "varied"}, nil},
		{"window", "http", reset + "count = 3\nwindow = 50", "growing = true", [2]string{"50", "rising"}, []string{"ip-ttl"}},
		{"seq", "tls", reset + "count = 2", "offsets = [0, 12503]", [2]string{"expected", "expected,+12503"}, nil},
		{"ack", "tls", reset, "ack = \"+3\"", [2]string{"expected", "seq+3"}, nil},
		{"ack", "tls", reset, "ack = \"zero\"", [2]string{"expected", "zero"}, nil},
		{"payload", "http", reset, "data = \"\\u0001\\u0002\"", [2]string{"none", "0102"}, nil},
		{"spacing", "tls", reset + "count = 3", "interval = \"30ms\"", [2]string{"<10ms", "10-100ms"}, nil},
	} {
		t.Run(c.name+" "+c.values[0]+" "+c.values[1], func(t *testing.T) {
			t.Parallel()
			// Both devices, and the second without the right to capture.
			var ids [3]*measure.Identification
			var errs [3]error
			var all sync.WaitGroup
			for i, more := range []string{"", c.more, c.more} {
				all.Go(func() {
					r := reading{rule: override(c.rule, more), payload: c.payload, nowhere: c.payload == "dns", privileged: i < 2}
					ids[i], errs[i] = r.search(t.Context())
				})
			}
			all.Wait()
			if err := errors.Join(errs[:]...); err != nil {
				t.Fatal(err)
			}
			var seen [2]map[string]string
			for i := range seen {
				seen[i] = found(ids[i])
				t.Logf("%s: %v", ids[i].Cluster, seen[i])
				if got := seen[i][c.name]; got != c.values[i] {
					t.Errorf("%s is %q, want %q", c.name, got, c.values[i])
				}
			}
			for name := range found(ids[2]) {
				if slices.Contains([]string{"ip-ttl", "ip-id", "df", "flags", "packets", "window", "seq", "ack", "payload", "spacing"}, name) {
					t.Errorf("%s is known without a capture", name)
				}
			}
			if a, b := ids[0].Cluster, ids[1].Cluster; a != b || b != ids[2].Cluster {
				t.Errorf("the clusters are %s, %s, and %s without a capture", a, b, ids[2].Cluster)
			}
			for name, v := range seen[0] {
				if w := seen[1][name]; v != w && name != c.name && !slices.Contains(c.implied, name) && name != "spacing" && !slices.Contains(identify.Forms(c.payload), name) {
					t.Errorf("%s differs too: %q and %q", name, v, w)
				}
			}
		})
	}
}

// override is a rule with a key given anew.
func override(rule, more string) string {
	key, _, _ := strings.Cut(more, " = ")
	lines := slices.DeleteFunc(strings.Split(rule, "\n"), func(line string) bool { return key != "" && strings.HasPrefix(line, key+" = ") })
	return strings.Join(append(lines, more), "\n")
}
