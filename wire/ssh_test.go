package wire_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"govah/measure"
	"govah/wire"
	"govah/wire/host"
)

func signer(t testing.TB, kind string) ssh.Signer {
	t.Helper()
	var key any
	var err error
	switch kind {
	case ssh.KeyAlgoED25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case ssh.KeyAlgoECDSA256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func beginSSH(t testing.TB, serve func(net.Conn), types ...string) *measure.Observation {
	t.Helper()
	conn, o := wire.Connect(t.Context(), host.New(), newLog(), wire.Meta{}, wire.ConnectSpec{Remote: listen(t, serve)})
	if conn == nil {
		t.Fatal(o.Failure)
	}
	return wire.SSH(t.Context(), newLog(), wire.Meta{}, conn, wire.SSHSpec{KeyTypes: types})
}

// A server with every kind of key proves the one that is asked for, and is told
// no user name.
func TestSSH(t *testing.T) {
	keys := map[string]ssh.Signer{}
	config := &ssh.ServerConfig{ServerVersion: "SSH-2.0-Test_1.0 \u202e"}
	var logins atomic.Int32
	config.PasswordCallback = func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { logins.Add(1); return nil, nil }
	config.NoClientAuth = true
	config.NoClientAuthCallback = func(ssh.ConnMetadata) (*ssh.Permissions, error) { logins.Add(1); return nil, nil }
	for _, kind := range []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoRSA} {
		keys[kind] = signer(t, kind)
		config.AddHostKey(keys[kind])
	}
	ended := make(chan error, 8)
	serve := func(c net.Conn) {
		io.WriteString(c, "a line before\r\n")
		_, _, _, err := ssh.NewServerConn(c, config)
		ended <- err
	}
	for kind, key := range keys {
		o := beginSSH(t, serve, kind)
		s := o.SSH
		if o.Failure != measure.NoFailure || s.KeyType != kind || s.Fingerprint != ssh.FingerprintSHA256(key.PublicKey()) {
			t.Errorf("%s: %s %s, %+v", kind, o.Failure, o.Detail, s)
		}
		if s.Identification != "SSH-2.0-Test_1.0 %E2%80%AE" || !slices.Contains(s.KeyExchanges, "curve25519-sha256") ||
			!slices.Contains(s.HostKeys, "rsa-sha2-512") || len(s.Ciphers) == 0 || len(s.MACs) == 0 || o.Sent == 0 || o.Received == 0 {
			t.Errorf("%s: %+v", kind, s)
		}
		select {
		case err := <-ended:
			if err == nil {
				t.Error("the connection went on")
			}
		case <-time.After(5 * time.Second):
			t.Error("the connection is open")
		}
	}
	if n := logins.Load(); n != 0 {
		t.Errorf("%d attempts to log in", n)
	}
	if o := beginSSH(t, serve); o.Failure != measure.NoFailure || o.SSH.KeyType != ssh.KeyAlgoED25519 {
		t.Errorf("any: %s %+v", o.Failure, o.SSH)
	}
	o := beginSSH(t, serve, ssh.KeyAlgoECDSA521)
	if o.Failure == measure.NoFailure || o.SSH.Fingerprint != "" || len(o.SSH.HostKeys) == 0 {
		t.Errorf("a type that it has not: %s %+v", o.Failure, o.SSH)
	}
	if strings.Contains(string(o.Failure), "rsa") {
		t.Errorf("the failure quotes the server: %s", o.Failure)
	}
}

// A key whose signature does not verify is no key.
func TestSSHForgedSignature(t *testing.T) {
	shown, own := signer(t, ssh.KeyAlgoED25519), signer(t, ssh.KeyAlgoED25519)
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(forger{own, shown.PublicKey()})
	o := beginSSH(t, func(c net.Conn) { ssh.NewServerConn(c, config) })
	if o.Failure == measure.NoFailure || o.SSH.Fingerprint != "" {
		t.Errorf("%s %+v", o.Failure, o.SSH)
	}
}

type forger struct {
	ssh.Signer
	shown ssh.PublicKey
}

func (f forger) PublicKey() ssh.PublicKey { return f.shown }

func TestHostileSSH(t *testing.T) {
	for name, c := range map[string]struct {
		serve   func(net.Conn)
		failure measure.Failure
	}{
		"silence":         {func(c net.Conn) { io.Copy(io.Discard, c) }, measure.GenericTimeout},
		"closed":          {func(c net.Conn) { bufio.NewReader(c).ReadString('\n') }, measure.EOF},
		"reset":           {func(c net.Conn) { bufio.NewReader(c).ReadString('\n'); reset(c) }, measure.ConnectionReset},
		"only a line":     {func(c net.Conn) { io.WriteString(c, "SSH-2.0-x\r\n"); io.Copy(io.Discard, c) }, measure.GenericTimeout},
		"an endless line": {func(c net.Conn) { endless(c, bytes.Repeat([]byte("a"), 1<<16)) }, ""},
		"endless lines":   {func(c net.Conn) { endless(c, bytes.Repeat([]byte(strings.Repeat("a", 200)+"\r\n"), 200)) }, measure.TooLarge},
		"another protocol": {func(c net.Conn) {
			bufio.NewReader(c).ReadString('\n') // what is unread at the end would reset the connection
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		}, measure.EOF},
		"an endless packet": {func(c net.Conn) {
			io.WriteString(c, "SSH-2.0-x\r\n\x00\x03\x00\x00\x04")
			endless(c, bytes.Repeat([]byte{20}, 1<<16))
		}, measure.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := beginSSH(t, c.serve)
			if o.Failure == measure.NoFailure || c.failure != "" && o.Failure != c.failure || o.SSH.Fingerprint != "" || o.Received > 256<<10 {
				t.Errorf("%q (%s), %d bytes, %+v", o.Failure, o.Detail, o.Received, o.SSH)
			}
		})
	}
}

func TestKnownHosts(t *testing.T) {
	a, b, old := signer(t, ssh.KeyAlgoED25519).PublicKey(), signer(t, ssh.KeyAlgoECDSA256).PublicKey(), signer(t, ssh.KeyAlgoED25519).PublicKey()
	line := func(hosts string, k ssh.PublicKey) string { return hosts + " " + string(ssh.MarshalAuthorizedKey(k)) }
	file := "# a comment\r\n\n" +
		"one.example 1024 35 12345678901234567890\n" + // of SSH 1
		"one.example sk-ssh-nobody@example.com AAAA\n" +
		strings.Repeat("x", 100_000) + "\n" +
		line("one.example,192.0.2.1", a) + line("ONE.example", b) +
		line(knownhosts.HashHostname("two.example"), b) +
		line("[two.example]:2222", a) + line(knownhosts.HashHostname(knownhosts.Normalize("three.example:2222")), a) +
		line("*.wild.example,!not.wild.example", a) +
		line("@cert-authority *.example", old) +
		line("@revoked *", old) + line("four.example", old)
	for _, c := range []struct {
		host string
		port int
		want string
	}{
		{"one.example", 22, fp(a) + " " + fp(b) + " revoked " + fp(old)},
		{"192.0.2.1", 22, fp(a) + " revoked " + fp(old)},
		{"two.example", 22, fp(b) + " revoked " + fp(old)},
		{"two.example", 2222, fp(a) + " revoked " + fp(old)},
		{"three.example", 2222, fp(a) + " revoked " + fp(old)},
		{"three.example", 22, "revoked " + fp(old)},
		{"x.wild.example", 22, fp(a) + " revoked " + fp(old)},
		{"not.wild.example", 22, "revoked " + fp(old)},
		{"four.example", 22, "revoked " + fp(old)},
		{"one.example.", 22, "revoked " + fp(old)},
	} {
		keys, err := wire.KnownHosts(strings.NewReader(file), c.host, c.port)
		if err != nil {
			t.Fatal(err)
		}
		var got, revoked []string
		for _, k := range keys {
			if k.Source != measure.SourceUser {
				t.Errorf("source %q", k.Source)
			}
			if k.Retired && !slices.Contains(revoked, k.Fingerprint) {
				revoked = append(revoked, k.Fingerprint)
			} else if !k.Retired {
				got = append(got, k.Fingerprint)
			}
		}
		if len(revoked) > 0 {
			got = append(append(got, "revoked"), revoked...)
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s port %d: %s\nwant %s", c.host, c.port, text, c.want)
		}
	}
	if _, err := wire.KnownHosts(io.MultiReader(strings.NewReader("x"), errReader{}), "x.example", 22); err == nil {
		t.Error("an error of reading is lost")
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

func fp(k ssh.PublicKey) string { return ssh.FingerprintSHA256(k) }
