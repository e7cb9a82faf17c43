package evidence

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"govah/measure"
	"govah/packet"
)

// scene is a bundle's contents with something written into every place of
// them that can hold it.
type scene struct {
	client, server, resolver netip.Addr
	say                      func(place string) string // for text that came from the network
	carry                    func(place string) []byte // for bytes that did
	page                     []byte                    // whose digest the measurement has; nil: that of carry("body")
}

const scenePort = 40123

func (s *scene) lines(t testing.TB) []byte {
	page := s.carry("body")
	sum := sha256.Sum256(page)
	fetched := sum
	if s.page != nil {
		fetched = sha256.Sum256(s.page)
	}
	m := measure.Measurement{Type: "measurement", Schema: 1, Run: "r1", ID: "m1", Target: "https://example.org/", Started: "2026-11-28T04:00:01.204113Z",
		Vantage: measure.Vantage{ASN: 64496, Country: "IR", Network: "Example Net", Link: "wifi", ClockOffsetMS: 12}, Screened: 1, Complete: true,
		Observations: []measure.Observation{
			{ID: "o1", Step: "tls", Role: "test", Remote: netip.AddrPortFrom(s.server, 443).String(), ASN: 64500, SNI: "example.org", StartUS: 41210, TookUS: 40122, Sent: 1790,
				Failure: measure.ConnectionReset, Detail: s.say("detail"),
				TLS:      &measure.TLS{Subject: s.say("subject"), Issuer: s.say("issuer"), Names: []string{"example.org", s.say("name")}},
				Greeting: &measure.Greeting{Text: s.say("greeting")}},
			{ID: "o2", Step: "http", Role: "test", Remote: netip.AddrPortFrom(s.server, 80).String(), URL: "http://example.org/", StartUS: 51210, TookUS: 1122, Sent: 100, Received: 500,
				HTTP: &measure.HTTP{Method: "GET", Status: 403, Location: s.say("location"), Title: s.say("title"), BodyBytes: 400, BodySHA256: hex.EncodeToString(fetched[:]), Simhash: "0123456789abcdef",
					Headers: []measure.Header{{Name: "Server", Value: s.say("header")}, {Name: s.say("header name"), Value: "1"}, {Name: "Set-Cookie", Value: "session=fedcba9876543210"}},
					Seen:    &measure.Head{Line: s.say("request line"), Headers: []measure.Header{{Name: "Via", Value: s.say("via")}}}}},
			{ID: "o3", Step: "dns", Role: "test", Remote: netip.AddrPortFrom(s.resolver, 53).String(), StartUS: 1, TookUS: 2,
				DNS: &measure.DNS{Name: "example.org", Type: "A", Transport: "udp", Resolver: s.resolver.String(),
					Replies: []measure.DNSReply{{Rcode: "NOERROR", Answers: []measure.DNSAnswer{{Type: "A", Value: s.server.String()}, {Type: "TXT", Value: s.say("answer")}}}}}},
			{ID: "o4", Step: "path", Role: "test", StartUS: 3, TookUS: 4, Failure: measure.Failure(measure.UnknownFailurePrefix + s.say("failure")), Path: &measure.Path{Probe: "syn", Outcome: "expired", LocalPort: scenePort}},
		}}
	var b bytes.Buffer
	for _, v := range []any{
		measure.Run{Type: "run", Schema: 1, Run: "r1", Tool: "govah", Version: "0.1", Started: "2026-11-28T04:00:00Z", Targets: 1},
		m,
		measure.Body{Type: "body", Schema: 1, Run: "r1", SHA256: hex.EncodeToString(sum[:]), Kind: "body", Data: page},
		measure.End{Type: "end", Schema: 1, Run: "r1", Ended: "2026-11-28T04:00:09Z", Measurements: 1},
	} {
		line, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	b.WriteString(`{"test_name":"of another program","` + "note\":" + string(must(json.Marshal(s.say("other program")))) + "}\n")
	return b.Bytes()
}

func must2(id Identifier, ok bool) Identifier {
	if !ok {
		panic("no identifier")
	}
	return id
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// capture is of an exchange with the server in the clear, split so that what
// is carried crosses from one packet to the next, of a DNS message with the
// client's subnet, and of ICMP errors that quote the client.
func (s *scene) capture(t testing.TB) []byte {
	var b bytes.Buffer
	w, err := packet.NewCaptureWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	own, far, res := netip.AddrPortFrom(s.client, scenePort), netip.AddrPortFrom(s.server, 80), netip.AddrPortFrom(s.resolver, 53)
	at := time.Unix(1_790_000_000, 0)
	write := func(raw []byte, d packet.Direction) {
		at = at.Add(time.Millisecond)
		if err := w.Write(at, raw, d, "of o1"); err != nil {
			t.Fatal(err)
		}
	}
	options := packet.TCPOptions{MSS: 1460, Timestamps: true, TSVal: 987654, TSEcr: 0}.Marshal()
	write(packet.BuildTCP(packet.Segment{Src: own, Dst: far, Seq: 99, Flags: packet.SYN, TTL: 64, Window: 64240, ID: 777, Options: options}), packet.Outbound)
	write(packet.BuildTCP(packet.Segment{Src: far, Dst: own, Seq: 999, Ack: 100, Flags: packet.SYN | packet.ACK, TTL: 50, Window: 65535, Options: options}), packet.Inbound)
	request := packet.BuildTCP(packet.Segment{Src: own, Dst: far, Seq: 100, Ack: 1000, Flags: packet.PSH | packet.ACK, TTL: 2, Window: 502, ID: 778, Payload: []byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")})
	write(request, packet.Outbound)
	seq := uint32(1000)
	for _, place := range []string{"page", "split", "compressed"} {
		body := s.carry(place)
		if place == "compressed" {
			var z bytes.Buffer
			g := gzip.NewWriter(&z)
			g.Write([]byte("words before it, words before it, words before it "))
			g.Write(body)
			g.Close()
			body = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", z.Len(), z.Bytes())
		}
		n := len(body)
		if place != "page" {
			n = 7
		}
		for len(body) > 0 {
			k := min(n, len(body))
			write(packet.BuildTCP(packet.Segment{Src: far, Dst: own, Seq: seq, Ack: 200, Flags: packet.ACK, TTL: 50, Window: 65535, Payload: body[:k]}), packet.Inbound)
			seq, body = seq+uint32(k), body[k:]
		}
	}
	router := netip.MustParseAddr("198.18.0.1")
	if s.client.Is6() {
		router = netip.MustParseAddr("2001:db8:5::1")
	}
	e, err := packet.BuildICMPError(packet.TimeExceeded, router, request, 0)
	if err != nil {
		t.Fatal(err)
	}
	write(e, packet.Inbound)
	// A query whose last byte is 1 and has the option of RFC 7871.
	query := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x07example\x03org\x00\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x0b\x00\x08\x00\x07\x00\x01\x18\x00")
	a := s.client.AsSlice()
	query = append(query, a[:3]...)
	write(packet.BuildUDP(own, res, 64, 5, query), packet.Outbound)
	write(packet.BuildUDP(res, own, 60, 6, s.carry("DNS")), packet.Inbound)
	return b.Bytes()
}

func (s *scene) seal(t testing.TB) *Bundle {
	t.Helper()
	sig, vkey := signer(t, 1)
	data, err := Seal(Sealing{Measurements: s.lines(t), Packets: s.capture(t), Own: []netip.Addr{s.client}, Report: []byte("<p>" + s.say("report")),
		About: About{Version: "0.1"}, Custody: []Event{{Event: Collected, By: "Sara N.", Note: "at home"}}, Signer: sig, Key: vkey, secret: bytes.Repeat([]byte{9}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	return opens(t, data)
}

func quietScene() *scene {
	return &scene{client: netip.MustParseAddr("10.3.4.5"), server: netip.MustParseAddr("203.0.113.80"), resolver: netip.MustParseAddr("198.51.100.53"),
		say: func(string) string { return "nothing" }, carry: func(string) []byte { return []byte("nothing that is of anybody") }}
}

// released redacts, and holds what comes out to what every redaction must be.
func released(t testing.TB, b *Bundle, r Redaction) (*Redacted, *Bundle) {
	t.Helper()
	out, err := b.Redact(r)
	if err != nil {
		t.Fatal(err)
	}
	if out.Bundle == nil {
		t.Fatalf("not released: %+v", out.Left)
	}
	data := bytesOf(t, out.Bundle)
	// What was redacted before was larger once.
	if limit, err := b.least(); err != nil || len(data) > limit {
		t.Fatalf("%d bytes redacted, %d before", len(data), limit)
	}
	c := opens(t, data)
	if c.Entry != b.Entry || c.Root != b.Root || !bytes.Equal(c.note, b.note) {
		t.Fatal("the note changed")
	}
	if n := c.Withheld(); n != (Counts{}) && n[Rendering] != c.Counts[Rendering] {
		t.Fatalf("%v: a rendering of what is withheld is left", n)
	}
	if c.Withheld() != out.Counts {
		t.Fatalf("%v withheld, %v said", c.Withheld(), out.Counts)
	}
	again, err := c.Redact(r)
	if err != nil || again.Bundle == nil || !bytes.Equal(bytesOf(t, again.Bundle), data) {
		t.Fatalf("redacted again it is another file: %v", err)
	}
	return out, c
}

// TestRedactPlanted: an identifier is written into every place of a bundle
// that content of others can come to, each time in another way; none is left,
// and it is the client's address that the packets tell, or what was named.
func TestRedactPlanted(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		id := drawIdentifier(rt)
		var forms [][2]any // name, bytes
		for _, w := range writings {
			in := w.write(id)
			if in == nil || w.name == "IPv6, interface identifier" && !identifies(b6(id)) {
				continue
			}
			for _, wrap := range wrappings {
				if strings.Contains(wrap.name, "HTTP") {
					continue // stands for itself, not in the middle of something
				}
				forms = append(forms, [2]any{w.name + " / " + wrap.name, wrap.wrap(rt, in)})
			}
		}
		next, planted := 0, map[string][]byte{}
		take := func(text bool) []byte {
			for {
				f := forms[next%len(forms)]
				next++
				if b := f[1].([]byte); !text || ascii(b) {
					planted[f[0].(string)] = b
					return b
				}
			}
		}
		start := rapid.IntRange(0, len(forms)-1).Draw(rt, "first form")
		next = start
		s := quietScene()
		places := map[string]bool{}
		s.say = func(p string) string {
			places[p] = true
			return "<" + string(take(true)) + ">"
		}
		s.carry = func(p string) []byte {
			var b []byte
			for i := range 6 {
				places[fmt.Sprint(p, i)] = true
				b = append(append(append(b, "\n..\n"...), take(false)...), "\n..\n"...)
			}
			return b
		}
		r := Redaction{Classes: DefaultWithheld, Also: []Identifier{id}}
		if id.Kind == KindAddress && id.Addr.Is4() {
			s.client, r.Also = id.Addr, nil // the packets tell it
		}
		if slices.Contains([]netip.Addr{s.server, s.resolver}, s.client) {
			return
		}
		b := s.seal(t)
		if len(places) < 30 || len(planted) < 30 {
			rt.Fatalf("%d places, %d ways of writing", len(places), len(planted))
		}
		_, c := released(t, b, r)
		for _, f := range c.Files {
			for name, p := range planted {
				if len(p) >= 4 && bytes.Contains(f.Data, p) {
					rt.Errorf("%s: %s is left: %q", f.Name, name, p)
				}
			}
		}
		// What was measured is still there. (Single values can go by chance:
		// three letters stand in much that is decoded.)
		for _, left := range []string{"example.org", "connection_reset"} {
			if !bytes.Contains(c.File(MeasurementsName).Data, []byte(left)) {
				rt.Errorf("%s was not to be withheld", left)
			}
		}
	})
}

// TestRedactCommutes: classes withheld in any order, or together, give the
// same file.
func TestRedactCommutes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := quietScene().seal(t)
		all := Classes()[1:]
		x := rapid.SliceOfDistinct(rapid.SampledFrom(all), func(c Class) Class { return c }).Draw(rt, "first")
		y := rapid.SliceOfDistinct(rapid.SampledFrom(all), func(c Class) Class { return c }).Draw(rt, "second")
		one := func(b *Bundle, c []Class) *Bundle {
			_, out := released(t, b, Redaction{Classes: c})
			return out
		}
		xy, yx, both := one(one(b, x), y), one(one(b, y), x), one(b, slices.Concat(x, y))
		if !bytes.Equal(bytesOf(t, xy), bytesOf(t, yx)) || !bytes.Equal(bytesOf(t, xy), bytesOf(t, both)) {
			rt.Errorf("%v and %v: the order shows", x, y)
		}
		if len(bytesOf(t, xy)) > len(bytesOf(t, b)) {
			rt.Errorf("%v and %v: %d bytes, %d full", x, y, len(bytesOf(t, xy)), len(bytesOf(t, b)))
		}
	})
}

// TestRedactLearns: the address behind a NAT, which no packet of the device
// has, is known by a page and a header that say it, and then found wherever it
// stands; what is measured is not taken for it.
func TestRedactLearns(t *testing.T) {
	public := "93.184.7.99"
	s := quietScene()
	s.say = func(p string) string {
		switch p {
		case "title":
			return "Your IP address: " + public
		case "answer":
			return "edns0-client-subnet 93.184.7.0/24"
		case "subject":
			return "CN=nobody knows " + public
		case "via":
			return "client " + s.server.String()
		}
		return "nothing"
	}
	out, c := released(t, s.seal(t), Redaction{Classes: DefaultWithheld})
	text := string(c.File(MeasurementsName).Data)
	for _, gone := range []string{public, "93.184.7.0", "fedcba9876543210", "40123", "10.3.4.5"} {
		if strings.Contains(text, gone) {
			t.Errorf("%s is left", gone)
		}
	}
	if !strings.Contains(text, s.server.String()) {
		t.Error("the server is gone")
	}
	for l := range strings.Lines(text) {
		if !json.Valid([]byte(l)) {
			t.Errorf("no JSON any more: %s", l)
		}
	}
	if len(out.Widened) == 0 {
		t.Error("it is not said what was withheld besides")
	}
}

// TestRedactLearnsFromTheKernel: where no packets could be captured, the
// device's address is in what the kernel told.
func TestRedactLearnsFromTheKernel(t *testing.T) {
	s := quietScene()
	s.say = func(p string) string {
		if p == "detail" {
			return "read tcp 10.3.4.5:40123->203.0.113.80:443: connection reset by peer"
		}
		return "nothing"
	}
	sig, vkey := signer(t, 1)
	data, err := Seal(Sealing{Measurements: s.lines(t), Connections: []byte(`{"type":"connection","schema":1,"run":"r1","source":"kernel","transport":"tcp","local":"10.3.4.5:40123","remote":"203.0.113.80:443","opened":"2026-11-28T04:00:01.204113Z","took_us":1,"sent":1,"received":1}` + "\n"),
		Signer: sig, Key: vkey})
	if err != nil {
		t.Fatal(err)
	}
	out, c := released(t, opens(t, data), Redaction{Classes: DefaultWithheld})
	for _, f := range c.Files {
		if bytes.Contains(f.Data, []byte("10.3.4.5")) || bytes.Contains(f.Data, []byte("40123")) {
			t.Errorf("%s: %s", f.Name, f.Data)
		}
	}
	if len(out.Searched) == 0 || out.Searched[0].Addr != s.client {
		t.Errorf("%+v", out.Searched)
	}
}

// TestRedactDigests: the digest of a page that prints the address goes with
// it, for who has the page could try all addresses; so does its similarity
// hash. That of another page stays.
func TestRedactDigests(t *testing.T) {
	for _, prints := range []bool{false, true} {
		s := quietScene()
		page := []byte("HTTP/1.1 403 Forbidden\r\nContent-Length: 37\r\n\r\n<p>access is denied from 9.9.9.9.</p>")
		if prints {
			page = bytes.ReplaceAll(page, []byte("9.9.9.9"), []byte("10.3.4."))
			page = bytes.ReplaceAll(page, []byte("10.3.4.."), []byte("10.3.4.5"))
		}
		s.carry = func(p string) []byte {
			switch p {
			case "body":
				return page[bytes.Index(page, []byte("<p>")):]
			case "page":
				return page
			}
			return []byte("nothing")
		}
		for _, classes := range [][]Class{DefaultWithheld, {Client, Foreign, Payload}} {
			_, c := released(t, s.seal(t), Redaction{Classes: classes})
			sum := sha256.Sum256(page[bytes.Index(page, []byte("<p>")):])
			text := c.File(MeasurementsName).Data
			if got := bytes.Contains(text, []byte(hex.EncodeToString(sum[:]))); got == prints {
				t.Errorf("prints %v, withheld %v: the digest is there: %v", prints, classes, got)
			}
			if got := bytes.Contains(text, []byte("0123456789abcdef")); got == prints {
				t.Errorf("prints %v, withheld %v: the similarity hash is there: %v", prints, classes, got)
			}
		}
	}
}

// TestRedactDigestsOfTraffic: the same where the page was not kept but is in
// the packets, compressed, or in chunks, in the clear.
func TestRedactDigestsOfTraffic(t *testing.T) {
	for _, place := range []string{"compressed", "split"} {
		for _, prints := range []bool{false, true} {
			s := quietScene()
			page := "access is denied from 10.3.9.5 and elsewhere"
			if prints {
				page = "access is denied from 10.3.4.5 and elsewhere"
			}
			s.carry = func(p string) []byte {
				switch {
				case p != place:
					return []byte("nothing")
				case p == "split":
					return fmt.Appendf(nil, "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", page[:5], len(page)-5, page[5:])
				}
				return []byte(page)
			}
			s.page = []byte(page)
			if place == "compressed" {
				s.page = append([]byte("words before it, words before it, words before it "), page...)
			}
			_, c := released(t, s.seal(t), Redaction{Classes: DefaultWithheld})
			sum := sha256.Sum256(s.page)
			if got := bytes.Contains(c.File(MeasurementsName).Data, []byte(hex.EncodeToString(sum[:]))); got == prints {
				t.Errorf("%s, prints %v: the digest is there: %v", place, prints, got)
			}
		}
	}
}

// pagesScene is of n pages that were not kept, each with its digest, and of
// the packets that carried them as answer makes them.
func pagesScene(t testing.TB, n int, answer func(page []byte) []byte) (b *Bundle, digests []string) {
	t.Helper()
	s := quietScene()
	var lines, capture bytes.Buffer
	w, err := packet.NewCaptureWriter(&capture)
	if err != nil {
		t.Fatal(err)
	}
	own, far := netip.AddrPortFrom(s.client, scenePort), netip.AddrPortFrom(s.server, 80)
	seq := uint32(1000)
	for i := range n {
		page := fmt.Appendf(nil, "<p>page %d of the words that stand on every page\r\n\r\n is denied from %v", i, s.client)
		sum := sha256.Sum256(page)
		digests = append(digests, hex.EncodeToString(sum[:]))
		line, err := json.Marshal(measure.Measurement{Type: "measurement", Schema: 1, Run: "r1", ID: fmt.Sprint("m", i), Target: "http://example.org/", Observations: []measure.Observation{
			{ID: "o1", Step: "http", Role: "test", HTTP: &measure.HTTP{Method: "GET", Status: 403, BodyBytes: int64(len(page)), BodySHA256: digests[i], Simhash: "0123456789abcdef"}}}})
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(line, '\n'))
		for body := range slices.Chunk(answer(page), 1400) {
			raw := packet.BuildTCP(packet.Segment{Src: far, Dst: own, Seq: seq, Flags: packet.ACK, TTL: 50, Payload: body})
			if err := w.Write(time.Unix(1_790_000_000, 0), raw, packet.Inbound, ""); err != nil {
				t.Fatal(err)
			}
			seq += uint32(len(body))
		}
	}
	sig, vkey := signer(t, 1)
	data, err := Seal(Sealing{Measurements: lines.Bytes(), Packets: capture.Bytes(), Own: []netip.Addr{s.client}, Signer: sig, Key: vkey})
	if err != nil {
		t.Fatal(err)
	}
	return opens(t, data), digests
}

func answered(header string, body []byte) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 403 No\r\n%sContent-Length: %d\r\n\r\n%s", header, len(body), body)
}

// TestRedactDigestsOfManyPages: however many pages print the address, the
// digest of each goes; also of one in a single packet, and of one that cannot
// be searched.
func TestRedactDigestsOfManyPages(t *testing.T) {
	for name, answer := range map[string]func(page []byte) []byte{
		"plain": func(page []byte) []byte { return answered("", page) },
		"gzip": func(page []byte) []byte {
			var z bytes.Buffer
			g := gzip.NewWriter(&z)
			g.Write(page)
			g.Close()
			return answered("Content-Encoding: gzip\r\n", z.Bytes())
		},
		"chunks": func(page []byte) []byte {
			return fmt.Appendf(nil, "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", page[:5], len(page)-5, page[5:])
		},
		"not read": func(page []byte) []byte {
			packed := bytes.Clone(page)
			for i := range packed {
				packed[i] ^= 0x55
			}
			return answered("Content-Encoding: br\r\n", packed)
		},
	} {
		for _, n := range []int{1, 30} {
			b, digests := pagesScene(t, n, answer)
			_, c := released(t, b, Redaction{Classes: DefaultWithheld})
			left, text := 0, c.File(MeasurementsName).Data
			for _, d := range digests {
				if bytes.Contains(text, []byte(d)) {
					left++
				}
			}
			if left > 0 || bytes.Contains(text, []byte("0123456789abcdef")) {
				t.Errorf("%s: %d of %d digests are left", name, left, n)
			}
		}
	}
}

// TestDigestBound: where there are more contents than are hashed, that is said.
func TestDigestBound(t *testing.T) {
	s := NewScanner([]Identifier{must2(AddressIdentifier(netip.MustParseAddr("10.3.4.5"), "test"))})
	s.Scan(&Document{Name: "d", Data: bytes.Repeat([]byte("%20\r\n\r\n 10.3.4.5 "), 3000)})
	if !s.anyDigest || s.hashed > 0 {
		t.Errorf("%d digests, %d bytes left to hash", len(s.sums), s.hashed)
	}
}

// repainted gives the segments of a file in which value is of another class.
func repainted(f File, value []byte, c Class) (segments []Segment) {
	var painted []Class
	for _, g := range f.Segments {
		painted = append(painted, slices.Repeat([]Class{g.Class}, g.Length)...)
	}
	at := bytes.Index(f.Data, value)
	copy(painted[at:], slices.Repeat([]Class{c}, len(value)))
	for i, c := range painted {
		if i == 0 || c != painted[i-1] {
			segments = append(segments, Segment{c, 0})
		}
		segments[len(segments)-1].Length++
	}
	return segments
}

// TestRedactRedirect: the gateway that an ICMP redirect names tells the
// client's network. It goes, and where it was sealed as structure, as it once
// was, nothing is released.
func TestRedactRedirect(t *testing.T) {
	s := quietScene()
	own, far := netip.AddrPortFrom(s.client, scenePort), netip.AddrPortFrom(s.server, 80)
	request := packet.BuildTCP(packet.Segment{Src: own, Dst: far, Seq: 100, Flags: packet.SYN, TTL: 2})
	raw, err := packet.BuildICMPError(packet.TimeExceeded, netip.MustParseAddr("198.18.0.1"), request, 0)
	if err != nil {
		t.Fatal(err)
	}
	gateway := []byte{10, 3, 77, 1} // of another /24 than the client
	raw[20], raw[21] = packet.Redirect4, 1
	copy(raw[24:], gateway)
	if err := packet.FixChecksums(raw); err != nil {
		t.Fatal(err)
	}
	var capture bytes.Buffer
	w, err := packet.NewCaptureWriter(&capture)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(time.Unix(1_790_000_000, 0), raw, packet.Inbound, ""); err != nil {
		t.Fatal(err)
	}
	f, err := Captured(PacketsName, capture.Bytes(), []netip.Addr{s.client})
	if err != nil {
		t.Fatal(err)
	}
	sig, vkey := signer(t, 1)
	sealing := Sealing{Signer: sig, Key: vkey}
	seal := func() *Bundle {
		data, err := sealing.seal([]File{f})
		if err != nil {
			t.Fatal(err)
		}
		return opens(t, data)
	}
	_, c := released(t, seal(), Redaction{Classes: DefaultWithheld})
	if bytes.Contains(c.File(PacketsName).Data, gateway) {
		t.Error("the gateway is left")
	}

	f.Segments = repainted(f, gateway, None)
	out, err := seal().Redact(Redaction{Classes: DefaultWithheld})
	if err != nil {
		t.Fatal(err)
	}
	if out.Bundle != nil || len(out.Left) != 1 || out.Left[0].Encoding != encodingRedirect {
		t.Errorf("released: %v, left %+v", out.Bundle != nil, out.Left)
	}
}

// TestRedactHash: a hash that a capture has of a packet narrows its address. It
// goes, also where it was sealed as a comment, as it once was.
func TestRedactHash(t *testing.T) {
	capture := quietScene().capture(t)
	frames, ok := framesOf(capture)
	if !ok {
		t.Fatal("no frames")
	}
	raw := capture[frames[0].from:frames[0].end]
	hash := binary.LittleEndian.AppendUint32([]byte{2}, crc32.ChecksumIEEE(raw)) // CRC-32
	body := binary.LittleEndian.AppendUint32(make([]byte, 12), uint32(len(raw)))
	body = binary.LittleEndian.AppendUint32(body, uint32(len(raw)))
	body = append(body, raw...)
	body = append(body, make([]byte, -len(body)&3)...)
	for code, value := range map[uint16][]byte{1: []byte("a comment"), 2: {1, 0, 0, 0}, 3: hash} {
		body = binary.LittleEndian.AppendUint16(body, code)
		body = binary.LittleEndian.AppendUint16(body, uint16(len(value)))
		body = append(body, value...)
		body = append(body, make([]byte, -len(value)&3)...)
	}
	for _, v := range []uint32{6, uint32(12 + len(body))} {
		capture = binary.LittleEndian.AppendUint32(capture, v)
	}
	capture = binary.LittleEndian.AppendUint32(append(capture, body...), uint32(12+len(body)))

	f, err := Captured(PacketsName, capture, []netip.Addr{quietScene().client})
	if err != nil {
		t.Fatal(err)
	}
	sig, vkey := signer(t, 1)
	sealing := Sealing{Signer: sig, Key: vkey}
	for _, c := range []Class{Rendering, Foreign} {
		if c == Foreign {
			f.Segments = repainted(f, hash, c)
		}
		data, err := sealing.seal([]File{f})
		if err != nil {
			t.Fatal(err)
		}
		_, b := released(t, opens(t, data), Redaction{Classes: DefaultWithheld})
		left := b.File(PacketsName).Data
		if bytes.Contains(left, hash) || !bytes.Contains(left, []byte("a comment")) {
			t.Errorf("class %v: the hash is left: %v, or the comment is not", c, bytes.Contains(left, hash))
		}
	}
}

// TestRedactSubnetOverTCP: the client's subnet that DNS messages tell goes,
// however they lie in the segments of a connection.
func TestRedactSubnetOverTCP(t *testing.T) {
	s := quietScene()
	query := func(subnet string) []byte {
		m := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x07example\x03org\x00\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x0b\x00\x08\x00\x07\x00\x01\x18\x00" + subnet)
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)
	}
	// Not the network of the address in the packets, as behind NAT.
	a, b := query("\xc0\x58\x63"), query("\xcb\x00\x71")
	plain := bytes.Replace(query("\xaa\xaa\xaa"), []byte("\x00\x08\x00\x07"), []byte("\x00\x0a\x00\x07"), 1)
	for name, segments := range map[string][][]byte{
		"one":                   {a},
		"length by itself":      {a[:2], a[2:]},
		"two in one segment":    {slices.Concat(plain, b)},
		"split in the subnet":   {a[:len(a)-2], slices.Concat(a[len(a)-2:], b[:1]), b[1:]},
		"after what is missing": {a[:9], nil, b[:2], b[2:]},
	} {
		var capture bytes.Buffer
		w, err := packet.NewCaptureWriter(&capture)
		if err != nil {
			t.Fatal(err)
		}
		seq := uint32(4_294_967_290) // wraps
		for _, payload := range segments {
			if payload == nil {
				seq += 50
				continue
			}
			raw := packet.BuildTCP(packet.Segment{Src: netip.AddrPortFrom(s.client, scenePort), Dst: netip.AddrPortFrom(s.resolver, 53), Seq: seq, Flags: packet.ACK, TTL: 64, Payload: payload})
			if err := w.Write(time.Unix(1_790_000_000, 0), raw, packet.Outbound, ""); err != nil {
				t.Fatal(err)
			}
			seq += uint32(len(payload))
		}
		sig, vkey := signer(t, 1)
		data, err := Seal(Sealing{Packets: capture.Bytes(), Own: []netip.Addr{s.client}, Signer: sig, Key: vkey})
		if err != nil {
			t.Fatal(err)
		}
		_, c := released(t, opens(t, data), Redaction{Classes: DefaultWithheld})
		left := c.File(PacketsName).Data
		for _, subnet := range []string{"\x18\x00\xc0", "\x58\x63", "\xcb\x00\x71"} {
			if bytes.Contains(left, []byte(subnet)) {
				t.Errorf("%s: %x is left", name, subnet)
			}
		}
	}
}

// TestRedactWholeClass: where single values would make the file grow, their
// class goes.
func TestRedactWholeClass(t *testing.T) {
	s := quietScene()
	var headers []string
	for i := range 400 {
		headers = append(headers, fmt.Sprintf(`{"name":"x%d","value":"%s"}`, i, []string{"other", "alpha"}[i%2]))
	}
	lines := strings.Replace(string(s.lines(t)), `"headers":[`, `"headers":[`+strings.Join(headers, ",")+",", 1)
	sig, vkey := signer(t, 1)
	data, err := Seal(Sealing{Measurements: []byte(lines), Signer: sig, Key: vkey})
	if err != nil {
		t.Fatal(err)
	}
	id, err := TextIdentifier("alpha", "test")
	if err != nil {
		t.Fatal(err)
	}
	out, c := released(t, opens(t, data), Redaction{Also: []Identifier{id}})
	if !slices.Equal(out.Whole, []Class{Foreign}) || len(bytesOf(t, c)) > len(data) {
		t.Errorf("%v, %d bytes of %d", out.Whole, len(bytesOf(t, c)), len(data))
	}
}

// TestRedactRefuses: what stands where nothing can be withheld is not
// released, and it is said where.
func TestRedactRefuses(t *testing.T) {
	id, err := TextIdentifier("example.invalid/evidence", "test") // the key's name
	if err != nil {
		t.Fatal(err)
	}
	out, err := quietScene().seal(t).Redact(Redaction{Also: []Identifier{id}})
	if err != nil {
		t.Fatal(err)
	}
	if out.Bundle != nil || len(out.Left) == 0 || out.Left[0].Document != noteName {
		t.Errorf("released: %v, left %+v", out.Bundle != nil, out.Left)
	}
	// The program's own words about a server or a network stay, and it is said.
	s := quietScene()
	lines := strings.Replace(string(s.lines(t)), `"transport":"udp"`, `"transport":"udp","operator":"dns.example.net"`, 1)
	lines = strings.Replace(lines, `"resolver":"198.51.100.53"`, `"resolver":"https://dns.example.net/dns-query"`, 1)
	sig, vkey := signer(t, 1)
	data, err := Seal(Sealing{Measurements: []byte(lines), Signer: sig, Key: vkey})
	if err != nil {
		t.Fatal(err)
	}
	network, c := released(t, opens(t, data), Redaction{Classes: []Class{Network}})
	text := string(c.File(MeasurementsName).Data)
	if at := strings.Index(lines, `dns.example.net",`); len(network.Stays) != 1 || network.Stays[0].From != at || strings.Count(text, "dns.example.net") != 1 {
		t.Errorf("%+v, at %d: %s", network.Stays, at, text)
	}
	// A name of the person does not.
	id, err = TextIdentifier("dns.example.net", "test")
	if err != nil {
		t.Fatal(err)
	}
	if out, err = opens(t, data).Redact(Redaction{Classes: []Class{Network}, Also: []Identifier{id}}); err != nil || out.Bundle != nil {
		t.Errorf("%v %+v", err, out.Bundle != nil)
	}
	if _, err := quietScene().seal(t).Redact(Redaction{Classes: []Class{None}}); err == nil {
		t.Error("structure was withheld")
	}
}

// TestRedactNeighbours: a router in the client's own network tells that
// network. One elsewhere stays.
func TestRedactNeighbours(t *testing.T) {
	s := quietScene()
	lines := strings.Replace(string(s.lines(t)), `"path":{`, `"path":{"icmp":{"from":"10.3.4.1","type":11,"code":0,"at_us":1},`, 1)
	lines = strings.Replace(lines, `"dns":{`, `"tcp":{"icmp":[{"from":"198.18.0.1","type":11,"code":0,"at_us":1}]},"dns":{`, 1)
	sig, vkey := signer(t, 1)
	data, err := Seal(Sealing{Measurements: []byte(lines), Packets: s.capture(t), Own: []netip.Addr{s.client}, Signer: sig, Key: vkey})
	if err != nil {
		t.Fatal(err)
	}
	_, c := released(t, opens(t, data), Redaction{Classes: DefaultWithheld})
	text := c.File(MeasurementsName).Data
	if bytes.Contains(text, []byte("10.3.4.1")) || !bytes.Contains(text, []byte("198.18.0.1")) {
		t.Errorf("%s", text)
	}
}

// TestRedactChance: an address whose bytes are those of a capture's structure
// (a block's type and the like) does not keep it from being given away.
func TestRedactChance(t *testing.T) {
	for _, a := range []string{"1.0.0.2", "0.1.0.0", "4.0.2.0", "2.0.4.0", "6.0.0.0"} {
		s := quietScene()
		s.client = netip.MustParseAddr(a)
		released(t, s.seal(t), Redaction{Classes: DefaultWithheld})
	}
}

// candidates are addresses of a /12, all that an attacker has to try.
func candidates(n int) (list []netip.Addr) {
	for i := range n {
		v := 0x0a300000 | uint32(i)*0x9e3779b1>>12
		list = append(list, netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, v))))
	}
	return list
}

// TestNothingNarrows: whichever address of a /12 the client had, what is left
// is the same, byte for byte: no candidate is excluded by checksums of IPv4,
// TCP, UDP and ICMP, by quotes, time stamps, subnets or lengths of what stands
// for something else. Everything that is not the address is known to the
// attacker here. Pages print the address where its length does not vary: what
// remains is in docs/design/redaction.md.
func TestNothingNarrows(t *testing.T) {
	var first map[string][]byte
	var table int
	for i, a := range candidates(64) {
		s := quietScene()
		s.client = a
		printed := fmt.Sprintf("%02x%02x%02x%02x", a.As4()[0], a.As4()[1], a.As4()[2], a.As4()[3])
		s.say = func(p string) string {
			if p == "title" {
				return "from " + a.String() // shown as "withheld", however long
			}
			return "client " + printed
		}
		s.carry = func(p string) []byte {
			if p == "compressed" { // to a length that depends on what it is
				return nil
			}
			return []byte("HTTP/1.1 403 No\r\nX-Client: " + printed + "\r\n\r\n" + printed)
		}
		_, c := released(t, s.seal(t), Redaction{Classes: DefaultWithheld})
		views := map[string][]byte{}
		for _, f := range c.Files {
			views[f.Name] = f.Data
		}
		if i == 0 {
			first, table = views, len(encodeTable(c.entries))
			continue
		}
		if !maps.EqualFunc(first, views, bytes.Equal) || len(encodeTable(c.entries)) != table {
			for name := range views {
				if !bytes.Equal(first[name], views[name]) {
					t.Errorf("%s: %s differs: the candidate is excluded", a, name)
				}
			}
			t.Fatalf("%s: table %d, %d", a, len(encodeTable(c.entries)), table)
		}
	}
}

// consistent counts the addresses of 10.48.0.0/12 that fit a withheld source
// address and a header checksum that was left.
func consistent(header []byte) (n int) {
	h := slices.Clone(header)
	want := binary.BigEndian.Uint16(h[10:])
	for v := range uint32(1 << 20) {
		binary.BigEndian.PutUint32(h[12:], 0x0a300000|v)
		sum := uint32(0)
		for i := 0; i < 20; i += 2 {
			if i != 10 {
				sum += uint32(binary.BigEndian.Uint16(h[i:]))
			}
		}
		sum = sum&0xffff + sum>>16
		if ^uint16(sum&0xffff+sum>>16) == want {
			n++
		}
	}
	return n
}

// TestForgottenChecksum: what the test above is about. A checksum that is left
// cuts a /12 to 16 addresses, and the scanner says so; of each kind.
func TestForgottenChecksum(t *testing.T) {
	s := quietScene()
	s.client = netip.MustParseAddr("10.51.77.9")
	capture := s.capture(t)
	frames, ok := framesOf(capture)
	if !ok || len(frames) < 5 {
		t.Fatalf("%d frames", len(frames))
	}
	doc := &Document{Name: "c", Data: slices.Clone(capture), Client: true}
	for _, f := range frames {
		hide := func(h headers) {
			for _, r := range []Range{h.src, h.dst} {
				if bytes.Equal(capture[r.From:r.To], s.client.AsSlice()) {
					clear(doc.Data[r.From:r.To])
					doc.Withheld = append(doc.Withheld, r)
				}
			}
		}
		h, ok := headersOf(capture, f.at, f.end)
		if !ok {
			t.Fatal("a packet that is not read")
		}
		hide(h)
		if h.quote > 0 {
			if q, ok := headersOf(capture, h.quote, h.end); ok {
				hide(q)
			}
		}
	}
	slices.SortFunc(doc.Withheld, func(a, b Range) int { return a.From - b.From })
	if n := consistent(doc.Data[frames[0].at:]); n != 16 {
		t.Errorf("the checksum leaves %d of 1,048,576; 16 were said", n)
	}
	got := map[string]int{}
	for _, l := range NewScanner(nil).Scan(doc) {
		got[l.Encoding]++
	}
	for _, want := range []string{
		"IPv4 header checksum: narrows what is withheld", "IPv4 header checksum: narrows what is withheld, in what an ICMP error quotes",
		"transport checksum: narrows what is withheld", "transport checksum: narrows what is withheld, in what an ICMP error quotes",
		"TCP timestamps: the device's clock", "EDNS client subnet", "IPv4 identification: may count for the device",
	} {
		if got[want] == 0 {
			t.Errorf("not found: %s; %v", want, got)
		}
	}
}

// TestRedactNeverLarger: whatever single values are named, in whatever
// classes they stand.
func TestRedactNeverLarger(t *testing.T) {
	words := strings.Fields("alpha bravo charl delta echoo foxtr golf1 hotel india julie kilos limas miker novem oscar papas quebe romeo sierr tango")
	var n int
	s := quietScene()
	s.say = func(string) string { n++; return words[n%len(words)] }
	s.carry = func(string) []byte { n++; return []byte(words[n%len(words)]) }
	b := s.seal(t)
	rapid.Check(t, func(rt *rapid.T) {
		var r Redaction
		for _, w := range rapid.SliceOfDistinct(rapid.SampledFrom(words), func(s string) string { return s }).Draw(rt, "also") {
			id, err := TextIdentifier(w, "test")
			if err != nil {
				rt.Fatal(err)
			}
			r.Also = append(r.Also, id)
		}
		r.Classes = rapid.SliceOfDistinct(rapid.SampledFrom(Classes()[1:]), func(c Class) Class { return c }).Draw(rt, "classes")
		released(t, b, r)
	})
}
