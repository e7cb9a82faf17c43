package known

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHostKeys(t *testing.T) {
	ids, operators := map[string]bool{}, map[string]bool{}
	for _, r := range readCSV("hostkeys.csv", hostKeysCSV, 11) {
		if ids[r[0]] {
			t.Errorf("%s is there twice", r[0])
		}
		ids[r[0]] = true
		text, ok := strings.CutPrefix(r[5], "SHA256:")
		if sum, err := base64.RawStdEncoding.Strict().DecodeString(text); !ok || err != nil || len(sum) != 32 {
			t.Errorf("%s: %q is no fingerprint: %d bytes, %v", r[0], r[5], len(sum), err)
		}
		if !slices.Contains([]string{"ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"}, r[4]) {
			t.Errorf("%s: key type %q", r[0], r[4])
		}
		for _, date := range []string{r[6], r[7]} {
			if _, err := time.Parse(time.DateOnly, date); date != "" && err != nil {
				t.Errorf("%s: %v", r[0], err)
			}
		}
		if r[9] != "computed from the key" && r[9] != "read as a fingerprint" || r[10] == "" {
			t.Errorf("%s: verified %q, source %q", r[0], r[9], r[10])
		}
	}
	if _, err := time.Parse(time.DateOnly, SSHHostsAsOf); err != nil {
		t.Error(err)
	}
	for _, h := range SSHHosts() {
		current := 0
		for _, k := range h.Keys {
			if !k.Retired {
				current++
			}
		}
		if current == 0 {
			t.Errorf("%s: no key that it shows now", h.Name)
		}
		if h.Control {
			operators[h.Operator] = true
		}
	}
	if len(operators) < 3 {
		t.Errorf("controls of %d operators; a target of one of them needs two others", len(operators))
	}
}

// The key that lay in a public repository must never count as genuine.
func TestRetiredHostKey(t *testing.T) {
	for _, h := range SSHHosts() {
		for _, k := range h.Keys {
			if k.Fingerprint == "SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8" {
				if !k.Retired || h.Name != "github.com" {
					t.Errorf("%s: %+v", h.Name, k)
				}
				return
			}
		}
	}
	t.Error("GitHub's RSA key of before 2023-03-24 is not in the table")
}
