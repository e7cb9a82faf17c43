package measure

// Target is one thing to test. Its canonical text (URL) identifies it in
// every record.
type Target struct {
	// URL is the canonical form: "https://host/path", "http://host:8080/",
	// or "tcp://host:port", "tls://host:port" and "ssh://host:port" for an
	// endpoint that is no web page. Mail servers are "smtp://host:port" and so
	// on, always with their port.
	URL string `json:"url" class:"target"`
	// Scheme is http, https, tcp, tls, ssh, smtp, imap or pop3, one of those
	// three with an s for TLS from the first byte on, or, of LineTarget, line.
	Scheme string `json:"scheme" class:"none"`
	// Host is a name in its ASCII (IDNA) form or a numeric address.
	Host string `json:"host" class:"target"`
	// Port is 1 to 65535.
	Port int `json:"port"`
	// Category is Citizen Lab's category code where the list had one.
	Category string `json:"category,omitempty" class:"none"`
}

// LineTarget is the URL of the measurement about the line itself: whether
// something on it reads or redirects, whatever the target.
const LineTarget = "line:interception"
