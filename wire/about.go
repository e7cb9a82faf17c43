package wire

import (
	"context"
	"net/netip"

	"govah/measure"
)

// What is known of a socket before it opens travels in the context, as with
// net/http/httptrace: the steps know what it is for, the Network knows its
// address, and whoever traces a run needs both before the first packet leaves.

type (
	aboutKey struct{}
	boundKey struct{}
)

// LabelOf labels the observations of a measurement as "m3/o12".
func LabelOf(measurement string) func(observation string) string {
	return func(observation string) string {
		if measurement == "" || observation == "" {
			return measurement
		}
		return measurement + "/" + observation
	}
}

// About says what the sockets are for that are opened with the context it
// returns: an observation of this log, or, with nil, any of them.
func (l *Log) About(ctx context.Context, o *measure.Observation) context.Context {
	if l.Label == nil {
		return ctx
	}
	id := ""
	if o != nil {
		id = o.ID
	}
	return context.WithValue(ctx, aboutKey{}, l.Label(id))
}

func labelIn(ctx context.Context) string {
	label, _ := ctx.Value(aboutKey{}).(string)
	return label
}

// OnBound has f told the local address of each socket that a Network opens
// with the context it returns, before the socket's first packet leaves. The
// address itself may be unspecified, the port is not. Not every system tells.
func OnBound(ctx context.Context, f func(local netip.AddrPort)) context.Context {
	return context.WithValue(ctx, boundKey{}, f)
}

// Bound is what a Network tells local addresses to; nil: nobody asked.
func Bound(ctx context.Context) func(local netip.AddrPort) {
	f, _ := ctx.Value(boundKey{}).(func(netip.AddrPort))
	return f
}
