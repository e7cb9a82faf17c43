package measure

// Verdict is what follows from one Measurement under one version of the rules.
type Verdict struct {
	Type         string       `json:"type" class:"none"` // "verdict"
	Schema       int          `json:"schema"`
	Run          string       `json:"run" class:"none"`
	Measurement  string       `json:"measurement" class:"none"`
	Rules        string       `json:"rules" class:"none"`
	Target       string       `json:"target" class:"target"`
	Reachable    Reachable    `json:"reachable" class:"none"`
	Interference Interference `json:"interference" class:"none"`
	Findings     []Finding    `json:"findings"`
	// Unknown says why the verdict is not firmer, as keys that reports put
	// into words (see the Why constants).
	Unknown       []Why `json:"unknown,omitempty" class:"none"`
	ElapsedMS     int64 `json:"elapsed_ms"`
	BytesSent     int64 `json:"bytes_sent"`
	BytesReceived int64 `json:"bytes_received"`
}

// Reachable says whether genuine content was reached.
type Reachable string

// The values of Reachable.
const (
	ReachableYes     Reachable = "yes"
	ReachableNo      Reachable = "no"
	ReachablePartly  Reachable = "partly" // one family or protocol and not another
	ReachableUnknown Reachable = "unknown"
)

// Interference says whether something on the way interferes.
type Interference string

// The values of Interference.
const (
	InterferenceNone      Interference = "none"
	InterferenceSuspected Interference = "suspected"
	InterferenceConfirmed Interference = "confirmed"
	InterferenceUnknown   Interference = "unknown"
)

// Scope says how far away the interfering thing is.
type Scope string

// The scopes.
const (
	ScopeDevice   Scope = "device"
	ScopeLAN      Scope = "lan"
	ScopeOperator Scope = "operator"
	ScopeBeyond   Scope = "beyond"
	ScopeUnknown  Scope = "unknown"
)

// Method is a mechanism of interference (RFC 9505) or, at the end of the
// list, something that looks like it and is not. Consumers treat a method
// they do not know as interference of unknown kind.
type Method string

// The methods.
const (
	DNSInjection    Method = "dns-injection"
	DNSResolverLie  Method = "dns-resolver-lie"
	DNSNXDomainLie  Method = "dns-nxdomain"
	DNSDrop         Method = "dns-drop"
	DNSError        Method = "dns-error"
	DNSInterception Method = "dns-interception"
	DNSDowngrade    Method = "dns-downgrade"
	DNSSECStrip     Method = "dnssec-strip"
	ECHStrip        Method = "ech-strip"

	IPDrop        Method = "ip-drop"
	IPReset       Method = "ip-reset"
	IPUnreachable Method = "ip-unreachable"

	TLSDrop         Method = "tls-drop"
	TLSReset        Method = "tls-reset"
	TLSAlert        Method = "tls-alert"
	TLSInterception Method = "tls-interception"

	HTTPDrop      Method = "http-drop"
	HTTPReset     Method = "http-reset"
	HTTPBlockPage Method = "http-blockpage"
	HTTPRedirect  Method = "http-redirect"
	HTTPTamper    Method = "http-tamper"
	HTTPProxy     Method = "http-proxy"
	TCPProxy      Method = "tcp-proxy"

	QUICDrop Method = "quic-drop"

	Throttle Method = "throttle"
	Freeze   Method = "freeze"

	StartTLSStrip    Method = "starttls-strip"
	MailInterception Method = "mail-interception"
	SSHInterception  Method = "ssh-interception"

	ProtocolFilter Method = "protocol-filter"
	Shutdown       Method = "shutdown"
	Residual       Method = "residual"

	// No interference.
	ServerRefusal Method = "server-refusal"
	SiteDown      Method = "site-down"
	CaptivePortal Method = "captive-portal"
	PathFault     Method = "path-fault"
	ClockFault    Method = "clock-fault"
	// PrivateAuthority: this system trusts the certificate and no public root
	// does, and other sites and the same name elsewhere show nothing of the
	// kind, as a company's own site does.
	PrivateAuthority Method = "private-authority"
)

// Benign reports whether m explains a failure without interference.
func (m Method) Benign() bool {
	switch m {
	case ServerRefusal, SiteDown, CaptivePortal, PathFault, ClockFault, PrivateAuthority:
		return true
	}
	return false
}

// Trigger is what a finding reacts to: the one thing in which the test
// differed from a control that passed.
type Trigger struct {
	Kind    string `json:"kind" class:"none"` // sni, host, url, qname, address, port, protocol, allow-list, family, host-key, …
	Value   string `json:"value,omitempty" class:"target"`
	Control string `json:"control,omitempty" class:"target"` // the value that passed
}

// Count is how often something happened in how many runs.
type Count struct {
	Runs int `json:"runs"`
	Hits int `json:"hits"`
}

// Finding is one mechanism seen at work, with the experiment that shows it.
type Finding struct {
	ID     string `json:"id" class:"none"`
	Method Method `json:"method" class:"none"`
	// Interference of this finding alone: suspected or confirmed; for a benign
	// method the degree of its own certainty.
	Interference Interference `json:"interference" class:"none"`
	Layer        Step         `json:"layer" class:"none"`
	Family       Family       `json:"family,omitempty" class:"none"`
	Scope        Scope        `json:"scope" class:"none"`
	Trigger      Trigger      `json:"trigger"`
	// Runs and Hits: how often the test was run and showed it.
	Runs     int   `json:"runs"`
	Hits     int   `json:"hits"`
	Controls Count `json:"controls"`
	// Because are ids of the observations that show it.
	Because []string `json:"because" class:"none"`
	// Proof is the rule that confirmed it ("pairs+elsewhere", "artefact",
	// "ttl", "helper", …); empty when only suspected.
	Proof string `json:"proof,omitempty" class:"none"`
	// Match is the signature that it carries, if any.
	Match *Match `json:"match,omitempty"`
	// Issuer is who signed the certificate that came, as it says itself.
	Issuer string `json:"issuer,omitempty" class:"foreign"`
	// Trusted: this system trusts that certificate and no public root does.
	// Somebody put the root on this device.
	Trusted bool `json:"trusted,omitempty"`
	// Traces are signs of an imitated certificate or handshake; none of them
	// confirms anything.
	Traces []Trace `json:"traces,omitempty" class:"none"`
	// NotExcluded are other explanations that this evidence leaves open.
	NotExcluded []Why `json:"not_excluded" class:"none"`
}

// Trace is a sign that a certificate or a handshake was made in the server's
// place. Those marked * are against what the server itself shows to a helper, over
// QUIC, or (the handshake alone) under another name, at the same address.
type Trace string

// The traces.
const (
	TraceFalseSCT Trace = "false-sct" // timestamps of logs that did not sign it
	TraceOneKey   Trace = "one-key"   // the key of unrelated hosts
	TraceSerial   Trace = "serial"    // * its number, and another certificate
	TraceAIA      Trace = "aia"       // * no word of where its issuer is
	TraceSCT      Trace = "sct"       // * no timestamp
	TraceKey      Trace = "key"       // * a key of another kind
	TraceALPN     Trace = "alpn"      // * h2 was offered, and is lost
	TraceGroup    Trace = "group"     // * another key exchange
	TraceVersion  Trace = "version"   // * an older TLS
	TraceCipher   Trace = "cipher"    // * another cipher, with the same TLS
	TraceRounded  Trace = "rounded"   // * valid from and to whole hours, as its own is not
	TraceDates    Trace = "dates"     // * valid from and to the very seconds of its own
	TraceFresh    Trace = "fresh"     // * made in the days of the measurement, as its own is not
)

// Why is a reason for uncertainty, put into words by reports.
type Why string

// The reasons.
const (
	WhySingleSample    Why = "single-sample"  // seen once, not repeated
	WhySiteDown        Why = "site-down"      // the site itself may be down
	WhyServerRefuses   Why = "server-refuses" // the server may refuse this client by itself
	WhyNoHelper        Why = "no-helper"      // nobody else looked
	WhyHelperDisagrees Why = "helpers-disagree"
	WhyNoCanary        Why = "no-canary"     // nothing else worked just then, so nothing can be said
	WhyNoControl       Why = "no-control"    // no paired control could be made
	WhyLocalNetwork    Why = "local-network" // a device in the home or office may do it
	WhyTunnel          Why = "tunnel"        // the verdict describes the tunnel's or proxy's exit
	WhyCaptive         Why = "captive-portal"
	WhyClock           Why = "clock"        // this device's clock is wrong
	WhyFewPairs        Why = "few-pairs"    // too few repetitions for the rule
	WhyIntermittent    Why = "intermittent" // came and went
	WhyPathMTU         Why = "path-mtu"
	WhyLoss            Why = "loss"
	WhyInterrupted     Why = "interrupted"
	WhyBudget          Why = "budget"      // the trigger, byte or time budget ended it
	WhyUnsupported     Why = "unsupported" // this system cannot make the experiment
	WhyNotAdvertised   Why = "not-advertised"
	WhyGeoDNS          Why = "geo-dns"         // answers differ by place by design
	WhyDynamicContent  Why = "dynamic-content" // the page differs from visit to visit
	WhyUnreadable      Why = "unreadable"      // the input was damaged
	WhyAccelerator     Why = "accelerator"     // the line ends every TCP connection itself, as satellite links do
	WhyOldRoots        Why = "old-roots"       // the public roots of this version may be older than the one that signed
	WhyServerBroken    Why = "server-broken"   // certificate or redirect of the server is at fault
	// WhyMailUnencrypted: the mail server did not begin encryption; it may have none.
	WhyMailUnencrypted Why = "mail-unencrypted"
	// WhyMailUnanswered: the mail server did not answer the command for
	// encryption, but a harmless one in its place.
	WhyMailUnanswered Why = "mail-unanswered"
	WhyServerNetwork  Why = "server-network" // a firewall of the server's own may do it
	WhyKeyRotation    Why = "key-rotation"   // the server may have got another host key
	WhyKeyRetired     Why = "key-retired"    // the host key is one that its operator has withdrawn
	WhyNoKnownKey     Why = "no-known-key"   // no host key is known to compare with
	// WhyNoQuotes: what routers quote of a packet that died shows what was
	// altered on the way; it could not be seen, or too little was quoted.
	WhyNoQuotes Why = "no-quotes"
	// WhyWayBack: what is altered on the way from the server leaves no trace
	// on the way to it.
	WhyWayBack Why = "way-back"
	// WhyBackQuotes: what routers quote of a helper's words on their way here
	// does not show where they are altered: it is too little, or all of it is.
	WhyBackQuotes Why = "back-quotes"
	// WhyBalancer: other ports of the server's address are a few routers
	// farther, as behind a load balancer of its own.
	WhyBalancer    Why = "balancer"
	WhyKnownKeyOld Why = "known-key-old" // the user's known_hosts has an older key than the operator publishes
)
