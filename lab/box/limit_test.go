package box

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"govah/packet"
)

// RU-03: policing drops what is above the rate.
func TestPolicing(t *testing.T) {
	l := newLink(t, blockedTLS("throttle", func(r *Rule) { r.Rate = 128 }))
	c := l.open(client4, server4)
	if !only(c.up(hello(t, "blocked.example")), Out) {
		t.Fatal("the trigger did not pass")
	}
	bytes, lost := 0, 0
	for range 20 * 100 { // 20 s at 1.1 Mbit/s
		l.wait(10 * time.Millisecond)
		out := c.down(strings.Repeat("x", 1400))
		for _, s := range out {
			if s.delay != 0 {
				t.Fatal("policing delayed a packet")
			}
			bytes += len(s.Raw)
		}
		lost += 1 - len(out)
	}
	// 20 s at 16,000 bytes a second, and the burst.
	if want := 20*16000 + 8000; bytes > want || bytes < want*9/10 || lost == 0 {
		t.Errorf("%d bytes came through in 20 s, at most %d may; %d lost", bytes, want, lost)
	}
	for range 20 {
		if !only(c.up(strings.Repeat("x", 1400)), Out) {
			t.Fatal("the upload was throttled as well")
		}
	}
	o := l.open(netip.AddrPortFrom(client4.Addr(), 40001), server4)
	o.up(hello(t, "other.example"))
	for range 50 {
		if !only(o.down(strings.Repeat("x", 1400)), In) {
			t.Fatal("another name's flow was throttled")
		}
	}
}

// TR-02: after one hit, later flows to the address are throttled too.
func TestThrottleRemembers(t *testing.T) {
	l := newLink(t, blockedTLS("throttle", func(r *Rule) { r.Rate, r.Residual, r.For = 64, "destination", "60s" }))
	lossy := func(port uint16, name string) bool {
		c := l.open(netip.AddrPortFrom(client4.Addr(), port), server4)
		if !only(c.up(hello(t, name)), Out) {
			t.Fatal("the hello did not pass")
		}
		passed := 0
		for range 20 {
			passed += len(c.down(strings.Repeat("x", 1400)))
		}
		return passed < 20
	}
	if lossy(40000, "other.example") || !lossy(40001, "blocked.example") || !lossy(40002, "other.example") {
		t.Error("not the flows after the first hit were throttled")
	}
	l.wait(61 * time.Second)
	if lossy(40003, "other.example") {
		t.Error("the address is still throttled")
	}
}

func TestShaping(t *testing.T) {
	l := newLink(t, Rule{Layer: "tcp", Action: "throttle", Rate: 800, Shaping: true, Queue: 20_000, Side: "both"})
	c := l.open(client4, server4)
	l.wait(time.Second)
	var last time.Duration
	passed := 0
	for range 40 {
		for _, s := range c.down(strings.Repeat("x", 1000)) {
			if gap := s.delay - last; gap < 10*time.Millisecond || gap > 11*time.Millisecond { // 1040 bytes at 100,000 a second
				t.Errorf("packet %d comes %v after the one before it", passed, gap)
			}
			last = s.delay
			passed++
		}
	}
	if passed < 19 || passed > 21 {
		t.Errorf("%d packets of 1,040 bytes went into a queue of 20,000", passed)
	}
}

func feed(b Box, d Direction, raw []byte, now time.Time) (out []time.Duration) {
	b.Handle(d, append([]byte(nil), raw...), now, func(_ Direction, _ []byte, delay time.Duration) { out = append(out, delay) })
	return out
}

func TestLine(t *testing.T) {
	now := time.Unix(1000, 0)
	small := packet.BuildUDP(client4, server4, 9, 0, make([]byte, 100))
	large := packet.BuildUDP(client4, server4, 9, 0, make([]byte, 1400))
	six := packet.BuildUDP(client6, server6, 9, 0, make([]byte, 100))

	t.Run("loss", func(t *testing.T) {
		for _, burst := range []int{0, 5} {
			l := &Line{Loss: 30, Burst: burst}
			l.Seed(4)
			const n = 60_000
			lost, runs, losing := 0, 0, false
			for range n {
				gone := len(feed(l, In, small, now)) == 0
				if gone {
					lost++
					if !losing {
						runs++
					}
				}
				losing = gone
			}
			if share := lost * 1000 / n; share < 26 || share > 34 {
				t.Errorf("burst %d: %d per thousand lost, want 30", burst, share)
			}
			if mean := float64(lost) / float64(runs); burst == 5 && (mean < 4.5 || mean > 5.5) || burst == 0 && mean > 1.1 {
				t.Errorf("burst %d: runs of %.2f on average", burst, mean)
			}
		}
	})
	t.Run("jitter", func(t *testing.T) {
		l := &Line{Jitter: 20 * time.Millisecond}
		var low, high time.Duration = time.Hour, 0
		at, last := now, now
		for range 1000 {
			d := feed(l, Out, small, at)[0]
			low, high = min(low, d), max(high, d)
			if at.Add(d).Before(last) {
				t.Fatal("a packet overtook the one before it")
			}
			last = at.Add(d)
			at = at.Add(5 * time.Millisecond)
		}
		if low > 2*time.Millisecond || high < 18*time.Millisecond || high >= 20*time.Millisecond {
			t.Errorf("delays between %v and %v", low, high)
		}
	})
	t.Run("MTU black hole", func(t *testing.T) {
		l := &Line{MTU: 1280}
		if len(feed(l, Out, large, now)) != 0 || len(feed(l, Out, small, now)) != 1 {
			t.Error("not the large packet alone was swallowed")
		}
	})
	t.Run("bufferbloat", func(t *testing.T) {
		l := &Line{RateKbps: 1000, Queue: 125_000} // a second of queue
		var last time.Duration
		passed := 0
		for range 200 {
			if d := feed(l, In, large, now); len(d) == 1 {
				passed++
				last = d[0]
			}
		}
		if last < 950*time.Millisecond || last > 1050*time.Millisecond || passed < 85 || passed > 92 {
			t.Errorf("%d packets queued, the last for %v", passed, last)
		}
		if d := feed(l, Out, small, now); len(d) != 1 || d[0] != 0 {
			t.Error("the upload was queued")
		}
	})
	t.Run("sleep", func(t *testing.T) {
		l := &Line{Every: 10 * time.Second, Sleep: 2 * time.Second}
		dead := 0
		for i := range 300 { // 30 s
			dead += 1 - len(feed(l, Out, small, now.Add(time.Duration(i)*100*time.Millisecond)))
		}
		if dead < 39 || dead > 41 { // from 10 to 12 and from 20 to 22 s
			t.Errorf("silent for %d of 300 tenths of a second", dead)
		}
	})
	t.Run("full table", func(t *testing.T) {
		l := &Line{MaxFlows: 10}
		passed := 0
		flow := func(i int) []byte {
			return packet.BuildTCP(packet.Segment{Src: netip.AddrPortFrom(client4.Addr(), uint16(1000+i)), Dst: server4, Flags: packet.SYN})
		}
		for i := range 30 {
			passed += len(feed(l, Out, flow(i), now))
		}
		if passed != 10 || len(feed(l, Out, flow(0), now)) != 1 || len(feed(l, Out, flow(29), now)) != 0 {
			t.Errorf("%d new flows passed a table of 10", passed)
		}
		if len(feed(l, Out, flow(29), now.Add(time.Minute))) != 1 {
			t.Error("idle flows stay in the table")
		}
	})
	t.Run("IPv6", func(t *testing.T) {
		l := &Line{NoIPv6: true}
		if len(feed(l, Out, six, now)) != 0 || len(feed(l, Out, small, now)) != 1 {
			t.Error("not IPv6 alone was swallowed")
		}
	})
}

// Two boxes in a row (IR-27): what the nearer one drops, the farther never
// sees; what the farther injects passes the nearer.
func TestChain(t *testing.T) {
	near, err := NewFilter([]Rule{{Layer: "tcp", Ports: []int{443}, Action: "drop"}}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	far, err := NewFilter([]Rule{{Layer: "tcp", Segment: "syn", Action: "reset", TTL: 50, Ends: "client"}}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	slow := &Line{Jitter: 1} // adds nothing, and is on the way
	l := &link{t: t, box: Chain{near, slow, far}, now: time.Unix(1, 0)}
	c := l.unopened(client4, server4)
	if len(c.send(Out, c.segment(true, packet.SYN, nil))) != 0 {
		t.Error("the nearer box did not act first")
	}
	c = l.unopened(client4, web4)
	if out := c.send(Out, c.segment(true, packet.SYN, nil)); len(out) != 1 || out[0].d != In || out[0].TTL != 50 {
		t.Errorf("%+v", out)
	}
	if out := c.send(In, c.segment(false, packet.ACK, nil)); !only(out, In) {
		t.Error("a packet did not come in through all of them")
	}
	if out := (&link{t: t, box: Chain{}}).send(Out, c.segment(true, packet.SYN, nil)); !only(out, Out) {
		t.Error("an empty chain")
	}
}

func TestRulesAreChecked(t *testing.T) {
	for want, r := range map[string]Rule{
		"it is one of: drop, reset":              {Layer: "tcp", Action: "eat"},
		"needs an action":                        {Layer: "tcp"},
		"needs a layer":                          {Action: "drop"},
		"dns, tls, http":                         {Layer: "smtp", Action: "drop"},
		"needs layer dns, not tls":               {Layer: "tls", Action: "dns-refused"},
		"needs layer http":                       {Layer: "tls", Action: "page"},
		"alert needs layer tls":                  {Layer: "http", Action: "alert"},
		"neither an address nor a prefix":        {Layer: "ip", Action: "drop", Addresses: []string{"example.org"}},
		"clients:":                               {Layer: "ip", Action: "drop", Clients: []string{"1.2.3"}},
		`"x" is no address`:                      {Layer: "dns", Action: "dns-answer", Answers: []string{"x"}},
		"needs answers or a cname":               {Layer: "dns", Action: "dns-answer"},
		"of a resolver":                          {Layer: "dns", Action: "dns-redirect"},
		"needs a rate in kbit/s":                 {Layer: "tcp", Action: "throttle"},
		"needs bytes":                            {Layer: "tcp", Action: "freeze"},
		"bytes, packets or records":              {Layer: "tcp", Action: "drop-after"},
		"share is 101; it lies between 0 and":    {Layer: "tcp", Action: "drop", Share: 101},
		"ttl is 256":                             {Layer: "tls", Action: "reset", TTL: 256},
		"residual and for belong together":       {Layer: "tcp", Action: "drop", Residual: "client"},
		"need residual":                          {Layer: "tcp", Action: "drop", Restart: true},
		"no duration such as":                    {Layer: "tcp", Action: "reset", After: "soon"},
		"interval":                               {Layer: "tcp", Action: "reset", Interval: "-1s"},
		"neither a date":                         {Layer: "tcp", Action: "drop", From: "yesterday"},
		"is not like 18-23":                      {Layer: "tcp", Action: "drop", Hours: "9-33"},
		"R, RA or RPA":                           {Layer: "tls", Action: "reset", Flags: "SYN"},
		"no regular expression":                  {Layer: "tls", Action: "drop", Matches: []string{"("}},
		"need layer dns, tls, http or quic":      {Layer: "tcp", Action: "drop", Names: []string{"a.example"}},
		"paths need layer http":                  {Layer: "tls", Action: "drop", Paths: []string{"/"}},
		"qtype needs layer dns":                  {Layer: "tls", Action: "drop", QType: "A"},
		"shape and segment need layer tcp":       {Layer: "tls", Action: "drop", Shape: "random"},
		"handshaken and records need layer tls":  {Layer: "tcp", Action: "drop", Handshaken: true},
		"action inject-header needs header":      {Layer: "http", Action: "inject-header"},
		"action redirect needs to":               {Layer: "http", Action: "redirect"},
		"engage needs action drop":               {Layer: "tls", Action: "reset", Engage: "1s"},
		"versions and source-port-above need":    {Layer: "tls", Action: "drop", Versions: []uint32{1}},
		"source \"here\" is no address":          {Layer: "ip", Action: "unreachable", Source: "here"},
		"then \"burn\" is not known":             {Layer: "tcp", Action: "drop", Then: "burn"},
		"handshaken needs action drop or drop-a": {Layer: "tls", Action: "reset", Handshaken: true},
	} {
		_, err := NewFilter([]Rule{{Layer: "ip", Action: "drop"}, r}, 1, nil)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "rule 2: ") {
			t.Errorf("%+v:\n  %v, want %q", r, err, want)
		}
	}
}

// Whatever comes, no box may panic or emit what is no packet.
func FuzzFilter(f *testing.F) {
	rules := []Rule{
		{Layer: "dns", Contains: []string{"a"}, Action: "dns-answer", Answers: []string{"10.0.0.1", "d0::11"}, When: "after"},
		{Layer: "dns", Action: "dns-redirect", To: "192.0.2.253"},
		{Layer: "tls", Names: []string{"blocked.example"}, Action: "reset", Residual: "3-tuple", For: "60s", OnPath: true},
		{Layer: "tls", Allow: []string{"ok.example"}, Action: "drop", Handshaken: true},
		{Layer: "http", Contains: []string{"script"}, Action: "inject-script", Body: "<script></script>"},
		{Layer: "http", Contains: []string{"page"}, Action: "page", Body: "no", Ends: "server"},
		{Layer: "quic", Contains: []string{"q"}, Action: "drop"},
		{Layer: "tcp", Shape: "random", Action: "drop"},
		{Layer: "tcp", Segment: "syn-ack", Share: 30, Action: "unreachable"},
		{Layer: "tcp", Action: "throttle", Rate: 100, Shaping: true},
	}
	f.Add([]byte(hello(f, "blocked.example")), []byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte(request("script.example", "/")), []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
	f.Add(question(f, "a.example", 1, 5000, 3)[28:], []byte{})
	f.Add([]byte(quicInitials(f, "1")[0]), []byte{0x40})
	f.Fuzz(func(t *testing.T, up, down []byte) {
		if len(up) > 60_000 || len(down) > 60_000 {
			return
		}
		box, err := NewFilter(rules, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(0, 0)
		send := func(d Direction, b []byte) {
			now = now.Add(time.Millisecond)
			box.Handle(d, b, now, func(_ Direction, b []byte, _ time.Duration) {
				if _, err := packet.Parse(b); err != nil {
					t.Fatalf("emitted what is no packet: %v", err)
				}
			})
		}
		for _, port := range []uint16{443, 80, 53} {
			server := netip.AddrPortFrom(server4.Addr(), port)
			send(Out, packet.BuildTCP(packet.Segment{Src: client4, Dst: server, Seq: 9, Flags: packet.SYN}))
			seq, ack := uint32(10), uint32(0xfffffff0)
			for range 3 {
				send(Out, packet.BuildTCP(packet.Segment{Src: client4, Dst: server, Seq: seq, Ack: ack, Flags: packet.ACK, Payload: up}))
				send(In, packet.BuildTCP(packet.Segment{Src: server, Dst: client4, Seq: ack, Ack: seq, Flags: packet.ACK, Payload: down}))
				send(In, packet.BuildTCP(packet.Segment{Src: server, Dst: client4, Seq: ack + uint32(len(down)/2), Ack: seq, Flags: packet.ACK | packet.FIN, Payload: down}))
				seq, ack = seq+uint32(len(up)/2), ack+uint32(len(down)/2)
			}
			send(Out, packet.BuildUDP(client4, server, 5, 0, up))
			send(In, packet.BuildUDP(server, client4, 5, 0, down))
		}
		if _, err := packet.Parse(up); err == nil {
			send(Out, up)
			send(In, up)
		}
	})
}

// BenchmarkFilter is what a link with ten rules costs a packet of an
// established flow; the ratio is to parsing it alone.
func BenchmarkFilter(b *testing.B) {
	var rules []Rule
	for range 5 {
		rules = append(rules, Rule{Layer: "tls", Names: []string{"blocked.example", ".other.example"}, Action: "reset"},
			Rule{Layer: "ip", Addresses: []string{"203.0.113.0/24", "2001:db8:5::/48"}, Action: "drop"})
	}
	box, err := NewFilter(rules, 1, nil)
	if err != nil {
		b.Fatal(err)
	}
	raw := packet.BuildTCP(packet.Segment{Src: server4, Dst: client4, Flags: packet.ACK, Payload: make([]byte, 1400)})
	now := time.Now()
	emit := func(Direction, []byte, time.Duration) {}
	var filter, parse time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		for range 1000 {
			box.Handle(In, raw, now, emit)
		}
		mid := time.Now()
		for range 1000 {
			if _, err := packet.Parse(raw); err != nil {
				b.Fatal(err)
			}
		}
		filter += mid.Sub(start)
		parse += time.Since(mid)
	}
	b.ReportMetric(float64(filter.Nanoseconds())/float64(b.N)/1000, "ns/packet")
	b.ReportMetric(float64(filter)/float64(parse), "x-parse")
}
