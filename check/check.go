// Package check decides which experiments to make, in what order and with
// which controls, makes them with the steps of package wire, and has them
// judged. It concludes nothing itself: where it needs to know whether enough
// has been measured, it asks package judge.
package check

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"govah/judge"
	"govah/known"
	"govah/measure"
	"govah/wire"
)

// CanaryHost is a host that is known to work where nothing interferes. Its
// failures bound the network's own error rate.
type CanaryHost struct {
	Name  string
	Addrs []netip.Addr // bootstrap; resolved where empty
	H3    bool         // answers HTTP/3
}

// DoHServer is an encrypted resolver, the control of the system's.
type DoHServer struct {
	URL   string
	Addrs []netip.Addr
}

// Controls are the third parties that a run contacts besides its targets.
type Controls struct {
	Canaries  []CanaryHost
	DoH       []DoHServer
	Resolvers []netip.AddrPort       // open resolvers on port 53, to tell a lying resolver from a forging path
	Nowhere   []netip.Addr           // addresses at which no resolver runs
	Nobody    []netip.Addr           // addresses at which nobody lives
	Public    []known.PublicResolver // resolvers of known operators
	Whoami    []string               // names that are answered with the address of who asks for them
	Signed    []string               // names with DNSSEC, of different operators
	ECH       []string               // names with ECH keys in their HTTPS record, of different operators
	Captive   string                 // a plain http URL that answers 204
	// SSH are servers whose host keys are published. Those that may be controls
	// are contacted if a target is an SSH server, and not otherwise.
	SSH []known.SSHHost
	// SSHAsOf is the day on which those keys were last compared with what their
	// operators publish.
	SSHAsOf string
}

// Surroundings is what the device knows of its own network.
type Surroundings struct {
	Tunnel, Proxy bool
	Link          string
	Resolvers     []netip.AddrPort // that the system uses
	ASN           int
	Country       string
	Source        string // of ASN and Country
}

// Config is one run.
type Config struct {
	Network wire.Network
	// Trust verifies certificates; its Offset is set by the preflight.
	Trust        wire.Trust
	Surroundings Surroundings
	Controls     Controls
	Helpers      []string // URLs; none is the default in the field
	// ASN finds the AS and country of an address; nil: unknown.
	ASN  func(netip.Addr) (asn int, country string)
	Geo  string // the table's version
	Pace Pace
	// Only IPv4 or only IPv6, both false: whatever works.
	Only4, Only6 bool
	MaxBytes     int64 // 0: no bound
	MaxTriggers  int   // 0: no bound
	Seed         uint64
	Run          string // its id
	// KnownHosts are the keys that the user's known_hosts has of a host and
	// port; nil: there is none.
	KnownHosts func(host string, port int) []measure.HostKey
	// Line adds the measurement of measure.LineTarget.
	Line bool
	// Progress is told what happens; may be nil. Called from many goroutines.
	Progress func(done, suspects, total int)
}

// Result is one target's measurement, what it keeps, and what follows.
type Result struct {
	Measurement *measure.Measurement
	Bodies      []measure.Body
	Verdict     measure.Verdict
}

// Summary is what a run did.
type Summary struct {
	Measured    int
	Sent        int64
	Received    int64
	Triggers    int
	Interrupted bool
	Vantage     measure.Vantage
}

// Estimate is what a run will cost, told before the first packet.
type Estimate struct {
	Contacts []string // third parties by default
	Bytes    int64
	Duration time.Duration
	Triggers int // at most
}

// Plan estimates a run over targets and, with cfg.Line, the line itself. The
// figures are the medians of runs in the lab (docs/design/check.md) times the
// number of targets; a suspect costs more.
func Plan(cfg Config, targets []measure.Target) Estimate {
	n := len(targets)
	ssh := slices.ContainsFunc(targets, func(t measure.Target) bool { return t.Scheme == "ssh" })
	e := Estimate{Bytes: int64(n) * 105_000, Triggers: n * maxPairs}
	if cfg.Line {
		e.Bytes += lineBytes
	}
	for _, h := range cfg.Controls.SSH {
		if h.Control && ssh {
			e.Contacts = append(e.Contacts, "ssh://"+h.Name)
			e.Bytes += sshBytes
		}
	}
	if cfg.MaxTriggers > 0 {
		e.Triggers = min(e.Triggers, cfg.MaxTriggers)
	}
	if cfg.MaxBytes > 0 {
		e.Bytes = min(e.Bytes, cfg.MaxBytes)
	}
	p := cfg.Pace.limits()
	per := time.Second
	if p.flows.perSecond > 0 {
		per = time.Duration(6 / p.flows.perSecond * float64(time.Second))
		e.Duration = per * time.Duration(n)
	} else {
		e.Duration = per * time.Duration(1+n/p.screens)
	}
	if cfg.Line {
		e.Duration += lineTime
	}
	for _, c := range cfg.Controls.Canaries {
		e.Contacts = append(e.Contacts, c.Name)
	}
	for _, d := range cfg.Controls.DoH {
		e.Contacts = append(e.Contacts, d.URL)
	}
	for _, r := range cfg.Controls.Resolvers {
		e.Contacts = append(e.Contacts, r.String())
	}
	for _, a := range cfg.Controls.Nowhere {
		e.Contacts = append(e.Contacts, a.String())
	}
	if cfg.Controls.Captive != "" {
		e.Contacts = append(e.Contacts, cfg.Controls.Captive)
	}
	if !cfg.Line {
		return e
	}
	add := func(text string) {
		if !slices.Contains(e.Contacts, text) {
			e.Contacts = append(e.Contacts, text)
		}
	}
	for _, a := range cfg.Controls.Nobody {
		add(a.String())
	}
	for _, p := range cfg.Controls.Public {
		for _, a := range p.Addrs {
			add(netip.AddrPortFrom(a, 53).String())
		}
	}
	// Resolvers ask these for us; their owners see the resolvers.
	for _, name := range slices.Concat(cfg.Controls.Whoami, cfg.Controls.Signed, cfg.Controls.ECH) {
		add(name)
	}
	return e
}

// runner is one run under way.
type runner struct {
	cfg      Config
	pacer    *pacer
	trust    *wire.Trust
	canaries *canaries
	doh      []*wire.DoH
	vantage  measure.Vantage
	view     measure.View
	v4, v6   bool
	screened int
	confirm  chan struct{}

	randMu sync.Mutex
	rand   *rand.Rand

	triggers atomic.Int64
	bytes    atomic.Int64
	done     atomic.Int64
	suspects atomic.Int64
	keys     keyring
	ssh      sshControls
	helpers  []vantage
	alone    sync.Mutex // held by a throttling test
	// webProxy says whether at a canary something nearer than the server
	// accepts connections to port 80, and redirected whether an address without
	// a resolver answered a harmless question. Both wait until that is known;
	// background is what finds it out.
	webProxy, redirected func() bool
	background           sync.WaitGroup
}

// Run measures every target and hands each result to emit, one at a time, in
// the order they finish. When ctx ends, what is under way is emitted as
// incomplete. The error is emit's, or says why nothing could be measured.
func Run(ctx context.Context, cfg Config, targets []measure.Target, emit func(Result) error) (Summary, error) {
	if len(targets) == 0 && !cfg.Line {
		return Summary{}, errors.New("there is no target to test")
	}
	for _, t := range targets {
		if err := MailAllowed(t, cfg.Helpers); err != nil {
			return Summary{}, err
		}
	}
	trust := cfg.Trust
	r := &runner{
		cfg: cfg, trust: &trust, screened: len(targets),
		pacer: newPacer(cfg.Pace),
		view:  cfg.Network.View(),
		rand:  rand.New(rand.NewPCG(cfg.Seed, 0x676f766168)),
	}
	limits := cfg.Pace.limits()
	r.confirm = make(chan struct{}, limits.confirms)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.preflight(ctx)
	defer func() {
		for _, d := range r.doh {
			d.Close()
		}
	}()

	var (
		mu      sync.Mutex
		summary = Summary{Vantage: r.vantage}
		failed  error
	)
	deliver := func(res Result) {
		mu.Lock()
		defer mu.Unlock()
		summary.Measured++
		summary.Sent += res.Measurement.BytesSent
		summary.Received += res.Measurement.BytesReceived
		if failed == nil {
			if failed = emit(res); failed != nil {
				cancel()
			}
		}
	}
	order := make([]int, len(targets))
	for i := range order {
		order[i] = i
	}
	if limits.shuffle {
		r.rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	screens := make(chan struct{}, limits.screens)
	var wg sync.WaitGroup
	if cfg.Line {
		wg.Go(func() {
			j := r.newJob(measure.Target{URL: measure.LineTarget, Scheme: "line"}, fmt.Sprintf("m%d", len(targets)+1))
			deliver(j.runLine(ctx))
		})
	}
	if len(targets) > 0 {
		r.rehearse(ctx)
	}
	for _, i := range order {
		select {
		case screens <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil || r.overBudget() {
			summaryInterrupted(&mu, &summary)
			break
		}
		wg.Go(func() {
			j := r.newJob(targets[i], fmt.Sprintf("m%d", i+1))
			release := sync.OnceFunc(func() { <-screens })
			defer release()
			deliver(j.run(ctx, release))
			r.done.Add(1)
			r.progress()
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		summaryInterrupted(&mu, &summary)
	}
	r.background.Wait()
	s, v := r.canaries.bytes()
	summary.Sent += s
	summary.Received += v
	summary.Triggers = int(r.triggers.Load())
	return summary, failed
}

func summaryInterrupted(mu *sync.Mutex, s *Summary) {
	mu.Lock()
	s.Interrupted = true
	mu.Unlock()
}

func (r *runner) progress() {
	if r.cfg.Progress != nil {
		r.cfg.Progress(int(r.done.Load()), int(r.suspects.Load()), r.screened)
	}
}

func (r *runner) overBudget() bool {
	return r.cfg.MaxBytes > 0 && r.bytes.Load() >= r.cfg.MaxBytes
}

// spend takes n triggers from the budget; false when it is used up.
func (r *runner) spend(n int) bool {
	if r.cfg.MaxTriggers == 0 {
		r.triggers.Add(int64(n))
		return true
	}
	if r.triggers.Add(int64(n)) > int64(r.cfg.MaxTriggers) {
		r.triggers.Add(int64(-n))
		return false
	}
	return true
}

func (r *runner) asn(a netip.Addr) int {
	if r.cfg.ASN == nil {
		return 0
	}
	n, _ := r.cfg.ASN(a)
	return n
}

func (r *runner) asnText(s string) int {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return 0
	}
	return r.asn(a)
}

// randomName is a name of the same length as name, under no known domain,
// that nothing can list: the control of a name.
func (r *runner) randomName(name string) string {
	r.randMu.Lock()
	defer r.randMu.Unlock()
	return RandomName(r.rand, name)
}

// job is one target under way.
type job struct {
	r        *runner
	target   measure.Target
	log      *wire.Log
	m        *measure.Measurement
	hello    *wire.Hello
	stage    measure.Stage // of the visit under way: screen, or isolate when it is made again
	brackets map[string]measure.Observation
	// background is what the verdict waits for and no step does.
	background sync.WaitGroup
	// nowhere4 and nowhere6 count the answers to the line's question from
	// addresses without a resolver.
	nowhere4, nowhere6 atomic.Int32

	mu       sync.Mutex
	suspects []suspect
	helped   bool
	greeters []greeter
	names    map[string]*resolution
	genuine  map[string]bool // authority reached with authenticated content
}

func (r *runner) newJob(t measure.Target, id string) *job {
	log := wire.NewLog(time.Now(), r.asnText)
	log.Label = wire.LabelOf(id)
	j := &job{
		r: r, target: t, stage: measure.StageScreen,
		log:      log,
		brackets: map[string]measure.Observation{},
		names:    map[string]*resolution{},
		genuine:  map[string]bool{},
		m: &measure.Measurement{
			Type: "measurement", Schema: 1, Run: r.cfg.Run, ID: id, Target: t.URL, Category: t.Category,
			Started: r.trust.Now().UTC().Format("2006-01-02T15:04:05.000000Z"),
			Vantage: r.vantage, View: r.view, Screened: r.screened,
		},
	}
	return j
}

// run screens the target, confirms what is suspicious, and judges. screened
// is called when the cheap pass is over, so that the next target may start.
func (j *job) run(ctx context.Context, screened func()) Result {
	j.screen(ctx)
	if len(j.suspects) > 0 && ctx.Err() == nil {
		j.r.suspects.Add(1)
		j.r.progress()
		screened()
		select {
		case j.r.confirm <- struct{}{}:
			j.confirm(ctx)
			<-j.r.confirm
		case <-ctx.Done():
		}
		j.r.suspects.Add(-1)
	}
	j.background.Wait()
	m := j.snapshot()
	m.Complete = ctx.Err() == nil
	j.r.bytes.Add(m.BytesSent + m.BytesReceived)
	bodies := j.log.Bodies()
	return Result{Measurement: m, Bodies: bodies, Verdict: judgeWith(m, bodies)}
}

func judgeWith(m *measure.Measurement, bodies []measure.Body) measure.Verdict {
	return judge.Judge(judge.Input{Measurement: m, Bodies: func(sha string) ([]byte, bool) {
		for _, b := range bodies {
			if b.SHA256 == sha {
				return b.Data, true
			}
		}
		return nil, false
	}})
}

// snapshot is the measurement as far as it has come.
func (j *job) snapshot() *measure.Measurement {
	m := *j.m
	m.Observations = j.log.Observations()
	j.mu.Lock()
	for _, o := range j.brackets {
		m.Observations = append(m.Observations, o)
	}
	j.mu.Unlock()
	sort.SliceStable(m.Observations, func(a, b int) bool {
		x, y := &m.Observations[a], &m.Observations[b]
		if x.StartUS != y.StartUS {
			return x.StartUS < y.StartUS
		}
		return x.ID < y.ID
	})
	m.Canaries = j.r.canaries.tallies()
	m.ElapsedMS = time.Since(j.log.Started()).Milliseconds()
	m.BytesSent, m.BytesReceived = j.log.Bytes()
	return &m
}

// verdict judges what there is so far.
func (j *job) verdict() measure.Verdict { return judgeWith(j.snapshot(), j.log.Bodies()) }
