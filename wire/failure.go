package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
	"golang.org/x/net/http2"

	"govah/measure"
)

// maxDetail bounds the text of an error that is kept, in bytes.
const maxDetail = 300

// errTooLarge is returned where a bound of ours ended a step.
var errTooLarge = errors.New("larger than this program reads")

// errInterrupted is returned where the caller's context ended a step.
var errInterrupted = errors.New("interrupted")

// certificateError carries what verifying a chain found.
type certificateError struct {
	outcome measure.Verification
	err     error
}

func (e *certificateError) Error() string { return e.err.Error() }
func (e *certificateError) Unwrap() error { return e.err }

// Classify maps an error of any layer, of any system and of the lab to the
// failure that is recorded, and the error's own text for the reader. A nil
// error is no failure.
func Classify(err error) (failure measure.Failure, detail string) {
	if err == nil {
		return measure.NoFailure, ""
	}
	detail = clip(strings.ToValidUTF8(err.Error(), "\uFFFD"), maxDetail)
	failure = classify(err)
	if failure == "" {
		failure = measure.Failure(measure.UnknownFailurePrefix + detail)
	}
	return failure, detail
}

func classify(err error) measure.Failure {
	switch {
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled):
		return measure.Interrupted
	case errors.Is(err, errTooLarge):
		return measure.TooLarge
	case errors.Is(err, errors.ErrUnsupported):
		// Some errnos (EOPNOTSUPP, ENOSYS) are ErrUnsupported as well, rightly.
		return measure.Unsupported
	}
	if f := classifyCertificate(err); f != "" {
		return f
	}
	if f := classifyQUIC(err); f != "" {
		return f
	}
	var dnsErr *net.DNSError
	if errors.As(err, &dnsErr) {
		return classifyLookup(dnsErr)
	}
	// errno before time-outs: ETIMEDOUT is both, an errno with a timeout
	// method must not hide behind a wrapper's.
	var pe *PathError
	onPath := errors.As(err, &pe)
	var errno syscall.Errno
	if errors.As(err, &errno) {
		f := classifyErrno(errno)
		if onPath && f == measure.PermissionDenied {
			// Linux says EACCES for ICMPv6 "prohibited" (tab_unreach), as it
			// does for what this device itself forbids.
			f = measure.HostUnreachable
		}
		if f != "" {
			return f
		}
	}
	if onPath {
		return measure.HostUnreachable // for a reason that has no errno of its own
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return measure.GenericTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return measure.EOF
	case errors.Is(err, net.ErrClosed):
		// The connection was closed on this side, which only our own caller does.
		return measure.Interrupted
	}
	if _, ok := alertOf(err); ok {
		return measure.TLSFailedHandshake
	}
	var header tls.RecordHeaderError
	if errors.As(err, &header) || strings.Contains(err.Error(), "tls: ") {
		return measure.TLSFailedHandshake
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return measure.GenericTimeout
	}
	return ""
}

func classifyCertificate(err error) measure.Failure {
	var own *certificateError
	if errors.As(err, &own) {
		switch own.outcome {
		case measure.VerifyWrongName:
			return measure.TLSInvalidHostname
		case measure.VerifyUnknownCA:
			return measure.TLSUnknownAuthority
		}
		return measure.TLSInvalidCert
	}
	var (
		name    x509.HostnameError
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &name):
		return measure.TLSInvalidHostname
	case errors.As(err, &unknown):
		return measure.TLSUnknownAuthority
	case errors.As(err, &invalid), strings.Contains(err.Error(), "failed to parse certificate from server"):
		return measure.TLSInvalidCert
	}
	return ""
}

func classifyQUIC(err error) measure.Failure {
	var (
		version   *quic.VersionNegotiationError
		reset     *quic.StatelessResetError
		idle      *quic.IdleTimeoutError
		handshake *quic.HandshakeTimeoutError
		transport *quic.TransportError
		app       *quic.ApplicationError
		stream    *quic.StreamError
		h2stream  http2.StreamError
		goAway    *goneAway
		h2conn    http2.ConnectionError
	)
	switch {
	case errors.As(err, &version):
		return measure.QUICIncompatible
	case errors.As(err, &reset):
		return measure.ConnectionReset
	case errors.As(err, &idle), errors.As(err, &handshake):
		return measure.GenericTimeout
	case errors.As(err, &transport):
		if transport.ErrorCode.IsCryptoError() {
			return measure.TLSFailedHandshake
		}
		if transport.ErrorCode == quic.ConnectionRefused {
			return measure.ConnectionRefused
		}
		if transport.Remote {
			return measure.ConnectionAborted
		}
	case errors.As(err, &app):
		if app.Remote {
			return measure.ConnectionAborted
		}
	case errors.As(err, &stream), errors.As(err, &h2stream), errors.As(err, &goAway), errors.As(err, &h2conn):
		// The peer gave up this exchange inside an intact connection.
		return measure.ConnectionAborted
	}
	return ""
}

// classifyLookup maps the errors of Go's own resolver and of getaddrinfo.
func classifyLookup(e *net.DNSError) measure.Failure {
	switch {
	case e.IsNotFound:
		return measure.DNSNXDomain
	case e.IsTimeout:
		return measure.GenericTimeout
	case strings.Contains(e.Err, "server misbehaving"):
		// Go says so temporarily for SERVFAIL and otherwise for REFUSED and
		// the codes of a server that cannot.
		if e.IsTemporary {
			return measure.DNSServfail
		}
		return measure.DNSRefused
	case strings.Contains(e.Err, "no answer from DNS server"):
		return measure.DNSNoAnswer
	case strings.Contains(e.Err, "context canceled"), strings.Contains(e.Err, "operation was canceled"):
		return measure.Interrupted
	case e.IsTemporary:
		return measure.DNSTemporary
	}
	return measure.DNSNonRecoverable
}

// classifyRcode maps the response code of a message, 0 being no failure.
func classifyRcode(rcode int) measure.Failure {
	switch rcode {
	case dns.RcodeSuccess:
		return measure.NoFailure
	case dns.RcodeNameError:
		return measure.DNSNXDomain
	case dns.RcodeServerFailure:
		return measure.DNSServfail
	case dns.RcodeRefused:
		return measure.DNSRefused
	}
	return measure.DNSNonRecoverable
}

// The errors of Windows sockets (winsock2.h), which are no errnos of C there.
const (
	wsaEACCES        = syscall.Errno(10013)
	wsaEADDRINUSE    = syscall.Errno(10048)
	wsaEADDRNOTAVAIL = syscall.Errno(10049)
	wsaENETDOWN      = syscall.Errno(10050)
	wsaENETUNREACH   = syscall.Errno(10051)
	wsaENETRESET     = syscall.Errno(10052)
	wsaECONNABORTED  = syscall.Errno(10053)
	wsaECONNRESET    = syscall.Errno(10054)
	wsaETIMEDOUT     = syscall.Errno(10060)
	wsaECONNREFUSED  = syscall.Errno(10061)
	wsaEHOSTDOWN     = syscall.Errno(10064)
	wsaEHOSTUNREACH  = syscall.Errno(10065)
)

func classifyErrno(e syscall.Errno) measure.Failure {
	switch e {
	case syscall.ECONNREFUSED, wsaECONNREFUSED:
		return measure.ConnectionRefused
	case syscall.ECONNRESET, syscall.EPIPE, wsaECONNRESET, wsaENETRESET:
		// EPIPE: a write after the reset was already consumed by a read.
		return measure.ConnectionReset
	case syscall.ECONNABORTED, wsaECONNABORTED:
		return measure.ConnectionAborted
	case syscall.EHOSTUNREACH, syscall.EHOSTDOWN, wsaEHOSTUNREACH, wsaEHOSTDOWN:
		return measure.HostUnreachable
	case syscall.ENETUNREACH, wsaENETUNREACH:
		return measure.NetworkUnreachable
	case syscall.ENETDOWN, wsaENETDOWN:
		return measure.NetworkDown
	case syscall.EADDRNOTAVAIL, wsaEADDRNOTAVAIL:
		return measure.AddressNotAvailable
	case syscall.EADDRINUSE, wsaEADDRINUSE:
		return measure.AddressInUse
	case syscall.EACCES, syscall.EPERM, wsaEACCES:
		return measure.PermissionDenied
	case syscall.ETIMEDOUT, wsaETIMEDOUT:
		return measure.GenericTimeout
	}
	return ""
}

// alertOf is the TLS alert that the peer sent, where err carries one: an
// OpError "remote error" around an unexported uint8 in crypto/tls and in
// uTLS, a crypto error of the transport in QUIC (RFC 9001, 4.8).
func alertOf(err error) (int, bool) {
	var transport *quic.TransportError
	if errors.As(err, &transport) && transport.Remote && transport.ErrorCode.IsCryptoError() {
		return int(transport.ErrorCode & 0xff), true
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" && op.Err != nil {
		if v := reflect.ValueOf(op.Err); v.Kind() == reflect.Uint8 {
			return int(v.Uint()), true
		}
	}
	return 0, false
}

// fail records err as the outcome of a step, and that the caller ended it if
// that is so: silence that was cut short proves nothing.
func fail(ctx context.Context, o *measure.Observation, err error) {
	if err == nil {
		return
	}
	o.Failure, o.Detail = Classify(err)
	if ctx.Err() != nil && (o.Failure == measure.GenericTimeout || errors.Is(err, net.ErrClosed)) {
		o.Failure = measure.Interrupted
	}
}

// clip shortens s to at most n bytes without cutting a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
