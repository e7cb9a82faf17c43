package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"govah/lab"
	"govah/lab/kernel"
	"govah/measure"
)

// mailScenario has a mail server behind seven routers, and a table that may be of
// a device.
const mailScenario = `schema = 1
title = "mail on a path"
about = "A mail server on a path of seven routers."
date = "2026-06-01T12:00:00Z"
[[client-network]]
name = "home"
about = "A line."
hops = 6
silent = [2]
delay = "3ms"
%s
[[network]]
name = "hosting"
hops = 1
delay = "2ms"
[[site]]
name = "open.example"
addresses = ["45.10.0.10"]
[[site.mail]]
scheme = "smtp"
capabilities = ["STARTTLS", "SIZE 10"]
[[site]]
name = "canary.example"
role = "canary"
`

// TestKernelMail: what answers or swallows STARTTLS on the way is found on its
// link in the lab and on the kernel's own stack, without a privilege, as is who
// ends connections and lets SYNs die; what alters it, with that of capturing
// packets, and without it is said to be out of sight.
func TestKernelMail(t *testing.T) {
	t.Parallel()
	needsKernel(t)
	args := []string{"locate", "--json", "--seed", "7", "-4", "--address", "45.10.0.10", "smtp://open.example"}
	scenario := func(does string) string {
		how := "in-path = true"
		switch does { // two end connections themselves, by each packet's TTL or by the SYN's
		case "remove":
			how = ""
		case "preauth":
			how = "late = true"
		}
		return fmt.Sprintf(mailScenario, fmt.Sprintf("[client-network.mail]\nat = 4\n%s\ndoes = [%q]", how, does))
	}
	for does, kind := range map[string]measure.Kind{"refuse": measure.Injects, "swallow": measure.Drops, "mask": "", "remove": measure.Terminates, "preauth": measure.Terminates} {
		t.Run(does, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			inLab, onKernel, _ := locatedTwice(ctx, t, scenario(does), args, nil, func(*lab.World) []string { return nil })
			if kind == "" {
				for _, l := range []measure.Location{inLab, onKernel} {
					if l.Outcome != measure.NoDifference || !slices.Contains(l.Unknown, measure.WhyNoQuotes) || len(l.Set) > 0 {
						t.Errorf("%s %v %v", l.Outcome, l.Unknown, l.Set)
					}
				}
				return
			}
			atBox(t, inLab, onKernel, func(where string, l measure.Location) {
				trigger := "STARTTLS"
				if kind == measure.Terminates {
					trigger = "587"
				}
				if l.Kind != kind || l.Payload != "mail" || l.Trigger.Value != trigger || len(l.Set) != 1 || l.ByAnswers != (does == "remove") {
					t.Errorf("%s: %s %+v %v, by answers %v", where, l.Kind, l.Trigger, l.Set, l.ByAnswers)
				}
			})
		})
	}
	t.Run("mask, captured", func(t *testing.T) {
		t.Parallel()
		file := t.TempDir() + "/mail.toml"
		if err := os.WriteFile(file, []byte(scenario("mask")), 0o600); err != nil {
			t.Fatal(err)
		}
		w := rawWorld(t, file)
		link := kernel.Of(w)
		link.Routers, link.Privileged = 1, true
		l := locationIn(t, commandOnKernel(t, link, append(args, "--consent", "--control", "open.example")...))
		if l.Outcome != measure.Located || l.Kind != measure.Alters || len(l.Set) != 1 || l.Set[0].Low != boxBefore || l.Position != measure.InPath {
			t.Errorf("%s %s %v %v", l.Outcome, l.Kind, l.Set, l.Unknown)
		}
	})
}
