package packet

import (
	"bufio"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"
)

// initials are the first two datagrams of quic-go v0.65.0 dialling
// blocked.example over QUIC v1 and v2: it splits the ClientHello around the
// server name and sends the pieces out of order.
func initials(t testing.TB) map[string][][]byte {
	t.Helper()
	f, err := os.Open("testdata/quic-go-v0.65.0-initials.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string][][]byte{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		version, text, _ := strings.Cut(lines.Text(), " ")
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		out[version] = append(out[version], b)
	}
	return out
}

func TestQUICGoInitials(t *testing.T) {
	for version, datagrams := range initials(t) {
		for _, order := range [][]int{{0, 1}, {1, 0}} {
			var s CryptoStream
			if _, err := s.Add(datagrams[order[0]]); !errors.Is(err, ErrMore) {
				t.Fatalf("version %s: one of two datagrams: %v", version, err)
			}
			h, err := s.Add(datagrams[order[1]])
			if err != nil || h.SNI != "blocked.example" || len(h.ALPN) != 1 || h.ALPN[0] != "h3" || len(h.KeyShares) == 0 {
				t.Fatalf("version %s, order %v: %+v, %v", version, order, h, err)
			}
		}
		h, err := ParseLongHeader(datagrams[0])
		if err != nil || !h.Initial {
			t.Errorf("version %s: long header %+v, %v", version, h, err)
		}
		damaged := append([]byte(nil), datagrams[0]...)
		damaged[len(damaged)-1] ^= 1
		if _, err := new(CryptoStream).Add(damaged); !errors.Is(err, ErrNotQUIC) {
			t.Errorf("version %s: a damaged Initial was taken: %v", version, err)
		}
	}
}

// After the server's first flight the client addresses it by another
// connection id, and goes on with the keys of the first.
func TestInitialAfterServersFlight(t *testing.T) {
	first, _ := hex.DecodeString("c300000001088394c8f03e5157080000449e00000002")
	later, _ := hex.DecodeString("c30000000108f067a5502a4262b50000449e00000002")
	hello := clientHello(t, "later.example")[5:]
	half := len(hello) / 2
	frame := func(off int, data []byte) []byte {
		f := []byte{6, 0x40 | byte(off>>8), byte(off), 0x40 | byte(len(data)>>8), byte(len(data))}
		return append(append(f, data...), make([]byte, 1162-5-len(data))...)
	}
	var s CryptoStream
	if _, err := s.Add(sealInitial(t, first, frame(0, hello[:half]))); !errors.Is(err, ErrMore) {
		t.Fatal(err)
	}
	wrong := sealInitial(t, later, frame(half, hello[half:])) // keys of the new id
	own, _, err := DecryptInitial(wrong)
	if err != nil || len(own) != 1 {
		t.Fatalf("an Initial by itself: %v", err)
	}
	with := sealWith(t, first, later, frame(half, hello[half:]))
	if _, _, err := DecryptInitial(with); err == nil {
		t.Fatal("the keys of the new connection id opened it")
	}
	if h, err := s.Add(with); err != nil || h.SNI != "later.example" {
		t.Fatalf("%+v, %v", h, err)
	}
}
