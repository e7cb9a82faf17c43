package exposure

import (
	"bytes"
	"strings"
	"testing"

	"govah/packet"
)

// BenchmarkCount is how fast a file in memory is counted: downloads, pages and
// handshakes, 600 bytes a packet on average. Beside it: reading the same packets
// and parsing their headers.
func BenchmarkCount(b *testing.B) {
	t := conversations(2000)
	for range 60 {
		c := t.open(own4, 443).says(hello("big.example", true, 1400))
		c.hears(strings.Repeat("x", 200_000))
		d := t.open(own6, 80).says("GET / HTTP/1.1\r\nHost: big.example\r\n\r\n")
		d.hears("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000))
	}
	file := t.file(b)
	b.Run("exposure", func(b *testing.B) {
		b.SetBytes(int64(len(file)))
		for b.Loop() {
			if _, err := Count(b.Context(), bytes.NewReader(file), own); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(file))/float64(len(t.packets)), "B/packet")
	})
	b.Run("headers", func(b *testing.B) {
		b.SetBytes(int64(len(file)))
		for b.Loop() {
			r, err := packet.NewCaptureReader(bytes.NewReader(file))
			if err != nil {
				b.Fatal(err)
			}
			for {
				_, raw, err := r.Next()
				if err != nil {
					break
				}
				if _, err := packet.Parse(raw); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
