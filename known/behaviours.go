package known

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
)

//go:embed behaviours.csv
var behavioursCSV []byte

// Behaviour is one documented way in which something on a path writes and
// reads, as far as a device without privileges can see it. It names where it
// was seen and never a product: whose it is follows from signatures alone.
type Behaviour struct {
	ID      string
	Payload string // tls, http, dns or quic
	Name    string // where and when
	Country string
	// Properties by name (package identify has the names): the values that fit.
	Properties map[string][]string
	// Captured: nothing but marks of packets tells it from others, so that it
	// is compared only where packets were captured.
	Captured bool
	Source   string
	// Grade: P primary source read, L summary of a paper, T thread of
	// observations, M from memory.
	Grade string
}

var behaviourTable = sync.OnceValue(func() []Behaviour {
	var out []Behaviour
	seen := map[string]bool{}
	for _, r := range readCSV("behaviours.csv", behavioursCSV, 7) {
		b := Behaviour{ID: r[0], Payload: r[1], Name: r[2], Country: r[3], Properties: map[string][]string{}, Source: r[5], Grade: r[6]}
		for _, p := range strings.Fields(r[4]) {
			if p == "captured" {
				b.Captured = true
				continue
			}
			name, values, ok := strings.Cut(p, "=")
			if !ok || b.Properties[name] != nil {
				panic(fmt.Sprintf("known: behaviours.csv: row %s: %q is no property, or is there twice", b.ID, p))
			}
			b.Properties[name] = strings.Split(values, "|")
		}
		if seen[b.ID] || len(b.Properties["action"]) == 0 {
			panic("known: behaviours.csv: row " + b.ID + " is there twice or has no action")
		}
		seen[b.ID] = true
		out = append(out, b)
	}
	return out
})

// Behaviours lists the documented behaviours, in the order of the file.
func Behaviours() []Behaviour { return append([]Behaviour(nil), behaviourTable()...) }
