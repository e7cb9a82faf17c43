package measure

// NearerProbes is how often the other port must not have answered at the TTL
// that is enough for the mail port (ExpProxyTTL), for something to be nearer
// than the server.
const NearerProbes = 3

// Mail is a dialogue with a mail server, up to where a login would come. What
// is sent is a greeting, questions for capabilities, STARTTLS and goodbye: no
// name, no password, no message.
type Mail struct {
	Protocol string `json:"protocol" class:"none"` // smtp, imap, pop3
	// Implicit: TLS from the first byte on.
	Implicit bool `json:"implicit,omitempty"`
	// Lines are the dialogue, in order. Of a server that says too much the
	// first are kept, and Truncated is set.
	Lines     []MailLine `json:"lines,omitempty"`
	Truncated bool       `json:"truncated,omitempty"`
	// Greeting is the first line of what the server said first.
	Greeting string `json:"greeting,omitempty" class:"foreign"`
	// Before are the capabilities in the clear, After those inside TLS, one an
	// entry and in capitals.
	Before []string `json:"before,omitempty" class:"foreign"`
	After  []string `json:"after,omitempty" class:"foreign"`
	// StartTLS is what STARTTLS (STLS in POP3) was answered with: ready, later
	// (SMTP's 4xx), refused; "" if it was not asked for or not answered.
	StartTLS string `json:"starttls,omitempty" class:"none"`
	// EarlyBytes came in the clear before the server's first byte of TLS, after
	// it had said that it was ready or where TLS begins at once; Early is how
	// they begin.
	EarlyBytes int64  `json:"early_bytes,omitempty"`
	Early      string `json:"early,omitempty" class:"foreign"`
	// Injected is what became of a NOOP that was sent in the clear right behind
	// STARTTLS, which is done to greeters of one's own helper alone: dropped or
	// executed inside TLS (RFC 3207, 6); "" not tried.
	Injected string `json:"injected,omitempty" class:"none"`
	// Instead is what came of a harmless command of the same length that was
	// sent in the place of STARTTLS: answered, silent; "" STARTTLS was to be sent.
	Instead string `json:"instead,omitempty" class:"none"`
	// Known is what this server is known to say, where it is a greeter.
	Known *MailGreeter `json:"known,omitempty"`
	// Away says that the greeting turned this client away (SMTP's 4xx and 5xx,
	// BYE, -ERR): nothing more was asked.
	Away bool `json:"away,omitempty"`
	// Key is own if the key inside TLS is the one in Known, else other.
	Key string `json:"key,omitempty" class:"none"`
}

// Unanswered says that capabilities came, and that nothing came of STARTTLS
// (STLS) any more, in a dialogue that failed.
func (m *Mail) Unanswered() bool {
	if m.Implicit || m.StartTLS != "" || len(m.Before) == 0 {
		return false
	}
	for i := len(m.Lines) - 1; i >= 0 && m.Lines[i].Sent; i-- {
		for _, command := range []string{"STARTTLS", "STLS"} {
			if at := len(m.Lines[i].Text) - len(command); at >= 0 && m.Lines[i].Text[at:] == command {
				return true
			}
		}
	}
	return false
}

// MailLine is one line of a dialogue.
type MailLine struct {
	AtUS int64 `json:"at_us"` // since Measurement.Started
	Sent bool  `json:"sent,omitempty"`
	TLS  bool  `json:"tls,omitempty"`
	// Text is written as Greeting.Text is, without the line's end.
	Text string `json:"text" class:"foreign"`
}

// MailGreeter is a mail server of a helper, as the helper describes it over
// its own authenticated connection (docs/formats/helper-v1.md).
type MailGreeter struct {
	Protocol string   `json:"protocol" class:"none"`
	Implicit bool     `json:"implicit,omitempty"`
	Port     int      `json:"port"`
	Greeting string   `json:"greeting" class:"foreign"`
	Before   []string `json:"before,omitempty" class:"foreign"` // capabilities in the clear
	After    []string `json:"after,omitempty" class:"foreign"`  // and inside TLS
	// Key is the SHA-256 (hex) of the public key (SPKI) that it presents.
	Key string `json:"key" class:"target"`
}
