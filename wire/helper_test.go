package wire

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"govah/evidence/receipt"
	"govah/measure"
)

func TestParseHelperReplyDropsWhatIsNotTheHelpersToSay(t *testing.T) {
	reply := measure.HelperReply{Schema: 1, Nonce: "n", Version: strings.Repeat("v", 1000), ASN: -5, Country: "x\u202ey", TimeMS: -1,
		Failure: "no such\nfailure", Observations: []measure.Observation{
			{ID: "h1", Step: measure.StepTCP, Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpSNI, Pair: 3,
				Control: "o1", Differs: []string{"sni"}, Helper: "https://other/", Remote: "[::ffff:192.0.2.7]:443", ASN: 7, TTL: 3, StartUS: -4, TookUS: 1 << 62,
				TCP: &measure.TCP{ICMP: []measure.ICMP{{From: "192.0.2.1"}}}},
			{ID: "h1", Step: measure.StepTCP, Remote: "192.0.2.8:443"},              // an id twice
			{ID: "o5", Step: measure.StepTCP, Remote: "192.0.2.8:443"},              // an id of the device's log
			{ID: "h2", Step: measure.StepTCP, Remote: "192.0.2.8:443", After: "o1"}, // linked to the device's log
			{ID: "h3", Step: measure.StepTCP, Remote: "example.org:443"},            // no address
			{ID: "h4", Step: measure.StepPath, Remote: "192.0.2.8:443"},             // not a step of a helper
			{ID: "h5", Step: measure.StepTLS, Remote: "192.0.2.8:443", TLS: &measure.TLS{Alert: 999, Public: "splendid", System: measure.VerifiedOK, Chain: []string{"zz", strings.Repeat("AB", 32)}}},
			{ID: "h6", Step: measure.StepHTTP, HTTP: &measure.HTTP{Status: 99999, BodySHA256: "no", Simhash: "no", Matches: []measure.Match{{Row: "r"}}}},
			{ID: "h7", Step: measure.StepDNS, DNS: &measure.DNS{Name: "example.org", NoResolver: true, Replies: []measure.DNSReply{{Answers: []measure.DNSAnswer{
				{Type: "A", Value: "2001:db8::1"}, {Type: "A", Value: "192.0.2.9", ASN: 4}, {Type: "AAAA", Value: "fe80::1%eth0"}}}}}},
		}}
	data, err := json.Marshal(reply)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseHelperReply(data, "n")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Version) > 64 || got.ASN != 0 || got.Country != "" || got.TimeMS != 0 || !strings.HasPrefix(string(got.Failure), measure.UnknownFailurePrefix) {
		t.Errorf("reply = %+v", got)
	}
	by := map[string]measure.Observation{}
	for _, o := range got.Observations {
		by[o.ID] = o
	}
	if len(got.Observations) != 4 {
		t.Errorf("kept %d observations: %+v", len(got.Observations), got.Observations)
	}
	if o := by["h1"]; o.Role != measure.RoleHelper || o.Stage != "" || o.Experiment != "" || o.Pair != 0 || o.Control != "" || o.Differs != nil ||
		o.Helper != "" || o.Remote != "192.0.2.7:443" || o.Family != measure.IPv4 || o.ASN != 0 || o.TTL != 0 || o.StartUS != 0 || o.TookUS > maxHelperUS || o.TCP.ICMP != nil {
		t.Errorf("h1 = %+v", o)
	}
	if s := by["h5"].TLS; s.Alert != -1 || s.Public != measure.VerifyMalformed || s.System != "" || len(s.Chain) != 1 || s.Chain[0] != strings.Repeat("ab", 32) {
		t.Errorf("h5 = %+v", s)
	}
	if h := by["h6"].HTTP; h.Status != 0 || h.BodySHA256 != "" || h.Simhash != "" || h.Matches != nil {
		t.Errorf("h6 = %+v", h)
	}
	if d := by["h7"].DNS; d.NoResolver || len(d.Replies[0].Answers) != 1 || d.Replies[0].Answers[0].ASN != 0 {
		t.Errorf("h7 = %+v", d)
	}
}

func TestParseHelperURL(t *testing.T) {
	pin := strings.Repeat("ab", 32)
	h, err := parseHelperURL("https://[2001:db8::1]:8443/#sha256=" + pin)
	if err != nil || h.host != "2001:db8::1" || h.port != 8443 || h.base != "https://[2001:db8::1]:8443/" || len(h.pin) != 32 {
		t.Errorf("%+v, %v", h, err)
	}
	key := strings.Repeat("cd", 32)
	for _, fragment := range []string{"sha256=" + pin + "&receipt=" + key, "receipt=" + key + "&sha256=" + pin, "receipt=" + key} {
		if h, err := parseHelperURL("https://h.example/#" + fragment); err != nil || h.receipt != key || (len(h.pin) == 32) != strings.Contains(fragment, pin) {
			t.Errorf("%s: %+v, %v", fragment, h, err)
		}
	}
	for _, bad := range []string{"sha256=" + pin + "&receipt=12", "sha256=" + pin + "&", "sha256=" + pin + "&sha256=" + pin, "receipt", "x=" + pin} {
		if h, err := parseHelperURL("https://h.example/#" + bad); err == nil {
			t.Errorf("%s: %+v", bad, h)
		}
	}
	if h, err := parseHelperURL("https://helper.example/hidden"); err != nil || h.port != 443 || h.base != "https://helper.example/hidden/" || h.pin != nil {
		t.Errorf("%+v, %v", h, err)
	}
}

// A receipt that is forged, of another request, or of other observations
// refuses the reply; a helper that gives none goes on working.
func TestReceipts(t *testing.T) {
	key, _, err := receipt.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := receipt.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	const nonce = "0123456789abcdef"
	question := []byte(`{"schema":1,"nonce":"` + nonce + `"}`)
	signed := func(k *receipt.Key, question []byte, nonce string) measure.HelperReply {
		r := measure.HelperReply{Schema: 1, Nonce: nonce, TimeMS: 1_800_000_000_123, ASN: 64500, ReceiptKey: k.Public(), Observations: []measure.Observation{
			{ID: "h1", Step: measure.StepDNS, DNS: &measure.DNS{Name: "a.example"}},
			{ID: "h2", After: "h1", Step: measure.StepTCP, Remote: "192.0.2.7:443"},
			{ID: "h3", After: "h2", Step: measure.StepTLS, Remote: "192.0.2.7:443", SNI: "a\u202eb"}, // which is bounded here
			{ID: "h4", After: "h3", Step: measure.StepTCP, Remote: "192.0.2.7:443"},
		}}
		if r.Receipt, err = k.Sign(time.UnixMilli(r.TimeMS), r.ASN, question, nonce, r.Observations); err != nil {
			t.Fatal(err)
		}
		return r
	}
	parse := func(r measure.HelperReply, pinned string) (*measure.HelperReply, *measure.Receipt, error) {
		body, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return parseSigned(body, question, nonce, pinned)
	}
	for _, pinned := range []string{"", key.Public(), strings.ToUpper(key.Public())} {
		reply, kept, err := parse(signed(key, question, nonce), pinned)
		if err != nil || kept == nil || reply.Receipt != "" {
			t.Fatalf("%v %+v", err, kept)
		}
		l := NewLog(time.Now(), nil)
		o := l.Begin(measure.StepHelper, Meta{})
		o.Helper, o.Receipt = "https://h/", kept
		l.End(o)
		l.Merge("https://h/", o, reply)
		res := receipt.Check(l.Observations(), 100)
		if len(res) != 1 || res[0].Err != nil || len(res[0].Missing) > 0 || len(res[0].Covers) < 2 || kept.Covers[0].ID != "" {
			t.Errorf("%+v", res)
		}
	}
	if _, kept, err := parse(measure.HelperReply{Schema: 1, Nonce: nonce}, ""); err != nil || kept != nil {
		t.Errorf("an older helper: %v %+v", err, kept)
	}
	for name, c := range map[string]struct {
		make   func() measure.HelperReply
		pinned string
	}{
		"none, and its URL has a key": {func() measure.HelperReply { return measure.HelperReply{Schema: 1, Nonce: nonce} }, key.Public()},
		"another key":                 {func() measure.HelperReply { return signed(other, question, nonce) }, key.Public()},
		"another question":            {func() measure.HelperReply { return signed(key, []byte(`{}`), nonce) }, ""},
		"another key than it says": {func() measure.HelperReply {
			r := signed(other, question, nonce)
			r.ReceiptKey = key.Public()
			return r
		}, ""},
		"another answer": {func() measure.HelperReply {
			r := signed(key, question, nonce)
			r.Observations[1].Failure = measure.ConnectionReset
			return r
		}, ""},
		"one left out": {func() measure.HelperReply {
			r := signed(key, question, nonce)
			r.Observations = r.Observations[:3]
			return r
		}, ""},
		"one more": {func() measure.HelperReply {
			r := signed(key, question, nonce)
			r.Observations = append(r.Observations, measure.Observation{ID: "h9", Step: measure.StepTCP, Remote: "192.0.2.7:443"})
			return r
		}, ""},
		"another network": {func() measure.HelperReply {
			r := signed(key, question, nonce)
			r.ASN++
			return r
		}, ""},
		"another time": {func() measure.HelperReply {
			r := signed(key, question, nonce)
			r.TimeMS += 1000
			return r
		}, ""},
		"not signed": {func() measure.HelperReply {
			r := signed(key, question, nonce)
			r.Receipt, _, _ = strings.Cut(r.Receipt, "\n\n")
			return r
		}, ""},
	} {
		if reply, kept, err := parse(c.make(), c.pinned); err == nil || reply != nil || kept != nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestMergeLeavesTheReplyAlone: one reply may be merged into several logs.
func TestMergeLeavesTheReplyAlone(t *testing.T) {
	reply := &measure.HelperReply{Observations: []measure.Observation{{ID: "h1", Step: measure.StepDNS, StartUS: 5,
		DNS: &measure.DNS{Replies: []measure.DNSReply{{AtUS: 6, Answers: []measure.DNSAnswer{{Type: "A", Value: "192.0.2.1"}}}}}}}}
	for range 2 {
		l := NewLog(time.Now(), func(string) int { return 64500 })
		l.Merge("https://h/", &measure.Observation{StartUS: 1000, Stage: measure.StageConfirm}, reply)
		o := l.Observations()[0]
		if o.StartUS != 1005 || o.DNS.Replies[0].AtUS != 1006 || o.DNS.Replies[0].Answers[0].ASN != 64500 || o.Stage != measure.StageConfirm || o.Helper != "https://h/" {
			t.Errorf("merged %+v %+v", o, o.DNS)
		}
	}
	if o := reply.Observations[0]; o.StartUS != 5 || o.DNS.Replies[0].AtUS != 6 || o.DNS.Replies[0].Answers[0].ASN != 0 {
		t.Errorf("the reply changed: %+v %+v", o, o.DNS)
	}
}

func FuzzParseHelperReply(f *testing.F) {
	f.Add([]byte(`{"schema":1,"nonce":"n","observations":[{"id":"h1","step":"tcp","remote":"192.0.2.7:443"}]}`))
	f.Add([]byte(`{"schema":1,"nonce":"n","observations":[{"id":"h2","step":"dns","dns":{"name":"a","type":"A","replies":[{"answers":[{"type":"A","value":"1.2.3.4"}]}]}}]}`))
	f.Add([]byte(`{"schema":1,"nonce":"n","observations":[{"id":"h3","step":"tls","remote":"[::1]:1","tls":{"alert":5,"chain":["00"]}},{"id":"h4","after":"h3","step":"http","http":{"status":200,"headers":[{"name":"a","value":"b"}]}}]}`))
	f.Add([]byte(`{"schema":1,"nonce":"n","observations":[{"id":"h1","step":"mail","remote":"192.0.2.7:587","mail":{"protocol":"smtp","greeting":"220 \u202e","before":["SIZE"],"starttls":"yes","early_bytes":-1,"lines":[{"at_us":-5,"text":"x"}],"key":"own"}}],` +
		`"mail":[{"protocol":"smtp","port":587,"greeting":"220 x","key":"` + strings.Repeat("AB", 32) + `"},{"protocol":"nntp","port":119},{"protocol":"imap","port":-1,"key":"00"}]}`))
	f.Add([]byte(`{"schema":1,"nonce":"n","failure":"x y","detail":"\ud800","observations":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseHelperReply(data, "n")
		if err != nil {
			return
		}
		if r.Nonce != "n" || len(r.Observations) > maxHelperObservations || !utf8.ValidString(r.Detail) {
			t.Fatalf("accepted %+v", r)
		}
		for _, g := range r.Mail {
			if g.Port < 1 || g.Port > 65535 || len(g.Key) != 64 || !mailProtocol(g.Protocol) {
				t.Fatalf("greeter %+v", g)
			}
		}
		if len(r.Mail) > maxGreeters {
			t.Fatalf("%d greeters", len(r.Mail))
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		l := NewLog(time.Now(), nil)
		l.Merge("https://h/", &measure.Observation{}, r)
		if len(l.Observations()) != len(r.Observations) {
			t.Fatal("lost in merging")
		}
		// What was made harmless once stays as it is.
		second, err := ParseHelperReply(again, "n")
		if err != nil {
			t.Fatalf("its own output is refused: %v", err)
		}
		if third, _ := json.Marshal(second); string(third) != string(again) {
			t.Fatalf("not stable:\n%s\n%s", again, third)
		}
	})
}

// FuzzParseArrived: whatever a helper says of connections is bounded and makes
// sense in itself, or is refused.
func FuzzParseArrived(f *testing.F) {
	const marker = "00112233445566778899aabbccddeeff"
	f.Add([]byte(`{"schema":1,"marker":"` + marker + `","list":[{"marked":true,"port":20000,"bytes":535,"syn_ttl":57,"first_us":9,"ended_us":12,"ended":"reset","age_us":40}]}`))
	f.Add([]byte(`{"schema":1,"marker":"` + marker + `","list":[{"port":-1,"ended":"\u202e","ended_us":1e300,"age_us":-5}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseArrived(b, marker)
		if err != nil {
			return
		}
		if len(r.List) > maxArrivals {
			t.Fatalf("%d connections", len(r.List))
		}
		for _, a := range r.List {
			for _, v := range []int64{a.Bytes, a.FirstUS, a.EndedUS, a.AgeUS} {
				if v < 0 || v > maxHelperUS {
					t.Fatalf("%+v", a)
				}
			}
			if a.Port < 0 || a.Port > 65535 || a.SYNTTL < 0 || a.SYNTTL > 255 || a.Marked != (a.Bytes > 0) || a.Ended != "" && a.Ended != "reset" && a.Ended != "closed" {
				t.Fatalf("%+v", a)
			}
		}
	})
}
