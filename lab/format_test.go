package lab

import (
	"encoding/csv"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"govah/lab/box"
	"govah/measure"
)

// FuzzScenario: whatever a file holds, it is refused with a reason or can be
// described.
func FuzzScenario(f *testing.F) {
	for _, name := range []string{"clean", "iran-2017", "hotel"} {
		if b, err := embedded.ReadFile("scenarios/" + name + ".toml"); err == nil {
			f.Add(b)
		}
	}
	f.Add([]byte(small("nat = true", trouble)))
	f.Add([]byte("schema = 1\n[[network]]\nname = 'a'\nhops = 3\n[[client-network]]\nname = 'b'\n[[site]]\nname = 'c'\ncount = 3"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 100_000 {
			return
		}
		s, err := Parse(b)
		if err != nil {
			if err.Error() == "" {
				t.Error("refused without a reason")
			}
			return
		}
		if s.Describe() == "" {
			t.Error("no description")
		}
	})
}

// TestPackages: gVisor is large, and of it the lab needs little.
func TestPackages(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Skipf("go list: %v", err)
	}
	n := strings.Count(string(out), "gvisor.dev/gvisor/")
	t.Logf("%d packages of gVisor", n)
	if n == 0 || n > 45 {
		t.Errorf("%d packages of gVisor, want about 40", n)
	}
}

// TestFormatIsDocumented: the keys of docs/formats/scenario-v1.md are those of
// the types, neither more nor less.
func TestFormatIsDocumented(t *testing.T) {
	b, err := os.ReadFile("../docs/formats/scenario-v1.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	for heading, typ := range map[string]reflect.Type{
		"## The top level": reflect.TypeFor[Scenario](), "## [[network]]": reflect.TypeFor[Network](), "## [[client-network]]": reflect.TypeFor[Client](),
		"### [client-network.line]": reflect.TypeFor[Line](), "### [[client-network.lie]]": reflect.TypeFor[Lie](),
		"### [client-network.intercept]": reflect.TypeFor[Intercept](), "### [client-network.web-proxy]": reflect.TypeFor[WebProxy](), "### [client-network.tcp-proxy]": reflect.TypeFor[TCPProxy](), "### [client-network.dns-redirect]": reflect.TypeFor[DNSRedirect](),
		"### [client-network.mail]": reflect.TypeFor[MailDevice](), "### [[site.mail]]": reflect.TypeFor[MailService](),
		"### [[client-network.box]]": reflect.TypeFor[BoxAt](), "### [[client-network.box.rule]]": reflect.TypeFor[box.Rule](),
		"### [[client-network.router]]": reflect.TypeFor[Router](), "### [[client-network.router.service]]": reflect.TypeFor[Service](),
		"## [[site]]": reflect.TypeFor[Site](), "### [[site.truth]]": reflect.TypeFor[Truth](),
	} {
		_, part, ok := strings.Cut(doc, "\n"+heading+"\n")
		if !ok {
			t.Errorf("no section %q", heading)
			continue
		}
		if i := strings.Index(part, "\n#"); i >= 0 {
			part = part[:i]
		}
		documented := map[string]bool{}
		for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+) \\|").FindAllStringSubmatch(part, -1) {
			for _, key := range regexp.MustCompile("`([a-z0-9-]+)`").FindAllStringSubmatch(row[1], -1) {
				documented[key[1]] = true
			}
		}
		names, _ := keysOf(typ)
		for _, name := range names {
			if !documented[name] {
				t.Errorf("%s does not explain %q", heading, name)
			}
			delete(documented, name)
		}
		for name := range documented {
			t.Errorf("%s explains %q, which there is not", heading, name)
		}
	}
	_, example, _ := strings.Cut(doc, "```toml\n")
	example, _, _ = strings.Cut(example, "```")
	if s, err := Parse([]byte(example)); err != nil || len(s.Sites) == 0 {
		t.Errorf("its example: %v", err)
	}
	for _, list := range [][]string{box.Actions, box.Layers, box.Forms["tls"], box.Forms["http"], box.Forms["dns"], MailActs} {
		for _, name := range list {
			if !strings.Contains(doc, "`"+name+"`") {
				t.Errorf("%q is not explained", name)
			}
		}
	}
}

// TestFacts: the rules of the built-in scenarios follow rows that exist.
func TestFacts(t *testing.T) {
	f, err := os.Open("../../shared/facts/interference.csv")
	if err != nil {
		t.Skipf("the table of facts is not here: %v", err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, r := range rows {
		known[r[0]] = true
	}
	used := 0
	for _, name := range Names() {
		s, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range s.Clients {
			var facts []string
			for _, b := range c.Boxes {
				for _, r := range b.Rules {
					facts = append(facts, r.Fact)
				}
			}
			for _, l := range c.Lies {
				facts = append(facts, l.Fact)
			}
			if c.Intercept != nil {
				facts = append(facts, c.Intercept.Fact)
			}
			for _, fact := range facts {
				if fact != "" && !known[fact] {
					t.Errorf("%s, client %s: there is no row %s", name, c.Name, fact)
				}
				if fact != "" {
					used++
				}
			}
		}
	}
	if used < 30 {
		t.Errorf("only %d rules name a row", used)
	}
}

// TestMethodsAreComplete: a truth can name every method of interference.
func TestMethodsAreComplete(t *testing.T) {
	b, err := os.ReadFile("../measure/verdict.go")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, m := range methods {
		have[string(m)] = true
	}
	for _, m := range regexp.MustCompile(`\n\t\w+\s+Method = "([a-z-]+)"`).FindAllStringSubmatch(string(b), -1) {
		if have[m[1]] == measure.Method(m[1]).Benign() {
			t.Errorf("method %s: in the list %v, benign %v", m[1], have[m[1]], measure.Method(m[1]).Benign())
		}
	}
}

// TestDates: rules, lies and truths that follow a calendar do.
func TestDates(t *testing.T) {
	s, err := Load("iran-2017")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		client, at string
		blocked    bool
	}{
		{"mci", "2017-12-30", false}, {"mci", "2017-12-31", true}, {"pars-online", "2017-12-31", false}, {"pars-online", "2018-01-01", true},
		{"irancell", "2018-01-01", false}, {"irancell", "2018-01-02", true}, {"mci", "2018-01-12T23:00", true}, {"mci", "2018-01-13", false},
	} {
		at, err := ParseTime(tt.at)
		if err != nil {
			t.Fatal(err)
		}
		w, err := New(s, Options{Client: tt.client, At: at})
		if err != nil {
			t.Fatal(err)
		}
		row := w.Truth()["https://telegram.org/"]
		if row == nil || (row.Interference == "confirmed") != tt.blocked {
			t.Errorf("%s on %s: the truth is %+v", tt.client, tt.at, row)
		}
		list, err := w.Network().Lookup(t.Context(), "telegram.org")
		forged := err == nil && len(list) > 0 && strings.HasPrefix(list[0].String(), "10.10.34.")
		if forged != tt.blocked {
			t.Errorf("%s on %s: telegram.org is %v, %v", tt.client, tt.at, list, err)
		}
		if list, err := w.Network().Lookup(t.Context(), "www.whatsapp.com"); err != nil || !w.where[list[0]].p4.Contains(list[0]) {
			t.Errorf("%s on %s: www.whatsapp.com is %v, %v", tt.client, tt.at, list, err)
		}
		w.Close()
	}
}
