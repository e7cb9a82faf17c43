package judge

import (
	"net/netip"
	"slices"
	"strings"

	"govah/measure"
)

// A dialogue with a mail server is text: it does not change by loss or chance,
// so that two of a kind are enough. But servers differ in all that a device on
// the way could have changed, and many a firewall in front of a mail server
// changes it in its owner's name. So nothing is confirmed by how a dialogue
// looks: it takes a server of which it is known what it says (a helper's
// greeter), shown the same way as the target.

// sign is something in a dialogue that a device on the way could have made.
type sign string

// The signs, worst first. Those of the first group leave the user without
// encryption, those of the second mean that somebody takes part.
const (
	signMissing  sign = "missing"       // STARTTLS is not offered, and refused
	signMasked   sign = "masked"        // a capability of X's in its place
	signRefused  sign = "refused"       // offered, and refused all the same
	signSilence  sign = "unanswered"    // STARTTLS draws nothing, and a harmless command does
	signPreauth  sign = "preauth"       // IMAP says that somebody is logged in
	signUnlisted sign = "unlisted"      // not offered, and accepted all the same
	signLogin    sign = "logindisabled" // the ban on logins in the clear is gone
	signPlain    sign = "plain"         // text in the clear, and no TLS, where TLS begins at once

	signKey          sign = "key"          // not the server's own key
	signEarly        sign = "early"        // text in the clear before the first byte of TLS
	signInjected     sign = "injected"     // what was sent in the clear was executed inside TLS
	signBanner       sign = "banner"       // the greeting is masked, or another one
	signCapabilities sign = "capabilities" // others than the server's own
)

var mailSigns = []sign{signMissing, signMasked, signRefused, signSilence, signPreauth, signUnlisted, signLogin, signPlain, signKey, signEarly, signInjected, signBanner, signCapabilities}

func (s sign) method() measure.Method {
	switch s {
	case signKey, signEarly, signInjected, signBanner, signCapabilities:
		return measure.MailInterception
	}
	return measure.StartTLSStrip
}

// isMail says whether a target's scheme is a mail server's.
func isMail(scheme string) bool {
	switch scheme {
	case "smtp", "smtps", "imap", "imaps", "pop3", "pop3s":
		return true
	}
	return false
}

// offers says whether a list of capabilities has the one for TLS.
func offers(m *measure.Mail) bool {
	if m.Protocol == "pop3" {
		return slices.Contains(m.Before, "STLS")
	}
	return slices.Contains(m.Before, "STARTTLS")
}

// masked says that a word was overwritten, as Cisco's inspection of ESMTP does
// it: X's, of which the last letter may be kept.
func masked(capability string) bool {
	word, _, _ := strings.Cut(capability, " ")
	return len(word) >= 4 && strings.Trim(word[:len(word)-1], "X") == ""
}

// maskedBanner says that a greeting was overwritten with asterisks.
func maskedBanner(greeting string) bool { return strings.Contains(greeting, "****") }

// signs are what a dialogue in the clear shows by itself.
func signs(o *measure.Observation) (out []sign) {
	m := o.Mail
	switch {
	case m.Implicit && m.EarlyBytes == 0:
		return nil
	case m.Implicit && shook(o):
		return []sign{signEarly}
	case m.Implicit:
		return []sign{signPlain}
	}
	if maskedBanner(m.Greeting) {
		out = append(out, signBanner)
	}
	if slices.ContainsFunc(m.Before, masked) {
		out = append(out, signMasked)
	}
	if strings.HasPrefix(strings.ToUpper(m.Greeting), "* PREAUTH") {
		out = append(out, signPreauth)
	}
	if m.EarlyBytes > 0 {
		out = append(out, signEarly)
	}
	switch offered := offers(m); {
	case unanswered(o):
		out = append(out, signSilence)
	case offered && m.StartTLS == "refused":
		out = append(out, signRefused)
	case !offered && m.StartTLS == "ready" && len(m.Before) > 0:
		out = append(out, signUnlisted)
	case !offered && (m.StartTLS == "refused" || m.StartTLS == "later") && !slices.Contains(out, signMasked):
		out = append(out, signMissing)
	}
	return out
}

// unanswered says that a dialogue ended in silence, or was cut off, where
// STARTTLS had been sent.
func unanswered(o *measure.Observation) bool {
	return o.Failure != measure.NoFailure && o.Mail.Unanswered()
}

// deviations are what a greeter's dialogue shows of anything else than what
// the greeter is known to say.
func deviations(o *measure.Observation) []sign {
	m, known := o.Mail, o.Mail.Known
	out := signs(o)
	add := func(s sign) {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if m.Greeting != "" && m.Greeting != known.Greeting && !slices.Contains(out, signPreauth) {
		add(signBanner)
	}
	if m.StartTLS == "later" {
		add(signRefused)
	}
	if m.Key == "other" {
		add(signKey)
	}
	if m.Injected == "executed" {
		add(signInjected)
	}
	if !m.Implicit && len(m.Before) > 0 {
		if slices.Contains(known.Before, "LOGINDISABLED") && !slices.Contains(m.Before, "LOGINDISABLED") {
			add(signLogin)
		}
		plain := func(list []string) []string {
			return slices.DeleteFunc(slices.Clone(list), func(c string) bool {
				return c == "STARTTLS" || c == "STLS" || c == "LOGINDISABLED" || masked(c)
			})
		}
		if !slices.Equal(plain(m.Before), plain(known.Before)) {
			add(signCapabilities)
		}
	}
	return out
}

// shared says whether the target's dialogue shows a greeter's deviation too,
// as far as that can be seen of a server of which it is not known what it says.
func shared(s sign, t, g *measure.Observation) bool {
	switch s {
	case signRefused:
		return slices.Contains(signs(t), s) || offers(t.Mail) && t.Mail.StartTLS == "later"
	case signLogin:
		return len(t.Mail.Before) > 0 && !slices.Contains(t.Mail.Before, "LOGINDISABLED")
	case signKey, signInjected:
		// Many mail servers sign for themselves: it must be the same hand.
		return t.TLS != nil && len(t.TLS.Chain) > 0 && !genuine(t) && g.TLS != nil &&
			(t.TLS.Issuer != "" && t.TLS.Issuer == g.TLS.Issuer || t.TLS.SPKI != "" && t.TLS.SPKI == g.TLS.SPKI)
	case signBanner:
		return slices.Contains(signs(t), signBanner) || t.Mail.Greeting != "" && t.Mail.Greeting == g.Mail.Greeting
	case signCapabilities:
		return len(t.Mail.Before) > 0 && slices.Equal(t.Mail.Before, g.Mail.Before)
	}
	return slices.Contains(signs(t), s)
}

// dialogues are the mail steps about one address of the target.
type dialogues struct {
	at       netip.AddrPort
	tests    []*measure.Observation
	controls []*measure.Observation // at the other port
	helpers  []*measure.Observation // looks of helpers, at the very port
	greeters []*measure.Observation
	// instead are the dialogues, with the target and with greeters, in which a
	// harmless command was in the place of STARTTLS.
	instead []*measure.Observation
}

// spared are those at an address and port in which the harmless command was
// answered: silence there is about STARTTLS.
func (d *dialogues) spared(at string) (out []*measure.Observation) {
	for _, o := range d.instead {
		if o.Remote == at && o.Mail.Instead == "answered" {
			out = append(out, o)
		}
	}
	return out
}

// mail judges the dialogues of a mail server.
func (j *judging) mail() {
	if !isMail(j.scheme) {
		return
	}
	var list []*dialogues
	for _, o := range j.obs {
		at, ok := remote(o)
		if o.Step != measure.StepMail || o.Mail == nil || o.Role != measure.RoleTest || o.Experiment != measure.ExpMail || !ok ||
			int(at.Port()) != j.port || !j.owner[at.Addr()][j.host] || j.disputed(at.Addr()) || ours(o) {
			continue
		}
		i := slices.IndexFunc(list, func(d *dialogues) bool { return d.at == at })
		if i < 0 {
			i = len(list)
			list = append(list, &dialogues{at: at})
		}
		list[i].tests = append(list[i].tests, o)
	}
	for _, d := range list {
		for _, o := range j.obs {
			at, _ := remote(o)
			switch {
			case o.Step != measure.StepMail || o.Mail == nil || o.Mail.Protocol != d.tests[0].Mail.Protocol || ours(o):
			case o.Role == measure.RoleControl && o.ControlKind == measure.ControlHarmless:
				d.instead = append(d.instead, o)
			case o.Experiment == measure.ExpMailGreeter && o.Role == measure.RoleTest && o.Mail.Known != nil && family(o) == family(d.tests[0]):
				d.greeters = append(d.greeters, o)
			case o.Role == measure.RoleHelper && at == d.at:
				d.helpers = append(d.helpers, o)
			case o.Role == measure.RoleControl && o.Experiment == measure.ExpMail && at.Addr() == d.at.Addr():
				d.controls = append(d.controls, o)
			}
		}
		j.dialogues(d)
	}
}

// dialogues judges one address.
func (j *judging) dialogues(d *dialogues) {
	if j.private() {
		j.why[measure.WhyLocalNetwork] = true
		return
	}
	if j.atGreeters(d) {
		return
	}
	spoken := slices.DeleteFunc(slices.Clone(d.tests), func(o *measure.Observation) bool {
		return o.Mail.Greeting == "" && o.Mail.EarlyBytes == 0 || o.Mail.Away
	})
	if len(spoken) == 0 && slices.ContainsFunc(d.tests, func(o *measure.Observation) bool { return o.Mail.Away }) {
		// Many mail servers turn whole networks away.
		j.why[undecided], j.why[measure.WhyServerRefuses] = true, true
		return
	}
	if len(spoken) == 0 {
		// It is not silence that strips; what it is does not show here.
		j.why[undecided], j.why[measure.WhyNoControl] = true, true
		return
	}
	j.byThemselves(d, spoken)
	j.mailCertificate(d, spoken)
	last := spoken[len(spoken)-1]
	switch {
	case unanswered(last) && len(d.spared(last.Remote)) > 0:
		j.why[measure.WhyMailUnanswered] = true
		return
	case !last.Mail.Implicit && last.Mail.StartTLS != "ready":
		j.why[measure.WhyMailUnencrypted] = true
	}
	if last.Failure != measure.NoFailure && !shook(last) && !j.found(measure.StepMail, family(last), "") {
		// The server said yes, and then there was no handshake.
		j.why[undecided], j.why[measure.WhyServerBroken] = true, true
	}
}

// genuine says that a dialogue was with the server itself: by its certificate,
// or by the key that it is known to have.
func genuine(o *measure.Observation) bool { return verified(o.TLS) || o.Mail.Key == "own" }

// shook says that TLS was reached, whatever the certificate.
func shook(o *measure.Observation) bool { return o.TLS != nil && o.TLS.Version != "" }

// count is in how many of a list something is so.
func count(list []*measure.Observation, is func(*measure.Observation) bool) (n int) {
	for _, o := range list {
		if is(o) {
			n++
		}
	}
	return n
}

// mailFinding is a finding of a sign, to be completed.
func (j *judging) mailFinding(s sign, d *dialogues, hits []*measure.Observation) measure.Finding {
	return measure.Finding{Method: s.method(), Interference: measure.InterferenceSuspected, Layer: measure.StepMail, Family: family(d.tests[0]),
		Trigger: measure.Trigger{Kind: "mail-" + string(s)}, Runs: len(d.tests), Hits: len(hits), Because: ids(hits...)}
}

// atGreeters finds what was changed on the way to a helper's greeter, and
// shows at the target as well. It says whether that was so.
func (j *judging) atGreeters(d *dialogues) (found bool) {
	told := map[measure.Method]bool{}
	for _, s := range mailSigns {
		if told[s.method()] {
			continue
		}
		var greeted []*measure.Observation
		for _, g := range d.greeters {
			if slices.Contains(deviations(g), s) && (s != signSilence || len(d.spared(g.Remote)) > 0) {
				greeted = append(greeted, g)
			}
		}
		if len(greeted) == 0 {
			continue
		}
		var hits []*measure.Observation
		for _, t := range d.tests {
			if shared(s, t, greeted[0]) {
				hits = append(hits, t)
			}
		}
		if len(hits) == 0 {
			continue // what the way to the helper does is not done on the way to the target
		}
		if s != signLogin && slices.ContainsFunc(d.helpers, func(h *measure.Observation) bool { return shared(s, h, greeted[0]) }) {
			// From elsewhere the server looks the same: whatever is done to the
			// greeter, the target may be so by itself.
			j.why[undecided], j.why[measure.WhyServerNetwork] = true, true
			continue
		}
		told[s.method()], found = true, true
		f := j.mailFinding(s, d, hits)
		f.Because = append(f.Because, ids(greeted...)...)
		f.Controls = measure.Count{Runs: len(greeted)}
		if s == signSilence {
			spared := append(d.spared(greeted[0].Remote), d.spared(hits[0].Remote)...)
			f.Controls = measure.Count{Runs: len(spared)}
			f.Because = append(f.Because, ids(spared...)...)
		}
		switch {
		case s == signLogin && !slices.ContainsFunc(d.helpers, func(h *measure.Observation) bool {
			return h.Mail != nil && slices.Contains(h.Mail.Before, "LOGINDISABLED")
		}):
			// It may never have forbidden logins in the clear: many do not.
			f.NotExcluded = append(f.NotExcluded, measure.WhyServerNetwork)
		case len(hits) < 2 || len(greeted) < 2:
			f.NotExcluded = append(f.NotExcluded, measure.WhySingleSample)
		case len(hits) < len(d.tests):
			f.NotExcluded = append(f.NotExcluded, measure.WhyIntermittent)
		default:
			f.Interference, f.Proof = measure.InterferenceConfirmed, "greeter"
		}
		if s == signKey && hits[0].TLS != nil {
			j.sign(&f, hits[0], j.host)
		}
		j.add(f)
	}
	return found
}

// byThemselves weighs what the target's dialogues show where no greeter shows
// it: suspicions at most.
func (j *judging) byThemselves(d *dialogues, spoken []*measure.Observation) {
	told := map[measure.Method]bool{}
	nearer := j.nearerThan(d.at)
	for _, s := range mailSigns {
		var hits []*measure.Observation
		for _, t := range spoken {
			if slices.Contains(signs(t), s) {
				hits = append(hits, t)
			}
		}
		if len(hits) == 0 || told[s.method()] {
			continue
		}
		same := slices.ContainsFunc(d.helpers, func(h *measure.Observation) bool { return slices.Contains(signs(h), s) })
		if same {
			continue // so it is from elsewhere too: the server's own doing, or its owner's
		}
		if s == signSilence && len(d.spared(hits[0].Remote)) == 0 {
			continue // nothing is said of STARTTLS
		}
		better := slices.ContainsFunc(d.helpers, func(h *measure.Observation) bool { return h.Mail.Greeting != "" })
		safe := slices.ContainsFunc(hits, func(t *measure.Observation) bool { return t.Failure == measure.NoFailure && genuine(t) })
		switch {
		case s == signBanner && !better && (safe || !slices.Contains(signs(hits[0]), signMissing)):
			continue // nothing follows from it
		case !better && (s == signUnlisted || (s == signPlain || s == signSilence) && len(nearer) == 0 || s == signMissing && !slices.Contains(signs(hits[0]), signBanner) && len(nearer) == 0):
			// Servers without encryption are like that, and nobody else has
			// looked.
			j.why[undecided], j.why[measure.WhyNoHelper] = true, true
			continue
		}
		told[s.method()] = true
		f := j.mailFinding(s, d, hits)
		f.NotExcluded = []measure.Why{measure.WhyServerNetwork}
		f.Because = append(f.Because, nearer...)
		if s == signSilence {
			f.Because = append(f.Because, ids(d.spared(hits[0].Remote)...)...)
		}
		if better {
			f.Because = append(f.Because, ids(d.helpers...)...)
			f.Controls = measure.Count{Runs: len(d.helpers)}
		} else {
			f.NotExcluded = append(f.NotExcluded, measure.WhyNoHelper, measure.WhyLocalNetwork)
		}
		switch {
		case len(hits) < len(spoken):
			f.NotExcluded = append(f.NotExcluded, measure.WhyIntermittent)
		case len(hits) == 1:
			f.NotExcluded = append(f.NotExcluded, measure.WhySingleSample)
		}
		j.add(f)
	}
	if count(spoken, func(t *measure.Observation) bool { return t.Mail.StartTLS == "later" }) > 0 && !told[measure.StartTLSStrip] {
		// A server may lack its certificate for a while, and says so (RFC 3207, 4).
		if !slices.ContainsFunc(d.helpers, func(h *measure.Observation) bool { return h.Mail.StartTLS == "later" }) {
			j.why[undecided], j.why[measure.WhyServerBroken] = true, true
		}
	}
}

// mailCertificate judges a chain that does not prove the server's name.
func (j *judging) mailCertificate(d *dialogues, spoken []*measure.Observation) {
	var bad []*measure.Observation
	for _, t := range spoken {
		if t.TLS != nil && len(t.TLS.Chain) > 0 && t.TLS.Public != "" && !genuine(t) {
			bad = append(bad, t)
		}
	}
	if len(bad) == 0 {
		return
	}
	o := bad[0]
	f := j.mailFinding(signKey, d, bad)
	if j.sign(&f, o, j.host); f.Proof == "signature" {
		j.add(f)
		return
	}
	var good []*measure.Observation
	for _, h := range d.helpers {
		if h.TLS == nil || len(h.TLS.Chain) == 0 {
			continue
		}
		if h.TLS.Chain[0] == o.TLS.Chain[0] {
			j.why[serverSeenBroken] = true
			return
		}
		if verified(h.TLS) {
			good = append(good, h)
		}
	}
	resigned := o.TLS.Public == measure.VerifyUnknownCA && o.TLS.Issuer != "" && o.TLS.Issuer != o.TLS.Subject
	if len(good) > 0 {
		f.Because = append(f.Because, ids(good...)...)
		f.Controls = measure.Count{Runs: len(good)}
		same := count(bad, func(t *measure.Observation) bool { return t.TLS.Issuer == o.TLS.Issuer })
		if resigned && same >= 2 && len(bad) == len(spoken) {
			f.Interference, f.Proof = measure.InterferenceConfirmed, "helper+certificate"
		} else {
			f.NotExcluded = []measure.Why{measure.WhyServerBroken}
		}
		j.add(f)
		return
	}
	if o.TLS.System == measure.VerifiedOK {
		f.NotExcluded = []measure.Why{measure.WhyLocalNetwork}
		j.add(f)
		return
	}
	// The other port of the same server, and whether something nearer than the
	// server answers at this one.
	proven := slices.ContainsFunc(d.controls, genuine)
	if nearer := j.nearerThan(d.at); resigned && len(nearer) > 0 {
		f.Because = append(f.Because, nearer...)
		f.NotExcluded = []measure.Why{measure.WhyServerBroken, measure.WhyNoHelper}
		if proven {
			f.Because = append(f.Because, ids(d.controls...)...)
			f.Controls = measure.Count{Runs: len(d.controls)}
		}
		j.add(f)
		return
	}
	// Self-signed, of an authority of its own, expired, for another name: as
	// many mail servers are.
	j.why[undecided], j.why[measure.WhyServerBroken] = true, true
	if len(d.helpers) == 0 {
		j.why[measure.WhyNoHelper] = true
	}
}

// portAt is the port that o went to.
func portAt(o *measure.Observation) uint16 {
	ap, _ := remote(o)
	return ap.Port()
}

// nearerThan are the probes that show something answering at an address and port
// from much nearer than at another port of the same address.
func (j *judging) nearerThan(at netip.AddrPort) []string {
	lowest := map[measure.Role]*measure.Observation{}
	for _, o := range j.obs {
		if o.Experiment != measure.ExpProxyTTL || o.Path == nil || o.Path.Outcome != "connected" && o.Path.Outcome != "reset" || o.TTL <= 0 {
			continue
		}
		r, ok := remote(o)
		if !ok || r.Addr() != at.Addr() || o.Role == measure.RoleTest && r != at {
			continue
		}
		if x := lowest[o.Role]; x == nil || o.TTL < x.TTL {
			lowest[o.Role] = o
		}
	}
	t, c := lowest[measure.RoleTest], lowest[measure.RoleControl]
	// In the farther half of the path it would be the server's own balancer.
	if t == nil || c == nil || c.TTL-t.TTL < 2 || 2*t.TTL > c.TTL {
		return nil
	}
	missed := count(j.obs, func(o *measure.Observation) bool {
		r, ok := remote(o)
		return ok && r == netip.AddrPortFrom(at.Addr(), portAt(c)) && o.Experiment == measure.ExpProxyTTL && o.Role == measure.RoleControl && o.TTL == t.TTL && o.Path != nil && !ours(o)
	})
	if missed < measure.NearerProbes {
		return nil
	}
	return ids(t, c)
}
