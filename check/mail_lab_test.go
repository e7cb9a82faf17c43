package check_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"govah/check"
	"govah/helper"
	"govah/judge"
	"govah/lab"
	"govah/measure"
	"govah/wire"
)

// post is a line with a mail server beyond it.
type post struct {
	device string // the client's mail device, as keys of its table
	client string // further keys and tables of the client
	server string // tables [[site.mail]] of the server
	target string // default "smtp://mail.example:587"
	helper bool   // there is one, with greeters
	mute   bool   // it has none
	loss   int
	remote string // the server's site keys
}

const goodSMTP = "[[site.mail]]\nscheme = \"smtp\"\ngreeting = \"ESMTP Postfix\"\ncapabilities = [\"PIPELINING\", \"SIZE 52428800\", \"STARTTLS\", \"8BITMIME\"]\n[[site.mail]]\nscheme = \"smtps\"\ngreeting = \"ESMTP Postfix\"\ninside = [\"PIPELINING\", \"SIZE 52428800\", \"AUTH PLAIN\", \"8BITMIME\"]\n"

const goodIMAP = "[[site.mail]]\nscheme = \"imap\"\ngreeting = \"[CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] Dovecot ready.\"\ncapabilities = [\"IMAP4rev1\", \"IDLE\", \"STARTTLS\", \"LOGINDISABLED\"]\n[[site.mail]]\nscheme = \"imaps\"\ngreeting = \"Dovecot ready.\"\ninside = [\"IMAP4rev1\", \"AUTH=PLAIN\"]\n"

const goodPOP3 = "[[site.mail]]\nscheme = \"pop3\"\ngreeting = \"Dovecot ready.\"\ncapabilities = [\"CAPA\", \"TOP\", \"STLS\", \"SASL\"]\n[[site.mail]]\nscheme = \"pop3s\"\ngreeting = \"Dovecot ready.\"\ninside = [\"TOP\", \"USER\"]\n"

// seen runs a check over the line.
func (p post) seen(t *testing.T) check.Result {
	t.Helper()
	device := ""
	if p.device != "" {
		device = "[client-network.mail]\n" + p.device + "\n"
		if !strings.Contains(p.device, "at = ") {
			device += "at = 2\n"
		}
	}
	text := "schema = 1\ntitle = \"a line\"\nabout = \"for a test\"\n[[client-network]]\nname = \"home\"\nabout = \"a line\"\nhops = 4\ndelay = \"2ms\"\n" + p.client + "\n" + device
	for i := range 4 {
		text += fmt.Sprintf("[[network]]\nname = \"n%d\"\nhops = 2\nasn = %d\n", i, 64510+i)
	}
	for i := range 3 {
		text += fmt.Sprintf("[[site]]\nname = \"canary%d.example\"\nnetwork = \"n%d\"\nrole = \"canary\"\n", i, i)
	}
	text += "[[site]]\nname = \"help.example\"\nnetwork = \"n2\"\nrole = \"helper\"\n"
	text += "[[site]]\nname = \"mail.example\"\nnetwork = \"n3\"\n" + p.remote + "\n" + p.server
	s, err := lab.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	w, err := lab.New(s, lab.Options{Loss: p.loss})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer w.Close()
	defer running.Wait()
	defer cancel()
	roots, err := w.Network().Roots()
	if err != nil {
		t.Fatal(err)
	}
	cfg := check.Config{Network: w.Network(), Trust: wire.Trust{Public: w.Public(), System: roots, Now: w.Now}, ASN: w.ASN, Seed: 1, Pace: check.PaceFast,
		Only4: true, Surroundings: check.Surroundings{Resolvers: []netip.AddrPort{netip.MustParseAddrPort(w.Client.Resolver + ":53")}}}
	for _, c := range w.Sites("canary") {
		cfg.Controls.Canaries = append(cfg.Controls.Canaries, check.CanaryHost{Name: c.Name, Addrs: c.AllAddresses()})
	}
	if p.helper {
		cfg.Helpers = []string{greeting(t, ctx, &running, w, p.mute)}
		host, _, _ := check.HelperHost(cfg.Helpers[0])
		p.target = strings.Replace(p.target, "HELPER", host, 1)
	}
	if p.target == "" {
		p.target = "smtp://mail.example:587"
	}
	target, err := check.ParseTarget(p.target)
	if err != nil {
		t.Fatal(err)
	}
	var out check.Result
	if _, err := check.Run(ctx, cfg, []measure.Target{target}, func(r check.Result) error { out = r; return nil }); err != nil {
		t.Fatal(err)
	}
	// The file judged again gives the same bytes.
	line, err := json.Marshal(out.Measurement)
	if err != nil {
		t.Fatal(err)
	}
	var again measure.Measurement
	if err := json.Unmarshal(line, &again); err != nil {
		t.Fatal(err)
	}
	first, _ := json.Marshal(out.Verdict)
	if second, _ := json.Marshal(judge.Judge(judge.Input{Measurement: &again})); string(first) != string(second) {
		t.Errorf("judged again:\n%s\n%s", first, second)
	}
	return out
}

// greeting runs a helper with greeters at the usual ports and gives its URL.
func greeting(t *testing.T, ctx context.Context, running *sync.WaitGroup, w *lab.World, mute bool) string {
	t.Helper()
	m, err := w.Host("help.example")
	if err != nil {
		t.Fatal(err)
	}
	h, err := helper.New(helper.Config{Network: m.Network(), Roots: w.Public(), Locate: w.ASN, Now: w.Now})
	if err != nil {
		t.Fatal(err)
	}
	var l helper.Listeners
	for _, a := range m.Addresses() {
		if !a.Is4() {
			continue
		}
		ln, err := m.Listen(netip.AddrPortFrom(a, 443))
		if err != nil {
			t.Fatal(err)
		}
		l.TCP = append(l.TCP, ln)
		for _, where := range []string{"smtp://%s", "smtp://%s:25", "smtps://%s", "imap://%s", "imaps://%s", "pop3://%s", "pop3s://%s"} {
			protocol, implicit, at, err := helper.ParseMail(fmt.Sprintf(where, a))
			if err != nil {
				t.Fatal(err)
			}
			ln, err := m.Listen(netip.MustParseAddrPort(at))
			if err != nil {
				t.Fatal(err)
			}
			if mute {
				context.AfterFunc(ctx, func() { ln.Close() })
				running.Go(func() {
					for {
						c, err := ln.Accept()
						if err != nil {
							return
						}
						c.Close()
						t.Errorf("%s was connected to", at)
					}
				})
				continue
			}
			l.Mail = append(l.Mail, helper.MailListener{Listener: ln, Protocol: protocol, Implicit: implicit})
		}
		running.Go(func() { h.Serve(ctx, l) })
		return h.URL(a.String())
	}
	t.Fatal("the helper has no address")
	return ""
}

// transcript is what was said, for a test that failed.
func transcript(m *measure.Measurement) string {
	var b strings.Builder
	for _, o := range m.Observations {
		if o.Mail == nil {
			continue
		}
		fmt.Fprintf(&b, "%s %s %s %s pair %d %s failure %q %s starttls %q early %d key %q injected %q before %q\n", o.ID, o.Role, o.Stage, o.Experiment, o.Pair, o.Remote, o.Failure, o.Detail,
			o.Mail.StartTLS, o.Mail.EarlyBytes, o.Mail.Key, o.Mail.Injected, o.Mail.Before)
		for _, l := range o.Mail.Lines {
			fmt.Fprintf(&b, "    sent %-5v tls %-5v %s\n", l.Sent, l.TLS, l.Text)
		}
	}
	return b.String()
}

// TestMailDevices: whatever a device does to mail is found and, where a
// helper's greeter shows what should have come, confirmed; without one it is
// never called innocent. With a helper also on a line that loses 2 %.
func TestMailDevices(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for _, c := range []struct {
		name, does, protocol string
		method               measure.Method
		kind                 string
		alone                measure.Interference // without a helper
	}{
		{"offer removed", `does = ["remove"]`, "smtp", measure.StartTLSStrip, "mail-unlisted", measure.InterferenceUnknown},
		{"offer removed, command refused", `does = ["remove", "refuse"]`, "smtp", measure.StartTLSStrip, "mail-missing", measure.InterferenceUnknown},
		{"masked", `does = ["mask"]`, "smtp", measure.StartTLSStrip, "mail-masked", measure.InterferenceSuspected},
		{"masked, banner too", `does = ["mask", "mask-banner"]`, "smtp", measure.StartTLSStrip, "mail-masked", measure.InterferenceSuspected},
		{"command refused", `does = ["refuse"]`, "smtp", measure.StartTLSStrip, "mail-refused", measure.InterferenceSuspected},
		{"banner masked", `does = ["mask-banner"]`, "smtp", measure.MailInterception, "mail-banner", measure.InterferenceNone},
		{"text smuggled in", `does = ["smuggle"]`, "smtp", measure.MailInterception, "mail-early", measure.InterferenceSuspected},
		{"answered by somebody else", `does = ["answer"]`, "smtp", measure.MailInterception, "mail-key", measure.InterferenceUnknown},
		{"a proxy that accepts by itself", "does = [\"answer\"]\nterminates = true", "smtp", measure.MailInterception, "mail-key", measure.InterferenceSuspected},
		{"a proxy without encryption", "does = [\"remove\", \"refuse\"]\nterminates = true", "smtp", measure.StartTLSStrip, "mail-missing", measure.InterferenceSuspected},
		{"offer removed", `does = ["remove"]`, "imap", measure.StartTLSStrip, "mail-unlisted", measure.InterferenceUnknown},
		{"offer removed, command refused", `does = ["remove", "refuse"]`, "imap", measure.StartTLSStrip, "mail-missing", measure.InterferenceUnknown},
		{"masked", `does = ["mask"]`, "imap", measure.StartTLSStrip, "mail-masked", measure.InterferenceSuspected},
		{"masked, banner too", `does = ["mask", "mask-banner"]`, "imap", measure.StartTLSStrip, "mail-masked", measure.InterferenceSuspected},
		{"command refused", `does = ["refuse"]`, "imap", measure.StartTLSStrip, "mail-refused", measure.InterferenceSuspected},
		{"banner masked", `does = ["mask-banner"]`, "imap", measure.MailInterception, "mail-banner", measure.InterferenceNone},
		{"text smuggled in", `does = ["smuggle"]`, "imap", measure.MailInterception, "mail-early", measure.InterferenceSuspected},
		{"answered by somebody else", `does = ["answer"]`, "imap", measure.MailInterception, "mail-key", measure.InterferenceUnknown},
		{"a proxy that accepts by itself", "does = [\"answer\"]\nterminates = true", "imap", measure.MailInterception, "mail-key", measure.InterferenceSuspected},
		{"a proxy without encryption", "does = [\"remove\", \"refuse\"]\nterminates = true", "imap", measure.StartTLSStrip, "mail-missing", measure.InterferenceSuspected},
		{"offer removed", `does = ["remove"]`, "pop3", measure.StartTLSStrip, "mail-unlisted", measure.InterferenceUnknown},
		{"offer removed, command refused", `does = ["remove", "refuse"]`, "pop3", measure.StartTLSStrip, "mail-missing", measure.InterferenceUnknown},
		{"masked", `does = ["mask"]`, "pop3", measure.StartTLSStrip, "mail-masked", measure.InterferenceSuspected},
		{"masked, banner too", `does = ["mask", "mask-banner"]`, "pop3", measure.StartTLSStrip, "mail-masked", measure.InterferenceSuspected},
		{"command refused", `does = ["refuse"]`, "pop3", measure.StartTLSStrip, "mail-refused", measure.InterferenceSuspected},
		{"banner masked", `does = ["mask-banner"]`, "pop3", measure.MailInterception, "mail-banner", measure.InterferenceNone},
		{"text smuggled in", `does = ["smuggle"]`, "pop3", measure.MailInterception, "mail-early", measure.InterferenceSuspected},
		{"answered by somebody else", `does = ["answer"]`, "pop3", measure.MailInterception, "mail-key", measure.InterferenceUnknown},
		{"a proxy that accepts by itself", "does = [\"answer\"]\nterminates = true", "pop3", measure.MailInterception, "mail-key", measure.InterferenceSuspected},
		{"a proxy without encryption", "does = [\"remove\", \"refuse\"]\nterminates = true", "pop3", measure.StartTLSStrip, "mail-missing", measure.InterferenceSuspected},
		{"command refused with 500", "does = [\"refuse\"]\nreply = \"500 5.5.1 Command unrecognized: XXXXXXXX\"", "smtp", measure.StartTLSStrip, "mail-refused", measure.InterferenceSuspected},
		{"command refused for now", "does = [\"refuse\"]\nreply = \"454 4.7.0 TLS not available\"", "smtp", measure.StartTLSStrip, "mail-refused", measure.InterferenceUnknown},
		{"command refused with NO", "does = [\"refuse\"]\nreply = \"NO not now\"", "imap", measure.StartTLSStrip, "mail-refused", measure.InterferenceSuspected},
		{"command swallowed", "does = [\"swallow\"]\nin-path = true", "smtp", measure.StartTLSStrip, "mail-unanswered", measure.InterferenceUnknown},
		{"connection cut at the command", "does = [\"cut\"]\nin-path = true", "smtp", measure.StartTLSStrip, "mail-unanswered", measure.InterferenceUnknown},
		{"command swallowed", "does = [\"swallow\"]\nin-path = true", "imap", measure.StartTLSStrip, "mail-unanswered", measure.InterferenceUnknown},
		{"connection cut at the command", "does = [\"cut\"]\nin-path = true", "imap", measure.StartTLSStrip, "mail-unanswered", measure.InterferenceUnknown},
		{"command swallowed", "does = [\"swallow\"]\nin-path = true", "pop3", measure.StartTLSStrip, "mail-unanswered", measure.InterferenceUnknown},
		{"connection cut at the command", "does = [\"cut\"]\nin-path = true", "pop3", measure.StartTLSStrip, "mail-unanswered", measure.InterferenceUnknown},
		{"logins in the clear allowed", `does = ["remove-logindisabled"]`, "imap", measure.StartTLSStrip, "mail-logindisabled", measure.InterferenceNone},
		{"encryption taken off where it begins at once", "does = [\"undress\"]\nports = [465]", "smtps", measure.StartTLSStrip, "mail-plain", measure.InterferenceUnknown},
		{"encryption taken off where it begins at once", "does = [\"undress\"]\nports = [993]", "imaps", measure.StartTLSStrip, "mail-plain", measure.InterferenceUnknown},
		{"a proxy that takes it off", "does = [\"undress\"]\nports = [995]\nterminates = true", "pop3s", measure.StartTLSStrip, "mail-plain", measure.InterferenceSuspected},
		{"logged in already", `does = ["preauth"]`, "imap", measure.StartTLSStrip, "mail-preauth", measure.InterferenceSuspected},
	} {
		for _, helped := range []bool{true, false} {
			p := post{device: c.does, helper: helped, loss: map[bool]int{true: 20}[helped], server: map[string]string{"smtp": goodSMTP, "imap": goodIMAP, "pop3": goodPOP3}[strings.TrimSuffix(c.protocol, "s")],
				target: fmt.Sprintf("%s://mail.example:%d", c.protocol, wire.MailPorts[c.protocol])}
			together(&wg, func() {
				r := p.seen(t)
				f := findingOf(r.Verdict, c.method)
				switch {
				case !helped && r.Verdict.Interference == c.alone && (c.alone != measure.InterferenceSuspected || f != nil && f.Trigger.Kind == c.kind):
				case helped && f != nil && f.Interference == measure.InterferenceConfirmed && f.Trigger.Kind == c.kind && r.Verdict.Interference == measure.InterferenceConfirmed:
				default:
					t.Errorf("%s, %s, helper %v: %+v\n%s", c.protocol, c.name, helped, r.Verdict, transcript(r.Measurement))
				}
				if !helped {
					return
				}
				for _, o := range r.Measurement.Observations {
					if o.Experiment == measure.ExpMailGreeter && o.Mail != nil && (o.Mail.Injected == "executed") != (c.kind == "mail-key") {
						t.Errorf("%s, %s: what was sent in the clear behind STARTTLS was %q\n%s", c.protocol, c.name, o.Mail.Injected, transcript(r.Measurement))
					}
				}
			})
		}
	}
	wg.Wait()
}

// TestMailSilence: where a harmless command is not answered either, or nobody
// tried one, silence is not laid to STARTTLS; where only the target is silent,
// and answers a helper, it is suspected.
func TestMailSilence(t *testing.T) {
	t.Parallel()
	r := post{device: "does = [\"swallow\"]\nin-path = true", server: goodSMTP, helper: true}.seen(t)
	f := findingOf(r.Verdict, measure.StartTLSStrip)
	if f == nil || f.Interference != measure.InterferenceConfirmed {
		t.Fatalf("%+v\n%s", r.Verdict, transcript(r.Measurement))
	}
	changed := func(change func(o *measure.Observation) bool) measure.Verdict {
		m := *r.Measurement
		m.Observations = nil
		for _, o := range r.Measurement.Observations {
			if o.Mail != nil {
				mail := *o.Mail
				if o.Mail = &mail; !change(&o) {
					continue
				}
			}
			m.Observations = append(m.Observations, o)
		}
		return judge.Judge(judge.Input{Measurement: &m})
	}
	isInstead := func(o *measure.Observation) bool { return o.ControlKind == measure.ControlHarmless }
	for _, c := range []struct {
		what   string
		want   measure.Interference
		change func(*measure.Observation) bool
	}{
		{"all of them silent", measure.InterferenceUnknown, func(o *measure.Observation) bool {
			if isInstead(o) {
				o.Mail.Instead = "silent"
			}
			return true
		}},
		{"none tried", measure.InterferenceUnknown, func(o *measure.Observation) bool { return !isInstead(o) }},
		{"nobody spoke to greeters", measure.InterferenceSuspected, func(o *measure.Observation) bool { return o.Experiment != measure.ExpMailGreeter }},
	} {
		if v := changed(c.change); v.Interference != c.want {
			t.Errorf("%s: %+v", c.what, v)
		}
	}
	if v := changed(func(*measure.Observation) bool { return true }); v.Interference != measure.InterferenceConfirmed {
		t.Errorf("unchanged: %+v", v)
	}
}

// together runs f beside others of its kind, more of them than there are
// processors: they wait most of the time.
func together(wg *sync.WaitGroup, f func()) {
	wg.Go(func() {
		labs <- struct{}{}
		defer func() { <-labs }()
		f()
	})
}

var labs = make(chan struct{}, 16)

func findingOf(v measure.Verdict, m measure.Method) *measure.Finding {
	for i := range v.Findings {
		if v.Findings[i].Method == m {
			return &v.Findings[i]
		}
	}
	return nil
}

// TestMailHonest: servers as they are met with, none of which is accused, and
// on which a second look makes the verdict firm unless the fault is their own.
func TestMailHonest(t *testing.T) {
	t.Parallel()
	service := func(lines ...string) string { return "[[site.mail]]\n" + strings.Join(lines, "\n") + "\n" }
	smtp := func(lines ...string) string {
		return service(append([]string{`scheme = "smtp"`, `greeting = "ESMTP"`, `capabilities = ["SIZE", "STARTTLS"]`}, lines...)...)
	}
	const (
		smtps  = "[[site.mail]]\nscheme = \"smtps\"\ngreeting = \"ESMTP\"\ninside = [\"SIZE\", \"AUTH PLAIN\"]\n"
		imap   = "imap://mail.example"
		pop3   = "pop3://mail.example"
		faulty = true
	)
	var wg sync.WaitGroup
	n := 0
	for _, c := range []struct {
		name   string
		post   post
		faulty bool // the server's own fault keeps it from being firm
	}{
		{name: "as it should be", post: post{server: goodSMTP}},
		{name: "as it should be, IMAP", post: post{server: goodIMAP, target: imap}},
		{name: "as it should be, POP3", post: post{server: goodPOP3, target: pop3}},
		{name: "without STARTTLS", post: post{server: service(`scheme = "smtp"`, `capabilities = ["SIZE", "AUTH LOGIN"]`) + smtps}},
		{name: "without STARTTLS or another port", post: post{server: service(`scheme = "smtp"`, `capabilities = ["SIZE"]`)}},
		{name: "without EHLO", post: post{server: service(`scheme = "smtp"`)}},
		{name: "TLS not available for now", post: post{server: smtp(`starttls = "454 4.7.0 TLS not available due to local problem"`)}},
		{name: "silent at STARTTLS", post: post{server: smtp(`starttls = "silent"`)}, faulty: faulty},
		{name: "silent at STLS", post: post{server: service(`scheme = "pop3"`, `capabilities = ["TOP", "STLS"]`, `starttls = "silent"`), target: pop3}, faulty: faulty},
		{name: "STARTTLS in another case of its capabilities", post: post{server: service(`scheme = "smtp"`, `capabilities = ["size 1000", "StartTLS"]`, `starttls = "unlisted"`)}},
		{name: "STARTTLS not listed, and done", post: post{server: service(`scheme = "smtp"`, `capabilities = ["SIZE"]`, `starttls = "unlisted"`)}},
		{name: "self-signed at one port", post: post{server: smtp(`cert = "self-signed"`) + smtps}, faulty: faulty},
		{name: "self-signed at both", post: post{server: smtp() + smtps, remote: `cert = "self-signed"`}, faulty: faulty},
		{name: "expired", post: post{server: smtp(`cert = "expired"`) + smtps}, faulty: faulty},
		{name: "another name", post: post{server: smtp(`cert = "wrong-name"`) + smtps}, faulty: faulty},
		{name: "without its intermediate", post: post{server: smtp(`cert = "missing-intermediate"`) + smtps}, faulty: faulty},
		{name: "its own banner mask", post: post{server: service(`scheme = "smtp"`, `greeting = "**************"`, `capabilities = ["SIZE", "STARTTLS"]`)}},
		{name: "capabilities that begin with X", post: post{server: service(`scheme = "smtp"`, `capabilities = ["XCLIENT NAME", "X-EXPS GSSAPI", "XEXCH50", "XXX", "STARTTLS"]`)}},
		{name: "slow to greet", post: post{server: smtp(`slow = "2500ms"`)}},
		{name: "old TLS", post: post{server: smtp(), remote: "tls12 = true"}},
		{name: "a port of its own", post: post{server: smtp("port = 2525"), target: "smtp://mail.example:2525"}},
		{name: "TLS from the first byte", post: post{server: goodSMTP, target: "smtps://mail.example"}},
		{name: "TLS from the first byte alone", post: post{server: service(`scheme = "imaps"`, `inside = ["IMAP4rev1"]`), target: "imaps://mail.example"}},
		{name: "TLS from the first byte, POP3", post: post{server: goodPOP3, target: "pop3s://mail.example"}},
		{name: "in the clear where TLS should begin at once", post: post{server: smtp("port = 465"), target: "smtps://mail.example"}, faulty: faulty},
		{name: "in the clear where TLS should begin at once, POP3", post: post{server: service(`scheme = "pop3"`, "port = 995"), target: "pop3s://mail.example"}, faulty: faulty},
		{name: "IMAP that allows logins in the clear", post: post{server: service(`scheme = "imap"`, `capabilities = ["IMAP4rev1", "STARTTLS"]`), target: imap}},
		{name: "IMAP without STARTTLS", post: post{server: service(`scheme = "imap"`, `capabilities = ["IMAP4rev1", "AUTH=PLAIN"]`), target: imap}},
		{name: "POP3 without CAPA", post: post{server: service(`scheme = "pop3"`), target: pop3}},
		{name: "POP3 without CAPA that does STLS", post: post{server: service(`scheme = "pop3"`, `starttls = "unlisted"`), target: pop3}},
		{name: "POP3 without STLS", post: post{server: service(`scheme = "pop3"`, `capabilities = ["TOP", "USER"]`) + service(`scheme = "pop3s"`), target: pop3}},
		{name: "behind a balancer that is nearer than its web server", post: post{server: service(`scheme = "smtp"`, `capabilities = ["SIZE"]`), device: "at = 4\ndoes = [\"preauth\"]\nterminates = true"}},
		{name: "behind such a balancer, without its intermediate", post: post{server: smtp(`cert = "missing-intermediate"`) + smtps, device: "at = 4\ndoes = [\"preauth\"]\nterminates = true"}, faulty: faulty},
		{name: "turns this network away", post: post{client: "asn = 64999", remote: "blocks-asns = [64999]", server: goodSMTP}, faulty: faulty},
		{name: "turns this network away, IMAP", post: post{client: "asn = 64999", remote: "blocks-asns = [64999]", server: goodIMAP, target: imap}, faulty: faulty},
		{name: "turns this network away, POP3", post: post{client: "asn = 64999", remote: "blocks-asns = [64999]", server: goodPOP3, target: pop3}, faulty: faulty},
		{name: "a lossy line", post: post{server: goodSMTP, loss: 20}},
		{name: "a lossy line, without its intermediate", post: post{server: smtp(`cert = "missing-intermediate"`) + smtps, loss: 20}, faulty: faulty},
		{name: "a lossy line, without STARTTLS", post: post{server: service(`scheme = "imap"`, `capabilities = ["IMAP4rev1"]`), target: imap, loss: 20}},
	} {
		n++
		for _, helped := range []bool{false, true} {
			p := c.post
			p.helper = helped
			together(&wg, func() {
				r := p.seen(t)
				v := r.Verdict
				for _, f := range v.Findings {
					if !f.Method.Benign() {
						t.Errorf("%s, helper %v: accused of %s: %+v\n%s", c.name, helped, f.Method, v, transcript(r.Measurement))
					}
				}
				if helped && !c.faulty && (v.Interference != measure.InterferenceNone || v.Reachable != measure.ReachableYes) {
					t.Errorf("%s, with a helper: %+v\n%s", c.name, v, transcript(r.Measurement))
				}
			})
		}
	}
	wg.Wait()
	if n < 20 {
		t.Errorf("%d honest servers", n)
	}
}

// TestMailHelperBehindAFirewall: what is done on the way to the helper alone
// is not laid to the target, and least of all where the target is like that
// by itself.
func TestMailHelperBehindAFirewall(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for _, does := range []string{`["mask", "mask-banner"]`, `["remove", "refuse"]`, `["answer"]`, `["smuggle"]`} {
		for what, server := range map[string]string{"good": goodSMTP, "without STARTTLS": "[[site.mail]]\nscheme = \"smtp\"\ncapabilities = [\"SIZE\"]\n"} {
			together(&wg, func() {
				r := post{device: "names = [\"help.example\"]\ndoes = " + does, server: server, helper: true}.seen(t)
				for _, f := range r.Verdict.Findings {
					if !f.Method.Benign() {
						t.Errorf("%s at the helper, a server %s: %+v\n%s", does, what, r.Verdict, transcript(r.Measurement))
					}
				}
			})
		}
	}
	wg.Wait()
}

// TestMailNearTheServer: what is done on the way to the target alone is a
// suspicion: a firewall of the server's own would look the same.
func TestMailNearTheServer(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for _, does := range []string{`["mask"]`, `["remove"]`, `["remove", "refuse"]`, `["refuse"]`, `["smuggle"]`} {
		together(&wg, func() {
			r := post{device: "names = [\"mail.example\"]\ndoes = " + does, server: goodSMTP, helper: true}.seen(t)
			if r.Verdict.Interference != measure.InterferenceSuspected || len(r.Verdict.Findings) == 0 || !slices.Contains(r.Verdict.Findings[0].NotExcluded, measure.WhyServerNetwork) {
				t.Errorf("%s: %+v\n%s", does, r.Verdict, transcript(r.Measurement))
			}
		})
	}
	wg.Wait()
}

// TestMailOnThisDevice: an antivirus with a root of its own is told as what it
// is, and without a second look it is no more than a suspicion.
func TestMailOnThisDevice(t *testing.T) {
	t.Parallel()
	for _, helped := range []bool{false, true} {
		r := post{client: "trusts-interceptor = true", device: "at = 0\nports = [143, 993]\ndoes = [\"answer\"]\nterminates = true", server: goodIMAP, target: "imap://mail.example", helper: helped}.seen(t)
		f := findingOf(r.Verdict, measure.MailInterception)
		want := measure.InterferenceSuspected
		if helped {
			want = measure.InterferenceConfirmed
		}
		if f == nil || f.Interference != want || f.Scope != measure.ScopeLAN || !f.Trusted {
			t.Errorf("helper %v: %+v\n%s", helped, r.Verdict, transcript(r.Measurement))
		}
	}
}

// TestMailAtTheHelper: a greeter is a target too, at port 25 as well.
func TestMailAtTheHelper(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for _, target := range []string{"smtp://HELPER:25", "imap://HELPER", "pop3s://HELPER"} {
		for does, want := range map[string]measure.Method{"": "", `does = ["mask", "mask-banner"]`: measure.StartTLSStrip, "does = [\"answer\"]\nports = [25, 143, 995]": measure.MailInterception} {
			if strings.HasPrefix(target, "pop3s") && want == measure.StartTLSStrip {
				continue // nothing is in the clear there
			}
			together(&wg, func() {
				r := post{device: does, server: goodSMTP, target: target, helper: true}.seen(t)
				f := findingOf(r.Verdict, want)
				if want == "" && (r.Verdict.Interference != measure.InterferenceNone || r.Verdict.Reachable != measure.ReachableYes || len(r.Verdict.Findings) > 0) ||
					want != "" && (f == nil || f.Interference != measure.InterferenceConfirmed) {
					t.Errorf("%s, %s: %+v\n%s", target, does, r.Verdict, transcript(r.Measurement))
				}
			})
		}
	}
	wg.Wait()
	// That somebody is called a helper opens no port 25.
	if v := (post{server: goodSMTP, target: "smtp://HELPER:25", helper: true, mute: true}).seen(t).Verdict; v.Interference != measure.InterferenceUnknown {
		t.Errorf("nobody was asked: %+v", v)
	}
}

// TestMailPort25: port 25 is spoken to at one's own helper alone.
func TestMailPort25(t *testing.T) {
	target, err := check.ParseTarget("smtp://mail.example:25")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		helpers []string
		allowed bool
	}{{nil, false}, {[]string{"https://help.example/"}, false}, {[]string{"https://help.example/", "https://Mail.example:8443/#sha256=00"}, true}} {
		if err := check.MailAllowed(target, c.helpers); (err == nil) != c.allowed {
			t.Errorf("helpers %v: %v", c.helpers, err)
		}
		if !c.allowed {
			if _, err := check.Run(t.Context(), check.Config{Helpers: c.helpers}, []measure.Target{target}, nil); err == nil {
				t.Errorf("helpers %v: it was measured", c.helpers)
			}
		}
	}
}
