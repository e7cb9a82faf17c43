package judge

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"slices"
	"testing"
	"time"

	"govah/known"
	"govah/measure"
)

// forged makes a leaf for the site as somebody would who signs with a key of
// his own under a known authority's name, and names that authority's key.
func forged(t *testing.T, cn, o string, ski []byte) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn}, SubjectKeyId: ski, IsCA: true, BasicConstraintsValid: true}
	if o != "" {
		ca.Subject.Organization = []string{o}
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: site}, DNSNames: []string{site},
		NotBefore: time.Unix(1_600_000_000, 0), NotAfter: time.Unix(1_900_000_000, 0)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// shown is a site whose handshake shows a chain that no public root verifies,
// with the certificates kept.
func shown(t *testing.T, chain ...[]byte) (*scene, func(string) ([]byte, bool)) {
	bodies := map[string][]byte{}
	o := hello(measure.RoleTest, "", 0, siteAt, site, "")
	o.Stage, o.Failure = measure.StageScreen, measure.TLSUnknownAuthority
	o.TLS = &measure.TLS{Alert: -1, ServerBytes: true, Version: "TLS 1.3", Public: measure.VerifyUnknownCA, System: measure.VerifyUnknownCA}
	for i, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		sum, key := sha256.Sum256(der), sha256.Sum256(c.RawSubjectPublicKeyInfo)
		bodies[hex.EncodeToString(sum[:])] = der
		o.TLS.Chain = append(o.TLS.Chain, hex.EncodeToString(sum[:]))
		o.TLS.Signers = append(o.TLS.Signers, measure.Signer{Issuer: c.Issuer.String(), AKI: hex.EncodeToString(c.AuthorityKeyId), SPKI: hex.EncodeToString(key[:])})
		if i == 0 {
			o.TLS.Issuer, o.TLS.Subject = c.Issuer.String(), c.Subject.String()
		}
	}
	s := newScene("https://" + site + "/")
	s.resolved("198.18.7.7", "198.18.7.7")
	s.add(o)
	return s, func(sum string) ([]byte, bool) { b, ok := bodies[sum]; return b, ok }
}

// TestKnownAuthorities replays, for every authority whose certificate or key
// identifier is published, a chain that names its key. Where the certificate
// is shipped the signature can be checked, and a copied identifier is not
// taken for the authority; where it is not, the key named is what can be said.
// Another key under the name is the family's.
func TestKnownAuthorities(t *testing.T) {
	replayed := 0
	for _, r := range known.Roots() {
		if r.SKI == "" && r.SHA256 == "" && r.SPKI == "" {
			continue
		}
		replayed++
		find := func(what string, s *scene, bodies func(string) ([]byte, bool), row string, how measure.How) {
			t.Helper()
			v := Judge(Input{Measurement: &s.m, Bodies: bodies})
			if len(v.Findings) != 1 || v.Findings[0].Method != measure.TLSInterception || v.Findings[0].Match == nil ||
				v.Findings[0].Match.Row != row || v.Findings[0].Match.How != how {
				t.Errorf("%s, %s: %+v", r.ID, what, v.Findings)
				return
			}
			if f := v.Findings[0]; f.Interference != measure.InterferenceSuspected || f.Issuer == "" && r.SKI != "" {
				t.Errorf("%s, %s: %s, issuer %q", r.ID, what, f.Interference, f.Issuer)
			}
		}
		if r.SKI != "" {
			ski, err := hex.DecodeString(r.SKI)
			if err != nil {
				t.Fatal(err)
			}
			der := forged(t, r.IssuerCN, r.IssuerO, ski)
			s, bodies := shown(t, der)
			find("its key named, the certificate not kept", s, nil, r.ID, measure.HowAKI)
			if r.Certificate != nil {
				find("its key named, and another has signed", s, bodies, r.ID, measure.HowFamily)
			} else {
				find("its key named", s, bodies, r.ID, measure.HowAKI)
			}
			s, bodies = shown(t, forged(t, r.IssuerCN, r.IssuerO, []byte("another key")))
			family, _, _ := known.InterceptionRoot(s.m.Observations[len(s.m.Observations)-1].TLS)
			if family.IssuerCN != r.IssuerCN || family.IssuerO != r.IssuerO {
				t.Errorf("%s: its family is %s", r.ID, family.ID)
			}
			find("its name and another key", s, bodies, family.ID, measure.HowFamily)
		}
		if r.Certificate != nil {
			s, bodies := shown(t, forged(t, "x", "", []byte("x")), r.Certificate.Raw)
			find("its certificate sent after a leaf that it did not sign", s, bodies, r.ID, measure.HowFamily)
		}
		s, _ := shown(t, forged(t, "x", "", []byte("x")))
		o := &s.m.Observations[len(s.m.Observations)-1]
		switch {
		case r.SHA256 != "":
			o.TLS.Chain = append(o.TLS.Chain, r.SHA256)
			find("its certificate sent", s, nil, r.ID, measure.HowSHA256)
		default:
			o.TLS.Signers = append(o.TLS.Signers, measure.Signer{SPKI: r.SPKI})
			find("its public key sent", s, nil, r.ID, measure.HowSPKI)
		}
	}
	if replayed < 22 {
		t.Errorf("%d authorities with a certificate or key", replayed)
	}
}

// TestLocallyTrusted: what this device trusts and the public does not is found
// as what nobody trusts is, and said to be trusted; a name says where it
// stands only then.
func TestLocallyTrusted(t *testing.T) {
	show := func(s *scene, exp measure.Experiment, k int, at, issuer string, system measure.Verification) measure.Observation {
		o := hello(measure.RoleTest, exp, k, at, site, "")
		o.Failure = measure.TLSUnknownAuthority
		o.TLS = &measure.TLS{Alert: -1, ServerBytes: true, Version: "TLS 1.3", Public: measure.VerifyUnknownCA, System: system,
			Chain: []string{"a1"}, Issuer: issuer, Signers: []measure.Signer{{Issuer: issuer, AKI: "01"}}}
		return o
	}
	canaries := func(s *scene, issuer string) {
		s.bracket(measure.StepTLS)
		for i := range 3 {
			o := &s.m.Observations[len(s.m.Observations)-1-i]
			o.TLS = hello("", "", 0, o.Remote, "canary.example", "").TLS
			if issuer != "" {
				o.Failure, o.TLS.Public, o.TLS.Issuer = measure.TLSUnknownAuthority, measure.VerifyUnknownCA, issuer
			}
		}
	}
	start := func(issuer string, system measure.Verification) *scene {
		s := newScene("https://" + site + "/")
		s.resolved("198.18.7.7", "198.18.7.7")
		o := show(s, "", 0, siteAt, issuer, system)
		o.Stage = measure.StageScreen
		s.add(o)
		s.pair(strange(hello("", measure.ExpSNI, 1, siteAt, randomName, "")), show(s, measure.ExpSNI, 1, siteAt, issuer, system))
		return s
	}
	const antivirus, filter, nameless = "CN=ESET SSL Filter CA", "CN=FortiGate CA", "CN=Secure Access"
	elsewhere := func(s *scene, issuer string) {
		c, x := strange(hello("", measure.ExpSNIElsewhere, 1, otherAt, randomName, "")), strange(hello("", measure.ExpSNIElsewhere, 1, otherAt, site, ""))
		if issuer != "" {
			x = show(s, measure.ExpSNIElsewhere, 1, otherAt, issuer, measure.VerifiedOK)
		}
		s.pair(c, x)
	}
	everywhere := func(scts measure.SCTs) *scene {
		s := start(nameless, measure.VerifiedOK)
		canaries(s, nameless)
		for i := range s.m.Observations {
			if o := &s.m.Observations[i]; o.TLS != nil {
				o.TLS.SCTs = &scts
			}
		}
		return s
	}
	quic := func(s *scene) {
		s.add(measure.Observation{Step: measure.StepQUIC, Role: measure.RoleTest, Stage: measure.StageScreen, Experiment: measure.ExpQUIC, Remote: siteAt, SNI: site,
			TLS: &measure.TLS{Alert: -1, ServerBytes: true, Version: "TLS 1.3", Public: measure.VerifiedOK}})
	}
	for _, c := range []struct {
		name    string
		build   func() *scene
		want    want
		scope   measure.Scope
		trusted bool
	}{
		{"antivirus: all hosts, trusted here", func() *scene { s := start(antivirus, measure.VerifiedOK); canaries(s, antivirus); return s },
			want{interference: measure.InterferenceConfirmed, method: measure.TLSInterception, proof: "canary+certificate"}, measure.ScopeDevice, true},
		{"twin: its name under a root that nobody trusts", func() *scene { s := start(antivirus, measure.VerifyUnknownCA); canaries(s, antivirus); return s },
			want{interference: measure.InterferenceConfirmed, method: measure.TLSInterception, proof: "canary+certificate"}, measure.ScopeUnknown, false},
		{"a company's filter", func() *scene { s := start(filter, measure.VerifiedOK); canaries(s, filter); return s },
			want{interference: measure.InterferenceConfirmed, method: measure.TLSInterception, proof: "canary+certificate"}, measure.ScopeLAN, true},
		{"the state's root, installed: no name says that it is near", func() *scene {
			s := start("CN=Qaznet Trust Network", measure.VerifiedOK)
			canaries(s, "")
			elsewhere(s, "CN=Qaznet Trust Network")
			return s
		}, want{interference: measure.InterferenceConfirmed, method: measure.TLSInterception, proof: "elsewhere+certificate"}, measure.ScopeUnknown, true},
		{"nameless, trusted, one name, elsewhere too", func() *scene {
			s := start(nameless, measure.VerifiedOK)
			canaries(s, "")
			elsewhere(s, nameless)
			return s
		}, want{interference: measure.InterferenceConfirmed, method: measure.TLSInterception, proof: "elsewhere+certificate"}, measure.ScopeUnknown, true},
		{"twin: nameless, trusted, this server alone", func() *scene {
			s := start(nameless, measure.VerifiedOK)
			canaries(s, "")
			elsewhere(s, "")
			return s
		}, want{interference: measure.InterferenceUnknown, method: measure.PrivateAuthority, why: measure.WhyNoHelper}, measure.ScopeUnknown, true},
		{"this server alone, under a name known for interception", func() *scene {
			s := start("CN=Qaznet Trust Network", measure.VerifiedOK)
			canaries(s, "")
			elsewhere(s, "")
			return s
		}, want{interference: measure.InterferenceSuspected, method: measure.TLSInterception, why: measure.WhyLocalNetwork}, measure.ScopeUnknown, true},
		{"twin: half the web is under an authority newer than this version", func() *scene { return everywhere(measure.SCTs{Embedded: 2}) }, want{interference: measure.InterferenceSuspected, method: measure.TLSInterception, why: measure.WhyOldRoots}, measure.ScopeUnknown, true},
		{"a root that is trusted here, whose timestamps were copied", func() *scene { return everywhere(measure.SCTs{Embedded: 2, False: 2}) }, want{interference: measure.InterferenceConfirmed, method: measure.TLSInterception, proof: "canary+certificate"}, measure.ScopeUnknown, true},
		{"twin: the logs signed it, so a public authority did", func() *scene { return everywhere(measure.SCTs{Embedded: 2, Verified: 1}) }, want{interference: measure.InterferenceUnknown, why: measure.WhyOldRoots}, measure.ScopeUnknown, true},
		{"this server alone, and over QUIC it shows its own", func() *scene {
			s := start(nameless, measure.VerifiedOK)
			canaries(s, "")
			elsewhere(s, "")
			quic(s)
			return s
		}, want{interference: measure.InterferenceConfirmed, method: measure.TLSInterception, trigger: "protocol", proof: "quic+certificate"}, measure.ScopeUnknown, true},
		{"and a helper gets the site's own there", func() *scene {
			s := start(nameless, measure.VerifiedOK)
			canaries(s, "")
			elsewhere(s, "")
			s.helped(helper1, siteAt, 64600, "", "")
			return s
		}, want{interference: measure.InterferenceConfirmed, method: measure.TLSInterception, proof: "helper+certificate"}, measure.ScopeUnknown, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := c.build().judge()
			check(t, v, c.want)
			if len(v.Findings) > 0 && (v.Findings[0].Scope != c.scope || v.Findings[0].Trusted != c.trusted || v.Findings[0].Issuer == "") {
				t.Errorf("%+v", v.Findings[0])
			}
		})
	}
}

// TestHelloAtTheHelper: another key than the helper's is somebody between, if
// the control fared well there, and the sooner if the ClientHello did not come.
func TestHelloAtTheHelper(t *testing.T) {
	const own, other = "11", "22"
	show := func(name, key, came string) measure.Observation {
		o := hello("", measure.ExpSNIElsewhere, 1, otherAt, name, "")
		o.Failure = measure.TLSUnknownAuthority
		o.TLS.Public, o.TLS.SPKI, o.TLS.HelloCame, o.TLS.Issuer, o.TLS.Chain = measure.VerifyUnknownCA, key, came, "CN=any "+key+came, []string{"b" + key + came}
		return o
	}
	build := func(proven bool, pairs ...[2]measure.Observation) *scene {
		s := newScene("https://" + site + "/")
		s.resolved("198.18.7.7", "198.18.7.7")
		o := show(site, other, "")
		o.Experiment, o.Stage, o.Remote, o.Role, o.TLS.Issuer, o.TLS.Chain = "", measure.StageScreen, siteAt, measure.RoleTest, "CN=Box", []string{"a1"}
		s.add(o)
		for i, p := range pairs {
			p[0].Pair, p[1].Pair = i+1, i+1
			s.pair(p[0], p[1])
		}
		h := measure.Observation{Step: measure.StepHelper, Role: measure.RoleHelper, Stage: measure.StageConfirm, Helper: helper1, Remote: otherAt, TLS: &measure.TLS{SPKI: own}}
		if !proven {
			h.Failure = measure.TLSUnknownAuthority
		}
		s.add(h)
		return s
	}
	pair := func(controlKey, controlCame, key, came string) [2]measure.Observation {
		return [2]measure.Observation{show(randomName, controlKey, controlCame), show(site, key, came)}
	}
	for _, c := range []struct {
		name      string
		s         *scene
		confirmed bool
	}{
		{"another key, and it did not come", build(true, pair(own, "same", other, "none")), true},
		{"another key, and it came otherwise than it was sent", build(true, pair(own, "same", other, "differs")), true},
		{"twin: the helper's own key, and it did not come: another of several helpers", build(true, pair(own, "same", own, "none"), pair(own, "same", own, "none")), false},
		{"twin: another key, once", build(true, pair(own, "same", other, "")), false},
		{"another key in two pairs, of a helper that tells no ClientHello of it", build(true, pair(own, "same", other, ""), pair(own, "same", other, "")), true},
		{"twin: once may be an answer that was lost", build(true, pair(own, "same", own, "none")), false},
		{"twin: nothing comes to a helper behind a proxy of its own", build(true, pair(own, "none", own, "none"), pair(own, "none", own, "none")), false},
		{"twin: the control's key is not the helper's either", build(true, pair(other, "same", other, "none"), pair(other, "same", other, "none")), false},
		{"twin: the helper was never proven", build(false, pair(own, "same", other, "none"), pair(own, "same", other, "none")), false},
		{"twin: all came as it was sent", build(true, pair(own, "same", own, "same"), pair(own, "same", own, "same")), false},
	} {
		v := c.s.judge()
		got := len(v.Findings) > 0 && v.Findings[0].Proof == "terminator" && v.Interference == measure.InterferenceConfirmed
		if got != c.confirmed || !c.confirmed && v.Interference == measure.InterferenceConfirmed {
			t.Errorf("%s: %s %+v", c.name, v.Interference, v.Findings)
		}
	}
}

// TestTraces: signs of an imitation stand beside a finding and make none.
func TestTraces(t *testing.T) {
	genuine := &measure.TLS{Alert: -1, ServerBytes: true, Version: "TLS 1.3", Public: measure.VerifiedOK, Chain: []string{"9e"}, Names: []string{site}, Serial: "5a", Key: "ecdsa-256",
		NotBeforeS: 1_790_000_017, NotAfterS: 1_797_000_016, Cipher: "TLS_AES_128_GCM_SHA256", ALPN: "h2", Group: "X25519MLKEM768", AIA: true, SCTs: &measure.SCTs{Embedded: 2}, SPKI: "77"}
	build := func(shown measure.TLS, helper, quic bool) *scene {
		s := newScene("https://" + site + "/")
		s.m.Started = time.Unix(1_791_000_000, 0).UTC().Format(time.RFC3339Nano)
		s.resolved("198.18.7.7", "198.18.7.7")
		o := hello(measure.RoleTest, "", 0, siteAt, site, "")
		o.Stage, o.Failure, o.TLS = measure.StageScreen, measure.TLSUnknownAuthority, &shown
		s.add(o)
		if helper {
			s.helped(helper1, siteAt, 64600, "", "")
			for i := range s.m.Observations {
				if h := &s.m.Observations[i]; h.Role == measure.RoleHelper && h.TLS != nil {
					h.TLS = genuine
				}
			}
		}
		if quic {
			s.add(measure.Observation{Step: measure.StepQUIC, Role: measure.RoleTest, Stage: measure.StageScreen, Experiment: measure.ExpQUIC, Remote: siteAt, SNI: site, TLS: genuine})
		}
		return s
	}
	careless := measure.TLS{Alert: -1, ServerBytes: true, Version: "TLS 1.2", Public: measure.VerifyUnknownCA, Chain: []string{"a1"}, Issuer: "CN=Box", Serial: "1", Key: "rsa-2048",
		NotBeforeS: 1_790_967_600, NotAfterS: 1_822_503_600, Cipher: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", ALPN: "http/1.1", Group: "X25519", SCTs: &measure.SCTs{}, Names: []string{site}, SPKI: "b0"}
	well := *genuine
	well.Public, well.Chain, well.Issuer, well.SPKI, well.SCTs = measure.VerifyUnknownCA, []string{"a2"}, "CN=Box", "b0", &measure.SCTs{Embedded: 2, False: 2, ListAgeDays: 900}
	rival := well // dated of these days, and with a cipher of its own
	rival.Serial, rival.SCTs, rival.NotBeforeS, rival.NotAfterS, rival.Cipher = "77", &measure.SCTs{Embedded: 2}, 1_790_900_001, 1_797_000_077, "TLS_AES_256_GCM_SHA384"
	// paired is beside a control name at the same address, with the same ClientHello.
	paired := func(shown, control measure.TLS) *scene {
		s := build(shown, false, false)
		c, x := hello("", measure.ExpSNI, 1, siteAt, randomName, measure.TLSInvalidHostname), hello("", measure.ExpSNI, 1, siteAt, site, measure.TLSUnknownAuthority)
		c.TLS, x.TLS = &control, &shown
		s.pair(c, x)
		return s
	}
	front := *genuine
	front.Public, front.Issuer, front.Chain = measure.VerifyWrongName, "CN=Public CA", []string{"f0"}
	same := front
	same.Issuer = "CN=Box"
	for _, c := range []struct {
		name  string
		s     *scene
		wants []measure.Trace
	}{
		{"careless, beside another name at its server", paired(careless, front), []measure.Trace{measure.TraceALPN, measure.TraceGroup, measure.TraceVersion}},
		{"careless, beside another name that the same hand signs", paired(careless, same), nil},
		{"another cipher, and dates of these days", build(rival, true, false), []measure.Trace{measure.TraceCipher, measure.TraceFresh}},
		{"careless, and a helper looked", build(careless, true, false), []measure.Trace{measure.TraceAIA, measure.TraceALPN, measure.TraceFresh, measure.TraceGroup, measure.TraceKey, measure.TraceRounded, measure.TraceSCT, measure.TraceVersion}},
		{"careless, and QUIC passed", build(careless, false, true), []measure.Trace{measure.TraceAIA, measure.TraceFresh, measure.TraceKey, measure.TraceRounded, measure.TraceSCT, measure.TraceVersion}},
		{"careless, and nobody looked", build(careless, false, false), nil},
		{"well", build(well, true, false), []measure.Trace{measure.TraceDates, measure.TraceFalseSCT, measure.TraceSerial}},
		{"well, and nobody looked", build(well, false, false), []measure.Trace{measure.TraceFalseSCT}},
		{"one key for unrelated hosts", func() *scene {
			s := build(careless, false, false)
			s.bracket(measure.StepTLS)
			for i := range 3 {
				o := &s.m.Observations[len(s.m.Observations)-1-i]
				x := careless
				x.Names, x.Issuer = []string{o.Remote}, "CN=Box for "+o.Remote
				o.TLS, o.Failure = &x, measure.TLSUnknownAuthority
			}
			return s
		}(), []measure.Trace{measure.TraceOneKey}},
	} {
		v := c.s.judge()
		if len(v.Findings) != 1 || !slices.Equal(v.Findings[0].Traces, c.wants) {
			t.Errorf("%s: %+v", c.name, v.Findings)
			continue
		}
		if one := slices.Contains(c.wants, measure.TraceOneKey); (v.Interference == measure.InterferenceConfirmed) != one {
			t.Errorf("%s: %s by %s", c.name, v.Interference, v.Findings[0].Proof)
		}
	}
	// A chain that the public roots verify is nobody's forgery, whatever its SCTs.
	odd := well
	odd.Public = measure.VerifiedOK
	if v := build(odd, false, false).judge(); len(v.Findings) != 0 {
		t.Errorf("accused by SCTs alone: %+v", v.Findings)
	}
}

// TestSigned: a chain is a known authority's if its key signed the leaf or what
// signed it, whatever names and identifiers are copied.
func TestSigned(t *testing.T) {
	type pair struct {
		cert *x509.Certificate
		key  *ecdsa.PrivateKey
	}
	issue := func(cn string, by *pair) *pair {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Unix(1_600_000_000, 0), NotAfter: time.Unix(1_900_000_000, 0), SubjectKeyId: []byte("the same for all")}
		if by == nil {
			by = &pair{tmpl, key}
		}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, by.cert, key.Public(), by.key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return &pair{c, key}
	}
	root, copied := issue("Known", nil), issue("Known", nil)
	inter, other := issue("Weeks", root), issue("Weeks", copied)
	for _, c := range []struct {
		name  string
		chain []*pair
		want  bool
	}{
		{"by the root", []*pair{issue(site, root)}, true},
		{"by its intermediate", []*pair{issue(site, inter), inter}, true},
		{"the intermediate not sent", []*pair{issue(site, inter)}, false},
		{"by a root of that name", []*pair{issue(site, copied)}, false},
		{"by the intermediate of a root of that name", []*pair{issue(site, other), other, copied}, false},
		{"the root attached to a stranger's", []*pair{issue(site, copied), root}, false},
		{"the root itself", []*pair{root}, false},
	} {
		bodies, sums := map[string][]byte{}, []string{}
		for _, p := range c.chain {
			sums = append(sums, digest(p.cert.Raw))
			bodies[digest(p.cert.Raw)] = p.cert.Raw
		}
		j := &judging{bodies: func(sum string) ([]byte, bool) { b, ok := bodies[sum]; return b, ok }}
		if got := j.signed(sums, known.Root{Certificate: root.cert, SHA256: digest(root.cert.Raw)}); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
