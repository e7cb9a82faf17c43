package measure

// HelperRequest is what a client asks of a test helper (docs/formats/helper-v1.md).
type HelperRequest struct {
	Schema int `json:"schema"`
	// Nonce ties the helper's answer to the request.
	Nonce string `json:"nonce" class:"none"`
	// URL to fetch, with the helper's own resolver and addresses. "tls://"
	// and "tcp://" URLs are connected to and not fetched; those of a mail
	// server ("smtp://", "imaps://", …) are held a dialogue with.
	URL string `json:"url" class:"target"`
	// Addresses that the client got for the host; the helper connects to
	// those too. At most 8.
	Addresses []string `json:"addresses,omitempty" class:"target"`
	// QUIC asks for a QUIC handshake with each address as well.
	QUIC bool `json:"quic,omitempty"`
	// Wants names, besides the fetch: "time"; "mail", the helper's own greeters;
	// "receipt", its signature of the reply.
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
	// Mail are the greeters that listen at the helper's address, if asked for.
	Mail []MailGreeter `json:"mail,omitempty"`
	// Observations made by the helper: dns (its own resolver), tcp and tls
	// per address (its own answers' and the client's), quic, http, mail. Role is
	// helper, ids are the helper's own ("h1", …), times since it got the
	// request. An address that it refuses to contact has none.
	Observations []Observation `json:"observations"`
	Failure      Failure       `json:"failure,omitempty" class:"none"`
	Detail       string        `json:"detail,omitempty" class:"foreign"`
	// Receipt is what the helper signs of this, a C2SP signed note, if it was
	// asked for; ReceiptKey the public key (ed25519, hex) to check it with.
	Receipt    string `json:"receipt,omitempty" class:"network"`
	ReceiptKey string `json:"receipt_key,omitempty" class:"target"`
}

// Receipt is what a helper signed of its reply, kept so that anybody can check
// that the helper saw what the measurement says it saw.
type Receipt struct {
	// Note is the signed note: the time, the client's network, and keyed
	// hashes that tell nothing to who does not have Request.
	Note string `json:"note" class:"network"`
	// Key is the helper's public key, ed25519 in hex.
	Key string `json:"key" class:"target"`
	// Request is the request as it was sent, with the nonce that the hashes
	// are keyed with. It is withheld with anything that they are about.
	Request string `json:"request" class:"target"`
	// Covers are the observations that the note is about.
	Covers []Covered `json:"covers,omitempty"`
}

// Covered names an observation of this measurement and what its helper called
// it.
type Covered struct {
	ID string `json:"id" class:"none"`
	As string `json:"as" class:"none"`
}

// HelperReceivedRequest asks a helper what came of first bytes that were sent
// to one of its TCP ports (ExpFirstBytes).
type HelperReceivedRequest struct {
	Schema int `json:"schema"`
	// Marker is the 16 random bytes, in hex, that the first bytes hold somewhere.
	Marker string `json:"marker" class:"none"`
}

// HelperReceived is what came: nothing where Connections is 0.
type HelperReceived struct {
	Schema int    `json:"schema"`
	Marker string `json:"marker" class:"none"`
	// Connections that held the marker within the last minute; Bytes and
	// SHA256 (hex) are of everything that came on the last of them.
	Connections int    `json:"connections"`
	Bytes       int64  `json:"bytes"`
	SHA256      string `json:"sha256,omitempty" class:"none"`
}

// HelperArrivedRequest asks a helper that was itself the target what came of a
// connection whose first bytes died on the way, or did not (ExpFarEnd).
type HelperArrivedRequest struct {
	Schema int `json:"schema"`
	// Marker is 16 random bytes, in hex: the first half of a ClientHello's
	// random, or the value of the cookie "id" of a plain request.
	Marker string `json:"marker" class:"none"`
	// Port is the client's. What came from it to the helper is told too if it
	// brought no bytes; 0 asks for none of those.
	Port int `json:"port,omitempty"`
	// Hello asks for the ClientHello of each connection too, as it came.
	Hello bool `json:"hello,omitempty"`
}

// HelperArrived is what came within the last minute, the oldest first.
type HelperArrived struct {
	Schema int       `json:"schema"`
	Marker string    `json:"marker" class:"none"`
	List   []Arrival `json:"list"`
}

// Arrival is a connection as the far end saw it.
type Arrival struct {
	// Marked says that its first bytes held the marker; else it brought no
	// bytes, and came from the asking client's address and port.
	Marked bool  `json:"marked,omitempty"`
	Port   int   `json:"port"`  // the client's, as it arrived
	Bytes  int64 `json:"bytes"` // that came, counted up to 64 KiB
	// SYNTTL is the TTL with which the SYN arrived, 0 unknown.
	SYNTTL int `json:"syn_ttl,omitempty"`
	// FirstUS is when the first byte came, EndedUS when the connection ended,
	// after it was made; 0 if that had not happened.
	FirstUS int64 `json:"first_us,omitempty"`
	EndedUS int64 `json:"ended_us,omitempty"`
	// Ended is how the other side ended it: "reset", "closed", or "" if it
	// had not.
	Ended string `json:"ended,omitempty" class:"none"`
	// AgeUS is how long ago it was made.
	AgeUS int64 `json:"age_us"`
	// Hello is the record with the ClientHello as it came, in base64, where it
	// was asked for; at most 4 KiB of it. It is compared and not kept.
	Hello string `json:"hello,omitempty" class:"target"`
}

// HelperBackRequest asks a helper to say what its greeter says next to the
// asking client with TTLs that end it on the way back (ExpWayBack), and what
// came of what it was asked to say before.
type HelperBackRequest struct {
	Schema int `json:"schema"`
	// Marker is 16 random bytes, in hex, which the same client asks again with.
	Marker string `json:"marker" class:"none"`
	// Port is the greeter's.
	Port int `json:"port"`
	// TTLs are those of its greeting and of each answer behind it, on the next
	// connection to that port from the asking client's own address: 1 to 64,
	// and 0 for the system's own, which all further answers have. At most 16.
	// None: nothing is asked for.
	TTLs []int `json:"ttls,omitempty"`
}

// HelperBack is what came of it.
type HelperBack struct {
	Schema int    `json:"schema"`
	Marker string `json:"marker" class:"none"`
	// Able says that the helper may capture packets; without that it says
	// everything as always.
	Able bool `json:"able,omitempty"`
	// Greeter is the one at that port, as the helper knows it.
	Greeter *MailGreeter `json:"greeter,omitempty"`
	// List is what was said with a TTL since it was last asked, in order.
	List []Said `json:"list,omitempty"`
}

// Said is what a greeter said with a TTL.
type Said struct {
	TTL   int `json:"ttl"`
	Port  int `json:"port"`  // the client's, as it arrived
	Sends int `json:"sends"` // with that TTL
	// Text is what was said, in base64, at most 512 bytes.
	Text string `json:"text" class:"target"`
	// Outcome is expired (a router said so), arrived (it was acknowledged) or
	// silent.
	Outcome string `json:"outcome" class:"none"`
	// Router, Type and Code are those of the ICMP error, Quoted, in base64, is
	// the packet that it quotes, as far as it does, at most 1,280 bytes; RTTUS
	// is how long after the last sending it came.
	Router string `json:"router,omitempty" class:"network"`
	Type   int    `json:"type,omitempty"`
	Code   int    `json:"code,omitempty"`
	Quoted string `json:"quoted,omitempty" class:"target"`
	RTTUS  int64  `json:"rtt_us,omitempty"`
}

// The fixed body that a helper serves under /plain, whatever the Host.
const (
	HelperPlainSHA256 = "f5dbb3e1a74787a7cca345f9faa3dba8b46a0207c196b62d2942f5456defb3eb"
	HelperPlainBytes  = 2367
)
