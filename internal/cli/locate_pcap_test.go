package cli

import (
	"path/filepath"
	"strings"
	"testing"
)

// A pair of captures that CenTrace published is read by the command: the link
// in words, and with -v the outcome as published.
func TestLocateCaptures(t *testing.T) {
	const dir = "../../../shared/data/centrace"
	control, _ := filepath.Glob(dir + "/222.138.4.221_archive.org_example.com.pcap")
	test, _ := filepath.Glob(dir + "/222.138.4.221_archive.org_archive.org.pcap")
	if len(control) != 1 || len(test) != 1 {
		t.Skip("../shared/data/centrace is not here")
	}
	code, out, errOut := runMain(t, "", "locate", "-v", "--pcap", control[0], test[0])
	out = strings.Join(strings.Fields(out), " ")
	for _, want := range []string{"hop 12", "hop 13", "219.158.18.65", "CAN_IDENTIFY_SERVER", "RST"} {
		if code != exitDone || !strings.Contains(out, want) {
			t.Errorf("exit %d, no %s in %s %s", code, want, out, errOut)
		}
	}
}
