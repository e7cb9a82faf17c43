package known

import (
	"slices"
	"testing"
)

// What innocent answers carry is no row of kind blockpage, and the rows of kind
// product that they do carry are written down next to them.
func TestInnocentTextsCarryNoBlockPage(t *testing.T) {
	ids := map[string]bool{}
	for _, n := range Innocents() {
		if ids[n.ID] || n.ID == "" || n.Text == "" || n.Why == "" || n.Source == "" {
			t.Errorf("%s: there twice, or without text, reason or source", n.ID)
		}
		ids[n.ID] = true
		if n.Where != "body" && n.Where != "banner" && !headerWhere.MatchString(n.Where) {
			t.Errorf("%s: where %q", n.ID, n.Where)
		}
		var products []string
		for _, m := range Match(n.Evidence()) {
			switch m.Kind {
			case "blockpage":
				t.Errorf("%s carries block page row %s", n.ID, m.Row)
			case "product":
				products = append(products, m.Row)
			}
		}
		if !slices.Equal(products, n.Rows) {
			t.Errorf("%s carries the product rows %v; its row says %v", n.ID, products, n.Rows)
		}
	}
	if len(ids) < 30 {
		t.Errorf("only %d texts", len(ids))
	}
	// Rows whose patterns anybody writes are products, and an innocent text
	// shows it.
	marked := map[string]bool{}
	for _, n := range Innocents() {
		for _, row := range n.Rows {
			marked[row] = true
		}
	}
	for _, row := range []string{
		"cp.a_prod_fortinet_7", "cp.a_prod_fortinet_8", "cp.a_prod_trend_micro_interscan", "cp.a_prod_squid_1", "cp.a_prod_guardiandns_satellite",
		"cl.prod_netsweeper_inject", "cl.prod_netsweeper_blockpage", "cl.prod_lightspeed_filter_forward", "cl.prod_cisco_opendns_forward",
	} {
		if s, ok := SignatureOf(row); !ok || s.Kind != "product" || s.Confidence > 5 || !marked[row] {
			t.Errorf("%s: %v, kind %s, confidence %d, marked %v", row, ok, s.Kind, s.Confidence, marked[row])
		}
	}
}

// The pages that the exact rows were made from still match; the words alone do
// not.
func TestExactRowsMatchThePageAndNotTheWords(t *testing.T) {
	for _, c := range []struct{ page, words, row string }{
		{`<div class="notice"> <p>You have tried to access a web page which is in violation of your internet usage policy.</p>`, `"You have tried to access a web page which is in violation of your internet usage policy."`, "cl.prod_fortiguard_webfilter_blocktext"},
		{`<h1>Web Page Blocked</h1><b>Access to the web page you were trying to visit has been blocked in accordance with the company policy.</b>`, `&lt;b&gt;Access to the web page you were trying to visit has been blocked in accordance with the company policy.`, "cp.a_prod_paloalto_1"},
		{`<p>Access to the web page you were trying to visit has been blocked in accordance with company policy. Please`, `Access to the web page you were trying to visit has been blocked in accordance with company policy.`, "cl.prod_paloaltonetworks_block"},
		{"<meta name=viewport><iframe\nsrc=\"http://14.141.123.218:8080/webadmin/deny/index.php?dpid=9&cat=107\">", `<a href="http://182.79.218.37:8080/webadmin/deny/index.php">`, "cl.prod_netsweeper_inject_2"},
		{`<iframe src="http://14.141.123.218:8080/x.php?dpid=9&dpruleid=4&cat=107">`, `src=http://182.79.218.37:8080/x.php?dpid=1&dpruleid=3`, "cl.prod_netsweeper_inject_3"},
		{`<script type="text/javascript">location.replace("https://block.opendns.com/?url=847077`, `if (s.indexOf('https://block.opendns.com/') !== -1)`, "cp.a_prod_opendns_1_body"},
		{`<script type="text/javascript">location.replace("https://malware.opendns.com/?url=847077`, `curl https://malware.opendns.com`, "cp.a_prod_opendns_2_body"},
	} {
		carries := func(text string) bool {
			for _, m := range Match(Evidence{Body: []byte(text)}) {
				if m.Row == c.row {
					return m.Kind == "blockpage"
				}
			}
			return false
		}
		if !carries(c.page) {
			t.Errorf("%s does not match its page", c.row)
		}
		if carries(c.words) {
			t.Errorf("%s matches the words %q", c.row, c.words)
		}
	}
}
