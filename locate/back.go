package locate

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"time"

	"govah/measure"
	"govah/wire"
)

// What a device changes of a server's words has passed it before it is read
// here. A helper's greeter can be asked to say them with TTLs that end them on
// the way: what the routers quote of them is whole before the device and
// altered behind it, as with a command on the way out (alter.go). The helper
// must be allowed to capture packets, to hear its routers.

// BackSpec says whose words are followed.
type BackSpec struct {
	Remote   netip.AddrPort // the greeter's, as it is reached from here
	Protocol string         // smtp, imap, pop3
	Name     string         // the helper's
	Helper   string         // its URL
	Trust    *wire.Trust    // verifies its certificate
	// Pace waits before each new connection to the greeter; nil does not.
	Pace func(context.Context) error
	Seed uint64
}

const (
	// backTTLs is how many TTLs one dialogue tries: it may last half a minute.
	backTTLs = 8
	// backTime ends a search whatever the helper does.
	backTime = 3 * time.Minute
)

// wayBack is a search on the way from a helper to this device.
type wayBack struct {
	r      *run
	spec   BackSpec
	meta   wire.Meta
	marker string
	known  *measure.MailGreeter // the greeter, as the helper knows it
	port   uint16
	used   time.Time
	// ordered is what the helper was asked to say last, greeting whether that
	// is its greeting.
	ordered  []word
	greeting bool
}

// word is something that the greeter is to say with a TTL: words that arrive
// altered, or what it answers to the harmless command.
type word struct {
	ttl      int
	harmless bool
}

// Back looks for what alters a greeter's words on their way to this device. It
// first reads them: of what arrives as it was said nothing is looked for. A
// helper that has no such greeter, that does not know the question, or may not
// capture packets, ends it. What it finds out is in the log; Infer concludes.
func Back(ctx context.Context, n wire.Network, log *wire.Log, spec BackSpec) error {
	if !spec.Remote.IsValid() || spec.Helper == "" || spec.Trust == nil {
		return errors.New("locate: no greeter to follow the way back from")
	}
	ctx, cancel := context.WithTimeout(ctx, backTime)
	defer cancel()
	spec.Remote = netip.AddrPortFrom(spec.Remote.Addr().Unmap(), spec.Remote.Port())
	r := newRun(n, log, Spec{Remote: spec.Remote, Seed: spec.Seed, Pace: spec.Pace})
	b := &wayBack{r: r, spec: spec, port: r.newPort(), meta: wire.Meta{Role: measure.RoleHelper, Stage: measure.StageLocate, Experiment: measure.ExpWayBack}}
	var marker [16]byte
	rand.Read(marker[:]) // never fails
	b.marker = hex.EncodeToString(marker[:])
	if _, able := b.order(ctx, false); able {
		if greeting, capabilities := b.altered(ctx); greeting || capabilities {
			b.search(ctx, !capabilities)
		}
	}
	return nil
}

// altered holds the dialogue as a client does, and says what of the greeter's
// words in the clear does not arrive as the helper says that they are.
func (b *wayBack) altered(ctx context.Context) (greeting, capabilities bool) {
	if g := b.known; g == nil || g.Port != int(b.spec.Remote.Port()) || g.Protocol != b.spec.Protocol {
		return false, false
	}
	conn := b.connect(ctx)
	if conn == nil {
		return false, false
	}
	defer b.hangUp(conn)
	o := wire.Mail(ctx, b.r.log, wire.Meta{Role: measure.RoleTest, Stage: measure.StageLocate, Experiment: measure.ExpMailGreeter}, conn,
		wire.MailSpec{Protocol: b.spec.Protocol, Name: b.spec.Name, Known: b.known}, b.spec.Trust)
	return differs(o)
}

// differs says what of a greeter's words in the clear arrived otherwise.
func differs(o *measure.Observation) (greeting, capabilities bool) {
	m := o.Mail
	return m.Greeting != "" && m.Greeting != m.Known.Greeting, m.Before != nil && !slices.Equal(m.Before, m.Known.Before)
}

func (b *wayBack) connect(ctx context.Context) wire.Conn {
	for range connects {
		if b.r.pace(ctx) != nil || !b.used.IsZero() && wire.Sleep(ctx, reopen-time.Since(b.used)) != nil {
			return nil
		}
		limited, cancel := context.WithTimeout(ctx, connectTime)
		conn, err := b.r.n.Dial(limited, wire.DialSpec{Flow: wire.Flow{Local: b.r.local(b.port), Remote: b.spec.Remote}})
		cancel()
		b.used = time.Now()
		if err == nil {
			return conn
		}
		b.port = b.r.newPort()
	}
	return nil
}

// hangUp ends a connection so that its port is free for the next: routers
// spread flows over equal-cost ways.
func (b *wayBack) hangUp(conn wire.Conn) {
	conn.Abort()
	b.used = time.Now()
}

// order asks for words, and takes down what came of those before. It says
// whether the helper is able. The greeting is said once a dialogue: it is
// either the word itself or is said as ever.
func (b *wayBack) order(ctx context.Context, greeting bool, words ...word) (list []*measure.Observation, ok bool) {
	q := measure.HelperBackRequest{Schema: 1, Marker: b.marker, Port: int(b.spec.Remote.Port())}
	if !greeting && len(words) > 0 {
		q.TTLs = []int{0}
	}
	for _, w := range words {
		q.TTLs = append(q.TTLs, w.ttl)
	}
	got, _ := wire.AskBack(ctx, b.r.n, b.r.log, b.meta, b.spec.Helper, b.spec.Remote.Addr(), q, b.spec.Trust)
	if got == nil || !got.Able {
		return nil, false
	}
	b.known = got.Greeter
	for i, s := range got.List {
		if i < len(b.ordered) && b.ordered[i].ttl == s.TTL {
			list = append(list, b.note(b.ordered[i], s))
		}
	}
	b.ordered, b.greeting = words, greeting
	return list, true
}

// listen holds the dialogue that was ordered, orders the next, and gives what
// came of this one.
func (b *wayBack) listen(ctx context.Context, greeting bool, next ...word) []*measure.Observation {
	conn := b.connect(ctx)
	if conn == nil {
		return nil
	}
	defer b.hangUp(conn)
	talk := wire.Talk(ctx, b.r.log, conn, b.spec.Protocol)
	err := talk.Greeting()
	for _, w := range b.ordered {
		switch {
		case b.greeting || err != nil: // of what ended a dialogue the helper tells all the same
		case w.harmless:
			err = talk.Harmless()
		default:
			err = talk.Capabilities()
		}
	}
	talk.End()
	list, _ := b.order(ctx, greeting, next...)
	return list
}

// search has the words said with one TTL after the other until they are quoted
// altered, or arrive; then the altered ones again, and the harmless ones with
// the same TTL.
func (b *wayBack) search(ctx context.Context, greeting bool) {
	n := backTTLs
	if greeting {
		n = 1
	}
	from := func(k int) (words []word) {
		for _, k := range seq(k, min(k+n-1, maxTTL)) {
			words = append(words, word{ttl: k})
		}
		return words
	}
	if _, ok := b.order(ctx, greeting, from(1)...); !ok {
		return
	}
	for k := 1; k <= maxTTL; {
		list := b.listen(ctx, greeting, from(k+n)...)
		for _, o := range list {
			switch {
			case seen(o, "altered"):
				b.confirm(ctx, greeting, o.TTL)
				return
			case o.Path.Outcome == "answered":
				b.order(ctx, false)
				return
			}
		}
		if len(list) == 0 {
			break
		}
		if k += len(list); len(list) < n { // the dialogue ended
			b.order(ctx, greeting, from(k)...)
		}
	}
	b.order(ctx, false)
}

// confirm has the altered words said again, and the harmless ones, at the TTL
// where they were altered.
func (b *wayBack) confirm(ctx context.Context, greeting bool, ttl int) {
	again, harmless := word{ttl: ttl}, word{ttl, true}
	if !greeting {
		b.order(ctx, false, again, harmless, again, harmless)
		b.listen(ctx, false)
		return
	}
	b.order(ctx, true, again)
	b.listen(ctx, false, harmless, harmless)
	b.listen(ctx, false)
}

// note makes an observation of what the helper says came of its words.
func (b *wayBack) note(w word, s measure.Said) *measure.Observation {
	meta := b.meta
	if w.harmless {
		meta.ControlKind = measure.ControlKnown
	}
	log := b.r.log
	o := log.Begin(measure.StepPath, meta)
	o.Helper, o.Remote, o.Family, o.ASN = b.spec.Helper, b.spec.Remote.String(), wire.FamilyOf(b.spec.Remote.Addr()), log.ASN(b.spec.Remote.Addr().String())
	o.TTL, o.Payload, o.Mail = s.TTL, string(Mail), &measure.Mail{Protocol: b.spec.Protocol}
	o.Path = &measure.Path{Probe: "data", Outcome: s.Outcome, Sends: s.Sends, LocalPort: s.Port, RTTUS: s.RTTUS, Captured: true}
	switch s.Outcome {
	case "arrived":
		o.Path.Outcome = "answered"
	case "silent":
		o.Failure = measure.GenericTimeout
	case "expired":
		said, _ := base64.StdEncoding.DecodeString(s.Text)
		quote, _ := base64.StdEncoding.DecodeString(s.Quoted)
		o.Path.ICMP = &measure.ICMP{From: s.Router, Type: s.Type, Code: s.Code, AtUS: log.Since(time.Now()), ASN: log.ASN(s.Router), Quoted: compare(quote, said)}
	}
	log.End(o)
	return o
}

// wayBackKey ends the key of a group of observations that are of the way back.
const wayBackKey = " back"

// toldBack says that a helper's words were followed on their way here, or that
// those of the greeter at that address arrive as they are said.
func toldBack(m *measure.Measurement, l *measure.Location) bool {
	return slices.ContainsFunc(m.Observations, func(o measure.Observation) bool {
		if o.Stage != measure.StageLocate || o.Family != l.Family {
			return false
		}
		if o.Experiment == measure.ExpMailGreeter && o.Mail != nil && o.Mail.Known != nil && o.Failure == measure.NoFailure && o.Remote == l.Remote {
			greeting, capabilities := differs(&o)
			return !greeting && !capabilities
		}
		return o.Step == measure.StepPath && o.Experiment == measure.ExpWayBack
	})
}

// backLocation concludes from what a helper says became of its words.
func backLocation(list []*measure.Observation) measure.Location {
	e := &evidence{flow: list[0].Path.LocalPort}
	l := measure.Location{FromHelper: true, Position: measure.PositionUnknown, Remote: list[0].Remote, RemoteASN: list[0].ASN,
		Family: list[0].Family, Payload: list[0].Payload, Trigger: measure.Trigger{Kind: "words", Control: "NOOP"}}
	for _, o := range list {
		if o.TTL < 1 || o.TTL > maxTTL {
			continue
		}
		l.Probes += max(1, o.Path.Sends)
		if o.ControlKind == "" {
			e.tests = append(e.tests, o)
		} else {
			e.quotes = append(e.quotes, o)
		}
		e.far = max(e.far, o.TTL)
		if o.Path.Outcome == "answered" && (e.server == 0 || o.TTL < e.server) {
			e.server = o.TTL
		}
	}
	if e.server > 0 {
		e.far = e.server // with more they arrive as well
	}
	l.ServerTTL, l.Hops = e.server, hops(list, e)
	if !e.alters(&l) {
		l.Outcome, l.Unknown = measure.NotLocated, []measure.Why{measure.WhyBackQuotes}
		for _, t := range e.tests {
			if seen(t, "altered") {
				l.Triggers++
			}
		}
	}
	return l
}
