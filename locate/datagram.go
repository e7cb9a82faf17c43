package locate

import (
	"context"
	"net"
	"net/netip"
	"time"

	"govah/measure"
	"govah/packet"
	"govah/wire"
)

// overUDP looks for a device that reacts to a datagram. The control's own
// sweep names the routers: a datagram's ICMP errors say whom they come from.
func (r *run) overUDP(ctx context.Context) error {
	s, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer func() { s.conn.Close() }()
	if !s.chooseControl(ctx) {
		return nil
	}
	silent := 0
	for k := 1; k <= maxTTL && silent < silences && ctx.Err() == nil; k++ {
		c := s.probe(ctx, measure.RoleControl, k, 2)
		if r.server == 0 && c.Path.Outcome == "answered" {
			r.server, r.arrived = k, c.Path.ArrivedTTL
			r.terminated(ctx)
		}
		if silent++; c.Path.Outcome != "silent" {
			silent = 0
		}
		t := s.probe(ctx, measure.RoleTest, k, sendings)
		if r.odd(t) && s.confirm(ctx, k, t) {
			return nil
		}
		if r.server > 0 {
			break
		}
	}
	if r.server == 0 || ctx.Err() != nil {
		return nil
	}
	if r.asks() {
		r.compareWays(ctx)
	}
	// As over TCP: what copies TTLs is heard only beyond the server.
	if t := s.probe(ctx, measure.RoleTest, 0, sendings); forged(t, r.arrived) {
		// Whether what arrives follows what was sent tells the two apart.
		if r.mayTrigger() {
			s.probe(ctx, measure.RoleTest, 64-16, sendings)
		}
		s.siblings(ctx, r.server)
	}
	return nil
}

// odd says that a test fared as no control would.
func (r *run) odd(t *measure.Observation) bool {
	switch t.Path.Outcome {
	case "answered", "unreachable":
		return r.server == 0 || t.TTL < r.server || forged(t, r.arrived)
	case "silent":
		return t.Path.Sends >= sendings && (r.hop(t.TTL).answers() || r.server > 0 && t.TTL >= r.server)
	}
	return false
}

// datagrams is the socket of a sweep.
type datagrams struct {
	r    *run
	conn wire.PacketConn
	came chan datagram
	sent map[string]*measure.Observation // by what an answer repeats of a probe
}

// mark is what an answer repeats of a probe: the id of a question, or the
// connection id that a server was told to use.
func (r *run) mark(b []byte, answer bool) string {
	if r.asks() {
		if len(b) < 12 {
			return ""
		}
		return string(b[:2])
	}
	h, err := packet.ParseLongHeader(b)
	switch {
	case err != nil:
		return ""
	case answer:
		return string(h.DCID)
	}
	return string(h.SCID)
}

type datagram struct {
	data []byte
	ttl  int
	at   time.Time
}

func (r *run) open(ctx context.Context) (*datagrams, error) {
	pc, err := r.n.ListenPacket(ctx, r.local(r.port))
	if err != nil {
		r.port = r.newPort()
		if pc, err = r.n.ListenPacket(ctx, r.local(r.port)); err != nil {
			return nil, err
		}
	}
	s := &datagrams{r: r, conn: pc, came: make(chan datagram, 64), sent: map[string]*measure.Observation{}}
	go func() {
		defer close(s.came)
		for {
			buf := make([]byte, 2048)
			n, ttl, from, err := pc.ReadTTL(buf)
			if err != nil {
				return
			}
			if netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != r.spec.Remote {
				continue
			}
			select {
			case s.came <- datagram{buf[:n], ttl, time.Now()}:
			default:
			}
		}
	}()
	return s, nil
}

// reopen goes on with another socket.
func (s *datagrams) reopen(ctx context.Context) error {
	s.conn.Close()
	s.r.port = s.r.newPort()
	fresh, err := s.r.open(ctx)
	if err == nil {
		*s = *fresh
	}
	return err
}

func (s *datagrams) chooseControl(ctx context.Context) bool {
	for _, c := range s.r.spec.Controls {
		s.r.control = c
		if o := s.probe(ctx, measure.RoleControl, 0, 3); o.Path.Outcome == "answered" {
			return true
		}
	}
	// A path towards an address where nobody answers can be followed too:
	// the routers on it do.
	if len(s.r.spec.Controls) == 0 {
		return false
	}
	s.r.control = s.r.spec.Controls[0]
	return true
}

// probe sends a datagram with a TTL, at most so often, until a router or
// anybody else answers. TTL 0 is the system's own.
func (s *datagrams) probe(ctx context.Context, role measure.Role, ttl, tries int) *measure.Observation {
	r := s.r
	o := r.begin(measure.ExpLocate, role, ttl, "datagram", r.port)
	defer func() {
		o.Path.LocalPort = int(r.port)
		r.log.End(o)
		if o.Path.Outcome == "expired" || o.Path.Outcome == "silent" && role == measure.RoleControl {
			r.heard(ttl, o.Path.Outcome == "expired", time.Duration(o.Path.RTTUS)*time.Microsecond)
		}
		if role == measure.RoleTest && (r.odd(o) || forged(o, r.arrived)) {
			r.triggered++
		}
	}()
	o.Path.Sends = 0
	if role == measure.RoleTest && !r.mayTrigger() {
		o.Failure = measure.Interrupted
		return o
	}
	// Devices look at the first datagrams of a flow alone (CN-07, RU-04): each
	// Initial begins one.
	if r.spec.Payload == QUIC && len(s.sent) > 0 && s.reopen(ctx) != nil {
		o.Failure = measure.Unsupported
		return o
	}
	s.conn.PathErrors()
	if s.conn.SetTTL(orDefault(ttl)) != nil {
		o.Failure = measure.Unsupported
		return o
	}
	for range tries {
		if r.paceDatagram(ctx) != nil {
			o.Failure = measure.Interrupted
			return o
		}
		id := uint16(r.rng.Uint32())
		b, err := r.payload(role, id, nil)
		if err != nil {
			o.Failure, o.Detail = wire.Classify(err)
			return o
		}
		s.sent[r.mark(b, false)] = o
		sent := time.Now()
		n, err := s.conn.WriteTo(b, net.UDPAddrFromAddrPort(r.spec.Remote))
		o.Path.Sends++
		o.Sent += int64(n)
		if err != nil {
			o.Failure, o.Detail = wire.Classify(err)
			return o
		}
		if s.await(ctx, o, role, sent) {
			return o
		}
		if role == measure.RoleTest && ttl > 0 && !r.hop(ttl).answers() && (r.server == 0 || ttl < r.server) {
			break // silence says nothing here
		}
	}
	o.Failure = measure.GenericTimeout
	return o
}

// await collects what comes after a sending. It says whether anything did.
func (s *datagrams) await(ctx context.Context, o *measure.Observation, role measure.Role, sent time.Time) bool {
	r := s.r
	reaction := r.reactionBy(o.TTL)
	if r.rtt == 0 {
		reaction = time.Second
	}
	end := sent.Add(reaction)
	for {
		now := time.Now()
		if now.After(end) || ctx.Err() != nil {
			break
		}
		select {
		case d, ok := <-s.came:
			if !ok {
				return false
			}
			s.take(o, d, sent)
			if o.Path.Outcome == "answered" {
				// What follows an answer tells who gave it: a router's word
				// that the question went on, or the true answer.
				late := max(settle, r.patience(o.TTL))
				if o.TTL == 0 {
					late += settle
				}
				switch e := now.Add(late); {
				case role == measure.RoleControl:
					end = now
				case e.After(end):
					end = e
				}
			}
		case <-time.After(tick):
		}
		for _, e := range s.conn.PathErrors() {
			if o.Path.ICMP != nil {
				continue
			}
			o.Path.ICMP = icmpOf(r.log, &e, r.spec.Remote)
			if o.Path.Outcome != "silent" {
				continue
			}
			o.Path.RTTUS = max(1, e.At.Sub(sent).Microseconds())
			o.Path.Outcome = "expired"
			if !e.Expired(r.spec.Remote.Addr()) {
				o.Path.Outcome = "unreachable"
			}
			switch e := now.Add(settle); {
			case role == measure.RoleControl:
				end = now
			case e.Before(end):
				end = e
			}
			r.farther(time.Duration(o.Path.RTTUS) * time.Microsecond)
		}
	}
	return o.Path.Outcome != "silent"
}

// take attributes a datagram to the probe that it answers.
func (s *datagrams) take(o *measure.Observation, d datagram, sent time.Time) {
	r := s.r
	of := s.sent[r.mark(d.data, true)]
	if of == nil {
		return
	}
	set := func() {
		p := *of.Path
		p.Outcome, p.RTTUS = "answered", d.at.Sub(sent).Microseconds()
		if p.ArrivedTTL == 0 {
			p.ArrivedTTL = d.ttl
		}
		of.Path, of.Failure = &p, ""
		of.Received += int64(len(d.data))
		if of.DNS != nil && len(of.DNS.Replies) < 16 {
			dns := *of.DNS
			dns.Replies = append(dns.Replies[:len(dns.Replies):len(dns.Replies)], wire.ReplyOf(r.log, d.data, d.at, d.ttl))
			of.DNS = &dns
		}
	}
	if of != o {
		r.log.Amend(set)
		return
	}
	set()
	r.farther(time.Duration(of.Path.RTTUS) * time.Microsecond)
}

// refill is how long a router that limits its errors is left alone before its
// silence is believed: Linux sends one a second to each address
// (icmp_ratelimit), and a control just before takes it from the test.
const refill = 1500 * time.Millisecond

// confirm makes sure of a difference at TTL k. False means that it was chance:
// a router that limits its errors, or loss.
func (s *datagrams) confirm(ctx context.Context, k int, t *measure.Observation) bool {
	r := s.r
	// What stays blocked is not to be taken for the device.
	if s.reopen(ctx) != nil {
		return true
	}
	if t.Path.Outcome == "silent" && r.mayTrigger() {
		wire.Sleep(ctx, refill)
		if o := s.probe(ctx, measure.RoleTest, k, sendings); o.Path.Outcome == "expired" {
			r.triggered-- // nothing reacts so near
			return false
		}
	}
	s.probe(ctx, measure.RoleControl, k, 2)
	if below := r.answering(k - 1); below > 0 {
		s.probe(ctx, measure.RoleTest, below, 2)
	}
	if k > 1 {
		s.probe(ctx, measure.RoleTest, k-1, 2)
	}
	// At full TTL the true answer follows a forged one unless the question
	// was swallowed, and a device that copies TTLs is heard.
	for t.Path.ICMP == nil && r.mayTrigger() {
		if o := s.probe(ctx, measure.RoleTest, 0, 1); o.Path.Outcome != "answered" || o.DNS == nil || len(distinct(o.DNS.Replies)) > 1 || r.hop(k).answers() {
			break
		}
	}
	s.siblings(ctx, k)
	return true
}

// siblings sends the control from further ports around TTL k.
func (s *datagrams) siblings(ctx context.Context, k int) {
	r := s.r
	for range r.spec.Flows - 1 {
		r.port = r.newPort()
		other, err := r.open(ctx)
		if err != nil {
			return
		}
		for ttl := max(1, k-1); ttl <= k; ttl++ {
			other.probe(ctx, measure.RoleControl, ttl, 1)
		}
		other.conn.Close()
	}
}
