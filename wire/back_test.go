package wire

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// FuzzParseBack: whatever a helper says of its words is bounded and makes
// sense.
func FuzzParseBack(f *testing.F) {
	const marker = "00112233445566778899aabbccddeeff"
	good := []byte(`{"schema":1,"marker":"` + marker + `","able":true,"greeter":{"protocol":"smtp","port":587,"greeting":"220 a","key":"` + strings.Repeat("Ab", 32) + `"},"list":[{"ttl":3,"port":20000,"sends":1,"text":"K09LDQo=","outcome":"expired","router":"::ffff:192.0.2.1","type":11,"quoted":"RQAA","rtt_us":9}]}`)
	if r, err := ParseBack(good, marker); err != nil || len(r.List) != 1 || r.List[0].Router != "192.0.2.1" || r.Greeter == nil || r.Greeter.Key != strings.Repeat("ab", 32) {
		f.Fatalf("%+v, %v", r, err)
	}
	f.Add(good)
	for _, list := range []string{
		`[{"ttl":-1,"port":-1,"sends":1e9,"text":"","outcome":"\u202e","rtt_us":-5}]`,
		`[{"ttl":3,"text":"K09LDQo=","outcome":"expired","router":"fe80::1%eth0","type":-1,"quoted":"?"}]`,
		`[{"ttl":3,"text":"K09LDQo=","outcome":"silent","router":"x","type":900,"quoted":"RQAA","rtt_us":99999999999999}]`,
	} {
		f.Add([]byte(`{"schema":1,"marker":"` + marker + `","able":true,"list":` + list + `}`))
	}
	f.Add([]byte(`{"schema":1,"marker":"` + marker + `","able":true,"greeter":{"protocol":"irc","port":-1,"greeting":"\u202e","key":"00"}}`))
	f.Add([]byte(`{"schema":1,"marker":"` + marker + `","list":[{"ttl":3,"text":"K09LDQo=","outcome":"silent"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseBack(b, marker)
		if err != nil {
			return
		}
		if len(r.List) > maxSaid || !r.Able && len(r.List) > 0 || r.Marker != marker {
			t.Fatalf("%+v", r)
		}
		if g := r.Greeter; g != nil && (g.Implicit || g.Port < 1 || g.Port > 65535 || !mailProtocol(g.Protocol) || len(g.Greeting) > maxMailText || len(g.Before) > maxMailCaps || len(g.After) > maxMailCaps || len(g.Key) != 64) {
			t.Fatalf("%+v", g)
		}
		for _, s := range r.List {
			text, err := base64.StdEncoding.DecodeString(s.Text)
			quote, qerr := base64.StdEncoding.DecodeString(s.Quoted)
			if err != nil || qerr != nil || len(text) == 0 || len(text) > maxSaidText || len(quote) > maxQuote ||
				s.TTL < 1 || s.TTL > 255 || s.Port < 0 || s.Port > 65535 || s.Sends < 0 || s.RTTUS < 0 || s.RTTUS > maxHelperUS ||
				s.Type < 0 || s.Type > 255 || s.Code < 0 || s.Code > 255 || !slices.Contains([]string{"expired", "arrived", "silent"}, s.Outcome) {
				t.Fatalf("%+v", s)
			}
			if a, err := netip.ParseAddr(s.Router); (s.Outcome == "expired") != (err == nil) || err == nil && (a.Zone() != "" || a.Is4In6()) || s.Outcome != "expired" && s.Quoted != "" {
				t.Fatalf("%+v", s)
			}
		}
	})
}
