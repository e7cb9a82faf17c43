package helper

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net"
	"sync"
	"time"

	"govah/measure"
)

type kind int

const (
	kindOther kind = iota
	kindTLS
	kindHTTP
)

// maxHead is how much of a plain request's head is kept for /echo, in bytes.
const maxHead = 16 << 10

// peeked is a connection whose first bytes were looked at and are read again.
// It belongs to one reader at a time, as net/http uses it.
type peeked struct {
	net.Conn
	local, remote net.Addr
	first         []byte // still to be read
	done          func()

	mu      sync.Mutex
	head    []byte // of the first request, if it is plain HTTP
	keeping bool   // head is not complete yet

	sink  *sink // set if what comes is counted
	entry *swallowed
}

// methods are how plain HTTP begins.
var methods = [][]byte{[]byte("GET "), []byte("HEAD "), []byte("POST "), []byte("PUT "), []byte("OPTIONS "),
	[]byte("DELETE "), []byte("PATCH "), []byte("TRACE "), []byte("CONNECT ")}

// kind reads as many first bytes as it takes to tell what they are.
func (p *peeked) kind() kind {
	buf := make([]byte, 8)
	for len(p.first) < len(buf) {
		n, err := p.Conn.Read(buf[len(p.first):])
		p.first = buf[:len(p.first)+n]
		// A record of type handshake in a version of TLS (RFC 8446, 5.1).
		if len(p.first) >= 2 && p.first[0] == 0x16 && p.first[1] == 3 {
			return kindTLS
		}
		open := false
		for _, m := range methods {
			if bytes.HasPrefix(p.first, m) {
				p.keeping = true
				p.keep(p.first)
				return kindHTTP
			}
			open = open || bytes.HasPrefix(m, p.first)
		}
		if err != nil || !open && !(len(p.first) == 1 && p.first[0] == 0x16) {
			return kindOther
		}
	}
	return kindOther
}

func (p *peeked) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	n, err := p.Conn.Read(b)
	p.keep(b[:n])
	if p.entry != nil {
		p.sink.add(p.entry, b[:n])
	}
	return n, err
}

// count has everything of the connection counted, from its first byte on.
func (p *peeked) count(s *sink) {
	p.sink, p.entry = s, s.open()
	s.add(p.entry, p.first)
}

// keep collects the head of a plain request.
func (p *peeked) keep(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.keeping {
		return
	}
	p.head = append(p.head, b[:min(len(b), maxHead-len(p.head))]...)
	if i := bytes.Index(p.head, []byte("\r\n\r\n")); i >= 0 {
		p.head, p.keeping = p.head[:i+4], false
	}
	p.keeping = p.keeping && len(p.head) < maxHead
}

// takeHead is the head of the connection's first request as it came, once.
func (p *peeked) takeHead() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.head
	p.head, p.keeping = nil, false
	return h
}

func (p *peeked) LocalAddr() net.Addr  { return p.local }
func (p *peeked) RemoteAddr() net.Addr { return p.remote }

func (p *peeked) Close() error {
	err := p.Conn.Close()
	p.done()
	return err
}

// Bounds of the sink.
const (
	sinkBytes  = 64 << 10 // of one connection
	sinkPrefix = 4 << 10  // in which the marker is looked for
	// sinkQuiet lets two retransmissions of what was lost arrive.
	sinkQuiet  = 5 * time.Second
	sinkTime   = 20 * time.Second
	sinkKept   = 256
	sinkMemory = time.Minute
	markerSize = 16 // bytes
)

// sink remembers for a minute how much came on each connection that is not
// TLS and that does not just get a page.
type sink struct {
	mu   sync.Mutex
	list []*swallowed
}

// swallowed is one such connection, perhaps still open.
type swallowed struct {
	at     time.Time
	prefix []byte
	bytes  int64
	hash   hash.Hash
}

func newSink() *sink { return &sink{} }

// open begins to count a connection.
func (s *sink) open() *swallowed {
	e := &swallowed{at: time.Now(), hash: sha256.New()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(e.at)
	if len(s.list) == sinkKept {
		s.list = s.list[1:]
	}
	s.list = append(s.list, e)
	return e
}

// add counts what came, up to the bound.
func (s *sink) add(e *swallowed, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b = b[:min(int64(len(b)), sinkBytes-e.bytes)]
	e.hash.Write(b)
	e.prefix = append(e.prefix, b[:min(len(b), sinkPrefix-len(e.prefix))]...)
	e.bytes += int64(len(b))
}

// take swallows a connection that is neither TLS nor HTTP: it reads until the
// peer ends, is quiet, or has sent enough, and never answers. To a stranger
// it is a server that waits and gives up.
func (s *sink) take(p *peeked) {
	p.count(s)
	end := time.Now().Add(sinkTime)
	buf := make([]byte, 4<<10)
	for {
		quiet := time.Now().Add(sinkQuiet)
		if quiet.After(end) {
			quiet = end
		}
		p.SetReadDeadline(quiet)
		if _, err := p.Read(buf); err != nil || time.Now().After(end) || s.full(p.entry) {
			return
		}
	}
}

func (s *sink) full(e *swallowed) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.bytes == sinkBytes
}

// forget drops what is older than a minute. The caller holds mu.
func (s *sink) forget(now time.Time) {
	i := 0
	for i < len(s.list) && now.Sub(s.list[i].at) > sinkMemory {
		i++
	}
	if i > 0 {
		s.list = append([]*swallowed(nil), s.list[i:]...)
	}
}

// received answers what came with a marker.
func (s *sink) received(req measure.HelperReceivedRequest) (*measure.HelperReceived, error) {
	marker, err := hex.DecodeString(req.Marker)
	if err != nil || len(marker) != markerSize {
		return nil, errBadRequest
	}
	out := &measure.HelperReceived{Schema: 1, Marker: req.Marker}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(time.Now())
	for _, e := range s.list {
		if bytes.Contains(e.prefix, marker) {
			out.Connections++
			out.Bytes, out.SHA256 = e.bytes, hex.EncodeToString(e.hash.Sum(nil))
		}
	}
	return out, nil
}
