package judge

import (
	"net/netip"
	"slices"
	"time"

	"govah/measure"
)

// KeyState is how a host key stands to what was known of the host.
type KeyState string

// The states.
const (
	KeyNone    KeyState = ""        // none was proven
	KeyGenuine KeyState = "genuine" // it is known
	KeyUnknown KeyState = "unknown" // nothing is known to compare it with
	KeyDiffers KeyState = "differs" // it is none of the known ones
	KeyRetired KeyState = "retired" // it is known, as one that must not be seen any more
)

// StateOfKey compares what a server proved with what it was known by. A key
// that is withdrawn is so whatever else is known. A type of key by which the
// host is not known differs as well: it was asked for the others first.
func StateOfKey(o *measure.Observation) KeyState {
	s := o.SSH
	if s == nil || s.Fingerprint == "" {
		return KeyNone
	}
	genuine, current := false, false
	for _, k := range s.Known {
		same := k.Fingerprint == s.Fingerprint
		switch {
		case same && k.Retired:
			return KeyRetired
		case !k.Retired:
			genuine, current = genuine || same, true
		}
	}
	switch {
	case genuine:
		return KeyGenuine
	case current:
		return KeyDiffers
	}
	return KeyUnknown
}

// OtherKeyType says that a server ended the exchange because it has none of the
// types of key that it was asked for.
func OtherKeyType(o *measure.Observation) bool {
	s := o.SSH
	return s != nil && s.Fingerprint == "" && len(s.Asked) > 0 && len(s.HostKeys) > 0 &&
		!slices.ContainsFunc(s.HostKeys, func(a string) bool {
			if a == "rsa-sha2-256" || a == "rsa-sha2-512" {
				a = "ssh-rsa"
			}
			return slices.Contains(s.Asked, a)
		})
}

const (
	// freshKeys is for how long a list of published keys can confirm: what an
	// older one says differently may have been changed by the operators since.
	freshKeys = 400 * 24 * time.Hour
	// nearerBy is by how many routers a control must go on, at least, beyond where
	// the port of SSH answers: load balancers stand at depths that differ by one.
	nearerBy = 2
)

// hostKeys judges the host keys that SSH servers showed.
func (j *judging) hostKeys() {
	if j.scheme != "ssh" {
		return
	}
	for _, f := range []measure.Family{measure.IPv4, measure.IPv6} {
		j.hostKeysOf(f)
	}
}

// shownKeys are the tests at one address, or the controls, that showed a key.
func (j *judging) shownKeys(role measure.Role, f measure.Family) (out []*measure.Observation) {
	for _, o := range j.obs {
		if o.Step == measure.StepSSH && o.Experiment == measure.ExpHostKey && o.Role == role && family(o) == f && StateOfKey(o) != KeyNone && !j.disputed(address(o)) {
			out = append(out, o)
		}
	}
	return out
}

func (j *judging) hostKeysOf(f measure.Family) {
	for _, o := range j.obs {
		if o.Step == measure.StepSSH && o.Role == measure.RoleTest && OtherKeyType(o) {
			j.innocent[o.ID] = true // the next one asked for any
		}
	}
	tests := j.shownKeys(measure.RoleTest, f)
	if len(tests) == 0 {
		return
	}
	genuine := map[netip.Addr]bool{}
	for _, t := range tests {
		if StateOfKey(t) == KeyGenuine {
			genuine[address(t)] = true
			j.olderKey(t)
		}
	}
	// What else is shown at such an address is of servers that share it.
	tests = slices.DeleteFunc(tests, func(t *measure.Observation) bool { return genuine[address(t)] })
	if len(tests) == 0 {
		return
	}
	var wrong []*measure.Observation
	for _, t := range tests {
		if StateOfKey(t) == KeyUnknown {
			j.why[measure.WhyNoKnownKey] = true
		} else {
			wrong = append(wrong, t)
		}
	}
	controls := j.shownKeys(measure.RoleControl, f)
	t := tests[0]
	if len(wrong) > 0 {
		t = wrong[0]
	}
	fit := slices.DeleteFunc(slices.Clone(controls), func(c *measure.Observation) bool { return !unrelated(t, c) })
	odd := slices.DeleteFunc(slices.Clone(fit), func(c *measure.Observation) bool {
		s := StateOfKey(c)
		return s != KeyDiffers && s != KeyRetired
	})
	if len(wrong) == 0 && len(odd) == 0 {
		return
	}
	x := measure.Finding{Method: measure.SSHInterception, Interference: measure.InterferenceSuspected, Layer: measure.StepSSH, Family: f,
		Trigger: measure.Trigger{Kind: "host-key", Value: j.host}, Runs: len(tests), Hits: len(wrong),
		Controls: measure.Count{Runs: len(fit), Hits: len(odd)}, Because: ids(slices.Concat(wrong, odd)...)}
	if len(wrong) == 0 {
		// Others are intercepted here, or have changed; of this host nothing is
		// known.
		x.Hits, x.Because = len(tests), ids(slices.Concat(tests, odd)...) // it is not known to be its own either
		if same := sharing(t, odd); len(same) >= 2 || len(same) == 1 && len(odd) == 1 && len(fit) == 1 {
			x.NotExcluded = []measure.Why{measure.WhyNoKnownKey}
			if len(same) >= 2 {
				x.Interference, x.Proof, x.NotExcluded = measure.InterferenceConfirmed, "same-key", nil
			}
			j.add(x)
		} else if len(odd) >= 2 && len(odd) == len(fit) {
			x.NotExcluded = []measure.Why{measure.WhyNoKnownKey, measure.WhyKeyRotation}
			j.add(x)
		}
		return
	}
	near, scope, because := j.sshNearer(t)
	x.Scope = scope
	switch {
	case len(sharing(t, odd)) > 0:
		x.Interference, x.Proof = measure.InterferenceConfirmed, "same-key"
	case j.operatorsAtOnce(t, fit, odd):
		x.Interference, x.Proof = measure.InterferenceConfirmed, "operators"
	case near:
		x.Interference, x.Proof = measure.InterferenceConfirmed, "ttl"
	}
	x.Because = append(x.Because, because...)
	if x.Interference == measure.InterferenceConfirmed {
		if scope == measure.ScopeLAN {
			x.NotExcluded = []measure.Why{measure.WhyLocalNetwork}
		}
	} else {
		x.NotExcluded = []measure.Why{measure.WhyKeyRotation}
		if slices.ContainsFunc(wrong, func(o *measure.Observation) bool { return StateOfKey(o) == KeyRetired }) {
			x.NotExcluded = []measure.Why{measure.WhyKeyRetired}
		}
		if len(fit) == 0 {
			x.NotExcluded = append(x.NotExcluded, measure.WhyNoControl)
		}
		if len(wrong) == 1 {
			x.NotExcluded = append(x.NotExcluded, measure.WhySingleSample)
		}
	}
	j.add(x)
}

// olderKey notes that the user's own file knows a host by another key than its
// operator publishes and it shows.
func (j *judging) olderKey(t *measure.Observation) {
	user, match := false, false
	for _, k := range t.SSH.Known {
		if k.Source == measure.SourceUser && !k.Retired {
			user = true
			match = match || k.Fingerprint == t.SSH.Fingerprint
		}
	}
	if user && !match {
		j.why[measure.WhyKnownKeyOld] = true
	}
}

// unrelated says that two hosts have nothing to do with each other: neither
// operator nor network. Where the networks are not known they may be the same.
func unrelated(t, c *measure.Observation) bool {
	return c.SSH.Operator != "" && c.SSH.Operator != t.SSH.Operator && address(c) != address(t) &&
		t.ASN != 0 && c.ASN != 0 && t.ASN != c.ASN
}

// sharing are the controls that show the very key that t shows, though they
// were known by others: neither new keys nor other names of one server explain
// that where t was known by others too.
func sharing(t *measure.Observation, odd []*measure.Observation) (out []*measure.Observation) {
	for _, c := range odd {
		if c.SSH.Fingerprint == t.SSH.Fingerprint && !common(t.SSH.Known, c.SSH.Known) &&
			!slices.ContainsFunc(out, func(o *measure.Observation) bool { return o.SSH.Operator == c.SSH.Operator }) {
			out = append(out, c)
		}
	}
	return out
}

func common(a, b []measure.HostKey) bool {
	return slices.ContainsFunc(a, func(k measure.HostKey) bool {
		return slices.ContainsFunc(b, func(o measure.HostKey) bool { return o.Fingerprint == k.Fingerprint })
	})
}

// operatorsAtOnce says that two operators that have nothing to do with each
// other show keys that they do not publish, at once, while none shows one that
// it does. A list that is old cannot tell that from new keys.
func (j *judging) operatorsAtOnce(t *measure.Observation, fit, odd []*measure.Observation) bool {
	if len(odd) == 0 || slices.ContainsFunc(fit, func(c *measure.Observation) bool { return StateOfKey(c) == KeyGenuine }) {
		return false
	}
	var list []*measure.Observation
	for _, o := range append([]*measure.Observation{t}, odd...) {
		if o.SSH.Operator != "" && j.fresh(o) && !slices.ContainsFunc(list, func(l *measure.Observation) bool {
			return l.SSH.Operator == o.SSH.Operator || l.ASN == o.ASN
		}) {
			list = append(list, o)
		}
	}
	return len(list) >= 2
}

// fresh says that the published keys of o were compared with their source not
// long before the measurement.
func (j *judging) fresh(o *measure.Observation) bool {
	at, err := time.Parse(time.RFC3339, j.m.Started)
	day, err2 := time.Parse(time.DateOnly, o.SSH.KnownAsOf)
	return err == nil && err2 == nil && at.Sub(day) < freshKeys
}

// sshNearer says whether the port of SSH answers from a point on the way that
// is not the server: probes to another port of the same address passed it, at
// least nearerBy routers farther, and one of those is of neither's network.
func (j *judging) sshNearer(t *measure.Observation) (near bool, scope measure.Scope, because []string) {
	at, ok := remote(t)
	if !ok {
		return false, "", nil
	}
	first := 0 // the least TTL at which the port of SSH answered
	var answer *measure.Observation
	for _, o := range j.obs {
		if ap, ok := remote(o); ok && ap == at && o.Experiment == measure.ExpProxyTTL && o.Path != nil && o.TTL > 0 &&
			(o.Path.Outcome == "connected" || o.Path.Outcome == "reset") && (first == 0 || o.TTL < first) {
			first, answer = o.TTL, o
		}
	}
	if first == 0 {
		return false, "", nil
	}
	beyond, foreign, operator := map[int]bool{}, false, false
	for _, o := range j.obs {
		ap, ok := remote(o)
		if !ok || ap.Addr() != at.Addr() || ap.Port() == at.Port() || o.Experiment != measure.ExpProxyTTL || o.Path == nil ||
			o.Path.Outcome != "expired" || o.TTL < first {
			continue
		}
		if o.TTL > first {
			beyond[o.TTL] = true
		}
		if asn := icmpASN(o.Path); asn != 0 && t.ASN != 0 && asn != t.ASN {
			foreign = true
			operator = operator || asn == j.m.Vantage.ASN
		}
		because = append(because, o.ID)
	}
	if len(beyond) < nearerBy || !foreign {
		return false, "", nil
	}
	switch {
	case first == 1:
		scope = measure.ScopeLAN
	case operator:
		scope = measure.ScopeOperator
	}
	return true, scope, append(because, answer.ID)
}

func icmpASN(p *measure.Path) int {
	if p.ICMP == nil {
		return 0
	}
	return p.ICMP.ASN
}
