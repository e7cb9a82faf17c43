// Package pcap writes packet captures: pcapng and pcap, link type RAW, in
// constant memory; package packet reads them. It is apart because the library
// behind it adds some five megabytes to every program that imports it.
package pcap

import (
	"bufio"
	"fmt"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

const maxCaptured = 256 << 10 // of one frame, as package packet reads

// CaptureWriter writes raw IP packets as pcapng or pcap (link type RAW,
// nanoseconds).
type CaptureWriter struct {
	w     gopacketWriter
	flush func() error
}

type gopacketWriter interface {
	WritePacket(gopacket.CaptureInfo, []byte) error
}

// NewCaptureWriter begins a pcapng file.
func NewCaptureWriter(w io.Writer) (*CaptureWriter, error) {
	ng, err := pcapgo.NewNgWriter(w, layers.LinkTypeRaw)
	if err != nil {
		return nil, fmt.Errorf("pcap: beginning a capture: %w", err)
	}
	return &CaptureWriter{ng, ng.Flush}, nil
}

// NewPcapWriter begins a file of the older format.
func NewPcapWriter(w io.Writer) (*CaptureWriter, error) {
	b := bufio.NewWriter(w)
	p := pcapgo.NewWriterNanos(b)
	if err := p.WriteFileHeader(maxCaptured, layers.LinkTypeRaw); err != nil {
		return nil, fmt.Errorf("pcap: beginning a capture: %w", err)
	}
	return &CaptureWriter{p, b.Flush}, nil
}

// Write appends one packet.
func (c *CaptureWriter) Write(at time.Time, raw []byte) error {
	return c.w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(raw), Length: len(raw)}, raw)
}

// Flush writes what is buffered.
func (c *CaptureWriter) Flush() error { return c.flush() }

// Bounds of what is read from a capture file.
