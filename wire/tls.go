package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"govah/measure"
)

// records reads the headers of TLS records as they pass (RFC 8446, 5.1).
type records struct {
	header [7]byte // a record's header and the first two bytes of its content
	have   int     // of header
	skip   int     // content of the record still to come
	valid  bool    // at least one header of TLS was seen
	broken bool    // something else was seen
	alert  int     // description of a plaintext alert plus one, 0 none
	taken  int64   // bytes
}

// maxScanned bounds how much of a connection is scanned, in bytes: plaintext
// records come first.
const maxScanned = 64 << 10

func (r *records) add(b []byte) {
	for len(b) > 0 && !r.broken && r.taken < maxScanned {
		if r.skip > 0 {
			n := min(r.skip, len(b))
			r.skip -= n
			r.taken += int64(n)
			b = b[n:]
			continue
		}
		r.header[r.have] = b[0]
		r.have++
		r.taken++
		b = b[1:]
		length := int(r.header[3])<<8 | int(r.header[4])
		isAlert := r.header[0] == 21 && length == 2
		switch {
		case r.have == 5:
			if r.header[0] < 20 || r.header[0] > 24 || r.header[1] != 3 || length > 1<<14+2048 {
				r.broken = true
				return
			}
			r.valid = true
			if !isAlert {
				r.have, r.skip = 0, length
			}
		case r.have == 7:
			r.alert = int(r.header[6]) + 1
			r.have = 0
		}
	}
}

// HandshakeSpec says how to shake hands.
type HandshakeSpec struct {
	// SNI is the server name sent; "" sends none.
	SNI string
	// Verify is the name to verify the chain for; "" means SNI.
	Verify string
	// Hello is the layout; nil is a fresh "chrome".
	Hello *Hello
	// ALPN nil is the layout's own.
	ALPN []string
	// Timeout is how long the peer may be silent; 0 means max(2 s, 8 RTT),
	// and three times that if it has acknowledged everything.
	Timeout time.Duration
	// Cut spreads the server name over two TCP segments or two TLS records.
	Cut Cut
	// TTL, if set, is that of all segments from the ClientHello on.
	TTL int
}

// Cut says where a ClientHello is cut, in the middle of the server name.
type Cut uint8

// The cuts.
const (
	Whole Cut = iota
	CutSegments
	CutRecords
)

// cutter cuts the first record that is written (RFC 8446, 5.1: a handshake
// message may be spread over records).
type cutter struct {
	net.Conn
	cut  Cut
	name string
	done bool
}

func (c *cutter) Write(b []byte) (int, error) {
	if c.done {
		return c.Conn.Write(b)
	}
	c.done = true
	at := bytes.Index(b, []byte(c.name))
	if c.name == "" || at < 0 || len(b) < 6 {
		return 0, fmt.Errorf("wire: a ClientHello without %q cannot be cut in it", clip(c.name, 260))
	}
	at += len(c.name) / 2
	parts := [][]byte{b[:at], b[at:]}
	if c.cut == CutRecords {
		first := binary.BigEndian.AppendUint16([]byte{b[0], b[1], b[2]}, uint16(at-5))
		first = append(first, b[5:at]...)
		first = binary.BigEndian.AppendUint16(append(first, b[0], b[1], b[2]), uint16(len(b)-at))
		parts = [][]byte{append(first, b[at:]...)}
	}
	if err := writeApart(c.Conn, parts); err != nil {
		return 0, err
	}
	return len(b), nil
}

// TLSConn is a TLS connection. It serves one exchange: Fetch or Bulk.
type TLSConn struct {
	tlsClient
	meter    *meter
	under    Conn
	verified bool
	alpn     string
	hello    []byte
	key      string // SHA-256 of the leaf's public key, in hex
}

// ClientHello is the record with it, as it was sent unless it was cut.
func (c *TLSConn) ClientHello() []byte { return c.hello }

// firstWrite keeps the first bytes written: the record with a ClientHello.
type firstWrite struct {
	net.Conn
	b []byte
}

func (c *firstWrite) Write(b []byte) (int, error) {
	if c.b == nil {
		c.b = bytes.Clone(b)
	}
	return c.Conn.Write(b)
}

// Verified says that the chain proved the name against the public roots, at
// the device's or the estimated time.
func (c *TLSConn) Verified() bool { return c.verified }

// ALPN is the negotiated protocol, "" none.
func (c *TLSConn) ALPN() string { return c.alpn }

// Abort resets the connection below.
func (c *TLSConn) Abort() error { return c.under.Abort() }

// Close says goodbye (close_notify) and closes the connection below.
func (c *TLSConn) Close() error { return c.tlsClient.Close() }

// Handshake does one TLS handshake on conn and verifies what came. It fails
// only on the wire: a certificate that does not verify gives the failure that
// OONI has for it, with the *TLSConn all the same. The connection stays the
// caller's to close if the *TLSConn is nil.
func Handshake(ctx context.Context, l *Log, m Meta, conn Conn, spec HandshakeSpec, trust *Trust) (*TLSConn, *measure.Observation) {
	o := l.Begin(measure.StepTLS, m)
	defer l.End(o)
	setRemote(l, o, addrPort(conn.RemoteAddr()))
	o.SNI, o.TTL = spec.SNI, spec.TTL
	tc, err := handshake(ctx, l, o, conn, spec, trust)
	o.TookUS = l.Since(time.Now()) - o.StartUS
	fail(ctx, o, err)
	stack(l, o, conn)
	return tc, o
}

// handshake fills o with everything of a handshake but its failure.
func handshake(ctx context.Context, l *Log, o *measure.Observation, conn Conn, spec HandshakeSpec, trust *Trust) (*TLSConn, error) {
	t := &measure.TLS{Alert: -1}
	o.TLS = t
	if spec.Hello == nil {
		h, err := NewHello("chrome", time.Now().UnixNano())
		if err != nil {
			return nil, err
		}
		spec.Hello = h
	}
	o.Hello = spec.Hello.kind
	if spec.Verify == "" {
		spec.Verify = spec.SNI
	}
	if spec.TTL != 0 {
		if err := conn.SetTTL(spec.TTL); err != nil {
			return nil, fmt.Errorf("setting the TTL to %d: %w", spec.TTL, err)
		}
	}
	silence, patience := spec.Timeout, spec.Timeout
	if silence == 0 {
		silence = silenceFor(conn)
		patience = 3 * silence
	}
	var (
		raw   [][]byte
		chain []*x509.Certificate
	)
	mt := &meter{Conn: conn}
	var under net.Conn = mt
	if spec.Cut != Whole {
		under = &cutter{Conn: mt, cut: spec.Cut, name: spec.SNI}
	}
	first := &firstWrite{Conn: under}
	client, err := spec.Hello.client(first, spec.SNI, spec.ALPN, func(r [][]byte, c []*x509.Certificate) {
		raw, chain = r, c
	})
	if err != nil {
		return nil, err
	}
	end := mt.begin(ctx, limits{total: max(4*silence, 8*time.Second), silence: silence, patience: patience})
	err = client.HandshakeContext(context.Background())
	end()
	o.Sent, o.Received = mt.sent.Load(), mt.received.Load()
	mt.mu.Lock()
	t.ServerBytes = mt.records.valid
	if mt.records.alert > 0 {
		t.Alert = mt.records.alert - 1
	}
	mt.mu.Unlock()
	if a, ok := alertOf(err); ok {
		t.Alert = a
	}
	proven, certErr := trust.certificates(t, raw, chain, spec.Verify)
	if raw != nil && t.Public != measure.VerifiedOK && t.Public != "" {
		keepChain(l, raw)
	}
	if err != nil {
		if f := classifyCertificate(err); f != "" {
			t.Public = measure.VerifyMalformed // it could not even be parsed
		}
		return nil, err
	}
	s := client.state()
	t.Version, t.Cipher, t.ALPN = tls.VersionName(s.version), tls.CipherSuiteName(s.cipher), text(s.alpn, 64)
	if s.group != 0 {
		t.Group = tls.CurveID(s.group).String()
	}
	t.SCTs = trust.timestamps(chain, s.scts)
	tc := &TLSConn{tlsClient: client, meter: mt, under: conn, verified: proven, alpn: s.alpn, hello: first.b, key: t.SPKI}
	return tc, certErr
}

// metered gives the meter below an exchange and the connection to use for it.
func metered(conn net.Conn) (*meter, net.Conn, error) {
	switch c := conn.(type) {
	case nil:
		return nil, nil, errors.New("wire: no connection")
	case *TLSConn:
		return c.meter, c, nil
	case *meter:
		return c, c, nil
	default:
		m := &meter{Conn: conn}
		return m, m, nil
	}
}
