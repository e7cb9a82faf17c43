package cli

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"govah/evidence"
	"govah/internal/i18n"
	"govah/report"
)

// redactOptions are the flags of `govah redact`.
type redactOptions struct {
	output     string
	withhold   []string
	also       []string
	thisDevice bool
	dry        bool
	sign       bool
	scope      string
	pass       passphrases
}

func (a *app) redactCommand() *cobra.Command {
	o := &redactOptions{}
	var names []string
	for _, c := range evidence.DefaultWithheld {
		names = append(names, c.String())
	}
	cmd := &cobra.Command{
		Use:   "redact FILE",
		Short: "Take out of evidence what identifies you, before you give it away",
		Long: `Takes parts out of a file of evidence (from govah check --seal or govah seal) so
that its signature and every proof stay good: govah verify still says that all
the rest is as it was signed, and how much of which kind was taken out.

Then it searches what is left for what identifies you, in whatever way it is
written: what was taken out (your addresses, names of your networks, your own
words) and what you name with --also. Parts that hold some of it are taken out
too, and it is said which. If something survives where nothing can be taken out,
no file is written. What it cannot know is a name or a public address of yours
that stands nowhere in what is taken out: name those with --also.

The classes: target, client, location, network, network-name, foreign, time,
packet-payload. The report goes whenever anything does.
Exits with 1 if nothing was written.`,
		Example: `  govah redact case.govah -o public.govah
  govah redact case.govah --also 203.0.113.7 --also 'Cafe Naderi' --dry-run
  govah redact case.govah --withhold client,location,foreign -o public.govah`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			return a.runRedact(lang, args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "the file to write")
	f.StringSliceVar(&o.withhold, "withhold", names, "the classes to take out")
	f.StringArrayVar(&o.also, "also", nil, "search for this too and take out what holds it: an address, a network (10.0.0.0/24), a hardware address, a name; may be repeated")
	f.BoolVar(&o.thisDevice, "this-device", false, "search for the addresses and names that this device has now, too")
	f.BoolVar(&o.sign, "sign", false, "state what was made of what in a signed note beside the file (OUTPUT.note; govah verify --redaction); it shows that the holder of the key redacted it")
	f.StringVar(&o.scope, "scope", "", "with --sign: sign with the key of this scope")
	f.StringVar(&o.pass.file, "passphrase-file", "", "with --sign: read the key's passphrase from a file (or "+passphraseVariable+"; default: ask)")
	f.BoolVar(&o.dry, "dry-run", false, "say what would be taken out, and write nothing")
	f.BoolVar(&a.json, "json", false, "print what was taken out as one line of JSON (docs/formats/bundle-v1.md)")
	return cmd
}

// redaction reads the flags.
func (o *redactOptions) redaction() (r evidence.Redaction, err error) {
	if (o.output == "") != o.dry {
		return r, usage("-o FILE writes one, --dry-run only says what it would take out", "give one of -o and --dry-run")
	}
	if o.sign && o.dry || (o.scope != "" || o.pass.file != "") && !o.sign {
		return r, usage("give -o FILE --sign, and with it --scope if it is to be another key", "--sign is about a file that is written, --scope and --passphrase-file about the key of --sign")
	}
	for _, name := range o.withhold {
		c, err := evidence.ParseClass(name)
		if err != nil || c == evidence.None {
			return r, usage("for example --withhold client,location; `govah redact -h` lists the classes", "--withhold: %q is no class that can be taken out", name)
		}
		r.Classes = append(r.Classes, c)
	}
	for _, text := range o.also {
		id, err := evidence.TextIdentifier(text, "--also")
		if err != nil {
			return r, usage("give an address, a network, a hardware address, or a name of at least three letters", "--also: %v", strings.TrimPrefix(err.Error(), "evidence: "))
		}
		r.Also = append(r.Also, id)
	}
	if o.thisDevice {
		r.Also = append(r.Also, thisDevice()...)
	}
	return r, nil
}

// thisDevice are the addresses and names that identify the device. Names that
// many have, such as root, are left out: they stand everywhere.
func thisDevice() (ids []evidence.Identifier) {
	const from = "this device"
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && ofDevice(p.Addr()) {
			if id, ok := evidence.AddressIdentifier(p.Addr(), from); ok {
				ids = append(ids, id)
			}
		}
	}
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		if id, err := evidence.TextIdentifier(i.HardwareAddr.String(), from); err == nil && id.Kind == evidence.KindHardware {
			ids = append(ids, id)
		}
	}
	var names []string
	if h, err := os.Hostname(); err == nil {
		names = append(names, h)
	}
	if u, err := user.Current(); err == nil {
		names = append(names, u.Username, u.Name)
	}
	common := []string{"root", "user", "admin", "administrator", "localhost", "guest", "govah", "test", "android"}
	for _, n := range names {
		if slices.Contains(common, strings.ToLower(n)) {
			continue
		}
		if id, err := evidence.TextIdentifier(n, from); err == nil && id.Kind == evidence.KindText {
			ids = append(ids, id)
		}
	}
	return ids
}

func (a *app) runRedact(lang i18n.Lang, path string, o *redactOptions) error {
	r, err := o.redaction()
	if err != nil {
		return err
	}
	if o.output != "" {
		files := []string{o.output}
		if o.sign {
			files = append(files, o.output+noteSuffix)
		}
		for _, f := range files {
			if _, err := os.Lstat(f); err == nil {
				return hint(fmt.Errorf("%s exists already and is not overwritten", f), "choose another name with -o")
			}
		}
	}
	signer := &sealing{scope: o.scope, ask: a.ask(&o.pass)}
	if o.sign {
		if err := signer.findKey(a); err != nil {
			return err
		}
	}
	data, err := a.readSealed(path)
	if err != nil {
		return err
	}
	b, err := evidence.Open(data)
	if err != nil {
		return unverified(path, err)
	}
	out, err := b.Redact(r)
	if err != nil {
		return hint(err, "`govah redact -h` lists the classes")
	}
	var made []byte
	if out.Bundle != nil {
		if made, err = out.Bundle.Bytes(); err != nil {
			return err
		}
		if _, err := evidence.Open(made); err != nil {
			return fmt.Errorf("what was redacted does not verify: %w", err)
		}
		if !o.dry {
			var n []byte
			if o.sign {
				if n, err = signer.handover(data, made); err != nil {
					return err
				}
			}
			if err := evidence.WriteFile(o.output, made); err != nil {
				return hint(err, "choose a folder that you can write to, with enough room")
			}
			if o.sign {
				if err := evidence.WriteFile(o.output+noteSuffix, n); err != nil {
					return hint(fmt.Errorf("%s is written and whole; the note about it is not: %w", o.output, err), "is the disk full? Redacted to another name, it can be signed again")
				}
				a.tellEpoch(lang, signer.scope, signer.began)
			}
		}
	}
	if a.json {
		err = a.line(redactedLine(o, out, len(data), len(made)))
	} else {
		a.tellRedacted(lang, path, o, out, len(data), len(made))
	}
	if err != nil {
		return err
	}
	if out.Bundle == nil {
		return hint(fmt.Errorf("%s is not given away: what identifies you is in it where nothing can be taken out", path),
			"%s", "if it identifies nobody there, leave it out of --also; else seal the measurements again without it, or give the file only to who may know")
	}
	return nil
}

// redactedLine is the summary as JSON: what was found is told by its kind and
// place, and never itself.
func redactedLine(o *redactOptions, out *evidence.Redacted, before, after int) map[string]any {
	type widened struct {
		File     string `json:"file"`
		Class    string `json:"class"`
		Leaves   int    `json:"leaves"`
		Found    string `json:"found,omitempty"`
		Encoding string `json:"encoding"`
		At       int    `json:"at"`
	}
	type left struct {
		Document string `json:"document"`
		Found    string `json:"found,omitempty"`
		Encoding string `json:"encoding"`
		At       int    `json:"at"`
	}
	kind := func(i int) string {
		if i < 0 {
			return ""
		}
		return string(out.Searched[i].Kind)
	}
	searched := map[string]int{}
	for _, id := range out.Searched {
		searched[string(id.Kind)]++
	}
	withheld := map[string]int{}
	if out.Bundle != nil {
		for c, n := range out.Bundle.Withheld() {
			if n > 0 {
				withheld[evidence.Class(c).String()] = int(n)
			}
		}
	}
	w, l, stays, whole := []widened{}, []left{}, []left{}, []string{}
	for _, x := range out.Widened {
		w = append(w, widened{x.File, x.Class.String(), x.Leaves, kind(x.Identifier), x.Encoding, x.From})
	}
	for _, x := range out.Left {
		l = append(l, left{x.Document, kind(x.Identifier), x.Encoding, x.From})
	}
	for _, x := range out.Stays {
		stays = append(stays, left{x.Document, kind(x.Identifier), x.Encoding, x.From})
	}
	for _, c := range out.Whole {
		whole = append(whole, c.String())
	}
	file := o.output
	if out.Bundle == nil {
		file = ""
	}
	return map[string]any{"type": "redacted", "schema": 1, "released": out.Bundle != nil, "file": file, "before": before, "bytes": after,
		"withheld": withheld, "searched": searched, "unsearched": len(out.Unsearched), "widened": w, "whole": whole, "left": l, "stays": stays}
}

// mostTold bounds the lists that are printed.
const mostTold = 20

// tellRedacted puts the summary into words.
func (a *app) tellRedacted(lang i18n.Lang, path string, o *redactOptions, out *evidence.Redacted, before, after int) {
	text := func(key string, args ...i18n.Arg) string { return lang.Text("cli.redact."+key, args...) }
	class := func(c evidence.Class) i18n.Arg {
		return i18n.Word("class", lang.Text("cli.verify.class-"+c.String()))
	}
	what := func(i int) i18n.Arg {
		if i < 0 {
			return i18n.Word("what", text("trace"))
		}
		if out.Searched[i].Exact {
			return i18n.Word("what", text("elsewhere"))
		}
		return i18n.Word("what", text("kind-"+string(out.Searched[i].Kind)))
	}
	part := func(label string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintln(a.out, report.Wrap(text("label-"+label), 0, 2))
		for i, l := range lines {
			if i == mostTold {
				l = text("more", i18n.Num("n", len(lines)-mostTold))
			}
			fmt.Fprintln(a.out, report.Wrap(l, 2, 4))
			if i == mostTold {
				break
			}
		}
	}
	if out.Bundle == nil {
		var left []string
		for _, l := range out.Left {
			left = append(left, text("left", what(l.Identifier), i18n.LTR("file", l.Document), i18n.Num("at", l.From), i18n.LTR("encoding", l.Encoding)))
		}
		part("left", left)
		return
	}
	if o.dry {
		fmt.Fprintln(a.out, report.Wrap(text("dry", i18n.LTR("file", path), i18n.Size("before", int64(before)), i18n.Size("after", int64(after))), 0, 2))
	} else {
		fmt.Fprintln(a.out, report.Wrap(text("written", i18n.LTR("file", o.output), i18n.Size("before", int64(before)), i18n.Size("after", int64(after))), 0, 2))
	}
	var withheld []string
	away := out.Bundle.Withheld()
	for c, n := range away {
		if n > 0 {
			withheld = append(withheld, lang.Text("cli.verify.withheld", class(evidence.Class(c)), i18n.Num("n", int(n)), i18n.Num("all", int(out.Bundle.Counts[c]))))
		}
	}
	part("withheld", withheld)
	var widened []string
	for _, w := range together(out) {
		widened = append(widened, text("widened", class(w.Class), i18n.Num("n", w.Leaves), i18n.LTR("file", "view/"+w.File), what(w.Identifier), i18n.LTR("encoding", w.Encoding)))
	}
	for _, c := range out.Whole {
		widened = append(widened, text("whole", class(c)))
	}
	part("widened", widened)
	part("know", a.toKnow(text, o, out, away))
	if o.dry {
		// The command itself is not put together: it would have to be quoted for
		// whichever shell this is, and what was named with --also would show.
		part("next", []string{text("next-dry", i18n.Command("file", "-o FILE"), i18n.Command("dry", "--dry-run"))})
		return
	}
	next := "govah verify " + o.output
	if o.sign {
		next += " --redaction " + o.output + noteSuffix
	}
	part("next", []string{text("next", i18n.Command("command", next))})
}

// together puts those into one that differ in the identifier and not in its
// kind: a person wants to know where to look.
func together(out *evidence.Redacted) (list []evidence.Widening) {
	type alike struct {
		file     string
		class    evidence.Class
		kind     evidence.IdentifierKind
		exact    bool
		encoding string
	}
	at := map[alike]int{}
	for _, w := range out.Widened {
		k := alike{file: w.File, class: w.Class, encoding: w.Encoding}
		if w.Identifier >= 0 {
			id := out.Searched[w.Identifier]
			k.encoding, k.exact = "", id.Exact
			if !id.Exact { // what it is of a server or a network is not told
				k.kind = id.Kind
			}
		}
		if i, ok := at[k]; ok {
			list[i].Leaves += w.Leaves
			continue
		}
		at[k] = len(list)
		list = append(list, w)
	}
	return list
}

// toKnow is what a person should know who gives the file away.
func (a *app) toKnow(text texter, o *redactOptions, out *evidence.Redacted, away evidence.Counts) (list []string) {
	addresses, names := 0, 0
	for _, id := range out.Searched {
		switch id.Kind {
		case evidence.KindAddress, evidence.KindSubnet, evidence.KindHardware:
			addresses++
		case evidence.KindText:
			names++
		}
	}
	list = append(list, text("searched", i18n.Num("addresses", addresses), i18n.Num("names", names)))
	if n := len(out.Unsearched); n > 0 {
		list = append(list, text("unsearched", i18n.Num("n", n)))
	}
	if n := len(out.Stays); n > 0 {
		list = append(list, text("stays", i18n.Num("n", n), i18n.LTR("file", out.Stays[0].Document), i18n.Num("at", out.Stays[0].From)))
	}
	if away[evidence.Location] > 0 && away[evidence.Network] < out.Bundle.Counts[evidence.Network] {
		list = append(list, text("operator", i18n.LTR("flag", "--withhold "+strings.Join(append(slices.Clone(o.withhold), "network"), ","))))
	}
	if away[evidence.Time] < out.Bundle.Counts[evidence.Time] {
		list = append(list, text("time"))
	} else if out.Bundle.File(evidence.CheckpointName) != nil || len(out.Bundle.Proofs) > 0 {
		list = append(list, text("time-bounds"))
	}
	return append(list, text("also", i18n.LTR("flag", "--also")))
}
