package wire_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"govah/measure"
	"govah/wire"
	"govah/wire/host"
)

// OpenSSH's own server proves the key that is asked for, and a user's file
// written by OpenSSH's own tools knows it. Its log has nobody who logs in.
func TestOpenSSH(t *testing.T) {
	server, err := exec.LookPath("sshd")
	if err != nil {
		if server, err = exec.LookPath("/usr/sbin/sshd"); err != nil {
			t.Skip("OpenSSH's server is not installed")
		}
	}
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("ssh-keygen is not installed")
	}
	dir := t.TempDir()
	at := freePorts(t, 1)[0]
	config := fmt.Sprintf("ListenAddress %s\nPidFile none\nUsePAM no\nLogLevel DEBUG1\n", at)
	known := filepath.Join(dir, "known_hosts")
	var lines bytes.Buffer
	prints := map[string]string{}
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		file := filepath.Join(dir, kind)
		if out, err := exec.Command(keygen, "-q", "-t", kind, "-N", "", "-f", file).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		text, err := os.ReadFile(file + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey(text)
		if err != nil {
			t.Fatal(err)
		}
		prints[key.Type()] = ssh.FingerprintSHA256(key)
		fmt.Fprintf(&lines, "[%s]:%d %s", at.Addr(), at.Port(), text)
		config += "HostKey " + file + "\n"
	}
	if err := os.WriteFile(known, lines.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(keygen, "-H", "-f", known).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(server, "-t", "-f", file).CombinedOutput(); err != nil {
		t.Skipf("it cannot run here: %s", out)
	}
	cmd := exec.Command(server, "-D", "-e", "-f", file)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Its children hold the log for as long as they live.
	cmd.WaitDelay = 5 * time.Second
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			cmd.Process.Signal(os.Interrupt)
			cmd.Wait()
		}
	}
	t.Cleanup(stop)

	begin := func(types ...string) *measure.SSH {
		for range 50 {
			conn, _ := wire.Connect(t.Context(), host.New(), newLog(), wire.Meta{}, wire.ConnectSpec{Remote: at})
			if conn != nil {
				o := wire.SSH(t.Context(), newLog(), wire.Meta{}, conn, wire.SSHSpec{KeyTypes: types})
				if o.SSH == nil {
					t.Fatal(o.Failure)
				}
				return o.SSH
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Fatal("it does not listen")
		return nil
	}
	for kind, want := range prints {
		s := begin(kind)
		if s.KeyType != kind || s.Fingerprint != want || !strings.HasPrefix(s.Identification, "SSH-2.0-OpenSSH_") {
			t.Errorf("asked for %s: %+v, want %s", kind, s, want)
		}
	}
	if s := begin(ssh.KeyAlgoECDSA521); s.Fingerprint != "" || len(s.HostKeys) == 0 {
		t.Errorf("a type that it has not: %+v", s)
	}
	text, err := os.ReadFile(known)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := wire.KnownHosts(bytes.NewReader(text), at.Addr().String(), int(at.Port()))
	if err != nil || len(keys) != len(prints) {
		t.Fatalf("its file: %v, %v", keys, err)
	}
	for _, k := range keys {
		if prints[k.KeyType] != k.Fingerprint {
			t.Errorf("its file: %+v, want %s", k, prints[k.KeyType])
		}
	}
	stop()
	if !strings.Contains(log.String(), "remote software version Go") || strings.Contains(log.String(), "userauth") {
		t.Errorf("its log: %s", log.String())
	}
}
