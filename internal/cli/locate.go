package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"govah/check"
	"govah/internal/i18n"
	"govah/locate"
	"govah/measure"
	"govah/record"
	"govah/report"
	"govah/wire"
)

// locateOptions are the flags of `govah locate`, besides those of check.
type locateOptions struct {
	checkOptions
	payload  string
	test     string // files with first bytes
	harmless string
	address  string
	helper   string
	residual time.Duration
	pcap     bool
}

func (a *app) locateCommand() *cobra.Command {
	var o locateOptions
	cmd := &cobra.Command{
		Use:   "locate TARGET | --pcap CONTROL TEST",
		Short: "Say between which two routers a device sits that blocks a target",
		Long: `Follows the path to TARGET (a URL, a host name, host:port) with packets that
die on the way, then sends what is blocked and something harmless of the same
length with a growing TTL until the two fare differently: there is the device.
It needs no rights. Every packet goes to the server; none is addressed to a
router. The device is made to react once where the path is clean, and never
more often than --budget says.

  govah locate https://example.org              what reacts to the TLS name
  govah locate --payload dns example.org        what answers the question
  govah locate smtp://mail.example.org          what holds back, answers or
                                                alters STARTTLS, or ends
                                                connections; no login, no mail
  govah locate --payload resolver example.org   who answers all questions: the
                                                resolver asked, or something
                                                on the way to it
  govah locate --lab iran-2017 https://telegram.org
                                                in an emulated internet
  govah locate --helper URL https://example.org on the way to your own helper,
                                                which tells what arrives
  govah locate --helper URL smtp://HELPER       and back from its mail server:
                                                what alters its words, if it
                                                may capture packets
  govah locate --pcap CONTROL.pcap TEST.pcap    from two saved traceroutes,
                                                CenTrace's for example

What is found: the two routers, how sure that is, their networks and
countries, whether the device stands in the path or beside it if that can be
known, and what stays blocked for a while after a trigger.

With the right to capture packets (root, CAP_NET_RAW) and -o FILE, the packets
of the search, and nobody else's, are written as locate.pcapng beside FILE.
They hold your own address and those of the routers next to you.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.pcap && len(args) != 2:
				return usage("for example: govah locate --pcap control.pcap test.pcap", "--pcap takes two captures: the harmless traceroute, then the blocked one")
			case o.pcap:
				return a.locateCaptures(cmd, args[0], args[1], &o)
			case len(args) != 1:
				return usage("for example: govah locate https://example.org", "locate takes one target")
			}
			return a.locateTarget(cmd, args[0], &o)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.payload, "payload", "", "what carries the trigger: tls, http, dns, quic, tcp or mail; connect: only ask who ends connections, resolver: who answers questions (default: by the URL)")
	f.StringVar(&o.test, "first-bytes", "", "send the bytes of this file first, as the trigger; needs --control-bytes")
	f.StringVar(&o.harmless, "control-bytes", "", "with --first-bytes: harmless bytes of the same length")
	f.StringVar(&o.address, "address", "", "follow the path to this address instead of the name's")
	f.StringVar(&o.helper, "helper", "", "follow the path to this test helper, and ask it what arrives (with --lab: lab for its own)")
	f.BoolVar(&o.pcap, "pcap", false, "take two saved captures instead of measuring; sends nothing")
	f.StringVar(&o.lab, "lab", "", "measure in this emulated internet: a name (see govah lab list) or a file")
	f.StringVar(&o.client, "client", "", "with --lab: whose line to measure from")
	f.StringVar(&o.at, "at", "", "with --lab: the date there, as 2018-01-03 or 2018-01-03T12:00:00Z")
	f.Int64Var(&o.seed, "seed", 0, "fix what is random (default: random; 1 with --lab)")
	f.StringArrayVar(&o.controls, "control", nil, "host that surely works here, instead of the built-in ones")
	f.StringArrayVar(&o.doh, "doh", nil, "encrypted resolver to ask for the address, may be repeated")
	f.StringVar(&o.resolver, "resolver", "", "with --payload dns or resolver: the resolver to send questions to (IP or IP:PORT)")
	f.BoolVarP(&o.only4, "ipv4", "4", false, "IPv4 only")
	f.BoolVarP(&o.only6, "ipv6", "6", false, "IPv6 only")
	f.IntVar(&o.triggers, "budget", locate.DefaultTriggers, "trigger the device at most this often (default: and four times more if it copies TTLs, two with --helper)")
	f.DurationVar(&o.residual, "residual", 0, "find out how long something stays blocked after a trigger, waiting at most so long, as 5m")
	f.DurationVar(&o.deadline, "deadline", 0, "stop after this time, as 2m, and say what is known by then")
	f.BoolVar(&a.json, "json", false, "print the measurement and the location as JSON lines")
	f.StringVarP(&o.output, "output", "o", "", "write the measurement file (.jsonl, .jsonl.gz or .jsonl.zst)")
	f.StringVar(&o.html, "report", "", "write the report (one HTML file)")
	f.BoolVar(&o.consent, "consent", false, "I know the risks; do not ask")
	return cmd
}

// spokenTo says whether a target is a mail server that clients speak to in the
// clear before TLS. Port 25 is spoken to at one's own helper alone, where
// nothing is located by commands.
func spokenTo(t measure.Target) bool {
	_, implicit, ok := wire.MailScheme(t.Scheme)
	return ok && !implicit && t.Port != 25
}

// payloadOf is what carries the trigger of a target by default.
func payloadOf(t measure.Target, given string) (locate.Payload, error) {
	if given != "" {
		if p := locate.Payload(given); p != locate.Raw && slices.Contains(locate.Payloads, p) {
			if p == locate.Mail && !spokenTo(t) {
				return "", usage("for example: govah locate smtp://mail.example.org", "--payload mail needs a target smtp://, imap:// or pop3://, and not port 25")
			}
			return p, nil
		}
		return "", usage("it is tls, http, dns, quic, tcp, mail, connect or resolver", "--payload %q is not known", given)
	}
	if spokenTo(t) {
		return locate.Mail, nil
	}
	if wire.MailPorts[t.Scheme] != 0 || t.Scheme == "ssh" {
		return locate.Connect, nil // the server does not wait for the client there
	}
	switch _, err := netip.ParseAddr(t.Host); {
	case err == nil:
		return locate.TCP, nil
	case t.Scheme == "http":
		return locate.HTTP, nil
	}
	return locate.TLS, nil
}

// What a search takes at most: some 60 probes of at most 1 kB, at
// check.GentleRate where that is the pace; and how many are made for one run of
// check.
const (
	locateBytes      = 60_000
	backBytes        = 120_000 // a dozen exchanges with the helper
	locateTime       = 20 * time.Second
	gentleLocateTime = 15 * time.Second
	locateTriggers   = locate.DefaultTriggers + locate.DefaultCopyTriggers
	mostLocated      = 8
)

// maxFirstBytes is what fits into one segment.
const maxFirstBytes = 1200

// firstBytes reads the two files of first bytes.
func firstBytes(test, control string) (a, b []byte, err error) {
	read := func(path string) []byte {
		if err != nil {
			return nil
		}
		var f *os.File
		if f, err = os.Open(path); err != nil {
			err = hint(err, "--first-bytes and --control-bytes each take a file")
			return nil
		}
		defer f.Close()
		var data []byte
		if data, err = io.ReadAll(io.LimitReader(f, maxFirstBytes+1)); err == nil && (len(data) == 0 || len(data) > maxFirstBytes) {
			err = usage("a device looks at the first bytes of a connection", "%s must hold 1 to %d bytes", path, maxFirstBytes)
		}
		return data
	}
	a, b = read(test), read(control)
	if err == nil && len(a) != len(b) {
		err = usage("make them equal, so that length is not what is reacted to", "%s has %d bytes and %s %d", test, len(a), control, len(b))
	}
	return a, b, err
}

func (a *app) locateTarget(cmd *cobra.Command, arg string, o *locateOptions) (err error) {
	lang, err := a.language()
	if err != nil {
		return err
	}
	if o.only4 && o.only6 {
		return usage("leave both out to use what works", "-4 and -6 exclude each other")
	}
	if o.residual < 0 || o.residual > time.Hour {
		return usage("for example --residual 5m", "--residual must be at most 1h")
	}
	if o.triggers < 1 || o.triggers > 100 {
		return usage(fmt.Sprintf("the default is %d", locate.DefaultTriggers), "--budget must be 1 to 100")
	}
	target, err := check.ParseTarget(arg)
	if err != nil {
		return usage("for example: govah locate https://example.org", "%v", err)
	}
	payload, err := payloadOf(target, o.payload)
	if err != nil {
		return err
	}
	var first, harmless []byte
	if o.test != "" || o.harmless != "" {
		if o.payload != "" {
			return usage("leave --payload out", "--payload does not go with --first-bytes")
		}
		payload = locate.Raw
		if first, harmless, err = firstBytes(o.test, o.harmless); err != nil {
			return err
		}
	}
	if err := o.checkHelper(target, payload); err != nil {
		return err
	}
	var p *place
	if o.lab != "" {
		p, err = a.labPlace(&o.checkOptions)
	} else {
		for _, only := range []struct{ flag, value string }{{"--client", o.client}, {"--at", o.at}} {
			if only.value != "" {
				return usage("add --lab SCENARIO", "%s needs --lab", only.flag)
			}
		}
		p, err = a.hostPlace(&o.checkOptions)
	}
	if err != nil {
		return err
	}
	defer p.close()
	p.cfg.Only4, p.cfg.Only6, p.cfg.Pace = o.only4, o.only6, check.PaceGentle
	p.cfg.Run = newRunID()
	if p.cfg.Seed == 0 {
		p.cfg.Seed = mathrand.Uint64()
	}
	s := &search{cfg: &p.cfg, run: p.cfg.Run}
	if o.lab == "" {
		plan := check.Estimate{Bytes: locateBytes, Duration: locateTime, Triggers: o.triggers, Contacts: []string{target.Host}}
		if !given(cmd, "budget") {
			plan.Triggers = locateTriggers
		}
		if o.helper != "" {
			plan.Contacts = nil // the target itself is not among them
			if !given(cmd, "budget") {
				plan.Triggers += locate.DefaultFarTriggers
			}
		}
		if o.helper != "" && payload == locate.Mail {
			plan.Bytes, plan.Duration = plan.Bytes+backBytes, plan.Duration+locateTime
		}
		if payload == locate.DNS || payload == locate.Resolver {
			for _, r := range s.resolvers(o.resolver != "") {
				plan.Contacts = append(plan.Contacts, r.String())
			}
		}
		for _, d := range p.cfg.Controls.DoH {
			plan.Contacts = append(plan.Contacts, d.URL)
		}
		if err := a.askConsent(lang, &o.checkOptions, plan, p, 1); err != nil {
			return err
		}
	}
	ctx := a.ctx
	if o.deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.deadline)
		defer cancel()
	}
	k, err := a.keepLocated(&o.checkOptions)
	if err != nil {
		return err
	}
	defer k.close(&err)
	s.packets = keepPackets(o.output)
	defer s.packets.discard()
	run := &measure.Run{Type: "run", Schema: 1, Run: p.cfg.Run, Tool: "govah", Version: Version(), Started: p.cfg.Trust.Now().UTC().Format(time.RFC3339),
		Lab: p.labName, Client: p.client, LabTime: p.labTime, Seed: int64(p.cfg.Seed), Targets: 1, Settings: "locate " + string(payload), Helpers: p.cfg.Helpers}
	log := s.log("m1")
	var spec locate.Spec
	var back *locate.BackSpec
	switch {
	case o.helper == "":
		spec, err = s.spec(ctx, log, target, payload, o)
	case payload == locate.Mail:
		if spec, err = s.atGreeter(ctx, log, target); err == nil {
			back = s.backFrom(s.cfg.Helpers[0], target.Scheme, spec.Remote)
		}
	default:
		spec, err = s.atHelper(ctx, log, target, payload)
	}
	if err != nil {
		return err
	}
	spec.RawTest, spec.RawControl = first, harmless
	spec.Triggers, spec.Residual = o.triggers, o.residual
	if given(cmd, "budget") {
		spec.CopyTriggers, spec.FarTriggers = -1, -1
	}
	m, list, err := s.find(ctx, log, "m1", target.URL, spec, back)
	if err != nil {
		return hint(err, "see `govah locate -h`")
	}
	end := &measure.End{Type: "end", Schema: 1, Run: run.Run, Ended: p.cfg.Trust.Now().UTC().Format(time.RFC3339), Measurements: 1,
		BytesSent: m.BytesSent, BytesReceived: m.BytesReceived, Interrupted: ctx.Err() != nil}
	packets, perr := s.packets.close()
	if err := a.tellLocated(lang, o, k, run, m, list, end, packets); err != nil {
		return err
	}
	if perr != nil {
		return perr
	}
	if a.ctx.Err() != nil {
		return exitCode(exitInterrupted)
	}
	return nil
}

// tellLocated keeps and prints what a search found. packets is the file of
// what was captured, "" if none.
func (a *app) tellLocated(lang i18n.Lang, o *locateOptions, k *keptLocated, run *measure.Run, m *measure.Measurement, list []measure.Location, end *measure.End, packets string) error {
	if k.out != nil {
		err := k.out.Run(run)
		if err == nil {
			err = writeLocated(k.out, m, list)
		}
		if err == nil {
			err = k.out.End(end)
		}
		if err == nil {
			err = k.out.Flush()
		}
		if err != nil {
			return hint(err, "is the disk full?")
		}
	}
	if o.html != "" {
		if _, err := a.writeHTMLFromFile(context.WithoutCancel(a.ctx), o.html, k.path, lang); err != nil {
			return err
		}
	}
	if a.json {
		for _, v := range []any{run, m} {
			if err := a.line(v); err != nil {
				return err
			}
		}
		if err := a.showLocated(nil, list); err != nil {
			return err
		}
		a.tellPackets(lang, packets)
		return a.line(end)
	}
	text := report.NewText(a.out, report.Options{Lang: lang, Colour: a.colour(), Verbose: a.verbose, Quiet: a.quiet})
	if err := text.Begin(run); err != nil {
		return err
	}
	if err := text.Measured(m); err != nil {
		return err
	}
	if err := a.showLocated(text, list); err != nil {
		return err
	}
	var files []report.File
	if o.output != "" {
		files = append(files, report.File{Kind: "measurements", Path: o.output})
	}
	if packets != "" {
		files = append(files, report.File{Kind: "packets", Path: packets})
	}
	if o.html != "" {
		files = append(files, report.File{Kind: "report", Path: o.html})
	}
	return text.End(report.Summary{ElapsedMS: m.ElapsedMS, BytesSent: m.BytesSent, BytesReceived: m.BytesReceived, Files: files, Interrupted: end.Interrupted})
}

// newRunID is the id of a run.
func newRunID() string {
	var id [5]byte
	rand.Read(id[:])
	return "r" + hex.EncodeToString(id[:])
}

// showLocated prints locations, as JSON or into a text.
func (a *app) showLocated(text *report.Text, list []measure.Location) error {
	for i := range list {
		show := func() error { return text.AddLocation(&list[i]) }
		if a.json {
			show = func() error { return a.line(&list[i]) }
		}
		if err := show(); err != nil {
			return err
		}
	}
	return nil
}

// keptLocated is the file of -o, or a scratch one for the report, or none.
type keptLocated struct {
	out     *record.Writer
	path    string
	scratch string // a folder to remove
}

// keepLocated finds out before anything is measured whether it can be kept.
func (a *app) keepLocated(o *checkOptions) (*keptLocated, error) {
	if err := apart(o); err != nil {
		return nil, err
	}
	k := &keptLocated{path: o.output}
	if o.html != "" {
		if _, err := os.Stat(o.html); err == nil {
			return nil, hint(fmt.Errorf("%s exists already and is not overwritten", o.html), "choose another file with --report")
		}
		var err error
		if k.scratch, err = os.MkdirTemp(filepath.Dir(o.html), ".govah-*"); err != nil {
			return nil, hint(fmt.Errorf("writing the report: %w", err), "choose a folder that you can write to")
		}
		if k.path == "" {
			k.path = filepath.Join(k.scratch, "measurements.jsonl")
		}
	}
	if k.path != "" {
		var err error
		if k.out, err = record.Create(k.path); err != nil {
			os.RemoveAll(k.scratch)
			return nil, hint(err, "choose another file")
		}
	}
	return k, nil
}

// close ends the file; a failure is the command's, if it has no other.
func (k *keptLocated) close(err *error) {
	if k.out != nil {
		if cerr := k.out.Close(); cerr != nil && *err == nil {
			*err = hint(cerr, "the lines before it are whole and can be judged")
		}
	}
	if k.scratch != "" {
		os.RemoveAll(k.scratch)
	}
}

func writeLocated(out *record.Writer, m *measure.Measurement, list []measure.Location) error {
	if err := out.Measurement(m); err != nil {
		return err
	}
	for i := range list {
		if err := out.Location(&list[i]); err != nil {
			return err
		}
	}
	return nil
}

// search locates on the network of a run.
type search struct {
	cfg     *check.Config
	run     string
	packets *keptPackets // nil: they are not kept
}

// log is that of a measurement.
func (s *search) log(id string) *wire.Log {
	l := wire.NewLog(time.Now(), func(addr string) int {
		a, err := netip.ParseAddr(addr)
		if err != nil {
			return 0
		}
		return s.asn(a)
	})
	l.Label = wire.LabelOf(id)
	return l
}

// asn is the network of an address, 0 unknown.
func (s *search) asn(a netip.Addr) int {
	if s.cfg.ASN == nil {
		return 0
	}
	asn, _ := s.cfg.ASN(a)
	return asn
}

func (s *search) country(a netip.Addr) string {
	if s.cfg.ASN == nil {
		return ""
	}
	_, c := s.cfg.ASN(a)
	return c
}

// find runs one search. The log may hold how the address was found.
func (s *search) find(ctx context.Context, log *wire.Log, id, target string, spec locate.Spec, back *locate.BackSpec) (*measure.Measurement, []measure.Location, error) {
	if s.packets != nil {
		spec.Captured = func(list []wire.Packet) { s.packets.add(id, list) }
	}
	err := locate.Run(ctx, s.cfg.Network, log, spec)
	if err == nil {
		err = s.back(ctx, log, back, spec)
	}
	if err != nil {
		return nil, nil, err
	}
	m := s.measurement(log, id, target, ctx.Err() == nil)
	return m, locate.Infer(m, s.country), nil
}

// measurement is what a search saw.
func (s *search) measurement(log *wire.Log, id, target string, complete bool) *measure.Measurement {
	m := &measure.Measurement{Type: "measurement", Schema: 1, Run: s.run, ID: id, Target: target,
		Started: s.cfg.Trust.Now().Add(-time.Since(log.Started())).UTC().Format("2006-01-02T15:04:05.000000Z07:00"),
		Vantage: measure.Vantage{ASN: s.cfg.Surroundings.ASN, Country: s.cfg.Surroundings.Country, ASNSource: s.cfg.Surroundings.Source,
			Link: s.cfg.Surroundings.Link, Tunnel: s.cfg.Surroundings.Tunnel, Proxy: s.cfg.Surroundings.Proxy, Geo: s.cfg.Geo},
		View: s.cfg.Network.View(), Screened: 1, Observations: log.Observations(), Complete: complete, ElapsedMS: time.Since(log.Started()).Milliseconds()}
	m.BytesSent, m.BytesReceived = log.Bytes()
	return m
}

// spec is what to look for on behalf of a person: the address is asked for at
// an encrypted resolver, so that a lying one has no part in it.
func (s *search) spec(ctx context.Context, log *wire.Log, t measure.Target, payload locate.Payload, o *locateOptions) (locate.Spec, error) {
	var addrs []netip.Addr
	switch {
	case (payload == locate.DNS || payload == locate.Resolver) && o.address == "":
		to, ok := s.resolver(o.resolver != "", "")
		if !ok {
			return locate.Spec{}, hint(errors.New("no resolver to send questions to is known"), "give one with --resolver")
		}
		return s.towards(to, t, payload), nil
	case o.address != "":
		a, err := netip.ParseAddr(o.address)
		if err != nil {
			return locate.Spec{}, usage("for example --address 192.0.2.7", "--address %q is no address", o.address)
		}
		addrs = []netip.Addr{a.Unmap()}
	default:
		addrs = check.Resolve(ctx, *s.cfg, log, t.Host)
	}
	addr, ok := s.pick(addrs)
	if !ok {
		return locate.Spec{}, hint(fmt.Errorf("no address of %s was found", clean(t.Host)), "give one with --address")
	}
	return s.towards(netip.AddrPortFrom(addr, 0), t, payload), nil
}

// resolvers are where questions are sent to: the one given, or public ones and
// addresses at which nobody answers, whose paths are as good.
func (s *search) resolvers(given bool) []netip.AddrPort {
	if given {
		return s.cfg.Surroundings.Resolvers[:1]
	}
	list := slices.Clone(s.cfg.Controls.Resolvers)
	for _, a := range s.cfg.Controls.Nowhere {
		list = append(list, netip.AddrPortFrom(a, 53))
	}
	return list
}

// resolver is the first of them of a family that works here, and of that one
// if one is given: what is done to questions over the other is another matter.
func (s *search) resolver(given bool, of measure.Family) (netip.AddrPort, bool) {
	var (
		list  []netip.AddrPort
		addrs []netip.Addr
	)
	for _, r := range s.resolvers(given) {
		if of == "" || wire.FamilyOf(r.Addr()) == of {
			list, addrs = append(list, r), append(addrs, r.Addr())
		}
	}
	a, ok := s.pick(addrs)
	if !ok {
		return netip.AddrPort{}, false
	}
	return list[slices.Index(addrs, a)], true
}

// pick takes the first address of a family that works here, IPv4 first.
func (s *search) pick(addrs []netip.Addr) (netip.Addr, bool) {
	view := s.cfg.Network.View()
	for _, v4 := range []bool{true, false} {
		for _, a := range addrs {
			if a.Is4() == v4 && (v4 && view.IPv4 && !s.cfg.Only6 || !v4 && view.IPv6 && !s.cfg.Only4) {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

// towards is the search for what reacts to a target at an address; port 0 is
// the one that belongs to the target and what carries it.
func (s *search) towards(at netip.AddrPort, t measure.Target, payload locate.Payload) locate.Spec {
	addr := at.Addr()
	spec := locate.Spec{Payload: payload, Name: t.Host, Path: "/", Seed: s.cfg.Seed}
	port := uint16(443)
	switch payload {
	case locate.HTTP:
		port, spec.OtherPort = 80, 443
		if u, err := url.Parse(t.URL); err == nil && t.Scheme == "http" {
			spec.Path = u.RequestURI()
		}
	case locate.DNS, locate.Resolver:
		port, spec.OtherPort = 53, 443
	case locate.Connect, locate.Mail:
		spec.OtherPort = 443
	default:
		spec.OtherPort = 80
	}
	if t.Port != 0 && payload != locate.DNS && payload != locate.Resolver && (payload == locate.HTTP) == (t.Scheme == "http") {
		port = uint16(t.Port)
	}
	if at.Port() != 0 {
		port = at.Port()
	}
	spec.Remote = netip.AddrPortFrom(addr, port)
	if spec.OtherPort == port {
		spec.OtherPort = 80
	}
	rng := mathrand.New(mathrand.NewPCG(s.cfg.Seed, 0x636f6e74726f6c))
	if payload == locate.TCP {
		// A neighbour in the same network meets the same routers.
		b := addr.AsSlice()
		b[len(b)-1] ^= 1
		next, _ := netip.AddrFromSlice(b)
		spec.Controls = []locate.Control{{Kind: measure.ControlRandom, At: netip.AddrPortFrom(next, port)}}
		for _, c := range s.cfg.Controls.Canaries {
			for _, a := range c.Addrs {
				if a.Is4() == addr.Is4() {
					spec.Controls = append(spec.Controls, locate.Control{Kind: measure.ControlCanary, Name: c.Name, At: netip.AddrPortFrom(a, 443)})
					break
				}
			}
		}
		return spec
	}
	if payload == locate.Connect {
		return spec
	}
	if payload == locate.Mail {
		spec.Protocol = t.Scheme
	}
	if payload == locate.Raw || payload == locate.Mail {
		spec.Controls = []locate.Control{{Kind: measure.ControlKnown}}
		return spec
	}
	spec.Controls = append(spec.Controls, locate.Control{Kind: measure.ControlRandom, Name: check.RandomName(rng, t.Host)})
	for _, c := range s.cfg.Controls.Canaries {
		spec.Controls = append(spec.Controls, locate.Control{Kind: measure.ControlKnown, Name: c.Name})
		if !spec.Elsewhere.IsValid() {
			if a, ok := s.pick(c.Addrs); ok {
				spec.Elsewhere = netip.AddrPortFrom(a, 443)
			}
			break
		}
	}
	if payload == locate.Resolver {
		// A name that surely has an address: the answer's content is of no
		// interest, that one comes is.
		slices.Reverse(spec.Controls)
	}
	if payload == locate.TLS {
		spec.Controls = append(spec.Controls, locate.Control{Kind: measure.ControlNone})
	}
	return spec
}

// found is one finding that can be located, for all targets that share it.
type found struct {
	target  measure.Target
	addr    netip.Addr
	payload locate.Payload
	method  measure.Method
	family  measure.Family
	trigger string               // its kind
	seen    *measure.Observation // the test's plain answer, or its failure
	// sensitive says that the target is of a category that it is risky to be
	// seen with.
	sensitive bool
	// line says that it is about the line and not about the target.
	line bool
	// greeter is where it was proven that words are altered, helper its host.
	greeter netip.AddrPort
	helper  string
}

// locatable collects findings as results come: one for each method and
// family, since what one device does to many names is located once, with the
// name that is least sensitive.
type locatable struct {
	mu     sync.Mutex
	list   map[string]*found
	order  []string
	places map[string][]measure.Location // what was found, by the keys of list
}

// located is what was found for all, and the target of the first of it.
func (l *locatable) located() (places []measure.Location, target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range l.order {
		places = append(places, l.places[key]...)
	}
	if len(places) > 0 {
		target = places[0].Target
	}
	return places, target
}

func (l *locatable) add(r check.Result) {
	if r.Verdict.Target == measure.LineTarget {
		l.addLine(r)
		return
	}
	target, err := check.ParseTarget(r.Verdict.Target)
	if err != nil {
		return
	}
	byID := map[string]*measure.Observation{}
	for i := range r.Measurement.Observations {
		byID[r.Measurement.Observations[i].ID] = &r.Measurement.Observations[i]
	}
	for _, f := range r.Verdict.Findings {
		payload, ok := carrier(f)
		if payload == locate.Connect && spokenTo(target) {
			payload = locate.Mail
		}
		if f.Interference != measure.InterferenceConfirmed || !ok {
			continue
		}
		var (
			addr netip.Addr
			seen *measure.Observation
		)
		for _, id := range f.Because {
			o := byID[id]
			if o == nil || o.Role != measure.RoleTest {
				continue
			}
			if seen == nil && o.Step == measure.StepHTTP && o.HTTP != nil {
				seen = o
			}
			if ap, err := netip.ParseAddrPort(o.Remote); err == nil && !addr.IsValid() {
				addr = ap.Addr().Unmap()
			}
		}
		if !addr.IsValid() && payload != locate.DNS && payload != locate.Resolver {
			continue
		}
		t := target
		if f.Trigger.Value != "" && (f.Trigger.Kind == "sni" || f.Trigger.Kind == "host" || f.Trigger.Kind == "qname") {
			t.Host = f.Trigger.Value
		}
		key := string(f.Method) + " " + string(f.Family)
		one := &found{target: t, addr: addr, payload: payload, method: f.Method, family: f.Family, trigger: f.Trigger.Kind, seen: seen, sensitive: slices.Contains(check.SensitiveCategories, r.Measurement.Category)}
		one.greeter, one.helper = greeterOf(f, byID)
		l.put(key, one)
	}
}

// addLine collects what answers questions in the resolvers' place, or strips
// its answers, to be followed towards the resolver that was asked; and what
// ends plain HTTP or all connections to a port on the line, towards a server: it
// does so for every name.
func (l *locatable) addLine(r check.Result) {
	for _, f := range r.Verdict.Findings {
		if payload, ok := carrier(f); ok && payload == locate.Resolver && f.Interference == measure.InterferenceConfirmed {
			one := &found{target: measure.Target{URL: measure.LineTarget, Scheme: "line"}, payload: payload, method: f.Method, family: f.Family, trigger: f.Trigger.Kind, line: true}
			for _, o := range r.Measurement.Observations {
				ap, err := netip.ParseAddrPort(o.Remote)
				if o.DNS != nil && o.Role == measure.RoleTest && o.Family == f.Family && err == nil && slices.Contains(f.Because, o.ID) {
					one.addr = ap.Addr().Unmap()
					break
				}
			}
			l.put(string(f.Method)+" "+string(f.Family), one)
			continue
		}
		if f.Method != measure.HTTPProxy && f.Method != measure.TCPProxy || f.Interference != measure.InterferenceConfirmed {
			continue
		}
		one := &found{target: measure.Target{URL: measure.LineTarget, Scheme: "line"}, payload: locate.Connect, method: f.Method, family: f.Family, trigger: f.Trigger.Kind, line: true}
		for i := range r.Measurement.Observations {
			o := &r.Measurement.Observations[i]
			ap, err := netip.ParseAddrPort(o.Remote)
			if err != nil || o.Role == measure.RoleHelper || o.Family != f.Family || (ap.Port() == 80) != (f.Method == measure.HTTPProxy) {
				continue
			}
			t, err := check.ParseTarget(o.URL)
			switch {
			case o.Experiment == measure.ExpEcho && o.Step == measure.StepHTTP && o.Role == measure.RoleTest && err == nil: // a helper, where there is one
				one.target, one.payload, one.addr = t, locate.HTTP, ap.Addr().Unmap()
			case o.Experiment == measure.ExpNearConnect && !one.addr.IsValid():
				one.target.Port, one.addr = int(ap.Port()), ap.Addr().Unmap()
			}
		}
		if one.addr.IsValid() {
			l.put(string(f.Method)+" "+string(f.Family), one)
		}
	}
}

// put keeps one for each key, whichever came first: a target's before the
// line's, and the least sensitive.
func (l *locatable) put(key string, one *found) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch had := l.list[key]; {
	case had != nil && (had.line && !one.line || had.line == one.line && had.sensitive && !one.sensitive):
		l.list[key] = one
	case had == nil && len(l.order) < mostLocated:
		if l.list == nil {
			l.list = map[string]*found{}
		}
		l.list[key] = one
		l.order = append(l.order, key)
	}
}

// carrier is what carries the trigger of a finding.
func carrier(f measure.Finding) (locate.Payload, bool) {
	switch f.Method {
	case measure.TLSReset, measure.TLSDrop, measure.TLSAlert, measure.TLSInterception:
		return locate.TLS, true
	case measure.HTTPReset, measure.HTTPDrop, measure.HTTPBlockPage, measure.HTTPRedirect, measure.HTTPProxy, measure.HTTPTamper:
		return locate.HTTP, true
	case measure.DNSInjection, measure.DNSDrop:
		return locate.DNS, true
	case measure.DNSInterception, measure.DNSSECStrip, measure.ECHStrip:
		return locate.Resolver, true
	case measure.QUICDrop:
		return locate.QUIC, true
	case measure.StartTLSStrip, measure.MailInterception, measure.SSHInterception:
		return locate.Connect, true
	case measure.IPDrop, measure.IPReset, measure.IPUnreachable:
		return locate.TCP, true
	}
	return "", false
}

// locator looks for the devices behind a run's findings, side by side.
type locator struct {
	s     *search
	found *locatable
	// took is given what each search found, one at a time.
	took func(*measure.Measurement, []measure.Location) error

	// connection and question wait for a turn, for all searches together; nil
	// in haste.
	connection, question func(context.Context) error

	running sync.WaitGroup
	atOnce  chan struct{}
	begun   map[string]bool // guarded by found.mu
	mu      sync.Mutex
	first   error
}

func newLocator(s *search, l *locatable, took func(*measure.Measurement, []measure.Location) error) *locator {
	atOnce := 4
	if s.cfg.Pace != check.PaceFast {
		atOnce = 1
	}
	o := &locator{s: s, found: l, took: took, atOnce: make(chan struct{}, atOnce), begun: map[string]bool{}}
	o.connection, o.question = s.cfg.Pace.Turns()
	return o
}

// early looks for those that take a whole protocol, whatever the name, while
// other targets are still measured: nothing that is sent to them lingers for
// another name. It is for runs in haste; a gentle one does one thing at a time.
func (o *locator) early(ctx context.Context) {
	o.begin(ctx, func(f *found) bool {
		return f.method != measure.TCPProxy && (f.trigger == "port" || f.trigger == "tls") && !f.sensitive // a less sensitive name may come
	})
}

// rest looks for all others, and waits.
func (o *locator) rest(ctx context.Context) error {
	o.begin(ctx, func(f *found) bool {
		// Whose certificates are known is looked for already.
		return f.method != measure.TCPProxy || o.found.list[string(measure.TLSInterception)+" "+string(f.family)] == nil
	})
	o.running.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.first
}

func (o *locator) begin(ctx context.Context, which func(*found) bool) {
	o.found.mu.Lock()
	defer o.found.mu.Unlock()
	for i, key := range o.found.order {
		f := o.found.list[key]
		if o.begun[key] || !which(f) {
			continue
		}
		o.begun[key] = true
		o.running.Go(func() {
			o.atOnce <- struct{}{}
			defer func() { <-o.atOnce }()
			if ctx.Err() != nil {
				return
			}
			if err := o.locate(ctx, i, key, f); err != nil {
				o.mu.Lock()
				defer o.mu.Unlock()
				if o.first == nil {
					o.first = err
				}
			}
		})
	}
}

// locate looks for the device of one finding, the i-th. Another may have taken
// its place under its key by the time it is located.
func (o *locator) locate(ctx context.Context, i int, key string, f *found) error {
	id := fmt.Sprintf("l%d", i+1)
	at := netip.AddrPortFrom(f.addr, 0)
	switch {
	case f.method == measure.DNSSECStrip || f.method == measure.ECHStrip:
		at = netip.AddrPortFrom(f.addr, 53) // the one that strips
	case f.payload == locate.DNS || f.payload == locate.Resolver:
		var ok bool
		if at, ok = o.s.resolver(false, f.family); !ok {
			return nil
		}
	}
	spec := o.s.towards(at, f.target, f.payload)
	spec.Seed += uint64(i)
	spec.Pace, spec.PaceAsk = o.connection, o.question
	back := o.s.backOf(f)
	if back != nil {
		back.Pace = o.connection
	}
	m, list, err := o.s.find(ctx, o.s.log(id), id, f.target.URL, spec, back)
	if err != nil {
		return err
	}
	o.found.mu.Lock()
	if o.found.places == nil {
		o.found.places = map[string][]measure.Location{}
	}
	o.found.places[key] = list
	o.found.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.took(m, list)
}
