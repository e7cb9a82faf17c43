package report

import (
	"strings"
	"testing"

	"govah/internal/i18n"
	"govah/measure"
)

// TestDialogue: the evidence about a mail server is in the report line by line,
// and nothing that came from there acts on a page or a screen.
func TestDialogue(t *testing.T) {
	o := measure.Observation{ID: "o1", Step: measure.StepMail, Role: measure.RoleTest, Experiment: measure.ExpMail, Remote: "192.0.2.7:587",
		Mail: &measure.Mail{Protocol: "smtp", Greeting: "220 ****", StartTLS: "refused", Lines: []measure.MailLine{
			{Text: "220 ****"}, {Sent: true, Text: "EHLO [127.0.0.1]"}, {Text: "250-XXXXXXXA<script>\u202e"}, {Sent: true, Text: "STARTTLS"}, {Text: "502 5.5.1 XXXXXXXX"},
			{Sent: true, TLS: true, Text: "QUIT"}}}}
	v := measure.Verdict{Type: "verdict", Schema: 1, Measurement: "m1", Target: "smtp://mail.example:587", Reachable: measure.ReachableYes, Interference: measure.InterferenceConfirmed,
		Findings: []measure.Finding{{ID: "f1", Method: measure.StartTLSStrip, Interference: measure.InterferenceConfirmed, Layer: measure.StepMail, Scope: measure.ScopeUnknown,
			Trigger: measure.Trigger{Kind: "mail-masked"}, Runs: 3, Hits: 3, Controls: measure.Count{Runs: 3}, Because: []string{"o1"}, Proof: "greeter"}}}
	m := measure.Measurement{Type: "measurement", Schema: 1, ID: "m1", Target: v.Target, Observations: []measure.Observation{o}, Complete: true}
	for _, l := range i18n.Langs {
		page := htmlOf(t, l, source([]Entry{{Measurement: &m, Verdict: &v}}))
		for _, want := range []string{"&lt; 220 ****", "&gt; STARTTLS", "&lt; 502 5.5.1 XXXXXXXX", "+&gt; QUIT", "250-XXXXXXXA&lt;script&gt;"} {
			if !strings.Contains(page, want) {
				t.Errorf("%s: %q is not in the report", l, want)
			}
		}
		if strings.Contains(page, "\u202e") {
			t.Errorf("%s: a change of direction is in the report", l)
		}
		a := tell(l, &v)
		if a.state != StateConfirmed || len(a.because) < 3 || len(a.not) == 0 || len(a.next) != 1 {
			t.Errorf("%s: %+v", l, a)
		}
	}
}
