package wire

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"govah/measure"
)

// Bounds on what is read of a mail server.
const (
	maxMailBytes = 16 << 10 // of a dialogue, in either half
	maxMailLine  = 2 << 10  // RFC 5321, 4.5.3.1: 512; RFC 9051 has longer ones
	maxMailLines = 96       // kept
	maxMailText  = 300      // bytes kept of a line
	maxMailCaps  = 64       // kept
	maxEarly     = 4 << 10  // bytes
)

// How long a mail server may take: for its greeting longer, since some make
// clients wait that do not behave.
const (
	greetPatience = 12 * time.Second
	mailPatience  = 6 * time.Second
	mailTotal     = 40 * time.Second
)

// mailHello is what this program calls itself in EHLO: an address literal that
// is every computer's own (RFC 5321, 4.1.3) and so says nothing about anyone.
const mailHello = "EHLO [127.0.0.1]"

// MailPorts are the ports of mail clients, by scheme. Port 25 is where servers
// give mail to each other: a stranger's connection is taken for spam there, and
// it goes to no one but one's own helper.
var MailPorts = map[string]int{"smtp": 587, "smtps": 465, "imap": 143, "imaps": 993, "pop3": 110, "pop3s": 995}

// MailScheme takes a scheme apart, if it is one of mail clients: smtps is smtp
// with TLS from the first byte on.
func MailScheme(scheme string) (protocol string, implicit, ok bool) {
	if MailPorts[scheme] == 0 {
		return "", false, false
	}
	return strings.TrimSuffix(scheme, "s"), strings.HasSuffix(scheme, "s"), true
}

// MailSpec says how to hold a mail dialogue.
type MailSpec struct {
	Protocol string // smtp, imap, pop3
	Implicit bool   // TLS from the first byte on
	// Name is the server's, to send and to verify the certificate for.
	Name string
	// Known is what the server is known to say, if it is a greeter of one's own
	// helper: then its key counts and no certificate.
	Known *measure.MailGreeter
	// Inject sends a NOOP in the clear right behind STARTTLS. For greeters of
	// one's own helper alone; without Known it is not done.
	Inject bool
	// Harmless sends a harmless command in the place of STARTTLS, and ends.
	Harmless bool
}

// Mail holds one dialogue with a mail server: its greeting, its capabilities,
// STARTTLS whether offered or not, the handshake, the capabilities inside, and
// goodbye. It never logs in and sends no message. The certificate does not end
// it. The connection is the caller's to close.
func Mail(ctx context.Context, l *Log, m Meta, conn Conn, spec MailSpec, trust *Trust) *measure.Observation {
	o := l.Begin(measure.StepMail, m)
	defer l.End(o)
	setRemote(l, o, addrPort(conn.RemoteAddr()))
	o.Host = spec.Name
	o.Mail = &measure.Mail{Protocol: spec.Protocol, Implicit: spec.Implicit, Known: spec.Known}
	d := &dialogue{l: l, o: o, m: o.Mail, spec: spec, trust: trust}
	err := d.hold(ctx, conn)
	o.TookUS = l.Since(time.Now()) - o.StartUS
	fail(ctx, o, err)
	stack(l, o, conn)
	return o
}

// MailReady speaks with a mail server up to where a client would begin
// encryption: it reads the greeting and asks for the capabilities. What is
// said is not kept.
func MailReady(ctx context.Context, l *Log, conn Conn, protocol string) error {
	t := Talk(ctx, l, conn, protocol)
	defer t.End()
	if err := t.Greeting(); err != nil {
		return err
	}
	return t.Capabilities()
}

// MailCommands are the command by which a client begins encryption, and a
// harmless one in its place.
func MailCommands(protocol string) (starts, harmless string) {
	if protocol == "pop3" {
		return "STLS", "CAPA"
	}
	return "STARTTLS", "NOOP"
}

// MailPayload is one of them as a line of a dialogue that MailReady began; both
// are of one length (RFC 5321, 4.1.1.9: NOOP may have an argument).
func MailPayload(protocol string, starts bool) []byte {
	command, harmless := MailCommands(protocol)
	if !starts {
		command = harmless
	}
	switch {
	case protocol == "imap" && starts:
		command = "b2 " + command
	case protocol == "imap":
		command = "b22222 " + command
	case protocol == "smtp" && !starts:
		command += " abc"
	}
	return []byte(command + "\r\n")
}

// dialogue is a mail dialogue under way.
type dialogue struct {
	l     *Log
	o     *measure.Observation
	m     *measure.Mail
	spec  MailSpec
	trust *Trust

	conn  net.Conn // to read and write
	meter *meter   // below it
	buf   []byte   // read and not yet taken
	read  int      // bytes, of this half
	tags  int      // of IMAP
}

func (d *dialogue) hold(ctx context.Context, conn Conn) error {
	if !d.spec.Implicit {
		clear := &meter{Conn: conn}
		d.conn, d.meter = clear, clear
		end := clear.begin(ctx, limits{total: mailTotal, silence: greetPatience, patience: greetPatience})
		ready, err := d.inTheClear()
		end()
		d.o.Sent, d.o.Received = clear.sent.Load(), clear.received.Load()
		if !ready || err != nil {
			return err
		}
	}
	sent, received := d.o.Sent, d.o.Received
	first := &untilTLS{Conn: conn, early: d.buf}
	d.buf, d.read = nil, 0
	sni := strings.TrimSuffix(d.spec.Name, ".")
	if _, err := netip.ParseAddr(sni); err == nil {
		sni = ""
	}
	hello, err := NewHello("go", 0)
	if err != nil {
		return err
	}
	d.o.SNI = sni
	// Mail programs offer no application protocol, and some servers refuse
	// those of the web.
	tc, err := handshake(ctx, d.l, d.o, first, HandshakeSpec{SNI: sni, Verify: d.spec.Name, Hello: hello, ALPN: []string{}}, d.trust)
	if len(first.early) > 0 {
		d.m.EarlyBytes, d.m.Early = int64(len(first.early)), clip(printable(first.early[:min(len(first.early), maxMailText)]), maxMailText)
	}
	if known := d.spec.Known; known != nil && tc != nil {
		d.m.Key = "other"
		if tc.key == known.Key {
			d.m.Key, err = "own", nil
		} else if err == nil {
			err = &certificateError{outcome: measure.VerifyUnknownCA, err: errPin}
		}
	}
	if tc == nil {
		d.o.Sent, d.o.Received = d.o.Sent+sent, d.o.Received+received
		return err
	}
	d.conn, d.meter = tc, tc.meter
	end := tc.meter.begin(ctx, limits{total: mailTotal, silence: greetPatience, patience: greetPatience})
	inside := d.insideTLS()
	end()
	d.o.Sent, d.o.Received = sent+tc.meter.sent.Load(), received+tc.meter.received.Load()
	if inside != nil {
		err = inside
	}
	return err
}

// inTheClear speaks until the server is ready for TLS, if it is.
func (d *dialogue) inTheClear() (ready bool, err error) {
	if err := d.greeting(); err != nil || d.m.Away {
		return false, err
	}
	if d.m.Before, err = d.capabilities(); err != nil {
		return false, err
	}
	if d.spec.Harmless {
		d.m.Instead = "silent"
		if err := d.send(strings.TrimSpace(string(MailPayload(d.spec.Protocol, false)))); err != nil {
			return false, err
		}
		if _, err := d.line(); err != nil {
			return false, err
		}
		d.m.Instead = "answered"
		d.goodbye()
		return false, nil
	}
	command, _ := MailCommands(d.spec.Protocol)
	if d.spec.Protocol == "imap" && strings.HasPrefix(strings.ToUpper(d.m.Greeting), "* PREAUTH") {
		d.goodbye()
		return false, nil // somebody is logged in: STARTTLS comes before that (RFC 9051, 6.2.1)
	}
	noop := ""
	if d.spec.Inject && d.spec.Known != nil {
		noop, d.m.Injected = "NOOP", "dropped"
		if d.spec.Protocol == "imap" {
			noop = "n1 NOOP"
		}
	}
	if d.m.StartTLS, err = d.ask(command, noop); err != nil || d.m.StartTLS != "ready" {
		d.m.Injected = ""
		if err == nil {
			d.goodbye()
		}
		return false, err
	}
	return true, nil
}

// insideTLS speaks inside the session.
func (d *dialogue) insideTLS() (err error) {
	if d.spec.Implicit {
		if err := d.greeting(); err != nil || d.m.Away {
			return err
		}
	}
	if d.m.After, err = d.capabilities(); err != nil {
		return err
	}
	if d.m.Injected != "" && d.executed() {
		d.m.Injected = "executed"
	}
	d.goodbye()
	return nil
}

// executed says whether the answer to the NOOP that went in the clear came
// inside TLS.
func (d *dialogue) executed() bool {
	switch d.spec.Protocol {
	case "imap":
		return slices.ContainsFunc(d.m.Lines, func(l measure.MailLine) bool { return l.TLS && !l.Sent && strings.HasPrefix(l.Text, "n1 ") })
	case "pop3":
		return slices.ContainsFunc(d.m.After, func(c string) bool { return strings.HasPrefix(c, "+OK") })
	}
	if len(d.m.After) > 0 {
		return false
	}
	// The first answer was one line, as EHLO's never is: another one follows.
	_, caps, err := d.smtpReply()
	if err == nil {
		d.m.After = caps
	}
	return err == nil
}

func (d *dialogue) greeting() error {
	var (
		first string
		code  byte
		err   error
	)
	if d.spec.Protocol == "smtp" {
		code, _, err = d.smtpReply()
	} else {
		_, err = d.line()
	}
	for _, l := range d.m.Lines {
		if !l.Sent {
			first = l.Text
			break
		}
	}
	d.m.Greeting = first
	switch upper := strings.ToUpper(first); d.spec.Protocol {
	case "smtp":
		d.m.Away = err == nil && code != '2'
	case "imap":
		d.m.Away = strings.HasPrefix(upper, "* BYE")
	default:
		d.m.Away = strings.HasPrefix(upper, "-ERR")
	}
	d.meter.awaiting(mailPatience, mailPatience)
	return err
}

// capabilities asks for them. A server that does not know the question has none.
func (d *dialogue) capabilities() ([]string, error) {
	switch d.spec.Protocol {
	case "smtp":
		if err := d.send(mailHello); err != nil {
			return nil, err
		}
		code, caps, err := d.smtpReply()
		if code != '2' {
			caps = nil
		}
		return caps, err
	case "imap":
		var caps []string
		_, err := d.imap("CAPABILITY", "", func(line string) {
			if rest, ok := cutFold(line, "* CAPABILITY "); ok {
				caps = keep(caps, strings.Fields(rest)...)
			}
		})
		return caps, err
	}
	if err := d.send("CAPA"); err != nil {
		return nil, err
	}
	status, err := d.line()
	if err != nil || !strings.HasPrefix(strings.ToUpper(status), "+OK") {
		return nil, err
	}
	var caps []string
	for range maxMailLines {
		line, err := d.line()
		if err != nil || line == "." {
			return caps, err
		}
		caps = keep(caps, line)
	}
	return caps, errTooLarge
}

// ask sends the command for TLS, and in the same segment what must not be
// executed.
func (d *dialogue) ask(command, behind string) (string, error) {
	switch d.spec.Protocol {
	case "imap":
		status, err := d.imap(command, behind, func(string) {})
		switch {
		case err != nil:
			return "", err
		case status == "OK":
			return "ready", nil
		}
		return "refused", nil
	case "pop3":
		if err := d.send(command, behind); err != nil {
			return "", err
		}
		status, err := d.line()
		switch {
		case err != nil:
			return "", err
		case strings.HasPrefix(strings.ToUpper(status), "+OK"):
			return "ready", nil
		}
		return "refused", nil
	}
	if err := d.send(command, behind); err != nil {
		return "", err
	}
	code, _, err := d.smtpReply()
	switch {
	case err != nil:
		return "", err
	case code == '2':
		return "ready", nil
	case code == '4':
		return "later", nil
	}
	return "refused", nil
}

// goodbye ends a dialogue without waiting for the answer: who has hung up
// first has said all.
func (d *dialogue) goodbye() {
	text := "QUIT"
	if d.spec.Protocol == "imap" {
		d.tags++
		text = fmt.Sprintf("a%d LOGOUT", d.tags)
	}
	d.send(text)
}

// smtpReply reads one reply of one or more lines (RFC 5321, 4.2): the first
// digit of its code, and the texts of all lines but the first.
func (d *dialogue) smtpReply() (code byte, rest []string, err error) {
	for i := range maxMailLines {
		line, err := d.line()
		if err != nil {
			return code, rest, err
		}
		if len(line) < 3 || strings.Trim(line[:3], "0123456789") != "" {
			return '5', rest, nil // no reply of SMTP: whatever it is, it is no yes
		}
		code = line[0]
		if i > 0 && len(line) > 4 {
			rest = keep(rest, line[4:])
		}
		if len(line) == 3 || line[3] != '-' {
			return code, rest, nil
		}
	}
	return code, rest, errTooLarge
}

// imap sends a command and reads to its answer; each untagged line is shown.
func (d *dialogue) imap(command, behind string, untagged func(string)) (status string, err error) {
	d.tags++
	tag := fmt.Sprintf("a%d", d.tags)
	if err := d.send(tag+" "+command, behind); err != nil {
		return "", err
	}
	for range maxMailLines {
		line, err := d.line()
		if err != nil {
			return "", err
		}
		if rest, ok := cutFold(line, tag+" "); ok {
			status, _, _ := strings.Cut(rest, " ")
			return strings.ToUpper(status), nil
		}
		if rest, ok := cutFold(line, "* BYE"); ok {
			return "BYE", fmt.Errorf("the server hung up:%s: %w", clip(rest, 80), io.EOF)
		}
		untagged(line)
	}
	return "", errTooLarge
}

func cutFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}

// keep adds capabilities to a list, in capitals and bounded.
func keep(list []string, more ...string) []string {
	for _, c := range more {
		if c = clip(strings.ToUpper(printable([]byte(strings.TrimSpace(c)))), 128); c != "" && len(list) < maxMailCaps {
			list = append(list, c)
		}
	}
	return list
}

// send writes one line, or two at once.
func (d *dialogue) send(lines ...string) error {
	var out []byte
	for _, s := range lines {
		if s != "" {
			d.note(true, s)
			out = append(out, s+"\r\n"...)
		}
	}
	_, err := d.conn.Write(out)
	return err
}

func (d *dialogue) note(sent bool, line string) {
	if len(d.m.Lines) == maxMailLines {
		d.m.Truncated = true
		return
	}
	_, inTLS := d.conn.(*TLSConn)
	d.m.Lines = append(d.m.Lines, measure.MailLine{AtUS: d.l.Since(time.Now()), Sent: sent, TLS: inTLS, Text: clip(printable([]byte(line)), maxMailText)})
}

// line reads the next line, without its end.
func (d *dialogue) line() (string, error) {
	for {
		if i := bytes.IndexByte(d.buf, '\n'); i >= 0 {
			line := strings.TrimSuffix(string(d.buf[:i]), "\r")
			d.buf = d.buf[i+1:]
			d.note(false, line)
			return line, nil
		}
		if len(d.buf) > maxMailLine || d.read > maxMailBytes {
			d.m.Truncated = true
			return "", fmt.Errorf("the mail server's answer: %w", errTooLarge)
		}
		buf := make([]byte, 2<<10)
		n, err := d.conn.Read(buf)
		d.buf, d.read = append(d.buf, buf[:n]...), d.read+n
		if n == 0 && err != nil {
			if len(d.buf) > 0 { // what there is of a line is evidence too
				d.note(false, string(d.buf[:min(len(d.buf), maxMailText)]))
				d.buf = nil
			}
			return "", err
		}
	}
}

// untilTLS is a connection on which TLS is awaited: what comes before the
// first byte of a record is taken out and kept. A byte in the clear is none of
// a record's: they begin with 20 to 24 (RFC 8446, 5.1).
type untilTLS struct {
	Conn
	early []byte
	begun bool
}

func (u *untilTLS) Read(b []byte) (int, error) {
	for {
		n, err := u.Conn.Read(b)
		if u.begun || n == 0 {
			return n, err
		}
		at := slices.IndexFunc(b[:n], func(c byte) bool { return c >= 20 && c <= 24 })
		if at < 0 {
			at = n
		}
		if u.early = append(u.early, b[:at]...); len(u.early) > maxEarly {
			return 0, fmt.Errorf("text in place of TLS: %w", errTooLarge)
		}
		if at == n {
			continue
		}
		u.begun = true
		return copy(b, b[at:n]), err
	}
}
