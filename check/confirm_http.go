package check

import (
	"context"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"govah/measure"
	"govah/wire"
)

// fetchPlain is one plain HTTP request with a Host of our choice.
func (j *job) fetchPlain(ctx context.Context, meta wire.Meta, addr netip.Addr, port int, host, path string) *measure.Observation {
	conn, o := j.connect(ctx, wire.Meta{Role: meta.Role, Stage: meta.Stage}, addr, port, 0, 0)
	if conn == nil {
		return o
	}
	defer conn.Abort()
	meta.After = o.ID
	ho, body := wire.Fetch(ctx, j.log, meta, conn, wire.Request{URL: "http://" + host + path, Method: "GET", Host: host, MaxBody: 64 << 10, Timeout: fetchTimeout, Stall: stallTimeout})
	j.match(ho, body)
	if ho.HTTP != nil && len(ho.HTTP.Matches) == 0 && meta.Stage == measure.StageConfirm && meta.Role == measure.RoleTest {
		j.keep(ho, body)
	}
	return ho
}

// reacted says whether a plain answer to the tested value differs from the
// control's in a way that a name alone should not cause.
func reacted(t, c *measure.Observation) bool {
	if (t.Failure == measure.NoFailure) != (c.Failure == measure.NoFailure) {
		return true
	}
	if t.HTTP == nil || c.HTTP == nil || t.Failure != measure.NoFailure {
		return false
	}
	return len(t.HTTP.Matches) > 0 && len(c.HTTP.Matches) == 0 || t.HTTP.Status != c.HTTP.Status ||
		authority(t.HTTP.Location) != authority(c.HTTP.Location) || unlike(t.HTTP, c.HTTP)
}

func authority(location string) string {
	u, err := url.Parse(location)
	if err != nil {
		return ""
	}
	return u.Host
}

// hostElsewhere sends the target's Host to an unrelated server next to a
// random Host, and says whether the two were answered differently, and not as
// they would be for any name that there is.
func (j *job) hostElsewhere(ctx context.Context, addr netip.Addr, host, path string, k int, stage measure.Stage) bool {
	at, _, ok := j.r.canaries.elsewhere(addr, k, false)
	if !ok {
		return false
	}
	c := j.fetchPlain(ctx, wire.Meta{Role: measure.RoleControl, Stage: stage, Experiment: measure.ExpHostElsewhere, Pair: k, ControlKind: measure.ControlRandom}, at, 80, j.r.randomName(host), path)
	t := j.fetchPlain(ctx, wire.Meta{Role: measure.RoleTest, Stage: stage, Experiment: measure.ExpHostElsewhere, Pair: k, Differs: []string{"host"}}, at, 80, host, path)
	j.log.Link(t, c.ID)
	if c.Failure != measure.NoFailure || !reacted(t, c) {
		return false
	}
	// A proxy that goes by the Host, whatever the address, knows others too.
	if _, other, ok := j.r.canaries.elsewhere(at, k, false); ok && t.Failure == measure.NoFailure && len(t.HTTP.Matches) == 0 {
		known := j.fetchPlain(ctx, wire.Meta{Role: measure.RoleControl, Stage: stage, Experiment: measure.ExpHostElsewhere, Pair: k, ControlKind: measure.ControlKnown}, at, 80, other.Name, path)
		return known.Failure != measure.NoFailure || !reacted(known, c)
	}
	return true
}

// confirmHTTP finds out whether a plain request is answered, redirected, reset
// or swallowed because of its Host or its path.
func (j *job) confirmHTTP(ctx context.Context, s suspect) int {
	u, err := url.Parse(s.url)
	if err != nil {
		return 0
	}
	path := u.RequestURI()
	elsewhereHits, urlHits := 0, 0
	limit := func(k int) bool {
		return k >= hopeless && elsewhereHits == 0 && urlHits == 0 && len(j.r.cfg.Helpers) == 0
	}
	return j.pairs(ctx, s, canaryKey{step: measure.StepHTTP, family: s.family, plain: true}, limit, func(ctx context.Context, k int) outcome {
		far := make(chan bool, 1)
		go func() { far <- j.hostElsewhere(ctx, s.addr, s.host, path, k, measure.StageConfirm) }()
		var o outcome
		control := func(meta wire.Meta) *measure.Observation {
			return j.fetchPlain(ctx, meta, s.addr, s.port, j.r.randomName(s.host), path)
		}
		cm := wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: measure.ExpHost, Pair: k, ControlKind: measure.ControlRandom}
		c := control(cm)
		if c.Failure != measure.NoFailure && k > 1 {
			if j.waitResidual(ctx, s.addr, func(ctx context.Context, m wire.Meta) bool { return control(m).Failure == measure.NoFailure }) {
				c = control(cm)
			}
		}
		o.control = c.Failure == measure.NoFailure
		if o.control {
			t := j.fetchPlain(ctx, wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpHost, Pair: k, Differs: []string{"host"}}, s.addr, s.port, s.host, path)
			j.log.Link(t, c.ID)
			o.hit = reacted(t, c)
			if len(path) > 1 && k <= hopeless {
				other := j.fetchPlain(ctx, wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: measure.ExpURL, Pair: k, ControlKind: measure.ControlRandom}, s.addr, s.port, s.host, j.randomPath(path))
				same := j.fetchPlain(ctx, wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpURL, Pair: k, Differs: []string{"path"}}, s.addr, s.port, s.host, path)
				j.log.Link(same, other.ID)
				if other.Failure == measure.NoFailure && reacted(same, other) {
					urlHits++
				}
			}
		}
		if <-far {
			elsewhereHits++
			o.hit, o.control = true, true
		}
		return o
	})
}

func (j *job) randomPath(path string) string {
	return "/" + strings.Map(func(r rune) rune {
		if r == '.' {
			return 'x'
		}
		return r
	}, j.r.randomName(strings.Repeat("a", len(path)-1)))
}

// confirmBody looks at a failure inside an authenticated session: dropped or
// reset after the handshake, or frozen after some bytes. The name is tried
// elsewhere and against other names; with a helper, bulk bytes are compared.
func (j *job) confirmBody(ctx context.Context, s suspect) int {
	u, err := url.Parse(s.url)
	if err != nil {
		return 0
	}
	elsewhereHits := 0
	limit := func(k int) bool { return k >= hopeless && elsewhereHits == 0 && len(j.r.helpers) == 0 }
	request := func(meta wire.Meta, addr netip.Addr, port int, sni string) *measure.Observation {
		h := j.sendHello(ctx, meta, addr, port, sni, j.hello, 0, 0)
		defer h.close()
		if h.conn == nil {
			return h.obs
		}
		meta.After = h.obs.ID
		o, _ := wire.Fetch(ctx, j.log, meta, h.conn, wire.Request{URL: "https://" + u.Host + u.RequestURI(), Method: "GET", Host: u.Host, MaxBody: maxBody, Timeout: fetchTimeout, Stall: stallTimeout})
		return o
	}
	pair := func(exp measure.Experiment, addr netip.Addr, port, k int) outcome {
		c := request(wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: exp, Pair: k, ControlKind: measure.ControlRandom}, addr, port, j.r.randomName(s.host))
		t := request(wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: exp, Pair: k, Differs: []string{"sni"}}, addr, port, s.host)
		j.log.Link(t, c.ID)
		return outcome{control: c.Failure == measure.NoFailure || c.TLS != nil && c.TLS.ServerBytes, hit: t.Failure != measure.NoFailure}
	}
	return j.pairs(ctx, s, canaryKey{step: measure.StepTLS, family: s.family}, limit, func(ctx context.Context, k int) outcome {
		o := pair(measure.ExpSNI, s.addr, s.port, k)
		if len(j.r.helpers) > 0 {
			if b := j.bulkPair(ctx, s, k); b.hit {
				elsewhereHits++
			}
		} else if at, ok := j.elsewhere(s.addr, k, false); ok {
			if e := pair(measure.ExpSNIElsewhere, at.Addr(), int(at.Port()), k); e.hit && e.control {
				elsewhereHits++
			}
		}
		o.control = true
		return o
	})
}

// bulkBytes is what a throttling test downloads at most, and bulkTime how long.
const (
	bulkBytes = 256 << 10
	bulkTime  = 3 * time.Second
)

// bulkPair downloads the same bytes from a helper under the target's name and
// under a control name.
func (j *job) bulkPair(ctx context.Context, s suspect, k int) outcome {
	at, ok := j.elsewhere(s.addr, 0, false)
	if !ok {
		return outcome{}
	}
	get := func(meta wire.Meta, sni string) *measure.Observation {
		h := j.sendHello(ctx, wire.Meta{Role: meta.Role, Stage: meta.Stage}, at.Addr(), int(at.Port()), sni, j.hello, 0, 0)
		defer h.close()
		if h.conn == nil {
			return h.obs
		}
		meta.After = h.obs.ID
		return wire.Bulk(ctx, j.log, meta, h.conn, wire.Request{URL: bulkURL(sni), Method: "GET", Host: sni}, bulkBytes, bulkTime, stallTimeout)
	}
	c := get(wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: measure.ExpBulk, Pair: k, ControlKind: measure.ControlRandom}, j.r.randomName(s.host))
	t := get(wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpBulk, Pair: k, Differs: []string{"sni"}}, s.host)
	j.log.Link(t, c.ID)
	hit := t.Failure != measure.NoFailure
	if t.Stream != nil && c.Stream != nil && t.Stream.BitsPerSecond*4 < c.Stream.BitsPerSecond {
		hit = true
	}
	return outcome{hit: hit, control: c.Stream != nil && c.Failure == measure.NoFailure}
}

// confirmStream tests a slow transfer for throttling by name (with a helper)
// or against a canary's page, and a service that is neither web nor mail for a
// protocol filter. Throttling tests run alone.
func (j *job) confirmStream(ctx context.Context, s suspect) {
	if s.url == "" {
		j.firstBytes(ctx, s)
		return
	}
	j.r.alone.Lock()
	defer j.r.alone.Unlock()
	j.pairs(ctx, s, canaryKey{step: measure.StepTLS, family: s.family}, func(k int) bool { return len(j.r.helpers) == 0 && k >= 3 || k >= 8 }, func(ctx context.Context, k int) outcome {
		if len(j.r.helpers) > 0 {
			return j.bulkPair(ctx, s, k)
		}
		return j.pagePair(ctx, s, k)
	})
}

// pagePair downloads the target's own page next to a canary's.
func (j *job) pagePair(ctx context.Context, s suspect, k int) outcome {
	get := func(meta wire.Meta, addr netip.Addr, port int, host, rawURL string) *measure.Observation {
		u, err := url.Parse(rawURL)
		if err != nil {
			return j.interrupted(measure.StepStream, meta)
		}
		r := wire.Request{URL: rawURL, Method: "GET", Host: u.Host}
		if u.Scheme == "http" {
			conn, o := j.connect(ctx, wire.Meta{Role: meta.Role, Stage: meta.Stage}, addr, port, 0, 0)
			if conn == nil {
				return o
			}
			defer conn.Abort()
			meta.After = o.ID
			return wire.Bulk(ctx, j.log, meta, conn, r, bulkBytes, bulkTime, stallTimeout)
		}
		h := j.sendHello(ctx, wire.Meta{Role: meta.Role, Stage: meta.Stage}, addr, port, host, j.hello, 0, 0)
		defer h.close()
		if h.conn == nil {
			return h.obs
		}
		meta.After = h.obs.ID
		return wire.Bulk(ctx, j.log, meta, h.conn, r, bulkBytes, bulkTime, stallTimeout)
	}
	at, canary, ok := j.r.canaries.elsewhere(s.addr, k, false)
	if !ok {
		return outcome{}
	}
	c := get(wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: measure.ExpBulk, Pair: k, ControlKind: measure.ControlCanary}, at, 443, canary.Name, "https://"+canary.Name+"/")
	t := get(wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpBulk, Pair: k, Differs: []string{"address"}}, s.addr, s.port, s.host, s.url)
	j.log.Link(t, c.ID)
	return outcome{hit: t.Stream != nil && c.Stream != nil && t.Stream.BitsPerSecond*4 < c.Stream.BitsPerSecond, control: c.Failure == measure.NoFailure}
}

// confirmQUIC finds out whether QUIC fails by name, at the address, or
// altogether.
func (j *job) confirmQUIC(ctx context.Context, s suspect) int {
	key := canaryKey{step: measure.StepQUIC, family: s.family}
	dead := 0
	limit := func(k int) bool { return dead >= 3 }
	return j.pairs(ctx, s, key, limit, func(ctx context.Context, k int) outcome {
		if !j.bracket(ctx, key, time.Now().Add(-3*time.Second)).good {
			dead++
		}
		pair := func(exp measure.Experiment, addr netip.Addr, port int) outcome {
			c := j.quic(ctx, wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: exp, Pair: k, ControlKind: measure.ControlRandom}, addr, port, j.r.randomName(s.host), "")
			drew := c.TLS != nil && c.TLS.ServerBytes
			t := j.quic(ctx, wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: exp, Pair: k, Differs: []string{"sni"}}, addr, port, s.host, "")
			j.log.Link(t, c.ID)
			return outcome{control: drew, hit: drew && (t.TLS == nil || !t.TLS.ServerBytes)}
		}
		far := make(chan outcome, 1)
		go func() {
			if at, ok := j.elsewhere(s.addr, k, true); ok {
				far <- pair(measure.ExpQUICElsewhere, at.Addr(), int(at.Port()))
				return
			}
			far <- outcome{}
		}()
		o := pair(measure.ExpQUICSNI, s.addr, s.port)
		if f := <-far; f.hit {
			o = f
		}
		o.control = true
		return o
	})
}
