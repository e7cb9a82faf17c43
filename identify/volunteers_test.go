package identify

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"govah/known"
	"govah/measure"
)

func asked(id, remote string, change func(*measure.Observation)) measure.Observation {
	o := measure.Observation{ID: id, Step: measure.StepTCP, Role: measure.RoleTest, Stage: measure.StageBanner, Experiment: measure.ExpBanner, Remote: remote, Beside: &measure.Beside{TTL: 2, PerMille: 990}}
	if change != nil {
		change(&o)
	}
	return o
}

func says(text string) func(*measure.Observation) {
	return func(o *measure.Observation) {
		o.Step, o.Greeting = measure.StepGreeting, &measure.Greeting{Text: text, Bytes: int64(len(text))}
	}
}

// The rows that a web page matched count if the table knows them and they name
// a product of the router; two rows of one product are surer than one.
func TestVolunteered(t *testing.T) {
	page := func(rows ...string) func(*measure.Observation) {
		return func(o *measure.Observation) {
			o.Step, o.HTTP = measure.StepHTTP, &measure.HTTP{Status: 200, Title: "x"}
			for _, row := range rows {
				s, ok := known.SignatureOf(row)
				kind := s.Kind
				if !ok {
					kind = "product"
				}
				o.HTTP.Matches = append(o.HTTP.Matches, measure.Match{Row: row, Kind: kind})
			}
		}
	}
	for _, c := range []struct {
		name    string
		list    []measure.Observation
		outcome measure.Likeness
		want    string
	}{
		{"refused", []measure.Observation{asked("o1", "5.0.0.2:22", func(o *measure.Observation) { o.Failure = measure.ConnectionRefused })}, measure.RouterSilent, "5.0.0.2"},
		{"one row", []measure.Observation{asked("o1", "5.0.0.2:22", says("SSH-2.0-ROSSSH%0D%0A"))}, measure.RouterNamed, "5.0.0.2 RouterOS 900 o1"},
		{"two rows", []measure.Observation{asked("o1", "5.0.0.2:22", says("SSH-2.0-ROSSSH%0D%0A")), asked("o2", "5.0.0.2:80", page("banner.mikrotik_page"))}, measure.RouterNamed, "5.0.0.2 RouterOS 990 o1 o2"},
		{"one row twice", []measure.Observation{asked("o1", "5.0.0.2:80", page("banner.mikrotik_page")), asked("o2", "5.0.0.2:8080", page("banner.mikrotik_page"))}, measure.RouterNamed, "5.0.0.2 RouterOS 900 o1 o2"},
		{"each router for itself", []measure.Observation{asked("o1", "5.0.0.2:22", says("SSH-2.0-ROSSSH")), asked("o2", "5.0.0.3:22", says("SSH-2.0-HUAWEI-1.5"))}, measure.RouterNamed, "5.0.0.2 RouterOS 900 o1; 5.0.0.3 VRP 900 o2"},
		{"a page of a server's own", []measure.Observation{asked("o1", "5.0.0.2:80", page("origin.nginx_default", "waf.f5", "geoblock.cloudfront"))}, measure.RouterUnknown, "5.0.0.2"},
		{"common words", []measure.Observation{asked("o1", "5.0.0.2:80", page("cp.a_prod_fortinet_7"))}, measure.RouterUnknown, "5.0.0.2"},
		{"a list that is not at hand", []measure.Observation{asked("o1", "5.0.0.2:80", page("import.prod_x"))}, measure.RouterUnknown, "5.0.0.2"},
		{"a certificate", []measure.Observation{asked("o1", "5.0.0.2:443", func(o *measure.Observation) {
			o.Step, o.TLS = measure.StepTLS, &measure.TLS{Subject: "CN=FGT60,O=Fortinet", Issuer: "CN=FGT60,O=Fortinet"}
		})}, measure.RouterNamed, "5.0.0.2 FortiGate 700 o1"},
	} {
		id := Documented(nil).Infer(&measure.Measurement{ID: "b1", Complete: true, Observations: c.list})
		if id == nil {
			t.Errorf("%s: nothing", c.name)
			continue
		}
		var got []string
		for _, v := range id.Routers {
			text := v.Address
			for _, p := range v.Products {
				text += fmt.Sprintf(" %s %d %s", p.Name, p.PerMille, strings.Join(p.Because, " "))
			}
			got = append(got, text)
		}
		if text := strings.Join(got, "; "); id.Outcome != c.outcome || text != c.want || id.Payload != Banner || len(id.Products) > 0 {
			t.Errorf("%s: %s %q, want %s %q", c.name, id.Outcome, text, c.outcome, c.want)
		}
	}
}

// What is no answer of a router beside the link says nothing, and a file may
// hold anything.
func TestVolunteeredFromAnywhere(t *testing.T) {
	for name, o := range map[string]measure.Observation{
		"not beside": asked("o1", "5.0.0.2:22", func(o *measure.Observation) { o.Beside = nil }), "no address": asked("o1", "router", says("SSH-2.0-ROSSSH")),
		"another stage": asked("o1", "5.0.0.2:22", func(o *measure.Observation) { o.Stage = measure.StageIdentify }), "another question": asked("o1", "5.0.0.2:22", func(o *measure.Observation) { o.Experiment = "" }),
	} {
		if id := Documented(nil).Infer(&measure.Measurement{Observations: []measure.Observation{o}}); id != nil {
			t.Errorf("%s: %+v", name, id)
		}
	}
	var many []measure.Observation
	for i := range 5000 {
		many = append(many, asked("o", fmt.Sprintf("5.0.%d.2:%d", i%100, 1+i), says(strings.Repeat("ا", 4000))))
	}
	id := Documented(nil).Infer(&measure.Measurement{Observations: many})
	if data, err := json.Marshal(id); err != nil || len(id.Routers) != maxRouters || len(data) > 400_000 {
		t.Errorf("%d routers, %d bytes, %v", len(id.Routers), len(data), err)
	}
}

// No vendor's name for an unknown router, whatever words it greets with.
func TestNoVendorForUnknownRouters(t *testing.T) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	table := Documented(nil)
	words := strings.Fields("Cisco Huawei MikroTik RouterOS FortiGate Fortinet SSH-2.0- 2.0 OpenSSH_9.6 FTP server ready (vsFTPd 220 login: Password access VRP Comware H3C IOS ASA %0D%0A -1.25 ROSSSH dropbear")
	for range 10_000 {
		text := ""
		for range 1 + rng.IntN(8) {
			text += words[rng.IntN(len(words))] + []string{"", " "}[rng.IntN(2)]
		}
		// What the protocol has in that place is the name itself.
		named := strings.Contains(text, " FTP server (MikroTik ")
		for _, software := range []string{"ROSSSH", "Cisco-", "HUAWEI-", "Comware-"} {
			named = named || strings.HasPrefix(text, "SSH-2.0-"+software)
		}
		id := table.Infer(&measure.Measurement{Observations: []measure.Observation{asked("o1", "5.0.0.2:22", says(text))}})
		if got := id.Outcome == measure.RouterNamed; got != named {
			t.Fatalf("%q: %s, %+v", text, id.Outcome, id.Routers)
		}
	}
}
