package measure

// Place is a point or a link of a path: between the router at TTL Low and the
// one at TTL Low+1.
type Place struct {
	Low  int    `json:"low"`
	From string `json:"from,omitempty" class:"network"`
	To   string `json:"to,omitempty" class:"network"`
}

// Product is a device or service that a signature names.
type Product struct {
	Name   string `json:"name" class:"none"`
	Vendor string `json:"vendor,omitempty" class:"none"`
}
