package evidence

import (
	"bytes"
	"net/netip"
	"testing"
)

// FuzzScan: whatever a document holds, the search ends, and what it finds is
// in the document and not in what is withheld.
func FuzzScan(f *testing.F) {
	s := quietScene()
	f.Add(s.capture(f), 30, 300)
	f.Add(s.lines(f), 0, 0)
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: deflate\r\n\r\n5\r\n10.3.\r\n3\r\n4.5\r\n0\r\n\r\n"), 3, 9)
	f.Add([]byte(`\u0031\x30%2e3=2E4&#46;5 [64:ff9b::10.3.4.5]:80 "name":"X-Real-IP","value":"10.3.4.5" MTAuMy40LjU 31 30 2e 33 2e 34 2e 35`), 0, 1)
	f.Add([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x33\x34\xd0\x33\xd6\x33\xd1\x33\x05\x00"), 0, 0)
	ids := benchmarkIdentifiers()
	scanner := NewScanner(ids)
	f.Fuzz(func(t *testing.T, data []byte, from, to int) {
		d := &Document{Name: "d", Data: data, Client: true, Time: true}
		if from >= 0 && from < to && to <= len(data) {
			d.Withheld = []Range{{from, to}}
			clear(data[from:to])
		}
		for _, l := range scanner.Scan(d) {
			if l.From < 0 || l.From >= l.To || l.To > len(data) || l.Identifier < -1 || l.Identifier >= len(ids) {
				t.Fatalf("%+v of %d bytes", l, len(data))
			}
			if len(d.Withheld) > 0 && l.From >= from && l.To <= to {
				t.Fatalf("%+v is withheld", l)
			}
		}
	})
}

// FuzzParse6: what is read as an IPv6 address is one, with the value that
// net/netip gives it.
func FuzzParse6(f *testing.F) {
	for _, s := range []string{"::1:2", "2001:db8::1", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "1::2:3.4.5.6x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || hexValue[b[0]] < 0 && !bytes.HasPrefix(b, []byte("::")) {
			return
		}
		a, end, ok := parse6(b, 0)
		if !ok {
			return
		}
		if bytes.IndexByte(b[:end], '.') >= 0 {
			return // IPv4 at the end, which may have zeroes before its numbers
		}
		want, err := netip.ParseAddr(string(b[:end]))
		if err != nil || want.WithZone("") != a {
			t.Fatalf("%q: %v, net/netip: %v %v", b[:end], a, want, err)
		}
	})
}

// FuzzRedact: whatever is sealed, lines or a capture, what is released
// verifies, is not larger, and is not redacted further.
func FuzzRedact(f *testing.F) {
	s := quietScene()
	s.say = func(string) string { return "from 10.3.4.5, ip: 198.18.7.9" }
	f.Add(s.lines(f), []byte{}, uint16(0xffff))
	f.Add([]byte("{}\n"), s.capture(f), uint16(4|8|32))
	f.Add([]byte(`{"type":"end","schema":1,"run":"10.3.4.5"}`), []byte{}, uint16(0))
	sig, vkey := signer(f, 1)
	f.Fuzz(func(t *testing.T, lines, capture []byte, which uint16) {
		data, err := Seal(Sealing{Measurements: lines, Packets: capture, Signer: sig, Key: vkey, secret: []byte("of the salts")})
		if err != nil {
			return
		}
		r := Redaction{Also: benchmarkIdentifiers()}
		for _, c := range Classes()[1:] {
			if which>>c&1 == 1 {
				r.Classes = append(r.Classes, c)
			}
		}
		out, err := opens(t, data).Redact(r)
		if err == nil && out.Bundle != nil {
			released(t, opens(t, data), r)
		}
	})
}
