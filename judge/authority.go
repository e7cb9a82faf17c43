package judge

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"

	"govah/known"
	"govah/measure"
)

// sign writes into f who signed the chain that came for name: the issuer as it
// names itself, whether this system trusts it, and the known authority that it
// is or is named like. Only a signature proves which it is.
//
// A name says where a device stands only if this system trusts what is signed
// under it: the antivirus that runs here is trusted here, and whoever copies
// its name is not. That a provider's device does it is never said by a name.
// Whether it stands here or next door is seen by a TTL of one.
func (j *judging) sign(f *measure.Finding, o *measure.Observation, name string) (known.Root, bool) {
	defer j.place(f, o)
	t := o.TLS
	f.Issuer = t.Issuer
	f.Trusted = t.System == measure.VerifiedOK && !verified(t)
	if r, ok := j.signer(t.Chain, name); ok {
		m := r.Match()
		m.How = measure.HowSignature
		f.Match, f.Scope = &m, r.Scope
		f.Interference, f.Proof = measure.InterferenceConfirmed, "signature"
		return r, true
	}
	r, how, ok := known.InterceptionRoot(t)
	if !ok {
		return r, false
	}
	if (how == measure.HowAKI && r.Certificate != nil || how == measure.HowSHA256) && j.held(t.Chain) && !j.signed(t.Chain, r) {
		how = measure.HowFamily // it names or shows that key, which did not sign
	}
	m := r.Match()
	m.How = how
	weak := how == measure.HowName || how == measure.HowFamily
	if local := r.Scope == measure.ScopeDevice || r.Scope == measure.ScopeLAN; !weak || local && (f.Trusted || t.System == "") {
		f.Scope = r.Scope
	} else {
		m.Scope = measure.ScopeUnknown
	}
	f.Match = &m
	return r, true
}

// place says how near the device is from which o came, if a connection with
// TTL 1 was tried: what accepts it did not let it leave the house.
func (j *judging) place(f *measure.Finding, o *measure.Observation) {
	near, p := j.firstHop(o.Remote)
	if p == nil {
		return
	}
	switch {
	case near && f.Scope != measure.ScopeDevice:
		f.Scope = measure.ScopeLAN
	case !near && f.Scope == measure.ScopeDevice:
		f.Scope = measure.ScopeUnknown // a router sent it back: it had left this device
	}
	f.Because = append(f.Because, p.ID)
}

// firstHop says whether a SYN with TTL 1 to an address and port was accepted,
// and which it was; nil if none was tried, or nothing came back.
func (j *judging) firstHop(at string) (near bool, p *measure.Observation) {
	for _, o := range j.obs {
		if o.Experiment == measure.ExpFirstHop && o.Path != nil && o.TTL == 1 && o.Remote == at && (o.Path.Outcome == "connected" || o.Path.Outcome == "expired") {
			return o.Path.Outcome == "connected", o
		}
	}
	return false, nil
}

// logged says whether a certificate has timestamps as public authorities put
// them in, none of which is known to be false.
func logged(t *measure.TLS) bool {
	return t.SCTs != nil && t.SCTs.Embedded+t.SCTs.Beside >= 2 && t.SCTs.False == 0
}

// held says whether a chain's certificates are among the bodies and their
// signatures of a kind that can be checked: SHA-1 no longer is.
func (j *judging) held(chain []string) bool {
	if j.bodies == nil || len(chain) == 0 || len(chain) > 16 {
		return false
	}
	for _, sum := range chain {
		der, ok := j.bodies(sum)
		if !ok || len(der) > 1<<16 {
			return false
		}
		c, err := x509.ParseCertificate(der)
		if err != nil || c.SignatureAlgorithm == x509.SHA1WithRSA || c.SignatureAlgorithm == x509.ECDSAWithSHA1 {
			return false
		}
	}
	return true
}

// atHelper finds pairs at a helper in which the control drew the helper's own
// key, as it proved it over its own channel, and the helper received that
// ClientHello as it was sent; while under the name another key came. In two
// pairs, or in one whose ClientHello did not come or came otherwise, that is
// somebody between. A ClientHello alone that did not come is not: whoever
// answers with the helper's key is the helper, perhaps one of several.
func (j *judging) atHelper(name string) (because []string, control string) {
	weight := 0
	for _, t := range j.obs {
		if t.Experiment != measure.ExpSNIElsewhere || t.Role != measure.RoleTest || t.Step != measure.StepTLS || canonical(t.SNI) != name || !completed(t) || t.TLS == nil {
			continue
		}
		c := j.byID[t.Control]
		if c == nil || c.Remote != t.Remote || c.TLS == nil || c.TLS.HelloCame != "same" || !j.helperKey(t.Remote, c.TLS.SPKI) {
			continue
		}
		if t.TLS.SPKI == "" || t.TLS.SPKI == c.TLS.SPKI || t.TLS.HelloCame == "same" {
			continue
		}
		weight++
		if t.TLS.HelloCame != "" {
			weight++
		}
		because, control = append(because, t.ID, c.ID), canonical(c.SNI)
	}
	if weight < 2 {
		return nil, ""
	}
	return because, control
}

// helperKey says whether a helper at a place proved that key to be its own.
func (j *judging) helperKey(at, spki string) bool {
	return spki != "" && slices.ContainsFunc(j.obs, func(h *measure.Observation) bool {
		return h.Step == measure.StepHelper && h.Failure == measure.NoFailure && h.Remote == at && h.TLS != nil && h.TLS.SPKI == spki
	})
}

// overQUIC finds a handshake over QUIC with the name at the same address that
// a public root verifies: the server there has the name's own certificate.
func (j *judging) overQUIC(o *measure.Observation, name string) *measure.Observation {
	for _, q := range j.obs {
		if q.Step == measure.StepQUIC && q.Role == measure.RoleTest && q.Remote == o.Remote && nameOf(q) == name && verified(q.TLS) {
			return q
		}
	}
	return nil
}

// onlyHere finds what shows that a chain is this server's own affair: the same
// name at an unrelated server draws nothing of its issuer, and canaries of two
// networks verify against the public roots. nil: not both.
func (j *judging) onlyHere(o *measure.Observation, name string) (because []string) {
	elsewhere := 0
	for _, t := range j.obs {
		if t.Experiment != measure.ExpSNIElsewhere || t.Role != measure.RoleTest || canonical(t.SNI) != name || t.TLS == nil || len(t.TLS.Chain) == 0 || address(t) == address(o) {
			continue
		}
		if t.TLS.Issuer == o.TLS.Issuer {
			return nil
		}
		elsewhere++
		because = append(because, t.ID)
	}
	networks := map[int]bool{}
	for _, c := range j.canaries {
		if c.Step == measure.StepTLS && verified(c.TLS) {
			networks[c.ASN] = true
			because = append(because, c.ID)
		}
	}
	if elsewhere == 0 || len(networks) < 2 {
		return nil
	}
	return because
}

// signer finds the authority known for signing what it should not whose
// signature the chain carries, for a name that is not rightly its own.
func (j *judging) signer(chain []string, name string) (known.Root, bool) {
	for _, r := range known.Roots() {
		switch r.Kind {
		case "interception-root", "national-root", "device-root":
			if (r.Certificate != nil || slices.Contains(chain, r.SHA256)) && !r.Owns(name) && j.signed(chain, r) {
				return r, true
			}
		}
	}
	return known.Root{}, false
}

// signed verifies that a chain really ends at a known authority: each
// certificate is signed by the next, or by the authority itself. It needs the
// certificates, kept as bodies.
func (j *judging) signed(chain []string, root known.Root) bool {
	if j.bodies == nil || len(chain) == 0 || len(chain) > 16 {
		return false
	}
	var certs []*x509.Certificate
	anchor := root.Certificate
	for _, sum := range chain {
		der, ok := j.bodies(sum)
		if !ok || len(der) > 1<<16 || digest(der) != strings.ToLower(sum) {
			break
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			break
		}
		certs = append(certs, c)
		if root.SHA256 != "" && strings.EqualFold(sum, root.SHA256) {
			anchor = c
		}
	}
	if len(certs) == 0 || anchor == nil {
		return false
	}
	at := certs[0]
	for range len(certs) + 1 {
		if at.Equal(anchor) {
			return at != certs[0]
		}
		if at.CheckSignatureFrom(anchor) == nil {
			return true
		}
		next := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return c != at && at.CheckSignatureFrom(c) == nil })
		if next < 0 {
			return false
		}
		at = certs[next]
	}
	return false
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
