package wire_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"govah/measure"
	"govah/wire"
	"govah/wire/host"
)

// freePorts are ports of loopback at which nobody listens.
func freePorts(t *testing.T, n int) (out []netip.AddrPort) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).AddrPort())
	}
	return out
}

// certificate writes one for mail.example, and its key, where users without
// rights may read them, and gives a folder there.
func certificate(t *testing.T) (dir, cert, key string, pool *x509.CertPool) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	a := newAuthority(t)
	pair := a.issue(t, nil, "mail.example")
	raw, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})))
	write(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})))
	return dir, cert, key, a.pool()
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// needsMaster skips a test of servers that take their users' rights, which only
// root can give them, or that are not installed.
func needsMaster(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed here: %v", name, err)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("it takes root to run")
	}
}

// running starts a server and waits until its ports answer; stop, if any, is
// the command that ends one that is in a session of its own.
func running(t *testing.T, ports []netip.AddrPort, stop []string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.WaitDelay = time.Second // for what its children hold
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if stop != nil {
			exec.Command(stop[0], stop[1:]...).Run()
		}
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
		if t.Failed() {
			t.Logf("%s", log.String())
		}
	})
	for _, at := range ports {
		for until := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			c, err := net.DialTimeout("tcp", at.String(), time.Second)
			if err == nil {
				c.Close()
				break
			}
			if time.Now().After(until) {
				t.Fatalf("%s does not answer at %s: %v", name, at, err)
			}
		}
	}
}

// asItShould holds a dialogue with a mail server, which ends inside TLS.
func asItShould(t *testing.T, at netip.AddrPort, protocol string, implicit bool, pool *x509.CertPool) {
	t.Helper()
	l := wire.NewLog(time.Now(), nil)
	conn, o := wire.Connect(t.Context(), host.New(), l, wire.Meta{}, wire.ConnectSpec{Remote: at})
	if conn == nil {
		t.Fatalf("%+v", o)
	}
	defer conn.Abort()
	o = wire.Mail(t.Context(), l, wire.Meta{}, conn, wire.MailSpec{Protocol: protocol, Implicit: implicit, Name: "mail.example"}, &wire.Trust{Public: pool, System: pool})
	m := o.Mail
	offer, _ := wire.MailCommands(protocol)
	if o.Failure != measure.NoFailure || o.TLS == nil || o.TLS.Public != measure.VerifiedOK || m.EarlyBytes != 0 || m.Away || m.Greeting == "" || len(m.After) == 0 ||
		!implicit && (m.StartTLS != "ready" || !slices.Contains(m.Before, offer) || m.Unanswered()) {
		t.Errorf("%s, implicit %v: %s %s %+v", protocol, implicit, o.Failure, o.Detail, m)
	}
	if implicit {
		return
	}
	// And one with a harmless command in the place of STARTTLS.
	conn, o = wire.Connect(t.Context(), host.New(), l, wire.Meta{}, wire.ConnectSpec{Remote: at})
	if conn == nil {
		t.Fatalf("%+v", o)
	}
	defer conn.Abort()
	o = wire.Mail(t.Context(), l, wire.Meta{}, conn, wire.MailSpec{Protocol: protocol, Name: "mail.example", Harmless: true}, &wire.Trust{Public: pool, System: pool})
	if o.Failure != measure.NoFailure || o.Mail.Instead != "answered" || o.Mail.StartTLS != "" || o.Mail.Unanswered() {
		t.Errorf("%s, a harmless command: %s %s %+v", protocol, o.Failure, o.Detail, o.Mail)
	}
}

// TestDovecot: dialogues with Dovecot, as most IMAP and POP3 servers are.
func TestDovecot(t *testing.T) {
	needsMaster(t, "dovecot")
	dir, cert, key, pool := certificate(t)
	p := freePorts(t, 4)
	conf := filepath.Join(dir, "dovecot.conf")
	write(t, conf, fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = /dev/stderr
protocols = imap pop3
listen = 127.0.0.1
ssl = required
ssl_cert = <%[2]s
ssl_key = <%[3]s
service imap-login {
  inet_listener imap {
    port = %[4]d
  }
  inet_listener imaps {
    port = %[5]d
    ssl = yes
  }
}
service pop3-login {
  inet_listener pop3 {
    port = %[6]d
  }
  inet_listener pop3s {
    port = %[7]d
    ssl = yes
  }
}
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=%[1]s
}
`, dir, cert, key, p[0].Port(), p[1].Port(), p[2].Port(), p[3].Port()))
	running(t, p, nil, "dovecot", "-F", "-c", conf)
	for i, c := range []struct {
		protocol string
		implicit bool
	}{{"imap", false}, {"imap", true}, {"pop3", false}, {"pop3", true}} {
		asItShould(t, p[i], c.protocol, c.implicit, pool)
	}
}

// TestPostfix: dialogues with Postfix, as many SMTP servers are.
func TestPostfix(t *testing.T) {
	needsMaster(t, "postfix", "postconf")
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Skip(err)
	}
	dir, cert, key, pool := certificate(t)
	p := freePorts(t, 2)
	for _, name := range []string{"conf", "queue", "data"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("chown", owner.Uid, filepath.Join(dir, "data")).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	write(t, filepath.Join(dir, "conf", "main.cf"), strings.Join([]string{
		"compatibility_level = 3.6", "queue_directory = " + dir + "/queue", "data_directory = " + dir + "/data", "maillog_file = /dev/stdout", "maillog_file_prefixes = /dev",
		"myhostname = mail.example", "inet_interfaces = 127.0.0.1", "inet_protocols = ipv4", "mydestination =", "alias_maps =", "alias_database =",
		"smtpd_tls_cert_file = " + cert, "smtpd_tls_key_file = " + key, "smtpd_tls_security_level = may", ""}, "\n"))
	write(t, filepath.Join(dir, "conf", "master.cf"), fmt.Sprintf(`127.0.0.1:%d inet n - n - - smtpd
127.0.0.1:%d inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
postlog unix-dgram n - n - 1 postlogd
proxymap unix - - n - - proxymap
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
scache unix - - n - 1 scache
`, p[0].Port(), p[1].Port()))
	running(t, p, []string{"postfix", "-c", filepath.Join(dir, "conf"), "stop"}, "postfix", "-c", filepath.Join(dir, "conf"), "start-fg")
	asItShould(t, p[0], "smtp", false, pool)
	asItShould(t, p[1], "smtp", true, pool)
}
