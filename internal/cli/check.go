package cli

import (
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"govah/check"
	"govah/identify"
	"govah/internal/i18n"
	"govah/measure"
	"govah/wire"
)

// checkOptions are the flags of `govah check`.
type checkOptions struct {
	list       string
	categories []string
	lab        string
	client     string
	at         string
	seed       int64
	helpers    []string
	resolver   string
	doh        []string
	controls   []string
	caFile     string
	ctLogs     string
	knownHosts string
	only4      bool
	only6      bool
	pace       string
	maxBytes   int64
	deadline   time.Duration
	triggers   int
	output     string
	resume     bool
	html       string
	ooni       string
	locate     bool
	sets       []string
	identify   bool
	banner     bool
	signatures string
	exitCode   bool
	consent    bool
	seal       bool
	sealingOptions
	loss int // of a lab's line, per thousand; for tests
}

func (a *app) checkCommand() *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check [TARGET...]",
		Short: "Say what is blocked here, how, and why we know",
		Long: `Checks each TARGET (a URL, a host name, an address, host:port or ssh://host) and
says whether it is reachable, whether something interferes, how, and what shows
it.
Mail servers are smtp://HOST, imap://HOST and pop3://HOST (STARTTLS), and with
an s for encryption from the start, as imaps://HOST; a port may follow.

  govah check example.org                       one site, from this device
  govah check -i mylist.txt -o today.jsonl      a list: one target a line, or
                                                Citizen Lab's CSV
  govah check imap://mail.example.org           a mail server: no login, no mail
  govah check --lab iran-2017                   an emulated internet: sends
                                                nothing, needs no rights

  govah check ssh://host.example.org            an SSH server: is its host key
                                                the one that you know?

For ssh targets the keys of your known_hosts are compared, of those hosts only,
and public servers that publish their host keys are contacted as controls. No
user name is sent, and nobody logs in.

Your own list with a helper of your own. A helper is a second vantage point
that tells a blocked site from one that is down. On a server elsewhere:

  govah helper --listen 0.0.0.0:8443            prints its URL, with a pin

and here, with that URL:

  govah check -i mylist.txt --helper 'https://203.0.113.5:8443/#sha256=...'

Whether something on this line reads or redirects, whatever the site: a part
of every run, and alone, without a TARGET, with

  govah check --set interception

What is copied in passing, or inside the provider, leaves no trace on a
device: no test of any kind shows it.

The helper learns your address while you are connected, and the targets you
ask about; it keeps neither.

With --seal the run becomes evidence: one file (.govah) with the measurements,
the report and the run's own packets (without the right to capture, what the
system tells of each connection), signed with a key of this device, which
others verify without a network. It lies beside the file of -o, in the lab's
folder, or here under a name of its own, and holds your address; redact before
you pass it on (govah redact).

With --recipient the evidence and the file of -o are encrypted with age (age1…,
post-quantum keys too), and this device cannot open them. Nothing of them is
written in the clear on the way; the packets of --locate are left out.

On a real network govah first says what it will send, and to whom, and asks.
Nothing is uploaded. Files are written only where -o, --report or --ooni say;
--lab writes a new folder and names it. Where packets may be captured (root,
CAP_NET_RAW), --locate with -o also writes its own as locate.pcapng beside that
file, with your address and those of the routers next to you; --identify keeps
the marks of the packets that a device sends in the file of -o.

Exit codes: 0 done, 1 failed or lines of the list skipped, 2 wrong usage,
130 interrupted (what there is has been written); with --exit-code also
3 interference confirmed, 4 suspected or inconclusive.`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.check(cmd, args, &o) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&o.list, "input", "i", "", "read targets from a file, or - for standard input")
	f.StringSliceVar(&o.categories, "categories", nil, "Citizen Lab categories to test, or all (default: all but sensitive ones)")
	f.StringVar(&o.lab, "lab", "", "measure in this emulated internet: a name (see govah lab list) or a file")
	f.StringVar(&o.client, "client", "", "with --lab: whose line to measure from")
	f.StringVar(&o.at, "at", "", "with --lab: the date there, as 2018-01-03 or 2018-01-03T12:00:00Z")
	f.Int64Var(&o.seed, "seed", 0, "fix what is random (default: random; 1 with --lab)")
	f.StringArrayVar(&o.helpers, "helper", nil, "URL of a test helper, may be repeated; none: use no helper")
	f.StringVar(&o.resolver, "resolver", "", "ask this resolver (IP or IP:PORT) as if it were the system's")
	f.StringArrayVar(&o.doh, "doh", nil, "encrypted resolver to compare with, may be repeated")
	f.StringArrayVar(&o.controls, "control", nil, "host that surely works here, instead of the built-in ones; give three")
	f.StringVar(&o.caFile, "ca-file", "", "trust these roots too (PEM), for servers of your own")
	f.StringVar(&o.ctLogs, "ct-logs", "", "verify certificates' timestamps (SCTs) with the logs in this file instead of the built-in list: Chrome's log_list.json, version 3")
	f.StringVar(&o.knownHosts, "known-hosts", "", "for ssh targets: your known_hosts file, or none (default: ~/.ssh/known_hosts)")
	f.BoolVarP(&o.only4, "ipv4", "4", false, "IPv4 only")
	f.BoolVarP(&o.only6, "ipv6", "6", false, "IPv6 only")
	f.StringSliceVar(&o.sets, "set", sets, "what to test: sites (the targets), interception (this line itself)")
	f.BoolVar(&o.locate, "locate", false, "for what is found, say between which two routers it sits")
	f.BoolVar(&o.identify, "identify", false, "for what is found, say what kind of device it is")
	f.BoolVar(&o.banner, "banner", false, "with --identify: connect to the routers beside the device and note what they say of themselves; their owners can see who asks (see govah identify -h). You are asked first")
	f.StringVar(&o.signatures, "signatures", "", "with --identify: signatures of your own (govah identify import)")
	f.StringVar(&o.pace, "pace", "", "gentle or fast (default: gentle; fast with --lab)")
	f.Int64Var(&o.maxBytes, "max-bytes", 0, "start no further target after this many bytes")
	f.DurationVar(&o.deadline, "deadline", 0, "stop after this time, as 10m, and write what there is")
	f.IntVar(&o.triggers, "budget", 0, "trigger a suspected filter at most this often (--locate and --identify have budgets of their own)")
	f.BoolVar(&a.json, "json", false, "print measurements and verdicts as JSON lines")
	f.StringVarP(&o.output, "output", "o", "", "write the measurement file (.jsonl, .jsonl.gz or .jsonl.zst)")
	f.BoolVar(&o.resume, "resume", false, "with -o: go on where an interrupted file ends")
	f.StringVar(&o.html, "report", "", "write the report (one HTML file)")
	f.StringVar(&o.ooni, "ooni", "", "write web measurements in OONI's format")
	f.BoolVar(&o.seal, "seal", false, "make evidence of the run: one file that others can verify (see govah seal -h)")
	f.StringVar(&o.scope, "scope", "", "with --seal: sign with the key of this scope (see govah key -h)")
	f.StringVar(&o.pass.file, "passphrase-file", "", "with --seal: read the key's passphrase from a file (or "+passphraseVariable+"; default: ask)")
	o.to.flags(f, "with --seal or -o: encrypt the evidence and FILE")
	f.StringVar(&o.checkpoint, "checkpoint", "", "with --seal: a file with a log's checkpoint, before which this was not; none: without (default: the last that tlog add verified)")
	f.StringVar(&o.log, "log", "", "with --seal: ask the log at this URL for its newest checkpoint; it sees your address")
	f.BoolVar(&o.exitCode, "exit-code", false, "exit with 3 or 4 as above")
	f.BoolVar(&o.consent, "consent", false, "I know the risks; do not ask")
	return cmd
}

// sets are the names that --set takes.
var sets = []string{"sites", "interception"}

// place is where a run measures: composed from the host or from a lab.
type place struct {
	cfg     check.Config
	targets []measure.Target
	compare func(measure.Verdict) (problem string, known bool)
	labName string
	client  string
	labTime string
	// tap is told every packet at the client's end, nil ends it; nil outside of
	// a lab.
	tap   func(func(sent bool, pkt []byte))
	close func()
}

func (a *app) check(cmd *cobra.Command, args []string, o *checkOptions) error {
	ctx := a.ctx
	if o.only4 && o.only6 {
		return usage("leave both out to test both", "-4 and -6 exclude each other")
	}
	for _, bound := range []struct {
		flag string
		bad  bool
	}{{"budget", o.triggers < 0 || o.triggers == 0 && given(cmd, "budget")}, {"max-bytes", o.maxBytes < 0 || o.maxBytes == 0 && given(cmd, "max-bytes")},
		{"deadline", o.deadline < 0 || o.deadline == 0 && given(cmd, "deadline")}} {
		if bound.bad {
			return usage("leave it out for no bound", "--%s must be more than 0", bound.flag)
		}
	}
	if o.resume && o.output == "" {
		return usage("add -o FILE, the file of the interrupted run", "--resume needs -o")
	}
	if o.resume && o.ooni != "" {
		return usage("leave --ooni out", "--ooni and --resume exclude each other: the file would hold only what was left")
	}
	if len(o.helpers) > 1 && slices.Contains(o.helpers, "none") {
		return usage("give the helpers, or none alone", "--helper none and another --helper exclude each other")
	}
	if err := apart(o); err != nil {
		return err
	}
	if err := o.aboutSealing(); err != nil {
		return err
	}
	if err := a.mayAsk(o); err != nil {
		return err
	}
	for _, name := range o.sets {
		if !slices.Contains(sets, name) {
			return usage("it is one or both of: "+strings.Join(sets, ","), "--set %q is not known", name)
		}
	}
	if len(o.sets) == 0 {
		return usage("it is one or both of: "+strings.Join(sets, ","), "--set names nothing")
	}
	line, sites := slices.Contains(o.sets, "interception"), slices.Contains(o.sets, "sites")
	if !sites && (len(args) > 0 || o.list != "") {
		return usage("add sites to --set, or leave the targets out", "--set interception tests this line and takes no target")
	}
	o.locate = o.locate || o.banner // to know which routers
	lang, err := a.language()
	if err != nil {
		return err
	}
	targets, skipped, err := a.targets(lang, args, o)
	if err != nil {
		return err
	}
	for _, h := range o.helpers {
		if h == "none" {
			continue
		}
		if err := check.ParseHelper(h); err != nil {
			return usage("run `govah helper` to get one", "%v", err)
		}
	}
	var p *place
	if o.lab != "" {
		p, err = a.labPlace(o)
	} else {
		for _, only := range []struct{ flag, value string }{{"--client", o.client}, {"--at", o.at}} {
			if only.value != "" {
				return usage("add --lab SCENARIO", "%s needs --lab", only.flag)
			}
		}
		p, err = a.hostPlace(o)
	}
	if err != nil {
		return err
	}
	defer p.close()
	if len(targets) == 0 && len(p.targets) > 0 && o.list == "" && len(args) == 0 && sites {
		targets = p.targets
	}
	if len(targets) == 0 && sites {
		return usage("give a URL, a host name, -i LIST or --lab SCENARIO", "there is no target to test")
	}
	for _, t := range targets {
		if err := check.MailAllowed(t, p.cfg.Helpers); err != nil {
			return usage("mail programs use 587, as smtp://mail.example:587; run `govah helper --mail smtp://0.0.0.0:25` for a port 25 of your own", "%v", err)
		}
	}
	if o.pace == "" {
		o.pace = string(check.PaceGentle)
		if o.lab != "" {
			o.pace = string(check.PaceFast)
		}
	}
	if p.cfg.Pace, err = check.ParsePace(o.pace); err != nil {
		return usage("gentle is the default", "--pace: %v", err)
	}
	p.cfg.Only4, p.cfg.Only6 = o.only4, o.only6
	p.cfg.MaxBytes, p.cfg.MaxTriggers = o.maxBytes, o.triggers
	if p.cfg.Seed == 0 {
		p.cfg.Seed = mathrand.Uint64()
	}
	p.cfg.Run = newRunID()
	if o.caFile != "" {
		pem, err := os.ReadFile(o.caFile)
		if err != nil {
			return hint(err, "--ca-file takes a file of PEM certificates")
		}
		pool := p.cfg.Trust.Public.Clone()
		if !pool.AppendCertsFromPEM(pem) {
			return hint(fmt.Errorf("%s holds no PEM certificate", o.caFile), "a certificate in PEM begins with -----BEGIN CERTIFICATE-----")
		}
		p.cfg.Trust.Public = pool
	}
	if o.ctLogs != "" {
		data, err := os.ReadFile(o.ctLogs)
		if err != nil {
			return hint(err, "--ct-logs takes Chrome's log_list.json, version 3")
		}
		if p.cfg.Trust.Logs, err = wire.ParseCTLogs(data); err != nil {
			return hint(fmt.Errorf("--ct-logs: %w", err), "it is components/certificate_transparency/data/log_list.json of Chromium's sources")
		}
	}

	p.cfg.Line = line
	plan := check.Plan(p.cfg, targets)
	if o.locate {
		plan.Triggers += mostLocated * locateTriggers
		plan.Bytes += mostLocated * locateBytes
		plan.Duration += locateTime
		if p.cfg.Pace != check.PaceFast { // one after the other
			plan.Duration += (mostLocated - 1) * gentleLocateTime
		}
	}
	if o.identify {
		plan.Triggers += mostLocated * identify.MaxForm
		plan.Bytes += mostLocated * identifyBytes
		plan.Duration += identifyTime
	}
	if o.banner {
		plan.Bytes += bannerBytes
		plan.Duration += bannerTime
	}
	if o.log != "" {
		plan.Contacts = append(plan.Contacts, o.log)
	}
	if o.lab == "" {
		if err := a.askConsent(lang, o, plan, p, len(targets)); err != nil {
			return err
		}
	}
	dir := ""
	if o.lab != "" && o.output == "" && o.html == "" && !a.json && !o.to.given() {
		if dir, err = newFolder("govah-" + p.labName); err != nil {
			return hint(err, "run it in a folder that you can write to, or give -o FILE")
		}
		defer os.Remove(dir) // which fails unless nothing was written
		o.output = filepath.Join(dir, "measurements.jsonl")
		o.html = filepath.Join(dir, "report.html")
	}
	var s *sealing
	if o.seal {
		if s, err = a.beginSealing(o, p, dir); err != nil {
			return err
		}
		defer s.discard()
	}
	err = a.runCheck(ctx, lang, o, p, targets, skipped, plan, dir, s)
	var code exitCode
	if s == nil || err != nil && !errors.As(err, &code) {
		return err
	}
	// Also of an interrupted run there is evidence.
	if serr := a.sealRun(lang, s); serr != nil {
		return serr
	}
	return err
}

// given says whether a flag stands on the command line.
func given(cmd *cobra.Command, flag string) bool { return cmd != nil && cmd.Flags().Changed(flag) }

// apart refuses one file for two outputs: the later would replace the earlier.
func apart(o *checkOptions) error {
	taken := map[string]string{}
	for _, x := range []struct{ flag, path string }{{"-o", o.output}, {"--report", o.html}, {"--ooni", o.ooni}} {
		path, err := filepath.Abs(x.path)
		if x.path == "" || err != nil {
			continue
		}
		if other := taken[path]; other != "" {
			return usage("give each a file of its own", "%s and %s name the same file, %s", other, x.flag, x.path)
		}
		taken[path] = x.flag
	}
	return nil
}

// targets reads the arguments and the list. Bad lines are told and skipped, as
// are targets given twice; a bad argument is a usage error.
func (a *app) targets(lang i18n.Lang, args []string, o *checkOptions) (targets []measure.Target, skipped int, err error) {
	for _, arg := range args {
		t, err := check.ParseTarget(arg)
		if err != nil {
			return nil, 0, usage("for example: govah check example.org", "%v", err)
		}
		targets = append(targets, t)
	}
	var list check.List
	if o.list != "" {
		in, err := a.open(a.ctx, o.list)
		if err != nil {
			return nil, 0, hint(err, "-i takes a file with one target a line, or - for standard input")
		}
		defer in.Close()
		if list, err = check.ParseList(in, o.categories); err != nil {
			return nil, 0, hint(fmt.Errorf("%s: %w", o.list, err), "-i takes one target a line, or Citizen Lab's CSV")
		}
	}
	for i, p := range list.Problems {
		if i == 10 {
			fmt.Fprintf(a.err, "govah: … and %d more lines\n", list.Skipped-i)
			break
		}
		a.note(fmt.Sprintf("govah: %s, %s; skipped", clean(o.list), clean(p.Error())))
	}
	if list.Sensitive > 0 && !a.quiet {
		a.note(fmt.Sprintf("govah: %d targets of sensitive categories (%s) left out; choose with --categories",
			list.Sensitive, strings.Join(check.SensitiveCategories, ", ")))
	}
	if o.list != "" && len(list.Targets) == 0 && len(targets) == 0 {
		return nil, 0, hint(fmt.Errorf("%s holds no target", o.list), "one URL or host name a line, or Citizen Lab's CSV")
	}
	seen, double := map[string]bool{}, list.Double
	targets = slices.DeleteFunc(append(targets, list.Targets...), func(t measure.Target) bool {
		if seen[t.URL] {
			double++
			return true
		}
		seen[t.URL] = true
		return false
	})
	if double > 0 && !a.quiet {
		a.note("govah: " + lang.Text("cli.double", i18n.Num("n", double)))
	}
	return targets, list.Skipped, nil
}

// newFolder makes a folder that did not exist, next to where the person is.
func newFolder(base string) (string, error) {
	for n := 1; n < 10000; n++ {
		name := base
		if n > 1 {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		err := os.Mkdir(name, 0o700)
		if err == nil {
			return name, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("making a folder for the results: %w", err)
		}
	}
	return "", fmt.Errorf("making a folder for the results: %s-2 to %s-9999 exist", base, base)
}
