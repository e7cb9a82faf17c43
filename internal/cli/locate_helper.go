package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"govah/check"
	"govah/locate"
	"govah/measure"
	"govah/wire"
)

// checkHelper says whether what is looked for can be looked for on the way to
// a helper, and sets the run's helpers: that one or none.
func (o *locateOptions) checkHelper(t measure.Target, payload locate.Payload) error {
	switch {
	case o.helper == "":
		o.helpers = []string{"none"}
		return nil
	case payload == locate.DNS || payload == locate.TCP || payload == locate.Connect || payload == locate.Resolver:
		return usage("it goes with --payload tls, http or quic, or with the helper's mail server as the target", "a helper is a web server: nothing is learned from it with the payload %s", payload)
	case o.address != "":
		return usage("leave --address out: the path is followed to the helper", "--helper and --address exclude each other")
	case o.helper == "lab" && o.lab == "":
		return usage("give the URL that `govah helper` printed", "--helper lab needs --lab")
	case o.helper == "lab":
		return nil // the lab's own
	}
	if err := check.ParseHelper(o.helper); err != nil {
		return usage("run `govah helper` to get one", "%v", err)
	}
	o.helpers = []string{o.helper}
	if payload == locate.Mail {
		return ownGreeter(t, o.helper)
	}
	return nil
}

// atHelper is what to look for on the way to the run's first helper.
func (s *search) atHelper(ctx context.Context, log *wire.Log, t measure.Target, payload locate.Payload) (locate.Spec, error) {
	addr, port, err := s.helperAddress(ctx, log)
	if err != nil {
		return locate.Spec{}, err
	}
	answers := func(port uint16) bool {
		conn, _ := wire.Connect(ctx, s.cfg.Network, log, wire.Meta{Role: measure.RoleControl, Stage: measure.StagePreflight},
			wire.ConnectSpec{Remote: netip.AddrPortFrom(addr, port), Timeout: 3 * time.Second})
		if conn != nil {
			conn.Abort()
		}
		return conn != nil
	}
	// A helper takes plain requests at any port; devices look at 80.
	other := uint16(80)
	if open := answers(80); !open {
		other = 0
	} else if payload == locate.HTTP {
		port, other = 80, port
	}
	spec := s.towards(netip.AddrPortFrom(addr, port), t, payload)
	if spec.OtherPort = other; other == port {
		spec.OtherPort = 0
	}
	if payload != locate.QUIC {
		spec.Helper, spec.Trust = s.cfg.Helpers[0], &s.cfg.Trust
	}
	return spec, nil
}

// backFrom is the way back from a greeter of a helper.
func (s *search) backFrom(helper, protocol string, at netip.AddrPort) *locate.BackSpec {
	host, _, err := check.HelperHost(helper)
	if err != nil {
		return nil
	}
	return &locate.BackSpec{Remote: at, Protocol: protocol, Name: host, Helper: helper, Trust: &s.cfg.Trust, Seed: s.cfg.Seed}
}

// ownGreeter says whether a mail server to follow the way back from is on the
// helper's own host: nobody else can be asked to send anything.
func ownGreeter(t measure.Target, helper string) error {
	host, _, err := check.HelperHost(helper)
	if err != nil {
		return err
	}
	if host = strings.TrimSuffix(host, "."); strings.EqualFold(host, strings.TrimSuffix(t.Host, ".")) {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		host = "[" + host + "]"
	}
	return usage("try: govah locate "+t.Scheme+"://"+clean(host)+" --helper URL", "a helper tells what becomes of the words of its own mail greeter, not of those of %s", clean(t.Host))
}

// helperAddress is where the run's first helper is reached.
func (s *search) helperAddress(ctx context.Context, log *wire.Log) (addr netip.Addr, port uint16, err error) {
	if len(s.cfg.Helpers) == 0 {
		return addr, 0, hint(errors.New("this emulated internet has no helper"), "leave --helper out")
	}
	host, port, err := check.HelperHost(s.cfg.Helpers[0])
	if err != nil {
		return addr, 0, err // it was parsed before
	}
	addr, ok := s.pick(check.Resolve(ctx, *s.cfg, log, host))
	if !ok {
		return addr, 0, hint(fmt.Errorf("no address of the helper %s was found", clean(host)), "give its URL with a numeric address")
	}
	return addr, port, nil
}

// atGreeter is what to look for on the way to a greeter of the run's first
// helper.
func (s *search) atGreeter(ctx context.Context, log *wire.Log, t measure.Target) (locate.Spec, error) {
	addr, port, err := s.helperAddress(ctx, log)
	if err == nil {
		err = ownGreeter(t, s.cfg.Helpers[0])
	}
	spec := s.towards(netip.AddrPortFrom(addr, 0), t, locate.Mail)
	spec.OtherPort, spec.Greeter = port, true
	return spec, err
}

// back follows the way back after the way out, if there is one to follow and
// nobody was found who ends connections in the server's place: who does says
// everything himself. Where the way out was not the one to the greeter it is
// asked first who ends connections there.
func (s *search) back(ctx context.Context, log *wire.Log, spec *locate.BackSpec, out locate.Spec) error {
	if spec == nil || ctx.Err() != nil || someoneEnds(log) {
		return nil
	}
	if _, port, err := check.HelperHost(spec.Helper); err == nil && out.Remote != spec.Remote {
		who := locate.Spec{Remote: spec.Remote, Payload: locate.Connect, OtherPort: port, Greeter: true, Pace: out.Pace, PaceAsk: out.PaceAsk, Seed: out.Seed}
		if err := locate.Run(ctx, s.cfg.Network, log, who); err != nil || someoneEnds(log) {
			return err
		}
	}
	return locate.Back(ctx, s.cfg.Network, log, *spec)
}

// someoneEnds says whether somebody was found who ends connections.
func someoneEnds(log *wire.Log) bool {
	return slices.ContainsFunc(locate.Infer(&measure.Measurement{Observations: log.Observations()}, nil), func(l measure.Location) bool { return l.Kind == measure.Terminates })
}

// greeterOf is the greeter at which a finding was proven to be about altered
// words, and the helper's host; none if it was not.
func greeterOf(f measure.Finding, byID map[string]*measure.Observation) (at netip.AddrPort, host string) {
	if f.Proof != "greeter" {
		return at, ""
	}
	switch f.Trigger.Kind {
	case "mail-missing", "mail-unlisted", "mail-masked", "mail-banner", "mail-logindisabled", "mail-capabilities":
	default:
		return at, ""
	}
	for _, id := range f.Because {
		o := byID[id]
		if o == nil || o.Experiment != measure.ExpMailGreeter || o.Mail == nil || o.Mail.Known == nil || o.Mail.Implicit {
			continue
		}
		if at, err := netip.ParseAddrPort(o.Remote); err == nil {
			return at, o.Host
		}
	}
	return at, ""
}

// backOf is the way back that a finding asks for; nil if none.
func (s *search) backOf(f *found) *locate.BackSpec {
	if f.payload != locate.Mail || !f.greeter.IsValid() {
		return nil
	}
	for _, h := range s.cfg.Helpers {
		if host, _, err := check.HelperHost(h); err == nil && host == f.helper {
			return s.backFrom(h, f.target.Scheme, f.greeter)
		}
	}
	return nil
}
