package lab

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// What the lab's servers and interceptors prove is their host key; whoever
// accepts it gets no further.
func TestSpeakSSH(t *testing.T) {
	for _, kind := range sshKeyTypes {
		var signers []*sshKey
		for _, k := range sshKeyTypes {
			s, err := hostKey(k, "a.example")
			if err != nil {
				t.Fatal(err)
			}
			signers = append(signers, s)
		}
		here, there := net.Pipe()
		served := make(chan error, 1)
		go func() {
			served <- speakSSH(there, "", signers)
			there.Close()
		}()
		here.SetDeadline(time.Now().Add(500 * time.Millisecond))
		var shown ssh.PublicKey
		_, _, _, err := ssh.NewClientConn(buffered{here, make(chan []byte, 64)}.start(), "a.example:22", &ssh.ClientConfig{
			User: "somebody", Auth: []ssh.AuthMethod{ssh.Password("x")}, HostKeyAlgorithms: []string{kind},
			HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error { shown = k; return nil }})
		if shown == nil || shown.Type() != kind {
			t.Fatalf("%s: %v", kind, err)
		}
		if err == nil {
			t.Errorf("%s: somebody logged in", kind)
		}
		here.Close()
		if err := <-served; err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		again, err := hostKey(kind, "a.example")
		if err != nil || !bytes.Equal(again.public, shown.Marshal()) {
			t.Errorf("%s: another key the second time: %v", kind, err)
		}
		if fp := ssh.FingerprintSHA256(shown); again.fingerprint() != fp {
			t.Errorf("%s: fingerprint %s, want %s", kind, again.fingerprint(), fp)
		}
		if other, _ := hostKey(kind, "b.example"); bytes.Equal(other.public, shown.Marshal()) {
			t.Errorf("%s: two sites have one key", kind)
		}
	}
}

// buffered lets both ends of a pipe write before either reads, as SSH does.
type buffered struct {
	net.Conn
	out chan []byte
}

func (b buffered) start() net.Conn {
	go func() {
		for p := range b.out {
			b.Conn.Write(p)
		}
	}()
	return b
}

func (b buffered) Write(p []byte) (int, error) {
	b.out <- bytes.Clone(p)
	return len(p), nil
}

// FuzzSpeakSSH: whatever a client sends, a server ends.
func FuzzSpeakSSH(f *testing.F) {
	s, err := hostKey(sshEd25519, "a.example")
	if err != nil {
		f.Fatal(err)
	}
	init := kexInit([]*sshKey{s})
	ask := append([]byte{sshECDHInit, 0, 0, 0, 32}, strings.Repeat("\x09", 32)...)
	f.Add(append(append([]byte("SSH-2.0-x\r\n"), sshPacket(init)...), sshPacket(ask)...))
	f.Add(append([]byte("SSH-2.0-x\n"), sshPacket(init[:30])...))
	f.Add([]byte("SSH-2.0-x\n\xff\xff\xff\xff\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		speakSSH(said{bytes.NewReader(b)}, "", []*sshKey{s})
	})
}

// said is a connection on which all has been said.
type said struct{ io.Reader }

func (said) Write(b []byte) (int, error)      { return len(b), nil }
func (said) Close() error                     { return nil }
func (said) LocalAddr() net.Addr              { return nil }
func (said) RemoteAddr() net.Addr             { return nil }
func (said) SetDeadline(time.Time) error      { return nil }
func (said) SetReadDeadline(time.Time) error  { return nil }
func (said) SetWriteDeadline(time.Time) error { return nil }

func TestSSHIsChecked(t *testing.T) {
	site := func(text string) string {
		return "schema = 1\n[[client-network]]\nname = \"home\"\n[[network]]\nname = \"n\"\n[[site]]\nname = \"a.example\"\n[site.ssh]\n" + text
	}
	for text, want := range map[string]string{
		site("keys = [\"ssh-dss\"]"):         "ssh-dss",
		site("known = \"yes\""):              "known",
		site("port = 70000"):                 "port",
		site("control = true"):               "control",
		site("forwards = \"b.example\""):     "b.example",
		site("forwards = \"a.example\""):     "a.example",
		site("banner = \"hello\""):           "banner",
		site("rotated = true\nretired=true"): "rotated",
		strings.Replace(site(""), "name = \"home\"", "name = \"home\"\n[client-network.ssh-intercept]\nat = 9", 1): "at",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
