package cli

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"govah/evidence"
	"govah/evidence/receipt"
	"govah/helper"
	"govah/lab"
	"govah/wire/host"
)

func (a *app) helperCommand() *cobra.Command {
	var listen []string
	var cert, key, name, receiptKey string
	var mail []string
	cmd := &cobra.Command{
		Use:   "helper",
		Short: "Run a test helper: a second vantage point for others",
		Long: `Runs a test helper until it is stopped. The first line on standard output is
the URL to give to govah check --helper; it holds the fingerprint of the key,
so that no certificate is needed.

The helper looks at the URLs that clients ask about, from here, and says what it
saw. It answers every name with a certificate of its own and streams bytes, so
that a name can be tested against an address that has nothing to do with it. It
refuses private addresses, limits what each client may use, and logs neither
requests nor addresses. What it says it signs for the client who asked, so that
nobody else can invent it; the URL holds the key to check that with.

With --mail it also greets mail clients, offers encryption (STARTTLS) and says
goodbye: clients that know what it says see what is changed on the way. It takes
no login and no message. Give the usual ports, since devices on the way look at
those: smtp://0.0.0.0:587, imap://0.0.0.0:143, pop3://0.0.0.0:110, and with TLS
from the start smtps://…:465, imaps://…:993, pop3s://…:995.

With the right to capture packets (root, or once: setcap cap_net_raw+ep govah)
the helper can also help a client find where its greeters' words are altered:
it says them with TTLs that end them on the way, and tells what routers quote.
It sees the packets of that client's connection, which it asked for, and no
others, and keeps none. Without the right it does all else.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			n := host.New()
			cfg := helper.Config{Network: n, Roots: publicRoots(), Locate: networkOf, Version: Version(), SYNTTL: host.SYNTTL, SetTTL: host.SetTTL}
			if (cert == "") != (key == "") {
				return usage("give both, or neither for a key of its own", "--cert and --key belong together")
			}
			if cert != "" {
				c, err := tls.LoadX509KeyPair(cert, key)
				if err != nil {
					return hint(fmt.Errorf("reading --cert and --key: %w", err), "both are PEM files, the key that of the certificate")
				}
				cfg.Certificate = &c
			}
			if receiptKey != "" {
				k, err := readReceiptKey(receiptKey)
				if err != nil {
					return err
				}
				cfg.Receipts = k
			}
			s, err := helper.New(cfg)
			if err != nil {
				return err
			}
			var l helper.Listeners
			for _, at := range listen {
				tcp, err := host.Listen(a.ctx, at)
				if err != nil {
					l.Close()
					return hint(fmt.Errorf("listening at %s: %w", at, err), "is the port in use, or below 1024 and you are not root?")
				}
				l.TCP = append(l.TCP, tcp)
				if udp, err := net.ListenPacket("udp", tcp.Addr().String()); err == nil {
					l.UDP = append(l.UDP, udp)
				} else if !a.quiet {
					a.note("govah: no HTTP/3: " + clean(err.Error()))
				}
			}
			for _, text := range mail {
				protocol, implicit, at, err := helper.ParseMail(text)
				if err != nil {
					l.Close()
					return usage("for example --mail smtp://0.0.0.0:587 --mail imap://0.0.0.0:143", "--mail: %v", err)
				}
				tcp, err := host.Listen(a.ctx, at)
				if err != nil {
					l.Close()
					return hint(fmt.Errorf("listening at %s: %w", at, err), "is the port in use, or below 1024 and you are not root?")
				}
				l.Mail = append(l.Mail, helper.MailListener{Listener: tcp, Protocol: protocol, Implicit: implicit})
			}
			authority := l.TCP[0].Addr().String()
			ap, err := netip.ParseAddrPort(authority)
			if name != "" && err == nil {
				authority = fmt.Sprintf("%s:%d", name, ap.Port())
			} else if err == nil && ap.Addr().IsUnspecified() {
				if own, ok := ownAddress(); ok {
					authority = netip.AddrPortFrom(own, ap.Port()).String()
				}
			}
			fmt.Fprintln(a.out, s.URL(authority))
			if !a.quiet {
				fmt.Fprintln(a.err, "govah: helper is running; it keeps no log. Ctrl-C stops it.")
			}
			if err := s.Serve(a.ctx, l); err != nil && !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&listen, "listen", []string{"127.0.0.1:8443"}, "address and port to listen at, may be repeated; the first is in the URL")
	f.StringArrayVar(&mail, "mail", nil, "greet mail clients here, as smtp://0.0.0.0:587; also smtps, imap, imaps, pop3, pop3s; may be repeated")
	f.StringVar(&cert, "cert", "", "certificate chain (PEM), with --key")
	f.StringVar(&key, "key", "", "private key (PEM)")
	f.StringVar(&receiptKey, "receipt-key", "", "keep the key for receipts in this file, which is made if it is not there (default: a new one each time)")
	f.StringVar(&name, "name", "", "name or address to print in the URL")
	return cmd
}

// readReceiptKey reads the key for receipts from a file, or makes both.
func readReceiptKey(path string) (*receipt.Key, error) {
	const what = "--receipt-key takes a file that govah made, which only you can read, or a new name"
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		k, text, err := receipt.NewKey()
		if err != nil {
			return nil, err
		}
		if err := evidence.WriteFile(path, []byte(text+"\n")); err != nil {
			return nil, hint(fmt.Errorf("--receipt-key: %w", err), what)
		}
		return k, nil
	case err != nil:
		return nil, hint(fmt.Errorf("--receipt-key: %w", err), what)
	case !st.Mode().IsRegular() || st.Size() > 4096:
		return nil, hint(fmt.Errorf("--receipt-key: %s is no key for receipts", path), what)
	case runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0:
		return nil, hint(fmt.Errorf("--receipt-key: %s can be read by others", path), "`chmod 600 %s` if only you use this device; else make a new key", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, hint(fmt.Errorf("--receipt-key: %w", err), what)
	}
	k, err := receipt.ReadKey(string(data))
	if err != nil {
		return nil, hint(fmt.Errorf("--receipt-key: %s: %w", path, err), what)
	}
	return k, nil
}

// ownAddress guesses which of this host's addresses clients will use: the
// first global one of an interface that is up.
func ownAddress() (netip.Addr, bool) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, false
	}
	var second netip.Addr
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().IsLoopback() || !p.Addr().IsGlobalUnicast() {
			continue
		}
		if !p.Addr().IsPrivate() && p.Addr().Is4() {
			return p.Addr(), true
		}
		if !second.IsValid() || second.IsPrivate() && !p.Addr().IsPrivate() {
			second = p.Addr()
		}
	}
	return second, second.IsValid()
}

func (a *app) labCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "lab", Short: "List and explain the emulated internets", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() }}
	cmd.AddCommand(&cobra.Command{
		Use: "list", Short: "List the scenarios that are built in", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range lab.Names() {
				s, err := lab.Load(name)
				if err != nil {
					return err
				}
				fmt.Fprintf(a.out, "%-15s %s\n", name, s.Title)
			}
			return nil
		},
	}, &cobra.Command{
		Use: "show SCENARIO", Short: "Explain a scenario, with a map and the truth", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := lab.Load(args[0])
			if err != nil {
				return badScenario(args[0], err)
			}
			for line := range strings.Lines(s.Describe()) {
				fmt.Fprintln(a.out, clean(strings.TrimSuffix(line, "\n")))
			}
			return nil
		},
	})
	return cmd
}

// badScenario says what to do about a scenario that cannot be used.
func badScenario(name string, err error) error {
	if strings.ContainsAny(name, "/.") {
		return hint(err, "docs/formats/scenario-v1.md says what a scenario holds; `govah lab list` names those that are built in")
	}
	return hint(err, "`govah lab list` names those that are built in")
}
