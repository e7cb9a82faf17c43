package wire_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"govah/wire"
	"govah/wire/host"
)

// BenchmarkVisit compares one visit (connect, handshake, GET of 67 KB) by the
// recorded steps with the same by net/http, both from a new connection over
// loopback, in turns. Reported are the medians and their ratio, and what each
// allocates.
func BenchmarkVisit(b *testing.B) {
	ca := newAuthority(b)
	page := "<title>a page</title>" + strings.Repeat("some words in it ", 67000/17)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, page) })
	at := server(b, handler, ca.issue(b, nil, "site.example"), true)
	trust := &wire.Trust{Public: ca.pool()}
	n := host.New()
	layout := hello(b, "chrome")
	plain := hello(b, "go")
	visit := func(h *wire.Hello) {
		ctx, l := context.Background(), newLog()
		conn, o := wire.Connect(ctx, n, l, wire.Meta{}, wire.ConnectSpec{Remote: at})
		if conn == nil {
			b.Fatalf("%+v", o)
		}
		defer conn.Abort()
		tc, o := wire.Handshake(ctx, l, wire.Meta{}, conn, wire.HandshakeSpec{SNI: "site.example", Hello: h}, trust)
		if tc == nil {
			b.Fatalf("%+v", o)
		}
		if o, body := wire.Fetch(ctx, l, wire.Meta{}, tc, wire.Request{URL: "https://site.example/", MaxBody: 1 << 20}); len(body) != len(page) {
			b.Fatalf("%+v", o)
		}
	}
	library := func() {
		tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: ca.pool(), ServerName: "site.example"}}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Get("https://" + at.String() + "/")
		if err != nil {
			b.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || len(body) != len(page) {
			b.Fatal(err, len(body))
		}
	}
	var ours, oursGo, theirs []time.Duration
	var allocated [3]uint64
	timed := func(list *[]time.Duration, bytes *uint64, f func()) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		started := time.Now()
		f()
		*list = append(*list, time.Since(started))
		runtime.ReadMemStats(&after)
		*bytes += after.TotalAlloc - before.TotalAlloc
	}
	for b.Loop() {
		timed(&ours, &allocated[0], func() { visit(layout) })
		timed(&oursGo, &allocated[1], func() { visit(plain) })
		timed(&theirs, &allocated[2], library)
	}
	median := func(l []time.Duration) float64 {
		slices.Sort(l)
		return float64(l[len(l)/2].Microseconds())
	}
	b.ReportMetric(median(ours), "us/visit")
	b.ReportMetric(median(ours)/median(theirs), "x-net/http")
	b.ReportMetric(median(oursGo)/median(theirs), "x-net/http(go-hello)")
	runs := uint64(len(ours))
	b.ReportMetric(float64(allocated[0]/runs>>10), "KiB/visit")
	b.ReportMetric(float64(allocated[2]/runs>>10), "KiB/net-http")
}
