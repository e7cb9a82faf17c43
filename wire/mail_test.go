package wire

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
	"unicode"

	"govah/measure"
)

// bare is a connection without a path to observe.
type bare struct{ net.Conn }

func (bare) SetTTL(int) error        { return errors.ErrUnsupported }
func (bare) SetMinTTL(int) error     { return errors.ErrUnsupported }
func (bare) PathErrors() []PathError { return nil }
func (bare) Info() (Info, error)     { return Info{}, errors.ErrUnsupported }
func (b bare) Abort() error          { return b.Close() }

// script is a server that says the same whatever is asked, and then hangs up.
type script struct {
	bare
	r    *bytes.Reader
	sent bytes.Buffer
}

func (s *script) Read(b []byte) (int, error)       { return s.r.Read(b) }
func (s *script) Write(b []byte) (int, error)      { return s.sent.Write(b) }
func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// FuzzMail: whatever a server says, what is kept is bounded and can be shown,
// and it draws nothing out of this side but questions.
func FuzzMail(f *testing.F) {
	f.Add([]byte("220 mail.example ESMTP\r\n250-mail.example\r\n250-SIZE 100\r\n250 STARTTLS\r\n220 go\r\n250 early\r\n\x16\x03\x03\x00\x02ab"), uint8(0))
	f.Add([]byte("220-a\r\n220 ****\r\n250-x\r\n250-XXXXXXXA\r\n250 SIZE\r\n502 5.5.1 no: XXXXXXXX\r\n"), uint8(0))
	f.Add([]byte("* OK ready\r\n* CAPABILITY IMAP4rev1 STARTTLS\r\na1 OK\r\na2 OK begin\r\n* BYE\r\n"), uint8(1))
	f.Add([]byte("* PREAUTH hello\r\na1 BAD\r\n"), uint8(1))
	f.Add([]byte("+OK ready\r\n+OK\r\nTOP\r\nSTLS\r\n.\r\n+OK go\r\n\x15\x03\x03\x00\x02\x02\x28"), uint8(2))
	f.Add(bytes.Repeat([]byte("250-x\r\n"), 3000), uint8(0))
	f.Add([]byte("220 mail.example ESMTP\r\n\x16\x03\x03\x00\x02ab"), uint8(128))
	f.Fuzz(func(t *testing.T, said []byte, which uint8) {
		conn := &script{r: bytes.NewReader(said)}
		protocol := []string{"smtp", "imap", "pop3"}[which%3]
		o := Mail(context.Background(), NewLog(time.Now(), nil), Meta{}, conn, MailSpec{Protocol: protocol, Implicit: which >= 128, Name: "mail.example", Inject: true}, nil)
		m := o.Mail
		if len(m.Lines) > maxMailLines || len(m.Before) > maxMailCaps || m.EarlyBytes > maxEarly+8<<10 || o.Failure == measure.NoFailure && m.StartTLS == "ready" {
			t.Errorf("%d lines, %d capabilities, %d early bytes, failure %q", len(m.Lines), len(m.Before), m.EarlyBytes, o.Failure)
		}
		texts := append(append([]string{m.Greeting, m.Early}, m.Before...), m.After...)
		for _, l := range m.Lines {
			texts = append(texts, l.Text)
			if verb := strings.TrimLeft(l.Text, "a0123456789 "); l.Sent && !l.TLS && verb != "STARTTLS" && verb != "STLS" && verb != "CAPABILITY" && verb != "CAPA" && verb != "QUIT" && verb != "LOGOUT" && l.Text != mailHello {
				t.Errorf("it sent %q", l.Text)
			}
		}
		for _, s := range texts {
			if len(s) > maxMailText || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q is kept", s)
			}
		}
	})
}

// FuzzMailServer: whatever a client says to a greeter, it is answered in
// bounds or left.
func FuzzMailServer(f *testing.F) {
	f.Add([]byte("EHLO x\r\nMAIL FROM:<a@b>\r\nAUTH PLAIN AGEAYg==\r\nNOOP\r\nQUIT\r\n"), uint8(0))
	f.Add([]byte("a CAPABILITY\r\nb LOGIN me secret\r\n\r\nc LOGOUT\r\n"), uint8(1))
	f.Add([]byte("CAPA\r\nUSER me\r\nPASS secret\r\nQUIT\r\n"), uint8(2))
	f.Add(bytes.Repeat([]byte("x"), 5000), uint8(0))
	f.Fuzz(func(t *testing.T, said []byte, which uint8) {
		s := &MailServer{Protocol: []string{"smtp", "imap", "pop3"}[which%3], Name: "mail.example", Greeting: "ready", Before: []string{"A", "B"}}
		conn := &script{r: bytes.NewReader(said)}
		s.Serve(context.Background(), conn, time.Minute)
		if n := conn.sent.Len(); n > maxCommands*(maxCommand+100) {
			t.Errorf("%d bytes said", n)
		}
		for line := range strings.Lines(conn.sent.String()) {
			if !strings.HasSuffix(line, "\r\n") {
				t.Errorf("%q has no end", line)
			}
		}
	})
}

// keyPair is a certificate for mail.example, and its key's hash.
func keyPair(t *testing.T) (*tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mail.example"}, NotAfter: time.Now().Add(time.Hour)},
		&x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, hex.EncodeToString(sum[:])
}

// talk holds a dialogue over loopback.
func talk(t *testing.T, spec MailSpec, serve func(net.Conn)) *measure.Observation {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			serve(c)
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return Mail(t.Context(), NewLog(time.Now(), nil), Meta{}, bare{c}, spec, &Trust{Public: x509.NewCertPool()})
}

// TestMailGreeter: with the three protocols, in both ways, a greeter is spoken
// with to its end; its key is told from another; what was sent behind STARTTLS
// is dropped.
func TestMailGreeter(t *testing.T) {
	cert, key := keyPair(t)
	offer := map[string]string{"smtp": "STARTTLS", "imap": "STARTTLS", "pop3": "STLS"}
	for _, protocol := range []string{"smtp", "imap", "pop3"} {
		for _, implicit := range []bool{false, true} {
			for _, want := range []string{"own", "other"} {
				s := &MailServer{Protocol: protocol, Implicit: implicit, Name: "mail.example", Greeting: "ready",
					Before: []string{"ONE", offer[protocol]}, After: []string{"ONE", "TWO"}, TLS: &tls.Config{Certificates: []tls.Certificate{*cert}}}
				known := &measure.MailGreeter{Key: key}
				if want == "other" {
					known.Key = strings.Repeat("00", 32)
				}
				o := talk(t, MailSpec{Protocol: protocol, Implicit: implicit, Name: "mail.example", Known: known, Inject: true},
					func(c net.Conn) { s.Serve(context.Background(), c, time.Minute) })
				m := o.Mail
				starts, dropped := "ready", "dropped"
				if implicit {
					starts, dropped = "", ""
				}
				if m.Key != want || (o.Failure == measure.NoFailure) != (want == "own") || m.StartTLS != starts || m.Injected != dropped || m.EarlyBytes != 0 ||
					strings.Join(m.After, " ") != "ONE TWO" || !implicit && strings.Join(m.Before, " ") != "ONE "+offer[protocol] || o.TLS == nil || o.TLS.ALPN != "" {
					t.Errorf("%s, implicit %v, %s key: failure %q %s, %+v", protocol, implicit, want, o.Failure, o.Detail, m)
				}
			}
		}
	}
}

// TestMailInjected: a server that takes what came in the clear behind STARTTLS
// for a part of the session is told from one that does not; and text in the
// clear before its TLS is kept, and does not end the handshake.
func TestMailInjected(t *testing.T) {
	cert, key := keyPair(t)
	said := map[string][4]string{
		"smtp": {"220 mail.example\r\n", "250-mail.example\r\n250 STARTTLS\r\n", "220 go\r\n250 early\r\n", "250 OK\r\n250-mail.example\r\n250 AUTH PLAIN\r\n"},
		"imap": {"* OK ready\r\n", "* CAPABILITY IMAP4REV1 STARTTLS\r\na1 OK\r\n", "a2 OK go\r\n* 1 EXISTS\r\n", "n1 OK\r\n* CAPABILITY IMAP4REV1\r\na3 OK\r\n"},
		"pop3": {"+OK ready\r\n", "+OK\r\nSTLS\r\n.\r\n", "+OK go\r\n+OK 1\r\n", "+OK\r\n+OK\r\nTOP\r\n.\r\n"},
	}
	for protocol, words := range said {
		o := talk(t, MailSpec{Protocol: protocol, Name: "mail.example", Known: &measure.MailGreeter{Key: key}, Inject: true}, func(c net.Conn) {
			defer c.Close()
			buf := make([]byte, 4096)
			for i, w := range words[:3] {
				io.WriteString(c, w)
				if i < 2 {
					c.Read(buf)
				}
			}
			tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}})
			io.WriteString(tc, words[3])
			for {
				if _, err := tc.Read(buf); err != nil {
					return
				}
			}
		})
		if o.Failure != measure.NoFailure || o.Mail.Injected != "executed" || o.Mail.EarlyBytes == 0 || o.Mail.Early == "" || o.Mail.Key != "own" {
			t.Errorf("%s: failure %q %s, %+v", protocol, o.Failure, o.Detail, o.Mail)
		}
	}
}

// TestMailInTheClear: what comes in the clear where TLS begins at once is kept,
// and no more of it than may be.
func TestMailInTheClear(t *testing.T) {
	cert, _ := keyPair(t)
	for _, c := range []struct {
		said  string
		after bool // TLS follows
	}{{"220 mail.example ESMTP\r\n", false}, {strings.Repeat("* OK \x01 hello\r\n", 4000), false}, {"+OK ready\r\n", true}} {
		o := talk(t, MailSpec{Protocol: "smtp", Implicit: true, Name: "mail.example"}, func(conn net.Conn) {
			defer conn.Close()
			io.WriteString(conn, c.said)
			if !c.after {
				io.Copy(io.Discard, io.LimitReader(conn, 64))
				return
			}
			s := &MailServer{Protocol: "smtp", Implicit: true, Name: "mail.example", TLS: &tls.Config{Certificates: []tls.Certificate{*cert}}}
			s.Serve(context.Background(), conn, time.Minute)
		})
		m := o.Mail
		if m.EarlyBytes == 0 || m.EarlyBytes > maxEarly+8<<10 || m.Early == "" || len(m.Early) > maxMailText || strings.ContainsRune(m.Early, 1) ||
			(o.TLS != nil && o.TLS.Version != "") != c.after || (m.Greeting != "") != c.after {
			t.Errorf("%.30q: failure %q, %+v", c.said, o.Failure, m)
		}
	}
}

// TestMailInjectsAtGreetersAlone: what could harm a stranger's server is not
// sent to one.
func TestMailInjectsAtGreetersAlone(t *testing.T) {
	conn := &script{r: bytes.NewReader([]byte("220 a\r\n250-a\r\n250 STARTTLS\r\n220 go\r\n"))}
	Mail(t.Context(), NewLog(time.Now(), nil), Meta{}, conn, MailSpec{Protocol: "smtp", Name: "mail.example", Inject: true}, nil)
	if sent := conn.sent.String(); strings.Contains(sent, "NOOP") || !strings.HasPrefix(sent, "EHLO [127.0.0.1]\r\nSTARTTLS\r\n\x16") {
		t.Errorf("it sent %q", sent[:min(len(sent), 60)])
	}
}
