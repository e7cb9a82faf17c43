//lint:file-ignore SA1019 http.Transport speaks HTTP/2 only on a *tls.Conn that it or crypto/tls made; ours is uTLS's.

package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/http2"

	"govah/measure"
)

// DoH is an encrypted resolver (RFC 8484). Its questions share one HTTP/2
// connection, which is opened when it is needed and again when it is lost. It
// is safe for concurrent use.
type DoH struct {
	n     Network
	url   *url.URL
	addrs []netip.Addr
	port  uint16
	trust *Trust
	hello *Hello
	h2    http2.Transport

	turn   chan struct{} // holds one token: the right to connect
	mu     sync.Mutex
	live   *dohConn
	next   int // of addrs
	closed bool
}

type dohConn struct {
	client *http2.ClientConn
	tls    *TLSConn
	remote netip.AddrPort
	// What has been counted in observations, and how many questions are under way.
	sent, received int64
	active         int64
}

// NewDoH prepares a resolver at a URL whose host is reached at addrs. Nothing
// is sent yet. Its certificate must verify against trust.Public: an encrypted
// resolver is worth nothing otherwise.
func NewDoH(n Network, rawURL string, addrs []netip.Addr, trust *Trust) (*DoH, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("wire: %q is not the https URL of a resolver", clip(rawURL, 200))
	}
	if len(addrs) == 0 {
		if a, err := netip.ParseAddr(u.Hostname()); err == nil {
			addrs = []netip.Addr{a}
		} else {
			return nil, fmt.Errorf("wire: no address for the resolver %s; give at least one", u.Hostname())
		}
	}
	port := uint64(443)
	if p := u.Port(); p != "" {
		if port, err = strconv.ParseUint(p, 10, 16); err != nil || port == 0 {
			return nil, fmt.Errorf("wire: the resolver %q has no valid port", clip(rawURL, 200))
		}
	}
	if u.Path == "" {
		u.Path = "/dns-query"
	}
	hello, err := NewHello("chrome", time.Now().UnixNano())
	if err != nil {
		return nil, err
	}
	d := &DoH{n: n, url: u, addrs: addrs, port: uint16(port), trust: trust, hello: hello, turn: make(chan struct{}, 1)}
	d.h2.MaxHeaderListSize = maxHeaderBytes
	d.h2.DisableCompression = true
	return d, nil
}

// URL is the resolver's.
func (d *DoH) URL() string { return d.url.String() }

// Ask asks one question. All waiting, connecting included, ends at timeout
// (6 s if 0).
func (d *DoH) Ask(ctx context.Context, l *Log, m Meta, name, qtype string, timeout time.Duration) *measure.Observation {
	return d.Put(ctx, l, m, Question{Name: name, Type: qtype, Timeout: timeout})
}

// Put is Ask with what else a question can say; its Server and Transport are
// the resolver's own.
func (d *DoH) Put(ctx context.Context, l *Log, m Meta, q Question) *measure.Observation {
	o := l.Begin(measure.StepDNS, m)
	defer l.End(o)
	q.Transport = "https"
	o.DNS = q.record(d.url.String())
	if q.Timeout <= 0 {
		q.Timeout = 6 * time.Second
	}
	limited, cancel := context.WithTimeout(ctx, q.Timeout)
	defer cancel()
	err := d.ask(limited, l, o, q)
	o.TookUS = l.Since(time.Now()) - o.StartUS
	fail(ctx, o, err)
	if err == nil {
		o.Failure = firstFailure(o.DNS)
	}
	return o
}

func (d *DoH) ask(ctx context.Context, l *Log, o *measure.Observation, q Question) error {
	msg, err := q.message()
	if err != nil {
		return err
	}
	msg.Id = 0 // RFC 8484, 4.1
	packed, err := msg.Pack()
	if err != nil {
		return fmt.Errorf("packing the question for %q: %w", clip(q.Name, 260), err)
	}
	for attempt := 0; ; attempt++ {
		c, fresh, err := d.connection(ctx, l, o)
		if err != nil {
			return err
		}
		setRemote(l, o, c.remote)
		d.mu.Lock()
		c.active++
		d.mu.Unlock()
		reply, at, err := d.exchange(ctx, c, packed)
		d.count(o, c)
		if err == nil {
			if !answers(msg, reply) {
				return errors.New("the resolver's message does not answer the question")
			}
			o.DNS.Replies = []measure.DNSReply{recordReply(l, reply, at, 0)}
			return nil
		}
		var status *statusError
		if errors.As(err, &status) {
			return err
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			return err // who asked wants no answer; others on the connection do
		}
		// A connection that was lost while it lay idle says nothing about
		// this question; one that was opened for it does.
		d.drop(c)
		if fresh || attempt > 0 || ctx.Err() != nil {
			return err
		}
	}
}

type statusError struct{ status string }

func (e *statusError) Error() string { return "the resolver answered with HTTP status " + e.status }

func (d *DoH) exchange(ctx context.Context, c *dohConn, packed []byte) (*dns.Msg, time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url.String(), bytes.NewReader(packed))
	if err != nil {
		return nil, time.Time{}, err
	}
	req.Header.Set("Content-Type", "application/dns-message")
	req.Header.Set("Accept", "application/dns-message")
	req.Header.Set("User-Agent", chromeAgent)
	resp, err := c.client.RoundTrip(req)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 65536))
	at := time.Now()
	if resp.StatusCode != http.StatusOK {
		return nil, at, &statusError{text(resp.Status, 60)}
	}
	if err != nil {
		return nil, at, err
	}
	reply := new(dns.Msg)
	if err := reply.Unpack(body); err != nil {
		return nil, at, &statusError{"200 and an unreadable message"}
	}
	return reply, at, nil
}

// connection is the live connection, or a new one.
func (d *DoH) connection(ctx context.Context, l *Log, o *measure.Observation) (c *dohConn, fresh bool, err error) {
	if c := d.usable(); c != nil {
		return c, false, nil
	}
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	defer func() { <-d.turn }()
	if c := d.usable(); c != nil { // another question has opened it meanwhile
		return c, false, nil
	}
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, false, net.ErrClosed
	}
	d.mu.Unlock()
	for range d.addrs {
		c, err = d.connect(ctx, l, o, netip.AddrPortFrom(d.address(err != nil), d.port))
		// A family that this device does not have costs nothing to find out.
		if failure, _ := Classify(err); err == nil || failure != measure.NetworkUnreachable {
			break
		}
	}
	if err != nil {
		d.address(true) // the next question tries the next address
		return nil, true, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		c.client.Close()
		return nil, true, net.ErrClosed
	}
	d.live = c
	return c, true, nil
}

// address is the one to connect to, or, if that failed, the next.
func (d *DoH) address(failed bool) netip.Addr {
	d.mu.Lock()
	defer d.mu.Unlock()
	if failed {
		d.next++
	}
	return d.addrs[d.next%len(d.addrs)]
}

func (d *DoH) usable() *dohConn {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live != nil && d.live.client.CanTakeNewRequest() {
		return d.live
	}
	return nil
}

// connect opens a connection; what it costs is counted in o.
func (d *DoH) connect(ctx context.Context, l *Log, o *measure.Observation, remote netip.AddrPort) (*dohConn, error) {
	setRemote(l, o, remote)
	conn, err := dial(l.About(ctx, o), d.n, ConnectSpec{Remote: remote})
	if err != nil {
		return nil, err
	}
	host := d.url.Hostname()
	sni := host
	if _, err := netip.ParseAddr(host); err == nil {
		sni = ""
	}
	// Handshake's own record would look like one of the target's.
	var shake measure.Observation
	tc, err := handshake(ctx, l, &shake, conn, HandshakeSpec{SNI: sni, Verify: host, Hello: d.hello}, d.trust)
	o.Sent += shake.Sent
	o.Received += shake.Received
	o.SNI, o.Hello, o.TLS = sni, shake.Hello, shake.TLS
	switch {
	case err == nil && !tc.verified:
		err = &certificateError{outcome: measure.VerifyUnknownCA, err: errors.New("no public root to verify the resolver's certificate with")}
	case tc != nil && tc.verified:
		err = nil // perhaps only at the estimated time
		if tc.alpn != "h2" {
			err = errors.New("the resolver does not speak HTTP/2")
		}
	}
	if err != nil {
		conn.Abort()
		return nil, err
	}
	c := &dohConn{tls: tc, remote: remote, sent: shake.Sent, received: shake.Received}
	if c.client, err = d.h2.NewClientConn(tc); err != nil {
		conn.Abort()
		return nil, err
	}
	return c, nil
}

// count adds to o its share of what the connection carried and nobody has
// counted yet: that of one of the questions under way. The sum over all
// questions is exact.
func (d *DoH) count(o *measure.Observation, c *dohConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	sent := (c.tls.meter.sent.Load() - c.sent) / c.active
	received := (c.tls.meter.received.Load() - c.received) / c.active
	o.Sent += sent
	o.Received += received
	c.sent += sent
	c.received += received
	c.active--
}

// drop forgets a connection. It is closed when the questions that are still
// under way on it have ended.
func (d *DoH) drop(c *dohConn) {
	d.mu.Lock()
	if d.live == c {
		d.live = nil
	}
	d.mu.Unlock()
	c.client.SetDoNotReuse()
	if s := c.client.State(); s.StreamsActive+s.StreamsReserved+s.StreamsPending == 0 {
		c.client.Close()
	}
}

// Close closes the connection.
func (d *DoH) Close() {
	d.mu.Lock()
	c := d.live
	d.live, d.closed = nil, true
	d.mu.Unlock()
	if c != nil {
		c.client.Close()
	}
}
