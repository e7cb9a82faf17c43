package helper_test

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"govah/helper"
	"govah/measure"
	"govah/wire"
	"govah/wire/host"
)

// greeting starts a helper with a greeter of each kind.
func greeting(t *testing.T, limits helper.Limits) (url string, at map[string]string) {
	t.Helper()
	s, err := helper.New(helper.Config{Network: host.New(), Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	l := helper.Listeners{TCP: []net.Listener{listen(t)}}
	at = map[string]string{}
	for _, scheme := range []string{"smtp", "smtps", "imap", "imaps", "pop3", "pop3s"} {
		ln := listen(t)
		at[scheme] = ln.Addr().String()
		l.Mail = append(l.Mail, helper.MailListener{Listener: ln, Protocol: strings.TrimSuffix(scheme, "s"), Implicit: strings.HasSuffix(scheme, "s")})
	}
	serve(t, s, l)
	return s.URL(l.TCP[0].Addr().String()), at
}

// TestGreeters: what a helper says over its own connection that its greeters
// say is what they say.
func TestGreeters(t *testing.T) {
	url, at := greeting(t, helper.Limits{})
	if reply, o := ask(t, url, measure.HelperRequest{}); reply == nil || reply.Mail != nil {
		t.Errorf("unasked, it tells of %+v (%s)", reply, o.Detail)
	}
	reply, o := ask(t, url, measure.HelperRequest{Wants: []string{"mail"}})
	if reply == nil {
		t.Fatal(o.Detail)
	}
	if len(reply.Mail) != len(at) {
		t.Fatalf("%d greeters: %+v", len(reply.Mail), reply.Mail)
	}
	for _, g := range reply.Mail {
		scheme := g.Protocol
		if g.Implicit {
			scheme += "s"
		}
		ap := netip.MustParseAddrPort(at[scheme])
		if int(ap.Port()) != g.Port || !strings.Contains(url, "#sha256="+g.Key) {
			t.Errorf("%s: %+v, not at %s", scheme, g, ap)
		}
		log := wire.NewLog(time.Now(), nil)
		conn, c := wire.Connect(t.Context(), host.New(), log, wire.Meta{}, wire.ConnectSpec{Remote: ap})
		if conn == nil {
			t.Fatal(c.Detail)
		}
		o := wire.Mail(t.Context(), log, wire.Meta{}, conn, wire.MailSpec{Protocol: g.Protocol, Implicit: g.Implicit, Name: "helper.example", Known: &g, Inject: true}, &wire.Trust{})
		conn.Close()
		m := o.Mail
		if o.Failure != measure.NoFailure || m.Key != "own" || m.Greeting != g.Greeting || !slices.Equal(m.Before, g.Before) || !slices.Equal(m.After, g.After) ||
			!g.Implicit && (m.StartTLS != "ready" || m.Injected != "dropped" || m.EarlyBytes != 0) {
			t.Errorf("%s says %+v, failure %q %s", scheme, m, o.Failure, o.Detail)
		}
	}
}

// TestGreetersTakeNothing: no login is taken, no mail, and nobody may ask
// without end or stay at more connections than others may.
func TestGreetersTakeNothing(t *testing.T) {
	_, at := greeting(t, helper.Limits{ConnectionsEach: 2})
	for scheme, asked := range map[string][]string{
		"smtp": {"AUTH PLAIN AG1lAHNlY3JldA==", "MAIL FROM:<me@example.org>", "RCPT TO:<you@example.org>", "DATA", "VRFY root", "HELO x"},
		"imap": {"a LOGIN me secret", "b AUTHENTICATE PLAIN", "c SELECT INBOX", "nonsense"},
		"pop3": {"USER me", "PASS secret", "APOP me x", "STAT", "RETR 1"},
	} {
		c, err := net.Dial("tcp", at[scheme])
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(c)
		in.ReadString('\n')
		for _, q := range asked {
			fmt.Fprintf(c, "%s\r\n", q)
			answer, err := in.ReadString('\n')
			_, rest, _ := strings.Cut(answer, " ")
			if err != nil || !strings.HasPrefix(answer, "5") && !strings.HasPrefix(answer, "-ERR") && !strings.HasPrefix(rest, "BAD") && !strings.HasPrefix(answer, "* BAD") {
				t.Errorf("%s: %q is answered %q, %v", scheme, q, answer, err)
			}
		}
		answers := 0
		for range 100 {
			fmt.Fprintf(c, "x NOOP\r\n")
			if _, err := in.ReadString('\n'); err != nil {
				break
			}
			answers++
		}
		if answers > 50 {
			t.Errorf("%s: %d commands were answered", scheme, answers)
		}
		c.Close()
	}
	var open []net.Conn
	refused := 0
	for range 4 {
		c, err := net.Dial("tcp", at["smtp"])
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
			refused++
		}
	}
	for _, c := range open {
		c.Close()
	}
	if refused < 2 {
		t.Errorf("of 4 connections of one client %d were refused", refused)
	}
}

// TestLookAtMail: a helper speaks to the mail server that a client asks about,
// as far as its rules let it: not at port 25.
func TestLookAtMail(t *testing.T) {
	_, at := greeting(t, helper.Limits{})
	ap := netip.MustParseAddrPort(at["imap"])
	url, _ := start(t, helper.Config{AllowReserved: true, Ports: []uint16{ap.Port()},
		Network: &network{Network: host.New(), names: map[string][]string{"mail.example.org": {"127.0.0.2"}},
			moved: map[netip.Addr]netip.AddrPort{netip.MustParseAddr("127.0.0.2"): ap}}}, false)
	reply, o := ask(t, url, measure.HelperRequest{URL: fmt.Sprintf("imap://mail.example.org:%d", ap.Port())})
	if reply == nil {
		t.Fatal(o.Detail)
	}
	spoken := 0
	for _, o := range reply.Observations {
		if o.Step == measure.StepMail && o.Host == "mail.example.org" && o.Mail.StartTLS == "ready" && slices.Contains(o.Mail.Before, "LOGINDISABLED") && o.TLS != nil && len(o.TLS.Chain) == 1 {
			spoken++
		}
	}
	if spoken != 1 {
		t.Errorf("%+v", reply)
	}
	public, _ := start(t, helper.Config{}, false)
	if reply, _ := ask(t, public, measure.HelperRequest{URL: "smtp://mail.example.org:25"}); reply == nil || len(reply.Observations) > 0 || reply.Failure != measure.Unsupported {
		t.Errorf("port 25: %+v", reply)
	}
}

func TestParseMail(t *testing.T) {
	for text, want := range map[string]string{
		"smtp://0.0.0.0": "smtp false 0.0.0.0:587", "imaps://[2001:db8::1]": "imap true [2001:db8::1]:993", "pop3://127.0.0.1:1110/": "pop3 false 127.0.0.1:1110",
		"smtp://": "", "http://0.0.0.0": "", "0.0.0.0:25": "", "smtp://a:b@c": "", "imap://a/INBOX": "", "": "",
	} {
		protocol, implicit, at, err := helper.ParseMail(text)
		if got := fmt.Sprintf("%s %v %s", protocol, implicit, at); (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}
