package cli

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"govah/check"
	"govah/helper"
	"govah/internal/geo"
	"govah/known"
	"govah/lab"
	"govah/measure"
	"govah/wire"
	"govah/wire/host"
)

// publicRoots is the bundle that browsers trust, as of this version.
func publicRoots() *x509.CertPool {
	pool := x509.NewCertPool()
	for root := range bundle.Roots() {
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			continue
		}
		if root.Constraint == nil {
			pool.AddCert(cert)
		} else {
			pool.AddCertWithConstraint(cert, root.Constraint)
		}
	}
	return pool
}

// networkOf is the AS and country of an address, as the bundled table has them.
func networkOf(a netip.Addr) (int, string) {
	info, _ := geo.Lookup(a)
	return info.ASN, info.Country
}

// hostPlace composes a run on this device.
func (a *app) hostPlace(o *checkOptions) (*place, error) {
	n := host.New()
	facts := host.Surroundings()
	roots, err := n.Roots()
	if err != nil {
		roots = nil // what the system trusts is not known; public roots decide
	}
	logs, err := wire.ParseCTLogs(known.CTLogs())
	if err != nil {
		return nil, fmt.Errorf("the list of CT logs of this version: %w", err)
	}
	p := &place{close: func() {}, cfg: check.Config{
		Network: n, Trust: wire.Trust{Public: publicRoots(), System: roots, Logs: logs, Now: time.Now},
		ASN: networkOf, Geo: geo.Version, Seed: uint64(o.seed),
		Surroundings: check.Surroundings{Tunnel: facts.Tunnel != "", Proxy: facts.Proxy != "", Link: facts.Link},
	}}
	for _, r := range facts.Resolvers {
		p.cfg.Surroundings.Resolvers = append(p.cfg.Surroundings.Resolvers, netip.AddrPortFrom(r, 53))
	}
	for _, c := range known.Controls() {
		switch c.Kind {
		case "canary":
			p.cfg.Controls.Canaries = append(p.cfg.Controls.Canaries, check.CanaryHost{Name: c.Name, Addrs: c.Addrs, H3: c.H3})
		case "doh":
			p.cfg.Controls.DoH = append(p.cfg.Controls.DoH, check.DoHServer{URL: c.Name, Addrs: c.Addrs})
		case "resolver":
			p.cfg.Controls.Resolvers = append(p.cfg.Controls.Resolvers, c.Ports...)
		case "nowhere":
			p.cfg.Controls.Nowhere = append(p.cfg.Controls.Nowhere, c.Addrs...)
		case "nobody":
			p.cfg.Controls.Nobody = append(p.cfg.Controls.Nobody, c.Addrs...)
		case "whoami":
			p.cfg.Controls.Whoami = append(p.cfg.Controls.Whoami, c.Name)
		case "signed":
			p.cfg.Controls.Signed = append(p.cfg.Controls.Signed, c.Name)
		case "ech":
			p.cfg.Controls.ECH = append(p.cfg.Controls.ECH, c.Name)
		case "captive":
			p.cfg.Controls.Captive = c.Name
		}
	}
	p.cfg.Controls.Public = known.PublicResolvers()
	p.cfg.Controls.SSH, p.cfg.Controls.SSHAsOf = known.SSHHosts(), known.SSHHostsAsOf
	if home, err := os.UserHomeDir(); err == nil && o.knownHosts == "" {
		p.cfg.KnownHosts = knownHosts(filepath.Join(home, ".ssh", "known_hosts"))
	}
	return p, a.adjust(o, p)
}

// knownHosts looks hosts up in a file of OpenSSH's. One that cannot be read
// knows nobody.
func knownHosts(path string) func(string, int) []measure.HostKey {
	return func(host string, port int) []measure.HostKey {
		f, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer f.Close()
		keys, err := wire.KnownHosts(f, host, port)
		if err != nil {
			return nil
		}
		return keys
	}
}

// adjust applies the options that replace parts of a place.
func (a *app) adjust(o *checkOptions, p *place) error {
	if o.resolver != "" {
		ap, err := netip.ParseAddrPort(o.resolver)
		if err != nil {
			addr, aerr := netip.ParseAddr(o.resolver)
			if aerr != nil {
				return usage("for example --resolver 192.0.2.53 or 192.0.2.53:5353", "--resolver %q is no address", o.resolver)
			}
			ap = netip.AddrPortFrom(addr, 53)
		}
		if ap.Port() == 0 {
			return usage("leave the port out for 53", "--resolver %s: a port is 1 to 65535", o.resolver)
		}
		p.cfg.Surroundings.Resolvers = []netip.AddrPort{ap}
	}
	if len(o.doh) > 0 {
		p.cfg.Controls.DoH = nil
		for _, raw := range o.doh {
			u, err := url.Parse(raw)
			if err != nil || u.Scheme != "https" || u.Hostname() == "" {
				return usage("for example --doh https://doh.example/dns-query", "--doh %q is no https URL", raw)
			}
			d := check.DoHServer{URL: raw}
			if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
				d.Addrs = []netip.Addr{addr}
			} else if d.Addrs, err = p.cfg.Network.Lookup(a.ctx, u.Hostname()); err != nil {
				return hint(fmt.Errorf("--doh %s: its host cannot be resolved: %w", raw, err), "use its address, as https://192.0.2.53/dns-query")
			}
			p.cfg.Controls.DoH = append(p.cfg.Controls.DoH, d)
		}
	}
	switch o.knownHosts {
	case "":
	case "none":
		p.cfg.KnownHosts = nil
	default:
		f, err := os.Open(o.knownHosts)
		if err != nil {
			return hint(err, "--known-hosts takes a file as ~/.ssh/known_hosts, or none")
		}
		f.Close()
		p.cfg.KnownHosts = knownHosts(o.knownHosts)
	}
	if len(o.controls) > 0 {
		p.cfg.Controls.Canaries = nil
		for _, name := range o.controls {
			t, err := check.ParseTarget(name)
			if err != nil {
				return usage("--control takes the names of https hosts", "--control: %v", err)
			}
			p.cfg.Controls.Canaries = append(p.cfg.Controls.Canaries, check.CanaryHost{Name: t.Host})
		}
	}
	if len(p.cfg.Helpers) == 0 || len(o.helpers) > 0 {
		p.cfg.Helpers = nil
		for _, h := range o.helpers {
			if h != "none" {
				p.cfg.Helpers = append(p.cfg.Helpers, h)
			}
		}
	}
	return nil
}

// labPlace composes a run in an emulated internet, with its helpers.
func (a *app) labPlace(o *checkOptions) (*place, error) {
	s, err := lab.Load(o.lab)
	if err != nil {
		return nil, badScenario(o.lab, err)
	}
	seed := uint64(o.seed)
	if seed == 0 {
		seed = 1
	}
	opts := lab.Options{Client: o.client, Seed: seed, Loss: o.loss}
	if o.at != "" {
		if opts.At, err = lab.ParseTime(o.at); err != nil {
			return nil, usage("for example --at 2018-01-03", "--at: %v", err)
		}
	}
	w, err := lab.New(s, opts)
	if err != nil {
		return nil, hint(err, "`govah lab show %s` lists its clients", s.Name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	p := &place{labName: s.Name, client: w.Client.Name, labTime: w.Now().UTC().Format(time.RFC3339), tap: w.Tap,
		close: func() { cancel(); running.Wait(); w.Close() }}
	p.cfg, err = labConfig(w, seed)
	if err != nil {
		p.close()
		return nil, err
	}
	for _, site := range w.Sites("helper") {
		url, err := mountHelper(ctx, &running, w, site.Name)
		if err != nil {
			p.close()
			return nil, err
		}
		p.cfg.Helpers = append(p.cfg.Helpers, url)
	}
	truth := w.Truth()
	for _, t := range w.Targets() {
		target, err := check.ParseTarget(t)
		if err != nil {
			p.close()
			return nil, fmt.Errorf("scenario %s: %w", s.Name, err)
		}
		p.targets = append(p.targets, target)
	}
	helpers := true
	p.compare = func(v measure.Verdict) (string, bool) {
		row := truth[v.Target]
		if row == nil {
			return "", false
		}
		return row.Compare(v, helpers), true
	}
	if err := a.adjust(o, p); err != nil {
		p.close()
		return nil, err
	}
	helpers = len(p.cfg.Helpers) > 0
	return p, nil
}

// labConfig is the lab's counterpart of what a run knows on a real network.
func labConfig(w *lab.World, seed uint64) (check.Config, error) {
	roots, err := w.Network().Roots()
	if err != nil {
		return check.Config{}, err
	}
	resolver, err := netip.ParseAddr(w.Client.Resolver)
	if err != nil {
		return check.Config{}, err
	}
	logs, err := wire.ParseCTLogs(w.CTLogs())
	if err != nil {
		return check.Config{}, err
	}
	cfg := check.Config{
		Network: w.Network(), Trust: wire.Trust{Public: w.Public(), System: roots, Logs: logs, Now: w.Now}, ASN: w.ASN, Geo: "lab", Seed: seed,
		Surroundings: check.Surroundings{Tunnel: w.Client.Tunnel, Proxy: w.Client.Proxy, Link: w.Client.Link,
			Resolvers: []netip.AddrPort{netip.AddrPortFrom(resolver, 53)}, ASN: w.Client.ASN, Country: w.Client.Country, Source: "lab"},
	}
	for _, c := range w.Sites("canary") {
		cfg.Controls.Canaries = append(cfg.Controls.Canaries, check.CanaryHost{Name: c.Name, Addrs: c.AllAddresses(), H3: c.H3})
	}
	for _, d := range w.Sites("doh") {
		cfg.Controls.DoH = append(cfg.Controls.DoH, check.DoHServer{URL: "https://" + d.Name + "/dns-query", Addrs: d.AllAddresses()})
	}
	for _, r := range w.Sites("resolver") {
		for _, addr := range r.AllAddresses() {
			cfg.Controls.Resolvers = append(cfg.Controls.Resolvers, netip.AddrPortFrom(addr, 53))
		}
	}
	for _, n := range w.Sites("nowhere") {
		cfg.Controls.Nowhere = append(cfg.Controls.Nowhere, n.AllAddresses()...)
		cfg.Controls.Nobody = append(cfg.Controls.Nobody, n.AllAddresses()...)
	}
	for _, r := range append(w.Sites("doh"), w.Sites("resolver")...) {
		cfg.Controls.Public = append(cfg.Controls.Public, known.PublicResolver{Operator: r.Name, Addrs: r.AllAddresses(), Name: r.Name, DoH: "https://" + r.Name + "/dns-query"})
	}
	for _, s := range w.Scenario.Sites {
		if s.Role == "whoami" {
			cfg.Controls.Whoami = append(cfg.Controls.Whoami, s.Name)
		}
		if s.Signed {
			cfg.Controls.Signed = append(cfg.Controls.Signed, s.Name)
		}
		if s.ECH {
			cfg.Controls.ECH = append(cfg.Controls.ECH, s.Name)
		}
	}
	for _, c := range w.Sites("captive-check") {
		cfg.Controls.Captive = "http://" + c.Name + "/"
	}
	hosts, err := w.SSHHosts()
	if err != nil {
		return check.Config{}, err
	}
	for _, h := range hosts {
		cfg.Controls.SSH = append(cfg.Controls.SSH, known.SSHHost{Name: h.Name, Port: h.Port, Operator: h.Name, Control: h.Control, Keys: h.Keys})
	}
	cfg.Controls.SSHAsOf = w.Now().Format(time.DateOnly)
	file, err := w.KnownHosts()
	if err != nil {
		return check.Config{}, err
	}
	cfg.KnownHosts = func(host string, port int) []measure.HostKey {
		keys, err := wire.KnownHosts(bytes.NewReader(file), host, port)
		if err != nil {
			return nil
		}
		return keys
	}
	return cfg, nil
}

// mountHelper runs a test helper on a host of the lab and gives its URL.
func mountHelper(ctx context.Context, running *sync.WaitGroup, w *lab.World, name string) (string, error) {
	m, err := w.Host(name)
	if err != nil {
		return "", err
	}
	cert, err := m.Issue(name)
	if err != nil {
		return "", err
	}
	m.Privilege()
	s, err := helper.New(helper.Config{Network: m.Network(), SetTTL: m.SetTTL, Roots: w.Public(), Certificate: cert, Locate: w.ASN, Version: Version(),
		Now:    func() time.Time { return w.Now().Add(-w.ClockError()) },
		Limits: helper.Limits{LooksPerMinute: 1 << 20, LooksAtOnce: 512, ClientAtOnce: 512, Connections: 1 << 16, ConnectionsEach: 1 << 16, ClientBytes: 1 << 40}})
	if err != nil {
		return "", err
	}
	var l helper.Listeners
	for _, addr := range m.Addresses() {
		for _, port := range []uint16{80, 443} {
			ln, err := m.Listen(netip.AddrPortFrom(addr, port))
			if err != nil {
				return "", err
			}
			l.TCP = append(l.TCP, ln)
		}
		for _, scheme := range slices.Sorted(maps.Keys(wire.MailPorts)) {
			ln, err := m.Listen(netip.AddrPortFrom(addr, uint16(wire.MailPorts[scheme])))
			if err != nil {
				return "", err
			}
			protocol, implicit, _ := wire.MailScheme(scheme)
			l.Mail = append(l.Mail, helper.MailListener{Listener: ln, Protocol: protocol, Implicit: implicit})
		}
		pc, err := m.ListenPacket(netip.AddrPortFrom(addr, 443))
		if err != nil {
			return "", err
		}
		l.UDP = append(l.UDP, net.PacketConn(pc))
	}
	running.Go(func() { s.Serve(ctx, l) })
	return "https://" + name + "/", nil
}
