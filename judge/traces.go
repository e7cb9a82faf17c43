package judge

import (
	"slices"
	"time"

	"govah/measure"
)

// traces are the signs of an imitation in the chain that o shows for name,
// against what the name's own server shows to a helper, over QUIC at the same
// address, or there under another name. They go beside a finding and make none:
// a server may have an odd certificate, and a list of logs may be old.
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
		control := g.Role == measure.RoleControl && g.Step == measure.StepTLS && g.Experiment == measure.ExpSNI && completed(g)
		if g.Remote != o.Remote || g.TLS == nil || len(g.TLS.Chain) == 0 || g.TLS.Chain[0] == t.Chain[0] {
			continue
		}
		own := g.TLS
		if (helper || quic) && verified(own) {
			add(measure.TraceSerial, own.Serial != "" && own.Serial == t.Serial)
			add(measure.TraceAIA, own.AIA && !t.AIA)
			add(measure.TraceKey, own.Key != "" && t.Key != "" && own.Key != t.Key)
			add(measure.TraceSCT, own.SCTs != nil && t.SCTs != nil && own.SCTs.Embedded+own.SCTs.Beside > 0 && t.SCTs.Embedded+t.SCTs.Beside == 0)
			if own.NotAfterS != 0 && t.NotAfterS != 0 {
				add(measure.TraceDates, own.NotBeforeS == t.NotBeforeS && own.NotAfterS == t.NotAfterS)
				add(measure.TraceRounded, rounded(t) && !rounded(own))
				if started, err := time.Parse(time.RFC3339Nano, j.m.Started); err == nil {
					add(measure.TraceFresh, started.Unix()-t.NotBeforeS < freshS && started.Unix()-own.NotBeforeS >= freshS)
				}
			}
		} else if !control || own.Issuer == t.Issuer || g.Hello != o.Hello {
			continue // of another name only the handshake can be compared
		}
		if t.Version == "" || own.Version == "" {
			continue
		}
		add(measure.TraceVersion, own.Version == "TLS 1.3" && t.Version != "TLS 1.3")
		if quic {
			continue // it has protocols of its own, and another library
		}
		// A helper shakes hands as this device does.
		add(measure.TraceALPN, own.ALPN == "h2" && t.ALPN != "h2")
		add(measure.TraceGroup, own.Group != "" && t.Group != own.Group)
		add(measure.TraceCipher, own.Version == t.Version && own.Cipher != "" && t.Cipher != "" && own.Cipher != t.Cipher)
	}
	slices.Sort(out)
	return out
}

// freshS is how long before a measurement a certificate was made that may have
// been made for it: devices date them back, against clocks that are slow.
const freshS = 3 * 24 * 3600

// rounded says whether a certificate is valid from one whole hour to another,
// or to its last second, as those are that a person or a simple program made.
func rounded(t *measure.TLS) bool {
	const hour = 3600
	return t.NotBeforeS%hour == 0 && (t.NotAfterS%hour == 0 || t.NotAfterS%hour == hour-1)
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
