package exposure

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// talkState is where the reading of a dialogue of lines stands.
type talkState struct {
	sasl      bool // a mechanism was named; its answer follows, or a refusal
	data      bool // a message, up to the line of one dot
	anonymous bool // FTP's
	asked     bool // telnet: for a password
	tail      []byte
}

func (c *counter) dialogues(p protocol) *Dialogues {
	switch p {
	case smtp:
		return &c.SMTP
	case imap:
		return &c.IMAP
	case pop3:
		return &c.POP3
	default:
		return &c.FTP
	}
}

// verbs are the commands by which a protocol is known (RFC 5321 4.1, RFC 9051
// 6, RFC 1939 and 2449, RFC 959 and 4217).
var verbs = map[protocol][]string{
	smtp: {"EHLO", "HELO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "AUTH", "STARTTLS", "QUIT"},
	imap: {"CAPABILITY", "ID", "NOOP", "LOGOUT", "STARTTLS", "AUTHENTICATE", "LOGIN", "ENABLE", "SELECT", "EXAMINE", "LIST", "NAMESPACE", "STATUS"},
	pop3: {"USER", "PASS", "APOP", "AUTH", "CAPA", "STLS", "STAT", "LIST", "NOOP", "QUIT", "UTF8", "LANG"},
	ftp:  {"USER", "PASS", "ACCT", "AUTH", "FEAT", "HOST", "OPTS", "SYST", "CLNT", "NOOP", "QUIT", "PBSZ", "PROT"},
}

var ports = map[uint16]protocol{25: smtp, 587: smtp, 2525: smtp, 143: imap, 110: pop3, 21: ftp}

// dialogue tells a protocol from the server's greeting, or, where that is not
// in the capture, from the port; the client's first line has to fit.
func dialogue(port uint16, greet, line []byte) protocol {
	p := ports[port]
	switch {
	case bytes.HasPrefix(greet, []byte("* ")):
		p = imap
	case bytes.HasPrefix(greet, []byte("+OK")):
		p = pop3
	case bytes.HasPrefix(greet, []byte("220")) && p != ftp && p != smtp:
		if p = ftp; slices.Contains(verbs[smtp][:3], verb(smtp, line)) {
			p = smtp
		}
	}
	if p == undecided || verb(p, line) == "" {
		return undecided
	}
	return p
}

// verb is the command of a line, "" if it is none of the protocol.
func verb(p protocol, line []byte) string {
	words := fields(line)
	at := 0
	if p == imap {
		at = 1 // behind the tag
	}
	if len(words) <= at {
		return ""
	}
	word := strings.ToUpper(words[at])
	if !slices.Contains(verbs[p], word) {
		return ""
	}
	return word
}

func fields(line []byte) []string {
	return strings.Fields(string(line[:min(len(line), 512)]))
}

// talkLine reads one line of what a client writes.
func (c *counter) talkLine(f *flow, line []byte) {
	t := &f.talk
	if t.data {
		t.data = string(line) != "."
		return
	}
	words := fields(line)
	command := verb(f.is, line)
	if t.sasl {
		t.sasl = false
		if command == "" && len(words) > 0 && words[0] != "*" {
			c.secret(f.is)
			return
		}
	}
	if f.is == imap {
		f.skip = literal(line)
		if len(words) > 0 {
			words = words[1:]
		}
	}
	argument := func(i int) string {
		if i < len(words) {
			return strings.ToUpper(words[i])
		}
		return ""
	}
	switch command {
	case "AUTH", "AUTHENTICATE":
		switch mechanism := argument(1); {
		case mechanism == "" || mechanism == "ANONYMOUS" || mechanism == "EXTERNAL" || mechanism == "GSSAPI" || f.is == ftp:
		case argument(2) == "" || argument(2) == "=":
			t.sasl = true
		default:
			c.secret(f.is)
		}
	case "LOGIN", "APOP":
		if argument(1) != "" {
			c.secret(f.is)
		}
	case "USER":
		name := argument(1)
		t.anonymous = f.is == ftp && (name == "ANONYMOUS" || name == "FTP")
	case "PASS", "ACCT":
		if argument(1) != "" && !t.anonymous {
			c.secret(f.is)
		}
	case "DATA":
		t.data = f.is == smtp
	case "BDAT": // RFC 3030
		if n, err := strconv.ParseInt(argument(1), 10, 62); err == nil && n > 0 && f.is == smtp {
			f.skip = n
		}
	}
}

func (c *counter) secret(p protocol) {
	switch p {
	case smtp:
		c.Credentials.SMTP = true
	case imap:
		c.Credentials.IMAP = true
	case pop3:
		c.Credentials.POP3 = true
	case ftp:
		c.Credentials.FTP = true
	}
}

// literal is the length of what follows a line of IMAP that ends with {n} or
// {n+} (RFC 9051 4.3, RFC 7888).
func literal(line []byte) int64 {
	if len(line) == 0 || line[len(line)-1] != '}' {
		return 0
	}
	at := bytes.LastIndexByte(line, '{')
	if at < 0 || len(line)-at > 24 {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimRight(string(line[at+1:len(line)-1]), "+-"), 10, 62)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// prompt looks for a question for a password, which may come in pieces.
func (t *talkState) prompt(b []byte) {
	const word = "password"
	all := append(t.tail, bytes.ToLower(b)...)
	if bytes.Contains(all, []byte(word)) {
		t.asked = true
	}
	t.tail = append([]byte(nil), all[max(0, len(all)-len(word)+1):]...)
}
