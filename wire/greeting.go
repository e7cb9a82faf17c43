package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
	"unicode/utf8"

	"govah/measure"
)

// greetingPause is how long nothing may follow what a server has said before
// it counts as all: a greeting may have several lines.
const greetingPause = 500 * time.Millisecond

// Greet waits for what a server says before it is spoken to, as those of ssh,
// ftp and telnet do, and sends nothing. At most limit bytes are read; patience
// is how long the first may take. That nothing comes is the failure
// generic_timeout_error. The connection is the caller's to close.
func Greet(ctx context.Context, l *Log, m Meta, conn Conn, limit int, patience time.Duration) *measure.Observation {
	o := l.Begin(measure.StepGreeting, m)
	defer l.End(o)
	setRemote(l, o, addrPort(conn.RemoteAddr()))
	mt := &meter{Conn: conn}
	end := mt.begin(ctx, limits{total: patience + 4*greetingPause, silence: patience, patience: patience})
	buf, n := make([]byte, limit+1), 0
	var err error
	for n < len(buf) && err == nil {
		var k int
		k, err = mt.Read(buf[n:])
		n += k
		mt.awaiting(greetingPause, greetingPause)
	}
	end()
	o.Received = mt.received.Load()
	o.TookUS = l.Since(time.Now()) - o.StartUS
	o.Greeting = &measure.Greeting{Text: printable(buf[:min(n, limit)]), Bytes: int64(n), Truncated: n > limit}
	if n > 0 && ctx.Err() == nil && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF)) {
		err = nil // it was all
	}
	fail(ctx, o, err)
	return o
}

// printable writes bytes so that nothing in them can act on a screen, and
// nothing is lost: see measure.Greeting.
func printable(b []byte) string {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r != '%' && (r != utf8.RuneError || n > 1) && strconv.IsPrint(r) {
			out = append(out, b[:n]...)
		} else {
			for _, c := range b[:n] {
				out = fmt.Appendf(out, "%%%02X", c)
			}
		}
		b = b[n:]
	}
	return string(out)
}
