package keyring

import (
	"bytes"
	"crypto/rand"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

func recipients(t testing.TB) (x *age.X25519Identity, xText, pqText string, pq age.Identity) {
	t.Helper()
	x, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	h, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return x, x.Recipient().String(), h.Recipient().String(), h
}

func TestEncryptTo(t *testing.T) {
	t.Parallel()
	x, xText, pqText, pq := recipients(t)
	other, otherText, _, _ := recipients(t)
	data := make([]byte, 200_000)
	rand.Read(data)
	for name, c := range map[string]struct {
		to []string
		by []age.Identity
	}{"x25519": {[]string{xText}, []age.Identity{x}}, "two": {[]string{xText, otherText}, []age.Identity{x, other}}, "hybrid": {[]string{pqText}, []age.Identity{pq}}} {
		to, err := ParseRecipients(c.to...)
		if err != nil {
			t.Fatal(name, err)
		}
		var out bytes.Buffer
		w, err := EncryptTo(&out, to)
		if err != nil {
			t.Fatal(err)
		}
		for part := range slices.Chunk(data, 1000) {
			if _, err := w.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		cut := bytes.Clone(out.Bytes())
		if len(cut) < 150_000 || bytes.Contains(cut, data[:32]) {
			t.Errorf("%s: %d bytes have come, of %d", name, len(cut), len(data))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for _, by := range c.by {
			in, err := age.Decrypt(bytes.NewReader(out.Bytes()), by)
			if err != nil {
				t.Fatal(name, err)
			}
			if got, err := io.ReadAll(in); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
			// What was cut off is told from what is whole.
			if in, err = age.Decrypt(bytes.NewReader(cut), by); err == nil {
				_, err = io.ReadAll(in)
			}
			if err == nil {
				t.Errorf("%s: what was cut off passes for whole", name)
			}
		}
		if _, err := age.Decrypt(bytes.NewReader(out.Bytes()), mustX(t)); err == nil {
			t.Errorf("%s: a stranger opens it", name)
		}
	}
	if _, err := EncryptTo(io.Discard, nil); err == nil {
		t.Error("encrypted to nobody")
	}
}

func mustX(t *testing.T) *age.X25519Identity {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestParseRecipients(t *testing.T) {
	t.Parallel()
	x, xText, pqText, _ := recipients(t)
	for name, bad := range map[string][]string{
		"none": {}, "a secret key": {x.String()}, "in small letters": {strings.ToLower(x.String())}, "mixed": {xText, pqText},
		"cut": {xText[:len(xText)-1]}, "ssh": {"ssh-ed25519 AAAA"}, "empty": {""}, "many": slices.Repeat([]string{xText}, maxRecipients+1),
	} {
		_, err := ParseRecipients(bad...)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(strings.ToUpper(err.Error()), strings.ToUpper(x.String()[20:40])) {
			t.Errorf("%s: the secret key is in the message: %v", name, err)
		}
	}
	list, err := ReadRecipients(strings.NewReader("# ours\n\n" + xText + "\r\n  " + pqText + "  \n"))
	if err != nil || !slices.Equal(list, []string{xText, pqText}) {
		t.Errorf("%v %v", list, err)
	}
	for _, bad := range []string{"", "# none\n", xText + "\nx\n", strings.Repeat("#\n", maxRecipientFile)} {
		if _, err := ReadRecipients(strings.NewReader(bad)); err == nil {
			t.Errorf("accepted %.40q", bad)
		}
	}
}

var pairs = flag.Int("pairs", 0, "TestEncryptionSpeed: how many interleaved pairs of runs of 64 MiB")

// TestEncryptionSpeed prints how fast EncryptTo is against age alone, into a
// file each, the median of interleaved runs. It measures when it is told how
// often.
func TestEncryptionSpeed(t *testing.T) {
	if *pairs == 0 {
		t.Skip("give -pairs, as in docs/design/keys.md")
	}
	_, xText, pqText, _ := recipients(t)
	line := make([]byte, 4000) // as the lines of a measurement file are
	rand.Read(line)
	for _, text := range []string{xText, pqText} {
		to, err := ParseRecipients(text)
		if err != nil {
			t.Fatal(err)
		}
		run := func(begin func(io.Writer) (io.WriteCloser, error)) float64 {
			f, err := os.Create(filepath.Join(t.TempDir(), "x"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			started := time.Now()
			w, err := begin(f)
			if err != nil {
				t.Fatal(err)
			}
			for n := 0; n < 64<<20; n += len(line) {
				if _, err := w.Write(line); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			took := time.Since(started).Seconds()
			os.Remove(f.Name())
			return took
		}
		var ratios, speeds []float64
		for range *pairs {
			alone := run(func(w io.Writer) (io.WriteCloser, error) { return age.Encrypt(w, to.list...) })
			ours := run(func(w io.Writer) (io.WriteCloser, error) { return EncryptTo(w, to) })
			ratios, speeds = append(ratios, alone/ours), append(speeds, 67.108864/ours)
		}
		slices.Sort(ratios)
		slices.Sort(speeds)
		t.Logf("%.8s…: %.2f of age alone, %.0f MB/s, medians of %d", text, ratios[*pairs/2], speeds[*pairs/2], *pairs)
		if ratios[*pairs/2] < 0.8 {
			t.Errorf("slower than 0.8 of age alone")
		}
	}
}
