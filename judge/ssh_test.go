package judge

import (
	"slices"
	"strings"
	"testing"

	"govah/measure"
)

// sshScene is an SSH server at an address in AS 1 that is known by one key,
// and controls of two operators in ASes 2 and 3.
type sshScene struct {
	*scene
	server string
}

func newSSHScene() *sshScene {
	s := &sshScene{newScene("ssh://198.18.7.7"), "198.18.7.7:22"}
	s.m.Started, s.m.Vantage.ASN = "2026-11-28T10:00:00Z", 9
	return s
}

func (s *sshScene) key(role measure.Role, at string, asn int, operator, shows string, known ...string) *measure.Observation {
	o := measure.Observation{Step: measure.StepSSH, Role: role, Stage: measure.StageScreen, Experiment: measure.ExpHostKey, Remote: at, ASN: asn,
		SSH: &measure.SSH{KeyType: "ssh-ed25519", Fingerprint: shows, Operator: operator, KnownAsOf: "2026-11-01"}}
	for _, k := range known {
		f, retired := strings.CutPrefix(k, "-")
		o.SSH.Known = append(o.SSH.Known, measure.HostKey{Source: measure.SourceUser, KeyType: "ssh-ed25519", Fingerprint: f, Retired: retired})
	}
	return s.add(o)
}

func (s *sshScene) test(shows string, known ...string) *measure.Observation {
	return s.key(measure.RoleTest, s.server, 1, "", shows, known...)
}

func (s *sshScene) control(n int, shows string) *measure.Observation {
	at := []string{"198.19.2.2:22", "198.19.3.3:22", "198.19.4.4:22"}[n]
	return s.key(measure.RoleControl, at, n+2, []string{"two", "three", "four"}[n], shows, "right"+at)
}

func (s *sshScene) right(n int) {
	s.control(n, "right"+[]string{"198.19.2.2:22", "198.19.3.3:22", "198.19.4.4:22"}[n])
}

// distance adds probes: port 22 answers from ttl on, port 443 only at the
// server's; the routers between stand in the networks of asns.
func (s *sshScene) distance(ttl, server int, asns ...int) {
	probe := func(role measure.Role, at string, ttl int, outcome string, asn int) {
		o := measure.Observation{Step: measure.StepPath, Role: role, Stage: measure.StageConfirm, Experiment: measure.ExpProxyTTL, Remote: at, TTL: ttl, Path: &measure.Path{Probe: "syn", Outcome: outcome}}
		if outcome == "expired" {
			o.Path.ICMP = &measure.ICMP{From: "198.51.100.1", Type: 11, ASN: asn}
		}
		s.add(o)
	}
	probe(measure.RoleTest, s.server, ttl, "connected", 0)
	for i, asn := range asns {
		probe(measure.RoleControl, "198.18.7.7:443", i+1, "expired", asn)
	}
	probe(measure.RoleControl, "198.18.7.7:443", server, "connected", 0)
}

func TestHostKeys(t *testing.T) {
	for _, c := range []struct {
		name  string
		build func(s *sshScene)
		want  string // of the finding: degree, proof, scope and what is left open; "" none
	}{
		{"as known", func(s *sshScene) { s.test("k", "k"); s.control(0, "x"); s.control(1, "x") }, ""},
		{"one of several known", func(s *sshScene) { s.test("k", "j", "k") }, ""},
		{"another", func(s *sshScene) { s.test("x", "k"); s.test("x", "k"); s.right(0) }, "suspected key-rotation"},
		{"another, once and without controls", func(s *sshScene) { s.test("x", "k") }, "suspected key-rotation no-control single-sample"},
		{"in turns", func(s *sshScene) { s.test("x", "k"); s.test("k", "k"); s.control(0, "x") }, ""},
		{"in turns at another address", func(s *sshScene) {
			s.key(measure.RoleTest, "198.18.7.8:22", 1, "", "k", "k")
			s.test("x", "k")
			s.test("x", "k")
			s.right(0)
		}, "suspected key-rotation"},
		{"withdrawn", func(s *sshScene) { s.test("old", "k", "-old"); s.test("old", "k", "-old"); s.right(0) }, "suspected key-retired"},
		{"withdrawn, and in the user's file", func(s *sshScene) { s.test("old", "old", "-old"); s.test("old", "old", "-old"); s.right(0) }, "suspected key-retired"},
		{"one key for two hosts", func(s *sshScene) { s.test("x", "k"); s.control(0, "x"); s.right(1) }, "confirmed same-key"},
		{"the control is of the same operator's network", func(s *sshScene) { s.test("x", "k"); s.test("x", "k"); s.control(0, "x").ASN = 1 }, "suspected key-rotation no-control"},
		{"whose network nobody knows", func(s *sshScene) { s.test("x", "k"); s.test("x", "k"); s.control(0, "x").ASN = 0 }, "suspected key-rotation no-control"},
		{"two names of one server that got a new key", func(s *sshScene) {
			s.test("x", "right198.19.2.2:22")
			s.test("x", "right198.19.2.2:22")
			s.control(0, "x")
			s.right(1)
		}, "suspected key-rotation"},
		{"a stranger forwards to a public server that got a new key", func(s *sshScene) { s.test("x"); s.control(0, "x"); s.right(1) }, ""},
		{"the same, and nobody else answers", func(s *sshScene) { s.test("x"); s.control(0, "x") }, "suspected no-known-key"},
		{"one key for strangers and two operators", func(s *sshScene) { s.test("x"); s.control(0, "x"); s.control(1, "x") }, "confirmed same-key"},
		{"two operators at once", func(s *sshScene) { s.test("x", "k"); s.control(0, "y"); s.control(1, "z") }, "confirmed operators"},
		{"one of them is in order", func(s *sshScene) {
			s.test("x", "k")
			s.test("x", "k")
			s.control(0, "y")
			s.control(1, "z")
			s.right(2)
		}, "suspected key-rotation"},
		{"one operator, and a server of the user's", func(s *sshScene) { s.test("x", "k"); s.test("x", "k"); s.control(0, "y") }, "suspected key-rotation"},
		{"the list is old", func(s *sshScene) {
			s.test("x", "k")
			s.test("x", "k")
			for n := range 2 {
				s.control(n, "y"+string(rune('0'+n))).SSH.KnownAsOf = "2025-01-01"
			}
		}, "suspected key-rotation"},
		{"nearer, in the operator's network", func(s *sshScene) { s.test("x", "k"); s.right(0); s.distance(3, 8, 9, 9, 9, 9, 1, 1, 1) }, "confirmed ttl operator"},
		{"nearer, before the first router", func(s *sshScene) { s.test("x", "k"); s.right(0); s.distance(1, 8, 0, 9, 9, 9, 1, 1, 1) }, "confirmed ttl lan"},
		{"nearer, beyond the operator", func(s *sshScene) { s.test("x", "k"); s.right(0); s.distance(3, 8, 9, 9, 7, 7, 1, 1, 1) }, "confirmed ttl"},
		{"a gate of the server's own network ends port 22", func(s *sshScene) {
			s.test("x", "k")
			s.test("x", "k")
			s.right(0)
			s.distance(5, 9, 9, 9, 9, 9, 1, 1, 1, 1)
		}, "suspected key-rotation"},
		{"load balancers at depths that differ by one", func(s *sshScene) {
			s.test("x", "k")
			s.test("x", "k")
			s.right(0)
			s.distance(7, 8, 9, 9, 9, 9, 1, 1, 7)
		}, "suspected key-rotation"},
		{"routers that nobody knows", func(s *sshScene) {
			s.test("x", "k")
			s.test("x", "k")
			s.right(0)
			s.distance(2, 8, 0, 0, 0, 0, 0, 0, 0)
		}, "suspected key-rotation"},
		{"nearer, and the key is the right one", func(s *sshScene) { s.test("k", "k"); s.right(0); s.distance(3, 8, 9, 9, 9, 9, 1, 1, 1) }, ""},
		{"nobody knows it", func(s *sshScene) { s.test("x"); s.right(0) }, ""},
		{"through a portal", func(s *sshScene) { s.m.Vantage.Captive = true; s.test("x", "k"); s.control(0, "x") }, ""},
	} {
		s := newSSHScene()
		c.build(s)
		v := Judge(Input{Measurement: &s.m})
		var got []string
		for _, f := range v.Findings {
			if f.Method != measure.SSHInterception {
				continue
			}
			got = append(got, string(f.Interference))
			if f.Proof != "" {
				got = append(got, f.Proof)
			}
			if f.Scope != measure.ScopeUnknown {
				got = append(got, string(f.Scope))
			}
			for _, w := range f.NotExcluded {
				got = append(got, string(w))
			}
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %q, want %q", c.name, text, c.want)
		}
		if others := slices.ContainsFunc(v.Findings, func(f measure.Finding) bool { return f.Method != measure.SSHInterception && !f.Method.Benign() }); others {
			t.Errorf("%s: %s", c.name, text(v))
		}
	}
}

// What is reached is a server that proves the key that it is known by.
func TestSSHReached(t *testing.T) {
	for shows, want := range map[string]measure.Reachable{"k": measure.ReachableYes, "x": measure.ReachableUnknown, "": measure.ReachableNo} {
		s := newSSHScene()
		if o := s.test(shows, "k"); shows == "" {
			o.Failure = measure.ConnectionReset
		}
		if v := Judge(Input{Measurement: &s.m}); v.Reachable != want {
			t.Errorf("%q: %s, want %s", shows, v.Reachable, want)
		}
	}
	s := newSSHScene()
	s.test("new", "old").SSH.Known = append(s.m.Observations[0].SSH.Known, measure.HostKey{Source: measure.SourcePublished, Fingerprint: "new"})
	if v := Judge(Input{Measurement: &s.m}); v.Interference != measure.InterferenceNone || !slices.Contains(v.Unknown, measure.WhyKnownKeyOld) {
		t.Error(text(v))
	}
}

func TestOtherKeyType(t *testing.T) {
	for _, c := range []struct {
		asked, offers string
		want          bool
	}{
		{"ssh-ed25519", "rsa-sha2-512 rsa-sha2-256", true}, {"ssh-rsa", "rsa-sha2-512", false}, {"ssh-rsa ssh-ed25519", "ssh-ed25519", false},
		{"", "ssh-ed25519", false}, {"ssh-ed25519", "", false}, {"ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com", true},
	} {
		o := &measure.Observation{SSH: &measure.SSH{Asked: strings.Fields(c.asked), HostKeys: strings.Fields(c.offers)}}
		if got := OtherKeyType(o); got != c.want {
			t.Errorf("asked for %q, offers %q: %v", c.asked, c.offers, got)
		}
	}
}
