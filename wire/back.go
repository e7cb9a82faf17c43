package wire

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"govah/measure"
)

// Bounds on what a helper tells of words on their way back.
const (
	maxSaid     = 64   // of them
	maxSaidText = 512  // bytes of one
	maxQuote    = 1280 // bytes of a quote
)

// AskBack asks a helper to say what its greeter says next to us with TTLs that
// end it on the way back, and what came of what it was asked to say before. The
// answer is bounded, and as true as the helper is honest; nil on failure.
func AskBack(ctx context.Context, n Network, l *Log, m Meta, rawURL string, at netip.Addr, question measure.HelperBackRequest, trust *Trust) (*measure.HelperBack, *measure.Observation) {
	var got *measure.HelperBack
	o := askHelper(ctx, n, l, m, rawURL, at, "v1/back", question, trust, func(body []byte) (err error) {
		got, err = ParseBack(body, question.Marker)
		return err
	})
	if o.Failure != measure.NoFailure {
		got = nil
	}
	return got, o
}

// ParseBack reads a helper's answer to AskBack.
func ParseBack(data []byte, marker string) (*measure.HelperBack, error) {
	var r measure.HelperBack
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("the helper's answer cannot be read: %w", err)
	}
	if r.Schema < 1 || r.Marker != marker || len(r.List) > maxSaid || !r.Able && len(r.List) > 0 {
		return nil, errors.New("the helper's answer is not one to this question")
	}
	if g := r.Greeter; g != nil {
		if r.Greeter = nil; g.Implicit {
			return nil, errors.New("the helper's answer is not one to this question")
		}
		for _, g := range helperGreeters([]measure.MailGreeter{*g}) {
			r.Greeter = &g
		}
	}
	for i := range r.List {
		s := &r.List[i]
		said, err := base64.StdEncoding.DecodeString(s.Text)
		quote, qerr := base64.StdEncoding.DecodeString(s.Quoted)
		if err != nil || qerr != nil || len(said) == 0 || len(said) > maxSaidText || len(quote) > maxQuote ||
			s.TTL < 1 || s.TTL > 255 || !slices.Contains([]string{"expired", "arrived", "silent"}, s.Outcome) {
			return nil, errors.New("the helper's answer is not one to this question")
		}
		s.Port, s.Sends, s.RTTUS = max(0, min(s.Port, 65535)), max(0, min(s.Sends, 64)), max(0, min(s.RTTUS, maxHelperUS))
		router, err := netip.ParseAddr(s.Router)
		switch {
		case s.Outcome != "expired":
			s.Router, s.Type, s.Code, s.Quoted = "", 0, 0, ""
		case err != nil || router.Zone() != "" || s.Type < 0 || s.Type > 255 || s.Code < 0 || s.Code > 255:
			return nil, errors.New("the helper's answer contradicts itself")
		default:
			s.Router = router.Unmap().String()
		}
	}
	return &r, nil
}

// MailTalk is a dialogue with a mail server of which the caller says each step.
// Nobody logs in. What is said is not kept.
type MailTalk struct {
	d   *dialogue
	end func()
}

// Talk begins a dialogue; nothing is sent. The connection is the caller's to
// close, after End.
func Talk(ctx context.Context, l *Log, conn Conn, protocol string) *MailTalk {
	clear := &meter{Conn: conn}
	d := &dialogue{l: l, o: &measure.Observation{}, m: &measure.Mail{}, spec: MailSpec{Protocol: protocol}, conn: clear, meter: clear}
	return &MailTalk{d, clear.begin(ctx, limits{total: mailTotal, silence: greetPatience, patience: greetPatience})}
}

// End ends the clock of a dialogue.
func (t *MailTalk) End() { t.end() }

// Greeting reads the greeting.
func (t *MailTalk) Greeting() error {
	err := t.d.greeting()
	if err == nil && t.d.m.Away {
		err = fmt.Errorf("the server turned this client away: %w", io.EOF)
	}
	return err
}

// Capabilities asks for them, as a client does before it begins encryption.
func (t *MailTalk) Capabilities() error {
	_, err := t.d.capabilities()
	return err
}

// Harmless asks for nothing, and reads that it was done.
func (t *MailTalk) Harmless() error {
	d := t.d
	switch d.spec.Protocol {
	case "imap":
		_, err := d.imap("NOOP", "", func(string) {})
		return err
	case "pop3":
		err := d.send("NOOP")
		if err == nil {
			_, err = d.line()
		}
		return err
	}
	err := d.send("NOOP")
	if err == nil {
		_, _, err = d.smtpReply()
	}
	return err
}
