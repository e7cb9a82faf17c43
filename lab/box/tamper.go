package box

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"govah/packet"
)

// tamper changes the beginning of a server's first response, and numbers what
// follows in both directions so that neither end notices.
type tamper struct {
	rule   *rule
	base   uint32 // sequence number of the response's first byte
	stream packet.Stream
	size   int  // of the longest segment from the server
	off    bool // the response is not one that is changed

	out []byte // in place of the bytes from base to end; nil: not yet
	end uint32
	fin bool // the server had no more to say than was replaced
}

// tamper prepares for the response to the request at hand.
func (f *Filter) tamper(r *rule, e *event) {
	if e.fl.tamper != nil || bytes.HasPrefix(e.p.Payload, []byte("HEAD ")) {
		return
	}
	t := &tamper{rule: r, base: e.p.Ack}
	t.stream.Start(t.base)
	e.fl.tamper = t
	if r.Action == "inject-script" {
		e.p.Raw = plainOnly(e.p.Raw, e.p.Payload)
		if p, err := packet.Parse(e.p.Raw); err == nil {
			e.p = p
		}
	}
}

var acceptEncoding = regexp.MustCompile(`(?i)\r\naccept-encoding:[^\r\n]*`)

// plainOnly asks the server for an uncompressed page, without changing the
// request's length.
func plainOnly(raw, payload []byte) []byte {
	at := acceptEncoding.FindIndex(payload)
	if at == nil {
		return raw
	}
	out := append([]byte(nil), raw...)
	header := out[len(raw)-len(payload):][at[0]:at[1]]
	const name = "\r\nAccept-Encoding:"
	copy(header, name)
	for i := len(name); i < len(header); i++ {
		header[i] = ' '
	}
	packet.FixChecksums(out)
	return out
}

// handle passes a packet of the flow on, changed where it must be.
func (t *tamper) handle(e *event, delay time.Duration) {
	switch {
	case t.off || e.p.Proto != packet.TCP:
		e.emit(e.d, e.p.Raw, delay)
	case e.up():
		t.up(e, delay)
	case t.out == nil:
		t.collect(e, delay)
	default:
		t.down(e, delay)
	}
}

func (t *tamper) delta() uint32 { return uint32(len(t.out)) - (t.end - t.base) }

// original maps a sequence number as the client knows it to what the server
// sent. Within what was replaced, nothing counts until all of it does.
func (t *tamper) original(seq uint32) uint32 {
	switch into := int32(seq - t.base); {
	case into <= 0:
		return seq
	case int(into) < len(t.out):
		return t.base
	}
	return seq - t.delta()
}

func (t *tamper) up(e *event, delay time.Duration) {
	if t.out == nil || e.p.Flags&packet.ACK == 0 {
		e.emit(e.d, e.p.Raw, delay)
		return
	}
	raw := append([]byte(nil), e.p.Raw...)
	packet.Renumber(raw, e.p.Seq, t.original(e.p.Ack), t.original)
	e.emit(e.d, raw, delay)
}

// collect holds the response back until its head is whole.
func (t *tamper) collect(e *event, delay time.Duration) {
	p := &e.p
	if len(p.Payload) == 0 && p.Flags&packet.FIN == 0 || p.Flags&(packet.SYN|packet.RST) != 0 {
		e.emit(e.d, p.Raw, delay)
		return
	}
	t.size = max(t.size, len(p.Payload))
	t.stream.Add(p.Seq, p.Payload)
	t.end = t.stream.Next()
	if p.Flags&packet.FIN != 0 && p.Seq+uint32(len(p.Payload)) == t.end {
		t.fin = true
	}
	data := t.stream.Data
	head, err := packet.ParseResponse(data)
	if errors.Is(err, packet.ErrMore) && !t.fin && !t.stream.Full {
		return
	}
	if err == nil {
		t.out = t.rule.altered(data, head)
	}
	if t.out == nil {
		t.out, t.off = data, true
	}
	t.resend(e, delay)
	t.stream = packet.Stream{}
}

// resend sends what stands in place of the beginning.
func (t *tamper) resend(e *event, delay time.Duration) {
	s := e.onward()
	s.Window, s.TTL, s.ID, s.DF, s.Options = e.p.Window, e.p.TTL, e.p.ID, e.p.DF, e.p.Options
	size := max(t.size, 536)
	for at := 0; at < len(t.out) || at == 0; at += size {
		end := min(at+size, len(t.out))
		s.Seq, s.Flags, s.Payload = t.base+uint32(at), packet.ACK, t.out[at:end]
		if end == len(t.out) {
			s.Flags |= packet.PSH
			if t.fin {
				s.Flags |= packet.FIN
			}
		}
		e.emit(e.d, packet.BuildTCP(s), delay)
	}
}

func (t *tamper) down(e *event, delay time.Duration) {
	p := &e.p
	if int32(p.Seq-t.end) >= 0 || int32(p.Seq-t.base) < 0 {
		raw := append([]byte(nil), p.Raw...)
		seq := p.Seq
		if int32(p.Seq-t.end) >= 0 {
			seq += t.delta()
		}
		packet.Renumber(raw, seq, p.Ack, nil)
		e.emit(e.d, raw, delay)
		return
	}
	if len(p.Payload) == 0 {
		// An acknowledgement sent before the server noticed that its data
		// have arrived.
		e.emit(e.d, p.Raw, delay)
		return
	}
	t.resend(e, delay)
	if rest := int(int32(p.Seq + uint32(len(p.Payload)) - t.end)); rest > 0 {
		s := e.onward()
		s.Window, s.TTL, s.ID, s.DF, s.Options = p.Window, p.TTL, p.ID, p.DF, p.Options
		s.Seq, s.Flags, s.Payload = t.end+t.delta(), p.Flags, p.Payload[len(p.Payload)-rest:]
		e.emit(e.d, packet.BuildTCP(s), delay)
	}
}

var contentLength = regexp.MustCompile(`(?i)(\r\ncontent-length:[ \t]*)\d+`)

// altered gives the beginning of a response as the rule changes it, nil if it
// does not.
func (r *rule) altered(data []byte, head *packet.Response) []byte {
	top, body := string(data[:head.HeadLength]), data[head.HeadLength:]
	if r.Action == "inject-header" {
		return append([]byte(top[:len(top)-2]+strings.Join(r.Header, "\r\n")+"\r\n\r\n"), body...)
	}
	if head.Status != 200 || head.Encoded || head.ContentType != "" && head.ContentType != "text/html" {
		return nil
	}
	if head.Chunked {
		return append([]byte(top+fmt.Sprintf("%x\r\n%s\r\n", len(r.Body), r.Body)), body...)
	}
	if head.ContentLength >= 0 {
		top = contentLength.ReplaceAllString(top, fmt.Sprintf("${1}%d", head.ContentLength+len(r.Body)))
	}
	at := 0
	if n := len("<!doctype"); len(body) > n && strings.EqualFold(string(body[:n]), "<!doctype") {
		at = bytes.IndexByte(body, '>') + 1
	}
	return []byte(top + string(body[:at]) + r.Body + string(body[at:]))
}
