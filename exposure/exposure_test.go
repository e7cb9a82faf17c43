package exposure

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"govah/packet"
)

var update = flag.Bool("update", false, "write testdata/everything.pcapng")

func count(t testing.TB, file []byte) *Counts {
	t.Helper()
	c, err := Count(t.Context(), bytes.NewReader(file), own)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// everything has each class, in both families, and somebody else's traffic of
// each class, all with words that must not come out again: the tests of the
// command line look for them.
func everything() *tape {
	t := newTape(1)
	for _, a := range []netip.Addr{own4, own6, other4, other6} {
		who := "mine"
		if a == other4 || a == other6 {
			who = "theirs"
		}
		t.asks(a, who+"-dnssecret.example")
		t.asks(a, who+"-dnssecret.example")
		t.segment = 100
		t.open(a, 443).says(hello(who+"-snisecret.example", false, 1500)).hears("\x16\x03\x03\x00\x02xx")
		t.segment = 0
		t.open(a, 443).says(hello(who+"-outersecret.example", true, 0))
		t.quic(a, who+"-quicsecret.example", false, true, 1400)
		t.open(a, 80).says("GET /pathsecret?x=querysecret HTTP/1.1\r\nHost: " + who + "-hostsecret.example\r\nCookie: sid=cookiesecret\r\n\r\n").
			hears("HTTP/1.1 200 OK\r\nSet-Cookie: sid=setsecret\r\nContent-Length: 10\r\n\r\nbodysecret").
			says("POST /login HTTP/1.1\r\nHost: " + who + "-hostsecret.example\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 36\r\n\r\nuser=usersecret&password=formsecret1").
			says("GET / HTTP/1.1\r\nHost: " + who + "-hostsecret.example\r\nAuthorization: Basic YmFzaWNzZWNyZXQ6cHc=\r\n\r\n")
		t.open(a, 25).talk("220 bannersecret ESMTP", ">EHLO helosecret", "250-x", "250 AUTH PLAIN", ">AUTH PLAIN cGxhaW5zZWNyZXQ=", "235 ok",
			">MAIL FROM:<fromsecret@x.example>", "250 ok", ">DATA", "354 go", ">Subject: subjectsecret", ">.", "250 ok", ">QUIT")
		t.open(a, 587).talk("220 x ESMTP", ">EHLO helosecret", "250 STARTTLS", ">STARTTLS", "220 go").says(hello(who+"-mailsecret.example", false, 0))
		t.open(a, 143).talk("* OK x", ">a1 LOGIN imapusersecret imapsecret", "a1 OK")
		t.open(a, 110).talk("+OK x", ">USER popusersecret", "+OK", ">PASS popsecret", "+OK")
		t.open(a, 21).talk("220 x", ">USER ftpusersecret", "331 x", ">PASS ftpsecret", "230 x")
		t.open(a, 23).hears("\xff\xfb\x01Password: ").says("telnetsecret\r\n")
	}
	return t
}

func TestEverything(t *testing.T) {
	tape := everything()
	file := tape.file(t)
	path := filepath.Join("testdata", "everything.pcapng")
	if *update {
		if err := os.WriteFile(path, file, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	saved, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(saved, file) {
		t.Errorf("%s is not what the test makes (%v): run with -update", path, err)
	}
	half := int64(len(tape.packets) / 2)
	want := &Counts{Type: "exposure", Schema: 1, Complete: true, Packets: half, Ignored: half, Names: 6,
		DNS:  DNS{Questions: 4, Names: 1},
		TLS:  Hellos{Hellos: 6, Named: 6, Names: 3, ECH: 2},
		QUIC: Hellos{Hellos: 2, Named: 2, Names: 1},
		HTTP: HTTP{Requests: 6, Names: 1, CookiesSent: 2, CookiesSet: 2},
		SMTP: Dialogues{Connections: 4, StartTLS: 2}, IMAP: Dialogues{Connections: 2}, POP3: Dialogues{Connections: 2},
		FTP: Dialogues{Connections: 2}, Telnet: Dialogues{Connections: 2},
		Credentials: Credentials{HTTPBasic: true, HTTPForm: true, SMTP: true, IMAP: true, POP3: true, FTP: true, Telnet: true}}
	if diff := cmp.Diff(want, count(t, file)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(file)
	w.Close()
	if diff := cmp.Diff(want, count(t, z.Bytes())); diff != "" {
		t.Errorf("in gzip: -want +got\n%s", diff)
	}
	// Only somebody else's: numbers of packets, nothing else.
	got, err := Count(t.Context(), bytes.NewReader(file), []netip.Addr{netip.MustParseAddr("192.0.2.99")})
	if diff := cmp.Diff(&Counts{Type: "exposure", Schema: 1, Complete: true, Ignored: 2 * half}, got); diff != "" || err != nil {
		t.Errorf("nobody's: %v -want +got\n%s", err, diff)
	}
}

// TestCredentials: what is one and what only looks like it.
func TestCredentials(t *testing.T) {
	for _, c := range []struct {
		name string
		port uint16
		talk []string
		want Credentials
	}{
		{"digest", 80, []string{">GET / HTTP/1.1", ">Authorization: Digest username=\"x\"", ">"}, Credentials{HTTPDigest: true}},
		{"proxy", 3128, []string{">GET http://a.example/ HTTP/1.1", ">Proxy-Authorization: Basic eA==", ">"}, Credentials{HTTPBasic: true}},
		{"bearer", 80, []string{">GET / HTTP/1.1", ">Authorization: Bearer x", ">"}, Credentials{HTTPOther: true}},
		{"user in the URL", 3128, []string{">GET http://u:p@a.example/ HTTP/1.1", ">"}, Credentials{HTTPURL: true}},
		{"at sign in a path", 3128, []string{">GET http://a.example/a:b@c HTTP/1.1", ">"}, Credentials{}},
		{"query", 80, []string{">GET /?a=1&Passwd=x HTTP/1.1", ">"}, Credentials{HTTPForm: true}},
		{"empty field", 80, []string{">GET /?password= HTTP/1.1", ">"}, Credentials{}},
		{"compass", 80, []string{">GET /?compass=1&passage=2&pinned=3 HTTP/1.1", ">"}, Credentials{}},
		{"json", 80, []string{">POST / HTTP/1.1", ">Content-Type: application/json", ">Content-Length: 18", ">", ">{\"password\": \"x\"}"}, Credentials{HTTPForm: true}},
		{"json, the value", 80, []string{">POST / HTTP/1.1", ">Content-Type: application/json", ">Content-Length: 18", ">", ">{\"x\": \"password\"}"}, Credentials{}},
		{"multipart", 80, []string{">POST / HTTP/1.1", ">Content-Type: multipart/form-data; boundary=b", ">Content-Length: 61", ">", ">--b", ">Content-Disposition: form-data; name=\"pwd\"", ">", ">x", ">--b--"}, Credentials{HTTPForm: true}},
		{"chunked form", 80, []string{">POST / HTTP/1.1", ">Content-Type: application/x-www-form-urlencoded", ">Transfer-Encoding: chunked", ">", ">6", ">pass=x", ">0", ">"}, Credentials{HTTPForm: true}},
		{"a text that speaks of it", 80, []string{">POST / HTTP/1.1", ">Content-Type: text/plain", ">Content-Length: 10", ">", ">password=x"}, Credentials{}},
		{"AUTH LOGIN", 25, []string{"220 x", ">EHLO x", ">AUTH LOGIN", "334 x", ">dXNlcg==", "334 x", ">cGFzcw=="}, Credentials{SMTP: true}},
		{"AUTH refused", 25, []string{"220 x", ">EHLO x", ">AUTH LOGIN", "530 STARTTLS first", ">QUIT"}, Credentials{}},
		{"AUTH given up", 25, []string{"220 x", ">EHLO x", ">AUTH LOGIN", "334 x", ">*"}, Credentials{}},
		{"AUTH in a message", 25, []string{"220 x", ">EHLO x", ">DATA", "354 x", ">AUTH PLAIN eA==", ">.", ">QUIT"}, Credentials{}},
		{"AUTH in a chunk", 25, []string{"220 x", ">EHLO x", ">BDAT 17 LAST", ">AUTH PLAIN eA==", ">QUIT"}, Credentials{}},
		{"AUTH without a greeting", 587, []string{">EHLO x", ">AUTH PLAIN eA=="}, Credentials{SMTP: true}},
		{"AUTH EXTERNAL", 25, []string{"220 x", ">EHLO x", ">AUTH EXTERNAL eA=="}, Credentials{}},
		{"SMTP at a port of its own", 2626, []string{"220 x", ">EHLO x", ">AUTH PLAIN eA=="}, Credentials{SMTP: true}},
		{"AUTHENTICATE", 143, []string{"* OK x", ">a AUTHENTICATE PLAIN", "+ ", ">eA=="}, Credentials{IMAP: true}},
		{"SASL-IR", 1143, []string{"* OK x", ">a AUTHENTICATE PLAIN eA=="}, Credentials{IMAP: true}},
		{"IMAP literals", 143, []string{"* OK x", ">a login {4}", "+ ", ">user {4}", "+ ", ">pass"}, Credentials{IMAP: true}},
		{"LOGIN in a literal", 143, []string{"* OK x", ">a CAPABILITY", ">b APPEND x {13}", ">c LOGIN a bcd", ">d LOGOUT"}, Credentials{}},
		{"PREAUTH", 143, []string{"* PREAUTH x", ">a SELECT INBOX"}, Credentials{}},
		{"APOP", 110, []string{"+OK x", ">APOP u c4c9334bac560ecc979e58001b3e22fb"}, Credentials{POP3: true}},
		{"POP3 without a password", 110, []string{"+OK x", ">CAPA", ">USER x", "-ERR", ">QUIT"}, Credentials{}},
		{"anonymous FTP", 21, []string{"220 x", ">USER anonymous", "331 x", ">PASS me@x.example"}, Credentials{}},
		{"FTP", 2121, []string{"220 x", ">USER u", "331 x", ">PASS x"}, Credentials{FTP: true}},
		{"Telnet without a question", 23, []string{"\xff\xfd\x18", ">hello"}, Credentials{}},
		{"no protocol", 4444, []string{">PASS x", ">AUTH PLAIN eA=="}, Credentials{}},
	} {
		for _, size := range []int{1200, 7} {
			tape := newTape(2)
			tape.segment = size
			tape.open(own6, c.port).talk(c.talk...)
			if diff := cmp.Diff(c.want, count(t, tape.file(t)).Credentials); diff != "" {
				t.Errorf("%s, segments of %d: -want +got\n%s", c.name, size, diff)
			}
		}
	}
}

// TestPaths: what captures do to connections.
func TestPaths(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t *tape)
		want Counts
	}{
		"segments out of order and twice": {func(t *tape) {
			t.segment = 300
			c := t.open(own4, 443)
			s := c.segments(hello("a.example", true, 1500))
			for i := len(s) - 1; i >= 0; i-- {
				t.add(s[i])
			}
			for _, raw := range s {
				t.add(raw)
			}
		}, Counts{Names: 1, TLS: Hellos{1, 1, 1, 1}}},
		"a hello cut off behind the name": {func(t *tape) {
			h := hello("a.example", true, 0)
			t.open(own4, 443).says(h[:len(h)-100])
		}, Counts{Names: 1, TLS: Hellos{1, 1, 1, 0}}},
		"a hello cut off before the name": {func(t *tape) {
			t.open(own4, 443).says(hello("a.example", false, 1500)[:900])
		}, Counts{}},
		"no name": {func(t *tape) { t.open(own4, 443).says(hello("", true, 0)) }, Counts{TLS: Hellos{1, 0, 0, 1}}},
		"QUIC of one datagram, and sent again": {func(t *tape) {
			t.quic(own6, "q.example", true, false, 0)
			t.add(t.packets[0])
		}, Counts{Names: 1, QUIC: Hellos{1, 1, 1, 1}}},
		"begun before the capture": {func(t *tape) {
			t.midway(own4, 443).says(hello("a.example", false, 0))
			t.midway(own4, 80).says("GET / HTTP/1.1\r\nHost: b.example\r\n\r\n")
			t.midway(own4, 143).says("a LOGIN b c\r\n")
		}, Counts{Names: 2, TLS: Hellos{1, 1, 1, 0}, HTTP: HTTP{Requests: 1, Names: 1}}},
		"opened by somebody else": {func(t *tape) {
			for _, raw := range newServer() {
				t.add(raw)
			}
		}, Counts{}},
		"one port, two connections": {func(t *tape) {
			for range 2 {
				t.open(own4, 443).says(hello("a.example", false, 0))
				t.port--
			}
		}, Counts{Names: 1, TLS: Hellos{2, 2, 1, 0}}},
		"through a proxy": {func(t *tape) {
			t.open(own4, 3128).talk(">CONNECT p.example:443 HTTP/1.1", ">Host: p.example:443", ">", "HTTP/1.1 200 OK", "").says(hello("a.example", false, 0))
		}, Counts{Names: 2, TLS: Hellos{1, 1, 1, 0}, HTTP: HTTP{Requests: 1, Names: 1}}},
		"requests in one segment, bodies between": {func(t *tape) {
			t.open(own4, 80).says("POST / HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: 20\r\n\r\nGET / HTTP/1.1\r\n\r\n12GET /2 HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\nHEAD /3 HTTP/1.0\r\n\r\n")
		}, Counts{Names: 1, HTTP: HTTP{Requests: 3, Names: 1}}},
		"a long upload, in pieces larger than a packet": {func(t *tape) {
			t.segment = 60000
			t.open(own4, 80).says("PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 900000\r\n\r\n" + strings.Repeat("GET / HTTP/1.1\n", 60000) + "GET / HTTP/1.1\r\nCookie: a=b\r\n\r\n")
		}, Counts{Names: 1, HTTP: HTTP{Requests: 2, Names: 1, CookiesSent: 1}}},
		"bytes that are missing": {func(t *tape) {
			c := t.open(own4, 80).says("PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n")
			c.cseq += 70000
			c.says(strings.Repeat("x", 30000)).says("GET / HTTP/1.1\r\nCookie: a=b\r\n\r\n")
		}, Counts{Names: 1, HTTP: HTTP{Requests: 2, Names: 1, CookiesSent: 1}}},
		"a cookie's response in pieces, and sent again": {func(t *tape) {
			c := t.open(own4, 80).says("GET / HTTP/1.1\r\n\r\n")
			at := len(t.packets)
			c.hears("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2000) + "\r\nset-cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n")
			for _, raw := range t.packets[at : at+2] {
				t.add(raw)
			}
			c.hears("Set-Cookie: in a body").hears("HTTP/1.1 200 OK\r\nSet-Cookie:\r\n\r\n")
		}, Counts{HTTP: HTTP{Requests: 1, CookiesSet: 1}}},
		"DNS over TCP": {func(t *tape) {
			q := string(append([]byte{0, byte(len(query(1, "t.example")))}, query(1, "t.example")...))
			t.segment = 5
			t.open(own6, 53).says(q + q)
		}, Counts{Names: 1, DNS: DNS{2, 1}}},
		"DNS: an answer, an update, another port, a name in capitals": {func(t *tape) {
			q := query(1, "t.example")
			for _, change := range []byte{0x80, 0x28} {
				other := bytes.Clone(q)
				other[2] |= change
				t.udp(netip.AddrPortFrom(own4, 999), 53, other)
			}
			t.udp(netip.AddrPortFrom(own4, 999), 5353, q)
			t.udp(netip.AddrPortFrom(own4, 999), 53, q)
			t.udp(netip.AddrPortFrom(own4, 999), 53, query(2, "T.Example"))
		}, Counts{Names: 1, DNS: DNS{2, 1}}},
		"STARTTLS of each": {func(t *tape) {
			t.open(own4, 25).talk("220 x", ">EHLO x", ">STARTTLS", "220 x").says(hello("a.example", false, 0))
			t.open(own4, 143).talk("* OK x", ">a STARTTLS", "a OK").says(hello("a.example", false, 0))
			t.open(own4, 110).talk("+OK x", ">STLS", "+OK").says(hello("a.example", false, 0))
			t.open(own4, 21).talk("220 x", ">AUTH TLS", "234 x").says(hello("a.example", false, 0))
			t.open(own4, 25).talk("220 x", ">EHLO x", ">STARTTLS", "454 x", ">QUIT")
			t.open(own4, 993).says(hello("a.example", false, 0))
		}, Counts{Names: 1, TLS: Hellos{5, 5, 1, 0}, SMTP: Dialogues{2, 1}, IMAP: Dialogues{1, 1}, POP3: Dialogues{1, 1}, FTP: Dialogues{1, 1}}},
		"what is none of them": {func(t *tape) {
			t.open(own4, 22).talk("SSH-2.0-x", ">SSH-2.0-y")
			t.open(own4, 25).says("\x00\x01\x02 nonsense \xff\n")
			t.open(own4, 80).says("GET nonsense\r\n\r\n")
			t.open(own4, 6667).says(strings.Repeat("z", 3000))
			t.udp(netip.AddrPortFrom(own4, 999), 443, bytes.Repeat([]byte{0xc0, 0, 0, 0, 1}, 250))
		}, Counts{}},
	} {
		tape := newTape(3)
		c.make(tape)
		got := count(t, tape.file(t))
		c.want.Type, c.want.Schema, c.want.Complete, c.want.Packets = "exposure", 1, true, got.Packets
		if diff := cmp.Diff(&c.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

// newServer is a connection that somebody opens to an own address.
func newServer() [][]byte {
	t := newTape(4)
	c := &tcp{t: t, client: netip.AddrPortFrom(server4, 1234), server: netip.AddrPortFrom(own4, 80), cseq: 7, sseq: 9}
	t.add(packet.BuildTCP(packet.Segment{Src: c.client, Dst: c.server, Seq: c.cseq, Flags: packet.SYN}))
	c.cseq++
	c.talk(">GET / HTTP/1.1", ">Cookie: a=b", ">", "HTTP/1.1 200 OK", "Set-Cookie: a=b", "")
	return t.packets
}

func TestBrokenFiles(t *testing.T) {
	whole := everything().file(t)
	for n := 0; n < len(whole); n += 97 {
		c, err := Count(t.Context(), bytes.NewReader(whole[:n]), own)
		switch {
		case n < 4 && !errors.Is(err, packet.ErrNotCapture) && !errors.Is(err, io.EOF):
			t.Errorf("%d bytes: %v", n, err)
		case err != nil && c != nil && c.Complete || err == nil && !c.Complete:
			t.Errorf("%d bytes: complete %v, %v", n, c.Complete, err)
		}
	}
	c, err := Count(t.Context(), bytes.NewReader(whole[:len(whole)-5]), own)
	if !errors.Is(err, io.ErrUnexpectedEOF) || c == nil || c.DNS.Questions != 4 {
		t.Errorf("cut off: %+v, %v", c, err)
	}
	if _, err := Count(t.Context(), strings.NewReader("no capture at all"), own); !errors.Is(err, packet.ErrNotCapture) {
		t.Errorf("text: %v", err)
	}
	if _, err := Count(t.Context(), strings.NewReader("\x1f\x8bnonsense"), own); err == nil {
		t.Error("broken gzip was taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Count(ctx, bytes.NewReader(whole), own); !errors.Is(err, context.Canceled) {
		t.Errorf("called off: %v", err)
	}
	for _, n := range []int{0, MaxOwn + 1} {
		if _, err := Count(t.Context(), bytes.NewReader(whole), make([]netip.Addr, n)); err == nil {
			t.Errorf("%d own addresses were taken", n)
		}
	}
	// A packet of which the file holds a part.
	tape := newTape(5)
	tape.asks(own4, "a.example")
	tape.packets[0] = tape.packets[0][:30]
	if c := count(t, tape.file(t)); c.Cut != 1 || c.Packets != 2 || c.DNS.Questions != 0 {
		t.Errorf("a short packet: %+v", c)
	}
}

// TestHugeCounts: memory is bounded, whatever the file has in it.
func TestHugeCounts(t *testing.T) {
	tape := newTape(6)
	const n = maxNames + 1000
	for i := range n {
		tape.udp(netip.AddrPortFrom(own4, uint16(i)), 53, query(i&0xffff, fmt.Sprintf("n%d.example", i)))
	}
	c := count(t, tape.file(t))
	if c.DNS.Questions != n || c.DNS.Names != maxNames || c.Names != maxNames || !c.NamesMore {
		t.Errorf("%+v", c)
	}
	// More connections than are known at one time, each with a hello that
	// ends after all have begun: those that were forgotten are not counted.
	tape = newTape(7)
	var ends [][]byte
	for range 3 * maxFlows {
		c := tape.open(own4, 443)
		h := hello("a.example", false, 1500)
		c.says(h[:1200])
		ends = append(ends, c.segments(h[1200:])...)
	}
	for _, raw := range ends {
		tape.add(raw)
	}
	if c := count(t, tape.file(t)); c.TLS.Hellos != maxFlows || c.TLS.Names != 1 {
		t.Errorf("%+v", c.TLS)
	}
}

// TestFormatDocument compares docs/formats/exposure-v1.md with the types.
func TestFormatDocument(t *testing.T) {
	text, err := os.ReadFile("../docs/formats/exposure-v1.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	section := ""
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "### "); ok {
			section = strings.Trim(name, "`")
		}
		cells := strings.Split(strings.TrimSpace(line), "|")
		if section == "" || len(cells) != 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		if strings.TrimSpace(cells[3]) == "" {
			t.Errorf("%s: %s has no meaning", section, cells[1])
		}
		rows[section] = append(rows[section], strings.Trim(strings.TrimSpace(cells[1]), "`")+" "+strings.TrimSpace(cells[2]))
	}
	want := map[string][]string{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		if want[typ.Name()] != nil {
			return
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			kind := map[reflect.Kind]string{reflect.String: "string", reflect.Int: "integer", reflect.Int64: "integer", reflect.Bool: "boolean", reflect.Struct: f.Type.Name()}[f.Type.Kind()]
			want[typ.Name()] = append(want[typ.Name()], f.Tag.Get("json")+" "+kind)
			if f.Type.Kind() == reflect.Struct {
				walk(f.Type)
			}
			// The line: nothing but numbers, yes and no.
			if kind == "" || kind == "string" && f.Name != "Type" {
				t.Errorf("%s.%s is neither a count nor yes or no", typ.Name(), f.Name)
			}
		}
	}
	walk(reflect.TypeFor[Counts]())
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("the document differs: -type +document\n%s", diff)
	}
}

// TestRealCaptures: other people's traceroutes, of which the first packet's
// sender is taken for the device.
func TestRealCaptures(t *testing.T) {
	files, _ := filepath.Glob("../../shared/data/centrace/*.pcap")
	if len(files) == 0 {
		t.Skip("../shared/data/centrace is not on this machine")
	}
	asked := int64(0)
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := packet.NewCaptureReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		_, raw, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		p, err := packet.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range []netip.Addr{p.Src, p.Dst} {
			c, err := Count(t.Context(), bytes.NewReader(data), []netip.Addr{a})
			if err != nil {
				t.Errorf("%s: %v", filepath.Base(path), err)
				continue
			}
			asked += c.HTTP.Requests + c.TLS.Named
			if c.Packets == 0 || c.Names > 2 || c.Credentials != (Credentials{}) {
				t.Errorf("%s: %+v", filepath.Base(path), c)
			}
		}
	}
	if asked == 0 {
		t.Error("no request was found in any of them")
	}
}

func FuzzCount(f *testing.F) {
	f.Add(everything().file(f))
	short := newTape(8)
	short.open(own4, 80).says("POST /?a=1 HTTP/1.1\r\nContent-Length: 3\r\nContent-Type: application/json\r\n\r\nabcGET / HTTP/1.1\r\n\r\n")
	f.Add(short.file(f))
	mail := newTape(9)
	mail.open(own6, 143).talk("* OK", ">a LOGIN {3}", ">abc {3}", ">def", ">b STARTTLS").says(hello("x.example", true, 0))
	f.Add(mail.file(f))
	quic := newTape(10)
	quic.quic(own4, "x.example", true, true, 1400)
	f.Add(quic.file(f))
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Count(t.Context(), bytes.NewReader(b), own)
		if err == nil && c == nil {
			t.Fatal("neither counts nor an error")
		}
		if c == nil {
			return
		}
		if c.Complete != (err == nil) {
			t.Errorf("complete %v with %v", c.Complete, err)
		}
		for _, h := range []Hellos{c.TLS, c.QUIC} {
			if h.Named > h.Hellos || h.ECH > h.Hellos || h.Names > h.Named {
				t.Errorf("%+v", h)
			}
		}
		if c.Cut > c.Packets || c.Names > c.DNS.Names+c.TLS.Names+c.QUIC.Names+c.HTTP.Names {
			t.Errorf("%+v", c)
		}
		if _, err := json.Marshal(c); err != nil {
			t.Error(err)
		}
	})
}

// FuzzConversation has bytes of a client and of a server at a port, cut at
// any place: what is counted does not depend on the cuts of the client's side.
func FuzzConversation(f *testing.F) {
	f.Add(uint16(25), "220 x\r\n", "EHLO x\r\nAUTH LOGIN\r\ndXNlcg==\r\n", 5)
	f.Add(uint16(143), "* OK\r\n", "a LOGIN {3}\r\nabc {3}\r\ndef\r\n", 3)
	f.Add(uint16(80), "", "POST / HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npass=x\r\n0\r\n\r\nGET / HTTP/1.0\r\n\r\n", 1)
	f.Add(uint16(443), "", hello("x.example", true, 100), 9)
	f.Add(uint16(53), "", "\x00\x1b"+string(query(7, "x.example")), 2)
	f.Fuzz(func(t *testing.T, port uint16, server, client string, size int) {
		if len(client) > 16<<10 || len(server) > 4<<10 || size < 1 || port == 0 {
			return
		}
		run := func(size int) *Counts {
			tape := newTape(11)
			tape.segment = size
			c := tape.open(own4, port)
			if server != "" {
				c.hears(server)
			}
			c.says(client)
			got := count(t, tape.file(t))
			// A form that never ends is searched in steps, and of a malformed
			// hello more can be read while the rest is missing.
			got.Packets, got.Credentials.HTTPForm, got.TLS, got.Names = 0, false, Hellos{}, 0
			return got
		}
		if diff := cmp.Diff(run(1200), run(max(size, len(client)/100+1))); diff != "" {
			t.Errorf("another size of segments, another count:\n%s", diff)
		}
	})
}
