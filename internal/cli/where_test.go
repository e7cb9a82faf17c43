package cli

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"govah/measure"
)

var whereLoss = flag.Bool("where-loss", false, "TestWhere also on lines that lose 2 %")

// whereScenario has sites of every kind behind six routers of a client's
// network and three of their own; a device may stand behind the third.
const whereScenario = `schema = 1
title = "where"
about = "for a test"
date = "2026-05-02T09:30:00Z"
[[client-network]]
name = "home"
about = "A line."
asn = 64820
country = "PT"
hops = 6
delay = "4ms"
%s
[[network]]
name = "one"
asn = 64510
country = "DE"
hops = 3
delay = "8ms"
[[network]]
name = "two"
asn = 64512
country = "US"
hops = 3
delay = "9ms"
[[network]]
name = "three"
asn = 64513
country = "US"
hops = 4
delay = "12ms"
[[site]]
name = "canary-one.example"
network = "one"
role = "canary"
h3 = true
http = "same"
[[site]]
name = "canary-two.example"
network = "two"
role = "canary"
h3 = true
http = "same"
[[site]]
name = "canary-three.example"
network = "three"
role = "canary"
http = "same"
[[site]]
name = "doh.example"
network = "one"
role = "doh"
identity = "m1.doh.example"
[[site]]
name = "doh-two.example"
network = "two"
role = "doh"
identity = "m7.doh-two.example"
[[site]]
name = "resolver.example"
network = "three"
role = "resolver"
[[site]]
name = "resolver-two.example"
network = "two"
role = "resolver"
[[site]]
name = "signed-one.example"
network = "one"
signed = true
[[site]]
name = "signed-two.example"
network = "three"
signed = true
[[site]]
name = "whoami.example"
network = "three"
role = "whoami"
[[site]]
name = "nowhere.example"
network = "two"
role = "nowhere"
count = 2
[[site]]
name = "check.example"
network = "one"
role = "captive-check"
http = "same"
[[site]]
name = "helper.example"
network = "one"
role = "helper"
[[site]]
name = "news.example"
network = "one"
http = "same"
[[site]]
name = "other.example"
network = "three"
http = "same"
[[site]]
name = "plain.example"
network = "three"
http = "same"
https = "closed"
[[site]]
name = "forge.example"
network = "one"
[site.ssh]
published = true
control = true
keys = ["ssh-ed25519"]
[[site]]
name = "forge-two.example"
network = "two"
[site.ssh]
published = true
control = true
keys = ["ssh-ed25519"]
[[site]]
name = "forge-three.example"
network = "three"
[site.ssh]
published = true
control = true
keys = ["ssh-ed25519"]
[[site]]
name = "mail.example"
network = "one"
[[site.mail]]
scheme = "smtp"
capabilities = ["PIPELINING", "STARTTLS"]
inside = ["PIPELINING", "AUTH PLAIN"]
[[site.mail]]
scheme = "imap"
greeting = "[CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready."
capabilities = ["IMAP4rev1", "STARTTLS", "LOGINDISABLED"]
inside = ["IMAP4rev1", "AUTH=PLAIN"]
[[site.mail]]
scheme = "imaps"
inside = ["IMAP4rev1", "AUTH=PLAIN"]
`

// TestWhere: every kind of interceptor that the lab has is found by its method,
// and located on its link, by the command that a user types: behind the third
// router of nine, with the lab's helper. On a lossy line it may be missed once,
// and is never put elsewhere.
func TestWhere(t *testing.T) {
	web, smtp, imap := []string{"https://news.example/", "https://other.example/"}, []string{"smtp://mail.example"}, []string{"imap://mail.example"}
	mail := func(more string, does ...string) string {
		return fmt.Sprintf("[client-network.mail]\nat = 3\n%sdoes = [%q]\n", more, strings.Join(does, `", "`))
	}
	const wire, late, ends = "in-path = true\n", "late = true\n", "terminates = true\n"
	for _, k := range []struct {
		name, tables string
		targets      []string
		method       measure.Method
		kind         measure.Kind
	}{
		{"tls", "[client-network.intercept]\nat = 3\n", web, measure.TLSInterception, measure.Terminates},
		{"tls trusted", "trusts-interceptor = true\n[client-network.intercept]\nat = 3\n", web, measure.TLSInterception, measure.Terminates},
		{"tls well", "trusts-interceptor = true\n[client-network.intercept]\nat = 3\nsigns = \"well\"\nkeys = \"each\"\n", web, measure.TLSInterception, measure.Terminates},
		{"tls once connected", "[client-network.intercept]\nat = 3\nlate = true\n", web, measure.TLSInterception, measure.Terminates},
		{"tls of others", "[client-network.intercept]\nat = 3\nnames = [\"elsewhere.example\"]\n", web, measure.TCPProxy, measure.Terminates},
		{"relay", "[client-network.tcp-proxy]\nat = 3\nports = [443]\n", web, measure.TCPProxy, measure.Terminates},
		{"proxy", "[client-network.web-proxy]\nat = 3\nvia = \"1.1 proxy\"\n", web, measure.HTTPProxy, measure.Terminates},
		{"proxy that adds", "[client-network.web-proxy]\nat = 3\nadds = [\"X-MSISDN: 351911111111\"]\n", web, measure.HTTPProxy, measure.Terminates},
		{"proxy that keeps", "[client-network.web-proxy]\nat = 3\ncaches = true\n", web, measure.HTTPProxy, measure.Terminates},
		{"proxy that alters", "[client-network.web-proxy]\nat = 3\ntamper = \"script\"\n", web, measure.HTTPTamper, measure.Terminates},
		{"proxy by host", "[client-network.web-proxy]\nat = 3\nby-host = true\n", []string{"http://plain.example/"}, measure.HTTPProxy, measure.Terminates},
		{"proxy by host, no helper", "[client-network.web-proxy]\nat = 3\nby-host = true\n", []string{"http://plain.example/", "--helper=none"}, measure.HTTPProxy, measure.Terminates},
		{"names answered", "[client-network.dns-redirect]\nat = 3\n", web, measure.DNSInterception, measure.Terminates},
		{"names led away", "[client-network.dns-redirect]\nat = 3\nhops = 5\n", web, measure.DNSInterception, measure.Redirects},
		{"ssh", "[client-network.ssh-intercept]\nat = 3\n", []string{"ssh://forge.example"}, measure.SSHInterception, measure.Terminates},
		{"offer removed", mail("", "remove"), smtp, measure.StartTLSStrip, measure.Terminates},
		{"offer removed, once connected", mail(late, "remove"), smtp, measure.StartTLSStrip, measure.Terminates},
		{"offer removed by a proxy", mail(ends, "remove"), smtp, measure.StartTLSStrip, measure.Terminates},
		{"offer masked", mail(wire, "mask-offer"), smtp, measure.StartTLSStrip, measure.Alters},
		{"offer and command masked", mail(wire, "mask"), smtp, measure.StartTLSStrip, measure.Alters},
		{"banner masked", mail(wire, "mask-banner"), smtp, measure.MailInterception, measure.Alters},
		{"command refused", mail(wire, "refuse"), smtp, measure.StartTLSStrip, measure.Injects},
		{"command swallowed", mail(wire, "swallow"), smtp, measure.StartTLSStrip, measure.Drops},
		{"cut at the command", mail(wire, "cut"), smtp, measure.StartTLSStrip, measure.Injects},
		{"ban on logins removed", mail("", "remove-logindisabled"), imap, measure.StartTLSStrip, measure.Terminates},
		{"logged in already", mail("", "preauth"), imap, measure.StartTLSStrip, measure.Terminates},
		{"smuggles", mail("", "smuggle"), imap, measure.MailInterception, measure.Terminates},
		{"mail answered", mail("", "answer"), imap, measure.MailInterception, measure.Terminates},
		{"mail undressed", mail("ports = [993]\n", "undress"), []string{"imaps://mail.example"}, measure.StartTLSStrip, measure.Terminates},
		{"tls on this device", "trusts-interceptor = true\n[client-network.intercept]\nat = 0\n", web, measure.TLSInterception, measure.Terminates},
		{"tls at the office", "trusts-interceptor = true\n[client-network.intercept]\nat = 1\n", web, measure.TLSInterception, measure.Terminates},
		{"names answered at home", "router-dns = true\n", web, measure.DNSInterception, measure.Terminates},
		{"the resolver strips", "resolver-strips = [\"rrsig\"]\n", web, measure.DNSSECStrip, ""},
	} {
		for _, loss := range []int{0, 20} {
			if loss > 0 && !*whereLoss {
				continue
			}
			t.Run(fmt.Sprintf("%s/loss=%d", k.name, loss), func(t *testing.T) {
				t.Parallel()
				tables := k.tables
				if loss > 0 {
					tables += fmt.Sprintf("[client-network.line]\nloss = %d\n", loss)
				}
				file := t.TempDir() + "/where.toml"
				if err := os.WriteFile(file, fmt.Appendf(nil, whereScenario, tables), 0o600); err != nil {
					t.Fatal(err)
				}
				for try := range 2 {
					began := time.Now()
					verdicts, out, _, err := govah(t.Context(), append([]string{"check", "--lab", file, "--pace", "fast", "-4", "--locate", "--json", "-q", "-o", t.TempDir() + "/m.jsonl"}, k.targets...)...)
					if err != nil {
						t.Fatal(err)
					}
					found := slices.ContainsFunc(verdicts, func(v measure.Verdict) bool {
						return slices.ContainsFunc(v.Findings, func(f measure.Finding) bool {
							return f.Method == k.method && f.Interference == measure.InterferenceConfirmed
						})
					})
					for _, v := range verdicts {
						for _, f := range v.Findings {
							if f.Method == measure.HTTPBlockPage || f.Method == measure.HTTPRedirect {
								t.Errorf("nothing is blocked: %s %+v", v.Target, f)
							}
						}
					}
					list := ofType[measure.Location](t, out, "location")
					at := 0
					for _, l := range list {
						if k.kind == "" && l.Outcome == measure.Itself {
							at++
						}
						if len(l.Set) == 0 {
							continue
						}
						low := 3
						switch {
						case l.FromHelper: // nine routers are between it and this device
							low = 6
						case strings.HasSuffix(k.name, "on this device"), strings.HasSuffix(k.name, "at home"):
							low = 0
						case strings.HasSuffix(k.name, "at the office"):
							low = 1
						}
						if len(l.Set) == 1 && l.Set[0].Low == low && l.Kind == k.kind {
							at++
						} else {
							t.Errorf("elsewhere: %+v", l)
						}
					}
					t.Logf("found %v, %d of %d locations, %s", found, at, len(list), time.Since(began).Round(time.Millisecond))
					if found && at > 0 {
						return
					}
					// What is lost may hide it once; what is not there is never seen.
					if try == 1 || loss == 0 {
						t.Errorf("found %v, located %d: %+v %+v", found, at, list, verdicts)
						return
					}
				}
			})
		}
	}
}
