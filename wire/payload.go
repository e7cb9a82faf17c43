package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"govah/measure"
)

// The functions here give the first bytes that a step would send, for probes
// that carry them a part of the way.

// A marker is 16 random bytes by which whoever is the target knows a probe
// again (AskArrived). In a record with a ClientHello it begins the random, after
// the headers of the record and of the message and the version (RFC 8446, 4.1.2).
const (
	markerAt   = 5 + 4 + 2
	markerSize = 16
)

// TLSPayload is one record (RFC 8446, 5.1) with the ClientHello for a server
// name; "" sends none. A marker, unless nil, begins its random.
func TLSPayload(h *Hello, serverName string, marker []byte) ([]byte, error) {
	record, err := helloRecord(h, serverName)
	if err == nil && len(record) >= markerAt+32 {
		copy(record[markerAt:markerAt+32], marker)
	}
	return record, err
}

func helloRecord(h *Hello, serverName string) ([]byte, error) {
	caught := &catcher{}
	if h.kind == "go" {
		c, err := h.client(caught, serverName, nil, nil)
		if err != nil {
			return nil, err
		}
		c.HandshakeContext(context.Background()) // ends at the first read
		return caught.first, nil
	}
	c, err := h.client(caught, serverName, nil, nil)
	if err != nil {
		return nil, err
	}
	msg := c.(*chromeClient).HandshakeState.Hello.Raw
	record := binary.BigEndian.AppendUint16([]byte{22, 3, 1}, uint16(len(msg)))
	return append(record, msg...), nil
}

// HTTPPayload is a GET request as Chrome sends it; the host "" leaves the
// header out. A marker, unless nil, is the value of a cookie.
func HTTPPayload(host, path string, marker []byte) ([]byte, error) {
	r := Request{URL: "http://" + host + path, Method: "GET", Host: host}
	if marker != nil {
		r.Header = []measure.Header{{Name: "Cookie", Value: "id=" + hex.EncodeToString(marker)}}
	}
	if host == "" {
		r.URL, r.NoHost = "http://none.invalid"+path, true
	}
	x, err := r.prepare()
	if err != nil {
		return nil, err
	}
	return x.head1(), nil
}

// DNSPayload is a question of a type (A, AAAA, …) with that id.
func DNSPayload(name, kind string, id uint16) ([]byte, error) {
	msg, err := newQuestion(name, kind)
	if err != nil {
		return nil, err
	}
	msg.Id = id
	return msg.Pack()
}

// QUICPayload is the datagram with the Initial (RFC 9000, 17.2.2) for a server
// name. It offers no post-quantum group, with which it would take two.
func QUICPayload(serverName string) ([]byte, error) {
	caught := &catcher{}
	transport := &quic.Transport{Conn: caught}
	defer transport.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	caught.done = cancel
	transport.Dial(ctx, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), 443)), &tls.Config{
		ServerName: serverName, NextProtos: []string{http3.NextProtoH3}, MinVersion: tls.VersionTLS13, InsecureSkipVerify: true,
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256},
	}, &quic.Config{Versions: []quic.Version{quic.Version1}, DisablePathMTUDiscovery: true})
	if caught.first == nil {
		return nil, fmt.Errorf("wire: no QUIC Initial for %q was made", clip(serverName, 260))
	}
	return caught.first, nil
}

// catcher is a connection, or a datagram socket, to nobody: it keeps what is
// written first.
type catcher struct {
	net.Conn
	first []byte
	done  func()
}

func (c *catcher) Write(b []byte) (int, error) {
	if c.first == nil {
		c.first = bytes.Clone(b)
	}
	return len(b), nil
}

func (c *catcher) WriteTo(b []byte, _ net.Addr) (int, error) {
	defer c.done()
	return c.Write(b)
}

func (c *catcher) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

func (c *catcher) ReadFrom([]byte) (int, net.Addr, error) {
	time.Sleep(10 * time.Millisecond)
	return 0, nil, os.ErrDeadlineExceeded
}

// SetReadBuffer and SetWriteBuffer satisfy quic-go, which complains otherwise.
func (c *catcher) SetReadBuffer(int) error  { return nil }
func (c *catcher) SetWriteBuffer(int) error { return nil }

func (c *catcher) Close() error                     { return nil }
func (c *catcher) LocalAddr() net.Addr              { return &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 1} }
func (c *catcher) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443} }
func (c *catcher) SetDeadline(time.Time) error      { return nil }
func (c *catcher) SetReadDeadline(time.Time) error  { return nil }
func (c *catcher) SetWriteDeadline(time.Time) error { return nil }
