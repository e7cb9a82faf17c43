package cli

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"govah/internal/i18n"
	"govah/packet"
	"govah/wire"
)

// keptPackets is the capture beside a measurement file: the packets of the
// searches that locate, where they may be captured. It is there whole, at the
// end of a run, or not at all.
type keptPackets struct {
	dir string

	mu  sync.Mutex
	tmp *os.File
	buf *bufio.Writer
	out *packet.CaptureWriter
	err error
}

const packetsName = "locate" // .pcapng

// keepPackets makes none without a measurement file.
func keepPackets(beside string) *keptPackets {
	if beside == "" {
		return nil
	}
	return &keptPackets{dir: filepath.Dir(beside)}
}

// add writes the packets of one search; the first says of which.
func (k *keptPackets) add(id string, list []wire.Packet) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil || len(list) == 0 {
		return
	}
	if k.tmp == nil {
		if k.tmp, k.err = os.CreateTemp(k.dir, ".govah-packets-*"); k.err != nil {
			return
		}
		k.buf = bufio.NewWriterSize(k.tmp, 1<<16)
		if k.out, k.err = packet.NewCaptureWriter(k.buf); k.err != nil {
			return
		}
	}
	for _, p := range list {
		d := packet.Inbound
		if p.Sent {
			d = packet.Outbound
		}
		if k.err = k.out.Write(p.At, p.Data, d, id); k.err != nil {
			return
		}
		id = ""
	}
}

// close puts the file in its place, under a name that nothing has, and returns
// that; "" if nothing was captured.
func (k *keptPackets) close() (path string, err error) {
	if k == nil {
		return "", nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tmp == nil {
		if k.err != nil {
			return "", hint(fmt.Errorf("writing the captured packets: %w", k.err), "choose a folder that you can write to")
		}
		return "", nil
	}
	tmp := k.tmp
	k.tmp = nil
	err = k.err
	if err == nil {
		err = k.buf.Flush()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		path, err = unusedName(k.dir)
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return "", hint(fmt.Errorf("writing the captured packets: %w", err), "is the disk full?")
	}
	return path, nil
}

// unusedName takes the first name that no file has.
func unusedName(dir string) (string, error) {
	for n := 1; n < 10000; n++ {
		name := packetsName
		if n > 1 {
			name = fmt.Sprintf("%s-%d", packetsName, n)
		}
		path := filepath.Join(dir, name+".pcapng")
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err == nil {
			return path, f.Close()
		}
		if !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("%s-2.pcapng to %s-9999.pcapng exist", packetsName, packetsName)
}

// discard removes what was not put in its place.
func (k *keptPackets) discard() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tmp != nil {
		k.tmp.Close()
		os.Remove(k.tmp.Name())
		k.tmp = nil
	}
}

// tellPackets says where they are to who reads JSON; others are told at the
// end, with the other files.
func (a *app) tellPackets(lang i18n.Lang, path string) {
	if a.json && !a.quiet && path != "" {
		a.note(lang.Text("cli.packets", i18n.LTR("file", clean(path))))
	}
}
