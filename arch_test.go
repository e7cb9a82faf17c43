// Package govah_test holds the architecture: which package may import which,
// as the table that docs/design and CONTRIBUTING.md refer to. It reads the
// sources, for all systems, and needs no build.
package govah_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ours is what each package may import of this module. A package that is not
// in it does not exist: whoever adds one decides here what it may know.
var ours = map[string][]string{
	"measure":             {},
	"packet":              {},
	"known":               {"measure"},
	"record":              {"measure"},
	"ooni":                {"measure"},
	"judge":               {"measure", "known"},
	"identify":            {"measure", "known"},
	"evidence":            {"measure", "packet", "record", "evidence/tlog", "evidence/receipt"},
	"evidence/keyring":    {"evidence/lock"},
	"evidence/lock":       {},
	"evidence/tlog":       {},
	"evidence/tlog/serve": {"evidence/tlog", "evidence/lock"},
	"evidence/receipt":    {"measure"},
	"report":              {"measure", "internal/i18n"},
	"exposure":            {"measure", "packet", "known"},
	"wire":                {"measure", "packet", "evidence/receipt"},
	"wire/host":           {"measure", "packet", "wire"},
	"lab":                 {"measure", "packet", "wire", "lab/box"},
	"lab/box":             {"packet"},
	"lab/kernel":          {"lab", "lab/box", "packet", "wire", "measure"}, // test support: a kernel's client in front of a world
	"locate":              {"measure", "packet", "wire"},
	"check":               {"measure", "known", "wire", "judge", "identify"},
	"helper":              {"measure", "packet", "wire", "evidence/receipt"},
	"internal/cli":        {"*"},
	"internal/i18n":       {},
	"internal/geo":        {},
	"internal/geo/gen":    {"internal/geo"},
	"internal/consent":    {},
	"cmd/govah":           {"internal/cli"},
	"cmd/govah-man":       {"internal/cli"}, // the manual, apart for the size of the other
}

// internals are packages below internal/ that only their owners may import.
var internals = map[string][]string{
	"internal/i18n":    {"internal/cli", "report"},
	"internal/geo":     {"internal/cli", "internal/geo/gen"},
	"internal/consent": {"internal/cli"},
	"internal/cli":     {"cmd/govah", "cmd/govah-man"},
}

// theirs is which packages may import which module or package of others; the
// longest prefix counts.
var theirs = map[string][]string{
	"filippo.io/age":                          {"evidence/keyring"},
	"github.com/BurntSushi/toml":              {"lab", "known"},
	"github.com/klauspost/compress":           {"record", "ooni"},
	"github.com/miekg/dns":                    {"packet", "wire", "lab", "lab/box", "helper"},
	"github.com/oschwald/maxminddb-golang/v2": {"internal/geo/gen"},
	"github.com/quic-go/quic-go":              {"wire", "lab", "helper"},
	"github.com/refraction-networking/utls":   {"wire"},
	"github.com/spf13/cobra":                  {"internal/cli", "cmd/govah-man"},
	"github.com/spf13/pflag":                  {"internal/cli"},
	"golang.org/x/crypto/ssh":                 {"wire"},
	"golang.org/x/crypto/x509roots/fallback":  {"internal/cli"},
	"golang.org/x/mod/sumdb/note":             {"evidence", "evidence/tlog", "evidence/tlog/serve", "evidence/keyring", "evidence/receipt"},
	"golang.org/x/mod/sumdb/tlog":             {"evidence/tlog", "evidence/tlog/serve"},
	"golang.org/x/net/bpf":                    {"wire/host", "lab/kernel"},
	"golang.org/x/net/http2":                  {"wire", "lab", "helper"},
	"golang.org/x/net/idna":                   {"check", "wire", "lab", "known", "ooni"},
	"golang.org/x/net/ipv4":                   {"wire/host", "lab/kernel"},
	"golang.org/x/net/ipv6":                   {"wire/host", "lab/kernel"},
	"golang.org/x/sys":                        {"wire/host", "lab/kernel", "internal/cli"},
	"golang.org/x/text":                       {"internal/i18n", "report", "check"},
	"gvisor.dev/gvisor":                       {"lab"},
}

// forTests may be imported by any test.
var forTests = []string{"golang.org/x/mod/sumdb/note", "github.com/google/go-cmp", "github.com/gopacket/gopacket", "github.com/rogpeppe/go-internal", "pgregory.net/rapid", "golang.org/x/net/html", "golang.org/x/crypto/ssh", "filippo.io/age"}

// forExternalTests are packages of ours that any test in a package of its own
// (package x_test) may import.
var forExternalTests = []string{"lab", "lab/box", "lab/kernel", "helper", "wire/host", "record", "judge", "packet", "evidence/receipt"}

// oneFile are modules that one file alone may import.
var oneFile = []string{"github.com/refraction-networking/utls"}

// pure packages conclude from what they are given: no clock, no files, no
// network, no chance.
var pure = []string{"measure", "judge", "identify"}

var impure = []string{"os", "os/exec", "io/fs", "net", "net/http", "math/rand", "math/rand/v2", "crypto/rand", "syscall", "embed"}

// mayDial are the packages that open sockets of the kernel; the lab opens
// those of its own stack. Everybody else measures on a wire.Network.
var mayDial = []string{"wire/host", "lab/kernel"}

// mayDialFiles contact a log or a witness whom the user named, with the one
// client that internal/cli/tlog.go makes; no other part of the command, and
// nothing else that makes, reads or verifies evidence, contacts anybody.
var mayDialFiles = []string{"internal/cli/tlog.go", "evidence/tlog/client.go", "evidence/tlog/serve/publish.go"}

const module = "govah"

type source struct {
	pkg, file string
	test      bool
	external  bool
	tree      *ast.File
	imports   []string
}

func sources(t *testing.T) (list []source) {
	t.Helper()
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && p != "." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata") {
			return filepath.SkipDir
		}
		if _, err := os.Stat(filepath.Join(p, "go.mod")); d.IsDir() && p != "." && err == nil {
			return filepath.SkipDir // a module of its own, with requirements that are not ours
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(p))
		tree, err := parser.ParseFile(fset, p, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%v", err)
			return nil
		}
		s := source{pkg: pkg, file: filepath.ToSlash(p), test: strings.HasSuffix(name, "_test.go"), tree: tree}
		s.external = s.test && strings.HasSuffix(tree.Name.Name, "_test")
		for _, i := range tree.Imports {
			text, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Errorf("%s: %v", p, err)
			}
			s.imports = append(s.imports, text)
		}
		list = append(list, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 20 {
		t.Fatalf("only %d source files found; is this the root of the repository?", len(list))
	}
	return list
}

// objection says why a file may not import a path, "" if it may.
func objection(s source, imported string) string {
	if of, ok := strings.CutPrefix(imported, module+"/"); ok {
		return objectionToOurs(s, of)
	}
	if !strings.Contains(strings.Split(imported, "/")[0], ".") {
		if !s.test && slices.Contains(pure, s.pkg) && slices.Contains(impure, imported) {
			return "it concludes, and does nothing else: no clock, no I/O"
		}
		if imported == "C" || imported == "plugin" {
			return "one pure-Go binary"
		}
		return ""
	}
	if s.test {
		for _, p := range forTests {
			if within(imported, p) {
				return ""
			}
		}
	}
	longest := ""
	for p := range theirs {
		if within(imported, p) && len(p) > len(longest) {
			longest = p
		}
	}
	switch {
	case longest == "":
		return "no package may: see docs/dependencies.md before adding one"
	case !slices.Contains(theirs[longest], s.pkg) && s.pkg != ".":
		return "only " + strings.Join(theirs[longest], ", ") + " may"
	}
	return ""
}

func objectionToOurs(s source, of string) string {
	if s.pkg == "." { // this package's tests are of the whole
		return ""
	}
	if s.external && (of == s.pkg || slices.Contains(forExternalTests, of)) {
		return ""
	}
	if owners, ok := internals[of]; ok && !slices.Contains(owners, s.pkg) {
		return "only " + strings.Join(owners, ", ") + " may"
	}
	allowed := ours[s.pkg]
	if !slices.Contains(allowed, of) && !slices.Contains(allowed, "*") {
		return "it may import " + strings.Join(allowed, ", ")
	}
	return ""
}

func within(imported, prefix string) bool {
	return imported == prefix || strings.HasPrefix(imported, prefix+"/")
}

func TestImports(t *testing.T) {
	alone := map[string][]string{}
	for _, s := range sources(t) {
		if _, ok := ours[s.pkg]; !ok && s.pkg != "." {
			t.Errorf("%s: the package %s is not in the table of arch_test.go", s.file, s.pkg)
			continue
		}
		for _, i := range s.imports {
			if why := objection(s, i); why != "" {
				t.Errorf("%s imports %s; %s", s.file, i, why)
			}
			for _, p := range oneFile {
				if within(i, p) && !s.test && !slices.Contains(alone[p], s.file) {
					alone[p] = append(alone[p], s.file)
				}
			}
		}
	}
	for _, p := range oneFile {
		if len(alone[p]) != 1 {
			t.Errorf("%s is imported by %v; one file, so that replacing it stays a small change", p, alone[p])
		}
	}
}

// TestObjections: the rules object to what they are there for.
func TestObjections(t *testing.T) {
	for _, c := range []struct {
		s        source
		imported string
		objects  bool
	}{
		{source{pkg: "judge"}, "govah/wire", true},
		{source{pkg: "judge"}, "govah/known", false},
		{source{pkg: "judge"}, "os", true},
		{source{pkg: "judge", test: true}, "os", false},
		{source{pkg: "judge"}, "sort", false},
		{source{pkg: "check"}, "govah/helper", true},
		{source{pkg: "check", test: true}, "govah/helper", true},
		{source{pkg: "check", test: true, external: true}, "govah/helper", false},
		{source{pkg: "check", test: true, external: true}, "govah/internal/cli", true},
		{source{pkg: "helper"}, "govah/internal/geo", true},
		{source{pkg: "lab"}, "govah/helper", true},
		{source{pkg: "internal/cli"}, "govah/helper", false},
		{source{pkg: "cmd/govah"}, "govah/check", true},
		{source{pkg: "wire"}, "github.com/refraction-networking/utls", false},
		{source{pkg: "helper"}, "github.com/refraction-networking/utls", true},
		{source{pkg: "check"}, "gvisor.dev/gvisor/pkg/tcpip", true},
		{source{pkg: "wire"}, "example.org/new", true},
		{source{pkg: "wire"}, "pgregory.net/rapid", true},
		{source{pkg: "wire", test: true}, "pgregory.net/rapid", false},
		{source{pkg: "packet"}, "github.com/gopacket/gopacket/pcapgo", true},
		{source{pkg: "packet", test: true}, "github.com/gopacket/gopacket/pcapgo", false},
		{source{pkg: "wire"}, "C", true},
		{source{pkg: "evidence"}, "golang.org/x/crypto/x509roots/fallback", true},
		{source{pkg: "evidence"}, "govah/evidence/tlog/serve", true},
	} {
		if why := objection(c.s, c.imported); (why != "") != c.objects {
			t.Errorf("%s (test %v, external %v) importing %s: %q", c.s.pkg, c.s.test, c.s.external, c.imported, why)
		}
	}
}

// TestSockets: outside of the packages that are sockets, nothing dials, asks
// the system's resolver, or uses net/http's client; and what is pure does not
// look at the clock.
func TestSockets(t *testing.T) {
	dials := map[string][]string{
		"net":      {"Dial", "DialTimeout", "Dialer", "DialTCP", "DialUDP", "DialIP", "DialUnix", "Resolver", "DefaultResolver", "LookupHost", "LookupIP", "LookupAddr", "LookupCNAME", "LookupTXT", "LookupMX", "LookupNS", "LookupSRV"},
		"net/http": {"Get", "Head", "Post", "PostForm", "Client", "DefaultClient", "Transport", "DefaultTransport"},
		"tls":      {"Dial", "DialWithDialer", "Dialer"},
	}
	dials["crypto/tls"] = dials["tls"]
	clock := map[string][]string{"time": {"Now", "Since", "Until", "After", "Sleep", "NewTimer", "NewTicker", "AfterFunc", "Tick"}}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		banned := map[string][]string{}
		if !slices.Contains(mayDial, s.pkg) && !slices.Contains(mayDialFiles, s.file) {
			banned = dials
		}
		names := map[string]string{} // local name to path
		for _, i := range s.tree.Imports {
			p, _ := strconv.Unquote(i.Path.Value)
			name := path.Base(p)
			if i.Name != nil {
				name = i.Name.Name
			}
			names[name] = p
		}
		ast.Inspect(s.tree, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			if slices.Contains(banned[names[x.Name]], sel.Sel.Name) {
				t.Errorf("%s uses %s.%s; only a wire.Network opens client sockets", s.file, x.Name, sel.Sel.Name)
			}
			if slices.Contains(pure, s.pkg) && slices.Contains(clock[names[x.Name]], sel.Sel.Name) {
				t.Errorf("%s uses %s.%s; %s has no clock", s.file, x.Name, sel.Sel.Name, s.pkg)
			}
			return true
		})
	}
}

// TestThreats: each test that docs/design/threats.md names exists.
func TestThreats(t *testing.T) {
	doc, err := os.ReadFile("docs/design/threats.md")
	if err != nil {
		t.Fatal(err)
	}
	exists := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test {
			continue
		}
		for _, d := range s.tree.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				exists[s.pkg+" "+f.Name.Name] = true
			}
		}
	}
	named := 0
	for _, m := range regexp.MustCompile("`go test (\\S+) -run (\\w+)(?:/(\\w+))?`").FindAllStringSubmatch(string(doc), -1) {
		named++
		if pkg := path.Clean(m[1]); !exists[pkg+" "+m[2]] {
			t.Errorf("docs/design/threats.md names %s of %s, which does not exist", m[2], pkg)
		}
		if m[3] != "" {
			if _, err := os.Stat("internal/cli/testdata/script/" + m[3] + ".txtar"); err != nil {
				t.Errorf("docs/design/threats.md: %v", err)
			}
		}
	}
	for part := range strings.SplitSeq(string(doc), "\n## ") {
		title, text, _ := strings.Cut(part, "\n")
		if strings.Contains(text, "**Holds.**") && (!strings.Contains(text, "**Does not.**") || !strings.Contains(text, "**Shown by** `go test")) {
			t.Errorf("docs/design/threats.md: %q does not say what does not hold, or what shows it", title)
		}
	}
	if named < 20 {
		t.Errorf("only %d tests are named", named)
	}
}

// TestFileSizes: a file that nobody reads to its end is two.
func TestFileSizes(t *testing.T) {
	for _, s := range sources(t) {
		data, err := os.ReadFile(s.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(data), "\n"); n > 1000 {
			t.Errorf("%s has %d lines; at most 1,000", s.file, n)
		}
	}
}

// direct are the modules that go.mod requires directly, and those of its tools.
func direct(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	var list, tools, all []string
	requirement := regexp.MustCompile(`^(?:require\s+)?(\S+) v\S+(\s*// indirect)?$`)
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if tool, ok := strings.CutPrefix(line, "tool "); ok {
			tools = append(tools, strings.TrimSpace(tool))
		}
		if m := requirement.FindStringSubmatch(line); m != nil {
			all = append(all, m[1])
			if m[2] == "" {
				list = append(list, m[1])
			}
		}
	}
	for _, tool := range tools {
		for _, m := range all {
			if within(tool, m) && !slices.Contains(list, m) {
				list = append(list, m)
			}
		}
	}
	return list
}

// TestDependencies: docs/dependencies.md has a row for each module that go.mod
// requires directly, and no other.
func TestDependencies(t *testing.T) {
	data, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("^\\| `([^`]+)` \\|([^|]*)\\|([^|]*)\\|([^|]*)\\|$")
	var documented []string
	for line := range strings.Lines(string(data)) {
		m := row.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		documented = append(documented, m[1])
		for i, what := range []string{"licence", "where", "reason"} {
			if strings.TrimSpace(m[i+2]) == "" {
				t.Errorf("docs/dependencies.md: %s has no %s", m[1], what)
			}
		}
	}
	required := direct(t)
	if len(required) < 5 {
		t.Fatalf("only %d requirements found in go.mod", len(required))
	}
	for _, m := range required {
		if !slices.Contains(documented, m) {
			t.Errorf("go.mod requires %s; docs/dependencies.md does not say why", m)
		}
	}
	for _, m := range documented {
		if !slices.Contains(required, m) {
			t.Errorf("docs/dependencies.md has %s, which go.mod does not require", m)
		}
	}
}
