package report

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"govah/internal/i18n"
	"govah/measure"
)

func parseDir(t *testing.T, dir string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// constants are the string constants of each named type of package measure.
func constants(t *testing.T) map[string][]string {
	out := map[string][]string{}
	for _, f := range parseDir(t, "../measure") {
		for _, decl := range f.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				typ, ok := v.Type.(*ast.Ident)
				if !ok {
					continue
				}
				for _, value := range v.Values {
					if lit, ok := value.(*ast.BasicLit); ok && lit.Kind == token.STRING {
						s, err := strconv.Unquote(lit.Value)
						if err != nil {
							t.Fatal(err)
						}
						out[typ.Name] = append(out[typ.Name], s)
					}
				}
			}
		}
	}
	return out
}

// A constant that is added to package measure without words fails here.
func TestEveryConstantHasWords(t *testing.T) {
	all := constants(t)
	for typ, keys := range map[string][]string{
		"Method":       {"method.%.name", "method.%.what"},
		"Interference": {"interference.%"},
		"Reachable":    {"reachable.%", "diff.reachable.%"},
		"Scope":        {"scope.%"},
		"Why":          {"why.%.text"},
		"Step":         {"step.%"},
		"Role":         {"role.%"},
		"Stage":        {"stage.%"},
		"Experiment":   {"experiment.%"},
		"ControlKind":  {"control.%"},
		"Family":       {"family.%"},
		"Failure":      {"failure.%"},
		"Verification": {"verification.%"},
		"Trace":        {"trace.%"},
	} {
		if len(all[typ]) < 2 {
			t.Errorf("found %d constants of measure.%s: the test does not see them", len(all[typ]), typ)
		}
		for _, value := range all[typ] {
			if value == "" {
				continue // no failure
			}
			for _, key := range keys {
				key = strings.ReplaceAll(key, "%", value)
				for _, l := range i18n.Langs {
					if !l.Has(key) {
						t.Errorf("no words for measure.%s %q: %s lacks %q", typ, value, l, key)
					}
				}
			}
			if typ == "Method" {
				g, ok := group[measure.Method(value)]
				if !ok {
					t.Errorf("method %q is in no group, so nothing says what it leaves open", value)
				}
				for _, key := range []string{"limit." + g, "next." + g} {
					if !i18n.English.Has(key) {
						t.Errorf("no words for %q", key)
					}
				}
			}
		}
	}
	// measure documents the kinds of trigger in a comment, not as constants.
	for _, kind := range []string{"sni", "host", "url", "qname", "address", "port", "protocol", "allow-list", "family"} {
		if !i18n.English.Has("trigger." + kind) {
			t.Errorf("no words for the trigger %q", kind)
		}
	}
	for _, sign := range []string{"missing", "masked", "refused", "preauth", "unlisted", "logindisabled", "plain", "key", "early", "injected", "banner", "capabilities"} {
		if !i18n.English.Has("mail." + sign) {
			t.Errorf("no words for the trigger mail-%s", sign)
		}
	}
	for _, proof := range []string{"greeter", "pairs", "elsewhere", "artefact", "ttl", "helper"} {
		if !i18n.English.Has("proof." + proof) {
			t.Errorf("no words for the proof %q", proof)
		}
	}
}

// What the rules write into Finding.Proof and Trigger.Kind as a literal has
// words, too.
func TestWhatTheRulesWriteHasWords(t *testing.T) {
	if _, err := os.Stat("../judge"); err != nil {
		t.Skip("package judge is not there")
	}
	check := func(field string, value ast.Expr) {
		lit, ok := value.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return
		}
		s, err := strconv.Unquote(lit.Value)
		if err != nil || s == "" {
			return
		}
		if field == "Kind" && !i18n.English.Has("trigger."+s) {
			t.Errorf("no words for the trigger %q", s)
		}
		if field == "Proof" {
			for proof := range strings.SplitSeq(s, "+") {
				if !i18n.English.Has("proof." + proof) {
					t.Errorf("no words for the proof %q", proof)
				}
			}
		}
	}
	for _, f := range parseDir(t, "../judge") {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				typ := ""
				if s, ok := n.Type.(*ast.SelectorExpr); ok {
					typ = s.Sel.Name
				}
				for _, element := range n.Elts {
					if kv, ok := element.(*ast.KeyValueExpr); ok {
						if key, ok := kv.Key.(*ast.Ident); ok && (key.Name == "Proof" || key.Name == "Kind" && typ == "Trigger") {
							check(key.Name, kv.Value)
						}
					}
				}
			case *ast.AssignStmt:
				for i, left := range n.Lhs {
					if s, ok := left.(*ast.SelectorExpr); ok && s.Sel.Name == "Proof" && i < len(n.Rhs) {
						check("Proof", n.Rhs[i])
					}
				}
			}
			return true
		})
	}
}

// Every key that the code names exists, and every key that exists is used.
func TestKeysAndCatalogueAgree(t *testing.T) {
	keys := i18n.Keys()
	tops := map[string]bool{}
	for _, key := range keys {
		top, _, _ := strings.Cut(key, ".")
		tops[top] = true
	}
	used := map[string]bool{}
	var prefixes []string
	for _, dir := range []string{".", "../internal/i18n", "../internal/cli"} {
		for _, f := range parseDir(t, dir) {
			ast.Inspect(f, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				s, err := strconv.Unquote(lit.Value)
				if err != nil {
					return true
				}
				used[s] = true
				if top, rest, dot := strings.Cut(s, "."); dot && tops[top] && !strings.ContainsAny(s, " /<") {
					if rest == "" || strings.HasSuffix(s, ".") || strings.HasSuffix(s, "-") {
						prefixes = append(prefixes, s)
					} else if (dir == "." || top == "cli") && !i18n.English.Has(s) {
						t.Errorf("the code names %q, which is not in the catalogue", s)
					}
				}
				return true
			})
		}
	}
	// Where prefix and value are two arguments of word.
	for _, top := range []string{"step", "role", "experiment", "verification", "path", "starttls"} {
		prefixes = append(prefixes, top+".")
	}
	prefixes = append(prefixes, "summary.file-")
	for _, key := range keys {
		if !used[key] && !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) }) {
			t.Errorf("nothing uses %q", key)
		}
	}
}

// Each combination of state, method and trigger gives an account without a
// panic, with all four parts of the pattern.
func TestEveryAccountFollowsThePattern(t *testing.T) {
	all := constants(t)
	kinds := []string{"", "sni", "host", "url", "qname", "address", "port", "protocol", "allow-list", "family", "mail-missing", "mail-new-kind", "new-kind"}
	for _, l := range i18n.Langs {
		for _, method := range append(all["Method"], "from-the-future") {
			for _, interference := range append(all["Interference"], "from-the-future") {
				for _, reachable := range append(all["Reachable"], "from-the-future") {
					for i, kind := range kinds {
						f := measure.Finding{Method: measure.Method(method), Interference: measure.InterferenceConfirmed, Family: measure.IPv6, Scope: measure.Scope(all["Scope"][i%len(all["Scope"])]),
							Trigger: measure.Trigger{Kind: kind, Value: "v.example", Control: "c.example"}, Runs: i % 3, Hits: i % 3, Controls: measure.Count{Runs: i % 2}, Proof: "pairs+new-proof",
							NotExcluded: []measure.Why{measure.WhySiteDown, "new-why"}}
						if interference == "suspected" {
							f.Interference = measure.InterferenceSuspected
						}
						v := &measure.Verdict{Target: "https://v.example/", Interference: measure.Interference(interference), Reachable: measure.Reachable(reachable), Findings: []measure.Finding{f}}
						a := tell(l, v)
						for part, list := range map[string][]sentence{"headline": a.headline, "because": a.because, "not": a.not, "next": a.next} {
							if len(list) == 0 {
								t.Fatalf("%s %s %s %s: no %s", method, interference, reachable, kind, part)
							}
							for _, s := range list {
								if s.text(l) == "" || s.markup(l) == "" {
									t.Fatalf("%s %s: an empty sentence %q", method, interference, s.key)
								}
							}
						}
						if interference == "suspected" && !f.Method.Benign() && a.headline[0].key != "verdict.suspected" {
							t.Fatalf("%s: a suspicion is told as a fact: %q", method, a.headline[0].text(l))
						}
					}
				}
			}
		}
	}
}

func TestStateOf(t *testing.T) {
	for _, c := range []struct {
		i    measure.Interference
		r    measure.Reachable
		want State
	}{
		{"none", "yes", StateFine}, {"none", "partly", StateFine}, {"none", "no", StateFault}, {"none", "unknown", StateUnknown},
		{"suspected", "yes", StateSuspected}, {"confirmed", "yes", StateConfirmed}, {"unknown", "no", StateUnknown},
		{"", "", StateUnknown}, {"from-the-future", "yes", StateUnknown},
	} {
		if got := StateOf(&measure.Verdict{Interference: c.i, Reachable: c.r}); got != c.want {
			t.Errorf("%q, %q is shown as %q, want %q", c.i, c.r, got, c.want)
		}
	}
	refused := &measure.Verdict{Interference: measure.InterferenceNone, Reachable: measure.ReachableUnknown, Findings: []measure.Finding{{Method: measure.ServerRefusal}}}
	if got := StateOf(refused); got != StateFault {
		t.Errorf("a refusal by the server is shown as %q", got)
	}
}

// A filter in the home router is nothing that the provider can be asked about.
func TestNextStepFitsTheScope(t *testing.T) {
	for _, c := range []struct {
		method measure.Method
		scope  measure.Scope
		want   []string
	}{
		{measure.DNSResolverLie, measure.ScopeLAN, []string{"next.lan"}},
		{measure.DNSResolverLie, measure.ScopeOperator, []string{"next.dns"}},
		{measure.TLSInterception, measure.ScopeDevice, []string{"next.decrypt", "next.device"}},
		{measure.TLSReset, measure.ScopeUnknown, []string{"next.name"}},
	} {
		a := tell(i18n.English, &measure.Verdict{Target: "https://a.example/", Interference: measure.InterferenceConfirmed, Reachable: measure.ReachableNo,
			Findings: []measure.Finding{{Method: c.method, Interference: measure.InterferenceConfirmed, Scope: c.scope}}})
		var got []string
		for _, s := range a.next {
			got = append(got, s.key)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s in %s: %v, want %v", c.method, c.scope, got, c.want)
		}
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{
		"https://a.example/x": "https://a.example/x", "a b": "'a b'", "$(id)": "'$(id)'", "it's": `'it'\''s'`, "": "''",
		"-x": "-- '-x'", "https://[2001:db8::1]/": "'https://[2001:db8::1]/'", "https://a/?x&y": "'https://a/?x&y'",
	} {
		if got := shellQuote(in); got != want {
			t.Errorf("shellQuote(%q) = %s, want %s", in, got, want)
		}
	}
}
