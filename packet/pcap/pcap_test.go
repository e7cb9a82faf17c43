package pcap

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"net/netip"

	"govah/packet"
)

var (
	a4, b4 = netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort("198.51.100.2:443")
	a6, b6 = netip.MustParseAddrPort("[2001:db8::1]:40000"), netip.MustParseAddrPort("[2001:db8:1::2]:443")
)

func TestCaptureRoundTrip(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 123456789, time.UTC)
	pkts := [][]byte{
		packet.BuildTCP(packet.Segment{Src: a4, Dst: b4, Flags: packet.SYN}),
		packet.BuildUDP(a6, b6, 3, 0, bytes.Repeat([]byte("x"), 1300)),
	}
	for name, create := range map[string]func(io.Writer) (*CaptureWriter, error){"pcapng": NewCaptureWriter, "pcap": NewPcapWriter} {
		t.Run(name, func(t *testing.T) {
			var file bytes.Buffer
			w, err := create(&file)
			if err != nil {
				t.Fatal(err)
			}
			for i, p := range pkts {
				if err := w.Write(at.Add(time.Duration(i)), p); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			whole := file.Bytes()
			r, err := packet.NewCaptureReader(bytes.NewReader(whole))
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range pkts {
				when, got, err := r.Next()
				if err != nil || !bytes.Equal(got, want) || !when.Equal(at.Add(time.Duration(i))) {
					t.Fatalf("packet %d: %d bytes at %v, %v", i, len(got), when, err)
				}
			}
			if _, _, err := r.Next(); err != io.EOF {
				t.Fatalf("at the end: %v", err)
			}
			// Cut off anywhere, it says so or ends between two packets.
			for cut := range whole {
				r, err := packet.NewCaptureReader(bytes.NewReader(whole[:cut]))
				for n := 0; err == nil; n++ {
					if n > len(pkts) {
						t.Fatal("more packets than were written")
					}
					_, _, err = r.Next()
				}
			}
		})
	}
}

// Real captures, made by others with tcpdump on Ethernet.
func TestCaptureReadsRealFiles(t *testing.T) {
	files, _ := filepath.Glob("../../shared/data/centrace/*.pcap")
	if len(files) == 0 {
		t.Skip("no ../shared/data/centrace here")
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := packet.NewCaptureReader(f)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		n, bad := 0, 0
		for {
			at, raw, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if at.Year() < 2015 || at.Year() > 2026 {
				t.Errorf("%s: a packet of %v", name, at)
			}
			n++
			if _, err := packet.Parse(raw); err != nil {
				bad++
			}
		}
		f.Close()
		if n == 0 || bad > 0 {
			t.Errorf("%s: %d packets, %d of them not read, %d frames skipped", filepath.Base(name), n, bad, r.Skipped)
		}
	}
}

func FuzzCapture(f *testing.F) {
	for _, create := range []func(io.Writer) (*CaptureWriter, error){NewCaptureWriter, NewPcapWriter} {
		var file bytes.Buffer
		w, _ := create(&file)
		w.Write(time.Unix(1, 2), packet.BuildUDP(a4, b4, 0, 0, []byte("x")))
		w.Flush()
		f.Add(file.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := packet.NewCaptureReader(bytes.NewReader(b))
		for n := 0; err == nil; n++ {
			var raw []byte
			if _, raw, err = r.Next(); err == nil {
				packet.Parse(raw)
			}
			if n > len(b) {
				t.Fatal("more packets than bytes")
			}
		}
	})
}
