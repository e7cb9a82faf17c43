package wire

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"
)

// FuzzSCT: whatever stands in the place of SCTs, of a certificate to be, or of
// a list of logs is read within bounds, and taking the SCTs out twice is taking
// them out once.
func FuzzSCT(f *testing.F) {
	f.Add([]byte{0, 4, 0, 2, 1, 2}, []byte{0x30, 0x06, 0xa3, 0x04, 0x30, 0x02, 0x30, 0x00}, []byte(`{"operators":[]}`))
	f.Add([]byte{0, 1}, []byte{0x30, 0x80}, []byte("{"))
	f.Fuzz(func(t *testing.T, list, tbs, logs []byte) {
		value, err := asn1.Marshal(list)
		if err != nil {
			return
		}
		leaf := &x509.Certificate{Extensions: []pkix.Extension{{Id: sctExtension, Value: value}}, RawTBSCertificate: tbs}
		scts := embedded(leaf)
		if len(scts) > maxSCTs {
			t.Fatalf("%d SCTs", len(scts))
		}
		known, err := ParseCTLogs(logs)
		if err != nil {
			known = &CTLogs{Date: time.Unix(0, 0)}
		}
		if n := certificateTimestamps([]*x509.Certificate{leaf}, leaf, [][]byte{list}, known, time.Now()); n.Verified+n.False > n.Embedded+n.Beside {
			t.Fatalf("%+v", n)
		}
		if once := withoutSCTs(tbs); once != nil && !bytes.Equal(withoutSCTs(once), once) {
			t.Fatalf("%x", once)
		}
	})
}
