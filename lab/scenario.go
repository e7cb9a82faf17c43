package lab

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"govah/lab/box"
	"govah/measure"
)

//go:embed scenarios/*.toml
var embedded embed.FS

// Scenario is an emulated internet and the truth about it: the contents of a
// scenario file (docs/formats/scenario-v1.md).
type Scenario struct {
	Name     string     `toml:"-"`
	Schema   int        `toml:"schema"`
	Title    string     `toml:"title"`
	About    string     `toml:"about"`
	Date     string     `toml:"date"`   // the date there, if --at does not say
	Client   string     `toml:"client"` // whose line, if --client does not say
	Networks []*Network `toml:"network"`
	Clients  []*Client  `toml:"client-network"`
	Sites    []*Site    `toml:"site"`
	Date_    time.Time  `toml:"-"`
}

// Network is a hosting network beyond the client's own.
type Network struct {
	Name    string `toml:"name"`
	ASN     int    `toml:"asn"`
	Country string `toml:"country"`
	Prefix4 string `toml:"prefix4"` // a /24; assigned if empty
	Prefix6 string `toml:"prefix6"` // a /64
	Hops    int    `toml:"hops"`    // routers from the border to its hosts
	Silent  []int  `toml:"silent"`  // which of them answer no probe, from 1
	Equal   int    `toml:"equal"`   // the second hop has so many equal-cost siblings
	Delay   string `toml:"delay"`   // one way, from the client's border

	delay time.Duration
	p4    netip.Prefix
	p6    netip.Prefix
	next  int
}

// Client is a line that can be measured from, and its operator.
type Client struct {
	Name      string     `toml:"name"`
	About     string     `toml:"about"`
	ASN       int        `toml:"asn"`
	Country   string     `toml:"country"`
	Address4  string     `toml:"address4"`
	Address6  string     `toml:"address6"`
	Hops      int        `toml:"hops"` // routers from the home router to the border
	Silent    []int      `toml:"silent"`
	Delay     string     `toml:"delay"`    // one way, to the border
	Resolver  string     `toml:"resolver"` // address; inside the operator unless it is another's
	NoIPv6    bool       `toml:"no-ipv6"`
	NoIPv4    bool       `toml:"no-ipv4"` // with nat64
	NAT64     bool       `toml:"nat64"`
	Link      string     `toml:"link"`
	Tunnel    bool       `toml:"tunnel"`
	Proxy     bool       `toml:"proxy"`
	Clock     string     `toml:"clock"` // the device's error, as -400h
	Trusts    bool       `toml:"trusts-interceptor"`
	Line      *Line      `toml:"line"`
	Boxes     []*BoxAt   `toml:"box"`
	Intercept *Intercept `toml:"intercept"`
	WebProxy  *WebProxy  `toml:"web-proxy"`
	Captive   bool       `toml:"captive"`

	delay time.Duration
	clock time.Duration
	v4    netip.Addr
	v6    netip.Addr
}

// Line is the honest quality of the client's own link.
type Line struct {
	Loss     int    `toml:"loss"` // per thousand
	Burst    int    `toml:"burst"`
	Jitter   string `toml:"jitter"`
	Rate     int    `toml:"rate"`  // kbit/s
	Queue    int    `toml:"queue"` // bytes
	MTU      int    `toml:"mtu"`
	Every    string `toml:"every"`
	Sleep    string `toml:"sleep"`
	MaxFlows int    `toml:"max-flows"`
}

// BoxAt is a filter behind the client's hop number At (0: on the home router's
// own link).
type BoxAt struct {
	At    int        `toml:"at"`
	Rules []box.Rule `toml:"rule"`
}

// Intercept terminates TLS on the path and re-signs.
type Intercept struct {
	At     int      `toml:"at"`
	Names  []string `toml:"names"` // none: all
	Issuer string   `toml:"issuer"`
	Fact   string   `toml:"fact"`
}

// WebProxy is a transparent proxy for port 80.
type WebProxy struct {
	At     int      `toml:"at"`
	Via    string   `toml:"via"`
	Names  []string `toml:"names"`  // alters only these
	Tamper string   `toml:"tamper"` // script, header, "" nothing
	Page   string   `toml:"page"`   // answers with this instead
}

// Site is a web site, or another service, and how it behaves by itself.
type Site struct {
	Name      string            `toml:"name"`
	Network   string            `toml:"network"`
	Addresses []string          `toml:"addresses"` // assigned if empty
	Shares    string            `toml:"shares"`    // has the addresses of this site
	Count     int               `toml:"count"`     // addresses per family, 0 is 1
	Rotate    bool              `toml:"rotate"`    // answers with one of them in turn
	GeoDNS    map[string]string `toml:"geodns"`    // resolver's country -> network
	Role      string            `toml:"role"`      // canary, doh, resolver, nowhere, captive-check, helper
	NoIPv6    bool              `toml:"no-ipv6"`
	Broken6   bool              `toml:"broken-ipv6"`
	HTTP      string            `toml:"http"`  // redirect (default), same, closed, none
	HTTPS     string            `toml:"https"` // "" open, closed, none
	H3        bool              `toml:"h3"`
	Size      int               `toml:"size"` // bytes of the page, 0 is 20000
	Redirect  string            `toml:"redirect"`
	Status    int               `toml:"status"`
	Cert      string            `toml:"cert"`    // ok, expired, self-signed, wrong-name, missing-intermediate
	Unknown   string            `toml:"unknown"` // names it does not know: default (certificate), alert, reset, close
	Slow      string            `toml:"slow"`    // before the answer
	Dead      string            `toml:"dead"`    // refused, silent, nxdomain, no-address, servfail
	Varies    string            `toml:"varies"`  // language, time, random
	Page      string            `toml:"page"`    // captcha, or text
	Blocks    []string          `toml:"blocks"`  // countries it refuses
	BlockASNs []int             `toml:"blocks-asns"`
	Refuses   string            `toml:"refuses"` // how: 403 (default), 451, reset
	TLS12     bool              `toml:"tls12"`
	Banner    string            `toml:"banner"` // for plain services
	Ports     []int             `toml:"ports"`
	About     string            `toml:"about"`
	Truth     []Truth           `toml:"truth"`

	v4, v6 []netip.Addr
	net    *Network
	slow   time.Duration
	turn   int
}

// Truth is what was really done to a site, for a target, a client and a time.
type Truth struct {
	Target       string   `toml:"target"`  // default: https://name/
	Clients      []string `toml:"clients"` // default: all
	From         string   `toml:"from"`
	Until        string   `toml:"until"`
	Reachable    string   `toml:"reachable"`
	Interference string   `toml:"interference"` // default: none
	Methods      []string `toml:"methods"`      // any of these
	Trigger      string   `toml:"trigger"`
	Family       string   `toml:"family"`
	// Decidable: local (default), helper, or never; what is not decidable
	// must come out as unknown or suspected.
	Decidable string `toml:"decidable"`
	// Benign methods that may be given as well.
	Why string `toml:"why"`

	from, until time.Time
	URL         string `toml:"-"`
	Site        *Site  `toml:"-"`
}

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
		return nil, fmt.Errorf("key %q is not known; docs/formats/scenario-v1.md lists them all", un[0])
	}
	return s, s.check()
}

func (s *Scenario) check() error {
	if s.Schema != 1 {
		return fmt.Errorf("schema is %d; this program reads schema = 1", s.Schema)
	}
	if len(s.Clients) == 0 || len(s.Networks) == 0 || len(s.Sites) == 0 {
		return errors.New("it needs at least one [[client-network]], one [[network]] and one [[site]]")
	}
	var err error
	span := func(where, what, text string, into *time.Duration) {
		if text != "" && err == nil {
			if *into, err = time.ParseDuration(text); err != nil {
				err = fmt.Errorf("%s: %s %q is no duration such as 20ms", where, what, text)
			}
		}
	}
	if s.Date == "" {
		s.Date = "2026-06-01T12:00:00Z"
	}
	if s.Date_, err = ParseTime(s.Date); err != nil {
		return fmt.Errorf("date: %w", err)
	}
	if s.Client == "" {
		s.Client = s.Clients[0].Name
	}
	if s.FindClient(s.Client) == nil {
		return fmt.Errorf("client %q has no [[client-network]] of that name", s.Client)
	}
	nets := map[string]*Network{}
	for i, n := range s.Networks {
		where := fmt.Sprintf("network %q", n.Name)
		if n.Name == "" || nets[n.Name] != nil {
			return fmt.Errorf("network %d: its name %q is empty or not unique", i+1, n.Name)
		}
		nets[n.Name] = n
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
		if n.p4, err = netip.ParsePrefix(n.Prefix4); err != nil || n.p4.Bits() > 24 {
			return fmt.Errorf("%s: prefix4 %q is no IPv4 prefix of /24 or larger", where, n.Prefix4)
		}
		if n.p6, err = netip.ParsePrefix(n.Prefix6); err != nil || n.p6.Bits() > 64 {
			return fmt.Errorf("%s: prefix6 %q is no IPv6 prefix of /64 or larger", where, n.Prefix6)
		}
		n.next = 10
		span(where, "delay", n.Delay, &n.delay)
	}
	names := map[string]bool{}
	for i, c := range s.Clients {
		where := fmt.Sprintf("client-network %q", c.Name)
		if c.Name == "" || names[c.Name] {
			return fmt.Errorf("client-network %d: its name %q is empty or not unique", i+1, c.Name)
		}
		names[c.Name] = true
		if c.Hops == 0 {
			c.Hops = 4
		}
		if c.Address4 == "" {
			c.Address4 = fmt.Sprintf("5.%d.0.77", 100+i)
		}
		if c.Address6 == "" {
			c.Address6 = fmt.Sprintf("2a0f:%x::77", 0x1000+i)
		}
		if c.v4, err = netip.ParseAddr(c.Address4); err != nil || !c.v4.Is4() {
			return fmt.Errorf("%s: address4 %q is no IPv4 address", where, c.Address4)
		}
		if c.v6, err = netip.ParseAddr(c.Address6); err != nil || !c.v6.Is6() {
			return fmt.Errorf("%s: address6 %q is no IPv6 address", where, c.Address6)
		}
		if c.Resolver == "" {
			b := c.v4.As4()
			c.Resolver = netip.AddrFrom4([4]byte{b[0], b[1], 255, 53}).String()
		}
		if _, err := netip.ParseAddr(c.Resolver); err != nil {
			return fmt.Errorf("%s: resolver %q is no address", where, c.Resolver)
		}
		span(where, "delay", c.Delay, &c.delay)
		span(where, "clock", c.Clock, &c.clock)
		for _, b := range c.Boxes {
			if b.At < 0 || b.At > c.Hops {
				return fmt.Errorf("%s: a box at hop %d, but it has %d hops", where, b.At, c.Hops)
			}
			if _, err := box.NewFilter(b.Rules, 1, nil); err != nil {
				return fmt.Errorf("%s: the box at hop %d: %w", where, b.At, err)
			}
		}
		if l := c.Line; l != nil {
			var d time.Duration
			span(where, "line.jitter", l.Jitter, &d)
			span(where, "line.every", l.Every, &d)
			span(where, "line.sleep", l.Sleep, &d)
		}
	}
	sites := map[string]*Site{}
	for i, t := range s.Sites {
		where := fmt.Sprintf("site %q", t.Name)
		if t.Name == "" || sites[t.Name] != nil {
			return fmt.Errorf("site %d: its name %q is empty or not unique", i+1, t.Name)
		}
		sites[t.Name] = t
		if t.Network == "" && t.Shares == "" {
			t.Network = s.Networks[0].Name
		}
		if t.Shares == "" {
			if t.net = nets[t.Network]; t.net == nil {
				return fmt.Errorf("%s: there is no network %q", where, t.Network)
			}
		}
		for what, list := range map[string][]string{
			t.Role: {"", "canary", "doh", "resolver", "nowhere", "captive-check", "helper"}, "\x00http " + t.HTTP: {"\x00http ", "\x00http redirect", "\x00http same", "\x00http closed", "\x00http none"},
			"\x00cert " + t.Cert:       {"\x00cert ", "\x00cert ok", "\x00cert expired", "\x00cert self-signed", "\x00cert wrong-name", "\x00cert missing-intermediate"},
			"\x00unknown " + t.Unknown: {"\x00unknown ", "\x00unknown default", "\x00unknown alert", "\x00unknown reset", "\x00unknown close"},
			"\x00dead " + t.Dead:       {"\x00dead ", "\x00dead refused", "\x00dead silent", "\x00dead nxdomain", "\x00dead no-address", "\x00dead servfail"},
			"\x00varies " + t.Varies:   {"\x00varies ", "\x00varies language", "\x00varies time", "\x00varies random"},
			"\x00refuses " + t.Refuses: {"\x00refuses ", "\x00refuses 403", "\x00refuses 451", "\x00refuses reset"},
			"\x00https " + t.HTTPS:     {"\x00https ", "\x00https closed", "\x00https none"},
		} {
			if !slices.Contains(list, what) {
				return fmt.Errorf("%s: %q is not one of: %s", where, strings.TrimPrefix(what, "\x00"), strings.ReplaceAll(strings.Join(list, ", "), "\x00", ""))
			}
		}
		for country, n := range t.GeoDNS {
			if nets[n] == nil {
				return fmt.Errorf("%s: geodns for %s names network %q, which there is not", where, country, n)
			}
		}
		span(where, "slow", t.Slow, &t.slow)
	}
	if err != nil {
		return err
	}
	for _, t := range s.Sites {
		if t.Shares != "" && sites[t.Shares] == nil {
			return fmt.Errorf("site %q: it shares with %q, which there is not", t.Name, t.Shares)
		}
		for i := range t.Truth {
			if err := s.checkTruth(t, &t.Truth[i]); err != nil {
				return fmt.Errorf("site %q, truth %d: %w", t.Name, i+1, err)
			}
		}
	}
	return nil
}

func (s *Scenario) checkTruth(t *Site, r *Truth) (err error) {
	r.Site = t
	r.URL = r.Target
	if r.URL == "" {
		r.URL = "https://" + t.Name + "/"
	}
	if u, err := url.Parse(r.URL); err != nil || u.Host == "" {
		return fmt.Errorf("target %q is no URL", r.URL)
	}
	if r.Interference == "" {
		r.Interference = string(measure.InterferenceNone)
	}
	if r.Decidable == "" {
		r.Decidable = "local"
	}
	if !slices.Contains([]string{"local", "helper", "never"}, r.Decidable) {
		return fmt.Errorf("decidable %q is not local, helper or never", r.Decidable)
	}
	if !slices.Contains([]string{"none", "confirmed"}, r.Interference) {
		return fmt.Errorf("interference %q: what was really done is none or confirmed", r.Interference)
	}
	if !slices.Contains([]string{"", "yes", "no", "partly"}, r.Reachable) {
		return fmt.Errorf("reachable %q is not yes, no or partly", r.Reachable)
	}
	if r.Interference == "confirmed" && len(r.Methods) == 0 {
		return errors.New("interference needs methods")
	}
	for _, c := range r.Clients {
		if s.FindClient(c) == nil {
			return fmt.Errorf("there is no client-network %q", c)
		}
	}
	if r.From != "" {
		if r.from, err = ParseTime(r.From); err != nil {
			return err
		}
	}
	if r.Until != "" {
		r.until, err = ParseTime(r.Until)
	}
	return err
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

// Applies says whether the row speaks of this client and time.
func (r *Truth) Applies(client string, at time.Time) bool {
	return (len(r.Clients) == 0 || slices.Contains(r.Clients, client)) &&
		(r.from.IsZero() || !at.Before(r.from)) && (r.until.IsZero() || at.Before(r.until))
}

// Compare holds a verdict against the row. An empty problem means that the
// verdict is right: exact where the row is decidable with what the run had,
// and otherwise not more than the run could know.
func (r *Truth) Compare(v measure.Verdict, withHelpers bool) (problem string) {
	var got []string
	accusing := false
	for _, f := range v.Findings {
		if !f.Method.Benign() {
			accusing = true
			got = append(got, string(f.Method))
		}
	}
	said := fmt.Sprintf("said reachable %s, interference %s, %s", v.Reachable, v.Interference, strings.Join(got, " "))
	decidable := r.Decidable == "local" || r.Decidable == "helper" && withHelpers
	if r.Interference == string(measure.InterferenceNone) {
		switch {
		case v.Interference == measure.InterferenceConfirmed:
			return "nothing was done to it; " + said
		case !decidable:
			return ""
		case v.Interference != measure.InterferenceNone || accusing:
			return "nothing was done to it; " + said
		case r.Reachable != "" && string(v.Reachable) != r.Reachable:
			return "it is reachable: " + r.Reachable + "; " + said
		}
		return ""
	}
	if !decidable {
		if v.Interference == measure.InterferenceNone {
			return "interfered with by " + strings.Join(r.Methods, " or ") + ", though not decidable here; " + said
		}
		if v.Interference == measure.InterferenceConfirmed && !r.hasMethod(v, "") {
			return "really " + strings.Join(r.Methods, " or ") + "; " + said
		}
		return ""
	}
	if v.Interference != measure.InterferenceConfirmed || !r.hasMethod(v, r.Trigger) {
		want := strings.Join(r.Methods, " or ")
		if r.Trigger != "" {
			want += " by " + r.Trigger
		}
		return "really " + want + "; " + said
	}
	if r.Reachable != "" && string(v.Reachable) != r.Reachable {
		return "it is reachable: " + r.Reachable + "; " + said
	}
	return ""
}

func (r *Truth) hasMethod(v measure.Verdict, trigger string) bool {
	for _, f := range v.Findings {
		if slices.Contains(r.Methods, string(f.Method)) && f.Interference == measure.InterferenceConfirmed &&
			(trigger == "" || f.Trigger.Kind == trigger) && (r.Family == "" || string(f.Family) == r.Family) {
			return true
		}
	}
	return false
}
