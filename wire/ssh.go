package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"govah/measure"
)

// Bounds of what is read of an SSH server, in bytes, and of what is kept.
const (
	maxSSH           = 128 << 10 // no exchange of keys takes more
	maxSSHKept       = 40 << 10  // of the start, where the lists are
	maxSSHLine       = 255       // RFC 4253, 4.2
	maxSSHAlgorithms = 64        // of one list
	maxSSHName       = 64        // RFC 4251, 6
)

// SSHSpec says how to begin SSH.
type SSHSpec struct {
	// KeyTypes are the types of host key to accept, best first, as
	// "ssh-ed25519"; none: any.
	KeyTypes []string
}

// errProven ends an exchange of keys whose host key is proven: what would
// follow is logging in, which nobody here does.
var errProven = errors.New("wire: the host key is proven")

// errNoKeyType is returned where a server has no key of the types asked for.
var errNoKeyType = errors.New("ssh: the server has no host key of the types asked for")

// SSH begins SSH on conn and ends it as soon as the server has proven its host
// key, by its signature of the key exchange (RFC 4253, 7 and 8): no user name
// is sent, and nothing is tried. conn is closed.
//
// The client calls itself what golang.org/x/crypto/ssh does. Its lists of
// algorithms tell as much in any case, and a name of its own would tell the
// path who is asking.
func SSH(ctx context.Context, l *Log, m Meta, conn Conn, spec SSHSpec) *measure.Observation {
	o := l.Begin(measure.StepSSH, m)
	defer l.End(o)
	setRemote(l, o, addrPort(conn.RemoteAddr()))
	silence := silenceFor(conn)
	mt := &meter{Conn: conn}
	tap := &sshTap{Conn: mt}
	config := &ssh.ClientConfig{
		HostKeyAlgorithms: hostKeyAlgorithms(spec.KeyTypes),
		HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
			tap.prove(k)
			return errProven
		},
	}
	end := mt.begin(ctx, limits{total: max(4*silence, 8*time.Second), silence: silence, patience: 3 * silence})
	stack(l, o, conn)
	// It closes the connection itself, whatever becomes of it.
	_, _, _, err := ssh.NewClientConn(tap, o.Remote, config) // fails: the callback refuses every key
	end()
	start, key := tap.seen()
	if key == nil {
		fail(ctx, o, reason(err))
	}
	o.Sent, o.Received = mt.sent.Load(), mt.received.Load()
	o.TookUS = l.Since(time.Now()) - o.StartUS
	s := parseSSH(start)
	s.Asked = spec.KeyTypes
	if key != nil {
		s.KeyType, s.Fingerprint = text(key.Type(), maxSSHName), ssh.FingerprintSHA256(key)
	}
	o.SSH = s
	return o
}

// sshTap keeps the start of what a server says and the key that it proves, and
// ends a connection on which it says too much.
type sshTap struct {
	net.Conn
	mu   sync.Mutex
	kept []byte
	n    int
	key  ssh.PublicKey
}

func (t *sshTap) Read(b []byte) (int, error) {
	t.mu.Lock()
	room := maxSSH - t.n
	t.mu.Unlock()
	if room <= 0 {
		return 0, errTooLarge
	}
	n, err := t.Conn.Read(b[:min(len(b), room)])
	t.mu.Lock()
	t.n += n
	t.kept = append(t.kept, b[:min(n, maxSSHKept-len(t.kept))]...)
	t.mu.Unlock()
	return n, err
}

func (t *sshTap) prove(k ssh.PublicKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.key = k
}

func (t *sshTap) seen() ([]byte, ssh.PublicKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.kept), t.key
}

// reason is the error in words of ours where the library's quotes the server.
func reason(err error) error {
	var none *ssh.AlgorithmNegotiationError
	if errors.As(err, &none) {
		if none.What == "host key" {
			return errNoKeyType
		}
		return errors.New("ssh: no algorithm in common")
	}
	return err
}

// hostKeyAlgorithms are the ways in which keys of these types can sign, best
// first (RFC 8332 for RSA). Certificates are not asked for: what is compared is
// keys.
func hostKeyAlgorithms(types []string) []string {
	if len(types) == 0 {
		types = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA}
	}
	var out []string
	for _, t := range types {
		if t == ssh.KeyAlgoRSA {
			out = append(out, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		}
		out = append(out, t)
	}
	return out
}

// parseSSH reads the start of what a server sends: lines, the last of which
// identifies it, and the packet with its lists of algorithms, which is not
// encrypted (RFC 4253, 4.2, 6 and 7.1). It takes whatever there is.
func parseSSH(b []byte) *measure.SSH {
	s := &measure.SSH{}
	for {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		if bytes.HasPrefix(line, []byte("SSH-")) {
			s.Identification = printable(bytes.TrimSuffix(line[:min(len(line), maxSSHLine)], []byte("\r")))
			b = rest
			break
		}
		if !ok {
			return s
		}
		b = rest
	}
	const msgKexInit, cookie = 20, 16
	if len(b) < 6 {
		return s
	}
	length, padding := int64(binary.BigEndian.Uint32(b)), int64(b[4])
	if length < 2+padding || length > maxSSHKept {
		return s
	}
	p := b[5:min(int64(len(b)), 4+length-padding)]
	if len(p) < 1+cookie || p[0] != msgKexInit {
		return s
	}
	p = p[1+cookie:]
	var lists [6][]string // of ten: the rest is compression and languages
	for i := range lists {
		if len(p) < 4 {
			break
		}
		n := binary.BigEndian.Uint32(p)
		p = p[4:]
		if int64(n) > int64(len(p)) {
			break
		}
		lists[i] = algorithms(p[:n])
		p = p[n:]
	}
	s.KeyExchanges, s.HostKeys, s.Ciphers, s.MACs = lists[0], lists[1], lists[3], lists[5]
	return s
}

func algorithms(b []byte) (out []string) {
	for name := range bytes.SplitSeq(b, []byte(",")) {
		if len(name) > 0 {
			out = append(out, printable(name[:min(len(name), maxSSHName)]))
		}
		if len(out) == maxSSHAlgorithms {
			break
		}
	}
	return out
}
