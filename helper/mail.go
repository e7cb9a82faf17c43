package helper

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"govah/measure"
	"govah/wire"
)

// greeterTime is how long one client may speak to a greeter.
const greeterTime = 30 * time.Second

// MailListener is where a greeter listens. Mail servers speak first, so that a
// port cannot be shared with what is sorted by first bytes.
type MailListener struct {
	net.Listener
	Protocol string // smtp, imap, pop3
	Implicit bool   // TLS from the first byte on
}

// ParseMail reads where a greeter is to listen: "smtp://192.0.2.1:587", or one
// of smtps, imap, imaps, pop3, pop3s; without a port that of the protocol.
func ParseMail(text string) (protocol string, implicit bool, address string, err error) {
	u, err := url.Parse(text)
	if err != nil || wire.MailPorts[u.Scheme] == 0 || u.Hostname() == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return "", false, "", fmt.Errorf("%q is not like smtp://ADDRESS:PORT; there are smtp, smtps, imap, imaps, pop3 and pop3s", text)
	}
	port := u.Port()
	if port == "" {
		port = strconv.Itoa(wire.MailPorts[u.Scheme])
	}
	protocol, implicit, _ = wire.MailScheme(u.Scheme)
	return protocol, implicit, net.JoinHostPort(u.Hostname(), port), nil
}

// mailServer is a greeter. What it says is the same each time, so that what a
// client reads instead was changed on the way; it says what devices on the way
// change: a banner, the offer of TLS, and no login in the clear. The words are
// those of Postfix and Dovecot, which most servers use: a helper is not to be
// found by its own.
func (s *Server) mailServer(protocol string, implicit bool) *wire.MailServer {
	m := &wire.MailServer{Protocol: protocol, Implicit: implicit, Name: s.name,
		TLS: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.tls.GetCertificate}}
	switch protocol {
	case "smtp":
		m.Greeting = "ESMTP Postfix"
		m.Before = []string{"PIPELINING", "SIZE 10240000", "ETRN", "STARTTLS", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN"}
		m.After = []string{"PIPELINING", "SIZE 10240000", "ETRN", "AUTH PLAIN LOGIN", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN"}
	case "imap":
		always := []string{"IMAP4rev1", "SASL-IR", "LOGIN-REFERRALS", "ID", "ENABLE", "IDLE", "LITERAL+"}
		m.Before, m.After = append(slices.Clone(always), "STARTTLS", "LOGINDISABLED"), append(always, "AUTH=PLAIN")
		list := m.Before
		if implicit {
			list = m.After
		}
		m.Greeting = "[CAPABILITY " + strings.Join(list, " ") + "] Dovecot ready."
	default:
		m.Greeting = "Dovecot ready."
		m.Before = []string{"CAPA", "TOP", "UIDL", "RESP-CODES", "PIPELINING", "AUTH-RESP-CODE", "STLS", "SASL"}
		m.After = []string{"CAPA", "TOP", "UIDL", "RESP-CODES", "PIPELINING", "AUTH-RESP-CODE", "USER", "SASL PLAIN"}
	}
	return m
}

// greeters are those that a client can reach at the address where it reached
// the helper.
func (s *Server) greeters(local netip.Addr) (out []measure.MailGreeter) {
	for _, l := range s.mail {
		at := addrOf(l.Addr())
		if at != local && !at.IsUnspecified() {
			continue
		}
		m := s.mailServer(l.Protocol, l.Implicit)
		g := measure.MailGreeter{Protocol: l.Protocol, Implicit: l.Implicit, Port: portOf(l.Addr()), Greeting: m.GreetingLine(), After: capitals(m.After), Key: s.pin}
		if !l.Implicit {
			g.Before = capitals(m.Before)
		}
		if !slices.ContainsFunc(out, func(o measure.MailGreeter) bool { return o.Port == g.Port }) {
			out = append(out, g)
		}
	}
	return out
}

// capitals are capabilities as a client notes them.
func capitals(list []string) (out []string) {
	for _, c := range list {
		out = append(out, strings.ToUpper(c))
	}
	return out
}

// greet speaks to who connects to a greeter.
func (s *Server) greet(ctx context.Context, l MailListener, c net.Conn) {
	remote := c.RemoteAddr()
	if remote == nil {
		c.Close()
		return
	}
	done := s.limiter.connection(addrOf(remote))
	if done == nil {
		c.Close()
		return
	}
	defer done()
	if !l.Implicit {
		if d := s.dying(ctx, portOf(l.Addr()), c); d != nil {
			defer d.end()
			c = d
		}
	}
	s.mailServer(l.Protocol, l.Implicit).Serve(ctx, c, greeterTime)
}

// converse holds a dialogue with the mail server that a client asks about.
func (k *looking) converse(ctx context.Context, p *place, c candidate) {
	conn, o := wire.Connect(ctx, k.s.cfg.Network, k.log, after(c.after), wire.ConnectSpec{Remote: netip.AddrPortFrom(c.addr, p.port)})
	if conn == nil {
		return
	}
	defer conn.Close()
	protocol, implicit, _ := wire.MailScheme(p.url.Scheme)
	wire.Mail(ctx, k.log, after(o.ID), conn, wire.MailSpec{Protocol: protocol, Implicit: implicit, Name: p.host}, k.trust)
}
