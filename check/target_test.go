package check

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]string{
		"example.org":                    "https://example.org/",
		"Example.ORG.":                   "https://example.org/",
		"http://example.org":             "http://example.org/",
		"https://example.org:8443/a?b=c": "https://example.org:8443/a?b=c",
		"example.org:80":                 "http://example.org/",
		"example.org:22":                 "tcp://example.org:22",
		"ssh://Example.org":              "ssh://example.org:22",
		"ssh://example.org:2222/a/repo":  "ssh://example.org:2222",
		"ssh://[2001:db8::1]":            "ssh://[2001:db8::1]:22",
		"192.0.2.1:443":                  "https://192.0.2.1/",
		"[2001:db8::1]:22":               "tcp://[2001:db8::1]:22",
		"2001:db8::1":                    "https://[2001:db8::1]/",
		"http://яндекс.рф/":              "http://xn--d1acpjx3f.xn--p1ai/",
		"tls://example.org:853":          "tls://example.org:853",
		"a_b.example.org":                "https://a_b.example.org/",
	} {
		got, err := ParseTarget(in)
		if err != nil || got.URL != want {
			t.Errorf("ParseTarget(%q) = %q, %v; want %q", in, got.URL, err, want)
		}
	}
	for _, in := range []string{"", " ", "localhost", "ftp://example.org/", "http://", "https://user:pw@example.org/",
		"example.org:0", "example.org:99999", "tcp://example.org", "ssh://git@example.org", "exa mple.org", "a\x00b.org", "\u202Eexample.org",
		"http://[::1%25eth0]/", strings.Repeat("a", 5000) + ".org", "1.2.3", "999.1.1.1", "\xff.org",
		"https://.example.org/", "https://a..example.org/", "https://.xn--zn7c/", strings.Repeat("a", 64) + ".org"} {
		if got, err := ParseTarget(in); err == nil {
			t.Errorf("ParseTarget(%.30q) = %q, want an error", in, got.URL)
		}
	}
}

func TestParseList(t *testing.T) {
	plain := "# my list\nexample.org\n\nhttp://example.net/ # why\nexample.org\nnot a target\n" + strings.Repeat("x", 70<<10) + "\nexample.com"
	l, err := ParseList(strings.NewReader(plain), nil)
	if err != nil || len(l.Targets) != 3 || len(l.Problems) != 2 {
		t.Fatalf("plain: %d targets, problems %v, %v", len(l.Targets), l.Problems, err)
	}
	if l.Problems[0].Line != 6 || l.Problems[1].Line != 7 {
		t.Errorf("problem lines %v", l.Problems)
	}
	cl := "\xEF\xBB\xBFurl,category_code,category_description,date_added,source,notes\nhttps://a.example/,NEWS,News Media,2014-04-15,citizenlab,\"x, y\"\nhttps://b.example/,PORN,Pornography,2014-04-15,citizenlab,\nbroken line\n"
	l, _ = ParseList(strings.NewReader(cl), nil)
	if len(l.Targets) != 1 || l.Sensitive != 1 || len(l.Problems) != 1 || l.Targets[0].Category != "NEWS" {
		t.Fatalf("csv: %+v", l)
	}
	l, _ = ParseList(strings.NewReader(cl), []string{"porn"})
	if len(l.Targets) != 1 || l.Targets[0].Category != "PORN" {
		t.Fatalf("csv with a chosen category: %+v", l)
	}
}

// endless repeats its text without end.
type endless string

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e[i%len(e)]
	}
	return len(p), nil
}

// What has no end and is no list is refused, and what is kept of it bounded.
func TestParseListRefusesWhatIsNone(t *testing.T) {
	for _, in := range []endless{"\x00", "x\x00\n\n"} {
		l, err := ParseList(in, nil)
		if err == nil || !strings.Contains(err.Error(), "no list") || len(l.Problems) > maxProblems {
			t.Errorf("%q: %d problems, %v", string(in), len(l.Problems), err)
		}
	}
	// A long list with many bad lines is one.
	var b strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&b, "a%d.example\nb%d.example\nbad line\n", i, i)
	}
	l, err := ParseList(strings.NewReader(b.String()+"a1.example\n"), nil)
	if err != nil || len(l.Targets) != 6000 || l.Skipped != 3000 || len(l.Problems) != maxProblems || l.Double != 1 {
		t.Errorf("%d targets, %d skipped, %d problems, %d double, %v", len(l.Targets), l.Skipped, len(l.Problems), l.Double, err)
	}
}

func FuzzParseList(f *testing.F) {
	f.Add("url,category_code\nhttps://a.example/,NEWS\n")
	f.Add("example.org\n[::1]:22\n")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseList(strings.NewReader(s), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range l.Targets {
			again, err := ParseTarget(target.URL)
			if err != nil || again.URL != target.URL {
				t.Fatalf("%q is not stable: %q, %v", target.URL, again.URL, err)
			}
		}
	})
}
