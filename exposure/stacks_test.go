package exposure

import (
	"bufio"
	"crypto/tls"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// TestRealStacks: what crypto/tls and quic-go write, and not only what these
// tests make.
func TestRealStacks(t *testing.T) {
	tape := newTape(31)
	near, far := net.Pipe()
	go tls.Client(near, &tls.Config{ServerName: "stacks.example"}).HandshakeContext(t.Context())
	buf := make([]byte, 16<<10)
	n, err := far.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	far.Close()
	tape.segment = 500
	tape.open(own6, 443).says(string(buf[:n]))

	f, err := os.Open("../packet/testdata/quic-go-v0.65.0-initials.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ports := map[string]uint16{} // a connection of each version
	for lines := bufio.NewScanner(f); lines.Scan(); {
		version, text, _ := strings.Cut(lines.Text(), " ")
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if ports[version] == 0 {
			ports[version] = uint16(40000 + len(ports))
		}
		tape.udp(netip.AddrPortFrom(own4, ports[version]), 443, b)
	}
	c := count(t, tape.file(t))
	if c.TLS != (Hellos{Hellos: 1, Named: 1, Names: 1}) || c.QUIC != (Hellos{Hellos: 2, Named: 2, Names: 1}) || c.Names != 2 {
		t.Errorf("TLS %+v, QUIC %+v, %d names", c.TLS, c.QUIC, c.Names)
	}
}
