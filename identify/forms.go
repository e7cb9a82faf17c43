// Package identify says what kind of device reacts to a trigger: by what it
// writes, by which forms of a name it reads, and by signatures that name a
// product. It is pure: package check tries the forms, this package says which
// would tell most next and what follows from all of them.
package identify

import "slices"

// A form is a way to write a trigger. All but the odd ones are well-formed: a
// server answers them as it answers the plain one, whatever the name is (RFC
// 9110, 9112, 8446, 9000, 1035). What a device makes of them depends on its
// parser (Raman et al., CenFuzz, CoNEXT 2022; Bock et al., Geneva, CCS 2019).
const Plain = "plain"

// The other forms.
const (
	Split      = "split"       // the name over two TCP segments
	Records    = "records"     // tls: the ClientHello over two records
	Upper      = "upper"       // the name in capitals
	Under      = "under"       // a label under the name
	Glued      = "glued"       // a letter in front of the name: another domain
	Large      = "large"       // tls, quic: with a post-quantum key share: two segments or datagrams
	GoHello    = "go"          // tls: a ClientHello that is no browser's
	NameCase   = "name-case"   // http: hOsT
	NoSpace    = "no-space"    // http: no blank after the colon
	Tab        = "tab"         // http: a tab after the colon
	Late       = "late"        // http: Host after the other headers
	Long       = "long"        // http: a target of 2 kB before it
	Absolute   = "absolute"    // http: the whole URL in the request line
	HTTP10     = "http10"      // http: HTTP/1.0
	Head       = "head"        // http: HEAD
	MethodCase = "method-case" // http: gEt, a method nobody has defined
	Port       = "port"        // http: Host with :80
	Dot        = "dot"         // http: a final dot
	Second     = "second"      // http: the second request of a connection
	MSS        = "mss"         // tls, http: in a connection that announces small segments
	Twice      = "twice"       // http, odd: a second Host, of another name
	BareLF     = "lf"          // http, odd: lines end in LF alone
	Wide       = "wide"        // http, odd: two blanks after the method
	TCP        = "tcp"         // dns: over TCP
	AAAA       = "aaaa"        // dns: asks for AAAA
	HTTPS      = "https"       // dns: asks for HTTPS
	NoEDNS     = "no-edns"     // dns: without an OPT record
	Behind     = "behind"      // quic: a datagram that is no Initial before it
	Version2   = "v2"          // quic: version 2
)

// The payloads.
const (
	TLS     = "tls"
	Web     = "http"
	Naming  = "dns"
	QUIC    = "quic"
	MaxForm = 12 // probes of one search, by default
)

// forms of each payload. Those before the bar are asked of every device, so
// that the id of a behaviour does not depend on what else was of interest.
var forms = map[string]struct{ core, more []string }{
	TLS:    {[]string{Split, Records, Under, Glued, Upper}, []string{Large, GoHello, MSS}},
	Web:    {[]string{Split, NameCase, Under, Glued, Second}, []string{Upper, NoSpace, Tab, Late, Long, Absolute, HTTP10, Head, MethodCase, Port, Dot, MSS, Twice, BareLF, Wide}},
	Naming: {[]string{TCP, AAAA, Under, Glued, Upper}, []string{HTTPS, NoEDNS}},
	QUIC:   {[]string{Large, Behind, Under, Glued, Upper}, []string{Version2}},
}

// Forms lists the forms of a payload, Plain aside.
func Forms(payload string) []string {
	f := forms[payload]
	return slices.Concat(f.core, f.more)
}

// Odd says that a form is malformed, so that it goes to servers of one's own
// alone: any may answer it with an error (RFC 9112, 2.2, 3 and 3.2).
func Odd(form string) bool { return form == Twice || form == BareLF || form == Wide }

// Core lists those that every search tries.
func Core(payload string) []string { return slices.Clone(forms[payload].core) }

// written lists what a device writes, in the order of reports.
var written = []string{"action", "status", "alert", "rcode", "answer", "dns-ttl", "aa", "replies"}
