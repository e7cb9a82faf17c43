package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// readableText is n bytes as a bundle's files have them: lines of JSON, with
// addresses, numbers, digests, and bodies in base64.
func readableText(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	body := make([]byte, 1500)
	for b.Len() < n {
		fmt.Fprintf(&b, `{"id":"o%d","step":"tls","role":"test","remote":"192.0.%d.%d:443","sni":"host%d.example.org","start_us":%d,"took_us":%d,"failure":"connection_reset","sha256":"%x"}`+"\n",
			r.IntN(9999), r.IntN(250), r.IntN(250), r.IntN(999), r.IntN(1e8), r.IntN(1e6), r.Uint64())
		if r.IntN(8) == 0 {
			for i := range body {
				body[i] = byte(r.Uint32())
			}
			fmt.Fprintf(&b, `{"type":"body","data":"%s"}`+"\n", base64.StdEncoding.EncodeToString(body))
		}
	}
	return b.Bytes()[:n]
}

func benchmarkIdentifiers() (ids []Identifier) {
	for _, s := range []string{"10.3.4.5", "100.64.201.7", "198.18.7.9", "2001:db8:1:2:3c4d:15ff:fe26:3748", "02:42:ac:11:00:02", "Cafe Naderi 5G", "amir-laptop"} {
		id, err := TextIdentifier(s, "test")
		if err != nil {
			panic(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// BenchmarkScan gives the time of a search through 10 MB as a multiple of one
// SHA-256 and of one bytes.Contains over them, and the time per byte as a
// multiple of that of 1 MB: about 1, it is linear. Runs are interleaved; the
// short ones are repeated, so that a busy machine interrupts all alike.
func BenchmarkScan(b *testing.B) {
	const mega, often = 1 << 20, 16
	ids := benchmarkIdentifiers()
	large := &Document{Name: "d", Data: readableText(10 * mega), Client: true}
	small := &Document{Name: "d", Data: large.Data[:mega], Client: true}
	var all, tenth, hash, contains float64
	for b.Loop() {
		t0 := nanos()
		NewScanner(ids).Scan(large)
		t1 := nanos()
		for range 10 {
			NewScanner(ids).Scan(small)
		}
		t2 := nanos()
		for range often {
			sha256.Sum256(large.Data)
		}
		t3 := nanos()
		for range often {
			bytes.Contains(large.Data, []byte("198.18.7.9"))
		}
		t4 := nanos()
		all, tenth, hash, contains = all+t1-t0, tenth+t2-t1, hash+(t3-t2)/often, contains+(t4-t3)/often
	}
	b.ReportMetric(all/1e9/float64(b.N), "s/10MB")
	b.ReportMetric(all/hash, "×SHA-256")
	b.ReportMetric(all/contains, "×bytes.Contains")
	b.ReportMetric(all/tenth, "×per-byte-of-1MB")
}

// TestScanIsLinear: what is made to cost most, nested and repeated encodings
// and streams that begin everywhere, stays within the bound.
func TestScanIsLinear(t *testing.T) {
	ids := []Identifier{{Kind: KindAddress, Addr: netip.MustParseAddr("198.18.7.9")}}
	nested := bytes.Repeat([]byte("MTk4LjE4Ljcu"), 1<<10)
	for range 6 {
		nested = []byte(base64.StdEncoding.EncodeToString(nested))
	}
	for name, unit := range map[string]string{
		"gzip heads": "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", "zlib heads": "\x78\x9c\x01", "colons": ":a", "IPv6": "1:2:3:4:5:6:7:8:", "digits": "1.1.1.",
		"escapes": `%41\u0041`, "hex": "0x0a, ", "base64": string(nested), "HTTP": "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "wide": "a\x00",
		"headers": "\r\n\r\n", "claims": "\nvia:", "letters": "a",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := bytes.Repeat([]byte(unit), max(1, 1<<20/len(unit)))
			s := NewScanner(ids)
			s.Scan(&Document{Name: name, Data: b, Client: true})
			// Far below the bound, which is there for what nobody thought of.
			if used := decoded*int64(len(b)) + 8*spare - s.budget; used > 32*int64(len(b)) {
				t.Errorf("%d bytes were read of a document of %d", used, len(b))
			}
		})
	}
}
