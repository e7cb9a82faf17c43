package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"govah/check"
	"govah/identify"
	"govah/internal/i18n"
	"govah/known"
	"govah/locate"
	"govah/measure"
	"govah/record"
	"govah/report"
	"govah/wire"
)

func (a *app) identifyCommand() *cobra.Command {
	cmd := a.checkCommand()
	cmd.Use = "identify TARGET..."
	cmd.Short = "Say what kind of device is behind what is found"
	cmd.Long = `Checks each TARGET as govah check does. For what is found, the name is then
written in up to twelve forms (in capitals, split over two packets, over two
TLS records, ...), each beside a random name in the same form. What reacts to
which form says how the device reads; what it sends says how it writes.

  govah identify example.org
  govah identify --lab iran-2017

The answer is a product, if a signature of it names one; documented behaviour
that this is like; or "unknown product" with the id of its behaviour, by which
two people can compare what they saw. A behaviour alone names no company.
What answers in the place of a site, a resolver or a server reacts to no name:
it is told by who signs its certificates, its headers and what it calls itself.
With the right to capture packets (root, CAP_NET_RAW) it also describes those
that the device makes itself; the id does not depend on that.

` + "`govah check --identify`" + ` is the same. All that is sent is well-formed, but
for three forms that go to a --helper alone, and
without --banner nothing is addressed to the device itself or to a router.

With --banner the device is located too, and then the routers that the path
showed beside it (at most 4) are asked what they say of themselves: one ordinary
connection each to ports 22, 23, 21, 80, 443, 8080 and 8443, which reads a
greeting or the page at /, and neither logs in nor tries again. The risk: these
are other people's devices, their owners can see your address and that you
asked, and in some places asking alone draws attention. govah says which
addresses they are and asks for your consent in each run. What a router says is
about that router; it does not show that it is the device.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted; with --exit-code
also 3 interference confirmed, 4 suspected or inconclusive.`
	cmd.AddCommand(a.importCommand())
	cmd.Flags().Lookup("identify").Hidden = true
	if err := cmd.Flags().Set("identify", "true"); err != nil {
		panic(err) // the flag is ours
	}
	return cmd
}

// table is what devices are compared with: --signatures FILE adds products.
func (a *app) identifyTable(file string) (*identify.Table, error) {
	if file == "" {
		return identify.Documented(nil), nil
	}
	in, err := a.open(a.ctx, file)
	if err != nil {
		return nil, hint(err, "--signatures takes a file of `govah identify import`")
	}
	defer in.Close()
	list, err := known.ReadList(in)
	if err != nil {
		return nil, hint(fmt.Errorf("%s: %w", clean(file), err), "--signatures takes a file of `govah identify import`")
	}
	own, err := known.Shipped().With(list)
	if err != nil {
		return nil, hint(fmt.Errorf("%s: %w", clean(file), err), "import fewer lists")
	}
	return identify.Documented(own), nil
}

func (a *app) importCommand() *cobra.Command {
	var output, kind string
	cmd := &cobra.Command{
		Use:   "import -o FILE LIST...",
		Short: "Bring published lists of signatures into the form that is read",
		Long: `Reads your own copies of published lists and writes what is of use in them:

  fingerprints_http.csv, fingerprints_dns.csv   of OONI's
                                                blocking-fingerprints
  blockpage_signatures.json,                    of Censored Planet's
  false_positive_signatures.json                censoredplanet-analysis

  govah identify import -o mine.jsonl fingerprints_http.csv
  govah identify --signatures mine.jsonl example.org

What they name is shown as a product; no verdict rests on it. Rows that are
left out or changed are counted, and named with -v.`,
		RunE: func(_ *cobra.Command, args []string) error { return a.importLists(output, known.ListKind(kind), args) },
	}
	f := cmd.Flags()
	f.StringVarP(&output, "output", "o", "", "the file to write (.jsonl)")
	f.StringVar(&kind, "kind", "", "ooni, censoredplanet or censoredplanet-innocent (default: by the file's name)")
	return cmd
}

func (a *app) importLists(output string, kind known.ListKind, files []string) error {
	lang, err := a.language()
	if err != nil {
		return err
	}
	if output == "" || len(files) == 0 {
		return usage("for example: govah identify import -o mine.jsonl fingerprints_http.csv", "import takes lists, and -o with the file to write")
	}
	var lists []*known.List
	for _, file := range files {
		k := kind
		if k == "" {
			if k = known.ListKindOf(file); k == "" {
				return usage("say with --kind what it is: ooni, censoredplanet or censoredplanet-innocent", "%s has not the name of a list that is known", clean(file))
			}
		}
		in, err := a.open(a.ctx, file)
		if err != nil {
			return hint(err, "give a file that can be read")
		}
		list, remarks, err := known.Import(k, in)
		in.Close()
		if err != nil {
			return hint(fmt.Errorf("%s: %w", clean(file), err), "see `govah identify import -h` for the lists that are read")
		}
		left := 0
		for _, r := range remarks {
			if !r.Taken {
				left++
			}
			if a.verbose {
				a.note(fmt.Sprintf("%s:%d: %s: %s", clean(file), r.Line, clean(r.Name), clean(r.Reason)))
			}
		}
		if !a.quiet {
			a.note(lang.Text("cli.imported", i18n.LTR("file", clean(file)), i18n.Num("n", len(list.Signatures)+len(list.Addresses)), i18n.Num("changed", len(remarks)-left), i18n.Num("left", left)))
		}
		lists = append(lists, list)
	}
	merged := known.Merge(lists...)
	if _, err := known.Shipped().With(merged); err != nil {
		return hint(err, "import fewer lists")
	}
	out, err := os.OpenFile(output, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return hint(err, "-o writes a new file")
	}
	if err = errors.Join(merged.Write(out), out.Close()); err != nil {
		os.Remove(output)
		return hint(err, "is the disk full?")
	}
	return nil
}

// What one search takes at most: twelve pairs of exchanges.
const (
	identifyBytes = 300_000
	identifyTime  = time.Minute
	maxElsewhere  = 6
)

// strangers are what answers in others' places, once for each that looks the
// same, whatever the number of its targets: told of the least sensitive.
type strangers struct {
	list []stranger
}

type stranger struct {
	id        *measure.Identification
	key       string
	sensitive bool
}

func (s *strangers) add(r check.Result, ids []*measure.Identification) {
	for _, id := range ids {
		one := stranger{id, id.Payload + " " + id.Cluster, slices.Contains(check.SensitiveCategories, r.Measurement.Category)}
		if len(id.Products) > 0 {
			one.key = id.Payload + " " + id.Products[0].Row
		}
		switch at := slices.IndexFunc(s.list, func(x stranger) bool { return x.key == one.key }); {
		case at < 0:
			s.list = append(s.list, one)
		case s.list[at].sensitive && !one.sensitive:
			s.list[at] = one
		}
	}
}

// sorted are all, in an order that does not depend on what was measured first.
func (s *strangers) sorted() (out []*measure.Identification) {
	slices.SortFunc(s.list, func(a, b stranger) int { return strings.Compare(a.key, b.key) })
	for _, x := range s.list {
		out = append(out, x.id)
	}
	return out
}

// identifyFound tries the forms of the names behind a run's findings, side by
// side.
func (a *app) identifyFound(ctx context.Context, s *search, table *identify.Table, l *locatable, took func(*measure.Measurement, *measure.Identification) error) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
	)
	// Where the names of others are answered is asked once, and counted with
	// the first search.
	asking := s.log("i1")
	elsewhere := s.elsewhere(ctx, asking, l)
	// Searches of one kind go to the same servers, where what one triggers
	// would linger for the next: they are made one after the other, and at a
	// gentle pace all are.
	turns := map[string]chan struct{}{}
	for i, key := range l.order {
		f := l.list[key]
		if f.line || identify.Intercepts(f.method) && f.method != measure.HTTPTamper {
			continue // it reacts to no name: what it shows of itself is told already
		}
		spec, ok := s.forms(f, elsewhere)
		if !ok {
			continue
		}
		kind := spec.Payload + " " + string(f.family)
		if s.cfg.Pace != check.PaceFast {
			kind = ""
		}
		if turns[kind] == nil {
			turns[kind] = make(chan struct{}, 1)
		}
		turn := turns[kind]
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			if ctx.Err() != nil {
				return
			}
			id := fmt.Sprintf("i%d", i+1)
			cfg, log := *s.cfg, s.log(id)
			cfg.Seed += uint64(i)
			err := check.ReadForms(ctx, cfg, log, table, spec)
			m := s.measurement(log, id, f.target.URL, ctx.Err() == nil)
			mu.Lock()
			defer mu.Unlock()
			sent, received := asking.Bytes()
			m.BytesSent, m.BytesReceived = m.BytesSent+sent, m.BytesReceived+received
			asking = s.log("")
			if id := table.Infer(m); err == nil && id != nil {
				err = took(m, id)
			}
			if first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	return first
}

// forms is where to try the forms of a finding's name: at the target's own
// address, then at servers of others that answer names they do not know. Over
// plain HTTP at those alone: the target's own would answer its name with
// another page than a random one, and no device is needed for that.
func (s *search) forms(f *found, elsewhere []other) (check.FormSpec, bool) {
	spec := check.FormSpec{Name: f.target.Host}
	port := uint16(443)
	switch f.payload {
	case locate.DNS:
		spec.Payload = identify.Naming
		if c := s.cfg.Controls.Canaries; len(c) > 0 {
			spec.Known = c[0].Name
		}
		if f.method == measure.DNSInjection {
			spec.NoResolver = true
			for _, a := range s.cfg.Controls.Nowhere {
				if f.family != "" && wire.FamilyOf(a) != f.family || a.Is4() && s.cfg.Only6 || a.Is6() && s.cfg.Only4 {
					continue
				}
				spec.At = append(spec.At, netip.AddrPortFrom(a, 53))
			}
			return spec, len(spec.At) > 0
		}
		at, ok := netip.AddrPortFrom(f.addr, 53), f.addr.IsValid()
		if !ok {
			at, ok = s.resolver(false, f.family)
		}
		spec.At = []netip.AddrPort{at}
		return spec, ok && spec.Known != ""
	case locate.HTTP:
		spec.Payload, spec.Seen, port = identify.Web, f.seen, 80
		if u, err := url.Parse(f.target.URL); err == nil && f.target.Scheme == "http" {
			spec.Path = u.RequestURI()
		}
	case locate.TLS:
		spec.Payload = identify.TLS
	case locate.QUIC:
		spec.Payload = identify.QUIC
	default:
		return spec, false
	}
	own := port
	if f.target.Port != 0 && f.target.Scheme == "https" {
		own = uint16(f.target.Port)
	}
	if f.payload != locate.HTTP {
		spec.At = []netip.AddrPort{netip.AddrPortFrom(f.addr, own)}
	}
	of := s.asn(f.addr)
	for _, e := range elsewhere {
		a := e.addr
		if f.payload == locate.QUIC && !e.quic || a.Is4() != f.addr.Is4() {
			continue
		}
		if e.own != 0 {
			at := netip.AddrPortFrom(a, e.own)
			if f.payload == locate.HTTP && e.own == 443 {
				at = netip.AddrPortFrom(a, port)
			}
			spec.At, spec.Own = append(spec.At, at), append(spec.Own, at)
			continue
		}
		// A server of the same network may know the name as well.
		if a != f.addr && (f.payload != locate.HTTP || of != 0 && s.asn(a) != 0 && s.asn(a) != of) {
			spec.At = append(spec.At, netip.AddrPortFrom(a, port))
		}
	}
	return spec, len(spec.At) > 0
}

// other is an address of a host that answers names it does not know.
type other struct {
	addr netip.Addr
	quic bool   // also over QUIC
	own  uint16 // the port of a helper, 0 if it is none
}

// elsewhere are such addresses, one a family of each host, helpers first.
func (s *search) elsewhere(ctx context.Context, log *wire.Log, l *locatable) (out []other) {
	if !slices.ContainsFunc(l.order, func(key string) bool {
		p := l.list[key].payload
		return p == locate.TLS || p == locate.HTTP || p == locate.QUIC
	}) {
		return nil
	}
	pick := func(list []netip.Addr, o other) {
		for _, v6 := range []bool{false, true} {
			if j := slices.IndexFunc(list, func(a netip.Addr) bool { return a.Is6() == v6 }); j >= 0 {
				o.addr = list[j]
				out = append(out, o)
			}
		}
	}
	for _, h := range s.cfg.Helpers {
		if host, port, err := check.HelperHost(h); err == nil {
			pick(check.Resolve(ctx, *s.cfg, log, host), other{quic: true, own: port})
		}
	}
	for i, c := range s.cfg.Controls.Canaries {
		if i == maxElsewhere {
			break
		}
		list := c.Addrs
		if len(list) == 0 {
			list = check.Resolve(ctx, *s.cfg, log, c.Name)
		}
		pick(list, other{quic: c.H3})
	}
	return out
}

func writeIdentified(out *record.Writer, m *measure.Measurement, id *measure.Identification) error {
	if err := out.Measurement(m); err != nil {
		return err
	}
	return out.Identification(id)
}

// showIdentified prints an identification, as JSON or into a text.
func (a *app) showIdentified(text *report.Text, id *measure.Identification) error {
	if a.json {
		return a.line(id)
	}
	return text.AddIdentification(id)
}
