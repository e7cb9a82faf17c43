package exposure

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"govah/packet"
)

const (
	maxBehindGap = 16 << 10 // bytes of one connection behind a gap
	maxPending   = 20 << 10 // a ClientHello that has not ended
	maxLine      = 8 << 10  // longer lines are read in part
	maxFirst     = 512      // a dialogue's first line
	maxPiece     = 4 << 10  // what is taken at one time
	maxStep      = 256      // by which a form grows before it is searched again
)

// protocol is what a connection is taken for, by what its client writes.
type protocol uint8

const (
	undecided protocol = iota
	overTLS
	dnsTCP
	http
	smtp
	imap
	pop3
	ftp
	telnet
	done // nothing more can be read, or nothing was
)

// flow is one TCP connection that an own address opened. It holds what is not
// yet counted of it, and forgets it then.
type flow struct {
	is      protocol
	port    uint16 // the server's
	first   uint32 // the sequence number of the client's first byte
	client  packet.Stream
	pending []byte // in order, not yet read
	hello   helloState

	skip  int64 // bytes of a body or literal to come
	drop  bool  // up to the end of the line
	web   webState
	talk  talkState
	greet []byte // how the server began
}

// tcp takes one segment.
func (c *counter) tcp(p *packet.Packet, at time.Time) {
	key, slot, forward, found := c.flows.Get(p, at)
	seq := p.Seq
	if p.Flags&packet.SYN != 0 {
		seq++
		if p.Flags&packet.ACK == 0 {
			if !c.own[p.Src] {
				// Opened by somebody else: what they write is theirs.
				if found {
					c.flows.Delete(key)
				}
				return
			}
			if !found || !forward || (*slot).first != seq {
				if found {
					c.flows.Delete(key)
				}
				key = packet.FlowKey{Client: p.Source(), Server: p.Destination(), Proto: p.Proto}
				slot, forward, found = c.flows.Put(key, newFlow(p.DstPort, seq), at), true, true
			}
		}
	}
	if len(p.Payload) == 0 {
		return
	}
	if !found {
		// The capture began in the middle of it, or it was forgotten.
		if !c.own[p.Src] || !beginning(p.Payload) {
			return
		}
		slot, forward = c.flows.Put(key, newFlow(p.DstPort, seq), at), true
	}
	f := *slot
	switch {
	case f.is == done:
	case forward:
		c.fromClient(f, seq, p.Payload)
	default:
		c.fromServer(f, seq, p.Payload)
	}
}

func newFlow(port uint16, seq uint32) *flow {
	f := &flow{port: port, first: seq, client: packet.Stream{Limit: maxBehindGap}}
	f.client.Start(seq)
	return f
}

// beginning says whether a segment without a known connection is how a client
// begins: only what cannot be mistaken.
func beginning(b []byte) bool {
	if len(b) > 5 && b[0] == 22 && b[1] == 3 {
		return b[5] == 1
	}
	r, err := packet.ParseRequest(b)
	return err == nil && r != nil
}

// end forgets what was kept of a connection.
func (f *flow) end() {
	*f = flow{is: done, port: f.port, first: f.first}
}

func (c *counter) fromClient(f *flow, seq uint32, data []byte) {
	for len(data) > 0 && f.is != done {
		piece := data[:min(len(data), maxPiece)]
		grew := f.client.Add(seq, piece)
		if f.client.Full {
			// More is missing than is waited for.
			f.client = packet.Stream{Limit: maxBehindGap}
			f.client.Start(seq)
			f.lost()
			grew = f.client.Add(seq, piece)
		}
		if grew {
			b := f.client.Take()
			f.pending = append(f.pending, b...)
			f.client.Data = b[:0]
			c.read(f)
		}
		seq, data = seq+uint32(len(piece)), data[len(piece):]
	}
}

// lost goes on behind bytes that are not in the capture.
func (f *flow) lost() {
	f.pending, f.skip = f.pending[:0], 0
	switch f.is {
	case http:
		f.web = webState{resync: true, answered: f.web.answered, next: f.web.next}
	case smtp, imap, pop3, ftp:
		f.drop, f.talk.sasl = true, false
	case telnet:
	default:
		f.end()
	}
}

// read takes what it can of what is pending.
func (c *counter) read(f *flow) {
	for len(f.pending) > 0 {
		before, is := len(f.pending), f.is
		switch f.is {
		case undecided:
			c.decide(f)
		case overTLS:
			h, err := packet.ParseClientHelloStream(f.pending)
			c.hello(&f.hello, &c.TLS, nameTLS, h, err)
			if !errors.Is(err, packet.ErrMore) || len(f.pending) > maxPending {
				f.end()
			}
		case dnsTCP:
			// Messages behind their length (RFC 1035 4.2.2).
			if len(f.pending) < 2 {
				return
			}
			switch n := int(binary.BigEndian.Uint16(f.pending)); {
			case n > maxLine:
				f.end()
			case len(f.pending) >= 2+n:
				c.question(f.pending[2 : 2+n])
				f.take(2 + n)
			}
		case telnet:
			if f.talk.asked && f.pending[0] != 0xff {
				c.Credentials.Telnet = true
				f.end()
				break
			}
			f.take(len(f.pending))
		case http, smtp, imap, pop3, ftp:
			c.lines(f)
		case done:
			return
		}
		if len(f.pending) == before && f.is == is {
			return // more is needed
		}
	}
}

// take removes n bytes that were read.
func (f *flow) take(n int) {
	f.pending = f.pending[:copy(f.pending, f.pending[n:])]
}

// decide tells the protocol from the client's first bytes, whatever the port:
// a port is believed only where the bytes fit it.
func (c *counter) decide(f *flow) {
	b := f.pending
	switch {
	case b[0] == 22:
		f.is = overTLS
		return
	case f.port == 53:
		f.is = dnsTCP
		return
	case f.port == 23 || len(f.greet) > 1 && f.greet[0] == 0xff && f.greet[1] >= 0xfb:
		// Options of Telnet are negotiated first (RFC 854).
		f.is = telnet
		c.Telnet.Connections++
		f.talk.prompt(f.greet)
		return
	}
	line, _, whole := bytes.Cut(b, []byte("\n"))
	_, err := packet.ParseRequest(b)
	web := !errors.Is(err, packet.ErrNotHTTP)
	switch {
	case web && (whole || len(b) > maxLine):
		f.is = http
		return
	case !web && (len(line) > maxFirst || !text(line)):
		f.end()
		return
	case !whole:
		return
	}
	if f.is = dialogue(f.port, f.greet, line); f.is == undecided {
		f.end()
		return
	}
	c.dialogues(f.is).Connections++
}

func text(b []byte) bool {
	for _, x := range b {
		if x < ' ' && x != '\t' && x != '\r' || x == 0x7f {
			return false
		}
	}
	return true
}

// lines hands a connection's lines to its protocol, and passes over what is
// no line.
func (c *counter) lines(f *flow) {
	rest := f.pending
	for len(rest) > 0 && f.is != done && f.is != undecided {
		if f.skip > 0 {
			n := int(min(f.skip, int64(len(rest))))
			if f.is == http && f.web.form != noForm {
				whole := int64(n) == f.skip || n >= maxLine
				if whole || n < maxStep || n >= f.web.seen+maxStep {
					c.form(f.web.form, rest[:n])
					f.web.seen = n
				}
				if !whole {
					break // a field's name may go on
				}
				f.web.form = noForm
			}
			f.skip -= int64(n)
			rest = rest[n:]
			continue
		}
		if f.is == http && f.web.resync {
			if _, err := packet.ParseRequest(rest); errors.Is(err, packet.ErrNotHTTP) {
				rest = nil
				break
			}
			f.web.resync = false
		}
		if f.is != http && rest[0] == 22 && !f.talk.data && (len(rest) == 1 || rest[1] == 3) {
			if len(rest) == 1 {
				break
			}
			c.dialogues(f.is).StartTLS++
			f.is, f.drop = overTLS, false
			break
		}
		at := bytes.IndexByte(rest, '\n')
		line, ended := rest, at >= 0
		if ended {
			line = rest[:at+1]
		} else if len(rest) < maxLine && !f.drop {
			break
		}
		rest = rest[len(line):]
		if !f.drop {
			line = bytes.TrimRight(line, "\r\n")
			if f.is == http {
				c.httpLine(f, line)
			} else {
				c.talkLine(f, line)
			}
		}
		f.drop = !ended
	}
	if f.is != done {
		f.pending = f.pending[:copy(f.pending, rest)]
	}
}

// fromServer looks at how a server begins, at cookies that it sets, and at
// whether it asks for a password.
func (c *counter) fromServer(f *flow, seq uint32, data []byte) {
	switch f.is {
	case undecided:
		if len(f.greet) == 0 {
			f.greet = append(f.greet, data[:min(len(data), 64)]...)
		}
	case http:
		c.response(f, seq, data)
	case telnet:
		f.talk.prompt(data)
	}
}
