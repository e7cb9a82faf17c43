package evidence

import (
	"fmt"
	"strings"
)

// Class says whom or what the bytes of a leaf can identify. It is one byte of
// the signed leaf, so that whoever withholds a leaf cannot relabel it.
type Class uint8

// The classes, in the order of the leaves. The numbers are the format's.
const (
	None        Class = iota // vocabulary, structure, quantities: never withheld
	Target                   // what was tested
	Client                   // the device: its addresses, ports, clocks, ids of its own
	Location                 // where it was: the country
	Network                  // AS, operator, resolver, routers
	NetworkName              // SSID, BSSID, MAC addresses
	Foreign                  // content made by others, which may say anything
	Time                     // when it happened, precise enough to correlate
	Payload                  // what packets carried
	Rendering                // made for people of all that is above

	classes = iota
)

var classNames = [classes]string{"none", "target", "client", "location", "network", "network-name", "foreign", "time", "packet-payload", "rendering"}

func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// ParseClass reads a class by its name.
func ParseClass(name string) (Class, error) {
	for c, n := range classNames {
		if n == name {
			return Class(c), nil
		}
	}
	return 0, fmt.Errorf("there is no class %q; there are %s", name, strings.Join(classNames[:], ", "))
}

// Classes are all of them, in their order.
func Classes() []Class {
	list := make([]Class, classes)
	for i := range list {
		list[i] = Class(i)
	}
	return list
}

// Counts is how many leaves of each class there are. It is signed, and says of
// which class each leaf is, an open one or not: they are ordered by class.
type Counts [classes]uint32

// Total is the number of leaves.
func (c Counts) Total() (n int64) {
	for _, k := range c {
		n += int64(k)
	}
	return n
}

// within adds to n how many leaves of each class lie in [lo, hi).
func (c Counts) within(lo, hi int64, n *Counts) {
	at := int64(0)
	for k, m := range c {
		from, to := max(lo, at), min(hi, at+int64(m))
		if to > from {
			n[k] += uint32(to - from)
		}
		at += int64(m)
	}
}
