package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"govah/exposure"
	"govah/internal/i18n"
	"govah/packet"
	"govah/report"
)

// maxAddresses is how many addresses can be given: a device has some, a
// network has many.
const maxAddresses = 16

func (a *app) exposureCommand() *cobra.Command {
	var addresses []string
	cmd := &cobra.Command{
		Use:   "exposure FILE",
		Short: "Count what could be read on the path, in a capture of your own device",
		Long: `Reads a capture of your own device (pcap or pcapng, as tcpdump -w and Wireshark
write them, .gz too; - is standard input) and counts by class what anyone on the
path could have read: names in DNS, TLS and QUIC, HTTP without TLS, cookies,
mail in the clear, and whether there were credentials.

It prints counts, yes and no: never a name, a value, an address or a time.
Only what this device's own addresses opened is counted; other packets are not
looked at. It captures nothing itself and sends nothing. Exits with 1 if the
file is broken off.`,
		Example: `  tcpdump -p -i wlan0 -s 0 -w mine.pcap    (needs the right; Ctrl-C ends it)
  govah exposure mine.pcap
  govah exposure --address 192.168.1.7 --address 2001:db8::7 mine.pcap`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lang, err := a.language()
			if err != nil {
				return err
			}
			own, err := ownAddresses(addresses)
			if err != nil {
				return err
			}
			return a.runExposure(lang, args[0], own)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&addresses, "address", nil, "an address that this device had when the file was captured, may be repeated (default: those that it has now)")
	f.BoolVar(&a.json, "json", false, "print the counts as one line of JSON (docs/formats/exposure-v1.md)")
	return cmd
}

// ownAddresses are those that the user gave, or those of this machine's
// interfaces. They are never taken from the file: the address that all of its
// packets share is the user's own only if the file is.
func ownAddresses(given []string) (list []netip.Addr, err error) {
	if len(given) > maxAddresses {
		return nil, usage("give those of this device alone", "--address was given %d times; at most %d", len(given), maxAddresses)
	}
	for _, s := range given {
		addr, err := netip.ParseAddr(s)
		if err != nil || !ofDevice(addr) {
			return nil, usage("give one address of this device, for example 192.168.1.7", "--address %q is not an address that a device on a network has", s)
		}
		list = append(list, addr.Unmap().WithZone(""))
	}
	if len(list) > 0 {
		return list, nil
	}
	const what = "give the addresses that this device had: --address 192.168.1.7"
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, hint(fmt.Errorf("this system does not tell this device's addresses: %w", err), what)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && ofDevice(p.Addr()) && len(list) < exposure.MaxOwn {
			list = append(list, p.Addr().Unmap().WithZone(""))
		}
	}
	if len(list) == 0 {
		return nil, hint(errors.New("this device has no address on a network"), what)
	}
	return list, nil
}

func ofDevice(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (a *app) runExposure(lang i18n.Lang, path string, own []netip.Addr) error {
	const what = "it must be a pcap or pcapng file, as tcpdump -w and Wireshark write them"
	f, err := a.open(a.ctx, path)
	if err != nil {
		if a.ctx.Err() != nil {
			return exitCode(exitInterrupted)
		}
		return hint(err, what)
	}
	defer f.Close()
	c, err := exposure.Count(a.ctx, f, own)
	switch {
	case a.ctx.Err() != nil:
		return exitCode(exitInterrupted)
	case errors.Is(err, packet.ErrNotCapture), errors.Is(err, io.EOF):
		return hint(fmt.Errorf("%s is neither a pcap nor a pcapng file", path), what)
	case err != nil && (c == nil || c.Packets == 0):
		return hint(fmt.Errorf("%s: %w", path, err), "the file is damaged or cut off: copy or capture it again")
	case c.Packets == 0 && c.Ignored == 0:
		return hint(fmt.Errorf("%s holds no IP packet", path), "capture on the interface that leads out, for example with tcpdump -p -i wlan0 -s 0 -w mine.pcap")
	case c.Packets == 0:
		return hint(fmt.Errorf("%s holds no packet from or to an address of this device", path),
			"if it is of this device, name the address that it had then with --address; addresses in the file are not shown, as they may be other people's")
	}
	broken := err
	if a.json {
		if err := a.line(c); err != nil {
			return err
		}
	} else {
		a.tellExposure(lang, path, c)
	}
	if broken != nil {
		a.note(lang.Text("cli.exposure.broken", i18n.LTR("file", path), i18n.Num("n", c.Packets), i18n.LTR("why", broken.Error())))
		return exitCode(exitFailed)
	}
	return nil
}

// tellExposure prints the counts: each class, in the order of what it can do
// to a person, then what they do not show and what can be done.
func (a *app) tellExposure(lang i18n.Lang, path string, c *exposure.Counts) {
	say := func(key string, args ...i18n.Arg) {
		fmt.Fprintln(a.out, report.Wrap(lang.Text(key, args...), 2, 4))
	}
	n := func(name string, v int64) i18n.Arg { return i18n.Num(name, v) }
	protocol := func(name string) i18n.Arg { return i18n.LTR("protocol", name) }

	fmt.Fprintln(a.out, report.Wrap(lang.Text("cli.exposure.head", i18n.LTR("file", path), n("n", c.Packets)), 0, 2))
	if ways := credentialWays(lang, c.Credentials); len(ways) > 0 {
		say("cli.exposure.credentials", i18n.Word("ways", strings.Join(ways, lang.Text("list.comma"))))
	} else {
		say("cli.exposure.no-credentials")
	}
	if h := c.HTTP; h.Requests > 0 {
		say("cli.exposure.http", n("n", h.Requests), n("names", h.Names), n("sent", h.CookiesSent), n("set", h.CookiesSet))
	} else {
		say("cli.exposure.no-http")
	}
	inTheClear := func(name string, d exposure.Dialogues) bool {
		if d.Connections == 0 {
			say("cli.exposure.none", protocol(name))
			return false
		}
		say("cli.exposure.dialogue", protocol(name), n("n", d.Connections), n("tls", d.StartTLS))
		return true
	}
	mail := false
	for _, m := range []struct {
		name string
		d    exposure.Dialogues
	}{{"SMTP", c.SMTP}, {"IMAP", c.IMAP}, {"POP3", c.POP3}} {
		mail = inTheClear(m.name, m.d) || mail
	}
	terminal := inTheClear("FTP", c.FTP)
	if c.Telnet.Connections > 0 {
		say("cli.exposure.telnet", n("n", c.Telnet.Connections))
		terminal = true
	} else {
		say("cli.exposure.none", protocol("Telnet"))
	}
	if c.DNS.Questions > 0 {
		say("cli.exposure.dns", n("n", c.DNS.Questions), n("names", c.DNS.Names))
	} else {
		say("cli.exposure.no-dns")
	}
	for _, t := range []struct {
		name string
		h    exposure.Hellos
	}{{"TLS", c.TLS}, {"QUIC", c.QUIC}} {
		if t.h.Hellos > 0 {
			say("cli.exposure.hello", protocol(t.name), n("n", t.h.Hellos), n("named", t.h.Named), n("names", t.h.Names), n("ech", t.h.ECH))
		} else {
			say("cli.exposure.none", protocol(t.name))
		}
	}
	if c.NamesMore {
		say("cli.exposure.names-more", n("n", c.Names))
	} else if c.Names > 0 {
		say("cli.exposure.names", n("n", c.Names))
	}

	part := func(label string, texts ...string) {
		for i, text := range texts {
			if i == 0 {
				text = lang.Text("list.of", i18n.Word("a", lang.Text(label)), i18n.Word("b", text))
				fmt.Fprintln(a.out, report.Wrap(text, 0, 2))
				continue
			}
			fmt.Fprintln(a.out, report.Wrap(text, 2, 2))
		}
	}
	part("label.not", lang.Text("cli.exposure.always"))
	var open, next []string
	if c.Cut > 0 {
		open = append(open, lang.Text("cli.exposure.cut", n("n", c.Cut), i18n.Command("command", "tcpdump -s 0")))
	}
	if c.Ignored > 0 {
		open = append(open, lang.Text("cli.exposure.ignored", n("n", c.Ignored), i18n.LTR("flag", "--address")))
	}
	part("label.open", open...)
	if c.Credentials != (exposure.Credentials{}) {
		next = append(next, lang.Text("cli.exposure.next-credentials"))
	}
	if c.HTTP.Requests > 0 {
		next = append(next, lang.Text("cli.exposure.next-http"))
	}
	if mail {
		next = append(next, lang.Text("cli.exposure.next-mail", i18n.LTR("ports", "465, 993, 995")))
	}
	if terminal {
		next = append(next, lang.Text("cli.exposure.next-terminal"))
	}
	if c.DNS.Questions > 0 {
		next = append(next, lang.Text("cli.exposure.next-dns"))
	}
	if c.TLS.Named+c.QUIC.Named > 0 {
		next = append(next, lang.Text("cli.exposure.next-names"))
	}
	part("label.next", next...)
}

// credentialWays names how credentials were sent.
func credentialWays(lang i18n.Lang, c exposure.Credentials) (ways []string) {
	for _, w := range []struct {
		there bool
		name  string
	}{
		{c.HTTPBasic, lang.IsolateLTR("HTTP Basic")}, {c.HTTPDigest, lang.IsolateLTR("HTTP Digest")}, {c.HTTPOther, lang.IsolateLTR("HTTP Authorization")},
		{c.HTTPURL, lang.Text("cli.exposure.url")}, {c.HTTPForm, lang.Text("cli.exposure.form")},
		{c.SMTP, "SMTP"}, {c.IMAP, "IMAP"}, {c.POP3, "POP3"}, {c.FTP, "FTP"}, {c.Telnet, "Telnet"},
	} {
		if w.there {
			ways = append(ways, w.name)
		}
	}
	return ways
}
