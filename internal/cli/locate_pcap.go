package cli

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"govah/internal/i18n"
	"govah/locate"
	"govah/measure"
	"govah/packet"
)

// maxCaptureBytes bounds what is kept of one capture: a traceroute has some
// hundreds of packets.
const maxCaptureBytes = 256 << 20

// locateCaptures concludes from two saved traceroutes.
func (a *app) locateCaptures(cmd *cobra.Command, control, test string, o *locateOptions) (err error) {
	lang, err := a.language()
	if err != nil {
		return err
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if !slices.Contains([]string{"pcap", "json", "output", "report", "lang", "quiet", "verbose"}, f.Name) && err == nil {
			err = usage("leave it out: captures are read as they are", "--%s does not go with --pcap", f.Name)
		}
	})
	if err != nil {
		return err
	}
	c, err := a.readCapture(control)
	if err != nil {
		return err
	}
	t, err := a.readCapture(test)
	if err != nil {
		return err
	}
	observations, err := locate.FromCaptures(c, t)
	if err != nil {
		return hint(err, "give two traceroutes to one server: the harmless one first, then the blocked one")
	}
	for i := range observations {
		naming(&observations[i])
	}
	began := c[0].At
	if t[0].At.Before(began) {
		began = t[0].At
	}
	stamp := began.UTC().Format("2006-01-02T15:04:05.000000Z07:00")
	run := &measure.Run{Type: "run", Schema: 1, Run: newRunID(), Tool: "govah", Version: Version(), Started: began.UTC().Format(time.RFC3339), Targets: 1, Settings: "locate --pcap"}
	m := &measure.Measurement{Type: "measurement", Schema: 1, Run: run.Run, ID: "m1", Started: stamp, Screened: 1, Imported: "pcap", Observations: observations, Complete: true}
	for _, ob := range observations {
		if name := ob.SNI + ob.Host; ob.Role == measure.RoleTest && m.Target == "" {
			if m.Target = ob.Remote; name != "" {
				m.Target = name
			}
		}
	}
	list := locate.Infer(m, func(x netip.Addr) string {
		_, country := networkOf(x)
		return country
	})
	k, err := a.keepLocated(&o.checkOptions)
	if err != nil {
		return err
	}
	defer k.close(&err)
	end := &measure.End{Type: "end", Schema: 1, Run: run.Run, Ended: stamp, Measurements: 1}
	if err := a.tellLocated(lang, o, k, run, m, list, end, ""); err != nil {
		return err
	}
	if a.verbose && !a.json {
		// Researchers compare with what is published.
		p, err := locate.PublishedOutcome(c, t)
		if err != nil {
			return err
		}
		device := "–"
		if p.Device.IsValid() {
			device = p.Device.String()
		}
		fmt.Fprintln(a.out, lang.Text("cli.centrace", i18n.LTR("class", p.Class), i18n.LTR("kind", p.Kind), i18n.LTR("device", device)))
	}
	return nil
}

// naming adds the networks of the addresses in an observation.
func naming(o *measure.Observation) {
	if ap, err := netip.ParseAddrPort(o.Remote); err == nil {
		o.ASN, _ = networkOf(ap.Addr())
	}
	if o.Path != nil && o.Path.ICMP != nil {
		if from, err := netip.ParseAddr(o.Path.ICMP.From); err == nil {
			o.Path.ICMP.ASN, _ = networkOf(from)
		}
	}
}

// readCapture reads the packets of a pcap or pcapng file.
func (a *app) readCapture(path string) ([]locate.CapturedPacket, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, hint(err, "--pcap takes two capture files: CONTROL TEST")
	}
	defer f.Close()
	const what = "it must be a pcap or pcapng file, as tcpdump -w and CenTrace write them"
	r, err := packet.NewCaptureReader(f)
	if err != nil {
		return nil, hint(fmt.Errorf("%s: %w", path, err), what)
	}
	var list []locate.CapturedPacket
	kept := 0
	for {
		at, raw, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if len(list) == 0 {
				return nil, hint(fmt.Errorf("%s: %w", path, err), what)
			}
			// What came before is whole.
			fmt.Fprintf(a.err, "govah: %s: broken off after %d packets: %s\n", clean(path), len(list), clean(err.Error()))
			break
		}
		if kept += len(raw); kept > maxCaptureBytes {
			return nil, hint(fmt.Errorf("%s holds more than %d MB of packets", path, maxCaptureBytes>>20), "cut it to the traceroute's own packets")
		}
		list = append(list, locate.CapturedPacket{At: at, Data: append([]byte(nil), raw...)})
		if a.ctx.Err() != nil {
			return nil, exitCode(exitInterrupted)
		}
	}
	if len(list) == 0 {
		return nil, hint(fmt.Errorf("%s holds no IP packet", path), what)
	}
	return list, nil
}
