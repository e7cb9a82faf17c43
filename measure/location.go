package measure

// Location is where on the path the thing sits that reacts to a trigger: the
// outcome of package locate for one measurement, one layer and one family. It
// follows from the observations of StageLocate alone.
type Location struct {
	Type        string `json:"type" class:"none"` // "location"
	Schema      int    `json:"schema"`
	Run         string `json:"run" class:"none"`
	Measurement string `json:"measurement" class:"none"`
	Rules       string `json:"rules" class:"none"`
	Target      string `json:"target" class:"target"`
	Remote      string `json:"remote" class:"target"` // address and port towards which the path was followed
	// RemoteASN and RemoteCountry are that address's, 0 and "" unknown.
	RemoteASN     int     `json:"remote_asn,omitempty"`
	RemoteCountry string  `json:"remote_country,omitempty" class:"target"`
	Family        Family  `json:"family" class:"none"`
	Payload       string  `json:"payload" class:"none"` // tls, http, dns, quic, tcp (a bare SYN) or the name of first bytes
	Trigger       Trigger `json:"trigger"`
	Outcome       Whereat `json:"outcome" class:"none"`
	Kind          Kind    `json:"kind,omitempty" class:"none"`
	// Set is the smallest set of links that holds at least 990 per mille of
	// the probability, the likeliest first; the first is the answer.
	Set []Place `json:"set,omitempty"`
	// Nearer says that the device stands on that link or on one before it: up
	// to there what it acts on takes the way of everything else.
	Nearer bool `json:"nearer,omitempty"`
	// ByAnswers says that routers were counted on the way back, by the TTL with
	// which answers arrive: on the way there nothing showed.
	ByAnswers bool `json:"by_answers,omitempty"`
	// Position says whether the device stands in the path or beside it.
	Position Position `json:"position,omitempty" class:"none"`
	// ToHelper says that the path leads to a helper and not to the target.
	ToHelper bool `json:"to_helper,omitempty"`
	// FromHelper says that TTLs, hops and links are counted from the helper at
	// Remote, on the way from it to this device: Low 0 is the helper, and what
	// is at ServerTTL is this device.
	FromHelper bool `json:"from_helper,omitempty"`
	// FarEnd is what became of triggers there.
	FarEnd FarEnd `json:"far_end,omitempty" class:"none"`
	// OnlyServer says that the device addresses the server alone: what it does
	// is seen there.
	OnlyServer bool `json:"only_server,omitempty"`
	// CopiesTTL says that the device gives its packets the TTL of ours, so
	// that they arrive only from twice as far.
	CopiesTTL bool `json:"copies_ttl,omitempty"`
	// ServerTTL is the lowest TTL that reached the server, 0 unknown.
	ServerTTL int   `json:"server_ttl,omitempty"`
	Hops      []Hop `json:"hops,omitempty"`
	// Residual is what is blocked for a while after a trigger.
	Residual ResidualKey `json:"residual,omitempty" class:"none"`
	// ResidualMS is how long, 0 if it was not measured.
	ResidualMS int64 `json:"residual_ms,omitempty"`
	// Triggers is how often the device was made to react, Probes how many
	// TTL-limited packets were sent.
	Triggers int      `json:"triggers"`
	Probes   int      `json:"probes"`
	Because  []string `json:"because,omitempty" class:"none"`
	Unknown  []Why    `json:"unknown,omitempty" class:"none"`
}

// Place is a link of the path: between the router at TTL Low and the one at
// TTL Low+1. Low 0 is this device.
type Place struct {
	Low         int    `json:"low"`
	From        string `json:"from,omitempty" class:"network"` // "" if that router does not answer
	To          string `json:"to,omitempty" class:"network"`
	FromASN     int    `json:"from_asn,omitempty"`
	ToASN       int    `json:"to_asn,omitempty"`
	FromCountry string `json:"from_country,omitempty" class:"network"`
	ToCountry   string `json:"to_country,omitempty" class:"network"`
	PerMille    int    `json:"per_mille"` // its probability
}

// Hop is one TTL of the path.
type Hop struct {
	TTL int `json:"ttl"`
	// Routers answered at this TTL: more than one are equal-cost siblings.
	Routers  []Router `json:"routers,omitempty"`
	Sent     int      `json:"sent"`
	Answered int      `json:"answered"`
	Server   bool     `json:"server,omitempty"` // the server answered here
}

// Router is one address that answered at a hop.
type Router struct {
	Address string `json:"address" class:"network"`
	ASN     int    `json:"asn,omitempty"`
	Country string `json:"country,omitempty" class:"network"`
	RTTUS   int64  `json:"rtt_us,omitempty"` // the least
	// Followed says that the tested flow went this way.
	Followed bool `json:"followed,omitempty"`
}

// Whereat says what became of a search for a device.
type Whereat string

// The outcomes of a search.
const (
	Located      Whereat = "located"       // on a link before the server's own
	AtEnd        Whereat = "at-end"        // on the last link or the server itself
	Itself       Whereat = "itself"        // whom we asked does it: nothing nearer was seen to answer
	NoDifference Whereat = "no-difference" // test and control fared alike
	NotLocated   Whereat = "not-located"   // something reacts; where, cannot be said
	NoPath       Whereat = "no-path"       // not even the control could be followed
)

// Kind is what a device does to what it reacts to.
type Kind string

// The kinds.
const (
	Injects    Kind = "injects"    // answers in the server's place
	Drops      Kind = "drops"      // swallows
	Terminates Kind = "terminates" // ends every connection itself and makes its own
	Alters     Kind = "alters"     // changes what is said in passing
	Redirects  Kind = "redirects"  // leads what is meant for the server to another one
)

// Position says where a device stands.
type Position string

// The positions.
const (
	InPath          Position = "in-path" // packets go through it
	OnPath          Position = "on-path" // it sees copies and injects
	PositionUnknown Position = "unknown"
)

// FarEnd is what became, at the far end, of triggers that went all the way
// and were reacted to.
type FarEnd string

// What became of them; "" if no helper was the target.
const (
	FarArrived    FarEnd = "arrived"     // whole
	FarArrivedCut FarEnd = "arrived-cut" // and somebody reset that side of the connection
	FarNothing    FarEnd = "nothing"     // not at all
	FarCut        FarEnd = "cut"         // not at all, and that side was reset
)

// ResidualKey is what stays blocked for a while after a trigger.
type ResidualKey string

// The keys, the narrowest first.
const (
	ResidualNone        ResidualKey = "none"
	Residual4Tuple      ResidualKey = "4-tuple"     // the same two addresses and ports
	Residual3Tuple      ResidualKey = "3-tuple"     // any port of ours, the same address and port there
	ResidualDestination ResidualKey = "destination" // the two addresses, any port
	ResidualClient      ResidualKey = "client"      // everything of ours
	ResidualUnknown     ResidualKey = "unknown"
)

// Product is a device or service that a signature names.
type Product struct {
	Name   string `json:"name" class:"none"`
	Vendor string `json:"vendor,omitempty" class:"none"`
}
