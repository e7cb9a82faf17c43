package check

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"time"

	"govah/measure"
	"govah/wire"
)

// firstBytes tests for a protocol filter: first packets of the target's kind
// of protocol are sent to a helper next to a TLS ClientHello, and the helper
// is asked what came of them. Both carry a marker of their own.
func (j *job) firstBytes(ctx context.Context, s suspect) {
	if len(j.r.helpers) == 0 {
		return
	}
	j.pairs(ctx, s, canaryKey{step: measure.StepTLS, family: s.family}, func(k int) bool { return k >= 6 }, func(ctx context.Context, k int) outcome {
		v := j.r.helpers[k%len(j.r.helpers)]
		var at netip.AddrPort
		for _, a := range v.addrs {
			if wire.FamilyOf(a) == s.family {
				at = netip.AddrPortFrom(a, v.port)
			}
		}
		if !at.IsValid() {
			return outcome{}
		}
		send := func(meta wire.Meta, payload string) *measure.Observation {
			var marker [16]byte
			rand.Read(marker[:])
			first := j.opening(payload, marker[:])
			conn, o := j.connect(ctx, wire.Meta{Role: meta.Role, Stage: meta.Stage}, at.Addr(), int(at.Port()), 0, 0)
			if conn == nil {
				return o
			}
			meta.After = o.ID
			o = j.log.Begin(measure.StepStream, meta)
			o.Remote, o.Family, o.Payload = at.String(), s.family, payload
			conn.SetDeadline(time.Now().Add(3 * time.Second))
			// Two packets: a filter may want to see more than one (IR-18).
			n, err := conn.Write(first)
			if err == nil && wire.Sleep(ctx, 300*time.Millisecond) == nil {
				var m int
				m, err = conn.Write(first)
				n += m
			}
			o.Sent = int64(n)
			if err == nil {
				err = wire.Sleep(ctx, 1500*time.Millisecond)
			}
			o.Failure, o.Detail = wire.Classify(err)
			conn.Close()
			got, _ := wire.AskReceived(ctx, j.r.cfg.Network, j.log, wire.Meta{Role: measure.RoleHelper, Stage: meta.Stage}, v.url, hex.EncodeToString(marker[:]), j.r.trust)
			if got != nil {
				o.Stream = &measure.Stream{Bytes: got.Bytes}
				if o.Failure == measure.NoFailure && got.Bytes < int64(2*len(first)) {
					o.Failure = measure.GenericTimeout // it did not arrive
				}
			}
			j.log.End(o)
			return o
		}
		c := send(wire.Meta{Role: measure.RoleControl, Stage: measure.StageConfirm, Experiment: measure.ExpFirstBytes, Pair: k, ControlKind: measure.ControlKnown}, "http")
		t := send(wire.Meta{Role: measure.RoleTest, Stage: measure.StageConfirm, Experiment: measure.ExpFirstBytes, Pair: k, Differs: []string{"payload"}}, "unknown")
		j.log.Link(t, c.ID)
		return outcome{control: c.Failure == measure.NoFailure && c.Stream != nil, hit: t.Failure != measure.NoFailure}
	})
}

// opening is a first packet of a kind, with a marker, always of one length.
func (j *job) opening(kind string, marker []byte) []byte {
	const length = 160
	var b []byte
	if kind == "http" {
		b = append(b, "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 512\r\n\r\n"...)
	} else {
		b = append(b, "\x80\x01\x02\x03\x04\x05\x06\x07"...)
	}
	b = append(b, marker...)
	for len(b) < length {
		b = append(b, 0xa5)
	}
	return b
}

// helperPlain fetches a helper's fixed body over plain HTTP under the target's
// Host: what differs from its known hash was changed on the way.
func (j *job) helperPlain(ctx context.Context, addr netip.Addr) {
	for _, v := range j.r.helpers {
		for _, a := range v.addrs {
			if wire.FamilyOf(a) != wire.FamilyOf(addr) {
				continue
			}
			meta := wire.Meta{Role: measure.RoleTest, Stage: measure.StageScreen, Experiment: measure.ExpPlain}
			for _, port := range []int{80, int(v.port)} {
				conn, o := j.connect(ctx, wire.Meta{Role: meta.Role, Stage: meta.Stage}, a, port, 0, 0)
				if conn == nil {
					continue
				}
				meta.After = o.ID
				wire.Fetch(ctx, j.log, meta, conn, wire.Request{URL: "http://" + j.target.Host + "/plain", Method: "GET", Host: j.target.Host, MaxBody: 16 << 10, Timeout: fetchTimeout, Stall: stallTimeout})
				conn.Abort()
				break
			}
			return
		}
	}
}
