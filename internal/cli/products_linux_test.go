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
	"sync/atomic"
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
		program func(w *lab.World, dir string) kernel.Program
		web     redirect
		tls     redirect
		vendor  string // what it is known as, "" if it is not
	}{
		{"mitmdump", func(w *lab.World, dir string) kernel.Program {
			return kernel.Program{Args: []string{"mitmdump", "--mode", "transparent", "--listen-port", "8080", "--set", "confdir=" + dir, "--ssl-insecure", "--set", "block_global=false"},
				Env: append(os.Environ(), "HOME="+dir)}
		}, redirect{"tcp", "80", "8080"}, redirect{"tcp", "443", "8080"}, "mitmproxy"},
		{"sslsplit", func(w *lab.World, dir string) kernel.Program {
			key, cert := filepath.Join(dir, "proxy.key"), filepath.Join(dir, "proxy.pem")
			return kernel.Program{Before: [][]string{{"openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "30", "-subj", "/CN=Some Operator CA"}},
				Args: []string{"sslsplit", "-D", "-u", "root", "-k", key, "-c", cert, "http", "0.0.0.0", "8080", "https", "0.0.0.0", "8443"}}
		}, redirect{"tcp", "80", "8080"}, redirect{"tcp", "443", "8443"}, ""},
		{"squid", func(w *lab.World, dir string) kernel.Program {
			key, cert := filepath.Join(dir, "proxy.key"), filepath.Join(dir, "proxy.pem")
			p := squid(t, w, dir, fmt.Sprintf("https_port 8443 intercept ssl-bump tls-cert=%s tls-key=%s generate-host-certificates=on dynamic_cert_mem_cache_size=4MB\n"+
				"sslcrtd_program /usr/lib/squid/security_file_certgen -s %s/certificates -M 4MB\nssl_bump bump all\ntls_outgoing_options flags=DONT_VERIFY_PEER\nsslproxy_cert_error allow all\n", cert, key, dir))
			p.Before = [][]string{{"openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "30", "-subj", "/CN=Another Operator CA"},
				{"/usr/lib/squid/security_file_certgen", "-c", "-s", dir + "/certificates", "-M", "4MB"}}
			return p
		}, redirect{"tcp", "80", "8080"}, redirect{"tcp", "443", "8443"}, ""},
	} {
		for _, trusted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/trusted=%v", product.name, trusted), func(t *testing.T) {
				t.Parallel()
				needsPrograms(t, product.name, "iptables", "openssl")
				w := rawWorld(t, "clean")
				dir := t.TempDir()
				program := product.program(w, dir)
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

var squids atomic.Int64

// squid is a Squid that takes what is led to its port 8080, and what more says.
// It gives up root's rights by itself, which it cannot where nobody else is
// mapped: so it is started as its own user.
func squid(t *testing.T, w *lab.World, dir, more string) kernel.Program {
	conf := filepath.Join(dir, "squid.conf")
	text := "http_port 3128\nhttp_port 8080 intercept\nhttp_access allow all\npid_filename none\naccess_log none\ncache_log " + dir + "/cache.log\ncache deny all\ncoredump_dir " + dir +
		"\nnetdb_filename none\npinger_enable off\nshutdown_lifetime 1 seconds\nvisible_hostname proxy\ndns_nameservers " + w.Client.Resolver + "\n" + more
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Error(err)
	}
	// Its shared memory has its service's name, and stays when it is killed.
	name := fmt.Sprintf("govah%d", squids.Add(1)+int64(os.Getpid())*100)
	t.Cleanup(func() {
		left, _ := filepath.Glob("/dev/shm/" + name + "-*")
		for _, file := range left {
			os.Remove(file)
		}
	})
	return kernel.Program{Args: []string{"unshare", "--user", "--map-user=13", "--map-group=13", "squid", "-N", "-n", name, "-f", conf}}
}

// TestProductMail: sslsplit passes mail connections on, unread, on the second
// router, which leads to it only what would reach the server: the TTL with
// which SYNs die tells nothing, that of what is said on a connection does.
func TestProductMail(t *testing.T) {
	t.Parallel()
	needsPrograms(t, "sslsplit", "iptables")
	file := t.TempDir() + "/mail.toml"
	if err := os.WriteFile(file, fmt.Appendf(nil, mailScenario, ""), 0o600); err != nil {
		t.Fatal(err)
	}
	link := onSecondRouter(rawWorld(t, file), kernel.Program{Args: []string{"sslsplit", "-D", "-u", "root", "tcp", "0.0.0.0", "10587"}}, redirect{"tcp", "587", "10587"})
	// The server is behind nine routers; the first has taken one off by then.
	rule := &link.Programs[0].Before[0]
	*rule = append(*rule, "-m", "ttl", "--ttl-gt", "8")
	out := commandOnKernel(t, link, "locate", "--json", "-4", "--address", "45.10.0.10", "--consent", "--control", "open.example", "smtp://open.example")
	for _, l := range ofType[measure.Location](t, out, "location") {
		if l.ServerTTL != 2 || l.ByAnswers || !slices.ContainsFunc(l.Hops, func(h measure.Hop) bool { return h.TTL == 9 && h.Answered > 0 }) {
			t.Errorf("the first SYN was answered: %d, %+v", l.ServerTTL, l.Hops)
		}
	}
	atSecondRouter(t, out)
}

// TestProductWeb: programs that take plain web requests, and no others, on the
// second router: they are found, named where they have a name, and located, are
// not said to block or alter what they do not, and what is encrypted is not
// accused. nginx goes by the Host, whatever address was meant.
func TestProductWeb(t *testing.T) {
	t.Parallel()
	for name, product := range map[string]string{"squid": "Squid", "nginx": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needsPrograms(t, name, "iptables")
			w := rawWorld(t, "clean")
			dir := t.TempDir()
			program := squid
			if name == "nginx" {
				program = nginx
			}
			link := onSecondRouter(w, program(t, w, dir, ""), redirect{"tcp", "80", "8080"})
			out, at := onKernelDated(t, w, dir, link, "check", []string{"-4", "--locate", "--identify", "https://news.example/", "http://plain.example/"})
			is := func(f measure.Finding) bool {
				name := ""
				if f.Match != nil {
					name = f.Match.Product
				}
				return f.Method == measure.HTTPProxy && f.Interference == measure.InterferenceConfirmed && name == product
			}
			inTime(t, out, at, func(v measure.Verdict) bool { return slices.ContainsFunc(v.Findings, is) })
			for _, v := range ofType[measure.Verdict](t, out, "verdict") {
				t.Logf("%s in %d ms, %d bytes: %+v", v.Target, v.ElapsedMS, v.BytesSent+v.BytesReceived, v.Findings)
				switch {
				case v.Target == "https://news.example/" && len(v.Findings) > 0,
					slices.ContainsFunc(v.Findings, func(f measure.Finding) bool { return f.Method != measure.HTTPProxy }),
					// One that says nothing of itself in a page is the line's alone.
					v.Target == measure.LineTarget && !slices.ContainsFunc(v.Findings, is),
					v.Target == "http://plain.example/" && product != "" && !slices.ContainsFunc(v.Findings, is):
					t.Errorf("%s: %+v", v.Target, v)
				}
			}
			atSecondRouter(t, out)
			if product != "" {
				isIdentified(t, out, "http", product)
			}
		})
	}
}

// nginx is one that takes what is led to its port 8080.
func nginx(t *testing.T, w *lab.World, dir, more string) kernel.Program {
	conf := filepath.Join(dir, "nginx.conf")
	text := "user root root; daemon off; master_process off; pid " + dir + "/pid; error_log stderr; events {}\nhttp {\n access_log off; resolver " + w.Client.Resolver + " ipv6=off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		text += fmt.Sprintf(" %s_temp_path %s/%[1]s;\n", kind, dir)
	}
	text += " server { listen 8080; location / { proxy_set_header Host $http_host; proxy_pass http://$host$request_uri; } }\n" + more + "}\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Error(err)
	}
	return kernel.Program{Args: []string{"nginx", "-c", conf, "-p", dir}}
}

// TestProductResolver: every question to port 53 is led to a program on the
// second router, whichever resolver it was for.
func TestProductResolver(t *testing.T) {
	t.Parallel()
	for program, product := range map[string]string{"dnsmasq": "dnsmasq", "unbound": "Unbound", "named": "BIND", "pdns_recursor": "PowerDNS Recursor"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			needsPrograms(t, program, "iptables")
			w := rawWorld(t, "clean")
			dir := t.TempDir()
			conf, text := filepath.Join(dir, "conf"), ""
			var p kernel.Program
			switch program {
			case "dnsmasq":
				p.Args = []string{program, "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file", "--server=" + w.Client.Resolver, "--log-facility=-"}
			case "unbound":
				text = "server:\n interface: 0.0.0.0\n access-control: 0.0.0.0/0 allow\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n use-syslog: no\n module-config: iterator\n" +
					"forward-zone:\n name: .\n forward-addr: " + w.Client.Resolver + "\nremote-control:\n control-enable: no\n"
				p.Args = []string{program, "-d", "-c", conf}
			case "named":
				text = fmt.Sprintf("options { directory %q; listen-on { any; }; listen-on-v6 { none; }; allow-query { any; }; allow-recursion { any; }; forward only; forwarders { %s; }; dnssec-validation no; pid-file none; session-keyfile none; };\ncontrols { };\n", dir, w.Client.Resolver)
				p.Args = []string{program, "-g", "-c", conf}
			default:
				p.Args = []string{program, "--daemon=no", "--local-address=0.0.0.0", "--allow-from=0.0.0.0/0", "--forward-zones-recurse=.=" + w.Client.Resolver, "--socket-dir=" + dir, "--config-dir=" + dir, "--security-poll-suffix=", "--dnssec=off"}
			}
			if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, at := onKernelDated(t, w, dir, onSecondRouter(w, p, redirect{"udp", "53", "53"}, redirect{"tcp", "53", "53"}), "check", []string{"-4", "--locate", "--identify", "https://news.example/"})
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
				if m := v.Findings[i].Match; v.Target == measure.LineTarget && (m == nil || m.Product != product) {
					t.Errorf("it is not named: %+v", m)
				}
			}
			atSecondRouter(t, out)
			isIdentified(t, out, "dns", product)
		})
	}
}
