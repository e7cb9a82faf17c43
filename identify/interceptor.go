package identify

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"govah/known"
	"govah/measure"
)

// The payloads of interceptors that no form of a name is tried on.
const (
	Mail = "mail"
	SSH  = "ssh"
)

// shown are the properties of what answers in another's place, in the order of
// reports; those before the bar are alike wherever the same thing stands, and
// make its id.
var shown = struct{ core, more []string }{
	[]string{"issuer", "leaf-key", "aia", "sct", "version", "software", "via", "mask"},
	[]string{"issuer-key", "days", "tls", "alpn", "name", "exit", "added", "server", "page", "greeting", "host-key"},
}

// Bounds on what a file of others can make of one interceptor.
const (
	maxShown     = 200 // bytes of a value
	maxAnswers   = 512 // observations read
	maxWitnesses = 8   // observations named for a property
	copiedNames  = 2   // of a row's confidence: a name that this system does not trust can be anybody's
)

// stranger gathers what something that answers in another's place shows of
// itself.
type stranger struct {
	table       *Table
	id          *measure.Identification
	said        map[string]map[string][]string // by property and value, the observations
	operators   map[string]map[string]bool     // of resolvers that show a property's value
	claims      []claim
	authorities []claim
}

// Interceptors says of what a verdict confirmed to answer in another's place
// what it is, one of each payload: by who signs, by the headers that it adds and
// the pages that it makes, by what it calls itself in DNS, mail and SSH. It
// reads the measurement's own observations, and nothing more is sent.
func (t *Table) Interceptors(m *measure.Measurement, v *measure.Verdict) (out []*measure.Identification) {
	byID := map[string]*measure.Observation{}
	for i := range m.Observations {
		byID[m.Observations[i].ID] = &m.Observations[i]
	}
	list := map[string]*stranger{}
	for i := range v.Findings {
		f := &v.Findings[i]
		payload := interceptedBy(f.Method)
		if payload == "" || f.Interference != measure.InterferenceConfirmed {
			continue
		}
		s := list[payload]
		if s == nil {
			s = &stranger{table: t, said: map[string]map[string][]string{}, operators: map[string]map[string]bool{}, id: &measure.Identification{Type: "identification", Schema: 1, Rules: Rules,
				Run: m.Run, Measurement: m.ID, Target: m.Target, Family: f.Family, Payload: payload, Trigger: f.Trigger, Method: f.Method}}
			list[payload] = s
		}
		if s.id.Family != f.Family {
			s.id.Family = ""
		}
		s.take(m, f, byID)
	}
	for _, payload := range slices.Sorted(maps.Keys(list)) {
		if s := list[payload]; len(s.said) > 0 || m.Target == measure.LineTarget {
			s.conclude()
			if !m.Complete {
				s.id.Unknown = append(s.id.Unknown, measure.WhyInterrupted)
			}
			out = append(out, s.id)
		}
	}
	return out
}

// interceptedBy is the payload of a method by which somebody answers in
// another's place; "" if none does, or it says nothing (tcp-proxy).
func interceptedBy(m measure.Method) string {
	switch m {
	case measure.TLSInterception:
		return TLS
	case measure.HTTPProxy, measure.HTTPTamper:
		return Web
	case measure.DNSInterception:
		return Naming
	case measure.MailInterception, measure.StartTLSStrip:
		return Mail
	case measure.SSHInterception:
		return SSH
	}
	return ""
}

// Intercepts says whether a method is one of which Interceptors tells: no name
// triggers it.
func Intercepts(m measure.Method) bool { return interceptedBy(m) != "" }

// take reads what a finding rests on, and what else was asked of the same.
func (s *stranger) take(m *measure.Measurement, f *measure.Finding, byID map[string]*measure.Observation) {
	for _, id := range f.Because {
		o := byID[id]
		if o == nil || o.Role == measure.RoleHelper || o.Failure == measure.Interrupted {
			continue
		}
		switch s.id.Payload {
		case TLS:
			s.certificate(o, f)
		case Mail:
			s.mail(o, f)
		case SSH:
			s.ssh(o, f)
		}
	}
	if s.id.Payload != Web && s.id.Payload != Naming {
		return
	}
	for i := range m.Observations[:min(len(m.Observations), maxAnswers)] {
		o := &m.Observations[i]
		if f.Family != "" && o.Family != "" && o.Family != f.Family || o.Role != measure.RoleTest {
			continue
		}
		if s.id.Payload == Web {
			port := "80"
			if f.Trigger.Kind == "port" {
				port = f.Trigger.Value
			}
			s.web(o, byID[o.Control], port)
		} else {
			s.resolver(o, byID[o.Control])
		}
	}
}

// bounded is foreign text as it is kept.
func bounded(text string) string {
	return strings.TrimSpace(strings.ToValidUTF8(text[:min(len(text), maxShown)], ""))
}

// say notes what an observation shows.
func (s *stranger) say(o *measure.Observation, property, value string) {
	if value = bounded(value); value == "" {
		return
	}
	if s.said[property] == nil {
		s.said[property] = map[string][]string{}
	}
	if !slices.Contains(s.said[property][value], o.ID) {
		s.said[property][value] = append(s.said[property][value], o.ID)
	}
}

// signatures takes the products that rows name in an answer of its own.
func (s *stranger) signatures(o *measure.Observation, matches []measure.Match) {
	for _, m := range matches {
		if m.Kind != "product" && m.Kind != "blockpage" {
			continue // what servers send by themselves
		}
		if c, ok := claimOf(s.table.signatures, m.Row, o.ID); ok {
			s.claims = append(s.claims, c)
		}
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// certificate reads a chain that no public root verifies.
func (s *stranger) certificate(o *measure.Observation, f *measure.Finding) {
	t := o.TLS
	if t == nil || len(t.Chain) == 0 || t.Public == measure.VerifiedOK || t.PublicEstimated == measure.VerifiedOK || t.Issuer == "" {
		return
	}
	if f.Issuer != "" && t.Issuer != f.Issuer {
		return // a control's own
	}
	s.say(o, "issuer", t.Issuer)
	if len(t.Signers) > 0 {
		s.say(o, "issuer-key", t.Signers[0].AKI)
	}
	s.say(o, "leaf-key", t.Key)
	if t.Key != "" { // older files do not tell the rest either
		s.say(o, "aia", yes(t.AIA))
	}
	if t.SCTs != nil {
		s.say(o, "sct", yes(t.SCTs.Embedded+t.SCTs.Beside > 0))
	}
	if days := (t.NotAfterS - t.NotBeforeS) / (24 * 3600); days > 0 {
		s.say(o, "days", strconv.FormatInt(days, 10))
	}
	s.say(o, "tls", t.Version)
	s.say(o, "alpn", t.ALPN)
	r, how, ok := known.InterceptionRoot(t)
	if f.Match != nil && f.Match.How != "" {
		// The verdict knows the certificates too.
		how = f.Match.How
		if i := slices.IndexFunc(known.Roots(), func(x known.Root) bool { return x.ID == f.Match.Row }); i >= 0 {
			r, ok = known.Roots()[i], true
		}
	}
	if !ok {
		return
	}
	c := claim{o.ID, r.ID, r.Product, r.Vendor, r.Country, r.Source, r.Confidence}
	switch {
	case how == measure.HowSignature:
		c.confidence = 10
	case (how == measure.HowName || how == measure.HowFamily) && !f.Trusted:
		c.confidence -= copiedNames
	}
	if c.product == "" {
		c.product = r.Name
		s.authorities = append(s.authorities, c)
		return
	}
	s.claims = append(s.claims, c)
}

// web reads what stands for plain HTTP: its own answers where nobody lives and
// to lines that no server understands, and what it adds to others'.
func (s *stranger) web(o, c *measure.Observation, port string) {
	h := o.HTTP
	if h == nil || !strings.HasSuffix(o.Remote, ":"+port) || h.Status == 0 {
		return
	}
	headers := h.Headers
	own := o.Experiment == measure.ExpNobody || o.Experiment == measure.ExpOdd
	switch {
	case own:
		s.say(o, "page", strings.TrimSpace(strconv.Itoa(h.Status)+" "+h.Title))
		s.signatures(o, h.Matches)
	case o.Experiment == measure.ExpEcho, o.Experiment == measure.ExpPlain, o.Experiment == measure.ExpFresh:
		if c == nil || c.HTTP == nil || c.HTTP.Status == 0 {
			return
		}
		headers = lacking(headers, c.HTTP.Headers)
		if h.Seen != nil && h.Sent != nil {
			added := lacking(h.Seen.Headers, h.Sent.Headers)
			if c.HTTP.Seen != nil {
				added = lacking(added, c.HTTP.Seen.Headers) // its owner's, in front of the helper
			}
			var names []string
			for _, a := range added {
				names = append(names, strings.ToLower(a.Name))
			}
			slices.Sort(names)
			s.say(o, "added", strings.Join(slices.Compact(names), " "))
			headers = append(slices.Clone(headers), added...)
		}
	default:
		return
	}
	for _, x := range headers {
		switch strings.ToLower(x.Name) {
		case "via":
			s.say(o, "via", x.Value)
		case "server":
			s.say(o, "server", x.Value)
		}
	}
	s.signatures(o, s.table.signatures.Match(known.Evidence{Headers: headers}))
}

// lacking are the headers whose names others lack.
func lacking(list, others []measure.Header) (out []measure.Header) {
	for _, h := range list {
		if !slices.ContainsFunc(others, func(x measure.Header) bool { return strings.EqualFold(x.Name, h.Name) }) {
			out = append(out, h)
		}
	}
	return out
}

// resolver reads what answers on port 53 calls itself, and whence it asks.
func (s *stranger) resolver(o, c *measure.Observation) {
	d := o.DNS
	if d == nil || len(d.Replies) == 0 || d.Replies[0].Rcode != "NOERROR" || d.Operator == "" {
		return
	}
	for _, a := range d.Replies[0].Answers {
		property, value := "", strings.Trim(a.Value, `"`)
		switch {
		case o.Experiment == measure.ExpOperator && a.Type == "TXT" && strings.EqualFold(strings.TrimSuffix(d.Name, "."), "version.bind"):
			property = "version"
		case o.Experiment == measure.ExpOperator && a.Type == "TXT" && !d.Expected:
			property = "name"
		case o.Experiment == measure.ExpExit && a.ASN != 0 && c != nil:
			property, value = "exit", "AS"+strconv.Itoa(a.ASN)
		default:
			continue
		}
		value = bounded(value)
		if s.say(o, property, value); s.operators[property+value] == nil {
			s.operators[property+value] = map[string]bool{}
		}
		s.operators[property+value][d.Operator] = true
		return
	}
}

// mail reads what was written over in a dialogue, and who signs.
func (s *stranger) mail(o *measure.Observation, f *measure.Finding) {
	if o.Mail == nil || o.Role != measure.RoleTest {
		return
	}
	s.certificate(o, f)
	s.say(o, "greeting", o.Mail.Greeting)
	said := []string{o.Mail.Greeting}
	for _, c := range o.Mail.Before {
		if word, _, _ := strings.Cut(c, " "); len(word) >= 4 && strings.Trim(word[:len(word)-1], "X") == "" {
			s.say(o, "mask", word)
			said = append(said, word)
		}
	}
	for _, text := range said {
		s.signatures(o, s.table.signatures.Match(known.Evidence{Greeting: text}))
	}
}

// ssh reads what a server that is not the one that is known calls itself.
func (s *stranger) ssh(o *measure.Observation, f *measure.Finding) {
	if o.SSH == nil || o.Role != measure.RoleTest || o.SSH.Identification == "" {
		return
	}
	s.say(o, "software", o.SSH.Identification)
	s.say(o, "host-key", strings.TrimSpace(o.SSH.KeyType+" "+o.SSH.Fingerprint))
	s.signatures(o, s.table.signatures.Match(known.Evidence{Greeting: o.SSH.Identification}))
}

// conclude ranks what was claimed.
func (s *stranger) conclude() {
	id := s.id
	if id.Payload == Naming {
		// Each of the resolvers that it stands for may have answered by itself;
		// what those of two operators say is its own.
		for _, name := range []string{"version", "name", "exit"} {
			maps.DeleteFunc(s.said[name], func(value string, _ []string) bool { return len(s.operators[name+value]) < 2 })
			if len(s.said[name]) == 0 {
				delete(s.said, name)
			}
		}
		for text, by := range s.said["version"] {
			s.signatures(&measure.Observation{ID: by[0]}, s.table.signatures.Match(known.Evidence{Greeting: text}))
		}
	}
	var parts []string
	for _, name := range slices.Concat(shown.core, shown.more) {
		value, by := mostSaid(s.said[name])
		if value == "" {
			continue
		}
		id.Properties = append(id.Properties, measure.Property{Name: name, Value: value, Because: by[:min(len(by), maxWitnesses)]})
		if slices.Contains(shown.core, name) {
			parts = append(parts, name+"="+value)
		}
	}
	if len(parts) > 0 {
		sum := sha256.Sum256([]byte(id.Payload + "\n" + strings.Join(parts, "\n")))
		id.Cluster = fmt.Sprintf("%s-%s", id.Payload, hex.EncodeToString(sum[:4]))
	}
	// The order of claims is that of the observations, whatever was read first.
	slices.SortStableFunc(s.claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(len(a.id), len(b.id)), cmp.Compare(a.id, b.id), cmp.Compare(a.row, b.row))
	})
	id.Products, id.Behaviours = ranked(s.claims), ranked(s.authorities)
	switch {
	case len(id.Products) > 0:
		id.Outcome = measure.ProductNamed
	case len(id.Behaviours) > 0:
		id.Outcome = measure.BehaviourKnown
	default:
		id.Outcome = measure.UnknownDevice
	}
}

// mostSaid is the value that most observations show, the first in order of
// those that as many do.
func mostSaid(values map[string][]string) (value string, by []string) {
	for _, v := range slices.Sorted(maps.Keys(values)) {
		if len(values[v]) > len(by) {
			value, by = v, values[v]
		}
	}
	return value, by
}
