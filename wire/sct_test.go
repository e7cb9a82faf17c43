package wire_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"govah/measure"
	"govah/wire"
	"govah/wire/host"
)

// ctLog is a log that signs what it is given (RFC 6962).
type ctLog struct {
	key *ecdsa.PrivateKey
	der []byte
	id  [sha256.Size]byte
}

func newCTLog(t testing.TB) *ctLog {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return &ctLog{key, der, sha256.Sum256(der)}
}

// sign makes an SCT over an entry, from its type on.
func (l *ctLog) sign(t testing.TB, entry []byte) []byte {
	at := binary.BigEndian.AppendUint64(nil, 1_600_000_000_000)
	sum := sha256.Sum256(slices.Concat([]byte{0, 0}, at, entry, []byte{0, 0}))
	signature, err := ecdsa.SignASN1(rand.Reader, l.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat([]byte{0}, l.id[:], at, []byte{0, 0, 4, 3}, binary.BigEndian.AppendUint16(nil, uint16(len(signature))), signature)
}

func (l *ctLog) list(id string) []byte {
	return fmt.Appendf(nil, `{"version":"1","log_list_timestamp":"2026-01-01T00:00:00Z","operators":[{"name":"x","logs":[{"description":"one","log_id":%q,"key":%q}]}]}`,
		id, base64.StdEncoding.EncodeToString(l.der))
}

func (l *ctLog) idText() string { return base64.StdEncoding.EncodeToString(l.id[:]) }

func uint24(b []byte) []byte {
	return append([]byte{byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}, b...)
}

// TestTimestamps: an SCT verifies if a log on the list signed this very
// certificate, in it or beside it; one that was copied is told to be false, and
// one of a log that is not on the list is only counted.
func TestTimestamps(t *testing.T) {
	ca, known, unknown := newAuthority(t), newCTLog(t), newCTLog(t)
	logs, err := wire.ParseCTLogs(known.list(known.idText()))
	if err != nil || logs.Len() != 1 {
		t.Fatal(err)
	}
	by := sha256.Sum256(ca.cert.RawSubjectPublicKeyInfo)
	// The certificate without its SCTs, as its logs have it: the serial and the
	// key tell which one it is.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	make := func(name string, with ...[]byte) tls.Certificate {
		tmpl := &x509.Certificate{SerialNumber: ca.cert.SerialNumber, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			NotBefore: ca.cert.NotBefore, NotAfter: ca.cert.NotAfter, OCSPServer: []string{"http://ocsp.example"}}
		if len(with) > 0 {
			var list []byte
			for _, sct := range with {
				list = append(binary.BigEndian.AppendUint16(list, uint16(len(sct))), sct...)
			}
			value, err := asn1.Marshal(append(binary.BigEndian.AppendUint16(nil, uint16(len(list))), list...))
			if err != nil {
				t.Fatal(err)
			}
			tmpl.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value}}
		}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	precert := func(name string) []byte {
		c, err := x509.ParseCertificate(make(name).Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return slices.Concat([]byte{0, 1}, by[:], uint24(c.RawTBSCertificate))
	}
	const site = "site.example"
	good, copied, foreign := known.sign(t, precert(site)), known.sign(t, precert("other.example")), unknown.sign(t, precert(site))
	beside := make(site)
	beside.SignedCertificateTimestamps = [][]byte{known.sign(t, append([]byte{0, 0}, uint24(beside.Certificate[0])...)), good}
	for _, c := range []struct {
		name string
		cert tls.Certificate
		logs *wire.CTLogs
		want measure.SCTs
	}{
		{"signed", make(site, good, foreign), logs, measure.SCTs{Embedded: 2, Verified: 1, ListAgeDays: 31}},
		{"copied from another", make(site, copied, good), logs, measure.SCTs{Embedded: 2, Verified: 1, False: 1, ListAgeDays: 31}},
		{"beside it: one for it, one that belongs into it", beside, logs, measure.SCTs{Beside: 2, Verified: 1, False: 1, ListAgeDays: 31}},
		{"none", make(site), logs, measure.SCTs{ListAgeDays: 31}},
		{"no list", make(site, good, copied), nil, measure.SCTs{Embedded: 2}},
		{"cut off", make(site, good[:40], []byte{}, good[:len(good)-1], append([]byte{1}, good[1:]...)), logs, measure.SCTs{Embedded: 4, ListAgeDays: 31}},
	} {
		for _, kind := range []string{"chrome", "go"} {
			at := server(t, http.NotFoundHandler(), c.cert, false)
			l := newLog()
			conn, o := wire.Connect(t.Context(), host.New(), l, wire.Meta{}, wire.ConnectSpec{Remote: at})
			if conn == nil {
				t.Fatal(o.Detail)
			}
			trust := &wire.Trust{Public: ca.pool(), Logs: c.logs, Now: func() time.Time { return time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC) }}
			tc, o := wire.Handshake(t.Context(), l, wire.Meta{}, conn, wire.HandshakeSpec{SNI: site, Hello: hello(t, kind)}, trust)
			if tc == nil {
				t.Fatal(o.Detail)
			}
			if o.TLS.SCTs == nil || *o.TLS.SCTs != c.want || !o.TLS.AIA {
				t.Errorf("%s, %s: %+v, AIA %v; want %+v", c.name, kind, o.TLS.SCTs, o.TLS.AIA, c.want)
			}
			conn.Abort()
		}
	}
}

func TestCTLogsAreChecked(t *testing.T) {
	log := newCTLog(t)
	other := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32))
	good := string(log.list(log.idText()))
	for name, text := range map[string]string{
		"an id that is not the key's hash": string(log.list(other)),
		"no date":                          strings.Replace(good, "log_list_timestamp", "x", 1),
		"no key":                           strings.Replace(good, `"key"`, `"x"`, 1),
		"empty":                            `{"log_list_timestamp":"2026-01-01T00:00:00Z"}`,
		"nothing":                          "",
		"not JSON":                         "-----BEGIN CERTIFICATE-----",
	} {
		if l, err := wire.ParseCTLogs([]byte(text)); err == nil {
			t.Errorf("%s: %d logs", name, l.Len())
		}
	}
	tiled := strings.Replace(good, `"logs"`, `"tiled_logs"`, 1)
	if l, err := wire.ParseCTLogs([]byte(tiled)); err != nil || l.Len() != 1 {
		t.Errorf("tiled logs: %v", err)
	}
}
