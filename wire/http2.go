package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"govah/measure"
)

// roundTrip2 makes the one request of an HTTP/2 connection (RFC 9113) with
// Chrome's settings and order of pseudo-headers, and reads the head of the
// answer. The windows are as large as what will be read at most and are never
// opened further, so that no server can send more.
func roundTrip2(c net.Conn, mt *meter, x *exchange) (*answer, error) {
	window := uint32(min(max(x.MaxBody+x.MaxBody/8+(64<<10), 128<<10), 1<<30))
	var out bytes.Buffer
	out.WriteString(http2.ClientPreface)
	w := http2.NewFramer(&out, nil)
	w.WriteSettings(
		http2.Setting{ID: http2.SettingHeaderTableSize, Val: 65536},
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: window},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderBytes})
	w.WriteWindowUpdate(0, window-65535)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", x.Method}, {":authority", x.authority}, {":scheme", "https"}, {":path", x.path}} {
		enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	for _, h := range x.headers() {
		enc.WriteField(hpack.HeaderField{Name: strings.ToLower(h.Name), Value: h.Value})
	}
	head := block.Bytes()
	first := head[:min(len(head), 16<<10)]
	w.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: first, EndStream: len(x.Body) == 0, EndHeaders: len(first) == len(head),
		Priority: http2.PriorityParam{Exclusive: true, Weight: 255},
	})
	for rest := head[len(first):]; len(rest) > 0; {
		n := min(len(rest), 16<<10)
		w.WriteContinuation(1, n == len(rest), rest[:n])
		rest = rest[n:]
	}
	if len(x.Body) > 32<<10 {
		// Fits into the window that every peer has from the start.
		return nil, fmt.Errorf("wire: a request body of %d bytes over HTTP/2; at most 32 KiB", len(x.Body))
	}
	for rest := x.Body; len(rest) > 0; {
		n := min(len(rest), 16<<10)
		w.WriteData(1, n == len(rest), rest[:n])
		rest = rest[n:]
	}
	mt.request()
	_, writeErr := c.Write(out.Bytes())

	s := &stream2{conn: c, in: http2.NewFramer(c, c), out: &out}
	s.in.MaxHeaderListSize = maxHeaderBytes
	s.in.SetMaxReadFrameSize(16 << 10)
	s.in.ReadMetaHeaders = hpack.NewDecoder(65536, nil)
	for range maxInformal {
		fields, err := s.readHeaders()
		if err != nil {
			if writeErr != nil {
				err = writeErr
			}
			return nil, err
		}
		mt.answered()
		a := &answer{proto: "HTTP/2.0", body: s}
		for _, f := range fields.Fields {
			if f.Name == ":status" {
				a.status, _ = strconv.Atoi(f.Value)
			} else if !strings.HasPrefix(f.Name, ":") {
				a.headers = append(a.headers, measure.Header{Name: f.Name, Value: f.Value})
			}
		}
		if a.status < 100 || a.status > 999 {
			return nil, &malformed{"no :status"}
		}
		if fields.Truncated {
			return nil, fmt.Errorf("a head of more than %d bytes: %w", maxHeaderBytes, errTooLarge)
		}
		if a.status/100 == 1 {
			continue
		}
		s.ended = fields.StreamEnded()
		if noBody(x.Method, a.status) {
			a.body = bytes.NewReader(nil)
		}
		return a, nil
	}
	return nil, fmt.Errorf("more than %d informational answers: %w", maxInformal, errTooLarge)
}

// goneAway is the peer's GOAWAY before it answered.
type goneAway struct{ code http2.ErrCode }

func (e *goneAway) Error() string { return "the server went away: " + e.code.String() }

// maxFrames bounds frames that carry nothing of the answer: an endless row of
// them must not keep a step busy until its time-out.
const maxFrames = 1000

// stream2 reads stream 1 of an HTTP/2 connection.
type stream2 struct {
	conn  net.Conn
	in    *http2.Framer
	out   *bytes.Buffer
	data  []byte // of the frame read last, valid until the next
	idle  int    // frames since the last one of use
	ended bool
}

// next reads one frame of stream 1 that carries headers or data.
func (s *stream2) next() (http2.Frame, error) {
	for {
		f, err := s.in.ReadFrame()
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			// What the framer itself objects to is the peer's doing, as a head
			// without end; what the peer objects to comes in frames.
			var conn http2.ConnectionError
			var stream http2.StreamError
			if errors.As(err, &conn) || errors.As(err, &stream) {
				err = &malformed{"HTTP/2: " + err.Error()}
			}
			return nil, err
		}
		if s.idle++; s.idle > maxFrames {
			return nil, fmt.Errorf("more than %d frames without content: %w", maxFrames, errTooLarge)
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = s.in.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = s.in.WritePing(true, f.Data)
			}
		case *http2.GoAwayFrame:
			// A stream that the peer has still taken may go on.
			if f.LastStreamID < 1 || f.ErrCode != http2.ErrCodeNo {
				return nil, &goneAway{f.ErrCode}
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == 1 {
				if f.ErrCode == http2.ErrCodeNo && s.ended {
					return nil, io.EOF
				}
				return nil, http2.StreamError{StreamID: 1, Code: f.ErrCode}
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID == 1 {
				s.idle = 0
				return f, nil
			}
		case *http2.DataFrame:
			if f.StreamID == 1 {
				if len(f.Data()) > 0 {
					s.idle = 0
				}
				return f, nil
			}
		}
		if err != nil {
			return nil, err
		}
	}
}

func (s *stream2) readHeaders() (*http2.MetaHeadersFrame, error) {
	f, err := s.next()
	if err != nil {
		return nil, err
	}
	h, ok := f.(*http2.MetaHeadersFrame)
	if !ok {
		return nil, &malformed{"data before headers"}
	}
	return h, nil
}

// Read gives the content of the stream.
func (s *stream2) Read(p []byte) (int, error) {
	for len(s.data) == 0 {
		if s.ended {
			return 0, io.EOF
		}
		f, err := s.next()
		if err != nil {
			return 0, err
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame: // trailers
			s.ended = true
		case *http2.DataFrame:
			s.data, s.ended = f.Data(), f.StreamEnded()
		}
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	return n, nil
}
