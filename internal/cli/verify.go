package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"govah/evidence"
	"govah/evidence/tlog"
	"govah/internal/i18n"
	"govah/report"
)

func (a *app) verifyCommand() *cobra.Command {
	var (
		key, policy string
		certificate bool
		redaction   string
	)
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check evidence, and say what it proves and what it does not",
		Long: `Checks a file of evidence (from govah check --seal or govah seal; - is standard
input) without a network, and says what is proved, by which key, between which
times, what was withheld, and what is not proved. Whatever was changed is found.

Exits with 5 if the file does not verify, or not with what is asked for: then
nothing in it is to be used.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			c := evidence.Check{}
			if c.Key, err = verifierKey(key); err != nil {
				return err
			}
			if certificate && a.json {
				return usage("give one of them", "--certificate and --json exclude each other")
			}
			if policy != "" {
				if err := believe(&c, policy); err != nil {
					return err
				}
			}
			return a.runVerify(lang, args[0], c, redaction, certificate)
		},
	}
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "the key that must have signed, as its holder gives it (NAME+HASH+BASE64), or a file that holds it")
	f.StringVar(&policy, "policy", "", "a file that says which logs and witnesses you believe (c2sp.org/tlog-policy): the file must be in such a log")
	f.StringVar(&redaction, "redaction", "", "a note about the redaction of FILE (from govah redact --sign), to be checked too")
	f.BoolVar(&certificate, "certificate", false, "print a form for whoever keeps the file: who, how, which hash (docs/guide/certificate.md)")
	f.BoolVar(&a.json, "json", false, "print the account as one line of JSON (docs/formats/bundle-v1.md)")
	return cmd
}

// believe has checkpoints and a log's proof checked by a policy.
func believe(c *evidence.Check, path string) error {
	const form = "it is a policy as c2sp.org/tlog-policy has them: lines of log, witness, group, and one of quorum"
	f, err := os.Open(path)
	if err != nil {
		return hint(err, "give a file with --policy: %s", form)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return hint(fmt.Errorf("reading %s: %w", path, err), "copy it again")
	}
	p, err := tlog.ParsePolicy(text)
	if err != nil {
		return hint(fmt.Errorf("%s: %w", path, err), "%s", form)
	}
	moment := func(p *tlog.Checkpoint, at time.Time) evidence.Moment {
		m := evidence.Moment{Log: p.Origin, Size: p.Size}
		if !at.IsZero() {
			m.Time = at.UTC().Format(time.RFC3339)
		}
		for _, w := range p.Cosignatures {
			m.Witnesses = append(m.Witnesses, w.Name)
		}
		return m
	}
	c.Checkpoint = func(text []byte) (evidence.Moment, error) {
		checkpoint, err := tlog.VerifyCheckpoint(text, p)
		return moment(&checkpoint, checkpoint.Since), err
	}
	c.LogProof = func(proof []byte, entry evidence.Hash) (evidence.Moment, error) {
		found, err := tlog.VerifyProof(proof, entry[:], p)
		m := moment(&found.Checkpoint, found.Checkpoint.By)
		m.Index = &found.Index
		return m, err
	}
	return nil
}

func (a *app) runVerify(lang i18n.Lang, path string, c evidence.Check, redaction string, certificate bool) error {
	data, err := a.readSealed(path)
	if err != nil {
		return err
	}
	account, err := evidence.Verify(data, c)
	var unmet *evidence.UnmetError
	if errors.As(err, &unmet) {
		return &hinted{err: fmt.Errorf("%s does not verify: %w", path, err), code: exitUnverified,
			hint: "it is as it was signed, and not what --key or --policy asks for: ask for the right key, or for the file with a proof, and rely on nothing before"}
	}
	if err != nil {
		return unverified(path, err)
	}
	stated, err := a.readHandover(redaction, path, data)
	if err != nil {
		return err
	}
	if a.json {
		return a.line(struct {
			*evidence.Account
			Redaction *handoverLine `json:"redaction,omitempty"`
		}{account, stated.line()})
	}
	if certificate {
		return writeCertificate(a.out, lang, certify(a, lang, path, data, account))
	}
	a.tellAccount(lang, path, account)
	a.tellHandover(lang, stated)
	return nil
}

// readSealed reads a file of evidence whole, within its bound.
func (a *app) readSealed(path string) ([]byte, error) {
	f, err := a.open(a.ctx, path)
	if err != nil {
		return nil, hint(err, "give a file that `govah check --seal` or `govah seal` made")
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, sealedBytes+1))
	switch {
	case a.ctx.Err() != nil:
		return nil, exitCode(exitInterrupted)
	case err != nil:
		return nil, hint(fmt.Errorf("reading %s: %w", path, err), "copy it again")
	case len(data) > sealedBytes:
		return nil, unverified(path, fmt.Errorf("it has more than %d bytes", sealedBytes))
	case bytes.HasPrefix(data, []byte(ageMagic)):
		return nil, hint(fmt.Errorf("%s is encrypted", path), "who has the key decrypts it with age: `age -d -i KEY -o case.govah %s`", path)
	}
	return data, nil
}

// tellAccount puts an account into words: what is proved, what is withheld,
// what is only said, and what is not proved.
func (a *app) tellAccount(lang i18n.Lang, path string, c *evidence.Account) {
	text := func(key string, args ...i18n.Arg) string { return lang.Text("cli.verify."+key, args...) }
	withheld := 0
	for _, k := range c.Classes {
		withheld += k.Withheld
	}
	head := "whole"
	if withheld > 0 {
		head = "redacted"
	}
	fmt.Fprintln(a.out, report.Wrap(text(head, i18n.LTR("file", path)), 0, 2))
	part := func(label string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintln(a.out, report.Wrap(text("label-"+label), 0, 2))
		for _, l := range lines {
			fmt.Fprintln(a.out, report.Wrap(l, 2, 4))
		}
	}
	part("proved", a.proved(text, c))
	part("withheld", withheldIn(text, c))
	part("said", saidIn(text, c))
	part("not", notProvedIn(text, c))
	next := []string{text("next-report", i18n.LTR("report", "view/"+evidence.ReportName))}
	for _, f := range c.Files {
		if f.Name == evidence.ReportName && !f.Whole {
			next = []string{text("next-files", i18n.LTR("folder", "view"))}
		}
	}
	if !c.Expected {
		next = append(next, text("next-key", i18n.LTR("flag", "--key")))
	}
	part("next", next)
}

type texter func(key string, args ...i18n.Arg) string

// proved are the things that anybody can rely on.
func (a *app) proved(text texter, c *evidence.Account) (list []string) {
	key := "key"
	if c.Expected {
		key = "key-expected"
	}
	list = append(list, text(key, i18n.LTR("key", c.Key)), text("fingerprint", i18n.LTR("fingerprint", evidence.Fingerprint(c.Key))))
	if m := c.NotBefore; m != nil && m.Time != "" {
		list = append(list, text("not-before", i18n.LTR("time", m.Time), i18n.LTR("log", short(m.Log)), i18n.Num("n", len(m.Witnesses))))
	}
	if m := c.NotAfter; m != nil && m.Time != "" {
		list = append(list, text("not-after", i18n.LTR("time", m.Time), i18n.LTR("log", short(m.Log)), i18n.Num("n", len(m.Witnesses))))
	} else if m != nil {
		list = append(list, text("logged", i18n.LTR("log", short(m.Log))))
	}
	for _, r := range c.Receipts {
		key := "receipts"
		if r.Pinned {
			key = "receipts-pinned"
		}
		list = append(list, text(key, i18n.Num("n", r.Covers), i18n.LTR("from", r.From), i18n.LTR("to", r.To), i18n.LTR("key", r.Key)))
	}
	list = append(list, text("entry", i18n.LTR("entry", c.Entry)))
	if c.Previous != "" {
		list = append(list, text("previous", i18n.LTR("entry", c.Previous)))
	}
	return list
}

// withheldIn says how much of what was taken out.
func withheldIn(text texter, c *evidence.Account) (list []string) {
	for _, k := range c.Classes {
		if k.Withheld > 0 {
			list = append(list, text("withheld", i18n.Word("class", text("class-"+k.Class)), i18n.Num("n", k.Withheld), i18n.Num("all", k.Leaves)))
		}
	}
	return list
}

// notProvedIn are the things that nobody can rely on.
func notProvedIn(text texter, c *evidence.Account) (list []string) {
	for _, u := range c.NotProved {
		args := []i18n.Arg{i18n.LTR("rfc", "RFC 3161")}
		switch u {
		case evidence.NotReceipts:
			args = append(args, i18n.Num("n", c.Refused))
		case evidence.NotHelpers:
			args = append(args, i18n.Num("n", c.Unsigned))
		case evidence.NotUnread:
			args = append(args, i18n.Num("n", c.Unread))
		}
		list = append(list, text("not-"+string(u), args...))
	}
	return list
}

// saidIn is what the key's holder says, and nobody else.
func saidIn(text texter, c *evidence.Account) (list []string) {
	if s := c.Stated; s != nil {
		if s.Lab != "" {
			list = append(list, text("said-lab", i18n.LTR("lab", short(s.Lab))))
		}
		if s.Started != "" {
			list = append(list, text("said-times", i18n.LTR("started", short(s.Started)), i18n.LTR("ended", short(s.Ended))))
		}
		if s.Sealed != "" {
			list = append(list, text("said-sealed", i18n.LTR("time", short(s.Sealed)), i18n.LTR("tool", short(s.Tool+" "+s.Version)), i18n.LTR("rules", short(s.Rules))))
		}
		switch s.Packets {
		case evidence.PacketsCaptured:
			list = append(list, text("said-captured"))
		case evidence.PacketsReported:
			list = append(list, text("said-reported"))
		}
	}
	const most = 20
	for i, e := range c.Custody {
		if i == most {
			list = append(list, text("said-more", i18n.Num("n", len(c.Custody)-most)))
			break
		}
		event := e.Event
		switch event {
		case evidence.Collected, evidence.Received, evidence.Copied:
			event = text("event-" + event)
		default:
			event = i18n.Escape(short(event))
		}
		line := text("said-custody", i18n.Word("event", event), i18n.LTR("at", short(e.At)))
		if e.By != "" {
			line += text("said-by", i18n.Foreign("by", short(e.By)))
		}
		if e.Note != "" {
			line += text("said-note", i18n.Foreign("note", short(e.Note)))
		}
		list = append(list, line)
	}
	switch c.Checkpoint {
	case evidence.Unchecked:
		list = append(list, text("said-checkpoint"))
	case evidence.Refused:
		list = append(list, text("said-checkpoint-refused"))
	}
	if c.LogProof == evidence.Unchecked {
		list = append(list, text("said-proof"))
	}
	return list
}

// short bounds what is printed of a text from a file.
func short(s string) string {
	const most = 200
	if r := []rune(s[:min(len(s), 4*most)]); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
