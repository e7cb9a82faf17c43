// Package exposure counts, by class, what anyone on the path could have read
// of the traffic of the user's own device: from a capture file that the user
// has, never from a network. It gives numbers and yes or no. Names, values,
// addresses and times go into none of its results, and none is kept longer
// than it takes to count it (docs/design/exposure.md).
package exposure

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/netip"
	"strings"
	"time"

	"govah/packet"
)

// MaxOwn is how many addresses may be called one's own: all interfaces of a
// device have so many at most, containers' bridges among them.
const MaxOwn = 256

const (
	maxFlows = 2048    // TCP connections, and as many QUIC ones, known at one time
	maxNames = 1 << 16 // distinct names that are told apart
	idle     = 24 * time.Hour
	maxQUIC  = 32 << 10 // bytes of one QUIC handshake
)

// Counts is what anyone on the path could have read, by class, in connections
// that an own address opened. It is the object of docs/formats/exposure-v1.md.
type Counts struct {
	Type     string `json:"type"`     // exposure
	Schema   int    `json:"schema"`   // 1
	Complete bool   `json:"complete"` // the file was read to its end

	Packets int64 `json:"packets"` // from or to an own address
	Ignored int64 `json:"ignored"` // neither from nor to one
	Unread  int64 `json:"unread"`  // frames without an IP packet
	Cut     int64 `json:"cut"`     // of Packets, those that are not whole in the file, or malformed

	Names     int64 `json:"names"`      // distinct, over all classes
	NamesMore bool  `json:"names_more"` // there were more names than are told apart: counts of names are at least that

	DNS         DNS         `json:"dns"`
	TLS         Hellos      `json:"tls"`
	QUIC        Hellos      `json:"quic"`
	HTTP        HTTP        `json:"http"`
	SMTP        Dialogues   `json:"smtp"`
	IMAP        Dialogues   `json:"imap"`
	POP3        Dialogues   `json:"pop3"`
	FTP         Dialogues   `json:"ftp"`
	Telnet      Dialogues   `json:"telnet"`
	Credentials Credentials `json:"credentials"`
}

// DNS counts questions to port 53, over UDP and TCP, repeated ones too.
type DNS struct {
	Questions int64 `json:"questions"`
	Names     int64 `json:"names"` // distinct
}

// Hellos counts ClientHellos, one a connection.
type Hellos struct {
	Hellos int64 `json:"hellos"`
	Named  int64 `json:"named"` // with a name to read
	Names  int64 `json:"names"` // distinct
	// ECH counts those with Encrypted ClientHello, or with what browsers send
	// to look like it: that cannot be told apart (RFC 9849 6.2).
	ECH int64 `json:"ech"`
}

// HTTP counts what is not in TLS.
type HTTP struct {
	Requests    int64 `json:"requests"`
	Names       int64 `json:"names"`        // distinct hosts, addresses not among them
	CookiesSent int64 `json:"cookies_sent"` // requests with a cookie
	CookiesSet  int64 `json:"cookies_set"`  // responses that set one
}

// Dialogues counts connections of a protocol that begins in the clear.
type Dialogues struct {
	Connections int64 `json:"connections"`
	StartTLS    int64 `json:"starttls"` // of them, those that went on in TLS
}

// Credentials says whether there were any to read, by the way they were sent.
// A digest or a token is one: it can be attacked or used again.
type Credentials struct {
	HTTPBasic  bool `json:"http_basic"`
	HTTPDigest bool `json:"http_digest"`
	HTTPOther  bool `json:"http_other"` // other schemes of Authorization: Bearer, NTLM
	HTTPURL    bool `json:"http_url"`   // in the URL of a request
	HTTPForm   bool `json:"http_form"`  // a field whose name says so
	SMTP       bool `json:"smtp"`
	IMAP       bool `json:"imap"`
	POP3       bool `json:"pop3"`
	FTP        bool `json:"ftp"`    // but anonymous
	Telnet     bool `json:"telnet"` // something was typed after a question for a password
}

// The classes that names are told apart by.
const (
	nameDNS = 1 << iota
	nameTLS
	nameQUIC
	nameHTTP
)

type counter struct {
	*Counts
	own   map[netip.Addr]bool
	flows packet.Table[*flow]
	quic  packet.Table[*quicFlow]
	seed  maphash.Seed
	names map[uint64]uint8 // by their hash alone
}

type quicFlow struct {
	crypto packet.CryptoStream
	hello  helloState
	size   int
	done   bool
}

// helloState is what was counted of one ClientHello.
type helloState struct{ counted, named, ech bool }

// Count reads a capture, pcap or pcapng, either of them also compressed with
// gzip, in bounded memory. own are the device's own addresses. A file that
// breaks off gives an error and what was counted before it; one that is no
// capture gives packet.ErrNotCapture and nothing.
func Count(ctx context.Context, r io.Reader, own []netip.Addr) (*Counts, error) {
	if len(own) == 0 || len(own) > MaxOwn {
		return nil, fmt.Errorf("exposure: %d own addresses; it takes 1 to %d", len(own), MaxOwn)
	}
	in := bufio.NewReaderSize(r, 64<<10)
	if magic, _ := in.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("exposure: reading gzip: %w", err)
		}
		in = bufio.NewReaderSize(z, 64<<10)
	}
	capture, err := packet.NewCaptureReader(in)
	if err != nil {
		return nil, err
	}
	c := &counter{Counts: &Counts{Type: "exposure", Schema: 1}, own: map[netip.Addr]bool{}, seed: maphash.MakeSeed(), names: map[uint64]uint8{}}
	c.flows.Max, c.flows.Idle = maxFlows, idle
	c.quic.Max, c.quic.Idle = maxFlows, idle
	for _, a := range own {
		c.own[a.Unmap().WithZone("")] = true
	}
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return c.Counts, ctx.Err()
		}
		at, raw, err := capture.Next()
		c.Unread = int64(capture.Skipped)
		if errors.Is(err, io.EOF) {
			c.Complete = true
			return c.Counts, nil
		}
		if err != nil {
			return c.Counts, err
		}
		c.packet(at, raw)
	}
}

// packet takes one IP packet. What is neither from nor to an own address is
// not parsed beyond its addresses.
func (c *counter) packet(at time.Time, raw []byte) {
	var src, dst netip.Addr
	switch {
	case raw[0]>>4 == 4 && len(raw) >= 20:
		src, dst = netip.AddrFrom4([4]byte(raw[12:16])), netip.AddrFrom4([4]byte(raw[16:20]))
	case raw[0]>>4 == 6 && len(raw) >= 40:
		src, dst = netip.AddrFrom16([16]byte(raw[8:24])), netip.AddrFrom16([16]byte(raw[24:40]))
	default:
		c.Unread++
		return
	}
	if !c.own[src] && !c.own[dst] {
		c.Ignored++
		return
	}
	c.Packets++
	p, err := packet.Parse(raw)
	switch {
	case errors.Is(err, packet.ErrFragment):
	case err != nil:
		c.Cut++
	case p.Proto == packet.TCP:
		c.tcp(&p, at)
	case p.Proto == packet.UDP && c.own[p.Src] && len(p.Payload) > 0:
		if p.DstPort == 53 {
			c.question(p.Payload)
		} else if p.Payload[0]&0xc0 == 0xc0 {
			c.initial(&p, at)
		}
	}
}

// question counts a DNS query (RFC 1035 4.1.1), no other operation.
func (c *counter) question(b []byte) {
	if len(b) < 12 || b[2]&0xf8 != 0 {
		return
	}
	q, err := packet.ParseQuestion(b)
	if err != nil {
		return
	}
	c.DNS.Questions++
	c.name(nameDNS, q.Name)
}

// initial takes a datagram that may hold a client's QUIC Initial.
func (c *counter) initial(p *packet.Packet, at time.Time) {
	h, err := packet.ParseLongHeader(p.Payload)
	if err != nil || !h.Initial {
		return
	}
	key, slot, forward, found := c.quic.Get(p, at)
	if !forward {
		return
	}
	var f *quicFlow
	if found {
		f = *slot
	} else {
		f = &quicFlow{}
	}
	if f.done {
		return
	}
	hello, err := f.crypto.Add(p.Payload)
	if errors.Is(err, packet.ErrNotQUIC) && !found {
		return
	}
	if !found {
		c.quic.Put(key, f, at)
	}
	c.hello(&f.hello, &c.QUIC, nameQUIC, hello, err)
	if f.size += len(p.Payload); err == nil || f.size > maxQUIC || errors.Is(err, packet.ErrNotTLS) {
		f.done, f.crypto = true, packet.CryptoStream{}
	}
}

// hello counts what can be read of a ClientHello so far. A name is counted as
// soon as it can be read: the rest may never come.
func (c *counter) hello(s *helloState, to *Hellos, class uint8, h *packet.ClientHello, err error) {
	if h == nil {
		return
	}
	if (err == nil || h.SNI != "") && !s.counted {
		s.counted = true
		to.Hellos++
	}
	if h.SNI != "" && !s.named {
		s.named = true
		to.Named++
		c.name(class, h.SNI)
	}
	if (h.ECH || h.ESNI) && s.counted && !s.ech {
		s.ech = true
		to.ECH++
	}
}

// name counts a name where it was not seen before.
func (c *counter) name(class uint8, name string) {
	if name = strings.TrimSuffix(strings.ToLower(name), "."); name == "" {
		return
	}
	hash := maphash.String(c.seed, name)
	seen := c.names[hash]
	switch {
	case seen&class != 0:
		return
	case seen == 0 && len(c.names) >= maxNames:
		c.NamesMore = true
		return
	case seen == 0:
		c.Names++
	}
	c.names[hash] = seen | class
	switch class {
	case nameDNS:
		c.DNS.Names++
	case nameTLS:
		c.TLS.Names++
	case nameQUIC:
		c.QUIC.Names++
	case nameHTTP:
		c.HTTP.Names++
	}
}
