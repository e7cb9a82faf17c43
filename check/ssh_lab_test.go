package check_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"govah/check"
	"govah/known"
	"govah/lab"
	"govah/measure"
	"govah/wire"
)

// sshLine is a line with an SSH server at host.example and three public ones,
// each of an operator and a network of its own.
type sshLine struct {
	client   string // keys and tables of the client's network
	host     string // keys of host.example's [site.ssh]
	controls string // of all controls; "" published and in order
	third    string // of the third control, besides
	sites    string // further ones
	asOf     string // when the published keys were compared; "" today
	target   string // "" ssh://host.example
	loss     int    // per thousand
}

func (l sshLine) run(t *testing.T) (measure.Verdict, *measure.Measurement) {
	t.Helper()
	v, m, err := l.measured(t)
	if err != nil {
		t.Error(err)
	}
	return v, m
}

func (l sshLine) measured(t *testing.T) (v measure.Verdict, m *measure.Measurement, err error) {
	m = &measure.Measurement{}
	text := "schema = 1\ntitle = \"ssh\"\nabout = \"for a test\"\n[[client-network]]\nname = \"home\"\nasn = 64600\ncountry = \"XX\"\nhops = 4\ndelay = \"2ms\"\nno-ipv6 = true\n" + l.client + "\n"
	for i, name := range []string{"hosting", "one", "two", "three"} {
		text += fmt.Sprintf("[[network]]\nname = %q\nasn = %d\ndelay = \"1ms\"\n", name, 64500+i)
	}
	for _, name := range []string{"one", "two", "three"} {
		text += fmt.Sprintf("[[site]]\nname = \"canary.%s.example\"\nnetwork = %q\nrole = \"canary\"\n", name, name)
	}
	text += "[[site]]\nname = \"doh.example\"\nnetwork = \"one\"\nrole = \"doh\"\n"
	for _, name := range []string{"one", "two", "three"} {
		more := l.controls
		if name == "three" {
			more += l.third
		}
		text += fmt.Sprintf("[[site]]\nname = \"forge.%s.example\"\nnetwork = %q\n[site.ssh]\npublished = true\ncontrol = true\nkeys = [\"ssh-ed25519\", \"ecdsa-sha2-nistp256\"]\n%s\n", name, name, more)
	}
	text += "[[site]]\nname = \"host.example\"\n[site.ssh]\n" + l.host + "\n" + l.sites
	s, err := lab.Parse([]byte(text))
	if err != nil {
		return v, m, fmt.Errorf("%w\n%s", err, text)
	}
	w, err := lab.New(s, lab.Options{Loss: l.loss})
	if err != nil {
		return v, m, err
	}
	defer w.Close()
	roots, err := w.Network().Roots()
	if err != nil {
		return v, m, err
	}
	cfg := check.Config{Network: w.Network(), Seed: 1, Pace: check.PaceFast, ASN: w.ASN, Run: "r1",
		Trust:        wire.Trust{Public: w.Public(), System: roots, Now: w.Now},
		Surroundings: check.Surroundings{Resolvers: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(w.Client.Resolver), 53)}, ASN: 64600, Country: "XX", Source: "lab"}}
	for _, c := range w.Sites("canary") {
		cfg.Controls.Canaries = append(cfg.Controls.Canaries, check.CanaryHost{Name: c.Name, Addrs: c.AllAddresses()})
	}
	for _, d := range w.Sites("doh") {
		cfg.Controls.DoH = append(cfg.Controls.DoH, check.DoHServer{URL: "https://" + d.Name + "/dns-query", Addrs: d.AllAddresses()})
	}
	hosts, err := w.SSHHosts()
	if err != nil {
		return v, m, err
	}
	for _, h := range hosts {
		cfg.Controls.SSH = append(cfg.Controls.SSH, known.SSHHost{Name: h.Name, Port: h.Port, Operator: h.Name, Control: h.Control, Keys: h.Keys})
	}
	if cfg.Controls.SSHAsOf = l.asOf; l.asOf == "" {
		cfg.Controls.SSHAsOf = w.Now().Format(time.DateOnly)
	}
	file, err := w.KnownHosts()
	if err != nil {
		return v, m, err
	}
	cfg.KnownHosts = func(host string, port int) []measure.HostKey {
		keys, err := wire.KnownHosts(bytes.NewReader(file), host, port)
		if err != nil {
			t.Error(err)
		}
		return keys
	}
	if l.target == "" {
		l.target = "ssh://host.example"
	}
	target, err := check.ParseTarget(l.target)
	if err != nil {
		return v, m, err
	}
	_, err = check.Run(t.Context(), cfg, []measure.Target{target}, func(r check.Result) error {
		v, m = r.Verdict, r.Measurement
		return nil
	})
	return v, m, err
}

const (
	interceptAll  = "[client-network.ssh-intercept]\nat = 2\n"
	interceptEach = interceptAll + "each = true\n"
	interceptHost = interceptAll + "names = [\"host.example\"]\n"
)

// told is a verdict in short.
func told(v measure.Verdict) string {
	text := string(v.Reachable) + " " + string(v.Interference)
	for _, f := range v.Findings {
		text += fmt.Sprintf(" %s:%s:%s:%s", f.Method, f.Interference, f.Proof, f.Scope)
		for _, w := range f.NotExcluded {
			text += "," + string(w)
		}
	}
	for _, w := range v.Unknown {
		text += " ?" + string(w)
	}
	return text
}

func TestSSH(t *testing.T) {
	t.Parallel()
	var atOnce sync.WaitGroup // they wait more than they work
	defer atOnce.Wait()
	for _, c := range []struct {
		name string
		line sshLine
		want string // beginning of what is told; at loss as well
	}{
		// Interceptors.
		{"one key for all", sshLine{client: interceptAll, host: "known = \"plain\""}, "unknown confirmed ssh-interception:confirmed:same-key:operator"},
		{"a key for each", sshLine{client: interceptEach, host: "known = \"hashed\""}, "unknown confirmed ssh-interception:confirmed:operators:operator"},
		{"one key, and the host is not known", sshLine{client: interceptAll}, "unknown confirmed ssh-interception:confirmed:same-key:unknown"},
		{"a key for each, and the host is not known", sshLine{client: interceptEach}, "unknown suspected ssh-interception:suspected::unknown,no-known-key"},
		{"this host alone, found by its distance", sshLine{client: interceptHost, host: "known = \"plain\""}, "unknown confirmed ssh-interception:confirmed:ttl:operator"},
		{"with a key of another type", sshLine{client: interceptHost + "keys = [\"ecdsa-sha2-nistp256\"]\n", host: "known = \"plain\""}, "unknown confirmed ssh-interception:confirmed:ttl:operator"},
		{"a public host alone", sshLine{client: interceptAll + "names = [\"forge.one.example\"]\n", target: "ssh://forge.one.example"}, "unknown confirmed ssh-interception:confirmed:ttl:operator"},
		{"before the first router", sshLine{client: strings.Replace(interceptAll, "2", "0", 1), host: "known = \"plain\""}, "unknown confirmed ssh-interception:confirmed:same-key:lan"},
		{"the host and one public one, with one key", sshLine{client: interceptAll + "names = [\"host.example\", \"forge.one.example\"]\n", host: "known = \"plain\""}, "unknown confirmed ssh-interception:confirmed:same-key:operator"},
		{"the resolver leads to another server", sshLine{client: "[[client-network.lie]]\nnames = [\"host.example\"]\nanswers = [\"45.13.0.200\"]\n", host: "known = \"plain\"",
			sites: "[[site]]\nname = \"rogue.example\"\nnetwork = \"three\"\naddresses = [\"45.13.0.200\"]\n[site.ssh]\n"}, "no confirmed dns-resolver-lie:confirmed:identity"},
		// Innocents.
		{"public names lead elsewhere, and no encrypted resolver answers", sshLine{client: "[[client-network.lie]]\nnames = [\"forge.one.example\", \"forge.two.example\", \"forge.three.example\"]\nanswers = [\"45.13.0.200\"]\n" +
			"[[client-network.box]]\nat = 1\n[[client-network.box.rule]]\nlayer = \"tls\"\nnames = [\"doh.example\"]\naction = \"reset\"\n", host: "known = \"plain\"\nrotated = true",
			sites: "[[site]]\nname = \"rogue.example\"\nnetwork = \"three\"\naddresses = [\"45.13.0.200\"]\n[site.ssh]\n"}, "unknown suspected ssh-interception:suspected::unknown,key-rotation,no-control"},
		{"nothing", sshLine{host: "known = \"plain\""}, "yes none"},
		{"a hashed name at another port", sshLine{host: "known = \"hashed\"\nport = 2222", target: "ssh://host.example:2222"}, "yes none"},
		{"several types of key, one known", sshLine{host: "known = \"plain\"\nkeys = [\"ssh-ed25519\", \"ecdsa-sha2-nistp256\"]"}, "yes none"},
		{"a published key", sshLine{target: "ssh://forge.two.example"}, "yes none"},
		{"a new key", sshLine{host: "known = \"plain\"\nrotated = true"}, "unknown suspected ssh-interception:suspected::unknown,key-rotation ?key-rotation"},
		{"a public host has a new key", sshLine{third: "rotated = true\n", target: "ssh://forge.three.example"}, "unknown suspected ssh-interception:suspected::unknown,key-rotation ?key-rotation"},
		{"new keys at the host and at a public one", sshLine{third: "rotated = true\n", host: "known = \"plain\"\nrotated = true"}, "unknown suspected ssh-interception:suspected::unknown,key-rotation ?key-rotation"},
		{"new keys everywhere since the list is from", sshLine{controls: "rotated = true\n", host: "known = \"plain\"\nrotated = true", asOf: "2024-01-01"}, "unknown suspected ssh-interception:suspected::unknown,key-rotation ?key-rotation"},
		{"a withdrawn key", sshLine{host: "published = true\nretired = true"}, "unknown suspected ssh-interception:suspected::unknown,key-retired ?key-retired"},
		{"a server that nobody knows", sshLine{}, "unknown unknown ?no-known-key"},
		{"a bastion that forwards", sshLine{host: "known = \"plain\"\nforwards = \"inner.example\"", sites: "[[site]]\nname = \"inner.example\"\nnetwork = \"two\"\n[site.ssh]\n"}, "yes none"},
		{"it forwards to a public server", sshLine{host: "known = \"plain\"\nforwards = \"forge.two.example\""}, "yes none"},
		{"several servers take turns", sshLine{host: "known = \"plain\"\nmembers = 2"}, "yes none"},
	} {
		for _, loss := range []int{0, 20} {
			atOnce.Go(func() {
				line := c.line
				line.loss = loss
				v, m := line.run(t)
				if got := told(v); !strings.HasPrefix(got, c.want) {
					t.Errorf("%s, loss %d: %s\nwant %s\n%s", c.name, loss, got, c.want, evidence(m))
				}
			})
		}
	}
}

// evidence is what a verdict about host keys rests on, for a test that failed.
func evidence(m *measure.Measurement) string {
	var b strings.Builder
	for _, o := range m.Observations {
		switch {
		case o.SSH != nil:
			fmt.Fprintf(&b, "%s %s %s %s %s %s %s\n", o.ID, o.Role, o.Host, o.Remote, o.Failure, o.SSH.KeyType, o.SSH.Fingerprint)
		case o.Experiment == measure.ExpProxyTTL:
			fmt.Fprintf(&b, "%s %s %s ttl %d: %s\n", o.ID, o.Role, o.Remote, o.TTL, o.Path.Outcome)
		}
	}
	return b.String()
}

// What blocks port 22 intercepts nothing.
func TestSSHBlocked(t *testing.T) {
	t.Parallel()
	var atOnce sync.WaitGroup
	defer atOnce.Wait()
	for what, want := range map[string]measure.Method{"segment = \"syn\"\naction = \"drop\"\n": measure.IPDrop,
		"segment = \"syn\"\naction = \"reset\"\n": measure.IPReset, "segment = \"data\"\naction = \"reset\"\n": measure.ProtocolFilter} {
		atOnce.Go(func() {
			v, _ := sshLine{client: "[[client-network.box]]\nat = 2\n[[client-network.box.rule]]\nlayer = \"tcp\"\nports = [22]\n" + what, host: "known = \"plain\""}.run(t)
			if v.Reachable != measure.ReachableNo || v.Interference != measure.InterferenceSuspected || len(v.Findings) != 1 || v.Findings[0].Method != want {
				t.Errorf("%s: %s", what, told(v))
			}
		})
	}
}

// The user's file is looked up for what the user named, and for nothing else.
func TestSSHKnownHostsOfTargetsOnly(t *testing.T) {
	t.Parallel()
	_, m := sshLine{host: "known = \"plain\"", controls: "known = \"plain\"\n"}.run(t)
	mine := 0
	for _, o := range m.Observations {
		if o.SSH == nil {
			continue
		}
		for _, k := range o.SSH.Known {
			if k.Source != measure.SourceUser {
				continue
			}
			if mine++; o.Role != measure.RoleTest {
				t.Errorf("%s of %s has a key of the user's", o.ID, o.Host)
			}
		}
	}
	if mine == 0 {
		t.Error("the target has none")
	}
}

// Without an SSH server among the targets no control of SSH is contacted.
func TestSSHPlan(t *testing.T) {
	cfg := check.Config{Controls: check.Controls{SSH: known.SSHHosts()}}
	for target, want := range map[string]bool{"https://host.example/": false, "ssh://host.example": true} {
		p, err := check.ParseTarget(target)
		if err != nil {
			t.Fatal(err)
		}
		got := check.Plan(cfg, []measure.Target{p}).Contacts
		if slices.Contains(got, "ssh://github.com") != want || slices.Contains(got, "ssh://git.launchpad.net") {
			t.Errorf("%s: %v", target, got)
		}
	}
}
