package measure

// Identification is what kind of thing reacts to a trigger: the outcome of
// package identify for one measurement, one layer and one family. It follows
// from the observations of StageIdentify alone; with a Method it is of something
// that answers in another's place, and follows from all observations of its
// measurement; or, with payload banner, from those of StageBanner, and is what
// the routers beside the located link say.
type Identification struct {
	Type        string  `json:"type" class:"none"` // "identification"
	Schema      int     `json:"schema"`
	Run         string  `json:"run" class:"none"`
	Measurement string  `json:"measurement" class:"none"`
	Rules       string  `json:"rules" class:"none"`
	Target      string  `json:"target" class:"target"`
	Family      Family  `json:"family,omitempty" class:"none"`
	Payload     string  `json:"payload" class:"none"` // tls, http, dns or quic; mail, ssh; banner
	Trigger     Trigger `json:"trigger"`
	// Method is that of the finding about an interceptor, "" of a device that
	// reacts to a trigger.
	Method Method `json:"method,omitempty" class:"none"`
	// Outcome says how far the answer goes.
	Outcome Likeness `json:"outcome" class:"none"`
	// Products are named by a signature of theirs that the answer carried,
	// never by behaviour; the likeliest first.
	Products []Candidate `json:"products,omitempty"`
	// Behaviours are documented ones that this one is like, the likeliest
	// first, of at least 10 per mille.
	Behaviours []Candidate `json:"behaviours,omitempty"`
	// Cluster is the id of the behaviour itself: devices with one id wrote and
	// read alike. It names nobody. If it ends in ~ and a number, so many core
	// forms could not be told, and it is not to be compared.
	Cluster string `json:"cluster,omitempty" class:"none"`
	// Properties are what was found out, in a fixed order.
	Properties []Property `json:"properties,omitempty"`
	// Routers are those beside the located link, and what they say of
	// themselves. Their products are not among Products.
	Routers []Volunteer `json:"routers,omitempty"`
	// Probes is how often the trigger was sent, in whatever form, Triggers how
	// often the device reacted; with payload banner Probes is how many
	// connections to routers were tried.
	Probes   int `json:"probes"`
	Triggers int `json:"triggers"`
	// Next is the form that would tell most, "" if none would tell anything.
	Next    string `json:"next,omitempty" class:"none"`
	Unknown []Why  `json:"unknown,omitempty" class:"none"`
}

// Likeness says how far an identification goes.
type Likeness string

// The outcomes of an identification.
const (
	// ProductNamed: a signature names the product.
	ProductNamed Likeness = "product"
	// BehaviourKnown: it behaves as documented elsewhere.
	BehaviourKnown Likeness = "behaviour"
	// UnknownDevice: neither; Cluster is all there is.
	UnknownDevice Likeness = "unknown"
	// NothingReacts: the trigger fared like its control.
	NothingReacts Likeness = "nothing-reacts"
	// NotComparable: no control passed, so nothing can be said.
	NotComparable Likeness = "no-control"
	// RouterNamed: a router beside the located link says which product it is.
	RouterNamed Likeness = "router"
	// RouterUnknown: one says something, and nothing that names a product.
	RouterUnknown Likeness = "router-unknown"
	// RouterSilent: none says anything.
	RouterSilent Likeness = "router-silent"
)

// Candidate is a product or a documented behaviour.
type Candidate struct {
	Row string `json:"row" class:"none"` // of package known
	// Name is the product's, or says where the behaviour was seen.
	Name     string `json:"name" class:"none"`
	Vendor   string `json:"vendor,omitempty" class:"none"`
	Country  string `json:"country,omitempty" class:"none"`
	PerMille int    `json:"per_mille"` // of a behaviour among all, an unknown one included; of a product that its signature is right
	Source   string `json:"source,omitempty" class:"none"`
	// Because are ids of observations.
	Because []string `json:"because,omitempty" class:"none"`
}

// Property is one thing known about how a device writes or reads.
type Property struct {
	// Name: for what it writes action, status, alert, rcode, answer, dns-ttl,
	// aa, replies; for an interceptor issuer, issuer-key, leaf-key, aia, sct,
	// days, tls, alpn, version, name, exit, via, added, server, page, greeting,
	// mask, software, host-key; for the packets it makes, where they were captured, ip-ttl,
	// ip-id, df, flags, packets, window, seq, ack, payload, spacing; for what it
	// reads the form of a trigger.
	Name string `json:"name" class:"none"`
	// Value: of a form, reads (it reacts) or blind (it does not).
	Value   string   `json:"value" class:"foreign"`
	Because []string `json:"because,omitempty" class:"none"`
}

// The values of a form's Property.
const (
	Reads = "reads"
	Blind = "blind"
)
