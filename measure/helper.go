package measure

// HelperRequest is what a client asks of a test helper (docs/formats/helper-v1.md).
type HelperRequest struct {
	Schema int `json:"schema"`
	// Nonce ties the helper's log and answer to the request.
	Nonce string `json:"nonce" class:"none"`
	// URL to fetch, with the helper's own resolver and addresses.
	URL string `json:"url" class:"target"`
	// Addresses that the client got for the host; the helper connects to
	// those too. At most 8.
	Addresses []string `json:"addresses,omitempty" class:"target"`
	// QUIC asks for a QUIC handshake with each address as well.
	QUIC bool `json:"quic,omitempty"`
	// Wants names, besides the fetch: "time".
	Wants []string `json:"wants,omitempty" class:"none"`
}

// HelperReply is what a helper saw.
type HelperReply struct {
	Schema  int    `json:"schema"`
	Nonce   string `json:"nonce" class:"none"`
	Version string `json:"version" class:"none"`
	// TimeMS is the helper's clock, Unix milliseconds.
	TimeMS int64 `json:"time_ms"`
	// ASN and Country of the client as the helper's table has them, so that
	// the client need ask nobody else. The helper keeps neither.
	ASN     int    `json:"asn,omitempty"`
	Country string `json:"country,omitempty" class:"network"`
	// Observations made by the helper: dns (its own resolver), tcp and tls
	// per address (its own answers' and the client's), quic, http. Role is
	// helper, ids are the helper's own ("h1", …), times since it got the
	// request.
	Observations []Observation `json:"observations"`
	Failure      Failure       `json:"failure,omitempty" class:"none"`
	Detail       string        `json:"detail,omitempty" class:"foreign"`
}
