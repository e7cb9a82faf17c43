package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"govah/evidence"
	"govah/evidence/keyring"
	"govah/evidence/tlog"
	"govah/internal/i18n"
	"govah/judge"
	"govah/record"
	"govah/report"
	"govah/wire"
)

// sealing is a run of which evidence is made. Until that is written, all that
// it needs is in a folder beside it, which is removed whatever happens.
type sealing struct {
	path    string // the file to be
	scratch string
	// measurements is the run's file, the user's own or one in scratch; report
	// its page, if the user wants one too.
	measurements, report string

	keys       *keyring.Store
	scope      string
	ask        keyring.Ask
	recipients *keyring.Recipients // nil: it is not encrypted
	checkpoint []byte
	began      string // why an epoch of the key began with this, "" if none did

	// memory holds the measurements, and packets what is traced, where the
	// evidence is to be encrypted: nothing of it was on the disk in the clear.
	memory, packets *bytes.Buffer

	kind  wire.TraceKind
	file  *os.File // nil: packets
	buf   *bufio.Writer
	trace *wire.Trace
	untap func()
}

// bundleName is what the evidence of a run is called: after the file of its
// measurements, or in the folder of a lab's run.
func bundleName(o *checkOptions, dir, run string) string {
	name := ""
	switch {
	case dir != "":
		name = filepath.Join(dir, "evidence")
	case o.output != "":
		name = withoutEnding(o.output)
	default:
		name = fmt.Sprintf("govah-%s-%s", time.Now().UTC().Format(time.DateOnly), run)
	}
	ending := ".govah"
	if o.to.given() {
		ending += ".age"
	}
	// What an interrupted run sealed stays when the run goes on.
	for n := 2; o.resume && n < 1000; n++ {
		if _, err := os.Lstat(name + ending); err != nil {
			break
		}
		name = fmt.Sprintf("%s-%d", strings.TrimSuffix(name, fmt.Sprintf("-%d", n-1)), n)
	}
	return name + ending
}

// withoutEnding is the name of a measurement file, sealed or not, without what
// says so.
func withoutEnding(path string) string {
	for _, ending := range []string{".age", ".gz", ".zst", ".jsonl", ".govah"} {
		path = strings.TrimSuffix(path, ending)
	}
	return path
}

// aboutSealing says what is wrong with the flags that go with --seal.
func (o *checkOptions) aboutSealing() error {
	for _, x := range []struct {
		flag string
		set  bool
	}{{"--scope", o.scope != ""}, {"--passphrase-file", o.pass.file != ""}, {"--checkpoint", o.checkpoint != ""}, {"--log", o.log != ""}} {
		if x.set && !o.seal {
			return usage("add --seal, or leave it out", "%s needs --seal", x.flag)
		}
	}
	if err := o.aboutEncrypting(); err != nil {
		return err
	}
	if err := o.aboutLog(); err != nil {
		return err
	}
	if o.log != "" && o.lab != "" {
		return usage("give a file with --checkpoint", "--lab contacts nobody, and --log would")
	}
	return nil
}

// beginSealing prepares to make evidence of a run at p, whose sockets are
// traced from now on. What can keep it from being made is found out before
// anything is measured.
func (a *app) beginSealing(o *checkOptions, p *place, dir string) (*sealing, error) {
	s, err := a.prepareSealing(bundleName(o, dir, p.cfg.Run), &o.sealingOptions)
	if err != nil {
		return nil, err
	}
	s.report = o.html
	if s.recipients == nil {
		if s.scratch, err = os.MkdirTemp(filepath.Dir(s.path), ".govah-seal-*"); err != nil {
			return nil, hint(fmt.Errorf("preparing the evidence: %w", err), "choose a folder that you can write to")
		}
	}
	if err := s.beginTrace(p); err != nil {
		s.discard()
		return nil, hint(fmt.Errorf("preparing the evidence: %w", err), "is the disk full?")
	}
	return s, nil
}

// sealingOptions are what the flags say of any sealing.
type sealingOptions struct {
	scope      string
	pass       passphrases
	to         recipientOptions
	checkpoint string
	log        string
}

// aboutLog says what is wrong with --log.
func (o *sealingOptions) aboutLog() error {
	if o.log == "" {
		return nil
	}
	if _, err := logURL(o.log); err != nil {
		return err
	}
	if o.checkpoint != "" {
		return usage("give one of them", "--log and --checkpoint exclude each other")
	}
	return nil
}

// prepareSealing finds the key and whatever else a sealing needs, and makes a
// folder for what it needs on the way.
func (a *app) prepareSealing(path string, o *sealingOptions) (s *sealing, err error) {
	s = &sealing{path: path, scope: o.scope, ask: a.ask(&o.pass), untap: func() {}}
	if u, uerr := logURL(o.log); uerr == nil {
		s.checkpoint, err = fetchCheckpoint(a.ctx, u)
	} else {
		s.checkpoint, err = checkpoint(o.checkpoint)
	}
	if err != nil {
		return nil, err
	}
	if s.recipients, err = o.to.recipients(); err != nil {
		return nil, err
	}
	if err := s.findKey(a); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(s.path); err == nil {
		return nil, hint(fmt.Errorf("%s exists already and is not overwritten", s.path), "choose another name with -o")
	}
	if s.recipients != nil {
		s.memory, s.packets = &bytes.Buffer{}, &bytes.Buffer{}
	}
	return s, nil
}

// findKey finds out whether the scope's key, if it has one, can be used.
func (s *sealing) findKey(a *app) error {
	if s.scope == "" {
		s.scope = keyring.DefaultScope
	}
	if err := keyring.CheckScope(s.scope); err != nil {
		return usage("for example --scope work", "--scope: %v", err)
	}
	var err error
	if s.keys, err = keys(); err != nil {
		return err
	}
	k, err := s.keys.Get(s.scope, s.ask)
	if errors.Is(err, keyring.ErrNoKey) {
		return nil // the first use makes one
	}
	if err != nil {
		return keyError(s.scope, err)
	}
	return k.Close()
}

// beginTrace has everything traced that the run sends and receives.
func (s *sealing) beginTrace(p *place) (err error) {
	switch {
	case p.tap != nil:
		s.kind = wire.TraceTap
	case p.cfg.Network.View().Capture:
		s.kind = wire.TraceCapture
	default:
		s.kind = wire.TraceKernel
	}
	var out io.Writer = s.packets
	if s.packets == nil {
		if s.file, err = os.OpenFile(filepath.Join(s.scratch, "trace"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
			return err
		}
		out = s.file
	}
	s.buf = bufio.NewWriterSize(out, 1<<16)
	if s.trace, err = wire.NewTrace(s.buf, s.kind, p.cfg.Run, p.cfg.Trust.Now); err != nil {
		if s.file != nil {
			s.file.Close()
		}
		return err
	}
	if p.tap != nil {
		p.tap(s.trace.Tap)
		s.untap = func() { p.tap(nil) }
	}
	p.cfg.Network = s.trace.Network(p.cfg.Network)
	return nil
}

// stop ends the trace and gives what it holds.
func (s *sealing) stop() (sum wire.TraceSum, data []byte, err error) {
	s.untap()
	sum, err = s.trace.Close()
	s.trace = nil
	if err = errors.Join(err, s.buf.Flush()); s.packets != nil {
		return sum, s.packets.Bytes(), err
	}
	if err = errors.Join(err, s.file.Close()); err == nil {
		data, err = os.ReadFile(s.file.Name())
	}
	return sum, data, err
}

// discard removes what was needed on the way.
func (s *sealing) discard() {
	if s == nil {
		return
	}
	if s.trace != nil {
		s.untap()
		s.trace.Close()
		if s.file != nil {
			s.file.Close()
		}
		s.trace = nil
	}
	if s.scratch != "" {
		os.RemoveAll(s.scratch)
	}
}

// rescue keeps the measurements of a run of which no evidence could be made,
// unless they were never to be in the clear.
func (s *sealing) rescue(err error) error {
	own := filepath.Dir(s.measurements) != s.scratch
	if err == nil || own || s.recipients != nil {
		return err
	}
	path := withoutEnding(s.path) + ".jsonl"
	if _, serr := os.Lstat(path); serr == nil {
		path = s.scratch + ".jsonl"
	}
	if rerr := os.Rename(s.measurements, path); rerr != nil {
		return err
	}
	return hint(err, "the measurements are whole, in %s: `govah seal %s` makes evidence of them", path, path)
}

// sealRun makes evidence of a run that has ended, verifies it, and tells what
// it is. Nothing of it is there before it is whole, and the measurements stay
// whatever becomes of it.
func (a *app) sealRun(lang i18n.Lang, s *sealing) error {
	return s.rescue(a.sealTraced(lang, s))
}

func (a *app) sealTraced(lang i18n.Lang, s *sealing) error {
	const stays = "is the disk full? `govah seal` makes evidence of a file of -o"
	sum, traced, err := s.stop()
	if err != nil {
		return hint(fmt.Errorf("keeping the packets of the run: %w", err), "%s", stays)
	}
	now := time.Now().UTC().Format(time.RFC3339)
	in := evidence.Sealing{Checkpoint: s.checkpoint,
		About:   evidence.About{Version: Version(), Rules: judge.Rules, Sealed: now},
		Custody: []evidence.Event{{Event: evidence.Collected, At: now}}}
	if s.kind == wire.TraceKernel {
		in.Connections = traced
	} else {
		in.Packets = traced
	}
	if s.memory != nil {
		in.Measurements = s.memory.Bytes()
	} else if in.Measurements, err = plainLines(s.measurements); err != nil {
		return hint(fmt.Errorf("reading the measurements of the run: %w", err), "%s", stays)
	}
	// Also of an interrupted run.
	if s.report == "" {
		in.Report, _, err = reportOf(context.WithoutCancel(a.ctx), in.Measurements, "the run", lang)
	} else if in.Report, err = os.ReadFile(s.report); err != nil {
		err = hint(fmt.Errorf("reading the report of the run: %w", err), "%s", stays)
	}
	if err != nil {
		return err
	}
	b, size, err := s.seal(in)
	if err != nil {
		return err
	}
	return a.tellEvidence(lang, s, b, &sum, size)
}

// reportOf is the report of measurements that are in memory.
func reportOf(ctx context.Context, lines []byte, name string, lang i18n.Lang) (page []byte, broken account, err error) {
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(lines)), nil }
	src, err := reportSource(ctx, open, name, &broken)
	if err != nil {
		return nil, broken, err
	}
	var b bytes.Buffer
	err = renderHTML(&b, src, name, lang)
	return b.Bytes(), broken, err
}

// plainLines is a measurement file, uncompressed.
func plainLines(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := record.NewReader(f)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var b bytes.Buffer
	for line, err := range r.Lines() {
		if err != nil {
			return nil, err
		}
		b.Write(line.Data)
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

// seal signs, verifies, encrypts and writes; in that order, so that no file is
// there that does not verify. The chain of the key is told last: a crash
// before that leaves a whole bundle to which the next one does not lead.
func (s *sealing) seal(in evidence.Sealing) (b *evidence.Bundle, size int, err error) {
	key, err := s.keys.Use(s.scope, s.ask)
	if err != nil {
		return nil, 0, keyError(s.scope, err)
	}
	defer key.Close()
	s.began = key.Began
	in.Signer, in.Key = key.Signer(), key.Verifier()
	if last := key.Previous(); len(last) == len(evidence.Hash{}) {
		h := evidence.Hash(last)
		in.Previous = &h
	}
	data, err := evidence.Seal(in)
	if err != nil {
		return nil, 0, hint(err, "`govah seal` makes evidence of a file of -o")
	}
	if b, err = evidence.Open(data); err != nil {
		return nil, 0, fmt.Errorf("what was sealed does not verify: %w", err)
	}
	if s.recipients != nil {
		if data, err = keyring.Encrypt(data, s.recipients); err != nil {
			return nil, 0, fmt.Errorf("encrypting the evidence: %w", err)
		}
	}
	if err := evidence.WriteFile(s.path, data); err != nil {
		return nil, 0, hint(err, "is the disk full? `govah seal` makes evidence of a file of -o")
	}
	if err := key.Done(b.Entry[:]); err != nil {
		return nil, 0, hint(fmt.Errorf("%s is whole, but the key's chain could not be noted: %w", s.path, err), "is the disk full? The next one will not lead to it")
	}
	return b, len(data), nil
}

// tellEvidence says what was made, and how anybody can check it. sum is of the
// run's packets, nil if no run was watched.
func (a *app) tellEvidence(lang i18n.Lang, s *sealing, b *evidence.Bundle, sum *wire.TraceSum, size int) error {
	a.tellEpoch(lang, s.scope, s.began)
	if a.json {
		line := map[string]any{"type": "sealed", "schema": 1, "file": s.path, "bytes": size, "key": b.Key, "entry": b.Entry[:]}
		if sum != nil {
			line["packets"], line["count"], line["cut"], line["lost"] = sum.Kind, sum.Packets, sum.Cut, sum.Lost
		}
		return a.line(line)
	}
	say := func(key string, args ...i18n.Arg) {
		fmt.Fprintln(a.out, report.Wrap(lang.Text("cli.evidence."+key, args...), 0, 2))
	}
	if sum != nil {
		fmt.Fprintln(a.out)
	}
	say("sealed", i18n.LTR("file", s.path), i18n.Size("size", int64(size)))
	say("key", i18n.LTR("key", b.Key))
	switch {
	case sum == nil:
	case sum.Kind == wire.TraceKernel:
		say("reports", i18n.Num("n", sum.Packets))
	default:
		say("packets", i18n.Num("n", sum.Packets))
	}
	if sum != nil && sum.Lost > 0 {
		say("lost", i18n.Num("n", sum.Lost))
	}
	if tree, err := tlog.ParseCheckpoint(s.checkpoint); s.checkpoint == nil || err != nil {
		say("no-checkpoint", i18n.LTR("flag", "--checkpoint"))
	} else {
		say("checkpoint", i18n.LTR("log", short(tree.Origin)), i18n.LTR("n", strconv.FormatInt(tree.Size, 10)))
	}
	if s.recipients != nil {
		say("encrypted", i18n.Command("command", "age -d -i KEY "+s.path))
	} else {
		say("verify", i18n.Command("command", "govah verify "+s.path))
	}
	return nil
}
