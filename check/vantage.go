package check

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"govah/measure"
	"govah/wire"
)

// vantage is a test helper: somebody else's look at the same target, and a
// server that answers every name.
type vantage struct {
	url   string
	addrs []netip.Addr
	port  uint16
}

// findHelpers resolves the helpers' own addresses. One that cannot be resolved
// is asked all the same, so that its failure is on record.
func (r *runner) findHelpers(ctx context.Context) {
	for _, raw := range r.cfg.Helpers {
		host, port, err := HelperHost(raw)
		if err != nil {
			continue
		}
		v := vantage{url: raw, port: port}
		if a, err := netip.ParseAddr(host); err == nil {
			v.addrs = []netip.Addr{a.Unmap()}
		} else {
			v.addrs = r.resolveCanary(ctx, host)
		}
		r.helpers = append(r.helpers, v)
	}
}

// HelperHost is where a helper's URL leads.
func HelperHost(raw string) (host string, port uint16, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", 0, err
	}
	port = 443
	if p, err := strconv.ParseUint(u.Port(), 10, 16); err == nil && p > 0 {
		port = uint16(p)
	}
	return u.Hostname(), port, nil
}

// ParseHelper checks a helper's URL as typed: https, with the pin of its key
// as fragment where its certificate is its own.
func ParseHelper(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Hostname() == "":
		return fmt.Errorf("%q is no helper URL; it looks like https://192.0.2.1:8443/#sha256=…, as `govah helper` prints it", raw)
	case u.Scheme != "https":
		return fmt.Errorf("helper %q: its scheme must be https", raw)
	case u.Fragment != "" && !strings.HasPrefix(u.Fragment, "sha256=") && !strings.HasPrefix(u.Fragment, "receipt="):
		return fmt.Errorf("helper %q: what follows # must be sha256= and the pin that `govah helper` printed", raw)
	}
	return nil
}

// askHelpers has every helper look at the target, once per measurement, with
// the addresses that this device got.
func (j *job) askHelpers(ctx context.Context) {
	if j.helped || len(j.r.cfg.Helpers) == 0 || j.target.Scheme == "tcp" || j.target.Scheme == "ssh" {
		return
	}
	j.helped = true
	var addrs []string
	j.mu.Lock()
	if res := j.names[j.target.Host]; res != nil {
		for _, list := range [][]netip.Addr{res.fromSystem, res.fromEncrypted} {
			for _, a := range list {
				if s := a.String(); len(addrs) < 8 && !slices.Contains(addrs, s) {
					addrs = append(addrs, s)
				}
			}
		}
	}
	j.mu.Unlock()
	quic := j.suspectedLayer(measure.StepQUIC)
	var wants []string
	if wire.MailPorts[j.target.Scheme] != 0 {
		wants = []string{"mail"}
	}
	var wg sync.WaitGroup
	for _, v := range j.r.helpers {
		wg.Go(func() {
			if j.r.pacer.wait(ctx) != nil {
				return
			}
			meta := wire.Meta{Role: measure.RoleHelper, Stage: measure.StageConfirm}
			reply, o := wire.AskHelper(ctx, j.r.cfg.Network, j.log, meta, v.url, measure.HelperRequest{
				Schema: 1, URL: j.target.URL, Addresses: addrs, QUIC: quic, Wants: wants}, j.r.trust)
			if reply != nil {
				j.log.Merge(v.url, o, reply)
				j.mu.Lock()
				for _, g := range reply.Mail {
					j.greeters = append(j.greeters, greeter{v, g})
				}
				j.mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func (j *job) suspectedLayer(layer measure.Step) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.suspects {
		if s.layer == layer {
			return true
		}
	}
	return false
}

// helperReached says whether a helper connected to that very address.
func (j *job) helperReached(addr netip.Addr, port int) bool {
	want := netip.AddrPortFrom(addr, uint16(port)).String()
	for _, o := range j.log.Observations() {
		if o.Role == measure.RoleHelper && o.Step == measure.StepTCP && o.Remote == want && o.Failure == measure.NoFailure {
			return true
		}
	}
	return false
}

// helperCompleted says whether a helper completed a handshake for the name at
// that very address.
func (j *job) helperCompleted(addr netip.Addr, name string) bool {
	for _, o := range j.log.Observations() {
		if o.Role != measure.RoleHelper || o.Step != measure.StepTLS || o.SNI != name || o.Failure != measure.NoFailure {
			continue
		}
		if ap, err := netip.ParseAddrPort(o.Remote); err == nil && ap.Addr() == addr {
			return true
		}
	}
	return false
}

// bulkURL is a helper's stream of incompressible bytes, under any name.
func bulkURL(name string) string {
	if name == "" {
		name = "bulk.invalid"
	}
	return fmt.Sprintf("https://%s/bulk?bytes=%d", name, bulkBytes)
}
