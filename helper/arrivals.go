package helper

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"sync"
	"time"

	"govah/measure"
	"govah/wire"
)

// Bounds of what is remembered of connections.
const (
	sinkBytes     = 64 << 10 // counted of one connection
	sinkPrefix    = 4 << 10  // in which the marker of first bytes is looked for
	arrivalsKept  = 1024
	helloKept     = 4 << 10 // of a record with a ClientHello
	arrivalMemory = time.Minute
	markerSize    = 16 // bytes
	maxArrivals   = 16 // in one answer
)

// arrivals remembers for a minute what came on connections: how much, whether
// with which marker, and how the peer ended them. Of those that are neither
// TLS nor just get a page it keeps the beginning too.
type arrivals struct {
	mu   sync.Mutex
	list []*arrival
}

// arrival is one connection, perhaps still open.
type arrival struct {
	at     time.Time
	from   uint64 // the client, as the limiter counts it
	port   int    // the client's
	synTTL int
	bytes  int64
	first  time.Duration // since at
	ended  time.Duration
	how    string
	head   []byte // the record with the ClientHello, or what may become one
	marker []byte

	counted bool // the fields below are kept
	prefix  []byte
	hash    hash.Hash
}

func newArrivals() *arrivals { return &arrivals{} }

// open begins to remember a connection.
func (a *arrivals) open(from uint64, port, synTTL int) *arrival {
	e := &arrival{at: time.Now(), from: from, port: port, synTTL: synTTL}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget(e.at)
	if len(a.list) == arrivalsKept {
		a.list = a.list[1:]
	}
	a.list = append(a.list, e)
	return e
}

// randomAt is where the random of a ClientHello is, after the headers of the
// record and of the message and the version (RFC 8446, 4.1.2).
const randomAt = 5 + 4 + 2

// came notes what a read brought, or that the peer ended the connection.
func (a *arrivals) came(e *arrival, b []byte, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(b) > 0 && e.bytes == 0 {
		e.first = max(1, time.Since(e.at))
	}
	e.begin(b)
	b = b[:min(int64(len(b)), sinkBytes-e.bytes)]
	e.bytes += int64(len(b))
	if e.counted {
		e.keep(b)
	}
	if err == nil || e.how != "" {
		return
	}
	switch f, _ := wire.Classify(err); f {
	case measure.ConnectionReset, measure.ConnectionAborted:
		e.how, e.ended = "reset", time.Since(e.at)
	case measure.EOF:
		e.how, e.ended = "closed", time.Since(e.at)
	}
}

// begin keeps the first record if it is one with a ClientHello, and no more
// than it takes to tell if it is not.
func (e *arrival) begin(b []byte) {
	want := randomAt + markerSize
	if e.marker != nil && len(e.head) >= want {
		want = min(5+int(binary.BigEndian.Uint16(e.head[3:])), helloKept)
	}
	for len(b) > 0 && len(e.head) < want {
		n := min(len(b), want-len(e.head))
		e.head, b = append(e.head, b[:n]...), b[n:]
		if len(e.head) < randomAt+markerSize || e.head[0] != 0x16 || e.head[5] != 1 {
			continue
		}
		if e.marker == nil {
			e.marker = bytes.Clone(e.head[randomAt:][:markerSize])
		}
		want = min(5+int(binary.BigEndian.Uint16(e.head[3:])), helloKept)
	}
}

// count keeps the beginning of a connection, of which these bytes came
// already, and the hash of all.
func (a *arrivals) count(e *arrival, b []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e.counted, e.hash = true, sha256.New()
	e.keep(b)
}

func (e *arrival) keep(b []byte) {
	e.hash.Write(b)
	e.prefix = append(e.prefix, b[:min(len(b), sinkPrefix-len(e.prefix))]...)
}

// mark notes the marker of a plain request.
func (a *arrivals) mark(e *arrival, marker []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if marker != nil {
		e.marker = marker
	}
}

// cookie is the marker in the head of a plain request, nil if there is none.
func cookie(head []byte) []byte {
	_, rest, ok := bytes.Cut(head, []byte("\r\nCookie: id="))
	text, _, end := bytes.Cut(rest, []byte("\r\n"))
	if !ok || !end || len(text) != 2*markerSize {
		return nil
	}
	marker := make([]byte, markerSize)
	if _, err := hex.Decode(marker, text); err != nil {
		return nil
	}
	return marker
}

func (a *arrivals) full(e *arrival) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return e.bytes == sinkBytes
}

// forget drops what is older than a minute. The caller holds mu.
func (a *arrivals) forget(now time.Time) {
	i := 0
	for i < len(a.list) && now.Sub(a.list[i].at) > arrivalMemory {
		i++
	}
	if i > 0 {
		a.list = append([]*arrival(nil), a.list[i:]...)
	}
}

func parseMarker(text string) ([]byte, error) {
	marker, err := hex.DecodeString(text)
	if err != nil || len(marker) != markerSize {
		return nil, errBadRequest
	}
	return marker, nil
}

// received answers what came with a marker of what is counted.
func (a *arrivals) received(req measure.HelperReceivedRequest) (*measure.HelperReceived, error) {
	marker, err := parseMarker(req.Marker)
	if err != nil {
		return nil, err
	}
	out := &measure.HelperReceived{Schema: 1, Marker: req.Marker}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget(time.Now())
	for _, e := range a.list {
		if e.counted && bytes.Contains(e.prefix, marker) {
			out.Connections++
			out.Bytes, out.SHA256 = e.bytes, hex.EncodeToString(e.hash.Sum(nil))
		}
	}
	return out, nil
}

// arrived answers which connections held a marker, and which from a port of
// the asking client brought nothing.
func (a *arrivals) arrived(req measure.HelperArrivedRequest, from uint64) (*measure.HelperArrived, error) {
	marker, err := parseMarker(req.Marker)
	if err != nil {
		return nil, err
	}
	out := &measure.HelperArrived{Schema: 1, Marker: req.Marker, List: []measure.Arrival{}}
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget(now)
	for _, e := range a.list {
		marked := bytes.Equal(e.marker, marker)
		if !marked && (e.bytes > 0 || req.Port == 0 || e.port != req.Port || e.from != from) {
			continue
		}
		if len(out.List) == maxArrivals {
			out.List = out.List[1:]
		}
		x := measure.Arrival{Marked: marked, Port: e.port, Bytes: e.bytes, SYNTTL: e.synTTL,
			FirstUS: e.first.Microseconds(), EndedUS: e.ended.Microseconds(), Ended: e.how, AgeUS: now.Sub(e.at).Microseconds()}
		if req.Hello && marked {
			x.Hello = base64.StdEncoding.EncodeToString(e.head)
		}
		out.List = append(out.List, x)
	}
	return out, nil
}
