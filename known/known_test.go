package known

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"sort"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"govah/measure"
)

// evidenceOf puts an example where its row looks.
func evidenceOf(s Signature, example string) Evidence {
	if name, ok := strings.CutPrefix(s.Where, "header:"); ok {
		return Evidence{Headers: []measure.Header{{Name: strings.ToUpper(name[:1]) + name[1:], Value: example}}}
	}
	if s.Where == "banner" {
		return Evidence{Greeting: example}
	}
	return Evidence{Body: []byte("<!doctype html>\n" + example + "\n")}
}

func TestEveryRowMatchesItsExample(t *testing.T) {
	kinds := map[string]bool{"blockpage": true, "product": true, "lookalike": true, "captcha": true, "geoblock": true, "parked": true, "captive": true}
	for _, s := range Signatures() {
		if !kinds[s.Kind] {
			t.Errorf("%s: unknown kind %q", s.ID, s.Kind)
		}
		if s.Source == "" {
			t.Errorf("%s: no source", s.ID)
		}
		switch s.Scope {
		case "", measure.ScopeDevice, measure.ScopeLAN, measure.ScopeOperator, measure.ScopeBeyond, measure.ScopeUnknown:
		default:
			t.Errorf("%s: unknown scope %q", s.ID, s.Scope)
		}
		found := false
		matches := Match(evidenceOf(s, s.Example))
		if name := s.mark(); name != "" {
			if len(matches) > 0 || len(Shipped().MatchPackets(map[string]string{"other": s.Example})) > 0 {
				t.Errorf("%s: a mark of a packet matched in a page, or as another mark", s.ID)
			}
			matches = Shipped().MatchPackets(map[string]string{"other": s.Example, name: s.Example})
		}
		for _, m := range matches {
			found = found || m.Row == s.ID
			if m.Row == s.ID && (m.Kind != s.Kind || m.Where != s.Where || m.Product != s.Product) {
				t.Errorf("%s: match %+v does not describe its row", s.ID, m)
			}
		}
		if !found {
			t.Errorf("%s: its example %q does not match", s.ID, s.Example)
		}
		// In the wrong place it must not.
		other := Evidence{Headers: []measure.Header{{Name: "X-Nothing", Value: s.Example}}}
		if m := Match(other); len(m) != 0 {
			t.Errorf("%s: example in an unrelated header matched %v", s.ID, m)
		}
		if m := Match(Evidence{Body: []byte(s.Example)}); s.Where == "banner" && len(m) != 0 {
			t.Errorf("%s: a greeting in a page matched %v", s.ID, m)
		}
		if m := Match(Evidence{Greeting: s.Example}); s.Where != "banner" && len(m) != 0 {
			t.Errorf("%s: the example in a greeting matched %v", s.ID, m)
		}
		if got, ok := SignatureOf(s.ID); !ok || got.Pattern != s.Pattern {
			t.Errorf("SignatureOf(%q) = %+v, %v", s.ID, got, ok)
		}
	}
	if _, ok := SignatureOf("no.such.row"); ok {
		t.Error("SignatureOf finds a row that does not exist")
	}
}

// The collection that these rows come from filed Server patterns under Location.
func TestServerPatternsAreInTheirHeader(t *testing.T) {
	for _, c := range []struct{ header, value, row string }{
		{"Server", "Protected by WireFilter 3.1", "cl.prod_wirefilter"},
		{"server", "Barracuda/NGFirewall", "cp.a_prod_barracuda_2"},
		{"SERVER", "V2R2C00-IAE/1.0", "cp.a_prod_huawei_esight"},
	} {
		if m := Match(Evidence{Headers: []measure.Header{{Name: c.header, Value: c.value}}}); len(m) != 1 || m[0].Row != c.row {
			t.Errorf("%s: %s matched %v, want %s", c.header, c.value, m, c.row)
		}
		if m := Match(Evidence{Location: c.value}); len(m) != 0 {
			t.Errorf("Location: %s matched %v", c.value, m)
		}
	}
}

func TestMatchIsOncePerRowAndInOrder(t *testing.T) {
	body := bytes.Repeat([]byte(`<iframe src="http://10.10.34.34?type=x&policy=MainPolicy">`), 50)
	got := Match(Evidence{Body: body})
	var rows []string
	for _, m := range got {
		rows = append(rows, m.Row)
	}
	if fmt.Sprint(rows) != "[ir.iframe ir.mainpolicy]" {
		t.Fatalf("rows %v", rows)
	}
	if got[0].Country != "IR" {
		t.Errorf("country %q", got[0].Country)
	}
	if Match(Evidence{}) != nil || MatchHTTP(nil, body) != nil {
		t.Error("nothing matched something")
	}
	if m := MatchHTTP(&measure.HTTP{Location: "http://10.10.34.36/"}, nil); len(m) != 1 || m[0].Row != "ir.location_a" {
		t.Errorf("Location of a record without headers: %v", m)
	}
}

// The automaton must find what a search for each pattern by itself finds.
func TestAutomatonAgreesWithSearchingOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		patterns := rapid.SliceOfNDistinct(rapid.StringMatching(`[abc]{1,5}`), 1, 12, rapid.ID[string]).Draw(t, "patterns")
		rows := make([]int, len(patterns))
		for i := range rows {
			rows[i] = i
		}
		text := rapid.StringMatching(`[abcd]{0,60}`).Draw(t, "text")
		got := map[int]bool{}
		newAutomaton[uint16](patterns, rows).search([]byte(text), func(row, _ int) { got[row] = true })
		for i, p := range patterns {
			if got[i] != strings.Contains(text, p) {
				t.Fatalf("pattern %q in %q: %v", p, text, got[i])
			}
		}
	})
}

func TestBogon(t *testing.T) {
	for addr, kind := range map[string]string{
		"10.10.34.34": "private", "127.0.0.1": "loopback", "0.0.0.0": "unspecified", "0.1.2.3": "this-network", "100.64.0.1": "shared",
		"169.254.1.1": "link-local", "172.31.255.255": "private", "192.168.1.1": "private", "198.18.0.1": "benchmarking", "224.0.0.1": "multicast",
		"243.185.187.39": "reserved", "255.255.255.255": "broadcast", "::": "unspecified", "::1": "loopback", "d0::11": "unallocated",
		"fd00::1": "unique-local", "fe80::1%eth0": "link-local", "::ffff:10.0.0.1": "private", "2001:db8::1": "documentation", "100::1": "discard",
		"8.8.8.8": "", "172.32.0.1": "", "100.128.0.1": "", "2606:4700::1": "", "64:ff9b::808:808": "", "192.0.1.1": "", "2001:4860::1": "",
	} {
		got, ok := Bogon(netip.MustParseAddr(addr))
		if got != kind || ok != (kind != "") {
			t.Errorf("Bogon(%s) = %q, %v; want %q", addr, got, ok, kind)
		}
	}
	if _, ok := Bogon(netip.Addr{}); ok {
		t.Error("the zero address is a bogon")
	}
}

func TestForgedAddress(t *testing.T) {
	for _, c := range []struct {
		addr string
		ttl  int64
		row  string
	}{
		{"10.10.34.34", 60, "ir.10_10_34_34"}, {"10.10.34.36", -1, "ir.10_10_34_36"}, {"d0::11", 30, "ir.d0_11"}, {"127.0.0.1", 300, "tm.loopback"},
		{"208.91.112.55", 1, "cl.dns_prod_fortidns"}, {"146.112.61.106", 1, "cl.dns_prod_opendns_1"}, {"93.46.8.89", 1, "cn.93_46_8_89"},
		{"127.0.0.1", 60, ""}, {"127.0.0.1", -1, ""}, {"216.239.38.120", 60, ""}, {"10.10.34.37", 60, ""}, {"8.8.8.8", 60, ""},
	} {
		m, ok := ForgedAddress(netip.MustParseAddr(c.addr), c.ttl)
		if m.Row != c.row || ok != (c.row != "") {
			t.Errorf("ForgedAddress(%s, %d) = %+v, %v; want %q", c.addr, c.ttl, m, ok, c.row)
		}
	}
	if a, ok := AddressOf(netip.MustParseAddr("216.239.38.120")); !ok || a.Kind != "safesearch" {
		t.Errorf("SafeSearch's address: %+v, %v", a, ok)
	}
	for _, a := range addressTable() {
		if a.Kind != "forged-address" && a.Kind != "filter-address" && a.Kind != "safesearch" || a.Source == "" {
			t.Errorf("row %s: kind %q, source %q", a.ID, a.Kind, a.Source)
		}
	}
}

func TestInterceptionRoot(t *testing.T) {
	const isca = "CN=Information Security Certification Authority,O=ISCA,C=KZ"
	signed := func(issuer, aki string) *measure.TLS {
		return &measure.TLS{Issuer: issuer, Signers: []measure.Signer{{Issuer: issuer, AKI: aki}}}
	}
	for _, c := range []struct {
		name  string
		chain *measure.TLS
		row   string
		how   measure.How
	}{
		{"sha256 of a sent root", &measure.TLS{Issuer: "CN=anything", Chain: []string{"ff", "00309C736DD661DA6F1EB24173AA849944C168A43A15BFFD192EECFDB6F8DBD2"}}, "kz.qaznet", measure.HowSHA256},
		{"authority key identifier", signed("CN=whatever", "C51D3270968C19997CF2E4E3B97708EFE276F318"), "kz.isca0539", measure.HowAKI},
		{"that of an intermediate", &measure.TLS{Issuer: "CN=x", Signers: []measure.Signer{{Issuer: "CN=x", AKI: "01"}, {Issuer: isca, AKI: "d877d30c6f0f3c367f8c34f286fda52843bbb9f3"}}}, "kz.further2", measure.HowAKI},
		{"public key alone", &measure.TLS{Signers: []measure.Signer{{}, {SPKI: "1AF56C98FF043EF92BEBFF54CEBB4DD67A25BA956C817F3E6DD3C1E52EB584C1"}}}, "lan.cyberoam_key", measure.HowSPKI},
		{"a new root under the known name", signed(isca, "0011"), "kz.isca_new", measure.HowFamily},
		{"the known name above an intermediate", &measure.TLS{Issuer: "CN=x", Signers: []measure.Signer{{Issuer: "CN=x", AKI: "01"}, {Issuer: isca, AKI: "02"}}}, "kz.isca_new", measure.HowFamily},
		{"a new Qaznet", signed("CN=Qaznet Trust Network,C=KZ", "0011"), "kz.qaznet", measure.HowFamily},
		{"its name and no key", &measure.TLS{Issuer: "CN=Qaznet Trust Network,C=KZ"}, "kz.qaznet", measure.HowName},
		{"antivirus", signed(`CN=Avast Web/Mail Shield Root,O=Avast Web/Mail Shield`, "77"), "dev.avast", measure.HowName},
		{"antivirus, attributes in another order", signed(`O=x,CN=Kaspersky Anti-Virus Personal Root Certificate`, ""), "dev.kaspersky", measure.HowName},
		{"a name with a date behind", signed(`CN=Charles Proxy CA (3 Feb 2026\, host),O=XK72 Ltd`, "01"), "dev.charles", measure.HowName},
		{"what only contains it", signed(`CN=Not Charles Proxy CA`, "01"), "", ""},
		{"firewall by organisation", signed(`CN=FGT60F0000000001,O=Fortinet,C=US`, ""), "lan.fortinet", measure.HowName},
		{"public authority", &measure.TLS{Issuer: `CN=R11,O=Let's Encrypt,C=US`, Chain: []string{"ab"}, Signers: []measure.Signer{{Issuer: `CN=R11,O=Let's Encrypt,C=US`, AKI: "c5cf46a4eaf4c3c07a6c95c42db05e922f26e3b9"}}}, "", ""},
		{"name within a name", signed(`CN=Not mitmproxy\, CN=mitmproxy really`, ""), "", ""},
		{"nothing", &measure.TLS{}, "", ""},
		{"no handshake", nil, "", ""},
	} {
		r, how, ok := InterceptionRoot(c.chain)
		if r.ID != c.row || how != c.how || ok != (c.row != "") {
			t.Errorf("%s: %s by %s, %v; want %s by %s", c.name, r.ID, how, ok, c.row, c.how)
		}
	}
	for _, r := range Roots() {
		if r.ID == "ru.trusted_root" && (!r.Owns("www.gosuslugi.ru") || r.Owns("google.com") || r.Owns("guru")) {
			t.Error("the Russian root's own list is wrong")
		}
		if r.Certificate != nil {
			if err := r.Certificate.CheckSignatureFrom(r.Certificate); err != nil {
				t.Errorf("%s: the shipped certificate does not sign itself: %v", r.ID, err)
			}
			if r.Certificate.Subject.CommonName != r.IssuerCN {
				t.Errorf("%s: subject %q", r.ID, r.Certificate.Subject)
			}
			if sum := sha256.Sum256(r.Certificate.RawSubjectPublicKeyInfo); r.SKI != hex.EncodeToString(r.Certificate.SubjectKeyId) || r.SPKI != "" && r.SPKI != hex.EncodeToString(sum[:]) {
				t.Errorf("%s: the row's key is not the certificate's", r.ID)
			}
		}
		if r.SHA256 != "" && !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(r.SHA256) {
			t.Errorf("%s: sha256 %q", r.ID, r.SHA256)
		}
	}
}

func TestControls(t *testing.T) {
	count := map[string]int{}
	for _, c := range Controls() {
		count[c.Kind]++
		if c.Why == "" || c.Source == "" {
			t.Errorf("%s: every third party has a reason and a source", c.ID)
		}
		switch c.Kind {
		case "canary":
			if c.Name == "" || strings.Contains(c.Name, "/") {
				t.Errorf("%s: name %q", c.ID, c.Name)
			}
		case "doh":
			if !strings.HasPrefix(c.Name, "https://") || len(c.Addrs) < 2 {
				t.Errorf("%s: %q with %v", c.ID, c.Name, c.Addrs)
			}
		case "resolver":
			if len(c.Ports) == 0 {
				t.Errorf("%s: no address", c.ID)
			}
		case "nowhere", "nobody":
			for _, a := range c.Addrs {
				if kind, ok := Bogon(a); !ok || kind != "documentation" {
					t.Errorf("%s: %s is somebody's", c.ID, a)
				}
			}
		case "whoami", "signed", "ech":
			if c.Name == "" || len(c.Addrs) > 0 {
				t.Errorf("%s: %q at %v", c.ID, c.Name, c.Addrs)
			}
		case "captive":
			if !strings.HasPrefix(c.Name, "http://") {
				t.Errorf("%s: %q is not plain", c.ID, c.Name)
			}
		default:
			t.Errorf("%s: kind %q", c.ID, c.Kind)
		}
	}
	if count["canary"] < 3 || count["doh"] < 2 || count["captive"] < 1 || count["nowhere"] < 1 {
		t.Errorf("too few controls: %v", count)
	}
}

func FuzzMatch(f *testing.F) {
	for _, s := range Signatures() {
		f.Add("location", s.Example, []byte(s.Example))
	}
	f.Add("Server", "V2R2C00-IAE/1.0\x00", []byte{0xff, 0, '<'})
	f.Fuzz(func(t *testing.T, name, value string, body []byte) {
		got := Match(Evidence{Headers: []measure.Header{{Name: name, Value: value}}, Body: body})
		var rows []int
		seen := map[string]bool{}
		for _, m := range got {
			if seen[m.Row] {
				t.Fatalf("row %s twice", m.Row)
			}
			seen[m.Row] = true
			rows = append(rows, shipped().byID[m.Row])
		}
		if !sort.IntsAreSorted(rows) {
			t.Fatal("rows out of order")
		}
		// The slow way, for the body.
		for _, s := range Signatures() {
			if s.Where != "body" {
				continue
			}
			want := s.Match == "contains" && bytes.Contains(body, []byte(s.Pattern)) || s.Match == "regexp" && regexp.MustCompile(s.Pattern).Match(body)
			if want != seen[s.ID] {
				t.Fatalf("row %s: %v, want %v", s.ID, seen[s.ID], want)
			}
		}
	})
}

func FuzzInterceptionRoot(f *testing.F) {
	f.Add("CN=Information Security Certification Authority,O=ISCA,C=KZ", "00", "ff")
	f.Add(`CN="a,b"+O=\,`, "", "")
	f.Fuzz(func(t *testing.T, issuer, aki, sum string) {
		if r, how, ok := InterceptionRoot(&measure.TLS{Chain: []string{sum}, Signers: []measure.Signer{{Issuer: issuer, AKI: aki, SPKI: sum}}}); ok != (r.ID != "") || ok != (how != "") {
			t.Fatalf("%+v %q %v", r, how, ok)
		}
	})
}

// TestPublicResolvers: each row is one that a run may ask in every way.
func TestPublicResolvers(t *testing.T) {
	doh := map[string]bool{}
	for _, c := range Controls() {
		if c.Kind == "doh" {
			doh[c.Name] = true
		}
	}
	list := PublicResolvers()
	if len(list) < 3 {
		t.Fatalf("%d operators", len(list))
	}
	shapes := 0
	for _, r := range list {
		if len(r.Addrs) < 2 || r.Name == "" || r.Source == "" || !doh[r.DoH] {
			t.Errorf("%s: %+v", r.ID, r)
		}
		if r.Identity == nil {
			continue
		}
		shapes++
		for _, strange := range []string{"", "dnsmasq-2.90", "unbound 1.19.2", "ns1.operator.example", "9.18.24", "none"} {
			if r.Identity.MatchString(strange) {
				t.Errorf("%s: %q would pass", r.ID, strange)
			}
		}
	}
	if shapes < 2 {
		t.Errorf("%d shapes are known", shapes)
	}
}
