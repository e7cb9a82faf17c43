package judge

import (
	"slices"

	"govah/measure"
)

// traces are the signs of an imitation in the chain that o shows for name,
// against what the name's own server shows to a helper or over QUIC at the same
// address. They go beside a finding and make none: a server may have an odd
// certificate, and a list of logs may be old.
func (j *judging) traces(o *measure.Observation, name string) (out []measure.Trace) {
	t := o.TLS
	add := func(x measure.Trace, when bool) {
		if when && !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	add(measure.TraceFalseSCT, t.SCTs != nil && t.SCTs.False > 0)
	add(measure.TraceOneKey, len(j.sameKey(o)) > 0)
	for _, g := range j.obs {
		helper := g.Role == measure.RoleHelper && g.Step == measure.StepTLS && canonical(g.SNI) == name
		quic := g.Role == measure.RoleTest && g.Step == measure.StepQUIC && nameOf(g) == name
		if !helper && !quic || g.Remote != o.Remote || !verified(g.TLS) || len(g.TLS.Chain) == 0 || g.TLS.Chain[0] == t.Chain[0] {
			continue
		}
		own := g.TLS
		add(measure.TraceSerial, own.Serial != "" && own.Serial == t.Serial)
		add(measure.TraceAIA, own.AIA && !t.AIA)
		add(measure.TraceKey, own.Key != "" && t.Key != "" && own.Key != t.Key)
		add(measure.TraceSCT, own.SCTs != nil && t.SCTs != nil && own.SCTs.Embedded+own.SCTs.Beside > 0 && t.SCTs.Embedded+t.SCTs.Beside == 0)
		// A helper shakes hands as this device does; QUIC has protocols of its own.
		if helper && t.Version != "" && own.Version != "" {
			add(measure.TraceALPN, own.ALPN == "h2" && t.ALPN != "h2")
			add(measure.TraceGroup, own.Group != "" && t.Group != own.Group)
			add(measure.TraceVersion, own.Version == "TLS 1.3" && t.Version != "TLS 1.3")
		}
	}
	slices.Sort(out)
	return out
}

// sameKey finds other hosts that showed the very key that o shows, in a
// certificate of no public authority that has no name in common with o's.
func (j *judging) sameKey(o *measure.Observation) (found []*measure.Observation) {
	if o.TLS.SPKI == "" || o.TLS.Public != measure.VerifyUnknownCA {
		return nil
	}
	for _, c := range j.canaries {
		if c.Step == measure.StepTLS && c.TLS != nil && c.TLS.SPKI == o.TLS.SPKI && c.TLS.Public == measure.VerifyUnknownCA && c.Remote != o.Remote &&
			!slices.ContainsFunc(c.TLS.Names, func(n string) bool { return slices.Contains(o.TLS.Names, n) }) {
			found = append(found, c)
		}
	}
	return found
}
