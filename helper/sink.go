package helper

import (
	"bytes"
	"net"
	"sync"
	"time"
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

	log   *arrivals
	entry *arrival
}

// methods are how plain HTTP begins.
var methods = [][]byte{[]byte("GET "), []byte("HEAD "), []byte("POST "), []byte("PUT "), []byte("OPTIONS "),
	[]byte("DELETE "), []byte("PATCH "), []byte("TRACE "), []byte("CONNECT ")}

// kind reads as many first bytes as it takes to tell what they are.
func (p *peeked) kind() kind {
	buf := make([]byte, 8)
	for len(p.first) < len(buf) {
		n, err := p.Conn.Read(buf[len(p.first):])
		p.log.came(p.entry, buf[len(p.first):len(p.first)+n], err)
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
	p.log.came(p.entry, b[:n], err)
	p.keep(b[:n])
	return n, err
}

// Write notes that the peer ended the connection while it was answered.
func (p *peeked) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(b)
	if err != nil {
		p.log.came(p.entry, nil, err)
	}
	return n, err
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
		p.log.mark(p.entry, cookie(p.head))
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

// sinkQuiet lets two retransmissions of what was lost arrive.
const (
	sinkQuiet = 5 * time.Second
	sinkTime  = 20 * time.Second
)

// swallow takes a connection that is neither TLS nor HTTP: it reads until the
// peer ends, is quiet, or has sent enough, and never answers. To a stranger
// it is a server that waits and gives up.
func (p *peeked) swallow() {
	p.log.count(p.entry, p.first)
	end := time.Now().Add(sinkTime)
	buf := make([]byte, 4<<10)
	for {
		quiet := time.Now().Add(sinkQuiet)
		if quiet.After(end) {
			quiet = end
		}
		p.SetReadDeadline(quiet)
		if _, err := p.Read(buf); err != nil || time.Now().After(end) || p.log.full(p.entry) {
			return
		}
	}
}
