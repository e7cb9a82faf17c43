package judge

import (
	"testing"

	"govah/measure"
)

// What is reached only by asking another resolver is not reached by a user
// whose own resolver lies.
func TestReachedByAnotherResolverOnly(t *testing.T) {
	s := newScene("https://" + site + "/")
	s.resolved("10.10.34.35", truth)
	s.visit(truthAt, "")
	check(t, s.judge(), want{measure.ReachableNo, measure.InterferenceConfirmed, measure.DNSResolverLie, "qname", "artefact+identity", ""})
}

// A private address may be an honest answer where nothing proves another one.
func TestPrivateAddressWithoutAProvenOne(t *testing.T) {
	s := newScene("https://" + site + "/")
	s.resolved("10.1.2.3", truth)
	check(t, s.judge(), want{interference: measure.InterferenceSuspected, method: measure.DNSResolverLie, why: measure.WhyGeoDNS})
}

// One reaction from nearer than the server may be a path that changed.
func TestOneReactionFromNearBy(t *testing.T) {
	s := screenedSNI(measure.ConnectionReset)
	s.sniRounds(5, measure.ConnectionReset, "", false)
	c, x := hello("", measure.ExpSNITTL, 1, siteAt, randomName, measure.GenericTimeout), hello("", measure.ExpSNITTL, 1, siteAt, site, measure.ConnectionReset)
	c.TTL, x.TTL = 5, 5
	c.Path, x.Path = &measure.Path{Probe: "data", Outcome: "silent", ServerTTL: 6}, &measure.Path{Probe: "data", Outcome: "reset", ServerTTL: 6}
	s.pair(c, x)
	check(t, s.judge(), want{interference: measure.InterferenceSuspected, method: measure.TLSReset})
}
