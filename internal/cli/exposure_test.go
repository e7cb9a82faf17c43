package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"govah/packet"
)

const everything = "../../exposure/testdata/everything.pcapng"

// TestExposureTellsNothing: no word that was planted in a capture (names,
// cookies, passwords, bodies, users), no address of anybody and no time comes
// out of the command, in any form of output, whoever is called the owner.
func TestExposureTellsNothing(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(everything)
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]bool{"secret": true, "mine-": true, "theirs-": true, "2026": true, "۲۰۲۶": true, "08:00": true}
	r, err := packet.NewCaptureReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	word := regexp.MustCompile(`[A-Za-z0-9.\-]*secret[A-Za-z0-9.\-]*|(cGxhaW|YmFz)[A-Za-z0-9+/=]*`)
	for {
		_, raw, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p, err := packet.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		secrets[p.Src.String()], secrets[p.Dst.String()] = true, true
		for _, m := range word.FindAll(p.Payload, -1) {
			secrets[string(m)] = true
			secrets[hex.EncodeToString(m)] = true
			secrets[base64.StdEncoding.EncodeToString(m)] = true
		}
	}
	if len(secrets) < 60 || !secrets["cookiesecret"] || !secrets["198.51.100.77"] || !secrets["cGxhaW5zZWNyZXQ="] || !secrets["formsecret1"] {
		t.Fatalf("only %d secrets: the capture was not read", len(secrets))
	}
	dir := t.TempDir()
	whole, cut := filepath.Join(dir, "a.pcapng"), filepath.Join(dir, "b.pcapng")
	for path, b := range map[string][]byte{whole: data, cut: data[:len(data)*2/3+1]} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	outputs := 0
	for _, owner := range [][]string{{"192.0.2.10", "2001:db8::10"}, {"198.51.100.77"}, {"192.0.2.99"}, nil} {
		for _, flags := range [][]string{nil, {"-v"}, {"--json"}, {"--lang", "fa"}, {"--lang", "fa", "--json"}} {
			for _, path := range []string{whole, cut} {
				args := append([]string{"exposure", path}, flags...)
				for _, o := range owner {
					args = append(args, "--address", o)
				}
				var out bytes.Buffer
				Main(t.Context(), args, strings.NewReader(""), &out, &out)
				if out.Len() == 0 {
					t.Errorf("%q printed nothing", args)
				}
				outputs++
				text := strings.ReplaceAll(out.String(), dir, "")
				for s := range secrets {
					if strings.Contains(text, s) {
						t.Errorf("%q printed %q:\n%s", args, s, text)
					}
				}
				for _, field := range regexp.MustCompile(`[0-9a-fA-F:.]{7,}`).FindAllString(text, -1) {
					if a, err := netip.ParseAddr(strings.Trim(field, ".:")); err == nil && a.String() != "192.168.1.7" { // of the hint
						t.Errorf("%q printed an address, %s", args, a)
					}
				}
			}
		}
	}
	if outputs != 40 {
		t.Errorf("%d outputs", outputs)
	}
}

// TestExposureOfThisDevice: without --address it is the addresses that this
// machine has, and its neighbour's packets are ignored.
func TestExposureOfThisDevice(t *testing.T) {
	t.Parallel()
	own, err := ownAddresses(nil)
	if err != nil {
		t.Skipf("no address to test with: %v", err)
	}
	me, them := own[0], own[0].Next()
	if them == me || !them.IsValid() || len(own) > 1 && them == own[1] {
		t.Skip("no neighbour's address to test with")
	}
	server := netip.AddrPortFrom(netip.MustParseAddr("203.0.113.5"), 53)
	if me.Is6() {
		server = netip.AddrPortFrom(netip.MustParseAddr("2001:db8::5"), 53)
	}
	var file bytes.Buffer
	w, err := packet.NewCaptureWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	question := []byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06secret\x07example\x00\x00\x01\x00\x01")
	for _, from := range []netip.Addr{me, them, them} {
		if err := w.Write(time.Unix(1, 0), packet.BuildUDP(netip.AddrPortFrom(from, 4000), server, 64, 0, question), packet.NoDirection, ""); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errOut := runMain(t, file.String(), "exposure", "-", "--json")
	if code != exitDone || !strings.Contains(out, `"packets":1,"ignored":2,`) || !strings.Contains(out, `"dns":{"questions":1,"names":1}`) {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
}
