package wire

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"govah/evidence/receipt"
	"govah/measure"
)

// Bounds on what is believed of a helper. It is a stranger's server, perhaps
// behind a stranger's network: whatever it says is foreign.
const (
	maxHelperReply        = 1 << 20 // bytes
	maxHelperObservations = 256
	maxHelperText         = 1024 // bytes of one string
	maxHelperList         = 64   // of headers, names, answers, …
	maxHelperUS           = 3_600_000_000
	maxGreeters           = 16
	helperTimeout         = 40 * time.Second
)

// helperURL is a helper's URL taken apart.
type helperURL struct {
	base      string // without the fragment, ending in "/"
	host      string
	port      uint16
	pin       []byte // SHA-256 of the key; nil: the certificate must verify
	receipt   string // the public key of its receipts, in hex; "" not told
	authority string
}

// parseHelperURL reads "https://host:port/#sha256=…&receipt=…" as `govah helper`
// prints it.
func parseHelperURL(raw string) (*helperURL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("wire: %q is no helper URL; it looks like https://192.0.2.1:8443/#sha256=…", clip(raw, 200))
	}
	h := &helperURL{host: u.Hostname(), port: 443, authority: u.Host}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("wire: the helper URL %q has no valid port", clip(raw, 200))
		}
		h.port = uint16(n)
	}
	for part := range strings.SplitSeq(u.Fragment, "&") {
		switch text, is := strings.CutPrefix(part, "sha256="); {
		case u.Fragment == "" || strings.HasPrefix(part, "receipt="):
		case is && h.pin == nil:
			pin, err := hex.DecodeString(text)
			if err != nil || len(pin) != sha256.Size {
				return nil, fmt.Errorf("wire: the pin of the helper URL %q is not sha256= and 64 hexadecimal digits", clip(raw, 200))
			}
			h.pin = pin
		default:
			return nil, fmt.Errorf("wire: what follows # in the helper URL %q is neither sha256= nor receipt=", clip(raw, 200))
		}
	}
	if h.receipt, err = receipt.Pin(raw); err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	h.base = "https://" + u.Host + "/" + strings.TrimPrefix(u.EscapedPath(), "/")
	if !strings.HasSuffix(h.base, "/") {
		h.base += "/"
	}
	return h, nil
}

// errPin is returned where somebody else answers in a helper's place.
var errPin = errors.New("the helper's key is not the one in its URL: this is another server, or something intercepts")

// AskHelper asks a second vantage point for its look at req.URL (package
// helper, docs/formats/helper-v1.md). rawURL is the helper's, with the pin of
// its key as fragment if its certificate is its own; otherwise the certificate
// must verify against trust.Public. Nothing is asked before one of them holds.
// Nonce and Schema are filled in where empty. The reply is nil on failure; it
// is bounded and made harmless, but it is as true as the helper is honest.
func AskHelper(ctx context.Context, n Network, l *Log, m Meta, rawURL string, req measure.HelperRequest, trust *Trust) (*measure.HelperReply, *measure.Observation) {
	if req.Schema == 0 {
		req.Schema = 1
	}
	if req.Nonce == "" {
		req.Nonce = rand.Text()
	}
	if !slices.Contains(req.Wants, "receipt") {
		req.Wants = append(slices.Clone(req.Wants), "receipt")
	}
	var (
		reply *measure.HelperReply
		kept  *measure.Receipt
	)
	question, err := json.Marshal(req)
	if err != nil { // strings and numbers always encode
		panic(err)
	}
	o := askHelper(ctx, n, l, m, rawURL, netip.Addr{}, "v1/look", json.RawMessage(question), trust, func(body []byte) error {
		h, err := parseHelperURL(rawURL)
		if err != nil {
			return err
		}
		reply, kept, err = parseSigned(body, question, req.Nonce, h.receipt)
		return err
	})
	if o.Failure == measure.NoFailure && kept != nil {
		l.Amend(func() { o.Receipt = kept })
	}
	return reply, o
}

// parseSigned reads a helper's answer to a question, and its receipt, nil of a
// helper that gives none; one whose key stands in its URL gives one. A receipt
// that is not of this reply refuses the reply. Covers are without the ids of
// a log, which Merge gives.
func parseSigned(body, question []byte, nonce, pinned string) (*measure.HelperReply, *measure.Receipt, error) {
	var (
		signed *receipt.Receipt
		kept   *measure.Receipt
	)
	reply, err := parseHelperReply(body, nonce, func(r *measure.HelperReply) (err error) {
		switch {
		case r.Receipt == "" && pinned == "":
			return nil
		case r.Receipt == "":
			return errors.New("the helper gave no receipt, and its URL says that it does")
		case pinned != "" && !strings.EqualFold(pinned, r.ReceiptKey):
			return errors.New("the helper's receipt is by another key than the one in its URL")
		}
		if signed, err = receipt.Open(r.Receipt, r.ReceiptKey); err != nil {
			return err
		}
		if !signed.Answers(question) {
			return errors.New("the helper's receipt is for another question")
		}
		if signed.Seen() != len(r.Observations) || signed.ASN != r.ASN || signed.Time.Unix() != r.TimeMS/1000 {
			return errors.New("the helper's receipt is not of its answer")
		}
		for _, o := range r.Observations {
			if !signed.Saw(nonce, o) {
				return errors.New("the helper's receipt is not of what it says it saw")
			}
		}
		kept = &measure.Receipt{Note: r.Receipt, Key: strings.ToLower(r.ReceiptKey), Request: string(question)}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if kept != nil {
		covered := map[string]bool{"": true}
		for _, o := range reply.Observations { // as they were bounded here
			if covered[o.ID] = covered[o.After] && signed.Saw(nonce, o); covered[o.ID] {
				kept.Covers = append(kept.Covers, measure.Covered{As: o.ID})
			}
		}
	}
	return reply, kept, nil
}

// AskReceived asks a helper what came of first bytes that held a marker of 16
// random bytes, given in hex.
func AskReceived(ctx context.Context, n Network, l *Log, m Meta, rawURL, marker string, trust *Trust) (*measure.HelperReceived, *measure.Observation) {
	var got *measure.HelperReceived
	o := askHelper(ctx, n, l, m, rawURL, netip.Addr{}, "v1/received", measure.HelperReceivedRequest{Schema: 1, Marker: marker}, trust, func(body []byte) error {
		var r measure.HelperReceived
		if err := json.Unmarshal(body, &r); err != nil {
			return fmt.Errorf("the helper's answer cannot be read: %w", err)
		}
		if sum, err := hex.DecodeString(r.SHA256); r.Schema < 1 || r.Marker != marker || r.Connections < 0 || r.Bytes < 0 ||
			err != nil || r.Connections > 0 && len(sum) != sha256.Size {
			return errors.New("the helper's answer is not one to this question")
		}
		got = &r
		return nil
	})
	if o.Failure != measure.NoFailure {
		got = nil
	}
	return got, o
}

// maxHelloText bounds a ClientHello in base64.
const maxHelloText = 8 << 10

// AskHello asks the helper that was the server of a handshake, over its own
// channel, what came of its ClientHello, and writes it into its observation
// (measure.TLS.HelloCame). A server and a client that do not have the same one
// cannot finish a handshake, so that what did not come as it was sent was not
// answered by this helper.
func AskHello(ctx context.Context, n Network, l *Log, m Meta, rawURL string, at netip.Addr, trust *Trust, o *measure.Observation, hello []byte) {
	if len(hello) < markerAt+markerSize || o.TLS == nil {
		return
	}
	question := measure.HelperArrivedRequest{Schema: 1, Marker: hex.EncodeToString(hello[markerAt:][:markerSize]), Hello: true}
	var got *measure.HelperArrived
	asked := askHelper(ctx, n, l, m, rawURL, at, "v1/arrived", question, trust, func(body []byte) (err error) {
		got, err = ParseArrived(body, question.Marker)
		return err
	})
	if asked.Failure == measure.NoFailure {
		l.Amend(func() {
			t := *o.TLS // what hangs from an observation is replaced
			t.HelloCame = helloCame(got, hello)
			o.TLS = &t
		})
	}
}

// helloCame compares what arrived with what was sent; "" if the helper does
// not tell ClientHellos, as an older one.
func helloCame(got *measure.HelperArrived, sent []byte) string {
	came := "none"
	for _, a := range got.List {
		if !a.Marked {
			continue
		}
		hello, err := base64.StdEncoding.DecodeString(a.Hello)
		switch {
		case a.Hello == "" || err != nil:
			return ""
		case bytes.Equal(hello, sent):
			return "same"
		}
		came = "differs"
	}
	return came
}

// maxArrivals is how many connections a helper tells of at once.
const maxArrivals = 16

// AskArrived asks a helper that was the target what came of connections whose
// first bytes held a marker of 16 random bytes (TLSPayload, HTTPPayload), and
// which from a port of ours brought nothing; 0 asks for none of those. It asks
// at the address that was the target: of ours another one may be seen
// elsewhere. The answer is bounded, and as true as the helper is honest.
func AskArrived(ctx context.Context, n Network, l *Log, m Meta, rawURL string, at netip.Addr, marker []byte, port int, trust *Trust) (*measure.HelperArrived, *measure.Observation) {
	var got *measure.HelperArrived
	question := measure.HelperArrivedRequest{Schema: 1, Marker: hex.EncodeToString(marker), Port: port}
	o := askHelper(ctx, n, l, m, rawURL, at, "v1/arrived", question, trust, func(body []byte) (err error) {
		got, err = ParseArrived(body, question.Marker)
		return err
	})
	if o.Failure != measure.NoFailure {
		got = nil
	}
	return got, o
}

// ParseArrived reads a helper's answer to AskArrived.
func ParseArrived(data []byte, marker string) (*measure.HelperArrived, error) {
	var r measure.HelperArrived
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("the helper's answer cannot be read: %w", err)
	}
	if r.Schema < 1 || r.Marker != marker || len(r.List) > maxArrivals {
		return nil, errors.New("the helper's answer is not one to this question")
	}
	bound := func(v *int64) { *v = max(0, min(*v, maxHelperUS)) }
	for i := range r.List {
		a := &r.List[i]
		bound(&a.Bytes)
		bound(&a.FirstUS)
		bound(&a.EndedUS)
		bound(&a.AgeUS)
		a.SYNTTL, a.Port = max(0, min(a.SYNTTL, 255)), max(0, min(a.Port, 65535))
		if len(a.Hello) > maxHelloText || a.Hello != "" && !a.Marked {
			return nil, errors.New("the helper's answer is not one to this question")
		}
		if a.Ended != "reset" && a.Ended != "closed" {
			a.Ended, a.EndedUS = "", 0
		}
		if a.Marked && a.Bytes == 0 || !a.Marked && a.Bytes > 0 {
			return nil, errors.New("the helper's answer contradicts itself")
		}
	}
	return &r, nil
}

// askHelper makes one exchange with a helper, at an address or, if that is
// none, where its name leads, and records it as one step.
func askHelper(ctx context.Context, n Network, l *Log, m Meta, rawURL string, at netip.Addr, path string, question any, trust *Trust, read func([]byte) error) *measure.Observation {
	o := l.Begin(measure.StepHelper, m)
	defer l.End(o)
	o.Helper = rawURL
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	err := exchangeHelper(ctx, n, l, o, rawURL, at, path, question, trust, read)
	o.TookUS = l.Since(time.Now()) - o.StartUS
	fail(ctx, o, err)
	return o
}

func exchangeHelper(ctx context.Context, n Network, l *Log, o *measure.Observation, rawURL string, at netip.Addr, path string, question any, trust *Trust, read func([]byte) error) error {
	h, err := parseHelperURL(rawURL)
	if err != nil {
		return err
	}
	text, err := json.Marshal(question)
	if err != nil {
		return err
	}
	addrs := []netip.Addr{}
	if at.IsValid() {
		addrs = append(addrs, at)
	} else if a, err := netip.ParseAddr(h.host); err == nil {
		addrs = append(addrs, a)
	} else if addrs, err = n.Lookup(l.About(ctx, o), h.host); err != nil {
		return fmt.Errorf("finding the helper: %w", err)
	}
	conn, err := dialHelper(ctx, n, l, o, addrs, h)
	if err != nil {
		return err
	}
	sent, received := o.Sent, o.Received
	tc, err := shakeHelper(ctx, o, conn, h, trust)
	if err != nil {
		conn.Abort()
		return err
	}
	defer tc.Close()
	shakeSent, shakeReceived := o.Sent, o.Received
	o.HTTP = &measure.HTTP{}
	err = transfer(ctx, l, o, tc, Request{
		URL: h.base + path, Method: "POST", Body: text, Timeout: helperTimeout, MaxBody: maxHelperReply,
		Header: []measure.Header{{Name: "Content-Type", Value: "application/json"}, {Name: "Accept", Value: "application/json"}},
	}, func(a *answer) error {
		if a.status != 200 {
			return fmt.Errorf("the helper answered with HTTP status %d", a.status)
		}
		raw := &bounded{r: a.body, left: maxHelperReply}
		body, err := readAll(decoder(a.get("Content-Encoding"), raw), maxHelperReply+1)
		o.HTTP.BodyBytes = int64(len(body))
		switch {
		case err != nil:
			return err
		case len(body) > maxHelperReply:
			return fmt.Errorf("the helper's answer: %w", errTooLarge)
		}
		return read(body)
	})
	o.Sent += sent + shakeSent
	o.Received += received + shakeReceived
	return err
}

// HelperPage fetches one of a helper's pages over TLS, at an address of it, and
// makes sure that it is the helper's: the control of the same page in the
// clear.
func HelperPage(ctx context.Context, n Network, l *Log, m Meta, rawURL string, at netip.Addr, r Request, trust *Trust) (*measure.Observation, []byte) {
	o := l.Begin(measure.StepHTTP, m)
	defer l.End(o)
	o.HTTP = &measure.HTTP{}
	var body []byte
	err := func() error {
		h, err := parseHelperURL(rawURL)
		if err != nil {
			return err
		}
		conn, err := dialHelper(ctx, n, l, o, []netip.Addr{at}, h)
		if err != nil {
			return err
		}
		tc, err := shakeHelper(ctx, o, conn, h, trust)
		if err != nil {
			conn.Abort()
			return err
		}
		defer tc.Close()
		sent, received := o.Sent, o.Received
		r.URL = h.base + r.URL
		err = transfer(ctx, l, o, tc, r, func(a *answer) error {
			var err error
			body, err = readPage(o.HTTP, a, r)
			return err
		})
		o.Sent, o.Received = o.Sent+sent, o.Received+received
		return err
	}()
	fail(ctx, o, err)
	return o, body
}

// ParseHead reads the head of a request, within bounds: what a helper says it
// saw.
func ParseHead(b []byte) (*measure.Head, bool) {
	head, _, ok := bytes.Cut(b[:min(len(b), maxHeadText)], []byte("\r\n\r\n"))
	if !ok {
		return nil, false
	}
	line, rest, _ := strings.Cut(string(head), "\r\n")
	if strings.Count(line, " ") < 2 {
		return nil, false
	}
	h := &measure.Head{Line: text(line, maxHeaderValue)}
	for rest != "" && len(h.Headers) < maxHeaders {
		var field string
		field, rest, _ = strings.Cut(rest, "\r\n")
		name, value, ok := strings.Cut(field, ":")
		if !ok {
			return nil, false
		}
		h.Headers = append(h.Headers, measure.Header{Name: text(name, 128), Value: text(strings.TrimSpace(value), maxHeaderValue)})
	}
	return h, true
}

// maxHeadText bounds a head that is read, in bytes.
const maxHeadText = 16 << 10

// SayOdd sends bytes that are no request and waits for whatever comes.
func SayOdd(ctx context.Context, l *Log, m Meta, conn Conn, payload string, line []byte, wait time.Duration) *measure.Observation {
	o := l.Begin(measure.StepHTTP, m)
	defer l.End(o)
	o.Payload, o.HTTP = payload, &measure.HTTP{}
	setRemote(l, o, addrPort(conn.RemoteAddr()))
	mt := &meter{Conn: conn}
	end := mt.begin(ctx, limits{total: wait, silence: wait})
	_, err := mt.Write(line)
	if err == nil {
		var a *answer
		if a, err = readAnswer(mt, "GET", mt.answered); err == nil {
			describe(o.HTTP, a)
		}
	}
	end()
	o.Sent, o.Received = mt.sent.Load(), mt.received.Load()
	fail(ctx, o, err)
	return o
}

// dialHelper connects to the first address that answers.
func dialHelper(ctx context.Context, n Network, l *Log, o *measure.Observation, addrs []netip.Addr, h *helperURL) (Conn, error) {
	err := errors.New("the helper has no address")
	for _, a := range addrs[:min(len(addrs), 4)] {
		remote := netip.AddrPortFrom(a.Unmap(), h.port)
		setRemote(l, o, remote)
		var conn Conn
		if conn, err = dial(l.About(ctx, o), n, ConnectSpec{Remote: remote}); err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// shakeHelper does the handshake and makes sure that it is the helper.
func shakeHelper(ctx context.Context, o *measure.Observation, conn Conn, h *helperURL, trust *Trust) (*TLSConn, error) {
	hello, err := NewHello("chrome", time.Now().UnixNano())
	if err != nil {
		return nil, err
	}
	name := strings.TrimSuffix(h.host, ".")
	if _, err := netip.ParseAddr(name); err == nil {
		name = ""
	}
	o.SNI, o.Hello = name, hello.kind
	var (
		raw   [][]byte
		chain []*x509.Certificate
	)
	mt := &meter{Conn: conn}
	client, err := hello.client(mt, name, nil, func(r [][]byte, c []*x509.Certificate) { raw, chain = r, c })
	if err != nil {
		return nil, err
	}
	silence := silenceFor(conn)
	end := mt.begin(ctx, limits{total: max(4*silence, 8*time.Second), silence: silence, patience: 3 * silence})
	err = client.HandshakeContext(context.Background())
	end()
	o.Sent, o.Received = mt.sent.Load(), mt.received.Load()
	if err != nil {
		return nil, err
	}
	o.TLS = &measure.TLS{Alert: -1, ServerBytes: true}
	s := client.state()
	proven, err := trust.certificates(o.TLS, raw, chain, h.host)
	switch {
	case len(chain) == 0:
		return nil, errors.New("the helper sent no certificate")
	case h.pin != nil:
		sum := sha256.Sum256(chain[0].RawSubjectPublicKeyInfo)
		if subtle.ConstantTimeCompare(sum[:], h.pin) != 1 {
			return nil, &certificateError{outcome: measure.VerifyUnknownCA, err: errPin}
		}
	case !proven && err == nil:
		return nil, &certificateError{outcome: measure.VerifyUnknownCA, err: errors.New("no public root to verify the helper's certificate with")}
	case !proven:
		return nil, err
	}
	return &TLSConn{tlsClient: client, meter: mt, under: conn, verified: true, alpn: s.alpn}, nil
}

// ParseHelperReply reads a helper's answer to the request with that nonce.
// What is too large, has no sense, or is not a helper's to say is dropped.
func ParseHelperReply(data []byte, nonce string) (*measure.HelperReply, error) {
	return parseHelperReply(data, nonce, func(*measure.HelperReply) error { return nil })
}

// parseHelperReply does so if check, who sees it as it came, has no objection.
func parseHelperReply(data []byte, nonce string, check func(*measure.HelperReply) error) (*measure.HelperReply, error) {
	if len(data) > maxHelperReply {
		return nil, fmt.Errorf("the helper's answer of %d bytes: %w", len(data), errTooLarge)
	}
	var r measure.HelperReply
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("the helper's answer cannot be read: %w", err)
	}
	switch {
	case r.Schema < 1:
		return nil, errors.New("the helper's answer has no schema")
	case r.Nonce != nonce:
		return nil, errors.New("the helper's answer is to another question (its nonce differs)")
	case len(r.Observations) > maxHelperObservations:
		return nil, fmt.Errorf("the helper's answer has %d observations: %w", len(r.Observations), errTooLarge)
	}
	if err := check(&r); err != nil {
		return nil, err
	}
	r.Receipt, r.ReceiptKey = "", ""
	r.Version, r.Detail = text(r.Version, 64), text(r.Detail, maxHelperText)
	r.Failure = helperFailure(r.Failure)
	r.TimeMS = max(0, min(r.TimeMS, 1<<50))
	if r.ASN < 0 || r.ASN > 1<<32-1 {
		r.ASN = 0
	}
	if len(r.Country) != 2 || strings.Trim(r.Country, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		r.Country = ""
	}
	r.Mail = helperGreeters(r.Mail)
	kept := r.Observations[:0]
	seen := map[string]bool{}
	for _, o := range r.Observations {
		if o, ok := HelperObservation(o); ok && !seen[o.ID] {
			seen[o.ID] = true
			kept = append(kept, o)
		}
	}
	r.Observations = kept
	return &r, nil
}

// helperFailure is a failure of the vocabulary, or an unknown one.
func helperFailure(f measure.Failure) measure.Failure {
	if strings.Trim(string(f), "abcdefghijklmnopqrstuvwxyz0123456789_") == "" && len(f) <= 64 {
		return f
	}
	rest, _ := strings.CutPrefix(string(f), measure.UnknownFailurePrefix)
	return measure.Failure(measure.UnknownFailurePrefix + text(rest, maxDetail))
}

// helperID says that an id is one of a helper's: h and a number.
func helperID(id string) bool {
	digits, ok := strings.CutPrefix(id, "h")
	return ok && digits != "" && len(digits) <= 6 && strings.Trim(digits, "0123456789") == ""
}

// HelperObservation keeps of an observation what a helper can have seen. It
// is built anew, so that a field that is added to the type is not believed
// before somebody decides so. A helper tells and signs what it leaves.
func HelperObservation(in measure.Observation) (measure.Observation, bool) {
	if !helperID(in.ID) || in.After != "" && !helperID(in.After) {
		return in, false
	}
	bound := func(v int64) int64 { return max(0, min(v, maxHelperUS)) }
	out := measure.Observation{
		ID: in.ID, Step: in.Step, Role: measure.RoleHelper, After: in.After,
		SNI: text(in.SNI, maxNameText), Hello: text(in.Hello, 32), Host: text(in.Host, maxNameText), URL: text(in.URL, maxLocation),
		StartUS: bound(in.StartUS), TookUS: bound(in.TookUS), Sent: bound(in.Sent), Received: bound(in.Received),
		Failure: helperFailure(in.Failure), Detail: text(in.Detail, maxDetail),
	}
	if in.Remote != "" {
		remote, err := netip.ParseAddrPort(in.Remote)
		if err != nil || remote.Addr().Zone() != "" {
			return in, false
		}
		remote = unmapPort(remote)
		out.Remote, out.Family = remote.String(), FamilyOf(remote.Addr())
	}
	switch in.Step {
	case measure.StepDNS:
		if in.DNS == nil {
			return in, false
		}
		out.DNS = helperDNS(in.DNS, bound)
	case measure.StepTCP:
		if out.Remote == "" {
			return in, false
		}
		if in.TCP != nil {
			out.TCP = &measure.TCP{RTTUS: bound(in.TCP.RTTUS), Retransmits: int(bound(int64(in.TCP.Retransmits)))}
		}
	case measure.StepTLS, measure.StepQUIC:
		if out.Remote == "" {
			return in, false
		}
		if in.TLS != nil {
			out.TLS = helperTLS(in.TLS)
		}
	case measure.StepHTTP:
		if in.HTTP == nil {
			return in, false
		}
		out.HTTP = helperHTTP(in.HTTP, bound)
	case measure.StepMail:
		if out.Remote == "" || in.Mail == nil || !mailProtocol(in.Mail.Protocol) {
			return in, false
		}
		out.Mail = helperMail(in.Mail, bound)
		if in.TLS != nil {
			out.TLS = helperTLS(in.TLS)
		}
	default:
		return in, false
	}
	return out, true
}

func helperDNS(in *measure.DNS, bound func(int64) int64) *measure.DNS {
	out := &measure.DNS{Name: text(in.Name, maxNameText), Type: text(in.Type, 16), Transport: text(in.Transport, 16), Resolver: text(in.Resolver, maxNameText)}
	for _, r := range in.Replies[:min(len(in.Replies), maxReplies)] {
		reply := measure.DNSReply{AtUS: bound(r.AtUS), Rcode: text(r.Rcode, 16), AA: r.AA, AD: r.AD}
		for _, a := range r.Answers[:min(len(r.Answers), maxHelperList)] {
			if a.Type == "A" || a.Type == "AAAA" {
				addr, err := netip.ParseAddr(a.Value)
				if err != nil || addr.Zone() != "" || addr.Is4() != (a.Type == "A") {
					continue
				}
			}
			reply.Answers = append(reply.Answers, measure.DNSAnswer{Type: text(a.Type, 16), Value: text(a.Value, maxAnswerText), TTLS: bound(a.TTLS)})
		}
		out.Replies = append(out.Replies, reply)
	}
	return out
}

func helperTLS(in *measure.TLS) *measure.TLS {
	out := &measure.TLS{
		Version: text(in.Version, 32), Cipher: text(in.Cipher, 64), Group: text(in.Group, 64), ALPN: text(in.ALPN, 64),
		Alert: in.Alert, ServerBytes: in.ServerBytes, Subject: text(in.Subject, maxSubjectText), Issuer: text(in.Issuer, maxSubjectText),
		NotBeforeS: in.NotBeforeS, NotAfterS: in.NotAfterS, Public: helperVerification(in.Public),
	}
	if out.Alert < 0 || out.Alert > 255 {
		out.Alert = -1
	}
	out.Key, out.Serial, out.AIA = text(in.Key, 32), text(in.Serial, maxSerialText), in.AIA
	if sum, err := hex.DecodeString(in.SPKI); err == nil && len(sum) == sha256.Size {
		out.SPKI = strings.ToLower(in.SPKI)
	}
	if s := in.SCTs; s != nil {
		// How many there were is a helper's to say; what they are worth by its
		// list of logs is not.
		out.SCTs = &measure.SCTs{Embedded: max(0, min(s.Embedded, maxSCTs)), Beside: max(0, min(s.Beside, maxSCTs))}
	}
	for _, c := range in.Chain[:min(len(in.Chain), maxChain)] {
		if sum, err := hex.DecodeString(c); err == nil && len(sum) == sha256.Size {
			out.Chain = append(out.Chain, strings.ToLower(c))
		}
	}
	for _, n := range in.Names[:min(len(in.Names), maxNames)] {
		out.Names = append(out.Names, text(n, maxNameText))
	}
	return out
}

func helperVerification(v measure.Verification) measure.Verification {
	switch v {
	case "", measure.VerifiedOK, measure.VerifyExpired, measure.VerifyWrongName, measure.VerifyUnknownCA, measure.VerifyMalformed:
		return v
	}
	return measure.VerifyMalformed
}

func helperHTTP(in *measure.HTTP, bound func(int64) int64) *measure.HTTP {
	out := &measure.HTTP{
		Method: text(in.Method, 16), Proto: text(in.Proto, 16), Status: in.Status, Location: text(in.Location, maxLocation),
		Title: text(in.Title, maxTitle), Authenticated: in.Authenticated, BodyBytes: bound(in.BodyBytes), BodyTruncated: in.BodyTruncated,
		H3: text(in.H3, 300), FirstByteUS: bound(in.FirstByteUS),
	}
	if out.Status < 0 || out.Status > 999 {
		out.Status = 0
	}
	if sum, err := hex.DecodeString(in.BodySHA256); err == nil && len(sum) == sha256.Size {
		out.BodySHA256 = strings.ToLower(in.BodySHA256)
	}
	if sum, err := hex.DecodeString(in.Simhash); err == nil && len(sum) == 8 {
		out.Simhash = strings.ToLower(in.Simhash)
	}
	for _, h := range in.Headers[:min(len(in.Headers), maxHelperList)] {
		out.Headers = append(out.Headers, measure.Header{Name: text(h.Name, maxNameText), Value: text(h.Value, maxHelperText)})
	}
	return out
}

// Merge puts what a helper saw into the log: with Helper set to its URL, with
// ids of this log, and with times that count from the log's start, as near as
// the exchange o with the helper tells. The helper's bytes are not this
// device's and are not counted.
func (l *Log) Merge(helper string, o *measure.Observation, reply *measure.HelperReply) {
	ids := map[string]string{}
	l.mu.Lock()
	for _, h := range reply.Observations {
		l.next++
		ids[h.ID] = "o" + strconv.Itoa(l.next)
	}
	if o.Receipt != nil {
		r := *o.Receipt
		r.Covers = slices.Clone(r.Covers)
		for i := range r.Covers {
			r.Covers[i].ID = ids[r.Covers[i].As]
		}
		o.Receipt = &r
	}
	l.mu.Unlock()
	for _, h := range reply.Observations {
		h.ID, h.After = ids[h.ID], ids[h.After]
		h.Role, h.Stage, h.Helper = measure.RoleHelper, o.Stage, helper
		h.StartUS += o.StartUS
		if ap, err := netip.ParseAddrPort(h.Remote); err == nil {
			h.ASN = l.ASN(ap.Addr().String())
		}
		if h.Mail != nil {
			m := *h.Mail
			h.Mail, m.Lines = &m, slices.Clone(m.Lines)
			for i := range m.Lines {
				m.Lines[i].AtUS += o.StartUS
			}
		}
		if h.DNS != nil {
			d := *h.DNS
			h.DNS, d.Replies = &d, slices.Clone(d.Replies)
			for i := range d.Replies {
				r := &d.Replies[i]
				r.AtUS += o.StartUS
				r.Answers = slices.Clone(r.Answers)
				for k := range r.Answers {
					if _, err := netip.ParseAddr(r.Answers[k].Value); err == nil {
						r.Answers[k].ASN = l.ASN(r.Answers[k].Value)
					}
				}
			}
		}
		l.mu.Lock()
		l.list = append(l.list, &h)
		l.mu.Unlock()
	}
}

func helperMail(in *measure.Mail, bound func(int64) int64) *measure.Mail {
	out := &measure.Mail{Protocol: in.Protocol, Implicit: in.Implicit, Truncated: in.Truncated, Away: in.Away, Greeting: text(in.Greeting, maxMailText),
		Before: helperTexts(in.Before), After: helperTexts(in.After), EarlyBytes: bound(in.EarlyBytes), Early: text(in.Early, maxMailText)}
	switch in.StartTLS {
	case "ready", "later", "refused":
		out.StartTLS = in.StartTLS
	}
	for _, l := range in.Lines[:min(len(in.Lines), maxMailLines)] {
		out.Lines = append(out.Lines, measure.MailLine{AtUS: bound(l.AtUS), Sent: l.Sent, TLS: l.TLS, Text: text(l.Text, maxMailText)})
	}
	return out
}

func mailProtocol(s string) bool { return s == "smtp" || s == "imap" || s == "pop3" }

// helperTexts bounds a list of capabilities.
func helperTexts(list []string) (out []string) {
	for _, c := range list[:min(len(list), maxMailCaps)] {
		out = append(out, text(c, 128))
	}
	return out
}

// helperGreeters are those of a list that can be spoken to.
func helperGreeters(list []measure.MailGreeter) (out []measure.MailGreeter) {
	for _, g := range list[:min(len(list), maxGreeters)] {
		sum, err := hex.DecodeString(g.Key)
		if err != nil || len(sum) != sha256.Size || g.Port < 1 || g.Port > 65535 || !mailProtocol(g.Protocol) {
			continue
		}
		g.Greeting, g.Key = text(g.Greeting, maxMailText), strings.ToLower(g.Key)
		g.Before, g.After = helperTexts(g.Before), helperTexts(g.After)
		out = append(out, g)
	}
	return out
}
