package wire

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"govah/measure"
)

// CTLogs are logs of Certificate Transparency with their keys, as of a date
// (RFC 6962).
type CTLogs struct {
	Date time.Time
	logs map[[sha256.Size]byte]crypto.PublicKey
}

// Bounds of a list of logs and of what a server may send.
const (
	maxCTLogs = 4096
	maxSCTs   = 32
)

// ParseCTLogs reads a list in the form of Chrome's log_list.json, version 3.
// Each log's id must be the SHA-256 of its key. Logs that were retired or
// rejected are read too: what they signed they have signed.
func ParseCTLogs(data []byte) (*CTLogs, error) {
	type log struct {
		Description string `json:"description"`
		ID          string `json:"log_id"`
		Key         string `json:"key"`
	}
	var list struct {
		Timestamp time.Time `json:"log_list_timestamp"`
		Operators []struct {
			Logs  []log `json:"logs"`
			Tiled []log `json:"tiled_logs"`
		} `json:"operators"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("this is no list of CT logs: %w", err)
	}
	if list.Timestamp.IsZero() {
		return nil, errors.New("this is no list of CT logs: it has no log_list_timestamp")
	}
	out := &CTLogs{Date: list.Timestamp, logs: map[[sha256.Size]byte]crypto.PublicKey{}}
	for _, o := range list.Operators {
		for _, l := range append(o.Logs, o.Tiled...) {
			der, err := base64.StdEncoding.DecodeString(l.Key)
			if err != nil {
				return nil, fmt.Errorf("the key of log %q is not base64", clip(l.Description, 80))
			}
			id := sha256.Sum256(der)
			if base64.StdEncoding.EncodeToString(id[:]) != l.ID {
				return nil, fmt.Errorf("the id of log %q is not the SHA-256 of its key", clip(l.Description, 80))
			}
			key, err := x509.ParsePKIXPublicKey(der)
			if err != nil {
				return nil, fmt.Errorf("the key of log %q: %w", clip(l.Description, 80), err)
			}
			if out.logs[id] = key; len(out.logs) > maxCTLogs {
				return nil, fmt.Errorf("more than %d logs", maxCTLogs)
			}
		}
	}
	if len(out.logs) == 0 {
		return nil, errors.New("the list of CT logs is empty")
	}
	return out, nil
}

// Len is the number of logs.
func (l *CTLogs) Len() int { return len(l.logs) }

// sctExtension holds the SCTs that were put into a certificate (RFC 6962, 3.3).
var sctExtension = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}

// certificateTimestamps counts the SCTs of a chain, those in the leaf and
// those that came beside it, and verifies them with the logs. issuer is the
// leaf's, nil if it is not known.
func certificateTimestamps(chain []*x509.Certificate, issuer *x509.Certificate, beside [][]byte, logs *CTLogs, now time.Time) *measure.SCTs {
	out := &measure.SCTs{}
	if logs != nil {
		out.ListAgeDays = max(0, int(now.Sub(logs.Date)/(24*time.Hour)))
	}
	if len(chain) == 0 {
		return nil
	}
	leaf := chain[0]
	weigh := func(sct []byte, entry func() []byte) {
		switch logs.verify(sct, entry) {
		case sctGood:
			out.Verified++
		case sctFalse:
			out.False++
		}
	}
	for _, sct := range embedded(leaf) {
		out.Embedded++
		weigh(sct, func() []byte { return precertEntry(chain[0], issuer) })
	}
	for _, sct := range beside[:min(len(beside), maxSCTs)] {
		out.Beside++
		weigh(sct, func() []byte {
			return append([]byte{0, 0, byte(len(leaf.Raw) >> 16), byte(len(leaf.Raw) >> 8), byte(len(leaf.Raw))}, leaf.Raw...)
		})
	}
	return out
}

// embedded are the SCTs in a certificate.
func embedded(leaf *x509.Certificate) (out [][]byte) {
	for _, e := range leaf.Extensions {
		if !e.Id.Equal(sctExtension) {
			continue
		}
		var list []byte
		if rest, err := asn1.Unmarshal(e.Value, &list); err != nil || len(rest) > 0 || len(list) < 2 || int(binary.BigEndian.Uint16(list)) != len(list)-2 {
			return nil
		}
		for list = list[2:]; len(list) >= 2 && len(out) < maxSCTs; {
			n := int(binary.BigEndian.Uint16(list))
			if n > len(list)-2 {
				return nil
			}
			out, list = append(out, list[2:2+n]), list[2+n:]
		}
	}
	return out
}

// precertEntry is what a log signed before the SCTs were put in: the type, the
// hash of the issuer's key and the leaf without them (RFC 6962, 3.2). nil if
// the issuer is not known.
func precertEntry(leaf, issuer *x509.Certificate) []byte {
	tbs := withoutSCTs(leaf.RawTBSCertificate)
	if issuer == nil || tbs == nil {
		return nil
	}
	key := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	out := append([]byte{0, 1}, key[:]...)
	return append(append(out, byte(len(tbs)>>16), byte(len(tbs)>>8), byte(len(tbs))), tbs...)
}

// withoutSCTs takes the extension with SCTs out of a TBSCertificate; nil if it
// cannot be read.
func withoutSCTs(tbs []byte) []byte {
	elements, ok := sequence(tbs)
	if !ok || len(elements) == 0 {
		return nil
	}
	last := &elements[len(elements)-1]
	if last.Class != asn1.ClassContextSpecific || last.Tag != 3 {
		return nil
	}
	extensions, ok := sequence(last.Bytes)
	if !ok {
		return nil
	}
	var kept []byte
	for _, e := range extensions {
		var id asn1.ObjectIdentifier
		if _, err := asn1.Unmarshal(e.Bytes, &id); err != nil {
			return nil
		}
		if !id.Equal(sctExtension) {
			kept = append(kept, e.FullBytes...)
		}
	}
	list, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: kept})
	if err != nil {
		return nil
	}
	wrapped, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 3, IsCompound: true, Bytes: list})
	if err != nil {
		return nil
	}
	var body []byte
	for _, e := range elements[:len(elements)-1] {
		body = append(body, e.FullBytes...)
	}
	out, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(body, wrapped...)})
	if err != nil {
		return nil
	}
	return out
}

// sequence are the elements of one SEQUENCE and nothing after it.
func sequence(der []byte) (out []asn1.RawValue, ok bool) {
	var outer asn1.RawValue
	rest, err := asn1.Unmarshal(der, &outer)
	if err != nil || len(rest) > 0 || outer.Class != asn1.ClassUniversal || outer.Tag != asn1.TagSequence {
		return nil, false
	}
	for b := outer.Bytes; len(b) > 0; {
		var e asn1.RawValue
		if b, err = asn1.Unmarshal(b, &e); err != nil {
			return nil, false
		}
		out = append(out, e)
	}
	return out, true
}

// What can be said of an SCT.
const (
	sctUnknown = iota // its log is not on the list, or there is none
	sctGood
	sctFalse // its log is known and did not sign this
)

// verify checks one SCT (RFC 6962, 3.2). entry gives the end of what was
// signed, from the entry's type on, and nil if it cannot be known.
func (l *CTLogs) verify(sct []byte, entry func() []byte) int {
	// Version, log, time, extensions, then hash, algorithm and signature.
	const head = 1 + sha256.Size + 8 + 2
	if l == nil || len(sct) < head || sct[0] != 0 {
		return sctUnknown
	}
	key := l.logs[[sha256.Size]byte(sct[1:])]
	n := int(binary.BigEndian.Uint16(sct[head-2:]))
	if key == nil || len(sct) < head+n+4 {
		return sctUnknown
	}
	extensions, rest := sct[head:head+n], sct[head+n:]
	signature := rest[4:]
	if rest[0] != 4 || int(binary.BigEndian.Uint16(rest[2:])) != len(signature) { // SHA-256
		return sctUnknown
	}
	e := entry()
	if e == nil {
		return sctUnknown
	}
	signed := append([]byte{0, 0}, sct[1+sha256.Size:head-2]...)
	signed = append(signed, e...)
	signed = append(binary.BigEndian.AppendUint16(signed, uint16(n)), extensions...)
	sum := sha256.Sum256(signed)
	good := false
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(k, sum[:], signature)
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], signature) == nil
	}
	if good {
		return sctGood
	}
	return sctFalse
}
