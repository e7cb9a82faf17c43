package cli

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"govah/lab"
	"govah/lab/kernel"
	"govah/measure"
)

const mailScenario = `schema = 1
title = "mail on a path"
about = "A device that meddles with mail in passing, on a path of seven routers."
date = "2026-06-01T12:00:00Z"
[[client-network]]
name = "home"
about = "A line."
hops = 6
silent = [2]
delay = "3ms"
[client-network.mail]
at = 4
in-path = true
does = [%q]
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
// link in the lab and on the kernel's own stack, without a privilege; what
// alters it, with that of capturing packets, and without it is said to be out
// of sight.
func TestKernelMail(t *testing.T) {
	t.Parallel()
	needsKernel(t)
	args := []string{"locate", "--json", "--seed", "7", "-4", "--address", "45.10.0.10", "smtp://open.example"}
	for does, kind := range map[string]measure.Kind{"refuse": measure.Injects, "swallow": measure.Drops, "mask": ""} {
		t.Run(does, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			inLab, onKernel, _ := locatedTwice(ctx, t, fmt.Sprintf(mailScenario, does), args, nil, func(*lab.World) []string { return nil })
			if kind == "" {
				for _, l := range []measure.Location{inLab, onKernel} {
					if l.Outcome != measure.NoDifference || !slices.Contains(l.Unknown, measure.WhyNoQuotes) || len(l.Set) > 0 {
						t.Errorf("%s %v %v", l.Outcome, l.Unknown, l.Set)
					}
				}
				return
			}
			atBox(t, inLab, onKernel, func(where string, l measure.Location) {
				if l.Kind != kind || l.Payload != "mail" || l.Trigger.Value != "STARTTLS" || len(l.Set) != 1 {
					t.Errorf("%s: %s %+v %v", where, l.Kind, l.Trigger, l.Set)
				}
			})
		})
	}
	t.Run("mask, captured", func(t *testing.T) {
		t.Parallel()
		file := t.TempDir() + "/mail.toml"
		if err := os.WriteFile(file, fmt.Appendf(nil, mailScenario, "mask"), 0o600); err != nil {
			t.Fatal(err)
		}
		w := rawWorld(t, file)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "/proc/self/exe", append(args, "--consent", "--control", "open.example")...)
		var out, errs strings.Builder
		cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), asGovah+"=1", "HOME="+t.TempDir()), &out, &errs
		link := kernel.Link{Addresses: w.ClientAddresses(), Resolver: netip.MustParseAddr(w.Client.Resolver), Routers: 1, Privileged: true, Send: w.Inject, Attach: w.Port}
		if err := kernel.Run(ctx, link, cmd); err != nil {
			t.Fatalf("%v\n%s", err, errs.String())
		}
		l := locationIn(t, out.String())
		if l.Outcome != measure.Located || l.Kind != measure.Alters || len(l.Set) != 1 || l.Set[0].Low != boxBefore || l.Position != measure.InPath {
			t.Errorf("%s %s %v %v", l.Outcome, l.Kind, l.Set, l.Unknown)
		}
	})
}
