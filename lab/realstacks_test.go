package lab_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"govah/lab"
	"govah/lab/box"
	"govah/wire"
)

const scenario = `
schema = 1
title = "one client, one site"
about = "For boxes in front of real network stacks."
[[client-network]]
name = "home"
asn = 64500
country = "ZZ"
delay = "2ms"
[[client-network.box]]
at = 2
[[network]]
name = "hoster"
asn = 64501
country = "ZZ"
delay = "2ms"
[[site]]
name = "site.example"
network = "hoster"
addresses = ["45.10.0.20", "2a0e:1000::20"]
http = "same"
size = 30000
`

// Both ends have a real TCP/IP stack; what a box forges must be what such a
// stack accepts, and what it alters must not be noticed.
func TestRealStacks(t *testing.T) {
	name := []string{"site.example"}
	type try struct {
		port uint16
		want string // of outcome
	}
	for what, c := range map[string]struct {
		rule box.Rule
		try
	}{
		"nothing":             {box.Rule{Layer: "tls", Names: []string{"other.example"}, Action: "drop"}, try{443, "handshake, 200"}},
		"reset, both ends":    {box.Rule{Layer: "tls", Names: name, Action: "reset"}, try{443, "reset"}},
		"reset, R":            {box.Rule{Layer: "tls", Names: name, Action: "reset", Flags: "R"}, try{443, "reset"}},
		"reset, client":       {box.Rule{Layer: "tls", Names: name, Action: "reset", Ends: "client", Count: 3, Growing: true}, try{443, "reset"}},
		"reset, server alone": {box.Rule{Layer: "tls", Names: name, Action: "reset", Ends: "server"}, try{443, "timeout"}},
		"reset, on the path":  {box.Rule{Layer: "tls", Names: name, Action: "reset", OnPath: true}, try{443, "reset"}},
		"reset of the SYN":    {box.Rule{Layer: "tcp", Segment: "syn", Action: "reset", OnPath: true}, try{443, "refused"}},
		"replies reset":       {box.Rule{Layer: "tls", Names: name, Action: "reset-replies"}, try{443, "reset"}},
		"residual reset":      {box.Rule{Layer: "tcp", Segment: "syn", Action: "drop", Residual: "3-tuple", For: "60s", Then: "reset"}, try{443, "refused"}},
		"alert":               {box.Rule{Layer: "tls", Names: name, Action: "alert", Alert: 40}, try{443, "alert"}},
		"drop":                {box.Rule{Layer: "tls", Names: name, Action: "drop"}, try{443, "timeout"}},
		"after the handshake": {box.Rule{Layer: "tls", Names: name, Action: "drop", Handshaken: true}, try{443, "handshake, timeout"}},
		"after some records":  {box.Rule{Layer: "tls", Names: name, Action: "drop-after", Records: 2, Handshaken: true}, try{443, "handshake, timeout"}},
		"freeze":              {box.Rule{Layer: "tls", Names: name, Action: "freeze", Bytes: 16000}, try{443, "handshake, timeout"}},
		"unreachable":         {box.Rule{Layer: "ip", Ports: []int{443}, Action: "unreachable"}, try{443, "unreachable"}},
		"page":                {box.Rule{Layer: "http", Names: name, Action: "page", Body: "blocked"}, try{80, "403 blocked"}},
		"page, on the path":   {box.Rule{Layer: "http", Names: name, Action: "page", Body: "blocked", OnPath: true}, try{80, "403 blocked"}},
		"header":              {box.Rule{Layer: "http", Names: name, Action: "inject-header", Header: []string{"X-Injected: yes"}}, try{80, "200 yes 30000, 200"}},
		"script":              {box.Rule{Layer: "http", Names: name, Action: "inject-script", Body: "<script>1</script>"}, try{80, "200 script 30018, 200"}},
		"HTTP, nothing":       {box.Rule{Layer: "http", Names: []string{"other.example"}, Action: "drop"}, try{80, "200 30000, 200"}},
	} {
		for family, address := range map[string]string{"IPv4": "45.10.0.20", "IPv6": "2a0e:1000::20"} {
			t.Run(what+"/"+family, func(t *testing.T) {
				t.Parallel()
				s, err := lab.Parse([]byte(scenario))
				if err != nil {
					t.Fatal(err)
				}
				s.Clients[0].Boxes[0].Rules = []box.Rule{c.rule}
				w, err := lab.New(s, lab.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				remote := netip.AddrPortFrom(netip.MustParseAddr(address), c.port)
				if c.rule.Then == "reset" { // the first SYN is the trigger
					outcome(t, w, remote, 200*time.Millisecond)
				}
				if got := outcome(t, w, remote, 900*time.Millisecond); got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
			})
		}
	}
}

// outcome visits the site and says in a few words how that ended.
func outcome(t *testing.T, w *lab.World, remote netip.AddrPort, patience time.Duration) string {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := w.Network().Dial(ctx, wire.DialSpec{Flow: wire.Flow{Remote: remote}})
	if err != nil {
		return word(err)
	}
	defer conn.Abort()
	conn.SetDeadline(time.Now().Add(patience))
	var rw io.ReadWriter = conn
	out := ""
	if remote.Port() == 443 {
		c := tls.Client(conn, &tls.Config{ServerName: "site.example", RootCAs: w.Public(), Time: w.Now})
		if err := c.Handshake(); err != nil {
			return word(err)
		}
		rw, out = c, "handshake, "
	}
	b := bufio.NewReader(rw)
	get := func() (*http.Response, string, error) {
		if _, err := io.WriteString(rw, "GET / HTTP/1.1\r\nHost: site.example\r\n\r\n"); err != nil {
			return nil, "", err
		}
		r, err := http.ReadResponse(b, nil)
		if err != nil {
			return nil, "", err
		}
		body, err := io.ReadAll(r.Body)
		return r, string(body), err
	}
	r, body, err := get()
	if err != nil {
		return out + word(err)
	}
	out += http.StatusText(r.StatusCode)
	out = strings.NewReplacer("OK", "200", "Forbidden", "403").Replace(out)
	if remote.Port() == 443 {
		return out
	}
	if len(body) < 100 {
		return out + " " + body
	}
	if x := r.Header.Get("X-Injected"); x != "" {
		out += " " + x
	}
	if strings.Count(body, "<script>1</script>") == 1 {
		out += " script"
	}
	out += " " + strconv.Itoa(len(body))
	// The connection goes on.
	if r, body, err = get(); err != nil {
		return out + ", " + word(err)
	}
	if r.StatusCode != 200 || len(body) != 30000 {
		return out + ", another answer"
	}
	return out + ", 200"
}

func word(err error) string {
	var alert tls.AlertError
	switch {
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.As(err, &alert), strings.Contains(err.Error(), "handshake failure"):
		return "alert"
	}
	return err.Error()
}
