package keyring

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func FuzzState(f *testing.F) {
	s := state{Type: "govah-key", Schema: 1, Scope: "a", Epoch: 1, Seed: bytes.Repeat([]byte{7}, 32), Uses: 1, Days: 1}
	s.Key = verifierKey(signingKey(s.Seed))
	good, _ := json.Marshal(s)
	f.Add(good)
	f.Add([]byte("age-encryption.org/v1\n-> scrypt AAAA 30\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if isEncrypted(data) {
			return // what it costs is what scrypt is for
		}
		s, err := parseState(data)
		if err == nil && verifierKey(signingKey(s.Seed)) != s.Key {
			t.Error("a key that the seed does not lead to")
		}
	})
}

func FuzzKeyNotes(f *testing.F) {
	key := signingKey(bytes.Repeat([]byte{7}, 32))
	text, err := rotationNote(signer{key, verifierKey(key)}, signingKey(bytes.Repeat([]byte{8}, 32)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(bytes.Replace(text, []byte("rotation"), []byte("revocation"), 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		old, next, err := ParseRotation(data)
		if err == nil && (!bytes.Contains(data, []byte(old)) || !bytes.Contains(data, []byte(next)) || old == next) {
			t.Errorf("%s, %s", old, next)
		}
		ParseRevocation(data)
	})
}

func FuzzRecipients(f *testing.F) {
	f.Add("# a\nage1x\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ReadRecipients(strings.NewReader(text))
		if err == nil && len(list) == 0 {
			t.Error("no recipient and no error")
		}
	})
}
