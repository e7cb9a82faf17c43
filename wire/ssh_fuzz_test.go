package wire

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/crypto/ssh/knownhosts"

	"govah/measure"
)

// FuzzSSH: whatever a server says first, what is kept of it is bounded and can
// be shown.
func FuzzSSH(f *testing.F) {
	lists := "\x00\x00\x00\x11curve25519-sha256\x00\x00\x00\x17ssh-ed25519,rsa-sha2-256"
	f.Add([]byte("SSH-2.0-OpenSSH_9.6\r\n\x00\x00\x00\x60\x04\x140123456789abcdef" + lists + strings.Repeat("\x00", 60)))
	f.Add([]byte("hello\r\nSSH-1.99-x\n"))
	f.Add([]byte("SSH-\n\xff\xff\xff\xff\xff\x14"))
	f.Add([]byte("SSH-2.0-x\n\x00\x00\x00\x02\x00\x14"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := parseSSH(b)
		if len(s.Identification) > 3*maxSSHLine || strings.ContainsFunc(s.Identification, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("identification %q", s.Identification)
		}
		for _, list := range [][]string{s.KeyExchanges, s.HostKeys, s.Ciphers, s.MACs} {
			if len(list) > maxSSHAlgorithms {
				t.Errorf("%d algorithms", len(list))
			}
			for _, a := range list {
				if len(a) > 3*maxSSHName || strings.ContainsFunc(a, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("algorithm %q", a)
				}
			}
		}
	})
}

// FuzzKnownHosts: whatever a file holds, what is found is keys, and a line that
// is appended is found as well.
func FuzzKnownHosts(f *testing.F) {
	const key = " ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	f.Add([]byte("a.example" + key + "\n"))
	f.Add([]byte(knownhosts.HashHostname("a.example") + key))
	f.Add([]byte("|1||" + key + "\n|1|AAAA" + key))
	f.Add([]byte("@revoked *" + key + "\n@ *" + key))
	f.Add([]byte("**?*,!a" + key))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := KnownHosts(bytes.NewReader(b), "a.example", 22); err != nil {
			t.Error(err)
		}
		keys, err := KnownHosts(bytes.NewReader(slices.Concat(b, []byte("\nlast.example"+key+"\n"))), "last.example", 22)
		if err != nil || len(keys) == 0 || keys[0].Source != measure.SourceUser {
			t.Errorf("%+v, %v", keys, err)
		}
	})
}
