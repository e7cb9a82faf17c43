package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"
)

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

// A pcapng file in the other byte order, with blocks that are passed over,
// several interfaces, each kind of packet block, and time stamps of other
// resolutions (draft-ietf-opsawg-pcapng).
func TestCaptureBlocks(t *testing.T) {
	ip := BuildUDP(a4, b4, 0, 0, []byte("x")) // 29 bytes
	be := binary.BigEndian
	var file []byte
	block := func(typ uint32, body []byte) {
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
		n := uint32(12 + len(body))
		file = be.AppendUint32(be.AppendUint32(file, typ), n)
		file = be.AppendUint32(append(file, body...), n)
	}
	section := func() {
		block(0x0a0d0d0a, append(be.AppendUint32(nil, 0x1a2b3c4d), 0, 1, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255))
	}
	iface := func(link uint16, options ...byte) {
		block(1, append(be.AppendUint32(be.AppendUint16(be.AppendUint16(nil, link), 0), 0), options...))
	}
	enhanced := func(id uint32, ticks uint64, orig int) {
		b := be.AppendUint32(nil, id)
		b = be.AppendUint64(b, ticks)
		b = be.AppendUint32(be.AppendUint32(b, uint32(len(ip))), uint32(orig))
		block(6, append(b, ip...))
	}
	section()
	iface(101)                                      // microseconds
	iface(101, 9, 9, 9, 9)                          // a malformed option
	iface(101, 0, 9, 0, 1, 0x80|10, 0, 0, 0)        // 1/1024 s
	iface(101, 0, 9, 0, 1, 9, 0, 0, 0, 0, 14, 0, 8, // nanoseconds, and
		0, 0, 0, 0, 0, 0, 0, 100) // 100 s later
	iface(105) // not read
	block(4, make([]byte, 400))
	enhanced(0, 1_500_000, len(ip))
	enhanced(2, 1536, len(ip))
	enhanced(3, 1_500_000_000, len(ip)+10)
	enhanced(4, 1, len(ip))
	old := be.AppendUint64(be.AppendUint16(be.AppendUint16(nil, 0), 0), 2_000_000)
	old = be.AppendUint32(be.AppendUint32(old, uint32(len(ip))), uint32(len(ip)))
	block(2, append(old, ip...))
	block(3, append(be.AppendUint32(nil, uint32(len(ip))), ip...))
	section()
	iface(101)
	enhanced(0, 3_000_000, len(ip))

	r, err := NewCaptureReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []time.Time{time.Unix(1, 5e8), time.Unix(1, 5e8), time.Unix(101, 5e8), time.Unix(2, 0), {}, time.Unix(3, 0)} {
		at, raw, err := r.Next()
		if err != nil || !bytes.Equal(raw, ip) || !at.Equal(want) {
			t.Fatalf("packet %d: %d bytes at %v, %v; want %v", i, len(raw), at, err, want)
		}
	}
	if _, _, err := r.Next(); err != io.EOF || r.Skipped != 1 || r.Truncated != 1 {
		t.Errorf("end %v, %d skipped, %d truncated", err, r.Skipped, r.Truncated)
	}
	section()
	enhanced(0, 1, len(ip)) // of an interface that this section does not describe
	r, _ = NewCaptureReader(bytes.NewReader(file))
	for err = nil; err == nil; {
		_, _, err = r.Next()
	}
	if err == io.EOF {
		t.Error("a packet of an interface that is not described was taken")
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
