package lab

import (
	"net/netip"
	"time"

	"govah/lab/box"
)

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

	begins time.Time
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
	Back    int    `toml:"back"`    // so many routers more are on the way from its hosts to the border
	TTL     int    `toml:"ttl"`     // with which its hosts send, 0 is 64
	// ICMPRate is how many errors a second each of its routers sends, 0: all.
	ICMPRate int `toml:"icmp-per-second"`

	delay time.Duration
	p4    netip.Prefix
	p6    netip.Prefix
	next  int // host number of the site that gets an address next
}

// Client is a line that can be measured from, and its operator.
type Client struct {
	Name      string        `toml:"name"`
	About     string        `toml:"about"`
	ASN       int           `toml:"asn"`
	Country   string        `toml:"country"`
	Address4  string        `toml:"address4"`
	Address6  string        `toml:"address6"`
	Hops      int           `toml:"hops"` // routers from the home router to the border
	Silent    []int         `toml:"silent"`
	Brief     []int         `toml:"brief"`    // routers that quote 8 bytes of a packet that died, not most of it
	Equal     []int         `toml:"equal"`    // hops with equal-cost siblings
	Ways      int           `toml:"ways"`     // how many, 0 is 2
	Delay     string        `toml:"delay"`    // one way, to the border
	Resolver  string        `toml:"resolver"` // address; inside the operator unless it is another's
	NoIPv6    bool          `toml:"no-ipv6"`
	NoIPv4    bool          `toml:"no-ipv4"` // with nat64
	NAT64     bool          `toml:"nat64"`   // IPv4 is reached through 64:ff9b::/96, and the resolver says so
	NAT       bool          `toml:"nat"`     // the home router translates from 192.168.1.0/24
	ICMPRate  int           `toml:"icmp-per-second"`
	Lies      []*Lie        `toml:"lie"`
	Link      string        `toml:"link"`               // what the device calls it: ethernet, wifi, mobile
	Tunnel    bool          `toml:"tunnel"`             // a VPN is in use: the line is the tunnel's exit
	Proxy     bool          `toml:"proxy"`              // the system says that a proxy must be used
	Clock     string        `toml:"clock"`              // the device's error, as -400h
	Trusts    bool          `toml:"trusts-interceptor"` // the system trusts the interceptor's root
	Company   bool          `toml:"trusts-company"`     // and that of sites whose cert is private
	Line      *Line         `toml:"line"`
	Boxes     []*BoxAt      `toml:"box"`
	Routers   []*Router     `toml:"router"`
	Intercept *Intercept    `toml:"intercept"`
	WebProxy  *WebProxy     `toml:"web-proxy"`
	Mail      *MailDevice   `toml:"mail"`
	TCPProxy  *TCPProxy     `toml:"tcp-proxy"`
	SSH       *SSHIntercept `toml:"ssh-intercept"`
	Redirect  *DNSRedirect  `toml:"dns-redirect"`
	Strips    []string      `toml:"resolver-strips"` // the operator's resolver leaves out: rrsig, ech
	SimpleDNS bool          `toml:"simple-resolver"` // it knows neither DNSSEC nor the type HTTPS
	RouterDNS bool          `toml:"router-dns"`      // the home router answers all of port 53 itself
	Captive   bool          `toml:"captive"`         // nobody has logged in at the portal
	Truth     []Truth       `toml:"truth"`           // about the line itself

	delay    time.Duration
	clock    time.Duration
	v4, v6   netip.Addr // as the world sees it
	resolver netip.Addr
}

// Lie is what the operator's own resolver answers against the truth.
type Lie struct {
	Fact    string   `toml:"fact"`
	Names   []string `toml:"names"` // exact; a leading dot: and everything under it
	Kind    string   `toml:"kind"`  // answer (default), nxdomain, servfail, refused, empty, silent
	Answers []string `toml:"answers"`
	CNAME   string   `toml:"cname"`
	TTL     int      `toml:"ttl"` // of the records, seconds; 0 is 300
	From    string   `toml:"from"`
	Until   string   `toml:"until"`

	answers     []netip.Addr
	from, until time.Time
}

// Line is the honest quality of the client's own link.
type Line struct {
	Loss     int    `toml:"loss"`  // per thousand
	Burst    int    `toml:"burst"` // mean length of a run of losses
	Jitter   string `toml:"jitter"`
	Rate     int    `toml:"rate"`      // kbit/s towards the client
	Queue    int    `toml:"queue"`     // bytes, 0 is 64 KiB
	MTU      int    `toml:"mtu"`       // larger packets vanish without a word
	Every    string `toml:"every"`     // it sleeps so often
	Sleep    string `toml:"sleep"`     // for so long
	MaxFlows int    `toml:"max-flows"` // the NAT's table

	jitter, every, sleep time.Duration
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
	// Signs is how well it imitates: careless (default) or well.
	Signs string `toml:"signs"`
	Keys  string `toml:"keys"` // one (default) for all names, or each its own
	// Verifies: what the server cannot prove to be its name passes untouched.
	Verifies bool `toml:"verifies"`
	Eager    bool `toml:"eager"` // accepts before it knows whether the server does
	Late     bool `toml:"late"`  // lets SYNs die that would not reach the server, as MailDevice's
}

// WebProxy is a transparent proxy for port 80.
type WebProxy struct {
	At     int      `toml:"at"`
	Via    string   `toml:"via"`
	Names  []string `toml:"names"`  // alters only these
	Tamper string   `toml:"tamper"` // script, header, "" nothing
	Page   string   `toml:"page"`   // answers with this instead
	Eager  bool     `toml:"eager"`  // accepts before it knows whether the server does
	Adds   []string `toml:"adds"`   // header lines that it adds to requests
	Caches bool     `toml:"caches"` // keeps pages, whatever they say about it
	// ByHost: it asks the server that the Host names, whichever was meant.
	ByHost bool `toml:"by-host"`
	// Verbatim: what it understands it passes on byte for byte, and it is
	// silent where the server does not accept.
	Verbatim bool `toml:"verbatim"`
}

// TCPProxy ends TCP connections and opens its own, whatever is in them; it
// accepts before it knows whether the server does.
type TCPProxy struct {
	At    int   `toml:"at"`
	Ports []int `toml:"ports"` // none: all, as an accelerator does
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
	Role      string            `toml:"role"`      // canary, doh, resolver, nowhere, captive-check, helper, whoami
	NoIPv6    bool              `toml:"no-ipv6"`
	Broken6   bool              `toml:"broken-ipv6"`
	HTTP      string            `toml:"http"`  // redirect (default), same, closed, none
	HTTPS     string            `toml:"https"` // "" open, closed, none
	H3        bool              `toml:"h3"`
	Size      int               `toml:"size"` // bytes of the page, 0 is 20000
	Redirect  string            `toml:"redirect"`
	Status    int               `toml:"status"`
	Cert      string            `toml:"cert"`    // ok, expired, self-signed, wrong-name, missing-intermediate, private
	Key       string            `toml:"key"`     // ecdsa (default), rsa
	Certs     int               `toml:"certs"`   // so many, each with a key of its own, shown in turn
	Unknown   string            `toml:"unknown"` // names it does not know: default (certificate), alert, reset, close
	Slow      string            `toml:"slow"`    // before the answer
	Dead      string            `toml:"dead"`    // refused, silent, nxdomain, no-address, servfail
	Varies    string            `toml:"varies"`  // language, time, random
	Page      string            `toml:"page"`    // captcha, or text
	Blocks    []string          `toml:"blocks"`  // countries it refuses
	BlockASNs []int             `toml:"blocks-asns"`
	Refuses   string            `toml:"refuses"` // how: 403 (default), 451, reset
	TLS12     bool              `toml:"tls12"`
	Identity  string            `toml:"identity"` // of a resolver: id.server
	Deeper    int               `toml:"deeper"`   // port 443 is so many routers behind port 80
	Signed    bool              `toml:"signed"`   // its DNS has DNSSEC
	ECH       bool              `toml:"ech"`      // its HTTPS record has the keys
	Banner    string            `toml:"banner"`   // for plain services
	Ports     []int             `toml:"ports"`
	Mail      []*MailService    `toml:"mail"`
	About     string            `toml:"about"`
	SSH       *SSHServer        `toml:"ssh"`
	Truth     []Truth           `toml:"truth"`

	v4, v6 []netip.Addr
	net    *Network
	slow   time.Duration
}

// AllAddresses are a site's own, IPv4 first.
func (t *Site) AllAddresses() []netip.Addr {
	return append(append([]netip.Addr{}, t.v4...), t.v6...)
}
