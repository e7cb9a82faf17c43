package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestCaptureRoundTrip(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 123456789, time.UTC)
	pkts := [][]byte{
		BuildTCP(Segment{Src: a4, Dst: b4, Flags: SYN}),
		BuildUDP(a6, b6, 3, 0, bytes.Repeat([]byte("x"), 1300)),
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
			r, err := NewCaptureReader(bytes.NewReader(whole))
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
				r, err := NewCaptureReader(bytes.NewReader(whole[:cut]))
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
		r, err := NewCaptureReader(f)
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
			if _, err := Parse(raw); err != nil {
				bad++
			}
		}
		f.Close()
		if n == 0 || bad > 0 {
			t.Errorf("%s: %d packets, %d of them not read, %d frames skipped", filepath.Base(name), n, bad, r.Skipped)
		}
	}
}

func TestCaptureLinkTypes(t *testing.T) {
	ip := BuildUDP(a4, b4, 0, 0, []byte("x"))
	eth := append(make([]byte, 12), 8, 0)
	vlan := append(make([]byte, 12), 0x81, 0, 0, 5, 8, 0)
	sll := append(make([]byte, 14), 8, 0)
	sll2 := append([]byte{8, 0}, make([]byte, 18)...)
	for name, c := range map[string]struct {
		link uint32
		head []byte
	}{"ethernet": {1, eth}, "vlan": {1, vlan}, "sll": {113, sll}, "sll2": {276, sll2}, "null": {0, make([]byte, 4)}, "raw": {101, nil}} {
		if got := ipOf(c.link, append(c.head[:len(c.head):len(c.head)], ip...)); !bytes.Equal(got, ip) {
			t.Errorf("%s: no IP packet found", name)
		}
	}
	if ipOf(1, append(append(make([]byte, 12), 8, 6), ip...)) != nil {
		t.Error("ARP was taken for IP")
	}
	if ipOf(105, ip) != nil {
		t.Error("a link type that is not read gave a packet")
	}
}

func TestCaptureBounds(t *testing.T) {
	if _, err := NewCaptureReader(bytes.NewReader([]byte("GIF89a..."))); !errors.Is(err, ErrNotCapture) {
		t.Errorf("%v", err)
	}
	// A frame that claims four gigabytes must not be allocated.
	head := make([]byte, 24+16)
	binary.LittleEndian.PutUint32(head, 0xa1b2c3d4)
	binary.LittleEndian.PutUint32(head[20:], 101)
	binary.LittleEndian.PutUint32(head[24+8:], 0xfffffff0)
	r, err := NewCaptureReader(bytes.NewReader(head))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Next(); err == nil || err == io.EOF {
		t.Errorf("a frame of 4 GB: %v", err)
	}
	if cap(r.buf) > maxCaptured {
		t.Errorf("%d bytes were allocated", cap(r.buf))
	}
}

func FuzzCapture(f *testing.F) {
	for _, create := range []func(io.Writer) (*CaptureWriter, error){NewCaptureWriter, NewPcapWriter} {
		var file bytes.Buffer
		w, _ := create(&file)
		w.Write(time.Unix(1, 2), BuildUDP(a4, b4, 0, 0, []byte("x")))
		w.Flush()
		f.Add(file.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewCaptureReader(bytes.NewReader(b))
		for n := 0; err == nil; n++ {
			var raw []byte
			if _, raw, err = r.Next(); err == nil {
				Parse(raw)
			}
			if n > len(b) {
				t.Fatal("more packets than bytes")
			}
		}
	})
}
