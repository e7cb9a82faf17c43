package measure

// Head is the head of an HTTP/1.1 request: as it was sent, or as a helper saw
// it.
type Head struct {
	Line string `json:"line" class:"foreign"` // the request line
	// Headers in their order. Of one that was not sent the name alone is kept,
	// but for Via: what is added on the way can be the subscriber's own number.
	Headers []Header `json:"headers,omitempty"`
}
