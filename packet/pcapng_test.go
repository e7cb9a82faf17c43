package packet

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

var captureTime = time.Date(2026, 3, 4, 5, 6, 7, 123456789, time.UTC)

// capturedPackets need each amount of padding.
func capturedPackets() [][]byte {
	list := [][]byte{BuildTCP(Segment{Src: a4, Dst: b4, Flags: SYN}), BuildUDP(a6, b6, 3, 0, bytes.Repeat([]byte("x"), 1300))}
	for n := range 4 {
		list = append(list, BuildUDP(a4, b4, 0, 0, make([]byte, n)))
	}
	return list
}

// pcapngOf is a file of our writer, pcapOf one of gopacket's.
func pcapngOf(t testing.TB, pkts [][]byte, comment string) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := NewCaptureWriter(&file)
	for i, p := range pkts {
		if err == nil {
			err = w.Write(captureTime.Add(time.Duration(i)), p, Direction(i%3), comment)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func pcapOf(t testing.TB, pkts [][]byte) []byte {
	t.Helper()
	var file bytes.Buffer
	w := pcapgo.NewWriterNanos(&file)
	err := w.WriteFileHeader(maxCaptured, layers.LinkTypeRaw)
	for i, p := range pkts {
		err = errors.Join(err, w.WritePacket(gopacket.CaptureInfo{Timestamp: captureTime.Add(time.Duration(i)), CaptureLength: len(p), Length: len(p)}, p))
	}
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// TestCaptureWriter: another implementation reads what we write: packets,
// times, directions and comments.
func TestCaptureWriter(t *testing.T) {
	pkts := capturedPackets()
	for _, comment := range []string{"", "l1", "چهار حرف", strings.Repeat("x", maxComment)} {
		r, err := pcapgo.NewNgReader(bytes.NewReader(pcapngOf(t, pkts, comment)), pcapgo.NgReaderOptions{ErrorOnMismatchingLinkType: true})
		if err != nil {
			t.Fatal(err)
		}
		if r.LinkType() != layers.LinkTypeRaw {
			t.Errorf("link type %v", r.LinkType())
		}
		for i, want := range pkts {
			data, info, options, err := r.ReadPacketDataWithOptions()
			if err != nil || !bytes.Equal(data, want) || !info.Timestamp.Equal(captureTime.Add(time.Duration(i))) || info.Length != len(want) {
				t.Fatalf("comment of %d bytes, packet %d: %d bytes, %+v, %v", len(comment), i, len(data), info, err)
			}
			if got := strings.Join(options.Comments, "|"); got != comment {
				t.Errorf("comment %q, want %q", got, comment)
			}
			got := NoDirection
			if options.Flags != nil {
				got = Direction(options.Flags.Direction)
			}
			if got != Direction(i%3) {
				t.Errorf("packet %d: direction %v", i, got)
			}
		}
		if _, _, err := r.ReadPacketData(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
}

// TestCaptureWriterCuts: a packet of which only the beginning is kept says so,
// and the last block how many are missing.
func TestCaptureWriterCuts(t *testing.T) {
	whole := BuildUDP(a4, b4, 3, 0, bytes.Repeat([]byte("x"), 1300))
	var file bytes.Buffer
	w, err := NewCaptureWriter(&file)
	if err == nil {
		err = errors.Join(w.WriteCut(captureTime, whole[:64], len(whole), Inbound, "m1/o2"), w.Statistics(captureTime, 7, 6, "six are missing"))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{w.WriteCut(captureTime, whole, len(whole)-1, Inbound, ""), w.Statistics(captureTime, 1, 0, "\xff"), w.Statistics(captureTime, 1, 0, strings.Repeat("x", maxComment+1))} {
		if err == nil {
			t.Error("written all the same")
		}
	}
	r, err := pcapgo.NewNgReader(bytes.NewReader(file.Bytes()), pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	data, info, err := r.ReadPacketData()
	if err != nil || !bytes.Equal(data, whole[:64]) || info.Length != len(whole) {
		t.Errorf("%d bytes, %+v, %v", len(data), info, err)
	}
	if _, _, err := r.ReadPacketData(); err != io.EOF {
		t.Errorf("after the last packet: %v", err)
	}
	i, err := r.Interface(0)
	if s := i.Statistics; err != nil || s.PacketsReceived != 7 || s.PacketsDropped != 6 || s.Comment != "six are missing" {
		t.Errorf("%+v, %v", s, err)
	}
	own, err := NewCaptureReader(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if _, raw, err := own.Next(); err != nil || !bytes.Equal(raw, whole[:64]) || own.Truncated != 1 {
		t.Errorf("%d bytes, %d cut, %v", len(raw), own.Truncated, err)
	}
	if _, _, err := own.Next(); err != io.EOF {
		t.Errorf("after the last packet: %v", err)
	}
}

type failingAfter struct{ left int }

func (f *failingAfter) Write(p []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestCaptureWriterRefuses(t *testing.T) {
	ok := BuildUDP(a4, b4, 0, 0, nil)
	w, err := NewCaptureWriter(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"a packet that is too large":     w.Write(captureTime, make([]byte, maxCaptured+1), Inbound, ""),
		"a comment that is too long":     w.Write(captureTime, ok, Inbound, strings.Repeat("x", maxComment+1)),
		"a comment that is no text":      w.Write(captureTime, ok, Inbound, "\xff"),
		"a time that has no number":      w.Write(time.Time{}, ok, Inbound, ""),
		"a time that is too far to come": w.Write(time.Unix(1<<60, 0), ok, Inbound, ""),
	} {
		if err == nil {
			t.Errorf("%s was written", name)
		}
	}
	// The largest there may be is read again.
	largest := append(BuildUDP(a4, b4, 0, 0, make([]byte, 1000)), make([]byte, maxCaptured-1028)...)
	r, err := NewCaptureReader(bytes.NewReader(pcapngOf(t, [][]byte{largest}, strings.Repeat("x", maxComment))))
	if err != nil {
		t.Fatal(err)
	}
	if _, raw, err := r.Next(); err != nil || len(raw) != maxCaptured {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
	for n := range 3 {
		w, err := NewCaptureWriter(&failingAfter{n})
		if err == nil {
			err = w.Write(captureTime, ok, Inbound, "")
		}
		if !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("a disk that is full after %d blocks: %v", n, err)
		}
	}
	if n := testing.AllocsPerRun(100, func() { w.Write(captureTime, ok, Inbound, "l1") }); n > 2 {
		t.Errorf("%v allocations for a packet", n)
	}
}

func TestCaptureRoundTrip(t *testing.T) {
	pkts := capturedPackets()
	for name, whole := range map[string][]byte{"pcapng": pcapngOf(t, pkts, "a comment"), "pcap": pcapOf(t, pkts)} {
		t.Run(name, func(t *testing.T) {
			r, err := NewCaptureReader(bytes.NewReader(whole))
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range pkts {
				when, got, err := r.Next()
				if err != nil || !bytes.Equal(got, want) || !when.Equal(captureTime.Add(time.Duration(i))) {
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

func FuzzCapture(f *testing.F) {
	one := capturedPackets()[:1]
	for _, file := range [][]byte{pcapngOf(f, one, "c"), pcapOf(f, one)} {
		f.Add(slices.Clone(file))
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
