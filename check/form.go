package check

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"govah/identify"
	"govah/measure"
	"govah/wire"
)

// FormSpec is one search for what kind of device reacts to a name.
type FormSpec struct {
	Payload string // of package identify
	Name    string // the trigger
	Path    string // http: path and query, "" is /
	// At are servers to send to, the likeliest to be triggered at first. Others
	// are used while what was triggered lingers at the first. For http none of
	// them may know the name.
	At []netip.AddrPort
	// Own are those of At that are helpers of one's own, to which malformed
	// forms may be sent.
	Own []netip.AddrPort
	// NoResolver says that nothing at At answers questions (dns).
	NoResolver bool
	// Known is a name that resolves (dns).
	Known string
	// Seen is the answer that made the finding (http): what differs from it is
	// not the device's, but of a server that knows the name after all.
	Seen *measure.Observation
}

// reader is one such search under way.
type reader struct {
	cfg   Config
	spec  FormSpec
	log   *wire.Log
	trust *wire.Trust
	table *identify.Table
	pacer *pacer
	rng   *rand.Rand
	hello map[string]*wire.Hello
	at    int // of spec.At
	// covered: the device is on the way to spec.At[at].
	covered bool
	label   string

	mu    sync.Mutex // of rng and what follows
	pairs int        // with a trigger
	last  int        // number of a pair
}

// ReadForms tries forms of a trigger, each beside a random name in the same
// form at the same server, the most telling next, until no further one would
// tell more. What was seen is in the log, for identify.Infer. The error says
// why nothing could be tried; a context that ends is none.
func ReadForms(ctx context.Context, cfg Config, log *wire.Log, table *identify.Table, spec FormSpec) error {
	if len(spec.At) == 0 || spec.Name == "" || identify.Forms(spec.Payload) == nil {
		return errors.New("no server to send forms of a name to")
	}
	r := &reader{cfg: cfg, spec: spec, log: log, table: table, trust: &cfg.Trust, pacer: newPacer(cfg.Pace), hello: map[string]*wire.Hello{},
		rng: rand.New(rand.NewPCG(cfg.Seed, 0x666f726d))}
	r.label = RandomName(r.rng, "aaaaa")
	form := identify.Plain
	batch := spec.Payload == identify.Naming // a question leaves nothing behind
	for steps := 0; form != "" && r.pairs < identify.MaxForm && steps < 3*identify.MaxForm && r.at < len(spec.At) && ctx.Err() == nil; steps++ {
		r.try(ctx, form)
		e := identify.Gather(log.Observations())
		form = identify.Plain
		if e.Reads[identify.Plain] == nil || e.Reads[identify.Plain].Reacted == 0 {
			continue
		}
		if batch {
			batch = false
			var all sync.WaitGroup
			for _, f := range identify.Core(spec.Payload) {
				if f == identify.TCP && spec.NoResolver {
					continue // nobody there makes a connection
				}
				all.Go(func() { r.pair(ctx, f) })
			}
			all.Wait()
			e = identify.Gather(log.Observations())
		}
		e.Own = r.own()
		form, _ = table.Next(e)
	}
	return nil
}

// own says that the present server is a helper of one's own.
func (r *reader) own() bool {
	return r.at < len(r.spec.At) && slices.Contains(r.spec.Own, r.spec.At[r.at])
}

// try makes one pair, and goes to the next server where this one tells
// nothing: what was triggered lingers there, or the device is not on the way.
func (r *reader) try(ctx context.Context, form string) {
	at := r.at
	t, c, reacted := r.pair(ctx, form)
	switch {
	case t == nil:
		if !r.free(ctx) {
			r.at++
		}
	case reacted && form == identify.Plain && r.spec.Seen != nil && !identify.Alike(t, r.spec.Seen):
		r.log.Amend(func() { t.Experiment, c.Experiment = "", "" })
		r.at++
	case reacted:
		r.covered = true
	case r.covered:
	case form == identify.Plain:
		// Once more: a device may overlook one.
		if _, _, reacted = r.pair(ctx, form); reacted {
			r.covered = true
		} else {
			r.at++
		}
	default:
		if _, _, reacted = r.pair(ctx, identify.Plain); reacted {
			r.covered = true
			break
		}
		r.log.Amend(func() { t.Experiment, c.Experiment = "", "" })
		r.at++
	}
	if r.at != at {
		r.covered = false
	}
}

// free says whether a harmless name in the plain form passes.
func (r *reader) free(ctx context.Context) bool {
	meta := wire.Meta{Role: measure.RoleControl, Stage: measure.StageIdentify, Experiment: measure.ExpResidual}
	r.mu.Lock()
	name := r.harmless()
	r.mu.Unlock()
	return identify.Passed(r.send(ctx, meta, identify.Plain, name))
}

// harmless is a name that nothing can list; where answers are the sign of a
// pass, one that resolves.
func (r *reader) harmless() string {
	if r.spec.Payload == identify.Naming && !r.spec.NoResolver {
		return r.spec.Known
	}
	return RandomName(r.rng, r.spec.Name)
}

// pair sends a harmless name in a form and, if that passes, the trigger; t is
// nil if it was not sent or could not connect. Where nobody answers there is
// nothing to wait for between the two.
func (r *reader) pair(ctx context.Context, form string) (t, c *measure.Observation, reacted bool) {
	r.mu.Lock()
	if r.pairs >= identify.MaxForm {
		r.mu.Unlock()
		return nil, nil, false
	}
	r.pairs++
	r.last++
	k, harmless := r.last, r.harmless()
	r.mu.Unlock()
	unsent := func() {
		r.mu.Lock()
		r.pairs--
		r.mu.Unlock()
	}
	differs := map[string]string{identify.TLS: "sni", identify.QUIC: "sni", identify.Web: "host", identify.Naming: "qname"}[r.spec.Payload]
	cm := wire.Meta{Role: measure.RoleControl, Stage: measure.StageIdentify, Experiment: measure.ExpForm, Pair: k, Form: form, ControlKind: measure.ControlRandom}
	tm := wire.Meta{Role: measure.RoleTest, Stage: measure.StageIdentify, Experiment: measure.ExpForm, Pair: k, Form: form, Differs: []string{differs}}
	if r.spec.Payload == identify.Naming && !r.spec.NoResolver {
		cm.ControlKind = measure.ControlKnown
	}
	if r.spec.NoResolver {
		control := make(chan *measure.Observation, 1)
		go func() { control <- r.send(ctx, cm, form, harmless) }()
		t = r.send(ctx, tm, form, r.spec.Name)
		c = <-control
	} else {
		if c = r.send(ctx, cm, form, harmless); !identify.Passed(c) {
			unsent()
			return nil, c, false
		}
		t = r.send(ctx, tm, form, r.spec.Name)
	}
	r.log.Link(t, c.ID)
	if t.Experiment != measure.ExpForm || !identify.Passed(c) {
		return nil, c, false // no connection: something lingers
	}
	return t, c, identify.Differ(t, c)
}

// send makes one exchange with a name in a form. Where packets may be captured,
// its own are recorded.
func (r *reader) send(ctx context.Context, meta wire.Meta, form, name string) *measure.Observation {
	at := r.spec.At[min(r.at, len(r.spec.At)-1)]
	heard := wire.Overhear(ctx, r.cfg.Network, at)
	if heard == nil {
		return r.exchange(ctx, r.cfg.Network, meta, at, form, name)
	}
	defer heard.Close()
	o := r.exchange(ctx, heard, meta, at, form, name)
	if meta.Role == measure.RoleTest {
		heard.Late(ctx)
	}
	if packets := heard.Packets(r.log); o.Experiment == measure.ExpForm {
		r.log.Amend(func() { o.Packets = packets })
	}
	return o
}

func (r *reader) exchange(ctx context.Context, n wire.Network, meta wire.Meta, at netip.AddrPort, form, name string) *measure.Observation {
	switch form {
	case identify.Upper:
		name = strings.ToUpper(name)
	case identify.Under:
		name = r.label + "." + name
	case identify.Glued:
		name = "x" + name
	}
	if r.pacer.wait(ctx) != nil {
		return r.interrupted(meta)
	}
	if r.spec.Payload == identify.Naming {
		q := wire.Question{Name: name, Type: "A", Server: at, Transport: "udp", Tries: 2, Timeout: 2 * time.Second, Linger: lingerDNS, NoResolver: r.spec.NoResolver}
		switch form {
		case identify.TCP:
			q.Transport = "tcp"
		case identify.AAAA:
			q.Type = "AAAA"
		case identify.HTTPS:
			q.Type = "HTTPS"
		case identify.NoEDNS:
			q.NoEDNS = true
		}
		return wire.Ask(ctx, n, r.log, meta, q, r.trust)
	}
	if r.spec.Payload == identify.QUIC {
		q := wire.QUICSpec{Remote: at, SNI: name, Small: form != identify.Large, Behind: form == identify.Behind, Version2: form == identify.Version2}
		return wire.QUIC(ctx, n, r.log, meta, q, r.trust)
	}
	conn, o := wire.Connect(ctx, n, r.log, wire.Meta{Role: meta.Role, Stage: meta.Stage}, wire.ConnectSpec{Remote: at, MSS: segments(form)})
	if conn == nil {
		return o
	}
	defer conn.Abort()
	meta.After = o.ID
	if r.spec.Payload == identify.TLS {
		return r.greet(ctx, meta, conn, form, name)
	}
	return r.request(ctx, meta, conn, form, name)
}

// segments is the segment size to announce, 0 the system's. Either trigger
// still fits into one.
func segments(form string) int {
	if form == identify.MSS {
		return 700
	}
	return 0
}

func (r *reader) interrupted(meta wire.Meta) *measure.Observation {
	o := r.log.Begin(measure.StepTCP, meta)
	o.Failure = measure.Interrupted
	r.log.End(o)
	return o
}

// greet does a TLS handshake.
func (r *reader) greet(ctx context.Context, meta wire.Meta, conn wire.Conn, form, name string) *measure.Observation {
	// The plain form fits into one segment, as it did before key shares grew.
	kind := map[string]string{identify.Large: "chrome", identify.GoHello: "go"}[form]
	if kind == "" {
		kind = "chrome-small"
	}
	if r.hello[kind] == nil {
		h, err := wire.NewHello(kind, int64(r.cfg.Seed))
		if err != nil {
			panic(err) // the kinds are ours
		}
		r.hello[kind] = h
	}
	spec := wire.HandshakeSpec{SNI: name, Hello: r.hello[kind]}
	switch form {
	case identify.Split:
		spec.Cut = wire.CutSegments
	case identify.Records:
		spec.Cut = wire.CutRecords
	}
	_, o := wire.Handshake(ctx, r.log, meta, conn, spec, r.trust)
	return o
}

// request makes a plain HTTP request.
func (r *reader) request(ctx context.Context, meta wire.Meta, conn wire.Conn, form, name string) *measure.Observation {
	path := r.spec.Path
	if path == "" {
		path = "/"
	}
	if path == "/" && r.own() { // whose front page is a 200, as many block pages are
		path = "/index.html"
	}
	q := wire.Request{URL: "http://" + name + path, Method: "GET", Host: name, MaxBody: 8 << 10, Timeout: fetchTimeout, Stall: stallTimeout}
	if form == identify.Head {
		q.Method = "HEAD"
	}
	if form == identify.Second {
		first := wire.Request{URL: "http://" + RandomName(r.rng, r.spec.Name) + "/", Method: "HEAD", Timeout: fetchTimeout, Stall: stallTimeout}
		m := meta
		m.Experiment, m.Form, m.Pair, m.Differs = "", "", 0, nil
		if o, _ := wire.Fetch(ctx, r.log, m, conn, first); o.Failure != measure.NoFailure {
			if meta.Role == measure.RoleControl { // a control that did not pass
				r.log.Amend(func() { o.Experiment, o.Form, o.Pair = meta.Experiment, meta.Form, meta.Pair })
			}
			return o
		}
	}
	q.Segments, _ = write(form, name, path, r.label+".invalid")
	o, body := wire.Fetch(ctx, r.log, meta, conn, q)
	if o.HTTP != nil {
		found := *o.HTTP
		found.Matches = r.table.Match(o.HTTP, body)
		r.log.Amend(func() { o.HTTP = &found })
	}
	return o
}

// write gives a request in a form, as the segments to send; other is a name
// that nobody has.
func write(form, name, path, other string) ([][]byte, error) {
	head, err := wire.HTTPPayload(name, path, nil)
	if err != nil {
		return nil, err
	}
	replace := func(old, new string) { head = bytes.Replace(head, []byte(old), []byte(new), 1) }
	host := "Host: " + name + "\r\n"
	switch form {
	case identify.Split:
		at := bytes.Index(head, []byte(host)) + len("Host: ") + len(name)/2
		return [][]byte{head[:at], head[at:]}, nil
	case identify.NameCase:
		replace("Host:", "hOsT:")
	case identify.NoSpace:
		replace(host, "Host:"+name+"\r\n")
	case identify.Tab:
		replace(host, "Host:\t"+name+"\r\n")
	case identify.Late:
		replace(host, "")
		head = slices.Concat(head[:len(head)-2], []byte(host+"\r\n"))
	case identify.Long:
		separator := "?"
		if strings.Contains(path, "?") {
			separator = "&"
		}
		replace(" HTTP/1.1", separator+strings.Repeat("a", 2000)+" HTTP/1.1")
	case identify.Absolute:
		replace("GET ", "GET http://"+name)
	case identify.HTTP10:
		replace(" HTTP/1.1", " HTTP/1.0")
	case identify.Head:
		replace("GET ", "HEAD ")
	case identify.MethodCase:
		replace("GET ", "gEt ")
	case identify.Port:
		replace(host, "Host: "+name+":80\r\n")
	case identify.Twice:
		replace(host, host+"Host: "+other+"\r\n")
	case identify.BareLF:
		head = bytes.ReplaceAll(head, []byte("\r\n"), []byte("\n"))
	case identify.Wide:
		replace("GET ", "GET  ")
	case identify.Dot:
		replace(host, "Host: "+name+".\r\n")
	}
	return [][]byte{head}, nil
}
