package check_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"govah/check"
	"govah/identify"
	"govah/lab"
	"govah/lab/kernel"
	"govah/measure"
	"govah/wire"
	"govah/wire/host"
)

func TestMain(m *testing.M) {
	kernel.Main()
	os.Exit(m.Run())
}

// kernelDevices each block a name of their own by resets, on one path. Beside
// the first, each differs in one mark.
var kernelDevices = []struct{ rule, mark, value string }{
	{"", "ip-id", "zero"},
	{"ttl = 128", "ip-ttl", "128"},
	{"ttl = 255", "ip-ttl", "255"},
	{"ipid = 13330", "ip-id", "0x3412"},
	{"copy-ipid = true", "ip-id", "copied"},
	{"copy-ipid = true\nipid-steps = [4]", "ip-id", "ours+4"},
	{"count-ipid = true", "ip-id", "+1"},
	{"random-ipid = true", "ip-id", "varied"},
	{"df = true", "df", "yes"},
	{"window = 1234", "window", "1234"},
	{"random-window = true", "window", "varied"},
	{"count = 3", "packets", "3"},
	{"flags = \"R\"", "flags", "R"},
	{"flags = \"R RA RA\"", "flags", "R,RA,RA"},
	{"offsets = [0, 12503]", "seq", "expected,+12503"},
	{"ack = \"+3\"", "ack", "seq+3"},
	{"data = \"\\u0001\\u0002\"", "payload", "0102"},
}

// ordinaryMarks are those of the first.
var ordinaryMarks = map[string]string{"ip-ttl": "64", "ip-id": "zero", "df": "no", "flags": "RA", "packets": "1", "window": "zero", "seq": "expected", "ack": "expected", "payload": "none"}

const insideVariable = "GOVAH_MARKS_AT"

// TestKernelMarkRules: on the kernel's own network stack, with the right to
// capture in a namespace made here, devices that differ in one mark are told
// apart by it.
func TestKernelMarkRules(t *testing.T) {
	if err := kernel.Supported(); errors.Is(err, kernel.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	var rules strings.Builder
	for i, d := range kernelDevices {
		fmt.Fprintf(&rules, "[[client-network.box.rule]]\nlayer = \"tls\"\nnames = [\"d%d.example\"]\naction = \"reset\"\nends = \"client\"\n%s\n", i, d.rule)
	}
	s, err := lab.Parse([]byte("schema = 1\ntitle = \"a path\"\nabout = \"for a test\"\n[[client-network]]\nname = \"home\"\nabout = \"a line\"\nhops = 4\ndelay = \"2ms\"\n[[client-network.box]]\nat = 2\n" +
		rules.String() + "[[network]]\nname = \"hosting\"\nhops = 1\n[[site]]\nname = \"open.example\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.New(s, lab.Options{Raw: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestMarksInside$", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), insideVariable+"="+s.Sites[0].AllAddresses()[0].String())
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	link := kernel.Of(w)
	link.Routers, link.Privileged = 1, true
	if err := kernel.Run(t.Context(), link, cmd); err != nil {
		t.Fatalf("%v\n%s\n%s", err, &out, &errs)
	}
	seen := 0
	for line := range strings.Lines(out.String()) {
		i := seen
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var id measure.Identification
		if err := json.Unmarshal([]byte(line), &id); err != nil || i >= len(kernelDevices) {
			t.Fatalf("%v in %q", err, line)
		}
		seen++
		got, d := found(&id), kernelDevices[i]
		if got[d.mark] != d.value {
			t.Errorf("%s: %s is %q, want %q; all: %v", d.rule, d.mark, got[d.mark], d.value, got)
		}
		differ := 0
		for name, v := range ordinaryMarks {
			if got[name] != v {
				differ++
			}
		}
		if differ == 0 && i > 0 {
			t.Errorf("%s: not told apart from the first: %v", d.rule, got)
		}
	}
	if seen != len(kernelDevices) {
		t.Errorf("%d of %d devices:\n%s", seen, len(kernelDevices), &out)
	}
}

// TestMarksInside is the part of TestKernelMarkRules that runs in the client's
// namespace; it prints what it finds out, in the order of the devices.
func TestMarksInside(t *testing.T) {
	at := os.Getenv(insideVariable)
	if at == "" {
		return
	}
	table := identify.Documented(nil)
	found := make([]*measure.Identification, len(kernelDevices))
	var all sync.WaitGroup
	for i := range kernelDevices {
		all.Go(func() {
			log := wire.NewLog(time.Now(), nil)
			spec := check.FormSpec{Payload: identify.TLS, Name: fmt.Sprintf("d%d.example", i), At: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(at), 443)}}
			if err := check.ReadForms(t.Context(), check.Config{Network: host.New(), Seed: uint64(i + 1), Pace: check.PaceFast}, log, table, spec); err != nil {
				t.Error(err)
				return
			}
			found[i] = table.Infer(&measure.Measurement{Observations: log.Observations()})
		})
	}
	all.Wait()
	for _, id := range found {
		line, err := json.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%s\n", line)
	}
}
