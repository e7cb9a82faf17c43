package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// authority is a certificate authority of the lab. Leaves share one key: what
// is tested is names and chains, not keys.
type authority struct {
	root, inter *x509.Certificate
	rootDER     []byte
	interDER    []byte
	rootKey     *ecdsa.PrivateKey
	interKey    *ecdsa.PrivateKey
	leafKey     *ecdsa.PrivateKey
	now         time.Time

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
	serial int64
}

// Keys are made once a process: they are the slow part, and no secret.
var keys = sync.OnceValue(func() [5]*ecdsa.PrivateKey {
	var out [5]*ecdsa.PrivateKey
	for i := range out {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		out[i] = k
	}
	return out
})

func newAuthority(name string, now time.Time, which int) (*authority, error) {
	k := keys()
	a := &authority{rootKey: k[which], interKey: k[which+1], leafKey: k[4], now: now, leaves: map[string]*tls.Certificate{}, serial: 1000}
	make := func(cn string, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) ([]byte, *x509.Certificate, error) {
		a.serial++
		t := &x509.Certificate{
			SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: cn, Organization: []string{name}},
			NotBefore: now.AddDate(-2, 0, 0), NotAfter: now.AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		if parent == nil {
			parent = t
		}
		der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer)
		if err != nil {
			return nil, nil, fmt.Errorf("lab: making a CA: %w", err)
		}
		c, err := x509.ParseCertificate(der)
		return der, c, err
	}
	var err error
	if a.rootDER, a.root, err = make(name+" Root", nil, a.rootKey, a.rootKey); err != nil {
		return nil, err
	}
	a.interDER, a.inter, err = make(name+" Issuing CA", a.root, a.interKey, a.rootKey)
	return a, err
}

// issue gives a certificate for a name; kind is Site.Cert.
func (a *authority) issue(kind, name string) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := kind + " " + name
	if c := a.leaves[key]; c != nil {
		return c, nil
	}
	a.serial++
	t := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: name},
		NotBefore: a.now.AddDate(0, -1, 0), NotAfter: a.now.AddDate(0, 2, 0), DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	parent, signer := a.inter, a.interKey
	chain := [][]byte{nil, a.interDER}
	switch kind {
	case "expired":
		t.NotBefore, t.NotAfter = a.now.AddDate(0, -4, 0), a.now.AddDate(0, 0, -10)
	case "wrong-name":
		t.Subject.CommonName, t.DNSNames = "other.invalid", []string{"other.invalid"}
	case "self-signed":
		parent, signer, chain = t, a.leafKey, chain[:1]
	case "missing-intermediate":
		chain = chain[:1]
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &a.leafKey.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("lab: issuing a certificate for %q: %w", name, err)
	}
	chain[0] = der
	c := &tls.Certificate{Certificate: chain, PrivateKey: a.leafKey}
	a.leaves[key] = c
	return c, nil
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.root)
	return p
}
