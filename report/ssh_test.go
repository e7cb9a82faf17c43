package report

import (
	"testing"

	"govah/internal/i18n"
	"govah/measure"
)

// hostKeys are SSH servers: intercepted, with a new key, with a withdrawn one,
// known to nobody, and fine though the user's file is old.
func hostKeys() []Entry {
	show := func(id string, v measure.Verdict) Entry {
		r := record(id, "ssh://host.example.org:22")
		o := r.add(1000, measure.Observation{Step: measure.StepSSH, Role: measure.RoleTest, Stage: measure.StageScreen, Experiment: measure.ExpHostKey, Remote: "203.0.113.22:22", TookUS: 90_000, Sent: 1900, Received: 1600,
			SSH: &measure.SSH{Identification: "SSH-2.0-OpenSSH_9.6", KeyType: "ssh-ed25519", Fingerprint: "SHA256:6QQmYi4ppFS4/+zSZ5S4IU+4sa6rwvQ4PbhCtPEBekQ"}})
		for i := range v.Findings {
			f := &v.Findings[i]
			f.ID, f.Method, f.Layer, f.Family, f.Because = "f1", measure.SSHInterception, measure.StepSSH, measure.IPv4, []string{o}
			f.Trigger = measure.Trigger{Kind: "host-key", Value: "host.example.org"}
		}
		return r.entry(v)
	}
	return []Entry{
		show("m1", measure.Verdict{Reachable: measure.ReachableUnknown, Interference: measure.InterferenceConfirmed, Findings: []measure.Finding{
			{Interference: measure.InterferenceConfirmed, Scope: measure.ScopeOperator, Runs: 5, Hits: 5, Controls: measure.Count{Runs: 4, Hits: 4}, Proof: "same-key"}}}),
		show("m2", measure.Verdict{Reachable: measure.ReachableUnknown, Interference: measure.InterferenceConfirmed, Findings: []measure.Finding{
			{Interference: measure.InterferenceConfirmed, Scope: measure.ScopeLAN, Runs: 5, Hits: 5, Controls: measure.Count{Runs: 3, Hits: 3}, Proof: "operators", NotExcluded: []measure.Why{measure.WhyLocalNetwork}}}}),
		show("m3", measure.Verdict{Reachable: measure.ReachableUnknown, Interference: measure.InterferenceSuspected, Unknown: []measure.Why{measure.WhyKeyRotation}, Findings: []measure.Finding{
			{Interference: measure.InterferenceSuspected, Scope: measure.ScopeUnknown, Runs: 5, Hits: 5, Controls: measure.Count{Runs: 4}, NotExcluded: []measure.Why{measure.WhyKeyRotation}}}}),
		show("m4", measure.Verdict{Reachable: measure.ReachableUnknown, Interference: measure.InterferenceSuspected, Unknown: []measure.Why{measure.WhyKeyRetired, measure.WhyNoControl}, Findings: []measure.Finding{
			{Interference: measure.InterferenceSuspected, Scope: measure.ScopeUnknown, Runs: 5, Hits: 5, NotExcluded: []measure.Why{measure.WhyKeyRetired, measure.WhyNoControl}}}}),
		show("m5", measure.Verdict{Reachable: measure.ReachableUnknown, Interference: measure.InterferenceUnknown, Unknown: []measure.Why{measure.WhyNoKnownKey}}),
		show("m6", measure.Verdict{Reachable: measure.ReachableYes, Interference: measure.InterferenceNone, Unknown: []measure.Why{measure.WhyKnownKeyOld}}),
	}
}

func TestHostKeysGolden(t *testing.T) {
	for _, l := range i18n.Langs {
		got := printed(t, Options{Lang: l, Width: 80, Verbose: true}, hostKeys())
		golden(t, "hostkeys."+string(l)+".txt", []byte(got))
		checkLines(t, got, 80)
	}
}

// A control that shows a wrong key is drawn as one, and one in order is not.
func TestHostKeyOfControl(t *testing.T) {
	o := &measure.Observation{Step: measure.StepSSH, Role: measure.RoleControl, SSH: &measure.SSH{Fingerprint: "SHA256:x"}}
	if markOf(o, true) != markOdd || markOf(o, false) != markOK {
		t.Errorf("as evidence %v, otherwise %v", markOf(o, true), markOf(o, false))
	}
}
