package helper_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"govah/evidence/receipt"
	"govah/helper"
	"govah/lab"
	"govah/measure"
	"govah/wire"
)

// TestInTheLab mounts a helper on a host of an emulated internet, as whoever
// composes the two does: it looks at the sites from there, and serves a client
// over IPv4 and IPv6.
func TestInTheLab(t *testing.T) {
	scenario, err := lab.Load("clean")
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.New(scenario, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	const name, site = "helper-a.example", "video.example"
	m, err := w.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := helper.New(helper.Config{Network: m.Network(), Roots: w.Public(), Locate: w.ASN, AllowReserved: true,
		Own: m.Addresses(), Now: w.Now, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	var where helper.Listeners
	for _, a := range m.Addresses() {
		for _, port := range []uint16{8443, 80} {
			l, err := m.Listen(netip.AddrPortFrom(a, port))
			if err != nil {
				t.Fatal(err)
			}
			where.TCP = append(where.TCP, l)
		}
		pc, err := m.ListenPacket(netip.AddrPortFrom(a, 8443))
		if err != nil {
			t.Fatal(err)
		}
		where.UDP = append(where.UDP, pc)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, where) }()
	defer func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Serve did not end")
		}
	}()
	n := w.Network()
	trust := &wire.Trust{Public: w.Public(), Now: w.Now}
	for _, a := range m.Addresses() {
		at := netip.AddrPortFrom(a, 8443)
		l := wire.NewLog(time.Now(), nil)
		url := s.URL(at.String())
		reply, o := wire.AskHelper(ctx, n, l, wire.Meta{Role: measure.RoleHelper}, url,
			measure.HelperRequest{URL: "https://" + site + "/", QUIC: true}, trust)
		if reply == nil {
			t.Fatalf("%s: %s (%s)", at, o.Failure, o.Detail)
		}
		l.Merge(url, o, reply)
		merged := l.Observations()
		if r := receipt.Check(merged, 100); len(r) != 1 || r[0].Err != nil || !r[0].Pinned || len(r[0].Covers) != len(reply.Observations) || len(r[0].Missing) > 0 || len(reply.Observations) < 6 {
			t.Errorf("%s: %d observations, receipts %+v", at, len(reply.Observations), r)
		}
		asn, country := w.ASN(w.ClientAddresses()[0])
		if reply.ASN != asn || reply.Country != country {
			t.Errorf("the client is in AS%d %s; the helper says AS%d %s", asn, country, reply.ASN, reply.Country)
		}
		steps := map[measure.Step]int{}
		families := map[measure.Family]bool{}
		for _, o := range reply.Observations {
			if o.Failure != measure.NoFailure {
				t.Errorf("%s: %+v", at, o)
			}
			steps[o.Step]++
			if o.Step == measure.StepTLS {
				families[o.Family] = o.TLS.Public == measure.VerifiedOK
			}
		}
		if !families[measure.IPv4] || !families[measure.IPv6] || steps[measure.StepHTTP] != 1 || steps[measure.StepQUIC] != 2 {
			t.Errorf("%s: steps %v, verified %v", at, steps, families)
		}

		// The controls that check uses: bulk bytes, a fixed page and HTTP/3
		// under any name, and first bytes of anything.
		conn, o := wire.Connect(ctx, n, l, wire.Meta{}, wire.ConnectSpec{Remote: at})
		if conn == nil {
			t.Fatal(o.Detail)
		}
		tc, o := wire.Handshake(ctx, l, wire.Meta{}, conn, wire.HandshakeSpec{SNI: "any.name.example"}, trust)
		if tc == nil {
			t.Fatal(o.Detail)
		}
		o = wire.Bulk(ctx, l, wire.Meta{}, tc, wire.Request{URL: "https://any.name.example/bulk?bytes=200000"}, 200_000, 10*time.Second, 4*time.Second)
		tc.Close()
		if o.Failure != measure.NoFailure || o.Stream == nil || o.Stream.Bytes != 200_000 {
			t.Errorf("%s: bulk: %+v %+v", at, o, o.Stream)
		}
		plain, o := wire.Connect(ctx, n, l, wire.Meta{}, wire.ConnectSpec{Remote: netip.AddrPortFrom(a, 80)})
		if plain == nil {
			t.Fatal(o.Detail)
		}
		o, _ = wire.Fetch(ctx, l, wire.Meta{}, plain, wire.Request{URL: "http://blocked.example/plain"})
		plain.Close()
		if o.HTTP == nil || o.HTTP.BodySHA256 != measure.HelperPlainSHA256 {
			t.Errorf("%s: plain: %+v %+v", at, o, o.HTTP)
		}
		o = wire.QUIC(ctx, n, l, wire.Meta{}, wire.QUICSpec{Remote: at, SNI: "any.name.example", Request: &wire.Request{URL: "https://any.name.example/"}}, trust)
		if o.HTTP == nil || o.HTTP.Status != 200 {
			t.Errorf("%s: HTTP/3: %+v", at, o)
		}
		marker := make([]byte, 16)
		for i := range marker {
			marker[i] = byte(rand.Uint32())
		}
		raw, o := wire.Connect(ctx, n, l, wire.Meta{}, wire.ConnectSpec{Remote: at})
		if raw == nil {
			t.Fatal(o.Detail)
		}
		sent := slices.Concat([]byte("\x38\x01\x00\x00"), marker)
		raw.Write(sent)
		time.Sleep(200 * time.Millisecond)
		raw.Close()
		got, o := wire.AskReceived(ctx, n, l, wire.Meta{}, url, hex.EncodeToString(marker), trust)
		if got == nil || got.Connections != 1 || got.Bytes != int64(len(sent)) {
			t.Errorf("%s: received %+v (%s)", at, got, o.Detail)
		}
	}
}

// TestHelloAsItCame: over an honest path a helper tells the very ClientHello
// that was sent, in every layout; one that a device answered did not come.
func TestHelloAsItCame(t *testing.T) {
	scenario, err := lab.Load("kazakhstan-2019")
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.New(scenario, lab.Options{Client: "copied"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	m, err := w.Host("helper-zurich.example")
	if err != nil {
		t.Fatal(err)
	}
	s, err := helper.New(helper.Config{Network: m.Network(), Roots: w.Public(), AllowReserved: true, Own: m.Addresses(), Now: w.Now})
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(m.Addresses()[0], 443)
	l, err := m.Listen(at)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, helper.Listeners{TCP: []net.Listener{l}}) }()
	defer func() { cancel(); <-ended }()
	trust := &wire.Trust{Public: w.Public(), Now: w.Now}
	for _, kind := range []string{"chrome", "chrome-small", "go"} {
		for name, want := range map[string]string{"xqzv.example": "same", "vk.com": "none"} {
			log := wire.NewLog(time.Now(), nil)
			hello, err := wire.NewHello(kind, 7)
			if err != nil {
				t.Fatal(err)
			}
			conn, o := wire.Connect(ctx, w.Network(), log, wire.Meta{}, wire.ConnectSpec{Remote: at})
			if conn == nil {
				t.Fatal(o.Detail)
			}
			tc, o := wire.Handshake(ctx, log, wire.Meta{}, conn, wire.HandshakeSpec{SNI: name, Hello: hello}, trust)
			if tc == nil {
				t.Fatalf("%s, %s: %s", kind, name, o.Detail)
			}
			own := o.TLS.SPKI == s.Pin()
			wire.AskHello(ctx, w.Network(), log, wire.Meta{Role: measure.RoleHelper}, s.URL(at.String()), at.Addr(), trust,
				o, tc.ClientHello())
			if o.TLS.HelloCame != want || own != (want == "same") {
				t.Errorf("%s, %s: the ClientHello came: %q, the helper's key: %v", kind, name, o.TLS.HelloCame, own)
			}
			// What differs in one byte is not taken for the same.
			if other := bytes.Clone(tc.ClientHello()); want == "same" {
				other[len(other)-1] ^= 1
				wire.AskHello(ctx, w.Network(), log, wire.Meta{Role: measure.RoleHelper}, s.URL(at.String()), at.Addr(), trust,
					o, other)
				if o.TLS.HelloCame != "differs" {
					t.Errorf("%s: changed in one byte: %q", kind, o.TLS.HelloCame)
				}
			}
			conn.Abort()
		}
	}
}
