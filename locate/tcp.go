package locate

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"govah/measure"
	"govah/wire"
)

// window is how many TTLs one connection tries: the first with the data's
// first sending, each further one with a retransmission of the same bytes.
const window = 2

// tick is how often a connection is looked at.
const tick = 4 * time.Millisecond

// connectTime lets a lost SYN be sent again after 1 s (RFC 6298).
const connectTime = 2400 * time.Millisecond

// flow is a sequence of connections that share the port of ours.
type flow struct {
	port uint16
	used time.Time // when last
	// fixed says that the port must not change, once that there is one try,
	// brief that silence is not looked into.
	fixed, once, brief bool
}

// overTCP looks for a device that reacts to the first bytes of a connection.
// The control goes ahead in a flow of its own; once the two differ, it is
// repeated in the test's.
func (r *run) overTCP(ctx context.Context) error {
	if err := r.ladder(ctx, r.port); err != nil {
		return nil
	}
	if r.server == 0 {
		return nil // no connection, no first bytes
	}
	ended := r.terminated(ctx)
	if ended && r.spec.Payload == Mail {
		return nil // it says and hears all: there is nothing farther to follow
	}
	test, control := &flow{port: r.port}, &flow{port: r.newPort()}
	if !r.chooseControl(ctx, control) {
		return nil
	}
	size := window
	if !r.view.TCPInfo || r.proof != nil {
		// Retransmissions cannot be told from the first sending; what a helper
		// says is of a whole connection.
		size = 1 // retransmissions cannot be told from the first sending
	}
	border := r.server
	ahead, stop := context.WithCancel(ctx)
	passed := make(chan []*measure.Observation, border)
	go func() {
		defer close(passed)
		for from := 1; from <= border && ahead.Err() == nil; from += size {
			passed <- r.sweep(ahead, control, measure.RoleControl, 0, seq(from, min(from+size-1, border))...)
		}
	}()
	halt := func() {
		stop()
		for range passed {
		}
	}
	defer halt()
	for from := 1; from <= r.server && ctx.Err() == nil; from += size {
		c := <-passed
		for _, o := range c {
			// What answers harmless bytes is the server, or ends connections
			// in its place: there is nothing to follow beyond it.
			if o.Path.Outcome == "answered" && o.TTL < r.server {
				halt()
				r.server = o.TTL
			}
		}
		t := r.sweep(ctx, test, measure.RoleTest, 0, seq(from, min(from+size-1, r.server))...)
		if from > 1 && (severed(t) || severed(c)) {
			// The last test was noticed after all, behind routers that do not
			// answer, and what remains of it blocks other connections.
			halt()
			r.triggered++
			r.residualKey(ctx, test)
			r.routed(ctx, r.newPort(), from-1)
			r.siblings(ctx, from-size, from-1)
			return nil
		}
		if k := r.alteredAt(t); k > 0 {
			halt()
			r.confirmAltered(ctx, test, control, k)
			return nil
		}
		if k := r.difference(t); k > 0 && !r.chance(ctx, t) {
			r.confirmTCP(ctx, test, k, t)
			if _, certainty := r.certain(); certainty > 0 || !r.mayTrigger() {
				r.witness(ctx)
				return nil
			}
			// It was loss. What is farther is still to be seen.
		}
	}
	halt()
	if r.server < border {
		r.early(ctx, border)
		if r.spec.Payload == Mail {
			return nil
		}
	}
	if ctx.Err() == nil {
		// Not a difference up to the server: either there is none, or the
		// device copies the TTL of what it reacts to, so that its packets die
		// on the way back.
		r.beyond(ctx, test)
		if _, certainty := r.certain(); certainty > 0 {
			r.witness(ctx)
		} else if r.spec.Payload == Mail {
			r.answers(ctx)
		}
	}
	return nil
}

// chance says that silence at a TTL was a router's, which had spoken too often,
// or loss: what was swallowed there drew a reaction with a higher TTL, and
// expires there after a rest.
func (r *run) chance(ctx context.Context, t []*measure.Observation) bool {
	silent := slices.IndexFunc(t, func(o *measure.Observation) bool {
		return r.difference([]*measure.Observation{o}) == o.TTL && o.Path.Outcome == "silent"
	})
	if silent < 0 || !slices.ContainsFunc(t[silent:], reacted) || wire.Sleep(ctx, rest) != nil {
		return false
	}
	list := r.sweep(ctx, &flow{port: r.newPort(), once: true, brief: true}, measure.RoleTest, 0, t[silent].TTL)
	if len(list) == 0 {
		return false
	}
	if list[0].Path.Outcome == "silent" {
		r.triggered++
	}
	return list[0].Path.Outcome == "expired"
}

// severed says that no connection could be made.
func severed(list []*measure.Observation) bool {
	return len(list) == connects && list[connects-1].Path.Outcome == "unconnected"
}

func seq(from, to int) (out []int) {
	for k := from; k <= to; k++ {
		out = append(out, k)
	}
	return out
}

// difference is the TTL at which the test fared otherwise than a control
// would, 0 if none.
func (r *run) difference(t []*measure.Observation) int {
	for _, o := range t {
		switch {
		case o.Path.Outcome == "unconnected":
		case cut(o), otherHand(o, r.proof):
			return o.TTL
		case reacted(o) && o.TTL < r.server, o.Path.Outcome == "reset" || o.Path.Outcome == "closed":
			return o.TTL
		case o.Path.Outcome == "silent" && o.Path.Sends >= sendings && (r.hop(o.TTL).answers() || o.TTL >= r.server && !r.mute):
			return o.TTL
		}
	}
	return 0
}

// chooseControl takes the first control that draws an answer.
func (r *run) chooseControl(ctx context.Context, f *flow) bool {
	for _, c := range r.spec.Controls {
		r.control = c
		for range 2 {
			for _, o := range r.sweep(ctx, f, measure.RoleControl, 0, 0) {
				switch {
				case o.Path.Outcome == "answered":
					return true
				case o.Path.Outcome == "silent" && r.spec.Payload == Raw:
					r.mute = true // many servers wait for more
					return true
				}
			}
		}
	}
	return false
}

// incoming is what a reader got.
type incoming struct {
	n      int
	err    error
	begins string
}

func outcomeOf(a incoming) string {
	switch {
	case a.n > 0:
		return "answered"
	case errors.Is(a.err, io.EOF):
		return "closed"
	}
	switch f, _ := wire.Classify(a.err); f {
	case measure.ConnectionReset:
		return "reset"
	case measure.EOF:
		return "closed"
	}
	return "unreachable"
}

// sweep opens one connection in the followed flow, sends the bytes with the
// first TTL, lets each further one carry a retransmission, and stops at the
// first reaction. TTL 0 is the system's own. Each TTL becomes an observation.
// The connection ends with a reset at full TTL: nothing of it is sent again.
func (r *run) sweep(ctx context.Context, f *flow, role measure.Role, minTTL int, ttls ...int) (list []*measure.Observation) {
	if role == measure.RoleTest && !r.mayTrigger() {
		return nil
	}
	marker := r.marker(role, ttls[0])
	bytes, err := r.payload(role, 0, marker)
	if err != nil {
		return nil
	}
	conn := r.connect(ctx, f, role, ttls[0], &list)
	if conn == nil {
		return list
	}
	made := time.Now()
	defer func() {
		conn.SetTTL(64)
		conn.Abort()
		f.used = time.Now()
	}()
	if r.spec.Payload == Mail {
		if err := wire.MailReady(ctx, r.log, conn, r.spec.Protocol); err != nil {
			o := r.begin(measure.ExpLocate, role, ttls[0], "data", f.port)
			o.Path.Outcome = "unconnected"
			o.Failure, o.Detail = wire.Classify(err)
			r.log.End(o)
			return append(list, o)
		}
		if wire.Sleep(ctx, acknowledged) != nil {
			return list
		}
	}
	if minTTL > 0 && conn.SetMinTTL(minTTL) != nil {
		return list
	}
	arrived := make(chan incoming, 1)
	go func() {
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		arrived <- incoming{n, err, begins(buf[:n])}
	}()
	conn.PathErrors() // of the handshake
	again := 0
	if info, err := conn.Info(); err == nil && r.spec.Payload == Mail {
		again = info.Retransmits // of what was said before
	}
	s := &sweeping{again: again, r: r, port: f.port, conn: conn, role: role, bytes: bytes, minTTL: minTTL, arrived: arrived}
	if conn.SetTTL(orDefault(ttls[0])) != nil {
		return list
	}
	s.start(ttls[0])
	s.sent = time.Now()
	conn.SetWriteDeadline(s.sent.Add(time.Second))
	if _, err := conn.Write(bytes); err != nil {
		s.end("unreachable")
		return append(list, s.done...)
	}
	swallowed := false
	for i := 0; s.follow(ctx, i == len(ttls)-1); {
		// Silence where a router would have spoken: what was swallowed here
		// is looked at again, in the same connection, at full TTL, where a
		// device that copies TTLs is heard, and from before this link.
		if o := s.done[len(s.done)-1]; role == measure.RoleTest && !swallowed && !f.brief && o.TTL > 0 && r.difference(s.done[len(s.done)-1:]) > 0 {
			swallowed, s.once = true, true // each further sending comes later than the one before
			ttls, i = []int{o.TTL, 0}, 0
			if below := r.answering(o.TTL - 1); below > 0 {
				ttls = append(ttls, below)
			}
		}
		if i++; i >= len(ttls) || !s.raise(ctx, ttls[i]) {
			break
		}
	}
	r.ask(ctx, f.port, marker, made, s.done)
	if role == measure.RoleTest && (swallowed || minTTL > 0 || s.reaction && (!s.server() || otherHand(s.done[len(s.done)-1], r.proof)) || slices.ContainsFunc(s.done, cut)) {
		r.triggered++
	}
	return append(list, s.done...)
}

func orDefault(ttl int) int {
	if ttl == 0 {
		return 64
	}
	return ttl
}

// answering is the highest TTL up to ttl at which a router answers.
func (r *run) answering(ttl int) int {
	for ; ttl > 0; ttl-- {
		if r.hop(ttl).answers() {
			return ttl
		}
	}
	return 0
}

// acknowledged is how long the last words of a server may wait for their
// acknowledgement: sent with a low TTL, it would die on the way and draw the
// word of a router that is waited for. Linux delays it 40 to 200 ms (RFC 9293,
// 3.8.6.3: at most 500).
const acknowledged = 250 * time.Millisecond

// reopen is how long a port rests before it is used again: the server must
// have dealt with the reset that ended its last connection.
const reopen = 25 * time.Millisecond

// connects is how often a connection is tried before it cannot be made.
const connects = 3

// connect opens a connection of a flow. Where a server keeps its port busy, as
// it does if that reset was lost, the flow moves to another one. What failed
// is an observation.
func (r *run) connect(ctx context.Context, f *flow, role measure.Role, ttl int, list *[]*measure.Observation) wire.Conn {
	for try := range connects {
		if r.pace(ctx) != nil || !f.used.IsZero() && wire.Sleep(ctx, reopen-time.Since(f.used)) != nil {
			return nil
		}
		limited, cancel := context.WithTimeout(ctx, connectTime)
		conn, err := r.n.Dial(limited, wire.DialSpec{Flow: wire.Flow{Local: r.local(f.port), Remote: r.spec.Remote}})
		cancel()
		f.used = time.Now()
		if err == nil {
			return conn
		}
		if ctx.Err() != nil {
			return nil
		}
		failure, detail := wire.Classify(err)
		if failure != measure.AddressInUse || f.fixed {
			o := r.begin(measure.ExpLocate, role, ttl, "data", f.port)
			o.Path.Outcome = "unconnected"
			o.Failure, o.Detail = failure, detail
			r.log.End(o)
			*list = append(*list, o)
		}
		if f.once || f.fixed && try == 1 {
			return nil
		}
		if !f.fixed && (try == 1 || failure == measure.AddressInUse) {
			f.port = r.newPort()
		}
	}
	return nil
}

// sweeping is a connection under way.
type sweeping struct {
	r        *run
	port     uint16
	conn     wire.Conn
	role     measure.Role
	bytes    []byte
	minTTL   int
	arrived  chan incoming
	got      *incoming
	now      *measure.Observation
	done     []*measure.Observation
	sent     time.Time // last
	again    int       // retransmissions counted so far
	icmp     *measure.ICMP
	icmpAt   time.Time
	reaction bool
	once     bool // one sending for each TTL
}

func (s *sweeping) start(ttl int) {
	s.now = s.r.begin(measure.ExpLocate, s.role, ttl, "data", s.port)
	s.now.Path.Sends, s.now.Path.MinTTL, s.now.Sent = 1, s.minTTL, int64(len(s.bytes))
	s.icmp = nil
}

func (s *sweeping) server() bool {
	o := s.done[len(s.done)-1]
	return o.Path.Outcome == "answered" && (o.TTL == 0 || o.TTL >= s.r.server)
}

func (s *sweeping) end(outcome string) {
	o := s.now
	o.Path.Outcome, o.Path.ICMP = outcome, s.icmp
	o.Path.RTTUS = time.Since(s.sent).Microseconds()
	if outcome == "expired" {
		o.Path.RTTUS = max(0, s.icmpAt.Sub(s.sent).Microseconds())
	}
	if outcome == "silent" {
		o.Failure, o.Path.RTTUS = measure.GenericTimeout, 0
	}
	if s.got != nil {
		o.Received, o.Path.Answer = int64(s.got.n), s.got.begins
	}
	s.r.log.End(o)
	s.done = append(s.done, o)
	if outcome == "expired" {
		s.r.spoke(o.TTL)
	}
	if outcome == "expired" || outcome == "silent" {
		// Of a trigger only silence says nothing about the hop.
		if (s.role == measure.RoleControl || outcome == "expired") && s.port == s.r.port {
			s.r.heard(o.TTL, outcome == "expired", time.Duration(o.Path.RTTUS)*time.Microsecond)
		}
	}
}

// look takes what has come. It says whether that ends the connection.
func (s *sweeping) look(ctx context.Context) bool {
	select {
	case a := <-s.arrived:
		s.got = &a
		s.reaction = true
	default:
	}
	for _, e := range s.conn.PathErrors() {
		if s.icmp == nil {
			s.icmp, s.icmpAt = wire.ICMPOf(s.r.log, &e), e.At
			if s.icmpAt.Before(s.sent) {
				s.icmpAt = time.Now()
			}
		}
	}
	if s.got != nil {
		s.listen(ctx, true)
		s.end(outcomeOf(*s.got))
		return true
	}
	return false
}

// resent counts retransmissions.
func (s *sweeping) resent() bool {
	i, err := s.conn.Info()
	if err != nil || i.Retransmits <= s.again {
		return false
	}
	s.again = i.Retransmits
	return true
}

// rest is how long after an error a router may have no more to spend: some send
// one a second to each address (Linux's icmp_ratelimit).
const rest = time.Second

// talkative says whether the router at a TTL would have spoken of a packet sent
// at a time: it had rested, or speaks of two at once now.
func (r *run) talkative(ctx context.Context, ttl int, sent time.Time) bool {
	h := r.hop(ttl)
	if h.talkative || sent.Sub(h.spoke) >= rest {
		return true
	}
	if h.tried {
		return false
	}
	var (
		both sync.WaitGroup
		said [2]bool
	)
	for i := range said {
		port := r.newPort()
		both.Go(func() {
			said[i] = r.synAt(ctx, r.spec.Remote, port, ttl, max(150*time.Millisecond, r.patience(ttl))).Path.Outcome == "expired"
		})
	}
	both.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.at(ttl)
	at.talkative, at.tried = said[0] && said[1], true
	return at.talkative
}

// sendings is how often a probe is sent before its silence counts.
const sendings = 3

// follow waits for what the bytes meet at the present TTL, the last or not.
// False ends the connection.
func (s *sweeping) follow(ctx context.Context, last bool) bool {
	r, ttl := s.r, s.now.TTL
	expect := !s.once && s.minTTL == 0 && (ttl == 0 || ttl >= r.server || r.hop(ttl).answers() || s.role == measure.RoleControl && r.hop(ttl).sent < 2)
	first := s.sent
	for {
		if s.look(ctx) {
			return false
		}
		if ctx.Err() != nil {
			s.end("silent")
			s.r.log.Amend(func() { s.done[len(s.done)-1].Failure = measure.Interrupted })
			return false
		}
		if r.view.TCPInfo && s.resent() {
			s.now.Path.Sends++
			s.now.Sent += int64(len(s.bytes))
			s.sent = time.Now()
		}
		switch {
		case s.icmp != nil:
			// The router has spoken; a device may still be slower than it.
			if s.role == measure.RoleControl || time.Since(s.icmpAt) >= settle || !last && s.more() {
				s.listen(ctx, false)
				s.end("expired")
				return true
			}
		case r.view.TCPInfo && expect && s.now.Path.Sends == sendings && !r.talkative(ctx, ttl, s.sent):
			// nor does every router that spoke just now speak again
		case r.view.TCPInfo && (expect && s.now.Path.Sends < sendings || s.minTTL > 0 && s.now.Path.Sends < 2):
			// its silence may be loss
		case time.Since(s.sent) > r.reactionBy(ttl) || !expect && s.minTTL == 0 && time.Since(first) > r.reactionBy(ttl):
			s.end("silent")
			return true
		}
		wire.Sleep(ctx, tick)
	}
}

// more says whether the next retransmission leaves time for a late reaction.
func (s *sweeping) more() bool {
	if !s.r.view.TCPInfo {
		return false
	}
	i, err := s.conn.Info()
	return err == nil && time.Until(s.sent.Add(i.RTO)) > settle
}

// raise sets another TTL and waits for a retransmission to carry it. What
// arrives before that belongs to the TTL before.
func (s *sweeping) raise(ctx context.Context, ttl int) bool {
	if !s.r.view.TCPInfo {
		return false
	}
	s.resent() // before this
	if s.conn.SetTTL(orDefault(ttl)) != nil {
		return false
	}
	before := s.done[len(s.done)-1]
	for limit := time.Now().Add(6 * time.Second); time.Now().Before(limit); {
		select {
		case a := <-s.arrived:
			if s.resent() { // it left just now
				s.start(ttl)
				s.sent = time.Now()
				s.got, s.reaction = &a, true
				s.listen(ctx, true)
				s.end(outcomeOf(a))
				return false
			}
			s.reaction = true
			outcome := outcomeOf(a)
			s.r.log.Amend(func() {
				p := *before.Path
				p.Outcome, p.Answer = outcome, a.begins
				before.Path, before.Received, before.Failure = &p, int64(a.n), ""
			})
			return false
		default:
		}
		if s.resent() {
			s.start(ttl)
			s.sent = time.Now()
			return true
		}
		if wire.Sleep(ctx, tick) != nil {
			return false
		}
	}
	return false
}

// confirmTCP makes sure of a difference at TTL k: what stays blocked
// afterwards, the same TTL with the harmless token, and the trigger one
// router earlier, where it must not be noticed. It repeats the trigger only
// while that is not certain enough.
func (r *run) confirmTCP(ctx context.Context, f *flow, k int, t []*measure.Observation) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.siblings(ctx, k-1, k) })
	began := time.Now()
	key := r.residualKey(ctx, f)
	r.residual = key
	r.lasting(ctx, f, key, began)
	switch key {
	case measure.ResidualNone:
	case measure.Residual4Tuple:
		r.routed(ctx, f.port, k)
		f = &flow{port: r.newPort()}
	default:
		r.routed(ctx, r.newPort(), k)
		return
	}
	sure := false
	for range 2 {
		if k < 2 || sure || !r.quiet(ctx, f, k-1) {
			break
		}
		sure, _ = r.certain()
	}
	if !sure { // harmless bytes in this flow, which residualKey saw pass, to this hop
		r.sweep(ctx, f, measure.RoleControl, 0, k)
	}
	// A device that copies TTLs stands at half the distance: it is heard from
	// k only if k is odd, and then with a TTL of 1.
	if k >= 3 && k%2 == 1 && reacted(t[len(t)-1]) && k <= r.server && t[len(t)-1].Path.ArrivedTTL == 0 && r.view.MinTTL {
		for range 2 { // its answer may have been lost
			if list := r.sweep(ctx, f, measure.RoleTest, 3, k); len(list) == 0 || reacted(list[len(list)-1]) {
				break
			}
		}
	}
	for before := -1; r.mayTrigger() && ctx.Err() == nil; {
		sure, certainty := r.certain()
		if sure || certainty <= before {
			break
		}
		before = certainty
		r.sweep(ctx, f, measure.RoleTest, 0, k)
	}
}

func (r *run) mayTrigger() bool { return r.triggered < r.spec.Triggers }

// certain says whether what was seen so far names one link, and how surely, in
// per mille.
func (r *run) certain() (bool, int) {
	m := &measure.Measurement{Observations: r.log.Observations()}
	for _, l := range Infer(m, nil) {
		if l.Payload == string(r.spec.Payload) && l.Remote == r.spec.Remote.String() && len(l.Set) > 0 {
			return len(l.Set) == 1, l.Set[0].PerMille
		}
	}
	return false, 0
}

// quiet sends the trigger with a TTL that does not reach the device. It says
// whether that went as expected.
func (r *run) quiet(ctx context.Context, f *flow, ttl int) bool {
	for _, o := range r.sweep(ctx, f, measure.RoleTest, 0, ttl) {
		if cut(o) || o.Path.Outcome != "expired" && !(o.Path.Outcome == "silent" && !r.hop(ttl).answers()) {
			return false
		}
	}
	return true
}

// beyond sends the trigger with the system's TTL, and, if that is answered
// otherwise than the control, looks for the lowest TTL beyond the server's
// that is.
func (r *run) beyond(ctx context.Context, f *flow) {
	blocked := func(ttl int) (bool, bool) {
		for _, o := range r.sweep(ctx, f, measure.RoleTest, 0, ttl) {
			switch o.Path.Outcome {
			case "reset", "closed", "silent":
				return true, true
			case "answered":
				return false, true
			}
		}
		return false, false
	}
	for try := range 2 { // its packet may be lost
		bad, ok := blocked(0)
		if bad {
			break
		}
		if !ok || try > 0 {
			return
		}
	}
	// It is heard from an odd TTL on, twice its distance less one.
	r.spec.Triggers += max(0, r.spec.CopyTriggers)
	low, high := r.server/2+1, r.server // links that it may be at
	for low < high && ctx.Err() == nil && r.mayTrigger() {
		mid := (low + high) / 2
		bad, ok := blocked(2*mid - 1)
		switch {
		case !ok:
			return
		case bad:
			high = mid
		default:
			low = mid + 1
		}
	}
	r.siblings(ctx, low-1, low)
}

// residualKey finds out what stays blocked after a trigger, with harmless
// bytes only: the same flow, another port of ours, another port there.
func (r *run) residualKey(ctx context.Context, f *flow) measure.ResidualKey {
	if r.harmless(ctx, &flow{port: f.port, used: f.used, fixed: true}, "same-flow") {
		return measure.ResidualNone
	}
	if r.harmless(ctx, &flow{port: r.newPort(), fixed: true}, "new-port") {
		return measure.Residual4Tuple
	}
	if r.spec.OtherPort == 0 {
		return measure.ResidualUnknown
	}
	o := r.synAt(ctx, netip.AddrPortFrom(r.spec.Remote.Addr(), r.spec.OtherPort), r.newPort(), 0, connectTime)
	r.label(o, "other-port")
	if o.Path.Outcome == "connected" {
		return measure.Residual3Tuple
	}
	if r.spec.Elsewhere.IsValid() {
		r.label(r.synAt(ctx, r.spec.Elsewhere, r.newPort(), 0, connectTime), "elsewhere")
	}
	return measure.ResidualDestination
}

// routed asks, where harmless connections fail after a trigger, whether their
// packets still get past the place of the device: SYNs to the server that are
// to die at the farthest router that answers, at TTL least or beyond. A server
// that turns a client away after many broken connections does not keep routers
// from speaking.
func (r *run) routed(ctx context.Context, port uint16, least int) {
	far := r.answering(r.server - 1)
	if far < least {
		return
	}
	for range sendings {
		o := r.synAt(ctx, r.spec.Remote, port, far, r.synTime(far))
		r.label(o, "routed")
		if o.Path.Outcome != "silent" {
			return
		}
	}
}

// lasting asks with harmless bytes until what stays blocked is free again, at
// most for Spec.Residual. It asks seldom enough to be within a twentieth; what
// a device restarts with every packet lasts as long as it is asked.
func (r *run) lasting(ctx context.Context, f *flow, key measure.ResidualKey, began time.Time) {
	if key == measure.ResidualNone {
		return
	}
	for time.Since(began) < r.spec.Residual {
		if wire.Sleep(ctx, max(time.Second, time.Since(began)/20)) != nil {
			return
		}
		port := f.port
		if key != measure.Residual4Tuple {
			port = r.newPort()
		}
		if r.harmless(ctx, &flow{port: port, fixed: true, once: true}, "lasting") {
			return
		}
	}
}

// harmless sends the control at full TTL and says whether it drew an answer.
func (r *run) harmless(ctx context.Context, f *flow, label string) (ok bool) {
	for _, o := range r.sweep(ctx, f, measure.RoleControl, 0, 0) {
		r.label(o, label)
		ok = ok || o.Path.Outcome == "answered"
	}
	return ok
}

// label makes an observation one of residual blocking.
func (r *run) label(o *measure.Observation, label string) {
	r.log.Amend(func() { o.Experiment, o.Differs, o.ControlKind = measure.ExpResidual, []string{"history", label}, "" })
}
