package lab

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"govah/measure"
)

// Truth is what was really done to a site, for a target, a client and a time.
type Truth struct {
	Target       string   `toml:"target"`  // default: https://name/
	Clients      []string `toml:"clients"` // default: all
	From         string   `toml:"from"`
	Until        string   `toml:"until"`
	Reachable    string   `toml:"reachable"`
	Interference string   `toml:"interference"` // none (default) or confirmed: what was really done
	Methods      []string `toml:"methods"`      // any of these (measure.Method)
	// Unseen: where it is not decidable it leaves no trace at all, and none is
	// what an honest instrument says.
	Unseen  bool     `toml:"unseen"`
	Also    []string `toml:"also"`    // what may be found besides
	Trigger string   `toml:"trigger"` // measure.Trigger.Kind
	Family  string   `toml:"family"`  // ipv4, ipv6
	// Decidable: local (default), helper, or never; what is not decidable
	// must come out as unknown or suspected.
	Decidable string `toml:"decidable"`
	Why       string `toml:"why"` // it is not decidable, in words

	from, until time.Time
	URL         string `toml:"-"`
	Site        *Site  `toml:"-"`
}

func (s *Scenario) checkTruth(t *Site, r *Truth) error {
	r.Site = t
	r.URL = r.Target
	if u, err := url.Parse(r.URL); err != nil || u.Host == "" && r.URL != measure.LineTarget {
		return fmt.Errorf("target %q is no URL", r.URL)
	}
	if r.Interference == "" {
		r.Interference = string(measure.InterferenceNone)
	}
	if r.Decidable == "" {
		r.Decidable = "local"
	}
	if !slices.Contains([]string{"local", "helper", "never"}, r.Decidable) {
		return fmt.Errorf("decidable %q is not local, helper or never", r.Decidable)
	}
	if !slices.Contains([]string{"none", "confirmed"}, r.Interference) {
		return fmt.Errorf("interference %q: what was really done is none or confirmed", r.Interference)
	}
	if !slices.Contains([]string{"", "yes", "no", "partly"}, r.Reachable) {
		return fmt.Errorf("reachable %q is not yes, no or partly", r.Reachable)
	}
	if (r.Interference == "confirmed") != (len(r.Methods) > 0) {
		return errors.New("methods belong to interference = \"confirmed\", and to nothing else")
	}
	for _, m := range slices.Concat(r.Methods, r.Also) {
		if !slices.Contains(methods, measure.Method(m)) {
			return fmt.Errorf("method %q is not known; there are: %s", m, strings.Trim(fmt.Sprint(methods), "[]"))
		}
	}
	if !slices.Contains([]string{"", "ipv4", "ipv6"}, r.Family) {
		return fmt.Errorf("family %q is not ipv4 or ipv6", r.Family)
	}
	for _, c := range r.Clients {
		if s.FindClient(c) == nil {
			return fmt.Errorf("there is no client-network %q", c)
		}
	}
	c := &checker{}
	c.time("from", "its time", r.From, &r.from)
	c.time("until", "its time", r.Until, &r.until)
	return c.err
}

// Applies says whether the row speaks of this client and time.
func (r *Truth) Applies(client string, at time.Time) bool {
	return (len(r.Clients) == 0 || slices.Contains(r.Clients, client)) &&
		(r.from.IsZero() || !at.Before(r.from)) && (r.until.IsZero() || at.Before(r.until))
}

// methods are those that can really have been used.
var methods = []measure.Method{
	measure.DNSInjection, measure.DNSResolverLie, measure.DNSNXDomainLie, measure.DNSDrop, measure.DNSError, measure.DNSInterception,
	measure.DNSDowngrade, measure.DNSSECStrip, measure.ECHStrip, measure.IPDrop, measure.IPReset, measure.IPUnreachable,
	measure.TLSDrop, measure.TLSReset, measure.TLSAlert, measure.TLSInterception, measure.HTTPDrop, measure.HTTPReset,
	measure.HTTPBlockPage, measure.HTTPRedirect, measure.HTTPTamper, measure.HTTPProxy, measure.TCPProxy, measure.QUICDrop,
	measure.Throttle, measure.Freeze, measure.StartTLSStrip, measure.MailInterception, measure.SSHInterception,
	measure.ProtocolFilter, measure.Shutdown, measure.Residual,
}

// Compare holds a verdict against the row. An empty problem means that the
// verdict is right: exact where the row is decidable with what the run had,
// and otherwise not more than the run could know.
func (r *Truth) Compare(v measure.Verdict, withHelpers bool) (problem string) {
	var got []string
	accusing := false
	for _, f := range v.Findings {
		if !f.Method.Benign() {
			// What the house itself does accuses nobody of anything on the line.
			house := r.URL == measure.LineTarget && (f.Scope == measure.ScopeDevice || f.Scope == measure.ScopeLAN)
			accusing = accusing || !house
			got = append(got, string(f.Method))
		}
	}
	said := fmt.Sprintf("said reachable %s, interference %s, %s", v.Reachable, v.Interference, strings.Join(got, " "))
	decidable := r.Decidable == "local" || r.Decidable == "helper" && withHelpers
	if r.Interference == string(measure.InterferenceNone) {
		switch {
		case v.Interference == measure.InterferenceConfirmed:
			return "nothing was done to it; " + said
		case !decidable:
			return ""
		case v.Interference != measure.InterferenceNone || accusing:
			return "nothing was done to it; " + said
		case r.Reachable != "" && string(v.Reachable) != r.Reachable:
			return "it is reachable: " + r.Reachable + "; " + said
		}
		return ""
	}
	// Whatever else is confirmed must have been done as well.
	for _, f := range v.Findings {
		if !f.Method.Benign() && f.Interference == measure.InterferenceConfirmed && !slices.Contains(r.Methods, string(f.Method)) && !slices.Contains(r.Also, string(f.Method)) {
			return "not " + string(f.Method) + ", really " + strings.Join(r.Methods, " or ") + "; " + said
		}
	}
	contrary := r.Reachable == "yes" && v.Reachable == measure.ReachableNo || r.Reachable == "no" && v.Reachable == measure.ReachableYes
	if contrary || decidable && r.Reachable != "" && string(v.Reachable) != r.Reachable {
		return "it is reachable: " + r.Reachable + "; " + said
	}
	if !decidable {
		if v.Interference == measure.InterferenceNone && !r.Unseen {
			return "interfered with by " + strings.Join(r.Methods, " or ") + ", though not decidable here; " + said
		}
		return ""
	}
	if v.Interference != measure.InterferenceConfirmed || !r.hasMethod(v) {
		want := strings.Join(r.Methods, " or ")
		if r.Trigger != "" {
			want += " by " + r.Trigger
		}
		return "really " + want + "; " + said
	}
	return ""
}

// hasMethod says whether a finding names a method that was used, what it is
// triggered by, and, where that is a name, this site's.
func (r *Truth) hasMethod(v measure.Verdict) bool {
	return slices.ContainsFunc(v.Findings, func(f measure.Finding) bool {
		named := f.Trigger.Kind == "sni" || f.Trigger.Kind == "host" || f.Trigger.Kind == "qname"
		return slices.Contains(r.Methods, string(f.Method)) && f.Interference == measure.InterferenceConfirmed &&
			(r.Trigger == "" || f.Trigger.Kind == r.Trigger) && (r.Family == "" || string(f.Family) == r.Family) &&
			(!named || f.Trigger.Value == "" || r.Site == nil || f.Trigger.Value == r.Site.Name)
	})
}
