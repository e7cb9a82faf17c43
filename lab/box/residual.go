package box

import (
	"net/netip"
	"time"

	"govah/packet"
)

// memory is residual blocking in force for one key.
type memory struct{ from, until time.Time }

// keyOf is what a residual rule remembers a packet by.
func (r *rule) keyOf(e *event) packet.FlowKey {
	k := packet.FlowKey{Client: e.client(), Server: e.server(), Proto: e.p.Proto}
	switch r.Residual {
	case "3-tuple":
		k.Client = netip.AddrPortFrom(k.Client.Addr(), 0)
	case "destination":
		k = packet.FlowKey{Server: netip.AddrPortFrom(k.Server.Addr(), 0)}
	case "client":
		k = packet.FlowKey{Client: netip.AddrPortFrom(k.Client.Addr(), 0)}
	}
	return k
}

// remember begins residual blocking. A rule whose acting begins later begins
// to remember when it acts (see engaged).
func (r *rule) remember(e *event) {
	if r.Residual == "" || r.Handshaken || r.Action == "drop-after" {
		return
	}
	from := e.now.Add(r.engage)
	r.memory.Put(r.keyOf(e), memory{from, from.Add(r.keep)}, e.now)
}

// revisited says whether the flow is one that the rule acts on already, so
// that a trigger sent again must not start its time anew.
func (e *event) revisited(r *rule) bool {
	if e.fl == nil {
		return false
	}
	for i := range e.fl.marks {
		if e.fl.marks[i].rule == r {
			return true
		}
	}
	return false
}

// remembered applies residual blocking to a packet, and says whether it has
// been dealt with.
func (f *Filter) remembered(e *event) bool {
	for _, r := range f.rules {
		if r.Residual == "" || r.memory.Len() == 0 {
			continue
		}
		k := r.keyOf(e)
		m := r.memory.Lookup(k, e.now)
		if m == nil || e.now.Before(m.from) {
			continue
		}
		if !e.now.Before(m.until) {
			r.memory.Delete(k)
			continue
		}
		if e.up() && (r.Restart || r.RestartTrigger && f.matches(r, e)) {
			m.until = e.now.Add(r.keep)
		}
		if r.Then == "" && (r.Action == "throttle" || r.Action == "freeze" || r.Action == "reset-replies") {
			e.mark(r)
			continue
		}
		then := r.Then
		if then == "" && r.Action == "reset" {
			then = "reset"
		}
		if then == "reset" && e.p.Proto == packet.TCP {
			if e.up() {
				f.reset(r, e)
			}
			if !r.OnPath {
				return true
			}
			e.done = r
			continue
		}
		if r.side(e.d) {
			return true
		}
	}
	return false
}

// side says whether a rule that drops concerns a direction.
func (r *rule) side(d Direction) bool {
	switch r.Side {
	case "out":
		return d == Out
	case "in":
		return d == In
	}
	return true
}
