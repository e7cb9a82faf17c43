package lab

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"govah/measure"
)

// SSHServer is what listens for SSH at a site. Nobody can log in.
type SSHServer struct {
	Port    int      `toml:"port"`    // 0 is 22
	Keys    []string `toml:"keys"`    // types of its host keys; none: ssh-ed25519
	Members int      `toml:"members"` // servers behind the address, with keys of their own, each in turn
	Banner  string   `toml:"banner"`  // its identification line, SSH-2.0-…
	// Known says how the client's known_hosts names it: plain, hashed; "": it
	// was never there. Of several members it knows the first.
	Known string `toml:"known"`
	// Published: its operator publishes its keys; Control: and it may stand
	// beside targets of others.
	Published bool `toml:"published"`
	Control   bool `toml:"control"`
	// Rotated: it has got other keys than those that are known and published.
	// Retired: it shows keys that its operator has withdrawn.
	Rotated  bool   `toml:"rotated"`
	Retired  bool   `toml:"retired"`
	Forwards string `toml:"forwards"` // passes connections on to the server of this site
}

// SSHIntercept ends SSH connections to port 22 on the path, with a host key of
// its own. It lets nobody log in and passes nothing on: to be seen is all that
// it is for.
type SSHIntercept struct {
	At    int      `toml:"at"`
	Names []string `toml:"names"` // of these sites' addresses only; none: all
	// Each: a key for each server, not one for all.
	Each bool     `toml:"each"`
	Keys []string `toml:"keys"` // types; none: ssh-ed25519
	Fact string   `toml:"fact"`
}

const (
	sshEd25519 = "ssh-ed25519"
	sshECDSA   = "ecdsa-sha2-nistp256"
)

var sshKeyTypes = []string{sshEd25519, sshECDSA}

func (s *SSHServer) check(where string, sites []*Site, c *checker) {
	where += ": ssh"
	if s.Port == 0 {
		s.Port = 22
	}
	if len(s.Keys) == 0 {
		s.Keys = sshKeyTypes[:1]
	}
	c.within(where, "port", s.Port, 1, 65535)
	c.within(where, "members", s.Members, 0, 16)
	c.oneOf(where, "known", s.Known, "plain", "hashed")
	for _, k := range s.Keys {
		c.oneOf(where, "keys", k, sshKeyTypes...)
	}
	if s.Banner != "" && (!strings.HasPrefix(s.Banner, "SSH-2.0-") || len(s.Banner) > 250 || strings.ContainsAny(s.Banner, "\r\n\x00")) {
		c.failf("%s: banner %q is no identification line, as SSH-2.0-OpenSSH_9.6", where, s.Banner)
	}
	if s.Control && !s.Published || s.Rotated && s.Retired {
		c.failf("%s: control goes with published, and rotated not with retired", where)
	}
	if s.Forwards != "" {
		to := find(sites, s.Forwards)
		if to == nil || to.SSH == nil || to.SSH.Forwards != "" {
			c.failf("%s: it forwards to %q, which has no ssh of its own", where, s.Forwards)
		}
	}
}

// generations of a site's host keys.
const (
	sshNow  = "now"
	sshOld  = "before"    // of one that rotated its keys
	sshGone = "withdrawn" // of one that shows them all the same
)

// sshKey is a host key: its public half as RFC 4253, 6.6 writes it, and what
// signs with it.
type sshKey struct {
	kind   string
	public []byte
	sign   func(data []byte) ([]byte, error)
}

func (k *sshKey) fingerprint() string {
	sum := sha256.Sum256(k.public)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// hostKey makes the key of an owner: the same each time for the same words.
func hostKey(kind string, words ...string) (*sshKey, error) {
	seed := sha256.Sum256([]byte(kind + "\x00" + strings.Join(words, "\x00")))
	k := &sshKey{kind: kind, public: sshString(nil, []byte(kind))}
	if kind == sshEd25519 { // RFC 8709
		private := ed25519.NewKeyFromSeed(seed[:])
		k.public = sshString(k.public, private.Public().(ed25519.PublicKey))
		k.sign = func(data []byte) ([]byte, error) {
			return sshString(sshString(nil, []byte(kind)), ed25519.Sign(private, data)), nil
		}
		return k, nil
	}
	seed[0] &= 0x7f // below the order of the group; RFC 5656
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	if err != nil {
		return nil, err
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	k.public = sshString(sshString(k.public, []byte("nistp256")), point)
	k.sign = func(data []byte) ([]byte, error) {
		sum := sha256.Sum256(data)
		r, s, err := ecdsa.Sign(rand.Reader, private, sum[:])
		if err != nil {
			return nil, err
		}
		return sshString(sshString(nil, []byte(kind)), sshString(sshString(nil, mpint(r.Bytes())), mpint(s.Bytes()))), nil
	}
	return k, nil
}

// signers are a site's host keys of a generation, of one of its members.
func (t *Site) signers(generation string, member int) (out []*sshKey, err error) {
	for _, kind := range t.SSH.Keys {
		k, err := hostKey(kind, t.Name, generation, fmt.Sprint(member))
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, nil
}

// shown is the generation that a site shows, expected the one it is known by.
func (s *SSHServer) shown() string {
	if s.Retired {
		return sshGone
	}
	return sshNow
}

func (s *SSHServer) expected() string {
	if s.Rotated {
		return sshOld
	}
	return sshNow
}

func (w *World) serveSSH(c net.Conn, t *Site) {
	defer c.Close()
	if t.SSH.Forwards != "" {
		t = w.sites[t.SSH.Forwards]
	}
	w.turnMu.Lock()
	member := w.sshTurns[t] % max(1, t.SSH.Members)
	w.sshTurns[t]++
	w.turnMu.Unlock()
	signers, err := t.signers(t.SSH.shown(), member)
	if err == nil {
		speakSSH(c, t.SSH.Banner, signers)
	}
}

// interceptSSH stands in for a server under the server's own identification.
func (t *terminator) interceptSSH(c *serverConn, server netip.AddrPort) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	up, err := t.dial(server)
	if err != nil {
		c.reset()
		return
	}
	up.SetDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(io.LimitReader(up, 256)).ReadString('\n')
	up.Close()
	line = strings.TrimRight(line, "\r\n")
	if err != nil || !strings.HasPrefix(line, "SSH-2.0-") {
		c.reset()
		return
	}
	of := "all"
	if t.ssh.Each {
		of = server.String()
	}
	kinds := t.ssh.Keys
	if len(kinds) == 0 {
		kinds = sshKeyTypes[:1]
	}
	var signers []*sshKey
	for _, kind := range kinds {
		s, err := hostKey(kind, "interceptor", of)
		if err != nil {
			return
		}
		signers = append(signers, s)
	}
	speakSSH(c, line, signers)
}

// wantsSSH says whether an interceptor of SSH takes connections to an address.
func (t *terminator) wantsSSH(server netip.Addr) bool {
	if t.ssh == nil {
		return false
	}
	for _, s := range t.w.owners[server] {
		if wants(t.ssh.Names, s.Name) {
			return true
		}
	}
	return false
}

// KnownHosts is the client's known_hosts.
func (w *World) KnownHosts() ([]byte, error) {
	var b strings.Builder
	for _, t := range w.Scenario.Sites {
		if t.SSH == nil || t.SSH.Known == "" {
			continue
		}
		of := t
		if t.SSH.Forwards != "" {
			of = w.sites[t.SSH.Forwards]
		}
		signers, err := of.signers(of.SSH.expected(), 0)
		if err != nil {
			return nil, err
		}
		name := t.Name
		if t.SSH.Port != 22 {
			name = fmt.Sprintf("[%s]:%d", name, t.SSH.Port)
		}
		if t.SSH.Known == "hashed" {
			salt := sha256.Sum256([]byte(name))
			mac := hmac.New(sha1.New, salt[:sha1.Size]) // OpenSSH's choice, not ours
			mac.Write([]byte(name))
			name = "|1|" + base64.StdEncoding.EncodeToString(salt[:sha1.Size]) + "|" + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		}
		for _, s := range signers {
			b.WriteString(name + " " + s.kind + " " + base64.StdEncoding.EncodeToString(s.public) + "\n")
		}
	}
	return []byte(b.String()), nil
}

// SSHHost is a server whose operator publishes its host keys.
type SSHHost struct {
	Name    string
	Port    int
	Control bool
	Keys    []measure.HostKey
}

// SSHHosts are the servers with published host keys.
func (w *World) SSHHosts() (out []SSHHost, err error) {
	for _, t := range w.Scenario.Sites {
		if t.SSH == nil || !t.SSH.Published {
			continue
		}
		h := SSHHost{Name: t.Name, Port: t.SSH.Port, Control: t.SSH.Control}
		add := func(generation string, retired bool) error {
			for member := range max(1, t.SSH.Members) {
				signers, err := t.signers(generation, member)
				if err != nil {
					return err
				}
				for _, s := range signers {
					h.Keys = append(h.Keys, measure.HostKey{Source: measure.SourcePublished, KeyType: s.kind,
						Fingerprint: s.fingerprint(), Retired: retired, Row: "lab"})
				}
			}
			return nil
		}
		if err := add(t.SSH.expected(), false); err != nil {
			return nil, err
		}
		if t.SSH.Retired {
			if err := add(sshGone, true); err != nil {
				return nil, err
			}
		}
		out = append(out, h)
	}
	return out, nil
}
