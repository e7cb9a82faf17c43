package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"govah/lab"
	"govah/lab/kernel"
	"govah/measure"
)

// kernelRows picks what is run again on the kernel's own stack: rows of the
// gauntlet's main line, of every layer, both accused and innocent.
func kernelRows(truth map[string]*lab.Truth) (targets []string) {
	for _, name := range []string{
		"https://instead.dns.example/", "https://before.dns.example/", "https://loopback.dns.example/", "https://nxdomain.dns.example/",
		"https://lies.resolver.example/", "https://nx.resolver.example/", "https://same-network.resolver.example/",
		"https://drop.ip.example/", "https://reset.ip.example/", "https://unreachable.ip.example/",
		"https://reset.tls.example/", "https://reset-client.tls.example/", "https://reset-three.tls.example/", "https://drop.tls.example/",
		"https://drop-in.tls.example/", "https://alert.tls.example/", "https://www.suffix.example/",
		"http://iframe.http.example/", "http://unknown-page.http.example/", "http://redirect.http.example/", "http://reset.http.example/", "http://drop.http.example/",
		"https://name.quic.example/",
		"http://plain-http.example/", "https://both.example/", "http://upgrade.example/", "https://h3.example/", "https://tls12.example/", "https://only4.example/",
		"https://big.example/", "https://moved.example/", "https://rotating.example/", "https://shared-one.example/", "https://shared-two.example/", "https://geodns.example/",
		"https://resets-unknown.example/", "https://alerts-unknown.example/", "https://slow.example/", "https://captcha.example/", "tcp://ssh.example:22",
	} {
		if truth[name] != nil {
			targets = append(targets, name)
		}
	}
	return targets
}

// TestKernelSuite runs the command that a user runs on the kernel's own
// network stack, without rights, in namespaces made here, in front of the
// gauntlet: same targets, same truth.
func TestKernelSuite(t *testing.T) {
	t.Parallel()
	w := rawWorld(t, "gauntlet")
	truth := w.Truth()
	targets := kernelRows(truth)
	if len(targets) < 30 {
		t.Fatalf("only %d rows", len(targets))
	}
	began := time.Now()
	stdout := onKernel(t, w, "check", targets)
	seen := 0
	for _, v := range ofType[measure.Verdict](t, stdout, "verdict") {
		seen++
		if p := truth[v.Target].Compare(v, true); p != "" {
			t.Errorf("%s: %s", v.Target, p)
		}
	}
	if seen != len(targets)+1 { // the line's own
		t.Errorf("%d verdicts for %d targets and the line", seen, len(targets))
	}
	t.Logf("%d rows on the kernel's own stack in %s", seen, time.Since(began).Round(time.Millisecond))
	if t.Failed() && *traces != "" {
		os.WriteFile(filepath.Join(*traces, "kernel.jsonl"), []byte(stdout), 0o600)
	}
}

// needsKernel skips a test where namespaces cannot be made.
func needsKernel(t *testing.T) {
	t.Helper()
	if err := kernel.Supported(); errors.Is(err, kernel.ErrUnavailable) {
		t.Skipf("this machine does not let users make namespaces: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// rawWorld is a scenario for a kernel's client, until the test ends.
func rawWorld(t *testing.T, scenario string) *lab.World {
	t.Helper()
	needsKernel(t)
	s, err := lab.Load(scenario)
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.New(s, lab.Options{Raw: true, At: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// onKernel runs a command against targets in namespaces made here, in front of
// a world, and returns its JSON lines.
func onKernel(t *testing.T, w *lab.World, command string, targets []string) string {
	t.Helper()
	return onKernelIn(t, w, t.TempDir(), oneRouter(w), command, targets)
}

// oneRouter is the line of a client without rights, behind one router.
func oneRouter(w *lab.World) kernel.Link {
	link := kernel.Of(w)
	link.Routers = 1
	return link
}

// onKernelIn is onKernel with the folder that the measurement file m.jsonl is
// written to, and a line of its own. The environment is this process's and env.
func onKernelIn(t *testing.T, w *lab.World, dir string, link kernel.Link, command string, targets []string, env ...string) string {
	t.Helper()
	out, _ := onKernelDated(t, w, dir, link, command, targets, env...)
	return out
}

// onKernelDated is onKernelIn, and when each line was written, counted from
// the first: that of the run, before anything is sent.
func onKernelDated(t *testing.T, w *lab.World, dir string, link kernel.Link, command string, targets []string, env ...string) (string, []time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var running sync.WaitGroup
	hctx, stop := context.WithCancel(ctx)
	defer running.Wait()
	defer stop()
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), w.PublicPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{command, "--consent", "--pace", "fast", "--json", "-o", filepath.Join(dir, "m.jsonl"), "--ca-file", filepath.Join(dir, "ca.pem"), "--deadline", "4m"}
	for _, site := range w.Sites("helper") {
		url, err := mountHelper(hctx, &running, w, site.Name)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "--helper", url)
	}
	for _, d := range w.Sites("doh") {
		args = append(args, "--doh", "https://"+d.Name+"/dns-query")
	}
	for _, c := range w.Sites("canary") {
		args = append(args, "--control", c.Name)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append(args, targets...)...)
	cmd.Env = append(append(os.Environ(), asGovah+"=1", "HOME="+dir), env...)
	var stdout dated
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := kernel.Run(ctx, link, cmd); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	at := make([]time.Duration, len(stdout.ended))
	for i, end := range stdout.ended {
		at[i] = end.Sub(stdout.ended[0])
	}
	return stdout.text.String(), at
}

// commandOnKernel runs the command behind a link, with nothing but what it is
// given, and gives what it prints.
func commandOnKernel(t *testing.T, link kernel.Link, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	var out, errs strings.Builder
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), asGovah+"=1", "HOME="+t.TempDir()), &out, &errs
	if err := kernel.Run(ctx, link, cmd); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	return out.String()
}

// dated keeps what is written, and when each line of it ended.
type dated struct {
	text  bytes.Buffer
	ended []time.Time
}

func (d *dated) Write(b []byte) (int, error) {
	for range bytes.Count(b, []byte("\n")) {
		d.ended = append(d.ended, time.Now())
	}
	return d.text.Write(b)
}

// TestKernelIdentify: what is found out about a device is the same in the lab
// and on the kernel's own network stack.
func TestKernelIdentify(t *testing.T) {
	t.Parallel()
	w := rawWorld(t, "gauntlet")
	targets := []string{"https://reset.tls.example/", "http://iframe.http.example/"}
	kernels := clusters(t, onKernel(t, w, "identify", append([]string{"-4"}, targets...)))
	var out, errs bytes.Buffer
	if code := Main(t.Context(), append([]string{"identify", "--lab", "gauntlet", "-4", "--json", "-o", filepath.Join(t.TempDir(), "m.jsonl")}, targets...), strings.NewReader(""), &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	labs := clusters(t, out.String())
	for trigger, cluster := range labs {
		if kernels[trigger] != cluster {
			t.Errorf("%s: %s in the lab, %q on the kernel", trigger, cluster, kernels[trigger])
		}
	}
	if len(labs) != len(targets) || len(kernels) != len(labs) {
		t.Errorf("of %d targets %d told in the lab, %d on the kernel", len(targets), len(labs), len(kernels))
	}
}

// clusters are the ids of a run's identifications, by payload, family and name.
func clusters(t *testing.T, out string) map[string]string {
	t.Helper()
	ids := map[string]string{}
	for _, id := range ofType[measure.Identification](t, out, "identification") {
		key := fmt.Sprintf("%s %s %s", id.Payload, id.Family, id.Trigger.Value)
		ids[key] = id.Cluster
		t.Logf("%s: %s %s, %d probes, %v", key, id.Outcome, id.Cluster, id.Probes, id.Properties)
	}
	return ids
}
