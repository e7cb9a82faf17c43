package check

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"govah/measure"
	"govah/wire"
)

// oddWait is how long something has to answer what no server understands.
const oddWait = 1500 * time.Millisecond

// lineHTTP compares what a helper saw of plain requests, and what came of its
// pages, with the same over TLS.
func (j *job) lineHTTP(ctx context.Context, v vantage) {
	f := j.r.anyFamily()
	addrs := of(v.addrs, f)
	if len(addrs) == 0 {
		return
	}
	host, _, err := HelperHost(v.url)
	if err != nil {
		return
	}
	p := &plainHelper{j: j, v: v, at: addrs[0], host: host}
	t := p.echo(ctx)
	if t == nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.echoOverTLS(ctx, t) })
	wg.Go(func() { p.plain(ctx) })
	wg.Go(func() { p.fresh(ctx) })
	wg.Go(func() { p.odd(ctx) })
	wg.Go(func() { j.firstHop(ctx, p.at, p.port) })
	wg.Wait()
}

// plainHelper is a helper that is spoken to in the clear.
type plainHelper struct {
	j    *job
	v    vantage
	at   netip.Addr
	host string
	port int // at which it answers in the clear
}

func (p *plainHelper) connect(ctx context.Context, meta wire.Meta, port int) (wire.Conn, wire.Meta) {
	conn, o := p.j.connect(ctx, wire.Meta{Role: meta.Role, Stage: meta.Stage}, p.at, port, 0, 0)
	meta.After = o.ID
	return conn, meta
}

// authority is the helper's Host at a port.
func (p *plainHelper) authority(port int) string {
	host := bracket(p.host)
	if port != 80 {
		host += fmt.Sprintf(":%d", port)
	}
	return host
}

// request is a request head that no browser writes: names in random case, in
// an order of its own, and a header that nobody knows.
func (p *plainHelper) request(path, authority, token string) (head []byte, sent *measure.Head) {
	sent = &measure.Head{Line: "GET " + path + " HTTP/1.1", Headers: []measure.Header{
		{Name: "Accept-Language", Value: "en-US,en;q=0.8"}, {Name: "User-Agent", Value: "Mozilla/5.0"}, {Name: "Host", Value: authority},
		{Name: "X-" + token[:8], Value: token[8:16]}, {Name: "Accept-Encoding", Value: "identity"}, {Name: "Accept", Value: "text/html,*/*;q=0.5"}}}
	var b strings.Builder
	b.WriteString(sent.Line + "\r\n")
	for i := range sent.Headers {
		name := []byte(sent.Headers[i].Name)
		for k := range name {
			// The case is random, but the same for each token.
			if token[(i+k)%len(token)]%2 == 0 {
				name[k] = bytes.ToUpper(name[k : k+1])[0]
			} else {
				name[k] = bytes.ToLower(name[k : k+1])[0]
			}
		}
		sent.Headers[i].Name = string(name)
		b.WriteString(string(name) + ": " + sent.Headers[i].Value + "\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String()), sent
}

func newToken() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// withoutForeign leaves out the values of headers that were not sent, but for
// Via, in which a proxy says what it is (RFC 9110, 7.6.3).
func withoutForeign(seen, sent *measure.Head) *measure.Head {
	for i := range seen.Headers {
		if !slices.ContainsFunc(sent.Headers, func(h measure.Header) bool { return strings.EqualFold(h.Name, seen.Headers[i].Name) }) && !strings.EqualFold(seen.Headers[i].Name, "Via") {
			seen.Headers[i].Value = ""
		}
	}
	return seen
}

// echo asks the helper what it saw, on port 80 if it answers there; nil if it
// did not answer in the clear.
func (p *plainHelper) echo(ctx context.Context) *measure.Observation {
	j, token := p.j, newToken()
	ports := []int{80}
	if p.v.port != 80 {
		ports = append(ports, int(p.v.port))
	}
	for _, port := range ports {
		meta := confirmMeta(measure.RoleTest, measure.ExpEcho, 1)
		meta.Differs = []string{"tls"}
		conn, meta := p.connect(ctx, meta, port)
		if conn == nil {
			continue
		}
		authority := p.authority(port)
		head, sent := p.request("/echo", authority, token)
		o, body := wire.Fetch(ctx, j.log, meta, conn, wire.Request{URL: "http://" + authority + "/echo", Host: authority, Segments: [][]byte{head},
			MaxBody: 16 << 10, Timeout: fetchTimeout, Stall: stallTimeout})
		conn.Abort()
		// What does not hold our token is no helper's word.
		seen, ok := wire.ParseHead(body)
		if o.Failure != measure.NoFailure || o.HTTP.Status != 200 || !ok || !bytes.Contains(body, []byte(token[8:16])) {
			continue
		}
		p.record(o, sent, withoutForeign(seen, sent))
		p.port = port
		return o
	}
	return nil
}

// echoOverTLS asks the helper the same where nobody on the way can change it.
func (p *plainHelper) echoOverTLS(ctx context.Context, t *measure.Observation) {
	j := p.j
	if j.r.pacer.wait(ctx) != nil {
		return
	}
	meta := confirmMeta(measure.RoleControl, measure.ExpEcho, 1)
	meta.ControlKind = measure.ControlKnown
	c, body := wire.HelperPage(ctx, j.r.cfg.Network, j.log, meta, p.v.url, p.at, wire.Request{URL: "echo", MaxBody: 16 << 10}, j.r.trust)
	if seen, ok := wire.ParseHead(body); ok && c.HTTP.Status == 200 {
		sent := &measure.Head{Line: "GET /echo HTTP/1.1"}
		for _, name := range []string{"Host", "Upgrade-Insecure-Requests", "User-Agent", "Accept", "Accept-Encoding", "Accept-Language",
			"Sec-Ch-Ua", "Sec-Ch-Ua-Mobile", "Sec-Ch-Ua-Platform", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-User", "Sec-Fetch-Dest"} {
			sent.Headers = append(sent.Headers, measure.Header{Name: name})
		}
		if c.HTTP.Proto != "HTTP/2.0" { // which has none (RFC 9113, 8.2.2)
			sent.Headers = append(sent.Headers, measure.Header{Name: "Connection"})
		}
		p.record(c, sent, withoutForeign(seen, sent))
	}
	j.pairUp(t, c)
}

func (p *plainHelper) record(o *measure.Observation, sent, seen *measure.Head) {
	p.j.log.Amend(func() {
		h := *o.HTTP
		h.Sent, h.Seen = sent, seen
		o.HTTP = &h
	})
}

// page fetches one of the helper's pages in the clear; nil if nobody accepted.
func (p *plainHelper) page(ctx context.Context, e measure.Experiment, pair int, path string) *measure.Observation {
	meta := confirmMeta(measure.RoleTest, e, pair)
	meta.Differs = []string{"tls"}
	conn, meta := p.connect(ctx, meta, p.port)
	if conn == nil {
		return nil
	}
	defer conn.Abort()
	authority := p.authority(p.port)
	o, _ := wire.Fetch(ctx, p.j.log, meta, conn, wire.Request{URL: "http://" + authority + "/" + path, Host: authority, MaxBody: 16 << 10, Timeout: fetchTimeout, Stall: stallTimeout})
	return o
}

// pageOverTLS is its control.
func (p *plainHelper) pageOverTLS(ctx context.Context, e measure.Experiment, pair int, path string) *measure.Observation {
	j := p.j
	if j.r.pacer.wait(ctx) != nil {
		return nil
	}
	meta := confirmMeta(measure.RoleControl, e, pair)
	meta.ControlKind = measure.ControlKnown
	o, _ := wire.HelperPage(ctx, j.r.cfg.Network, j.log, meta, p.v.url, p.at, wire.Request{URL: path, MaxBody: 16 << 10}, j.r.trust)
	return o
}

// plain fetches the helper's fixed page in both ways.
func (p *plainHelper) plain(ctx context.Context) {
	var (
		wg sync.WaitGroup
		c  *measure.Observation
	)
	wg.Go(func() { c = p.pageOverTLS(ctx, measure.ExpPlain, 1, "plain") })
	t := p.page(ctx, measure.ExpPlain, 1, "plain")
	wg.Wait()
	p.j.pairUp(t, c)
}

// fresh fetches the helper's changing page twice.
func (p *plainHelper) fresh(ctx context.Context) {
	path := "fresh?" + newToken()
	first, second := p.page(ctx, measure.ExpFresh, 1, path), p.page(ctx, measure.ExpFresh, 2, path)
	if first == nil || second == nil || first.HTTP == nil || second.HTTP == nil || first.HTTP.BodySHA256 != second.HTTP.BodySHA256 {
		return // nothing to compare
	}
	path = "fresh?" + newToken()
	p.j.pairUp(first, p.pageOverTLS(ctx, measure.ExpFresh, 1, path))
	p.j.pairUp(second, p.pageOverTLS(ctx, measure.ExpFresh, 2, path))
}

// oddLine ends lines as OONI's test does.
func oddLine(line string) []byte { return []byte(line + "\n\r\n\r\n") }

// oddFields is a request line without a method, a path or a version.
func oddFields(token string) []byte {
	return oddLine("x" + token[:4] + " " + token[4:9] + " " + token[9:14] + " " + token[14:19])
}

// odd sends request lines that no server understands (those of OONI's test of
// invalid request lines): a helper says nothing to the first three, and
// refuses the others.
func (p *plainHelper) odd(ctx context.Context) {
	token := newToken()
	var wg sync.WaitGroup
	for i, x := range []struct {
		name string
		line []byte
	}{
		{"odd-method", oddLine(strings.ToUpper("q"+token[:3]) + " / HTTP/1.1")},
		{"odd-fields", oddFields(token)},
		{"long-method", oddLine("X" + strings.Repeat(token, 32) + " / HTTP/1.1")},
		{"odd-version", oddLine("GET / HTTP/" + token[:3])},
		{"cache-manager", oddLine("GET cache_object://localhost/ HTTP/1.0")},
	} {
		wg.Go(func() {
			conn, meta := p.connect(ctx, confirmMeta(measure.RoleTest, measure.ExpOdd, i+1), p.port)
			if conn == nil {
				return
			}
			defer conn.Abort()
			wire.SayOdd(ctx, p.j.log, meta, conn, x.name, x.line, oddWait)
		})
	}
	wg.Wait()
}
