package report

import (
	"slices"

	"govah/internal/i18n"
	"govah/measure"
)

// What is found out beyond a verdict (where something sits, what kind it is)
// has one form: a title, an account in the words of a verdict, and a picture or
// table of its own.

// carrier says what carried the trigger: payload and family, as far as known.
func carrier(l i18n.Lang, payload string, family measure.Family) (out []sentence) {
	for _, s := range []struct{ prefix, value string }{{"step", payload}, {"family", string(family)}} {
		if s.value != "" {
			out = append(out, word(l, s.prefix, s.value))
		}
	}
	return out
}

// beyond prints title and account of something found about a target.
func (t *Text) beyond(title, target, payload string, family measure.Family, a account) {
	if t.open {
		t.write("\n")
		t.open = false
	}
	line := "» " + t.l.IsolateLTR(clip(target, 2048)) + " · " + t.l.Text(title)
	for _, s := range carrier(t.l, payload, family) {
		line += " · " + s.text(t.l)
	}
	t.line(bold, line, 0, 2)
	t.searched[clip(target, 300)] = true
	for _, s := range a.headline {
		t.line("", s.text(t.l), 2, 0)
	}
	t.labelled("label.because", a.because)
	t.labelled("label.open", a.open)
	t.labelled("label.not", a.not)
	t.labelled("label.next", a.next)
}

// beyond writes the same, with a picture between headline and reasons. The next
// steps that the verdict names already are not repeated.
func (d *document) beyond(title, payload string, family measure.Family, a, verdict account, picture func()) {
	d.raw(`<div class="over"><h4>`)
	d.words(title)
	for _, s := range carrier(d.l, payload, family) {
		d.raw(` · `, s.markup(d.l))
	}
	d.raw(`</h4>`)
	for i, s := range a.headline {
		class := i18n.Markup("sum")
		if i == 0 {
			class = "head"
		}
		d.raw(`<p class="`, class, `">`, s.markup(d.l), `</p>`)
	}
	picture()
	said := make([]string, len(verdict.next))
	for i, s := range verdict.next {
		said[i] = s.text(d.l)
	}
	a.next = slices.DeleteFunc(a.next, func(s sentence) bool { return slices.Contains(said, s.text(d.l)) })
	d.account(a)
}

// apart writes what belongs to no verdict of the report, in a section.
func apart[T any](d *document, section i18n.Markup, title string, keys []string, found map[string][]T, target func(T) string, write func(T)) {
	open := false
	for _, key := range keys {
		if d.judged[key] {
			continue
		}
		if !open {
			d.raw("\n"+`<section id="`, section, `"><h2>`)
			d.words(title)
			d.raw(`</h2>`)
			open = true
		}
		for _, one := range found[key] {
			d.raw("\n"+`<article class="card unknown"><h3><bdi class="url" dir="ltr">`, attr(clip(target(one), 2048)), `</bdi></h3>`)
			write(one)
			d.raw(`</article>`)
		}
	}
	if open {
		d.raw(`</section>`)
	}
}
