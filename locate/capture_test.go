package locate_test

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"govah/locate"
	"govah/measure"
	"govah/packet"
)

const centrace = "../../shared/data/centrace"

func realCapture(t testing.TB, pattern string) []locate.CapturedPacket {
	t.Helper()
	names, _ := filepath.Glob(filepath.Join(centrace, pattern))
	if len(names) != 1 {
		t.Fatalf("%d files fit %s", len(names), pattern)
	}
	f, err := os.Open(names[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := packet.NewCaptureReader(f)
	if err != nil {
		t.Fatalf("%s: %v", names[0], err)
	}
	var list []locate.CapturedPacket
	for {
		at, raw, err := r.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatalf("%s: %v", names[0], err)
		}
		list = append(list, locate.CapturedPacket{At: at, Data: bytes.Clone(raw)})
	}
}

// conclude runs Infer over a pair.
func conclude(t testing.TB, control, test []locate.CapturedPacket) ([]measure.Observation, measure.Location) {
	t.Helper()
	list, err := locate.FromCaptures(control, test)
	if err != nil {
		t.Fatal(err)
	}
	found := locate.Infer(&measure.Measurement{Run: "r1", ID: "m1", Observations: list}, nil)
	if len(found) != 1 {
		t.Fatalf("%d locations", len(found))
	}
	return list, found[0]
}

// better is what Infer says of a published pair, and why that is more than
// CenTrace's router.
var better = map[string]struct {
	outcomes []measure.Whereat
	kind     measure.Kind
	position measure.Position
	link     int // the device is before the router at this TTL; 0: none is named
	why      string
}{
	// Router 17 says that it dropped two packets of 40 bytes in our name: the
	// device cuts the server's side too, with the TTL of the request, and our
	// request of 116 bytes was not among them. So the device is before router
	// 17, and a quote that is matched by ports alone would make it on-path.
	"bisexual.org": {[]measure.Whereat{measure.Located}, measure.Injects, measure.PositionUnknown, 17, "the link before CenTrace's router, whose own ICMP shows that the device is before it"},
	// The capture ends at TTL 12, five TTLs of it were never connected, and
	// the server is at 15: nobody can conclude from one silence.
	"gawker.com": {[]measure.Whereat{measure.NoDifference, measure.NotLocated}, "", measure.PositionUnknown, 0, "broken off: nothing is claimed"},
	// What was swallowed at TTL 20 may also have passed router 20 and its ICMP
	// have been lost: the next link is in the set.
	"youtube.com":            {[]measure.Whereat{measure.Located}, measure.Drops, measure.InPath, 20, "both links that one lost ICMP could confuse, with probabilities"},
	"store.steampowered.com": {[]measure.Whereat{measure.AtEnd}, measure.Drops, measure.InPath, 20, "the last link or the server, as ENDPOINT_FIREWALL"},
	// Routers 17 of test and control differ: the source port changes with each
	// TTL, and so does the way. CenTrace names 82.178.159.6 before and after.
	"www.nifty.org": {[]measure.Whereat{measure.Located}, measure.Injects, measure.PositionUnknown, 18, "the link; which of two siblings is before it is not known"},
	"archive.org":   {[]measure.Whereat{measure.Located}, measure.Injects, measure.OnPath, 13, "the link before CenTrace's router"},
	// The server's address answers from TTL 18 on, the server at 22.
	"www.bglad.com":          {[]measure.Whereat{measure.Located}, measure.Injects, measure.OnPath, 19, "the link within what has the server's address"},
	"bridges.torproject.org": {[]measure.Whereat{measure.NoDifference}, "", measure.PositionUnknown, 0, "the same page to both"},
}

// TestPublishedPairs reads the eight pairs of captures whose outcome CenTrace
// published: all of its columns, and what Infer adds.
func TestPublishedPairs(t *testing.T) {
	f, err := os.Open(filepath.Join(centrace, "expected.csv"))
	if err != nil {
		t.Skip("../shared/data/centrace is not here")
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil || len(rows) != 9 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	addr := func(a netip.Addr) string {
		if !a.IsValid() {
			return ""
		}
		return a.String()
	}
	number := func(n int) string {
		if n == 0 {
			return ""
		}
		return strconv.Itoa(n)
	}
	for _, row := range rows[1:] {
		t.Run(row[1], func(t *testing.T) {
			control := realCapture(t, row[0]+"_"+row[1]+"_example.com*.pcap")
			test := realCapture(t, row[0]+"_"+row[1]+"_"+row[1]+"*.pcap")
			p, err := locate.PublishedOutcome(control, test)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{row[0], row[1], p.Class, p.Kind, number(p.FirstTest), number(p.FirstControl), addr(p.Device), addr(p.HopBefore), addr(p.HopAfter), map[bool]string{true: "True", false: "False"}[p.OnPath]}
			if !slices.Equal(got, row) {
				t.Errorf("got      %q\nexpected %q", got, row)
			}
			_, l := conclude(t, control, test)
			want, link := better[row[1]], 0
			if len(l.Set) > 0 {
				link = l.Set[0].Low + 1
			}
			if !slices.Contains(want.outcomes, l.Outcome) || l.Kind != want.kind || l.Position != want.position || link != want.link || l.CopiesTTL {
				t.Errorf("inferred %s %s %s before router %d: %+v", l.Outcome, l.Kind, l.Position, link, l.Set)
			}
			if p.FirstControl > 0 && l.ServerTTL != p.FirstControl {
				t.Errorf("server at TTL %d", l.ServerTTL)
			}
			// The router that CenTrace names is the far end of the link.
			if link > 0 && p.Device.IsValid() && l.Set[0].To != p.Device.String() {
				t.Errorf("the link ends at %q, CenTrace's router is %v", l.Set[0].To, p.Device)
			}
			t.Logf("published: %s", strings.Join(got[2:], " "))
			t.Logf("inferred:  %s %s %s: %s", l.Outcome, l.Kind, l.Position, want.why)
			for _, place := range l.Set[:min(2, len(l.Set))] {
				t.Logf("            before router %d (%s): %d per mille", place.Low+1, place.To, place.PerMille)
			}
		})
	}
}

// capturedPath is a path of which captures are made up: routers 10.9.k.1 for
// TTL k, the server behind them, and a device before the router at TTL link.
type capturedPath struct {
	hops   int // TTL that reaches the server
	link   int
	silent []int
	v6     bool
	device func(p capturedPath, probe []byte, ttl int) (answers [][]byte, passes bool)
	// stops: the traceroute ends where something else than a router answers,
	// as CenTrace's does.
	stops bool
	quote int // bytes of the transport header that routers quote, 0 all
}

var capturedFrom = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

func (p capturedPath) ends() (client, server netip.Addr) {
	if p.v6 {
		return netip.MustParseAddr("2a0e:1::5"), netip.MustParseAddr("2a0e:1000::a")
	}
	return netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("45.10.0.10")
}

func (p capturedPath) router(ttl int) netip.Addr {
	if p.v6 {
		return netip.MustParseAddr(fmt.Sprintf("2a0e:9::%d", ttl))
	}
	return netip.AddrFrom4([4]byte{10, 9, byte(ttl), 1})
}

// expired is what a router says of a packet.
func (p capturedPath) expired(ttl int, offending []byte) []byte {
	b, err := packet.BuildICMPError(packet.TimeExceeded, p.router(ttl), offending, 0)
	if err != nil {
		panic(err)
	}
	if p.quote > 0 && !p.v6 {
		b = slices.Clone(b[:20+8+20+p.quote])
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		packet.FixChecksums(b)
	}
	return b
}

// capture makes one traceroute with a name, a connection for each TTL.
func (p capturedPath) capture(name string, port uint16, triggers bool) (out []locate.CapturedPacket) {
	client, server := p.ends()
	at := capturedFrom
	if triggers {
		at = at.Add(time.Hour)
	}
	add := func(after time.Duration, b []byte) {
		at = at.Add(after)
		out = append(out, locate.CapturedPacket{At: at, Data: b})
	}
	request := []byte("GET / HTTP/1.1\r\nHost: " + name + "\r\n\r\n")
	page := []byte("HTTP/1.1 200 OK\r\nDate: " + name + "\r\nContent-Length: 2\r\n\r\nok")
	for ttl := 1; ttl <= p.hops+12; ttl++ {
		s := packet.Segment{Src: netip.AddrPortFrom(client, port+uint16(ttl)), Dst: netip.AddrPortFrom(server, 80), Seq: 1000 * uint32(ttl), Flags: packet.SYN, ID: uint16(1000 + ttl)}
		add(time.Second, packet.BuildTCP(s))
		r := packet.Segment{Src: s.Dst, Dst: s.Src, Seq: 77, Ack: s.Seq + 1, Flags: packet.SYN | packet.ACK, TTL: uint8(64 - p.hops)}
		add(30*time.Millisecond, packet.BuildTCP(r))
		s.Seq, s.Ack, s.Flags, s.ID = s.Seq+1, 78, packet.ACK, s.ID+100
		add(time.Millisecond, packet.BuildTCP(s))
		s.Flags, s.ID, s.TTL, s.Payload = packet.PSH|packet.ACK, s.ID+100, uint8(ttl), request
		probe := packet.BuildTCP(s)
		add(time.Millisecond, probe)
		passes, acted := true, false
		if triggers && p.device != nil && ttl >= p.link {
			var answers [][]byte
			answers, passes = p.device(p, probe, ttl)
			for _, a := range answers {
				add(4*time.Millisecond, a)
				acted = true
			}
		}
		switch {
		case !passes:
		case ttl < p.hops:
			if !slices.Contains(p.silent, ttl) {
				add(9*time.Millisecond, p.expired(ttl, probe))
			}
		default:
			r.Seq, r.Ack, r.Flags, r.Payload = 78, s.Seq+uint32(len(request)), packet.PSH|packet.ACK, page
			add(30*time.Millisecond, packet.BuildTCP(r))
			acted = true
		}
		// As CenTrace ends a connection: the FIN has the request's number.
		s.Flags, s.TTL, s.Payload, s.ID = packet.FIN|packet.ACK, 64, nil, s.ID+100
		add(3*time.Second, packet.BuildTCP(s))
		r.Flags, r.Payload = packet.FIN|packet.ACK, nil
		add(30*time.Millisecond, packet.BuildTCP(r))
		if acted && p.stops {
			break
		}
	}
	return out
}

func (p capturedPath) pair() (control, test []locate.CapturedPacket) {
	stopping := p
	stopping.stops = true
	return stopping.capture("example.com", 30000, false), p.capture("blocked.example", 40000, true)
}

// forge is a packet in the server's name.
func forge(probe []byte, flags, ttl uint8, payload string) []byte {
	q, err := packet.Parse(probe)
	if err != nil {
		panic(err)
	}
	s := q.Reply()
	s.Flags, s.TTL, s.Payload = flags, ttl, []byte(payload)
	return packet.BuildTCP(s)
}

func resets(passes bool) func(capturedPath, []byte, int) ([][]byte, bool) {
	return func(p capturedPath, probe []byte, _ int) ([][]byte, bool) {
		return [][]byte{forge(probe, packet.RST|packet.ACK, uint8(65-p.link), "")}, passes
	}
}

// copies resets with what is left of the probe's TTL.
func copies(passes bool) func(capturedPath, []byte, int) ([][]byte, bool) {
	return func(p capturedPath, probe []byte, ttl int) ([][]byte, bool) {
		if left := ttl - 2*(p.link-1); left > 0 {
			return [][]byte{forge(probe, packet.RST|packet.ACK, uint8(left), "")}, passes
		}
		return nil, passes
	}
}

func TestFromCaptures(t *testing.T) {
	page := func(p capturedPath, probe []byte, _ int) ([][]byte, bool) {
		return [][]byte{forge(probe, packet.FIN|packet.PSH|packet.ACK, uint8(65-p.link), "HTTP/1.1 403 Forbidden\r\n\r\n<h1>no</h1>")}, false
	}
	for _, c := range []struct {
		name     string
		path     capturedPath
		outcome  measure.Whereat
		kind     measure.Kind
		position measure.Position
		copies   bool
		class    string
	}{
		{"reset, in-path", capturedPath{hops: 12, link: 5, device: resets(false), stops: true}, measure.Located, measure.Injects, measure.PositionUnknown, false, locate.ClassIdentified},
		{"reset, on-path", capturedPath{hops: 12, link: 5, device: resets(true)}, measure.Located, measure.Injects, measure.OnPath, false, locate.ClassIdentified},
		{"reset, on-path, IPv6", capturedPath{hops: 12, link: 5, v6: true, device: resets(true)}, measure.Located, measure.Injects, measure.OnPath, false, locate.ClassIdentified},
		{"reset, short quotes", capturedPath{hops: 12, link: 7, quote: 8, device: resets(true)}, measure.Located, measure.Injects, measure.OnPath, false, locate.ClassIdentified},
		{"reset at a silent router", capturedPath{hops: 12, link: 6, silent: []int{6, 9}, device: resets(false), stops: true}, measure.Located, measure.Injects, measure.PositionUnknown, false, locate.ClassNeighbours},
		{"page", capturedPath{hops: 12, link: 8, device: page, stops: true}, measure.Located, measure.Injects, measure.PositionUnknown, false, locate.ClassIdentified},
		{"drop", capturedPath{hops: 12, link: 6, device: func(capturedPath, []byte, int) ([][]byte, bool) { return nil, false }}, measure.Located, measure.Drops, measure.InPath, false, locate.ClassIdentified},
		// CenTrace names the router at twice the distance, Infer the link.
		{"reset with our TTL, on-path", capturedPath{hops: 14, link: 4, device: copies(true)}, measure.Located, measure.Injects, measure.OnPath, true, locate.ClassIdentified},
		{"reset with our TTL, in-path", capturedPath{hops: 14, link: 4, device: copies(false)}, measure.Located, measure.Injects, measure.PositionUnknown, true, locate.ClassIdentified},
		{"clean", capturedPath{hops: 12, stops: true}, measure.NoDifference, "", measure.PositionUnknown, false, locate.ClassNone},
	} {
		t.Run(c.name, func(t *testing.T) {
			control, test := c.path.pair()
			list, l := conclude(t, control, test)
			if l.Outcome != c.outcome || l.Kind != c.kind || l.CopiesTTL != c.copies {
				t.Errorf("%s %s, copies %v; %v", l.Outcome, l.Kind, l.CopiesTTL, l.Set)
			}
			if l.Position != c.position {
				t.Errorf("position %s", l.Position)
			}
			if c.path.device != nil {
				if len(l.Set) == 0 || l.Set[0].Low+1 != c.path.link {
					t.Errorf("link %v, not %d", l.Set, c.path.link)
				} else if from := l.Set[0].From; from != c.path.router(c.path.link-1).String() {
					t.Errorf("from %q", from)
				}
			}
			if l.ServerTTL != c.path.hops {
				t.Errorf("server at TTL %d", l.ServerTTL)
			}
			if l.Trigger.Value != "blocked.example" || l.Trigger.Control != "example.com" || l.Trigger.Kind != "host" {
				t.Errorf("trigger %+v", l.Trigger)
			}
			p, err := locate.PublishedOutcome(control, test)
			if err != nil || p.Class != c.class {
				t.Errorf("%+v, %v", p, err)
			}
			ids := map[string]bool{}
			for _, o := range list {
				if o.TTL == 0 || ids[o.ID] || o.Control != "" && !ids[o.Control] || o.Path.Sends < 1 || o.Path.LocalPort == 0 {
					t.Errorf("%+v", o)
				}
				ids[o.ID] = true
			}
			t.Log(l.Outcome, l.Kind, l.Position, l.Set)
		})
	}
}

// A device that swallows the request and cuts the connection towards the
// server in our name: its packets expire at the router behind it, which quotes
// our ports and our sequence number, but not our request. (CenTrace's pair
// 103.93.208.20 shows one.)
func TestFromCapturesForgedTowardsServer(t *testing.T) {
	path := capturedPath{hops: 12, link: 5, device: func(p capturedPath, probe []byte, ttl int) ([][]byte, bool) {
		answers, _ := resets(false)(p, probe, ttl)
		q, err := packet.Parse(probe)
		if err != nil {
			panic(err)
		}
		ours := packet.BuildTCP(packet.Segment{Src: q.Source(), Dst: q.Destination(), Seq: q.Seq, Flags: packet.RST, TTL: 1, ID: 4711})
		return append(answers, p.expired(5, ours)), false
	}, stops: true}
	control, test := path.pair()
	list, l := conclude(t, control, test)
	if l.Position == measure.OnPath {
		t.Error("on-path, because of a packet that the device made")
	}
	last := list[len(list)-1]
	if last.Path.ICMP != nil || last.TCP == nil || len(last.TCP.ICMP) != 1 || last.TCP.ICMP[0].From != path.router(5).String() {
		t.Errorf("%+v %+v", last.Path, last.TCP)
	}
	if p, err := locate.PublishedOutcome(control, test); err != nil || p.OnPath {
		t.Errorf("%+v, %v", p, err)
	}
}

// One connection that sends the same bytes again with a higher TTL, as Run's
// do: what comes belongs to the sending whose IP ID a router quotes.
func TestFromCapturesRetransmissions(t *testing.T) {
	p := capturedPath{hops: 9}
	client, server := p.ends()
	request := []byte("GET / HTTP/1.1\r\nHost: blocked.example\r\n\r\n")
	at := capturedFrom
	var list []locate.CapturedPacket
	add := func(b []byte) {
		at = at.Add(250 * time.Millisecond)
		list = append(list, locate.CapturedPacket{At: at, Data: b})
	}
	s := packet.Segment{Src: netip.AddrPortFrom(client, 40000), Dst: netip.AddrPortFrom(server, 80), Seq: 9, Flags: packet.SYN}
	add(packet.BuildTCP(s))
	s.Seq, s.Flags, s.Payload = 10, packet.ACK|packet.PSH, request
	send := func(ttl uint8, id uint16) []byte {
		s.TTL, s.ID = ttl, id
		add(packet.BuildTCP(s))
		return list[len(list)-1].Data
	}
	send(3, 1)
	three := send(3, 2)
	four := send(4, 3)
	add(p.expired(3, three)) // later than the sending with TTL 4
	add(p.expired(4, four))
	five := send(5, 4)
	add(forge(five, packet.RST, 60, ""))
	control, _ := p.pair()
	got, err := locate.FromCaptures(control, list)
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, o := range got {
		if o.Role == measure.RoleTest {
			from := ""
			if o.Path.ICMP != nil {
				from = o.Path.ICMP.From
			}
			text = append(text, fmt.Sprint(o.TTL, " ", o.Path.Sends, " ", o.Path.Outcome, " ", from))
		}
	}
	want := []string{"3 2 expired 10.9.3.1", "4 1 expired 10.9.4.1", "5 1 reset "}
	if !slices.Equal(text, want) {
		t.Errorf("%q", text)
	}
}

// The control comes first, whichever was captured first, and captures without
// times are read too.
func TestFromCapturesTimes(t *testing.T) {
	control, test := capturedPath{hops: 12, link: 5, device: resets(true)}.pair()
	for name, change := range map[string]func(time.Time) time.Time{
		"test first": func(at time.Time) time.Time { return at.Add(-2 * time.Hour) },
		"no times":   func(time.Time) time.Time { return time.Time{} },
	} {
		c, x := slices.Clone(control), slices.Clone(test)
		for i := range x {
			x[i].At = change(x[i].At)
		}
		if name == "no times" {
			for i := range c {
				c[i].At = time.Time{}
			}
		}
		list, l := conclude(t, c, x)
		if len(l.Set) == 0 || l.Set[0].Low != 4 || l.Position != measure.OnPath {
			t.Errorf("%s: %+v", name, l)
		}
		for i := 1; i < len(list); i++ {
			if list[i].StartUS < list[i-1].StartUS || list[i].Role != list[i-1].Role && list[i].StartUS == list[i-1].StartUS {
				t.Fatalf("%s: observation %d began before the one before it", name, i)
			}
		}
	}
}

// The end of a capture is not silence.
func TestFromCapturesCutOff(t *testing.T) {
	control, test := capturedPath{hops: 9, link: 4, device: resets(true)}.pair()
	for i, c := range test {
		if q, err := packet.Parse(c.Data); err == nil && q.TTL == 6 && len(q.Payload) > 0 {
			test = test[:i+1]
			break
		}
	}
	list, err := locate.FromCaptures(control, test)
	if err != nil {
		t.Fatal(err)
	}
	if o := list[len(list)-1]; o.TTL != 6 || o.Failure != measure.Interrupted {
		t.Errorf("%+v", o)
	}
}

// Captures of which only the first bytes of each packet were kept.
func TestFromCapturesSnapped(t *testing.T) {
	snap := func(list []locate.CapturedPacket, n int) (out []locate.CapturedPacket) {
		for _, c := range list {
			c.Data = c.Data[:min(n, len(c.Data))]
			out = append(out, c)
		}
		return out
	}
	path := capturedPath{hops: 12, link: 5, device: resets(true)}
	control, test := path.pair()
	if _, l := conclude(t, snap(control, 79), snap(test, 79)); len(l.Set) == 0 || l.Set[0].Low != 4 || l.Position != measure.OnPath {
		t.Errorf("%+v", l)
	}
	if _, err := locate.FromCaptures(snap(control, 60), snap(test, 60)); err == nil || !strings.Contains(err.Error(), "tcpdump -s 0") {
		t.Error(err)
	}
}

func TestFromCapturesErrors(t *testing.T) {
	control, test := capturedPath{hops: 6, link: 3, device: resets(true)}.pair()
	from := func(list []locate.CapturedPacket, keep func(packet.Packet) bool) (out []locate.CapturedPacket) {
		for _, c := range list {
			if p, err := packet.Parse(c.Data); err == nil && keep(p) {
				out = append(out, c)
			}
		}
		return out
	}
	other := slices.Clone(test)
	for i, c := range other {
		p, _ := packet.Parse(c.Data)
		if p.Proto != packet.TCP {
			continue
		}
		there := netip.MustParseAddrPort("45.10.0.99:80")
		src, dst := netip.AddrPort{}, there
		if p.SrcPort == 80 {
			src, dst = there, netip.AddrPort{}
		}
		other[i].Data, _ = packet.Rewrite(c.Data, src, dst)
	}
	unlike := slices.Clone(test)
	for i, c := range unlike {
		unlike[i].Data = bytes.Replace(c.Data, []byte("GET "), []byte("gET "), 1)
		packet.FixChecksums(unlike[i].Data)
	}
	garbage := []locate.CapturedPacket{{Data: []byte("\x1b[31mgarbage\x00\xff\xff garbage garbage")}}
	for _, c := range []struct {
		name          string
		control, test []locate.CapturedPacket
		want          string
	}{
		{"empty", nil, test, "control capture: no IP packet"},
		{"garbage", control, garbage, "test capture: none of its 1 packets can be read"},
		{"the same", control, control, `both carry the name "example.com"`},
		{"no request", control, unlike, "the control carries http, the test raw"},
		{"another server", control, other, "the test to 45.10.0.99:80"},
		{"no requests", from(control, func(p packet.Packet) bool { return p.SrcPort == 80 || p.Proto != packet.TCP }), test, "does it hold the outgoing direction"},
		{"no traceroute", control, from(test, func(p packet.Packet) bool { return len(p.Payload) == 0 || p.TTL == 4 }), "left with TTL 4"},
		{"no TCP", from(control, func(p packet.Packet) bool { return p.Proto != packet.TCP }), test, "no TCP among"},
	} {
		_, err := locate.FromCaptures(c.control, c.test)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\x00\n") {
			t.Errorf("%s: raw bytes in %q", c.name, err)
		}
	}
	// Without what came back nothing is known, and nothing is claimed.
	out := func(p packet.Packet) bool { return p.Proto == packet.TCP && p.DstPort == 80 }
	if _, l := conclude(t, from(control, out), from(test, out)); len(l.Set) > 0 {
		t.Errorf("%+v", l)
	}
}

// FuzzFromCaptures reads pairs of captures of any bytes: pieces of a length in
// two bytes, alternately after a direction byte of the control and the test.
func FuzzFromCaptures(f *testing.F) {
	join := func(control, test []locate.CapturedPacket) (b []byte) {
		for i, list := range [][]locate.CapturedPacket{control, test} {
			for _, c := range list {
				b = append(b, byte(i), byte(len(c.Data)>>8), byte(len(c.Data)))
				b = append(b, c.Data...)
			}
		}
		return b
	}
	for _, p := range []capturedPath{
		{hops: 4, link: 2, device: resets(true)},
		{hops: 4, link: 2, device: copies(false), v6: true},
		{hops: 3, link: 2, device: resets(false), quote: 8},
	} {
		f.Add(join(p.pair()))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var lists [2][]locate.CapturedPacket
		for at := capturedFrom; len(b) >= 3; at = at.Add(200 * time.Millisecond) {
			n := min(int(b[1])<<8|int(b[2]), len(b)-3)
			lists[b[0]&1] = append(lists[b[0]&1], locate.CapturedPacket{At: at, Data: b[3 : 3+n]})
			b = b[3+n:]
		}
		list, err := locate.FromCaptures(lists[0], lists[1])
		_, err2 := locate.PublishedOutcome(lists[0], lists[1])
		if (err == nil) != (err2 == nil) {
			t.Fatalf("%v, but %v", err, err2)
		}
		if err != nil {
			for _, r := range err.Error() {
				if r < ' ' || r > '~' {
					t.Fatalf("raw bytes in %q", err)
				}
			}
			return
		}
		if len(list) > len(lists[0])+len(lists[1]) {
			t.Fatalf("%d observations of %d packets", len(list), len(lists[0])+len(lists[1]))
		}
		for _, o := range list {
			if o.TTL < 1 || o.Path == nil || o.Path.RTTUS < 0 || o.TookUS < 0 || o.StartUS < 0 {
				t.Fatalf("%+v", o)
			}
		}
		locate.Infer(&measure.Measurement{Observations: list}, nil)
	})
}
