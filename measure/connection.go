package measure

// Connection is what the system's kernel told of one socket of a run: what
// there is where packets cannot be captured. It is the kernel's report, not
// the packets.
type Connection struct {
	Type      string `json:"type" class:"none"` // "connection"
	Schema    int    `json:"schema"`
	Run       string `json:"run" class:"none"`
	About     string `json:"about,omitempty" class:"none"` // the measurement, and the observation that opened it, as m3/o12
	Source    string `json:"source" class:"none"`          // "kernel"
	Transport string `json:"transport" class:"none"`       // tcp, udp
	// Local is empty where the system does not tell: an attempt that failed,
	// on most.
	Local  string `json:"local,omitempty" class:"client"`
	Remote string `json:"remote,omitempty" class:"target"` // of UDP the first one written to
	Opened string `json:"opened" class:"time"`             // RFC 3339 with microseconds, UTC
	TookUS int64  `json:"took_us"`                         // until it was closed, or the attempt failed
	// Failure ended the attempt to connect.
	Failure Failure `json:"failure,omitempty" class:"none"`
	TTL     int     `json:"ttl,omitempty"`     // of what was sent first; 0: the system's
	MinTTL  int     `json:"min_ttl,omitempty"` // below which segments were not taken, at first
	// TTLs are those of arriving datagrams, each once, at most 16.
	TTLs        []int  `json:"ttls,omitempty"`
	ICMP        []ICMP `json:"icmp,omitempty"` // from the error queue; times since it was opened
	RTTUS       int64  `json:"rtt_us,omitempty"`
	RTOUS       int64  `json:"rto_us,omitempty"`
	Retransmits int    `json:"retransmits,omitempty"`
	Unacked     int    `json:"unacked,omitempty"` // segments, when it was closed
	MSS         int    `json:"mss,omitempty"`     // bytes, for sending
	Sent        int64  `json:"sent"`              // bytes that the socket took
	Received    int64  `json:"received"`          // bytes that were read from it
}
