// Package locate finds out between which two routers a device sits that reacts
// to a trigger. Run measures on a wire.Network: it follows the path with
// TTL-limited probes of one flow, then sends a harmless token and the trigger
// itself with a TTL that grows until the two fare differently. Infer concludes
// from the observations alone, so that a saved run is located again by the
// same code.
//
// Nothing is addressed to a router: every packet goes to the server, and its
// TTL ends it on the way. A device is made to react once where the path is
// clean, and never more often than the budget says.
package locate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"govah/measure"
	"govah/wire"
)

// Defaults of Spec.
const (
	DefaultTriggers     = 3
	DefaultCopyTriggers = 4
	DefaultFarTriggers  = 2
	DefaultFlows        = 3
	maxTTL              = 40
)

// Payload says what carries the trigger.
type Payload string

// The payloads.
const (
	TLS  Payload = "tls"  // a browser's ClientHello, the trigger its server name
	HTTP Payload = "http" // a GET request, the trigger its Host or its path
	DNS  Payload = "dns"  // a question over UDP, the trigger its name
	QUIC Payload = "quic" // a QUIC Initial, the trigger its server name
	TCP  Payload = "tcp"  // a SYN, the trigger the address or the port
	Raw  Payload = "raw"  // any first bytes of a TCP connection
	// Connect carries nothing: it is only asked who ends the connection.
	Connect Payload = "connect"
	// Mail is a dialogue with a mail server, the trigger its command to begin
	// encryption. Nobody logs in and nothing is sent.
	Mail Payload = "mail"
	// Resolver carries a harmless question: it is only asked who answers.
	Resolver Payload = "resolver"
)

// Payloads are all of them.
var Payloads = []Payload{TLS, HTTP, DNS, QUIC, TCP, Raw, Connect, Mail, Resolver}

// Control is a harmless token that takes the trigger's place.
type Control struct {
	Kind measure.ControlKind
	Name string         // a host name; for Raw unused
	At   netip.AddrPort // for TCP: where to connect instead
}

// Spec says what to look for.
type Spec struct {
	Remote  netip.AddrPort
	Payload Payload
	Name    string // the trigger: a server name, Host or question
	Path    string // of an HTTP request; "" is /
	// RawTest and RawControl are first bytes for Raw, of the same length.
	RawTest, RawControl []byte
	// Protocol is smtp, imap or pop3, for Mail.
	Protocol string
	// Controls are tried in order until one draws an answer.
	Controls []Control
	// OtherPort is a port of the same server that answers, to tell residual
	// keys apart; 0: none is known.
	OtherPort uint16
	// Greeter says that Remote is a helper's mail server, and OtherPort a port
	// of the same process: what answers at both is equally far away.
	Greeter bool
	// Elsewhere is another server that answers, for the same.
	Elsewhere netip.AddrPort
	// Triggers is the budget: how often a device may be made to react. A
	// trigger is one probe with its repetitions: a connection with its
	// retransmissions, the SYNs of one flow, a question asked again. 0 is
	// DefaultTriggers.
	Triggers int
	// CopyTriggers is how many more the search for a device that copies TTLs
	// may take: what it does is not heard at lower TTLs, so that it cannot be
	// approached from below. 0 is DefaultCopyTriggers, less is none.
	CopyTriggers int
	// FarTriggers is how many more may go all the way to a helper, to learn
	// whether they arrive. 0 is DefaultFarTriggers, less is none.
	FarTriggers int
	// Flows is how many flows look for equal-cost siblings, 0 is DefaultFlows.
	Flows int
	// Residual asks how long residual blocking lasts, at most so long; 0 does
	// not ask.
	Residual time.Duration
	// Pace waits before each new connection, bare SYNs included, and PaceAsk
	// before each question over UDP, wherever it dies; nil does not.
	Pace, PaceAsk func(context.Context) error
	// Helper is the URL of a helper that Remote is an address of: it is asked
	// what arrived. "" asks nobody. Over TCP only.
	Helper string
	Trust  *wire.Trust // verifies the helper's certificate
	Hello  *wire.Hello // nil: Chrome's, small enough for one segment
	Seed   uint64
	// Captured, if not nil, is given the packets between this device and
	// Remote, and the ICMP that quotes them, at the end of the run; where they
	// may not be captured it is not called.
	Captured func([]wire.Packet)
}

// hop is what the run itself has learned about a TTL so far.
type hop struct {
	sent, answered int // probes that should draw ICMP there
	rtt            time.Duration
	spoke          time.Time // last, whichever flow it was about
	// talkative says that it speaks of two packets at once, if that was tried.
	talkative, tried bool
}

func (h hop) answers() bool { return h.answered > 0 }

// run is one search.
type run struct {
	n       wire.Network
	log     *wire.Log
	spec    Spec
	view    measure.View
	rng     *rand.Rand
	control Control

	mu        sync.Mutex // of what two flows learn: hops, rtt; and of rng and ports
	hops      map[int]*hop
	server    int           // the lowest TTL that reached the server, 0 unknown
	arrived   int           // the TTL with which its datagrams arrive, 0 unknown
	rtt       time.Duration // to the server, or the farthest hop
	port      uint16        // of the followed flow
	ports     map[uint16]bool
	capture   wire.Capture // nil without the privilege
	mute      bool         // the server does not answer the control
	triggered int
	proof     *measure.Observation // harmless bytes that the helper has told of
	deaf      bool                 // it does not answer any more
	residual  measure.ResidualKey
}

// Run measures. What it finds out is in the log. It fails only for wrong
// input; a path that cannot be followed is an observation too.
func Run(ctx context.Context, n wire.Network, log *wire.Log, spec Spec) error {
	if !spec.Remote.IsValid() {
		return errors.New("locate: no address to follow the path to")
	}
	if spec.Triggers == 0 {
		spec.Triggers = DefaultTriggers
	}
	if spec.CopyTriggers == 0 {
		spec.CopyTriggers = DefaultCopyTriggers
	}
	if spec.FarTriggers == 0 {
		spec.FarTriggers = DefaultFarTriggers
	}
	if spec.Flows == 0 {
		spec.Flows = DefaultFlows
	}
	if spec.Path == "" {
		spec.Path = "/"
	}
	if len(spec.RawTest) != len(spec.RawControl) {
		return errors.New("locate: the first bytes of test and control differ in length")
	}
	if spec.Helper != "" && spec.Trust == nil {
		return errors.New("locate: nothing to verify the helper with")
	}
	if spec.Seed == 0 {
		spec.Seed = rand.Uint64()
	}
	if spec.Hello == nil && spec.Payload == TLS {
		var err error
		if spec.Hello, err = wire.NewHello("chrome-small", int64(spec.Seed)); err != nil {
			return err
		}
	}
	spec.Remote = netip.AddrPortFrom(spec.Remote.Addr().Unmap(), spec.Remote.Port())
	r := newRun(n, log, spec)
	if !r.view.SetTTL {
		return fmt.Errorf("locate: this system cannot limit the TTL of a connection: %w", errors.ErrUnsupported)
	}
	r.port = r.newPort()
	ctx = log.About(ctx, nil)
	defer r.overhearing(ctx)()
	switch spec.Payload {
	case TLS, HTTP, Raw, Mail:
		return r.overTCP(ctx)
	case DNS, QUIC:
		return r.overUDP(ctx)
	case TCP:
		return r.bySYN(ctx)
	case Connect:
		if r.ladder(ctx, r.port) == nil && !r.terminated(ctx) {
			r.answers(ctx)
		}
		return nil
	case Resolver:
		return r.whoAnswers(ctx)
	}
	return fmt.Errorf("locate: no payload %q", spec.Payload)
}

func newRun(n wire.Network, log *wire.Log, spec Spec) *run {
	return &run{n: n, log: log, spec: spec, view: n.View(), rng: rand.New(rand.NewPCG(spec.Seed, 0x6c6f63)), hops: map[int]*hop{}, ports: map[uint16]bool{}}
}

// newPort is a port of ours for a flow of its own, outside the range from
// which Linux gives ports to others.
func (r *run) newPort() uint16 {
	r.mu.Lock()
	defer r.mu.Unlock()
	port := uint16(20000 + r.rng.IntN(12000))
	r.ports[port] = true
	return port
}

func (r *run) local(port uint16) netip.AddrPort {
	if r.spec.Remote.Addr().Is4() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), port)
}

func (r *run) pace(ctx context.Context) error {
	if r.spec.Pace != nil {
		return r.spec.Pace(ctx)
	}
	return ctx.Err()
}

// paceDatagram waits before a datagram: a QUIC Initial is a connection.
func (r *run) paceDatagram(ctx context.Context) error {
	if r.asks() && r.spec.PaceAsk != nil {
		return r.spec.PaceAsk(ctx)
	}
	return r.pace(ctx)
}

// hop is what is known of a TTL by now.
func (r *run) hop(ttl int) hop {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.hops[ttl]; h != nil {
		return *h
	}
	return hop{}
}

// at is what is noted of a TTL. The caller holds mu.
func (r *run) at(ttl int) *hop {
	if r.hops[ttl] == nil {
		r.hops[ttl] = &hop{}
	}
	return r.hops[ttl]
}

// heard notes a sending that should have drawn ICMP at a TTL.
func (r *run) heard(ttl int, icmp bool, rtt time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.at(ttl)
	h.sent++
	if icmp {
		h.answered++
		h.spoke = time.Now()
		if h.rtt == 0 || rtt < h.rtt {
			h.rtt = rtt
		}
	}
}

// spoke notes that a router at a TTL sent an error, of which many send only so
// many a second.
func (r *run) spoke(ttl int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at(ttl).spoke = time.Now()
}

// farther notes a round trip time.
func (r *run) farther(rtt time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rtt = max(r.rtt, rtt)
}

// The clock of a probe.
const (
	// settle is how much later than an honest answer a device may react.
	settle = 120 * time.Millisecond
	// hurry is the least time to wait for anything.
	hurry = 60 * time.Millisecond
)

// patience is how long an answer from a TTL may take.
func (r *run) patience(ttl int) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	rtt := r.rtt
	if h := r.hops[ttl]; h != nil && h.rtt > 0 {
		rtt = h.rtt
	}
	if rtt == 0 {
		return time.Second
	}
	return max(hurry, rtt+rtt/2) + settle/2
}

// synTime is how long the answer to a SYN with a TTL may take: it is no matter
// of haste, and is not sent again by then.
func (r *run) synTime(ttl int) time.Duration { return max(300*time.Millisecond, r.patience(ttl)) }

// reactionBy is how long after a sending a device at or before that TTL may
// still react.
func (r *run) reactionBy(ttl int) time.Duration { return r.patience(ttl) + settle }

// token is what takes the place of the name in a probe of a role.
func (r *run) token(role measure.Role) string {
	if role == measure.RoleTest {
		return r.spec.Name
	}
	return r.control.Name
}

// payload are the bytes to send. DNS questions carry an id that says which
// probe they are; a marker tells a helper, over TLS and HTTP.
func (r *run) payload(role measure.Role, id uint16, marker []byte) ([]byte, error) {
	name := r.token(role)
	switch r.spec.Payload {
	case TLS:
		return wire.TLSPayload(r.spec.Hello, name, marker)
	case HTTP:
		return wire.HTTPPayload(name, r.spec.Path, marker)
	case DNS, Resolver:
		return wire.DNSPayload(name, "A", id)
	case QUIC:
		return wire.QUICPayload(name)
	case Mail:
		return wire.MailPayload(r.spec.Protocol, role == measure.RoleTest), nil
	}
	if role == measure.RoleTest {
		return r.spec.RawTest, nil
	}
	return r.spec.RawControl, nil
}

// begin opens the observation of one probe.
func (r *run) begin(exp measure.Experiment, role measure.Role, ttl int, probe string, port uint16) *measure.Observation {
	m := wire.Meta{Role: role, Stage: measure.StageLocate, Experiment: exp}
	if role == measure.RoleControl && exp == measure.ExpLocate {
		m.ControlKind = r.control.Kind
	}
	if role == measure.RoleTest {
		m.Differs = []string{r.differs()}
	}
	o := r.log.Begin(measure.StepPath, m)
	o.Remote, o.Family, o.ASN = r.spec.Remote.String(), wire.FamilyOf(r.spec.Remote.Addr()), r.log.ASN(r.spec.Remote.Addr().String())
	o.TTL, o.Payload = ttl, string(r.spec.Payload)
	o.Path = &measure.Path{Probe: probe, Outcome: "silent", LocalPort: int(port), ServerTTL: r.server}
	r.name(o, role)
	return o
}

// name notes the token where a reader expects it.
func (r *run) name(o *measure.Observation, role measure.Role) {
	switch r.spec.Payload {
	case TLS, QUIC:
		o.SNI = r.token(role)
		if r.spec.Hello != nil {
			o.Hello = r.spec.Hello.Kind()
		}
	case HTTP:
		o.Host = r.token(role)
	case Mail:
		o.Mail = &measure.Mail{Protocol: r.spec.Protocol}
	case DNS, Resolver:
		o.DNS = &measure.DNS{Name: r.token(role), Type: "A", Transport: "udp", Resolver: r.spec.Remote.String()}
	}
}

func (r *run) differs() string {
	switch r.spec.Payload {
	case HTTP:
		return "host"
	case DNS:
		return "qname"
	case TCP:
		return "address"
	case Raw:
		return "payload"
	case Mail:
		return "command"
	}
	return "sni"
}

// reacted says that a probe drew something else than a router's word or
// silence.
func reacted(o *measure.Observation) bool {
	switch o.Path.Outcome {
	case "answered", "reset", "closed", "unreachable":
		return true
	}
	return false
}
