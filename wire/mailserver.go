package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"time"
)

// MailServer is the other side of a mail dialogue: it greets, tells its
// capabilities and starts TLS. It takes no login and no message, and reads no
// name and no password: every other command is refused unread. It serves a
// helper's greeters and the mail servers of an emulated internet.
type MailServer struct {
	Protocol string // smtp, imap, pop3
	Implicit bool   // TLS from the first byte on
	// Name is what it calls itself, Greeting what it says behind that.
	Name, Greeting string
	// Before and After are the capabilities in the clear and inside TLS. nil
	// Before: it does not know the question.
	Before, After []string
	// Away, if set, is what it says instead of greeting, before it hangs up.
	Away string
	// StartTLS, if set, is what it says to STARTTLS in place of starting TLS;
	// Mute: nothing, to that and to what comes after it.
	StartTLS string
	Mute     bool
	TLS      *tls.Config // nil: none, and it does not know STARTTLS
	Slow     time.Duration
}

// maxCommands bounds what one client may ask, maxCommand a line of it, in bytes.
const (
	maxCommands = 40
	maxCommand  = 512
)

// Serve speaks to one client until it goes, asks too much, or time is up. It
// closes the connection.
func (s *MailServer) Serve(ctx context.Context, conn net.Conn, limit time.Duration) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit))
	under := conn // conn becomes the TLS connection above it
	stop := context.AfterFunc(ctx, func() { under.Close() })
	defer stop()
	secure := s.Implicit
	if secure {
		tc := tls.Server(conn, s.TLS)
		if tc.HandshakeContext(ctx) != nil {
			return
		}
		conn = tc
	}
	if Sleep(ctx, s.Slow) != nil {
		return
	}
	if s.Away != "" {
		io.WriteString(conn, s.Away+"\r\n")
		return
	}
	if _, err := io.WriteString(conn, s.hello()); err != nil {
		return
	}
	var buf []byte
	for range maxCommands {
		line, rest, ok := command(conn, buf)
		if !ok {
			return
		}
		buf = rest
		answer, last, start := s.answer(line, secure)
		if start && s.Mute {
			io.Copy(io.Discard, conn)
			return
		}
		if _, err := io.WriteString(conn, answer); err != nil || last {
			return
		}
		if start {
			// What came in the clear behind the command is not part of the
			// session (RFC 3207, 4.2).
			buf = nil
			tc := tls.Server(conn, s.TLS)
			if tc.HandshakeContext(ctx) != nil {
				return
			}
			conn, secure = tc, true
		}
	}
}

// command reads one line.
func command(conn io.Reader, buf []byte) (line string, rest []byte, ok bool) {
	for {
		if i := bytes.IndexByte(buf, '\n'); i >= 0 {
			return strings.TrimRight(string(buf[:i]), "\r"), buf[i+1:], true
		}
		if len(buf) > maxCommand {
			return "", nil, false
		}
		part := make([]byte, maxCommand)
		n, err := conn.Read(part)
		if n == 0 && err != nil {
			return "", nil, false
		}
		buf = append(buf, part[:n]...)
	}
}

func (s *MailServer) hello() string {
	switch s.Protocol {
	case "smtp":
		return "220 " + s.said() + "\r\n"
	case "imap":
		return "* OK " + s.said() + "\r\n"
	}
	return "+OK " + s.said() + "\r\n"
}

// said is the greeting's text. In SMTP it begins with the server's name.
func (s *MailServer) said() string {
	if s.Protocol == "smtp" {
		return strings.TrimSpace(s.Name + " " + s.Greeting)
	}
	return s.Greeting
}

// GreetingLine is the first line that a client reads.
func (s *MailServer) GreetingLine() string { return strings.TrimSuffix(s.hello(), "\r\n") }

// answer says what to answer, whether that was the last, and whether TLS starts.
func (s *MailServer) answer(line string, secure bool) (text string, last, start bool) {
	tag := ""
	if s.Protocol == "imap" {
		tag, line, _ = strings.Cut(line, " ")
		if tag == "" || strings.Trim(tag, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.") != "" {
			return "* BAD no tag\r\n", false, false
		}
	}
	verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
	list := s.Before
	if secure {
		list = s.After
	}
	switch {
	case (verb == "STARTTLS" && s.Protocol != "pop3" || verb == "STLS" && s.Protocol == "pop3") && s.TLS != nil && !secure:
		if s.StartTLS != "" {
			return s.line(tag, s.StartTLS), false, false
		}
		return s.line(tag, map[string]string{"smtp": "220 2.0.0 Ready to start TLS", "imap": "OK Begin TLS negotiation now", "pop3": "+OK Begin TLS negotiation"}[s.Protocol]), false, true
	case verb == "QUIT" && s.Protocol != "imap":
		return s.line(tag, map[string]string{"smtp": "221 2.0.0 Bye", "pop3": "+OK Bye"}[s.Protocol]), true, false
	case verb == "LOGOUT" && s.Protocol == "imap":
		return "* BYE Logging out\r\n" + tag + " OK done\r\n", true, false
	case verb == "NOOP":
		return s.line(tag, map[string]string{"smtp": "250 2.0.0 OK", "imap": "OK done", "pop3": "+OK"}[s.Protocol]), false, false
	case list == nil:
	case verb == "EHLO" && s.Protocol == "smtp":
		lines := append([]string{s.Name}, list...)
		for i := range lines {
			lines[i] = "250-" + lines[i] + "\r\n"
		}
		lines[len(lines)-1] = "250 " + lines[len(lines)-1][4:]
		return strings.Join(lines, ""), false, false
	case verb == "CAPABILITY" && s.Protocol == "imap":
		return "* CAPABILITY " + strings.Join(list, " ") + "\r\n" + tag + " OK done\r\n", false, false
	case verb == "CAPA" && s.Protocol == "pop3":
		return "+OK\r\n" + strings.Join(append(append([]string{}, list...), ".\r\n"), "\r\n"), false, false
	}
	return s.line(tag, map[string]string{"smtp": "502 5.5.1 Command not implemented", "imap": "BAD Unknown command", "pop3": "-ERR Unknown command"}[s.Protocol]), false, false
}

func (s *MailServer) line(tag, text string) string {
	if tag != "" {
		text = tag + " " + text
	}
	return text + "\r\n"
}
