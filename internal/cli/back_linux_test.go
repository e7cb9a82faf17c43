package cli

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"govah/lab/box"
	"govah/lab/kernel"
	"govah/measure"
	"govah/packet"
)

// between joins two kernels by routers, one of which may be silent, and a
// device that alters what mail servers say.
type between struct {
	routers []netip.Addr // IPv4 and then IPv6 of each, from the client
	silent  int          // which does not answer, from 0
	device  *box.Mail    // before the router at
	at      int

	mu   sync.Mutex
	ends [2]func([]byte) // the client's, the helper's
}

// link is the line of one end.
func (b *between) link(end int, privileged bool, addrs ...netip.Addr) kernel.Link {
	return kernel.Link{Addresses: addrs, Privileged: privileged,
		Attach: func(receive func([]byte)) {
			b.mu.Lock()
			b.ends[end] = receive
			b.mu.Unlock()
		},
		Send: func(pkt []byte) {
			if packet.FixChecksums(pkt) != nil { // the sender leaves them to its network card
				return
			}
			if end == 0 {
				b.walk(box.Out, pkt, 0)
			} else {
				b.walk(box.In, pkt, len(b.routers)/2)
			}
		}}
}

// walk takes a packet on, from before the router i on its way out, or from
// behind it on its way in.
func (b *between) walk(d box.Direction, pkt []byte, i int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n := len(b.routers) / 2; ; {
		if b.device != nil && d == box.Out && i == b.at {
			var out []byte
			b.device.Handle(d, pkt, time.Now(), func(_ box.Direction, p []byte, _ time.Duration) { out = p })
			pkt = out
		}
		if d == box.In {
			i--
		}
		if i < 0 || i == n {
			end := b.ends[0]
			if i == n {
				end = b.ends[1]
			}
			if end != nil && pkt != nil {
				end(pkt)
			}
			return
		}
		ttl, err := packet.DecrementTTL(pkt)
		if err != nil {
			return
		}
		if ttl == 0 {
			from := b.routers[2*i]
			if pkt[0]>>4 == 6 {
				from = b.routers[2*i+1]
			}
			if i == b.silent {
				return
			}
			if pkt, err = packet.BuildICMPError(packet.TimeExceeded, from, pkt, 0); err != nil {
				return
			}
			d = d.Reverse()
			if d == box.Out {
				i++
			}
			continue
		}
		if b.device != nil && d == box.In && i == b.at {
			var out []byte
			b.device.Handle(d, pkt, time.Now(), func(_ box.Direction, p []byte, _ time.Duration) { out = p })
			pkt = out
		}
		if d == box.Out {
			i++
		}
	}
}

// firstLine keeps what is written and tells of its first line.
type firstLine struct {
	mu   sync.Mutex
	text bytes.Buffer
	line chan string
}

func (f *firstLine) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := bytes.ContainsRune(f.text.Bytes(), '\n')
	f.text.Write(p)
	if line, _, ok := strings.Cut(f.text.String(), "\n"); ok && !before {
		f.line <- line
	}
	return len(p), nil
}

// TestKernelWayBack: a helper on the kernel's own stack, with the right to
// capture packets, says its words with TTLs that hold for what it sends and
// sends again, and hears its routers; a client without rights, on another
// kernel's stack, finds the link. Without the right it is as it was.
func TestKernelWayBack(t *testing.T) {
	t.Parallel()
	needsKernel(t)
	client, server := []netip.Addr{netip.MustParseAddr("5.100.0.7"), netip.MustParseAddr("2a0d:100::7")}, []netip.Addr{netip.MustParseAddr("45.10.0.77"), netip.MustParseAddr("2a0e:1000::4d")}
	for _, c := range []struct {
		name, does string
		family     int // 0 IPv4
		privileged bool
		listens    string
	}{
		{"IPv4", "mask-offer", 0, true, "45.10.0.77"},
		{"IPv4 at a socket for both", "mask-offer", 0, true, "[::]"},
		{"IPv6", "mask-banner", 1, true, "[2a0e:1000::4d]"},
		{"without the right", "mask-offer", 0, false, "45.10.0.77"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			// Three routers, the device, and three more.
			b := &between{silent: 1, at: 3, device: &box.Mail{Ports: []int{5870}, Does: []string{c.does}}}
			for i := range 6 {
				v6 := netip.MustParseAddr("2a0d:100::").As16()
				v6[15] = byte(100 + i)
				b.routers = append(b.routers, netip.AddrFrom4([4]byte{5, 100, 254, byte(1 + i)}), netip.AddrFrom16(v6))
			}
			govah := func(args ...string) *exec.Cmd {
				cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
				cmd.Env = append(os.Environ(), asGovah+"=1", "HOME="+t.TempDir())
				return cmd
			}
			name := server[c.family].String()
			if c.family == 1 {
				name = "[" + name + "]"
			}
			var serving sync.WaitGroup
			hctx, stop := context.WithCancel(ctx)
			defer serving.Wait()
			defer stop()
			first, errs, gone := &firstLine{line: make(chan string, 1)}, &strings.Builder{}, make(chan struct{})
			serving.Go(func() {
				defer close(gone)
				cmd := govah("helper", "--listen", c.listens+":8443", "--mail", "smtp://"+c.listens+":5870", "--name", name)
				cmd.Stdout, cmd.Stderr = first, errs
				kernel.Run(hctx, b.link(1, c.privileged, server...), cmd)
			})
			var url string
			select {
			case url = <-first.line:
			case <-gone:
				t.Fatalf("no helper: %s", errs.String())
			}
			var out, said strings.Builder
			cmd := govah("locate", "--json", "--consent", "--seed", "7", "--control", name, "--helper", url, "smtp://"+name+":5870")
			cmd.Stdout, cmd.Stderr = &out, &said
			if err := kernel.Run(ctx, b.link(0, false, client...), cmd); err != nil {
				t.Fatalf("%v\n%s", err, said.String())
			}
			list := ofType[measure.Location](t, out.String(), "location")
			if !c.privileged {
				if len(list) != 1 || !slices.Contains(list[0].Unknown, measure.WhyWayBack) || len(list[0].Set) > 0 {
					t.Errorf("%+v", list)
				}
				return
			}
			if len(list) != 2 {
				t.Fatalf("%+v", list)
			}
			l := list[1]
			if l.Outcome != measure.Located || l.Kind != measure.Alters || !l.FromHelper || len(l.Set) != 1 || l.Set[0].Low != 3 || l.Position != measure.InPath {
				t.Errorf("%s %s %+v %v", l.Outcome, l.Kind, l.Set, l.Hops)
			}
			if len(l.Set) == 1 && (l.Set[0].From != b.routers[2*3+c.family].String() || l.Set[0].To != b.routers[2*2+c.family].String()) {
				t.Errorf("%+v", l.Set)
			}
			if slices.Contains(list[0].Unknown, measure.WhyWayBack) {
				t.Errorf("%v", list[0].Unknown)
			}
		})
	}
}
