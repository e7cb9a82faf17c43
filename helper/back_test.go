package helper_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"govah/helper"
	"govah/lab"
	"govah/measure"
	"govah/packet"
	"govah/wire"
)

const backMarker = "00112233445566778899aabbccddeeff"

// backLab is a helper with an SMTP greeter in an emulated internet of one line
// of four routers.
func backLab(t *testing.T, privileged bool) (w *lab.World, at netip.AddrPort, ask func(ttls ...int) *measure.HelperBack) {
	t.Helper()
	scenario, err := lab.Parse([]byte("schema = 1\ntitle = \"t\"\nabout = \"t\"\n[[client-network]]\nname = \"home\"\nabout = \"a line\"\nhops = 4\n[[network]]\nname = \"hosting\"\nhops = 1\n" +
		"[[site]]\nname = \"helper.example\"\nrole = \"helper\"\n[[site]]\nname = \"other.example\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if w, err = lab.New(scenario, lab.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	m, err := w.Host("helper.example")
	if err != nil {
		t.Fatal(err)
	}
	if privileged {
		m.Privilege()
	}
	s, err := helper.New(helper.Config{Network: m.Network(), SetTTL: m.SetTTL, Now: w.Now, Limits: helper.Limits{LooksPerMinute: 6000}})
	if err != nil {
		t.Fatal(err)
	}
	addr := m.Addresses()[0]
	var l helper.Listeners
	tcp, err := m.Listen(netip.AddrPortFrom(addr, 443))
	if err != nil {
		t.Fatal(err)
	}
	mail, err := m.Listen(netip.AddrPortFrom(addr, 587))
	if err != nil {
		t.Fatal(err)
	}
	l.TCP, l.Mail = []net.Listener{tcp}, []helper.MailListener{{Listener: mail, Protocol: "smtp"}}
	serve(t, s, l)
	url := s.URL(netip.AddrPortFrom(addr, 443).String())
	return w, netip.AddrPortFrom(addr, 587), func(ttls ...int) *measure.HelperBack {
		t.Helper()
		got, o := wire.AskBack(t.Context(), w.Network(), wire.NewLog(time.Now(), nil), wire.Meta{}, url, netip.Addr{},
			measure.HelperBackRequest{Schema: 1, Marker: backMarker, Port: 587, TTLs: ttls}, &wire.Trust{Now: w.Now})
		if got == nil {
			t.Fatal(o.Failure, o.Detail)
		}
		return got
	}
}

// late is an order that takes well over a second: each of its words waits for a
// retransmission, of at least 200 ms.
var late = []int{2, 2, 2, 2, 2, 2, 2, 2}

// dialogue says EHLO so often, and gives how long all took.
func dialogue(t *testing.T, n wire.Network, at netip.AddrPort, times int) time.Duration {
	t.Helper()
	began := time.Now()
	conn, err := n.Dial(t.Context(), wire.DialSpec{Flow: wire.Flow{Remote: at}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Abort()
	talk := wire.Talk(t.Context(), wire.NewLog(time.Now(), nil), conn, "smtp")
	defer talk.End()
	err = talk.Greeting()
	for range times {
		if err == nil {
			err = talk.Capabilities()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

// TestBack: words end where they are asked to end, once, for the client who
// asked and nobody else, and the dialogue goes on all the same.
func TestBack(t *testing.T) {
	w, at, ask := backLab(t, true)
	m, err := w.Host("other.example")
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(); !got.Able || len(got.List) != 0 || got.Greeter == nil || got.Greeter.Port != 587 || !strings.HasPrefix(got.Greeter.Greeting, "220 ") {
		t.Fatalf("%+v", got)
	}
	ask(2, 0, 1, 6)
	dialogue(t, m.Network(), at, 1) // somebody else, who takes nobody's order
	dialogue(t, w.Network(), at, 4)
	got := ask()
	if len(got.List) != 3 {
		t.Fatalf("%+v", got.List)
	}
	for i, want := range []struct {
		ttl     int
		outcome string
		says    string
	}{{2, "expired", "220 "}, {1, "expired", "250-"}, {6, "arrived", "250-"}} {
		s := got.List[i]
		text, _ := base64.StdEncoding.DecodeString(s.Text)
		quote, _ := base64.StdEncoding.DecodeString(s.Quoted)
		if s.TTL != want.ttl || s.Outcome != want.outcome || s.Port == 0 || s.Sends == 0 || !strings.HasPrefix(string(text), want.says) {
			t.Errorf("%+v, %q", s, text)
		}
		if s.Outcome != "expired" {
			continue
		}
		q, err := packet.ParseQuote(quote)
		if err != nil || q.Src != at || int(q.Dst.Port()) != s.Port || !bytes.Contains(quote, text) {
			t.Errorf("%v %v: %q in %q", q, err, text, quote)
		}
	}
	if got.List[0].Router == got.List[1].Router {
		t.Errorf("one router at two distances: %+v", got.List)
	}
	dialogue(t, w.Network(), at, 1)
	if again := ask(); len(again.List) != 0 {
		t.Errorf("told or carried out twice: %+v", again)
	}
	// Another question withdraws what no connection has come for.
	ask(late...)
	ask()
	if took := dialogue(t, w.Network(), at, len(late)-1); took > time.Second {
		t.Errorf("a withdrawn order was carried out, %s", took)
	}
}

// TestBackWithoutRight: without the right to capture packets nothing is said
// otherwise than always, and that is told.
func TestBackWithoutRight(t *testing.T) {
	w, at, ask := backLab(t, false)
	if got := ask(late...); got.Able {
		t.Errorf("%+v", got)
	}
	if took := dialogue(t, w.Network(), at, len(late)-1); took > time.Second {
		t.Errorf("it took %s", took)
	}
	if got := ask(); got.Able || len(got.List) > 0 {
		t.Errorf("%+v", got)
	}
}

// TestBackQuestions: what is out of bounds is refused.
func TestBackQuestions(t *testing.T) {
	w, at, _ := backLab(t, true)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return w.Network().Dial(ctx, wire.DialSpec{Flow: wire.Flow{Remote: netip.MustParseAddrPort(addr)}})
		}}
	for body, want := range map[string]int{
		fmt.Sprintf(`{"schema":1,"marker":%q,"port":587,"ttls":[1,64,0]}`, backMarker): 200,
		fmt.Sprintf(`{"schema":1,"marker":%q,"port":587,"ttls":[65]}`, backMarker):     400,
		fmt.Sprintf(`{"schema":1,"marker":%q,"port":587,"ttls":[-1]}`, backMarker):     400,
		fmt.Sprintf(`{"schema":1,"marker":%q,"port":443,"ttls":[1]}`, backMarker):      400,
		`{"schema":1,"marker":"00","port":587}`:                                        400,
		`{`:                                                                            400,
		fmt.Sprintf(`{"schema":1,"marker":%q,"port":587,"ttls":[%s1]}`, backMarker, strings.Repeat("1,", 16)): 400,
	} {
		r, err := (&http.Client{Transport: transport}).Post("https://"+netip.AddrPortFrom(at.Addr(), 443).String()+"/v1/back", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if r.Body.Close(); r.StatusCode != want {
			t.Errorf("%s: status %d, not %d", body, r.StatusCode, want)
		}
	}
}
