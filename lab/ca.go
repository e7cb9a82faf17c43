package lab

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"
)

// authority is a certificate authority of the lab. Each leaf has its own key.
type authority struct {
	root, inter *x509.Certificate // inter is nil if the root signs by itself
	rootDER     []byte
	interDER    []byte
	rootKey     *ecdsa.PrivateKey
	interKey    *ecdsa.PrivateKey
	now         time.Time
	public      bool // it logs what it signs

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
	serial int64
}

// Keys are made once a process: they are the slow part, and no secret.
var keys = sync.OnceValue(func() [9]*ecdsa.PrivateKey {
	var out [9]*ecdsa.PrivateKey
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
	a := &authority{rootKey: k[which], interKey: k[which+1], now: now, public: which == forPublic, leaves: map[string]*tls.Certificate{}, serial: 1000}
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
		der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
		if err != nil {
			return nil, nil, fmt.Errorf("lab: making a CA: %w", err)
		}
		c, err := x509.ParseCertificate(der)
		return der, c, err
	}
	var err error
	if which == forInterceptor {
		// A box signs with its root, by the name that it was given.
		a.rootDER, a.root, err = make(name, nil, a.rootKey, a.rootKey)
		return a, err
	}
	if a.rootDER, a.root, err = make(name+" Root", nil, a.rootKey, a.rootKey); err != nil {
		return nil, err
	}
	a.interDER, a.inter, err = make(name+" Issuing CA", a.root, a.interKey, a.rootKey)
	return a, err
}

// rsaKey is the one RSA key, for those who have RSA keys.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// Which keys an authority has, and the logs.
const (
	forPublic      = 0
	forInterceptor = 2
	forCompany     = 5
	forLogs        = 7
)

// issue gives a certificate for a name; kind is Site.Cert, number that of
// several for the name.
func (a *authority) issue(kind, name string, number int) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id := fmt.Sprint(kind, " ", name, " ", number)
	if c := a.leaves[id]; c != nil {
		return c, nil
	}
	made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	var key crypto.Signer = made
	if rest, ok := strings.CutSuffix(kind, " rsa"); ok {
		kind, key = rest, rsaKey()
	}
	t := a.leaf(name)
	parent, signer := a.inter, crypto.Signer(a.interKey)
	chain := [][]byte{nil, a.interDER}
	switch kind {
	case "expired":
		t.NotBefore, t.NotAfter = a.now.AddDate(0, -4, 0), a.now.AddDate(0, 0, -10)
	case "wrong-name":
		t.Subject.CommonName, t.DNSNames = "other.invalid", []string{"other.invalid"}
	case "self-signed":
		parent, signer, chain = t, key, chain[:1]
	case "missing-intermediate":
		chain = chain[:1]
	}
	if a.public && parent != t {
		t.IssuingCertificateURL = []string{"http://ca.example/issuing.der"}
		if err := timestamp(t, parent, key, signer); err != nil {
			return nil, err
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("lab: issuing a certificate for %q: %w", name, err)
	}
	chain[0] = der
	c := &tls.Certificate{Certificate: chain, PrivateKey: key}
	a.leaves[id] = c
	return c, nil
}

// leaf is a certificate for a name, to be signed. The caller holds the lock.
func (a *authority) leaf(name string) *x509.Certificate {
	a.serial++
	return &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: name},
		NotBefore: a.now.AddDate(0, -1, 0), NotAfter: a.now.AddDate(0, 2, 0), DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

// resign imitates a server's certificate for a name as an interceptor does:
// well or not, with one key for all names or one each.
func (a *authority) resign(name string, genuine *x509.Certificate, i *Intercept) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id := name + " " + genuine.SerialNumber.Text(16)
	if c := a.leaves[id]; c != nil {
		return c, nil
	}
	// Devices make RSA keys, whatever the server has, unless they imitate well.
	_, isRSA := genuine.PublicKey.(*rsa.PublicKey)
	var key crypto.Signer = rsaKey()
	switch {
	case i.Signs == "well" && isRSA:
	case i.Keys == "each":
		made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		key = made
	case i.Signs == "well":
		key = keys()[4]
	}
	t := a.leaf(name)
	if i.Signs == "well" {
		t.SerialNumber, t.RawSubject, t.NotBefore, t.NotAfter = genuine.SerialNumber, genuine.RawSubject, genuine.NotBefore, genuine.NotAfter
		t.DNSNames, t.IPAddresses, t.KeyUsage, t.ExtKeyUsage = genuine.DNSNames, genuine.IPAddresses, genuine.KeyUsage, genuine.ExtKeyUsage
		t.IssuingCertificateURL, t.OCSPServer, t.CRLDistributionPoints = genuine.IssuingCertificateURL, genuine.OCSPServer, genuine.CRLDistributionPoints
		t.Policies = genuine.Policies
		for _, e := range genuine.Extensions {
			if e.Id.Equal(sctList) {
				t.ExtraExtensions = append(t.ExtraExtensions, e)
			}
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.root, key.Public(), a.rootKey)
	if err != nil {
		return nil, fmt.Errorf("lab: imitating the certificate of %q: %w", name, err)
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	a.leaves[id] = c
	return c, nil
}

// timestamp has the lab's two logs sign a certificate that is to be, and puts their
// SCTs into it (RFC 6962, 3.2 and 3.3).
func timestamp(t, issuer *x509.Certificate, key, signer crypto.Signer) error {
	der, err := x509.CreateCertificate(rand.Reader, t, issuer, key.Public(), signer)
	if err != nil {
		return err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	var list []byte
	for _, k := range logs() {
		at := binary.BigEndian.AppendUint64(nil, uint64(t.NotBefore.UnixMilli()))
		by := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
		n := len(c.RawTBSCertificate)
		signed := slices.Concat([]byte{0, 0}, at, []byte{0, 1}, by[:], []byte{byte(n >> 16), byte(n >> 8), byte(n)}, c.RawTBSCertificate, []byte{0, 0})
		sum := sha256.Sum256(signed)
		signature, err := ecdsa.SignASN1(rand.Reader, k, sum[:])
		if err != nil {
			return err
		}
		_, id := logKey(k)
		sct := slices.Concat([]byte{0}, id[:], at, []byte{0, 0, 4, 3}, binary.BigEndian.AppendUint16(nil, uint16(len(signature))), signature)
		list = append(binary.BigEndian.AppendUint16(list, uint16(len(sct))), sct...)
	}
	value, err := asn1.Marshal(append(binary.BigEndian.AppendUint16(nil, uint16(len(list))), list...))
	t.ExtraExtensions = []pkix.Extension{{Id: sctList, Value: value}}
	return err
}

func logs() []*ecdsa.PrivateKey {
	k := keys()
	return k[forLogs:]
}

// logKey is a log's public key and its id, the key's hash.
func logKey(k *ecdsa.PrivateKey) ([]byte, [sha256.Size]byte) {
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		panic(err) // the key is of our own making
	}
	return der, sha256.Sum256(der)
}

// CTLogs is the list of the world's logs, in the form of Chrome's.
func (w *World) CTLogs() []byte {
	var list []map[string]string
	for i, k := range logs() {
		der, id := logKey(k)
		list = append(list, map[string]string{"description": fmt.Sprintf("Lab log %d", i+1),
			"key": base64.StdEncoding.EncodeToString(der), "log_id": base64.StdEncoding.EncodeToString(id[:])})
	}
	out, err := json.Marshal(map[string]any{"version": "1", "log_list_timestamp": w.at.UTC(), "operators": []any{map[string]any{"name": "Lab", "logs": list}}})
	if err != nil {
		panic(err)
	}
	return out
}

// sctList is the extension that holds SCTs (RFC 6962, 3.3).
var sctList = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.root)
	return p
}
