package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"govah/lab/box"
	"govah/packet"
	"govah/wire"
)

// MailService is a mail server of a site.
type MailService struct {
	Scheme       string   `toml:"scheme"` // smtp, smtps, imap, imaps, pop3, pop3s
	Port         int      `toml:"port"`   // 0: the scheme's own
	Greeting     string   `toml:"greeting"`
	Capabilities []string `toml:"capabilities"` // in the clear; none: it does not know the question
	Inside       []string `toml:"inside"`       // inside TLS; none: as in the clear, without the offer
	// StartTLS is what STARTTLS is answered with in place of TLS, or
	// "unlisted": it is done though no capability says so; or "silent": nothing
	// is. Without any it is not known.
	StartTLS string `toml:"starttls"`
	Cert     string `toml:"cert"` // as the site's
	Slow     string `toml:"slow"` // before the greeting

	slow time.Duration
}

// MailDevice is a device on the path that meddles with mail.
type MailDevice struct {
	At    int      `toml:"at"`
	Ports []int    `toml:"ports"` // none: 25, 110, 143, 587
	Names []string `toml:"names"` // sites that it meddles with; none: all
	Does  []string `toml:"does"`
	Reply string   `toml:"reply"` // to STARTTLS, for refuse
	// Terminates: it accepts connections by itself, so that one with a TTL
	// that does not reach the server succeeds. Else it is a bump in the wire.
	Terminates bool `toml:"terminates"`
	// Late: it lets a SYN die that would not reach the server, and takes all of
	// a connection once it has accepted it.
	Late bool `toml:"late"`
	// InPath: it changes segments as they pass and ends no connection.
	InPath bool `toml:"in-path"`
}

// MailActs are what a MailDevice can do.
var MailActs = []string{"remove", "mask", "mask-banner", "refuse", "remove-logindisabled", "preauth", "smuggle", "answer", "undress", "mask-offer", "swallow", "cut"}

func mailProtocol(port int) string {
	switch port {
	case 143, 993:
		return "imap"
	case 110, 995:
		return "pop3"
	}
	return "smtp"
}

func (d *MailDevice) check(where string, c *checker) {
	where += ": mail"
	if len(d.Does) == 0 {
		c.failf("%s: does is empty; it is of: %s", where, strings.Join(MailActs, ", "))
	}
	for _, what := range d.Does {
		c.oneOf(where, "does", what, MailActs...)
	}
	for _, what := range d.Does {
		if d.InPath != slices.Contains([]string{"mask-offer", "swallow", "cut"}, what) && !slices.Contains([]string{"mask", "mask-banner", "refuse"}, what) {
			c.failf("%s: does %q needs in-path = %v", where, what, !d.InPath)
		}
	}
	if d.InPath && (d.Terminates || d.Late) {
		c.failf("%s: what is in-path terminates nothing", where)
	}
	if d.Terminates && d.Late {
		c.failf("%s: terminates and late exclude each other", where)
	}
	if d.Ports == nil {
		d.Ports = []int{25, 110, 143, 587}
	}
	for _, p := range d.Ports {
		c.within(where, "ports", p, 1, 65535)
	}
	if d.Reply != "" && !d.does("refuse") {
		c.failf("%s: reply belongs to does = [\"refuse\"]", where)
	}
}

func (d *MailDevice) does(what string) bool { return slices.Contains(d.Does, what) }

func (m *MailService) check(where string, c *checker) {
	where += ": mail"
	if wire.MailPorts[m.Scheme] == 0 {
		c.failf("%s: scheme %q is not smtp, smtps, imap, imaps, pop3 or pop3s", where, m.Scheme)
	}
	if m.Port == 0 {
		m.Port = wire.MailPorts[m.Scheme]
	}
	c.within(where, "port", m.Port, 1, 65535)
	c.oneOf(where, "cert", m.Cert, "ok", "expired", "self-signed", "wrong-name", "missing-intermediate")
	c.duration(where, "slow", m.Slow, &m.slow)
}

// serveMail is one connection to a mail server of a site.
func (w *World) serveMail(c *serverConn, t *Site, m *MailService) {
	protocol, implicit, _ := wire.MailScheme(m.Scheme)
	s := &wire.MailServer{Protocol: protocol, Implicit: implicit,
		Name: t.Name, Greeting: m.Greeting, Before: m.Capabilities, After: m.Inside, Slow: m.slow}
	switch m.StartTLS {
	case "unlisted":
	case "silent":
		s.Mute = true
	default:
		s.StartTLS = m.StartTLS
	}
	offer := func(c string) bool { return c == "STARTTLS" || c == "STLS" }
	if s.After == nil {
		s.After = slices.DeleteFunc(slices.Clone(m.Capabilities), func(c string) bool { return offer(c) || c == "LOGINDISABLED" })
	}
	if s.Implicit || slices.ContainsFunc(m.Capabilities, offer) || m.StartTLS != "" {
		kind := m.Cert
		if kind == "" {
			kind = t.Cert
		}
		s.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return w.ca.issue(kind, t.Name, 0) }}
		if t.TLS12 {
			s.TLS.MaxVersion = tls.VersionTLS12
		}
	}
	if w.refuses(t, c.remote) && !s.Implicit {
		s.Away = map[string]string{"smtp": "554 5.7.1 You are not welcome here", "imap": "* BYE not from there", "pop3": "-ERR not from there"}[s.Protocol]
	}
	s.Serve(w.ctx, c, time.Minute)
}

// refusal is what is answered to the command in a protocol.
func (d *MailDevice) refusal(protocol, tag string) string {
	reply := d.Reply
	if reply == "" {
		reply = map[string]string{"smtp": "502 5.5.1 Command not implemented", "imap": "BAD Unknown command", "pop3": "-ERR Unknown command"}[protocol]
	}
	if tag != "" {
		reply = tag + " " + reply
	}
	return reply + "\r\n"
}

// inPath is the device as a box.
func (d *MailDevice) inPath(w *World) *box.Mail {
	b := &box.Mail{Ports: d.Ports, Does: d.Does, Reply: func(line string) string {
		// IMAP alone has tags.
		if tag, rest, ok := strings.Cut(line, " "); ok && strings.HasPrefix(strings.ToUpper(rest), "STARTTLS") {
			return d.refusal("imap", tag)
		}
		if strings.HasPrefix(strings.ToUpper(line), "STLS") {
			return d.refusal("pop3", "")
		}
		return d.refusal("smtp", "")
	}}
	if len(d.Names) > 0 {
		b.Names = func(a netip.Addr) bool {
			return slices.ContainsFunc(w.owners[a], func(s *Site) bool { return wants(d.Names, s.Name) })
		}
	}
	return b
}

// wantsMail says whether the device meddles with a packet.
func (t *terminator) wantsMail(p *packet.Packet) bool {
	if t.mail == nil || t.mail.InPath || !slices.Contains(t.mail.Ports, int(p.DstPort)) {
		return false
	}
	if len(t.mail.Names) > 0 && !slices.ContainsFunc(t.w.owners[p.Dst], func(s *Site) bool { return wants(t.mail.Names, s.Name) }) {
		return false
	}
	// A bump in the wire lets what would not reach the server die on its way.
	return t.mail.Terminates || t.mail.Late && p.Flags&packet.SYN == 0 || t.outlives(p)
}

// meddle stands between a client and a mail server.
func (t *terminator) meddle(c *serverConn, server netip.AddrPort) {
	defer c.Close()
	up, err := t.dial(server)
	if err != nil {
		c.reset()
		return
	}
	defer up.Close()
	for _, conn := range []net.Conn{c, up} {
		conn.SetDeadline(time.Now().Add(time.Minute))
	}
	m := &meddling{t: t, d: t.mail, protocol: mailProtocol(int(server.Port())), server: server}
	if server.Port() == 465 || server.Port() == 993 || server.Port() == 995 {
		if t.mail.does("answer") {
			m.resign(c, up, nil)
			return
		}
		if t.mail.does("undress") {
			m.undress(c, up)
			return
		}
		splice(c, up)
		return
	}
	m.relay(c, up)
}

// meddling is one connection through a mail device.
type meddling struct {
	t        *terminator
	d        *MailDevice
	protocol string
	server   netip.AddrPort
}

// relay passes a dialogue on, line by line and changed, until TLS begins. It
// knows what was asked, for the client of a laboratory asks one thing at a time.
func (m *meddling) relay(c, up net.Conn) {
	answer := &lines{r: up}
	if !m.pass(c, answer, "") {
		return
	}
	asked := &lines{r: c}
	for {
		command, ok := asked.next()
		if !ok {
			return
		}
		tag := ""
		verb := strings.TrimRight(command, "\r\n")
		if m.protocol == "imap" {
			tag, verb, _ = strings.Cut(verb, " ")
		}
		verb, _, _ = strings.Cut(strings.ToUpper(verb), " ")
		starts := verb == "STARTTLS" || verb == "STLS"
		if starts && m.d.does("refuse") {
			if _, err := io.WriteString(c, m.d.refusal(m.protocol, tag)); err != nil {
				return
			}
			continue
		}
		if starts && m.d.does("mask") {
			command = strings.Replace(command, strings.TrimSpace(command[len(tag):]), strings.Repeat("X", len(verb)), 1)
		}
		if starts && !m.d.does("answer") {
			// A bump in the wire passes on what came in one segment as one.
			command, asked.buf = command+string(asked.buf), nil
		}
		if _, err := io.WriteString(up, command); err != nil {
			return
		}
		var reply bytes.Buffer
		if !m.pass(&reply, answer, strings.TrimSpace(tag+" "+verb)) {
			c.Write(reply.Bytes())
			return
		}
		ready := starts && (strings.HasPrefix(reply.String(), "220 ") || strings.HasPrefix(reply.String(), tag+" OK") && tag != "" || strings.HasPrefix(reply.String(), "+OK"))
		if ready && m.d.does("smuggle") {
			reply.WriteString(map[string]string{"smtp": "250 2.0.0 OK\r\n", "imap": "* 1 EXISTS\r\n", "pop3": "+OK 1 message\r\n"}[m.protocol])
		}
		if _, err := c.Write(reply.Bytes()); err != nil {
			return
		}
		if ready {
			if m.d.does("answer") {
				m.resign(c, up, asked.buf)
				return
			}
			splice(c, up)
			return
		}
	}
}

// resign ends TLS on both sides, with a certificate of its own for the client.
// What the client had sent in the clear behind STARTTLS it takes for a part of
// the session, as careless software does (CVE-2011-0411).
func (m *meddling) resign(c, up net.Conn, pending []byte) {
	ctx, cancel := context.WithTimeout(m.t.w.ctx, 20*time.Second)
	defer cancel()
	name := m.server.Addr().String()
	if sites := m.t.w.owners[m.server.Addr()]; len(sites) > 0 {
		name = sites[0].Name
	}
	upTLS := tls.Client(up, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if upTLS.HandshakeContext(ctx) != nil {
		return
	}
	cert, err := m.t.w.evil.resign(name, upTLS.ConnectionState().PeerCertificates[0], &Intercept{})
	if err != nil {
		return
	}
	down := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}})
	if down.HandshakeContext(ctx) != nil {
		return
	}
	upTLS.Write(pending)
	splice(down, upTLS)
}

// undress ends TLS towards the server alone: the client hears it in the clear.
func (m *meddling) undress(c, up net.Conn) {
	ctx, cancel := context.WithTimeout(m.t.w.ctx, 20*time.Second)
	defer cancel()
	upTLS := tls.Client(up, &tls.Config{InsecureSkipVerify: true})
	if upTLS.HandshakeContext(ctx) == nil {
		splice(c, upTLS)
	}
}

// pass copies one whole answer of the server, changed. asked is what it
// answers: "" the greeting, for IMAP the tag before the verb.
func (m *meddling) pass(w io.Writer, from *lines, asked string) bool {
	tag, verb := "", asked
	if m.protocol == "imap" {
		tag, verb, _ = strings.Cut(asked, " ")
	}
	var out []string
	for {
		line, ok := from.next()
		if !ok {
			return false
		}
		out = append(out, line)
		upper := strings.ToUpper(line)
		switch m.protocol {
		case "smtp":
			if len(line) > 3 && line[3] == '-' {
				continue
			}
		case "imap":
			if asked != "" && !strings.HasPrefix(line, tag+" ") && !strings.HasPrefix(upper, "* BAD") {
				continue
			}
		case "pop3":
			if verb == "CAPA" && !strings.HasPrefix(out[0], "-") && line != ".\r\n" {
				continue
			}
		}
		break
	}
	for _, line := range m.change(out, asked == "") {
		if _, err := io.WriteString(w, line); err != nil {
			return false
		}
	}
	return true
}

// change does to an answer what the device is for.
func (m *meddling) change(answer []string, greeting bool) (out []string) {
	for _, line := range answer {
		text := strings.TrimRight(line, "\r\n")
		if greeting {
			if m.d.does("mask-banner") {
				head := map[string]int{"smtp": 4, "imap": 5, "pop3": 4}[m.protocol]
				text = text[:min(head, len(text))] + stars(text[min(head, len(text)):])
			}
			if m.d.does("preauth") && m.protocol == "imap" {
				text = strings.Replace(text, "* OK", "* PREAUTH", 1)
			}
		}
		for _, offer := range []string{"STARTTLS", "STLS"} {
			words := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '-' })
			if !slices.Contains(words, offer) {
				continue
			}
			switch {
			case m.d.does("mask"): // the last letter is kept (Cisco's inspect esmtp)
				text = strings.Replace(text, offer, strings.Repeat("X", len(offer)-1)+"A", 1)
			case m.d.does("remove") && m.protocol == "imap":
				text = strings.Replace(text, " "+offer, "", 1)
			case m.d.does("remove"):
				text = ""
			}
		}
		if m.d.does("remove-logindisabled") {
			text = strings.Replace(text, " LOGINDISABLED", "", 1)
		}
		if text != "" {
			out = append(out, text+"\r\n")
		}
	}
	if last := len(out) - 1; m.protocol == "smtp" && last >= 0 && len(out[last]) > 3 && out[last][3] == '-' {
		out[last] = out[last][:3] + " " + out[last][4:]
	}
	return out
}

// stars masks a banner as Cisco's mask-banner does.
func stars(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("20 ", r) {
			return r
		}
		return '*'
	}, s)
}

// lines reads whole lines, ends included, and keeps what was read beyond.
type lines struct {
	r   io.Reader
	buf []byte
}

func (l *lines) next() (string, bool) {
	for {
		if i := bytes.IndexByte(l.buf, '\n'); i >= 0 {
			line := string(l.buf[:i+1])
			l.buf = l.buf[i+1:]
			return line, true
		}
		if len(l.buf) > 8<<10 {
			return "", false
		}
		part := make([]byte, 2<<10)
		n, err := l.r.Read(part)
		if n == 0 && err != nil {
			return "", false
		}
		l.buf = append(l.buf, part[:n]...)
	}
}
