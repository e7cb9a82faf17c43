package check

import (
	"context"
	"math/bits"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"govah/known"
	"govah/measure"
	"govah/wire"
)

// Bounds of single steps. What they end is a failure of the kind that
// design.md calls silence: two retransmissions survived.
const (
	lookupTimeout = 6 * time.Second
	dohTimeout    = 5 * time.Second
	quicTimeout   = 4 * time.Second
	fetchTimeout  = 20 * time.Second
	stallTimeout  = 4 * time.Second
	lingerDNS     = 600 * time.Millisecond
	maxRedirects  = 5
	maxBody       = 256 << 10
)

// resolution is what the resolvers said about one name. direct belongs to
// whoever has waited for heard.
type resolution struct {
	ready                     chan struct{} // closed when all but direct is there
	heard                     chan struct{} // closed when the direct question's last answer is in
	name                      string
	system, direct            *measure.Observation
	encrypted                 []*measure.Observation // A and AAAA
	https                     *measure.Observation
	fromSystem, fromEncrypted []netip.Addr
	h3                        bool // the HTTPS record says so
}

// addresses are the address records of all replies of o, first reply first.
func addresses(o *measure.Observation) []netip.Addr {
	var out []netip.Addr
	if o == nil || o.DNS == nil {
		return nil
	}
	for _, rep := range o.DNS.Replies {
		for _, a := range rep.Answers {
			if a.Type != "A" && a.Type != "AAAA" {
				continue
			}
			if addr, err := netip.ParseAddr(a.Value); err == nil && !slices.Contains(out, addr.Unmap()) {
				out = append(out, addr.Unmap())
			}
		}
	}
	return out
}

// resolve asks the system, its resolver directly (to hear every answer), and
// an encrypted resolver, all at once.
func (j *job) resolve(ctx context.Context, name string) *resolution {
	j.mu.Lock()
	if res, ok := j.names[name]; ok {
		j.mu.Unlock()
		<-res.ready
		return res
	}
	res := &resolution{name: name, ready: make(chan struct{}), heard: make(chan struct{})}
	j.names[name] = res
	j.mu.Unlock()
	defer close(res.ready)
	if a, err := netip.ParseAddr(name); err == nil {
		res.fromSystem = []netip.Addr{a}
		close(res.heard)
		return res
	}
	r := j.r
	test := wire.Meta{Role: measure.RoleTest, Stage: measure.StageScreen, Experiment: measure.ExpResolver, Differs: []string{"resolver"}}
	var wg sync.WaitGroup
	if r.view.Lookup {
		wg.Go(func() {
			if r.pacer.waitAsk(ctx) == nil {
				res.system = wire.LookupSystem(ctx, r.cfg.Network, j.log, test, name, lookupTimeout)
			}
		})
	}
	if len(r.cfg.Surroundings.Resolvers) == 0 {
		close(res.heard)
	} else {
		// Later answers are listened for while the visit goes on, unless the
		// system cannot be asked and all depends on this question.
		go func() {
			defer close(res.heard)
			if r.pacer.waitAsk(ctx) == nil {
				res.direct = wire.Ask(ctx, r.cfg.Network, j.log, test, wire.Question{
					Name: name, Type: "A", Server: r.cfg.Surroundings.Resolvers[0], Transport: "udp",
					Timeout: lookupTimeout, Linger: lingerDNS}, r.trust)
			}
		}()
		if !r.view.Lookup {
			wg.Go(func() { <-res.heard })
		}
	}
	control := wire.Meta{Role: measure.RoleControl, Stage: measure.StageScreen, Experiment: measure.ExpResolver}
	var mu sync.Mutex
	encrypted := func(qtype string) {
		for _, d := range r.doh {
			o := d.Ask(ctx, j.log, control, name, qtype, dohTimeout)
			if o.Failure != measure.NoFailure && len(o.DNS.Replies) == 0 {
				continue // that server cannot be reached; ask the next
			}
			mu.Lock()
			defer mu.Unlock()
			if qtype == "HTTPS" {
				res.https = o
				return
			}
			res.encrypted = append(res.encrypted, o)
			return
		}
	}
	if r.v4 {
		wg.Go(func() { encrypted("A") })
	}
	if r.v6 {
		wg.Go(func() { encrypted("AAAA") })
	}
	if j.target.Scheme != "tcp" && j.target.Scheme != "ssh" {
		wg.Go(func() { encrypted("HTTPS") })
	}
	wg.Wait()
	res.fromSystem = append(res.fromSystem, addresses(res.system)...)
	if res.system == nil && !r.view.Lookup {
		res.fromSystem = addresses(res.direct)
	}
	for _, o := range res.encrypted {
		res.fromEncrypted = append(res.fromEncrypted, addresses(o)...)
	}
	if len(res.encrypted) > 0 && res.system != nil {
		j.log.Link(res.system, res.encrypted[0].ID)
	}
	if res.https != nil && res.https.DNS != nil {
		for _, rep := range res.https.DNS.Replies {
			for _, a := range rep.Answers {
				if a.Type == "HTTPS" && strings.Contains(a.Value, "h3") {
					res.h3 = true
				}
			}
		}
	}
	return res
}

// candidate is an address to try, and the observation that gave it.
type candidate struct {
	addr   netip.Addr
	after  string
	system bool
}

// candidates picks, per family, the system's first address, and an encrypted
// resolver's first if the two sets have nothing in common.
func (j *job) candidates(res *resolution) []candidate {
	var out []candidate
	for _, f := range []measure.Family{measure.IPv4, measure.IPv6} {
		if f == measure.IPv4 && !j.r.v4 && !j.r.vantage.NAT64 || f == measure.IPv6 && !j.r.v6 {
			continue
		}
		pick := func(list []netip.Addr, after *measure.Observation, system bool) (netip.Addr, bool) {
			for _, a := range list {
				if wire.FamilyOf(a) == f {
					c := candidate{addr: a, system: system}
					if after != nil {
						c.after = after.ID
					}
					out = append(out, c)
					return a, true
				}
			}
			return netip.Addr{}, false
		}
		source := res.system
		if source == nil && !j.r.view.Lookup {
			source = res.direct
		}
		first, ok := pick(res.fromSystem, source, true)
		if ok && (slices.Contains(res.fromEncrypted, first) || slices.Contains(res.fromEncrypted, j.r.untranslate(first))) {
			continue
		}
		var enc *measure.Observation
		for _, o := range res.encrypted {
			for _, a := range addresses(o) {
				if wire.FamilyOf(a) == f {
					enc = o
				}
			}
		}
		pick(res.fromEncrypted, enc, false)
	}
	return out
}

// suspect is something that the screening could not explain.
type suspect struct {
	layer  measure.Step
	family measure.Family
	host   string
	addr   netip.Addr
	port   int
	url    string
	seen   *measure.Observation
	// certificate: the handshake ended well but the chain does not verify.
	certificate bool
	// body: the failure came inside an authenticated session.
	body bool
	// slow: the transfer ended, but slowly.
	slow bool
	// alone: there is nobody at the server's other port.
	alone bool
}

func (j *job) suspect(s suspect) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, have := range j.suspects {
		if have.layer == s.layer && have.family == s.family && have.host == s.host && have.port == s.port &&
			have.certificate == s.certificate && have.addr == s.addr {
			return
		}
	}
	j.suspects = append(j.suspects, s)
}

// screen is the cheap pass: one visit as a browser makes it, per family, and
// a look at HTTP/3 where it is advertised.
func (j *job) screen(ctx context.Context) {
	var err error
	j.hello, err = wire.NewHello("chrome", int64(j.r.cfg.Seed))
	if err != nil {
		panic(err) // the layout is a constant of ours
	}
	host := j.target.Host
	res := j.resolve(ctx, host)
	if ctx.Err() != nil {
		return
	}
	_, _, isMail := wire.MailScheme(j.target.Scheme)
	if (j.target.Scheme == "http" || isMail) && len(j.r.cfg.Helpers) > 0 {
		j.askHelpers(ctx)
	}
	list := j.candidates(res)
	var wg sync.WaitGroup
	j.background.Go(func() { // that nothing answers takes its time, and nothing here waits for it
		if j.r.redirected() {
			j.askNowhere(ctx, host)
		}
	})
	primary := map[bool]bool{}
	for _, c := range list {
		body := !primary[c.system]
		primary[c.system] = true
		wg.Go(func() {
			switch j.target.Scheme {
			case "https", "http":
				j.visit(ctx, j.target.URL, c, body, 0)
			case "tls":
				j.tls(ctx, host, c, j.target.Port)
			case "tcp":
				j.banner(ctx, host, c)
			case "ssh":
				j.hostKey(ctx, host, c)
			default:
				j.mail(ctx, host, c)
			}
		})
	}
	wg.Wait()
	j.mu.Lock()
	var all []*resolution
	for _, res := range j.names {
		all = append(all, res)
	}
	j.mu.Unlock()
	for _, res := range all {
		<-res.heard
		if res.direct != nil && len(res.encrypted) > 0 {
			j.log.Link(res.direct, res.encrypted[0].ID)
		}
		j.judgeNames(res)
	}
	if len(list) == 0 {
		j.suspect(suspect{layer: measure.StepDNS, host: host, seen: firstOf(res.system, res.direct)})
	}
}

// askNowhere asks an address without a resolver for the target and for a
// control name, where the preflight found that port 53 is redirected.
func (j *job) askNowhere(ctx context.Context, host string) {
	at, ok := j.r.nowhere()
	if _, err := netip.ParseAddr(host); !ok || err == nil {
		return
	}
	ask := func(meta wire.Meta, name string) *measure.Observation {
		if j.r.pacer.waitAsk(ctx) != nil {
			return j.interrupted(measure.StepDNS, meta)
		}
		return wire.Ask(ctx, j.r.cfg.Network, j.log, meta, wire.Question{Name: name, Type: "A", Server: at, Transport: "udp",
			NoResolver: true, Tries: 2, Timeout: 2500 * time.Millisecond, Linger: lingerDNS}, j.r.trust)
	}
	c := ask(wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: measure.ExpNowhere, Pair: 1, ControlKind: measure.ControlKnown}, j.knownName())
	t := ask(wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpNowhere, Pair: 1, Differs: []string{"qname"}}, host)
	j.log.Link(t, c.ID)
}

func firstOf(list ...*measure.Observation) *measure.Observation {
	for _, o := range list {
		if o != nil {
			return o
		}
	}
	return nil
}

// judgeNames raises the suspicion of a lie in the names: no answer where
// another resolver has one, an impossible address, several different answers
// to one question, or answers with nothing in common. Which of these are true
// is for experiments to find out.
func (j *job) judgeNames(res *resolution) {
	system := firstOf(res.system, res.direct)
	if system == nil {
		return
	}
	raise := func() { j.suspect(suspect{layer: measure.StepDNS, host: res.name, seen: system}) }
	if len(res.fromSystem) == 0 {
		raise()
		return
	}
	overlap := false
	for _, a := range res.fromSystem {
		if kind, ok := known.Bogon(a); ok && kind != "" && !slices.Contains(res.fromEncrypted, a) {
			raise()
			return
		}
		overlap = overlap || slices.Contains(res.fromEncrypted, a) || slices.Contains(res.fromEncrypted, j.r.untranslate(a))
	}
	if res.direct != nil && res.direct.DNS != nil && len(res.direct.DNS.Replies) > 1 {
		raise()
		return
	}
	if !overlap && len(res.fromEncrypted) > 0 {
		raise()
	}
}

// visit fetches one URL from one address and follows its redirects, each a
// step of its own. It says whether nothing was suspicious.
func (j *job) visit(ctx context.Context, rawURL string, c candidate, body bool, depth int) (fine bool) {
	fine = true
	u, err := url.Parse(rawURL)
	if err != nil {
		return false
	}
	host := u.Hostname()
	port := 80
	if u.Scheme == "https" {
		port = 443
	}
	if p := u.Port(); p != "" {
		port, _ = strconv.Atoi(p)
	}
	meta := wire.Meta{Role: measure.RoleTest, Stage: j.stage, After: c.after}
	conn, o := j.connect(ctx, meta, c.addr, port, 0, 0)
	if conn == nil {
		fine = false
		j.suspect(suspect{layer: measure.StepTCP, family: wire.FamilyOf(c.addr), host: host, addr: c.addr, port: port, url: rawURL, seen: o})
		return fine
	}
	defer conn.Abort()
	meta.After = o.ID
	method := "GET"
	if !body {
		method = "HEAD"
	}
	req := wire.Request{URL: rawURL, Method: method, Host: u.Host, MaxBody: maxBody, Timeout: fetchTimeout, Stall: stallTimeout}
	var ho *measure.Observation
	if u.Scheme == "https" {
		tc, to := j.handshake(ctx, meta, conn, host, j.hello, 0)
		if tc == nil {
			fine = false
			j.suspect(suspect{layer: measure.StepTLS, family: wire.FamilyOf(c.addr), host: host, addr: c.addr, port: port, url: rawURL, seen: to})
			return fine
		}
		defer tc.Close()
		meta.After = to.ID
		if !tc.Verified() {
			fine = false
			j.suspect(suspect{layer: measure.StepTLS, family: wire.FamilyOf(c.addr), host: host, addr: c.addr, port: port, url: rawURL, seen: to, certificate: true})
		}
		ho, _ = wire.Fetch(ctx, j.log, meta, tc, req)
		if tc.Verified() && ho.Failure == measure.NoFailure {
			j.mu.Lock()
			j.genuine[host] = true
			j.mu.Unlock()
		}
		if ho.Failure != measure.NoFailure {
			fine = false
			j.suspect(suspect{layer: measure.StepHTTP, family: wire.FamilyOf(c.addr), host: host, addr: c.addr, port: port, url: rawURL, seen: ho, body: true})
			return fine
		}
		if slow(ho) {
			fine = false
			j.suspect(suspect{layer: measure.StepStream, family: wire.FamilyOf(c.addr), host: host, addr: c.addr, port: port, url: rawURL, seen: ho, slow: true})
		}
		res := j.resolve(ctx, host)
		if depth == 0 && (res.h3 || ho.HTTP != nil && ho.HTTP.H3 != "") && body {
			j.http3(ctx, rawURL, host, c, port)
		}
	} else {
		var data []byte
		ho, data = wire.Fetch(ctx, j.log, meta, conn, req)
		j.match(ho, data)
		if ho.Failure != measure.NoFailure {
			fine = false
			j.suspect(suspect{layer: measure.StepHTTP, family: wire.FamilyOf(c.addr), host: host, addr: c.addr, port: port, url: rawURL, seen: ho})
			return fine
		}
		if slow(ho) {
			fine = false
			j.suspect(suspect{layer: measure.StepStream, family: wire.FamilyOf(c.addr), host: host, addr: c.addr, port: port, url: rawURL, seen: ho, slow: true})
		}
		if body {
			j.plain(ctx, rawURL, c, port, ho)
		}
	}
	if ho.HTTP == nil || ho.HTTP.Location == "" || depth == maxRedirects || ho.HTTP.Status < 300 || ho.HTTP.Status > 399 {
		return fine
	}
	next, err := u.Parse(ho.HTTP.Location)
	if err != nil || next.Scheme != "http" && next.Scheme != "https" || next.Hostname() == "" {
		return fine
	}
	t, err := ParseTarget(next.String())
	if err != nil {
		return fine
	}
	follow := c
	follow.after = ho.ID
	if t.Host != host {
		res := j.resolve(ctx, t.Host)
		found := false
		for _, n := range j.candidates(res) {
			if wire.FamilyOf(n.addr) == wire.FamilyOf(c.addr) {
				follow, found = n, true
				break
			}
		}
		if !found {
			return fine
		}
	}
	return j.visit(ctx, t.URL, follow, body, depth+1) && fine
}

// slow says whether a finished transfer was so slow that throttling is worth
// a test: less than 400 kbit/s over at least 20 kB.
func slow(o *measure.Observation) bool {
	if o.HTTP == nil || o.HTTP.BodyBytes < 20_000 {
		return false
	}
	us := o.TookUS - o.HTTP.FirstByteUS
	return us > 0 && o.HTTP.BodyBytes*8*1_000_000/us < 400_000
}

// connect is one paced TCP connect, recorded.
func (j *job) connect(ctx context.Context, meta wire.Meta, addr netip.Addr, port, ttl, mss int) (wire.Conn, *measure.Observation) {
	if err := j.r.pacer.wait(ctx); err != nil {
		return nil, j.interrupted(measure.StepTCP, meta)
	}
	conn, o := wire.Connect(ctx, j.r.cfg.Network, j.log, meta, wire.ConnectSpec{
		Remote: netip.AddrPortFrom(addr, uint16(port)), TTL: ttl, MSS: mss})
	return conn, o
}

func (j *job) handshake(ctx context.Context, meta wire.Meta, conn wire.Conn, name string, hello *wire.Hello, ttl int) (*wire.TLSConn, *measure.Observation) {
	sni := name
	if _, err := netip.ParseAddr(name); err == nil {
		sni = ""
	}
	tc, o := wire.Handshake(ctx, j.log, meta, conn, wire.HandshakeSpec{SNI: sni, Verify: name, Hello: hello, TTL: ttl}, j.r.trust)
	return tc, o
}

func (j *job) interrupted(step measure.Step, meta wire.Meta) *measure.Observation {
	o := j.log.Begin(step, meta)
	o.Failure = measure.Interrupted
	j.log.End(o)
	return o
}

// match looks for known signatures in an answer that nobody authenticated,
// and keeps the body of one that has any.
func (j *job) match(o *measure.Observation, body []byte) {
	if o == nil || o.HTTP == nil {
		return
	}
	found := *o.HTTP
	found.Matches = known.MatchHTTP(o.HTTP, body)
	j.log.Amend(func() { o.HTTP = &found })
	if len(found.Matches) > 0 {
		j.keep(o, body)
	}
}

func (j *job) keep(o *measure.Observation, body []byte) {
	if o.HTTP.BodySHA256 == "" || len(body) == 0 {
		return
	}
	j.log.Keep(measure.Body{Type: "body", Schema: 1, Run: j.r.cfg.Run, SHA256: o.HTTP.BodySHA256, Kind: "body",
		Data: append([]byte(nil), body...), Truncated: o.HTTP.BodyTruncated})
}

// tls screens a bare TLS endpoint.
func (j *job) tls(ctx context.Context, host string, c candidate, port int) {
	meta := wire.Meta{Role: measure.RoleTest, Stage: measure.StageScreen, After: c.after}
	conn, o := j.connect(ctx, meta, c.addr, port, 0, 0)
	if conn == nil {
		j.suspect(suspect{layer: measure.StepTCP, family: wire.FamilyOf(c.addr), host: host, addr: c.addr, port: port, seen: o})
		return
	}
	defer conn.Abort()
	meta.After = o.ID
	tc, to := j.handshake(ctx, meta, conn, host, j.hello, 0)
	if tc == nil || !tc.Verified() {
		j.suspect(suspect{layer: measure.StepTLS, family: wire.FamilyOf(c.addr), host: host, addr: c.addr, port: port, seen: to, certificate: tc != nil})
	}
	if tc != nil {
		tc.Close()
	}
}

// banner screens a bare TCP endpoint: whether it connects, and whether the
// service speaks first.
func (j *job) banner(ctx context.Context, host string, c candidate) {
	meta := wire.Meta{Role: measure.RoleTest, Stage: measure.StageScreen, After: c.after}
	conn, o := j.connect(ctx, meta, c.addr, j.target.Port, 0, 0)
	if conn == nil {
		j.suspect(suspect{layer: measure.StepTCP, family: wire.FamilyOf(c.addr), host: host, addr: c.addr, port: j.target.Port, seen: o})
		return
	}
	defer conn.Abort()
	if len(j.r.cfg.Helpers) > 0 {
		j.suspect(suspect{layer: measure.StepStream, family: wire.FamilyOf(c.addr), host: host, addr: c.addr, port: j.target.Port, seen: o})
	}
}

// http3 looks at HTTP/3 where it was advertised, and only if a canary speaks
// QUIC here; the control is the TLS handshake over TCP that just worked.
func (j *job) http3(ctx context.Context, rawURL, host string, c candidate, port int) {
	meta := wire.Meta{Role: measure.RoleTest, Stage: j.stage, Experiment: measure.ExpQUIC, Differs: []string{"transport"}, After: c.after}
	o := j.quic(ctx, meta, c.addr, port, host, rawURL)
	if o.Failure != measure.NoFailure {
		j.suspect(suspect{layer: measure.StepQUIC, family: wire.FamilyOf(c.addr), host: host, addr: c.addr, port: port, url: rawURL, seen: o})
	}
}

func (j *job) quic(ctx context.Context, meta wire.Meta, addr netip.Addr, port int, name, rawURL string) *measure.Observation {
	if err := j.r.pacer.wait(ctx); err != nil {
		return j.interrupted(measure.StepQUIC, meta)
	}
	spec := wire.QUICSpec{Remote: netip.AddrPortFrom(addr, uint16(port)), SNI: name, Verify: name, Timeout: quicTimeout}
	if rawURL != "" {
		spec.Request = &wire.Request{URL: rawURL, Method: "HEAD", Timeout: quicTimeout}
	}
	return wire.QUIC(ctx, j.r.cfg.Network, j.log, meta, spec, j.r.trust)
}

// plain gives an answer over plain HTTP its controls: the same name over
// authenticated TLS, and the same Host at an unrelated server next to a random
// Host. A page that only imitates the site shows in either.
func (j *job) plain(ctx context.Context, rawURL string, c candidate, port int, seen *measure.Observation) {
	host := j.target.Host
	u, err := url.Parse(rawURL)
	if err != nil || u.Hostname() != host {
		return
	}
	if len(seen.HTTP.Matches) > 0 {
		j.suspect(suspect{layer: measure.StepHTTP, family: wire.FamilyOf(c.addr), host: host, addr: c.addr, port: port, url: rawURL, seen: seen})
	}
	// The encrypted twin.
	meta := wire.Meta{Role: measure.RoleControl, Stage: measure.StageScreen, Experiment: measure.ExpHTTPS, After: c.after}
	if port == 80 && !(seen.HTTP.Status >= 300 && seen.HTTP.Status < 400 && strings.HasPrefix(seen.HTTP.Location, "https://"+host)) {
		twin := "https://" + u.Host + u.RequestURI()
		if conn, o := j.connect(ctx, meta, c.addr, 443, 0, 0); conn != nil {
			m := meta
			m.After = o.ID
			if tc, to := j.handshake(ctx, m, conn, host, j.hello, 0); tc != nil {
				m.After = to.ID
				ho, _ := wire.Fetch(ctx, j.log, m, tc, wire.Request{URL: twin, Method: "GET", Host: u.Host, MaxBody: maxBody, Timeout: fetchTimeout, Stall: stallTimeout})
				j.log.Amend(func() { seen.Control, seen.Experiment, seen.Differs = ho.ID, measure.ExpHTTPS, []string{"tls"} })
				tc.Close()
				if ho.HTTP != nil && ho.Failure == measure.NoFailure && tc.Verified() && unlike(seen.HTTP, ho.HTTP) {
					j.suspect(suspect{layer: measure.StepHTTP, family: wire.FamilyOf(c.addr), host: host, addr: c.addr, port: port, url: rawURL, seen: seen})
				}
			}
			conn.Abort()
		}
	}
	// The same Host where it does not belong.
	if j.hostElsewhere(ctx, c.addr, host, u.RequestURI(), 0, measure.StageScreen) {
		j.suspect(suspect{layer: measure.StepHTTP, family: wire.FamilyOf(c.addr), host: host, addr: c.addr, port: port, url: rawURL, seen: seen})
	}
	j.helperPlain(ctx, c.addr)
	if j.r.webProxy() {
		j.r.terminator(ctx, j.log, c.addr, 80, 443)
	}
}

// unlike says whether two answers for one URL are too different for the
// same page: other status class, or bodies far apart.
func unlike(a, b *measure.HTTP) bool {
	if a.Status/100 != b.Status/100 {
		return true
	}
	if a.BodySHA256 == b.BodySHA256 {
		return false
	}
	x, ex := strconv.ParseUint(a.Simhash, 16, 64)
	y, ey := strconv.ParseUint(b.Simhash, 16, 64)
	if ex != nil || ey != nil {
		return false
	}
	return bits.OnesCount64(x^y) > 20
}
