package wire

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"

	"govah/packet"

	utls "github.com/refraction-networking/utls"
)

// Hello is a frozen ClientHello layout. The ClientHellos made from one Hello
// differ in the server name alone: order of extensions, GREASE values and
// sizes are the same, while the random, the session id and the key shares are
// fresh, as they must be.
type Hello struct {
	kind   string
	grease [6]uint16 // cipher, group, extension 1, extension 2, version, ECH configuration
	order  []int     // of the extensions, as indices into the sorted list
	length uint16    // of the GREASE ECH payload
}

// NewHello freezes a layout: "chrome" is that of a current Chrome with its
// post-quantum key share (uTLS's HelloChrome_133), "chrome-small" the same
// without that group, so that it fits into one small segment, and "go" that
// of crypto/tls. The seed decides what a real browser leaves to chance.
func NewHello(kind string, seed int64) (*Hello, error) {
	h := &Hello{kind: kind}
	switch kind {
	case "go":
		return h, nil
	case "chrome", "chrome-small":
	default:
		return nil, fmt.Errorf("wire: no ClientHello layout %q; there are chrome, chrome-small and go", kind)
	}
	extensions, _, err := chromeExtensions(kind)
	if err != nil {
		return nil, err
	}
	r := rand.New(rand.NewPCG(uint64(seed), 0x67f6))
	for i := range h.grease {
		v := uint16(r.IntN(16))<<4 | 0x0a // RFC 8701
		h.grease[i] = v<<8 | v
	}
	if h.grease[2] == h.grease[3] {
		h.grease[3] ^= 0x1010
	}
	h.length = []uint16{128, 160, 192, 224}[r.IntN(4)]
	// Chrome shuffles all but the GREASE extensions, which come first and last.
	var first, last, rest []int
	for i, e := range extensions {
		if _, ok := e.(*utls.UtlsGREASEExtension); !ok {
			rest = append(rest, i)
		} else if first == nil {
			first = append(first, i)
		} else {
			last = append(last, i)
		}
	}
	r.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	h.order = slices.Concat(first, rest, last)
	return h, nil
}

// Kind is the name of the layout, as in measure.Observation.Hello.
func (h *Hello) Kind() string { return h.kind }

// chromeExtensions are a new set of Chrome's extensions in an order of ours
// (uTLS shuffles them by itself), and the spec they belong to.
func chromeExtensions(kind string) ([]utls.TLSExtension, *utls.ClientHelloSpec, error) {
	spec, err := utls.UTLSIdToSpec(utls.HelloChrome_133)
	if err != nil {
		return nil, nil, fmt.Errorf("wire: the Chrome ClientHello: %w", err)
	}
	extensions := slices.Clone(spec.Extensions)
	slices.SortStableFunc(extensions, func(a, b utls.TLSExtension) int {
		return cmp.Compare(reflect.TypeOf(a).String(), reflect.TypeOf(b).String())
	})
	if kind == "chrome-small" {
		for _, e := range extensions {
			switch e := e.(type) {
			case *utls.SupportedCurvesExtension:
				e.Curves = slices.DeleteFunc(e.Curves, func(c utls.CurveID) bool { return c == utls.X25519MLKEM768 })
			case *utls.KeyShareExtension:
				e.KeyShares = slices.DeleteFunc(e.KeyShares, func(k utls.KeyShare) bool { return k.Group == utls.X25519MLKEM768 })
			}
		}
	}
	return extensions, &spec, nil
}

// tlsState is what a finished handshake agreed on.
type tlsState struct {
	version, cipher, group uint16
	alpn                   string
	scts                   [][]byte // beside the certificate
}

// tlsClient is the client side of one TLS connection. onChain gets the
// certificates as soon as they arrived, also if the handshake fails later.
type tlsClient interface {
	net.Conn
	HandshakeContext(context.Context) error
	state() tlsState
}

// client prepares a TLS connection on conn. The server name "" sends none;
// alpn nil is the layout's own.
func (h *Hello) client(conn net.Conn, serverName string, alpn []string, onChain func(raw [][]byte, chain []*x509.Certificate)) (tlsClient, error) {
	if h.kind == "go" {
		if alpn == nil {
			alpn = []string{"h2", "http/1.1"}
		}
		return &goClient{tls.Client(conn, &tls.Config{
			ServerName: serverName, NextProtos: alpn, SessionTicketsDisabled: true,
			// The chain is verified by Trust and recorded, whatever it is.
			InsecureSkipVerify: true,
			VerifyConnection: func(s tls.ConnectionState) error {
				onChain(rawChain(s.PeerCertificates), s.PeerCertificates)
				return nil
			},
		})}, nil
	}
	u := utls.UClient(conn, &utls.Config{
		ServerName: serverName, SessionTicketsDisabled: true, InsecureSkipVerify: true,
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			var chain []*x509.Certificate
			for _, der := range raw {
				c, err := x509.ParseCertificate(der)
				if err != nil {
					break // uTLS has parsed them before, so this does not happen
				}
				chain = append(chain, c)
			}
			onChain(raw, chain)
			return nil
		},
	}, utls.HelloCustom)
	if err := h.apply(u, serverName, alpn); err != nil {
		return nil, fmt.Errorf("wire: the ClientHello %q for %q: %w", h.kind, serverName, err)
	}
	return &chromeClient{u}, nil
}

func rawChain(chain []*x509.Certificate) [][]byte {
	var raw [][]byte
	for _, c := range chain {
		raw = append(raw, c.Raw)
	}
	return raw
}

// apply lays the frozen layout over a connection.
func (h *Hello) apply(u *utls.UConn, serverName string, alpn []string) error {
	extensions, spec, err := chromeExtensions(h.kind)
	if err != nil {
		return err
	}
	spec.Extensions = nil
	for _, i := range h.order {
		switch e := extensions[i].(type) {
		case *utls.SNIExtension:
			if serverName == "" {
				continue
			}
		case *utls.ALPNExtension:
			if alpn != nil {
				if len(alpn) == 0 {
					continue
				}
				e.AlpnProtocols = alpn
			}
		case *utls.ApplicationSettingsExtensionNew:
			// Chrome offers settings only for a protocol that it offers.
			if alpn != nil && !slices.Contains(alpn, "h2") {
				continue
			}
		case *utls.GREASEEncryptedClientHelloExtension:
			e.CandidatePayloadLens = []uint16{h.length}
			e.CandidateConfigIds = []uint8{uint8(h.grease[5])}
		}
		spec.Extensions = append(spec.Extensions, extensions[i])
	}
	if err := u.ApplyPreset(spec); err != nil {
		return err
	}
	// ApplyPreset has drawn GREASE values of its own.
	hello := u.HandshakeState.Hello
	for i, c := range hello.CipherSuites {
		if packet.GREASE(c) {
			hello.CipherSuites[i] = h.grease[0]
		}
	}
	seen := 0
	for _, e := range u.Extensions {
		switch e := e.(type) {
		case *utls.UtlsGREASEExtension:
			e.Value = h.grease[2+seen%2]
			seen++
		case *utls.SupportedCurvesExtension:
			for i, c := range e.Curves {
				if packet.GREASE(uint16(c)) {
					e.Curves[i] = utls.CurveID(h.grease[1])
				}
			}
		case *utls.KeyShareExtension:
			for i, k := range e.KeyShares {
				if packet.GREASE(uint16(k.Group)) {
					e.KeyShares[i].Group = utls.CurveID(h.grease[1])
				}
			}
		case *utls.SupportedVersionsExtension:
			for i, v := range e.Versions {
				if packet.GREASE(v) {
					e.Versions[i] = h.grease[4]
				}
			}
		}
	}
	return u.BuildHandshakeState()
}

type goClient struct{ *tls.Conn }

func (c *goClient) state() tlsState {
	s := c.ConnectionState()
	return tlsState{s.Version, s.CipherSuite, uint16(s.CurveID), s.NegotiatedProtocol, s.SignedCertificateTimestamps}
}

type chromeClient struct{ *utls.UConn }

func (c *chromeClient) state() tlsState {
	s := c.ConnectionState()
	t := tlsState{version: s.Version, cipher: s.CipherSuite, alpn: s.NegotiatedProtocol, scts: s.SignedCertificateTimestamps}
	if hello := c.HandshakeState.ServerHello; hello != nil {
		t.group = uint16(hello.ServerShare.Group)
	}
	return t
}
