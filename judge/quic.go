package judge

import (
	"slices"
	"strings"

	"govah/measure"
)

// answeredQUIC says whether an authenticating QUIC packet came back.
func answeredQUIC(o *measure.Observation) bool {
	return o.Step == measure.StepQUIC && (o.Failure == measure.NoFailure || o.TLS != nil && o.TLS.ServerBytes)
}

// datagrams judges QUIC: dropped by name, or altogether.
func (j *judging) datagrams() {
	step := measure.StepQUIC
	hit := func(t, _ *measure.Observation) bool { return !answeredQUIC(t) }
	byName := func(t *measure.Observation) string { return canonical(t.SNI) }
	own := j.ask(question{exp: measure.ExpQUICSNI, step: step, passed: answeredQUIC, hit: hit,
		key: func(t *measure.Observation) string { return byName(t) + "\x00" + t.Remote }})
	far := j.ask(question{exp: measure.ExpQUICElsewhere, step: step, passed: answeredQUIC, hit: hit, key: byName})
	for _, s := range own {
		name, at, _ := strings.Cut(s.key, "\x00")
		if s.hits == 0 || j.found(measure.StepQUIC, s.family, name) {
			continue
		}
		j.datagram(name, at, s, seriesOf(far, s.family, name))
	}
	for _, s := range far {
		if s.hits > 0 && !j.found(measure.StepQUIC, s.family, s.key) {
			j.datagram(s.key, "", nil, s)
		}
	}
	j.endpoints()
	j.protocol()
}

// endpoints judges addresses at which QUIC fails under every name, though TLS
// over TCP works there and canaries speak QUIC. Without a helper
// nothing is said: the server may advertise HTTP/3 and not speak it.
func (j *judging) endpoints() {
	type place struct {
		at     string
		failed []*measure.Observation
		ok     bool
	}
	var places []*place
	for _, o := range j.obs {
		if o.Step != measure.StepQUIC || ours(o) || o.Role == measure.RoleCanary || o.Role == measure.RoleHelper || o.Experiment == measure.ExpQUICElsewhere {
			continue
		}
		i := slices.IndexFunc(places, func(p *place) bool { return p.at == o.Remote })
		if i < 0 {
			places = append(places, &place{at: o.Remote})
			i = len(places) - 1
		}
		if answeredQUIC(o) {
			places[i].ok = true
		} else if !screened(o) && j.bracketed(o) {
			places[i].failed = append(places[i].failed, o)
		}
	}
	for _, p := range places {
		if p.ok || len(p.failed) < 3 {
			continue
		}
		first := p.failed[0]
		name := j.nameAt(address(first))
		if name == "" || !j.targets[name] || j.found(measure.StepQUIC, family(first), name) {
			continue
		}
		tcp := slices.ContainsFunc(j.obs, func(o *measure.Observation) bool {
			return o.Step == measure.StepTLS && o.Role == measure.RoleTest && o.Remote == p.at && verified(o.TLS)
		})
		if !tcp {
			continue
		}
		helped := j.reachedBy(measure.StepQUIC, p.at, "")
		if len(helped) == 0 {
			j.why[undecided], j.why[measure.WhyServerRefuses], j.why[measure.WhyNoHelper] = true, true, true
			continue
		}
		f := measure.Finding{Method: measure.QUICDrop, Interference: measure.InterferenceConfirmed, Proof: "pairs+helper", Layer: measure.StepQUIC, Family: family(first),
			Trigger: measure.Trigger{Kind: "transport", Value: name, Control: "tcp"}, Runs: len(p.failed), Hits: len(p.failed),
			Because: append(ids(p.failed...), ids(helped...)...)}
		j.add(f)
	}
}

func (j *judging) datagram(name, at string, own, far *series) {
	main := own
	if main == nil {
		main = far
	}
	p, _ := main.first()
	f := measure.Finding{Method: measure.QUICDrop, Interference: measure.InterferenceSuspected, Layer: measure.StepQUIC, Family: main.family,
		Trigger: measure.Trigger{Kind: "sni", Value: name, Control: canonical(p.c.SNI)},
		Runs:    main.runs, Hits: main.hits, Controls: main.controls, Because: main.because()}
	helped := j.reachedBy(measure.StepQUIC, at, "")
	switch {
	case far != nil && far.sound && far.hits >= 3:
		f.Interference, f.Proof = measure.InterferenceConfirmed, "pairs+elsewhere"
		if far != main {
			f.Because = append(f.Because, far.because()...)
		}
	case own != nil && own.sound && len(helped) > 0:
		f.Interference, f.Proof = measure.InterferenceConfirmed, "pairs+helper"
		f.Because = append(f.Because, ids(helped...)...)
	default:
		f.NotExcluded = []measure.Why{measure.WhyServerRefuses}
		if !main.sound {
			f.NotExcluded = append(f.NotExcluded, measure.WhyFewPairs)
		}
		if len(helped) == 0 {
			f.NotExcluded = append(f.NotExcluded, measure.WhyNoHelper)
		}
	}
	j.add(f)
}

// protocol judges QUIC that fails everywhere while TCP works: a suspicion
// against the network, or a firewall near by.
func (j *judging) protocol() {
	var failed *measure.Observation
	for _, o := range j.obs {
		if o.Step != measure.StepQUIC || o.Role != measure.RoleTest || ours(o) {
			continue
		}
		if answeredQUIC(o) {
			return
		}
		if failed == nil && screened(o) {
			failed = o
		}
	}
	if failed == nil || j.found(measure.StepQUIC, family(failed), "") {
		return
	}
	quicFailed, quicRuns := j.canaryCounts(measure.StepQUIC, family(failed))
	tcpFailed, tcpRuns := j.canaryCounts(measure.StepTCP, family(failed))
	if quicRuns < 3 || quicFailed < quicRuns || tcpRuns == 0 || tcpFailed*2 > tcpRuns {
		return
	}
	f := measure.Finding{Method: measure.QUICDrop, Interference: measure.InterferenceSuspected, Layer: measure.StepQUIC, Family: family(failed),
		Trigger: measure.Trigger{Kind: "protocol", Value: "quic", Control: "tcp"}, Runs: quicRuns, Hits: quicFailed,
		Controls: measure.Count{Runs: tcpRuns, Hits: tcpFailed}, Because: ids(failed), NotExcluded: []measure.Why{measure.WhyLocalNetwork}}
	for _, c := range j.canaries {
		if c.Step == measure.StepQUIC {
			f.Because = append(f.Because, ids(c)...)
		}
	}
	if helped := j.reachedBy(measure.StepQUIC, failed.Remote, ""); len(helped) > 0 {
		f.Interference, f.Proof = measure.InterferenceConfirmed, "canary+helper"
		f.Because = append(f.Because, ids(helped...)...)
	}
	j.add(f)
}
