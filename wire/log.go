package wire

import (
	"net/netip"
	"strconv"
	"sync"
	"time"

	"govah/measure"
)

// Meta is what the caller of a step knows about its place in an experiment;
// the step fills in the rest of the observation.
type Meta struct {
	Role        measure.Role
	Stage       measure.Stage
	Experiment  measure.Experiment
	Pair        int
	ControlKind measure.ControlKind
	Differs     []string
	// Form is how a name is written, for ExpForm.
	Form string
	// Beside is the router that is spoken to, for ExpBanner.
	Beside *measure.Beside
	// After is the id of the observation whose answer or connection is used.
	After string
}

// Log collects the observations of one measurement, gives them ids, and
// counts its bytes. It is safe for concurrent use.
type Log struct {
	// Label names an observation of this log, "" for none of them in
	// particular, in a trace of the run's packets; nil: without a name.
	Label func(observation string) string

	started time.Time
	asn     func(addr string) int

	mu       sync.Mutex
	next     int
	list     []*measure.Observation
	bodies   map[string]measure.Body
	sent     int64
	received int64
}

// NewLog starts a log at the given time. asn finds the AS of a numeric
// address and may be nil.
func NewLog(started time.Time, asn func(addr string) int) *Log {
	return &Log{started: started, asn: asn, bodies: map[string]measure.Body{}}
}

// Started is the time that all times of the log count from.
func (l *Log) Started() time.Time { return l.started }

// Since is t in microseconds since the log's start.
func (l *Log) Since(t time.Time) int64 { return t.Sub(l.started).Microseconds() }

// ASN is the AS of a numeric address, 0 unknown.
func (l *Log) ASN(addr string) int {
	if l.asn == nil {
		return 0
	}
	return l.asn(addr)
}

// Begin opens an observation. It belongs to the caller until End.
func (l *Log) Begin(step measure.Step, m Meta) *measure.Observation {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	return &measure.Observation{
		ID: "o" + strconv.Itoa(l.next), Step: step,
		Role: m.Role, Stage: m.Stage, Experiment: m.Experiment, Pair: m.Pair,
		ControlKind: m.ControlKind, Differs: m.Differs, Form: m.Form, Beside: m.Beside, After: m.After,
		StartUS: time.Since(l.started).Microseconds(),
	}
}

// End closes an observation: its duration and family are set if the step did
// not, and it becomes part of the log. Whoever changes it after that does so
// with Link or Amend.
func (l *Log) End(o *measure.Observation) {
	if o.Family == "" {
		if ap, err := netip.ParseAddrPort(o.Remote); err == nil {
			o.Family = FamilyOf(ap.Addr())
		}
	}
	if o.TookUS == 0 {
		o.TookUS = time.Since(l.started).Microseconds() - o.StartUS
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, o)
	l.sent += o.Sent
	l.received += o.Received
}

// Keep stores a body or certificate once per hash.
func (l *Log) Keep(b measure.Body) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.bodies[b.SHA256]; !ok {
		l.bodies[b.SHA256] = b
	}
}

// Bodies are the bodies kept so far.
func (l *Log) Bodies() []measure.Body {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]measure.Body, 0, len(l.bodies))
	for _, b := range l.bodies {
		out = append(out, b)
	}
	return out
}

// Observations are copies of the closed observations so far, in the order
// they ended.
func (l *Log) Observations() []measure.Observation {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]measure.Observation, len(l.list))
	for i, o := range l.list {
		out[i] = *o
	}
	return out
}

// Link says which observation is the control of a closed one.
func (l *Log) Link(o *measure.Observation, control string) {
	l.Amend(func() { o.Control = control })
}

// Amend runs f, which changes closed observations, while nobody copies them.
// What hangs from an observation is shared with its copies: f replaces it
// and does not change it.
func (l *Log) Amend(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// Bytes are what all closed steps sent and received.
func (l *Log) Bytes() (sent, received int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent, l.received
}
