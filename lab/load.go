package lab

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/miekg/dns"

	"govah/lab/box"
	"govah/measure"
)

//go:embed scenarios/*.toml
var embedded embed.FS

// Names are the scenarios that are built in, sorted.
func Names() []string {
	entries, err := fs.ReadDir(embedded, "scenarios")
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.Name(), ".toml"))
	}
	sort.Strings(out)
	return out
}

// Load reads a built-in scenario by name, or a scenario file.
func Load(nameOrPath string) (*Scenario, error) {
	data, err := embedded.ReadFile(path.Join("scenarios", nameOrPath+".toml"))
	name := nameOrPath
	if err != nil {
		if !strings.ContainsAny(nameOrPath, "./\\") {
			return nil, fmt.Errorf("there is no scenario %q; built in are: %s; a file is given with its path, as ./%s.toml", nameOrPath, strings.Join(Names(), ", "), nameOrPath)
		}
		st, serr := os.Stat(nameOrPath)
		if serr != nil {
			return nil, fmt.Errorf("reading a scenario: %w", serr)
		}
		if st.Size() > 4<<20 {
			return nil, fmt.Errorf("%s is larger than 4 MiB, which no scenario is", nameOrPath)
		}
		if data, err = os.ReadFile(nameOrPath); err != nil {
			return nil, fmt.Errorf("reading a scenario: %w", err)
		}
		name = strings.TrimSuffix(path.Base(nameOrPath), ".toml")
	}
	s, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("scenario %s: %w", nameOrPath, err)
	}
	s.Name = name
	return s, nil
}

// Parse reads and checks a scenario.
func Parse(data []byte) (*Scenario, error) {
	s := &Scenario{}
	meta, err := toml.Decode(string(data), s)
	if err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			return nil, fmt.Errorf("line %d: %s", pe.Position.Line, pe.Message)
		}
		return nil, err
	}
	if un := meta.Undecoded(); len(un) > 0 {
		return nil, unknownKey(un[0], data)
	}
	return s, s.check()
}

// unknownKey says where a key stands that nothing reads, and which its table
// may have.
func unknownKey(key toml.Key, data []byte) error {
	t := reflect.TypeFor[Scenario]()
	table := "the top level"
	for i, part := range key {
		known, fields := keysOf(t)
		f, ok := fields[part]
		if ok {
			for t = f; t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice; {
				t = t.Elem()
			}
			table = "[" + strings.Join(key[:i+1], ".") + "]"
			if t.Kind() == reflect.Struct {
				continue
			}
		}
		line := ""
		for n, text := range strings.Split(string(data), "\n") {
			if rest, ok := strings.CutPrefix(strings.TrimLeft(text, " \t[\"'"), part); ok && strings.TrimLeft(rest, " \t\"'") != "" && strings.ContainsAny(strings.TrimLeft(rest, " \t\"'")[:1], "=].") {
				line = fmt.Sprintf("line %d: ", n+1)
				break
			}
		}
		return fmt.Errorf("%skey %q is not known in %s; there are: %s", line, part, table, strings.Join(known, ", "))
	}
	return fmt.Errorf("key %q is not known", key)
}

func keysOf(t reflect.Type) (names []string, fields map[string]reflect.Type) {
	fields = map[string]reflect.Type{}
	if t.Kind() != reflect.Struct {
		return nil, fields
	}
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("toml"); name != "" && name != "-" {
			names = append(names, name)
			fields[name] = t.Field(i).Type
		}
	}
	sort.Strings(names)
	return names, fields
}

// checker collects the first thing that is wrong.
type checker struct{ err error }

func (c *checker) failf(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

func (c *checker) duration(where, key, text string, into *time.Duration) {
	if text == "" {
		return
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 && key != "clock" {
		c.failf("%s: %s %q is no duration such as 20ms", where, key, text)
	}
	*into = d
}

func (c *checker) time(where, key, text string, into *time.Time) {
	if text == "" {
		return
	}
	t, err := ParseTime(text)
	if err != nil {
		c.failf("%s: %s: %w", where, key, err)
	}
	*into = t
}

func (c *checker) oneOf(where, key, value string, list ...string) {
	if value != "" && !slices.Contains(list, value) {
		c.failf("%s: %s %q is not known; it is one of: %s", where, key, value, strings.Join(list, ", "))
	}
}

func (c *checker) within(where, key string, value, low, high int) {
	if value < low || value > high {
		c.failf("%s: %s is %d; it lies between %d and %d", where, key, value, low, high)
	}
}

func (c *checker) address(where, key, text string) netip.Addr {
	a, err := netip.ParseAddr(text)
	if err != nil {
		c.failf("%s: %s %q is no address", where, key, text)
	}
	return a.Unmap()
}

// hostName checks what is put into certificates, DNS answers and TOML truths.
func (c *checker) hostName(where, name string) {
	if _, ok := dns.IsDomainName(name); !ok || name == "" || strings.ToLower(name) != name || strings.ContainsAny(name, " /:\\\x00") || strings.HasSuffix(name, ".") {
		c.failf("%s: %q is no host name in lower case", where, name)
	}
}

func (s *Scenario) check() error {
	if s.Schema != 1 {
		return fmt.Errorf("schema is %d; this program reads schema = 1", s.Schema)
	}
	if len(s.Clients) == 0 || len(s.Networks) == 0 || len(s.Sites) == 0 {
		return errors.New("it needs at least one [[client-network]], one [[network]] and one [[site]]")
	}
	if s.Date == "" {
		s.Date = "2026-06-01T12:00:00Z"
	}
	c := &checker{}
	c.time("the top level", "date", s.Date, &s.begins)
	if s.Client == "" {
		s.Client = s.Clients[0].Name
	}
	if s.FindClient(s.Client) == nil {
		return fmt.Errorf("client %q has no [[client-network]] of that name", s.Client)
	}
	nets := map[string]*Network{}
	for i, n := range s.Networks {
		if n.Name == "" || nets[n.Name] != nil {
			return fmt.Errorf("network %d: its name %q is empty or not unique", i+1, n.Name)
		}
		nets[n.Name] = n
		n.check(i, c)
	}
	names := map[string]bool{}
	for i, k := range s.Clients {
		if k.Name == "" || names[k.Name] {
			return fmt.Errorf("client-network %d: its name %q is empty or not unique", i+1, k.Name)
		}
		names[k.Name] = true
		k.check(i, c)
	}
	sites := map[string]*Site{}
	for i, t := range s.Sites {
		if t.Name == "" || sites[t.Name] != nil {
			return fmt.Errorf("site %d: its name %q is empty or not unique", i+1, t.Name)
		}
		sites[t.Name] = t
		if t.Network == "" && t.Shares == "" {
			t.Network = s.Networks[0].Name
		}
		t.check(nets, c)
		if t.SSH != nil {
			t.SSH.check(fmt.Sprintf("site %q", t.Name), s.Sites, c)
		}
	}
	if c.err != nil {
		return c.err
	}
	if err := s.place(nets, sites); err != nil {
		return err
	}
	for _, t := range s.Sites {
		for i := range t.Truth {
			if t.Truth[i].Target == "" {
				t.Truth[i].Target = "https://" + t.Name + "/"
			}
			if err := s.checkTruth(t, &t.Truth[i]); err != nil {
				return fmt.Errorf("site %q, truth %d: %w", t.Name, i+1, err)
			}
		}
	}
	for _, k := range s.Clients {
		for i := range k.Truth {
			r := &k.Truth[i]
			if r.Target != "" || len(r.Clients) > 0 {
				return fmt.Errorf("client-network %q, truth %d: it is about this client's line: target and clients do not belong there", k.Name, i+1)
			}
			r.Target, r.Clients = measure.LineTarget, []string{k.Name}
			if err := s.checkTruth(nil, r); err != nil {
				return fmt.Errorf("client-network %q, truth %d: %w", k.Name, i+1, err)
			}
		}
	}
	return nil
}

func (n *Network) check(i int, c *checker) {
	where := fmt.Sprintf("network %q", n.Name)
	if n.Hops == 0 {
		n.Hops = 3
	}
	if n.ASN == 0 {
		n.ASN = 64500 + i
	}
	if n.Prefix4 == "" {
		n.Prefix4 = fmt.Sprintf("45.%d.0.0/24", 10+i)
	}
	if n.Prefix6 == "" {
		n.Prefix6 = fmt.Sprintf("2a0e:%x::/64", 0x1000+i)
	}
	var err error
	if n.p4, err = netip.ParsePrefix(n.Prefix4); err != nil || !n.p4.Addr().Is4() || n.p4.Bits() > 24 {
		c.failf("%s: prefix4 %q is no IPv4 prefix of /24 or larger", where, n.Prefix4)
	}
	if n.p6, err = netip.ParsePrefix(n.Prefix6); err != nil || !n.p6.Addr().Is6() || n.p6.Bits() > 64 {
		c.failf("%s: prefix6 %q is no IPv6 prefix of /64 or larger", where, n.Prefix6)
	}
	n.p4, n.p6 = n.p4.Masked(), n.p6.Masked()
	n.next = 10
	c.within(where, "hops", n.Hops, 1, 10)
	c.within(where, "equal", n.Equal, 0, 16)
	c.within(where, "icmp-per-second", n.ICMPRate, 0, 1_000_000)
	c.within(where, "back", n.Back, 0, 30)
	c.within(where, "ttl", n.TTL, 0, 255)
	c.duration(where, "delay", n.Delay, &n.delay)
}

func (k *Client) check(i int, c *checker) {
	where := fmt.Sprintf("client-network %q", k.Name)
	if k.Hops == 0 {
		k.Hops = 4
	}
	if k.Address4 == "" {
		k.Address4 = fmt.Sprintf("5.%d.0.77", 100+i)
	}
	if k.Address6 == "" {
		k.Address6 = fmt.Sprintf("2a0f:%x::77", 0x1000+i)
	}
	if k.v4 = c.address(where, "address4", k.Address4); !k.v4.Is4() {
		c.failf("%s: address4 %q is no IPv4 address", where, k.Address4)
	}
	if k.v6 = c.address(where, "address6", k.Address6); !k.v6.Is6() {
		c.failf("%s: address6 %q is no IPv6 address", where, k.Address6)
	}
	if c.err != nil {
		return
	}
	if k.Resolver == "" {
		if b := k.v6.As16(); k.NoIPv4 {
			b[13], b[14], b[15] = 0x53, 0, 0x53
			k.Resolver = netip.AddrFrom16(b).String()
		} else {
			b := k.v4.As4()
			k.Resolver = netip.AddrFrom4([4]byte{b[0], b[1], 255, 53}).String()
		}
	}
	k.resolver = c.address(where, "resolver", k.Resolver)
	if k.NoIPv4 && (k.NoIPv6 || k.NAT) {
		c.failf("%s: no-ipv4 goes with neither no-ipv6 nor nat", where)
	}
	if k.NAT64 && !k.NoIPv4 {
		c.failf("%s: nat64 needs no-ipv4 = true", where)
	}
	if k.NoIPv4 && k.resolver.Is4() || k.NoIPv6 && k.resolver.Is6() {
		c.failf("%s: resolver %s is of the family that the line does not have", where, k.resolver)
	}
	c.within(where, "hops", k.Hops, 1, 20)
	c.within(where, "ways", k.Ways, 0, 16)
	for _, h := range k.Brief {
		c.within(where, "brief", h, 1, k.Hops)
	}
	for _, h := range k.Equal {
		c.within(where, "equal", h, 2, k.Hops)
	}
	c.within(where, "icmp-per-second", k.ICMPRate, 0, 1_000_000)
	c.duration(where, "delay", k.Delay, &k.delay)
	c.duration(where, "clock", k.Clock, &k.clock)
	at := func(what string, hop int) { c.within(where, what+": at", hop, 0, k.Hops) }
	for _, b := range k.Boxes {
		at("box", b.At)
		if _, err := box.NewFilter(b.Rules, 1, nil); err != nil {
			c.failf("%s: the box at hop %d: %w", where, b.At, err)
		}
	}
	routers := map[int]bool{}
	for _, r := range k.Routers {
		r.check(where, k.Hops, c)
		if routers[r.At] {
			c.failf("%s: the router at hop %d is there twice", where, r.At)
		}
		routers[r.At] = true
	}
	if k.Intercept != nil {
		at("intercept", k.Intercept.At)
		c.oneOf(where, "intercept: signs", k.Intercept.Signs, "careless", "well")
		c.oneOf(where, "intercept: keys", k.Intercept.Keys, "one", "each")
	}
	if i := k.SSH; i != nil {
		at("ssh-intercept", i.At)
		for _, kind := range i.Keys {
			c.oneOf(where, "ssh-intercept: keys", kind, sshKeyTypes...)
		}
	}
	if k.Trusts && k.Intercept == nil && (k.Mail == nil || !k.Mail.does("answer")) {
		c.failf("%s: trusts-interceptor needs [client-network.intercept], or a mail device that answers", where)
	}
	for _, s := range k.Strips {
		c.oneOf(where, "resolver-strips", s, "rrsig", "ech")
	}
	if p := k.TCPProxy; p != nil {
		at("tcp-proxy", p.At)
		for _, n := range p.Ports {
			c.within(where, "tcp-proxy: ports", n, 1, 65535)
		}
	}
	if r := k.Redirect; r != nil {
		at("dns-redirect", r.At)
		c.within(where, "dns-redirect: hops", r.Hops, 0, 20)
		c.oneOf(where, "dns-redirect: errors", r.Errors, "all", "quoted", "none")
		for _, n := range r.Silent {
			c.within(where, "dns-redirect: silent", n, 1, r.Hops)
		}
	}
	if p := k.WebProxy; p != nil {
		at("web-proxy", p.At)
		c.oneOf(where, "web-proxy: tamper", p.Tamper, "script", "header")
		for _, line := range p.Adds {
			if name, _, ok := strings.Cut(line, ": "); !ok || name == "" || strings.ContainsAny(line, "\r\n") {
				c.failf("%s: web-proxy: adds %q is no header line such as \"X-Name: value\"", where, line)
			}
		}
	}
	if k.Mail != nil {
		at("mail", k.Mail.At)
		k.Mail.check(where, c)
	}
	for _, l := range k.Lies {
		l.check(where, c)
	}
	if l := k.Line; l != nil {
		c.within(where, "line: loss", l.Loss, 0, 1000)
		c.within(where, "line: burst", l.Burst, 0, 1000)
		c.within(where, "line: rate", l.Rate, 0, 10_000_000)
		c.within(where, "line: queue", l.Queue, 0, 1<<30)
		c.within(where, "line: max-flows", l.MaxFlows, 0, 1<<20)
		if l.MTU != 0 {
			c.within(where, "line: mtu", l.MTU, 576, 1500)
		}
		c.duration(where, "line: jitter", l.Jitter, &l.jitter)
		c.duration(where, "line: every", l.Every, &l.every)
		c.duration(where, "line: sleep", l.Sleep, &l.sleep)
	}
}

func (l *Lie) check(where string, c *checker) {
	where += ": lie"
	if len(l.Names) == 0 {
		c.failf("%s: it needs names", where)
	}
	if l.Kind == "" {
		l.Kind = "answer"
	}
	c.oneOf(where, "kind", l.Kind, "answer", "nxdomain", "servfail", "refused", "empty", "silent")
	if (l.Kind == "answer") != (len(l.Answers) > 0 || l.CNAME != "") {
		c.failf("%s: answers or cname belong to kind answer, and to no other", where)
	}
	c.within(where, "ttl", l.TTL, 0, 1<<31-1)
	for _, text := range l.Answers {
		l.answers = append(l.answers, c.address(where, "answers", text))
	}
	c.time(where, "from", l.From, &l.from)
	c.time(where, "until", l.Until, &l.until)
}

func (t *Site) check(nets map[string]*Network, c *checker) {
	where := fmt.Sprintf("site %q", t.Name)
	c.hostName(where, t.Name)
	if t.Shares == "" {
		if t.net = nets[t.Network]; t.net == nil {
			c.failf("%s: there is no network %q", where, t.Network)
		}
	} else if t.Network != "" || len(t.Addresses) > 0 {
		c.failf("%s: it shares the addresses of %s, so it has neither network nor addresses", where, t.Shares)
	}
	c.oneOf(where, "role", t.Role, "canary", "doh", "resolver", "nowhere", "captive-check", "helper", "whoami")
	c.oneOf(where, "http", t.HTTP, "redirect", "same", "closed", "none")
	c.oneOf(where, "https", t.HTTPS, "closed", "none")
	c.oneOf(where, "cert", t.Cert, "ok", "expired", "self-signed", "wrong-name", "missing-intermediate", "private")
	c.oneOf(where, "key", t.Key, "ecdsa", "rsa")
	c.within(where, "certs", t.Certs, 0, 1000)
	c.oneOf(where, "unknown", t.Unknown, "default", "alert", "reset", "close")
	c.oneOf(where, "dead", t.Dead, "refused", "silent", "nxdomain", "no-address", "servfail")
	c.oneOf(where, "varies", t.Varies, "language", "time", "random")
	c.oneOf(where, "refuses", t.Refuses, "403", "451", "reset")
	c.within(where, "count", t.Count, 0, 32)
	c.within(where, "deeper", t.Deeper, 0, 16)
	c.within(where, "size", t.Size, 0, 64<<20)
	for _, p := range t.Ports {
		c.within(where, "ports", p, 1, 65535)
	}
	if t.Status != 0 {
		c.within(where, "status", t.Status, 200, 599)
	}
	for country, n := range t.GeoDNS {
		if nets[n] == nil {
			c.failf("%s: geodns for %s names network %q, which there is not", where, country, n)
		}
	}
	c.duration(where, "slow", t.Slow, &t.slow)
	for _, m := range t.Mail {
		m.check(where, c)
	}
}

// place gives every site its addresses: those it asks for first, the others
// what is left of their networks.
func (s *Scenario) place(nets map[string]*Network, sites map[string]*Site) error {
	taken := map[netip.Addr]string{}
	for _, n := range s.Networks {
		v4, v6 := n.routers()
		for h := range v4 {
			for i := range v4[h] {
				taken[v4[h][i]], taken[v6[h][i]] = "a router", "a router"
			}
		}
	}
	for _, t := range s.Sites {
		for _, text := range t.Addresses {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return fmt.Errorf("site %q: addresses: %q is no address", t.Name, text)
			}
			if a = a.Unmap(); !t.net.p4.Contains(a) && !t.net.p6.Contains(a) {
				return fmt.Errorf("site %q: address %s is not in its network %s (%s, %s)", t.Name, a, t.Network, t.net.p4, t.net.p6)
			}
			if taken[a] != "" {
				return fmt.Errorf("site %q: address %s belongs to %s; shares = \"…\" is how sites have one address", t.Name, a, taken[a])
			}
			taken[a] = t.Name
			t.give(a)
		}
	}
	for _, t := range s.Sites {
		if t.Shares != "" || len(t.Addresses) > 0 {
			continue
		}
		networks := []*Network{t.net}
		for _, country := range slices.Sorted(maps.Keys(t.GeoDNS)) {
			if n := nets[t.GeoDNS[country]]; !slices.Contains(networks, n) {
				networks = append(networks, n)
			}
		}
		for _, n := range networks {
			for range max(1, t.Count) {
				a4, a6 := n.host()
				for taken[a4] != "" || taken[a6] != "" {
					a4, a6 = n.host()
				}
				if !n.p4.Contains(a4) {
					return fmt.Errorf("site %q: network %s has no address left; give it a larger prefix4", t.Name, n.Name)
				}
				t.give(a4)
				if !t.NoIPv6 {
					t.give(a6)
				}
			}
		}
	}
	for _, t := range s.Sites {
		if t.Shares == "" {
			continue
		}
		of := sites[t.Shares]
		if of == nil || of.Shares != "" {
			return fmt.Errorf("site %q: it shares with %q, which is no site with addresses of its own", t.Name, t.Shares)
		}
		t.v4, t.v6, t.net = of.v4, of.v6, of.net
		if t.NoIPv6 {
			t.v6 = nil
		}
	}
	return nil
}

func (t *Site) give(a netip.Addr) {
	if a.Is4() {
		t.v4 = append(t.v4, a)
	} else {
		t.v6 = append(t.v6, a)
	}
}

// host is the next pair of addresses of a network.
func (n *Network) host() (v4, v6 netip.Addr) {
	n.next++
	return nth(n.p4, n.next), nth(n.p6, n.next)
}

// nth is the n-th address of a prefix.
func nth(p netip.Prefix, n int) netip.Addr {
	b := p.Addr().AsSlice()
	for i := len(b) - 1; n > 0 && i >= 0; i-- {
		n += int(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// routers are the addresses of a network's routers by hop, each with its
// equal-cost siblings.
func (n *Network) routers() (v4, v6 [][]netip.Addr) {
	for h := 1; h <= n.Hops; h++ {
		siblings := 1
		if h == 2 {
			siblings = max(1, n.Equal)
		}
		var l4, l6 []netip.Addr
		for i := range siblings {
			low := h
			if i > 0 {
				low = 200 + i
			}
			a4, a6 := n.p4.Addr().As4(), n.p6.Addr().As16()
			a4[3], a6[14], a6[15] = byte(low), 0xfe, byte(low)
			l4, l6 = append(l4, netip.AddrFrom4(a4)), append(l6, netip.AddrFrom16(a6))
		}
		v4, v6 = append(v4, l4), append(v6, l6)
	}
	return v4, v6
}

// FindClient finds a client by name.
func (s *Scenario) FindClient(name string) *Client {
	for _, c := range s.Clients {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// ParseTime reads a date or a time as scenarios and --at have it.
func ParseTime(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither a date (2018-01-03) nor a time (2018-01-03T12:00:00Z)", text)
}
