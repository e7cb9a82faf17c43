package packet

import (
	"fmt"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// CaptureWriter writes raw IP packets as pcapng (link type RAW, nanoseconds).
type CaptureWriter struct{ w *pcapgo.NgWriter }

// NewCaptureWriter begins a pcapng file.
func NewCaptureWriter(w io.Writer) (*CaptureWriter, error) {
	ng, err := pcapgo.NewNgWriter(w, layers.LinkTypeRaw)
	if err != nil {
		return nil, fmt.Errorf("packet: beginning a capture: %w", err)
	}
	return &CaptureWriter{ng}, nil
}

// Write appends one packet.
func (c *CaptureWriter) Write(at time.Time, raw []byte) error {
	return c.w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(raw), Length: len(raw)}, raw)
}

// Flush writes what is buffered.
func (c *CaptureWriter) Flush() error { return c.w.Flush() }
