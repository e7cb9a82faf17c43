package report

import (
	"slices"
	"strings"

	"govah/internal/i18n"
	"govah/measure"
)

// maxDialogue bounds the lines of one dialogue that are shown.
const maxDialogue = 40

// answerTo is the line that came next after one that ends in one of the words.
func answerTo(m *measure.Mail, words ...string) string {
	asked := false
	for i := range m.Lines {
		switch l := &m.Lines[i]; {
		case l.Sent:
			asked = slices.ContainsFunc(words, func(w string) bool { return strings.HasSuffix(l.Text, w) })
		case asked:
			return l.Text
		}
	}
	return ""
}

// dialogue shows what was said to a mail server (>) and by it (<); + stands
// for inside TLS. It is the evidence itself, and foreign text.
func (d *document) dialogue(m *measure.Mail) {
	if m == nil {
		return
	}
	d.raw(`<div class="small">`)
	for i := range m.Lines[:min(len(m.Lines), maxDialogue)] {
		l := &m.Lines[i]
		mark := "< "
		if l.Sent {
			mark = "> "
		}
		if l.TLS {
			mark = "+" + mark
		}
		if i > 0 {
			d.raw(`<br>`)
		}
		d.raw(i18n.BDI(mark + clip(l.Text, 120)))
	}
	d.raw(`</div>`)
}
