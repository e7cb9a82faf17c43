package locate

import (
	"context"
	"crypto/rand"
	"math"
	"slices"
	"time"

	"govah/measure"
	"govah/wire"
)

// A helper that is itself the target tells what the far end saw: whether a
// trigger arrived that a device reacted to, which tells a device in the path
// from one beside it, and whether somebody reset its side of a connection,
// which a device that addresses the server alone does unseen by us.

// witnesses is how often a trigger must have been reacted to without arriving
// before it was not loss.
const witnesses = DefaultFarTriggers

// marker makes a probe one that the helper knows again: every trigger, and
// harmless bytes until some were seen to arrive. nil asks nothing.
func (r *run) marker(role measure.Role, ttl int) []byte {
	if r.spec.Helper == "" || r.spec.Payload == Raw || r.deaf || role == measure.RoleControl && (ttl != 0 || r.proof != nil) {
		return nil
	}
	m := make([]byte, 16)
	rand.Read(m) // never fails
	return m
}

// ask asks the helper what came of a connection that was made at a time. It
// is asked before we end the connection: what ended it there was not us. The
// answer belongs to the probe that went farthest.
func (r *run) ask(ctx context.Context, port uint16, marker []byte, made time.Time, list []*measure.Observation) {
	if marker == nil || len(list) == 0 || ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	patience := 2500*time.Millisecond + 8*r.rtt
	r.mu.Unlock()
	var got *measure.HelperArrived
	for range 2 {
		limited, cancel := context.WithTimeout(ctx, patience)
		got, _ = wire.AskArrived(limited, r.n, r.log, wire.Meta{Role: measure.RoleHelper, Stage: measure.StageLocate},
			r.spec.Helper, r.spec.Remote.Addr(), marker, int(port), r.spec.Trust)
		cancel()
		if got != nil || ctx.Err() != nil {
			break
		}
	}
	if got == nil {
		r.deaf = true // what is blocked now may be the helper itself
		return
	}
	far := &measure.Arrival{}
	for i := range got.List {
		// Older ones brought nothing from the same port either.
		if a := &got.List[i]; a.Marked || !far.Marked && a.AgeUS <= time.Since(made).Microseconds() {
			far = a
		}
	}
	farthest := list[0]
	for _, o := range list {
		if orDefault(o.TTL) > orDefault(farthest.TTL) {
			farthest = o
		}
	}
	r.log.Amend(func() {
		p := *farthest.Path
		p.FarEnd = far
		farthest.Path = &p
	})
	if r.proof == nil && far.Marked && farthest.Role == measure.RoleControl {
		r.proof = farthest
	}
}

// cut says that somebody reset the helper's side of a connection whose our
// side was whole.
func cut(o *measure.Observation) bool {
	f := o.Path.FarEnd
	return f != nil && f.Ended == "reset" && (o.Path.Outcome == "expired" || o.Path.Outcome == "silent")
}

// witness lets the trigger go all the way, once a device was found, to learn
// whether it arrives.
func (r *run) witness(ctx context.Context) {
	if r.proof == nil || r.residual != "" && r.residual != measure.ResidualNone && r.residual != measure.Residual4Tuple {
		return
	}
	r.spec.Triggers = r.triggered + max(0, r.spec.FarTriggers)
	for missing := 0; missing < witnesses && r.mayTrigger() && !r.deaf && ctx.Err() == nil; {
		list := r.sweep(ctx, &flow{port: r.newPort()}, measure.RoleTest, 0, 0)
		for _, o := range list {
			r.log.Amend(func() { o.Experiment = measure.ExpFarEnd })
			if f := o.Path.FarEnd; f == nil || f.Marked {
				return
			}
		}
		if len(list) == 0 {
			return
		}
		missing++
	}
}

// witnessed is what the far end saw of triggers that were let go all the way
// and were reacted to.
type witnessed struct {
	arrived, missing int
	reset            bool // its side, and not because ours had ended
}

// witnessed weighs what a helper said, if it is proven to know a probe again.
func (e *evidence) witnessed() (w witnessed) {
	for _, t := range e.sightings {
		f := t.Path.FarEnd
		if e.proof == nil || f == nil || !e.reaches(t) || !e.actedOn(t) {
			continue
		}
		if f.Marked {
			w.arrived++
		} else {
			w.missing++
		}
		w.reset = w.reset || f.Ended == "reset" && (!f.Marked || t.Path.Outcome == "silent")
	}
	return w
}

// word sums it up.
func (w witnessed) word() measure.FarEnd {
	switch {
	case w.arrived > 0 && w.reset:
		return measure.FarArrivedCut
	case w.arrived > 0:
		return measure.FarArrived
	case w.missing > 0 && w.reset:
		return measure.FarCut
	case w.missing > 0:
		return measure.FarNothing
	}
	return ""
}

// onlyServer says that the server's side was reset and ours never: not by a
// trigger that died on the way, nor at once by one that did not.
func (e *evidence) onlyServer() bool {
	any := false
	for _, t := range slices.Concat(e.tests, e.sightings) {
		any = any || e.proof != nil && cut(t)
		if reacted(t) && (!e.reaches(t) || t.Path.Sends < 2 && e.actedOn(t)) {
			return false
		}
	}
	return any
}

// actedOn says that what a trigger met at the far end's distance was not the
// helper's own answer.
func (e *evidence) actedOn(t *measure.Observation) bool {
	return t.Path.Outcome != "answered" && reacted(t) || t.Path.Outcome == "silent" || otherHand(t, e.proof)
}

// otherHand says that an answer is not the one that a helper gave to harmless
// bytes: it gives the same to every name.
func otherHand(t, proof *measure.Observation) bool {
	return proof != nil && t.Path.Outcome == "answered" && (t.Path.Answer != proof.Path.Answer || t.Payload == string(HTTP) && t.Received != proof.Received)
}

// farEnd is the logarithm of the probability of what the far end saw of its
// side of connections, given a device of a kind before the router at a TTL;
// kind -1 is none. A device resets that side always or never.
func (e *evidence) farEnd(kind, link int) float64 {
	always, never, any := 0.0, 0.0, false
	for _, t := range e.tests {
		if e.proof == nil || t.Path.FarEnd == nil || t.Path.Outcome != "expired" && t.Path.Outcome != "silent" {
			continue // what ended our side may have ended the other
		}
		p := stray
		if touched := t.TTL == 0 || t.TTL >= link; touched && kind != atServer || e.reaches(t) {
			p = 1 - e.slip()
		}
		if any = any || cut(t); cut(t) {
			always, never = always+math.Log(p), never+math.Log(stray)
		} else {
			always, never = always+math.Log(1-p), never+math.Log(1-stray)
		}
	}
	share := both
	switch {
	case kind == severer:
		return always
	case kind < 0:
		return never
	case !any:
		return 0 // that it does not tells no place
	case kind == dropper:
		share = bothDropped
	}
	return math.Log(share*math.Exp(always) + (1-share)*math.Exp(never))
}

// both is how often a device that answers us resets the server as well,
// bothDropped how often one that swallows.
const both, bothDropped = 0.5, 0.05

// begins says in a word what an answer begins with: handshake or alert in TLS
// (RFC 8446, 5.1), the status in HTTP/1; "" anything else.
func begins(b []byte) string {
	switch {
	case len(b) >= 3 && b[0] == 0x16 && b[1] == 3:
		return "handshake"
	case len(b) >= 3 && b[0] == 0x15 && b[1] == 3:
		return "alert"
	case len(b) >= 12 && string(b[:7]) == "HTTP/1." && b[8] == ' ':
		for _, c := range b[9:12] {
			if c < '0' || c > '9' {
				return ""
			}
		}
		return string(b[9:12])
	}
	return ""
}
