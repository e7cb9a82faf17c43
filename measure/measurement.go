package measure

// Run opens a measurement file.
type Run struct {
	Type     string   `json:"type" class:"none"` // "run"
	Schema   int      `json:"schema"`
	Run      string   `json:"run" class:"none"` // its id
	Tool     string   `json:"tool" class:"none"`
	Version  string   `json:"version" class:"none"`
	Started  string   `json:"started" class:"time"`            // RFC 3339, UTC
	Lab      string   `json:"lab,omitempty" class:"none"`      // the scenario; "" on a real network
	Client   string   `json:"client,omitempty" class:"none"`   // the lab's client
	LabTime  string   `json:"lab_time,omitempty" class:"none"` // the lab's own date, RFC 3339
	Seed     int64    `json:"seed,omitempty"`
	Targets  int      `json:"targets"` // how many are screened
	Pace     string   `json:"pace,omitempty" class:"none"`
	Helpers  []string `json:"helpers,omitempty" class:"target"`
	Settings string   `json:"settings,omitempty" class:"none"` // other options that change what is measured
}

// View is what can honestly be observed from a place, so that "not seen" is
// never read as "not there".
type View struct {
	SYNHop      bool `json:"syn_hop"`    // the router that ends a TTL-limited SYN is named
	DataHop     bool `json:"data_hop"`   // the same for a segment of an established connection
	DataError   bool `json:"data_error"` // that an ICMP error came is seen on an established connection
	UDPHop      bool `json:"udp_hop"`
	UDPTTL      bool `json:"udp_ttl"` // the TTL of received datagrams
	MinTTL      bool `json:"min_ttl"` // SetMinTTL works
	SetTTL      bool `json:"set_ttl"`
	TCPInfo     bool `json:"tcp_info"`
	Capture     bool `json:"capture"`
	Lookup      bool `json:"lookup"` // the system resolver can be asked
	SystemRoots bool `json:"system_roots"`
	IPv4        bool `json:"ipv4"`
	IPv6        bool `json:"ipv6"`
}

// Vantage is where a measurement was made from, as far as it is known.
type Vantage struct {
	ASN           int    `json:"asn,omitempty"`
	Country       string `json:"country,omitempty" class:"network"`
	ASNSource     string `json:"asn_source,omitempty" class:"none"` // helper, lab, user; "" unknown
	Network       string `json:"network,omitempty" class:"network"` // the operator's name
	Link          string `json:"link,omitempty" class:"network"`    // wifi, ethernet, mobile, …
	Tunnel        bool   `json:"tunnel"`                            // a VPN carries the traffic
	Proxy         bool   `json:"proxy"`                             // a system proxy is set
	Captive       bool   `json:"captive"`
	NAT64         bool   `json:"nat64"`
	NAT64Prefix   string `json:"nat64_prefix,omitempty" class:"network"`
	ClockOffsetMS int64  `json:"clock_offset_ms"`                     // estimated time minus device time; 0 also if unknown
	ClockSource   string `json:"clock_source,omitempty" class:"none"` // "" unknown
	ResolverASN   int    `json:"resolver_asn,omitempty"`
	Geo           string `json:"geo,omitempty" class:"none"` // version of the address table
}

// Canary sums up the canaries of one protocol and family up to a moment of
// the run: the bound on how often this network fails by itself.
type Canary struct {
	Step     Step   `json:"step" class:"none"`
	Family   Family `json:"family" class:"none"`
	Networks int    `json:"networks"` // in how many different networks
	Runs     int    `json:"runs"`
	Failures int    `json:"failures"`
}

// Measurement is everything observed about one target.
type Measurement struct {
	Type     string  `json:"type" class:"none"` // "measurement"
	Schema   int     `json:"schema"`
	Run      string  `json:"run" class:"none"`
	ID       string  `json:"id" class:"none"`
	Target   string  `json:"target" class:"target"` // Target.URL
	Category string  `json:"category,omitempty" class:"none"`
	Started  string  `json:"started" class:"time"` // RFC 3339 with microseconds, UTC
	Vantage  Vantage `json:"vantage"`
	View     View    `json:"view"`
	// Screened is the number of targets of the run: a suspect is one of so
	// many, which the rule of confirmation takes into account.
	Screened int      `json:"screened"`
	Canaries []Canary `json:"canaries,omitempty"`
	// Imported names the format this was read from ("ooni"), "" our own.
	Imported     string        `json:"imported,omitempty" class:"none"`
	Observations []Observation `json:"observations"`
	// Complete is false when the measurement was interrupted.
	Complete      bool  `json:"complete"`
	ElapsedMS     int64 `json:"elapsed_ms"`
	BytesSent     int64 `json:"bytes_sent"`
	BytesReceived int64 `json:"bytes_received"`
}

// Body is a response body or certificate kept for its own sake, once per hash.
type Body struct {
	Type      string `json:"type" class:"none"` // "body"
	Schema    int    `json:"schema"`
	Run       string `json:"run" class:"none"`
	SHA256    string `json:"sha256" class:"target"`
	Kind      string `json:"kind" class:"none"` // body, certificate
	Data      []byte `json:"data" class:"foreign"`
	Truncated bool   `json:"truncated,omitempty"`
}

// End closes a measurement file; without it the run was interrupted.
type End struct {
	Type          string `json:"type" class:"none"` // "end"
	Schema        int    `json:"schema"`
	Run           string `json:"run" class:"none"`
	Ended         string `json:"ended" class:"time"`
	Measurements  int    `json:"measurements"`
	BytesSent     int64  `json:"bytes_sent"`
	BytesReceived int64  `json:"bytes_received"`
	Interrupted   bool   `json:"interrupted,omitempty"`
}
