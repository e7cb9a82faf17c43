package wire

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"govah/measure"
)

// Bounds on what is kept of a certificate.
const (
	maxChain       = 16
	maxNames       = 64
	maxNameText    = 256
	maxSubjectText = 512
	maxSerialText  = 64  // hex; RFC 5280 allows 20 bytes
	maxKeyIDText   = 128 // hex; hashes are no longer
)

// Trust says how certificates are verified. A certificate never ends a step:
// the outcome is recorded in measure.TLS. It is safe for concurrent use as
// long as nobody changes it.
type Trust struct {
	// Public are the bundled public roots; nil verifies nothing.
	Public *x509.CertPool
	// System is what this system trusts (Network.Roots), nil unknown.
	System *x509.CertPool
	// Logs verify SCTs; nil: they are counted only.
	Logs *CTLogs
	// Now is the device's clock; nil means time.Now.
	Now func() time.Time
	// Offset is the estimated true time minus the device's. Chains are
	// verified at both where it is more than a minute.
	Offset time.Duration
}

func (t *Trust) now() time.Time {
	if t.Now == nil {
		return time.Now()
	}
	return t.Now()
}

// certificates records a chain as it was sent and what verifying it for name
// found. The returned error is that of the public roots at the device's time;
// proven says that the chain proves the name now or at the estimated time.
func (t *Trust) certificates(out *measure.TLS, raw [][]byte, chain []*x509.Certificate, name string) (proven bool, err error) {
	for i, der := range raw {
		if i == maxChain {
			break
		}
		out.Chain = append(out.Chain, hash(der))
	}
	if len(chain) == 0 {
		return false, nil
	}
	leaf := chain[0]
	out.Subject = text(leaf.Subject.String(), maxSubjectText)
	out.Issuer = text(leaf.Issuer.String(), maxSubjectText)
	out.NotBeforeS, out.NotAfterS = leaf.NotBefore.Unix(), leaf.NotAfter.Unix()
	out.AIA = len(leaf.IssuingCertificateURL)+len(leaf.OCSPServer) > 0
	out.SPKI, out.Key, out.Serial = hash(leaf.RawSubjectPublicKeyInfo), keyKind(leaf), clip(leaf.SerialNumber.Text(16), maxSerialText)
	for _, n := range leaf.DNSNames {
		if len(out.Names) < maxNames {
			out.Names = append(out.Names, text(n, maxNameText))
		}
	}
	for _, a := range leaf.IPAddresses {
		if len(out.Names) < maxNames {
			out.Names = append(out.Names, a.String())
		}
	}
	defer func() {
		if !proven {
			out.Signers = signers(chain)
		}
	}()
	if t == nil || name == "" || t.Public == nil {
		return false, nil
	}
	now := t.now()
	out.Public, err = verify(chain, name, t.Public, now)
	proven = out.Public == measure.VerifiedOK
	if t.Offset > time.Minute || t.Offset < -time.Minute {
		out.PublicEstimated, _ = verify(chain, name, t.Public, now.Add(t.Offset))
		proven = proven || out.PublicEstimated == measure.VerifiedOK
	}
	switch {
	case t.System == nil:
	case t.System.Equal(t.Public):
		out.System = out.Public
	default:
		out.System, _ = verify(chain, name, t.System, now)
	}
	if err != nil {
		err = &certificateError{outcome: out.Public, err: err}
	}
	return proven, err
}

// timestamps weighs the SCTs of a chain and those beside it.
func (t *Trust) timestamps(chain []*x509.Certificate, beside [][]byte) *measure.SCTs {
	if t == nil {
		return nil
	}
	return certificateTimestamps(chain, t.issuer(chain), beside, t.Logs, t.now().Add(t.Offset))
}

// issuer is the certificate that signed a leaf: one that was sent, or a root.
func (t *Trust) issuer(chain []*x509.Certificate) *x509.Certificate {
	if t.Logs == nil || len(chain) == 0 {
		return nil
	}
	leaf := chain[0]
	for _, c := range chain[1:min(len(chain), maxChain)] {
		if leaf.CheckSignatureFrom(c) == nil {
			return c
		}
	}
	for _, roots := range []*x509.CertPool{t.Public, t.System} {
		if roots == nil {
			continue
		}
		found, _ := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)})
		if len(found) > 0 && len(found[0]) > 1 {
			return found[0][1]
		}
	}
	return nil
}

// hash is the SHA-256 of b, hex.
func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// keyKind names a certificate's kind of key and its size in bits.
func keyKind(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return "rsa-" + strconv.Itoa(k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ecdsa-" + strconv.Itoa(k.Params().BitSize)
	case ed25519.PublicKey:
		return "ed25519"
	}
	return ""
}

// signers says of each certificate of a chain who signed it.
func signers(chain []*x509.Certificate) (out []measure.Signer) {
	for _, c := range chain[:min(len(chain), maxChain)] {
		out = append(out, measure.Signer{Issuer: text(c.Issuer.String(), maxSubjectText),
			AKI: clip(hex.EncodeToString(c.AuthorityKeyId), maxKeyIDText), SPKI: hash(c.RawSubjectPublicKeyInfo)})
	}
	return out
}

// verify finds the worst thing that is wrong with a chain for a name.
func verify(chain []*x509.Certificate, name string, roots *x509.CertPool, at time.Time) (measure.Verification, error) {
	leaf := chain[0]
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: at}
	for i, c := range chain[1:] {
		if i == maxChain {
			break
		}
		options.Intermediates.AddCert(c)
	}
	nameErr := leaf.VerifyHostname(bracketed(name))
	_, err := leaf.Verify(options)
	if expired(err) {
		// The library says "expired" before it looks for the issuer. Whether
		// the issuer is known is seen at a time when the leaf was valid.
		first := err
		options.CurrentTime = leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
		if _, again := leaf.Verify(options); again != nil && !expired(again) {
			err = again
		} else if nameErr != nil {
			return measure.VerifyWrongName, nameErr
		} else {
			return measure.VerifyExpired, first
		}
	}
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return measure.VerifyUnknownCA, err
	case err != nil:
		return measure.VerifyMalformed, err
	case nameErr != nil:
		return measure.VerifyWrongName, nameErr
	}
	return measure.VerifiedOK, nil
}

func expired(err error) bool {
	var invalid x509.CertificateInvalidError
	return errors.As(err, &invalid) && invalid.Reason == x509.Expired
}

// bracketed is name in the form in which VerifyHostname takes addresses.
func bracketed(name string) string {
	if ip := net.ParseIP(name); ip != nil {
		return "[" + name + "]"
	}
	return strings.TrimSuffix(name, ".")
}

// text makes foreign text valid UTF-8 of a bounded length.
func text(s string, n int) string {
	return clip(strings.ToValidUTF8(s, "\uFFFD"), n)
}

// keepChain stores the certificates of a chain that did not verify.
func keepChain(l *Log, raw [][]byte) {
	for i, der := range raw {
		if i == maxChain {
			break
		}
		l.Keep(measure.Body{Type: "body", Schema: 1, SHA256: hash(der), Kind: "certificate", Data: der})
	}
}
