package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"govah/measure"
	"govah/packet"
)

// marksOf are the properties of a run's identifications, by payload.
func marksOf(t *testing.T, out string) map[string]map[string]string {
	t.Helper()
	found := map[string]map[string]string{}
	for _, id := range ofType[measure.Identification](t, out, "identification") {
		m := map[string]string{}
		for _, p := range id.Properties {
			m[p.Name] = p.Value
		}
		found[id.Payload] = m
	}
	return found
}

// TestKernelMarks: with the right to capture, on the kernel's own network
// stack, the packets of a device are described as the device is made, it is
// the same behaviour as without the right in the lab, the file alone gives the
// same answer again, and the packets of locating are kept.
func TestKernelMarks(t *testing.T) {
	t.Parallel()
	w := rawWorld(t, "gauntlet")
	dir := t.TempDir()
	targets := []string{"https://reset-three.tls.example/", "http://wiretap.http.example/"}
	link := oneRouter(w)
	link.Privileged = true
	out := onKernelIn(t, w, dir, link, "identify", append([]string{"-4", "--locate"}, targets...))
	ids, marks := clusters(t, out), marksOf(t, out)
	for payload, want := range map[string]map[string]string{
		// Each of the three has a TTL and a window of its own (CN-04).
		"tls": {"flags": "RA,RA,RA", "packets": "3", "ip-ttl": "rising", "window": "rising", "ip-id": "zero", "df": "no", "seq": "expected", "ack": "expected", "payload": "none"},
		// IN-01.
		"http": {"flags": "FPA", "packets": "1", "ip-ttl": "64", "ip-id": "0x00f2", "df": "no", "seq": "expected", "ack": "expected"},
	} {
		for name, value := range want {
			if got := marks[payload][name]; got != value {
				t.Errorf("%s: %s is %q, want %q", payload, name, got, value)
			}
		}
	}
	var lab, errs bytes.Buffer
	if code := Main(t.Context(), append([]string{"identify", "--lab", "gauntlet", "-4", "--json", "-o", filepath.Join(t.TempDir(), "m.jsonl")}, targets...), strings.NewReader(""), &lab, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	for trigger, cluster := range clusters(t, lab.String()) {
		if ids[trigger] != cluster {
			t.Errorf("%s: %s without a capture in the lab, %q with one on the kernel", trigger, cluster, ids[trigger])
		}
	}
	for payload, m := range marksOf(t, lab.String()) {
		if m["flags"] != "" || marks[payload] == nil {
			t.Errorf("%s: in the lab %v", payload, m)
		}
	}
	var again bytes.Buffer
	if code := Main(t.Context(), []string{"judge", "--json", filepath.Join(dir, "m.jsonl")}, strings.NewReader(""), &again, &errs); code != 0 {
		t.Fatalf("judge: exit code %d: %s", code, errs.String())
	}
	for payload, m := range marksOf(t, again.String()) {
		for name, v := range marks[payload] {
			if m[name] != v {
				t.Errorf("%s: judged again %s is %q, not %q", payload, name, m[name], v)
			}
		}
	}
	checkCapture(t, filepath.Join(dir, "locate.pcapng"), out)
	if left, _ := filepath.Glob(filepath.Join(dir, ".govah-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// checkCapture reads what was captured: the flows of the run's own probes in
// both directions, with the ICMP about them, and nothing else.
func checkCapture(t *testing.T, path, out string) {
	t.Helper()
	remotes := map[string]bool{}
	ports := map[uint16]bool{}
	for _, m := range ofType[measure.Measurement](t, out, "measurement") {
		for _, o := range m.Observations {
			if o.Stage == measure.StageLocate && o.Path != nil {
				remotes[o.Remote] = true
				ports[uint16(o.Path.LocalPort)] = true
			}
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st, err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := packet.NewCaptureReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var sent, received, icmp, resets int
	for {
		_, raw, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p, err := packet.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		near, far := p.SrcPort, p.Destination()
		switch {
		case p.IsICMPError():
			q, err := packet.ParseQuote(p.Quoted)
			if err != nil {
				t.Fatal(err)
			}
			icmp++
			near, far = q.Src.Port(), q.Dst
		case remotes[p.Source().String()]:
			received++
			near, far = p.DstPort, p.Source()
			if p.Flags&packet.RST != 0 {
				resets++
			}
		default:
			sent++
		}
		if !remotes[far.String()] || !slices.Contains([]string{"443", "80"}, far.String()[strings.LastIndex(far.String(), ":")+1:]) {
			t.Errorf("a packet of another flow: %d and %s", near, far)
		}
		if near < 20000 || near > 32000 {
			t.Errorf("a packet of port %d, which no search uses", near)
		}
	}
	t.Logf("%d sent, %d received (%d resets), %d ICMP; ports %d", sent, received, resets, icmp, len(ports))
	if sent < 20 || received < 5 || icmp < 5 || resets < 3 || r.Skipped+r.Truncated > 0 {
		t.Errorf("%d sent, %d received (%d resets), %d ICMP, %d skipped, %d truncated", sent, received, resets, icmp, r.Skipped, r.Truncated)
	}
}
