package judge

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"govah/measure"
)

// line judges the measurement of the line itself (measure.LineTarget).
func (j *judging) line() {
	for _, f := range []measure.Family{measure.IPv4, measure.IPv6} {
		j.redirected(f)
		j.nobodyAccepts(f)
		j.impostors(f)
		j.program(f)
	}
	j.nearConnects()
	j.stripped()
	j.resigned()
	j.encryptedDNS()
	j.clear()
}

// reachesAnything says whether the line carries traffic at all: without that
// no silence on it means a thing.
func (j *judging) reachesAnything() measure.Reachable {
	if j.m.Vantage.Captive {
		return measure.ReachableUnknown
	}
	for _, o := range j.obs {
		if (o.Role == measure.RoleControl || o.Role == measure.RoleCanary) && o.Failure == measure.NoFailure && o.Step != measure.StepPath {
			return measure.ReachableYes
		}
	}
	return measure.ReachableUnknown
}

// local says that a finding is about this device or the local network: told
// calmly, and no accusation of the line.
func local(f *measure.Finding) bool {
	return f.Scope == measure.ScopeDevice || f.Scope == measure.ScopeLAN
}

// tested are the tests of an experiment of one family.
func (j *judging) tested(e measure.Experiment, f measure.Family) (out []*measure.Observation) {
	for _, o := range j.obs {
		if o.Experiment == e && o.Role == measure.RoleTest && family(o) == f && !ours(o) {
			out = append(out, o)
		}
	}
	return out
}

// within gives the scope of what answers at a TTL: a packet that expires at
// the first router has not left the local network.
func within(nearest int) measure.Scope {
	if nearest == 1 {
		return measure.ScopeLAN
	}
	return measure.ScopeUnknown
}

func answered(o *measure.Observation) bool { return o.DNS != nil && len(o.DNS.Replies) > 0 }

// redirected judges answers from addresses at which no resolver runs. One
// could be a stray; it takes two.
func (j *judging) redirected(f measure.Family) {
	runs, hits, all, nearest := 0, 0, 0, 0
	var because []*measure.Observation
	for _, o := range j.tested(measure.ExpRedirect, f) {
		if o.DNS == nil || !o.DNS.NoResolver {
			continue
		}
		if o.TTL == 0 {
			runs++
		}
		if !answered(o) {
			continue
		}
		all++
		because = append(because, o)
		switch {
		case o.TTL == 0:
			hits++
		case nearest == 0 || o.TTL < nearest:
			nearest = o.TTL
		}
	}
	if hits == 0 {
		return
	}
	fi := measure.Finding{Method: measure.DNSInterception, Interference: measure.InterferenceSuspected, Layer: measure.StepDNS, Family: f, Scope: within(nearest),
		Trigger: measure.Trigger{Kind: "port", Value: "53"}, Runs: runs, Hits: hits, Because: ids(because...), NotExcluded: []measure.Why{measure.WhySingleSample}}
	if all >= 2 {
		fi.Interference, fi.Proof = measure.InterferenceConfirmed, "nowhere"
	}
	if nearest != 1 {
		fi.NotExcluded = append(fi.NotExcluded, measure.WhyLocalNetwork)
	}
	j.add(fi)
}

// port is what is known of one port at addresses where nobody lives.
type port struct {
	runs, hits, nearest int
	because             []*measure.Observation
	speaks              []*measure.Observation // what answered in the port's own protocol
}

// nobodyAccepts judges connections to addresses where nobody lives. What takes
// every port and says nothing is an accelerator, as satellite links have, or a
// guard against floods: neither need read. What takes the web's ports alone,
// or speaks, reads.
func (j *judging) nobodyAccepts(f measure.Family) {
	ports := map[uint16]*port{}
	for _, o := range j.tested(measure.ExpNobody, f) {
		ap, ok := remote(o)
		if !ok {
			continue
		}
		p := ports[ap.Port()]
		if p == nil {
			p = &port{}
			ports[ap.Port()] = p
		}
		switch o.Step {
		case measure.StepTCP:
			p.runs++
			if o.Failure == measure.NoFailure {
				p.hits++
				p.because = append(p.because, o)
			}
		case measure.StepPath:
			if o.Path != nil && o.Path.Outcome == "connected" && (p.nearest == 0 || o.TTL < p.nearest) {
				p.nearest = o.TTL
				p.because = append(p.because, o)
			}
		case measure.StepHTTP:
			if o.HTTP != nil && o.HTTP.Status != 0 {
				p.speaks = append(p.speaks, o)
			}
		case measure.StepTLS:
			if o.TLS != nil && o.TLS.ServerBytes {
				p.speaks = append(p.speaks, o)
			}
		}
	}
	var other *port
	var list []uint16
	for _, n := range slices.Sorted(maps.Keys(ports)) {
		if n != 80 && n != 443 {
			if other == nil || ports[n].hits > other.hits {
				other = ports[n]
			}
			continue
		}
		list = append(list, n)
	}
	everything := other != nil && other.hits > 0
	for _, n := range list {
		p := ports[n]
		if p.hits == 0 {
			continue
		}
		if everything && len(p.speaks) == 0 {
			j.why[measure.WhyAccelerator] = true
			continue
		}
		fi := measure.Finding{Method: measure.TCPProxy, Interference: measure.InterferenceSuspected, Layer: measure.StepTCP, Family: f, Scope: within(p.nearest),
			Trigger: measure.Trigger{Kind: "port", Value: strconv.Itoa(int(n))}, Runs: p.runs, Hits: p.hits,
			Because: ids(append(p.because, p.speaks...)...), NotExcluded: []measure.Why{measure.WhySingleSample}}
		switch {
		case len(p.speaks) > 0 && n == 80:
			fi.Method, fi.Layer, fi.Interference, fi.Proof = measure.HTTPProxy, measure.StepHTTP, measure.InterferenceConfirmed, "nobody+speaks"
			fi.Match = j.product(p.speaks...)
		case len(p.speaks) > 0:
			fi.Interference, fi.Proof = measure.InterferenceConfirmed, "nobody+speaks"
		case other != nil && other.runs > 0 && p.hits+boolInt(p.nearest > 0) >= 2:
			fi.Interference, fi.Proof = measure.InterferenceConfirmed, "nobody"
			fi.Trigger.Control = "another port"
			fi.Controls = measure.Count{Runs: other.runs, Hits: other.hits}
		}
		if p.nearest != 1 {
			fi.NotExcluded = append(fi.NotExcluded, measure.WhyLocalNetwork)
		}
		j.add(fi)
	}
}

// expiredAt is the router that ended a SYN to an address and port with a TTL,
// "" if none said so.
func (j *judging) expiredAt(e measure.Experiment, at string, ttl int) string {
	for _, o := range j.obs {
		if o.Experiment == e && o.Remote == at && o.TTL == ttl && o.Path != nil && o.Path.Outcome == "expired" && o.Path.ICMP != nil && o.Path.ICMP.From != "" {
			return o.Path.ICMP.From
		}
	}
	return ""
}

// nearConnects judges ports that end nearer than another port of the same
// server. A load balancer makes such a difference too, at its own server; but
// not at the place where one and the same router passes on what goes to
// servers of two networks.
func (j *judging) nearConnects() {
	type server struct {
		asn    int
		lowest map[uint16]*measure.Observation
	}
	all := map[netip.Addr]*server{}
	for _, o := range j.obs {
		ap, ok := remote(o)
		if o.Experiment != measure.ExpNearConnect || !ok || o.TTL <= 0 || o.Path == nil || o.Path.Outcome != "connected" {
			continue
		}
		s := all[ap.Addr()]
		if s == nil {
			s = &server{asn: o.ASN, lowest: map[uint16]*measure.Observation{}}
			all[ap.Addr()] = s
		}
		if had := s.lowest[ap.Port()]; had == nil || o.TTL < had.TTL {
			s.lowest[ap.Port()] = o
		}
	}
	for _, pair := range [][2]uint16{{80, 443}, {443, 80}} {
		var because []*measure.Observation
		ases, ttl, router, same := map[int]bool{}, 0, "", true
		for _, a := range slices.SortedFunc(maps.Keys(all), netip.Addr.Compare) {
			s := all[a]
			near, far := s.lowest[pair[0]], s.lowest[pair[1]]
			if near == nil || far == nil || far.TTL-near.TTL < 2 {
				continue
			}
			there := j.expiredAt(measure.ExpNearConnect, far.Remote, near.TTL)
			same = same && there != "" && (ttl == 0 || ttl == near.TTL && router == there)
			ttl, router = near.TTL, there
			ases[s.asn] = true
			because = append(because, near, far)
		}
		if len(ases) < 2 || !same {
			continue
		}
		f := measure.Finding{Method: measure.TCPProxy, Interference: measure.InterferenceConfirmed, Layer: measure.StepTCP, Family: family(because[0]), Scope: within(ttl),
			Trigger: measure.Trigger{Kind: "port", Value: strconv.Itoa(int(pair[0])), Control: strconv.Itoa(int(pair[1]))}, Runs: len(ases), Hits: len(ases),
			Controls: measure.Count{Runs: len(ases)}, Because: ids(because...), Proof: "ttl"}
		if pair[0] == 80 {
			f.Method, f.Layer = measure.HTTPProxy, measure.StepHTTP
		}
		if ttl != 1 {
			f.NotExcluded = []measure.Why{measure.WhyLocalNetwork}
		}
		if !slices.ContainsFunc(j.findings, func(x measure.Finding) bool {
			return x.Trigger.Kind == "port" && x.Trigger.Value == f.Trigger.Value && x.Family == f.Family
		}) {
			j.add(f)
		}
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
