package identify

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"govah/measure"
)

// confirmed is a verdict of one finding that rests on all observations.
func confirmed(m *measure.Measurement, f measure.Finding) *measure.Verdict {
	f.Interference = measure.InterferenceConfirmed
	for i := range m.Observations {
		m.Observations[i].ID = fmt.Sprintf("o%d", i+1)
		f.Because = append(f.Because, m.Observations[i].ID)
	}
	return &measure.Verdict{Target: m.Target, Findings: []measure.Finding{f}}
}

func signedBy(issuer string) measure.Observation {
	return measure.Observation{Step: measure.StepTLS, Role: measure.RoleTest, Remote: "192.0.2.7:443", TLS: &measure.TLS{Version: "TLS 1.3", Public: measure.VerifyUnknownCA, Chain: []string{"a1"},
		Issuer: issuer, Key: "rsa-2048", NotBeforeS: 1_790_000_000, NotAfterS: 1_821_536_000, SCTs: &measure.SCTs{}, Signers: []measure.Signer{{Issuer: issuer, AKI: "01ab"}}}}
}

// TestInterceptors: who answers in another's place is told by who signs, by
// headers and pages, and by what it calls itself; and is unknown if it does not
// say.
func TestInterceptors(t *testing.T) {
	web := func(e measure.Experiment, h measure.HTTP) measure.Observation {
		return measure.Observation{Step: measure.StepHTTP, Role: measure.RoleTest, Experiment: e, Remote: "192.0.2.7:80", HTTP: &h}
	}
	chaos := func(operator, name, text string) measure.Observation {
		return measure.Observation{Step: measure.StepDNS, Role: measure.RoleTest, Experiment: measure.ExpOperator, DNS: &measure.DNS{Name: name, Operator: operator, Unlike: true,
			Replies: []measure.DNSReply{{Rcode: "NOERROR", Answers: []measure.DNSAnswer{{Type: "TXT", Value: `"` + text + `"`}}}}}}
	}
	echo := web(measure.ExpEcho, measure.HTTP{Status: 200, Headers: []measure.Header{{Name: "Via", Value: "1.1 box (squid/5.7)"}},
		Sent: &measure.Head{Headers: []measure.Header{{Name: "Host"}}}, Seen: &measure.Head{Headers: []measure.Header{{Name: "Host"}, {Name: "X-MSISDN"}, {Name: "Via", Value: "1.1 box (squid/5.7)"}}}})
	echo.Control = "o2"
	over := measure.Observation{Step: measure.StepHTTP, Role: measure.RoleControl, Experiment: measure.ExpEcho, Remote: "192.0.2.7:443", HTTP: &measure.HTTP{Status: 200}}
	for _, c := range []struct {
		name    string
		target  string
		finding measure.Finding
		seen    []measure.Observation
		payload string
		outcome measure.Likeness
		named   string // a product, or the behaviour
		says    string // a property with its value
	}{
		{"mitmproxy, whose root this system trusts", "https://a.example/", measure.Finding{Method: measure.TLSInterception, Trusted: true}, []measure.Observation{signedBy("CN=mitmproxy,O=mitmproxy")}, TLS, measure.ProductNamed, "mitmproxy", "issuer=CN=mitmproxy,O=mitmproxy"},
		{"its name alone", "https://a.example/", measure.Finding{Method: measure.TLSInterception}, []measure.Observation{signedBy("CN=mitmproxy,O=mitmproxy")}, TLS, measure.ProductNamed, "mitmproxy", "days=365"},
		{"a name that many may have", "https://a.example/", measure.Finding{Method: measure.TLSInterception}, []measure.Observation{signedBy("CN=PAN-OS Firewall")}, TLS, measure.UnknownDevice, "", "aia=no"},
		{"nobody's name", "https://a.example/", measure.Finding{Method: measure.TLSInterception}, []measure.Observation{signedBy("CN=Some Operator CA")}, TLS, measure.UnknownDevice, "", "issuer-key=01ab"},
		{"an authority that is no product", "https://a.example/", measure.Finding{Method: measure.TLSInterception}, []measure.Observation{signedBy("CN=Qaznet Trust Network")}, TLS, measure.BehaviourKnown, "Qaznet Trust Network (2019)", "leaf-key=rsa-2048"},
		{"a cache that adds headers", measure.LineTarget, measure.Finding{Method: measure.HTTPProxy}, []measure.Observation{echo, over}, Web, measure.ProductNamed, "Squid", "added=via x-msisdn"},
		{"an error page of its own", measure.LineTarget, measure.Finding{Method: measure.HTTPProxy}, []measure.Observation{web(measure.ExpNobody, measure.HTTP{Status: 502, Title: "502 Bad Gateway", Headers: []measure.Header{{Name: "Server", Value: "mitmproxy 12.2.3"}}})}, Web, measure.ProductNamed, "mitmproxy", "page=502 502 Bad Gateway"},
		{"a page of nobody's", measure.LineTarget, measure.Finding{Method: measure.HTTPProxy}, []measure.Observation{web(measure.ExpNobody, measure.HTTP{Status: 504, Title: "Gateway Timeout"})}, Web, measure.UnknownDevice, "", "page=504 Gateway Timeout"},
		{"dnsmasq for two resolvers", measure.LineTarget, measure.Finding{Method: measure.DNSInterception}, []measure.Observation{chaos("one", "version.bind", "dnsmasq-2.90"), chaos("two", "version.bind", "dnsmasq-2.90")}, Naming, measure.ProductNamed, "dnsmasq", "version=dnsmasq-2.90"},
		{"one resolver's own dnsmasq", measure.LineTarget, measure.Finding{Method: measure.DNSInterception}, []measure.Observation{chaos("one", "version.bind", "dnsmasq-2.90"), chaos("two", "version.bind", "other")}, Naming, measure.UnknownDevice, "", ""},
		{"one resolver that gives one name twice", measure.LineTarget, measure.Finding{Method: measure.DNSInterception}, []measure.Observation{chaos("one", "id.server", "box"), chaos("one", "hostname.bind", "box")}, Naming, measure.UnknownDevice, "", "!name"},
		{"two that give one name", measure.LineTarget, measure.Finding{Method: measure.DNSInterception}, []measure.Observation{chaos("one", "id.server", "box"), chaos("two", "hostname.bind", "box")}, Naming, measure.UnknownDevice, "", "name=box"},
		{"a firewall that inspects mail", "smtp://mail.example:587", measure.Finding{Method: measure.StartTLSStrip}, []measure.Observation{{Step: measure.StepMail, Role: measure.RoleTest, Mail: &measure.Mail{Protocol: "smtp", Greeting: "220 ****", Before: []string{"SIZE", "XXXXXXXA"}}}}, Mail, measure.ProductNamed, "ASA or PIX (inspect esmtp)", "mask=XXXXXXXA"},
		{"somebody who ends mail's TLS", "smtp://mail.example:587", measure.Finding{Method: measure.MailInterception}, []measure.Observation{{Step: measure.StepMail, Role: measure.RoleTest, Mail: &measure.Mail{Protocol: "smtp", Greeting: "220 ready"}, TLS: signedBy("CN=Box").TLS}}, Mail, measure.UnknownDevice, "", "issuer=CN=Box"},
		{"a router that answers for an SSH server", "ssh://git.example", measure.Finding{Method: measure.SSHInterception}, []measure.Observation{{Step: measure.StepSSH, Role: measure.RoleTest, SSH: &measure.SSH{Identification: "SSH-2.0-ROSSSH", KeyType: "ssh-rsa", Fingerprint: "SHA256:x"}}}, SSH, measure.ProductNamed, "RouterOS", "software=SSH-2.0-ROSSSH"},
		{"an SSH server like any", "ssh://git.example", measure.Finding{Method: measure.SSHInterception}, []measure.Observation{{Step: measure.StepSSH, Role: measure.RoleTest, SSH: &measure.SSH{Identification: "SSH-2.0-OpenSSH_9.7"}}}, SSH, measure.UnknownDevice, "", "software=SSH-2.0-OpenSSH_9.7"},
		{"what says nothing is not told of a target", "https://a.example/", measure.Finding{Method: measure.DNSInterception}, []measure.Observation{{Step: measure.StepDNS, Role: measure.RoleTest}}, "", "", "", ""},
		{"nor is a device that a name triggers", "https://a.example/", measure.Finding{Method: measure.TLSReset}, []measure.Observation{signedBy("CN=mitmproxy")}, "", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &measure.Measurement{Target: c.target, ID: "m1", Run: "r1", Complete: true, Observations: c.seen}
			v := confirmed(m, c.finding)
			table := Documented(nil)
			ids := table.Interceptors(m, v)
			if c.payload == "" {
				if len(ids) > 0 {
					t.Errorf("%+v", ids[0])
				}
				return
			}
			if len(ids) != 1 {
				t.Fatalf("%d identifications", len(ids))
			}
			id := ids[0]
			named := ""
			for _, x := range slices.Concat(id.Products, id.Behaviours) {
				named = x.Name
			}
			if id.Payload != c.payload || id.Outcome != c.outcome || named != c.named || id.Method != c.finding.Method || id.Probes != 0 {
				t.Errorf("%+v", id)
			}
			if not, no := strings.CutPrefix(c.says, "!"); no {
				if slices.ContainsFunc(id.Properties, func(p measure.Property) bool { return p.Name == not }) {
					t.Errorf("%s in %+v", not, id.Properties)
				}
			} else if name, value, _ := strings.Cut(c.says, "="); name != "" && !slices.ContainsFunc(id.Properties, func(p measure.Property) bool { return p.Name == name && p.Value == value }) {
				t.Errorf("no %s in %+v", c.says, id.Properties)
			}
			if again := table.Interceptors(m, v); !reflect.DeepEqual(ids, again) {
				t.Errorf("again: %+v", again[0])
			}
			// What is not confirmed is not named.
			v.Findings[0].Interference = measure.InterferenceSuspected
			if ids := table.Interceptors(m, v); len(ids) > 0 {
				t.Errorf("of a suspicion: %+v", ids[0])
			}
		})
	}
}

// TestInterceptorID: the id is that of who signs and how, whichever site was
// asked; and of another signer another.
func TestInterceptorID(t *testing.T) {
	of := func(issuer, key string) string {
		o := signedBy(issuer)
		o.TLS.Key = key
		m := &measure.Measurement{Target: "https://a.example/", Observations: []measure.Observation{o}}
		return Documented(nil).Interceptors(m, confirmed(m, measure.Finding{Method: measure.TLSInterception}))[0].Cluster
	}
	a, b, c := of("CN=One CA", "rsa-2048"), of("CN=One CA", "rsa-2048"), of("CN=Two CA", "rsa-2048")
	if a == "" || a != b || a == c || a == of("CN=One CA", "ecdsa-256") || !strings.HasPrefix(a, "tls-") {
		t.Errorf("%s, %s, %s", a, b, c)
	}
}

// TestInterceptorsOfAnything: whatever a file holds, what is said is bounded
// and can be written.
func TestInterceptorsOfAnything(t *testing.T) {
	m := &measure.Measurement{Target: measure.LineTarget}
	for i := range 2000 {
		o := signedBy(strings.Repeat("\xffCN=x", 500) + fmt.Sprint(i))
		o.DNS = &measure.DNS{Name: "version.bind", Operator: fmt.Sprint("x", i%3), Replies: []measure.DNSReply{{Rcode: "NOERROR", Answers: []measure.DNSAnswer{{Type: "TXT", Value: strings.Repeat("\x1b", 900)}}}}}
		o.HTTP, o.Remote, o.Experiment = &measure.HTTP{Status: 200, Title: strings.Repeat("\u202e", 900)}, "192.0.2.7:80", measure.ExpNobody
		if i%2 == 0 {
			o.Experiment = measure.ExpOperator
		}
		o.SSH, o.Mail = &measure.SSH{Identification: strings.Repeat("s", 900)}, &measure.Mail{Greeting: strings.Repeat("g", 900), Before: []string{strings.Repeat("X", 900)}}
		m.Observations = append(m.Observations, o)
	}
	for _, method := range []measure.Method{measure.TLSInterception, measure.HTTPProxy, measure.DNSInterception, measure.MailInterception, measure.SSHInterception} {
		ids := Documented(nil).Interceptors(m, confirmed(m, measure.Finding{Method: method}))
		if len(ids) != 1 || len(ids[0].Properties) == 0 {
			t.Errorf("%s: %+v", method, ids)
		}
		for _, id := range ids {
			for _, p := range id.Properties {
				if len(p.Value) > maxShown {
					t.Errorf("%s: %d bytes of %s", method, len(p.Value), p.Name)
				}
			}
			b, err := json.Marshal(id)
			if err != nil || len(b) > 64<<10 {
				t.Errorf("%s: %d bytes, %v", method, len(b), err)
			}
		}
	}
}
