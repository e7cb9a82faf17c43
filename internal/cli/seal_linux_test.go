package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"govah/evidence"
	"govah/measure"
	"govah/packet"
)

// TestKernelSeal: on the kernel's own network stack, evidence holds the run's
// own packets where they may be captured, and elsewhere what the kernel told
// of each connection, labelled as that; in both cases of everybody whom the
// run spoke to and of nobody else.
func TestKernelSeal(t *testing.T) {
	t.Parallel()
	for _, privileged := range []bool{true, false} {
		t.Run(map[bool]string{true: "privileged", false: "ordinary"}[privileged], func(t *testing.T) {
			t.Parallel()
			w := rawWorld(t, "clean")
			dir := t.TempDir()
			link := oneRouter(w)
			link.Privileged = privileged
			var mu sync.Mutex
			spoken := map[netip.AddrPort]bool{} // to whom, at the far end of the cable
			send := link.Send
			link.Send = func(pkt []byte) {
				if p, err := packet.Parse(pkt); err == nil && (p.Proto == packet.TCP || p.Proto == packet.UDP) {
					mu.Lock()
					spoken[p.Destination()] = true
					mu.Unlock()
				}
				send(pkt)
			}
			onKernelIn(t, w, dir, link, "check", []string{"-4", "--set", "sites", "--seal", "https://plain.example/"}, "XDG_DATA_HOME="+dir)
			if left, _ := filepath.Glob(filepath.Join(dir, ".govah-*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			data, err := os.ReadFile(filepath.Join(dir, "m.govah"))
			if err != nil {
				t.Fatal(err)
			}
			b, err := evidence.Open(data)
			if err != nil {
				t.Fatal(err)
			}
			var about evidence.About
			if err := json.Unmarshal(b.File(evidence.AboutName).Data, &about); err != nil {
				t.Fatal(err)
			}
			kept := map[netip.AddrPort]bool{}
			if privileged {
				if about.Packets != evidence.PacketsCaptured || b.File(evidence.ConnectionsName) != nil {
					t.Errorf("%+v", about)
				}
				r, err := packet.NewCaptureReader(bytes.NewReader(b.File(evidence.PacketsName).Data))
				if err != nil {
					t.Fatal(err)
				}
				for {
					_, raw, err := r.Next()
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					if p, err := packet.Parse(raw); err == nil && !p.IsICMPError() {
						kept[p.Destination()], kept[p.Source()] = true, true
					}
				}
			} else {
				if about.Packets != evidence.PacketsReported || b.File(evidence.PacketsName) != nil {
					t.Errorf("%+v", about)
				}
				for line := range strings.Lines(string(b.File(evidence.ConnectionsName).Data)) {
					var c measure.Connection
					if err := json.Unmarshal([]byte(line), &c); err != nil || c.Source != "kernel" {
						t.Fatalf("%v: %s", err, line)
					}
					if at, err := netip.ParseAddrPort(c.Remote); err == nil {
						kept[at] = true
						if !spoken[at] {
							t.Errorf("%v is reported, and nobody spoke to it", at)
						}
					}
				}
			}
			if len(spoken) < 5 {
				t.Fatalf("only %d were spoken to", len(spoken))
			}
			for at := range spoken {
				if !kept[at] {
					t.Errorf("what was said to %v is not in the evidence", at)
				}
			}
		})
	}
}
