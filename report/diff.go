package report

import (
	"io"
	"iter"
	"slices"
	"strings"

	"govah/internal/i18n"
	"govah/measure"
)

// Changes is what differs between two runs. It is written as JSON as it is;
// "type" is "diff".
type Changes struct {
	Type   string `json:"type" class:"none"`
	Schema int    `json:"schema"`
	OldRun string `json:"old_run,omitempty" class:"none"`
	NewRun string `json:"new_run,omitempty" class:"none"`
	// OldRules and NewRules are the versions of the rules in each run, sorted.
	// Where they differ, a change may come from the rules alone.
	OldRules    []string `json:"old_rules" class:"none"`
	NewRules    []string `json:"new_rules" class:"none"`
	RulesDiffer bool     `json:"rules_differ"`
	Changed     []Change `json:"changed"`
	New         []Status `json:"new"`
	Gone        []Status `json:"gone"`
	Unchanged   int      `json:"unchanged"`
}

// Change is one target that is not as it was.
type Change struct {
	Target string `json:"target" class:"target"`
	Old    Status `json:"old"`
	New    Status `json:"new"`
	// Appeared and Disappeared are methods, in the order of their names.
	Appeared    []measure.Method `json:"appeared,omitempty" class:"none"`
	Disappeared []measure.Method `json:"disappeared,omitempty" class:"none"`
	RulesDiffer bool             `json:"rules_differ,omitempty"`
}

// Status is what one run says of a target.
type Status struct {
	Target       string               `json:"target" class:"target"`
	Interference measure.Interference `json:"interference" class:"none"`
	Reachable    measure.Reachable    `json:"reachable" class:"none"`
	Methods      []measure.Method     `json:"methods,omitempty" class:"none"`
	Rules        string               `json:"rules" class:"none"`
}

func statusOf(v *measure.Verdict) Status {
	s := Status{Target: v.Target, Interference: v.Interference, Reachable: v.Reachable, Rules: v.Rules}
	for _, f := range v.Findings {
		if !slices.Contains(s.Methods, f.Method) {
			s.Methods = append(s.Methods, f.Method)
		}
	}
	slices.Sort(s.Methods)
	return s
}

const maxRules = 16 // versions named of one run

// snapshot is one run as Diff sees it; a target that was measured twice (a
// resumed run) counts with its last verdict.
type snapshot struct {
	run     string
	rules   []string
	targets map[string]Status
	order   []string
}

func snap(verdicts iter.Seq2[*measure.Verdict, error]) (*snapshot, error) {
	s := &snapshot{targets: map[string]Status{}, rules: []string{}}
	for v, err := range verdicts {
		if err != nil {
			return nil, err
		}
		if s.run == "" {
			s.run = v.Run
		}
		if len(s.rules) < maxRules && !slices.Contains(s.rules, v.Rules) {
			s.rules = append(s.rules, v.Rules)
		}
		if _, again := s.targets[v.Target]; !again {
			s.order = append(s.order, v.Target)
		}
		s.targets[v.Target] = statusOf(v)
	}
	slices.Sort(s.rules)
	return s, nil
}

// Diff says what changed from one run to the next: targets whose verdict,
// methods or reachability differ, new ones, and ones no longer there. Only the
// verdicts are compared: counts, times and sizes differ in any two runs. The
// order is that of the new run, and of the old one for what is gone. The error
// is one that the verdicts yielded.
func Diff(before, after iter.Seq2[*measure.Verdict, error]) (*Changes, error) {
	a, err := snap(before)
	if err != nil {
		return nil, err
	}
	b, err := snap(after)
	if err != nil {
		return nil, err
	}
	c := &Changes{Type: "diff", Schema: 1, OldRun: a.run, NewRun: b.run, OldRules: a.rules, NewRules: b.rules,
		Changed: []Change{}, New: []Status{}, Gone: []Status{}}
	c.RulesDiffer = len(a.order) > 0 && len(b.order) > 0 && !slices.Equal(a.rules, b.rules)
	for _, target := range b.order {
		was, is := a.targets[target], b.targets[target]
		if _, known := a.targets[target]; !known {
			c.New = append(c.New, is)
			continue
		}
		if was.Interference == is.Interference && was.Reachable == is.Reachable && slices.Equal(was.Methods, is.Methods) {
			c.Unchanged++
			continue
		}
		change := Change{Target: target, Old: was, New: is, RulesDiffer: was.Rules != is.Rules}
		for _, m := range is.Methods {
			if !slices.Contains(was.Methods, m) {
				change.Appeared = append(change.Appeared, m)
			}
		}
		for _, m := range was.Methods {
			if !slices.Contains(is.Methods, m) {
				change.Disappeared = append(change.Disappeared, m)
			}
		}
		c.Changed = append(c.Changed, change)
	}
	for _, target := range a.order {
		if _, still := b.targets[target]; !still {
			c.Gone = append(c.Gone, a.targets[target])
		}
	}
	return c, nil
}

func (s Status) state() State {
	v := &measure.Verdict{Interference: s.Interference, Reachable: s.Reachable}
	for _, m := range s.Methods {
		v.Findings = append(v.Findings, measure.Finding{Method: m})
	}
	return StateOf(v)
}

// Text prints the changes for a terminal.
func (c *Changes) Text(w io.Writer, o Options) error {
	t := NewText(w, o)
	l := t.l
	name := func(s string) string {
		if s == "" {
			return "?"
		}
		return clip(s, 60)
	}
	t.line(bold, l.Text("diff.title", i18n.LTR("old", name(c.OldRun)), i18n.LTR("new", name(c.NewRun))), 0, 2)
	if c.RulesDiffer {
		t.line(StateSuspected.ansi(), "! "+l.Text("diff.rules", i18n.LTR("old", clip(strings.Join(c.OldRules, ", "), 200)), i18n.LTR("new", clip(strings.Join(c.NewRules, ", "), 200))), 0, 2)
	}
	if len(c.Changed) > 0 {
		t.write("\n")
		t.line(bold, l.Text("diff.changed"), 0, 0)
	}
	for _, change := range c.Changed {
		was, is := change.Old.state(), change.New.state()
		title := is.Symbol() + " " + l.IsolateLTR(clip(change.Target, 300))
		if change.RulesDiffer {
			title += " (" + l.Text("diff.rule-change") + ")"
		}
		t.line(is.ansi(), title, 2, 2)
		if was != is {
			t.line("", l.Text("diff.arrow", i18n.Word("old", l.Text("state."+string(was)))), 4, 2)
			t.line("", l.Text("diff.now", i18n.Word("new", l.Text("state."+string(is)))), 4, 2)
		}
		for _, m := range change.Appeared {
			t.line("", l.Text("diff.method-new", i18n.Word("method", MethodName(l, m))), 4, 2)
		}
		for _, m := range change.Disappeared {
			t.line("", l.Text("diff.method-gone", i18n.Word("method", MethodName(l, m))), 4, 2)
		}
		if change.Old.Reachable != change.New.Reachable {
			reach := func(r measure.Reachable) string {
				return l.Text("diff.reachable." + reachable(&measure.Verdict{Reachable: r}))
			}
			t.line("", l.Text("diff.reach", i18n.Word("old", reach(change.Old.Reachable)), i18n.Word("new", reach(change.New.Reachable))), 4, 2)
		}
	}
	for _, part := range []struct {
		key  string
		list []Status
	}{{"diff.new", c.New}, {"diff.gone", c.Gone}} {
		if len(part.list) == 0 {
			continue
		}
		t.write("\n")
		t.line(bold, l.Text(part.key), 0, 0)
		for _, s := range part.list {
			state := s.state()
			t.line(state.ansi(), state.Symbol()+" "+l.IsolateLTR(clip(s.Target, 300))+" · "+l.Text("state."+string(state)), 2, 2)
		}
	}
	t.write("\n")
	if len(c.Changed)+len(c.New)+len(c.Gone) == 0 {
		t.line("", l.Text("diff.same"), 0, 2)
	}
	t.line("", l.Text("diff.unchanged", i18n.Num("n", c.Unchanged)), 0, 2)
	t.line(faint, l.Text("limits.passive"), 0, 0)
	return t.err
}
