package wire

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"govah/measure"
)

const (
	maxKnownHosts     = 16 << 20 // bytes of a file that are read
	maxKnownHostsLine = 64 << 10
	maxKnownKeys      = 32 // of one host
)

// KnownHosts finds the keys of one host and port in a file of the form of
// OpenSSH's known_hosts (sshd(8)), hashed names and patterns included. Nothing
// of any other host is kept. Lines that cannot be read are passed over, as
// OpenSSH does; golang.org/x/crypto/ssh/knownhosts would give up the file, and
// not tell an authority's key from a host's. The error is of reading.
func KnownHosts(r io.Reader, host string, port int) ([]measure.HostKey, error) {
	in := bufio.NewReaderSize(io.LimitReader(r, maxKnownHosts), maxKnownHostsLine)
	name := host
	if port != 22 {
		name = "[" + host + "]:" + strconv.Itoa(port)
	}
	var (
		out     []measure.HostKey
		revoked []string
	)
	for {
		line, err := in.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			line = nil
			_, err = in.ReadSlice('\n')
		}
		if marker, hosts, key, _, _, perr := ssh.ParseKnownHosts(line); perr == nil && named(hosts, name) {
			k := measure.HostKey{Source: measure.SourceUser, KeyType: key.Type(), Fingerprint: ssh.FingerprintSHA256(key)}
			switch {
			case marker == "revoked":
				revoked = append(revoked, k.Fingerprint)
			case marker != "" || isCertificate(key):
				continue
			}
			if len(out) < maxKnownKeys && !slices.Contains(out, k) {
				out = append(out, k)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	for i := range out {
		out[i].Retired = slices.Contains(revoked, out[i].Fingerprint)
	}
	return out, nil
}

func isCertificate(k ssh.PublicKey) bool {
	_, ok := k.(*ssh.Certificate)
	return ok
}

// named says whether the host field of a line means a name, written
// as host or, for a port other than 22, [host]:port.
func named(hosts []string, name string) bool {
	found := false
	for _, p := range hosts {
		if rest, hashed := strings.CutPrefix(p, "|1|"); hashed {
			salt, sum, _ := strings.Cut(rest, "|")
			s, err := base64.StdEncoding.DecodeString(salt)
			want, err2 := base64.StdEncoding.DecodeString(sum)
			if err == nil && err2 == nil {
				mac := hmac.New(sha1.New, s) // OpenSSH's choice, not ours
				mac.Write([]byte(name))
				found = found || bytes.Equal(mac.Sum(nil), want)
			}
			continue
		}
		p, not := strings.CutPrefix(p, "!")
		if !wildcard(strings.ToLower(p), strings.ToLower(name)) {
			continue
		}
		if not {
			return false
		}
		found = true
	}
	return found
}

// wildcard matches a pattern in which * stands for any bytes and ? for one. It
// takes time in proportion to the product of the lengths at most.
func wildcard(pattern, s string) bool {
	p, i, star, from := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
