package receipt

import (
	"encoding/json"
	"testing"

	"govah/measure"
)

// BenchmarkReceipt makes and checks the receipt of twelve observations.
func BenchmarkReceipt(b *testing.B) {
	key, _, err := NewKey()
	if err != nil {
		b.Fatal(err)
	}
	var list []measure.Observation
	for i := range 12 {
		o := measure.Observation{ID: "h" + string(rune('a'+i)), Step: measure.StepTLS, Remote: "192.0.2.7:443", SNI: "www.example.org", TookUS: 12345,
			TLS: &measure.TLS{Version: "TLSv1.3", Cipher: "TLS_AES_128_GCM_SHA256", ALPN: "h2", Subject: "CN=www.example.org", Issuer: "CN=Some CA", Names: []string{"www.example.org", "example.org"}}}
		o.ID = "h" + string(rune('0'+i%10)) + string(rune('0'+i/10))
		list = append(list, o)
	}
	var size int
	for b.Loop() {
		text, err := key.Sign(at, 64500, []byte("{}"), nonce, list)
		if err != nil {
			b.Fatal(err)
		}
		r, err := Open(text, key.Public())
		if err != nil {
			b.Fatal(err)
		}
		for _, o := range list {
			if !r.Saw(nonce, o) {
				b.Fatal(o.ID)
			}
		}
		kept, _ := json.Marshal(measure.Receipt{Note: text, Key: key.Public(), Request: "{}"})
		size = len(kept)
	}
	b.ReportMetric(float64(size), "B/receipt")
}
