package cli

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"govah/packet"
	"govah/wire"
)

// TestKeptPackets: the file is there whole under a name that nothing had, or
// not at all.
func TestKeptPackets(t *testing.T) {
	dir := t.TempDir()
	a, b := netip.MustParseAddrPort("192.0.2.1:20001"), netip.MustParseAddrPort("198.51.100.2:443")
	list := []wire.Packet{{At: time.Unix(1, 0), Sent: true, Data: packet.BuildTCP(packet.Segment{Src: a, Dst: b, Flags: packet.SYN})},
		{At: time.Unix(2, 0), Data: packet.BuildTCP(packet.Segment{Src: b, Dst: a, Flags: packet.RST})}}
	names := func() (out []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	write := func() string {
		t.Helper()
		k := keepPackets(filepath.Join(dir, "m.jsonl"))
		defer k.discard()
		k.add("l1", list)
		k.add("l2", list[:1])
		path, err := k.close()
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, want := range []string{"locate.pcapng", "locate-2.pcapng"} {
		path := write()
		if filepath.Base(path) != want {
			t.Errorf("%s, want %s", path, want)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := packet.NewCaptureReader(f)
		n := 0
		for ; err == nil; n++ {
			_, _, err = r.Next()
		}
		f.Close()
		if n != 4 {
			t.Errorf("%d packets, %v", n-1, err)
		}
		data, _ := os.ReadFile(path)
		if !strings.Contains(string(data), "l1") || !strings.Contains(string(data), "l2") {
			t.Error("it is not told which search the packets are of")
		}
	}
	before := names()
	// Nothing captured, interrupted in between, and no measurement file.
	k := keepPackets(filepath.Join(dir, "m.jsonl"))
	k.add("l1", nil)
	if path, err := k.close(); path != "" || err != nil {
		t.Errorf("%q, %v", path, err)
	}
	k = keepPackets(filepath.Join(dir, "m.jsonl"))
	k.add("l1", list)
	k.discard()
	if path, err := (keepPackets("")).close(); path != "" || err != nil {
		t.Errorf("%q, %v", path, err)
	}
	keepPackets("").discard()
	if !slices.Equal(before, names()) {
		t.Errorf("%v, and before %v", names(), before)
	}
	k = keepPackets(filepath.Join(dir, "missing", "m.jsonl"))
	k.add("l1", list)
	if path, err := k.close(); path != "" || err == nil {
		t.Errorf("in a folder that is not there: %q, %v", path, err)
	}
}
