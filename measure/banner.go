package measure

// Beside says which router of a located link an observation of ExpBanner was
// addressed to.
type Beside struct {
	TTL int `json:"ttl"` // at which it answered on the path
	// PerMille is the probability, when it was asked, that the device sits on
	// a link that this router is an end of.
	PerMille int `json:"per_mille"`
}

// Greeting is what a server said before it was spoken to.
type Greeting struct {
	// Text is what was kept of it, in printable characters: all other bytes,
	// and the percent sign, are written as in a URL (RFC 3986, 2.1), so that a
	// line ends in %0D%0A.
	Text      string `json:"text,omitempty" class:"foreign"`
	Bytes     int64  `json:"bytes"` // read
	Truncated bool   `json:"truncated,omitempty"`
}

// Volunteer is a router beside the located link, and what it says of itself
// to whoever connects. It is evidence about that router; that the router is
// the device does not follow.
type Volunteer struct {
	Address  string `json:"address" class:"network"`
	TTL      int    `json:"ttl"` // as in Beside
	PerMille int    `json:"per_mille"`
	// Asked are the ports that were connected to, Open those that accepted.
	Asked []int `json:"asked"`
	Open  []int `json:"open,omitempty"`
	// Products are named by what it said, the likeliest first; PerMille of each
	// is that its signature is right, whatever PerMille of the router is.
	Products []Candidate `json:"products,omitempty"`
	// Says is what it said, by port.
	Says []Statement `json:"says,omitempty"`
}

// Statement is one thing that a router says on a port.
type Statement struct {
	Port int `json:"port"`
	// Kind is greeting, certificate (its subject), server (the header), realm
	// (WWW-Authenticate), redirect or title.
	Kind    string `json:"kind" class:"none"`
	Text    string `json:"text" class:"foreign"`
	Because string `json:"because,omitempty" class:"none"` // id of the observation
}
