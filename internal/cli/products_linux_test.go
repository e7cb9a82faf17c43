package cli

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"govah/lab"
	"govah/lab/kernel"
	"govah/measure"
)

// needsPrograms skips a test of real devices where they are not installed.
func needsPrograms(t *testing.T, names ...string) {
	t.Helper()
	needsKernel(t)
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed here: %v", name, err)
		}
	}
}

// onSecondRouter is a line whose second router leads TCP or UDP to ports of a
// program there, in both families' stead over IPv4.
func onSecondRouter(w *lab.World, p kernel.Program, redirects ...redirect) kernel.Link {
	link := kernel.Of(w)
	link.Routers, p.Router = 2, 2
	for _, r := range redirects {
		p.Before = append(p.Before, []string{"iptables", "-t", "nat", "-A", "PREROUTING", "-i", "in0", "-p", r.protocol, "--dport", r.port, "-j", "REDIRECT", "--to-ports", r.to})
		p.Listens = append(p.Listens, r.protocol+":"+r.to)
	}
	link.Programs = []kernel.Program{p}
	return link
}

type redirect struct{ protocol, port, to string }

// atSecondRouter says that a device was found at the second router.
func atSecondRouter(t *testing.T, out string) {
	t.Helper()
	list := ofType[measure.Location](t, out, "location")
	if len(list) == 0 {
		t.Error("nothing was located")
	}
	for _, l := range list {
		if l.Outcome != measure.Located || l.Kind != measure.Terminates || l.Position != measure.InPath || l.Set[0].Low != 1 || l.Set[0].PerMille < 990 {
			t.Errorf("located elsewhere: %+v", l)
		}
	}
}

// isIdentified says that what answers in the others' place is told once, as
// product or, "", as an unknown one that has an id.
func isIdentified(t *testing.T, out, payload, product string) {
	t.Helper()
	n := 0
	for _, id := range ofType[measure.Identification](t, out, "identification") {
		if id.Payload != payload {
			continue
		}
		n++
		t.Logf("%s: %s %+v, id %s, %+v", payload, id.Outcome, id.Products, id.Cluster, id.Properties)
		switch {
		case id.Method == "" || len(id.Properties) == 0 || id.Cluster == "":
			t.Errorf("it says too little: %+v", id)
		case product == "" && (id.Outcome != measure.UnknownDevice || len(id.Products) > 0):
			t.Errorf("unknown, and named: %+v", id)
		case product != "" && (id.Outcome != measure.ProductNamed || id.Products[0].Name != product):
			t.Errorf("it is not named: %+v", id)
		}
	}
	if n != 1 {
		t.Errorf("%d identifications over %s", n, payload)
	}
}

// productTime is how long after the start of a run a device may be unknown:
// until it is found, named where it has a name, and located. It is held against
// only where it is given, for beside other work all takes longer.
var productTime = flag.Duration("product-time", 0, "how long TestProduct… may take to know a device: 5s where nothing runs beside it [any]")

// inTime holds a run against that; named says of a verdict that the device is
// found and named in it.
func inTime(t *testing.T, out string, at []time.Duration, named func(measure.Verdict) bool) {
	t.Helper()
	var known, located time.Duration
	for i, line := range strings.Split(strings.TrimSuffix(out, "\n"), "\n") {
		var v measure.Verdict
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		switch {
		case v.Type == "verdict" && known == 0 && named(v):
			known = at[i]
		case v.Type == "location" && located == 0:
			located = at[i]
		}
	}
	t.Logf("found and named after %.2f s, located after %.2f s", known.Seconds(), located.Seconds())
	if known == 0 || located == 0 || *productTime > 0 && max(known, located) > *productTime {
		t.Errorf("never, or more than %s", *productTime)
	}
}

// TestProductTLS: programs that end TLS themselves on the second router, with
// a root that the client's system trusts and one that it does not.
func TestProductTLS(t *testing.T) {
	t.Parallel()
	for _, product := range []struct {
		name    string
		program func(dir string) kernel.Program
		web     redirect
		tls     redirect
		vendor  string // what it is known as, "" if it is not
	}{
		{"mitmproxy", func(dir string) kernel.Program {
			return kernel.Program{Args: []string{"mitmdump", "--mode", "transparent", "--listen-port", "8080", "--set", "confdir=" + dir, "--ssl-insecure", "--set", "block_global=false"},
				Env: append(os.Environ(), "HOME="+dir)}
		}, redirect{"tcp", "80", "8080"}, redirect{"tcp", "443", "8080"}, "mitmproxy"},
		{"sslsplit", func(dir string) kernel.Program {
			key, cert := filepath.Join(dir, "proxy.key"), filepath.Join(dir, "proxy.pem")
			return kernel.Program{Before: [][]string{{"openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "30", "-subj", "/CN=Some Operator CA"}},
				Args: []string{"sslsplit", "-D", "-u", "root", "-k", key, "-c", cert, "http", "0.0.0.0", "8080", "https", "0.0.0.0", "8443"}}
		}, redirect{"tcp", "80", "8080"}, redirect{"tcp", "443", "8443"}, ""},
	} {
		for _, trusted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/trusted=%v", product.name, trusted), func(t *testing.T) {
				t.Parallel()
				program := product.program(t.TempDir())
				needsPrograms(t, program.Args[0], "iptables", "openssl")
				w := rawWorld(t, "clean")
				dir := t.TempDir()
				program = product.program(dir)
				env := []string{"SSL_CERT_FILE=" + filepath.Join(dir, "ca.pem"), "SSL_CERT_DIR=" + filepath.Join(dir, "none")}
				if trusted {
					env[1] = "SSL_CERT_DIR=" + dir // the program's own root is there
				}
				targets := []string{"https://news.example/", "https://old.example/"}
				out, at := onKernelDated(t, w, dir, onSecondRouter(w, program, product.web, product.tls), "check", append([]string{"-4", "--locate", "--identify"}, targets...), env...)
				inTime(t, out, at, func(v measure.Verdict) bool {
					return slices.ContainsFunc(v.Findings, func(f measure.Finding) bool {
						return f.Method == measure.TLSInterception && (product.vendor == "" || f.Match != nil)
					})
				})
				seen := 0
				for _, v := range ofType[measure.Verdict](t, out, "verdict") {
					t.Logf("%s in %d ms, %d bytes: %+v", v.Target, v.ElapsedMS, v.BytesSent+v.BytesReceived, v.Findings)
					if !slices.Contains(targets, v.Target) {
						continue
					}
					seen++
					if !slices.ContainsFunc(v.Findings, func(f measure.Finding) bool {
						return f.Method == measure.TLSInterception && f.Interference == measure.InterferenceConfirmed &&
							(product.vendor == "") == (f.Match == nil) && (f.Match == nil || f.Match.Product == product.vendor)
					}) {
						t.Errorf("%s: %+v", v.Target, v)
					}
				}
				if seen != len(targets) {
					t.Errorf("%d verdicts", seen)
				}
				atSecondRouter(t, out)
				isIdentified(t, out, "tls", product.vendor)
			})
		}
	}
}

// TestProductDnsmasq: every question to port 53 is led to dnsmasq on the
// second router, whichever resolver it was for.
func TestProductDnsmasq(t *testing.T) {
	t.Parallel()
	needsPrograms(t, "dnsmasq", "iptables")
	w := rawWorld(t, "clean")
	link := onSecondRouter(w, kernel.Program{
		Args: []string{"dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file", "--server=" + w.Client.Resolver, "--log-facility=-"},
	}, redirect{"udp", "53", "53"}, redirect{"tcp", "53", "53"})
	out, at := onKernelDated(t, w, t.TempDir(), link, "check", []string{"-4", "--locate", "--identify", "https://news.example/"})
	inTime(t, out, at, func(v measure.Verdict) bool {
		return slices.ContainsFunc(v.Findings, func(f measure.Finding) bool { return f.Method == measure.DNSInterception && f.Match != nil })
	})
	verdicts := ofType[measure.Verdict](t, out, "verdict")
	if len(verdicts) != 2 {
		t.Errorf("%d verdicts", len(verdicts))
	}
	for _, v := range verdicts {
		t.Logf("%s in %d ms, %d bytes: %+v", v.Target, v.ElapsedMS, v.BytesSent+v.BytesReceived, v.Findings)
		i := slices.IndexFunc(v.Findings, func(f measure.Finding) bool {
			return f.Method == measure.DNSInterception && f.Interference == measure.InterferenceConfirmed
		})
		if i < 0 {
			t.Errorf("%s: %+v", v.Target, v)
			continue
		}
		if m := v.Findings[i].Match; v.Target == measure.LineTarget && (m == nil || m.Product != "dnsmasq") {
			t.Errorf("it is not named: %+v", m)
		}
	}
	atSecondRouter(t, out)
	isIdentified(t, out, "dns", "dnsmasq")
}
