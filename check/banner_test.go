package check_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"govah/check"
	"govah/identify"
	"govah/lab"
	"govah/measure"
	"govah/packet"
	"govah/wire"
)

// locatedOn is a location between two routers that the path showed.
func locatedOn(change func(*measure.Location)) measure.Location {
	l := measure.Location{Outcome: measure.Located, Remote: "45.10.0.10:443",
		Set: []measure.Place{{Low: 2, From: "5.100.254.2", To: "5.100.254.3", PerMille: 900}, {Low: 3, From: "5.100.254.3", To: "5.100.254.4", PerMille: 95}}}
	for ttl, a := range []string{"192.168.1.1", "5.100.254.2", "5.100.254.3", "5.100.254.4"} {
		l.Hops = append(l.Hops, measure.Hop{TTL: ttl + 1, Routers: []measure.Router{{Address: a}}})
	}
	l.Hops = append(l.Hops, measure.Hop{TTL: 5, Server: true, Routers: []measure.Router{{Address: "45.10.0.10"}}})
	if change != nil {
		change(&l)
	}
	return l
}

func TestNeighbours(t *testing.T) {
	link := func(low int, from, to string) func(*measure.Location) {
		return func(l *measure.Location) { l.Set = []measure.Place{{Low: low, From: from, To: to, PerMille: 990}} }
	}
	seen := func(ttl int, address string, then func(*measure.Location)) func(*measure.Location) {
		return func(l *measure.Location) {
			l.Hops[ttl-1].Routers = append(l.Hops[ttl-1].Routers, measure.Router{Address: address})
			then(l)
		}
	}
	for _, c := range []struct {
		name string
		list []measure.Location
		want string // address, TTL and probability of each
	}{
		{"both ends, the likeliest link first", []measure.Location{locatedOn(nil)}, "5.100.254.2/2/900 5.100.254.3/3/995"},
		{"each once", []measure.Location{locatedOn(nil), locatedOn(nil)}, "5.100.254.2/2/900 5.100.254.3/3/995"},
		{"two links are as likely", []measure.Location{locatedOn(func(l *measure.Location) { l.Set[0].PerMille, l.Set[1].PerMille = 500, 490 })}, "5.100.254.2/2/500 5.100.254.3/3/990 5.100.254.4/4/490"},
		{"not located", []measure.Location{locatedOn(func(l *measure.Location) { l.Outcome = measure.AtEnd }), locatedOn(func(l *measure.Location) { l.Outcome = measure.NotLocated })}, ""},
		{"one end is silent", []measure.Location{locatedOn(link(2, "5.100.254.2", ""))}, "5.100.254.2/2/990"},
		{"the server is no router", []measure.Location{locatedOn(link(4, "5.100.254.4", "45.10.0.10"))}, "5.100.254.4/4/990"},
		{"not on the path", []measure.Location{locatedOn(link(2, "198.51.100.9", "8.8.8.8"))}, ""},
		{"at another hop", []measure.Location{locatedOn(link(3, "5.100.254.2", "5.100.254.3"))}, ""},
		{"the first router is one's own", []measure.Location{locatedOn(link(1, "192.168.1.1", "5.100.254.2"))}, "192.168.1.1/1/990 5.100.254.2/2/990"},
		{"on this device", []measure.Location{locatedOn(link(0, "", "192.168.1.1"))}, "192.168.1.1/1/990"},
		{"a private address farther away", []measure.Location{locatedOn(seen(3, "10.0.0.1", link(2, "5.100.254.2", "10.0.0.1")))}, "5.100.254.2/2/990"},
		{"the operator's shared addresses", []measure.Location{locatedOn(seen(1, "100.64.0.1", link(1, "100.64.0.1", "5.100.254.2")))}, "5.100.254.2/2/990"},
		{"nonsense", []measure.Location{locatedOn(seen(2, "router", link(2, "router", "127.0.0.1")))}, ""},
		{"no more than four", []measure.Location{locatedOn(func(l *measure.Location) { l.Set[0].PerMille, l.Set[1].PerMille = 500, 490 }), locatedOn(func(l *measure.Location) {
			for i := range l.Hops[:4] {
				l.Hops[i].Routers = []measure.Router{{Address: fmt.Sprintf("2a0f:1000::fe0%d", i+1)}}
			}
			l.Set = []measure.Place{{Low: 2, From: "2a0f:1000::fe02", To: "2a0f:1000::fe03", PerMille: 999}}
		})}, "5.100.254.2/2/500 5.100.254.3/3/990 2a0f:1000::fe02/2/999 2a0f:1000::fe03/3/999"},
	} {
		var got []string
		for _, n := range check.Neighbours(c.list) {
			got = append(got, fmt.Sprintf("%s/%d/%d", n.Addr, n.Beside.TTL, n.Beside.PerMille))
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %s, want %s", c.name, text, c.want)
		}
	}
}

// answering is a lab whose routers 2 and 3 have services, and what was heard
// of them.
type answering struct {
	id   *measure.Identification
	m    *measure.Measurement
	took time.Duration
	sent map[netip.AddrPort][]packet.Packet // by the client, to a router
}

func askLab(t *testing.T, routers string, asked ...string) answering {
	t.Helper()
	text := "schema = 1\ntitle = \"a path\"\nabout = \"for a test\"\n[[client-network]]\nname = \"home\"\nasn = 64600\ncountry = \"XX\"\nhops = 4\ndelay = \"2ms\"\n" + routers +
		"\n[[network]]\nname = \"hosting\"\n[[site]]\nname = \"open.example\"\n"
	s, err := lab.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	w, err := lab.New(s, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	out := answering{sent: map[netip.AddrPort][]packet.Packet{}}
	var mu sync.Mutex
	w.Tap(func(sent bool, pkt []byte) {
		p, err := packet.Parse(slices.Clone(pkt))
		if err != nil || !sent {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if slices.Contains(w.Routers(), p.Dst) {
			to := netip.AddrPortFrom(p.Dst, p.DstPort)
			out.sent[to] = append(out.sent[to], p)
		}
	})
	var list []check.Neighbour
	for i, a := range asked {
		list = append(list, check.Neighbour{Addr: netip.MustParseAddr(a), Beside: measure.Beside{TTL: 2 + i, PerMille: 990}})
	}
	roots, err := w.Network().Roots()
	if err != nil {
		t.Fatal(err)
	}
	cfg := check.Config{Network: w.Network(), Seed: 1, Pace: check.PaceFast, Trust: wire.Trust{Public: w.Public(), System: roots, Now: w.Now}}
	log, began := wire.NewLog(time.Now(), nil), time.Now()
	check.AskNeighbours(t.Context(), cfg, log, identify.Documented(nil), list)
	out.took = time.Since(began)
	out.m = &measure.Measurement{ID: "b1", Observations: log.Observations(), Complete: true}
	out.id = identify.Documented(nil).Infer(out.m)
	if out.id == nil {
		t.Fatal("nothing follows")
	}
	w.Tap(nil)
	return out
}

const service = "[[client-network.router.service]]\n"

func TestAskNeighbours(t *testing.T) {
	for _, c := range []struct {
		name, routers string
		outcome       measure.Likeness
		product       string // of the router at hop 2
		says          []string
		within        time.Duration
	}{
		{"a known product greets", service + "ports = [22]\ngreeting = \"SSH-2.0-ROSSSH\\r\\n\"\n", measure.RouterNamed, "RouterOS", []string{"22 greeting SSH-2.0-ROSSSH"}, 3 * time.Second},
		{"its file server does", service + "ports = [21]\ngreeting = \"220 core FTP server (MikroTik 6.46.4) ready\\r\\n\"\n", measure.RouterNamed, "RouterOS", []string{"21 greeting 220 core FTP server (MikroTik 6.46.4) ready"}, 3 * time.Second},
		{"its page does", service + "ports = [80]\npage = \"<title>RouterOS router configuration page</title>\"\n", measure.RouterNamed, "RouterOS", []string{"80 title RouterOS router configuration page"}, 3 * time.Second},
		{"a header does", service + "ports = [8080]\nheader = [\"Server: SonicWALL\"]\nstatus = \"401 Unauthorized\"\n", measure.RouterNamed, "SonicWall", []string{"8080 server SonicWALL"}, 3 * time.Second},
		{"a certificate does", service + "ports = [8443]\nsubject = \"CN=FGT60E4Q17000000,OU=FortiGate,O=Fortinet\"\npage = \"<title>hello</title>\"\n", measure.RouterNamed, "FortiGate",
			[]string{"8443 certificate CN=FGT60E4Q17000000,OU=FortiGate,O=Fortinet", "8443 title hello"}, 3 * time.Second},
		{"what nobody knows", service + "ports = [22]\ngreeting = \"SSH-2.0-OpenSSH_9.6\\r\\n\"\n" + service + "ports = [80]\nheader = [\"Server: nginx\"]\npage = \"<title>Welcome to nginx!</title>\"\n",
			measure.RouterUnknown, "", []string{"22 greeting SSH-2.0-OpenSSH_9.6", "80 server nginx", "80 title Welcome to nginx!"}, 3 * time.Second},
		{"a notice that names makers", service + "ports = [23]\ngreeting = \"\\r\\nCisco and Huawei staff only. MikroTik FTP server (see below)\\r\\nLogin: \"\n", measure.RouterUnknown, "",
			[]string{"23 greeting  Cisco and Huawei staff only. MikroTik FTP server (see below) Login:"}, 3 * time.Second},
		{"all is refused", "", measure.RouterSilent, "", nil, 3 * time.Second},
		{"all is swallowed", "drop = true\n", measure.RouterSilent, "", nil, 20 * time.Second},
		{"accepts and is silent", service + "ports = [21, 22, 23]\n", measure.RouterSilent, "", nil, 20 * time.Second},
		{"bytes without end", service + "ports = [22, 23]\ngreeting = \"AAAAAAAA\"\nendless = true\n" + service + "ports = [80]\npage = \"<p>BBBBBBBB\"\nendless = true\n" +
			service + "ports = [443]\nsubject = \"CN=x\"\npage = \"CCCC\"\nendless = true\n", measure.RouterUnknown, "", []string{"443 certificate CN=x"}, 12 * time.Second},
		{"bytes that act on a screen", service + "ports = [22]\ngreeting = \"\\u001b]0;owned\\u0007\\u202eHSS\\r\\n\"\n", measure.RouterUnknown, "", []string{"22 greeting %1B]0;owned%07%E2%80%AEHSS"}, 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := askLab(t, "[[client-network.router]]\nat = 2\n"+c.routers, "5.100.254.2")
			v := a.id.Routers[0]
			if a.id.Outcome != c.outcome || len(a.id.Routers) != 1 || v.Address != "5.100.254.2" || v.TTL != 2 || v.PerMille != 990 {
				t.Errorf("%s, want %s: %+v", a.id.Outcome, c.outcome, a.id)
			}
			if len(a.id.Products) > 0 || a.id.Cluster != "" {
				t.Errorf("the device has got what is the router's: %+v", a.id)
			}
			if got := names(v.Products); got != c.product {
				t.Errorf("product %q, want %q", got, c.product)
			}
			var says []string
			for _, s := range v.Says {
				says = append(says, fmt.Sprintf("%d %s %s", s.Port, s.Kind, s.Text))
				if len(s.Text) > 200 || s.Because == "" {
					t.Errorf("%d bytes said, because of %q", len(s.Text), s.Because)
				}
			}
			for _, want := range c.says {
				if !slices.Contains(says, want) {
					t.Errorf("it does not say %q: %q", want, says)
				}
			}
			if a.took > c.within {
				t.Errorf("took %s", a.took)
			}
			if len(v.Asked) != len(check.BannerPorts) || a.id.Probes != len(check.BannerPorts) {
				t.Errorf("asked at %v, %d connections", v.Asked, a.id.Probes)
			}
			modest(t, a)
		})
	}
}

func names(list []measure.Candidate) string {
	var out []string
	for _, c := range list {
		out = append(out, c.Name)
	}
	return strings.Join(out, " ")
}

// modest checks that no more was sent and kept than is promised.
func modest(t *testing.T, a answering) {
	t.Helper()
	if n := len(check.BannerPorts) * len(a.id.Routers); len(a.sent) != n {
		t.Errorf("packets to %d addresses and ports, want %d", len(a.sent), n)
	}
	for to, list := range a.sent {
		if !slices.Contains(check.BannerPorts, to.Port()) {
			t.Errorf("%d packets to %s", len(list), to)
		}
		from, data := map[uint16]bool{}, []byte(nil)
		for _, p := range list {
			from[p.SrcPort] = true
			if p.Proto != packet.TCP {
				t.Errorf("%s: a packet of protocol %d", to, p.Proto)
			}
			data = append(data, p.Payload...)
		}
		if len(from) != 1 {
			t.Errorf("%s: %d connections", to, len(from))
		}
		switch text := string(data); to.Port() {
		case 21, 22, 23:
			if text != "" {
				t.Errorf("%s: said %q", to, text)
			}
		case 80, 8080:
			if text != "" && (strings.Count(text, " HTTP/1.1\r\n") != 1 || !strings.HasPrefix(text, "GET / HTTP/1.1\r\nHost: "+strings.TrimSuffix(to.String(), ":80")+"\r\n") || !strings.HasSuffix(text, "\r\n\r\n") || strings.Contains(text, "Authorization")) {
				t.Errorf("%s: asked %q", to, text)
			}
		}
	}
	for i := range a.m.Observations {
		o := &a.m.Observations[i]
		if o.Stage != measure.StageBanner || o.Experiment != measure.ExpBanner || o.Beside == nil || o.Role != measure.RoleTest {
			t.Errorf("observation of another kind: %+v", o)
		}
		if g := o.Greeting; g != nil && (len(g.Text) > 3*(4<<10) || g.Bytes > 4<<10+1 || strings.ContainsFunc(g.Text, func(r rune) bool { return !unicode.IsPrint(r) })) {
			t.Errorf("%s: %d bytes kept of %d: %.80q", o.ID, len(g.Text), g.Bytes, g.Text)
		}
		if o.HTTP != nil && o.HTTP.BodyBytes > 4<<10 {
			t.Errorf("%s: %d bytes of a page", o.ID, o.HTTP.BodyBytes)
		}
		if o.Received > 128<<10 {
			t.Errorf("%s: %d bytes read", o.ID, o.Received)
		}
	}
}

// Several routers are asked side by side, and each answers for itself.
func TestAskNeighboursOfBothFamilies(t *testing.T) {
	a := askLab(t, "[[client-network.router]]\nat = 2\n"+service+"ports = [22]\ngreeting = \"SSH-2.0-Cisco-1.25\\r\\n\"\n[[client-network.router]]\nat = 3\n", "5.100.254.2", "2a0f:1000::fe03", "2a0f:1000::fe02")
	got := map[string]string{}
	for _, v := range a.id.Routers {
		got[v.Address] = names(v.Products)
	}
	if want := map[string]string{"5.100.254.2": "IOS or ASA", "2a0f:1000::fe02": "IOS or ASA", "2a0f:1000::fe03": ""}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	modest(t, a)
}

// A context that ends leaves no connection that was not begun.
func TestAskNeighboursInterrupted(t *testing.T) {
	s, err := lab.Load("clean")
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.New(s, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	log := wire.NewLog(time.Now(), nil)
	check.AskNeighbours(ctx, check.Config{Network: w.Network(), Pace: check.PaceGentle}, log, identify.Documented(nil),
		[]check.Neighbour{{Addr: w.Routers()[0]}})
	if n := len(log.Observations()); n != 0 {
		t.Errorf("%d steps", n)
	}
}
