package measure

// Step is the layer at which one recorded action took place.
type Step string

// The steps. One Observation is one step.
const (
	StepDNS    Step = "dns"    // one question to one resolver over one transport
	StepTCP    Step = "tcp"    // one connect
	StepTLS    Step = "tls"    // one handshake on one connection
	StepHTTP   Step = "http"   // one request and its answer; each redirect is its own
	StepQUIC   Step = "quic"   // one QUIC handshake, with its HTTP/3 request if any
	StepPath   Step = "path"   // one TTL-limited probe (SYN, UDP or data)
	StepHelper Step = "helper" // one exchange with a test helper (the transport; its findings are observations with Helper set)
	StepStream Step = "stream" // one bulk transfer, timed
	// StepGreeting is waiting for what a server says before it is spoken to;
	// nothing is sent.
	StepGreeting Step = "greeting"
	StepMail     Step = "mail" // one dialogue with a mail server, TLS included
	// StepSSH is the start of SSH up to the proof of the server's host key.
	StepSSH Step = "ssh"
)

// Role says what an observation is in its experiment.
type Role string

// The roles.
const (
	RoleTest    Role = "test"    // the question itself
	RoleControl Role = "control" // differs from its test in Differs alone
	RoleCanary  Role = "canary"  // a known host of another network, to bracket failures
	RoleHelper  Role = "helper"  // seen by a second vantage point (Helper says which)
)

// Stage says in which part of the run an observation was made.
type Stage string

// The stages.
const (
	StagePreflight Stage = "preflight"
	StageScreen    Stage = "screen"   // the cheap first pass; its failures are not counted
	StageConfirm   Stage = "confirm"  // a pair of an experiment
	StageBracket   Stage = "bracket"  // a canary before or after a pair
	StageIsolate   Stage = "isolate"  // run again alone, after residual blocking has passed
	StageLocate    Stage = "locate"   // following the path to a device
	StageIdentify  Stage = "identify" // trying forms of a trigger
	StageBanner    Stage = "banner"   // connecting to the routers beside the located link, only on demand
)

// Experiment names the question that a test and its control answer together.
// The doc comment of each is the contract between the package that measures
// and the package that judges.
type Experiment string

// The experiments. T is the test, C its control; both are in StageConfirm
// unless said otherwise. Where several kinds of control exist, ControlKind of
// C says which.
const (
	// ExpQName: T asks a resolver for the target's name, C asks the same
	// resolver over the same transport for a control name (random of the same
	// length under the same suffix does not exist by nature, so C is a known
	// name). differs: qname.
	ExpQName Experiment = "qname"
	// ExpNowhere: T sends the target's question to an address at which no
	// resolver runs, C a control name's question to the same address. An
	// answer to T is forged by definition; an answer to C too means that port
	// 53 as such is redirected. differs: qname.
	ExpNowhere Experiment = "nowhere"
	// ExpResolver: T asks the system's resolver, C asks an encrypted resolver
	// (DoH) for the same name. Made in StageScreen. differs: resolver.
	ExpResolver Experiment = "resolver"
	// ExpIdentity: a TLS handshake with the target's name at an address in
	// dispute (After = the DNS observation that gave it). A certificate that
	// verifies for the name against the public roots proves the address.
	ExpIdentity Experiment = "identity"
	// ExpAddress: T connects to the target's address and port, C connects at
	// the same time to another port or address. ControlKind "canary" or
	// "port". differs: address or port.
	ExpAddress Experiment = "address"
	// ExpSNI: T and C do a TLS handshake at the target's own address with the
	// same frozen ClientHello layout; C's name is random of the same length
	// ("random"), a name known to work in this run ("known") or none
	// ("none"). C succeeded when any byte of TLS came from the server, an
	// alert included: what counts is whether the path lets it through.
	// differs: sni.
	ExpSNI Experiment = "sni"
	// ExpSNIElsewhere: as ExpSNI, but both at an address in another AS that
	// answers names it does not know (a canary, or best a helper). A helper has
	// one key for all names, which its own channel proves, and is asked there
	// what came of both ClientHellos (TLS.HelloCame).
	ExpSNIElsewhere Experiment = "sni-elsewhere"
	// ExpSNITTL: as ExpSNI at the target's own address, both ClientHellos
	// sent with TTL lower than what the server needs (Observation.TTL <
	// ServerTTL): whatever answers T is nearer than the server.
	ExpSNITTL Experiment = "sni-ttl"
	// ExpHello: T is the failing handshake, C the same name and address with
	// a small MSS and without the post-quantum key share. C succeeding means
	// a path fault (path MTU) and no interference. differs: hello.
	ExpHello Experiment = "hello"
	// ExpHost: T and C send a plain HTTP request to the target's address; C's
	// Host is random of the same length, known or none. differs: host.
	ExpHost Experiment = "host"
	// ExpHostElsewhere: as ExpHost, at an address in another AS. A C with
	// ControlKind "known" sends another name that is not at home there, once T
	// was answered otherwise: a proxy that goes by the Host knows that one too.
	ExpHostElsewhere Experiment = "host-elsewhere"
	// ExpURL: T requests the target's path, C another path of the same
	// length with the same Host at the same address. differs: path.
	ExpURL Experiment = "url"
	// ExpHTTPS: T is the plain HTTP answer, C the answer of the same name over
	// authenticated TLS. Made in StageScreen. differs: tls.
	ExpHTTPS Experiment = "https"
	// ExpQUIC: T is a QUIC handshake at an address, C a TLS over TCP
	// handshake with the same name at the same address. differs: transport.
	ExpQUIC Experiment = "quic"
	// ExpQUICSNI and ExpQUICElsewhere: as ExpSNI and ExpSNIElsewhere, in QUIC.
	ExpQUICSNI       Experiment = "quic-sni"
	ExpQUICElsewhere Experiment = "quic-elsewhere"
	// ExpBulk: T downloads bulk bytes from a helper under the target's name
	// as SNI, C the same bytes from the same helper under a control name,
	// interleaved; or, without a helper, T the target's own page and C a
	// canary's. Stream holds the rate. differs: sni (helper) or address.
	ExpBulk Experiment = "bulk"
	// ExpFirstBytes: T sends first packets of a protocol (Payload says which)
	// to a helper, C sends TLS of the same length. differs: payload.
	ExpFirstBytes Experiment = "first-bytes"
	// ExpProxyTTL: path probes that find the lowest TTL at which a TCP
	// connection to Remote completes; T is the target's port, C port 443 or a
	// closed port of the same address. For a mail server C is tried with T's
	// lowest TTL NearerProbes times more. differs: port.
	ExpProxyTTL Experiment = "proxy-ttl"
	// ExpAnswerTTL: T is a SYN to Remote's port whose answer is only seen if it
	// arrives with Path.MinTTL or more, C the same to another port of that
	// address (ControlKind "known": of a helper, whose process has both), from a
	// port of ours each: whether both answer from equally far. In StageLocate.
	// differs: port.
	ExpAnswerTTL Experiment = "answer-ttl"
	// ExpWays: T is a datagram with a question to port 53 of Remote, C the
	// same to ports there that no resolver has, each with one TTL, from several
	// ports of ours: whether routers on both ways are the same. differs: port.
	ExpWays Experiment = "ways"
	// ExpFirstHop: T is a SYN with TTL 1 to where a certificate came from that
	// does not verify, or to a helper's plain port: whoever accepts it is this
	// device or at most one hop away. No control.
	ExpFirstHop Experiment = "first-hop"
	// ExpNearConnect: T and C are TTL-limited SYNs to ports 80 and 443 of a
	// canary, whose servers are far apart: a port that ends equally near at
	// several, and nearer than the other, ends on the way. Of LineTarget.
	// differs: port.
	ExpNearConnect Experiment = "near-connect"
	// ExpPlain: T fetches a fixed plain HTTP body from a helper under the
	// target's Host name; C is that body's known hash (no observation).
	ExpPlain Experiment = "plain"
	// ExpEcho: T asks a helper over plain HTTP/1.1 what it saw of the request
	// (Sent, Seen), C over TLS. What both add is the helper's own (a CDN in
	// front of it). Of LineTarget. differs: tls.
	ExpEcho Experiment = "echo"
	// ExpFresh: T fetches a helper's page that is different each time twice
	// from one URL, C over TLS. differs: tls.
	ExpFresh Experiment = "fresh"
	// ExpOdd: T sends a request line that no server understands (Payload says
	// which) to a helper, which says nothing to it, or refuses it as any
	// server does. To helpers only.
	ExpOdd Experiment = "odd"
	// ExpPath: TTL-limited probes that name the routers towards Remote, all of
	// one flow having the same Path.LocalPort. In StageLocate; every one is a
	// control.
	ExpPath Experiment = "path"
	// ExpLocate: T sends the trigger and C a harmless token of the same length
	// with the same TTL in the same flow. In StageLocate. differs: sni, host,
	// qname, address, payload.
	ExpLocate Experiment = "locate"
	// ExpForm: T sends the trigger in a form (Form says which), C a random name
	// of the same length in the same form to the same address. In
	// StageIdentify. differs: sni, host, qname.
	ExpForm Experiment = "form"
	// ExpFarEnd: T sends the trigger to a helper with the system's TTL, after a
	// device was found, to learn from Path.FarEnd whether it arrives. In
	// StageLocate. differs: sni, host, payload.
	ExpFarEnd Experiment = "far-end"
	// ExpWayBack: T are words of a helper's greeter that arrive here altered
	// (path, of role helper), said with a TTL that ends them on the way, C
	// (ControlKind "known") its answer to a harmless command, with the TTL at
	// which a router quoted T altered; Path.ICMP.Quoted is what the router
	// beyond the helper quotes. In StageLocate; so are the exchanges with the
	// helper about them.
	ExpWayBack Experiment = "way-back"
	// ExpBanner: one ordinary connection to a router beside the located link
	// (Beside), on one port, and what comes without anything odd being sent:
	// tcp, then a greeting, or a GET of / (http), or tls and then that GET. In
	// StageBanner; every one is a test without a control.
	ExpBanner Experiment = "banner"
	// ExpMail: T is a mail dialogue at the target's port, C one at the port of
	// the same server's other way to TLS: with TLS from the first byte, or with
	// STARTTLS if that is the target's own. Pairs above 1 repeat it. The first
	// is made in StageScreen. differs: port.
	ExpMail Experiment = "mail"
	// ExpMailGreeter: T is a mail dialogue with a greeter of a helper, which
	// told over its own authenticated connection (a helper step) what it says:
	// Mail.Known is the control. differs: nothing; what T shows of anything
	// else than Mail.Known was changed on the way.
	ExpMailGreeter Experiment = "mail-greeter"
	// ExpRedirect: T asks an address at which no resolver runs (NoResolver) for
	// a known host's name, C a public resolver over the same transport. An
	// answer to T comes from whoever redirects port 53; with TTL set, from no
	// farther than that. Of LineTarget. differs: resolver.
	ExpRedirect Experiment = "redirect"
	// ExpNobody: T opens a TCP connection to an address where nobody lives
	// and, if something accepts, speaks the port's protocol to it (tcp, then
	// http or tls), in pair 2 on port 80 a line that no server understands
	// (Payload odd-fields), to which there is no server; C opens one to the same port of a canary. Ports other than
	// 80 and 443 tell what takes web traffic from what takes all of TCP. Of
	// LineTarget. differs: address.
	ExpNobody Experiment = "nobody"
	// ExpOperator: T asks resolvers of different operators for the identity of
	// the machine that answers (class CH: id.server, hostname.bind,
	// version.bind). Two operators have no machine in common. No control.
	ExpOperator Experiment = "operator"
	// ExpExit: T asks a public resolver on port 53 for a name that is answered
	// with the address from which it was asked for, C the same operator's
	// encrypted resolver. differs: transport.
	ExpExit Experiment = "exit"
	// ExpNearAnswer: T asks a public resolver in packets of a TTL, C connects
	// to the same address in packets of a TTL: what counts is the lowest of
	// each that is answered. differs: protocol.
	ExpNearAnswer Experiment = "near-answer"
	// ExpSigned: T asks a resolver on port 53 for a signed name with DNSSECOK,
	// C an encrypted one. An RRSIG in C that T lacks was left out. differs:
	// transport or resolver.
	ExpSigned Experiment = "signed"
	// ExpECHKeys: as ExpSigned, for the HTTPS record of a name that has ECH.
	ExpECHKeys Experiment = "ech-keys"
	// ExpEncrypted: T asks a public resolver for a known host's name over TLS
	// or HTTPS, C over UDP. differs: transport.
	ExpEncrypted Experiment = "encrypted"
	// ExpHostKey: T begins SSH at the target's address and takes the host key
	// that is proven there, of a type that it is known by (SSH.Asked); C does
	// so at a public host of another operator in another network, which
	// publishes its keys. SSH.Known of each is what it must be. Made in
	// StageScreen, T again in StageConfirm where it shows another key.
	// ControlKind "canary". differs: address.
	ExpHostKey Experiment = "host-key"
	// ExpFamily: the same step over IPv4 (one) and IPv6 (other).
	ExpFamily Experiment = "family"
	// ExpResidual: T is a harmless request in the same key (address, client)
	// after a trigger, C the same before it. differs: history.
	ExpResidual Experiment = "residual"
)

// ControlKind says what stands in the place of the tested value.
type ControlKind string

// The kinds of control.
const (
	ControlRandom ControlKind = "random" // random, of the same length
	ControlKnown  ControlKind = "known"  // worked in this run
	ControlNone   ControlKind = "none"   // the field left out
	ControlPort   ControlKind = "port"   // another port of the same address
	ControlCanary ControlKind = "canary" // a canary host
	// ControlHarmless is another command, in the place of the one that matters.
	ControlHarmless ControlKind = "harmless"
)

// Family is the address family of a step.
type Family string

// The families.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
)

// Observation is one recorded step: what was sent to whom, what came back,
// when, and how it failed. It concludes nothing.
type Observation struct {
	ID         string     `json:"id" class:"none"`
	Step       Step       `json:"step" class:"none"`
	Role       Role       `json:"role" class:"none"`
	Stage      Stage      `json:"stage,omitempty" class:"none"`
	Experiment Experiment `json:"experiment,omitempty" class:"none"`
	// Pair numbers the pairs of one experiment from 1; T and C of one pair
	// have the same number.
	Pair        int         `json:"pair,omitempty"`
	Control     string      `json:"control,omitempty" class:"none"`      // id of the control; on tests
	ControlKind ControlKind `json:"control_kind,omitempty" class:"none"` // on controls
	Differs     []string    `json:"differs,omitempty" class:"none"`      // on tests: the one variable
	// After is the id of the observation whose answer or connection this step
	// used (the TCP connect of a TLS handshake, the DNS answer of a connect).
	After string `json:"after,omitempty" class:"none"`
	// Helper is the URL of the second vantage point that saw this, "" if it
	// was this device. OONI's own is "ooni-th".
	Helper string `json:"helper,omitempty" class:"target"`

	Family Family `json:"family,omitempty" class:"none"`
	Remote string `json:"remote,omitempty" class:"target"` // address and port; for dns the resolver's, where known
	ASN    int    `json:"asn,omitempty"`                   // of Remote
	TTL    int    `json:"ttl,omitempty"`                   // sent with; 0: the system's default
	MSS    int    `json:"mss,omitempty"`                   // reduced to, bytes; 0: the system's

	SNI     string `json:"sni,omitempty" class:"target"`
	Hello   string `json:"hello,omitempty" class:"none"` // "chrome", "go", "chrome-small", …: the ClientHello's layout
	Host    string `json:"host,omitempty" class:"target"`
	URL     string `json:"url,omitempty" class:"target"`
	Payload string `json:"payload,omitempty" class:"none"` // what kind of first bytes were sent, for ExpFirstBytes

	// Form is how the name was written, for ExpForm (package identify's Forms).
	Form string `json:"form,omitempty" class:"none"`

	// Beside is the router that Remote belongs to, for ExpBanner.
	Beside *Beside `json:"beside,omitempty"`

	StartUS  int64 `json:"start_us"` // since Measurement.Started, microseconds
	TookUS   int64 `json:"took_us"`
	Sent     int64 `json:"sent"`     // bytes this step handed to the transport
	Received int64 `json:"received"` // bytes it got from there

	Failure Failure `json:"failure,omitempty" class:"none"`
	// Detail is the error's own text, for the reader; nothing is judged by it.
	Detail string `json:"detail,omitempty" class:"foreign"`

	DNS    *DNS    `json:"dns,omitempty"`
	TCP    *TCP    `json:"tcp,omitempty"`
	TLS    *TLS    `json:"tls,omitempty"` // of a tls, quic or mail step
	HTTP   *HTTP   `json:"http,omitempty"`
	Path   *Path   `json:"path,omitempty"`
	Stream *Stream `json:"stream,omitempty"`

	// Packets are those of this step's own flow, in order, where they could be
	// captured: all that arrived, and of what was sent what opened it or carried
	// data. The first MaxPackets are kept.
	Packets []Packet `json:"packets,omitempty"`

	Greeting *Greeting `json:"greeting,omitempty"`
	Mail     *Mail     `json:"mail,omitempty"`
	SSH      *SSH      `json:"ssh,omitempty"`

	// Receipt is what the helper signed, of a helper step.
	Receipt *Receipt `json:"receipt,omitempty"`
}

// MaxPackets bounds Observation.Packets.
const MaxPackets = 48

// Packet is one captured packet as it was on the wire. Numbers are TCP's own;
// what they mean beside the packet that drew it is for package identify.
type Packet struct {
	AtUS   int64  `json:"at_us"` // since Measurement.Started
	Sent   bool   `json:"sent,omitempty"`
	TTL    int    `json:"ttl"`             // or hop limit
	IPID   int    `json:"ip_id,omitempty"` // of IPv4
	DF     bool   `json:"df,omitempty"`
	Flags  string `json:"flags,omitempty" class:"none"` // of FSRPAU, in that order; "": UDP
	Window int    `json:"window,omitempty"`
	Seq    int64  `json:"seq,omitempty"`
	Ack    int64  `json:"ack,omitempty"`
	Bytes  int    `json:"bytes,omitempty"` // of payload
	// Data is the payload in hex, of one that arrived with a reset and has at
	// most 32 bytes; SHA256 is of a longer one.
	Data   string `json:"data,omitempty" class:"foreign"`
	SHA256 string `json:"sha256,omitempty" class:"target"`
}

// DNS is a question and every reply that came to it.
type DNS struct {
	Name      string `json:"name" class:"target"`
	Type      string `json:"type" class:"none"`      // A, AAAA, HTTPS, A+AAAA (system)
	Transport string `json:"transport" class:"none"` // system, udp, tcp, tls, https
	Resolver  string `json:"resolver,omitempty" class:"network"`
	// Class is CH where it is not IN.
	Class string `json:"class,omitempty" class:"none"`
	// DNSSECOK: signatures were asked for (the DO bit, RFC 3225).
	DNSSECOK bool `json:"dnssec_ok,omitempty"`
	// Operator is who is known to run Resolver, for the experiments about the
	// line; Expected says that a CH answer has the shape that this operator's
	// answers are known to have, Unlike that it has another.
	Operator string `json:"operator,omitempty" class:"none"`
	Expected bool   `json:"expected,omitempty"`
	Unlike   bool   `json:"unlike,omitempty"`
	// NoResolver says that Resolver is known to run no resolver (ExpNowhere).
	NoResolver bool `json:"no_resolver,omitempty"`
	// Replies in the order of arrival; more than one to a UDP question is
	// itself evidence. None: silence.
	Replies []DNSReply `json:"replies,omitempty"`
}

// DNSReply is one message that answered a question.
type DNSReply struct {
	AtUS    int64       `json:"at_us"` // since Measurement.Started
	Rcode   string      `json:"rcode" class:"none"`
	AA      bool        `json:"aa,omitempty"`
	AD      bool        `json:"ad,omitempty"`
	TC      bool        `json:"tc,omitempty"`        // it did not fit
	DO      bool        `json:"dnssec_ok,omitempty"` // it knows of signatures
	TTL     int         `json:"ttl,omitempty"`       // of the packet as it arrived, where visible
	Answers []DNSAnswer `json:"answers,omitempty"`
}

// DNSAnswer is one resource record of a reply's answer section.
type DNSAnswer struct {
	Type  string `json:"type" class:"none"`
	Value string `json:"value" class:"foreign"` // an address, a name, or an HTTPS record's text
	ASN   int    `json:"asn,omitempty"`         // of an address
	TTLS  int64  `json:"ttl_s"`
}

// TCP is what is known of a connection besides its failure.
type TCP struct {
	RTTUS       int64 `json:"rtt_us,omitempty"`
	Retransmits int   `json:"retransmits,omitempty"`
	// ICMP that ended or touched it, where visible.
	ICMP []ICMP `json:"icmp,omitempty"`
}

// ICMP is an error message that quoted a packet of ours.
type ICMP struct {
	// From is empty where the system hides the address, which is not "no router".
	From string `json:"from,omitempty" class:"network"`
	Type int    `json:"type"`
	Code int    `json:"code"`
	AtUS int64  `json:"at_us"`
	ASN  int    `json:"asn,omitempty"`
	// To is the destination that the router quotes, where it is another than
	// the packet was sent to: it was redirected on the way.
	To string `json:"to,omitempty" class:"network"`
	// Quoted says, of a captured error about one of our segments, whether it
	// quotes the data as we sent them (whole) or others (altered); "" if it
	// quotes too little to tell.
	Quoted string `json:"quoted,omitempty" class:"none"`
}

// Verification is the outcome of verifying a chain for a name at a time.
type Verification string

// The outcomes, worst last.
const (
	VerifiedOK      Verification = "ok"
	VerifyExpired   Verification = "expired" // or not yet valid
	VerifyWrongName Verification = "wrong_name"
	VerifyUnknownCA Verification = "unknown_authority"
	VerifyMalformed Verification = "malformed"
)

// TLS is a handshake, over TCP or QUIC.
type TLS struct {
	Version string `json:"version,omitempty" class:"none"`
	Cipher  string `json:"cipher,omitempty" class:"none"`
	Group   string `json:"group,omitempty" class:"none"`
	ALPN    string `json:"alpn,omitempty" class:"none"` // negotiated
	// Alert is the TLS alert's description that the peer sent, -1 if none.
	Alert int `json:"alert"`
	// ServerBytes says whether anything that parses as TLS (or, in QUIC, a
	// packet that authenticates) came from the peer.
	ServerBytes bool `json:"server_bytes"`
	// Chain holds the SHA-256 (hex) of each certificate in the order sent;
	// the DER is in the body records of the same file where it is anomalous.
	Chain []string `json:"chain,omitempty" class:"target"`
	// Leaf's own description, for the reader and for interception signatures.
	Subject string   `json:"subject,omitempty" class:"foreign"`
	Issuer  string   `json:"issuer,omitempty" class:"foreign"`
	Names   []string `json:"names,omitempty" class:"foreign"`
	// NotBefore and NotAfter in Unix seconds.
	NotBeforeS int64 `json:"not_before_s,omitempty"`
	NotAfterS  int64 `json:"not_after_s,omitempty"`
	// SPKI is the SHA-256 (hex) of the leaf's public key with its algorithm
	// (RFC 5280, SubjectPublicKeyInfo), Key its kind and size: rsa-2048,
	// ecdsa-256, ed25519. Serial is the leaf's number, hex.
	SPKI   string `json:"spki,omitempty" class:"target"`
	Key    string `json:"key,omitempty" class:"none"`
	Serial string `json:"serial,omitempty" class:"target"`
	// AIA: the leaf says where its issuer's certificate or OCSP responder is
	// (RFC 5280, 4.2.2.1). SCTs are its timestamps of Certificate Transparency;
	// both of handshakes that ended well.
	AIA  bool  `json:"aia,omitempty"`
	SCTs *SCTs `json:"scts,omitempty"`
	// HelloCame says what came of our ClientHello at the helper that was the
	// server: same (byte for byte), differs, or none; "" if it was not asked.
	HelloCame string `json:"hello_came,omitempty" class:"none"`
	// Signers say of each certificate of Chain, in its order, who signed it;
	// where the chain is not known to verify against the public roots.
	Signers []Signer `json:"signers,omitempty"`
	// Public: against the bundled public roots, at the device's time;
	// PublicEstimated: at the estimated time, where that differs by more than
	// a minute; System: against what this system trusts.
	Public          Verification `json:"public,omitempty" class:"none"`
	PublicEstimated Verification `json:"public_estimated,omitempty" class:"none"`
	System          Verification `json:"system,omitempty" class:"none"`
}

// SCTs counts signed certificate timestamps (RFC 6962): how many were in the
// certificate and beside it in the handshake, how many a log on the list signed,
// and how many bear the name of one that did not. The rest are of logs that are
// not on the list, or cannot be checked.
type SCTs struct {
	Embedded int `json:"embedded,omitempty"`
	Beside   int `json:"beside,omitempty"`
	Verified int `json:"verified,omitempty"`
	False    int `json:"false,omitempty"`
	// ListAgeDays is how old the list of logs was, days.
	ListAgeDays int `json:"list_age_days,omitempty"`
}

// Signer is what a certificate says of who signed it.
type Signer struct {
	Issuer string `json:"issuer,omitempty" class:"foreign"` // as RFC 2253 writes names
	// AKI is its authority key identifier, hex: the one thing in a chain that
	// points at the root's key, for roots are seldom sent (RFC 5280, 4.2.1.1).
	AKI string `json:"aki,omitempty" class:"target"`
	// SPKI is the SHA-256 (hex) of the certificate's own public key.
	SPKI string `json:"spki,omitempty" class:"target"`
}

// HTTP is one request and its answer.
type HTTP struct {
	Method   string   `json:"method" class:"none"`
	Proto    string   `json:"proto,omitempty" class:"none"` // HTTP/1.1, HTTP/2.0, HTTP/3.0
	Status   int      `json:"status,omitempty"`
	Headers  []Header `json:"headers,omitempty"` // in the order sent where visible; capped
	Location string   `json:"location,omitempty" class:"foreign"`
	Title    string   `json:"title,omitempty" class:"foreign"`
	// Authenticated: the answer came inside a TLS session whose certificate
	// verified for the name against the public roots.
	Authenticated bool   `json:"authenticated,omitempty"`
	BodyBytes     int64  `json:"body_bytes"` // read, decoded
	BodyTruncated bool   `json:"body_truncated,omitempty"`
	BodySHA256    string `json:"body_sha256,omitempty" class:"target"`
	// Simhash is 64 bits in hex over the words of the text: near pages have
	// a small Hamming distance (Charikar 2002).
	Simhash string `json:"simhash,omitempty" class:"target"`
	// H3 is the authority that Alt-Svc advertises for h3 ("" none).
	H3 string `json:"h3,omitempty" class:"target"`
	// Matches are signatures of package known that this answer carries.
	Matches []Match `json:"matches,omitempty"`
	// Sent is the head of the request, and Seen the same as the helper saw it,
	// for ExpEcho.
	Sent *Head `json:"sent,omitempty"`
	Seen *Head `json:"seen,omitempty"`
	// FirstByteUS is the time from the request to the answer's first byte.
	FirstByteUS int64 `json:"first_byte_us,omitempty"`
}

// Header is one header line.
type Header struct {
	Name  string `json:"name" class:"foreign"`
	Value string `json:"value" class:"foreign"`
}

// Path is what became of a TTL-limited probe.
type Path struct {
	Probe string `json:"probe" class:"none"` // syn, datagram, data
	// Outcome is expired (ICMP time exceeded and nothing else), connected,
	// answered, reset, closed, unreachable, silent, or, if the connection that
	// was to carry the probe could not be made, unconnected.
	Outcome string `json:"outcome" class:"none"`
	// ICMP is what a router said, besides an answer too.
	ICMP  *ICMP `json:"icmp,omitempty"`
	RTTUS int64 `json:"rtt_us,omitempty"` // from the last sending to the outcome
	// ServerTTL is the lowest TTL known to reach the server, 0 unknown.
	ServerTTL int `json:"server_ttl,omitempty"`
	// Sends is how often it was sent with this TTL, retransmissions
	// included; 0 means once.
	Sends     int `json:"sends,omitempty"`
	LocalPort int `json:"local_port,omitempty"`
	// ArrivedTTL is the TTL of the answer as it arrived, where visible.
	ArrivedTTL int `json:"arrived_ttl,omitempty"`
	// Captured says that the packets themselves were seen, so that a router's
	// word that is missing here did not come.
	Captured bool `json:"captured,omitempty"`
	// MinTTL is the least TTL with which an answer could be seen, 0 any.
	MinTTL int `json:"min_ttl,omitempty"`
	// Answer is what an answer begins with: handshake or alert in TLS, the
	// status in HTTP, else "".
	Answer string `json:"answer,omitempty" class:"none"`
	// FarEnd is what a helper that was the target saw of the connection until
	// then; without a Port it knew of none. nil: it was not asked, or silent.
	FarEnd *Arrival `json:"far_end,omitempty"`
}

// Stream is a timed bulk transfer.
type Stream struct {
	Bytes int64 `json:"bytes"`
	// BitsPerSecond is the goodput from first to last byte.
	BitsPerSecond int64 `json:"bits_per_second"`
	// StalledUS is how long nothing had come when it was given up, 0 if it ended.
	StalledUS int64 `json:"stalled_us,omitempty"`
	// Samples are bytes received in equal intervals of IntervalUS.
	IntervalUS int64   `json:"interval_us,omitempty"`
	Samples    []int64 `json:"samples,omitempty"`
}

// Match is one row of package known that a piece of evidence matched.
type Match struct {
	Row     string `json:"row" class:"none"`   // id of the row in known/
	Kind    string `json:"kind" class:"none"`  // blockpage, forged-address, interception-root, lookalike, captive, geoblock, captcha, …
	Where   string `json:"where" class:"none"` // body, header:NAME, dns, certificate, packet:MARK
	Product string `json:"product,omitempty" class:"none"`
	Vendor  string `json:"vendor,omitempty" class:"none"`
	Country string `json:"country,omitempty" class:"none"`
	Scope   Scope  `json:"scope,omitempty" class:"none"`
	// How a row about a certificate authority was matched.
	How How `json:"how,omitempty" class:"none"`
}

// How says by what a chain was taken for a known authority's, strongest first.
type How string

// The ways. Anybody can write the last two.
const (
	HowSignature How = "signature" // its key verifies the signature
	HowSHA256    How = "sha256"    // its certificate was sent
	HowSPKI      How = "spki"      // its public key was sent
	HowAKI       How = "aki"       // its key is named as the signer's
	HowFamily    How = "family"    // its name, and a key that is not known
	HowName      How = "name"      // its name, and no key to compare
)
