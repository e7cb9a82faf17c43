package wire_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"govah/packet"
	"govah/wire"
	"govah/wire/host"
)

// sentHello is the bytes of a ClientHello as they arrive.
func sentHello(t *testing.T, h *wire.Hello, sni string, alpn []string) []byte {
	t.Helper()
	got := make(chan []byte, 1)
	at := listen(t, func(c net.Conn) {
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		var head [5]byte
		io.ReadFull(c, head[:])
		body := make([]byte, int(head[3])<<8|int(head[4]))
		io.ReadFull(c, body)
		got <- append(head[:], body...)
	})
	ctx, l := context.Background(), newLog()
	conn, o := wire.Connect(ctx, host.New(), l, wire.Meta{}, wire.ConnectSpec{Remote: at})
	if conn == nil {
		t.Fatalf("connect: %+v", o)
	}
	defer conn.Abort()
	_, o = wire.Handshake(ctx, l, wire.Meta{}, conn, wire.HandshakeSpec{SNI: sni, Hello: h, ALPN: alpn}, &wire.Trust{})
	b := <-got
	if o.Sent != int64(len(b)) || o.SNI != sni {
		t.Errorf("the step says %d bytes to %q, %d arrived", o.Sent, o.SNI, len(b))
	}
	return b
}

func TestHelloPair(t *testing.T) {
	for _, kind := range []string{"chrome", "chrome-small", "go"} {
		for seed := range int64(8) {
			h, err := wire.NewHello(kind, seed)
			if err != nil {
				t.Fatal(err)
			}
			test, control, none := sentHello(t, h, "blocked.example", nil), sentHello(t, h, "control.example", nil), sentHello(t, h, "", nil)
			if len(test) != len(control) {
				t.Fatalf("%s: %d bytes against %d", kind, len(test), len(control))
			}
			a, err := packet.ParseClientHelloStream(test)
			if err != nil {
				t.Fatal(err)
			}
			b, err := packet.ParseClientHelloStream(control)
			if err != nil {
				t.Fatal(err)
			}
			n, err := packet.ParseClientHelloStream(none)
			if err != nil {
				t.Fatal(err)
			}
			if a.SNI != "blocked.example" || b.SNI != "control.example" || n.SNI != "" {
				t.Errorf("%s: server names %q, %q, %q", kind, a.SNI, b.SNI, n.SNI)
			}
			if !slices.Equal(a.Extensions, b.Extensions) || !slices.Equal(a.Suites, b.Suites) || !slices.Equal(a.Groups, b.Groups) || !slices.Equal(a.Versions, b.Versions) {
				t.Errorf("%s: the pair differs in more than the name:\n%+v\n%+v", kind, a, b)
			}
			if without := slices.DeleteFunc(slices.Clone(a.Extensions), func(e uint16) bool { return e == 0 }); !slices.Equal(without, n.Extensions) {
				t.Errorf("%s: without a name the order is %x, with it %x", kind, n.Extensions, a.Extensions)
			}
			if bytes.Equal(test[11:43], control[11:43]) {
				t.Errorf("%s: the random is not fresh", kind)
			}
			if kind != "go" && !slices.Equal(a.ALPN, []string{"h2", "http/1.1"}) {
				t.Errorf("%s: ALPN %q", kind, a.ALPN)
			}
			hasPQ := slices.Contains(a.Groups, 4588)
			if hasPQ == (kind == "chrome-small") || (len(test) > 1400) == (kind == "chrome-small") {
				t.Errorf("%s: post-quantum group %v, %d bytes", kind, hasPQ, len(test))
			}
		}
	}
}

func TestHelloSeed(t *testing.T) {
	order := func(seed int64) []uint16 {
		h, err := wire.NewHello("chrome", seed)
		if err != nil {
			t.Fatal(err)
		}
		p, err := packet.ParseClientHelloStream(sentHello(t, h, "a.example", nil))
		if err != nil {
			t.Fatal(err)
		}
		return p.Extensions
	}
	if !slices.Equal(order(1), order(1)) {
		t.Error("the same seed gives another layout")
	}
	if slices.Equal(order(1), order(2)) {
		t.Error("another seed gives the same layout")
	}
}

func TestHelloALPN(t *testing.T) {
	h, _ := wire.NewHello("chrome", 1)
	p, err := packet.ParseClientHelloStream(sentHello(t, h, "a.example", []string{"http/1.1"}))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.ALPN, []string{"http/1.1"}) {
		t.Errorf("ALPN %q", p.ALPN)
	}
	if _, err := wire.NewHello("netscape", 1); err == nil {
		t.Error("an unknown layout is accepted")
	}
}
