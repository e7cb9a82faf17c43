package measure

// SSH is what a server showed until it had proven its host key. Nobody logs
// in: no user name is sent.
type SSH struct {
	// Identification is the server's line (RFC 4253, 4.2), in printable
	// characters as Greeting.Text.
	Identification string `json:"identification,omitempty" class:"foreign"`
	// KeyType and Fingerprint are of the host key whose signature of the key
	// exchange verified, as OpenSSH writes them: "ssh-ed25519" and "SHA256:"
	// and base64. Empty: none did.
	KeyType     string `json:"key_type,omitempty" class:"none"`
	Fingerprint string `json:"fingerprint,omitempty" class:"target"`
	// Asked are the key types that alone were accepted; none: any.
	Asked []string `json:"asked,omitempty" class:"none"`
	// What the server offers, in its order (RFC 4253, 7.1); the first of each
	// list are kept.
	KeyExchanges []string `json:"key_exchanges,omitempty" class:"foreign"`
	HostKeys     []string `json:"host_keys,omitempty" class:"foreign"`
	Ciphers      []string `json:"ciphers,omitempty" class:"foreign"` // towards the client
	MACs         []string `json:"macs,omitempty" class:"foreign"`
	// Known are the keys of this host that were known before.
	Known []HostKey `json:"known,omitempty"`
	// Operator is who publishes keys of this host, "" nobody known; KnownAsOf
	// the day on which these were last compared with what is published.
	Operator  string `json:"operator,omitempty" class:"none"`
	KnownAsOf string `json:"known_as_of,omitempty" class:"none"`
}

// HostKey is a key that a host was known by before it was asked.
type HostKey struct {
	// Source is user (the user's own known_hosts) or published.
	Source      string `json:"source" class:"none"`
	KeyType     string `json:"key_type" class:"none"`
	Fingerprint string `json:"fingerprint" class:"target"`
	// Retired says that it must not be seen any more: its operator withdrew
	// it, or the user's file revokes it.
	Retired bool   `json:"retired,omitempty"`
	Row     string `json:"row,omitempty" class:"none"` // of known/hostkeys.csv
}

// The sources of a HostKey.
const (
	SourceUser      = "user"
	SourcePublished = "published"
)
