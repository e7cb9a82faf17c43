package known

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"govah/measure"
)

// A few rows in the form of github.com/ooni/blocking-fingerprints, as read in
// November 2026 (the order of the columns is that of commit 01f6ac3d), and
// some that are wrong.
const ooniHTTP = `name,scope,other_names,location_found,pattern_type,pattern,confidence_no_fp,expected_countries,source,exp_url,notes
ooni.ae_0,nat,ooni.sa_1,header.server,prefix,Protected by WireFilter,5,"AE,SA",ooni,,
ooni.af_0,isp,,body,contains,"content=""Access Denied - Afghan Wireless Communication Company",5,AF,ooni,,
ooni.gb_5b,isp,,header.location,prefix,http://blocked.nb.example.com,10,"GB,ZZ",ooni,https://explorer.ooni.org/measurement/1,a note
cp.a_prod_barracuda_9,,,header.location,prefix,Barracuda/NGFirewall9,5,,censored planet,,
cp.gb_9,isp,,header.location,full,www.vodafone.co.uk/contentcontrolpage/vfb-category-blocklist.html,5,GB,ooni,,
cp.fp_x_on_this_server,fp,,body,regexp,You don.t have permission to access.*on this server\.<P>,5,,censored planet,,
cp.fp_satellite_general2,fp,,body,contains,Your client does not have leave to get,5,,censored planet,,
cp.fp_satellite_general2,fp,,body,contains,<h2>This is the default index page of your website.</h2>,5,,censored planet,,
ooni.nat_words,nat,,body,contains,Powered By Fortinet ,5,ir,ooni,,
ooni.nat_quoted,nat,,body,contains,hosts the following block page,9,pk,ooni,,
ooni.multi,inst,,body,contains,"two
lines of it",5,DE,ooni,,
ooni.after,vbw,,body,contains,this content is blocked here,5,DE,ooni,,
ooni.again,vbw,,body,contains,this content is blocked here,5,DE,ooni,,
ooni.short,nat,,body,contains,ab,5,DE,ooni,,
ooni.look,nat,,body,regexp,(?=ahead)behind,5,DE,ooni,,
ooni.vague,nat,,body,regexp,.*[a-z]+,5,DE,ooni,,
ooni.huge,nat,,body,regexp,(start(x{1000}){1000}),5,DE,ooni,,
ooni.where,nat,,footer,contains,some text,5,DE,ooni,,
ooni.how,nat,,body,fuzzy,some text,5,DE,ooni,,
ooni.scope,all,,body,contains,some text,5,DE,ooni,,
ooni.sure,nat,,body,contains,some text,eleven,DE,ooni,,
ooni.land,nat,,body,contains,some text,5,Germany,ooni,,
ooni.few,nat,,body
ooni.bare"quote,nat,,body,contains,"a"b,5,DE,ooni,,
ooni.long,nat,,body,contains,LONG,5,DE,ooni,,
ooni.prefix,isp,,body,prefix,<html><!-- stop page -->,5,DE,ooni,,
ooni.esc` + "\x1b[31m\u202e" + `,nat,,body,contains,a page of the minister,5,DE,ooni,,
ooni.open,nat,,body,contains,"never closed,5,DE,ooni,,
ooni.lost,nat,,body,contains,is lost,5,DE,ooni,,
`

func remarks(list []Remark) (out []string) {
	for _, r := range list {
		verb := "not taken"
		if r.Taken {
			verb = "changed"
		}
		out = append(out, fmt.Sprintf("%d %s %s: %s", r.Line, r.Name, verb, r.Reason))
	}
	return out
}

var ignore = cmp.Options{cmpopts.IgnoreUnexported(Signature{}), cmpopts.IgnoreFields(Signature{}, "Source", "Example"), cmpopts.EquateEmpty()}

func TestImportOONI(t *testing.T) {
	text := strings.Replace(ooniHTTP, "LONG", strings.Repeat("long ", 1000), 1)
	l, said, err := Import(ListOONI, strings.NewReader("\ufeff"+text))
	if err != nil {
		t.Fatal(err)
	}
	want := []Signature{
		{ID: "import.ooni.gb_5b", Kind: "blockpage", Where: "header:location", Match: "prefix", Pattern: "http://blocked.nb.example.com", Country: "GB", Scope: measure.ScopeOperator, Confidence: 6},
		{ID: "import.cp.a_prod_barracuda_9", Kind: "product", Where: "header:server", Match: "prefix", Pattern: "Barracuda/NGFirewall9", Product: "barracuda", Confidence: 5},
		{ID: "import.cp.gb_9", Kind: "blockpage", Where: "header:location", Match: "full", Pattern: "www.vodafone.co.uk/contentcontrolpage/vfb-category-blocklist.html", Country: "GB", Scope: measure.ScopeOperator, Confidence: 5},
		{ID: "import.cp.fp_x_on_this_server", Kind: "innocent", Where: "body", Match: "regexp", Pattern: `(?s)You don.t have permission to access.*on this server\.<P>`, Confidence: 5},
		{ID: "import.cp.fp_satellite_general2", Kind: "innocent", Where: "body", Match: "contains", Pattern: "Your client does not have leave to get", Confidence: 5},
		{ID: "import.cp.fp_satellite_general2~2", Kind: "innocent", Where: "body", Match: "contains", Pattern: "<h2>This is the default index page of your website.</h2>", Confidence: 5},
		{ID: "import.ooni.nat_words", Kind: "blockpage", Where: "body", Match: "contains", Pattern: "Powered By Fortinet ", Country: "IR", Confidence: 5},
		{ID: "import.ooni.nat_quoted", Kind: "product", Where: "body", Match: "contains", Pattern: "hosts the following block page", Country: "PK", Confidence: 5},
		{ID: "import.ooni.multi", Kind: "blockpage", Where: "body", Match: "contains", Pattern: "two\nlines of it", Country: "DE", Scope: measure.ScopeLAN, Confidence: 5},
		{ID: "import.ooni.after", Kind: "product", Where: "body", Match: "contains", Pattern: "this content is blocked here", Country: "DE", Confidence: 3},
		{ID: "import.ooni.prefix", Kind: "blockpage", Where: "body", Match: "prefix", Pattern: "<html><!-- stop page -->", Country: "DE", Scope: measure.ScopeOperator, Confidence: 5},
		{ID: "import.ooni.esc__31m_", Kind: "blockpage", Where: "body", Match: "contains", Pattern: "a page of the minister", Country: "DE", Confidence: 5},
	}
	if d := cmp.Diff(want, l.Signatures, ignore); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{
		"2 ooni.ae_0 not taken: shipped already, as cl.prod_wirefilter",
		"3 ooni.af_0 not taken: shipped already, as ooni.af",
		"5 cp.a_prod_barracuda_9 changed: looked for in Server, not in Location: it is the name of a server",
		"11 ooni.nat_quoted changed: lowered to kind product: it stands in the innocent text report.pakistan too",
		"15 ooni.again not taken: the same as import.ooni.after",
		"16 ooni.short not taken: the pattern has fewer than 3 bytes: it would stand in most pages",
		"17 ooni.look not taken: not a regular expression of RE2: error parsing regexp: invalid or unsupported Perl syntax: `(?=`",
		"18 ooni.vague not taken: the regular expression has no text of 3 bytes that each match must contain",
		"19 ooni.huge not taken: not a regular expression of RE2: error parsing regexp: invalid repeat count: `{1000}`",
		`20 ooni.where not taken: location_found "footer" is none of body, dns and header.NAME`,
		`21 ooni.how not taken: match "fuzzy" is none of contains, prefix, full and regexp`,
		`22 ooni.scope not taken: scope "all"`,
		"23 ooni.sure not taken: the confidence is not 1 to 10",
		`24 ooni.land not taken: countries "GERMANY"`,
		"25 ooni.few not taken: 4 columns, not 11",
		`26  not taken: not CSV in line 26: bare " in non-quoted-field`,
		"27 ooni.long not taken: the pattern has 5000 bytes, more than 4096",
		`30  not taken: not CSV in line 31: extraneous or missing " in quoted-field; lines 30 to 31 were not read`,
	}, remarks(said)); d != "" {
		t.Error(d)
	}
}

func TestImportOONIAddresses(t *testing.T) {
	l, said, err := Import(ListOONI, strings.NewReader(`name,location_found,pattern_type,pattern,scope
ooni.cn_1,dns,full,37.61.54.158,nat
ooni.id_41,dns,full,restricted.tri.co.id,isp
ooni.id_53,dns,full,150.107.140.200,isp
ooni.zz_1,dns,full,::ffff:198.18.5.5,inst
ooni.zz_2,dns,full,198.18.5.5,inst
ooni.zz_3,dns,contains,198.18,inst
ooni.zz_4,dns,full,198.18.5.6,fp
ooni.zz_5,dns,full,fe80::1%eth0,nat
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Address{
		{ID: "import.ooni.id_53", Kind: "forged-address", Addr: netip.MustParseAddr("150.107.140.200"), TTLS: -1, Scope: measure.ScopeOperator, Confidence: 5},
		{ID: "import.ooni.zz_1", Kind: "filter-address", Addr: netip.MustParseAddr("198.18.5.5"), TTLS: -1, Scope: measure.ScopeLAN, Confidence: 5},
		{ID: "import.ooni.zz_4", Kind: "innocent", Addr: netip.MustParseAddr("198.18.5.6"), TTLS: -1, Confidence: 5},
	}
	for i := range l.Addresses {
		l.Addresses[i].Source = ""
	}
	if d := cmp.Diff(want, l.Addresses, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	if len(said) != 5 || said[0].Reason != "shipped already, as cn.37_61_54_158" || said[2].Reason != "the same as import.ooni.zz_1" {
		t.Errorf("%q", remarks(said))
	}
	table, err := Shipped().With(l)
	if err != nil {
		t.Fatal(err)
	}
	for addr, row := range map[string]string{"150.107.140.200": "import.ooni.id_53", "198.18.5.6": "", "93.46.8.89": "cn.93_46_8_89", "8.8.8.8": ""} {
		m, ok := table.ForgedAddress(netip.MustParseAddr(addr), -1)
		if m.Row != row || ok != (row != "") {
			t.Errorf("%s: %+v, %v; want %q", addr, m, ok, row)
		}
	}
	if _, ok := ForgedAddress(netip.MustParseAddr("150.107.140.200"), -1); ok {
		t.Error("the shipped table has changed")
	}
}

// In the form of github.com/censoredplanet/censoredplanet-analysis, as read in
// November 2026: one object a line, blank lines between.
const cpLines = `{"fingerprint":"a_prod_fortinet_2","pattern":"fortinet\\.net"}
{"fingerprint":"prod_fortinet_2","pattern":"fortinet.net"}
{"fingerprint":"a_prod_barracuda_2","pattern":"Server: Barracuda/NGFirewall"}
{"fingerprint":"a_prod_other","pattern":"Server: Other/[0-9]+"}

{"fingerprint":"b_nat_ir_national_1","pattern":"10\\.10\\.34\\.35"}
{"fingerprint":"c_isp_ru_taiget","pattern":"http://hold\\.taiget\\.example/block"}
{"fingerprint":"c_isp_ru_taiget","pattern":"https://hold\\.taiget\\.example/block\\?"}
{"fingerprint":"c_isp_x","pattern":"Location: http://x\\.example/(stop|deny)"}
{"fingerprint":"b_nat_sa_national_2","pattern":"If you believe the requested page should not be blocked please.*http://www\\.internet\\.gov\\.sa"}
{"fingerprint":"f_gen_id_22","pattern":"some words of a page \\(again\\)"}
{"fingerprint":"isp_ru_mark","pattern":"<p>Марк</p>"}
{"fingerprint":"bad","pattern":"(unclosed"}
{"fingerprint":"none"}
not json
{"fingerprint":7,"pattern":"x"}
`

func TestImportCensoredPlanet(t *testing.T) {
	l, said, err := Import(ListCensoredPlanet, strings.NewReader(cpLines))
	if err != nil {
		t.Fatal(err)
	}
	isp := Signature{Kind: "blockpage", Scope: measure.ScopeOperator, Confidence: 5}
	row := func(s Signature, id, where, match, pattern string) Signature {
		s.ID, s.Where, s.Match, s.Pattern = id, where, match, pattern
		return s
	}
	if d := cmp.Diff([]Signature{
		{ID: "import.cp.a_prod_other", Kind: "product", Where: "header:server", Match: "regexp", Pattern: "^Other/[0-9]+", Product: "other", Confidence: 5},
		{ID: "import.cp.b_nat_ir_national_1", Kind: "product", Where: "body", Match: "contains", Pattern: "10.10.34.35", Confidence: 5},
		row(isp, "import.cp.c_isp_ru_taiget_body", "body", "contains", "http://hold.taiget.example/block"),
		row(isp, "import.cp.c_isp_ru_taiget_location", "header:location", "prefix", "http://hold.taiget.example/block"),
		row(isp, "import.cp.c_isp_ru_taiget_body~2", "body", "contains", "https://hold.taiget.example/block?"),
		row(isp, "import.cp.c_isp_ru_taiget_location~2", "header:location", "prefix", "https://hold.taiget.example/block?"),
		row(isp, "import.cp.c_isp_x", "header:location", "regexp", `^(?:http://x\.example/(stop|deny))`),
		{ID: "import.cp.b_nat_sa_national_2", Kind: "blockpage", Where: "body", Match: "regexp", Pattern: `(?s)If you believe the requested page should not be blocked please.*http://www\.internet\.gov\.sa`, Confidence: 5},
		{ID: "import.cp.f_gen_id_22", Kind: "product", Where: "body", Match: "contains", Pattern: "some words of a page (again)", Confidence: 5},
		row(isp, "import.cp.isp_ru_mark", "body", "contains", "<p>Марк</p>"),
	}, l.Signatures, ignore); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{
		"1 cp.a_prod_fortinet_2 not taken: shipped already, as cp.a_prod_fortinet_2",
		"2 cp.prod_fortinet_2 not taken: shipped already, as cp.a_prod_fortinet_2",
		"3 cp.a_prod_barracuda_2 not taken: shipped already, as cp.a_prod_barracuda_2",
		"6 cp.b_nat_ir_national_1 changed: lowered to kind product: it stands in the innocent text report.iran too",
		"13 cp.bad not taken: not a regular expression of RE2: error parsing regexp: missing closing ): `(unclosed`",
		"14 none not taken: no fingerprint or no pattern",
		"15  not taken: not JSON, or no fingerprint: invalid character 'o' in literal null (expecting 'u')",
		"16  not taken: not JSON, or no fingerprint: json: cannot unmarshal number into Go struct field .fingerprint of type string",
	}, remarks(said)); d != "" {
		t.Error(d)
	}

	// One object for all.
	l, said, err = Import(ListCensoredPlanetInnocent, strings.NewReader("{\n \"x_index\": \"Index of /\",\n \"x_no\": [1,\n2],\n \"x_dot\": \"Don.t worry\"\n} tail"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Signature{
		{ID: "import.cp.fp_x_index", Kind: "innocent", Where: "body", Match: "contains", Pattern: "Index of /", Confidence: 5},
		{ID: "import.cp.fp_x_dot", Kind: "innocent", Where: "body", Match: "regexp", Pattern: "(?s)Don.t worry", Confidence: 5},
	}, l.Signatures, ignore); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"3 x_no not taken: the pattern is no text", "6  not taken: there is more after the object, which was not read"}, remarks(said)); d != "" {
		t.Error(d)
	}
}

func TestImportedRowsInATable(t *testing.T) {
	blocks, _, err := Import(ListCensoredPlanet, strings.NewReader(cpLines))
	if err != nil {
		t.Fatal(err)
	}
	innocent, _, err := Import(ListCensoredPlanetInnocent, strings.NewReader(`{"fingerprint":"x_index_of","pattern":"Index of /"}`))
	if err != nil {
		t.Fatal(err)
	}
	table, err := Shipped().With(blocks, innocent)
	if err != nil {
		t.Fatal(err)
	}
	rows := func(list []measure.Match) string {
		var ids []string
		for _, m := range list {
			ids = append(ids, m.Row)
		}
		return strings.Join(ids, " ")
	}
	page := `<iframe src="http://10.10.34.34"> <p>Марк</p> If you believe the requested page should not be blocked please` + "\n" + `go to http://www.internet.gov.sa`
	for _, c := range []struct{ body, location, want string }{
		{page, "", "ir.iframe import.cp.b_nat_sa_national_2 import.cp.isp_ru_mark"},
		{page + " Index of /", "", "ir.iframe"}, // theirs say it is innocent; ours stay
		{page + " <title>Welcome to nginx!</title>", "", "ir.iframe origin.nginx_default"},
		{"<p>Марк</", "http://hold.taiget.example/block.html", "import.cp.c_isp_ru_taiget_location"},
		{"", "see http://hold.taiget.example/block.html", ""},
		{"", "http://x.example/deny", "import.cp.c_isp_x"},
		{"", "http://x.example/ok", ""},
	} {
		e := Evidence{Body: []byte(c.body), Location: c.location}
		if got := rows(table.Match(e)); got != c.want {
			t.Errorf("%q, %q: %s, want %s", c.body, c.location, got, c.want)
		}
		if got := rows(Match(e)); got != strings.Join(slices.DeleteFunc(strings.Fields(c.want), Imported), " ") {
			t.Errorf("%q, %q: the shipped table finds %s", c.body, c.location, got)
		}
	}
	if s, ok := table.SignatureOf("import.cp.isp_ru_mark"); !ok || s.Kind != "blockpage" {
		t.Errorf("%+v, %v", s, ok)
	}
	// A list of an older version is lowered by today's innocent texts.
	old := &List{Signatures: []Signature{{ID: "import.old", Kind: "blockpage", Where: "body", Match: "contains", Pattern: "Don't forget warning.or.kr", Confidence: 6}, {ID: "import.old", Kind: "blockpage", Where: "body", Match: "contains", Pattern: "warning.or.kr", Confidence: 6}}}
	if table, err = Shipped().With(old); err != nil {
		t.Fatal(err)
	}
	if a, _ := table.SignatureOf("import.old"); a.Kind != "blockpage" {
		t.Errorf("%+v", a)
	}
	if b, _ := table.SignatureOf("import.old~2"); b.Kind != "product" || b.Confidence != 5 {
		t.Errorf("%+v", b)
	}
	for _, bad := range []Signature{
		{ID: "ir.iframe", Kind: "blockpage", Where: "body", Match: "contains", Pattern: "some text", Confidence: 6},
		{ID: "import.x", Kind: "captive", Where: "body", Match: "contains", Pattern: "some text", Confidence: 6},
		{ID: "import.x", Kind: "product", Where: "body", Match: "regexp", Pattern: ".*", Confidence: 6},
	} {
		if _, err := Shipped().With(&List{Signatures: []Signature{bad}}); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// Cut into pieces or not, a table finds what a search for each row finds.
func TestManyRowsAreFoundLikeFew(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{10, 3000, 12_000} {
		l := benchList(n)
		l.Signatures = append(l.Signatures,
			Signature{ID: "import.a", Kind: "product", Where: "body", Match: "regexp", Pattern: `(?s)<title>.{3,9}denied`, Confidence: 5},
			Signature{ID: "import.b", Kind: "product", Where: "body", Match: "prefix", Pattern: strings.Repeat("a long beginning ", 20), Confidence: 5},
			Signature{ID: "import.c", Kind: "product", Where: "body", Match: "contains", Pattern: strings.Repeat("a long beginning ", 20) + "goes on", Confidence: 5})
		table, err := Shipped().With(l)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			var body []byte
			if r.IntN(2) == 0 {
				body = append(body, strings.Repeat("a long beginning ", 18+r.IntN(4))...)
			}
			for range 1 + r.IntN(60) {
				p := l.Signatures[r.IntN(len(l.Signatures))].Pattern
				body = append(body, p[r.IntN(min(3, len(p))):len(p)-r.IntN(min(3, len(p)))]...)
				body = append(body, '.')
			}
			want := map[string]bool{}
			for i := range table.signatures {
				if s := &table.signatures[i]; s.Where == "body" && s.occursInBody(body) {
					want[s.ID] = true
				}
			}
			for _, m := range table.Match(Evidence{Body: body}) {
				if !want[m.Row] {
					t.Fatalf("%d rows: %s is not there", n, m.Row)
				}
				delete(want, m.Row)
			}
			if len(want) > 0 {
				t.Fatalf("%d rows: not found: %v", n, want)
			}
		}
	}
}

func TestImportBounds(t *testing.T) {
	for name, c := range map[string]struct {
		kind ListKind
		text string
	}{
		"empty":            {ListOONI, ""},
		"no columns":       {ListOONI, "a,b,c\n1,2,3\n"},
		"not CSV":          {ListOONI, `a"b` + "\n"},
		"empty JSON":       {ListCensoredPlanet, "\n"},
		"a page":           {ListCensoredPlanet, "<html>\n</html>\n"},
		"another kind":     {"other", "x"},
		"too many rows":    {ListOONI, "name,location_found,pattern_type,pattern\n" + strings.Repeat("a,b,c,d\n", MaxListRows+1)},
		"too many lines":   {ListCensoredPlanet, strings.Repeat("{}\n", MaxListRows+1)},
		"too many members": {ListCensoredPlanet, "{" + strings.Repeat(`"a":1,`, MaxListRows) + `"a":1}`},
		"too large":        {ListCensoredPlanet, strings.Repeat(" ", MaxListBytes+1)},
	} {
		if l, said, err := Import(c.kind, strings.NewReader(c.text)); err == nil || l != nil || said != nil {
			t.Errorf("%s: %v, %d remarks, %v", name, l, len(said), err)
		}
	}
	broken := errors.New("broken")
	if _, _, err := Import(ListOONI, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	// Expressions: each small, together too large.
	var b strings.Builder
	for i := range 400 {
		fmt.Fprintf(&b, "{\"fingerprint\":\"a\",\"pattern\":\"text%d[a-z]{999}[0-9]{999}\"}\n", i)
	}
	l, said, err := Import(ListCensoredPlanet, strings.NewReader(b.String()))
	if err != nil || len(l.Signatures)+len(said) != 400 || len(said) == 0 || said[0].Reason != errTooManySteps.Error() && !strings.Contains(said[0].Reason, "too large") {
		t.Errorf("%d rows, %d remarks, %v", len(l.Signatures), len(said), err)
	}
	for file, kind := range map[string]ListKind{"/tmp/x/fingerprints_http.csv": ListOONI, `C:\x\fingerprints_dns.csv`: ListOONI, "blockpage_signatures.json": ListCensoredPlanet, "./false_positive_signatures.json": ListCensoredPlanetInnocent, "x.csv": ""} {
		if got := ListKindOf(file); got != kind {
			t.Errorf("%s: %q", file, got)
		}
	}
}

func TestListIsReadAsItWasWritten(t *testing.T) {
	a, _, err := Import(ListOONI, strings.NewReader(ooniHTTP+"x"))
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := Import(ListCensoredPlanet, strings.NewReader(cpLines))
	if err != nil {
		t.Fatal(err)
	}
	b.Addresses = []Address{{ID: "import.x", Kind: "forged-address", Addr: netip.MustParseAddr("2001:db8::7"), TTLS: -1, Country: "AE SA", Confidence: 4}}
	l := Merge(a, b, a)
	if len(l.Signatures) != len(a.Signatures)+len(b.Signatures) {
		t.Errorf("%d rows of %d and %d", len(l.Signatures), len(a.Signatures), len(b.Signatures))
	}
	var saved bytes.Buffer
	if err := l.Write(&saved); err != nil {
		t.Fatal(err)
	}
	got, err := ReadList(bytes.NewReader(saved.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(l, got, cmpopts.IgnoreUnexported(Signature{}), cmpopts.IgnoreFields(Signature{}, "Example"), cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	if _, err := Shipped().With(got); err != nil {
		t.Error(err)
	}
	text := saved.String()
	lines := strings.SplitAfter(text, "\n")
	for name, c := range map[string]struct{ text, want string }{
		"empty":      {"", "line 1: not a list"},
		"a page":     {"<html>", "line 1: not a list"},
		"newer":      {strings.Replace(text, `"schema":1`, `"schema":2`, 1), "schema 2"},
		"cut off":    {strings.Join(lines[:len(lines)-2], ""), "cut off"},
		"cut inside": {text[:len(text)-9], "line "},
		"added to":   {text + lines[1], "there twice"},
		"one more":   {text + strings.Replace(lines[1], "import.", "import.more", 1), "cut off or changed"},
		"shipped id": {strings.Replace(text, `"import.`, `"ir.`, 1), "line 2: id"},
		"kind":       {strings.Replace(text, `"kind":"blockpage"`, `"kind":"root"`, 1), "kind"},
		"long line":  {lines[0] + strings.Repeat("x", 70<<10), "longer than"},
		"many":       {`{"type":"signatures","schema":1,"rows":1000000}`, "at most"},
	} {
		if _, err := ReadList(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if err := l.Write(failing{}); err == nil {
		t.Error("a full disk is not told")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }

// used checks what must hold of any import: all rows can be used, saved and
// read again, and what is printed can be printed.
func used(t *testing.T, l *List, said []Remark, err error) {
	if err != nil {
		if l != nil || said != nil {
			t.Fatal("rows and an error")
		}
		return
	}
	for _, s := range l.Signatures {
		if !Imported(s.ID) || clean(s.ID, 1000) != s.ID || clean(s.Source, 1000) != s.Source || s.Confidence > importedMost {
			t.Fatalf("%+v", s)
		}
		if s.Kind == "blockpage" && quotedBy(&s) != "" {
			t.Fatalf("%+v stands in an innocent text", s)
		}
	}
	for _, r := range said {
		if r.Line < 1 || r.Reason == "" || clean(r.Name, 1000) != r.Name || clean(r.Reason, 10_000) != r.Reason {
			t.Fatalf("%+v", r)
		}
	}
	// Not with the shipped rows: instrumented, making their table takes seconds.
	table, err := new(Table).With(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range l.Signatures {
		if s.Match == "regexp" {
			continue
		}
		e := Evidence{Body: []byte(s.Pattern)}
		if name, ok := strings.CutPrefix(s.Where, "header:"); ok {
			e = Evidence{Headers: []measure.Header{{Name: name, Value: s.Pattern}}}
		}
		rows, _ := table.hits(e)
		if i := table.byID[s.ID]; !slices.Contains(rows, i) {
			t.Fatalf("%+v does not match its own pattern", s)
		}
	}
	var b bytes.Buffer
	if err := l.Write(&b); err != nil {
		t.Fatal(err)
	}
	if again, err := ReadList(&b); err != nil || len(again.Signatures) != len(l.Signatures) || len(again.Addresses) != len(l.Addresses) {
		t.Fatal(err)
	}
}

func FuzzImportOONI(f *testing.F) {
	f.Add([]byte(ooniHTTP))
	f.Add([]byte("name,location_found,pattern_type,pattern\nx,dns,full,1.2.3.4\ny,body,regexp,^abc\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, said, err := Import(ListOONI, bytes.NewReader(data))
		used(t, l, said, err)
	})
}

func FuzzImportCensoredPlanet(f *testing.F) {
	f.Add([]byte(cpLines), false)
	f.Add([]byte(`{"a":"b.*c\\.", "d": "http://e\\.f|g"}`), true)
	f.Fuzz(func(t *testing.T, data []byte, innocent bool) {
		kind := ListCensoredPlanet
		if innocent {
			kind = ListCensoredPlanetInnocent
		}
		l, said, err := Import(kind, bytes.NewReader(data))
		used(t, l, said, err)
	})
}

func FuzzReadList(f *testing.F) {
	f.Add([]byte(`{"type":"signatures","schema":1,"rows":2}
{"id":"import.a","kind":"blockpage","where":"body","match":"regexp","pattern":"(?s)abc.*d","confidence":5}
{"id":"import.b","kind":"forged-address","where":"dns","match":"full","pattern":"1.2.3.4","confidence":5}
`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ReadList(bytes.NewReader(data))
		if err != nil {
			return
		}
		if _, err := new(Table).With(l); err != nil {
			t.Fatal(err)
		}
	})
}

// TestPacketRows: a saved list may hold rows about marks of packets, which
// match a whole mark and nothing in a page.
func TestPacketRows(t *testing.T) {
	row := Signature{ID: "import.prod_box_1", Kind: "product", Where: "packet:ip-id", Match: "full", Pattern: "0x0abc", Product: "box", Confidence: 6, Source: "somebody"}
	var file bytes.Buffer
	if err := (&List{Signatures: []Signature{row}}).Write(&file); err != nil {
		t.Fatal(err)
	}
	list, err := ReadList(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	table, err := Shipped().With(list)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		marks map[string]string
		want  int
	}{
		{map[string]string{"ip-id": "0x0abc", "seq": "expected,+12503"}, 2}, {map[string]string{"ip-id": "0x0abcd"}, 0},
		{map[string]string{"window": "0x0abc"}, 0}, {nil, 0},
	} {
		if got := table.MatchPackets(c.marks); len(got) != c.want {
			t.Errorf("%v: %v", c.marks, got)
		}
	}
	if got := table.Match(Evidence{Body: []byte("0x0abc")}); len(got) != 0 {
		t.Errorf("in a page: %v", got)
	}
	for name, change := range map[string]func(*Signature){
		"a page":          func(s *Signature) { s.Kind = "blockpage" },
		"a part":          func(s *Signature) { s.Match = "contains" },
		"no name":         func(s *Signature) { s.Where = "packet:" },
		"another's place": func(s *Signature) { s.Where = "packets" },
	} {
		bad := row
		change(&bad)
		if _, err := Shipped().With(&List{Signatures: []Signature{bad}}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
