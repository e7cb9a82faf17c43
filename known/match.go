package known

import "govah/measure"

// Evidence is what an answer carried.
type Evidence struct {
	Headers []measure.Header
	// Location is the redirect's target where Headers lacks it.
	Location string
	// Body as decoded; searched as a whole.
	Body []byte
	// Greeting is what a server said before it was spoken to, in the form of
	// measure.Greeting.
	Greeting string
}

// Match is Table.Match with the shipped rows.
func Match(e Evidence) []measure.Match { return shipped().Match(e) }

// MatchHTTP is Match for a recorded answer and its body.
func MatchHTTP(h *measure.HTTP, body []byte) []measure.Match { return shipped().MatchHTTP(h, body) }
