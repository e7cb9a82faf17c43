package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"govah/measure"
)

// Bounds on what is kept of answers.
const (
	maxReplies    = 16
	maxAnswers    = 64
	maxAnswerText = 512
	// maxStrays bounds datagrams that answer nothing we asked.
	maxStrays = 256
	// udpSize is what we say we can take (RFC 6891): it passes every path.
	udpSize = 1232
	// expiredEvery is how often it is looked whether a question has expired.
	expiredEvery = 50 * time.Millisecond
)

// LookupSystem asks the operating system's resolver for A and AAAA. What it
// sends and to whom is the system's business and is not recorded.
func LookupSystem(ctx context.Context, n Network, l *Log, m Meta, name string, timeout time.Duration) *measure.Observation {
	o := l.Begin(measure.StepDNS, m)
	defer l.End(o)
	d := &measure.DNS{Name: name, Type: "A+AAAA", Transport: "system"}
	o.DNS = d
	if timeout <= 0 {
		timeout = 10 * time.Second
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addrs, err := n.Lookup(limited, name)
	at := time.Now()
	o.TookUS = l.Since(at) - o.StartUS
	if err != nil {
		fail(ctx, o, err)
		return o
	}
	r := measure.DNSReply{AtUS: l.Since(at), Rcode: "NOERROR"}
	for _, a := range addrs {
		if len(r.Answers) == maxAnswers {
			break
		}
		a = a.Unmap()
		kind := "AAAA"
		if a.Is4() {
			kind = "A"
		}
		r.Answers = append(r.Answers, measure.DNSAnswer{Type: kind, Value: a.String(), ASN: l.ASN(a.String())})
	}
	d.Replies = []measure.DNSReply{r}
	if len(addrs) == 0 {
		o.Failure = measure.DNSNoAnswer
	}
	return o
}

// Question is a question to one resolver.
type Question struct {
	Name   string
	Type   string // A, AAAA, HTTPS, … as in a zone file
	Server netip.AddrPort
	// Transport is udp, tcp or tls (DNS over TLS, RFC 7858).
	Transport string
	// ServerName is the resolver's name for tls.
	ServerName string
	// Timeout is for all tries together, 6 s if 0.
	Timeout time.Duration
	// Tries is how often a UDP question is sent until it is answered, at
	// equal intervals; 3 if 0. Each try has an id of its own.
	Tries int
	// Linger is how long to listen on after the first UDP answer.
	Linger time.Duration
	// NoResolver says that nothing at Server answers questions (ExpNowhere).
	NoResolver bool
	// NoEDNS leaves out the OPT record (RFC 6891).
	NoEDNS bool
	// Chaos asks in class CH, for what a resolver says of itself.
	Chaos bool
	// DNSSECOK asks for signatures too (RFC 3225).
	DNSSECOK bool
	// Operator is who is known to run Server.
	Operator string
	// TTL is that of the packets sent, 0 the system's default.
	TTL int
	// Expired is how long to listen on, over UDP and where the network tells,
	// once a router said that the TTL was used up; 0: as long as otherwise.
	Expired time.Duration
}

// message is the question as it is sent.
func (q Question) message() (*dns.Msg, error) {
	msg, err := newQuestion(q.Name, q.Type)
	if err != nil {
		return nil, err
	}
	switch {
	case q.NoEDNS:
		msg.Extra = nil
	case q.DNSSECOK:
		msg.IsEdns0().SetDo()
	}
	if q.Chaos {
		msg.Question[0].Qclass = dns.ClassCHAOS
	}
	return msg, nil
}

// record is the question as it is recorded.
func (q Question) record(resolver string) *measure.DNS {
	d := &measure.DNS{Name: q.Name, Type: q.Type, Transport: q.Transport, Resolver: resolver, NoResolver: q.NoResolver, DNSSECOK: q.DNSSECOK, Operator: q.Operator}
	if q.Chaos {
		d.Class = "CH"
	}
	return d
}

// Ask asks one question. Over UDP it keeps every answer to the try that was
// answered first, in the order of arrival, with the TTL of its packet where
// the network tells.
func Ask(ctx context.Context, n Network, l *Log, m Meta, q Question, trust *Trust) *measure.Observation {
	o := l.Begin(measure.StepDNS, m)
	defer l.End(o)
	setRemote(l, o, q.Server)
	o.TTL = q.TTL
	o.DNS = q.record(q.Server.String())
	if q.Timeout <= 0 {
		q.Timeout = 6 * time.Second
	}
	if q.Tries <= 0 {
		q.Tries = 3
	}
	err := ask(ctx, n, l, o, q, trust)
	fail(ctx, o, err)
	if err == nil && o.Failure == measure.NoFailure {
		o.Failure = firstFailure(o.DNS)
	}
	return o
}

func ask(ctx context.Context, n Network, l *Log, o *measure.Observation, q Question, trust *Trust) error {
	msg, err := q.message()
	if err != nil {
		return err
	}
	if !q.Server.IsValid() {
		return fmt.Errorf("wire: no resolver to ask for %q", q.Name)
	}
	switch q.Transport {
	case "udp":
		return askUDP(ctx, n, l, o, q, msg)
	case "tcp", "tls":
		return askStream(ctx, n, l, o, q, msg, trust)
	}
	return fmt.Errorf("wire: no DNS transport %q; there are udp, tcp and tls", q.Transport)
}

func newQuestion(name, kind string) (*dns.Msg, error) {
	t, ok := dns.StringToType[strings.ToUpper(kind)]
	if !ok {
		return nil, fmt.Errorf("wire: no DNS record type %q", kind)
	}
	fqdn := dns.Fqdn(name)
	if _, ok := dns.IsDomainName(fqdn); !ok {
		return nil, fmt.Errorf("wire: %q is no domain name", clip(name, 260))
	}
	msg := new(dns.Msg)
	msg.SetQuestion(fqdn, t)
	msg.Id = uint16(rand.Uint32())
	msg.SetEdns0(udpSize, false)
	return msg, nil
}

// answers says whether reply answers the question of msg, the id aside.
func answers(msg, reply *dns.Msg) bool {
	if !reply.Response || reply.Opcode != dns.OpcodeQuery {
		return false
	}
	if len(reply.Question) == 0 {
		// Some resolvers repeat no question with an error.
		return reply.Rcode != dns.RcodeSuccess
	}
	q, a := msg.Question[0], reply.Question[0]
	return a.Qtype == q.Qtype && a.Qclass == q.Qclass && strings.EqualFold(a.Name, q.Name)
}

// ReplyOf records a datagram that claims to answer a question; one that is no
// DNS message has no Rcode.
func ReplyOf(l *Log, b []byte, at time.Time, ttl int) measure.DNSReply {
	msg := new(dns.Msg)
	if msg.Unpack(b) != nil {
		return measure.DNSReply{AtUS: l.Since(at), TTL: ttl}
	}
	return recordReply(l, msg, at, ttl)
}

// recordReply makes a reply of a message.
func recordReply(l *Log, msg *dns.Msg, at time.Time, ttl int) measure.DNSReply {
	r := measure.DNSReply{AtUS: l.Since(at), Rcode: rcodeText(msg.Rcode), AA: msg.Authoritative, AD: msg.AuthenticatedData, TC: msg.Truncated, TTL: ttl}
	if e := msg.IsEdns0(); e != nil {
		r.DO = e.Do()
	}
	for _, rr := range msg.Answer {
		if len(r.Answers) == maxAnswers {
			break
		}
		h := rr.Header()
		a := measure.DNSAnswer{Type: typeText(h.Rrtype), TTLS: int64(h.Ttl)}
		switch rr := rr.(type) {
		case *dns.A:
			a.Value = rr.A.String()
			a.ASN = l.ASN(a.Value)
		case *dns.AAAA:
			if addr, ok := netip.AddrFromSlice(rr.AAAA); ok {
				a.Value = addr.String()
				a.ASN = l.ASN(a.Value)
			}
		case *dns.CNAME:
			a.Value = text(strings.TrimSuffix(rr.Target, "."), maxAnswerText)
		default:
			a.Value = text(strings.TrimSpace(strings.TrimPrefix(rr.String(), h.String())), maxAnswerText)
		}
		r.Answers = append(r.Answers, a)
	}
	return r
}

func rcodeText(rcode int) string {
	if s, ok := dns.RcodeToString[rcode]; ok {
		return s
	}
	return fmt.Sprintf("RCODE%d", rcode)
}

func typeText(t uint16) string {
	if s, ok := dns.TypeToString[t]; ok {
		return s
	}
	return fmt.Sprintf("TYPE%d", t)
}

// firstFailure is what a stub resolver would conclude: it takes what comes first.
func firstFailure(d *measure.DNS) measure.Failure {
	if len(d.Replies) == 0 {
		return measure.GenericTimeout
	}
	r := d.Replies[0]
	rcode, ok := dns.StringToRcode[r.Rcode]
	if !ok {
		return measure.DNSNonRecoverable
	}
	if f := classifyRcode(rcode); f != "" {
		return f
	}
	for _, a := range r.Answers {
		if strings.EqualFold(a.Type, d.Type) {
			return measure.NoFailure
		}
	}
	return measure.DNSNoAnswer
}

var (
	errSilent  = fmt.Errorf("no answer: %w", context.DeadlineExceeded)
	errExpired = fmt.Errorf("no answer, and a router said that the TTL was used up: %w", context.DeadlineExceeded)
	errWrongID = errors.New("only answers with a wrong query id came")
)

func askUDP(ctx context.Context, n Network, l *Log, o *measure.Observation, q Question, msg *dns.Msg) error {
	pc, err := n.ListenPacket(l.About(ctx, o), netip.AddrPortFrom(unspecified(q.Server.Addr()), 0))
	if err != nil {
		return err
	}
	defer pc.Close()
	stop := context.AfterFunc(ctx, func() { pc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if q.TTL != 0 {
		if err := pc.SetTTL(q.TTL); err != nil {
			return fmt.Errorf("setting the TTL to %d: %w", q.TTL, err)
		}
	}
	to := net.UDPAddrFromAddrPort(q.Server)
	var (
		ids      []uint16
		answered uint16
		wrongID  bool
		expired  bool
		strays   int
		next     time.Time // try
		deadline time.Time // once nothing more is sent
		interval = q.Timeout / time.Duration(q.Tries)
		buf      = make([]byte, 4096) // more than we said we can take
		d        = o.DNS
	)
	for {
		now := time.Now()
		if len(d.Replies) == 0 && len(ids) < q.Tries && !now.Before(next) {
			msg.Id += uint16(1 + rand.IntN(1<<14))
			packed, err := msg.Pack()
			if err != nil {
				return fmt.Errorf("packing the question for %q: %w", clip(q.Name, 260), err)
			}
			if _, err := pc.WriteTo(packed, to); err != nil {
				return err
			}
			ids = append(ids, msg.Id)
			o.Sent += int64(len(packed))
			// Each try has its whole interval, however late it was sent.
			next = time.Now().Add(interval)
			deadline = next
		}
		wait := deadline
		if len(d.Replies) == 0 {
			if wait = next; q.Expired > 0 && !expired && wait.Sub(now) > expiredEvery {
				wait = now.Add(expiredEvery)
			}
		}
		pc.SetReadDeadline(wait)
		if ctx.Err() != nil {
			break
		}
		size, ttl, from, err := pc.ReadTTL(buf)
		at := time.Now()
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			var ne net.Error
			if !errors.As(err, &ne) || !ne.Timeout() {
				return err
			}
			if len(d.Replies) == 0 {
				list := pc.PathErrors()
				if e := refusal(list, q.Server.Addr()); e != nil && len(ids) > 0 {
					return e
				}
				if q.Expired > 0 && !expired && slices.ContainsFunc(list, func(e PathError) bool { return e.Expired(q.Server.Addr()) }) {
					expired, q.Tries = true, len(ids)
					next = at.Add(q.Expired)
					deadline = next
				}
			}
			if !at.Before(deadline) && (len(ids) == q.Tries || len(d.Replies) > 0) {
				break
			}
			continue
		}
		o.Received += int64(size)
		if strays++; strays > maxStrays {
			if len(d.Replies) == 0 && ctx.Err() == nil {
				return fmt.Errorf("%d datagrams and no answer among them: %w", maxStrays, errTooLarge)
			}
			break
		}
		if unmapPort(from) != q.Server {
			continue
		}
		reply := new(dns.Msg)
		if reply.Unpack(buf[:size]) != nil || !answers(msg, reply) {
			continue
		}
		if len(d.Replies) == 0 {
			known := false
			for _, id := range ids {
				known = known || id == reply.Id
			}
			if !known {
				wrongID = true
				continue
			}
			answered = reply.Id
			deadline = at.Add(q.Linger)
		} else if reply.Id != answered {
			continue // to another try, or to nothing
		}
		d.Replies = append(d.Replies, recordReply(l, reply, at, ttl))
		if len(d.Replies) == 1 {
			o.TookUS = l.Since(at) - o.StartUS
			if reply.Truncated && len(reply.Answer) == 0 {
				o.Detail = "the answer did not fit into a datagram"
			}
		}
		if len(d.Replies) == maxReplies || q.Linger <= 0 {
			break
		}
	}
	if len(d.Replies) > 0 {
		return nil
	}
	if ctx.Err() != nil {
		return errInterrupted
	}
	if wrongID {
		o.Failure = measure.DNSReplyWrongID
		o.Detail = errWrongID.Error()
		return nil
	}
	if expired {
		return errExpired
	}
	return errSilent
}

// refusal is the errno that a connected socket would have had for an ICMP
// error, nil if there was none that ends a question.
func refusal(list []PathError, remote netip.Addr) error {
	for _, e := range list {
		if errno := e.errno(remote); errno != 0 {
			return &net.OpError{Op: "read", Net: "udp", Err: errors.Join(errno, &e)}
		}
	}
	return nil
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Unmap().Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// askStream asks over TCP or TLS (RFC 7766, RFC 7858).
func askStream(ctx context.Context, n Network, l *Log, o *measure.Observation, q Question, msg *dns.Msg, trust *Trust) error {
	deadline := time.Now().Add(q.Timeout)
	conn, err := dial(l.About(ctx, o), n, ConnectSpec{Remote: q.Server, TTL: q.TTL, Timeout: min(q.Timeout, connectTimeout)})
	if err != nil {
		var pe *PathError
		if errors.As(err, &pe) {
			o.TCP = &measure.TCP{ICMP: []measure.ICMP{*ICMPOf(l, pe)}}
		}
		return err
	}
	defer conn.Close()
	var (
		c  net.Conn
		mt *meter
	)
	var sent, received int64 // of the handshake, which is counted already
	if q.Transport == "tls" {
		verify := q.ServerName
		if verify == "" {
			verify = q.Server.Addr().String()
		}
		o.SNI = q.ServerName
		hello, err := NewHello("go", 0)
		if err != nil {
			return err
		}
		// Without a name in the ALPN, as resolvers' own clients do (RFC 7858).
		tc, err := handshake(ctx, l, o, conn, HandshakeSpec{SNI: q.ServerName, Verify: verify, Hello: hello, ALPN: []string{"dot"}}, trust)
		if tc != nil {
			defer tc.Close()
		}
		if tc == nil || !tc.verified {
			if err == nil {
				err = &certificateError{outcome: measure.VerifyUnknownCA, err: errors.New("no public root to verify the resolver's certificate with")}
			}
			return err
		}
		c, mt = tc, tc.meter
		sent, received = mt.sent.Load(), mt.received.Load()
	} else {
		mt = &meter{Conn: conn}
		c = mt
	}
	left := time.Until(deadline)
	end := mt.begin(ctx, limits{total: left, silence: left})
	defer func() {
		end()
		o.Sent += mt.sent.Load() - sent
		o.Received += mt.received.Load() - received
		o.TookUS = l.Since(time.Now()) - o.StartUS
	}()
	packed, err := msg.Pack()
	if err != nil {
		return fmt.Errorf("packing the question for %q: %w", clip(q.Name, 260), err)
	}
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)); err != nil {
		return err
	}
	for range maxReplies {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return err
		}
		buf := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, buf); err != nil {
			return err
		}
		at := time.Now()
		reply := new(dns.Msg)
		if err := reply.Unpack(buf); err != nil {
			return fmt.Errorf("unreadable answer: %w", err)
		}
		if !answers(msg, reply) {
			continue
		}
		if reply.Id != msg.Id {
			o.Failure, o.Detail = measure.DNSReplyWrongID, errWrongID.Error()
			return nil
		}
		o.DNS.Replies = append(o.DNS.Replies, recordReply(l, reply, at, 0))
		return nil
	}
	return fmt.Errorf("%d messages and none of them the answer: %w", maxReplies, errTooLarge)
}
