package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"govah/measure"
)

// sampleInterval is the resolution of a timed transfer.
const sampleInterval = 100 * time.Millisecond

// maxSamples bounds what a timed transfer records: 5 minutes.
const maxSamples = 3000

// Bulk times the download of up to limit bytes of one answer's body for up to
// limitTime. It ends without a failure when either is reached. Nothing for
// stall ends it with a time-out.
func Bulk(ctx context.Context, l *Log, m Meta, conn net.Conn, r Request, limit int64, limitTime, stall time.Duration) *measure.Observation {
	o := l.Begin(measure.StepStream, m)
	defer l.End(o)
	o.HTTP = &measure.HTTP{}
	s := &measure.Stream{IntervalUS: sampleInterval.Microseconds()}
	o.Stream = s
	if limit <= 0 {
		limit = 1 << 20
	}
	if limitTime <= 0 {
		limitTime = 30 * time.Second
	}
	if stall <= 0 {
		stall = 4 * time.Second
	}
	// What counts are bytes on the path, and their number must be ours to
	// choose: no coding, and an HTTP/2 window that leaves the limit to us.
	r.Header = append(append([]measure.Header(nil), r.Header...), measure.Header{Name: "Accept-Encoding", Value: "identity"})
	r.MaxBody, r.Stall = limit, stall
	r.Timeout = limitTime
	var first, last time.Time
	err := transfer(ctx, l, o, conn, r, func(a *answer) error {
		buf := make([]byte, 32<<10)
		first = time.Now()
		last = first
		for s.Bytes < limit {
			n, err := a.body.Read(buf)
			now := time.Now()
			if n > 0 {
				if s.Bytes == 0 {
					first = now
				}
				last = now
				s.Bytes += int64(n)
				if i := int(now.Sub(first) / sampleInterval); i < maxSamples {
					for len(s.Samples) <= i {
						s.Samples = append(s.Samples, 0)
					}
					s.Samples[i] += int64(n)
				}
			}
			if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if took := last.Sub(first); took > 0 {
		s.BitsPerSecond = s.Bytes * 8 * 1e6 / max(took.Microseconds(), 1)
	}
	o.HTTP.BodyBytes = s.Bytes
	if err == nil {
		return o
	}
	if f, _ := Classify(err); f == measure.GenericTimeout && s.Bytes > 0 {
		silent := time.Since(last)
		if silent < stall && ctx.Err() == nil {
			return o // the time was up while bytes still came
		}
		s.StalledUS = silent.Microseconds()
	}
	fail(ctx, o, err)
	return o
}
